//! The event log: publishing arrivals so that they are durable when `publish`
//! returns, reading them in batches, and keeping large bytes. Kafka or a local
//! SQLite file lie behind one interface of concrete types; between a gateway and
//! Kafka lies the spool.
//!
//! Suggested reading order:

mod error;
mod wire;

mod large;

mod kafka;
mod local;
mod spool;

pub mod abort;
mod blobs;
pub mod hints;
mod metrics;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::context::Announcement;
use model::event::Event;
use model::time::Moment;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::blobs::Shelf;
pub use self::blobs::{Blobs, Served};
pub use self::error::Error;
use self::hints::Hints;
use self::kafka::{Kafka, KafkaReader};
use self::local::{LocalReader, Log};
use self::metrics::Metrics;
use self::spool::Spool;
pub use self::spool::{refused_events, spool_status};
pub use self::wire::decode;

/// Arrivals, keyed by thread, kept 30 days.
pub const EVENTS: &str = "tributary.events.v1";
/// What happened to conversations, tickets and clocks, keyed by subject, kept 30 days.
pub const DESK: &str = "tributary.desk.v1";
/// Wake-ups, typing, presence: best effort, kept an hour.
pub const HINTS: &str = "tributary.hints.v1";

/// `[bus]`, `[spool]` and `[blobs]` of the settings, and the folder of `[data]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `local:PATH` (an SQLite file) or `kafka:host:port,host:port`.
    pub url: String,
    /// Where the spool lies; only gateways have one.
    pub spool: Option<SpoolSettings>,
    /// `file:PATH`, a folder of content-addressed files, or `s3:BUCKET/PREFIX`.
    pub blobs_url: String,
    /// Partitions of topics that are created because they are missing.
    pub partitions: i32,
    /// How to come in, where the log is Kafka.
    pub kafka: KafkaSettings,
}

/// What Kafka wants of its clients, in librdkafka's terms. Whether it holds
/// together is for whoever reads the settings to check.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security_protocol: String,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl_mechanism: Option<String>,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    /// PEM: authorities to trust instead of the system's.
    pub ca: Option<String>,
    /// PEM: a certificate that names us, and its key.
    pub certificate: Option<String>,
    pub key: Option<SecretString>,
}

impl KafkaSettings {
    /// Whether a client can be made with them; asks no broker.
    pub fn check(&self) -> Result<(), Error> {
        kafka::check(self)
    }
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            security_protocol: "plaintext".to_owned(),
            sasl_mechanism: None,
            username: None,
            password: None,
            ca: None,
            certificate: None,
            key: None,
        }
    }
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

/// What is still on its way, for `tributary_pending`; and what Kafka refuses for
/// good, which waits for a person.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    pub spooled_events: u64,
    pub spooled_bytes: u64,
    pub spooled_oldest_at: Option<Moment>,
    pub refused_events: u64,
    pub refused_bytes: u64,
    pub refused_oldest_at: Option<Moment>,
    /// Why the oldest of them was refused.
    pub refused_reason: Option<String>,
}

/// An event that Kafka refuses for good, as it lies in the spool.
#[derive(Debug)]
pub struct RefusedEvent {
    pub reason: String,
    pub key: String,
    pub headers: Vec<(String, String)>,
    /// Protobuf.
    pub value: Vec<u8>,
}

/// The way to either log.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    log: Way,
    blobs: Blobs,
    hints: Hints,
    metrics: Metrics,
    tasks: TaskTracker,
    stop: CancellationToken,
}

enum Way {
    Local(Log),
    Kafka { kafka: Kafka, spool: Option<Box<Spool>> },
}

/// Reads one topic as a member of a group (Kafka), or from the local log.
pub struct Reader {
    way: ReaderWay,
}

enum ReaderWay {
    Local(LocalReader),
    Kafka(Box<KafkaReader>),
}

/// How long the local log keeps records.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long `publish` waits for Kafka where there is no spool.
const PATIENCE_WITHOUT_SPOOL: Duration = Duration::from_secs(1);
/// How long announcements wait for Kafka; they are announced again.
const ANNOUNCING_PATIENCE: Duration = Duration::from_secs(10);
/// How long stopping waits for what is still under way to Kafka.
const FLUSHING_PATIENCE: Duration = Duration::from_secs(2);

