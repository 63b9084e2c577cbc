//! `make bench`: speed and memory as ratios of one run, on the real servers.
//!
//! Ingest and chat against their floors (`floor.rs`, `chat.rs`), routing to both
//! databases, the time from POST to ticket, memory and start. `bench chat` measures
//! chat alone. Prints a table and writes
//! `bench/results.json`. A run takes about three minutes; what it measures moves
//! by some percent from run to run, which is why the floor is measured between.

mod chat;
mod floor;
mod load;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::harness::ops;
use tests::harness::process::{Process, Start, resident_mib};
use tests::harness::servers::{Servers, free_ports, repository};
use tokio::process::{Child, Command};

use crate::load::{Connection, Target, saturate};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const CONNECTIONS: [usize; 3] = [64, 256, 512];
/// Of one measurement of ingest.
const SECONDS: u64 = 5;
const BODY_BYTES: usize = 1000;
/// Messages that the routers find waiting.
const BACKLOG: u64 = 30_000;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match words[..] {
        ["floor", listen, kafka] => return floor::serve(listen.parse()?, kafka, SECRET).await,
        ["chat_floor", listen, kafka] => return chat::serve_floor(listen.parse()?, kafka).await,
        ["visitors", address, count] => return chat::visit(address.parse()?, count.parse()?).await,
        _ => {}
    }
    let servers = Servers::new(String::new())?;
    let measured = match words[..] {
        ["chat"] => measure_chat(&servers).await,
        _ => measure(&servers).await,
    };
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

async fn measure(servers: &Servers) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    println!("starting Kafka and PostgreSQL");
    let (kafka, postgres) = tokio::try_join!(servers.kafka(), servers.postgres())?;
    let bus = format!("kafka:127.0.0.1:{}", kafka.port);
    let database = format!("postgres://tributary@127.0.0.1:{}/tributary", postgres.port);
    let embedded = Site::new(servers, "embedded", None, None)?;
    start_and_rest(&embedded, &mut rows).await?;
    println!("routing {BACKLOG} messages to sqlite, while they come");
    let rate = routing_rate_in_one(&Site::new(servers, "sqlite", None, None)?).await?;
    rows.push(Row::plain("routed_sqlite", rate, "messages/s"));
    println!("routing {BACKLOG} messages to postgres");
    let rate = routing_rate(&Site::new(servers, "postgres", Some(&bus), Some(&database))?).await?;
    rows.push(Row::at_least("routed_postgres", rate, "messages/s", 5_000.0));
    let heavy = Site::new(servers, "heavy", Some(&bus), Some(&database))?;
    latency(&heavy, &mut rows).await?;
    // Last, because nobody routes what these leave in Kafka.
    ingest(&heavy, kafka.port, &mut rows).await?;
    rows.extend(measure_chat(servers).await?);
    Ok(rows)
}

async fn measure_chat(servers: &Servers) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let (kafka, postgres) = tokio::try_join!(servers.kafka(), servers.postgres())?;
    let bus = format!("kafka:127.0.0.1:{}", kafka.port);
    let database = format!("postgres://tributary@127.0.0.1:{}/tributary", postgres.port);
    let site = Site::new(servers, "chat", Some(&bus), Some(&database))?.with(chat::ACCOUNT)?;
    site.command(&["migrate"]).await?;
    chat::measure(&site, kafka.port, &mut rows).await?;
    Ok(rows)
}

/// A configuration and the folder of its data.
struct Site {
    folder: std::path::PathBuf,
    public: SocketAddr,
    desk: SocketAddr,
}

impl Site {
    fn new(servers: &Servers, name: &str, bus: Option<&str>, database: Option<&str>) -> Result<Self> {
        let folder = servers.dir.join(name);
        std::fs::create_dir_all(&folder)?;
        let [public, desk] = free_ports()?.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let path = folder.display();
        std::fs::write(folder.join("key"), [7; 32])?;
        let bus = bus.map_or_else(|| format!("local:{path}/log.db"), str::to_owned);
        let database = database.map_or_else(|| format!("sqlite:{path}/desk.db"), str::to_owned);
        let config = format!(
            r#"
[public]
listen = "{public}"
[desk]
listen = "{desk}"
[data]
path = "{path}"
[keys]
files = ["{path}/key"]
[store]
url = "{database}"
[bus]
url = "{bus}"
[blobs]
url = "file:{path}/blobs"
[spool]
path = "{path}/spool.db"

[[queues]]
name = "support"
policy = "standard"

[[calendars]]
name = "office"
time_zone = "Europe/Berlin"
hours = {{ mon = ["08:00-17:00"], tue = ["08:00-17:00"], wed = ["08:00-17:00"], thu = ["08:00-17:00"], fri = ["08:00-17:00"] }}

[[policies]]
name = "standard"
calendar = "office"
first_response = "4h"
next_response = "8h"
resolution = "3d"

[[accounts]]
name = "bench"
channel = "webhook"
queue = "support"
secrets = ["{SECRET}"]
"#
        );
        std::fs::write(folder.join("tributary.toml"), config)?;
        Ok(Self { folder, public, desk })
    }

    /// With more settings.
    fn with(self, settings: &str) -> Result<Self> {
        let path = self.folder.join("tributary.toml");
        let text = std::fs::read_to_string(&path)? + settings;
        std::fs::write(path, text)?;
        Ok(self)
    }

    fn target(&self) -> Result<Target> {
        Target::new(self.public, "bench", SECRET)
    }

    async fn start(&self, role: &str) -> Result<Process> {
        let [ops_port] = free_ports()?;
        let start = Start {
            name: role.to_owned(),
            role: role.to_owned(),
            config: self.folder.join("tributary.toml"),
            dir: self.folder.join(role),
            ops_port,
            environment: vec![("RUST_LOG".to_owned(), "warn".to_owned())],
        };
        Process::start(&start).await
    }

