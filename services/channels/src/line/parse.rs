//! From LINE's webhooks to messages, changes and consent. One POST may bring many
//! events, each under an id of its own that a redelivery repeats.

use std::collections::BTreeMap;

use model::change::{Change, MessageChange};
use model::contact::Party;
use model::event::{Attachment, ConsentChange, Message};
use model::evidence::Evidence;
use model::id::sha256_hex;
use model::inbound::{Inbound, Realm, What};
use model::time::Moment;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::channel::{Answer, Parsed, Unparsed};
use crate::media::file_name;

/// Events that are known and say nothing to the desk.
const IGNORED: &[&str] = &[
    "memberJoined",
    "memberLeft",
    "videoPlayComplete",
    "beacon",
    "accountLink",
    "membership",
    "module",
    "activated",
    "deactivated",
    "botSuspended",
    "botResumed",
    "delivery",
];

/// Under these a message keeps what it can be answered and quoted by. Both are worth
/// nothing without the account's token.
pub const REPLY: &str = "reply/";
pub const QUOTE: &str = "quote/";

/// LINE puts far fewer into one.
const MAX_EVENTS: usize = 10_000;

#[derive(Deserialize)]
struct Posted {
    #[serde(default)]
    destination: Value,
    events: Vec<Value>,
}

/// What is read of every event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    r#type: String,
    #[serde(default)]
    mode: String,
    timestamp: Option<i64>,
    source: Option<Source>,
    #[serde(default)]
    webhook_event_id: String,
    reply_token: Option<String>,
    #[serde(default)]
    message: Value,
    #[serde(default)]
    unsend: Value,
    #[serde(default)]
    postback: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    user_id: Option<String>,
    group_id: Option<String>,
    room_id: Option<String>,
}

/// All events of one POST; those of groups only where they are listened to.
pub fn parse(groups: &[String], body: &[u8]) -> Result<Parsed, Unparsed> {
    let posted: Posted = serde_json::from_slice(body).map_err(|error| parked(&error))?;
    if posted.events.len() > MAX_EVENTS {
        return Err(parked(&"more events than LINE puts into one"));
    }
    let is_alone = posted.events.len() == 1;
    let mut events = Vec::new();
    for told in posted.events {
        let alone = || {
            json!({ "destination": posted.destination, "events": [&told] })
                .to_string()
                .into_bytes()
        };
        let mut found = match Event::deserialize(&told) {
            Ok(event) => of_event(groups, &event),
            Err(error) => Err(error.to_string()),
        }
        .unwrap_or_else(|reason| vec![unread(&told, reason)]);
        // What came alone is its own smallest piece, and keeps its signature.
        if !is_alone {
            for event in &mut found {
                event.raw = Some(alone());
            }
        }
        events.append(&mut found);
    }
    Ok(Parsed {
        events,
        answer: Answer {
            status: 200,
            content_type: "application/json",
            body: "{}".to_owned(),
        },
    })
}

/// What the event is here, or why nobody knows.
fn of_event(groups: &[String], told: &Event) -> Result<Vec<Inbound>, String> {
    if IGNORED.contains(&told.r#type.as_str()) {
        return Ok(Vec::new());
    }
    let source = told.source.as_ref().ok_or("an event without a source")?;
    let group = source.group_id.as_ref().or(source.room_id.as_ref());
    if group.is_some_and(|group| !groups.contains(group)) {
        return Ok(Vec::new());
    }
    let thread = group.or(source.user_id.as_ref()).ok_or("an event of nobody")?;
    let of = Told {
        event: told,
        source,
        thread,
    };
    match told.r#type.as_str() {
        "message" => of.said(),
        "postback" => Ok(of.pressed()),
        "unsend" => of.taken_back(),
        "follow" => Ok(of.consent(true, "added the account as a friend")),
        "unfollow" => Ok(of.consent(false, "blocked the account")),
        "join" => Ok(of.consent(true, "let the account into the group")),
        "leave" => Ok(of.consent(false, "removed the account from the group")),
        other => Err(format!("an event of a kind that is not known: {other}")),
    }
}

/// An event, and where it happened.
struct Told<'a> {
    event: &'a Event,
    source: &'a Source,
    thread: &'a str,
}

