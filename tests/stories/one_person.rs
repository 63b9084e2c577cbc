//! A visitor gives an address and leaves. The agent's answer goes by mail, as a
//! conversation of its own on the same ticket, which the chat never shows; the
//! customer answers the mail, and its token verifies the address: one contact, one
//! ticket, two conversations. A stranger who merely claims the address joins nothing.
//! Another opens the link in such a mail instead: it goes on with the chat, on any
//! gateway, and verifies the address as soon as something is said; what it joined can
//! be parted.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::chat::Socket;
use tests::harness::desk::{SOON, conversation, text};
use tests::harness::mail::{Letter, Received};
use tests::harness::wait::until;
use tests::harness::world::World;

pub async fn run(world: &World) -> Result<()> {
    let gina = world.theirs("gina");
    // She has written before, by mail, about something else.
    let earlier = Letter::new(
        &gina,
        &world.ours("sales"),
        "person-0@customer.example",
        "An offer",
        "Please.",
    );
    world.mail.send(&earlier).await?;
    let earlier = world.desk.ticket("sales", "An offer").await?;

    let question = "Does it come in red? (person)";
    let (session, chat) = ask(world, &gina, question).await?;
    let ticket = world.desk.ticket("help", question).await?;
    let number = text(&ticket, "number")?;
    ensure!(
        ticket["contact_id"] != earlier["contact_id"],
        "a claim has joined contacts"
    );
    let mail = answered_by_mail(world, &chat, "person-1", "Yes, it does.").await?;
    let letter = world
        .mail
        .arrival(&gina, "the answer", |mail| mail.header("Subject") == Some(question))
        .await?;
    ensure!(
        letter.text.lines().next() == Some("Yes, it does."),
        "another text: {}",
        letter.text
    );
    ensure!(letter.header("In-Reply-To").is_none(), "it answers no mail");

    let answer = Letter::new(
        &gina,
        &world.ours("support"),
        "person-2@customer.example",
        "Re: red",
        "Then two.",
    );
    let answer = answer.answering(letter.required("Message-ID")?);
    world.mail.send(&answer).await?;
    world.desk.messages_at_least(&mail, 2).await?;
    is_one(world, number, [&chat, &mail], &earlier).await?;
    chat_shows_its_own(world, &session, &[question]).await?;

    stranger_joins_nothing(world, &gina, number).await?;
    link_lets_in_again(world, &world.theirs("ida")).await
}

/// Somebody asks in the chat, says that this is his address, and leaves: his
/// session, and the conversation.
async fn ask(world: &World, address: &str, question: &str) -> Result<(String, String)> {
    let mut visitor = Socket::open(&world.public[0], "help", None).await?;
    let form = json!({ "name": "Gina", "email": address });
    visitor.hello(&json!({ "type": "hello", "form": form })).await?;
    visitor.send("one", question).await?;
    let session = visitor.vanish();
    let ticket = world.desk.ticket("help", question).await?;
    Ok((session, conversation(&ticket)?.to_owned()))
}

/// Answers in the chat as soon as the visitor has left: the conversation in which
/// the answer went out.
async fn answered_by_mail(world: &World, chat: &str, key: &str, answer: &str) -> Result<String> {
    until("the visitor has left", SOON, async || {
        let conversation = world.desk.get(&format!("/v1/conversations/{chat}")).await?;
        Ok(!conversation["left_at"].is_null())
    })
    .await?;
    let reply = world.desk.reply(chat, key, answer).await?;
    ensure!(reply["account"] == "support", "not by mail: {reply}");
    let mail = text(&reply, "conversation_id")?;
    ensure!(mail != chat, "a mail in the conversation of the chat");
    Ok(mail.to_owned())
}

/// One contact with an address that is verified now, one ticket, two conversations.
async fn is_one(world: &World, number: &str, conversations: [&str; 2], earlier: &Value) -> Result<()> {
    let ticket = world.desk.show(number).await?;
    ensure!(
        ticket["conversations"] == json!(conversations),
        "{}",
        ticket["conversations"]
    );
    let earlier = world.desk.show(text(earlier, "number")?).await?;
    ensure!(
        earlier["contact_id"] == ticket["contact_id"],
        "her earlier ticket is another's"
    );
    let path = format!("/v1/contacts/{}", text(&ticket, "contact_id")?);
    let contact = world.desk.get(&path).await?;
    let identities = contact["identities"].as_array().context("no identities")?;
    ensure!(
        identities.iter().all(|identity| identity["standing"] == "verified"),
        "{identities:?}"
    );
    ensure!(
        contact["merges"][0]["evidence"]["type"] == "answered",
        "{}",
        contact["merges"]
    );
    ensure!(contact["tickets"].as_array().map(Vec::len) == Some(2), "{contact}");
    let messages = world.desk.list(&format!("/v1/tickets/{number}/messages")).await?;
    let said: Vec<(&str, &str)> = messages
        .iter()
        .map(|message| Ok((text(message, "account")?, text(message, "direction")?)))
        .collect::<Result<_>>()?;
    let expected = [("help", "inbound"), ("support", "outbound"), ("support", "inbound")];
    ensure!(said == expected, "the ticket shows {said:?}");
    Ok(())
}

