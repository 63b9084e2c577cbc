//! Leases, announcements, the book, accounts, people, lists of tickets.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use model::context::{AccountPlan, Changes, Queue};
use model::outbound::{Declaration, Join};
use model::rule::{Actions, Rule};
use model::time::Moment;

use super::given::{announcement, arrival, assigned, at, together};
use crate::Store;
use crate::book::Declared;
use crate::testing::{Database, on_both};
use crate::tickets::TicketFilter;

on_both!(
    a_lease_has_one_owner,
    a_lease_is_taken_from_the_dead_only,
    a_cursor_moves_under_its_lease,
    announcements_leave_in_order_and_under_a_fence,
    a_changed_definition_is_a_new_version,
    accounts_come_and_go,
    tokens_are_somebodys,
    tickets_are_listed_newest_first,
);

const PERIOD: Duration = Duration::from_millis(600);
const SOON: Duration = Duration::from_secs(20);

async fn a_lease_has_one_owner(database: &Database) {
    let store = database.store().await;
    let first = store.hold_lease("relay", "a", PERIOD).await;
    let other = Store::open(&database.url).await.unwrap();
    assert!(
        timeout(PERIOD * 3, other.hold_lease("relay", "b", PERIOD))
            .await
            .is_err()
    );
    assert!(!first.lost.is_cancelled());
    let holders = store.lease_holders().await.unwrap();
    assert_eq!((holders[0].owner.as_str(), holders[0].fence), ("a", first.fence));

    store.release_lease(&first).await.unwrap();
    assert!(store.lease_holders().await.unwrap().is_empty());
    let second = timeout(SOON, other.hold_lease("relay", "b", Duration::from_secs(60)));
    let second = second.await.unwrap();
    assert_eq!(second.fence, first.fence + 1);
    timeout(SOON, first.lost.cancelled()).await.unwrap();
}

async fn a_lease_is_taken_from_the_dead_only(database: &Database) {
    let store = database.store().await;
    let dead = store.hold_lease("relay", "a", PERIOD).await;
    let fence = dead.fence;
    // Its owner dies: no more beats.
    drop(dead);
    let since = Instant::now();
    let next = timeout(SOON, store.hold_lease("relay", "b", PERIOD)).await.unwrap();
    assert!(since.elapsed() >= PERIOD);
    assert_eq!(next.fence, fence + 1);
    assert!(!next.lost.is_cancelled());
}

async fn a_cursor_moves_under_its_lease(database: &Database) {
    let store = database.store().await;
    let lease = store.hold_lease("pull:support", "a", PERIOD).await;
    assert_eq!(store.cursor("support").await.unwrap(), None);
    for uid in [7, 8] {
        let cursor = serde_json::json!({ "uid": uid });
        assert!(store.move_cursor(&lease, "support", &cursor).await.unwrap());
        assert_eq!(store.cursor("support").await.unwrap(), Some(cursor));
    }
    store.release_lease(&lease).await.unwrap();
    let stale = serde_json::json!({ "uid": 9 });
    assert!(!store.move_cursor(&lease, "support", &stale).await.unwrap());
    let _next = store.hold_lease("pull:support", "b", PERIOD).await;
    assert!(!store.move_cursor(&lease, "support", &stale).await.unwrap());
    assert_eq!(
        store.cursor("support").await.unwrap(),
        Some(serde_json::json!({ "uid": 8 }))
    );
}

async fn announcements_leave_in_order_and_under_a_fence(database: &Database) {
    let store = database.store().await;
    let relay = store.hold_lease("relay", "a", PERIOD).await;
    let first = arrival(1);
    let both = together([first.clone(), arrival(2)]);
    store.commit(&both).await.unwrap();
    let mut total = both.announcements.len();
    let mut ticket = first.tickets.into_values().next().unwrap().row;
    for name in ["ada", "bob", "eve"] {
        let changes = assigned(&ticket, name);
        store.commit(&changes).await.unwrap();
        total += changes.announcements.len();
        ticket = changes.tickets.into_values().next().unwrap().row;
    }
    let mut seen = std::collections::HashMap::<String, i64>::new();
    let mut count = 0;
    loop {
        let next = store.next_announcements(2).await.unwrap();
        if next.is_empty() {
            break;
        }
        for told in &next {
            let version = seen.entry(told.subject.clone()).or_default();
            *version += 1;
            assert_eq!(told.version, *version);
            count += 1;
        }
        assert!(store.remove_announcements(&relay, &next).await.unwrap());
    }
    assert_eq!(count, total);

    let again = model::context::Changes {
        announcements: vec![announcement("cnv_a", 1, "message.received")],
        ..Default::default()
    };
    store.commit(&again).await.unwrap();
    store.release_lease(&relay).await.unwrap();
    assert!(!store.remove_announcements(&relay, &again.announcements).await.unwrap());
    assert_eq!(store.next_announcements(9).await.unwrap(), again.announcements);
}

