//! What the bus counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

const PUBLISHED_EVENTS: &str = "published_events";
const PUBLISH_SECONDS: &str = "publish_seconds";
const SPOOL_EVENTS: &str = "spool_events";
const SPOOL_BYTES: &str = "spool_bytes";
const SPOOL_OLDEST_AGE_SECONDS: &str = "spool_oldest_age_seconds";
const SPOOL_REFUSED_EVENTS: &str = "spool_refused_events";

/// Events by where they became durable.
pub(crate) type Published = Family<[(&'static str, &'static str); 1], Counter>;

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub published: Published,
    pub publish_seconds: Histogram,
    pub spool_events: Gauge,
    pub spool_bytes: Gauge,
    pub spool_oldest_age_seconds: Gauge,
    pub spool_refused_events: Gauge,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        // 1 ms to 4 s.
        let bounds = prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, 13);
        let metrics = Self {
            published: Family::default(),
            publish_seconds: Histogram::new(bounds),
            spool_events: Gauge::default(),
            spool_bytes: Gauge::default(),
            spool_oldest_age_seconds: Gauge::default(),
            spool_refused_events: Gauge::default(),
        };
        registry.register(
            PUBLISHED_EVENTS,
            "Events made durable, by where",
            metrics.published.clone(),
        );
        registry.register(
            PUBLISH_SECONDS,
            "Time until an event was durable",
            metrics.publish_seconds.clone(),
        );
        registry.register(
            SPOOL_EVENTS,
            "Events that wait in the spool",
            metrics.spool_events.clone(),
        );
        registry.register(SPOOL_BYTES, "Bytes that wait in the spool", metrics.spool_bytes.clone());
        registry.register(
            SPOOL_OLDEST_AGE_SECONDS,
            "Age of the oldest event in the spool",
            metrics.spool_oldest_age_seconds.clone(),
        );
        registry.register(
            SPOOL_REFUSED_EVENTS,
            "Events that Kafka refuses for good, set aside in the spool",
            metrics.spool_refused_events.clone(),
        );
        metrics
    }

    /// One more event became durable in `kafka`, `spool` or `local`.
    pub fn count_published(&self, to: &'static str) {
        self.published.get_or_create(&[("to", to)]).inc();
    }
}
