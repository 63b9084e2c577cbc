//! Typed ids, and how each is derived (contract C2).
//!
//! An id is never drawn at random: it follows from what caused it, so that the
//! same cause met twice gives the same id. The derivations are frozen by the
//! golden tests below; changing one would count every old message twice.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What every id of this type begins with.
            pub const PREFIX: &'static str = $prefix;

            /// Takes an id as the store, the bus or the API gives it. Text of
            /// another form is `None`.
            pub fn parse(text: &str) -> Option<Self> {
                let rest = text.strip_prefix(Self::PREFIX)?;
                let is_plain = !rest.is_empty()
                    && rest.len() <= 64
                    && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
                is_plain.then(|| Self(text.to_owned()))
            }

            /// The id as text, prefix included.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id without its prefix.
            pub fn bare(&self) -> &str {
                &self.0[Self::PREFIX.len()..]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A message, received or sent. The primary key for ever; an erased message
    /// leaves its id as a tombstone.
    MessageId,
    "msg_"
);
id!(
    /// A conversation: what was said between a contact and the desk on one account.
    ConversationId,
    "cnv_"
);
id!(
    /// A person or system that writes to us.
    ContactId,
    "con_"
);
id!(
    /// Two contacts being one person.
    MergeId,
    "mrg_"
);
id!(
    /// A ticket: a piece of work, whatever its kind.
    TicketId,
    "tkt_"
);

impl MessageId {
    /// A message that came from outside: `realm` is the account's name, or
    /// [`crate::inbound::Realm::Installation`]'s text where the channel says so.
    pub fn received(realm: &str, channel: &str, external_id: &str) -> Self {
        Self(format!(
            "{}{}",
            Self::PREFIX,
            sha256_base32(&[realm, channel, external_id])
        ))
    }

    /// A message that a person of the desk wrote, named by its Idempotency-Key.
    pub fn authored(author: &str, idempotency_key: &str) -> Self {
        Self(format!(
            "{}{}",
            Self::PREFIX,
            sha256_base32(&["desk", author, idempotency_key, "authored"])
        ))
    }

    /// A message that a rule sent because of another message.
    pub fn automatic(cause: &MessageId, rule: &str) -> Self {
        Self(format!(
            "{}{}",
            Self::PREFIX,
            sha256_base32(&["rule", cause.as_str(), rule, "automatic"])
        ))
    }
}

impl ConversationId {
    /// The conversation that this message began.
    pub fn begun_by(message: &MessageId) -> Self {
        Self(format!(
            "{}{}",
            Self::PREFIX,
            short(&["conversation", message.as_str()])
        ))
    }
}

impl ContactId {
    /// The contact first met as the sender of this message.
    pub fn met_by(message: &MessageId) -> Self {
        Self(format!("{}{}", Self::PREFIX, short(&["contact", message.as_str()])))
    }

    /// The contact first met because a channel vouched, with this message, that its
    /// sender has this address too.
    pub fn vouched_by(message: &MessageId, scheme: &str, address: &str) -> Self {
        Self(format!(
            "{}{}",
            Self::PREFIX,
            short(&["vouched", message.as_str(), scheme, address])
        ))
    }
}

impl MergeId {
    /// The same for both orders, and for every time that these two are merged.
    pub fn of(one: &ContactId, other: &ContactId) -> Self {
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        Self(format!(
            "{}{}",
            Self::PREFIX,
            short(&["merge", first.as_str(), second.as_str()])
        ))
    }
}

impl TicketId {
    /// The ticket that this message opened.
    pub fn opened_by(message: &MessageId) -> Self {
        Self(format!("{}{}", Self::PREFIX, short(&["ticket", message.as_str()])))
    }
}

/// The id of an event that carries no message of its own (a delivery report, a
/// parked or quarantined input), from what it is about.
pub fn event_id(parts: &[&str]) -> String {
    format!("evt_{}", sha256_base32(parts))
}

/// Lower-case hexadecimal SHA-256, the name of a blob.
pub fn sha256_hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

/// 52 characters. Each part is preceded by its length, so that no two lists of
/// parts read the same.
fn sha256_base32(parts: &[&str]) -> String {
    BASE32_NOPAD.encode(&sha256_of(parts)).to_ascii_lowercase()
}

/// 26 characters, 128 bits: short enough for a signed plus-address.
fn short(parts: &[&str]) -> String {
    BASE32_NOPAD.encode(&sha256_of(parts)[..16]).to_ascii_lowercase()
}

