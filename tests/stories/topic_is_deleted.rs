//! Somebody deletes the desk's topic while we run: it comes back with its
//! retention, and what happens from then on is told.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::harness::customer::message;
use tests::harness::kafka::{DESK, delete_topic, topic};
use tests::harness::wait::eventually;
use tests::harness::world::World;

const SOON: Duration = Duration::from_secs(45);
const THIRTY_DAYS_MS: &str = "2592000000";

pub async fn run(world: &World) -> Result<()> {
    let kafka = world.servers.kafka().await?;
    world.quiet().await?;
    delete_topic(kafka, DESK).await?;
    let body = message("left@customer.example", "After the topic", "Are you there?");
    let answer = world.sender("storm")?.send("topic-is-deleted", &body).await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    world.desk.ticket("storm", "After the topic").await?;
    let retention = eventually("the topic is back and has records", SOON, async || {
        let (retention, records) = topic(kafka, DESK, "retention.ms").await?;
        Ok((records > 0).then_some(retention))
    })
    .await?;
    ensure!(retention.as_deref() == Some(THIRTY_DAYS_MS), "retention {retention:?}");
    world.quiet().await
}
