//! Steps that the stories of all vendors have in common.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::desk::{SOON, text};
use super::process;
use super::settings::WRONG;
use super::wait::eventually;
use super::world::World;

/// A message of ours, as soon as it has come so far.
pub async fn delivered(world: &World, reply: &Value, state: &str) -> Result<Value> {
    let path = format!("/v1/messages/{}", text(reply, "id")?);
    eventually(&format!("the answer is {state}"), SOON * 2, async || {
        let message = world.desk.get(&path).await?;
        ensure!(
            message["delivery"] == state,
            "it is {}: {}",
            message["delivery"],
            message["delivery_error"]
        );
        Ok(Some(message))
    })
    .await
}

/// An answer with more than a text, which must be taken.
pub async fn reply(world: &World, conversation: &str, key: &str, body: &Value) -> Result<Value> {
    let path = format!("/v1/conversations/{conversation}/replies");
    let (status, message) = world.desk.post(&path, key, body).await?;
    ensure!(status == 201, "reply: {status} {message}");
    Ok(message)
}

/// An answer that must be refused with this code: its words.
pub async fn refused(world: &World, conversation: &str, key: &str, body: &Value, code: &str) -> Result<String> {
    let path = format!("/v1/conversations/{conversation}/replies");
    let (status, refusal) = world.desk.post(&path, key, body).await?;
    ensure!(
        (400..500).contains(&status) && refusal["code"] == code,
        "{status} {refusal}"
    );
    Ok(text(&refusal, "detail")?.to_owned())
}

/// The only attachment of a message, as soon as its bytes are here.
pub async fn fetched(world: &World, message: &Value) -> Result<Vec<u8>> {
    let path = format!("/v1/messages/{}", text(message, "id")?);
    let sha256 = eventually("the file is here", SOON * 2, async || {
        let message = world.desk.get(&path).await?;
        let attachment = &message["attachments"][0];
        let sha256 = text(attachment, "sha256")?.to_owned();
        ensure!(attachment["state"] != "lost", "lost: {attachment}");
        Ok((!sha256.is_empty()).then_some(sha256))
    })
    .await?;
    world.desk.get_bytes(&format!("{path}/attachments/{sha256}")).await
}

/// What stands in the quarantine of an account, once: released when the account's
/// secret is mended, and not before.
pub async fn mend(world: &World, account: &str, secret: &str) -> Result<()> {
    let id = eventually("it is in quarantine", SOON, async || {
        let parked = world.desk.list("/v1/parked").await?;
        let mut ours = parked.iter().filter(|input| input["account"] == account);
        let id = ours.next().and_then(|input| input["id"].as_str().map(str::to_owned));
        ensure!(ours.next().is_none(), "a repeat is kept again");
        Ok(id)
    })
    .await?;
    release(world, account, &id, [WRONG, secret]).await
}

/// A parked input is released when the account's secret is mended, and not before.
pub async fn release(world: &World, account: &str, id: &str, [wrong, right]: [&str; 2]) -> Result<()> {
    let refused = world.command(&["parked", "replay", id]).await;
    ensure!(refused.is_err(), "it was released under a wrong secret");
    let settings = std::fs::read_to_string(&world.config)?;
    let config = world.dir().join(format!("{account}.toml"));
    std::fs::write(&config, settings.replace(wrong, right))?;
    let config = config.to_string_lossy();
    process::run_well(&["parked", "replay", id, "--config", &config]).await?;
    Ok(())
}

/// A template as a reply names it.
pub fn template(parameters: &[&str]) -> Value {
    json!({ "name": "order_update", "language": "en_US", "parameters": parameters })
}
