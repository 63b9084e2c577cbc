//! The contract proven by faults: a world that goes on talking (`load`) and keeps
//! what it was told (`oracle`), things that break (`kinds`), and a judge who
//! looks from outside at what became of it (`judge`).
//!
//!     make faults SEED=7 MINUTES=40
//!
//! What is said, to whom and when, and what breaks in which order, comes from the
//! seed; the moments within a process do not, so a run with the same seed is the
//! same world, not the same interleaving.

mod judge;
pub mod kinds;
mod load;
mod oracle;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::process::resident_mib;
use crate::harness::proxy::Proxies;
use crate::harness::random::Random;
use crate::harness::wait::until;
use crate::harness::world::World;
use crate::harness::{kafka, ops};
use crate::vendors::lock;
pub use judge::Tally;
use judge::Verdict;
use kinds::Fault;
use load::Load;
use oracle::{Accept, Oracle};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Faults begin within so long; every kind is met once, however long that takes.
    pub length: Duration,
    /// Whether faults may last as long as in life.
    pub is_long: bool,
    /// Whether kinds that take their time are met too; in the heavy world they want
    /// three brokers.
    pub is_thorough: bool,
}

/// What stands around a fault.
pub struct Site {
    pub world: Arc<World>,
    pub kafka: Proxies,
    pub oracle: Arc<Oracle>,
    pub plan: Plan,
    began: Instant,
    /// By kind: how often it was injected, and how often in mid-flight.
    counts: Mutex<BTreeMap<&'static str, (u32, u32)>>,
    /// When Kafka was away.
    away: Mutex<Vec<(Instant, Instant)>>,
}

/// Of a debug build that shares two cores with all that breaks and starts again: it
/// shows who waits for Kafka. Contract C3 itself is held by a story and by `make bench`.
const P99: Duration = Duration::from_secs(2);
const CONNECTED_WITHIN: Duration = Duration::from_secs(30);
/// After the last fault.
const QUIET_WITHIN: Duration = Duration::from_secs(150);
/// Fewer accepts say nothing about a hundredth of them.
const ENOUGH_ACCEPTS: usize = 200;
/// A kind that has not hit anything in mid-flight is tried so often.
const ROUNDS: u32 = 4;

/// What is known to be missing, a line each.
const KNOWN_GAPS: &str = include_str!("gaps.txt");

/// Breaks things in a world for a while, and judges what is left.
pub async fn run(world: &Arc<World>, plan: Plan) -> Result<Tally> {
    println!(
        "      faults in the {} world: seed {}, {} s",
        world.name,
        plan.seed,
        plan.length.as_secs()
    );
    let proxies = match world.name {
        "light" => Proxies::start([]).await?,
        _ => before_kafka(world).await?,
    };
    // Only from then on what is written to it is ours.
    until("the mailbox is connected", CONNECTED_WITHIN, async || {
        let accounts = world.desk.list("/v1/accounts").await?;
        let mut mailboxes = accounts.iter().filter(|account| account["name"] == load::MAIL);
        Ok(mailboxes.any(|account| !account["last_seen_at"].is_null()))
    })
    .await?;
    let oracle = Arc::new(Oracle::default());
    let mut load = Load::start(world, &oracle, plan.seed).await?;
    let site = Site {
        world: world.clone(),
        kafka: proxies,
        oracle: oracle.clone(),
        plan,
        began: Instant::now(),
        counts: Mutex::default(),
        away: Mutex::default(),
    };
    site.break_things().await?;
    load.finish().await?;
    site.heal().await?;
    let quiet = site.quiet().await;
    let verdict = judge::judge(world, &oracle, &load).await?;
    let enough = site.report(&verdict);
    quiet?;
    enough?;
    verdict.ensure_clean()?;
    Ok(verdict.tally)
}

async fn before_kafka(world: &World) -> Result<Proxies> {
    let kafka = world.servers.kafka().await?;
    let ports = kafka
        .brokers
        .iter()
        .map(|broker| (broker.proxy_port, broker.behind_port));
    let proxies = Proxies::start(ports).await?;
    world.retell("TRIBUTARY_BUS__URL", &kafka.proxied_url()).await?;
    Ok(proxies)
}

impl Site {
    /// Two lanes at once, so that faults of processes and of servers meet.
    async fn break_things(&self) -> Result<()> {
        let lanes = kinds::lanes(self.world.name, self.plan.is_thorough);
        let lanes = lanes.iter().enumerate().map(|(number, lane)| self.lane(number, lane));
        futures_util::future::try_join_all(lanes).await?;
        Ok(())
    }

    /// Every kind once in each round, in an order of the round's own, until the time
    /// is over; and kinds that never hit anything in mid-flight again.
    async fn lane(&self, number: usize, faults: &[&Fault]) -> Result<()> {
        let mut random = Random::new(self.plan.seed).fork(&format!("lane {number}"));
        let mut round = 0;
        while round == 0 || self.began.elapsed() < self.plan.length {
            let mut order = faults.to_vec();
            random.shuffle(&mut order);
            for fault in order {
                if round > 0 && self.began.elapsed() >= self.plan.length {
                    break;
                }
                self.inject(fault, &mut random).await?;
            }
            round += 1;
        }
        for _ in 0..ROUNDS {
            for fault in faults {
                if self.hits(fault.name) == 0 {
                    self.inject(fault, &mut random).await?;
                }
            }
        }
        Ok(())
    }

