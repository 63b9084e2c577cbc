//! From the JSON of `README.md` to one message.
//!
//! Its sender is a program that gets our answer, so whatever is wrong is refused
//! with the reason and nothing is guessed. serde_json bounds the nesting depth
//! and refuses lone surrogates; the gateway bounds the size.

use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::GeneralPurposeConfig;
use model::contact::Party;
use model::event::{Attachment, Message};
use model::evidence::Evidence;
use model::file;
use model::html;
use model::id::MessageId;
use model::inbound::{Inbound, Realm, What};
use model::time::Moment;
use serde::Deserialize;

use crate::channel::{Answer, Input, Parsed, Unparsed};
use crate::{list, text};

/// Longest name, address, thread or file name, in characters.
const MAX_NAME_CHARS: usize = 512;
/// Longest subject, in characters.
const MAX_SUBJECT_CHARS: usize = 2_000;
/// Longest text, in bytes; more belongs into an attachment.
const MAX_TEXT_BYTES: usize = 256 * 1024;
const MAX_ATTACHMENTS: usize = 100;
/// Longest URL of an attachment, in bytes.
const MAX_URL_BYTES: usize = 4_000;
/// Longest `webhook-id`, in characters.
const MAX_ID_CHARS: usize = 256;

/// All names of the shape, to tell which one was meant.
const FIELDS: &[&str] = &[
    "from",
    "address",
    "name",
    "subject",
    "text",
    "html",
    "thread",
    "sent_at",
    "attachments",
    "media_type",
    "content",
    "url",
];

/// Padding or not, both are read.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Post {
    from: From,
    subject: Option<String>,
    text: Option<String>,
    html: Option<String>,
    thread: Option<String>,
    sent_at: Option<String>,
    #[serde(default)]
    attachments: Vec<File>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    address: String,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    media_type: Option<String>,
    content: Option<String>,
    /// Instead of `content`: where we fetch it.
    url: Option<String>,
}

/// One post is one message; its external id is its `webhook-id`.
pub fn parse(account: &str, input: &Input) -> Result<Parsed, Unparsed> {
    let external_id = external_id(input)?;
    // serde would also take an array of the fields in their order.
    if input.body.trim_ascii_start().first() != Some(&b'{') {
        return Err(rejected("the body is no JSON object"));
    }
    let post: Post = serde_json::from_slice(&input.body).map_err(unreadable)?;
    check(&post)?;
    let occurred_at = match &post.sent_at {
        Some(text) => Some(Moment::parse(text).ok_or_else(|| rejected("sent_at is no RFC 3339 moment"))?),
        None => None,
    };
    let (text, html) = contents(post.text, post.html)?;
    let (attachments, blobs) = files(post.attachments)?;
    let sender = Party {
        // Two systems may use the same address for different people.
        scheme: format!("webhook/{account}"),
        address: post.from.address.trim().to_owned(),
        name: post.from.name.filter(|name| !name.trim().is_empty()),
        verified: true,
    };
    let message = Message {
        subject: post.subject.filter(|subject| !subject.trim().is_empty()),
        html,
        attachments,
        evidence: Evidence {
            thread: post.thread.clone(),
            ..Evidence::default()
        },
        external_ids: vec![external_id.to_owned()],
        ..Message::new(sender, text)
    };
    let message_id = MessageId::received(Realm::Account.as_text(account), "webhook", external_id);
    Ok(Parsed {
        events: vec![Inbound {
            realm: Realm::Account,
            external_id: external_id.to_owned(),
            thread: post.thread.unwrap_or_else(|| external_id.to_owned()),
            occurred_at,
            provider_sequence: None,
            raw: None,
            blobs,
            what: What::Message(Box::new(message)),
        }],
        answer: Answer {
            status: 200,
            content_type: "application/json",
            body: serde_json::json!({ "message_id": message_id.as_str() }).to_string(),
        },
    })
}

fn external_id(input: &Input) -> Result<&str, Unparsed> {
    let id = input.header("webhook-id").unwrap_or_default().trim();
    if id.is_empty() {
        return Err(rejected("webhook-id is missing"));
    }
    at_most("webhook-id", id, MAX_ID_CHARS)?;
    Ok(id)
}

