//! `apply`, `commit` and `context`.

use std::cell::Cell;
use std::sync::Arc;

use model::context::Book;
use model::event::Event;

use super::given::{self, TOPIC, advance, arrival, event, message_id, together};
use crate::apply::Outcome;
use crate::sql::{STATEMENTS, get, rows};
use crate::testing::{Database, on_both};

on_both!(
    a_batch_is_applied_once,
    what_was_written_is_read_back,
    the_number_of_statements_does_not_depend_on_the_batch,
    rows_arrive_as_they_are,
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
    let told = store.next_announcements(100).await.unwrap();
    assert_eq!(told.len(), changes.announcements.len());
    // Those of a conversation or a ticket wait together.
    assert_eq!(store.announcements_pending().await.unwrap(), 2 * 3);
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

async fn rows_arrive_as_they_are(database: &Database) {
    let store = database.store().await;
    let plain = ["", "a", "it's", "{\"x\": null}", "\\x41", "ü\n", "NULL", "\u{1e}b"];
    let marks = ["\u{1f}", "\u{1e}", "a\u{1f}b"];
    let all = [&plain[..], &marks[..]].concat();
    for texts in [&plain[..], &plain[..1], &plain[..2], &marks[..], &all[..]] {
        let mut statement = rows(
            "SELECT column1, column2, column3, column4, column5, column6 FROM {rows}
             WHERE column1 IS NOT NULL ORDER BY column1",
            "asking for what was asked",
        );
        let given = (-2_i64..).zip(texts).map(|(number, text)| {
            let is_odd = number % 2 != 0;
            let bytes = is_odd.then(|| text.as_bytes().to_vec());
            (
                number,
                *text,
                is_odd.then_some(*text),
                (!is_odd).then_some(number),
                bytes,
            )
        });
        let given: Vec<_> = given.collect();
        for (number, text, other, count, bytes) in &given {
            statement.push(vec![
                (*number).into(),
                (*text).into(),
                (*other).into(),
                (*count).into(),
                bytes.clone().into(),
                Some(vec![0, 255]).into(),
            ]);
        }
        let mut connection = store.read("testing").await.unwrap();
        let found = statement.all(&mut connection).await.unwrap();
        assert_eq!(found.len(), given.len(), "{texts:?}");
        for (row, (number, text, other, count, bytes)) in found.iter().zip(given) {
            assert_eq!(get::<i64>(row, "column1").unwrap(), number);
            assert_eq!(get::<String>(row, "column2").unwrap(), text);
            assert_eq!(get::<Option<String>>(row, "column3").unwrap().as_deref(), other);
            assert_eq!(get::<Option<i64>>(row, "column4").unwrap(), count);
            assert_eq!(get::<Option<Vec<u8>>>(row, "column5").unwrap(), bytes);
            assert_eq!(get::<Vec<u8>>(row, "column6").unwrap(), [0, 255]);
        }
    }
}
