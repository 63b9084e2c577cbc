//! `/v1/messages`: one message, its raw input and files, and a person's word on its delivery.

pub mod history;
mod view;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use model::conversation::StoredMessage;
use model::event::{DeliveryState, Raw, RawContent};
use model::id::MessageId;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::{BodyProblems, Error, Problem, Problems};
use crate::extract::{Body, IdempotencyKey, Path};
use crate::once::{self, Answer, Named};
use crate::token::Person;
use crate::{Desk, files, now};
pub use view::MessageView;

/// A person's word on an uncertain message.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Settle {
    /// `sent` or `failed`.
    #[schema(example = "sent", pattern = "^(sent|failed)$")]
    state: String,
}

/// A body that says nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Bytes as they came.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes an answer; none is made of it")]
pub struct Octets(Vec<u8>);

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
    let headers = model::file::headers(&format!("{}.bin", message.id), model::file::OCTETS);
    Ok((headers, bytes).into_response())
}

/// A file of a message, to be saved; its type is what its bytes are, never what its sender declared, and only
/// types that run nothing are named. A `Range` is served.
#[utoipa::path(get, path = "/v1/messages/{id}/attachments/{sha256}", operation_id = "show_attachment", tag = "messages",
    params(
        ("id" = String, Path, description = "`msg_…`"),
        ("sha256" = String, Path, description = "The attachment's `sha256`"),
    ),
    responses(
        (status = 200, description = "The bytes", body = Octets, content_type = "application/octet-stream"),
        Problems,
    ))]
pub async fn attachment(
    State(desk): State<Desk>,
    Path((id, sha256)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let message = load(&desk, &parse(&id)?).await?.message;
    let attachment = message
        .attachments
        .into_iter()
        .find(|attachment| !sha256.is_empty() && attachment.sha256 == sha256);
    let attachment = attachment.ok_or_else(|| Error::not_found("attachment"))?;
    files::serve(&desk, &attachment.sha256, &attachment.name, &headers).await
}

/// Fetches a lost attachment again; `position` counts the message's attachments from 0.
#[utoipa::path(post, path = "/v1/messages/{id}/attachments/{position}/fetch", operation_id = "fetch_attachment",
    tag = "messages",
    params(
        ("id" = String, Path, description = "`msg_…`"),
        ("position" = u32, Path, description = "Among the message's attachments, from 0"),
        ("Idempotency-Key" = Option<String>, Header, description = "Accepted everywhere"),
    ),
    responses(
        (status = 200, description = "The message; the attachment is pending", body = MessageView),
        (status = 409, description = "It is not lost, or nobody knows where it was", body = Problem),
        Problems,
        BodyProblems,
    ))]
pub async fn fetch(
    State(desk): State<Desk>,
    Path((id, position)): Path<(String, u32)>,
    _: IdempotencyKey,
    body: Body,
) -> Result<Json<MessageView>, Error> {
    let Nothing {} = body.read()?;
    let id = parse(&id)?;
    match desk.store.fetch_again(&id, position as usize, now()).await? {
        None => Err(Error::not_found("attachment")),
        Some(true) => Ok(Json(load(&desk, &id).await?.into())),
        Some(false) => Err(Error::conflict(
            "wrong_state",
            "only a lost attachment that came as a reference can be fetched again",
        )),
    }
}

/// Sends a failed or uncertain message again.
#[utoipa::path(post, path = "/v1/messages/{id}/resend", operation_id = "resend_message", tag = "messages",
    params(
        ("id" = String, Path, description = "`msg_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = once::KEY),
    ),
    responses(
        (status = 200, description = "The message, queued again", body = MessageView),
        (status = 409, description = "The delivery's state does not allow it", body = Problem),
        Problems,
        BodyProblems,
    ))]
pub async fn resend(
    State(desk): State<Desk>,
    Extension(Person(person)): Extension<Person>,
    Path(id): Path<String>,
    key: IdempotencyKey,
    body: Body,
) -> Result<Response, Error> {
    let id = parse(&id)?;
    let named = Named::read(person, key, &format!("resend {id}"), &body);
    let Nothing {} = body.read()?;
    move_delivery(&desk, named.as_ref(), &id, DeliveryState::Queued).await
}

/// Says what became of an uncertain message.
#[utoipa::path(post, path = "/v1/messages/{id}/settle", operation_id = "settle_message", tag = "messages",
    params(
        ("id" = String, Path, description = "`msg_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = once::KEY),
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
    Extension(Person(person)): Extension<Person>,
    Path(id): Path<String>,
    key: IdempotencyKey,
    body: Body,
) -> Result<Response, Error> {
    let named = Named::read(person, key, &format!("settle {id}"), &body);
    let Settle { state } = body.read()?;
    let state = match DeliveryState::parse(&state) {
        Some(state @ (DeliveryState::Sent | DeliveryState::Failed)) => state,
        _ => return Err(Error::invalid("invalid", "`state` must be sent or failed")),
    };
    move_delivery(&desk, named.as_ref(), &parse(&id)?, state).await
}

/// Raw bytes, wherever they lie; `None` if they are gone.
pub async fn content(desk: &Desk, raw: Raw) -> Result<Option<Vec<u8>>, Error> {
    match raw.content {
        RawContent::Inline(bytes) => Ok(Some(bytes)),
        RawContent::Blob { sha256, .. } => Ok(desk.blobs.get(&sha256).await?),
    }
}

pub(crate) fn parse(id: &str) -> Result<MessageId, Error> {
    MessageId::parse(id).ok_or_else(|| Error::not_found("message"))
}

async fn load(desk: &Desk, id: &MessageId) -> Result<StoredMessage, Error> {
    let message = desk.store.message(id).await?;
    message.ok_or_else(|| Error::not_found("message"))
}

/// Moves a message of ours to this state by a person's word, once.
async fn move_delivery(
    desk: &Desk,
    named: Option<&Named>,
    id: &MessageId,
    to: DeliveryState,
) -> Result<Response, Error> {
    if let Some(answer) = once::answered_before(desk, named).await? {
        return Ok(answer);
    }
    let mut message = load(desk, id).await?;
    let state = message.delivery.map_or("not one of ours", DeliveryState::as_str);
    message.delivery = Some(to);
    message.delivery_error = None;
    let answer = Answer::new(named, &MessageView::from(message))?;
    let kept = answer.kept.as_ref();
    let (moved, allowed) = match to {
        DeliveryState::Queued => (
            desk.store.resend(id, now(), kept).await?,
            "only a failed or uncertain message can be sent again",
        ),
        _ => (
            desk.store.settle_by_hand(id, to, now(), kept).await?,
            "only an uncertain message can be settled",
        ),
    };
    if moved == Some(true) {
        return Ok(answer.into_response());
    }
    // A repeat at the same time may have been faster.
    if let Some(answer) = once::answered_before(desk, named).await? {
        return Ok(answer);
    }
    Err(Error::conflict(
        "wrong_state",
        format!("this message is {state}; {allowed}"),
    ))
}
