//! LINE: one account is one channel of the Messaging API. `README.md` says how an
//! account is set up.

mod api;
mod parse;
mod send;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::outbound::{Declaration, Join, Outbound};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::channel::{BadSignature, Channel, Input, Parsed, Sent, Unparsed};
use crate::limit::Pace;
use crate::links::Links;
use crate::list::{self, AccountSettings, Surroundings};
use crate::media::{Fetch, Unfetched};
use api::{Api, Failure};

/// The body's signature, in base64.
const SIGNATURE: &str = "x-line-signature";

/// What an account of this channel is declared by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The channel secret, or the new and the old one during rotation: all verify.
    channel_secrets: Vec<SecretString>,
    /// A long-lived channel access token.
    access_token: SecretString,
    /// Groups and rooms that are listened to, by their ids.
    #[serde(default)]
    groups: Vec<String>,
    /// Answers go by the reply token while it is good, which costs nothing; else all
    /// are pushed.
    #[serde(default = "default_reply_tokens")]
    reply_tokens: bool,
    /// Where the Messaging API is.
    #[serde(default = "default_api_url")]
    api_url: String,
    /// `api_url` may lead to a private or local address.
    #[serde(default)]
    allow_private: bool,
    /// Requests that send something in a second.
    #[serde(default = "default_per_second")]
    per_second: NonZeroU32,
}

struct Line {
    api: Api,
    keys: Vec<hmac::Key>,
    groups: Vec<String>,
    reply_tokens: bool,
    links: Links,
    /// Where LINE finds this account of ours.
    own_url: String,
}

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let settings: Settings = list::settings(account)?;
    if !(1..=2).contains(&settings.channel_secrets.len()) {
        return Err("channel_secrets: name one, or two during rotation".to_owned());
    }
    let secrets = settings.channel_secrets.iter();
    if secrets.clone().any(|secret| secret.expose_secret().trim().is_empty()) {
        return Err("channel_secrets: a secret is empty".to_owned());
    }
    let keys = secrets.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()));
    Ok(Arc::new(Line {
        keys: keys.collect(),
        api: Api::new(
            &settings.api_url,
            &settings.access_token,
            settings.allow_private,
            settings.per_second,
            &surroundings.http,
        )?,
        groups: settings.groups,
        reply_tokens: settings.reply_tokens,
        links: Links::new(surroundings),
        own_url: format!("{}/in/{}", surroundings.public_url, account.name),
    }))
}

fn default_reply_tokens() -> bool {
    true
}

fn default_api_url() -> String {
    api::PUBLIC_URL.to_owned()
}

fn default_per_second() -> NonZeroU32 {
    const FIFTY: NonZeroU32 = NonZeroU32::new(50).unwrap();
    FIFTY
}

#[async_trait]
impl Channel for Line {
    fn declaration(&self) -> Declaration {
        Declaration {
            max_chars: Some(send::MAX_CHARS),
            formats: vec!["text/plain".to_owned()],
            quotes: true,
            // A push carries a key, an answer by token does not.
            resend_safe: !self.reply_tokens,
            max_attachment_bytes: Some(send::MAX_FILE_BYTES),
            join: Join::Open,
            ..Declaration::default()
        }
    }

    fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        let bad = |reason| Err(BadSignature { reason });
        let Some(signature) = input.header(SIGNATURE) else {
            return bad("x-line-signature is missing");
        };
        let Ok(mac) = STANDARD.decode(signature.trim()) else {
            return bad("x-line-signature is not base64");
        };
        match self.keys.iter().any(|key| hmac::verify(key, &input.body, &mac).is_ok()) {
            true => Ok(()),
            false => bad("x-line-signature is by no secret of this account"),
        }
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        &["content-type", SIGNATURE]
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        parse::parse(&self.groups, &input.body)
    }

    async fn send(&self, outbound: &Outbound, _files: &[Vec<u8>]) -> Sent {
        self.send_message(outbound).await
    }

    async fn media(&self, source: &str) -> Result<Fetch, Unfetched> {
        self.api.content(source).await
    }

    fn send_deadline(&self) -> Duration {
        send::DEADLINE + Pace::PATIENCE
    }

    async fn try_out(&self) -> Option<Result<Vec<String>, String>> {
        Some(self.try_account().await)
    }

    async fn works(&self) -> bool {
        self.bot().await.is_ok()
    }
}

