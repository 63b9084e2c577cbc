//! How Meta calls us: JSON with every letter outside of ASCII escaped, signed as it
//! stands.

use std::time::SystemTime;

use anyhow::Result;
use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::super::lock;
use super::{APP_ID, APP_SECRET, BUSINESS_ID, INSTAGRAM_ID, Meta, NUMBER_ID, PAGE_ID};

/// The present, in milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

/// So many milliseconds ago.
pub fn moments_ago(ms: i64) -> i64 {
    now_ms() - ms
}

/// As Meta writes JSON: `\u00e9` for é, `\/` for a slash.
pub fn escaped(value: &Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        match character {
            '/' => text.push_str("\\/"),
            character if character.is_ascii() => text.push(character),
            character => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    text
}

/// In lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The signature of these bytes.
pub fn sign(secret: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex(hmac::sign(&key, body.as_bytes()).as_ref()))
}

impl Meta {
    /// Posts to the account, signed by the app: the status of the answer.
    pub async fn post(&self, account: &str, posted: &Value) -> Result<u16> {
        self.note_writers(posted);
        let body = escaped(posted);
        let request = self
            .client
            .post(format!("{}/in/{account}", self.public))
            .header("content-type", "application/json")
            .header("x-hub-signature", "sha1=0000000000000000000000000000000000000000")
            .header("x-hub-signature-256", sign(APP_SECRET, &body))
            .body(body);
        Ok(request.send().await?.status().as_u16())
    }

    /// Asks whether the account's address is ours: status and body.
    pub async fn shake_hands(&self, account: &str, verify_token: &str) -> Result<(u16, String)> {
        let url = format!("{}/in/{account}", self.public);
        let query = [
            ("hub.mode", "subscribe"),
            ("hub.challenge", "1158201444"),
            ("hub.verify_token", verify_token),
        ];
        let url = reqwest::Url::parse_with_params(&url, query)?;
        let answer = self.client.get(url).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// A file of a customer's, behind a link that needs no token.
    pub fn public_file(&self) -> String {
        format!("{}/cdn/photo.png", lock(&self.state.base))
    }

    /// Who writes opens the window for answers.
    fn note_writers(&self, posted: &Value) {
        let mut wrote = lock(&self.state.wrote);
        let mut note = |user: &Value, at_ms: i64| {
            if let Some(user) = user.as_str() {
                let known = wrote.entry(user.to_owned()).or_insert(at_ms);
                *known = at_ms.max(*known);
            }
        };
        for entry in posted["entry"].as_array().into_iter().flatten() {
            for message in entry["changes"][0]["value"]["messages"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let seconds = message["timestamp"].as_str().and_then(|text| text.parse::<i64>().ok());
                note(&message["from"], seconds.unwrap_or(0) * 1_000);
                note(&message["from_user_id"], seconds.unwrap_or(0) * 1_000);
            }
            for event in entry["messaging"].as_array().into_iter().flatten() {
                if event["message"].is_object() || event["postback"].is_object() {
                    note(&event["sender"]["id"], event["timestamp"].as_i64().unwrap_or(0));
                }
            }
        }
    }
}

/// WhatsApp's webhook with these things in it: `messages`, `statuses`, `contacts`.
pub fn whatsapp(value: &Value) -> Value {
    let mut value = value.clone();
    value["messaging_product"] = json!("whatsapp");
    value["metadata"] = json!({ "display_phone_number": "15550001111", "phone_number_id": NUMBER_ID });
    json!({ "object": "whatsapp_business_account", "entry": [
        { "id": BUSINESS_ID, "changes": [{ "field": "messages", "value": value }] },
    ]})
}

/// A message of this kind, from this number, so long ago.
pub fn whatsapp_message(id: &str, from: &str, kind: &str, body: &Value, ago_ms: i64) -> Value {
    let mut message = json!({ "id": id, "from": from, "from_user_id": user_id(from), "type": kind,
        "timestamp": (moments_ago(ago_ms) / 1_000).to_string() });
    message[kind] = body.clone();
    let contact = json!({ "profile": { "name": "Zoë" }, "wa_id": from, "user_id": user_id(from) });
    whatsapp(&json!({ "contacts": [contact], "messages": [message] }))
}

/// The id by which a business knows the user of a number.
pub fn user_id(from: &str) -> String {
    format!("US.9{from}")
}

/// By which digits WhatsApp knows who has this number: Brazilians without their nine.
pub fn wa_id(dialled: &str) -> String {
    match (dialled.split_at_checked(4), dialled.len()) {
        (Some((area, rest)), 13) if area.starts_with("55") => format!("{area}{}", rest.trim_start_matches('9')),
        _ => dialled.to_owned(),
    }
}

/// What became of a message that it was given.
pub fn whatsapp_status(message: &Value, status: &str, error: Option<(i64, &str)>) -> Value {
    let recipient = message["to"].as_str().map(wa_id);
    let mut told = json!({ "id": message["id"], "status": status, "recipient_id": recipient,
        "timestamp": (now_ms() / 1_000).to_string(),
        "biz_opaque_callback_data": message["biz_opaque_callback_data"] });
    if let Some((code, title)) = error {
        told["errors"] = json!([{ "code": code, "title": title, "message": title,
            "error_data": { "details": "as the stories want it" } }]);
    }
    told
}

/// Messenger's webhook with these events in it.
pub fn messenger(events: &[Value]) -> Value {
    json!({ "object": "page", "entry": [{ "id": PAGE_ID, "time": now_ms(), "messaging": events }] })
}

/// Instagram's.
pub fn instagram(events: &[Value]) -> Value {
    json!({ "object": "instagram", "entry": [{ "id": INSTAGRAM_ID, "time": now_ms(), "messaging": events }] })
}

/// An event of a user's: `what` is `message`, `reaction`, `read`, ….
pub fn event(of: &str, user: &str, what: &str, body: &Value, ago_ms: i64) -> Value {
    let mut event = json!({ "sender": { "id": user }, "recipient": { "id": of }, "timestamp": moments_ago(ago_ms) });
    event[what] = body.clone();
    event
}

/// That the page itself has written: by an app of ours, or by other people.
pub fn echo(of: &str, user: &str, message: &Value, is_ours: bool) -> Value {
    let mut message = message.clone();
    message["is_echo"] = json!(true);
    message["app_id"] = match is_ours {
        true => json!(APP_ID.parse::<i64>().unwrap_or_default()),
        false => json!(263_902_037_430_900_i64),
    };
    json!({ "sender": { "id": of }, "recipient": { "id": user }, "timestamp": now_ms(), "message": message })
}
