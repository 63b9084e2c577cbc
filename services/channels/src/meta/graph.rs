//! The Graph API, opened for one account by its access token.

use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::errors::{self, Meaning, Refusal};
use super::{Product, Settings};
use crate::channel::Sent;
use crate::guard::{Guard, Unanswered, read_body};
use crate::limit::{Pace, retry_after};
use crate::list::Surroundings;
use crate::media::{Fetch, Unfetched};
use crate::multipart::Form;

/// Of an answer, so much is read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// When Meta says that it is too much, and not for how long.
const PAUSE: Duration = Duration::from_secs(5);

/// The API.
pub struct Graph {
    http: Guard,
    url: Url,
    version: String,
    access_token: SecretString,
    allow_private: bool,
    pace: Pace,
}

/// Why a request came to nothing.
#[derive(Debug)]
pub struct Failed {
    /// `None`: Meta did not say.
    pub meaning: Option<Meaning>,
    /// What it means for a message.
    pub sent: Sent,
}

impl Graph {
    pub(super) fn new(settings: &Settings, surroundings: &Surroundings, product: &Product) -> Result<Self, String> {
        let http = match settings.allow_private {
            true => Guard::new(true)?,
            false => surroundings.http.clone(),
        };
        let url = settings.api_url.as_deref().unwrap_or(product.api_url);
        Ok(Self {
            url: http.url(url).map_err(|error| format!("api_url: {error}"))?,
            http,
            version: settings.api_version.clone(),
            access_token: settings.access_token.clone(),
            allow_private: settings.allow_private,
            pace: Pace::new(settings.per_second.unwrap_or(product.per_second)),
        })
    }

    /// Waits until the account may send again, or says when to come again.
    pub async fn take_turn(&self) -> Result<(), Sent> {
        self.pace.take_turn().await
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failed> {
        let request = self.request(Method::GET, path)?;
        self.answer(request).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        let request = self.request(Method::POST, path)?;
        let request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        self.answer(request).await
    }

    /// Posts a form with a file.
    pub async fn upload(&self, path: &str, form: Form) -> Result<Value, Failed> {
        let request = self.request(Method::POST, path)?;
        let request = request.header(CONTENT_TYPE, form.content_type()).body(form.finish());
        self.answer(request).await
    }

    /// How a file at a URL of Meta's is fetched: with the account's token, if it leads
    /// to Meta and only then.
    pub fn fetch(&self, url: &str) -> Fetch {
        let mut fetch = Fetch::of(url);
        if self.is_own(url) {
            fetch.headers.push(("authorization", self.bearer()));
            fetch.allow_private = self.allow_private;
        }
        fetch
    }

    /// The same for one that needs no token.
    pub fn fetch_public(&self, url: &str) -> Fetch {
        Fetch {
            allow_private: self.allow_private && self.is_own(url),
            ..Fetch::of(url)
        }
    }

    fn is_own(&self, url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        let is_metas = |host: &str| host == "lookaside.fbsbx.com" || host == "graph.facebook.com";
        let is_public = url.scheme() == "https" && url.port().is_none() && url.host_str().is_some_and(is_metas);
        is_public || url.origin() == self.url.origin()
    }

    fn bearer(&self) -> SecretString {
        format!("Bearer {}", self.access_token.expose_secret()).into()
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Failed> {
        let url = self.url.join(&format!("/{}/{path}", self.version));
        let request = match url {
            Ok(url) => self.http.request(method, &url),
            Err(_) => Err("api_url cannot be joined with a path".to_owned()),
        };
        match request {
            Ok(request) => Ok(request.header(AUTHORIZATION, self.bearer().expose_secret())),
            Err(error) => Err(Failed::unsaid(Sent::Broken { error })),
        }
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Value, Failed> {
        let sent = request.send().await.map_err(Unanswered::from);
        let mut response = sent.map_err(|unanswered| Failed::unsaid(unanswered.into()))?;
        let (status, after) = (response.status(), retry_after(response.headers()));
        let body = read_body(&mut response, MAX_ANSWER_BYTES).await;
        let body = body.map_err(|error| Failed::unsaid(Sent::Unknown { error }))?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&body).unwrap_or_default());
        }
        let (meaning, sent) = errors::outcome(status, Refusal::read(&body).as_ref());
        let failed = Failed {
            meaning,
            sent: at_the_earliest(sent, after),
        };
        if failed.is_for_all(status) {
            self.pace.pause(after.unwrap_or(PAUSE), Instant::now());
        }
        Err(failed)
    }
}

