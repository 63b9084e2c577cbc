//! `X-Hub-Signature-256` over the bytes as they came, and the handshake before
//! (<https://developers.facebook.com/docs/graph-api/webhooks/getting-started>).
//! There is no time in the signature, so a repeat verifies for ever; ids take care
//! of repeats.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use url::form_urlencoded;

use crate::channel::{Answer, BadSignature, Input};

/// The header of the signature.
pub const SIGNATURE: &str = "x-hub-signature-256";

/// A challenge is a number; nothing else is said back to strangers.
const MAX_CHALLENGE_CHARS: usize = 128;

/// The secrets of an app.
pub struct Verifier {
    keys: Vec<hmac::Key>,
}

impl Verifier {
    /// Any of these may sign.
    pub fn new(secrets: &[&str]) -> Self {
        let key = |secret: &&str| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self {
            keys: secrets.iter().map(key).collect(),
        }
    }

    /// Checks the signature of the body: Meta writes it with `\u` escapes, so only the
    /// bytes as they came will do.
    pub fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        let bad = |reason| Err(BadSignature { reason });
        let Some(signature) = input.header(SIGNATURE) else {
            return bad("x-hub-signature-256 is missing");
        };
        let digest = signature.trim().strip_prefix("sha256=").map(decoded);
        let Some(Ok(digest)) = digest else {
            return bad("x-hub-signature-256 is not sha256= and hexadecimal");
        };
        let is_signed = |key: &hmac::Key| hmac::verify(key, &input.body, &digest).is_ok();
        match self.keys.iter().any(is_signed) {
            true => Ok(()),
            false => bad("x-hub-signature-256 is by another app's secret"),
        }
    }
}

/// How Meta asks whether an address is ours.
pub struct Handshake {
    verify_token: String,
}

impl Handshake {
    /// `verify_token`: what we told Meta beforehand.
    pub fn new(verify_token: &str) -> Self {
        Self {
            verify_token: verify_token.to_owned(),
        }
    }

    /// The challenge as it is, or 403.
    pub fn answer(&self, input: &Input) -> Answer {
        let query = input.url.split_once('?').map_or("", |(_, query)| query);
        let value = |name: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        let token = value("hub.verify_token").unwrap_or_default();
        let is_ours = verify_slices_are_equal(token.as_bytes(), self.verify_token.as_bytes()).is_ok();
        let challenge = value("hub.challenge").filter(|challenge| is_plain(challenge));
        match (value("hub.mode").as_deref(), challenge) {
            (Some("subscribe"), Some(challenge)) if is_ours => plain(200, challenge),
            _ => plain(403, String::new()),
        }
    }
}

fn decoded(digest: &str) -> Result<Vec<u8>, data_encoding::DecodeError> {
    data_encoding::HEXLOWER.decode(digest.as_bytes())
}

fn is_plain(challenge: &str) -> bool {
    (1..=MAX_CHALLENGE_CHARS).contains(&challenge.len())
        && challenge
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn plain(status: u16, body: String) -> Answer {
    Answer {
        status,
        content_type: "text/plain",
        body,
    }
}

#[cfg(test)]
mod tests {
    use model::time::Moment;
    use serde_json::Value;

    use super::*;

    /// A signature made by two other implementations.
    fn vectors() -> Value {
        serde_json::from_str(include_str!("testdata/vectors.json")).unwrap()
    }

    fn input(url: &str, signature: Option<&str>, body: &[u8]) -> Input {
        let header = |value: &str| (SIGNATURE.to_owned(), value.to_owned());
        Input {
            method: "POST".to_owned(),
            url: url.to_owned(),
            headers: signature.map(header).into_iter().collect(),
            body: body.to_vec().into(),
            received_at: Moment::from_ms(0),
        }
    }

    #[test]
    fn the_bytes_are_signed_as_they_came() {
        let vectors = vectors();
        let text = |name: &str| vectors[name].as_str().unwrap();
        let (secret, body, good) = (text("secret"), text("body_ascii"), text("value"));
        let check = |secrets: &[&str], signature: Option<&str>, body: &[u8], expected: bool| {
            let found = Verifier::new(secrets).verify(&input("/in/a", signature, body));
            assert_eq!(found.is_ok(), expected, "{secrets:?} {signature:?}: {found:?}");
        };
        let body = body.as_bytes();
        check(&[secret], Some(good), body, true);
        check(&["another", secret], Some(good), body, true);
        check(&["another"], Some(good), body, false);
        check(&[secret], None, body, false);
        check(&[secret], Some(""), body, false);
        check(&[secret], Some(&good.replace("sha256=", "sha1=")), body, false);
        check(&[secret], Some(&good[..good.len() - 2]), body, false);
        check(&[secret], Some("sha256=zz"), body, false);
        check(&[secret], Some(good), &body[1..], false);
        // The same JSON, written anew.
        let again: Value = serde_json::from_slice(body).unwrap();
        check(&[secret], Some(good), again.to_string().as_bytes(), false);
        check(&[secret], Some(text("wrong_if_body_reserialised_utf8")), body, false);
    }

    #[test]
    fn only_who_knows_the_token_is_answered() {
        let check = |query: &str, status: u16, body: &str| {
            let found = Handshake::new("to ken").answer(&input(&format!("/in/a{query}"), None, b""));
            assert_eq!((found.status, found.body.as_str()), (status, body), "{query}");
            assert_eq!(found.content_type, "text/plain");
        };
        let good = "?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=to%20ken";
        check(good, 200, "1158201444");
        check(&good.replace("to%20ken", "to+ken"), 200, "1158201444");
        check(&good.replace("to%20ken", "token"), 403, "");
        check(&good.replace("to%20ken", ""), 403, "");
        check(&good.replace("subscribe", "unsubscribe"), 403, "");
        check(&good.replace("1158201444", "<script>"), 403, "");
        check(&good.replace("1158201444", &"1".repeat(200)), 403, "");
        check("?hub.mode=subscribe&hub.verify_token=to%20ken", 403, "");
        check("", 403, "");
    }
}
