//! From a message with a reference to its bytes, on a real store.

use std::sync::Mutex;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::event::{Attachment, AttachmentState, Body, Event};
use model::id::MessageId;
use model::inbound::What;
use store::apply::Outcome;
use tokio::time::Instant;

use super::*;
use crate::channel::Input;
use crate::list::{self, AccountSettings, Surroundings};
use crate::signature::Keys;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n a picture";

/// What the file server answers, as (status, body).
type Answer = Arc<Mutex<(u16, Vec<u8>)>>;

struct House {
    store: Store,
    blobs: bus::Blobs,
    accounts: Accounts,
    answer: Answer,
    url: String,
    _folder: tempfile::TempDir,
}

async fn give(State(answer): State<Answer>) -> Response {
    let (status, body) = answer.lock().unwrap().clone();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

impl House {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("desk.db").display());
        let store = Store::open(&url).await.unwrap();
        store.migrate().await.unwrap();
        let surroundings = Surroundings {
            keys: Keys::new(vec![vec![1; 32]]).unwrap(),
            public_url: String::new(),
            http: Guard::new(false).unwrap(),
            calendars: Default::default(),
        };
        let account = |name: &str, rest: &str| AccountSettings {
            name: name.to_owned(),
            channel: "webhook".to_owned(),
            queue: None,
            join: None,
            rest: format!("secrets = ['whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=']\n{rest}")
                .parse()
                .unwrap(),
        };
        let settings = [account("open", "fetch_private = true"), account("strict", "")];
        let accounts = list::build(&settings, &surroundings).unwrap();
        let declared = accounts
            .values()
            .map(|account| (account.plan.clone(), account.channel.declaration()));
        store.declare_accounts(&declared.collect::<Vec<_>>()).await.unwrap();
        let answer = Answer::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(give).with_state(answer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            store,
            blobs: bus::Blobs::open(&format!("file:{}", folder.path().join("blobs").display())).unwrap(),
            accounts,
            answer,
            url,
            _folder: folder,
        }
    }

    fn answers(&self, status: u16, body: &[u8]) {
        *self.answer.lock().unwrap() = (status, body.to_vec());
    }

    /// A post with a reference, parsed and decided as if it came by the log.
    async fn receive(&self, account: &str, webhook_id: &str) -> MessageId {
        let file = serde_json::json!({ "name": "photo.png", "media_type": "image/png", "url": self.url });
        let body = serde_json::json!({ "from": { "address": "ann" }, "text": "Look.", "attachments": [file] });
        let input = Input {
            method: "POST".to_owned(),
            url: format!("/in/{account}"),
            headers: vec![("webhook-id".to_owned(), webhook_id.to_owned())],
            body: body.to_string().into(),
            received_at: now(),
        };
        let parsed = self.accounts[account].channel.parse(&input).unwrap();
        let What::Message(message) = parsed.events.into_iter().next().unwrap().what else {
            panic!("no message");
        };
        let id = MessageId::received(account, "webhook", webhook_id);
        let event = Event {
            id: id.to_string(),
            account: account.to_owned(),
            channel: "webhook".to_owned(),
            thread_key: webhook_id.to_owned(),
            occurred_at: now(),
            received_at: now(),
            provider_sequence: None,
            traceparent: None,
            raw: input.into_raw(),
            body: Body::MessageReceived(message),
        };
        let book = self.store.book().await.unwrap();
        let context = self.store.context(book, "events", 0, &[&event]).await.unwrap();
        let changes = model::decide::decide(&event, &context, now());
        assert_eq!(self.store.commit(&changes).await.unwrap(), Outcome::Applied);
        id
    }

    /// Fetches in the background until the token stops it.
    fn fetch(&self, limits: Limits) -> CancellationToken {
        let stop = CancellationToken::new();
        let guards = (Guard::new(false).unwrap(), Guard::new(true).unwrap());
        let fetching = run(
            self.accounts.clone(),
            self.store.clone(),
            self.blobs.clone(),
            limits,
            guards,
            stop.clone(),
            &mut Registry::default(),
        );
        tokio::spawn(fetching);
        stop
    }

    async fn attachment(&self, id: &MessageId) -> Attachment {
        let message = self.store.message(id).await.unwrap().unwrap();
        message.message.attachments.into_iter().next().unwrap()
    }

    async fn wait_for(&self, id: &MessageId, state: AttachmentState) -> Attachment {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let attachment = self.attachment(id).await;
            if attachment.state() == state {
                return attachment;
            }
            assert!(Instant::now() < deadline, "{attachment:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What a fetch by hand makes of the next due file, however long that is from now.
    async fn fetch_by_hand(&self, limits: Limits) -> Option<MediaOutcome> {
        let fetcher = Fetcher {
            store: self.store.clone(),
            blobs: self.blobs.clone(),
            limits,
            public: Guard::new(false).unwrap(),
            private: Guard::new(true).unwrap(),
            fetches: Family::default(),
        };
        let in_a_day = now().plus_ms(24 * 3_600_000);
        let claimed = self.store.claim_media("open", in_a_day, in_a_day, 1).await.unwrap();
        let claimed = claimed.into_iter().next()?;
        let outcome = outcome(fetcher.fetch(&self.accounts["open"], &claimed).await, claimed.attempts);
        assert!(self.store.settle_media(&claimed, &outcome, now()).await.unwrap());
        Some(outcome)
    }
}

#[tokio::test]
async fn a_reference_becomes_a_file() {
    let house = House::open().await;
    house.answers(200, PNG);
    let id = house.receive("open", "1").await;
    let waiting = house.attachment(&id).await;
    assert_eq!((waiting.state(), waiting.size_bytes), (AttachmentState::Pending, 0));
    assert_eq!(house.store.media_pending().await.unwrap(), 1);
    let stop = house.fetch(Limits::default());
    let here = house.wait_for(&id, AttachmentState::Here).await;
    let expected = Attachment {
        source: Some(house.url.clone()),
        ..Attachment::here("photo.png", "image/png", PNG)
    };
    assert_eq!(here, expected);
    assert_eq!(house.blobs.get(&here.sha256).await.unwrap().as_deref(), Some(PNG));
    assert_eq!(house.store.media_pending().await.unwrap(), 0);
    assert!(!house.store.is_unused(&here.sha256).await.unwrap());
    let told = house.store.next_announcements(100).await.unwrap();
    assert!(told.iter().any(|told| told.kind == "attachment.fetched"), "{told:?}");
    stop.cancel();
}

#[tokio::test]
async fn what_cannot_be_had_says_why_and_can_be_asked_for_again() {
    let house = House::open().await;
    let stop = house.fetch(Limits {
        max_bytes: 100,
        ..Limits::default()
    });
    let table: [(&str, u16, &[u8], &str); 5] = [
        ("gone", 404, b"", "the server answered 404"),
        (
            "login",
            200,
            b"<!DOCTYPE html><html>Sign in</html>",
            "a web page instead of the file",
        ),
        ("program", 200, b"MZ\x90\x00\x03", "portable-executable are not taken"),
        ("large", 200, &[b'x'; 101], "larger than 100 bytes"),
        ("redirect", 302, b"", "the server answered 302"),
    ];
    for (webhook_id, status, body, expected) in table {
        house.answers(status, body);
        let id = house.receive("open", webhook_id).await;
        let lost = house.wait_for(&id, AttachmentState::Lost).await;
        let reason = lost.lost.unwrap();
        assert!(reason.contains(expected), "{webhook_id}: {reason}");
        assert_eq!(lost.sha256, "");
        house.answers(200, PNG);
        assert_eq!(house.store.fetch_again(&id, 0, now()).await.unwrap(), Some(true));
        house.wait_for(&id, AttachmentState::Here).await;
        assert_eq!(house.store.fetch_again(&id, 0, now()).await.unwrap(), Some(false));
        assert_eq!(house.store.fetch_again(&id, 1, now()).await.unwrap(), None);
    }
    let id = house.receive("strict", "private").await;
    let lost = house.wait_for(&id, AttachmentState::Lost).await;
    assert!(lost.lost.unwrap().contains("127.0.0.1 is a private"));
    stop.cancel();
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again_and_then_given_up() {
    let house = House::open().await;
    house.answers(500, b"");
    let id = house.receive("open", "1").await;
    let retry = house.fetch_by_hand(Limits::default()).await.unwrap();
    assert!(matches!(retry, MediaOutcome::Retry { .. }), "{retry:?}");
    assert_eq!(house.attachment(&id).await.state(), AttachmentState::Pending);
    house.answers(200, PNG);
    let here = house.fetch_by_hand(Limits::default()).await.unwrap();
    assert!(matches!(here, MediaOutcome::Here { .. }), "{here:?}");
    assert_eq!(house.fetch_by_hand(Limits::default()).await, None);

    house.answers(503, b"");
    let id = house.receive("open", "2").await;
    for _ in 1..MAX_ATTEMPTS {
        let retry = house.fetch_by_hand(Limits::default()).await.unwrap();
        assert!(matches!(retry, MediaOutcome::Retry { .. }), "{retry:?}");
    }
    house.fetch_by_hand(Limits::default()).await.unwrap();
    let lost = house.attachment(&id).await.lost.unwrap();
    assert!(
        lost.starts_with("given up after 12 attempts: the server answered 503"),
        "{lost}"
    );
}

#[tokio::test]
async fn the_files_of_a_message_are_bounded_together() {
    let house = House::open().await;
    house.answers(200, PNG);
    let id = house.receive("open", "1").await;
    let limits = Limits {
        max_message_bytes: PNG.len() as u64 - 1,
        ..Limits::default()
    };
    house.fetch_by_hand(limits).await.unwrap();
    let lost = house.attachment(&id).await.lost.unwrap();
    assert!(lost.contains("larger than"), "{lost}");
}

#[tokio::test]
async fn a_claim_of_one_that_died_falls_due_again_and_only_the_latest_settles() {
    let house = House::open().await;
    let id = house.receive("open", "1").await;
    let until = now().plus_ms(60_000);
    let first = house.store.claim_media("open", now(), until, 10).await.unwrap();
    assert_eq!(first.len(), 1);
    assert!(
        house
            .store
            .claim_media("open", now(), until, 10)
            .await
            .unwrap()
            .is_empty()
    );
    let second = house.store.claim_media("open", until, until, 10).await.unwrap();
    assert_eq!(second[0].attempts, 2);
    let lost = MediaOutcome::Lost {
        reason: "no".to_owned(),
    };
    let settle = async |claimed: &ClaimedMedia| house.store.settle_media(claimed, &lost, now()).await.unwrap();
    assert!(!settle(&first[0]).await);
    assert_eq!(house.attachment(&id).await.state(), AttachmentState::Pending);
    assert!(settle(&second[0]).await);
    assert!(!settle(&second[0]).await);
}
