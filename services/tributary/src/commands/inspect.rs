//! `tributary inspect`

use std::collections::BTreeSet;
use std::io::Read;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use channels::channel::{Input, Unparsed};
use channels::list::Account;
use clap::Args;
use model::id::MessageId;
use model::inbound::{Inbound, What};
use model::time::Moment;
use serde_json::{Value, json};

use crate::settings::Settings;
use crate::settings::check::Checked;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The channel that the input is for, such as `email`
    channel: String,
    /// Files with the input as it came; `-` is standard input
    #[arg(required = true)]
    files: Vec<String>,
    /// Reads it as this account would; else as any account of the channel
    #[arg(long)]
    account: Option<String>,
    /// A header of the request that brought it; may be repeated
    #[arg(long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
}

/// Prints what would be made of each input, one JSON line for each event.
pub async fn run(arguments: &Arguments, settings: Settings) -> Result<()> {
    let checked = super::checked(settings)?;
    let account = account(arguments, &checked)?;
    let headers = headers(&arguments.headers)?;
    let mut failed = 0;
    for file in &arguments.files {
        let input = Input {
            method: String::new(),
            url: String::new(),
            headers: headers.clone(),
            body: read(file)?.into(),
            received_at: Moment::from(SystemTime::now()),
        };
        let lines = match account.channel.parse(&input) {
            Ok(parsed) => parsed.events.iter().map(|event| describe(account, event)).collect(),
            Err(unparsed) => {
                failed += 1;
                vec![refusal(&unparsed)]
            }
        };
        for mut line in lines {
            line["file"] = json!(file);
            super::print(&line.to_string())?;
        }
    }
    ensure!(
        failed == 0,
        "{failed} of {} inputs make no events",
        arguments.files.len()
    );
    Ok(())
}

fn account<'a>(arguments: &Arguments, checked: &'a Checked) -> Result<&'a Account> {
    let channel = &arguments.channel;
    if let Some(name) = &arguments.account {
        let account = checked
            .accounts
            .get(name)
            .with_context(|| format!("there is no account {name}"))?;
        ensure!(
            account.plan.channel == *channel,
            "account {name} is of channel {}, not {channel}",
            account.plan.channel
        );
        return Ok(account);
    }
    let account = checked
        .accounts
        .values()
        .find(|account| account.plan.channel == *channel);
    account.with_context(|| {
        let channels: BTreeSet<&str> = checked
            .accounts
            .values()
            .map(|account| account.plan.channel.as_str())
            .collect();
        let channels: Vec<&str> = channels.into_iter().collect();
        format!(
            "the settings have no account of channel {channel:?}; they have {}",
            if channels.is_empty() {
                "none at all".to_owned()
            } else {
                channels.join(", ")
            }
        )
    })
}

fn headers(arguments: &[String]) -> Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    for argument in arguments {
        let Some((name, value)) = argument.split_once(':') else {
            bail!("--header {argument:?}: write NAME:VALUE");
        };
        headers.push((name.trim().to_lowercase(), value.trim().to_owned()));
    }
    Ok(headers)
}

fn read(file: &str) -> Result<Vec<u8>> {
    if file != "-" {
        return std::fs::read(file).with_context(|| format!("cannot read {file}"));
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    Ok(bytes)
}

fn describe(account: &Account, event: &Inbound) -> Value {
    let mut line = json!({
        "external_id": event.external_id,
        "thread": event.thread,
        "occurred_at": event.occurred_at,
        "provider_sequence": event.provider_sequence,
    });
    match &event.what {
        What::Message(message) => {
            let realm = event.realm.as_text(&account.plan.name);
            let id = MessageId::received(realm, &account.plan.channel, &event.external_id);
            line["id"] = json!(id);
            line["message"] = json!(message);
        }
        What::Delivery(report) => line["delivery"] = json!(report),
        What::Changed(told) => line["changed"] = json!(told),
        What::Consent(told) => line["consent"] = json!(told),
        What::Watermark(watermark) => line["watermark"] = json!(watermark),
        What::Broken { reason } => line["broken"] = json!(reason),
        What::Parked { reason } => line["parked"] = json!(reason),
    }
    line
}

fn refusal(unparsed: &Unparsed) -> Value {
    match unparsed {
        Unparsed::Rejected { reason } => json!({ "rejected": reason }),
        Unparsed::Parked { reason } => json!({ "parked": reason }),
    }
}
