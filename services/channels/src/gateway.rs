//! The public routes: `POST /in/{account}`, and `GET` for vendors who ask first
//! whether the address is ours.
//!
//! The order of things: account, size, body, signature on the raw bytes, events,
//! durable, answer (C1). Who starts the listener bounds the size and the time of
//! headers.

mod body;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use futures_util::FutureExt;
use tracing::Instrument;

use self::body::{BOUNDS, Bounds, Room, SMALL_BODY_BYTES};
use crate::channel::{Answer, Channel, Input, Parsed, Unparsed};
use crate::inbox::{Arrival, Inbox, TRACEPARENT, continue_trace};
use crate::list::{Account, Accounts};

/// Of the sender's headers, a value longer than this is not kept.
const MAX_KEPT_HEADER_BYTES: usize = 8 * 1024;
/// When to come again after a 503.
const RETRY_AFTER_S: &str = "5";

struct Gateway {
    doors: HashMap<String, Door>,
    inbox: Inbox,
    room: Room,
    bounds: Bounds,
}

/// One account, as its senders meet it.
struct Door {
    account: Account,
    room: Room,
}

/// Why an input got no 2xx.
enum Refused {
    TooLarge,
    TooSlow,
    /// The client went away or broke the protocol.
    Broken,
    BadSignature,
    Malformed(String),
    Busy,
    Unavailable,
    Fault(String),
}

/// Routes of the public listener. Everything else there is answered by
/// [`not_found`], in the same words as an unknown account; so is an account whose
/// input we fetch ourselves or take from sockets: what it believes without a
/// signature must not come from here.
pub fn routes(accounts: Accounts, inbox: Inbox) -> Router {
    routes_within(accounts, inbox, BOUNDS)
}

fn routes_within(accounts: Accounts, inbox: Inbox, bounds: Bounds) -> Router {
    let mut doors = HashMap::new();
    for (name, account) in accounts {
        if !account.channel.pulls() && !account.plan.live {
            let room = Room::of_account(bounds);
            doors.insert(name, Door { account, room });
        }
    }
    let gateway = Arc::new(Gateway {
        doors,
        inbox,
        room: Room::of_all(bounds),
        bounds,
    });
    Router::new()
        .route("/in/{account}", post(receive).get(shake_hands))
        .method_not_allowed_fallback(async || method_not_allowed("this takes another method, see the header `allow`"))
        .with_state(gateway)
        .fallback(not_found)
}

