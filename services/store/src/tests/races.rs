//! Several writers at once: nothing is lost, nothing counted twice.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use model::context::Book;
use model::event::Event;
use model::id::TicketId;
use model::ticket::Change;

use super::given::{TOPIC, advance, arrival, assigned, event, message_id, together};
use crate::Store;
use crate::apply::Outcome;
use crate::testing::{Database, on_both};

on_both!(
    writers_of_the_same_tickets_lose_nothing,
    two_partitions_with_the_same_message_store_it_once,
    numbers_are_unique,
    unused_numbers_are_used_later,
    several_processes_migrate_at_once,
);

const WRITERS: u64 = 8;
const ROUNDS: u64 = 5;
const TICKETS: u64 = 6;

async fn writers_of_the_same_tickets_lose_nothing(database: &Database) {
    let store = database.store().await;
    store.commit(&together((1..=TICKETS).map(arrival))).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        // One of them in a process of its own.
        let store = if writer == 0 {
            Store::open(&database.url).await.unwrap()
        } else {
            store.clone()
        };
        writers.spawn(async move {
            for round in 0..ROUNDS {
                assign_all(&store, writer, round).await;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    for number in 1..=TICKETS {
        let id = TicketId::opened_by(&message_id(number));
        let events = store.ticket_events(&id).await.unwrap();
        let assignments = events
            .iter()
            .filter(|event| matches!(event.change, Change::Assigned { .. }));
        assert_eq!(assignments.count() as u64, WRITERS * ROUNDS);
        let versions: Vec<i64> = events.iter().map(|event| event.version).collect();
        assert_eq!(versions, (1..=events.len() as i64).collect::<Vec<_>>());
        let ticket = store.ticket_by_id(&id).await.unwrap().unwrap();
        assert_eq!(ticket.version, events.len() as i64);
    }
    // Each writer went on by one offset a round.
    let mut offsets = store.offsets(TOPIC).await.unwrap();
    offsets.sort_unstable();
    let expected: Vec<(i32, i64)> = (0..WRITERS as i32).map(|writer| (writer, ROUNDS as i64)).collect();
    assert_eq!(offsets, expected);
}

/// One batch that changes every ticket, tried until nobody else was in the way.
async fn assign_all(store: &Store, writer: u64, round: u64) {
    let advance = advance(writer as i32, round as i64, round as i64 + 1);
    loop {
        let mut all = Vec::new();
        for number in 1..=TICKETS {
            let id = TicketId::opened_by(&message_id(number));
            let ticket = store.ticket_by_id(&id).await.unwrap().unwrap();
            all.push(assigned(&ticket, &format!("{writer}/{round}")));
        }
        match store.apply(&advance, &together(all)).await.unwrap() {
            Outcome::Applied => return,
            Outcome::Stale => {}
            Outcome::Moved => panic!("nobody else advances this partition"),
        }
    }
}

async fn two_partitions_with_the_same_message_store_it_once(database: &Database) {
    let store = database.store().await;
    let mut writers = JoinSet::new();
    for partition in 0..4 {
        let store = store.clone();
        writers.spawn(async move {
            store
                .apply(&advance(partition, 0, 50), &together((1..=50).map(arrival)))
                .await
                .unwrap()
        });
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = writers.join_next().await {
        outcomes.push(outcome.unwrap());
    }
    let applied = outcomes.iter().filter(|outcome| **outcome == Outcome::Applied);
    assert_eq!(applied.count(), 1, "{outcomes:?}");
    assert_eq!(
        store.list_tickets(&Default::default(), None, 1000).await.unwrap().len(),
        50
    );
    // Who lost decides again, and finds all of it known.
    let events: Vec<Event> = (1..=50).map(|number| event(number, "1@example.org")).collect();
    let events: Vec<&Event> = events.iter().collect();
    let context = store
        .context(Arc::new(Book::default()), TOPIC, 9, &events)
        .await
        .unwrap();
    assert_eq!(context.known_messages.len(), 50);
    assert!(context.numbers.values().all(|numbers| numbers.is_empty()));
}

async fn numbers_are_unique(database: &Database) {
    let store = database.store().await;
    let mut takers = JoinSet::new();
    for taker in 0..8_u64 {
        // Half of them in a process of their own.
        let store = if taker % 2 == 0 {
            store.clone()
        } else {
            Store::open(&database.url).await.unwrap()
        };
        takers.spawn(async move {
            let mut taken = Vec::new();
            for round in 0..5 {
                let events: Vec<Event> = (0..10)
                    .map(|number| event(taker * 1000 + round * 10 + number, "a@b"))
                    .collect();
                let events: Vec<&Event> = events.iter().collect();
                let mut context = store
                    .context(Arc::new(Book::default()), TOPIC, 0, &events)
                    .await
                    .unwrap();
                let cases = context.numbers.get_mut("case").unwrap();
                taken.extend(cases.drain(..7));
                store.return_numbers(context.numbers);
            }
            taken
        });
    }
    let mut all = Vec::new();
    while let Some(taken) = takers.join_next().await {
        all.extend(taken.unwrap());
    }
    assert_eq!(all.len(), 8 * 5 * 7);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
}

async fn unused_numbers_are_used_later(database: &Database) {
    let store = database.store().await;
    for (first, used) in [(1, "CS0000001"), (11, "CS0000002"), (21, "CS0000003")] {
        let events: Vec<Event> = (first..first + 10).map(|number| event(number, "a@b")).collect();
        let events: Vec<&Event> = events.iter().collect();
        let mut context = store
            .context(Arc::new(Book::default()), TOPIC, 0, &events)
            .await
            .unwrap();
        assert_eq!(
            context.numbers.get_mut("case").unwrap().pop_front().as_deref(),
            Some(used)
        );
        store.return_numbers(context.numbers);
    }
}

async fn several_processes_migrate_at_once(database: &Database) {
    let mut processes = JoinSet::new();
    for _ in 0..4 {
        let url = database.url.clone();
        processes.spawn(async move {
            let store = Store::open(&url).await.unwrap();
            store.migrate().await.unwrap();
            store.check_schema().await.unwrap();
        });
    }
    while let Some(done) = processes.join_next().await {
        done.unwrap();
    }
}
