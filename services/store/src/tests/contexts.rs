//! What `context` finds for a batch.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use model::context::{AutomaticReply, Book, Changes, Context};
use model::event::{Body, DeliveryReport, DeliveryState, Event, Message};
use model::evidence::Evidence;
use model::id::MessageId;
use model::outbound::Join;
use model::time::Moment;

use super::given::{TOPIC, arrival, at, event, external_id, identity, joining, message_id, opened, reply, together};
use crate::Store;
use crate::testing::{Database, on_both};

on_both!(
    nothing_known_gives_nothing,
    a_known_message_names_its_accounts,
    every_way_to_a_conversation_is_followed,
    a_report_finds_its_message,
    the_latest_open_tickets_of_a_contact,
    budgets_of_automatic_replies,
);

async fn context(store: &Store, events: &[Event]) -> Context {
    context_by(store, joining(Join::Open), events).await
}

async fn context_by(store: &Store, book: Book, events: &[Event]) -> Context {
    let events: Vec<&Event> = events.iter().collect();
    store.context(Arc::new(book), TOPIC, 0, &events).await.unwrap()
}

fn with_evidence(number: u64, evidence: Evidence) -> Event {
    let mut event = event(number, "stranger@example.org");
    if let Body::MessageReceived(message) = &mut event.body {
        message.evidence = evidence;
    }
    event
}

async fn nothing_known_gives_nothing(database: &Database) {
    let store = database.store().await;
    let found = context(&store, &[]).await;
    assert_eq!(found.next_offset, 0);
    assert!(found.numbers.is_empty());
    let found = context(&store, &[event(1, "a\0@example.org"), event(2, "b@example.org")]).await;
    assert!(found.known_messages.is_empty() && found.contacts.is_empty() && found.conversations.is_empty());
    assert_eq!(found.numbers["case"], ["CS0000001", "CS0000002"]);
}

async fn a_known_message_names_its_accounts(database: &Database) {
    let store = database.store().await;
    store.commit(&arrival(1)).await.unwrap();
    let changes = Changes {
        also_arrived_at: vec![(message_id(1), "sales".to_owned()), (message_id(1), "sales".to_owned())],
        ..Changes::default()
    };
    store.commit(&changes).await.unwrap();
    let found = context(&store, &[event(1, "1@example.org"), event(2, "1@example.org")]).await;
    assert_eq!(found.known_messages.len(), 1);
    let accounts = &found.known_messages[&message_id(1)].accounts;
    assert_eq!(*accounts, BTreeSet::from(["sales".to_owned(), "support".to_owned()]));
    assert_eq!(found.numbers["case"].len(), 1);
}

async fn every_way_to_a_conversation_is_followed(database: &Database) {
    let store = database.store().await;
    let mut all: Vec<Changes> = (1..=5).map(arrival).collect();
    for replacing in all[3].conversations.values_mut() {
        replacing.row.thread_name = Some("order 7".to_owned());
    }
    let conversations: Vec<_> = all
        .iter()
        .map(|changes| changes.conversations.first_key_value().unwrap().1.row.clone())
        .collect();
    store.commit(&together(all)).await.unwrap();
    store.commit(&reply(11, &conversations[0])).await.unwrap();
    let ours = MessageId::authored("ada", "11");

    let by = |evidence: Evidence| vec![with_evidence(100, evidence)];
    let ways = [
        (
            0,
            by(Evidence {
                signed_messages: vec![ours.clone()],
                ..Evidence::default()
            }),
        ),
        (
            1,
            by(Evidence {
                signed_conversations: vec![conversations[1].id.clone()],
                ..Evidence::default()
            }),
        ),
        (
            2,
            by(Evidence {
                quoted_ids: vec![
                    "<unknown@x>".to_owned(),
                    external_id(3),
                    "x".repeat(5000),
                    "\0".to_owned(),
                ],
                ..Evidence::default()
            }),
        ),
        (
            3,
            by(Evidence {
                thread: Some("order 7".to_owned()),
                ..Evidence::default()
            }),
        ),
    ];
    for (index, events) in ways {
        let found = context(&store, &events).await;
        let id = &conversations[index].id;
        assert_eq!(found.conversations.keys().collect::<Vec<_>>(), [id], "way {index}");
        let (ticket, _) = opened(index as u64 + 1);
        assert_eq!(found.tickets, HashMap::from([(ticket.id.clone(), ticket)]));
        let signed = found.signed_messages.get(&ours);
        assert_eq!(signed.map(|found| &found.conversation_id), (index == 0).then_some(id));
        let thread = ("support".to_owned(), "order 7".to_owned());
        assert_eq!(found.threads.get(&thread), (index == 3).then_some(id));
    }
    // All of it at once, and the contact of a sender.
    let mut message = event(101, "5@example.org");
    message.account = "elsewhere".to_owned();
    if let Body::MessageReceived(message) = &mut message.body {
        message.evidence.thread = Some("order 7".to_owned());
        message.evidence.quoted_ids = vec![external_id(1), external_id(2)];
    }
    let found = context(&store, &[message]).await;
    assert!(found.threads.is_empty(), "a thread's name counts within its account");
    assert_eq!(found.conversations.len(), 2);
    assert_eq!(found.contacts[&identity("5@example.org")], conversations[4].contact_id);
    assert_eq!(found.tickets.len(), 3);
}

