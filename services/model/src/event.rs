//! What stands in the log: one envelope around what arrived.
//!
//! `bus/src/wire.rs` turns it into the protobuf of
//! `proto/conversation/v1/event.proto` and back; the field names agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::change::MessageChange;
use crate::contact::Party;
use crate::evidence::Evidence;
use crate::id::{MessageId, sha256_hex};
use crate::time::Moment;

/// One arrival. A repeat of the same arrival has the same `id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The message's id, or [`crate::id::event_id`] where there is no message.
    pub id: String,
    /// The account it arrived at (a mailbox, a bot, a number), by its name in the settings.
    pub account: String,
    /// The account's channel, by its name in the list of channels.
    pub channel: String,
    /// Spreads load and keeps what belongs together in one partition; nothing
    /// depends on it for correctness.
    pub thread_key: String,
    /// The provider's time, never later than `received_at`.
    pub occurred_at: Moment,
    /// When it reached us (for mail: the server's INTERNALDATE). Clocks run from here.
    pub received_at: Moment,
    /// The provider's own order within the thread, where it has one.
    pub provider_sequence: Option<i64>,
    /// W3C trace context of the request that brought it.
    pub traceparent: Option<String>,
    /// The smallest piece of input that can be parsed again.
    pub raw: Raw,
    /// What it says.
    pub body: Body,
}

/// What an [`Event`] is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Somebody wrote to us; the event's id is the message's.
    MessageReceived(Box<Message>),
    /// A provider says what became of a message of ours.
    DeliveryReported(DeliveryReport),
    /// Something happened to a message that stands already.
    MessageChanged(Box<MessageChange>),
    /// The contact says whether we may write to them.
    ConsentChanged(ConsentChange),
    /// A provider says how far everything of ours in a thread has come.
    WatermarkMoved(Watermark),
    /// The vendor says that nothing leaves by the account until a person mends it.
    AccountBroken { reason: String },
    /// Input that could not be parsed or applied; the reason is for operators.
    Parked { reason: String },
    /// Input whose signature was wrong.
    Quarantined { reason: String },
}

/// Input as it came, enough to check its signature and to parse it again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Raw {
    /// The bytes, or where they lie.
    pub content: RawContent,
    /// HTTP method; empty for what was not pushed to us.
    pub method: String,
    /// Path and query of the request, or the mailbox's `imap:` URL of a mail.
    pub url: String,
    /// The headers that signature and parser need, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// Raw bytes up to [`Raw::INLINE_MAX_BYTES`] travel with the event, larger ones as a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawContent {
    Inline(Vec<u8>),
    Blob { sha256: String, size_bytes: u64 },
}

impl Default for RawContent {
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}

impl Raw {
    /// 256 KiB: what is larger becomes a blob.
    pub const INLINE_MAX_BYTES: usize = 256 * 1024;

    /// Name of the blob in which it lies, if it does.
    pub fn blob(&self) -> Option<&str> {
        match &self.content {
            RawContent::Blob { sha256, .. } => Some(sha256),
            RawContent::Inline(_) => None,
        }
    }

    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What was said, without where it belongs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub sender: Party,
    pub recipients: Vec<Recipient>,
    pub subject: Option<String>,
    /// Plain text; for a message in HTML alone, its text.
    pub text: String,
    /// Sanitised: no script, no remote content that loads by itself.
    pub html: Option<String>,
    pub attachments: Vec<Attachment>,
    pub evidence: Evidence,
    /// Set if no person wrote it (RFC 3834 and practice).
    pub automatic: Option<Automatic>,
    /// The sender asks for no automatic reply, though a person wrote it.
    pub suppress_automatic_reply: bool,
    /// Ids under which others may speak of this message (an RFC 5322 Message-ID
    /// with its angle brackets, a vendor's id). Never empty texts.
    pub external_ids: Vec<String>,
    /// Other addresses of the sender: verified ones that somebody whom we trust
    /// vouches for, and ones that are only claimed.
    #[serde(default)]
    pub identities: Vec<Party>,
    /// What the sender filled into a form beside the message, by the field's name; of
    /// a message of ours, the template that it is made of ([`crate::template`]).
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
}

