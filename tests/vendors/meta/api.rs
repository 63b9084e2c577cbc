//! The Graph API: `/v25.0/…`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::super::{Mood, Moods, lock};
use super::checks::{self, Refused};
use super::webhooks::{hex, wa_id};
use super::{ACCESS_TOKEN, BUSINESS_ID, INSTAGRAM_ID, NUMBER_ID, PAGE_ID, State, VERSION};

/// What every file of a customer's is.
pub const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n a picture at Meta";
/// The id of such a file.
const PICTURE_ID: &str = "300000000000003";

struct Server {
    state: Arc<State>,
    moods: Arc<Moods>,
}

pub fn routes(state: Arc<State>, moods: Arc<Moods>) -> Router {
    Router::new()
        .route("/{version}/{id}", get(show).post(set))
        .route("/{version}/{id}/messages", post(send))
        .route("/{version}/{id}/media", post(upload))
        .route("/{version}/{id}/subscribed_apps", post(subscribe))
        .route("/download/{file}", get(download))
        .route("/cdn/{file}", get(public_file))
        .with_state(Arc::new(Server { state, moods }))
}

async fn send(
    Shared(server): Shared<Arc<Server>>,
    Path((version, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let checked = server
        .authorised(&version, &headers)
        .and_then(|()| json_of(&headers, &body));
    let taken = checked.and_then(|message| checks::message(&server.state, &id, &message).map(|()| message));
    let mut message = match taken {
        Ok(message) => message,
        Err(refused) => return server.refuse(refused),
    };
    let mood = server.moods.take();
    if let Some(mood @ (Mood::Fails(_) | Mood::Busy { .. })) = mood {
        let (code, words) = match mood {
            Mood::Busy { .. } if id == NUMBER_ID => (130_429, "Rate limit hit"),
            Mood::Busy { .. } => (613, "Calls to this api have exceeded the rate limit."),
            _ => (2, "Service temporarily unavailable"),
        };
        return mood.answer(refusal((0, code, 0, words)).to_string()).await;
    }
    let sent_id = {
        let mut messages = lock(&server.state.messages);
        let prefix = if id == NUMBER_ID { "wamid.OUT" } else { "m_OUT" };
        let sent_id = format!("{prefix}{:04}{}", messages.len() + 1, server.state.mark());
        message["id"] = json!(sent_id);
        messages.push(message.clone());
        sent_id
    };
    match mood {
        Some(mood) => mood.answer(String::new()).await,
        None if id == NUMBER_ID => {
            let to = message.get("to").or(message.get("recipient"));
            let contact = json!({ "input": to, "wa_id": message["to"].as_str().map(wa_id) });
            let body =
                json!({ "messaging_product": "whatsapp", "contacts": [contact], "messages": [{ "id": sent_id }] });
            answer(200, body)
        }
        None => answer(
            200,
            json!({ "recipient_id": message["recipient"]["id"], "message_id": sent_id }),
        ),
    }
}

/// Reads `multipart/form-data` as far as three fields need it.
async fn upload(
    Shared(server): Shared<Arc<Server>>,
    Path((version, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let taken = server
        .authorised(&version, &headers)
        .and_then(|()| checks::upload(&id, &headers, &body));
    match taken {
        Err(refused) => server.refuse(refused),
        Ok(file) => {
            let mut files = lock(&server.state.files);
            files.push(file);
            answer(200, json!({ "id": format!("70000{:04}", files.len()) }))
        }
    }
}

/// A number, a page, an account, or a file of a customer's.
async fn show(
    Shared(server): Shared<Arc<Server>>,
    Path((version, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = server.authorised(&version, &headers) {
        return server.refuse(refused);
    }
    match id.as_str() {
        NUMBER_ID => answer(
            200,
            json!({ "id": id, "display_phone_number": "+1 555-000-1111", "verified_name": "Bikes", "quality_rating": "GREEN" }),
        ),
        PAGE_ID => answer(200, json!({ "id": id, "name": "Bikes" })),
        INSTAGRAM_ID | "me" => answer(200, json!({ "user_id": INSTAGRAM_ID, "id": "1", "username": "bikes" })),
        PICTURE_ID => {
            let url = format!("{}/download/{id}", lock(&server.state.base));
            let sha256 = hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, PICTURE).as_ref());
            answer(
                200,
                json!({ "id": id, "messaging_product": "whatsapp", "url": url, "mime_type": "image/png",
                    "sha256": sha256, "file_size": PICTURE.len() }),
            )
        }
        _ => server.refuse((400, 100, 33, "Unsupported get request. Object does not exist")),
    }
}

async fn set(
    Shared(server): Shared<Arc<Server>>,
    Path((version, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let checked = server
        .authorised(&version, &headers)
        .and_then(|()| json_of(&headers, &body));
    match checked {
        Ok(body) if id == NUMBER_ID && body["webhook_configuration"]["override_callback_uri"].is_string() => {
            server.keep(&id, body)
        }
        Ok(_) => server.refuse((400, 100, 0, "Invalid parameter")),
        Err(refused) => server.refuse(refused),
    }
}

async fn subscribe(
    Shared(server): Shared<Arc<Server>>,
    Path((version, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let checked = server
        .authorised(&version, &headers)
        .and_then(|()| json_of(&headers, &body));
    match checked {
        // A page and an account want to know what they are subscribed to.
        Ok(body) if id == BUSINESS_ID || body["subscribed_fields"].is_array() => {
            server.keep(&format!("{id}/subscribed_apps"), body)
        }
        Ok(_) => server.refuse((400, 100, 0, "The parameter subscribed_fields is required")),
        Err(refused) => server.refuse(refused),
    }
}

/// Wants the token, as `lookaside.fbsbx.com` does.
async fn download(Shared(server): Shared<Arc<Server>>, headers: HeaderMap) -> Response {
    match server.authorised(VERSION, &headers) {
        Ok(()) => ([(header::CONTENT_TYPE, "image/png")], PICTURE.to_vec()).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Signed links need no token, and whoever sends it there gives it away.
async fn public_file(Shared(server): Shared<Arc<Server>>, headers: HeaderMap) -> Response {
    if headers.contains_key(header::AUTHORIZATION) {
        return server.refuse((400, 1, 0, "a token for a public file"));
    }
    ([(header::CONTENT_TYPE, "image/png")], PICTURE.to_vec()).into_response()
}

impl Server {
    fn authorised(&self, version: &str, headers: &HeaderMap) -> Result<(), Refused> {
        let found = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if found != Some(format!("Bearer {ACCESS_TOKEN}").as_str()) {
            return Err((401, 190, 0, "Invalid OAuth access token."));
        }
        match version == VERSION {
            true => Ok(()),
            false => Err((400, 2_635, 0, "You are calling a deprecated version of the API")),
        }
    }

    fn keep(&self, path: &str, body: Value) -> Response {
        lock(&self.state.settings).push((path.to_owned(), body));
        answer(200, json!({ "success": true }))
    }

    fn refuse(&self, refused: Refused) -> Response {
        lock(&self.state.refusals).push(format!("{} {}", refused.1, refused.3));
        answer(refused.0, refusal(refused))
    }
}

impl State {
    /// Tells the ids of one server from those of the next.
    fn mark(&self) -> String {
        lock(&self.base).rsplit(':').next().unwrap_or_default().to_owned()
    }
}

fn json_of(headers: &HeaderMap, body: &[u8]) -> Result<Value, Refused> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match (media_type, serde_json::from_slice(body)) {
        (Some("application/json"), Ok(value)) => Ok(value),
        _ => Err((400, 100, 0, "Unexpected content")),
    }
}

/// An error as the API words it.
fn refusal((_, code, subcode, words): Refused) -> Value {
    let mut error = json!({ "message": format!("(#{code}) {words}"), "type": "OAuthException", "code": code,
        "fbtrace_id": "Az8or2yhqkZfEZ-_4Qn_Bam" });
    if subcode != 0 {
        error["error_subcode"] = json!(subcode);
    }
    json!({ "error": error })
}

fn answer(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
