//! Kafka: an idempotent producer, and the topics it writes to.

mod hints;
mod reader;
mod topics;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use secrecy::ExposeSecret;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::hints::{HintsConsumer, HintsProducer};
pub(crate) use self::reader::KafkaReader;
use crate::wire::Encoded;
use crate::{Blobs, EVENTS, Error, KafkaSettings, large};

/// The way to Kafka.
#[derive(Clone)]
pub(crate) struct Kafka {
    config: ClientConfig,
    /// Replaced when librdkafka says that this one will never work again.
    producer: Arc<RwLock<FutureProducer<Quiet>>>,
    /// Whether the topics are known to be there.
    is_ready: watch::Receiver<bool>,
    /// Told when a topic is gone.
    missing: Arc<Notify>,
    tasks: TaskTracker,
}

/// Whether librdkafka can work with these settings: a client that knows no
/// broker looks at certificates and mechanisms as any other does.
pub(crate) fn check(settings: &KafkaSettings) -> Result<(), Error> {
    let mut config = ClientConfig::new();
    secure(&mut config, settings);
    let made: Result<AdminClient<Quiet>, KafkaError> = config.create_with_context(Quiet);
    made.map(drop)
        .map_err(|error| Error::settings("these settings do not do for kafka", &error))
}

/// A record that is on its way.
pub(crate) struct Delivery {
    report: DeliveryFuture,
    missing: Arc<Notify>,
}

/// Why a record did not get there.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Or nobody knows whether it did.
    Unavailable(String),
    /// However often it is tried.
    ForGood(String),
}

/// librdkafka says "broker down" a few times a second; whoever waits for Kafka
/// says it once.
pub(crate) struct Quiet;

/// How long librdkafka keeps trying to deliver a record.
const DELIVERY_TIMEOUT_MS: &str = "10000";
/// Until then it has said what came of a record, if it works at all.
pub(crate) const REPORT_PATIENCE: Duration = Duration::from_secs(12);
/// How long it hopes for a topic that is gone; shorter, so that its records fail for
/// this reason. Topics are created before anything is sent to them.
const TOPIC_TIMEOUT_MS: &str = "5000";
/// How long a question (metadata, offsets) may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long opening waits for a Kafka that may just be slow.
const OPENING_PATIENCE: Duration = Duration::from_secs(2);

impl Kafka {
    /// Connects in the background, and creates missing topics as soon as it can.
    pub async fn open(
        servers: &str,
        settings: &KafkaSettings,
        partitions: i32,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let config = client_config(servers, settings);
        let producer = Arc::new(RwLock::new(producer(&config)?));
        let (ready, mut is_ready) = watch::channel(false);
        let missing = Arc::<Notify>::default();
        let ensure = topics::ensure(config.clone(), producer.clone(), partitions, ready, missing.clone());
        tasks.spawn(async move { stop.run_until_cancelled(ensure).await });
        // Not there in time is no error: the topics are awaited in the background.
        let _ = tokio::time::timeout(OPENING_PATIENCE, is_ready.wait_for(|ready| *ready)).await;
        Ok(Self {
            config,
            producer,
            is_ready,
            missing,
            tasks: tasks.clone(),
        })
    }

