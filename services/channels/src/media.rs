//! Attachments that came as a reference: fetched once, under the guard, and kept
//! as blobs.
//!
//! What is fetched from where is the channel's to say, the rest is alike for all:
//! limits of size, type and time, true types, and what becomes of a failure. Rows
//! are claimed for a while (see `store::media`), so any number of workers fetch
//! side by side, and one account's slow server keeps up no other account's files.
//! What cannot be had now is tried again after 5 s, 10 s, … 1 h, for about three
//! hours, and then lost; a person can ask for it again.

mod fetch;
mod name;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use model::error::chain;
use model::file::{self, Limits};
use model::id::sha256_hex;
use model::time::Moment;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use store::Store;
use store::media::{ClaimedMedia, MediaOutcome};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff;
use crate::guard::Guard;
use crate::list::{Account, Accounts};
pub use name::file_name;

const FETCHES: &str = "media_fetches";

/// Of all accounts; a file is in memory while it comes.
const AT_ONCE: usize = 8;
/// Of one account.
const AT_ONCE_EACH: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(250);
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
const MAX_ATTEMPTS: i64 = 12;
/// A claim outlives its fetch by so much, to be settled.
const CLAIM_MARGIN: Duration = Duration::from_secs(30);
/// While the database or the folder of blobs is away.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// A request for a file.
#[derive(Clone, Debug)]
pub struct Fetch {
    pub url: String,
    /// For the server of `url` alone: a redirect to another does not take them along.
    pub headers: Vec<(&'static str, SecretString)>,
    /// Whether redirects are followed; not where a redirect leads to a login page.
    pub follows: bool,
    /// Whether it may lead to a private or local address.
    pub allow_private: bool,
    /// SHA-256 of the file in hexadecimal, where the vendor tells: other bytes are not it.
    pub sha256: Option<String>,
}

/// Why a file was not fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfetched {
    /// It will never work.
    Lost { reason: String },
    /// Not now; the server may have said when.
    Later { after: Option<Duration>, reason: String },
}

impl Fetch {
    /// A public file.
    pub fn of(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            headers: Vec::new(),
            follows: true,
            allow_private: false,
            sha256: None,
        }
    }
}

