//! Decisions about what stands already: a message changes, a contact's consent.

use std::collections::BTreeMap;

use super::place::Arrival;
use super::whose::Whose;
use crate::change::{Change, Changed, MessageChange, RecordedChange, fold};
use crate::context::{Changes, Context};
use crate::conversation::{Consent, Conversation, StoredMessage};
use crate::event::{ConsentChange, Event, Message};
use crate::evidence::Verdict;
use crate::id::MessageId;
use crate::rule::MISSED;
use crate::ticket::{Actor, Category, Command};
use crate::time::Moment;

/// A change of a message, or nothing if it is known. One that comes before its
/// message waits for it.
pub(super) fn decide_change(event: &Event, told: &MessageChange, context: &Context, now: Moment) -> Changes {
    let mut changes = Changes::default();
    if context.knows_change(&event.id) {
        return changes;
    }
    let mut recorded = RecordedChange {
        id: event.id.clone(),
        account: event.account.clone(),
        external_id: told.external_id.clone(),
        message_id: None,
        change: told.change.clone(),
        occurred_at: event.occurred_at,
        received_at: event.received_at,
        provider_sequence: event.provider_sequence,
    };
    let references = context.external_ids.get(&told.external_id).into_iter().flatten();
    let reference = references.rev().find(|reference| reference.account == event.account);
    let found = reference.and_then(|reference| {
        let conversation = context.conversations.get(&reference.conversation_id)?;
        let original = context.original(&reference.message_id)?;
        Some((reference, conversation, original))
    });
    let Some((reference, conversation, original)) = found else {
        changes.message_changes.insert(recorded.id.clone(), recorded);
        return changes;
    };
    recorded.message_id = Some(reference.message_id.clone());
    let known: Vec<&RecordedChange> = context.changes_of(&reference.message_id).collect();
    let (before, changed_before) = fold(original, known.iter().copied());
    let folded = fold(original, known.into_iter().chain([&recorded]));
    let is_theirs = reference.delivery.is_none();
    let is_edited = before.text != folded.0.text || before.html != folded.0.html;
    if is_theirs
        && is_edited
        && matches!(told.change, Change::Edited { .. })
        && let Some(ticket) = conversation.ticket_id.as_ref().and_then(|id| context.tickets.get(id))
    {
        let command = Command::NeedAttention {
            reason: "a message was edited by its author".to_owned(),
        };
        changes = Changes::of_command(ticket, &command, &Actor::System, now, &context.book.sla).unwrap_or_default();
    }
    let mut row = conversation.clone();
    let missed = |changed: &Changed| changed.call.as_ref().and_then(|call| call.missed);
    if is_theirs && missed(&changed_before).is_none() && missed(&folded.1).is_some() {
        place_call(
            event,
            &reference.message_id,
            &folded,
            &mut row,
            context,
            now,
            &mut changes,
        );
    }
    let mut announcement = row.announce("message.changed", &reference.message_id, event.occurred_at);
    announcement.data["change"] = told.change.as_str().into();
    changes.announcements.push(announcement);
    changes.replace_conversation(conversation.version, row);
    changes.changed_messages.insert(reference.message_id.clone(), folded);
    changes.message_changes.insert(recorded.id.clone(), recorded);
    changes
}

/// A rule asks whether the call was missed, and now it is known: unless it has joined
/// a ticket already, the call finds its own.
fn place_call(
    event: &Event,
    message_id: &MessageId,
    (message, changed): &(Message, Changed),
    conversation: &mut Conversation,
    context: &Context,
    now: Moment,
    changes: &mut Changes,
) {
    let ticket = conversation.ticket_id.as_ref().and_then(|id| context.tickets.get(id));
    let is_placed = ticket.is_some_and(|ticket| !matches!(ticket.category, Category::Closed | Category::Cancelled));
    if is_placed || !context.book.rules.asks_for(MISSED) {
        return;
    }
    let whose = Whose {
        contact_id: conversation.contact_id.clone(),
        changes: Changes::default(),
        lines: Vec::new(),
    };
    let arrival = Arrival {
        event,
        message_id,
        message,
        call: changed.call.as_ref(),
        whose: &whose,
        context,
        now,
    };
    let placement = super::place(&arrival, conversation, changes);
    let verdict = Verdict {
        lines: vec!["the call has ended".to_owned()],
        ..Verdict::default()
    };
    let trace = super::trace(event, message_id, verdict, placement, conversation, context, now);
    changes.traces.push(trace);
}

/// Changes that came before this message join it.
pub(super) fn adopt_early(stored: &StoredMessage, context: &Context, changes: &mut Changes) {
    let mut early: BTreeMap<String, RecordedChange> = BTreeMap::new();
    for recorded in context
        .early_changes
        .iter()
        .chain(context.changes.message_changes.values())
    {
        let is_for_it = recorded.message_id.is_none()
            && recorded.account == stored.account
            && stored.message.external_ids.contains(&recorded.external_id);
        if is_for_it {
            let message_id = Some(stored.id.clone());
            early.insert(
                recorded.id.clone(),
                RecordedChange {
                    message_id,
                    ..recorded.clone()
                },
            );
        }
    }
    if early.is_empty() {
        return;
    }
    let folded = fold(&stored.message, early.values());
    changes.changed_messages.insert(stored.id.clone(), folded);
    changes.message_changes.extend(early);
}

/// A contact's word on whether we may write; the latest counts.
pub(super) fn decide_consent(event: &Event, told: &ConsentChange, context: &Context) -> Changes {
    let mut changes = Changes::default();
    let id = context.threads.get(&(event.account.clone(), told.thread.clone()));
    let Some(conversation) = id.and_then(|id| context.conversations.get(id)) else {
        return changes;
    };
    let is_news = match &conversation.consent {
        Some(known) => known.at <= event.occurred_at && known.given != told.given,
        // Who writes to us may be answered.
        None => !told.given,
    };
    if !is_news {
        return changes;
    }
    let mut row = conversation.clone();
    row.consent = Some(Consent {
        given: told.given,
        reason: told.reason.clone(),
        at: event.occurred_at,
    });
    changes
        .announcements
        .push(row.announce_consent(told.given, event.occurred_at));
    changes.replace_conversation(conversation.version, row);
    changes
}

impl Context {
    fn knows_change(&self, id: &str) -> bool {
        let mut early = self.early_changes.iter();
        let mut known = self.message_changes.values().flatten();
        self.changes.message_changes.contains_key(id)
            || early.any(|recorded| recorded.id == id)
            || known.any(|recorded| recorded.id == id)
    }

    /// The message as it was first written.
    fn original(&self, id: &MessageId) -> Option<&Message> {
        let written = || self.changes.messages.iter().rev().find(|stored| stored.id == *id);
        self.originals
            .get(id)
            .or_else(|| written().map(|stored| &stored.message))
    }

    /// What has changed it so far, in the store and by the decisions before.
    fn changes_of(&self, id: &MessageId) -> impl Iterator<Item = &RecordedChange> {
        let stored = self.message_changes.get(id).into_iter().flatten();
        let written = self.changes.message_changes.values();
        stored.chain(written.filter(move |recorded| recorded.message_id.as_ref() == Some(id)))
    }
}
