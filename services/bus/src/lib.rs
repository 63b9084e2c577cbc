//! The event log: publishing arrivals so that they are durable when `publish`
//! returns, reading them in batches, and keeping large bytes. Kafka or a local
//! SQLite file lie behind one interface of concrete types; between a gateway and
//! Kafka lies the spool.

use model::context::Announcement;
use model::event::Event;

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
    pub path: std::path::PathBuf,
    pub max_bytes: u64,
}

/// Why the bus could not do it. Variants differ where a caller acts differently.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither Kafka nor the spool took it: answer 503, try again later.
    #[error("the event log is unavailable: {0}")]
    Unavailable(String),
    /// Bytes that are no event: park them.
    #[error("not an event: {0}")]
    Malformed(String),
    /// The settings are wrong: stop.
    #[error("{0}")]
    Settings(String),
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
pub struct Bus {}

/// Reads one topic as a member of a group (Kafka), or from the local log.
pub struct Reader {}

/// Content-addressed bytes: written once, durable when `put` returns.
#[derive(Clone)]
pub struct Blobs {}

impl Bus {
    /// Connects, creates missing topics with their retention, opens the spool and
    /// begins to forward what it holds. A Kafka that is away is no error.
    pub async fn open(_settings: &Settings) -> Result<Self, Error> {
        unimplemented!()
    }

    /// Publishes pushed input: durable when it returns, in Kafka or, after 100 ms
    /// without Kafka, in the spool. Raw bytes over the limit become a blob.
    pub async fn publish(&self, _event: Event) -> Result<(), Error> {
        unimplemented!()
    }

    /// Publishes input that can wait at its source (a mailbox), or whose loss is
    /// allowed (quarantine): never spooled. Waits up to `patience`.
    pub async fn publish_unspooled(&self, _event: Event, _patience: std::time::Duration) -> Result<(), Error> {
        unimplemented!()
    }

    /// Publishes announcements on the desk topic, in order; durable when it returns.
    pub async fn announce(&self, _announcements: &[Announcement]) -> Result<(), Error> {
        unimplemented!()
    }

    /// A reader of this topic. Readers of one group share its partitions.
    pub async fn reader(&self, _topic: &str, _group: &str) -> Result<Reader, Error> {
        unimplemented!()
    }

    /// Where large bytes lie.
    pub fn blobs(&self) -> &Blobs {
        unimplemented!()
    }

    /// Whether another push would be accepted even without Kafka: a gateway's readiness.
    pub async fn has_space(&self) -> bool {
        unimplemented!()
    }

    /// What waits in the spool.
    pub async fn pending(&self) -> Pending {
        unimplemented!()
    }

    /// The offset behind the last record of each partition of a topic.
    pub async fn end_offsets(&self, _topic: &str) -> Result<Vec<(i32, i64)>, Error> {
        unimplemented!()
    }

    /// Lets what is under way come to its end, within the deadline.
    pub async fn stop(&self, _deadline: std::time::Duration) {
        unimplemented!()
    }
}

impl Reader {
    /// The next batch, of one partition, at most `max` records; waits for one.
    /// Safe to drop while it waits.
    pub async fn next(&mut self, _max: usize) -> Result<Batch, Error> {
        unimplemented!()
    }

    /// Goes on reading this partition at `offset`.
    pub async fn seek(&mut self, _partition: i32, _offset: i64) -> Result<(), Error> {
        unimplemented!()
    }

    /// Copies the offset to Kafka, for tools that show lag. Nothing depends on it.
    pub async fn commit(&mut self, _partition: i32, _next: i64) {
        unimplemented!()
    }
}

impl Blobs {
    /// Keeps the bytes under their SHA-256 (lower-case hexadecimal), which it
    /// returns. Durable when it returns; a repeat is a no-op.
    pub async fn put(&self, _bytes: Vec<u8>) -> Result<String, Error> {
        unimplemented!()
    }

    /// The bytes of that name, checked; `None` if there are none.
    pub async fn get(&self, _sha256: &str) -> Result<Option<Vec<u8>>, Error> {
        unimplemented!()
    }
}
