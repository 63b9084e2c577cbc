//! What a mail says: its text, its HTML and its attachments, chosen among its
//! parts as RFC 8621 (section 4.1.4) does.

use std::collections::{BTreeSet, HashMap};

use model::event::Attachment;
use model::html;

use super::mime::{Mail, Part};
use super::{decode, parameters};

/// Longer text is cut, and its part kept as an attachment.
const MAX_TEXT_BYTES: usize = 256 * 1024;
/// HTML of one mail beyond this is not sanitised, but kept as an attachment.
const MAX_HTML_BYTES: usize = 2 * html::MAX_BYTES;
/// Nor are more parts than this: each may be nested as deep as it takes long.
const MAX_HTML_PARTS: usize = 50;
/// Of a part of plain text, so much is decoded to be shown.
const MAX_DECODED_BYTES: usize = 4 * MAX_TEXT_BYTES;

/// The parts of a mail by what they are for.
#[derive(Debug, Default)]
pub struct Content {
    pub text: String,
    /// Sanitised.
    pub html: Option<String>,
    pub attachments: Vec<Attachment>,
    /// Bytes of the attachments, in their order.
    pub blobs: Vec<Vec<u8>>,
}

/// Chooses and decodes.
pub fn of(mail: &Mail) -> Content {
    let mut choice = Choice::default();
    choice.visit(mail, &[0], "mixed", Place::default());
    let mut content = Content::default();
    let cleaned = choice.cleaned(mail);
    content.take_text(mail, &choice, &cleaned);
    content.take_html(mail, &choice, &cleaned);
    for part in &choice.attachments {
        content.attach(&mail.parts[*part]);
    }
    content
}

/// Numbers of parts.
#[derive(Default)]
struct Choice {
    text: Vec<usize>,
    html: Vec<usize>,
    attachments: Vec<usize>,
}

/// Which bodies the parts at this place may belong to.
#[derive(Clone, Copy)]
struct Place {
    is_in_alternative: bool,
    for_text: bool,
    for_html: bool,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            is_in_alternative: false,
            for_text: true,
            for_html: true,
        }
    }
}

impl Choice {
    fn visit(&mut self, mail: &Mail, parts: &[usize], container: &str, mut place: Place) {
        let (text_before, html_before) = (self.text.len(), self.html.len());
        for (position, number) in parts.iter().enumerate() {
            let part = &mail.parts[*number];
            if part.is_container() {
                let kind = part.media_type.strip_prefix("multipart/").unwrap_or("mixed");
                let inner = Place {
                    is_in_alternative: place.is_in_alternative || kind == "alternative",
                    ..place
                };
                self.visit(mail, &part.children, kind, inner);
            } else if !is_inline(part, position, container) {
                self.attachments.push(*number);
            } else if container == "alternative" {
                match part.media_type.as_str() {
                    "text/html" if place.for_html => self.html.push(*number),
                    "text/html" => {}
                    _ if !is_text(part) => self.attachments.push(*number),
                    _ if place.for_text => self.text.push(*number),
                    _ => {}
                }
            } else {
                if place.is_in_alternative {
                    match part.media_type.as_str() {
                        "text/html" => place.for_text = false,
                        "text/plain" => place.for_html = false,
                        _ => {}
                    }
                }
                self.take(part, *number, place);
            }
        }
        if container == "alternative" && place.for_text && place.for_html {
            // Only one of the two was offered: it serves for both.
            if self.text.len() == text_before {
                self.text.extend_from_slice(&self.html[html_before..]);
            } else if self.html.len() == html_before {
                self.html.extend_from_slice(&self.text[text_before..]);
            }
        }
    }

    /// The HTML parts by their numbers, sanitised; what is over the budget of the
    /// mail is missing.
    fn cleaned(&self, mail: &Mail) -> HashMap<usize, html::Cleaned> {
        let mut budget = MAX_HTML_BYTES;
        let mut cleaned = HashMap::new();
        for number in self.text.iter().chain(&self.html) {
            let part = &mail.parts[*number];
            let is_new = part.media_type == "text/html" && !cleaned.contains_key(number);
            if is_new && cleaned.len() < MAX_HTML_PARTS && part.body.len() <= budget {
                budget -= part.body.len();
                cleaned.insert(*number, html::clean(&charset_text(part)));
            }
        }
        cleaned
    }

