//! The description of the API is part of the review: it is made from the code
//! and must be what `openapi.json` says.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::Value;

use crate::house::{House, TOKEN, request};

/// All doors. A new one is added here by hand, so that it cannot be forgotten.
const ROUTES: [&str; 27] = [
    "delete /v1/conversations/{id}",
    "get /v1/accounts",
    "get /v1/contacts",
    "get /v1/contacts/{id}",
    "get /v1/conversations/{id}",
    "get /v1/conversations/{id}/messages",
    "get /v1/messages/{id}",
    "get /v1/messages/{id}/attachments/{sha256}",
    "get /v1/messages/{id}/history",
    "get /v1/messages/{id}/raw",
    "get /v1/openapi.json",
    "get /v1/parked",
    "get /v1/parked/{id}",
    "get /v1/tickets",
    "get /v1/tickets/{number}",
    "get /v1/tickets/{number}/messages",
    "post /v1/contacts/{id}/merge",
    "post /v1/contacts/{id}/part",
    "post /v1/conversations/{id}/links",
    "post /v1/conversations/{id}/notes",
    "post /v1/conversations/{id}/replies",
    "post /v1/conversations/{id}/typing",
    "post /v1/files",
    "post /v1/messages/{id}/attachments/{position}/fetch",
    "post /v1/messages/{id}/resend",
    "post /v1/messages/{id}/settle",
    "post /v1/tickets/{number}/{verb}",
];

fn document() -> Value {
    serde_json::to_value(api::document()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.push((format!("{method} {path}"), operation));
        }
    }
    operations
}

/// `UPDATE_OPENAPI=1` writes it anew.
#[test]
fn the_description_is_the_reviewed_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let made = api::document().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(file, &made).unwrap();
    }
    let reviewed = std::fs::read_to_string(file).unwrap();
    assert!(
        made == reviewed,
        "openapi.json is not what the code says; `UPDATE_OPENAPI=1 cargo test -p api openapi` writes it anew"
    );
}

#[tokio::test]
async fn every_route_is_described_and_every_description_is_a_route() {
    let document = document();
    let described: BTreeSet<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
    assert_eq!(described, ROUTES.map(str::to_owned).into());
    // Nothing enters the router but by `routes!`, which describes what it adds.
    let source = include_str!("../../src/lib.rs");
    for other_way in [".route(", ".route_service(", ".nest", ".fallback_service("] {
        assert!(!source.contains(other_way), "{other_way}");
    }
    let house = House::new().await;
    for name in described {
        let (method, path) = name.split_once(' ').unwrap();
        let path = path
            .replace("{number}", "CS0000001")
            .replace("{id}", "x")
            .replace("{verb}", "reopen")
            .replace("{sha256}", "x");
        let method = method.to_uppercase().parse::<Method>().unwrap();
        let answer = house
            .ask(request(method, &path, TOKEN, None).body(Body::empty()).unwrap())
            .await;
        let is_fallback = matches!(
            answer.json()["code"].as_str(),
            Some("no_such_route" | "method_not_allowed")
        );
        assert!(!is_fallback, "{name}");
    }
}

#[tokio::test]
async fn anybody_may_read_it() {
    let house = House::new().await;
    let answer = house
        .ask(Request::get("/v1/openapi.json").body(Body::empty()).unwrap())
        .await;
    assert_eq!(answer.ok(), document());
}

#[test]
fn it_says_everything_a_client_needs() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
            "{name}"
        );
        assert!(operation["summary"].is_string(), "{name}");
        let has_body = [
            "links", "replies", "notes", "settle", "merge", "part", "{verb}", "files",
        ]
        .iter()
        .any(|end| name.ends_with(end));
        assert_eq!(operation.get("requestBody").is_some(), has_body, "{name}");
        let responses = operation["responses"].as_object().unwrap();
        let good = responses.iter().filter(|(status, _)| status.starts_with('2'));
        assert!(good.clone().count() > 0, "{name}");
        for (status, response) in good {
            assert_eq!(response.get("content").is_some(), status != "204", "{name} {status}");
        }
        if name != "get /v1/openapi.json" {
            for status in ["400", "401", "404", "500", "503"] {
                assert!(responses.contains_key(status), "{name} {status}");
            }
        }
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
}
