//! One person, several ways: where a contact can be reached, and which way an
//! answer goes.

use model::contact::Party;
use model::context::AccountPlan;
use model::event::{self, Event};
use model::evidence::Evidence;
use model::id::{ConversationId, MessageId};
use model::outbound::{Declaration, Join, LiveView};
use serde_json::{Value, json};

use crate::house::{Answer, House, Received, message_event};

/// A chat whose visitors have left as soon as they are not seen, a mail account, and
/// a messenger that allows answers for a day.
async fn house(away_after_ms: i64) -> House {
    let house = House::new().await;
    let plan = |name: &str, channel: &str, join, live| AccountPlan {
        name: name.to_owned(),
        channel: channel.to_owned(),
        queue: Some("support".to_owned()),
        join,
        live,
    };
    let support = Declaration {
        begins: Some("email".to_owned()),
        ..Declaration::default()
    };
    let chat = Declaration {
        live: Some(LiveView {
            away_after_ms,
            mail_account: Some("support".to_owned()),
        }),
        ..Declaration::default()
    };
    let messenger = Declaration {
        reply_window_ms: Some(24 * 3_600_000),
        max_chars: Some(20),
        ..Declaration::default()
    };
    let sms = Declaration {
        begins: Some("phone".to_owned()),
        thread_is_address: true,
        ..Declaration::default()
    };
    let accounts = [
        (plan("sms", "sms", Join::Open, false), sms),
        (plan("support", "email", Join::Thread, false), support),
        (plan("chat", "chat", Join::Open, true), chat),
        (plan("messenger", "messenger", Join::Open, false), messenger),
    ];
    house.store.declare_accounts(&accounts).await.unwrap();
    house
}

/// A message at an account by another than mail; `claimed` is an address that its
/// sender says is his.
fn said(account: &str, external_id: &str, sender: &str, claimed: Option<&str>) -> Event {
    let mut event = message_event(external_id, sender, "Is anybody there?");
    event.account = account.to_owned();
    event.channel = account.to_owned();
    event.id = MessageId::received(account, account, external_id).to_string();
    if let event::Body::MessageReceived(message) = &mut event.body {
        message.sender.scheme = format!("{account}/visitor");
        message.recipients.clear();
        message.subject = None;
        message.evidence.thread = Some(sender.to_owned());
        message.identities = claimed.into_iter().map(claim).collect();
    }
    event
}

fn claim(address: &str) -> Party {
    let scheme = if address.starts_with('+') { "phone" } else { "email" };
    Party {
        scheme: scheme.to_owned(),
        address: address.to_owned(),
        name: None,
        verified: false,
    }
}

/// The answer of a mailbox to a mail of ours.
fn answer(external_id: &str, from: &str, to: &str) -> Event {
    let mut event = message_event(external_id, from, "Thank you.");
    if let event::Body::MessageReceived(message) = &mut event.body {
        message.evidence = Evidence {
            signed_messages: vec![MessageId::parse(to).unwrap()],
            ..Evidence::default()
        };
    }
    event
}

async fn reply(house: &House, received: &Received, key: &str, via: Value) -> Answer {
    let path = format!("/v1/conversations/{}/replies", received.conversation);
    let mut body = json!({ "text": "We are." });
    if !via.is_null() {
        body["via"] = via;
    }
    house.post_with_key(&path, key, body).await
}

async fn reachable(house: &House, conversation: &str) -> Vec<String> {
    let conversation = house.get(&format!("/v1/conversations/{conversation}")).await.ok();
    let ways = conversation["reachable"].as_array().unwrap().iter();
    ways.map(|way| {
        let mark = if way["verified"] == true { "" } else { "?" };
        let goes_on = if way["conversation_id"].is_null() {
            ""
        } else {
            " goes on"
        };
        let window = if way["window"].is_null() { "" } else { " for a while" };
        let text = |field: &str| way[field].as_str().unwrap().to_owned();
        format!("{} {}{mark}{goes_on}{window}", text("account"), text("address"))
    })
    .collect()
}

