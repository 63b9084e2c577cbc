//! The greeting: a socket waits for the first good `hello`, which says who it is.

use std::time::Duration;

use axum::extract::ws::WebSocket;
use tokio::time::{Instant, sleep_until};

use super::frame::{self, Close, FormField, Hello, Malformed, Said, Saying};
use super::session::Visitor;
use super::wire::{End, complain, restart, text_of, write};
use super::{Chat, link, now};
use crate::live::Live;

/// Until the first `hello`.
const GREETING: Duration = Duration::from_secs(10);

/// Waits for the first good `hello`.
pub(super) async fn greet(chat: &Chat, live: &Live, websocket: &mut WebSocket) -> Result<Visitor, End> {
    let deadline = Instant::now() + GREETING;
    let frames = chat.limits.of_socket();
    let mut malformed = 0;
    loop {
        let heard = tokio::select! {
            () = live.stop().cancelled() => return Err(End::Close(restart())),
            () = sleep_until(deadline) => return Err(End::Close(Close::TooSlow)),
            heard = websocket.recv() => heard,
        };
        if frames.check().is_err() {
            return Err(End::Close(Close::Flood));
        }
        let Some(text) = text_of(heard)? else { continue };
        let wrong = match frame::parse(&text) {
            Ok(Said::Hello(mut hello)) => {
                let mut visitor = identify(chat, &hello)?;
                match visitor.fill_in(hello.form.take().unwrap_or_default(), &chat.settings.form) {
                    Ok(()) => {
                        say_hello(chat, websocket, &visitor).await?;
                        return Ok(visitor);
                    }
                    Err(detail) => Malformed { detail, id: None },
                }
            }
            Ok(Said::Ping { id }) => {
                write(websocket, &Saying::Pong { id: id.as_deref() }).await?;
                continue;
            }
            Ok(_) => Malformed {
                detail: "say hello first".to_owned(),
                id: None,
            },
            Err(wrong) => wrong,
        };
        malformed += 1;
        complain(websocket, &wrong, malformed).await?;
    }
}

/// Whose token it is; without one, somebody new.
pub(super) fn identify(chat: &Chat, hello: &Hello) -> Result<Visitor, End> {
    let unauthorized = |reason| End::Close(Close::Unauthorized { reason });
    let (now, session_ms) = (now(), chat.settings.session_ms());
    match (&hello.jwt, &hello.link, &hello.session) {
        (Some(jwt), ..) => {
            let site = chat.site.as_ref().ok_or(unauthorized("this chat takes no JWT"))?;
            site.visitor(jwt, now, session_ms).map_err(unauthorized)
        }
        (None, Some(link), _) => link::visitor(&chat.account, &chat.keys, link, now, session_ms).map_err(unauthorized),
        (None, None, Some(session)) => {
            let known = Visitor::of_token(&chat.account, &chat.keys, session, now);
            let mut visitor = known.map_err(unauthorized)?;
            visitor.prolong(now, session_ms);
            Ok(visitor)
        }
        (None, None, None) => Ok(Visitor::new(now, session_ms)),
    }
}

pub(super) async fn say_hello(chat: &Chat, websocket: &mut WebSocket, visitor: &Visitor) -> Result<(), End> {
    let online = chat.is_open();
    let form = chat.settings.form.iter().map(|field| FormField {
        name: &field.name,
        required: field.required && visitor.opened.is_none(),
    });
    let saying = Saying::Hello {
        session: &visitor.token(&chat.account, &chat.keys),
        online,
        text: chat.settings.offline_text.as_deref().filter(|_| !online),
        form: form.collect(),
    };
    write(websocket, &saying).await
}
