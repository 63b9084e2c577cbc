//! What stands in an `event_callback`: messages, what becomes of them, reactions,
//! and the app's own fate.

use model::change::{Change, MessageChange, Reacting};
use model::contact::Party;
use model::event::{Attachment, Automatic, DeliveryReport, DeliveryState, Message};
use model::evidence::Evidence;
use model::id::MessageId;
use model::inbound::{Inbound, What};
use model::time::Moment;
use serde_json::Value;

use super::mrkdwn;
use super::parse::{inbound, is_ts, microseconds, occurred_at, parked, text};
use crate::channel::Unparsed;

/// Of the addresses of people.
pub const SCHEME: &str = "slack";
/// What stands before a file's id in an attachment's source.
pub const FILE: &str = "file:";
/// Of our messages' metadata.
pub const EVENT_TYPE: &str = "tributary_message";

/// Files of one message; Slack takes ten.
const MAX_FILES: usize = 50;
/// The sender of Slack's own words.
const SLACKBOT: &str = "USLACKBOT";

/// Messages that somebody wrote.
const WRITTEN: &[&str] = &["", "file_share", "thread_broadcast", "me_message", "bot_message"];
/// Messages that Slack writes about a channel and what happens in it.
const NOTICES: &[&str] = &[
    "channel_",
    "group_",
    "bot_add",
    "bot_remove",
    "message_replied",
    "reply_broadcast",
    "pinned_item",
    "unpinned_item",
    "reminder_",
    "file_comment",
    "file_mention",
    "huddle_thread",
    "sh_room_",
    "joiner_notification",
    "assistant_app_thread",
    "document_mention",
    "tombstone",
];
/// Events of no concern to a desk, whoever has subscribed to them.
const IGNORED: &[&str] = &[
    "app_home_opened",
    "app_installed",
    "app_requested",
    "assistant_thread_",
    "bot_",
    "call_",
    "channel_",
    "dnd_",
    "email_domain_changed",
    "emoji_changed",
    "file_",
    "function_executed",
    "grid_migration_",
    "group_",
    "im_",
    "invite_requested",
    "link_shared",
    "member_",
    "message_metadata_",
    "pin_",
    "scope_",
    "shared_channel_invite_",
    "star_",
    "subteam_",
    "team_",
    "user_",
    "workflow_",
];

/// The events of one envelope: none, or one, rarely more.
pub fn parse(told: &Value) -> Result<Vec<Inbound>, Unparsed> {
    let event = &told["event"];
    match text(event, "type") {
        "message" | "app_mention" => message(told, event),
        "reaction_added" => reacted(told, event, Reacting::Added),
        "reaction_removed" => reacted(told, event, Reacting::Removed),
        "app_uninstalled" | "app_uninstalled_team" => broken(told, "the app was taken out of the workspace"),
        "tokens_revoked" => match event["tokens"]["bot"].as_array() {
            // Somebody's own, which we do not use.
            Some(bots) if bots.is_empty() => Ok(Vec::new()),
            _ => broken(told, "the app's token was revoked"),
        },
        kind if is_listed(IGNORED, kind) => Ok(Vec::new()),
        _ => Err(parked("Slack sent an event of a kind that is not known here")),
    }
}

/// Nothing leaves any more until a person has seen to it.
fn broken(told: &Value, reason: &str) -> Result<Vec<Inbound>, Unparsed> {
    let what = What::Broken {
        reason: reason.to_owned(),
    };
    let seconds = told["event_time"].as_i64();
    let at = seconds.map(|seconds| Moment::from_ms(seconds.saturating_mul(1_000)));
    // Without an id it is parked.
    Ok(vec![inbound(text(told, "event_id").to_owned(), "app", at, what)])
}

/// The conversation's name: a person's direct messages, or one thread of a channel.
pub fn thread(channel: &str, user: &str, parent: Option<&str>) -> String {
    match parent {
        Some(ts) => format!("{channel}/{ts}"),
        // As the desk names it, which compares addresses in lower case.
        None => user.to_lowercase(),
    }
}

/// Whether a channel is somebody's direct messages with the app.
pub fn is_direct(channel: &str) -> bool {
    channel.starts_with('D')
}

fn message(told: &Value, event: &Value) -> Result<Vec<Inbound>, Unparsed> {
    let channel = text(event, "channel");
    if channel.is_empty() {
        return Err(parked("the message's channel is missing"));
    }
    match text(event, "subtype") {
        "message_changed" => changed(told, event, channel),
        "message_deleted" => deleted(told, event, channel),
        "ekm_access_denied" => Err(parked("Slack may not show the message: its key was withdrawn")),
        kind if WRITTEN.contains(&kind) && is_own(told, event) => Ok(returned(event, channel)),
        kind if WRITTEN.contains(&kind) => written(event, channel),
        kind if is_listed(NOTICES, kind) => Ok(Vec::new()),
        _ => Err(parked("Slack sent a message of a kind that is not known here")),
    }
}

