//! Sends one message: text in parts if it is long, files one a message, or a template.

use std::time::Duration;

use model::event::Attachment;
use model::outbound::Outbound;
use model::template::Template;
use serde_json::{Value, json};

use super::Whatsapp;
use super::parse::MORE;
use crate::channel::Sent;
use crate::meta::graph::Failed;
use crate::meta::text;
use crate::multipart::Form;
use crate::parts::{Tally, split};

/// Longest text of one message of WhatsApp's.
const PART_UNITS: usize = 4_096;
/// Longest text that goes with a file.
const CAPTION_UNITS: usize = 1_024;
/// Longest text that is sent: four parts, more if its characters are rare ones.
pub const MAX_CHARS: u32 = 16_000;
/// All files of a message together; WhatsApp takes a hundred megabytes of a document.
pub const MAX_MEDIA_BYTES: u64 = 100_000_000;
/// For all parts and files.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// What WhatsApp shows as what it is, and up to how many bytes; everything else is a
/// document (<https://developers.facebook.com/docs/whatsapp/cloud-api/reference/media>).
const SHOWN: &[(&str, u64, &[&str])] = &[
    ("image", 5_000_000, &["image/jpeg", "image/png"]),
    ("video", 16_000_000, &["video/mp4", "video/3gpp"]),
    (
        "audio",
        16_000_000,
        &["audio/aac", "audio/amr", "audio/mp4", "audio/mpeg", "audio/ogg"],
    ),
    ("sticker", 100_000, &["image/webp"]),
];

/// A file that is at WhatsApp already.
struct Uploaded {
    kind: &'static str,
    id: String,
    name: String,
}

impl Whatsapp {
    pub(super) async fn send_message(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
        let mut uploaded = Vec::new();
        // Before anything leaves: what fails here has not been sent in part.
        for (attachment, bytes) in outbound.attachments.iter().zip(files) {
            match self.upload(attachment, bytes).await {
                Ok(file) => uploaded.push(file),
                Err(failed) => return unsent(failed),
            }
        }
        let messages = match &outbound.template {
            Some(template) => vec![json!({ "type": "template", "template": filled(template, uploaded.first()) })],
            None => messages(&outbound.text, &uploaded),
        };
        let last = messages.len().saturating_sub(1);
        let mut tally = Tally::of(messages.len());
        for (index, mut message) in messages.into_iter().enumerate() {
            self.address(&mut message, outbound, index == 0, index < last);
            if let Err(later) = self.meta.graph.take_turn().await
                && let Err(end) = tally.count(later)
            {
                return end;
            }
            let answer = self
                .meta
                .graph
                .post(&format!("{}/messages", self.number), &message)
                .await;
            if let Err(end) = tally.count(sent(answer)) {
                return end;
            }
        }
        tally.accepted()
    }

    async fn upload(&self, attachment: &Attachment, bytes: &[u8]) -> Result<Uploaded, Failed> {
        let media_type = match attachment.media_type.as_str() {
            "" => "application/octet-stream",
            known => known,
        };
        let form = Form::new()
            .text("messaging_product", "whatsapp")
            .text("type", media_type)
            .file("file", &attachment.name, media_type, bytes);
        let path = format!("{}/media", self.number);
        let answer = self.meta.graph.upload(&path, form).await?;
        match text(&answer, "/id") {
            Some(id) => Ok(Uploaded {
                kind: kind(media_type, bytes.len() as u64),
                id: id.to_owned(),
                name: attachment.name.clone(),
            }),
            None => Err(Failed {
                meaning: None,
                sent: Sent::Later {
                    after: None,
                    error: "Meta's answer names no file".to_owned(),
                },
            }),
        }
    }

    /// To whom it goes, under which name of ours, and what it quotes.
    fn address(&self, message: &mut Value, outbound: &Outbound, is_first: bool, has_more: bool) {
        message["messaging_product"] = json!("whatsapp");
        message["recipient_type"] = json!("individual");
        // The thread is the user's number, or the id of one who shows none.
        match outbound.thread.strip_prefix('+') {
            Some(digits) => message["to"] = json!(digits),
            None => message["recipient"] = json!(outbound.thread),
        }
        let more = if has_more { MORE } else { "" };
        message["biz_opaque_callback_data"] = json!(format!("{}{more}", outbound.message_id));
        if let Some(quoted) = &outbound.quotes
            && is_first
        {
            message["context"] = json!({ "message_id": quoted });
        }
    }
}

/// A file that could not be uploaded: the message has not left.
fn unsent(failed: Failed) -> Sent {
    match failed.sent {
        Sent::Unknown { error } => Sent::Later { after: None, error },
        other => other,
    }
}

