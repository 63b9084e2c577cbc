//! PostgreSQL from below: databases of their own for what is measured.

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tests::harness::desk::SOON;
use tests::harness::servers::Servers;
use tests::harness::wait::eventually;

/// Where arrivals stand in Kafka.
const EVENTS: &str = "tributary.events.v1";

/// A database of this server.
#[derive(Clone)]
pub struct Database {
    pub url: String,
    name: String,
    server: String,
}

impl Database {
    /// The one that most sites share.
    pub async fn shared(servers: &Servers) -> Result<Self> {
        Self::named(servers, "tributary").await
    }

    async fn named(servers: &Servers, name: &str) -> Result<Self> {
        let url = servers.postgres().await?.url();
        let (server, _) = url.rsplit_once('/').context("no database in the url")?;
        Ok(Self {
            url: format!("{server}/{name}"),
            name: name.to_owned(),
            server: server.to_owned(),
        })
    }

    /// An empty one.
    pub async fn create(servers: &Servers, name: &str) -> Result<Self> {
        let database = Self::named(servers, name).await?;
        database.administer(format!("CREATE DATABASE {name}")).await?;
        Ok(database)
    }

    /// A copy; nobody may be connected to this one.
    pub async fn copy(&self, name: &str) -> Result<Self> {
        let of = &self.name;
        self.administer(format!("CREATE DATABASE {name} TEMPLATE {of}")).await?;
        Ok(Self {
            url: format!("{}/{name}", self.server),
            name: name.to_owned(),
            server: self.server.clone(),
        })
    }

    /// For good.
    pub async fn drop(self) -> Result<()> {
        self.administer(format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .await
    }

    pub async fn connect(&self) -> Result<PgConnection> {
        PgConnection::connect(&self.url)
            .await
            .context("cannot connect to PostgreSQL")
    }

    /// Lets it go on behind all that is in Kafka, which others have routed.
    pub async fn skip_arrivals(&self, kafka_port: u16) -> Result<()> {
        let mut connection = self.connect().await?;
        for (partition, end) in eventually("Kafka tells its ends", SOON, async || Ok(ends(kafka_port).ok())).await? {
            sqlx::query(
                "INSERT INTO partitions (topic, partition, next_offset) VALUES ($1, $2, $3)
                 ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset",
            )
            .bind(EVENTS)
            .bind(i64::from(partition))
            .bind(end)
            .execute(&mut connection)
            .await?;
        }
        connection.close().await?;
        Ok(())
    }

    async fn administer(&self, statement: String) -> Result<()> {
        let mut connection = PgConnection::connect(&format!("{}/postgres", self.server)).await?;
        connection.execute(AssertSqlSafe(statement)).await?;
        connection.close().await?;
        Ok(())
    }
}

/// Where each partition of the arrivals ends; fails while a topic is being made.
fn ends(kafka_port: u16) -> Result<Vec<(i32, i64)>> {
    let patience = std::time::Duration::from_secs(10);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", format!("127.0.0.1:{kafka_port}"))
        .create()?;
    let metadata = consumer.fetch_metadata(Some(EVENTS), patience)?;
    let topic = metadata.topics().first().context("no topic of arrivals")?;
    let mut ends = Vec::new();
    for partition in topic.partitions() {
        let (_, end) = consumer.fetch_watermarks(EVENTS, partition.id(), patience)?;
        ends.push((partition.id(), end));
    }
    Ok(ends)
}
