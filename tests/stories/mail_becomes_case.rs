//! Story 1: a mail to support@ becomes a case with its first-response clock
//! running in business hours; the agent's reply arrives in the customer's mailbox
//! in the same thread; the customer's answer joins the conversation and starts
//! the next-response clock; resolving stops the resolution clock. On the heavy
//! side an independent consumer reads the event from Kafka.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use prost_reflect::Value as Field;
use serde_json::{Value, json};
use tests::harness::desk::{SOON, clock, conversation, text};
use tests::harness::kafka::{self, field};
use tests::harness::mail::{Letter, Received};
use tests::harness::wait::{eventually, until};
use tests::harness::world::World;
use tests::office;

const HOUR_MS: i64 = 3_600_000;

pub async fn run(world: &World) -> Result<()> {
    let (anna, support) = (world.theirs("anna"), world.ours("support"));
    let letter = Letter::new(
        &anna,
        &support,
        "story1-question@customer.example",
        "Où est ma commande ?",
        "Bonjour,\r\nI ordered two lamps — where are they?\r\n.\r\nA dot stood alone above.",
    )
    .with("X-Order: 4711");
    let sent = world.mail.send(&letter).await?;

    let ticket = world.desk.ticket("support", "Où est ma commande ?").await?;
    let number = text(&ticket, "number")?.to_owned();
    ensure!(
        number.starts_with("CS") && number.len() == 9,
        "not a case's number: {number}"
    );
    ensure!(
        ticket["kind"] == "case" && ticket["category"] == "open",
        "not an open case: {ticket}"
    );
    clock_runs_in_business_hours(&ticket, "first_response", 4)?;
    clock_runs_in_business_hours(&ticket, "resolution", 16)?;

    let conversation = conversation(&ticket)?.to_owned();
    let question = &world.desk.messages(&conversation).await?[0];
    ensure!(
        question["sender"]["address"] == anna.as_str(),
        "another sender: {question}"
    );
    ensure!(
        question["sender"]["verified"] == true,
        "Postfix vouched for her: {question}"
    );
    let body = world
        .mail
        .imap_bodies(&support)
        .await?
        .into_iter()
        .find(|mail| contains(mail, letter.id.as_bytes()));
    let body = body.context("her mail is gone from the mailbox")?;
    let tail = &body[body.len().saturating_sub(sent.len())..];
    ensure!(
        tail == sent,
        "the mail changed on its way to the mailbox: {} became {}",
        sent.escape_ascii(),
        tail.escape_ascii()
    );
    let raw = world
        .desk
        .get_bytes(&format!("/v1/messages/{}/raw", text(question, "id")?))
        .await?;
    ensure!(raw == body, "what was stored is not BODY[]");
    if world.name == "heavy" {
        independent_consumer_reads_it(world, question, &body).await?;
    }

    let answer = reply_arrives(world, &conversation, &format!("<{}>", letter.id)).await?;
    let ticket = world.desk.show(&number).await?;
    ensure!(
        clock(&ticket, "first_response")?["state"] == "met",
        "not met by the reply: {ticket}"
    );

    answer_joins(world, &number, &conversation, &answer).await?;

    let resolved = world
        .desk
        .act(&number, "resolve", &json!({ "code": "solved", "notes": "sent again" }))
        .await?;
    ensure!(
        resolved["category"] == "resolved" && resolved["resolution"]["code"] == "solved",
        "{resolved}"
    );
    let resolution = clock(&resolved, "resolution")?;
    ensure!(
        resolution["state"] == "met" && resolution["due_at"].is_null(),
        "still counting: {resolution}"
    );
    Ok(())
}

/// Compares a clock with a calculation of our own, minute by minute.
fn clock_runs_in_business_hours(ticket: &Value, metric: &str, hours: i64) -> Result<()> {
    let clock = clock(ticket, metric)?;
    ensure!(clock["state"] == "running", "{metric} does not run: {clock}");
    let started: Timestamp = text(clock, "started_at")?.parse()?;
    let opened: Timestamp = text(ticket, "opened_at")?.parse()?;
    ensure!(
        started == opened,
        "{metric} runs from another moment than the arrival: {clock}"
    );
    ensure!(
        started.duration_until(Timestamp::now()).as_secs() < 60,
        "the arrival lies in the past: {started}"
    );
    let due: Timestamp = text(clock, "due_at")?.parse()?;
    let expected = office::add(started, hours * HOUR_MS)?;
    ensure!(due == expected, "{metric}: due at {due}, by our count {expected}");
    Ok(())
}

