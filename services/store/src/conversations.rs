//! Reads of conversations and their messages, for the API and the channels.

use crate::{Error, Store};
use model::conversation::{Conversation, StoredMessage};
use model::id::{ConversationId, MessageId};

impl Store {
    /// One conversation with its participants.
    pub async fn conversation(&self, _id: &ConversationId) -> Result<Option<Conversation>, Error> {
        unimplemented!()
    }

    /// Its messages in order (C5), `after` the given one, without raw bytes.
    pub async fn messages(
        &self,
        _id: &ConversationId,
        _after: Option<&MessageId>,
        _limit: i64,
    ) -> Result<Vec<StoredMessage>, Error> {
        unimplemented!()
    }

    /// One message, raw input included.
    pub async fn message(&self, _id: &MessageId) -> Result<Option<StoredMessage>, Error> {
        unimplemented!()
    }

    /// External ids of a conversation's latest messages (at most 20, oldest
    /// first), for the References of an answer.
    pub async fn thread_references(&self, _id: &ConversationId) -> Result<Vec<String>, Error> {
        unimplemented!()
    }
}
