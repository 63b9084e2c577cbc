//! Tickets and their events.

use std::collections::BTreeMap;

use model::context::{Changes, Replacing};
use model::id::TicketId;
use model::ticket::{Category, Change, Ticket, TicketEvent};

use super::{insert_all, is_new};
use crate::Error;
use crate::connection::Connection;
use crate::sql::{Value, rows, to_json};

/// Somebody still has to do something, or to wait.
pub(crate) const OPEN: [Category; 3] = [Category::Open, Category::WaitingOnCustomer, Category::WaitingInternally];

/// `false` if one is there already, or its number.
pub(super) async fn insert(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO tickets (id, version, contact_id, state, category, is_open, queue, priority, assignee,
             needs_attention, next_clock_at, snapshot, number, kind, opened_at)
         SELECT column1, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12,
             column13, column14, column15, column16
         FROM {rows} WHERE column1 IS NOT NULL",
        "writing tickets",
    );
    for replacing in changes.tickets.values().filter(is_new) {
        let ticket = &replacing.row;
        let mut row = ticket_row(replacing)?;
        row.extend([
            ticket.number.as_str().into(),
            ticket.kind.as_str().into(),
            ticket.opened_at.into(),
        ]);
        statement.push(row);
    }
    insert_all(statement, connection).await
}

/// `false` if somebody else has changed one.
pub(crate) async fn update(connection: &mut Connection, changes: &Changes) -> Result<bool, Error> {
    let mut statement = rows(
        "UPDATE tickets AS t SET version = v.column3, contact_id = v.column4, state = v.column5,
             category = v.column6, is_open = v.column7, queue = v.column8, priority = v.column9,
             assignee = v.column10, needs_attention = v.column11, next_clock_at = v.column12, snapshot = v.column13
         FROM {rows} WHERE t.id = v.column1 AND t.version = v.column2",
        "changing tickets",
    );
    for replacing in changes.tickets.values().filter(|row| !is_new(row)) {
        statement.push(ticket_row(replacing)?);
    }
    insert_all(statement, connection).await
}

/// The columns that change, after the id and the version that they replace.
fn ticket_row(replacing: &Replacing<Ticket>) -> Result<Vec<Value>, Error> {
    let ticket = &replacing.row;
    let next_clock_at = ticket.clocks.iter().filter_map(|clock| clock.next_at).min();
    Ok(vec![
        ticket.id.as_str().into(),
        replacing.expected_version.into(),
        ticket.version.into(),
        ticket.contact_id.as_str().into(),
        ticket.state.as_str().into(),
        ticket.category.as_str().into(),
        OPEN.contains(&ticket.category).into(),
        ticket.queue.as_str().into(),
        i64::from(ticket.priority.number()).into(),
        ticket.assignee.as_deref().into(),
        ticket.needs_attention.is_some().into(),
        next_clock_at.into(),
        to_json(ticket, "writing tickets")?.into(),
    ])
}

/// `false` if somebody else has written one of that version.
pub(crate) async fn insert_events(
    connection: &mut Connection,
    events: &[(TicketId, TicketEvent)],
) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO ticket_events (ticket_id, version, message_id, conversation_id, content)
         SELECT column1, column2, column3, column4, column5 FROM {rows} WHERE column1 IS NOT NULL",
        "writing ticket events",
    );
    let events: BTreeMap<_, _> = events.iter().map(|(id, event)| ((id, event.version), event)).collect();
    for ((id, version), event) in events {
        let message_id = match &event.change {
            Change::CustomerMessageReceived { message_id, .. }
            | Change::Replied { message_id, .. }
            | Change::NoteAdded { message_id } => Some(message_id.as_str()),
            _ => None,
        };
        let conversation_id = match &event.change {
            Change::Opened { conversation_id, .. } | Change::ConversationAdded { conversation_id } => {
                Some(conversation_id.as_str())
            }
            _ => None,
        };
        statement.push(vec![
            id.as_str().into(),
            version.into(),
            message_id.into(),
            conversation_id.into(),
            to_json(event, "writing ticket events")?.into(),
        ]);
    }
    insert_all(statement, connection).await
}
