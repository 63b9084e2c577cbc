//! Clocks that jump, by libfaketime.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use sqlx::{Connection as _, Row as _};

use super::Told;
use super::conflicts::connect;
use super::own::{Gateway, start_of, told, twin_of};
use super::processes::{all_of, with};
use crate::faults::Site;
use crate::faults::load::HOOKS;
use crate::faults::oracle::Input;
use crate::harness::customer::message;
use crate::harness::desk::text;
use crate::harness::ops;
use crate::harness::process::Process;
use crate::harness::proxy::Weather;
use crate::harness::random::Random;
use crate::harness::wait::{eventually, until};
use crate::harness::world::LEASE_SECONDS;
use crate::vendors::lock;

/// Twice what a signature may be off.
const JUMP_S: i64 = 600;
/// A lease without a beat would be somebody else's.
const A_WHILE: Duration = Duration::from_secs(2 * LEASE_SECONDS);
/// Until all leases are one worker's.
const HELD_WITHIN: Duration = Duration::from_secs(20);
/// From a post to its ticket, whatever else breaks meanwhile.
const ROUTED_WITHIN: Duration = Duration::from_secs(60);
/// Much less than a jump.
const OFF_BY_S: i64 = 60;

/// Ten minutes forwards, ten minutes back, and right again: signatures are held
/// against the gateway's clock, and what it takes is kept.
pub async fn jumps(site: &Site, random: &mut Random) -> Told {
    let start = start_of(site, "gateway-clock").await?;
    let clock = Clock::new(&start.dir)?;
    let gateway = Gateway::start(site, random, start, &clock.told()).await?;
    let is_busy = gateway.post().await?;
    for jump in [JUMP_S, -JUMP_S] {
        clock.set(jump)?;
        let (now, then) = (gateway.post_at(0).await?, gateway.post_at(jump).await?);
        ensure!(
            [now, then] == [401, 200],
            "its clock jumped by {jump} s: signed now {now}, signed then {then}"
        );
    }
    clock.set(0)?;
    ensure!(gateway.post().await?, "its clock is right again, and it takes nothing");
    gateway.leave().await?;
    Ok((String::new(), is_busy))
}

/// Ten minutes ahead, and right again while Kafka is away: a thread that waits by the
/// time of day waits ten minutes too long, and what is spooled does not wait for it.
pub async fn goes_back_without_kafka(site: &Site, random: &mut Random) -> Told {
    let start = start_of(site, "gateway-back").await?;
    let clock = Clock::new(&start.dir)?;
    let gateway = Gateway::start(site, random, start, &clock.told()).await?;
    clock.set(JUMP_S)?;
    let from = Instant::now();
    site.kafka.set(Weather::Refusing);
    let status = gateway.post_at(JUMP_S).await?;
    ensure!(status == 200, "without Kafka answered {status}");
    until("it tries to reach Kafka", HELD_WITHIN, async || {
        Ok(gateway.spooled().await? > 0.0)
    })
    .await?;
    clock.set(0)?;
    let is_busy = gateway.post().await?;
    lock(&site.away).push((from, Instant::now()));
    site.kafka.set(Weather::Clear);
    until("its spool is forwarded", ROUTED_WITHIN, async || {
        Ok(gateway.spooled().await? == 0.0)
    })
    .await?;
    gateway.leave().await?;
    Ok((String::new(), is_busy))
}

/// The same for a worker that holds all leases: those who wait for them wait on.
pub async fn of_a_worker_jumps(site: &Site, _: &mut Random) -> Told {
    let start = twin_of(site, "worker", "worker-clock").await?;
    let clock = Clock::new(&start.dir)?;
    let mut worker = Process::start(&told(start, &clock.told())).await?;
    stop_all(site, "worker").await?;
    let held = until("it holds the leases", HELD_WITHIN, async || {
        let metrics = ops::metrics(&worker.ops).await?;
        Ok(ops::sum(&metrics, "tributary_pull_lease_held", "faulty") > 0.0)
    });
    let is_held = held.await.is_ok();
    start_all(site, "worker").await?;
    let before = owners(site).await;
    for jump in [JUMP_S, -JUMP_S, 0] {
        clock.set(jump)?;
        tokio::time::sleep(A_WHILE).await;
    }
    let after = owners(site).await;
    // Whoever cannot reach the database for so long loses them for another reason.
    let is_same = matches!((before, after), (Ok(before), Ok(after)) if before == after && !before.is_empty());
    worker.terminate().await?;
    let hurried = hurry(site).await?;
    Ok((
        format!("({hurried} attempts were put off by ten minutes)"),
        is_held && is_same,
    ))
}

