//! What happened to messages, and how they stand.

use std::sync::Arc;

use model::change::{Change, MessageChange};
use model::context::{Book, Changes};
use model::conversation::Consent;
use model::decide::decide;
use model::event::{Body, ConsentChange, Event};
use model::id::MessageId;

use super::given::{TOPIC, arrival, at, event, external_id, message_id};
use crate::Store;
use crate::apply::Outcome;
use crate::testing::{Database, on_both};

on_both!(
    a_message_stands_as_its_changes_say,
    a_change_waits_in_the_store_for_its_message,
    consent_is_kept,
);

fn edited(id: &str, target: u64, text: &str) -> Event {
    Event {
        id: id.to_owned(),
        body: Body::MessageChanged(Box::new(MessageChange {
            external_id: external_id(target),
            change: Change::Edited {
                text: text.to_owned(),
                html: None,
            },
        })),
        ..event(99, "ada@example.org")
    }
}

/// Decides about one event after another, each with what the store knows then.
async fn apply(store: &Store, events: &[Event]) -> Vec<Changes> {
    let mut all = Vec::new();
    for event in events {
        let book = Arc::new(Book::default());
        let context = store.context(book, TOPIC, 0, &[event]).await.unwrap();
        let changes = decide(event, &context, at(1_000));
        assert_eq!(store.commit(&changes).await.unwrap(), Outcome::Applied);
        all.push(changes);
    }
    all
}

async fn text(store: &Store, id: &MessageId) -> String {
    store.message(id).await.unwrap().unwrap().message.text
}

async fn a_message_stands_as_its_changes_say(database: &Database) {
    let store = database.store().await;
    store.commit(&arrival(1)).await.unwrap();
    let first = text(&store, &message_id(1)).await;
    let events = [
        edited("evt_1", 1, "one"),
        edited("evt_2", 1, "two"),
        edited("evt_1", 1, "one"),
    ];
    let decided = apply(&store, &events).await;
    assert!(decided[2].is_empty(), "a repeat");
    let stored = store.message(&message_id(1)).await.unwrap().unwrap();
    assert_eq!(stored.message.text, "two");
    assert!(stored.changed.edited_at.is_some());
    let listed = store.messages(&stored.conversation_id, None, 10).await.unwrap();
    assert_eq!(listed[0].message.text, "two");
    let (original, history) = store.history(&message_id(1)).await.unwrap().unwrap();
    assert_eq!(original.text, first);
    let ids: Vec<_> = history.iter().map(|recorded| recorded.id.as_str()).collect();
    assert_eq!(ids, ["evt_1", "evt_2"]);
    let conversation = store.conversation(&stored.conversation_id).await.unwrap().unwrap();
    assert_eq!(conversation.version, 3, "each change is announced once");
}

async fn a_change_waits_in_the_store_for_its_message(database: &Database) {
    let store = database.store().await;
    apply(&store, &[edited("evt_1", 1, "one"), edited("evt_1", 1, "one")]).await;
    let mut arriving = event(1, "ada@example.org");
    if let Body::MessageReceived(message) = &mut arriving.body {
        message.external_ids = vec![external_id(1)];
    }
    apply(&store, &[arriving, edited("evt_1", 1, "one")]).await;
    assert_eq!(text(&store, &message_id(1)).await, "one");
    let (_, history) = store.history(&message_id(1)).await.unwrap().unwrap();
    assert_eq!(history.len(), 1);
}

async fn consent_is_kept(database: &Database) {
    let store = database.store().await;
    let mut changes = arrival(1);
    for replacing in changes.conversations.values_mut() {
        replacing.row.thread_name = Some("t".to_owned());
    }
    store.commit(&changes).await.unwrap();
    let stop = Event {
        id: "evt_1".to_owned(),
        body: Body::ConsentChanged(ConsentChange {
            thread: "t".to_owned(),
            given: false,
            reason: "STOP".to_owned(),
        }),
        ..event(99, "ada@example.org")
    };
    let decided = apply(&store, &[stop.clone(), stop.clone()]).await;
    assert!(decided[1].is_empty(), "a repeat");
    let id = changes.conversations.keys().next().unwrap();
    let conversation = store.conversation(id).await.unwrap().unwrap();
    assert_eq!(
        conversation.consent,
        Some(Consent {
            given: false,
            reason: "STOP".to_owned(),
            at: stop.occurred_at,
        })
    );
}