async fn a_report_finds_its_message(database: &Database) {
    let store = database.store().await;
    let changes = arrival(1);
    store.commit(&changes).await.unwrap();
    let conversation = changes.conversations.into_values().next().unwrap().row;
    store.commit(&reply(11, &conversation)).await.unwrap();
    let ours = MessageId::authored("ada", "11");
    let report = Event {
        id: "evt_1".to_owned(),
        body: Body::DeliveryReported(DeliveryReport {
            external_id: ours.to_string(),
            state: DeliveryState::Failed,
            error: None,
        }),
        ..event(1, "a@b")
    };
    let found = context(&store, &[report]).await;
    let references = &found.external_ids[ours.as_str()];
    assert_eq!(references.len(), 1);
    assert_eq!(references[0].message_id, ours);
    assert_eq!(references[0].account, "support");
    assert_eq!(references[0].delivery, Some(DeliveryState::Queued));
    assert_eq!(found.conversations[&conversation.id].version, 2);
    assert!(found.numbers.is_empty());
}

async fn the_latest_open_tickets_of_a_contact(database: &Database) {
    let store = database.store().await;
    // Thirty tickets of one contact, opened one after the other, but for three at once.
    let all = (1..=30).map(|number| {
        let mut changes = arrival(number);
        for replacing in changes.tickets.values_mut() {
            replacing.row.contact_id = opened(1).0.contact_id;
            if (28..=30).contains(&number) {
                replacing.row.opened_at = at(28);
            }
        }
        changes
    });
    store.commit(&together(all)).await.unwrap();
    let found = context(&store, &[event(100, "1@example.org")]).await;
    assert_eq!(found.tickets.len(), 20);
    assert!(found.tickets.values().all(|ticket| ticket.opened_at >= at(11)));
    let found = context(&store, &[event(100, "2@example.org")]).await;
    assert!(found.tickets.is_empty());
    // Where no message joins one, none is read.
    let found = context_by(&store, joining(Join::Thread), &[event(100, "1@example.org")]).await;
    assert!(found.tickets.is_empty());
}

async fn budgets_of_automatic_replies(database: &Database) {
    let store = database.store().await;
    let changes = arrival(1);
    store.commit(&changes).await.unwrap();
    let conversation_id = changes.conversations.first_key_value().unwrap().0.clone();
    let now = Moment::from(SystemTime::now());
    let replies = [("a", now), ("b", now), ("c", now.plus_ms(-48 * 3_600_000))];
    let replies = replies.map(|(cause, at)| AutomaticReply {
        message_id: MessageId::automatic(&MessageId::authored(cause, "x"), "rule"),
        conversation_id: conversation_id.clone(),
        to: identity("1@example.org"),
        at,
    });
    let changes = Changes {
        automatic_replies: replies.to_vec(),
        ..Changes::default()
    };
    store.commit(&changes).await.unwrap();
    let mut quoting = with_evidence(
        100,
        Evidence {
            quoted_ids: vec![external_id(1)],
            ..Evidence::default()
        },
    );
    if let Body::MessageReceived(message) = &mut quoting.body {
        **message = Message {
            sender: super::given::message("1@example.org").sender,
            ..(**message).clone()
        };
    }
    let found = context(&store, &[quoting]).await;
    assert_eq!(found.replies_in_conversation[&conversation_id], 3);
    let mut unverified = identity("1@example.org");
    assert_eq!(found.replies_today[&unverified], 2);
    unverified.verified = false;
    assert_eq!(found.replies_today[&unverified], 2);
}
