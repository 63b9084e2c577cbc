//! A gateway is killed, and one is stopped in order, under 2,000 sockets: all come
//! back spread over time, no acknowledged message is lost, and none is doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::chat::{Heard, Socket};
use tests::harness::desk::{SOON, conversation};
use tests::harness::wait::{eventually, until};
use tests::harness::world::World;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const SOCKETS: usize = 2_000;
/// Sends of each visitor: before, between and after the two ends.
const MESSAGES: usize = 3;
/// Of all come back within so long after a stop in order.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// What the visitors went through.
#[derive(Default)]
struct Seen {
    connected: AtomicUsize,
    drained: AtomicUsize,
    returns: std::sync::Mutex<Vec<Instant>>,
}

pub async fn run(world: &World) -> Result<()> {
    let seen = Arc::new(Seen::default());
    let steps = Arc::new(Barrier::new(SOCKETS + 1));
    let mut visitors = JoinSet::new();
    for number in 0..SOCKETS {
        let public = world.public.clone();
        visitors.spawn(visit(number, public, seen.clone(), steps.clone()));
    }
    // All are there and have said their first.
    steps.wait().await;
    let gateways: Vec<usize> = {
        let processes = world.processes().await;
        let of_role = processes.iter().enumerate();
        of_role
            .filter(|(_, process)| process.name.starts_with("gateway"))
            .map(|(index, _)| index)
            .collect()
    };
    let [killed, drained] = gateways[..] else {
        anyhow::bail!("two gateways expected, got {gateways:?}");
    };
    {
        let mut processes = world.processes().await;
        processes[killed].kill().await?;
        processes[killed].launch_again()?;
        processes[killed].ready().await?;
    }
    steps.wait().await;
    seen.returns
        .lock()
        .map(|mut returns| returns.clear())
        .ok()
        .context("poisoned")?;
    let stopped_at = Instant::now();
    {
        let mut processes = world.processes().await;
        processes[drained].terminate().await?;
        processes[drained].launch_again()?;
        processes[drained].ready().await?;
    }
    steps.wait().await;
    let mut acknowledged = BTreeMap::new();
    while let Some(visitor) = visitors.join_next().await {
        let (session, ids) = visitor??;
        acknowledged.insert(session, ids);
    }
    spread(&seen, stopped_at)?;
    all_are_stored_once(world, &acknowledged).await
}

/// One visitor: says a message at each step, on whichever gateway is there.
async fn visit(
    number: usize,
    public: Vec<String>,
    seen: Arc<Seen>,
    steps: Arc<Barrier>,
) -> Result<(String, BTreeSet<String>)> {
    let mut gateway = number;
    let mut socket = come(number, &public, &mut gateway, None).await?;
    seen.connected.fetch_add(1, Ordering::Relaxed);
    let mut ids = BTreeSet::new();
    for message in 0..MESSAGES {
        let text = format!("Crowd {number}");
        let id = loop {
            let said = socket.send(&format!("crowd-{message}"), &text).await;
            match said {
                Ok(id) => break id,
                Err(_) => socket = come(number, &public, &mut gateway, Some(socket.session.clone())).await?,
            }
        };
        ids.insert(id);
        steps.wait().await;
        if message + 1 < MESSAGES {
            // A gateway goes: its sockets see it, and come back as they were told.
            socket = stay(number, socket, &public, &mut gateway, &seen, message).await?;
        }
    }
    Ok((socket.vanish(), ids))
}

/// Until the socket ends, if it hangs on the gateway that goes; then back again.
async fn stay(
    number: usize,
    mut socket: Socket,
    public: &[String],
    gateway: &mut usize,
    seen: &Seen,
    step: usize,
) -> Result<Socket> {
    // The first of the gateways is killed, the last is stopped.
    let goes = if step == 0 { 0 } else { public.len() - 1 };
    if *gateway % public.len() != goes {
        return Ok(socket);
    }
    let closed = loop {
        if let Ok(Heard::Closed(closed)) = socket.next().await {
            break closed;
        }
    };
    let wait = match closed.code {
        1012 => {
            seen.drained.fetch_add(1, Ordering::Relaxed);
            let reason: Value = serde_json::from_str(&closed.reason)?;
            reason["retry_after_ms"].as_u64().context("no retry_after_ms")?
        }
        // Without a word: at random, as the protocol says.
        _ => (number as u64 * 7_919) % 3_000,
    };
    tokio::time::sleep(Duration::from_millis(wait)).await;
    let session = socket.vanish();
    let socket = come(number, public, gateway, Some(session)).await?;
    seen.returns
        .lock()
        .map(|mut returns| returns.push(Instant::now()))
        .ok()
        .context("poisoned")?;
    Ok(socket)
}

