//! The loop that carries decisions out: takes a batch, loads what the decisions
//! need, decides, applies; retries what is stale, halves what is refused and parks
//! what is left. Beside it the clocks that fall due and the relay of announcements.
//!
//! It speaks no protocol and decides nothing itself. Several routers share the
//! partitions; that no event counts twice rests on the store's offset alone.

pub mod clock;
pub mod metrics;
pub mod relay;
pub mod removal;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use bus::hints::{Hint, Hints};
use bus::{Batch, Bus, Reader, Record};
use model::context::{Book, Changes, Context, ParkedInput};
use model::decide::{decide, park};
use model::error::chain;
use model::event::{Event, Raw, RawContent};
use model::time::Moment;
use store::Store;
use store::apply::{Advance, Outcome};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use metrics::Metrics;

/// How a router reads.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Routers of one group share the partitions.
    pub group: String,
    /// Readers in this process, each with one transaction at a time.
    pub readers: usize,
}

/// A fault: the process should stop, because going on would do harm or never work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("routing cannot read the event log")]
    Bus(#[source] bus::Error),
    #[error("routing cannot use the database")]
    Store(#[source] store::Error),
    #[error("a reader of the event log ended unexpectedly")]
    Reader,
}

/// Most records of one batch, and so of one transaction.
const MAX_BATCH: usize = 256;
/// Back-off while the database or the log is away: from, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Applies events until `stop`. Ends earlier only with a fault.
pub async fn run(
    settings: Settings,
    bus: Bus,
    store: Store,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut readers = JoinSet::new();
    for _ in 0..settings.readers.max(1) {
        let (bus, store, metrics, stop) = (bus.clone(), store.clone(), metrics.clone(), stop.clone());
        let group = settings.group.clone();
        readers.spawn(async move {
            let reader = bus.reader(bus::EVENTS, &group).await.map_err(Error::Bus)?;
            Router {
                reader,
                hints: bus.hints().clone(),
                store,
                metrics,
                stop,
                met: HashSet::new(),
            }
            .run()
            .await
        });
    }
    while let Some(ended) = readers.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(Error::Reader),
        }
    }
    Ok(())
}

/// One reader and what it applies to.
struct Router {
    reader: Reader,
    hints: Hints,
    store: Store,
    metrics: Metrics,
    stop: CancellationToken,
    /// Partitions of which the log was seen to reach as far as the store.
    met: HashSet<i32>,
}

/// A part of a batch: what lies between two offsets of a partition.
struct Part {
    from: i64,
    to: i64,
    records: Vec<Record>,
    /// The database refused this one record, and why: it is parked instead.
    refused: Option<String>,
}

/// What one attempt came to.
enum Step {
    Applied,
    /// Somebody was faster, on a row or on the partition: look again.
    Again,
    /// The partition does not stand within this part: read from there.
    Elsewhere(i64),
}

/// Why a part was left.
enum Left {
    Refused(String),
    Elsewhere(i64),
    Stopped,
    Fault(Error),
}

