//! `tributary chat`: a visitor's chat in a terminal, through the public door. Lines
//! of the standard input are sent, and what the conversation shows is printed. The
//! session lies in a file, so that the next start goes on where this one ended.

use std::io::BufRead;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

use super::plain;
use crate::settings::Settings;

/// Between attempts to connect, doubling; half of it is chance.
const PAUSE_MS: (u64, u64) = (500, 15_000);
/// For what was said last to be acknowledged after the end of the input.
const FAREWELL: Duration = Duration::from_secs(15);
/// We ask whether the server is there.
const PING_EVERY: Duration = Duration::from_secs(25);

#[derive(Debug, Args)]
pub struct Arguments {
    /// The public listener; else as the settings say
    #[arg(long)]
    url: Option<String>,
    /// With which account
    #[arg(long, default_value = "chat")]
    account: String,
    /// Where the session is kept; else chat-ACCOUNT.json in the data folder
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
    /// What to call you
    #[arg(long)]
    name: Option<String>,
    /// Where you can be answered after you have left
    #[arg(long)]
    email: Option<String>,
    /// The site's token of its user, instead of a session of your own
    #[arg(long)]
    jwt: Option<String>,
    /// Goes on showing answers after the end of the input
    #[arg(long)]
    stay: bool,
}

/// What is kept between starts.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    session: Option<String>,
    place: Option<(i64, i64)>,
    /// Said and not acknowledged.
    unsent: Vec<(String, String)>,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Client<'a> {
    arguments: &'a Arguments,
    url: String,
    file: PathBuf,
    kept: Kept,
    lines: mpsc::Receiver<String>,
    has_ended: bool,
}

/// Why a socket is left.
enum Left {
    /// All is said.
    Done,
    /// To come again, after so long if we were told.
    Again(Option<Duration>),
}

/// Talks until the input ends, or until it is stopped.
pub async fn run(arguments: &Arguments, settings: Settings) -> Result<()> {
    let base = arguments.url.clone().unwrap_or_else(|| settings.public_url());
    ensure!(base.starts_with("http"), "--url must begin with http:// or https://");
    let name = format!("chat-{}.json", arguments.account);
    let file = arguments.session.clone().unwrap_or_else(|| settings.in_data(&name));
    let mut client = Client {
        arguments,
        url: format!(
            "{}/chat/{}",
            base.trim_end_matches('/').replacen("http", "ws", 1),
            arguments.account
        ),
        kept: Kept::read(&file)?,
        file,
        lines: lines(),
        has_ended: false,
    };
    let mut pause_ms = PAUSE_MS.0;
    loop {
        let after = match client.talk().await {
            Ok(Left::Done) => return Ok(()),
            Ok(Left::Again(after)) => after,
            Err(error) if error.downcast_ref::<tokio_tungstenite::tungstenite::Error>().is_some() => None,
            Err(error) => return Err(error),
        };
        let chance = Uuid::new_v4().as_u64_pair().0 % (pause_ms / 2 + 1);
        let pause = after.unwrap_or(Duration::from_millis(pause_ms / 2 + chance));
        pause_ms = (pause_ms * 2).min(PAUSE_MS.1);
        super::print(&format!("* not connected, coming back in {:.1} s", pause.as_secs_f32()))?;
        tokio::time::sleep(pause).await;
    }
}

/// Standard input blocks, so a thread reads it; the process does not wait for it.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

