//! The topics: created with their retention where they are missing.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, Producer};
use tokio::sync::{Notify, watch};

use super::{ProducerClient, QUESTION_TIMEOUT, Quiet};
use crate::{DESK, EVENTS, HINTS};

/// What is known of the topics.
enum State {
    Ready,
    Missing { topics: Vec<&'static str>, brokers: usize },
}

const RETENTION_MS: &str = "2592000000";
/// Nobody reads an old hint.
const HINTS_RETENTION_MS: &str = "3600000";
/// As many copies as there are brokers, up to this.
const MAX_REPLICATION: usize = 3;
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Tries until all topics are there, then says so; again whenever somebody
/// misses one.
pub(super) async fn ensure(
    config: ClientConfig,
    producer: Arc<RwLock<FutureProducer<Quiet>>>,
    partitions: i32,
    ready: watch::Sender<bool>,
    missing: Arc<Notify>,
) {
    loop {
        until_there(&config, &producer, partitions).await;
        ready.send_replace(true);
        missing.notified().await;
        tracing::warn!("kafka misses a topic, looking for it");
        ready.send_replace(false);
    }
}

async fn until_there(config: &ClientConfig, producer: &RwLock<FutureProducer<Quiet>>, partitions: i32) {
    let mut pause = BACKOFF.0;
    let mut is_told = false;
    loop {
        let current = producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        match attempt(config, current, partitions).await {
            Ok(true) => {
                if is_told {
                    tracing::info!("kafka is there, and so are its topics");
                }
                return;
            }
            // Just created: look again.
            Ok(false) => {}
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(%error, "kafka's topics cannot be reached, trying on");
            }
            Err(error) => tracing::debug!(%error, "kafka's topics cannot be reached"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// True if all topics are there, but for that of hints, which can be done without. The producer's client is asked, so that it
/// hears of a topic's return.
async fn attempt(config: &ClientConfig, producer: FutureProducer<Quiet>, partitions: i32) -> Result<bool, KafkaError> {
    let looked = tokio::task::spawn_blocking(move || look(producer.client()));
    let State::Missing { topics, brokers } = looked.await.map_err(|_| KafkaError::Canceled)?? else {
        return Ok(true);
    };
    let config = config.clone();
    let made = tokio::task::spawn_blocking(move || config.create_with_context(Quiet));
    let admin: AdminClient<Quiet> = made.await.map_err(|_| KafkaError::Canceled)??;
    let created = create(&admin, &topics, brokers, partitions).await;
    // Its drop waits for a thread.
    tokio::task::spawn_blocking(move || drop(admin))
        .await
        .map_err(|_| KafkaError::Canceled)?;
    if topics == [HINTS] {
        // Events do not wait for what is best effort.
        if let Err(error) = created {
            tracing::warn!(%error, "the topic of hints cannot be made, so news reaches sockets later");
        }
        return Ok(true);
    }
    created.map(|()| false)
}

/// Asks for all topics: asking for one by name may make the broker create it.
fn look(client: &ProducerClient) -> Result<State, KafkaError> {
    let metadata = client.fetch_metadata(None, QUESTION_TIMEOUT)?;
    let mut missing = Vec::new();
    for name in [EVENTS, DESK, HINTS] {
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            missing.push(name);
            continue;
        };
        if let Some(error) = topic.error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        let copies = topic
            .partitions()
            .iter()
            .map(|partition| partition.replicas().len())
            .min();
        if let Some(copies) = copies.filter(|copies| *copies < MAX_REPLICATION) {
            tracing::warn!(
                topic = name,
                copies,
                "a topic has fewer than three copies: the loss of a broker may lose events"
            );
        }
    }
    if missing.is_empty() {
        return Ok(State::Ready);
    }
    Ok(State::Missing {
        topics: missing,
        brokers: metadata.brokers().len(),
    })
}

async fn create(
    admin: &AdminClient<Quiet>,
    topics: &[&str],
    brokers: usize,
    partitions: i32,
) -> Result<(), KafkaError> {
    let replication = brokers.clamp(1, MAX_REPLICATION);
    let copies = i32::try_from(replication).unwrap_or(1);
    let new_topics: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|name| {
            let (partitions, retention_ms) = match *name {
                HINTS => (1, HINTS_RETENTION_MS),
                _ => (partitions, RETENTION_MS),
            };
            let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(copies));
            let topic = topic.set("retention.ms", retention_ms).set("cleanup.policy", "delete");
            if replication == MAX_REPLICATION && *name != HINTS {
                topic.set("min.insync.replicas", "2")
            } else {
                topic
            }
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(QUESTION_TIMEOUT))
        .operation_timeout(Some(QUESTION_TIMEOUT));
    for result in admin.create_topics(&new_topics, &options).await? {
        match result {
            Ok(name) => tracing::info!(topic = name, partitions, copies, "created a topic"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}