async fn reply_arrives(world: &World, conversation: &str, parent: &str) -> Result<Received> {
    let (anna, support) = (world.theirs("anna"), world.ours("support"));
    let reply = world
        .desk
        .reply(conversation, "story1-reply", "They left today – sorry!")
        .await?;
    let path = format!("/v1/conversations/{conversation}/replies");
    let (status, again) = world
        .desk
        .post(&path, "story1-reply", &json!({ "text": "They left today – sorry!" }))
        .await?;
    ensure!(
        status == 200 && again["id"] == reply["id"],
        "the repeat made another message: {status} {again}"
    );

    let answer = world
        .mail
        .arrival(&anna, "the agent's reply", |mail| {
            mail.header("In-Reply-To") == Some(parent)
        })
        .await?;
    ensure!(
        answer.text.contains("They left today – sorry!"),
        "another text: {}",
        answer.text
    );
    ensure!(
        answer.required("From")?.contains(&support),
        "from {:?}",
        answer.header("From")
    );
    ensure!(
        answer.required("References")?.split_whitespace().any(|id| id == parent),
        "References lack the parent"
    );
    ensure!(
        answer.required("Subject")?.contains("Où est ma commande ?"),
        "{:?}",
        answer.header("Subject")
    );
    ensure!(
        answer.header("Auto-Submitted").is_none(),
        "a person's reply says it is automatic"
    );
    until("the reply counts as sent", SOON, async || {
        let message = world.desk.get(&format!("/v1/messages/{}", text(&reply, "id")?)).await?;
        Ok(message["delivery"] == "sent")
    })
    .await?;
    let mails = world.mail.mails(&anna)?;
    let replies = mails
        .iter()
        .filter(|mail| contains(mail, format!("In-Reply-To: {parent}").as_bytes()))
        .count();
    ensure!(replies == 1, "{replies} replies in her mailbox");
    Ok(answer)
}

async fn answer_joins(world: &World, number: &str, conversation: &str, answer: &Received) -> Result<()> {
    let (anna, support) = (world.theirs("anna"), world.ours("support"));
    let quoted = answer.required("Message-ID")?.to_owned();
    // Mail servers note arrivals in whole seconds, and nobody answers within one.
    let replied = Timestamp::now().as_second();
    until("the next second", SOON, async || {
        Ok(Timestamp::now().as_second() > replied)
    })
    .await?;
    let thanks = Letter::new(
        &anna,
        &support,
        "story1-thanks@customer.example",
        "Re: Où est ma commande ?",
        "And the bill?",
    );
    world.mail.send(&thanks.answering(&quoted)).await?;
    let messages = world.desk.messages_at_least(conversation, 3).await?;
    let directions: Vec<&Value> = messages.iter().map(|message| &message["direction"]).collect();
    ensure!(
        directions == ["inbound", "outbound", "inbound"],
        "in another order: {directions:?}"
    );
    let ticket = eventually("the next-response clock", SOON, async || {
        let ticket = world.desk.show(number).await?;
        Ok((clock(&ticket, "next_response")?["state"] == "running").then_some(ticket))
    })
    .await?;
    let next = clock(&ticket, "next_response")?;
    ensure!(
        next["started_at"] == messages[2]["received_at"],
        "it runs from another moment: {next}"
    );
    let started: Timestamp = text(next, "started_at")?.parse()?;
    let due: Timestamp = text(next, "due_at")?.parse()?;
    ensure!(
        due == office::add(started, 6 * HOUR_MS)?,
        "due at another moment: {next}"
    );
    Ok(())
}

async fn independent_consumer_reads_it(world: &World, message: &Value, body: &[u8]) -> Result<()> {
    let kafka = world.servers.kafka().await?;
    let id = text(message, "id")?.to_owned();
    let wanted = id.clone();
    let record = kafka::find(kafka, move |record| record.header("ce_id") == Some(wanted.as_str())).await?;
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_type", "io.tributary.conversation.v1.message_received"),
        ("ce_source", "/accounts/support"),
        ("content-type", "application/protobuf"),
    ];
    for (name, value) in headers {
        ensure!(
            record.header(name) == Some(value),
            "{name}: {:?}, not {value}",
            record.header(name)
        );
    }
    let event = &record.event;
    let texts = [
        ("id", id.as_str()),
        ("account", "support"),
        ("channel", "email"),
        ("message_received.subject", "Où est ma commande ?"),
    ];
    for (path, value) in texts {
        ensure!(
            field(event, path)?.as_str() == Some(value),
            "{path}: {:?}",
            field(event, path)?
        );
    }
    ensure!(
        field(event, "message_received.sender.verified")?.as_bool() == Some(true),
        "not verified"
    );
    let key = field(event, "thread_key")?;
    ensure!(
        key.as_str().map(str::as_bytes) == Some(&record.key),
        "the key is not the thread key"
    );
    ensure!(
        record.header("ce_subject") == key.as_str(),
        "ce_subject is not the thread key"
    );
    let Field::Bytes(raw) = field(event, "raw.inline")? else {
        anyhow::bail!("no raw bytes in the event");
    };
    ensure!(raw == body, "raw bytes are not those of BODY[]");
    Ok(())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
