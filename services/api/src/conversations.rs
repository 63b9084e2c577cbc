//! `/v1/conversations`: what was said, in order.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use bus::hints::{Hint, Typist};
use model::conversation::{Consent, Conversation};
use model::id::{ContactId, ConversationId, MessageId, TicketId};
use model::time::Moment;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Error, Problems};
use crate::extract::{Path, Query};
use crate::messages::MessageView;
use crate::page::{self, Page, Paging};
use crate::reach::{self, ReachView};
use crate::token::Person;
use crate::{Desk, contacts, now};

/// What was said between a contact and the desk on one account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Conversation)]
pub struct ConversationView {
    #[schema(value_type = String)]
    id: ConversationId,
    account: String,
    channel: String,
    /// Of several contacts that are one person, the first met.
    #[schema(value_type = String)]
    contact_id: ContactId,
    subject: Option<String>,
    /// The ticket that new messages go to.
    #[schema(value_type = Option<String>)]
    ticket_id: Option<TicketId>,
    /// That ticket's number.
    ticket_number: Option<String>,
    /// Who wrote or was written to in it.
    participants: Vec<ParticipantView>,
    /// The conversation that the first message claimed to answer, without proof.
    #[schema(value_type = Option<String>)]
    suggested: Option<ConversationId>,
    /// The contact's latest word on whether we may write; null: none, and we may.
    consent: Option<ConsentView>,
    /// Changes when history is erased: a client that resumes starts anew.
    epoch: i64,
    /// The number of the latest message that the contact can see.
    last_sequence: i64,
    #[schema(value_type = String, format = DateTime)]
    last_message_at: Moment,
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
    version: i64,
    /// When the contact left a live conversation (a chat): an answer then goes by mail, if an address is known. Null:
    /// he is there or may be back any moment, or nobody looks at this conversation live.
    #[schema(value_type = Option<String>, format = DateTime)]
    left_at: Option<Moment>,
    /// By which ways the contact can be answered: this conversation's own first. A reply takes another by `via`.
    reachable: Vec<ReachView>,
}

/// Somebody who takes part.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Participant)]
struct ParticipantView {
    #[schema(example = "email")]
    scheme: String,
    address: String,
    /// Somebody whom we trust vouches for the address.
    verified: bool,
}

/// Whether the contact wants to be written to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Consent)]
struct ConsentView {
    given: bool,
    /// How they said so.
    #[schema(example = "STOP")]
    reason: String,
    #[schema(value_type = String, format = DateTime)]
    at: Moment,
}

impl From<Consent> for ConsentView {
    fn from(consent: Consent) -> Self {
        Self {
            given: consent.given,
            reason: consent.reason,
            at: consent.at,
        }
    }
}

/// One conversation.
#[utoipa::path(get, path = "/v1/conversations/{id}", operation_id = "show_conversation", tag = "conversations",
    params(("id" = String, Path, description = "`cnv_…`")),
    responses((status = 200, description = "The conversation", body = ConversationView), Problems))]
pub async fn show(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Json<ConversationView>, Error> {
    let mut conversation = load(&desk, &parse(&id)?).await?;
    let ticket = match &conversation.ticket_id {
        Some(ticket_id) => desk.store.ticket_by_id(ticket_id).await?,
        None => None,
    };
    let ways = reach::ways(&desk, &conversation).await?;
    let now = now();
    let left_at = reach::left_at(&desk, &conversation, now).await?;
    contacts::resolve(&desk, std::iter::once(&mut conversation.contact_id)).await?;
    Ok(Json(ConversationView::of(
        conversation,
        ticket.map(|ticket| ticket.number),
        left_at,
        ways.into_iter().map(|way| ReachView::of(way, now)).collect(),
    )))
}

/// Tells the contact that somebody of the desk is writing, if he looks just now.
///
/// Best effort; said again every few seconds while it holds.
#[utoipa::path(post, path = "/v1/conversations/{id}/typing", operation_id = "type", tag = "conversations",
    params(("id" = String, Path, description = "`cnv_…`")),
    responses((status = 204, description = "Told"), Problems))]
