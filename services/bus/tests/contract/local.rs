//! What only the local log does.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::{EVENTS, Error, Settings};
use prometheus_client::registry::Registry;

use crate::cases::Case;
use crate::world::{World, next};

pub fn all() -> Vec<(&'static str, Case)> {
    vec![
        ("two_processes_append_without_gaps", |world| {
            Box::pin(two_processes_append_without_gaps(world))
        }),
        ("another_process_is_heard", |world| {
            Box::pin(another_process_is_heard(world))
        }),
        ("a_group_goes_on_where_it_stood", |world| {
            Box::pin(a_group_goes_on_where_it_stood(world))
        }),
        ("a_log_cut_off_is_whole", |world| {
            Box::pin(a_log_cut_off_is_whole(world))
        }),
        ("a_damaged_blob_is_noticed_and_mended", |world| {
            Box::pin(a_damaged_blob_is_noticed_and_mended(world))
        }),
        ("wrong_settings_are_refused", |world| {
            Box::pin(wrong_settings_are_refused(world))
        }),
    ]
}

async fn two_processes_append_without_gaps(world: World) {
    let (one, two) = (world.open().await, world.open().await);
    let mut writers = tokio::task::JoinSet::new();
    for (writer, bus) in [one.clone(), two.clone(), one.clone(), two.clone()]
        .into_iter()
        .enumerate()
    {
        let events: Vec<_> = (0..100)
            .map(|number| world.event(&format!("w{writer}"), number))
            .collect();
        writers.spawn(async move {
            for event in events {
                bus.publish(event).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let mut reader = two.reader(EVENTS, "g").await.unwrap();
    let mut offsets = Vec::new();
    let mut ids = BTreeSet::new();
    while offsets.len() < 400 {
        let batch = next(&mut reader, 64).await;
        offsets.extend(batch.records.iter().map(|record| record.offset));
        ids.extend(world.of(batch).into_iter().map(|event| event.id));
    }
    assert_eq!(offsets, (0..400).collect::<Vec<i64>>());
    assert_eq!(ids.len(), 400);
    one.stop(Duration::from_secs(5)).await;
    two.stop(Duration::from_secs(5)).await;
}

async fn another_process_is_heard(world: World) {
    let (one, two) = (world.open().await, world.open().await);
    let mut reader = two.reader(EVENTS, "g").await.unwrap();
    for number in 0..3 {
        let event = world.event("t", number);
        let (read, published) = tokio::join!(world.read(&mut reader, 1), one.publish(event.clone()));
        published.unwrap();
        assert_eq!(read, [event]);
    }
    one.stop(Duration::from_secs(5)).await;
    two.stop(Duration::from_secs(5)).await;
}

async fn a_group_goes_on_where_it_stood(world: World) {
    let bus = world.open().await;
    for number in 0..50 {
        bus.publish(world.event("t", number)).await.unwrap();
    }
    let mut reader = bus.reader(EVENTS, "g").await.unwrap();
    let batch = next(&mut reader, 30).await;
    reader.commit(0, batch.to).await;
    drop(reader);
    let batch = next(&mut bus.reader(EVENTS, "g").await.unwrap(), 30).await;
    assert_eq!((batch.from, batch.to), (29, 50));
    bus.stop(Duration::from_secs(5)).await;

    // All is read, and still a batch comes, so that a store set back is noticed.
    let bus = world.open().await;
    let mut reader = bus.reader(EVENTS, "g").await.unwrap();
    reader.commit(0, 50).await;
    let batch = next(&mut reader, 30).await;
    assert_eq!((batch.from, batch.to), (49, 50));
    let batch = next(&mut bus.reader(EVENTS, "another").await.unwrap(), 30).await;
    assert_eq!((batch.from, batch.to), (0, 30));
    bus.stop(Duration::from_secs(5)).await;
    drop((bus, reader));

    let bus = world.open().await;
    let batch = next(&mut bus.reader(EVENTS, "g").await.unwrap(), 30).await;
    assert_eq!((batch.from, batch.to), (49, 50));
    bus.stop(Duration::from_secs(5)).await;
}

/// What a dead machine leaves: the file and its write-ahead log, at any moment.
async fn a_log_cut_off_is_whole(world: World) {
    let bus = world.open().await;
    for number in 0..30 {
        bus.publish(world.event("t", number)).await.unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    for file in ["log.db", "log.db-wal"] {
        let from = world.folder.path().join("bus").join(file);
        std::fs::copy(from, copy.path().join(file)).unwrap();
    }
    let settings = Settings {
        url: format!("local:{}", copy.path().join("log.db").display()),
        ..world.settings()
    };
    let survivor = bus::Bus::open(&settings, &mut Registry::default()).await.unwrap();
    let mut reader = survivor.reader(EVENTS, "g").await.unwrap();
    assert_eq!(world.read(&mut reader, 30).await.len(), 30);
    survivor.publish(world.event("t", 30)).await.unwrap();
    assert_eq!(survivor.end_offsets(EVENTS).await.unwrap(), [(0, 31)]);
    survivor.stop(Duration::from_secs(5)).await;
    bus.stop(Duration::from_secs(5)).await;
}

async fn a_damaged_blob_is_noticed_and_mended(world: World) {
    let bus = world.open().await;
    let sha256 = bus.blobs().put(b"hello".to_vec()).await.unwrap();
    assert_eq!(
        sha256,
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert_eq!(bus.blobs().get(&sha256).await.unwrap().unwrap(), b"hello");
    let path = world.folder.path().join("blobs/2c/f2").join(&sha256);
    std::fs::write(&path, b"hellO").unwrap();
    assert!(matches!(bus.blobs().get(&sha256).await, Err(Error::Malformed(_))));
    assert_eq!(bus.blobs().put(b"hello".to_vec()).await.unwrap(), sha256);
    assert_eq!(bus.blobs().get(&sha256).await.unwrap().unwrap(), b"hello");
    for name in ["", "../../../etc/passwd", &"0".repeat(64), &sha256.to_uppercase()] {
        assert_eq!(bus.blobs().get(name).await.unwrap(), None, "{name}");
    }
    assert_eq!(bus.blobs().put(Vec::new()).await.unwrap().len(), 64);
    bus.stop(Duration::from_secs(5)).await;
}

async fn wrong_settings_are_refused(world: World) {
    std::fs::write(world.folder.path().join("file"), b"no log").unwrap();
    let folder = world.folder.path().display().to_string();
    let good = world.settings();
    for url in [
        "",
        "local",
        "redis:x",
        &format!("local:{folder}/file"),
        &format!("local:{folder}/file/log.db"),
    ] {
        let settings = Settings {
            url: url.to_owned(),
            ..good.clone()
        };
        let refused = bus::Bus::open(&settings, &mut Registry::default()).await.err();
        assert!(matches!(refused, Some(Error::Settings(_))), "{url}: {refused:?}");
    }
    for blobs_url in ["", "file:", "s3://bucket", &format!("file:{folder}/file")] {
        let settings = Settings {
            blobs_url: blobs_url.to_owned(),
            ..good.clone()
        };
        let refused = bus::Bus::open(&settings, &mut Registry::default()).await.err();
        assert!(matches!(refused, Some(Error::Settings(_))), "{blobs_url}: {refused:?}");
    }
}
