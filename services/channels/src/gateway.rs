//! The public routes: `POST /in/{account}`, and `GET` for vendors who ask first
//! whether the address is ours.
//!
//! The order of things: account, size, body, signature on the raw bytes, events,
//! durable, answer (C1). Who starts the listener bounds the size and the time of
//! headers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, Request, State};
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use crate::channel::{Answer, Channel, Input, Parsed, Unparsed};
use crate::inbox::{Arrival, Inbox, TRACEPARENT, continue_trace};
use crate::list::{Account, Accounts};

/// A longer body is answered 413.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
/// A body up to this size is read and parsed at once; a larger one needs one of
/// [`LARGE_BODIES`] places, so that slow senders cannot fill the memory, and is
/// parsed on a thread of its own.
const SMALL_BODY_BYTES: usize = 64 * 1024;
const LARGE_BODIES: usize = 32;
/// So much of what follows a body that is too long is read and thrown away.
const LINGER_BYTES: usize = 4 * MAX_BODY_BYTES;
/// Of the sender's headers, a value longer than this is not kept.
const MAX_KEPT_HEADER_BYTES: usize = 8 * 1024;
/// When to come again after a 503.
const RETRY_AFTER_S: &str = "5";

struct Gateway {
    accounts: Accounts,
    inbox: Inbox,
    large_bodies: Semaphore,
    patience: Patience,
}

/// How long a sender may take.
#[derive(Clone, Copy)]
struct Patience {
    /// A body that takes longer is answered 408.
    body: Duration,
    /// So long a large body waits for its place.
    place: Duration,
    /// So long what is left of a body that is too long is read and thrown away: a
    /// sender who is cut off in mid-body does not see his answer.
    linger: Duration,
}

const PATIENCE: Patience = Patience {
    body: Duration::from_secs(30),
    place: Duration::from_secs(5),
    linger: Duration::from_secs(2),
};

/// Why an input got no 2xx.
enum Refused {
    TooLarge,
    TooSlow,
    /// The client went away or broke the protocol.
    Broken,
    BadSignature,
    Malformed(String),
    Busy,
    Unavailable,
    Fault(String),
}

/// Routes of the public listener. Everything else there is answered by
/// [`not_found`], in the same words as an unknown account; so is an account whose
/// input we fetch ourselves or take from sockets: what it believes without a
/// signature must not come from here.
pub fn routes(accounts: Accounts, inbox: Inbox) -> Router {
    routes_within(accounts, inbox, PATIENCE)
}

fn routes_within(mut accounts: Accounts, inbox: Inbox, patience: Patience) -> Router {
    accounts.retain(|_, account| !account.channel.pulls() && !account.plan.live);
    let gateway = Arc::new(Gateway {
        accounts,
        inbox,
        large_bodies: Semaphore::new(LARGE_BODIES),
        patience,
    });
    Router::new()
        .route("/in/{account}", post(receive).get(shake_hands))
        .with_state(gateway)
        .fallback(not_found)
        .layer(CatchPanicLayer::custom(|_| fault()))
}

