//! Story 9: a hot mailbox with two workers: one reads; killed, the other goes on
//! within two lease periods; no mail is read into two messages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::mail::Letter;
use tests::harness::ops;
use tests::harness::wait::{eventually, until};
use tests::harness::world::{LEASE_SECONDS, World};

const MAILS: usize = 60;

pub async fn run(world: &World) -> Result<()> {
    let holder = eventually("somebody reads the mailbox", SOON, async || holder(world).await).await?;
    send(world, 0..MAILS / 3).await?;
    until("the first mails are read", SOON, async || {
        Ok(world.desk.tickets("hot").await?.len() >= MAILS / 3)
    })
    .await?;
    ensure!(
        self::holder(world).await? == Some(holder.clone()),
        "it changed hands without need"
    );

    // Killed in the middle of reading.
    send(world, MAILS / 3..2 * MAILS / 3).await?;
    let index = kill(world, &holder).await?;
    let killed = Instant::now();
    send(world, 2 * MAILS / 3..MAILS).await?;
    let two_periods = Duration::from_secs(2 * LEASE_SECONDS);
    eventually("the other goes on", two_periods, async || {
        Ok(self::holder(world).await?.filter(|other| *other != holder))
    })
    .await?;
    eprintln!(
        "      the mailbox changed hands after {:.1} s",
        killed.elapsed().as_secs_f32()
    );
    until("all mails are read", SOON, async || {
        Ok(world.desk.tickets("hot").await?.len() >= MAILS)
    })
    .await?;

    let mut processes = world.processes().await;
    processes[index].launch_again()?;
    processes[index].ready().await?;
    drop(processes);
    world.quiet().await?;
    let mut subjects = BTreeMap::new();
    for ticket in world.desk.tickets("hot").await? {
        *subjects.entry(ticket["subject"].to_string()).or_insert(0) += 1;
        let ticket = world.desk.show(text(&ticket, "number")?).await?;
        let messages = world.desk.messages(conversation(&ticket)?).await?;
        ensure!(
            messages.len() == 1,
            "{} messages in {}",
            messages.len(),
            ticket["number"]
        );
    }
    ensure!(subjects.len() == MAILS, "{} of {MAILS} mails", subjects.len());
    ensure!(subjects.values().all(|count| *count == 1), "read twice: {subjects:?}");
    Ok(())
}

async fn send(world: &World, range: std::ops::Range<usize>) -> Result<()> {
    for index in range {
        let subject = format!("Hot {index}");
        let letter = Letter::new(
            &world.theirs("anna"),
            &world.ours("hot"),
            &format!("hot-{index}@customer.example"),
            &subject,
            "Quick!",
        );
        world.mail.send(&letter).await?;
    }
    Ok(())
}

/// Who reads the mailbox, as the API says.
async fn holder(world: &World) -> Result<Option<String>> {
    let accounts = world.desk.list("/v1/accounts").await?;
    let hot = accounts
        .iter()
        .find(|account| account["name"] == "hot")
        .context("no account hot")?;
    Ok(hot["held_by"].as_str().map(str::to_owned))
}

/// Kills the worker of that name, and gives its place among the processes.
async fn kill(world: &World, holder: &str) -> Result<usize> {
    let mut processes = world.processes().await;
    for (index, process) in processes.iter_mut().enumerate() {
        let pid = process.pid()?.to_string();
        if process.name.starts_with("worker") && holder.split('-').any(|part| part == pid) {
            ensure!(!ops::metrics(&process.ops).await?.is_empty(), "it has no metrics");
            process.kill().await?;
            return Ok(index);
        }
    }
    anyhow::bail!("no process is {holder}")
}
