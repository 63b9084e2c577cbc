//! A message of ours that was not written here: by people at the vendor's own inbox,
//! or by another program. It is part of the conversation, and an answer like any
//! other; nothing is sent.
//!
//! Vendors tell of what we sent ourselves in the same way, perhaps before they answer
//! us, so that nobody knows their id of it yet: then its words tell, at vendors who
//! return nothing else of ours.

use crate::change::Changed;
use crate::context::{Changes, Context, MessageReference};
use crate::conversation::{Direction, StoredMessage};
use crate::event::{DeliveryState, Event, Message};
use crate::evidence::weigh;
use crate::id::MessageId;
use crate::ticket::{Actor, Command};
use crate::time::Moment;

use super::{change, find_conversation, whose};

/// As who it was written by is called.
const AUTHOR: &str = "elsewhere";

/// A piece of a longer text is as long as this: of what is shorter nobody can tell
/// whether a person of ours has said the same.
const PIECE_BYTES: usize = 300;

/// For so long after a message was written it may come back; and so far may the
/// vendor's clock be behind ours.
const LATE_MS: i64 = 10 * 60 * 1_000;
const EARLY_MS: i64 = 5_000;

/// Puts it into the conversation with its contact. What we sent ourselves comes back
/// this way too, and changes nothing.
pub(super) fn decide(
    event: &Event,
    message_id: &MessageId,
    message: &Message,
    context: &Context,
    now: Moment,
) -> Changes {
    let mut changes = Changes::default();
    let known = message
        .external_ids
        .iter()
        .filter_map(|id| context.external_ids.get(id));
    if known.flatten().any(|reference| reference.account == event.account) {
        return changes;
    }
    if let Some((ours, is_whole)) = in_flight(event, message, context) {
        return left(event, message, ours, is_whole, context);
    }
    let Some(contact) = message.identities.first() else {
        return super::park(event, "a message of ours without a contact", false);
    };
    // As the contact would have written it.
    let theirs = Message {
        sender: contact.clone(),
        identities: message.identities[1..].to_vec(),
        ..message.clone()
    };
    let verdict = weigh(event, &theirs, context);
    let joined = verdict.joined.as_ref().and_then(|id| context.conversations.get(id));
    let contact_id = match joined {
        Some(conversation) => conversation.contact_id.clone(),
        None => {
            let whose = whose::whose(event, message_id, &theirs, &verdict, context, now);
            changes = whose.changes;
            whose.contact_id
        }
    };
    let mut conversation = find_conversation(event, message_id, &theirs, &verdict, &contact_id, context);
    if let Some(ticket) = conversation.ticket_id.as_ref().and_then(|id| context.tickets.get(id)) {
        let command = Command::Reply {
            message_id: message_id.clone(),
            automatic: false,
        };
        let answered = Changes::of_command(ticket, &command, &Actor::System, now, &context.book.sla);
        changes.extend(answered.unwrap_or_default());
    }
    let expected_version = conversation.version;
    let mut stored = StoredMessage {
        id: message_id.clone(),
        conversation_id: conversation.id.clone(),
        account: event.account.clone(),
        direction: Direction::Outbound,
        author: AUTHOR.to_owned(),
        message: message.clone(),
        changed: Changed::default(),
        occurred_at: event.occurred_at.min(event.received_at),
        received_at: event.received_at,
        provider_sequence: event.provider_sequence,
        sequence: None,
        delivery: Some(DeliveryState::Sent),
        delivery_error: None,
        raw: Some(event.raw.clone()),
        request_sha256: None,
    };
    changes.announcements.push(conversation.add(&mut stored));
    change::adopt_early(&stored, context, &mut changes);
    changes.messages.push(stored);
    changes.replace_conversation(expected_version, conversation);
    changes
}

/// The message of ours on its way in this conversation that this is, or is a part of;
/// and whether it is all of it. In doubt it is none: a message that is shown twice
/// costs less than one that is lost.
fn in_flight<'a>(event: &Event, message: &Message, context: &'a Context) -> Option<(&'a MessageReference, bool)> {
    let thread = message.evidence.thread.clone()?;
    let on_their_way = context.in_flight.get(&(event.account.clone(), thread))?;
    let said = message.text.trim();
    let is_file = said.is_empty() && !message.attachments.is_empty();
    let found = on_their_way.iter().filter_map(|(reference, ours)| {
        let is_uncertain = match reference.delivery? {
            DeliveryState::Queued | DeliveryState::Sending => false,
            DeliveryState::Uncertain => true,
            DeliveryState::Sent | DeliveryState::Failed | DeliveryState::Delivered | DeliveryState::Read => {
                return None;
            }
        };
        let earliest = reference.occurred_at.plus_ms(-EARLY_MS);
        let latest = reference.occurred_at.plus_ms(LATE_MS);
        if event.occurred_at < earliest || event.occurred_at > latest {
            return None;
        }
        let words = ours.text.trim();
        let (is_part, is_whole) = match is_file {
            // One file looks like another: it is ours only while we are at it.
            true => (
                !ours.attachments.is_empty() && !is_uncertain,
                words.is_empty() && ours.attachments.len() == 1,
            ),
            false => (
                words == said || (said.len() >= PIECE_BYTES && words.contains(said)),
                words == said && ours.attachments.is_empty(),
            ),
        };
        (is_part && (is_file || !said.is_empty())).then_some((is_uncertain, reference, is_whole))
    });
    // Of two that say the same the one that we are at.
    let (_, ours, is_whole) = found.min_by_key(|(is_uncertain, ..)| *is_uncertain)?;
    Some((ours, is_whole))
}

/// It is called so, and all of it has left, whatever becomes of the vendor's answer.
fn left(event: &Event, message: &Message, ours: &MessageReference, is_whole: bool, context: &Context) -> Changes {
    let mut changes = Changes::default();
    let names = message.external_ids.iter();
    changes.named = names.map(|name| (ours.message_id.clone(), name.clone())).collect();
    if let Some(conversation) = context.conversations.get(&ours.conversation_id)
        && is_whole
    {
        let mut row = conversation.clone();
        super::move_on(event, ours, DeliveryState::Sent, &mut row, &mut changes);
        if !changes.deliveries.is_empty() {
            changes.replace_conversation(conversation.version, row);
        }
    }
    changes
}