fn check(post: &Post) -> Result<(), Unparsed> {
    if post.from.address.trim().is_empty() {
        return Err(rejected("from.address is empty"));
    }
    if post.thread.as_ref().is_some_and(|thread| thread.trim().is_empty()) {
        return Err(rejected("thread is empty: leave it out, or name the thread"));
    }
    let lines = [
        ("from.address", Some(&post.from.address), MAX_NAME_CHARS),
        ("from.name", post.from.name.as_ref(), MAX_NAME_CHARS),
        ("thread", post.thread.as_ref(), MAX_NAME_CHARS),
        ("subject", post.subject.as_ref(), MAX_SUBJECT_CHARS),
    ];
    for (what, line, max_chars) in lines {
        let line = line.map(String::as_str).unwrap_or_default();
        at_most(what, line, max_chars)?;
        // Names that are compared; what is only shown is mended.
        let is_compared = matches!(what, "from.address" | "thread");
        if is_compared && !text::is_one_line(line) {
            return Err(rejected(format!(
                "{what} has a line end or another control character: it must be one line of text"
            )));
        }
    }
    if post.attachments.len() > MAX_ATTACHMENTS {
        return Err(rejected(format!("more than {MAX_ATTACHMENTS} attachments")));
    }
    if post.text.as_ref().is_some_and(|text| text.len() > MAX_TEXT_BYTES) {
        return Err(rejected(format!(
            "text is longer than {MAX_TEXT_BYTES} bytes: send it as an attachment"
        )));
    }
    if post.html.as_ref().is_some_and(|html| html.len() > html::MAX_BYTES) {
        return Err(rejected(format!(
            "html is longer than {} bytes: send it as an attachment",
            html::MAX_BYTES
        )));
    }
    Ok(())
}

/// The text, from the HTML if there is no other; and the HTML, sanitised.
fn contents(text: Option<String>, html: Option<String>) -> Result<(String, Option<String>), Unparsed> {
    let text = text.filter(|text| !text.trim().is_empty());
    let html = html.filter(|html| !html.trim().is_empty());
    match (text, html) {
        (None, None) => Err(rejected("neither text nor html says anything")),
        (Some(text), None) => Ok((text, None)),
        (text, Some(html)) => {
            let cleaned = html::clean(&html);
            Ok((text.unwrap_or(cleaned.text), cleaned.html))
        }
    }
}

fn files(files: Vec<File>) -> Result<(Vec<Attachment>, Vec<Vec<u8>>), Unparsed> {
    let mut attachments = Vec::new();
    let mut blobs = Vec::new();
    for (index, file) in files.into_iter().enumerate() {
        at_most("the name of an attachment", &file.name, MAX_NAME_CHARS)?;
        let name = file::safe_name(&file.name);
        let media_type = media_type(file.media_type, index)?;
        match (file.content, file.url) {
            (Some(content), None) => {
                let bytes = BASE64
                    .decode(&content)
                    .map_err(|_| rejected(format!("attachments[{index}].content is not base64")))?;
                attachments.push(Attachment::here(name, media_type, &bytes));
                blobs.push(bytes);
            }
            (None, Some(url)) => {
                check_url(&url).map_err(|reason| rejected(format!("attachments[{index}].url: {reason}")))?;
                attachments.push(Attachment::at(name, media_type, url));
            }
            (Some(_), Some(_)) => return Err(rejected(format!("attachments[{index}] has both content and url"))),
            (None, None) => return Err(rejected(format!("attachments[{index}] has neither content nor url"))),
        }
    }
    Ok((attachments, blobs))
}

/// Where it leads to is checked when it is fetched.
fn check_url(text: &str) -> Result<(), String> {
    if text.len() > MAX_URL_BYTES {
        return Err(format!("longer than {MAX_URL_BYTES} bytes"));
    }
    let url = url::Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    match url.scheme() {
        "http" | "https" => Ok(()),
        other => Err(format!("{other}: only http and https are fetched")),
    }
}

fn media_type(declared: Option<String>, index: usize) -> Result<String, Unparsed> {
    let declared = declared.unwrap_or_else(|| "application/octet-stream".to_owned());
    let is_plain = declared.len() <= 255 && declared.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !is_plain || !declared.contains('/') {
        return Err(rejected(format!("attachments[{index}].media_type is no media type")));
    }
    Ok(declared)
}

fn at_most(what: &str, text: &str, max_chars: usize) -> Result<(), Unparsed> {
    if text.len() > max_chars && text.chars().count() > max_chars {
        return Err(rejected(format!("{what} is longer than {max_chars} characters")));
    }
    Ok(())
}

/// serde's words; for an unknown field also the one that was probably meant.
fn unreadable(error: serde_json::Error) -> Unparsed {
    let text = error.to_string();
    let unknown = text
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split('`').next());
    match unknown.and_then(|field| list::nearest(field, FIELDS)) {
        Some(meant) => rejected(format!("{text}; did you mean `{meant}`?")),
        None => rejected(text),
    }
}

