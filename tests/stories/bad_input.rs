//! Bad input through the public doors: refused with the right code, or parked, or
//! accepted; in bounded time and memory, never with a panic, and never with an
//! effect on what comes next.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::customer::{SECRET, Sender, message, now_seconds, sign};
use tests::harness::desk::{SOON, conversation};
use tests::harness::mail::Letter;
use tests::harness::process::resident_mib;
use tests::harness::wait::eventually;
use tests::harness::world::World;

/// For one answer to the worst input.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// More than any process may hold, whatever it is fed.
const MEMORY_MIB: f64 = 512.0;

pub async fn run(world: &World) -> Result<()> {
    unknown_accounts(world).await?;
    bad_signatures(world).await?;
    too_large(world).await?;
    malformed(world).await?;
    strange_texts(world).await?;
    monstrous_mails(world).await?;
    for process in world.processes().await.iter() {
        let held = resident_mib(process.pid()?)?;
        ensure!(held <= MEMORY_MIB, "{} holds {held:.0} MiB", process.name);
        let log = std::fs::read_to_string(&process.log)?;
        ensure!(
            !log.contains("panicked"),
            "{} panicked, see {}",
            process.name,
            process.log.display()
        );
    }
    Ok(())
}

/// 404, and the same for an account that exists but takes no webhooks.
async fn unknown_accounts(world: &World) -> Result<()> {
    let body = message("a@customer.example", "Hello", "Hello");
    let nobody = world.sender("nobody")?.send("bad-1", &body).await?;
    let mailbox = world.sender("support")?.send("bad-2", &body).await?;
    ensure!(nobody.status == 404, "nobody: {}", nobody.status);
    ensure!(
        (mailbox.status, &mailbox.body) == (404, &nobody.body),
        "a mailbox: {} {}",
        mailbox.status,
        mailbox.body
    );
    ensure!(
        !nobody.body.contains("bad") && !nobody.body.contains("hooks"),
        "it names others: {}",
        nobody.body
    );
    for strange in ["..%2f..%2fetc", "%00", "a%20b", &"x".repeat(5_000)] {
        let answer = world.sender(strange)?.send("bad-3", &body).await?;
        ensure!((400..500).contains(&answer.status), "/in/{strange}: {}", answer.status);
    }
    Ok(())
}

async fn bad_signatures(world: &World) -> Result<()> {
    let sender = world.sender("bad")?;
    let body = message("forger@customer.example", "Forged", "Believe me")
        .to_string()
        .into_bytes();
    let now = now_seconds()?;
    let other = "whsec_YW5vdGhlciBzZWNyZXQgdGhhbiB0aGVpcnM=";
    let cases = [
        ("bad-sig-1", now, "v1,AAAA".to_owned()),
        ("bad-sig-2", now, String::new()),
        ("bad-sig-3", now, sign(other, "bad-sig-3", now, &body)?),
        ("bad-sig-4", now, sign(SECRET, "another id", now, &body)?),
        ("bad-sig-5", now - 3_600, sign(SECRET, "bad-sig-5", now - 3_600, &body)?),
        ("bad-sig-6", now + 3_600, sign(SECRET, "bad-sig-6", now + 3_600, &body)?),
    ];
    for (id, timestamp, signature) in cases {
        let answer = sender.post_with(id, timestamp, &signature, body.clone()).await?;
        ensure!(answer.status == 401, "{id}: answered {} {}", answer.status, answer.body);
    }
    eventually("the forgeries are in quarantine", SOON, async || {
        let kept = parked(world).await?;
        let quarantined = kept.iter().filter(|input| input["quarantined"] == true).count();
        Ok((quarantined == 6).then_some(()))
    })
    .await?;
    world
        .desk
        .tickets("bad")
        .await?
        .is_empty()
        .then_some(())
        .context("a forgery became a ticket")?;
    // Two signatures, one of them good, as during rotation.
    let good = format!("v1,AAAA {}", sign(SECRET, "bad-sig-7", now, &body)?);
    let answer = sender.post_with("bad-sig-7", now, &good, body).await?;
    ensure!(
        (200..300).contains(&answer.status),
        "one good signature of two: {}",
        answer.status
    );
    world.desk.ticket("bad", "Forged").await?;
    Ok(())
}

