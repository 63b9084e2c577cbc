//! The Web API, `/api/{method}`; where files are uploaded and fetched; and where a
//! socket is opened.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::super::twilio::{Form, form_of};
use super::super::{Mood, Moods, lock};
use super::{APP_TOKEN, BOT_TOKEN, BOT_USER, Posted, State, TEAM, socket};

/// What every file is.
pub const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n a picture of a bike";

/// To one channel a message a second; Slack lets a short burst go.
const BETWEEN: Duration = Duration::from_millis(800);

struct Server {
    port: u16,
    state: Arc<State>,
    moods: Arc<Moods>,
}

pub fn routes(port: u16, state: Arc<State>, moods: Arc<Moods>) -> Router {
    let server = Arc::new(Server {
        port,
        state: state.clone(),
        moods,
    });
    Router::new()
        .route("/api/{method}", post(call))
        .route("/upload/{id}", post(upload))
        .route("/files/{name}", get(file))
        .with_state(server)
        .merge(socket::routes(state))
}

async fn call(
    Shared(server): Shared<Arc<Server>>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let wanted = match method.as_str() {
        "apps.connections.open" => APP_TOKEN,
        _ => BOT_TOKEN,
    };
    if bearer(&headers) != Some(wanted) {
        return server.refuse(&method, "invalid_auth");
    }
    if wanted == BOT_TOKEN && server.state.is_revoked.load(Ordering::Relaxed) {
        return server.refuse(&method, "token_revoked");
    }
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let form = match fields(media_type.unwrap_or_default(), &body) {
        Some(form) => form,
        None => return server.refuse(&method, "invalid_form_data"),
    };
    let done = match method.as_str() {
        "auth.test" => Ok(json!({ "user": "support", "user_id": BOT_USER, "team": "The stories", "team_id": TEAM })),
        "apps.connections.open" => Ok(json!({ "url": server.state.sockets.ticket(server.port) })),
        "conversations.open" => open(&form),
        "chat.postMessage" => return server.post_message(form).await,
        "files.getUploadURLExternal" => server.begin_upload(&form),
        "files.completeUploadExternal" => server.complete_upload(&form),
        "files.info" => server.file_info(&form),
        _ => Err("unknown_method"),
    };
    match done {
        Ok(answer) => well(answer),
        Err(error) => server.refuse(&method, error),
    }
}

/// Slack takes forms, whose values may be JSON, and JSON.
fn fields(media_type: &str, body: &[u8]) -> Option<Form> {
    match media_type.split(';').next().unwrap_or_default() {
        "application/x-www-form-urlencoded" => Some(form_of(body)),
        "application/json" => {
            let fields: serde_json::Map<String, Value> = serde_json::from_slice(body).ok()?;
            let text = |value: Value| match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            Some(Form(
                fields.into_iter().map(|(name, value)| (name, text(value))).collect(),
            ))
        }
        _ => None,
    }
}

/// Direct messages with `U…` are `D…`.
fn open(form: &Form) -> Result<Value, &'static str> {
    let user = form.get("users").unwrap_or_default();
    match user.strip_prefix('U') {
        Some(rest) if !rest.is_empty() => Ok(json!({ "channel": { "id": format!("D{rest}") } })),
        _ => Err("user_not_found"),
    }
}

impl Server {
    async fn post_message(&self, form: Form) -> Response {
        if let Err(error) = check(&form) {
            return self.refuse("chat.postMessage", error);
        }
        let channel = form.get("channel").unwrap_or_default().to_owned();
        let mood = self.moods.take();
        if let Some(Mood::Busy { .. } | Mood::Fails(_)) = mood {
            return self.fail(mood).await;
        }
        if self.is_too_fast(&channel) {
            lock(&self.state.refusals).push(format!("too fast for {channel}"));
            return Mood::Busy { retry_after_s: 1 }.answer(failure("ratelimited")).await;
        }
        let posted = Posted {
            channel: channel.clone(),
            thread_ts: form.get("thread_ts").map(str::to_owned),
            text: form.get("text").unwrap_or_default().to_owned(),
            metadata: form
                .get("metadata")
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
            ..Posted::default()
        };
        let ts = self.keep(posted);
        match mood {
            Some(_) => self.fail(mood).await,
            None => well(json!({ "channel": channel, "ts": ts, "message": { "type": "message", "user": BOT_USER } })),
        }
    }

    async fn fail(&self, mood: Option<Mood>) -> Response {
        let body = match mood {
            Some(Mood::Busy { .. }) => failure("ratelimited"),
            _ => String::new(),
        };
        mood.unwrap_or(Mood::Fails(500)).answer(body).await
    }

    fn is_too_fast(&self, channel: &str) -> bool {
        let mut last = lock(&self.state.last);
        let before = last.insert(channel.to_owned(), Instant::now());
        before.is_some_and(|before| before.elapsed() < BETWEEN)
    }

