//! Files go both ways: a system names a URL, the desk has the file, and says so while
//! and if it has not; an agent uploads one, and the customer has it by mail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tests::harness::customer::message;
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::mail::Letter;
use tests::harness::wait::eventually;
use tests::harness::world::World;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n the picture of a bike";
const PDF: &[u8] = b"%PDF-1.7\n the bill for the bike";

pub async fn run(world: &World) -> Result<()> {
    let (server, base) = serve().await?;
    from_url_to_desk(world, &base).await?;
    server.abort();
    from_desk_to_mailbox(world).await
}

/// A picture that comes at the second attempt, and others that never come.
async fn from_url_to_desk(world: &World, base: &str) -> Result<()> {
    let subject = "A picture of my bike";
    let mut body = message("rider@customer.example", subject, "Look at it.");
    let file =
        |name: &str, path: &str| json!({ "name": name, "media_type": "image/png", "url": format!("{base}{path}") });
    body["attachments"] = json!([
        file("bike.png", "/bike.png"),
        file("gone.png", "/gone.png"),
        file("login.png", "/login.png"),
        file("inside.png", "/inside.png"),
        { "name": "here.txt", "content": "aGVyZQ==" },
    ]);
    let answer = world.sender("files")?.send("files-1", &body).await?;
    ensure!((200..300).contains(&answer.status), "answered {}", answer.status);
    let ticket = world.desk.ticket("files", subject).await?;
    let conversation = conversation(&ticket)?;
    let shown = world.desk.messages_at_least(conversation, 1).await?.swap_remove(0);
    ensure!(shown["text"] == "Look at it.", "the text waits for the files: {shown}");
    let path = format!("/v1/messages/{}", text(&shown, "id")?);
    let settled = eventually("the files are here or lost", SOON, async || {
        let shown = world.desk.get(&path).await?;
        let files = shown["attachments"].as_array().context("no attachments")?.clone();
        Ok((!files.iter().any(|file| file["state"] == "pending")).then_some(files))
    })
    .await?;
    let expect = |at: usize, state: &str, lost: &str| {
        let said = settled[at]["lost"].as_str().unwrap_or_default();
        ensure!(
            settled[at]["state"] == state && said.contains(lost),
            "{at}: {}",
            settled[at]
        );
        Ok(())
    };
    expect(0, "here", "")?;
    expect(1, "lost", "404")?;
    expect(2, "lost", "web page")?;
    expect(3, "lost", "404")?;
    expect(4, "here", "")?;
    let bytes = world
        .desk
        .get_bytes(&format!("{path}/attachments/{}", text(&settled[0], "sha256")?))
        .await?;
    ensure!(bytes == PNG, "other bytes");
    // A system that may not: its URL leads to us.
    let mut body = message("rider@customer.example", "Not there", "Look at it.");
    body["attachments"] = json!([file("bike.png", "/bike.png")]);
    world.sender("hooks")?.send("files-2", &body).await?;
    let ticket = world.desk.ticket("hooks", "Not there").await?;
    let conversation = tests::harness::desk::conversation(&ticket)?;
    eventually("a private address is not fetched", SOON, async || {
        let shown = world.desk.messages_at_least(conversation, 1).await?;
        let said = shown[0]["attachments"][0]["lost"].as_str().unwrap_or_default();
        Ok(said.contains("private").then_some(()))
    })
    .await
}

async fn from_desk_to_mailbox(world: &World) -> Result<()> {
    let (ours, theirs) = (world.ours("support"), world.theirs("frida"));
    let subject = "Where is my bill?";
    let letter = Letter::new(&theirs, &ours, "<files-bill@customer.example>", subject, "I lost it.");
    world.mail.send(&letter).await?;
    let ticket = world.desk.ticket("support", subject).await?;
    let file: Value = world.desk.upload("Rechnung für 2.pdf", PDF).await?;
    ensure!(file["media_type"] == "application/pdf", "{file}");
    let body = json!({
        "text": "Here it is.",
        "attachments": [{ "name": file["name"], "sha256": file["sha256"] }],
    });
    let path = format!("/v1/conversations/{}/replies", conversation(&ticket)?);
    let (status, reply) = world.desk.post(&path, "files-bill", &body).await?;
    ensure!(status == 201, "{status} {reply}");
    let arrived = world
        .mail
        .arrival(&theirs, "the bill", |mail| mail.text.contains("Here it is."))
        .await?;
    let parsed = mailparse::parse_mail(&arrived.bytes)?;
    let part = parsed.parts().find(|part| part.ctype.mimetype == "application/pdf");
    let part = part.context("no PDF in the mail")?;
    ensure!(part.get_body_raw()? == PDF, "other bytes");
    Ok(())
}

async fn serve() -> Result<(tokio::task::JoinHandle<()>, String)> {
    let attempts = Arc::new(AtomicUsize::new(0));
    let bike = move || async move {
        match attempts.fetch_add(1, Ordering::SeqCst) {
            0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            _ => PNG.into_response(),
        }
    };
    let login = || async { "<!DOCTYPE html><html><body>Please sign in</body></html>" };
    let routes: Router = Router::new()
        .route("/bike.png", get(bike))
        .route("/login.png", get(|| async { Redirect::to("/login") }))
        .route("/login", get(login))
        .fallback(|| async { Response::from(StatusCode::NOT_FOUND.into_response()) });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(async move {
        let _ = axum::serve(listener, routes).await;
    });
    Ok((server, base))
}
