//! The floor under routing: a bare loop that writes the rows that a router has
//! written, in the same transactions, without reading or deciding anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use tests::harness::servers::Servers;
use tokio::task::JoinSet;

use crate::cpu;
use crate::routing::Routed;
use crate::store::Database;

/// What routing writes, in the order in which it writes.
const TABLES: [&str; 9] = [
    "contacts",
    "identities",
    "conversations",
    "messages",
    "external_ids",
    "tickets",
    "ticket_events",
    "traces",
    "announcements",
];
/// Rows of these are also changed.
const CHANGED: [&str; 2] = ["conversations", "tickets"];

/// Of the arrivals.
const PARTITIONS: i64 = 8;

/// Whole transactions of a router.
pub struct Batches {
    tables: Vec<Table>,
    /// Of each transaction the rows of each table.
    batches: Vec<Vec<Columns>>,
    messages: usize,
}

struct Table {
    insert: String,
    kinds: Vec<Kind>,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Int,
    Bytes,
}

/// Rows of a table, column by column.
type Columns = Vec<Column>;

#[derive(Clone)]
enum Column {
    Text(Vec<Option<String>>),
    Int(Vec<Option<i64>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Batches {
    /// The number of the next transaction.
    pub async fn next_transaction(database: &Database) -> Result<i64> {
        let mut connection = database.connect().await?;
        let number = sqlx::query_scalar("SELECT CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(number)
    }

    /// What transactions from `first` on have written: each row knows its own.
    pub async fn since(database: &Database, first: i64) -> Result<Self> {
        let mut connection = database.connect().await?;
        let mut tables = Vec::new();
        let mut batches: BTreeMap<i64, Vec<Columns>> = BTreeMap::new();
        let mut messages = 0;
        for (index, name) in TABLES.into_iter().enumerate() {
            let columns: Vec<(String, String)> = sqlx::query_as(
                "SELECT CAST(column_name AS TEXT), CAST(data_type AS TEXT) FROM information_schema.columns
                 WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position",
            )
            .bind(name)
            .fetch_all(&mut connection)
            .await?;
            let table = Table::new(name, &columns)?;
            let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
            let select = format!(
                "SELECT {}, CAST(CAST(xmin AS TEXT) AS BIGINT) AS batch FROM {name}
                 WHERE CAST(CAST(xmin AS TEXT) AS BIGINT) >= $1 ORDER BY batch, 1, 2",
                names.join(", ")
            );
            let found = sqlx::query(AssertSqlSafe(select)).bind(first);
            for row in found.fetch_all(&mut connection).await? {
                let batch = batches.entry(row.try_get("batch")?).or_default();
                batch.resize(TABLES.len(), Vec::new());
                if batch[index].is_empty() {
                    batch[index] = table.kinds.iter().map(|kind| Column::new(*kind)).collect();
                }
                for (position, column) in batch[index].iter_mut().enumerate() {
                    column.push(&row, position)?;
                }
                messages += usize::from(name == "messages");
            }
            tables.push(table);
        }
        connection.close().await?;
        Ok(Self {
            tables,
            batches: batches.into_values().collect(),
            messages,
        })
    }

    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Writes all of it, over as many connections.
    pub async fn write(self, servers: &Servers, database: &Database, connections: usize) -> Result<Routed> {
        let messages = self.messages as f64;
        let postgres = servers.postgres().await?;
        postgres.checkpoint().await?;
        let postgres = postgres.pid()?;
        let cpu = || anyhow::Ok([cpu::seconds(std::process::id())?, cpu::seconds_of_server(postgres)?]);
        let (all, next) = (Arc::new(self), Arc::new(AtomicUsize::new(0)));
        let mut open = Vec::new();
        for _ in 0..connections {
            let mut connection = database.connect().await?;
            connection.execute("SET default_toast_compression = 'lz4'").await?;
            open.push(connection);
        }
        let before = cpu()?;
        let began = Instant::now();
        let mut writers = JoinSet::new();
        for mut connection in open {
            let (all, next) = (all.clone(), next.clone());
            writers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(batch) = all.batches.get(number) else { break };
                    all.write_one(number, batch, &mut connection).await?;
                }
                connection.close().await?;
                anyhow::Ok(())
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer??;
        }
        let seconds = began.elapsed().as_secs_f64();
        let after = cpu()?;
        let cpu = [after[0] - before[0], after[1] - before[1]];
        let written = Routed::new(messages, seconds, cpu);
        println!("written {messages} messages bare, {:.0}/s", written.rate());
        Ok(written)
    }

    async fn write_one(&self, number: usize, batch: &[Columns], connection: &mut PgConnection) -> Result<()> {
        let mut transaction = connection.begin().await?;
        // Those under way at once are of different partitions.
        sqlx::query("UPDATE partitions SET next_offset = next_offset + 1 WHERE partition = $1")
            .bind(number as i64 % PARTITIONS)
            .execute(&mut *transaction)
            .await?;
        for (table, columns) in self.tables.iter().zip(batch) {
            if columns.is_empty() {
                continue;
            }
            let mut arguments = PgArguments::default();
            for column in columns {
                column.bind(&mut arguments)?;
            }
            sqlx::query_with(AssertSqlSafe(table.insert.clone()), arguments)
                .execute(&mut *transaction)
                .await
                .with_context(|| table.insert.clone())?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

impl Table {
    fn new(name: &str, columns: &[(String, String)]) -> Result<Self> {
        let (mut names, mut arrays, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (column, kind)) in columns.iter().enumerate() {
            names.push(column.as_str());
            arrays.push(format!("CAST(${} AS {kind}[])", number + 1));
            kinds.push(match kind.as_str() {
                "text" => Kind::Text,
                "bigint" => Kind::Int,
                "bytea" => Kind::Bytes,
                other => bail!("column {column} of {name} is {other}"),
            });
        }
        let mut insert = format!(
            "INSERT INTO {name} ({}) SELECT * FROM unnest({})",
            names.join(", "),
            arrays.join(", ")
        );
        if CHANGED.contains(&name) {
            let set: Vec<String> = names.iter().map(|name| format!("{name} = excluded.{name}")).collect();
            insert.push_str(&format!(" ON CONFLICT (id) DO UPDATE SET {}", set.join(", ")));
        }
        Ok(Self { insert, kinds })
    }
}

impl Column {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text(Vec::new()),
            Kind::Int => Self::Int(Vec::new()),
            Kind::Bytes => Self::Bytes(Vec::new()),
        }
    }

    fn push(&mut self, row: &PgRow, position: usize) -> Result<()> {
        match self {
            Self::Text(values) => values.push(row.try_get(position)?),
            Self::Int(values) => values.push(row.try_get(position)?),
            Self::Bytes(values) => values.push(row.try_get(position)?),
        }
        Ok(())
    }

    fn bind(&self, arguments: &mut PgArguments) -> Result<()> {
        let added = match self {
            Self::Text(values) => arguments.add(values),
            Self::Int(values) => arguments.add(values),
            Self::Bytes(values) => arguments.add(values),
        };
        added.map_err(|error| anyhow::anyhow!(error))
    }
}
