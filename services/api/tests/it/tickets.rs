//! Tickets: lists, one, and the verbs.

use std::collections::HashSet;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::house::{House, OTHER_TOKEN, in_thread_of, message_event, request, with_json};

fn numbers(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["number"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_message_is_seen_as_a_ticket_with_its_clocks() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let list = house.get("/v1/tickets").await.ok();
    assert_eq!(list["next"], Value::Null);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let item = &list["items"][0];
    assert_eq!(item["number"], received.ticket.as_str());
    assert_eq!(
        (&item["kind"], &item["state"], &item["category"], &item["queue"]),
        (&json!("case"), &json!("new"), &json!("open"), &json!("support"))
    );
    assert_eq!(item["subject"], "Printer");
    assert_eq!(item["policy"], "standard");
    assert!(item.get("events").is_none());

    let ticket = house.get(&format!("/v1/tickets/{}", received.ticket)).await.ok();
    assert_eq!(ticket["conversations"], json!([received.conversation]));
    let clocks = ticket["clocks"].as_array().unwrap();
    let first = clocks.iter().find(|clock| clock["metric"] == "first_response").unwrap();
    assert_eq!(first["state"], "running");
    assert_eq!(first["overdue"], false);
    let remaining_ms = first["remaining_ms"].as_i64().unwrap();
    assert!((3_500_000..=3_600_000).contains(&remaining_ms), "{first}");
    let events = ticket["events"].as_array().unwrap();
    assert_eq!(events[0]["type"], "opened");
    assert_eq!(events[0]["version"], 1);
    assert_eq!(events[0]["data"]["number"], received.ticket.as_str());
    assert!(events[0]["data"].get("type").is_none());
    let traces = ticket["traces"].as_array().unwrap();
    assert_eq!(traces[0]["message_id"], received.message.as_str());
    assert_eq!(traces[0]["rules"][0]["rule"], "incidents of it");
    assert_eq!(traces[0]["rules"][0]["matched"], false);
}

#[tokio::test]
async fn lists_are_narrowed() {
    let house = House::new().await;
    let first = house.receive("1").await;
    let second = house.arrive(&message_event("2", "ben@example.com", "outage!")).await;
    let third = house.arrive(&message_event("3", "carl@example.com", "Hello")).await;
    let path = format!("/v1/tickets/{}/assign", first.ticket);
    house.post(&path, json!({ "assignee": "bruno" })).await.ok();
    let path = format!("/v1/tickets/{}/resolve", third.ticket);
    house.post(&path, json!({ "code": "solved" })).await.ok();
    let contact = house.get(&format!("/v1/tickets/{}", second.ticket)).await.ok()["contact_id"].clone();

    let all = [&third, &second, &first].map(|received| received.ticket.as_str());
    let table = [
        (String::new(), all.to_vec()),
        ("kind=incident".to_owned(), vec![&second.ticket]),
        ("kind=case".to_owned(), vec![&third.ticket, &first.ticket]),
        ("queue=support".to_owned(), all.to_vec()),
        ("queue=nowhere".to_owned(), vec![]),
        ("state=resolved".to_owned(), vec![&third.ticket]),
        ("category=resolved".to_owned(), vec![&third.ticket]),
        ("category=open".to_owned(), vec![&second.ticket, &first.ticket]),
        ("assignee=bruno".to_owned(), vec![&first.ticket]),
        ("assignee=nobody".to_owned(), vec![]),
        ("needs_attention=true".to_owned(), vec![]),
        ("needs_attention=false".to_owned(), all.to_vec()),
        (format!("contact={}", contact.as_str().unwrap()), vec![&second.ticket]),
        ("kind=case&assignee=bruno".to_owned(), vec![&first.ticket]),
    ];
    for (query, expected) in table {
        let list = house.get(&format!("/v1/tickets?{query}")).await.ok();
        assert_eq!(numbers(list["items"].as_array().unwrap()), expected, "{query}");
    }
}

#[tokio::test]
async fn filters_that_no_ticket_can_meet_are_refused() {
    let house = House::new().await;
    for query in [
        "kind=cases",
        "category=new",
        "contact=anna",
        "queue=%00",
        "state=%00",
        "assignee=%00",
    ] {
        house
            .get(&format!("/v1/tickets?{query}"))
            .await
            .refused(400, "bad_parameter");
    }
    house
        .get("/v1/tickets?needs_attention=perhaps")
        .await
        .refused(400, "invalid");
    let detail = house.get("/v1/tickets?kind=cases").await.refused(400, "bad_parameter");
    assert!(detail.contains("case") && detail.contains("incident"), "{detail}");
}

#[tokio::test]
async fn cursors_walk_all_tickets_once_though_new_ones_arrive() {
    let house = House::new().await;
    let mut expected = HashSet::new();
    for n in 0..23 {
        expected.insert(house.receive(&n.to_string()).await.ticket);
    }
    for limit in [1, 7, 22, 23, 24] {
        let items = house.walk("/v1/tickets", limit).await;
        let seen: HashSet<String> = numbers(&items).into_iter().map(str::to_owned).collect();
        assert_eq!((items.len(), &seen), (23, &expected), "limit {limit}");
        let opened: Vec<&str> = items.iter().map(|item| item["opened_at"].as_str().unwrap()).collect();
        assert!(opened.is_sorted_by(|one, next| one >= next), "newest first");
    }
    let page = house.get("/v1/tickets?limit=10").await.ok();
    house.receive("later").await;
    let path = format!("/v1/tickets?limit=100&after={}", page["next"].as_str().unwrap());
    let rest = house.get(&path).await.ok();
    assert_eq!(rest["items"].as_array().unwrap().len(), 13);
}

#[tokio::test]
async fn equal_times_are_walked_too() {
    let house = House::new().await;
    let at = api::now();
    for n in 0..9 {
        let mut event = message_event(&n.to_string(), "anna@example.com", "Hello");
        (event.occurred_at, event.received_at) = (at, at);
        house.arrive(&event).await;
    }
    let items = house.walk("/v1/tickets", 2).await;
    let seen: HashSet<&str> = numbers(&items).into_iter().collect();
    assert_eq!((items.len(), seen.len()), (9, 9));
}

#[tokio::test]
async fn a_ticket_lives_through_its_verbs() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let steps = [
        ("assign", json!({ "assignee": "bruno" }), "open"),
        ("assign", json!({ "assignee": null }), "open"),
        ("prioritise", json!({ "impact": "high", "urgency": "high" }), "open"),
        ("hold", json!({ "waiting_on": "customer" }), "awaiting_info"),
        ("hold", json!({ "waiting_on": "internal" }), "on_hold"),
        ("reopen", json!({}), "open"),
        (
            "resolve",
            json!({ "code": "solved", "notes": "turned it off and on" }),
            "resolved",
        ),
        ("reopen", json!({}), "open"),
        ("resolve", json!({ "code": "solved" }), "resolved"),
        ("close", json!({}), "closed"),
    ];
    let mut version = 0;
    for (verb, body, state) in steps {
        let path = format!("/v1/tickets/{}/{verb}", received.ticket);
        let key = format!("after-{version}");
        let ticket = house.post_with_key(&path, &key, body.clone()).await.ok();
        assert_eq!(ticket["state"], state, "{verb} {body}");
        assert!(ticket.get("traces").is_none());
        assert!(ticket["version"].as_i64().unwrap() > version, "{verb} {body}");
        version = ticket["version"].as_i64().unwrap();
        let events = ticket["events"].as_array().unwrap();
        let last = events.last().unwrap();
        assert_eq!(
            (&last["version"], &last["actor"]),
            (&json!(version), &json!({ "type": "person", "id": "agnes" }))
        );
        let shown = house.get(&format!("/v1/tickets/{}", received.ticket)).await.ok();
        assert_eq!(
            (&shown["state"], &shown["version"]),
            (&ticket["state"], &ticket["version"])
        );
    }
    let ticket = house.get(&format!("/v1/tickets/{}", received.ticket)).await.ok();
    assert_eq!(ticket["resolution"], json!({ "code": "solved", "notes": null }));
    assert!(ticket["closed_at"].is_string());
    assert_eq!((&ticket["impact"], &ticket["priority"]), (&json!("high"), &json!(1)));
}

