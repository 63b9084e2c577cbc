//! Replies and notes: written once, whatever happens on the way.

use std::collections::HashSet;

use axum::http::{Method, StatusCode};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::house::{House, OTHER_TOKEN, message_event, request, with_json};

#[tokio::test]
async fn a_reply_is_written_and_queued() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/replies", received.conversation);
    let answer = house.post_with_key(&path, "r1", json!({ "text": "Use water." })).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let message = answer.json();
    assert_eq!(
        (&message["direction"], &message["author"]),
        (&json!("outbound"), &json!("agnes"))
    );
    assert_eq!(
        (&message["delivery"], &message["delivery_error"]),
        (&json!("queued"), &Value::Null)
    );
    assert_eq!(
        (&message["text"], &message["subject"]),
        (&json!("Use water."), &json!("Printer"))
    );
    assert_eq!(message["recipients"][0]["address"], "anna@example.com");
    assert_eq!(message["external_ids"], json!([]));
    assert_eq!(house.store.outbox_pending().await.unwrap().0, 1);
    let ticket = house.get(&format!("/v1/tickets/{}", received.ticket)).await.ok();
    let clocks = ticket["clocks"].as_array().unwrap();
    let first = clocks.iter().find(|clock| clock["metric"] == "first_response").unwrap();
    assert_eq!(first["state"], "met");
    let id = message["id"].as_str().unwrap();
    assert_eq!(house.get(&format!("/v1/messages/{id}")).await.ok(), message);
}

#[tokio::test]
async fn html_is_sanitised_before_anybody_sees_it() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/replies", received.conversation);
    let html = "<p onclick=x>Use <b>water</b>.<script>x</script><img src='https://t.example/x.gif'></p>";
    for (key, text, expected) in [("r1", "Water!", "Water!"), ("r2", " ", "Use water.")] {
        let message = house
            .post_with_key(&path, key, json!({ "text": text, "html": html }))
            .await
            .json();
        assert_eq!(message["html"], "<p>Use <b>water</b>.<img></p>");
        assert_eq!(message["text"], expected);
    }
    let message = house.post_with_key(&path, "r3", json!({ "html": html })).await.json();
    assert_eq!(message["text"], "Use water.");
    let message = house
        .post_with_key(&path, "r4", json!({ "text": "x", "html": " " }))
        .await
        .json();
    assert_eq!(message["html"], Value::Null);
    for (key, body, code) in [
        ("r5", json!({ "html": "<div>".repeat(1_000) }), "invalid"),
        ("r6", json!({ "html": "<p></p>" }), "missing_field"),
        ("r7", json!({}), "missing_field"),
    ] {
        house.post_with_key(&path, key, body).await.refused(422, code);
    }
}

#[tokio::test]
async fn a_note_is_written_and_never_sent() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/notes", received.conversation);
    let answer = house
        .post_with_key(&path, "n1", json!({ "text": "He is a regular." }))
        .await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let note = answer.json();
    assert_eq!(
        (&note["direction"], &note["delivery"], &note["sequence"]),
        (&json!("note"), &Value::Null, &Value::Null)
    );
    assert_eq!(house.store.outbox_pending().await.unwrap().0, 0);
    let ticket = house.get(&format!("/v1/tickets/{}", received.ticket)).await.ok();
    let clocks = ticket["clocks"].as_array().unwrap();
    let first = clocks.iter().find(|clock| clock["metric"] == "first_response").unwrap();
    assert_eq!(first["state"], "running");
}

#[tokio::test]
async fn a_repeat_answers_what_the_first_time_wrote() {
    let house = House::new().await;
    let received = house.receive("1").await;
    for what in ["replies", "notes"] {
        let path = format!("/v1/conversations/{}/{what}", received.conversation);
        let body = json!({ "text": "Use water." });
        let first = house.post_with_key(&path, what, body.clone()).await;
        assert_eq!(first.status, StatusCode::CREATED);
        let again = house.post_with_key(&path, what, body).await;
        assert_eq!(again.ok(), first.json());
        let other = house.post_with_key(&path, what, json!({ "text": "Use sand." })).await;
        other.refused(422, "idempotency_key_reused");
    }
    let path = format!("/v1/conversations/{}/messages", received.conversation);
    assert_eq!(house.walk(&path, 50).await.len(), 3);
}

