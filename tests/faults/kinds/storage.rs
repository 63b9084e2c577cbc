//! Object storage that is away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Told;
use super::own::{Poster, passes};
use crate::faults::Site;
use crate::harness::proxy::Weather;
use crate::harness::random::Random;
use crate::harness::wait::eventually;

/// More than travels with an event.
const LARGE: usize = 300_000;
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// Gateways look for it every two seconds.
const THERE_WITHIN: Duration = Duration::from_secs(60);

/// Small messages pass as ever; large ones are taken, wait in the spool, and are at
/// the desk when it is back.
pub async fn is_away(site: &Site, random: &mut Random) -> Told {
    let weather = if random.one_in(2) {
        Weather::Hole
    } else {
        Weather::Refusing
    };
    site.world.storage.set(weather);
    let outcome = meanwhile(site, random).await;
    site.world.storage.set(Weather::Clear);
    let (path, passed) = outcome?;
    eventually("the large message is at the desk", THERE_WITHIN, async || {
        site.world.desk.get(&path).await.map(Some)
    })
    .await?;
    let seconds = passed.as_secs_f32();
    Ok((format!("({weather:?}, a small message passed in {seconds:.1} s)"), true))
}

/// A large message, and how long a small one took.
async fn meanwhile(site: &Site, random: &mut Random) -> Result<(String, Duration)> {
    let public = site.world.public.first().context("no gateway")?;
    let poster = Poster::new(site, random, public)?;
    let taken = eventually("a large message is taken", TAKEN_WITHIN, async || {
        poster.post(LARGE).await
    });
    let path = format!("/v1/messages/{}", taken.await?);
    let passed = passes(site, random).await?;
    ensure!(
        site.world.desk.get(&path).await.is_err(),
        "a message is at the desk whose bytes have no place"
    );
    Ok((path, passed))
}