/// Comes in by the next gateway that lets it.
async fn come(number: usize, public: &[String], gateway: &mut usize, session: Option<String>) -> Result<Socket> {
    for attempt in 0..200_u64 {
        let url = &public[*gateway % public.len()];
        if let Ok(mut socket) = Socket::visit(url, "crowd", session.as_deref()).await
            && socket.say(&json!({ "type": "resume" })).await.is_ok()
        {
            return Ok(socket);
        }
        *gateway += 1;
        tokio::time::sleep(Duration::from_millis(100 + (number as u64 * 31 + attempt * 17) % 400)).await;
    }
    anyhow::bail!("visitor {number} found no gateway")
}

fn spread(seen: &Seen, stopped_at: Instant) -> Result<()> {
    let drained = seen.drained.load(Ordering::Relaxed);
    ensure!(drained >= SOCKETS / 4, "only {drained} sockets were told to come back");
    let returns = seen.returns.lock().ok().context("poisoned")?.clone();
    ensure!(returns.len() >= drained, "{} of {drained} came back", returns.len());
    let mut seconds = BTreeMap::new();
    for at in &returns {
        let after = at.duration_since(stopped_at);
        ensure!(after < BACK_WITHIN, "one came back after {after:?}");
        *seconds.entry(after.as_secs()).or_insert(0_usize) += 1;
    }
    let most = seconds.values().max().copied().unwrap_or(0);
    ensure!(most * 3 < returns.len(), "they came all at once: {seconds:?}");
    eprintln!("      {drained} were told to come back, each second came {seconds:?}");
    Ok(())
}

async fn all_are_stored_once(world: &World, acknowledged: &BTreeMap<String, BTreeSet<String>>) -> Result<()> {
    ensure!(acknowledged.len() == SOCKETS, "{} visitors", acknowledged.len());
    until("a ticket of each visitor", SOON * 3, async || {
        Ok(world
            .desk
            .tickets("crowd")
            .await?
            .iter()
            .filter(|ticket| is_of_crowd(ticket))
            .count()
            >= SOCKETS)
    })
    .await?;
    world.quiet().await?;
    let tickets = world.desk.tickets("crowd").await?;
    let ours = tickets.iter().filter(|ticket| is_of_crowd(ticket)).count();
    ensure!(ours == SOCKETS, "{ours} tickets of {SOCKETS} visitors");
    let all: BTreeSet<&String> = acknowledged.values().flatten().collect();
    ensure!(
        all.len() == SOCKETS * MESSAGES,
        "{} messages were acknowledged",
        all.len()
    );
    // Of a twentieth every message, by id and number.
    for ticket in tickets.iter().filter(|ticket| is_of_crowd(ticket)).step_by(20) {
        let number = ticket["number"].as_str().context("no number")?;
        let shown = world.desk.show(number).await?;
        let messages = eventually("the messages", SOON, async || {
            Ok(Some(world.desk.messages(conversation(&shown)?).await?))
        })
        .await?;
        ensure!(messages.len() == MESSAGES, "{} messages in {number}", messages.len());
        for message in &messages {
            let id = message["id"].as_str().context("no id")?;
            ensure!(all.contains(&id.to_owned()), "{id} was never acknowledged");
        }
    }
    // A message more or less would be a change more or less of its ticket.
    let version = tickets
        .iter()
        .find(|ticket| is_of_crowd(ticket))
        .map(|ticket| ticket["version"].clone());
    let odd = tickets
        .iter()
        .filter(|ticket| is_of_crowd(ticket) && Some(&ticket["version"]) != version.as_ref());
    ensure!(odd.count() == 0, "some tickets have more or fewer messages than others");
    Ok(())
}

fn is_of_crowd(ticket: &Value) -> bool {
    ticket["subject"]
        .as_str()
        .is_some_and(|subject| subject.starts_with("Crowd "))
}
