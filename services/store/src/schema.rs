//! The schema, and how it comes into the database.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::connection::Connection;
use crate::sql::{get, sql};
use crate::{Error, Store};
use model::time::Moment;

/// In order; the number is the file's. Migrations only add, so that a program of
/// the version before goes on working.
const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("../migrations/0001_desk.sql")),
    (2, include_str!("../migrations/0002_chat.sql")),
    (3, include_str!("../migrations/0003_contacts.sql")),
    (BLOB_USES, include_str!("../migrations/0004_media.sql")),
    (5, include_str!("../migrations/0005_routing.sql")),
    (6, include_str!("../migrations/0006_requests.sql")),
    (7, include_str!("../migrations/0007_changes.sql")),
    (8, include_str!("../migrations/0008_sequence.sql")),
    (LISTS, include_str!("../migrations/0009_lists.sql")),
    (ROOM, include_str!("../migrations/0010_room.sql")),
    (11, include_str!("../migrations/0011_sending.sql")),
];

/// The version that began to count uses of blobs.
const BLOB_USES: i64 = 4;

/// The version since which lists are read by indexes.
const LISTS: i64 = 9;

/// In the order in which routers write, which may be running: indexes alone would take
/// their locks in another.
const POSTGRES_LOCKS: &str = "LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE; LOCK TABLE tickets IN SHARE MODE";

/// The version since which rows that change have room beside them.
const ROOM: i64 = 10;

/// PostgreSQL writes no index for a row that finds room on its page and changes no
/// column of an index.
const POSTGRES_ROOM: &str =
    "ALTER TABLE conversations SET (fillfactor = 80); ALTER TABLE tickets SET (fillfactor = 80)";

/// How long a process waits for somebody else's `migrate`.
const PATIENCE: Duration = Duration::from_secs(60);

impl Store {
    /// Brings the schema to this version. Safe to call from several processes at once.
    pub async fn migrate(&self) -> Result<(), Error> {
        let mut transaction = self.begin("migrating").await?;
        transaction.be_patient();
        if transaction.is_postgres() {
            sql("SET LOCAL statement_timeout = 0", "migrating")
                .execute(&mut transaction)
                .await?;
            sql(
                "SELECT pg_advisory_xact_lock(7249581104527)",
                "waiting for other migrations",
            )
            .all(&mut transaction)
            .await?;
        }
        sql(
            "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT NOT NULL PRIMARY KEY, migrated_at BIGINT NOT NULL)",
            "migrating",
        )
        .execute(&mut transaction)
        .await?;
        let present = versions(&mut transaction).await?;
        for (version, script) in MIGRATIONS.iter().filter(|(version, _)| !present.contains(version)) {
            if *version == LISTS && transaction.is_postgres() {
                transaction.run_script(POSTGRES_LOCKS, "migrating").await?;
            }
            transaction.run_script(script, "migrating").await?;
            if *version == BLOB_USES {
                crate::blobs::note_uses(&mut transaction).await?;
            }
            if *version == ROOM && transaction.is_postgres() {
                transaction.run_script(POSTGRES_ROOM, "migrating").await?;
            }
            sql(
                "INSERT INTO schema_versions (version, migrated_at) VALUES ($1, $2)",
                "migrating",
            )
            .bind(*version)
            .bind(Moment::from(SystemTime::now()))
            .execute(&mut transaction)
            .await?;
            tracing::info!(schema.version = version, "schema migrated");
        }
        transaction.commit("migrating").await
    }

    /// Waits until the schema is the one this program needs, or says that it is not.
    pub async fn check_schema(&self) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.missing_versions().await {
                // A newer schema only has more in it.
                Ok(missing) if missing.is_empty() => return Ok(()),
                Err(error @ Error::Corrupt(_)) => return Err(error),
                Ok(_) | Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Ok(missing) => {
                    return Err(Error::Settings(format!(
                        "the database's schema lacks the versions {missing:?}: run `tributary migrate`"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn missing_versions(&self) -> Result<Vec<i64>, Error> {
        let mut connection = self.read("reading the schema's version").await?;
        let present = versions(&mut connection).await?;
        let needed = MIGRATIONS.iter().map(|(version, _)| *version);
        Ok(needed.filter(|version| !present.contains(version)).collect())
    }
}

/// The migrations that the database has seen; not always in the order of their numbers.
async fn versions(connection: &mut Connection) -> Result<HashSet<i64>, Error> {
    let found = sql("SELECT version FROM schema_versions", "reading the schema's version")
        .all(connection)
        .await?;
    found.iter().map(|row| get(row, "version")).collect()
}
