//! A desk of its own for each test, and a caller.

use std::path::Path;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bus::Blobs;
use bytes::Bytes;
use model::contact::Party;
use model::context::{AccountPlan, Queue};
use model::decide::decide;
use model::event::{self, Event, Message, Raw, RawContent, Recipient};
use model::evidence::Evidence;
use model::id::{MessageId, sha256_hex};
use model::outbound::{Declaration, Join};
use model::time::Moment;
use serde_json::{Value, json};
use store::Store;
use store::apply::{Advance, Outcome};
use store::book::Declared;
use tower::ServiceExt;

/// The token of `agnes`, who asks unless a test says otherwise.
pub const TOKEN: &str = "the-token-of-agnes";

/// Another person's.
pub const OTHER_TOKEN: &str = "the-token-of-bruno";

pub struct House {
    pub store: Store,
    pub blobs: Blobs,
    router: Router,
    _folder: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What a received message made.
pub struct Received {
    pub message: String,
    pub conversation: String,
    /// Number of the conversation's ticket.
    pub ticket: String,
}

impl House {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open_store(folder.path()).await;
        let blobs = Blobs::open(&format!("file:{}", folder.path().join("blobs").display())).unwrap();
        let router = api::routes(api::Desk {
            store: store.clone(),
            blobs: blobs.clone(),
            hints: bus::hints::Hints::local(),
            limits: model::file::Limits::default(),
            invite: std::sync::Arc::new(|account, conversation, now| {
                let url = format!("https://example.com/{account}?start={}", conversation.bare());
                (account == "bot").then(|| (url, now.plus_ms(1_000)))
            }),
        });
        Self {
            store,
            blobs,
            router,
            _folder: folder,
        }
    }

    /// A message of anna@example.com arrives, as a thread of its own.
    pub async fn receive(&self, external_id: &str) -> Received {
        self.arrive(&message_event(external_id, "anna@example.com", "It is on fire."))
            .await
    }

    /// An event is decided and applied, as routing does it.
    pub async fn arrive(&self, event: &Event) -> Received {
        self.decide(event).await;
        let message = self.store.message(&event.message_id().unwrap()).await.unwrap().unwrap();
        let conversation = self
            .store
            .conversation(&message.conversation_id)
            .await
            .unwrap()
            .unwrap();
        let ticket = match conversation.ticket_id {
            Some(id) => self.store.ticket_by_id(&id).await.unwrap().unwrap().number,
            None => String::new(),
        };
        Received {
            message: message.id.to_string(),
            conversation: conversation.id.to_string(),
            ticket,
        }
    }

    pub async fn decide(&self, event: &Event) {
        let book = self.store.book().await.unwrap();
        let context = self.store.context(book, bus::EVENTS, 0, &[event]).await.unwrap();
        let changes = decide(event, &context, api::now());
        let advance = Advance {
            topic: bus::EVENTS.to_owned(),
            partition: 0,
            from: context.next_offset,
            to: context.next_offset + 1,
        };
        let outcome = self.store.apply(&advance, &changes).await.unwrap();
        assert_eq!(outcome, Outcome::Applied);
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(request(Method::GET, path, TOKEN, None).body(Body::empty()).unwrap())
            .await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(with_json(request(Method::POST, path, TOKEN, None), &body))
            .await
    }

    pub async fn post_with_key(&self, path: &str, key: &str, body: Value) -> Answer {
        self.ask(with_json(request(Method::POST, path, TOKEN, Some(key)), &body))
            .await
    }

    pub async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: to_bytes(body, usize::MAX).await.unwrap(),
        }
    }

    /// All items of a list, read page by page.
    pub async fn walk(&self, path: &str, limit: usize) -> Vec<Value> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let first = format!("{path}{separator}limit={limit}");
        let mut items = Vec::new();
        let mut next = first.clone();
        loop {
            let page = self.get(&next).await.ok();
            let on_page = page["items"].as_array().unwrap();
            assert!(on_page.len() <= limit);
            items.extend(on_page.iter().cloned());
            match page["next"].as_str() {
                Some(cursor) => next = format!("{first}&after={cursor}"),
                None => return items,
            }
        }
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    /// The body of a 200.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{:?}", self.body);
        self.json()
    }

    /// The sentence of a refusal with this status and code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        problem["detail"].as_str().unwrap().to_owned()
    }
}

