//! Claiming, sending, settling.

use std::sync::Arc;
use std::time::Duration;

use model::contact::Party;
use model::context::{Changes, Replacing};
use model::conversation::Conversation;
use model::event::{Body, DeliveryReport, DeliveryState};
use model::id::MessageId;
use model::time::Moment;

use sqlx::any::AnyRow;

use super::given::{TOPIC, announcement, arrival, at, event, reply};
use crate::Store;
use crate::lease::Lease;
use crate::outbox::{Claimed, Settlement, lease_name};
use crate::sql::{get, sql};
use crate::testing::{Database, on_both};

on_both!(
    a_conversation_sends_in_order,
    a_claimed_message_knows_what_it_answers,
    a_retry_waits_and_holds_up_its_conversation_only,
    an_old_fence_settles_and_claims_nothing,
    a_report_that_overtook_the_settlement_stays,
    a_message_that_arrived_is_not_tried_again,
    what_is_on_its_way_is_seen_where_we_wrote_elsewhere,
    people_settle_and_resend,
    an_unreadable_message_fails_by_itself,
    a_message_that_is_not_even_text_fails_by_itself,
);

const PERIOD: Duration = Duration::from_secs(30);

/// A conversation with two replies in the outbox, and another one with one.
async fn given(store: &Store) -> (Lease, [Conversation; 2]) {
    let mut conversations = Vec::new();
    for number in [1, 2] {
        let changes = arrival(number);
        store.commit(&changes).await.unwrap();
        conversations.push(changes.conversations.into_values().next().unwrap().row);
    }
    for (number, index) in [(11, 0), (12, 0), (13, 1)] {
        let changes = reply(number, &conversations[index]);
        store.commit(&changes).await.unwrap();
        conversations[index] = changes.conversations.into_values().next().unwrap().row;
    }
    let lease = store.hold_lease(&lease_name("support"), "worker", PERIOD).await;
    (lease, conversations.try_into().unwrap())
}

fn reply_id(number: u64) -> MessageId {
    MessageId::authored("ada", &number.to_string())
}

fn ids(claimed: &[Claimed]) -> Vec<MessageId> {
    claimed
        .iter()
        .map(|claimed| claimed.outbound.message_id.clone())
        .collect()
}

fn sent(external_id: &str) -> Settlement {
    Settlement::Sent {
        external_ids: vec![external_id.to_owned()],
    }
}

async fn state(store: &Store, number: u64) -> Option<DeliveryState> {
    store.message(&reply_id(number)).await.unwrap().unwrap().delivery
}

async fn claim(store: &Store, lease: &Lease, now: Moment) -> Vec<Claimed> {
    store.claim_outbox("support", lease.fence, now, 10).await.unwrap()
}

async fn what_is_on_its_way_is_seen_where_we_wrote_elsewhere(database: &Database) {
    let store = database.store().await;
    let mut changes = arrival(1);
    for replacing in changes.conversations.values_mut() {
        replacing.row.thread_name = Some("user 1".to_owned());
    }
    store.commit(&changes).await.unwrap();
    let conversation = changes.conversations.into_values().next().unwrap().row;
    store.commit(&reply(11, &conversation)).await.unwrap();
    let lease = store.hold_lease(&lease_name("support"), "worker", PERIOD).await;
    let mut echo = event(9, "1@example.org");
    if let Body::MessageReceived(message) = &mut echo.body {
        message.sender.scheme = Party::OURS.to_owned();
        message.evidence.thread = Some("user 1".to_owned());
    }
    let in_flight = async || {
        let context = store.context(Arc::default(), TOPIC, 0, &[&echo]).await.unwrap();
        let all = context.in_flight.into_values().flatten();
        all.map(|(reference, ours)| (reference.message_id, ours.text))
            .collect::<Vec<_>>()
    };
    assert_eq!(in_flight().await, [], "it has not left yet");
    let claimed = claim(&store, &lease, at(1)).await;
    let text = claimed[0].outbound.text.clone();
    assert_eq!(in_flight().await, [], "it comes back with our name of it");
    let (plan, mut declaration) = super::desk::account("support");
    declaration.bare_echoes = true;
    store.declare_accounts(&[(plan, declaration)]).await.unwrap();
    assert_eq!(in_flight().await, [(reply_id(11), text.clone())]);
    let uncertain = Settlement::Uncertain {
        error: "no answer".to_owned(),
    };
    assert!(
        store
            .settle_outbox(&reply_id(11), lease.fence, &uncertain, at(2))
            .await
            .unwrap()
    );
    assert_eq!(in_flight().await, [(reply_id(11), text)]);
    let told = Changes {
        named: vec![(reply_id(11), "m_1".to_owned())],
        deliveries: vec![(
            reply_id(11),
            DeliveryReport {
                external_id: "m_1".to_owned(),
                state: DeliveryState::Sent,
                error: None,
            },
        )],
        ..Changes::default()
    };
    store.commit(&told).await.unwrap();
    assert_eq!(in_flight().await, []);
    let known = store.known_external_ids(&["m_1".to_owned()]).await.unwrap();
    assert_eq!(known.get("m_1"), Some(&1));
}

