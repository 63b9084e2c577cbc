//! `make bench`: speed and memory as ratios of one run, on the real servers.
//!
//! Ingest and chat against their floors (`floor.rs`, `chat.rs`), the vendors' webhooks
//! against plain ones (`vendors.rs`), ingest with Kafka away, routing to both databases,
//! the time from POST to ticket, memory and start. Prints a table and writes
//! `bench/results.json`, one number for each name. A run takes about twenty minutes,
//! half of them an outage; what it measures moves by some percent from run to run, which
//! is why a floor is measured between. The names of [`PARTS`] measure these alone.

mod chat;
mod crowd;
mod floor;
mod ingest;
mod load;
mod routing;
mod site;
mod spool;
mod vendors;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::harness::ops;
use tests::harness::process::resident_mib;
use tests::harness::servers::{Servers, repository};

use crate::site::{Site, fill};

/// What can be measured alone: `target/release/bench ingest`.
const PARTS: [&str; 11] = [
    "rest", "sqlite", "postgres", "accounts", "latency", "ingest", "webhooks", "spool", "crowd", "chat", "outage",
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
    let servers = Servers::new(String::new(), 1)?;
    let measured = measure(&servers, &arguments).await;
    servers.stop().await?;
    let rows = measured?;
    report(&rows)
}

/// One line of the result.
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    /// `≥` or `≤` and the number; nothing where the value only explains others.
    target: Option<(bool, f64)>,
}

impl Row {
    fn at_least(name: impl Into<String>, value: f64, unit: &'static str, target: f64) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            target: Some((true, target)),
        }
    }

    fn at_most(name: impl Into<String>, value: f64, unit: &'static str, target: f64) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            target: Some((false, target)),
        }
    }

    fn plain(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            target: None,
        }
    }

    fn is_met(&self) -> Option<bool> {
        self.target.map(|(at_least, target)| {
            if at_least {
                self.value >= target
            } else {
                self.value <= target
            }
        })
    }
}

/// All parts, or those that are named.
async fn measure(servers: &Servers, parts: &[String]) -> Result<Vec<Row>> {
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let mut rows = Vec::new();
    if is_wanted("rest") {
        start_and_rest(&Site::new(servers, "embedded", None, None)?, &mut rows).await?;
    }
    if is_wanted("sqlite") {
        let site = Site::new(servers, "sqlite", None, None)?;
        let rate = routing::rate_in_one(&site).await?;
        rows.push(Row::at_least("routing_sqlite_per_s", rate, "messages/s", 2_500.0));
    }
    if is_wanted("postgres") {
        let site = Site::on_servers(servers, "postgres").await?;
        let rate = routing::rate(&site).await?;
        rows.push(Row::at_least("routing_postgres_per_s", rate, "messages/s", 10_000.0));
    }
    if is_wanted("accounts") {
        routing::many_accounts(servers, &mut rows).await?;
    }
    if is_wanted("latency") {
        routing::latency(&Site::on_servers(servers, "latency").await?, &mut rows).await?;
    }
    // Last, because nobody routes what these leave in Kafka.
    if ["ingest", "webhooks", "spool", "crowd"].into_iter().any(is_wanted) {
        let kafka = servers.kafka().await?;
        let bus = format!("kafka:127.0.0.1:{}", kafka.port);
        let site = Site::new(servers, "ingest", Some(&bus), None)?;
        if is_wanted("ingest") {
            ingest::measure(&site, servers, kafka.port, &mut rows).await?;
        }
        if is_wanted("webhooks") {
            let site = Site::new(servers, "webhooks", Some(&bus), None)?.with(&vendors::accounts())?;
            vendors::measure(&site, &mut rows).await?;
        }
        if is_wanted("spool") {
            spool::measure(servers, &site, &mut rows).await?;
        }
        if is_wanted("crowd") {
            crowd::measure(&site, &mut rows).await?;
        }
    }
    if is_wanted("chat") {
        let site = Site::on_servers(servers, "chat").await?.with(chat::ACCOUNT)?;
        site.command(&["migrate"]).await?;
        let kafka = servers.kafka().await?;
        chat::measure(&site, kafka.port, &mut rows).await?;
    }
    if is_wanted("outage") {
        spool::outage(servers, &mut rows).await?;
    }
    Ok(rows)
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

fn report(rows: &[Row]) -> Result<()> {
    println!();
    let file = repository().join("bench/results.json");
    // What was not measured this time stays.
    let last = std::fs::read(&file).unwrap_or_default();
    let mut results: serde_json::Map<String, Value> = serde_json::from_slice(&last).unwrap_or_default();
    for row in rows {
        let target = match row.target {
            Some((true, target)) => format!("≥ {target}"),
            Some((false, target)) => format!("≤ {target}"),
            None => String::new(),
        };
        let verdict = match row.is_met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        println!(
            "{:<24} {:>12.2} {:<11} {:<8} {verdict}",
            row.name, row.value, row.unit, target
        );
        let value = (row.value * 100.0).round() / 100.0;
        results.insert(row.name.clone(), json!(value));
    }
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(&file, serde_json::to_string_pretty(&Value::Object(results))? + "\n")?;
    println!("\nalso in bench/results.json");
    Ok(())
}
