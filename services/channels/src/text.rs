//! The texts of an event, made fit for the store and the log: no U+0000, which
//! PostgreSQL cannot keep, no second line in what is one (an address, a name, a
//! subject), and not too much of anything. HTML is as long as the sanitiser gives
//! it: the bus makes an attachment of what a record cannot carry. The raw input
//! keeps what is changed here.

use model::change::{Call, Change, MessageChange};
use model::contact::Party;
use model::event::{Attachment, ConsentChange, DeliveryReport, Message, Recipient, Watermark};
use model::evidence::Evidence;
use model::id::sha256_hex;

/// Of a message's text, in bytes.
const MAX_TEXT_BYTES: usize = 256 * 1024;
/// Of a subject, name, address, id or other short text, in bytes.
const MAX_SHORT_BYTES: usize = 2_048;
/// Of an attachment's address, in bytes: signed ones are long.
const MAX_SOURCE_BYTES: usize = 4_096;
/// Of the external id of a changed message, in bytes: longer ones are not stored.
const MAX_ID_BYTES: usize = 1_000;
/// Of recipients, attachments, reactions, and ids of each sort.
const MAX_ITEMS: usize = 200;

/// U+0000 becomes U+FFFD.
pub fn without_nul(text: String) -> String {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}"),
        false => text,
    }
}

/// Whether it can stand in one line: an address, a name, a subject. A channel whose
/// sender can mend it refuses what cannot; what gets here all the same is mended.
pub fn is_one_line(text: &str) -> bool {
    !text.contains(ends_line)
}

/// A message whose every text is fit. Naming all fields makes the compiler ask
/// when there is a new one.
pub fn fit(message: Message) -> Message {
    let Message {
        sender,
        recipients,
        subject,
        text,
        html,
        attachments,
        evidence,
        automatic,
        suppress_automatic_reply,
        external_ids,
        identities,
        fields,
    } = message;
    Message {
        sender: fit_party(sender),
        recipients: recipients.into_iter().take(MAX_ITEMS).map(fit_recipient).collect(),
        subject: subject.map(short),
        text: cut(without_nul(text), MAX_TEXT_BYTES),
        html: html.map(without_nul),
        attachments: attachments.into_iter().take(MAX_ITEMS).map(fit_attachment).collect(),
        evidence: fit_evidence(evidence),
        automatic,
        suppress_automatic_reply,
        external_ids: ids(external_ids),
        identities: identities.into_iter().take(MAX_ITEMS).map(fit_party).collect(),
        fields: fields.into_iter().take(MAX_ITEMS).map(fit_field).collect(),
    }
}

/// A report whose every text is fit.
pub fn fit_report(report: DeliveryReport) -> DeliveryReport {
    let DeliveryReport {
        external_id,
        state,
        error,
    } = report;
    DeliveryReport {
        external_id: without_nul(external_id),
        state,
        error: error.map(|error| cut(without_nul(error), MAX_SHORT_BYTES)),
    }
}

/// A change whose every text is fit.
pub fn fit_change(told: MessageChange) -> MessageChange {
    let MessageChange { external_id, change } = told;
    let change = match change {
        Change::Edited { text, html } => Change::Edited {
            text: cut(without_nul(text), MAX_TEXT_BYTES),
            html: html.map(without_nul),
        },
        Change::Deleted => Change::Deleted,
        Change::Reacted { by, emojis, how } => Change::Reacted {
            by: whole(by),
            emojis: emojis.into_iter().take(MAX_ITEMS).map(short).collect(),
            how,
        },
        Change::Called(call) => Change::Called(Call {
            transcription: call.transcription.map(|text| cut(without_nul(text), MAX_TEXT_BYTES)),
            ..call
        }),
        Change::AttachmentsAdded { attachments } => Change::AttachmentsAdded {
            attachments: attachments.into_iter().take(MAX_ITEMS).map(fit_attachment).collect(),
        },
    };
    MessageChange {
        external_id: match external_id.len() <= MAX_ID_BYTES {
            true => without_nul(external_id),
            false => sha256_hex(external_id.as_bytes()),
        },
        change,
    }
}

/// A word on consent whose every text is fit.
pub fn fit_consent(told: ConsentChange) -> ConsentChange {
    let ConsentChange { thread, given, reason } = told;
    ConsentChange {
        thread: whole(thread),
        given,
        reason: short(reason),
    }
}

/// A watermark whose thread is fit.
pub fn fit_watermark(watermark: Watermark) -> Watermark {
    Watermark {
        thread: whole(watermark.thread),
        ..watermark
    }
}

fn fit_party(party: Party) -> Party {
    let Party {
        scheme,
        address,
        name,
        verified,
    } = party;
    Party {
        scheme: whole(scheme),
        address: whole(address),
        name: name.map(short),
        verified,
    }
}

