//! Kafka and PostgreSQL are gone, and every role is told to stop: each ends
//! within ten seconds by itself, and what was accepted is there once when all is
//! back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tests::harness::customer::message;
use tests::harness::wait::until;
use tests::harness::world::World;

const COUNT: usize = 20;
const SOON: Duration = Duration::from_secs(60);
/// What they say who were cut off, or gave up.
const BAD_ENDS: [&str; 2] = ["are cut off", "did not come to its end"];

pub async fn run(world: &World) -> Result<()> {
    world.quiet().await?;
    let (kafka, postgres) = (world.servers.kafka().await?, world.servers.postgres().await?);
    kafka.stop().await?;
    postgres.stop().await?;
    let sender = world.sender("storm")?;
    for index in 0..COUNT {
        let body = message("left@customer.example", &format!("Goodbye {index}"), "Still there?");
        let answer = sender.send(&format!("goodbye-{index}"), &body).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    }
    stop_all(world).await?;
    kafka.start().await?;
    postgres.start().await?;
    for process in world.processes().await.iter_mut() {
        process.launch_again()?;
    }
    for process in world.processes().await.iter_mut() {
        process.ready().await?;
    }
    let count = async || {
        let tickets = world.desk.tickets("storm").await?;
        let subjects = tickets.iter().filter_map(|ticket| ticket["subject"].as_str());
        anyhow::Ok(subjects.filter(|subject| subject.starts_with("Goodbye ")).count())
    };
    until("the tickets", SOON, async || Ok(count().await? >= COUNT)).await?;
    world.quiet().await?;
    ensure!(count().await? == COUNT, "{} tickets of {COUNT}", count().await?);
    Ok(())
}

async fn stop_all(world: &World) -> Result<()> {
    let mut processes = world.processes().await;
    let ends = processes.iter_mut().map(async |process| {
        let said_before = std::fs::read_to_string(&process.log)?.len();
        let started = Instant::now();
        let status = process.terminate().await?;
        let took = started.elapsed().as_secs_f32();
        eprintln!("      {} stopped after {took:.1} s", process.name);
        ensure!(
            status.success(),
            "{}: {status}, see {}",
            process.name,
            process.log.display()
        );
        let said = std::fs::read_to_string(&process.log)?;
        let said = said.get(said_before..).context("the log became shorter")?;
        let bad_end = said.lines().find(|line| BAD_ENDS.iter().any(|end| line.contains(end)));
        ensure!(bad_end.is_none(), "{}: {bad_end:?}", process.name);
        Ok(())
    });
    try_join_all(ends).await?;
    Ok(())
}
