//! Keys and signatures: constant-time checks over raw bytes.
//!
//! Two things are signed here: tokens of ours that travel through other people's
//! systems and come back (Message-IDs, plus-addresses), by the installation's
//! [`Keys`]; and webhooks by Standard Webhooks v1
//! (<https://www.standardwebhooks.com>), by a [`WebhookSecret`] for each account.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::BASE32_NOPAD;
use model::time::Moment;

use crate::channel::{BadSignature, Input};

/// The installation's keys (`[keys] files`): the first signs, all verify.
#[derive(Clone, Debug)]
pub struct Keys {
    keys: Arc<[hmac::Key]>,
}

impl Keys {
    /// The shortest key that is taken.
    pub const MIN_BYTES: usize = 16;

    /// Characters of a token: 80 bits in base32.
    pub const TOKEN_CHARS: usize = 16;

    /// Keys from their bytes; the first signs.
    pub fn new(keys: Vec<Vec<u8>>) -> Result<Self, String> {
        if keys.is_empty() {
            return Err("there is no key: name at least one file in [keys] files".to_owned());
        }
        for (index, key) in keys.iter().enumerate() {
            if key.len() < Self::MIN_BYTES {
                return Err(format!(
                    "key {} has {} bytes, it needs at least {}",
                    index + 1,
                    key.len(),
                    Self::MIN_BYTES
                ));
            }
        }
        let keys = keys.iter().map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)).collect();
        Ok(Self { keys })
    }

    /// A token over `data`: 16 characters of `a-z2-7`. Tokens of one purpose are
    /// worth nothing for another.
    pub fn sign(&self, purpose: &str, data: &[u8]) -> String {
        // `new` refuses an empty list.
        let Some(key) = self.keys.first() else {
            return String::new();
        };
        BASE32_NOPAD.encode(&token(key, purpose, data)).to_ascii_lowercase()
    }

    /// Whether one of the keys made this token. Upper case is taken too, because
    /// mail servers change the case of addresses.
    pub fn verify(&self, purpose: &str, data: &[u8], mac: &str) -> bool {
        let Ok(mac) = BASE32_NOPAD.decode(mac.to_ascii_uppercase().as_bytes()) else {
            return false;
        };
        self.keys
            .iter()
            .any(|key| verify_slices_are_equal(&token(key, purpose, data), &mac).is_ok())
    }
}

/// The secret of one side of a webhook, `whsec_` and base64.
#[derive(Clone)]
pub struct WebhookSecret {
    key: hmac::Key,
}

impl WebhookSecret {
    /// What every secret begins with.
    pub const PREFIX: &'static str = "whsec_";

    /// Bytes of a secret, by the specification.
    const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

    /// Signatures are good for five minutes around their time, both ways.
    const TOLERANCE_MS: i64 = 5 * 60 * 1000;

    /// Reads a secret; the error does not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(encoded) = text.trim().strip_prefix(Self::PREFIX) else {
            return Err(format!("a webhook secret begins with {}", Self::PREFIX));
        };
        let bytes = STANDARD
            .decode(encoded)
            .map_err(|_| format!("a webhook secret is base64 behind {}", Self::PREFIX))?;
        if !Self::BYTES.contains(&bytes.len()) {
            return Err(format!(
                "a webhook secret has {} to {} bytes, not {}",
                Self::BYTES.start(),
                Self::BYTES.end(),
                bytes.len()
            ));
        }
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
        })
    }

    /// The three headers that sign this body at this moment.
    pub fn sign(&self, id: &str, at: Moment, body: &[u8]) -> [(&'static str, String); 3] {
        let timestamp = (at.as_ms().div_euclid(1000)).to_string();
        let mac = hmac::sign(&self.key, &signed_text(id, &timestamp, body));
        let signature = format!("v1,{}", STANDARD.encode(mac.as_ref()));
        [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", signature),
        ]
    }
}

/// Checks `webhook-id`, `webhook-timestamp` and `webhook-signature`: one of the
/// `v1` signatures must be by one of the secrets (there are two during
/// rotation); other versions are skipped.
pub fn verify_webhook(secrets: &[WebhookSecret], input: &Input) -> Result<(), BadSignature> {
    let id = required(input, "webhook-id", "webhook-id is missing")?;
    let timestamp = required(input, "webhook-timestamp", "webhook-timestamp is missing")?;
    let signatures = required(input, "webhook-signature", "webhook-signature is missing")?;
    let is_number = timestamp.len() <= 12 && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: i64 = match timestamp.parse() {
        Ok(seconds) if is_number => seconds,
        _ => return bad("webhook-timestamp is no number of seconds"),
    };
    let age_ms = input.received_at.as_ms().saturating_sub(seconds * 1000);
    if age_ms > WebhookSecret::TOLERANCE_MS {
        return bad("webhook-timestamp is too old");
    }
    if age_ms < -WebhookSecret::TOLERANCE_MS {
        return bad("webhook-timestamp lies in the future");
    }
    let signed = signed_text(id, timestamp, &input.body);
    // More than a rotation needs, fewer than would cost time.
    for signature in signatures.split_ascii_whitespace().take(8) {
        let Some(encoded) = signature.strip_prefix("v1,") else {
            continue;
        };
        let Ok(mac) = STANDARD.decode(encoded) else {
            continue;
        };
        if secrets
            .iter()
            .any(|secret| hmac::verify(&secret.key, &signed, &mac).is_ok())
        {
            return Ok(());
        }
    }
    bad("no webhook-signature is by a secret of this account")
}