#[tokio::test]
async fn what_was_no_work_is_cancelled() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/tickets/{}/cancel", received.ticket);
    let ticket = house.post(&path, json!({})).await.ok();
    assert_eq!(
        (&ticket["state"], &ticket["verbs"]),
        (&json!("cancelled"), &json!(["note"]))
    );
    let again = house.post(&path, json!({})).await.ok();
    assert_eq!(again["version"], ticket["version"]);
}

#[tokio::test]
async fn saying_it_twice_changes_nothing() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let verbs = [
        ("assign", json!({ "assignee": "bruno" })),
        ("prioritise", json!({ "impact": "high", "urgency": "low" })),
        ("hold", json!({ "waiting_on": "customer" })),
        ("reopen", json!({})),
        ("resolve", json!({ "code": "solved" })),
        ("close", json!({ "code": "solved" })),
    ];
    for (verb, body) in verbs {
        let path = format!("/v1/tickets/{}/{verb}", received.ticket);
        let first = house.post(&path, body.clone()).await.ok();
        let again = house.post(&path, body).await.ok();
        assert_eq!(first["version"], again["version"], "{verb}");
    }
}

#[tokio::test]
async fn what_the_model_refuses_is_told_in_its_words() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = |verb: &str| format!("/v1/tickets/{}/{verb}", received.ticket);
    let detail = house
        .post(&path("resolve"), json!({ "code": "magic" }))
        .await
        .refused(422, "invalid");
    assert!(detail.contains("magic") && detail.contains("solved"), "{detail}");
    house.post(&path("resolve"), json!({})).await.refused(422, "invalid");
    house.post(&path("close"), json!({})).await.refused(422, "invalid");
    house
        .post(&path("close"), json!({ "notes": "why" }))
        .await
        .refused(422, "missing_field");
    house
        .post(&path("hold"), json!({ "waiting_on": "godot" }))
        .await
        .refused(422, "invalid");
    let unknown = house.post(&path("assign"), json!({ "assignee": "zoe" })).await;
    unknown.refused(422, "unknown_person");
    house.post(&path("close"), json!({ "code": "solved" })).await.ok();
    for (verb, body) in [("reopen", json!({})), ("hold", json!({ "waiting_on": "customer" }))] {
        let detail = house.post(&path(verb), body).await.refused(409, "wrong_state");
        assert!(detail.contains("closed"), "{detail}");
    }
}