    fn take(&mut self, part: &Part, number: usize, place: Place) {
        let is_shown = place.for_text || place.for_html;
        if !is_text(part) || !is_shown {
            self.attachments.push(number);
            return;
        }
        if place.for_text {
            self.text.push(number);
        }
        if place.for_html {
            self.html.push(number);
        }
    }
}

impl Content {
    fn take_text(&mut self, mail: &Mail, choice: &Choice, cleaned: &HashMap<usize, html::Cleaned>) {
        let mut is_whole = true;
        for number in &choice.text {
            is_whole &= self.text.len() <= MAX_TEXT_BYTES;
            if !is_whole {
                break;
            }
            let part = &mail.parts[*number];
            let text = match part.media_type.as_str() {
                "text/html" => cleaned
                    .get(number)
                    .map(|cleaned| cleaned.text.clone())
                    .unwrap_or_default(),
                _ => {
                    let (text, is_all) = plain_text(part);
                    is_whole &= is_all;
                    text
                }
            };
            if !self.text.is_empty() && !text.is_empty() {
                self.text.push('\n');
            }
            self.text.push_str(&text);
        }
        if self.text.trim().is_empty() {
            let texts = choice.html.iter().filter_map(|number| cleaned.get(number));
            self.text = texts
                .map(|cleaned| cleaned.text.as_str())
                .collect::<Vec<_>>()
                .join("\n");
        }
        if !is_whole || self.text.len() > MAX_TEXT_BYTES {
            self.text.truncate(self.text.floor_char_boundary(MAX_TEXT_BYTES));
            for part in choice.text.iter().map(|number| &mail.parts[*number]) {
                // HTML is kept by `take_html`.
                if part.media_type != "text/html" {
                    self.attach(part);
                }
            }
        }
    }

    fn take_html(&mut self, mail: &Mail, choice: &Choice, cleaned: &HashMap<usize, html::Cleaned>) {
        let is_html = |number: &usize| mail.parts[*number].media_type == "text/html";
        let mut body = String::new();
        let mut is_whole = true;
        for number in all_html(mail, choice) {
            is_whole &= cleaned.get(&number).is_some_and(|cleaned| cleaned.html.is_some());
        }
        for number in &choice.html {
            is_whole &= body.len() <= MAX_HTML_BYTES;
            if !is_whole {
                break;
            }
            if !body.is_empty() {
                body.push_str("<br>");
            }
            match cleaned.get(number).and_then(|cleaned| cleaned.html.as_ref()) {
                Some(html) => body.push_str(html),
                None if is_html(number) => {}
                None => {
                    let (text, is_all) = plain_text(&mail.parts[*number]);
                    is_whole &= is_all;
                    body.push_str(&escaped(&text));
                }
            }
        }
        if !is_whole {
            // Too large or too deep to show: its text stands, the rest is kept.
            for number in all_html(mail, choice) {
                self.attach(&mail.parts[number]);
            }
        } else if choice.html.iter().any(is_html) {
            self.html = (!body.is_empty()).then_some(body);
        }
    }

    fn attach(&mut self, part: &Part) {
        let bytes = part.bytes();
        self.attachments.push(Attachment {
            content_id: content_id(part),
            ..Attachment::here(file_name(part), media_type(part), &bytes)
        });
        self.blobs.push(bytes);
    }
}

/// Numbers of the HTML parts, each once.
fn all_html(mail: &Mail, choice: &Choice) -> BTreeSet<usize> {
    let numbers = choice.html.iter().chain(&choice.text).copied();
    numbers
        .filter(|number| mail.parts[*number].media_type == "text/html")
        .collect()
}

/// RFC 8621: shown in place, not offered as a file.
fn is_inline(part: &Part, position: usize, container: &str) -> bool {
    let is_media = is_media(part);
    if is_attachment(part) || !(is_text(part) || is_media) {
        return false;
    }
    position == 0 || (container != "related" && (is_media || named(part).is_none()))
}

/// A container without parts is taken for plain text.
fn is_text(part: &Part) -> bool {
    matches!(part.media_type.as_str(), "text/plain" | "text/html") || part.media_type.starts_with("multipart/")
}

