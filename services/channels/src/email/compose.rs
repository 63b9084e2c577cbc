//! A message of ours becomes a mail: the same one for every attempt to send it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lettre::address::Envelope;
use lettre::message::header::{ContentType, Date, HeaderName, HeaderValue, MimeVersion, Subject};
use lettre::message::{Attachment, Mailbox, MessageBuilder, MultiPart, SinglePart};
use lettre::{Address, Message};
use model::event::Recipient;
use model::id::MessageId;
use model::outbound::Outbound;

use super::{address, tokens};
use crate::signature::Keys;

/// References beyond the first are cut to the latest (RFC 5322 sets no limit, servers do).
const MAX_LATEST_REFERENCES: usize = 20;
/// A header line may have 998 characters.
const MAX_ID_BYTES: usize = 900;

/// What our mails are made with.
pub struct Composer {
    pub address: String,
    pub display_name: Option<String>,
    /// Behind the `@` of our Message-IDs.
    pub domain: String,
    pub plus_address: bool,
    pub keys: Keys,
}

/// A mail and where it goes.
pub struct Composed {
    pub envelope: Envelope,
    pub bytes: Vec<u8>,
    pub message_id: String,
}

impl Composer {
    /// `files`: the bytes of the attachments, in their order. An error says why
    /// this can never be sent.
    pub fn compose(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Result<Composed, String> {
        let from = self.mailbox(&self.address)?;
        let to = recipients(outbound, "to");
        let cc = recipients(outbound, "cc");
        let addresses: Vec<Address> = to.iter().chain(&cc).map(|mailbox| mailbox.email.clone()).collect();
        if addresses.is_empty() {
            return Err("it has no recipient with an e-mail address".to_owned());
        }
        let envelope = Envelope::new(Some(from.email.clone()), addresses).map_err(|error| error.to_string())?;
        let message_id = tokens::message_id(&self.keys, &outbound.message_id, &self.domain);
        let references = self.references(outbound);
        let mut builder = Message::builder()
            .envelope(envelope.clone())
            .header(Date::new(moment(outbound)))
            .from(from)
            .header(Subject::from(subject(outbound, !references.is_empty())))
            .raw_header(id_header("Message-ID", &message_id))
            .header(MimeVersion::new(1, 0));
        builder = to.into_iter().fold(builder, MessageBuilder::to);
        builder = cc.into_iter().fold(builder, MessageBuilder::cc);
        if let Some(parent) = references.last() {
            builder = builder
                .raw_header(id_header("In-Reply-To", parent))
                .raw_header(id_header("References", &references.join("\r\n ")));
        }
        if self.plus_address
            && let Some(address) = tokens::plus_address(&self.keys, &outbound.conversation_id, &self.address)
        {
            builder = builder.reply_to(self.mailbox(&address)?);
        }
        builder = builder.raw_header(id_header(
            tokens::LOOP_HEADER,
            &tokens::loop_mark(&self.keys, &outbound.message_id),
        ));
        if outbound.automatic {
            builder = builder
                .raw_header(id_header("Auto-Submitted", "auto-replied"))
                .raw_header(id_header("X-Auto-Response-Suppress", "All"))
                .raw_header(id_header("Precedence", "auto_reply"));
        }
        let message = with_content(builder, outbound, files)?;
        Ok(Composed {
            envelope,
            bytes: message.formatted(),
            message_id,
        })
    }

    fn mailbox(&self, address: &str) -> Result<Mailbox, String> {
        let email: Address = address.parse().map_err(|error| format!("address {address}: {error}"))?;
        Ok(Mailbox::new(self.display_name.as_deref().map(one_line), email))
    }

    /// Message-IDs of the thread, the parent last. Ids of other kinds are left
    /// out, and a message of ours is called by the Message-ID that it was sent with.
    fn references(&self, outbound: &Outbound) -> Vec<String> {
        let mut references: Vec<String> = Vec::new();
        for id in &outbound.references {
            let id = match MessageId::parse(id) {
                Some(ours) => tokens::message_id(&self.keys, &ours, &self.domain),
                None => id.clone(),
            };
            let is_id = id.starts_with('<')
                && id.ends_with('>')
                && id.len() <= MAX_ID_BYTES
                && id.bytes().all(|byte| byte.is_ascii_graphic());
            if is_id {
                references.retain(|known| *known != id);
                references.push(id);
            }
        }
        if references.len() > MAX_LATEST_REFERENCES + 1 {
            references.drain(1..references.len() - MAX_LATEST_REFERENCES);
        }
        references
    }
}

/// Addresses that cannot be written to are left out.
fn recipients(outbound: &Outbound, role: &str) -> Vec<Mailbox> {
    let in_role = outbound.recipients.iter().filter(|recipient| recipient.role == role);
    in_role.filter_map(mailbox_of).collect()
}

fn mailbox_of(recipient: &Recipient) -> Option<Mailbox> {
    if !address::is_sane(&recipient.address) {
        return None;
    }
    let email: Address = recipient.address.parse().ok()?;
    let name = recipient.name.as_deref().map(one_line);
    Some(Mailbox::new(name.filter(|name| !name.is_empty()), email))
}

/// `Re:` in front of an answer's subject, once.
fn subject(outbound: &Outbound, is_answer: bool) -> String {
    const ANSWERS: [&str; 6] = ["re:", "aw:", "sv:", "vs:", "antw:", "ref:"];
    // Where both neighbours have to be encoded, lettre leaves out more than one space.
    let subject = single_spaced(&one_line(outbound.subject.as_deref().unwrap_or_default()));
    let lower = subject.to_lowercase();
    match is_answer && !ANSWERS.iter().any(|prefix| lower.starts_with(prefix)) {
        true => format!("Re: {subject}").trim_end().to_owned(),
        false => subject,
    }
}

fn with_content(builder: MessageBuilder, outbound: &Outbound, files: &[Vec<u8>]) -> Result<Message, String> {
    let text = outbound.text.replace('\0', "");
    let html = outbound.html.as_ref().map(|html| html.replace('\0', ""));
    let alternative = |html: String| MultiPart::alternative_plain_html(text.clone(), html);
    let built = if files.is_empty() {
        match html {
            Some(html) => builder.multipart(alternative(html)),
            None => builder.singlepart(SinglePart::plain(text)),
        }
    } else {
        let mut mixed = match html {
            Some(html) => MultiPart::mixed().multipart(alternative(html)),
            None => MultiPart::mixed().singlepart(SinglePart::plain(text)),
        };
        for (attachment, bytes) in outbound.attachments.iter().zip(files) {
            let media_type = ContentType::parse(&attachment.media_type);
            let media_type = media_type.or_else(|_| ContentType::parse("application/octet-stream"));
            let media_type = media_type.map_err(|error| error.to_string())?;
            mixed = mixed.singlepart(Attachment::new(one_line(&attachment.name)).body(bytes.clone(), media_type));
        }
        builder.multipart(mixed)
    };
    built.map_err(|error| error.to_string())
}

fn moment(outbound: &Outbound) -> SystemTime {
    let ms = u64::try_from(outbound.created_at.as_ms()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// A header of our own making: ASCII, one id or word a line, so nothing to encode.
fn id_header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(name), value.to_owned(), value.to_owned())
}

pub(super) fn single_spaced(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Nothing of a text can begin another header.
fn one_line(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use model::event::Attachment as File;
    use model::id::ConversationId;
    use model::time::Moment;

    use super::super::mime::{self, Headers};
    use super::super::{content, decode};
    use super::*;

    fn composer(plus_address: bool) -> Composer {
        Composer {
            address: "support@example.org".to_owned(),
            display_name: Some("Müller, Support".to_owned()),
            domain: "example.org".to_owned(),
            plus_address,
            keys: Keys::new(vec![vec![1; 32]]).unwrap(),
        }
    }

    fn outbound() -> Outbound {
        let message_id = MessageId::authored("anna", "1");
        Outbound {
            conversation_id: ConversationId::begun_by(&message_id),
            message_id,
            account: "support".to_owned(),
            thread: "t".to_owned(),
            recipients: vec![recipient("to", "anna@example.com", Some("Anna \"A\" Übel"))],
            subject: Some("Drucker kaputt — schon wieder".to_owned()),
            text: "Guten Tag,\n.\nüber Nacht\n".to_owned(),
            html: None,
            attachments: Vec::new(),
            references: Vec::new(),
            quotes: None,
            template: None,
            automatic: false,
            created_at: Moment::parse("2026-01-31T10:11:12Z").unwrap(),
        }
    }

    fn recipient(role: &str, address: &str, name: Option<&str>) -> Recipient {
        Recipient {
            role: role.to_owned(),
            address: address.to_owned(),
            name: name.map(str::to_owned),
        }
    }

    fn compose(outbound: &Outbound, files: &[Vec<u8>]) -> Vec<u8> {
        composer(false).compose(outbound, files).unwrap().bytes
    }

    fn header(bytes: &[u8], name: &str) -> String {
        mime::headers(bytes).text(name).unwrap_or_default()
    }

    #[test]
    fn an_answer_reads_as_it_was_written() {
        let bytes = compose(&outbound(), &[]);
        assert_eq!(bytes, compose(&outbound(), &[]), "every attempt sends the same");
        assert!(bytes.is_ascii() && bytes.split(|byte| *byte == b'\n').all(|line| line.len() <= 998));
        assert_eq!(header(&bytes, "subject"), "Drucker kaputt — schon wieder");
        assert_eq!(header(&bytes, "date"), "Sat, 31 Jan 2026 10:11:12 +0000");
        let mailboxes = |name: &str| address::list(mime::headers(&bytes).first(name).unwrap());
        let from = &mailboxes("from")[0];
        assert_eq!(
            (from.address.as_str(), from.name.as_deref()),
            ("support@example.org", Some("Müller, Support"))
        );
        let to = &mailboxes("to")[0];
        assert_eq!(
            (to.address.as_str(), to.name.as_deref()),
            ("anna@example.com", Some("Anna \"A\" Übel"))
        );
        for name in ["in-reply-to", "references", "reply-to", "auto-submitted", "precedence"] {
            assert!(!mime::headers(&bytes).has(name), "{name}");
        }
        let mail = mime::parse(&bytes).unwrap();
        assert_eq!(content::of(&mail).text, "Guten Tag,\n.\nüber Nacht");
    }

    #[test]
    fn our_marks_can_be_verified() {
        let (composer, outbound) = (composer(true), outbound());
        let composed = composer.compose(&outbound, &[]).unwrap();
        let headers = mime::headers(&composed.bytes);
        let raw = |name: &str| decode::as_text(headers.first(name).unwrap()).into_owned();
        assert_eq!(raw("message-id"), composed.message_id);
        let message = tokens::message_of(&composer.keys, &composed.message_id);
        assert_eq!(message.as_ref(), Some(&outbound.message_id));
        assert!(tokens::is_loop_mark(&composer.keys, &raw("x-tributary-loop")));
        let reply_to = &address::list(headers.first("reply-to").unwrap())[0];
        let conversation = tokens::conversation_of(&composer.keys, &reply_to.address);
        assert_eq!(conversation.as_ref(), Some(&outbound.conversation_id));
    }

    #[test]
    fn an_answer_names_what_it_answers() {
        let ours = MessageId::authored("anna", "0");
        let our_id = tokens::message_id(&composer(false).keys, &ours, "example.org");
        let check = |references: &[&str], parent: &str, expected: &str| {
            let outbound = Outbound {
                references: references.iter().map(|id| (*id).to_owned()).collect(),
                ..outbound()
            };
            let bytes = compose(&outbound, &[]);
            assert_eq!(header(&bytes, "in-reply-to"), parent);
            assert_eq!(header(&bytes, "references"), expected);
        };
        check(&["<a@b>"], "<a@b>", "<a@b>");
        check(
            &["<a@b>", "mail-headers:00", "<c@d>", "mail-headers:11"],
            "<c@d>",
            "<a@b> <c@d>",
        );
        check(&["<a@b>", "<c@d>", "<a@b>"], "<a@b>", "<c@d> <a@b>");
        check(&["mail-headers:00"], "", "");
        check(&["<a@b>\r\nBcc: x@y", "<ü@b>", "<c d@e>", "c@d"], "", "");
        check(&["<a@b>", ours.as_str(), &our_id], &our_id, &format!("<a@b> {our_id}"));
        let many: Vec<String> = (0..50).map(|number| format!("<{number}@b>")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let kept = [&many[..1], &many[30..]].concat().join(" ");
        check(&many, "<49@b>", &kept);
    }

    #[test]
    fn the_subject_of_an_answer_says_so_once() {
        let check = |subject: Option<&str>, is_answer: bool, expected: &str| {
            let outbound = Outbound {
                subject: subject.map(str::to_owned),
                ..outbound()
            };
            assert_eq!(super::subject(&outbound, is_answer), expected);
        };
        check(Some("Printer"), true, "Re: Printer");
        check(Some("Printer"), false, "Printer");
        check(Some("RE: Printer"), true, "RE: Printer");
        check(Some("AW: Drucker"), true, "AW: Drucker");
        check(Some("Reparatur"), true, "Re: Reparatur");
        check(None, true, "Re:");
        check(None, false, "");
        check(Some("a\r\nBcc: b@c"), false, "a Bcc: b@c");
    }

    #[test]
    fn nothing_of_a_text_becomes_a_header() {
        let evil = "x\r\nBcc: victim@example.net\r\n\r\nbody";
        let outbound = Outbound {
            recipients: vec![
                recipient("to", "anna@example.com", Some(evil)),
                recipient("to", "bob@example.com\r\nBcc: victim@example.net", None),
                recipient("cc", "carl@example.com", Some("a\0b")),
                recipient("reply_to", "dora@example.com", None),
            ],
            subject: Some(evil.to_owned()),
            references: vec![format!("<{evil}>")],
            attachments: vec![File {
                name: evil.to_owned(),
                media_type: "text/plain\r\nBcc: victim@example.net".to_owned(),
                size_bytes: 1,
                ..File::default()
            }],
            ..outbound()
        };
        let composed = composer(false).compose(&outbound, &[b"x".to_vec()]).unwrap();
        let names = |headers: &Headers| headers.iter().any(|header| header.name.eq_ignore_ascii_case(b"bcc"));
        let mail = mime::parse(&composed.bytes).unwrap();
        assert!(
            !mail.parts.iter().any(|part| names(&part.headers)),
            "{}",
            composed.bytes.escape_ascii()
        );
        let to: Vec<&str> = composed.envelope.to().iter().map(AsRef::as_ref).collect();
        assert_eq!(to, ["anna@example.com", "carl@example.com"]);
    }

    #[test]
    fn automatic_answers_say_that_they_are() {
        let bytes = compose(
            &Outbound {
                automatic: true,
                ..outbound()
            },
            &[],
        );
        assert_eq!(header(&bytes, "auto-submitted"), "auto-replied");
        assert_eq!(header(&bytes, "x-auto-response-suppress"), "All");
        assert_eq!(header(&bytes, "precedence"), "auto_reply");
    }

    #[test]
    fn html_and_files_travel_with_it() {
        let file = |name: &str, media_type: &str| File {
            name: name.to_owned(),
            media_type: media_type.to_owned(),
            size_bytes: 3,
            ..File::default()
        };
        let outbound = Outbound {
            html: Some("<p>Über <b>Nacht</b></p>".to_owned()),
            attachments: vec![file("Übersicht (1).pdf", "application/pdf"), file("x", "nonsense")],
            ..outbound()
        };
        let bytes = compose(&outbound, &[vec![0, 255, 10], b"abc".to_vec()]);
        let mail = mime::parse(&bytes).unwrap();
        let content = content::of(&mail);
        assert_eq!(content.html.as_deref(), Some("<p>Über <b>Nacht</b></p>"));
        assert_eq!(content.text, "Guten Tag,\n.\nüber Nacht");
        let names: Vec<&str> = content.attachments.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["Übersicht (1).pdf", "x"]);
        assert_eq!(content.blobs, [vec![0, 255, 10], b"abc".to_vec()]);
    }

    #[test]
    fn without_a_recipient_nothing_is_sent() {
        for recipients in [
            vec![],
            vec![recipient("to", "unknown-0011", None)],
            vec![recipient("to", "a@b, c@d", None)],
        ] {
            let outbound = Outbound {
                recipients,
                ..outbound()
            };
            assert!(composer(false).compose(&outbound, &[]).is_err());
        }
    }
}
