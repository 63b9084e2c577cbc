//! Messages, the ids that others give them, and their ways in and out.

use std::collections::{BTreeMap, HashSet};

use model::context::Changes;
use model::conversation::StoredMessage;
use model::event::{DeliveryReport, DeliveryState, Raw, RawContent};
use model::id::MessageId;

use super::insert_all;
use crate::Error;
use crate::connection::Connection;
use crate::sql::{Value, rows, to_json};

/// Longer ids are not kept as keys: an index entry of PostgreSQL has a limit,
/// and nobody quotes such an id honestly.
pub(crate) const MAX_EXTERNAL_ID_BYTES: usize = 1000;

/// `false` if one is there already.
pub(super) async fn insert(connection: &mut Connection, messages: &[StoredMessage]) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO messages (id, conversation_id, account, direction, author, occurred_at, received_at,
             provider_sequence, sequence, delivery, delivery_error, request_sha256, external_ids, content,
             raw_request, raw)
         SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11,
             column12, column13, column14, column15, column16
         FROM {rows} WHERE column1 IS NOT NULL",
        "writing messages",
    );
    let messages: BTreeMap<_, _> = messages.iter().map(|message| (&message.id, message)).collect();
    let mut external_ids = HashSet::new();
    for message in messages.into_values() {
        statement.push(message_row(message)?);
        for external_id in &message.message.external_ids {
            external_ids.insert((external_id.as_str(), &message.id));
        }
    }
    Ok(insert_all(statement, connection).await? && insert_external_ids(connection, external_ids).await?)
}

fn message_row(message: &StoredMessage) -> Result<Vec<Value>, Error> {
    let raw = message.raw.as_ref().map(raw_columns).transpose()?;
    let (raw_request, raw) = raw.unzip();
    Ok(vec![
        message.id.as_str().into(),
        message.conversation_id.as_str().into(),
        message.account.as_str().into(),
        message.direction.as_str().into(),
        message.author.as_str().into(),
        message.occurred_at.into(),
        message.received_at.into(),
        message.provider_sequence.into(),
        message.sequence.into(),
        message.delivery.map(DeliveryState::as_str).into(),
        message.delivery_error.as_deref().into(),
        message.request_sha256.as_deref().into(),
        to_json(&message.message.external_ids, "writing external ids")?.into(),
        to_json(&message.message, "writing messages")?.into(),
        raw_request.into(),
        raw.flatten().into(),
    ])
}

/// The request as JSON, and the bytes if they are not a blob.
pub(super) fn raw_columns(raw: &Raw) -> Result<(String, Option<Vec<u8>>), Error> {
    let (content, bytes) = match &raw.content {
        RawContent::Inline(bytes) => (RawContent::default(), Some(bytes.clone())),
        blob @ RawContent::Blob { .. } => (blob.clone(), None),
    };
    let request = Raw {
        content,
        method: raw.method.clone(),
        url: raw.url.clone(),
        headers: raw.headers.clone(),
    };
    Ok((to_json(&request, "writing raw input")?, bytes))
}

/// The reverse of [`raw_columns`].
pub(crate) fn raw_of(mut request: Raw, bytes: Option<Vec<u8>>) -> Raw {
    if let (RawContent::Inline(inline), Some(bytes)) = (&mut request.content, bytes) {
        *inline = bytes;
    }
    request
}

pub(crate) async fn insert_external_ids(
    connection: &mut Connection,
    external_ids: HashSet<(&str, &MessageId)>,
) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO external_ids (external_id, message_id)
         SELECT column1, column2 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing external ids",
    );
    let mut external_ids: Vec<_> = external_ids
        .into_iter()
        .filter(|(external_id, _)| !external_id.is_empty() && external_id.len() <= MAX_EXTERNAL_ID_BYTES)
        .collect();
    external_ids.sort_unstable();
    for (external_id, message_id) in external_ids {
        statement.push(vec![external_id.into(), message_id.as_str().into()]);
    }
    statement.execute(connection).await?;
    Ok(true)
}

/// Accounts where a message arrived once more.
pub(super) async fn insert_accounts(
    connection: &mut Connection,
    also_arrived_at: &[(MessageId, String)],
) -> Result<(), Error> {
    let mut statement = rows(
        "INSERT INTO message_accounts (message_id, account)
         SELECT column1, column2 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing accounts of messages",
    );
    let mut arrivals: Vec<_> = also_arrived_at.iter().collect();
    arrivals.sort_unstable();
    for (message_id, account) in arrivals {
        statement.push(vec![message_id.as_str().into(), account.as_str().into()]);
    }
    statement.execute(connection).await?;
    Ok(())
}

/// Only forward (C5): of several reports about one message the furthest counts.
pub(super) async fn move_deliveries(
    connection: &mut Connection,
    deliveries: &[(MessageId, DeliveryReport)],
) -> Result<(), Error> {
    let mut statement = rows(
        "UPDATE messages AS t SET delivery = v.column2, delivery_error = v.column4
         FROM {rows} WHERE t.id = v.column1 AND v.column3 > CASE t.delivery
             WHEN 'queued' THEN 0 WHEN 'sending' THEN 1 WHEN 'uncertain' THEN 2 WHEN 'sent' THEN 3
             WHEN 'failed' THEN 4 WHEN 'delivered' THEN 5 WHEN 'read' THEN 6 ELSE 7 END",
        "moving deliveries",
    );
    let mut furthest: BTreeMap<&MessageId, &DeliveryReport> = BTreeMap::new();
    for (message_id, report) in deliveries {
        let known = furthest.entry(message_id).or_insert(report);
        if report.state > known.state {
            *known = report;
        }
    }
    for (message_id, report) in furthest {
        statement.push(vec![
            message_id.as_str().into(),
            report.state.as_str().into(),
            report.state.rank().into(),
            report.error.as_deref().into(),
        ]);
    }
    statement.execute(connection).await?;
    Ok(())
}

/// A message that waits to be tried again, but arrived after all, is sent no more.
pub(super) async fn take_back_arrived(
    connection: &mut Connection,
    deliveries: &[(MessageId, DeliveryReport)],
) -> Result<(), Error> {
    let arrived = deliveries.iter().filter(|(_, report)| {
        matches!(
            report.state,
            DeliveryState::Sent | DeliveryState::Delivered | DeliveryState::Read
        )
    });
    rows(
        "DELETE FROM outbox WHERE state = 'queued' AND attempts > 0 AND message_id IN (SELECT column1 FROM {rows})",
        "taking back messages that arrived",
    )
    .of(arrived.map(|(message_id, _)| message_id.as_str()))
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes the place in the conversation from the message, which is written by now.
pub(super) async fn insert_outbox(connection: &mut Connection, changes: &Changes) -> Result<(), Error> {
    let mut statement = rows(
        "INSERT INTO outbox (message_id, conversation_id, account, state, due_at, attempts, fence,
             occurred_at, received_at)
         SELECT m.id, v.column2, v.column3, 'queued', v.column4, 0, 0, m.occurred_at, m.received_at
         FROM {rows} JOIN messages AS m ON m.id = v.column1 WHERE v.column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing the outbox",
    );
    for entry in &changes.outbox {
        statement.push(vec![
            entry.message_id.as_str().into(),
            entry.conversation_id.as_str().into(),
            entry.account.as_str().into(),
            entry.due_at.into(),
        ]);
    }
    statement.execute(connection).await?;
    Ok(())
}
