//! The one writer of a log file: what waits is committed as a group.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use model::time::Moment;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Commits, TOTALS, Totals, totals};
use crate::Error;
use crate::error::describe;
use crate::wire::Encoded;

/// What the writer is asked for. It answers after the commit.
pub(super) enum Job {
    Append {
        topic: String,
        records: Vec<Encoded>,
        max_bytes: i64,
        reply: oneshot::Sender<Result<Totals, Error>>,
    },
    Remove {
        topic: String,
        /// First and last offsets.
        ranges: Vec<(i64, i64)>,
        reply: oneshot::Sender<Result<Totals, Error>>,
    },
    /// Writes something of the size of an event, to see whether it can.
    Probe { reply: oneshot::Sender<Result<(), Error>> },
}

pub(super) struct Writer {
    pub options: SqliteConnectOptions,
    /// `None` after a failure: a new one begins without the old one's doubts.
    pub connection: Option<SqliteConnection>,
    pub retention: Option<Duration>,
    pub appended: watch::Sender<u64>,
    pub is_writable: Arc<AtomicBool>,
    pub commits: Commits,
}

/// One row to be inserted.
struct NewRow<'a> {
    topic: &'a str,
    offset: i64,
    record: &'a Encoded,
}

/// What a job came to, to be told after the commit.
enum Outcome {
    Done(String),
    Full,
}

/// Jobs in one transaction.
const GROUP_MAX: usize = 512;
/// Rows in one statement: few sizes, so that statements are prepared once.
const ROWS_PER_STATEMENT: [usize; 3] = [64, 8, 1];
/// What a record costs beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 100;
/// How often old records are looked for, and how many go at once.
const PRUNE_PERIOD: Duration = Duration::from_secs(60);
const PRUNE_PAUSE: Duration = Duration::from_secs(1);
const PRUNE_ROWS: i64 = 500;

/// 64 KiB, always the same row.
const PROBE: &str = "INSERT OR REPLACE INTO events \
    (topic, \"partition\", \"offset\", appended_at, size_bytes, key, headers, value) \
    VALUES ('', 0, 0, 0, 0, '', '[]', zeroblob(65536))";

