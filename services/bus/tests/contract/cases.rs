//! The cases. Each takes a log of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bus::{Blobs, Bus, DESK, EVENTS, Error};
use model::context::Announcement;
use model::event::{Body, Event, RawContent};
use model::time::Moment;

use crate::world::{World, next, number_of};

pub type Case = fn(World) -> Pin<Box<dyn Future<Output = ()>>>;

pub fn all() -> Vec<(&'static str, Case)> {
    vec![
        ("what_is_published_can_be_read", |world| {
            Box::pin(what_is_published_can_be_read(world))
        }),
        ("a_thread_keeps_its_order", |world| {
            Box::pin(a_thread_keeps_its_order(world))
        }),
        ("a_waiting_reader_is_woken", |world| {
            Box::pin(a_waiting_reader_is_woken(world))
        }),
        ("seeking_goes_back_and_forth", |world| {
            Box::pin(seeking_goes_back_and_forth(world))
        }),
        ("a_reader_that_leaves_loses_nothing", |world| {
            Box::pin(a_reader_that_leaves_loses_nothing(world))
        }),
        ("a_restart_goes_on", |world| Box::pin(a_restart_goes_on(world))),
        ("fifty_publish_at_once", |world| Box::pin(fifty_publish_at_once(world))),
        ("large_raw_bytes_become_a_blob", |world| {
            Box::pin(large_raw_bytes_become_a_blob(world))
        }),
        ("a_huge_message_loses_nothing", |world| {
            Box::pin(a_huge_message_loses_nothing(world))
        }),
        ("announcements_are_kept_in_order", |world| {
            Box::pin(announcements_are_kept_in_order(world))
        }),
        ("seeking_beyond_the_end_is_refused", |world| {
            Box::pin(seeking_beyond_the_end_is_refused(world))
        }),
    ]
}

/// With patience: how fast a Kafka that has just started is, is not the question here.
async fn publish(bus: &Bus, event: Event) -> Result<(), Error> {
    bus.publish_unspooled(event, Duration::from_secs(30)).await
}

