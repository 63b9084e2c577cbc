//! The outbox: messages of ours on their way to a channel.
//!
//! A row is `queued` or `sending`, and leaves when it is settled; how it ended
//! stands in its message. Deliveries of an account go under the lease
//! [`lease_name`], whose fence is kept in the rows that it claims.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use sqlx::any::AnyRow;

use model::context::Announcement;
use model::conversation::StoredMessage;
use model::event::DeliveryState;
use model::id::{ConversationId, MessageId};
use model::outbound::Outbound;
use model::time::Moment;

use crate::connection::{Connection, Transaction};
use crate::conversations::{message_columns, message_of, references};
use crate::lease::holds;
use crate::sql::{get, json, moment_if_any, parsed, parsed_if_any, rows, sql, to_json};
use crate::write::insert_external_ids;
use crate::{Error, Store, announcements};

/// How often a settlement is tried again that another writer got in the way of.
const TRIES: usize = 5;

/// A claimed row, ready to be sent.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub outbound: Outbound,
    /// How often it was tried before.
    pub attempts: i64,
    /// The fence under which it was claimed; `settle` checks it.
    pub fence: i64,
}

/// A row that was found in `sending` though nobody is at it (its sender died).
#[derive(Clone, Debug)]
pub struct Interrupted {
    pub message_id: MessageId,
    pub attempts: i64,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The provider took it, and calls it by these external ids.
    Sent { external_ids: Vec<String> },
    /// It will never work.
    Failed { error: String },
    /// Try again at this moment.
    Retry { at: Moment, error: String },
    /// Nobody knows; a person decides.
    Uncertain { error: String },
}

/// Which row may be settled.
#[derive(Clone, Copy)]
enum Guard {
    /// The one that was claimed under this fence.
    ClaimedUnder(i64),
    /// One that an earlier holder than this fence's left in `sending`.
    LeftBefore(i64),
}

/// The lease under which an account's messages are delivered.
pub fn lease_name(account: &str) -> String {
    format!("deliver:{account}")
}

impl Store {
    /// Claims up to `limit` due rows of an account: of each conversation the
    /// oldest unsettled only, so that order holds. They go to `sending`. Claims
    /// nothing if `fence` is no longer that of the account's [`lease_name`].
    pub async fn claim_outbox(
        &self,
        account: &str,
        fence: i64,
        now: Moment,
        limit: i64,
    ) -> Result<Vec<Claimed>, Error> {
        let doing = "claiming messages to send";
        let mut transaction = self.begin(doing).await?;
        if !holds(&mut transaction, &lease_name(account), fence).await? {
            return Ok(Vec::new());
        }
        let claimed = sql(
            "UPDATE outbox SET state = 'sending', fence = $1, attempts = attempts + 1
             WHERE state = 'queued' AND message_id IN (
                 SELECT o.message_id FROM outbox AS o
                 WHERE o.account = $2 AND o.state = 'queued' AND o.due_at <= $3 AND NOT EXISTS (
                     SELECT 1 FROM outbox AS e WHERE e.conversation_id = o.conversation_id
                         AND e.message_id <> o.message_id
                         AND (e.state = 'sending' OR (e.occurred_at, e.received_at, e.message_id)
                                                   < (o.occurred_at, o.received_at, o.message_id)))
                 ORDER BY o.due_at, o.occurred_at, o.message_id LIMIT $4)
             RETURNING message_id, attempts",
            doing,
        )
        .bind(fence)
        .bind(account)
        .bind(now)
        .bind(limit)
        .all(&mut transaction)
        .await?;
        let mut attempts = HashMap::new();
        for row in &claimed {
            attempts.insert(
                parsed(row, "message_id", MessageId::parse)?,
                get::<i64>(row, "attempts")? - 1,
            );
        }
        let outbounds = outbounds(&mut transaction, attempts.keys()).await?;
        if let Err(error) = transaction.commit(doing).await
            && !self.was_claimed(attempts.keys().next(), fence).await
        {
            return Err(error);
        }
        Ok(outbounds
            .into_iter()
            .map(|outbound| Claimed {
                attempts: attempts.get(&outbound.message_id).copied().unwrap_or(0),
                fence,
                outbound,
            })
            .collect())
    }

