//! A visitor writes, loses the connection while the agent answers three times, and
//! resumes on another gateway: all three, in order, once; and the agent sees what the
//! visitor has read.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::chat::Socket;
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::wait::until;
use tests::harness::world::World;

pub async fn run(world: &World) -> Result<()> {
    let (here, there) = (&world.public[0], world.public.last().context("no gateway")?);
    let mut visitor = Socket::visit(here, "chat", None).await?;
    let first = visitor.resume(None).await?;
    ensure!(
        (&first["epoch"], &first["sequence"]) == (&Value::Null, &json!(0)),
        "{first}"
    );
    let question = "Where is my bike? (resumes)";
    let message_id = visitor.send("one", question).await?;
    // Again, as after an answer that got lost: the same message.
    ensure!(visitor.send("one", question).await? == message_id, "another message");
    let shown = visitor.frame("message").await?;
    ensure!(
        (&shown["client_id"], &shown["from"]) == (&json!("one"), &json!("visitor")),
        "{shown}"
    );
    let place = place_of(&shown)?;
    let session = visitor.vanish();

    let ticket = world.desk.ticket("chat", question).await?;
    let conversation = conversation(&ticket)?;
    let mut answers = Vec::new();
    for number in 1..=3 {
        let answer = format!("Answer {number}");
        let reply = world
            .desk
            .reply(conversation, &format!("chat-resumes-{number}"), &answer)
            .await?;
        ensure!(reply["delivery"] == "sent", "a chat sends nothing: {reply}");
        answers.push((answer, text(&reply, "id")?.to_owned()));
    }

    let mut visitor = Socket::visit(there, "chat", Some(&session)).await?;
    let resumed = visitor.resume(Some(place)).await?;
    ensure!(
        resumed["type"] == "resume" && resumed["sequence"] == place.1 + 3,
        "{resumed}"
    );
    for (index, (answer, id)) in answers.iter().enumerate() {
        let shown = visitor.frame("message").await?;
        ensure!(
            shown["text"] == *answer && shown["id"] == *id,
            "{shown} instead of {answer}"
        );
        ensure!(
            shown["from"] == "agent" && place_of(&shown)? == (place.0, place.1 + 1 + index as i64),
            "{shown}"
        );
    }
    // Nothing doubled: the next is the next that is said.
    visitor.send("two", "Thank you").await?;
    ensure!(
        visitor.frame("message").await?["client_id"] == "two",
        "something in between"
    );

    visitor.say(&json!({ "type": "read", "sequence": place.1 + 2 })).await?;
    until("the agent sees what was read", SOON, async || {
        let mut read = Vec::new();
        for (_, id) in &answers {
            read.push(world.desk.get(&format!("/v1/messages/{id}")).await?["delivery"] == "read");
        }
        ensure!(!read[2], "the third was not read");
        Ok(read[0] && read[1])
    })
    .await?;
    let messages = world.desk.messages(conversation).await?;
    ensure!(messages.len() == 5, "{} messages", messages.len());
    // A reply while he looks shows at once.
    world
        .desk
        .reply(conversation, "chat-resumes-4", "You are welcome")
        .await?;
    ensure!(
        visitor.frame("message").await?["text"] == "You are welcome",
        "another message"
    );
    Ok(())
}

fn place_of(shown: &Value) -> Result<(i64, i64)> {
    let number = |name: &str| shown[name].as_i64().with_context(|| format!("no {name} in {shown}"));
    Ok((number("epoch")?, number("sequence")?))
}
