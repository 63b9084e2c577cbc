//! `/v1/messages`: one message, its raw input, and a person's word on its delivery.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use model::conversation::{Direction, StoredMessage};
use model::event::{Attachment, Automatic, DeliveryState, Raw, RawContent, Recipient};
use model::id::{ConversationId, MessageId};
use model::time::Moment;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{BodyProblems, Error, Problem, Problems};
use crate::extract::{Body, IdempotencyKey, Path};
use crate::{Desk, now};

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
    /// The contact's id, a person of the desk, or `rule:<name>`.
    author: String,
    sender: SenderView,
    recipients: Vec<RecipientView>,
    subject: Option<String>,
    text: String,
    /// Sanitised.
    html: Option<String>,
    attachments: Vec<AttachmentView>,
    /// Why it is no person's: `generated`, `list`, `reply`, `bounce` or `own`.
    #[schema(value_type = Option<String>)]
    automatic: Option<Automatic>,
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
    /// As its sender declared it.
    media_type: String,
    size_bytes: u64,
    /// Lower-case hexadecimal.
    sha256: String,
    /// What `cid:` in the HTML refers to.
    content_id: Option<String>,
}

/// A person's word on an uncertain message.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Settle {
    /// `sent` or `failed`.
    #[schema(example = "sent", pattern = "^(sent|failed)$")]
    state: String,
}

/// Bytes as they came.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes an answer; none is made of it")]
struct Octets(Vec<u8>);

/// One message.
#[utoipa::path(get, path = "/v1/messages/{id}", operation_id = "show_message", tag = "messages",
    params(("id" = String, Path, description = "`msg_…`")),
    responses((status = 200, description = "The message", body = MessageView), Problems))]
pub async fn show(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Json<MessageView>, Error> {
    Ok(Json(load(&desk, &parse(&id)?).await?.into()))
}

/// The input that a message came from, byte for byte.
#[utoipa::path(get, path = "/v1/messages/{id}/raw", operation_id = "show_raw_message", tag = "messages",
    params(("id" = String, Path, description = "`msg_…`")),
    responses(
        (status = 200, description = "The bytes", body = Octets, content_type = "application/octet-stream"),
        Problems,
    ))]
pub async fn raw(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Response, Error> {
    let message = load(&desk, &parse(&id)?).await?;
    let bytes = match message.raw {
        Some(raw) => content(&desk, raw).await?,
        None => None,
    };
    let bytes = bytes.ok_or_else(|| Error::not_found("raw input"))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{}.bin\"", message.id),
        ),
    ];
    Ok((headers, bytes).into_response())
}

/// Sends a failed or uncertain message again.
#[utoipa::path(post, path = "/v1/messages/{id}/resend", operation_id = "resend_message", tag = "messages",
    params(
        ("id" = String, Path, description = "`msg_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Accepted everywhere"),
    ),
    responses(
        (status = 200, description = "The message, queued again", body = MessageView),
        (status = 409, description = "The delivery's state does not allow it", body = Problem),
        Problems,
        BodyProblems,
    ))]
pub async fn resend(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    _: IdempotencyKey,
    body: Body,
) -> Result<Json<MessageView>, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    let Nothing {} = body.read()?;
    let id = parse(&id)?;
    let is_done = desk.store.resend(&id, now()).await?;
    settled(
        &desk,
        &id,
        is_done,
        "only a failed or uncertain message can be sent again",
    )
    .await
}

/// Says what became of an uncertain message.
#[utoipa::path(post, path = "/v1/messages/{id}/settle", operation_id = "settle_message", tag = "messages",
    params(
        ("id" = String, Path, description = "`msg_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Accepted everywhere"),
    ),
    request_body = Settle,
    responses(
        (status = 200, description = "The message, settled", body = MessageView),
        (status = 409, description = "The delivery's state does not allow it", body = Problem),
        Problems,
        BodyProblems,
    ))]
pub async fn settle(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    _: IdempotencyKey,
    body: Body,
) -> Result<Json<MessageView>, Error> {
    let Settle { state } = body.read()?;
    let state = match DeliveryState::parse(&state) {
        Some(state @ (DeliveryState::Sent | DeliveryState::Failed)) => state,
        _ => return Err(Error::invalid("invalid", "`state` must be sent or failed")),
    };
    let id = parse(&id)?;
    let is_done = desk.store.settle_by_hand(&id, state, now()).await?;
    settled(&desk, &id, is_done, "only an uncertain message can be settled").await
}

/// Raw bytes, wherever they lie; `None` if they are gone.
pub async fn content(desk: &Desk, raw: Raw) -> Result<Option<Vec<u8>>, Error> {
    match raw.content {
        RawContent::Inline(bytes) => Ok(Some(bytes)),
        RawContent::Blob { sha256, .. } => Ok(desk.blobs.get(&sha256).await?),
    }
}

fn parse(id: &str) -> Result<MessageId, Error> {
    MessageId::parse(id).ok_or_else(|| Error::not_found("message"))
}

async fn load(desk: &Desk, id: &MessageId) -> Result<StoredMessage, Error> {
    let message = desk.store.message(id).await?;
    message.ok_or_else(|| Error::not_found("message"))
}

async fn settled(
    desk: &Desk,
    id: &MessageId,
    is_done: Option<bool>,
    allowed: &str,
) -> Result<Json<MessageView>, Error> {
    let Some(is_done) = is_done else {
        return Err(Error::not_found("message"));
    };
    let message = load(desk, id).await?;
    if !is_done {
        let state = message.delivery.map_or("not one of ours", DeliveryState::as_str);
        return Err(Error::conflict(
            "wrong_state",
            format!("this message is {state}; {allowed}"),
        ));
    }
    Ok(Json(message.into()))
}

impl From<StoredMessage> for MessageView {
    fn from(stored: StoredMessage) -> Self {
        let message = stored.message;
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
            automatic: message.automatic,
            delivery: stored.delivery,
            delivery_error: stored.delivery_error,
            occurred_at: stored.occurred_at,
            received_at: stored.received_at,
            sequence: stored.sequence,
            external_ids: message.external_ids,
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
            name: attachment.name,
            media_type: attachment.media_type,
            size_bytes: attachment.size_bytes,
            sha256: attachment.sha256,
            content_id: attachment.content_id,
        }
    }
}
