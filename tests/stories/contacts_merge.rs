//! Two contacts are merged by an agent and parted again: the same as before.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::customer::message;
use tests::harness::desk::{conversation, text};
use tests::harness::mail::Letter;
use tests::harness::world::World;

/// A contact and what came of its message.
struct Known {
    contact: String,
    conversation: String,
    ticket: String,
}

pub async fn run(world: &World) -> Result<()> {
    let subject = "My order (merge)";
    let body = message("hanna@elsewhere.example", subject, "Where is it?");
    let answer = world.sender("hooks")?.send("merge-1", &body).await?;
    ensure!((200..300).contains(&answer.status), "answered {}", answer.status);
    let one = known(world, "hooks", subject).await?;
    let subject = "My order, once more (merge)";
    let letter = Letter::new(
        &world.theirs("hanna"),
        &world.ours("support"),
        "merge-2@customer.example",
        subject,
        "Where is it?",
    );
    world.mail.send(&letter).await?;
    let other = known(world, "support", subject).await?;
    let both = [&one, &other];
    let before = seen(world, both).await?;

    let path = format!("/v1/contacts/{}/merge", other.contact);
    let because = json!({ "other": one.contact, "reason": "The same order." });
    let (status, merged) = world.desk.post(&path, "merge-key", &because).await?;
    ensure!(status == 200, "{status} {merged}");
    let merge = &merged["merges"][0];
    let evidence = &merge["evidence"];
    ensure!(
        evidence["type"] == "person" && evidence["reason"] == "The same order.",
        "{merge}"
    );
    for known in both {
        let contact = world.desk.get(&format!("/v1/contacts/{}", known.contact)).await?;
        ensure!(contact == merged, "another person: {contact}");
        let ticket = world.desk.show(&known.ticket).await?;
        ensure!(ticket["contact_id"] == merged["id"], "another contact: {ticket}");
        let conversations = ticket["contact_conversations"].as_array().context("no conversations")?;
        ensure!(conversations.len() >= 2, "{conversations:?}");
    }

    let path = format!("/v1/contacts/{}/part", one.contact);
    let part = json!({ "merge": text(merge, "id")?, "reason": "Two orders." });
    let (status, parted) = world.desk.post(&path, "part-key", &part).await?;
    ensure!(status == 200, "{status} {parted}");
    let after = seen(world, both).await?;
    ensure!(after == before, "before {before}\nafter {after}");
    // The repeat of the merge is that repeat, and merges nothing.
    let path = format!("/v1/contacts/{}/merge", other.contact);
    let (status, again) = world.desk.post(&path, "merge-key", &because).await?;
    ensure!((status, &again) == (200, &merged), "{status} {again}");
    ensure!(seen(world, both).await? == before, "a repeat has merged them");
    Ok(())
}

async fn known(world: &World, queue: &str, subject: &str) -> Result<Known> {
    let ticket = world.desk.ticket(queue, subject).await?;
    Ok(Known {
        contact: text(&ticket, "contact_id")?.to_owned(),
        conversation: conversation(&ticket)?.to_owned(),
        ticket: text(&ticket, "number")?.to_owned(),
    })
}

/// All that the desk shows of them, but for the merges that were and the clocks.
async fn seen(world: &World, all: [&Known; 2]) -> Result<Value> {
    let mut seen = Vec::new();
    for known in all {
        let mut contact = world.desk.get(&format!("/v1/contacts/{}", known.contact)).await?;
        contact["merges"].take();
        seen.push(contact);
        let path = format!("/v1/conversations/{}", known.conversation);
        seen.push(world.desk.get(&path).await?);
        let mut ticket = world.desk.show(&known.ticket).await?;
        ticket["clocks"].take();
        seen.push(ticket);
        let tickets = world
            .desk
            .list(&format!("/v1/tickets?contact={}", known.contact))
            .await?;
        seen.push(tickets.iter().map(|ticket| ticket["number"].clone()).collect());
    }
    Ok(Value::Array(seen))
}
