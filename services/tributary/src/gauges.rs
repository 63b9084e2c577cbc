//! Metrics that are looked up when somebody asks for them: what is still on its
//! way, who holds what, and the process itself.
//!
//! `tributary_pending` has all its stages on every role. What a role does not own
//! is 0; so all zero on every role means that all is quiet. While a number cannot
//! be had (its database is away, or did not answer within two seconds) the gauge
//! keeps its last value but is at least 1: an unknown number never reads as quiet,
//! and `tributary_scrape_errors_total` counts it.

use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use model::time::Moment;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::roles::{Parts, Role};

const PENDING: &str = "pending";
const BUS_LAG: &str = "bus_lag";
const PARKED: &str = "parked_waiting";
const ACCOUNT_UP: &str = "account_up";
const ACCOUNT_SEEN: &str = "account_last_seen_age_seconds";
const LEASE_FENCE: &str = "lease_fence";
const SCRAPE_ERRORS: &str = "scrape_errors";
const RESIDENT_MEMORY: &str = "resident_memory_bytes";
const UPTIME: &str = "uptime_seconds";
const BUILD: &str = "build";

/// How long one look-up may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The stages of `tributary_pending`, in a message's order.
const STAGES: [&str; 7] = ["spool", "bus", "outbox", "announcements", "media", "jobs", "mailbox"];

