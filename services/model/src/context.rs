//! A decision's input: everything it may look at, loaded for a whole batch; and
//! its output: the rows that it wants written.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::{Changed, RecordedChange};
use crate::contact::merge::{Circles, Merge};
use crate::contact::{Claim, Contact, Identity, Owned};
use crate::conversation::{Conversation, StoredMessage};
use crate::error::Refusal;
use crate::event::{DeliveryReport, DeliveryState, Message, Raw};
use crate::id::{ContactId, ConversationId, MergeId, MessageId, TicketId};
use crate::outbound::Join;
use crate::rule::RuleSet;
use crate::sla;
use crate::ticket::{self, Actor, Command, Ticket, TicketEvent};
use crate::time::Moment;
use crate::trace::Trace;

/// What the settings declare for deciding, at one version of each part. Kept in
/// the store, loaded once and again when a version changes.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub rules_version: i64,
    pub rules: RuleSet,
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
    /// Its contacts look at their conversations themselves: an answer is not sent,
    /// it is there when it is written.
    #[serde(default)]
    pub live: bool,
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
    /// Messages that the batch changes, as they were first written; and what has
    /// changed them so far.
    pub originals: HashMap<MessageId, Message>,
    pub message_changes: HashMap<MessageId, Vec<RecordedChange>>,
    /// Changes that wait for messages, among them some of the batch.
    pub early_changes: Vec<RecordedChange>,
    /// Our own messages that have left and are not read yet, by (account, thread name),
    /// where the batch moves a watermark.
    pub unread: HashMap<(String, String), Vec<MessageReference>>,
    /// Our own messages that are being sent or may have been, by (account, thread name),
    /// where the batch has one of ours that was written elsewhere and may be the same,
    /// for nothing but its words would tell ([`Declaration::bare_echoes`]).
    ///
    /// [`Declaration::bare_echoes`]: crate::outbound::Declaration::bare_echoes
    pub in_flight: HashMap<(String, String), Vec<(MessageReference, Message)>>,
    /// Our own messages that the batch quotes by signed Message-ID.
    pub signed_messages: HashMap<MessageId, MessageReference>,
    /// Conversations by (account, thread name).
    pub threads: HashMap<(String, String), ConversationId>,
    pub conversations: HashMap<ConversationId, Conversation>,
    pub contacts: HashMap<Identity, ContactId>,
    /// Those contacts, and all that are one person with them.
    pub circles: Circles,
    /// Which contacts claim which address (its scheme, normalised), where a message
    /// of the batch may prove it.
    pub claims: HashSet<(ContactId, String, String)>,
    /// Our own messages that may prove it, and to whom alone each went (normalised).
    pub sent_to: HashMap<MessageId, String>,
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
    pub occurred_at: Moment,
}

