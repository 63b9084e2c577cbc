//! What mail systems do to a text on its way, and that we undo it: each encoding is
//! done here by hand, or by the library that we send with, and read by our own reader.

use data_encoding::BASE64;
use model::event::{Attachment, Recipient};
use model::id::{ConversationId, MessageId};
use model::outbound::Outbound;
use model::time::Moment;
use proptest::prelude::*;

use super::compose::{Composer, single_spaced};
use super::{address, content, decode, mime, parameters, tokens};
use crate::signature::Keys;

/// What a line of a header or of a text may hold.
const LINE: &str = "[ -~äöüß€\u{1f600}\u{4e2d}\u{301}]{0,60}";
/// As a subject.
const SUBJECT: &str = "[ -~äöüß€\u{1f600}\u{4e2d}]{0,60}";
/// A text of several lines.
const TEXT: &str = "([ -~äöüß€\u{1f600}\u{4e2d}]{0,90}\n){0,8}";

fn keys() -> Keys {
    Keys::new(vec![vec![1; 32]]).unwrap()
}

/// As lines are shown: without what stands at their ends.
fn lines(text: &str) -> Vec<&str> {
    text.trim_end().lines().map(str::trim_end).collect()
}

/// Content-Transfer-Encoding, with soft line ends and whatever may stand for itself.
fn quoted_printable(bytes: &[u8], escaped: &[bool]) -> Vec<u8> {
    let (mut encoded, mut length) = (Vec::new(), 0);
    for (at, byte) in bytes.iter().enumerate() {
        let is_plain = byte.is_ascii_graphic() && *byte != b'=' && !escaped[at % escaped.len()];
        let piece = if is_plain {
            vec![*byte]
        } else {
            format!("={byte:02X}").into_bytes()
        };
        if length + piece.len() > 75 {
            encoded.extend_from_slice(b"=\r\n");
            length = 0;
        }
        length += piece.len();
        encoded.extend(piece);
    }
    encoded
}

/// RFC 2047, in words of a few characters each.
fn encoded_words(text: &str, at_once: usize, is_base64: bool) -> String {
    let characters: Vec<char> = text.chars().collect();
    let word = |piece: &[char]| {
        let piece: String = piece.iter().collect();
        match is_base64 {
            true => format!("=?utf-8?B?{}?=", BASE64.encode(piece.as_bytes())),
            false => {
                let quoted: String = piece.bytes().map(|byte| format!("={byte:02X}")).collect();
                format!("=?UTF-8?q?{quoted}?=")
            }
        }
    };
    let words: Vec<String> = characters.chunks(at_once).map(word).collect();
    words.join("\r\n ")
}

/// RFC 2231: `name*0*=…; name*1*=…`.
fn continued(name: &str, text: &str, at_once: usize) -> String {
    let escaped: Vec<String> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let pieces = escaped.chunks(at_once).enumerate().map(|(index, piece)| {
        let charset = if index == 0 { "utf-8'en'" } else { "" };
        format!(";\r\n {name}*{index}*={charset}{}", piece.concat())
    });
    format!("attachment{}", pieces.collect::<String>())
}

/// RFC 3676: breaks behind spaces, and a space before what would look like something else.
fn flowed(text: &str, breaks: &[bool]) -> String {
    let mut encoded = String::new();
    let mut spaces = breaks.iter().cycle();
    for line in text.lines() {
        let mut rest = line;
        loop {
            if rest.starts_with([' ', '>']) || rest.starts_with("From ") {
                encoded.push(' ');
            }
            let space = rest.find(' ').filter(|_| *spaces.next().unwrap_or(&false));
            // A line that is one space alone would be a signature's or nothing's.
            let Some(space) = space.filter(|space| *space > 2 && *space + 1 < rest.len()) else {
                encoded.push_str(rest);
                encoded.push_str("\r\n");
                break;
            };
            encoded.push_str(&rest[..=space]);
            encoded.push_str("\r\n");
            rest = &rest[space + 1..];
        }
    }
    encoded
}