fn sha256_of(parts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    digest(&SHA256, &bytes).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: whoever changes a value here makes every stored message new.
    #[test]
    fn derivations_never_change() {
        let check = |derived: &str, frozen: &str| assert_eq!(derived, frozen);
        let mail = MessageId::received("*", "email", "<1@example.com>");
        check(
            mail.as_str(),
            "msg_amtow6e2gmne2atjmy7ghmwuyejs7mjm7dic7ssqkdteix63rzta",
        );
        check(
            MessageId::received("site", "chat", "s1/c1").as_str(),
            "msg_tgsj3abnwra2znum3j4hnumz6eiblbncoe4db5kwj66kpsmevtdq",
        );
        check(
            MessageId::received("", "", "").as_str(),
            "msg_twii5t5wwjln56futj6fattmrcoewdsb7zwohyaympoxwyncbkqa",
        );
        check(
            MessageId::received("süd", "email", "ж").as_str(),
            "msg_2qr7bfvf6r4xkujcvrj7igwiqkdqgpti2x4cj5zhhcun66iqx7sq",
        );
        check(
            MessageId::authored("emma", "key-1").as_str(),
            "msg_oijengat3znj4ale6cluz6pgab52noij5yshmg22towoejmsdl6q",
        );
        check(
            MessageId::automatic(&mail, "thanks").as_str(),
            "msg_yi4vxiivivngpvtce62v5ofqbz4enphetsxl3kx5atednjbiv7ra",
        );
        check(
            ConversationId::begun_by(&mail).as_str(),
            "cnv_sczgbiwvdvlvpjox75u2brs3om",
        );
        check(ContactId::met_by(&mail).as_str(), "con_crxhsofi4sdpv5se6vkwth3oki");
        check(TicketId::opened_by(&mail).as_str(), "tkt_uyays7sccimtcmm2hwe7vmgt44");
        check(
            ContactId::vouched_by(&mail, "email", "anna@example.com").as_str(),
            "con_atyrgwd3krslxqbrgffl34paia",
        );
        let other = ContactId::met_by(&MessageId::received("", "", ""));
        let merge = MergeId::of(&ContactId::met_by(&mail), &other);
        assert_eq!(merge, MergeId::of(&other, &ContactId::met_by(&mail)));
        check(merge.as_str(), "mrg_rgwbbtqghzp6n2hl6zslimoodm");
        check(
            &event_id(&["delivery", "support", "x", "sent"]),
            "evt_litqj3a5o5jcc66azihwcw56ykz5bbx36pqw5ghmrkrhc2ftt6aa",
        );
        check(
            &event_id(&[]),
            "evt_4oymiquy7qobjgx36tejs35zeqt24qpemsnzgtfeswmrw6csxbkq",
        );
        check(
            &sha256_hex(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        );
        check(
            &sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        );
    }

    #[test]
    fn other_causes_give_other_ids() {
        let cause = MessageId::received("a", "b", "c");
        let ids = [
            cause.clone(),
            MessageId::received("ab", "", "c"),
            MessageId::received("a", "bc", ""),
            MessageId::received("", "ab", "c"),
            MessageId::received("a", "b", "c\0"),
            MessageId::received("desk", "b", "c"),
            MessageId::authored("b", "c"),
            MessageId::authored("bc", ""),
            MessageId::automatic(&cause, "c"),
            MessageId::automatic(&cause, "d"),
        ];
        let different: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        let bare = [
            ConversationId::begun_by(&cause).bare().to_owned(),
            ContactId::met_by(&cause).bare().to_owned(),
            TicketId::opened_by(&cause).bare().to_owned(),
        ];
        assert!(bare[0] != bare[1] && bare[1] != bare[2] && bare[0] != bare[2]);
        assert!(bare.iter().all(|bare| bare.len() == 26));
    }

    #[test]
    fn parses_what_it_gives_and_nothing_else() {
        let cause = MessageId::received("a", "b", "c");
        let conversation = ConversationId::begun_by(&cause);
        assert_eq!(MessageId::parse(cause.as_str()), Some(cause.clone()));
        assert_eq!(
            ConversationId::parse(&conversation.to_string()),
            Some(conversation.clone())
        );
        assert_eq!(
            format!("{}{}", ConversationId::PREFIX, conversation.bare()),
            conversation.as_str()
        );
        assert_eq!(serde_json::to_value(&cause).unwrap(), cause.as_str());

        let check = |text: &str, expected: bool| assert_eq!(MessageId::parse(text).is_some(), expected, "{text}");
        check("msg_a", true);
        check("msg_0z9", true);
        check(&format!("msg_{}", "a".repeat(64)), true);
        check(&format!("msg_{}", "a".repeat(65)), false);
        check("", false);
        check("msg_", false);
        check("msg", false);
        check("cnv_a", false);
        check("MSG_a", false);
        check("msg_A", false);
        check("msg_a b", false);
        check("msg_a\n", false);
        check("msg_ä", false);
        check("msg_msg_a", false);
        check("msg_a'--", false);
        check(" msg_a", false);
        check(conversation.as_str(), false);
    }
}