fn declared(queues: &[&str], rule: &str) -> Declared {
    Declared {
        queues: queues
            .iter()
            .map(|name| Queue {
                name: (*name).to_owned(),
                policy: None,
            })
            .collect(),
        rules: vec![Rule {
            name: rule.to_owned(),
            when: None,
            then: Actions::default(),
        }],
        employee_domains: BTreeSet::from(["example.com".to_owned()]),
        ..Declared::default()
    }
}

async fn a_changed_definition_is_a_new_version(database: &Database) {
    let store = database.store().await;
    let other = Store::open(&database.url).await.unwrap();
    assert_eq!(store.book().await.unwrap().rules_version, 0);
    store.declare(&declared(&["support", "it"], "all")).await.unwrap();
    let book = store.book().await.unwrap();
    assert_eq!(book.rules_version, 1);
    assert_eq!(book.queues[1].name, "it");
    assert!(book.employee_domains.contains("example.com"));

    store.declare(&declared(&["support", "it"], "all")).await.unwrap();
    let same = store.book().await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&book, &same));

    store.declare(&declared(&["it"], "other")).await.unwrap();
    for store in [&store, &other] {
        let changed = store.book().await.unwrap();
        assert_eq!(changed.rules_version, 2);
        assert_eq!(changed.queues.len(), 1);
    }
    // Back to the old text: it is in force now, and that is a third version.
    store.declare(&declared(&["it"], "all")).await.unwrap();
    assert_eq!(other.book().await.unwrap().rules_version, 3);
}

pub(super) fn account(name: &str) -> (AccountPlan, Declaration) {
    let plan = AccountPlan {
        name: name.to_owned(),
        channel: "email".to_owned(),
        queue: None,
        join: Join::Thread,
        live: false,
    };
    let declaration = Declaration {
        max_chars: Some(1000),
        formats: vec!["text/plain".to_owned()],
        reply_window_ms: None,
        resend_safe: true,
        max_attachment_bytes: None,
        join: Join::Thread,
        ..Declaration::default()
    };
    (plan, declaration)
}

async fn accounts_come_and_go(database: &Database) {
    let store = database.store().await;
    store
        .declare_accounts(&[account("support"), account("sales")])
        .await
        .unwrap();
    assert_eq!(store.book().await.unwrap().accounts.len(), 2);
    store.account_seen("sales", None, 3, at(1)).await.unwrap();
    store.account_seen("sales", Some("no\0route"), 4, at(2)).await.unwrap();
    let lease = store.hold_lease("pull:sales", "worker-1", PERIOD).await;
    let found = store.accounts().await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].plan.name, "sales");
    assert_eq!(found[0].last_seen_at, Some(at(1)));
    assert_eq!(found[0].error.as_deref(), Some("noroute"));
    assert_eq!(found[0].error_at, Some(at(2)));
    assert_eq!(found[0].waiting, 4);
    assert_eq!(found[0].held_by.as_deref(), Some("worker-1"));
    assert_eq!(found[1].held_by, None);
    drop(lease);
    // Its input is pushed from now on.
    store.nothing_waits(&[]).await.unwrap();
    store.nothing_waits(&["sales", "support"]).await.unwrap();
    assert_eq!(store.accounts().await.unwrap()[0].waiting, 0);
    store.account_seen("sales", None, 0, at(3)).await.unwrap();
    assert_eq!(store.accounts().await.unwrap()[0].error, None);
    // What is wrong with sending stands beside what is wrong with reading.
    let error = async || {
        let sales = store.accounts().await.unwrap().remove(0);
        (sales.error, sales.error_at)
    };
    let says = |words: &str, second| (Some(words.to_owned()), Some(at(second)));
    store.account_sent("sales", Some("token revoked"), at(4)).await.unwrap();
    store.account_seen("sales", None, 0, at(5)).await.unwrap();
    assert_eq!(error().await, says("token revoked", 4));
    assert!(store.is_broken_and_idle("sales").await.unwrap());
    store.account_seen("sales", Some("no route"), 1, at(6)).await.unwrap();
    assert_eq!(error().await, says("no route", 6));
    store.account_sent("sales", None, at(7)).await.unwrap();
    assert_eq!(error().await, says("no route", 6));
    assert!(!store.is_broken_and_idle("sales").await.unwrap());
    store.account_seen("sales", None, 0, at(8)).await.unwrap();
    // A vendor's word counts at once.
    let told = Changes {
        broken_accounts: [("sales".to_owned(), (at(9), "taken out".to_owned()))].into(),
        ..Changes::default()
    };
    store.commit(&told).await.unwrap();
    assert_eq!(error().await, says("taken out", 9));
    store.account_sent("sales", None, at(10)).await.unwrap();
    assert_eq!(error().await, (None, None));
    // It comes again, or late: something was sent since.
    store.commit(&told).await.unwrap();
    assert_eq!(error().await, (None, None));

    store.declare_accounts(&[account("support")]).await.unwrap();
    assert_eq!(store.accounts().await.unwrap().len(), 1);
    assert_eq!(store.book().await.unwrap().accounts.len(), 1);
    store
        .declare_accounts(&[account("support"), account("sales")])
        .await
        .unwrap();
    assert_eq!(store.accounts().await.unwrap().len(), 2);
}

