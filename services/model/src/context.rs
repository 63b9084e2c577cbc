//! A decision's input: everything it may look at, loaded for a whole batch; and
//! its output: the rows that it wants written.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::contact::{Contact, Identity};
use crate::conversation::{Conversation, StoredMessage};
use crate::event::{DeliveryReport, DeliveryState, Raw};
use crate::id::{ContactId, ConversationId, MessageId, TicketId};
use crate::outbound::Join;
use crate::rule::Rule;
use crate::sla;
use crate::ticket::{Ticket, TicketEvent};
use crate::time::Moment;
use crate::trace::Trace;

/// What the settings declare for deciding, at one version of each part. Kept in
/// the store, loaded once and again when a version changes.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub rules_version: i64,
    pub rules: Vec<Rule>,
    /// Names of the queues; the first is the default of accounts that name none.
    pub queues: Vec<Queue>,
    /// By name; a decision opens tickets under the current versions.
    pub current_policies: BTreeMap<String, i64>,
    pub current_calendars: BTreeMap<String, i64>,
    /// Every version of policies and calendars.
    pub sla: sla::Book,
    pub accounts: BTreeMap<String, AccountPlan>,
    /// E-mail domains whose verified senders are employees.
    pub employee_domains: BTreeSet<String>,
}

/// A queue: where tickets wait for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub name: String,
    /// SLA policy of tickets in this queue, unless a rule says otherwise.
    #[serde(default)]
    pub policy: Option<String>,
}

/// What a decision must know of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountPlan {
    pub name: String,
    pub channel: String,
    /// Queue of its tickets, unless a rule says otherwise.
    pub queue: Option<String>,
    pub join: Join,
}

/// What the store knows that bears on a batch of events, and what the decisions
/// before have changed: [`Context::absorb`] makes each decision see those before it.
#[derive(Clone, Debug, Default)]
pub struct Context {
    pub book: Arc<Book>,
    /// The partition's next offset, by the store: events below it are repeats.
    pub next_offset: i64,
    /// Those of the batch's messages that are stored already.
    pub known_messages: HashMap<MessageId, KnownMessage>,
    /// Stored messages by external id: those quoted by the batch's messages and
    /// those that delivery reports speak of.
    pub external_ids: HashMap<String, Vec<MessageReference>>,
    /// Our own messages that the batch quotes by signed Message-ID.
    pub signed_messages: HashMap<MessageId, ConversationId>,
    /// Conversations by (account, thread name).
    pub threads: HashMap<(String, String), ConversationId>,
    pub conversations: HashMap<ConversationId, Conversation>,
    pub contacts: HashMap<Identity, ContactId>,
    /// Tickets of those conversations and the open ones of those contacts.
    pub tickets: HashMap<TicketId, Ticket>,
    /// Automatic replies sent: in a conversation since its beginning, to an
    /// address since the start of the day (UTC).
    pub replies_in_conversation: HashMap<ConversationId, i64>,
    pub replies_today: HashMap<Identity, i64>,
    /// Ticket numbers set aside for this batch, by kind; what stays unused goes
    /// back to the store's pool.
    pub numbers: BTreeMap<String, VecDeque<String>>,
    /// What the decisions so far want written.
    pub changes: Changes,
}

/// A message that is stored already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMessage {
    /// Accounts where it arrived. Empty for a tombstone.
    pub accounts: BTreeSet<String>,
}

/// A stored message, as an external id finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageReference {
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
    /// The account it belongs to: delivery reports count only within it.
    pub account: String,
    /// Set for a message of ours.
    pub delivery: Option<DeliveryState>,
}

/// Rows to be written, of one decision or of a whole batch. The store writes all
/// of it in one transaction, in the order of ids, or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    pub contacts: Vec<Contact>,
    pub identities: Vec<(Identity, ContactId)>,
    /// The latest form of each, and the version that it replaces (0: it is new).
    pub conversations: BTreeMap<ConversationId, Replacing<Conversation>>,
    pub tickets: BTreeMap<TicketId, Replacing<Ticket>>,
    pub ticket_events: Vec<(TicketId, TicketEvent)>,
    pub messages: Vec<StoredMessage>,
    /// A known message arrived at one more account.
    pub also_arrived_at: Vec<(MessageId, String)>,
    /// Moves a message of ours forward; a state that is not ahead changes nothing.
    pub deliveries: Vec<(MessageId, DeliveryReport)>,
    /// Messages of ours to be sent.
    pub outbox: Vec<OutboxEntry>,
    pub parked: Vec<ParkedInput>,
    pub traces: Vec<Trace>,
    pub automatic_replies: Vec<AutomaticReply>,
    pub announcements: Vec<Announcement>,
}

/// A new form of a row and the version it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Replacing<T> {
    /// What the writer read; 0 if there was nothing.
    pub expected_version: i64,
    pub row: T,
}

/// A row of the outbox: which message leaves by which account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
    pub account: String,
    pub due_at: Moment,
}

/// Input that waits for a person: parked or quarantined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParkedInput {
    /// The event's id.
    pub id: String,
    pub account: String,
    pub channel: String,
    /// It had no valid signature.
    pub quarantined: bool,
    pub reason: String,
    pub raw: Raw,
    pub received_at: Moment,
}

/// An automatic reply, for the budget of C10.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutomaticReply {
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
    pub to: Identity,
    pub at: Moment,
}

/// What the relay tells the desk topic: one change of one subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// Id of the conversation or ticket.
    pub subject: String,
    /// The subject's version after the change, gapless.
    pub version: i64,
    /// `ticket.opened`, `message.received`, `clock.breached`, ….
    pub kind: String,
    pub occurred_at: Moment,
    /// What a listener needs; never bodies or addresses.
    pub data: serde_json::Value,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
