//! What a channel makes of its input, before anyone knows where it belongs.

use crate::change::MessageChange;
use crate::event::{ConsentChange, DeliveryReport, Message, Watermark};
use crate::time::Moment;

/// One thing that a channel understood. `channels/src/inbox.rs` stamps it with
/// account, times and derived id and makes it an [`crate::event::Event`].
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// Within what `external_id` is unique.
    pub realm: Realm,
    /// The same for every delivery of the same thing, and never empty.
    pub external_id: String,
    /// The thread, as the channel sees it; becomes the event's thread key.
    pub thread: String,
    /// The provider's time, if it gives one.
    pub occurred_at: Option<Moment>,
    /// The provider's own order within the thread, if it has one.
    pub provider_sequence: Option<i64>,
    /// The smallest piece of the input that parses to this one thing again;
    /// `None` if that is the whole input.
    pub raw: Option<Vec<u8>>,
    /// Bytes of the attachments, to be kept as blobs named by their SHA-256.
    pub blobs: Vec<Vec<u8>>,
    pub what: What,
}

/// What an [`Inbound`] is about.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// With [`crate::contact::Party::OURS`] as its sender's scheme it is one of ours that
    /// somebody wrote elsewhere: at the vendor's own inbox, by another program. The
    /// first of its identities is the contact.
    Message(Box<Message>),
    Delivery(DeliveryReport),
    /// The external id of the [`Inbound`] is the change's own.
    Changed(Box<MessageChange>),
    Consent(ConsentChange),
    Watermark(Watermark),
    /// The vendor says that nothing leaves by the account until a person mends it: the
    /// token was revoked, the app taken out.
    Broken {
        reason: String,
    },
    /// A piece of a larger input that cannot be read: kept for a person (C6), while
    /// the others go on.
    Parked {
        reason: String,
    },
}

/// Where an external id is unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realm {
    /// Within the account, by its name.
    Account,
    /// Everywhere: one mail to two of our mailboxes is one message.
    Installation,
}

impl Realm {
    /// The text from which [`crate::id::MessageId::received`] is derived. An
    /// account cannot be called `*`.
    pub fn as_text(self, account: &str) -> &str {
        match self {
            Self::Account => account,
            Self::Installation => "*",
        }
    }
}
