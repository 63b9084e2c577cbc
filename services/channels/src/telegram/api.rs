//! The Bot API (<https://core.telegram.org/bots/api>), and what its errors mean.
//!
//! The bot's token is part of every address, so no address is ever shown, logged or
//! kept.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::channel::Sent;
use crate::guard::{Guard, Unanswered, read_body};
use crate::limit::Pace;
use crate::media::{Fetch, Unfetched};
use crate::multipart::Form;

/// Where Telegram is.
pub const PUBLIC_URL: &str = "https://api.telegram.org";

/// A hundred updates are much smaller.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The longest that Telegram may make us wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Beyond what a long poll may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// One bot.
pub struct Api {
    http: Guard,
    url: Url,
    token: SecretString,
    allow_private: bool,
    pace: Pace,
}

/// Why a call gave nothing.
#[derive(Debug)]
pub enum Failure {
    /// Telegram says no.
    Refused(Refusal),
    /// It was not reached.
    Unreached(String),
    /// It may or may not have been done.
    Unknown(String),
    /// The settings do not allow it to be reached.
    Forbidden(String),
}

/// What Telegram says when it refuses.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    pub error_code: u16,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub parameters: Parameters,
}

#[derive(Debug, Default, Deserialize)]
pub struct Parameters {
    pub retry_after: Option<u64>,
    /// The group has another number now.
    pub migrate_to_chat_id: Option<i64>,
}

#[derive(Deserialize)]
struct Reply {
    ok: bool,
    #[serde(default)]
    result: Value,
}

/// What is asked.
pub enum Asked {
    Json(Value),
    Form(Form),
}

impl Api {
    pub fn new(
        url: &str,
        token: SecretString,
        allow_private: bool,
        per_second: NonZeroU32,
        guard: &Guard,
    ) -> Result<Self, String> {
        let http = match allow_private {
            true => Guard::new(true)?,
            false => guard.clone(),
        };
        if !is_token(token.expose_secret()) {
            return Err("token: it looks like 123456789:AAE… , as BotFather gave it".to_owned());
        }
        Ok(Self {
            url: http.url(url).map_err(|error| format!("api_url: {error}"))?,
            http,
            token,
            allow_private,
            pace: Pace::new(per_second),
        })
    }

    /// Calls a method that says something to somebody, in the bot's pace.
    pub async fn say(&self, method: &str, asked: Asked) -> Result<Value, Failure> {
        if let Err(later) = self.pace.take_turn().await {
            return Err(later.into());
        }
        let said = self.call(method, asked, ANSWER_TIMEOUT).await;
        if let Err(Failure::Refused(refusal)) = &said
            && let Some(after) = refusal.retry_after()
        {
            self.pace.pause(after, Instant::now());
        }
        said
    }

    /// Calls a method of the API: its result.
    pub async fn ask(&self, method: &str, body: Value) -> Result<Value, Failure> {
        self.call(method, Asked::Json(body), ANSWER_TIMEOUT).await
    }

    /// The same, for as long as the answer may take.
    pub async fn poll(&self, method: &str, body: Value, longest: Duration) -> Result<Value, Failure> {
        self.call(method, Asked::Json(body), longest + ANSWER_TIMEOUT).await
    }

    /// Where a file is, for about an hour.
    pub async fn file(&self, file_id: &str) -> Result<Fetch, Unfetched> {
        let asked = serde_json::json!({ "file_id": file_id });
        let file = self.ask("getFile", asked).await.map_err(Unfetched::from)?;
        let path = file["file_path"].as_str().ok_or_else(|| Unfetched::Lost {
            reason: "Telegram names no place of the file".to_owned(),
        })?;
        let url = self
            .address("file/bot", path)
            .map_err(|reason| Unfetched::Lost { reason })?;
        Ok(Fetch {
            allow_private: self.allow_private,
            follows: false,
            ..Fetch::of(url)
        })
    }