async fn a_conversation_sends_in_order(database: &Database) {
    let store = database.store().await;
    let (lease, [first, _]) = given(&store).await;
    assert_eq!(store.outbox_pending().await.unwrap(), (3, Some(at(0))));
    let claimed = claim(&store, &lease, at(1)).await;
    assert_eq!(ids(&claimed), [reply_id(11), reply_id(13)]);
    assert!(claim(&store, &lease, at(1)).await.is_empty());

    assert!(
        store
            .settle_outbox(&reply_id(11), lease.fence, &sent("<r11@x>"), at(2))
            .await
            .unwrap()
    );
    assert_eq!(state(&store, 11).await, Some(DeliveryState::Sent));
    assert_eq!(ids(&claim(&store, &lease, at(3)).await), [reply_id(12)]);
    assert!(
        !store
            .settle_outbox(&reply_id(11), lease.fence, &sent("<r11@x>"), at(2))
            .await
            .unwrap()
    );

    let told = store.next_announcements(100).await.unwrap();
    let told = told.iter().rfind(|told| told.subject == first.id.as_str()).unwrap();
    assert_eq!((told.kind.as_str(), told.version), ("message.sent", first.version + 1));
    let row = store.conversation(&first.id).await.unwrap().unwrap();
    assert_eq!(row.version, first.version + 1);
}

async fn a_claimed_message_knows_what_it_answers(database: &Database) {
    let store = database.store().await;
    let (lease, [first, _]) = given(&store).await;
    let claimed = claim(&store, &lease, at(1)).await;
    assert_eq!(claimed[0].attempts, 0);
    assert_eq!(claimed[0].outbound.references, ["<1@example.org>"]);
    assert_eq!(claimed[0].outbound.thread, "t");
    assert_eq!(claimed[0].outbound.conversation_id, first.id);
    assert!(!claimed[0].outbound.automatic);
    store
        .settle_outbox(&reply_id(11), lease.fence, &sent("<r11@x>"), at(2))
        .await
        .unwrap();
    let claimed = claim(&store, &lease, at(3)).await;
    assert_eq!(claimed[0].outbound.references, ["<1@example.org>", "<r11@x>"]);
    assert_eq!(
        store.thread_references(&first.id).await.unwrap(),
        ["<1@example.org>", "<r11@x>"]
    );
    let known = store
        .known_external_ids(&["<r11@x>".to_owned(), "<no@x>".to_owned()])
        .await
        .unwrap();
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [("<r11@x>".to_owned(), 1)]);
}

async fn a_retry_waits_and_holds_up_its_conversation_only(database: &Database) {
    let store = database.store().await;
    let (lease, _) = given(&store).await;
    claim(&store, &lease, at(1)).await;
    let again = Settlement::Retry {
        at: at(60),
        error: "busy".to_owned(),
    };
    for number in [11, 13] {
        assert!(
            store
                .settle_outbox(&reply_id(number), lease.fence, &again, at(2))
                .await
                .unwrap()
        );
    }
    assert!(claim(&store, &lease, at(59)).await.is_empty());
    let message = store.message(&reply_id(11)).await.unwrap().unwrap();
    assert_eq!(message.delivery_error.as_deref(), Some("busy"));
    let claimed = claim(&store, &lease, at(60)).await;
    assert_eq!(ids(&claimed), [reply_id(11), reply_id(13)]);
    assert_eq!(claimed[0].attempts, 1);
    let failed = Settlement::Failed {
        error: "no such number".to_owned(),
    };
    assert!(
        store
            .settle_outbox(&reply_id(13), lease.fence, &failed, at(61))
            .await
            .unwrap()
    );
    assert_eq!(state(&store, 13).await, Some(DeliveryState::Failed));
}

