//! An independent consumer of the events: plain Kafka, and protobuf decoded from
//! `proto/` alone, with nothing of ours in between.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::servers::{Kafka, repository};
use super::wait::until;

/// Arrivals.
pub const EVENTS: &str = "tributary.events.v1";
/// What happened at the desk.
pub const DESK: &str = "tributary.desk.v1";

const PATIENCE: Duration = Duration::from_secs(10);

/// A broker may need so long until it has what it missed.
const IN_SYNC_WITHIN: Duration = Duration::from_secs(60);

/// Waits until all brokers are there, and every partition has all its copies.
pub async fn all_there(kafka: &Kafka) -> Result<()> {
    until("all copies are in sync", IN_SYNC_WITHIN, async || {
        let (port, count) = (kafka.port, kafka.brokers.len());
        tokio::task::spawn_blocking(move || is_in_sync(port, count)).await?
    })
    .await
}

fn is_in_sync(port: u16, brokers: usize) -> Result<bool> {
    let consumer: BaseConsumer = config(port).create()?;
    let metadata = consumer.fetch_metadata(None, PATIENCE)?;
    let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    let has_all = partitions.all(|partition| partition.isr().len() == partition.replicas().len());
    Ok(metadata.brokers().len() == brokers && has_all)
}

/// Deletes a topic with all that is in it.
pub async fn delete_topic(kafka: &Kafka, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(kafka.port).create()?;
    for deleted in admin.delete_topics(&[topic], &AdminOptions::new()).await? {
        deleted.map_err(|(topic, error)| anyhow!("deleting {topic}: {error}"))?;
    }
    Ok(())
}

/// A topic's setting, and how many records it has taken.
pub async fn topic(kafka: &Kafka, topic: &'static str, setting: &str) -> Result<(Option<String>, i64)> {
    let admin: AdminClient<DefaultClientContext> = config(kafka.port).create()?;
    let resource = ResourceSpecifier::Topic(topic);
    let options = AdminOptions::new();
    let described = admin.describe_configs([&resource], &options);
    let found = described.await?.pop().context("no answer")?;
    let found = found.map_err(|error| anyhow!("{topic}: {error}"))?;
    let value = found.get(setting).and_then(|entry| entry.value.clone());
    let port = kafka.port;
    Ok((value, tokio::task::spawn_blocking(move || records(port, topic)).await??))
}

/// Gives a topic a setting of its own, or takes it away; its others stay.
pub async fn set_topic(kafka: &Kafka, topic: &'static str, setting: &str, value: Option<&str>) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(kafka.port).create()?;
    let options = AdminOptions::new();
    let resource = ResourceSpecifier::Topic(topic);
    let described = admin.describe_configs([&resource], &options);
    let found = described.await?.pop().context("no answer")?;
    let found = found.map_err(|error| anyhow!("{topic}: {error}"))?;
    let own = found
        .entries
        .iter()
        .filter(|entry| entry.source == ConfigSource::DynamicTopic);
    let own = own.filter(|entry| entry.name != setting);
    let own = own.filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)));
    let new = own.chain(value.map(|value| (setting, value)));
    let altered = new.fold(
        AlterConfig::new(ResourceSpecifier::Topic(topic)),
        |altered, (name, value)| altered.set(name, value),
    );
    for told in admin.alter_configs([&altered], &options).await? {
        told.map_err(|(topic, error)| anyhow!("setting {setting} of {topic:?}: {error}"))?;
    }
    Ok(())
}

fn records(port: u16, topic: &str) -> Result<i64> {
    let consumer: BaseConsumer = config(port).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let mut records = 0;
    for partition in metadata.topics().first().context("no such topic")?.partitions() {
        records += consumer.fetch_watermarks(topic, partition.id(), PATIENCE)?.1;
    }
    Ok(records)
}

fn config(port: u16) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", format!("127.0.0.1:{port}"));
    config
}

/// One record.
#[derive(Debug)]
pub struct Record {
    pub key: Vec<u8>,
    pub headers: Vec<(String, String)>,
    pub event: DynamicMessage,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Reads the topic from its beginning until a record for which `is_it` holds.
pub async fn find(kafka: &Kafka, is_it: impl Fn(&Record) -> bool + Send + 'static) -> Result<Record> {
    let port = kafka.port;
    tokio::task::spawn_blocking(move || find_blocking(port, &is_it)).await?
}

fn find_blocking(port: u16, is_it: &dyn Fn(&Record) -> bool) -> Result<Record> {
    let consumer = from_the_beginning(port)?.0;
    let descriptor = descriptor()?;
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let Some(message) = consumer.poll(Duration::from_millis(200)) else {
            continue;
        };
        let record = record(&message?, &descriptor)?;
        if is_it(&record) {
            return Ok(record);
        }
    }
    bail!("no such event in Kafka within {PATIENCE:?}")
}

