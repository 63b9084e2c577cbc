//! Between a gateway and Kafka: what Kafka does not take within 100 ms lies here,
//! on the disk, until it does.
//!
//! While anything is left, new events queue behind it (the spool is *engaged*),
//! so that a thread keeps its order. A late Kafka copy of a spooled event is a
//! repeat, which harms nothing.

mod behind;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use model::time::Moment;
use tokio::sync::{Notify, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blobs::{BEHIND, BLOBS, Shelf};
use crate::kafka::{Delivery, Kafka, REPORT_PATIENCE, Refused};
use crate::local::{self, Entry, Held, Log, Totals};
use crate::metrics::Metrics;
use crate::wire::Encoded;
use crate::{Blobs, EVENTS, Error, Pending, RefusedEvent, SpoolSettings, large};

/// The spool, open.
#[derive(Clone)]
pub(crate) struct Spool {
    log: Log,
    /// Large events lie there while their bytes have no place.
    shelf: Shelf,
    max_bytes: u64,
    is_engaged: Arc<AtomicBool>,
    /// Publishers hold it for reading while they choose their way and take it;
    /// the forwarder holds it for writing while it lets them by.
    gate: Arc<RwLock<()>>,
    wake: Arc<Notify>,
    /// As it was last seen, for when the file cannot be read.
    seen: Arc<Mutex<Pending>>,
    metrics: Metrics,
}

/// How long Kafka has before the spool takes over.
const KAFKA_PATIENCE: Duration = Duration::from_millis(100);
/// Records that are forwarded at once.
const CHUNK: usize = 1000;
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A new producer mends nothing where Kafka refuses for long.
const RENEWAL_PERIOD: Duration = Duration::from_secs(30);
/// How often a forwarder without work looks into the file.
const RESTING_PERIOD: Duration = Duration::from_secs(5);
/// How long a record that was made smaller may take.
const REDUCED_PATIENCE: Duration = Duration::from_secs(30);
/// Where lies what Kafka refuses for good.
const ASIDE: &str = "aside";
/// The header that says there why.
const REASON: &str = "tributary_refused";
/// Ready means that at least this much is left, or a tenth of a small spool.
const RESERVE_BYTES: u64 = 1024 * 1024;

impl Spool {
    /// Opens it, and begins to forward what it holds.
    pub async fn open(
        settings: &SpoolSettings,
        shelf: Shelf,
        kafka: Kafka,
        blobs: Blobs,
        metrics: Metrics,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let log = shelf.log.clone();
        let held = log.totals(EVENTS).await?;
        let seen = look(&log).await?;
        if seen.refused_events > 0 {
            tracing::warn!(
                spool.events = seen.refused_events,
                spool.bytes = seen.refused_bytes,
                "events that kafka refuses for good wait for a person, see `tributary spool status`"
            );
        }
        let spool = Self {
            log,
            shelf,
            max_bytes: settings.max_bytes,
            is_engaged: Arc::new(AtomicBool::new(held.events > 0)),
            gate: Arc::default(),
            wake: Arc::default(),
            seen: Arc::new(Mutex::new(seen)),
            metrics,
        };
        if held.events > 0 {
            tracing::info!(
                spool.events = held.events,
                spool.bytes = held.bytes,
                "the spool holds events from before"
            );
        }
        let clearing = spool.clone().clear_shelf(blobs.clone());
        let until = stop.clone();
        tasks.spawn(async move { until.run_until_cancelled(clearing).await });
        let forwarder = Forwarder {
            spool: spool.clone(),
            kafka,
            blobs,
            has_proof: false,
            renewed_at: None,
        };
        tasks.spawn(forwarder.run(stop.clone()));
        tasks.spawn(spool.clone().measure(stop));
        Ok(spool)
    }

    /// Makes the record durable in Kafka, or here; says where.
    pub async fn publish(&self, kafka: &Kafka, blobs: &Blobs, record: Encoded) -> Result<&'static str, Error> {
        if self.must_wait(&record) {
            return self.keep(record).await;
        }
        let gate = self.gate.read().await;
        let is_direct = !self.is_engaged.load(Ordering::Acquire);
        let enqueued = is_direct.then(|| kafka.enqueue(EVENTS, &record));
        drop(gate);
        let result = match enqueued {
            Some(Ok(delivery)) => tokio::time::timeout(KAFKA_PATIENCE, delivery.wait()).await,
            Some(Err(refused)) => Ok(Err(refused)),
            None => return self.keep(record).await,
        };
        match result {
            Ok(Ok(())) => Ok("kafka"),
            // The forwarder tries the smaller one alone.
            Ok(Err(Refused::ForGood(reason))) => self.keep(large::reduce(record, &reason, blobs).await?).await,
            Ok(Err(Refused::Unavailable(_))) | Err(_) => self.keep(record).await,
        }
    }

    /// Makes the record durable here, whatever Kafka says.
    async fn keep(&self, record: Encoded) -> Result<&'static str, Error> {
        if self.must_wait(&record) {
            self.shelf.keep_behind(record).await?;
            return Ok("spool");
        }
        let _gate = self.gate.read().await;
        self.engage();
        let max_bytes = self.max_bytes.saturating_sub(self.shelf.bytes());
        let appended = self.log.append(EVENTS, vec![record], max_bytes).await;
        self.wake.notify_one();
        self.show(&appended?);
        Ok("spool")
    }

    /// Whether bytes that this event names have no place yet.
    pub fn must_wait(&self, record: &Encoded) -> bool {
        self.shelf.must_wait(record)
    }

    /// It is only there for what it holds from before.
    pub fn takes_nothing(&self) -> bool {
        self.max_bytes == 0
    }

    /// Whether another event would find room.
    pub async fn has_space(&self) -> bool {
        let Ok(held) = self.log.totals(EVENTS).await else {
            return false;
        };
        let reserve = RESERVE_BYTES.min(self.max_bytes / 10);
        let used = u64::try_from(held.bytes)
            .unwrap_or(0)
            .saturating_add(self.shelf.bytes());
        used.saturating_add(reserve) <= self.max_bytes && self.log.is_writable().await
    }

    /// What waits; if the file cannot be read, what waited when it could.
    pub async fn pending(&self) -> Pending {
        let found = look(&self.log).await;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(found) = found {
            *seen = found;
        }
        seen.clone()
    }

    /// Puts what was set aside behind what waits. A crash in between leaves some
    /// of it in both places, which is a repeat.
    pub async fn retry_refused(&self) -> Result<(), Error> {
        loop {
            let chunk = self.log.read(ASIDE, 0, CHUNK).await?;
            let (Some(first), Some(last)) = (chunk.entries.first(), chunk.entries.last()) else {
                return Ok(());
            };
            let range = (first.offset, last.offset);
            let records = chunk.entries.into_iter().map(|entry| without_reason(entry.record).0);
            self.engage();
            self.log.append(EVENTS, records.collect(), u64::MAX).await?;
            self.wake.notify_one();
            self.log.remove(ASIDE, vec![range]).await?;
        }
    }

    /// Takes nothing more.
    pub async fn close(&self) {
        self.log.close().await;
    }

    fn engage(&self) {
        self.is_engaged.store(true, Ordering::Release);
    }

    fn show(&self, held: &Totals) {
        self.metrics.spool_events.set(held.events);
        self.metrics.spool_bytes.set(held.bytes);
    }

    /// Keeps the gauges right, also while nothing moves, and tells which way
    /// events go, if it lasts: a hesitating Kafka is in and out many times a second.
    async fn measure(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut was_engaged = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let is_engaged = self.is_engaged.load(Ordering::Acquire);
            if is_engaged && !was_engaged {
                tracing::warn!("kafka does not take events in time, they go into the spool");
            } else if was_engaged && !is_engaged {
                tracing::info!("events go to kafka directly again");
            }
            was_engaged = is_engaged;
            let pending = self.pending().await;
            let now = Moment::from(SystemTime::now());
            let age_ms = pending
                .spooled_oldest_at
                .map_or(0, |oldest| now.since_ms(oldest).max(0));
            self.metrics
                .spool_events
                .set(i64::try_from(pending.spooled_events).unwrap_or(i64::MAX));
            self.metrics
                .spool_bytes
                .set(i64::try_from(pending.spooled_bytes).unwrap_or(i64::MAX));
            self.metrics.spool_oldest_age_seconds.set(age_ms / 1000);
            self.metrics
                .spool_refused_events
                .set(i64::try_from(pending.refused_events).unwrap_or(i64::MAX));
        }
    }
}

