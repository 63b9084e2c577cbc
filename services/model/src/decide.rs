//! The decision about one event: pure, so that it can be replayed.
//!
//! Which conversation (by evidence), whose it is and who is one person by it
//! (`decide/whose.rs`), which ticket or none (`decide/place.rs`: by
//! rules and the account's `join`), an automatic reply or none
//! (`decide/answer.rs`: C10), and the trace of why. It never fails: what cannot
//! be decided is parked.

mod answer;
mod change;
mod elsewhere;
mod place;
#[cfg(test)]
mod tests;
mod whose;

use crate::change::Changed;
use crate::contact::{Identity, Party, normalise};
use crate::context::{Changes, Context, MessageReference, ParkedInput, Replacing};
use crate::conversation::{Conversation, Direction, StoredMessage};
use crate::event::{Body, DeliveryReport, DeliveryState, Event, Message, Watermark};
use crate::evidence::{Verdict, weigh};
use crate::id::{ContactId, ConversationId, MessageId};
use crate::ticket::{Command, Ticket, handle};
use crate::time::Moment;
use crate::trace::Trace;

/// Participants that one message may add to a conversation.
const MAX_NEW_PARTICIPANTS: usize = 50;

/// What an event changes, given what is known. No changes: it is a repeat.
pub fn decide(event: &Event, context: &Context, now: Moment) -> Changes {
    match &event.body {
        Body::MessageReceived(message) => match event.message_id() {
            Some(message_id) => decide_message(event, &message_id, message, context, now),
            None => park(event, "the event's id is not a message's", false),
        },
        Body::DeliveryReported(report) => decide_report(event, report, context, now),
        Body::MessageChanged(told) => change::decide_change(event, told, context, now),
        Body::ConsentChanged(told) => change::decide_consent(event, told, context),
        Body::WatermarkMoved(watermark) => decide_watermark(event, watermark, context),
        Body::AccountBroken { reason } => Changes {
            broken_accounts: [(event.account.clone(), (event.occurred_at, reason.clone()))].into(),
            ..Changes::default()
        },
        Body::Parked { reason } => park(event, reason, false),
        Body::Quarantined { reason } => park(event, reason, true),
    }
}

/// Keeps an event's input for a person, with the reason.
pub fn park(event: &Event, reason: &str, quarantined: bool) -> Changes {
    let parked = ParkedInput {
        id: event.id.clone(),
        account: event.account.clone(),
        channel: event.channel.clone(),
        quarantined,
        reason: reason.to_owned(),
        raw: event.raw.clone(),
        received_at: event.received_at,
    };
    Changes {
        parked: vec![parked],
        ..Changes::default()
    }
}

fn decide_message(event: &Event, message_id: &MessageId, message: &Message, context: &Context, now: Moment) -> Changes {
    let mut changes = Changes::default();
    if let Some(known) = context.known_messages.get(message_id) {
        let is_new_account = !known.accounts.is_empty() && !known.accounts.contains(&event.account);
        if is_new_account {
            changes
                .also_arrived_at
                .push((message_id.clone(), event.account.clone()));
        }
        // A tombstone: its blobs came back with it.
        if known.accounts.is_empty() {
            let blobs = message.attachments.iter().map(|attachment| attachment.sha256.clone());
            let blobs = blobs
                .chain(event.raw.blob().map(str::to_owned))
                .filter(|sha256| !sha256.is_empty());
            changes.unneeded_blobs = blobs.map(|sha256| (sha256, now)).collect();
        }
        return changes;
    }
    if message.sender.scheme == Party::OURS {
        return elsewhere::decide(event, message_id, message, context, now);
    }
    let mut verdict = weigh(event, message, context);
    let whose = whose::whose(event, message_id, message, &verdict, context, now);
    let contact_id = &whose.contact_id;
    verdict.lines.extend(whose.lines.iter().cloned());
    let mut conversation = find_conversation(event, message_id, message, &verdict, contact_id, context);
    let expected_version = conversation.version;
    let mut stored = received(event, message_id, message, &conversation.id, contact_id, context);
    changes.announcements.push(conversation.add(&mut stored));
    change::adopt_early(&stored, context, &mut changes);
    changes.messages.push(stored);

    let known = changes.changed_messages.get(message_id);
    let call = known.and_then(|(_, changed)| changed.call.clone());
    let arrival = place::Arrival {
        event,
        message_id,
        message,
        call: call.as_ref(),
        whose: &whose,
        context,
        now,
    };
    let placement = place(&arrival, &mut conversation, &mut changes);
    // What waits is decided later, and its trace is of then.
    if !placement.waits {
        let trace = trace(event, message_id, verdict, placement, &conversation, context, now);
        changes.traces.push(trace);
    }
    changes.replace_conversation(expected_version, conversation);
    changes.extend(whose.changes);
    changes
}

