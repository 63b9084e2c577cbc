//! What a message of Messenger or Instagram says: words, files and fields. Words that
//! are ours, not the customer's, stand in brackets.

use std::collections::BTreeMap;

use model::event::Attachment;
use serde_json::Value;

use crate::media::file_name;
use crate::meta::text;

/// Files of one message; the two take about thirty.
const MAX_ATTACHMENTS: usize = 50;

/// Kinds of attachments whose bytes are fetched and kept, and as what they are
/// declared until they are here.
const KEPT: &[(&str, &str)] = &[
    ("image", "image/jpeg"),
    ("video", "video/mp4"),
    ("audio", "audio/mp4"),
    ("file", "application/octet-stream"),
];

/// What is said.
#[derive(Default)]
pub struct Content {
    pub text: String,
    pub attachments: Vec<Attachment>,
    pub fields: BTreeMap<String, String>,
}

/// The content of a message.
pub fn of(message: &Value) -> Content {
    let mut content = Content {
        text: text(message, "/text").unwrap_or_default().to_owned(),
        ..Content::default()
    };
    if message["is_unsupported"] == true {
        content.add("[a message of a kind that is not handed on]");
    }
    for attachment in message["attachments"]
        .as_array()
        .into_iter()
        .flatten()
        .take(MAX_ATTACHMENTS)
    {
        content.attach(attachment);
    }
    content.field("button", text(message, "/quick_reply/payload"));
    content.field("story", text(message, "/reply_to/story/url"));
    content.refer(&message["referral"]);
    content
}

/// The content of a postback: a button that stays.
pub fn of_postback(postback: &Value) -> Content {
    let title = text(postback, "/title").or(text(postback, "/payload"));
    let mut content = Content {
        text: title.unwrap_or_default().to_owned(),
        ..Content::default()
    };
    content.field("button", text(postback, "/payload"));
    content.refer(&postback["referral"]);
    content
}

impl Content {
    fn field(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.fields.insert(name.to_owned(), value.to_owned());
        }
    }

    fn add(&mut self, line: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(line);
    }

    /// The advertisement, link or code by which they came.
    fn refer(&mut self, referral: &Value) {
        for name in ["ref", "source", "type", "ad_id", "referer_uri"] {
            self.field(&format!("referral.{name}"), text(referral, &format!("/{name}")));
        }
    }

    fn attach(&mut self, attachment: &Value) {
        let kind = text(attachment, "/type").unwrap_or("unknown");
        let payload = &attachment["payload"];
        let url = text(payload, "/url").or(text(attachment, "/url"));
        let kept = KEPT.iter().find(|(known, _)| *known == kind);
        match (kept, url) {
            (Some((_, media_type)), Some(url)) => {
                let count = self.attachments.len() + 1;
                let name = named_by(url).unwrap_or_else(|| file_name(&format!("{kind}-{count}"), media_type));
                self.attachments.push(Attachment::at(name, *media_type, url));
            }
            // Shared posts, and mentions in stories, which must not be kept: where they are.
            (None, Some(url)) => {
                let title = text(payload, "/title")
                    .or(text(attachment, "/title"))
                    .unwrap_or_default();
                self.add(format!("[{kind}] {title} {url}").replace("  ", " ").trim_end());
            }
            (_, None) => self.place(kind, payload),
        }
    }

    fn place(&mut self, kind: &str, payload: &Value) {
        let coordinates = &payload["coordinates"];
        match (coordinates["lat"].as_f64(), coordinates["long"].as_f64()) {
            (Some(latitude), Some(longitude)) => {
                self.add(&format!("[location] {latitude}, {longitude}"));
                self.field("location.latitude", Some(&latitude.to_string()));
                self.field("location.longitude", Some(&longitude.to_string()));
            }
            _ => self.add(&format!("[{kind}]")),
        }
    }
}

/// The last piece of a URL's path, if it looks like a file.
fn named_by(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let last = url.path_segments()?.next_back()?;
    let is_file = last.len() <= 100
        && last
            .rsplit_once('.')
            .is_some_and(|(stem, end)| !stem.is_empty() && end.len() <= 5);
    is_file.then(|| last.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_link() {
        let check = |url: &str, expected: Option<&str>| assert_eq!(named_by(url).as_deref(), expected, "{url}");
        check("https://cdn.fbsbx.com/v/t59/bill.pdf?x=1", Some("bill.pdf"));
        check("https://cdn.fbsbx.com/v/t59/", None);
        check("https://lookaside.fbsbx.com/ig_messaging_cdn?asset_id=1", None);
        check("no url", None);
    }
}
