//! Outcomes as tables; the loop on SQLite, with a receiver that listens.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::change::Changed;
use model::contact::{Contact, Identity, Owned, Party};
use model::context::{Changes, OutboxEntry, Replacing};
use model::conversation::{Conversation, Direction, StoredMessage};
use model::event::{Attachment, DeliveryState, Message};
use model::evidence::Evidence;
use model::id::{ContactId, ConversationId, MessageId};
use store::apply::Outcome;
use tokio::sync::Semaphore;

use model::outbound::{Declaration, Outbound};

use super::attempt::{MAX_ATTEMPTS, settlement};
use super::*;
use crate::channel::{BadSignature, Channel, Input, Parsed, Sent, Unparsed};
use crate::guard::Guard;
use crate::list::{self, AccountSettings, Surroundings};
use crate::signature::Keys;

fn declaration(resend_safe: bool) -> Declaration {
    Declaration {
        max_chars: Some(5),
        formats: Vec::new(),
        reply_window_ms: None,
        resend_safe,
        max_attachment_bytes: Some(10),
        join: model::outbound::Join::Open,
        ..Declaration::default()
    }
}

#[test]
fn an_outcome_settles_its_row() {
    let check = |sent: Sent, resend_safe: bool, attempts: i64, expected: &str| {
        let found = settlement(sent.clone(), &declaration(resend_safe), attempts);
        assert_eq!(outcome(&found), expected, "{sent:?} {resend_safe} {attempts}");
    };
    let error = || "x".to_owned();
    let after = |after: Option<u64>| Sent::Later {
        after: after.map(Duration::from_secs),
        error: error(),
    };
    let external_ids = Vec::new();
    check(Sent::Accepted { external_ids }, false, 0, "sent");
    check(Sent::Refused { error: error() }, true, 0, "failed");
    check(after(None), false, 0, "retry");
    check(after(None), false, 78, "retry");
    check(after(None), false, 79, "failed");
    check(Sent::Broken { error: error() }, false, 79, "retry");
    check(Sent::Unknown { error: error() }, true, 0, "retry");
    check(Sent::Unknown { error: error() }, true, 79, "uncertain");
    check(Sent::Unknown { error: error() }, false, 0, "uncertain");
}

#[test]
fn a_message_that_ends_its_sender_is_not_sent_for_ever() {
    let check = |resend_safe: bool, attempts: i64, expected: &str| {
        let found = interrupted(&declaration(resend_safe), attempts);
        assert_eq!(outcome(&found), expected, "{resend_safe} {attempts}");
    };
    check(true, 1, "retry");
    check(true, 7, "retry");
    check(true, 8, "uncertain");
    check(true, MAX_ATTEMPTS, "uncertain");
    check(false, 1, "uncertain");
}

#[test]
fn an_outcome_that_is_refused_stays_what_it_is() {
    let refused = [
        Sent::Accepted {
            external_ids: vec!["x".repeat(10_000)],
        },
        Sent::Refused { error: "x".to_owned() },
        Sent::Unknown { error: "x".to_owned() },
    ];
    for sent in refused {
        let settlement = settlement(sent, &declaration(false), 0);
        let bare_one = bare(&settlement);
        assert_ne!(bare_one, settlement);
        assert_eq!(outcome(&bare_one), outcome(&settlement));
        // Refused again it is a fault: nothing is left to take out.
        assert_eq!(bare(&bare_one), bare_one);
    }
}

#[test]
fn a_retry_waits_as_long_as_the_provider_asks() {
    let check = |after_s: Option<u64>, attempts: i64, least_s: i64, most_s: i64| {
        let before = now();
        let sent = Sent::Later {
            after: after_s.map(Duration::from_secs),
            error: String::new(),
        };
        let Settlement::Retry { at, .. } = settlement(sent, &declaration(true), attempts) else {
            panic!("no retry");
        };
        let wait_s = at.since_ms(before) / 1000;
        assert!((least_s..=most_s).contains(&wait_s), "{after_s:?} {attempts}: {wait_s}");
    };
    check(None, 0, 3, 7);
    check(None, 1, 7, 13);
    check(None, 40, 2_800, 4_400);
    check(Some(600), 0, 600, 601);
    check(Some(1), 1, 7, 13);
}