fn outbound(subject: &str, text: &str, html: Option<String>, name: &str, file: &str) -> Outbound {
    let message_id = MessageId::authored("anna", "1");
    Outbound {
        conversation_id: ConversationId::begun_by(&message_id),
        message_id,
        account: "support".to_owned(),
        thread: "t".to_owned(),
        recipients: vec![Recipient {
            role: "to".to_owned(),
            address: "anna@example.com".to_owned(),
            name: Some(name.to_owned()),
        }],
        subject: Some(subject.to_owned()),
        text: text.to_owned(),
        html,
        attachments: vec![Attachment::here(file, "application/octet-stream", b"")],
        references: Vec::new(),
        quotes: None,
        template: None,
        automatic: false,
        created_at: Moment::from_ms(0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn tokens_name_what_they_were_made_of(key in "[a-z0-9]{1,20}", local in "[a-z]{1,8}", at: prop::sample::Index) {
        let message = MessageId::authored("anna", &key);
        let conversation = ConversationId::begun_by(&message);
        let id = tokens::message_id(&keys(), &message, "example.org");
        prop_assert_eq!(tokens::message_of(&keys(), &id), Some(message.clone()));
        let plus = tokens::plus_address(&keys(), &conversation, &format!("{local}@example.org")).unwrap();
        prop_assert_eq!(tokens::conversation_of(&keys(), &plus), Some(conversation));
        let mark = tokens::loop_mark(&keys(), &message);
        prop_assert!(tokens::is_loop_mark(&keys(), &mark));
        let mut forged = mark.into_bytes();
        let at = at.index(forged.len());
        forged[at] = if forged[at] == b'7' { b'2' } else { b'7' };
        prop_assert!(!tokens::is_loop_mark(&keys(), std::str::from_utf8(&forged).unwrap()));
    }

    #[test]
    fn transfer_encodings_are_undone(bytes in proptest::collection::vec(any::<u8>(), 0..400), escaped in proptest::collection::vec(any::<bool>(), 1..9)) {
        prop_assert_eq!(decode::transfer(b"quoted-printable", &quoted_printable(&bytes, &escaped)), bytes.clone());
        let encoded = BASE64.encode(&bytes).into_bytes();
        let in_lines: Vec<u8> = encoded.chunks(76).flat_map(|line| [line, b"\r\n"].concat()).collect();
        prop_assert_eq!(decode::transfer(b"BASE64", &in_lines), bytes);
    }

    #[test]
    fn charsets_are_undone(text in "[a-zäöü ]{0,40}|[а-я ]{0,40}|[ぁ-ん一-丠]{0,40}", label in prop::sample::select(vec![
        "utf-8", "iso-8859-15", "koi8-r", "windows-1251", "shift_jis", "euc-jp", "iso-2022-jp", "gb18030", "big5",
    ])) {
        let encoding = encoding_rs::Encoding::for_label(label.as_bytes()).unwrap();
        let (bytes, _, cannot) = encoding.encode(&text);
        if !cannot {
            prop_assert_eq!(decode::charset(label, &bytes), text);
        }
    }

    #[test]
    fn encoded_words_are_undone(text in LINE, at_once in 1..12_usize, is_base64: bool) {
        prop_assert_eq!(decode::words(&encoded_words(&text, at_once, is_base64)), text);
    }

    #[test]
    fn parameters_are_undone(text in LINE, at_once in 1..30_usize) {
        let header = continued("filename", &text, at_once);
        let (word, found) = parameters::with_parameters(header.as_bytes());
        prop_assert_eq!(word, "attachment");
        prop_assert_eq!(found.get("filename").cloned().unwrap_or_default(), text.clone());
        // As we name files to browsers.
        let (_, found) = parameters::with_parameters(model::file::disposition(&text).as_bytes());
        prop_assert_eq!(found.get("filename"), Some(&model::file::safe_name(&text)));
    }

    #[test]
    fn flowed_texts_flow_back(text in "(([a-zäß.,>]{1,9} ?){0,14}[a-z]\n){0,6}", breaks in proptest::collection::vec(any::<bool>(), 1..9)) {
        let head = "Content-Type: text/plain; charset=utf-8; format=flowed\r\n\r\n";
        let mail = format!("{head}{}", flowed(&text, &breaks));
        let mail = mime::parse(mail.as_bytes()).unwrap();
        prop_assert_eq!(content::of(&mail).text, text.trim_end());
    }

    #[test]
    fn addresses_are_read_as_they_are_written(names in proptest::collection::vec("[a-zA-Z,;<>()@: äß]{0,20}", 1..5)) {
        let written = |(index, name): (usize, &String)| format!("\"{name}\" <a{index}@example.org>");
        let header: Vec<String> = names.iter().enumerate().map(written).collect();
        let found = address::list(header.join(",\r\n ").as_bytes());
        let expected = names.iter().enumerate().map(|(index, name)| {
            let name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
            address::Mailbox { address: format!("a{index}@example.org"), name }
        });
        prop_assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn what_we_write_is_what_we_would_read(
        subject in SUBJECT,
        text in TEXT,
        with_html: bool,
        name in "[ -~äß€]{0,30}",
        file in "[a-z äß€\"%']{1,30}",
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let composer = Composer {
            address: "support@example.org".to_owned(),
            display_name: None,
            domain: "example.org".to_owned(),
            plus_address: false,
            keys: keys(),
        };
        // Without a text, that of the HTML would be read.
        let html = (with_html && !text.trim().is_empty()).then(|| "<p>Hello</p>".to_owned());
        let outbound = outbound(&subject, &text, html, &name, &file);
        let composed = composer.compose(&outbound, std::slice::from_ref(&bytes)).unwrap();
        prop_assert!(composed.bytes.is_ascii());
        let headers = mime::headers(&composed.bytes);
        prop_assert_eq!(headers.text("subject").unwrap_or_default(), single_spaced(&subject));
        let to = address::list(headers.first("to").unwrap());
        prop_assert_eq!(to.len(), 1);
        prop_assert_eq!(to[0].name.as_deref().unwrap_or_default(), name.trim());
        let content = content::of(&mime::parse(&composed.bytes).unwrap());
        prop_assert_eq!(lines(&content.text), lines(&text));
        prop_assert_eq!(&content.blobs, &vec![bytes]);
        let expected = parameters::file_name(&file).unwrap_or_else(|| "attachment".to_owned());
        prop_assert_eq!(&content.attachments[0].name, &expected);
    }

    #[test]
    fn forms_are_read_as_they_are_written(value in TEXT, name in "[a-z äß]{1,20}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let form = crate::multipart::Form::new().text("text", &value).file("file", &name, "image/png", &bytes);
        let head = format!("Content-Type: {}\r\n\r\n", form.content_type());
        let whole = [head.as_bytes(), &form.finish()].concat();
        let mail = mime::parse(&whole).unwrap();
        let parts: Vec<_> = mail.parts.iter().filter(|part| !part.is_container()).collect();
        prop_assert_eq!(parts.len(), 2);
        prop_assert_eq!(parts[0].bytes(), value.into_bytes());
        prop_assert_eq!(parts[1].bytes(), bytes);
        let (_, said) = parameters::with_parameters(parts[1].headers.first("content-disposition").unwrap());
        prop_assert_eq!(said.get("filename"), Some(&name));
    }
}
