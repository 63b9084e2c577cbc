//! `/v1/conversations/{id}/replies` and `/notes`: what people of the desk write.
//! One transaction writes the message and its outbox row; a repeat under the
//! same Idempotency-Key finds what the first time wrote.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use data_encoding::BASE64;
use model::context::Changes;
use model::conversation::{Authored, Direction, Draft, StoredMessage, note as decide_note, reply as decide_reply};
use model::event::Attachment;
use model::id::{ConversationId, MessageId, sha256_hex};
use serde::Deserialize;
use store::apply::Outcome;
use utoipa::ToSchema;

use crate::error::{BodyProblems, Error, Problem, Problems};
use crate::extract::{Body, IdempotencyKey, Path};
use crate::messages::MessageView;
use crate::token::Person;
use crate::{ATTEMPTS, Desk, conversations, now};

/// Of one reply.
const MAX_ATTACHMENTS: usize = 50;

/// An answer to the contact.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Reply {
    /// Plain text.
    text: String,
    /// The conversation's, if not given.
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    attachments: Vec<File>,
}

/// A file to be sent along.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReplyAttachment)]
struct File {
    /// Without any path.
    name: String,
    #[schema(example = "application/pdf")]
    media_type: String,
    /// Base64 (RFC 4648 section 4, padded).
    #[schema(content_encoding = "base64")]
    content: String,
}

/// A note among ourselves, never sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Note {
    text: String,
}

/// What is to be written.
enum Writing {
    Reply(Draft),
    Note(String),
}

/// Answers the contact.
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
    let id = conversations::parse(&id)?;
    let key = key.required()?;
    let request_sha256 = fingerprint("reply", &id, &body);
    let reply: Reply = body.read()?;
    let authored = Authored {
        author: &person,
        idempotency_key: &key,
        request_sha256: &request_sha256,
    };
    conversations::load(&desk, &id).await?;
    if let Some(answer) = written_before(&desk, &authored).await? {
        return Ok(answer);
    }
    let draft = draft(&desk, reply).await?;
    write(&desk, &id, &authored, &Writing::Reply(draft)).await
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
    let id = conversations::parse(&id)?;
    let key = key.required()?;
    let request_sha256 = fingerprint("note", &id, &body);
    let Note { text } = body.read()?;
    let authored = Authored {
        author: &person,
        idempotency_key: &key,
        request_sha256: &request_sha256,
    };
    write(&desk, &id, &authored, &Writing::Note(checked_text(text)?)).await
}

/// Tells a repeat from another request under the same key: what, where, and the body byte for byte.
fn fingerprint(what: &str, id: &ConversationId, body: &Body) -> String {
    let mut bytes = format!("{what} {id}\n").into_bytes();
    bytes.extend_from_slice(&body.bytes);
    sha256_hex(&bytes)
}

/// Checks the reply and keeps its attachments, before anything refers to them.
async fn draft(desk: &Desk, reply: Reply) -> Result<Draft, Error> {
    if reply.attachments.len() > MAX_ATTACHMENTS {
        return Err(Error::invalid(
            "invalid",
            format!("a reply takes at most {MAX_ATTACHMENTS} attachments"),
        ));
    }
    let text = if reply.attachments.is_empty() {
        checked_text(reply.text)?
    } else {
        reply.text
    };
    if let Some(subject) = &reply.subject
        && (subject.chars().any(char::is_control) || subject.chars().count() > 998)
    {
        return Err(Error::invalid(
            "invalid",
            "`subject` must be one line of at most 998 characters",
        ));
    }
    let mut decoded = Vec::new();
    for file in reply.attachments {
        decoded.push(checked_file(file)?);
    }
    let mut attachments = Vec::new();
    for (file, bytes) in decoded {
        attachments.push(kept(desk, file, bytes).await?);
    }
    Ok(Draft {
        subject: reply.subject,
        text,
        html: None,
        attachments,
    })
}

fn checked_text(text: String) -> Result<String, Error> {
    if text.trim().is_empty() {
        return Err(Error::invalid("missing_field", "`text` must not be empty"));
    }
    Ok(text)
}