/// A store, a log's blobs, and an account that delivers by webhook to a receiver.
struct House {
    store: Store,
    blobs: bus::Blobs,
    receiver: Receiver,
    accounts: Accounts,
    _folder: tempfile::TempDir,
}

/// What a receiver answers to a text, 200 without an entry; and what it got.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<HashMap<String, u16>>>,
    got: Arc<Mutex<Vec<String>>>,
    /// Answers only while it holds a permit for each.
    gate: Option<Arc<Semaphore>>,
}

async fn receive(State(receiver): State<Receiver>, Json(post): Json<serde_json::Value>) -> StatusCode {
    let text = post["text"].as_str().unwrap().to_owned();
    receiver.got.lock().unwrap().push(text.clone());
    if let Some(gate) = &receiver.gate {
        gate.acquire().await.unwrap().forget();
    }
    let status = receiver.answers.lock().unwrap().get(&text).copied().unwrap_or(200);
    StatusCode::from_u16(status).unwrap()
}

impl Receiver {
    fn got(&self) -> Vec<String> {
        self.got.lock().unwrap().clone()
    }

    fn answer(&self, text: &str, status: u16) {
        self.answers.lock().unwrap().insert(text.to_owned(), status);
    }

    async fn listen(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(receive).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }
}

impl House {
    async fn open(receiver: Receiver) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite:{}", folder.path().join("desk.db").display()))
            .await
            .unwrap();
        store.migrate().await.unwrap();
        let settings = bus::Settings {
            url: format!("local:{}", folder.path().join("log").display()),
            spool: None,
            blobs_url: format!("file:{}", folder.path().join("blobs").display()),
            partitions: 1,
            kafka: bus::KafkaSettings::default(),
        };
        let bus = bus::Bus::open(&settings, &mut Registry::default()).await.unwrap();
        let surroundings = Surroundings {
            keys: Keys::new(vec![vec![1; 32]]).unwrap(),
            public_url: String::new(),
            http: Guard::new(false).unwrap(),
            calendars: Vec::new(),
        };
        let settings = AccountSettings {
            name: "shop".to_owned(),
            channel: "webhook".to_owned(),
            queue: None,
            join: None,
            rest: format!(
                "secrets = ['whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=']
                deliver_url = '{}'
                allow_private = true",
                receiver.listen().await
            )
            .parse()
            .unwrap(),
        };
        let accounts = list::build(&[settings], &surroundings).unwrap();
        let declared = accounts
            .values()
            .map(|account| (account.plan.clone(), account.channel.declaration()));
        store.declare_accounts(&declared.collect::<Vec<_>>()).await.unwrap();
        Self {
            store,
            blobs: bus.blobs().clone(),
            receiver,
            accounts,
            _folder: folder,
        }
    }

    /// Begins to deliver; ends with the token.
    fn deliver(&self, owner: &str) -> (CancellationToken, tokio::task::JoinHandle<Result<(), store::Error>>) {
        let stop = CancellationToken::new();
        let delivering = run(
            self.accounts.clone(),
            self.store.clone(),
            self.blobs.clone(),
            owner.to_owned(),
            Duration::from_secs(2),
            stop.clone(),
            &mut Registry::default(),
        );
        (stop, tokio::spawn(delivering))
    }

    /// Writes these texts as messages of one new conversation.
    async fn write(&self, conversation: &str, texts: &[&str]) {
        let cause = MessageId::received("shop", "webhook", conversation);
        let contact_id = ContactId::met_by(&cause);
        let identity = Identity {
            scheme: "webhook/shop".to_owned(),
            address: conversation.to_owned(),
            verified: true,
        };
        let mut row = Conversation {
            id: ConversationId::begun_by(&cause),
            account: "shop".to_owned(),
            channel: "webhook".to_owned(),
            contact_id: contact_id.clone(),
            subject: None,
            thread: conversation.to_owned(),
            thread_name: None,
            ticket_id: None,
            participants: [identity.clone()].into(),
            suggested: None,
            consent: None,
            epoch: 1,
            last_sequence: 0,
            last_message_at: now(),
            created_at: now(),
            version: 0,
        };
        for text in texts {
            let expected_version = row.version;
            row.version += 1;
            row.last_sequence += 1;
            let mut changes = Changes::default();
            if expected_version == 0 {
                changes.contacts = vec![Contact {
                    id: contact_id.clone(),
                    name: None,
                    identity: identity.clone(),
                    created_at: now(),
                    head: None,
                    version: 0,
                }];
                changes.identities = vec![Owned {
                    identity: identity.clone(),
                    contact_id: contact_id.clone(),
                    proof: None,
                }];
            }
            changes.messages = vec![self.message(&row, text)];
            changes.outbox = vec![OutboxEntry {
                message_id: id(text),
                conversation_id: row.id.clone(),
                account: "shop".to_owned(),
                due_at: now(),
            }];
            changes.conversations = [(
                row.id.clone(),
                Replacing {
                    expected_version,
                    row: row.clone(),
                },
            )]
            .into();
            assert_eq!(self.store.commit(&changes).await.unwrap(), Outcome::Applied);
        }
    }

    fn message(&self, conversation: &Conversation, text: &str) -> StoredMessage {
        StoredMessage {
            id: id(text),
            conversation_id: conversation.id.clone(),
            account: "shop".to_owned(),
            direction: Direction::Outbound,
            author: "ann".to_owned(),
            message: Message {
                sender: Party {
                    scheme: "webhook/shop".to_owned(),
                    address: "shop".to_owned(),
                    name: None,
                    verified: true,
                },
                recipients: Vec::new(),
                subject: None,
                text: text.to_owned(),
                html: None,
                attachments: match text.strip_prefix("with file ") {
                    Some(sha256) => vec![file(sha256)],
                    None => Vec::new(),
                },
                evidence: Evidence::default(),
                automatic: None,
                suppress_automatic_reply: false,
                external_ids: vec![id(text).to_string()],
                identities: Vec::new(),
                fields: Default::default(),
            },
            occurred_at: now(),
            received_at: now(),
            provider_sequence: None,
            changed: Changed::default(),
            sequence: Some(conversation.last_sequence),
            delivery: Some(DeliveryState::Queued),
            delivery_error: None,
            raw: None,
            request_sha256: None,
        }
    }

    async fn state(&self, text: &str) -> (DeliveryState, String) {
        let message = self.store.message(&id(text)).await.unwrap().unwrap();
        (message.delivery.unwrap(), message.delivery_error.unwrap_or_default())
    }

    async fn wait_for(&self, text: &str, expected: DeliveryState) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (state, error) = self.state(text).await;
            if state == expected {
                return error;
            }
            assert!(Instant::now() < deadline, "{text} is {state:?}: {error}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_for_got(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.receiver.got().len() < count {
            assert!(Instant::now() < deadline, "{:?}", self.receiver.got());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn id(text: &str) -> MessageId {
    MessageId::authored("ann", text)
}

fn file(sha256: &str) -> Attachment {
    Attachment {
        name: "f".to_owned(),
        media_type: "text/plain".to_owned(),
        size_bytes: 5,
        sha256: sha256.to_owned(),
        ..Attachment::default()
    }
}

#[tokio::test]
async fn conversations_go_side_by_side_and_each_in_order() {
    let gate = Arc::new(Semaphore::new(0));
    let receiver = Receiver {
        gate: Some(gate.clone()),
        ..Receiver::default()
    };
    let house = House::open(receiver).await;
    house.write("a", &["a1", "a2", "a3"]).await;
    house.write("b", &["b1"]).await;
    let (stop, delivering) = house.deliver("one");
    // Nobody is answered yet: of each conversation the oldest is under way.
    house.wait_for_got(2).await;
    let mut got = house.receiver.got();
    got.sort();
    assert_eq!(got, ["a1", "b1"]);
    gate.add_permits(100);
    for text in ["a1", "a2", "a3", "b1"] {
        house.wait_for(text, DeliveryState::Sent).await;
    }
    let of_a: Vec<String> = house
        .receiver
        .got()
        .into_iter()
        .filter(|text| text.starts_with('a'))
        .collect();
    assert_eq!(of_a, ["a1", "a2", "a3"]);
    // What is written while it waits goes out too.
    house.write("c", &["c1"]).await;
    house.wait_for("c1", DeliveryState::Sent).await;
    stop.cancel();
    delivering.await.unwrap().unwrap();
    assert!(house.store.lease_holders().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_refused_fails_and_what_is_not_taken_waits() {
    let house = House::open(Receiver::default()).await;
    let blob = house.blobs.put(b"hello".to_vec()).await.unwrap();
    let (with_file, without_file) = (format!("with file {blob}"), format!("with file {}", "0".repeat(64)));
    house.receiver.answer("refused", 400);
    house.receiver.answer("later", 503);
    house.write("a", &["refused", "next"]).await;
    house.write("b", &["later"]).await;
    house.write("c", &[&without_file, &with_file]).await;
    let (stop, delivering) = house.deliver("one");
    let error = house.wait_for("refused", DeliveryState::Failed).await;
    assert!(error.contains("400"), "{error}");
    house.wait_for("next", DeliveryState::Sent).await;
    let error = house.wait_for(&without_file, DeliveryState::Failed).await;
    assert!(error.contains("are missing"), "{error}");
    house.wait_for(&with_file, DeliveryState::Sent).await;
    house.receiver.answer("later", 200);
    house.wait_for("later", DeliveryState::Sent).await;
    let tries = house.receiver.got().iter().filter(|text| *text == "later").count();
    assert_eq!(tries, 2);
    stop.cancel();
    delivering.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_finishes_what_is_under_way_and_claims_no_more() {
    let gate = Arc::new(Semaphore::new(0));
    let receiver = Receiver {
        gate: Some(gate.clone()),
        ..Receiver::default()
    };
    let house = House::open(receiver).await;
    house.write("a", &["a1", "a2"]).await;
    let (stop, delivering) = house.deliver("one");
    house.wait_for_got(1).await;
    stop.cancel();
    gate.add_permits(100);
    delivering.await.unwrap().unwrap();
    assert_eq!(house.state("a1").await.0, DeliveryState::Sent);
    assert_eq!(house.state("a2").await.0, DeliveryState::Queued);
    let (stop, delivering) = house.deliver("two");
    house.wait_for("a2", DeliveryState::Sent).await;
    assert_eq!(house.receiver.got(), ["a1", "a2"]);
    stop.cancel();
    delivering.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_dead_sender_left_is_sent_again_only_where_that_is_safe() {
    for (resend_safe, expected) in [(true, DeliveryState::Sent), (false, DeliveryState::Uncertain)] {
        let gate = Arc::new(Semaphore::new(0));
        let receiver = Receiver {
            gate: Some(gate.clone()),
            ..Receiver::default()
        };
        let mut house = House::open(receiver).await;
        for account in house.accounts.values_mut() {
            account.channel = Arc::new(Declares {
                channel: account.channel.clone(),
                resend_safe,
                panics: Mutex::default(),
            });
        }
        house.write("a", &["a1", "a2"]).await;
        let (_stop, delivering) = house.deliver("one");
        house.wait_for_got(1).await;
        // As a crash: nothing is settled, nothing released.
        delivering.abort();
        let _ = delivering.await;
        assert_eq!(house.state("a1").await.0, DeliveryState::Queued);
        gate.add_permits(100);
        let (stop, delivering) = house.deliver("two");
        house.wait_for("a1", expected).await;
        house.wait_for("a2", DeliveryState::Sent).await;
        let expected_got: &[&str] = if resend_safe {
            &["a1", "a1", "a2"]
        } else {
            &["a1", "a2"]
        };
        assert_eq!(house.receiver.got(), expected_got);
        stop.cancel();
        delivering.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_a_channel_cannot_carry_is_not_given_to_it() {
    let mut house = House::open(Receiver::default()).await;
    let file = format!("with file {}", "0".repeat(64));
    house.write("a", &[&file]).await;
    // It carried files when this was written.
    for account in house.accounts.values_mut() {
        account.channel = Arc::new(Declares {
            channel: account.channel.clone(),
            resend_safe: true,
            panics: Mutex::default(),
        });
    }
    let (stop, delivering) = house.deliver("one");
    let error = house.wait_for(&file, DeliveryState::Failed).await;
    assert_eq!(error, "this channel carries no attachments");
    stop.cancel();
    delivering.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_costs_one_attempt_and_no_account() {
    // While it sends; and where nobody expects one: the account's loop begins again.
    for panics in [vec!["send_deadline"], vec!["declaration", "declaration"]] {
        let mut house = House::open(Receiver::default()).await;
        let is_loop = panics.len() > 1;
        for account in house.accounts.values_mut() {
            account.channel = Arc::new(Declares {
                channel: account.channel.clone(),
                resend_safe: is_loop,
                panics: Mutex::new(panics.clone()),
            });
        }
        house.write("a", &["a1", "a2"]).await;
        let (stop, delivering) = house.deliver("one");
        if is_loop {
            let deadline = Instant::now() + Duration::from_secs(20);
            while house.store.accounts().await.unwrap()[0].error.is_none() {
                assert!(Instant::now() < deadline, "the account says nothing");
                sleep(Duration::from_millis(20)).await;
            }
            house.wait_for("a1", DeliveryState::Sent).await;
        } else {
            let error = house.wait_for("a1", DeliveryState::Uncertain).await;
            assert_eq!(error, "the channel failed while sending");
        }
        house.wait_for("a2", DeliveryState::Sent).await;
        stop.cancel();
        delivering.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_broken_account_is_tried_out_until_it_works() {
    let mut house = House::open(Receiver::default()).await;
    for account in house.accounts.values_mut() {
        account.channel = Arc::new(Declares {
            channel: account.channel.clone(),
            resend_safe: true,
            panics: Mutex::default(),
        });
    }
    let error = async || house.store.accounts().await.unwrap().remove(0).error;
    house.store.account_sent("shop", Some("revoked"), now()).await.unwrap();
    assert_eq!(error().await.as_deref(), Some("revoked"));
    let (stop, delivering) = house.deliver("one");
    let deadline = Instant::now() + Duration::from_secs(20);
    while error().await.is_some() {
        assert!(Instant::now() < deadline, "it stays broken");
        sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    delivering.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_fault_of_the_store_ends_delivery() {
    let house = House::open(Receiver::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("desk.db").display());
    // A schema that is not there does not come by waiting.
    let store = Store::open(&url).await.unwrap();
    let house = House { store, ..house };
    let (_stop, delivering) = house.deliver("one");
    let ended = timeout(Duration::from_secs(20), delivering).await.unwrap().unwrap();
    assert!(matches!(ended, Err(store::Error::Settings(_))), "{ended:?}");
}

/// A channel that declares something else than it would.
struct Declares {
    channel: Arc<dyn Channel>,
    resend_safe: bool,
    /// What it panics in, once each.
    panics: Mutex<Vec<&'static str>>,
}

impl Declares {
    fn may_panic(&self, place: &str) {
        let next = self.panics.lock().unwrap().pop_if(|next| *next == place);
        assert_eq!(next, None, "a fault");
    }
}

#[async_trait::async_trait]
impl Channel for Declares {
    fn declaration(&self) -> Declaration {
        self.may_panic("declaration");
        Declaration {
            resend_safe: self.resend_safe,
            max_attachment_bytes: None,
            ..self.channel.declaration()
        }
    }

    fn verify(&self, input: &Input) -> Result<(), BadSignature> {
        self.channel.verify(input)
    }

    fn parse(&self, input: &Input) -> Result<Parsed, Unparsed> {
        self.channel.parse(input)
    }

    async fn send(&self, outbound: &Outbound, files: &[Vec<u8>]) -> Sent {
        self.channel.send(outbound, files).await
    }

    async fn try_out(&self) -> Option<Result<Vec<String>, String>> {
        unreachable!("nobody has asked to change anything at the vendor")
    }

    async fn works(&self) -> bool {
        true
    }

    fn send_deadline(&self) -> Duration {
        self.may_panic("send_deadline");
        self.channel.send_deadline()
    }
}
