//! What happens to the bot: updates, each kept until somebody has taken it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::lock;
use super::{State, Telegram, Webhook};

/// Telegram waits longer before it comes again.
const AGAIN: Duration = Duration::from_millis(200);

/// A person, as messages and chats name them.
pub fn person(id: i64, name: &str) -> Value {
    json!({ "id": id, "is_bot": false, "first_name": name, "language_code": "en" })
}

impl Telegram {
    /// A message of a person's to the bot, with this content.
    pub fn message(from: i64, message_id: i64, content: Value) -> Value {
        let mut message = json!({
            "message_id": message_id,
            "date": now_s(),
            "from": person(from, "Ann"),
            "chat": { "id": from, "type": "private", "first_name": "Ann" },
        });
        merge(&mut message, content);
        json!({ "message": message })
    }

    /// Something happens: what is told of it, by its number.
    pub fn happens(&self, update: Value) -> Value {
        let mut updates = lock(&self.state.updates);
        updates.last_id += 1;
        let id = updates.last_id;
        let mut told = json!({ "update_id": id });
        merge(&mut told, update);
        updates.waiting.insert(id, told.clone());
        drop(updates);
        self.state.changed.notify_waiters();
        told
    }

    /// Telegram missed that somebody took it.
    pub fn again(&self, told: &Value) {
        if let Some(id) = told["update_id"].as_i64() {
            lock(&self.state.updates).waiting.insert(id, told.clone());
        }
        self.state.changed.notify_waiters();
    }

    /// Pushes an update once more, or before its turn, with this secret: the status.
    pub async fn push(&self, url: &str, secret: Option<&str>, update: &Value) -> Result<u16> {
        let hook = Webhook {
            url: url.to_owned(),
            secret: secret.unwrap_or_default().to_owned(),
        };
        let (status, _) = push(&self.client, &hook, update).await?;
        Ok(status)
    }
}

/// Pushes what waits to the webhook, the earliest first, again and again.
pub async fn deliver(state: Arc<State>, client: reqwest::Client) {
    loop {
        let changed = state.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let next = {
            let updates = lock(&state.updates);
            let first = updates.waiting.first_key_value();
            updates
                .webhook
                .clone()
                .zip(first.map(|(id, update)| (*id, update.clone())))
        };
        let Some((hook, (id, update))) = next else {
            changed.await;
            continue;
        };
        match push(&client, &hook, &update).await {
            Ok((200..=299, body)) => {
                lock(&state.updates).waiting.remove(&id);
                take_call(&state, &body);
            }
            other => {
                let error = match other {
                    Ok((status, _)) => format!("Wrong response from the webhook: {status}"),
                    Err(_) => "Connection refused".to_owned(),
                };
                lock(&state.updates).last_error = Some(error);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn push(client: &reqwest::Client, hook: &Webhook, update: &Value) -> Result<(u16, String)> {
    let mut request = client.post(&hook.url).header("content-type", "application/json");
    if !hook.secret.is_empty() {
        request = request.header("x-telegram-bot-api-secret-token", &hook.secret);
    }
    let answer = request.body(update.to_string()).send().await.context("not reached")?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// An answer may be a call of the API.
fn take_call(state: &State, body: &str) {
    let call: Value = serde_json::from_str(body).unwrap_or_default();
    if call["method"] == "answerCallbackQuery"
        && let Some(id) = call["callback_query_id"].as_str()
    {
        lock(&state.answered).push(id.to_owned());
    }
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