async fn an_old_fence_settles_and_claims_nothing(database: &Database) {
    let store = database.store().await;
    let (old, _) = given(&store).await;
    claim(&store, &old, at(1)).await;
    store.release_lease(&old).await.unwrap();
    let new = store.hold_lease(&lease_name("support"), "other", PERIOD).await;
    assert_eq!(new.fence, old.fence + 1);
    assert!(claim(&store, &old, at(2)).await.is_empty());

    let left = store.interrupted_outbox("support", new.fence).await.unwrap();
    assert_eq!(left.len(), 2);
    assert!(store.interrupted_outbox("support", old.fence).await.unwrap().is_empty());
    // The old holder comes back in time with one of them, too late with the other.
    assert!(
        store
            .settle_outbox(&reply_id(13), old.fence, &sent("<r13@x>"), at(2))
            .await
            .unwrap()
    );
    let now = Settlement::Retry {
        at: at(2),
        error: "interrupted".to_owned(),
    };
    assert!(!store.recover_outbox(&reply_id(13), new.fence, &now).await.unwrap());
    assert!(!store.recover_outbox(&reply_id(11), old.fence, &now).await.unwrap());
    assert!(store.recover_outbox(&reply_id(11), new.fence, &now).await.unwrap());
    assert!(
        !store
            .settle_outbox(&reply_id(11), old.fence, &sent("<r11@x>"), at(2))
            .await
            .unwrap()
    );
    let claimed = claim(&store, &new, at(3)).await;
    assert_eq!(ids(&claimed), [reply_id(11)]);
    assert_eq!(claimed[0].attempts, 1);
    assert!(
        !store
            .settle_outbox(&reply_id(11), old.fence, &sent("<r11@x>"), at(4))
            .await
            .unwrap()
    );
    assert!(
        store
            .settle_outbox(&reply_id(11), new.fence, &sent("<r11@x>"), at(4))
            .await
            .unwrap()
    );
}

/// What delivery reports make, as `decide` writes it.
fn reported(conversation: &Conversation, number: u64, states: [DeliveryState; 2]) -> Changes {
    let mut row = conversation.clone();
    row.version += 1;
    let deliveries = states.map(|state| {
        let report = DeliveryReport {
            external_id: "x".to_owned(),
            state,
            error: None,
        };
        (reply_id(number), report)
    });
    let mut changes = Changes {
        deliveries: deliveries.to_vec(),
        announcements: vec![announcement(row.id.as_str(), row.version, "message.delivered")],
        ..Changes::default()
    };
    let expected_version = conversation.version;
    changes
        .conversations
        .insert(row.id.clone(), Replacing { expected_version, row });
    changes
}

async fn a_message_that_arrived_is_not_tried_again(database: &Database) {
    let store = database.store().await;
    let (lease, [first, second]) = given(&store).await;
    claim(&store, &lease, at(1)).await;
    let again = Settlement::Retry {
        at: at(2),
        error: "no answer".to_owned(),
    };
    for number in [11, 13] {
        assert!(
            store
                .settle_outbox(&reply_id(number), lease.fence, &again, at(2))
                .await
                .unwrap()
        );
    }
    let failed = [DeliveryState::Failed, DeliveryState::Failed];
    let delivered = [DeliveryState::Delivered, DeliveryState::Delivered];
    store.commit(&reported(&first, 11, delivered)).await.unwrap();
    store.commit(&reported(&second, 13, failed)).await.unwrap();
    assert_eq!(ids(&claim(&store, &lease, at(3)).await), [reply_id(12), reply_id(13)]);
}

async fn a_report_that_overtook_the_settlement_stays(database: &Database) {
    let store = database.store().await;
    let (lease, [mut first, _]) = given(&store).await;
    claim(&store, &lease, at(1)).await;
    let changes = reported(&first, 11, [DeliveryState::Delivered, DeliveryState::Sent]);
    first.version += 1;
    store.commit(&changes).await.unwrap();
    assert_eq!(state(&store, 11).await, Some(DeliveryState::Delivered));

    assert!(
        store
            .settle_outbox(&reply_id(11), lease.fence, &sent("<r11@x>"), at(2))
            .await
            .unwrap()
    );
    assert_eq!(state(&store, 11).await, Some(DeliveryState::Delivered));
    assert_eq!(
        store.conversation(&first.id).await.unwrap().unwrap().version,
        first.version
    );
    assert_eq!(store.outbox_pending().await.unwrap().0, 2);
}

