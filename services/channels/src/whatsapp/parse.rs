//! From WhatsApp's webhooks to messages, changes and delivery reports.

use model::change::{Change, MessageChange, Reacting};
use model::contact::Party;
use model::event::{Automatic, DeliveryReport, DeliveryState, Message};
use model::evidence::Evidence;
use model::id::MessageId;
use model::inbound::{Inbound, What};
use serde_json::{Value, json};

use super::content::{self, Content};
use crate::channel::{Parsed, Unparsed};
use crate::meta::envelope::{self, Piece};
use crate::meta::errors::told;
use crate::meta::{inbound, seconds, taken, text};
use crate::phone::is_number;

const OBJECT: &str = "whatsapp_business_account";
/// The field of messages, and that of what people of ours write in the app of a number
/// that is in the app as well.
const MESSAGES: &str = "messages";
const ECHOES: &str = "smb_message_echoes";
/// What a delivery report says of a part that more follow.
pub const MORE: &str = "/more";

/// Fields of the webhook that are known and say nothing to the desk.
const IGNORED: &[&str] = &[
    "account_alerts",
    "account_review_update",
    "account_settings_update",
    "account_update",
    "business_capability_update",
    "calls",
    "flows",
    "history",
    "message_template_components_update",
    "message_template_quality_update",
    "message_template_status_update",
    "payment_configuration_update",
    "phone_number_name_update",
    "phone_number_quality_update",
    "security",
    "smb_app_state_sync",
    "template_category_update",
    "user_id_update",
    "user_preferences",
];

/// All that one POST says, for the number of this id; the account is ours.
pub fn parse(account: &str, number_id: &str, body: &[u8]) -> Result<Parsed, Unparsed> {
    let posted = envelope::read(body)?;
    let mut events = Vec::new();
    for piece in envelope::pieces(&posted, OBJECT)? {
        events.append(&mut of_piece(account, number_id, &piece));
    }
    // What came alone is its own smallest piece, and keeps its signature.
    if let [only] = events.as_mut_slice() {
        only.raw = None;
    }
    Ok(taken(events))
}

fn of_piece(account: &str, number_id: &str, piece: &Piece<'_>) -> Vec<Inbound> {
    let field = text(piece.value, "/field").unwrap_or("none");
    if IGNORED.contains(&field) {
        return Vec::new();
    }
    if field != MESSAGES && field != ECHOES {
        return vec![piece.unread(format!("a field that is not known: {field}"))];
    }
    let value = &piece.value["value"];
    if text(value, "/metadata/phone_number_id") != Some(number_id) {
        return vec![piece.unread("it is for another number than this account's")];
    }
    let mut events = Vec::new();
    for message in value["messages"].as_array().into_iter().flatten() {
        let contact = contact_of(value, message);
        let alone = piece.alone(&around(MESSAGES, value, contact, "messages", message));
        events.extend(of_message(message, contact).map(|event| with_raw(event, message, &alone)));
    }
    for status in value["statuses"].as_array().into_iter().flatten() {
        let alone = piece.alone(&around(MESSAGES, value, &Value::Null, "statuses", status));
        events.extend(of_status(status).map(|event| with_raw(event, status, &alone)));
    }
    for echo in value["message_echoes"].as_array().into_iter().flatten() {
        let alone = piece.alone(&around(ECHOES, value, &Value::Null, "message_echoes", echo));
        events.extend(of_echo(account, echo).map(|event| with_raw(event, echo, &alone)));
    }
    for error in value["errors"].as_array().into_iter().flatten() {
        events.push(piece.unread(format!("an error that is no message's: {}", told(error))));
    }
    let lists = ["messages", "statuses", "message_echoes"];
    match events.is_empty() && !lists.iter().any(|list| value[list].is_array()) {
        true => vec![piece.unread("neither messages nor statuses")],
        false => events,
    }
}

/// One thing with what it needs around it.
fn around(field: &str, value: &Value, contact: &Value, list: &str, thing: &Value) -> Value {
    let mut around = json!({ "messaging_product": "whatsapp", "metadata": value["metadata"] });
    if !contact.is_null() {
        around["contacts"] = json!([contact]);
    }
    around[list] = json!([thing]);
    json!({ "field": field, "value": around })
}

fn with_raw(mut event: Inbound, thing: &Value, alone: &[u8]) -> Inbound {
    event.occurred_at = seconds(&thing["timestamp"]);
    event.raw = Some(alone.to_vec());
    event
}

