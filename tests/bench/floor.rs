//! The floor under ingest: the least that a durable, verified webhook can cost.
//! An axum handler that checks the Standard Webhooks signature, produces to Kafka
//! with the settings of `bus` (but for these two), and waits for the delivery report. Nothing else.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::process::{Child, Command};

use crate::load::{Connection, SECRET};

struct Floor {
    key: hmac::Key,
    producer: FutureProducer,
}

/// Starts a floor in a process of its own: a role of this binary, with what it is
/// told besides the addresses.
pub async fn start(role: &str, listen: SocketAddr, kafka_port: u16, more: &[&str]) -> Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .args([role, &listen.to_string(), &format!("127.0.0.1:{kafka_port}")])
        .args(more)
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

/// Serves until it is killed. How long a batch waits for more, and how many requests
/// are under way, decide how fast it is.
pub async fn serve(listen: SocketAddr, kafka: &str, linger_ms: &str, in_flight: &str) -> Result<()> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", linger_ms)
        .set("max.in.flight.requests.per.connection", in_flight)
        .set("compression.type", "lz4")
        .create()
        .context("floor: no producer")?;
    let secret = STANDARD
        .decode(SECRET.trim_start_matches("whsec_"))
        .context("floor: secret is not base64")?;
    let floor = Arc::new(Floor {
        key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        producer,
    });
    let routes = Router::new().route("/in/bench", post(take)).with_state(floor);
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .context("floor: cannot listen")?;
    axum::serve(listener, routes).await.context("floor: cannot serve")
}

async fn take(State(floor): State<Arc<Floor>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let id = header("webhook-id");
    let signed = [id.as_bytes(), b".", header("webhook-timestamp").as_bytes(), b".", &body].concat();
    let signature = header("webhook-signature")
        .strip_prefix("v1,")
        .and_then(|text| STANDARD.decode(text).ok());
    let is_right = signature.is_some_and(|signature| hmac::verify(&floor.key, &signed, &signature).is_ok());
    if !is_right {
        return StatusCode::UNAUTHORIZED;
    }
    let record = FutureRecord::to("bench.floor").key(id).payload(body.as_ref());
    match floor.producer.send_result(record) {
        Ok(report) => match report.await {
            Ok(Ok(_)) => StatusCode::OK,
            Ok(Err(_)) | Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        },
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
