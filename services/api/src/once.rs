//! A request that bears an Idempotency-Key is carried out once: its repeat gets
//! the answer of the first time and changes nothing. (Replies and notes know their
//! repeats by the message that they wrote.)

use axum::http::header;
use axum::response::{IntoResponse, Response};
use model::context::Changes;
use model::id::sha256_hex;
use serde::Serialize;
use store::apply::Outcome;
use store::requests::Answered;

use crate::error::Error;
use crate::extract::{Body, IdempotencyKey};
use crate::{Desk, now};

/// How OpenAPI describes the key where it may be left out.
pub const KEY: &str = "Names this request: 1 to 255 visible ASCII characters. For a week a repeat under the same \
    key gets the first answer and changes nothing; under it another request is refused with `idempotency_key_reused`";

/// A request under a key of its sender's.
pub struct Named {
    person: String,
    idempotency_key: String,
    request_sha256: String,
}

/// What is answered, and under which name it is kept.
pub struct Answer {
    json: String,
    pub kept: Option<Answered>,
}

impl Named {
    /// `target` is what the request does, and to what. `None`: it bears no key.
    pub fn read(person: String, key: IdempotencyKey, target: &str, body: &Body) -> Option<Self> {
        let mut bytes = format!("{target}\n").into_bytes();
        bytes.extend_from_slice(&body.bytes);
        Some(Self {
            person,
            idempotency_key: key.0?,
            request_sha256: sha256_hex(&bytes),
        })
    }
}

/// What the first request of this name was answered.
pub async fn answered_before(desk: &Desk, named: Option<&Named>) -> Result<Option<Response>, Error> {
    let Some(named) = named else { return Ok(None) };
    let found = desk.store.answered(&named.person, &named.idempotency_key).await?;
    match found {
        None => Ok(None),
        Some(answered) if answered.request_sha256 == named.request_sha256 => Ok(Some(json(answered.answer))),
        Some(_) => Err(Error::key_reused()),
    }
}

impl Answer {
    /// Commits what the request does, and the answer with it. `None`: somebody else
    /// was faster, decide again.
    pub async fn commit(self, desk: &Desk, changes: &Changes) -> Result<Option<Response>, Error> {
        let outcome = match &self.kept {
            Some(kept) => desk.store.commit_answered(changes, kept).await?,
            None if changes.is_empty() => Outcome::Applied,
            None => desk.store.commit(changes).await?,
        };
        Ok((outcome == Outcome::Applied).then(|| self.into_response()))
    }

    /// `body` is what the request will be answered, once it is carried out.
    pub fn new(named: Option<&Named>, body: &impl Serialize) -> Result<Self, Error> {
        let json = serde_json::to_string(body).map_err(|error| Error::Fault(error.into()))?;
        let kept = named.map(|named| Answered {
            person: named.person.clone(),
            idempotency_key: named.idempotency_key.clone(),
            request_sha256: named.request_sha256.clone(),
            answer: json.clone(),
            answered_at: now(),
        });
        Ok(Self { json, kept })
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        json(self.json)
    }
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
