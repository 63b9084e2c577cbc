//! Sends one message: text in parts if it is long, files one a message.

use std::time::Duration;

use model::event::Attachment;
use model::file::essence;
use model::outbound::Outbound;
use serde_json::{Value, json};

use super::Messaging;
use crate::channel::Sent;
use crate::meta::errors::Meaning;
use crate::meta::graph::Failed;
use crate::meta::text;
use crate::parts::Tally;

/// For all parts.
pub const DEADLINE: Duration = Duration::from_secs(120);

impl Messaging {
    pub(super) async fn send_message(&self, outbound: &Outbound) -> Sent {
        let messages = self.messages(outbound);
        let mut tally = Tally::of(messages.len());
        for (index, message) in messages.into_iter().enumerate() {
            let body = self.body(outbound, message, index == 0);
            if let Err(end) = tally.count(self.deliver(outbound, body).await) {
                return end;
            }
        }
        tally.accepted()
    }

    fn messages(&self, outbound: &Outbound) -> Vec<Value> {
        let mut messages = Vec::new();
        if !outbound.text.trim().is_empty() {
            let parts = (self.kind.split)(&outbound.text).into_iter();
            messages.extend(parts.map(|part| json!({ "text": part })));
        }
        let urls = self.links.of(&outbound.attachments);
        for (file, url) in outbound.attachments.iter().zip(urls) {
            let payload = json!({ "url": url });
            messages.push(json!({ "attachment": { "type": kind(file), "payload": payload } }));
        }
        messages
    }

    fn body(&self, outbound: &Outbound, mut message: Value, is_first: bool) -> Value {
        if self.kind.has_metadata {
            message["metadata"] = json!(outbound.message_id);
        }
        // The thread is the user.
        let mut body =
            json!({ "recipient": { "id": outbound.thread }, "messaging_type": "RESPONSE", "message": message });
        if let Some(quoted) = &outbound.quotes
            && is_first
        {
            body["reply_to"] = json!({ "mid": quoted });
        }
        body
    }

    /// Within a day as an answer. What a person writes later goes under a tag, if the
    /// app may use it: Meta's clock decides which, so it is asked.
    async fn deliver(&self, outbound: &Outbound, mut body: Value) -> Sent {
        if let Err(later) = self.meta.graph.take_turn().await {
            return later;
        }
        let path = format!("{}/messages", self.sender);
        let answer = self.meta.graph.post(&path, &body).await;
        let is_closed = matches!(&answer, Err(failed) if failed.meaning == Some(Meaning::Closed));
        if !is_closed || !self.human_agent || outbound.automatic {
            return sent(answer);
        }
        body["messaging_type"] = json!("MESSAGE_TAG");
        body["tag"] = json!("HUMAN_AGENT");
        sent(self.meta.graph.post(&path, &body).await)
    }
}

fn sent(answer: Result<Value, Failed>) -> Sent {
    match answer {
        Err(failed) => failed.sent,
        Ok(answer) => match text(&answer, "/message_id") {
            Some(mid) => Sent::Accepted {
                external_ids: vec![mid.to_owned()],
            },
            None => Sent::Unknown {
                error: "Meta's answer names no message".to_owned(),
            },
        },
    }
}

fn kind(file: &Attachment) -> &'static str {
    let media_type = essence(&file.media_type);
    match media_type.split('/').next().unwrap_or_default() {
        "image" => "image",
        "video" => "video",
        "audio" => "audio",
        _ => "file",
    }
}
