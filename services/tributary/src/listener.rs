//! A listener: takes connections, bounds what each may ask of us, and lets what
//! is under way finish when it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// At most so many connections at once on one listener; more wait to be accepted.
const MAX_CONNECTIONS: usize = 12_000;
/// A head (request line and headers) that is larger is answered 431; one that is
/// less than twice as large may slip through, as hyper reads ahead.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// A head that takes longer ends the connection; so does an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests under way may take after the stop.
pub const GRACE: Duration = Duration::from_secs(4);
/// After an `accept` that failed, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes the address, so that a taken port is known before anything else begins.
/// `name` is the listener's section of the settings.
pub async fn bind(name: &'static str, listen: &str) -> Result<TcpListener> {
    TcpListener::bind(listen)
        .await
        .with_context(|| format!("{name}.listen: cannot listen on {listen}"))
}

/// Serves until `stop`, then lets requests finish for [`GRACE`].
pub async fn serve(name: &'static str, listener: TcpListener, routes: Router, stop: CancellationToken) -> Result<()> {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &room) => match accepted {
                Ok((stream, peer, permit)) => {
                    let connection = connection(stream, peer, routes.clone(), HEAD_TIMEOUT, stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(listener = name, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        tracing::warn!(listener = name, "requests under way did not finish in time");
    }
    connections.shutdown().await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room
        .clone()
        .acquire_owned()
        .await
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    let (stream, peer): (TcpStream, SocketAddr) = listener.accept().await?;
    Ok((stream, peer, permit))
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    // Answers are small and complete: waiting for more to send only adds delay.
    let _ = stream.set_nodelay(true);
    // Limits for each address need to know it.
    let routes = TowerToHyperService::new(routes);
    let routes = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), routes)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A listener whose only route says that it was entered, and waits at a gate.
    struct Started {
        address: SocketAddr,
        entered: Arc<Semaphore>,
        gate: Arc<Semaphore>,
        stop: CancellationToken,
        serving: tokio::task::JoinHandle<Result<()>>,
    }

    async fn started() -> Started {
        let listener = bind("public", "127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (entered, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (entering, waiting) = (entered.clone(), gate.clone());
        let wait = move || async move {
            entering.add_permits(1);
            let _ = waiting.acquire().await;
            "done"
        };
        let routes = Router::new().route("/", get(wait));
        let serving = tokio::spawn(serve("public", listener, routes, stop.clone()));
        Started {
            address,
            entered,
            gate,
            stop,
            serving,
        }
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        // A reset after the answer is none of our business.
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn a_request_under_way_finishes_after_the_stop() {
        let server = started().await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let _ = server.entered.acquire().await;
        server.stop.cancel();
        server.gate.add_permits(1);
        assert!(answer(&mut stream).await.ends_with("done"));
        server.serving.await.unwrap().unwrap();
        assert!(TcpStream::connect(server.address).await.is_err());
    }

    #[tokio::test]
    async fn a_large_head_is_refused() {
        let server = started().await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "a".repeat(300_000));
        let _ = stream.write_all(head.as_bytes()).await;
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 431"));
        server.stop.cancel();
        server.serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_sends_no_whole_head_in_time_is_cut_off() {
        let check = async |sent: &[u8], answered: &str| {
            let listener = bind("public", "127.0.0.1:0").await.unwrap();
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, peer) = listener.accept().await.unwrap();
            let routes = Router::new().route("/", get(async || "done"));
            let serving = connection(
                accepted,
                peer,
                routes,
                Duration::from_millis(100),
                CancellationToken::new(),
            );
            stream.write_all(sent).await.unwrap();
            // Without a time-out neither side would come to its end.
            let both = async { tokio::join!(serving, answer(&mut stream)) };
            let ((), found) = tokio::time::timeout(Duration::from_secs(5), both).await.unwrap();
            assert!(found.ends_with(answered), "{found}");
        };
        check(b"", "").await;
        check(b"GET / HTTP/1.1\r\nhost: x\r\n", "").await;
        // Idle after an answer.
        check(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "done").await;
    }

    #[tokio::test]
    async fn a_taken_port_is_named_by_its_setting() {
        let first = bind("desk", "127.0.0.1:0").await.unwrap();
        let taken = first.local_addr().unwrap().to_string();
        let error = format!("{:#}", bind("desk", &taken).await.unwrap_err());
        assert!(
            error.starts_with(&format!("desk.listen: cannot listen on {taken}: ")),
            "{error}"
        );
    }
}