#[tokio::test]
async fn a_key_names_one_request_of_one_person() {
    let house = House::new().await;
    let (one, other) = (house.receive("1").await, house.receive("2").await);
    let path = |conversation: &str, what: &str| format!("/v1/conversations/{conversation}/{what}");
    let body = json!({ "text": "Hello" });
    let first = house
        .post_with_key(&path(&one.conversation, "notes"), "k", body.clone())
        .await;
    assert_eq!(first.status, StatusCode::CREATED);
    let elsewhere = [path(&other.conversation, "notes"), path(&one.conversation, "replies")];
    for path in elsewhere {
        house
            .post_with_key(&path, "k", body.clone())
            .await
            .refused(422, "idempotency_key_reused");
    }
    let request = request(Method::POST, &path(&one.conversation, "notes"), OTHER_TOKEN, Some("k"));
    let of_another = house.ask(with_json(request, &body)).await;
    assert_eq!(of_another.status, StatusCode::CREATED);
    assert_ne!(of_another.json()["id"], first.json()["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_repeats_at_once_write_one_message() {
    let house = std::sync::Arc::new(House::new().await);
    let received = house.receive("1").await;
    for what in ["replies", "notes"] {
        let path = format!("/v1/conversations/{}/{what}", received.conversation);
        let repeats = (0..20).map(|_| {
            let (house, path) = (house.clone(), path.clone());
            tokio::spawn(async move { house.post_with_key(&path, &path, json!({ "text": "Once." })).await })
        });
        let mut created = 0;
        let mut ids = HashSet::new();
        for repeat in repeats.collect::<Vec<_>>() {
            let answer = repeat.await.unwrap();
            assert!(answer.status.is_success(), "{answer:?}");
            created += usize::from(answer.status == StatusCode::CREATED);
            ids.insert(answer.json()["id"].as_str().unwrap().to_owned());
        }
        assert_eq!((created, ids.len()), (1, 1));
    }
    let path = format!("/v1/conversations/{}/messages", received.conversation);
    assert_eq!(house.walk(&path, 50).await.len(), 3);
    assert_eq!(house.store.outbox_pending().await.unwrap().0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_at_once_lose_nothing() {
    let house = std::sync::Arc::new(House::new().await);
    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/notes", received.conversation);
    let writers = (0..20).map(|n| {
        let (house, path) = (house.clone(), path.clone());
        tokio::spawn(async move {
            // Busy is an answer; a client comes again with the same key.
            loop {
                let answer = house
                    .post_with_key(&path, &n.to_string(), json!({ "text": format!("note {n}") }))
                    .await;
                if answer.status != StatusCode::SERVICE_UNAVAILABLE {
                    return answer;
                }
                assert!(answer.headers.contains_key("retry-after"));
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        assert!(writer.await.unwrap().status.is_success());
    }
    let path = format!("/v1/conversations/{}/messages", received.conversation);
    let texts: HashSet<String> = house
        .walk(&path, 50)
        .await
        .iter()
        .map(|item| item["text"].to_string())
        .collect();
    assert_eq!(texts.len(), 21);
}

#[tokio::test]
async fn attachments_are_kept_before_the_reply() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/replies", received.conversation);
    let bytes: Vec<u8> = (0..=255).collect();
    let file = json!({ "name": "plän.pdf", "media_type": "Application/PDF", "content": BASE64.encode(&bytes) });
    let body = json!({ "text": "", "subject": "The plan", "attachments": [file] });
    let answer = house.post_with_key(&path, "r", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let sha256 = model::id::sha256_hex(&bytes);
    let expected = json!([{
        "name": "plän.pdf", "media_type": "application/pdf", "size_bytes": 256, "sha256": sha256, "content_id": null,
        "state": "here", "lost": null,
    }]);
    assert_eq!(answer.json()["attachments"], expected);
    assert_eq!(answer.json()["subject"], "The plan");
    assert_eq!(house.blobs.get(&sha256).await.unwrap(), Some(bytes));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/replies", received.conversation);
    let file = |name: &str, media_type: &str, content: &str| json!({ "text": "t", "attachments": [{ "name": name, "media_type": media_type, "content": content }] });
    let table = [
        (json!({}), "missing_field"),
        (json!({ "text": "" }), "missing_field"),
        (json!({ "text": " \n" }), "missing_field"),
        (json!({ "text": 1 }), "invalid"),
        (json!({ "text": "t\u{0}" }), "invalid"),
        (json!({ "text": "t", "subject": "a\nBcc: b@example.com" }), "invalid"),
        (json!({ "text": "t", "subject": "s".repeat(999) }), "invalid"),
        (json!({ "text": "t", "txt": "t" }), "unknown_field"),
        (file("", "text/plain", ""), "invalid"),
        (file("..", "text/plain", ""), "invalid"),
        (file("a/b", "text/plain", ""), "invalid"),
        (file("a\\b", "text/plain", ""), "invalid"),
        (file("a\r\nb", "text/plain", ""), "invalid"),
        (file(&"a".repeat(256), "text/plain", ""), "invalid"),
        (file("a", "text", ""), "invalid"),
        (file("a", "text/plain; charset=utf-8", ""), "invalid"),
        (file("a", "text/plain\r\nX: y", ""), "invalid"),
        (file("a", "text/plain", "=="), "invalid"),
        (file("a", "text/plain", "YQ"), "invalid"),
    ];
    for (body, code) in table {
        house.post_with_key(&path, "k", body).await.refused(422, code);
    }
    let many = vec![json!({ "name": "a", "media_type": "text/plain", "content": "" }); 51];
    house
        .post_with_key(&path, "k", json!({ "text": "t", "attachments": many }))
        .await
        .refused(422, "invalid");
    let unknown = house
        .post_with_key("/v1/conversations/cnv_unknown/replies", "k", json!({ "text": "t" }))
        .await;
    unknown.refused(404, "not_found");
    let missing = house.post(&path, json!({ "text": "t" })).await;
    missing.refused(400, "idempotency_key_missing");
    assert_eq!(house.store.outbox_pending().await.unwrap().0, 0);
}

#[tokio::test]
async fn the_ticket_decides_whether_it_may_be_answered() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/tickets/{}/close", received.ticket);
    house.post(&path, json!({ "code": "solved" })).await.ok();
    let base = format!("/v1/conversations/{}", received.conversation);
    let reply = house
        .post_with_key(&format!("{base}/replies"), "r", json!({ "text": "t" }))
        .await;
    reply.refused(409, "wrong_state");
    let note = house
        .post_with_key(&format!("{base}/notes"), "n", json!({ "text": "t" }))
        .await;
    assert_eq!(note.status, StatusCode::CREATED);
}

#[tokio::test]
async fn what_the_channel_cannot_carry_is_refused_at_once() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/replies", received.conversation);
    let file = |bytes: usize| {
        let content = BASE64.encode(&vec![7; bytes]);
        json!({ "name": "a", "media_type": "text/plain", "content": content })
    };
    let files = |sizes: [usize; 2]| json!({ "text": "t", "attachments": sizes.map(file) });
    let detail = house
        .post_with_key(&path, "k", files([1_000_000, 1]))
        .await
        .refused(422, "invalid");
    assert!(detail.contains("1000001") && detail.contains("1000000"), "{detail}");
    let fitting = house.post_with_key(&path, "k", files([999_999, 1])).await;
    assert_eq!(fitting.status, StatusCode::CREATED);
}

#[tokio::test]
async fn nothing_leaves_by_an_account_that_is_gone() {
    let house = House::new().await;
    let received = house.receive("1").await;
    house.store.declare_accounts(&[]).await.unwrap();
    let base = format!("/v1/conversations/{}", received.conversation);
    let reply = house
        .post_with_key(&format!("{base}/replies"), "r", json!({ "text": "t" }))
        .await;
    let detail = reply.refused(409, "account_gone");
    assert!(detail.contains("support"), "{detail}");
    let note = house
        .post_with_key(&format!("{base}/notes"), "n", json!({ "text": "t" }))
        .await;
    assert_eq!(note.status, StatusCode::CREATED);
    assert_eq!(house.get("/v1/accounts").await.ok()["items"], json!([]));
}

#[tokio::test]
async fn machines_are_not_answered_where_a_person_wrote() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let mut event = message_event("2", "mailer-daemon@example.com", "Undeliverable");
    if let model::event::Body::MessageReceived(message) = &mut event.body {
        message.evidence.thread = Some("thread of 1".to_owned());
        message.automatic = Some(model::event::Automatic::Bounce);
    }
    house.arrive(&event).await;
    let path = format!("/v1/conversations/{}/replies", received.conversation);
    let reply = house
        .post_with_key(&path, "r", json!({ "text": "Use water." }))
        .await
        .json();
    assert_eq!(reply["recipients"][0]["address"], "anna@example.com");
}
