//! Slack's Web API (<https://docs.slack.dev/apis/web-api>), and what its errors mean
//! for a message. Its ordinary failure is a 200 with `ok: false`.

use std::num::NonZeroU32;
use std::time::Instant;

use model::error::chain;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::Settings;
use super::events::FILE;
use super::parse::text;
use crate::channel::Sent;
use crate::guard::{Guard, Unanswered, read_body};
use crate::limit::{Pace, retry_after};
use crate::list::Surroundings;
use crate::media::{Fetch, Unfetched};

/// Where Slack is.
pub const PUBLIC_URL: &str = "https://slack.com";

/// Of an answer, so much is read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The Web API, opened for one app in one workspace.
pub struct Api {
    pub(super) http: Guard,
    url: Url,
    bot: SecretString,
    app: Option<SecretString>,
    pub(super) allow_private: bool,
    pub(super) pace: Pace,
}

impl Api {
    pub(super) fn new(settings: &Settings, surroundings: &Surroundings) -> Result<Self, String> {
        let http = match settings.allow_private {
            true => Guard::new(true)?,
            false => surroundings.http.clone(),
        };
        let bearer = |token: &SecretString| SecretString::from(format!("Bearer {}", token.expose_secret()));
        let per_second: NonZeroU32 = settings.per_second;
        Ok(Self {
            url: http
                .url(&settings.api_url)
                .map_err(|error| format!("api_url: {error}"))?,
            http,
            bot: bearer(&settings.bot_token),
            app: settings.app_token.as_ref().map(bearer),
            allow_private: settings.allow_private,
            pace: Pace::new(per_second),
        })
    }

    /// Calls a method that may have an effect: if nobody knows, the answer is
    /// [`Sent::Unknown`].
    pub async fn call(&self, method: &str, fields: &[(&str, &str)]) -> Result<Value, Sent> {
        self.call_as(&self.bot, method, fields).await
    }

    /// Calls a method that can be called again.
    pub async fn ask(&self, method: &str, fields: &[(&str, &str)]) -> Result<Value, Sent> {
        self.call(method, fields).await.map_err(again)
    }

    /// Who we are there, in a line.
    pub async fn who(&self) -> Result<String, String> {
        let answer = self.ask("auth.test", &[]).await.map_err(said)?;
        let (user, team) = (text(&answer, "user"), text(&answer, "team"));
        Ok(format!("the app is {user} in the workspace {team}"))
    }

    /// Where a socket can be opened now. A good one is for once.
    pub async fn socket_url(&self) -> Result<Url, String> {
        let Some(token) = &self.app else {
            return Err("there is no app_token".to_owned());
        };
        let answer = self.call_as(token, "apps.connections.open", &[]).await.map_err(said)?;
        let url = Url::parse(text(&answer, "url")).map_err(|error| format!("Slack's URL of a socket: {error}"))?;
        match url.scheme() {
            "wss" => Ok(url),
            "ws" if self.allow_private => Ok(url),
            other => Err(format!("Slack's URL of a socket is {other}:")),
        }
    }

    /// Uploads a file, which nobody sees before it is shared. Its id.
    pub async fn upload(&self, name: &str, bytes: &[u8]) -> Result<String, Sent> {
        let length = bytes.len().to_string();
        let fields = [("filename", name), ("length", length.as_str())];
        let answer = self.ask("files.getUploadURLExternal", &fields).await?;
        let url = self.http.url(text(&answer, "upload_url"));
        let url = url.map_err(|error| later(format!("where to upload: {error}")))?;
        let request = self.http.post(&url).map_err(|error| Sent::Broken { error })?;
        let request = request
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(bytes.to_vec());
        let response = request
            .send()
            .await
            .map_err(|error| later(chain(&error.without_url())))?;
        let after = retry_after(response.headers());
        match response.status() {
            status if status.is_success() => Ok(text(&answer, "file_id").to_owned()),
            status => Err(Sent::Later {
                after,
                error: format!("Slack answered an upload with {}", status.as_u16()),
            }),
        }
    }

