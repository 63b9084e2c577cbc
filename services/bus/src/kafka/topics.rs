//! The topics: created with their retention where they are missing.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{QUESTION_TIMEOUT, Quiet};
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

/// Tries until all topics are there, then says so.
pub(super) async fn ensure(config: ClientConfig, partitions: i32, ready: watch::Sender<bool>, stop: CancellationToken) {
    let mut pause = BACKOFF.0;
    let mut is_told = false;
    loop {
        match attempt(&config, partitions).await {
            Ok(true) => {
                if is_told {
                    tracing::info!("kafka is there, and so are its topics");
                }
                ready.send_replace(true);
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
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// True if all topics are there.
async fn attempt(config: &ClientConfig, partitions: i32) -> Result<bool, KafkaError> {
    let config = config.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let admin: AdminClient<Quiet> = config.create_with_context(Quiet)?;
        let state = look(&admin)?;
        Ok::<_, KafkaError>((admin, state))
    });
    let (admin, state) = looked.await.map_err(|_| KafkaError::Canceled)??;
    let State::Missing { topics, brokers } = state else {
        return Ok(true);
    };
    create(&admin, &topics, brokers, partitions).await?;
    // Its drop waits for a thread.
    tokio::task::spawn_blocking(move || drop(admin))
        .await
        .map_err(|_| KafkaError::Canceled)?;
    Ok(false)
}

/// Asks for all topics: asking for one by name may make the broker create it.
fn look(admin: &AdminClient<Quiet>) -> Result<State, KafkaError> {
    let metadata = admin.inner().fetch_metadata(None, QUESTION_TIMEOUT)?;
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