/// Finds the ticket of a message, and writes what becomes of both.
fn place<'a>(
    arrival: &place::Arrival<'a>,
    conversation: &mut Conversation,
    changes: &mut Changes,
) -> place::Placement<'a> {
    let (context, now) = (arrival.context, arrival.now);
    let mut placement = place::place(arrival, conversation);
    if let Some(ticket) = &placement.ticket {
        conversation.ticket_id = Some(ticket.id.clone());
    }
    let replied = answer::answer(
        arrival.event,
        arrival.message_id,
        arrival.message,
        &placement,
        conversation,
        context,
        now,
        changes,
    );
    if let Err(why) = replied {
        placement.outcome.push_str(&format!("; no automatic reply: {why}"));
    }
    write_ticket(&mut placement, context, now, changes);
    placement
}

/// A provider's word on a message of ours: moves it forward or changes nothing.
fn decide_report(event: &Event, report: &DeliveryReport, context: &Context, now: Moment) -> Changes {
    let mut changes = Changes::default();
    let references = context.external_ids.get(&report.external_id).into_iter().flatten();
    let ours = references.filter(|reference| reference.account == event.account);
    let Some(reference) = ours.into_iter().find(|reference| {
        reference
            .delivery
            .is_some_and(|state| report.state.rank() > state.rank())
    }) else {
        return changes;
    };
    let Some(conversation) = context.conversations.get(&reference.conversation_id) else {
        return changes;
    };
    if report.state == DeliveryState::Failed
        && let Some(ticket) = conversation.ticket_id.as_ref().and_then(|id| context.tickets.get(id))
    {
        let command = Command::NeedAttention {
            reason: "an answer could not be delivered".to_owned(),
        };
        let flagged = Changes::of_command(ticket, &command, &crate::ticket::Actor::System, now, &context.book.sla);
        changes = flagged.unwrap_or_default();
    }
    let mut row = conversation.clone();
    let kind = format!("message.{}", report.state.as_str());
    changes
        .announcements
        .push(row.announce(&kind, &reference.message_id, event.occurred_at));
    changes.deliveries.push((reference.message_id.clone(), report.clone()));
    changes.replace_conversation(conversation.version, row);
    changes
}

/// A provider's word on all messages of ours in a thread, up to a moment.
fn decide_watermark(event: &Event, watermark: &Watermark, context: &Context) -> Changes {
    let mut changes = Changes::default();
    let thread = (event.account.clone(), watermark.thread.clone());
    let id = context.threads.get(&thread);
    let Some(conversation) = id.and_then(|id| context.conversations.get(id)) else {
        return changes;
    };
    let mut row = conversation.clone();
    for reference in context.unread.get(&thread).into_iter().flatten() {
        if reference.occurred_at <= watermark.until {
            move_on(event, reference, watermark.state, &mut row, &mut changes);
        }
    }
    if !changes.deliveries.is_empty() {
        changes.replace_conversation(conversation.version, row);
    }
    changes
}

/// Moves a message of ours forward, if it is not there already.
fn move_on(
    event: &Event,
    reference: &MessageReference,
    state: DeliveryState,
    conversation: &mut Conversation,
    changes: &mut Changes,
) {
    if reference.delivery.is_none_or(|known| known.rank() >= state.rank()) {
        return;
    }
    let report = DeliveryReport {
        external_id: reference.message_id.to_string(),
        state,
        error: None,
    };
    let kind = format!("message.{}", state.as_str());
    let announcement = conversation.announce(&kind, &reference.message_id, event.occurred_at);
    changes.announcements.push(announcement);
    changes.deliveries.push((reference.message_id.clone(), report));
}

