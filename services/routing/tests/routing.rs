//! Routing through its public doors, on the embedded log and database.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use bus::Bus;
use model::calendar::Calendar;
use model::contact::Party;
use model::context::{AccountPlan, Queue};
use model::event::{Body, Event, Message, Raw, RawContent};
use model::evidence::Evidence;
use model::id::MessageId;
use model::outbound::{Declaration, Join};
use model::sla::{ClockState, Metric, Policy};
use model::ticket::{Change, Ticket};
use model::time::Moment;
use prometheus_client::registry::Registry;
use routing::{Metrics, Settings};
use store::Store;
use store::book::Declared;
use store::tickets::TicketFilter;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

struct Desk {
    bus: Bus,
    store: Store,
    stop: CancellationToken,
    loops: JoinSet<Result<(), routing::Error>>,
    folder: tempfile::TempDir,
}

async fn open_log(folder: &Path, name: &str) -> Bus {
    let settings = bus::Settings {
        url: format!("local:{}", folder.join(name).display()),
        spool: None,
        blobs_url: format!("file:{}", folder.join("blobs").display()),
        partitions: 1,
        kafka: bus::KafkaSettings::default(),
    };
    Bus::open(&settings, &mut Registry::default()).await.unwrap()
}

impl Desk {
    async fn open(policies: Vec<Policy>, calendars: Vec<Calendar>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bus = open_log(folder.path(), "log.db").await;
        let database = folder.path().join("desk.db");
        let store = Store::open(&format!("sqlite:{}", database.display())).await.unwrap();
        store.migrate().await.unwrap();
        let queue = Queue {
            name: "support".to_owned(),
            policy: policies.first().map(|policy| policy.name.clone()),
        };
        let declared = Declared {
            queues: vec![queue],
            calendars,
            policies,
            ..Declared::default()
        };
        store.declare(&declared).await.unwrap();
        let plan = AccountPlan {
            name: "demo".to_owned(),
            channel: "webhook".to_owned(),
            queue: None,
            join: Join::Thread,
            live: false,
        };
        let declaration = Declaration {
            max_chars: None,
            formats: vec!["text/plain".to_owned()],
            reply_window_ms: None,
            resend_safe: true,
            max_attachment_bytes: None,
            join: Join::Thread,
            ..Declaration::default()
        };
        store.declare_accounts(&[(plan, declaration)]).await.unwrap();
        Self {
            bus,
            store,
            stop: CancellationToken::new(),
            loops: JoinSet::new(),
            folder,
        }
    }

    fn start_router(&mut self) {
        let settings = Settings {
            group: "routers".to_owned(),
            readers: 1,
        };
        let metrics = Metrics::new(&mut Registry::default());
        self.loops.spawn(routing::run(
            settings,
            self.bus.clone(),
            self.store.clone(),
            metrics,
            self.stop.clone(),
        ));
    }

    fn start_clocks(&mut self) {
        let metrics = Metrics::new(&mut Registry::default());
        self.loops
            .spawn(routing::clock::run(self.store.clone(), metrics, self.stop.clone()));
    }

    /// Waits until everything published is applied.
    async fn quiet(&self) {
        let end = self.bus.end_offsets(bus::EVENTS).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let offsets = self.store.offsets(bus::EVENTS).await.unwrap();
            if end.iter().all(|end| offsets.contains(end) || end.1 == 0) {
                return;
            }
            assert!(Instant::now() < deadline, "not quiet: {offsets:?} of {end:?}");
            tokio::task::yield_now().await;
        }
    }

    async fn tickets(&self) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> = Vec::new();
        loop {
            let before = tickets.last().map(|ticket| (ticket.opened_at, ticket.id.clone()));
            let page = self
                .store
                .list_tickets(&TicketFilter::default(), before, 200)
                .await
                .unwrap();
            if page.is_empty() {
                return tickets;
            }
            tickets.extend(page);
        }
    }

    async fn stop_loops(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.loops.join_next().await {
            ended.unwrap().unwrap();
        }
        self.stop = CancellationToken::new();
    }

    async fn close(mut self) {
        self.stop_loops().await;
        self.bus.stop(Duration::from_secs(5)).await;
    }
}