/// Not before the moment that Meta names.
fn at_the_earliest(sent: Sent, named: Option<Duration>) -> Sent {
    match sent {
        Sent::Later { after, error } => Sent::Later {
            after: named.or(after),
            error,
        },
        other => other,
    }
}

impl Failed {
    fn unsaid(sent: Sent) -> Self {
        Self { meaning: None, sent }
    }

    /// Whether nothing of the account may leave for a while.
    fn is_for_all(&self, status: StatusCode) -> bool {
        match self.meaning {
            Some(meaning) => meaning == Meaning::Throttled,
            None => status == StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// In words, for who tries the account out.
    pub fn words(self) -> String {
        match self.sent {
            Sent::Accepted { .. } => String::new(),
            Sent::Refused { error } | Sent::Later { error, .. } | Sent::Broken { error } | Sent::Unknown { error } => {
                error
            }
        }
    }

    /// What it means for a file that was to be fetched.
    pub fn unfetched(self) -> Unfetched {
        match self.sent {
            Sent::Later { after, error } => Unfetched::Later { after, reason: error },
            // The file is there when a person has mended the account, or Meta is well again.
            Sent::Broken { error } | Sent::Unknown { error } => Unfetched::Later {
                after: None,
                reason: error,
            },
            Sent::Refused { error } => Unfetched::Lost { reason: error },
            Sent::Accepted { .. } => Unfetched::Lost { reason: String::new() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(api_url: &str) -> Graph {
        let text = format!(
            "app_secrets = ['x']\nverify_token = 'v'\naccess_token = 't'\nallow_private = true\napi_url = '{api_url}'"
        );
        let surroundings = Surroundings {
            keys: crate::signature::Keys::new(vec![vec![1; 32]]).unwrap(),
            public_url: String::new(),
            http: Guard::new(false).unwrap(),
            calendars: Vec::new(),
        };
        let product = Product {
            api_url: "https://graph.facebook.com",
            per_second: std::num::NonZeroU32::MIN,
        };
        Graph::new(&toml::from_str(&text).unwrap(), &surroundings, &product).unwrap()
    }

    #[test]
    fn only_meta_is_asked_with_the_token() {
        let check = |api_url: &str, url: &str, expected: bool| {
            let fetch = graph(api_url).fetch(url);
            assert_eq!(!fetch.headers.is_empty(), expected, "{url}");
            assert_eq!(fetch.allow_private, expected, "{url}");
            let public = graph(api_url).fetch_public(url);
            assert!(public.headers.is_empty() && public.allow_private == expected, "{url}");
        };
        let public = "https://graph.facebook.com";
        check(
            public,
            "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1",
            true,
        );
        check(public, "https://graph.facebook.com/v25.0/1", true);
        check(public, "http://lookaside.fbsbx.com/x", false);
        check(public, "https://lookaside.fbsbx.com:444/x", false);
        check(public, "https://lookaside.fbsbx.com.example.com/x", false);
        check(public, "https://scontent.xx.fbcdn.net/x", false);
        check(public, "https://10.0.0.1/x", false);
        check(public, "no url", false);
        check("http://127.0.0.1:9", "http://127.0.0.1:9/x", true);
        check("http://127.0.0.1:9", "http://127.0.0.1:10/x", false);
    }
}
