//! Announcements wait here for the relay, in the order of each subject's versions.

use std::collections::BTreeMap;

use model::context::Announcement;

use crate::connection::Connection;
use crate::lease::{Lease, holds};
use crate::sql::{get, json, moment, rows, sql, to_json};
use crate::write::insert_all;
use crate::{Error, Store};

impl Store {
    /// The oldest announcements, each subject's in order of version, with the key
    /// to remove them by.
    ///
    /// The lowest versions of all subjects come first, which is the cheapest
    /// order that never puts a subject's later version before an earlier one.
    pub async fn next_announcements(&self, limit: i64) -> Result<Vec<Announcement>, Error> {
        let statement = sql(
            "SELECT subject, version, kind, occurred_at, data FROM announcements ORDER BY version, subject LIMIT $1",
            "reading announcements",
        )
        .bind(limit);
        self.read_all(statement, |row| {
            Ok(Announcement {
                subject: get(row, "subject")?,
                version: get(row, "version")?,
                kind: get(row, "kind")?,
                occurred_at: moment(row, "occurred_at")?,
                data: json(row, "data")?,
            })
        })
        .await
    }

    /// Removes what has been published, if the fence of the relay's lease still holds.
    pub async fn remove_announcements(&self, lease: &Lease, published: &[Announcement]) -> Result<bool, Error> {
        let doing = "removing announcements";
        let mut transaction = self.begin(doing).await?;
        if !holds(&mut transaction, &lease.name, lease.fence).await? {
            return Ok(false);
        }
        let mut statement = rows(
            "DELETE FROM announcements WHERE (version, subject) IN (SELECT column1, column2 FROM {rows})",
            doing,
        );
        for announcement in published {
            statement.push(vec![announcement.version.into(), announcement.subject.as_str().into()]);
        }
        statement.execute(&mut transaction).await?;
        transaction.commit(doing).await?;
        Ok(true)
    }

    /// How many wait.
    pub async fn announcements_pending(&self) -> Result<i64, Error> {
        let statement = sql(
            "SELECT COUNT(*) AS waiting FROM announcements",
            "counting announcements",
        );
        let counts: Vec<i64> = self.read_all(statement, |row| get(row, "waiting")).await?;
        Ok(counts.into_iter().sum())
    }
}

/// `false` if one of these versions was announced by somebody else.
pub(crate) async fn insert(connection: &mut Connection, announcements: &[Announcement]) -> Result<bool, Error> {
    let mut statement = rows(
        "INSERT INTO announcements (version, subject, kind, occurred_at, data)
         SELECT column1, column2, column3, column4, column5 FROM {rows} WHERE column1 IS NOT NULL
         ON CONFLICT DO NOTHING",
        "writing announcements",
    );
    let announcements: BTreeMap<_, _> = announcements
        .iter()
        .map(|announcement| ((announcement.version, &announcement.subject), announcement))
        .collect();
    for ((version, subject), announcement) in announcements {
        statement.push(vec![
            version.into(),
            subject.into(),
            announcement.kind.as_str().into(),
            announcement.occurred_at.into(),
            to_json(&announcement.data, "writing announcements")?.into(),
        ]);
    }
    insert_all(statement, connection).await
}
