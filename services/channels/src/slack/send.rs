//! Sends one message: its text, in parts if it is long, then its files.
//!
//! A thread is named `C…/1767225600.000100`, or by a person, to whom we write
//! directly.

use std::time::Duration;

use model::event::Attachment;
use model::outbound::Outbound;
use serde_json::{Value, json};

use super::events::EVENT_TYPE;
use super::parse::text;
use super::{Slack, mrkdwn};
use crate::channel::Sent;
use crate::parts::{Tally, split};

/// Slack shows longer texts folded, and cuts them at 40,000.
const PART_UNITS: usize = 4_000;
/// Longest text that is sent: five parts.
pub const MAX_CHARS: u32 = 20_000;
/// All files of a message together: they are in memory, and have to be up in time.
pub const MAX_FILES_BYTES: u64 = 25 * 1024 * 1024;
/// For all parts and files.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Where a message goes.
struct Place {
    channel: String,
    thread_ts: Option<String>,
}

impl Slack {
    pub(super) async fn send_message(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
        self.try_to_send(outbound, files).await.unwrap_or_else(|end| end)
    }

    /// `Err` is an end like any other.
    async fn try_to_send(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Result<Sent, Sent> {
        let place = self.place(&outbound.thread).await?;
        // Before anything can be seen of the message.
        let uploaded = self.upload(&outbound.attachments, files).await?;
        let texts = texts(&outbound.text);
        let mut tally = Tally::of(texts.len() + usize::from(uploaded.is_some()));
        for text in &texts {
            tally.count(self.post(&place, outbound, text).await)?;
        }
        if let Some(uploaded) = &uploaded {
            tally.count(self.share(&place, uploaded).await)?;
        }
        Ok(tally.accepted())
    }

    async fn place(&self, thread: &str) -> Result<Place, Sent> {
        if let Some((channel, ts)) = thread.split_once('/') {
            return Ok(Place {
                channel: channel.to_owned(),
                thread_ts: Some(ts.to_owned()),
            });
        }
        let user = thread.to_uppercase();
        let opened = self.api.ask("conversations.open", &[("users", user.as_str())]).await?;
        match text(&opened["channel"], "id") {
            "" => Err(Sent::Refused {
                error: "Slack opens no direct messages with that person".to_owned(),
            }),
            channel => Ok(Place {
                channel: channel.to_owned(),
                thread_ts: None,
            }),
        }
    }

    /// What `files.completeUploadExternal` calls them; `None` if there are none.
    async fn upload(&self, attachments: &[Attachment], files: &[Vec<u8>]) -> Result<Option<String>, Sent> {
        let mut uploaded = Vec::new();
        for (attachment, bytes) in attachments.iter().zip(files) {
            let id = self.api.upload(&attachment.name, bytes).await?;
            uploaded.push(json!({ "id": id, "title": attachment.name }));
        }
        Ok((!uploaded.is_empty()).then(|| Value::Array(uploaded).to_string()))
    }

    async fn post(&self, place: &Place, outbound: &Outbound, said: &str) -> Sent {
        let own = outbound.message_id.as_str();
        let metadata = json!({ "event_type": EVENT_TYPE, "event_payload": { "message": own } }).to_string();
        let said = mrkdwn::escaped(said);
        let mut fields = vec![
            ("channel", place.channel.as_str()),
            ("text", said.as_str()),
            // What an agent writes means itself.
            ("mrkdwn", "false"),
            ("unfurl_links", "false"),
            ("unfurl_media", "false"),
            ("metadata", metadata.as_str()),
        ];
        if let Some(ts) = &place.thread_ts {
            fields.push(("thread_ts", ts));
        }
        if let Err(later) = self.take_turn(place).await {
            return later;
        }
        match self.api.call("chat.postMessage", &fields).await {
            Ok(answer) => accepted(text(&answer, "channel"), text(&answer, "ts")),
            Err(sent) => sent,
        }
    }

    async fn share(&self, place: &Place, uploaded: &str) -> Sent {
        let mut fields = vec![("files", uploaded), ("channel_id", place.channel.as_str())];
        if let Some(ts) = &place.thread_ts {
            fields.push(("thread_ts", ts));
        }
        if let Err(later) = self.take_turn(place).await {
            return later;
        }
        match self.api.call("files.completeUploadExternal", &fields).await {
            Ok(answer) => {
                let files = answer["files"].as_array().into_iter().flatten();
                let ids = files.map(|file| text(file, "id")).filter(|id| !id.is_empty());
                Sent::Accepted {
                    external_ids: ids.map(|id| format!("file/{id}")).collect(),
                }
            }
            Err(sent) => sent,
        }
    }

    async fn take_turn(&self, place: &Place) -> Result<(), Sent> {
        self.each.take_turn(&place.channel).await?;
        self.api.pace.take_turn().await
    }
}

fn accepted(channel: &str, ts: &str) -> Sent {
    match channel.is_empty() || ts.is_empty() {
        true => Sent::Unknown {
            error: "Slack's answer names no message".to_owned(),
        },
        false => Sent::Accepted {
            external_ids: vec![format!("{channel}/{ts}")],
        },
    }
}

/// None at all of a message that is files alone.
fn texts(said: &str) -> Vec<String> {
    match said.trim().is_empty() {
        true => Vec::new(),
        false => split(said, PART_UNITS),
    }
}
