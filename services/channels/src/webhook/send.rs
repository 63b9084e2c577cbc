//! Posts an answer to the account's `deliver_url`, signed by Standard Webhooks.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::outbound::Outbound;
use model::time::Moment;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::Serialize;

use super::Target;
use crate::channel::Sent;
use crate::guard::{describe, read_body};

/// Of an answer to us, so much is looked at.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// The longest that a `Retry-After` makes us wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize)]
struct Post<'a> {
    r#type: &'static str,
    id: &'a str,
    conversation_id: &'a str,
    thread: &'a str,
    /// The `webhook-id` of the message that this one answers.
    in_reply_to: Option<&'a str>,
    to: Vec<&'a str>,
    subject: Option<&'a str>,
    text: &'a str,
    html: Option<&'a str>,
    attachments: Vec<File<'a>>,
    automatic: bool,
    created_at: Moment,
}

#[derive(Serialize)]
struct File<'a> {
    name: &'a str,
    media_type: &'a str,
    content: String,
}

/// One attempt. A repeat carries the same `webhook-id`, so a receiver that has
/// it already can tell; that is why an unknown outcome is simply tried again.
pub async fn send(target: &Target, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
    let id = outbound.message_id.as_str();
    let body = match serde_json::to_vec(&post(outbound, files)) {
        Ok(body) => body,
        Err(error) => return refused(format!("the message cannot be written as JSON: {error}")),
    };
    let mut request = match target.http.post(&target.url) {
        Ok(request) => request.header(CONTENT_TYPE, "application/json"),
        Err(error) => return refused(error),
    };
    for (name, value) in target.secret.sign(id, SystemTime::now().into(), &body) {
        request = request.header(name, value);
    }
    match request.body(body).send().await {
        Ok(response) => outcome(id, response).await,
        Err(error) => Sent::Later {
            after: None,
            error: describe(&error.without_url()),
        },
    }
}

fn post<'a>(outbound: &'a Outbound, files: &[Vec<u8>]) -> Post<'a> {
    let attachments = outbound.attachments.iter().zip(files);
    Post {
        r#type: "message.created",
        id: outbound.message_id.as_str(),
        conversation_id: outbound.conversation_id.as_str(),
        thread: &outbound.thread,
        in_reply_to: outbound.references.last().map(String::as_str),
        to: outbound.recipients.iter().map(|to| to.address.as_str()).collect(),
        subject: outbound.subject.as_deref(),
        text: &outbound.text,
        html: outbound.html.as_deref(),
        attachments: attachments
            .map(|(attachment, bytes)| File {
                name: &attachment.name,
                media_type: &attachment.media_type,
                content: STANDARD.encode(bytes),
            })
            .collect(),
        automatic: outbound.automatic,
        created_at: outbound.created_at,
    }
}

async fn outcome(id: &str, mut response: reqwest::Response) -> Sent {
    let status = response.status();
    let after = retry_after(&response);
    // The connection is used again only if its answer was read.
    let _ = read_body(&mut response, MAX_ANSWER_BYTES).await;
    let error = format!("the receiver answered {status}");
    match status {
        status if status.is_success() => Sent::Accepted {
            external_ids: vec![id.to_owned()],
        },
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Sent::Later { after, error }
        }
        status if status.is_server_error() => Sent::Later { after, error },
        // Also redirects: they are not followed.
        _ => refused(error),
    }
}

/// Seconds only; a date (RFC 9110 allows one) is left to our own back-off.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds: u64 = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

fn refused(error: String) -> Sent {
    Sent::Refused { error }
}
