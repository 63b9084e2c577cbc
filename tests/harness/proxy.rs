//! A TCP proxy, for networks that fail: everything passes, nobody is let in, bytes
//! get stuck, or they crawl; and one answer can be caught half given.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::vendors::lock;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// Connections are cut, and new ones refused.
    Refusing,
    /// What is sent does not arrive, and nobody is told; it arrives when the weather
    /// clears, as TCP sends it again.
    Hole,
    /// So long for every piece.
    Slow(Duration),
}

/// A proxy before one server, until it is dropped.
pub struct Proxy {
    weather: watch::Sender<Weather>,
    trap: Trap,
    accepting: JoinHandle<()>,
}

/// Proxies before all servers of a kind, in the same weather.
pub struct Proxies(Vec<Proxy>);

/// An answer of which half has passed. Dropped, its connection is cut there.
pub struct Caught {
    /// What stands in it before the words that it was caught by.
    pub before: Vec<u8>,
    rest: oneshot::Sender<()>,
}

/// What waits for the words of an answer.
type Trap = Arc<Mutex<Option<(&'static [u8], oneshot::Sender<Caught>)>>>;

/// Another process may have the port for a moment.
const BIND_AGAIN: Duration = Duration::from_millis(20);

impl Proxy {
    /// Listens at `port` and passes on to `to`, both on loopback.
    pub async fn start(port: u16, to: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("the proxy")?;
        let (weather, seen) = watch::channel(Weather::Clear);
        let trap = Trap::default();
        let accepting = tokio::spawn(accept(listener, port, to, seen, trap.clone()));
        Ok(Self {
            weather,
            trap,
            accepting,
        })
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// The server's next answer in which these words stand, as soon as half of what
    /// follows them has passed; `None` if there is none in time.
    pub async fn catch(&self, words: &'static [u8], within: Duration) -> Option<Caught> {
        let (sender, caught) = oneshot::channel();
        *lock(&self.trap) = Some((words, sender));
        let caught = tokio::time::timeout(within, caught).await;
        *lock(&self.trap) = None;
        caught.ok()?.ok()
    }
}

impl Caught {
    /// Lets the rest of it pass.
    pub fn go_on(self) {
        let _ = self.rest.send(());
    }
}

impl Proxies {
    /// One for each pair of ports: where it listens, and where it passes on to.
    pub async fn start(ports: impl IntoIterator<Item = (u16, u16)>) -> Result<Self> {
        let proxies = ports.into_iter().map(|(port, to)| Proxy::start(port, to));
        Ok(Self(futures_util::future::try_join_all(proxies).await?))
    }

    pub fn set(&self, weather: Weather) {
        for proxy in &self.0 {
            proxy.set(weather);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(first: TcpListener, port: u16, to: u16, mut weather: watch::Receiver<Weather>, trap: Trap) {
    let mut listener = Some(first);
    loop {
        if *weather.borrow_and_update() == Weather::Refusing {
            listener = None;
            if weather.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(open) = &listener else {
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(bound) => listener = Some(bound),
                Err(error) if error.kind() == ErrorKind::AddrInUse => tokio::time::sleep(BIND_AGAIN).await,
                Err(_) => return,
            }
            continue;
        };
        tokio::select! {
            changed = weather.changed() => if changed.is_err() { return },
            accepted = open.accept() => if let Ok((client, _)) = accepted {
                tokio::spawn(pass(client, to, weather.clone(), trap.clone()));
            },
        }
    }
}

async fn pass(client: TcpStream, to: u16, weather: watch::Receiver<Weather>, trap: Trap) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let no_trap = Trap::default();
    // Whichever ends first ends both.
    tokio::select! {
        () = copy(from_client, to_server, weather.clone(), &no_trap) => {}
        () = copy(from_server, to_client, weather.clone(), &trap) => {}
        () = until_refused(weather) => {}
    }
}

async fn until_refused(mut weather: watch::Receiver<Weather>) {
    let _ = weather.wait_for(|weather| *weather == Weather::Refusing).await;
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>, trap: &Trap) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        let _ = weather.wait_for(|weather| *weather != Weather::Hole).await;
        let now = *weather.borrow();
        if let Weather::Slow(pause) = now {
            tokio::time::sleep(pause).await;
        }
        let mut passing = &buffer[..count];
        if let Some((words_at, sender)) = sprung(trap, passing) {
            let (half, rest) = passing.split_at(words_at + (count - words_at) / 2);
            let (go_on, going_on) = oneshot::channel();
            let caught = Caught {
                before: passing[..words_at].to_vec(),
                rest: go_on,
            };
            if to.write_all(half).await.is_err() || sender.send(caught).is_err() || going_on.await.is_err() {
                return;
            }
            passing = rest;
        }
        if count == 0 || to.write_all(passing).await.is_err() {
            return;
        }
    }
}

/// Where the words that somebody waits for begin, and who waits.
fn sprung(trap: &Trap, bytes: &[u8]) -> Option<(usize, oneshot::Sender<Caught>)> {
    let mut trap = lock(trap);
    let (words, _) = trap.as_ref()?;
    let at = bytes.windows(words.len()).position(|found| found == *words)?;
    trap.take().map(|(_, sender)| (at, sender))
}
