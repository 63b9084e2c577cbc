//! The Messaging API, and the files of `api-data.line.me`.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::super::{Mood, Moods, lock};
use super::{BOT, PICTURE, SECRET, Sent, State, TOKEN, sign};

struct Server {
    state: Arc<State>,
    moods: Arc<Moods>,
    client: reqwest::Client,
}

/// Status, words and the property that is wrong.
type Refused = (u16, &'static str, String);

pub fn routes(state: Arc<State>, moods: Arc<Moods>, client: reqwest::Client) -> Router {
    Router::new()
        .route("/v2/bot/info", get(info))
        .route("/v2/bot/channel/webhook/endpoint", get(endpoint).put(set_endpoint))
        .route("/v2/bot/channel/webhook/test", post(test))
        .route("/v2/bot/message/reply", post(reply))
        .route("/v2/bot/message/push", post(push))
        .route("/v2/bot/message/{id}/content", get(content))
        .route("/v2/bot/message/{id}/content/transcoding", get(transcoding))
        .with_state(Arc::new(Server { state, moods, client }))
}

async fn info(Shared(server): Shared<Arc<Server>>, headers: HeaderMap) -> Response {
    match server.authorised(&headers) {
        Ok(()) => answer(
            200,
            json!({ "userId": BOT, "basicId": "@216ru", "displayName": "Stories", "chatMode": "bot",
                "markAsReadMode": "auto" }),
        ),
        Err(refused) => server.refuse(refused),
    }
}

async fn endpoint(Shared(server): Shared<Arc<Server>>, headers: HeaderMap) -> Response {
    if let Err(refused) = server.authorised(&headers) {
        return server.refuse(refused);
    }
    let set = lock(&server.state.endpoint).clone();
    match set {
        Some(endpoint) => answer(200, json!({ "endpoint": endpoint, "active": true })),
        None => server.refuse((404, "Webhook endpoint not found", String::new())),
    }
}

async fn set_endpoint(Shared(server): Shared<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Response {
    let endpoint = server.read(&headers, &body).and_then(|body| {
        let endpoint = body["endpoint"].as_str().unwrap_or_default().to_owned();
        // LINE itself takes https alone; here only this machine can be meant.
        match endpoint.starts_with("https://") || endpoint.starts_with("http://127.0.0.1:") {
            true => Ok(endpoint),
            false => Err((400, "Invalid webhook endpoint URL", String::new())),
        }
    });
    match endpoint {
        Ok(endpoint) => {
            *lock(&server.state.endpoint) = Some(endpoint);
            answer(200, json!({}))
        }
        Err(refused) => server.refuse(refused),
    }
}

/// Posts a webhook without events.
async fn test(Shared(server): Shared<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Response {
    let body = match server.read(&headers, &body) {
        Ok(body) => body,
        Err(refused) => return server.refuse(refused),
    };
    let set = lock(&server.state.endpoint).clone();
    let Some(endpoint) = body["endpoint"].as_str().map(str::to_owned).or(set) else {
        return server.refuse((404, "Webhook endpoint not found", String::new()));
    };
    let empty = json!({ "destination": BOT, "events": [] }).to_string();
    let request = server
        .client
        .post(&endpoint)
        .header("content-type", "application/json")
        .header("x-line-signature", sign(SECRET, empty.as_bytes()));
    let status = match request.body(empty).send().await {
        Ok(got) => got.status().as_u16(),
        Err(_) => 0,
    };
    let (success, reason) = match status {
        200 => (true, "OK"),
        0 => (false, "COULD_NOT_CONNECT"),
        _ => (false, "ERROR_STATUS_CODE"),
    };
    answer(
        200,
        json!({ "success": success, "timestamp": "2026-11-24T10:00:00Z", "statusCode": status, "reason": reason,
            "detail": status.to_string() }),
    )
}

async fn reply(Shared(server): Shared<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Response {
    let checked = server.read(&headers, &body).and_then(|body| {
        if headers.contains_key("x-line-retry-key") {
            return Err((400, "The retry key is not accepted here", String::new()));
        }
        check_messages(&body)?;
        let token = body["replyToken"].as_str().unwrap_or_default().to_owned();
        match lock(&server.state.reply_tokens).contains(&token) {
            true => Ok((body, token)),
            false => Err((400, "Invalid reply token", String::new())),
        }
    });
    match checked {
        Ok((body, token)) => server.take("reply", &token, &body, None).await,
        Err(refused) => server.refuse(refused),
    }
}

async fn push(Shared(server): Shared<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Response {
    let checked = server.read(&headers, &body).and_then(|body| {
        check_messages(&body)?;
        let to = body["to"].as_str().unwrap_or_default().to_owned();
        let is_id = to.len() == 33 && to.starts_with(['U', 'C', 'R']);
        let key = headers.get("x-line-retry-key").and_then(|value| value.to_str().ok());
        if key.is_some_and(|key| !is_uuid(key)) {
            return Err((400, "The retry key is not a UUID", String::new()));
        }
        match is_id {
            true => Ok((body, to, key.map(str::to_owned))),
            false => Err((
                400,
                "The property, 'to', in the request body is invalid",
                "to".to_owned(),
            )),
        }
    });
    match checked {
        Ok((body, to, key)) => server.take("push", &to, &body, key).await,
        Err(refused) => server.refuse(refused),
    }
}

fn check_messages(body: &Value) -> Result<(), Refused> {
    let invalid = |property: String, words: &'static str| Err((400, words, property));
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !(1..=5).contains(&messages.len()) {
        return invalid("messages".to_owned(), "Size must be between 1 and 5");
    }
    for (index, message) in messages.iter().enumerate() {
        let of = |name: &str| format!("messages[{index}].{name}");
        match message["type"].as_str() {
            Some("text") => {
                let text = message["text"].as_str().unwrap_or_default();
                if text.is_empty() || text.encode_utf16().count() > 5_000 {
                    return invalid(of("text"), "Length must be between 1 and 5000");
                }
            }
            Some("image") => {
                for name in ["originalContentUrl", "previewImageUrl"] {
                    if !message[name].as_str().is_some_and(|url| url.starts_with("http")) {
                        return invalid(of(name), "Must be a valid URL");
                    }
                }
            }
            _ => return invalid(of("type"), "Must be one of the following values: [text, image, …]"),
        }
    }
    Ok(())
}

async fn content(Shared(server): Shared<Arc<Server>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if let Err(refused) = server.authorised(&headers) {
        return server.refuse(refused);
    }
    if id.starts_with("999") {
        return server.refuse((404, "Not found", String::new()));
    }
    let mut not_ready = lock(&server.state.not_ready);
    if *not_ready > 0 {
        *not_ready -= 1;
        return StatusCode::ACCEPTED.into_response();
    }
    ([(header::CONTENT_TYPE, "image/jpeg")], PICTURE).into_response()
}

async fn transcoding(Shared(server): Shared<Arc<Server>>, headers: HeaderMap) -> Response {
    if let Err(refused) = server.authorised(&headers) {
        return server.refuse(refused);
    }
    let mut not_ready = lock(&server.state.not_ready);
    let status = match *not_ready {
        0 => "succeeded",
        _ => "processing",
    };
    *not_ready = not_ready.saturating_sub(1);
    answer(200, json!({ "status": status }))
}

impl Server {
    async fn take(&self, how: &'static str, to: &str, body: &Value, key: Option<String>) -> Response {
        let known = key
            .as_ref()
            .and_then(|key| lock(&self.state.retry_keys).get(key).cloned());
        if let Some(ids) = known {
            let mut repeat = answer(
                409,
                json!({ "message": "The retry key is already accepted", "sentMessages": named(&ids) }),
            );
            let accepted = header::HeaderName::from_static("x-line-accepted-request-id");
            repeat
                .headers_mut()
                .insert(accepted, header::HeaderValue::from_static("123e4567"));
            return repeat;
        }
        let mood = self.moods.take();
        if let Some(Mood::Fails(_) | Mood::Busy { .. }) = mood {
            let words = json!({ "message": "told to fail" }).to_string();
            return match mood {
                Some(mood) => mood.answer(words).await,
                None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            };
        }
        let ids = self.keep(how, to, body);
        if how == "reply" {
            lock(&self.state.reply_tokens).remove(to);
        }
        if let Some(key) = key
            && let Entry::Vacant(entry) = lock(&self.state.retry_keys).entry(key)
        {
            entry.insert(ids.clone());
        }
        match mood {
            Some(mood) => mood.answer(String::new()).await,
            None => answer(200, json!({ "sentMessages": named(&ids) })),
        }
    }

    fn keep(&self, how: &'static str, to: &str, body: &Value) -> Vec<String> {
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        let mut sent = lock(&self.state.sent);
        let first = 461_230_966_842_064_896 + 10 * sent.len();
        let ids: Vec<String> = (0..messages.len()).map(|index| (first + index).to_string()).collect();
        sent.push(Sent {
            how,
            to: to.to_owned(),
            messages,
            ids: ids.clone(),
        });
        ids
    }

    fn read(&self, headers: &HeaderMap, body: &[u8]) -> Result<Value, Refused> {
        self.authorised(headers)?;
        let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !media_type.is_some_and(|media_type| media_type.starts_with("application/json")) {
            return Err((415, "Unsupported Media Type", String::new()));
        }
        serde_json::from_slice(body).map_err(|_| (400, "The request body could not be parsed as JSON", String::new()))
    }

    fn authorised(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let found = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match found == Some(format!("Bearer {TOKEN}").as_str()) {
            true => Ok(()),
            false => Err((401, "Authentication failed", String::new())),
        }
    }

    fn refuse(&self, (status, words, property): Refused) -> Response {
        lock(&self.state.refusals).push(format!("{status} {words} {property}"));
        match property.is_empty() {
            true => answer(status, json!({ "message": words })),
            false => answer(
                status,
                json!({ "message": "The request body has 1 error(s)",
                    "details": [{ "message": words, "property": property }] }),
            ),
        }
    }
}

fn named(ids: &[String]) -> Value {
    ids.iter()
        .map(|id| json!({ "id": id, "quoteToken": format!("q{id}") }))
        .collect()
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn answer(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
