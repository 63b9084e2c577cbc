//! What a channel is given to send, and what a channel declares of itself.

use serde::{Deserialize, Serialize};

use crate::event::{Attachment, Recipient};
use crate::id::{ConversationId, MessageId};
use crate::time::Moment;

/// A message of ours on its way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outbound {
    pub message_id: MessageId,
    pub conversation_id: ConversationId,
    pub account: String,
    /// The channel's own name of the thread, as it came in with [`crate::inbound::Inbound::thread`].
    pub thread: String,
    pub recipients: Vec<Recipient>,
    pub subject: Option<String>,
    pub text: String,
    pub html: Option<String>,
    pub attachments: Vec<Attachment>,
    /// External ids of the message that this one answers, and of those before
    /// it, oldest first. The last is the parent.
    pub references: Vec<String>,
    /// A rule wrote it, no person (RFC 3834 `auto-replied`).
    pub automatic: bool,
    /// When it was written.
    pub created_at: Moment,
}

/// What others must know of a channel, as a value: nobody asks for its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// Longest text of one message, in characters.
    pub max_chars: Option<u32>,
    /// Media types of a message's body, the preferred first.
    pub formats: Vec<String>,
    /// For how long after the contact's last message a reply is allowed.
    pub reply_window_ms: Option<i64>,
    /// Sending the same message again reaches the customer at most once (a
    /// vendor's idempotency key; mail with the same Message-ID).
    pub resend_safe: bool,
    /// Attachments can be carried, up to this many bytes in all.
    pub max_attachment_bytes: Option<u64>,
    /// Which ticket a known contact's new message joins, unless the account says otherwise.
    pub join: Join,
}

/// Which ticket a known contact's message joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// The contact's latest open ticket in the queue, if active within seven days.
    Open,
    /// Only the ticket of the conversation that evidence names (C9).
    Thread,
}
