//! The listener for operators: health and metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::gauges::Gauges;
use crate::roles::{Parts, Role};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long a dependency may take to show that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the operators' routes look at.
pub struct Ops {
    pub role: Role,
    pub parts: Arc<Parts>,
    pub gauges: Gauges,
}

/// `/health/live`, `/health/ready`, `/metrics`.
pub fn routes(ops: Arc<Ops>) -> Router {
    Router::new()
        // Asks nothing of anybody: a restart would not bring a database back.
        .route("/health/live", get(|| async { "ok\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(ops)
}

async fn ready(State(ops): State<Arc<Ops>>) -> (StatusCode, String) {
    match tokio::time::timeout(PATIENCE, not_ready(ops.role, &ops.parts)).await {
        Ok(None) => (StatusCode::OK, "ready\n".to_owned()),
        Ok(Some(reason)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "no answer in time\n".to_owned()),
    }
}

/// Why this role cannot do its work now.
async fn not_ready(role: Role, parts: &Parts) -> Option<&'static str> {
    if !parts.started.get().copied().unwrap_or(false) {
        return Some("starting");
    }
    if role.receives() {
        match parts.bus.get() {
            Some(bus) if bus.has_space().await => {}
            _ => return Some("the spool is full"),
        }
    }
    if role.needs_store() {
        match parts.store.get() {
            Some(store) if store.offsets(bus::EVENTS).await.is_ok() => {}
            _ => return Some("the database is away"),
        }
    }
    None
}

async fn metrics(State(ops): State<Arc<Ops>>) -> Response {
    ops.gauges.refresh(ops.role, &ops.parts).await;
    let mut text = String::new();
    let registry = ops.parts.registry.lock().await;
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_role_that_is_starting_lives_and_is_not_ready() {
        for role in [Role::All, Role::Gateway, Role::Worker, Role::Router, Role::Api] {
            assert_eq!(
                not_ready(role, &Parts::new(crate::telemetry::registry())).await,
                Some("starting")
            );
        }
    }

    #[tokio::test]
    async fn without_its_database_a_role_is_not_ready() {
        let parts = Parts::new(crate::telemetry::registry());
        parts.started.set(true).unwrap();
        assert_eq!(not_ready(Role::Router, &parts).await, Some("the database is away"));
        assert_eq!(not_ready(Role::Api, &parts).await, Some("the database is away"));
        assert_eq!(not_ready(Role::Gateway, &parts).await, Some("the spool is full"));
    }
}
