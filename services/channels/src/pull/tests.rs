//! The loop on SQLite, with a channel that does as it is told.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use model::context::AccountPlan;
use model::outbound::{Declaration, Join, Outbound};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::channel::{BadSignature, Channel, Input, Parsed, PullError, Sent, Unparsed};

/// What a pull does.
enum Step {
    Fails,
    Panics,
    /// Panics where nobody expects it.
    Breaks,
    /// Reads until it is stopped.
    Reads,
}

/// A source whose pulls do these steps in turn, and then read.
#[derive(Default)]
struct Steps {
    steps: Mutex<VecDeque<Step>>,
    /// Fences under which it was read.
    begun: Mutex<Vec<i64>>,
    said_goodbye: Mutex<usize>,
}

#[async_trait::async_trait]
impl Channel for Steps {
    fn declaration(&self) -> Declaration {
        Declaration {
            max_chars: None,
            formats: Vec::new(),
            reply_window_ms: None,
            resend_safe: false,
            max_attachment_bytes: None,
            join: Join::Open,
            ..Declaration::default()
        }
    }

    fn verify(&self, _input: &Input) -> Result<(), BadSignature> {
        unreachable!("nobody pushes")
    }

    fn parse(&self, _input: &Input) -> Result<Parsed, Unparsed> {
        unreachable!("nothing arrives")
    }

    fn pulls(&self) -> bool {
        true
    }

    fn pull<'a, 'b, 'c>(
        &'a self,
        source: &'b Source,
    ) -> Pin<Box<dyn Future<Output = Result<(), PullError>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.begun.lock().unwrap().push(source.lease.fence);
        let step = self.steps.lock().unwrap().pop_front().unwrap_or(Step::Reads);
        assert!(!matches!(step, Step::Breaks), "a fault");
        Box::pin(async move {
            match step {
                Step::Fails => {
                    return Err(PullError {
                        reason: "the server says no".to_owned(),
                    });
                }
                Step::Panics | Step::Breaks => panic!("a fault"),
                Step::Reads => source.stop.cancelled().await,
            }
            *self.said_goodbye.lock().unwrap() += 1;
            Ok(())
        })
    }

    async fn send(&self, _: &Outbound, _: &[Vec<u8>]) -> Sent {
        unreachable!("nobody sends")
    }
}

struct House {
    store: Store,
    inbox: Inbox,
    channel: Arc<Steps>,
    accounts: Accounts,
    _folder: tempfile::TempDir,
}

impl House {
    async fn open(steps: Vec<Step>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("desk.db").display());
        let store = Store::open(&url).await.unwrap();
        store.migrate().await.unwrap();
        let settings = bus::Settings {
            url: format!("local:{}", folder.path().join("log").display()),
            spool: None,
            blobs_url: format!("file:{}", folder.path().join("blobs").display()),
            partitions: 1,
            kafka: bus::KafkaSettings::default(),
        };
        let bus = bus::Bus::open(&settings, &mut Registry::default()).await.unwrap();
        let channel = Arc::new(Steps {
            steps: Mutex::new(steps.into()),
            ..Steps::default()
        });
        let plan = AccountPlan {
            name: "support".to_owned(),
            channel: "steps".to_owned(),
            queue: None,
            join: Join::Open,
            live: false,
        };
        store
            .declare_accounts(&[(plan.clone(), channel.declaration())])
            .await
            .unwrap();
        let account = Account {
            plan,
            channel: channel.clone(),
        };
        Self {
            inbox: Inbox::new(bus, &mut Registry::default()),
            store,
            channel,
            accounts: [("support".to_owned(), account)].into(),
            _folder: folder,
        }
    }

    fn pull(&self, owner: &str) -> (CancellationToken, JoinHandle<()>) {
        let stop = CancellationToken::new();
        let pulling = run(
            self.accounts.clone(),
            self.inbox.clone(),
            self.store.clone(),
            owner.to_owned(),
            Duration::from_secs(1),
            stop.clone(),
            &mut Registry::default(),
        );
        (stop, tokio::spawn(pulling))
    }

    async fn wait_for_error(&self, expected: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let account = self.store.accounts().await.unwrap().remove(0);
            if account.error.as_deref() == Some(expected) {
                assert_eq!(account.held_by.as_deref(), Some("one"));
                return;
            }
            assert!(Instant::now() < deadline, "{:?}", account.error);
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn begun(&self) -> Vec<i64> {
        self.channel.begun.lock().unwrap().clone()
    }

    async fn wait_for_begun(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.begun().len() < count {
            assert!(Instant::now() < deadline, "{:?}", self.begun());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_source_that_breaks_off_is_read_again_and_says_why() {
    let house = House::open(vec![Step::Fails, Step::Panics]).await;
    let begun = Instant::now();
    let (stop, pulling) = house.pull("one");
    house.wait_for_error("the server says no").await;
    house.wait_for_error("the channel's reader failed").await;
    house.wait_for_begun(3).await;
    // It waited in between: 1 s and 2 s, with jitter.
    assert!(begun.elapsed() >= Duration::from_millis(2_400), "{:?}", begun.elapsed());
    assert_eq!(house.begun(), [1, 1, 1]);
    stop.cancel();
    pulling.await.unwrap();
    assert_eq!(*house.channel.said_goodbye.lock().unwrap(), 1);
    assert!(house.store.lease_holders().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_panic_outside_of_the_channel_ends_no_account() {
    let house = House::open(vec![Step::Breaks]).await;
    let (stop, pulling) = house.pull("one");
    house
        .wait_for_error("reading broke because of a bug, it begins again")
        .await;
    // Its lease was dropped, and is taken anew when the period is over.
    house.wait_for_begun(2).await;
    assert_eq!(house.begun(), [1, 2]);
    stop.cancel();
    pulling.await.unwrap();
}

#[tokio::test]
async fn one_worker_reads_and_the_next_goes_on() {
    let house = House::open(Vec::new()).await;
    let (stop_one, one) = house.pull("one");
    house.wait_for_begun(1).await;
    let (stop_two, two) = house.pull("two");
    // A worker that ends gives the source over at once.
    stop_one.cancel();
    one.await.unwrap();
    house.wait_for_begun(2).await;
    assert_eq!(house.store.lease_holders().await.unwrap().remove(0).owner, "two");
    // A worker that dies loses it after the period.
    let (stop_three, three) = house.pull("three");
    two.abort();
    let _ = two.await;
    house.wait_for_begun(3).await;
    assert_eq!(house.begun(), [1, 2, 3]);
    stop_three.cancel();
    three.await.unwrap();
    drop(stop_two);
}

#[tokio::test]
async fn whoever_lost_the_lease_stops_reading() {
    let house = House::open(Vec::new()).await;
    let (stop, pulling) = house.pull("one");
    house.wait_for_begun(1).await;
    // Somebody takes it, as after a long pause of the whole process.
    let mut stolen = house.store.hold_lease("other", "one", Duration::from_secs(60)).await;
    stolen.name = "pull:support".to_owned();
    house.store.release_lease(&stolen).await.unwrap();
    let thief = house
        .store
        .hold_lease("pull:support", "thief", Duration::from_secs(60))
        .await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while *house.channel.said_goodbye.lock().unwrap() == 0 {
        assert!(Instant::now() < deadline, "it reads on");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(house.begun().len(), 1);
    house.store.release_lease(&thief).await.unwrap();
    house.wait_for_begun(2).await;
    stop.cancel();
    pulling.await.unwrap();
}