    async fn call(&self, method: &str, asked: Asked, patience: Duration) -> Result<Value, Failure> {
        let url = self.address("bot", method).map_err(Failure::Forbidden)?;
        let request = self.http.post(&url).map_err(Failure::Forbidden)?.timeout(patience);
        let request = match asked {
            Asked::Json(body) => request.header(CONTENT_TYPE, "application/json").body(body.to_string()),
            Asked::Form(form) => request.header(CONTENT_TYPE, form.content_type()).body(form.finish()),
        };
        let mut response = request.send().await.map_err(Unanswered::from)?;
        let status = response.status();
        let body = read_body(&mut response, MAX_ANSWER_BYTES)
            .await
            .map_err(Failure::Unknown)?;
        read(status, &body)
    }

    /// `…/bot<token>/method`, `…/file/bot<token>/path`.
    fn address(&self, what: &str, path: &str) -> Result<Url, String> {
        let token = self.token.expose_secret();
        let base = self.url.as_str().trim_end_matches('/');
        // The error says nothing of what it could not read.
        Url::parse(&format!("{base}/{what}{token}/{path}")).map_err(|error| error.to_string())
    }
}

/// The result, or what Telegram says instead.
fn read(status: StatusCode, body: &[u8]) -> Result<Value, Failure> {
    if let Ok(Reply { ok: true, result }) = serde_json::from_slice(body) {
        return Ok(result);
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => Err(Failure::Refused(refusal)),
        // Not the API's own words: something stands between.
        Err(_) => Err(Failure::Unknown(format!("Telegram answered {}", status.as_u16()))),
    }
}

impl Refusal {
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.parameters.retry_after?;
        Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => {
                let Refusal {
                    error_code,
                    description,
                    ..
                } = refusal;
                write!(formatter, "Telegram answered {error_code}: {description}")
            }
            Self::Unreached(words) | Self::Unknown(words) | Self::Forbidden(words) => formatter.write_str(words),
        }
    }
}

/// What it means for a message.
impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered.may_have_arrived {
            true => Self::Unknown(unanswered.error),
            false => Self::Unreached(unanswered.error),
        }
    }
}

impl From<Failure> for Sent {
    fn from(failure: Failure) -> Self {
        let error = failure.to_string();
        let refusal = match failure {
            Failure::Refused(refusal) => refusal,
            Failure::Unreached(error) => return Self::Later { after: None, error },
            Failure::Unknown(error) => return Self::Unknown { error },
            Failure::Forbidden(error) => return Self::Broken { error },
        };
        match refusal.error_code {
            // The token is wrong, or revoked: the bot is not there.
            401 | 404 => Self::Broken { error },
            403 => Self::Refused {
                error: format!("the contact does not let the bot write: {error}"),
            },
            409 | 429 | 500.. => Self::Later {
                after: refusal.retry_after(),
                error,
            },
            _ => Self::Refused { error },
        }
    }
}

/// An end of waiting for a turn.
impl From<Sent> for Failure {
    fn from(sent: Sent) -> Self {
        match sent {
            Sent::Later { after, error } => Self::Refused(Refusal {
                error_code: 429,
                description: error,
                parameters: Parameters {
                    retry_after: after.map(|after| after.as_secs().max(1)),
                    migrate_to_chat_id: None,
                },
            }),
            Sent::Refused { error } | Sent::Broken { error } | Sent::Unknown { error } => Self::Unreached(error),
            Sent::Accepted { .. } => Self::Unreached(String::new()),
        }
    }
}

/// What it means for a file.
impl From<Failure> for Unfetched {
    fn from(failure: Failure) -> Self {
        let reason = failure.to_string();
        match failure {
            Failure::Refused(refusal) => match refusal.error_code {
                401 | 404 | 409 | 429 | 500.. => Self::Later {
                    after: refusal.retry_after(),
                    reason,
                },
                // Among them that the file is larger than bots may have.
                _ => Self::Lost { reason },
            },
            Failure::Unreached(_) | Failure::Unknown(_) => Self::Later { after: None, reason },
            Failure::Forbidden(_) => Self::Lost { reason },
        }
    }
}

