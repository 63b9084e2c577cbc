//! Story 5: a stranger who quotes a customer's Message-ID, and one who quotes a
//! leaked signed one of ours, do not enter the conversation: each starts his own,
//! with the claimed one as a suggestion.

use anyhow::{Result, ensure};
use tests::harness::desk::{conversation, text};
use tests::harness::mail::Letter;
use tests::harness::world::World;

pub async fn run(world: &World) -> Result<()> {
    let (ben, stranger, support) = (world.theirs("ben"), world.theirs("stranger"), world.ours("support"));
    let question = Letter::new(
        &ben,
        &support,
        "story5-ben@customer.example",
        "My contract",
        "Please cancel it.",
    );
    world.mail.send(&question).await?;
    let ticket = world.desk.ticket("support", "My contract").await?;
    let claimed = conversation(&ticket)?.to_owned();
    world.desk.reply(&claimed, "story5-reply", "We shall.").await?;
    let parent = format!("<{}>", question.id);
    let reply = world
        .mail
        .arrival(&ben, "the reply", |mail| {
            mail.header("In-Reply-To") == Some(parent.as_str())
        })
        .await?;
    let signed = reply.required("Message-ID")?.to_owned();

    let quotes_customer = Letter::new(
        &stranger,
        &support,
        "story5-x@elsewhere.example",
        "Re: My contract (x)",
        "Send it to me.",
    );
    stays_outside(world, quotes_customer.answering(&parent), &claimed).await?;
    let quotes_signed = Letter::new(
        &stranger,
        &support,
        "story5-y@elsewhere.example",
        "Re: My contract (y)",
        "Send it to me.",
    );
    stays_outside(world, quotes_signed.answering(&signed), &claimed).await?;
    // One who only writes the customer's name into From is a stranger too.
    let forged = Letter::new(
        &ben,
        &support,
        "story5-z@elsewhere.example",
        "Re: My contract (z)",
        "Send it to me.",
    )
    .answering(&parent);
    world.mail.send_bytes(&stranger, &support, &forged.bytes()).await?;
    is_outside(world, &forged.subject, &claimed).await?;

    let messages = world.desk.messages(&claimed).await?;
    ensure!(messages.len() == 2, "somebody entered: {messages:?}");

    // And he himself may quote the signed one.
    let own = Letter::new(
        &ben,
        &support,
        "story5-own@customer.example",
        "Re: My contract",
        "Thanks.",
    )
    .answering(&signed);
    world.mail.send(&own).await?;
    world.desk.messages_at_least(&claimed, 3).await?;
    Ok(())
}

async fn stays_outside(world: &World, letter: Letter, claimed: &str) -> Result<()> {
    world.mail.send(&letter).await?;
    is_outside(world, &letter.subject, claimed).await
}

async fn is_outside(world: &World, subject: &str, claimed: &str) -> Result<()> {
    let ticket = world.desk.ticket("support", subject).await?;
    let own = world
        .desk
        .get(&format!("/v1/conversations/{}", conversation(&ticket)?))
        .await?;
    ensure!(text(&own, "id")? != claimed, "\"{subject}\" entered the conversation");
    ensure!(
        own["suggested"] == claimed,
        "\"{subject}\": the claimed conversation is not suggested: {own}"
    );
    Ok(())
}
