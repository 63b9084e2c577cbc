//! What lies between a gateway and a Kafka that is away.

use std::time::{Duration, Instant};

use bus::{Bus, EVENTS, Error, Settings, SpoolSettings};
use model::event::{Body, RawContent};
use prometheus_client::registry::Registry;
use rdkafka::types::RDKafkaRespErr;

use crate::broker::Broker;
use crate::cases::Case;
use crate::world::{PATIENCE, World, number_of};

pub fn all() -> Vec<(&'static str, Case)> {
    vec![
        ("takes_over_and_forwards_in_order", |world| {
            Box::pin(takes_over_and_forwards_in_order(world))
        }),
        ("survives_reopening", |world| Box::pin(survives_reopening(world))),
        ("takes_over_from_a_slow_kafka", |world| {
            Box::pin(takes_over_from_a_slow_kafka(world))
        }),
        ("works_without_ever_seeing_kafka", |world| {
            Box::pin(works_without_ever_seeing_kafka(world))
        }),
        ("refuses_when_full", |world| Box::pin(refuses_when_full(world))),
        ("none_means_unavailable", |world| {
            Box::pin(none_means_unavailable(world))
        }),
        ("what_an_earlier_setting_left_is_forwarded", |world| {
            Box::pin(what_an_earlier_setting_left_is_forwarded(world))
        }),
        ("unspooled_waits_and_fails", |world| {
            Box::pin(unspooled_waits_and_fails(world))
        }),
        ("a_record_refused_as_too_large_is_made_smaller", |world| {
            Box::pin(a_record_refused_as_too_large_is_made_smaller(world))
        }),
        ("a_spooled_record_refused_as_too_large_holds_up_nothing", |world| {
            Box::pin(a_spooled_record_refused_as_too_large_holds_up_nothing(world))
        }),
        ("whatever_the_broker_answers_nothing_is_lost", |world| {
            Box::pin(whatever_the_broker_answers_nothing_is_lost(world))
        }),
        ("what_names_a_blob_waits_for_it", |world| {
            Box::pin(what_names_a_blob_waits_for_it(world))
        }),
        ("what_is_refused_for_good_is_shown_and_can_be_retried", |world| {
            Box::pin(what_is_refused_for_good_is_shown_and_can_be_retried(world))
        }),
        ("leaves_the_spool_under_load", |world| {
            Box::pin(leaves_the_spool_under_load(world))
        }),
        ("what_kafka_refuses_for_long_arrives_in_order", |world| {
            Box::pin(what_kafka_refuses_for_long_arrives_in_order(world))
        }),
        ("status_of_no_spool_is_an_error", |world| {
            Box::pin(status_of_no_spool_is_an_error(world))
        }),
    ]
}

fn with_spool(world: &World, max_bytes: u64) -> Settings {
    let path = world.folder.path().join("spool/spool.db");
    Settings {
        spool: Some(SpoolSettings { path, max_bytes }),
        ..world.settings()
    }
}

async fn open(settings: &Settings) -> Bus {
    Bus::open(settings, &mut Registry::default()).await.unwrap()
}

const ENOUGH: u64 = 1 << 30;

fn broker(world: &World) -> &Broker {
    world.broker.as_ref().unwrap()
}

