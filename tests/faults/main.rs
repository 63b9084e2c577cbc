//! `make faults SEED=… MINUTES=…`: breaks everything for so long, on servers of its
//! own, and ends with what was lost and doubled, which must be nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tests::faults::kinds::disks;
use tests::faults::{self, Plan, Tally};
use tests::harness::servers::Servers;
use tests::harness::world::World;
use tests::harness::{process, settings};

/// Longer runs have faults that last as long as in life.
const SHORT_MINUTES: u64 = 2;

/// As many as promises are made for.
const BROKERS: usize = 3;

/// So much of the time belongs to the light world, after the heavy one.
const LIGHT_PART: u32 = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let minutes = number("MINUTES")?.unwrap_or(1);
    let plan = Plan {
        seed: number("SEED")?.unwrap_or(now),
        length: Duration::from_secs(minutes * 60),
        is_long: minutes > SHORT_MINUTES,
        is_thorough: true,
    };
    process::build()?;
    let boxes = settings::boxes("heavy") + &settings::boxes("light");
    let servers = Arc::new(Servers::new(boxes, BROKERS)?);
    let outcome = break_all(&servers, plan).await;
    servers.stop().await?;
    println!("{}", outcome?);
    Ok(())
}

/// What became of both worlds.
async fn break_all(servers: &Arc<Servers>, plan: Plan) -> Result<Tally> {
    let world = Arc::new(World::start("heavy", servers.clone()).await?);
    let mut tally = faults::run(&world, plan).await?;
    for process in world.processes().await.iter_mut() {
        process.terminate().await?;
    }
    let length = plan.length / LIGHT_PART;
    let _disk = disks::of_light_world(&servers.dir).await?;
    let world = Arc::new(World::start("light", servers.clone()).await?);
    tally += faults::run(&world, Plan { length, ..plan }).await?;
    for process in world.processes().await.iter_mut() {
        process.terminate().await?;
    }
    Ok(tally)
}

/// A number from the environment; none where it is not set or empty.
fn number(name: &str) -> Result<Option<u64>> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => Ok(Some(text.parse().with_context(|| format!("{name} is no number"))?)),
        _ => Ok(None),
    }
}
