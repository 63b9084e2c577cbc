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
mod tests {
    use model::change::{Call, CallState, Change, MessageChange, Reacting};
    use model::contact::Party;
    use model::event::{
        Attachment, Automatic, ConsentChange, DeliveryReport, DeliveryState, Message, Raw, RawContent, Recipient,
        Watermark,
    };
    use model::evidence::Evidence;
    use model::id::{ConversationId, MessageId};

    use super::proto::google::protobuf as wkt;
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
            attachments: vec![
                Attachment {
                    size_bytes: u64::MAX,
                    content_id: Some("1@x".to_owned()),
                    ..Attachment::here("bill.pdf", "application/pdf", b"bill")
                },
                Attachment {
                    lost: Some("it is gone".to_owned()),
                    ..Attachment::at("a.png", "image/png", "https://example.com/a.png")
                },
            ],
            evidence: Evidence {
                signed_messages: vec![MessageId::authored("ines", "1")],
                signed_conversations: vec![ConversationId::begun_by(&MessageId::authored("ines", "1"))],
                quoted_ids: vec!["<1@example.com>".to_owned()],
                thread: Some("t".to_owned()),
                opened: Some(MessageId::authored("ines", "2")),
                continues: None,
            },
            automatic: Some(Automatic::Generated),
            suppress_automatic_reply: true,
            external_ids: vec!["<2@example.com>".to_owned()],
            identities: vec![Party {
                scheme: "email".to_owned(),
                address: "ada@example.com".to_owned(),
                name: Some("Ada".to_owned()),
                verified: false,
            }],
            fields: [("order".to_owned(), "4711".to_owned())].into(),
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
            identities: Vec::new(),
            fields: Default::default(),
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
            Body::ConsentChanged(ConsentChange {
                thread: "+1".to_owned(),
                given: false,
                reason: "STOP".to_owned(),
            }),
            Body::WatermarkMoved(Watermark {
                thread: "t".to_owned(),
                until: Moment::from_ms(1_767_225_600_123),
                state: DeliveryState::Read,
            }),
            Body::Parked { reason: String::new() },
            Body::Quarantined {
                reason: "bad".to_owned(),
            },
        ]
        .into_iter()
        .chain(changes().into_iter().map(|change| {
            Body::MessageChanged(Box::new(MessageChange {
                external_id: "x".to_owned(),
                change,
            }))
        }))
        .collect()
    }

    fn changes() -> Vec<Change> {
        vec![
            Change::Edited {
                text: "new".to_owned(),
                html: Some("<p>new</p>".to_owned()),
            },
            Change::Edited {
                text: String::new(),
                html: None,
            },
            Change::Deleted,
            Change::Reacted {
                by: "ann".to_owned(),
                emojis: vec!["👍".to_owned()],
                how: Reacting::Removed,
            },
            Change::Called(Call {
                state: Some(CallState::NoAnswer),
                duration_s: Some(0),
                missed: Some(false),
                transcription: Some(String::new()),
            }),
            Change::Called(Call::default()),
            Change::AttachmentsAdded {
                attachments: message().attachments,
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
            .map(|(name, value)| (name.as_ref(), value.as_str()))
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
