//! Who writes: parties as they claim to be, and contacts as we know them.

pub mod merge;

use serde::{Deserialize, Serialize};

use crate::id::{ContactId, ConversationId, MessageId};
use crate::time::Moment;

/// The sender of a message, as the channel saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// What kind of address it is: `email`, `phone`, or a name of the channel's
    /// own that nobody else uses.
    pub scheme: String,
    pub address: String,
    /// What the party calls itself. Shown, never compared.
    pub name: Option<String>,
    /// Somebody whom we trust vouches for the address: the topmost
    /// Authentication-Results of a trusted server, a vendor's signature.
    pub verified: bool,
}

/// What identifies a contact: never a display name, and an unverified address
/// is another identity than the verified one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    pub scheme: String,
    /// Normalised: trimmed and in lower case.
    pub address: String,
    pub verified: bool,
}

impl Party {
    /// The scheme of ourselves; the address is the account's name.
    pub const OURS: &'static str = "account";

    /// The identity under which this party is looked up.
    pub fn identity(&self) -> Identity {
        Identity {
            scheme: self.scheme.clone(),
            address: normalise(&self.address),
            verified: self.verified,
        }
    }

    /// The part of an e-mail address behind the last `@`, in lower case.
    pub fn domain(&self) -> Option<String> {
        let (_, domain) = self.address.rsplit_once('@')?;
        Some(domain.trim().to_lowercase())
    }
}

/// Addresses are compared in this form. RFC 5321 lets a local part be
/// case-sensitive; no mailbox in use is.
pub fn normalise(address: &str) -> String {
    address.trim().to_lowercase()
}

/// A person or system that we know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    pub id: ContactId,
    /// The name it gave itself when we met it.
    pub name: Option<String>,
    /// The identity by which we met it. An unverified one marks the contact.
    pub identity: Identity,
    pub created_at: Moment,
    /// Who speaks for the person, where several contacts are one ([`merge`]): this
    /// one or another. `None`: it is alone.
    pub head: Option<ContactId>,
    /// Counts how often it was merged or parted.
    pub version: i64,
}

/// Whose an identity is, for ever: merging and parting change nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub identity: Identity,
    pub contact_id: ContactId,
    /// `None`: from before proofs were kept.
    pub proof: Option<Proof>,
}

/// Why an identity is a contact's, or why two contacts are one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Proof {
    /// It wrote this message.
    Sender { message_id: MessageId },
    /// The channel of this message vouches that the sender has this identity too: a
    /// signed site user.
    Vouched { message_id: MessageId, identity: Identity },
    /// `question` went to this address and nowhere else; `message_id` came from there
    /// and brought its signed Message-ID back.
    Answered {
        message_id: MessageId,
        question: MessageId,
        identity: Identity,
    },
    /// `question` went to this address and nowhere else, with a signed link; who wrote
    /// `message_id` has opened it.
    Opened {
        message_id: MessageId,
        question: MessageId,
        identity: Identity,
    },
    /// A link was made for this conversation, whose contact is the other; who wrote
    /// `message_id` has opened it.
    Linked {
        message_id: MessageId,
        conversation_id: ConversationId,
    },
    /// A person of the desk says so.
    Person { person: String, reason: Option<String> },
}

/// An address that a contact says is its own, without proof: it joins nothing, but
/// an answer may be sent there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub contact_id: ContactId,
    pub scheme: String,
    /// Normalised.
    pub address: String,
    pub name: Option<String>,
    /// The message that said so.
    pub message_id: MessageId,
    pub claimed_at: Moment,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_without_case_and_space() {
        let check = |address: &str, expected: &str| assert_eq!(normalise(address), expected, "{address}");
        check("Anna@Example.COM", "anna@example.com");
        check("  anna@example.com\r\n", "anna@example.com");
        check("ÄNNA@Exämple.com", "änna@exämple.com");
        check("+49 170 1", "+49 170 1");
        check("", "");
        // Once is enough.
        for address in ["İ@x", "ẞ", " A ", "\u{a0}B\u{a0}"] {
            assert_eq!(normalise(&normalise(address)), normalise(address), "{address}");
        }
    }

    #[test]
    fn the_domain_stands_behind_the_last_at() {
        let check = |address: &str, expected: Option<&str>| {
            let party = party(address, true);
            assert_eq!(party.domain().as_deref(), expected, "{address}");
        };
        check("anna@Example.com", Some("example.com"));
        check("\"a@b\"@Example.com ", Some("example.com"));
        check("anna", None);
        check("", None);
    }

    #[test]
    fn an_identity_is_scheme_address_and_proof() {
        let identity = |address: &str, verified: bool| party(address, verified).identity();
        assert_eq!(identity("Anna@example.com", true), identity(" anna@EXAMPLE.com", true));
        assert_ne!(identity("anna@example.com", true), identity("anna@example.com", false));
        assert_ne!(identity("anna@example.com", true), identity("otto@example.com", true));
        let mut renamed = party("anna@example.com", true);
        renamed.name = Some("The President".to_owned());
        assert_eq!(
            renamed.identity(),
            identity("anna@example.com", true),
            "a name proves nothing"
        );
        renamed.scheme = "phone".to_owned();
        assert_ne!(renamed.identity(), identity("anna@example.com", true));
    }

    fn party(address: &str, verified: bool) -> Party {
        Party {
            scheme: "email".to_owned(),
            address: address.to_owned(),
            name: None,
            verified,
        }
    }
}
