use model::change::{Call, CallState, Change, MessageChange, Reacting};
use model::contact::Party;
use model::event::{
    Attachment, Automatic, ConsentChange, DeliveryReport, DeliveryState, Message, Raw, RawContent, Recipient, Watermark,
};
use model::evidence::{Evidence, Opened};
use model::id::{ConversationId, MessageId};

use super::proto::google::protobuf as wkt;
use proptest::prelude::*;

use super::*;
use crate::hints::{Hint, Typist};

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
            opened: Some(Opened::Message(MessageId::authored("ines", "2"))),
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
    // New ones come last, so that the names in `testdata/` stay.
    .chain([Body::AccountBroken {
        reason: "revoked".to_owned(),
    }])
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

/// An event of each kind lies in `testdata/`, as it was written when the kind was new:
/// the log keeps for thirty days what an older program wrote.
#[test]
fn what_was_written_can_still_be_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    for (index, body) in bodies().into_iter().enumerate() {
        let record = encode(event(body.clone()));
        let kind = record.headers[3].1.rsplit('.').next().unwrap();
        let path = folder.join(format!("{index:02}-{kind}.event"));
        if !path.exists() {
            std::fs::write(&path, &record.value).unwrap();
        }
        let written = std::fs::read(&path).unwrap();
        assert_eq!(decode(&written).unwrap(), event(body), "{}", path.display());
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let texts = proptest::collection::vec(".{0,20}", 8);
    let numbers = (any::<i64>(), any::<i64>(), any::<Option<i64>>());
    let raw = proptest::collection::vec(any::<u8>(), 0..40);
    let fields = proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..4);
    let kind = any::<prop::sample::Index>();
    (kind, texts, numbers, raw, fields).prop_map(|(kind, texts, numbers, raw, fields)| {
        let [account, thread, url, name, address, subject, text, more] = <[String; 8]>::try_from(texts).unwrap();
        let mut body = kind.get(&bodies()).clone();
        if let Body::MessageReceived(message) = &mut body {
            message.sender.address = address;
            message.sender.name = Some(name.clone());
            message.subject = Some(subject);
            message.text = text;
            message.external_ids.push(more.clone());
            message.fields = fields;
        }
        Event {
            // Without one it is refused.
            account: format!("a{account}"),
            thread_key: thread,
            occurred_at: Moment::from_ms(numbers.0),
            received_at: Moment::from_ms(numbers.1),
            provider_sequence: numbers.2,
            raw: Raw {
                content: RawContent::Inline(raw),
                method: String::new(),
                url,
                headers: vec![(name, more)],
            },
            ..event(body)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn what_is_written_is_what_is_read(event in any_event()) {
        prop_assert_eq!(decode(&encode(event.clone()).value).unwrap(), event);
    }

    #[test]
    fn hints_are_read_as_they_are_written(account in ".{0,20}", thread in ".{0,20}", numbers: (i64, i64), flag: bool) {
        let conversation_id = ConversationId::begun_by(&MessageId::authored("ines", "1"));
        let by = if flag { Typist::Desk } else { Typist::Visitor };
        let (epoch, last_sequence) = numbers;
        for hint in [
            Hint::Changed { account: account.clone(), thread: thread.clone(), conversation_id, epoch, last_sequence },
            Hint::Typing { account: account.clone(), thread: thread.clone(), by },
            Hint::Presence { account, thread, is_here: flag },
        ] {
            prop_assert_eq!(decode_hint(&encode_hint(&hint)), Some(hint));
        }
    }
}
