//! Telegram: one account is one bot, whose updates come by webhook or by long
//! polling. `README.md` says how an account is set up.

mod api;
mod link;
mod parse;
mod poll;
mod send;
mod update;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use model::id::ConversationId;
use model::outbound::{Declaration, Join, Outbound};
use model::time::Moment;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use crate::channel::{BadSignature, Channel, Input, Invitation, Parsed, PullError, Sent, Unparsed};
use crate::limit::Pace;
use crate::list::{self, AccountSettings, Surroundings};
use crate::media::{Fetch, Unfetched};
use crate::pull::Source;
use api::Api;
use link::Links;
use parse::Reading;

/// Carries the secret that we gave Telegram with the webhook's address.
const SECRET_TOKEN: &str = "x-telegram-bot-api-secret-token";

/// What an account of this channel is declared by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The bot's token, as BotFather gave it.
    token: SecretString,
    mode: Mode,
    /// The bot's name, without `@`: with it links to the bot can be made.
    username: Option<String>,
    /// What a webhook must carry; two during rotation. The first is told to Telegram.
    #[serde(default)]
    webhook_secrets: Vec<SecretString>,
    /// Groups that are listened to, by their numbers.
    #[serde(default)]
    groups: Vec<i64>,
    /// Where the Bot API is.
    #[serde(default = "default_api_url")]
    api_url: String,
    /// `api_url` may lead to a private or local address.
    #[serde(default)]
    allow_private: bool,
    /// Messages that are sent in a second.
    #[serde(default = "default_per_second")]
    per_second: NonZeroU32,
    /// So long Telegram keeps a poll waiting while there is nothing.
    #[serde(default = "default_poll_seconds")]
    poll_seconds: u64,
}

/// How updates come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Webhook,
    Polling,
}

struct Telegram {
    api: Api,
    mode: Mode,
    secrets: Vec<SecretString>,
    reading: Reading,
    username: Option<String>,
    poll_seconds: u64,
    /// Where Telegram finds this account of ours.
    own_url: String,
}

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let settings: Settings = list::settings(account)?;
    let secrets = &settings.webhook_secrets;
    match settings.mode {
        Mode::Webhook if !(1..=2).contains(&secrets.len()) => {
            return Err("webhook_secrets: name one, or two during rotation".to_owned());
        }
        Mode::Polling if !secrets.is_empty() => {
            return Err("webhook_secrets: nothing is pushed to an account that polls".to_owned());
        }
        Mode::Webhook | Mode::Polling => {}
    }
    if !secrets.iter().all(|secret| is_secret(secret.expose_secret())) {
        return Err("webhook_secrets: a secret has 16 to 256 of A-Z, a-z, 0-9, - and _".to_owned());
    }
    if settings.username.as_deref().is_some_and(|name| !is_username(name)) {
        return Err("username: the bot's, without @, as in https://t.me/username".to_owned());
    }
    if !(1..=50).contains(&settings.poll_seconds) {
        return Err("poll_seconds: 1 to 50".to_owned());
    }
    let api = Api::new(
        &settings.api_url,
        settings.token,
        settings.allow_private,
        settings.per_second,
        &surroundings.http,
    )?;
    Ok(Arc::new(Telegram {
        api,
        mode: settings.mode,
        secrets: settings.webhook_secrets,
        reading: Reading {
            groups: settings.groups,
            links: Links {
                keys: surroundings.keys.clone(),
                account: account.name.clone(),
            },
        },
        username: settings.username,
        poll_seconds: settings.poll_seconds,
        own_url: format!("{}/in/{}", surroundings.public_url, account.name),
    }))
}

fn is_username(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (4..=32).contains(&text.len()) && text.bytes().all(is_plain)
}

/// What Telegram takes for one, and long enough not to be guessed.
fn is_secret(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (16..=256).contains(&text.len()) && text.bytes().all(is_plain)
}

fn default_api_url() -> String {
    api::PUBLIC_URL.to_owned()
}

fn default_per_second() -> NonZeroU32 {
    const TWENTY_FIVE: NonZeroU32 = NonZeroU32::new(25).unwrap();
    TWENTY_FIVE
}

fn default_poll_seconds() -> u64 {
    25
}