async fn too_large(world: &World) -> Result<()> {
    let body = vec![b' '; 64 << 20];
    let answer = world.sender("bad")?.post("bad-large", body).await;
    // Told early, a client may still be writing when the connection closes.
    if let Ok(answer) = answer {
        ensure!(answer.status == 413, "64 MiB: answered {}", answer.status);
    }
    let body = vec![b' '; 12 << 20];
    let answer = world.sender("bad")?.post("bad-large-2", body).await?;
    ensure!(answer.status == 413, "12 MiB: answered {}", answer.status);
    next_is_fine(world, "after the large").await
}

/// 400 and not kept: its sender knows, and sends again.
async fn malformed(world: &World) -> Result<()> {
    world.quiet().await?;
    let before = parked(world).await?.len();
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_field = format!(r#"{{"from":{{"address":"a@b.example"}},"text":"x","extra":{deep}}}"#);
    let cases: &[(&str, Vec<u8>)] = &[
        ("empty", Vec::new()),
        ("half", br#"{"from": {"address": "a@b.ex"#.to_vec()),
        (
            "not utf-8",
            b"{\"from\":{\"address\":\"a@b.example\"},\"text\":\"\xff\xfe\"}".to_vec(),
        ),
        ("a list", b"[]".to_vec()),
        ("no sender", br#"{"text":"x"}"#.to_vec()),
        ("no text", br#"{"from":{"address":"a@b.example"}}"#.to_vec()),
        (
            "a number as text",
            br#"{"from":{"address":"a@b.example"},"text":1}"#.to_vec(),
        ),
        (
            "lone surrogate",
            br#"{"from":{"address":"a@b.example"},"text":"\ud800"}"#.to_vec(),
        ),
        ("deep", deep.into_bytes()),
        ("deep inside", deep_field.into_bytes()),
    ];
    let sender = world.sender("bad")?;
    for (index, (name, body)) in cases.iter().enumerate() {
        let answer = sender.post(&format!("malformed-{index}"), body.clone()).await?;
        ensure!(
            answer.status == 400,
            "{name}: answered {} {}",
            answer.status,
            answer.body
        );
        ensure!(
            answer.took <= ANSWERED_WITHIN,
            "{name}: answered after {:?}",
            answer.took
        );
        // Mended and sent again under the same id, it is taken.
        let body = message(
            "mender@customer.example",
            &format!("Mended {index}"),
            "Now it is right.",
        );
        let answer = sender.send(&format!("malformed-{index}"), &body).await?;
        ensure!(
            (200..300).contains(&answer.status),
            "{name}, mended: {} {}",
            answer.status,
            answer.body
        );
        world.desk.ticket("bad", &format!("Mended {index}")).await?;
    }
    world.quiet().await?;
    let after = parked(world).await?.len();
    ensure!(after == before, "{} malformed inputs were kept", after - before);
    Ok(())
}

async fn strange_texts(world: &World) -> Result<()> {
    let sender = world.sender("bad")?;
    let text = "before\u{0}after \u{202e}\u{feff}\u{1f469}\u{200d}\u{1f4bb}";
    let body = json!({ "from": { "address": "nul@customer.example", "name": "N\u{0}L" }, "subject": "NUL\u{0} inside", "text": text });
    let answer = sender.send("strange-1", &body).await?;
    ensure!(
        (200..300).contains(&answer.status),
        "NUL: answered {} {}",
        answer.status,
        answer.body
    );
    let ticket = eventually("the ticket with a NUL", SOON, async || {
        let tickets = world.desk.tickets("bad").await?;
        Ok(tickets.into_iter().find(|ticket| {
            ticket["subject"]
                .as_str()
                .is_some_and(|subject| subject.starts_with("NUL"))
        }))
    })
    .await?;
    let ticket = world.desk.show(ticket["number"].as_str().context("no number")?).await?;
    let messages = world.desk.messages(conversation(&ticket)?).await?;
    ensure!(
        !Value::from(messages).to_string().contains("\\u0000"),
        "a NUL reached the store"
    );
    next_is_fine(world, "after the strange").await
}

async fn monstrous_mails(world: &World) -> Result<()> {
    let murky = world.ours("murky");
    let head = |id: &str| {
        format!("Message-ID: <{id}@murky.example>\r\nFrom: m@murky.example\r\nTo: {murky}\r\nSubject: {id}\r\n")
    };
    let mut many_parts = head("many-parts") + "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n";
    for _ in 0..100_000 {
        many_parts.push_str("--b\r\n\r\nx\r\n");
    }
    many_parts.push_str("--b--\r\n");
    let mut deep = head("deep") + "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b0\r\n\r\n";
    for level in 0..1_000 {
        deep.push_str(&format!(
            "--b{level}\r\nContent-Type: multipart/mixed; boundary=b{}\r\n\r\n",
            level + 1
        ));
    }
    let tags = "<div>".repeat(100_000);
    let mails: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        (
            "long-header",
            (head("long-header") + "X-Long: " + &"y".repeat(1 << 20) + "\r\n\r\nHello.\r\n").into_bytes(),
        ),
        (
            "many-headers",
            (head("many-headers") + &"X-Many: z\r\n".repeat(100_000) + "\r\nHello.\r\n").into_bytes(),
        ),
        ("many-parts", many_parts.into_bytes()),
        ("deep", deep.into_bytes()),
        ("nul", (head("nul") + "\r\nA\u{0}B\r\n").into_bytes()),
        (
            "binary",
            [head("binary").as_bytes(), b"\r\n", &(0..=255).collect::<Vec<u8>>()].concat(),
        ),
        (
            "bad-charset",
            (head("bad-charset") + "Content-Type: text/plain; charset=klingon\r\n\r\nnuqneH\r\n").into_bytes(),
        ),
        (
            "bad-base64",
            (head("bad-base64") + "Content-Transfer-Encoding: base64\r\n\r\n!!!!====\r\n").into_bytes(),
        ),
        (
            "deep-html",
            (head("deep-html") + "Content-Type: text/html\r\n\r\n" + &tags + "Hello.\r\n").into_bytes(),
        ),
        ("no-sender", b"Subject: no-sender\r\n\r\nWho am I?\r\n".to_vec()),
        ("no-headers", b"\r\njust text\r\n".to_vec()),
    ];
    for (name, bytes) in &mails {
        world.mail.lay(&murky, name, bytes)?;
        // The next person's mail is read soon, whatever lies before it.
        let subject = format!("After {name}");
        let letter = Letter::new(
            &world.theirs("carla"),
            &murky,
            &format!("after-{name}@customer.example"),
            &subject,
            "Hello.",
        );
        world.mail.send(&letter).await?;
        world.desk.ticket("murky", &subject).await?;
    }
    world.quiet().await?;
    let tickets = world.desk.tickets("murky").await?;
    let kept = parked(world)
        .await?
        .iter()
        .filter(|input| input["account"] == "murky")
        .count();
    let accepted = tickets.len() - mails.len();
    ensure!(
        accepted + kept == mails.len(),
        "{accepted} accepted and {kept} parked of {}",
        mails.len()
    );
    Ok(())
}

async fn next_is_fine(world: &World, subject: &str) -> Result<()> {
    for public in &world.public {
        let body = message("next@customer.example", subject, "All is well.");
        let answer = Sender::new(public, "bad")?.send(subject, &body).await?;
        ensure!(
            (200..300).contains(&answer.status),
            "{subject}: answered {}",
            answer.status
        );
    }
    world.desk.ticket("bad", subject).await?;
    Ok(())
}

/// What waits for a person, of the two accounts of this story.
async fn parked(world: &World) -> Result<Vec<Value>> {
    let parked = world.desk.list("/v1/parked").await?;
    Ok(parked
        .into_iter()
        .filter(|input| input["account"] == "bad" || input["account"] == "murky")
        .collect())
}
