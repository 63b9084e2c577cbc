//! Story 3: the same mail to two mailboxes, and the same webhook a hundred times
//! at once over two gateways: one message, one ticket.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use tests::harness::customer::{Sender, message};
use tests::harness::desk::conversation;
use tests::harness::mail::Letter;
use tests::harness::world::World;

const TIMES: usize = 100;

pub async fn run(world: &World) -> Result<()> {
    same_mail_to_two_mailboxes(world).await?;
    same_webhook_a_hundred_times(world).await
}

async fn same_mail_to_two_mailboxes(world: &World) -> Result<()> {
    let subject = "To both of you";
    let both = format!("{}, {}", world.ours("support"), world.ours("sales"));
    world
        .mail
        .send(&Letter::new(
            &world.theirs("carla"),
            &both,
            "story3@customer.example",
            subject,
            "Whoever reads it.",
        ))
        .await?;
    for name in ["support", "sales"] {
        world
            .mail
            .arrival(&world.ours(name), subject, |mail| {
                mail.header("Subject") == Some(subject)
            })
            .await?;
    }
    tests::harness::wait::until("a ticket", tests::harness::desk::SOON, async || {
        Ok(!tickets(world, &["support", "sales"], subject).await?.is_empty())
    })
    .await?;
    world.quiet().await?;
    let tickets = tickets(world, &["support", "sales"], subject).await?;
    ensure!(tickets.len() == 1, "{} tickets of one mail", tickets.len());
    one_message_in(world, &tickets[0]).await
}

async fn same_webhook_a_hundred_times(world: &World) -> Result<()> {
    let subject = "Said a hundred times";
    let body = message("repeater@customer.example", subject, "Hello?");
    let senders: Vec<Sender> = world
        .public
        .iter()
        .map(|public| Sender::new(public, "hooks"))
        .collect::<Result<_>>()?;
    let posts = (0..TIMES).map(|index| senders[index % senders.len()].send("story3-hook", &body));
    for answer in try_join_all(posts).await? {
        ensure!(
            (200..300).contains(&answer.status),
            "answered {} {}",
            answer.status,
            answer.body
        );
    }
    world.desk.ticket("hooks", subject).await?;
    world.quiet().await?;
    let tickets = tickets(world, &["hooks"], subject).await?;
    ensure!(tickets.len() == 1, "{} tickets of one webhook", tickets.len());
    one_message_in(world, &tickets[0]).await
}

async fn tickets(world: &World, queues: &[&str], subject: &str) -> Result<Vec<String>> {
    let mut numbers = Vec::new();
    for queue in queues {
        let tickets = world.desk.tickets(queue).await?;
        let found = tickets.iter().filter(|ticket| ticket["subject"] == subject);
        numbers.extend(found.filter_map(|ticket| ticket["number"].as_str().map(str::to_owned)));
    }
    Ok(numbers)
}

async fn one_message_in(world: &World, number: &str) -> Result<()> {
    let ticket = world.desk.show(number).await?;
    let messages = world.desk.messages(conversation(&ticket)?).await?;
    ensure!(messages.len() == 1, "{} messages instead of one", messages.len());
    Ok(())
}
