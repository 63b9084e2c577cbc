//! An agent at the desk: the API with a bearer token.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::wait::eventually;

/// How long it may take until something has become a ticket, unless a story
/// says otherwise.
pub const SOON: Duration = Duration::from_secs(20);

/// A signed-in agent.
#[derive(Clone, Debug)]
pub struct Desk {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Desk {
    pub fn new(base: &str, token: &str) -> Result<Self> {
        Ok(Self {
            client: reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?,
            base: base.to_owned(),
            token: token.to_owned(),
        })
    }

    /// Whatever GET answers with 200.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self
            .client
            .get(format!("{}{path}", self.base))
            .bearer_auth(&self.token)
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "GET {path}: {status} {text}");
        serde_json::from_str(&text).with_context(|| format!("GET {path}: {text}"))
    }

    /// The bytes that GET answers with 200.
    pub async fn get_bytes(&self, path: &str) -> Result<Vec<u8>> {
        let answer = self
            .client
            .get(format!("{}{path}", self.base))
            .bearer_auth(&self.token)
            .send()
            .await?;
        ensure!(answer.status().is_success(), "GET {path}: {}", answer.status());
        Ok(answer.bytes().await?.to_vec())
    }

    /// Status and body of a POST under an idempotency key.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Result<(u16, Value)> {
        let request = self
            .client
            .post(format!("{}{path}", self.base))
            .bearer_auth(&self.token)
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Status of a DELETE.
    pub async fn delete(&self, path: &str) -> Result<u16> {
        let request = self
            .client
            .delete(format!("{}{path}", self.base))
            .bearer_auth(&self.token);
        Ok(request.send().await?.status().as_u16())
    }

    /// Uploads a file, which must be taken.
    pub async fn upload(&self, name: &str, bytes: &[u8]) -> Result<Value> {
        let url = reqwest::Url::parse_with_params(&format!("{}/v1/files", self.base), [("name", name)])?;
        let request = self.client.post(url).bearer_auth(&self.token).body(bytes.to_vec());
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status == 201, "upload: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// All items of a list, page after page.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut after = String::new();
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let mut page = self.get(&format!("{path}{separator}limit=200{after}")).await?;
            match page["items"].take() {
                Value::Array(found) => items.extend(found),
                other => anyhow::bail!("{path}: no items but {other}"),
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(items),
            }
        }
    }

    /// All tickets of a queue.
    pub async fn tickets(&self, queue: &str) -> Result<Vec<Value>> {
        self.list(&format!("/v1/tickets?queue={queue}")).await
    }

    /// The only ticket of a queue with this subject, with all about it, as soon as it exists.
    pub async fn ticket(&self, queue: &str, subject: &str) -> Result<Value> {
        let what = format!("a ticket \"{subject}\" in {queue}");
        let number = eventually(&what, SOON, async || {
            let tickets = self.tickets(queue).await?;
            let mut found = tickets.iter().filter(|ticket| ticket["subject"] == subject);
            let Some(ticket) = found.next() else {
                return Ok(None);
            };
            ensure!(found.next().is_none(), "there are two");
            Ok(ticket["number"].as_str().map(str::to_owned))
        })
        .await?;
        self.show(&number).await
    }

    /// One ticket with all about it.
    pub async fn show(&self, number: &str) -> Result<Value> {
        self.get(&format!("/v1/tickets/{number}")).await
    }

    /// Does something to a ticket, which must be allowed.
    pub async fn act(&self, number: &str, verb: &str, body: &Value) -> Result<Value> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let key = format!("{number}-{verb}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let (status, answer) = self.post(&format!("/v1/tickets/{number}/{verb}"), &key, body).await?;
        ensure!(status == 200, "{verb} {number}: {status} {answer}");
        Ok(answer)
    }

    /// Messages and notes of a conversation, in order.
    pub async fn messages(&self, conversation: &str) -> Result<Vec<Value>> {
        self.list(&format!("/v1/conversations/{conversation}/messages")).await
    }

    /// Waits until a conversation has this many messages.
    pub async fn messages_at_least(&self, conversation: &str, count: usize) -> Result<Vec<Value>> {
        let what = format!("{count} messages in {conversation}");
        eventually(&what, SOON, async || {
            let messages = self.messages(conversation).await?;
            Ok((messages.len() >= count).then_some(messages))
        })
        .await
    }

    /// Answers in a conversation.
    pub async fn reply(&self, conversation: &str, key: &str, text: &str) -> Result<Value> {
        let path = format!("/v1/conversations/{conversation}/replies");
        let (status, message) = self.post(&path, key, &json!({ "text": text })).await?;
        ensure!(status == 201, "reply: {status} {message}");
        Ok(message)
    }
}

/// The only conversation of a ticket.
pub fn conversation(ticket: &Value) -> Result<&str> {
    let all = ticket["conversations"].as_array().context("no conversations")?;
    ensure!(all.len() == 1, "one conversation expected, got {all:?}");
    all[0].as_str().context("no id")
}

/// The ticket's clock for this metric.
pub fn clock<'a>(ticket: &'a Value, metric: &str) -> Result<&'a Value> {
    let clocks = ticket["clocks"].as_array().context("no clocks")?;
    let found = clocks.iter().find(|clock| clock["metric"] == metric);
    found.with_context(|| format!("no {metric} clock in {clocks:?}"))
}

/// A text field that must be there.
pub fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field]
        .as_str()
        .with_context(|| format!("no text {field} in {value}"))
}
