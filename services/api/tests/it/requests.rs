//! What holds for every request: who may ask, what is refused, what every answer carries.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::json;

use crate::house::{House, OTHER_TOKEN, TOKEN, request, with_json};

#[tokio::test]
async fn without_a_valid_token_nobody_enters() {
    let house = House::new().await;
    let with = |value: Option<&str>| {
        let mut builder = Request::builder().uri("/v1/tickets");
        if let Some(value) = value {
            builder = builder.header(header::AUTHORIZATION, value);
        }
        builder.body(Body::empty()).unwrap()
    };
    let wrong = [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some(TOKEN),
        Some("Basic dGhlLXRva2VuLW9mLWFnbmVz"),
        Some("Bearer the-token-of-nobody"),
        Some("Bearer the-token-of-agnes-and-more"),
    ];
    for value in wrong {
        let answer = house.ask(with(value)).await;
        answer.refused(401, "unauthenticated");
        let challenge = answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.starts_with("Bearer realm="), "{value:?}: {challenge}");
    }
    for value in [format!("Bearer {TOKEN}"), format!("bearer  {OTHER_TOKEN}")] {
        house.ask(with(Some(&value))).await.ok();
    }
}

#[tokio::test]
async fn every_closed_route_asks_for_a_token() {
    let house = House::new().await;
    for (path, item) in api::document().paths.paths {
        let path = path.replace(['{', '}'], "");
        for method in [Method::GET, Method::POST] {
            let is_there = match method {
                Method::GET => item.get.is_some(),
                _ => item.post.is_some(),
            };
            if !is_there {
                continue;
            }
            let request = Request::builder()
                .method(&method)
                .uri(&path)
                .body(Body::empty())
                .unwrap();
            let status = house.ask(request).await.status;
            let expected = if path == "/v1/openapi.json" { 200 } else { 401 };
            assert_eq!(status, expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_token_may_be_created_after_it_was_refused() {
    let house = House::new().await;
    let ask = || {
        request(Method::GET, "/v1/accounts", "late", None)
            .body(Body::empty())
            .unwrap()
    };
    house.ask(ask()).await.refused(401, "unauthenticated");
    let sha256 = model::id::sha256_hex(b"late");
    house.store.create_token("carla", &sha256, api::now()).await.unwrap();
    house.ask(ask()).await.ok();
}

#[tokio::test]
async fn every_answer_carries_its_id_and_is_kept_by_nobody() {
    let house = House::new().await;
    let mut ids = std::collections::HashSet::new();
    let paths = ["/v1/tickets", "/v1/tickets/CS0000009", "/nothing", "/v1/openapi.json"];
    for path in paths {
        let headers = house.get(path).await.headers;
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store", "{path}");
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "{path}");
        ids.insert(headers["x-request-id"].to_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), paths.len());
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let house = House::new().await;
    house.get("/").await.refused(404, "no_such_route");
    house.get("/v2/tickets").await.refused(404, "no_such_route");
    let answer = house.post("/v1/tickets", json!({})).await;
    answer.refused(405, "method_not_allowed");
    assert!(answer.headers[header::ALLOW].to_str().unwrap().contains("GET"));
}

#[tokio::test]
async fn ids_of_another_form_are_not_found() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let paths = [
        "/v1/tickets/CS9999999",
        "/v1/tickets/0",
        "/v1/tickets/%00",
        "/v1/tickets/%FF",
        "/v1/tickets/CS0000001'--",
        "/v1/conversations/cnv_unknown",
        "/v1/conversations/%00",
        "/v1/conversations/cnv_unknown/messages",
        "/v1/messages/msg_unknown",
        "/v1/messages/msg_%00",
        "/v1/messages/msg_unknown/raw",
        "/v1/parked/evt_unknown",
        "/v1/parked/%00",
    ];
    for path in paths {
        house.get(path).await.refused(404, "not_found");
    }
    // An id of another kind, though it exists.
    let wrong_kind = format!("/v1/messages/{}", received.conversation);
    house.get(&wrong_kind).await.refused(404, "not_found");
    house
        .get(&format!("/v1/tickets/{}", "A".repeat(5_000)))
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/tickets/{}/assign", received.ticket);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let malformed: [&[u8]; 8] = [
        b"{",
        b"no",
        b"{\"assignee\":}",
        b"{\"assignee\":\"\\ud800\"}",
        b"{\"assignee\":\"\xff\"}",
        b"{} {}",
        deep.as_bytes(),
        b"\0",
    ];
    for body in malformed {
        let request = request(Method::POST, &path, TOKEN, None)
            .body(Body::from(body.to_vec()))
            .unwrap();
        house.ask(request).await.refused(400, "malformed_json");
    }
    for body in ["[]", "[\"agnes\"]", "null", "1", "\"assignee\""] {
        let request = request(Method::POST, &path, TOKEN, None)
            .body(Body::from(body))
            .unwrap();
        house.ask(request).await.refused(422, "invalid");
    }
    let detail = house
        .post(&path, json!({ "assigne": "agnes" }))
        .await
        .refused(422, "unknown_field");
    assert!(
        detail.contains("`assigne`") && detail.contains("`assignee`"),
        "{detail}"
    );
    house
        .post(&path, json!({ "assignee": 7 }))
        .await
        .refused(422, "invalid");
    house
        .post(&path, json!({ "assignee": "a\u{0}" }))
        .await
        .refused(422, "invalid");
    house.post(&path, json!({})).await.refused(422, "invalid");
    let form = request(Method::POST, &path, TOKEN, None)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from("assignee=agnes"))
        .unwrap();
    house.ask(form).await.refused(415, "unsupported_media_type");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_one_below_is_not() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/notes", received.conversation);
    let padded = |bytes: usize| {
        let text = "{\"text\":\"n\"}";
        format!("{text}{}", " ".repeat(bytes - text.len()))
    };
    let ask = |key: &str, body: String| {
        request(Method::POST, &path, TOKEN, Some(key))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .unwrap()
    };
    let answer = house.ask(ask("1", padded(api::MAX_BODY_BYTES + 1))).await;
    answer.refused(413, "too_large");
    let answer = house.ask(ask("2", padded(api::MAX_BODY_BYTES))).await;
    assert_eq!(answer.status, StatusCode::CREATED);
}

