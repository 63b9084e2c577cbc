//! Leases: (name, owner, fence, beat). A challenger takes one by compare-and-set
//! after it has seen one beat unchanged for the whole period on its own
//! monotonic clock.

use std::time::Duration;

use model::error::chain;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connection::Connection;
use crate::sql::{get, sql};
use crate::{Error, Store};

/// A lease that we hold. Its beat goes on in the background until it is dropped
/// or lost.
pub struct Lease {
    pub name: String,
    pub owner: String,
    /// Rises with every change of owner; every write under the lease checks it.
    pub fence: i64,
    /// Cancelled when the lease is lost (somebody took it, or its beat could not
    /// be written for a whole period).
    pub lost: CancellationToken,
    /// Ends the beat.
    _beating: DropGuard,
}

/// Who holds a lease, for pages and metrics.
#[derive(Clone, Debug)]
pub struct LeaseHolder {
    pub name: String,
    pub owner: String,
    pub fence: i64,
}

/// A lease as a challenger sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    owner: String,
    fence: i64,
    beat: i64,
}

/// Keeps the beat of one lease.
struct Beat {
    store: Store,
    name: String,
    owner: String,
    fence: i64,
    period: Duration,
    lost: CancellationToken,
    dropped: CancellationToken,
}

impl Store {
    /// Waits until the lease is ours. Cancel by dropping.
    pub async fn hold_lease(&self, name: &str, owner: &str, period: Duration) -> Lease {
        let pause = (period / 6).max(Duration::from_millis(1));
        let mut watched: Option<(Seen, Instant)> = None;
        loop {
            let asked_at = Instant::now();
            match self.challenge(name, owner, period, &mut watched).await {
                Ok(Some(fence)) => return self.begin_beat(name, owner, fence, period, asked_at),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(lease.name = name, error = %chain(&error), "cannot ask for a lease, will try again");
                }
            }
            sleep(pause).await;
        }
    }

    /// Gives the lease back at once, so that the next owner need not wait.
    pub async fn release_lease(&self, lease: &Lease) -> Result<(), Error> {
        let doing = "releasing a lease";
        let mut transaction = self.begin(doing).await?;
        sql(
            "UPDATE leases SET owner = '', beat = beat + 1 WHERE name = $1 AND owner = $2 AND fence = $3",
            doing,
        )
        .bind(&lease.name)
        .bind(&lease.owner)
        .bind(lease.fence)
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await
    }

    /// All leases that somebody holds.
    pub async fn lease_holders(&self) -> Result<Vec<LeaseHolder>, Error> {
        let statement = sql(
            "SELECT name, owner, fence FROM leases WHERE owner <> '' ORDER BY name",
            "reading leases",
        );
        self.read_all(statement, |row| {
            Ok(LeaseHolder {
                name: get(row, "name")?,
                owner: get(row, "owner")?,
                fence: get(row, "fence")?,
            })
        })
        .await
    }

    /// One look at the lease; its fence, if it became ours.
    async fn challenge(
        &self,
        name: &str,
        owner: &str,
        period: Duration,
        watched: &mut Option<(Seen, Instant)>,
    ) -> Result<Option<i64>, Error> {
        let Some(seen) = self.look_at(name).await? else {
            return self.create_lease(name, owner).await;
        };
        let is_free = seen.owner.is_empty();
        let is_dead = matches!(watched, Some((known, since)) if *known == seen && since.elapsed() >= period);
        if is_free || is_dead {
            *watched = None;
            return self.take_lease(name, owner, &seen).await;
        }
        if !matches!(watched, Some((known, _)) if *known == seen) {
            *watched = Some((seen, Instant::now()));
        }
        Ok(None)
    }

    async fn look_at(&self, name: &str) -> Result<Option<Seen>, Error> {
        let statement = sql(
            "SELECT owner, fence, beat FROM leases WHERE name = $1",
            "reading a lease",
        )
        .bind(name);
        let found = self.read_all(statement, |row| {
            Ok(Seen {
                owner: get(row, "owner")?,
                fence: get(row, "fence")?,
                beat: get(row, "beat")?,
            })
        });
        Ok(found.await?.pop())
    }

    async fn create_lease(&self, name: &str, owner: &str) -> Result<Option<i64>, Error> {
        let doing = "creating a lease";
        let mut transaction = self.begin(doing).await?;
        let created = sql(
            "INSERT INTO leases (name, owner, fence, beat) VALUES ($1, $2, 1, 1) ON CONFLICT DO NOTHING",
            doing,
        )
        .bind(name)
        .bind(owner)
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await?;
        Ok((created == 1).then_some(1))
    }

    async fn take_lease(&self, name: &str, owner: &str, seen: &Seen) -> Result<Option<i64>, Error> {
        let doing = "taking a lease";
        let mut transaction = self.begin(doing).await?;
        let taken = sql(
            "UPDATE leases SET owner = $1, fence = fence + 1, beat = beat + 1
             WHERE name = $2 AND owner = $3 AND fence = $4 AND beat = $5",
            doing,
        )
        .bind(owner)
        .bind(name)
        .bind(&seen.owner)
        .bind(seen.fence)
        .bind(seen.beat)
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await?;
        Ok((taken == 1).then_some(seen.fence + 1))
    }

    fn begin_beat(&self, name: &str, owner: &str, fence: i64, period: Duration, written_at: Instant) -> Lease {
        let lost = CancellationToken::new();
        let dropped = CancellationToken::new();
        let beat = Beat {
            store: self.clone(),
            name: name.to_owned(),
            owner: owner.to_owned(),
            fence,
            period,
            lost: lost.clone(),
            dropped: dropped.clone(),
        };
        tokio::spawn(beat.run(written_at));
        Lease {
            name: name.to_owned(),
            owner: owner.to_owned(),
            fence,
            lost,
            _beating: dropped.drop_guard(),
        }
    }
}