async fn until_empty(bus: &Bus) {
    let deadline = Instant::now() + PATIENCE;
    while bus.pending().await.spooled_events > 0 {
        assert!(Instant::now() < deadline, "the spool did not become empty");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// First occurrences: a late copy of a spooled event is a repeat.
async fn read_once(world: &World, bus: &Bus, count: usize) -> Vec<usize> {
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let mut numbers = Vec::new();
    while numbers.len() < count {
        for event in world.read(&mut reader, 1).await {
            let number = number_of(&event);
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
    }
    numbers
}

async fn takes_over_and_forwards_in_order(world: World) {
    let mut registry = Registry::default();
    let bus = Bus::open(&with_spool(&world, ENOUGH), &mut registry).await.unwrap();
    for number in 0..10 {
        bus.publish(world.event("t", number)).await.unwrap();
    }
    until_empty(&bus).await;
    broker(&world).down();
    let began = Instant::now();
    for number in 10..60 {
        bus.publish(world.event("t", number)).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(3), "each waited for kafka");
    let pending = bus.pending().await;
    assert!(pending.spooled_events >= 49 && pending.spooled_bytes > 0 && pending.spooled_oldest_at.is_some());
    assert!(bus.has_space().await);
    let spool = world.folder.path().join("spool/spool.db");
    assert_eq!(
        bus::spool_status(&spool).await.unwrap().spooled_events,
        pending.spooled_events
    );
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("published_events_total{to=\"spool\"}"), "{text}");
    assert!(
        text.contains(&format!("spool_events {}", pending.spooled_events)),
        "{text}"
    );

    broker(&world).up();
    for number in 60..80 {
        bus.publish(world.event("t", number)).await.unwrap();
    }
    until_empty(&bus).await;
    for number in 80..100 {
        bus.publish(world.event("t", number)).await.unwrap();
    }
    let expected: Vec<usize> = (0..100).collect();
    assert_eq!(read_once(&world, &bus, 100).await, expected);
    until_empty(&bus).await;
    bus.stop(Duration::from_secs(5)).await;
}

async fn survives_reopening(world: World) {
    broker(&world).down();
    let settings = with_spool(&world, ENOUGH);
    for round in 0..3 {
        let bus = open(&settings).await;
        for number in 0..20 {
            bus.publish(world.event("t", round * 20 + number)).await.unwrap();
        }
        if round == 1 {
            bus.stop(Duration::from_secs(5)).await;
        }
    }
    broker(&world).up();
    let bus = open(&settings).await;
    until_empty(&bus).await;
    let expected: Vec<usize> = (0..60).collect();
    assert_eq!(read_once(&world, &bus, 60).await, expected);
    bus.stop(Duration::from_secs(5)).await;
}

async fn takes_over_from_a_slow_kafka(world: World) {
    let bus = open(&with_spool(&world, ENOUGH)).await;
    bus.publish(world.event("t", 0)).await.unwrap();
    broker(&world).delay(Duration::from_millis(700));
    for number in 1..20 {
        let began = Instant::now();
        bus.publish(world.event("t", number)).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    }
    broker(&world).delay(Duration::ZERO);
    until_empty(&bus).await;
    let expected: Vec<usize> = (0..20).collect();
    assert_eq!(read_once(&world, &bus, 20).await, expected);
    bus.stop(Duration::from_secs(5)).await;
}

async fn works_without_ever_seeing_kafka(world: World) {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let settings = Settings {
        url: format!("kafka:127.0.0.1:{port}"),
        ..with_spool(&world, ENOUGH)
    };
    let bus = open(&settings).await;
    for number in 0..10 {
        bus.publish(world.event("t", number)).await.unwrap();
    }
    assert_eq!(bus.pending().await.spooled_events, 10);
    assert!(bus.has_space().await);
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let read = tokio::time::timeout(Duration::from_millis(100), reader.next(1)).await;
    assert!(read.is_err(), "nobody was there to be read from");
    drop(reader);
    let began = Instant::now();
    bus.stop(Duration::from_secs(5)).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(bus);

    let bus = open(&with_spool(&world, ENOUGH)).await;
    until_empty(&bus).await;
    let expected: Vec<usize> = (0..10).collect();
    assert_eq!(read_once(&world, &bus, 10).await, expected);
    bus.stop(Duration::from_secs(5)).await;
}

async fn refuses_when_full(world: World) {
    broker(&world).down();
    let settings = with_spool(&world, 20_000);
    let bus = open(&settings).await;
    let mut accepted = 0;
    let refused = loop {
        match bus.publish(world.event("t", accepted)).await {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    assert!(accepted > 10);
    assert!(!bus.has_space().await);
    let pending = bus.pending().await;
    assert_eq!(pending.spooled_events as usize, accepted, "nothing is half accepted");
    assert!(pending.spooled_bytes <= 20_000);

    broker(&world).up();
    until_empty(&bus).await;
    assert!(bus.has_space().await);
    bus.publish(world.event("t", accepted)).await.unwrap();
    let expected: Vec<usize> = (0..=accepted).collect();
    assert_eq!(read_once(&world, &bus, accepted + 1).await, expected);
    bus.stop(Duration::from_secs(5)).await;
}

async fn none_means_unavailable(world: World) {
    let bus = open(&with_spool(&world, 0)).await;
    // With patience: how fast a Kafka that has just started is, is not the question here.
    bus.publish_unspooled(world.event("t", 0), PATIENCE).await.unwrap();
    assert!(bus.has_space().await);
    broker(&world).down();
    let began = Instant::now();
    let refused = bus.publish(world.event("t", 1)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(!bus.has_space().await);
    assert!(!world.folder.path().join("spool").exists());
    bus.stop(Duration::from_secs(5)).await;
}

async fn what_an_earlier_setting_left_is_forwarded(world: World) {
    broker(&world).down();
    let bus = open(&with_spool(&world, ENOUGH)).await;
    bus.publish(world.event("t", 0)).await.unwrap();
    bus.stop(Duration::from_secs(5)).await;
    let bus = open(&with_spool(&world, 0)).await;
    assert!(!bus.has_space().await);
    assert_eq!(bus.pending().await.spooled_events, 1);
    let refused = bus.publish(world.event("t", 1)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    broker(&world).up();
    until_empty(&bus).await;
    assert!(bus.has_space().await);
    // Empty, and a moment later out of the way.
    let deadline = Instant::now() + PATIENCE;
    while bus.publish(world.event("t", 1)).await.is_err() {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(read_once(&world, &bus, 2).await, [0, 1]);
    bus.stop(Duration::from_secs(5)).await;
}

async fn unspooled_waits_and_fails(world: World) {
    let bus = open(&with_spool(&world, ENOUGH)).await;
    broker(&world).down();
    let refused = bus
        .publish_unspooled(world.event("t", 0), Duration::from_millis(300))
        .await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert_eq!(bus.pending().await.spooled_events, 0);
    broker(&world).up();
    bus.publish_unspooled(world.event("t", 1), PATIENCE).await.unwrap();
    assert_eq!(bus.pending().await.spooled_events, 0);
    bus.stop(Duration::from_secs(5)).await;
}

async fn a_record_refused_as_too_large_is_made_smaller(world: World) {
    let bus = open(&with_spool(&world, ENOUGH)).await;
    let mut event = world.event("t", 0);
    event.raw.content = RawContent::Inline(vec![b'x'; 100_000]);
    broker(&world).refuse_produce(RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, 1);
    bus.publish(event).await.unwrap();
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let read = world.read(&mut reader, 1).await;
    let RawContent::Blob { sha256, .. } = &read[0].raw.content else {
        panic!("inline: {:?}", read.iter().map(number_of).collect::<Vec<_>>());
    };
    assert_eq!(bus.blobs().get(sha256).await.unwrap().unwrap(), vec![b'x'; 100_000]);
    assert!(matches!(read[0].body, Body::MessageReceived(_)));
    bus.stop(Duration::from_secs(5)).await;
}

async fn a_spooled_record_refused_as_too_large_holds_up_nothing(world: World) {
    broker(&world).down();
    let bus = open(&with_spool(&world, ENOUGH)).await;
    for number in 0..5 {
        bus.publish(world.event("t", number)).await.unwrap();
    }
    // One for the chunk, then one for each smaller record.
    broker(&world).refuse_produce(RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, 2);
    broker(&world).up();
    until_empty(&bus).await;
    bus.publish(world.event("t", 5)).await.unwrap();
    assert!(read_once(&world, &bus, 5).await.contains(&5));
    bus.stop(Duration::from_secs(5)).await;
}

/// The sender is let go, and the event arrives as soon as the broker takes it.
async fn whatever_the_broker_answers_nothing_is_lost(world: World) {
    let answers = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    ];
    let bus = open(&with_spool(&world, ENOUGH)).await;
    for (number, answer) in answers.into_iter().enumerate() {
        broker(&world).refuse_produce(answer, 2);
        let began = Instant::now();
        bus.publish(world.event("t", number)).await.unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{answer:?}: the sender waited {took:?}");
        until_empty(&bus).await;
    }
    let mut read = read_once(&world, &bus, answers.len()).await;
    read.sort_unstable();
    assert_eq!(read, (0..answers.len()).collect::<Vec<_>>());
    bus.stop(Duration::from_secs(5)).await;
}

/// The place of blobs is away: large events wait in the spool, small ones pass.
async fn what_names_a_blob_waits_for_it(world: World) {
    let bus = open(&with_spool(&world, ENOUGH)).await;
    let folder = world.folder.path().join("blobs");
    std::fs::remove_dir(&folder).unwrap();
    std::fs::write(&folder, "no folder any more").unwrap();
    let mut large = world.event("t", 0);
    large.raw.content = RawContent::Inline(vec![b'x'; 300_000]);
    bus.publish(large).await.unwrap();
    let began = Instant::now();
    bus.publish(world.event("t", 1)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "a small event waited");
    assert_eq!(read_once(&world, &bus, 1).await, [1]);
    let spool = world.folder.path().join("spool/spool.db");
    // The event, and its bytes.
    assert_eq!(bus::spool_status(&spool).await.unwrap().spooled_events, 2);
    bus.stop(Duration::from_secs(5)).await;

    std::fs::remove_file(&folder).unwrap();
    let bus = open(&with_spool(&world, ENOUGH)).await;
    until_empty(&bus).await;
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let large = loop {
        let read = world.read(&mut reader, 1).await;
        if let Some(large) = read.into_iter().find(|event| number_of(event) == 0) {
            break large;
        }
    };
    let RawContent::Blob { sha256, .. } = &large.raw.content else {
        panic!("inline");
    };
    assert_eq!(bus.blobs().get(sha256).await.unwrap().unwrap(), vec![b'x'; 300_000]);
    bus.stop(Duration::from_secs(5)).await;
}

async fn what_is_refused_for_good_is_shown_and_can_be_retried(world: World) {
    broker(&world).down();
    let mut registry = Registry::default();
    let bus = Bus::open(&with_spool(&world, ENOUGH), &mut registry).await.unwrap();
    for number in 0..3 {
        bus.publish(world.event("t", number)).await.unwrap();
    }
    // The chunk, and then each record by itself.
    broker(&world).refuse_produce(RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, 4);
    broker(&world).up();
    until_empty(&bus).await;
    let pending = bus.pending().await;
    let refused = pending.refused_events;
    assert!(refused > 0 && pending.refused_bytes > 0 && pending.refused_oldest_at.is_some());
    let reason = pending.refused_reason.unwrap();
    assert!(reason.contains("MessageSizeTooLarge"), "{reason}");

    let spool = world.folder.path().join("spool/spool.db");
    assert_eq!(bus::spool_status(&spool).await.unwrap().refused_events, refused);
    let mut shown = Vec::new();
    bus::refused_events(&spool, |event| shown.push(event)).await.unwrap();
    assert_eq!(shown.len() as u64, refused);
    for event in shown {
        assert_eq!((event.key.as_str(), event.reason.as_str()), ("t", reason.as_str()));
        assert!(event.headers.iter().all(|(name, _)| name != "tributary_refused"));
        assert!(!event.value.is_empty());
    }
    let metric = format!("spool_refused_events {refused}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        if text.contains(&metric) {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    bus.retry_refused().await.unwrap();
    until_empty(&bus).await;
    assert_eq!(bus.pending().await.refused_events, 0);
    let mut numbers = read_once(&world, &bus, 3).await;
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    bus.stop(Duration::from_secs(5)).await;
}

async fn leaves_the_spool_under_load(world: World) {
    let bus = open(&with_spool(&world, ENOUGH)).await;
    broker(&world).down();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let events: Vec<_> = (0..400)
            .map(|number| world.event(&format!("w{writer}"), number))
            .collect();
        let bus = bus.clone();
        writers.spawn(async move {
            for event in events {
                bus.publish(event).await.unwrap();
            }
        });
    }
    while bus.pending().await.spooled_events < 100 {
        tokio::task::yield_now().await;
    }
    broker(&world).up();
    writers.join_all().await;
    until_empty(&bus).await;
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let mut last: std::collections::BTreeMap<String, usize> = Default::default();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 3200 {
        for event in world.read(&mut reader, 1).await {
            if seen.insert(event.id.clone()) {
                let number = number_of(&event);
                let before = last.insert(event.thread_key.clone(), number);
                assert_eq!(number, before.map_or(0, |before| before + 1), "{}", event.thread_key);
            }
        }
    }
    bus.stop(Duration::from_secs(5)).await;
}

async fn what_kafka_refuses_for_long_arrives_in_order(world: World) {
    let bus = open(&with_spool(&world, ENOUGH)).await;
    broker(&world).refuse_produce(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, 100_000);
    for number in 0..300 {
        bus.publish(world.event("one", number)).await.unwrap();
    }
    // Longer than a producer is given before it is replaced.
    tokio::time::sleep(Duration::from_secs(12)).await;
    broker(&world).take_all();
    until_empty(&bus).await;
    let numbers = read_once(&world, &bus, 300).await;
    assert!(numbers.is_sorted(), "another order: {numbers:?}");
    bus.stop(Duration::from_secs(5)).await;
}

async fn status_of_no_spool_is_an_error(world: World) {
    let path = world.folder.path().join("no/spool.db");
    let refused = bus::spool_status(&path).await;
    assert!(matches!(refused, Err(Error::Settings(_))), "{refused:?}");
    assert!(!path.exists());
}