impl Writer {
    /// Works until it is told to stop or nobody can ask any more, and all that
    /// was asked is done.
    pub async fn run(mut self, mut waiting: mpsc::Receiver<Job>, stop: CancellationToken) {
        let mut due = tokio::time::interval(PRUNE_PERIOD);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut group = Vec::with_capacity(GROUP_MAX);
        loop {
            tokio::select! {
                count = waiting.recv_many(&mut group, GROUP_MAX) => {
                    if count == 0 {
                        break;
                    }
                    self.commit(std::mem::take(&mut group)).await;
                }
                () = stop.cancelled(), if !waiting.is_closed() => waiting.close(),
                _ = due.tick() => {
                    if self.prune().await {
                        due.reset_after(PRUNE_PAUSE);
                    }
                }
            }
        }
        if let Some(mut connection) = self.connection.take() {
            if let Err(error) = save_commits(&mut connection, &self.commits).await {
                tracing::warn!(%error, "keeping where readers stand failed");
            }
            // The last to close moves the write-ahead log into the file.
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "closing the log failed");
            }
        }
    }

    /// Commits the jobs together, then answers each.
    async fn commit(&mut self, group: Vec<Job>) {
        let written = self.write(&group).await;
        let has_written = written.is_ok();
        if let Err(error) = &written {
            self.connection = None;
            if self.is_writable.swap(false, Ordering::Relaxed) {
                tracing::error!(%error, "the log cannot be written");
            }
        } else if !self.is_writable.swap(true, Ordering::Relaxed) {
            tracing::info!("the log can be written again");
        }
        match written {
            Ok((outcomes, totals)) => answer_all(group, &outcomes, &totals),
            Err(error) => {
                fail_all(group, &describe("writing the log", &error));
            }
        }
        if has_written {
            self.appended.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// One transaction: either all of it is on the disk afterwards, or nothing.
    async fn write(&mut self, group: &[Job]) -> Result<(Vec<Outcome>, BTreeMap<String, Totals>), sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            missing => missing.insert(self.options.connect().await?),
        };
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut all_totals = BTreeMap::new();
        let mut outcomes = Vec::with_capacity(group.len());
        let mut rows = Vec::new();
        for job in group {
            let topic = match job {
                Job::Append { topic, .. } | Job::Remove { topic, .. } => topic.as_str(),
                // A topic of its own that nobody reads.
                Job::Probe { .. } => "",
            };
            if !all_totals.contains_key(topic) {
                all_totals.insert(topic.to_owned(), load_totals(&mut transaction, topic).await?);
            }
            let Some(totals) = all_totals.get_mut(topic) else {
                continue;
            };
            match job {
                Job::Append { records, max_bytes, .. } => {
                    let bytes: i64 = records.iter().map(stored_bytes).sum();
                    if totals.bytes.saturating_add(bytes) > *max_bytes {
                        outcomes.push(Outcome::Full);
                        continue;
                    }
                    for record in records {
                        let offset = totals.next_offset;
                        rows.push(NewRow { topic, offset, record });
                        totals.next_offset += 1;
                    }
                    totals.events += i64::try_from(records.len()).unwrap_or(0);
                    totals.bytes += bytes;
                }
                Job::Remove { ranges, .. } => {
                    for (first, last) in ranges {
                        remove(&mut transaction, topic, *first, *last, totals).await?;
                    }
                }
                Job::Probe { .. } => {
                    sqlx::query(PROBE).execute(&mut *transaction).await?;
                }
            }
            outcomes.push(Outcome::Done(topic.to_owned()));
        }
        insert(&mut transaction, &rows).await?;
        for (topic, totals) in &all_totals {
            save_totals(&mut transaction, topic, totals).await?;
        }
        save_commits(&mut transaction, &self.commits).await?;
        transaction.commit().await?;
        Ok((outcomes, all_totals))
    }

    /// True if there is more to remove.
    async fn prune(&mut self) -> bool {
        let (Some(retention), Some(connection)) = (self.retention, &mut self.connection) else {
            return false;
        };
        let kept = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let before = now_ms().saturating_sub(kept);
        match prune(connection, before).await {
            Ok(has_more) => has_more,
            Err(error) => {
                tracing::warn!(%error, "removing old records failed");
                self.connection = None;
                false
            }
        }
    }
}

/// What a record counts against a limit.
fn stored_bytes(record: &Encoded) -> i64 {
    i64::try_from(record.size_bytes() + RECORD_OVERHEAD_BYTES).unwrap_or(i64::MAX)
}

fn now_ms() -> i64 {
    Moment::from(SystemTime::now()).as_ms()
}

fn answer_all(group: Vec<Job>, outcomes: &[Outcome], all_totals: &BTreeMap<String, Totals>) {
    for (job, outcome) in group.into_iter().zip(outcomes) {
        let result = match outcome {
            Outcome::Done(topic) => Ok(all_totals.get(topic).copied().unwrap_or_default()),
            Outcome::Full => Err(Error::Unavailable("the spool is full".to_owned())),
        };
        // Whoever asked may have gone; what it asked for is done all the same.
        match job {
            Job::Append { reply, .. } | Job::Remove { reply, .. } => drop(reply.send(result)),
            Job::Probe { reply } => drop(reply.send(result.map(|_| ()))),
        }
    }
}

fn fail_all(group: Vec<Job>, reason: &str) {
    for job in group {
        let error = Error::Unavailable(reason.to_owned());
        match job {
            Job::Append { reply, .. } | Job::Remove { reply, .. } => drop(reply.send(Err(error))),
            Job::Probe { reply } => drop(reply.send(Err(error))),
        }
    }
}

async fn load_totals(connection: &mut SqliteConnection, topic: &str) -> Result<Totals, sqlx::Error> {
    let row = sqlx::query(TOTALS).bind(topic).fetch_optional(connection).await?;
    row.as_ref().map_or(Ok(Totals::default()), totals)
}

async fn save_totals(connection: &mut SqliteConnection, topic: &str, totals: &Totals) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO topics (topic, next_offset, events, bytes) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (topic) DO UPDATE SET next_offset = $2, events = $3, bytes = $4",
    )
    .bind(topic)
    .bind(totals.next_offset)
    .bind(totals.events)
    .bind(totals.bytes)
    .execute(connection)
    .await?;
    Ok(())
}

