//! The automatic reply of a rule, where C10 allows one.

use super::place::Placement;
use crate::change::Changed;
use crate::context::{AutomaticReply, Changes, Context, OutboxEntry};
use crate::conversation::{Conversation, Direction, StoredMessage, answer_to};
use crate::event::{Automatic, DeliveryState, Event, Message};
use crate::id::MessageId;
use crate::time::Moment;

/// Automatic replies in one conversation, for ever.
const MAX_IN_CONVERSATION: i64 = 1;
/// Automatic replies to one address in a day.
const MAX_TODAY: i64 = 5;

/// Writes the reply that the rule which opened the ticket asks for. Says why not,
/// if there is one that may not be sent.
#[expect(
    clippy::too_many_arguments,
    reason = "a step of decide_message with all it has gathered"
)]
pub(super) fn answer(
    event: &Event,
    cause: &MessageId,
    message: &Message,
    placement: &Placement<'_>,
    conversation: &mut Conversation,
    context: &Context,
    now: Moment,
    changes: &mut Changes,
) -> Result<(), &'static str> {
    let (Some(rule), Some(ticket), true) = (placement.rule, &placement.ticket, placement.is_opened) else {
        return Ok(());
    };
    let Some(template) = &rule.then.automatic_reply else {
        return Ok(());
    };
    may_reply(message, conversation, context)?;
    let text = template
        .replace("{{ticket.number}}", &ticket.number)
        .replace("{{ticket.subject}}", &ticket.subject);
    let reply_id = MessageId::automatic(cause, &rule.name);
    let plan = context.book.accounts.get(&event.account);
    let delivery = match plan.is_some_and(|plan| plan.live) {
        true => DeliveryState::Sent,
        false => DeliveryState::Queued,
    };
    let mut stored = StoredMessage {
        id: reply_id.clone(),
        conversation_id: conversation.id.clone(),
        account: event.account.clone(),
        direction: Direction::Outbound,
        author: format!("rule:{}", rule.name),
        message: Message {
            subject: message.subject.clone(),
            recipients: answer_to(message),
            automatic: Some(Automatic::Reply),
            ..Message::of_ours(&event.account, &reply_id, text)
        },
        changed: Changed::default(),
        occurred_at: now,
        received_at: now,
        provider_sequence: None,
        sequence: None,
        delivery: Some(delivery),
        delivery_error: None,
        raw: None,
        request_sha256: None,
    };
    changes.announcements.push(conversation.add(&mut stored));
    changes.messages.push(stored);
    if delivery == DeliveryState::Queued {
        changes.outbox.push(OutboxEntry {
            message_id: reply_id.clone(),
            conversation_id: conversation.id.clone(),
            account: event.account.clone(),
            due_at: now,
        });
    }
    changes.automatic_replies.push(AutomaticReply {
        message_id: reply_id,
        conversation_id: conversation.id.clone(),
        to: message.sender.identity(),
        at: now,
    });
    Ok(())
}

/// Contract C10.
fn may_reply(message: &Message, conversation: &Conversation, context: &Context) -> Result<(), &'static str> {
    if message.automatic.is_some() {
        return Err("the message is automatic");
    }
    if message.suppress_automatic_reply {
        return Err("the sender asks for none");
    }
    if conversation.may_write().is_err() {
        return Err("the contact has opted out");
    }
    let sent = context
        .replies_in_conversation
        .get(&conversation.id)
        .copied()
        .unwrap_or(0);
    if sent >= MAX_IN_CONVERSATION {
        return Err("the conversation has had its automatic reply");
    }
    let today = context
        .replies_today
        .get(&message.sender.identity())
        .copied()
        .unwrap_or(0);
    if today >= MAX_TODAY {
        return Err("the address has had its automatic replies of the day");
    }
    Ok(())
}
