//! `make bench`: speed and memory as ratios of one run, on the real servers.
//!
//! Ingest and chat against their floors (`floor.rs`, `chat.rs`) and against Bento, the
//! vendors' webhooks against plain ones (`vendors.rs`), ingest with Kafka away, routing
//! to both databases and against bare inserts (`bare.rs`), what a large store costs
//! (`growth.rs`), mail against mbsync, the time from POST to ticket, memory and start.
//! Prints a table and writes `bench/results.json`, one number for each name. A run takes
//! about forty minutes, ten of them an outage; what it measures moves by some percent
//! from run to run, which is why what is compared is measured in turns. The names of
//! [`PARTS`] measure these alone.

mod bare;
mod bento;
mod chat;
mod cpu;
mod crowd;
mod curve;
mod floor;
mod growth;
mod ingest;
mod load;
mod mailbox;
mod reads;
mod report;
mod routing;
mod site;
mod spool;
mod store;
mod vendors;

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::harness::ops;
use tests::harness::process::resident_mib;
use tests::harness::servers::Servers;

use crate::report::{Row, report};
use crate::site::{Site, fill};

/// What can be measured alone: `target/release/bench ingest`.
const PARTS: [&str; 14] = [
    "rest", "sqlite", "postgres", "accounts", "latency", "mailbox", "growth", "ingest", "bento", "webhooks", "spool",
    "crowd", "chat", "outage",
];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["floor", listen, kafka, linger_ms, in_flight] => {
            return floor::serve(listen.parse()?, kafka, linger_ms, in_flight).await;
        }
        ["chat_floor", listen, kafka] => return chat::serve_floor(listen.parse()?, kafka).await,
        ["visitors", address, count] => return chat::visit(address.parse()?, count.parse()?).await,
        _ => {}
    }
    for part in &arguments {
        ensure!(PARTS.contains(&part.as_str()), "no part {part}: {}", PARTS.join(", "));
    }
    let servers = Servers::new(mailbox::boxes(), 1)?;
    let mut rows = Vec::new();
    let measured = measure(&servers, &arguments, &mut rows).await;
    servers.stop().await?;
    // What was measured before a failure is worth seeing.
    report(&rows)?;
    measured
}

/// All parts, or those that are named.
async fn measure(servers: &Servers, parts: &[String], rows: &mut Vec<Row>) -> Result<()> {
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    if is_wanted("rest") {
        start_and_rest(&Site::new(servers, "embedded", None, None)?, rows).await?;
    }
    if is_wanted("sqlite") {
        routing::to_sqlite(&Site::new(servers, "sqlite", None, None)?, rows).await?;
    }
    if is_wanted("postgres") {
        routing::to_postgres(servers, rows).await?;
    }
    if is_wanted("accounts") {
        routing::many_accounts(servers, rows).await?;
    }
    if is_wanted("latency") {
        routing::latency(&Site::on_servers(servers, "latency").await?, rows).await?;
    }
    if is_wanted("mailbox") {
        mailbox::measure(servers, rows).await?;
    }
    if is_wanted("growth") {
        growth::measure(servers, rows).await?;
    }
    accept(servers, is_wanted, rows).await?;
    if is_wanted("outage") {
        spool::outage(servers, rows).await?;
    }
    Ok(())
}

/// What is taken in. Nobody routes what these leave in Kafka.
async fn accept(servers: &Servers, is_wanted: impl Fn(&str) -> bool, rows: &mut Vec<Row>) -> Result<()> {
    if ["ingest", "bento", "webhooks", "spool", "crowd"]
        .into_iter()
        .any(&is_wanted)
    {
        let kafka = servers.kafka().await?;
        let bus = format!("kafka:127.0.0.1:{}", kafka.port);
        let site = Site::new(servers, "ingest", Some(&bus), None)?;
        if is_wanted("ingest") {
            ingest::measure(&site, servers, kafka.port, rows).await?;
        }
        if is_wanted("bento") {
            bento::measure(&site, servers, kafka.port, rows).await?;
        }
        if is_wanted("webhooks") {
            let site = Site::new(servers, "webhooks", Some(&bus), None)?.with(&vendors::accounts())?;
            vendors::measure(&site, rows).await?;
        }
        if is_wanted("spool") {
            spool::measure(servers, &site, rows).await?;
        }
        if is_wanted("crowd") {
            crowd::measure(&site, rows).await?;
        }
    }
    if is_wanted("chat") {
        let site = Site::on_servers(servers, "chat").await?.with(chat::ACCOUNT)?;
        site.command(&["migrate"]).await?;
        let kafka = servers.kafka().await?;
        chat::measure(&site, kafka.port, rows).await?;
    }
    Ok(())
}

async fn start_and_rest(site: &Site, rows: &mut Vec<Row>) -> Result<()> {
    println!("starting `tributary all`");
    let mut all = site.start("all").await?;
    rows.push(Row::plain(
        "first_ready_ms",
        all.ready_after.as_secs_f64() * 1000.0,
        "ms",
    ));
    // At rest: everything has been touched once.
    fill(&site.target()?, 100).await?;
    ops::quiet(std::slice::from_ref(&all.ops), Duration::from_secs(30)).await?;
    rows.push(Row::at_most("idle_mib", resident_mib(all.pid()?)?, "MiB", 40.0));
    all.terminate().await?;
    let mut again = site.start("all").await?;
    let ready_ms = again.ready_after.as_secs_f64() * 1000.0;
    rows.push(Row::at_most("ready_ms", ready_ms, "ms", 1_000.0));
    again.terminate().await?;
    Ok(())
}
