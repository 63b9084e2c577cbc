//! A system that sends us webhooks: an implementation of Standard Webhooks of
//! its own, so that ours is held to the specification and not to itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Our accounts' secret in every world.
pub const SECRET: &str = "whsec_dGhlIHNlY3JldCBvZiB0aGUgc3RvcmllcyE=";

/// Providers give up after about this long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// One sending system, bound to an account.
#[derive(Clone, Debug)]
pub struct Sender {
    client: reqwest::Client,
    url: String,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub took: Duration,
}

impl Sender {
    /// `public` is the address of a gateway.
    pub fn new(public: &str, account: &str) -> Result<Self> {
        Ok(Self {
            client: reqwest::Client::builder().timeout(PATIENCE).build()?,
            url: format!("{public}/in/{account}"),
        })
    }

    /// Sends a message under this `webhook-id`.
    pub async fn send(&self, id: &str, body: &Value) -> Result<Answer> {
        self.post(id, body.to_string().into_bytes()).await
    }

    /// Sends these bytes, signed now.
    pub async fn post(&self, id: &str, body: Vec<u8>) -> Result<Answer> {
        let now = now_seconds()?;
        let signature = sign(SECRET, id, now, &body)?;
        self.post_with(id, now, &signature, body).await
    }

    /// Sends these bytes with whatever signature.
    pub async fn post_with(&self, id: &str, timestamp: u64, signature: &str, body: Vec<u8>) -> Result<Answer> {
        let started = std::time::Instant::now();
        let request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body);
        let answer = request.send().await?;
        Ok(Answer {
            status: answer.status().as_u16(),
            body: answer.text().await?,
            took: started.elapsed(),
        })
    }
}

/// A message in the documented shape.
pub fn message(address: &str, subject: &str, text: &str) -> Value {
    json!({ "from": { "address": address, "name": "A Customer" }, "subject": subject, "text": text })
}

/// `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
pub fn sign(secret: &str, id: &str, timestamp: u64, body: &[u8]) -> Result<String> {
    let key = secret.strip_prefix("whsec_").context("not a secret")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(key)?);
    let mut signed = format!("{id}.{timestamp}.").into_bytes();
    signed.extend_from_slice(body);
    Ok(format!("v1,{}", STANDARD.encode(hmac::sign(&key, &signed))))
}

/// Seconds since 1970.
pub fn now_seconds() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
