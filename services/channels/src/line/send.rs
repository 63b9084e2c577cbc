//! Sends one message: by the reply token of what it answers while that is good, else
//! by push. LINE takes up to five messages in one request.

use std::time::Duration;

use model::event::Attachment;
use model::id::{MessageId, sha256_hex};
use model::outbound::Outbound;
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Builder;

use super::Line;
use super::api::Failure;
use super::parse::{QUOTE, REPLY};
use crate::channel::Sent;
use crate::parts::{Tally, split};

/// Longest text of one message, in UTF-16 units.
const TEXT_UNITS: usize = 5_000;
/// Longest text that is sent: four messages.
pub const MAX_CHARS: u32 = 20_000;
/// Of one request.
const AT_ONCE: usize = 5;
/// A larger picture has no preview at LINE.
const MAX_PICTURE_BYTES: u64 = 1_000_000;
/// Files of a message: they are fetched from us by a link.
pub const MAX_FILE_BYTES: u64 = 50_000_000;
/// A link to a file is good for so long.
const LINK_LASTS: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// For all requests.
pub const DEADLINE: Duration = Duration::from_secs(90);

impl Line {
    pub(super) async fn send_message(&self, outbound: &Outbound) -> Sent {
        let urls = self.links.lasting(&outbound.attachments, LINK_LASTS);
        let messages = messages(outbound, &urls);
        let requests: Vec<&[Value]> = messages.chunks(AT_ONCE).collect();
        let mut tally = Tally::of(requests.len());
        for (index, messages) in requests.into_iter().enumerate() {
            let token = reply_token(&outbound.references).filter(|_| self.reply_tokens && index == 0);
            let sent = match token {
                Some(token) => self.reply(outbound, token, messages).await,
                None => self.push(outbound, index, messages).await,
            };
            if let Err(end) = tally.count(sent) {
                return end;
            }
        }
        tally.accepted()
    }

    /// A token is good once and for about a minute.
    async fn reply(&self, outbound: &Outbound, token: &str, messages: &[Value]) -> Sent {
        let body = json!({ "replyToken": token, "messages": messages });
        match self.api.say("/v2/bot/message/reply", &body, None).await {
            Ok(said) => accepted(&said),
            // Used, too old, or the message itself: a push tells.
            Err(Failure::Refused(StatusCode::BAD_REQUEST, ..)) => self.push(outbound, 0, messages).await,
            Err(failure) => failure.into(),
        }
    }

    async fn push(&self, outbound: &Outbound, index: usize, messages: &[Value]) -> Sent {
        let body = json!({ "to": outbound.thread, "messages": messages });
        let key = retry_key(&outbound.message_id, index);
        match self.api.say("/v2/bot/message/push", &body, Some(&key)).await {
            Ok(said) => accepted(&said),
            Err(failure) => failure.of_push(),
        }
    }
}

/// The same for every attempt at this request.
fn retry_key(message: &MessageId, index: usize) -> String {
    let digest = sha256_hex(format!("{message}/{index}").as_bytes());
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digest.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
    }
    Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// That of the latest message, if it is the contact's.
fn reply_token(references: &[String]) -> Option<&str> {
    let of_latest = references
        .iter()
        .rev()
        .take_while(|name| name.starts_with(REPLY) || name.starts_with(QUOTE));
    of_latest.into_iter().find_map(|name| name.strip_prefix(REPLY))
}

/// The text in parts, the pictures, and links to the other files.
fn messages(outbound: &Outbound, urls: &[String]) -> Vec<Value> {
    let texts = split(&outbound.text, TEXT_UNITS)
        .into_iter()
        .filter(|text| !text.is_empty());
    let mut messages: Vec<Value> = texts.map(|text| json!({ "type": "text", "text": text })).collect();
    let quoted = outbound.quotes.as_deref().and_then(|name| name.strip_prefix(QUOTE));
    if let (Some(first), Some(token)) = (messages.first_mut(), quoted) {
        first["quoteToken"] = token.into();
    }
    for (file, url) in outbound.attachments.iter().zip(urls) {
        messages.push(match is_picture(file) {
            true => json!({ "type": "image", "originalContentUrl": url, "previewImageUrl": url }),
            false => json!({ "type": "text", "text": format!("{}\n{url}", file.name) }),
        });
    }
    messages
}

fn is_picture(file: &Attachment) -> bool {
    matches!(file.media_type.as_str(), "image/jpeg" | "image/png") && file.size_bytes <= MAX_PICTURE_BYTES
}

/// LINE's ids of what it took, each with what it can be quoted by.
fn accepted(said: &Value) -> Sent {
    let mut external_ids = Vec::new();
    for message in said["sentMessages"].as_array().into_iter().flatten() {
        external_ids.extend(message["id"].as_str().map(str::to_owned));
        external_ids.extend(message["quoteToken"].as_str().map(|token| format!("{QUOTE}{token}")));
    }
    Sent::Accepted { external_ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_message_gives_its_token() {
        let check = |references: &[&str], expected: Option<&str>| {
            let references: Vec<String> = references.iter().map(ToString::to_string).collect();
            assert_eq!(reply_token(&references), expected, "{references:?}");
        };
        check(&["1", "reply/a", "quote/q"], Some("a"));
        check(&["1", "reply/a"], Some("a"));
        check(&["1", "reply/a", "2", "reply/b", "quote/q"], Some("b"));
        // We have answered it already.
        check(&["1", "reply/a", "quote/q", "2", "quote/r"], None);
        check(&["1", "quote/q"], None);
        check(&[], None);
    }

    #[test]
    fn a_request_has_one_key_for_ever() {
        let message = MessageId::authored("agnes", "1");
        let key = retry_key(&message, 0);
        assert_eq!(key, "ed0792ad-0e1f-8849-a572-1772c52b389a");
        assert_ne!(key, retry_key(&message, 1));
    }
}