async fn tokens_are_somebodys(database: &Database) {
    let store = database.store().await;
    assert!(!store.has_tokens().await.unwrap());
    store
        .declare_people(&["ada".to_owned(), "bob".to_owned()])
        .await
        .unwrap();
    store.create_token("eve", "00ff", at(0)).await.unwrap();
    assert!(store.has_tokens().await.unwrap());
    assert_eq!(store.person_of_token("00ff").await.unwrap().as_deref(), Some("eve"));
    assert_eq!(store.person_of_token("00fe").await.unwrap(), None);
    for (name, exists) in [("ada", true), ("eve", true), ("mallory", false), ("a\0da", false)] {
        assert_eq!(store.person_exists(name).await.unwrap(), exists, "{name}");
    }
}

async fn tickets_are_listed_newest_first(database: &Database) {
    let store = database.store().await;
    let changes = together((1..=5).map(arrival));
    store.commit(&changes).await.unwrap();
    let third = changes
        .tickets
        .values()
        .find(|one| one.row.number == "CS0000003")
        .unwrap();
    store.commit(&assigned(&third.row, "ada")).await.unwrap();

    let numbers = async |filter: &TicketFilter, before, limit| {
        let found = store.list_tickets(filter, before, limit).await.unwrap();
        found.into_iter().map(|ticket| ticket.number).collect::<Vec<_>>()
    };
    let all = TicketFilter::default();
    assert_eq!(numbers(&all, None, 2).await, ["CS0000005", "CS0000004"]);
    let fourth = changes
        .tickets
        .values()
        .find(|one| one.row.number == "CS0000004")
        .unwrap();
    let before = Some((fourth.row.opened_at, fourth.row.id.clone()));
    assert_eq!(numbers(&all, before, 2).await, ["CS0000003", "CS0000002"]);
    let of_ada = TicketFilter {
        assignee: Some("ada".to_owned()),
        kind: Some("case".to_owned()),
        queue: Some("support".to_owned()),
        category: Some("open".to_owned()),
        needs_attention: Some(false),
        ..TicketFilter::default()
    };
    assert_eq!(numbers(&of_ada, None, 9).await, ["CS0000003"]);
    let of_contact = TicketFilter {
        contact_id: Some(fourth.row.contact_id.to_string()),
        ..TicketFilter::default()
    };
    assert_eq!(numbers(&of_contact, None, 9).await, ["CS0000004"]);
    let none = TicketFilter {
        state: Some("no such".to_owned()),
        ..TicketFilter::default()
    };
    assert!(numbers(&none, None, 9).await.is_empty());

    // Without a policy no clock runs.
    assert_eq!(store.next_clock_at().await.unwrap(), None);
    let far = Moment::from_ms(i64::MAX);
    assert!(store.tickets_with_due_clocks(far, 9).await.unwrap().is_empty());
}

/// However many tickets there are: a list reads what it shows.
#[tokio::test]
async fn lists_of_tickets_are_read_by_their_indexes() {
    let database = Database::sqlite().await;
    let store = database.store().await;
    let some = || Some("x".to_owned());
    let open = || Some("open".to_owned());
    let of = TicketFilter::default;
    let cases = [
        (of(), "tickets_by_opening"),
        (TicketFilter { kind: some(), ..of() }, "tickets_by_kind"),
        (TicketFilter { queue: some(), ..of() }, "tickets_by_queue"),
        (
            TicketFilter {
                category: open(),
                ..of()
            },
            "tickets_open",
        ),
        (
            TicketFilter {
                queue: some(),
                category: open(),
                ..of()
            },
            "tickets_open_by_queue",
        ),
        (
            TicketFilter {
                assignee: some(),
                ..of()
            },
            "tickets_by_assignee",
        ),
        (
            TicketFilter {
                contact_id: some(),
                ..of()
            },
            "tickets_by_contact",
        ),
        (
            TicketFilter {
                needs_attention: Some(true),
                ..of()
            },
            "tickets_for_attention",
        ),
    ];
    for (filter, index) in cases {
        let statement = crate::tickets::list(&filter, None, 50).explained();
        let plan: Vec<String> = store
            .read_all(statement, |row| crate::sql::get(row, "detail"))
            .await
            .unwrap();
        assert!(
            plan[0].starts_with(&format!("SEARCH tickets USING INDEX {index} (")),
            "{filter:?}: {plan:?}"
        );
    }
}
