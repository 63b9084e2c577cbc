//! What a socket and its greeting say and hear: frames, and how a socket ends.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;
use tungstenite::error::{CapacityError, ProtocolError};

use super::frame::{Close, Malformed, Saying};

/// A client that takes longer to take a frame is let go.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// For the other side to close as well.
const CLOSING: Duration = Duration::from_secs(1);
/// Frames that come after the end and are thrown away.
const LINGER_FRAMES: usize = 4_096;
/// Wrong frames until the socket ends.
const MAX_MALFORMED: u32 = 10;
/// Clients come back spread over so long after a stop.
const RETURN_WITHIN_MS: u64 = 10_000;

/// Why a socket ended.
pub(super) enum End {
    /// The connection is lost.
    Gone,
    /// The other side closed it.
    Closed,
    /// We close it.
    Close(Close),
}

/// The text of a frame; `None` for pings and pongs, which are answered already.
pub(super) fn text_of(heard: Option<Result<Message, axum::Error>>) -> Result<Option<Utf8Bytes>, End> {
    match heard {
        None => Err(End::Gone),
        Some(Ok(Message::Close(_))) => Err(End::Closed),
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Ok(Message::Binary(_))) => Err(End::Close(Close::Binary)),
        Some(Err(error)) => Err(broken(error)),
    }
}

pub(super) async fn complain(websocket: &mut WebSocket, wrong: &Malformed, count: u32) -> Result<(), End> {
    let saying = Saying::Error {
        code: "malformed",
        detail: &wrong.detail,
        id: wrong.id.as_deref(),
        retry_after_ms: None,
    };
    write(websocket, &saying).await?;
    match count > MAX_MALFORMED {
        true => Err(End::Close(Close::Malformed)),
        false => Ok(()),
    }
}

pub(super) async fn write(websocket: &mut WebSocket, saying: &Saying<'_>) -> Result<(), End> {
    write_text(websocket, saying.text()).await
}

pub(super) async fn write_text(websocket: &mut WebSocket, text: String) -> Result<(), End> {
    write_frame(websocket, Message::text(text)).await
}

pub(super) async fn write_frame(websocket: &mut WebSocket, message: Message) -> Result<(), End> {
    match timeout(PATIENCE, websocket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Close(Close::NotReading)),
    }
}

/// Says why, and waits a moment for the other side, so that the words arrive before
/// the connection ends.
pub(super) async fn say_goodbye(websocket: &mut WebSocket, close: Close) {
    let frame = CloseFrame {
        code: close.code(),
        reason: close.reason().into(),
    };
    // Who does not read what we write is not waited for.
    let sent = timeout(CLOSING, websocket.send(Message::Close(Some(frame)))).await;
    if matches!(sent, Ok(Ok(()))) {
        linger(websocket).await;
    }
}

/// Every client gets a time of its own to come back at.
pub(super) fn restart() -> Close {
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    Close::Restart {
        after_ms: random % RETURN_WITHIN_MS,
    }
}

fn broken(error: axum::Error) -> End {
    let error = error.into_inner();
    match error.downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => End::Gone,
        Some(tungstenite::Error::Protocol(_)) => End::Close(Close::Protocol),
        Some(tungstenite::Error::Utf8(_)) => End::Close(Close::NotUtf8),
        Some(tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. })) => End::Close(Close::TooLarge),
        _ => End::Gone,
    }
}

/// Reads on until the other side has closed as well: a connection that is dropped
/// with something unread takes our last words with it.
pub(super) async fn linger(websocket: &mut WebSocket) {
    let rest = async {
        for _ in 0..LINGER_FRAMES {
            if websocket.recv().await.is_none() {
                break;
            }
        }
    };
    let _ = timeout(CLOSING, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_gets_a_time_of_its_own_to_come_back() {
        let times: std::collections::BTreeSet<u64> = (0..100)
            .map(|_| match restart() {
                Close::Restart { after_ms } => after_ms,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(times.len() > 50 && times.iter().all(|after_ms| *after_ms < RETURN_WITHIN_MS));
    }
}