fn is_media(part: &Part) -> bool {
    ["image/", "audio/", "video/"]
        .iter()
        .any(|kind| part.media_type.starts_with(kind))
}

fn is_attachment(part: &Part) -> bool {
    let (disposition, _) = parameters::with_parameters(part.headers.first("content-disposition").unwrap_or_default());
    disposition == "attachment"
}

fn charset_text(part: &Part) -> String {
    decode::charset(label(part), &part.bytes())
}

fn label<'a>(part: &'a Part) -> &'a str {
    part.parameters.get("charset").map_or("", String::as_str)
}

/// Lines end in a line feed; soft line ends (RFC 3676, `format=flowed`) are undone.
/// And whether it is all of it.
fn plain_text(part: &Part) -> (String, bool) {
    let mut bytes = part.bytes();
    let is_all = bytes.len() <= MAX_DECODED_BYTES;
    bytes.truncate(MAX_DECODED_BYTES);
    (unfolded(part, &decode::charset(label(part), &bytes)), is_all)
}

fn unfolded(part: &Part, text: &str) -> String {
    let parameter = |name: &str, value: &str| {
        part.parameters
            .get(name)
            .is_some_and(|found| found.eq_ignore_ascii_case(value))
    };
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    if !parameter("format", "flowed") {
        return text.trim_end().to_owned();
    }
    let mut flowed = String::with_capacity(text.len());
    for line in text.lines() {
        // `-- ` stands before a signature, and quotes keep their lines; a `>` behind a
        // space is the writer's own.
        let is_quoted = line.starts_with('>');
        let line = line.strip_prefix(' ').unwrap_or(line);
        let is_soft = line.ends_with(' ') && line != "-- " && !is_quoted;
        match (is_soft, parameter("delsp", "yes")) {
            (true, true) => flowed.push_str(&line[..line.len() - 1]),
            (true, false) => flowed.push_str(line),
            (false, _) => {
                flowed.push_str(line);
                flowed.push('\n');
            }
        }
    }
    flowed.trim_end().to_owned()
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<p>{}</p>", text.replace('\n', "<br>"))
}

/// The name that the sender gave the part, if any.
fn named(part: &Part) -> Option<String> {
    let (_, disposition) = parameters::with_parameters(part.headers.first("content-disposition").unwrap_or_default());
    let name = disposition.get("filename").or_else(|| part.parameters.get("name"));
    name.and_then(|name| parameters::file_name(name))
}

fn file_name(part: &Part) -> String {
    if let Some(name) = named(part) {
        return name;
    }
    let name = match part.media_type.as_str() {
        "message/rfc822" | "message/global" => {
            let subject = super::mime::headers(&part.bytes()).text("subject");
            let subject = subject.map(|subject| subject.replace(['/', '\\'], "-"));
            return subject
                .and_then(|subject| parameters::file_name(&format!("{subject}.eml")))
                .unwrap_or_else(|| "message.eml".to_owned());
        }
        "text/plain" => "text.txt",
        "text/html" => "text.html",
        "text/calendar" => "invite.ics",
        "text/rfc822-headers" => "headers.txt",
        "message/delivery-status" | "message/global-delivery-status" => "delivery-status.txt",
        "image/png" => "image.png",
        "image/jpeg" => "image.jpg",
        "image/gif" => "image.gif",
        "application/pdf" => "document.pdf",
        "application/pkcs7-signature" | "application/x-pkcs7-signature" => "smime.p7s",
        "application/pkcs7-mime" | "application/x-pkcs7-mime" => "smime.p7m",
        "application/pgp-signature" => "signature.asc",
        _ => "attachment",
    };
    name.to_owned()
}

/// Bounded, and of the form that it claims.
fn media_type(part: &Part) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/+-._!#$&^".contains(&byte);
    match part.media_type.len() <= 127 && part.media_type.bytes().all(is_plain) {
        true => part.media_type.clone(),
        false => "application/octet-stream".to_owned(),
    }
}

fn content_id(part: &Part) -> Option<String> {
    let id = part.headers.text("content-id")?;
    let id = id.trim_start_matches('<').trim_end_matches('>');
    (1..=998).contains(&id.len()).then(|| id.to_owned())
}
