//! Files of visitors: `POST /chat/{account}/files` keeps the bytes and answers with a
//! receipt that a `send` may name, `GET /chat/{account}/files/{sha256}` gives a file to
//! whoever was shown it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use model::event::Attachment;
use model::file;
use model::time::Moment;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::session::Visitor;
use super::{Chat, Door, limits, now};
use crate::live::Live;
use crate::signature::Keys;

const RECEIPT: &str = "chat-file";
const SHOWN: &str = "chat-file-shown";

/// So many uploads at once, of one account in one process.
pub(super) const UPLOADS: usize = 16;
/// Of one upload.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_AFTER_S: &str = "10";
/// So long after its upload a message may name a file.
const USABLE_MS: i64 = 24 * 3_600_000;
/// A file that no message has named by then goes: late enough for a message that
/// waits in a spool.
const KEPT_MS: i64 = 3 * USABLE_MS;

/// Routes of files.
pub(super) fn routes(door: Door) -> Router {
    let path = format!("/chat/{}/files", door.chat.account);
    Router::new()
        .route(&path, post(upload).options(preflight))
        .route(&format!("{path}/{{sha256}}"), get(download))
        .with_state(door)
}

#[derive(Deserialize)]
struct Upload {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Download {
    name: String,
    r#type: String,
    token: String,
}

/// Why there is no file.
enum Refused {
    Forbidden,
    Unauthorized(&'static str),
    NotFound,
    TooMany,
    Busy,
    TooLarge { max_bytes: u64 },
    TooSlow,
    Broken,
    Type { reason: String },
    Fault,
}

async fn upload(
    State(door): State<Door>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(upload): Query<Upload>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let address = limits::address(&headers, peer.ip(), door.chat.settings.trusted_proxies);
    let answer = match take(&door, address, &upload.name, &headers, body).await {
        Ok(receipt) => {
            let file = receipt.token(&door.chat.account, &door.chat.keys);
            let kept = &receipt.attachment;
            let answer = serde_json::json!({
                "file": file,
                "name": kept.name,
                "media_type": kept.media_type,
                "size_bytes": kept.size_bytes,
                "sha256": kept.sha256,
            });
            (StatusCode::CREATED, axum::Json(answer)).into_response()
        }
        Err(refused) => refused.into_response(),
    };
    door.chat.shared_with(&headers, answer)
}

async fn take(door: &Door, address: IpAddr, name: &str, headers: &HeaderMap, body: Body) -> Result<Receipt, Refused> {
    let chat = &door.chat;
    if !chat.may_come_from(headers) {
        return Err(Refused::Forbidden);
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let session = bearer.and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default();
    let visitor = Visitor::of_token(&chat.account, &chat.keys, session, now()).map_err(Refused::Unauthorized)?;
    if !chat.limits.may_send(&visitor.thread) {
        return Err(Refused::TooMany);
    }
    let _place = chat.uploads.try_acquire().map_err(|_| Refused::Busy)?;
    let limits = door.live.files();
    let max_bytes = chat.settings.max_file_bytes.min(limits.max_bytes);
    let reading = read(body.into_data_stream(), max_bytes);
    let bytes = timeout(PATIENCE, reading).await.map_err(|_| Refused::TooSlow)??;
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = limits
        .check(&bytes, declared.unwrap_or_default())
        .map_err(|reason| Refused::Type { reason })?;
    if !chat.settings.takes_type(&media_type) {
        let reason = format!("files of the type {media_type} are not taken");
        return Err(Refused::Type { reason });
    }
    if !chat.limits.may_upload(address, bytes.len()) {
        return Err(Refused::TooMany);
    }
    let attachment = Attachment::here(file::safe_name(name), media_type, &bytes);
    let now = now();
    keep(&door.live, bytes, now).await.map_err(|error| {
        tracing::warn!(account.name = chat.account, error, "an upload was not kept");
        Refused::Busy
    })?;
    Ok(Receipt {
        thread: visitor.thread,
        attachment,
        until: now.plus_ms(USABLE_MS).as_ms(),
    })
}

/// The bytes go again when nothing has used them by then.
async fn keep(live: &Live, bytes: Vec<u8>, now: Moment) -> Result<(), String> {
    let sha256 = live.blobs().put(bytes).await.map_err(|error| error.to_string())?;
    let noted = live.store().note_removal(&sha256, now, now.plus_ms(KEPT_MS));
    noted.await.map_err(|error| error.to_string())
}

async fn read(mut chunks: BodyDataStream, max_bytes: u64) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Refused::Broken)?;
        if (bytes.len() + chunk.len()) as u64 > max_bytes {
            return Err(Refused::TooLarge { max_bytes });
        }
        bytes.extend_from_slice(&chunk);
    }
    match bytes.is_empty() {
        true => Err(Refused::Broken),
        false => Ok(bytes),
    }
}

async fn download(
    State(door): State<Door>,
    Path(sha256): Path<String>,
    Query(asked): Query<Download>,
    headers: HeaderMap,
) -> Response {
    let answer = match give(&door, &sha256, &asked, &headers).await {
        Ok(answer) => answer,
        Err(refused) => refused.into_response(),
    };
    door.chat.shared_with(&headers, answer)
}