impl Told<'_> {
    fn said(&self) -> Result<Vec<Inbound>, String> {
        let message = &self.event.message;
        let id = text(message, "/id").ok_or("a message without an id")?;
        let kind = text(message, "/type").ok_or("a message of no kind")?;
        let quoted = text(message, "/quotedMessageId").map(str::to_owned);
        let mut external_ids = vec![id.to_owned()];
        external_ids.extend(self.reply_token());
        // The last: by it the desk has a message quoted.
        external_ids.extend(text(message, "/quoteToken").map(|token| format!("{QUOTE}{token}")));
        let message = Message {
            attachments: attachments(kind, id, message),
            evidence: self.evidence(quoted),
            external_ids,
            fields: fields(kind, message),
            ..self.message(words(kind, message))
        };
        Ok(vec![self.inbound(What::Message(Box::new(message)))])
    }

    /// A button of a template or a menu.
    fn pressed(&self) -> Vec<Inbound> {
        let postback = &self.event.postback;
        let data = text(postback, "/data").unwrap_or_default();
        let chosen = ["date", "time", "datetime", "newRichMenuAliasId"];
        let chosen = chosen
            .iter()
            .find_map(|name| text(postback, &format!("/params/{name}")));
        let mut external_ids = vec![self.event.webhook_event_id.clone()];
        external_ids.extend(self.reply_token());
        let message = Message {
            evidence: self.evidence(None),
            external_ids,
            fields: [("button".to_owned(), data.to_owned())].into(),
            ..self.message(chosen.unwrap_or(data).to_owned())
        };
        vec![self.inbound(What::Message(Box::new(message)))]
    }

    /// Nothing of it may be shown any more.
    fn taken_back(&self) -> Result<Vec<Inbound>, String> {
        let id = text(&self.event.unsend, "/messageId").ok_or("it does not say which message was taken back")?;
        let change = MessageChange {
            external_id: id.to_owned(),
            change: Change::Deleted,
        };
        Ok(vec![self.inbound(What::Changed(Box::new(change)))])
    }

    fn consent(&self, given: bool, reason: &str) -> Vec<Inbound> {
        let consent = ConsentChange {
            thread: self.thread.to_owned(),
            given,
            reason: reason.to_owned(),
        };
        vec![self.inbound(What::Consent(consent))]
    }

    fn message(&self, text: String) -> Message {
        // Members of a group need not be named; then the group speaks.
        let (address, verified) = match &self.source.user_id {
            Some(user) => (user.as_str(), true),
            None => (self.thread, false),
        };
        let sender = Party {
            scheme: "line".to_owned(),
            address: address.to_owned(),
            name: None,
            verified,
        };
        Message {
            // Another module answers meanwhile.
            suppress_automatic_reply: self.event.mode == "standby",
            ..Message::new(sender, text)
        }
    }

    fn evidence(&self, quoted: Option<String>) -> Evidence {
        Evidence {
            quoted_ids: quoted.into_iter().collect(),
            thread: Some(self.thread.to_owned()),
            ..Evidence::default()
        }
    }

    fn reply_token(&self) -> Option<String> {
        let token = self
            .event
            .reply_token
            .as_ref()
            .filter(|_| self.event.mode != "standby")?;
        Some(format!("{REPLY}{token}"))
    }

    fn inbound(&self, what: What) -> Inbound {
        Inbound {
            realm: Realm::Account,
            external_id: self.event.webhook_event_id.clone(),
            thread: self.thread.to_owned(),
            occurred_at: self.event.timestamp.map(Moment::from_ms),
            provider_sequence: None,
            raw: None,
            blobs: Vec::new(),
            what,
        }
    }
}

/// Kept for a person, while the others go on.
fn unread(told: &Value, reason: String) -> Inbound {
    Inbound {
        realm: Realm::Account,
        external_id: sha256_hex(told.to_string().as_bytes()),
        thread: "unread".to_owned(),
        occurred_at: None,
        provider_sequence: None,
        raw: None,
        blobs: Vec::new(),
        what: What::Parked { reason },
    }
}

/// What a message says. Words that are ours, not the customer's, stand in brackets.
fn words(kind: &str, message: &Value) -> String {
    match kind {
        "text" => text(message, "/text").unwrap_or_default().to_owned(),
        "location" => {
            let mut lines: Vec<String> = Vec::new();
            lines.extend(text(message, "/title").map(str::to_owned));
            lines.extend(text(message, "/address").map(str::to_owned));
            lines.extend(place(message).map(|(latitude, longitude)| format!("{latitude}, {longitude}")));
            format!("[location] {}", lines.join("\n"))
        }
        "sticker" => {
            let keywords = message["keywords"].as_array().into_iter().flatten();
            let keywords: Vec<&str> = keywords.filter_map(Value::as_str).take(3).collect();
            let said = text(message, "/text").map_or_else(|| keywords.join(", "), str::to_owned);
            format!("[sticker] {said}").trim_end().to_owned()
        }
        "image" | "video" | "audio" | "file" => String::new(),
        other => format!("[a message of the kind \"{other}\", which is not shown here]"),
    }
}

