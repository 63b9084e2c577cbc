//! Contacts: shown, merged by a person's word, parted again.

use axum::http::Method;
use serde_json::{Value, json};

use crate::house::{House, OTHER_TOKEN, Received, message_event, request, with_json};

/// A message of somebody, and the contact that it made.
async fn contact(house: &House, external_id: &str, address: &str) -> (Received, String) {
    let received = house.arrive(&message_event(external_id, address, "Hello.")).await;
    let path = format!("/v1/conversations/{}", received.conversation);
    let conversation = house.get(&path).await.ok();
    (received, conversation["contact_id"].as_str().unwrap().to_owned())
}

/// What everybody sees of these contacts, without the merges that were.
async fn seen(house: &House, all: &[&(Received, String)]) -> Vec<Value> {
    let mut seen = Vec::new();
    for (received, id) in all {
        let mut contact = house.get(&format!("/v1/contacts/{id}")).await.ok();
        contact["merges"].take();
        seen.push(contact);
        seen.push(
            house
                .get(&format!("/v1/conversations/{}", received.conversation))
                .await
                .ok(),
        );
        seen.push(house.get(&format!("/v1/tickets/{}", received.ticket)).await.ok());
        seen.push(house.get(&format!("/v1/tickets?contact={id}")).await.ok()["items"].take());
    }
    seen.push(house.get("/v1/contacts").await.ok());
    for ticket in &mut seen {
        without_passing_time(ticket);
    }
    seen
}

/// Clocks count on between two looks.
fn without_passing_time(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("remaining_ms");
            fields.values_mut().for_each(without_passing_time);
        }
        Value::Array(items) => items.iter_mut().for_each(without_passing_time),
        _ => {}
    }
}

#[tokio::test]
async fn a_contact_shows_what_it_is_known_by() {
    let house = House::new().await;
    let (received, id) = contact(&house, "1", "Anna@example.com").await;
    let contact = house.get(&format!("/v1/contacts/{id}")).await.ok();
    assert_eq!((&contact["id"], &contact["name"]), (&json!(id), &json!("Anna")));
    assert_eq!(contact["contacts"], json!([id]));
    let evidence = json!({ "type": "sender", "message_id": received.message });
    assert_eq!(
        contact["identities"],
        json!([{ "scheme": "email", "address": "anna@example.com", "standing": "verified",
                 "contact_id": id, "evidence": evidence }])
    );
    assert_eq!(contact["conversations"][0]["id"], received.conversation.as_str());
    assert_eq!(contact["tickets"][0]["number"], received.ticket.as_str());
    assert_eq!(contact["merges"], json!([]));
    for wrong in ["con_unknown", "con_", "x", &received.conversation] {
        house
            .get(&format!("/v1/contacts/{wrong}"))
            .await
            .refused(404, "not_found");
    }
    let table = [("ANNA@example.com", 1), ("nobody@example.com", 0), ("", 0), ("%00", 0)];
    for (address, count) in table {
        let found = house.get(&format!("/v1/contacts?address={address}")).await.ok();
        assert_eq!(found["items"].as_array().unwrap().len(), count, "{address}");
    }
}

