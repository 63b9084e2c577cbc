//! Ingest while Kafka is away, against ingest with it: two gateways in turns, of
//! which one has a Kafka that nobody answers for.

use std::time::Duration;

use anyhow::Result;
use tests::harness::process::resident_mib;
use tests::harness::servers::{Servers, free_ports};

use crate::load::{pace, saturate};
use crate::site::Site;
use crate::{Row, cpu};

const CONNECTIONS: usize = 64;
const TIME: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;
/// Of an outage, at `OUTAGE_PER_SECOND`.
const OUTAGE: Duration = Duration::from_secs(600);
const OUTAGE_PER_SECOND: f64 = 500.0;

/// Rates, and how long senders wait at half of what is possible.
pub async fn measure(servers: &Servers, with_kafka: &Site, rows: &mut Vec<Row>) -> Result<()> {
    let away = away(servers, "spool")?;
    let mut gateways = [with_kafka.start("gateway").await?, away.start("gateway").await?];
    let targets = [with_kafka.target()?, away.target()?];
    let pids = [gateways[0].pid()?, gateways[1].pid()?];
    let (mut requests, mut seconds) = ([0.0; 2], [0.0; 2]);
    println!("ingest with Kafka and without it");
    for _ in 0..ROUNDS {
        for (index, target) in targets.iter().enumerate() {
            let before = cpu::seconds(pids[index])?;
            requests[index] += saturate(target, CONNECTIONS, TIME).await?.requests;
            seconds[index] += cpu::seconds(pids[index])? - before;
        }
    }
    let [direct, spooled] = requests.map(|sum| sum / (TIME * ROUNDS as u32).as_secs_f64());
    rows.push(Row::at_least("spool_vs_kafka", spooled / direct, "", 0.5));
    rows.push(Row::plain("spool_per_s", spooled, "requests/s"));
    rows.push(Row::plain("spool_cpu", seconds[1] / requests[1] * 10_000.0, "s/10000"));
    rows.push(Row::at_most("load_mib", resident_mib(pids[0])?, "MiB", 200.0));
    let half = pace(&targets[1], spooled / 2.0, TIME * ROUNDS as u32).await?;
    rows.push(Row::at_most("spool_p99_ms", half.p99_ms, "ms", 250.0));
    for gateway in &mut gateways {
        gateway.terminate().await?;
    }
    Ok(())
}

/// Memory after ten minutes of an outage.
pub async fn outage(servers: &Servers, rows: &mut Vec<Row>) -> Result<()> {
    println!("{} s at {OUTAGE_PER_SECOND} requests/s without Kafka", OUTAGE.as_secs());
    let site = away(servers, "outage")?;
    let mut gateway = site.start("gateway").await?;
    let outcome = pace(&site.target()?, OUTAGE_PER_SECOND, OUTAGE).await?;
    rows.push(Row::at_most("outage_mib", resident_mib(gateway.pid()?)?, "MiB", 200.0));
    rows.push(Row::plain("outage_p99_ms", outcome.p99_ms, "ms"));
    gateway.terminate().await?;
    Ok(())
}

/// A site whose Kafka is away.
fn away(servers: &Servers, name: &str) -> Result<Site> {
    let [port] = free_ports()?;
    Site::new(servers, name, Some(&format!("kafka:127.0.0.1:{port}")), None)
}
