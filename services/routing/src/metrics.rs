//! What routing counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::Counted;

const MESSAGES: &str = "routed_messages";
const REPEATS: &str = "routed_repeats";
const PARKED: &str = "routed_parked";
const TICKETS: &str = "tickets_opened";
const STALE: &str = "routing_stale";
const BATCH_SECONDS: &str = "routing_batch_seconds";
const CLOCKS_DUE: &str = "clocks_due";
const ANNOUNCED: &str = "announced";

/// Counters of the router, the clocks and the relay. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) messages: Counter,
    pub(crate) repeats: Counter,
    pub(crate) parked: Counter,
    pub(crate) tickets: Counter,
    pub(crate) stale: Counter,
    pub(crate) batch_seconds: Histogram,
    pub(crate) clocks_due: Counter,
    pub(crate) announced: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
        let metrics = Self {
            messages: Counter::default(),
            repeats: Counter::default(),
            parked: Counter::default(),
            tickets: Counter::default(),
            stale: Counter::default(),
            batch_seconds: Histogram::new(seconds),
            clocks_due: Counter::default(),
            announced: Counter::default(),
        };
        registry.register(MESSAGES, "Messages stored", metrics.messages.clone());
        registry.register(REPEATS, "Events that were known already", metrics.repeats.clone());
        registry.register(PARKED, "Inputs parked or quarantined", metrics.parked.clone());
        registry.register(TICKETS, "Tickets opened", metrics.tickets.clone());
        registry.register(
            STALE,
            "Decisions made again because somebody was faster",
            metrics.stale.clone(),
        );
        registry.register(
            BATCH_SECONDS,
            "Time from reading a batch to its commit",
            metrics.batch_seconds.clone(),
        );
        registry.register(CLOCKS_DUE, "Warnings and breaches written", metrics.clocks_due.clone());
        registry.register(ANNOUNCED, "Announcements published", metrics.announced.clone());
        metrics
    }

    pub(crate) fn count(&self, counted: &Counted) {
        self.messages.inc_by(counted.messages);
        self.repeats.inc_by(counted.repeats);
        self.parked.inc_by(counted.parked);
        self.tickets.inc_by(counted.tickets);
    }
}
