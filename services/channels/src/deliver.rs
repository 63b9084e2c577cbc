//! The outbox: claims due messages and hands them to their channels.
//!
//! Each account has its own lease and loop, so one channel's queue never blocks
//! another's. Within an account the store claims of each conversation only the
//! oldest message, so conversations go side by side and each keeps its order.
//! What cannot be sent now is tried again after 5 s, 10 s, … 1 h, for about three
//! days, and then failed.

mod attempt;
mod way_back;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::error::chain;
use model::id::MessageId;
use model::time::Moment;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use store::Store;
use store::lease::Lease;
use store::outbox::{Claimed, Settlement, lease_name};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff;
use crate::list::{Account, Accounts};
use attempt::{bare, interrupted, outcome};

const DELIVERIES: &str = "deliveries";
const LEASE_HELD: &str = "deliver_lease_held";

/// Of one account, so many conversations are sent to at once.
const AT_ONCE: usize = 16;
/// How often the outbox is looked at; one cheap query for all accounts.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// While the database is away.
const STORE_WAIT: Duration = Duration::from_secs(1);
/// After a stop, so long what is under way may take.
const FINISH: Duration = Duration::from_secs(8);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// A broken account with nothing to send is tried out so often.
const TRY_EVERY: Duration = Duration::from_secs(300);
/// What that may take, for messages wait for it.
const TRY_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    account: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    account: String,
    outcome: &'static str,
}

struct Deliverer {
    accounts: Accounts,
    store: Store,
    blobs: bus::Blobs,
    owner: String,
    lease_period: Duration,
    stop: CancellationToken,
    deliveries: Family<OutcomeLabels, Counter>,
    held: Family<Labels, Gauge>,
}

/// Delivers for every account, one lease each, until `stop`. Ends earlier only
/// with a fault of the store, when what is under way has ended.
pub fn run(
    accounts: Accounts,
    store: Store,
    blobs: bus::Blobs,
    owner: String,
    lease_period: Duration,
    stop: CancellationToken,
    registry: &mut Registry,
) -> impl Future<Output = Result<(), store::Error>> + Send + use<> {
    // Rises whenever a row of some account is due.
    let (announce, due) = watch::channel(0);
    let deliverer = Arc::new(Deliverer {
        accounts: accounts.clone(),
        store,
        blobs,
        owner,
        lease_period,
        // Cancelled by a fault too.
        stop: stop.child_token(),
        deliveries: Family::default(),
        held: Family::default(),
    });
    registry.register(
        DELIVERIES,
        "Attempts to deliver a message",
        deliverer.deliveries.clone(),
    );
    registry.register(
        LEASE_HELD,
        "Whether this process delivers for the account",
        deliverer.held.clone(),
    );
    async move {
        let mut tasks = JoinSet::new();
        let (store, stop) = (deliverer.store.clone(), deliverer.stop.clone());
        tasks.spawn(async move {
            let watching = backoff::outlive_panics(&stop, || watch_outbox(&store, &announce), async || {});
            stop.run_until_cancelled(watching).await.unwrap_or(Ok(()))
        });
        for account in accounts.into_values() {
            let (deliverer, due) = (deliverer.clone(), due.clone());
            tasks.spawn(async move { deliverer.keep_delivering(Arc::new(account), due).await });
        }
        let mut outcome = Ok(());
        while let Some(ended) = tasks.join_next().await {
            if let Ok(Err(fault)) = ended {
                deliverer.stop.cancel();
                outcome = Err(fault);
            }
        }
        outcome
    }
}

/// Looks whether anything is due, for all accounts at once.
async fn watch_outbox(store: &Store, announce: &watch::Sender<u64>) -> Result<(), store::Error> {
    loop {
        let is_due = match store.outbox_pending().await {
            Ok((_, earliest)) => earliest.is_some_and(|at| at <= now()),
            // Whoever claims will say so.
            Err(store::Error::Unavailable { .. }) => false,
            Err(fault) => return Err(fault),
        };
        if is_due {
            announce.send_modify(|count| *count += 1);
        }
        sleep(LOOK_EVERY).await;
    }
}

