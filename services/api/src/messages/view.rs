//! A message in JSON.

use std::collections::BTreeMap;

use model::change::{Call, CallState, Reaction};
use model::conversation::{Direction, StoredMessage};
use model::event::{Attachment, AttachmentState, Automatic, DeliveryState, Recipient};
use model::id::{ConversationId, MessageId};
use model::template::Template;
use model::time::Moment;
use serde::Serialize;
use utoipa::ToSchema;

use crate::replies::TemplateView;

/// A message, received or sent, or a note.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Message)]
pub struct MessageView {
    #[schema(value_type = String)]
    id: MessageId,
    #[schema(value_type = String)]
    conversation_id: ConversationId,
    /// Where it arrived first, or by which it leaves.
    account: String,
    /// `inbound`, `outbound` or `note`; the contact never sees a note.
    #[schema(value_type = String, example = "inbound")]
    direction: Direction,
    /// The contact's id, a person of the desk, `rule:<name>`, or `elsewhere` for one of ours that was written at the
    /// vendor's own inbox or by another program.
    author: String,
    sender: SenderView,
    recipients: Vec<RecipientView>,
    subject: Option<String>,
    text: String,
    /// Sanitised.
    html: Option<String>,
    attachments: Vec<AttachmentView>,
    /// What was sent instead of `text`.
    template: Option<TemplateView>,
    /// Ids of messages that it quotes, as its sender says, the nearest first.
    quotes: Vec<String>,
    /// What the sender filled into a form beside it (before a chat), by the field's name.
    fields: BTreeMap<String, String>,
    /// Why it is no person's: `generated`, `list`, `reply`, `bounce`, `own`, or `command` (a word to the
    /// system, like STOP).
    #[schema(value_type = Option<String>)]
    automatic: Option<Automatic>,
    /// When its author last edited it; what it said before stands in its history.
    #[schema(value_type = Option<String>, format = DateTime)]
    edited_at: Option<Moment>,
    /// When its author took it back: then text and attachments are empty.
    #[schema(value_type = Option<String>, format = DateTime)]
    deleted_at: Option<Moment>,
    reactions: Vec<ReactionView>,
    /// Set if it stands for a phone call.
    call: Option<CallView>,
    /// How far a message of ours has come: `queued`, `sending`, `uncertain`, `sent`, `failed`,
    /// `delivered` or `read`.
    #[schema(value_type = Option<String>, example = "sent")]
    delivery: Option<DeliveryState>,
    /// Why the delivery failed or is uncertain.
    delivery_error: Option<String>,
    /// The sender's time, never later than `received_at`.
    #[schema(value_type = String, format = DateTime)]
    occurred_at: Moment,
    /// When it reached us; for a message of ours, when it was written.
    #[schema(value_type = String, format = DateTime)]
    received_at: Moment,
    /// The number that the contact's client resumes by; null for notes.
    sequence: Option<i64>,
    /// Ids under which others speak of it.
    external_ids: Vec<String>,
}

/// Who wrote it, as the channel saw it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sender)]
struct SenderView {
    scheme: String,
    address: String,
    name: Option<String>,
    /// Somebody whom we trust vouches for the address.
    verified: bool,
}

/// To whom it was sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Recipient)]
struct RecipientView {
    /// `to` or `cc`.
    role: String,
    address: String,
    name: Option<String>,
}

/// A file of a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attachment)]
struct AttachmentView {
    name: String,
    /// As its sender declared it; of a fetched file, what its bytes are.
    media_type: String,
    /// 0 while nobody knows.
    size_bytes: u64,
    /// Lower-case hexadecimal; empty while the bytes are not here.
    sha256: String,
    /// What `cid:` in the HTML refers to.
    content_id: Option<String>,
    /// `here`, `pending` while the bytes are still to be fetched, or `lost` if they cannot be had.
    #[schema(value_type = String, example = "here")]
    state: AttachmentState,
    /// Why the bytes cannot be had.
    lost: Option<String>,
}

/// Somebody's reaction to a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reaction)]
struct ReactionView {
    /// As the channel names them.
    by: String,
    emoji: String,
}

/// A phone call, as far as is known.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Call)]
struct CallView {
    /// `ringing`, `answered`, `completed`, `busy`, `no_answer`, `cancelled` or `failed`.
    #[schema(value_type = Option<String>, example = "completed")]
    state: Option<CallState>,
    duration_s: Option<i64>,
    /// Nobody of us spoke with the caller.
    missed: Option<bool>,
    /// What was recorded, in words.
    transcription: Option<String>,
}

impl From<StoredMessage> for MessageView {
    fn from(stored: StoredMessage) -> Self {
        let mut message = stored.message;
        let template = match stored.direction {
            Direction::Outbound => Template::of_fields(&message.fields),
            Direction::Inbound | Direction::Note => None,
        };
        if template.is_some() {
            message.fields.clear();
        }
        // Our own name of it is `id`.
        message.external_ids.retain(|id| id != stored.id.as_str());
        Self {
            id: stored.id,
            conversation_id: stored.conversation_id,
            account: stored.account,
            direction: stored.direction,
            author: stored.author,
            sender: SenderView {
                scheme: message.sender.scheme,
                address: message.sender.address,
                name: message.sender.name,
                verified: message.sender.verified,
            },
            recipients: message.recipients.into_iter().map(Into::into).collect(),
            subject: message.subject,
            text: message.text,
            html: message.html,
            attachments: message.attachments.into_iter().map(Into::into).collect(),
            template: template.map(Into::into),
            quotes: message.evidence.quoted_ids,
            fields: message.fields,
            automatic: message.automatic,
            edited_at: stored.changed.edited_at,
            deleted_at: stored.changed.deleted_at,
            reactions: stored.changed.reactions.into_iter().map(Into::into).collect(),
            call: stored.changed.call.map(Into::into),
            delivery: stored.delivery,
            delivery_error: stored.delivery_error,
            occurred_at: stored.occurred_at,
            received_at: stored.received_at,
            sequence: stored.sequence,
            external_ids: message.external_ids,
        }
    }
}

impl From<Reaction> for ReactionView {
    fn from(reaction: Reaction) -> Self {
        Self {
            by: reaction.by,
            emoji: reaction.emoji,
        }
    }
}

impl From<Call> for CallView {
    fn from(call: Call) -> Self {
        Self {
            state: call.state,
            duration_s: call.duration_s,
            missed: call.missed,
            transcription: call.transcription,
        }
    }
}

impl From<Recipient> for RecipientView {
    fn from(recipient: Recipient) -> Self {
        Self {
            role: recipient.role,
            address: recipient.address,
            name: recipient.name,
        }
    }
}

impl From<Attachment> for AttachmentView {
    fn from(attachment: Attachment) -> Self {
        Self {
            state: attachment.state(),
            name: attachment.name,
            media_type: attachment.media_type,
            size_bytes: attachment.size_bytes,
            sha256: attachment.sha256,
            content_id: attachment.content_id,
            lost: attachment.lost,
        }
    }
}
