//! A log in one SQLite file: the bus of a single process, and the spool between
//! a gateway and Kafka.
//!
//! One writer task commits whatever waits as one group, and answers when it is
//! on the disk (`local/writer.rs`). Other processes may append to the same file:
//! offsets are given inside the transaction.

mod reader;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use model::time::Moment;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::reader::LocalReader;
use self::writer::{Job, Writer};
use crate::Error;
use crate::wire::{Encoded, Headers};

/// A log file, open.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    jobs: mpsc::Sender<Job>,
    readers: SqlitePool,
    /// Changes with every append of this process.
    appended: watch::Receiver<u64>,
    is_writable: Arc<AtomicBool>,
    /// Who of a group reads: the log has one partition, so one at a time.
    turns: Arc<Mutex<Turns>>,
    /// Where groups stand; written with whatever is written next.
    commits: Commits,
    stop: CancellationToken,
}

/// By topic and group.
type Turns = HashMap<(String, String), Arc<tokio::sync::Mutex<()>>>;

/// Next offsets by topic and group, not yet in the file.
type Commits = Arc<Mutex<BTreeMap<(String, String), i64>>>;

/// A record as it lies in the file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub offset: i64,
    pub record: Encoded,
}

/// Consecutive records of a topic.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub entries: Vec<Entry>,
    /// Nothing lay behind them.
    pub is_last: bool,
}

/// How much a topic holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    pub next_offset: i64,
    pub events: i64,
    pub bytes: i64,
}

/// What a topic holds, seen from outside.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub totals: Totals,
    /// When the oldest record was appended.
    pub oldest_at: Option<Moment>,
    pub oldest_headers: Headers,
}