/// Rows to be written, of one decision or of a whole batch. The store writes all
/// of it in one transaction, in the order of ids, or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// New ones.
    pub contacts: Vec<Contact>,
    pub identities: Vec<Owned>,
    pub claims: Vec<Claim>,
    /// Known ones that now belong to another person.
    pub regrouped: BTreeMap<ContactId, Replacing<Contact>>,
    pub merges: BTreeMap<MergeId, Replacing<Merge>>,
    /// The latest form of each, and the version that it replaces (0: it is new).
    pub conversations: BTreeMap<ConversationId, Replacing<Conversation>>,
    pub tickets: BTreeMap<TicketId, Replacing<Ticket>>,
    pub ticket_events: Vec<(TicketId, TicketEvent)>,
    pub messages: Vec<StoredMessage>,
    /// A known message arrived at one more account.
    pub also_arrived_at: Vec<(MessageId, String)>,
    /// Moves a message of ours forward; a state that is not ahead changes nothing.
    pub deliveries: Vec<(MessageId, DeliveryReport)>,
    /// What vendors call messages of ours.
    pub named: Vec<(MessageId, String)>,
    /// What happened to messages, by the change's id.
    pub message_changes: BTreeMap<String, RecordedChange>,
    /// How messages stand after it.
    pub changed_messages: BTreeMap<MessageId, (Message, Changed)>,
    /// Messages of ours to be sent.
    pub outbox: Vec<OutboxEntry>,
    pub parked: Vec<ParkedInput>,
    /// Accounts by which nothing leaves any more, since when and why.
    pub broken_accounts: BTreeMap<String, (Moment, String)>,
    pub traces: Vec<Trace>,
    pub automatic_replies: Vec<AutomaticReply>,
    pub announcements: Vec<Announcement>,
    /// Blobs that came once more with an erased message, and when that was seen: to
    /// be removed unless something else uses them.
    pub unneeded_blobs: BTreeMap<String, Moment>,
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
    /// Id of the conversation, ticket or contact.
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

    /// What a command does to a ticket, ready to be written.
    pub fn of_command(
        ticket: &Ticket,
        command: &Command,
        actor: &Actor,
        now: Moment,
        book: &sla::Book,
    ) -> Result<Changes, Refusal> {
        Self::of_commands(ticket, std::slice::from_ref(command), actor, now, book)
    }

    /// What several commands do to it, one after the other; all, or none.
    pub fn of_commands(
        ticket: &Ticket,
        commands: &[Command],
        actor: &Actor,
        now: Moment,
        book: &sla::Book,
    ) -> Result<Changes, Refusal> {
        let mut changes = Changes::default();
        let mut row = ticket.clone();
        for command in commands {
            for event in ticket::handle(&row, command, actor, now)? {
                row.apply(&event, book);
                changes.add_ticket_event(&row, event);
            }
        }
        if row.version != ticket.version {
            changes.tickets.insert(
                row.id.clone(),
                Replacing {
                    expected_version: ticket.version,
                    row,
                },
            );
        }
        Ok(changes)
    }

    /// The conversation as it is after these changes; the version is that of before.
    pub(crate) fn replace_conversation(&mut self, expected_version: i64, row: Conversation) {
        self.conversations
            .insert(row.id.clone(), Replacing { expected_version, row });
    }

    /// An event of a ticket and its announcement; `ticket` is its form after the event.
    pub(crate) fn add_ticket_event(&mut self, ticket: &Ticket, event: TicketEvent) {
        let mut change = serde_json::to_value(&event.change).unwrap_or_default();
        let kind = match change.get("type").and_then(serde_json::Value::as_str) {
            Some("clock_warned") => "clock.warned".to_owned(),
            Some("clock_breached") => "clock.breached".to_owned(),
            Some(other) => format!("ticket.{other}"),
            None => "ticket.changed".to_owned(),
        };
        if let Some(fields) = change.as_object_mut() {
            // What a customer wrote stays out of the desk topic.
            fields.remove("subject");
            fields.remove("type");
        }
        self.announcements.push(Announcement {
            subject: ticket.id.to_string(),
            version: event.version,
            kind,
            occurred_at: event.at,
            data: serde_json::json!({
                "number": ticket.number,
                "kind": ticket.kind,
                "state": ticket.state,
                "category": ticket.category,
                "priority": ticket.priority,
                "queue": ticket.queue,
                "assignee": ticket.assignee,
                "change": change,
            }),
        });
        self.ticket_events.push((ticket.id.clone(), event));
    }

    /// Takes the changes of a later decision in. A row that both touch keeps the
    /// version that the first one replaces.
    pub(crate) fn extend(&mut self, later: Changes) {
        self.contacts.extend(later.contacts);
        self.identities.extend(later.identities);
        self.claims.extend(later.claims);
        extend_rows(&mut self.regrouped, later.regrouped);
        extend_rows(&mut self.merges, later.merges);
        extend_rows(&mut self.conversations, later.conversations);
        extend_rows(&mut self.tickets, later.tickets);
        self.ticket_events.extend(later.ticket_events);
        self.messages.extend(later.messages);
        self.also_arrived_at.extend(later.also_arrived_at);
        self.deliveries.extend(later.deliveries);
        self.named.extend(later.named);
        self.message_changes.extend(later.message_changes);
        self.changed_messages.extend(later.changed_messages);
        self.outbox.extend(later.outbox);
        self.parked.extend(later.parked);
        for (account, told) in later.broken_accounts {
            let latest = self.broken_accounts.entry(account).or_insert_with(|| told.clone());
            if latest.0 < told.0 {
                *latest = told;
            }
        }
        self.traces.extend(later.traces);
        self.automatic_replies.extend(later.automatic_replies);
        self.announcements.extend(later.announcements);
        self.unneeded_blobs.extend(later.unneeded_blobs);
    }
}