    /// Takes a message, and gives it its time.
    fn keep(&self, mut posted: Posted) -> String {
        let mut all = lock(&self.state.posted);
        posted.ts = format!("{}.{:06}", 1_790_000_000 + all.len(), all.len());
        let ts = posted.ts.clone();
        all.push(posted);
        ts
    }

    fn begin_upload(&self, form: &Form) -> Result<Value, &'static str> {
        let (name, length) = (form.get("filename").unwrap_or_default(), form.get("length"));
        if name.is_empty() || length.is_none_or(|length| length.parse::<u64>().is_err()) {
            return Err("invalid_arguments");
        }
        let mut uploads = lock(&self.state.uploads);
        let id = format!("F{:04}", uploads.len() + 1);
        uploads.insert(id.clone(), (name.to_owned(), None));
        let url = format!("http://127.0.0.1:{}/upload/{id}", self.port);
        Ok(json!({ "upload_url": url, "file_id": id }))
    }

    fn complete_upload(&self, form: &Form) -> Result<Value, &'static str> {
        let files: Value =
            serde_json::from_str(form.get("files").unwrap_or_default()).map_err(|_| "invalid_arguments")?;
        let channel = form.get("channel_id").unwrap_or_default();
        if !is_channel(channel) {
            return Err("channel_not_found");
        }
        let mut uploads = lock(&self.state.uploads);
        let mut shared = Vec::new();
        for file in files.as_array().into_iter().flatten() {
            let uploaded = uploads.remove(file["id"].as_str().unwrap_or_default());
            let Some((name, Some(bytes))) = uploaded else {
                return Err("file_not_found");
            };
            shared.push((name, bytes));
        }
        if shared.is_empty() {
            return Err("invalid_arguments");
        }
        drop(uploads);
        self.keep(Posted {
            channel: channel.to_owned(),
            thread_ts: form.get("thread_ts").map(str::to_owned),
            files: shared,
            ..Posted::default()
        });
        Ok(json!({ "files": files }))
    }

    fn file_info(&self, form: &Form) -> Result<Value, &'static str> {
        let id = form.get("file").unwrap_or_default();
        if !id.starts_with('F') {
            return Err("file_not_found");
        }
        let url = format!("http://127.0.0.1:{}/files/{id}.png", self.port);
        Ok(json!({ "file": { "id": id, "mode": "hosted", "mimetype": "image/png", "url_private_download": url } }))
    }

    fn refuse(&self, method: &str, error: &'static str) -> Response {
        lock(&self.state.refusals).push(format!("{method}: {error}"));
        ([(header::CONTENT_TYPE, "application/json")], failure(error)).into_response()
    }
}

fn check(form: &Form) -> Result<(), &'static str> {
    let (channel, text) = (
        form.get("channel").unwrap_or_default(),
        form.get("text").unwrap_or_default(),
    );
    match channel {
        "CGONE" => return Err("channel_not_found"),
        "CARCHIVE" => return Err("is_archived"),
        channel if !is_channel(channel) => return Err("channel_not_found"),
        _ => {}
    }
    if text.is_empty() {
        return Err("no_text");
    }
    if text.chars().count() > 40_000 {
        return Err("msg_too_long");
    }
    // It would be taken for a person or a link.
    if text.contains('<') || text.contains('>') {
        return Err("invalid_blocks");
    }
    if form.get("thread_ts").is_some_and(|ts| ts.split_once('.').is_none()) {
        return Err("invalid_arguments");
    }
    let metadata: Option<Value> = form.get("metadata").and_then(|text| serde_json::from_str(text).ok());
    match metadata.is_none_or(|metadata| metadata["event_type"].is_string() && metadata["event_payload"].is_object()) {
        true => Ok(()),
        false => Err("invalid_metadata_format"),
    }
}

fn is_channel(channel: &str) -> bool {
    channel.starts_with(['C', 'D', 'G'])
        && channel
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// Takes the bytes of a file.
async fn upload(Shared(server): Shared<Arc<Server>>, Path(id): Path<String>, body: Bytes) -> Response {
    match lock(&server.state.uploads).get_mut(&id) {
        Some((_, bytes)) => {
            *bytes = Some(body.to_vec());
            format!("OK - {}", body.len()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Whoever has no token gets a page to log in, with a good status.
async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    if bearer(&headers) != Some(BOT_TOKEN) || name.starts_with("forbidden") {
        let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Slack</body></html>";
        return ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response();
    }
    ([(header::CONTENT_TYPE, "image/png")], PICTURE.to_vec()).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

fn failure(error: &str) -> String {
    json!({ "ok": false, "error": error }).to_string()
}

fn well(mut answer: Value) -> Response {
    answer["ok"] = Value::Bool(true);
    (
        [(header::CONTENT_TYPE, "application/json; charset=utf-8")],
        answer.to_string(),
    )
        .into_response()
}
