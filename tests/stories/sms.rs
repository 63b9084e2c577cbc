//! Customers send text messages and get answers: with files, delivery states,
//! consent, and a vendor that fails, repeats and mixes up the order.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::vendor::{delivered, mend};
use tests::harness::wait::{eventually, until};
use tests::harness::world::World;
use tests::vendors::Mood;
use tests::vendors::twilio::{ACCOUNT_SID, Form, OUR_NUMBER, PICTURE, Twilio};

pub async fn run(world: &World) -> Result<()> {
    let twilio = Twilio::start(world.vendor_port("phone")?, &world.public[0]).await?;
    let asked = a_message_comes_ten_times(world, &twilio).await?;
    it_is_answered_and_arrives(world, &twilio, &asked).await?;
    long_answers_and_files(world, &twilio, &asked).await?;
    twilio_is_busy_and_fails(world, &twilio, &asked).await?;
    an_answer_fails(world, &twilio).await?;
    nobody_knows_whether_it_left(world, &twilio).await?;
    a_file_comes(world, &twilio).await?;
    stop_and_start(world, &twilio).await?;
    a_wrong_token_is_mended(world, &twilio).await?;
    the_account_is_tried_out(world, &twilio).await
}

/// A customer writes; the conversation that comes of it.
async fn ask(world: &World, twilio: &Twilio, sid: u32, from: &str, body: &str) -> Result<String> {
    let sid = format!("SM{sid:032}");
    let answer = twilio.post("phone", &twilio.text(&sid, from, body)).await?;
    Twilio::understand(&answer)?;
    ensure!(
        answer.body.contains("<Response/>"),
        "it says something: {}",
        answer.body
    );
    let ticket = world.desk.ticket("phone", body).await?;
    Ok(conversation(&ticket)?.to_owned())
}

async fn a_message_comes_ten_times(world: &World, twilio: &Twilio) -> Result<String> {
    let conversation = ask(world, twilio, 1, "+15552220001", "Grüße! Where is my bike? 🚲").await?;
    let again = twilio.text(&format!("SM{:032}", 1), "+15552220001", "Grüße! Where is my bike? 🚲");
    for _ in 0..10 {
        Twilio::understand(&twilio.post("phone", &again).await?)?;
    }
    let second = twilio.text(&format!("SM{:032}", 2), "+15552220001", "Hello?");
    Twilio::understand(&twilio.post("phone", &second).await?)?;
    let messages = world.desk.messages_at_least(&conversation, 2).await?;
    ensure!(messages.len() == 2, "{messages:?}");
    ensure!(messages[0]["sender"]["verified"] == true, "{:?}", messages[0]);
    Ok(conversation)
}

/// What Twilio took last, as soon as it has this many.
async fn taken(twilio: &Twilio, count: usize) -> Result<Form> {
    eventually(&format!("{count} messages at Twilio"), SOON * 2, async || {
        let messages = twilio.messages();
        Ok((messages.len() >= count).then(|| messages.last().cloned()).flatten())
    })
    .await
    .with_context(|| format!("refused: {:?}", twilio.refusals()))
}

async fn it_is_answered_and_arrives(world: &World, twilio: &Twilio, asked: &str) -> Result<()> {
    let before = twilio.messages().len();
    let reply = world.desk.reply(asked, "sms-1", "It is on its way.").await?;
    let message = taken(twilio, before + 1).await?;
    ensure!(message.get("To") == Some("+15552220001"), "{message:?}");
    ensure!(message.get("Body") == Some("It is on its way."), "{message:?}");
    // In the wrong order, and more than once.
    for status in ["queued", "delivered", "sent", "delivered", "sending"] {
        let answer = twilio.report(&message, status, None).await?;
        ensure!((200..300).contains(&answer.status), "{status}: {answer:?}");
    }
    delivered(world, &reply, "delivered").await?;
    twilio.report(&message, "read", None).await?;
    let message = delivered(world, &reply, "read").await?;
    let ids = message["external_ids"].to_string();
    ensure!(ids.contains("SM"), "{ids}");
    Ok(())
}