fn extend_rows<Id: Ord, T>(rows: &mut BTreeMap<Id, Replacing<T>>, later: BTreeMap<Id, Replacing<T>>) {
    for (id, replacing) in later {
        match rows.get_mut(&id) {
            Some(earlier) => earlier.row = replacing.row,
            None => {
                rows.insert(id, replacing);
            }
        }
    }
}

impl Context {
    /// Makes the decisions that follow see this one, and keeps what it wants written.
    pub fn absorb(&mut self, decision: Changes) {
        for owned in &decision.identities {
            self.contacts.insert(owned.identity.clone(), owned.contact_id.clone());
        }
        for claim in &decision.claims {
            let claimed = (claim.contact_id.clone(), claim.scheme.clone(), claim.address.clone());
            self.claims.insert(claimed);
        }
        self.circles.absorb(&decision);
        for message in &decision.messages {
            let accounts = BTreeSet::from([message.account.clone()]);
            self.known_messages
                .insert(message.id.clone(), KnownMessage { accounts });
            for external_id in &message.message.external_ids {
                self.external_ids
                    .entry(external_id.clone())
                    .or_default()
                    .push(MessageReference {
                        message_id: message.id.clone(),
                        conversation_id: message.conversation_id.clone(),
                        account: message.account.clone(),
                        delivery: message.delivery,
                        occurred_at: message.occurred_at,
                    });
            }
        }
        for (message_id, account) in &decision.also_arrived_at {
            if let Some(known) = self.known_messages.get_mut(message_id) {
                known.accounts.insert(account.clone());
            }
        }
        for (message_id, report) in &decision.deliveries {
            let unread = self.unread.values_mut().flatten();
            let named = self.external_ids.get_mut(&report.external_id).into_iter().flatten();
            let in_flight = self.in_flight.values_mut().flatten();
            let in_flight = in_flight.map(|(reference, _)| reference);
            for reference in unread.chain(named).chain(in_flight) {
                if reference.message_id == *message_id {
                    reference.delivery = Some(report.state);
                }
            }
        }
        for (message_id, name) in &decision.named {
            let in_flight = self.in_flight.values().flatten();
            let mut ours = in_flight.filter(|(reference, _)| reference.message_id == *message_id);
            if let Some((reference, _)) = ours.next() {
                let known = self.external_ids.entry(name.clone()).or_default();
                known.push(reference.clone());
            }
        }
        for (id, replacing) in &decision.conversations {
            if let Some(name) = &replacing.row.thread_name {
                self.threads
                    .insert((replacing.row.account.clone(), name.clone()), id.clone());
            }
            self.conversations.insert(id.clone(), replacing.row.clone());
        }
        for (id, replacing) in &decision.tickets {
            let is_new = replacing.expected_version == 0;
            if is_new && let Some(numbers) = self.numbers.get_mut(&replacing.row.kind) {
                numbers.retain(|number| *number != replacing.row.number);
            }
            self.tickets.insert(id.clone(), replacing.row.clone());
        }
        for reply in &decision.automatic_replies {
            *self
                .replies_in_conversation
                .entry(reply.conversation_id.clone())
                .or_default() += 1;
            *self.replies_today.entry(reply.to.clone()).or_default() += 1;
        }
        self.changes.extend(decision);
    }
}
