//! From the events of Messenger and Instagram to messages, changes and delivery
//! reports.

use model::change::{Change, MessageChange, Reacting};
use model::contact::Party;
use model::event::{DeliveryReport, DeliveryState, Message, Watermark};
use model::evidence::Evidence;
use model::id::{MessageId, sha256_hex};
use model::inbound::{Inbound, What};
use model::time::Moment;
use serde_json::{Value, json};

use super::Messaging;
use super::content::{self, Content};
use crate::channel::{Parsed, Unparsed};
use crate::meta::envelope::{self, Piece};
use crate::meta::{id, inbound, number, taken, text};

/// Messages of one delivery.
const MAX_MIDS: usize = 1_000;

/// Events that are known and say nothing to the desk.
const IGNORED: &[&str] = &[
    "account_linking",
    "app_roles",
    "game_play",
    "message_feedback",
    "messaging_feedback",
    "optin",
    "pass_thread_control",
    "pass_metadata",
    "referral",
    "request_thread_control",
    "take_thread_control",
];

/// All that one POST says, for this page or account.
pub fn parse(of: &Messaging, body: &[u8]) -> Result<Parsed, Unparsed> {
    let posted = envelope::read(body)?;
    let mut events = Vec::new();
    for piece in envelope::pieces(&posted, of.kind.object)? {
        events.append(&mut of_piece(of, &piece));
    }
    // What came alone is its own smallest piece, and keeps its signature.
    if let [only] = events.as_mut_slice() {
        only.raw = None;
    }
    Ok(taken(events))
}

fn of_piece(of: &Messaging, piece: &Piece<'_>) -> Vec<Inbound> {
    if is_test(piece) {
        return Vec::new();
    }
    if id(piece.entry).as_deref() != Some(of.id.as_str()) {
        return vec![piece.unread("it is for another page or account than this one's")];
    }
    if piece.list == "changes" {
        let field = text(piece.value, "/field").unwrap_or("none");
        return match field {
            "comments" | "live_comments" | "mentions" | "feed" | "story_insights" => Vec::new(),
            other => vec![piece.unread(format!("a field that is not known: {other}"))],
        };
    }
    let event = piece.value;
    match of_event(of, event) {
        Ok(found) => found.into_iter().map(|found| stamped(found, event, piece)).collect(),
        Err(reason) => vec![piece.unread(reason)],
    }
}

/// What the dashboard's button sends: another envelope, for nobody.
fn is_test(piece: &Piece<'_>) -> bool {
    piece.list == "changes" && id(piece.entry).as_deref() == Some("0")
}

fn stamped(mut found: Inbound, event: &Value, piece: &Piece<'_>) -> Inbound {
    found.occurred_at = number(&event["timestamp"]).map(Moment::from_ms);
    found.raw = Some(match &found.what {
        // One delivery may name many messages.
        What::Delivery(report) if event["delivery"]["mids"].is_array() => {
            let mut alone = event.clone();
            alone["delivery"]["mids"] = json!([report.external_id]);
            piece.alone(&alone)
        }
        _ => piece.alone(event),
    });
    found
}

/// What one event says, or why nobody can tell.
fn of_event(of: &Messaging, event: &Value) -> Result<Vec<Inbound>, &'static str> {
    let has = |name: &str| event[name].is_object();
    let is_echo = event["message"]["is_echo"] == true;
    let user = match is_echo {
        true => id(&event["recipient"]["id"]),
        false => id(&event["sender"]["id"]),
    };
    if IGNORED.iter().any(|name| has(name)) {
        return Ok(Vec::new());
    }
    if has("policy_enforcement") {
        return Err("Meta enforces its policy: see what it says");
    }
    let user = user.ok_or("an event of nobody")?;
    if has("message") {
        return of_message(of, &event["message"], &user, is_echo).map(|found| found.into_iter().collect());
    }
    if has("message_edit") {
        return edited(&event["message_edit"], &user).map(|found| vec![found]);
    }
    if has("postback") {
        return Ok(vec![postback(of, event, &user)]);
    }
    if has("reaction") {
        return reacted(event, &user).map(|found| vec![found]);
    }
    if has("delivery") {
        return Ok(delivered(&event["delivery"], &user));
    }
    if has("read") {
        return read(&event["read"], &user).map(|found| vec![found]);
    }
    Err("an event of a kind that is not known")
}

fn of_message(of: &Messaging, message: &Value, user: &str, is_echo: bool) -> Result<Option<Inbound>, &'static str> {
    let mid = text(message, "/mid").ok_or("a message without an id")?;
    if message["is_deleted"] == true {
        return Ok(Some(changed(&format!("{mid}/deleted"), user, mid, Change::Deleted)));
    }
    if is_echo && let Some(ours) = own(of, message) {
        return Ok(ours.map(|report| inbound(format!("{mid}/echo"), user, What::Delivery(report))));
    }
    let quoted = text(message, "/reply_to/mid");
    let mut said = said(of, content::of(message), user, mid);
    said.evidence.quoted_ids = quoted.map(str::to_owned).into_iter().collect();
    if is_echo {
        let ours = Party {
            scheme: Party::OURS.to_owned(),
            address: of.account.clone(),
            name: None,
            verified: true,
        };
        said.identities = vec![std::mem::replace(&mut said.sender, ours)];
    }
    Ok(Some(inbound(mid, user, What::Message(Box::new(said)))))
}

