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
