//! A ticket is the fold of its append-only events.
//!
//! Rules, agents and clocks all go through [`handle()`]: a command and the present
//! state give events or a refusal (`ticket/handle.rs`); [`Ticket::apply`] folds them
//! (`ticket/fold.rs`). Nothing changes a ticket by another way.

mod fold;
mod forget;
mod handle;

pub mod case;
pub mod incident;
pub mod kind;
pub mod link;
pub mod priority;

use serde::{Deserialize, Serialize};

use crate::id::{ContactId, ConversationId, MessageId, TicketId};
use crate::sla::{Clock, Metric, PolicyReference};
use crate::ticket::link::Relation;
use crate::ticket::priority::{Level, Priority};
use crate::time::Moment;

pub use forget::forget;
pub use handle::{handle, open};

/// A piece of work, folded from its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    pub id: TicketId,
    /// `CS0000001`, `INC0000001`: unique, gaps are allowed.
    pub number: String,
    /// The kind's name, [`kind::Kind::name`].
    pub kind: String,
    /// Empty once the conversation that it came from is erased.
    pub subject: String,
    pub contact_id: ContactId,
    /// A state that the kind declares.
    pub state: String,
    /// The state's category; clocks and reports use this.
    pub category: Category,
    pub queue: String,
    pub impact: Level,
    pub urgency: Level,
    /// From impact × urgency, never set by hand.
    pub priority: Priority,
    pub assignee: Option<String>,
    pub tags: Vec<String>,
    /// Something needs a person's eyes though no state says so, and what. A person's
    /// reply or note clears it.
    pub needs_attention: Option<String>,
    /// When a person of the desk answered for the first time.
    #[serde(default)]
    pub first_reply_at: Option<Moment>,
    pub resolution: Option<Resolution>,
    /// When it was last resolved; `None` while it is open.
    pub resolved_at: Option<Moment>,
    /// When it was closed or cancelled.
    pub closed_at: Option<Moment>,
    pub policy: Option<PolicyReference>,
    pub clocks: Vec<Clock>,
    /// Received time of the message that opened it.
    pub opened_at: Moment,
    pub updated_at: Moment,
    /// Counts its events, gapless from 1: the version a writer compares.
    pub version: i64,
}

/// What states have in common across kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    Open,
    WaitingOnCustomer,
    WaitingInternally,
    Resolved,
    Closed,
    Cancelled,
}

impl Category {
    /// As the store, rules and the API name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::WaitingOnCustomer => "waiting_on_customer",
            Self::WaitingInternally => "waiting_internally",
            Self::Resolved => "resolved",
            Self::Closed => "closed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How it was solved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// One of the kind's resolution codes.
    pub code: String,
    pub notes: Option<String>,
}

/// Something that happened to a ticket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TicketEvent {
    /// The ticket's version after it.
    pub version: i64,
    /// When it happened: for a message its `received_at`, else when it was done.
    /// Later events may lie earlier (a message that was processed late).
    pub at: Moment,
    /// When it was written down.
    pub recorded_at: Moment,
    pub actor: Actor,
    pub change: Change,
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// The person who wrote in.
    Contact(ContactId),
    /// A person of the desk, by name.
    Person(String),
    /// A rule, by name.
    Rule(String),
    /// A clock, or another of Tributary's own workings.
    System,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Change {
    Opened {
        number: String,
        kind: String,
        subject: String,
        contact_id: ContactId,
        conversation_id: ConversationId,
        queue: String,
        impact: Level,
        urgency: Level,
        policy: Option<PolicyReference>,
        tags: Vec<String>,
    },
    ConversationAdded {
        conversation_id: ConversationId,
    },
    /// `late`: it happened before the resolution, so it reopens nothing (C5).
    /// `automatic`: no person wrote it, so it reopens nothing and starts no clock.
    CustomerMessageReceived {
        message_id: MessageId,
        late: bool,
        #[serde(default)]
        automatic: bool,
    },
    /// `automatic`: a rule's answer; it satisfies no clock.
    Replied {
        message_id: MessageId,
        automatic: bool,
    },
    NoteAdded {
        message_id: MessageId,
    },
    Assigned {
        assignee: Option<String>,
    },
    StateChanged {
        state: String,
        category: Category,
        resolution: Option<Resolution>,
    },
    Prioritised {
        impact: Level,
        urgency: Level,
    },
    AttentionNeeded {
        reason: String,
    },
    ClockWarned {
        metric: Metric,
        due_at: Moment,
    },
    ClockBreached {
        metric: Metric,
        due_at: Moment,
    },
    Linked {
        relation: Relation,
        ticket_id: TicketId,
    },
    /// What was said in it was erased, and what the ticket had of it.
    ConversationErased {
        conversation_id: ConversationId,
    },
}

/// What somebody wants to happen to an existing ticket.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A message of the contact's came in, on a conversation of this ticket or
    /// a new one. `at` is its received time.
    Receive {
        message_id: MessageId,
        conversation_id: ConversationId,
        is_new_conversation: bool,
        at: Moment,
        occurred_at: Moment,
        automatic: bool,
    },
    /// A conversation of the same person comes to it.
    AddConversation {
        conversation_id: ConversationId,
    },
    Reply {
        message_id: MessageId,
        automatic: bool,
    },
    Note {
        message_id: MessageId,
    },
    Assign {
        assignee: Option<String>,
    },
    Prioritise {
        impact: Level,
        urgency: Level,
    },
    Hold {
        waiting_on: WaitingOn,
    },
    Resolve {
        resolution: Resolution,
    },
    /// Back to work, after a resolution or when the waiting is over.
    Reopen,
    /// Over for good: the resolution may have been given before.
    Close {
        resolution: Option<Resolution>,
    },
    /// It was no work at all; its clocks count for nothing.
    Cancel,
    /// A clock's next moment has come: its warning or its breach.
    ClockDue {
        metric: Metric,
    },
    /// Something needs a person's eyes.
    NeedAttention {
        reason: String,
    },
    Link {
        relation: Relation,
        ticket_id: TicketId,
    },
}

/// For whom a ticket waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingOn {
    Customer,
    Internal,
}

/// What opens a ticket; there is no ticket yet, so it is no [`Command`].
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    pub id: TicketId,
    pub number: String,
    /// Name of one of [`kind::KINDS`].
    pub kind: String,
    pub subject: String,
    pub contact_id: ContactId,
    pub conversation_id: ConversationId,
    pub message_id: MessageId,
    pub queue: String,
    pub impact: Level,
    pub urgency: Level,
    pub policy: Option<PolicyReference>,
    pub tags: Vec<String>,
    /// A closed ticket that this one follows.
    pub follows: Option<TicketId>,
    /// The message's received time.
    pub at: Moment,
}

#[cfg(test)]
mod tests;
