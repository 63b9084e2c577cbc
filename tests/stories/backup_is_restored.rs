//! The database is lost, and a backup is put back that knows less than Kafka and than
//! the customers: what arrived since is applied again, and nothing is sent twice.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;
use tests::harness::chat::Socket;
use tests::harness::customer::message;
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::mail::{Letter, Received};
use tests::harness::wait::until;
use tests::harness::world::World;

/// They use the database; gateways go on.
const STOPPED: [&str; 3] = ["worker", "router", "api"];

/// Whether answers are taken, and those that were.
#[derive(Default)]
struct Caller {
    is_deaf: bool,
    heard: Vec<String>,
}

pub async fn run(world: &World) -> Result<()> {
    let caller = Arc::new(Mutex::new(Caller::default()));
    let server = serve(world.talk_port, caller.clone()).await?;

    // Known to the backup: a conversation, and an answer that nobody could take yet.
    let before = ask(world, "restored-1", "Before the backup").await?;
    set_deaf(&caller, true);
    let waiting = world
        .desk
        .reply(conversation(&before)?, "restored-waiting", "It waited.")
        .await?;
    let mut visitor = Socket::visit(&world.public[0], "help", None).await?;
    visitor.send("before", "Before the backup").await?;
    visitor.resume(None).await?;
    let seen = visitor.frame("message").await?;
    until("the answer was tried", SOON, async || {
        let message = world
            .desk
            .get(&format!("/v1/messages/{}", text(&waiting, "id")?))
            .await?;
        Ok(message["delivery_error"].is_string())
    })
    .await?;
    let postgres = world.servers.postgres().await?;
    let backup = world.servers.dir.join("backup");
    postgres.back_up(&backup).await?;

    // Since then: the answer leaves, a message comes, and a mail that a rule answers.
    set_deaf(&caller, false);
    until("the answer is taken", SOON, async || {
        Ok(heard(&caller, "It waited.") == 1)
    })
    .await?;
    ask(world, "restored-2", "After the backup").await?;
    let subject = "Automatically answered";
    let (hanna, auto) = (world.theirs("hanna"), world.ours("auto"));
    world
        .mail
        .send(&Letter::new(
            &hanna,
            &auto,
            "restored-3@customer.example",
            subject,
            "Hello?",
        ))
        .await?;
    let is_answer = |mail: &Received| mail.header("Subject").is_some_and(|found| found.contains(subject));
    world.mail.arrival(&hanna, "the rule's answer", is_answer).await?;
    visitor.send("after", "After the backup").await?;
    world.quiet().await?;

    stop(world).await?;
    postgres.put_back(&backup).await?;
    let told = world.command(&["restored"]).await?;
    ensure!(told.contains("applied again") && !told.contains("again: 0"), "{told}");
    start(world).await?;
    world.quiet().await?;

    for subject in ["Before the backup", "After the backup"] {
        world.desk.ticket("talk", subject).await?;
    }
    let message = world
        .desk
        .get(&format!("/v1/messages/{}", text(&waiting, "id")?))
        .await?;
    ensure!(message["delivery"] == "uncertain", "it may be sent twice: {message}");
    let answered = world.desk.ticket("auto", subject).await?;
    let messages = world.desk.messages(conversation(&answered)?).await?;
    let answer = messages.iter().find(|message| message["direction"] == "outbound");
    let answer = answer.context("the rule's answer is not in the conversation")?;
    ensure!(answer["delivery"] == "uncertain", "it may be sent twice: {answer}");
    ensure!(heard(&caller, "It waited.") == 1, "the answer came twice");
    let mails = world.mail.mails(&hanna)?.into_iter().map(Received::new);
    let mails: Vec<Received> = mails.collect::<Result<_>>()?;
    let answers = mails.iter().filter(|mail| is_answer(mail)).count();
    ensure!(answers == 1, "{answers} answers of the rule in her mailbox");
    history_is_gone(world, &visitor.vanish(), &seen).await?;
    server.abort();
    Ok(())
}

/// Whoever resumes by what he saw is told that it is no longer so, and is shown it all.
async fn history_is_gone(world: &World, session: &str, seen: &Value) -> Result<()> {
    let number = |name: &str| seen[name].as_i64().context("no number");
    let place = (number("epoch")?, number("sequence")?);
    let mut visitor = Socket::visit(&world.public[1], "help", Some(session)).await?;
    let resumed = visitor.resume(Some(place)).await?;
    ensure!(
        resumed["type"] == "gone",
        "resumed as though nothing had happened: {resumed}"
    );
    for said in ["Before the backup", "After the backup"] {
        let frame = visitor.frame("message").await?;
        ensure!(frame["text"] == said, "{said} expected: {frame}");
    }
    Ok(())
}

async fn ask(world: &World, id: &str, subject: &str) -> Result<Value> {
    let body = message("restored@customer.example", subject, "Are you there?");
    let answer = world.sender("talk")?.send(id, &body).await?;
    ensure!(answer.status == 200, "answered {} {}", answer.status, answer.body);
    world.desk.ticket("talk", subject).await
}

async fn stop(world: &World) -> Result<()> {
    for process in world.processes().await.iter_mut() {
        if STOPPED.iter().any(|role| process.name.starts_with(role)) {
            process.terminate().await?;
        }
    }
    Ok(())
}

async fn start(world: &World) -> Result<()> {
    let mut processes = world.processes().await;
    for process in processes.iter_mut() {
        if process.has_ended()? {
            process.launch_again()?;
        }
    }
    for process in processes.iter_mut() {
        process.ready().await?;
    }
    Ok(())
}

async fn serve(port: u16, caller: Arc<Mutex<Caller>>) -> Result<tokio::task::JoinHandle<()>> {
    let take = move |body: Bytes| async move {
        let Ok(mut caller) = caller.lock() else {
            return StatusCode::INTERNAL_SERVER_ERROR;
        };
        if caller.is_deaf {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        caller.heard.push(said["text"].as_str().unwrap_or_default().to_owned());
        StatusCode::NO_CONTENT
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let routes = Router::new().route("/answers", post(take));
    Ok(tokio::spawn(async move {
        let _ = axum::serve(listener, routes).await;
    }))
}

fn set_deaf(caller: &Mutex<Caller>, is_deaf: bool) {
    if let Ok(mut caller) = caller.lock() {
        caller.is_deaf = is_deaf;
    }
}

fn heard(caller: &Mutex<Caller>, text: &str) -> usize {
    let heard = |caller: &Caller| caller.heard.iter().filter(|heard| *heard == text).count();
    caller.lock().map(|caller| heard(&caller)).unwrap_or_default()
}
