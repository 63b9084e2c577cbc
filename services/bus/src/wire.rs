//! Events as they lie in the log: protobuf, with CloudEvents 1.0 headers in
//! binary mode. The one place that knows both `model::event` and
//! `proto/conversation/v1`.

use data_encoding::HEXLOWER_PERMISSIVE;
use model::contact::Party;
use model::context::Announcement;
use model::event::{
    Attachment, Automatic, Body, DeliveryReport, DeliveryState, Event, Message, Raw, RawContent, Recipient,
};
use model::evidence::Evidence;
use model::id::{ConversationId, MessageId};
use model::time::Moment;
use prost::Message as _;

use self::proto::conversation::v1 as pb;
use self::proto::google::protobuf as wkt;
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
    pub headers: Vec<(String, String)>,
    pub value: Vec<u8>,
}

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
        headers.push(("traceparent".to_owned(), traceparent.clone()));
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
    let message = pb::Announcement {
        subject: announcement.subject.clone(),
        version: announcement.version,
        r#type: announcement.kind.clone(),
        occurred_at: Some(moment_to_proto(announcement.occurred_at)),
        data: Some(struct_to_proto(&announcement.data)),
    };
    Encoded {
        key: announcement.subject.clone(),
        headers,
        value: message.encode_to_vec(),
    }
}

