//! The REST API: `/2010-04-01/Accounts/{AC}/…`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::{Mood, Moods, lock};
use super::webhooks::{Form, form_of};
use super::{ACCOUNT_SID, OUR_NUMBER, PHONE_NUMBER_SID, State, TOKEN, refusal};

struct Server {
    state: Arc<State>,
    moods: Arc<Moods>,
}

/// Status, code and words of an error.
type Refused = (u16, u32, &'static str);

pub fn routes(state: Arc<State>, moods: Arc<Moods>) -> Router {
    Router::new()
        .route("/2010-04-01/Accounts/{account}", get(account))
        .route("/2010-04-01/Accounts/{account}/Messages.json", post(create_message))
        .route("/2010-04-01/Accounts/{account}/Calls.json", post(create_call))
        .route(
            "/2010-04-01/Accounts/{account}/IncomingPhoneNumbers.json",
            get(find_number),
        )
        .route(
            "/2010-04-01/Accounts/{account}/IncomingPhoneNumbers/{sid}",
            post(set_number),
        )
        .route("/2010-04-01/Accounts/{account}/Recordings/{file}", get(recording))
        .route(
            "/2010-04-01/Accounts/{account}/Messages/{message}/Media/{media}",
            get(media),
        )
        .with_state(Arc::new(Server { state, moods }))
}

async fn account(Shared(server): Shared<Arc<Server>>, headers: HeaderMap) -> Response {
    match server.authorised(&headers) {
        Ok(()) => answer(200, json!({ "sid": ACCOUNT_SID, "status": "active" })),
        Err(refused) => server.refuse(refused),
    }
}

async fn create_message(
    Shared(server): Shared<Arc<Server>>,
    Path(account): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form = match server.take(&account, &headers, &body) {
        Ok(form) => form,
        Err(refused) => return server.refuse(refused),
    };
    if let Err((code, words)) = check_message(&server, &form) {
        return server.refuse((400, code, words));
    }
    let mood = server.moods.take();
    if let Some(Mood::Fails(_) | Mood::Busy { .. }) = mood {
        return server.fail(mood).await;
    }
    let sid = server.keep(form);
    match mood {
        Some(mood) => mood.answer(String::new()).await,
        None => answer(201, json!({ "sid": sid, "status": "queued" })),
    }
}

fn check_message(server: &Server, form: &Form) -> Result<(), (u32, &'static str)> {
    let to = form.get("To").ok_or((21604, "A 'To' phone number is required"))?;
    if !to.starts_with('+') || !to[1..].bytes().all(|byte| byte.is_ascii_digit()) {
        return Err((21211, "Invalid 'To' Phone Number"));
    }
    if form.get("From") != Some(OUR_NUMBER) {
        return Err((
            21606,
            "The 'From' phone number is not a valid, SMS-capable number of the account",
        ));
    }
    let body = form.get("Body").unwrap_or_default();
    let media = form.all("MediaUrl");
    if body.is_empty() && media.is_empty() {
        return Err((21602, "Message body is required"));
    }
    if body.encode_utf16().count() > 1_600 {
        return Err((21617, "The concatenated message body exceeds the 1600 character limit"));
    }
    if media.len() > 10 || media.iter().any(|url| !url.starts_with("http")) {
        return Err((21620, "Invalid media URL(s)"));
    }
    if lock(&server.state.opted_out).iter().any(|number| number == to) {
        return Err((21610, "Attempt to send to unsubscribed recipient"));
    }
    Ok(())
}

async fn create_call(
    Shared(server): Shared<Arc<Server>>,
    Path(account): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut form = match server.take(&account, &headers, &body) {
        Ok(form) => form,
        Err(refused) => return server.refuse(refused),
    };
    let twiml = form.get("Twiml").unwrap_or_default();
    if form.get("From") != Some(OUR_NUMBER) {
        return server.refuse((400, 21210, "'From' phone number not verified"));
    }
    if !(twiml.starts_with("<?xml") && twiml.ends_with("</Response>") && twiml.chars().count() <= 4_000) {
        return server.refuse((400, 21205, "Url is not a valid URL, and there is no Twiml"));
    }
    let mood = server.moods.take();
    if let Some(Mood::Fails(_) | Mood::Busy { .. }) = mood {
        return server.fail(mood).await;
    }
    let sid = {
        let mut calls = lock(&server.state.calls);
        let sid = format!("CA{:032x}", 0xfff_0000 + calls.len());
        form.set("CallSid", &sid);
        calls.push(form);
        sid
    };
    match mood {
        Some(mood) => mood.answer(String::new()).await,
        None => answer(201, json!({ "sid": sid, "status": "queued" })),
    }
}

async fn find_number(
    Shared(server): Shared<Arc<Server>>,
    Query(query): Query<std::collections::HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = server.authorised(&headers) {
        return server.refuse(refused);
    }
    let found = match query.get("PhoneNumber").map(String::as_str) {
        Some(OUR_NUMBER) => vec![json!({ "sid": PHONE_NUMBER_SID, "phone_number": OUR_NUMBER })],
        _ => Vec::new(),
    };
    answer(200, json!({ "incoming_phone_numbers": found }))
}

async fn set_number(
    Shared(server): Shared<Arc<Server>>,
    Path((account, sid)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if sid != format!("{PHONE_NUMBER_SID}.json") {
        return server.refuse((404, 20404, "The requested resource was not found"));
    }
    match server.take(&account, &headers, &body) {
        Ok(form) => {
            *lock(&server.state.number) = form;
            answer(200, json!({ "sid": PHONE_NUMBER_SID }))
        }
        Err(refused) => server.refuse(refused),
    }
}

/// Wants the account's password, as it can be told to.
async fn recording(Shared(server): Shared<Arc<Server>>, headers: HeaderMap) -> Response {
    match server.authorised(&headers) {
        Ok(()) => ([(header::CONTENT_TYPE, "audio/mpeg")], RECORDING.to_vec()).into_response(),
        Err(refused) => server.refuse(refused),
    }
}

async fn media(Shared(server): Shared<Arc<Server>>, headers: HeaderMap) -> Response {
    match server.authorised(&headers) {
        Ok(()) => ([(header::CONTENT_TYPE, "image/png")], PICTURE.to_vec()).into_response(),
        Err(refused) => server.refuse(refused),
    }
}

/// What every recording holds.
pub const RECORDING: &[u8] = b"ID3\x04\x00\x00\x00\x00\x00\x00 a voice";
/// What every medium of a message is.
pub const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n a picture";

impl Server {
    /// Checks account, password and form.
    fn take(&self, account: &str, headers: &HeaderMap, body: &[u8]) -> Result<Form, Refused> {
        self.authorised(headers)?;
        if account != ACCOUNT_SID {
            return Err((404, 20404, "The requested resource was not found"));
        }
        let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if media_type != Some("application/x-www-form-urlencoded") {
            return Err((415, 20415, "Unsupported media type"));
        }
        Ok(form_of(body))
    }

    /// Takes a message, and gives it its id.
    fn keep(&self, mut form: Form) -> String {
        let mut messages = lock(&self.state.messages);
        let sid = format!("SM{:032x}", messages.len() + 1);
        form.set("MessageSid", &sid);
        messages.push(form);
        sid
    }

    fn authorised(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let expected = format!("Basic {}", STANDARD.encode(format!("{ACCOUNT_SID}:{TOKEN}")));
        let found = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match found == Some(expected.as_str()) {
            true => Ok(()),
            false => Err((401, 20003, "Authenticate")),
        }
    }

    fn refuse(&self, (status, code, words): Refused) -> Response {
        lock(&self.state.refusals).push(format!("{code} {words}"));
        answer(status, refusal(status, code, words))
    }

    async fn fail(&self, mood: Option<Mood>) -> Response {
        let Some(mood) = mood else {
            return answer(500, Value::Null);
        };
        let (status, code) = match mood {
            Mood::Busy { .. } => (429, 20429),
            Mood::Fails(status) => (status, 20500),
            Mood::Stalls | Mood::Breaks => (500, 20500),
        };
        mood.answer(refusal(status, code, "told to fail").to_string()).await
    }
}

fn answer(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