/// What the webhook says of whoever wrote it.
fn contact_of<'a>(value: &'a Value, message: &Value) -> &'a Value {
    let contacts = value["contacts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_sender = |contact: &&Value| {
        let is_same =
            |theirs: &str, ours: &str| text(contact, theirs).is_some_and(|id| text(message, ours) == Some(id));
        is_same("/wa_id", "/from") || is_same("/user_id", "/from_user_id")
    };
    match (contacts.iter().find(is_sender), contacts) {
        (Some(contact), _) => contact,
        (None, [only]) => only,
        (None, _) => &Value::Null,
    }
}

/// Who writes: by the number that WhatsApp has verified, and by the id that this
/// business knows the user by. Either may be missing.
struct User {
    phone: Option<String>,
    id: Option<String>,
    name: Option<String>,
}

impl User {
    fn of(message: &Value, contact: &Value) -> Self {
        let digits = text(message, "/from").or(text(contact, "/wa_id"));
        let id = text(message, "/from_user_id").or(text(contact, "/user_id"));
        let name = text(contact, "/profile/name").or(text(contact, "/profile/username"));
        Self {
            phone: digits.and_then(phone),
            id: id.map(str::to_owned),
            name: name.map(str::to_owned),
        }
    }

    /// The name of their thread, which is where they are answered.
    fn thread(&self) -> Option<&str> {
        self.phone.as_deref().or(self.id.as_deref())
    }

    fn parties(self) -> Option<(Party, Vec<Party>)> {
        let party = |scheme: &str, address: String| Party {
            scheme: scheme.to_owned(),
            address,
            name: self.name.clone(),
            verified: true,
        };
        let phone = self.phone.map(|phone| party("phone", phone));
        match (self.id, phone) {
            (Some(id), phone) => Some((party("whatsapp", id), phone.into_iter().collect())),
            (None, Some(phone)) => Some((phone, Vec::new())),
            (None, None) => None,
        }
    }
}

/// As it is written everywhere else.
fn phone(digits: &str) -> Option<String> {
    let phone = format!("+{}", dialled(digits.trim_start_matches('+')));
    is_number(&phone).then_some(phone)
}

/// WhatsApp knows some users by other digits than those that are dialled: in Brazil
/// without the nine that mobile numbers were given later, in Mexico with a one that
/// they have no more. It takes the dialled ones to send to.
fn dialled(digits: &str) -> String {
    match (digits.as_bytes(), digits.len()) {
        ([b'5', b'2', b'1', ..], 13) => format!("52{}", &digits[3..]),
        ([b'5', b'5', _, _, b'6'..=b'9', ..], 12) => format!("{}9{}", &digits[..4], &digits[4..]),
        _ => digits.to_owned(),
    }
}

fn of_message(message: &Value, contact: &Value) -> Option<Inbound> {
    let parked = |reason: &str| {
        let what = What::Parked {
            reason: reason.to_owned(),
        };
        Some(inbound(text(message, "/id").unwrap_or("without id"), "unread", what))
    };
    let kind = text(message, "/type").unwrap_or_default();
    let user = User::of(message, contact);
    let (Some(id), Some(thread)) = (text(message, "/id"), user.thread().map(str::to_owned)) else {
        return parked("a message without an id or a sender");
    };
    if message["group_id"].is_string() {
        return parked("a message of a group");
    }
    match kind {
        // They have opened the chat, and said nothing.
        "request_welcome" => None,
        "reaction" | "edit" | "revoke" => match changed(kind, &message[kind], &thread) {
            Some(change) => Some(inbound(id, &thread, What::Changed(Box::new(change)))),
            None => parked("a change of no message"),
        },
        _ => {
            let message = said(kind, message, id, user, &thread)?;
            Some(inbound(id, &thread, What::Message(Box::new(message))))
        }
    }
}

/// What one of ours has written in the app: the same to its reader, whoever wrote it.
fn of_echo(account: &str, echo: &Value) -> Option<Inbound> {
    let mut theirs = echo.clone();
    theirs["from"] = echo["to"].clone();
    if text(echo, "/type") == Some("system") {
        // WhatsApp's own words, which nobody of ours has written.
        return None;
    }
    let mut event = of_message(&theirs, &Value::Null)?;
    match &mut event.what {
        What::Message(message) => {
            let ours = Party {
                scheme: Party::OURS.to_owned(),
                address: account.to_owned(),
                name: None,
                verified: true,
            };
            message
                .identities
                .insert(0, std::mem::replace(&mut message.sender, ours));
        }
        What::Changed(told) => {
            if let Change::Reacted { by, .. } = &mut told.change {
                account.clone_into(by);
            }
        }
        _ => {}
    }
    Some(event)
}