/// Whether the app wrote it: by the app's id, or as the app's person.
fn is_own(told: &Value, message: &Value) -> bool {
    let (app, user) = (text(told, "api_app_id"), text(message, "user"));
    let apps = [text(message, "app_id"), text(&message["bot_profile"], "app_id")];
    let is_ours = |authorization: &Value| authorization["is_bot"] == true && text(authorization, "user_id") == user;
    let ours = told["authorizations"].as_array();
    let is_by_us = !user.is_empty() && ours.is_some_and(|ours| ours.iter().any(is_ours));
    is_by_us || (!app.is_empty() && apps.contains(&app))
}

/// A message of ours comes back: it has left, whatever became of Slack's answer.
fn returned(event: &Value, channel: &str) -> Vec<Inbound> {
    let metadata = &event["metadata"];
    let own = text(&metadata["event_payload"], "message");
    let ts = text(event, "ts");
    if metadata["event_type"] != EVENT_TYPE || MessageId::parse(own).is_none() || !is_ts(ts) {
        return Vec::new();
    }
    let report = DeliveryReport {
        external_id: own.to_owned(),
        state: DeliveryState::Sent,
        error: None,
    };
    let event = inbound(
        format!("{channel}/{ts}"),
        channel,
        occurred_at(ts),
        What::Delivery(report),
    );
    vec![event]
}

fn written(event: &Value, channel: &str) -> Result<Vec<Inbound>, Unparsed> {
    let ts = text(event, "ts");
    if !is_ts(ts) {
        return Err(parked("the message's ts is missing"));
    }
    let sender = sender(event).ok_or_else(|| parked("who wrote the message is missing"))?;
    let is_machine = !text(event, "bot_id").is_empty() || sender.address == SLACKBOT;
    let parent = Some(text(event, "thread_ts")).filter(|parent| is_ts(parent));
    // In a channel each message may begin a thread; in direct messages people go on.
    let parent = parent.or(Some(ts).filter(|_| !is_direct(channel)));
    let external_id = format!("{channel}/{ts}");
    let message = Message {
        evidence: Evidence {
            thread: Some(thread(channel, &sender.address, parent)),
            ..Evidence::default()
        },
        attachments: files(event),
        automatic: is_machine.then_some(Automatic::Generated),
        external_ids: vec![external_id.clone()],
        ..Message::new(sender, said(event))
    };
    let added = files_of_mention(event, channel, &external_id, &message.attachments);
    let message = numbered(external_id, channel, ts, What::Message(Box::new(message)));
    Ok(std::iter::once(message).chain(added).collect())
}

/// Whoever is mentioned hears of a message twice. If the other event came first and
/// named no files, they are added.
fn files_of_mention(event: &Value, channel: &str, external_id: &str, files: &[Attachment]) -> Option<Inbound> {
    let is_mentioned_elsewhere = text(event, "type") == "message" && text(event, "text").contains("<@");
    if files.is_empty() || is_direct(channel) || !is_mentioned_elsewhere {
        return None;
    }
    let change = Change::AttachmentsAdded {
        attachments: files.to_vec(),
    };
    Some(change_of(external_id, "files", channel, text(event, "ts"), change))
}

fn sender(event: &Value) -> Option<Party> {
    let profile = &event["user_profile"];
    let names = [
        text(profile, "real_name"),
        text(profile, "display_name"),
        text(&event["bot_profile"], "name"),
        text(event, "username"),
    ];
    let address = [text(event, "user"), text(event, "bot_id")];
    let address = address.into_iter().find(|address| !address.is_empty())?;
    Some(Party {
        scheme: SCHEME.to_owned(),
        address: address.to_owned(),
        name: names.into_iter().find(|name| !name.is_empty()).map(ToOwned::to_owned),
        verified: true,
    })
}

/// The text; of a message that has none, that of what it shows (machines, forwarded
/// messages).
fn said(message: &Value) -> String {
    let own = mrkdwn::plain(text(message, "text"));
    if !own.trim().is_empty() {
        return own;
    }
    let shown = message["attachments"].as_array().into_iter().flatten().take(MAX_FILES);
    let texts = shown.map(|shown| {
        let texts = [text(shown, "text"), text(shown, "fallback"), text(shown, "title")];
        texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
    });
    let texts: Vec<String> = texts.filter(|text| !text.is_empty()).map(mrkdwn::plain).collect();
    texts.join("\n")
}

fn files(message: &Value) -> Vec<Attachment> {
    let files = message["files"].as_array().into_iter().flatten();
    files.take(MAX_FILES).filter_map(file).collect()
}

