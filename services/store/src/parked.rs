//! Inputs that wait for a person: parked (unreadable or refused) and quarantined
//! (wrong signature). `apply` writes them; a quarantine over its quota (1,000
//! inputs, 16 MiB an account) drops the new input.

use model::context::ParkedInput;
use model::event::Raw;
use model::time::Moment;

use crate::sql::{get, json, moment, moment_if_any, sql};
use crate::write::raw_of;
use crate::{Error, Store};

/// One parked input as lists show it.
#[derive(Clone, Debug)]
pub struct ParkedSummary {
    pub id: String,
    pub account: String,
    pub channel: String,
    pub quarantined: bool,
    pub reason: String,
    pub size_bytes: i64,
    pub received_at: Moment,
    /// Set when it was replayed.
    pub replayed_at: Option<Moment>,
}

impl Store {
    /// The latest first, those received before `before` (a cursor: moment and id).
    pub async fn list_parked(&self, before: Option<(Moment, String)>, limit: i64) -> Result<Vec<ParkedSummary>, Error> {
        let (received_at, id) = match &before {
            Some((received_at, id)) => (received_at.as_ms(), id.as_str()),
            None => (i64::MAX, ""),
        };
        let statement = sql(
            "SELECT id, account, channel, quarantined, reason, size_bytes, received_at, replayed_at FROM parked
             WHERE (received_at, id) < ($1, $2) ORDER BY received_at DESC, id DESC LIMIT $3",
            "reading parked inputs",
        )
        .bind(received_at)
        .bind(id)
        .bind(limit);
        self.read_all(statement, |row| {
            Ok(ParkedSummary {
                id: get(row, "id")?,
                account: get(row, "account")?,
                channel: get(row, "channel")?,
                quarantined: get::<i64>(row, "quarantined")? != 0,
                reason: get(row, "reason")?,
                size_bytes: get(row, "size_bytes")?,
                received_at: moment(row, "received_at")?,
                replayed_at: moment_if_any(row, "replayed_at")?,
            })
        })
        .await
    }

    /// One with its bytes.
    pub async fn parked_input(&self, id: &str) -> Result<Option<(ParkedInput, Option<Moment>)>, Error> {
        let statement = sql(
            "SELECT id, account, channel, quarantined, reason, received_at, replayed_at, raw_request, raw FROM parked
             WHERE id = $1",
            "reading a parked input",
        )
        .bind(id);
        let mut found = self
            .read_all(statement, |row| {
                let request: Raw = json(row, "raw_request")?;
                let input = ParkedInput {
                    id: get(row, "id")?,
                    account: get(row, "account")?,
                    channel: get(row, "channel")?,
                    quarantined: get::<i64>(row, "quarantined")? != 0,
                    reason: get(row, "reason")?,
                    raw: raw_of(request, get(row, "raw")?),
                    received_at: moment(row, "received_at")?,
                };
                Ok((input, moment_if_any(row, "replayed_at")?))
            })
            .await?;
        Ok(found.pop())
    }

    /// Notes that it was replayed. Its bytes stay.
    pub async fn mark_replayed(&self, id: &str, at: Moment) -> Result<bool, Error> {
        let doing = "noting a replay";
        let mut transaction = self.begin(doing).await?;
        let marked = sql("UPDATE parked SET replayed_at = $1 WHERE id = $2", doing)
            .bind(at)
            .bind(id)
            .execute(&mut transaction)
            .await?;
        transaction.commit(doing).await?;
        Ok(marked == 1)
    }

    /// How many wait (not replayed), as (parked, quarantined).
    pub async fn parked_pending(&self) -> Result<(i64, i64), Error> {
        let statement = sql(
            "SELECT COUNT(*) AS waiting, CAST(COALESCE(SUM(quarantined), 0) AS BIGINT) AS quarantined FROM parked
             WHERE replayed_at IS NULL",
            "counting parked inputs",
        );
        let found: Vec<(i64, i64)> = self
            .read_all(statement, |row| Ok((get(row, "waiting")?, get(row, "quarantined")?)))
            .await?;
        let (waiting, quarantined) = found.into_iter().next().unwrap_or_default();
        Ok((waiting - quarantined, quarantined))
    }
}
