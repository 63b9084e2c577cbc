//! Lets the vendors' own libraries sign what we verify, and speak to the servers by
//! which we test: their idea of a valid request is the one that counts. Run by
//! `make peers`, which fetches them.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::harness::process::{Process, Start, build};
use tests::harness::servers::{free_ports, repository};
use tests::harness::settings;
use tests::vendors;
use tests::vendors::line::Line;
use tests::vendors::meta::{ACCESS_TOKEN, APP_SECRET, BUSINESS_ID, Meta, NUMBER_ID, escaped, sign, whatsapp_message};
use tests::vendors::slack::{APP_TOKEN, BOT_TOKEN, SIGNING_SECRET, Slack, direct, event};
use tests::vendors::telegram::Telegram;
use tests::vendors::twilio::{ACCOUNT_SID, OUR_NUMBER, TOKEN, Twilio};
use tokio::process::Command;

#[tokio::main]
async fn main() -> Result<()> {
    build()?;
    let folder = std::env::temp_dir().join(format!("tributary-peers-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = run(&folder).await;
    std::fs::remove_dir_all(&folder)?;
    outcome
}

async fn run(folder: &Path) -> Result<()> {
    let [public, desk, ops, at_twilio, at_slack, at_meta, at_telegram, at_line] = free_ports()?;
    let url = format!("http://127.0.0.1:{public}");
    let text = format!(
        "[public]\nlisten = \"127.0.0.1:{public}\"\nurl = \"{url}\"\n[desk]\nlisten = \"127.0.0.1:{desk}\"\n\
         [data]\npath = \"{}\"\n[[queues]]\nname = \"phone\"\n[[queues]]\nname = \"slack\"\n[[queues]]\nname = \"wa\"\n\
         [[queues]]\nname = \"bot\"\n[[queues]]\nname = \"friends\"\n{}{}{}{}{}",
        folder.join("data").display(),
        settings::vendor("phone", "sms", at_twilio),
        settings::vendor("slack", "slack", at_slack),
        settings::vendor("wa", "whatsapp", at_meta),
        settings::vendor("bot", "telegram", at_telegram),
        settings::vendor("friends", "line", at_line)
    );
    let config = folder.join("tributary.toml");
    std::fs::write(&config, text)?;
    let mut process = Process::start(&Start {
        name: "all".to_owned(),
        role: "all".to_owned(),
        config,
        dir: folder.to_owned(),
        ops_port: ops,
        environment: Vec::new(),
    })
    .await?;
    twilio(&url, at_twilio).await?;
    slack(&url, at_slack).await?;
    meta(&url, at_meta).await?;
    telegram(&url, at_telegram).await?;
    line(&url, at_line).await?;
    process.terminate().await?;
    Ok(())
}

async fn twilio(url: &str, port: u16) -> Result<()> {
    let _twilio = Twilio::start(port, url).await?;
    let (hook, api) = (format!("{url}/in/phone"), format!("http://127.0.0.1:{port}"));
    let known = [
        ("HOOK", hook.as_str()),
        ("API", &api),
        ("ACCOUNT_SID", ACCOUNT_SID),
        ("TOKEN", TOKEN),
        ("NUMBER", OUR_NUMBER),
    ];
    meet("twilio_peer.py", &known).await?;
    meet("twilio_peer.cjs", &known).await
}

async fn slack(url: &str, port: u16) -> Result<()> {
    let slack = Slack::start(port, url).await?;
    let (hook, api) = (format!("{url}/in/slack"), format!("http://127.0.0.1:{port}/api/"));
    let known = [
        ("HOOK", hook.as_str()),
        ("API", &api),
        ("SECRET", SIGNING_SECRET),
        ("BOT_TOKEN", BOT_TOKEN),
        ("APP_TOKEN", APP_TOKEN),
    ];
    for script in ["slack_peer.py", "slack_peer.cjs"] {
        // Whoever opens a socket is told this, and has to acknowledge it.
        let told = slack.tell("events_api", &event("peer", direct("U1", "1780000000.000100", "Hello")));
        meet(script, &known).await?;
        ensure!(
            slack.acknowledged().contains(&told),
            "{script} did not understand our socket"
        );
    }
    Ok(())
}

async fn meta(url: &str, port: u16) -> Result<()> {
    let meta = Meta::start(port, url).await?;
    let message = whatsapp_message("wamid.PEER1", "15552223333", "text", &json!({ "body": "Grüße! 🚲" }), 0);
    let status = meta.post("wa", &message).await?;
    ensure!(status == 200, "{status}");
    let said = escaped(&message);
    let (hook, api) = (format!("{url}/in/wa"), format!("http://127.0.0.1:{port}"));
    let known = [
        ("HOOK", hook.as_str()),
        ("API", &api),
        ("SECRET", APP_SECRET),
        ("TOKEN", ACCESS_TOKEN),
        ("NUMBER", NUMBER_ID),
        ("BUSINESS", BUSINESS_ID),
        ("SAID", &said),
        ("SIGNATURE", &sign(APP_SECRET, &said)),
    ];
    meet("meta_peer.py", &known).await
}

async fn telegram(url: &str, port: u16) -> Result<()> {
    let telegram = Telegram::start(port).await?;
    telegram.happens(Telegram::message(7, 1, json!({ "text": "Hello" })));
    let (hook, api) = (format!("{url}/in/bot"), format!("http://127.0.0.1:{port}"));
    let known = [
        ("HOOK", hook.as_str()),
        ("API", &api),
        ("TOKEN", vendors::telegram::TOKEN),
        ("SECRET", vendors::telegram::SECRET),
        ("TESTDATA", &testdata("telegram")),
    ];
    meet("telegram_peer.py", &known).await
}

async fn line(url: &str, port: u16) -> Result<()> {
    let line = Line::start(port).await?;
    let user = vendors::line::user(1);
    let event = line.message(1, &user, "text", json!({ "text": "Hello" }));
    let (hook, api) = (format!("{url}/in/friends"), format!("http://127.0.0.1:{port}"));
    let known = [
        ("HOOK", hook.as_str()),
        ("API", &api),
        ("TOKEN", vendors::line::TOKEN),
        ("SECRET", vendors::line::SECRET),
        ("REPLY_TOKEN", event["replyToken"].as_str().unwrap_or_default()),
        ("USER", &user),
        ("TESTDATA", &testdata("line")),
    ];
    meet("line_peer.py", &known).await
}

/// What a channel's parser is tested by.
fn testdata(channel: &str) -> String {
    let folder = repository()
        .join("services/channels/src")
        .join(channel)
        .join("testdata");
    folder.display().to_string()
}

/// Runs a script with the library that it needs.
async fn meet(script: &str, known: &[(&str, &str)]) -> Result<()> {
    let peers = repository().join(".dev/peers");
    let program = match script.ends_with(".py") {
        true => peers.join("venv/bin/python"),
        false => "node".into(),
    };
    let status = Command::new(&program)
        .arg(repository().join("tests/peers").join(script))
        .env("NODE_PATH", peers.join("node_modules"))
        .envs(known.iter().copied())
        .stdin(Stdio::null())
        .status()
        .await
        .with_context(|| format!("{} cannot be started", program.display()))?;
    ensure!(status.success(), "{script} is not content with us");
    Ok(())
}
