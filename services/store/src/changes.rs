//! What happened to messages after they were written: their history, and how they
//! stand today.

use std::collections::BTreeMap;

use model::change::{Changed, RecordedChange};
use model::event::Message;
use model::id::MessageId;
use sqlx::any::AnyRow;

use crate::connection::Connection;
use crate::sql::{get, json, moment, parsed_if_any, rows, sql, to_json};
use crate::{Error, Store};

/// Columns of `message_changes AS h`.
macro_rules! change_columns {
    () => {
        "h.id, h.account, h.external_id, h.message_id, h.occurred_at, h.received_at, h.provider_sequence, h.content"
    };
}
pub(crate) use change_columns;

/// A change waits so long for its message.
const KEPT_WAITING_MS: i64 = 7 * 24 * 60 * 60 * 1000;

impl Store {
    /// What happened to a message, in the order in which it reached us; and the
    /// message as it was first written. `None`: no such message.
    pub async fn history(&self, id: &MessageId) -> Result<Option<(Message, Vec<RecordedChange>)>, Error> {
        let doing = "reading a message's history";
        let mut connection = self.read(doing).await?;
        let written = sql(
            "SELECT content FROM messages WHERE id = $1 AND erased_at IS NULL",
            doing,
        )
        .bind(id.as_str())
        .first(&mut connection)
        .await?;
        let Some(written) = &written else { return Ok(None) };
        let found = sql(
            concat!(
                "SELECT ",
                change_columns!(),
                " FROM message_changes AS h WHERE h.message_id = $1 ORDER BY h.received_at, h.id LIMIT 1000"
            ),
            doing,
        )
        .bind(id.as_str())
        .all(&mut connection)
        .await?;
        let changes: Result<Vec<_>, Error> = found.iter().map(change_of).collect();
        Ok(Some((json(written, "content")?, changes?)))
    }
}

pub(crate) fn change_of(row: &AnyRow) -> Result<RecordedChange, Error> {
    Ok(RecordedChange {
        id: get(row, "id")?,
        account: get(row, "account")?,
        external_id: get(row, "external_id")?,
        message_id: parsed_if_any(row, "message_id", MessageId::parse)?,
        change: json(row, "content")?,
        occurred_at: moment(row, "occurred_at")?,
        received_at: moment(row, "received_at")?,
        provider_sequence: get(row, "provider_sequence")?,
    })
}

/// A change that waited for its message is there already: it gets its message.
pub(crate) async fn insert(
    connection: &mut Connection,
    changes: &BTreeMap<String, RecordedChange>,
) -> Result<(), Error> {
    let doing = "writing changes of messages";
    let mut statement = rows(
        "INSERT INTO message_changes (id, account, external_id, message_id, occurred_at, received_at,
             provider_sequence, content)
         SELECT column1, column2, column3, column4, column5, column6, column7, column8
         FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT (id) DO UPDATE SET message_id = excluded.message_id",
        doing,
    );
    for recorded in changes.values() {
        statement.push(vec![
            recorded.id.as_str().into(),
            recorded.account.as_str().into(),
            recorded.external_id.as_str().into(),
            recorded.message_id.as_ref().map(MessageId::as_str).into(),
            recorded.occurred_at.into(),
            recorded.received_at.into(),
            recorded.provider_sequence.into(),
            to_json(&recorded.change, doing)?.into(),
        ]);
    }
    statement.execute(connection).await?;
    drop_for_erased(connection, changes).await?;
    let latest_waiting = changes.values().filter(|recorded| recorded.message_id.is_none());
    if let Some(latest) = latest_waiting.map(|recorded| recorded.received_at).max() {
        // Of messages that never come (they are older than we).
        sql(
            "DELETE FROM message_changes WHERE message_id IS NULL AND received_at < $1",
            doing,
        )
        .bind(latest.plus_ms(-KEPT_WAITING_MS))
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// A change of an erased message (a replay) must not wait for it.
async fn drop_for_erased(connection: &mut Connection, changes: &BTreeMap<String, RecordedChange>) -> Result<(), Error> {
    let waiting = changes.values().filter(|recorded| recorded.message_id.is_none());
    rows(
        "DELETE FROM message_changes WHERE message_id IS NULL AND id IN (SELECT column1 FROM {rows})
             AND EXISTS (SELECT 1 FROM external_ids AS e JOIN messages AS m ON m.id = e.message_id
                 WHERE e.external_id = message_changes.external_id AND m.account = message_changes.account
                     AND m.erased_at IS NOT NULL)",
        "forgetting changes of erased messages",
    )
    .of(waiting.map(|recorded| recorded.id.as_str()))
    .execute(connection)
    .await?;
    Ok(())
}

/// How messages stand; those written by the same batch are there by now.
pub(crate) async fn update_messages(
    connection: &mut Connection,
    changed: &BTreeMap<MessageId, (Message, Changed)>,
) -> Result<(), Error> {
    let doing = "changing messages";
    let mut statement = rows(
        "UPDATE messages AS t SET changed = v.column2 FROM {rows} WHERE t.id = v.column1 AND t.erased_at IS NULL",
        doing,
    );
    for (id, stands) in changed {
        statement.push(vec![id.as_str().into(), to_json(stands, doing)?.into()]);
    }
    statement.execute(connection).await?;
    Ok(())
}
