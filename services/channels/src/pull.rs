//! Sources that we go to (mailboxes, long polls), each read by one worker at a
//! time under a lease.

mod source;

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use store::Store;
use store::lease::Lease;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::backoff;
use crate::channel::PullError;
use crate::inbox::Inbox;
use crate::list::{Account, Accounts};

const LEASE_HELD: &str = "pull_lease_held";
const PULL_ERRORS: &str = "pull_errors";

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A pull that went so long was a success: the next failure is the first again.
const STEADY: Duration = Duration::from_secs(60);
/// After a stop or the loss of the lease, so long a channel may take to say good-bye.
const GOODBYE: Duration = Duration::from_secs(8);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a channel's `pull` works with.
pub struct Source {
    pub account: String,
    pub channel: String,
    pub inbox: Inbox,
    pub store: Store,
    pub lease: Lease,
    /// Stop of the process, or loss of the lease.
    pub stop: CancellationToken,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    account: String,
}

#[derive(Clone)]
struct Puller {
    inbox: Inbox,
    store: Store,
    owner: String,
    lease_period: Duration,
    stop: CancellationToken,
    held: Family<Labels, Gauge>,
    errors: Family<Labels, prometheus_client::metrics::counter::Counter>,
}

/// Pulls from every account that has a source, until `stop`.
pub fn run(
    accounts: Accounts,
    inbox: Inbox,
    store: Store,
    owner: String,
    lease_period: Duration,
    stop: CancellationToken,
    registry: &mut Registry,
) -> impl Future<Output = ()> + Send + use<> {
    let puller = Puller {
        inbox,
        store,
        owner,
        lease_period,
        stop,
        held: Family::default(),
        errors: Family::default(),
    };
    registry.register(
        LEASE_HELD,
        "Whether this process reads the account's source",
        puller.held.clone(),
    );
    registry.register(
        PULL_ERRORS,
        "Times that reading a source broke off",
        puller.errors.clone(),
    );
    async move {
        let stop = puller.stop.clone();
        let mut tasks = JoinSet::new();
        // One may have moved from long polling to a webhook.
        let pushed = accounts.values().filter(|account| !account.channel.pulls());
        let pushed: Vec<&str> = pushed.map(|account| account.plan.name.as_str()).collect();
        if let Err(error) = puller.store.nothing_waits(&pushed).await {
            tracing::warn!(%error, "accounts without a reader may look as if something waited there");
        }
        for account in accounts.into_values().filter(|account| account.channel.pulls()) {
            let puller = puller.clone();
            tasks.spawn(async move { puller.keep_pulling(&account).await });
        }
        while tasks.join_next().await.is_some() {}
        // Without any such account there is nothing to do, but no reason to end.
        stop.cancelled().await;
    }
}

impl Puller {
    async fn keep_pulling(&self, account: &Account) {
        let name = &account.plan.name;
        let broke = async || {
            self.held.get_or_create(&Labels { account: name.clone() }).set(0);
            self.failed(name, "reading broke because of a bug, it begins again")
                .await;
        };
        backoff::outlive_panics(&self.stop, || self.pull_account(account), broke).await;
    }

    async fn pull_account(&self, account: &Account) {
        let name = &account.plan.name;
        let lease_name = format!("pull:{name}");
        let labels = Labels { account: name.clone() };
        loop {
            let lease = tokio::select! {
                () = self.stop.cancelled() => return,
                lease = self.store.hold_lease(&lease_name, &self.owner, self.lease_period) => lease,
            };
            tracing::info!(account.name = name, lease.fence = lease.fence, "reading account");
            self.held.get_or_create(&labels).set(1);
            self.pull_under(account, lease).await;
            self.held.get_or_create(&labels).set(0);
        }
    }

    async fn pull_under(&self, account: &Account, lease: Lease) {
        let (stop, lost) = (self.stop.child_token(), lease.lost.clone());
        let source = Source {
            account: account.plan.name.clone(),
            channel: account.plan.channel.clone(),
            inbox: self.inbox.clone(),
            store: self.store.clone(),
            lease,
            stop: stop.clone(),
        };
        let pulling = self.pull_until_stopped(account, &source);
        tokio::pin!(pulling);
        tokio::select! {
            () = &mut pulling => {}
            () = stop.cancelled() => { let _ = timeout(GOODBYE, &mut pulling).await; }
            () = lost.cancelled() => {
                tracing::warn!(account.name = source.account, "lease lost");
                stop.cancel();
                let _ = timeout(GOODBYE, &mut pulling).await;
            }
        }
        if !lost.is_cancelled() {
            let _ = timeout(RELEASE_TIMEOUT, self.store.release_lease(&source.lease)).await;
        }
    }

    async fn pull_until_stopped(&self, account: &Account, source: &Source) {
        let mut failures = 0;
        while !source.stop.is_cancelled() {
            let begun = Instant::now();
            let pulled = AssertUnwindSafe(account.channel.pull(source)).catch_unwind().await;
            if source.stop.is_cancelled() {
                return;
            }
            if begun.elapsed() >= STEADY {
                failures = 0;
            }
            let error = match pulled {
                Ok(Ok(())) => None,
                Ok(Err(PullError { reason })) => Some(reason),
                Err(_) => Some("the channel's reader failed".to_owned()),
            };
            if let Some(error) = error {
                self.failed(&source.account, &error).await;
            }
            let wait = backoff::exponential(FIRST_WAIT, LONGEST_WAIT, failures);
            failures += 1;
            tokio::select! {
                () = source.stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn failed(&self, account: &str, error: &str) {
        let labels = Labels {
            account: account.to_owned(),
        };
        self.errors.get_or_create(&labels).inc();
        tracing::warn!(account.name = account, error, "reading broke off");
        // How much waits is not known; it is not nothing.
        let waiting = 1;
        let now = SystemTime::now().into();
        if let Err(error) = self.store.account_seen(account, Some(error), waiting, now).await {
            tracing::warn!(account.name = account, %error, "state of account not written");
        }
    }
}

#[cfg(test)]
mod tests;
