//! What Messenger and Instagram share beside the envelope: their events, their way of
//! sending, and what an account may do.

mod content;
mod parse;
mod send;

use std::time::Duration;

use model::outbound::{Declaration, Join, Outbound};
use serde_json::Value;

use super::Meta;
use super::graph::Failed;
use crate::channel::{Input, Parsed, Sent, Unparsed};
use crate::limit::Pace;
use crate::links::Links;
use crate::media::Fetch;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What differs between the two.
pub struct Kind {
    /// The object of their webhooks.
    pub object: &'static str,
    /// The scheme of their users' addresses.
    pub scheme: &'static str,
    /// A text in messages as long as they may be.
    pub split: fn(&str) -> Vec<String>,
    /// Longest text that is sent, in several messages.
    pub max_chars: u32,
    /// All files of a message together.
    pub max_media_bytes: u64,
    /// It can show another message as quoted.
    pub quotes: bool,
    /// Our own name of a message may travel with it.
    pub has_metadata: bool,
}

/// A page or an account of the two.
pub struct Messaging {
    pub meta: Meta,
    pub kind: &'static Kind,
    /// Our own account, by its name in the settings.
    pub account: String,
    /// What the webhooks call it.
    pub id: String,
    /// What the API calls it.
    pub sender: String,
    /// Our app: what it has sent comes back to it.
    pub app_id: Option<String>,
    /// Meta lets people answer for seven days.
    pub human_agent: bool,
    pub links: Links,
}

impl Messaging {
    pub fn declaration(&self) -> Declaration {
        let days = if self.human_agent { 7 } else { 1 };
        Declaration {
            max_chars: Some(self.kind.max_chars),
            formats: vec!["text/plain".to_owned()],
            reply_window_ms: Some(days * DAY_MS),
            quotes: self.kind.quotes,
            resend_safe: false,
            max_attachment_bytes: Some(self.kind.max_media_bytes),
            join: Join::Open,
            ..Declaration::default()
        }
    }

    pub fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        parse::parse(self, &input.body)
    }

    pub async fn send(&self, outbound: &Outbound) -> Sent {
        self.send_message(outbound).await
    }

    /// A signed link that needs no token.
    pub fn media(&self, source: &str) -> Fetch {
        self.meta.graph.fetch_public(source)
    }

    pub fn send_deadline(&self) -> Duration {
        send::DEADLINE + Pace::PATIENCE
    }

    /// Lets the app hear of what happens to the page or account.
    pub async fn subscribe(&self, id: &str, fields: &[&str]) -> Result<String, String> {
        let body = serde_json::json!({ "subscribed_fields": fields });
        let answer = self.meta.graph.post(&format!("{id}/subscribed_apps"), &body).await;
        answer.map_err(Failed::words)?;
        Ok(format!("the app hears of {}", fields.join(", ")))
    }

    /// What the API says of the page or account.
    pub async fn show(&self, path: &str) -> Result<Value, String> {
        self.meta.graph.get(path).await.map_err(Failed::words)
    }
}
