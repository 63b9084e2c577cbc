//! The topic of hints: written without waiting for anybody, and read from its end
//! by every process that listens, without a group.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Quiet;
use crate::hints::Hint;
use crate::wire::{decode_hint, encode_hint};
use crate::{Error, HINTS};

/// The only partition, so that nobody has to ask for them.
const PARTITION: i32 = 0;
/// After an error of the consumer.
const PAUSE: Duration = Duration::from_millis(200);

/// Writes hints. Its queue is small: what does not fit is lost.
pub(crate) struct HintsProducer(FutureProducer<Quiet>);

/// Reads hints from the moment at which it was made.
pub(crate) struct HintsConsumer(StreamConsumer<Quiet>);

impl ConsumerContext for Quiet {}

impl HintsProducer {
    /// `None`: hints are lost, which is allowed.
    pub fn new(config: &ClientConfig) -> Option<Self> {
        let producer = config
            .clone()
            .set("acks", "0")
            .set("linger.ms", "2")
            .set("queue.buffering.max.messages", "10000")
            .set("message.timeout.ms", "2000")
            .create_with_context(Quiet);
        if let Err(error) = &producer {
            tracing::warn!(%error, "hints cannot be written");
        }
        producer.ok().map(Self)
    }

    pub fn send(&self, hint: &Hint) {
        let value = encode_hint(hint);
        let record: FutureRecord<'_, (), Vec<u8>> = FutureRecord::to(HINTS).payload(&value).partition(PARTITION);
        // Nobody waits for the report.
        drop(self.0.send_result(record));
    }
}

impl HintsConsumer {
    pub fn new(config: &ClientConfig) -> Result<Self, Error> {
        let make = || -> Result<StreamConsumer<Quiet>, KafkaError> {
            let consumer: StreamConsumer<Quiet> = config
                .clone()
                .set("group.id", "tributary-hints")
                .set("enable.auto.commit", "false")
                .set("enable.auto.offset.store", "false")
                .set("fetch.wait.max.ms", "100")
                .set("queued.max.messages.kbytes", "1024")
                .create_with_context(Quiet)?;
            let mut partitions = TopicPartitionList::new();
            partitions.add_partition_offset(HINTS, PARTITION, Offset::End)?;
            consumer.assign(&partitions)?;
            Ok(consumer)
        };
        make()
            .map(Self)
            .map_err(|error| Error::unavailable("reading hints", &error))
    }

    /// The next hint. `None`: it is broken, make another.
    pub async fn next(&self) -> Option<Hint> {
        loop {
            match self.0.recv().await {
                Ok(message) => {
                    if let Some(hint) = message.payload().and_then(decode_hint) {
                        return Some(hint);
                    }
                }
                Err(KafkaError::MessageConsumptionFatal(_)) => return None,
                // It tries again by itself.
                Err(error) => {
                    tracing::debug!(%error, "hints are not to be had now");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
