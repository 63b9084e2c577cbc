//! The Messaging API (<https://developers.line.biz/en/reference/messaging-api/>), and
//! what its errors mean.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use crate::channel::Sent;
use crate::guard::{Guard, Unanswered, read_body};
use crate::limit::{Pace, retry_after};
use crate::media::{Fetch, Unfetched};

/// Where LINE is.
pub const PUBLIC_URL: &str = "https://api.line.me";
/// Where the files of its users are.
const PUBLIC_DATA_URL: &str = "https://api-data.line.me";

/// A push carries it, so that LINE takes the push once.
const RETRY_KEY: &str = "x-line-retry-key";
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// A film is made ready meanwhile.
const NOT_READY: Duration = Duration::from_secs(5);

/// One account's access to the API.
pub struct Api {
    http: Guard,
    url: Url,
    data_url: Url,
    authorization: SecretString,
    allow_private: bool,
    pace: Pace,
}

/// Why a request gave nothing.
#[derive(Debug)]
pub enum Failure {
    /// LINE says no: the status, its words, and when to come again.
    Refused(StatusCode, Value, Option<Duration>),
    /// It was not reached.
    Unreached(String),
    /// It may or may not have been done.
    Unknown(String),
    /// The settings do not allow it to be reached.
    Forbidden(String),
    /// More waits than may be sent.
    NotYet(Option<Duration>, String),
}

impl Api {
    pub fn new(
        url: &str,
        token: &SecretString,
        allow_private: bool,
        per_second: NonZeroU32,
        guard: &Guard,
    ) -> Result<Self, String> {
        let http = match allow_private {
            true => Guard::new(true)?,
            false => guard.clone(),
        };
        let token = token.expose_secret().trim();
        let is_plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain {
            return Err("access_token: it is one word".to_owned());
        }
        let data_url = if url == PUBLIC_URL { PUBLIC_DATA_URL } else { url };
        let read = |text: &str| http.url(text).map_err(|error| format!("api_url: {error}"));
        Ok(Self {
            url: read(url)?,
            data_url: read(data_url)?,
            authorization: format!("Bearer {token}").into(),
            http,
            allow_private,
            pace: Pace::new(per_second),
        })
    }

    /// Sends something, in the account's pace; a push under a key.
    pub async fn say(&self, path: &str, body: &Value, retry_key: Option<&str>) -> Result<Value, Failure> {
        if let Err(Sent::Later { after, error }) = self.pace.take_turn().await {
            return Err(Failure::NotYet(after, error));
        }
        let said = self.call(Method::POST, path, body, retry_key).await;
        if let Err(Failure::Refused(StatusCode::TOO_MANY_REQUESTS, _, Some(after))) = &said {
            self.pace.pause(*after, Instant::now());
        }
        said
    }

    /// Asks for something, or sets it.
    pub async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(method, path, body, None).await
    }

    /// How a file is fetched: by its kind and the id of its message, or from elsewhere.
    pub async fn content(&self, source: &str) -> Result<Fetch, Unfetched> {
        let Some((kind, id)) = source.split_once('/').filter(|(_, id)| is_id(id)) else {
            return Ok(Fetch::of(source));
        };
        let path = format!("v2/bot/message/{id}/content");
        if matches!(kind, "video" | "audio") {
            let url = self.data(&format!("{path}/transcoding"))?;
            let state = self.request(Method::GET, &url, &Value::Null, None).await?;
            match state["status"].as_str() {
                Some("failed") => return Err(Unfetched::lost("LINE could not make the file ready")),
                Some("processing") => {
                    return Err(Unfetched::Later {
                        after: Some(NOT_READY),
                        reason: "LINE makes the file ready".to_owned(),
                    });
                }
                _ => {}
            }
        }
        Ok(Fetch {
            headers: vec![("authorization", self.authorization.clone())],
            allow_private: self.allow_private,
            ..Fetch::of(self.data(&path)?)
        })
    }

    fn data(&self, path: &str) -> Result<Url, Unfetched> {
        self.data_url
            .join(path)
            .map_err(|error| Unfetched::lost(format!("no address: {error}")))
    }

    async fn call(&self, method: Method, path: &str, body: &Value, retry_key: Option<&str>) -> Result<Value, Failure> {
        let url = self
            .url
            .join(path)
            .map_err(|error| Failure::Forbidden(error.to_string()))?;
        self.request(method, &url, body, retry_key).await
    }

    async fn request(
        &self,
        method: Method,
        url: &Url,
        body: &Value,
        retry_key: Option<&str>,
    ) -> Result<Value, Failure> {
        let request = self.http.request(method, url).map_err(Failure::Forbidden)?;
        let mut request = request.header(AUTHORIZATION, self.authorization.expose_secret());
        if let Some(key) = retry_key {
            request = request.header(RETRY_KEY, key);
        }
        if !body.is_null() {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let mut response = request.send().await.map_err(Unanswered::from)?;
        let (status, after) = (response.status(), retry_after(response.headers()));
        let body = read_body(&mut response, MAX_ANSWER_BYTES)
            .await
            .map_err(Failure::Unknown)?;
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        // The push with this key has been taken before.
        let is_repeat = retry_key.is_some() && status == StatusCode::CONFLICT;
        match status.is_success() || is_repeat {
            true => Ok(said),
            false => Err(Failure::Refused(status, said, after)),
        }
    }
}

