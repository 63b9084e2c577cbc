//! Power cuts: a process dies, and of its files only what was synced is left.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Told;
use super::own::{Gateway, Poster, start_of};
use crate::faults::Site;
use crate::harness::power::{Recording, Told as Answers};
use crate::harness::process::Process;
use crate::harness::proxy::Weather;
use crate::harness::random::Random;

/// More than travels with an event: it becomes a blob.
const LARGE: usize = 300_000;

/// Under a gateway that spools.
pub async fn under_a_spool(site: &Site, random: &mut Random) -> Told {
    let start = start_of(site, "gateway-power").await?;
    let data = start.dir.join("data");
    let path = data.display().to_string();
    let mut gateway = Gateway::start(site, random, start, &[("TRIBUTARY_DATA__PATH", path.as_str())]).await?;
    site.kafka.set(Weather::Refusing);
    let answers = cut(&mut gateway.process, &gateway.poster, &data, random).await;
    site.kafka.set(Weather::Clear);
    gateway.process.ready().await?;
    gateway.leave().await?;
    told(&answers?)
}

/// Under the one process of the light world: local log, database and blobs.
pub async fn under_all(site: &Site, random: &mut Random) -> Told {
    let data = site.world.dir().join("data");
    let poster = Poster::new(site, random, site.world.public.first().context("no gateway")?)?;
    let mut processes = site.world.processes().await;
    let process = processes.first_mut().context("no process")?;
    process.ready().await?;
    ensure!(poster.post(LARGE).await?.is_some(), "a large message is refused");
    let answers = cut(process, &poster, &data, random).await?;
    told(&answers)
}

/// Posts for a while, and cuts the power; the process begins anew with what is left.
async fn cut(
    process: &mut Process,
    poster: &Poster<'_>,
    data: &std::path::Path,
    random: &mut Random,
) -> Result<Answers> {
    let recording = Recording::begin(process.pid()?, data, &data.with_extension("trace")).await?;
    let lasts = Duration::from_millis(random.between(500, 1_500));
    let large = async {
        // Whether or not it is heard of.
        let _: Result<_> = poster.post(LARGE).await;
        poster.post_until_gone().await;
    };
    let kill = async {
        tokio::time::sleep(lasts).await;
        process.kill().await
    };
    let ((), killed) = tokio::join!(large, kill);
    killed?;
    let answers = recording.cut().await?;
    process.launch_again()?;
    Ok(answers)
}

fn told(answers: &Answers) -> Told {
    let early = &answers.early;
    ensure!(
        early.is_empty(),
        "{} of {} answers came before their sync, first {:?}",
        early.len(),
        answers.taken,
        early.first()
    );
    Ok((
        format!("({} answers, each behind its sync)", answers.taken),
        answers.taken > 0,
    ))
}