impl Router {
    async fn run(mut self) -> Result<(), Error> {
        let mut pause = BACKOFF.0;
        loop {
            let next = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                next = self.reader.next(MAX_BATCH) => next,
            };
            match next {
                Ok(batch) => {
                    pause = BACKOFF.0;
                    self.route(batch).await?;
                }
                Err(bus::Error::Unavailable(reason)) => {
                    tracing::warn!(error = %reason, "event log is away, reading again soon");
                    if self.is_stopped_within(&mut pause).await {
                        return Ok(());
                    }
                }
                Err(error @ (bus::Error::Malformed(_) | bus::Error::Settings(_))) => return Err(Error::Bus(error)),
            }
        }
    }

    /// Applies a batch; what the database refuses is halved until one event is
    /// left, and that one is parked (C6).
    async fn route(&mut self, batch: Batch) -> Result<(), Error> {
        let started = Instant::now();
        let (topic, partition) = (batch.topic, batch.partition);
        let mut parts = vec![Part {
            from: batch.from,
            to: batch.to,
            records: batch.records,
            refused: None,
        }];
        while let Some(part) = parts.pop() {
            match self.apply(&topic, partition, &part).await {
                Ok(()) => {
                    self.met.insert(partition);
                    self.reader.commit(partition, part.to).await;
                }
                Err(Left::Refused(reason)) => part.halve(reason, &mut parts),
                Err(Left::Elsewhere(offset)) => return self.go_to(partition, offset).await,
                Err(Left::Stopped) => return Ok(()),
                Err(Left::Fault(error)) => return Err(error),
            }
        }
        self.metrics.batch_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Goes where the store stands. A log that ends before is another log than
    /// the store has read, and what it brings would be taken for repeats: a fault.
    async fn go_to(&mut self, partition: i32, offset: i64) -> Result<(), Error> {
        tracing::info!(partition, offset, "partition stands elsewhere, going there");
        match self.reader.seek(partition, offset).await {
            Ok(()) => {
                self.met.insert(partition);
                Ok(())
            }
            Err(error @ bus::Error::Settings(_)) => Err(Error::Bus(error)),
            // Shows again with the next batch.
            Err(error) => {
                tracing::warn!(partition, %error, "seek failed");
                Ok(())
            }
        }
    }

    /// Tries one part until it is applied or has to be left.
    async fn apply(&self, topic: &str, partition: i32, part: &Part) -> Result<(), Left> {
        let mut pause = BACKOFF.0;
        let mut rest = Duration::from_millis(1);
        loop {
            match self.step(topic, partition, part).await {
                Ok(Step::Applied) => return Ok(()),
                Ok(Step::Again) => {
                    self.metrics.stale.inc();
                    // Whoever is faster each time must not keep a core busy here.
                    if self.is_stopped_within(&mut rest).await {
                        return Err(Left::Stopped);
                    }
                }
                Ok(Step::Elsewhere(offset)) => return Err(Left::Elsewhere(offset)),
                // What is parked already and refused even so would be lost: stop.
                Err(error @ store::Error::Refused { .. }) if part.refused.is_some() || part.records.is_empty() => {
                    return Err(Left::Fault(Error::Store(error)));
                }
                Err(error @ store::Error::Refused { .. }) => return Err(Left::Refused(chain(&error))),
                Err(error @ store::Error::Unavailable { .. }) => {
                    tracing::warn!(partition, error = %chain(&error), "database is away, trying again soon");
                    if self.is_stopped_within(&mut pause).await {
                        return Err(Left::Stopped);
                    }
                }
                Err(error @ (store::Error::Corrupt(_) | store::Error::Settings(_))) => {
                    return Err(Left::Fault(Error::Store(error)));
                }
            }
        }
    }

    /// One attempt: context, decisions, apply.
    async fn step(&self, topic: &str, partition: i32, part: &Part) -> Result<Step, store::Error> {
        let book = self.store.book().await?;
        // What is parked already asks for nothing: its own texts may be the poison.
        let decided = part.records.iter().filter(|_| part.refused.is_none());
        let events: Vec<&Event> = decided.filter_map(|record| record.event.as_ref().ok()).collect();
        let mut context = self.store.context(book, topic, partition, &events).await?;
        let next_offset = context.next_offset;
        let is_known = part.to <= next_offset;
        if part.from > next_offset || is_known {
            self.store.return_numbers(context.numbers);
            // What is known is passed over, unless it comes first: then the log
            // must show that it is the one that the store has read.
            let is_passed_over = is_known && self.met.contains(&partition);
            return Ok(if is_passed_over {
                Step::Applied
            } else {
                Step::Elsewhere(next_offset)
            });
        }
        let now = Moment::from(SystemTime::now());
        let mut counted = Counted::default();
        for record in part.records.iter().filter(|record| record.offset >= next_offset) {
            let decision = match &part.refused {
                Some(reason) => park_record(topic, partition, record, reason),
                None => decide_record(topic, partition, record, &context, now),
            };
            counted.add(&decision);
            context.absorb(decision);
        }
        self.store.return_numbers(context.numbers);
        let advance = Advance {
            topic: topic.to_owned(),
            partition,
            from: next_offset,
            to: part.to,
        };
        let outcome = self.store.apply(&advance, &context.changes).await?;
        bus::abort::at("applied");
        if outcome != Outcome::Applied {
            return Ok(Step::Again);
        }
        self.metrics.count(&counted);
        self.hint(&context.book, &context.changes);
        Ok(Step::Applied)
    }

    /// Wakes those who look at the conversations that came further.
    fn hint(&self, book: &Book, changes: &Changes) {
        for replacing in changes.conversations.values() {
            let account = book.accounts.get(&replacing.row.account);
            if account.is_some_and(|plan| plan.live) {
                self.hints.publish(Hint::changed(&replacing.row));
            }
        }
    }

    /// Waits, longer each time; says whether it was told to stop.
    async fn is_stopped_within(&self, pause: &mut Duration) -> bool {
        let waited = *pause;
        *pause = (waited * 2).min(BACKOFF.1);
        tokio::select! {
            () = self.stop.cancelled() => true,
            () = tokio::time::sleep(waited) => false,
        }
    }
}