/// The one 404 of the public listener.
pub async fn not_found() -> Response {
    refusal(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
}

/// Nothing is kept of it, whatever it says.
async fn shake_hands(
    State(gateway): State<Arc<Gateway>>,
    account: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Response {
    let known = account.ok().and_then(|Path(name)| gateway.accounts.get(&name));
    let Some(account) = known else {
        gateway.inbox.rejected("", "unknown_account");
        return not_found().await;
    };
    let channel = account.channel.as_ref();
    let input = input_of(
        request.method(),
        request.uri(),
        request.headers(),
        Bytes::new(),
        channel,
    );
    match channel.handshake(&input) {
        Some(answer) => answered(answer),
        None => {
            let detail = "nothing can be fetched here, only posted";
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            response
        }
    }
}

async fn receive(
    State(gateway): State<Arc<Gateway>>,
    account: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Response {
    let caller = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let traceparent = continue_trace(caller);
    let known = account.ok().and_then(|Path(name)| gateway.accounts.get(&name));
    let Some(account) = known else {
        // The name is a stranger's word, and no label.
        gateway.inbox.rejected("", "unknown_account");
        return not_found().await;
    };
    let span = tracing::info_span!("receive", account.name = account.plan.name, traceparent);
    let handled = gateway.handle(account, request, &traceparent).instrument(span.clone());
    let mut response = match handled.await {
        Ok(answer) => answered(answer),
        Err(refused) => span.in_scope(|| gateway.refuse(account, refused)),
    };
    if let Ok(request_id) = HeaderValue::from_str(&traceparent[3..35]) {
        let name = HeaderName::from_static("x-request-id");
        response.headers_mut().insert(name, request_id);
    }
    response
}

impl Gateway {
    async fn handle(&self, account: &Account, request: Request, traceparent: &str) -> Result<Answer, Refused> {
        let (plan, channel) = (&account.plan, &account.channel);
        let (head, body) = request.into_parts();
        let (body, _place) = self.read(&head.headers, body).await?;
        let mut input = input_of(&head.method, &head.uri, &head.headers, body, channel.as_ref());
        input.headers.push((TRACEPARENT.to_owned(), traceparent.to_owned()));
        if let Err(bad) = channel.verify(&input) {
            self.inbox
                .quarantine(&plan.name, &plan.channel, &input, bad.reason)
                .await;
            return Err(Refused::BadSignature);
        }
        let parked = match parse(channel, &input).await {
            Ok(Parsed { events, answer }) => {
                let accepted = self
                    .inbox
                    .accept(&plan.name, &plan.channel, &input, events, Arrival::Pushed);
                return accepted.await.map(|()| answer).map_err(Refused::from);
            }
            Err(Unparsed::Rejected { reason }) => return Err(Refused::Malformed(reason)),
            Err(Unparsed::Parked { reason }) => reason,
        };
        let parked = self
            .inbox
            .park(&plan.name, &plan.channel, &input, &parked, Arrival::Pushed);
        parked.await.map_err(Refused::from)?;
        Ok(Answer {
            status: 200,
            content_type: "application/json",
            body: "{}".to_owned(),
        })
    }

    /// The whole body, within its size and its time; a large one with its place.
    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Refused> {
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length: Option<usize> = length.and_then(|text| text.parse().ok());
        let mut chunks = body.into_data_stream();
        let read = if length.is_some_and(|length| length > MAX_BODY_BYTES) {
            Err(Refused::TooLarge)
        } else {
            let reading = self.read_within_size(&mut chunks);
            timeout(self.patience.body, reading)
                .await
                .unwrap_or(Err(Refused::TooSlow))
        };
        // Who asks before he sends has sent nothing yet.
        if matches!(read, Err(Refused::TooLarge)) && !headers.contains_key(EXPECT) {
            // Bounded in bytes too: a time-out is not looked at while there is always more.
            let rest = async {
                let mut left = LINGER_BYTES;
                while let Some(Ok(chunk)) = chunks.next().await {
                    left = left.saturating_sub(chunk.len());
                    if left == 0 {
                        break;
                    }
                }
            };
            // Whoever has more to send than this sees a closed connection.
            let _ = timeout(self.patience.linger, rest).await;
        }
        read
    }

    async fn read_within_size(
        &self,
        chunks: &mut BodyDataStream,
    ) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Refused> {
        let mut read = BytesMut::new();
        let mut place = None;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Refused::Broken)?;
            let size = read.len() + chunk.len();
            if size > MAX_BODY_BYTES {
                return Err(Refused::TooLarge);
            }
            if size > SMALL_BODY_BYTES && place.is_none() {
                let found = timeout(self.patience.place, self.large_bodies.acquire()).await;
                place = Some(found.map_err(|_| Refused::Busy)?.map_err(|_| Refused::Busy)?);
            }
            read.extend_from_slice(&chunk);
        }
        Ok((read.freeze(), place))
    }

    fn refuse(&self, account: &Account, refused: Refused) -> Response {
        self.inbox.rejected(&account.plan.name, refused.reason());
        tracing::debug!(reason = refused.reason(), "input refused");
        match refused {
            Refused::TooLarge => {
                let detail = format!("the body is longer than {MAX_BODY_BYTES} bytes");
                refusal(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &detail)
            }
            Refused::TooSlow => refusal(StatusCode::REQUEST_TIMEOUT, "timeout", "the body took too long"),
            Refused::Broken => refusal(StatusCode::BAD_REQUEST, "malformed", "the body cannot be read"),
            // The sender is not told what is wrong with it: he may be guessing.
            Refused::BadSignature => refusal(StatusCode::UNAUTHORIZED, "bad_signature", "the signature is not valid"),
            Refused::Malformed(reason) => refusal(StatusCode::BAD_REQUEST, "malformed", &reason),
            Refused::Busy | Refused::Unavailable => {
                let detail = "this cannot be taken now, come again";
                let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
                let after = HeaderValue::from_static(RETRY_AFTER_S);
                response.headers_mut().insert(RETRY_AFTER, after);
                response
            }
            Refused::Fault(error) => {
                tracing::error!(error, "input not accepted");
                fault()
            }
        }
    }
}

impl Refused {
    /// As the metric names it.
    fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Broken => "broken",
            Self::BadSignature => "signature",
            Self::Malformed(_) => "malformed",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Fault(_) => "fault",
        }
    }
}