    /// Rows of an account that an earlier holder (a lower fence) left in `sending`.
    pub async fn interrupted_outbox(&self, account: &str, fence: i64) -> Result<Vec<Interrupted>, Error> {
        let statement = sql(
            "SELECT message_id, attempts FROM outbox WHERE account = $1 AND state = 'sending' AND fence < $2
             ORDER BY occurred_at, received_at, message_id",
            "reading interrupted messages",
        )
        .bind(account)
        .bind(fence);
        self.read_all(statement, |row| {
            Ok(Interrupted {
                message_id: parsed(row, "message_id", MessageId::parse)?,
                attempts: get(row, "attempts")?,
            })
        })
        .await
    }

    /// Puts an interrupted row back to `queued`, or to `uncertain`. `false` if its
    /// sender settled it after all, or if `fence` is no longer the lease's.
    pub async fn recover_outbox(&self, message_id: &MessageId, fence: i64, to: &Settlement) -> Result<bool, Error> {
        let now = Moment::from(SystemTime::now());
        self.settle(message_id, Guard::LeftBefore(fence), to, now).await
    }

    /// Writes the outcome; `false` if the fence is no longer the row's (somebody
    /// else has it, nothing was written). Also writes the message's state and its
    /// announcement.
    pub async fn settle_outbox(
        &self,
        message_id: &MessageId,
        fence: i64,
        settlement: &Settlement,
        now: Moment,
    ) -> Result<bool, Error> {
        self.settle(message_id, Guard::ClaimedUnder(fence), settlement, now)
            .await
    }

