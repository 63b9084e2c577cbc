//! What object storage does not take from a gateway lies on a shelf of its spool, and
//! the events that name it behind it: no event is in the log before its bytes can be had.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::event::{Attachment, Body, Event, RawContent};
use tokio::sync::{Notify, RwLock};

use super::Blobs;
use crate::Error;
use crate::local::{Entry, Log};
use crate::wire::{self, Encoded};

/// The topic of the spool's file in which blobs lie, by their SHA-256.
pub(crate) const BLOBS: &str = "blobs";
/// The one of the events that wait for them.
pub(crate) const BEHIND: &str = "behind blobs";

/// A place for blobs and the events behind them, in the file of a spool.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    pub log: Log,
    /// Blobs may take so much, and events as much: the rest is for small events.
    max_bytes: u64,
    counts: Arc<Counts>,
    /// Who keeps a blob holds it for reading, who removes one for writing, so that what
    /// is counted is never less than what lies here.
    gate: Arc<RwLock<()>>,
    wake: Arc<Notify>,
}

/// What lies there.
#[derive(Debug, Default)]
struct Counts {
    blobs: AtomicI64,
    blob_bytes: AtomicI64,
    event_bytes: AtomicI64,
    /// As far as we know.
    is_store_away: AtomicBool,
    /// Of the blobs that came since it was opened.
    names: Mutex<HashSet<String>>,
}

/// Events that are let go at once.
const CHUNK: usize = 100;
/// How often somebody without work looks into the file.
const RESTING_PERIOD: Duration = Duration::from_secs(5);

impl Shelf {
    /// In this file, which may hold `max_bytes` in all.
    pub async fn open(log: Log, max_bytes: u64) -> Result<Self, Error> {
        let counts = Counts::default();
        let (blobs, events) = (log.totals(BLOBS).await?, log.totals(BEHIND).await?);
        counts.blobs.store(blobs.events, Ordering::Relaxed);
        counts.is_store_away.store(blobs.events > 0, Ordering::Relaxed);
        counts.blob_bytes.store(blobs.bytes, Ordering::Relaxed);
        counts.event_bytes.store(events.bytes, Ordering::Relaxed);
        Ok(Self {
            log,
            max_bytes: max_bytes / 4,
            counts: Arc::new(counts),
            gate: Arc::default(),
            wake: Arc::default(),
        })
    }

    /// Whether blobs lie here.
    fn is_any(&self) -> bool {
        self.counts.blobs.load(Ordering::Acquire) > 0
    }

    /// Whether the store did not take the last one that it was given.
    pub fn is_store_away(&self) -> bool {
        self.counts.is_store_away.load(Ordering::Relaxed)
    }

    pub fn store_is_away(&self) {
        self.counts.is_store_away.store(true, Ordering::Relaxed);
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.counts.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies here counts against the spool's limit.
    pub fn bytes(&self) -> u64 {
        let bytes = self.counts.blob_bytes.load(Ordering::Relaxed) + self.counts.event_bytes.load(Ordering::Relaxed);
        u64::try_from(bytes).unwrap_or(0)
    }

    /// Keeps a blob, once; it is on the disk when it returns.
    pub async fn keep(&self, sha256: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let record = Encoded {
            key: sha256.to_owned(),
            headers: Vec::new(),
            value: bytes,
        };
        let _gate = self.gate.read().await;
        if self.names().contains(sha256) {
            return Ok(());
        }
        let held = self.log.append(BLOBS, vec![record], self.max_bytes).await?;
        self.counts.blobs.fetch_max(held.events, Ordering::AcqRel);
        self.counts.blob_bytes.store(held.bytes, Ordering::Relaxed);
        self.names().insert(sha256.to_owned());
        self.wake.notify_one();
        Ok(())
    }

    /// Whether this event names a blob while some lie here.
    pub fn must_wait(&self, record: &Encoded) -> bool {
        self.is_any() && wire::decode(&record.value).is_ok_and(|event| names_blobs(&event))
    }

    /// Keeps an event until all blobs that lie here are where they belong.
    pub async fn keep_behind(&self, record: Encoded) -> Result<(), Error> {
        let held = self.log.append(BEHIND, vec![record], self.max_bytes).await?;
        self.counts.event_bytes.store(held.bytes, Ordering::Relaxed);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits for something to do, or looks after a while.
    pub async fn rest(&self) {
        let _ = tokio::time::timeout(RESTING_PERIOD, self.wake.notified()).await;
    }

    /// Moves the oldest blob to where it belongs; false if there is none.
    pub async fn move_blob(&self, blobs: &Blobs) -> Result<bool, Error> {
        let chunk = self.log.read(BLOBS, 0, 1).await?;
        let Some(Entry { offset, record }) = chunk.entries.into_iter().next() else {
            return Ok(false);
        };
        blobs.store(&record.key, record.value.into()).await?;
        self.counts.is_store_away.store(false, Ordering::Relaxed);
        let _gate = self.gate.write().await;
        let held = self.log.remove(BLOBS, vec![(offset, offset)]).await?;
        self.names().remove(&record.key);
        self.counts.blobs.store(held.events, Ordering::Release);
        self.counts.blob_bytes.store(held.bytes, Ordering::Relaxed);
        Ok(true)
    }

    /// The oldest events that waited.
    pub async fn events(&self) -> Result<Vec<Entry>, Error> {
        Ok(self.log.read(BEHIND, 0, CHUNK).await?.entries)
    }

    /// They went on.
    pub async fn forget(&self, first: i64, last: i64) -> Result<(), Error> {
        let held = self.log.remove(BEHIND, vec![(first, last)]).await?;
        self.counts.event_bytes.store(held.bytes, Ordering::Relaxed);
        Ok(())
    }
}

fn names_blobs(event: &Event) -> bool {
    let is_raw_one = matches!(event.raw.content, RawContent::Blob { .. });
    let names = |attachments: &[Attachment]| attachments.iter().any(|attachment| !attachment.sha256.is_empty());
    match &event.body {
        Body::MessageReceived(message) => is_raw_one || names(&message.attachments),
        _ => is_raw_one,
    }
}
