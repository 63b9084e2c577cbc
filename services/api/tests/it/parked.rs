//! Inputs that wait for a person.

use data_encoding::BASE64;
use model::event::{Body, Event, RawContent};
use serde_json::{Value, json};

use crate::house::{House, message_event};

fn parked(name: &str, body: Body) -> Event {
    Event {
        id: model::id::event_id(&["parked", name]),
        body,
        ..message_event(name, "anna@example.com", "")
    }
}

#[tokio::test]
async fn a_parked_input_is_shown_with_its_bytes() {
    let house = House::new().await;
    let reason = "no header ends".to_owned();
    let mut event = parked("1", Body::Parked { reason });
    event.raw.content = RawContent::Inline(b"\0\xff".to_vec());
    house.decide(&event).await;
    let list = house.get("/v1/parked").await.ok();
    let item = &list["items"][0];
    assert_eq!(
        (&item["id"], &item["reason"]),
        (&json!(event.id), &json!("no header ends"))
    );
    assert_eq!(
        (&item["quarantined"], &item["size_bytes"], &item["replayed_at"]),
        (&json!(false), &json!(2), &Value::Null)
    );
    let shown = house.get(&format!("/v1/parked/{}", event.id)).await.ok();
    assert_eq!(shown["raw"]["content"], BASE64.encode(b"\0\xff"));
    assert_eq!(
        (&shown["raw"]["method"], &shown["raw"]["url"]),
        (&json!("POST"), &json!("/in/support"))
    );
    assert_eq!(shown["raw"]["headers"], json!([["webhook-id", "1"]]));
    house.store.mark_replayed(&event.id, api::now()).await.unwrap();
    let shown = house.get(&format!("/v1/parked/{}", event.id)).await.ok();
    assert!(shown["replayed_at"].is_string());
}

#[tokio::test]
async fn large_inputs_are_fetched_from_the_blobs() {
    let house = House::new().await;
    let reason = "too deep".to_owned();
    let bytes = vec![7; 100_000];
    let mut event = parked("1", Body::Parked { reason });
    let sha256 = house.blobs.put(bytes.clone()).await.unwrap();
    event.raw.content = RawContent::Blob {
        sha256,
        size_bytes: 100_000,
    };
    house.decide(&event).await;
    let shown = house.get(&format!("/v1/parked/{}", event.id)).await.ok();
    assert_eq!(shown["raw"]["content"], BASE64.encode(&bytes));
}

#[tokio::test]
async fn parked_and_quarantined_are_walked_once_the_latest_first() {
    let house = House::new().await;
    for n in 0..11 {
        let reason = format!("reason {n}");
        let body = if n % 2 == 0 {
            Body::Parked { reason }
        } else {
            Body::Quarantined { reason }
        };
        house.decide(&parked(&n.to_string(), body)).await;
    }
    let all = house.walk("/v1/parked", 200).await;
    assert_eq!(all.len(), 11);
    assert_eq!(all.iter().filter(|item| item["quarantined"] == true).count(), 5);
    assert!(all.is_sorted_by(|one, next| one["received_at"].as_str() >= next["received_at"].as_str()));
    for limit in [1, 4, 10, 11] {
        assert_eq!(house.walk("/v1/parked", limit).await, all, "limit {limit}");
    }
}
