//! Other sessions of PostgreSQL that are in the way of ours: what fails for that reason
//! is done again, and nothing of it is left behind.

use std::time::Duration;

use anyhow::Result;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row as _};

use super::Told;
use crate::faults::Site;
use crate::harness::random::Random;

/// What our transactions write.
const TABLES: [&str; 9] = [
    "accounts",
    "announcements",
    "conversations",
    "leases",
    "messages",
    "outbox",
    "partitions",
    "ticket_events",
    "tickets",
];
/// Counts even in transactions that are rolled back, as a sequence does.
const PREPARE: &str = "
    CREATE SEQUENCE IF NOT EXISTS conflicts_seen;
    CREATE OR REPLACE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF random() < 0.04 THEN
            PERFORM nextval('conflicts_seen');
            RAISE EXCEPTION 'a conflict on purpose'
                USING ERRCODE = CASE WHEN random() < 0.5 THEN '40001' ELSE '40P01' END;
        END IF;
        RETURN NULL;
    END $$";
/// Ours find the deadlock first, and are the ones that fail.
const LOCK_AGAINST_THE_ORDER: &str = "
    SET deadlock_timeout = '60s';
    BEGIN;
    SELECT 1 FROM conversations ORDER BY id DESC FOR UPDATE;
    SELECT pg_sleep(0.2);
    UPDATE partitions SET next_offset = next_offset;
    COMMIT";
/// So often in a short run.
const DEADLOCKS: usize = 3;

/// Statements and commits of ours fail by chance, as they do among many writers.
pub async fn by_a_trigger(site: &Site, random: &mut Random) -> Told {
    let mut connection = connect(site).await?;
    run(&mut connection, PREPARE).await?;
    let before = count(&mut connection, "SELECT last_value FROM conflicts_seen").await?;
    for table in TABLES {
        let statement = format!(
            "CREATE TRIGGER conflict AFTER INSERT OR UPDATE OR DELETE ON {table}
                 FOR EACH STATEMENT EXECUTE FUNCTION conflict();
             CREATE CONSTRAINT TRIGGER conflict_at_commit AFTER INSERT OR UPDATE OR DELETE ON {table}
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION conflict()"
        );
        run(&mut connection, &statement).await?;
    }
    let ms = random.between(2_000, if site.plan.is_long { 20_000 } else { 3_500 });
    tokio::time::sleep(Duration::from_millis(ms)).await;
    for table in TABLES {
        let statement = format!("DROP TRIGGER conflict ON {table}; DROP TRIGGER conflict_at_commit ON {table}");
        run(&mut connection, &statement).await?;
    }
    let seen = count(&mut connection, "SELECT last_value FROM conflicts_seen").await? - before;
    connection.close().await?;
    Ok((format!("({seen})"), seen > 0))
}

/// Somebody locks rows in another order than we do.
pub async fn deadlocks(site: &Site, random: &mut Random) -> Told {
    const COUNT: &str = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let mut connection = connect(site).await?;
    let before = count(&mut connection, COUNT).await?;
    let times = if site.plan.is_long { 4 * DEADLOCKS } else { DEADLOCKS };
    for _ in 0..times {
        run(&mut connection, LOCK_AGAINST_THE_ORDER).await?;
        tokio::time::sleep(Duration::from_millis(random.between(50, 400))).await;
    }
    // What a session counts is told within a second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let seen = count(&mut connection, COUNT).await? - before;
    connection.close().await?;
    Ok((format!("({seen} of {times})"), seen > 0))
}

/// A session of our own.
pub async fn connect(site: &Site) -> Result<AnyConnection> {
    sqlx::any::install_default_drivers();
    Ok(AnyConnection::connect(&site.world.store_url).await?)
}

async fn run(connection: &mut AnyConnection, statements: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(connection)
        .await?;
    Ok(())
}

async fn count(connection: &mut AnyConnection, query: &'static str) -> Result<i64> {
    Ok(sqlx::query(query).fetch_one(connection).await?.try_get(0)?)
}