/// The conversation that the message joins by evidence, or a new one.
fn find_conversation(
    event: &Event,
    message_id: &MessageId,
    message: &Message,
    verdict: &Verdict,
    contact_id: &ContactId,
    context: &Context,
) -> Conversation {
    let joined = verdict.joined.as_ref().and_then(|id| context.conversations.get(id));
    let mut conversation = joined.cloned().unwrap_or_else(|| Conversation {
        id: ConversationId::begun_by(message_id),
        account: event.account.clone(),
        channel: event.channel.clone(),
        contact_id: contact_id.clone(),
        subject: message.subject.clone(),
        thread: message
            .evidence
            .thread
            .clone()
            .unwrap_or_else(|| event.thread_key.clone()),
        thread_name: message.evidence.thread.clone(),
        ticket_id: None,
        participants: std::collections::BTreeSet::new(),
        suggested: verdict.suggested.clone(),
        consent: None,
        epoch: 1,
        last_sequence: 0,
        last_message_at: event.received_at,
        created_at: event.received_at,
        version: 0,
    });
    let written_to = message
        .recipients
        .iter()
        .filter(|recipient| recipient.role != "reply_to");
    let others = written_to.take(MAX_NEW_PARTICIPANTS).map(|recipient| Identity {
        scheme: message.sender.scheme.clone(),
        address: normalise(&recipient.address),
        verified: false,
    });
    for identity in std::iter::once(message.sender.identity()).chain(others) {
        if !conversation.participants.contains(&identity) {
            conversation.participants.insert(identity);
        }
    }
    conversation
}

fn received(
    event: &Event,
    message_id: &MessageId,
    message: &Message,
    conversation_id: &ConversationId,
    contact_id: &ContactId,
    context: &Context,
) -> StoredMessage {
    StoredMessage {
        id: message_id.clone(),
        conversation_id: conversation_id.clone(),
        account: event.account.clone(),
        direction: Direction::Inbound,
        author: contact_id.to_string(),
        message: message.clone(),
        changed: Changed::default(),
        occurred_at: occurred_at(event, message, conversation_id, context),
        received_at: event.received_at,
        provider_sequence: event.provider_sequence,
        sequence: None,
        delivery: None,
        delivery_error: None,
        raw: Some(event.raw.clone()),
        request_sha256: None,
    }
}

/// When it was said: an answer never before what it quotes, whatever the clock says
/// that its time is from (C5).
fn occurred_at(event: &Event, message: &Message, conversation_id: &ConversationId, context: &Context) -> Moment {
    let evidence = &message.evidence;
    let signed = evidence.signed_messages.iter();
    let signed = signed.filter_map(|id| context.signed_messages.get(id));
    let quoted = evidence.quoted_ids.iter();
    let quoted = quoted.filter_map(|id| context.external_ids.get(id)).flatten();
    let answered = signed.chain(quoted);
    let answered = answered.filter(|reference| reference.conversation_id == *conversation_id);
    let earliest = answered.map(|reference| reference.occurred_at.plus_ms(1)).max();
    let said_at = event.occurred_at.min(event.received_at);
    earliest.map_or(said_at, |earliest| earliest.max(said_at))
}

/// The ticket's new form, its events and their announcements.
fn write_ticket(placement: &mut place::Placement<'_>, context: &Context, now: Moment, changes: &mut Changes) {
    let Some(before) = placement.ticket.take() else { return };
    let expected_version = context.tickets.get(&before.id).map_or(0, |known| known.version);
    let mut row: Ticket = before;
    for event in std::mem::take(&mut placement.events) {
        // A new ticket was folded from its first events already.
        if event.version > row.version {
            row.apply(&event, &context.book.sla);
        }
        changes.add_ticket_event(&row, event);
    }
    if let Some(reply) = changes.automatic_replies.first() {
        let command = Command::Reply {
            message_id: reply.message_id.clone(),
            automatic: true,
        };
        let rule = placement.rule.map(|rule| rule.name.clone()).unwrap_or_default();
        for event in handle(&row, &command, &crate::ticket::Actor::Rule(rule), now).unwrap_or_default() {
            row.apply(&event, &context.book.sla);
            changes.add_ticket_event(&row, event);
        }
    }
    if row.version != expected_version {
        changes
            .tickets
            .insert(row.id.clone(), Replacing { expected_version, row });
    }
}

fn trace(
    event: &Event,
    message_id: &MessageId,
    verdict: Verdict,
    placement: place::Placement<'_>,
    conversation: &Conversation,
    context: &Context,
    now: Moment,
) -> Trace {
    let mut trace = Trace {
        message_id: message_id.clone(),
        decided_at: now,
        traceparent: event.traceparent.clone(),
        rules_version: context.book.rules_version,
        threading: verdict.lines,
        rules: placement.tried,
        outcome: format!("conversation {}; {}", conversation.id, placement.outcome),
        facts: serde_json::to_value(placement.facts).unwrap_or_default(),
    };
    trace.limit();
    trace
}
