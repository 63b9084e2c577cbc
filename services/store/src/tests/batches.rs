//! `apply`, `commit` and `context`.

use std::cell::Cell;
use std::sync::Arc;

use model::context::Book;
use model::event::Event;

use super::given::{self, TOPIC, advance, arrival, event, message_id, together};
use crate::apply::Outcome;
use crate::sql::STATEMENTS;
use crate::testing::{Database, on_both};

on_both!(
    a_batch_is_applied_once,
    what_was_written_is_read_back,
    the_number_of_statements_does_not_depend_on_the_batch,
);

async fn a_batch_is_applied_once(database: &Database) {
    let store = database.store().await;
    let changes = together((1..=3).map(arrival));
    assert_eq!(
        store.apply(&advance(0, 0, 3), &changes).await.unwrap(),
        Outcome::Applied
    );
    assert_eq!(store.apply(&advance(0, 0, 3), &changes).await.unwrap(), Outcome::Moved);
    assert_eq!(store.apply(&advance(0, 3, 6), &changes).await.unwrap(), Outcome::Stale);
    assert_eq!(store.apply(&advance(1, 0, 3), &changes).await.unwrap(), Outcome::Stale);
    assert_eq!(
        store.apply(&advance(1, 7, 9), &arrival(4)).await.unwrap(),
        Outcome::Moved
    );
    assert_eq!(store.offsets(TOPIC).await.unwrap(), [(0, 3)]);
    assert_eq!(
        store.list_tickets(&Default::default(), None, 10).await.unwrap().len(),
        3
    );
    assert_eq!(
        store.announcements_pending().await.unwrap(),
        changes.announcements.len() as i64
    );
}

async fn what_was_written_is_read_back(database: &Database) {
    let store = database.store().await;
    let changes = arrival(1);
    store.commit(&changes).await.unwrap();
    let (id, conversation) = changes.conversations.first_key_value().unwrap();
    assert_eq!(store.conversation(id).await.unwrap().as_ref(), Some(&conversation.row));
    let stored = store.message(&message_id(1)).await.unwrap().unwrap();
    assert_eq!(stored, changes.messages[0]);
    let listed = store.messages(id, None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].message, stored.message);
    assert_eq!(listed[0].raw, None);
    assert_eq!(store.messages(id, Some(&message_id(1)), 10).await.unwrap(), []);
    let ticket = &changes.tickets.first_key_value().unwrap().1.row;
    assert_eq!(store.ticket("CS0000001").await.unwrap().as_ref(), Some(ticket));
    assert_eq!(store.ticket_by_id(&ticket.id).await.unwrap().as_ref(), Some(ticket));
    let events: Vec<_> = changes.ticket_events.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(store.ticket_events(&ticket.id).await.unwrap(), events);
    assert_eq!(store.ticket_traces(&ticket.id).await.unwrap(), changes.traces);
    assert_eq!(
        store.ticket_conversations(&ticket.id).await.unwrap(),
        std::slice::from_ref(id)
    );
    assert_eq!(store.thread_references(id).await.unwrap(), [given::external_id(1)]);
}

async fn the_number_of_statements_does_not_depend_on_the_batch(database: &Database) {
    let store = database.store().await;
    let mut counts = Vec::new();
    let mut from = 0;
    for (first, last) in [(1, 2), (101, 300)] {
        let events: Vec<Event> = (first..=last)
            .map(|number| event(number, &format!("{number}@example.org")))
            .collect();
        let events: Vec<&Event> = events.iter().collect();
        let changes = together((first..=last).map(arrival));
        let to = from + events.len() as i64;
        let step = async {
            let context = store
                .context(Arc::new(Book::default()), TOPIC, 0, &events)
                .await
                .unwrap();
            assert_eq!(context.next_offset, from);
            assert!(context.numbers.values().all(|numbers| numbers.len() >= events.len()));
            let outcome = store.apply(&advance(0, from, to), &changes).await.unwrap();
            assert_eq!(outcome, Outcome::Applied);
            STATEMENTS.with(Cell::get)
        };
        counts.push(STATEMENTS.scope(Cell::new(0), step).await);
        from = to;
    }
    // The first batch also makes the partition's row.
    assert_eq!(counts[0] - 2, counts[1]);
}
