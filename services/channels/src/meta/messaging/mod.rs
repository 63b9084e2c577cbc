//! What Messenger and Instagram share beside the envelope: their events, their way of
//! sending, and what an account may do.

mod content;
mod parse;
mod send;

use std::time::Duration;

use async_trait::async_trait;
use model::outbound::{Declaration, Join, Outbound};
use serde_json::Value;

use super::graph::Failed;
use super::{Meta, text};
use crate::channel::{Answer, BadSignature, Channel, Input, Parsed, Sent, Unparsed};
use crate::limit::Pace;
use crate::links::Links;
use crate::media::{Fetch, Unfetched};

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
    /// What the API calls an account of it: its noun, the fields to ask for, and where
    /// the answer names it.
    pub itself: (&'static str, &'static str, &'static str),
    /// What the app wants to hear of.
    pub subscribed_fields: &'static [&'static str],
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

#[async_trait]
impl Channel for Messaging {
    fn declaration(&self) -> Declaration {
        let days = if self.human_agent { 7 } else { 1 };
        Declaration {
            max_chars: Some(self.kind.max_chars),
            formats: vec!["text/plain".to_owned()],
            reply_window_ms: Some(days * DAY_MS),
            quotes: self.kind.quotes,
            resend_safe: false,
            max_attachment_bytes: Some(self.kind.max_media_bytes),
            join: Join::Open,
            bare_echoes: !self.kind.has_metadata,
            ..Declaration::default()
        }
    }

    fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        self.meta.verifier.verify(input)
    }

    fn handshake(&self, input: &Input) -> Option<Answer> {
        Some(self.meta.handshake.answer(input))
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        super::KEPT_HEADERS
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        parse::parse(self, &input.body)
    }

    async fn send(&self, outbound: &Outbound, _files: &[Vec<u8>]) -> Sent {
        self.send_message(outbound).await
    }

    /// A signed link that needs no token.
    async fn media(&self, source: &str) -> Result<Fetch, Unfetched> {
        Ok(self.meta.graph.fetch_public(source))
    }

    fn send_deadline(&self) -> Duration {
        send::DEADLINE + Pace::PATIENCE
    }

    async fn try_out(&self) -> Option<Result<Vec<String>, String>> {
        Some(self.try_account().await)
    }

    async fn works(&self) -> bool {
        self.itself().await.is_ok()
    }
}

impl Messaging {
    async fn itself(&self) -> Result<Value, String> {
        let (_, fields, _) = self.kind.itself;
        let shown = self.meta.graph.get(&format!("{}?fields={fields}", self.sender)).await;
        shown.map_err(Failed::words)
    }

    /// Asks for its name, and lets the app hear of what happens to it.
    async fn try_account(&self) -> Result<Vec<String>, String> {
        let (noun, _, pointer) = self.kind.itself;
        let graph = &self.meta.graph;
        let shown = self.itself().await?;
        let name = text(&shown, pointer).ok_or_else(|| format!("Meta's answer names no {noun}"))?;
        let subscribed = self.kind.subscribed_fields;
        let body = serde_json::json!({ "subscribed_fields": subscribed });
        let answer = graph.post(&format!("{}/subscribed_apps", self.sender), &body).await;
        answer.map_err(Failed::words)?;
        Ok(vec![
            format!("the {noun} {name} is there"),
            format!("the app hears of {}", subscribed.join(", ")),
        ])
    }
}
