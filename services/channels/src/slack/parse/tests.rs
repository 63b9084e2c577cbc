use super::*;
use crate::slack::signature::signed;

fn given(media_type: &str, body: &str) -> Input {
    signed("secret", 1_767_225_700, media_type, body)
}

fn of_json(value: &Value) -> Result<Parsed, Unparsed> {
    parse(&given("application/json", &value.to_string()))
}

/// An event in its envelope.
fn told(event: Value) -> Result<Parsed, Unparsed> {
    of_json(&serde_json::json!({
        "type": "event_callback", "team_id": "T1", "api_app_id": "A1", "event_id": "Ev1", "event_time": 1_767_225_600,
        "authorizations": [{ "team_id": "T1", "user_id": "UBOT", "is_bot": true }],
        "event": event,
    }))
}

/// Each payload of `testdata/` and what is made of it. To renew a snapshot, delete it
/// and run the test.
#[test]
fn payloads_parse_as_before() {
    for (extension, media_type) in [
        ("json", "application/json"),
        ("form", "application/x-www-form-urlencoded"),
    ] {
        let count = crate::contract::snapshots("src/slack/testdata", extension, |bytes| {
            let body = std::str::from_utf8(bytes).unwrap().trim_end();
            format!("{:#?}\n", parse(&given(media_type, body)))
        });
        assert!(count > 0, "no payloads of {extension}");
    }
}

/// Its external id and its thread.
fn placed(event: Value) -> Option<(String, String)> {
    let event = told(event).unwrap().events.into_iter().next()?;
    let What::Message(message) = event.what else {
        panic!("{event:?}");
    };
    Some((event.external_id, message.evidence.thread.unwrap()))
}

