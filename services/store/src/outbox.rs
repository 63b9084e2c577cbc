//! The outbox: messages of ours on their way to a channel.
//!
//! A row is `queued` or `sending`, and leaves when it is settled; how it ended
//! stands in its message. Deliveries of an account go under the lease
//! [`lease_name`], whose fence is kept in the rows that it claims.

mod settle;

use std::collections::HashMap;
use std::time::SystemTime;

use sqlx::any::AnyRow;

use model::event::DeliveryState;
use model::id::{ConversationId, MessageId};
use model::outbound::Outbound;
use model::template::Template;
use model::time::Moment;

use crate::connection::Connection;
use crate::conversations::{message_columns, message_of, references};
use crate::lease::holds;
use crate::requests::{Answered, remember};
use crate::sql::{get, moment_if_any, parsed, rows, sql};
use crate::{Error, Store};
use settle::Guard;
pub(crate) use settle::{announce, doubt, lock_conversation};

/// A claimed row, ready to be sent.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub outbound: Outbound,
    /// The live conversation that its reader has left, and may go on in.
    pub left: Option<Left>,
    /// How often it was tried before.
    pub attempts: i64,
    /// The fence under which it was claimed; `settle` checks it.
    pub fence: i64,
}

/// A live conversation, as its account's channel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub account: String,
    pub thread: String,
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

/// The lease under which an account's messages are delivered.
pub fn lease_name(account: &str) -> String {
    format!("deliver:{account}")
}

impl Store {
    /// Claims up to `limit` due rows of an account: of each conversation the
    /// oldest unsettled only, so that order holds. They go to `sending`. Claims
    /// nothing if `fence` is no longer that of the account's [`lease_name`]. After
    /// an error rows may be claimed all the same: give the lease back and take it
    /// anew, and they are interrupted ones. A row that cannot be read fails by
    /// itself, with the reason, and the others go on.
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
        let mut attempts = claim(&mut transaction, account, fence, now, limit).await?;
        let mut claimed = Vec::new();
        for (message_id, outbound) in outbounds(&mut transaction, attempts.keys()).await? {
            let attempts = attempts.remove(&message_id).unwrap_or(0);
            match outbound {
                Ok((outbound, left)) => claimed.push(Claimed {
                    outbound,
                    left,
                    attempts,
                    fence,
                }),
                Err(reason) => give_up(&mut transaction, &message_id, fence, &reason, now).await?,
            }
        }
        for message_id in attempts.keys() {
            give_up(&mut transaction, message_id, fence, "the message is gone", now).await?;
        }
        transaction.commit(doing).await?;
        Ok(claimed)
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

    /// A person's word on an uncertain or failed message: send it again; keeps the
    /// answer with it, if there is one to keep. `None`: no such message;
    /// `Some(false)`: its state does not allow it, or the request was answered before.
    pub async fn resend(
        &self,
        message_id: &MessageId,
        now: Moment,
        answered: Option<&Answered>,
    ) -> Result<Option<bool>, Error> {
        let doing = "sending a message again";
        let from = [DeliveryState::Uncertain, DeliveryState::Failed];
        let Some(mut transaction) = self.reset(message_id, &from, DeliveryState::Queued, now, doing).await? else {
            return self.is_ours(message_id).await;
        };
        if !is_first(&mut transaction, answered).await? {
            return Ok(Some(false));
        }
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

    /// A person's word on an uncertain message: it was `Sent` or `Failed`. Answers
    /// as [`Store::resend`] does.
    pub async fn settle_by_hand(
        &self,
        message_id: &MessageId,
        state: DeliveryState,
        now: Moment,
        answered: Option<&Answered>,
    ) -> Result<Option<bool>, Error> {
        let doing = "settling a message by hand";
        if !matches!(state, DeliveryState::Sent | DeliveryState::Failed) {
            return self.is_ours(message_id).await;
        }
        let from = [DeliveryState::Uncertain];
        let Some(mut transaction) = self.reset(message_id, &from, state, now, doing).await? else {
            return self.is_ours(message_id).await;
        };
        if !is_first(&mut transaction, answered).await? {
            return Ok(Some(false));
        }
        transaction.commit(doing).await?;
        Ok(Some(true))
    }

    /// Rows not settled yet, uncertain ones not counted; and the earliest due moment.
    pub async fn outbox_pending(&self) -> Result<(i64, Option<Moment>), Error> {
        let statement = sql(
            "SELECT COUNT(*) AS waiting, MIN(CASE WHEN state = 'queued' THEN due_at END) AS due_at FROM outbox",
            "counting messages to send",
        );
        let found = self
            .read_all(statement, |row| {
                Ok((get(row, "waiting")?, moment_if_any(row, "due_at")?))
            })
            .await?;
        Ok(found.into_iter().next().unwrap_or_default())
    }
}

async fn is_first(connection: &mut Connection, answered: Option<&Answered>) -> Result<bool, Error> {
    match answered {
        Some(answered) => remember(connection, answered).await,
        None => Ok(true),
    }
}

/// Moves due rows to `sending`: how often each was tried before.
async fn claim(
    connection: &mut Connection,
    account: &str,
    fence: i64,
    now: Moment,
    limit: i64,
) -> Result<HashMap<MessageId, i64>, Error> {
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
        "claiming messages to send",
    )
    .bind(fence)
    .bind(account)
    .bind(now)
    .bind(limit)
    .all(connection)
    .await?;
    let mut attempts = HashMap::new();
    for row in &claimed {
        attempts.insert(
            parsed(row, "message_id", MessageId::parse)?,
            get::<i64>(row, "attempts")? - 1,
        );
    }
    Ok(attempts)
}

