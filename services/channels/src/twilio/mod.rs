//! What the channels that speak to Twilio share: its account, its signature, its
//! forms, its REST API and what its errors mean.

pub mod api;
pub mod form;
pub mod signature;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use model::inbound::Inbound;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::channel::{Answer, Parsed, Unparsed};
use crate::list::{self, AccountSettings, Surroundings};
use api::Api;
use signature::Verifier;

/// The settings of an account at Twilio, the same in every channel of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// `AC…`.
    account_sid: String,
    /// The auth token, or the new and the old one during rotation: all verify, and
    /// the first opens the API unless there is an API key.
    auth_tokens: Vec<SecretString>,
    /// An API key (`SK…`) for the REST API, and its secret.
    api_key: Option<String>,
    api_secret: Option<SecretString>,
    /// Shared keys for signatures other than the auth token's, by their id.
    #[serde(default)]
    shared_keys: BTreeMap<String, SecretString>,
    /// Where the REST API is.
    #[serde(default = "default_api_url")]
    api_url: String,
    /// `api_url` may lead to a private or local address.
    #[serde(default)]
    allow_private: bool,
    /// Messages or calls that are begun in a second.
    #[serde(default = "default_per_second")]
    per_second: NonZeroU32,
}

/// The names of these.
const SETTINGS: &[&str] = &[
    "account_sid",
    "auth_tokens",
    "api_key",
    "api_secret",
    "shared_keys",
    "api_url",
    "allow_private",
    "per_second",
];

/// An account at Twilio, ready.
pub struct Twilio {
    pub api: Api,
    pub verifier: Verifier,
    /// Where Twilio finds this account of ours.
    pub own_url: String,
}

/// What the parsers of both channels keep of a request.
pub const KEPT_HEADERS: &[&str] = &[
    "content-type",
    signature::SIGNATURE,
    signature::SIGNATURE_SETTINGS,
    "i-twilio-idempotency-token",
];

impl Twilio {
    /// Reads what of the settings is Twilio's, and gives back the channel's own.
    pub fn new<T: DeserializeOwned>(
        account: &AccountSettings,
        surroundings: &Surroundings,
    ) -> Result<(Self, T), String> {
        let mut own = account.clone();
        let mut shared = account.clone();
        shared.rest.retain(|name, _| SETTINGS.contains(&name));
        own.rest.retain(|name, _| !SETTINGS.contains(&name));
        let twilio = Self::open(&account.name, &list::settings(&shared)?, surroundings)?;
        Ok((twilio, list::settings(&own)?))
    }

    fn open(name: &str, settings: &Settings, surroundings: &Surroundings) -> Result<Self, String> {
        if !is_sid("AC", &settings.account_sid) {
            return Err("account_sid: it begins with AC and has 34 characters".to_owned());
        }
        if !(1..=2).contains(&settings.auth_tokens.len()) {
            return Err("auth_tokens: name one, or two during rotation".to_owned());
        }
        let tokens = settings.auth_tokens.iter().map(ExposeSecret::expose_secret);
        let shared = settings
            .shared_keys
            .iter()
            .map(|(id, secret)| (id.as_str(), secret.expose_secret()));
        Ok(Self {
            api: Api::new(settings, surroundings)?,
            verifier: Verifier::new(&surroundings.public_url, tokens, shared),
            own_url: format!("{}/in/{name}", surroundings.public_url),
        })
    }
}

/// TwiML for which nothing is to be done.
pub const NOTHING_TO_SAY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";

/// These events, and an answer to which Twilio does nothing.
pub fn nothing(events: Vec<Inbound>) -> Parsed {
    Parsed {
        events,
        answer: Answer {
            status: 204,
            content_type: "text/xml",
            body: String::new(),
        },
    }
}

/// What Twilio sent is not what it documents.
pub fn parked(reason: &str) -> Unparsed {
    Unparsed::Parked {
        reason: reason.to_owned(),
    }
}

/// Whether this is an id of Twilio's of this kind.
pub fn is_sid(prefix: &str, text: &str) -> bool {
    let rest = text.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn default_api_url() -> String {
    api::PUBLIC_URL.to_owned()
}

fn default_per_second() -> NonZeroU32 {
    const TEN: NonZeroU32 = NonZeroU32::new(10).unwrap();
    TEN
}

/// Each `.form` of a folder, its first line the URL and the rest the body, and the
/// snapshot of what is made of it; a snapshot that is not there is written.
#[cfg(test)]
pub fn snapshots(folder: &str, parse: impl Fn(&str, &str) -> Result<Parsed, Unparsed>) {
    let count = crate::contract::snapshots(folder, "form", |bytes| {
        let text = std::str::from_utf8(bytes).unwrap();
        let (url, body) = text.trim_end().split_once('\n').unwrap();
        format!("{:#?}\n", parse(url, &body.replace('\n', "&")))
    });
    assert!(count > 0, "no payloads in {folder}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_form() {
        let check = |text: &str, expected: bool| assert_eq!(is_sid("AC", text), expected, "{text}");
        check("AC00000000000000000000000000000001", true);
        check("AC0000000000000000000000000000001", false);
        check("SM00000000000000000000000000000001", false);
        check("AC0000000000000000000000000000000/", false);
    }
}