/// The visitor comes back and sees what was said in the chat, and nothing of the mails.
async fn chat_shows_its_own(world: &World, session: &str, texts: &[&str]) -> Result<()> {
    let gateway = world.public.last().context("no gateway")?;
    let mut visitor = Socket::visit(gateway, "help", Some(session)).await?;
    let resumed = visitor.resume(None).await?;
    ensure!(resumed["sequence"] == texts.len(), "{resumed}");
    for text in texts {
        let shown = visitor.frame("message").await?;
        ensure!(shown["text"] == *text, "{shown}");
    }
    // Nothing more stands before the next that is said.
    visitor.send("two", "I am back.").await?;
    ensure!(
        visitor.frame("message").await?["client_id"] == "two",
        "something in between"
    );
    Ok(())
}

async fn stranger_joins_nothing(world: &World, address: &str, number: &str) -> Result<()> {
    let before = world.desk.show(number).await?;
    let question = "I am she, am I not? (person)";
    let (_, chat) = ask(world, address, question).await?;
    let ticket = world.desk.ticket("help", question).await?;
    ensure!(ticket["number"] != number, "he has joined her ticket");
    let path = format!("/v1/contacts/{}", text(&ticket, "contact_id")?);
    let contact = world.desk.get(&path).await?;
    ensure!(contact["id"] != before["contact_id"], "he has joined her");
    ensure!(contact["merges"] == json!([]), "{}", contact["merges"]);
    let claimed = contact["identities"].as_array().context("no identities")?;
    ensure!(
        claimed
            .iter()
            .any(|identity| identity["standing"] == "claimed" && identity["address"] == address),
        "{claimed:?}"
    );
    // Our answer to him goes to her, and she does not answer it.
    let mail = answered_by_mail(world, &chat, "person-3", "Who knows?").await?;
    let after = world.desk.show(number).await?;
    ensure!(
        after["conversations"] == before["conversations"],
        "he has joined her ticket"
    );
    let hers = after["contact_conversations"].as_array().context("no conversations")?;
    ensure!(
        hers.iter().all(|one| one["id"] != mail && one["id"] != chat),
        "{hers:?}"
    );
    Ok(())
}

async fn link_lets_in_again(world: &World, ida: &str) -> Result<()> {
    let question = "Do you ship to the moon? (person)";
    let (_, chat) = ask(world, ida, question).await?;
    answered_by_mail(world, &chat, "person-4", "To the far side too.").await?;
    let arrival = |mail: &Received| mail.header("Subject") == Some(question);
    let letter = world.mail.arrival(ida, "the answer with a link", arrival).await?;
    let (_, link) = letter
        .text
        .split_once("https://www.example.com/help#tributary-chat=")
        .context("no link in the mail")?;
    let link = link.split_whitespace().next().unwrap_or_default();
    let shown = world.desk.get(&format!("/v1/conversations/{chat}/messages")).await?;
    ensure!(!shown.to_string().contains(link), "the desk sees the token");

    // A forged link lets nobody in, nor does it at another account.
    let gateway = world.public.last().context("no gateway")?;
    for (account, token) in [("help", &format!("x{link}")), ("chat", &link.to_owned())] {
        let mut nobody = Socket::open(gateway, account, None).await?;
        nobody.say(&json!({ "type": "hello", "link": token })).await?;
        ensure!(nobody.closed().await?.code == 4401, "{account} let somebody in");
    }

    let mut visitor = Socket::open(gateway, "help", None).await?;
    visitor.hello(&json!({ "type": "hello", "link": link })).await?;
    ensure!(visitor.resume(None).await?["sequence"] == 1, "another chat");
    ensure!(visitor.frame("message").await?["text"] == question, "another chat");
    visitor.send("back", "Then two, please.").await?;
    world.desk.messages_at_least(&chat, 2).await?;
    let ticket = world.desk.ticket("help", question).await?;
    let path = format!("/v1/contacts/{}", text(&ticket, "contact_id")?);
    let contact = world.desk.get(&path).await?;
    ensure!(stands(&contact, ida) == Some("verified"), "{}", contact["identities"]);
    let merge = &contact["merges"][0];
    ensure!(merge["evidence"]["type"] == "opened", "{}", contact["merges"]);
    // The session that the link gave goes on by itself.
    let mut again = Socket::visit(&world.public[0], "help", Some(&visitor.vanish())).await?;
    ensure!(again.resume(None).await?["sequence"] == 2, "another chat");

    let why = json!({ "merge": merge["id"], "reason": "the link was forwarded" });
    let (status, parted) = world.desk.post(&format!("{path}/part"), "person-5", &why).await?;
    ensure!(status == 200, "{status} {parted}");
    ensure!(stands(&parted, ida) == Some("claimed"), "{}", parted["identities"]);
    Ok(())
}

/// What this address is worth as the contact's.
fn stands<'a>(contact: &'a Value, address: &str) -> Option<&'a str> {
    let identities = contact["identities"].as_array()?;
    let found = identities.iter().find(|identity| identity["address"] == address)?;
    found["standing"].as_str()
}