/// The event in these bytes. Never panics, whatever they are; what it costs is
/// bounded by their length.
pub(crate) fn decode(bytes: &[u8]) -> Result<Event, Undecodable> {
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
fn cloud_event_headers(id: String, source: String, kind: String, time: Moment, subject: &str) -> Vec<(String, String)> {
    let mut headers = vec![
        ("ce_specversion".to_owned(), "1.0".to_owned()),
        ("ce_id".to_owned(), id),
        ("ce_source".to_owned(), source),
        ("ce_type".to_owned(), kind),
        ("ce_time".to_owned(), time.to_string()),
        ("content-type".to_owned(), "application/protobuf".to_owned()),
    ];
    if !subject.is_empty() {
        headers.push(("ce_subject".to_owned(), subject.to_owned()));
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

fn event_to_proto(event: Event) -> pb::Event {
    let body = match event.body {
        Body::MessageReceived(message) => pb::event::Body::MessageReceived(Box::new(message_to_proto(*message))),
        Body::DeliveryReported(report) => pb::event::Body::DeliveryReported(pb::DeliveryReported {
            external_id: report.external_id,
            state: report.state.as_str().to_owned(),
            error: report.error,
        }),
        Body::Parked { reason } => pb::event::Body::Parked(pb::Parked { reason }),
        Body::Quarantined { reason } => pb::event::Body::Quarantined(pb::Quarantined { reason }),
    };
    pb::Event {
        id: event.id,
        account: event.account,
        channel: event.channel,
        thread_key: event.thread_key,
        occurred_at: Some(moment_to_proto(event.occurred_at)),
        received_at: Some(moment_to_proto(event.received_at)),
        provider_sequence: event.provider_sequence,
        traceparent: event.traceparent,
        raw: Some(raw_to_proto(event.raw)),
        body: Some(body),
    }
}

fn event_from_proto(event: pb::Event) -> Result<Event, String> {
    let body = body_from_proto(event.body.ok_or("no body, or one of a newer version")?)?;
    let id_is_right = match body {
        Body::MessageReceived(_) => MessageId::parse(&event.id).is_some(),
        Body::DeliveryReported(_) | Body::Parked { .. } | Body::Quarantined { .. } => is_event_id(&event.id),
    };
    if !id_is_right {
        return Err("the id has not the form of its kind".to_owned());
    }
    if event.account.is_empty() || event.channel.is_empty() {
        return Err("no account or no channel".to_owned());
    }
    Ok(Event {
        id: event.id,
        account: event.account,
        channel: event.channel,
        thread_key: event.thread_key,
        occurred_at: moment_from_proto(event.occurred_at)?,
        received_at: moment_from_proto(event.received_at)?,
        provider_sequence: event.provider_sequence,
        traceparent: event.traceparent,
        raw: raw_from_proto(event.raw.ok_or("no raw input")?)?,
        body,
    })
}

/// `evt_…`, or the id of a message that could not be parsed or applied.
fn is_event_id(id: &str) -> bool {
    let is_plain = |rest: &str| {
        !rest.is_empty()
            && rest.len() <= 64
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    MessageId::parse(id).is_some() || id.strip_prefix("evt_").is_some_and(is_plain)
}

fn body_from_proto(body: pb::event::Body) -> Result<Body, String> {
    Ok(match body {
        pb::event::Body::MessageReceived(message) => Body::MessageReceived(Box::new(message_from_proto(*message)?)),
        pb::event::Body::DeliveryReported(report) => Body::DeliveryReported(DeliveryReport {
            external_id: report.external_id,
            state: DeliveryState::parse(&report.state).ok_or("unknown delivery state")?,
            error: report.error,
        }),
        pb::event::Body::Parked(parked) => Body::Parked { reason: parked.reason },
        pb::event::Body::Quarantined(quarantined) => Body::Quarantined {
            reason: quarantined.reason,
        },
    })
}

fn raw_to_proto(raw: Raw) -> pb::Raw {
    let content = match raw.content {
        RawContent::Inline(bytes) => pb::raw::Content::Inline(bytes),
        RawContent::Blob { sha256, size_bytes } => pb::raw::Content::Blob(pb::Blob { sha256, size_bytes }),
    };
    pb::Raw {
        content: Some(content),
        method: raw.method,
        url: raw.url,
        headers: raw
            .headers
            .into_iter()
            .map(|(name, value)| pb::Header { name, value })
            .collect(),
    }
}

fn raw_from_proto(raw: pb::Raw) -> Result<Raw, String> {
    let content = match raw.content.ok_or("no raw content")? {
        pb::raw::Content::Inline(bytes) => RawContent::Inline(bytes),
        pb::raw::Content::Blob(blob) => RawContent::Blob {
            sha256: sha256_from_proto(blob.sha256)?,
            size_bytes: blob.size_bytes,
        },
    };
    Ok(Raw {
        content,
        method: raw.method,
        url: raw.url,
        headers: raw
            .headers
            .into_iter()
            .map(|header| (header.name, header.value))
            .collect(),
    })
}

fn message_to_proto(message: Message) -> pb::MessageReceived {
    pb::MessageReceived {
        sender: Some(pb::Party {
            scheme: message.sender.scheme,
            address: message.sender.address,
            name: message.sender.name,
            verified: message.sender.verified,
        }),
        recipients: message.recipients.into_iter().map(recipient_to_proto).collect(),
        subject: message.subject,
        text: message.text,
        html: message.html,
        attachments: message.attachments.into_iter().map(attachment_to_proto).collect(),
        evidence: Some(evidence_to_proto(message.evidence)),
        automatic: message.automatic.map(|automatic| automatic.as_str().to_owned()),
        suppress_automatic_reply: message.suppress_automatic_reply,
        external_ids: message.external_ids,
    }
}

fn message_from_proto(message: pb::MessageReceived) -> Result<Message, String> {
    let sender = message.sender.ok_or("no sender")?;
    let automatic = match message.automatic {
        Some(name) => Some(Automatic::parse(&name).ok_or("unknown automatic mark")?),
        None => None,
    };
    let mut attachments = Vec::with_capacity(message.attachments.len());
    for attachment in message.attachments {
        attachments.push(attachment_from_proto(attachment)?);
    }
    Ok(Message {
        sender: Party {
            scheme: sender.scheme,
            address: sender.address,
            name: sender.name,
            verified: sender.verified,
        },
        recipients: message.recipients.into_iter().map(recipient_from_proto).collect(),
        subject: message.subject,
        text: message.text,
        html: message.html,
        attachments,
        evidence: evidence_from_proto(message.evidence.unwrap_or_default())?,
        automatic,
        suppress_automatic_reply: message.suppress_automatic_reply,
        external_ids: message.external_ids,
    })
}

fn recipient_to_proto(recipient: Recipient) -> pb::Recipient {
    pb::Recipient {
        role: recipient.role,
        address: recipient.address,
        name: recipient.name,
    }
}

fn recipient_from_proto(recipient: pb::Recipient) -> Recipient {
    Recipient {
        role: recipient.role,
        address: recipient.address,
        name: recipient.name,
    }
}

fn attachment_to_proto(attachment: Attachment) -> pb::Attachment {
    pb::Attachment {
        name: attachment.name,
        media_type: attachment.media_type,
        size_bytes: attachment.size_bytes,
        sha256: attachment.sha256,
        content_id: attachment.content_id,
    }
}

fn attachment_from_proto(attachment: pb::Attachment) -> Result<Attachment, String> {
    Ok(Attachment {
        name: attachment.name,
        media_type: attachment.media_type,
        size_bytes: attachment.size_bytes,
        sha256: sha256_from_proto(attachment.sha256)?,
        content_id: attachment.content_id,
    })
}

fn evidence_to_proto(evidence: Evidence) -> pb::Evidence {
    pb::Evidence {
        signed_messages: evidence.signed_messages.iter().map(ToString::to_string).collect(),
        signed_conversations: evidence.signed_conversations.iter().map(ToString::to_string).collect(),
        quoted_ids: evidence.quoted_ids,
        thread: evidence.thread,
    }
}

fn evidence_from_proto(evidence: pb::Evidence) -> Result<Evidence, String> {
    let mut signed_messages = Vec::new();
    for id in &evidence.signed_messages {
        signed_messages.push(MessageId::parse(id).ok_or("a signed message id has not its form")?);
    }
    let mut signed_conversations = Vec::new();
    for id in &evidence.signed_conversations {
        signed_conversations.push(ConversationId::parse(id).ok_or("a signed conversation id has not its form")?);
    }
    Ok(Evidence {
        signed_messages,
        signed_conversations,
        quoted_ids: evidence.quoted_ids,
        thread: evidence.thread,
    })
}

fn sha256_from_proto(text: String) -> Result<String, String> {
    if is_sha256(&text) {
        Ok(text)
    } else {
        Err("a SHA-256 is not 64 lower-case hexadecimal digits".to_owned())
    }
}

/// Whether this is the name of a blob.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && HEXLOWER_PERMISSIVE.decode(text.as_bytes()).is_ok() && text == text.to_ascii_lowercase()
}

fn moment_to_proto(moment: Moment) -> wkt::Timestamp {
    let ms = moment.as_ms();
    wkt::Timestamp {
        seconds: ms.div_euclid(1000),
        nanos: i32::try_from(ms.rem_euclid(1000) * 1_000_000).unwrap_or(0),
    }
}

fn moment_from_proto(timestamp: Option<wkt::Timestamp>) -> Result<Moment, String> {
    let timestamp = timestamp.ok_or("no time")?;
    let ms = timestamp
        .seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(timestamp.nanos / 1_000_000));
    let moment = Moment::from_ms(ms);
    if moment.as_ms() == ms {
        Ok(moment)
    } else {
        Err("a time out of range".to_owned())
    }
}

/// A value that is no object stands under `value`.
fn struct_to_proto(data: &serde_json::Value) -> wkt::Struct {
    let fields = match data {
        serde_json::Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), value_to_proto(value)))
            .collect(),
        serde_json::Value::Null => Default::default(),
        other => [("value".to_owned(), value_to_proto(other))].into(),
    };
    wkt::Struct { fields }
}