impl Deliverer {
    async fn keep_delivering(
        self: Arc<Self>,
        account: Arc<Account>,
        due: watch::Receiver<u64>,
    ) -> Result<(), store::Error> {
        let name = &account.plan.name;
        let broke = async || {
            tracing::error!(account.name = name, "delivery broke, it begins again");
            self.held.get_or_create(&Labels { account: name.clone() }).set(0);
            self.seen(name, Some("delivery broke because of a bug, it begins again"))
                .await;
        };
        backoff::outlive_panics(&self.stop, || self.deliver_account(&account, due.clone()), broke).await
    }

    async fn deliver_account(
        self: &Arc<Self>,
        account: &Arc<Account>,
        mut due: watch::Receiver<u64>,
    ) -> Result<(), store::Error> {
        let name = &account.plan.name;
        let lease_name = lease_name(name);
        let labels = Labels { account: name.clone() };
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            let lease = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                lease = self.store.hold_lease(&lease_name, &self.owner, self.lease_period) => lease,
            };
            self.held.get_or_create(&labels).set(1);
            let lost = lease.lost.clone();
            let delivering = async {
                let delivered = self.deliver_under(account, &lease, &mut due).await;
                delivered.and(self.release(&lease).await)
            };
            // What is under way when the lease is lost is dropped: the next
            // holder finds it in `sending` and decides.
            match lost.run_until_cancelled(delivering).await {
                Some(outcome) => outcome?,
                None => tracing::warn!(account.name = name, "lease lost"),
            }
            self.held.get_or_create(&labels).set(0);
        }
        Ok(())
    }

    /// Until `stop`, or until nobody knows what became of a row (a claim or a
    /// sender failed): it is recovered under the next fence.
    async fn deliver_under(
        self: &Arc<Self>,
        account: &Arc<Account>,
        lease: &Lease,
        due: &mut watch::Receiver<u64>,
    ) -> Result<(), store::Error> {
        let stop = &self.stop;
        match stop.run_until_cancelled(self.recover(account, lease)).await {
            Some(recovered) => recovered?,
            None => return Ok(()),
        }
        // Tasks of their own, so that they go on while we claim; dropped, they end.
        let mut sending = JoinSet::new();
        let mut trying = tokio::time::interval(TRY_EVERY);
        while !stop.is_cancelled() {
            let free = AT_ONCE.saturating_sub(sending.len());
            let claimed = match self.claim(account, lease, free).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    wait_out(&account.plan.name, error).await?;
                    break;
                }
            };
            for claimed in claimed {
                let (this, account, fence) = (self.clone(), account.clone(), lease.fence);
                sending.spawn(async move { this.deliver(&account, fence, claimed).await });
            }
            tokio::select! {
                () = stop.cancelled() => {}
                // A conversation has room for its next message.
                Some(ended) = sending.join_next() => match ended {
                    Ok(delivered) => delivered?,
                    Err(_) => {
                        tracing::error!(account.name = account.plan.name, "sending broke");
                        break;
                    }
                },
                changed = due.changed() => if changed.is_err() { break },
                _ = trying.tick() => self.try_if_broken(account).await,
            }
        }
        let finishing = async {
            while let Some(ended) = sending.join_next().await {
                ended.unwrap_or(Ok(()))?;
            }
            Ok(())
        };
        timeout(FINISH, finishing).await.unwrap_or(Ok(()))
    }

    /// Until it is done, so that the next holder, who may be we, need not wait for
    /// its end; a stop waits only a moment.
    async fn release(&self, lease: &Lease) -> Result<(), store::Error> {
        let releasing = async {
            while let Err(error) = self.store.release_lease(lease).await {
                wait_out(&lease.name, error).await?;
            }
            Ok(())
        };
        tokio::pin!(releasing);
        tokio::select! {
            released = &mut releasing => released,
            () = self.stop.cancelled() => timeout(RELEASE_TIMEOUT, releasing).await.unwrap_or(Ok(())),
        }
    }

    /// Rows that a holder before us left in `sending`.
    async fn recover(&self, account: &Account, lease: &Lease) -> Result<(), store::Error> {
        let name = &account.plan.name;
        let rows = loop {
            match self.store.interrupted_outbox(name, lease.fence).await {
                Ok(rows) => break rows,
                Err(error) => wait_out(name, error).await?,
            }
        };
        for row in rows {
            let settlement = interrupted(&account.channel.declaration(), row.attempts);
            self.count(name, &settlement);
            while let Err(error) = self
                .store
                .recover_outbox(&row.message_id, lease.fence, &settlement)
                .await
            {
                wait_out(name, error).await?;
            }
        }
        Ok(())
    }

    async fn claim(&self, account: &Account, lease: &Lease, limit: usize) -> Result<Vec<Claimed>, store::Error> {
        let (name, limit) = (&account.plan.name, limit as i64);
        match limit {
            0 => Ok(Vec::new()),
            _ => self.store.claim_outbox(name, lease.fence, now(), limit).await,
        }
    }

    async fn deliver(&self, account: &Account, fence: i64, claimed: Claimed) -> Result<(), store::Error> {
        let name = &account.plan.name;
        let message_id = &claimed.outbound.message_id;
        let settlement = self.attempt(account, &claimed).await;
        bus::abort::at("sent");
        self.count(name, &settlement);
        tracing::info!(account.name = name, message.id = %message_id, outcome = outcome(&settlement), "delivery attempted");
        self.settle(account, fence, message_id, &settlement).await?;
        self.note(account, &settlement).await;
        Ok(())
    }

    async fn settle(
        &self,
        account: &Account,
        fence: i64,
        message_id: &MessageId,
        settlement: &Settlement,
    ) -> Result<(), store::Error> {
        let name = &account.plan.name;
        let mut settlement = settlement.clone();
        loop {
            match self.store.settle_outbox(message_id, fence, &settlement, now()).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    tracing::warn!(account.name = name, message.id = %message_id, "outcome not written: another has it");
                    return Ok(());
                }
                // The provider's words are the only strange thing in it.
                Err(error @ store::Error::Refused { .. }) if bare(&settlement) != settlement => {
                    let error = chain(&error);
                    tracing::warn!(account.name = name, message.id = %message_id, error, "outcome refused, writing it bare");
                    settlement = bare(&settlement);
                }
                Err(error) => wait_out(name, error).await?,
            }
        }
    }

    /// What an outcome says of the account. A message that failed for good is to blame
    /// itself, and one whose outcome nobody knows says nothing.
    async fn note(&self, account: &Account, settlement: &Settlement) {
        let error = match settlement {
            Settlement::Sent { .. } => None,
            Settlement::Failed { .. } | Settlement::Uncertain { .. } => return,
            Settlement::Retry { error, .. } => Some(error.as_str()),
        };
        self.seen(&account.plan.name, error).await;
    }

    /// Asks the vendor whether a broken account works again, where no message shows it.
    async fn try_if_broken(&self, account: &Account) {
        let name = &account.plan.name;
        if !self.store.is_broken_and_idle(name).await.unwrap_or(false) {
            return;
        }
        let works = tokio::select! {
            () = self.stop.cancelled() => return,
            tried = timeout(TRY_TIMEOUT, account.channel.works()) => tried.unwrap_or(false),
        };
        if works {
            tracing::info!(account.name = name, "the account works again");
            self.seen(name, None).await;
        }
    }

    /// For pages only, so its failure stops nothing.
    async fn seen(&self, account: &str, error: Option<&str>) {
        if let Err(error) = self.store.account_sent(account, error, now()).await {
            tracing::warn!(account.name = account, %error, "state of account not written");
        }
    }

    fn count(&self, account: &str, settlement: &Settlement) {
        let labels = OutcomeLabels {
            account: account.to_owned(),
            outcome: outcome(settlement),
        };
        self.deliveries.get_or_create(&labels).inc();
    }
}

/// A store that is away is waited for: rows stay where they are. Anything else is
/// a fault.
async fn wait_out(account: &str, error: store::Error) -> Result<(), store::Error> {
    match error {
        store::Error::Unavailable { .. } => {
            let error = chain(&error);
            tracing::warn!(account.name = account, error, "outbox not reached");
            sleep(backoff::jittered(STORE_WAIT)).await;
            Ok(())
        }
        store::Error::Refused { .. } | store::Error::Corrupt(_) | store::Error::Settings(_) => Err(error),
    }
}

fn now() -> Moment {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests;