impl Bus {
    /// Connects, creates missing topics with their retention, opens the spool and
    /// begins to forward what it holds. A Kafka that is away is no error.
    pub async fn open(settings: &Settings, registry: &mut Registry) -> Result<Self, Error> {
        let mut blobs = Blobs::open(&settings.blobs_url)?;
        let metrics = Metrics::register(registry);
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let log = match settings.url.split_once(':') {
            Some(("local", path)) if !path.is_empty() => {
                Way::Local(Log::open(Path::new(path), Some(RETENTION), &tasks).await?)
            }
            Some(("kafka", servers)) if are_servers(servers) => {
                let kafka = Kafka::open(servers, &settings.kafka, settings.partitions, &tasks, stop.clone()).await?;
                let spool = match &settings.spool {
                    // What an earlier setting left behind is still forwarded.
                    Some(spool) if spool.max_bytes > 0 || spool.path.exists() => {
                        let log = Log::open(&spool.path, None, &tasks).await?;
                        let shelf = Shelf::open(log, spool.max_bytes).await?;
                        blobs = blobs.with_shelf(shelf.clone());
                        let (kafka, blobs, metrics) = (kafka.clone(), blobs.clone(), metrics.clone());
                        let opening = Spool::open(spool, shelf, kafka, blobs, metrics, &tasks, stop.clone());
                        Some(Box::new(opening.await?))
                    }
                    _ => None,
                };
                Way::Kafka { kafka, spool }
            }
            _ => {
                return Err(Error::Settings(format!(
                    "[bus] url must be local:PATH or kafka:HOST:PORT,…, not `{}`",
                    settings.url
                )));
            }
        };
        let hints = match &log {
            Way::Local(_) => Hints::local(),
            Way::Kafka { kafka, .. } => Hints::over(kafka.clone(), tasks.clone(), stop.clone()),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                log,
                blobs,
                hints,
                metrics,
                tasks,
                stop,
            }),
        })
    }

    /// Publishes pushed input: durable when it returns, in Kafka or, after 100 ms
    /// without Kafka, in the spool. Raw bytes over the limit become a blob.
    pub async fn publish(&self, event: Event) -> Result<(), Error> {
        match &self.inner.log {
            Way::Kafka { spool: Some(_), .. } => self.publish_within(event, None).await,
            Way::Kafka { spool: None, .. } | Way::Local(_) => {
                self.publish_within(event, Some(PATIENCE_WITHOUT_SPOOL)).await
            }
        }
    }

    /// Publishes input that can wait at its source (a mailbox), or whose loss is
    /// allowed (quarantine): never spooled. Waits up to `patience`.
    pub async fn publish_unspooled(&self, event: Event, patience: Duration) -> Result<(), Error> {
        self.publish_within(event, Some(patience)).await
    }

    /// Publishes announcements on the desk topic, in order; durable when it returns.
    pub async fn announce(&self, announcements: &[Announcement]) -> Result<(), Error> {
        let records: Vec<_> = announcements.iter().map(wire::encode_announcement).collect();
        match &self.inner.log {
            Way::Local(log) => log.append(DESK, records, u64::MAX).await.map(drop),
            Way::Kafka { kafka, .. } => Ok(kafka.send(DESK, &records, ANNOUNCING_PATIENCE).await?),
        }
    }

    /// A reader of this topic. Readers of one group share its partitions. Drop it
    /// before [`Bus::stop`], so that the group hears of it.
    pub async fn reader(&self, topic: &str, group: &str) -> Result<Reader, Error> {
        let way = match &self.inner.log {
            Way::Local(log) => ReaderWay::Local(log.reader(topic, group)),
            Way::Kafka { kafka, .. } => ReaderWay::Kafka(Box::new(kafka.reader(topic, group))),
        };
        Ok(Reader { way })
    }

    /// Where large bytes lie.
    pub fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    /// Best-effort news for whoever looks right now.
    pub fn hints(&self) -> &Hints {
        &self.inner.hints
    }

    /// Whether another push would be accepted even without Kafka: a gateway's readiness.
    pub async fn has_space(&self) -> bool {
        match &self.inner.log {
            Way::Local(log) => log.is_writable().await,
            Way::Kafka { kafka, spool: None } => kafka.is_reachable().await,
            Way::Kafka {
                kafka,
                spool: Some(spool),
            } if spool.takes_nothing() => spool.has_space().await && kafka.is_reachable().await,
            Way::Kafka { spool: Some(spool), .. } => spool.has_space().await,
        }
    }

    /// What waits in the spool.
    pub async fn pending(&self) -> Pending {
        match &self.inner.log {
            Way::Kafka { spool: Some(spool), .. } => spool.pending().await,
            Way::Kafka { spool: None, .. } | Way::Local(_) => Pending::default(),
        }
    }

    /// Puts what Kafka refused for good back into the spool, to be tried again.
    pub async fn retry_refused(&self) -> Result<(), Error> {
        match &self.inner.log {
            Way::Kafka { spool: Some(spool), .. } => spool.retry_refused().await,
            Way::Kafka { spool: None, .. } | Way::Local(_) => Ok(()),
        }
    }

    /// The offset behind the last record of each partition of a topic.
    pub async fn end_offsets(&self, topic: &str) -> Result<Vec<(i32, i64)>, Error> {
        match &self.inner.log {
            Way::Local(log) => Ok(vec![(0, log.totals(topic).await?.next_offset)]),
            Way::Kafka { kafka, .. } => kafka.end_offsets(topic).await,
        }
    }

    /// Lets a group of readers go on from these offsets of a topic, wherever it stood.
    /// Unavailable as long as it has members.
    pub async fn rewind(&self, topic: &str, group: &str, offsets: &[(i32, i64)]) -> Result<(), Error> {
        match &self.inner.log {
            // Its readers look a record back at first, and so find out by themselves.
            Way::Local(_) => Ok(()),
            Way::Kafka { kafka, .. } => kafka.stand(topic, group, offsets).await,
        }
    }

    /// Lets what is under way come to its end, within the deadline.
    pub async fn stop(&self, deadline: Duration) {
        let began = Instant::now();
        self.inner.stop.cancel();
        self.inner.tasks.close();
        let end = async {
            match &self.inner.log {
                Way::Local(log) => log.close().await,
                Way::Kafka { kafka, spool } => {
                    // Nobody waits for what is left: it is in the spool, or its sender comes again.
                    kafka.flush(deadline.min(FLUSHING_PATIENCE)).await;
                    if let Some(spool) = spool {
                        spool.close().await;
                    }
                }
            }
            self.inner.tasks.wait().await;
        };
        if tokio::time::timeout(deadline, end).await.is_err() {
            tracing::warn!(
                waited_ms = began.elapsed().as_millis() as u64,
                "the bus did not come to its end in time"
            );
        }
    }

    /// Without a `patience` the spool takes over.
    async fn publish_within(&self, event: Event, patience: Option<Duration>) -> Result<(), Error> {
        let began = Instant::now();
        let blobs = &self.inner.blobs;
        let record = large::encode(event, blobs, large::RECORD_MAX_BYTES).await?;
        let to = match &self.inner.log {
            Way::Local(log) => {
                log.append(EVENTS, vec![record], u64::MAX).await?;
                "local"
            }
            Way::Kafka { kafka, spool } => match (spool, patience) {
                (Some(spool), None) => spool.publish(kafka, blobs, record).await?,
                (Some(spool), Some(_)) if spool.must_wait(&record) => {
                    return Err(Error::Unavailable("its bytes wait for their storage".to_owned()));
                }
                (_, patience) => {
                    kafka
                        .publish(blobs, record, patience.unwrap_or(PATIENCE_WITHOUT_SPOOL))
                        .await?;
                    "kafka"
                }
            },
        };
        self.inner.metrics.count_published(to);
        self.inner
            .metrics
            .publish_seconds
            .observe(began.elapsed().as_secs_f64());
        Ok(())
    }
}