impl From<bus::Error> for Refused {
    fn from(error: bus::Error) -> Self {
        match error {
            bus::Error::Unavailable(_) => Self::Unavailable,
            bus::Error::Malformed(_) | bus::Error::Settings(_) => Self::Fault(error.to_string()),
        }
    }
}

/// Parses where it blocks nobody; a parser that panics parks its input.
async fn parse(channel: &Arc<dyn Channel>, input: &Input) -> Result<Parsed, Unparsed> {
    if input.body.len() <= SMALL_BODY_BYTES {
        return parse_caught(channel.as_ref(), input);
    }
    let (channel, input) = (channel.clone(), input.clone());
    let parsing = tokio::task::spawn_blocking(move || parse_caught(channel.as_ref(), &input));
    parsing.await.unwrap_or_else(|_| Err(panicked()))
}

fn parse_caught(channel: &dyn Channel, input: &Input) -> Result<Parsed, Unparsed> {
    catch_unwind(AssertUnwindSafe(|| channel.parse(input))).unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Unparsed {
    Unparsed::Parked {
        reason: "the parser failed on it".to_owned(),
    }
}

fn input_of(method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes, channel: &dyn Channel) -> Input {
    let path_and_query = uri.path_and_query();
    Input {
        method: method.to_string(),
        url: path_and_query.map(ToString::to_string).unwrap_or_default(),
        headers: kept_headers(headers, channel),
        body,
        received_at: SystemTime::now().into(),
    }
}

fn kept_headers(headers: &HeaderMap, channel: &dyn Channel) -> Vec<(String, String)> {
    let mut kept = Vec::new();
    for name in channel.kept_headers() {
        for value in headers.get_all(*name) {
            match value.to_str() {
                Ok(text) if text.len() <= MAX_KEPT_HEADER_BYTES => kept.push(((*name).to_owned(), text.to_owned())),
                _ => {}
            }
        }
    }
    kept
}

/// Says nothing: whoever needs to know has the request id and our log.
fn fault() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

fn answered(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let content_type = HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn refusal(status: StatusCode, code: &str, detail: &str) -> Response {
    let body = serde_json::json!({ "code": code, "detail": detail }).to_string();
    let mut response = answered(Answer {
        status: status.as_u16(),
        content_type: "application/json",
        body,
    });
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::body::to_bytes;
    use futures_util::future::join_all;
    use futures_util::stream;
    use model::event::{Body as EventBody, Event};
    use model::id::MessageId;
    use prometheus_client::registry::Registry;
    use tower::ServiceExt;

    use super::*;
    use crate::guard::Guard;
    use crate::list::{self, AccountSettings, Surroundings};
    use crate::signature::{Keys, WebhookSecret};

    const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const OTHER_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    const BODY: &str = r#"{"from":{"address":"ann@example.com"},"text":"Hello"}"#;

    struct House {
        router: Router,
        bus: bus::Bus,
        registry: Registry,
        _folder: tempfile::TempDir,
    }

    impl House {
        async fn open() -> Self {
            Self::open_within(PATIENCE).await
        }

        async fn open_within(patience: Patience) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut registry = Registry::default();
            let settings = bus::Settings {
                url: format!("local:{}", folder.path().join("log").display()),
                spool: None,
                blobs_url: format!("file:{}", folder.path().join("blobs").display()),
                partitions: 1,
                kafka: bus::KafkaSettings::default(),
            };
            let bus = bus::Bus::open(&settings, &mut registry).await.unwrap();
            let mut accounts = list::build(&[account("shop", "webhook")], &surroundings()).unwrap();
            let broken: Arc<dyn Channel> = Arc::new(Broken);
            let mut account = accounts["shop"].clone();
            account.plan.name = "broken".to_owned();
            account.channel = broken;
            accounts.insert("broken".to_owned(), account);
            let mailbox: Arc<dyn Channel> = Arc::new(Mailbox);
            let mut account = accounts["shop"].clone();
            account.plan.name = "mailbox".to_owned();
            account.channel = mailbox;
            accounts.insert("mailbox".to_owned(), account);
            let inbox = Inbox::new(bus.clone(), &mut registry);
            Self {
                router: routes_within(accounts, inbox, patience),
                bus,
                registry,
                _folder: folder,
            }
        }

        async fn answer(&self, request: Request) -> (u16, String, HeaderMap) {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            let body = to_bytes(body, 1_000_000).await.unwrap();
            (
                head.status.as_u16(),
                String::from_utf8(body.to_vec()).unwrap(),
                head.headers,
            )
        }

        /// All events of the log so far: what was published before its last.
        async fn events(&self, count: usize) -> Vec<Event> {
            let mut reader = self.bus.reader(bus::EVENTS, "test").await.unwrap();
            let mut events = Vec::new();
            while events.len() < count {
                let batch = timeout(Duration::from_secs(10), reader.next(1000))
                    .await
                    .unwrap()
                    .unwrap();
                events.extend(batch.records.into_iter().map(|record| record.event.unwrap()));
            }
            events
        }
    }

    fn account(name: &str, channel: &str) -> AccountSettings {
        AccountSettings {
            name: name.to_owned(),
            channel: channel.to_owned(),
            queue: None,
            join: None,
            rest: format!("secrets = ['{SECRET}']").parse().unwrap(),
        }
    }

    fn surroundings() -> Surroundings {
        Surroundings {
            keys: Keys::new(vec![vec![1; 32]]).unwrap(),
            public_url: "http://localhost".to_owned(),
            http: Guard::new(false).unwrap(),
            calendars: Vec::new(),
        }
    }

    /// A channel with a fault in its parser.
    struct Broken;

    #[async_trait::async_trait]
    impl Channel for Broken {
        fn handshake(&self, input: &Input) -> Option<Answer> {
            Some(Answer {
                status: 200,
                content_type: "text/plain",
                body: input.url.clone(),
            })
        }

        fn declaration(&self) -> model::outbound::Declaration {
            unreachable!("nobody asks")
        }

        fn verify(&self, _input: &Input) -> Result<(), crate::channel::BadSignature> {
            Ok(())
        }

        fn parse(&self, _input: &Input) -> Result<Parsed, Unparsed> {
            panic!("a fault")
        }

        async fn send(&self, _: &model::outbound::Outbound, _: &[Vec<u8>]) -> crate::channel::Sent {
            unreachable!("nobody sends")
        }
    }

    /// A channel that believes its source, and so must not be pushed to.
    struct Mailbox;

    #[async_trait::async_trait]
    impl Channel for Mailbox {
        fn declaration(&self) -> model::outbound::Declaration {
            Broken.declaration()
        }

        fn verify(&self, _input: &Input) -> Result<(), crate::channel::BadSignature> {
            Ok(())
        }

        fn parse(&self, _input: &Input) -> Result<Parsed, Unparsed> {
            unreachable!("nobody pushes")
        }

        fn pulls(&self) -> bool {
            true
        }

        async fn send(&self, _: &model::outbound::Outbound, _: &[Vec<u8>]) -> crate::channel::Sent {
            unreachable!("nobody sends")
        }
    }

    fn signed(secret: &str, id: &str, body: impl Into<Bytes>) -> Request {
        let body = body.into();
        let secret = WebhookSecret::parse(secret).unwrap();
        let mut request = Request::post("/in/shop").header(CONTENT_TYPE, "application/json");
        for (name, value) in secret.sign(id, SystemTime::now().into(), &body) {
            request = request.header(name, value);
        }
        request.body(Body::from(body)).unwrap()
    }

    fn stalled() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>())
    }

    #[tokio::test]
    async fn a_good_post_is_answered_when_it_is_in_the_log() {
        let house = House::open().await;
        let mut request = signed(SECRET, "evt_1", BODY);
        let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        request.headers_mut().insert(TRACEPARENT, caller.parse().unwrap());
        request
            .headers_mut()
            .insert("authorization", "Bearer secret".parse().unwrap());
        let (status, body, headers) = house.answer(request).await;
        let id = MessageId::received("shop", "webhook", "evt_1");
        assert_eq!((status, body), (200, format!(r#"{{"message_id":"{id}"}}"#)));
        assert_eq!(headers["x-request-id"], "0af7651916cd43dd8448eb211c80319c");
        let events = house.events(1).await;
        let event = &events[0];
        assert_eq!(event.message_id(), Some(id));
        assert_eq!((event.account.as_str(), event.channel.as_str()), ("shop", "webhook"));
        assert_eq!(event.thread_key, "shop/evt_1");
        assert_eq!(
            (event.raw.method.as_str(), event.raw.url.as_str()),
            ("POST", "/in/shop")
        );
        let kept: BTreeMap<&str, &str> = event
            .raw
            .headers
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let names: Vec<&str> = kept.keys().copied().collect();
        assert_eq!(
            names,
            ["content-type", "webhook-id", "webhook-signature", "webhook-timestamp"]
        );
        let traceparent = event.traceparent.as_deref().unwrap();
        assert!(
            traceparent.starts_with(&caller[..36]) && traceparent != caller,
            "{traceparent}"
        );
    }

    #[tokio::test]
    async fn an_attachment_is_kept_before_its_event() {
        let house = House::open().await;
        let body = r#"{"from":{"address":"a"},"text":"x","attachments":[{"name":"f","content":"aGVsbG8="}]}"#;
        assert_eq!(house.answer(signed(SECRET, "evt_1", body)).await.0, 200);
        let events = house.events(1).await;
        let EventBody::MessageReceived(message) = &events[0].body else {
            panic!("{events:?}");
        };
        let bytes = house.bus.blobs().get(&message.attachments[0].sha256).await.unwrap();
        assert_eq!(bytes.as_deref(), Some(b"hello".as_slice()));
    }

    #[tokio::test]
    async fn what_is_bad_is_refused_and_not_kept() {
        let house = House::open().await;
        let check = async |request: Request, status: u16, detail: &str| {
            let (found, body, _) = house.answer(request).await;
            assert_eq!(found, status, "{body}");
            assert!(body.contains(detail), "{status} {body}");
        };
        let post = |uri: &str, body: Body| Request::post(uri).body(body).unwrap();
        let good = |body: String| signed(SECRET, "evt_1", body);
        check(post("/in/nobody", Body::empty()), 404, "there is nothing here").await;
        check(post("/in/mailbox", Body::from("mail")), 404, "there is nothing here").await;
        check(post("/in/nobody", stalled()), 404, "there is nothing here").await;
        check(post("/in/%ff", Body::empty()), 404, "there is nothing here").await;
        check(post("/in/shop/more", Body::empty()), 404, "there is nothing here").await;
        check(post("/", Body::empty()), 404, "there is nothing here").await;
        check(Request::get("/in/shop").body(Body::empty()).unwrap(), 405, "").await;
        check(
            Request::get("/in/nobody").body(Body::empty()).unwrap(),
            404,
            "nothing here",
        )
        .await;
        check(Request::put("/in/shop").body(Body::empty()).unwrap(), 405, "").await;
        // Whose vendor asks first is answered.
        check(
            Request::get("/in/broken?challenge=7").body(Body::empty()).unwrap(),
            200,
            "challenge=7",
        )
        .await;
        let declared = Request::post("/in/shop").header(CONTENT_LENGTH, MAX_BODY_BYTES + 1);
        check(declared.body(stalled()).unwrap(), 413, "too_large").await;
        check(
            post("/in/shop", Body::from(vec![0; MAX_BODY_BYTES + 1])),
            413,
            "too_large",
        )
        .await;
        let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 65_536])));
        check(post("/in/shop", Body::from_stream(endless)), 413, "too_large").await;
        let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
        check(post("/in/shop", Body::from_stream(broken)), 400, "cannot be read").await;
        check(good("{".to_owned()), 400, "EOF").await;
        check(good(BODY.replace("Hello", "a\0b")), 400, "control character").await;
        check(good(BODY.replace("Hello", "\\ud800")), 400, "malformed").await;
        check(good(BODY.replace("Hello", "")), 400, "neither text nor html").await;
        check(good(format!(r#"{{"text":{}"#, "[".repeat(100_000))), 400, "malformed").await;
        check(good("[".repeat(100_000)), 400, "malformed").await;
        check(good(BODY.replace("text", "txet")), 400, "did you mean `text`").await;
        check(signed(SECRET, &"x".repeat(257), BODY), 400, "webhook-id").await;
        // Nothing of it is in the log: the next is the first.
        check(good(BODY.replace("Hello", "\\u0000")), 200, "msg_").await;
        let events = house.events(1).await;
        assert_eq!(events.len(), 1);
        let EventBody::MessageReceived(message) = &events[0].body else {
            panic!("{events:?}");
        };
        assert_eq!(message.text, "\u{fffd}");
    }

    #[tokio::test]
    async fn a_bad_signature_is_quarantined_and_says_nothing() {
        let house = House::open().await;
        let mut tampered = signed(SECRET, "evt_1", BODY);
        *tampered.body_mut() = Body::from(BODY.replace("Hello", "Other"));
        let requests = [
            signed(OTHER_SECRET, "evt_1", BODY),
            tampered,
            Request::post("/in/shop").body(Body::from("unsigned")).unwrap(),
        ];
        for request in requests {
            let (status, body, _) = house.answer(request).await;
            assert_eq!(
                (status, body.contains("the signature is not valid")),
                (401, true),
                "{body}"
            );
        }
        let events = house.events(3).await;
        for event in &events {
            assert!(matches!(event.body, EventBody::Quarantined { .. }), "{event:?}");
            assert_eq!(event.message_id(), None);
        }
        // Too large to be kept: counted.
        let large = Request::post("/in/shop").body(Body::from(vec![b'x'; 300_000])).unwrap();
        assert_eq!(house.answer(large).await.0, 401);
        let mut metrics = String::new();
        prometheus_client::encoding::text::encode(&mut metrics, &house.registry).unwrap();
        let check = |line: &str| assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
        check(r#"quarantined_inputs_total{account="shop",channel="webhook"} 3"#);
        check(r#"quarantine_dropped_inputs_total{account="shop",channel="webhook"} 1"#);
        check(r#"rejected_inputs_total{account="shop",reason="signature"} 4"#);
    }

    #[tokio::test]
    async fn one_webhook_a_hundred_times_at_once_is_one_event() {
        let house = House::open().await;
        let request = || house.answer(signed(SECRET, "evt_1", BODY));
        let answers = join_all((0..100).map(|_| request())).await;
        for (status, body, _) in &answers {
            assert_eq!((*status, body), (200, &answers[0].1));
        }
        let events = house.events(100).await;
        assert!(events.iter().all(|event| event.id == events[0].id));
    }

    #[tokio::test]
    async fn a_fault_of_a_parser_parks_its_input() {
        let house = House::open().await;
        for body in [vec![b'x'; 10], vec![b'x'; 100_000]] {
            let request = Request::post("/in/broken").body(Body::from(body)).unwrap();
            assert_eq!(house.answer(request).await.0, 200);
        }
        for event in house.events(2).await {
            assert!(matches!(event.body, EventBody::Parked { .. }), "{event:?}");
        }
    }

    #[tokio::test]
    async fn a_log_that_is_away_is_a_503_with_its_time() {
        let house = House::open().await;
        house.bus.stop(Duration::from_secs(5)).await;
        let (status, body, headers) = house.answer(signed(SECRET, "evt_1", BODY)).await;
        assert_eq!((status, headers[RETRY_AFTER].to_str().unwrap()), (503, "5"), "{body}");
        // A quarantine is best effort: the sender is told at once.
        let begun = std::time::Instant::now();
        assert_eq!(house.answer(signed(OTHER_SECRET, "evt_1", BODY)).await.0, 401);
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[tokio::test]
    async fn slow_bodies_end_and_block_nobody() {
        let patience = Patience {
            body: Duration::from_millis(2_000),
            place: Duration::from_millis(1),
            linger: Duration::from_millis(1),
        };
        let house = House::open_within(patience).await;
        let slow = || {
            let begun = stream::once(async { Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; SMALL_BODY_BYTES + 1])) });
            let body = Body::from_stream(begun.chain(stream::pending()));
            house.answer(Request::post("/in/shop").body(body).unwrap())
        };
        let slow = join_all((0..LARGE_BODIES + 1).map(|_| slow()));
        tokio::pin!(slow);
        let quick = tokio::select! {
            answers = &mut slow => panic!("{answers:?}"),
            answer = house.answer(signed(SECRET, "evt_1", BODY)) => answer,
        };
        assert_eq!(quick.0, 200);
        let mut statuses: Vec<u16> = slow.await.into_iter().map(|(status, ..)| status).collect();
        statuses.sort_unstable();
        let mut expected = vec![408; LARGE_BODIES];
        expected.push(503);
        assert_eq!(statuses, expected);
    }
}