/// All records that are there now and for whose headers `is_wanted` holds.
pub async fn all(kafka: &Kafka, is_wanted: impl Fn(&Record) -> bool + Send + 'static) -> Result<Vec<Record>> {
    let port = kafka.port;
    tokio::task::spawn_blocking(move || all_blocking(port, &is_wanted)).await?
}

fn all_blocking(port: u16, is_wanted: &dyn Fn(&Record) -> bool) -> Result<Vec<Record>> {
    let (consumer, mut left) = from_the_beginning(port)?;
    let descriptor = descriptor()?;
    let mut records = Vec::new();
    let mut last = Instant::now();
    while !left.is_empty() {
        ensure!(
            last.elapsed() < PATIENCE,
            "Kafka gives nothing more, though {left:?} are not reached"
        );
        let Some(message) = consumer.poll(Duration::from_millis(200)) else {
            continue;
        };
        let message = message?;
        last = Instant::now();
        if left
            .get(&message.partition())
            .is_some_and(|end| message.offset() + 1 >= *end)
        {
            left.remove(&message.partition());
        }
        let record = record(&message, &descriptor)?;
        if is_wanted(&record) {
            records.push(record);
        }
    }
    Ok(records)
}

/// A reader of all partitions from their beginnings, and where each ends that has
/// something.
fn from_the_beginning(port: u16) -> Result<(BaseConsumer, BTreeMap<i32, i64>)> {
    let consumer: BaseConsumer = config(port)
        .set("group.id", "an-independent-reader")
        .set("enable.auto.commit", "false")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(EVENTS), PATIENCE)?;
    let topic = metadata.topics().first().context("no such topic")?;
    let mut partitions = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    for partition in topic.partitions() {
        partitions.add_partition_offset(EVENTS, partition.id(), Offset::Beginning)?;
        let (begin, end) = consumer.fetch_watermarks(EVENTS, partition.id(), PATIENCE)?;
        if end > begin {
            ends.insert(partition.id(), end);
        }
    }
    consumer.assign(&partitions)?;
    Ok((consumer, ends))
}

fn record(message: &BorrowedMessage<'_>, descriptor: &MessageDescriptor) -> Result<Record> {
    let mut headers = Vec::new();
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
        headers.push((header.key.to_owned(), value));
    }
    Ok(Record {
        key: message.key().unwrap_or_default().to_vec(),
        headers,
        event: DynamicMessage::decode(descriptor.clone(), message.payload().context("no value")?)?,
    })
}

fn descriptor() -> Result<MessageDescriptor> {
    let proto = repository().join("proto");
    let files = protox::compile(["conversation/v1/event.proto"], [proto])?;
    let pool = DescriptorPool::from_file_descriptor_set(files)?;
    pool.get_message_by_name("conversation.v1.Event")
        .context("no message Event")
}

/// A field of a message by its path, as JSON shows it.
pub fn field(message: &DynamicMessage, path: &str) -> Result<prost_reflect::Value> {
    let mut value = prost_reflect::Value::Message(message.clone());
    for name in path.split('.') {
        let inner = value.as_message().with_context(|| format!("{path}: not a message"))?;
        let found = inner
            .get_field_by_name(name)
            .with_context(|| format!("{path}: no such field"))?;
        value = found.into_owned();
    }
    Ok(value)
}

/// Gives a topic so many partitions more, and says how many it has then.
pub async fn add_partitions(kafka: &Kafka, topic: &'static str, more: usize) -> Result<usize> {
    let port = kafka.port;
    let count = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config(port).create()?;
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        anyhow::Ok(metadata.topics().first().context("no such topic")?.partitions().len())
    });
    let count = count.await?? + more;
    let admin: AdminClient<DefaultClientContext> = config(kafka.port).create()?;
    for made in admin
        .create_partitions(&[NewPartitions::new(topic, count)], &AdminOptions::new())
        .await?
    {
        made.map_err(|(topic, error)| anyhow!("partitions of {topic}: {error}"))?;
    }
    Ok(count)
}
