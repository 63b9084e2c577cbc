//! Blobs that nothing uses any more: of erased conversations, and files that were
//! uploaded and never sent.
//!
//! An event that is on its way may bring the same bytes again, and their use shows
//! only when it is applied. So the log is applied first as far as it went when the
//! look began; and whoever put a blob after it was listed keeps it for a day.

use std::time::{Duration, SystemTime};

use bus::Bus;
use model::time::Moment;
use store::Store;
use store::blobs::Removal;
use store::lease::Lease;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::chain;

/// The lease under which blobs are removed.
const LEASE: &str = "removal";
/// Blobs of one look.
const LIMIT: i64 = 200;
const LOOK: Duration = Duration::from_secs(1);
/// While the log is behind, or something is away.
const PAUSE: Duration = Duration::from_millis(250);
/// For so long a blob is kept for an event that is on its way.
const KEPT_MS: i64 = 24 * 3_600_000;

/// Removes what is due, until `stop`.
pub async fn run(
    store: Store,
    bus: Bus,
    owner: String,
    lease_period: Duration,
    stop: CancellationToken,
) -> Result<(), crate::Error> {
    while !stop.is_cancelled() {
        let lease = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            lease = store.hold_lease(LEASE, &owner, lease_period) => lease,
        };
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = lease.lost.cancelled() => Ok(()),
            ended = look_on(&store, &bus) => ended,
        };
        release(&store, &lease).await;
        ended?;
    }
    Ok(())
}

async fn look_on(store: &Store, bus: &Bus) -> Result<(), crate::Error> {
    loop {
        if let Err(error) = look(store, bus).await {
            match error {
                Failure::Store(error @ (store::Error::Corrupt(_) | store::Error::Settings(_))) => {
                    return Err(crate::Error::Store(error));
                }
                Failure::Store(error) => {
                    tracing::warn!(error = %chain(&error), "blobs cannot be removed, trying again soon");
                }
                Failure::Bus(error) => {
                    tracing::warn!(error = %chain(&error), "blobs cannot be removed, trying again soon");
                }
            }
        }
        sleep(LOOK).await;
    }
}

async fn look(store: &Store, bus: &Bus) -> Result<(), Failure> {
    // What was uploaded and sent; left on the list it would be looked at for ever.
    for removal in store.removals_in_vain(now(), LIMIT).await? {
        store.settle_removal(&removal, None).await?;
    }
    let due = store.removals_due(now(), LIMIT).await?;
    if due.is_empty() {
        return Ok(());
    }
    wait_until_applied(store, bus).await?;
    for removal in due {
        // Read again: the events just applied may use it.
        if !store.is_unused(&removal.sha256).await? {
            continue;
        }
        let due_at = remove(bus, &removal).await?;
        store.settle_removal(&removal, due_at).await?;
    }
    Ok(())
}

/// Removes the blob, or says when to look at it again.
async fn remove(bus: &Bus, removal: &Removal) -> Result<Option<Moment>, Failure> {
    let Some(put_at) = bus.blobs().put_at(&removal.sha256).await? else {
        return Ok(None);
    };
    let put_at = Moment::from(put_at);
    let kept_until = put_at.plus_ms(KEPT_MS);
    if put_at > removal.noted_at && kept_until > now() {
        return Ok(Some(kept_until));
    }
    bus.blobs().remove(&removal.sha256).await?;
    tracing::info!(blob.sha256 = removal.sha256, "blob removed");
    Ok(None)
}

/// Until the store has all that the log has now.
async fn wait_until_applied(store: &Store, bus: &Bus) -> Result<(), Failure> {
    let ends = bus.end_offsets(bus::EVENTS).await?;
    loop {
        let applied = store.offsets(bus::EVENTS).await?;
        let is_applied = |(partition, end): &(i32, i64)| {
            let next = applied.iter().find(|(other, _)| other == partition);
            next.map_or(0, |(_, next)| *next) >= *end
        };
        if ends.iter().all(is_applied) {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}

async fn release(store: &Store, lease: &Lease) {
    if let Err(error) = store.release_lease(lease).await {
        tracing::warn!(error = %chain(&error), "a lease was not given back");
    }
}

enum Failure {
    Store(store::Error),
    Bus(bus::Error),
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<bus::Error> for Failure {
    fn from(error: bus::Error) -> Self {
        Self::Bus(error)
    }
}

fn now() -> Moment {
    Moment::from(SystemTime::now())
}
