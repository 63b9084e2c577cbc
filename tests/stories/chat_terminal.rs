//! `tributary chat` in a terminal: what is typed arrives, the answer shows at the next
//! start, which goes on where the first one ended, and shows nothing twice. A file that
//! a visitor uploads reaches the desk, and only its visitor can send it.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::chat::{Heard, Socket};
use tests::harness::desk::{conversation, text};
use tests::harness::process::binary;
use tests::harness::world::World;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

pub async fn run(world: &World) -> Result<()> {
    terminal(world).await?;
    files(world).await
}

async fn terminal(world: &World) -> Result<()> {
    let session = world.dir().join("terminal.json");
    let shown = chat(world, &session, &["Is anybody there? (terminal)"], None).await?;
    ensure!(!shown.iter().any(|line| line.starts_with("agent:")), "{shown:?}");
    let ticket = world.desk.ticket("chat", "Is anybody there? (terminal)").await?;
    world
        .desk
        .reply(conversation(&ticket)?, "terminal-1", "Yes \u{1b}[2J we are")
        .await?;
    let answer = "agent: Yes \\u{1b}[2J we are";
    chat(world, &session, &[], Some(answer)).await?;
    let shown = chat(
        world,
        &session,
        &["Good. (terminal)"],
        Some("visitor: Good. (terminal)"),
    )
    .await?;
    ensure!(shown.iter().all(|line| line != answer), "shown twice: {shown:?}");
    Ok(())
}

/// Types these lines, and reads until this one shows, or to the end.
async fn chat(world: &World, session: &std::path::Path, lines: &[&str], until: Option<&str>) -> Result<Vec<String>> {
    let mut command = Command::new(binary()?);
    command
        .args(["chat", "--url", &world.public[0], "--account", "chat", "--config"])
        .arg(&world.config);
    command.arg("--session").arg(session);
    if until.is_some() {
        command.arg("--stay");
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    for line in lines {
        input.write_all(format!("{line}\n").as_bytes()).await?;
    }
    drop(input);
    let mut output = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut shown = Vec::new();
    let reading = async {
        while let Some(line) = output.next_line().await? {
            let is_last = Some(line.as_str()) == until;
            shown.push(line);
            if is_last {
                return anyhow::Ok(true);
            }
        }
        anyhow::Ok(false)
    };
    let is_found = tokio::time::timeout(std::time::Duration::from_secs(30), reading)
        .await
        .context("no end")??;
    ensure!(is_found == until.is_some(), "{shown:?}");
    Ok(shown)
}

async fn files(world: &World) -> Result<()> {
    let public = &world.public[0];
    let mut visitor = Socket::visit(public, "chat", None).await?;
    visitor.resume(None).await?;
    let client = reqwest::Client::new();
    let upload = async |session: &str, bytes: &'static [u8]| {
        let url = format!("{public}/chat/chat/files?name=..%2Fbike%E2%80%AE.txt");
        let request = client
            .post(url)
            .bearer_auth(session)
            .header("content-type", "image/png")
            .body(bytes);
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        anyhow::Ok((status, answer.json::<Value>().await?))
    };
    let (status, kept) = upload(&visitor.session, b"the bike is red").await?;
    // It is what its bytes are, under a harmless name.
    ensure!(
        status == 201 && kept["media_type"] == "text/plain" && kept["name"] == "bike.txt",
        "{status} {kept}"
    );
    for (session, bytes, expected) in [
        ("nonsense", &b"x"[..], 401),
        (&visitor.session, b"", 400),
        (
            &visitor.session,
            b"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            415,
        ),
    ] {
        let (status, answer) = upload(session, bytes).await?;
        ensure!(status == expected, "{status} {answer} instead of {expected}");
    }
    let file = text(&kept, "file")?;
    visitor
        .say(&json!({ "type": "send", "id": "f", "text": "A file (terminal)", "files": [file] }))
        .await?;
    visitor.frame("ack").await?;
    let shown = visitor.frame("message").await?;
    let url = format!("{public}{}", text(&shown["files"][0], "url")?);
    let answer = client.get(&url).send().await?;
    let header = |name: &str| {
        answer
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    ensure!(
        header("x-content-type-options") == "nosniff" && header("content-security-policy").contains("sandbox"),
        "{answer:?}"
    );
    ensure!(answer.bytes().await? == "the bike is red", "other bytes");
    let forged = client
        .get(url.replace("bike.txt", "bike.html"))
        .send()
        .await?
        .status()
        .as_u16();
    ensure!(forged == 404, "a forged name was served: {forged}");

    // The same file, from somebody else's socket.
    let mut stranger = Socket::visit(public, "chat", None).await?;
    stranger
        .say(&json!({ "type": "send", "id": "f", "text": "Mine", "files": [file] }))
        .await?;
    let Heard::Frame(refused) = stranger.next().await? else {
        anyhow::bail!("closed");
    };
    ensure!(refused["type"] == "error" && refused["id"] == "f", "{refused}");

    let ticket = world.desk.ticket("chat", "A file (terminal)").await?;
    let messages = world.desk.messages_at_least(conversation(&ticket)?, 1).await?;
    let (id, sha256) = (text(&messages[0], "id")?, text(&kept, "sha256")?);
    let bytes = world
        .desk
        .get_bytes(&format!("/v1/messages/{id}/attachments/{sha256}"))
        .await?;
    ensure!(bytes == b"the bike is red", "the desk has other bytes");
    // And the desk's typing shows.
    let path = format!("/v1/conversations/{}/typing", conversation(&ticket)?);
    world.desk.post(&path, "typing", &json!({})).await?;
    visitor.frame("typing").await?;
    Ok(())
}
