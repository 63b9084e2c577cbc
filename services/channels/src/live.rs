//! Live views: who looks at which conversation in this process, woken by hints and,
//! because hints are best effort, by one look a second at all of them. Whoever
//! looks reads the store from where he stands, so nothing is queued for anybody.

mod presence;
mod watching;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use bus::hints::{Hint, Hints, Typist};
use model::file::Limits;
use model::id::ConversationId;
use model::time::Moment;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use store::Store;
use store::live::Head;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::inbox::Inbox;
use crate::list::Accounts;
use presence::Goodbye;
pub use watching::Watch;

const VIEWERS: &str = "live_viewers";
const CLOSED: &str = "live_closed_sockets";

/// Between two looks at all conversations that somebody looks at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A conversation that nobody has begun yet is looked at every so many looks.
const UNBEGUN_EVERY: u64 = 10;
/// Presence is noted at least this often.
const LONGEST_BEAT: Duration = Duration::from_secs(15);
/// For the sockets to say goodbye after the stop.
const FAREWELL: Duration = Duration::from_secs(4);
/// Visitors who left and are not noted yet; of more, their time will tell.
const GOODBYES: usize = 4_096;

/// What live channels share in one process.
#[derive(Clone)]
pub struct Live {
    inner: Arc<Inner>,
}

struct Inner {
    inbox: Inbox,
    store: Store,
    blobs: bus::Blobs,
    files: Limits,
    hints: Hints,
    threads: Mutex<Threads>,
    goodbyes: mpsc::Sender<Goodbye>,
    leaving: Mutex<Option<mpsc::Receiver<Goodbye>>>,
    beat: Duration,
    tasks: TaskTracker,
    stop: CancellationToken,
    viewers: Gauge,
    closed: Family<Closed, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Closed {
    account: String,
    reason: &'static str,
}

/// A thread by its account and its name.
type Key = (Arc<str>, Arc<str>);

#[derive(Default)]
struct Threads {
    watched: HashMap<Key, Watched>,
    count: u64,
}

struct Watched {
    seen: watch::Sender<Seen>,
    viewers: usize,
    /// Spreads the looks at what is not begun.
    number: u64,
    /// A message of it is on its way: look each time.
    is_expected: bool,
    /// When its presence was noted last.
    noted_at: Option<Moment>,
}

/// What is known of a thread.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// `None`: there is no conversation, or nobody has looked yet.
    pub head: Option<Place>,
    /// Rises when the desk is writing.
    pub typing: u32,
}

/// How far a conversation has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub conversation_id: ConversationId,
    pub epoch: i64,
    pub last_sequence: i64,
}

/// Routes of those accounts that have some of their own.
pub fn routes(accounts: &Accounts, live: &Live) -> Router {
    accounts
        .values()
        .filter_map(|account| account.channel.clone().routes(live))
        .fold(Router::new(), Router::merge)
}

/// Whether any account needs this.
pub fn is_needed(accounts: &Accounts) -> bool {
    accounts.values().any(|account| account.plan.live)
}

impl Live {
    /// Nobody looks yet.
    pub fn new(
        accounts: &Accounts,
        inbox: Inbox,
        store: Store,
        bus: &bus::Bus,
        files: Limits,
        registry: &mut Registry,
        stop: CancellationToken,
    ) -> Self {
        let (goodbyes, leaving) = mpsc::channel(GOODBYES);
        let viewers = Gauge::default();
        registry.register(VIEWERS, "Sockets that show a conversation", viewers.clone());
        let closed = Family::default();
        registry.register(CLOSED, "Sockets that we closed", closed.clone());
        let away = accounts
            .values()
            .filter_map(|account| account.channel.declaration().live)
            .map(|view| Duration::from_millis(view.away_after_ms.unsigned_abs()) / 3);
        Self {
            inner: Arc::new(Inner {
                inbox,
                store,
                blobs: bus.blobs().clone(),
                files,
                hints: bus.hints().clone(),
                threads: Mutex::default(),
                goodbyes,
                leaving: Mutex::new(Some(leaving)),
                beat: away.fold(LONGEST_BEAT, Duration::min),
                tasks: TaskTracker::new(),
                stop,
                viewers,
                closed,
            }),
        }
    }

