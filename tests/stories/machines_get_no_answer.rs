//! Story 4: an out-of-office and a bounce are recorded and answered by nobody;
//! two Tributaries that write to each other fall silent.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::mail::{Letter, Received};
use tests::harness::process::{Process, Start};
use tests::harness::servers::free_ports;
use tests::harness::wait::until;
use tests::harness::world::World;
use tests::harness::{ops, settings};

pub async fn run(world: &World) -> Result<()> {
    let (conversation, confirmation) = person_is_answered_once(world).await?;
    out_of_office_is_recorded(world, &conversation, &confirmation).await?;
    strange_out_of_office_opens_nothing(world).await?;
    bounce_is_recorded(world).await?;
    two_installations_fall_silent(world).await
}

async fn person_is_answered_once(world: &World) -> Result<(String, Received)> {
    let (dora, auto) = (world.theirs("dora"), world.ours("auto"));
    let letter = Letter::new(&dora, &auto, "story4-a@customer.example", "A question", "How long?");
    world.mail.send(&letter).await?;
    let ticket = world.desk.ticket("auto", "A question").await?;
    let number = text(&ticket, "number")?;
    let parent = format!("<{}>", letter.id);
    let confirmation = world
        .mail
        .arrival(&dora, "the confirmation", |mail| {
            mail.header("In-Reply-To") == Some(parent.as_str())
        })
        .await?;
    ensure!(
        confirmation.text.contains(number),
        "it does not name {number}: {}",
        confirmation.text
    );
    let mark = confirmation.required("Auto-Submitted")?;
    ensure!(mark.starts_with("auto-replied"), "Auto-Submitted: {mark}");
    Ok((conversation(&ticket)?.to_owned(), confirmation))
}

async fn out_of_office_is_recorded(world: &World, conversation: &str, confirmation: &Received) -> Result<()> {
    let (dora, auto) = (world.theirs("dora"), world.ours("auto"));
    let away = Letter::new(
        &dora,
        &auto,
        "story4-b@customer.example",
        "Out of office",
        "Back in May.",
    )
    .answering(confirmation.required("Message-ID")?)
    .with("Auto-Submitted: auto-replied");
    world.mail.send(&away).await?;
    // The question, the confirmation, the out-of-office; and nothing after it.
    let messages = world.desk.messages_at_least(conversation, 3).await?;
    ensure!(messages[2]["automatic"] == "reply", "not recognised: {}", messages[2]);
    world.quiet().await?;
    let messages = world.desk.messages(conversation).await?;
    ensure!(messages.len() == 3, "somebody answered a machine: {messages:?}");
    Ok(())
}

async fn strange_out_of_office_opens_nothing(world: &World) -> Result<()> {
    let (emil, auto) = (world.theirs("emil"), world.ours("auto"));
    let away = Letter::new(&emil, &auto, "story4-c@customer.example", "Abwesend", "Bis Mai.")
        .with("Auto-Submitted: auto-replied");
    world.mail.send(&away).await?;
    let message_id = format!("<{}>", away.id);
    world
        .mail
        .arrival(&auto, "the mail", |mail| {
            mail.header("Message-ID") == Some(message_id.as_str())
        })
        .await?;
    let id = inspected_id(world, &auto, &message_id).await?;
    until("it is recorded", SOON, async || {
        let message = world.desk.get(&format!("/v1/messages/{id}")).await?;
        Ok(message["automatic"] == "reply")
    })
    .await?;
    world.quiet().await?;
    let tickets = world.desk.tickets("auto").await?;
    ensure!(
        !tickets.iter().any(|ticket| ticket["subject"] == "Abwesend"),
        "a machine opened a ticket"
    );
    ensure!(world.mail.mails(&emil)?.is_empty(), "a machine was answered");
    Ok(())
}

