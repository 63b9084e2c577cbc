//! Chat: messages that are acknowledged after they are durable, against a floor that
//! does no more than that; how long an acknowledgement takes at half of that load; and
//! what a socket costs that nobody uses.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use tests::harness::process::resident_mib;
use tests::harness::servers::free_ports;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::site::Site;
use crate::{Row, floor};

const SOCKETS: usize = 1_000;
const IDLE_SOCKETS: usize = 15_000;
/// Of one measurement.
const TIME: Duration = Duration::from_secs(5);
/// Sockets that are opened at once.
const OPENING: usize = 64;

/// Where the sockets of each are.
const CHAT: &str = "/chat/chat";
const FLOOR: &str = "/";

/// What the gateway of this site must have.
pub const ACCOUNT: &str = r#"
[[accounts]]
name = "chat"
channel = "chat"
queue = "support"
limits = { messages_a_minute = 60000000, frames_a_second = 1000000, sockets_a_visitor = 10, sockets_an_address = 50000, connects_a_minute = 60000000 }
"#;

/// All of it, into rows.
pub async fn measure(site: &Site, kafka_port: u16, rows: &mut Vec<Row>) -> Result<()> {
    idle(site, rows).await?;
    let [port] = free_ports()?;
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let mut floor = floor::start("chat_floor", listen, kafka_port, &[]).await?;
    let gateway = site.start("gateway").await?;
    println!("chat at {SOCKETS} sockets");
    let (mut on_floor, mut on_gateway) = (Vec::new(), Vec::new());
    let mut floor_visitors = open_all(listen, FLOOR, SOCKETS).await?;
    let mut visitors = open_all(site.public, CHAT, SOCKETS).await?;
    for _ in 0..3 {
        let (rate, back) = saturate(floor_visitors).await?;
        on_floor.push(rate);
        floor_visitors = back;
        let (rate, back) = saturate(visitors).await?;
        on_gateway.push(rate);
        visitors = back;
    }
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    let (on_floor, on_gateway) = (mean(&on_floor), mean(&on_gateway));
    rows.push(Row::at_least("chat_vs_floor", on_gateway / on_floor, "", 0.7));
    rows.push(Row::plain("chat", on_gateway, "messages/s"));
    rows.push(Row::plain("chat_floor", on_floor, "messages/s"));
    let p99_ms = half_load(visitors, on_gateway / 2.0).await?;
    rows.push(Row::at_most("chat_ack_p99_ms", p99_ms, "ms", 100.0));
    floor.kill().await?;
    drop(gateway);
    Ok(())
}