    /// Looks, and notes who is there, until the stop; then until all have said
    /// goodbye.
    pub async fn run(self) {
        let inner = &self.inner;
        let leaving = inner.leaving.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut leaving) = leaving else { return };
        let hints = inner.hints.subscribe();
        inner
            .stop
            .run_until_cancelled(async {
                tokio::join!(self.look(), self.listen(hints), self.note(&mut leaving));
            })
            .await;
        inner.tasks.close();
        let farewell = async {
            tokio::join!(inner.tasks.wait(), async {
                while !inner.tasks.is_empty() {
                    let _ = timeout(Duration::from_millis(20), self.note_leaving(&mut leaving)).await;
                }
            });
        };
        if timeout(FAREWELL, farewell).await.is_err() {
            tracing::warn!("some sockets did not close in time");
        }
    }

    /// Begins to look at a thread.
    pub fn watch(&self, account: &str, thread: &str) -> Watch {
        let mut threads = self.threads();
        threads.count += 1;
        let number = threads.count;
        let key = match threads.watched.get_key_value(&(account.into(), thread.into()) as &Key) {
            Some((key, _)) => key.clone(),
            None => (account.into(), thread.into()),
        };
        let watched = threads.watched.entry(key.clone()).or_insert_with(|| Watched {
            seen: watch::Sender::new(Seen::default()),
            viewers: 0,
            number,
            is_expected: false,
            noted_at: None,
        });
        watched.viewers += 1;
        let seen = watched.seen.subscribe();
        drop(threads);
        self.inner.viewers.inc();
        Watch {
            live: self.clone(),
            key,
            seen,
        }
    }

    /// Runs as one of those that the stop waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(task);
    }

    pub fn inbox(&self) -> &Inbox {
        &self.inner.inbox
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub fn blobs(&self) -> &bus::Blobs {
        &self.inner.blobs
    }

    /// Which files may be taken.
    pub fn files(&self) -> &Limits {
        &self.inner.files
    }

    /// Counts a socket that we closed, by the reason's name.
    pub fn count_closed(&self, account: &str, reason: &'static str) {
        let account = account.to_owned();
        self.inner.closed.get_or_create(&Closed { account, reason }).inc();
    }

    /// Cancelled when the process stops.
    pub fn stop(&self) -> &CancellationToken {
        &self.inner.stop
    }

    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look a second at everything.
    async fn look(&self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for turn in 0_u64.. {
            ticks.tick().await;
            let keys: Vec<Key> = {
                let threads = self.threads();
                let due = threads.watched.iter().filter(|(_, watched)| watched.is_due(turn));
                due.map(|(key, _)| key.clone()).collect()
            };
            self.look_at(&keys).await;
        }
    }

    async fn look_at(&self, keys: &[Key]) {
        let asked: Vec<(&str, &str)> = keys.iter().map(|(account, thread)| (&**account, &**thread)).collect();
        match self.inner.store.heads(&asked).await {
            Ok(heads) => heads.into_iter().for_each(|head| self.learn(head)),
            Err(error) => tracing::debug!(%error, "live conversations cannot be looked at"),
        }
    }

    /// Wakes whoever looks at this thread, if this is news.
    fn learn(&self, head: Head) {
        let key: Key = (head.account.into(), head.thread_name.into());
        let place = Place {
            conversation_id: head.conversation_id,
            epoch: head.epoch,
            last_sequence: head.last_sequence,
        };
        if let Some(watched) = self.threads().watched.get(&key) {
            watched.seen.send_if_modified(|seen| seen.advance(place));
        }
    }

    async fn listen(&self, mut hints: broadcast::Receiver<Hint>) {
        loop {
            match hints.recv().await {
                Ok(Hint::Changed {
                    account,
                    thread,
                    conversation_id,
                    epoch,
                    last_sequence,
                }) => self.learn(Head {
                    account,
                    thread_name: thread,
                    conversation_id,
                    epoch,
                    last_sequence,
                }),
                Ok(Hint::Typing {
                    account,
                    thread,
                    by: Typist::Desk,
                }) => {
                    let key: Key = (account.into(), thread.into());
                    if let Some(watched) = self.threads().watched.get(&key) {
                        watched
                            .seen
                            .send_modify(|seen| seen.typing = seen.typing.wrapping_add(1));
                    }
                }
                Ok(Hint::Typing { .. } | Hint::Presence { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn leave(&self, key: &Key) {
        self.inner.viewers.dec();
        let mut threads = self.threads();
        let Some(watched) = threads.watched.get_mut(key) else {
            return;
        };
        watched.viewers -= 1;
        if watched.viewers > 0 {
            return;
        }
        let Some(watched) = threads.watched.remove(key) else {
            return;
        };
        drop(threads);
        let head = watched.seen.borrow().head.clone();
        if let (Some(place), Some(noted_at)) = (head, watched.noted_at) {
            let _ = self.inner.goodbyes.try_send(Goodbye {
                key: key.clone(),
                conversation_id: place.conversation_id,
                noted_at,
            });
        }
    }
}

impl Watched {
    fn is_due(&self, turn: u64) -> bool {
        let is_begun = self.is_expected || self.seen.borrow().head.is_some();
        is_begun || (turn + self.number).is_multiple_of(UNBEGUN_EVERY)
    }
}

impl Seen {
    /// Takes what is further; says whether it was.
    fn advance(&mut self, place: Place) -> bool {
        let is_further = match &self.head {
            None => true,
            Some(known) if known.conversation_id != place.conversation_id => true,
            Some(known) => (place.epoch, place.last_sequence) > (known.epoch, known.last_sequence),
        };
        if is_further {
            self.head = Some(place);
        }
        is_further
    }
}

fn now() -> Moment {
    SystemTime::now().into()
}
