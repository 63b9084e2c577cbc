//! What became of a message: its row, its state, its external ids and the
//! announcement, in one transaction.

use std::collections::HashSet;

use model::context::Announcement;
use model::event::DeliveryState;
use model::id::{ConversationId, MessageId};
use model::time::Moment;

use super::{Settlement, lease_name};
use crate::connection::{Connection, Transaction};
use crate::lease::holds;
use crate::sql::{get, json, parsed, sql, to_json};
use crate::write::insert_external_ids;
use crate::{Error, Store, announcements};

/// How often a settlement is tried again that another writer got in the way of.
const TRIES: usize = 5;

/// Which row may be settled.
#[derive(Clone, Copy)]
pub(super) enum Guard {
    /// The one that was claimed under this fence.
    ClaimedUnder(i64),
    /// One that an earlier holder than this fence's left in `sending`.
    LeftBefore(i64),
}

impl Store {
    /// Another writer in the way (a batch that changes the same conversation) is
    /// no reason to forget what became of a message.
    pub(super) async fn settle(
        &self,
        message_id: &MessageId,
        guard: Guard,
        settlement: &Settlement,
        now: Moment,
    ) -> Result<bool, Error> {
        let mut tries = 1;
        loop {
            match self.try_settle(message_id, guard, settlement, now).await {
                Err(error) if error.is_conflict() && tries < TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    async fn try_settle(
        &self,
        message_id: &MessageId,
        guard: Guard,
        settlement: &Settlement,
        now: Moment,
    ) -> Result<bool, Error> {
        let doing = "settling a message";
        let mut transaction = self.begin(doing).await?;
        if let Guard::LeftBefore(fence) = guard {
            let account = account_of(&mut transaction, message_id).await?;
            if !holds(&mut transaction, &lease_name(&account), fence).await? {
                return Ok(false);
            }
        }
        let is_ours = match settlement {
            Settlement::Retry { at, error } => {
                put_back(&mut transaction, message_id, guard, *at).await?
                    && note_error(&mut transaction, message_id, error).await?
            }
            Settlement::Sent { external_ids } => {
                take_out(&mut transaction, message_id, guard).await?
                    && advance(&mut transaction, message_id, DeliveryState::Sent, None, now).await?
                    && add_external_ids(&mut transaction, message_id, external_ids).await?
            }
            Settlement::Failed { error } => fail(&mut transaction, message_id, guard, error, now).await?,
            Settlement::Uncertain { error } => {
                take_out(&mut transaction, message_id, guard).await?
                    && advance(&mut transaction, message_id, DeliveryState::Uncertain, Some(error), now).await?
            }
        };
        if is_ours {
            transaction.commit(doing).await?;
        }
        Ok(is_ours)
    }

    /// Begins a transaction in which a message has moved from one of these states
    /// to another, by a person's word, and is announced. `None`: it is in no such state.
    pub(super) async fn reset(
        &self,
        message_id: &MessageId,
        from: &[DeliveryState],
        to: DeliveryState,
        now: Moment,
        doing: &'static str,
    ) -> Result<Option<Transaction>, Error> {
        let mut transaction = self.begin(doing).await?;
        let Some(conversation) = lock_conversation(&mut transaction, message_id).await? else {
            return Ok(None);
        };
        let allowed = |index: usize| from.get(index).map(|state| state.as_str());
        let moved = sql(
            "UPDATE messages SET delivery = $1, delivery_error = NULL WHERE id = $2 AND (delivery = $3 OR delivery = $4)",
            doing,
        )
        .bind(to.as_str())
        .bind(message_id.as_str())
        .bind(allowed(0))
        .bind(allowed(1))
        .execute(&mut transaction)
        .await?;
        if moved == 0 {
            return Ok(None);
        }
        announce(&mut transaction, message_id, &conversation, &kind_of(to), now).await?;
        Ok(Some(transaction))
    }

    /// `Some(false)` for a message of ours, `None` for another or none.
    pub(super) async fn is_ours(&self, message_id: &MessageId) -> Result<Option<bool>, Error> {
        let statement = sql(
            "SELECT id FROM messages WHERE id = $1 AND delivery IS NOT NULL AND erased_at IS NULL",
            "reading a message",
        )
        .bind(message_id.as_str());
        let found: Vec<String> = self.read_all(statement, |row| get(row, "id")).await?;
        Ok(found.first().map(|_| false))
    }
}

/// It will never work.
pub(super) async fn fail(
    connection: &mut Connection,
    message_id: &MessageId,
    guard: Guard,
    error: &str,
    now: Moment,
) -> Result<bool, Error> {
    Ok(take_out(connection, message_id, guard).await?
        && advance(connection, message_id, DeliveryState::Failed, Some(error), now).await?)
}

/// Nobody knows whether it was sent: its row is gone already.
pub(crate) async fn doubt(
    connection: &mut Connection,
    message_id: &MessageId,
    reason: &str,
    now: Moment,
) -> Result<bool, Error> {
    advance(connection, message_id, DeliveryState::Uncertain, Some(reason), now).await
}

async fn account_of(connection: &mut Connection, message_id: &MessageId) -> Result<String, Error> {
    let row = sql("SELECT account FROM outbox WHERE message_id = $1", "reading the outbox")
        .bind(message_id.as_str())
        .first(connection)
        .await?;
    row.as_ref().map_or(Ok(String::new()), |row| get(row, "account"))
}

/// The row waits again.
async fn put_back(
    connection: &mut Connection,
    message_id: &MessageId,
    guard: Guard,
    at: Moment,
) -> Result<bool, Error> {
    let (fence, before) = guard.fences();
    let changed = sql(
        "UPDATE outbox SET state = 'queued', due_at = $1
         WHERE message_id = $2 AND state = 'sending' AND (fence = $3 OR fence < $4)",
        "putting a message back",
    )
    .bind(at)
    .bind(message_id.as_str())
    .bind(fence)
    .bind(before)
    .execute(connection)
    .await?;
    Ok(changed == 1)
}

/// The row is done with.
async fn take_out(connection: &mut Connection, message_id: &MessageId, guard: Guard) -> Result<bool, Error> {
    let (fence, before) = guard.fences();
    let removed = sql(
        "DELETE FROM outbox WHERE message_id = $1 AND state = 'sending' AND (fence = $2 OR fence < $3)",
        "settling a message",
    )
    .bind(message_id.as_str())
    .bind(fence)
    .bind(before)
    .execute(connection)
    .await?;
    Ok(removed == 1)
}

async fn note_error(connection: &mut Connection, message_id: &MessageId, error: &str) -> Result<bool, Error> {
    sql(
        "UPDATE messages SET delivery_error = $1 WHERE id = $2",
        "noting why a message was not sent",
    )
    .bind(clean(error))
    .bind(message_id.as_str())
    .execute(connection)
    .await?;
    Ok(true)
}

/// Moves the message's state forward and announces it. A report that overtook us
/// has moved it further already: then nothing changes.
async fn advance(
    connection: &mut Connection,
    message_id: &MessageId,
    state: DeliveryState,
    error: Option<&str>,
    now: Moment,
) -> Result<bool, Error> {
    let Some(conversation) = lock_conversation(connection, message_id).await? else {
        return Ok(true);
    };
    let row = sql(
        "SELECT delivery FROM messages WHERE id = $1",
        "reading a message's state",
    )
    .bind(message_id.as_str())
    .first(connection)
    .await?;
    let known: Option<String> = match &row {
        Some(row) => get(row, "delivery")?,
        None => None,
    };
    let Some(known) = known else { return Ok(true) };
    // A state that is none of ours must not keep the message from having one.
    if DeliveryState::parse(&known).is_some_and(|known| known >= state) {
        return Ok(true);
    }
    sql(
        "UPDATE messages SET delivery = $1, delivery_error = $2 WHERE id = $3",
        "moving a message's state",
    )
    .bind(state.as_str())
    .bind(error.map(clean))
    .bind(message_id.as_str())
    .execute(connection)
    .await?;
    announce(connection, message_id, &conversation, &kind_of(state), now).await
}

/// Whoever changes a delivery's state locks the conversation first, a batch too.
pub(crate) async fn lock_conversation(
    connection: &mut Connection,
    message_id: &MessageId,
) -> Result<Option<ConversationId>, Error> {
    let row = sql(
        "UPDATE conversations SET version = version
         WHERE id = (SELECT conversation_id FROM messages WHERE id = $1 AND erased_at IS NULL)
         RETURNING id",
        "locking a conversation",
    )
    .bind(message_id.as_str())
    .first(connection)
    .await?;
    row.as_ref()
        .map(|row| parsed(row, "id", ConversationId::parse))
        .transpose()
}

fn kind_of(state: DeliveryState) -> String {
    format!("message.{}", state.as_str())
}

/// One more change of the conversation, which is locked by now.
pub(crate) async fn announce(
    connection: &mut Connection,
    message_id: &MessageId,
    conversation: &ConversationId,
    kind: &str,
    now: Moment,
) -> Result<bool, Error> {
    let row = sql(
        "UPDATE conversations SET version = version + 1 WHERE id = $1 RETURNING account, channel, version",
        "counting a change of a conversation",
    )
    .bind(conversation.as_str())
    .first(connection)
    .await?;
    let Some(row) = &row else { return Ok(false) };
    let (account, channel): (String, String) = (get(row, "account")?, get(row, "channel")?);
    let told = Announcement {
        subject: conversation.to_string(),
        version: get(row, "version")?,
        kind: kind.to_owned(),
        occurred_at: now,
        data: serde_json::json!({ "account": account, "channel": channel, "message_id": message_id }),
    };
    announcements::insert(connection, std::slice::from_ref(&told)).await
}

/// What the provider calls the message joins what we called it.
async fn add_external_ids(
    connection: &mut Connection,
    message_id: &MessageId,
    external_ids: &[String],
) -> Result<bool, Error> {
    let row = sql(
        "SELECT external_ids FROM messages WHERE id = $1",
        "reading external ids",
    )
    .bind(message_id.as_str())
    .first(connection)
    .await?;
    let mut known: Vec<String> = row.as_ref().map_or(Ok(Vec::new()), |row| json(row, "external_ids"))?;
    let cleaned: Vec<String> = external_ids.iter().map(|external_id| clean(external_id)).collect();
    for external_id in &cleaned {
        if !external_id.is_empty() && !known.contains(external_id) {
            known.push(external_id.clone());
        }
    }
    sql(
        "UPDATE messages SET external_ids = $1 WHERE id = $2",
        "writing external ids",
    )
    .bind(to_json(&known, "writing external ids")?)
    .bind(message_id.as_str())
    .execute(connection)
    .await?;
    let keys: HashSet<(&str, &MessageId)> = cleaned.iter().map(|id| (id.as_str(), message_id)).collect();
    insert_external_ids(connection, keys).await
}

/// A provider's words, without what no text may hold.
fn clean(text: &str) -> String {
    text.replace('\0', "")
}

impl Guard {
    /// The fence that the row has, or one that it is below.
    fn fences(self) -> (i64, i64) {
        match self {
            Self::ClaimedUnder(fence) => (fence, i64::MIN),
            Self::LeftBefore(fence) => (i64::MIN, fence),
        }
    }
}