fn fit_field((name, value): (String, String)) -> (String, String) {
    (short(name), short(value))
}

fn fit_recipient(recipient: Recipient) -> Recipient {
    let Recipient { role, address, name } = recipient;
    Recipient {
        role: short(role),
        address: short(address),
        name: name.map(short),
    }
}

fn fit_attachment(attachment: Attachment) -> Attachment {
    let Attachment {
        name,
        media_type,
        size_bytes,
        sha256,
        content_id,
        source,
        mut lost,
    } = attachment;
    if source.as_ref().is_some_and(|source| source.len() > MAX_SOURCE_BYTES) {
        lost.get_or_insert_with(|| "its address is too long".to_owned());
    }
    Attachment {
        name: short(name),
        media_type: short(media_type),
        size_bytes,
        sha256,
        content_id: content_id.map(short),
        source: source.map(|source| cut(one_line(source), MAX_SOURCE_BYTES)),
        lost: lost.map(short),
    }
}

fn fit_evidence(evidence: Evidence) -> Evidence {
    let Evidence {
        mut signed_messages,
        mut signed_conversations,
        quoted_ids,
        thread,
        opened,
        continues,
    } = evidence;
    signed_messages.truncate(MAX_ITEMS);
    signed_conversations.truncate(MAX_ITEMS);
    Evidence {
        signed_messages,
        signed_conversations,
        quoted_ids: ids(quoted_ids),
        thread: thread.map(whole),
        opened,
        continues,
    }
}

/// An id that is too long is left out: cut, it would be another id.
fn ids(ids: Vec<String>) -> Vec<String> {
    ids.into_iter()
        .filter(|id| !id.is_empty() && id.len() <= MAX_SHORT_BYTES)
        .take(MAX_ITEMS)
        .map(one_line)
        .collect()
}

/// A name that is compared: cut, it would be another name.
fn whole(text: String) -> String {
    match text.len() <= MAX_SHORT_BYTES {
        true => one_line(text),
        false => format!("sha256:{}", sha256_hex(text.as_bytes())),
    }
}

fn short(text: String) -> String {
    cut(one_line(text), MAX_SHORT_BYTES)
}

/// What ends a line becomes U+FFFD, as U+0000 does.
fn one_line(text: String) -> String {
    match is_one_line(&text) {
        true => text,
        false => text.replace(ends_line, "\u{fffd}"),
    }
}

/// Control characters, and the separators of lines and paragraphs.
fn ends_line(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

fn cut(mut text: String, max_bytes: usize) -> String {
    const MARK: &str = "… [cut]";
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes - MARK.len()));
        text.push_str(MARK);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_nul_and_no_flood_remain() {
        let nul = || "a\0\r\n\u{2028}b".to_owned();
        let message = fit(Message {
            sender: Party {
                scheme: nul(),
                address: nul(),
                name: Some(nul()),
                verified: true,
            },
            recipients: vec![
                Recipient {
                    role: nul(),
                    address: nul(),
                    name: Some(nul()),
                };
                1_000
            ],
            subject: Some("ü".repeat(5_000)),
            text: format!("\0{}", "ü".repeat(MAX_TEXT_BYTES)),
            html: Some("x".repeat(model::html::MAX_BYTES)),
            attachments: vec![Attachment {
                name: nul(),
                media_type: nul(),
                size_bytes: 1,
                sha256: "00".to_owned(),
                content_id: Some(nul()),
                source: Some(nul()),
                lost: Some(nul()),
            }],
            evidence: Evidence {
                quoted_ids: vec![nul(), String::new(), "x".repeat(5_000)],
                thread: Some(nul()),
                ..Evidence::default()
            },
            automatic: None,
            suppress_automatic_reply: false,
            identities: vec![
                Party {
                    scheme: nul(),
                    address: nul(),
                    name: None,
                    verified: false
                };
                1_000
            ],
            fields: [(nul(), nul())].into(),
            external_ids: vec![nul(), String::new()],
        });
        let json = serde_json::to_string(&message).unwrap();
        assert!(
            !json.contains("\\u0000") && !json.contains("\\r") && !json.contains('\u{2028}'),
            "{json}"
        );
        assert_eq!(message.recipients.len(), MAX_ITEMS);
        assert_eq!(message.html.map(|html| html.len()), Some(model::html::MAX_BYTES));
        assert!(message.text.ends_with("ü… [cut]") && message.text.len() <= MAX_TEXT_BYTES);
        assert!(message.subject.unwrap().len() <= MAX_SHORT_BYTES);
        assert_eq!(message.evidence.quoted_ids, ["a\u{fffd}\u{fffd}\u{fffd}\u{fffd}b"]);
        assert_eq!(message.external_ids, message.evidence.quoted_ids);
    }
}