    async fn inject(&self, fault: &Fault, random: &mut Random) -> Result<()> {
        let at = self.began.elapsed();
        let told = (fault.run)(self, random).await;
        let (what, hit) = told.with_context(|| format!("injecting {}", fault.name))?;
        let took = self.began.elapsed() - at;
        println!(
            "      {:>7.1} s  {} {what}, {:.1} s{}",
            at.as_secs_f32(),
            fault.name,
            took.as_secs_f32(),
            if hit { ", in mid-flight" } else { "" }
        );
        let mut counts = lock(&self.counts);
        let count = counts.entry(fault.name).or_default();
        count.0 += 1;
        count.1 += u32::from(hit);
        Ok(())
    }

    fn hits(&self, name: &str) -> u32 {
        lock(&self.counts).get(name).map_or(0, |count| count.1)
    }

    /// Whether something waits in one of these stages, by what the roles say.
    async fn is_pending(&self, stages: &[&str]) -> bool {
        let all: Vec<String> = self
            .world
            .processes()
            .await
            .iter()
            .map(|process| process.ops.clone())
            .collect();
        for ops in all {
            let Ok(metrics) = ops::metrics(&ops).await else {
                continue;
            };
            let is_pending = |stage: &&str| ops::sum(&metrics, "tributary_pending", stage) > 0.0;
            if stages.iter().any(is_pending) {
                return true;
            }
        }
        false
    }

    /// What the largest gateway takes.
    pub async fn gateways_mib(&self) -> f64 {
        let mut most = 0.0_f64;
        for process in self.world.processes().await.iter() {
            if process.name.starts_with("gateway") || process.name == "all" {
                // It may just be dead.
                most = most.max(process.pid().and_then(resident_mib).unwrap_or(0.0));
            }
        }
        most
    }

    /// Everybody is there again.
    async fn heal(&self) -> Result<()> {
        for process in self.world.processes().await.iter_mut() {
            if process.has_ended()? {
                anyhow::bail!("{} has ended by itself, see {}", process.name, process.log.display());
            }
            process.ready().await?;
        }
        Ok(())
    }

    async fn quiet(&self) -> Result<()> {
        let began = Instant::now();
        until("Postfix has delivered all", QUIET_WITHIN, async || {
            self.world.mail.has_delivered_all().await
        })
        .await?;
        // A reader says what waits for it only once it has looked.
        let mails = self
            .oracle
            .inputs()
            .into_values()
            .filter(|input| input.is_taken && input.account == load::MAIL);
        let mails = mails.count();
        let read = until("all mails are read", QUIET_WITHIN, async || {
            Ok(self.world.desk.tickets(load::MAIL).await?.len() >= mails)
        });
        // The judge will say which.
        let _: Result<()> = read.await;
        let all: Vec<String> = self
            .world
            .processes()
            .await
            .iter()
            .map(|process| process.ops.clone())
            .collect();
        ops::quiet(&all, QUIET_WITHIN).await?;
        println!(
            "      quiet {:.1} s after the last input",
            began.elapsed().as_secs_f32()
        );
        Ok(())
    }

    /// Says what happened, and whether that was enough.
    fn report(&self, verdict: &Verdict) -> Result<()> {
        let mut missed = Vec::new();
        for (name, (injected, hits)) in lock(&self.counts).iter() {
            println!("      {name}: {injected} times, {hits} of them in mid-flight");
            if *hits == 0 {
                missed.push(*name);
            }
        }
        let repeats = self.oracle.repeats.load(Ordering::Relaxed);
        println!(
            "      {repeats} repeats; {} further copies of answers under the same id",
            verdict.copies
        );
        let is_slow = self.speed();
        verdict.tell();
        for gap in KNOWN_GAPS.lines().filter(|line| !line.starts_with('#')) {
            println!("      known gap: {gap}");
        }
        println!("{}", verdict.tally);
        ensure!(missed.is_empty(), "never in mid-flight: {missed:?}");
        ensure!(repeats > 0, "nothing was sent twice");
        ensure!(!is_slow, "accepting was slow while Kafka was away");
        Ok(())
    }

    /// How long accepting took; whether that was too long while Kafka was away.
    fn speed(&self) -> bool {
        let accepts = self.oracle.accepts();
        let away = lock(&self.away).clone();
        let is_away = |accept: &&Accept| {
            let mut windows = away.iter();
            windows.any(|(from, to)| (*from..=*to).contains(&accept.at))
        };
        percentiles("all the time", accepts.iter());
        let while_away = percentiles("while kafka was away", accepts.iter().filter(is_away));
        while_away.is_some_and(|(count, p99)| count >= ENOUGH_ACCEPTS && p99 > P99)
    }
}

fn percentiles<'a>(when: &str, accepts: impl Iterator<Item = &'a Accept>) -> Option<(usize, Duration)> {
    let mut times: Vec<Duration> = accepts.map(|accept| accept.took).collect();
    times.sort();
    let (p50, p99) = (times.get(times.len() / 2)?, times.get(times.len() * 99 / 100)?);
    println!("      accepted {when}: {}, p50 {p50:.1?}, p99 {p99:.1?}", times.len());
    Some((times.len(), *p99))
}
