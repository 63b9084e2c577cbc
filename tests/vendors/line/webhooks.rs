//! How LINE tells us: several events in one POST, signed over its bytes.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::lock;
use super::{BOT, Line, SECRET};

/// The signature of a body.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    STANDARD.encode(hmac::sign(&key, body))
}

/// A user's id.
pub fn user(number: u32) -> String {
    format!("U{number:032x}")
}

impl Line {
    /// An event of a user's, by its number, with a fresh reply token where LINE gives one.
    pub fn event(&self, number: u32, from: &str, kind: &str, content: Value) -> Value {
        let mut event = json!({
            "type": kind,
            "mode": "active",
            "timestamp": now_ms(),
            "source": { "type": "user", "userId": from },
            "webhookEventId": format!("01KDSTORY{number:017}"),
            "deliveryContext": { "isRedelivery": false },
        });
        if matches!(kind, "message" | "postback" | "follow") {
            let token = format!("{:032x}", u64::from(number) + 0xfeed_0000);
            lock(&self.state.reply_tokens).insert(token.clone());
            event["replyToken"] = token.into();
        }
        if let (Value::Object(event), Value::Object(content)) = (&mut event, content) {
            event.extend(content);
        }
        event
    }

    /// A message of a user's.
    pub fn message(&self, number: u32, from: &str, kind: &str, content: Value) -> Value {
        let mut message = json!({ "id": message_id(number), "type": kind, "quoteToken": format!("q{number}") });
        if let (Value::Object(message), Value::Object(content)) = (&mut message, content) {
            message.extend(content);
        }
        self.event(number, from, "message", json!({ "message": message }))
    }

    /// Posts a webhook with these events: the status.
    pub async fn post(&self, url: &str, events: &[Value]) -> Result<u16> {
        self.post_signed(url, SECRET, events).await
    }

    /// The same, signed by this secret.
    pub async fn post_signed(&self, url: &str, secret: &str, events: &[Value]) -> Result<u16> {
        let body = json!({ "destination": BOT, "events": events }).to_string();
        let answer = self
            .client
            .post(url)
            .header("content-type", "application/json; charset=utf-8")
            .header("x-line-signature", sign(secret, body.as_bytes()))
            .header("user-agent", "LineBotWebhook/2.0")
            .body(body)
            .send()
            .await?;
        Ok(answer.status().as_u16())
    }
}

/// The id of the message of this number.
pub fn message_id(number: u32) -> String {
    (500_000_000_000_000_000 + u64::from(number)).to_string()
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
