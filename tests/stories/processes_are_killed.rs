//! Story 7: each role is killed with SIGKILL at random moments, 40 times in all,
//! while 2,000 webhooks and 200 mails go in: 2,200 messages stored, none twice,
//! every 2xx among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::harness::customer::{Sender, message};
use tests::harness::desk::{Desk, conversation};
use tests::harness::mail::Letter;
use tests::harness::random::Random;
use tests::harness::servers::Mail;
use tests::harness::wait::until;
use tests::harness::world::World;
use tokio::task::JoinSet;

const WEBHOOKS: usize = 2_000;
const MAILS: usize = 200;
const KILLS: usize = 40;
/// Sending systems at once.
const SENDERS: usize = 8;

pub async fn run(world: &World) -> Result<()> {
    let sent = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let public = world
            .public
            .iter()
            .map(|public| Sender::new(public, "crash"))
            .collect::<Result<Vec<_>>>()?;
        senders.spawn(post(number, public, sent.clone()));
    }
    senders.spawn(write(world.mail.clone(), world.theirs("anna"), world.ours("load")));
    kill(world, &sent).await?;
    for outcome in senders.join_all().await {
        outcome?;
    }
    for process in world.processes().await.iter_mut() {
        process.ready().await?;
    }
    let expected = [("crash", WEBHOOKS, "Crash"), ("load", MAILS, "Load")];
    for (queue, count, _) in expected {
        until(
            &format!("{count} tickets in {queue}"),
            Duration::from_secs(60),
            async || Ok(world.desk.tickets(queue).await?.len() >= count),
        )
        .await?;
    }
    world.quiet().await?;
    for (queue, count, what) in expected {
        stored_once(&world.desk, queue, count, what).await?;
    }
    Ok(())
}

/// Posts its share, each until it is answered 2xx, as providers do.
async fn post(number: usize, public: Vec<Sender>, sent: Arc<AtomicUsize>) -> Result<()> {
    for index in (number..WEBHOOKS).step_by(SENDERS) {
        let body = message(
            &format!("crash-{index}@customer.example"),
            &format!("Crash {index}"),
            "Still there?",
        );
        let mut attempt = index;
        loop {
            let sender = &public[attempt % public.len()];
            let answer = sender.send(&format!("story7-{index}"), &body).await;
            match answer {
                Ok(answer) if (200..300).contains(&answer.status) => break,
                Ok(answer) => ensure!(answer.status == 503, "answered {} {}", answer.status, answer.body),
                // Its gateway was killed: the next attempt goes to the other.
                Err(_) => {}
            }
            ensure!(attempt < index + 2_000, "webhook {index} was never taken");
            attempt += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        sent.fetch_add(1, Ordering::Relaxed);
        // Spreads the load over the kills.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn write(mail: Mail, from: String, to: String) -> Result<()> {
    for index in 0..MAILS {
        let letter = Letter::new(
            &from,
            &to,
            &format!("load-{index}@customer.example"),
            &format!("Load {index}"),
            "Still there?",
        );
        mail.send(&letter).await?;
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    Ok(())
}

/// Kills one process after another at moments that no one of them can foresee,
/// though the same in every run, and starts it again a little later.
async fn kill(world: &World, sent: &AtomicUsize) -> Result<()> {
    let mut random = Random::new(0x5eed);
    let mut killed = BTreeMap::new();
    for round in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(100 + random.below(700))).await;
        let mut processes = world.processes().await;
        // Everyone's turn comes; who is next is random within a turn.
        let count = processes.len() as u64;
        let index = (round as u64 + random.below(2) * 3) % count;
        let process = &mut processes[index as usize];
        if process.has_ended()? {
            anyhow::bail!("{} had ended by itself, see {}", process.name, process.log.display());
        }
        process.kill().await?;
        *killed.entry(process.name.clone()).or_insert(0) += 1;
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        process.launch_again()?;
    }
    eprintln!(
        "      killed {killed:?}; {} webhooks were in",
        sent.load(Ordering::Relaxed)
    );
    ensure!(killed.len() >= 7, "not every process had its turn: {killed:?}");
    Ok(())
}

async fn stored_once(desk: &Desk, queue: &str, count: usize, what: &str) -> Result<()> {
    let tickets = desk.tickets(queue).await?;
    let subjects: BTreeSet<&str> = tickets.iter().filter_map(|ticket| ticket["subject"].as_str()).collect();
    let expected: BTreeSet<String> = (0..count).map(|index| format!("{what} {index}")).collect();
    let missing: Vec<&String> = expected
        .iter()
        .filter(|subject| !subjects.contains(subject.as_str()))
        .collect();
    ensure!(missing.is_empty(), "lost in {queue}: {missing:?}");
    ensure!(
        tickets.len() == count,
        "{} tickets in {queue} instead of {count}",
        tickets.len()
    );
    for ticket in tickets.iter().step_by(20) {
        let number = ticket["number"].as_str().context("no number")?;
        let messages = desk.messages(conversation(&desk.show(number).await?)?).await?;
        ensure!(messages.len() == 1, "{} messages in {number}", messages.len());
    }
    // A second message in a ticket would be one more event of it.
    let version = &tickets[0]["version"];
    let all_alike = tickets.iter().all(|ticket| ticket["version"] == *version);
    ensure!(all_alike, "a ticket of {queue} has more than one message");
    Ok(())
}
