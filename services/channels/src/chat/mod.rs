//! Web chat: visitors write over a WebSocket, and a socket shows its conversation
//! as it stands in the store, on whichever replica it hangs. `README.md` is the
//! protocol: every frame and every close code.

mod settings;

mod files;
mod frame;
mod parse;
mod session;

mod limits;

mod greeting;
mod link;
mod socket;
mod view;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{ConnectInfo, State, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use model::calendar::BusinessTime;
use model::outbound::{Declaration, Join, LiveView, Outbound};
use model::time::Moment;
use tokio::sync::Semaphore;

use self::limits::Limits;
use self::session::Site;
use self::settings::Settings;
use crate::channel::{BadSignature, Channel, Input, Parsed, Sent, Unparsed, WayBack};
use crate::list::{self, AccountSettings, Surroundings};
use crate::live::Live;
use crate::signature::Keys;

/// One message of ours, in characters.
const MAX_REPLY_CHARS: u32 = 20_000;
/// Of the files of one message of ours, in bytes.
const MAX_REPLY_FILES_BYTES: u64 = 25 * 1024 * 1024;

/// An account of this channel.
struct Chat {
    account: String,
    settings: Settings,
    keys: Keys,
    /// Whom the site vouches for.
    site: Option<Site>,
    /// `None`: always.
    hours: Option<BusinessTime>,
    origins: Vec<String>,
    limits: Limits,
    uploads: Semaphore,
}

/// Builds an account of this channel from its settings.
pub fn build(account: &AccountSettings, surroundings: &Surroundings) -> Result<Arc<dyn Channel>, String> {
    let settings: Settings = list::settings(account)?;
    settings.check()?;
    let site = settings
        .jwt
        .as_ref()
        .map(|jwt| Site::new(jwt, &account.name))
        .transpose()?;
    let hours = match &settings.calendar {
        Some(name) => Some(business_time(name, surroundings)?),
        None => None,
    };
    let mut origins = settings.allowed_origins.clone();
    origins.extend(settings::origin_of(&surroundings.public_url));
    Ok(Arc::new(Chat {
        account: account.name.clone(),
        limits: Limits::new(&settings.limits)?,
        uploads: Semaphore::new(files::UPLOADS),
        keys: surroundings.keys.clone(),
        site,
        hours,
        origins,
        settings,
    }))
}

fn business_time(name: &str, surroundings: &Surroundings) -> Result<BusinessTime, String> {
    let known = surroundings.calendars.iter().find(|calendar| calendar.name == name);
    let Some(calendar) = known else {
        return Err(format!("calendar: there is no calendar {name:?}"));
    };
    calendar
        .compile()
        .map_err(|problems| format!("calendar: {}", problems.join("; ")))
}

#[async_trait]
impl Channel for Chat {
    fn declaration(&self) -> Declaration {
        Declaration {
            max_chars: Some(MAX_REPLY_CHARS),
            formats: vec!["text/plain".to_owned()],
            reply_window_ms: None,
            resend_safe: true,
            max_attachment_bytes: Some(MAX_REPLY_FILES_BYTES),
            join: Join::Open,
            live: Some(LiveView {
                away_after_ms: self.settings.away_after_ms(),
                mail_account: self.settings.mail_account.clone(),
            }),
            ..Declaration::default()
        }
    }

    fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        parse::verify(&self.account, &self.keys, input)
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        parse::parse(&self.account, &self.keys, input)
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        parse::KEPT_HEADERS
    }

    fn routes(self: Arc<Self>, live: &Live) -> Option<Router> {
        let path = format!("/chat/{}", self.account);
        let door = Door {
            chat: self,
            live: live.clone(),
        };
        let sockets = Router::new().route(&path, get(open)).with_state(door.clone());
        Some(sockets.merge(files::routes(door)))
    }

    fn way_back(&self, thread: &str, mail: &Outbound) -> Option<WayBack> {
        let (settings, keys) = (&self.settings, &self.keys);
        let page = settings.resume_url.as_ref()?;
        link::way_back(page, &settings.resume_text, &self.account, keys, thread, mail)
    }

    /// Never asked: what is written is there.
    async fn send(&self, _outbound: &Outbound, _files: &[Vec<u8>]) -> Sent {
        Sent::Refused {
            error: "a chat shows its messages by itself".to_owned(),
        }
    }
}

/// What a request meets.
#[derive(Clone)]
struct Door {
    chat: Arc<Chat>,
    live: Live,
}

