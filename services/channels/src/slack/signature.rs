//! Slack's signature: an HMAC over version, time and raw body
//! (<https://docs.slack.dev/authentication/verifying-requests-from-slack>).

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;

use crate::channel::{BadSignature, Input};

const TIMESTAMP: &str = "x-slack-request-timestamp";
const SIGNATURE: &str = "x-slack-signature";

/// What signature and parser need. How often Slack has tried before is not kept
/// (`x-slack-retry-num`): a repeat is the same input, and the same event by its ids.
pub const KEPT_HEADERS: &[&str] = &["content-type", TIMESTAMP, SIGNATURE];

/// Good for five minutes around their time, both ways.
const TOLERANCE_MS: i64 = 5 * 60 * 1000;

/// The secrets that sign: the new and the old one during rotation.
pub struct Secrets {
    keys: Vec<hmac::Key>,
}

impl Secrets {
    /// Reads them; empty ones do not count.
    pub fn new<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let secrets = secrets.map(str::trim).filter(|secret| !secret.is_empty());
        Self {
            keys: secrets.map(key).collect(),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Whether one of them signed this body, around the time at which it came.
    pub fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        let timestamp = input.header(TIMESTAMP).unwrap_or_default();
        let is_number = timestamp.len() <= 12 && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let Some(seconds) = timestamp.parse::<i64>().ok().filter(|_| is_number) else {
            return bad("x-slack-request-timestamp is no number of seconds");
        };
        let age_ms = input.received_at.as_ms().saturating_sub(seconds * 1000);
        if age_ms.abs() > TOLERANCE_MS {
            return bad("x-slack-request-timestamp is more than five minutes away");
        }
        let signature = input.header(SIGNATURE).and_then(|text| text.strip_prefix("v0="));
        let Some(mac) = signature.and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok()) else {
            return bad("x-slack-signature is missing, or not of version v0");
        };
        let signed = signed_text(timestamp, &input.body);
        match self.keys.iter().any(|key| hmac::verify(key, &signed, &mac).is_ok()) {
            true => Ok(()),
            false => bad("x-slack-signature is by no secret of this account"),
        }
    }
}

fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

fn signed_text(timestamp: &str, body: &[u8]) -> Vec<u8> {
    [b"v0:", timestamp.as_bytes(), b":", body].concat()
}

fn bad(reason: &'static str) -> Result<(), BadSignature> {
    Err(BadSignature { reason })
}

/// A request as Slack signs it.
#[cfg(test)]
pub fn signed(secret: &str, seconds: i64, media_type: &str, body: &str) -> Input {
    let timestamp = seconds.to_string();
    let mac = hmac::sign(&key(secret), &signed_text(&timestamp, body.as_bytes()));
    let headers = [
        ("content-type", media_type.to_owned()),
        (SIGNATURE, format!("v0={}", HEXLOWER.encode(mac.as_ref()))),
        (TIMESTAMP, timestamp),
    ];
    Input {
        method: "POST".to_owned(),
        url: "/in/a".to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        body: body.to_owned().into(),
        received_at: model::time::Moment::from_ms(seconds * 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Signed by slack_sdk and @slack/bolt.
    const SECRET: &str = "slack-signing-secret-0001";
    const SECONDS: i64 = 1_767_225_600;
    const JSON: &str = r#"{"token":"legacy","team_id":"T0001","api_app_id":"A0001","event":{"type":"message","channel":"D0001","user":"U0001","text":"hi","ts":"1767225600.000100","event_ts":"1767225600.000100","channel_type":"im"},"type":"event_callback","event_id":"Ev0001","event_time":1767225600}"#;
    const JSON_SIGNATURE: &str = "v0=f856143b984ffaa59ba8ebba31d38c9c674c5fbac0f8369e67bf81909628b026";
    const FORM: &str = "token=legacy&team_id=T0001&command=%2Fhelp&text=order+%2342&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2F1&trigger_id=1.2";
    const FORM_SIGNATURE: &str = "v0=17917635c416a838b05b7a0432747d9d81f8773ce7942e57c99b5a13c19fbe86";

    #[test]
    fn what_their_libraries_sign_is_accepted_and_nothing_else() {
        let check = |timestamp: &str, signature: &str, body: &str, late_s: i64, expected: bool| {
            let mut input = signed(SECRET, SECONDS + late_s, "application/json", body);
            input.headers[1].1 = signature.to_owned();
            input.headers[2].1 = timestamp.to_owned();
            let secrets = Secrets::new(["another", SECRET].into_iter());
            let found = secrets.verify(&input);
            assert_eq!(found.is_ok(), expected, "{timestamp} {signature} {late_s}: {found:?}");
            assert!(Secrets::new(["another"].into_iter()).verify(&input).is_err());
        };
        let at = "1767225600";
        check(at, JSON_SIGNATURE, JSON, 0, true);
        check(at, FORM_SIGNATURE, FORM, 0, true);
        check(at, JSON_SIGNATURE, JSON, 300, true);
        check(at, JSON_SIGNATURE, JSON, 301, false);
        check(at, JSON_SIGNATURE, JSON, -300, true);
        check(at, JSON_SIGNATURE, JSON, -301, false);
        check("1767225601", JSON_SIGNATURE, JSON, 0, false);
        check(at, JSON_SIGNATURE, FORM, 0, false);
        check(at, &JSON_SIGNATURE[3..], JSON, 0, false);
        check(at, &JSON_SIGNATURE.replace("v0", "v1"), JSON, 0, false);
        check(at, &JSON_SIGNATURE.to_uppercase(), JSON, 0, false);
        check(at, "v0=", JSON, 0, false);
        check(at, "", JSON, 0, false);
        check("", JSON_SIGNATURE, JSON, 0, false);
        check("+1767225600", JSON_SIGNATURE, JSON, 0, false);
        check("99999999999999999999", JSON_SIGNATURE, JSON, 0, false);
    }

    #[test]
    fn our_own_signing_is_theirs() {
        let input = signed(SECRET, SECONDS, "application/json", JSON);
        assert_eq!(input.header(SIGNATURE), Some(JSON_SIGNATURE));
    }

    #[test]
    fn empty_secrets_sign_nothing() {
        assert_eq!(Secrets::new(["", " "].into_iter()).count(), 0);
        let input = signed("", SECONDS, "application/json", JSON);
        assert!(Secrets::new([""].into_iter()).verify(&input).is_err());
    }
}