    /// Puts a record into the producer's queue: records of a key arrive in the
    /// order of these calls. Never waits.
    pub fn enqueue(&self, topic: &str, record: &Encoded) -> Result<Delivery, Refused> {
        if !*self.is_ready.borrow() {
            return Err(Refused::Unavailable("the topics are not there yet".to_owned()));
        }
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            let value = Some(value.as_str());
            headers = headers.insert(Header { key, value });
        }
        let mut message = FutureRecord::to(topic)
            .payload(record.value.as_slice())
            .headers(headers);
        if !record.key.is_empty() {
            message = message.key(record.key.as_bytes());
        }
        let producer = self.producer();
        match producer.send_result(message) {
            Ok(report) => Ok(Delivery {
                report,
                missing: self.missing.clone(),
            }),
            Err((error, _)) => {
                self.replace_if_dead(&producer);
                notify_if_missing(&self.missing, &error);
                Err(sorted(&error))
            }
        }
    }

    /// Sends the records, one behind the other, and waits for all reports.
    pub async fn send(&self, topic: &str, records: &[Encoded], patience: Duration) -> Result<(), Refused> {
        let mut is_ready = self.is_ready.clone();
        let all = async {
            // Topics may just be being created. If nobody does it any more, the
            // first record says so.
            let _ = is_ready.wait_for(|ready| *ready).await;
            let mut deliveries = Vec::with_capacity(records.len());
            for record in records {
                deliveries.push(self.enqueue(topic, record)?);
            }
            for delivery in deliveries {
                delivery.wait().await?;
            }
            Ok(())
        };
        let late = Err(Refused::Unavailable("kafka does not answer in time".to_owned()));
        tokio::time::timeout(patience, all).await.unwrap_or(late)
    }

    /// Publishes an event, made smaller if this broker takes less than usual.
    pub async fn publish(&self, blobs: &Blobs, record: Encoded, patience: Duration) -> Result<(), Error> {
        match self.send(EVENTS, std::slice::from_ref(&record), patience).await {
            Err(Refused::ForGood(reason)) => {
                let smaller = large::reduce(record, &reason, blobs).await?;
                Ok(self.send(EVENTS, &[smaller], patience).await?)
            }
            result => Ok(result?),
        }
    }

    /// Whether Kafka answers at all.
    pub async fn is_reachable(&self) -> bool {
        let ask = |client: &Client<_>| {
            client
                .fetch_metadata(Some(EVENTS), Duration::from_millis(500))
                .map(drop)
        };
        // The question's own time-out goes by the time of day.
        let answer = tokio::time::timeout(Duration::from_secs(1), self.ask(ask)).await;
        *self.is_ready.borrow() && matches!(answer, Ok(Ok(())))
    }

    /// The offset behind the last record of each partition.
    pub async fn end_offsets(&self, topic: &str) -> Result<Vec<(i32, i64)>, Error> {
        if !*self.is_ready.borrow() {
            return Err(Error::Unavailable("the topics are not there yet".to_owned()));
        }
        let topic = topic.to_owned();
        self.ask(move |client| {
            let metadata = client.fetch_metadata(Some(&topic), QUESTION_TIMEOUT)?;
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let mut ends = Vec::new();
            for partition in partitions {
                let (_, end) = client.fetch_watermarks(&topic, partition.id(), QUESTION_TIMEOUT)?;
                ends.push((partition.id(), end));
            }
            if ends.is_empty() {
                return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
            }
            Ok(ends)
        })
        .await
    }

    /// A reader of this topic; it joins the group when it is first asked.
    pub fn reader(&self, topic: &str, group: &str) -> KafkaReader {
        KafkaReader::new(
            self.config.clone(),
            topic,
            group,
            self.is_ready.clone(),
            self.missing.clone(),
            self.tasks.clone(),
        )
    }

    /// Lets a group without members stand at these offsets.
    pub async fn stand(&self, topic: &str, group: &str, offsets: &[(i32, i64)]) -> Result<(), Error> {
        let (config, offsets) = (self.config.clone(), offsets.to_vec());
        let (topic, group) = (topic.to_owned(), group.to_owned());
        tokio::task::spawn_blocking(move || reader::stand(&config, &topic, &group, &offsets))
            .await
            .map_err(|error| Error::unavailable("moving a group of readers", &error))?
            .map_err(|error| Error::unavailable("moving a group of readers", &error))
    }

    /// What hints are written by; of its own, so that they never fill the queue of events.
    pub fn hints_producer(&self) -> Option<HintsProducer> {
        HintsProducer::new(&self.config)
    }

    /// What hints are read by, from now on; waits for the topics.
    pub async fn hints_consumer(&self) -> Result<HintsConsumer, Error> {
        let mut is_ready = self.is_ready.clone();
        let _ = is_ready.wait_for(|ready| *ready).await;
        HintsConsumer::new(&self.config)
    }

    /// Waits until nothing is under way any more, at most that long.
    pub async fn flush(&self, deadline: Duration) {
        let producer = self.producer();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(deadline)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "not everything under way to kafka arrived in time");
        }
    }

    fn producer(&self) -> FutureProducer<Quiet> {
        self.producer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace_if_dead(&self, dead: &FutureProducer<Quiet>) {
        let Some((_, reason)) = dead.client().fatal_error() else {
            return;
        };
        let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        if current.client().fatal_error().is_some() {
            self.replace(&mut current, &reason);
        }
    }

    /// Goes on with a new producer. What is under way in the old one may still arrive.
    pub fn renew(&self, reason: &str) {
        let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        let old = current.clone();
        self.replace(&mut current, reason);
        drop(current);
        // It waits for threads, for long if the clock was set back; nobody waits for it.
        if let Err(error) = std::thread::Builder::new().spawn(move || drop(old)) {
            tracing::warn!(%error, "no thread is left to end the old producer");
        }
    }

    fn replace(&self, current: &mut FutureProducer<Quiet>, reason: &str) {
        match producer(&self.config) {
            Ok(producer) => {
                tracing::error!(reason, "the kafka producer is replaced by a new one");
                *current = producer;
            }
            Err(error) => tracing::error!(%error, reason, "the kafka producer is broken"),
        }
    }

    /// Asks something that blocks.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&ProducerClient) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, Error> {
        let producer = self.producer();
        tokio::task::spawn_blocking(move || question(producer.client()))
            .await
            .map_err(|error| Error::unavailable("asking kafka", &error))?
            .map_err(|error| Error::unavailable("asking kafka", &error))
    }
}