impl Failure {
    /// What it means for a message that was pushed: under the same key it can be pushed
    /// again, whatever became of it.
    pub fn of_push(self) -> Sent {
        match self.into() {
            Sent::Unknown { error } => Sent::Later { after: None, error },
            sent => sent,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(status, said, _) => {
                let message = said["message"].as_str().unwrap_or_default();
                write!(formatter, "LINE answered {}: {message}", status.as_u16())?;
                for detail in said["details"].as_array().into_iter().flatten().take(3) {
                    let text = |name: &str| detail[name].as_str().unwrap_or_default();
                    write!(formatter, " ({}: {})", text("property"), text("message"))?;
                }
                Ok(())
            }
            Self::Unreached(words) | Self::Unknown(words) | Self::Forbidden(words) | Self::NotYet(_, words) => {
                formatter.write_str(words)
            }
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
        let (status, said, after) = match failure {
            Failure::Refused(status, said, after) => (status, said, after),
            Failure::Unreached(_) => return Self::Later { after: None, error },
            Failure::NotYet(after, _) => return Self::Later { after, error },
            Failure::Unknown(_) => return Self::Unknown { error },
            Failure::Forbidden(_) => return Self::Broken { error },
        };
        let is_used_up = said["message"]
            .as_str()
            .is_some_and(|words| words.contains("monthly limit"));
        match status {
            StatusCode::TOO_MANY_REQUESTS if is_used_up => Self::Broken { error },
            StatusCode::TOO_MANY_REQUESTS => Self::Later { after, error },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Self::Broken { error },
            status if status.is_server_error() => Self::Unknown { error },
            _ => Self::Refused { error },
        }
    }
}

/// What it means for a file.
impl From<Failure> for Unfetched {
    fn from(failure: Failure) -> Self {
        let reason = failure.to_string();
        match failure.into() {
            Sent::Refused { .. } => Self::Lost { reason },
            Sent::Later { after, .. } => Self::Later { after, reason },
            Sent::Accepted { .. } | Sent::Broken { .. } | Sent::Unknown { .. } => Self::Later { after: None, reason },
        }
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_a_message_needs_to_know() {
        let check = |status: u16, message: &str, by_token: &str, by_push: &str| {
            let failure = || {
                let said = serde_json::json!({ "message": message });
                Failure::Refused(StatusCode::from_u16(status).unwrap(), said, None)
            };
            let name = |sent: Sent| match sent {
                Sent::Accepted { .. } => "accepted",
                Sent::Refused { .. } => "refused",
                Sent::Later { .. } => "later",
                Sent::Broken { .. } => "broken",
                Sent::Unknown { .. } => "unknown",
            };
            assert_eq!(name(failure().into()), by_token, "{status} {message}");
            assert_eq!(name(failure().of_push()), by_push, "{status} {message}");
        };
        check(400, "The property, 'to', is invalid", "refused", "refused");
        check(401, "Authentication failed", "broken", "broken");
        check(403, "Access to this API is not available", "broken", "broken");
        check(429, "The API rate limit has been exceeded", "later", "later");
        check(429, "You have reached your monthly limit.", "broken", "broken");
        check(500, "", "unknown", "later");
        check(503, "", "unknown", "later");
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let said = serde_json::json!({ "message": "The request body has 1 error(s)",
            "details": [{ "message": "May not be empty", "property": "messages[0].text" }] });
        let words = Failure::Refused(StatusCode::BAD_REQUEST, said, None).to_string();
        assert_eq!(
            words,
            "LINE answered 400: The request body has 1 error(s) (messages[0].text: May not be empty)"
        );
    }

    #[tokio::test]
    async fn only_line_is_asked_with_the_token() {
        let guard = Guard::new(false).unwrap();
        let api = Api::new(PUBLIC_URL, &"t".to_owned().into(), false, NonZeroU32::MIN, &guard).unwrap();
        let check = async |source: &str, url: &str, has_token: bool| {
            let fetch = api.content(source).await.unwrap();
            assert_eq!((fetch.url.as_str(), !fetch.headers.is_empty()), (url, has_token));
        };
        check("image/17", "https://api-data.line.me/v2/bot/message/17/content", true).await;
        check("file/17", "https://api-data.line.me/v2/bot/message/17/content", true).await;
        check("https://example.com/17", "https://example.com/17", false).await;
        check("image/../17", "image/../17", false).await;
    }
}
