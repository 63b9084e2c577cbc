//! The floor under ingest: the least that a durable, verified webhook can cost.
//! An axum handler that checks the Standard Webhooks signature, produces to Kafka
//! with the settings of `bus`, and waits for the delivery report. Nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
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

struct Floor {
    key: hmac::Key,
    producer: FutureProducer,
}

/// Serves until it is killed.
pub async fn serve(listen: SocketAddr, kafka: &str, secret: &str) -> Result<()> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("compression.type", "lz4")
        .create()
        .context("floor: no producer")?;
    let secret = STANDARD
        .decode(secret.trim_start_matches("whsec_"))
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