fn value_to_proto(value: &serde_json::Value) -> wkt::Value {
    use wkt::value::Kind;
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(value) => Kind::StringValue(value.clone()),
        serde_json::Value::Array(values) => Kind::ListValue(wkt::ListValue {
            values: values.iter().map(value_to_proto).collect(),
        }),
        serde_json::Value::Object(_) => Kind::StructValue(struct_to_proto(value)),
    };
    wkt::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(body: Body) -> Event {
        let id = match body {
            Body::MessageReceived(_) => MessageId::received("shop", "webhook", "1").to_string(),
            _ => model::id::event_id(&["shop", "1"]),
        };
        Event {
            id,
            account: "shop".to_owned(),
            channel: "webhook".to_owned(),
            thread_key: "thread".to_owned(),
            occurred_at: Moment::from_ms(1_790_000_000_123),
            received_at: Moment::from_ms(1_790_000_000_456),
            provider_sequence: Some(-7),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            raw: Raw {
                content: RawContent::Inline(b"\x00\xff{}".to_vec()),
                method: "POST".to_owned(),
                url: "/in/shop?x=1".to_owned(),
                headers: vec![("webhook-id".to_owned(), "1".to_owned())],
            },
            body,
        }
    }

    fn message() -> Message {
        Message {
            sender: Party {
                scheme: "email".to_owned(),
                address: "anna@example.com".to_owned(),
                name: Some(String::new()),
                verified: true,
            },
            recipients: vec![Recipient {
                role: "cc".to_owned(),
                address: "it@example.org".to_owned(),
                name: None,
            }],
            subject: Some("Grüße\u{0}".to_owned()),
            text: "a\u{0}b \u{1F600}".to_owned(),
            html: Some("<p>a</p>".to_owned()),
            attachments: vec![Attachment {
                name: "bill.pdf".to_owned(),
                media_type: "application/pdf".to_owned(),
                size_bytes: u64::MAX,
                sha256: model::id::sha256_hex(b"bill"),
                content_id: Some("1@x".to_owned()),
            }],
            evidence: Evidence {
                signed_messages: vec![MessageId::authored("ines", "1")],
                signed_conversations: vec![ConversationId::begun_by(&MessageId::authored("ines", "1"))],
                quoted_ids: vec!["<1@example.com>".to_owned()],
                thread: Some("t".to_owned()),
            },
            automatic: Some(Automatic::Generated),
            suppress_automatic_reply: true,
            external_ids: vec!["<2@example.com>".to_owned()],
        }
    }

    fn empty_message() -> Message {
        Message {
            sender: Party {
                scheme: String::new(),
                address: String::new(),
                name: None,
                verified: false,
            },
            recipients: Vec::new(),
            subject: None,
            text: String::new(),
            html: None,
            attachments: Vec::new(),
            evidence: Evidence::default(),
            automatic: None,
            suppress_automatic_reply: false,
            external_ids: Vec::new(),
        }
    }

    fn bodies() -> Vec<Body> {
        let report = |state, error: Option<&str>| {
            Body::DeliveryReported(DeliveryReport {
                external_id: "x".to_owned(),
                state,
                error: error.map(ToOwned::to_owned),
            })
        };
        vec![
            Body::MessageReceived(Box::new(message())),
            Body::MessageReceived(Box::new(empty_message())),
            Body::MessageReceived(Box::new(Message {
                subject: Some(String::new()),
                html: Some(String::new()),
                automatic: Some(Automatic::Own),
                ..empty_message()
            })),
            report(DeliveryState::Queued, None),
            report(DeliveryState::Failed, Some("")),
            report(DeliveryState::Read, Some("550 gone\u{0}")),
            Body::Parked { reason: String::new() },
            Body::Quarantined {
                reason: "bad".to_owned(),
            },
        ]
    }

    #[test]
    fn every_event_comes_back_as_it_went() {
        for body in bodies() {
            let mut event = event(body);
            assert_eq!(decode(&encode(event.clone()).value).unwrap(), event);
            event.raw = Raw {
                content: RawContent::Blob {
                    sha256: model::id::sha256_hex(b"large"),
                    size_bytes: 300_000,
                },
                ..Raw::default()
            };
            event.provider_sequence = None;
            event.traceparent = None;
            event.occurred_at = Moment::from_ms(-1);
            assert_eq!(decode(&encode(event.clone()).value).unwrap(), event);
            event.raw.content = RawContent::Inline(Vec::new());
            event.received_at = Moment::from_ms(i64::MAX);
            assert_eq!(decode(&encode(event.clone()).value).unwrap(), event);
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        let check = |change: fn(&mut pb::Event), expected: &str| {
            let mut changed = event_to_proto(event(Body::MessageReceived(Box::new(message()))));
            change(&mut changed);
            let bytes = changed.encode_to_vec();
            let undecodable = decode(&bytes).unwrap_err();
            assert_eq!(undecodable.reason, expected);
            assert_eq!(undecodable.bytes, bytes);
        };
        check(|event| event.body = None, "no body, or one of a newer version");
        check(|event| event.id = String::new(), "the id has not the form of its kind");
        check(
            |event| event.id = "evt_1".to_owned(),
            "the id has not the form of its kind",
        );
        check(
            |event| event.id = "msg_\u{0}".to_owned(),
            "the id has not the form of its kind",
        );
        check(|event| event.account.clear(), "no account or no channel");
        check(|event| event.channel.clear(), "no account or no channel");
        check(|event| event.occurred_at = None, "no time");
        check(
            |event| {
                event.received_at = Some(wkt::Timestamp {
                    seconds: i64::MAX,
                    nanos: i32::MAX,
                });
            },
            "a time out of range",
        );
        check(|event| event.raw = None, "no raw input");
        check(|event| event.raw = Some(pb::Raw::default()), "no raw content");
        check(
            |event| {
                let blob = pb::Blob {
                    sha256: "../../etc".to_owned(),
                    size_bytes: 1,
                };
                event.raw.as_mut().unwrap().content = Some(pb::raw::Content::Blob(blob));
            },
            "a SHA-256 is not 64 lower-case hexadecimal digits",
        );
        check(|event| message_of(event).sender = None, "no sender");
        check(
            |event| message_of(event).automatic = Some("robot".to_owned()),
            "unknown automatic mark",
        );
        check(
            |event| message_of(event).attachments[0].sha256 = "F".repeat(64),
            "a SHA-256 is not 64 lower-case hexadecimal digits",
        );
        check(
            |event| {
                let evidence = message_of(event).evidence.as_mut().unwrap();
                evidence.signed_messages.push("cnv_1".to_owned());
            },
            "a signed message id has not its form",
        );
        check(
            |event| {
                let evidence = message_of(event).evidence.as_mut().unwrap();
                evidence.signed_conversations.push(String::new());
            },
            "a signed conversation id has not its form",
        );
    }

    fn message_of(event: &mut pb::Event) -> &mut pb::MessageReceived {
        match &mut event.body {
            Some(pb::event::Body::MessageReceived(message)) => message,
            _ => unreachable!(),
        }
    }

    #[test]
    fn garbage_is_refused_and_never_panics() {
        let whole = encode(event(Body::MessageReceived(Box::new(message())))).value;
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "cut at {length}");
        }
        for position in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[position] ^= 1 << bit;
                if let Err(undecodable) = decode(&bytes) {
                    assert!(undecodable.reason.chars().count() <= REASON_MAX_CHARS);
                    assert_eq!(undecodable.bytes, bytes);
                }
            }
        }
        for bytes in [&b"\xff"[..], b"{}", &[0; 4096], &[b'z'; 4096], &[0x0a; 4096]] {
            assert!(decode(bytes).is_err());
        }
    }

    #[test]
    fn unknown_fields_are_no_hindrance() {
        let event = event(Body::Parked { reason: String::new() });
        let mut bytes = encode(event.clone()).value;
        // Field 1000, length 1.
        bytes.extend_from_slice(&[0xc2, 0x3e, 0x01, 0x41]);
        assert_eq!(decode(&bytes).unwrap(), event);
    }

    #[test]
    fn headers_are_cloud_events_in_binary_mode() {
        let mut event = event(Body::Quarantined { reason: String::new() });
        event.account = "südost 1/2".to_owned();
        let record = encode(event.clone());
        assert_eq!(record.key, "thread");
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", event.id.as_str()),
            ("ce_source", "/accounts/s%C3%BCdost%201%2F2"),
            ("ce_type", "io.tributary.conversation.v1.quarantined"),
            ("ce_time", "2026-09-21T14:13:20.123Z"),
            ("content-type", "application/protobuf"),
            ("ce_subject", "thread"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ];
        let found: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected);

        event.thread_key.clear();
        event.traceparent = None;
        let record = encode(event);
        assert!(
            record
                .headers
                .iter()
                .all(|(name, _)| name != "ce_subject" && name != "traceparent")
        );
    }

    #[test]
    fn announcements_carry_their_data_as_a_struct() {
        let record = encode_announcement(&Announcement {
            subject: "tkt_1".to_owned(),
            version: 3,
            kind: "clock.breached".to_owned(),
            occurred_at: Moment::from_ms(0),
            data: serde_json::json!({"metric": "resolution", "n": 1.5, "list": [null, true, {}]}),
        });
        assert_eq!(record.key, "tkt_1");
        let header = |name: &str| record.headers.iter().find(|(key, _)| key == name).unwrap().1.as_str();
        assert_eq!(header("ce_id"), "tkt_1/3");
        assert_eq!(header("ce_type"), "io.tributary.desk.v1.clock.breached");
        let decoded = pb::Announcement::decode(record.value.as_slice()).unwrap();
        assert_eq!(decoded.version, 3);
        let fields = decoded.data.unwrap().fields;
        assert_eq!(
            fields["metric"].kind,
            Some(wkt::value::Kind::StringValue("resolution".to_owned()))
        );
        assert_eq!(fields["n"].kind, Some(wkt::value::Kind::NumberValue(1.5)));
        assert!(matches!(&fields["list"].kind, Some(wkt::value::Kind::ListValue(list)) if list.values.len() == 3));
    }
}