/// What one read brings at most, besides its number of records.
const READ_MAX_BYTES: usize = 4 * 1024 * 1024;
/// How long a writer waits for a writer of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl Log {
    /// Opens the file, and makes it if there is none. With a `retention`, older
    /// records are removed now and then.
    pub async fn open(path: &Path, retention: Option<Duration>, tasks: &TaskTracker) -> Result<Self, Error> {
        let doing = format!("opening the log {}", path.display());
        if let Some(folder) = path.parent() {
            make_folder(folder).map_err(|error| Error::settings(&doing, &error))?;
        }
        let options = options(path).create_if_missing(true);
        let mut connection = options
            .connect()
            .await
            .map_err(|error| Error::settings(&doing, &error))?;
        sqlx::raw_sql(SCHEMA)
            .execute(&mut connection)
            .await
            .map_err(|error| Error::settings(&doing, &error))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .min_connections(0)
            .connect_lazy_with(options.clone());
        let (jobs, waiting) = mpsc::channel(1024);
        let (changed, appended) = watch::channel(0);
        let is_writable = Arc::new(AtomicBool::new(true));
        let commits = Commits::default();
        let writer = Writer {
            options,
            connection: Some(connection),
            retention,
            appended: changed,
            is_writable: is_writable.clone(),
            commits: commits.clone(),
        };
        let stop = CancellationToken::new();
        tasks.spawn(writer.run(waiting, stop.clone()));
        Ok(Self {
            jobs,
            readers,
            appended,
            is_writable,
            turns: Arc::default(),
            commits,
            stop,
        })
    }

    /// Appends the records, all or none; they are on the disk when it returns.
    /// Refuses them if the topic would then hold more than `max_bytes`.
    pub async fn append(&self, topic: &str, records: Vec<Encoded>, max_bytes: u64) -> Result<Totals, Error> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Append {
            topic: topic.to_owned(),
            records,
            max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
            reply,
        };
        self.ask(job, answer).await
    }

    /// Removes the records in these ranges of offsets (first, last).
    pub async fn remove(&self, topic: &str, ranges: Vec<(i64, i64)>) -> Result<Totals, Error> {
        let (reply, answer) = oneshot::channel();
        let topic = topic.to_owned();
        self.ask(Job::Remove { topic, ranges, reply }, answer).await
    }

    /// Whether it can be written. After a failure a small write finds out anew.
    pub async fn is_writable(&self) -> bool {
        if self.is_writable.load(Ordering::Relaxed) {
            return true;
        }
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Probe { reply }, answer).await.is_ok()
    }

    /// Up to `max` records from this offset on, in order.
    pub async fn read(&self, topic: &str, from: i64, max: usize) -> Result<Chunk, Error> {
        let mut rows = sqlx::query(READ)
            .bind(topic)
            .bind(from)
            .bind(i64::try_from(max).unwrap_or(i64::MAX))
            .fetch(&self.readers);
        let mut entries = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await.map_err(|error| reading(&error))? {
            let entry = entry(&row).map_err(|error| reading(&error))?;
            bytes += entry.record.size_bytes();
            entries.push(entry);
            if bytes >= READ_MAX_BYTES {
                return Ok(Chunk {
                    entries,
                    is_last: false,
                });
            }
        }
        let is_last = entries.len() < max;
        Ok(Chunk { entries, is_last })
    }

    /// How much the topic holds.
    pub async fn totals(&self, topic: &str) -> Result<Totals, Error> {
        let row = sqlx::query(TOTALS)
            .bind(topic)
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| reading(&error))?;
        match row {
            Some(row) => totals(&row).map_err(|error| reading(&error)),
            None => Ok(Totals::default()),
        }
    }

    /// How much the topic holds, and its oldest record.
    pub async fn held(&self, topic: &str) -> Result<Held, Error> {
        let mut connection = self.readers.acquire().await.map_err(|error| reading(&error))?;
        held(&mut connection, topic).await.map_err(|error| reading(&error))
    }

    /// A reader of this topic.
    pub fn reader(&self, topic: &str, group: &str) -> LocalReader {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry((topic.to_owned(), group.to_owned())).or_default().clone();
        LocalReader::new(self.clone(), topic, group, turn)
    }

    /// Notes where a group stands. Costs no write of its own.
    pub fn commit(&self, topic: &str, group: &str, next: i64) {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        commits.insert((topic.to_owned(), group.to_owned()), next);
    }

    /// Where a group stands, as far as it was noted.
    pub async fn committed(&self, topic: &str, group: &str) -> Result<Option<i64>, Error> {
        let noted = {
            let commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
            commits.get(&(topic.to_owned(), group.to_owned())).copied()
        };
        if noted.is_some() {
            return Ok(noted);
        }
        sqlx::query_scalar("SELECT next_offset FROM readers WHERE topic = $1 AND reader = $2")
            .bind(topic)
            .bind(group)
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| reading(&error))
    }

    /// Takes nothing more; what was asked is still done.
    pub async fn close(&self) {
        self.stop.cancel();
        self.readers.close().await;
    }

    async fn ask<T>(&self, job: Job, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        let stopped = || Error::Unavailable("the log is closed".to_owned());
        // The writer may still be at work on what was asked before.
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        self.jobs.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// What topics hold in a file that nobody here has open. Nothing is made.
pub(crate) async fn peek<const N: usize>(path: &Path, topics: [&str; N]) -> Result<[Held; N], Error> {
    let doing = format!("opening {}", path.display());
    let mut found = [const { None }; N];
    let mut connection = connect(path).await?;
    for (found, topic) in found.iter_mut().zip(topics) {
        let held = held(&mut connection, topic).await;
        *found = Some(held.map_err(|error| Error::settings(&doing, &error))?);
    }
    connection
        .close()
        .await
        .map_err(|error| Error::settings(&doing, &error))?;
    Ok(found.map(Option::unwrap_or_default))
}

/// Shows all records of a topic in a file that nobody here has open.
pub(crate) async fn peek_into(path: &Path, topic: &str, mut show: impl FnMut(Entry)) -> Result<(), Error> {
    let doing = format!("reading {}", path.display());
    let failed = |error: sqlx::Error| Error::settings(&doing, &error);
    let mut connection = connect(path).await?;
    let mut rows = sqlx::query(READ)
        .bind(topic)
        .bind(0)
        .bind(i64::MAX)
        .fetch(&mut connection);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        show(entry(&row).map_err(failed)?);
    }
    drop(rows);
    connection.close().await.map_err(failed)
}

async fn connect(path: &Path) -> Result<SqliteConnection, Error> {
    let opened = options(path).create_if_missing(false).connect().await;
    opened.map_err(|error| Error::settings(&format!("opening {}", path.display()), &error))
}

async fn held(connection: &mut SqliteConnection, topic: &str) -> Result<Held, sqlx::Error> {
    let row = sqlx::query(TOTALS).bind(topic).fetch_optional(&mut *connection).await?;
    let totals = row.as_ref().map_or(Ok(Totals::default()), totals)?;
    let Some(oldest) = sqlx::query(OLDEST).bind(topic).fetch_optional(connection).await? else {
        return Ok(Held {
            totals,
            ..Held::default()
        });
    };
    Ok(Held {
        totals,
        oldest_at: Some(Moment::from_ms(oldest.try_get(0)?)),
        oldest_headers: headers(&oldest, 1)?,
    })
}

/// A store that has seen more than the log ever held belongs to another log:
/// going on would skip what comes until the log has grown that long.
pub(crate) fn beyond_end(topic: &str, partition: i32, offset: i64, end: i64) -> Error {
    Error::Settings(format!(
        "partition {partition} of {topic} ends at offset {end}, and the store has read up to {offset}: \
         they do not belong together; bring back the log or the database that is missing, or, if the log was \
         made anew on purpose, delete the topic's rows of the table partitions"
    ))
}

