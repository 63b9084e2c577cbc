//! From an update of the Bot API to messages, changes and consent. It is the same
//! whether it was pushed or fetched, and so are the ids that follow from it.

use std::collections::BTreeMap;

use model::change::{Change, MessageChange, Reacting};
use model::contact::Party;
use model::event::{Attachment, Automatic, ConsentChange, Message};
use model::evidence::{Evidence, Opened};
use model::inbound::{Inbound, Realm, What};
use model::time::Moment;
use serde_json::{Map, Value, json};

use super::link::Links;
use super::update::{self, Chat, Update, User};
use crate::channel::{Answer, Input, Parsed, Unparsed};
use crate::media::file_name;
use crate::phone::is_number;

/// What an update may hold besides its id and is knowingly not read: channels, the
/// chats of business accounts, inline queries, payments, polls, other members.
const IGNORED: &[&str] = &[
    "channel_post",
    "edited_channel_post",
    "business_connection",
    "business_message",
    "edited_business_message",
    "deleted_business_messages",
    "guest_message",
    "managed_bot",
    "message_reaction_count",
    "inline_query",
    "chosen_inline_result",
    "shipping_query",
    "pre_checkout_query",
    "poll",
    "poll_answer",
    "chat_member",
    "chat_join_request",
    "chat_boost",
    "removed_chat_boost",
    "purchased_paid_media",
];

/// What is read. Telegram is asked for these alone.
pub const READ: &[&str] = &[
    "message",
    "edited_message",
    "callback_query",
    "message_reaction",
    "my_chat_member",
];

/// What somebody can say that has no form here: that it was said is shown.
const UNREAD: &[&str] = &[
    "poll",
    "dice",
    "game",
    "story",
    "paid_media",
    "checklist",
    "live_photo",
    "invoice",
    "giveaway",
];

/// What an account reads, and by what.
pub struct Reading {
    /// Groups that it listens to, beside the chats with one person.
    pub groups: Vec<i64>,
    pub links: Links,
}

impl Reading {
    fn has(&self, chat: &Chat) -> bool {
        is_private(chat) || self.groups.contains(&chat.id)
    }

    /// Whose link this person has followed here. In a group it is not only theirs.
    fn opened(&self, told: &update::Message, at: Moment) -> Option<Opened> {
        let parameter = start_parameter(told).filter(|_| is_private(&told.chat))?;
        self.links.opened(parameter, at)
    }
}

fn is_private(chat: &Chat) -> bool {
    chat.r#type == "private"
}

/// One update.
pub fn parse(reading: &Reading, input: &Input) -> Result<Parsed, Unparsed> {
    let parts: Map<String, Value> = serde_json::from_slice(&input.body).map_err(|error| parked(&error))?;
    let kinds: Vec<&str> = parts
        .keys()
        .map(String::as_str)
        .filter(|name| *name != "update_id")
        .collect();
    if kinds.iter().any(|kind| !READ.contains(kind) && !IGNORED.contains(kind)) {
        return Err(parked(&"an update of a kind that is not known here"));
    }
    let unread = unread(&parts);
    let update: Update = serde_json::from_value(Value::Object(parts)).map_err(|error| parked(&error))?;
    let id = update.update_id;
    let mut answer = String::new();
    let events = match update {
        Update {
            message: Some(message), ..
        } if reading.has(&message.chat) => {
            let opened = reading.opened(&message, input.received_at);
            received(&message, unread, opened)
        }
        Update {
            edited_message: Some(message),
            ..
        } if reading.has(&message.chat) => edited(id, &message),
        Update {
            message_reaction: Some(reaction),
            ..
        } if reading.has(&reaction.chat) => reacted(id, &reaction),
        Update {
            my_chat_member: Some(membership),
            ..
        } if reading.has(&membership.chat) => consented(id, &membership),
        Update {
            callback_query: Some(query),
            ..
        } => {
            // Telegram takes a call of its API for an answer; without this one the
            // button goes on turning.
            answer = json!({ "method": "answerCallbackQuery", "callback_query_id": query.id }).to_string();
            pressed(reading, &query)
        }
        _ => Vec::new(),
    };
    Ok(Parsed {
        events,
        answer: Answer {
            status: 200,
            content_type: "application/json",
            body: answer,
        },
    })
}

