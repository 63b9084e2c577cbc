//! How Slack calls us: JSON, signed over time and body.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::{APP, BOT_USER, Posted, SIGNING_SECRET, Slack, TEAM};

/// What we answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// An event in its envelope, called by `id`.
pub fn event(id: &str, event: Value) -> Value {
    json!({
        "token": "legacy", "team_id": TEAM, "api_app_id": APP, "type": "event_callback",
        "event_id": format!("Ev{id}"), "event_time": 1_790_000_000, "event": event,
        "authorizations": [{ "enterprise_id": null, "team_id": TEAM, "user_id": BOT_USER, "is_bot": true }],
        "is_ext_shared_channel": false, "event_context": "4-abc",
    })
}

/// A message in a channel, at this time.
pub fn message(channel: &str, user: &str, ts: &str, text: &str) -> Value {
    json!({
        "type": "message", "channel": channel, "channel_type": "channel", "user": user, "text": text, "ts": ts,
        "event_ts": ts, "team": TEAM, "client_msg_id": format!("7e605c6c-{ts}"),
        "blocks": [{ "type": "rich_text", "block_id": "b", "elements": [{ "type": "rich_text_section",
            "elements": [{ "type": "text", "text": text }] }] }],
    })
}

/// A direct message: `U1` writes in `D1`.
pub fn direct(user: &str, ts: &str, text: &str) -> Value {
    let channel = user.replacen('U', "D", 1);
    let mut message = message(&channel, user, ts, text);
    message["channel_type"] = json!("im");
    message
}

/// `v0=…` over the raw bytes.
pub fn sign(secret: &str, timestamp: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mac = hmac::sign(&key, format!("v0:{timestamp}:{body}").as_bytes());
    let hex: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v0={hex}")
}

impl Slack {
    /// Posts an envelope to the account.
    pub async fn post(&self, account: &str, envelope: &Value) -> Result<Answer> {
        self.post_again(account, envelope, 0).await
    }

    /// The same, as Slack does it for the so-manieth time.
    pub async fn post_again(&self, account: &str, envelope: &Value, retry: u32) -> Result<Answer> {
        let media_type = "application/json";
        self.post_signed(account, media_type, &envelope.to_string(), SIGNING_SECRET, now(), retry)
            .await
    }

    /// Posts whatever form it is.
    pub async fn post_form(&self, account: &str, body: &str) -> Result<Answer> {
        let media_type = "application/x-www-form-urlencoded";
        self.post_signed(account, media_type, body, SIGNING_SECRET, now(), 0)
            .await
    }

    /// Posts a body that is signed by this secret, at this time.
    pub async fn post_signed(
        &self,
        account: &str,
        media_type: &str,
        body: &str,
        secret: &str,
        timestamp: u64,
        retry: u32,
    ) -> Result<Answer> {
        let mut request = self
            .client
            .post(format!("{}/in/{account}", self.public))
            .header("content-type", media_type)
            .header("x-slack-request-timestamp", timestamp.to_string())
            .header("x-slack-signature", sign(secret, timestamp, body));
        if retry > 0 {
            request = request
                .header("x-slack-retry-num", retry.to_string())
                .header("x-slack-retry-reason", "http_timeout");
        }
        let answer = request.body(body.to_owned()).send().await?;
        Ok(Answer {
            status: answer.status().as_u16(),
            body: answer.text().await?,
        })
    }

    /// A message of ours, as Slack shows it to the app that posted it.
    pub fn shown(&self, posted: &Posted) -> Value {
        let mut message = message(&posted.channel, BOT_USER, &posted.ts, &posted.text);
        message["bot_id"] = json!("B0STORIES");
        message["app_id"] = json!(APP);
        message["metadata"] = posted.metadata.clone();
        if let Some(ts) = &posted.thread_ts {
            message["thread_ts"] = json!(ts);
        }
        message
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).unwrap_or_default()
}
