//! What a large store costs: routing and reads of the API at ten thousand, a hundred
//! thousand and a million conversations, in turns.
//!
//! The stores are filled by statements, not by messages: one conversation is routed,
//! and its rows are written again under other ids, addresses and moments.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tests::harness::servers::Servers;

use crate::Row;
use crate::curve::{self, Curve};
use crate::load::{BODY_BYTES, Known};
use crate::reads::{READS, Samples, read};
use crate::routing::{Routed, fill_for, route};
use crate::site::{Site, fill_with};
use crate::store::Database;

const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
const ROUNDS: usize = 3;
/// Messages of the conversation that is written again.
const MESSAGES: u64 = 2;
const ROUTING: &str = "routing";

/// A store of one size.
struct Store {
    site: Site,
    database: Database,
    known: Known,
    samples: Samples,
    token: String,
    routed: Routed,
    /// Answers of each read, and the seconds that they took.
    reads: BTreeMap<&'static str, (f64, f64)>,
}

pub async fn measure(servers: &Servers, rows: &mut Vec<Row>) -> Result<()> {
    let kafka = servers.kafka().await?.port;
    let (seed, sender) = seed(servers, kafka).await?;
    let mut stores = Vec::new();
    for size in SIZES {
        println!("filling a store of {size} conversations");
        let database = seed.copy(&format!("growth_{size}")).await?;
        grow(&database, size, &sender).await?;
        let site = Site::on(servers, &format!("growth-{size}"), &database.url).await?;
        let token = site.command(&["token", "create", "--name", "bench"]).await?;
        stores.push(Store {
            samples: Samples::of(&database).await?,
            known: Known {
                prefix: "known".to_owned(),
                count: size,
            },
            token: token.trim().to_owned(),
            routed: Routed::default(),
            reads: BTreeMap::new(),
            site,
            database,
        });
    }
    for _ in 0..ROUNDS {
        for store in &mut stores {
            store.measure(servers, kafka).await?;
        }
    }
    let curves = curves(&stores);
    report(&curves, rows);
    curve::draw(&SIZES, &curves)?;
    for store in stores {
        store.database.drop().await?;
    }
    seed.drop().await
}

impl Store {
    /// One round.
    async fn measure(&mut self, servers: &Servers, kafka: u16) -> Result<()> {
        println!("routing to {} conversations", self.known.count);
        self.database.skip_arrivals(kafka).await?;
        fill_for(&self.site, &self.known).await?;
        self.routed.add(&route(servers, &self.site).await?);
        let mut api = self.site.start("api").await?;
        for (name, path) in READS {
            let paths = self.samples.paths(path);
            let answers = read(self.site.desk, &self.token, &paths).await?;
            let sum = self.reads.entry(name).or_default();
            sum.0 += answers.count;
            sum.1 += answers.seconds;
        }
        api.terminate().await?;
        Ok(())
    }
}

/// A database with one conversation, and what its sender is called.
async fn seed(servers: &Servers, kafka: u16) -> Result<(Database, String)> {
    let database = Database::create(servers, "growth").await?;
    let site = Site::on(servers, "growth", &database.url).await?;
    site.command(&["migrate"]).await?;
    let mut gateway = site.start("gateway").await?;
    database.skip_arrivals(kafka).await?;
    let target = site.target()?;
    let sender = format!("{}-0", target.run);
    let make = std::sync::Arc::new(move || target.request(BODY_BYTES, MESSAGES));
    fill_with(site.public, &(make as crate::load::Make), MESSAGES).await?;
    gateway.terminate().await?;
    let mut router = site.start("router").await?;
    tests::harness::ops::quiet(std::slice::from_ref(&router.ops), std::time::Duration::from_secs(60)).await?;
    router.terminate().await?;
    Ok((database, sender))
}

/// The rows of the only conversation, so many times more.
async fn grow(database: &Database, size: u64, sender: &str) -> Result<()> {
    let mut connection = database.connect().await?;
    connection.execute("SET default_toast_compression = 'lz4'").await?;
    let names = names(&mut connection, sender).await?;
    for table in [
        "contacts",
        "identities",
        "conversations",
        "messages",
        "external_ids",
        "tickets",
        "ticket_events",
        "traces",
    ] {
        let columns: Vec<(String, String)> = sqlx::query_as(
            "SELECT CAST(column_name AS TEXT), CAST(data_type AS TEXT) FROM information_schema.columns
             WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position",
        )
        .bind(table)
        .fetch_all(&mut connection)
        .await?;
        let values: Vec<String> = columns.iter().map(|column| value(table, column, &names)).collect();
        let list: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let statement = format!(
            "INSERT INTO {table} ({}) SELECT {} FROM {table}, generate_series(0, {}) AS n",
            list.join(", "),
            values.join(", "),
            size - 1
        );
        let written = connection.execute(AssertSqlSafe(statement)).await?.rows_affected();
        ensure!(written >= size, "{table}: {written} rows for {size} conversations");
    }
    connection.execute("VACUUM ANALYZE").await?;
    connection.close().await?;
    Ok(())
}

