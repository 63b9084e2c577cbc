//! Story 2: a mail to it@ from an employee's address becomes an incident with the
//! priority of the matrix, by rule; the trace says which rule and what each
//! condition saw.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::harness::desk::text;
use tests::harness::mail::Letter;
use tests::harness::world::World;

const RULE: &str = "employees report incidents";

pub async fn run(world: &World) -> Result<()> {
    let (erika, it) = (world.ours("erika"), world.ours("it"));
    world
        .mail
        .send(&Letter::new(
            &erika,
            &it,
            "story2-a@example.org",
            "The mail server is down",
            "Since nine.",
        ))
        .await?;
    let ticket = world.desk.ticket("it", "The mail server is down").await?;
    ensure!(ticket["kind"] == "incident", "not an incident: {ticket}");
    ensure!(text(&ticket, "number")?.starts_with("INC"), "{}", ticket["number"]);
    ensure!(ticket["impact"] == "high" && ticket["urgency"] == "medium", "{ticket}");
    ensure!(
        ticket["priority"] == 2,
        "high impact and medium urgency make 2: {}",
        ticket["priority"]
    );
    let rule = rule_trace(&ticket)?;
    ensure!(rule["matched"] == true, "the trace says it did not match: {rule}");
    saw(rule, "account", &json!("it"), true)?;
    saw(rule, "sender.employee", &json!(true), true)?;
    saw(rule, "subject", &json!("The mail server is down"), true)?;

    // A person at work, but nothing is down: the same rule says what it saw, and no.
    world
        .mail
        .send(&Letter::new(
            &erika,
            &it,
            "story2-b@example.org",
            "A new mouse, please",
            "Mine squeaks.",
        ))
        .await?;
    let ticket = world.desk.ticket("it", "A new mouse, please").await?;
    ensure!(ticket["kind"] == "case", "not a case: {ticket}");
    let rule = rule_trace(&ticket)?;
    ensure!(rule["matched"] == false, "{rule}");
    saw(rule, "subject", &json!("A new mouse, please"), false)?;

    // Somebody else who writes an employee's name into From is no employee.
    let forged = Letter::new(
        &erika,
        &it,
        "story2-c@example.org",
        "All servers are down",
        "Believe me.",
    )
    .bytes();
    world.mail.send_bytes(&world.theirs("stranger"), &it, &forged).await?;
    let ticket = world.desk.ticket("it", "All servers are down").await?;
    ensure!(ticket["kind"] == "case", "a forged sender made an incident: {ticket}");
    saw(rule_trace(&ticket)?, "sender.employee", &json!(false), false)
}

fn rule_trace(ticket: &Value) -> Result<&Value> {
    let traces = ticket["traces"].as_array().context("no traces")?;
    ensure!(traces.len() == 1, "one message, one trace: {traces:?}");
    let rules = traces[0]["rules"].as_array().context("no rules in the trace")?;
    rules
        .iter()
        .find(|rule| rule["rule"] == RULE)
        .with_context(|| format!("{RULE} was not tried: {rules:?}"))
}

fn saw(rule: &Value, asked: &str, value: &Value, holds: bool) -> Result<()> {
    let conditions = rule["conditions"].as_array().context("no conditions")?;
    let leaf = conditions.iter().find(|leaf| leaf["field"] == asked);
    let leaf = leaf.with_context(|| format!("{asked} is not in the trace: {rule}"))?;
    ensure!(leaf["saw"] == *value, "{asked} saw {}, not {value}", leaf["saw"]);
    ensure!(leaf["holds"] == holds, "{asked}: {leaf}");
    Ok(())
}