async fn give(door: &Door, sha256: &str, asked: &Download, headers: &HeaderMap) -> Result<Response, Refused> {
    let chat = &door.chat;
    let signed = shown(&chat.account, sha256, &asked.name, &asked.r#type);
    if !chat.keys.verify(SHOWN, signed.as_bytes(), &asked.token) {
        return Err(Refused::NotFound);
    }
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let served = door.live.blobs().serve(sha256, &asked.name, range).await;
    let served = served.map_err(|error| {
        tracing::warn!(account.name = chat.account, %error, "a file cannot be read");
        Refused::Fault
    })?;
    let served = served.ok_or(Refused::NotFound)?;
    let status = StatusCode::from_u16(served.status).unwrap_or(StatusCode::OK);
    let headers = AppendHeaders(served.headers);
    Ok((status, headers, Body::from_stream(served.bytes)).into_response())
}

/// What a page of another origin asks before it uploads.
async fn preflight(State(door): State<Door>, headers: HeaderMap) -> Response {
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (header::ACCESS_CONTROL_MAX_AGE, "3600"),
    ];
    let answer = (StatusCode::NO_CONTENT, AppendHeaders(allowed)).into_response();
    door.chat.shared_with(&headers, answer)
}

impl Chat {
    /// The answer, readable by the page that asked, if it may come here.
    fn shared_with(&self, request: &HeaderMap, mut answer: Response) -> Response {
        if let Some(origin) = request.get(header::ORIGIN)
            && self.may_come_from(request)
        {
            let headers = answer.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::VARY, HeaderValue::from_static("origin"));
        }
        answer
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code, detail) = match self {
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "foreign_origin",
                "this page may not chat here".to_owned(),
            ),
            Self::Unauthorized(reason) => (StatusCode::UNAUTHORIZED, "unauthorized", reason.to_owned()),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "there is nothing here".to_owned()),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "flood", "come again later".to_owned()),
            Self::Busy | Self::Fault => {
                let detail = "this cannot be taken now, come again".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            }
            Self::TooLarge { max_bytes } => {
                let detail = format!("a file has at most {max_bytes} bytes");
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
            }
            Self::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                "the body took too long".to_owned(),
            ),
            Self::Broken => (
                StatusCode::BAD_REQUEST,
                "malformed",
                "the body is empty or broken".to_owned(),
            ),
            Self::Type { reason } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", reason),
        };
        let body = serde_json::json!({ "code": code, "detail": detail });
        let mut response = (status, axum::Json(body)).into_response();
        if matches!(status.as_u16(), 429 | 503) {
            let name = HeaderName::from_static("retry-after");
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response
    }
}

/// That a visitor uploaded a file: only who has it can send the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub thread: String,
    pub attachment: Attachment,
    /// Until when a message may name it, in milliseconds since 1970.
    pub until: i64,
}

impl Receipt {
    /// The receipt of this token, if we signed it for this visitor of this account
    /// and the file was still kept `at` the time of the message; else why not.
    pub fn of_token(account: &str, keys: &Keys, thread: &str, token: &str, at: Moment) -> Result<Self, &'static str> {
        const FOREIGN: &str = "a file was not uploaded by this visitor";
        let (payload, mac) = token.split_once('.').ok_or(FOREIGN)?;
        if !keys.verify(RECEIPT, signed(account, payload).as_bytes(), mac) {
            return Err(FOREIGN);
        }
        let json = URL_SAFE_NO_PAD.decode(payload).map_err(|_| FOREIGN)?;
        let receipt: Self = serde_json::from_slice(&json).map_err(|_| FOREIGN)?;
        if receipt.thread != thread {
            return Err(FOREIGN);
        }
        match at.as_ms() <= receipt.until {
            true => Ok(receipt),
            false => Err("a file was uploaded too long ago, and is gone"),
        }
    }

    /// What the client sends along.
    pub fn token(&self, account: &str, keys: &Keys) -> String {
        // Texts and numbers alone: it cannot fail.
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_string(self).unwrap_or_default());
        let mac = keys.sign(RECEIPT, signed(account, &payload).as_bytes());
        format!("{payload}.{mac}")
    }
}

/// Where a file of the conversation is to be had, by path and query: good for
/// whoever was shown it.
pub(super) fn url(account: &str, keys: &Keys, file: &Attachment) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("name", &file.name);
    query.append_pair("type", &file.media_type);
    let token = keys.sign(
        SHOWN,
        shown(account, &file.sha256, &file.name, &file.media_type).as_bytes(),
    );
    query.append_pair("token", &token);
    format!("/chat/{account}/files/{}?{}", file.sha256, query.finish())
}

fn shown(account: &str, sha256: &str, name: &str, media_type: &str) -> String {
    format!("{account}\n{sha256}\n{media_type}\n{name}")
}

fn signed(account: &str, payload: &str) -> String {
    format!("{account}\n{payload}")
}
