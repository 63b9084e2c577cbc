//! Reads of tickets, their events, clocks and traces.

use model::id::{ConversationId, TicketId};
use model::ticket::{Ticket, TicketEvent};
use model::time::Moment;
use model::trace::Trace;

use crate::sql::{Statement, json, moment_if_any, parsed, sql};
use crate::write::OPEN;
use crate::{Error, Store};

/// Of all contacts that are one person.
const OF_PERSON: &str = " AND contact_id IN (SELECT k.id FROM contacts AS k WHERE k.id = {}
     UNION ALL SELECT k.id FROM contacts AS k JOIN contacts AS o ON o.head_id = k.head_id WHERE o.id = {})";

/// What a list of tickets is narrowed by; `None` and empty: everything.
#[derive(Clone, Debug, Default)]
pub struct TicketFilter {
    pub kind: Option<String>,
    pub queue: Option<String>,
    pub category: Option<String>,
    pub state: Option<String>,
    pub assignee: Option<String>,
    /// One contact of a person: its tickets are those of all that are one with it.
    pub contact_id: Option<String>,
    pub needs_attention: Option<bool>,
}

impl Store {
    /// Newest first, those before the cursor (opened at, id).
    pub async fn list_tickets(
        &self,
        filter: &TicketFilter,
        before: Option<(Moment, TicketId)>,
        limit: i64,
    ) -> Result<Vec<Ticket>, Error> {
        let statement = list(filter, before, limit);
        self.read_all(statement, |row| json(row, "snapshot")).await
    }

    /// One by its number.
    pub async fn ticket(&self, number: &str) -> Result<Option<Ticket>, Error> {
        let statement = sql("SELECT snapshot FROM tickets WHERE number = $1", "reading a ticket").bind(number);
        Ok(self.read_all(statement, |row| json(row, "snapshot")).await?.pop())
    }

    /// One by its id.
    pub async fn ticket_by_id(&self, id: &TicketId) -> Result<Option<Ticket>, Error> {
        let statement = sql("SELECT snapshot FROM tickets WHERE id = $1", "reading a ticket").bind(id.as_str());
        Ok(self.read_all(statement, |row| json(row, "snapshot")).await?.pop())
    }

    /// All its events, in order.
    pub async fn ticket_events(&self, id: &TicketId) -> Result<Vec<TicketEvent>, Error> {
        let statement = sql(
            "SELECT content FROM ticket_events WHERE ticket_id = $1 ORDER BY version",
            "reading a ticket's events",
        )
        .bind(id.as_str());
        self.read_all(statement, |row| json(row, "content")).await
    }

    /// Traces of the decisions about its messages, in order.
    pub async fn ticket_traces(&self, id: &TicketId) -> Result<Vec<Trace>, Error> {
        let statement = sql(
            "SELECT t.content FROM ticket_events AS e JOIN traces AS t ON t.message_id = e.message_id
             WHERE e.ticket_id = $1 ORDER BY e.version",
            "reading a ticket's traces",
        )
        .bind(id.as_str());
        self.read_all(statement, |row| json(row, "content")).await
    }

    /// Its conversations, the oldest first.
    pub async fn ticket_conversations(&self, id: &TicketId) -> Result<Vec<ConversationId>, Error> {
        let statement = sql(
            "SELECT conversation_id FROM ticket_events WHERE ticket_id = $1 AND conversation_id IS NOT NULL ORDER BY version",
            "reading a ticket's conversations",
        )
        .bind(id.as_str());
        self.read_all(statement, |row| parsed(row, "conversation_id", ConversationId::parse))
            .await
    }

    /// Tickets with a clock whose `next_at` has come, the most overdue first, at most `limit`.
    pub async fn tickets_with_due_clocks(&self, now: Moment, limit: i64) -> Result<Vec<Ticket>, Error> {
        let statement = sql(
            "SELECT snapshot FROM tickets WHERE next_clock_at IS NOT NULL AND next_clock_at <= $1
             ORDER BY next_clock_at LIMIT $2",
            "reading due clocks",
        )
        .bind(now)
        .bind(limit);
        self.read_all(statement, |row| json(row, "snapshot")).await
    }

    /// The earliest `next_at` of all clocks.
    pub async fn next_clock_at(&self) -> Result<Option<Moment>, Error> {
        let statement = sql(
            "SELECT MIN(next_clock_at) AS next_clock_at FROM tickets WHERE next_clock_at IS NOT NULL",
            "reading the next clock",
        );
        let found = self
            .read_all(statement, |row| moment_if_any(row, "next_clock_at"))
            .await?;
        Ok(found.into_iter().flatten().next())
    }
}

/// Only the conditions that count: a plan for all filters at once would read the newest
/// tickets one after another until it has a page of what is asked for.
pub(crate) fn list(filter: &TicketFilter, before: Option<(Moment, TicketId)>, limit: i64) -> Statement {
    let (opened_at, id) = match &before {
        Some((opened_at, id)) => (opened_at.as_ms(), id.as_str()),
        None => (i64::MAX, ""),
    };
    let mut statement = sql(
        "SELECT snapshot FROM tickets WHERE (opened_at, id) < ($1, $2)",
        "reading a list of tickets",
    )
    .bind(opened_at)
    .bind(id);
    for (condition, value) in [
        (" AND kind = {}", &filter.kind),
        (" AND queue = {}", &filter.queue),
        (" AND category = {}", &filter.category),
        (" AND state = {}", &filter.state),
        (" AND assignee = {}", &filter.assignee),
        (OF_PERSON, &filter.contact_id),
    ] {
        if let Some(value) = value {
            statement = statement.with(condition, value);
        }
    }
    // In the text, for their indexes have only such tickets.
    statement = match filter.needs_attention {
        Some(true) => statement.then(" AND needs_attention = 1"),
        Some(false) => statement.then(" AND needs_attention = 0"),
        None => statement,
    };
    if OPEN
        .iter()
        .any(|open| filter.category.as_deref() == Some(open.as_str()))
    {
        statement = statement.then(" AND is_open = 1");
    }
    statement.with(" ORDER BY opened_at DESC, id DESC LIMIT {}", limit)
}
