//! The database goes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::given::{TOPIC, advance, arrival, message_id};
use crate::apply::Outcome;
use crate::testing::Database;
use crate::{Error, Store};

/// A wire to PostgreSQL that can be cut.
struct Wire {
    url: String,
    /// Passes the next COMMIT on, and then cuts before its answer.
    cuts_at_commit: Arc<AtomicBool>,
    /// Cuts all there is and takes nothing new.
    is_down: Arc<AtomicBool>,
    /// Swallows what the server says.
    is_silent: Arc<AtomicBool>,
}

impl Wire {
    async fn to(database: &Database) -> Self {
        let (head, tail) = database.url.split_once("@").unwrap();
        let (server, name) = tail.split_once('/').unwrap();
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{head}@{}/{name}", listener.local_addr().unwrap());
        let cuts_at_commit = Arc::new(AtomicBool::new(false));
        let is_down = Arc::new(AtomicBool::new(false));
        let is_silent = Arc::new(AtomicBool::new(false));
        let (cut, down, silent) = (cuts_at_commit.clone(), is_down.clone(), is_silent.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), cut.clone(), down.clone(), silent.clone()));
            }
        });
        Self {
            url,
            cuts_at_commit,
            is_down,
            is_silent,
        }
    }
}

async fn carry(
    mut client: TcpStream,
    server: String,
    cuts_at_commit: Arc<AtomicBool>,
    is_down: Arc<AtomicBool>,
    is_silent: Arc<AtomicBool>,
) {
    if is_down.load(Ordering::SeqCst) {
        return;
    }
    let mut server = TcpStream::connect(server).await.unwrap();
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let read = read.unwrap_or(0);
                if read == 0 || server.write_all(&up[..read]).await.is_err() {
                    return;
                }
                let is_commit = up[..read].windows(6).any(|window| window == b"COMMIT");
                if is_commit && cuts_at_commit.swap(false, Ordering::SeqCst) {
                    // The server has done it once it answers.
                    let _ = server.read(&mut down).await;
                    return;
                }
            }
            read = server.read(&mut down) => {
                let read = read.unwrap_or(0);
                if read > 0 && is_silent.load(Ordering::SeqCst) {
                    continue;
                }
                if read == 0 || client.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
            () = until(&is_down) => return,
        }
    }
}

async fn until(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_settled() {
    let database = Database::postgres().await;
    database.store().await;
    let wire = Wire::to(&database).await;
    let store = Store::open(&wire.url).await.unwrap();

    wire.cuts_at_commit.store(true, Ordering::SeqCst);
    let outcome = store.apply(&advance(0, 0, 1), &arrival(1)).await.unwrap();
    assert_eq!(outcome, Outcome::Applied);
    assert!(!wire.cuts_at_commit.load(Ordering::SeqCst));
    assert_eq!(store.offsets(TOPIC).await.unwrap(), [(0, 1)]);
    assert!(store.message(&message_id(1)).await.unwrap().is_some());

    wire.cuts_at_commit.store(true, Ordering::SeqCst);
    assert_eq!(store.commit(&arrival(2)).await.unwrap(), Outcome::Applied);
    assert!(!wire.cuts_at_commit.load(Ordering::SeqCst));
    assert_eq!(store.commit(&arrival(2)).await.unwrap(), Outcome::Stale);
    database.drop_database().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_unavailable_until_it_is_back() {
    let database = Database::postgres().await;
    database.store().await;
    let wire = Wire::to(&database).await;
    let store = Store::open(&wire.url).await.unwrap();
    let period = Duration::from_secs(1);
    let lease = store.hold_lease("relay", "a", period).await;
    store.apply(&advance(0, 0, 1), &arrival(1)).await.unwrap();

    wire.is_down.store(true, Ordering::SeqCst);
    let outcome = store.apply(&advance(0, 1, 2), &arrival(2)).await;
    assert!(matches!(outcome, Err(Error::Unavailable { .. })), "{outcome:?}");
    // Nobody can write its beat: whoever held it must stop.
    tokio::time::timeout(period * 10, lease.lost.cancelled()).await.unwrap();

    wire.is_down.store(false, Ordering::SeqCst);
    let outcome = store.apply(&advance(0, 1, 2), &arrival(2)).await.unwrap();
    assert_eq!(outcome, Outcome::Applied);
    let next = tokio::time::timeout(Duration::from_secs(20), store.hold_lease("relay", "b", period));
    assert_eq!(next.await.unwrap().fence, lease.fence + 1);
    database.drop_database().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_given_up() {
    let database = Database::postgres().await;
    database.store().await;
    let wire = Wire::to(&database).await;
    let mut store = Store::open(&wire.url).await.unwrap();
    store.apply(&advance(0, 0, 1), &arrival(1)).await.unwrap();

    store.patience = Duration::from_secs(1);
    wire.is_silent.store(true, Ordering::SeqCst);
    let outcome = store.apply(&advance(0, 1, 2), &arrival(2)).await;
    assert!(matches!(outcome, Err(Error::Unavailable { .. })), "{outcome:?}");
    // Its connections are not used again.
    wire.is_silent.store(false, Ordering::SeqCst);
    store.patience = Duration::from_secs(30);
    for offset in 1..20 {
        let outcome = store
            .apply(&advance(0, offset, offset + 1), &arrival(offset as u64 + 1))
            .await;
        assert_eq!(outcome.unwrap(), Outcome::Applied);
    }
    database.drop_database().await;
}
