//! Files that people upload, and send along.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use model::event::Attachment;
use serde_json::{Value, json};

use crate::house::{Answer, House, TOKEN, message_event, request};

const PDF: &[u8] = b"%PDF-1.7\nthe bill";

async fn upload(house: &House, query: &str, media_type: &str, bytes: &[u8]) -> Answer {
    let request = request(Method::POST, &format!("/v1/files{query}"), TOKEN, None)
        .header(header::CONTENT_TYPE, media_type)
        .body(Body::from(bytes.to_vec()));
    house.ask(request.unwrap()).await
}

#[tokio::test]
async fn an_uploaded_file_goes_along_with_replies() {
    let house = House::new().await;
    let answer = upload(&house, "?name=..%2Fbill%202.pdf", "image/png", PDF).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let expected = Attachment::here("bill 2.pdf", "application/pdf", PDF);
    let file = answer.json();
    assert_eq!(
        file,
        json!({ "sha256": expected.sha256, "name": "bill 2.pdf", "media_type": "application/pdf", "size_bytes": PDF.len() })
    );
    let now = api::now();
    // Unused, it goes after a day.
    assert!(house.store.removals_due(now, 10).await.unwrap().is_empty());
    let tomorrow = now.plus_ms(25 * 3_600_000);
    assert_eq!(
        house.store.removals_due(tomorrow, 10).await.unwrap()[0].sha256,
        expected.sha256
    );

    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/replies", received.conversation);
    let body = json!({ "text": "Your bill.", "attachments": [{ "name": "bill.pdf", "sha256": expected.sha256 }] });
    let reply = house.post_with_key(&path, "r", body).await.json();
    assert_eq!(reply["attachments"][0]["media_type"], "application/pdf");
    assert_eq!(reply["attachments"][0]["size_bytes"], PDF.len());
    let path = format!(
        "/v1/messages/{}/attachments/{}",
        reply["id"].as_str().unwrap(),
        expected.sha256
    );
    let served = house.get(&path).await;
    assert_eq!((served.status, &served.body[..]), (StatusCode::OK, PDF));
    assert_eq!(served.headers[header::CONTENT_TYPE], "application/pdf");
    assert!(house.store.removals_due(tomorrow, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_not_taken_is_refused() {
    let house = House::new().await;
    let large = vec![b'x'; 25 * 1024 * 1024 + 1];
    upload(&house, "?name=a", "text/plain", &large)
        .await
        .refused(413, "too_large");
    upload(&house, "?name=a.png", "image/png", b"MZ\x90\x00")
        .await
        .refused(422, "file_not_taken");
    upload(&house, "", "text/plain", b"text").await.refused(400, "invalid");
    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/replies", received.conversation);
    let attempt = async |file: Value, code: &str| {
        let body = json!({ "text": "t", "attachments": [file] });
        house.post_with_key(&path, "r", body).await.refused(422, code);
    };
    let sha256 = model::id::sha256_hex(b"nobody uploaded this");
    attempt(json!({ "name": "a", "sha256": sha256 }), "no_such_file").await;
    attempt(json!({ "name": "a", "sha256": "../../etc/passwd" }), "no_such_file").await;
    attempt(json!({ "name": "a" }), "invalid").await;
    attempt(
        json!({ "name": "a", "sha256": sha256, "media_type": "text/plain", "content": "" }),
        "invalid",
    )
    .await;
}

#[tokio::test]
async fn a_conversation_is_erased_and_stays_so() {
    let house = House::new().await;
    let mut event = message_event("1", "anna@example.com", "A secret");
    if let model::event::Body::MessageReceived(message) = &mut event.body {
        message.attachments = vec![Attachment::here("secret.txt", "text/plain", b"secret")];
    }
    let received = house.arrive(&event).await;
    let conversation = format!("/v1/conversations/{}", received.conversation);
    let replies = format!("{conversation}/replies");
    house
        .post_with_key(&replies, "r", json!({ "text": "Ours" }))
        .await
        .json();
    let erase = async |path: &str| {
        let erasing = request(Method::DELETE, path, TOKEN, None).body(Body::empty());
        house.ask(erasing.unwrap()).await
    };
    for _ in 0..2 {
        assert_eq!(erase(&conversation).await.status, StatusCode::NO_CONTENT);
        let shown = house.get(&conversation).await.ok();
        assert_eq!(
            (&shown["subject"], &shown["epoch"], &shown["participants"]),
            (&Value::Null, &json!(2), &json!([]))
        );
        let messages = house.get(&format!("{conversation}/messages")).await.ok();
        assert_eq!(messages["items"], json!([]));
        house.decide(&event).await;
    }
    house
        .get(&format!("/v1/messages/{}", received.message))
        .await
        .refused(404, "not_found");
    house
        .post_with_key(&replies, "r", json!({ "text": "Ours" }))
        .await
        .refused(410, "erased");
    let ticket = house.get(&format!("/v1/tickets/{}", received.ticket)).await.ok();
    assert_eq!(ticket["subject"], "");
    let last = ticket["events"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["type"], &last["actor"]),
        (
            &json!("conversation_erased"),
            &json!({ "type": "person", "id": "agnes" })
        ),
        "{last}"
    );
    erase("/v1/conversations/cnv_none").await.refused(404, "not_found");
}
