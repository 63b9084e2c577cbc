//! An agent who answers whatever lies on the desk, each answer under one key until
//! it is taken; and the system that the webhooks' answers go to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use super::{ACCOUNTS, HOOKS, Scene, pause};
use crate::faults::oracle::Reply;
use crate::harness::random::Random;
use crate::vendors::lock;

pub fn start(scene: &Scene, people: &mut JoinSet<Result<()>>) {
    people.spawn(answer(scene.clone()));
}

async fn answer(scene: Scene) -> Result<()> {
    let mut random = scene.random.fork("agent");
    let mut index = 0;
    while !scene.is_over() {
        pause(&mut random, 150, 500).await;
        let account = ACCOUNTS[random.index(ACCOUNTS.len())];
        // While the desk is away there is nothing to be seen.
        let Ok(Some(conversation)) = some_conversation(&scene, account, &mut random).await else {
            continue;
        };
        let id = format!("{}-r-{index}", scene.run);
        index += 1;
        let path = format!("/v1/conversations/{conversation}/replies");
        let body = json!({ "text": format!("{id} is what we say.") });
        loop {
            let _flight = scene.oracle.fly();
            match scene.world.desk.post(&path, &id, &body).await {
                Ok((200 | 201, message)) => {
                    let message_id = message["id"].as_str().context("a reply without an id")?.to_owned();
                    scene.oracle.replied(&id, Reply { account, message_id });
                    break;
                }
                Ok((status, _)) if status >= 500 => {}
                Ok((status, message)) => {
                    scene.oracle.wrong(format!("{id} was refused: {status} {message}"));
                    break;
                }
                Err(_) => {}
            }
            pause(&mut random, 100, 400).await;
        }
    }
    Ok(())
}

/// One of the latest.
async fn some_conversation(scene: &Scene, account: &str, random: &mut Random) -> Result<Option<String>> {
    let page = scene
        .world
        .desk
        .get(&format!("/v1/tickets?queue={account}&limit=20"))
        .await?;
    let tickets = page["items"].as_array().context("no items")?;
    if tickets.is_empty() {
        return Ok(None);
    }
    let number = tickets[random.index(tickets.len())]["number"]
        .as_str()
        .context("no number")?;
    let ticket = scene.world.desk.show(number).await?;
    Ok(ticket["conversations"][0].as_str().map(str::to_owned))
}

/// Takes the answers of the webhook account; now and then it is not in the mood.
pub struct Receiver {
    /// Texts by the `webhook-id`s under which they came.
    seen: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
    serving: JoinHandle<()>,
}

impl Receiver {
    pub async fn start(scene: &Scene) -> Result<Self> {
        let seen: Arc<Mutex<BTreeMap<String, Vec<String>>>> = Arc::default();
        let random = Arc::new(Mutex::new(scene.random.fork(HOOKS)));
        let kept = seen.clone();
        let take = move |headers: HeaderMap, body: Bytes| async move {
            if lock(&random).one_in(12) {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            let id = headers
                .get("webhook-id")
                .and_then(|id| id.to_str().ok())
                .unwrap_or_default();
            let said: Value = serde_json::from_slice(&body).unwrap_or_default();
            let text = said["text"].as_str().unwrap_or_default().to_owned();
            lock(&kept).entry(id.to_owned()).or_default().push(text);
            StatusCode::NO_CONTENT
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", scene.world.talk_port)).await?;
        let routes = Router::new().route("/answers", post(take));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { seen, serving })
    }

    pub fn seen(&self) -> BTreeMap<String, Vec<String>> {
        lock(&self.seen).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
