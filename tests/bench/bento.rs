//! Ingest against Bento: the same webhooks, with the same check of their signature,
//! durable in the same Kafka before they are answered.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::harness::servers::{Servers, free_ports, repository};
use tokio::process::{Child, Command};

use crate::Row;
use crate::ingest::{LOOK, ROUNDS, Side, Sum};
use crate::load::{Connection, SECRET, Target, saturate};
use crate::site::Site;

const CONNECTIONS: usize = 512;
/// Bento is as fast as the better of these makes it: every message a batch, of which
/// many are under way, or batches of what comes within a millisecond.
const SETTINGS: [&str; 2] = [
    "max_in_flight: 1024",
    "max_in_flight: 64\n    batching: { count: 256, period: 1ms }",
];

/// Measures the gateway of this site against it.
pub async fn measure(site: &Site, servers: &Servers, kafka_port: u16, rows: &mut Vec<Row>) -> Result<()> {
    let Some(program) = program()? else {
        println!("no Bento here (deploy/dev/bench.sh builds it): ingest_vs_bento is left out");
        return Ok(());
    };
    println!("ingest at {CONNECTIONS} connections, against Bento");
    let kafka = servers.kafka().await?.brokers[0].pid()?;
    let mut process = site.start("gateway").await?;
    let gateway = Side {
        target: site.target()?,
        pid: process.pid()?,
    };
    saturate(&gateway.target, CONNECTIONS, LOOK).await?;
    let mut best: Option<(f64, Child, Side)> = None;
    for (number, settings) in SETTINGS.into_iter().enumerate() {
        let folder = servers.dir.join(format!("bento-{number}"));
        let (mut child, side) = start(&program, &folder, settings, kafka_port).await?;
        saturate(&side.target, CONNECTIONS, LOOK).await?;
        let look = saturate(&side.target, CONNECTIONS, LOOK).await?.requests;
        println!("  Bento by {settings:?}: {:.0}/s", look / LOOK.as_secs_f64());
        if best.as_ref().is_none_or(|(fastest, ..)| look > *fastest) {
            best = Some((look, child, side));
        } else {
            child.kill().await?;
        }
    }
    let (_, mut child, bento) = best.context("no settings")?;
    let (mut theirs, mut ours) = (Sum::default(), Sum::default());
    for _ in 0..ROUNDS {
        theirs.add(&bento, kafka, CONNECTIONS).await?;
        ours.add(&gateway, kafka, CONNECTIONS).await?;
    }
    child.kill().await?;
    process.terminate().await?;
    rows.push(Row::at_least("ingest_vs_bento", ours.rate() / theirs.rate(), "", 1.5));
    rows.push(Row::at_most("ingest_cpu_vs_bento", ours.cpu() / theirs.cpu(), "", 0.5));
    theirs.show("bento", CONNECTIONS, rows);
    ours.show("ingest_beside_bento", CONNECTIONS, rows);
    Ok(())
}

/// What `deploy/dev/bench.sh` has built.
fn program() -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(repository().join(".dev"))? {
        let folder = entry?.path();
        let is_bento = folder
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("bento-"));
        let program = folder.join("bento");
        if is_bento && program.exists() {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

async fn start(program: &Path, folder: &Path, settings: &str, kafka_port: u16) -> Result<(Child, Side)> {
    let [port] = free_ports()?;
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let secret = SECRET.trim_start_matches("whsec_");
    let config = format!(
        r#"
http: {{ enabled: false }}
logger: {{ level: NONE }}
metrics: {{ none: {{}} }}
shutdown_timeout: 1s
input:
  http_server:
    address: {listen}
    path: /in/bench
    allowed_verbs: [ POST ]
    timeout: 30s
pipeline:
  processors:
    - mapping: |
        let signed = metadata("Webhook-Id") + "." + metadata("Webhook-Timestamp") + "." + content().string()
        let right = "v1," + $signed.hash("hmac_sha256", "{secret}".decode("base64")).encode("base64")
        root = if metadata("Webhook-Signature") != $right {{ throw("the signature is wrong") }}
        meta = deleted()
        meta id = metadata("Webhook-Id")
output:
  reject_errored:
    kafka_franz:
      seed_brokers: [ 127.0.0.1:{kafka_port} ]
      topic: bench.bento
      key: ${{! metadata("id") }}
      idempotent_write: true
      compression: lz4
      {}
"#,
        settings.replace("\n", "\n  ")
    );
    std::fs::create_dir_all(folder)?;
    let file = folder.join("bento.yaml");
    std::fs::write(&file, config)?;
    let log = std::fs::File::create(folder.join("log"))?;
    let child = Command::new(program)
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start Bento")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while Connection::open(listen).await.is_err() {
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        ensure!(Instant::now() < deadline, "Bento does not listen: {}", log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let side = Side {
        target: Target::new(listen, "bench")?,
        pid: child.id().context("Bento ended")?,
    };
    Ok((child, side))
}
