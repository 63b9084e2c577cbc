//! Events as they lie in the log: protobuf, with CloudEvents 1.0 headers in
//! binary mode. The one place that knows both `model::event` and
//! `proto/conversation/v1`.

mod desk;
mod event;
mod hint;

use std::borrow::Cow;

use model::context::Announcement;
use model::event::{Body, Event};
use model::time::Moment;
use prost::Message as _;

use self::desk::announcement_to_proto;
pub(crate) use self::event::is_sha256;
use self::event::{event_from_proto, event_to_proto};
pub(crate) use self::hint::{decode_hint, encode_hint};
use self::proto::conversation::v1 as pb;
use crate::Undecodable;

/// Generated from `proto/` by `build.rs`.
#[expect(clippy::enum_variant_names, reason = "generated")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/proto.rs"));
}

/// A record, ready for either log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Encoded {
    pub key: String,
    pub headers: Headers,
    pub value: Vec<u8>,
}

/// Name and value, in their order.
pub(crate) type Headers = Vec<(Cow<'static, str>, String)>;

/// A decoding error is kept with the parked input: never longer than this.
const REASON_MAX_CHARS: usize = 200;

impl Encoded {
    /// What counts against a broker's limit.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + headers + self.value.len()
    }
}

/// The record of an event.
pub(crate) fn encode(event: Event) -> Encoded {
    let kind = match event.body {
        Body::MessageReceived(_) => "message_received",
        Body::DeliveryReported(_) => "delivery_reported",
        Body::MessageChanged(_) => "message_changed",
        Body::ConsentChanged(_) => "consent_changed",
        Body::WatermarkMoved(_) => "watermark_moved",
        Body::AccountBroken { .. } => "account_broken",
        Body::Parked { .. } => "parked",
        Body::Quarantined { .. } => "quarantined",
    };
    let mut headers = cloud_event_headers(
        event.id.clone(),
        format!("/accounts/{}", percent_encoded(&event.account)),
        format!("io.tributary.conversation.v1.{kind}"),
        event.occurred_at,
        &event.thread_key,
    );
    if let Some(traceparent) = &event.traceparent {
        headers.push(("traceparent".into(), traceparent.clone()));
    }
    Encoded {
        key: event.thread_key.clone(),
        headers,
        value: event_to_proto(event).encode_to_vec(),
    }
}

/// The record of an announcement.
pub(crate) fn encode_announcement(announcement: &Announcement) -> Encoded {
    let headers = cloud_event_headers(
        format!("{}/{}", announcement.subject, announcement.version),
        "/desk".to_owned(),
        format!("io.tributary.desk.v1.{}", announcement.kind),
        announcement.occurred_at,
        &announcement.subject,
    );
    Encoded {
        key: announcement.subject.clone(),
        headers,
        value: announcement_to_proto(announcement).encode_to_vec(),
    }
}

/// The event in the value of a record. Never panics, whatever it is; what it costs is
/// bounded by its length.
pub fn decode(bytes: &[u8]) -> Result<Event, Undecodable> {
    let decoded = pb::Event::decode(bytes)
        .map_err(|error| error.to_string())
        .and_then(event_from_proto);
    decoded.map_err(|reason| Undecodable {
        bytes: bytes.to_vec(),
        reason: reason.chars().take(REASON_MAX_CHARS).collect(),
    })
}

/// CloudEvents 1.0, Kafka protocol binding, binary content mode. A subject must
/// not be empty if it is there.
fn cloud_event_headers(id: String, source: String, kind: String, time: Moment, subject: &str) -> Headers {
    let mut headers = vec![
        ("ce_specversion".into(), "1.0".to_owned()),
        ("ce_id".into(), id),
        ("ce_source".into(), source),
        ("ce_type".into(), kind),
        ("ce_time".into(), time.to_string()),
        ("content-type".into(), "application/protobuf".to_owned()),
    ];
    if !subject.is_empty() {
        headers.push(("ce_subject".into(), subject.to_owned()));
    }
    headers
}

/// `ce_source` is a URI reference: one path segment of RFC 3986.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