#[tokio::test]
async fn an_unknown_verb_is_told_the_known_ones() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/tickets/{}/solve", received.ticket);
    let detail = house.post(&path, json!({})).await.refused(404, "unknown_verb");
    for verb in ["assign", "prioritise", "hold", "resolve", "reopen", "close", "cancel"] {
        assert!(detail.contains(verb), "{detail}");
    }
    house
        .post("/v1/tickets/CS0009999/reopen", json!({}))
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn two_people_at_once_both_get_their_way() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/tickets/{}/assign", received.ticket);
    let ask = |token: &str, assignee: &str| {
        house.ask(with_json(
            request(Method::POST, &path, token, None),
            &json!({ "assignee": assignee }),
        ))
    };
    for _ in 0..5 {
        let (one, other) = tokio::join!(ask(crate::house::TOKEN, "agnes"), ask(OTHER_TOKEN, "bruno"));
        assert_eq!((one.status, other.status), (StatusCode::OK, StatusCode::OK));
    }
    let ticket = house.get(&format!("/v1/tickets/{}", received.ticket)).await.ok();
    let versions: Vec<i64> = ticket["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["version"].as_i64().unwrap())
        .collect();
    let expected: Vec<i64> = (1..=versions.len() as i64).collect();
    assert_eq!(versions, expected, "gapless");
}

#[tokio::test]
async fn an_answer_of_the_customer_is_an_event() {
    let house = House::new().await;
    let received = house.receive("1").await;
    house
        .arrive(&in_thread_of("1", message_event("2", "anna@example.com", "Still.")))
        .await;
    let ticket = house.get(&format!("/v1/tickets/{}", received.ticket)).await.ok();
    let events = ticket["events"].as_array().unwrap();
    let last = events
        .iter()
        .rfind(|event| event["type"] == "customer_message_received")
        .unwrap();
    assert_eq!(last["actor"]["type"], "contact");
    assert_eq!(ticket["traces"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_repeated_verb_gets_the_first_answer_and_changes_nothing() {
    let house = House::new().await;
    let ticket = house.receive("1").await.ticket;
    let path = format!("/v1/tickets/{ticket}/assign");
    let assignee = async || house.get(&format!("/v1/tickets/{ticket}")).await.ok()["assignee"].clone();
    let first = house
        .post_with_key(&path, "1", json!({ "assignee": "bruno" }))
        .await
        .ok();
    assert_eq!(first["assignee"], "bruno");
    let events = first["events"].as_array().unwrap();
    assert_eq!(events.last().unwrap()["version"], first["version"], "{events:?}");
    // Also of what changed nothing the repeat is known.
    let second = house
        .post_with_key(&path, "2", json!({ "assignee": "bruno" }))
        .await
        .ok();
    house.post(&path, json!({ "assignee": null })).await.ok();
    for (key, answer) in [("1", first), ("2", second)] {
        let repeat = house
            .post_with_key(&path, key, json!({ "assignee": "bruno" }))
            .await
            .ok();
        assert_eq!(repeat, answer);
        assert_eq!(assignee().await, Value::Null);
    }
    house
        .post_with_key(&path, "1", json!({ "assignee": "agnes" }))
        .await
        .refused(422, "idempotency_key_reused");
    let other = format!("/v1/tickets/{ticket}/hold");
    house
        .post_with_key(&other, "1", json!({ "waiting_on": "customer" }))
        .await
        .refused(422, "idempotency_key_reused");
    // Another person's key is another key.
    let theirs = with_json(
        request(Method::POST, &path, OTHER_TOKEN, Some("1")),
        &json!({ "assignee": "agnes" }),
    );
    house.ask(theirs).await.ok();
    assert_eq!(assignee().await, "agnes");
}
