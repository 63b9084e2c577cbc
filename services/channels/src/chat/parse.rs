//! From a `send` frame to one message. Who wrote it stands in a header of ours, put
//! there and signed when the frame arrived, so that the frame can be parsed again.

use model::conversation::StoredMessage;
use model::event::{Attachment, DeliveryReport, DeliveryState, Message};
use model::evidence::{Evidence, Opened};
use model::id::MessageId;
use model::inbound::{Inbound, Realm, What};
use model::time::Moment;

use super::files::Receipt;
use super::frame::{self, Said};
use super::session::Visitor;
use crate::channel::{Answer, BadSignature, Input, Parsed, Unparsed};
use crate::signature::Keys;

const VISITOR: &str = "tributary-visitor";
const SIGNATURE: &str = "tributary-signature";
/// Headers that are kept with a frame.
pub(super) const KEPT_HEADERS: &[&str] = &[VISITOR, SIGNATURE];

const PURPOSE: &str = "chat-input";
pub(super) const CHANNEL: &str = "chat";
/// Ours are signed when they arrive.
const TOLERANCE_MS: i64 = 5 * 60 * 1000;

/// A frame of this visitor, as input.
pub(super) fn input(account: &str, keys: &Keys, visitor: &Visitor, frame: bytes::Bytes, now: Moment) -> Input {
    let visitor = visitor.json();
    let at = now.as_ms().to_string();
    let mac = keys.sign(PURPOSE, &signed(account, &at, &visitor, &frame));
    Input {
        method: "SEND".to_owned(),
        url: format!("/chat/{account}"),
        headers: vec![
            (VISITOR.to_owned(), visitor),
            (SIGNATURE.to_owned(), format!("{at}.{mac}")),
        ],
        body: frame,
        received_at: now,
    }
}

/// Whether we signed it, when it arrived.
pub(super) fn verify(account: &str, keys: &Keys, input: &Input) -> Result<(), BadSignature> {
    let bad = |reason| Err(BadSignature { reason });
    let (Some(visitor), Some(signature)) = (input.header(VISITOR), input.header(SIGNATURE)) else {
        return bad("this is no frame of a socket");
    };
    let Some((at, mac)) = signature.split_once('.') else {
        return bad("the signature is none");
    };
    if !keys.verify(PURPOSE, &signed(account, at, visitor, &input.body), mac) {
        return bad("the signature is not ours");
    }
    let signed_at = at.parse().map(Moment::from_ms);
    match signed_at.is_ok_and(|at| input.received_at.since_ms(at).abs() <= TOLERANCE_MS) {
        true => Ok(()),
        false => bad("it was signed at another time"),
    }
}

/// One frame is one message; its external id is its thread and the client's id.
pub(super) fn parse(account: &str, keys: &Keys, input: &Input) -> Result<Parsed, Unparsed> {
    let visitor = input.header(VISITOR).unwrap_or_default();
    let visitor: Visitor = serde_json::from_str(visitor).map_err(|_| rejected("the visitor cannot be read"))?;
    let text = std::str::from_utf8(&input.body).map_err(|_| rejected("a frame is UTF-8"))?;
    match frame::parse(text).map_err(|malformed| rejected(&malformed.detail))? {
        Said::Send { id, text, files } => sent(account, keys, &visitor, &id, text, &files, input.received_at),
        _ => Err(rejected("only `send` is a message")),
    }
}

/// What this visitor sent, as [`parse`] finds it in the frame.
pub(super) fn sent(
    account: &str,
    keys: &Keys,
    visitor: &Visitor,
    id: &str,
    text: String,
    files: &[String],
    at: Moment,
) -> Result<Parsed, Unparsed> {
    let mut attachments = Vec::new();
    for file in files {
        let receipt = Receipt::of_token(account, keys, &visitor.thread, file, at).map_err(rejected)?;
        attachments.push(receipt.attachment);
    }
    let inbound = message(visitor, id, text, attachments);
    let message_id = MessageId::received(inbound.realm.as_text(account), CHANNEL, &inbound.external_id);
    Ok(Parsed {
        events: vec![inbound],
        answer: Answer {
            status: 200,
            content_type: "application/json",
            body: frame::Saying::Ack {
                id,
                message_id: message_id.as_str(),
            }
            .text(),
        },
    })
}

fn message(visitor: &Visitor, id: &str, text: String, attachments: Vec<Attachment>) -> Inbound {
    let external_id = external_id(&visitor.thread, id);
    let message = Message {
        attachments,
        evidence: Evidence {
            thread: Some(visitor.thread.clone()),
            opened: visitor.opened.clone().map(Opened::Message),
            ..Evidence::default()
        },
        external_ids: vec![external_id.clone()],
        identities: visitor.identities(),
        fields: visitor.fields.clone(),
        ..Message::new(visitor.party(), text)
    };
    Inbound {
        realm: Realm::Account,
        external_id,
        thread: visitor.thread.clone(),
        occurred_at: None,
        provider_sequence: None,
        raw: None,
        blobs: Vec::new(),
        what: What::Message(Box::new(message)),
    }
}

/// That the visitor has read this message of ours.
pub(super) fn read(thread: &str, message_id: &MessageId) -> Inbound {
    Inbound {
        realm: Realm::Account,
        external_id: format!("read/{message_id}"),
        thread: thread.to_owned(),
        occurred_at: None,
        provider_sequence: None,
        raw: None,
        blobs: Vec::new(),
        what: What::Delivery(DeliveryReport {
            external_id: message_id.to_string(),
            state: DeliveryState::Read,
            error: None,
        }),
    }
}

fn external_id(thread: &str, id: &str) -> String {
    format!("{thread}/{id}")
}

/// The client's own name of a message that it sent.
pub(super) fn client_id<'a>(thread: &str, stored: &'a StoredMessage) -> Option<&'a str> {
    let ids = &stored.message.external_ids;
    ids.iter().find_map(|id| id.strip_prefix(thread)?.strip_prefix('/'))
}

fn signed(account: &str, at: &str, visitor: &str, frame: &[u8]) -> Vec<u8> {
    [format!("{account}\n{at}\n{visitor}\n").as_bytes(), frame].concat()
}

fn rejected(reason: &str) -> Unparsed {
    Unparsed::Rejected {
        reason: reason.to_owned(),
    }
}