fn file(file: &Value) -> Option<Attachment> {
    let id = text(file, "id");
    if id.is_empty() {
        return None;
    }
    let names = [text(file, "name"), text(file, "title"), id];
    let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or(id);
    let media_type = match text(file, "mimetype") {
        "" => "application/octet-stream",
        media_type => media_type,
    };
    let lost = match (text(file, "mode"), text(file, "file_access")) {
        ("tombstone", _) => Some("it was deleted".to_owned()),
        ("hidden_by_limit", _) => Some("the workspace's plan hides it".to_owned()),
        ("external", _) => Some(format!("it is kept elsewhere: {}", text(file, "url_private"))),
        (_, "access_denied" | "file_not_found") => Some("Slack does not show it to the app".to_owned()),
        _ => None,
    };
    let url = text(file, "url_private_download");
    // In a channel that is shared with others Slack tells only the file's id.
    let source = match url.is_empty() || text(file, "file_access") == "check_file_info" {
        true => format!("{FILE}{id}"),
        false => url.to_owned(),
    };
    Some(Attachment {
        size_bytes: file["size"].as_u64().unwrap_or(0),
        lost,
        ..Attachment::at(name, media_type, source)
    })
}

/// Also comes when a link is unfurled, or a thread has one more answer: then the
/// text is what it was.
fn changed(told: &Value, event: &Value, channel: &str) -> Result<Vec<Inbound>, Unparsed> {
    let (now, before) = (&event["message"], &event["previous_message"]);
    let (ts, at) = (text(now, "ts"), moment_of(event));
    if !is_ts(ts) || !is_ts(at) {
        return Err(parked("which message was changed is missing"));
    }
    // Where a thread hangs on it, a deleted message leaves a stone.
    if text(now, "subtype") == "tombstone" {
        let own = is_own(told, before);
        return Ok((!own).then(|| taken_back(channel, ts, at)).into_iter().collect());
    }
    let is_same = match before["text"].as_str() {
        Some(before) => before == text(now, "text"),
        None => now["edited"].is_null(),
    };
    if is_same || is_own(told, now) {
        return Ok(Vec::new());
    }
    let change = Change::Edited {
        text: said(now),
        html: None,
    };
    let id = format!("{channel}/{ts}");
    Ok(vec![change_of(&id, &format!("edited/{at}"), channel, at, change)])
}

fn deleted(told: &Value, event: &Value, channel: &str) -> Result<Vec<Inbound>, Unparsed> {
    let (ts, at) = (text(event, "deleted_ts"), moment_of(event));
    if !is_ts(ts) || !is_ts(at) {
        return Err(parked("which message was deleted is missing"));
    }
    let own = is_own(told, &event["previous_message"]);
    Ok((!own).then(|| taken_back(channel, ts, at)).into_iter().collect())
}

fn taken_back(channel: &str, ts: &str, at: &str) -> Inbound {
    change_of(&format!("{channel}/{ts}"), "deleted", channel, at, Change::Deleted)
}

fn reacted(told: &Value, event: &Value, how: Reacting) -> Result<Vec<Inbound>, Unparsed> {
    let item = &event["item"];
    if text(item, "type") != "message" {
        return Ok(Vec::new());
    }
    let (channel, ts, at) = (text(item, "channel"), text(item, "ts"), moment_of(event));
    let (user, name) = (text(event, "user"), text(event, "reaction"));
    if channel.is_empty() || user.is_empty() || name.is_empty() || !is_ts(ts) || !is_ts(at) {
        return Err(parked("who reacted to what, or how, is missing"));
    }
    if is_own(told, event) {
        return Ok(Vec::new());
    }
    let change = Change::Reacted {
        by: user.to_owned(),
        emojis: vec![format!(":{name}:")],
        how,
    };
    let what = format!("{name}/{user}/{}/{at}", how.as_str());
    Ok(vec![change_of(&format!("{channel}/{ts}"), &what, channel, at, change)])
}

/// Of the event, not of its message.
fn moment_of(event: &Value) -> &str {
    match text(event, "event_ts") {
        "" => text(event, "ts"),
        at => at,
    }
}

fn change_of(external_id: &str, what: &str, channel: &str, at: &str, change: Change) -> Inbound {
    let told = MessageChange {
        external_id: external_id.to_owned(),
        change,
    };
    numbered(
        format!("{external_id}/{what}"),
        channel,
        at,
        What::Changed(Box::new(told)),
    )
}

/// In Slack's own order, which its times are.
fn numbered(external_id: String, channel: &str, ts: &str, what: What) -> Inbound {
    Inbound {
        provider_sequence: microseconds(ts),
        ..inbound(external_id, channel, occurred_at(ts), what)
    }
}

fn is_listed(list: &[&str], kind: &str) -> bool {
    !kind.is_empty() && list.iter().any(|begin| kind.starts_with(begin))
}