/// Whether what the page has said was said by us; and if it carries our name of it,
/// that it has left.
fn own(of: &Messaging, message: &Value) -> Option<Option<DeliveryReport>> {
    if let Some(ours) = text(message, "/metadata").and_then(MessageId::parse) {
        return Some(Some(DeliveryReport {
            external_id: ours.to_string(),
            state: DeliveryState::Sent,
            error: None,
        }));
    }
    let by = id(&message["app_id"]);
    (by.is_some() && by == of.app_id).then_some(None)
}

fn said(of: &Messaging, content: Content, user: &str, external_id: &str) -> Message {
    let sender = Party {
        scheme: of.kind.scheme.to_owned(),
        address: user.to_owned(),
        name: None,
        verified: true,
    };
    Message {
        attachments: content.attachments,
        evidence: Evidence {
            thread: Some(user.to_owned()),
            ..Evidence::default()
        },
        external_ids: vec![external_id.to_owned()],
        fields: content.fields,
        ..Message::new(sender, content.text)
    }
}

fn postback(of: &Messaging, event: &Value, user: &str) -> Inbound {
    let postback = &event["postback"];
    let mid = text(postback, "/mid").map(str::to_owned);
    // Old ones have no id: who, when and what make one.
    let mid = mid.unwrap_or_else(|| format!("postback/{}", sha256_hex(event.to_string().as_bytes())));
    let said = said(of, content::of_postback(postback), user, &mid);
    inbound(mid, user, What::Message(Box::new(said)))
}

fn edited(edit: &Value, user: &str) -> Result<Inbound, &'static str> {
    let mid = text(edit, "/mid").ok_or("an edit of no message")?;
    let count = number(&edit["num_edit"]).unwrap_or(0);
    let change = Change::Edited {
        text: text(edit, "/text").unwrap_or_default().to_owned(),
        html: None,
    };
    let mut edited = changed(&format!("{mid}/edit/{count}"), user, mid, change);
    edited.provider_sequence = Some(count);
    Ok(edited)
}

fn reacted(event: &Value, user: &str) -> Result<Inbound, &'static str> {
    let reaction = &event["reaction"];
    let mid = text(reaction, "/mid").ok_or("a reaction to no message")?;
    let is_taken_back = text(reaction, "/action") == Some("unreact");
    let emoji = text(reaction, "/emoji").or(text(reaction, "/reaction"));
    let change = Change::Reacted {
        by: user.to_owned(),
        emojis: emoji
            .filter(|_| !is_taken_back)
            .map(str::to_owned)
            .into_iter()
            .collect(),
        how: Reacting::Only,
    };
    let at = number(&event["timestamp"]).unwrap_or(0);
    let action = if is_taken_back { "unreact" } else { "react" };
    Ok(changed(&format!("{mid}/{action}/{user}/{at}"), user, mid, change))
}

fn changed(external_id: &str, user: &str, mid: &str, change: Change) -> Inbound {
    let told = MessageChange {
        external_id: mid.to_owned(),
        change,
    };
    inbound(external_id, user, What::Changed(Box::new(told)))
}

/// By the messages' names, where they come; else up to the moment that always comes.
fn delivered(delivery: &Value, user: &str) -> Vec<Inbound> {
    let mids = delivery["mids"].as_array().into_iter().flatten().take(MAX_MIDS);
    let mut found: Vec<Inbound> = mids
        .filter_map(Value::as_str)
        .map(|mid| reported(mid, user, DeliveryState::Delivered))
        .collect();
    if found.is_empty() {
        found.extend(watermark(&delivery["watermark"], user, DeliveryState::Delivered));
    }
    found
}

fn read(read: &Value, user: &str) -> Result<Inbound, &'static str> {
    match text(read, "/mid") {
        Some(mid) => Ok(reported(mid, user, DeliveryState::Read)),
        None => watermark(&read["watermark"], user, DeliveryState::Read).ok_or("a reading of nothing"),
    }
}

fn reported(mid: &str, user: &str, state: DeliveryState) -> Inbound {
    let report = DeliveryReport {
        external_id: mid.to_owned(),
        state,
        error: None,
    };
    inbound(format!("{mid}/{}", state.as_str()), user, What::Delivery(report))
}

fn watermark(until: &Value, user: &str, state: DeliveryState) -> Option<Inbound> {
    let until_ms = number(until)?;
    let watermark = Watermark {
        thread: user.to_owned(),
        until: Moment::from_ms(until_ms),
        state,
    };
    let external_id = format!("{user}/{}/{until_ms}", state.as_str());
    Some(inbound(external_id, user, What::Watermark(watermark)))
}
