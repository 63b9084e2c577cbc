//! A visitor's client: the protocol of `services/channels/src/chat/README.md`, spoken
//! with a WebSocket library of its own and nothing of ours.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::settings::SITE_SECRET;

/// For one frame.
const PATIENCE: Duration = Duration::from_secs(20);

/// One socket.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What `hello` gave.
    pub session: String,
}

/// How a socket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// 1006: without a close frame.
    pub code: u16,
    pub reason: String,
}

/// What came.
#[derive(Clone, Debug)]
pub enum Heard {
    Frame(Value),
    Closed(Closed),
}

impl Socket {
    /// Opens a socket at this gateway, without a word yet.
    pub async fn open(public: &str, account: &str, origin: Option<&str>) -> Result<Self> {
        let url = format!("{}/chat/{account}", public.replacen("http", "ws", 1));
        let mut request = url.into_client_request()?;
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse()?);
        }
        let (stream, _) = tokio::time::timeout(PATIENCE, connect_async(request)).await??;
        Ok(Self {
            stream,
            session: String::new(),
        })
    }

    /// A visitor at this gateway: somebody new, or the one of this session.
    pub async fn visit(public: &str, account: &str, session: Option<&str>) -> Result<Self> {
        let mut socket = Self::open(public, account, None).await?;
        let mut hello = json!({ "type": "hello" });
        if let Some(session) = session {
            hello["session"] = session.into();
        }
        socket.hello(&hello).await?;
        Ok(socket)
    }

    /// Says this `hello`, which must be answered.
    pub async fn hello(&mut self, hello: &Value) -> Result<Value> {
        self.say(hello).await?;
        let answer = self.frame("hello").await?;
        self.session = answer["session"].as_str().context("no session")?.to_owned();
        Ok(answer)
    }

    /// Says a frame.
    pub async fn say(&mut self, frame: &Value) -> Result<()> {
        self.stream.send(Message::text(frame.to_string())).await?;
        Ok(())
    }

    /// Sends a message and waits for its acknowledgement.
    pub async fn send(&mut self, id: &str, text: &str) -> Result<String> {
        self.say(&json!({ "type": "send", "id": id, "text": text })).await?;
        let ack = self.frame("ack").await?;
        ensure!(ack["id"] == id, "another was acknowledged: {ack}");
        Ok(ack["message_id"].as_str().context("no message_id")?.to_owned())
    }

    /// Asks for all that comes after this place; the answer, `resume` or `gone`.
    pub async fn resume(&mut self, place: Option<(i64, i64)>) -> Result<Value> {
        let mut resume = json!({ "type": "resume" });
        if let Some((epoch, sequence)) = place {
            resume["epoch"] = epoch.into();
            resume["sequence"] = sequence.into();
        }
        self.say(&resume).await?;
        loop {
            match self.next().await? {
                Heard::Frame(frame) if frame["type"] == "resume" || frame["type"] == "gone" => return Ok(frame),
                Heard::Frame(_) => {}
                Heard::Closed(closed) => bail!("closed: {closed:?}"),
            }
        }
    }

    /// The next frame of this type; others are passed over.
    pub async fn frame(&mut self, kind: &str) -> Result<Value> {
        loop {
            match self.next().await.with_context(|| format!("waiting for {kind}"))? {
                Heard::Frame(frame) if frame["type"] == kind => return Ok(frame),
                Heard::Frame(frame) if frame["type"] == "error" => bail!("waiting for {kind}: {frame}"),
                Heard::Frame(_) => {}
                Heard::Closed(closed) => bail!("waiting for {kind}, closed: {closed:?}"),
            }
        }
    }

    /// The close frame, which must come; frames before it are passed over.
    pub async fn closed(&mut self) -> Result<Closed> {
        loop {
            if let Heard::Closed(closed) = self.next().await? {
                return Ok(closed);
            }
        }
    }

    /// Whatever comes next.
    pub async fn next(&mut self) -> Result<Heard> {
        loop {
            let heard = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            return Ok(match heard.context("nothing came")? {
                Some(Ok(Message::Text(text))) => Heard::Frame(serde_json::from_str(&text)?),
                Some(Ok(Message::Close(frame))) => Heard::Closed(Closed {
                    code: frame.as_ref().map_or(1005, |frame| u16::from(frame.code)),
                    reason: frame.map(|frame| frame.reason.to_string()).unwrap_or_default(),
                }),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => Heard::Closed(Closed {
                    code: u16::from(CloseCode::Abnormal),
                    reason: String::new(),
                }),
            });
        }
    }

    /// Goes without a word, as a lost connection does.
    pub fn vanish(self) -> String {
        self.session
    }
}

/// How the site of the chats vouches for its user with these claims.
pub fn jwt(claims: &Value) -> String {
    jwt_by(SITE_SECRET, claims)
}

/// HS256, by hand.
pub fn jwt_by(secret: &str, claims: &Value) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let mac = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}
