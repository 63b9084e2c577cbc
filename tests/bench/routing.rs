//! How fast waiting messages are routed, and how soon a POST is a ticket.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tests::harness::ops;
use tests::harness::servers::Servers;

use crate::Row;
use crate::load::{BODY_BYTES, Connection, SECRET};
use crate::site::{Site, fill};

/// Messages that the routers find waiting.
const BACKLOG: u64 = 30_000;

/// One process takes and routes: from the first message to the last one's ticket.
pub async fn rate_in_one(site: &Site) -> Result<f64> {
    println!("routing {BACKLOG} messages, while they come");
    let mut all = site.start("all").await?;
    let began = Instant::now();
    fill(&site.target()?, BACKLOG).await?;
    ops::quiet(std::slice::from_ref(&all.ops), Duration::from_secs(180)).await?;
    let rate = BACKLOG as f64 / began.elapsed().as_secs_f64();
    all.terminate().await?;
    Ok(rate)
}

/// Fills the log, and routes what waits: from a router's start to its end.
pub async fn rate(site: &Site) -> Result<f64> {
    println!("routing {BACKLOG} messages");
    site.command(&["migrate"]).await?;
    let mut gateway = site.start("gateway").await?;
    fill(&site.target()?, BACKLOG).await?;
    gateway.terminate().await?;
    let mut router = site.start("router").await?;
    let routed = async |name| {
        let metrics = ops::metrics(&router.ops).await?;
        anyhow::Ok(ops::sum(&metrics, name, ""))
    };
    let first = routed("tributary_routed_messages_total").await?;
    let began = Instant::now();
    let deadline = began + Duration::from_secs(180);
    let last = loop {
        let metrics = ops::metrics(&router.ops).await?;
        let lag = ops::sum(&metrics, "tributary_pending", "stage=\"bus\"");
        if lag == 0.0 {
            break routed("tributary_routed_messages_total").await?;
        }
        ensure!(Instant::now() < deadline, "the router still lags by {lag}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let rate = (last - first) / began.elapsed().as_secs_f64();
    if last - first < 1_000.0 {
        bail!("too few messages were left to measure: {first} of {last} before the first look");
    }
    router.terminate().await?;
    Ok(rate)
}

/// Routing with two thousand accounts and two hundred rules of twenty conditions,
/// of which none matches, against one of each.
pub async fn many_accounts(servers: &Servers, rows: &mut Vec<Row>) -> Result<()> {
    let few = Site::on_servers(servers, "few").await?.with(&rules(1))?;
    let many = Site::on_servers(servers, "many").await?;
    let many = many.with(&(accounts(2_000) + &rules(200)))?;
    let (mut with_few, mut with_many) = (0.0, 0.0);
    for _ in 0..3 {
        with_few += rate(&few).await?;
        with_many += rate(&many).await?;
    }
    rows.push(Row::at_least("many_accounts", with_many / with_few, "", 0.8));
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
