//! From what Slack posts, or says over a socket, to events: the envelope, and what
//! people press and command. Both ways bring the same JSON, so ids agree.

use model::contact::Party;
use model::event::Message;
use model::evidence::Evidence;
use model::inbound::{Inbound, Realm, What};
use model::time::Moment;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::events::{self, SCHEME};
use crate::channel::{Answer, Input, Parsed, Unparsed};

/// Fields of one form; Slack sends about fifteen.
const MAX_FIELDS: usize = 1_000;
/// Of the challenge that is sent back.
const MAX_CHALLENGE_CHARS: usize = 1_000;

/// What people do in Slack's windows that we never open.
const IGNORED: &[&str] = &[
    "view_submission",
    "view_closed",
    "shortcut",
    "message_action",
    "block_suggestion",
];

/// An event, a press of a button, a command, or Slack's question whether we are we.
pub fn parse(input: &Input) -> Result<Parsed, Unparsed> {
    let told = read(input)?;
    match text(&told, "type") {
        "url_verification" => Ok(challenged(&told)),
        "event_callback" => events::parse(&told).map(taken),
        "app_rate_limited" => Err(parked("Slack lets events fall, for there are too many of them")),
        "block_actions" => pressed(&told).map(taken),
        kind if IGNORED.contains(&kind) => Ok(taken(Vec::new())),
        "" if told["command"].is_string() => commanded(&told).map(taken),
        // Slack asks whether our certificate is good.
        "" if told["ssl_check"].is_string() => Ok(taken(Vec::new())),
        _ => Err(parked("Slack sent something of a kind that is not known here")),
    }
}

/// The JSON of a body, or of the form around it; or the form itself, as JSON.
fn read(input: &Input) -> Result<Value, Unparsed> {
    if !is_form(input) {
        return json(&input.body);
    }
    let pairs = form_urlencoded::parse(&input.body).into_owned().take(MAX_FIELDS);
    let fields: Map<String, Value> = pairs.map(|(name, value)| (name, Value::String(value))).collect();
    match fields.get("payload").and_then(Value::as_str) {
        Some(payload) => json(payload.as_bytes()),
        None => Ok(Value::Object(fields)),
    }
}

fn json(bytes: &[u8]) -> Result<Value, Unparsed> {
    serde_json::from_slice(bytes).map_err(|_| parked("Slack sent no JSON"))
}

fn is_form(input: &Input) -> bool {
    let media_type = input.header("content-type").unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn challenged(told: &Value) -> Parsed {
    let challenge = text(told, "challenge").chars().take(MAX_CHALLENGE_CHARS).collect();
    Parsed {
        events: Vec::new(),
        answer: Answer {
            status: 200,
            content_type: "text/plain",
            body: challenge,
        },
    }
}

/// Somebody pressed a button, or chose from a list: says what stands on it.
fn pressed(told: &Value) -> Result<Vec<Inbound>, Unparsed> {
    let (container, action) = (&told["container"], &told["actions"][0]);
    let channel = text(container, "channel_id");
    let (on, at) = (text(container, "message_ts"), text(action, "action_ts"));
    if channel.is_empty() || !is_ts(on) || !is_ts(at) {
        // Of a window, not of a message.
        return Ok(Vec::new());
    }
    let labels = [
        &action["selected_option"]["text"]["text"],
        &action["text"]["text"],
        &action["value"],
        &action["action_id"],
    ];
    let said = labels.iter().find_map(|label| label.as_str()).unwrap_or_default();
    let parent = Some(text(container, "thread_ts")).filter(|parent| is_ts(parent));
    let parent = parent.or(Some(on).filter(|_| !events::is_direct(channel)));
    let user = text(&told["user"], "id");
    let said = Said {
        user,
        name: told["user"]["name"].as_str(),
        text: said.to_owned(),
        thread: events::thread(channel, user, parent),
        external_id: format!("{channel}/{on}/pressed/{at}"),
    };
    said.inbound(channel, occurred_at(at)).map(|event| vec![event])
}

/// A slash command. Its answer goes to the person alone, who may have given it where
/// the app may not write.
fn commanded(told: &Value) -> Result<Vec<Inbound>, Unparsed> {
    let trigger = text(told, "trigger_id");
    if trigger.is_empty() {
        return Err(parked("trigger_id is missing"));
    }
    let user = text(told, "user_id");
    let said = Said {
        user,
        name: told["user_name"].as_str(),
        text: format!("{} {}", text(told, "command"), text(told, "text"))
            .trim()
            .to_owned(),
        thread: events::thread("", user, None),
        external_id: format!("command/{trigger}"),
    };
    let channel = text(told, "channel_id");
    said.inbound(if channel.is_empty() { user } else { channel }, None)
        .map(|event| vec![event])
}

/// What a person says otherwise than by a message.
struct Said<'a> {
    user: &'a str,
    name: Option<&'a str>,
    text: String,
    thread: String,
    external_id: String,
}

impl Said<'_> {
    fn inbound(self, channel: &str, occurred_at: Option<Moment>) -> Result<Inbound, Unparsed> {
        if self.user.is_empty() {
            return Err(parked("who did it is missing"));
        }
        let sender = Party {
            scheme: SCHEME.to_owned(),
            address: self.user.to_owned(),
            name: self.name.map(ToOwned::to_owned),
            verified: true,
        };
        let message = Message {
            evidence: Evidence {
                thread: Some(self.thread),
                ..Evidence::default()
            },
            external_ids: vec![self.external_id.clone()],
            ..Message::new(sender, self.text)
        };
        Ok(inbound(
            self.external_id,
            channel,
            occurred_at,
            What::Message(Box::new(message)),
        ))
    }
}

/// One event. All of a channel go one way, because a reaction does not say in which
/// thread its message stands.
pub(super) fn inbound(external_id: String, channel: &str, occurred_at: Option<Moment>, what: What) -> Inbound {
    Inbound {
        realm: Realm::Account,
        external_id,
        thread: channel.to_owned(),
        occurred_at,
        provider_sequence: None,
        raw: None,
        blobs: Vec::new(),
        what,
    }
}

/// Whether it is Slack's time of a message, which is also its name in its channel.
pub(super) fn is_ts(ts: &str) -> bool {
    microseconds(ts).is_some()
}

/// When that was.
pub(super) fn occurred_at(ts: &str) -> Option<Moment> {
    microseconds(ts).map(|micros| Moment::from_ms(micros / 1_000))
}

/// `1767225600.000100`; a floating-point number would forget the end of it.
pub(super) fn microseconds(ts: &str) -> Option<i64> {
    let (seconds, fraction) = ts.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(seconds) || !is_number(fraction) || seconds.len() > 11 || fraction.len() != 6 {
        return None;
    }
    let (seconds, micros): (i64, i64) = (seconds.parse().ok()?, fraction.parse().ok()?);
    Some(seconds * 1_000_000 + micros)
}

/// A text of this name, or an empty one.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Slack sent what a person should look at.
pub(super) fn parked(reason: &str) -> Unparsed {
    Unparsed::Parked {
        reason: reason.to_owned(),
    }
}

fn taken(events: Vec<Inbound>) -> Parsed {
    Parsed {
        events,
        answer: Answer {
            status: 200,
            content_type: "text/plain",
            body: String::new(),
        },
    }
}

#[cfg(test)]
mod tests;