#[tokio::test]
async fn an_agent_picks_another_way() {
    let house = house(i64::MAX).await;
    let asked = house.arrive(&said("chat", "1", "v1", Some("Anna@example.com"))).await;
    assert_eq!(
        reachable(&house, &asked.conversation).await,
        ["chat v1 goes on", "support anna@example.com?"]
    );
    // Nobody says otherwise: where it was asked.
    let first = reply(&house, &asked, "r1", Value::Null).await.json();
    assert_eq!(
        (&first["account"], &first["delivery"]),
        (&json!("chat"), &json!("sent"))
    );

    let mail = reply(&house, &asked, "r2", json!({ "account": "support" }))
        .await
        .json();
    assert_eq!(
        (&mail["account"], &mail["delivery"]),
        (&json!("support"), &json!("queued"))
    );
    assert_eq!(mail["subject"], "Is anybody there?");
    let recipients = json!([{ "role": "to", "address": "anna@example.com", "name": null }]);
    assert_eq!(mail["recipients"], recipients);
    let begun = mail["conversation_id"].as_str().unwrap();
    assert_ne!(begun, asked.conversation);
    // A repeat finds it; another goes on where that began; so does an answer from there.
    assert_eq!(
        reply(&house, &asked, "r2", json!({ "account": "support" })).await.ok(),
        mail
    );
    let address = json!({ "account": "support", "address": "ANNA@example.com" });
    let second = reply(&house, &asked, "r3", address).await.json();
    assert_eq!(
        (&second["conversation_id"], &second["recipients"]),
        (&json!(begun), &recipients)
    );
    let by_id = reply(&house, &asked, "r4", json!({ "conversation": begun }))
        .await
        .json();
    assert_eq!(by_id["conversation_id"], begun);
    let path = format!("/v1/conversations/{begun}/replies");
    let third = house
        .post_with_key(&path, "r5", json!({ "text": "And this." }))
        .await
        .json();
    assert_eq!(
        (&third["conversation_id"], &third["recipients"]),
        (&json!(begun), &recipients)
    );

    // One ticket with both, its messages in order; the chat shows its own alone.
    let ticket = house.get(&format!("/v1/tickets/{}", asked.ticket)).await.ok();
    assert_eq!(ticket["conversations"], json!([asked.conversation, begun]));
    assert_eq!(ticket["contact_conversations"].as_array().unwrap().len(), 2);
    let added = ticket["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["type"] == "conversation_added");
    assert_eq!(added.count(), 1);
    let all = house.walk(&format!("/v1/tickets/{}/messages", asked.ticket), 2).await;
    let accounts: Vec<&str> = all.iter().map(|message| message["account"].as_str().unwrap()).collect();
    assert_eq!(accounts, ["chat", "chat", "support", "support", "support", "support"]);
    let chat = house
        .walk(&format!("/v1/conversations/{}/messages", asked.conversation), 50)
        .await;
    assert_eq!(chat.len(), 2);
    let begun = house.get(&format!("/v1/conversations/{begun}")).await.ok();
    assert_eq!(begun["ticket_number"], asked.ticket.as_str());
}

#[tokio::test]
async fn other_ways_are_refused() {
    let house = house(i64::MAX).await;
    let asked = house.arrive(&said("chat", "1", "v1", Some("anna@example.com"))).await;
    let foreign = house.arrive(&said("messenger", "2", "m9", None)).await;
    let table = [
        (json!({ "account": "messenger" }), "not_reachable"),
        (json!({ "account": "unknown" }), "not_reachable"),
        (
            json!({ "account": "support", "address": "ben@example.com" }),
            "not_reachable",
        ),
        (json!({ "conversation": foreign.conversation }), "not_reachable"),
        (json!({ "conversation": "cnv_unknown" }), "not_reachable"),
        (json!({}), "invalid"),
        (json!({ "address": "anna@example.com" }), "invalid"),
        (
            json!({ "account": "support", "conversation": asked.conversation }),
            "invalid",
        ),
        (json!({ "accounts": "support" }), "unknown_field"),
    ];
    for (via, code) in table {
        let detail = reply(&house, &asked, "k", via.clone()).await.refused(422, code);
        assert!(
            code != "not_reachable" || detail.contains("support (anna@example.com)"),
            "{detail}"
        );
    }
    assert_eq!(house.store.outbox_pending().await.unwrap().0, 0);
    // What the other channel cannot carry is refused before anything is written.
    let body = json!({ "text": "x".repeat(21), "via": { "account": "messenger" } });
    let path = format!("/v1/conversations/{}/replies", foreign.conversation);
    house.post_with_key(&path, "k", body).await.refused(422, "invalid");
}

#[tokio::test]
async fn a_persons_other_conversations_can_go_on() {
    let house = house(i64::MAX).await;
    let chat = house.arrive(&said("chat", "1", "v1", None)).await;
    let message = house.arrive(&said("messenger", "2", "m1", None)).await;
    let mail = house.receive("3").await;
    assert_eq!(reachable(&house, &chat.conversation).await, ["chat v1 goes on"]);
    let ids = [&chat, &message, &mail].map(|received| received.conversation.clone());
    let mut contacts = Vec::new();
    for id in &ids {
        let conversation = house.get(&format!("/v1/conversations/{id}")).await.ok();
        contacts.push(conversation["contact_id"].as_str().unwrap().to_owned());
    }
    for other in &contacts[1..] {
        let path = format!("/v1/contacts/{}/merge", contacts[0]);
        house.post(&path, json!({ "other": other })).await.ok();
    }
    let ways = reachable(&house, &chat.conversation).await;
    let expected = [
        "chat v1 goes on",
        "messenger m1 goes on for a while",
        "support anna@example.com goes on",
    ];
    assert_eq!(ways, expected);
    // A messenger has one conversation: it comes to the ticket.
    let sent = reply(&house, &chat, "r1", json!({ "account": "messenger" }))
        .await
        .json();
    assert_eq!(sent["conversation_id"], message.conversation.as_str());
    // By mail another begins, for what went on there was about something else.
    let sent = reply(&house, &chat, "r2", json!({ "account": "support" })).await.json();
    assert!(!ids.contains(&sent["conversation_id"].as_str().unwrap().to_owned()));
    let ticket = house.get(&format!("/v1/tickets/{}", chat.ticket)).await.ok();
    let conversations = json!([chat.conversation, message.conversation, sent["conversation_id"]]);
    assert_eq!(ticket["conversations"], conversations);
    assert_eq!(ticket["contact_conversations"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_thread_that_is_an_address_goes_on_there() {
    let house = house(i64::MAX).await;
    let text = |external_id: &str, number: &str| {
        let mut event = said("sms", external_id, number, None);
        if let event::Body::MessageReceived(message) = &mut event.body {
            message.sender.scheme = "phone".to_owned();
        }
        event
    };
    let asked = house.arrive(&said("chat", "1", "v1", Some("+491701"))).await;
    let sent = reply(&house, &asked, "r1", json!({ "account": "sms" })).await.json();
    assert_eq!(sent["recipients"][0]["address"], "+491701");
    // The answer comes into what we began, and so to the ticket; the next goes on there.
    let answered = house.arrive(&text("2", "+491701")).await;
    assert_eq!(
        (answered.conversation.as_str(), &answered.ticket),
        (sent["conversation_id"].as_str().unwrap(), &asked.ticket)
    );
    let next = reply(&house, &asked, "r2", json!({ "account": "sms" })).await.json();
    assert_eq!(next["conversation_id"], sent["conversation_id"]);
    // Whose number somebody else claims is not written to for him.
    house.arrive(&text("3", "+491702")).await;
    let stranger = house.arrive(&said("chat", "4", "v2", Some("+491702"))).await;
    reply(&house, &stranger, "r3", json!({ "account": "sms" }))
        .await
        .refused(422, "not_reachable");
}

#[tokio::test]
async fn who_has_left_is_answered_by_mail() {
    let house = house(60_000).await;
    let asked = house.arrive(&said("chat", "1", "v1", Some("anna@example.com"))).await;
    let nobody_knows_where = house.arrive(&said("chat", "2", "v2", None)).await;
    let id = |received: &Received| ConversationId::parse(&received.conversation).unwrap();
    let now = api::now();
    let both = [id(&asked), id(&nobody_knows_where)];
    house.store.visitors_seen(&both, now).await.unwrap();
    let account = async |received: &Received, key: &str, via: Value| {
        let written = reply(&house, received, key, via).await.json();
        written["account"].as_str().unwrap().to_owned()
    };
    let left_at = async |received: &Received| {
        let conversation = house
            .get(&format!("/v1/conversations/{}", received.conversation))
            .await
            .ok();
        conversation["left_at"].clone()
    };
    assert_eq!(left_at(&asked).await, Value::Null);
    assert_eq!(account(&asked, "r1", Value::Null).await, "chat");
    let long_ago = now.plus_ms(-120_000);
    for id in &both {
        house.store.visitor_gone(id, now, long_ago).await.unwrap();
    }
    assert_eq!(left_at(&asked).await, json!(long_ago.to_string()));
    assert_eq!(account(&asked, "r2", Value::Null).await, "support");
    assert_eq!(
        account(&asked, "r3", json!({ "account": "chat" })).await,
        "chat",
        "the agent insists"
    );
    assert_eq!(
        account(&nobody_knows_where, "r4", Value::Null).await,
        "chat",
        "it waits there"
    );
}

#[tokio::test]
async fn the_answer_to_the_mail_verifies_the_address() {
    let house = house(0).await;
    let asked = house.arrive(&said("chat", "1", "v1", Some("anna@example.com"))).await;
    let mail = reply(&house, &asked, "r1", Value::Null).await.json();
    let received = house
        .arrive(&answer("2", "Anna@example.com", mail["id"].as_str().unwrap()))
        .await;
    assert_eq!(received.conversation, mail["conversation_id"].as_str().unwrap());
    assert_eq!(received.ticket, asked.ticket);
    let ticket = house.get(&format!("/v1/tickets/{}", asked.ticket)).await.ok();
    assert_eq!(
        ticket["conversations"],
        json!([asked.conversation, received.conversation])
    );
    let contact = house
        .get(&format!("/v1/contacts/{}", ticket["contact_id"].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(contact["merges"][0]["evidence"]["type"], "answered");
    assert_eq!(contact["tickets"].as_array().unwrap().len(), 1);
    assert_eq!(contact["conversations"].as_array().unwrap().len(), 2);
    let standings: Vec<&str> = contact["identities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|identity| identity["standing"].as_str().unwrap())
        .collect();
    assert_eq!(standings, ["verified", "verified"]);
    assert_eq!(house.walk("/v1/contacts", 50).await.len(), 1);
    let ways = reachable(&house, &asked.conversation).await;
    assert_eq!(ways, ["chat v1 goes on", "support anna@example.com goes on"]);
    // A mail without a token is hers too, by the address: a conversation of its own.
    let later = house.receive("3").await;
    assert_ne!(later.conversation, received.conversation);
    let ticket = house.get(&format!("/v1/tickets/{}", later.ticket)).await.ok();
    assert_eq!(ticket["contact_id"], contact["id"]);
}

#[tokio::test]
async fn a_stranger_who_claims_an_address_joins_nothing() {
    let house = house(0).await;
    let owner = house.receive("1").await;
    let stranger = house.arrive(&said("chat", "2", "v1", Some("anna@example.com"))).await;
    let contact_of = async |received: &Received| {
        let conversation = house
            .get(&format!("/v1/conversations/{}", received.conversation))
            .await
            .ok();
        conversation["contact_id"].clone()
    };
    assert_ne!(stranger.conversation, owner.conversation);
    assert_ne!(stranger.ticket, owner.ticket);
    assert_ne!(contact_of(&stranger).await, contact_of(&owner).await);
    // Our answer goes to the owner, as a conversation of the stranger's.
    let mail = reply(&house, &stranger, "r1", Value::Null).await.json();
    assert_ne!(mail["conversation_id"], owner.conversation.as_str());
    // A machine's answer from there, or a token of another conversation, proves nothing.
    let mut vacation = answer("3", "anna@example.com", mail["id"].as_str().unwrap());
    if let event::Body::MessageReceived(message) = &mut vacation.body {
        message.automatic = Some(event::Automatic::Reply);
    }
    house.arrive(&vacation).await;
    let of_owner = reply(&house, &owner, "r2", Value::Null).await.json();
    house
        .arrive(&answer("4", "anna@example.com", of_owner["id"].as_str().unwrap()))
        .await;
    assert_ne!(contact_of(&stranger).await, contact_of(&owner).await);
    let ticket = house.get(&format!("/v1/tickets/{}", owner.ticket)).await.ok();
    assert_eq!(ticket["contact_conversations"].as_array().unwrap().len(), 1);
}
