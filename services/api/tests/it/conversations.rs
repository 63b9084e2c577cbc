//! Conversations and the order of their messages.

use serde_json::{Value, json};

use crate::house::{House, in_thread_of, message_event};

fn texts(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_conversation_shows_where_it_belongs() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let shown = house
        .get(&format!("/v1/conversations/{}", received.conversation))
        .await
        .ok();
    assert_eq!(shown["id"], received.conversation.as_str());
    assert_eq!(shown["ticket_number"], received.ticket.as_str());
    assert_eq!(
        (&shown["account"], &shown["channel"]),
        (&json!("support"), &json!("email"))
    );
    assert_eq!(shown["subject"], "Printer");
    assert_eq!(shown["suggested"], Value::Null);
    let participants = shown["participants"].as_array().unwrap();
    let anna = json!({ "scheme": "email", "address": "anna@example.com", "verified": true });
    assert!(participants.contains(&anna), "{participants:?}");
}

#[tokio::test]
async fn messages_stand_in_order_and_are_walked_once() {
    let house = House::new().await;
    let received = house.receive("0").await;
    for n in 1..12 {
        let event = message_event(&n.to_string(), "anna@example.com", &format!("message {n}"));
        house.arrive(&in_thread_of("0", event)).await;
    }
    let base = format!("/v1/conversations/{}", received.conversation);
    house
        .post_with_key(&format!("{base}/notes"), "n", json!({ "text": "a note" }))
        .await;
    house
        .post_with_key(&format!("{base}/replies"), "r", json!({ "text": "a reply" }))
        .await;
    let all = house.walk(&format!("{base}/messages"), 200).await;
    assert_eq!(all.len(), 14);
    assert_eq!(texts(&all)[0], "It is on fire.");
    assert_eq!(texts(&all)[11..], ["message 11", "a note", "a reply"]);
    for limit in [1, 5, 13, 14] {
        assert_eq!(
            house.walk(&format!("{base}/messages"), limit).await,
            all,
            "limit {limit}"
        );
    }
    let sequences: Vec<_> = all.iter().map(|item| item["sequence"].as_i64()).collect();
    assert_eq!(sequences[..12], (1..=12).map(Some).collect::<Vec<_>>());
    assert_eq!(sequences[12..], [None, Some(13)]);
    let other = house.receive("another thread").await;
    let path = format!("/v1/conversations/{}/messages", other.conversation);
    assert_eq!(house.walk(&path, 50).await.len(), 1);
}

#[tokio::test]
async fn a_link_is_made_for_a_contact_that_is_known() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = |conversation: &str| format!("/v1/conversations/{conversation}/links");
    let wanted = json!({ "account": "bot" });
    let made = house.post(&path(&received.conversation), wanted.clone()).await;
    assert_eq!(made.status, 201);
    let bare = received.conversation.strip_prefix("cnv_").unwrap();
    assert_eq!(made.json()["url"], format!("https://example.com/bot?start={bare}"));
    assert!(made.json()["expires_at"].is_string());

    let mut event = message_event("2", "anna@example.com", "It is me.");
    if let model::event::Body::MessageReceived(message) = &mut event.body {
        message.sender.verified = false;
    }
    let anybody = house.arrive(&event).await;
    house
        .post(&path(&anybody.conversation), wanted.clone())
        .await
        .refused(422, "not_proven");
    let nowhere = json!({ "account": "support" });
    house
        .post(&path(&received.conversation), nowhere)
        .await
        .refused(422, "no_links");
    house.post(&path("cnv_x"), wanted).await.refused(404, "not_found");
}