impl Line {
    async fn bot(&self) -> Result<Value, Failure> {
        self.api.ask(Method::GET, "/v2/bot/info", &Value::Null).await
    }

    async fn try_account(&self) -> Result<Vec<String>, String> {
        const ENDPOINT: &str = "/v2/bot/channel/webhook/endpoint";
        let words = |failure: Failure| failure.to_string();
        let bot = self.bot().await.map_err(words)?;
        let name = bot["displayName"].as_str().unwrap_or("?");
        let basic_id = bot["basicId"].as_str().unwrap_or("?");
        let endpoint = json!({ "endpoint": self.own_url });
        self.api.ask(Method::PUT, ENDPOINT, &endpoint).await.map_err(words)?;
        let set = self.api.ask(Method::GET, ENDPOINT, &Value::Null).await.map_err(words)?;
        if set["active"] == false {
            return Err(
                "the webhook's address is set, but webhooks are switched off: switch on \"Use webhook\"".into(),
            );
        }
        let test = self
            .api
            .ask(Method::POST, "/v2/bot/channel/webhook/test", &endpoint)
            .await
            .map_err(words)?;
        if test["success"] != true {
            let reason = test["reason"].as_str().unwrap_or("it does not say why");
            let detail = test["detail"].as_str().unwrap_or_default();
            return Err(format!("LINE does not reach {}: {reason} {detail}", self.own_url));
        }
        Ok(vec![
            format!("the account {name} ({basic_id}) answers"),
            format!("its events come to {}, which LINE has tried", self.own_url),
        ])
    }
}

#[cfg(test)]
mod tests {
    use model::time::Moment;

    use super::*;

    fn line(secrets: &[&str]) -> Line {
        let guard = crate::guard::Guard::new(false).unwrap();
        let keys = secrets
            .iter()
            .map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        Line {
            keys: keys.collect(),
            api: Api::new(api::PUBLIC_URL, &"t".to_owned().into(), false, NonZeroU32::MIN, &guard).unwrap(),
            groups: Vec::new(),
            reply_tokens: true,
            links: Links::new(&Surroundings {
                keys: crate::signature::Keys::new(vec![vec![1; 32]]).unwrap(),
                public_url: String::new(),
                http: guard,
                calendars: Vec::new(),
            }),
            own_url: String::new(),
        }
    }

    /// Made by LINE's own libraries.
    #[test]
    fn the_bytes_are_signed_as_they_came() {
        const SECRET: &str = "line-channel-secret-0001";
        let empty = r#"{"destination":"U00000000000000000000000000000001","events":[]}"#;
        let japanese = include_str!("testdata/text.json").trim_end();
        let check = |secrets: &[&str], body: &str, signature: Option<&str>, expected: bool| {
            let header = |value: &str| (SIGNATURE.to_owned(), value.to_owned());
            let input = Input {
                method: "POST".to_owned(),
                url: "/in/friends".to_owned(),
                headers: signature.map(header).into_iter().collect(),
                body: body.to_owned().into(),
                received_at: Moment::from_ms(0),
            };
            assert_eq!(
                line(secrets).verify(&input).is_ok(),
                expected,
                "{secrets:?} {signature:?}"
            );
        };
        let (of_empty, of_japanese) = (
            Some("0e68ue4CYmvKVdLeyQYQ8hIjYMXDAtfEhKvz+/lY7+Y="),
            Some("p8oxqWCHNfbUOzfdV2ThpcHx80XoauApl6mnQY7dkRY="),
        );
        check(&[SECRET], empty, of_empty, true);
        check(&[SECRET], japanese, of_japanese, true);
        check(&["the new one", SECRET], japanese, of_japanese, true);
        check(&["another"], japanese, of_japanese, false);
        check(&[SECRET], japanese, of_empty, false);
        check(&[SECRET], &format!("{japanese} "), of_japanese, false);
        check(&[SECRET], japanese, Some("p8oxqWCH"), false);
        check(&[SECRET], japanese, Some("?"), false);
        check(&[SECRET], japanese, Some(""), false);
        check(&[SECRET], japanese, None, false);
    }
}
