//! What people at the desk read, of a store that has been filled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sqlx::Connection as _;
use tokio::task::JoinSet;

use crate::store::Database;

/// Each by a name, with the places of what differs from one to the next.
pub const READS: [(&str, &str); 12] = [
    ("tickets", "/v1/tickets"),
    ("tickets_open", "/v1/tickets?queue=support&category=open"),
    ("tickets_of_person", "/v1/tickets?assignee=ada"),
    ("tickets_attention", "/v1/tickets?needs_attention=true"),
    ("tickets_of_contact", "/v1/tickets?contact={contact}"),
    ("ticket", "/v1/tickets/{ticket}"),
    ("ticket_messages", "/v1/tickets/{ticket}/messages"),
    ("conversation", "/v1/conversations/{conversation}"),
    ("messages", "/v1/conversations/{conversation}/messages"),
    ("contacts", "/v1/contacts"),
    ("contacts_of_address", "/v1/contacts?address={address}"),
    ("contact", "/v1/contacts/{contact}"),
];
/// Of one measurement, and how many read at once.
const TIME: Duration = Duration::from_secs(1);
const READERS: usize = 8;

/// Some of a store, from all over it.
pub struct Samples(Vec<Sample>);

struct Sample {
    conversation: String,
    contact: String,
    ticket: String,
    address: String,
}

/// What reading came to.
pub struct Answers {
    pub count: f64,
    pub seconds: f64,
}

impl Samples {
    /// Of the copies: those that are newer come and go.
    pub async fn of(database: &Database) -> Result<Self> {
        let mut connection = database.connect().await?;
        let found: Vec<(String, String, String, String)> = sqlx::query_as(
            "SELECT c.id, k.id, t.number, k.address
             FROM conversations AS c JOIN contacts AS k ON k.id = c.contact_id JOIN tickets AS t ON t.id = c.ticket_id
             WHERE k.address LIKE 'cknown-%' ORDER BY md5(c.id) LIMIT 1000",
        )
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        let sample = |(conversation, contact, ticket, address)| Sample {
            conversation,
            contact,
            ticket,
            address,
        };
        Ok(Self(found.into_iter().map(sample).collect()))
    }

    /// One path for each.
    pub fn paths(&self, path: &str) -> Vec<String> {
        let of = |sample: &Sample| {
            path.replace("{conversation}", &sample.conversation)
                .replace("{contact}", &sample.contact)
                .replace("{ticket}", &sample.ticket)
                .replace("{address}", &sample.address)
        };
        self.0.iter().map(of).collect()
    }
}

/// Reads these again and again for a while, after a first time that does not count.
pub async fn read(desk: SocketAddr, token: &str, paths: &[String]) -> Result<Answers> {
    let client = reqwest::Client::new();
    let paths: Arc<[String]> = paths.into();
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now() + TIME / 4;
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (client, token, paths, next) = (client.clone(), token.to_owned(), paths.clone(), next.clone());
        readers.spawn(async move {
            let mut count = 0.0;
            while Instant::now() < began + TIME {
                let path = &paths[next.fetch_add(1, Ordering::Relaxed) % paths.len()];
                let answer = client
                    .get(format!("http://{desk}{path}"))
                    .bearer_auth(&token)
                    .send()
                    .await?;
                let body = answer.error_for_status()?.bytes().await?;
                ensure!(!body.is_empty(), "nothing at {path}");
                if Instant::now() > began {
                    count += 1.0;
                }
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0.0;
    while let Some(reader) = readers.join_next().await {
        count += reader.context("a reader panicked")??;
    }
    Ok(Answers {
        count,
        seconds: TIME.as_secs_f64(),
    })
}
