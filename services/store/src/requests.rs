//! What people's requests were answered, by their Idempotency-Key. The answer is
//! written in the transaction of what the request changes, so that a repeat finds
//! both or neither.

use model::context::Changes;
use model::time::Moment;

use crate::apply::Outcome;
use crate::connection::Connection;
use crate::sql::{get, moment, sql};
use crate::{Error, Store};

/// A request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub person: String,
    pub idempotency_key: String,
    /// Tells a repeat from another request under the same key.
    pub request_sha256: String,
    /// JSON.
    pub answer: String,
    pub answered_at: Moment,
}

/// How long a repeat is known for one.
const KEPT_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// So many of the oldest are forgotten with each new one: more than come.
const FORGOTTEN_AT_ONCE: i64 = 10;

impl Store {
    /// What this person's request under this key was answered.
    pub async fn answered(&self, person: &str, idempotency_key: &str) -> Result<Option<Answered>, Error> {
        let statement = sql(
            "SELECT person, idempotency_key, request_sha256, answer, answered_at FROM requests
             WHERE person = $1 AND idempotency_key = $2",
            "reading an earlier answer",
        )
        .bind(person)
        .bind(idempotency_key);
        let found = self.read_all(statement, |row| {
            Ok(Answered {
                person: get(row, "person")?,
                idempotency_key: get(row, "idempotency_key")?,
                request_sha256: get(row, "request_sha256")?,
                answer: get(row, "answer")?,
                answered_at: moment(row, "answered_at")?,
            })
        });
        Ok(found.await?.pop())
    }

    /// Like [`Store::commit`], and the answer with it. Also Stale if the key was
    /// answered in the meantime.
    pub async fn commit_answered(&self, changes: &Changes, answered: &Answered) -> Result<Outcome, Error> {
        self.commit_all(changes, Some(answered)).await
    }
}

/// `false`: the key has an answer already.
pub(crate) async fn remember(connection: &mut Connection, answered: &Answered) -> Result<bool, Error> {
    sql(
        "DELETE FROM requests WHERE (person, idempotency_key) IN (
             SELECT person, idempotency_key FROM requests WHERE answered_at < $1 ORDER BY answered_at LIMIT $2)",
        "forgetting old answers",
    )
    .bind(answered.answered_at.plus_ms(-KEPT_MS))
    .bind(FORGOTTEN_AT_ONCE)
    .execute(connection)
    .await?;
    let written = sql(
        "INSERT INTO requests (person, idempotency_key, request_sha256, answer, answered_at)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        "keeping an answer",
    )
    .bind(&answered.person)
    .bind(&answered.idempotency_key)
    .bind(&answered.request_sha256)
    .bind(&answered.answer)
    .bind(answered.answered_at)
    .execute(connection)
    .await?;
    Ok(written == 1)
}
