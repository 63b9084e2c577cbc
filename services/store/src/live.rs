//! What live views of conversations (chat sockets) ask for, and the presence of
//! those who look.

use model::conversation::StoredMessage;
use model::id::{ConversationId, MessageId};
use model::time::Moment;

use crate::conversations::{message_columns, message_of};
use crate::sql::{get, moment, moment_if_any, parsed, rows, sql};
use crate::{Error, Store};

/// How far a conversation has come, as its contact can see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub account: String,
    pub thread_name: String,
    pub conversation_id: ConversationId,
    pub epoch: i64,
    /// The number of the latest message that the contact can see; 0 for none.
    pub last_sequence: i64,
}

/// A piece of what the contact can see, and how far the conversation had come then.
#[derive(Clone, Debug)]
pub struct Piece {
    pub epoch: i64,
    pub last_sequence: i64,
    /// By rising sequence.
    pub messages: Vec<StoredMessage>,
}

impl Store {
    /// The heads of those of these conversations (by account and thread name) that exist.
    pub async fn heads(&self, threads: &[(&str, &str)]) -> Result<Vec<Head>, Error> {
        let doing = "looking at live conversations";
        if threads.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = rows(
            "SELECT c.account, c.thread_name, c.id, c.epoch, c.last_sequence FROM {rows}
             JOIN conversations AS c ON c.account = v.column1 AND c.thread_name = v.column2",
            doing,
        );
        for (account, thread_name) in threads {
            statement.push(vec![(*account).into(), (*thread_name).into()]);
        }
        let mut connection = self.read(doing).await?;
        let found = statement.all(&mut connection).await?;
        let head = |row| {
            Ok(Head {
                account: get(row, "account")?,
                thread_name: get(row, "thread_name")?,
                conversation_id: parsed(row, "id", ConversationId::parse)?,
                epoch: get(row, "epoch")?,
                last_sequence: get(row, "last_sequence")?,
            })
        };
        found.iter().map(head).collect()
    }

    /// What the contact can see after this number, oldest first. `None`: there is
    /// no such conversation.
    pub async fn visible_messages(&self, id: &ConversationId, after: i64, limit: i64) -> Result<Option<Piece>, Error> {
        let doing = "reading a live conversation";
        let mut connection = self.read(doing).await?;
        let found = sql(
            concat!(
                "SELECT ",
                message_columns!(),
                " FROM messages AS m WHERE m.conversation_id = $1 AND m.sequence > $2 AND m.erased_at IS NULL
                 ORDER BY m.sequence LIMIT $3"
            ),
            doing,
        )
        .bind(id.as_str())
        .bind(after)
        .bind(limit)
        .all(&mut connection)
        .await?;
        // The head last: an erasure in between shows in its epoch.
        let head = sql("SELECT epoch, last_sequence FROM conversations WHERE id = $1", doing)
            .bind(id.as_str())
            .first(&mut connection)
            .await?;
        let Some(head) = head else { return Ok(None) };
        Ok(Some(Piece {
            epoch: get(&head, "epoch")?,
            last_sequence: get(&head, "last_sequence")?,
            messages: found.iter().map(message_of).collect::<Result<_, _>>()?,
        }))
    }

    /// Messages of ours up to this number that the contact has not read yet, the
    /// latest first.
    pub async fn unread(&self, id: &ConversationId, up_to: i64, limit: i64) -> Result<Vec<MessageId>, Error> {
        let doing = "looking for unread messages";
        let mut connection = self.read(doing).await?;
        let found = sql(
            "SELECT id FROM messages WHERE conversation_id = $1 AND direction = 'outbound' AND sequence <= $2
                 AND delivery <> 'read' AND erased_at IS NULL ORDER BY sequence DESC LIMIT $3",
            doing,
        )
        .bind(id.as_str())
        .bind(up_to)
        .bind(limit)
        .all(&mut connection)
        .await?;
        found.iter().map(|row| parsed(row, "id", MessageId::parse)).collect()
    }

    /// Somebody looks at each of these now.
    pub async fn visitors_seen(&self, conversations: &[ConversationId], now: Moment) -> Result<(), Error> {
        if conversations.is_empty() {
            return Ok(());
        }
        let doing = "noting the presence of visitors";
        let mut statement = rows(
            "INSERT INTO visitors (conversation_id, seen_at)
             SELECT column1, column2 FROM {rows} WHERE column1 IS NOT NULL
             ON CONFLICT (conversation_id) DO UPDATE SET seen_at = excluded.seen_at, left_at = NULL
             WHERE visitors.seen_at <= excluded.seen_at",
            doing,
        );
        // In the order of ids, like all writers of many rows.
        let mut conversations: Vec<&ConversationId> = conversations.iter().collect();
        conversations.sort_unstable();
        conversations.dedup();
        for id in conversations {
            statement.push(vec![id.as_str().into(), now.into()]);
        }
        let mut transaction = self.begin(doing).await?;
        statement.execute(&mut transaction).await?;
        transaction.commit(doing).await
    }

    /// Nobody of ours looks at it any more; whoever was seen after `seen_at`, our
    /// own latest look, is somebody else's and stays.
    pub async fn visitor_gone(&self, id: &ConversationId, seen_at: Moment, now: Moment) -> Result<(), Error> {
        let doing = "noting that a visitor left";
        let mut transaction = self.begin(doing).await?;
        sql(
            "UPDATE visitors SET left_at = $3 WHERE conversation_id = $1 AND seen_at <= $2 AND left_at IS NULL",
            doing,
        )
        .bind(id.as_str())
        .bind(seen_at)
        .bind(now)
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await
    }

    /// Since when nobody has looked at this conversation, if that is longer than
    /// `away_after_ms`. `None`: somebody is there, or may be back any moment.
    pub async fn visitor_left(
        &self,
        id: &ConversationId,
        away_after_ms: i64,
        now: Moment,
    ) -> Result<Option<Moment>, Error> {
        let doing = "looking whether a visitor is there";
        let mut connection = self.read(doing).await?;
        let row = sql(
            "SELECT v.seen_at, v.left_at, c.last_message_at FROM conversations AS c
             LEFT JOIN visitors AS v ON v.conversation_id = c.id WHERE c.id = $1",
            doing,
        )
        .bind(id.as_str())
        .first(&mut connection)
        .await?;
        let Some(row) = &row else { return Ok(None) };
        let left_at = match (moment_if_any(row, "left_at")?, moment_if_any(row, "seen_at")?) {
            (Some(left_at), _) => left_at,
            (None, Some(seen_at)) => seen_at,
            (None, None) => moment(row, "last_message_at")?,
        };
        Ok((now.since_ms(left_at) >= away_after_ms).then_some(left_at))
    }
}