/// Memory for each socket that says hello and nothing more; the clients are a
/// process of their own.
async fn idle(site: &Site, rows: &mut Vec<Row>) -> Result<()> {
    println!("{IDLE_SOCKETS} idle sockets");
    let mut gateway = site.start("gateway").await?;
    // What the first ones touch is no cost of a socket.
    drop(open_all(site.public, CHAT, 100).await?);
    let before = resident_mib(gateway.pid()?)?;
    let mut clients = Command::new(std::env::current_exe()?)
        .args(["visitors", &site.public.to_string(), &IDLE_SOCKETS.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the visitors")?;
    let output = clients.stdout.take().context("no output")?;
    let mut lines = BufReader::new(output).lines();
    let ready = tokio::time::timeout(Duration::from_secs(120), lines.next_line());
    ensure!(
        ready.await.context("the visitors did not come in")?? == Some("ready".to_owned()),
        "no visitors"
    );
    // A few rounds of everything that is periodic.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = resident_mib(gateway.pid()?)?;
    rows.push(Row::at_most(
        "chat_idle_kib",
        (after - before) * 1024.0 / IDLE_SOCKETS as f64,
        "KiB",
        12.0,
    ));
    clients.kill().await?;
    gateway.terminate().await?;
    Ok(())
}

/// Opens sockets and holds them until it is killed.
pub async fn visit(address: SocketAddr, count: usize) -> Result<()> {
    let mut visitors = open_all(address, CHAT, count).await?;
    for visitor in &mut visitors {
        visitor.say(&json!({ "type": "resume" })).await?;
    }
    println!("ready");
    std::io::stdout().flush()?;
    std::future::pending::<()>().await;
    Ok(())
}

/// The least that an acknowledged message costs: a bare WebSocket server that
/// produces to Kafka with the settings of `bus`, and awaits the report.
pub async fn serve_floor(listen: SocketAddr, kafka: &str) -> Result<()> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("compression.type", "lz4")
        .create()
        .context("floor: no producer")?;
    let listener = TcpListener::bind(listen).await.context("floor: cannot listen")?;
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let producer = producer.clone();
        tokio::spawn(async move {
            let Ok(mut socket) = accept_async(stream).await else {
                return;
            };
            let key = peer.to_string();
            while let Some(Ok(Message::Text(text))) = socket.next().await {
                let record = FutureRecord::to("bench.chat.floor").key(&key).payload(text.as_bytes());
                let is_kept = match producer.send_result(record) {
                    Ok(report) => matches!(report.await, Ok(Ok(_))),
                    Err(_) => false,
                };
                if !is_kept || socket.send(Message::text(r#"{"type":"ack"}"#)).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// One visitor's socket.
struct Visitor {
    stream: WebSocketStream<TcpStream>,
    number: usize,
    sent: u64,
}

async fn open_all(address: SocketAddr, path: &'static str, count: usize) -> Result<Vec<Visitor>> {
    let places = Arc::new(Semaphore::new(OPENING));
    let mut opening = JoinSet::new();
    for number in 0..count {
        let (places, url) = (places.clone(), format!("ws://{address}{path}"));
        opening.spawn(async move {
            let _place = places.acquire().await?;
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (stream, _) = client_async(url, stream).await?;
            let mut visitor = Visitor {
                stream,
                number,
                sent: 0,
            };
            // The floor greets nobody.
            if path != FLOOR {
                visitor.hello().await?;
            }
            anyhow::Ok(visitor)
        });
    }
    let mut visitors = Vec::with_capacity(count);
    while let Some(opened) = opening.join_next().await {
        visitors.push(opened??);
    }
    Ok(visitors)
}

impl Visitor {
    async fn say(&mut self, frame: &Value) -> Result<()> {
        Ok(self.stream.send(Message::text(frame.to_string())).await?)
    }

    async fn hello(&mut self) -> Result<()> {
        self.say(&json!({ "type": "hello" })).await?;
        self.wait_for("\"hello\"").await
    }

    /// Sends one message and waits until it is acknowledged.
    async fn send(&mut self) -> Result<()> {
        self.sent += 1;
        let text = "lorem ipsum dolor sit amet, consectetur adipiscing elit ".repeat(4);
        let id = format!("{}-{}", self.number, self.sent);
        self.say(&json!({ "type": "send", "id": id, "text": text })).await?;
        self.wait_for("\"ack\"").await
    }

    async fn wait_for(&mut self, kind: &str) -> Result<()> {
        loop {
            match self.stream.next().await.context("the socket ended")?? {
                Message::Text(text) if text.contains(kind) => return Ok(()),
                Message::Text(text) => ensure!(!text.contains("\"error\""), "{text}"),
                Message::Close(frame) => anyhow::bail!("closed: {frame:?}"),
                _ => {}
            }
        }
    }
}

/// Everybody sends as soon as the last is acknowledged: messages a second.
async fn saturate(visitors: Vec<Visitor>) -> Result<(f64, Vec<Visitor>)> {
    let until = Instant::now() + TIME;
    let mut sending = JoinSet::new();
    for mut visitor in visitors {
        sending.spawn(async move {
            let mut count = 0_u64;
            while Instant::now() < until {
                visitor.send().await?;
                count += 1;
            }
            anyhow::Ok((count, visitor))
        });
    }
    let (mut total, mut back) = (0, Vec::new());
    while let Some(ended) = sending.join_next().await {
        let (count, visitor) = ended??;
        total += count;
        back.push(visitor);
    }
    Ok((total as f64 / TIME.as_secs_f64(), back))
}

/// Everybody sends at his time, all together at this rate: the 99th percentile, from
/// the moment at which a message was due.
async fn half_load(visitors: Vec<Visitor>, rate: f64) -> Result<f64> {
    let interval = Duration::from_secs_f64(visitors.len() as f64 / rate);
    let began = Instant::now() + Duration::from_millis(100);
    let mut sending = JoinSet::new();
    for (number, mut visitor) in visitors.into_iter().enumerate() {
        let mut due = began + interval.mul_f64(number as f64 / SOCKETS as f64);
        sending.spawn(async move {
            let mut waits_ms = Vec::new();
            while due < began + TIME {
                tokio::time::sleep_until(due.into()).await;
                visitor.send().await?;
                waits_ms.push(due.elapsed().as_secs_f64() * 1000.0);
                due += interval;
            }
            anyhow::Ok(waits_ms)
        });
    }
    let mut waits_ms = Vec::new();
    while let Some(ended) = sending.join_next().await {
        waits_ms.extend(ended??);
    }
    ensure!(!waits_ms.is_empty(), "no message came through");
    waits_ms.sort_by(f64::total_cmp);
    Ok(waits_ms[(waits_ms.len() - 1) * 99 / 100])
}
