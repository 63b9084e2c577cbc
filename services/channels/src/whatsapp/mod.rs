//! WhatsApp by Meta's Cloud API, both ways. `README.md` says how an account is set up.

mod content;
mod parse;
mod send;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use data_encoding::{BASE64, HEXLOWER};
use model::outbound::{Declaration, Join, Outbound};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::channel::{Answer, BadSignature, Channel, Input, Parsed, Sent, Unparsed};
use crate::limit::Pace;
use crate::list::{AccountSettings, Surroundings};
use crate::media::{Fetch, Unfetched};
use crate::meta::graph::Failed;
use crate::meta::{self, Meta, Product, is_id, text};

/// What differs from Meta's other products.
const PRODUCT: Product = Product {
    api_url: "https://graph.facebook.com",
    // What a number may, in and out, unless Meta raises it.
    per_second: NonZeroU32::new(80).unwrap(),
};
/// For so long after the user's latest message we may answer in our own words.
const WINDOW_MS: i64 = 24 * 60 * 60 * 1000;

/// What an account of this channel is declared by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The id of our number, as Meta shows it beside the number.
    phone_number_id: String,
    /// The id of the business account that has the number.
    business_account_id: String,
}

struct Whatsapp {
    meta: Meta,
    /// Our own account, by its name in the settings.
    account: String,
    number: String,
    business: String,
}

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let (meta, settings) = Meta::new::<Settings>(account, surroundings, &PRODUCT)?;
    for (name, id) in [
        ("phone_number_id", &settings.phone_number_id),
        ("business_account_id", &settings.business_account_id),
    ] {
        if !is_id(id) {
            return Err(format!("{name}: it is the id, digits only, not the number itself"));
        }
    }
    Ok(Arc::new(Whatsapp {
        meta,
        account: account.name.clone(),
        number: settings.phone_number_id,
        business: settings.business_account_id,
    }))
}

#[async_trait]
impl Channel for Whatsapp {
    fn declaration(&self) -> Declaration {
        Declaration {
            max_chars: Some(send::MAX_CHARS),
            formats: vec!["text/plain".to_owned()],
            reply_window_ms: Some(WINDOW_MS),
            outside_window: Some("an approved template".to_owned()),
            templates: true,
            quotes: true,
            resend_safe: false,
            max_attachment_bytes: Some(send::MAX_MEDIA_BYTES),
            join: Join::Open,
            begins: Some("phone".to_owned()),
            thread_is_address: true,
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
        meta::KEPT_HEADERS
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        parse::parse(&self.account, &self.number, &input.body)
    }

    async fn send(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
        self.send_message(outbound, files).await
    }

    /// The source is Meta's id of a file; its URL is good for five minutes.
    async fn media(&self, source: &str) -> Result<Fetch, Unfetched> {
        if !is_id(source) {
            return Err(Unfetched::Lost {
                reason: "it is no id of a file at Meta".to_owned(),
            });
        }
        let path = format!("{source}?phone_number_id={}", self.number);
        let found = self.meta.graph.get(&path).await.map_err(Failed::unfetched)?;
        match text(&found, "/url") {
            Some(url) => Ok(Fetch {
                sha256: text(&found, "/sha256").and_then(hexadecimal),
                ..self.meta.graph.fetch(url)
            }),
            None => Err(Unfetched::Later {
                after: None,
                reason: "Meta's answer names no URL".to_owned(),
            }),
        }
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

impl Whatsapp {
    async fn itself(&self) -> Result<Value, String> {
        let fields = "display_phone_number,verified_name,quality_rating";
        let number = self.meta.graph.get(&format!("{}?fields={fields}", self.number)).await;
        number.map_err(Failed::words)
    }

    /// Asks for the number, lets the app hear of its business account, and sends what
    /// happens to this number to us.
    async fn try_account(&self) -> Result<Vec<String>, String> {
        let graph = &self.meta.graph;
        let number = self.itself().await?;
        let shown = text(&number, "/display_phone_number").ok_or("Meta's answer names no number")?;
        let rating = text(&number, "/quality_rating").unwrap_or("unknown");
        let subscribed = graph
            .post(&format!("{}/subscribed_apps", self.business), &json!({}))
            .await;
        subscribed.map_err(Failed::words)?;
        let webhook = json!({ "webhook_configuration": {
            "override_callback_uri": self.meta.own_url,
            "verify_token": self.meta.verify_token.expose_secret(),
        }});
        graph.post(&self.number, &webhook).await.map_err(Failed::words)?;
        Ok(vec![
            format!("the number {shown} is there, its quality is {rating}"),
            format!("the app hears of the business account {}", self.business),
            format!("the number {shown} sends to {}", self.meta.own_url),
        ])
    }
}

/// Meta writes a SHA-256 in hexadecimal, and in webhooks in base64.
fn hexadecimal(sha256: &str) -> Option<String> {
    let is_hex = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex {
        return Some(sha256.to_ascii_lowercase());
    }
    let bytes = BASE64.decode(sha256.as_bytes()).ok()?;
    (bytes.len() == 32).then(|| HEXLOWER.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sha256_is_read_as_meta_writes_it() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let check = |text: &str, expected: Option<&str>| assert_eq!(hexadecimal(text).as_deref(), expected, "{text}");
        check(hex, Some(hex));
        check(&hex.to_uppercase(), Some(hex));
        check("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", Some(hex));
        check("73298ec14751fhfonf4wf", None);
        check("", None);
    }
}