fn event(external_id: &str, thread: &str, text: &str) -> Event {
    let now = Moment::from(SystemTime::now());
    Event {
        id: MessageId::received("demo", "webhook", external_id).to_string(),
        account: "demo".to_owned(),
        channel: "webhook".to_owned(),
        thread_key: thread.to_owned(),
        occurred_at: now,
        received_at: now,
        provider_sequence: None,
        traceparent: None,
        raw: Raw {
            content: RawContent::Inline(text.as_bytes().to_vec()),
            ..Raw::default()
        },
        body: Body::MessageReceived(Box::new(Message {
            sender: Party {
                scheme: "webhook/demo".to_owned(),
                address: format!("{thread}@example.com"),
                name: None,
                verified: true,
            },
            recipients: Vec::new(),
            subject: None,
            text: text.to_owned(),
            html: None,
            attachments: Vec::new(),
            evidence: Evidence {
                thread: Some(thread.to_owned()),
                ..Evidence::default()
            },
            automatic: None,
            suppress_automatic_reply: false,
            external_ids: Vec::new(),
            identities: Vec::new(),
            fields: Default::default(),
        })),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_counts_once_however_often_it_stands_in_the_log() {
    let mut desk = Desk::open(Vec::new(), Vec::new()).await;
    for _ in 0..2 {
        for n in 0..300 {
            desk.bus
                .publish(event(&n.to_string(), &format!("t{}", n % 30), "hello"))
                .await
                .unwrap();
        }
    }
    desk.start_router();
    desk.quiet().await;
    let tickets = desk.tickets().await;
    assert_eq!(tickets.len(), 30);
    let numbers: BTreeSet<&str> = tickets.iter().map(|ticket| ticket.number.as_str()).collect();
    assert_eq!(numbers.len(), 30);
    for ticket in &tickets {
        let events = desk.store.ticket_events(&ticket.id).await.unwrap();
        let received = events
            .iter()
            .filter(|event| matches!(event.change, Change::CustomerMessageReceived { .. }));
        assert_eq!(received.count(), 10, "{}", ticket.number);
        let book = desk.store.book().await.unwrap();
        assert_eq!(
            Ticket::fold(&ticket.id, &events, &book.sla).as_ref(),
            Some(ticket),
            "a ticket is its fold"
        );
    }
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_refuses_is_parked_alone() {
    let mut desk = Desk::open(Vec::new(), Vec::new()).await;
    for n in 0..100 {
        let mut event = event(&n.to_string(), &format!("t{n}"), "hello");
        if n == 42 {
            let Body::MessageReceived(message) = &mut event.body else {
                unreachable!("a message")
            };
            message.sender.address = "no database\u{0}takes this".to_owned();
        }
        desk.bus.publish(event).await.unwrap();
    }
    desk.start_router();
    desk.quiet().await;
    assert_eq!(desk.tickets().await.len(), 99);
    let parked = desk.store.list_parked(None, 10).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert!(!parked[0].quarantined);
    let (input, replayed_at) = desk.store.parked_input(&parked[0].id).await.unwrap().unwrap();
    assert_eq!(input.raw.content, RawContent::Inline(b"hello".to_vec()));
    assert_eq!(replayed_at, None);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_made_anew_under_a_kept_database_is_a_fault() {
    let mut desk = Desk::open(Vec::new(), Vec::new()).await;
    for n in 0..3 {
        desk.bus.publish(event(&n.to_string(), "t", "hello")).await.unwrap();
    }
    desk.start_router();
    desk.quiet().await;
    desk.stop_loops().await;
    // The same log: a new router finds it where the store stands.
    desk.start_router();
    desk.bus.publish(event("3", "t", "and again")).await.unwrap();
    desk.quiet().await;
    desk.stop_loops().await;

    desk.bus.stop(Duration::from_secs(5)).await;
    desk.bus = open_log(desk.folder.path(), "another.db").await;
    desk.bus.publish(event("4", "new", "unheard")).await.unwrap();
    desk.start_router();
    let ended = tokio::time::timeout(Duration::from_secs(20), desk.loops.join_next());
    let ended = ended.await.unwrap().unwrap().unwrap();
    let Err(routing::Error::Bus(bus::Error::Settings(reason))) = ended else {
        panic!("not a fault: {ended:?}");
    };
    for part in [
        "ends at offset 1",
        "read up to 4",
        "belong together",
        "table partitions",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(desk.store.offsets(bus::EVENTS).await.unwrap(), [(0, 4)]);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_clock_rings_once_however_many_routers_run() {
    let policy = serde_json::json!({ "name": "strict", "first_response": "1m" });
    let mut desk = Desk::open(vec![serde_json::from_value(policy).unwrap()], Vec::new()).await;
    // Its warning is due, and its breach in four seconds.
    let mut late = event("1", "t1", "56 seconds ago");
    late.received_at = late.received_at.plus_ms(-56_000);
    late.occurred_at = late.received_at;
    desk.bus.publish(late).await.unwrap();
    for _ in 0..3 {
        desk.start_clocks();
    }
    desk.start_router();
    desk.quiet().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let ticket = loop {
        let ticket = desk.tickets().await.remove(0);
        if ticket.clocks.iter().all(|clock| clock.next_at.is_none()) {
            break ticket;
        }
        assert!(Instant::now() < deadline, "{:?}", ticket.clocks);
        tokio::task::yield_now().await;
    };
    let clock = ticket
        .clocks
        .iter()
        .find(|clock| clock.metric == Metric::FirstResponse)
        .unwrap();
    assert_eq!(clock.state, ClockState::Running);
    assert_eq!(clock.breached_at, Some(ticket.opened_at.plus_ms(60_000)));
    let events = desk.store.ticket_events(&ticket.id).await.unwrap();
    let rings = |is: fn(&Change) -> bool| events.iter().filter(|event| is(&event.change)).count();
    assert_eq!(rings(|change| matches!(change, Change::ClockWarned { .. })), 1);
    assert_eq!(rings(|change| matches!(change, Change::ClockBreached { .. })), 1);
    desk.close().await;
}
