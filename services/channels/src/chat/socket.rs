//! One socket: from the upgrade to its end.
//!
//! It queues nothing. What the visitor says is taken one frame at a time, and the
//! next is read when the one before is in the log; what the visitor is shown is read
//! from the store piece by piece, and the next piece when the one before was taken.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use governor::DefaultDirectRateLimiter;
use store::live::Piece;
use tokio::time::{Instant, sleep_until, timeout};

use super::frame::{self, Close, Hello, Malformed, Said, Saying};
use super::greeting::{greet, identify, say_hello};
use super::limits::Entry;
use super::session::Visitor;
use super::view::{View, shown};
use super::wire::{End, PATIENCE, complain, linger, restart, say_goodbye, text_of, write, write_frame, write_text};
use super::{Chat, now, parse};
use crate::channel::{Input, Parsed, Unparsed};
use crate::inbox::{Arrival, Inbox};
use crate::live::{Live, Watch};

/// Read ahead of a socket; more is taken when a frame needs it.
pub(super) const BUFFER_BYTES: usize = 1_024;
/// Waiting to be written; more is an error. One message of ours fits.
pub(super) const MAX_WRITE_BYTES: usize = 1024 * 1024;

/// Of silence, then we ask.
const PING_AFTER: Duration = Duration::from_secs(30);
/// Of silence after that, then it is gone.
const PONG_WITHIN: Duration = Duration::from_secs(30);
/// After the store was away.
const RETRY: Duration = Duration::from_secs(1);
/// Messages that are read at once.
const PIECE: i64 = 50;
/// Messages of ours that one `read` may mark.
const MARKED: i64 = 200;

/// What was found where the view stands; nothing, if there is no conversation.
type Read = Result<Option<Piece>, store::Error>;
type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves one socket to its end.
pub(super) async fn serve(chat: Arc<Chat>, live: Live, mut websocket: WebSocket, entry: Result<Entry, Close>) {
    let close = match entry {
        Ok(_) => Box::pin(greet(&chat, &live, &mut websocket)).await,
        Err(close) => Err(End::Close(close)),
    };
    let (end, _entry) = match close {
        Ok(visitor) => {
            let talk = Talk::new(chat.clone(), live.clone(), visitor);
            (talk.run(&mut websocket).await, entry)
        }
        Err(end) => (end, entry),
    };
    match end {
        End::Gone => {}
        // The library has answered; that has to leave.
        End::Closed => Box::pin(linger(&mut websocket)).await,
        End::Close(close) => {
            tracing::debug!(account.name = chat.account, reason = close.name(), "socket closed");
            live.count_closed(&chat.account, close.name());
            Box::pin(say_goodbye(&mut websocket, close)).await;
        }
    }
}

/// A visitor and we.
struct Talk {
    chat: Arc<Chat>,
    live: Live,
    visitor: Box<Visitor>,
    watch: Watch,
    /// Set by `resume`.
    view: Option<View>,
    typing_seen: u32,
    frames: DefaultDirectRateLimiter,
    malformed: u32,
    /// What the visitor said and is not in the log yet.
    taking: Option<Task<Taken>>,
    /// What is to be shown and is not read yet.
    reading: Option<Task<Read>>,
    read_again_at: Option<Instant>,
    heard_at: Instant,
    is_asked: bool,
}

/// What became of what the visitor said.
enum Taken {
    /// In the log; the frame that says so.
    Acknowledged(String),
    Marked,
    Unavailable {
        id: String,
    },
    Fault,
}

/// What happens next.
enum Next {
    Stop,
    Taken(Taken),
    Read(Read),
    Heard(Option<Result<Message, axum::Error>>),
    News,
    Time,
}

impl Talk {
    fn new(chat: Arc<Chat>, live: Live, visitor: Visitor) -> Self {
        let watch = live.watch(&chat.account, &visitor.thread);
        Self {
            frames: chat.limits.of_socket(),
            typing_seen: watch.seen().typing,
            watch,
            chat,
            live,
            visitor: Box::new(visitor),
            view: None,
            malformed: 0,
            taking: None,
            reading: None,
            read_again_at: None,
            heard_at: Instant::now(),
            is_asked: false,
        }
    }

