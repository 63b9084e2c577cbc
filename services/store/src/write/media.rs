//! What messages and parked inputs mean for files: those to be fetched, and the
//! blobs that are used now.

use std::collections::{BTreeMap, BTreeSet};

use model::change::Change;
use model::context::Changes;
use model::event::AttachmentState;
use model::id::sha256_hex;
use model::time::Moment;

use crate::Error;
use crate::connection::Connection;
use crate::sql::rows;

/// Follows the messages, their changes and parked inputs themselves.
pub(super) async fn insert(connection: &mut Connection, changes: &Changes) -> Result<(), Error> {
    let written = changes.messages.iter().flat_map(|message| {
        let attachments = message.message.attachments.iter();
        attachments.map(|attachment| (&message.id, &message.account, message.received_at, attachment))
    });
    let added = changes.message_changes.values().flat_map(|recorded| {
        let attachments = match &recorded.change {
            Change::AttachmentsAdded { attachments } => attachments.as_slice(),
            _ => &[],
        };
        let joined = recorded.message_id.iter();
        joined.flat_map(move |id| {
            let here = attachments.iter();
            here.map(move |attachment| (id, &recorded.account, recorded.received_at, attachment))
        })
    });
    let (mut waiting, mut uses) = (BTreeMap::new(), BTreeSet::new());
    for (id, account, at, attachment) in written.chain(added) {
        match (attachment.state(), &attachment.source) {
            (AttachmentState::Pending, Some(source)) => {
                waiting.insert((id.as_str(), sha256_hex(source.as_bytes())), (account, at));
            }
            (AttachmentState::Here, _) => {
                uses.insert((attachment.sha256.as_str(), id.as_str()));
            }
            (AttachmentState::Pending | AttachmentState::Lost, _) => {}
        }
    }
    insert_waiting(connection, waiting).await?;
    let raw = changes.messages.iter();
    uses.extend(raw.filter_map(|message| Some((message.raw.as_ref()?.blob()?, message.id.as_str()))));
    let parked = changes.parked.iter();
    uses.extend(parked.filter_map(|input| Some((input.raw.blob()?, input.id.as_str()))));
    insert_uses(connection, uses).await?;
    list_unneeded(connection, &changes.unneeded_blobs).await
}

async fn list_unneeded(connection: &mut Connection, blobs: &BTreeMap<String, Moment>) -> Result<(), Error> {
    let mut statement = rows(
        "INSERT INTO blob_removals (sha256, noted_at, due_at)
         SELECT column1, column2, column3 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT (sha256) DO UPDATE SET noted_at = excluded.noted_at, due_at = excluded.due_at",
        "listing blobs for removal",
    );
    for (sha256, now) in blobs {
        statement.push(vec![sha256.into(), (*now).into(), (*now).into()]);
    }
    statement.execute(connection).await?;
    Ok(())
}

async fn insert_waiting(
    connection: &mut Connection,
    waiting: BTreeMap<(&str, String), (&String, Moment)>,
) -> Result<(), Error> {
    let mut statement = rows(
        "INSERT INTO media (message_id, source_sha256, account, due_at, attempts)
         SELECT column1, column2, column3, column4, 0 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing files to fetch",
    );
    for ((message_id, source_sha256), (account, at)) in waiting {
        statement.push(vec![message_id.into(), source_sha256.into(), account.into(), at.into()]);
    }
    statement.execute(connection).await?;
    Ok(())
}

/// (blob, who uses it). What is used is not to be removed any more.
pub(crate) async fn insert_uses(connection: &mut Connection, uses: BTreeSet<(&str, &str)>) -> Result<(), Error> {
    let mut statement = rows(
        "INSERT INTO blob_uses (sha256, used_by)
         SELECT column1, column2 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing uses of blobs",
    );
    let mut blobs = BTreeSet::new();
    for (sha256, used_by) in uses {
        blobs.insert(sha256);
        statement.push(vec![sha256.into(), used_by.into()]);
    }
    statement.execute(connection).await?;
    rows(
        "DELETE FROM blob_removals WHERE sha256 IN (SELECT column1 FROM {rows})",
        "keeping blobs that are used",
    )
    .of(blobs)
    .execute(connection)
    .await?;
    Ok(())
}
