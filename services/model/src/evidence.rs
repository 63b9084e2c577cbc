//! What ties a message to a conversation (contract C9).
//!
//! A channel gathers it, `decide` weighs it. A token of ours counts from a
//! participant; a Message-ID that we merely know counts only from a participant
//! whose address is verified. Everything else is a claim, and a claim becomes a
//! suggestion, not a membership.

use serde::{Deserialize, Serialize};

use crate::contact::Identity;
use crate::context::Context;
use crate::event::{Event, Message};
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
    /// Whose signed link the sender has opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Opened>,
    /// Of a message of ours: the live conversation that its reader has left and may
    /// go on in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<ConversationId>,
}

/// What has a link of ours that somebody has opened; as text, its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Opened {
    /// A message of ours, sent to one address alone: by it the channel vouches for
    /// that address.
    Message(MessageId),
    /// A conversation, whose contact was to have the link: the sender is that contact.
    Conversation(ConversationId),
}

impl TryFrom<String> for Opened {
    type Error = &'static str;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        let message = MessageId::parse(&id).map(Self::Message);
        let opened = message.or_else(|| ConversationId::parse(&id).map(Self::Conversation));
        opened.ok_or("the id of what was opened has not its form")
    }
}

impl From<Opened> for String {
    fn from(opened: Opened) -> Self {
        match opened {
            Opened::Message(id) => id.to_string(),
            Opened::Conversation(id) => id.to_string(),
        }
    }
}

/// Where a message belongs, and what was weighed to find it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The conversation that it joins by evidence.
    pub joined: Option<ConversationId>,
    /// The first one that it claims without proof.
    pub suggested: Option<ConversationId>,
    /// A line for each piece of evidence that names a conversation we know.
    pub lines: Vec<String>,
}

/// Weighs a message's evidence in the order of its strength.
pub fn weigh(event: &Event, message: &Message, context: &Context) -> Verdict {
    let mut verdict = Verdict::default();
    let sender = message.sender.identity();
    let evidence = &message.evidence;
    if let Some(name) = &evidence.thread
        && let Some(id) = context.threads.get(&(event.account.clone(), name.clone()))
    {
        verdict.join(id, "the sending system names this thread, under its signature");
        return verdict;
    }
    for message_id in &evidence.signed_messages {
        if let Some(reference) = context.signed_messages.get(message_id) {
            verdict.weigh_token(
                &reference.conversation_id,
                &sender,
                event,
                context,
                "signed Message-ID of ours",
            );
        }
    }
    for id in &evidence.signed_conversations {
        if context.conversations.contains_key(id) {
            verdict.weigh_token(id, &sender, event, context, "signed address of ours");
        }
    }
    for quoted in &evidence.quoted_ids {
        for reference in context.external_ids.get(quoted).into_iter().flatten() {
            let id = &reference.conversation_id;
            if sender.verified {
                verdict.weigh_token(id, &sender, event, context, "known Message-ID, verified sender");
            } else {
                verdict.suggest(id, "known Message-ID, but the sender is not verified");
            }
        }
    }
    verdict
}

impl Verdict {
    /// Counts from a participant of a conversation on the same channel only.
    fn weigh_token(&mut self, id: &ConversationId, sender: &Identity, event: &Event, context: &Context, what: &str) {
        let Some(conversation) = context.conversations.get(id) else {
            return;
        };
        if conversation.channel != event.channel {
            return;
        }
        if conversation.has_participant(sender) {
            self.join(id, &format!("{what}, from a participant"));
        } else {
            self.suggest(id, &format!("{what}, but not from a participant"));
        }
    }

    fn join(&mut self, id: &ConversationId, why: &str) {
        self.lines.push(format!("{id}: joins: {why}"));
        self.joined.get_or_insert_with(|| id.clone());
    }

    fn suggest(&mut self, id: &ConversationId, why: &str) {
        self.lines.push(format!("{id}: suggested only: {why}"));
        self.suggested.get_or_insert_with(|| id.clone());
    }
}
