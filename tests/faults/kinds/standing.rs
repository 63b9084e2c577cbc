//! A worker that stands still with something in its hands, until another has it; and
//! then goes on, and is refused.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Told;
use super::mailbox::{BODY, READ_WITHIN};
use super::processes::with;
use crate::faults::Site;
use crate::faults::load::MAIL;
use crate::harness::ops;
use crate::harness::process::Process;
use crate::harness::random::Random;
use crate::harness::wait::until;
use crate::harness::world::LEASE_SECONDS;

/// Until somebody comes to the point, and until another has taken over.
const REACHED_WITHIN: Duration = Duration::from_secs(15);
const TAKEN_WITHIN: Duration = Duration::from_secs(4 * LEASE_SECONDS);
/// From going on to noticing.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);
/// What a worker says whose lease is another's now.
const FENCED: [&str; 2] = ["lease lost", "outcome not written: another has it"];

/// Half a mail is in its hands.
pub async fn in_mid_fetch(site: &Site, random: &mut Random) -> Told {
    let Some(caught) = site.world.imap.catch(BODY, READ_WITHIN).await else {
        return Ok((String::new(), false));
    };
    let Some(name) = holder(site).await? else {
        return Ok(("nobody holds the mailbox".to_owned(), false));
    };
    with(site, &name, async |process| process.signal("STOP").await).await?;
    caught.go_on();
    // The other reads the same mail, too.
    let taking = until("another holds the mailbox", TAKEN_WITHIN, async || {
        Ok(holder(site).await?.is_some_and(|other| other != name))
    });
    let _ = taking.await;
    stand(site, random).await;
    go_on(site, &name).await
}

/// A message is sent, and nobody knows.
pub async fn in_mid_delivery(site: &Site, random: &mut Random) -> Told {
    let (name, other) = ("worker-1", "worker-2");
    let told = format!("sent:{}", random.between(1, 6));
    for worker in [name, other] {
        with(site, worker, async |process| process.kill().await).await?;
    }
    with(site, name, async |process| process.launch_again_told("STOP_AT", &told)).await?;
    let reached = until("somebody comes to the point", REACHED_WITHIN, async || {
        let mut is_standing = false;
        with(site, name, async |process| {
            is_standing = is_standing_still(process)?;
            Ok(())
        })
        .await?;
        Ok(is_standing)
    });
    let is_standing = reached.await.is_ok();
    with(site, other, async |process| process.launch_again()).await?;
    if !is_standing {
        with(site, name, async |process| {
            process.kill().await?;
            process.launch_again()
        })
        .await?;
        return Ok((String::new(), false));
    }
    tokio::time::sleep(TAKEN_WITHIN).await;
    stand(site, random).await;
    go_on(site, name).await
}

/// In a long run up to a minute more.
async fn stand(site: &Site, random: &mut Random) {
    if site.plan.is_long {
        tokio::time::sleep(Duration::from_millis(random.between(0, 50_000))).await;
    }
}

/// It goes on; whether it was told that it is no longer its turn.
async fn go_on(site: &Site, name: &str) -> Told {
    let mut log = None;
    with(site, name, async |process| {
        log = Some((process.log.clone(), std::fs::metadata(&process.log)?.len()));
        process.signal("CONT").await
    })
    .await?;
    let (log, before) = log.context("no log")?;
    let noticing = until("it notices", NOTICED_WITHIN, async || {
        let text = std::fs::read(&log)?;
        let since = String::from_utf8_lossy(text.get(before as usize..).unwrap_or_default()).into_owned();
        Ok(FENCED.iter().any(|words| since.contains(words)))
    });
    let is_fenced = noticing.await.is_ok();
    Ok((format!("({name})"), is_fenced))
}

/// Who says that it reads the mailbox; one that stands still says nothing.
async fn holder(site: &Site) -> Result<Option<String>> {
    let workers: Vec<(String, String)> = {
        let processes = site.world.processes().await;
        let workers = processes.iter().filter(|process| process.name.starts_with("worker"));
        workers
            .map(|process| (process.name.clone(), process.ops.clone()))
            .collect()
    };
    let label = format!("account=\"{MAIL}\"");
    for (name, ops) in workers {
        let asking = tokio::time::timeout(Duration::from_secs(1), ops::metrics(&ops));
        if let Ok(Ok(metrics)) = asking.await
            && ops::sum(&metrics, "tributary_pull_lease_held", &label) > 0.0
        {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether it was stopped by a signal: the third word of `/proc/PID/stat`.
fn is_standing_still(process: &Process) -> Result<bool> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid()?))?;
    Ok(stat.rsplit(')').next().is_some_and(|rest| rest.trim().starts_with('T')))
}