/// Opens a socket. Who may not come in is told so by a close code, because a web
/// page cannot see the status of a refused handshake.
async fn open(
    State(door): State<Door>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let address = limits::address(&headers, peer.ip(), door.chat.settings.trusted_proxies);
    let entry = match door.chat.may_come_from(&headers) {
        true => door.chat.limits.enter(address),
        false => Err(frame::Close::ForeignOrigin),
    };
    let Door { chat, live } = door;
    let stop_waits_for = live.clone();
    upgrade
        .read_buffer_size(socket::BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(socket::MAX_WRITE_BYTES)
        .max_message_size(frame::MAX_BYTES)
        .max_frame_size(frame::MAX_BYTES)
        .on_upgrade(move |websocket| async move {
            // The upgrade's own task ends here; those of the tracker are waited for.
            stop_waits_for.spawn(socket::serve(chat, live, websocket, entry));
        })
}

impl Chat {
    /// Programs send no Origin; pages always do.
    fn may_come_from(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get("origin") else {
            return self.settings.allow_programs;
        };
        let origin = origin.to_str().unwrap_or_default();
        let is_allowed = |allowed: &String| allowed == "*" || allowed.eq_ignore_ascii_case(origin);
        self.origins.iter().any(is_allowed)
    }

    /// Whether somebody is at the desk now.
    fn is_open(&self) -> bool {
        let now = now();
        let is_within = |hours: &BusinessTime| hours.between_ms(now, now.plus_ms(1)) > 0;
        self.hours.as_ref().is_none_or(is_within)
    }
}

fn now() -> Moment {
    SystemTime::now().into()
}

/// What a visitor of account `a` sends, for the contract of all channels.
#[cfg(test)]
pub(crate) fn sample() -> Input {
    use bytes::Bytes;
    use model::event::Attachment;

    let (keys, at) = (Keys::new(vec![vec![1; 32]]).unwrap(), Moment::from_ms(0));
    let visitor = session::Visitor {
        thread: "s-1".to_owned(),
        ..session::Visitor::new(at, 1_000)
    };
    let receipt = files::Receipt {
        thread: visitor.thread.clone(),
        attachment: Attachment::here("a.txt", "text/plain", b"hello"),
        until: i64::MAX,
    };
    let file = receipt.token("a", &keys);
    let frame = serde_json::json!({ "type": "send", "id": "1", "text": "Where is my bike?", "files": [file] });
    parse::input("a", &keys, &visitor, Bytes::from(frame.to_string()), at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket builds the message from what it has read already; a replay parses the
    /// frame again. Both are the same.
    #[test]
    fn a_frame_parses_again_to_what_was_sent() {
        let keys = Keys::new(vec![vec![1; 32]]).unwrap();
        let visitor = session::Visitor::new(Moment::from_ms(0), 1_000);
        let frame = r#"{"type":"send","id":"c1","text":"Hello\u0000 there"}"#;
        let input = parse::input("a", &keys, &visitor, frame.into(), Moment::from_ms(0));
        let frame::Said::Send { id, text, files } = frame::parse(frame).unwrap() else {
            panic!("no send");
        };
        let sent = parse::sent("a", &keys, &visitor, &id, text, &files, input.received_at).unwrap();
        let parsed = parse::parse("a", &keys, &input).unwrap();
        assert_eq!(sent.events, parsed.events);
        assert_eq!(sent.answer, parsed.answer);
    }

    #[test]
    fn settings_are_refused_by_name() {
        let check = |rest: &str, expected: &str| {
            let account = AccountSettings {
                name: "a".to_owned(),
                channel: "chat".to_owned(),
                queue: None,
                join: None,
                rest: rest.parse().unwrap(),
            };
            let surroundings = Surroundings {
                keys: Keys::new(vec![vec![1; 32]]).unwrap(),
                public_url: "http://localhost".to_owned(),
                http: crate::guard::Guard::new(false).unwrap(),
                calendars: Vec::new(),
            };
            let error = build(&account, &surroundings).err().unwrap_or_default();
            assert!(error.contains(expected), "{rest}: {error}");
        };
        check(
            "allowed_origins = ['https://www.example.com/path']",
            "allowed_origins: ",
        );
        check("allowed_origins = ['www.example.com']", "allowed_origins: ");
        check("calendar = 'office'", "calendar: there is no calendar \"office\"");
        check("form = [{ name = 'Order number' }]", "form: \"Order number\"");
        check("limits = { messages_a_minute = 0 }", "limits.messages_a_minute");
        check(
            "limits = { messages_a_second = 1 }",
            "unknown field `messages_a_second`",
        );
        check("session_days = 0", "session_days");
        check("resume_url = 'www.example.com'", "resume_url: ");
        check("resume_url = 'javascript:alert(1)'", "resume_url: ");
        check("resume_url = 'https://www.example.com/#chat'", "resume_url: ");
        check(r#"resume_text = "a\nb""#, "resume_text: ");
        check("max_file_bytes = 1000000000", "max_file_bytes");
    }
}