impl Message {
    /// What this sender says, and nothing else about it: what a channel fills in
    /// the rest of.
    pub fn new(sender: Party, text: impl Into<String>) -> Self {
        Self {
            sender,
            recipients: Vec::new(),
            subject: None,
            text: text.into(),
            html: None,
            attachments: Vec::new(),
            evidence: Evidence::default(),
            automatic: None,
            suppress_automatic_reply: false,
            external_ids: Vec::new(),
            identities: Vec::new(),
            fields: BTreeMap::new(),
        }
    }
}

/// One of those a message was sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// `to` or `cc`.
    pub role: String,
    pub address: String,
    pub name: Option<String>,
}

/// A file of a message; its bytes are the blob named by `sha256`, once they are here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// As the sender named it, without any path.
    pub name: String,
    /// The media type that the sender declared; of a fetched file, its true one.
    pub media_type: String,
    /// 0 while nobody knows.
    pub size_bytes: u64,
    /// Lower-case hexadecimal; empty while the bytes are not here.
    pub sha256: String,
    /// RFC 2392: what `cid:` in the HTML refers to, without angle brackets.
    pub content_id: Option<String>,
    /// Where its channel fetches the bytes: a URL, or a vendor's id. `None` where
    /// they came along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why the bytes cannot be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

/// Where the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentState {
    /// Here: a blob.
    Here,
    /// Still to be fetched.
    Pending,
    /// They cannot be had.
    Lost,
}

impl Attachment {
    /// A file whose bytes are kept as a blob.
    pub fn here(name: impl Into<String>, media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self {
            name: name.into(),
            media_type: media_type.into(),
            size_bytes: bytes.len() as u64,
            sha256: sha256_hex(bytes),
            ..Self::default()
        }
    }

    /// A file whose bytes are still to be fetched from `source`.
    pub fn at(name: impl Into<String>, media_type: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            media_type: media_type.into(),
            source: Some(source.into()),
            ..Self::default()
        }
    }

    /// Where its bytes are.
    pub fn state(&self) -> AttachmentState {
        match (&self.source, &self.lost) {
            _ if !self.sha256.is_empty() => AttachmentState::Here,
            (Some(_), None) => AttachmentState::Pending,
            (_, Some(_)) | (None, None) => AttachmentState::Lost,
        }
    }
}

/// Why a message is not a person's (contract C10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Automatic {
    /// `Auto-Submitted: auto-generated`: monitoring, notifications. May open tickets.
    Generated,
    /// A mailing list or bulk mail. May open tickets.
    List,
    /// An out-of-office or other automatic answer. Never opens a ticket.
    Reply,
    /// A report of (non-)delivery. Never opens a ticket.
    Bounce,
    /// A mail of this installation that came back. Never opens a ticket.
    Own,
    /// A word to the system, not to people: STOP and START of an SMS, `/start` of
    /// a bot. Never opens a ticket.
    Command,
}

impl Automatic {
    /// As rules and the wire name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::List => "list",
            Self::Reply => "reply",
            Self::Bounce => "bounce",
            Self::Own => "own",
            Self::Command => "command",
        }
    }

    /// The value of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Generated,
            Self::List,
            Self::Reply,
            Self::Bounce,
            Self::Own,
            Self::Command,
        ]
        .into_iter()
        .find(|value| value.as_str() == text)
    }

    /// Whether such a message may become a ticket, if a rule says so.
    pub fn may_open_ticket(self) -> bool {
        matches!(self, Self::Generated | Self::List)
    }
}

/// What a provider says of a message of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReport {
    /// The id that the provider, or we, gave the message: one of its external ids.
    pub external_id: String,
    pub state: DeliveryState,
    /// The provider's words, if it failed.
    pub error: Option<String>,
}

/// A contact's word on whether we may write to them, in one thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentChange {
    /// The thread's name, as [`Evidence::thread`] gives it.
    pub thread: String,
    /// Whether we may.
    pub given: bool,
    /// How they said so, for people of the desk: `STOP`, `blocked the bot`.
    pub reason: String,
}

/// That all messages of ours in one thread have come so far, up to a moment: some
/// providers name no messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// The thread's name, as [`Evidence::thread`] gives it.
    pub thread: String,
    /// What we wrote later is not meant.
    pub until: Moment,
    pub state: DeliveryState,
}

