//! Reports of non-delivery (RFC 3464) about messages of ours.

use model::event::{DeliveryReport, DeliveryState};
use model::id::MessageId;

use super::decode;
use super::mime::{self, Mail};
use super::tokens;
use crate::signature::Keys;

/// So much of a report's text is searched for a Message-ID of ours.
const MAX_SEARCHED_BYTES: usize = 256 * 1024;
const MAX_ERROR_CHARS: usize = 500;
/// Parts that are read as statuses, and bytes of each.
const MAX_STATUSES: usize = 10;
const MAX_STATUS_BYTES: usize = 64 * 1024;

/// What a bounce says of a message of ours. Which message that was, only a
/// Message-ID with our signature tells: in the mail that is returned, or
/// somewhere in the text of servers that do not keep to the standard.
pub fn failure(mail: &Mail, keys: &Keys) -> Option<DeliveryReport> {
    let statuses: Vec<String> = mail
        .parts
        .iter()
        .filter(|part| part.media_type.ends_with("delivery-status"))
        .take(MAX_STATUSES)
        .map(|part| {
            let bytes = part.bytes();
            decode::charset("utf-8", &bytes[..bytes.len().min(MAX_STATUS_BYTES)])
        })
        .collect();
    let error = match statuses.is_empty() {
        true => Some("the mail came back".to_owned()),
        false => statuses.iter().find_map(|status| failed(status)),
    }?;
    let message = ours(mail, keys)?;
    Some(DeliveryReport {
        external_id: message.to_string(),
        state: DeliveryState::Failed,
        error: Some(error),
    })
}

/// Whether a message of ours is returned, or named by its Message-ID.
pub fn names_ours(mail: &Mail, keys: &Keys) -> bool {
    ours(mail, keys).is_some()
}

fn ours(mail: &Mail, keys: &Keys) -> Option<MessageId> {
    mail.parts.iter().find_map(|part| {
        let bytes = part.bytes();
        ours_in(&bytes[..bytes.len().min(MAX_SEARCHED_BYTES)], keys)
    })
}

/// Why delivery failed, if it failed for any recipient; a delay is no failure.
fn failed(status: &str) -> Option<String> {
    for block in status.replace("\r\n", "\n").split("\n\n") {
        let fields = mime::headers(block.trim_start().as_bytes());
        let action = fields.text("action").unwrap_or_default();
        if !action.eq_ignore_ascii_case("failed") {
            continue;
        }
        let code = fields.text("status").unwrap_or_default();
        let words = fields.text("diagnostic-code").unwrap_or_default();
        let error: String = format!("{code} {words}").trim().chars().take(MAX_ERROR_CHARS).collect();
        return Some(if error.is_empty() {
            "delivery failed".to_owned()
        } else {
            error
        });
    }
    None
}

/// The first `<id@domain>` with our signature.
fn ours_in(bytes: &[u8], keys: &Keys) -> Option<MessageId> {
    let text = decode::as_text(bytes);
    let mut pieces = text.split('<');
    pieces.next();
    pieces.find_map(|piece| {
        let (inner, _) = piece.split_once('>').filter(|(inner, _)| inner.len() <= 998)?;
        tokens::message_of(keys, &format!("<{inner}>"))
    })
}
