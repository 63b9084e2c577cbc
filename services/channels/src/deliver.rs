//! The outbox: claims due messages and hands them to their channels.
//!
//! Each account has its own lease and loop, so one channel's queue never blocks
//! another's. Within an account the store claims of each conversation only the
//! oldest message, so conversations go side by side and each keeps its order.
//! What cannot be sent now is tried again after 5 s, 10 s, … 1 h, for about three
//! days (`MAX_ATTEMPTS`), and then failed.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use model::outbound::{Declaration, Outbound};
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
use crate::channel::Sent;
use crate::list::{Account, Accounts};

const DELIVERIES: &str = "deliveries";
const LEASE_HELD: &str = "deliver_lease_held";

/// Of one account, so many conversations are sent to at once.
const AT_ONCE: usize = 16;
/// How often the outbox is looked at; one cheap query for all accounts.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Ten attempts in the first hours, then one each hour: about three days.
const MAX_ATTEMPTS: i64 = 80;
/// While the database is away.
const STORE_WAIT: Duration = Duration::from_secs(1);
/// After a stop, so long what is under way may take.
const FINISH: Duration = Duration::from_secs(8);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

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
    store: Store,
    blobs: bus::Blobs,
    owner: String,
    lease_period: Duration,
    stop: CancellationToken,
    deliveries: Family<OutcomeLabels, Counter>,
    held: Family<Labels, Gauge>,
}

/// Delivers for every account, one lease each, until `stop`.
pub fn run(
    accounts: Accounts,
    store: Store,
    blobs: bus::Blobs,
    owner: String,
    lease_period: Duration,
    stop: CancellationToken,
    registry: &mut Registry,
) -> impl Future<Output = ()> + Send + use<> {
    // Rises whenever a row of some account is due.
    let (announce, due) = watch::channel(0);
    let deliverer = Arc::new(Deliverer {
        store,
        blobs,
        owner,
        lease_period,
        stop,
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
            stop.run_until_cancelled(watch_outbox(store, announce))
                .await
                .unwrap_or(())
        });
        for account in accounts.into_values() {
            let (deliverer, due) = (deliverer.clone(), due.clone());
            tasks.spawn(async move { deliverer.deliver_account(Arc::new(account), due).await });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "delivery of an account ended");
            }
        }
    }
}

/// Looks whether anything is due, for all accounts at once.
async fn watch_outbox(store: Store, announce: watch::Sender<u64>) {
    loop {
        let is_due = match store.outbox_pending().await {
            Ok((_, earliest)) => earliest.is_some_and(|at| at <= now()),
            // Whoever claims will say so.
            Err(_) => false,
        };
        if is_due {
            announce.send_modify(|count| *count += 1);
        }
        sleep(LOOK_EVERY).await;
    }
}

