//! A system that sends webhooks gets the answers: posted to its URL, signed, and
//! again until it takes them.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tests::harness::customer::{SECRET, message, sign};
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::wait::{eventually, until};
use tests::harness::world::World;

type Seen = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

pub async fn run(world: &World) -> Result<()> {
    let seen = Seen::default();
    let server = serve(world.talk_port, seen.clone()).await?;
    let subject = "Are you there?";
    let body = message("caller@customer.example", subject, "Say something.");
    let answer = world.sender("talk")?.send("talk-1", &body).await?;
    ensure!((200..300).contains(&answer.status), "answered {}", answer.status);
    let ticket = world.desk.ticket("talk", subject).await?;
    let conversation = conversation(&ticket)?;
    let reply = world.desk.reply(conversation, "talk-reply", "Yes — we are.").await?;

    // The first attempt is refused with 503, so there is a second, under the same id.
    let attempts = eventually("two attempts", SOON * 3, async || {
        let seen = seen.lock().map(|seen| seen.clone()).unwrap_or_default();
        Ok((seen.len() >= 2).then_some(seen))
    })
    .await?;
    for (headers, body) in &attempts {
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .context("a header is missing")
        };
        let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?.parse()?);
        let signature = sign(SECRET, id, timestamp, body)?;
        ensure!(
            header("webhook-signature")?.split(' ').any(|one| one == signature),
            "the signature does not fit"
        );
        ensure!(id == attempts[0].0["webhook-id"], "the second attempt has another id");
        let said: Value = serde_json::from_slice(body)?;
        ensure!(said.to_string().contains("Yes — we are."), "another text: {said}");
    }
    until("the answer counts as sent", SOON, async || {
        let message = world.desk.get(&format!("/v1/messages/{}", text(&reply, "id")?)).await?;
        Ok(message["delivery"] == "sent")
    })
    .await?;
    server.abort();
    Ok(())
}

async fn serve(port: u16, seen: Seen) -> Result<tokio::task::JoinHandle<()>> {
    let take = move |headers: HeaderMap, body: Bytes| async move {
        let Ok(mut seen) = seen.lock() else {
            return StatusCode::INTERNAL_SERVER_ERROR;
        };
        seen.push((headers, body));
        if seen.len() == 1 {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::NO_CONTENT
        }
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let routes = Router::new().route("/answers", post(take));
    Ok(tokio::spawn(async move {
        let _ = axum::serve(listener, routes).await;
    }))
}
