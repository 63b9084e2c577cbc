//! The tasks of the process: started here, stopped by one token, waited for until
//! the last has ended. Nothing is spawned and forgotten.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::listener;

/// From the stop until tasks that still run are cut off. With what the bus and
/// the store need afterwards it stays under the ten seconds that a stop may take.
const GRACE: Duration = Duration::from_secs(5);

/// The tasks of the process: when one ends with a fault, all end.
pub struct Tasks {
    running: JoinSet<(&'static str, Result<()>)>,
    /// Ends all of them.
    pub stop: CancellationToken,
}

impl Tasks {
    /// None yet.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            running: JoinSet::new(),
            stop,
        }
    }

    /// Starts a task; `name` is for the log.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.running.spawn(async move { (name, task.await) });
    }

    /// Serves a listener.
    pub fn listen(&mut self, name: &'static str, listener: TcpListener, routes: axum::Router) {
        self.spawn(name, listener::serve(name, listener, routes, self.stop.clone()));
    }

    /// Waits for the end of all: after the stop, which comes from outside or from
    /// the first fault.
    pub async fn finish(mut self) -> Result<()> {
        let mut fault = None;
        let stop = self.stop.clone();
        let too_late = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::pin!(too_late);
        loop {
            let ended = tokio::select! {
                ended = self.running.join_next() => ended,
                () = &mut too_late => {
                    tracing::warn!(tasks = self.running.len(), "some tasks did not stop in time and are cut off");
                    self.running.shutdown().await;
                    None
                }
            };
            let error = match ended {
                None => break,
                Some(Ok((name, Ok(())))) if self.stop.is_cancelled() => {
                    tracing::debug!(task = name, "ended");
                    continue;
                }
                Some(Ok((name, Ok(())))) => anyhow::anyhow!("{name} ended though nobody stopped it"),
                Some(Ok((name, Err(error)))) => error.context(name),
                Some(Err(error)) => anyhow::Error::new(error).context("a task broke"),
            };
            let chain = format!("{error:#}");
            tracing::error!(error = chain, "stopping because of a fault");
            fault.get_or_insert(error);
            self.stop.cancel();
        }
        fault.map_or(Ok(()), Err)
    }
}

/// The first signal stops in order, the second at once.
pub async fn watch_signals(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals");
        return;
    };
    for is_second in [false, true] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if is_second {
            std::process::exit(1);
        }
        tracing::info!("stopping; a second signal stops at once");
        stop.cancel();
    }
}
