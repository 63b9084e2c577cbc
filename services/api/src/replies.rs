//! `/v1/conversations/{id}/replies` and `/notes`: what people of the desk write.
//! One transaction writes the message and its outbox row; a repeat under the
//! same Idempotency-Key finds what the first time wrote.

mod attachments;
mod template;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use bus::hints::Hint;
use model::context::Changes;
use model::conversation::{self, Authored, Conversation, Draft, StoredMessage};
use model::html;
use model::id::{ConversationId, MessageId, sha256_hex};
use model::template::Template;
use serde::Deserialize;
use store::apply::Outcome;
use utoipa::ToSchema;

use crate::error::{BodyProblems, Error, Problem, Problems};
use crate::extract::{Body, IdempotencyKey, Path};
use crate::messages::MessageView;
use crate::reach::{self, Via};
use crate::token::Person;
use crate::{ATTEMPTS, Desk, conversations, now};
pub use template::TemplateView;

/// An answer to the contact.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Reply {
    /// Plain text. May be left out beside `html`: then it is what that says; and beside `template`: there it is not
    /// sent, but shows the desk what the contact will read.
    #[serde(default)]
    text: String,
    /// The same in HTML, for channels that carry it; up to 1 MiB. It is sanitised: no script, nothing that
    /// loads by itself.
    #[serde(default)]
    html: Option<String>,
    /// The conversation's, if not given.
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    attachments: Vec<attachments::File>,
    /// Instead of own words, where the conversation's `reachable` says that there are templates: allowed outside of
    /// the window too. A first attachment goes into its header.
    #[serde(default)]
    template: Option<TemplateView>,
    /// A message of the conversation (`msg_…`) that is shown as quoted, where the channel can do so.
    #[serde(default)]
    quotes: Option<String>,
    /// By another of the ways that the conversation lists as `reachable`.
    #[serde(default)]
    via: Option<Via>,
}

/// A note among ourselves, never sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Note {
    text: String,
}

/// Who wants something written where, under which name.
struct Request {
    conversation: ConversationId,
    author: String,
    idempotency_key: String,
    /// Tells a repeat from another request under the same key: what, where, and the body byte for byte.
    sha256: String,
}

/// What is to be written.
enum Writing {
    Reply {
        draft: Box<Draft>,
        /// The bytes of its attachments.
        files: Vec<Vec<u8>>,
        via: Option<Via>,
        quotes: Option<String>,
    },
    Note(String),
}

/// Answers the contact.
///
/// It goes by the conversation's own channel, or by the one that `via` names; and if the contact has left a live
/// conversation (a chat) and an address is known, by mail. `account`, `conversation_id` and `recipients` of what is
/// answered say which way it went: another conversation than the one asked for is on the same ticket.
///
/// A repeat with the same Idempotency-Key and the same body answers 200 with the message that the first
/// time wrote; the same key with another body is refused with `idempotency_key_reused`.
#[utoipa::path(post, path = "/v1/conversations/{id}/replies", tag = "conversations",
    params(
        ("id" = String, Path, description = "`cnv_…`"),
        ("Idempotency-Key" = String, Header, description = "Names this reply: 1 to 255 visible ASCII characters"),
    ),
    request_body = Reply,
    responses(
        (status = 201, description = "Written, and on its way", body = MessageView),
        (status = 200, description = "Written before", body = MessageView),
        (status = 409, description = "The ticket's state does not allow it", body = Problem),
        Problems,
        BodyProblems,
    ))]
pub async fn reply(
    State(desk): State<Desk>,
    Extension(Person(person)): Extension<Person>,
    Path(id): Path<String>,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<MessageView>), Error> {
    let request = Request::read("reply", person, &id, key, &body)?;
    write(&desk, &request, &draft(&desk, body.read()?).await?).await
}

