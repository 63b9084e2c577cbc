//! Half a minute in which everything breaks, less of it in the light world, and a judge
//! who finds nothing lost and nothing doubled: the short form of `make faults`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tests::faults::{self, Plan};
use tests::harness::world::World;

pub async fn run(world: &Arc<World>) -> Result<()> {
    let plan = Plan {
        seed: 7,
        length: Duration::from_secs(if world.name == "light" { 5 } else { 30 }),
        is_long: false,
        is_thorough: false,
    };
    faults::run(world, plan).await?;
    Ok(())
}
