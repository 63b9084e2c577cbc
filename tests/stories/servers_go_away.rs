//! Story 6: Kafka is stopped for 10 s under load: every POST is still answered
//! 2xx in time, and all tickets exist within 15 s after it is back. PostgreSQL is
//! restarted: the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::harness::customer::{Answer, Sender, message};
use tests::harness::wait::until;
use tests::harness::world::World;
use tokio::task::JoinSet;

const AWAY: Duration = Duration::from_secs(10);
const BACK_WITHIN: Duration = Duration::from_secs(15);
/// Contract C3.
const P50: Duration = Duration::from_millis(50);
const P99: Duration = Duration::from_millis(250);
/// Between two POSTs: a hundred a second.
const PACE: Duration = Duration::from_millis(10);

pub async fn run(world: &World) -> Result<()> {
    let kafka = world.servers.kafka().await?;
    let load = Load::start(world, "kafka")?;
    load.some(100).await?;
    kafka.stop().await?;
    tokio::time::sleep(AWAY).await;
    kafka.start().await?;
    let back = Instant::now();
    all_is_there(world, load, back, "Kafka").await?;

    let postgres = world.servers.postgres().await?;
    let load = Load::start(world, "postgres")?;
    load.some(100).await?;
    postgres.stop().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    postgres.start().await?;
    let back = Instant::now();
    all_is_there(world, load, back, "PostgreSQL").await
}

async fn all_is_there(world: &World, load: Load, back: Instant, what: &str) -> Result<()> {
    // Senders go on for a second after it is back.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let name = load.name;
    let answers = load.stop().await?;
    let sent = answers.len();
    let mut times: Vec<Duration> = Vec::new();
    for answer in answers {
        ensure!(
            (200..300).contains(&answer.status),
            "{what} away: answered {} {}",
            answer.status,
            answer.body
        );
        times.push(answer.took);
    }
    times.sort();
    let (p50, p99) = (times[sent / 2], times[sent * 99 / 100]);
    eprintln!("      {what} away: {sent} answered, p50 {p50:.1?}, p99 {p99:.1?}");
    ensure!(p50 <= P50 && p99 <= P99, "{what} away: p50 {p50:?}, p99 {p99:?}");
    let count = async || {
        let tickets = world.desk.tickets("storm").await?;
        let ours = tickets.iter().filter(|ticket| {
            ticket["subject"]
                .as_str()
                .is_some_and(|subject| subject.starts_with(name))
        });
        anyhow::Ok(ours.count())
    };
    let left = BACK_WITHIN.saturating_sub(back.elapsed());
    until(&format!("{sent} tickets after {what} was away"), left, async || {
        Ok(count().await? >= sent)
    })
    .await?;
    eprintln!(
        "      {what} back: all there after {:.1} s",
        back.elapsed().as_secs_f32()
    );
    world.quiet().await?;
    ensure!(count().await? == sent, "{} tickets of {sent}", count().await?);
    Ok(())
}

/// Systems that post at a steady pace, whatever happens.
struct Load {
    name: &'static str,
    stop: Arc<AtomicBool>,
    running: tokio::task::JoinHandle<Result<Vec<Answer>>>,
    counter: Arc<std::sync::atomic::AtomicUsize>,
}

impl Load {
    fn start(world: &World, name: &'static str) -> Result<Self> {
        let senders: Vec<Sender> = world
            .public
            .iter()
            .map(|public| Sender::new(public, "storm"))
            .collect::<Result<_>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let counter = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let running = tokio::spawn(post_until(name, senders, stop.clone(), counter.clone()));
        Ok(Self {
            name,
            stop,
            running,
            counter,
        })
    }

    /// Waits until so many were sent.
    async fn some(&self, count: usize) -> Result<()> {
        until("the load runs", Duration::from_secs(20), async || {
            Ok(self.counter.load(Ordering::Relaxed) >= count)
        })
        .await
    }

    async fn stop(self) -> Result<Vec<Answer>> {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await?
    }
}

async fn post_until(
    name: &'static str,
    senders: Vec<Sender>,
    stop: Arc<AtomicBool>,
    counter: Arc<std::sync::atomic::AtomicUsize>,
) -> Result<Vec<Answer>> {
    let mut posts = JoinSet::new();
    let mut pace = tokio::time::interval(PACE);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let index = counter.fetch_add(1, Ordering::Relaxed);
        let sender = senders[index % senders.len()].clone();
        posts.spawn(async move {
            let body = message(
                &format!("{name}-{index}@customer.example"),
                &format!("{name} {index}"),
                "Still there?",
            );
            sender.send(&format!("story6-{name}-{index}"), &body).await
        });
    }
    let answers = posts.join_all().await;
    answers
        .into_iter()
        .collect::<Result<Vec<_>>>()
        .context("a POST had no answer")
}
