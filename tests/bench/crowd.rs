//! Accepting while a crowd of others is slow or silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::harness::process::resident_mib;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Row;
use crate::load::{BODY_BYTES, Target, saturate};
use crate::site::Site;

/// Connections on which nothing is ever sent, opened again when they are closed.
const SILENT: usize = 10_000;
/// Senders of a few bytes a second, of a head or of a body.
const SLOW: usize = 1_000;
/// So many send as fast as they are answered.
const BUSY: usize = 64;

/// What a slow sender is slow with.
#[derive(Clone, Copy)]
enum Slow {
    Head,
    Body,
}

/// Measures the gateway of this site.
pub async fn measure(site: &Site, rows: &mut Vec<Row>) -> Result<()> {
    println!("accepting beside {SILENT} silent and {SLOW} slow connections");
    let gateway = site.start("gateway").await?;
    let target = site.target()?;
    let open = Arc::new(AtomicUsize::new(0));
    let mut crowd = JoinSet::new();
    for _ in 0..SILENT {
        crowd.spawn(keep_open(target.clone(), open.clone(), None));
    }
    for n in 0..SLOW {
        let part = if n % 2 == 0 { Slow::Head } else { Slow::Body };
        crowd.spawn(keep_open(target.clone(), open.clone(), Some(part)));
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while open.load(Ordering::Relaxed) < SILENT + SLOW {
        ensure!(Instant::now() < deadline, "only {open:?} connections came to be");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let outcome = saturate(&target, BUSY, Duration::from_secs(15)).await?;
    rows.push(Row::at_most("crowd_p99", outcome.p99_ms, "ms", 250.0));
    rows.push(Row::plain(
        "crowd_ingest",
        outcome.requests / outcome.seconds,
        "requests/s",
    ));
    rows.push(Row::at_most(
        "crowd_memory",
        resident_mib(gateway.pid()?)?,
        "MiB",
        200.0,
    ));
    Ok(())
}

/// Opens a connection, is silent or slow on it until it is closed, and opens it
/// again.
async fn keep_open(target: Target, open: Arc<AtomicUsize>, slow: Option<Slow>) -> Result<()> {
    let request = target.request(BODY_BYTES, 1)?;
    loop {
        if let Ok(mut stream) = TcpStream::connect(target.address).await {
            open.fetch_add(1, Ordering::Relaxed);
            let _ = match slow {
                None => stream.read_u8().await.map(drop),
                Some(Slow::Head) => trickle(&mut stream, &request, 0).await,
                Some(Slow::Body) => trickle(&mut stream, &request, request.len() - BODY_BYTES).await,
            };
            open.fetch_sub(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// So much at once, and then four bytes a second.
async fn trickle(stream: &mut TcpStream, request: &[u8], at_once: usize) -> std::io::Result<()> {
    stream.write_all(&request[..at_once]).await?;
    for piece in request[at_once..].chunks(4) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stream.write_all(piece).await?;
    }
    Ok(())
}
