//! Reads of conversations and their messages, for the API and the channels.

use sqlx::any::AnyRow;

use model::change::Changed;
use model::conversation::{Conversation, Direction, StoredMessage};
use model::event::{DeliveryState, Message, Raw};
use model::id::{ContactId, ConversationId, MessageId, TicketId};

use crate::connection::Connection;
use crate::sql::{get, json, json_if_any, moment, parsed, parsed_if_any, sql};
use crate::write::raw_of;
use crate::{Error, Store};

/// Columns of `conversations AS c`, by name: `*` would break the prepared
/// statements of running programs when a migration adds one.
macro_rules! conversation_columns {
    () => {
        "c.id, c.account, c.channel, c.contact_id, c.subject, c.thread, c.thread_name, c.ticket_id, c.participants,
             c.suggested, c.consent, c.epoch, c.last_sequence, c.last_message_at, c.created_at, c.version"
    };
}

/// Columns of `messages AS m`, without the raw input.
macro_rules! message_columns {
    () => {
        "m.id, m.conversation_id, m.account, m.direction, m.author, m.occurred_at, m.received_at,
             m.provider_sequence, m.sequence, m.delivery, m.delivery_error, m.request_sha256, m.external_ids,
             m.content, m.changed"
    };
}

/// The order of messages in a conversation (C5).
macro_rules! place {
    () => {
        "m.occurred_at, COALESCE(m.provider_sequence, 0), m.received_at, m.id"
    };
}

/// Ids of the conversations of ticket `$1`.
macro_rules! conversations_of_ticket {
    () => {
        "SELECT e.conversation_id FROM ticket_events AS e WHERE e.ticket_id = $1 AND e.conversation_id IS NOT NULL"
    };
}

pub(crate) use {conversation_columns, message_columns};

/// How many messages an answer refers to.
const REFERENCES: i64 = 20;

impl Store {
    /// One conversation with its participants.
    pub async fn conversation(&self, id: &ConversationId) -> Result<Option<Conversation>, Error> {
        let doing = "reading a conversation";
        let mut connection = self.read(doing).await?;
        let row = sql(
            concat!(
                "SELECT ",
                conversation_columns!(),
                " FROM conversations AS c WHERE c.id = $1"
            ),
            doing,
        )
        .bind(id.as_str())
        .first(&mut connection)
        .await?;
        row.as_ref().map(conversation_of).transpose()
    }

