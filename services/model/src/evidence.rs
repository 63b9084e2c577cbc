//! What ties a message to a conversation (contract C9).
//!
//! A channel gathers it, `decide` weighs it. A token of ours counts from a
//! participant; a Message-ID that we merely know counts only from a participant
//! whose address is verified. Everything else is a claim, and a claim becomes a
//! suggestion, not a membership.

use serde::{Deserialize, Serialize};

use crate::id::{ConversationId, MessageId};

/// What a message says of what it answers. All ids are whole and not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Our own messages whose *signed* Message-ID it quotes; the signature was
    /// checked by the channel. Most recent first.
    pub signed_messages: Vec<MessageId>,
    /// Conversations whose signed plus-address it was sent to, checked likewise.
    pub signed_conversations: Vec<ConversationId>,
    /// Ids that it quotes without proof (In-Reply-To, then References from last
    /// to first), as they stand.
    pub quoted_ids: Vec<String>,
    /// The sending system's own name of the thread, under that system's
    /// signature: it names the conversation by itself.
    pub thread: Option<String>,
}