    async fn command(&self, arguments: &[&str]) -> Result<String> {
        let config = self.folder.join("tributary.toml");
        let config = config.to_string_lossy();
        tests::harness::process::run_well(&[arguments, &["--config", &config]].concat()).await
    }
}

async fn start_and_rest(site: &Site, rows: &mut Vec<Row>) -> Result<()> {
    println!("starting `tributary all`");
    let mut all = site.start("all").await?;
    rows.push(Row::at_most("ready_seconds", all.ready_after.as_secs_f64(), "s", 2.0));
    // At rest: everything has been touched once.
    fill(&site.target()?, 100).await?;
    ops::quiet(std::slice::from_ref(&all.ops), Duration::from_secs(30)).await?;
    rows.push(Row::at_most("rest_memory", resident_mib(all.pid()?)?, "MiB", 80.0));
    all.terminate().await?;
    Ok(())
}

/// The gateway and the floor in turns, so that both meet the same machine.
async fn ingest(site: &Site, kafka_port: u16, rows: &mut Vec<Row>) -> Result<()> {
    let [port] = free_ports()?;
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let mut floor = start_floor("floor", listen, kafka_port).await?;
    let gateway = site.start("gateway").await?;
    let (floor_target, gateway_target) = (Target::new(listen, "bench", SECRET)?, site.target()?);
    let time = Duration::from_secs(SECONDS);
    for target in [&floor_target, &gateway_target] {
        saturate(target, 64, Duration::from_secs(1), BODY_BYTES).await?;
    }
    for connections in CONNECTIONS {
        println!("ingest at {connections} connections");
        let mut rates = [Vec::new(), Vec::new()];
        let mut p99_ms: f64 = 0.0;
        for _ in 0..2 {
            let on_floor = saturate(&floor_target, connections, time, BODY_BYTES).await?;
            let on_gateway = saturate(&gateway_target, connections, time, BODY_BYTES).await?;
            p99_ms = p99_ms.max(on_gateway.p99_ms);
            rates[0].push(on_floor.requests_per_second);
            rates[1].push(on_gateway.requests_per_second);
        }
        let [on_floor, on_gateway] = rates.map(|rates| rates.iter().sum::<f64>() / rates.len() as f64);
        rows.push(Row::at_least(
            format!("ingest_vs_floor_{connections}"),
            on_gateway / on_floor,
            "",
            0.7,
        ));
        rows.push(Row::plain(format!("ingest_{connections}"), on_gateway, "requests/s"));
        rows.push(Row::plain(format!("floor_{connections}"), on_floor, "requests/s"));
        rows.push(Row::plain(format!("ingest_p99_{connections}"), p99_ms, "ms"));
    }
    floor.kill().await?;
    drop(gateway);
    Ok(())
}

async fn start_floor(role: &str, listen: SocketAddr, kafka_port: u16) -> Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .args([role, &listen.to_string(), &format!("127.0.0.1:{kafka_port}")])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the floor")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Connection::open(listen).await.is_err() {
        ensure!(Instant::now() < deadline, "the floor does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(child)
}

/// Puts messages into the log; ten of each sender in one thread.
async fn fill(target: &Target, messages: u64) -> Result<()> {
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..64 {
        let target = target.clone();
        clients.spawn(async move {
            let mut connection = Connection::open(target.address).await?;
            for _ in (n..messages).step_by(64) {
                connection.exchange(&target.request(BODY_BYTES, 10)?).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(())
}

/// One process takes and routes: from the first message to the last one's ticket.
async fn routing_rate_in_one(site: &Site) -> Result<f64> {
    let mut all = site.start("all").await?;
    let began = Instant::now();
    fill(&site.target()?, BACKLOG).await?;
    ops::quiet(std::slice::from_ref(&all.ops), Duration::from_secs(180)).await?;
    let rate = BACKLOG as f64 / began.elapsed().as_secs_f64();
    all.terminate().await?;
    Ok(rate)
}

/// Fills the log, and routes what waits: from a router's start to its end.
async fn routing_rate(site: &Site) -> Result<f64> {
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

/// From POST to ticket, at 200 messages a second.
async fn latency(site: &Site, rows: &mut Vec<Row>) -> Result<()> {
    println!("POST to ticket at 200 messages/s");
    let token = site.command(&["token", "create", "--name", "bench"]).await?;
    let (_gateway, router, _api) = tokio::try_join!(site.start("gateway"), site.start("router"), site.start("api"))?;
    // Until the router has its partitions.
    fill(&site.target()?, 100).await?;
    ops::quiet(std::slice::from_ref(&router.ops), Duration::from_secs(60)).await?;
    let target = site.target()?;
    let desk = format!("http://{}/v1/tickets?limit=200", site.desk);
    let client = reqwest::Client::new();
    let prefix = format!("{} ", target.run);
    let (count, interval) = (2_000_u64, Duration::from_millis(5));
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
    rows.push(Row::plain("post_to_ticket_p50", quantile(0.5), "ms"));
    rows.push(Row::at_most("post_to_ticket_p99", quantile(0.99), "ms", 250.0));
    Ok(())
}

fn report(rows: &[Row]) -> Result<()> {
    println!();
    let file = repository().join("bench/results.json");
    // What was not measured this time stays.
    let before = std::fs::read(&file)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut results: serde_json::Map<String, Value> = before.unwrap_or_default();
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
        results.insert(
            row.name.clone(),
            json!({ "value": value, "unit": row.unit, "target": target }),
        );
    }
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(&file, serde_json::to_string_pretty(&Value::Object(results))? + "\n")?;
    println!("\nalso in bench/results.json");
    Ok(())
}