#[tokio::test]
async fn merged_and_parted_is_as_before() {
    let house = House::new().await;
    let one = contact(&house, "1", "anna@example.com").await;
    let other = contact(&house, "2", "anna@work.example").await;
    let third = contact(&house, "3", "ben@example.com").await;
    let before = seen(&house, &[&one, &other, &third]).await;

    let path = format!("/v1/contacts/{}/merge", other.1);
    let merged = house
        .post(&path, json!({ "other": one.1, "reason": "She said so on the phone." }))
        .await
        .ok();
    assert_eq!(merged["id"], one.1.as_str(), "the one that was met first");
    assert_eq!(merged["contacts"], json!([one.1, other.1]));
    assert_eq!(merged["identities"].as_array().unwrap().len(), 2);
    assert_eq!(merged["conversations"].as_array().unwrap().len(), 2);
    assert_eq!(merged["tickets"].as_array().unwrap().len(), 2);
    let merge = &merged["merges"][0];
    let evidence = json!({ "type": "person", "person": "agnes", "reason": "She said so on the phone." });
    assert_eq!((&merge["evidence"], &merge["undone"]), (&evidence, &Value::Null));
    // Everywhere it is one.
    for (received, id) in [&one, &other] {
        assert_eq!(house.get(&format!("/v1/contacts/{id}")).await.ok(), merged);
        let conversation = house
            .get(&format!("/v1/conversations/{}", received.conversation))
            .await
            .ok();
        assert_eq!(conversation["contact_id"], one.1.as_str());
        let ticket = house.get(&format!("/v1/tickets/{}", received.ticket)).await.ok();
        assert_eq!(ticket["contact_id"], one.1.as_str());
        assert_eq!(ticket["contact_conversations"].as_array().unwrap().len(), 2);
        assert_eq!(ticket["conversations"], json!([received.conversation]));
        let tickets = house.get(&format!("/v1/tickets?contact={id}")).await.ok();
        assert_eq!(tickets["items"].as_array().unwrap().len(), 2);
    }
    assert_eq!(house.walk("/v1/contacts", 1).await.len(), 2);
    // Once more is no error.
    let again = house.post(&path, json!({ "other": one.1 })).await.ok();
    assert_eq!(again, merged);

    let path = format!("/v1/contacts/{}/part", one.1);
    let part = json!({ "merge": merge["id"], "reason": "Two of a name." });
    let parted = house.post(&path, part.clone()).await.ok();
    assert_eq!(parted["contacts"], json!([one.1]));
    assert_eq!(parted["tickets"].as_array().unwrap().len(), 1);
    let undone = &parted["merges"][0]["undone"];
    assert_eq!(
        (&undone["person"], &undone["reason"]),
        (&json!("agnes"), &json!("Two of a name."))
    );
    assert_eq!(seen(&house, &[&one, &other, &third]).await, before);
    house.post(&path, part).await.refused(409, "wrong_state");
}

#[tokio::test]
async fn a_repeat_merges_and_parts_once() {
    let house = House::new().await;
    let one = contact(&house, "1", "anna@example.com").await.1;
    let other = contact(&house, "2", "anna@work.example").await.1;
    let merge = format!("/v1/contacts/{one}/merge");
    let body = json!({ "other": other });
    let first = house.post_with_key(&merge, "m", body.clone()).await.ok();
    let part = format!("/v1/contacts/{one}/part");
    let parting = json!({ "merge": first["merges"][0]["id"] });
    let parted = house.post_with_key(&part, "p", parting.clone()).await.ok();
    // Late repeats change nothing and answer what was answered.
    assert_eq!(house.post_with_key(&merge, "m", body.clone()).await.ok(), first);
    assert_eq!(house.post_with_key(&part, "p", parting).await.ok(), parted);
    assert_eq!(house.get(&format!("/v1/contacts/{one}")).await.ok(), parted);
    house
        .post_with_key(&merge, "p", body)
        .await
        .refused(422, "idempotency_key_reused");
}

#[tokio::test]
async fn what_cannot_be_merged_is_refused() {
    let house = House::new().await;
    let one = contact(&house, "1", "anna@example.com").await.1;
    let other = contact(&house, "2", "anna@work.example").await.1;
    let merge = format!("/v1/contacts/{one}/merge");
    let part = format!("/v1/contacts/{one}/part");
    let long = "x".repeat(501);
    let table = [
        (&merge, json!({}), 422, "invalid"),
        (&merge, json!({ "other": "con_unknown" }), 422, "invalid"),
        (&merge, json!({ "other": "cnv_1" }), 422, "invalid"),
        (&merge, json!({ "other": other, "reason": long }), 422, "invalid"),
        (&merge, json!({ "other": other, "into": one }), 422, "unknown_field"),
        (&part, json!({}), 422, "invalid"),
        (&part, json!({ "merge": "mrg_unknown" }), 422, "invalid"),
        (&part, json!({ "merge": other }), 422, "invalid"),
    ];
    for (path, body, status, code) in table {
        house.post(path, body).await.refused(status, code);
    }
    house
        .post("/v1/contacts/con_unknown/merge", json!({ "other": one }))
        .await
        .refused(404, "not_found");
    // Another person's merge names that person.
    let request = request(Method::POST, &merge, OTHER_TOKEN, None);
    let merged = house.ask(with_json(request, &json!({ "other": other }))).await.ok();
    assert_eq!(merged["merges"][0]["evidence"]["person"], "bruno");
}
