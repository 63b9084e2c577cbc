//! Values that the tests start from: what a decision about a new message wants
//! written, built by hand, so that the store is tested by itself.

use std::collections::BTreeSet;

use model::change::Changed;
use model::contact::{Contact, Identity, Owned, Party, Proof};
use model::context::{AccountPlan, Announcement, Book, Changes, OutboxEntry, Replacing};
use model::conversation::{Conversation, Direction, StoredMessage};
use model::event::{Body, DeliveryState, Event, Message, Raw, RawContent, Recipient};
use model::evidence::Evidence;
use model::id::{ContactId, ConversationId, MessageId, TicketId};
use model::outbound::Join;
use model::sla;
use model::ticket::priority::Level;
use model::ticket::{self, Actor, Command, Opening, Ticket, TicketEvent};
use model::time::Moment;
use model::trace::Trace;

use crate::apply::Advance;

pub(crate) const TOPIC: &str = "tributary.events.v1";

/// The step of a partition.
pub(crate) fn advance(partition: i32, from: i64, to: i64) -> Advance {
    Advance {
        topic: TOPIC.to_owned(),
        partition,
        from,
        to,
    }
}

/// Moment number `seconds` of the tests' time.
pub(crate) fn at(seconds: i64) -> Moment {
    Moment::from_ms(1_790_000_000_000 + seconds * 1000)
}

pub(crate) fn identity(address: &str) -> Identity {
    Identity {
        scheme: "email".to_owned(),
        address: address.to_owned(),
        verified: true,
    }
}

pub(crate) fn message(address: &str) -> Message {
    Message {
        sender: Party {
            scheme: "email".to_owned(),
            address: address.to_owned(),
            name: Some("Ada".to_owned()),
            verified: true,
        },
        recipients: vec![Recipient {
            role: "to".to_owned(),
            address: address.to_owned(),
            name: None,
        }],
        subject: Some("Broken".to_owned()),
        text: "It does not work.".to_owned(),
        html: None,
        attachments: Vec::new(),
        evidence: Evidence::default(),
        automatic: None,
        suppress_automatic_reply: false,
        external_ids: Vec::new(),
        identities: Vec::new(),
        fields: Default::default(),
    }
}

/// An event with the message number `number` of `address`.
pub(crate) fn event(number: u64, address: &str) -> Event {
    Event {
        id: message_id(number).to_string(),
        account: "support".to_owned(),
        channel: "email".to_owned(),
        thread_key: "t".to_owned(),
        occurred_at: at(0),
        received_at: at(0),
        provider_sequence: None,
        traceparent: None,
        raw: raw(),
        body: Body::MessageReceived(Box::new(Message {
            external_ids: vec![external_id(number)],
            ..message(address)
        })),
    }
}

pub(crate) fn message_id(number: u64) -> MessageId {
    MessageId::received("support", "email", &number.to_string())
}

pub(crate) fn external_id(number: u64) -> String {
    format!("<{number}@example.org>")
}

pub(crate) fn raw() -> Raw {
    Raw {
        content: RawContent::Inline(vec![0, 159, 146, 150]),
        method: "POST".to_owned(),
        url: "/in/support".to_owned(),
        headers: vec![("webhook-id".to_owned(), "1".to_owned())],
    }
}

pub(crate) fn conversation(number: u64) -> Conversation {
    let message = message_id(number);
    Conversation {
        id: ConversationId::begun_by(&message),
        account: "support".to_owned(),
        channel: "email".to_owned(),
        contact_id: ContactId::met_by(&message),
        subject: Some("Broken".to_owned()),
        thread: "t".to_owned(),
        thread_name: None,
        ticket_id: Some(TicketId::opened_by(&message)),
        participants: BTreeSet::from([identity(&format!("{number}@example.org"))]),
        suggested: None,
        consent: None,
        epoch: 1,
        last_sequence: 1,
        last_message_at: at(0),
        created_at: at(0),
        version: 1,
    }
}

/// A new case and its events.
pub(crate) fn opened(number: u64) -> (Ticket, Vec<TicketEvent>) {
    let message_id = message_id(number);
    let received_at = at(i64::try_from(number).unwrap());
    let opening = Opening {
        id: TicketId::opened_by(&message_id),
        number: format!("CS{number:07}"),
        kind: "case".to_owned(),
        subject: "Broken".to_owned(),
        contact_id: ContactId::met_by(&message_id),
        conversation_id: ConversationId::begun_by(&message_id),
        message_id,
        queue: "support".to_owned(),
        impact: Level::Medium,
        urgency: Level::Medium,
        policy: None,
        tags: Vec::new(),
        follows: None,
        at: received_at,
    };
    let actor = Actor::Contact(opening.contact_id.clone());
    let events = ticket::open(&opening, &actor, received_at).unwrap();
    let ticket = Ticket::fold(&opening.id, &events, &sla::Book::default()).unwrap();
    (ticket, events)
}

