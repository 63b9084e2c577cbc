//! A load of signed webhooks over kept-alive connections, one request at a time
//! on each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Bodies of this size, in bytes.
pub const BODY_BYTES: usize = 1000;
/// Signs all webhooks here.
pub const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What a load came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub requests: f64,
    pub seconds: f64,
    pub p99_ms: f64,
}

/// Whom to load, and how webhooks are signed.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub account: String,
    key: hmac::Key,
    next_id: Arc<AtomicU64>,
    /// In every subject and thread, so that runs do not mix.
    pub run: String,
}

impl Target {
    pub fn new(address: SocketAddr, account: &str) -> Result<Self> {
        let secret = STANDARD
            .decode(SECRET.trim_start_matches("whsec_"))
            .context("secret is not base64")?;
        let run = format!("{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
        Ok(Self {
            address,
            account: account.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            next_id: Arc::new(AtomicU64::new(0)),
            run,
        })
    }

    /// A whole HTTP request with a body of `size` bytes and an id of its own.
    /// Every sender writes `per_sender` messages in one thread.
    pub fn request(&self, size: usize, per_sender: u64) -> Result<Vec<u8>> {
        let n = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.post(n, &format!("{}-{}", self.run, n / per_sender.max(1)), size)
    }

    /// The same, where two of five begin a conversation, and three go on with one
    /// that is known, any of them.
    pub fn mixed(&self, known: &Known) -> Result<Vec<u8>> {
        let n = self.next_id.fetch_add(1, Ordering::Relaxed);
        let sender = if n % 5 < 2 {
            format!("{}-{n}", self.run)
        } else {
            known.any(n)
        };
        self.post(n, &sender, BODY_BYTES)
    }

    fn post(&self, n: u64, sender: &str, size: usize) -> Result<Vec<u8>> {
        let id = format!("bench-{}-{n}", self.run);
        let mut body = format!(
            r#"{{"from":{{"address":"c{sender}@example.com","name":"Customer {sender}"}},"thread":"t-{sender}","subject":"{} {n}","text":""#,
            self.run
        );
        let filling = size.saturating_sub(body.len() + 2);
        body.extend(std::iter::repeat_n("lorem ipsum ", filling / 12));
        body.extend(std::iter::repeat_n('x', filling % 12));
        body.push_str("\"}");
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let tag = hmac::sign(&self.key, format!("{id}.{timestamp}.{body}").as_bytes());
        let signature = STANDARD.encode(tag.as_ref());
        let head = format!(
            "POST /in/{} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\nwebhook-id: {id}\r\n\
             webhook-timestamp: {timestamp}\r\nwebhook-signature: v1,{signature}\r\ncontent-length: {}\r\n\r\n",
            self.account,
            body.len()
        );
        Ok([head.into_bytes(), body.into_bytes()].concat())
    }
}

/// Senders who have written before: each has a conversation.
#[derive(Clone)]
pub struct Known {
    /// What their names begin with, before a number from 0.
    pub prefix: String,
    pub count: u64,
}

impl Known {
    /// One of them, another one for each number.
    fn any(&self, n: u64) -> String {
        let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        format!("{}-{}", self.prefix, scattered % self.count)
    }
}

/// Makes the next request, whole.
pub type Make = Arc<dyn Fn() -> Result<Vec<u8>> + Send + Sync>;

/// Keeps `connections` busy with webhooks for `time`.
pub async fn saturate(target: &Target, connections: usize, time: Duration) -> Result<Outcome> {
    let (address, target) = (target.address, target.clone());
    let make: Make = Arc::new(move || target.request(BODY_BYTES, 10));
    saturate_with(address, &make, connections, time).await
}

/// Keeps `connections` busy with these requests for `time`.
pub async fn saturate_with(address: SocketAddr, make: &Make, connections: usize, time: Duration) -> Result<Outcome> {
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let make = make.clone();
        clients.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut latencies_us = Vec::new();
            while Instant::now() < until {
                let request = make()?;
                let began = Instant::now();
                connection.exchange(&request).await?;
                latencies_us.push(began.elapsed().as_micros() as u64);
            }
            anyhow::Ok(latencies_us)
        });
    }
    outcome(clients, time).await
}

async fn outcome(mut clients: JoinSet<Result<Vec<u64>>>, time: Duration) -> Result<Outcome> {
    let mut latencies_us = Vec::new();
    while let Some(client) = clients.join_next().await {
        latencies_us.extend(client??);
    }
    ensure!(!latencies_us.is_empty(), "no request came through");
    latencies_us.sort_unstable();
    let p99_ms = latencies_us[(latencies_us.len() - 1) * 99 / 100] as f64 / 1000.0;
    Ok(Outcome {
        requests: latencies_us.len() as f64,
        seconds: time.as_secs_f64(),
        p99_ms,
    })
}

/// Sends at this rate for `time`, whatever the answers take: the latency is counted
/// from the moment a request was due, so that one that waits makes the next late.
pub async fn pace(target: &Target, per_second: f64, time: Duration) -> Result<Outcome> {
    const CONNECTIONS: u32 = 64;
    let interval = Duration::from_secs_f64(f64::from(CONNECTIONS) / per_second);
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for n in 0..CONNECTIONS {
        let target = target.clone();
        clients.spawn(async move {
            let mut connection = Connection::open(target.address).await?;
            let mut latencies_us = Vec::new();
            let mut due = began + interval.mul_f64(f64::from(n) / f64::from(CONNECTIONS));
            while due < began + time {
                tokio::time::sleep_until(due.into()).await;
                connection.exchange(&target.request(BODY_BYTES, 10)?).await?;
                latencies_us.push(due.elapsed().as_micros() as u64);
                due += interval;
            }
            anyhow::Ok(latencies_us)
        });
    }
    outcome(clients, time).await
}

/// One kept-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    /// Sends one request and reads its answer, which must be a 2xx.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            let count = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(count > 0, "connection closed in mid-answer");
            let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(&self.buffer[..end])?;
            if !head.starts_with("HTTP/1.1 2") {
                bail!("answered {}", head.lines().next().unwrap_or_default());
            }
            let length: usize = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(Ok(0), |(_, value)| value.trim().parse())?;
            if self.buffer.len() >= end + 4 + length {
                return Ok(());
            }
        }
    }
}
