//! Reads of tickets, their events, clocks and traces.

use crate::{Error, Store};
use model::id::{ConversationId, TicketId};
use model::ticket::{Ticket, TicketEvent};
use model::time::Moment;
use model::trace::Trace;

/// What a list of tickets is narrowed by; `None` and empty: everything.
#[derive(Clone, Debug, Default)]
pub struct TicketFilter {
    pub kind: Option<String>,
    pub queue: Option<String>,
    pub category: Option<String>,
    pub state: Option<String>,
    pub assignee: Option<String>,
    pub contact_id: Option<String>,
    pub needs_attention: Option<bool>,
}

impl Store {
    /// Newest first, those before the cursor (opened at, id).
    pub async fn list_tickets(
        &self,
        _filter: &TicketFilter,
        _before: Option<(Moment, TicketId)>,
        _limit: i64,
    ) -> Result<Vec<Ticket>, Error> {
        unimplemented!()
    }

    /// One by its number.
    pub async fn ticket(&self, _number: &str) -> Result<Option<Ticket>, Error> {
        unimplemented!()
    }

    /// One by its id.
    pub async fn ticket_by_id(&self, _id: &TicketId) -> Result<Option<Ticket>, Error> {
        unimplemented!()
    }

    /// All its events, in order.
    pub async fn ticket_events(&self, _id: &TicketId) -> Result<Vec<TicketEvent>, Error> {
        unimplemented!()
    }

    /// Traces of the decisions about its messages, in order.
    pub async fn ticket_traces(&self, _id: &TicketId) -> Result<Vec<Trace>, Error> {
        unimplemented!()
    }

    /// Its conversations, the oldest first.
    pub async fn ticket_conversations(&self, _id: &TicketId) -> Result<Vec<ConversationId>, Error> {
        unimplemented!()
    }

    /// Tickets with a clock whose `next_at` has come, the most overdue first; and
    /// how many such clocks there are at most `limit`.
    pub async fn tickets_with_due_clocks(&self, _now: Moment, _limit: i64) -> Result<Vec<Ticket>, Error> {
        unimplemented!()
    }

    /// The earliest `next_at` of all clocks.
    pub async fn next_clock_at(&self) -> Result<Option<Moment>, Error> {
        unimplemented!()
    }
}
