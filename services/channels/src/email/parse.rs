//! A mail becomes a message: pure, bounded in size, depth and time.

use model::contact::Party;
use model::event::{Automatic, Message, Recipient};
use model::evidence::Evidence;
use model::id::sha256_hex;
use model::inbound::{Inbound, Realm, What};

use super::address::{self, Mailbox};
use super::mime::{self, Headers, Mail};
use super::{authentication, automatic, content, decode, report, tokens};
use crate::channel::{Answer, Parsed, Unparsed};
use crate::signature::Keys;

/// Scheme of senders whose address cannot be read. Each is a contact of its own.
pub const UNKNOWN_SCHEME: &str = "unknown";

/// RFC 5322's longest line.
const MAX_ID_BYTES: usize = 998;
const MAX_QUOTED_IDS: usize = 50;
const MAX_RECIPIENTS: usize = 200;

/// What a mail is read by.
pub struct Reader {
    /// The account's address.
    pub address: String,
    pub keys: Keys,
    pub trusted_authserv_ids: Vec<String>,
}

impl Reader {
    /// The message of a mail, and the report on one of ours if it is a bounce.
    pub fn parse(&self, raw: &[u8]) -> Result<Parsed, Unparsed> {
        let parked = |reason: String| Unparsed::Parked { reason };
        let mail = mime::parse(raw).map_err(|error| parked(error.to_string()))?;
        if !has_own_header(mail.headers()) {
            return Err(parked("this is no mail: it has no header of its own".to_owned()));
        }
        let external_id = external_id(&mail);
        let (message, blobs) = self.message(&mail, &external_id);
        let thread = thread(mail.headers(), &message, &external_id);
        let inbound = |realm: Realm, external_id: String, blobs: Vec<Vec<u8>>, what: What| Inbound {
            realm,
            external_id,
            thread: thread.clone(),
            occurred_at: None,
            provider_sequence: None,
            raw: None,
            blobs,
            what,
        };
        let is_bounce = message.automatic == Some(Automatic::Bounce);
        let report = is_bounce.then(|| report::failure(&mail, &self.keys)).flatten();
        let what = What::Message(Box::new(message));
        let mut events = vec![inbound(Realm::Installation, external_id.clone(), blobs, what)];
        if let Some(report) = report {
            // Reports count only at the account that sent the message.
            let id = format!("{external_id}/report");
            events.push(inbound(Realm::Account, id, Vec::new(), What::Delivery(report)));
        }
        Ok(Parsed {
            events,
            answer: Answer {
                status: 200,
                content_type: "text/plain",
                body: String::new(),
            },
        })
    }

    fn message(&self, mail: &Mail, external_id: &str) -> (Message, Vec<Vec<u8>>) {
        let headers = mail.headers();
        let senders: Vec<Mailbox> = headers.first("from").map(address::list).unwrap_or_default();
        let content = content::of(mail);
        let addressed: Vec<Mailbox> = ["to", "cc"]
            .iter()
            .flat_map(|name| headers.all(name).flat_map(address::list))
            .collect();
        let sender = senders.first();
        let message = Message {
            sender: match sender {
                Some(sender) => Party {
                    scheme: "email".to_owned(),
                    address: sender.address.clone(),
                    name: sender.name.clone(),
                    verified: authentication::is_verified(headers, &senders, &self.trusted_authserv_ids),
                },
                None => unknown(headers, external_id),
            },
            recipients: self.recipients(headers),
            subject: headers
                .text("subject")
                .filter(|subject| !subject.is_empty())
                .map(|subject| cut(&subject)),
            text: content.text,
            html: content.html,
            attachments: content.attachments,
            evidence: self.evidence(headers),
            automatic: automatic::classify(mail, sender, &self.keys),
            suppress_automatic_reply: automatic::is_suppressed(headers, sender, &addressed, &self.address),
            external_ids: external_ids(headers),
            identities: Vec::new(),
            fields: Default::default(),
        };
        (message, content.blobs)
    }

