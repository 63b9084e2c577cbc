//! What the errors of Meta's APIs mean for a message. One table: the products use
//! the Graph API's codes and add their own
//! (<https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes>,
//! <https://developers.facebook.com/docs/messenger-platform/error-codes>).

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::text;
use crate::channel::Sent;

/// One message to one user in so long.
const PAIR_WAIT: Duration = Duration::from_secs(6);
/// Whom many have reported is let go on after a while.
const SPAM_WAIT: Duration = Duration::from_secs(600);

/// `{"error": …}` of an answer.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Refusal {
    #[serde(default)]
    pub code: i64,
    #[serde(default, rename = "error_subcode")]
    pub subcode: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    is_transient: bool,
    #[serde(default)]
    error_data: Value,
}

/// Whom an error blames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The moment: it works later.
    Later,
    /// How fast the account sends: nothing of it goes for a while.
    Throttled,
    /// How fast it writes to this one user.
    Pair,
    /// How many have reported what it sends.
    Spam,
    /// The account: it works when a person has mended it.
    Broken,
    /// The user has not written lately.
    Closed,
    /// The message, or whom it is for: it never works.
    Message,
}

/// What a code means. All that are not named here blame the message.
pub fn meaning(code: i64, subcode: i64) -> Meaning {
    match (code, subcode) {
        // Outside of the window: WhatsApp, Messenger, Instagram.
        (131_047, _) | (10, 2_018_278 | 2_534_022) => Meaning::Closed,
        // The person cannot be reached, or not by us: Messenger, Instagram.
        (551, _) | (_, 1_545_041 | 2_018_001 | 2_018_108 | 2_534_014) => Meaning::Message,
        // Our id is not there for this token.
        (100, 33) => Meaning::Broken,
        // Too many: the app, the page, the number.
        (4 | 17 | 32 | 341 | 613 | 80_000..=80_014 | 130_429 | 133_016, _) => Meaning::Throttled,
        (131_056, _) => Meaning::Pair,
        (131_048, _) => Meaning::Spam,
        // Meta's own trouble.
        (1 | 2 | 131_000 | 131_016 | 131_057 | 133_004, _) => Meaning::Later,
        // Tokens and permissions.
        (0 | 3 | 10 | 102 | 190 | 200..=299 | 131_005, _) => Meaning::Broken,
        // Blocked, locked, unpaid, not registered, not allowed there.
        (368 | 130_497 | 131_031 | 131_042 | 131_045 | 133_010 | 2_388_091, _) => Meaning::Broken,
        _ => Meaning::Message,
    }
}

impl Refusal {
    /// What an answer says that is none of 2xx.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut answer: Value = serde_json::from_slice(body).ok()?;
        serde_json::from_value(answer["error"].take()).ok()
    }

    /// For the desk and the account.
    fn words(&self) -> String {
        let subcode = match self.subcode {
            0 => String::new(),
            subcode => format!("/{subcode}"),
        };
        let details = text(&self.error_data, "/details").map(|details| format!(": {details}"));
        let details = details.unwrap_or_default();
        format!("error {}{subcode}: {}{details}", self.code, self.message)
    }
}

/// What an answer other than 2xx means for the message.
pub fn outcome(status: StatusCode, said: Option<&Refusal>) -> (Option<Meaning>, Sent) {
    let Some(said) = said else {
        return (None, unsaid(status));
    };
    let error = format!("Meta answered {} with {}", status.as_u16(), said.words());
    let meaning = match meaning(said.code, said.subcode) {
        Meaning::Message if said.is_transient || status.is_server_error() => Meaning::Later,
        Meaning::Message if status == StatusCode::UNAUTHORIZED => Meaning::Broken,
        Meaning::Message if status == StatusCode::TOO_MANY_REQUESTS => Meaning::Throttled,
        meaning => meaning,
    };
    let later = |after| Sent::Later {
        after,
        error: error.clone(),
    };
    let sent = match meaning {
        Meaning::Later | Meaning::Throttled => later(None),
        Meaning::Pair => later(Some(PAIR_WAIT)),
        Meaning::Spam => later(Some(SPAM_WAIT)),
        Meaning::Broken => Sent::Broken { error },
        Meaning::Closed => Sent::Refused {
            error: format!("the user has not written lately enough: {error}"),
        },
        Meaning::Message => Sent::Refused { error },
    };
    (Some(meaning), sent)
}

