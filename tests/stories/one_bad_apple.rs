//! Story 8: one unparsable mail among a hundred: ninety-nine tickets and one
//! parked input, replayable. One event that the database refuses: the same.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _};
use tests::harness::customer::message;
use tests::harness::desk::{SOON, text};
use tests::harness::mail::Letter;
use tests::harness::wait::{eventually, until};
use tests::harness::world::World;

const MANY: usize = 100;
/// Neither the first nor the last.
const BAD: usize = 37;
const REFUSED_TEXT: &str = "the database refuses this very text";

pub async fn run(world: &World) -> Result<()> {
    unparsable_mail(world).await?;
    refused_event(world).await
}

async fn unparsable_mail(world: &World) -> Result<()> {
    let poison = world.ours("poison");
    for index in 0..MANY {
        let subject = format!("Apple {index}");
        let mut letter = Letter::new(
            &world.theirs("frida"),
            &poison,
            &format!("apple-{index}@customer.example"),
            &subject,
            "Fresh.",
        );
        if index == BAD {
            letter = letter.unparsable();
        }
        world.mail.send(&letter).await?;
    }
    let parked = good_ones_and_one_parked(world, "poison", "Apple").await?;
    // Its bytes are kept, and it can be given to the parser again.
    let shown = world.desk.get(&format!("/v1/parked/{parked}")).await?;
    ensure!(
        shown["raw"]["content"]
            .as_str()
            .is_some_and(|content| content.len() > 100),
        "no bytes: {shown}"
    );
    ensure!(
        world.command(&["parked", "show", &parked]).await?.contains(&parked),
        "parked show names another"
    );
    Ok(())
}

async fn refused_event(world: &World) -> Result<()> {
    let [make, unmake] = trigger(world);
    execute(world, &make).await?;
    let sender = world.sender("refused")?;
    let posts = (0..MANY).map(|index| {
        let said = if index == BAD { REFUSED_TEXT } else { "Fresh." };
        let body = message(
            &format!("grower-{index}@customer.example"),
            &format!("Pear {index}"),
            said,
        );
        let sender = sender.clone();
        async move { sender.send(&format!("pear-{index}"), &body).await }
    });
    for answer in try_join_all(posts).await? {
        ensure!(
            (200..300).contains(&answer.status),
            "answered {} {}",
            answer.status,
            answer.body
        );
    }
    let outcome = good_ones_and_one_parked(world, "refused", "Pear").await;
    execute(world, &unmake).await?;
    let parked = outcome?;
    world.command(&["parked", "replay", &parked]).await?;
    world.desk.ticket("refused", &format!("Pear {BAD}")).await?;
    until("it is no longer waiting", SOON, async || {
        let parked = world.desk.get(&format!("/v1/parked/{parked}")).await?;
        Ok(!parked["replayed_at"].is_null())
    })
    .await?;
    world.quiet().await?;
    ensure!(
        world.desk.tickets("refused").await?.len() == MANY,
        "the replay changed more than one thing"
    );
    Ok(())
}

/// Waits for all tickets but one and for one parked input, which it gives.
async fn good_ones_and_one_parked(world: &World, account: &str, what: &str) -> Result<String> {
    let tickets = eventually("ninety-nine tickets", SOON * 3, async || {
        let tickets = world.desk.tickets(account).await?;
        Ok((tickets.len() >= MANY - 1).then_some(tickets))
    })
    .await?;
    let subjects: BTreeSet<&str> = tickets.iter().filter_map(|ticket| ticket["subject"].as_str()).collect();
    let expected: BTreeSet<String> = (0..MANY)
        .filter(|index| *index != BAD)
        .map(|index| format!("{what} {index}"))
        .collect();
    ensure!(tickets.len() == MANY - 1, "{} tickets", tickets.len());
    ensure!(
        subjects == expected.iter().map(String::as_str).collect(),
        "other tickets: {subjects:?}"
    );
    let parked = eventually("a parked input", SOON, async || {
        let parked = world.desk.list("/v1/parked").await?;
        let ours: Vec<Value> = parked.into_iter().filter(|input| input["account"] == account).collect();
        Ok((!ours.is_empty()).then_some(ours))
    })
    .await?;
    ensure!(parked.len() == 1, "{} parked inputs", parked.len());
    ensure!(
        parked[0]["quarantined"] == false && !text(&parked[0], "reason")?.is_empty(),
        "{}",
        parked[0]
    );
    Ok(text(&parked[0], "id")?.to_owned())
}

/// Statements that make the database refuse one text, and that end it.
fn trigger(world: &World) -> [String; 2] {
    if world.store_url.starts_with("sqlite:") {
        let make = format!(
            "CREATE TRIGGER refuse BEFORE INSERT ON messages WHEN NEW.content LIKE '%{REFUSED_TEXT}%' \
             BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END"
        );
        return [make, "DROP TRIGGER refuse".to_owned()];
    }
    let make = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.content LIKE '%{REFUSED_TEXT}%' THEN RAISE check_violation USING MESSAGE = 'refused by a trigger'; END IF; \
         RETURN NEW; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    [
        make,
        "DROP TRIGGER refuse ON messages; DROP FUNCTION refuse()".to_owned(),
    ]
}

async fn execute(world: &World, sql: &str) -> Result<()> {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(&world.store_url).await?;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .context("the story's own statement")?;
    connection.close().await?;
    Ok(())
}
