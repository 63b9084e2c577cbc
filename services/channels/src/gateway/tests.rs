//! The public routes, over a log of files.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::to_bytes;
use axum::http::header::CONTENT_LENGTH;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use model::event::{Body as EventBody, Event};
use model::id::MessageId;
use prometheus_client::registry::Registry;
use tokio::time::timeout;
use tower::ServiceExt;

use super::body::MAX_BODY_BYTES;
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
        Self::open_within(BOUNDS).await
    }

    async fn open_within(bounds: Bounds) -> Self {
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
        let both = [account("shop", "webhook"), account("other", "webhook")];
        let mut accounts = list::build(&both, &surroundings()).unwrap();
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
            router: routes_within(accounts, inbox, bounds),
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
    signed_to("shop", secret, id, body)
}

fn signed_to(account: &str, secret: &str, id: &str, body: impl Into<Bytes>) -> Request {
    let body = body.into();
    let secret = WebhookSecret::parse(secret).unwrap();
    let mut request = Request::post(format!("/in/{account}")).header(CONTENT_TYPE, "application/json");
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
    for request in [
        Request::get("/in/shop"),
        Request::put("/in/shop"),
        Request::put("/in/nobody"),
    ] {
        let (status, body, headers) = house.answer(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (status, &headers[CONTENT_TYPE]),
            (405, &"application/json".parse().unwrap())
        );
        assert!(headers[ALLOW].to_str().unwrap().contains("POST"), "{headers:?}");
        assert!(body.contains(r#""code":"method_not_allowed""#), "{body}");
    }
    check(
        Request::get("/in/nobody").body(Body::empty()).unwrap(),
        404,
        "nothing here",
    )
    .await;
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

/// A body of which so much comes, and then nothing more.
fn begun(bytes: usize) -> Body {
    let begun = Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes]));
    Body::from_stream(stream::iter([begun]).chain(stream::pending()))
}

/// A message with a body that needs room.
fn large(account: &str, id: &str) -> Request {
    signed_to(account, SECRET, id, BODY.replace("Hello", &"x".repeat(200_000)))
}

#[tokio::test]
async fn slow_bodies_end_and_block_nobody() {
    let bounds = Bounds {
        large: Duration::from_secs(2),
        waiting: Duration::from_millis(1),
        ..BOUNDS
    };
    let house = House::open_within(bounds).await;
    // More of them than there is room for bodies of the greatest size.
    let slow = |_| house.answer(Request::post("/in/shop").body(begun(SMALL_BODY_BYTES + 1)).unwrap());
    let slow = join_all((0..100).map(slow));
    tokio::pin!(slow);
    let quick = async {
        let small = house.answer(signed(SECRET, "evt_1", BODY)).await;
        [small.0, house.answer(large("shop", "evt_2")).await.0]
    };
    let quick = tokio::select! {
        // The slow ones take their room first.
        biased;
        answers = &mut slow => panic!("{answers:?}"),
        statuses = quick => statuses,
    };
    assert_eq!(quick, [200, 200]);
    let answers = timeout(BOUNDS.body / 2, slow).await.unwrap();
    assert!(answers.iter().all(|(status, ..)| *status == 408), "{answers:?}");
}

#[tokio::test]
async fn who_takes_all_room_of_one_account_takes_none_of_others() {
    let bounds = Bounds {
        large: Duration::from_secs(2),
        waiting: Duration::from_millis(1),
        room_bytes: 2 * 1024 * 1024,
        ..BOUNDS
    };
    let house = House::open_within(bounds).await;
    let slow = |_| house.answer(Request::post("/in/shop").body(begun(bounds.room_bytes / 8)).unwrap());
    let slow = join_all((0..4).map(slow));
    tokio::pin!(slow);
    let quick = async {
        [
            house.answer(large("shop", "evt_1")).await.0,
            house.answer(large("other", "evt_1")).await.0,
        ]
    };
    let quick = tokio::select! {
        // The slow ones take their room first.
        biased;
        answers = &mut slow => panic!("{answers:?}"),
        statuses = quick => statuses,
    };
    assert_eq!(quick, [503, 200]);
    assert!(slow.await.iter().all(|(status, ..)| *status == 408));
}
