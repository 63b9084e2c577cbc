//! Clients that mean no good, or cannot do better.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Told;
use crate::faults::Site;
use crate::faults::load::HOOKS;
use crate::harness::customer::Sender;
use crate::harness::random::Random;

/// Of each kind, at each gateway.
const SLOW: usize = 200;
const SLOW_IN_A_LONG_RUN: usize = 1_000;
const ENDLESS: usize = 4;
/// A gateway may have so much while they are there.
pub const MAX_MIB: f64 = 300.0;

/// Clients that send a byte now and then, and clients that never stop.
pub async fn slow_and_endless(site: &Site, random: &mut Random) -> Told {
    let count = if site.plan.is_long { SLOW_IN_A_LONG_RUN } else { SLOW };
    let mut clients = JoinSet::new();
    for public in &site.world.public {
        let address = public.strip_prefix("http://").context("another scheme")?;
        for _ in 0..count {
            clients.spawn(crawl(address.to_owned()));
        }
        for _ in 0..ENDLESS {
            clients.spawn(gush(address.to_owned()));
        }
    }
    let is_busy = site.oracle.is_busy();
    let ms = random.between(2_000, if site.plan.is_long { 40_000 } else { 3_000 });
    tokio::time::sleep(Duration::from_millis(ms)).await;
    let most = site.gateways_mib().await;
    ensure!(most < MAX_MIB, "a gateway takes {most:.0} MiB");
    clients.shutdown().await;
    Ok((format!("({count} and {ENDLESS} a gateway, {most:.0} MiB)"), is_busy))
}

/// Promises much and sends a byte a time, until it is dropped.
async fn crawl(address: String) -> Result<()> {
    let mut stream = TcpStream::connect(&address).await?;
    let head = format!("POST /in/{HOOKS} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    loop {
        stream.write_all(b"{").await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Sends without end, until it is told to stop or dropped.
async fn gush(address: String) -> Result<()> {
    let mut stream = TcpStream::connect(&address).await?;
    let head = format!("POST /in/{HOOKS} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    while stream.write_all(&chunk).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _ = stream.read(&mut [0; 64]).await;
    Ok(())
}

/// Well signed, and no message: refused, and nothing else.
pub async fn poison(site: &Site, random: &mut Random) -> Told {
    let bodies: [&[u8]; 5] = [
        b"{",
        b"[]",
        b"\xff\xfe\x00",
        br#"{"from":{"address":"a"},"text":"x","unknown":1}"#,
        &[b'['; 100_000],
    ];
    let mut refused = 0;
    for (index, body) in bodies.into_iter().enumerate() {
        for public in &site.world.public {
            let id = format!("poison-{}-{index}", random.draw());
            // A gateway may just be dead.
            if let Ok(answer) = Sender::new(public, HOOKS)?.post(&id, body.to_vec()).await {
                ensure!(answer.status == 400, "poison was answered {}", answer.status);
                refused += 1;
            }
        }
    }
    Ok((format!("({refused} refused)"), refused > 0))
}