async fn bounce_is_recorded(world: &World) -> Result<()> {
    let (gone, sales) = (world.theirs("gone"), world.ours("sales"));
    world
        .mail
        .send(&Letter::new(
            &gone,
            &sales,
            "story4-d@customer.example",
            "I shall be gone",
            "Write to me.",
        ))
        .await?;
    let ticket = world.desk.ticket("sales", "I shall be gone").await?;
    let conversation = conversation(&ticket)?;
    let reply = world.desk.reply(conversation, "story4-reply", "Too late?").await?;
    let report = world
        .mail
        .arrival(&sales, "the bounce", |mail| {
            mail.header("Content-Type")
                .is_some_and(|kind| kind.starts_with("multipart/report"))
        })
        .await?;
    let id = inspected_id(world, &sales, report.required("Message-ID")?).await?;
    until("the bounce is recorded", SOON, async || {
        let reply = world.desk.get(&format!("/v1/messages/{}", text(&reply, "id")?)).await?;
        let is_failed = reply["delivery"] == "failed";
        let bounce = world.desk.get(&format!("/v1/messages/{id}")).await?;
        Ok(is_failed && bounce["automatic"] == "bounce")
    })
    .await?;
    world.quiet().await?;
    let messages = world.desk.messages(conversation).await?;
    let outbound = messages
        .iter()
        .filter(|message| message["direction"] == "outbound")
        .count();
    ensure!(outbound == 1, "the bounce was answered: {messages:?}");
    let tickets = world.desk.tickets("sales").await?;
    let opened = tickets.iter().filter(|ticket| {
        ticket["subject"]
            .as_str()
            .is_some_and(|subject| subject.contains("Undelivered"))
    });
    ensure!(opened.count() == 0, "the bounce opened a ticket");
    Ok(())
}

async fn two_installations_fall_silent(world: &World) -> Result<()> {
    let (auto, other) = (world.ours("auto"), world.ours("other"));
    let process = start_other(world).await?;
    // As if the first had written to the second: from there on they are alone.
    let spark = Letter::new(
        &auto,
        &other,
        "story4-e@spark.example",
        "Shall we talk?",
        "I never get tired.",
    );
    world.mail.send(&spark).await?;
    let parent = format!("<{}>", spark.id);
    let answer = world
        .mail
        .arrival(&auto, "the other's answer", |mail| {
            mail.header("In-Reply-To") == Some(parent.as_str())
        })
        .await?;
    let id = inspected_id(world, &auto, answer.required("Message-ID")?).await?;
    until("it is recorded", SOON, async || {
        Ok(world.desk.get(&format!("/v1/messages/{id}")).await.is_ok())
    })
    .await?;
    world.quiet().await?;
    ops::quiet(std::slice::from_ref(&process.ops), SOON).await?;
    let from_other = world
        .mail
        .mails(&auto)?
        .into_iter()
        .map(Received::new)
        .collect::<Result<Vec<_>>>()?;
    let from_other = from_other
        .iter()
        .filter(|mail| mail.header("From").is_some_and(|from| from.contains(&other)));
    ensure!(from_other.count() == 1, "the other went on talking");
    let to_other = world.mail.mails(&other)?.len();
    ensure!(to_other == 1, "we went on talking: {to_other} mails");
    let mut process = process;
    process.terminate().await?;
    Ok(())
}

async fn start_other(world: &World) -> Result<Process> {
    let dir = world.servers.dir.join(format!("{}-other", world.name));
    std::fs::create_dir_all(&dir)?;
    let [public, desk, ops_port] = free_ports()?;
    let domain = settings::our_domain(world.name);
    let text = format!(
        "{}\n[public]\nlisten = \"127.0.0.1:{public}\"\n[desk]\nlisten = \"127.0.0.1:{desk}\"\n[data]\npath = \"{}\"\n{}",
        settings::desk(world.name),
        dir.join("data").display(),
        settings::mailbox("other", &domain, world.mail.imap_port, world.mail.smtp_port)
    );
    let config = dir.join("tributary.toml");
    std::fs::write(&config, text)?;
    let start = Start {
        name: "the other Tributary".to_owned(),
        role: "all".to_owned(),
        config,
        dir,
        ops_port,
        environment: Vec::new(),
    };
    Process::start(&start).await
}

/// The id under which a mail that has arrived is known: `tributary inspect` says
/// it of the bytes that IMAP gives.
async fn inspected_id(world: &World, mailbox: &str, message_id: &str) -> Result<String> {
    let bodies = world.mail.imap_bodies(mailbox).await?;
    let mails = bodies.into_iter().map(Received::new).collect::<Result<Vec<_>>>()?;
    let mail = mails
        .iter()
        .find(|mail| mail.header("Message-ID") == Some(message_id))
        .context("the mail is gone")?;
    let file = world.dir().join("inspected.eml");
    std::fs::write(&file, &mail.bytes)?;
    let printed = world.command(&["inspect", "email", &file.to_string_lossy()]).await?;
    let event: Value = serde_json::from_str(printed.lines().next().context("inspect printed nothing")?)?;
    event["id"]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("inspect gives no id: {event}"))
}