fn checked_file(file: File) -> Result<(File, Vec<u8>), Error> {
    let is_name = (1..=255).contains(&file.name.len())
        && !matches!(file.name.as_str(), "." | "..")
        && !file
            .name
            .chars()
            .any(|char| char.is_control() || matches!(char, '/' | '\\'));
    if !is_name {
        return Err(Error::invalid(
            "invalid",
            "an attachment's `name` must be a file name without path, of at most 255 bytes",
        ));
    }
    if !is_media_type(&file.media_type) {
        return Err(Error::invalid(
            "invalid",
            "an attachment's `media_type` must look like text/plain, without parameters",
        ));
    }
    let bytes = BASE64
        .decode(file.content.as_bytes())
        .map_err(|_| Error::invalid("invalid", "an attachment's `content` must be base64 with padding"))?;
    Ok((file, bytes))
}

/// RFC 6838 section 4.2.
fn is_media_type(text: &str) -> bool {
    let is_name = |name: &str| {
        (1..=127).contains(&name.len())
            && name.starts_with(|char: char| char.is_ascii_alphanumeric())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    text.split_once('/')
        .is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype))
}

async fn kept(desk: &Desk, file: File, bytes: Vec<u8>) -> Result<Attachment, Error> {
    let size_bytes = bytes.len() as u64;
    let sha256 = desk.blobs.put(bytes).await?;
    Ok(Attachment {
        name: file.name,
        media_type: file.media_type.to_ascii_lowercase(),
        size_bytes,
        sha256,
        content_id: None,
    })
}

/// Loads, lets the model decide, commits; again, if somebody else was faster. A
/// concurrent repeat that won is found by the next round.
async fn write(
    desk: &Desk,
    id: &ConversationId,
    authored: &Authored<'_>,
    writing: &Writing,
) -> Result<(StatusCode, Json<MessageView>), Error> {
    for _ in 0..ATTEMPTS {
        let conversation = conversations::load(desk, id).await?;
        if let Some(answer) = written_before(desk, authored).await? {
            return Ok(answer);
        }
        let changes = decide(desk, &conversation, authored, writing).await?;
        if desk.store.commit(&changes).await? == Outcome::Applied {
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
    conversation: &model::conversation::Conversation,
    authored: &Authored<'_>,
    writing: &Writing,
) -> Result<Changes, Error> {
    let book = desk.store.book().await?;
    let ticket = match &conversation.ticket_id {
        Some(ticket_id) => desk.store.ticket_by_id(ticket_id).await?,
        None => None,
    };
    let changes = match writing {
        Writing::Reply(draft) => {
            let latest = latest_inbound(desk, &conversation.id).await?;
            let draft = draft.clone();
            decide_reply(
                conversation,
                ticket.as_ref(),
                latest.as_ref(),
                draft,
                authored,
                now(),
                &book.sla,
            )?
        }
        Writing::Note(text) => decide_note(conversation, ticket.as_ref(), text.clone(), authored, now(), &book.sla)?,
    };
    Ok(changes)
}

/// Whom to answer: the latest message that came in, and not from a machine if a person wrote any.
async fn latest_inbound(desk: &Desk, id: &ConversationId) -> Result<Option<StoredMessage>, Error> {
    let (mut by_person, mut by_machine, mut after) = (None, None, None);
    loop {
        let messages = desk.store.messages(id, after.as_ref(), 200).await?;
        let Some(last) = messages.last() else {
            return Ok(by_person.or(by_machine));
        };
        after = Some(last.id.clone());
        for message in messages {
            match (message.direction, message.message.automatic) {
                (Direction::Inbound, None) => by_person = Some(message),
                (Direction::Inbound, Some(_)) => by_machine = Some(message),
                (Direction::Outbound | Direction::Note, _) => {}
            }
        }
    }
}

async fn written_before(
    desk: &Desk,
    authored: &Authored<'_>,
) -> Result<Option<(StatusCode, Json<MessageView>)>, Error> {
    let message_id = MessageId::authored(authored.author, authored.idempotency_key);
    let Some(message) = desk.store.message(&message_id).await? else {
        return Ok(None);
    };
    if !is_repeat(&message, authored) {
        return Err(Error::invalid(
            "idempotency_key_reused",
            "this Idempotency-Key has named another request of yours; a new request needs a new key",
        ));
    }
    Ok(Some((StatusCode::OK, Json(message.into()))))
}

fn is_repeat(message: &StoredMessage, authored: &Authored<'_>) -> bool {
    message.request_sha256.as_deref() == Some(authored.request_sha256)
}