impl Beat {
    /// `written_at`: when we began to write the last beat that arrived. Nobody
    /// can have seen it earlier, so nobody takes the lease within a period of it.
    async fn run(self, mut written_at: Instant) {
        let mut pause = self.period / 4;
        loop {
            tokio::select! {
                () = self.dropped.cancelled() => return,
                () = sleep(pause) => {}
            }
            let asked_at = Instant::now();
            let deadline = written_at + self.period;
            let beaten = tokio::select! {
                () = self.dropped.cancelled() => return,
                beaten = timeout_at(deadline, self.write()) => beaten,
            };
            match beaten {
                Ok(Ok(true)) => {
                    written_at = asked_at;
                    pause = self.period / 4;
                }
                Ok(Err(error)) if Instant::now() < deadline => {
                    tracing::warn!(lease.name = self.name, error = %chain(&error), "cannot write a beat, will try again");
                    pause = self.period / 16;
                }
                Ok(Ok(false) | Err(_)) | Err(_) => {
                    tracing::warn!(lease.name = self.name, lease.fence = self.fence, "lease lost");
                    self.lost.cancel();
                    return;
                }
            }
        }
    }

    /// Whether the lease is still ours.
    async fn write(&self) -> Result<bool, Error> {
        let doing = "writing a beat";
        let mut transaction = self.store.begin(doing).await?;
        let beaten = sql(
            "UPDATE leases SET beat = beat + 1 WHERE name = $1 AND owner = $2 AND fence = $3",
            doing,
        )
        .bind(&self.name)
        .bind(&self.owner)
        .bind(self.fence)
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await?;
        Ok(beaten == 1)
    }
}

/// Whether the fence of a lease still holds. Locks the lease's row, so that
/// nobody takes it before the transaction ends.
pub(crate) async fn holds(connection: &mut Connection, name: &str, fence: i64) -> Result<bool, Error> {
    let held = sql(
        "UPDATE leases SET fence = fence WHERE name = $1 AND fence = $2 AND owner <> ''",
        "checking a lease",
    )
    .bind(name)
    .bind(fence)
    .execute(connection)
    .await?;
    Ok(held == 1)
}
