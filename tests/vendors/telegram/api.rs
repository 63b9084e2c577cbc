//! The methods of the Bot API: `/bot<token>/<method>`, and files under
//! `/file/bot<token>/`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::super::{Mood, Moods, lock};
use super::form::{self, File};
use super::{PICTURE, Sent, State, TOKEN, USERNAME, Webhook};

struct Server {
    state: Arc<State>,
    moods: Arc<Moods>,
}

/// Code, words and parameters of an error.
type Refused = (u16, String, Value);

pub fn routes(state: Arc<State>, moods: Arc<Moods>) -> Router {
    Router::new()
        .route("/{bot}/{method}", post(call).get(call))
        .route("/file/{bot}/{*path}", get(file))
        .layer(DefaultBodyLimit::max(60_000_000))
        .with_state(Arc::new(Server { state, moods }))
}

async fn call(
    Shared(server): Shared<Arc<Server>>,
    Path((bot, method)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if bot != format!("bot{TOKEN}") {
        return server.refuse(refused(401, "Unauthorized"));
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let read = match content_type {
        None if body.is_empty() => Some((BTreeMap::new(), None)),
        content_type => form::read(content_type.unwrap_or_default(), &body),
    };
    let Some((fields, file)) = read else {
        return server.refuse(refused(400, "Bad Request: can't parse the request"));
    };
    let done = match method.as_str() {
        "getMe" => Ok(
            json!({ "id": 123_456_789, "is_bot": true, "first_name": "Stories", "username": USERNAME,
            "can_join_groups": true, "can_read_all_group_messages": false, "supports_inline_queries": false }),
        ),
        "setWebhook" => server.set_webhook(&fields),
        "deleteWebhook" => Ok(server.delete_webhook(&fields)),
        "getWebhookInfo" => Ok(server.webhook_info()),
        "getUpdates" => server.updates(&fields).await,
        "getFile" => get_file(&fields),
        "answerCallbackQuery" => server.answer_button(&fields),
        "sendMessage" | "sendPhoto" | "sendDocument" => return server.say(&method, fields, file).await,
        _ => Err(refused(404, "Not Found")),
    };
    match done {
        Ok(result) => answer(200, json!({ "ok": true, "result": result })),
        Err(refused) => server.refuse(refused),
    }
}

/// Behind the same token.
async fn file(Path((bot, path)): Path<(String, String)>) -> Response {
    match (bot == format!("bot{TOKEN}"), path.as_str()) {
        (true, "photos/file_1.png") => ([(header::CONTENT_TYPE, "application/octet-stream")], PICTURE).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn get_file(fields: &BTreeMap<String, Value>) -> Result<Value, Refused> {
    match text(fields, "file_id").as_str() {
        "too_big" => Err(refused(400, "Bad Request: file is too big")),
        id if id.starts_with("AgAC") => {
            Ok(json!({ "file_id": id, "file_unique_id": "u", "file_path": "photos/file_1.png" }))
        }
        _ => Err(refused(400, "Bad Request: invalid file_id")),
    }
}

impl Server {
    fn set_webhook(&self, fields: &BTreeMap<String, Value>) -> Result<Value, Refused> {
        let url = text(fields, "url");
        // Telegram itself takes https alone; here only this machine can be meant.
        if !url.starts_with("https://") && !url.starts_with("http://127.0.0.1:") {
            return Err(refused(
                400,
                "Bad Request: bad webhook: An HTTPS URL must be provided for webhook",
            ));
        }
        let secret = text(fields, "secret_token");
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if secret.len() > 256 || !secret.bytes().all(is_plain) {
            return Err(refused(400, "Bad Request: secret token contains unallowed characters"));
        }
        let mut updates = lock(&self.state.updates);
        if truth(fields, "drop_pending_updates") {
            updates.waiting.clear();
        }
        updates.webhook = Some(Webhook { url, secret });
        drop(updates);
        self.state.changed.notify_waiters();
        Ok(true.into())
    }

    fn delete_webhook(&self, fields: &BTreeMap<String, Value>) -> Value {
        let mut updates = lock(&self.state.updates);
        updates.webhook = None;
        if truth(fields, "drop_pending_updates") {
            updates.waiting.clear();
        }
        true.into()
    }

    fn webhook_info(&self) -> Value {
        let updates = lock(&self.state.updates);
        let url = updates.webhook.as_ref().map_or("", |hook| &hook.url);
        let mut info = json!({ "url": url, "has_custom_certificate": false,
            "pending_update_count": updates.waiting.len(), "max_connections": 40 });
        if let Some(error) = &updates.last_error {
            info["last_error_date"] = now_s().into();
            info["last_error_message"] = error.as_str().into();
        }
        info
    }

    /// Waits for updates from `offset` on, and forgets those before it.
    async fn updates(&self, fields: &BTreeMap<String, Value>) -> Result<Value, Refused> {
        let number = |name: &str| fields.get(name).and_then(integer);
        let until = Instant::now() + Duration::from_secs(number("timeout").unwrap_or(0).unsigned_abs());
        let limit = number("limit").unwrap_or(100).clamp(1, 100) as usize;
        let own = {
            let mut updates = lock(&self.state.updates);
            updates.polls += 1;
            updates.polls
        };
        self.state.changed.notify_waiters();
        loop {
            let changed = self.state.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut updates = lock(&self.state.updates);
                if updates.webhook.is_some() {
                    return Err(refused(
                        409,
                        "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete \
                         the webhook first",
                    ));
                }
                if updates.polls != own {
                    return Err(refused(
                        409,
                        "Conflict: terminated by other getUpdates request; make sure that only one bot instance is \
                         running",
                    ));
                }
                if let Some(offset) = number("offset") {
                    updates.waiting = updates.waiting.split_off(&offset);
                }
                let found: Vec<Value> = updates.waiting.values().take(limit).cloned().collect();
                if !found.is_empty() {
                    return Ok(found.into());
                }
            }
            if timeout_at(until, changed).await.is_err() {
                return Ok(json!([]));
            }
        }
    }

    fn answer_button(&self, fields: &BTreeMap<String, Value>) -> Result<Value, Refused> {
        let id = text(fields, "callback_query_id");
        if id.is_empty() {
            return Err(refused(400, "Bad Request: query is too old or query ID is invalid"));
        }
        lock(&self.state.answered).push(id);
        Ok(true.into())
    }

    async fn say(&self, method: &str, fields: BTreeMap<String, Value>, file: Option<File>) -> Response {
        let chat = match self.check(method, &fields, file.as_ref()) {
            Ok(chat) => chat,
            Err(refused) => return self.refuse(refused),
        };
        let mood = self.moods.take();
        match mood {
            Some(Mood::Busy { retry_after_s }) => {
                let (code, words, _) = refused(429, &format!("Too Many Requests: retry after {retry_after_s}"));
                return self.refuse((code, words, json!({ "retry_after": retry_after_s })));
            }
            Some(Mood::Fails(status)) => return self.refuse(refused(status, "Internal Server Error")),
            _ => {}
        }
        let message = self.keep(method, chat, fields, file);
        match mood {
            Some(mood) => mood.answer(String::new()).await,
            None => answer(200, json!({ "ok": true, "result": message })),
        }
    }

    /// The chat, if Telegram would take the message.
    fn check(&self, method: &str, fields: &BTreeMap<String, Value>, file: Option<&File>) -> Result<i64, Refused> {
        let chat = fields.get("chat_id").and_then(integer);
        let chat = chat.ok_or_else(|| refused(400, "Bad Request: chat_id is empty"))?;
        if chat == 404 {
            return Err(refused(400, "Bad Request: chat not found"));
        }
        if lock(&self.state.blocked).contains(&chat) {
            return Err(refused(403, "Forbidden: bot was blocked by the user"));
        }
        let units = |name: &str| text(fields, name).encode_utf16().count();
        match method {
            "sendMessage" if text(fields, "text").trim().is_empty() => {
                return Err(refused(400, "Bad Request: message text is empty"));
            }
            "sendMessage" if units("text") > 4_096 => return Err(refused(400, "Bad Request: message is too long")),
            "sendMessage" => {}
            _ if units("caption") > 1_024 => {
                return Err(refused(400, "Bad Request: message caption is too long"));
            }
            _ => check_file(method, file)?,
        }
        match fields.get("reply_parameters").map(object) {
            Some(Some(reply)) if reply["message_id"].as_i64().is_some() => Ok(chat),
            None => Ok(chat),
            Some(_) => Err(refused(400, "Bad Request: can't parse reply parameters JSON object")),
        }
    }

    fn keep(&self, method: &str, chat: i64, fields: BTreeMap<String, Value>, file: Option<File>) -> Value {
        let mut sent = lock(&self.state.sent);
        let message_id = 9_000 + sent.len() as i64;
        let message = json!({
            "message_id": message_id,
            "date": now_s(),
            "from": { "id": 123_456_789, "is_bot": true, "first_name": "Stories", "username": USERNAME },
            "chat": { "id": chat, "type": "private", "first_name": "Ann" },
            "text": text(&fields, "text"),
        });
        sent.push(Sent {
            method: method.to_owned(),
            fields,
            file,
            message_id,
        });
        message
    }

    fn refuse(&self, (code, words, parameters): Refused) -> Response {
        lock(&self.state.refusals).push(format!("{code} {words}"));
        let mut body = json!({ "ok": false, "error_code": code, "description": words });
        if !parameters.is_null() {
            body["parameters"] = parameters;
        }
        answer(code, body)
    }
}

fn check_file(method: &str, file: Option<&File>) -> Result<(), Refused> {
    let field = method.strip_prefix("send").unwrap_or_default().to_lowercase();
    let file = file.filter(|file| file.field == field && !file.bytes.is_empty());
    let file = file.ok_or_else(|| refused(400, "Bad Request: there is no file in the request"))?;
    let is_picture = file.bytes.starts_with(b"\x89PNG\r\n\x1a\n") || file.bytes.starts_with(b"\xff\xd8\xff");
    match field.as_str() {
        "photo" if !is_picture => Err(refused(400, "Bad Request: IMAGE_PROCESS_FAILED")),
        "photo" if file.bytes.len() > 10_000_000 => Err(refused(413, "Request Entity Too Large")),
        _ => Ok(()),
    }
}

fn refused(code: u16, words: &str) -> Refused {
    (code, words.to_owned(), Value::Null)
}

fn text(fields: &BTreeMap<String, Value>, name: &str) -> String {
    fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn truth(fields: &BTreeMap<String, Value>, name: &str) -> bool {
    matches!(fields.get(name), Some(Value::Bool(true))) || text(fields, name).eq_ignore_ascii_case("true")
}

/// Of JSON, or of a form.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn object(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => serde_json::from_str(text).ok(),
        other => Some(other.clone()),
    }
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn answer(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
