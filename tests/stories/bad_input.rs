//! Not told yet.

use anyhow::{Result, bail};
use tests::harness::world::World;

pub async fn run(_: &World) -> Result<()> {
    bail!("not told yet")
}
