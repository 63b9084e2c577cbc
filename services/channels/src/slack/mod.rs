//! Slack: direct messages and channels, by the Events API or by Socket Mode.
//! `README.md` says how an app is set up.

mod api;
mod events;
pub(crate) mod mrkdwn;
mod parse;
mod send;
mod signature;
mod socket;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::outbound::{Declaration, Join, Outbound};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::channel::{BadSignature, Channel, Input, Parsed, PullError, Sent, Unparsed};
use crate::limit::{Pace, PaceEach};
use crate::list::{self, AccountSettings, Surroundings};
use crate::media::{Fetch, Unfetched};
use crate::pull::Source;
use api::Api;
use signature::Secrets;

/// What an account of this channel is declared by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    mode: Mode,
    /// `xoxb-…`: by which we send, and fetch files.
    bot_token: SecretString,
    /// What Slack signs events with; two during rotation.
    #[serde(default)]
    signing_secrets: Vec<SecretString>,
    /// `xapp-…`: by which a socket is opened.
    app_token: Option<SecretString>,
    /// Where the Web API is.
    #[serde(default = "default_api_url")]
    api_url: String,
    /// `api_url` may lead to a private or local address.
    #[serde(default)]
    allow_private: bool,
    /// Messages that are sent in a second, to all channels together.
    #[serde(default = "default_per_second")]
    per_second: NonZeroU32,
}

/// How events reach us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Slack posts them to us.
    #[default]
    Events,
    /// We hold a socket open.
    Socket,
}

/// One app in one workspace.
struct Slack {
    mode: Mode,
    secrets: Secrets,
    api: Api,
    /// To one channel Slack takes a message a second.
    each: PaceEach,
}

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let settings: Settings = list::settings(account)?;
    let begins = |secret: &SecretString, with: &str| secret.expose_secret().starts_with(with);
    if !begins(&settings.bot_token, "xoxb-") {
        return Err("bot_token: it begins with xoxb-".to_owned());
    }
    let secrets = settings.signing_secrets.iter().map(ExposeSecret::expose_secret);
    let secrets = Secrets::new(secrets);
    match (settings.mode, secrets.count(), &settings.app_token) {
        (Mode::Events, 1..=2, None) => {}
        (Mode::Events, _, Some(_)) => return Err("app_token: it is for mode = \"socket\"".to_owned()),
        (Mode::Events, _, None) => return Err("signing_secrets: name one, or two during rotation".to_owned()),
        (Mode::Socket, 0, Some(token)) if begins(token, "xapp-") => {}
        (Mode::Socket, 0, _) => return Err("app_token: name the one that begins with xapp-".to_owned()),
        (Mode::Socket, ..) => return Err("signing_secrets: they are for mode = \"events\"".to_owned()),
    }
    Ok(Arc::new(Slack {
        mode: settings.mode,
        secrets,
        api: Api::new(&settings, surroundings)?,
        each: PaceEach::new(NonZeroU32::MIN),
    }))
}

#[async_trait]
impl Channel for Slack {
    fn declaration(&self) -> Declaration {
        Declaration {
            max_chars: Some(send::MAX_CHARS),
            formats: vec!["text/plain".to_owned()],
            resend_safe: false,
            max_attachment_bytes: Some(send::MAX_FILES_BYTES),
            join: Join::Open,
            begins: Some(events::SCHEME.to_owned()),
            thread_is_address: true,
            ..Declaration::default()
        }
    }

    fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        self.secrets.verify(input)
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        signature::KEPT_HEADERS
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        parse::parse(input)
    }

    fn pulls(&self) -> bool {
        self.mode == Mode::Socket
    }

    async fn pull(&self, source: &Source) -> Result<(), PullError> {
        self.read(source).await
    }

    async fn send(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
        self.send_message(outbound, files).await
    }

    async fn media(&self, source: &str) -> Result<Fetch, Unfetched> {
        self.api.file(source).await
    }

    fn send_deadline(&self) -> Duration {
        send::DEADLINE + Pace::PATIENCE * 2
    }

    async fn try_out(&self) -> Option<Result<Vec<String>, String>> {
        Some(self.try_account().await)
    }

    async fn works(&self) -> bool {
        self.api.who().await.is_ok()
    }
}

impl Slack {
    async fn try_account(&self) -> Result<Vec<String>, String> {
        let mut said = vec![self.api.who().await?];
        if self.mode == Mode::Socket {
            self.api
                .socket_url()
                .await
                .map_err(|error| format!("Socket Mode: {error}"))?;
            said.push("Socket Mode is open to us".to_owned());
        }
        Ok(said)
    }
}

fn default_api_url() -> String {
    api::PUBLIC_URL.to_owned()
}

/// Slack speaks of several hundred a minute.
fn default_per_second() -> NonZeroU32 {
    const FIVE: NonZeroU32 = NonZeroU32::new(5).unwrap();
    FIVE
}

/// A signed event, for the contract of all channels.
#[cfg(test)]
pub(crate) fn sample() -> Input {
    let event = serde_json::json!({
        "type": "message", "channel": "D0001", "channel_type": "im", "user": "U0001", "text": "Where is my bike?",
        "ts": "0.000100", "event_ts": "0.000100",
        "files": [{ "id": "F1", "name": "a.png", "mimetype": "image/png", "size": 8, "mode": "hosted",
            "url_private_download": "https://files.slack.com/files-pri/T0001-F1/download/a.png" }],
    });
    let body = serde_json::json!({
        "type": "event_callback", "team_id": "T0001", "api_app_id": "A0001", "event_id": "Ev0001", "event_time": 0,
        "event": event,
    });
    signature::signed("slack-signing-secret-0001", 0, "application/json", &body.to_string())
}