pub fn request(method: Method, path: &str, token: &str, key: Option<&str>) -> axum::http::request::Builder {
    let builder = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    match key {
        Some(key) => builder.header("idempotency-key", key),
        None => builder,
    }
}

pub fn with_json(builder: axum::http::request::Builder, body: &Value) -> Request<Body> {
    builder
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

/// A message at account `support`; its raw input is its external id.
pub fn message_event(external_id: &str, from: &str, text: &str) -> Event {
    let message = Message {
        sender: Party {
            scheme: "email".to_owned(),
            address: from.to_owned(),
            name: Some("Anna".to_owned()),
            verified: true,
        },
        recipients: vec![Recipient {
            role: "to".to_owned(),
            address: "support@desk.example".to_owned(),
            name: None,
        }],
        subject: Some("Printer".to_owned()),
        text: text.to_owned(),
        html: None,
        attachments: Vec::new(),
        evidence: Evidence {
            thread: Some(format!("thread of {external_id}")),
            ..Evidence::default()
        },
        automatic: None,
        suppress_automatic_reply: false,
        external_ids: vec![format!("<{external_id}@example.com>")],
        identities: Vec::new(),
        fields: Default::default(),
    };
    let now = api::now();
    Event {
        id: MessageId::received("*", "email", external_id).to_string(),
        account: "support".to_owned(),
        channel: "email".to_owned(),
        thread_key: external_id.to_owned(),
        occurred_at: now,
        received_at: now,
        provider_sequence: None,
        traceparent: None,
        raw: Raw {
            content: RawContent::Inline(external_id.as_bytes().to_vec()),
            method: "POST".to_owned(),
            url: "/in/support".to_owned(),
            headers: vec![("webhook-id".to_owned(), external_id.to_owned())],
        },
        body: event::Body::MessageReceived(Box::new(message)),
    }
}

/// The same message in the thread of another.
pub fn in_thread_of(first: &str, mut event: Event) -> Event {
    if let event::Body::MessageReceived(message) = &mut event.body {
        message.evidence.thread = Some(format!("thread of {first}"));
    }
    event
}

async fn open_store(folder: &Path) -> Store {
    let store = Store::open(&format!("sqlite:{}", folder.join("desk.db").display()))
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let policies = serde_json::from_value(json!([
        { "name": "standard", "first_response": "1h", "next_response": "2h", "resolution": "8h" }
    ]));
    let rules = serde_json::from_value(json!([
        { "name": "incidents of it", "when": { "field": "text", "operator": "contains", "value": "outage" },
          "then": { "kind": "incident", "impact": "high", "urgency": "high" } }
    ]));
    let declared = Declared {
        queues: vec![Queue {
            name: "support".to_owned(),
            policy: Some("standard".to_owned()),
        }],
        policies: policies.unwrap(),
        rules: rules.unwrap(),
        ..Declared::default()
    };
    store.declare(&declared).await.unwrap();
    let plan = AccountPlan {
        name: "support".to_owned(),
        channel: "email".to_owned(),
        queue: Some("support".to_owned()),
        join: Join::Thread,
        live: false,
    };
    store.declare_accounts(&[(plan, declaration())]).await.unwrap();
    for (person, token) in [("agnes", TOKEN), ("bruno", OTHER_TOKEN)] {
        store
            .create_token(person, &sha256_hex(token.as_bytes()), Moment::from_ms(0))
            .await
            .unwrap();
    }
    store
}

fn declaration() -> Declaration {
    Declaration {
        max_chars: None,
        formats: vec!["text/plain".to_owned()],
        reply_window_ms: None,
        resend_safe: true,
        max_attachment_bytes: Some(1_000_000),
        join: Join::Thread,
        ..Declaration::default()
    }
}
