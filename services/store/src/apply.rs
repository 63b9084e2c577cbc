//! Writes what decisions want: one transaction, all or nothing.

use model::context::Changes;

use crate::connection::Connection;
use crate::requests::{Answered, remember};
use crate::sql::{get, sql};
use crate::write::write;
use crate::{Error, Store};

/// The step of a partition that a batch makes: first statement of its transaction.
#[derive(Clone, Debug)]
pub struct Advance {
    pub topic: String,
    pub partition: i32,
    /// The store's offset that the decisions were made from.
    pub from: i64,
    pub to: i64,
}

/// What became of an `apply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    /// A version moved, an insert was lost, a deadlock: reload, decide again.
    Stale,
    /// Somebody else advanced the partition: let go, look where it stands.
    Moved,
}

impl Store {
    /// Writes a batch's changes together with the advance of its partition.
    pub async fn apply(&self, advance: &Advance, changes: &Changes) -> Result<Outcome, Error> {
        let outcome = self.try_apply(advance, changes).await;
        stale_if_conflict(outcome)
    }

    /// Writes changes that come from no partition (an agent's, a clock's).
    /// Never answers [`Outcome::Moved`].
    pub async fn commit(&self, changes: &Changes) -> Result<Outcome, Error> {
        self.commit_all(changes, None).await
    }

    pub(crate) async fn commit_all(&self, changes: &Changes, answered: Option<&Answered>) -> Result<Outcome, Error> {
        let outcome = self.try_commit(changes, answered).await;
        stale_if_conflict(outcome)
    }

    async fn try_apply(&self, advance: &Advance, changes: &Changes) -> Result<Outcome, Error> {
        let mut transaction = self.begin("applying a batch").await?;
        if !step(&mut transaction, advance).await? {
            transaction.rollback().await;
            return Ok(Outcome::Moved);
        }
        if !write(&mut transaction, changes).await? {
            transaction.rollback().await;
            return Ok(Outcome::Stale);
        }
        let Err(error) = transaction.commit("applying a batch").await else {
            return Ok(Outcome::Applied);
        };
        if error.is_conflict() {
            return Err(error);
        }
        // Nobody knows whether it was committed: the partition's row does.
        match self.offset_of(&advance.topic, advance.partition).await? {
            offset if offset == advance.to => Ok(Outcome::Applied),
            offset if offset == advance.from => Err(error),
            _ => Ok(Outcome::Moved),
        }
    }

    async fn try_commit(&self, changes: &Changes, answered: Option<&Answered>) -> Result<Outcome, Error> {
        let mut transaction = self.begin("committing changes").await?;
        let is_first = match answered {
            Some(answered) => remember(&mut transaction, answered).await?,
            None => true,
        };
        if !is_first || !write(&mut transaction, changes).await? {
            transaction.rollback().await;
            return Ok(Outcome::Stale);
        }
        let Err(error) = transaction.commit("committing changes").await else {
            return Ok(Outcome::Applied);
        };
        if !error.is_conflict() && self.is_written(changes).await? {
            return Ok(Outcome::Applied);
        }
        Err(error)
    }

    /// The next offset of a partition, 0 for one never seen.
    pub(crate) async fn offset_of(&self, topic: &str, partition: i32) -> Result<i64, Error> {
        let mut connection = self.read("reading a partition's offset").await?;
        offset(&mut connection, topic, partition).await
    }

    /// Looks for one of the rows of changes whose commit had no answer.
    async fn is_written(&self, changes: &Changes) -> Result<bool, Error> {
        let doing = "looking for a commit's outcome";
        let found = if let Some((ticket_id, event)) = changes.ticket_events.first() {
            sql(
                "SELECT 1 AS found FROM ticket_events WHERE ticket_id = $1 AND version = $2 AND content = $3",
                doing,
            )
            .bind(ticket_id.as_str())
            .bind(event.version)
            .bind(crate::sql::to_json(event, doing)?)
        } else if let Some(message) = changes.messages.first() {
            sql("SELECT 1 AS found FROM messages WHERE id = $1", doing).bind(message.id.as_str())
        } else if let Some(parked) = changes.parked.first() {
            sql("SELECT 1 AS found FROM parked WHERE id = $1", doing).bind(parked.id.as_str())
        } else if let Some((id, conversation)) = changes.conversations.first_key_value() {
            sql(
                "SELECT 1 AS found FROM conversations WHERE id = $1 AND version = $2",
                doing,
            )
            .bind(id.as_str())
            .bind(conversation.row.version)
        } else {
            return Ok(false);
        };
        let mut connection = self.read(doing).await?;
        Ok(found.first(&mut connection).await?.is_some())
    }
}

/// The next offset of a partition, 0 for one never seen.
pub(crate) async fn offset(connection: &mut Connection, topic: &str, partition: i32) -> Result<i64, Error> {
    let row = sql(
        "SELECT next_offset FROM partitions WHERE topic = $1 AND partition = $2",
        "reading a partition's offset",
    )
    .bind(topic)
    .bind(i64::from(partition))
    .first(connection)
    .await?;
    row.as_ref().map_or(Ok(0), |row| get(row, "next_offset"))
}

/// Whether the partition stood where the decisions were made from.
async fn step(connection: &mut Connection, advance: &Advance) -> Result<bool, Error> {
    if try_step(connection, advance).await? {
        return Ok(true);
    }
    if advance.from != 0 {
        return Ok(false);
    }
    sql(
        "INSERT INTO partitions (topic, partition, next_offset) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING",
        "advancing a partition",
    )
    .bind(&advance.topic)
    .bind(i64::from(advance.partition))
    .execute(connection)
    .await?;
    try_step(connection, advance).await
}

async fn try_step(connection: &mut Connection, advance: &Advance) -> Result<bool, Error> {
    let advanced = sql(
        "UPDATE partitions SET next_offset = $1 WHERE topic = $2 AND partition = $3 AND next_offset = $4",
        "advancing a partition",
    )
    .bind(advance.to)
    .bind(&advance.topic)
    .bind(i64::from(advance.partition))
    .bind(advance.from)
    .execute(connection)
    .await?;
    Ok(advanced == 1)
}

fn stale_if_conflict(outcome: Result<Outcome, Error>) -> Result<Outcome, Error> {
    match outcome {
        Err(error) if error.is_conflict() => Ok(Outcome::Stale),
        other => other,
    }
}
