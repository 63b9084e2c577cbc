//! How fast waiting messages are routed, and how soon a POST is a ticket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tests::harness::ops;
use tests::harness::servers::Servers;

use crate::bare::Batches;
use crate::load::{BODY_BYTES, Connection, Known, Make, SECRET};
use crate::site::{Site, fill, fill_with};
use crate::store::Database;
use crate::{Row, cpu};

/// Messages that the routers find waiting.
const BACKLOG: u64 = 30_000;
/// Conversations that they know, and with which three of five messages go on.
const KNOWN: u64 = 10_000;
const ROUNDS: usize = 3;
/// What each router has, by default.
const READERS: usize = 2;

/// What routing came to.
#[derive(Default)]
pub struct Routed {
    messages: f64,
    seconds: f64,
    /// Seconds of CPU of the router, and of PostgreSQL.
    cpu: [f64; 2],
}

/// One process takes and routes: from the first message to the last one's ticket.
pub async fn to_sqlite(site: &Site, rows: &mut Vec<Row>) -> Result<()> {
    println!("routing to SQLite, while messages come");
    let mut all = site.start("all").await?;
    let known = meet(site).await?;
    ops::quiet(std::slice::from_ref(&all.ops), Duration::from_secs(180)).await?;
    let mut routed = Routed::default();
    for _ in 0..ROUNDS {
        let before = cpu::seconds(all.pid()?)?;
        let began = Instant::now();
        fill_mixed(site, &known).await?;
        ops::quiet(std::slice::from_ref(&all.ops), Duration::from_secs(180)).await?;
        routed.messages += BACKLOG as f64;
        routed.seconds += began.elapsed().as_secs_f64();
        routed.cpu[0] += cpu::seconds(all.pid()?)? - before;
    }
    all.terminate().await?;
    rows.push(Row::at_least(
        "routing_sqlite_per_s",
        routed.rate(),
        "messages/s",
        2_500.0,
    ));
    rows.push(Row::plain("routing_sqlite_cpu", routed.cpu_of(0), "s/10000"));
    Ok(())
}

/// A router against a bare loop that writes the same rows in the same transactions.
pub async fn to_postgres(servers: &Servers, rows: &mut Vec<Row>) -> Result<()> {
    let site = Site::on_servers(servers, "postgres").await?;
    let database = Database::shared(servers).await?;
    site.command(&["migrate"]).await?;
    let known = introduce(servers, &site).await?;
    let (mut routed, mut bare) = (Routed::default(), Routed::default());
    for _ in 0..ROUNDS {
        fill_for(&site, &known).await?;
        let before = database.copy("bare").await?;
        let first = Batches::next_transaction(&database).await?;
        routed.add(&route(servers, &site).await?);
        let batches = Batches::since(&database, first).await?;
        println!("writing the rows of {} transactions bare", batches.len());
        bare.add(&batches.write(servers, &before, READERS).await?);
        before.drop().await?;
    }
    let ratio = routed.rate() / bare.rate();
    rows.push(Row::at_least(
        "routing_postgres_per_s",
        routed.rate(),
        "messages/s",
        10_000.0,
    ));
    rows.push(Row::plain("routing_cpu", routed.cpu_of(0), "s/10000"));
    rows.push(Row::plain("routing_postgres_cpu", routed.cpu_of(1), "s/10000"));
    rows.push(Row::at_least("routing_vs_insert", ratio, "", 0.5));
    rows.push(Row::plain("insert_per_s", bare.rate(), "messages/s"));
    rows.push(Row::plain("insert_cpu", bare.cpu_of(0), "s/10000"));
    rows.push(Row::plain("insert_postgres_cpu", bare.cpu_of(1), "s/10000"));
    Ok(())
}