/// Makes a folder that is still there after a crash.
pub(crate) fn make_folder(path: &Path) -> std::io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    make_folder(above)?;
    match std::fs::create_dir(path) {
        Err(_) if path.is_dir() => {}
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    std::fs::File::open(above)?.sync_all()
}

/// `topics` counts what lies in `events`: `bytes` is the sum of `size_bytes`.
const SCHEMA: &str = r#"
CREATE TABLE IF NOT EXISTS topics (
    topic TEXT PRIMARY KEY,
    next_offset BIGINT NOT NULL,
    events BIGINT NOT NULL,
    bytes BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS readers (
    topic TEXT NOT NULL,
    reader TEXT NOT NULL,
    next_offset BIGINT NOT NULL,
    PRIMARY KEY (topic, reader)
);
CREATE TABLE IF NOT EXISTS events (
    topic TEXT NOT NULL,
    "partition" BIGINT NOT NULL,
    "offset" BIGINT NOT NULL,
    appended_at BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    key TEXT NOT NULL,
    headers TEXT NOT NULL,
    value BLOB NOT NULL,
    UNIQUE (topic, "offset")
);
"#;

const TOTALS: &str = "SELECT next_offset, events, bytes FROM topics WHERE topic = $1";
const READ: &str = "SELECT \"offset\", key, headers, value FROM events WHERE topic = $1 AND \"offset\" >= $2 \
    ORDER BY \"offset\" LIMIT $3";
const OLDEST: &str = "SELECT appended_at, headers FROM events WHERE topic = $1 ORDER BY \"offset\" LIMIT 1";

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging()
}

fn entry(row: &SqliteRow) -> Result<Entry, sqlx::Error> {
    Ok(Entry {
        offset: row.try_get(0)?,
        record: Encoded {
            key: row.try_get(1)?,
            headers: headers(row, 2)?,
            value: row.try_get(3)?,
        },
    })
}

fn headers(row: &SqliteRow, column: usize) -> Result<Headers, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn totals(row: &SqliteRow) -> Result<Totals, sqlx::Error> {
    Ok(Totals {
        next_offset: row.try_get(0)?,
        events: row.try_get(1)?,
        bytes: row.try_get(2)?,
    })
}

fn reading(error: &sqlx::Error) -> Error {
    Error::unavailable("reading the log", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: usize) -> Vec<Encoded> {
        let record = |number: usize| Encoded {
            key: "k".to_owned(),
            headers: Vec::new(),
            value: number.to_string().into_bytes(),
        };
        (0..count).map(record).collect()
    }

    #[tokio::test]
    async fn what_is_too_old_goes_and_offsets_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let tasks = TaskTracker::new();
        let log = Log::open(&path, None, &tasks).await.unwrap();
        log.append("t", records(700), u64::MAX).await.unwrap();
        log.close().await;

        let log = Log::open(&path, Some(Duration::ZERO), &tasks).await.unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while log.totals("t").await.unwrap().events > 0 {
            assert!(tokio::time::Instant::now() < deadline, "old records stay");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut reader = log.reader("t", "g");
        reader.seek(10).await.unwrap();
        let held = log.append("t", records(1), u64::MAX).await.unwrap();
        assert_eq!((held.next_offset, held.events), (701, 1));
        let batch = reader.next(10).await.unwrap();
        assert_eq!((batch.from, batch.records[0].offset, batch.to), (10, 700, 701));
        log.close().await;
    }

    #[tokio::test]
    async fn a_topic_holds_all_of_an_append_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(&folder.path().join("log.db"), None, &TaskTracker::new())
            .await
            .unwrap();
        let one = u64::try_from(log.append("t", records(1), u64::MAX).await.unwrap().bytes).unwrap();
        log.append("t", records(2), one * 2).await.unwrap_err();
        let held = log.append("t", records(1), one * 2).await.unwrap();
        assert_eq!((held.events, held.next_offset), (2, 2));
        // A full topic is no hindrance for another.
        log.append("u", records(1), one).await.unwrap();

        let held = log.remove("t", vec![(0, 0), (5, 9)]).await.unwrap();
        assert_eq!((held.events, held.next_offset), (1, 2));
        let chunk = log.read("t", 0, 1).await.unwrap();
        assert_eq!((chunk.entries[0].offset, chunk.is_last), (1, false));
        let chunk = log.read("t", 0, 2).await.unwrap();
        assert!(chunk.is_last);
        let held = log.remove("t", vec![(0, 9)]).await.unwrap();
        assert_eq!((held.events, held.bytes, held.next_offset), (0, 0, 2));
        log.close().await;
        log.append("t", records(1), u64::MAX).await.unwrap_err();
    }
}
