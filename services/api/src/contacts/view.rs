//! A contact in JSON.

use model::contact::merge::Merge;
use model::contact::{Claim, Contact, Owned};
use model::conversation::Conversation;
use model::id::{ContactId, ConversationId, MergeId, TicketId};
use model::ticket::{Category, Ticket};
use model::time::Moment;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A person or system that writes to us, as lists show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Contact)]
pub struct ContactView {
    /// Of several contacts that are one person, the first met.
    #[schema(value_type = String)]
    id: ContactId,
    /// The name that it gave itself.
    pub name: Option<String>,
    /// By what we met it.
    scheme: String,
    address: String,
    verified: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
}

/// A contact with everything about it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ContactDetail {
    #[serde(flatten)]
    pub contact: ContactView,
    /// All contacts that are this person, the first met first.
    #[schema(value_type = Vec<String>)]
    pub contacts: Vec<ContactId>,
    pub identities: Vec<IdentityView>,
    /// What makes these contacts one person, undone merges too.
    pub merges: Vec<MergeView>,
    /// Its latest 200 conversations on all channels, in the order of their beginnings.
    pub conversations: Vec<ConversationSummary>,
    /// Its latest 50 tickets, the newest first.
    pub tickets: Vec<TicketSummary>,
}

/// By what a contact is known.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identity)]
pub struct IdentityView {
    scheme: String,
    address: String,
    /// `verified`: somebody whom we trust vouches for it; `unverified`: it wrote under it, and nobody does;
    /// `claimed`: it only says so.
    standing: &'static str,
    /// Which of the person's contacts has it.
    #[schema(value_type = String)]
    contact_id: ContactId,
    /// Why it is the contact's: `type` is `sender`, `vouched`, `answered`, `opened` or `claimed`; null if it was not kept.
    evidence: Option<Value>,
}

/// Two contacts are, or were, one person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Merge)]
pub struct MergeView {
    #[schema(value_type = String)]
    id: MergeId,
    #[schema(value_type = String)]
    from: ContactId,
    #[schema(value_type = String)]
    into: ContactId,
    /// Why: `type` is `vouched` (the channel vouches that a sender is both), `answered` (an answer came from an
    /// address to which alone we had written), `opened` (so did whoever opened a link in such a mail), `linked`
    /// (they opened a link that was made for a conversation of the other), `sender` or `person`.
    evidence: Value,
    #[schema(value_type = String, format = DateTime)]
    merged_at: Moment,
    undone: Option<UndoneView>,
}

/// Who parted them again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Undone)]
pub struct UndoneView {
    #[schema(value_type = String, format = DateTime)]
    at: Moment,
    person: String,
    reason: Option<String>,
}

/// A conversation, in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConversationSummary {
    #[schema(value_type = String)]
    id: ConversationId,
    account: String,
    channel: String,
    subject: Option<String>,
    /// The ticket that its new messages go to.
    #[schema(value_type = Option<String>)]
    ticket_id: Option<TicketId>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
    #[schema(value_type = String, format = DateTime)]
    last_message_at: Moment,
}

/// A ticket, in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct TicketSummary {
    #[schema(value_type = String)]
    id: TicketId,
    number: String,
    subject: String,
    #[schema(value_type = String, example = "open")]
    category: Category,
    queue: String,
    #[schema(value_type = String, format = DateTime)]
    opened_at: Moment,
}

impl From<Contact> for ContactView {
    fn from(contact: Contact) -> Self {
        Self {
            id: contact.id,
            name: contact.name,
            scheme: contact.identity.scheme,
            address: contact.identity.address,
            verified: contact.identity.verified,
            created_at: contact.created_at,
        }
    }
}

impl From<Owned> for IdentityView {
    fn from(owned: Owned) -> Self {
        Self {
            scheme: owned.identity.scheme,
            address: owned.identity.address,
            standing: if owned.identity.verified {
                "verified"
            } else {
                "unverified"
            },
            contact_id: owned.contact_id,
            evidence: owned.proof.and_then(|proof| serde_json::to_value(proof).ok()),
        }
    }
}

impl From<Claim> for IdentityView {
    fn from(claim: Claim) -> Self {
        let evidence = serde_json::json!({
            "type": "claimed",
            "message_id": claim.message_id,
            "at": claim.claimed_at,
        });
        Self {
            scheme: claim.scheme,
            address: claim.address,
            standing: "claimed",
            contact_id: claim.contact_id,
            evidence: Some(evidence),
        }
    }
}

impl From<Merge> for MergeView {
    fn from(merge: Merge) -> Self {
        Self {
            id: merge.id,
            from: merge.from,
            into: merge.into,
            evidence: serde_json::to_value(merge.proof).unwrap_or_default(),
            merged_at: merge.merged_at,
            undone: merge.undone.map(|undone| UndoneView {
                at: undone.at,
                person: undone.person,
                reason: undone.reason,
            }),
        }
    }
}

impl From<Conversation> for ConversationSummary {
    fn from(conversation: Conversation) -> Self {
        Self {
            id: conversation.id,
            account: conversation.account,
            channel: conversation.channel,
            subject: conversation.subject,
            ticket_id: conversation.ticket_id,
            created_at: conversation.created_at,
            last_message_at: conversation.last_message_at,
        }
    }
}

impl From<Ticket> for TicketSummary {
    fn from(ticket: Ticket) -> Self {
        Self {
            id: ticket.id,
            number: ticket.number,
            subject: ticket.subject,
            category: ticket.category,
            queue: ticket.queue,
            opened_at: ticket.opened_at,
        }
    }
}
