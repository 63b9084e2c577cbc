//! Reads a topic as a member of a consumer group.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::{QUESTION_TIMEOUT, Quiet, is_missing};
use crate::local::beyond_end;
use crate::{Batch, Error, Record, wire};

/// One member of a group.
pub(crate) struct KafkaReader {
    config: ClientConfig,
    topic: String,
    group: String,
    is_ready: watch::Receiver<bool>,
    /// Told when the topic is gone.
    missing: Arc<Notify>,
    tasks: TaskTracker,
    /// Made when it is first needed, and again after a fatal error.
    consumer: Option<Arc<StreamConsumer<Rebalances>>>,
    /// Received and not yet handed out, by partition.
    pending: BTreeMap<i32, VecDeque<Received>>,
    pending_count: usize,
    pending_bytes: usize,
    /// Partitions with something pending; the first is next.
    turns: VecDeque<i32>,
    /// Where the reader stands; none until a partition's first batch or seek.
    positions: HashMap<i32, i64>,
    /// Partitions whose gap was looked into.
    excused: BTreeSet<i32>,
    failure: Option<Error>,
}

struct Received {
    offset: i64,
    value: Vec<u8>,
}

/// Notes which partitions came or went.
struct Rebalances {
    changed: Mutex<Changed>,
}

#[derive(Default)]
struct Changed {
    partitions: Vec<i32>,
    all: bool,
}

/// What may lie in the reader's hands at most.
const PENDING_MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long a reader may take to let go of its partitions before it closes.
const GOODBYE: Duration = Duration::from_secs(1);
const GOODBYE_STEP: Duration = Duration::from_millis(50);

