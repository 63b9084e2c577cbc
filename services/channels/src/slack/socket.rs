//! Socket Mode (<https://docs.slack.dev/apis/events-api/using-socket-mode>): Slack
//! tells over a socket that we open what it would else post, and tells it again
//! unless we acknowledge in time. The lease sees to it that one worker listens.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::Slack;
use crate::channel::{Input, PullError};
use crate::gateway::parse_caught;
use crate::pull::Source;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// For the handshakes, and for each frame of ours.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long nothing may come before we ask whether somebody is there; Slack itself
/// pings more often.
const PING_EVERY: Duration = Duration::from_secs(20);
/// So many questions stay unanswered.
const MAX_SILENT: u32 = 2;
/// So often the account is seen.
const SEEN_EVERY: Duration = Duration::from_secs(30);
/// Of one frame; events have no files in them.
const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// A frame of Slack's.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: String,
    envelope_id: Option<String>,
    reason: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// What to do after a frame.
enum Next {
    Listen,
    /// Slack closes this socket, and wants us to open another.
    Reopen,
}

impl Slack {
    /// Listens at one socket after the other.
    pub(super) async fn read(&self, source: &Source) -> Result<(), PullError> {
        while !source.stop.is_cancelled() {
            let mut socket = self.open().await?;
            let listened = self.listen(&mut socket, source).await;
            let _ = timeout(PATIENCE, socket.close(None)).await;
            listened?;
        }
        Ok(())
    }

    async fn open(&self) -> Result<Socket, PullError> {
        let url = self.api.socket_url().await.map_err(broken)?;
        let stream = self.api.http.connect(&url).await.map_err(broken)?;
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES))
            .max_write_buffer_size(MAX_FRAME_BYTES);
        let opening = client_async_tls_with_config(url.as_str(), stream, Some(limits), None);
        match timeout(PATIENCE, opening).await {
            Ok(Ok((socket, _))) => Ok(socket),
            // Its text has the URL, which is a ticket.
            Ok(Err(_)) => Err(broken("Slack opens no socket")),
            Err(_) => Err(broken("Slack takes too long to open a socket")),
        }
    }

    /// Until Slack wants another socket, or we stop.
    async fn listen(&self, socket: &mut Socket, source: &Source) -> Result<(), PullError> {
        let (mut silent, mut seen_at) = (0, Instant::now());
        loop {
            let heard = tokio::select! {
                () = source.stop.cancelled() => return Ok(()),
                heard = timeout(PING_EVERY, socket.next()) => heard,
            };
            let frame = match heard {
                Ok(Some(Ok(frame))) => frame,
                Ok(_) => return Err(broken("Slack closed the socket")),
                Err(_) if silent == MAX_SILENT => return Err(broken("the socket is silent")),
                Err(_) => {
                    silent += 1;
                    write(socket, Message::Ping(Bytes::new())).await?;
                    continue;
                }
            };
            silent = 0;
            if seen_at.elapsed() >= SEEN_EVERY {
                source.seen(0).await;
                seen_at = Instant::now();
            }
            let text = match frame {
                Message::Text(text) => text,
                Message::Close(_) => return Err(broken("Slack closed the socket")),
                // Pings are answered already.
                _ => continue,
            };
            match self.heard(text.as_str(), socket, source).await? {
                Next::Listen => {}
                Next::Reopen => return Ok(()),
            }
        }
    }

    /// One frame. It is acknowledged when what it says is durable.
    async fn heard(&self, text: &str, socket: &mut Socket, source: &Source) -> Result<Next, PullError> {
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else {
            source
                .park(&input("?", text), "Slack sent a frame that is no envelope")
                .await?;
            return Ok(Next::Listen);
        };
        match (envelope.kind.as_str(), envelope.payload) {
            ("hello", _) => {
                tracing::info!(account.name = source.account, "slack's socket is open");
                // How much waits there nobody says.
                source.seen(0).await;
                return Ok(Next::Listen);
            }
            ("disconnect", _) => return parted(envelope.reason.as_deref().unwrap_or_default()),
            (kind, Some(payload)) => {
                let input = input(kind, payload.get());
                source.accept(&input, async || parse_caught(self, &input)).await?;
            }
            (kind, None) => {
                let reason = "Slack sent a frame of a kind that is not known here";
                source.park(&input(kind, text), reason).await?;
            }
        }
        if let Some(id) = envelope.envelope_id {
            let acknowledged = json!({ "envelope_id": id }).to_string();
            write(socket, Message::Text(acknowledged.into())).await?;
        }
        Ok(Next::Listen)
    }
}

/// Every few hours Slack moves its sockets; anything else is a person's to mend.
fn parted(reason: &str) -> Result<Next, PullError> {
    match reason {
        "warning" | "refresh_requested" => Ok(Next::Reopen),
        "link_disabled" => Err(broken("Socket Mode is switched off in the app's settings")),
        "too_many_websockets" => Err(broken("the app has too many sockets open")),
        _ => Err(broken("Slack ended the socket")),
    }
}

/// As it can be parsed again.
fn input(kind: &str, payload: &str) -> Input {
    Input {
        method: String::new(),
        url: format!("slack-socket:{}", kind.chars().take(40).collect::<String>()),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: Bytes::copy_from_slice(payload.as_bytes()),
        received_at: SystemTime::now().into(),
    }
}

async fn write(socket: &mut Socket, frame: Message) -> Result<(), PullError> {
    match timeout(PATIENCE, socket.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(broken("the socket broke")),
        Err(_) => Err(broken("Slack takes nothing from the socket")),
    }
}

fn broken(reason: impl Into<String>) -> PullError {
    PullError { reason: reason.into() }
}
