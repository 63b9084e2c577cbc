//! Who uses which blob, and which are to be removed. A blob is content-addressed,
//! so several messages may use one; it is removed only if somebody listed it
//! (an erasure, an upload that was never used) and nobody uses it then.

use std::collections::BTreeSet;

use model::event::{Message, Raw};
use model::time::Moment;
use sqlx::any::AnyRow;

use crate::connection::Connection;
use crate::sql::{get, json, json_if_any, moment, sql};
use crate::write::insert_uses;
use crate::{Error, Store};

/// Rows of one look when uses are written for what is there already.
const PAGE: i64 = 500;

/// A blob to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub sha256: String,
    /// When it was listed: who puts it later wants it kept.
    pub noted_at: Moment,
}

impl Store {
    /// Lists a blob for removal at `due_at`, unless it is used by then. Called after
    /// the blob was put.
    pub async fn note_removal(&self, sha256: &str, now: Moment, due_at: Moment) -> Result<(), Error> {
        let doing = "listing a blob for removal";
        let mut transaction = self.begin(doing).await?;
        sql(
            "INSERT INTO blob_removals (sha256, noted_at, due_at) VALUES ($1, $2, $3)
             ON CONFLICT (sha256) DO UPDATE SET noted_at = excluded.noted_at, due_at = excluded.due_at",
            doing,
        )
        .bind(sha256)
        .bind(now)
        .bind(due_at)
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await
    }

    /// Blobs that are due and that nobody uses.
    pub async fn removals_due(&self, now: Moment, limit: i64) -> Result<Vec<Removal>, Error> {
        let statement = sql(
            "SELECT sha256, noted_at FROM blob_removals AS r WHERE due_at <= $1
                 AND NOT EXISTS (SELECT 1 FROM blob_uses AS u WHERE u.sha256 = r.sha256)
             ORDER BY due_at, sha256 LIMIT $2",
            "reading blobs to remove",
        )
        .bind(now)
        .bind(limit);
        self.read_all(statement, removal).await
    }

    /// Blobs that were due and that somebody uses after all: whoever erases their
    /// last use lists them again.
    pub async fn removals_in_vain(&self, now: Moment, limit: i64) -> Result<Vec<Removal>, Error> {
        let statement = sql(
            "SELECT sha256, noted_at FROM blob_removals AS r WHERE due_at <= $1
                 AND EXISTS (SELECT 1 FROM blob_uses AS u WHERE u.sha256 = r.sha256)
             ORDER BY due_at, sha256 LIMIT $2",
            "reading blobs that are used after all",
        )
        .bind(now)
        .bind(limit);
        self.read_all(statement, removal).await
    }

    /// Whether nobody uses this blob.
    pub async fn is_unused(&self, sha256: &str) -> Result<bool, Error> {
        let statement = sql(
            "SELECT used_by FROM blob_uses WHERE sha256 = $1 LIMIT 1",
            "looking for a blob's use",
        )
        .bind(sha256);
        let found: Vec<String> = self.read_all(statement, |row| get(row, "used_by")).await?;
        Ok(found.is_empty())
    }

    /// Takes a blob off the list: it is gone. Or looks at it again at `due_at`.
    pub async fn settle_removal(&self, removal: &Removal, due_at: Option<Moment>) -> Result<(), Error> {
        let doing = "settling a blob's removal";
        let mut transaction = self.begin(doing).await?;
        let statement = match due_at {
            Some(due_at) => sql(
                "UPDATE blob_removals SET due_at = $1 WHERE sha256 = $2 AND noted_at = $3",
                doing,
            )
            .bind(due_at),
            None => sql(
                "DELETE FROM blob_removals WHERE $1 = 0 AND sha256 = $2 AND noted_at = $3",
                doing,
            )
            .bind(0),
        };
        statement
            .bind(&removal.sha256)
            .bind(removal.noted_at)
            .execute(&mut transaction)
            .await?;
        transaction.commit(doing).await
    }
}

fn removal(row: &AnyRow) -> Result<Removal, Error> {
    Ok(Removal {
        sha256: get(row, "sha256")?,
        noted_at: moment(row, "noted_at")?,
    })
}

/// Writes the uses of all messages and parked inputs that were stored before uses
/// were counted. Part of the migration that began to count them.
pub(crate) async fn note_uses(connection: &mut Connection) -> Result<(), Error> {
    note_uses_by_messages(connection).await?;
    let mut after = String::new();
    loop {
        let found = sql(
            "SELECT id, raw_request FROM parked WHERE id > $1 ORDER BY id LIMIT $2",
            "reading parked inputs",
        )
        .bind(&after)
        .bind(PAGE)
        .all(connection)
        .await?;
        let mut uses = Vec::new();
        for row in &found {
            after = get(row, "id")?;
            let raw: Raw = json(row, "raw_request")?;
            uses.extend(raw.blob().map(|sha256| (sha256.to_owned(), after.clone())));
        }
        let uses: BTreeSet<(&str, &str)> = uses.iter().map(|(blob, user)| (blob.as_str(), user.as_str())).collect();
        insert_uses(connection, uses).await?;
        if found.len() < PAGE as usize {
            return Ok(());
        }
    }
}

/// By columns that were there then: those of later migrations are not there yet.
async fn note_uses_by_messages(connection: &mut Connection) -> Result<(), Error> {
    let mut after = String::new();
    loop {
        let found = sql(
            "SELECT id, content, raw_request FROM messages WHERE id > $1 AND erased_at IS NULL ORDER BY id LIMIT $2",
            "reading messages",
        )
        .bind(&after)
        .bind(PAGE)
        .all(connection)
        .await?;
        let mut uses = BTreeSet::new();
        for row in &found {
            after = get(row, "id")?;
            let message: Message = json(row, "content")?;
            let here = message.attachments.into_iter().map(|attachment| attachment.sha256);
            uses.extend(
                here.filter(|sha256| !sha256.is_empty())
                    .map(|sha256| (sha256, after.clone())),
            );
            let raw: Option<Raw> = json_if_any(row, "raw_request")?;
            uses.extend(
                raw.as_ref()
                    .and_then(Raw::blob)
                    .map(|sha256| (sha256.to_owned(), after.clone())),
            );
        }
        let uses = uses.iter().map(|(blob, user)| (blob.as_str(), user.as_str()));
        insert_uses(connection, uses.collect()).await?;
        if found.len() < PAGE as usize {
            return Ok(());
        }
    }
}
