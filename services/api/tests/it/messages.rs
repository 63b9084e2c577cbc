//! Messages: one, its raw input, and a person's word on its delivery.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use data_encoding::BASE64;
use model::event::{Attachment, Raw, RawContent};
use serde_json::{Value, json};
use store::lease::Lease;
use store::outbox::Settlement;

use crate::house::{House, message_event, request};

/// The lease under which messages leave.
async fn hold_outbox(house: &House) -> Lease {
    let name = store::outbox::lease_name("support");
    house.store.hold_lease(&name, "the test", Duration::from_secs(30)).await
}

/// A reply that was claimed and then settled like this; answers its id.
async fn reply_settled(house: &House, fence: i64, key: &str, settlement: Settlement) -> String {
    let received = house.receive(key).await;
    let path = format!("/v1/conversations/{}/replies", received.conversation);
    let reply = house.post_with_key(&path, key, json!({ "text": "Use water." })).await;
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    let claimed = house
        .store
        .claim_outbox("support", fence, api::now(), 10)
        .await
        .unwrap();
    let message_id = &claimed[0].outbound.message_id;
    assert_eq!((claimed.len(), message_id.as_str()), (1, id.as_str()));
    let is_settled = house
        .store
        .settle_outbox(message_id, fence, &settlement, api::now())
        .await
        .unwrap();
    assert!(is_settled);
    id
}

fn uncertain() -> Settlement {
    Settlement::Uncertain {
        error: "the connection broke".to_owned(),
    }
}

#[tokio::test]
async fn a_message_shows_what_was_said_and_by_whom() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let message = house.get(&format!("/v1/messages/{}", received.message)).await.ok();
    assert_eq!(message["conversation_id"], received.conversation.as_str());
    assert_eq!(
        (&message["direction"], &message["text"]),
        (&json!("inbound"), &json!("It is on fire."))
    );
    let sender = json!({ "scheme": "email", "address": "anna@example.com", "name": "Anna", "verified": true });
    assert_eq!(message["sender"], sender);
    assert_eq!(message["external_ids"], json!(["<1@example.com>"]));
    assert_eq!(
        (&message["delivery"], &message["automatic"]),
        (&Value::Null, &Value::Null)
    );
    assert!(message.get("raw").is_none());
}

#[tokio::test]
async fn the_raw_input_comes_back_byte_for_byte() {
    let house = House::new().await;
    let bytes: Vec<u8> = b"<script>\0\xff\r\n".repeat(100);
    let mut inline = message_event("inline", "anna@example.com", "Hello");
    inline.raw.content = RawContent::Inline(bytes.clone());
    let mut blob = message_event("blob", "anna@example.com", "Hello");
    let sha256 = house.blobs.put(bytes.clone()).await.unwrap();
    let size_bytes = bytes.len() as u64;
    blob.raw.content = RawContent::Blob { sha256, size_bytes };
    for event in [inline, blob] {
        let received = house.arrive(&event).await;
        let answer = house.get(&format!("/v1/messages/{}/raw", received.message)).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.body, bytes);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/octet-stream");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let disposition = answer.headers[header::CONTENT_DISPOSITION].to_str().unwrap();
        assert!(disposition.starts_with("attachment; filename=\"msg_"), "{disposition}");
    }
    let mut gone = message_event("gone", "anna@example.com", "Hello");
    gone.raw = Raw {
        content: RawContent::Blob {
            sha256: "0".repeat(64),
            size_bytes: 1,
        },
        ..Raw::default()
    };
    let received = house.arrive(&gone).await;
    house
        .get(&format!("/v1/messages/{}/raw", received.message))
        .await
        .refused(404, "not_found");
    let path = format!("/v1/conversations/{}/notes", received.conversation);
    let note = house.post_with_key(&path, "n", json!({ "text": "ours" })).await.json();
    let path = format!("/v1/messages/{}/raw", note["id"].as_str().unwrap());
    house.get(&path).await.refused(404, "not_found");
}

#[tokio::test]
async fn a_file_is_saved_under_its_name_and_never_shown() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/replies", received.conversation);
    let page = "<script>alert(1)</script>";
    let name = "plän \"x\"; a=b.html";
    let file = json!({ "name": name, "media_type": "text/html", "content": BASE64.encode(page.as_bytes()) });
    let body = json!({ "text": "Look.", "attachments": [file] });
    let reply = house.post_with_key(&path, "r", body).await.json();
    let sha256 = reply["attachments"][0]["sha256"].as_str().unwrap();
    let path = format!("/v1/messages/{}/attachments/{sha256}", reply["id"].as_str().unwrap());
    let answer = house.get(&path).await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, page.as_bytes()));
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/octet-stream");
    let disposition =
        "attachment; filename=\"pl_n _x_; a=b.html\"; filename*=UTF-8''pl%C3%A4n%20%22x%22%3B%20a%3Db.html";
    assert_eq!(answer.headers[header::CONTENT_DISPOSITION], disposition);
    assert_eq!(answer.headers[header::CACHE_CONTROL], "private");
    assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(
        answer.headers[header::CONTENT_SECURITY_POLICY],
        "sandbox; default-src 'none'"
    );
    let ranged = request(Method::GET, &path, crate::house::TOKEN, None).header(header::RANGE, "bytes=1-6");
    let part = house.ask(ranged.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (part.status, &part.body[..]),
        (StatusCode::PARTIAL_CONTENT, &b"script"[..])
    );
    assert_eq!(part.headers[header::CONTENT_RANGE], "bytes 1-6/25");
    // The bytes are there, but they are no file of that message.
    let path = format!("/v1/messages/{}/attachments/{sha256}", received.message);
    house.get(&path).await.refused(404, "not_found");
    let path = format!("/v1/messages/{}/attachments/..%2F..", received.message);
    house.get(&path).await.refused(404, "not_found");
}

