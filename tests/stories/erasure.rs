//! What was said is erased: texts, files and raw input are gone from API, store and
//! blobs, the log's replay brings nothing back, and what others use stays.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sqlx::Row as _;
use tests::harness::chat::Socket;
use tests::harness::customer::message;
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::wait::until;
use tests::harness::world::World;

/// Stands in all that is to be erased.
const MARK: &str = "marzipan-to-be-forgotten";

pub async fn run(world: &World) -> Result<()> {
    let subject = format!("About {MARK}");
    let mut body = message("secret@customer.example", &subject, &format!("I sell {MARK}."));
    // Raw input of more than 256 KiB lies in a blob of its own.
    let padding = "x".repeat(300 * 1024);
    body["attachments"] = json!([
        { "name": "secret.txt", "content": base64(&format!("{MARK} {padding}")) },
        { "name": "shared.txt", "content": base64("a file that others have too") },
    ]);
    let mut other = message("other@customer.example", "Another", "Something else.");
    other["attachments"] = json!([{ "name": "shared.txt", "content": base64("a file that others have too") }]);
    let sender = world.sender("files")?;
    for (id, body) in [("erase-1", &body), ("erase-2", &other)] {
        let answer = sender.send(id, body).await?;
        ensure!(answer.status == 200, "answered {}", answer.status);
    }
    let kept = world.desk.ticket("files", "Another").await?;
    let ticket = world.desk.ticket("files", &subject).await?;
    let id = conversation(&ticket)?.to_owned();
    let shown = world.desk.messages_at_least(&id, 1).await?.swap_remove(0);
    world
        .desk
        .reply(&id, "erase-reply", &format!("We love {MARK}."))
        .await?;
    world.quiet().await?;
    ensure!(!blobs_with_mark(world)?.is_empty(), "nothing there to be erased");

    let path = format!("/v1/conversations/{id}");
    let before = world.desk.get(&path).await?;
    for _ in 0..2 {
        ensure!(world.desk.delete(&path).await? == 204, "not erased");
    }
    let after = world.desk.get(&path).await?;
    ensure!(
        after["epoch"].as_i64() == before["epoch"].as_i64().map(|epoch| epoch + 1),
        "{after}"
    );
    ensure!(
        after["subject"].is_null() && after["participants"] == json!([]),
        "{after}"
    );
    nothing_is_left(world, &id, text(&shown, "id")?, text(&ticket, "number")?).await?;

    // The same event once more, as a replay of the log would bring it.
    let answer = sender.send("erase-1", &body).await?;
    ensure!(answer.status == 200, "answered {}", answer.status);
    world.quiet().await?;
    nothing_is_left(world, &id, text(&shown, "id")?, text(&ticket, "number")?).await?;
    let other = world
        .desk
        .messages_at_least(conversation(&kept)?, 1)
        .await?
        .swap_remove(0);
    let file = text(&other["attachments"][0], "sha256")?;
    let bytes = world
        .desk
        .get_bytes(&format!("/v1/messages/{}/attachments/{file}", text(&other, "id")?))
        .await?;
    ensure!(bytes == b"a file that others have too", "other bytes");
    a_visitor_is_told(world).await
}

/// Who looks is told at once, who comes back is told then, and both start anew.
async fn a_visitor_is_told(world: &World) -> Result<()> {
    let question = format!("Do you know {MARK}?");
    let mut looking = Socket::visit(&world.public[0], "chat", None).await?;
    looking.resume(None).await?;
    looking.send("one", &question).await?;
    let shown = looking.frame("message").await?;
    let epoch = shown["epoch"].as_i64().context("no epoch")?;
    let ticket = world.desk.ticket("chat", &question).await?;
    let id = conversation(&ticket)?;
    ensure!(
        world.desk.delete(&format!("/v1/conversations/{id}")).await? == 204,
        "not erased"
    );

    let gone = looking.frame("gone").await?;
    ensure!(gone["epoch"] == epoch + 1, "{gone}");
    let mut back = Socket::visit(&world.public[0], "chat", Some(&looking.session)).await?;
    let gone = back.resume(Some((epoch, 1))).await?;
    ensure!(gone["type"] == "gone" && gone["epoch"] == epoch + 1, "{gone}");
    back.send("two", "Then we start anew").await?;
    for visitor in [&mut looking, &mut back] {
        let shown = visitor.frame("message").await?;
        ensure!(
            shown["client_id"] == "two" && shown["epoch"] == epoch + 1,
            "{shown} after the erasure"
        );
    }
    Ok(())
}

async fn nothing_is_left(world: &World, conversation: &str, message: &str, ticket: &str) -> Result<()> {
    ensure!(world.desk.messages(conversation).await?.is_empty(), "messages are left");
    ensure!(
        world.desk.get(&format!("/v1/messages/{message}")).await.is_err(),
        "the message is left"
    );
    let ticket = world.desk.show(ticket).await?;
    ensure!(!ticket.to_string().contains(MARK), "the ticket still says it: {ticket}");
    let events = ticket["events"].as_array().context("no events")?;
    ensure!(
        events.iter().any(|event| event["type"] == "conversation_erased"),
        "nobody knows who erased it"
    );
    until("the blobs are removed", SOON, async || {
        Ok(blobs_with_mark(world)?.is_empty())
    })
    .await?;
    let tables = tables_with_mark(world).await?;
    ensure!(tables.is_empty(), "still in {tables:?}");
    Ok(())
}

/// Files of the blobs' folder that hold the mark, as text or as base64 of it.
fn blobs_with_mark(world: &World) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![world.blobs_dir.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if holds_mark(&path) {
                found.push(path.display().to_string());
            }
        }
    }
    Ok(found)
}

/// One that is removed meanwhile holds nothing.
fn holds_mark(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    let encoded = base64(MARK);
    // Four characters at the end depend on what follows.
    let needles = [MARK.as_bytes(), &encoded.as_bytes()[..encoded.len() - 4]];
    needles
        .iter()
        .any(|needle| bytes.windows(needle.len()).any(|window| window == *needle))
}

/// Names of the tables with a row that holds the mark.
async fn tables_with_mark(world: &World) -> Result<Vec<String>> {
    sqlx::any::install_default_drivers();
    let is_sqlite = world.store_url.starts_with("sqlite:");
    let names = match is_sqlite {
        true => "SELECT name FROM sqlite_master WHERE type = 'table'",
        false => "SELECT CAST(table_name AS TEXT) AS name FROM information_schema.tables WHERE table_schema = 'public'",
    };
    let pool = sqlx::AnyPool::connect(&world.store_url).await?;
    let mut found = Vec::new();
    for name in sqlx::query_scalar::<_, String>(names).fetch_all(&pool).await? {
        let text = sqlx::AssertSqlSafe(format!("SELECT * FROM {name}"));
        let rows = sqlx::query(text).fetch_all(&pool).await?;
        if rows.iter().any(row_holds_mark) {
            found.push(name);
        }
    }
    pool.close().await;
    Ok(found)
}

fn row_holds_mark(row: &sqlx::any::AnyRow) -> bool {
    (0..row.len()).any(|column| {
        let text = row.try_get::<Option<String>, _>(column).ok().flatten();
        let bytes = row.try_get::<Option<Vec<u8>>, _>(column).ok().flatten();
        let holds = |bytes: &[u8]| bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes());
        text.is_some_and(|text| holds(text.as_bytes())) || bytes.is_some_and(|bytes| holds(&bytes))
    })
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
