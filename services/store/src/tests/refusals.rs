//! What the database refuses, and what it has no room for.

use model::context::{Changes, ParkedInput};
use model::event::{DeliveryState, Raw, RawContent};

use super::given::{TOPIC, advance, arrival, at, raw, together};
use crate::Error;
use crate::apply::Outcome;
use crate::testing::{Database, on_both};

on_both!(
    a_poison_row_is_refused_with_its_batch,
    a_quarantine_has_room_for_so_many_inputs,
    a_quarantine_has_room_for_so_many_bytes,
    a_parked_input_opens_again,
    ranks_are_those_of_the_model,
);

async fn a_poison_row_is_refused_with_its_batch(database: &Database) {
    let store = database.store().await;
    let mut with_nul = arrival(2);
    with_nul.messages[0].author = "a\0b".to_owned();
    let mut with_long_address = arrival(2);
    with_long_address.identities[0].identity.address = "a".repeat(501);
    let mut with_long_thread = arrival(2);
    for replacing in with_long_thread.conversations.values_mut() {
        replacing.row.thread_name = Some("ä".repeat(501));
    }
    for poison in [with_nul, with_long_address, with_long_thread] {
        let outcome = store
            .apply(&advance(0, 0, 3), &together([arrival(1), poison, arrival(3)]))
            .await;
        assert!(matches!(outcome, Err(Error::Refused { .. })), "{outcome:?}");
        assert_eq!(store.offsets(TOPIC).await.unwrap(), []);
        assert!(
            store
                .list_tickets(&Default::default(), None, 10)
                .await
                .unwrap()
                .is_empty()
        );
    }
    // Nothing of it stands in the way of the next.
    let good = together([arrival(1), arrival(3)]);
    assert_eq!(store.apply(&advance(0, 0, 3), &good).await.unwrap(), Outcome::Applied);
    // Longest that fit, and an external id too long to be a key.
    let mut long = arrival(4);
    long.identities[0].identity.address = "ä".repeat(500);
    long.messages[0].message.external_ids.push("x".repeat(10_000));
    assert_eq!(store.commit(&long).await.unwrap(), Outcome::Applied);
    let stored = store.message(&long.messages[0].id).await.unwrap();
    assert_eq!(stored.as_ref(), Some(&long.messages[0]));
}

fn parked(number: u64, quarantined: bool, bytes: usize) -> ParkedInput {
    ParkedInput {
        id: format!("evt_{number:06}"),
        account: "support".to_owned(),
        channel: "webhook".to_owned(),
        quarantined,
        reason: "wrong signature".to_owned(),
        raw: Raw {
            content: RawContent::Inline(vec![0; bytes]),
            ..raw()
        },
        received_at: at(number as i64),
    }
}

fn parking(inputs: impl IntoIterator<Item = ParkedInput>) -> Changes {
    Changes {
        parked: inputs.into_iter().collect(),
        ..Changes::default()
    }
}

async fn a_quarantine_has_room_for_so_many_inputs(database: &Database) {
    let store = database.store().await;
    let first = (0..900).map(|number| parked(number, true, 1));
    store.apply(&advance(0, 0, 900), &parking(first)).await.unwrap();
    let rest = (850..1_100).map(|number| parked(number, true, 1));
    let mut elsewhere = parked(5_000, true, 1);
    elsewhere.account = "sales".to_owned();
    let unreadable = parked(6_000, false, 1);
    let changes = parking(rest.chain([elsewhere, unreadable]));
    let outcome = store.apply(&advance(0, 900, 1_100), &changes).await.unwrap();
    assert_eq!(outcome, Outcome::Applied);
    assert_eq!(store.parked_pending().await.unwrap(), (1, 1_001));
    // What was replayed makes room.
    assert!(store.mark_replayed("evt_000000", at(1)).await.unwrap());
    assert!(!store.mark_replayed("evt_none", at(1)).await.unwrap());
    store
        .commit(&parking([parked(7_000, true, 1), parked(7_001, true, 1)]))
        .await
        .unwrap();
    assert_eq!(store.parked_pending().await.unwrap(), (1, 1_001));
}

async fn a_quarantine_has_room_for_so_many_bytes(database: &Database) {
    let store = database.store().await;
    let inputs = (0..20).map(|number| parked(number, true, 1024 * 1024));
    store.commit(&parking(inputs)).await.unwrap();
    assert_eq!(store.parked_pending().await.unwrap(), (0, 16));
}

async fn a_parked_input_opens_again(database: &Database) {
    let store = database.store().await;
    let input = parked(1, true, 3);
    store
        .commit(&parking([input.clone(), parked(2, false, 0)]))
        .await
        .unwrap();
    assert_eq!(
        store.parked_input(&input.id).await.unwrap(),
        Some((input.clone(), None))
    );
    store.mark_replayed(&input.id, at(9)).await.unwrap();
    assert_eq!(store.parked_input(&input.id).await.unwrap().unwrap().1, Some(at(9)));
    assert_eq!(store.parked_pending().await.unwrap(), (1, 0));

    let again = ParkedInput {
        quarantined: false,
        reason: "not JSON".to_owned(),
        ..input.clone()
    };
    store.commit(&parking([again])).await.unwrap();
    let (found, replayed_at) = store.parked_input(&input.id).await.unwrap().unwrap();
    assert_eq!(
        (found.reason.as_str(), found.quarantined, replayed_at),
        ("not JSON", false, None)
    );
    let listed = store.list_parked(None, 10).await.unwrap();
    assert_eq!(
        listed.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(),
        ["evt_000002", "evt_000001"]
    );
    let before = Some((listed[0].received_at, listed[0].id.clone()));
    let next = store.list_parked(before, 10).await.unwrap();
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].size_bytes, 3);
    assert_eq!(store.parked_input("a\0b").await.unwrap(), None);
}

/// The one list of ranks that stands in SQL.
async fn ranks_are_those_of_the_model(_: &Database) {
    let ranked = ["queued", "sending", "uncertain", "sent", "failed", "delivered", "read"];
    for (rank, name) in ranked.into_iter().enumerate() {
        assert_eq!(DeliveryState::parse(name).unwrap().rank(), rank as i64);
    }
}
