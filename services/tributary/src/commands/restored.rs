//! `tributary restored`: the database is a backup that was put back, and knows less
//! than the event log and the world.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bus::Bus;
use clap::Args;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::roles::{self, ROUTER_GROUP, Role};
use crate::settings::Settings;
use crate::telemetry;

const POLL: Duration = Duration::from_millis(100);
const BUS_GRACE: Duration = Duration::from_secs(3);

/// What the messages that may have been sent say.
const DOUBT: &str = "it may have been sent before the database was put back";

#[derive(Debug, Args)]
pub struct Arguments {
    /// Give up after so many seconds without progress
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience: u64,
}

/// Applies again what arrived since the backup. Whatever then waits to be sent, of the
/// backup and of what was applied again, may have been sent: it becomes uncertain, so
/// nothing goes out twice by itself. Chats begin new epochs. May be run again.
pub async fn run(arguments: &Arguments, settings: Settings) -> Result<()> {
    let checked = super::checked(settings)?;
    let store = roles::prepare_store(Role::Router, &checked).await?;
    let bus = Bus::open(&checked.settings.bus_settings(false), &mut telemetry::registry()).await?;
    let patience = Duration::from_secs(arguments.patience);
    let applied = apply_again(&bus, &store, checked.settings.router.readers, patience).await;
    bus.stop(BUS_GRACE).await;
    let applied = applied?;
    let doubtful = store.doubt_outbox(DOUBT).await?;
    let mut begun = 0;
    for account in checked.accounts.values().filter(|account| account.plan.live) {
        begun += store.begin_epochs(&account.plan.name).await?;
    }
    super::print(&format!(
        "events applied again: {applied}; messages that may have been sent, and are uncertain now: {doubtful}; \
         chats in a new epoch: {begun}"
    ))
}

/// Routes until the store has come to where the log ended when we began.
async fn apply_again(bus: &Bus, store: &Store, readers: usize, patience: Duration) -> Result<i64> {
    let ends = patiently(patience, || bus.end_offsets(bus::EVENTS)).await?;
    let began_at = left(store, &ends).await?;
    let known = store.offsets(bus::EVENTS).await?;
    let places: Vec<(i32, i64)> = ends
        .iter()
        .map(|(partition, _)| (*partition, offset(&known, *partition)))
        .collect();
    // A router begins where the group stood before the database was lost: behind it all.
    patiently(patience, || bus.rewind(bus::EVENTS, ROUTER_GROUP, &places))
        .await
        .context("is a router still running?")?;
    let settings = routing::Settings {
        group: ROUTER_GROUP.to_owned(),
        readers,
    };
    let (stop, metrics) = (
        CancellationToken::new(),
        routing::Metrics::new(&mut telemetry::registry()),
    );
    let routing = routing::run(settings, bus.clone(), store.clone(), metrics, stop.clone());
    let arriving = async {
        let arrived = arrive(store, &ends, patience).await;
        stop.cancel();
        arrived
    };
    let (routed, arrived) = tokio::join!(routing, arriving);
    routed?;
    arrived?;
    Ok(began_at)
}

async fn arrive(store: &Store, ends: &[(i32, i64)], patience: Duration) -> Result<()> {
    let mut left = left(store, ends).await?;
    let mut progress_at = Instant::now();
    while left > 0 {
        tokio::time::sleep(POLL).await;
        let now_left = self::left(store, ends).await?;
        if now_left != left {
            progress_at = Instant::now();
        }
        left = now_left;
        if progress_at.elapsed() > patience {
            bail!("{left} events are not applied and nothing moves; is another router running?");
        }
    }
    Ok(())
}

/// The topics may just be looked for, and routers that ended just now may still count
/// as members of their group.
async fn patiently<T, F: Future<Output = Result<T, bus::Error>>>(
    patience: Duration,
    attempt: impl Fn() -> F,
) -> Result<T> {
    let began = Instant::now();
    loop {
        match attempt().await {
            Err(bus::Error::Unavailable(_)) if began.elapsed() < patience => tokio::time::sleep(POLL).await,
            outcome => return Ok(outcome?),
        }
    }
}

/// Events of the log that the store has not applied.
async fn left(store: &Store, ends: &[(i32, i64)]) -> Result<i64> {
    let offsets = store.offsets(bus::EVENTS).await?;
    let left = ends.iter().map(|(partition, end)| end - offset(&offsets, *partition));
    Ok(left.map(|left| left.max(0)).sum())
}

fn offset(offsets: &[(i32, i64)], partition: i32) -> i64 {
    let found = offsets.iter().find(|(known, _)| *known == partition);
    found.map_or(0, |(_, offset)| *offset)
}
