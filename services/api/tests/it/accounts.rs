//! Accounts and their state.

use serde_json::{Value, json};

use crate::house::House;

#[tokio::test]
async fn an_account_shows_its_state() {
    let house = House::new().await;
    let fresh = house.get("/v1/accounts").await.ok();
    assert_eq!(fresh["next"], Value::Null);
    let account = &fresh["items"][0];
    assert_eq!(
        (&account["name"], &account["channel"], &account["queue"]),
        (&json!("support"), &json!("email"), &json!("support"))
    );
    assert_eq!(
        (&account["last_seen_at"], &account["error"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(account["declaration"]["resend_safe"], true);

    house.store.account_seen("support", None, 3, api::now()).await.unwrap();
    let account = house.get("/v1/accounts").await.ok()["items"][0].clone();
    assert!(account["last_seen_at"].is_string());
    assert_eq!(account["waiting"], 3);

    house
        .store
        .account_seen("support", Some("wrong password"), 3, api::now())
        .await
        .unwrap();
    let account = house.get("/v1/accounts").await.ok()["items"][0].clone();
    assert_eq!(account["error"], "wrong password");
    assert!(account["error_at"].is_string());

    house.store.account_seen("support", None, 0, api::now()).await.unwrap();
    let account = house.get("/v1/accounts").await.ok()["items"][0].clone();
    assert_eq!((&account["error"], &account["waiting"]), (&Value::Null, &json!(0)));
}