impl Unfetched {
    pub(crate) fn lost(reason: impl Into<String>) -> Self {
        Self::Lost { reason: reason.into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    account: String,
    outcome: &'static str,
}

struct Fetcher {
    store: Store,
    blobs: bus::Blobs,
    limits: Limits,
    public: Guard,
    private: Guard,
    fetches: Family<OutcomeLabels, Counter>,
}

/// Fetches for every account, until `stop`. Ends earlier only with a fault of the store.
pub fn run(
    accounts: Accounts,
    store: Store,
    blobs: bus::Blobs,
    limits: Limits,
    guards: (Guard, Guard),
    stop: CancellationToken,
    registry: &mut Registry,
) -> impl Future<Output = Result<(), store::Error>> + Send + use<> {
    let fetcher = Arc::new(Fetcher {
        store,
        blobs,
        limits,
        public: guards.0,
        private: guards.1,
        fetches: Family::default(),
    });
    registry.register(FETCHES, "Attempts to fetch an attachment", fetcher.fetches.clone());
    let accounts: HashMap<String, Arc<Account>> = accounts
        .into_iter()
        .map(|(name, account)| (name, Arc::new(account)))
        .collect();
    async move {
        let fetching = backoff::outlive_panics(
            &stop,
            || fetcher.fetch_all(&accounts),
            async || {
                tracing::error!("fetching of attachments broke, it begins again");
            },
        );
        // What is under way is dropped; its claims run out.
        stop.run_until_cancelled(fetching).await.unwrap_or(Ok(()))
    }
}

impl Fetcher {
    async fn fetch_all(self: &Arc<Self>, accounts: &HashMap<String, Arc<Account>>) -> Result<(), store::Error> {
        let mut busy: HashMap<String, usize> = HashMap::new();
        let mut fetching = JoinSet::new();
        loop {
            let claimed = match self.claim(accounts, &busy).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    wait_out(error).await?;
                    Vec::new()
                }
            };
            for (account, claimed) in claimed {
                let name = account.plan.name.clone();
                *busy.entry(name.clone()).or_default() += 1;
                let this = self.clone();
                fetching.spawn(async move { (name, this.fetch_one(&account, claimed).await) });
            }
            tokio::select! {
                Some(ended) = fetching.join_next() => {
                    // It catches its own panics.
                    let Ok((name, outcome)) = ended else { continue };
                    if let Some(count) = busy.get_mut(&name) {
                        *count = count.saturating_sub(1);
                    }
                    outcome?;
                }
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// As many as there is room for.
    async fn claim(
        &self,
        accounts: &HashMap<String, Arc<Account>>,
        busy: &HashMap<String, usize>,
    ) -> Result<Vec<(Arc<Account>, ClaimedMedia)>, store::Error> {
        let mut room = AT_ONCE.saturating_sub(busy.values().sum());
        if room == 0 {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for name in self.store.accounts_with_due_media(now()).await? {
            let Some(account) = accounts.get(&name) else { continue };
            let own = AT_ONCE_EACH.saturating_sub(busy.get(&name).copied().unwrap_or(0));
            let limit = room.min(own);
            if limit == 0 {
                continue;
            }
            let until = later(self.deadline() + CLAIM_MARGIN);
            let claimed = self.store.claim_media(&name, now(), until, limit as i64).await?;
            room -= claimed.len().min(room);
            found.extend(claimed.into_iter().map(|claimed| (account.clone(), claimed)));
        }
        Ok(found)
    }

    async fn fetch_one(&self, account: &Account, claimed: ClaimedMedia) -> Result<(), store::Error> {
        let fetching = AssertUnwindSafe(self.fetch(account, &claimed)).catch_unwind();
        let fetched = match timeout(self.deadline(), fetching).await {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(_)) => Err(Unfetched::lost("the channel failed while fetching it")),
            Err(_) => Err(Unfetched::Later {
                after: None,
                reason: format!("not here within {} s", self.limits.fetch_seconds),
            }),
        };
        let outcome = outcome(fetched, claimed.attempts);
        let (name, id) = (&account.plan.name, &claimed.message_id);
        self.count(name, &outcome);
        tracing::info!(account.name = name, message.id = %id, outcome = name_of(&outcome), "attachment fetched or not");
        loop {
            match self.store.settle_media(&claimed, &outcome, now()).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    self.let_go(&outcome).await;
                    return Ok(());
                }
                Err(error) => wait_out(error).await?,
            }
        }
    }

    async fn fetch(&self, account: &Account, claimed: &ClaimedMedia) -> Result<MediaOutcome, Unfetched> {
        let attachment = &claimed.attachment;
        let source = attachment.source.as_deref().unwrap_or_default();
        let room = self.limits.max_message_bytes.saturating_sub(claimed.present_bytes);
        if room == 0 {
            let max = self.limits.max_message_bytes;
            return Err(Unfetched::lost(format!("the message's files have {max} bytes already")));
        }
        let asked = account.channel.media(source).await?;
        let guard = match asked.allow_private {
            true => &self.private,
            false => &self.public,
        };
        let bytes = fetch::bytes(guard, &asked, self.limits.max_bytes.min(room)).await?;
        if let Some(expected) = &asked.sha256
            && !expected.eq_ignore_ascii_case(&sha256_hex(&bytes))
        {
            // Cut or changed on its way.
            return Err(Unfetched::Later {
                after: None,
                reason: "other bytes came than the vendor has".to_owned(),
            });
        }
        let media_type = self.checked(&bytes, &attachment.media_type)?;
        let size_bytes = bytes.len() as u64;
        let sha256 = self.blobs.put(bytes).await.map_err(|error| Unfetched::Later {
            after: Some(STORE_WAIT),
            reason: error.to_string(),
        })?;
        Ok(MediaOutcome::Here {
            media_type,
            size_bytes,
            sha256,
        })
    }

    /// The true type. Where a page comes instead of something else, somebody asks
    /// us to log in, or tells us an error under a good status.
    fn checked(&self, bytes: &[u8], declared: &str) -> Result<String, Unfetched> {
        let found = self.limits.check(bytes, declared).map_err(Unfetched::lost)?;
        if found == "text/html" && file::essence(declared) != "text/html" {
            return Err(Unfetched::lost("the server gave a web page instead of the file"));
        }
        Ok(found)
    }

    /// Nobody refers to what was fetched in vain (its message was erased meanwhile).
    async fn let_go(&self, outcome: &MediaOutcome) {
        if let MediaOutcome::Here { sha256, .. } = outcome
            && let Err(error) = self.store.note_removal(sha256, now(), now()).await
        {
            tracing::warn!(%error, "a file that nobody needs stays");
        }
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(self.limits.fetch_seconds)
    }

    fn count(&self, account: &str, outcome: &MediaOutcome) {
        let labels = OutcomeLabels {
            account: account.to_owned(),
            outcome: name_of(outcome),
        };
        self.fetches.get_or_create(&labels).inc();
    }
}

/// What becomes of the row.
fn outcome(fetched: Result<MediaOutcome, Unfetched>, attempts: i64) -> MediaOutcome {
    let (after, reason) = match fetched {
        Ok(outcome) => return outcome,
        Err(Unfetched::Lost { reason }) => return MediaOutcome::Lost { reason },
        Err(Unfetched::Later { after, reason }) => (after, reason),
    };
    if attempts >= MAX_ATTEMPTS {
        let reason = format!("given up after {attempts} attempts: {reason}");
        return MediaOutcome::Lost { reason };
    }
    let times = u32::try_from(attempts - 1).unwrap_or(0);
    let wait = backoff::exponential(FIRST_WAIT, LONGEST_WAIT, times).max(after.unwrap_or_default());
    MediaOutcome::Retry { at: later(wait) }
}

/// As the metric names it.
fn name_of(outcome: &MediaOutcome) -> &'static str {
    match outcome {
        MediaOutcome::Here { .. } => "fetched",
        MediaOutcome::Lost { .. } => "lost",
        MediaOutcome::Retry { .. } => "retry",
    }
}

/// A store that is away is waited for; anything else is a fault.
async fn wait_out(error: store::Error) -> Result<(), store::Error> {
    match error {
        store::Error::Unavailable { .. } => {
            let error = chain(&error);
            tracing::warn!(error, "files to fetch not reached");
            sleep(backoff::jittered(STORE_WAIT)).await;
            Ok(())
        }
        fault => Err(fault),
    }
}

fn later(wait: Duration) -> Moment {
    now().plus_ms(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
}

fn now() -> Moment {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests;
