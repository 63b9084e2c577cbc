//! Connections and transactions that are never left half-way.
//!
//! A statement that gets no answer in time, or whose caller goes away, leaves a
//! connection of which nobody knows what it will say next: it is closed, which
//! also ends its transaction. sqlx would wait for the answer, and on a network
//! that swallows packets that takes a quarter of an hour and a place in the pool.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection};
use tokio::time::timeout;

use crate::Error;

/// A connection of the pool, back there when it is dropped.
pub(crate) struct Connection {
    inner: PoolConnection<Any>,
    /// For how long a statement may take.
    patience: Duration,
    /// Nothing is under way on it.
    is_at_rest: bool,
}

/// A transaction. Dropped without an end (its caller failed or went away), it is
/// rolled back together with its connection.
pub(crate) struct Transaction {
    connection: Connection,
    is_open: bool,
}

impl Connection {
    pub(crate) fn new(inner: PoolConnection<Any>, patience: Duration) -> Self {
        Self {
            inner,
            patience,
            is_at_rest: true,
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.inner.backend_name() == "PostgreSQL"
    }

    /// Runs one statement.
    pub(crate) async fn run<'c, T, F>(
        &'c mut self,
        doing: &'static str,
        statement: impl FnOnce(&'c mut AnyConnection) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, sqlx::Error>> + 'c,
    {
        let Self {
            inner,
            patience,
            is_at_rest,
        } = self;
        *is_at_rest = false;
        let outcome = timeout(*patience, statement(inner)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
        // What the database itself answers, good or bad, ends the statement.
        *is_at_rest = matches!(outcome, Ok(_) | Err(sqlx::Error::Database(_)));
        outcome.map_err(|source| Error::from_sqlx(doing, source))
    }

    /// Runs statements without arguments, which need not be prepared.
    pub(crate) async fn run_script(&mut self, script: &'static str, doing: &'static str) -> Result<(), Error> {
        self.run(doing, |connection| sqlx::raw_sql(script).execute(connection))
            .await?;
        Ok(())
    }

    /// Waits for statements however long they take, as migrations may.
    pub(crate) fn be_patient(&mut self) {
        self.patience = Duration::from_secs(24 * 60 * 60);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_at_rest {
            self.inner.close_on_drop();
        }
    }
}

impl Transaction {
    pub(crate) async fn begin(mut connection: Connection, doing: &'static str) -> Result<Self, Error> {
        // SQLite: waiting for another process's lock comes first, where it can be waited for.
        let text = if connection.is_postgres() {
            "BEGIN"
        } else {
            "BEGIN IMMEDIATE"
        };
        connection.run_script(text, doing).await?;
        Ok(Self {
            connection,
            is_open: true,
        })
    }

    /// After an error of [`Error::Unavailable`] the outcome is unknown.
    pub(crate) async fn commit(mut self, doing: &'static str) -> Result<(), Error> {
        self.connection.run_script("COMMIT", doing).await?;
        self.is_open = false;
        Ok(())
    }

    /// Gives the connection back as it was. Not needed for correctness.
    pub(crate) async fn rollback(mut self) {
        let done = self.connection.run_script("ROLLBACK", "rolling back").await;
        self.is_open = done.is_err();
    }
}

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.is_open {
            self.connection.is_at_rest = false;
        }
    }
}
