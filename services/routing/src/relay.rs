//! The relay: publishes announcements on the desk topic in the order of each
//! subject's versions, under a lease, and removes what is published. A crash in
//! between publishes some twice, with the same version.

use std::time::Duration;

use bus::Bus;
use store::Store;
use store::lease::Lease;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::{Error, chain};

const LEASE: &str = "relay";
/// Announcements published at once.
const LIMIT: i64 = 500;
/// Between two looks when there is nothing to tell.
const IDLE: Duration = Duration::from_millis(200);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Relays until `stop`. Ends earlier only with a fault.
pub async fn run(
    store: Store,
    bus: Bus,
    metrics: Metrics,
    owner: String,
    lease_period: Duration,
    stop: CancellationToken,
) -> Result<(), Error> {
    loop {
        let lease = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            lease = store.hold_lease(LEASE, &owner, lease_period) => lease,
        };
        relay(&store, &bus, &metrics, &lease, &stop).await?;
        if stop.is_cancelled() {
            if let Err(error) = store.release_lease(&lease).await {
                tracing::debug!(error = %chain(&error), "lease could not be released, it will run out");
            }
            return Ok(());
        }
    }
}

/// Relays while the lease is held.
async fn relay(
    store: &Store,
    bus: &Bus,
    metrics: &Metrics,
    lease: &Lease,
    stop: &CancellationToken,
) -> Result<(), Error> {
    loop {
        // What a stop cuts off is announced again, with the same versions.
        let Some(published) = stop.run_until_cancelled(publish_next(store, bus, metrics, lease)).await else {
            return Ok(());
        };
        let wait = match published {
            Ok(true) => Duration::ZERO,
            Ok(false) => IDLE,
            Err(Failure::Store(error @ (store::Error::Corrupt(_) | store::Error::Settings(_)))) => {
                return Err(Error::Store(error));
            }
            Err(Failure::Store(error)) => {
                tracing::warn!(error = %chain(&error), "announcements cannot be read, trying again soon");
                PAUSE
            }
            Err(Failure::Bus(error)) => {
                tracing::warn!(error = %chain(&error), "announcements cannot be published, trying again soon");
                PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = lease.lost.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

enum Failure {
    Store(store::Error),
    Bus(bus::Error),
}

/// Publishes what waits; says whether there was anything.
async fn publish_next(store: &Store, bus: &Bus, metrics: &Metrics, lease: &Lease) -> Result<bool, Failure> {
    let announcements = store.next_announcements(LIMIT).await.map_err(Failure::Store)?;
    if announcements.is_empty() {
        return Ok(false);
    }
    bus.announce(&announcements).await.map_err(Failure::Bus)?;
    if store
        .remove_announcements(lease, &announcements)
        .await
        .map_err(Failure::Store)?
    {
        metrics.announced.inc_by(announcements.len() as u64);
    } else {
        lease.lost.cancel();
    }
    Ok(true)
}
