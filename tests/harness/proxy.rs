//! A TCP proxy, for networks that fail: everything passes, nobody is let in, bytes
//! get stuck, or they crawl.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

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
    accepting: JoinHandle<()>,
}

/// Proxies before all servers of a kind, in the same weather.
pub struct Proxies(Vec<Proxy>);

/// Another process may have the port for a moment.
const BIND_AGAIN: Duration = Duration::from_millis(20);

impl Proxy {
    /// Listens at `port` and passes on to `to`, both on loopback.
    pub async fn start(port: u16, to: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("the proxy")?;
        let (weather, seen) = watch::channel(Weather::Clear);
        let accepting = tokio::spawn(accept(listener, port, to, seen));
        Ok(Self { weather, accepting })
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
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

async fn accept(first: TcpListener, port: u16, to: u16, mut weather: watch::Receiver<Weather>) {
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
                tokio::spawn(pass(client, to, weather.clone()));
            },
        }
    }
}

async fn pass(client: TcpStream, to: u16, weather: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whichever ends first ends both.
    tokio::select! {
        () = copy(from_client, to_server, weather.clone()) => {}
        () = copy(from_server, to_client, weather.clone()) => {}
        () = until_refused(weather) => {}
    }
}

async fn until_refused(mut weather: watch::Receiver<Weather>) {
    let _ = weather.wait_for(|weather| *weather == Weather::Refusing).await;
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        let _ = weather.wait_for(|weather| *weather != Weather::Hole).await;
        let now = *weather.borrow();
        if let Weather::Slow(pause) = now {
            tokio::time::sleep(pause).await;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
