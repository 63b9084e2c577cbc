//! Socket Mode: tickets for once, envelopes until they are acknowledged, and again
//! over another socket if theirs breaks or nothing is heard of them for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::lock;
use super::{APP, Slack, State};

/// An envelope that is not acknowledged is sent again after so long.
const AGAIN: Duration = Duration::from_secs(3);

/// All that waits for a socket.
pub(crate) struct Sockets {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    tickets: BTreeSet<u64>,
    opened: u64,
    open: BTreeSet<u64>,
    waiting: BTreeMap<u64, Waiting>,
    sent: u64,
    acknowledged: Vec<u64>,
    strange: Vec<String>,
    /// Sockets older than this are told to go, and why.
    refresh: Option<(u64, &'static str)>,
}

struct Waiting {
    kind: String,
    payload: Value,
    attempts: u64,
    /// Over which socket, and when.
    under_way: Option<(u64, Instant)>,
}

impl Default for Sockets {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::channel(0).0,
        }
    }
}

impl Slack {
    /// Tells this over a socket, as soon as there is one. The envelope's number.
    pub fn tell(&self, kind: &str, payload: &Value) -> u64 {
        self.state.sockets.change(|inner| {
            inner.sent += 1;
            let waiting = Waiting {
                kind: kind.to_owned(),
                payload: payload.clone(),
                attempts: 0,
                under_way: None,
            };
            inner.waiting.insert(inner.sent, waiting);
            inner.sent
        })
    }

    /// Numbers of the envelopes that we have acknowledged, each as often as we did.
    pub fn acknowledged(&self) -> Vec<u64> {
        lock(&self.state.sockets.inner).acknowledged.clone()
    }

    /// How many sockets were ever opened, and how many are open.
    pub fn sockets(&self) -> (u64, usize) {
        let inner = lock(&self.state.sockets.inner);
        (inner.opened, inner.open.len())
    }

    /// What was said over a socket that makes no sense to it.
    pub fn strange(&self) -> Vec<String> {
        lock(&self.state.sockets.inner).strange.clone()
    }

    /// Tells all sockets that are open to go, and closes them.
    pub fn part(&self, reason: &'static str) {
        self.state
            .sockets
            .change(|inner| inner.refresh = Some((inner.opened, reason)));
    }
}

impl Sockets {
    /// Where a socket can be opened, once.
    pub(crate) fn ticket(&self, port: u16) -> String {
        self.change(|inner| {
            let ticket = inner.opened * 1_000 + inner.tickets.len() as u64 + 1;
            inner.tickets.insert(ticket);
            format!("ws://127.0.0.1:{port}/link/?ticket={ticket}&app_id={APP}")
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let changed = change(&mut lock(&self.inner));
        self.changed.send_modify(|count| *count += 1);
        changed
    }

    /// The next frame for this socket; `Err` is its last one.
    fn next(&self, socket: u64) -> Option<Result<String, String>> {
        let mut inner = lock(&self.inner);
        if let Some((_, reason)) = inner.refresh.filter(|(before, _)| socket <= *before) {
            return Some(Err(json!({ "type": "disconnect", "reason": reason }).to_string()));
        }
        let open = inner.open.clone();
        let is_free = |waiting: &Waiting| match waiting.under_way {
            Some((other, at)) => !open.contains(&other) || at.elapsed() >= AGAIN,
            None => true,
        };
        let (number, waiting) = inner.waiting.iter_mut().find(|(_, waiting)| is_free(waiting))?;
        waiting.under_way = Some((socket, Instant::now()));
        let frame = json!({
            "envelope_id": number.to_string(), "type": waiting.kind, "payload": waiting.payload,
            "accepts_response_payload": false, "retry_attempt": waiting.attempts, "retry_reason": "",
        });
        waiting.attempts += 1;
        Some(Ok(frame.to_string()))
    }

    fn heard(&self, text: &str) {
        let said: Value = serde_json::from_str(text).unwrap_or_default();
        let number = said["envelope_id"].as_str().and_then(|id| id.parse().ok());
        self.change(|inner| match number {
            Some(number) => {
                inner.waiting.remove(&number);
                inner.acknowledged.push(number);
            }
            None => inner.strange.push(text.to_owned()),
        });
    }
}

pub(crate) fn routes(state: Arc<State>) -> Router {
    Router::new().route("/link/", get(link)).with_state(state)
}

async fn link(
    Shared(state): Shared<Arc<State>>,
    Query(query): Query<BTreeMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let ticket = query.get("ticket").and_then(|ticket| ticket.parse().ok());
    let is_good = ticket.is_some_and(|ticket: u64| state.sockets.change(|inner| inner.tickets.remove(&ticket)));
    match is_good {
        true => upgrade.on_upgrade(async move |socket| serve(state, socket).await),
        false => StatusCode::FORBIDDEN.into_response(),
    }
}

async fn serve(state: Arc<State>, mut websocket: WebSocket) {
    let sockets = &state.sockets;
    let number = sockets.change(|inner| {
        inner.opened += 1;
        inner.open.insert(inner.opened);
        inner.opened
    });
    talk(sockets, number, &mut websocket).await;
    sockets.change(|inner| inner.open.remove(&number));
}

/// Until one of both has enough; then the socket falls.
async fn talk(sockets: &Sockets, number: u64, websocket: &mut WebSocket) {
    let hello = json!({ "type": "hello", "num_connections": 1, "connection_info": { "app_id": APP },
        "debug_info": { "host": "applink-1", "build_number": 1, "approximate_connection_time": 18060 } });
    let mut changed = sockets.changed.subscribe();
    let mut frame: Option<Result<String, String>> = Some(Ok(hello.to_string()));
    loop {
        let sent = match frame {
            Some(Ok(text)) => websocket.send(Message::Text(text.into())).await,
            Some(Err(last)) => {
                let _ = websocket.send(Message::Text(last.into())).await;
                return;
            }
            None => Ok(()),
        };
        if sent.is_err() {
            return;
        }
        frame = sockets.next(number);
        if frame.is_some() {
            continue;
        }
        tokio::select! {
            heard = websocket.recv() => match heard {
                Some(Ok(Message::Text(text))) => sockets.heard(text.as_str()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return,
            },
            _ = changed.changed() => {}
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}
