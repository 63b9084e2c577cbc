//! Ingest against the floor: the same webhooks to the same Kafka, in turns, so that
//! both meet the same machine. The load, Kafka and what is measured share its
//! cores, so the rates depend on all three: the seconds of CPU say who needs what.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::harness::servers::{Servers, free_ports};
use tokio::process::Child;

use crate::load::{Target, saturate};
use crate::site::Site;
use crate::{Row, cpu, floor};

const CONNECTIONS: [usize; 3] = [64, 256, 512];
/// The floor is as fast as the best of these makes it: linger in milliseconds, and
/// requests in flight.
const FLOORS: [[&str; 2]; 5] = [["0", "3"], ["1", "3"], ["1", "5"], ["2", "3"], ["5", "5"]];
/// Of one measurement, and how many of them are taken.
const TIME: Duration = Duration::from_secs(4);
pub const ROUNDS: usize = 3;
/// Of one look at how fast something is.
pub const LOOK: Duration = Duration::from_secs(2);

/// A process under load.
pub struct Side {
    pub target: Target,
    pub pid: u32,
}

/// All that was measured of a side at one number of connections.
#[derive(Default)]
pub struct Sum {
    requests: f64,
    seconds: f64,
    p99_ms: f64,
    /// Seconds of CPU of the side, of Kafka, and of the load.
    cpu: [f64; 3],
}

/// Measures the gateway of this site against the floor.
pub async fn measure(site: &Site, servers: &Servers, kafka_port: u16, rows: &mut Vec<Row>) -> Result<()> {
    let kafka = servers.kafka().await?.brokers[0].pid()?;
    let process = site.start("gateway").await?;
    let gateway = Side {
        target: site.target()?,
        pid: process.pid()?,
    };
    let mut floors = Vec::new();
    for settings in FLOORS {
        floors.push(start_floor(settings, kafka_port).await?);
    }
    for side in floors.iter().map(|(_, side)| side).chain([&gateway]) {
        saturate(&side.target, 64, LOOK).await?;
    }
    let mut worst = f64::INFINITY;
    for connections in CONNECTIONS {
        println!("ingest at {connections} connections");
        let (mut best, mut fastest) = (0, 0.0);
        for (index, (_, floor)) in floors.iter().enumerate() {
            let look = saturate(&floor.target, connections, LOOK).await?;
            let [linger_ms, in_flight] = FLOORS[index];
            let rate = look.requests / look.seconds;
            println!("  floor at linger.ms={linger_ms}, {in_flight} in flight: {rate:.0}/s");
            if look.requests > fastest {
                (best, fastest) = (index, look.requests);
            }
        }
        let (mut on_floor, mut on_gateway) = (Sum::default(), Sum::default());
        for _ in 0..ROUNDS {
            on_floor.add(&floors[best].1, kafka, connections).await?;
            on_gateway.add(&gateway, kafka, connections).await?;
        }
        let ratio = on_gateway.rate() / on_floor.rate();
        worst = worst.min(ratio);
        rows.push(Row::at_least(format!("ingest_vs_floor_{connections}"), ratio, "", 0.85));
        on_gateway.show("ingest", connections, rows);
        on_floor.show("floor", connections, rows);
    }
    rows.push(Row::at_least("ingest_vs_floor", worst, "", 0.85));
    for (mut child, _) in floors {
        child.kill().await?;
    }
    Ok(())
}

impl Sum {
    pub async fn add(&mut self, side: &Side, kafka: u32, connections: usize) -> Result<()> {
        let processes = [side.pid, kafka, std::process::id()];
        let before = processes.map(cpu::seconds);
        let outcome = saturate(&side.target, connections, TIME).await?;
        for (index, (before, pid)) in before.into_iter().zip(processes).enumerate() {
            self.cpu[index] += cpu::seconds(pid)? - before?;
        }
        self.requests += outcome.requests;
        self.seconds += outcome.seconds;
        self.p99_ms = self.p99_ms.max(outcome.p99_ms);
        Ok(())
    }

    pub fn rate(&self) -> f64 {
        self.requests / self.seconds
    }

    /// Seconds of the side for each request.
    pub fn cpu(&self) -> f64 {
        self.cpu[0] / self.requests
    }

    pub fn show(&self, name: &str, connections: usize, rows: &mut Vec<Row>) {
        let mut row = |what: &str, value: f64, unit| {
            rows.push(Row::plain(format!("{name}{what}_{connections}"), value, unit));
        };
        row("", self.rate(), "requests/s");
        row("_p99", self.p99_ms, "ms");
        for (whose, cpu) in ["", "_kafka", "_load"].into_iter().zip(self.cpu) {
            row(&format!("{whose}_cpu"), cpu / self.requests * 10_000.0, "s/10000");
        }
    }
}

async fn start_floor(settings: [&str; 2], kafka_port: u16) -> Result<(Child, Side)> {
    let [port] = free_ports()?;
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let child = floor::start("floor", listen, kafka_port, &settings).await?;
    let side = Side {
        target: Target::new(listen, "bench")?,
        pid: child.id().context("the floor ended")?,
    };
    Ok((child, side))
}