fn unsaid(status: StatusCode) -> Sent {
    let error = format!("Meta answered {}", status.as_u16());
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Sent::Later { after: None, error },
        status if status.is_server_error() => Sent::Unknown { error },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Sent::Broken { error },
        _ => Sent::Refused { error },
    }
}

/// The words of an error in a webhook.
pub fn told(error: &Value) -> String {
    let code = super::number(&error["code"]).unwrap_or_default();
    let title = text(error, "/title").or(text(error, "/message")).unwrap_or("no reason");
    let details = text(error, "/error_data/details").filter(|details| *details != title);
    match details {
        Some(details) => format!("{title}: {details} (error {code})"),
        None => format!("{title} (error {code})"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_mean_what_a_message_needs_to_know() {
        let check = |status: u16, code: Option<(i64, i64)>, expected: &str| {
            let said = code.map(|(code, subcode)| Refusal {
                code,
                subcode,
                ..Refusal::default()
            });
            let (_, sent) = outcome(StatusCode::from_u16(status).unwrap(), said.as_ref());
            let found = match sent {
                Sent::Accepted { .. } => "accepted".to_owned(),
                Sent::Refused { .. } => "refused".to_owned(),
                Sent::Later { after: None, .. } => "later".to_owned(),
                Sent::Later { after: Some(after), .. } => format!("later {}", after.as_secs()),
                Sent::Broken { .. } => "broken".to_owned(),
                Sent::Unknown { .. } => "unknown".to_owned(),
            };
            assert_eq!(found, expected, "{status} {code:?}");
        };
        let plain = |code: i64| Some((code, 0));
        // Tokens and permissions.
        for code in [0, 3, 10, 190, 200, 299, 131_005] {
            check(400, plain(code), "broken");
        }
        // Rates.
        for code in [4, 613, 80_004, 80_007, 130_429, 133_016] {
            check(400, plain(code), "later");
        }
        check(400, plain(131_056), "later 6");
        check(400, plain(131_048), "later 600");
        // Meta's own trouble.
        for code in [1, 2, 131_000, 131_016, 131_057] {
            check(500, plain(code), "later");
        }
        // The account is locked, blocked, unpaid.
        for code in [368, 131_031, 131_042, 130_497] {
            check(400, plain(code), "broken");
        }
        // The message, or whom it is for.
        for code in [
            100, 131_026, 131_030, 131_047, 131_049, 131_050, 131_051, 131_053, 131_062,
        ] {
            check(400, plain(code), "refused");
        }
        for code in [132_000, 132_001, 132_015, 132_016] {
            check(400, plain(code), "refused");
        }
        // Subcodes of Messenger and Instagram.
        check(403, Some((10, 2_018_278)), "refused");
        check(403, Some((10, 2_534_022)), "refused");
        check(400, Some((10, 1_893_063)), "broken");
        check(400, Some((200, 1_545_041)), "refused");
        check(400, Some((551, 0)), "refused");
        check(400, Some((100, 2_018_001)), "refused");
        check(400, Some((100, 33)), "broken");
        // By the status, where the code says nothing.
        check(500, plain(99_999), "later");
        check(401, plain(99_999), "broken");
        check(429, plain(99_999), "later");
        check(400, None, "refused");
        check(401, None, "broken");
        check(403, None, "broken");
        check(404, None, "broken");
        check(429, None, "later");
        check(500, None, "unknown");
        check(502, None, "unknown");
        check(503, None, "later");
    }

    #[test]
    fn words_say_code_and_details() {
        let body = json!({ "error": { "message": "(#131047) Re-engagement message", "code": 131_047,
            "error_data": { "details": "more than 24 hours" }, "fbtrace_id": "x" } });
        let said = Refusal::read(body.to_string().as_bytes()).unwrap();
        assert_eq!(
            said.words(),
            "error 131047: (#131047) Re-engagement message: more than 24 hours"
        );
        assert!(Refusal::read(b"<html>").is_none());
        assert!(Refusal::read(b"{}").is_none());
        let told = |error: Value| super::told(&error);
        assert_eq!(
            told(json!({ "code": 131_026, "title": "Undeliverable" })),
            "Undeliverable (error 131026)"
        );
        let details = json!({ "code": 1, "title": "No", "error_data": { "details": "Why" } });
        assert_eq!(told(details), "No: Why (error 1)");
    }
}