/// `host:port`, separated by commas.
fn are_servers(text: &str) -> bool {
    text.split(',').all(|server| {
        server
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.trim().is_empty() && port.trim().parse::<u16>().is_ok())
    })
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Reader {
    /// The next batch, of one partition, at most `max` records; waits for one.
    /// Safe to drop while it waits.
    pub async fn next(&mut self, max: usize) -> Result<Batch, Error> {
        match &mut self.way {
            ReaderWay::Local(reader) => reader.next(max).await,
            ReaderWay::Kafka(reader) => reader.next(max).await,
        }
    }

    /// Goes on reading this partition at `offset`. An offset behind the end is an
    /// [`Error::Settings`]: log and store do not belong together.
    pub async fn seek(&mut self, partition: i32, offset: i64) -> Result<(), Error> {
        match &mut self.way {
            ReaderWay::Local(reader) => reader.seek(offset).await,
            ReaderWay::Kafka(reader) => reader.seek(partition, offset).await,
        }
    }

    /// Copies the offset to the log: where the group begins next time, if nobody
    /// knows better, and for tools that show lag. Nothing depends on it.
    pub async fn commit(&mut self, partition: i32, next: i64) {
        match &self.way {
            ReaderWay::Local(reader) => reader.commit(next),
            ReaderWay::Kafka(reader) => reader.commit(partition, next),
        }
    }
}
