//! What Meta refuses: each product by its own rules.

use axum::http::{HeaderMap, header};
use serde_json::Value;

use super::super::lock;
use super::webhooks::{now_ms, wa_id};
use super::{NUMBER_ID, PAGE_ID, State};

/// Status, code, subcode and words of an error.
pub type Refused = (u16, i64, i64, &'static str);

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The one template that is approved, in this language and with so many blanks.
const TEMPLATE: (&str, &str, usize) = ("order_update", "en_US", 2);

/// Whether this may be sent by this number, page or account.
pub fn message(state: &State, by: &str, message: &Value) -> Result<(), Refused> {
    match by {
        NUMBER_ID => whatsapp(state, message),
        PAGE_ID => messenger(state, message, 2_000, false),
        "me" => messenger(state, message, 1_000, true),
        _ => Err((400, 100, 33, "Unsupported post request. Object does not exist")),
    }
}

fn whatsapp(state: &State, message: &Value) -> Result<(), Refused> {
    const INVALID: Refused = (400, 100, 0, "Invalid parameter");
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    if text("/messaging_product") != Some("whatsapp") || text("/recipient_type") != Some("individual") {
        return Err(INVALID);
    }
    let user = match (text("/to"), text("/recipient")) {
        (Some(to), None) if to.bytes().all(|byte| byte.is_ascii_digit()) => wa_id(to),
        (None, Some(id)) if id.contains('.') => id.to_owned(),
        _ => return Err(INVALID),
    };
    let user = user.as_str();
    if text("/biz_opaque_callback_data").is_none_or(|data| data.len() > 512) {
        return Err(INVALID);
    }
    if message.get("context").is_some() && text("/context/message_id").is_none_or(|id| !id.starts_with("wamid.")) {
        return Err(INVALID);
    }
    if lock(&state.gone).iter().any(|gone| gone == user) {
        return Err((400, 131_026, 0, "Message undeliverable"));
    }
    let kind = text("/type").ok_or(INVALID)?;
    if kind == "template" {
        return template(&message["template"]);
    }
    if age_ms(state, user) > DAY_MS {
        return Err((400, 131_047, 0, "Re-engagement message"));
    }
    match kind {
        "text" => {
            let body = text("/text/body").unwrap_or_default();
            match (1..=4_096).contains(&body.chars().count()) {
                true => Ok(()),
                false => Err(INVALID),
            }
        }
        "image" | "video" | "audio" | "sticker" | "document" => file(state, &message[kind]),
        _ => Err((400, 131_051, 0, "Unsupported message type")),
    }
}

fn file(state: &State, body: &Value) -> Result<(), Refused> {
    let id = body["id"].as_str().and_then(|id| id.strip_prefix("70000"));
    let count = lock(&state.files).len();
    let is_known = id
        .and_then(|id| id.parse::<usize>().ok())
        .is_some_and(|id| (1..=count).contains(&id));
    let caption = body["caption"].as_str().unwrap_or_default();
    match is_known && caption.chars().count() <= 1_024 {
        true => Ok(()),
        false => Err((400, 131_053, 0, "Media upload error")),
    }
}

fn template(template: &Value) -> Result<(), Refused> {
    let (name, language, blanks) = TEMPLATE;
    if template["name"] != name || template["language"]["code"] != language {
        return Err((404, 132_001, 0, "Template name does not exist in the translation"));
    }
    let components = template["components"].as_array().map(Vec::as_slice).unwrap_or_default();
    let body = components.iter().find(|component| component["type"] == "body");
    let parameters = body.and_then(|body| body["parameters"].as_array()).map_or(0, Vec::len);
    match parameters == blanks {
        true => Ok(()),
        false => Err((
            400,
            132_000,
            0,
            "Number of parameters does not match the expected number of params",
        )),
    }
}

fn messenger(state: &State, message: &Value, max: usize, counts_bytes: bool) -> Result<(), Refused> {
    const INVALID: Refused = (400, 100, 0, "Invalid parameter");
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    let user = text("/recipient/id").ok_or(INVALID)?;
    if lock(&state.gone).iter().any(|gone| gone == user) {
        return Err((400, 551, 0, "This person isn't available right now."));
    }
    let by_human = match (text("/messaging_type"), text("/tag")) {
        (Some("RESPONSE"), None) => false,
        (Some("MESSAGE_TAG"), Some("HUMAN_AGENT")) => true,
        _ => return Err(INVALID),
    };
    let days = if by_human { 7 } else { 1 };
    if age_ms(state, user) > days * DAY_MS {
        let subcode = if counts_bytes { 2_534_022 } else { 2_018_278 };
        return Err((403, 10, subcode, "This message is sent outside of allowed window."));
    }
    let said = text("/message/text");
    let url = text("/message/attachment/payload/url");
    let length = said.map(|said| if counts_bytes { said.len() } else { said.chars().count() });
    match (length, url) {
        (Some(length), None) if (1..=max).contains(&length) => Ok(()),
        (None, Some(url)) if url.starts_with("http") && text("/message/attachment/type").is_some() => Ok(()),
        _ => Err(INVALID),
    }
}

/// How long ago this user wrote last.
fn age_ms(state: &State, user: &str) -> i64 {
    let wrote = lock(&state.wrote).get(user).copied();
    wrote.map_or(i64::MAX, |wrote| now_ms() - wrote)
}

/// The type and bytes of a file that is uploaded as a form.
pub fn upload(by: &str, headers: &HeaderMap, body: &[u8]) -> Result<(String, Vec<u8>), Refused> {
    const INVALID: Refused = (400, 100, 0, "The parameter messaging_product is required");
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = media_type.and_then(|text| text.strip_prefix("multipart/form-data; boundary="));
    let Some(boundary) = boundary.filter(|_| by == NUMBER_ID) else {
        return Err(INVALID);
    };
    let delimiter = format!("--{boundary}");
    let mut product = String::new();
    let mut file = None;
    for part in split(body, delimiter.as_bytes()) {
        let Some(at) = part.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&part[..at]).into_owned();
        let content = part[at + 4..].strip_suffix(b"\r\n").unwrap_or(&part[at + 4..]);
        if head.contains("name=\"messaging_product\"") {
            product = String::from_utf8_lossy(content).into_owned();
        } else if head.contains("name=\"file\"; filename=") {
            let media_type = head.lines().find_map(|line| line.strip_prefix("Content-Type: "));
            file = media_type.map(|media_type| (media_type.to_owned(), content.to_vec()));
        }
    }
    match file {
        Some(file) if product == "whatsapp" => Ok(file),
        _ => Err(INVALID),
    }
}

fn split<'a>(bytes: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(delimiter.len()).position(|window| window == delimiter) {
        parts.push(&rest[..at]);
        rest = &rest[at + delimiter.len()..];
    }
    parts
}