fn sent(answer: Result<Value, Failed>) -> Sent {
    match answer {
        Err(failed) => failed.sent,
        Ok(answer) => match text(&answer, "/messages/0/id") {
            Some(id) => Sent::Accepted {
                external_ids: vec![id.to_owned()],
            },
            None => Sent::Unknown {
                error: "WhatsApp's answer names no message".to_owned(),
            },
        },
    }
}

fn kind(media_type: &str, size_bytes: u64) -> &'static str {
    let shown = SHOWN
        .iter()
        .find(|(_, max, types)| types.contains(&media_type) && size_bytes <= *max);
    shown.map_or("document", |(kind, _, _)| kind)
}

/// The text and the files: a short text goes with the first file that can carry it.
fn messages(text: &str, files: &[Uploaded]) -> Vec<Value> {
    let carries = |file: &Uploaded| matches!(file.kind, "image" | "video" | "document");
    let is_caption =
        !text.trim().is_empty() && text.encode_utf16().count() <= CAPTION_UNITS && files.first().is_some_and(carries);
    let mut messages = Vec::new();
    if !is_caption && !text.trim().is_empty() {
        let parts = split(text, PART_UNITS).into_iter();
        messages.extend(parts.map(|part| json!({ "type": "text", "text": { "body": part, "preview_url": false } })));
    }
    for (index, file) in files.iter().enumerate() {
        let caption = (is_caption && index == 0).then_some(text);
        messages.push(json!({ "type": file.kind, file.kind: file.body(caption) }));
    }
    messages
}

impl Uploaded {
    fn body(&self, caption: Option<&str>) -> Value {
        let mut body = json!({ "id": self.id });
        if self.kind == "document" {
            body["filename"] = json!(self.name);
        }
        if let Some(caption) = caption {
            body["caption"] = json!(caption);
        }
        body
    }
}

/// A template, its blanks filled; a file goes into its header.
fn filled(template: &Template, header: Option<&Uploaded>) -> Value {
    let mut components = Vec::new();
    if let Some(file) = header {
        let parameter = json!({ "type": file.kind, file.kind: file.body(None) });
        components.push(json!({ "type": "header", "parameters": [parameter] }));
    }
    if !template.parameters.is_empty() {
        let parameters: Vec<Value> = template
            .parameters
            .iter()
            .map(|text| json!({ "type": "text", "text": text }))
            .collect();
        components.push(json!({ "type": "body", "parameters": parameters }));
    }
    json!({ "name": template.name, "language": { "code": template.language }, "components": components })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: &'static str) -> Uploaded {
        Uploaded {
            kind,
            id: "1".to_owned(),
            name: "a.pdf".to_owned(),
        }
    }

    #[test]
    fn files_are_shown_as_what_they_are_if_whatsapp_can() {
        let check = |media_type: &str, size_bytes: u64, expected: &str| {
            assert_eq!(kind(media_type, size_bytes), expected, "{media_type} {size_bytes}");
        };
        check("image/png", 5_000_000, "image");
        check("image/png", 5_000_001, "document");
        check("image/gif", 1, "document");
        check("video/mp4", 16_000_000, "video");
        check("audio/ogg", 1, "audio");
        check("image/webp", 100_001, "document");
        check("text/plain", 1, "document");
    }

    #[test]
    fn a_short_text_goes_with_the_first_file() {
        let check = |text: &str, files: &[Uploaded], expected: &[(&str, bool)]| {
            let found: Vec<_> = messages(text, files)
                .iter()
                .map(|message| {
                    let kind = message["type"].as_str().unwrap().to_owned();
                    let has_caption = message[&kind]["caption"].is_string();
                    (kind, has_caption)
                })
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(kind, caption)| ((*kind).to_owned(), *caption))
                .collect();
            assert_eq!(found, expected);
        };
        let long = "word ".repeat(300);
        let longer = "word ".repeat(1_000);
        check("hello", &[], &[("text", false)]);
        check(
            "hello",
            &[file("image"), file("image")],
            &[("image", true), ("image", false)],
        );
        check("hello", &[file("audio")], &[("text", false), ("audio", false)]);
        check(&long, &[file("image")], &[("text", false), ("image", false)]);
        check(&longer, &[], &[("text", false), ("text", false)]);
        check("", &[file("document")], &[("document", false)]);
    }

    #[test]
    fn a_template_is_filled() {
        let template = Template {
            name: "order_update".to_owned(),
            language: "en_US".to_owned(),
            parameters: vec!["Ada".to_owned()],
        };
        let expected = json!({ "name": "order_update", "language": { "code": "en_US" }, "components": [
            { "type": "header", "parameters": [{ "type": "document", "document": { "id": "1", "filename": "a.pdf" } }] },
            { "type": "body", "parameters": [{ "type": "text", "text": "Ada" }] },
        ]});
        assert_eq!(filled(&template, Some(&file("document"))), expected);
        let bare = Template {
            parameters: Vec::new(),
            ..template
        };
        assert_eq!(filled(&bare, None)["components"], json!([]));
    }
}