type ProducerClient = Client<rdkafka::producer::future_producer::FutureProducerContext<Quiet>>;

impl Delivery {
    /// Waits until the record is on the disks of the brokers that count.
    pub async fn wait(self) -> Result<(), Refused> {
        match self.report.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => {
                notify_if_missing(&self.missing, &error);
                Err(sorted(&error))
            }
            Err(_) => Err(Refused::Unavailable("the producer is gone".to_owned())),
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unavailable(reason) | Refused::ForGood(reason) => Self::Unavailable(reason),
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // Nothing but other settings, here or there, mends these.
            Some(
                RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL | RDKafkaErrorCode::SaslAuthenticationFailed,
            ) => {
                tracing::error!(%error, reason, "kafka does not let us in");
            }
            _ => tracing::debug!(%error, reason, "librdkafka"),
        }
    }
}

/// Whether the topic, or what there was of it, is gone.
fn is_missing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

fn notify_if_missing(missing: &Notify, error: &KafkaError) {
    if is_missing(error) {
        missing.notify_one();
    }
}

/// What the broker will never take is another matter than a broker that is away.
fn sorted(error: &KafkaError) -> Refused {
    let is_for_good = matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::InvalidTimestamp
                | RDKafkaErrorCode::PolicyViolation
        )
    );
    if is_for_good {
        Refused::ForGood(error.to_string())
    } else {
        Refused::Unavailable(error.to_string())
    }
}

/// What producer, readers and administration have in common: a broker that comes
/// back is found within a second, one that hangs is given up after ten.
fn client_config(servers: &str, settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("client.id", "tributary")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.timeout.ms", "10000")
        .set("socket.connection.setup.timeout.ms", "5000")
        .set("socket.keepalive.enable", "true")
        .set("allow.auto.create.topics", "false");
    secure(&mut config, settings);
    config
}

fn secure(config: &mut ClientConfig, settings: &KafkaSettings) {
    config.set("security.protocol", settings.security_protocol.as_str());
    for (key, value) in [
        ("sasl.mechanism", &settings.sasl_mechanism),
        ("sasl.username", &settings.username),
        ("ssl.ca.pem", &settings.ca),
        ("ssl.certificate.pem", &settings.certificate),
    ] {
        if let Some(value) = value {
            config.set(key, value);
        }
    }
    for (key, secret) in [("sasl.password", &settings.password), ("ssl.key.pem", &settings.key)] {
        if let Some(secret) = secret {
            config.set(key, secret.expose_secret());
        }
    }
}

/// lz4 takes the least time of a core for what it saves; `linger.ms=1` was
/// measured best with few and with many requests at once. Of the five requests
/// that idempotence allows at once only three are used: a broker takes the
/// requests of a connection one by one anyway, and librdkafka spins while a
/// partition with a batch under way has another that is ready, unless a request
/// waits to be sent (a third of the gateway's CPU at 64 connections). A batch
/// stays below the limit of a broker that takes less than usual; the partitioner
/// is the one of Java's clients.
fn producer(config: &ClientConfig) -> Result<FutureProducer<Quiet>, Error> {
    config
        .clone()
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("max.in.flight.requests.per.connection", "3")
        .set("batch.size", "262144")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", DELIVERY_TIMEOUT_MS)
        .set("topic.metadata.propagation.max.ms", TOPIC_TIMEOUT_MS)
        .set("queue.buffering.max.kbytes", "131072")
        .create_with_context(Quiet)
        .map_err(|error| Error::settings("making a kafka producer", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mechanisms are part of librdkafka only if it was built with TLS.
    #[test]
    fn librdkafka_knows_what_the_settings_offer() {
        let settings = |protocol: &str, mechanism: Option<&str>, ca: Option<&str>| KafkaSettings {
            security_protocol: protocol.to_owned(),
            sasl_mechanism: mechanism.map(str::to_owned),
            username: mechanism.map(|_| "tributary".to_owned()),
            password: mechanism.map(|_| "secret".to_owned().into()),
            ca: ca.map(str::to_owned),
            ..KafkaSettings::default()
        };
        let cases = [
            ("plaintext", None, None, true),
            ("ssl", None, None, true),
            ("sasl_ssl", Some("PLAIN"), None, true),
            ("sasl_ssl", Some("SCRAM-SHA-256"), None, true),
            ("sasl_plaintext", Some("SCRAM-SHA-512"), None, true),
            ("sasl_ssl", Some("GUESS"), None, false),
            ("ssl", None, Some("no certificate"), false),
        ];
        for (protocol, mechanism, ca, works) in cases {
            let checked = check(&settings(protocol, mechanism, ca));
            assert_eq!(checked.is_ok(), works, "{protocol} {mechanism:?} {ca:?}: {checked:?}");
        }
    }
}