/// Lets everybody write once, who is known from then on.
async fn meet(site: &Site) -> Result<Known> {
    let target = site.target()?;
    let known = Known {
        prefix: target.run.clone(),
        count: KNOWN,
    };
    let make: Make = Arc::new(move || target.request(BODY_BYTES, 1));
    fill_with(site.public, &make, KNOWN).await?;
    Ok(known)
}

async fn fill_mixed(site: &Site, known: &Known) -> Result<()> {
    let (target, known) = (site.target()?, known.clone());
    let make: Make = Arc::new(move || target.mixed(&known));
    fill_with(site.public, &make, BACKLOG).await
}

/// Puts a backlog into the log, for a router.
pub async fn fill_for(site: &Site, known: &Known) -> Result<()> {
    let mut gateway = site.start("gateway").await?;
    fill_mixed(site, known).await?;
    gateway.terminate().await?;
    Ok(())
}

/// Makes senders known, by a gateway and a router.
async fn introduce(servers: &Servers, site: &Site) -> Result<Known> {
    let mut gateway = site.start("gateway").await?;
    let known = meet(site).await?;
    gateway.terminate().await?;
    route(servers, site).await?;
    Ok(known)
}

/// Routes what waits: from a router's start to its end.
pub async fn route(servers: &Servers, site: &Site) -> Result<Routed> {
    let postgres = servers.postgres().await?;
    postgres.checkpoint().await?;
    let postgres = postgres.pid()?;
    let mut router = site.start("router").await?;
    let cpu = || anyhow::Ok([cpu::seconds(router.pid()?)?, cpu::seconds_of_server(postgres)?]);
    let routed = async || {
        let metrics = ops::metrics(&router.ops).await?;
        anyhow::Ok(ops::sum(&metrics, "tributary_routed_messages_total", ""))
    };
    let first = routed().await?;
    let before = cpu()?;
    let began = Instant::now();
    let deadline = began + Duration::from_secs(300);
    let last = loop {
        let metrics = ops::metrics(&router.ops).await?;
        let lag = ops::sum(&metrics, "tributary_pending", "stage=\"bus\"");
        if lag == 0.0 {
            break routed().await?;
        }
        ensure!(Instant::now() < deadline, "the router still lags by {lag}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let seconds = began.elapsed().as_secs_f64();
    let after = cpu()?;
    if last - first < 1_000.0 {
        bail!("too few messages were left to measure: {first} of {last} before the first look");
    }
    router.terminate().await?;
    let routed = Routed {
        messages: last - first,
        seconds,
        cpu: [after[0] - before[0], after[1] - before[1]],
    };
    println!("routed {:.0} messages, {:.0}/s", routed.messages, routed.rate());
    Ok(routed)
}

impl Routed {
    pub fn new(messages: f64, seconds: f64, cpu: [f64; 2]) -> Self {
        Self { messages, seconds, cpu }
    }

    pub fn add(&mut self, more: &Self) {
        self.messages += more.messages;
        self.seconds += more.seconds;
        for (sum, more) in self.cpu.iter_mut().zip(more.cpu) {
            *sum += more;
        }
    }

    pub fn rate(&self) -> f64 {
        self.messages / self.seconds
    }

    /// Seconds for 10,000 messages.
    fn cpu_of(&self, index: usize) -> f64 {
        self.cpu[index] / self.messages * 10_000.0
    }
}

/// Routing with two thousand accounts and two hundred rules of twenty conditions,
/// of which none matches, against one of each.
pub async fn many_accounts(servers: &Servers, rows: &mut Vec<Row>) -> Result<()> {
    let few = Site::on_servers(servers, "few").await?.with(&rules(1))?;
    let many = Site::on_servers(servers, "many").await?;
    let many = many.with(&(accounts(2_000) + &rules(200)))?;
    few.command(&["migrate"]).await?;
    let known = introduce(servers, &few).await?;
    let (mut with_few, mut with_many) = (Routed::default(), Routed::default());
    for _ in 0..ROUNDS {
        for (sum, site) in [(&mut with_few, &few), (&mut with_many, &many)] {
            fill_for(site, &known).await?;
            sum.add(&route(servers, site).await?);
        }
    }
    rows.push(Row::at_least(
        "many_accounts",
        with_many.rate() / with_few.rate(),
        "",
        0.8,
    ));
    Ok(())
}

fn accounts(count: usize) -> String {
    let account = |n| {
        format!(
            "[[accounts]]\nname = \"other-{n}\"\nchannel = \"webhook\"\nqueue = \"support\"\nsecrets = [\"{SECRET}\"]\n"
        )
    };
    (0..count).map(account).collect()
}

fn rules(count: usize) -> String {
    let rule = |n| {
        let condition = |m| format!("{{ field = \"subject\", operator = \"contains\", value = \"word {n} {m}\" }}");
        let any: Vec<String> = (0..20).map(condition).collect();
        format!(
            "[[rules]]\nname = \"rule {n}\"\nwhen = {{ any = [{}] }}\nthen = {{ kind = \"incident\" }}\n",
            any.join(", ")
        )
    };
    (0..count).map(rule).collect()
}

/// From POST to ticket, at 500 messages a second.
pub async fn latency(site: &Site, rows: &mut Vec<Row>) -> Result<()> {
    println!("POST to ticket at 500 messages/s");
    site.command(&["migrate"]).await?;
    let token = site.command(&["token", "create", "--name", "bench"]).await?;
    let (_gateway, router, _api) = tokio::try_join!(site.start("gateway"), site.start("router"), site.start("api"))?;
    // Until the router has its partitions.
    fill(&site.target()?, 100).await?;
    ops::quiet(std::slice::from_ref(&router.ops), Duration::from_secs(60)).await?;
    let target = site.target()?;
    let desk = format!("http://{}/v1/tickets?limit=200", site.desk);
    let client = reqwest::Client::new();
    let prefix = format!("{} ", target.run);
    let (count, interval) = (5_000_u64, Duration::from_millis(2));
    let began = Instant::now();
    let sender = tokio::spawn(async move {
        let mut connections = Vec::new();
        for _ in 0..8 {
            connections.push(Connection::open(target.address).await?);
        }
        let mut sent_at = Vec::new();
        for n in 0..count {
            tokio::time::sleep_until((began + interval * n as u32).into()).await;
            let request = target.request(BODY_BYTES, 1)?;
            sent_at.push(Instant::now());
            connections[n as usize % 8].exchange(&request).await?;
        }
        anyhow::Ok(sent_at)
    });
    let mut seen_at: std::collections::HashMap<u64, Instant> = std::collections::HashMap::new();
    while seen_at.len() < count as usize {
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "only {} of {count} tickets came",
            seen_at.len()
        );
        let page: Value = client
            .get(&desk)
            .bearer_auth(token.trim())
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let now = Instant::now();
        for ticket in page["items"].as_array().into_iter().flatten() {
            let number = ticket["subject"]
                .as_str()
                .and_then(|subject| subject.strip_prefix(&prefix));
            if let Some(n) = number.and_then(|number| number.parse().ok()).filter(|n| *n < count) {
                seen_at.entry(n).or_insert(now);
            }
        }
    }
    let sent_at = sender.await??;
    let mut waits_ms: Vec<f64> = sent_at
        .iter()
        .enumerate()
        .map(|(n, sent_at)| seen_at[&(n as u64)].saturating_duration_since(*sent_at).as_secs_f64() * 1000.0)
        .collect();
    waits_ms.sort_by(f64::total_cmp);
    let quantile = |q: f64| waits_ms[((waits_ms.len() - 1) as f64 * q) as usize];
    rows.push(Row::at_most("ticket_p50_ms", quantile(0.5), "ms", 30.0));
    rows.push(Row::at_most("ticket_p99_ms", quantile(0.99), "ms", 150.0));
    Ok(())
}