fn rejected(reason: impl Into<String>) -> Unparsed {
    Unparsed::Rejected { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(id: &str, body: impl Into<Vec<u8>>) -> Input {
        Input {
            method: "POST".to_owned(),
            url: "/in/shop".to_owned(),
            headers: vec![("webhook-id".to_owned(), id.to_owned())],
            body: body.into().into(),
            received_at: Moment::from_ms(0),
        }
    }

    fn message(inbound: &Inbound) -> &Message {
        match &inbound.what {
            What::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }

    /// Each payload of `testdata/` and what is made of it. To renew a snapshot,
    /// delete it and run the test.
    #[test]
    fn payloads_parse_as_before() {
        let count = crate::contract::snapshots("src/webhook/testdata", "json", |bytes| {
            format!("{:#?}\n", parse("shop", &input("evt_1", bytes)))
        });
        assert!(count >= 4, "{count} payloads");
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_reason() {
        let check = |body: &str, expected: &str| match parse("shop", &input("evt_1", body)) {
            Err(Unparsed::Rejected { reason }) => assert!(reason.contains(expected), "{body:.100}: {reason}"),
            other => panic!("{body:.100}: {other:?}"),
        };
        check("", "no JSON object");
        check("{", "EOF");
        check("[]", "no JSON object");
        check("{}", "missing field `from`");
        check(r#"{"from":{"address":"a"},"txt":"x"}"#, "did you mean `text`?");
        check(r#"{"from":{"adress":"a"},"text":"x"}"#, "did you mean `address`?");
        check(r#"{"from":{"address":"a"},"zzzzzzzz":"x"}"#, "unknown field `zzzzzzzz`");
        check(r#"{"from":{"address":" "},"text":"x"}"#, "from.address is empty");
        check(r#"{"from":{"address":"a"}}"#, "neither text nor html");
        check(
            r#"{"from":{"address":"a"},"text":" \n","html":""}"#,
            "neither text nor html",
        );
        check(r#"{"from":{"address":"a"},"text":"x","thread":""}"#, "thread is empty");
        check(
            r#"{"from":{"address":"a"},"text":"x","sent_at":"yesterday"}"#,
            "sent_at",
        );
        check("{\"from\":{\"address\":\"a\"},\"text\":\"x\0\"}", "control character");
        check(r#"{"from":{"address":"a"},"text":"\ud800"}"#, "hex escape");
        check(r#"{"from":{"address":"a"},"text":"\udc00x"}"#, "surrogate");
        check(
            r#"{"from":{"address":"a"},"text":"x","attachments":[{"name":"f","content":"?"}]}"#,
            "base64",
        );
        let file =
            |rest: &str| format!(r#"{{"from":{{"address":"a"}},"text":"x","attachments":[{{"name":"f"{rest}}}]}}"#);
        check(&file(""), "neither content nor url");
        check(
            &file(r#","content":"","url":"https://a.example/f""#),
            "both content and url",
        );
        check(&file(r#","url":"a.example/f""#), "attachments[0].url: not a URL");
        check(&file(r#","url":"file:///etc/passwd""#), "only http and https");
        check(
            &file(&format!(r#","url":"https://a.example/{}""#, "x".repeat(4_000))),
            "longer than",
        );
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        check(
            &format!(r#"{{"from":{{"address":"a"}},"text":"{long}"}}"#),
            "send it as an attachment",
        );
        let long = "ü".repeat(513);
        check(
            &format!(r#"{{"from":{{"address":"{long}"}},"text":"x"}}"#),
            "from.address is longer",
        );
        for character in ["\\r\\n", "\\u0000", "\\u001b", "\\u0085", "\\u2028", "\\t"] {
            let with = |field: &str| format!(r#"{{"from":{{"address":"a"}},"text":"x","{field}":"a{character}b"}}"#);
            check(&with("thread"), "thread has a line end");
            assert!(parse("shop", &input("evt_1", with("subject"))).is_ok(), "it is mended");
            let from = format!(r#"{{"from":{{"address":"a{character}"}},"text":"x"}}"#);
            check(&from, "from.address has a line end");
        }
        check(&"[".repeat(100_000), "no JSON object");
        check(&r#"{"from":"#.repeat(100_000), "unknown field");
        check(&format!(r#"{{"text":{}"#, "[".repeat(100_000)), "invalid type");
    }

    #[test]
    fn the_webhook_id_names_the_message() {
        let body = r#"{"from":{"address":"a"},"text":"x"}"#;
        for id in ["", " ", &"x".repeat(257)] {
            assert!(parse("shop", &input(id, body)).is_err(), "{id}");
        }
        let parsed = parse("shop", &input("evt_1", body)).unwrap();
        let again = parse("shop", &input("evt_1", body)).unwrap();
        assert_eq!(parsed.events, again.events);
        assert_eq!(parsed.events[0].external_id, "evt_1");
        assert_eq!(parsed.events[0].thread, "evt_1");
        assert_eq!(message(&parsed.events[0]).evidence.thread, None);
        let expected = MessageId::received("shop", "webhook", "evt_1");
        assert_eq!(parsed.answer.body, format!(r#"{{"message_id":"{expected}"}}"#));
    }
}