/// The name of a message, unique for the bot.
pub fn message_name(chat: i64, message: i64) -> String {
    format!("{chat}/{message}")
}

/// Chat and message of such a name.
pub fn named_message(name: &str) -> Option<(i64, i64)> {
    let (chat, message) = name.split_once('/')?;
    Some((chat.parse().ok()?, message.parse().ok()?))
}

/// Chat and, of a forum, topic of a thread.
pub fn named_thread(name: &str) -> Option<(i64, Option<i64>)> {
    match name.split_once('/') {
        Some((chat, topic)) => Some((chat.parse().ok()?, Some(topic.parse().ok()?))),
        None => Some((name.parse().ok()?, None)),
    }
}

/// What the message holds of [`UNREAD`].
fn unread(parts: &Map<String, Value>) -> Option<&'static str> {
    let message = parts.get("message")?;
    UNREAD.iter().copied().find(|kind| message.get(kind).is_some())
}

fn received(told: &update::Message, unread: Option<&str>, opened: Option<Opened>) -> Vec<Inbound> {
    let Some(mut message) = message(told, unread) else {
        // Somebody joined, a title was changed, a message was pinned.
        return Vec::new();
    };
    message.evidence.opened = opened;
    let album = told
        .media_group_id
        .as_ref()
        .map(|group| album_name(told.chat.id, group));
    let name = message_name(told.chat.id, told.message_id);
    let (text, attachments) = (message.text.clone(), message.attachments.clone());
    let is_start = message.automatic == Some(Automatic::Command);
    let mut events = vec![inbound(
        told,
        album.as_ref().unwrap_or(&name),
        told.message_id,
        What::Message(Box::new(message)),
    )];
    if let Some(album) = &album {
        events.extend(of_album(told, album, &name, text, attachments));
    }
    if is_start && is_private(&told.chat) {
        let consent = ConsentChange {
            thread: thread(told),
            given: true,
            reason: "/start".to_owned(),
        };
        events.push(inbound(told, &name, told.message_id, What::Consent(consent)));
    }
    events
}

/// An album comes as a message for each file and is one message here: whichever
/// comes first makes it, and each adds what it brings.
fn of_album(
    told: &update::Message,
    album: &str,
    name: &str,
    text: String,
    attachments: Vec<Attachment>,
) -> Vec<Inbound> {
    let added = Change::AttachmentsAdded { attachments };
    let mut events = vec![changed(told, &format!("{name}/file"), told.message_id, album, added)];
    if !text.is_empty() {
        let caption = Change::Edited { text, html: None };
        events.push(changed(
            told,
            &format!("{name}/caption"),
            told.message_id,
            album,
            caption,
        ));
    }
    events
}

fn edited(update_id: i64, told: &update::Message) -> Vec<Inbound> {
    // Live locations move by edits.
    let is_moving = told.location.is_some();
    let text = text_of(told).filter(|_| !is_moving);
    let Some(text) = text else { return Vec::new() };
    let name = message_name(told.chat.id, told.message_id);
    let album = told
        .media_group_id
        .as_ref()
        .map(|group| album_name(told.chat.id, group));
    let change = Change::Edited { text, html: None };
    let mut event = changed(
        told,
        &format!("{name}/{update_id}"),
        in_order(told.edit_date.unwrap_or(told.date), update_id),
        album.as_ref().unwrap_or(&name),
        change,
    );
    event.occurred_at = Some(moment(told.edit_date.unwrap_or(told.date)));
    vec![event]
}

fn reacted(update_id: i64, told: &update::Reaction) -> Vec<Inbound> {
    let by = match (&told.user, &told.actor_chat) {
        (Some(user), _) => user.id,
        (None, Some(chat)) => chat.id,
        (None, None) => return Vec::new(),
    };
    let emojis = told.new_reaction.iter().map(|reaction| match reaction.r#type.as_str() {
        "paid" => "⭐".to_owned(),
        _ => reaction
            .emoji
            .clone()
            .or_else(|| reaction.custom_emoji_id.clone())
            .unwrap_or_else(|| reaction.r#type.clone()),
    });
    let name = message_name(told.chat.id, told.message_id);
    let change = MessageChange {
        external_id: name.clone(),
        change: Change::Reacted {
            by: by.to_string(),
            emojis: emojis.collect(),
            how: Reacting::Only,
        },
    };
    vec![Inbound {
        realm: Realm::Account,
        external_id: format!("{name}/{update_id}"),
        thread: told.chat.id.to_string(),
        occurred_at: Some(moment(told.date)),
        provider_sequence: Some(in_order(told.date, update_id)),
        raw: None,
        blobs: Vec::new(),
        what: What::Changed(Box::new(change)),
    }]
}

