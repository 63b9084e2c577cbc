//! What the channels that speak to Meta share: the settings of an app, its
//! signature and handshake, the envelope of its webhooks, the Graph API and what its
//! errors mean.

pub mod envelope;
pub mod errors;
pub mod graph;
pub mod messaging;
pub mod signature;

use std::num::NonZeroU32;

use model::inbound::{Inbound, Realm, What};
use model::time::Moment;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::channel::{Answer, Parsed};
use crate::list::{self, AccountSettings, Surroundings};
use graph::Graph;
use signature::{Handshake, Verifier};

/// The settings of an account at Meta, the same in every channel of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The app's secret, or the new and the old one during rotation: all verify.
    app_secrets: Vec<SecretString>,
    /// What we tell Meta for its handshake.
    verify_token: SecretString,
    /// Opens the Graph API for this number, page or account.
    access_token: SecretString,
    /// Where the Graph API is.
    api_url: Option<String>,
    #[serde(default = "default_api_version")]
    api_version: String,
    /// `api_url` may lead to a private or local address.
    #[serde(default)]
    allow_private: bool,
    /// Messages that are begun in a second.
    per_second: Option<NonZeroU32>,
}

/// The names of these.
const SETTINGS: &[&str] = &[
    "app_secrets",
    "verify_token",
    "access_token",
    "api_url",
    "api_version",
    "allow_private",
    "per_second",
];

/// An account at Meta, ready.
pub struct Meta {
    pub graph: Graph,
    pub verifier: Verifier,
    pub handshake: Handshake,
    /// Where Meta finds this account of ours.
    pub own_url: String,
    /// For settings of webhooks by the API.
    pub verify_token: SecretString,
}

/// What differs between the products, where settings say nothing else.
pub struct Product {
    pub api_url: &'static str,
    pub per_second: NonZeroU32,
}

/// What the parsers keep of a request.
pub const KEPT_HEADERS: &[&str] = &["content-type", signature::SIGNATURE];

impl Meta {
    /// Reads what of the settings is Meta's, and gives back the channel's own.
    pub fn new<T: DeserializeOwned>(
        account: &AccountSettings,
        surroundings: &Surroundings,
        product: &Product,
    ) -> Result<(Self, T), String> {
        let mut own = account.clone();
        let mut shared = account.clone();
        shared.rest.retain(|name, _| SETTINGS.contains(&name));
        own.rest.retain(|name, _| !SETTINGS.contains(&name));
        let meta = Self::open(&account.name, &list::settings(&shared)?, surroundings, product)?;
        Ok((meta, list::settings(&own)?))
    }

    fn open(name: &str, settings: &Settings, surroundings: &Surroundings, product: &Product) -> Result<Self, String> {
        if !(1..=2).contains(&settings.app_secrets.len()) {
            return Err("app_secrets: name one, or two during rotation".to_owned());
        }
        let secrets: Vec<&str> = settings.app_secrets.iter().map(ExposeSecret::expose_secret).collect();
        let tokens = [&settings.verify_token, &settings.access_token];
        if secrets.contains(&"") || tokens.iter().any(|token| token.expose_secret().is_empty()) {
            return Err("app_secrets, verify_token and access_token must not be empty".to_owned());
        }
        let version = settings.api_version.strip_prefix('v').unwrap_or_default();
        if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err("api_version: write it as v25.0".to_owned());
        }
        Ok(Self {
            graph: Graph::new(settings, surroundings, product)?,
            verifier: Verifier::new(&secrets),
            handshake: Handshake::new(settings.verify_token.expose_secret()),
            own_url: format!("{}/in/{name}", surroundings.public_url),
            verify_token: settings.verify_token.clone(),
        })
    }
}

/// These events, and the 200 that Meta waits for.
pub fn taken(events: Vec<Inbound>) -> Parsed {
    Parsed {
        events,
        answer: Answer {
            status: 200,
            content_type: "text/plain",
            body: "EVENT_RECEIVED".to_owned(),
        },
    }
}

/// An event of this account; its raw input and time are added by who knows them.
pub fn inbound(external_id: impl Into<String>, thread: &str, what: What) -> Inbound {
    Inbound {
        realm: Realm::Account,
        external_id: external_id.into(),
        thread: thread.to_owned(),
        occurred_at: None,
        provider_sequence: None,
        raw: None,
        blobs: Vec::new(),
        what,
    }
}

/// A text at this place, if it is there and says something.
pub fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
}

/// A number, or a text that is one.
pub fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// An id: Meta writes them as texts, and some as numbers.
pub fn id(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The moment of so many seconds.
pub fn seconds(value: &Value) -> Option<Moment> {
    number(value)?.checked_mul(1_000).map(Moment::from_ms)
}

/// Whether this is an id of something at Meta, fit for a path.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn default_api_version() -> String {
    "v25.0".to_owned()
}

/// Each `.json` of a folder and the snapshot of what is made of it; a snapshot that
/// is not there is written.
#[cfg(test)]
pub fn snapshots(folder: &str, parse: impl Fn(&[u8]) -> Result<Parsed, crate::channel::Unparsed>) {
    let count = crate::contract::snapshots(folder, "json", |bytes| {
        let mut parsed = parse(bytes);
        // Bytes are nothing to read; that they parse to the same is tested elsewhere.
        for event in parsed.iter_mut().flat_map(|parsed| &mut parsed.events) {
            event.raw = None;
        }
        format!("{parsed:#?}\n")
    });
    assert!(count > 0, "no payloads in {folder}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_in_json_is_read_as_meta_writes_it() {
        let value = json!({ "a": { "b": "x", "c": "", "n": "12", "m": 12, "f": 1.5 } });
        assert_eq!(text(&value, "/a/b"), Some("x"));
        assert_eq!(text(&value, "/a/c"), None);
        assert_eq!(text(&value, "/a/m"), None);
        assert_eq!(number(&value["a"]["n"]), Some(12));
        assert_eq!(number(&value["a"]["m"]), Some(12));
        assert_eq!(number(&value["a"]["f"]), None);
        assert_eq!(id(&value["a"]["m"]).as_deref(), Some("12"));
        assert_eq!(id(&value["a"]["c"]), None);
        assert_eq!(seconds(&json!("1767225600")), Some(Moment::from_ms(1_767_225_600_000)));
        assert_eq!(seconds(&json!(i64::MAX)), None);
        for (text, expected) in [("123", true), ("", false), ("12/3", false), ("me", false)] {
            assert_eq!(is_id(text), expected, "{text}");
        }
    }
}
