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
        let inbound = |external_id: String, blobs: Vec<Vec<u8>>, what: What| Inbound {
            realm: Realm::Installation,
            external_id,
            thread: thread(mail.headers(), &message),
            occurred_at: None,
            provider_sequence: None,
            raw: None,
            blobs,
            what,
        };
        let mut events = vec![inbound(
            external_id.clone(),
            blobs,
            What::Message(Box::new(message.clone())),
        )];
        let is_bounce = message.automatic == Some(Automatic::Bounce);
        if let Some(report) = is_bounce.then(|| report::failure(&mail, &self.keys)).flatten() {
            events.push(inbound(
                format!("{external_id}/report"),
                Vec::new(),
                What::Delivery(report),
            ));
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
fn thread(headers: &Headers, message: &Message) -> String {
    let first_reference = headers
        .first("references")
        .and_then(|value| ids(value).into_iter().next());
    first_reference
        .or_else(|| message.evidence.quoted_ids.first().cloned())
        .or_else(|| message.external_ids.first().cloned())
        .unwrap_or_else(|| message.sender.address.clone())
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