fn fields(kind: &str, message: &Value) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    if let Some((latitude, longitude)) = place(message).filter(|_| kind == "location") {
        fields.insert("location.latitude".to_owned(), latitude.to_string());
        fields.insert("location.longitude".to_owned(), longitude.to_string());
    }
    if kind == "sticker" {
        for (name, pointer) in [("sticker.package", "/packageId"), ("sticker.id", "/stickerId")] {
            fields.extend(text(message, pointer).map(|value| (name.to_owned(), value.to_owned())));
        }
    }
    fields
}

fn place(message: &Value) -> Option<(f64, f64)> {
    Some((message["latitude"].as_f64()?, message["longitude"].as_f64()?))
}

/// By its kind and id a file is fetched from LINE, or it lies elsewhere.
fn attachments(kind: &str, id: &str, message: &Value) -> Vec<Attachment> {
    let media_type = match kind {
        "image" => "image/jpeg",
        "video" => "video/mp4",
        "audio" => "audio/m4a",
        "file" => "application/octet-stream",
        _ => return Vec::new(),
    };
    let elsewhere = text(message, "/contentProvider/originalContentUrl")
        .filter(|_| text(message, "/contentProvider/type") == Some("external"));
    let source = elsewhere.map_or_else(|| format!("{kind}/{id}"), str::to_owned);
    let name = text(message, "/fileName").map_or_else(|| file_name(kind, media_type), str::to_owned);
    vec![Attachment {
        size_bytes: message["fileSize"].as_u64().unwrap_or(0),
        ..Attachment::at(name, media_type, source)
    }]
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
}

fn parked(reason: &impl std::fmt::Display) -> Unparsed {
    Unparsed::Parked {
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "C00000000000000000000000000000009";

    fn parse_all(body: &str) -> Result<Parsed, Unparsed> {
        parse(&[GROUP.to_owned()], body.as_bytes())
    }

    /// Each body of `testdata/` and what is made of it. To renew a snapshot, delete it
    /// and run the test.
    #[test]
    fn payloads_parse_as_before() {
        let count = crate::contract::snapshots("src/line/testdata", "json", |bytes| {
            let mut parsed = parse_all(std::str::from_utf8(bytes).unwrap());
            // Bytes are hard to read; another test sees to them.
            for event in parsed.iter_mut().flat_map(|parsed| &mut parsed.events) {
                event.raw = None;
            }
            format!("{parsed:#?}\n")
        });
        assert!(count >= 15, "{count}");
    }

    #[test]
    fn every_event_is_read_or_knowingly_not() {
        for kind in IGNORED {
            let body = format!(r#"{{"events":[{{"type":"{kind}","webhookEventId":"1"}}]}}"#);
            assert!(parse_all(&body).unwrap().events.is_empty(), "{kind}");
        }
        let source = r#""source":{"type":"user","userId":"U1"}"#;
        for event in [
            r#"{"type":"a_new_one","webhookEventId":"1",SOURCE}"#,
            r#"{"type":"message","webhookEventId":"1",SOURCE,"message":{}}"#,
            r#"{"type":"unsend","webhookEventId":"1",SOURCE}"#,
            r#"{"type":"message","webhookEventId":"1"}"#,
            r#"{"type":7}"#,
            "7",
        ] {
            let body = format!(r#"{{"events":[{}]}}"#, event.replace("SOURCE", source));
            let events = parse_all(&body).unwrap().events;
            assert!(matches!(events[0].what, What::Parked { .. }), "{event}: {events:?}");
        }
        for body in ["", "[]", "{}", r#"{"events":7}"#] {
            assert!(matches!(parse_all(body), Err(Unparsed::Parked { .. })), "{body}");
        }
        assert!(
            parse_all(r#"{"destination":"U1","events":[]}"#)
                .unwrap()
                .events
                .is_empty()
        );
    }

    #[test]
    fn each_of_many_parses_alone_again() {
        let event = |number: usize| {
            format!(
                r#"{{"type":"message","timestamp":{number},"webhookEventId":"E{number}","source":{{"userId":"U1"}},
                "message":{{"id":"{number}","type":"text","text":"Hello {number}"}}}}"#
            )
        };
        let events: Vec<String> = (0..1_000).map(event).collect();
        let body = format!(r#"{{"destination":"U9","events":[{}]}}"#, events.join(","));
        let parsed = parse_all(&body).unwrap();
        assert_eq!(parsed.events.len(), 1_000);
        for event in parsed.events.iter().step_by(99) {
            let raw = event.raw.as_ref().unwrap();
            let again = parse(&[], raw).unwrap().events.remove(0);
            let expected = Inbound {
                raw: None,
                ..event.clone()
            };
            assert_eq!(again, expected);
        }
    }
}
