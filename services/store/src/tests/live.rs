//! What live views read, and the presence of visitors.

use model::id::ConversationId;

use super::given::{arrival, at, reply, together};
use crate::live::Head;
use crate::sql::{get, sql};
use crate::testing::{Database, on_both};

on_both!(
    heads_are_found_by_thread_name,
    visible_messages_come_in_their_order,
    what_was_read_is_no_longer_unread,
    a_piece_is_found_by_its_number,
    a_visitor_has_left_when_nobody_looks,
);

async fn heads_are_found_by_thread_name(database: &Database) {
    let store = database.store().await;
    let mut changes = together([arrival(1), arrival(2)]);
    let names = ["one", "two"];
    for (replacing, name) in changes.conversations.values_mut().zip(names) {
        replacing.row.thread_name = Some(name.to_owned());
    }
    let rows: Vec<_> = changes
        .conversations
        .values()
        .map(|replacing| replacing.row.clone())
        .collect();
    store.commit(&changes).await.unwrap();
    let asked = [
        ("support", "two"),
        ("support", "three"),
        ("sales", "one"),
        ("support", "one"),
        ("a\0", "b"),
    ];
    let mut found = store.heads(&asked).await.unwrap();
    found.sort_by(|one, other| one.thread_name.cmp(&other.thread_name));
    let expected: Vec<Head> = rows
        .iter()
        .map(|row| Head {
            account: "support".to_owned(),
            thread_name: row.thread_name.clone().unwrap(),
            conversation_id: row.id.clone(),
            epoch: 1,
            last_sequence: row.last_sequence,
        })
        .collect();
    assert_eq!(found, expected);
    assert!(store.heads(&[]).await.unwrap().is_empty());
}

async fn visible_messages_come_in_their_order(database: &Database) {
    let store = database.store().await;
    let first = arrival(1);
    let mut row = first.conversations.values().next().unwrap().row.clone();
    store.commit(&first).await.unwrap();
    for number in 2..6 {
        let changes = reply(number, &row);
        store.commit(&changes).await.unwrap();
        row = changes.conversations.into_values().next().unwrap().row;
    }
    let check = async |after: i64, limit: i64, expected: &[i64]| {
        let piece = store.visible_messages(&row.id, after, limit).await.unwrap().unwrap();
        let found: Vec<i64> = piece.messages.iter().filter_map(|message| message.sequence).collect();
        assert_eq!(found, expected, "{after} {limit}");
        assert_eq!((piece.epoch, piece.last_sequence), (row.epoch, row.last_sequence));
    };
    check(0, 100, &[1, 2, 3, 4, 5]).await;
    check(2, 2, &[3, 4]).await;
    check(5, 100, &[]).await;
    check(9, 100, &[]).await;
    let unknown = ConversationId::begun_by(&model::id::MessageId::authored("nobody", "1"));
    assert!(store.visible_messages(&unknown, 0, 1).await.unwrap().is_none());
}

async fn what_was_read_is_no_longer_unread(database: &Database) {
    let store = database.store().await;
    let first = arrival(1);
    let mut row = first.conversations.values().next().unwrap().row.clone();
    store.commit(&first).await.unwrap();
    let mut written = Vec::new();
    for number in 2..5 {
        let changes = reply(number, &row);
        store.commit(&changes).await.unwrap();
        written.push(changes.messages[0].id.clone());
        row = changes.conversations.into_values().next().unwrap().row;
    }
    let unread = store.unread(&row.id, 3, 10).await.unwrap();
    assert_eq!(unread, [written[1].clone(), written[0].clone()]);
    assert_eq!(store.unread(&row.id, 4, 1).await.unwrap(), [written[2].clone()]);
    let read = model::context::Changes {
        deliveries: vec![(
            written[1].clone(),
            model::event::DeliveryReport {
                external_id: written[1].to_string(),
                state: model::event::DeliveryState::Read,
                error: None,
            },
        )],
        ..Default::default()
    };
    store.commit(&read).await.unwrap();
    assert_eq!(store.unread(&row.id, 3, 10).await.unwrap(), [written[0].clone()]);
}

async fn a_visitor_has_left_when_nobody_looks(database: &Database) {
    let store = database.store().await;
    let changes = arrival(1);
    let row = changes.conversations.values().next().unwrap().row.clone();
    store.commit(&changes).await.unwrap();
    let written_at = row.last_message_at;
    let after = |ms: i64| written_at.plus_ms(ms);
    let check = async |now_ms: i64, expected: Option<i64>| {
        let left = store.visitor_left(&row.id, 1_000, after(now_ms)).await.unwrap();
        assert_eq!(left, expected.map(after), "{now_ms}");
    };
    // Never seen: since the last word.
    check(999, None).await;
    check(1_000, Some(0)).await;
    store
        .visitors_seen(&[row.id.clone(), row.id.clone()], after(5_000))
        .await
        .unwrap();
    check(5_500, None).await;
    check(6_000, Some(5_000)).await;
    // A closed socket; but a moment later another was there.
    store.visitor_gone(&row.id, after(5_000), after(5_300)).await.unwrap();
    check(6_200, None).await;
    check(6_300, Some(5_300)).await;
    store
        .visitors_seen(std::slice::from_ref(&row.id), after(6_400))
        .await
        .unwrap();
    check(7_000, None).await;
    store.visitor_gone(&row.id, after(5_000), after(6_500)).await.unwrap();
    check(7_399, None).await;
    check(7_400, Some(6_400)).await;
    // An older look changes nothing.
    store.visitors_seen(std::slice::from_ref(&row.id), at(0)).await.unwrap();
    check(7_400, Some(6_400)).await;
    let unknown = ConversationId::begun_by(&model::id::MessageId::authored("nobody", "1"));
    assert_eq!(store.visitor_left(&unknown, 0, after(0)).await.unwrap(), None);
}

/// Without sorting the whole conversation. (PostgreSQL plans by statistics, which a
/// test's few rows do not give.)
async fn a_piece_is_found_by_its_number(database: &Database) {
    let store = database.store().await;
    let mut connection = store.read("asking for a plan").await.unwrap();
    if connection.is_postgres() {
        return;
    }
    let plan = sql(
        "EXPLAIN QUERY PLAN SELECT m.id FROM messages AS m
         WHERE m.conversation_id = $1 AND m.sequence > $2 AND m.erased_at IS NULL ORDER BY m.sequence LIMIT $3",
        "asking for a plan",
    )
    .bind("cnv_a")
    .bind(7)
    .bind(50)
    .all(&mut connection)
    .await
    .unwrap();
    let steps: Vec<String> = plan.iter().map(|row| get(row, "detail").unwrap()).collect();
    assert!(
        steps.len() == 1 && steps[0].contains("messages_by_sequence"),
        "{steps:?}"
    );
}