async fn long_answers_and_files(world: &World, twilio: &Twilio, asked: &str) -> Result<()> {
    let before = twilio.messages().len();
    let sentence = "This sentence is one of very many. ";
    let reply = world.desk.reply(asked, "sms-2", sentence.repeat(60).trim_end()).await?;
    taken(twilio, before + 2).await?;
    let parts = twilio.messages().split_off(before);
    let ends = |form: &Form| form.get("Body").is_some_and(|body| body.ends_with("many."));
    ensure!(parts.iter().all(ends), "not cut at sentences: {parts:?}");
    twilio.report(&parts[0], "delivered", None).await?;
    delivered(world, &reply, "sent").await?;
    twilio.report(&parts[1], "delivered", None).await?;
    delivered(world, &reply, "delivered").await?;

    let path = format!("/v1/conversations/{asked}/replies");
    let file = json!({ "name": "map.txt", "media_type": "text/plain", "content": "aGVsbG8=" });
    let body = json!({ "text": "See here.", "attachments": [file] });
    let (status, reply) = world.desk.post(&path, "sms-3", &body).await?;
    ensure!(status == 201, "{status} {reply}");
    let message = taken(twilio, before + 3).await?;
    let url = message.get("MediaUrl").context("no MediaUrl")?;
    let fetched = reqwest::get(url).await?;
    ensure!(fetched.status().is_success(), "{}", fetched.status());
    ensure!(fetched.bytes().await? == "hello", "other bytes");
    let elsewhere = reqwest::get(url.replace("/files/", "/files/0")).await?;
    ensure!(elsewhere.status() == 404, "{}", elsewhere.status());
    delivered(world, &reply, "sent").await?;
    Ok(())
}

async fn twilio_is_busy_and_fails(world: &World, twilio: &Twilio, asked: &str) -> Result<()> {
    let before = twilio.messages().len();
    twilio.moods.will([Mood::Busy { retry_after_s: 1 }, Mood::Fails(500)]);
    let reply = world.desk.reply(asked, "sms-4", "Patience!").await?;
    taken(twilio, before + 1).await?;
    delivered(world, &reply, "sent").await?;
    ensure!(twilio.messages().len() == before + 1, "it left twice");
    Ok(())
}

async fn an_answer_fails(world: &World, twilio: &Twilio) -> Result<()> {
    let asked = ask(world, twilio, 10, "+15552220010", "I have a landline").await?;
    let before = twilio.messages().len();
    let reply = world.desk.reply(&asked, "sms-10", "Can you read this?").await?;
    let message = taken(twilio, before + 1).await?;
    twilio.report(&message, "undelivered", Some("30006")).await?;
    let message = delivered(world, &reply, "failed").await?;
    let error = text(&message, "delivery_error")?;
    ensure!(error.contains("landline") && error.contains("30006"), "{error}");

    twilio.opt_out("+15552220010");
    let reply = world.desk.reply(&asked, "sms-11", "And now?").await?;
    let message = delivered(world, &reply, "failed").await?;
    let error = text(&message, "delivery_error")?;
    ensure!(error.contains("opted out"), "{error}");
    Ok(())
}

/// Twilio takes the message and never answers: its report tells.
async fn nobody_knows_whether_it_left(world: &World, twilio: &Twilio) -> Result<()> {
    let asked = ask(world, twilio, 20, "+15552220020", "Is anybody there at all?").await?;
    let before = twilio.messages().len();
    twilio.moods.will([Mood::Stalls]);
    let reply = world.desk.reply(&asked, "sms-20", "Yes.").await?;
    let message = taken(twilio, before + 1).await?;
    twilio.report(&message, "delivered", None).await?;
    delivered(world, &reply, "delivered").await?;
    Ok(())
}

