//! A flooding visitor, a slow reader, a foreign origin, a forged session, JWTs with
//! `alg: none`, with a wrong key and expired: each is refused by one clear close code,
//! and another visitor does not notice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tests::harness::chat::{Heard, Socket, jwt, jwt_by};
use tests::harness::customer::now_seconds;
use tests::harness::desk::conversation;
use tests::harness::process::resident_mib;
use tests::harness::world::World;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub async fn run(world: &World) -> Result<()> {
    let public = &world.public[0];
    let mut bystander = Socket::visit(public, "strict", None).await?;
    bystander.resume(None).await?;
    origins(public).await?;
    sessions(public).await?;
    tokens(public).await?;
    session_ends(public).await?;
    talkers(public).await?;
    flood(public).await?;
    slow_reader(world).await?;
    let started = Instant::now();
    bystander.send("still", "Still here (refuses)").await?;
    bystander.frame("message").await?;
    ensure!(started.elapsed() < Duration::from_secs(5), "the bystander waited");
    Ok(())
}

async fn origins(public: &str) -> Result<()> {
    for (origin, is_welcome) in [
        (None, true),
        (Some("https://www.example.com"), true),
        (Some("HTTPS://WWW.EXAMPLE.COM"), true),
        (Some(public), true),
        (Some("https://evil.example"), false),
        (Some("https://www.example.com.evil.example"), false),
        (Some("http://www.example.com"), false),
        (Some("null"), false),
    ] {
        let mut socket = Socket::open(public, "strict", origin).await?;
        let outcome = match is_welcome {
            true => socket.hello(&json!({ "type": "hello" })).await.map(|_| 0),
            false => socket.closed().await.map(|closed| closed.code),
        };
        let code = outcome.with_context(|| format!("origin {origin:?}"))?;
        ensure!(code == if is_welcome { 0 } else { 4403 }, "origin {origin:?}: {code}");
    }
    Ok(())
}

/// Says this `hello` and is sent away.
async fn refused(public: &str, hello: &Value, expected: &str) -> Result<()> {
    let mut socket = Socket::open(public, "chat", None).await?;
    socket.say(hello).await?;
    let closed = socket.closed().await?;
    ensure!(
        closed.code == 4401 && closed.reason.contains(expected),
        "{closed:?} instead of {expected}"
    );
    Ok(())
}

async fn sessions(public: &str) -> Result<()> {
    let session = Socket::visit(public, "chat", None).await?.vanish();
    let other = Socket::visit(public, "strict", None).await?.vanish();
    let (payload, mac) = session.split_once('.').context("no signature")?;
    let json = String::from_utf8(URL_SAFE_NO_PAD.decode(payload)?)?;
    let forged = URL_SAFE_NO_PAD.encode(json.replacen("s-", "s-0", 1));
    for session in [
        format!("{forged}.{mac}"),
        format!("{payload}."),
        payload.to_owned(),
        other,
        "nonsense".to_owned(),
        String::new(),
    ] {
        refused(
            public,
            &json!({ "type": "hello", "session": session }),
            "the session is not ours",
        )
        .await?;
    }
    let mut socket = Socket::visit(public, "chat", Some(&session)).await?;
    socket.resume(None).await?;
    Ok(())
}

async fn tokens(public: &str) -> Result<()> {
    let now = now_seconds()?;
    let claims = json!({ "sub": "refused-user", "exp": now + 600, "name": "Ada" });
    let expired = json!({ "sub": "refused-user", "exp": now - 600 });
    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    for (jwt, expected) in [
        (none, "the JWT cannot be read"),
        (
            jwt_by("another secret, of the same length", &claims),
            "the JWT has a wrong signature",
        ),
        (jwt(&expired), "the JWT has expired"),
        ("a.b".to_owned(), "the JWT cannot be read"),
    ] {
        refused(public, &json!({ "type": "hello", "jwt": jwt }), expected).await?;
    }
    let mut socket = Socket::open(public, "chat", None).await?;
    socket.hello(&json!({ "type": "hello", "jwt": jwt(&claims) })).await?;
    Ok(())
}