fn said(kind: &str, message: &Value, id: &str, user: User, thread: &str) -> Option<Message> {
    let (sender, mut identities) = user.parties()?;
    let Content {
        text: said,
        attachments,
        fields,
    } = content::of(kind, message);
    let is_system = kind == "system";
    if is_system {
        // WhatsApp says that the one number is the other now.
        let moved = text(message, "/system/wa_id").and_then(phone);
        identities.extend(moved.map(|address| Party {
            scheme: "phone".to_owned(),
            address,
            ..sender.clone()
        }));
    }
    Some(Message {
        attachments,
        evidence: Evidence {
            thread: Some(thread.to_owned()),
            quoted_ids: text(message, "/context/id").map(str::to_owned).into_iter().collect(),
            ..Evidence::default()
        },
        automatic: is_system.then_some(Automatic::Command),
        external_ids: vec![id.to_owned()],
        identities,
        fields,
        ..Message::new(sender, said)
    })
}

fn changed(kind: &str, body: &Value, thread: &str) -> Option<MessageChange> {
    let original = text(body, "/message_id").or(text(body, "/original_message_id"))?;
    let change = match kind {
        "reaction" => Change::Reacted {
            by: thread.to_owned(),
            // None: it is taken back.
            emojis: text(body, "/emoji").map(str::to_owned).into_iter().collect(),
            how: Reacting::Only,
        },
        "edit" => {
            let edited = &body["message"];
            let content = content::of(text(edited, "/type").unwrap_or("text"), edited);
            Change::Edited {
                text: content.text,
                html: None,
            }
        }
        _ => Change::Deleted,
    };
    Some(MessageChange {
        external_id: original.to_owned(),
        change,
    })
}

