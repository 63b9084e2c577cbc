//! Hints: wake-ups, typing, presence. Best effort both ways: publishing never waits
//! and never fails, and whoever listens must do without. Within one process they go
//! straight to those who listen, with Kafka over a topic of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::conversation::Conversation;
use model::id::ConversationId;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::kafka::{HintsProducer, Kafka};

/// So many hints wait for a listener that is slow; older ones are lost to it.
const CAPACITY: usize = 4_096;
/// Until a broken consumer is made anew.
const PAUSE: Duration = Duration::from_secs(1);

/// News for whoever looks right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A conversation whose threads have names has come further.
    Changed {
        account: String,
        thread: String,
        conversation_id: ConversationId,
        epoch: i64,
        last_sequence: i64,
    },
    /// Somebody is writing just now.
    Typing {
        account: String,
        thread: String,
        by: Typist,
    },
    /// A visitor came to look, or the last of his sockets went.
    Presence {
        account: String,
        thread: String,
        is_here: bool,
    },
}

/// Who is writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typist {
    Visitor,
    Desk,
}

/// The way of hints.
#[derive(Clone)]
pub struct Hints {
    listeners: broadcast::Sender<Hint>,
    kafka: Option<Arc<Way>>,
}

struct Way {
    kafka: Kafka,
    producer: OnceLock<Option<HintsProducer>>,
    is_read: AtomicBool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Hint {
    /// How far this conversation has come.
    pub fn changed(conversation: &Conversation) -> Self {
        Self::Changed {
            account: conversation.account.clone(),
            thread: conversation.thread_name.clone().unwrap_or_default(),
            conversation_id: conversation.id.clone(),
            epoch: conversation.epoch,
            last_sequence: conversation.last_sequence,
        }
    }
}

impl Hints {
    /// Within this process.
    pub fn local() -> Self {
        Self {
            listeners: broadcast::Sender::new(CAPACITY),
            kafka: None,
        }
    }

    /// Between processes.
    pub(crate) fn over(kafka: Kafka, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let way = Way {
            kafka,
            producer: OnceLock::new(),
            is_read: AtomicBool::new(false),
            tasks,
            stop,
        };
        Self {
            kafka: Some(Arc::new(way)),
            ..Self::local()
        }
    }

    /// Tells whoever listens. Never waits; a hint that cannot go now is lost.
    pub fn publish(&self, hint: Hint) {
        match &self.kafka {
            // An error only says that nobody listens.
            None => drop(self.listeners.send(hint)),
            Some(way) => {
                let producer = way.producer.get_or_init(|| way.kafka.hints_producer());
                if let Some(producer) = producer {
                    producer.send(&hint);
                }
            }
        }
    }

    /// All hints from now on. A listener that lags loses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<Hint> {
        if let Some(way) = &self.kafka
            && !way.is_read.swap(true, Ordering::Relaxed)
        {
            let (way, listeners) = (way.clone(), self.listeners.clone());
            let reading = async move {
                let stop = way.stop.clone();
                stop.run_until_cancelled(read(&way.kafka, &listeners)).await;
            };
            if let Some(way) = &self.kafka {
                way.tasks.spawn(reading);
            }
        }
        self.listeners.subscribe()
    }
}

/// Hands on what comes, whatever happens to Kafka.
async fn read(kafka: &Kafka, listeners: &broadcast::Sender<Hint>) {
    loop {
        match kafka.hints_consumer().await {
            Ok(consumer) => {
                while let Some(hint) = consumer.next().await {
                    let _ = listeners.send(hint);
                }
            }
            Err(error) => tracing::debug!(%error, "hints cannot be read"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hints_reach_those_who_listen_and_nobody_minds_if_none_does() {
        let hints = Hints::local();
        let typing = |number: usize| Hint::Typing {
            account: "shop".to_owned(),
            thread: number.to_string(),
            by: Typist::Visitor,
        };
        hints.publish(typing(0));
        let (mut one, mut other) = (hints.subscribe(), hints.subscribe());
        hints.publish(typing(1));
        assert_eq!(one.recv().await, Ok(typing(1)));
        for number in 0..2 * CAPACITY {
            hints.publish(typing(number));
        }
        assert!(matches!(
            other.recv().await,
            Err(broadcast::error::RecvError::Lagged(_))
        ));
        assert!(other.recv().await.is_ok());
    }
}
