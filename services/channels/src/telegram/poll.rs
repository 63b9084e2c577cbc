//! Reads a bot's updates by long polling, one worker at a time under a lease.
//!
//! Telegram keeps an update until it is asked for a later one, so nothing is asked
//! for before everything earlier is durable (C1).

use std::time::{Duration, SystemTime};

use model::time::Moment;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Telegram;
use super::api::Failure;
use super::parse;
use crate::channel::{Input, PullError};
use crate::pull::Source;

/// Updates of one answer; Telegram gives no more.
const AT_ONCE: usize = 100;
/// Telegram keeps updates for a day, so an older place confirms nothing; and after a
/// week without updates it counts on from a number drawn anew, which may be lower.
const PLACE_LASTS_MS: i64 = 24 * 60 * 60 * 1000;

/// How far the bot's updates are read; kept in the store.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    /// The number of the next update.
    offset: i64,
    /// When the last one came.
    at: Moment,
}

impl Telegram {
    /// Reads until something breaks or the lease is lost.
    pub(super) async fn read(&self, source: &Source) -> Result<(), PullError> {
        let mut cursor: Option<Cursor> = source.cursor().await?;
        loop {
            let updates = self.updates(cursor.as_ref()).await?;
            source.seen(updates.len()).await;
            if updates.is_empty() {
                continue;
            }
            for update in &updates {
                self.take(source, update).await?;
            }
            let last = updates.iter().filter_map(|update| update["update_id"].as_i64()).max();
            if let Some(last) = last {
                let next = cursor.insert(Cursor {
                    offset: last.saturating_add(1),
                    at: now(),
                });
                if !source.move_cursor(next).await? {
                    return Ok(());
                }
            }
            source.seen(0).await;
        }
    }

    /// The next updates, as soon as there are some.
    async fn updates(&self, cursor: Option<&Cursor>) -> Result<Vec<Value>, PullError> {
        let mut asked = json!({
            "timeout": self.poll_seconds,
            "limit": AT_ONCE,
            "allowed_updates": parse::READ,
        });
        if let Some(cursor) = cursor.filter(|cursor| now().since_ms(cursor.at) < PLACE_LASTS_MS) {
            asked["offset"] = cursor.offset.into();
        }
        let longest = Duration::from_secs(self.poll_seconds);
        match self.api.poll("getUpdates", asked, longest).await {
            Ok(Value::Array(updates)) => Ok(updates),
            Ok(_) => Err(broken(&"Telegram's answer holds no updates")),
            Err(Failure::Refused(refusal)) if refusal.error_code == 409 => {
                self.end_webhook().await?;
                Ok(Vec::new())
            }
            Err(failure) => Err(broken(&failure)),
        }
    }

    /// Updates go to a webhook, or to somebody else who polls. What waits for the
    /// webhook comes here from now on.
    async fn end_webhook(&self) -> Result<(), PullError> {
        let info = self
            .api
            .ask("getWebhookInfo", json!({}))
            .await
            .map_err(|failure| broken(&failure))?;
        if info["url"].as_str().unwrap_or_default().is_empty() {
            return Err(broken(&"another program polls this bot"));
        }
        let asked = json!({ "drop_pending_updates": false });
        self.api
            .ask("deleteWebhook", asked)
            .await
            .map_err(|failure| broken(&failure))?;
        tracing::info!("the bot's webhook was removed: it is polled now");
        Ok(())
    }

    async fn take(&self, source: &Source, update: &Value) -> Result<(), PullError> {
        let input = Input {
            method: String::new(),
            url: String::new(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: update.to_string().into(),
            received_at: now(),
        };
        source
            .accept(&input, || std::future::ready(parse::parse(&self.reading, &input)))
            .await?;
        // The button goes on turning otherwise; that it does harms nobody.
        if let Some(id) = update["callback_query"]["id"].as_str() {
            let asked = json!({ "callback_query_id": id });
            if let Err(failure) = self.api.ask("answerCallbackQuery", asked).await {
                tracing::debug!(account.name = source.account, %failure, "button not answered");
            }
        }
        Ok(())
    }
}

fn broken(reason: &impl std::fmt::Display) -> PullError {
    PullError {
        reason: reason.to_string(),
    }
}

fn now() -> Moment {
    SystemTime::now().into()
}
