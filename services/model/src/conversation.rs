//! Conversations and the messages in them, in order.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::change::Changed;
use crate::contact::{Identity, Party};
use crate::context::{AccountPlan, Announcement, Changes, OutboxEntry};
use crate::error::Refusal;
use crate::event::{Attachment, DeliveryState, Message, Raw, Recipient};
use crate::evidence::Evidence;
use crate::id::{ContactId, ConversationId, MessageId, TicketId};
use crate::outbound::Declaration;
use crate::sla;
use crate::template::Template;
use crate::ticket::{Actor, Command, Ticket};
use crate::time::Moment;

/// What was said between one contact and the desk on one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    pub id: ConversationId,
    pub account: String,
    pub channel: String,
    pub contact_id: ContactId,
    pub subject: Option<String>,
    /// The channel's own name of the thread, as its messages bring it.
    pub thread: String,
    /// Set where the sending system names its threads itself: unique within the
    /// account, so that the name finds the conversation.
    pub thread_name: Option<String>,
    /// The ticket that new messages go to. Earlier ones stay linked.
    pub ticket_id: Option<TicketId>,
    /// Who wrote or was written to in it. Evidence counts only from these.
    pub participants: BTreeSet<Identity>,
    /// The conversation that the first message claimed to answer, without proof.
    pub suggested: Option<ConversationId>,
    /// The contact's latest word on whether we may write; `None`: none yet, and
    /// who writes to us may be answered.
    pub consent: Option<Consent>,
    /// Changes when history is erased: a client that resumes starts anew (C8).
    pub epoch: i64,
    /// The number of the latest message that the contact can see, gapless from 1.
    pub last_sequence: i64,
    /// When the contact or the desk last said something.
    pub last_message_at: Moment,
    pub created_at: Moment,
    /// Counts its changes, gapless: the number of its latest announcement, and
    /// what a writer compares before it writes.
    pub version: i64,
}

/// Whether a contact wants to be written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    pub given: bool,
    /// How they said so.
    pub reason: String,
    pub at: Moment,
}

/// What a person of the desk wants said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// `None`: the conversation's.
    pub subject: Option<String>,
    pub text: String,
    pub html: Option<String>,
    pub attachments: Vec<Attachment>,
    /// Instead of own words; then `text` is for the eyes of the desk alone.
    pub template: Option<Template>,
    /// What the vendor calls a message of the conversation that it shows as quoted.
    pub quotes: Option<String>,
}

/// Who writes it, and what makes a repeat of the request the same message.
#[derive(Clone, Copy, Debug)]
pub struct Authored<'a> {
    /// A person of the desk.
    pub author: &'a str,
    pub idempotency_key: &'a str,
    /// SHA-256 of the request's content, in hexadecimal.
    pub request_sha256: &'a str,
}

impl Conversation {
    /// Puts a message at the end: its number for the contact's client (none for
    /// a note), and the announcement of it.
    pub(crate) fn add(&mut self, message: &mut StoredMessage) -> Announcement {
        if message.direction != Direction::Note {
            self.last_sequence += 1;
            message.sequence = Some(self.last_sequence);
        }
        self.last_message_at = self.last_message_at.max(message.received_at);
        let kind = match message.direction {
            Direction::Inbound => "message.received",
            Direction::Outbound => "message.written",
            Direction::Note => "note.written",
        };
        self.announce(kind, &message.id, message.received_at)
    }

    /// One more change of this conversation, to be told under the next version.
    pub(crate) fn announce(&mut self, kind: &str, message_id: &MessageId, at: Moment) -> Announcement {
        self.version += 1;
        Announcement {
            subject: self.id.to_string(),
            version: self.version,
            kind: kind.to_owned(),
            occurred_at: at,
            data: serde_json::json!({ "account": self.account, "channel": self.channel, "message_id": message_id }),
        }
    }

    /// One more change of this conversation: the contact's consent.
    pub(crate) fn announce_consent(&mut self, given: bool, at: Moment) -> Announcement {
        self.version += 1;
        Announcement {
            subject: self.id.to_string(),
            version: self.version,
            kind: "conversation.consent".to_owned(),
            occurred_at: at,
            data: serde_json::json!({ "account": self.account, "channel": self.channel, "given": given }),
        }
    }