    /// How a file is fetched: by its URL with our token, if it leads to Slack and only
    /// then. Without the token, or the scope, Slack gives a page to log in.
    pub async fn file(&self, source: &str) -> Result<Fetch, Unfetched> {
        match source.strip_prefix(FILE) {
            None => Ok(self.fetch(source)),
            Some(id) => self.file_url(id).await.map(|url| self.fetch(&url)),
        }
    }

    async fn file_url(&self, id: &str) -> Result<String, Unfetched> {
        let answer = self.ask("files.info", &[("file", id)]).await.map_err(unfetched)?;
        let file = &answer["file"];
        if text(file, "mode") == "external" {
            return Err(Unfetched::lost("it is kept elsewhere"));
        }
        let urls = [text(file, "url_private_download"), text(file, "url_private")];
        let url = urls.into_iter().find(|url| !url.is_empty());
        url.map(ToOwned::to_owned)
            .ok_or_else(|| Unfetched::lost("Slack does not say where the file is"))
    }

    fn fetch(&self, url: &str) -> Fetch {
        let mut fetch = Fetch::of(url);
        if self.is_own(url) {
            fetch.headers.push(("authorization", self.bot.clone()));
            fetch.allow_private = self.allow_private;
            fetch.follows = false;
        }
        fetch
    }

    fn is_own(&self, url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        let is_slacks = |host: &str| host == "slack.com" || host.ends_with(".slack.com");
        let is_public = url.scheme() == "https" && url.host_str().is_some_and(is_slacks);
        is_public || url.origin() == self.url.origin()
    }

    async fn call_as(&self, token: &SecretString, method: &str, fields: &[(&str, &str)]) -> Result<Value, Sent> {
        let url = self.url.join(&format!("/api/{method}"));
        let url = url.map_err(|_| broken("api_url cannot be joined with a path"))?;
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = self.http.post(&url).map_err(|error| Sent::Broken { error })?;
        let request = request
            .header(AUTHORIZATION, token.expose_secret())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body);
        let response = request.send().await.map_err(Unanswered::from)?;
        self.answer(response).await
    }

    async fn answer(&self, mut response: Response) -> Result<Value, Sent> {
        let (status, after) = (response.status(), retry_after(response.headers()));
        if status == StatusCode::TOO_MANY_REQUESTS
            && let Some(after) = after
        {
            self.pace.pause(after, Instant::now());
        }
        let body = read_body(&mut response, MAX_ANSWER_BYTES).await;
        let body = body.map_err(|error| Sent::Unknown { error })?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        match answer["ok"] == true && status.is_success() {
            true => Ok(answer),
            false => Err(match outcome(status, answer["error"].as_str()) {
                Sent::Later { error, .. } => Sent::Later { after, error },
                other => other,
            }),
        }
    }
}