/// The one 404 of the public listener.
pub async fn not_found() -> Response {
    refusal(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
}

fn method_not_allowed(detail: &str) -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// Nothing is kept of it, whatever it says.
async fn shake_hands(
    State(gateway): State<Arc<Gateway>>,
    account: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Response {
    let known = account.ok().and_then(|Path(name)| gateway.doors.get(&name));
    let Some(door) = known else {
        gateway.inbox.rejected("", "unknown_account");
        return not_found().await;
    };
    let channel = door.account.channel.as_ref();
    let input = input_of(
        request.method(),
        request.uri(),
        request.headers(),
        Bytes::new(),
        channel,
    );
    match catch_unwind(AssertUnwindSafe(|| channel.handshake(&input))) {
        Ok(Some(answer)) => answered(answer),
        Err(_) => fault(),
        Ok(None) => {
            let detail = "nothing can be fetched here, only posted";
            let mut response = method_not_allowed(detail);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            response
        }
    }
}

async fn receive(
    State(gateway): State<Arc<Gateway>>,
    account: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Response {
    let caller = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let traceparent = continue_trace(caller);
    let known = account.ok().and_then(|Path(name)| gateway.doors.get(&name));
    let Some(door) = known else {
        // The name is a stranger's word, and no label.
        gateway.inbox.rejected("", "unknown_account");
        return not_found().await;
    };
    let name = &door.account.plan.name;
    let span = tracing::info_span!("receive", account.name = name, traceparent);
    let handled = gateway.handle(door, request, &traceparent).instrument(span.clone());
    let mut response = match AssertUnwindSafe(handled).catch_unwind().await {
        Ok(Ok(answer)) => answered(answer),
        Ok(Err(refused)) => span.in_scope(|| gateway.refuse(name, refused)),
        Err(_) => fault(),
    };
    if let Ok(request_id) = HeaderValue::from_str(&traceparent[3..35]) {
        let name = HeaderName::from_static("x-request-id");
        response.headers_mut().insert(name, request_id);
    }
    response
}

impl Gateway {
    async fn handle(&self, door: &Door, request: Request, traceparent: &str) -> Result<Answer, Refused> {
        let Account { plan, channel } = &door.account;
        let (head, body) = request.into_parts();
        let held = body::read(&head.headers, body, [&door.room, &self.room], self.bounds).await?;
        let body = held.bytes.clone();
        let mut input = input_of(&head.method, &head.uri, &head.headers, body, channel.as_ref());
        input.headers.push((TRACEPARENT.to_owned(), traceparent.to_owned()));
        if let Err(bad) = channel.verify(&input) {
            self.inbox
                .quarantine(&plan.name, &plan.channel, &input, bad.reason)
                .await;
            return Err(Refused::BadSignature);
        }
        let secrets = channel.secret_headers();
        input.headers.retain(|(name, _)| !secrets.contains(&name.as_str()));
        let parked = match parse(channel, &input).await {
            Ok(Parsed { events, answer }) => {
                let accepted = self
                    .inbox
                    .accept(&plan.name, &plan.channel, input, events, Arrival::Pushed);
                return accepted.await.map(|()| answer).map_err(Refused::from);
            }
            Err(Unparsed::Rejected { reason }) => return Err(Refused::Malformed(reason)),
            Err(Unparsed::Parked { reason }) => reason,
        };
        let parked = self
            .inbox
            .park(&plan.name, &plan.channel, &input, &parked, Arrival::Pushed);
        parked.await.map_err(Refused::from)?;
        Ok(Answer {
            status: 200,
            content_type: "application/json",
            body: "{}".to_owned(),
        })
    }

    fn refuse(&self, account: &str, refused: Refused) -> Response {
        self.inbox.rejected(account, refused.reason());
        tracing::debug!(reason = refused.reason(), "input refused");
        match refused {
            Refused::TooLarge => {
                let detail = format!("the body is longer than {} bytes", body::MAX_BODY_BYTES);
                refusal(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &detail)
            }
            Refused::TooSlow => refusal(StatusCode::REQUEST_TIMEOUT, "timeout", "the body took too long"),
            Refused::Broken => refusal(StatusCode::BAD_REQUEST, "malformed", "the body cannot be read"),
            // The sender is not told what is wrong with it: he may be guessing.
            Refused::BadSignature => refusal(StatusCode::UNAUTHORIZED, "bad_signature", "the signature is not valid"),
            Refused::Malformed(reason) => refusal(StatusCode::BAD_REQUEST, "malformed", &reason),
            Refused::Busy | Refused::Unavailable => {
                let detail = "this cannot be taken now, come again";
                let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
                let after = HeaderValue::from_static(RETRY_AFTER_S);
                response.headers_mut().insert(RETRY_AFTER, after);
                response
            }
            Refused::Fault(error) => {
                tracing::error!(error, "input not accepted");
                fault()
            }
        }
    }
}

impl Refused {
    /// As the metric names it.
    fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Broken => "broken",
            Self::BadSignature => "signature",
            Self::Malformed(_) => "malformed",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Fault(_) => "fault",
        }
    }
}

impl From<bus::Error> for Refused {
    fn from(error: bus::Error) -> Self {
        match error {
            bus::Error::Unavailable(_) => Self::Unavailable,
            bus::Error::Malformed(_) | bus::Error::Settings(_) => Self::Fault(error.to_string()),
        }
    }
}

/// Parses where it blocks nobody; a parser that panics parks its input.
async fn parse(channel: &Arc<dyn Channel>, input: &Input) -> Result<Parsed, Unparsed> {
    if input.body.len() <= SMALL_BODY_BYTES {
        return parse_caught(channel.as_ref(), input);
    }
    let (channel, input) = (channel.clone(), input.clone());
    let parsing = tokio::task::spawn_blocking(move || parse_caught(channel.as_ref(), &input));
    parsing.await.unwrap_or_else(|_| Err(panicked()))
}

/// Parses here and now, panics and all.
pub(crate) fn parse_caught(channel: &dyn Channel, input: &Input) -> Result<Parsed, Unparsed> {
    catch_unwind(AssertUnwindSafe(|| channel.parse(input))).unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Unparsed {
    Unparsed::Parked {
        reason: "the parser failed on it".to_owned(),
    }
}

fn input_of(method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes, channel: &dyn Channel) -> Input {
    let path_and_query = uri.path_and_query();
    Input {
        method: method.to_string(),
        url: path_and_query.map(ToString::to_string).unwrap_or_default(),
        headers: kept_headers(headers, channel),
        body,
        received_at: SystemTime::now().into(),
    }
}

fn kept_headers(headers: &HeaderMap, channel: &dyn Channel) -> Vec<(String, String)> {
    let mut kept = Vec::new();
    for name in channel.kept_headers() {
        for value in headers.get_all(*name) {
            match value.to_str() {
                Ok(text) if text.len() <= MAX_KEPT_HEADER_BYTES => kept.push(((*name).to_owned(), text.to_owned())),
                _ => {}
            }
        }
    }
    kept
}

/// Says nothing: whoever needs to know has the request id and our log.
fn fault() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

fn answered(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let content_type = HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn refusal(status: StatusCode, code: &str, detail: &str) -> Response {
    let body = serde_json::json!({ "code": code, "detail": detail }).to_string();
    let mut response = answered(Answer {
        status: status.as_u16(),
        content_type: "application/json",
        body,
    });
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