fn is_token(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.split_once(':').is_some_and(|(id, secret)| {
        !id.is_empty()
            && id.bytes().all(|byte| byte.is_ascii_digit())
            && (1..=100).contains(&secret.len())
            && secret.bytes().all(is_plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_a_message_needs_to_know() {
        let check = |status: u16, body: &str, expected: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let found = match read(status, body.as_bytes()).map_err(Sent::from) {
                Ok(_) => "done".to_owned(),
                Err(Sent::Later { after, .. }) => format!("later {:?}", after.map(|after| after.as_secs())),
                Err(Sent::Refused { .. }) => "refused".to_owned(),
                Err(Sent::Broken { .. }) => "broken".to_owned(),
                Err(Sent::Unknown { .. }) => "unknown".to_owned(),
                Err(Sent::Accepted { .. }) => "accepted".to_owned(),
            };
            assert_eq!(found, expected, "{status} {body}");
        };
        let refusal = |code: u16, more: &str| {
            format!(r#"{{"ok":false,"error_code":{code},"description":"Bad: something"{more}}}"#)
        };
        check(200, r#"{"ok":true,"result":{"message_id":1}}"#, "done");
        check(200, r#"{"ok":true}"#, "done");
        check(400, &refusal(400, ""), "refused");
        check(401, &refusal(401, ""), "broken");
        check(404, &refusal(404, ""), "broken");
        check(403, &refusal(403, ""), "refused");
        check(409, &refusal(409, ""), "later None");
        check(
            429,
            &refusal(429, r#","parameters":{"retry_after":5}"#),
            "later Some(5)",
        );
        check(
            429,
            &refusal(429, r#","parameters":{"retry_after":99999999}"#),
            "later Some(86400)",
        );
        check(429, &refusal(429, ""), "later None");
        check(500, &refusal(500, ""), "later None");
        check(502, "<html>Bad gateway</html>", "unknown");
        check(200, "", "unknown");
        check(200, "[]", "unknown");
    }

    #[test]
    fn a_token_has_its_form() {
        let check = |text: &str, expected: bool| assert_eq!(is_token(text), expected, "{text}");
        check("123456789:AAE-b_c", true);
        check("123456789", false);
        check(":AAE", false);
        check("1:", false);
        check("12a:AAE", false);
        check("1:AAE/../x", false);
        check("1:AAE?x", false);
    }

    #[test]
    fn the_token_stands_in_addresses_and_nowhere_else() {
        let api = Api::new(
            "http://127.0.0.1:9/base/",
            "1:SECRET".to_owned().into(),
            true,
            NonZeroU32::MIN,
            &Guard::new(false).unwrap(),
        )
        .unwrap();
        let address = |what, path| api.address(what, path).unwrap().to_string();
        assert_eq!(address("bot", "getMe"), "http://127.0.0.1:9/base/bot1:SECRET/getMe");
        assert_eq!(
            address("file/bot", "photos/a b.jpg"),
            "http://127.0.0.1:9/base/file/bot1:SECRET/photos/a%20b.jpg"
        );
    }

    #[tokio::test]
    async fn a_telegram_that_is_away_does_not_give_the_token_away() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let guard = Guard::new(false).unwrap();
        let api = Api::new(&url, "1:SECRET".to_owned().into(), true, NonZeroU32::MIN, &guard).unwrap();
        let failure = api.ask("getMe", Value::Null).await.unwrap_err();
        let words = format!("{failure} {failure:?}");
        assert!(matches!(failure, Failure::Unreached(_)), "{words}");
        assert!(!words.contains("SECRET"), "{words}");
    }
}