/// Who blocks the bot wants no more; who starts it again, or lets it into the group
/// again, does.
fn consented(update_id: i64, told: &update::Membership) -> Vec<Inbound> {
    let (given, reason) = match (told.new_chat_member.status.as_str(), is_private(&told.chat)) {
        ("kicked" | "left", true) => (false, "blocked the bot"),
        ("kicked" | "left", false) => (false, "removed the bot from the group"),
        ("member" | "administrator", true) => (true, "started the bot"),
        ("member" | "administrator", false) => (true, "let the bot into the group"),
        _ => return Vec::new(),
    };
    let thread = told.chat.id.to_string();
    let consent = ConsentChange {
        thread: thread.clone(),
        given,
        reason: reason.to_owned(),
    };
    vec![Inbound {
        realm: Realm::Account,
        external_id: format!("{thread}/member/{update_id}"),
        thread,
        occurred_at: Some(moment(told.date)),
        provider_sequence: None,
        raw: None,
        blobs: Vec::new(),
        what: What::Consent(consent),
    }]
}

/// A button under a message was pressed: what stands on it is what was said.
fn pressed(reading: &Reading, told: &update::CallbackQuery) -> Vec<Inbound> {
    let Some(under) = told.message.as_ref().filter(|message| reading.has(&message.chat)) else {
        return Vec::new();
    };
    let data = told.data.as_deref().unwrap_or_default();
    let buttons = under
        .reply_markup
        .iter()
        .flat_map(|keyboard| keyboard.inline_keyboard.iter().flatten());
    let mut pressed = buttons.filter(|button| button.callback_data.as_deref() == Some(data));
    let text = pressed.next().map_or(data, |button| button.text.as_str());
    let fields = [("button".to_owned(), data.to_owned())].into();
    let name = format!("button/{}", told.id);
    let message = Message {
        evidence: Evidence {
            quoted_ids: vec![message_name(under.chat.id, under.message_id)],
            thread: Some(thread(under)),
            ..Evidence::default()
        },
        external_ids: vec![name.clone()],
        fields,
        ..Message::new(party(&told.from), text.to_owned())
    };
    let mut event = inbound(under, &name, 0, What::Message(Box::new(message)));
    // Telegram does not say when.
    event.occurred_at = None;
    event.provider_sequence = None;
    vec![event]
}

/// What somebody said; `None` if the message holds nothing that is said.
fn message(told: &update::Message, unread: Option<&str>) -> Option<Message> {
    let attachments = attachments(told);
    let text = text_of(told)
        .or_else(|| unread.map(|kind| format!("[a message of the kind \"{kind}\", which is not shown here]")));
    if text.is_none() && attachments.is_empty() {
        return None;
    }
    let sender = sender(told)?;
    let is_bot = told.from.as_ref().is_some_and(|user| user.is_bot) && told.sender_chat.is_none();
    let automatic = match is_bot {
        true => Some(Automatic::Generated),
        false => start_parameter(told).map(|_| Automatic::Command),
    };
    let answered = told.reply_to_message.as_ref();
    let quoted = answered.map(|answered| {
        let chat = answered.chat.as_ref().map_or(told.chat.id, |chat| chat.id);
        match &answered.media_group_id {
            Some(group) => album_name(chat, group),
            None => message_name(chat, answered.message_id),
        }
    });
    let album = told
        .media_group_id
        .as_ref()
        .map(|group| album_name(told.chat.id, group));
    // The last is the one by which Telegram is told to quote it.
    let name = message_name(told.chat.id, told.message_id);
    let external_ids = album.into_iter().chain([name]).collect();
    Some(Message {
        attachments,
        evidence: Evidence {
            quoted_ids: quoted.into_iter().collect(),
            thread: Some(thread(told)),
            ..Evidence::default()
        },
        automatic,
        external_ids,
        fields: fields(told),
        identities: own_number(told).into_iter().collect(),
        ..Message::new(sender, text.unwrap_or_default())
    })
}