    /// To, Cc and Reply-To. Our own address as Reply-To would make us answer ourselves.
    fn recipients(&self, headers: &Headers) -> Vec<Recipient> {
        let ours = address::base(&self.address);
        let roles = [("to", "to"), ("cc", "cc"), ("reply-to", "reply_to")];
        let all = roles.iter().flat_map(|(name, role)| {
            let mailboxes = headers.all(name).flat_map(address::list);
            mailboxes.map(|mailbox| Recipient {
                role: (*role).to_owned(),
                address: mailbox.address,
                name: mailbox.name,
            })
        });
        all.filter(|recipient| recipient.role != "reply_to" || address::base(&recipient.address) != ours)
            .take(MAX_RECIPIENTS)
            .collect()
    }

    fn evidence(&self, headers: &Headers) -> Evidence {
        let mut evidence = Evidence::default();
        for id in quoted_ids(headers) {
            let message = tokens::message_of(&self.keys, &id);
            if let Some(message) = message.filter(|message| !evidence.signed_messages.contains(message)) {
                evidence.signed_messages.push(message);
            }
            evidence.quoted_ids.push(id);
        }
        for name in ["to", "cc", "delivered-to", "x-original-to", "envelope-to"] {
            for mailbox in headers.all(name).flat_map(address::list).take(MAX_RECIPIENTS) {
                let conversation = tokens::conversation_of(&self.keys, &mailbox.address);
                if let Some(conversation) =
                    conversation.filter(|conversation| !evidence.signed_conversations.contains(conversation))
                {
                    evidence.signed_conversations.push(conversation);
                }
            }
        }
        evidence
    }
}

/// The key by which a mail is known without its body, for the comparison after
/// UIDs have changed: of Message-ID, Date and From as they came. `None` if it has no
/// Message-ID, because then the key says too little.
pub fn header_key(headers: &Headers) -> Option<String> {
    let message_id = headers.first("message-id").unwrap_or_default();
    (!message_id.is_empty()).then(|| format!("mail-headers:{}", header_hash(headers)))
}

/// Of [`KEY_FIELDS`], whether they are there or not.
pub fn header_hash(headers: &Headers) -> String {
    let values = KEY_FIELDS.map(|name| headers.first(name).unwrap_or_default());
    sha256_hex(&length_prefixed(values))
}

/// What [`header_key`] is made of.
const KEY_FIELDS: [&str; 3] = ["message-id", "date", "from"];

/// The same for every copy of a mail: servers on the way only prepend headers.
/// Frozen by a golden test, since another value would count every mail twice.
///
/// A mail with neither Message-ID nor Date (scripts write such) would be taken
/// for every other of the same words: there its first Received joins in, which
/// all copies of one sending share.
fn external_id(mail: &Mail) -> String {
    let headers = mail.headers();
    let [message_id, date, from] = KEY_FIELDS.map(|name| headers.first(name).unwrap_or_default());
    let mut bytes = length_prefixed([message_id, date, from]);
    bytes.extend(length_prefixed([mail.body]));
    if message_id.is_empty() && date.is_empty() {
        bytes.extend(length_prefixed([headers.all("received").last().unwrap_or_default()]));
    }
    sha256_hex(&bytes)
}

