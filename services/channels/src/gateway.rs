//! The public routes: `POST /in/{account}`.
//!
//! The order of things: account, size, body, signature on the raw bytes, events,
//! durable, answer (C1). Who starts the listener sets [`HEADER_READ_TIMEOUT`] and
//! [`MAX_HEADERS_BYTES`] on its HTTP/1 connections.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use crate::channel::{Answer, Channel, Input, Parsed, Unparsed};
use crate::inbox::{Arrival, Inbox, TRACEPARENT, continue_trace};
use crate::list::{Account, Accounts};

/// For hyper's `header_read_timeout`: headers that come slower are a dead client.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// For hyper's `max_buf_size`: larger headers are answered 431.
pub const MAX_HEADERS_BYTES: usize = 64 * 1024;

/// A longer body is answered 413.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
/// A body that takes longer is answered 408.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A body up to this size is read and parsed at once; a larger one needs one of
/// [`LARGE_BODIES`] places, so that slow senders cannot fill the memory, and is
/// parsed on a thread of its own.
const SMALL_BODY_BYTES: usize = 64 * 1024;
const LARGE_BODIES: usize = 32;
/// Of the sender's headers, a value longer than this is not kept.
const MAX_KEPT_HEADER_BYTES: usize = 8 * 1024;
/// So long a large body waits for its place.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);
/// When to come again after a 503.
const RETRY_AFTER_S: &str = "5";

struct Gateway {
    accounts: Accounts,
    inbox: Inbox,
    large_bodies: Semaphore,
}

/// Why an input got no 2xx.
enum Refused {
    NotFound,
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
/// input we fetch ourselves: what it believes without a signature must not come
/// from here.
pub fn routes(mut accounts: Accounts, inbox: Inbox) -> Router {
    accounts.retain(|_, account| !account.channel.pulls());
    let gateway = Arc::new(Gateway {
        accounts,
        inbox,
        large_bodies: Semaphore::new(LARGE_BODIES),
    });
    Router::new()
        .route("/in/{account}", post(receive))
        .with_state(gateway)
        .fallback(not_found)
        .layer(CatchPanicLayer::custom(|_| fault()))
}

/// The one 404 of the public listener.
pub async fn not_found() -> Response {
    refusal(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
}

async fn receive(
    State(gateway): State<Arc<Gateway>>,
    account: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Response {
    let caller = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let traceparent = continue_trace(caller);
    let known = account.ok().and_then(|Path(name)| gateway.accounts.get(&name));
    let Some(account) = known else {
        gateway.inbox.rejected("", Refused::NotFound.reason());
        return not_found().await;
    };
    let span = tracing::info_span!("receive", account.name = account.plan.name, traceparent);
    let handled = gateway.handle(account, request, &traceparent).instrument(span.clone());
    let mut response = match handled.await {
        Ok(answer) => answered(answer),
        Err(refused) => span.in_scope(|| gateway.refuse(account, refused)),
    };
    if let Ok(request_id) = HeaderValue::from_str(&traceparent[3..35]) {
        let name = HeaderName::from_static("x-request-id");
        response.headers_mut().insert(name, request_id);
    }
    response
}

impl Gateway {
    async fn handle(&self, account: &Account, request: Request, traceparent: &str) -> Result<Answer, Refused> {
        let (plan, channel) = (&account.plan, &account.channel);
        let (head, body) = request.into_parts();
        let (body, _place) = self.read(&head.headers, body).await?;
        let path_and_query = head.uri.path_and_query();
        let mut input = Input {
            method: head.method.to_string(),
            url: path_and_query.map(ToString::to_string).unwrap_or_default(),
            headers: kept_headers(&head.headers, channel.as_ref()),
            body,
            received_at: SystemTime::now().into(),
        };
        input.headers.push((TRACEPARENT.to_owned(), traceparent.to_owned()));
        if let Err(bad) = channel.verify(&input) {
            self.inbox
                .quarantine(&plan.name, &plan.channel, &input, bad.reason)
                .await;
            return Err(Refused::BadSignature);
        }
        let parked = match parse(channel, &input).await {
            Ok(Parsed { events, answer }) => {
                let accepted = self
                    .inbox
                    .accept(&plan.name, &plan.channel, &input, events, Arrival::Pushed);
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

    /// The whole body, within its size and its time; a large one with its place.
    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Refused> {
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length: Option<usize> = length.and_then(|text| text.parse().ok());
        if length.is_some_and(|length| length > MAX_BODY_BYTES) {
            return Err(Refused::TooLarge);
        }
        let reading = self.read_within_size(body);
        timeout(BODY_TIMEOUT, reading).await.unwrap_or(Err(Refused::TooSlow))
    }

    async fn read_within_size(&self, body: Body) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Refused> {
        let mut chunks = body.into_data_stream();
        let mut read = BytesMut::new();
        let mut place = None;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Refused::Broken)?;
            let size = read.len() + chunk.len();
            if size > MAX_BODY_BYTES {
                return Err(Refused::TooLarge);
            }
            if size > SMALL_BODY_BYTES && place.is_none() {
                let found = timeout(PLACE_TIMEOUT, self.large_bodies.acquire()).await;
                place = Some(found.map_err(|_| Refused::Busy)?.map_err(|_| Refused::Busy)?);
            }
            read.extend_from_slice(&chunk);
        }
        Ok((read.freeze(), place))
    }

    fn refuse(&self, account: &Account, refused: Refused) -> Response {
        self.inbox.rejected(&account.plan.name, refused.reason());
        tracing::debug!(reason = refused.reason(), "input refused");
        match refused {
            Refused::NotFound => refusal(StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
            Refused::TooLarge => {
                let detail = format!("the body is longer than {MAX_BODY_BYTES} bytes");
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
            Self::NotFound => "unknown_account",
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

fn parse_caught(channel: &dyn Channel, input: &Input) -> Result<Parsed, Unparsed> {
    catch_unwind(AssertUnwindSafe(|| channel.parse(input))).unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Unparsed {
    Unparsed::Parked {
        reason: "the parser failed on it".to_owned(),
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