    /// Whether the contact lets us write.
    pub(crate) fn may_write(&self) -> Result<(), Refusal> {
        match &self.consent {
            Some(consent) if !consent.given => Err(Refusal {
                code: "opted_out",
                detail: format!(
                    "the contact has opted out ({}, {}): nothing may be sent here until they opt in again",
                    consent.reason, consent.at
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Whether this address takes part, whichever way it was verified.
    pub fn has_participant(&self, identity: &Identity) -> bool {
        self.participants
            .iter()
            .any(|known| known.scheme == identity.scheme && known.address == identity.address)
    }
}

/// A message as the store keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredMessage {
    pub id: MessageId,
    pub conversation_id: ConversationId,
    /// The account where it arrived first, or by which it leaves.
    pub account: String,
    pub direction: Direction,
    /// Who wrote it: the contact's id, a person of the desk, `rule:<name>`, or
    /// `elsewhere` for one of ours that was not written here.
    pub author: String,
    /// As it stands today; `raw` and its changes tell what it was.
    pub message: Message,
    /// What else became of it since it was written.
    pub changed: Changed,
    /// With `received_at` and the id, its place in the conversation (C5).
    pub occurred_at: Moment,
    /// For a message of ours: when it was written.
    pub received_at: Moment,
    pub provider_sequence: Option<i64>,
    /// The number that the contact's client resumes by; `None` for notes.
    pub sequence: Option<i64>,
    /// `None` for what came in and for notes.
    pub delivery: Option<DeliveryState>,
    /// Why the delivery failed or is uncertain.
    pub delivery_error: Option<String>,
    /// The input that it came from; `None` for a message of ours.
    pub raw: Option<Raw>,
    /// SHA-256 of the request that wrote it (a reply or a note), to tell a
    /// repeat under the same Idempotency-Key from another text.
    pub request_sha256: Option<String>,
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the contact to us.
    Inbound,
    /// From us to the contact.
    Outbound,
    /// Among ourselves; the contact never sees it.
    Note,
}

impl Direction {
    /// As the store and the API name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Note => "note",
        }
    }

    /// The direction of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Inbound, Self::Outbound, Self::Note]
            .into_iter()
            .find(|value| value.as_str() == text)
    }
}

/// The way by which an answer goes.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where it is written: the conversation that it answers, another of the same
    /// person's, or one that begins with it.
    pub conversation: Conversation,
    pub declaration: Declaration,
    pub recipients: Vec<Recipient>,
    /// Whether the conversation is new to the ticket.
    pub is_new_to_ticket: bool,
    /// The live conversation that is answered here, because the contact has left it.
    pub continues: Option<ConversationId>,
}

/// An agent's answer: the message, its place in the outbox unless the contact sees
/// it live, what it does to the ticket, and the announcements.
pub fn reply(
    way: &Way,
    ticket: Option<&Ticket>,
    draft: Draft,
    authored: &Authored<'_>,
    now: Moment,
    book: &sla::Book,
) -> Result<Changes, Refusal> {
    let mut conversation = way.conversation.clone();
    conversation.may_write()?;
    let message_id = MessageId::authored(authored.author, authored.idempotency_key);
    let subject = draft.subject.or_else(|| conversation.subject.clone());
    let evidence = Evidence {
        quoted_ids: draft.quotes.into_iter().collect(),
        continues: way.continues.clone(),
        ..Evidence::default()
    };
    let message = Message {
        subject,
        evidence,
        fields: draft.template.as_ref().map(Template::to_fields).unwrap_or_default(),
        html: draft.html,
        attachments: draft.attachments,
        recipients: way.recipients.clone(),
        ..Message::of_ours(&conversation.account, &message_id, draft.text)
    };
    let mut commands = Vec::new();
    if let Some(ticket) = ticket
        && way.is_new_to_ticket
    {
        conversation.ticket_id = Some(ticket.id.clone());
        let conversation_id = conversation.id.clone();
        commands.push(Command::AddConversation { conversation_id });
    }
    commands.push(Command::Reply {
        message_id: message_id.clone(),
        automatic: false,
    });
    let delivery = match way.declaration.live {
        Some(_) => DeliveryState::Sent,
        None => DeliveryState::Queued,
    };
    written(
        &conversation,
        ticket,
        Some(delivery),
        message_id,
        message,
        &commands,
        authored,
        now,
        book,
    )
}

impl Conversation {
    /// One that the desk begins, with its message `begun_by` to this address.
    pub fn begun(
        begun_by: &MessageId,
        account: &AccountPlan,
        declaration: &Declaration,
        contact_id: &ContactId,
        to: &Identity,
        now: Moment,
    ) -> Self {
        let id = ConversationId::begun_by(begun_by);
        let thread_name = declaration.thread_is_address.then(|| to.address.clone());
        Self {
            account: account.name.clone(),
            channel: account.channel.clone(),
            contact_id: contact_id.clone(),
            subject: None,
            thread: thread_name.clone().unwrap_or_else(|| id.to_string()),
            thread_name,
            ticket_id: None,
            participants: BTreeSet::from([to.clone()]),
            suggested: None,
            consent: None,
            epoch: 1,
            last_sequence: 0,
            last_message_at: now,
            created_at: now,
            version: 0,
            id,
        }
    }