fn sender(told: &update::Message) -> Option<Party> {
    if let Some(chat) = &told.sender_chat {
        return Some(Party {
            scheme: SCHEME.to_owned(),
            address: chat.id.to_string(),
            name: chat.title.clone(),
            verified: true,
        });
    }
    told.from.as_ref().map(party)
}

/// Telegram's numbers of its users are the same for all bots.
const SCHEME: &str = "telegram";

fn party(user: &User) -> Party {
    let name = match &user.last_name {
        Some(last) => format!("{} {last}", user.first_name),
        None => user.first_name.clone(),
    };
    let name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
    Party {
        scheme: SCHEME.to_owned(),
        address: user.id.to_string(),
        name: name.or_else(|| user.username.clone()),
        verified: true,
    }
}

/// The number of a contact that somebody shares is proven only if it is the own one.
fn own_number(told: &update::Message) -> Option<Party> {
    let (contact, from) = (told.contact.as_ref()?, told.from.as_ref()?);
    if contact.user_id != Some(from.id) {
        return None;
    }
    let digits: String = contact.phone_number.chars().filter(char::is_ascii_digit).collect();
    let number = format!("+{digits}");
    is_number(&number).then(|| Party {
        scheme: "phone".to_owned(),
        address: number,
        name: None,
        verified: true,
    })
}

/// What the message says. Words that are ours, not the customer's, stand in brackets.
fn text_of(told: &update::Message) -> Option<String> {
    if let Some(text) = &told.text {
        return Some(with_links(text, &told.entities));
    }
    if let Some(caption) = &told.caption {
        return Some(with_links(caption, &told.caption_entities));
    }
    if let Some(venue) = &told.venue {
        let place = place(&venue.location);
        return Some(format!("[location] {}\n{}\n{place}", venue.title, venue.address));
    }
    if let Some(contact) = &told.contact {
        let name = [Some(&contact.first_name), contact.last_name.as_ref()];
        let name: Vec<&str> = name.into_iter().flatten().map(String::as_str).collect();
        return Some(format!("[contact] {}, {}", name.join(" "), contact.phone_number));
    }
    if let Some(location) = &told.location {
        return Some(format!("[location] {}", place(location)));
    }
    told.sticker.as_ref()?.emoji.clone()
}

fn place(location: &update::Location) -> String {
    format!("{}, {}", location.latitude, location.longitude)
}

/// Where, for whoever shows a map.
fn fields(told: &update::Message) -> BTreeMap<String, String> {
    let venue = told.venue.as_ref().map(|venue| &venue.location);
    let Some(location) = told.location.as_ref().or(venue) else {
        return BTreeMap::new();
    };
    let fields = [
        ("location.latitude", location.latitude),
        ("location.longitude", location.longitude),
    ];
    fields.map(|(name, value)| (name.to_owned(), value.to_string())).into()
}

