//! What only Kafka does.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::EVENTS;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::cases::Case;
use crate::world::{PATIENCE, World, next, number_of};

pub fn all() -> Vec<(&'static str, Case)> {
    vec![
        ("others_can_read_it", |world| Box::pin(others_can_read_it(world))),
        ("what_others_wrote_is_undecodable", |world| {
            Box::pin(what_others_wrote_is_undecodable(world))
        }),
        ("two_readers_share_the_partitions", |world| {
            Box::pin(two_readers_share_the_partitions(world))
        }),
        ("seeking_leaves_out_what_was_fetched", |world| {
            Box::pin(seeking_leaves_out_what_was_fetched(world))
        }),
    ]
}

fn config(world: &World) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", world.url.strip_prefix("kafka:").unwrap())
        .set("group.id", format!("{}-other", world.account))
        .set("auto.offset.reset", "earliest");
    config
}

/// The topic of hints is missing, and nobody may make it.
pub async fn events_do_not_wait_for_hints(world: World) {
    let bus = world.open().await;
    let event = world.event("t", 1);
    bus.publish_unspooled(event.clone(), PATIENCE).await.unwrap();
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    assert_eq!(world.read(&mut reader, 1).await, [event]);
    bus.stop(Duration::from_secs(5)).await;
}

async fn others_can_read_it(world: World) {
    let bus = world.open().await;
    let event = world.event("thread one", 7);
    bus.publish(event.clone()).await.unwrap();
    let consumer: StreamConsumer = config(&world).create().unwrap();
    consumer.subscribe(&[EVENTS]).unwrap();
    loop {
        let received = tokio::time::timeout(PATIENCE, consumer.recv()).await.unwrap();
        let Ok(message) = received else {
            continue;
        };
        let header = |name: &str| {
            let headers = message.headers()?;
            let found = headers.iter().find(|header| header.key == name)?;
            Some(String::from_utf8(found.value?.to_vec()).unwrap())
        };
        if header("ce_id").as_deref() != Some(event.id.as_str()) {
            continue;
        }
        assert_eq!(message.key().unwrap(), b"thread one");
        assert_eq!(header("ce_specversion").unwrap(), "1.0");
        assert_eq!(
            header("ce_type").unwrap(),
            "io.tributary.conversation.v1.message_received"
        );
        assert_eq!(header("ce_source").unwrap(), format!("/accounts/{}", world.account));
        assert_eq!(header("ce_subject").unwrap(), "thread one");
        assert_eq!(header("content-type").unwrap(), "application/protobuf");
        break;
    }
    bus.stop(Duration::from_secs(5)).await;
}

async fn what_others_wrote_is_undecodable(world: World) {
    let bus = world.open().await;
    let producer: FutureProducer = config(&world).create().unwrap();
    let garbage = format!("{{\"account\": \"{}\"}}", world.account);
    let record = FutureRecord::<str, str>::to(EVENTS).payload(&garbage).key("t");
    producer.send(record, PATIENCE).await.unwrap();
    producer
        .send(FutureRecord::<str, [u8]>::to(EVENTS).key("t"), PATIENCE)
        .await
        .unwrap();
    bus.publish(world.event("t", 0)).await.unwrap();
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let mut has_seen = (false, false);
    while has_seen != (true, true) {
        for record in next(&mut reader, 100).await.records {
            match record.event {
                Ok(event) => has_seen.1 |= event.account == world.account,
                Err(undecodable) => {
                    assert!(!undecodable.reason.is_empty());
                    has_seen.0 |= undecodable.bytes == garbage.as_bytes();
                }
            }
        }
    }
    bus.stop(Duration::from_secs(5)).await;
}

async fn two_readers_share_the_partitions(world: World) {
    let bus = world.open().await;
    let (found, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let mut readers = tokio::task::JoinSet::new();
    for name in ["one", "two"] {
        let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
        let (found, account) = (found.clone(), world.account.clone());
        readers.spawn(async move {
            loop {
                let batch = next(&mut reader, 50).await;
                let partition = batch.partition;
                reader.commit(partition, batch.to).await;
                for event in batch.records.into_iter().filter_map(|record| record.event.ok()) {
                    if event.account == account {
                        found.send((name, partition, number_of(&event))).unwrap();
                    }
                }
            }
        });
    }
    let mut numbers = BTreeSet::new();
    let mut who = BTreeSet::new();
    let mut number = 0;
    // Until both have read something, whatever the group's rebalances take.
    while who.len() < 2 || numbers.len() < number {
        if who.len() < 2 && number < 5000 {
            bus.publish(world.event(&format!("t{number}"), number)).await.unwrap();
            number += 1;
        }
        while let Ok(Some((name, _, number))) = tokio::time::timeout(Duration::from_millis(1), seen.recv()).await {
            numbers.insert(number);
            who.insert(name);
        }
    }
    readers.abort_all();
    while readers.join_next().await.is_some() {}
    // Both have left: the next one finds all that they did not commit.
    for rest in number..number + 20 {
        bus.publish(world.event(&format!("t{rest}"), rest)).await.unwrap();
    }
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    while numbers.len() < number + 20 {
        numbers.extend(world.read(&mut reader, 1).await.iter().map(number_of));
    }
    bus.stop(Duration::from_secs(5)).await;
}

/// librdkafka has fetched far ahead when the reader goes back.
async fn seeking_leaves_out_what_was_fetched(world: World) {
    let bus = world.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..2000 {
        let (bus, event) = (bus.clone(), world.event("t", number));
        writers.spawn(async move { bus.publish(event).await.unwrap() });
    }
    writers.join_all().await;
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let (partition, start) = loop {
        let batch = next(&mut reader, 10).await;
        let (partition, start) = (batch.partition, batch.from);
        if !world.of(batch).is_empty() {
            break (partition, start);
        }
    };
    for round in 0..20 {
        let target = start + round * 7;
        reader.seek(partition, target).await.unwrap();
        let mut expected = target;
        for _ in 0..3 {
            let batch = loop {
                let batch = next(&mut reader, 10).await;
                if batch.partition == partition {
                    break batch;
                }
            };
            assert_eq!(batch.from, expected);
            assert_eq!(batch.records[0].offset, expected);
            expected = batch.to;
        }
    }
    bus.stop(Duration::from_secs(5)).await;
}