#[tokio::test]
async fn an_uncertain_message_waits_for_a_persons_word() {
    let house = House::new().await;
    let lease = hold_outbox(&house).await;
    let fence = lease.fence;
    for state in ["sent", "failed"] {
        let id = reply_settled(&house, fence, state, uncertain()).await;
        let shown = house.get(&format!("/v1/messages/{id}")).await.ok();
        assert_eq!(
            (&shown["delivery"], &shown["delivery_error"]),
            (&json!("uncertain"), &json!("the connection broke"))
        );
        let path = format!("/v1/messages/{id}/settle");
        house
            .post(&path, json!({ "state": "read" }))
            .await
            .refused(422, "invalid");
        house
            .post(&path, json!({ "state": "gone" }))
            .await
            .refused(422, "invalid");
        let settled = house.post_with_key(&path, state, json!({ "state": state })).await.ok();
        assert_eq!(settled["delivery"], state);
        let detail = house
            .post(&path, json!({ "state": state }))
            .await
            .refused(409, "wrong_state");
        assert!(detail.contains(state), "{detail}");
    }
}

#[tokio::test]
async fn a_failed_or_uncertain_message_can_be_sent_again() {
    let house = House::new().await;
    let lease = hold_outbox(&house).await;
    let fence = lease.fence;
    let failed = Settlement::Failed {
        error: "mailbox full".to_owned(),
    };
    for (key, settlement) in [("failed", failed), ("uncertain", uncertain())] {
        let id = reply_settled(&house, fence, key, settlement).await;
        let path = format!("/v1/messages/{id}/resend");
        let again = house
            .post_with_key(&path, &format!("{key}-again"), json!({}))
            .await
            .ok();
        assert_eq!(
            (&again["delivery"], &again["delivery_error"]),
            (&json!("queued"), &Value::Null)
        );
        house.post(&path, json!({})).await.refused(409, "wrong_state");
        let claimed = house
            .store
            .claim_outbox("support", fence, api::now(), 10)
            .await
            .unwrap();
        assert_eq!(claimed[0].outbound.message_id.as_str(), id);
        let sent = Settlement::Sent {
            external_ids: vec!["<x@desk.example>".to_owned()],
        };
        let message_id = &claimed[0].outbound.message_id;
        house
            .store
            .settle_outbox(message_id, fence, &sent, api::now())
            .await
            .unwrap();
        house.post(&path, json!({})).await.refused(409, "wrong_state");
        // A repeat is answered as the first time, and sends nothing.
        let repeat = house
            .post_with_key(&path, &format!("{key}-again"), json!({}))
            .await
            .ok();
        assert_eq!(repeat, again);
        let shown = house.get(&format!("/v1/messages/{id}")).await.ok();
        assert_eq!(shown["delivery"], "sent");
    }
}

#[tokio::test]
async fn only_messages_of_ours_have_a_delivery() {
    let house = House::new().await;
    let received = house.receive("1").await;
    for (verb, body) in [("resend", json!({})), ("settle", json!({ "state": "sent" }))] {
        let path = format!("/v1/messages/{}/{verb}", received.message);
        let status = house.post(&path, body.clone()).await.status;
        assert!(matches!(status.as_u16(), 404 | 409), "{verb}: {status}");
        let path = format!("/v1/messages/msg_unknown/{verb}");
        house.post(&path, body).await.refused(404, "not_found");
    }
    let path = format!("/v1/messages/{}/resend", received.message);
    house
        .post(&path, json!({ "now": true }))
        .await
        .refused(422, "unknown_field");
}

#[tokio::test]
async fn a_lost_attachment_is_fetched_again() {
    let house = House::new().await;
    let mut event = message_event("1", "anna@example.com", "Look");
    let file = |name: &str| Attachment::at(name, "image/png", "https://example.com/photo.png");
    if let model::event::Body::MessageReceived(message) = &mut event.body {
        message.attachments = vec![Attachment::here("here.txt", "text/plain", b"here"), file("photo.png")];
    }
    let received = house.arrive(&event).await;
    let path = format!("/v1/messages/{}", received.message);
    let shown = house.get(&path).await.json()["attachments"][1].clone();
    assert_eq!(
        (&shown["state"], &shown["sha256"], &shown["lost"]),
        (&json!("pending"), &json!(""), &Value::Null)
    );
    let fetch = |position: &str| format!("{path}/attachments/{position}/fetch");
    house.post(&fetch("1"), json!({})).await.refused(409, "wrong_state");

    let far = model::time::Moment::from_ms(i64::MAX / 2);
    let claimed = house.store.claim_media("support", far, far, 10).await.unwrap();
    let lost = store::media::MediaOutcome::Lost {
        reason: "the server answered 404".to_owned(),
    };
    let settled = house.store.settle_media(&claimed[0], &lost, api::now()).await;
    assert!(settled.unwrap());
    let shown = house.get(&path).await.json()["attachments"][1].clone();
    assert_eq!(
        (&shown["state"], &shown["lost"]),
        (&json!("lost"), &json!("the server answered 404"))
    );
    let answer = house.post(&fetch("1"), json!({})).await.ok();
    assert_eq!(answer["attachments"][1]["state"], "pending");
    assert_eq!(house.store.media_pending().await.unwrap(), 1);
    house.post(&fetch("0"), json!({})).await.refused(409, "wrong_state");
    for nothing in ["2", "-1", "x", "99999999999999999999"] {
        house.post(&fetch(nothing), json!({})).await.refused(404, "not_found");
    }
}