impl Deliverer {
    async fn deliver_account(self: Arc<Self>, account: Arc<Account>, mut due: watch::Receiver<u64>) {
        let name = &account.plan.name;
        let lease_name = lease_name(name);
        let labels = Labels { account: name.clone() };
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            let lease = tokio::select! {
                () = stop.cancelled() => return,
                lease = self.store.hold_lease(&lease_name, &self.owner, self.lease_period) => lease,
            };
            self.held.get_or_create(&labels).set(1);
            let lost = lease.lost.clone();
            let delivering = async {
                self.deliver_under(&account, &lease, &mut due).await;
                self.release(&lease).await;
            };
            // What is under way when the lease is lost is dropped: the next
            // holder finds it in `sending` and decides.
            if lost.run_until_cancelled(delivering).await.is_none() {
                tracing::warn!(account.name = name, "lease lost");
            }
            self.held.get_or_create(&labels).set(0);
        }
    }

    /// Until `stop`, or until a claim failed whose outcome nobody knows: rows that
    /// it claimed all the same are recovered under the next fence.
    async fn deliver_under(self: &Arc<Self>, account: &Arc<Account>, lease: &Lease, due: &mut watch::Receiver<u64>) {
        let stop = &self.stop;
        if stop.run_until_cancelled(self.recover(account, lease)).await.is_none() {
            return;
        }
        // Tasks of their own, so that they go on while we claim; dropped, they end.
        let mut sending = JoinSet::new();
        while !stop.is_cancelled() {
            let free = AT_ONCE.saturating_sub(sending.len());
            let claimed = match self.claim(account, lease, free).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    store_failed(&account.plan.name, &error).await;
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
                Some(_) = sending.join_next() => {}
                changed = due.changed() => if changed.is_err() { break },
            }
        }
        let _ = timeout(FINISH, async { while sending.join_next().await.is_some() {} }).await;
    }

    /// Until it is done, so that the next holder, who may be we, need not wait for
    /// its end; a stop waits only a moment.
    async fn release(&self, lease: &Lease) {
        let releasing = async {
            while let Err(error) = self.store.release_lease(lease).await {
                store_failed(&lease.name, &error).await;
            }
        };
        tokio::pin!(releasing);
        tokio::select! {
            () = &mut releasing => {}
            () = self.stop.cancelled() => { let _ = timeout(RELEASE_TIMEOUT, releasing).await; }
        }
    }

    /// Rows that a holder before us left in `sending`.
    async fn recover(&self, account: &Account, lease: &Lease) {
        let name = &account.plan.name;
        let interrupted = loop {
            match self.store.interrupted_outbox(name, lease.fence).await {
                Ok(interrupted) => break interrupted,
                Err(error) => store_failed(name, &error).await,
            }
        };
        let error = "the process that was sending it ended".to_owned();
        for row in interrupted {
            let settlement = match account.channel.declaration().resend_safe {
                true => Settlement::Retry {
                    at: now(),
                    error: error.clone(),
                },
                false => Settlement::Uncertain { error: error.clone() },
            };
            self.count(name, &settlement);
            while let Err(error) = self
                .store
                .recover_outbox(&row.message_id, lease.fence, &settlement)
                .await
            {
                store_failed(name, &error).await;
            }
        }
    }

    async fn claim(&self, account: &Account, lease: &Lease, limit: usize) -> Result<Vec<Claimed>, store::Error> {
        let (name, limit) = (&account.plan.name, limit as i64);
        match limit {
            0 => Ok(Vec::new()),
            _ => self.store.claim_outbox(name, lease.fence, now(), limit).await,
        }
    }

    async fn deliver(&self, account: &Account, fence: i64, claimed: Claimed) {
        let name = &account.plan.name;
        let message_id = &claimed.outbound.message_id;
        let settlement = self.attempt(account, &claimed).await;
        self.count(name, &settlement);
        let outcome = outcome(&settlement);
        tracing::info!(account.name = name, message.id = %message_id, outcome, "delivery attempted");
        loop {
            match self.store.settle_outbox(message_id, fence, &settlement, now()).await {
                Ok(true) => break,
                Ok(false) => {
                    tracing::warn!(account.name = name, message.id = %message_id, "outcome not written: another has it");
                    break;
                }
                Err(error) => store_failed(name, &error).await,
            }
        }
        self.note(account, &settlement).await;
    }

    async fn attempt(&self, account: &Account, claimed: &Claimed) -> Settlement {
        let outbound = &claimed.outbound;
        let declaration = account.channel.declaration();
        if let Err(error) = check(&declaration, outbound) {
            return Settlement::Failed { error };
        }
        let files = match self.files(outbound).await {
            Ok(files) => files,
            Err(Sent::Refused { error }) => return Settlement::Failed { error },
            Err(other) => return settlement(other, &declaration, claimed.attempts),
        };
        let deadline = account.channel.send_deadline();
        let sending = AssertUnwindSafe(account.channel.send(outbound, &files)).catch_unwind();
        let sent = match timeout(deadline, sending).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(_)) => Sent::Unknown {
                error: "the channel failed while sending".to_owned(),
            },
            Err(_) => Sent::Unknown {
                error: format!("no answer within {} s", deadline.as_secs()),
            },
        };
        settlement(sent, &declaration, claimed.attempts)
    }

    async fn files(&self, outbound: &Outbound) -> Result<Vec<Vec<u8>>, Sent> {
        let mut files = Vec::new();
        for attachment in &outbound.attachments {
            match self.blobs.get(&attachment.sha256).await {
                Ok(Some(bytes)) => files.push(bytes),
                Ok(None) => {
                    let error = format!("the bytes of attachment {} are missing", attachment.sha256);
                    return Err(Sent::Refused { error });
                }
                Err(error) => {
                    let error = format!("attachments cannot be read: {error}");
                    return Err(Sent::Later { after: None, error });
                }
            }
        }
        Ok(files)
    }

    /// The account's state, where no reader tells it.
    async fn note(&self, account: &Account, settlement: &Settlement) {
        if account.channel.pulls() {
            return;
        }
        let error = match settlement {
            Settlement::Sent { .. } => None,
            Settlement::Failed { error } | Settlement::Retry { error, .. } | Settlement::Uncertain { error } => {
                Some(error.as_str())
            }
        };
        let name = &account.plan.name;
        if let Err(error) = self.store.account_seen(name, error, 0, now()).await {
            tracing::warn!(account.name = name, %error, "state of account not written");
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

/// What the channel declared that it cannot carry is not given to it.
fn check(declaration: &Declaration, outbound: &Outbound) -> Result<(), String> {
    let chars = outbound.text.chars().count() as u64;
    if let Some(max) = declaration.max_chars.filter(|max| chars > u64::from(*max)) {
        return Err(format!("the text has {chars} characters, the channel carries {max}"));
    }
    let bytes: u64 = outbound
        .attachments
        .iter()
        .map(|attachment| attachment.size_bytes)
        .sum();
    match declaration.max_attachment_bytes {
        _ if outbound.attachments.is_empty() => Ok(()),
        None => Err("the channel carries no attachments".to_owned()),
        Some(max) if bytes > max => Err(format!("the attachments have {bytes} bytes, the channel carries {max}")),
        Some(_) => Ok(()),
    }
}

/// What becomes of the row. An unknown outcome is tried again only where the
/// customer gets the message at most once all the same.
fn settlement(sent: Sent, declaration: &Declaration, attempts: i64) -> Settlement {
    match sent {
        Sent::Accepted { external_ids } => Settlement::Sent { external_ids },
        Sent::Refused { error } => Settlement::Failed { error },
        Sent::Later { after, error } => later(after, error, attempts),
        Sent::Unknown { error } if declaration.resend_safe => later(None, error, attempts),
        Sent::Unknown { error } => Settlement::Uncertain { error },
    }
}

fn later(after: Option<Duration>, error: String, attempts: i64) -> Settlement {
    let attempts = attempts + 1;
    if attempts >= MAX_ATTEMPTS {
        let error = format!("given up after {attempts} attempts: {error}");
        return Settlement::Failed { error };
    }
    let times = u32::try_from(attempts - 1).unwrap_or(0);
    let wait = backoff::exponential(FIRST_WAIT, LONGEST_WAIT, times).max(after.unwrap_or_default());
    let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    Settlement::Retry {
        at: now().plus_ms(wait_ms),
        error,
    }
}

/// As the metric names it.
fn outcome(settlement: &Settlement) -> &'static str {
    match settlement {
        Settlement::Sent { .. } => "sent",
        Settlement::Failed { .. } => "failed",
        Settlement::Retry { .. } => "retry",
        Settlement::Uncertain { .. } => "uncertain",
    }
}

/// All failures of the store are waited out: rows stay where they are.
async fn store_failed(account: &str, error: &store::Error) {
    let error = crate::guard::describe(error);
    tracing::warn!(account.name = account, error, "outbox not reached");
    sleep(backoff::jittered(STORE_WAIT)).await;
}

fn now() -> Moment {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests;
