//! A log of a test's own, and events to put into it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bus::{Batch, Bus, KafkaSettings, Reader, Settings};
use model::contact::Party;
use model::event::{Body, Event, Message, Raw, RawContent};
use model::evidence::Evidence;
use model::id::MessageId;
use model::time::Moment;
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use crate::broker::Broker;

/// Where a case runs.
pub struct World {
    pub folder: TempDir,
    pub url: String,
    /// Unlike any other of this run, so that cases can share a topic.
    pub account: String,
    pub broker: Option<Broker>,
}

/// No case waits longer for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PARTITIONS: i32 = 4;

static WORLDS: AtomicU64 = AtomicU64::new(0);

impl World {
    pub fn local() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("local:{}", folder.path().join("bus/log.db").display());
        Self::new(folder, url, None)
    }

    /// The Kafka of the environment, else a mock one.
    pub fn kafka() -> Self {
        match std::env::var("TRIBUTARY_TEST_KAFKA") {
            Ok(servers) => Self::new(tempfile::tempdir().unwrap(), format!("kafka:{servers}"), None),
            Err(_) => Self::mock_kafka(),
        }
    }

    /// A Kafka that obeys.
    pub fn mock_kafka() -> Self {
        Self::mock_with(&[bus::EVENTS, bus::DESK, bus::HINTS])
    }

    /// One that lets nobody make the topic of hints.
    pub fn mock_without_hints() -> Self {
        Self::mock_with(&[bus::EVENTS, bus::DESK])
    }

    fn mock_with(topics: &'static [&'static str]) -> Self {
        let broker = Broker::start(topics, PARTITIONS);
        let url = format!("kafka:{}", broker.servers);
        Self::new(tempfile::tempdir().unwrap(), url, Some(broker))
    }

    fn new(folder: TempDir, url: String, broker: Option<Broker>) -> Self {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let account = format!("a{:x}-{number}", started());
        Self {
            folder,
            url,
            account,
            broker,
        }
    }

    pub fn settings(&self) -> Settings {
        Settings {
            url: self.url.clone(),
            spool: None,
            blobs_url: format!("file:{}", self.folder.path().join("blobs").display()),
            partitions: PARTITIONS,
            kafka: KafkaSettings::default(),
        }
    }

    pub async fn open(&self) -> Bus {
        Bus::open(&self.settings(), &mut Registry::default()).await.unwrap()
    }

    /// The `number`th message of a thread.
    pub fn event(&self, thread: &str, number: usize) -> Event {
        let external_id = format!("{thread}/{number}");
        let message = Message {
            sender: Party {
                scheme: "email".to_owned(),
                address: "anna@example.com".to_owned(),
                name: None,
                verified: true,
            },
            recipients: Vec::new(),
            subject: Some(external_id.clone()),
            text: "hello".to_owned(),
            html: None,
            attachments: Vec::new(),
            evidence: Evidence::default(),
            automatic: None,
            suppress_automatic_reply: false,
            external_ids: Vec::new(),
            identities: Vec::new(),
            fields: Default::default(),
        };
        Event {
            id: MessageId::received(&self.account, "webhook", &external_id).to_string(),
            account: self.account.clone(),
            channel: "webhook".to_owned(),
            thread_key: thread.to_owned(),
            occurred_at: Moment::from_ms(1_790_000_000_000),
            received_at: Moment::from_ms(1_790_000_000_001),
            provider_sequence: None,
            traceparent: None,
            raw: Raw {
                content: RawContent::Inline(external_id.into_bytes()),
                ..Raw::default()
            },
            body: Body::MessageReceived(Box::new(message)),
        }
    }

    /// Reads until `count` events of this world have come, in the order of coming.
    pub async fn read(&self, reader: &mut Reader, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let batch = next(reader, 100).await;
            events.extend(self.of(batch));
        }
        events
    }

    /// This world's events in a batch.
    pub fn of(&self, batch: Batch) -> Vec<Event> {
        let events = batch.records.into_iter().filter_map(|record| record.event.ok());
        events.filter(|event| event.account == self.account).collect()
    }
}

/// The next batch, checked for what every batch must be.
pub async fn next(reader: &mut Reader, max: usize) -> Batch {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout_at(deadline, reader.next(max))
            .await
            .expect("no batch came")
        {
            Ok(batch) => {
                check(&batch, max);
                return batch;
            }
            Err(bus::Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn check(batch: &Batch, max: usize) {
    assert!(!batch.records.is_empty() && batch.records.len() <= max);
    let offsets: Vec<i64> = batch.records.iter().map(|record| record.offset).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    assert!(batch.from <= offsets[0], "{} {offsets:?}", batch.from);
    assert_eq!(batch.to, offsets[offsets.len() - 1] + 1);
}

/// The number of a message within its thread, as [`World::event`] made it.
pub fn number_of(event: &Event) -> usize {
    let Body::MessageReceived(message) = &event.body else {
        panic!("no message");
    };
    let subject = message.subject.as_deref().unwrap();
    subject.rsplit_once('/').unwrap().1.parse().unwrap()
}

/// Tells the runs apart that share a Kafka.
fn started() -> u128 {
    static STARTED: std::sync::OnceLock<u128> = std::sync::OnceLock::new();
    *STARTED.get_or_init(|| {
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
    })
}