/// What waits in the spool at this path, without opening a bus. No spool there
/// is an error, and none is made.
pub async fn spool_status(path: &Path) -> Result<Pending, Error> {
    let [aside, waiting @ ..] = local::peek(path, [ASIDE, EVENTS, BLOBS, BEHIND]).await?;
    Ok(pending(waiting, aside))
}

/// The events in the spool at this path that Kafka refuses for good, in order,
/// given to `show` one by one.
pub async fn refused_events(path: &Path, show: impl FnMut(RefusedEvent)) -> Result<(), Error> {
    let mut show = show;
    let show_entry = |entry: Entry| {
        let (record, reason) = without_reason(entry.record);
        show(RefusedEvent {
            reason: reason.unwrap_or_default(),
            key: record.key,
            headers: record
                .headers
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
            value: record.value,
        });
    };
    local::peek_into(path, ASIDE, show_entry).await
}

async fn look(log: &Log) -> Result<Pending, Error> {
    let waiting = [log.held(EVENTS).await?, log.held(BLOBS).await?, log.held(BEHIND).await?];
    Ok(pending(waiting, log.held(ASIDE).await?))
}

fn pending(waiting: [Held; 3], aside: Held) -> Pending {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let reason = aside.oldest_headers.into_iter().find(|(name, _)| name == REASON);
    Pending {
        spooled_events: waiting.iter().map(|held| count(held.totals.events)).sum(),
        spooled_bytes: waiting.iter().map(|held| count(held.totals.bytes)).sum(),
        spooled_oldest_at: waiting.iter().filter_map(|held| held.oldest_at).min(),
        refused_events: count(aside.totals.events),
        refused_bytes: count(aside.totals.bytes),
        refused_oldest_at: aside.oldest_at,
        refused_reason: reason.map(|(_, reason)| reason),
    }
}