/// What a first message of a stranger makes: the number names everything.
pub(crate) fn arrival(number: u64) -> Changes {
    let conversation = conversation(number);
    let (ticket, events) = opened(number);
    let stored = inbound(number, &conversation.id);
    let identity = identity(&format!("{number}@example.org"));
    let mut changes = Changes {
        contacts: vec![Contact {
            id: conversation.contact_id.clone(),
            name: Some("Ada".to_owned()),
            identity: identity.clone(),
            created_at: at(0),
            head: None,
            version: 0,
        }],
        identities: vec![Owned {
            identity,
            contact_id: conversation.contact_id.clone(),
            proof: Some(Proof::Sender {
                message_id: message_id(number),
            }),
        }],
        messages: vec![stored],
        traces: vec![Trace {
            message_id: message_id(number),
            decided_at: at(0),
            traceparent: None,
            rules_version: 1,
            threading: Vec::new(),
            rules: Vec::new(),
            outcome: "a new case".to_owned(),
            facts: serde_json::json!({}),
        }],
        announcements: vec![announcement(conversation.id.as_str(), 1, "message.received")],
        ..Changes::default()
    };
    for event in events {
        let told = announcement(ticket.id.as_str(), event.version, "ticket.changed");
        changes.announcements.push(told);
        changes.ticket_events.push((ticket.id.clone(), event));
    }
    changes.conversations.insert(conversation.id.clone(), new(conversation));
    changes.tickets.insert(ticket.id.clone(), new(ticket));
    changes
}

/// All of these in one.
pub(crate) fn together(all: impl IntoIterator<Item = Changes>) -> Changes {
    let mut sum = Changes::default();
    for changes in all {
        sum.contacts.extend(changes.contacts);
        sum.identities.extend(changes.identities);
        sum.claims.extend(changes.claims);
        sum.conversations.extend(changes.conversations);
        sum.tickets.extend(changes.tickets);
        sum.ticket_events.extend(changes.ticket_events);
        sum.messages.extend(changes.messages);
        sum.outbox.extend(changes.outbox);
        sum.traces.extend(changes.traces);
        sum.announcements.extend(changes.announcements);
    }
    sum
}

pub(crate) fn inbound(number: u64, conversation_id: &ConversationId) -> StoredMessage {
    StoredMessage {
        id: message_id(number),
        conversation_id: conversation_id.clone(),
        account: "support".to_owned(),
        direction: Direction::Inbound,
        author: "con_a".to_owned(),
        message: Message {
            external_ids: vec![external_id(number)],
            ..message("ada@example.org")
        },
        occurred_at: at(i64::try_from(number).unwrap()),
        received_at: at(i64::try_from(number).unwrap()),
        provider_sequence: None,
        changed: Changed::default(),
        sequence: Some(1),
        delivery: None,
        delivery_error: None,
        raw: Some(raw()),
        request_sha256: None,
    }
}

/// A reply of ours in the conversation of arrival `number`, and its way out.
pub(crate) fn reply(number: u64, conversation: &Conversation) -> Changes {
    let id = MessageId::authored("ada", &number.to_string());
    let mut row = conversation.clone();
    row.version += 1;
    row.last_sequence += 1;
    let mut changes = Changes {
        messages: vec![StoredMessage {
            id: id.clone(),
            direction: Direction::Outbound,
            author: "ada".to_owned(),
            message: Message {
                external_ids: vec![id.to_string()],
                ..message("ada@example.org")
            },
            sequence: Some(row.last_sequence),
            delivery: Some(DeliveryState::Queued),
            raw: None,
            request_sha256: Some("00".to_owned()),
            ..inbound(number, &conversation.id)
        }],
        outbox: vec![OutboxEntry {
            message_id: id,
            conversation_id: conversation.id.clone(),
            account: "support".to_owned(),
            due_at: at(0),
        }],
        announcements: vec![announcement(conversation.id.as_str(), row.version, "message.written")],
        ..Changes::default()
    };
    changes.conversations.insert(
        row.id.clone(),
        Replacing {
            expected_version: conversation.version,
            row,
        },
    );
    changes
}

pub(crate) fn announcement(subject: &str, version: i64, kind: &str) -> Announcement {
    Announcement {
        subject: subject.to_owned(),
        version,
        kind: kind.to_owned(),
        occurred_at: at(0),
        data: serde_json::json!({ "account": "support" }),
    }
}

pub(crate) fn new<T>(row: T) -> Replacing<T> {
    Replacing {
        expected_version: 0,
        row,
    }
}

/// The ticket with one more event: somebody was assigned.
pub(crate) fn assigned(ticket: &Ticket, assignee: &str) -> Changes {
    let command = Command::Assign {
        assignee: Some(assignee.to_owned()),
    };
    let actor = Actor::Person("ada".to_owned());
    Changes::of_command(ticket, &command, &actor, at(1), &sla::Book::default()).unwrap()
}

/// Accounts whose messages join tickets like this.
pub(crate) fn joining(join: Join) -> Book {
    let plan = |name: &str| AccountPlan {
        name: name.to_owned(),
        channel: "email".to_owned(),
        queue: None,
        join,
        live: false,
    };
    let accounts = ["support", "elsewhere"].map(|name| (name.to_owned(), plan(name)));
    Book {
        accounts: accounts.into(),
        ..Book::default()
    }
}