    async fn run(mut self, websocket: &mut WebSocket) -> End {
        if self.watch.viewers() > self.chat.limits.sockets_a_visitor {
            return End::Close(Close::Flood);
        }
        loop {
            let next = self.next(websocket).await;
            let done = match next {
                Next::Stop => return Box::pin(self.leave(websocket)).await,
                Next::Taken(taken) => {
                    self.taking = None;
                    self.answer(websocket, taken).await
                }
                Next::Read(read) => {
                    self.reading = None;
                    Box::pin(self.show(websocket, read)).await
                }
                Next::Heard(heard) => self.hear(websocket, heard).await,
                Next::News => self.tell_news(websocket).await,
                Next::Time => self.look_at_the_clock(websocket).await,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn next(&mut self, websocket: &mut WebSocket) -> Next {
        let quiet_until = self.heard_at
            + if self.is_asked {
                PING_AFTER + PONG_WITHIN
            } else {
                PING_AFTER
            };
        let left_ms = u64::try_from(self.visitor.until - now().as_ms()).unwrap_or(0);
        let expires_at = Instant::now() + Duration::from_millis(left_ms);
        let due = self
            .read_again_at
            .unwrap_or(quiet_until)
            .min(quiet_until)
            .min(expires_at);
        let is_taking = self.taking.is_some();
        tokio::select! {
            () = self.live.stop().cancelled() => Next::Stop,
            taken = of(&mut self.taking) => Next::Taken(taken),
            read = of(&mut self.reading) => Next::Read(read),
            // While one frame is on its way into the log, the next waits at the client.
            heard = websocket.recv(), if !is_taking => Next::Heard(heard),
            () = self.watch.changed() => Next::News,
            () = sleep_until(due) => Next::Time,
        }
    }

    async fn hear(
        &mut self,
        websocket: &mut WebSocket,
        heard: Option<Result<Message, axum::Error>>,
    ) -> Result<(), End> {
        self.heard_at = Instant::now();
        self.is_asked = false;
        if self.frames.check().is_err() {
            return Err(End::Close(Close::Flood));
        }
        let Some(text) = text_of(heard)? else { return Ok(()) };
        match frame::parse(&text) {
            Ok(said) => self.take(websocket, said, text).await,
            Err(wrong) => self.complain(websocket, &wrong).await,
        }
    }

    async fn take(&mut self, websocket: &mut WebSocket, said: Said, text: Utf8Bytes) -> Result<(), End> {
        match said {
            Said::Hello(hello) => self.hello_again(websocket, hello).await,
            Said::Resume { epoch, sequence } => {
                self.view = Some(View {
                    epoch,
                    sequence: sequence.unwrap_or(0),
                    is_answered: false,
                });
                self.read();
                Ok(())
            }
            Said::Send { id, text: said, files } => self.send(websocket, id, (said, files), text).await,
            Said::Typing {} => {
                self.watch.tell_typing();
                Ok(())
            }
            Said::Read { sequence } => {
                self.mark(sequence, text);
                Ok(())
            }
            Said::Ping { id } => write(websocket, &Saying::Pong { id: id.as_deref() }).await,
        }
    }

    /// A filled-in form, or a session that must go on longer; never somebody else.
    async fn hello_again(&mut self, websocket: &mut WebSocket, hello: Hello) -> Result<(), End> {
        let mut visitor = match hello {
            Hello {
                session: None,
                jwt: None,
                link: None,
                ..
            } => (*self.visitor).clone(),
            _ => identify(&self.chat, &hello)?,
        };
        let filled = match visitor.thread == self.visitor.thread {
            true => visitor.fill_in(hello.form.unwrap_or_default(), &self.chat.settings.form),
            false => Err("a socket has one visitor: open another for another".to_owned()),
        };
        if let Err(detail) = filled {
            return self.complain(websocket, &Malformed { detail, id: None }).await;
        }
        *self.visitor = visitor;
        say_hello(&self.chat, websocket, &self.visitor).await
    }

    async fn send(
        &mut self,
        websocket: &mut WebSocket,
        id: String,
        (said, files): (String, Vec<String>),
        text: Utf8Bytes,
    ) -> Result<(), End> {
        if !self.chat.limits.may_send(&self.visitor.thread) {
            return Err(End::Close(Close::Flood));
        }
        self.is_still_good()?;
        if let Some(name) = self.visitor.missing(&self.chat.settings.form) {
            let detail = format!("fill in {name} of the form first, by another hello");
            let saying = Saying::Error {
                code: "form_needed",
                detail: &detail,
                id: Some(&id),
                retry_after_ms: None,
            };
            return write(websocket, &saying).await;
        }
        let chat = self.chat.clone();
        let now = now();
        let parsed = match parse::sent(&chat.account, &chat.keys, &self.visitor, &id, said, &files, now) {
            Ok(parsed) => parsed,
            Err(Unparsed::Rejected { reason: detail } | Unparsed::Parked { reason: detail }) => {
                return self.complain(websocket, &Malformed { detail, id: Some(id) }).await;
            }
        };
        let input = parse::input(&chat.account, &chat.keys, &self.visitor, text.into(), now);
        let inbox = self.live.inbox().clone();
        self.watch.expect();
        self.taking = Some(Box::pin(async move { accept(&chat, &inbox, input, parsed, id).await }));
        Ok(())
    }

    /// Marks our messages up to there as read.
    fn mark(&mut self, sequence: i64, text: Utf8Bytes) {
        let Some(place) = self.watch.seen().head else { return };
        let (chat, live) = (self.chat.clone(), self.live.clone());
        let input = parse::input(&chat.account, &chat.keys, &self.visitor, text.into(), now());
        let thread = self.visitor.thread.clone();
        self.taking = Some(Box::pin(async move {
            let unread = live.store().unread(&place.conversation_id, sequence, MARKED).await;
            // Best effort: the client marks the next message anyway.
            let Ok(unread) = unread else { return Taken::Marked };
            let events = unread.iter().map(|id| parse::read(&thread, id)).collect();
            let accepted = live
                .inbox()
                .accept(&chat.account, parse::CHANNEL, input, events, Arrival::Pushed);
            if let Err(error) = accepted.await {
                tracing::debug!(account.name = chat.account, %error, "read mark not taken");
            }
            Taken::Marked
        }));
    }

    async fn answer(&mut self, websocket: &mut WebSocket, taken: Taken) -> Result<(), End> {
        match taken {
            Taken::Acknowledged(text) => write_text(websocket, text).await,
            Taken::Marked => Ok(()),
            Taken::Unavailable { id } => {
                let saying = Saying::Error {
                    code: "unavailable",
                    detail: "this cannot be taken now, send it again",
                    id: Some(&id),
                    retry_after_ms: Some(5_000),
                };
                write(websocket, &saying).await
            }
            Taken::Fault => Err(End::Close(Close::Fault)),
        }
    }

    /// Whose session has ended hears and is heard no more.
    fn is_still_good(&self) -> Result<(), End> {
        match self.visitor.until > now().as_ms() {
            true => Ok(()),
            false => Err(End::Close(Close::Unauthorized {
                reason: "the session has expired",
            })),
        }
    }

    async fn complain(&mut self, websocket: &mut WebSocket, wrong: &Malformed) -> Result<(), End> {
        self.malformed += 1;
        complain(websocket, wrong, self.malformed).await
    }

    async fn tell_news(&mut self, websocket: &mut WebSocket) -> Result<(), End> {
        let seen = self.watch.seen();
        if self.view.is_some() && seen.typing != self.typing_seen {
            self.typing_seen = seen.typing;
            write(websocket, &Saying::Typing).await?;
        }
        if self.view.as_ref().is_some_and(|view| view.is_answered) && self.is_behind() {
            self.read();
        }
        Ok(())
    }

    /// Begins to read what the view has not shown yet.
    fn read(&mut self) {
        let Some(view) = &self.view else { return };
        self.read_again_at = None;
        let (live, after, head) = (self.live.clone(), view.sequence, self.watch.seen().head);
        let look = head.is_none().then(|| self.watch.look());
        self.reading = Some(Box::pin(async move {
            let head = match look {
                Some(look) => look.await?,
                None => head,
            };
            let Some(place) = head else { return Ok(None) };
            live.store()
                .visible_messages(&place.conversation_id, after, PIECE)
                .await
        }));
    }

    async fn show(&mut self, websocket: &mut WebSocket, read: Read) -> Result<(), End> {
        let Some(view) = &mut self.view else { return Ok(()) };
        let piece = match read {
            Ok(Some(piece)) => piece,
            Ok(None) => return view.show_nothing(websocket).await,
            Err(error) => {
                tracing::debug!(account.name = self.chat.account, %error, "a conversation cannot be read now");
                self.read_again_at = Some(Instant::now() + RETRY);
                return Ok(());
            }
        };
        let first = piece.messages.first().and_then(|stored| stored.sequence);
        if view.has_lost(piece.epoch, piece.last_sequence, first) {
            *view = View {
                epoch: Some(piece.epoch),
                sequence: 0,
                is_answered: view.is_answered,
            };
            let saying = Saying::Gone {
                epoch: Some(piece.epoch),
            };
            write(websocket, &saying).await?;
            self.read();
            return Ok(());
        }
        view.epoch = Some(piece.epoch);
        if !view.is_answered {
            view.is_answered = true;
            let saying = Saying::Resume {
                epoch: view.epoch,
                sequence: piece.last_sequence,
            };
            write(websocket, &saying).await?;
        }
        let has_more = piece.messages.len() as i64 == PIECE;
        for stored in &piece.messages {
            view.sequence = stored.sequence.unwrap_or(view.sequence);
            let text = shown(&self.chat, &self.visitor, piece.epoch, stored);
            write_text(websocket, text).await?;
        }
        // What came while we were writing.
        let is_behind = self.is_behind();
        if has_more || (is_behind && !piece.messages.is_empty()) {
            self.read();
        } else if is_behind {
            // The store is behind the hint, as a replica may be.
            self.read_again_at = Some(Instant::now() + RETRY);
        }
        Ok(())
    }

    /// Whether the conversation has come further than the view.
    fn is_behind(&self) -> bool {
        let view = self.view.as_ref().zip(self.watch.seen().head);
        view.is_some_and(|(view, head)| view.epoch != Some(head.epoch) || view.sequence < head.last_sequence)
    }

    async fn look_at_the_clock(&mut self, websocket: &mut WebSocket) -> Result<(), End> {
        self.is_still_good()?;
        if self.read_again_at.is_some_and(|at| at <= Instant::now()) {
            self.read();
        }
        let silent = self.heard_at.elapsed();
        if silent >= PING_AFTER + PONG_WITHIN {
            return Err(End::Close(Close::TooSlow));
        }
        if silent >= PING_AFTER && !self.is_asked {
            self.is_asked = true;
            return write_frame(websocket, Message::Ping(Bytes::new())).await;
        }
        Ok(())
    }

    /// At the stop: what is on its way into the log is still acknowledged.
    async fn leave(mut self, websocket: &mut WebSocket) -> End {
        if let Some(taking) = self.taking.take()
            && let Ok(taken) = timeout(PATIENCE / 5, taking).await
        {
            let _ = self.answer(websocket, taken).await;
        }
        End::Close(restart())
    }
}

/// Into the log, and only then the answer (C1).
async fn accept(chat: &Chat, inbox: &Inbox, input: Input, parsed: Parsed, id: String) -> Taken {
    let accepted = inbox.accept(&chat.account, parse::CHANNEL, input, parsed.events, Arrival::Pushed);
    match accepted.await {
        Ok(()) => Taken::Acknowledged(parsed.answer.body),
        Err(bus::Error::Unavailable(_)) => Taken::Unavailable { id },
        Err(error) => {
            tracing::error!(account.name = chat.account, %error, "message not accepted");
            Taken::Fault
        }
    }
}

/// What is under way, if anything is.
async fn of<T>(task: &mut Option<Task<T>>) -> T {
    match task {
        Some(task) => task.await,
        None => pending().await,
    }
}