/// As it was before it was set aside, and why it was.
fn without_reason(mut record: Encoded) -> (Encoded, Option<String>) {
    let at = record.headers.iter().position(|(name, _)| name == REASON);
    let reason = at.map(|at| record.headers.remove(at).1);
    (record, reason)
}

/// Sends what lies in the spool, in order.
struct Forwarder {
    spool: Spool,
    kafka: Kafka,
    blobs: Blobs,
    /// The last thing that was sent arrived, so Kafka is there.
    has_proof: bool,
    renewed_at: Option<Instant>,
}

/// Records on their way, and the one that the producer did not take, if any.
#[derive(Default)]
struct Sent {
    deliveries: Vec<(Entry, Delivery)>,
    refused: Option<(Entry, Refused)>,
}

impl Forwarder {
    async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.forward() => {}
        }
    }

    async fn forward(&mut self) {
        let mut pause = BACKOFF.0;
        loop {
            if !self.spool.is_engaged.load(Ordering::Acquire) {
                self.has_proof = false;
                self.rest().await;
                continue;
            }
            match self.forward_chunk().await {
                Ok(()) => {
                    self.has_proof = true;
                    pause = BACKOFF.0;
                }
                Err(error) => {
                    self.has_proof = false;
                    tracing::debug!(%error, "forwarding from the spool failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Waits for something to do. Another process may have left something too.
    async fn rest(&self) {
        let woken = tokio::time::timeout(RESTING_PERIOD, self.spool.wake.notified()).await;
        if woken.is_err() && self.spool.log.totals(EVENTS).await.is_ok_and(|held| held.events > 0) {
            self.spool.engage();
        }
    }

    /// Sends the oldest records. If they are the last ones and Kafka is there,
    /// new events may go to Kafka directly again, behind them.
    async fn forward_chunk(&mut self) -> Result<(), Error> {
        let chunk = self.spool.log.read(EVENTS, 0, CHUNK).await?;
        if chunk.entries.is_empty() && !self.has_proof && !self.kafka.is_reachable().await {
            return Err(Error::Unavailable("kafka is away".to_owned()));
        }
        let has_proof = self.has_proof || chunk.entries.is_empty();
        let mut sent = self.send(chunk.entries);
        if has_proof && chunk.is_last && sent.refused.is_none() {
            let _gate = self.spool.gate.write().await;
            let behind = sent.deliveries.last().map_or(0, |(entry, _)| entry.offset + 1);
            let rest = self.spool.log.read(EVENTS, behind, CHUNK).await?;
            let sent_rest = self.send(rest.entries);
            if rest.is_last && sent_rest.refused.is_none() {
                self.spool.is_engaged.store(false, Ordering::Release);
            }
            sent.deliveries.extend(sent_rest.deliveries);
            sent.refused = sent_rest.refused;
        }
        let settled = self.settle(sent).await;
        if settled.is_err() {
            self.spool.engage();
        }
        settled
    }

    /// Enqueues one behind the other, up to the first that is refused; the reports
    /// are awaited afterwards.
    fn send(&self, entries: Vec<Entry>) -> Sent {
        let mut sent = Sent::default();
        for entry in entries {
            match self.kafka.enqueue(EVENTS, &entry.record) {
                Ok(delivery) => sent.deliveries.push((entry, delivery)),
                Err(refused) => {
                    sent.refused = Some((entry, refused));
                    break;
                }
            }
        }
        sent
    }

    /// Removes what arrived. An error says that something is left.
    ///
    /// A producer that reports nothing is replaced: its threads wait by the time of
    /// day, and for minutes where that was set back. So is one that delivers nothing
    /// though Kafka answers: it may hold on to what it knew of a topic before
    /// (confluentinc/librdkafka#4898).
    async fn settle(&mut self, sent: Sent) -> Result<(), Error> {
        let mut arrived: Vec<(i64, i64)> = Vec::new();
        let mut failure = None;
        let was_sent = !sent.deliveries.is_empty();
        let until = Instant::now() + REPORT_PATIENCE;
        let mut is_silent = false;
        let mut results = Vec::with_capacity(sent.deliveries.len() + 1);
        for (entry, delivery) in sent.deliveries {
            let report = tokio::time::timeout_at(until, delivery.wait()).await;
            is_silent |= report.is_err();
            let silence = Err(Refused::Unavailable("the producer reports nothing".to_owned()));
            results.push((entry, report.unwrap_or(silence)));
        }
        results.extend(sent.refused.map(|(entry, refused)| (entry, Err(refused))));
        for (entry, result) in results {
            let offset = entry.offset;
            let settled = match result {
                Ok(()) => Ok(()),
                Err(Refused::ForGood(reason)) => self.reduce(entry, &reason).await,
                Err(Refused::Unavailable(reason)) => Err(Error::Unavailable(reason)),
            };
            match settled {
                Ok(()) => match arrived.last_mut() {
                    Some((_, last)) if *last + 1 == offset => *last = offset,
                    _ => arrived.push((offset, offset)),
                },
                Err(error) => failure = Some(error),
            }
        }
        let arrived_none = arrived.is_empty();
        if !arrived_none {
            let held = self.spool.log.remove(EVENTS, arrived).await?;
            self.spool.show(&held);
        }
        let is_due = self.renewed_at.is_none_or(|at| at.elapsed() > RENEWAL_PERIOD);
        let delivers_nothing = arrived_none && failure.is_some() && was_sent;
        if is_due && (is_silent || delivers_nothing && self.kafka.is_reachable().await) {
            self.renewed_at = Some(Instant::now());
            self.kafka.renew(if is_silent {
                "it reports nothing"
            } else {
                "it delivers nothing though kafka answers"
            });
        }
        failure.map_or(Ok(()), Err)
    }

    /// Kafka refuses this record for good: a smaller one may pass. If not, it is
    /// set aside in the spool's file, and nothing waits for it.
    async fn reduce(&self, entry: Entry, reason: &str) -> Result<(), Error> {
        let mut record = entry.record;
        let mut reason = reason.to_owned();
        match large::reduce(record.clone(), &reason, &self.blobs).await {
            Ok(smaller) if self.spool.must_wait(&smaller) => return self.spool.shelf.keep_behind(smaller).await,
            Ok(smaller) => match self.kafka.send(EVENTS, &[smaller], REDUCED_PATIENCE).await {
                Ok(()) => return Ok(()),
                Err(Refused::Unavailable(reason)) => return Err(Error::Unavailable(reason)),
                Err(Refused::ForGood(again)) => reason = again,
            },
            Err(Error::Unavailable(reason)) => return Err(Error::Unavailable(reason)),
            Err(Error::Malformed(_) | Error::Settings(_)) => {}
        }
        tracing::error!(
            spool.offset = entry.offset,
            reason,
            "kafka refuses an event for good, it is set aside in the spool; see `tributary spool status`"
        );
        record.headers.push((REASON.into(), reason));
        self.spool.log.append(ASIDE, vec![record], u64::MAX).await?;
        Ok(())
    }
}
