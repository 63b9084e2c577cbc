//! Twilio's REST API, and what its errors mean for a message.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::Settings;
use crate::channel::Sent;
use crate::guard::{Guard, Unanswered, read_body};
use crate::limit::{Pace, retry_after};
use crate::list::Surroundings;
use crate::media::Fetch;

/// Where Twilio is.
pub const PUBLIC_URL: &str = "https://api.twilio.com";
/// Where its messaging services are.
const PUBLIC_MESSAGING_URL: &str = "https://messaging.twilio.com";

/// Of an answer, so much is read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The REST API, opened for one account.
pub struct Api {
    http: Guard,
    url: Url,
    messaging_url: Url,
    account_sid: String,
    authorization: SecretString,
    allow_private: bool,
    pace: Pace,
}

/// What Twilio says when it refuses.
#[derive(Debug, Deserialize)]
struct Refusal {
    code: Option<i64>,
    message: Option<String>,
}

/// An answer of the API, or why there is none.
pub enum Answer {
    Done(Value),
    /// The account's message is not sent, and why.
    Not(Sent),
}

impl Api {
    pub(super) fn new(settings: &Settings, surroundings: &Surroundings) -> Result<Self, String> {
        let http = match settings.allow_private {
            true => Guard::new(true)?,
            false => surroundings.http.clone(),
        };
        let read = |text: &str| http.url(text).map_err(|error| format!("api_url: {error}"));
        let messaging_url = match settings.api_url == PUBLIC_URL {
            true => PUBLIC_MESSAGING_URL,
            false => &settings.api_url,
        };
        let (user, password) = match (&settings.api_key, &settings.api_secret, settings.auth_tokens.first()) {
            (Some(key), Some(secret), _) => (key.as_str(), secret),
            (None, None, Some(token)) => (settings.account_sid.as_str(), token),
            (None, None, None) => return Err("auth_tokens: name one".to_owned()),
            _ => return Err("api_key and api_secret belong together".to_owned()),
        };
        let basic = STANDARD.encode(format!("{user}:{}", password.expose_secret()));
        Ok(Self {
            url: read(&settings.api_url)?,
            messaging_url: read(messaging_url)?,
            http,
            account_sid: settings.account_sid.clone(),
            authorization: format!("Basic {basic}").into(),
            allow_private: settings.allow_private,
            pace: Pace::new(settings.per_second),
        })
    }

    /// Creates a message or a call: `POST /2010-04-01/Accounts/{AC}/{what}.json`, in
    /// the account's pace. Gives the new thing's id.
    pub async fn create(&self, what: &str, fields: &[(&str, &str)]) -> Sent {
        if let Err(later) = self.pace.take_turn().await {
            return later;
        }
        match self.call(Method::POST, &self.url, &self.path(what), fields).await {
            Answer::Not(sent) => sent,
            Answer::Done(answer) => match answer["sid"].as_str() {
                Some(sid) => Sent::Accepted {
                    external_ids: vec![sid.to_owned()],
                },
                None => Sent::Unknown {
                    error: "Twilio's answer names no sid".to_owned(),
                },
            },
        }
    }

    /// Whether the account works, in a line.
    pub async fn account(&self) -> Result<String, String> {
        let answer = self.ask(Method::GET, &self.url, "", &[]).await?;
        let status = answer["status"].as_str().unwrap_or("of unknown status");
        match status {
            "active" => Ok(format!("the account {} is active", self.account_sid)),
            other => Err(format!("the account {} is {other}", self.account_sid)),
        }
    }

    /// Tells Twilio where a number's messages or calls go.
    pub async fn set_number(&self, number: &str, fields: &[(&str, &str)]) -> Result<String, String> {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("PhoneNumber", number)
            .finish();
        let path = format!("IncomingPhoneNumbers.json?{query}");
        let found = self.ask(Method::GET, &self.url, &path, &[]).await?;
        let Some(sid) = found["incoming_phone_numbers"][0]["sid"].as_str() else {
            return Err(format!("the account has no number {number}"));
        };
        let path = format!("IncomingPhoneNumbers/{sid}.json");
        self.ask(Method::POST, &self.url, &path, fields).await?;
        Ok(format!(
            "the number {number} sends to {}",
            fields.first().map_or("", |(_, url)| url)
        ))
    }

    /// Tells Twilio where a messaging service's messages go.
    pub async fn set_service(&self, sid: &str, fields: &[(&str, &str)]) -> Result<String, String> {
        let path = format!("/v1/Services/{sid}");
        match self.call(Method::POST, &self.messaging_url, &path, fields).await {
            Answer::Done(_) => Ok(format!(
                "the messaging service {sid} sends to {}",
                fields.first().map_or("", |(_, url)| url)
            )),
            Answer::Not(sent) => Err(said(sent)),
        }
    }

