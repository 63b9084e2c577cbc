//! The shapes of the Bot API that are read here, and no more of each than is used
//! (<https://core.telegram.org/bots/api#available-types>).

use serde::Deserialize;

/// What the webhook brings, and each element of `getUpdates`.
#[derive(Deserialize)]
pub struct Update {
    pub update_id: i64,
    pub message: Option<Message>,
    pub edited_message: Option<Message>,
    pub callback_query: Option<CallbackQuery>,
    pub message_reaction: Option<Reaction>,
    pub my_chat_member: Option<Membership>,
}

#[derive(Deserialize)]
pub struct Message {
    pub message_id: i64,
    /// In a topic of a forum.
    pub message_thread_id: Option<i64>,
    #[serde(default)]
    pub is_topic_message: bool,
    pub from: Option<User>,
    /// Who speaks in the name of a group or channel.
    pub sender_chat: Option<Chat>,
    pub chat: Chat,
    pub date: i64,
    pub edit_date: Option<i64>,
    pub media_group_id: Option<String>,
    pub reply_to_message: Option<Box<Answered>>,
    pub text: Option<String>,
    #[serde(default)]
    pub entities: Vec<Entity>,
    pub caption: Option<String>,
    #[serde(default)]
    pub caption_entities: Vec<Entity>,
    /// Several sizes of one picture.
    #[serde(default)]
    pub photo: Vec<File>,
    pub animation: Option<File>,
    pub audio: Option<File>,
    pub document: Option<File>,
    pub video: Option<File>,
    pub video_note: Option<File>,
    pub voice: Option<File>,
    pub sticker: Option<Sticker>,
    pub location: Option<Location>,
    pub venue: Option<Venue>,
    pub contact: Option<SharedContact>,
    pub reply_markup: Option<Keyboard>,
}

/// The message that another one answers.
#[derive(Deserialize)]
pub struct Answered {
    pub message_id: i64,
    pub media_group_id: Option<String>,
    /// Not in every chat that is quoted from.
    pub chat: Option<Chat>,
}

#[derive(Deserialize)]
pub struct User {
    pub id: i64,
    #[serde(default)]
    pub is_bot: bool,
    #[serde(default)]
    pub first_name: String,
    pub last_name: Option<String>,
    pub username: Option<String>,
}

#[derive(Deserialize)]
pub struct Chat {
    pub id: i64,
    pub r#type: String,
    pub title: Option<String>,
}

/// A part of a text; `offset` and `length` count UTF-16 units.
#[derive(Deserialize)]
pub struct Entity {
    pub r#type: String,
    pub offset: usize,
    pub length: usize,
    pub url: Option<String>,
}

#[derive(Deserialize)]
pub struct File {
    pub file_id: String,
    pub file_name: Option<String>,
    pub mime_type: Option<String>,
    pub file_size: Option<u64>,
}

#[derive(Deserialize)]
pub struct Sticker {
    pub file_id: String,
    #[serde(default)]
    pub is_animated: bool,
    #[serde(default)]
    pub is_video: bool,
    pub emoji: Option<String>,
    pub file_size: Option<u64>,
}

#[derive(Deserialize)]
pub struct Location {
    pub latitude: f64,
    pub longitude: f64,
}

#[derive(Deserialize)]
pub struct Venue {
    pub location: Location,
    pub title: String,
    pub address: String,
}

#[derive(Deserialize)]
pub struct SharedContact {
    pub phone_number: String,
    pub first_name: String,
    pub last_name: Option<String>,
    pub user_id: Option<i64>,
}

#[derive(Deserialize)]
pub struct Keyboard {
    #[serde(default)]
    pub inline_keyboard: Vec<Vec<Button>>,
}

#[derive(Deserialize)]
pub struct Button {
    pub text: String,
    pub callback_data: Option<String>,
}

#[derive(Deserialize)]
pub struct CallbackQuery {
    pub id: String,
    pub from: User,
    /// The message under which the button stands; of one that is old, not much.
    pub message: Option<Message>,
    pub data: Option<String>,
}

#[derive(Deserialize)]
pub struct Reaction {
    pub chat: Chat,
    pub message_id: i64,
    pub user: Option<User>,
    pub actor_chat: Option<Chat>,
    pub date: i64,
    #[serde(default)]
    pub new_reaction: Vec<ReactionType>,
}

#[derive(Deserialize)]
pub struct ReactionType {
    pub r#type: String,
    pub emoji: Option<String>,
    pub custom_emoji_id: Option<String>,
}

/// What became of the bot in a chat.
#[derive(Deserialize)]
pub struct Membership {
    pub chat: Chat,
    pub date: i64,
    pub new_chat_member: Member,
}

#[derive(Deserialize)]
pub struct Member {
    pub status: String,
}