/// How far a message of ours has come. The order of the variants is the only
/// direction in which it moves (contract C5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Waits in the outbox.
    Queued,
    /// A worker is at it.
    Sending,
    /// Nobody knows whether the provider took it; a person decides.
    Uncertain,
    /// The provider took it.
    Sent,
    /// It failed for good.
    Failed,
    /// It reached the recipient's side.
    Delivered,
    /// The recipient saw it.
    Read,
}

impl DeliveryState {
    const ALL: [Self; 7] = [
        Self::Queued,
        Self::Sending,
        Self::Uncertain,
        Self::Sent,
        Self::Failed,
        Self::Delivered,
        Self::Read,
    ];

    /// As the store, the wire and the API name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Uncertain => "uncertain",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }

    /// The state of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Rises with every step forward; the store lets a report only raise it.
    pub fn rank(self) -> i64 {
        self as i64
    }
}

impl Event {
    /// The message's id, if this event carries a message.
    pub fn message_id(&self) -> Option<MessageId> {
        match self.body {
            Body::MessageReceived(_) => MessageId::parse(&self.id),
            Body::DeliveryReported(_)
            | Body::MessageChanged(_)
            | Body::ConsentChanged(_)
            | Body::WatermarkMoved(_)
            | Body::AccountBroken { .. }
            | Body::Parked { .. }
            | Body::Quarantined { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_states_have_names_and_ranks_that_stay() {
        let check = |name: &str, rank: i64| {
            let state = DeliveryState::parse(name).unwrap();
            assert_eq!((state.as_str(), state.rank()), (name, rank));
            assert_eq!(serde_json::to_value(state).unwrap(), name);
        };
        // The store keeps both.
        check("queued", 0);
        check("sending", 1);
        check("uncertain", 2);
        check("sent", 3);
        check("failed", 4);
        check("delivered", 5);
        check("read", 6);
        assert_eq!(DeliveryState::parse("Sent"), None);
        assert_eq!(DeliveryState::parse(""), None);
    }

    #[test]
    fn automatic_messages_and_what_they_may() {
        let check = |name: &str, may_open_ticket: bool| {
            let automatic = Automatic::parse(name).unwrap();
            assert_eq!(
                (automatic.as_str(), automatic.may_open_ticket()),
                (name, may_open_ticket)
            );
            assert_eq!(serde_json::to_value(automatic).unwrap(), name);
        };
        check("generated", true);
        check("list", true);
        check("reply", false);
        check("bounce", false);
        check("own", false);
        check("command", false);
        assert_eq!(Automatic::parse("person"), None);
    }

    #[test]
    fn only_messages_have_a_message_id() {
        let id = MessageId::received("support", "email", "1");
        let check = |id: &str, body: Body, expected: Option<&MessageId>| {
            let event = Event {
                id: id.to_owned(),
                account: "support".to_owned(),
                channel: "email".to_owned(),
                thread_key: "t".to_owned(),
                occurred_at: Moment::from_ms(0),
                received_at: Moment::from_ms(0),
                provider_sequence: None,
                traceparent: None,
                raw: Raw::default(),
                body,
            };
            assert_eq!(event.message_id().as_ref(), expected);
        };
        let parked = || Body::Parked {
            reason: "no From".to_owned(),
        };
        check(id.as_str(), message(), Some(&id));
        check("evt_1", message(), None);
        check(id.as_str(), parked(), None);
        check(
            id.as_str(),
            Body::Quarantined {
                reason: "signature".to_owned(),
            },
            None,
        );
    }

    fn message() -> Body {
        let sender = Party {
            scheme: "email".to_owned(),
            address: "anna@example.com".to_owned(),
            name: None,
            verified: false,
        };
        Body::MessageReceived(Box::new(Message::new(sender, "")))
    }

    #[test]
    fn headers_are_found_by_their_lower_case_name() {
        let raw = Raw {
            headers: [("webhook-id", "1"), ("webhook-id", "2"), ("x", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..Raw::default()
        };
        assert_eq!(raw.header("webhook-id"), Some("1"));
        assert_eq!(raw.header("x"), Some(""));
        assert_eq!(raw.header("Webhook-Id"), None);
    }
}