/// Writes a note that the contact never sees.
#[utoipa::path(post, path = "/v1/conversations/{id}/notes", tag = "conversations",
    params(
        ("id" = String, Path, description = "`cnv_…`"),
        ("Idempotency-Key" = String, Header, description = "Names this note: 1 to 255 visible ASCII characters"),
    ),
    request_body = Note,
    responses(
        (status = 201, description = "Written", body = MessageView),
        (status = 200, description = "Written before", body = MessageView),
        (status = 409, description = "The ticket's state does not allow it", body = Problem),
        Problems,
        BodyProblems,
    ))]
pub async fn note(
    State(desk): State<Desk>,
    Extension(Person(person)): Extension<Person>,
    Path(id): Path<String>,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<MessageView>), Error> {
    let request = Request::read("note", person, &id, key, &body)?;
    let Note { text } = body.read()?;
    write(&desk, &request, &Writing::Note(checked_text(text)?)).await
}

impl Request {
    fn read(what: &str, author: String, id: &str, key: IdempotencyKey, body: &Body) -> Result<Self, Error> {
        let conversation = conversations::parse(id)?;
        let idempotency_key = key.required()?;
        let mut bytes = format!("{what} {conversation}\n").into_bytes();
        bytes.extend_from_slice(&body.bytes);
        Ok(Self {
            conversation,
            author,
            idempotency_key,
            sha256: sha256_hex(&bytes),
        })
    }

    fn authored(&self) -> Authored<'_> {
        Authored {
            author: &self.author,
            idempotency_key: &self.idempotency_key,
            request_sha256: &self.sha256,
        }
    }
}

/// Checks what can be checked without knowing the conversation.
async fn draft(desk: &Desk, reply: Reply) -> Result<Writing, Error> {
    let (text, html) = contents(reply.text, reply.html).await?;
    let template = reply.template.map(Template::from);
    let text = match &template {
        Some(template) if text.trim().is_empty() => template.in_words(),
        None if reply.attachments.is_empty() => checked_text(text)?,
        _ => text,
    };
    if let Some(subject) = &reply.subject
        && (subject.chars().any(char::is_control) || subject.chars().count() > 998)
    {
        return Err(Error::invalid(
            "invalid",
            "`subject` must be one line of at most 998 characters",
        ));
    }
    let (attachments, files) = attachments::checked(desk, reply.attachments).await?.into_iter().unzip();
    let draft = Draft {
        subject: reply.subject,
        text,
        html,
        attachments,
        template,
        quotes: None,
    };
    Ok(Writing::Reply {
        draft: Box::new(draft),
        files,
        via: reply.via,
        quotes: reply.quotes,
    })
}

/// The HTML sanitised, and its text where there is no other.
async fn contents(text: String, html: Option<String>) -> Result<(String, Option<String>), Error> {
    let Some(html) = html.filter(|html| !html.trim().is_empty()) else {
        return Ok((text, None));
    };
    let cleaned = tokio::task::spawn_blocking(move || html::clean(&html));
    let cleaned = cleaned.await.map_err(|error| Error::Fault(error.into()))?;
    let Some(html) = cleaned.html else {
        return Err(Error::invalid("invalid", "`html` is too large or too deep"));
    };
    let text = if text.trim().is_empty() { cleaned.text } else { text };
    Ok((text, Some(html)))
}

fn checked_text(text: String) -> Result<String, Error> {
    if text.trim().is_empty() {
        return Err(Error::invalid("missing_field", "`text` must not be empty"));
    }
    Ok(text)
}