    /// A person's word on an uncertain or failed message: send it again.
    /// `None`: no such message; `Some(false)`: its state does not allow it.
    pub async fn resend(&self, message_id: &MessageId, now: Moment) -> Result<Option<bool>, Error> {
        let doing = "sending a message again";
        let from = [DeliveryState::Uncertain, DeliveryState::Failed];
        let Some(mut transaction) = self.reset(message_id, &from, DeliveryState::Queued, now, doing).await? else {
            return self.is_ours(message_id).await;
        };
        sql(
            "INSERT INTO outbox (message_id, conversation_id, account, state, due_at, attempts, fence,
                 occurred_at, received_at)
             SELECT id, conversation_id, account, 'queued', $1, 0, 0, occurred_at, received_at
             FROM messages WHERE id = $2
             ON CONFLICT DO NOTHING",
            doing,
        )
        .bind(now)
        .bind(message_id.as_str())
        .execute(&mut transaction)
        .await?;
        transaction.commit(doing).await?;
        Ok(Some(true))
    }

    /// A person's word on an uncertain message: it was `Sent` or `Failed`.
    pub async fn settle_by_hand(
        &self,
        message_id: &MessageId,
        state: DeliveryState,
        now: Moment,
    ) -> Result<Option<bool>, Error> {
        let doing = "settling a message by hand";
        if !matches!(state, DeliveryState::Sent | DeliveryState::Failed) {
            return self.is_ours(message_id).await;
        }
        let from = [DeliveryState::Uncertain];
        let Some(transaction) = self.reset(message_id, &from, state, now, doing).await? else {
            return self.is_ours(message_id).await;
        };
        transaction.commit(doing).await?;
        Ok(Some(true))
    }

    /// Rows not settled yet, uncertain ones not counted; and the earliest due moment.
    pub async fn outbox_pending(&self) -> Result<(i64, Option<Moment>), Error> {
        let statement = sql(
            "SELECT COUNT(*) AS waiting, MIN(due_at) AS due_at FROM outbox",
            "counting messages to send",
        );
        let found = self
            .read_all(statement, |row| {
                Ok((get(row, "waiting")?, moment_if_any(row, "due_at")?))
            })
            .await?;
        Ok(found.into_iter().next().unwrap_or_default())
    }

    /// Whether a claim whose commit had no answer was committed. Asks until it
    /// knows: a row that is claimed under our own fence and forgotten would stay
    /// behind until the lease changes hands.
    async fn was_claimed(&self, message_id: Option<&MessageId>, fence: i64) -> bool {
        let Some(message_id) = message_id else {
            return true;
        };
        loop {
            let statement = sql(
                "SELECT attempts FROM outbox WHERE message_id = $1 AND state = 'sending' AND fence = $2",
                "looking for a claim's outcome",
            )
            .bind(message_id.as_str())
            .bind(fence);
            let found: Result<Vec<i64>, Error> = self.read_all(statement, |row| get(row, "attempts")).await;
            match found {
                Ok(found) => return !found.is_empty(),
                Err(error) => {
                    tracing::warn!(message.id = %message_id, %error, "cannot tell whether a message was claimed, will ask again");
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            }
        }
    }

    /// Another writer in the way (a batch that changes the same conversation) is
    /// no reason to forget what became of a message.
    async fn settle(
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
            Settlement::Failed { error } => {
                take_out(&mut transaction, message_id, guard).await?
                    && advance(&mut transaction, message_id, DeliveryState::Failed, Some(error), now).await?
            }
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
    async fn reset(
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
        announce(&mut transaction, message_id, &conversation, to, now).await?;
        Ok(Some(transaction))
    }

    /// `Some(false)` for a message of ours, `None` for another or none.
    async fn is_ours(&self, message_id: &MessageId) -> Result<Option<bool>, Error> {
        let statement = sql(
            "SELECT id FROM messages WHERE id = $1 AND delivery IS NOT NULL AND erased_at IS NULL",
            "reading a message",
        )
        .bind(message_id.as_str());
        let found: Vec<String> = self.read_all(statement, |row| get(row, "id")).await?;
        Ok(found.first().map(|_| false))
    }
}

/// What the channel is given, in the order of writing.
async fn outbounds(
    connection: &mut Connection,
    message_ids: impl Iterator<Item = &MessageId>,
) -> Result<Vec<Outbound>, Error> {
    let found = rows(
        concat!(
            "SELECT ",
            message_columns!(),
            ", c.thread FROM {rows} JOIN messages AS m ON m.id = v.column1
             JOIN conversations AS c ON c.id = m.conversation_id
             ORDER BY m.occurred_at, m.received_at, m.id"
        ),
        "reading messages to send",
    )
    .of(message_ids.map(MessageId::as_str))
    .all(connection)
    .await?;
    let mut outbounds = Vec::new();
    for row in &found {
        let stored = message_of(row)?;
        let references = references(connection, &stored.conversation_id, Some(&stored.id)).await?;
        outbounds.push(outbound_of(row, stored, references)?);
    }
    Ok(outbounds)
}

fn outbound_of(row: &AnyRow, stored: StoredMessage, references: Vec<String>) -> Result<Outbound, Error> {
    let message = stored.message;
    Ok(Outbound {
        message_id: stored.id,
        conversation_id: stored.conversation_id,
        account: stored.account,
        thread: get(row, "thread")?,
        recipients: message.recipients,
        subject: message.subject,
        text: message.text,
        html: message.html,
        attachments: message.attachments,
        references,
        automatic: message.automatic.is_some(),
        created_at: stored.received_at,
    })
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
    error: Option<&String>,
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
    let known = match &row {
        Some(row) => parsed_if_any(row, "delivery", DeliveryState::parse)?,
        None => None,
    };
    if known.is_none_or(|known| known >= state) {
        return Ok(true);
    }
    sql(
        "UPDATE messages SET delivery = $1, delivery_error = $2 WHERE id = $3",
        "moving a message's state",
    )
    .bind(state.as_str())
    .bind(error.map(|error| clean(error)))
    .bind(message_id.as_str())
    .execute(connection)
    .await?;
    announce(connection, message_id, &conversation, state, now).await
}

/// Whoever changes a delivery's state locks the conversation first, a batch too.
async fn lock_conversation(
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

/// One more change of the conversation, which is locked by now.
async fn announce(
    connection: &mut Connection,
    message_id: &MessageId,
    conversation: &ConversationId,
    state: DeliveryState,
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
        kind: format!("message.{}", state.as_str()),
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