    /// Its messages in order (C5), `after` the given one, without raw bytes.
    pub async fn messages(
        &self,
        id: &ConversationId,
        after: Option<&MessageId>,
        limit: i64,
    ) -> Result<Vec<StoredMessage>, Error> {
        let doing = "reading messages";
        let mut connection = self.read(doing).await?;
        // The place of the message to go on after: NULL compares as false, so
        // an unknown one gives nothing.
        let text = match after {
            None => concat!(
                "SELECT ",
                message_columns!(),
                " FROM messages AS m WHERE m.conversation_id = $1 AND m.erased_at IS NULL AND $2 = ''
                 ORDER BY ",
                place!(),
                " LIMIT $3"
            ),
            Some(_) => concat!(
                "SELECT ",
                message_columns!(),
                " FROM messages AS m WHERE m.conversation_id = $1 AND m.erased_at IS NULL
                     AND (",
                place!(),
                ") > (SELECT ",
                place!(),
                " FROM messages AS m WHERE m.id = $2) ORDER BY ",
                place!(),
                " LIMIT $3"
            ),
        };
        let found = sql(text, doing)
            .bind(id.as_str())
            .bind(after.map_or("", MessageId::as_str))
            .bind(limit)
            .all(&mut connection)
            .await?;
        found.iter().map(message_of).collect()
    }

    /// Messages of all conversations of a ticket in order, `after` the given one,
    /// without raw bytes.
    pub async fn ticket_messages(
        &self,
        id: &TicketId,
        after: Option<&MessageId>,
        limit: i64,
    ) -> Result<Vec<StoredMessage>, Error> {
        let text = match after {
            None => concat!(
                "SELECT ",
                message_columns!(),
                " FROM messages AS m WHERE m.conversation_id IN (",
                conversations_of_ticket!(),
                ") AND m.erased_at IS NULL AND $2 = '' ORDER BY ",
                place!(),
                " LIMIT $3"
            ),
            Some(_) => concat!(
                "SELECT ",
                message_columns!(),
                " FROM messages AS m WHERE m.conversation_id IN (",
                conversations_of_ticket!(),
                ") AND m.erased_at IS NULL AND (",
                place!(),
                ") > (SELECT ",
                place!(),
                " FROM messages AS m WHERE m.id = $2) ORDER BY ",
                place!(),
                " LIMIT $3"
            ),
        };
        let statement = sql(text, "reading a ticket's messages")
            .bind(id.as_str())
            .bind(after.map_or("", MessageId::as_str))
            .bind(limit);
        self.read_all(statement, message_of).await
    }

    /// One message, raw input included.
    pub async fn message(&self, id: &MessageId) -> Result<Option<StoredMessage>, Error> {
        let doing = "reading a message";
        let mut connection = self.read(doing).await?;
        let row = sql(
            concat!(
                "SELECT ",
                message_columns!(),
                ", m.raw_request, m.raw FROM messages AS m WHERE m.id = $1 AND m.erased_at IS NULL"
            ),
            doing,
        )
        .bind(id.as_str())
        .first(&mut connection)
        .await?;
        let Some(row) = &row else { return Ok(None) };
        let mut message = message_of(row)?;
        if get::<Option<String>>(row, "raw_request")?.is_some() {
            let request: Raw = json(row, "raw_request")?;
            message.raw = Some(raw_of(request, get(row, "raw")?));
        }
        Ok(Some(message))
    }

    /// External ids of a conversation's latest messages (at most 20, oldest
    /// first), for the References of an answer.
    pub async fn thread_references(&self, id: &ConversationId) -> Result<Vec<String>, Error> {
        let mut connection = self.read("reading references").await?;
        references(&mut connection, id, None).await
    }

    /// The latest of its messages that came in, the latest first, without raw bytes.
    pub async fn latest_inbound(&self, id: &ConversationId, limit: i64) -> Result<Vec<StoredMessage>, Error> {
        let doing = "reading the latest messages";
        let mut connection = self.read(doing).await?;
        let found = sql(
            "SELECT id, conversation_id, account, direction, author, occurred_at, received_at, provider_sequence,
                 sequence, delivery, delivery_error, request_sha256, external_ids, content, changed
             FROM messages WHERE conversation_id = $1 AND direction = 'inbound' AND erased_at IS NULL
             ORDER BY occurred_at DESC, COALESCE(provider_sequence, 0) DESC, received_at DESC, id DESC LIMIT $2",
            doing,
        )
        .bind(id.as_str())
        .bind(limit)
        .all(&mut connection)
        .await?;
        found.iter().map(message_of).collect()
    }
}

/// External ids of the latest messages of a conversation, those before `before`
/// if it is given, oldest first. Our own name of a message means nothing outside.
pub(crate) async fn references(
    connection: &mut Connection,
    id: &ConversationId,
    before: Option<&MessageId>,
) -> Result<Vec<String>, Error> {
    let text = match before {
        None => {
            "SELECT m.id, m.external_ids FROM messages AS m
             WHERE m.conversation_id = $1 AND m.direction <> 'note' AND m.erased_at IS NULL AND $2 = ''
             ORDER BY m.occurred_at DESC, COALESCE(m.provider_sequence, 0) DESC, m.received_at DESC, m.id DESC
             LIMIT $3"
        }
        Some(_) => concat!(
            "SELECT m.id, m.external_ids FROM messages AS m
             WHERE m.conversation_id = $1 AND m.direction <> 'note' AND m.erased_at IS NULL AND (",
            place!(),
            ") < (SELECT ",
            place!(),
            " FROM messages AS m WHERE m.id = $2)
             ORDER BY m.occurred_at DESC, COALESCE(m.provider_sequence, 0) DESC, m.received_at DESC, m.id DESC
             LIMIT $3"
        ),
    };
    let found = sql(text, "reading references")
        .bind(id.as_str())
        .bind(before.map_or("", MessageId::as_str))
        .bind(REFERENCES)
        .all(connection)
        .await?;
    let mut references = Vec::new();
    for row in found.iter().rev() {
        let own: String = get(row, "id")?;
        let external_ids: Vec<String> = json(row, "external_ids")?;
        references.extend(external_ids.into_iter().filter(|external_id| *external_id != own));
    }
    Ok(references)
}

pub(crate) fn conversation_of(row: &AnyRow) -> Result<Conversation, Error> {
    Ok(Conversation {
        id: parsed(row, "id", ConversationId::parse)?,
        account: get(row, "account")?,
        channel: get(row, "channel")?,
        contact_id: parsed(row, "contact_id", ContactId::parse)?,
        subject: get(row, "subject")?,
        thread: get(row, "thread")?,
        thread_name: get(row, "thread_name")?,
        ticket_id: parsed_if_any(row, "ticket_id", TicketId::parse)?,
        participants: json(row, "participants")?,
        suggested: parsed_if_any(row, "suggested", ConversationId::parse)?,
        consent: json_if_any(row, "consent")?,
        epoch: get(row, "epoch")?,
        last_sequence: get(row, "last_sequence")?,
        last_message_at: moment(row, "last_message_at")?,
        created_at: moment(row, "created_at")?,
        version: get(row, "version")?,
    })
}

/// Without its raw input.
pub(crate) fn message_of(row: &AnyRow) -> Result<StoredMessage, Error> {
    // Only what was changed pays for it.
    let stands: Option<(Message, Changed)> = json_if_any(row, "changed")?;
    let (content, changed) = match stands {
        Some(stands) => stands,
        None => (json(row, "content")?, Changed::default()),
    };
    let external_ids = json(row, "external_ids")?;
    Ok(StoredMessage {
        id: parsed(row, "id", MessageId::parse)?,
        conversation_id: parsed(row, "conversation_id", ConversationId::parse)?,
        account: get(row, "account")?,
        direction: parsed(row, "direction", Direction::parse)?,
        author: get(row, "author")?,
        message: Message {
            external_ids,
            ..content
        },
        changed,
        occurred_at: moment(row, "occurred_at")?,
        received_at: moment(row, "received_at")?,
        provider_sequence: get(row, "provider_sequence")?,
        sequence: get(row, "sequence")?,
        delivery: parsed_if_any(row, "delivery", DeliveryState::parse)?,
        delivery_error: get(row, "delivery_error")?,
        raw: None,
        request_sha256: get(row, "request_sha256")?,
    })
}