impl Client<'_> {
    /// One socket, from its opening to its end.
    async fn talk(&mut self) -> Result<Left> {
        let (mut socket, _) = connect_async(self.url.as_str()).await?;
        let mut form = serde_json::Map::new();
        for (field, value) in [("name", &self.arguments.name), ("email", &self.arguments.email)] {
            if let Some(value) = value {
                form.insert(field.to_owned(), value.as_str().into());
            }
        }
        let hello = json!({ "type": "hello", "session": self.kept.session, "jwt": self.arguments.jwt, "form": form });
        say(&mut socket, &hello).await?;
        let mut pings = tokio::time::interval(PING_EVERY);
        let mut farewell = std::pin::pin!(tokio::time::sleep(Duration::MAX));
        loop {
            if self.has_ended && self.kept.unsent.is_empty() && !self.arguments.stay {
                socket.close(None).await?;
                return Ok(Left::Done);
            }
            tokio::select! {
                heard = socket.next() => match heard {
                    Some(Ok(Message::Text(text))) => self.hear(&mut socket, &serde_json::from_str(&text)?).await?,
                    Some(Ok(Message::Close(frame))) => return left(frame),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(Left::Again(None)),
                },
                line = self.lines.recv(), if !self.has_ended => match line {
                    Some(line) if line.trim().is_empty() => {}
                    Some(line) => self.send(&mut socket, line).await?,
                    None => {
                        self.has_ended = true;
                        farewell.as_mut().reset(tokio::time::Instant::now() + FAREWELL);
                    }
                },
                _ = pings.tick() => say(&mut socket, &json!({ "type": "ping" })).await?,
                () = &mut farewell, if self.has_ended && !self.arguments.stay => {
                    bail!("{} messages were not acknowledged; they are kept in {}", self.kept.unsent.len(), self.file.display());
                }
            }
        }
    }

    /// Kept before it is said: whatever happens, it will be said, and count once.
    async fn send(&mut self, socket: &mut Socket, text: String) -> Result<()> {
        let id = Uuid::new_v4().simple().to_string();
        let said = json!({ "type": "send", "id": id, "text": text });
        self.kept.unsent.push((id, text));
        self.kept.write(&self.file)?;
        say(socket, &said).await
    }

    async fn hear(&mut self, socket: &mut Socket, frame: &Value) -> Result<()> {
        match frame["type"].as_str().unwrap_or_default() {
            "hello" => {
                self.kept.session = frame["session"].as_str().map(str::to_owned);
                self.kept.write(&self.file)?;
                if let Some(text) = frame["text"].as_str() {
                    super::print(&format!("* {}", plain(text)))?;
                }
                let resume = match self.kept.place {
                    Some((epoch, sequence)) => json!({ "type": "resume", "epoch": epoch, "sequence": sequence }),
                    None => json!({ "type": "resume" }),
                };
                say(socket, &resume).await?;
                for (id, text) in &self.kept.unsent {
                    say(socket, &json!({ "type": "send", "id": id, "text": text })).await?;
                }
            }
            "message" => {
                let (epoch, sequence) = (frame["epoch"].as_i64(), frame["sequence"].as_i64());
                self.kept.place = epoch.zip(sequence);
                self.kept.write(&self.file)?;
                show(frame)?;
                if frame["from"] != "visitor" {
                    say(socket, &json!({ "type": "read", "sequence": sequence })).await?;
                }
            }
            "ack" => {
                let id = frame["id"].as_str().unwrap_or_default();
                self.kept.unsent.retain(|(unsent, _)| unsent != id);
                self.kept.write(&self.file)?;
            }
            "gone" => {
                self.kept.place = None;
                self.kept.write(&self.file)?;
                super::print("* what was said before is gone")?;
            }
            "typing" => super::print("* …")?,
            "error" => {
                super::print(&format!("* {}", plain(frame["detail"].as_str().unwrap_or_default())))?;
                // Said again, it would be refused again.
                if frame["code"] == "malformed" || frame["code"] == "form_needed" {
                    let id = frame["id"].as_str().unwrap_or_default();
                    self.kept.unsent.retain(|(unsent, _)| unsent != id);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn show(frame: &Value) -> Result<()> {
    let text = frame["text"].as_str().unwrap_or_default();
    let from = frame["from"].as_str().unwrap_or_default();
    super::print(&format!("{from}: {}", plain(text)))?;
    for file in frame["files"].as_array().into_iter().flatten() {
        let (name, url) = (file["name"].as_str(), file["url"].as_str());
        super::print(&format!(
            "  {} {}",
            plain(name.unwrap_or_default()),
            plain(url.unwrap_or_default())
        ))?;
    }
    Ok(())
}

async fn say(socket: &mut Socket, frame: &Value) -> Result<()> {
    Ok(socket.send(Message::text(frame.to_string())).await?)
}

/// What a close frame asks us to do.
fn left(frame: Option<CloseFrame>) -> Result<Left> {
    let Some(frame) = frame else {
        return Ok(Left::Again(None));
    };
    let reason: Value = serde_json::from_str(&frame.reason).unwrap_or_default();
    let after = reason["retry_after_ms"].as_u64().map(Duration::from_millis);
    match u16::from(frame.code) {
        code @ (4400 | 4401 | 4403) => {
            let detail = reason["detail"].as_str().or(reason["code"].as_str());
            bail!("the chat was closed: {} ({code})", plain(detail.unwrap_or("no reason")))
        }
        _ => Ok(Left::Again(after)),
    }
}

impl Kept {
    fn read(file: &Path) -> Result<Self> {
        match std::fs::read(file) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{} is no session; remove it", file.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// For nobody else's eyes: the session is the visitor.
    fn write(&self, file: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let new = file.with_extension("new");
            let mut options = std::fs::OpenOptions::new();
            let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            serde_json::to_writer(&opened, self)?;
            opened.sync_all()?;
            std::fs::rename(&new, file)
        };
        write().with_context(|| format!("cannot write {}", file.display()))
    }
}