fn token(key: &hmac::Key, purpose: &str, data: &[u8]) -> [u8; 10] {
    let mut context = hmac::Context::with_key(key);
    context.update(&(purpose.len() as u64).to_be_bytes());
    context.update(purpose.as_bytes());
    context.update(data);
    let tag = context.sign();
    let mut token = [0; 10];
    token.copy_from_slice(&tag.as_ref()[..10]);
    token
}

fn signed_text(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(id.len() + timestamp.len() + 2 + body.len());
    text.extend_from_slice(id.as_bytes());
    text.push(b'.');
    text.extend_from_slice(timestamp.as_bytes());
    text.push(b'.');
    text.extend_from_slice(body);
    text
}

fn required<'a>(input: &'a Input, name: &str, reason: &'static str) -> Result<&'a str, BadSignature> {
    match input.header(name) {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(BadSignature { reason }),
    }
}

fn bad(reason: &'static str) -> Result<(), BadSignature> {
    Err(BadSignature { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    // A published example: secret, id, time, body and its `v1` signature.
    const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const ID: &str = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W";
    const SECONDS: i64 = 1_767_225_600;
    const BODY: &str = r#"{"type":"ticket.created","timestamp":"2026-01-01T00:00:00Z","data":{"id":"T-1"}}"#;
    const SIGNATURE: &str = "v1,mcM3lNj2ZGvvaXZvahSkL0R5VrskFckxkkT02zjrG48=";
    const ASYMMETRIC: &str =
        "v1a,ireGBCpe5SEQkkSrZrfBVMkNL+LSfKCm83m8+0H1N+HnGO+IvEq+XwOPxFfzn5XMegOhbhn9iYsVPZJlRof6BQ==";
    const OTHER_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

    fn input(id: &str, timestamp: &str, signature: &str, body: &str, received_s: i64) -> Input {
        Input {
            method: "POST".to_owned(),
            url: "/in/demo".to_owned(),
            headers: vec![
                ("webhook-id".to_owned(), id.to_owned()),
                ("webhook-timestamp".to_owned(), timestamp.to_owned()),
                ("webhook-signature".to_owned(), signature.to_owned()),
            ],
            body: body.to_owned().into(),
            received_at: Moment::from_ms(received_s * 1000),
        }
    }

    #[test]
    fn a_webhook_is_taken_only_with_a_signature_of_ours_within_its_time() {
        let check = |id: &str, timestamp: &str, signature: &str, body: &str, received_s: i64, expected: bool| {
            let secrets = [SECRET, OTHER_SECRET].map(|text| WebhookSecret::parse(text).unwrap());
            let input = input(id, timestamp, signature, body, received_s);
            let found = verify_webhook(&secrets, &input);
            assert_eq!(
                found.is_ok(),
                expected,
                "{id} {timestamp} {signature} {received_s}: {found:?}"
            );
        };
        let at = "1767225600";
        check(ID, at, SIGNATURE, BODY, SECONDS, true);
        check(ID, at, &format!("{ASYMMETRIC} {SIGNATURE}"), BODY, SECONDS, true);
        check(ID, at, &format!("v2,x v1,AAAA v1,?? {SIGNATURE}"), BODY, SECONDS, true);
        check(ID, at, SIGNATURE, BODY, SECONDS + 300, true);
        check(ID, at, SIGNATURE, BODY, SECONDS + 301, false);
        check(ID, at, SIGNATURE, BODY, SECONDS - 300, true);
        check(ID, at, SIGNATURE, BODY, SECONDS - 301, false);
        check("msg_other", at, SIGNATURE, BODY, SECONDS, false);
        check(ID, "1767225601", SIGNATURE, BODY, SECONDS, false);
        check(ID, at, SIGNATURE, &BODY.replace("T-1", "T-2"), SECONDS, false);
        check(ID, at, "", BODY, SECONDS, false);
        check("", at, SIGNATURE, BODY, SECONDS, false);
        check(ID, "", SIGNATURE, BODY, SECONDS, false);
        check(ID, "+1767225600", SIGNATURE, BODY, SECONDS, false);
        check(ID, "99999999999999999999", SIGNATURE, BODY, SECONDS, false);
        check(ID, at, ASYMMETRIC, BODY, SECONDS, false);
        check(ID, at, &SIGNATURE["v1,".len()..], BODY, SECONDS, false);
    }

    #[test]
    fn either_secret_signs_during_rotation() {
        let [old, new, stranger] = [
            SECRET,
            OTHER_SECRET,
            "whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=",
        ]
        .map(|text| WebhookSecret::parse(text).unwrap());
        let secrets = [old.clone(), new.clone()];
        for (signer, expected) in [(old, true), (new, true), (stranger, false)] {
            let [id, timestamp, signature] = signer.sign(ID, Moment::from_ms(SECONDS * 1000 + 999), BODY.as_bytes());
            let input = input(&id.1, &timestamp.1, &signature.1, BODY, SECONDS);
            assert_eq!(verify_webhook(&secrets, &input).is_ok(), expected);
        }
    }

    #[test]
    fn signing_gives_the_published_signature() {
        let secret = WebhookSecret::parse(SECRET).unwrap();
        let headers = secret.sign(ID, Moment::from_ms(SECONDS * 1000), BODY.as_bytes());
        assert_eq!(headers[1], ("webhook-timestamp", "1767225600".to_owned()));
        assert_eq!(headers[2], ("webhook-signature", SIGNATURE.to_owned()));
    }

    #[test]
    fn secrets_are_checked_and_never_repeated() {
        let check = |text: &str, expected: Option<&str>| {
            let found = WebhookSecret::parse(text).err();
            assert_eq!(found.is_some(), expected.is_some(), "{text}");
            if let (Some(found), Some(expected)) = (found, expected) {
                assert!(found.contains(expected), "{found}");
                assert!(!found.contains("abcd"), "{found}");
            }
        };
        check(SECRET, None);
        check(&format!(" {SECRET}\n"), None);
        check("abcdabcdabcdabcdabcdabcdabcdabcd", Some("begins with whsec_"));
        check("whsec_abcd!", Some("base64"));
        check("whsec_abcd", Some("24 to 64 bytes, not 3"));
    }

    #[test]
    fn the_first_key_signs_and_all_verify() {
        let [old, new] = [vec![7; 32], vec![9; 16]];
        let before = Keys::new(vec![old.clone()]).unwrap();
        let during = Keys::new(vec![new.clone(), old]).unwrap();
        let after = Keys::new(vec![new]).unwrap();
        let token = before.sign("message-id", b"msg_1");
        assert_eq!(token.len(), Keys::TOKEN_CHARS);
        assert!(during.verify("message-id", b"msg_1", &token));
        assert!(!after.verify("message-id", b"msg_1", &token));
        let token = during.sign("message-id", b"msg_1");
        assert!(after.verify("message-id", b"msg_1", &token));
        assert!(!before.verify("message-id", b"msg_1", &token));
    }

    #[test]
    fn a_token_is_good_for_its_purpose_and_data_alone() {
        let keys = Keys::new(vec![vec![1; 32]]).unwrap();
        let token = keys.sign("message-id", b"msg_1");
        let check = |purpose: &str, data: &[u8], mac: &str, expected: bool| {
            assert_eq!(keys.verify(purpose, data, mac), expected, "{purpose} {mac}");
        };
        check("message-id", b"msg_1", &token, true);
        check("message-id", b"msg_1", &token.to_ascii_uppercase(), true);
        check("plus-address", b"msg_1", &token, false);
        check("message-i", b"dmsg_1", &token, false);
        check("message-id", b"msg_2", &token, false);
        check("message-id", b"msg_1", "", false);
        check("message-id", b"msg_1", &token[..8], false);
        check("message-id", b"msg_1", &format!("{token}{token}"), false);
        check("message-id", b"msg_1", "ÄÄÄÄÄÄÄÄ", false);
    }

    #[test]
    fn the_token_is_frozen() {
        // Answers to mails sent years ago must still verify.
        let keys = Keys::new(vec![(0..32).collect()]).unwrap();
        assert_eq!(keys.sign("message-id", b"msg_1"), "wqxaooju56exi36u");
    }

    #[test]
    fn short_and_missing_keys_are_refused() {
        assert!(Keys::new(vec![]).unwrap_err().contains("no key"));
        let error = Keys::new(vec![vec![0; 16], vec![0; 15]]).unwrap_err();
        assert!(error.contains("key 2 has 15 bytes"), "{error}");
    }
}
