//! Processes that die, stand still, come and go.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Told;
use crate::faults::Site;
use crate::harness::process::Process;
use crate::harness::random::Random;
use crate::harness::wait::until;

/// Until a named point is reached.
const REACHED_WITHIN: Duration = Duration::from_secs(15);
/// How often we look for the moment in which something waits.
const LOOKS: u32 = 20;

/// SIGKILL of one process of this role, while something waits in one of the stages.
pub async fn kill(site: &Site, random: &mut Random, role: &str, stages: &[&str]) -> Told {
    let name = one_of(site, random, role).await?;
    let is_busy = wait_until_busy(site, stages).await;
    with(site, &name, async |process| process.kill().await).await?;
    tokio::time::sleep(Duration::from_millis(random.between(0, 400))).await;
    with(site, &name, async |process| process.launch_again()).await?;
    tokio::time::sleep(Duration::from_millis(random.between(100, 500))).await;
    Ok((format!("({name})"), is_busy))
}

/// All processes of the role are told to die at a point of the way, the first that
/// comes there does; the others are killed too, and all begin anew.
pub async fn abort(site: &Site, random: &mut Random, role: &str, point: &str) -> Told {
    let names = all_of(site, role).await;
    for name in &names {
        let told = format!("{point}:{}", random.between(1, 6));
        with(site, name, async |process| {
            process.kill().await?;
            process.launch_again_told("ABORT_AT", &told)
        })
        .await?;
    }
    let reached = until("somebody comes to the point", REACHED_WITHIN, async || {
        for process in site.world.processes().await.iter_mut() {
            if names.contains(&process.name) && process.has_ended()? {
                return Ok(true);
            }
        }
        Ok(false)
    });
    let is_hit = reached.await.is_ok();
    for name in &names {
        with(site, name, async |process| {
            if !process.has_ended()? {
                process.kill().await?;
            }
            process.launch_again()
        })
        .await?;
    }
    Ok((String::new(), is_hit))
}

/// A process stands still until others have its leases and partitions, and then
/// goes on as though nothing had happened.
pub async fn pause(site: &Site, random: &mut Random, role: &str, stages: &[&str]) -> Told {
    let name = one_of(site, random, role).await?;
    let ms = match site.plan.is_long {
        true => random.between(8_000, 60_000),
        false => random.between(6_500, 8_000),
    };
    let is_busy = wait_until_busy(site, stages).await;
    with(site, &name, async |process| process.signal("STOP").await).await?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    with(site, &name, async |process| process.signal("CONT").await).await?;
    Ok((format!("({name})"), is_busy))
}

/// A third router joins, and leaves in order.
pub async fn add_router(site: &Site, random: &mut Random) -> Told {
    let twin = {
        let processes = site.world.processes().await;
        let router = processes.iter().find(|process| process.name.starts_with("router"));
        router.context("no router")?.twin("router-3")?
    };
    let mut router = Process::start(&twin).await?;
    let is_busy = wait_until_busy(site, &["bus"]).await;
    tokio::time::sleep(Duration::from_millis(random.between(1_500, 4_000))).await;
    router.terminate().await?;
    Ok((String::new(), is_busy))
}

/// Looks for a moment in which something waits there, or, without stages, somebody
/// waits for an answer; gives up after a while.
async fn wait_until_busy(site: &Site, stages: &[&str]) -> bool {
    for _ in 0..LOOKS {
        let is_busy = match stages {
            [] => site.oracle.is_busy(),
            _ => site.is_pending(stages).await,
        };
        if is_busy {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// The names of all processes of this role.
pub async fn all_of(site: &Site, role: &str) -> Vec<String> {
    let processes = site.world.processes().await;
    let names = processes.iter().map(|process| process.name.clone());
    names.filter(|name| name.starts_with(role)).collect()
}

async fn one_of(site: &Site, random: &mut Random, role: &str) -> Result<String> {
    let names = all_of(site, role).await;
    let name = names.get(random.index(names.len()));
    name.cloned().with_context(|| format!("no {role}"))
}

/// Does something to the process of this name.
pub async fn with(site: &Site, name: &str, act: impl AsyncFnOnce(&mut Process) -> Result<()>) -> Result<()> {
    let mut processes = site.world.processes().await;
    let process = processes.iter_mut().find(|process| process.name == name);
    act(process.with_context(|| format!("no {name}"))?).await
}