/// What is called by the conversation's own names, and what it is called in the n-th
/// copy (SQL).
async fn names(connection: &mut PgConnection, sender: &str) -> Result<Vec<(String, String)>> {
    let mut names = Vec::new();
    for (table, prefix) in [
        ("messages", "msg_"),
        ("conversations", "cnv_"),
        ("contacts", "con_"),
        ("tickets", "tkt_"),
    ] {
        let ids: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("SELECT id FROM {table}")))
            .fetch_all(&mut *connection)
            .await?;
        ensure!(!ids.is_empty(), "nothing in {table}");
        for (number, id) in ids.into_iter().enumerate() {
            names.push((id, format!("'{prefix}' || md5('{number} ' || n)")));
        }
    }
    let number: String = sqlx::query_scalar("SELECT number FROM tickets")
        .fetch_one(&mut *connection)
        .await?;
    names.push((number, "'CS' || 1000000000 + n".to_owned()));
    let run = sender.strip_suffix("-0").context("no number in the sender")?;
    for message in 0..MESSAGES {
        names.push((format!("bench-{run}-{message}"), format!("'copy-{message}-' || n")));
    }
    names.push((sender.to_owned(), "'known-' || n".to_owned()));
    Ok(names)
}

/// A column of the n-th copy. Nine of ten tickets are closed, and some are somebody's.
fn value(table: &str, (column, kind): &(String, String), names: &[(String, String)]) -> String {
    match (table, column.as_str()) {
        ("tickets", "category") => return "CASE WHEN n % 10 = 0 THEN category ELSE 'closed' END".to_owned(),
        ("tickets", "state") => return "CASE WHEN n % 10 = 0 THEN state ELSE 'closed' END".to_owned(),
        ("tickets", "is_open") => return "CASE WHEN n % 10 = 0 THEN 1 ELSE 0 END".to_owned(),
        ("tickets", "needs_attention") => return "CASE WHEN n % 100 = 0 THEN 1 ELSE 0 END".to_owned(),
        ("tickets", "assignee") => return "CASE WHEN n % 100 = 50 THEN 'ada' END".to_owned(),
        ("tickets", "next_clock_at") => return "CASE WHEN n % 10 = 0 THEN next_clock_at + n * 1000 END".to_owned(),
        _ => {}
    }
    match kind.as_str() {
        "text" => names.iter().fold(column.clone(), |value, (old, new)| {
            format!("replace({value}, '{old}', {new})")
        }),
        "bigint" if column.ends_with("_at") => format!("{column} - n * 1000"),
        _ => column.clone(),
    }
}

/// The rates of everything at every size.
fn curves(stores: &[Store]) -> Vec<Curve> {
    let routing = stores.iter().map(|store| store.routed.rate()).collect();
    let mut curves = vec![Curve {
        name: ROUTING,
        rates: routing,
    }];
    for (name, _) in READS {
        let rates = stores.iter().filter_map(|store| store.reads.get(name));
        curves.push(Curve {
            name,
            rates: rates.map(|(count, seconds)| count / seconds).collect(),
        });
    }
    curves
}

/// The worst is the result; by its slope, what is left of it at ten million.
fn report(curves: &[Curve], rows: &mut Vec<Row>) {
    let decades = (SIZES[2] as f64 / SIZES[0] as f64).log10();
    let mut worst = f64::INFINITY;
    for curve in curves {
        let ratio = curve.ratio();
        worst = worst.min(ratio);
        rows.push(Row::plain(format!("growth_{}", curve.name), ratio, ""));
        rows.push(Row::plain(
            format!("growth_{}_per_s", curve.name),
            curve.last(),
            "/s at 10⁶",
        ));
    }
    rows.push(Row::at_least("growth_1e6", worst, "", 0.8));
    let slope = worst.log10() / decades;
    rows.push(Row::plain("growth_slope", slope, "decades"));
    rows.push(Row::plain("growth_1e7", worst * 10_f64.powf(slope), "expected"));
}