/// What an answer without `ok: true` means for the message.
fn outcome(status: StatusCode, error: Option<&str>) -> Sent {
    let words = match error {
        Some(error) => format!("Slack answered {error}"),
        None => format!("Slack answered {}", status.as_u16()),
    };
    match (error.map_or(Meaning::Unsaid, meaning), status) {
        (Meaning::Later, _) | (_, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => later(words),
        (Meaning::Broken, _) | (Meaning::Unsaid, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => broken(&words),
        (Meaning::Message, _) => refused(error, words),
        (Meaning::Unknown | Meaning::Unsaid, _) => Sent::Unknown { error: words },
    }
}

/// Whom an error blames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The moment: it works later.
    Later,
    /// The app: it works when a person has mended it.
    Broken,
    /// The message, or where it goes: it never works.
    Message,
    /// Slack itself, which says that it may have been done all the same.
    Unknown,
    /// No error is named.
    Unsaid,
}

/// Errors of the methods that we call; all that are not named blame the message.
fn meaning(error: &str) -> Meaning {
    match error {
        "ratelimited"
        | "rate_limited"
        | "message_limit_exceeded"
        | "service_unavailable"
        | "team_added_to_org"
        | "request_timeout" => Meaning::Later,
        "fatal_error" | "internal_error" => Meaning::Unknown,
        "invalid_auth"
        | "not_authed"
        | "account_inactive"
        | "token_revoked"
        | "token_expired"
        | "no_permission"
        | "missing_scope"
        | "not_allowed_token_type"
        | "access_denied"
        | "team_access_not_granted"
        | "ekm_access_denied"
        | "org_login_required"
        | "enterprise_is_restricted"
        | "two_factor_setup_required"
        | "accesslimited"
        | "deprecated_endpoint"
        | "method_deprecated"
        | "unknown_method" => Meaning::Broken,
        _ => Meaning::Message,
    }
}

/// Says what a person can do, where it is a common error.
fn refused(error: Option<&str>, words: String) -> Sent {
    let hint = match error.unwrap_or_default() {
        "not_in_channel" => "the app has to be invited to the channel: ",
        "channel_not_found" => "the channel is gone, or the app may not see it: ",
        "is_archived" => "the channel is archived: ",
        "msg_too_long" => "the text is too long: ",
        "messages_tab_disabled" => "the app's settings allow no direct messages (App Home): ",
        "cannot_dm_bot" | "user_not_found" | "users_not_found" | "user_disabled" => "nobody is there to write to: ",
        _ => "",
    };
    Sent::Refused {
        error: format!("{hint}{words}"),
    }
}

/// The same for what can be done again.
fn again(sent: Sent) -> Sent {
    match sent {
        Sent::Unknown { error } => later(error),
        other => other,
    }
}

fn unfetched(sent: Sent) -> Unfetched {
    match sent {
        Sent::Later { after, error } => Unfetched::Later { after, reason: error },
        // A person may mend the app before we give up.
        Sent::Broken { error } => Unfetched::Later {
            after: None,
            reason: error,
        },
        other => Unfetched::lost(said(other)),
    }
}

fn said(sent: Sent) -> String {
    match sent {
        Sent::Accepted { .. } => String::new(),
        Sent::Refused { error } | Sent::Later { error, .. } | Sent::Broken { error } | Sent::Unknown { error } => error,
    }
}

fn later(error: String) -> Sent {
    Sent::Later { after: None, error }
}

fn broken(error: &str) -> Sent {
    Sent::Broken {
        error: error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_a_message_needs_to_know() {
        let check = |status: u16, error: Option<&str>, expected: &str| {
            let found = match outcome(StatusCode::from_u16(status).unwrap(), error) {
                Sent::Accepted { .. } => "accepted",
                Sent::Refused { .. } => "refused",
                Sent::Later { .. } => "later",
                Sent::Broken { .. } => "broken",
                Sent::Unknown { .. } => "unknown",
            };
            assert_eq!(found, expected, "{status} {error:?}");
        };
        check(200, Some("channel_not_found"), "refused");
        check(200, Some("not_in_channel"), "refused");
        check(200, Some("is_archived"), "refused");
        check(200, Some("msg_too_long"), "refused");
        check(200, Some("one_that_may_come"), "refused");
        check(200, Some("invalid_auth"), "broken");
        check(200, Some("token_revoked"), "broken");
        check(200, Some("account_inactive"), "broken");
        check(200, Some("missing_scope"), "broken");
        check(200, Some("rate_limited"), "later");
        check(429, Some("ratelimited"), "later");
        check(429, None, "later");
        check(503, None, "later");
        check(503, Some("service_unavailable"), "later");
        check(200, Some("internal_error"), "unknown");
        check(500, Some("fatal_error"), "unknown");
        check(500, None, "unknown");
        check(502, None, "unknown");
        check(200, None, "unknown");
        check(403, None, "broken");
        check(302, None, "unknown");
    }

    #[test]
    fn refusals_say_what_can_be_done() {
        let Sent::Refused { error } = outcome(StatusCode::OK, Some("not_in_channel")) else {
            panic!("not refused");
        };
        assert_eq!(
            error,
            "the app has to be invited to the channel: Slack answered not_in_channel"
        );
    }
}
