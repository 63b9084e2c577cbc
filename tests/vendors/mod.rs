//! Small servers that speak the vendors' documented protocols: they check what we
//! send, refuse what the vendor would refuse, and can be told to fail. Each vendor
//! is a folder; what they share is how they listen and their moods.

pub mod line;
pub mod meta;
pub mod slack;
pub mod telegram;
pub mod twilio;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::task::JoinHandle;

/// How a vendor takes a request, instead of as it should be taken.
#[derive(Clone, Debug)]
pub enum Mood {
    /// Answers this, and does nothing.
    Fails(u16),
    /// 429, and when to come again.
    Busy { retry_after_s: u64 },
    /// Does what it is asked, and never answers.
    Stalls,
    /// Does what it is asked, and breaks the connection in the middle of its answer.
    Breaks,
}

/// The moods for the next requests, the first for the next one; then all is well.
#[derive(Debug, Default)]
pub struct Moods {
    next: Mutex<VecDeque<Mood>>,
}

impl Moods {
    /// The next requests meet these.
    pub fn will(&self, moods: impl IntoIterator<Item = Mood>) {
        lock(&self.next).extend(moods);
    }

    /// What the request that is here now meets.
    pub fn take(&self) -> Option<Mood> {
        lock(&self.next).pop_front()
    }
}

impl Mood {
    /// Its answer with this body; a stalling one never comes.
    pub async fn answer(self, body: String) -> Response {
        let (status, retry_after_s) = match self {
            Self::Fails(status) => (status, None),
            Self::Busy { retry_after_s } => (429, Some(retry_after_s)),
            Self::Stalls => std::future::pending().await,
            Self::Breaks => return broken(),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        if let Some(seconds) = retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Promises more than it gives.
fn broken() -> Response {
    let piece: std::io::Result<&'static [u8]> = Err(std::io::ErrorKind::BrokenPipe.into());
    Response::new(Body::from_stream(futures_util::stream::iter([piece])))
}

/// A server on loopback, until it is dropped.
pub struct Listening(JoinHandle<()>);

impl Listening {
    /// Serves these routes at this port.
    pub async fn at(port: u16, routes: Router) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        Ok(Self(tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        })))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Vendors give up after about this long.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What a panic left behind is good enough for a test.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