/// What is lost if the transaction fails is read again: nothing depends on it.
async fn save_commits(connection: &mut SqliteConnection, commits: &Commits) -> Result<(), sqlx::Error> {
    let noted = std::mem::take(&mut *commits.lock().unwrap_or_else(PoisonError::into_inner));
    for ((topic, reader), next_offset) in noted {
        sqlx::query(
            "INSERT INTO readers (topic, reader, next_offset) VALUES ($1, $2, $3) \
             ON CONFLICT (topic, reader) DO UPDATE SET next_offset = $3",
        )
        .bind(topic)
        .bind(reader)
        .bind(next_offset)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn insert(connection: &mut SqliteConnection, rows: &[NewRow<'_>]) -> Result<(), sqlx::Error> {
    let now = now_ms();
    let mut rest = rows;
    for size in ROWS_PER_STATEMENT {
        while rest.len() >= size {
            let (chunk, behind) = rest.split_at(size);
            insert_chunk(connection, chunk, now).await?;
            rest = behind;
        }
    }
    Ok(())
}

async fn insert_chunk(connection: &mut SqliteConnection, rows: &[NewRow<'_>], now: i64) -> Result<(), sqlx::Error> {
    let mut query = sqlx::query(AssertSqlSafe(insert_statement(rows.len())));
    for row in rows {
        let headers = serde_json::to_string(&row.record.headers).map_err(|error| sqlx::Error::Encode(error.into()))?;
        query = query
            .bind(row.topic)
            .bind(row.offset)
            .bind(now)
            .bind(stored_bytes(row.record))
            .bind(row.record.key.as_str())
            .bind(headers)
            .bind(row.record.value.as_slice());
    }
    query.execute(connection).await?;
    Ok(())
}

fn insert_statement(rows: usize) -> String {
    let mut sql = String::from(
        "INSERT INTO events (topic, \"partition\", \"offset\", appended_at, size_bytes, key, headers, value) VALUES ",
    );
    for row in 0..rows {
        let separator = if row == 0 { "" } else { ", " };
        let [topic, offset, at, size, key, headers, value] = std::array::from_fn(|column| row * 7 + column + 1);
        sql.push_str(&format!(
            "{separator}(${topic}, 0, ${offset}, ${at}, ${size}, ${key}, ${headers}, ${value})"
        ));
    }
    sql
}

async fn remove(
    connection: &mut SqliteConnection,
    topic: &str,
    first: i64,
    last: i64,
    totals: &mut Totals,
) -> Result<(), sqlx::Error> {
    let row = sqlx::query(
        "SELECT COUNT(*), COALESCE(SUM(size_bytes), 0) FROM events WHERE topic = $1 AND \"offset\" BETWEEN $2 AND $3",
    )
    .bind(topic)
    .bind(first)
    .bind(last)
    .fetch_one(&mut *connection)
    .await?;
    totals.events -= row.try_get::<i64, _>(0)?;
    totals.bytes -= row.try_get::<i64, _>(1)?;
    sqlx::query("DELETE FROM events WHERE topic = $1 AND \"offset\" BETWEEN $2 AND $3")
        .bind(topic)
        .bind(first)
        .bind(last)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes a few of the records that were appended before that moment, oldest
/// first; true if there may be more.
async fn prune(connection: &mut SqliteConnection, before_ms: i64) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let rows = sqlx::query("SELECT topic, \"offset\", appended_at FROM events ORDER BY rowid LIMIT $1")
        .bind(PRUNE_ROWS)
        .fetch_all(&mut *transaction)
        .await?;
    let mut ranges: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let mut is_all_old = rows.len() as i64 == PRUNE_ROWS;
    for row in rows {
        if row.try_get::<i64, _>(2)? >= before_ms {
            is_all_old = false;
            break;
        }
        let offset: i64 = row.try_get(1)?;
        let range = ranges.entry(row.try_get(0)?).or_insert((offset, offset));
        range.1 = offset;
    }
    for (topic, (first, last)) in ranges {
        let mut totals = load_totals(&mut transaction, &topic).await?;
        remove(&mut transaction, &topic, first, last, &mut totals).await?;
        save_totals(&mut transaction, &topic, &totals).await?;
    }
    transaction.commit().await?;
    Ok(is_all_old)
}
