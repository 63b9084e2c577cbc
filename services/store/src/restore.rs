//! After a backup of the database was put back: what it does not know any more.

use std::time::SystemTime;

use model::context::Announcement;
use model::id::MessageId;
use model::time::Moment;

use crate::outbox::doubt;
use crate::sql::{get, parsed, sql};
use crate::{Error, Store, announcements};

impl Store {
    /// Whatever waits to be sent may have been sent since the backup: all of it
    /// becomes uncertain, for this reason, and a person decides. Says how much.
    pub async fn doubt_outbox(&self, reason: &str) -> Result<usize, Error> {
        let doing = "doubting what waits to be sent";
        let mut transaction = self.begin(doing).await?;
        let taken = sql("DELETE FROM outbox RETURNING message_id", doing)
            .all(&mut transaction)
            .await?;
        let mut ids = Vec::with_capacity(taken.len());
        for row in &taken {
            ids.push(parsed(row, "message_id", MessageId::parse)?);
        }
        let now = Moment::from(SystemTime::now());
        for id in &ids {
            doubt(&mut transaction, id, reason, now).await?;
        }
        transaction.commit(doing).await?;
        Ok(ids.len())
    }

    /// Begins a new epoch in every conversation of an account: numbers that clients
    /// were shown since the backup are given again, to other messages. The epoch is
    /// the time, so that it is none of those that began since the backup.
    pub async fn begin_epochs(&self, account: &str) -> Result<usize, Error> {
        let doing = "beginning new epochs";
        let now = Moment::from(SystemTime::now());
        let mut transaction = self.begin(doing).await?;
        let begun = sql(
            "UPDATE conversations SET epoch = CASE WHEN epoch < $1 THEN $1 ELSE epoch + 1 END, version = version + 1
             WHERE account = $2 RETURNING id, channel, epoch, version",
            doing,
        )
        .bind(now.as_ms() / 1_000)
        .bind(account)
        .all(&mut transaction)
        .await?;
        let mut told = Vec::with_capacity(begun.len());
        for row in &begun {
            let (channel, epoch): (String, i64) = (get(row, "channel")?, get(row, "epoch")?);
            told.push(Announcement {
                subject: get(row, "id")?,
                version: get(row, "version")?,
                kind: "conversation.restored".to_owned(),
                occurred_at: now,
                data: serde_json::json!({ "account": account, "channel": channel, "epoch": epoch }),
            });
        }
        announcements::insert(&mut transaction, &told).await?;
        transaction.commit(doing).await?;
        Ok(told.len())
    }
}
