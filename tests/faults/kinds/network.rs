//! The way to Kafka.

use std::time::{Duration, Instant};

use super::Told;
use crate::faults::Site;
use crate::harness::proxy::Weather;
use crate::harness::random::Random;
use crate::vendors::lock;

/// A piece of bytes takes so long when Kafka is slow.
const SLOW: Duration = Duration::from_millis(60);

pub async fn kafka_refuses(site: &Site, random: &mut Random) -> Told {
    let ms = lasts(site, random);
    Ok((String::new(), away(site, Weather::Refusing, ms).await))
}

pub async fn kafka_is_a_hole(site: &Site, random: &mut Random) -> Told {
    let ms = lasts(site, random);
    Ok((String::new(), away(site, Weather::Hole, ms).await))
}

/// Away and there again, every three seconds; shorter in a short run.
pub async fn kafka_flaps(site: &Site, random: &mut Random) -> Told {
    let (times, ms) = if site.plan.is_long { (10, 3_000) } else { (3, 700) };
    let mut is_busy = false;
    for _ in 0..times {
        let weather = if random.one_in(2) {
            Weather::Hole
        } else {
            Weather::Refusing
        };
        is_busy |= away(site, weather, ms).await;
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    Ok((format!("{times} times"), is_busy))
}

pub async fn kafka_is_slow(site: &Site, random: &mut Random) -> Told {
    let is_busy = site.oracle.is_busy();
    site.kafka.set(Weather::Slow(SLOW));
    tokio::time::sleep(Duration::from_millis(lasts(site, random))).await;
    site.kafka.set(Weather::Clear);
    Ok((String::new(), is_busy))
}

fn lasts(site: &Site, random: &mut Random) -> u64 {
    match site.plan.is_long {
        // Once in a while as long as an outage is.
        true if random.one_in(40) => 600_000,
        true => random.between(3_000, 30_000),
        false => random.between(2_500, 4_000),
    }
}

/// Kafka is away for so long; whether something came meanwhile.
async fn away(site: &Site, weather: Weather, ms: u64) -> bool {
    let is_busy = site.oracle.is_busy();
    let from = Instant::now();
    site.kafka.set(weather);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    lock(&site.away).push((from, Instant::now()));
    site.kafka.set(Weather::Clear);
    // Producers and readers find it again.
    tokio::time::sleep(Duration::from_millis(300)).await;
    is_busy
}