    /// To whom an answer goes: to the latest message of a person, or while nobody has
    /// written to whom the desk began to write.
    pub fn recipients(&self, latest_inbound: Option<&StoredMessage>) -> Result<Vec<Recipient>, Refusal> {
        if let Some(stored) = latest_inbound {
            return Ok(answer_to(&stored.message));
        }
        match self.participants.first() {
            Some(only) if self.participants.len() == 1 => Ok(vec![Recipient {
                role: "to".to_owned(),
                address: only.address.clone(),
                name: None,
            }]),
            _ => Err(Refusal::invalid(
                "nobody has written in this conversation, so there is nobody to answer",
            )),
        }
    }
}

/// A note among ourselves; the contact never sees it.
pub fn note(
    conversation: &Conversation,
    ticket: Option<&Ticket>,
    text: String,
    authored: &Authored<'_>,
    now: Moment,
    book: &sla::Book,
) -> Result<Changes, Refusal> {
    let message_id = MessageId::authored(authored.author, authored.idempotency_key);
    let message = Message::of_ours(&conversation.account, &message_id, text);
    let command = Command::Note {
        message_id: message_id.clone(),
    };
    written(
        conversation,
        ticket,
        None,
        message_id,
        message,
        &[command],
        authored,
        now,
        book,
    )
}

/// Which of the latest inbound messages (the latest first) an answer is to: a
/// person's rather than a machine's, so that no bounce draws the answer to itself.
pub fn to_answer(inbound: &[StoredMessage]) -> Option<&StoredMessage> {
    let by_person = inbound.iter().find(|stored| stored.message.automatic.is_none());
    by_person.or(inbound.first())
}

/// To whom an answer goes: where the sender asked for it (RFC 5322 Reply-To),
/// else to the sender.
pub(crate) fn answer_to(message: &Message) -> Vec<Recipient> {
    let asked: Vec<Recipient> = message
        .recipients
        .iter()
        .filter(|recipient| recipient.role == "reply_to")
        .map(|recipient| Recipient {
            role: "to".to_owned(),
            ..recipient.clone()
        })
        .collect();
    if !asked.is_empty() {
        return asked;
    }
    vec![Recipient {
        role: "to".to_owned(),
        address: message.sender.address.clone(),
        name: message.sender.name.clone(),
    }]
}

#[expect(clippy::too_many_arguments, reason = "the one place where replies and notes meet")]
fn written(
    conversation: &Conversation,
    ticket: Option<&Ticket>,
    delivery: Option<DeliveryState>,
    message_id: MessageId,
    message: Message,
    commands: &[Command],
    authored: &Authored<'_>,
    now: Moment,
    book: &sla::Book,
) -> Result<Changes, Refusal> {
    let mut changes = match ticket {
        Some(ticket) => Changes::of_commands(ticket, commands, &Actor::Person(authored.author.to_owned()), now, book)?,
        None => Changes::default(),
    };
    let mut conversation = conversation.clone();
    let expected_version = conversation.version;
    let mut stored = StoredMessage {
        id: message_id.clone(),
        conversation_id: conversation.id.clone(),
        account: conversation.account.clone(),
        // A note goes nowhere.
        direction: delivery.map_or(Direction::Note, |_| Direction::Outbound),
        author: authored.author.to_owned(),
        message,
        changed: Changed::default(),
        occurred_at: now,
        received_at: now,
        provider_sequence: None,
        sequence: None,
        delivery,
        delivery_error: None,
        raw: None,
        request_sha256: Some(authored.request_sha256.to_owned()),
    };
    changes.announcements.push(conversation.add(&mut stored));
    if delivery == Some(DeliveryState::Queued) {
        changes.outbox.push(OutboxEntry {
            message_id,
            conversation_id: conversation.id.clone(),
            account: conversation.account.clone(),
            due_at: now,
        });
    }
    changes.messages.push(stored);
    changes.replace_conversation(expected_version, conversation);
    Ok(changes)
}

impl Message {
    /// A message of ours, without more than its text. Its own id is its first
    /// external id: a channel that recognises it in a report or a quoted id of
    /// ours can say so before the provider's id is known.
    pub(crate) fn of_ours(account: &str, message_id: &MessageId, text: String) -> Self {
        let sender = Party {
            scheme: Party::OURS.to_owned(),
            address: account.to_owned(),
            name: None,
            verified: true,
        };
        Self {
            external_ids: vec![message_id.to_string()],
            ..Self::new(sender, text)
        }
    }
}
