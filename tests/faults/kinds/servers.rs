//! PostgreSQL, and Kafka as an operator changes it.

use std::time::Duration;

use anyhow::Result;
use sqlx::Connection as _;

use super::Told;
use crate::faults::{Site, kafka};
use crate::harness::random::Random;

/// Connections are cut so often in a row.
const CUTS: usize = 8;

/// Stops in the middle of everything, recovers, and is there again.
pub async fn postgres_crashes(site: &Site, random: &mut Random) -> Told {
    let postgres = site.world.servers.postgres().await?;
    let is_busy = site.is_pending(&["bus", "outbox", "announcements"]).await || site.oracle.is_busy();
    postgres.crash().await?;
    tokio::time::sleep(Duration::from_millis(random.between(0, 1_500))).await;
    postgres.start().await?;
    Ok((String::new(), is_busy))
}

/// Every connection of ours ends, whatever it is doing.
pub async fn connections_are_cut(site: &Site, random: &mut Random) -> Told {
    let mut cut = (0, 0);
    for _ in 0..CUTS {
        // The server may just be away itself.
        if let Ok((all, busy)) = cut_connections(&site.world.store_url).await {
            cut = (cut.0 + all, cut.1 + busy);
        }
        tokio::time::sleep(Duration::from_millis(random.between(50, 250))).await;
    }
    Ok((format!("({} of {} in a statement)", cut.1, cut.0), cut.1 > 0))
}

/// How many were cut, and how many of them were in a transaction or a statement.
async fn cut_connections(url: &str) -> Result<(i64, i64)> {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(url).await?;
    let cut = sqlx::query_as(
        "SELECT COUNT(*), COALESCE(SUM(CASE WHEN state = 'idle' THEN 0 ELSE 1 END), 0) FROM (
             SELECT state, pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
         ) AS cut",
    );
    let cut = cut.fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(cut)
}

/// Threads change their partitions.
pub async fn more_partitions(site: &Site, _: &mut Random) -> Told {
    let kafka = site.world.servers.kafka().await?;
    let is_busy = site.is_pending(&["bus"]).await || site.oracle.is_busy();
    let count = kafka::add_partitions(kafka, kafka::EVENTS, 1).await?;
    Ok((format!("({count} now)"), is_busy))
}
