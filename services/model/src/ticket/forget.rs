//! What a ticket forgets when a conversation of it is erased. The one exception to
//! append-only: events lose what people wrote, and nothing else about them changes.

use super::{Actor, Change, Ticket, TicketEvent};
use crate::context::{Changes, Replacing};
use crate::id::ConversationId;
use crate::sla::Book;
use crate::time::Moment;

/// Takes the contents of a conversation out of a ticket and of its `events`: the
/// subject, if the conversation opened the ticket, and what was noted with
/// resolutions, whatever that was about. The changes hold the ticket, the event
/// that says who erased it and when, and its announcement; `events` are those that
/// lost something.
pub fn forget(
    ticket: &Ticket,
    events: Vec<TicketEvent>,
    conversation_id: &ConversationId,
    actor: Actor,
    now: Moment,
    book: &Book,
) -> (Changes, Vec<TicketEvent>) {
    let mut row = ticket.clone();
    let mut lost = Vec::new();
    for mut event in events {
        let was_opened_by_it =
            matches!(&event.change, Change::Opened { conversation_id: id, .. } if id == conversation_id);
        if was_opened_by_it {
            row.subject.clear();
        }
        let loses = match &mut event.change {
            Change::Opened { subject, .. } if was_opened_by_it => !std::mem::take(subject).is_empty(),
            Change::StateChanged {
                resolution: Some(resolution),
                ..
            } => resolution.notes.take().is_some(),
            _ => false,
        };
        if loses {
            lost.push(event);
        }
    }
    if let Some(resolution) = &mut row.resolution {
        resolution.notes = None;
    }
    let told = TicketEvent {
        version: row.version + 1,
        at: now,
        recorded_at: now,
        actor,
        change: Change::ConversationErased {
            conversation_id: conversation_id.clone(),
        },
    };
    row.apply(&told, book);
    let mut changes = Changes::default();
    changes.add_ticket_event(&row, told);
    let expected_version = ticket.version;
    changes
        .tickets
        .insert(row.id.clone(), Replacing { expected_version, row });
    (changes, lost)
}