#[tokio::test]
async fn parameters_that_are_not_understood_are_refused() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let lists = [
        "/v1/tickets".to_owned(),
        "/v1/parked".to_owned(),
        format!("/v1/conversations/{}/messages", received.conversation),
    ];
    for list in lists {
        for limit in ["0", "-1", "201", "9223372036854775807"] {
            house
                .get(&format!("{list}?limit={limit}"))
                .await
                .refused(400, "bad_limit");
        }
        for limit in ["", "ten", "1.5", "9223372036854775808"] {
            house
                .get(&format!("{list}?limit={limit}"))
                .await
                .refused(400, "invalid");
        }
        for cursor in ["", "x", "%00", "!!!!", "MTIz", "OjEyMw", "bXNnXw"] {
            house
                .get(&format!("{list}?after={cursor}"))
                .await
                .refused(400, "bad_cursor");
        }
        let detail = house.get(&format!("{list}?afer=x")).await.refused(400, "unknown_field");
        assert!(detail.contains("`after`"), "{detail}");
        house
            .get(&format!("{list}?limit=1&limit=2"))
            .await
            .refused(400, "invalid");
    }
}

#[tokio::test]
async fn idempotency_keys_have_a_form() {
    let house = House::new().await;
    let received = house.receive("1").await;
    let path = format!("/v1/conversations/{}/notes", received.conversation);
    let body = json!({ "text": "n" });
    let missing = house.post(&path, body.clone()).await;
    missing.refused(400, "idempotency_key_missing");
    for key in ["", "two words", "ä", &"k".repeat(256)] {
        let request = with_json(request(Method::POST, &path, TOKEN, Some(key)), &body);
        house.ask(request).await.refused(400, "bad_idempotency_key");
    }
    let longest = house.post_with_key(&path, &"k".repeat(255), body).await;
    assert_eq!(longest.status, StatusCode::CREATED);
}