#[test]
fn a_message_has_its_place() {
    let check = |more: Value, id: &str, thread: &str| {
        let mut event = serde_json::json!({ "type": "message", "user": "U1", "text": "hi", "ts": "1767225600.000100" });
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(placed(event), Some((id.to_owned(), thread.to_owned())), "{more}");
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    check(
        json(r#"{"channel":"D1","channel_type":"im"}"#),
        "D1/1767225600.000100",
        "u1",
    );
    check(
        json(r#"{"channel":"D1","thread_ts":"1767225500.000001"}"#),
        "D1/1767225600.000100",
        "D1/1767225500.000001",
    );
    check(
        json(r#"{"channel":"C1"}"#),
        "C1/1767225600.000100",
        "C1/1767225600.000100",
    );
    check(
        json(r#"{"channel":"C1","type":"app_mention"}"#),
        "C1/1767225600.000100",
        "C1/1767225600.000100",
    );
    check(
        json(r#"{"channel":"C1","thread_ts":"1767225500.000001","subtype":"thread_broadcast"}"#),
        "C1/1767225600.000100",
        "C1/1767225500.000001",
    );
    // The same message, seen by another workspace of a shared channel.
    check(
        json(r#"{"channel":"C1","user_team":"T2","source_team":"T2","team":"T2"}"#),
        "C1/1767225600.000100",
        "C1/1767225600.000100",
    );
}

#[test]
fn our_own_words_come_back_as_what_became_of_them() {
    let own = model::id::MessageId::authored("agnes", "1");
    let event = |more: &str| {
        let mut event = serde_json::json!({ "type": "message", "channel": "C1", "text": "hi", "ts": "1767225600.000100",
            "metadata": { "event_type": "tributary_message", "event_payload": { "message": own.as_str() } } });
        let more: Value = serde_json::from_str(more).unwrap();
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        told(event).unwrap().events
    };
    for by in [
        r#"{"user":"UBOT"}"#,
        r#"{"bot_id":"B1","app_id":"A1"}"#,
        r#"{"bot_id":"B1","bot_profile":{"app_id":"A1"},"subtype":"bot_message"}"#,
    ] {
        let events = event(by);
        let What::Delivery(report) = &events[0].what else {
            panic!("{events:?}");
        };
        assert_eq!(report.external_id, own.as_str());
        let without = by.replacen('{', r#"{"metadata":null,"#, 1);
        assert_eq!(event(&without), []);
    }
    // Another's may say what it likes.
    let events = event(r#"{"user":"U1"}"#);
    assert!(matches!(events[0].what, What::Message(_)), "{events:?}");
}

#[test]
fn only_a_changed_text_is_an_edit() {
    let check = |now: &str, before: &str, expected: Option<&str>| {
        let (now, before): (Value, Value) = (
            serde_json::from_str(now).unwrap(),
            serde_json::from_str(before).unwrap(),
        );
        let event = serde_json::json!({ "type": "message", "subtype": "message_changed", "channel": "C1",
            "ts": "1767225700.000200", "event_ts": "1767225700.000200", "message": now, "previous_message": before });
        let events = told(event).unwrap().events;
        let found = events.first().map(|event| match &event.what {
            What::Changed(told) => match &told.change {
                model::change::Change::Edited { text, .. } => text.clone(),
                model::change::Change::Deleted => "deleted".to_owned(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        });
        assert_eq!(found.as_deref(), expected);
    };
    let message = |text: &str| format!(r#"{{"user":"U1","ts":"1767225600.000100","text":"{text}"}}"#);
    check(&message("new"), &message("old"), Some("new"));
    check(&message("old"), &message("old"), None);
    check(&message("new"), "null", None);
    let edited = r#"{"user":"U1","ts":"1767225600.000100","text":"a &amp; b","edited":{"ts":"1767225700.000000"}}"#;
    check(edited, "null", Some("a & b"));
    check(&message("new").replace("U1", "UBOT"), &message("old"), None);
    let stone = r#"{"subtype":"tombstone","user":"USLACKBOT","ts":"1767225600.000100","text":"Gone."}"#;
    check(stone, &message("old"), Some("deleted"));
    check(stone, &message("old").replace("U1", "UBOT"), None);
}

#[test]
fn what_is_no_concern_of_ours_is_taken_and_the_unknown_kept() {
    let check = |event: &str, expected: &str| {
        let found = match told(serde_json::from_str(event).unwrap()) {
            Ok(parsed) => format!("{} events", parsed.events.len()),
            Err(Unparsed::Parked { reason }) => reason,
            Err(other) => panic!("{other:?}"),
        };
        assert!(found.contains(expected), "{event}: {found}");
    };
    check(r#"{"type":"app_home_opened","user":"U1"}"#, "0 events");
    check(r#"{"type":"member_joined_channel","user":"U1"}"#, "0 events");
    check(r#"{"type":"file_shared","file_id":"F1"}"#, "0 events");
    check(
        r#"{"type":"reaction_added","user":"U1","item":{"type":"file"}}"#,
        "0 events",
    );
    check(
        r#"{"type":"tokens_revoked","tokens":{"oauth":["U1"],"bot":[]}}"#,
        "0 events",
    );
    check(r#"{"type":"one_that_may_come"}"#, "not known");
    check(r#"{}"#, "not known");
    let message = |subtype: &str| {
        format!(r#"{{"type":"message","channel":"C1","user":"U1","ts":"1.000001","subtype":"{subtype}"}}"#)
    };
    check(&message("channel_join"), "0 events");
    check(&message("channel_topic"), "0 events");
    check(&message("message_replied"), "0 events");
    check(&message("ekm_access_denied"), "key was withdrawn");
    check(&message("one_that_may_come"), "not known");
    check(&message("me_message"), "1 events");
    check(&message("").replace("U1", ""), "who wrote");
    check(&message("").replace("C1", ""), "channel is missing");
    check(&message("").replace("1.000001", "1.0001"), "ts is missing");
    check(&message("message_deleted"), "which message");
}

#[test]
fn the_end_of_the_app_breaks_its_account() {
    let check = |event: &str, expected: &str| {
        let events = told(serde_json::from_str(event).unwrap()).unwrap().events;
        let [Inbound { what, .. }] = events.as_slice() else {
            panic!("{events:?}");
        };
        let reason = expected.to_owned();
        assert_eq!(*what, What::Broken { reason }, "{event}");
    };
    let revoked = "the app's token was revoked";
    check(r#"{"type":"tokens_revoked","tokens":{"bot":["UBOT"]}}"#, revoked);
    check(r#"{"type":"tokens_revoked"}"#, revoked);
    check(
        r#"{"type":"app_uninstalled"}"#,
        "the app was taken out of the workspace",
    );
}

#[test]
fn other_envelopes_are_known_or_kept() {
    let check = |body: &str, expected: &str| {
        let found = match parse(&given("application/json", body)) {
            Ok(parsed) => format!("{} {}", parsed.answer.status, parsed.answer.body),
            Err(Unparsed::Parked { reason }) => reason,
            Err(other) => panic!("{other:?}"),
        };
        assert!(found.contains(expected), "{body}: {found}");
    };
    check(r#"{"type":"url_verification","challenge":"3eZbrw1a"}"#, "200 3eZbrw1a");
    check(r#"{"type":"url_verification"}"#, "200 ");
    check(
        r#"{"type":"app_rate_limited","minute_rate_limited":1518467820}"#,
        "lets events fall",
    );
    check(r#"{"type":"view_submission"}"#, "200 ");
    check(r#"{"type":"block_actions","container":{"type":"view"}}"#, "200 ");
    check(r#"{"type":"one_that_may_come"}"#, "not known");
    check("{}", "not known");
    check("[1]", "not known");
    check("no json", "no JSON");
    check(&"[".repeat(1_000), "no JSON");
    assert!(
        parse(&given("application/x-www-form-urlencoded", "ssl_check=1&token=x"))
            .unwrap()
            .events
            .is_empty()
    );
}

#[test]
fn a_command_is_the_same_by_post_and_by_socket() {
    let form = "command=%2Fhelp&text=order+%2342&user_id=U1&user_name=ann&channel_id=C1&trigger_id=1.2";
    let socket = r##"{"command":"/help","text":"order #42","user_id":"U1","user_name":"ann","channel_id":"C1","trigger_id":"1.2"}"##;
    let posted = parse(&given("application/x-www-form-urlencoded; charset=utf-8", form)).unwrap();
    let told = parse(&given("application/json", socket)).unwrap();
    assert_eq!(posted.events, told.events);
    let What::Message(message) = &posted.events[0].what else {
        panic!("{posted:?}");
    };
    assert_eq!(
        (message.text.as_str(), message.evidence.thread.as_deref()),
        ("/help order #42", Some("u1"))
    );
}

#[test]
fn times_are_read_to_the_microsecond() {
    let check = |ts: &str, expected: Option<i64>| assert_eq!(microseconds(ts), expected, "{ts}");
    check("1767225600.000100", Some(1_767_225_600_000_100));
    check("0.000001", Some(1));
    check("1767225600", None);
    check("1767225600.0001", None);
    check("1767225600.0001000", None);
    check("-1.000000", None);
    check("1.00000a", None);
    check("999999999999.000000", None);
    check("", None);
    assert_eq!(
        occurred_at("1767225600.999900"),
        Some(Moment::from_ms(1_767_225_600_999))
    );
}
