//! Customers call: a call is one message whose state moves on, in whatever order
//! Twilio tells of it; a voicemail is its attachment; an answer is spoken.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::vendor::mend;
use tests::harness::wait::eventually;
use tests::harness::world::World;
use tests::vendors::Mood;
use tests::vendors::twilio::{ACCOUNT_SID, Form, RECORDING, TOKEN, Twilio};

pub async fn run(world: &World) -> Result<()> {
    let twilio = Twilio::start(world.vendor_port("line")?, &world.public[0]).await?;
    let asked = a_missed_call_is_a_ticket(world, &twilio).await?;
    order_changes_nothing(world, &twilio).await?;
    an_answered_call_is_none(world, &twilio).await?;
    the_answer_is_spoken(world, &twilio, &asked).await?;
    a_hidden_number_is_nobodys(world, &twilio).await?;
    the_caller_also_writes(world, &twilio, &asked).await?;
    a_wrong_token_is_mended(world, &twilio).await?;
    let said = world.command(&["check", "--live", "line"]).await?;
    ensure!(said.contains("is active"), "{said}");
    let url = format!("{}/in/line", world.public[0]);
    ensure!(twilio.number().get("VoiceUrl") == Some(&url), "{:?}", twilio.number());
    Ok(())
}

fn recording(world: &World, call_sid: &str, sid: &str) -> Result<Form> {
    let port = world.vendor_port("line")?;
    let url = format!("http://127.0.0.1:{port}/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/{sid}");
    Ok(Form::default().with(&[
        ("AccountSid", ACCOUNT_SID),
        ("CallSid", call_sid),
        ("RecordingDuration", "7"),
        ("RecordingSid", sid),
        ("RecordingStatus", "completed"),
        ("RecordingUrl", &url),
    ]))
}

/// All that Twilio tells of one call that ends with a voicemail, in order.
fn events(world: &World, twilio: &Twilio, number: u32, from: &str) -> Result<Vec<Form>> {
    let sid = format!("CA{number:032}");
    let recording_sid = format!("RE{number:032}");
    let completed = twilio.call(&sid, from, "completed").with(&[
        ("CallDuration", "42"),
        ("CallbackSource", "call-progress-events"),
        ("SequenceNumber", "3"),
        ("Timestamp", "Tue, 24 Nov 2026 10:00:42 +0000"),
    ]);
    let transcription = twilio.call(&sid, from, "completed").with(&[
        ("RecordingSid", &recording_sid),
        ("TranscriptionSid", &format!("TR{number:032}")),
        ("TranscriptionStatus", "completed"),
        ("TranscriptionText", "Hello, where is my bike?"),
    ]);
    Ok(vec![
        twilio.call(&sid, from, "ringing"),
        completed,
        recording(world, &sid, &recording_sid)?,
        transcription,
    ])
}

/// The only message of a conversation, when all is known of its call.
async fn known(world: &World, conversation: &str) -> Result<Value> {
    let message = eventually("all of the call is known", SOON * 2, async || {
        let messages = world.desk.messages(conversation).await?;
        ensure!(messages.len() == 1, "one call is one message: {messages:?}");
        let call = &messages[0]["call"];
        let files = messages[0]["attachments"].as_array().map_or(0, Vec::len);
        let is_known = call["state"] == "completed" && call["transcription"].is_string() && files == 1;
        ensure!(is_known, "{:?}", messages[0]);
        let is_here = messages[0]["attachments"][0]["sha256"] != "";
        Ok(is_here.then(|| messages[0].clone()))
    })
    .await?;
    let call = &message["call"];
    ensure!(call["duration_s"] == 42 && call["missed"] == true, "{call}");
    ensure!(call["transcription"] == "Hello, where is my bike?", "{call}");
    let sha256 = text(&message["attachments"][0], "sha256")?;
    let path = format!("/v1/messages/{}", text(&message, "id")?);
    let bytes = world.desk.get_bytes(&format!("{path}/attachments/{sha256}")).await?;
    ensure!(bytes == RECORDING, "another voice");
    let history = world.desk.get(&format!("{path}/history")).await?;
    let changes = history["changes"].as_array().context("no changes")?;
    ensure!(changes.len() == 4, "each event counts once: {history}");
    Ok(message)
}

async fn a_missed_call_is_a_ticket(world: &World, twilio: &Twilio) -> Result<String> {
    let from = "+15553330001";
    let events = events(world, twilio, 1, from)?;
    let answer = twilio.post("line", &events[0]).await?;
    Twilio::understand(&answer)?;
    for expected in [
        "Welcome to Tributary &amp; friends.",
        "<Record ",
        "/in/line?then=recorded",
        "transcribeCallback",
    ] {
        ensure!(answer.body.contains(expected), "{expected}: {}", answer.body);
    }
    let subject = format!("Call from {from} to +15550001111");
    let ticket = world.desk.ticket("line", &subject).await?;
    let conversation = conversation(&ticket)?;
    eventually("it rings", SOON, async || {
        let messages = world.desk.messages(conversation).await?;
        Ok((messages[0]["call"]["state"] == "ringing").then_some(()))
    })
    .await?;
    for event in &events {
        for _ in 0..10 {
            let answer = twilio.post("line", event).await?;
            ensure!((200..300).contains(&answer.status), "{answer:?}");
        }
    }
    known(world, conversation).await?;
    Ok(conversation.to_owned())
}

