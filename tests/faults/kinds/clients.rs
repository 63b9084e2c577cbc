//! Clients that mean no good, or cannot do better.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Told;
use crate::faults::load::HOOKS;
use crate::faults::{Site, percentiles};
use crate::harness::customer::{SECRET, Sender, now_seconds, sign};
use crate::harness::random::Random;

/// Of each kind, at each gateway.
const SLOW: usize = 200;
const SLOW_IN_A_LONG_RUN: usize = 1_000;
const ENDLESS: usize = 4;
/// Of those who say nothing, at one gateway.
const IDLE: usize = 10_000;
/// Of bodies that would be large, at each gateway at once.
const BOMBS: usize = 8;
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

/// So many connections that nobody says anything on, each anew when it is closed.
pub async fn idle(site: &Site, random: &mut Random) -> Told {
    let public = site.world.public.first().context("no gateway")?;
    let address = public.strip_prefix("http://").context("another scheme")?;
    let (_, most_files) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most_files, most_files)?;
    let open = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..IDLE {
        clients.spawn(keep_open(address.to_owned(), open.clone()));
    }
    let began = Instant::now();
    let ms = random.between(8_000, if site.plan.is_long { 40_000 } else { 12_000 });
    tokio::time::sleep(Duration::from_millis(ms)).await;
    let (most, open) = (site.gateways_mib().await, open.load(Ordering::Relaxed));
    clients.shutdown().await;
    ensure!(most < MAX_MIB, "a gateway takes {most:.0} MiB");
    let accepts = site.oracle.accepts();
    let taken = percentiles("beside them", accepts.iter().filter(|accept| accept.at > began));
    Ok((
        format!("({open} open, {most:.0} MiB)"),
        open > IDLE / 2 && taken.is_some(),
    ))
}

/// Says nothing, on one connection after another, until it is dropped.
async fn keep_open(address: String, open: Arc<AtomicUsize>) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await {
            open.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read_u8().await;
            open.fetch_sub(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Well signed, small as they come, and huge if somebody unpacked them: refused.
pub async fn bombs(site: &Site, random: &mut Random) -> Told {
    let packing = "head -c 200000000 /dev/zero | gzip -1";
    let packed = tokio::process::Command::new("sh")
        .args(["-c", packing])
        .output()
        .await?;
    let client = reqwest::Client::new();
    let posts = site.world.public.iter().cycle().take(BOMBS * site.world.public.len());
    let posts = posts.map(|public| {
        let (id, bytes, client) = (format!("bomb-{}", random.draw()), packed.stdout.clone(), &client);
        async move {
            let now = now_seconds()?;
            let request = client
                .post(format!("{public}/in/{HOOKS}"))
                .header("content-encoding", "gzip")
                .header("webhook-timestamp", now)
                .header("webhook-signature", sign(SECRET, &id, now, &bytes)?)
                .header("webhook-id", id)
                .body(bytes);
            anyhow::Ok(request.send().await?.status().as_u16())
        }
    });
    let mut refused = 0;
    // A gateway may just be dead.
    for status in join_all(posts).await.into_iter().flatten() {
        ensure!(matches!(status, 400 | 503), "a bomb was answered {status}");
        refused += 1;
    }
    let most = site.gateways_mib().await;
    ensure!(most < MAX_MIB, "a gateway takes {most:.0} MiB");
    Ok((format!("({refused} refused, {most:.0} MiB)"), refused > 0))
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
