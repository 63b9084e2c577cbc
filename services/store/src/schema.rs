//! The schema, and how it comes into the database.

use std::time::{Duration, SystemTime};

use crate::sql::{get, sql};
use crate::{Error, Store};
use model::time::Moment;

/// In order; the number is the file's. Migrations only add, so that a program of
/// the version before goes on working.
const MIGRATIONS: [(i64, &str); 3] = [
    (1, include_str!("../migrations/0001_desk.sql")),
    (2, include_str!("../migrations/0002_chat.sql")),
    (5, include_str!("../migrations/0005_routing.sql")),
];

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
        let row = sql(
            "SELECT COALESCE(MAX(version), 0) AS version FROM schema_versions",
            "reading the schema's version",
        )
        .first(&mut transaction)
        .await?;
        let present: i64 = row.as_ref().map_or(Ok(0), |row| get(row, "version"))?;
        for (version, script) in MIGRATIONS.into_iter().filter(|(version, _)| *version > present) {
            transaction.run_script(script, "migrating").await?;
            sql(
                "INSERT INTO schema_versions (version, migrated_at) VALUES ($1, $2)",
                "migrating",
            )
            .bind(version)
            .bind(Moment::from(SystemTime::now()))
            .execute(&mut transaction)
            .await?;
            tracing::info!(schema.version = version, "schema migrated");
        }
        transaction.commit("migrating").await
    }

    /// Waits until the schema is the one this program needs, or says that it is not.
    pub async fn check_schema(&self) -> Result<(), Error> {
        let needed = MIGRATIONS.last().map_or(0, |(version, _)| *version);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let found = self.schema_version().await;
            match found {
                // A newer schema only has more in it.
                Ok(version) if version >= needed => return Ok(()),
                Err(error @ Error::Corrupt(_)) => return Err(error),
                Ok(_) | Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Ok(version) => {
                    return Err(Error::Settings(format!(
                        "the database's schema has version {version} and {needed} is needed: run `tributary migrate`"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn schema_version(&self) -> Result<i64, Error> {
        let mut connection = self.read("reading the schema's version").await?;
        let row = sql(
            "SELECT COALESCE(MAX(version), 0) AS version FROM schema_versions",
            "reading the schema's version",
        )
        .first(&mut connection)
        .await?;
        row.as_ref().map_or(Ok(0), |row| get(row, "version"))
    }
}
