//! What a channel allows when: within its window any answer, outside of it a
//! template, and quotes where it has them.

use model::contact::Party;
use model::context::AccountPlan;
use model::event;
use model::id::MessageId;
use model::outbound::{Declaration, Join};
use serde_json::{Value, json};

use crate::house::{House, Received, message_event};

const HOUR_MS: i64 = 3_600_000;

/// A messenger with templates, which can begin to write to a phone.
async fn house() -> House {
    let house = House::new().await;
    let plan = |name: &str, join| AccountPlan {
        name: name.to_owned(),
        channel: name.to_owned(),
        queue: Some("support".to_owned()),
        join,
        live: false,
    };
    let declaration = Declaration {
        reply_window_ms: Some(24 * HOUR_MS),
        outside_window: Some("an approved template".to_owned()),
        templates: true,
        quotes: true,
        begins: Some("phone".to_owned()),
        thread_is_address: true,
        ..Declaration::default()
    };
    let mail = (plan("support", Join::Thread), Declaration::default());
    let messenger = (plan("wa", Join::Open), declaration);
    house.store.declare_accounts(&[mail, messenger]).await.unwrap();
    house
}

/// A message from this number, said so long ago by the vendor's clock.
async fn asked(house: &House, external_id: &str, number: &str, ago_ms: i64) -> Received {
    let mut event = message_event(external_id, number, "Is anybody there?");
    event.account = "wa".to_owned();
    event.channel = "wa".to_owned();
    event.id = MessageId::received("wa", "wa", external_id).to_string();
    event.occurred_at = event.occurred_at.plus_ms(-ago_ms);
    if let event::Body::MessageReceived(message) = &mut event.body {
        message.sender.scheme = "phone".to_owned();
        message.recipients.clear();
        message.evidence.thread = Some(number.to_owned());
        message.external_ids = vec![format!("wamid.{external_id}")];
    }
    house.arrive(&event).await
}

async fn way(house: &House, conversation: &str, account: &str) -> Value {
    let conversation = house.get(&format!("/v1/conversations/{conversation}")).await.ok();
    let ways = conversation["reachable"].as_array().unwrap();
    ways.iter().find(|way| way["account"] == account).unwrap().clone()
}

fn replies(received: &Received) -> String {
    format!("/v1/conversations/{}/replies", received.conversation)
}

fn template() -> Value {
    json!({ "name": "order_update", "language": "en_US", "parameters": ["Ada", "42"] })
}

#[tokio::test]
async fn the_desk_says_whether_the_window_is_open() {
    let house = house().await;
    let open = asked(&house, "1", "+491701", HOUR_MS).await;
    let shown = way(&house, &open.conversation, "wa").await;
    assert_eq!((&shown["open"], &shown["templates"]), (&json!(true), &json!(true)));
    assert!(shown["window"].is_string(), "{shown}");
    let closed = asked(&house, "2", "+491702", 25 * HOUR_MS).await;
    let shown = way(&house, &closed.conversation, "wa").await;
    assert_eq!(
        (&shown["open"], &shown["outside_window"]),
        (&json!(false), &json!("an approved template"))
    );
    assert!(shown["window"].is_string(), "{shown}");
}

#[tokio::test]
async fn outside_of_it_a_template_goes() {
    let house = house().await;
    let closed = asked(&house, "1", "+491701", 25 * HOUR_MS).await;
    let words = house
        .post_with_key(&replies(&closed), "r1", json!({ "text": "Yes." }))
        .await;
    words.refused(409, "reply_window_closed");
    let body = json!({ "template": template() });
    let sent = house.post_with_key(&replies(&closed), "r2", body).await.json();
    assert_eq!(sent["template"], template());
    assert_eq!(sent["text"], "Template order_update (en_US): Ada, 42");
    let body = json!({ "template": template(), "text": "Hello Ada, your order 42 has left." });
    let sent = house.post_with_key(&replies(&closed), "r3", body).await.json();
    assert_eq!(sent["text"], "Hello Ada, your order 42 has left.");
    let nameless = json!({ "template": { "name": "", "language": "en" } });
    house
        .post_with_key(&replies(&closed), "r4", nameless)
        .await
        .refused(422, "invalid");
    // The channel is given it, and what it quotes.
    let name = store::outbox::lease_name("wa");
    let lease = house
        .store
        .hold_lease(&name, "here", std::time::Duration::from_secs(30))
        .await;
    let claimed = house
        .store
        .claim_outbox("wa", lease.fence, api::now(), 1)
        .await
        .unwrap();
    let outbound = &claimed[0].outbound;
    assert_eq!(outbound.template.as_ref().unwrap().parameters, ["Ada", "42"]);
    assert_eq!(
        (outbound.quotes.as_deref(), outbound.thread.as_str()),
        (None, "+491701")
    );
}

