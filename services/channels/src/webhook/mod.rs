//! Webhooks: any system posts messages as JSON, signed by Standard Webhooks, and
//! is posted the answers in the same way. `README.md` shows the shape.

mod parse;
mod send;

use std::sync::Arc;

use async_trait::async_trait;
use model::outbound::{Declaration, Join, Outbound};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use crate::channel::{BadSignature, Channel, Input, Parsed, Sent, Unparsed};
use crate::guard::Guard;
use crate::list::{self, AccountSettings, Surroundings};
use crate::media::{Fetch, Unfetched};
use crate::signature::{self, WebhookSecret};

/// What an account of this channel is declared by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// One secret, or the old and the new one during rotation.
    secrets: Vec<SecretString>,
    /// Where answers are posted. Without it nothing can be answered.
    deliver_url: Option<String>,
    /// Signs what we post; without it the first of `secrets` does.
    deliver_secret: Option<SecretString>,
    /// `deliver_url` may lead to a private or local address.
    #[serde(default)]
    allow_private: bool,
    /// The `url` of an attachment may lead to a private or local address.
    #[serde(default)]
    fetch_private: bool,
}

struct Webhook {
    account: String,
    secrets: Vec<WebhookSecret>,
    target: Option<Target>,
    fetch_private: bool,
}

/// Where answers go.
struct Target {
    url: Url,
    secret: WebhookSecret,
    http: Guard,
}

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let settings: Settings = list::settings(account)?;
    if !(1..=2).contains(&settings.secrets.len()) {
        return Err("secrets: name one, or two during rotation".to_owned());
    }
    let mut secrets = Vec::new();
    for secret in &settings.secrets {
        secrets.push(WebhookSecret::parse(secret.expose_secret()).map_err(|error| format!("secrets: {error}"))?);
    }
    let target = match &settings.deliver_url {
        Some(url) => Some(target(url, &settings, &secrets, surroundings)?),
        None => None,
    };
    Ok(Arc::new(Webhook {
        account: account.name.clone(),
        secrets,
        target,
        fetch_private: settings.fetch_private,
    }))
}

fn target(
    url: &str,
    settings: &Settings,
    secrets: &[WebhookSecret],
    surroundings: &Surroundings,
) -> Result<Target, String> {
    let http = match settings.allow_private {
        true => Guard::new(true)?,
        false => surroundings.http.clone(),
    };
    let url = http.url(url).map_err(|error| format!("deliver_url: {error}"))?;
    let secret = match &settings.deliver_secret {
        Some(text) => WebhookSecret::parse(text.expose_secret()).map_err(|error| format!("deliver_secret: {error}"))?,
        None => secrets.first().cloned().ok_or("secrets: name one")?,
    };
    Ok(Target { url, secret, http })
}

#[async_trait]
impl Channel for Webhook {
    fn declaration(&self) -> Declaration {
        Declaration {
            max_chars: None,
            formats: vec!["text/plain".to_owned(), "text/html".to_owned()],
            reply_window_ms: None,
            resend_safe: true,
            max_attachment_bytes: Some(5 * 1024 * 1024),
            join: Join::Thread,
            ..Declaration::default()
        }
    }

    fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        signature::verify_webhook(&self.secrets, input)
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        parse::parse(&self.account, input)
    }

    async fn media(&self, source: &str) -> Result<Fetch, Unfetched> {
        Ok(Fetch {
            allow_private: self.fetch_private,
            ..Fetch::of(source)
        })
    }

    async fn send(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
        match &self.target {
            Some(target) => send::send(target, outbound, files).await,
            None => Sent::Refused {
                error: format!(
                    "account {} has no deliver_url: its messages cannot be answered",
                    self.account
                ),
            },
        }
    }
}