    /// How a file at a URL of Twilio's is fetched: with the account's password, if it
    /// leads to Twilio and only then.
    pub fn fetch(&self, url: &str) -> Fetch {
        let mut fetch = Fetch::of(url);
        if self.is_own(url) {
            fetch.headers.push(("authorization", self.authorization.clone()));
            fetch.allow_private = self.allow_private;
        }
        fetch
    }

    fn is_own(&self, url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        let is_twilios = |host: &str| host == "twilio.com" || host.ends_with(".twilio.com");
        let is_public = url.scheme() == "https" && url.host_str().is_some_and(is_twilios);
        is_public || url.origin() == self.url.origin()
    }

    fn path(&self, what: &str) -> String {
        let separator = if what.is_empty() { ".json" } else { "/" };
        let suffix = if what.is_empty() || what.contains(".json") {
            ""
        } else {
            ".json"
        };
        format!("/2010-04-01/Accounts/{}{separator}{what}{suffix}", self.account_sid)
    }

    async fn ask(&self, method: Method, base: &Url, what: &str, fields: &[(&str, &str)]) -> Result<Value, String> {
        match self.call(method, base, &self.path(what), fields).await {
            Answer::Done(answer) => Ok(answer),
            Answer::Not(sent) => Err(said(sent)),
        }
    }

    async fn call(&self, method: Method, base: &Url, path: &str, fields: &[(&str, &str)]) -> Answer {
        let not = |sent| Answer::Not(sent);
        let Ok(url) = base.join(path) else {
            return not(refused("api_url cannot be joined with a path".to_owned()));
        };
        let request = match self.http.request(method.clone(), &url) {
            Ok(request) => request.header(AUTHORIZATION, self.authorization.expose_secret()),
            Err(error) => return not(Sent::Broken { error }),
        };
        let request = match method == Method::POST {
            true => request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(
                form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(fields)
                    .finish(),
            ),
            false => request,
        };
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return not(Unanswered::from(error).into()),
        };
        let (status, after) = (response.status(), retry_after(response.headers()));
        let body = match read_body(&mut response, MAX_ANSWER_BYTES).await {
            Ok(body) => body,
            Err(error) => return not(Sent::Unknown { error }),
        };
        if status == StatusCode::TOO_MANY_REQUESTS
            && let Some(after) = after
        {
            self.pace.pause(after, Instant::now());
        }
        if status.is_success() {
            return Answer::Done(serde_json::from_slice(&body).unwrap_or_default());
        }
        let said: Option<Refusal> = serde_json::from_slice(&body).ok();
        let sent = outcome(status, said.as_ref());
        not(match sent {
            Sent::Later { error, .. } => Sent::Later { after, error },
            other => other,
        })
    }
}

/// What an answer other than 2xx means for the message.
fn outcome(status: StatusCode, said: Option<&Refusal>) -> Sent {
    let code = said.and_then(|said| said.code);
    let words = said.and_then(|said| said.message.as_deref()).unwrap_or_default();
    let error = match code {
        Some(code) => format!("Twilio answered {} with error {code}: {words}", status.as_u16()),
        None => format!("Twilio answered {}", status.as_u16()),
    };
    match (code.map_or(Meaning::Unsaid, meaning), status) {
        (Meaning::Later, _) | (_, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            Sent::Later { after: None, error }
        }
        (Meaning::Broken, _) | (_, StatusCode::UNAUTHORIZED) => Sent::Broken { error },
        (Meaning::OptedOut, _) => Sent::Refused {
            error: format!("the number has opted out: {error}"),
        },
        // With an error of the API's own it says that nothing came of it.
        (_, status) if status.is_server_error() && code.is_some() => Sent::Later { after: None, error },
        (_, status) if status.is_server_error() => Sent::Unknown { error },
        // The account, or the number, is not where the settings say.
        (Meaning::Unsaid, StatusCode::NOT_FOUND | StatusCode::FORBIDDEN) => Sent::Broken { error },
        (Meaning::Unsaid | Meaning::Message, _) => Sent::Refused { error },
    }
}

/// Whom an error code blames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The moment: it works later.
    Later,
    /// The account: it works when a person has mended it.
    Broken,
    /// The contact does not want it.
    OptedOut,
    /// The message, or its recipient: it never works.
    Message,
    /// The code is not there.
    Unsaid,
}

