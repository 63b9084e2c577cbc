//! A customer whom the site's chat knows, and whose number it has verified, has written
//! from WhatsApp, calls and hangs up, and sends a text message: one contact, one
//! ticket, all of it in the order of time, and each answered on its own way. What was
//! written on WhatsApp came late: its window closes before the desk writes, which is
//! told so, and told what may be sent instead.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::chat::{Socket, jwt};
use tests::harness::customer::now_seconds;
use tests::harness::desk::{SOON, text};
use tests::harness::vendor::{refused, reply, template};
use tests::harness::wait::eventually;
use tests::harness::world::World;
use tests::vendors::meta::{Meta, whatsapp_message};
use tests::vendors::twilio::Twilio;

const NUMBER: &str = "+15554440001";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// So long WhatsApp's window is open still when its message comes.
const OPEN_MS: i64 = 10_000;

pub async fn run(world: &World) -> Result<()> {
    let public = &world.public[0];
    let meta = Meta::start(world.vendor_port("ways-wa")?, public).await?;
    let (line, phone) = (
        Twilio::start(world.vendor_port("ways-line")?, public).await?,
        Twilio::start(world.vendor_port("ways-sms")?, public).await?,
    );
    let mut chat = it_begins_in_chat(world).await?;
    let ticket = joined(world, 1).await?;

    // Meta has tried for nearly a day to bring it.
    let (body, ago_ms) = (json!({ "body": "My bike squeaks" }), DAY_MS - OPEN_MS);
    let message = whatsapp_message("wamid.ways1", &NUMBER[1..], "text", &body, ago_ms);
    ensure!(meta.post("ways-wa", &message).await? == 200, "Meta is not content");
    joined(world, 2).await?;

    let sid = format!("CA{:032}", 801);
    for status in ["ringing", "completed"] {
        let form = line.call(&sid, NUMBER, status);
        let form = match status {
            "completed" => form.with(&[("CallDuration", "4"), ("SequenceNumber", "2")]),
            _ => form,
        };
        let answer = line.post("ways-line", &form).await?;
        ensure!((200..300).contains(&answer.status), "{answer:?}");
    }
    joined(world, 3).await?;

    let form = phone.text(&format!("SM{:032}", 801), NUMBER, "I have just called");
    Twilio::understand(&phone.post("ways-sms", &form).await?)?;
    let last = joined(world, 4).await?;
    ensure!(last["number"] == ticket["number"], "another ticket: {last}");

    let ways = conversations(&last)?;
    is_one_person(world, &last, &ways).await?;
    for (way, conversation) in ways.iter().enumerate() {
        let key = format!("ways-{way}");
        match way {
            1 => the_window_closes(world, conversation, &key).await?,
            _ => drop(world.desk.reply(conversation, &key, "We look after it.").await?),
        }
    }
    // His own words are shown first.
    while chat.frame("message").await?["text"] != "We look after it." {}
    eventually("each way has its answer", SOON * 2, async || {
        let is_written = |message: &Value| message["to"] == NUMBER[1..] && message["type"] == "template";
        let written = meta.messages().iter().any(is_written);
        let is_to = |form: &tests::vendors::twilio::Form| form.get("To") == Some(NUMBER);
        let (called, sent) = (line.calls().iter().any(is_to), phone.messages().iter().any(is_to));
        ensure!(written && called && sent, "{written} {called} {sent}");
        Ok(Some(()))
    })
    .await
    .with_context(|| {
        format!(
            "refused: {:?} {:?} {:?}",
            meta.refusals(),
            line.refusals(),
            phone.refusals()
        )
    })
}

async fn it_begins_in_chat(world: &World) -> Result<Socket> {
    let claims = json!({ "sub": "many-ways", "exp": now_seconds()? + 600, "name": "Zoë", "phone_number": NUMBER });
    let mut chat = Socket::open(&world.public[0], "ways", None).await?;
    chat.hello(&json!({ "type": "hello", "jwt": jwt(&claims) })).await?;
    chat.resume(None).await?;
    chat.send("1", "Have you read what I wrote?").await?;
    Ok(chat)
}

/// The desk says so before the agent writes, and offers the template.
async fn the_window_closes(world: &World, conversation: &str, key: &str) -> Result<()> {
    let path = format!("/v1/conversations/{conversation}");
    let way = eventually("the window has closed", SOON, async || {
        let way = world.desk.get(&path).await?["reachable"][0].clone();
        Ok((way["open"] == false).then_some(way))
    })
    .await?;
    ensure!(way["account"] == "ways-wa" && way["window"].is_string(), "{way}");
    ensure!(
        way["templates"] == true && way["outside_window"] == "an approved template",
        "{way}"
    );
    let own_words = json!({ "text": "We look after it." });
    refused(world, conversation, key, &own_words, "reply_window_closed").await?;
    let body = json!({ "template": template(&["Zoë", "42"]), "text": "We look after it." });
    reply(world, conversation, &format!("{key}-template"), &body).await?;
    Ok(())
}

/// The only ticket of the queue, when it has so many conversations.
async fn joined(world: &World, ways: usize) -> Result<Value> {
    eventually(&format!("one ticket with {ways} conversations"), SOON, async || {
        let tickets = world.desk.tickets("ways").await?;
        let [ticket] = tickets.as_slice() else {
            anyhow::bail!("{} tickets", tickets.len());
        };
        let ticket = world.desk.show(text(ticket, "number")?).await?;
        Ok((conversations(&ticket)?.len() == ways).then_some(ticket))
    })
    .await
}

fn conversations(ticket: &Value) -> Result<Vec<String>> {
    let all = ticket["conversations"].as_array().context("no conversations")?;
    Ok(all.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect())
}

async fn is_one_person(world: &World, ticket: &Value, ways: &[String]) -> Result<()> {
    let mut accounts = Vec::new();
    for way in ways {
        let conversation = world.desk.get(&format!("/v1/conversations/{way}")).await?;
        ensure!(
            conversation["contact_id"] == ticket["contact_id"],
            "another contact: {conversation}"
        );
        accounts.push(text(&conversation, "account")?.to_owned());
    }
    let expected = ["ways", "ways-wa", "ways-line", "ways-sms"];
    ensure!(accounts == expected, "{accounts:?}");
    let number = text(ticket, "number")?;
    let messages = world.desk.list(&format!("/v1/tickets/{number}/messages")).await?;
    let said: Vec<_> = messages
        .iter()
        .map(|message| message["account"].as_str().unwrap_or_default())
        .collect();
    let in_time = ["ways-wa", "ways", "ways-line", "ways-sms"];
    ensure!(said == in_time, "not in the order of time: {messages:?}");
    Ok(())
}