async fn people_settle_and_resend(database: &Database) {
    let store = database.store().await;
    let (lease, [first, _]) = given(&store).await;
    assert_eq!(store.resend(&reply_id(99), at(1), None).await.unwrap(), None);
    assert_eq!(
        store.resend(&super::given::message_id(1), at(1), None).await.unwrap(),
        None
    );
    assert_eq!(store.resend(&reply_id(11), at(1), None).await.unwrap(), Some(false));
    claim(&store, &lease, at(1)).await;
    let uncertain = Settlement::Uncertain {
        error: "cut off".to_owned(),
    };
    for number in [11, 13] {
        assert!(
            store
                .settle_outbox(&reply_id(number), lease.fence, &uncertain, at(2))
                .await
                .unwrap()
        );
        assert_eq!(state(&store, number).await, Some(DeliveryState::Uncertain));
    }
    // An uncertain message does not hold up its conversation.
    assert_eq!(ids(&claim(&store, &lease, at(3)).await), [reply_id(12)]);

    let thirteen = reply_id(13);
    let by_hand = |state| store.settle_by_hand(&thirteen, state, at(3), None);
    assert_eq!(by_hand(DeliveryState::Read).await.unwrap(), Some(false));
    assert_eq!(by_hand(DeliveryState::Sent).await.unwrap(), Some(true));
    assert_eq!(by_hand(DeliveryState::Sent).await.unwrap(), Some(false));
    assert_eq!(state(&store, 13).await, Some(DeliveryState::Sent));

    assert_eq!(store.resend(&reply_id(11), at(4), None).await.unwrap(), Some(true));
    assert_eq!(state(&store, 11).await, Some(DeliveryState::Queued));
    let told = store.next_announcements(100).await.unwrap();
    let kinds: Vec<&str> = told
        .iter()
        .filter(|told| told.subject == first.id.as_str())
        .map(|told| told.kind.as_str())
        .collect();
    let written = ["message.received", "message.written", "message.written"];
    assert_eq!(kinds, [&written[..], &["message.uncertain", "message.queued"]].concat());
    store
        .settle_outbox(&reply_id(12), lease.fence, &sent("<r12@x>"), at(5))
        .await
        .unwrap();
    assert_eq!(ids(&claim(&store, &lease, at(5)).await), [reply_id(11)]);
}

async fn an_unreadable_message_fails_by_itself(database: &Database) {
    let store = database.store().await;
    let (lease, _) = given(&store).await;
    let mut transaction = store.begin("spoiling a message").await.unwrap();
    sql("UPDATE messages SET content = '{' WHERE id = $1", "spoiling a message")
        .bind(reply_id(11).as_str())
        .execute(&mut transaction)
        .await
        .unwrap();
    transaction.commit("spoiling a message").await.unwrap();
    assert_eq!(ids(&claim(&store, &lease, at(1)).await), [reply_id(13)]);
    // It is settled, so its conversation goes on.
    assert_eq!(ids(&claim(&store, &lease, at(2)).await), [reply_id(12)]);
    let statement = sql(
        "SELECT delivery, delivery_error FROM messages WHERE id = $1",
        "reading a state",
    )
    .bind(reply_id(11).as_str());
    let read = |row: &AnyRow| Ok((get::<String>(row, "delivery")?, get::<String>(row, "delivery_error")?));
    let (state, error) = store.read_all(statement, read).await.unwrap().remove(0);
    assert_eq!(state, "failed");
    assert!(
        error.starts_with("it cannot be read any more: the JSON of column content"),
        "{error}"
    );
}

/// SQLite keeps whatever it is given; PostgreSQL never takes such a text.
async fn a_message_that_is_not_even_text_fails_by_itself(database: &Database) {
    let store = database.store().await;
    let (lease, _) = given(&store).await;
    let mut transaction = store.begin("spoiling a message").await.unwrap();
    if !transaction.is_postgres() {
        sql(
            "UPDATE messages SET content = CAST(x'7bff7d' AS TEXT) WHERE id = $1",
            "spoiling a message",
        )
        .bind(reply_id(11).as_str())
        .execute(&mut transaction)
        .await
        .unwrap();
        transaction.commit("spoiling a message").await.unwrap();
        assert_eq!(ids(&claim(&store, &lease, at(1)).await), [reply_id(13)]);
        assert_eq!(state(&store, 12).await, Some(DeliveryState::Queued));
        assert_eq!(ids(&claim(&store, &lease, at(2)).await), [reply_id(12)]);
    }
}