/// Loads, lets the model decide, commits; again, if somebody else was faster. A
/// concurrent repeat that won is found by the next round.
async fn write(desk: &Desk, request: &Request, writing: &Writing) -> Result<(StatusCode, Json<MessageView>), Error> {
    let authored = request.authored();
    for _ in 0..ATTEMPTS {
        let conversation = conversations::load(desk, &request.conversation).await?;
        if let Some(answer) = written_before(desk, &authored).await? {
            return Ok(answer);
        }
        let changes = decide(desk, &conversation, &authored, writing).await?;
        keep_files(desk, writing).await?;
        if desk.store.commit(&changes).await? == Outcome::Applied {
            for replacing in changes.conversations.values() {
                desk.hints.publish(Hint::changed(&replacing.row));
            }
            let message_id = MessageId::authored(authored.author, authored.idempotency_key);
            let message = changes.messages.into_iter().find(|message| message.id == message_id);
            let message = message.ok_or_else(|| Error::Fault("the model wrote no message".into()))?;
            return Ok((StatusCode::CREATED, Json(message.into())));
        }
    }
    Err(Error::busy("others are writing in this conversation at the same time"))
}

async fn decide(
    desk: &Desk,
    conversation: &Conversation,
    authored: &Authored<'_>,
    writing: &Writing,
) -> Result<Changes, Error> {
    let (book, now) = (desk.store.book().await?, now());
    let ticket = match &conversation.ticket_id {
        Some(ticket_id) => desk.store.ticket_by_id(ticket_id).await?,
        None => None,
    };
    let ticket = ticket.as_ref();
    let changes = match writing {
        Writing::Reply { draft, via, quotes, .. } => {
            let message_id = MessageId::authored(authored.author, authored.idempotency_key);
            let chosen = reach::choose(desk, conversation, ticket, via.as_ref(), &message_id, now).await?;
            let mut draft = Draft::clone(draft);
            if let Some(quoted) = quotes {
                draft.quotes = Some(quoted_id(desk, &chosen.way.conversation, quoted).await?);
            }
            chosen.way.declaration.check(&draft, chosen.asked_at, now)?;
            conversation::reply(&chosen.way, ticket, draft, authored, now, &book.sla)?
        }
        Writing::Note(text) => conversation::note(conversation, ticket, text.clone(), authored, now, &book.sla)?,
    };
    Ok(changes)
}

/// What the vendor calls a message of this conversation.
async fn quoted_id(desk: &Desk, conversation: &Conversation, id: &str) -> Result<String, Error> {
    let found = match MessageId::parse(id) {
        Some(id) => desk.store.message(&id).await?,
        None => None,
    };
    let is_there = |stored: &StoredMessage| stored.conversation_id == conversation.id;
    let Some(quoted) = found.filter(is_there) else {
        return Err(Error::invalid(
            "invalid",
            "`quotes` names no message of this conversation",
        ));
    };
    let mut ids = quoted.message.external_ids.into_iter().rev();
    let vendors = ids.find(|external_id| external_id != quoted.id.as_str());
    vendors.ok_or_else(|| Error::invalid("invalid", "the message that `quotes` names is not at the vendor"))
}

/// Attachments are durable before anything refers to them.
async fn keep_files(desk: &Desk, writing: &Writing) -> Result<(), Error> {
    if let Writing::Reply { files, .. } = writing {
        for bytes in files {
            desk.blobs.put(bytes.clone()).await?;
        }
    }
    Ok(())
}

async fn written_before(
    desk: &Desk,
    authored: &Authored<'_>,
) -> Result<Option<(StatusCode, Json<MessageView>)>, Error> {
    let message_id = MessageId::authored(authored.author, authored.idempotency_key);
    let Some(message) = desk.store.message(&message_id).await? else {
        if desk.store.is_erased(&message_id).await? {
            return Err(Error::Refused {
                status: StatusCode::GONE,
                code: "erased",
                detail: "this Idempotency-Key has named a message that was erased; a new request needs a new key"
                    .to_owned(),
            });
        }
        return Ok(None);
    };
    if !is_repeat(&message, authored) {
        return Err(Error::key_reused());
    }
    Ok(Some((StatusCode::OK, Json(message.into()))))
}

fn is_repeat(message: &StoredMessage, authored: &Authored<'_>) -> bool {
    message.request_sha256.as_deref() == Some(authored.request_sha256)
}