async fn what_is_published_can_be_read(world: World) {
    let bus = world.open().await;
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let sent = world.event("t", 1);
    bus.publish(sent.clone()).await.unwrap();
    let waited = world.event("t", 2);
    bus.publish_unspooled(waited.clone(), Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(world.read(&mut reader, 2).await, [sent, waited]);
    bus.stop(Duration::from_secs(5)).await;
}

async fn a_thread_keeps_its_order(world: World) {
    let bus = world.open().await;
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let threads = ["a", "b", "c", "d", "e"];
    let mut writers = tokio::task::JoinSet::new();
    for thread in threads {
        let events: Vec<Event> = (0..40).map(|number| world.event(thread, number)).collect();
        let bus = bus.clone();
        writers.spawn(async move {
            for event in events {
                publish(&bus, event).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let mut numbers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for event in world.read(&mut reader, 200).await {
        numbers
            .entry(event.thread_key.clone())
            .or_default()
            .push(number_of(&event));
    }
    let expected: Vec<usize> = (0..40).collect();
    for thread in threads {
        assert_eq!(numbers[thread], expected, "{thread}");
    }
    bus.stop(Duration::from_secs(5)).await;
}

async fn a_waiting_reader_is_woken(world: World) {
    let bus = world.open().await;
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    publish(&bus, world.event("t", 0)).await.unwrap();
    world.read(&mut reader, 1).await;
    for number in 1..10 {
        let waiting = world.read(&mut reader, 1);
        let publishing = publish(&bus, world.event("t", number));
        let (read, published) = tokio::join!(waiting, publishing);
        published.unwrap();
        assert_eq!(number_of(&read[0]), number);
    }
    bus.stop(Duration::from_secs(5)).await;
}

async fn seeking_goes_back_and_forth(world: World) {
    let bus = world.open().await;
    for number in 0..300 {
        publish(&bus, world.event("t", number)).await.unwrap();
    }
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    // Only the partition of thread t counts; another run's records may lie before.
    let first = loop {
        let batch = next(&mut reader, 50).await;
        let (partition, from) = (batch.partition, batch.records[0].offset);
        if !world.of(batch).is_empty() {
            break (partition, from);
        }
    };
    let (partition, from) = first;
    let mut seen = Vec::new();
    for _ in 0..3 {
        reader.seek(partition, from).await.unwrap();
        let batch = next_of(&mut reader, partition, 10).await;
        assert_eq!(batch.from, from);
        assert_eq!(batch.records[0].offset, from);
        seen.push(batch.to);
    }
    reader.seek(partition, from + 7).await.unwrap();
    let batch = next_of(&mut reader, partition, 10).await;
    assert_eq!((batch.from, batch.records[0].offset), (from + 7, from + 7));
    let behind = next_of(&mut reader, partition, 10).await;
    assert_eq!(behind.from, batch.to, "batches are contiguous");
    reader.commit(partition, behind.to).await;
    bus.stop(Duration::from_secs(5)).await;
}

async fn next_of(reader: &mut bus::Reader, partition: i32, max: usize) -> bus::Batch {
    loop {
        let batch = next(reader, max).await;
        if batch.partition == partition {
            return batch;
        }
    }
}

async fn a_reader_that_leaves_loses_nothing(world: World) {
    let bus = world.open().await;
    let mut first = bus.reader(EVENTS, &world.account).await.unwrap();
    for number in 0..100 {
        publish(&bus, world.event(&format!("t{}", number % 10), number))
            .await
            .unwrap();
    }
    let mut seen: BTreeSet<usize> = world.read(&mut first, 1).await.iter().map(number_of).collect();
    let mut second = bus.reader(EVENTS, &world.account).await.unwrap();
    // The second waits while the first holds all, then both share, then it is alone.
    let waiting = tokio::time::timeout(Duration::from_secs(1), second.next(10)).await;
    if let Ok(Ok(batch)) = waiting {
        seen.extend(world.of(batch).iter().map(number_of));
    }
    drop(first);
    for number in 100..200 {
        publish(&bus, world.event(&format!("t{}", number % 10), number))
            .await
            .unwrap();
    }
    while seen.len() < 200 {
        seen.extend(world.read(&mut second, 1).await.iter().map(number_of));
    }
    bus.stop(Duration::from_secs(5)).await;
}

async fn a_restart_goes_on(world: World) {
    let bus = world.open().await;
    publish(&bus, world.event("t", 0)).await.unwrap();
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    world.read(&mut reader, 1).await;
    let before: i64 = bus.end_offsets(EVENTS).await.unwrap().iter().map(|(_, end)| end).sum();
    bus.stop(Duration::from_secs(5)).await;
    drop((reader, bus));

    let bus = world.open().await;
    publish(&bus, world.event("t", 1)).await.unwrap();
    let after: i64 = bus.end_offsets(EVENTS).await.unwrap().iter().map(|(_, end)| end).sum();
    assert!(after > before);
    let mut reader = bus.reader(EVENTS, &format!("{}-2", world.account)).await.unwrap();
    let numbers: Vec<usize> = world.read(&mut reader, 2).await.iter().map(number_of).collect();
    assert_eq!(numbers, [0, 1]);
    bus.stop(Duration::from_secs(5)).await;
}

async fn fifty_publish_at_once(world: World) {
    let bus = world.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..50 {
        let events: Vec<Event> = (0..20)
            .map(|number| world.event(&format!("w{writer}"), number))
            .collect();
        let bus = bus.clone();
        writers.spawn(async move {
            for event in events {
                publish(&bus, event).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    bus.stop(Duration::from_secs(5)).await;
    drop(bus);

    let bus = world.open().await;
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let ids: BTreeSet<String> = world
        .read(&mut reader, 1000)
        .await
        .into_iter()
        .map(|event| event.id)
        .collect();
    assert_eq!(ids.len(), 1000);
    bus.stop(Duration::from_secs(5)).await;
}

async fn large_raw_bytes_become_a_blob(world: World) {
    let bus = world.open().await;
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    for (number, length) in [256 * 1024, 256 * 1024 + 1, 3_000_000].into_iter().enumerate() {
        let mut event = world.event("t", number);
        event.raw.content = RawContent::Inline(vec![7; length]);
        publish(&bus, event).await.unwrap();
    }
    let read = world.read(&mut reader, 3).await;
    assert_eq!(read[0].raw.content, RawContent::Inline(vec![7; 256 * 1024]));
    for (event, length) in [(&read[1], 256 * 1024 + 1), (&read[2], 3_000_000)] {
        let RawContent::Blob { sha256, size_bytes } = &event.raw.content else {
            panic!("inline");
        };
        assert_eq!(*size_bytes, length as u64);
        assert_eq!(bus.blobs().get(sha256).await.unwrap().unwrap(), vec![7; length]);
    }
    let refused = bus.blobs().put(vec![0; Blobs::MAX_BYTES + 1]).await;
    assert!(matches!(refused, Err(Error::Malformed(_))));
    bus.stop(Duration::from_secs(5)).await;
}

async fn a_huge_message_loses_nothing(world: World) {
    let bus = world.open().await;
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let text = "ä".repeat(1_000_000);
    let html = format!("<p>{}</p>", "x".repeat(2_000_000));
    let mut event = world.event("t", 0);
    let Body::MessageReceived(message) = &mut event.body else {
        unreachable!();
    };
    message.text = text.clone();
    message.html = Some(html.clone());
    publish(&bus, event).await.unwrap();

    let mut crowded = world.event("t", 1);
    let Body::MessageReceived(message) = &mut crowded.body else {
        unreachable!();
    };
    message.external_ids = vec!["<an-id-of-some-length@example.com>".to_owned(); 50_000];
    publish(&bus, crowded.clone()).await.unwrap();

    let read = world.read(&mut reader, 2).await;
    let Body::MessageReceived(message) = &read[0].body else {
        panic!("no message");
    };
    assert!(text.starts_with(&message.text) && message.text.len() > 1000);
    assert_eq!(message.html, None);
    let mut kept = Vec::new();
    for attachment in &message.attachments {
        let bytes = bus.blobs().get(&attachment.sha256).await.unwrap().unwrap();
        assert_eq!(bytes.len() as u64, attachment.size_bytes);
        kept.push((attachment.name.as_str(), String::from_utf8(bytes).unwrap()));
    }
    assert_eq!(kept, [("message.html", html), ("message.txt", text)]);

    assert_eq!(read[1].id, crowded.id);
    let Body::Parked { reason } = &read[1].body else {
        panic!("not parked");
    };
    let sha256 = reason.rsplit(' ').next().unwrap();
    assert!(bus.blobs().get(sha256).await.unwrap().unwrap().len() > 1_000_000);
    bus.stop(Duration::from_secs(5)).await;
}

async fn announcements_are_kept_in_order(world: World) {
    let bus = world.open().await;
    let before: i64 = bus.end_offsets(DESK).await.unwrap().iter().map(|(_, end)| end).sum();
    let announcements: Vec<Announcement> = (1..=50)
        .map(|version| Announcement {
            subject: format!("tkt_{}", world.account.replace('-', "")),
            version,
            kind: "ticket.opened".to_owned(),
            occurred_at: Moment::from_ms(version),
            data: serde_json::json!({"number": "CS0000001"}),
        })
        .collect();
    bus.announce(&announcements).await.unwrap();
    bus.announce(&[]).await.unwrap();
    let after: i64 = bus.end_offsets(DESK).await.unwrap().iter().map(|(_, end)| end).sum();
    assert_eq!(after - before, 50);
    bus.stop(Duration::from_secs(5)).await;
}

async fn seeking_beyond_the_end_is_refused(world: World) {
    let bus = world.open().await;
    publish(&bus, world.event("t", 0)).await.unwrap();
    let mut reader = bus.reader(EVENTS, &world.account).await.unwrap();
    let batch = loop {
        let batch = next(&mut reader, 100).await;
        if batch
            .records
            .iter()
            .any(|record| record.event.as_ref().is_ok_and(|event| event.account == world.account))
        {
            break batch;
        }
    };
    reader.seek(batch.partition, batch.to).await.unwrap();
    let refused = reader.seek(batch.partition, batch.to + 1_000_000).await;
    assert!(matches!(refused, Err(Error::Settings(_))), "{refused:?}");
    bus.stop(Duration::from_secs(5)).await;
}