pub async fn typing(State(desk): State<Desk>, Path(id): Path<String>) -> Result<StatusCode, Error> {
    let conversation = load(&desk, &parse(&id)?).await?;
    if let Some(thread) = &conversation.thread_name {
        desk.hints.publish(Hint::Typing {
            account: conversation.account.clone(),
            thread: thread.clone(),
            by: Typist::Desk,
        });
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A conversation's messages and notes in their order.
#[utoipa::path(get, path = "/v1/conversations/{id}/messages", tag = "conversations",
    params(("id" = String, Path, description = "`cnv_…`"), Paging),
    responses((status = 200, description = "A page of messages", body = Page<MessageView>), Problems))]
pub async fn list_messages(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<MessageView>>, Error> {
    let limit = page::limit(paging.limit)?;
    let after = page::position(paging.after.as_deref(), MessageId::parse)?;
    let conversation = load(&desk, &parse(&id)?).await?;
    let messages = desk.store.messages(&conversation.id, after.as_ref(), limit + 1).await?;
    let page = page::page(messages, limit, |message| message.id.as_str().to_owned());
    Ok(Json(page.map(Into::into)))
}

/// Erases what was said in a conversation: texts, files and raw input.
///
/// Ids stay, so that nothing brings it back. Its tickets lose their subject, if it came from here, and what was
/// noted with resolutions. The conversation begins a new epoch: a chat's client is told that history is gone. A
/// repeat changes nothing. The README says what erasure does not reach.
#[utoipa::path(delete, path = "/v1/conversations/{id}", operation_id = "erase_conversation", tag = "conversations",
    params(("id" = String, Path, description = "`cnv_…`")),
    responses((status = 204, description = "Erased, now or before"), Problems))]
pub async fn erase(
    State(desk): State<Desk>,
    Extension(Person(person)): Extension<Person>,
    Path(id): Path<String>,
) -> Result<StatusCode, Error> {
    let id = parse(&id)?;
    match desk.store.erase_conversation(&id, &person, now()).await? {
        None => Err(Error::not_found("conversation")),
        Some(is_new) => {
            tracing::info!(conversation.id = %id, is_new, "conversation erased");
            if let Some(conversation) = desk.store.conversation(&id).await? {
                desk.hints.publish(Hint::changed(&conversation));
            }
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

/// The id, if it has the form of one.
pub fn parse(id: &str) -> Result<ConversationId, Error> {
    ConversationId::parse(id).ok_or_else(|| Error::not_found("conversation"))
}

/// The conversation of that id.
pub async fn load(desk: &Desk, id: &ConversationId) -> Result<Conversation, Error> {
    let conversation = desk.store.conversation(id).await?;
    conversation.ok_or_else(|| Error::not_found("conversation"))
}

impl ConversationView {
    fn of(
        conversation: Conversation,
        ticket_number: Option<String>,
        left_at: Option<Moment>,
        reachable: Vec<ReachView>,
    ) -> Self {
        let participants = conversation.participants.into_iter().map(|identity| ParticipantView {
            scheme: identity.scheme,
            address: identity.address,
            verified: identity.verified,
        });
        Self {
            id: conversation.id,
            account: conversation.account,
            channel: conversation.channel,
            contact_id: conversation.contact_id,
            subject: conversation.subject,
            ticket_id: conversation.ticket_id,
            ticket_number,
            participants: participants.collect(),
            suggested: conversation.suggested,
            consent: conversation.consent.map(Into::into),
            epoch: conversation.epoch,
            last_sequence: conversation.last_sequence,
            last_message_at: conversation.last_message_at,
            created_at: conversation.created_at,
            version: conversation.version,
            left_at,
            reachable,
        }
    }
}