impl KafkaReader {
    pub fn new(
        config: ClientConfig,
        topic: &str,
        group: &str,
        is_ready: watch::Receiver<bool>,
        missing: Arc<Notify>,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            config,
            topic: topic.to_owned(),
            group: group.to_owned(),
            is_ready,
            missing,
            tasks,
            consumer: None,
            pending: BTreeMap::new(),
            pending_count: 0,
            pending_bytes: 0,
            turns: VecDeque::new(),
            positions: HashMap::new(),
            excused: BTreeSet::new(),
            failure: None,
        }
    }

    /// The next batch: waits for a record, then takes what else is there. Safe
    /// to drop while it waits: nothing is handed out before it returns.
    pub async fn next(&mut self, max: usize) -> Result<Batch, Error> {
        let consumer = self.consumer().await?;
        loop {
            self.drain(&consumer, max);
            if let Some(partition) = self.turns.front().copied() {
                if self.has_lost_its_place(&consumer, partition).await? {
                    continue;
                }
                if let Some(batch) = self.take(partition, max.max(1)) {
                    return Ok(batch);
                }
            } else if let Some(failure) = self.failure.take() {
                return Err(failure);
            } else {
                let received = consumer.recv().await;
                self.receive(&consumer, received);
            }
        }
    }

    /// Goes on reading this partition at `offset`, which cannot lie behind its
    /// end. Does nothing if the partition is another member's by now.
    pub async fn seek(&mut self, partition: i32, offset: i64) -> Result<(), Error> {
        let Some(consumer) = self.consumer.clone() else {
            return Ok(());
        };
        self.forget(partition);
        let topic = self.topic.clone();
        let sought = tokio::task::spawn_blocking(move || {
            let assignment = consumer.assignment()?;
            if assignment.find_partition(&topic, partition).is_none() {
                return Ok(None);
            }
            let (_, end) = consumer.fetch_watermarks(&topic, partition, QUESTION_TIMEOUT)?;
            if offset <= end {
                consumer.seek(&topic, partition, Offset::Offset(offset), QUESTION_TIMEOUT)?;
            }
            Ok::<_, KafkaError>(Some(end))
        });
        let end = sought
            .await
            .map_err(|error| Error::unavailable("seeking", &error))?
            .map_err(|error| Error::unavailable("seeking", &error))?;
        match end {
            Some(end) if offset > end => return Err(beyond_end(&self.topic, partition, offset, end)),
            Some(_) => {
                self.positions.insert(partition, offset);
            }
            None => {}
        }
        Ok(())
    }

    /// Copies the offset to Kafka. If that fails, the next one will do.
    pub fn commit(&self, partition: i32, next: i64) {
        let Some(consumer) = &self.consumer else {
            return;
        };
        let mut offsets = TopicPartitionList::with_capacity(1);
        let added = offsets.add_partition_offset(&self.topic, partition, Offset::Offset(next));
        let committed = added.and_then(|()| consumer.commit(&offsets, CommitMode::Async));
        if let Err(error) = committed {
            tracing::debug!(%error, "copying an offset to kafka failed");
        }
    }

    /// Waits for the topics first: a group that subscribes to a topic before it
    /// exists may not hear of it for minutes.
    async fn consumer(&mut self) -> Result<Arc<StreamConsumer<Rebalances>>, Error> {
        if let Some(consumer) = &self.consumer {
            return Ok(consumer.clone());
        }
        let ready = self.is_ready.wait_for(|ready| *ready).await;
        ready.map_err(|error| Error::unavailable("waiting for the topics", &error))?;
        let context = Rebalances {
            changed: Mutex::default(),
        };
        let consumer: StreamConsumer<Rebalances> = consumer_config(&self.config, &self.group)
            .create_with_context(context)
            .map_err(|error| Error::settings("making a kafka consumer", &error))?;
        consumer
            .subscribe(&[&self.topic])
            .map_err(|error| Error::unavailable("subscribing", &error))?;
        let consumer = Arc::new(consumer);
        self.consumer = Some(consumer.clone());
        Ok(consumer)
    }

    /// Takes what has been received already, without waiting.
    fn drain(&mut self, consumer: &StreamConsumer<Rebalances>, max: usize) {
        let mut stream = consumer.stream();
        while self.pending_count < max.saturating_mul(2) && self.pending_bytes < PENDING_MAX_BYTES {
            let Some(Some(received)) = stream.next().now_or_never() else {
                break;
            };
            self.receive(consumer, received);
        }
        self.note_rebalances(consumer);
    }

    fn receive(&mut self, consumer: &StreamConsumer<Rebalances>, received: Result<BorrowedMessage<'_>, KafkaError>) {
        // What changed before this record came.
        self.note_rebalances(consumer);
        match received {
            Ok(message) => {
                let value = message.payload().unwrap_or_default().to_vec();
                let partition = message.partition();
                self.pending_count += 1;
                self.pending_bytes += value.len();
                let queue = self.pending.entry(partition).or_default();
                if queue.is_empty() {
                    self.turns.push_back(partition);
                }
                queue.push_back(Received {
                    offset: message.offset(),
                    value,
                });
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &KafkaError) {
        if is_missing(error) {
            self.missing.notify_one();
        }
        // A group that subscribed to a topic may not hear of its return for minutes.
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) || is_missing(error) {
            self.leave();
        }
        let is_fault = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed)
        );
        let doing = "reading from kafka";
        self.failure = Some(if is_fault {
            Error::settings(doing, error)
        } else {
            Error::unavailable(doing, error)
        });
    }

    fn note_rebalances(&mut self, consumer: &StreamConsumer<Rebalances>) {
        let changed = {
            let mut changed = consumer
                .context()
                .changed
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *changed)
        };
        if changed.all {
            let all: BTreeSet<i32> = self.pending.keys().chain(self.positions.keys()).copied().collect();
            all.into_iter().for_each(|partition| self.forget(partition));
        }
        for partition in changed.partitions {
            self.forget(partition);
        }
    }

    /// Forgets what is pending of a partition, and where the reader stood.
    fn forget(&mut self, partition: i32) {
        self.positions.remove(&partition);
        self.excused.remove(&partition);
        self.turns.retain(|turn| *turn != partition);
        for received in self.pending.remove(&partition).unwrap_or_default() {
            self.pending_count -= 1;
            self.pending_bytes -= received.value.len();
        }
    }

    /// Records that lie between where the reader stood and the first one received
    /// are gone by retention, or they were never there (a transaction's marks).
    /// If they ought to be there, it goes back for them, once.
    async fn has_lost_its_place(
        &mut self,
        consumer: &Arc<StreamConsumer<Rebalances>>,
        partition: i32,
    ) -> Result<bool, Error> {
        let first = self.pending.get(&partition).and_then(|queue| queue.front());
        let (Some(first), Some(position)) = (first, self.positions.get(&partition).copied()) else {
            return Ok(false);
        };
        if first.offset == position || self.excused.contains(&partition) {
            self.excused.remove(&partition);
            return Ok(false);
        }
        let (topic, asked) = (self.topic.clone(), consumer.clone());
        let watermarks =
            tokio::task::spawn_blocking(move || asked.fetch_watermarks(&topic, partition, QUESTION_TIMEOUT));
        let (start, _) = watermarks
            .await
            .map_err(|error| Error::unavailable("looking into a gap", &error))?
            .map_err(|error| Error::unavailable("looking into a gap", &error))?;
        let is_there = position >= start;
        tracing::warn!(partition, position, start, is_there, "offsets were passed over");
        if is_there {
            self.seek(partition, position).await?;
        }
        self.excused.insert(partition);
        Ok(is_there)
    }

    fn take(&mut self, partition: i32, max: usize) -> Option<Batch> {
        let queue = self.pending.get_mut(&partition)?;
        let taken: Vec<Received> = queue.drain(..max.min(queue.len())).collect();
        self.turns.pop_front();
        if !queue.is_empty() {
            self.turns.push_back(partition);
        }
        let (first, last) = (taken.first()?.offset, taken.last()?.offset);
        let from = self.positions.insert(partition, last + 1).unwrap_or(first);
        let mut records = Vec::with_capacity(taken.len());
        for received in taken {
            self.pending_count -= 1;
            self.pending_bytes -= received.value.len();
            records.push(Record {
                offset: received.offset,
                event: wire::decode(&received.value),
            });
        }
        Some(Batch {
            topic: self.topic.clone(),
            partition,
            from,
            to: last + 1,
            records,
        })
    }

    /// Leaving the group waits for the coordinator, so not on this thread.
    fn leave(&mut self) {
        let partitions: BTreeSet<i32> = self.pending.keys().chain(self.positions.keys()).copied().collect();
        partitions.into_iter().for_each(|partition| self.forget(partition));
        let Some(consumer) = self.consumer.take() else {
            return;
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            self.tasks.spawn(say_goodbye(consumer));
        }
    }
}