/// What became of a message of ours. Our own name of it comes back in
/// `biz_opaque_callback_data`, so a report finds it that overtakes the answer to its
/// sending.
fn of_status(status: &Value) -> Option<Inbound> {
    let (id, state_name) = (text(status, "/id")?, text(status, "/status")?);
    let state = match state_name {
        "sent" => DeliveryState::Sent,
        "delivered" => DeliveryState::Delivered,
        "read" | "played" => DeliveryState::Read,
        "failed" => DeliveryState::Failed,
        // On its way there, and what may come.
        _ => return None,
    };
    let own = text(status, "/biz_opaque_callback_data").unwrap_or_default();
    let (own, has_more) = match own.strip_suffix(MORE) {
        Some(own) => (own, true),
        None => (own, false),
    };
    // Of a text in parts the last one says that it arrived, each that it did not.
    if has_more && state != DeliveryState::Failed {
        return None;
    }
    let external_id = match MessageId::parse(own) {
        Some(own) => own.to_string(),
        None => id.to_owned(),
    };
    let error = (state == DeliveryState::Failed).then(|| match status["errors"].get(0) {
        Some(error) => told(error),
        None => "WhatsApp does not say why".to_owned(),
    });
    let to = text(status, "/recipient_id").and_then(phone);
    let thread = to.or_else(|| text(status, "/recipient_user_id").map(str::to_owned));
    let report = DeliveryReport {
        external_id,
        state,
        error,
    };
    let thread = thread.as_deref().unwrap_or(id);
    Some(inbound(format!("{id}/{state_name}"), thread, What::Delivery(report)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: &str = "200000000000002";

    /// Each payload of `testdata/` and what is made of it. To renew a snapshot, delete
    /// it and run the test.
    #[test]
    fn payloads_parse_as_before() {
        crate::meta::snapshots("src/whatsapp/testdata", |bytes| parse("wa", NUMBER, bytes));
    }

    fn posted(value: Value) -> Vec<Inbound> {
        let mut value = value;
        value["metadata"] = json!({ "phone_number_id": NUMBER });
        let change = json!({ "field": "messages", "value": value });
        let posted = json!({ "object": OBJECT, "entry": [{ "id": "1", "changes": [change] }] });
        parse("wa", NUMBER, posted.to_string().as_bytes()).unwrap().events
    }

    #[test]
    fn what_is_written_in_the_app_is_ours() {
        let echo = json!({ "from": "15550001111", "to": "15552223333", "id": "wamid.1", "timestamp": "1",
            "type": "text", "text": { "body": "We have called them." } });
        let value = json!({ "metadata": { "phone_number_id": NUMBER }, "message_echoes": [echo] });
        let change = json!({ "field": ECHOES, "value": value });
        let posted = json!({ "object": OBJECT, "entry": [{ "id": "1", "changes": [change, change] }] });
        let events = parse("wa", NUMBER, posted.to_string().as_bytes()).unwrap().events;
        for mut event in events {
            let What::Message(message) = &event.what else {
                panic!("{event:?}");
            };
            assert_eq!(
                (message.sender.scheme.as_str(), event.thread.as_str()),
                ("account", "+15552223333")
            );
            assert_eq!(message.identities[0].address, "+15552223333");
            assert_eq!(message.text, "We have called them.");
            let raw = event.raw.take().unwrap();
            assert_eq!(parse("wa", NUMBER, &raw).unwrap().events, [event]);
        }
    }

    #[test]
    fn what_is_done_in_the_app_is_done_by_us() {
        let echoed = |kind: &str, body: Value| {
            let mut echo = json!({ "from": "15550001111", "to": "15552223333", "id": "wamid.2", "timestamp": "1",
                "type": kind });
            echo[kind] = body;
            of_echo("wa", &echo)
        };
        let reacted = echoed("reaction", json!({ "message_id": "wamid.1", "emoji": "x" })).unwrap();
        let What::Changed(told) = &reacted.what else {
            panic!("{reacted:?}");
        };
        assert!(
            matches!(&told.change, Change::Reacted { by, .. } if by == "wa"),
            "{told:?}"
        );
        assert_eq!(echoed("system", json!({ "body": "The number has changed." })), None);
        assert_eq!(echoed("request_welcome", json!({})), None);
    }

    #[test]
    fn whoever_writes_is_known_by_number_and_id() {
        let check = |from: Value, contact: Value, expected: (&str, &str, usize, &str)| {
            let mut message = json!({ "id": "wamid.1", "timestamp": "1", "type": "text", "text": { "body": "x" } });
            for (name, value) in from.as_object().unwrap() {
                message[name] = value.clone();
            }
            let events = posted(json!({ "messages": [message], "contacts": [contact] }));
            let What::Message(message) = &events[0].what else {
                panic!("{events:?}");
            };
            let sender = &message.sender;
            let found = (
                sender.scheme.as_str(),
                sender.address.as_str(),
                message.identities.len(),
                events[0].thread.as_str(),
            );
            assert_eq!(found, expected);
            assert!(sender.verified && message.identities.iter().all(|party| party.verified));
        };
        let phone = json!({ "from": "15552223333" });
        check(
            phone.clone(),
            json!({ "wa_id": "15552223333" }),
            ("phone", "+15552223333", 0, "+15552223333"),
        );
        check(
            phone,
            json!({ "wa_id": "15552223333", "user_id": "US.9" }),
            ("whatsapp", "US.9", 1, "+15552223333"),
        );
        // Who has a user name shows no number.
        check(
            json!({ "from_user_id": "US.9" }),
            json!({ "user_id": "US.9" }),
            ("whatsapp", "US.9", 0, "US.9"),
        );
        check(
            json!({ "from": "", "from_user_id": "US.9" }),
            json!({ "wa_id": "", "user_id": "US.9" }),
            ("whatsapp", "US.9", 0, "US.9"),
        );
    }

    #[test]
    fn numbers_are_those_that_are_dialled() {
        let check = |wa_id: &str, expected: Option<&str>| assert_eq!(phone(wa_id).as_deref(), expected, "{wa_id}");
        check("15552223333", Some("+15552223333"));
        check("+15552223333", Some("+15552223333"));
        // Brazil: a mobile of before, one of now, a landline.
        check("551187654321", Some("+5511987654321"));
        check("5511987654321", Some("+5511987654321"));
        check("551132654321", Some("+551132654321"));
        // Mexico: with the one, and without.
        check("5215512345678", Some("+525512345678"));
        check("525512345678", Some("+525512345678"));
        check("5215é12345678", None);
        check("", None);
    }

    #[test]
    fn states_are_reported_under_our_own_name() {
        let own = MessageId::authored("agnes", "1");
        let check = |status: &str, data: &str, expected: Option<(DeliveryState, &str)>| {
            let status = json!({ "id": "wamid.1", "status": status, "timestamp": "1", "recipient_id": "15552223333",
                "biz_opaque_callback_data": data });
            let events = posted(json!({ "statuses": [status] }));
            let found = events.first().map(|event| match &event.what {
                What::Delivery(report) => (report.state, report.external_id.as_str()),
                other => panic!("{other:?}"),
            });
            assert_eq!(found, expected, "{status} {data}");
        };
        let name = own.as_str();
        let more = format!("{own}{MORE}");
        check("sent", name, Some((DeliveryState::Sent, name)));
        check("delivered", name, Some((DeliveryState::Delivered, name)));
        check("read", name, Some((DeliveryState::Read, name)));
        check("played", name, Some((DeliveryState::Read, name)));
        check("failed", name, Some((DeliveryState::Failed, name)));
        check("a-new-one", name, None);
        check("delivered", "", Some((DeliveryState::Delivered, "wamid.1")));
        check("delivered", "tkt-42", Some((DeliveryState::Delivered, "wamid.1")));
        check("delivered", &more, None);
        check("failed", &more, Some((DeliveryState::Failed, name)));
    }

    #[test]
    fn a_thousand_things_of_one_post_are_a_thousand_events() {
        let message = |index: usize| {
            json!({ "id": format!("wamid.{index}"), "from": format!("1555{index:07}"), "timestamp": "1",
                "type": "text", "text": { "body": "x" } })
        };
        let messages: Vec<Value> = (0..1_000).map(message).collect();
        let contacts: Vec<Value> = (0..1_000)
            .map(|index| json!({ "wa_id": format!("1555{index:07}") }))
            .collect();
        let events = posted(json!({ "messages": messages, "contacts": contacts }));
        assert_eq!(events.len(), 1_000);
        // Each comes out of its own piece again, the same.
        for event in events.iter().step_by(100) {
            let raw = event.raw.as_ref().unwrap();
            assert!(raw.len() < 600, "{}", raw.len());
            let mut again = parse("wa", NUMBER, raw).unwrap().events;
            again[0].raw = event.raw.clone();
            assert_eq!(again, std::slice::from_ref(event));
        }
    }

    #[test]
    fn what_is_not_known_is_kept_and_stops_nothing() {
        let parked = |events: &[Inbound]| {
            let is_parked = |event: &&Inbound| matches!(event.what, What::Parked { .. });
            events.iter().filter(is_parked).count()
        };
        let good = json!({ "id": "wamid.1", "from": "15552223333", "timestamp": "1", "type": "text", "text": { "body": "x" } });
        let group =
            json!({ "id": "wamid.2", "from": "15552223333", "timestamp": "1", "type": "text", "group_id": "g" });
        let nobody = json!({ "id": "wamid.3", "timestamp": "1", "type": "text" });
        let events = posted(json!({ "messages": [group, nobody, good], "errors": [{ "code": 1, "title": "No" }] }));
        assert_eq!((events.len(), parked(&events)), (4, 3), "{events:?}");
        let events = posted(json!({ "something": [] }));
        assert_eq!((events.len(), parked(&events)), (1, 1), "{events:?}");
        for (field, expected) in [("flows", 0), ("a_new_one", 1)] {
            let change = json!({ "field": field, "value": {} });
            let posted = json!({ "object": OBJECT, "entry": [{ "id": "1", "changes": [change] }] });
            let events = parse("wa", NUMBER, posted.to_string().as_bytes()).unwrap().events;
            assert_eq!((events.len(), parked(&events)), (expected, expected), "{field}");
        }
        let events = parse("wa", "1", &posted_for(NUMBER)).unwrap().events;
        assert_eq!((events.len(), parked(&events)), (1, 1), "{events:?}");
    }

    fn posted_for(number: &str) -> Vec<u8> {
        let value = json!({ "metadata": { "phone_number_id": number }, "messages": [{ "id": "wamid.1" }] });
        let change = json!({ "field": "messages", "value": value });
        json!({ "object": OBJECT, "entry": [{ "id": "1", "changes": [change] }] })
            .to_string()
            .into_bytes()
    }
}