#[async_trait]
impl Channel for Telegram {
    fn declaration(&self) -> Declaration {
        Declaration {
            max_chars: Some(send::MAX_CHARS),
            formats: vec!["text/plain".to_owned()],
            resend_safe: false,
            quotes: true,
            max_attachment_bytes: Some(send::MAX_FILE_BYTES),
            join: Join::Open,
            invites: self.username.is_some(),
            ..Declaration::default()
        }
    }

    /// The secret is all the proof that there is: Telegram signs nothing.
    fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        let given = input.header(SECRET_TOKEN).ok_or(BadSignature {
            reason: "x-telegram-bot-api-secret-token is missing",
        })?;
        let is_known = |secret: &SecretString| {
            verify_slices_are_equal(secret.expose_secret().as_bytes(), given.as_bytes()).is_ok()
        };
        // Each is compared, whichever it is.
        let known = self.secrets.iter().filter(|secret| is_known(secret)).count();
        match known {
            0 => Err(BadSignature {
                reason: "x-telegram-bot-api-secret-token is none of this account",
            }),
            _ => Ok(()),
        }
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        &["content-type", SECRET_TOKEN]
    }

    fn secret_headers(&self) -> &'static [&'static str] {
        &[SECRET_TOKEN]
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        parse::parse(&self.reading, input)
    }

    fn pulls(&self) -> bool {
        self.mode == Mode::Polling
    }

    /// A stop ends it anywhere: what was not finished is repeated and changes nothing.
    async fn pull(&self, source: &Source) -> Result<(), PullError> {
        tokio::select! {
            () = source.stop.cancelled() => Ok(()),
            read = self.read(source) => read,
        }
    }

    async fn send(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
        self.send_message(outbound, files).await
    }

    async fn media(&self, source: &str) -> Result<Fetch, Unfetched> {
        self.api.file(source).await
    }

    fn invitation(&self, conversation: &ConversationId, now: Moment) -> Option<Invitation> {
        let username = self.username.as_ref()?;
        Some(self.reading.links.to(username, conversation, now))
    }

    fn send_deadline(&self) -> Duration {
        send::DEADLINE + Pace::PATIENCE
    }

    async fn try_out(&self) -> Option<Result<Vec<String>, String>> {
        Some(self.try_account().await)
    }

    async fn works(&self) -> bool {
        self.api.ask("getMe", json!({})).await.is_ok()
    }
}

impl Telegram {
    async fn try_account(&self) -> Result<Vec<String>, String> {
        let ask = async |method: &str, asked| self.api.ask(method, asked).await.map_err(|failure| failure.to_string());
        let bot = ask("getMe", json!({})).await?;
        let name = bot["username"].as_str().unwrap_or("?");
        if let Some(declared) = self
            .username
            .as_ref()
            .filter(|declared| !declared.eq_ignore_ascii_case(name))
        {
            return Err(format!("username: the bot is called {name}, not {declared}"));
        }
        let mut lines = vec![format!("the bot @{name} answers")];
        if let (Mode::Webhook, Some(secret)) = (self.mode, self.secrets.first()) {
            let asked = json!({
                "url": self.own_url,
                "secret_token": secret.expose_secret(),
                "allowed_updates": parse::READ,
                "drop_pending_updates": false,
            });
            ask("setWebhook", asked).await?;
        }
        let info = ask("getWebhookInfo", json!({})).await?;
        let url = info["url"].as_str().unwrap_or_default();
        lines.push(match (self.mode, url.is_empty()) {
            (Mode::Webhook, _) if url == self.own_url => format!("its updates come to {url}"),
            (Mode::Webhook, _) => return Err(format!("its updates go to {url}, not to {}", self.own_url)),
            (Mode::Polling, true) => "its updates are polled".to_owned(),
            (Mode::Polling, false) => "its updates go to a webhook, which ends when a worker polls".to_owned(),
        });
        lines.push(format!(
            "{} updates wait at Telegram",
            info["pending_update_count"].as_u64().unwrap_or(0)
        ));
        if let Some(error) = info["last_error_message"].as_str() {
            lines.push(format!("the last update that could not be delivered: {error}"));
        }
        Ok(lines)
    }
}