/// A socket ends with its session: nobody who was locked out at the site reads on.
async fn session_ends(public: &str) -> Result<()> {
    // Clocks may differ by thirty seconds; two of them are left.
    let claims = json!({ "sub": "refused-late", "exp": now_seconds()? - 28 });
    let mut socket = Socket::open(public, "chat", None).await?;
    let hello = json!({ "type": "hello", "jwt": jwt(&claims) });
    socket.hello(&hello).await?;
    socket.resume(None).await?;
    let closed = socket.closed().await?;
    ensure!(
        closed.code == 4401 && closed.reason.contains("the session has expired"),
        "{closed:?}"
    );
    Ok(())
}

/// Who does not keep to the protocol is told each time what is wrong, and at last to go.
async fn talkers(public: &str) -> Result<()> {
    let mut socket = Socket::open(public, "strict", None).await?;
    let mut complaints = 0;
    for _ in 0..20 {
        if socket
            .say(&json!({ "type": "send", "id": "1", "text": "Before hello" }))
            .await
            .is_err()
        {
            break;
        }
    }
    let closed = loop {
        match socket.next().await? {
            Heard::Frame(frame) => complaints += usize::from(frame["code"] == "malformed"),
            Heard::Closed(closed) => break closed,
        }
    };
    ensure!(
        closed.code == 4400 && (5..20).contains(&complaints),
        "{closed:?} after {complaints}"
    );
    Ok(())
}

async fn flood(public: &str) -> Result<()> {
    // With or without a greeting.
    let silent = Socket::open(public, "strict", None).await?;
    for mut socket in [silent, Socket::visit(public, "strict", None).await?] {
        flood_of(&mut socket).await?;
    }
    Ok(())
}

async fn flood_of(socket: &mut Socket) -> Result<()> {
    let mut said = 0;
    while said < 1_000 && socket.say(&json!({ "type": "ping" })).await.is_ok() {
        said += 1;
    }
    let closed = socket.closed().await?;
    ensure!(
        closed.code == 4429 && closed.reason.contains("retry_after_ms"),
        "{closed:?} after {said} frames"
    );
    Ok(())
}

/// Its connection takes what fits into the buffers of the system, and then it is let
/// go, while the gateway's memory stays as it was.
async fn slow_reader(world: &World) -> Result<()> {
    let mut visitor = Socket::visit(&world.public[0], "chat", None).await?;
    let question = "I will not listen (refuses)";
    visitor.send("one", question).await?;
    let ticket = world.desk.ticket("chat", question).await?;
    let id = conversation(&ticket)?;
    let long = "All work and no play makes Jack a dull boy. ".repeat(450);
    for number in 0..200 {
        world.desk.reply(id, &format!("refuses-{number}"), &long).await?;
    }
    let session = visitor.vanish();
    let before = resident(world).await?;
    let address = world.public[0].trim_start_matches("http://");
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4_096)?;
    let mut stream = socket.connect(address.parse()?).await?;
    let head = "GET /chat/chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let hello = json!({ "type": "hello", "session": session }).to_string();
    for said in [hello.as_str(), r#"{"type":"resume"}"#] {
        stream.write_all(&masked(said)).await?;
    }
    // Reads nothing for longer than anybody waits for it, then finds the end.
    let metric =
        |metrics: &str| tests::harness::ops::sum(metrics, "tributary_live_closed_sockets_total", "not_reading");
    let ops: Vec<String> = world
        .processes()
        .await
        .iter()
        .map(|process| process.ops.clone())
        .collect();
    tests::harness::wait::until("the slow reader is let go", Duration::from_secs(40), async || {
        let mut count = 0.0;
        for ops in &ops {
            count += metric(&tests::harness::ops::metrics(ops).await?);
        }
        Ok(count >= 1.0)
    })
    .await?;
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    ensure!(end.is_ok(), "the connection has no end");
    ensure!(rest.len() < 200 * long.len(), "everything came");
    // What it did not take, about 4 MB, waited in the store.
    let grown = resident(world).await? - before;
    ensure!(grown < 16.0, "the memory grew by {grown} MiB");
    Ok(())
}

/// Memory of the first process that takes sockets, in MiB.
async fn resident(world: &World) -> Result<f64> {
    let processes = world.processes().await;
    let taking = processes
        .iter()
        .find(|process| ["all", "gateway-1"].contains(&process.name.as_str()));
    resident_mib(taking.context("no gateway")?.pid()?)
}

/// A text frame of a client with a mask of zeros.
fn masked(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match text.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        long => {
            bytes.push(0x80 | 126);
            bytes.extend((long as u16).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes
}