/// Behind words that hide a link, the link.
fn with_links(text: &str, entities: &[update::Entity]) -> String {
    let mut links: Vec<(usize, &str)> = entities
        .iter()
        .filter(|entity| entity.r#type == "text_link")
        .filter_map(|entity| Some((entity.offset.checked_add(entity.length)?, entity.url.as_deref()?)))
        .collect();
    if links.is_empty() {
        return text.to_owned();
    }
    links.sort_by_key(|(end, _)| *end);
    let mut links = links.into_iter().peekable();
    let (mut out, mut units) = (String::new(), 0);
    for character in text.chars() {
        while let Some((_, url)) = links.next_if(|(end, _)| *end <= units) {
            out.push_str(&format!(" ({url})"));
        }
        out.push(character);
        units += character.len_utf16();
    }
    for (_, url) in links {
        out.push_str(&format!(" ({url})"));
    }
    out
}

/// What stands behind `/start`: the parameter of a link to the bot. `None`: it is no
/// such command.
fn start_parameter(told: &update::Message) -> Option<&str> {
    let text = told.text.as_deref()?;
    let (command, parameter) = text.split_once(' ').unwrap_or((text, ""));
    // In groups the bot's name follows.
    let command = command.split('@').next().unwrap_or_default();
    (command == "/start").then(|| parameter.trim())
}

fn attachments(told: &update::Message) -> Vec<Attachment> {
    // Several sizes of the same picture; the largest is the last.
    if let Some(photo) = told.photo.last() {
        return vec![file(photo, "photo", "image/jpeg")];
    }
    if let Some(sticker) = &told.sticker {
        let (name, media_type) = match (sticker.is_animated, sticker.is_video) {
            (true, _) => ("sticker.tgs", "application/x-tgsticker"),
            (_, true) => ("sticker.webm", "video/webm"),
            _ => ("sticker.webp", "image/webp"),
        };
        return vec![sized(
            Attachment::at(name, media_type, sticker.file_id.as_str()),
            sticker.file_size,
        )];
    }
    // An animation comes as a document too, for older bots.
    let kinds = [
        (&told.animation, "animation", "video/mp4"),
        (&told.audio, "audio", "audio/mpeg"),
        (&told.video, "video", "video/mp4"),
        (&told.video_note, "video", "video/mp4"),
        (&told.voice, "voice", "audio/ogg"),
        (&told.document, "document", "application/octet-stream"),
    ];
    let mut there = kinds
        .into_iter()
        .filter_map(|(known, stem, media_type)| Some(file(known.as_ref()?, stem, media_type)));
    there.next().into_iter().collect()
}

fn file(file: &update::File, stem: &str, media_type: &str) -> Attachment {
    let media_type = file.mime_type.as_deref().unwrap_or(media_type);
    let name = file.file_name.clone().unwrap_or_else(|| file_name(stem, media_type));
    sized(Attachment::at(name, media_type, file.file_id.as_str()), file.file_size)
}

fn sized(attachment: Attachment, size_bytes: Option<u64>) -> Attachment {
    Attachment {
        size_bytes: size_bytes.unwrap_or(0),
        ..attachment
    }
}

fn thread(told: &update::Message) -> String {
    match told.message_thread_id.filter(|_| told.is_topic_message) {
        Some(topic) => format!("{}/{topic}", told.chat.id),
        None => told.chat.id.to_string(),
    }
}

fn album_name(chat: i64, group: &str) -> String {
    format!("{chat}/album/{group}")
}

/// By time, and within a second by the number of the update: that alone is drawn
/// anew after a quiet week.
fn in_order(date_s: i64, update_id: i64) -> i64 {
    const UPDATES: i64 = 1 << 31;
    date_s
        .saturating_mul(UPDATES)
        .saturating_add(update_id.rem_euclid(UPDATES))
}

fn changed(told: &update::Message, id: &str, sequence: i64, of: &str, change: Change) -> Inbound {
    let told_change = MessageChange {
        external_id: of.to_owned(),
        change,
    };
    inbound(told, id, sequence, What::Changed(Box::new(told_change)))
}

fn inbound(told: &update::Message, external_id: &str, sequence: i64, what: What) -> Inbound {
    Inbound {
        realm: Realm::Account,
        external_id: external_id.to_owned(),
        // Not the topic's: reactions do not name it.
        thread: told.chat.id.to_string(),
        occurred_at: Some(moment(told.date)),
        provider_sequence: Some(sequence),
        raw: None,
        blobs: Vec::new(),
        what,
    }
}

fn moment(seconds: i64) -> Moment {
    Moment::from_ms(seconds.saturating_mul(1000))
}

fn parked(reason: &impl std::fmt::Display) -> Unparsed {
    Unparsed::Parked {
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use model::id::{ConversationId, MessageId};

    use super::*;
    use crate::signature::Keys;

    fn input(body: &str) -> Input {
        Input {
            method: "POST".to_owned(),
            url: "/in/bot".to_owned(),
            headers: Vec::new(),
            body: body.to_owned().into(),
            received_at: Moment::from_ms(0),
        }
    }

    fn parse_one(body: &str) -> Result<Parsed, Unparsed> {
        parse(&reading(), &input(body))
    }

    fn reading() -> Reading {
        Reading {
            groups: vec![-1_001_234_567_890],
            links: Links {
                keys: Keys::new(vec![vec![1; 32]]).unwrap(),
                account: "bot".to_owned(),
            },
        }
    }

    #[test]
    fn a_link_is_opened_by_one_person_alone() {
        let conversation = ConversationId::begun_by(&MessageId::authored("agnes", "1"));
        let invitation = reading().links.to("bikes_bot", &conversation, Moment::from_ms(0));
        let (_, token) = invitation.url.split_once("start=").unwrap();
        let check = |kind: &str, text: &str, expected: bool| {
            let chat = json!({ "id": -1_001_234_567_890_i64, "type": kind });
            let update = json!({ "update_id": 1, "message": { "message_id": 7, "date": 0, "chat": chat,
                "from": { "id": 5, "is_bot": false, "first_name": "Ann" }, "text": text } });
            let events = parse_one(&update.to_string()).unwrap().events;
            let What::Message(message) = &events[0].what else {
                panic!("{events:?}");
            };
            let opened = expected.then(|| Opened::Conversation(conversation.clone()));
            assert_eq!(message.evidence.opened, opened, "{kind} {text}");
        };
        check("private", &format!("/start {token}"), true);
        check("supergroup", &format!("/start@bikes_bot {token}"), false);
        check("private", &format!("/help {token}"), false);
        check("private", token, false);
        check("private", &format!("/start {token}x"), false);
    }

    /// Each update of `testdata/` and what is made of it. To renew a snapshot, delete
    /// it and run the test.
    #[test]
    fn payloads_parse_as_before() {
        let count = crate::contract::snapshots("src/telegram/testdata", "json", |bytes| {
            format!("{:#?}\n", parse_one(std::str::from_utf8(bytes).unwrap()))
        });
        assert!(count > 30, "{count}");
    }

    #[test]
    fn every_kind_is_read_or_knowingly_not() {
        let kinds = [READ, IGNORED].concat();
        // Bot API 10.0.
        assert_eq!(kinds.len(), 25);
        for kind in IGNORED {
            let parsed = parse_one(&format!(r#"{{"update_id":1,"{kind}":{{"anything":1}}}}"#)).unwrap();
            assert!(parsed.events.is_empty(), "{kind}");
        }
        for unknown in [
            r#"{"update_id":1,"a_new_kind":{}}"#,
            r#"{"update_id":1,"message":{"message_id":1}}"#,
            r#"{"message":{}}"#,
            "[]",
            "",
        ] {
            assert!(matches!(parse_one(unknown), Err(Unparsed::Parked { .. })), "{unknown}");
        }
    }

    #[test]
    fn links_stand_behind_the_words_that_hide_them() {
        let check = |text: &str, links: &[(usize, usize)], expected: &str| {
            let entities: Vec<update::Entity> = links
                .iter()
                .map(|(offset, length)| update::Entity {
                    r#type: "text_link".to_owned(),
                    offset: *offset,
                    length: *length,
                    url: Some("u".to_owned()),
                })
                .collect();
            assert_eq!(with_links(text, &entities), expected);
        };
        check("see here now", &[], "see here now");
        check("see here now", &[(4, 4)], "see here (u) now");
        check("🚲 here", &[(3, 4)], "🚲 here (u)");
        check("🚲 here", &[(0, 2), (3, 4)], "🚲 (u) here (u)");
        // In the middle of a character, behind the end, beyond all numbers.
        check("🚲!", &[(0, 1)], "🚲 (u)!");
        check("a", &[(0, 9)], "a (u)");
        check("a", &[(usize::MAX, 9)], "a");
    }

    #[test]
    fn what_comes_later_counts_more() {
        let check = |earlier: (i64, i64), later: (i64, i64)| {
            assert!(
                in_order(earlier.0, earlier.1) < in_order(later.0, later.1),
                "{earlier:?} {later:?}"
            );
        };
        check((100, 7), (100, 8));
        check((100, 1_000_000_000), (101, 5));
        check((1_767_225_600, i64::from(i32::MAX)), (1_767_225_601, 0));
        assert_eq!(in_order(i64::MAX, 1), i64::MAX);
    }

    #[test]
    fn names_come_back() {
        assert_eq!(named_message(&message_name(-100, 7)), Some((-100, 7)));
        assert_eq!(named_message("-100/album/7"), None);
        assert_eq!(named_thread("-100/7"), Some((-100, Some(7))));
        assert_eq!(named_thread("5"), Some((5, None)));
        assert_eq!(named_thread("bot/x"), None);
    }
}