/// All metrics of this file.
pub struct Gauges {
    started_at: Instant,
    pending: Family<Stage, Gauge>,
    bus_lag: Family<Partition, Gauge>,
    parked: Family<Kind, Gauge>,
    account_up: Family<AccountName, Gauge>,
    account_seen: Family<AccountName, Gauge<f64, AtomicU64>>,
    lease_fence: Family<Holder, Gauge>,
    scrape_errors: Family<Part, Counter>,
    resident_memory: Gauge,
    uptime: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Partition {
    partition: i32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AccountName {
    account: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Holder {
    lease: String,
    owner: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Part {
    part: &'static str,
}

impl Gauges {
    /// Registers them, all stages at 1 until the first look: not known is not quiet.
    pub fn new(role: Role, registry: &mut Registry) -> Self {
        let gauges = Self {
            started_at: Instant::now(),
            pending: Family::default(),
            bus_lag: Family::default(),
            parked: Family::default(),
            account_up: Family::default(),
            account_seen: Family::default(),
            lease_fence: Family::default(),
            scrape_errors: Family::default(),
            resident_memory: Gauge::default(),
            uptime: Gauge::default(),
        };
        gauges.register(registry);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("role", role.as_str())]);
        registry.register(BUILD, "Which program this is", build);
        for stage in STAGES {
            let owned = match stage {
                "spool" => role.receives(),
                "bus" => role.routes(),
                "outbox" | "announcements" | "media" | "mailbox" => role.works(),
                _ => false,
            };
            gauges.set_pending(stage, i64::from(owned));
        }
        gauges
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(PENDING, "What is still on its way, by stage", self.pending.clone());
        registry.register(
            BUS_LAG,
            "Events that are not applied yet, by partition",
            self.bus_lag.clone(),
        );
        registry.register(PARKED, "Inputs that wait for a person", self.parked.clone());
        registry.register(ACCOUNT_UP, "1 if the account has no error now", self.account_up.clone());
        registry.register(
            ACCOUNT_SEEN,
            "Time since the last contact with the account's provider",
            self.account_seen.clone(),
        );
        registry.register(
            LEASE_FENCE,
            "The lease's fence, by who holds it",
            self.lease_fence.clone(),
        );
        registry.register(
            SCRAPE_ERRORS,
            "Numbers that could not be had when they were asked for",
            self.scrape_errors.clone(),
        );
        registry.register(RESIDENT_MEMORY, "Memory of this process", self.resident_memory.clone());
        registry.register(UPTIME, "Time since the start of this process", self.uptime.clone());
    }

    /// Looks everything up that this role owns. Takes at most two seconds.
    pub async fn refresh(&self, role: Role, parts: &Parts) {
        self.uptime.set(self.started_at.elapsed().as_secs_f64());
        self.resident_memory.set(resident_bytes());
        tokio::join!(
            self.look("spool", &["spool"], role.receives(), self.spool(parts)),
            self.look("bus", &["bus"], role.routes(), self.bus(parts)),
            self.look("parked", &[], role.routes(), self.parked(parts)),
            self.look("outbox", &["outbox"], role.works(), self.outbox(parts)),
            self.look(
                "announcements",
                &["announcements"],
                role.works(),
                self.announcements(parts)
            ),
            self.look("media", &["media"], role.works(), self.media(parts)),
            self.look("accounts", &["mailbox"], role.works(), self.accounts(parts)),
            self.look("leases", &[], role.works(), self.leases(parts)),
        );
    }

    /// One look-up, if this role owns it: bounded, and counted if it failed.
    async fn look(
        &self,
        part: &'static str,
        stages: &[&'static str],
        owned: bool,
        lookup: impl Future<Output = Option<()>>,
    ) {
        if !owned {
            return;
        }
        if matches!(tokio::time::timeout(PATIENCE, lookup).await, Ok(Some(()))) {
            return;
        }
        self.scrape_errors.get_or_create(&Part { part }).inc();
        for stage in stages {
            let last = self.pending.get_or_create(&Stage { stage }).get();
            self.set_pending(stage, last.max(1));
        }
    }

    async fn spool(&self, parts: &Parts) -> Option<()> {
        let pending = parts.bus.get()?.pending().await;
        self.set_pending("spool", i64::try_from(pending.spooled_events).unwrap_or(i64::MAX));
        Some(())
    }

    async fn bus(&self, parts: &Parts) -> Option<()> {
        let (bus, store) = (parts.bus.get()?, parts.store.get()?);
        // The ends first: what is applied in between makes the lag smaller, never
        // hides an event that was there before.
        let ends = bus.end_offsets(bus::EVENTS).await.ok()?;
        let offsets = store.offsets(bus::EVENTS).await.ok()?;
        let mut lag = 0;
        for (partition, end) in ends {
            let next = offsets.iter().find(|(other, _)| *other == partition);
            let behind = (end - next.map_or(0, |(_, next)| *next)).max(0);
            self.bus_lag.get_or_create(&Partition { partition }).set(behind);
            lag += behind;
        }
        self.set_pending("bus", lag);
        Some(())
    }

    async fn parked(&self, parts: &Parts) -> Option<()> {
        let (parked, quarantined) = parts.store.get()?.parked_pending().await.ok()?;
        self.parked.get_or_create(&Kind { kind: "parked" }).set(parked);
        self.parked
            .get_or_create(&Kind { kind: "quarantined" })
            .set(quarantined);
        Some(())
    }

    async fn outbox(&self, parts: &Parts) -> Option<()> {
        let (waiting, _) = parts.store.get()?.outbox_pending().await.ok()?;
        self.set_pending("outbox", waiting);
        Some(())
    }

    async fn announcements(&self, parts: &Parts) -> Option<()> {
        let waiting = parts.store.get()?.announcements_pending().await.ok()?;
        self.set_pending("announcements", waiting);
        Some(())
    }

    async fn media(&self, parts: &Parts) -> Option<()> {
        let waiting = parts.store.get()?.media_pending().await.ok()?;
        self.set_pending("media", waiting);
        Some(())
    }

    async fn accounts(&self, parts: &Parts) -> Option<()> {
        let accounts = parts.store.get()?.accounts().await.ok()?;
        let mut waiting = 0;
        for account in accounts {
            waiting += account.waiting.max(0);
            let name = AccountName {
                account: account.plan.name,
            };
            self.account_up
                .get_or_create(&name)
                .set(i64::from(account.error.is_none()));
            if let Some(at) = account.last_seen_at {
                self.account_seen.get_or_create(&name).set(age_seconds(at));
            }
        }
        self.set_pending("mailbox", waiting);
        Some(())
    }

    async fn leases(&self, parts: &Parts) -> Option<()> {
        let holders = parts.store.get()?.lease_holders().await.ok()?;
        // Former owners must not stay.
        self.lease_fence.clear();
        for holder in holders {
            let labels = Holder {
                lease: holder.name,
                owner: holder.owner,
            };
            self.lease_fence.get_or_create(&labels).set(holder.fence);
        }
        Some(())
    }

    fn set_pending(&self, stage: &'static str, value: i64) {
        self.pending.get_or_create(&Stage { stage }).set(value);
    }
}

fn age_seconds(at: Moment) -> f64 {
    let ms = Moment::from(SystemTime::now()).since_ms(at).max(0);
    Duration::from_millis(ms.unsigned_abs()).as_secs_f64()
}

/// Linux tells it; elsewhere it is 0.
fn resident_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    kilobytes.and_then(|text| text.trim().parse().ok()).unwrap_or(0_i64) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn scraped(role: Role) -> String {
        let mut registry = crate::telemetry::registry();
        let gauges = Gauges::new(role, &mut registry);
        gauges.refresh(role, &Parts::new(crate::telemetry::registry())).await;
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[tokio::test]
    async fn what_is_not_known_does_not_read_as_quiet() {
        let text = scraped(Role::All).await;
        for stage in ["spool", "bus", "outbox", "announcements", "media", "mailbox"] {
            assert!(
                text.contains(&format!("tributary_pending{{stage=\"{stage}\"}} 1\n")),
                "{text}"
            );
        }
        assert!(text.contains("tributary_pending{stage=\"jobs\"} 0\n"), "{text}");
        assert!(
            text.contains("tributary_scrape_errors_total{part=\"outbox\"} 1\n"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_role_shows_all_stages_and_owns_some() {
        let owned = [
            (Role::Gateway, vec!["spool"]),
            (Role::Router, vec!["bus"]),
            (Role::Worker, vec!["outbox", "announcements", "media", "mailbox"]),
            (Role::Api, vec![]),
        ];
        for (role, owned) in owned {
            let text = scraped(role).await;
            for stage in STAGES {
                let expected = i64::from(owned.contains(&stage));
                let line = format!("tributary_pending{{stage=\"{stage}\"}} {expected}\n");
                assert!(text.contains(&line), "{} {line} {text}", role.as_str());
            }
            assert!(text.contains(&format!("role=\"{}\"", role.as_str())), "{text}");
            assert!(text.ends_with("# EOF\n"), "{text}");
        }
    }
}