type Readable = (MessageId, Result<(Outbound, Option<Left>), String>);

/// What the channel is given, or why it cannot be read, in the order of writing.
async fn outbounds(
    connection: &mut Connection,
    message_ids: impl Iterator<Item = &MessageId>,
) -> Result<Vec<Readable>, Error> {
    let message_ids: Vec<&MessageId> = message_ids.collect();
    let found = match to_send(connection, &message_ids).await {
        Ok(found) => found,
        // One of them is not even text, and spoils the answer for all.
        Err(Error::Corrupt(_)) => return one_by_one(connection, &message_ids).await,
        Err(error) => return Err(error),
    };
    let mut outbounds = Vec::new();
    for row in &found {
        let message_id = parsed(row, "id", MessageId::parse)?;
        let outbound = outbound_of(connection, row).await;
        outbounds.push((message_id, readable(outbound)?));
    }
    Ok(outbounds)
}

async fn to_send(connection: &mut Connection, message_ids: &[&MessageId]) -> Result<Vec<AnyRow>, Error> {
    rows(
        concat!(
            "SELECT ",
            message_columns!(),
            ", c.thread FROM {rows} JOIN messages AS m ON m.id = v.column1
             JOIN conversations AS c ON c.id = m.conversation_id
             ORDER BY m.occurred_at, m.received_at, m.id"
        ),
        "reading messages to send",
    )
    .of(message_ids.iter().map(|id| id.as_str()))
    .all(connection)
    .await
}

/// Their order matters little: no two of a conversation are claimed at once.
async fn one_by_one(connection: &mut Connection, message_ids: &[&MessageId]) -> Result<Vec<Readable>, Error> {
    let mut outbounds = Vec::new();
    for message_id in message_ids {
        let outbound = match to_send(connection, &[message_id]).await {
            Ok(found) => match found.first() {
                Some(row) => outbound_of(connection, row).await,
                None => continue,
            },
            Err(error) => Err(error),
        };
        outbounds.push(((*message_id).clone(), readable(outbound)?));
    }
    Ok(outbounds)
}

/// What cannot be read is that message's fault; anything else is not.
fn readable<T>(read: Result<T, Error>) -> Result<Result<T, String>, Error> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(Error::Corrupt(reason)) => Ok(Err(reason)),
        Err(error) => Err(error),
    }
}

/// A message that can never be given to a channel fails.
async fn give_up(
    connection: &mut Connection,
    message_id: &MessageId,
    fence: i64,
    reason: &str,
    now: Moment,
) -> Result<(), Error> {
    // The reason may quote what was written: it is for the desk, not for the log.
    tracing::error!(message.id = %message_id, "a message to send cannot be read, it fails");
    let error = format!("it cannot be read any more: {reason}");
    settle::fail(connection, message_id, Guard::ClaimedUnder(fence), &error, now).await?;
    Ok(())
}

async fn outbound_of(connection: &mut Connection, row: &AnyRow) -> Result<(Outbound, Option<Left>), Error> {
    let stored = message_of(row)?;
    let references = references(connection, &stored.conversation_id, Some(&stored.id)).await?;
    let left = match &stored.message.evidence.continues {
        Some(id) => left(connection, id).await?,
        None => None,
    };
    let message = stored.message;
    let outbound = Outbound {
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
        quotes: message.evidence.quoted_ids.into_iter().next(),
        template: Template::of_fields(&message.fields),
        automatic: message.automatic.is_some(),
        created_at: stored.received_at,
    };
    Ok((outbound, left))
}

async fn left(connection: &mut Connection, id: &ConversationId) -> Result<Option<Left>, Error> {
    let row = sql(
        "SELECT account, thread_name FROM conversations WHERE id = $1 AND thread_name IS NOT NULL",
        "reading where a conversation was left",
    )
    .bind(id.as_str())
    .first(connection)
    .await?;
    let Some(row) = &row else { return Ok(None) };
    Ok(Some(Left {
        account: get(row, "account")?,
        thread: get(row, "thread_name")?,
    }))
}