/// The same for a router that has all partitions: what comes meanwhile becomes tickets
/// whose clocks began when it came.
pub async fn of_a_router_jumps(site: &Site, random: &mut Random) -> Told {
    let start = twin_of(site, "router", "router-clock").await?;
    let clock = Clock::new(&start.dir)?;
    let mut router = Process::start(&told(start, &clock.told())).await?;
    stop_all(site, "router").await?;
    let mut routed = 0;
    for jump in [JUMP_S, -JUMP_S, 0] {
        clock.set(jump)?;
        let Ok(opened_at) = opened(site, &format!("t{}", random.draw())).await else {
            continue;
        };
        let off_by_s = Timestamp::now().duration_since(opened_at).as_secs();
        ensure!(
            off_by_s.abs() < OFF_BY_S + ROUTED_WITHIN.as_secs() as i64,
            "a router's clock jumped by {jump} s, and a ticket's is off by {off_by_s} s"
        );
        routed += 1;
    }
    start_all(site, "router").await?;
    router.terminate().await?;
    Ok((format!("({routed} looked at)"), routed == 3))
}

/// Posts something new; when its ticket was opened, as the ticket says.
async fn opened(site: &Site, id: &str) -> Result<Timestamp> {
    let body = message("clock@customer.example", id, &format!("{id} is what I say."));
    let input = Input {
        account: HOOKS,
        thread: id.to_owned(),
        index: 0,
        raw: Some(body.to_string().into_bytes()),
        is_taken: false,
        message_id: None,
    };
    site.oracle.begin(id, input);
    let answer = site.world.sender(HOOKS)?.send(id, &body).await?;
    ensure!(answer.status == 200, "answered {}", answer.status);
    let said: Value = serde_json::from_str(&answer.body)?;
    let message_id = text(&said, "message_id")?;
    site.oracle.taken(id, Some(message_id));
    let desk = &site.world.desk;
    let ticket = eventually("its ticket", ROUTED_WITHIN, async || {
        let stored = desk.get(&format!("/v1/messages/{message_id}")).await?;
        let conversation = text(&stored, "conversation_id")?;
        let conversation = desk.get(&format!("/v1/conversations/{conversation}")).await?;
        desk.show(text(&conversation, "ticket_number")?).await.map(Some)
    })
    .await?;
    Ok(text(&ticket, "opened_at")?.parse()?)
}

async fn stop_all(site: &Site, role: &str) -> Result<()> {
    for name in all_of(site, role).await {
        with(site, &name, async |process| process.terminate().await.map(drop)).await?;
    }
    Ok(())
}

async fn start_all(site: &Site, role: &str) -> Result<()> {
    for name in all_of(site, role).await {
        with(site, &name, async |process| process.launch_again()).await?;
    }
    Ok(())
}

/// Who holds which lease, under which fence.
async fn owners(site: &Site) -> Result<Vec<(String, String, i64)>> {
    let mut connection = connect(site).await?;
    let rows = sqlx::query("SELECT name, owner, fence FROM leases WHERE name LIKE 'pull:%' ORDER BY name");
    let rows = rows.fetch_all(&mut connection).await?;
    connection.close().await?;
    let read = |row: &sqlx::any::AnyRow| anyhow::Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    rows.iter().map(read).collect()
}

/// What failed by a clock that was ahead is tried again when that clock said so. Nobody
/// here waits for ten minutes: they are taken off. How many there were.
async fn hurry(site: &Site) -> Result<u64> {
    let soon = Timestamp::now().as_millisecond() + 60_000;
    let mut connection = connect(site).await?;
    let hurried = sqlx::query("UPDATE outbox SET due_at = due_at - 600000 WHERE due_at > $1")
        .bind(soon)
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(hurried.rows_affected())
}

/// What a process takes for the time of day, in seconds from now.
struct Clock {
    file: PathBuf,
    told: [(&'static str, String); 4],
}

impl Clock {
    fn new(dir: &Path) -> Result<Self> {
        let file = dir.join("clock");
        let (library, shown) = (library()?.display().to_string(), file.display().to_string());
        let told = [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", shown),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        let clock = Self { file, told };
        clock.set(0)?;
        Ok(clock)
    }

    /// What a process is started with that lives by it.
    fn told(&self) -> [(&str, &str); 4] {
        self.told.each_ref().map(|(name, value)| (*name, value.as_str()))
    }

    /// What is read is never half written.
    fn set(&self, seconds: i64) -> Result<()> {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}s\n"))?;
        Ok(std::fs::rename(&new, &self.file)?)
    }
}

fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.flatten();
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    found
        .find(|path| path.exists())
        .context("no libfaketime here: run make deps")
}
