//! `tributary check`

use anyhow::{Result, bail};
use clap::Args;

use crate::settings::Settings;
use crate::settings::check::Checked;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Also asks this account's provider whether the account works
    #[arg(long, value_name = "ACCOUNT")]
    live: Option<String>,
    /// Prints the manual of all settings with their defaults instead
    #[arg(long)]
    pub defaults: bool,
}

/// Checks the settings and shows what they configure. Opens nothing, creates
/// nothing.
pub async fn run(arguments: &Arguments, settings: Settings) -> Result<()> {
    let checked = super::checked(settings)?;
    for line in describe(&checked) {
        super::print(&line)?;
    }
    match &arguments.live {
        Some(name) => live(&checked, name).await,
        None => Ok(()),
    }
}

fn describe(checked: &Checked) -> Vec<String> {
    let settings = &checked.settings;
    let mut lines = vec![
        format!("public     {} as {}", settings.public.listen, settings.public_url()),
        format!("desk       {}", settings.desk.listen),
        format!("ops        {}", settings.ops.listen),
        format!("store      {}", without_password(&settings.store_url())),
        format!("bus        {}", settings.bus_url()),
        format!("blobs      {}", settings.blobs_url()),
    ];
    lines.extend(checked.accounts.values().map(|account| {
        let plan = &account.plan;
        let queue = plan
            .queue
            .as_deref()
            .or(settings.queues.first().map(|queue| queue.name.as_str()));
        format!(
            "account    {} ({}) to {}",
            plan.name,
            plan.channel,
            queue.unwrap_or("-")
        )
    }));
    for (what, names) in [
        (
            "queue",
            settings.queues.iter().map(|queue| &queue.name).collect::<Vec<_>>(),
        ),
        (
            "calendar",
            settings.calendars.iter().map(|calendar| &calendar.name).collect(),
        ),
        ("policy", settings.policies.iter().map(|policy| &policy.name).collect()),
        ("rule", settings.rules.iter().map(|rule| &rule.name).collect()),
        ("person", settings.people.iter().map(|person| &person.name).collect()),
    ] {
        lines.extend(names.into_iter().map(|name| format!("{what:<10} {name}")));
    }
    lines.push("the settings are in order".to_owned());
    lines
}

fn without_password(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            let _ = parsed.set_password(Some("…"));
            parsed.to_string()
        }
        _ => url.to_owned(),
    }
}

async fn live(checked: &Checked, name: &str) -> Result<()> {
    let Some(account) = checked.accounts.get(name) else {
        bail!("there is no account {name}");
    };
    match account.channel.try_out().await {
        None => super::print(&format!(
            "account {name}: its channel ({}) has nobody to ask",
            account.plan.channel
        )),
        Some(Ok(lines)) => lines
            .iter()
            .try_for_each(|line| super::print(&format!("account {name}: {line}"))),
        Some(Err(reason)) => bail!("account {name}: {reason}"),
    }
}