/// Each preceded by its length, so that no two lists read the same.
fn length_prefixed<const COUNT: usize>(values: [&[u8]; COUNT]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend_from_slice(&(value.len() as u64).to_be_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

/// Whether a sender wrote any header: those that servers prepend are not enough.
fn has_own_header(headers: &Headers) -> bool {
    const OWN: [&str; 14] = [
        "from",
        "sender",
        "reply-to",
        "to",
        "cc",
        "bcc",
        "subject",
        "date",
        "message-id",
        "in-reply-to",
        "references",
        "mime-version",
        "content-type",
        "content-transfer-encoding",
    ];
    OWN.iter().any(|name| headers.has(name))
}

/// A sender without a readable address: nobody else's identity.
fn unknown(headers: &Headers, external_id: &str) -> Party {
    Party {
        scheme: UNKNOWN_SCHEME.to_owned(),
        address: format!("{UNKNOWN_SCHEME}-{}", &external_id[..32]),
        name: headers
            .text("from")
            .filter(|name| !name.is_empty())
            .map(|name| name.chars().take(200).collect()),
        verified: false,
    }
}

/// Spreads load, and keeps what belongs together in one partition.
fn thread(headers: &Headers, message: &Message, external_id: &str) -> String {
    let first_reference = headers
        .first("references")
        .and_then(|value| ids(value).into_iter().next());
    let own = || message.external_ids.iter().find(|id| id.starts_with('<')).cloned();
    first_reference
        .or_else(|| message.evidence.quoted_ids.first().cloned())
        .or_else(own)
        .unwrap_or_else(|| external_id.to_owned())
}

/// In-Reply-To, then References from last to first, each once.
fn quoted_ids(headers: &Headers) -> Vec<String> {
    let mut quoted: Vec<String> = Vec::new();
    let in_reply_to = headers.all("in-reply-to").flat_map(ids);
    let references: Vec<String> = headers.all("references").flat_map(ids).collect();
    for id in in_reply_to.chain(references.into_iter().rev()) {
        if quoted.len() == MAX_QUOTED_IDS {
            break;
        }
        if !quoted.contains(&id) {
            quoted.push(id);
        }
    }
    quoted
}

/// The Message-ID, if there is exactly one; and the header key.
fn external_ids(headers: &Headers) -> Vec<String> {
    let mut external_ids = Vec::new();
    let found: Vec<String> = headers.all("message-id").flat_map(ids).collect();
    if let [id] = found.as_slice() {
        external_ids.push(id.clone());
    }
    external_ids.extend(header_key(headers));
    external_ids
}

/// The whole ids of a header, `<left@right>`, with their brackets. Everything
/// else in it is passed over.
fn ids(value: &[u8]) -> Vec<String> {
    let text = decode::as_text(value);
    let mut found = Vec::new();
    for piece in text.split('<').skip(1) {
        let Some((inner, _)) = piece.split_once('>') else {
            continue;
        };
        // Long ids are folded by some.
        let inner: String = inner
            .chars()
            .filter(|character| !"\r\n\t ".contains(*character))
            .collect();
        let is_whole = inner
            .split_once('@')
            .is_some_and(|(left, right)| !left.is_empty() && !right.is_empty());
        let is_sane = inner.len() + 2 <= MAX_ID_BYTES
            && !inner
                .chars()
                .any(|character| character.is_control() || character.is_whitespace());
        if is_whole && is_sane {
            found.push(format!("<{inner}>"));
        }
    }
    found
}

fn cut(subject: &str) -> String {
    subject.chars().take(MAX_ID_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use model::event::DeliveryState;
    use model::id::{ConversationId, MessageId};

    use super::*;

    fn reader() -> Reader {
        Reader {
            address: "support@example.org".to_owned(),
            keys: Keys::new(vec![vec![1; 32]]).unwrap(),
            trusted_authserv_ids: vec!["mail.test".to_owned()],
        }
    }

    fn events(raw: &[u8]) -> Vec<Inbound> {
        reader().parse(raw).unwrap().events
    }

    fn message(raw: &str) -> Message {
        let raw = raw.replace('\n', "\r\n");
        match events(raw.as_bytes()).remove(0).what {
            What::Message(message) => *message,
            other => panic!("{other:?}"),
        }
    }

    /// Each mail of `testdata/` and what is made of it. To renew a snapshot,
    /// delete it and run the test.
    #[test]
    fn mails_parse_as_before() {
        let count = crate::contract::snapshots("src/email/testdata", "eml", |bytes| {
            let mut events = events(bytes);
            for blob in events.iter_mut().flat_map(|event| &mut event.blobs) {
                // Shown as text.
                *blob = format!("{} bytes", blob.len()).into_bytes();
            }
            let blobs: Vec<String> = events
                .iter_mut()
                .flat_map(|event| std::mem::take(&mut event.blobs))
                .map(|blob| String::from_utf8(blob).unwrap())
                .collect();
            format!("{events:#?}\nblobs: {blobs:?}\n")
        });
        assert!(count >= 23, "{count} mails");
    }

    #[test]
    fn the_external_id_is_frozen() {
        let check = |raw: &str, expected: &str| {
            assert_eq!(
                events(raw.replace('\n', "\r\n").as_bytes())[0].external_id,
                expected,
                "{raw}"
            );
        };
        check(
            "Message-ID: <a@b>\nDate: Sat, 31 Jan 2026 10:00:00 +0000\nFrom: Anna\n <anna@example.com>\n\nhello\n",
            "2b250a146a80e783aa0994b2a267c774799cae59de5c9f4f1b101aea5620ec37",
        );
        check(
            "Subject: x\n\nhello\n",
            "669b7ef32b2b0512ae9e3099be2c6560c226667afe51e4f82b2db8109219050e",
        );
        check(
            "Received: by a; b\nReceived: by c\n d\nSubject: x\n\nhello\n",
            "c4defef5b3a9b76de2e3df3bfccffe107a3d7ec6d7bac23e8e933a2a669d5fa7",
        );
        let key = |raw: &str| header_key(&mime::headers(raw.replace('\n', "\r\n").as_bytes()));
        assert_eq!(
            key("Message-ID: <a@b>\nDate: Sat, 31 Jan 2026 10:00:00 +0000\nFrom: Anna\n <anna@example.com>\n\n")
                .as_deref(),
            Some("mail-headers:e7ad0c9638f312251f128e2a22d48e02416956913e5347f0a3d7d9cdc47a2c04")
        );
        assert_eq!(key("Message-ID:\nDate: x\n\n"), None);
        assert_eq!(key("Date: x\n\n"), None);
    }

    #[test]
    fn copies_of_a_mail_are_one_and_others_are_not() {
        let id = |raw: &str| events(raw.replace('\n', "\r\n").as_bytes())[0].external_id.clone();
        let mail = "Message-ID: <a@b>\nDate: x\nFrom: anna@example.com\nTo: support@example.org\n\nhello\n";
        let prepended = "Return-Path: <anna@example.com>\nDelivered-To: it@example.org\nReceived: from x by y\n\tfor z; now\nAuthentication-Results: mail.test; none\n";
        assert_eq!(id(mail), id(&format!("{prepended}{mail}")));
        for (from, to) in [
            ("<a@b>", "<c@d>"),
            ("Date: x", "Date: y"),
            ("anna", "eve"),
            ("hello", "Hello"),
            ("hello\n", "hello\n\n"),
        ] {
            assert_ne!(id(mail), id(&mail.replacen(from, to, 1)), "{from} {to}");
        }
        // Nothing but words: the server that took it first tells one from the other.
        let bare = "Subject: disk full\n\nnow\n";
        let taken = |number: u8| format!("Received: by mail.test id {number}; now\n{bare}");
        assert_ne!(id(&taken(1)), id(&taken(2)));
        assert_eq!(
            id(&taken(1)),
            id(&format!(
                "Delivered-To: it@example.org\nReceived: by imap.test\n{}",
                taken(1)
            ))
        );
    }

    #[test]
    fn evidence_is_gathered_in_its_order() {
        let keys = reader().keys;
        let [first, second] = ["1", "2"].map(|key| MessageId::authored("anna", key));
        let [first_id, second_id] = [&first, &second].map(|id| tokens::message_id(&keys, id, "example.org"));
        let conversation = ConversationId::begun_by(&first);
        let tagged = tokens::plus_address(&keys, &conversation, "support@example.org").unwrap();
        let evidence = message(&format!(
            "Delivered-To: {tagged}\nTo: x@y, {tagged}\nCc: support+forged.forged@example.org\n\
             In-Reply-To: {second_id}\nReferences: <a@b> {first_id}\n\t<c@d> {second_id} <a@b>\n\nhello"
        ))
        .evidence;
        assert_eq!(evidence.signed_messages, [second, first]);
        assert_eq!(evidence.signed_conversations, [conversation]);
        assert_eq!(evidence.quoted_ids, [&second_id, "<a@b>", "<c@d>", &first_id]);
        assert_eq!(evidence.thread, None);
        let many: String = (0..200).map(|number| format!(" <{number}@b>")).collect();
        let evidence = message(&format!("References:{many}\n\nhello")).evidence;
        assert_eq!(evidence.quoted_ids.len(), 50);
        assert_eq!(evidence.quoted_ids[0], "<199@b>");
    }

    #[test]
    fn threads_are_kept_together() {
        let check = |headers: &str, expected: &str| {
            let raw = format!("{headers}\n\nhello").replace('\n', "\r\n");
            assert_eq!(events(raw.as_bytes())[0].thread, expected, "{headers}");
        };
        check(
            "Message-ID: <c@d>\nIn-Reply-To: <b@d>\nReferences: <a@d> <b@d>",
            "<a@d>",
        );
        check("Message-ID: <c@d>\nIn-Reply-To: <b@d>", "<b@d>");
        check("Message-ID: <c@d>\nFrom: a@b", "<c@d>");
        let id = &events(b"Message-ID: c@d\r\nFrom: a@b\r\n\r\nhello")[0].external_id;
        check("Message-ID: c@d\nFrom: a@b", id);
    }

    #[test]
    fn our_own_address_is_no_reply_to() {
        let message =
            message("From: a@b\nReply-To: Support <Support+x@example.org>, c@d\nTo: support@example.org\n\nx");
        let reply_to: Vec<&Recipient> = message
            .recipients
            .iter()
            .filter(|recipient| recipient.role == "reply_to")
            .collect();
        assert_eq!(reply_to.len(), 1);
        assert_eq!(reply_to[0].address, "c@d");
    }

    #[test]
    fn bounces_report_on_the_message_that_failed() {
        let message = MessageId::authored("anna", "1");
        let id = tokens::message_id(&reader().keys, &message, "example.org");
        let bounce = |status: &str, returned: &str| {
            format!(
                "Return-Path: <>\nFrom: MAILER-DAEMON@mail.test (Mail Delivery System)\nTo: support@example.org\n\
                 Auto-Submitted: auto-replied\nMIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n\
                 --b\n\nI'm sorry.\n--b\nContent-Type: message/delivery-status\n\n\
                 Reporting-MTA: dns; mail.test\n\nFinal-Recipient: rfc822; ok@example.com\nAction: relayed\n\n\
                 Final-Recipient: rfc822; gone@example.com\n{status}\n--b\n{returned}\n--b--\n"
            )
        };
        let failed = "Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 no such\n user";
        let headers = format!("Content-Type: text/rfc822-headers\n\nMessage-ID: {id}\nSubject: x");
        let mail = format!("Content-Type: message/rfc822\n\nMessage-ID: {id}\nSubject: x\n\nhello");
        let encoded = format!(
            "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n{}",
            data_encoding::BASE64.encode(format!("Message-ID: {id}\n\nx").as_bytes())
        );
        let check = |raw: &str, expected: Option<&str>| {
            let events = events(raw.replace('\n', "\r\n").as_bytes());
            let What::Message(received) = &events[0].what else {
                panic!()
            };
            assert_eq!(received.automatic, Some(Automatic::Bounce), "{raw}");
            let report = match events.get(1).map(|event| &event.what) {
                Some(What::Delivery(report)) => Some(report),
                _ => None,
            };
            assert_eq!(report.and_then(|report| report.error.as_deref()), expected, "{raw}");
            if let Some(report) = report {
                assert_eq!(report.external_id, message.as_str());
                assert_eq!(report.state, DeliveryState::Failed);
                assert_ne!(events[0].external_id, events[1].external_id);
            }
        };
        let words = "5.1.1 smtp; 550 5.1.1 no such user";
        check(&bounce(failed, &headers), Some(words));
        check(&bounce(failed, &mail), Some(words));
        check(&bounce(failed, &encoded), Some(words));
        check(&bounce("Action: failed", &headers), Some("delivery failed"));
        check(&bounce("Action: delayed\nStatus: 4.4.1", &headers), None);
        check(
            &bounce(
                failed,
                "Content-Type: text/rfc822-headers\n\nMessage-ID: <other@example.org>",
            ),
            None,
        );
        // Others' ways of saying it.
        let qmail = format!(
            "Return-Path: <>\nFrom: MAILER-DAEMON@example.com\n\nHi. This is the qmail-send program.\n<gone@example.com>:\nno mailbox here\n\n--- Below this line is a copy of the message.\n\nMessage-ID: {id}\nSubject: x\n"
        );
        check(&qmail, Some("the mail came back"));
        check(
            &qmail.replace("MAILER-DAEMON", "Mail.Delivery.System"),
            Some("the mail came back"),
        );
        check(&qmail.replace("MAILER-DAEMON", "postbote"), Some("the mail came back"));
    }

    #[test]
    fn an_empty_text_gives_way_to_html() {
        let html = "--b\nContent-Type: text/html\n\n<p>Test</p>\n--b--";
        let raw = |text: &str| {
            format!("From: a@b\nContent-Type: multipart/alternative; boundary=b\n\n--b\n\n{text}\n{html}\n")
        };
        assert_eq!(message(&raw("\n \n")).text, "Test");
        assert_eq!(message(&raw("words")).text, "words");
    }

    #[test]
    fn what_is_no_mail_is_parked_with_its_reason() {
        let check = |raw: &[u8], expected: &str| match reader().parse(raw) {
            Err(Unparsed::Parked { reason }) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{}: {other:?}", raw[..raw.len().min(80)].escape_ascii()),
        };
        check(b"", "no header");
        check(b"\r\n\r\n", "no header");
        check(b"just text\r\n", "no header");
        check(b"\r\nFrom: a@b\r\n", "no header");
        check(&[0, 1, 2, 255, 254, 10, 13, 10], "no header");
        check(
            b"Return-Path: <>\r\nReceived: by x\r\nX-Spam: no\r\n\r\njunk",
            "no header",
        );
        check(&b"From: a@b\r\n".repeat(10_001), "10,000 headers");
        check(
            format!("From: a@b\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).as_bytes(),
            "1 MiB",
        );
    }

    /// No limit lets a mail cost more than a multiple of its size; the slowest of
    /// these would take hours if any step were quadratic.
    #[test]
    fn hostile_mails_are_read_in_one_pass() {
        const HEADER: usize = 900 * 1024;
        let fill = |piece: &str| piece.repeat(HEADER / piece.len());
        let key = &reader().keys;
        let id = tokens::message_id(key, &MessageId::authored("a", "1"), "example.org");
        let tagged =
            tokens::plus_address(key, &ConversationId::begun_by(&MessageId::authored("a", "1")), "s@b.c").unwrap();
        let headers = [
            format!("From: {}", fill("a@b.c, ")),
            format!("From: {}", fill("(")),
            format!("From: {}", fill("\"\\")),
            format!("To: {}", fill("=?utf-8?q?a?= <a@b.c>,")),
            format!("To: {}", fill(&format!("{tagged},"))),
            format!("Cc: {}", fill("x:;")),
            format!("Subject: {}", fill("=?utf-8?b?w7w=?= ")),
            format!("Subject: {}", fill("\u{0}\u{1b}")),
            format!("References: {}", fill("<a@b>")),
            format!("References: {}", fill("<")),
            format!("References: {}", fill(&id)),
            format!("In-Reply-To: {}", fill("<a@b ")),
            format!("Message-ID: {}", fill("<a@b>")),
            format!("Authentication-Results: mail.test; {}", fill("a=b;")),
            format!("Content-Type: text/plain; {}", fill("a*0=b;")),
            format!("Content-Type: multipart/mixed; boundary=\"{}\"", fill("b")),
            format!("Content-Disposition: attachment; {}", fill("filename*9=x;")),
            format!("Auto-Submitted: {}", fill("(")),
            format!("X-Tributary-Loop: {}", fill("a.b")),
            fill("To: a@b.c\r\n").chars().take(90_000).collect::<String>(),
        ];
        for header in headers {
            let raw = format!("{header}\r\nDate: x\r\n\r\nhello\r\n");
            assert!(reader().parse(raw.as_bytes()).is_ok(), "{header:.60}");
        }
        let fill = |piece: &str| piece.repeat(1024 * 1024 / piece.len());
        let html = "Content-Type: text/html\r\n\r\n";
        let mixed = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
        let report =
            "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n";
        let bodies = [
            format!("{html}{}", fill("<div>")),
            format!("{html}{}", fill("<b><i>")),
            format!("{html}{}", fill("&amp;<a href=x>")),
            format!("{mixed}{}", fill("--b\r\n--bx\r\n-")),
            format!("{mixed}{}", fill("\r\n--")),
            format!(
                "{mixed}{}",
                format!("--b\r\n{html}{}\r\n", "<p>x".repeat(1_000)).repeat(99)
            ),
            format!("Content-Transfer-Encoding: base64\r\n\r\n{}", fill("=!a")),
            format!("Content-Transfer-Encoding: quoted-printable\r\n\r\n{}", fill("=\r\n =")),
            format!(
                "Content-Type: text/plain; format=flowed; charset=x\r\n\r\n{}",
                fill("a \u{fc}\r\n")
            ),
            format!(
                "{report}Action: failed\r\n\r\n{}",
                fill(&format!("<{}", &id[1..id.len() - 1]))
            ),
            format!("{report}{}", fill("Action: failed\r\n\r\n")),
        ];
        for body in bodies {
            let raw = format!("From: a@b.c\r\n{body}");
            assert!(reader().parse(raw.as_bytes()).is_ok(), "{body:.80}");
        }
    }
}
