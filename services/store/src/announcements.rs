//! Announcements wait here for the relay, in the order of each subject's versions.

use model::context::Announcement;
use sqlx::any::AnyRow;

use crate::connection::Connection;
use crate::lease::{Lease, holds};
use crate::sql::{get, json, moment, rows, sql, to_json};
use crate::write::insert_all;
use crate::{Error, Store};

impl Store {
    /// The oldest announcements, each subject's in order of version; those that were
    /// written together (at most `limit` times) come together.
    ///
    /// The lowest versions of all subjects come first, which is the cheapest
    /// order that never puts a subject's later version before an earlier one.
    pub async fn next_announcements(&self, limit: i64) -> Result<Vec<Announcement>, Error> {
        let statement = sql(
            "SELECT subject, version, kind, occurred_at, data, more FROM announcements
             ORDER BY version, subject LIMIT $1",
            "reading announcements",
        )
        .bind(limit);
        let together = self.read_all(statement, written_together).await?;
        Ok(together.into_iter().flatten().collect())
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

    /// How many wait; those that were written together count as one.
    pub async fn announcements_pending(&self) -> Result<i64, Error> {
        let statement = sql(
            "SELECT COUNT(*) AS waiting FROM announcements",
            "counting announcements",
        );
        let counts: Vec<i64> = self.read_all(statement, |row| get(row, "waiting")).await?;
        Ok(counts.into_iter().sum())
    }
}

/// Those of a subject in one row, under the version of the first. A version that
/// somebody else has announced is a conflict.
pub(crate) async fn insert(connection: &mut Connection, announcements: &[Announcement]) -> Result<bool, Error> {
    let doing = "writing announcements";
    let mut statement = rows(
        "INSERT INTO announcements (version, subject, kind, occurred_at, data, more)
         SELECT column1, column2, column3, column4, column5, column6 FROM {rows} WHERE column1 IS NOT NULL",
        doing,
    );
    let mut ordered: Vec<&Announcement> = announcements.iter().collect();
    ordered.sort_unstable_by_key(|announcement| (&announcement.subject, announcement.version));
    let mut together: Vec<_> = ordered.chunk_by(|one, next| one.subject == next.subject).collect();
    together.sort_unstable_by_key(|of_subject| of_subject.first().map(|first| (first.version, &first.subject)));
    for of_subject in together {
        let Some((first, more)) = of_subject.split_first() else {
            continue;
        };
        let more = match more {
            [] => None,
            more => Some(to_json(&more, doing)?),
        };
        statement.push(vec![
            first.version.into(),
            first.subject.as_str().into(),
            first.kind.as_str().into(),
            first.occurred_at.into(),
            to_json(&first.data, doing)?.into(),
            more.into(),
        ]);
    }
    insert_all(statement, connection).await
}

fn written_together(row: &AnyRow) -> Result<Vec<Announcement>, Error> {
    let mut announcements = vec![Announcement {
        subject: get(row, "subject")?,
        version: get(row, "version")?,
        kind: get(row, "kind")?,
        occurred_at: moment(row, "occurred_at")?,
        data: json(row, "data")?,
    }];
    if get::<Option<String>>(row, "more")?.is_some() {
        let more: Vec<Announcement> = json(row, "more")?;
        announcements.extend(more);
    }
    Ok(announcements)
}
