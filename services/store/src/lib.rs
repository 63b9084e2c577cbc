//! The desk's truth: SQLite or PostgreSQL behind one SQL text. Each write is one
//! function and one transaction. Nothing here decides.

pub mod error;

mod connection;
mod schema;
mod sql;

pub mod context;
pub mod numbers;

pub mod apply;
mod write;

pub mod accounts;
pub mod announcements;
pub mod blobs;
pub mod book;
pub mod changes;
pub mod contacts;
pub mod conversations;
pub mod erase;
pub mod lease;
pub mod live;
pub mod media;
pub mod outbox;
pub mod parked;
pub mod people;
pub mod requests;
pub mod restore;
pub mod tickets;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use error::Error;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::{AnyPool, AssertSqlSafe, ConnectOptions, Executor};
use tokio_util::sync::CancellationToken;

use connection::{Connection, Transaction};

/// Connections to PostgreSQL, a process.
const CONNECTIONS: u32 = 10;

/// Readers of the SQLite file, a process: each is a thread.
const READERS: u32 = 4;

/// For how long a statement waits for another process's lock on the SQLite file.
const BUSY: Duration = Duration::from_secs(10);

/// For how long a caller waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(5);

/// The same while the process is stopping.
const HURRIED_ACQUIRE: Duration = Duration::from_millis(500);

/// On the one SQLite writer: room for the indexes that are written at random
/// places, and fewer, larger checkpoints.
const SQLITE_WRITER: &str = "PRAGMA journal_mode = WAL; PRAGMA cache_size = -16000; PRAGMA wal_autocheckpoint = 4000";

/// For how long a statement may take before its connection counts as dead: more
/// than the server gives it.
const PATIENCE: Duration = Duration::from_secs(35);

/// A server must not keep the locks of a client that is gone or cut off.
///
/// Statements find their rows by keys. A plan that reads whole tables looks cheaper
/// while they are small, and prepared statements keep it while they grow. Long
/// values are compressed by lz4 where the server has it: a tenth of pglz's time.
const POSTGRES_SESSION: &str = "SET statement_timeout = '30s'; SET idle_in_transaction_session_timeout = '30s'; \
    SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; \
    SELECT set_config(name, 'lz4', false) FROM pg_settings \
    WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)";

/// The pools of one database.
#[derive(Clone)]
pub struct Store {
    /// On SQLite a single connection: it has one writer at a time.
    writer: AnyPool,
    reader: AnyPool,
    /// For how long a statement may take.
    patience: Duration,
    shared: Arc<Shared>,
}

/// What all clones of a store share.
#[derive(Default)]
struct Shared {
    numbers: Mutex<numbers::Pool>,
    book: Mutex<Option<book::Cached>>,
    /// The process is stopping.
    hurry: CancellationToken,
}

impl Store {
    /// Opens `sqlite:PATH` (created if missing) or `postgres://…`. Does not migrate.
    pub async fn open(url: &str) -> Result<Self, Error> {
        sqlx::any::install_default_drivers();
        let (writer, reader) = if let Some(path) = url.strip_prefix("sqlite:") {
            open_sqlite(path).await?
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let pool = open_postgres(url).await?;
            (pool.clone(), pool)
        } else {
            return Err(Error::Settings(
                "the store's url must begin with `sqlite:` or `postgres:`".to_owned(),
            ));
        };
        Ok(Self {
            writer,
            reader,
            patience: PATIENCE,
            shared: Arc::default(),
        })
    }

    /// From now on nobody waits long for a connection: the process is stopping,
    /// and a database that is away would hold it up.
    pub fn hurry(&self) {
        self.shared.hurry.cancel();
    }

    /// Closes all connections, waiting for those in use.
    pub async fn close(&self) {
        self.writer.close().await;
        self.reader.close().await;
    }

    /// A connection to read from.
    async fn read(&self, doing: &'static str) -> Result<Connection, Error> {
        self.connect(&self.reader, doing).await
    }

    /// The rows that a query finds, each converted.
    async fn read_all<T>(
        &self,
        query: sql::Statement,
        convert: impl Fn(&AnyRow) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        if query.asks_for_nul() {
            return Ok(Vec::new());
        }
        let mut connection = self.read("waiting for a connection").await?;
        let found = query.all(&mut connection).await?;
        found.iter().map(convert).collect()
    }

    /// The writing connection, without a transaction.
    async fn write_alone(&self, doing: &'static str) -> Result<Connection, Error> {
        self.connect(&self.writer, doing).await
    }

    /// A transaction that writes.
    async fn begin(&self, doing: &'static str) -> Result<Transaction, Error> {
        let connection = self.connect(&self.writer, doing).await?;
        Transaction::begin(connection, doing).await
    }

    async fn connect(&self, pool: &AnyPool, doing: &'static str) -> Result<Connection, Error> {
        let hurried = async {
            self.shared.hurry.cancelled().await;
            tokio::time::sleep(HURRIED_ACQUIRE).await;
        };
        let acquired = tokio::select! {
            acquired = pool.acquire() => acquired,
            () = hurried => Err(sqlx::Error::PoolTimedOut),
        };
        let inner = acquired.map_err(|source| Error::from_sqlx(doing, source))?;
        Ok(Connection::new(inner, self.patience))
    }
}

async fn open_sqlite(path: &str) -> Result<(AnyPool, AnyPool), Error> {
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = std::path::absolute(Path::new(path))
        .map_err(|error| Error::Settings(format!("the store's path {path:?} is wrong: {error}")))?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| {
            Error::Settings(format!(
                "the store's folder {} cannot be made: {error}",
                folder.display()
            ))
        })?;
    }
    let url = format!("sqlite://{}?mode=rwc", percent_encoded(&path.to_string_lossy()));
    let options = connect_options(&url)?;
    let writer = pool(1)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(AssertSqlSafe(pragmas())).await?;
                // The journal's mode stays in the file: a reader need not set it.
                connection.execute(SQLITE_WRITER).await?;
                Ok(())
            })
        })
        .connect_with(options.clone())
        .await
        .map_err(|source| Error::from_sqlx("opening the SQLite file", source))?;
    let reader = pool(READERS)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(AssertSqlSafe(pragmas())).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options);
    Ok((writer, reader))
}

/// FULL: a commit is on the disk when it returns.
fn pragmas() -> String {
    format!(
        "PRAGMA busy_timeout = {}; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF",
        BUSY.as_millis()
    )
}

async fn open_postgres(url: &str) -> Result<AnyPool, Error> {
    let mark = if url.contains('?') { '&' } else { '?' };
    let options = connect_options(&format!("{url}{mark}statement-cache-capacity=300"))?;
    // Lazily: a database that is away for now is no reason not to start.
    Ok(pool(CONNECTIONS)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(POSTGRES_SESSION).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options))
}

fn pool(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
}

fn connect_options(url: &str) -> Result<AnyConnectOptions, Error> {
    let options: AnyConnectOptions = url
        .parse()
        .map_err(|_| Error::Settings("the store's url cannot be read".to_owned()))?;
    // Slow statements are measured, not logged: their arguments are nobody's business.
    Ok(options.disable_statement_logging())
}

fn percent_encoded(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