#[tokio::test]
async fn a_channel_without_templates_refuses_them() {
    let house = house().await;
    let mail = house.receive("1").await;
    let body = json!({ "template": template() });
    house
        .post_with_key(&replies(&mail), "r1", body)
        .await
        .refused(422, "no_templates");
    let body = json!({ "text": "Yes.", "quotes": mail.message });
    house
        .post_with_key(&replies(&mail), "r2", body)
        .await
        .refused(422, "invalid");
}

#[tokio::test]
async fn whoever_never_wrote_there_gets_a_template_only() {
    let house = house().await;
    let mut mail = message_event("1", "anna@example.com", "Call me");
    if let event::Body::MessageReceived(message) = &mut mail.body {
        message.identities = vec![Party {
            scheme: "phone".to_owned(),
            address: "+491701".to_owned(),
            name: None,
            verified: true,
        }];
    }
    let asked = house.arrive(&mail).await;
    let shown = way(&house, &asked.conversation, "wa").await;
    assert_eq!((&shown["open"], &shown["window"]), (&json!(false), &Value::Null));
    let body = json!({ "text": "Hello?", "via": { "account": "wa" } });
    house
        .post_with_key(&replies(&asked), "r1", body)
        .await
        .refused(409, "reply_window_closed");
    let body = json!({ "template": template(), "via": { "account": "wa" } });
    let sent = house.post_with_key(&replies(&asked), "r2", body).await.json();
    assert_eq!(sent["recipients"][0]["address"], "+491701");
}

#[tokio::test]
async fn an_answer_quotes_a_message_of_its_conversation() {
    let house = house().await;
    let received = asked(&house, "1", "+491701", HOUR_MS).await;
    let other = asked(&house, "2", "+491702", HOUR_MS).await;
    let body = json!({ "text": "This one.", "quotes": received.message });
    let sent = house.post_with_key(&replies(&received), "r1", body).await.json();
    assert_eq!(sent["quotes"], json!(["wamid.1"]));
    for wrong in [other.message.as_str(), "msg_1"] {
        let body = json!({ "text": "This one.", "quotes": wrong });
        house
            .post_with_key(&replies(&received), wrong, body)
            .await
            .refused(422, "invalid");
    }
    // Ours has no name at the vendor yet.
    let body = json!({ "text": "Mine.", "quotes": sent["id"] });
    house
        .post_with_key(&replies(&received), "r2", body)
        .await
        .refused(422, "invalid");
}

#[tokio::test]
async fn a_thread_goes_on_under_its_address_whatever_the_sender_is_called() {
    let house = house().await;
    let mut event = message_event("1", "US.9", "Hello");
    event.account = "wa".to_owned();
    event.channel = "wa".to_owned();
    event.id = MessageId::received("wa", "wa", "1").to_string();
    let phone = Party {
        scheme: "phone".to_owned(),
        address: "+491701".to_owned(),
        name: None,
        verified: true,
    };
    if let event::Body::MessageReceived(message) = &mut event.body {
        message.sender.scheme = "whatsapp".to_owned();
        message.recipients.clear();
        message.evidence.thread = Some(phone.address.clone());
        message.identities = vec![phone.clone()];
    }
    let there = house.arrive(&event).await;
    let mut mail = message_event("2", "anna@example.com", "And by mail");
    if let event::Body::MessageReceived(message) = &mut mail.body {
        message.identities = vec![phone];
    }
    let asked = house.arrive(&mail).await;
    let shown = way(&house, &asked.conversation, "wa").await;
    assert_eq!(
        (&shown["conversation_id"], &shown["open"]),
        (&json!(there.conversation), &json!(true))
    );
    let body = json!({ "text": "Here.", "via": { "account": "wa" } });
    let sent = house.post_with_key(&replies(&asked), "r1", body).await.json();
    assert_eq!(sent["conversation_id"], there.conversation.as_str());
}