impl Part {
    /// Two halves, the first on top; of a single record, its parking.
    fn halve(mut self, reason: String, parts: &mut Vec<Part>) {
        if self.records.len() < 2 {
            self.refused = Some(reason);
            parts.push(self);
            return;
        }
        let rest = self.records.split_off(self.records.len() / 2);
        let middle = rest.first().map_or(self.to, |record| record.offset);
        parts.push(Part {
            from: middle,
            to: self.to,
            records: rest,
            refused: None,
        });
        parts.push(Part { to: middle, ..self });
    }
}

/// How many of what a part held.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub messages: u64,
    pub repeats: u64,
    pub parked: u64,
    pub tickets: u64,
}

impl Counted {
    fn add(&mut self, decision: &Changes) {
        self.messages += decision.traces.len() as u64;
        self.parked += decision.parked.len() as u64;
        self.tickets += decision
            .tickets
            .values()
            .filter(|ticket| ticket.expected_version == 0)
            .count() as u64;
        let is_repeat = decision.is_empty() || !decision.also_arrived_at.is_empty();
        self.repeats += u64::from(is_repeat);
    }
}

/// A decision that panics is a bug, and one input: it is parked, and the next goes on.
fn decide_record(topic: &str, partition: i32, record: &Record, context: &Context, now: Moment) -> Changes {
    let event = match &record.event {
        Ok(event) => event,
        Err(undecodable) => return park_record(topic, partition, record, &undecodable.reason),
    };
    let span = tracing::info_span!("decide", event.id = %event.id, traceparent = event.traceparent.as_deref());
    let _entered = span.enter();
    match catch_unwind(AssertUnwindSafe(|| decide(event, context, now))) {
        Ok(changes) => {
            tracing::debug!(event.id = %event.id, "decided");
            changes
        }
        Err(_) => {
            tracing::error!(event.id = %event.id, "decision panicked, the input is parked");
            park(event, "the decision about it panicked", false)
        }
    }
}

fn park_record(topic: &str, partition: i32, record: &Record, reason: &str) -> Changes {
    match &record.event {
        Ok(event) => park(event, reason, false),
        Err(undecodable) => Changes {
            parked: vec![ParkedInput {
                id: model::id::event_id(&["undecodable", topic, &partition.to_string(), &record.offset.to_string()]),
                account: String::new(),
                channel: String::new(),
                quarantined: false,
                reason: reason.to_owned(),
                raw: Raw {
                    content: RawContent::Inline(undecodable.bytes.clone()),
                    ..Raw::default()
                },
                received_at: Moment::from(SystemTime::now()),
            }],
            ..Changes::default()
        },
    }
}
