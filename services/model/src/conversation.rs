//! Conversations and the messages in them, in order.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::contact::Identity;
use crate::event::{DeliveryState, Message, Raw};
use crate::id::{ContactId, ConversationId, MessageId, TicketId};
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

impl Conversation {
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
    /// Who wrote it: the contact's id, a person of the desk, or `rule:<name>`.
    pub author: String,
    pub message: Message,
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
