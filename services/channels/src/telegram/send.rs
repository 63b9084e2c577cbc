//! Sends one message: its text, in parts if it is long, and its files, one message
//! of Telegram's each.

use std::time::Duration;

use model::event::Attachment;
use model::outbound::Outbound;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Telegram;
use super::api::{Asked, Failure};
use super::parse::{message_name, named_message, named_thread};
use crate::channel::Sent;
use crate::multipart::Form;
use crate::parts::{Tally, split};

/// Longest text of one message, and of what stands under a file, in UTF-16 units.
const TEXT_UNITS: usize = 4_096;
const CAPTION_UNITS: usize = 1_024;
/// Longest text that is sent: four parts.
pub const MAX_CHARS: u32 = 16_000;
/// All files of a message; Telegram takes so much of one.
pub const MAX_FILE_BYTES: u64 = 50_000_000;
/// A larger picture goes as a document.
const MAX_PHOTO_BYTES: usize = 10_000_000;
/// For all parts.
pub const DEADLINE: Duration = Duration::from_secs(180);
/// In the middle of a message, so long a wait that Telegram asks for is waited here.
const PATIENCE: Duration = Duration::from_secs(30);

/// One message of Telegram's.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The file of this place, and what stands under it.
    File(usize, String),
}

/// Where it goes.
struct To {
    chat: i64,
    topic: Option<i64>,
    /// The message that the first part quotes.
    quotes: Option<i64>,
}

impl Telegram {
    pub(super) async fn send_message(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
        let Some((chat, topic)) = named_thread(&outbound.thread) else {
            return Sent::Refused {
                error: "the conversation's thread is no chat of Telegram's".to_owned(),
            };
        };
        let mut to = To {
            chat,
            topic,
            quotes: outbound.quotes.as_deref().and_then(|name| quoted(name, chat)),
        };
        let parts = parts(&outbound.text, files.len());
        let mut tally = Tally::of(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let mut sent = self.send_part(&mut to, part, outbound, files).await;
            // Whoever has the beginning shall have the rest.
            if index > 0
                && let Sent::Later { after: Some(after), .. } = &sent
                && *after <= PATIENCE
            {
                sleep(*after + Duration::from_millis(100)).await;
                sent = self.send_part(&mut to, part, outbound, files).await;
            }
            if let Err(end) = tally.count(sent) {
                return end;
            }
            to.quotes = None;
        }
        tally.accepted()
    }

    async fn send_part(&self, to: &mut To, part: &Part, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
        let mut said = self.say(to, part, outbound, files).await;
        if let Err(Failure::Refused(refusal)) = &said
            && let Some(chat) = refusal.parameters.migrate_to_chat_id
        {
            // What it quotes has another number there.
            (to.chat, to.quotes) = (chat, None);
            said = self.say(to, part, outbound, files).await;
        }
        match said {
            Ok(message) => accepted(to, &message),
            Err(failure) => failure.into(),
        }
    }

    async fn say(&self, to: &To, part: &Part, outbound: &Outbound, files: &[Vec<u8>]) -> Result<Value, Failure> {
        let (index, caption) = match part {
            Part::Text(text) => return self.api.say("sendMessage", Asked::Json(to.text(text))).await,
            Part::File(index, caption) => (*index, caption),
        };
        let (Some(file), Some(bytes)) = (outbound.attachments.get(index), files.get(index)) else {
            return Err(Failure::Forbidden("a file of the message is missing".to_owned()));
        };
        if is_photo(file, bytes) {
            let form = to.form(caption).file("photo", &file.name, &file.media_type, bytes);
            match self.api.say("sendPhoto", Asked::Form(form)).await {
                // Too wide, too high, or no picture after all.
                Err(Failure::Refused(refusal))
                    if refusal.error_code == 400 && refusal.parameters.migrate_to_chat_id.is_none() => {}
                other => return other,
            }
        }
        let form = to.form(caption).file("document", &file.name, &file.media_type, bytes);
        self.api.say("sendDocument", Asked::Form(form)).await
    }
}

impl To {
    fn text(&self, text: &str) -> Value {
        let mut asked = json!({ "chat_id": self.chat, "text": text });
        if let Some(topic) = self.topic {
            asked["message_thread_id"] = topic.into();
        }
        if let Some(quoted) = self.quotes {
            asked["reply_parameters"] = reply_parameters(quoted);
        }
        asked
    }

    fn form(&self, caption: &str) -> Form {
        let mut form = Form::new().text("chat_id", &self.chat.to_string());
        if let Some(topic) = self.topic {
            form = form.text("message_thread_id", &topic.to_string());
        }
        if let Some(quoted) = self.quotes {
            form = form.text("reply_parameters", &reply_parameters(quoted).to_string());
        }
        match caption.is_empty() {
            true => form,
            false => form.text("caption", caption),
        }
    }
}

fn reply_parameters(quoted: i64) -> Value {
    json!({ "message_id": quoted, "allow_sending_without_reply": true })
}

/// The message that is shown as quoted, if it is of this chat.
fn quoted(name: &str, chat: i64) -> Option<i64> {
    let (of, message) = named_message(name)?;
    (of == chat).then_some(message)
}

fn accepted(to: &To, message: &Value) -> Sent {
    let Some(id) = message["message_id"].as_i64() else {
        return Sent::Unknown {
            error: "Telegram's answer names no message".to_owned(),
        };
    };
    let name = message_name(message["chat"]["id"].as_i64().unwrap_or(to.chat), id);
    Sent::Accepted {
        external_ids: vec![name],
    }
}

/// The text stands under the first file if it is short enough, else before all.
fn parts(text: &str, files: usize) -> Vec<Part> {
    let file = |index: usize| Part::File(index, String::new());
    if files == 0 {
        return split(text, TEXT_UNITS).into_iter().map(Part::Text).collect();
    }
    if text.encode_utf16().count() <= CAPTION_UNITS {
        let first = Part::File(0, text.to_owned());
        return std::iter::once(first).chain((1..files).map(file)).collect();
    }
    let texts = split(text, TEXT_UNITS).into_iter().map(Part::Text);
    texts.chain((0..files).map(file)).collect()
}

fn is_photo(file: &Attachment, bytes: &[u8]) -> bool {
    let is_picture = matches!(file.media_type.as_str(), "image/jpeg" | "image/png" | "image/webp");
    is_picture && bytes.len() <= MAX_PHOTO_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_text_and_its_files() {
        let text = |text: &str| Part::Text(text.to_owned());
        let file = |index: usize, caption: &str| Part::File(index, caption.to_owned());
        let long = "word ".repeat(300);
        let check = |given: &str, files: usize, expected: &[Part]| assert_eq!(parts(given, files), expected);
        check("hello", 0, &[text("hello")]);
        check("hello", 2, &[file(0, "hello"), file(1, "")]);
        check("", 1, &[file(0, "")]);
        check(&long, 1, &[text(&long), file(0, "")]);
        assert_eq!(parts(&"word ".repeat(1_000), 1).len(), 3);
    }

    #[test]
    fn only_what_stands_in_the_chat_is_quoted() {
        assert_eq!(quoted("5/7", 5), Some(7));
        assert_eq!(quoted("6/7", 5), None);
        assert_eq!(quoted("button/7", 5), None);
    }
}