async fn order_changes_nothing(world: &World, twilio: &Twilio) -> Result<()> {
    let from = "+15553330002";
    let mut events = events(world, twilio, 2, from)?;
    events.reverse();
    for event in &events {
        let answer = twilio.post("line", event).await?;
        ensure!((200..300).contains(&answer.status), "{answer:?}");
    }
    let subject = format!("Call from {from} to +15550001111");
    let ticket = world.desk.ticket("line", &subject).await?;
    known(world, conversation(&ticket)?).await?;
    Ok(())
}

/// A rule says so; what it asks is known when the call has ended.
async fn an_answered_call_is_none(world: &World, twilio: &Twilio) -> Result<()> {
    let from = "+15553330005";
    for (number, status) in [(5, "completed"), (6, "no-answer")] {
        let sid = format!("CA{number:032}");
        let rings = twilio.call(&sid, from, "ringing");
        let answer = twilio.post("hotline", &rings).await?;
        Twilio::understand(&answer)?;
        ensure!(answer.body.contains("/in/hotline?then=dialled"), "{}", answer.body);
        let dialled = twilio
            .call(&sid, from, "in-progress")
            .with(&[("DialCallStatus", status)]);
        let url = format!("{}/in/hotline?then=dialled", world.public[0]);
        for _ in 0..2 {
            Twilio::understand(&twilio.post_to(&url, &dialled, TOKEN).await?)?;
        }
    }
    let ticket = world
        .desk
        .ticket("hotline", &format!("Call from {from} to +15550001111"))
        .await?;
    let messages = world.desk.messages_at_least(conversation(&ticket)?, 2).await?;
    let missed: Vec<_> = messages
        .iter()
        .map(|message| message["call"]["missed"].clone())
        .collect();
    ensure!(missed == [false, true], "{messages:?}");
    Ok(())
}

async fn the_answer_is_spoken(world: &World, twilio: &Twilio, asked: &str) -> Result<()> {
    let moods = [Mood::Busy { retry_after_s: 1 }, Mood::Fails(500), Mood::Stalls];
    let ends = [
        ("completed", "delivered"),
        ("busy", "failed"),
        ("completed", "delivered"),
    ];
    for (number, (mood, (status, expected))) in moods.into_iter().zip(ends).enumerate() {
        twilio.moods.will([mood]);
        let reply = world
            .desk
            .reply(asked, &format!("voice-{number}"), "Your bike & you are well.")
            .await?;
        let call = eventually("a call back", SOON * 2, async || {
            Ok(twilio.calls().get(number).cloned())
        })
        .await?;
        let twiml = call.get("Twiml").context("no Twiml")?;
        ensure!(twiml.contains("Your bike &amp; you are well."), "{twiml}");
        ensure!(call.get("To") == Some("+15553330001"), "{call:?}");
        let callback = call.get("StatusCallback").context("no StatusCallback")?;
        for status in ["initiated", "ringing", status, status] {
            let sid = call.get("CallSid").unwrap_or_default();
            let form = twilio
                .call(sid, "+15550001111", status)
                .with(&[("Direction", "outbound-api")]);
            let answer = twilio.post_to(callback, &form, TOKEN).await?;
            ensure!((200..300).contains(&answer.status), "{answer:?}");
        }
        let path = format!("/v1/messages/{}", text(&reply, "id")?);
        eventually(&format!("the answer is {expected}"), SOON, async || {
            let message = world.desk.get(&path).await?;
            Ok((message["delivery"] == expected).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn a_hidden_number_is_nobodys(world: &World, twilio: &Twilio) -> Result<()> {
    for number in [3, 4] {
        let call = twilio.call(&format!("CA{number:032}"), "+266696687", "ringing");
        Twilio::understand(&twilio.post("line", &call).await?)?;
    }
    let subject = "Call from a hidden number to +15550001111";
    eventually("two tickets of two callers", SOON, async || {
        let tickets = world.desk.tickets("line").await?;
        let hidden = tickets.iter().filter(|ticket| ticket["subject"] == subject);
        let contacts: std::collections::BTreeSet<String> =
            hidden.map(|ticket| ticket["contact_id"].to_string()).collect();
        Ok((contacts.len() == 2).then_some(()))
    })
    .await
}

/// Whoever calls and writes from one number is one contact.
async fn the_caller_also_writes(world: &World, twilio: &Twilio, asked: &str) -> Result<()> {
    let body = "I have just called you";
    let form = twilio.text(&format!("SM{:032}", 70), "+15553330001", body);
    Twilio::understand(&twilio.post("phone", &form).await?)?;
    let ticket = world.desk.ticket("phone", body).await?;
    let path = |id: &str| format!("/v1/conversations/{id}");
    let wrote = world.desk.get(&path(conversation(&ticket)?)).await?;
    let called = world.desk.get(&path(asked)).await?;
    ensure!(
        wrote["contact_id"] == called["contact_id"],
        "two contacts: {wrote} {called}"
    );
    Ok(())
}

/// The settings have a wrong token: what Twilio signs is kept, and released when the
/// token is mended. The caller has heard nothing; that he called is known.
async fn a_wrong_token_is_mended(world: &World, twilio: &Twilio) -> Result<()> {
    let from = "+15553330080";
    let call = twilio.call(&format!("CA{:032}", 80), from, "ringing");
    for _ in 0..3 {
        let answer = twilio.post("line-mended", &call).await?;
        ensure!(answer.status == 401, "{answer:?}");
    }
    mend(world, "line-mended", TOKEN).await?;
    let subject = format!("Call from {from} to +15550001111");
    world.desk.ticket("line-mended", &subject).await?;
    Ok(())
}