/// A member with a name of its own is missed only when its session ends, unless
/// it leaves the group before it closes.
async fn say_goodbye(consumer: Arc<StreamConsumer<Rebalances>>) {
    consumer.unsubscribe();
    let letting_go = async {
        while consumer.assignment().is_ok_and(|partitions| partitions.count() > 0) {
            // Partitions are let go of while the consumer is asked for records.
            let _ = timeout(GOODBYE_STEP, consumer.recv()).await;
        }
        // Then librdkafka tells the group, by itself.
        sleep(GOODBYE_STEP).await;
    };
    let _ = timeout(GOODBYE, letting_go).await;
    // Closing waits for a thread.
    let _ = tokio::task::spawn_blocking(move || drop(consumer)).await;
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.leave();
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        match rebalance {
            Rebalance::Assign(list) | Rebalance::Revoke(list) => {
                changed
                    .partitions
                    .extend(list.elements().iter().map(|element| element.partition()));
            }
            Rebalance::Error(error) => {
                tracing::warn!(%error, "a rebalance failed");
                changed.all = true;
            }
        }
    }
}

/// A member that dies is missed after 6 s. A broker that was away for longer
/// remembers the members from before; one that comes back under the same name
/// takes its old place at once, any other waits until the old one is missed.
/// What a reader holds is bounded: 16 MiB in librdkafka and
/// [`PENDING_MAX_BYTES`] here.
/// Says where a group stands that has no members; while it has some, Kafka refuses.
pub(crate) fn stand(config: &ClientConfig, topic: &str, group: &str, offsets: &[(i32, i64)]) -> Result<(), KafkaError> {
    let mut places = TopicPartitionList::with_capacity(offsets.len());
    for (partition, offset) in offsets {
        places.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    let outsider: BaseConsumer = config.clone().set("group.id", group).create()?;
    outsider.commit(&places, CommitMode::Sync)
}

fn consumer_config(config: &ClientConfig, group: &str) -> ClientConfig {
    let mut config = config.clone();
    config
        .set("group.id", group)
        .set("group.instance.id", format!("tributary-{}", uuid::Uuid::new_v4()))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1500")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("check.crcs", "true")
        .set("queued.max.messages.kbytes", "16384");
    config
}
