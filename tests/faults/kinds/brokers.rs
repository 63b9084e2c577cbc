//! Kafka of three brokers, of which some are gone; one that is not there at first; and
//! one that takes less than it did.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Told;
use super::clients::MAX_MIB;
use super::own::{Gateway, Poster, passes, start_of};
use crate::faults::Site;
use crate::harness::kafka;
use crate::harness::proxy::Weather;
use crate::harness::random::Random;
use crate::harness::wait::eventually;
use crate::vendors::lock;

/// So many are taken by a gateway that has never seen Kafka.
const EARLY: usize = 20;
/// What the broker takes, and what is too large for it though not for us.
const SMALL: &str = "65536";
const LARGE: usize = 200_000;
const LIMIT: &str = "max.message.bytes";
const TAKEN_WITHIN: Duration = Duration::from_secs(20);

/// The others lead its partitions within seconds, and all goes on, by Kafka.
pub async fn one_is_gone(site: &Site, random: &mut Random) -> Told {
    let kafka = site.world.servers.kafka().await?;
    let broker = &kafka.brokers[random.index(kafka.brokers.len())];
    let is_busy = site.oracle.is_busy();
    broker.kill().await?;
    let passed = passes(site, random).await?;
    tokio::time::sleep(Duration::from_millis(lasts(site, random))).await;
    let mib = site.gateways_mib().await;
    broker.start().await?;
    kafka::all_there(kafka).await?;
    ensure!(mib < MAX_MIB, "a gateway takes {mib:.0} MiB");
    let seconds = passed.as_secs_f32();
    Ok((
        format!(
            "(port {}, a message passed in {seconds:.1} s, {mib:.0} MiB)",
            broker.port
        ),
        is_busy,
    ))
}

/// One copy is not enough: nothing is acknowledged, and gateways go on by their spools.
pub async fn two_are_gone(site: &Site, random: &mut Random) -> Told {
    let kafka = site.world.servers.kafka().await?;
    let mut brokers: Vec<_> = kafka.brokers.iter().collect();
    random.shuffle(&mut brokers);
    let is_busy = site.oracle.is_busy();
    let from = Instant::now();
    for broker in &brokers[..2] {
        broker.kill().await?;
    }
    tokio::time::sleep(Duration::from_millis(lasts(site, random))).await;
    let mib = site.gateways_mib().await;
    lock(&site.away).push((from, Instant::now()));
    futures_util::future::try_join_all(brokers[..2].iter().map(|broker| broker.start())).await?;
    kafka::all_there(kafka).await?;
    ensure!(mib < MAX_MIB, "a gateway takes {mib:.0} MiB");
    let seconds = passes(site, random).await?.as_secs_f32();
    Ok((
        format!("(then a message passed in {seconds:.1} s, {mib:.0} MiB)"),
        is_busy,
    ))
}

fn lasts(site: &Site, random: &mut Random) -> u64 {
    random.between(5_000, if site.plan.is_long { 40_000 } else { 8_000 })
}

/// A gateway that has never seen Kafka takes what comes.
pub async fn starts_before_kafka(site: &Site, random: &mut Random) -> Told {
    let weather = if random.one_in(2) {
        Weather::Hole
    } else {
        Weather::Refusing
    };
    site.kafka.set(weather);
    let taken = take_early(site, random).await;
    site.kafka.set(Weather::Clear);
    let (gateway, ready_after) = taken?;
    gateway.leave().await?;
    let seconds = ready_after.as_secs_f32();
    Ok((
        format!("({weather:?}, ready after {seconds:.1} s, {EARLY} taken)"),
        true,
    ))
}

async fn take_early<'a>(site: &'a Site, random: &mut Random) -> Result<(Gateway<'a>, Duration)> {
    let gateway = Gateway::start(site, random, start_of(site, "gateway-early").await?, &[]).await?;
    for _ in 0..EARLY {
        ensure!(gateway.post().await?, "a gateway that has not seen Kafka takes nothing");
    }
    let ready_after = gateway.process.ready_after;
    Ok((gateway, ready_after))
}

/// What the broker refuses for good is made smaller, its bytes become a blob.
pub async fn takes_only_small_records(site: &Site, random: &mut Random) -> Told {
    let kafka = site.world.servers.kafka().await?;
    let posters = site.world.public.iter().map(|public| Poster::new(site, random, public));
    let posters = posters.collect::<Result<Vec<_>>>()?;
    kafka::set_topic(kafka, kafka::EVENTS, LIMIT, Some(SMALL)).await?;
    let taken = eventually("a large message is taken", TAKEN_WITHIN, async || {
        for poster in &posters {
            // Its gateway may just be dead.
            if let Ok(Some(message_id)) = poster.post(LARGE).await {
                return Ok(Some(message_id));
            }
        }
        Ok(None)
    });
    let taken = taken.await;
    let passed = passes(site, random).await;
    kafka::set_topic(kafka, kafka::EVENTS, LIMIT, None).await?;
    let (message_id, passed) = (taken?, passed?);
    let path = format!("/v1/messages/{message_id}");
    eventually("the large message is at the desk", TAKEN_WITHIN, async || {
        site.world.desk.get(&path).await.map(Some)
    })
    .await?;
    let seconds = passed.as_secs_f32();
    Ok((
        format!("({SMALL} bytes, another message passed in {seconds:.1} s)"),
        true,
    ))
}