async fn a_file_comes(world: &World, twilio: &Twilio) -> Result<()> {
    let port = world.vendor_port("phone")?;
    let sid = format!("MM{:032}", 30);
    let url = format!("http://127.0.0.1:{port}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{sid}/Media/ME1");
    let form = twilio.text(&sid, "+15552220030", "Look at this").with(&[
        ("NumMedia", "1"),
        ("MediaUrl0", &url),
        ("MediaContentType0", "image/png"),
    ]);
    Twilio::understand(&twilio.post("phone", &form).await?)?;
    let ticket = world.desk.ticket("phone", "Look at this").await?;
    let messages = world.desk.messages_at_least(conversation(&ticket)?, 1).await?;
    ensure!(messages[0]["attachments"][0]["name"] == "file-1.png", "{messages:?}");
    let path = format!("/v1/messages/{}", text(&messages[0], "id")?);
    let sha256 = eventually("the picture is here", SOON * 2, async || {
        let message = world.desk.get(&path).await?;
        let sha256 = text(&message["attachments"][0], "sha256")?.to_owned();
        Ok((!sha256.is_empty()).then_some(sha256))
    })
    .await?;
    let bytes = world.desk.get_bytes(&format!("{path}/attachments/{sha256}")).await?;
    ensure!(bytes == PICTURE, "other bytes");
    Ok(())
}

async fn stop_and_start(world: &World, twilio: &Twilio) -> Result<()> {
    let from = "+15552220040";
    let asked = ask(world, twilio, 40, from, "What do you sell?").await?;
    let stop = twilio
        .text(&format!("SM{:032}", 41), from, "Stop")
        .with(&[("OptOutType", "STOP")]);
    Twilio::understand(&twilio.post("phone", &stop).await?)?;
    let path = format!("/v1/conversations/{asked}");
    let consent = async |given: bool| {
        until("the contact's word counts", SOON, async || {
            Ok(world.desk.get(&path).await?["consent"]["given"] == given)
        })
        .await
    };
    consent(false).await?;
    let replies = format!("{path}/replies");
    let (status, refusal) = world
        .desk
        .post(&replies, "sms-40", &json!({ "text": "Bikes!" }))
        .await?;
    ensure!(
        (status, &refusal["code"]) == (409, &json!("opted_out")),
        "{status} {refusal}"
    );
    // What was said before it, said again, changes nothing.
    Twilio::understand(&twilio.post("phone", &stop).await?)?;
    let start = twilio.text(&format!("SM{:032}", 42), from, "START");
    Twilio::understand(&twilio.post("phone", &start).await?)?;
    consent(true).await?;
    let before = twilio.messages().len();
    world.desk.reply(&asked, "sms-41", "Bikes!").await?;
    taken(twilio, before + 1).await?;
    let messages = world.desk.messages(&asked).await?;
    let said: Vec<_> = messages
        .iter()
        .filter(|message| message["automatic"] == "command")
        .collect();
    ensure!(said.len() == 2, "STOP and START are kept: {messages:?}");
    Ok(())
}

/// The settings have a wrong token: what Twilio signs is kept, and released when the
/// token is mended.
async fn a_wrong_token_is_mended(world: &World, twilio: &Twilio) -> Result<()> {
    let body = "You never answer";
    let form = twilio.text(&format!("SM{:032}", 50), "+15552220050", body);
    for _ in 0..3 {
        let answer = twilio.post("mended", &form).await?;
        ensure!(answer.status == 401, "{answer:?}");
    }
    mend(world, "mended", tests::vendors::twilio::TOKEN).await?;
    world.desk.ticket("mended", body).await?;
    Ok(())
}

async fn the_account_is_tried_out(world: &World, twilio: &Twilio) -> Result<()> {
    let said = tokio::time::timeout(Duration::from_secs(30), world.command(&["check", "--live", "phone"])).await??;
    ensure!(said.contains("is active") && said.contains(OUR_NUMBER), "{said}");
    let set = twilio.number();
    let url = format!("{}/in/phone", world.public[0]);
    ensure!(set.get("SmsUrl") == Some(&url), "{set:?}");
    Ok(())
}