/// Error codes of Twilio's API (<https://www.twilio.com/docs/api/errors>). All that
/// are not named here blame the message.
fn meaning(code: i64) -> Meaning {
    match code {
        // Rates, queues, and Twilio's own trouble.
        20429 | 20500 | 20503 | 14107 | 21611 | 30001 | 30022 | 63018 => Meaning::Later,
        // Credentials, permissions, account suspended, no credit.
        20003 | 20005 | 20006 | 20008 | 20101 | 20103 | 20104 | 20404 | 30002 => Meaning::Broken,
        // A sender that is not the account's, cannot do it, or is not registered.
        21212 | 21603 | 21606 | 21659 | 21660 | 21661 | 21701..=21712 | 30032 | 30034 | 30035 => Meaning::Broken,
        // Caller ids of calls: not verified, not owned.
        21210 | 21213 | 21219 => Meaning::Broken,
        21610 => Meaning::OptedOut,
        _ => Meaning::Message,
    }
}

/// What a code of a status callback says in words, where it is a common one.
pub fn words(code: &str) -> String {
    let words = match code {
        "30003" => "the phone cannot be reached",
        "30004" => "the message was blocked",
        "30005" => "the number is not known",
        "30006" => "the number is a landline, or cannot get messages",
        "30007" => "the carrier took it for spam",
        "30008" => "the carrier does not say why",
        "21610" => "the number has opted out",
        _ => return format!("error {code}"),
    };
    format!("{words} (error {code})")
}

fn said(sent: Sent) -> String {
    match sent {
        Sent::Accepted { .. } => String::new(),
        Sent::Refused { error } | Sent::Later { error, .. } | Sent::Broken { error } | Sent::Unknown { error } => error,
    }
}

fn refused(error: String) -> Sent {
    Sent::Refused { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_a_message_needs_to_know() {
        let check = |status: u16, code: Option<i64>, expected: &str| {
            let said = code.map(|code| Refusal {
                code: Some(code),
                message: Some("words".to_owned()),
            });
            let found = match outcome(StatusCode::from_u16(status).unwrap(), said.as_ref()) {
                Sent::Accepted { .. } => "accepted",
                Sent::Refused { .. } => "refused",
                Sent::Later { .. } => "later",
                Sent::Broken { .. } => "broken",
                Sent::Unknown { .. } => "unknown",
            };
            assert_eq!(found, expected, "{status} {code:?}");
        };
        check(429, Some(20429), "later");
        check(429, None, "later");
        check(503, None, "later");
        check(500, Some(20500), "later");
        check(500, Some(99999), "later");
        check(500, None, "unknown");
        check(502, None, "unknown");
        check(401, Some(20003), "broken");
        check(401, None, "broken");
        check(403, None, "broken");
        check(404, Some(20404), "broken");
        check(404, None, "broken");
        check(400, Some(21606), "broken");
        check(400, Some(21703), "broken");
        check(400, Some(21211), "refused");
        check(400, Some(21610), "refused");
        check(400, Some(21614), "refused");
        check(400, Some(21408), "refused");
        check(403, Some(21408), "refused");
        check(400, None, "refused");
        check(301, None, "refused");
    }

    #[test]
    fn only_twilio_is_asked_with_the_password() {
        let settings = |api_url: &str| {
            let text = format!("account_sid = 'AC1'\nauth_tokens = ['x']\nallow_private = true\napi_url = '{api_url}'");
            toml::from_str::<Settings>(&text).unwrap()
        };
        let surroundings = Surroundings {
            keys: crate::signature::Keys::new(vec![vec![1; 32]]).unwrap(),
            public_url: String::new(),
            http: Guard::new(false).unwrap(),
            calendars: Vec::new(),
        };
        let check = |api_url: &str, url: &str, expected: bool| {
            let api = Api::new(&settings(api_url), &surroundings).unwrap();
            let fetch = api.fetch(url);
            assert_eq!(!fetch.headers.is_empty(), expected, "{url}");
            assert_eq!(fetch.allow_private, expected, "{url}");
        };
        check(PUBLIC_URL, "https://api.twilio.com/2010-04-01/x", true);
        check(PUBLIC_URL, "https://media.twilio.com/x", true);
        check(PUBLIC_URL, "http://api.twilio.com/x", false);
        check(PUBLIC_URL, "https://twilio.com.example.com/x", false);
        check(PUBLIC_URL, "https://eviltwilio.com/x", false);
        check(PUBLIC_URL, "https://10.0.0.1/x", false);
        check(PUBLIC_URL, "no url", false);
        check("http://127.0.0.1:9", "http://127.0.0.1:9/x", true);
        check("http://127.0.0.1:9", "http://127.0.0.1:10/x", false);
    }

    #[test]
    fn codes_have_words() {
        assert_eq!(words("30003"), "the phone cannot be reached (error 30003)");
        assert_eq!(words("12345"), "error 12345");
    }
}
