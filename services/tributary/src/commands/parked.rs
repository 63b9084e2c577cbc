//! `tributary parked list`, `show` and `replay`: inputs that wait for a person,
//! because they could not be read or applied, or had a bad signature.

use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use bus::Bus;
use channels::channel::{Input, Unparsed};
use channels::inbox::{Arrival, Inbox};
use channels::list::Account;
use clap::{Args, Subcommand};
use model::context::ParkedInput;
use model::event::{Raw, RawContent};
use model::inbound::{Inbound, What};
use model::time::Moment;
use store::Store;
use store::parked::ParkedSummary;

use super::plain;
use crate::settings::Settings;
use crate::settings::check::Checked;
use crate::telemetry;

const PAGE: i64 = 100;
const BUS_GRACE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists inputs that wait, the latest first
    #[command(after_help = super::EXIT_CODES)]
    List {
        /// Also those that were replayed
        #[arg(long)]
        all: bool,
    },
    /// Shows one with its bytes
    #[command(after_help = super::EXIT_CODES)]
    Show {
        id: String,
        /// Writes the bytes only, as they came
        #[arg(long)]
        raw: bool,
    },
    /// Sends inputs through their channel again, under the same ids: what is
    /// known already changes nothing
    #[command(after_help = super::EXIT_CODES)]
    Replay {
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// All that wait and were not replayed
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}

/// Lists, shows or replays.
pub async fn run(arguments: &Arguments, settings: Settings) -> Result<()> {
    let store = super::open_store(&settings).await?;
    match &arguments.action {
        Action::List { all } => {
            for summary in summaries(&store, *all).await? {
                super::print(&line(&summary))?;
            }
            Ok(())
        }
        Action::Show { id, raw } => {
            let bus = Bus::open(&settings.bus_settings(false), &mut telemetry::registry()).await?;
            let outcome = show(&store, &bus, id, *raw).await;
            bus.stop(BUS_GRACE).await;
            outcome
        }
        Action::Replay { ids, all } => {
            let ids = if *all {
                // The oldest first, as they came.
                let waiting = summaries(&store, false).await?;
                waiting.into_iter().rev().map(|summary| summary.id).collect()
            } else {
                ids.clone()
            };
            let checked = super::checked(settings)?;
            let bus = Bus::open(&checked.settings.bus_settings(false), &mut telemetry::registry()).await?;
            let outcome = replay_all(&checked, &store, &bus, &ids).await;
            bus.stop(BUS_GRACE).await;
            outcome
        }
    }
}

async fn summaries(store: &Store, also_replayed: bool) -> Result<Vec<ParkedSummary>> {
    let mut found = Vec::new();
    let mut before = None;
    loop {
        let page = store.list_parked(before, PAGE).await?;
        let Some(last) = page.last() else {
            break;
        };
        before = Some((last.received_at, last.id.clone()));
        found.extend(
            page.into_iter()
                .filter(|summary| also_replayed || summary.replayed_at.is_none()),
        );
    }
    Ok(found)
}

fn line(summary: &ParkedSummary) -> String {
    let kind = match (summary.replayed_at, summary.quarantined) {
        (Some(_), _) => "replayed",
        (None, true) => "quarantined",
        (None, false) => "parked",
    };
    format!(
        "{}  {}  {kind}  {}  {} bytes  {}",
        summary.id,
        summary.received_at,
        summary.account,
        summary.size_bytes,
        plain(&summary.reason)
    )
}

async fn show(store: &Store, bus: &Bus, id: &str, raw_only: bool) -> Result<()> {
    let (parked, replayed_at) = find(store, id).await?;
    let bytes = content(bus, &parked.raw).await?;
    if raw_only {
        std::io::stdout().lock().write_all(&bytes)?;
        return Ok(());
    }
    super::print(&format!("id           {}", parked.id))?;
    super::print(&format!("account      {} ({})", parked.account, parked.channel))?;
    super::print(&format!("received at  {}", parked.received_at))?;
    super::print(&format!("quarantined  {}", parked.quarantined))?;
    super::print(&format!("reason       {}", plain(&parked.reason)))?;
    if let Some(at) = replayed_at {
        super::print(&format!("replayed at  {at}"))?;
    }
    super::print(&format!(
        "request      {} {}",
        parked.raw.method,
        plain(&parked.raw.url)
    ))?;
    for (name, value) in &parked.raw.headers {
        super::print(&format!("header       {}: {}", plain(name), plain(value)))?;
    }
    super::print(&format!("{} bytes", bytes.len()))?;
    super::print(&plain(&String::from_utf8_lossy(&bytes)))
}

/// Replays one after the other; one that fails stops none of the others.
async fn replay_all(checked: &Checked, store: &Store, bus: &Bus, ids: &[String]) -> Result<()> {
    let inbox = Inbox::new(bus.clone(), &mut telemetry::registry());
    let mut failures = Vec::new();
    for id in ids {
        match replay(checked, store, bus, &inbox, id).await {
            Ok(events) => super::print(&format!("{id}: replayed, events: {events}"))?,
            Err(error) => failures.push(format!("{id}: {error:#}")),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

async fn replay(checked: &Checked, store: &Store, bus: &Bus, inbox: &Inbox, id: &str) -> Result<usize> {
    let (parked, _) = find(store, id).await?;
    let account = checked
        .accounts
        .get(&parked.account)
        .with_context(|| format!("the settings have no account {}", parked.account))?;
    let body = content(bus, &parked.raw).await?;
    let input = Input::kept(&parked.raw, body.into(), parked.received_at);
    if parked.quarantined
        && let Err(bad) = account.channel.verify(&input)
    {
        bail!("its signature is still wrong: {}", bad.reason);
    }
    let events = accept(account, inbox, input).await?;
    store.mark_replayed(id, Moment::from(SystemTime::now())).await?;
    Ok(events)
}

async fn accept(account: &Account, inbox: &Inbox, input: Input) -> Result<usize> {
    let parsed = match account.channel.parse(&input) {
        Ok(parsed) => parsed,
        Err(Unparsed::Rejected { reason } | Unparsed::Parked { reason }) => {
            bail!("it still cannot be read: {reason}")
        }
    };
    if let Some(reason) = nothing_but_parked(&parsed.events) {
        bail!("it still cannot be read: {reason}");
    }
    let count = parsed.events.len();
    let plan = &account.plan;
    // It can wait here, so it must not end in a spool that nobody forwards.
    inbox
        .accept(&plan.name, &plan.channel, input, parsed.events, Arrival::Pulled)
        .await?;
    Ok(count)
}

/// Why, if all of it would only be parked again.
fn nothing_but_parked(events: &[Inbound]) -> Option<&str> {
    let mut reasons = events.iter().map(|event| match &event.what {
        What::Parked { reason } => Some(reason.as_str()),
        _ => None,
    });
    let first = reasons.next()??;
    reasons.all(|reason| reason.is_some()).then_some(first)
}

async fn find(store: &Store, id: &str) -> Result<(ParkedInput, Option<Moment>)> {
    let found = store.parked_input(id).await?;
    found.with_context(|| format!("there is no parked input {id}"))
}

async fn content(bus: &Bus, raw: &Raw) -> Result<Vec<u8>> {
    match &raw.content {
        RawContent::Inline(bytes) => Ok(bytes.clone()),
        RawContent::Blob { sha256, .. } => {
            let found = bus.blobs().get(sha256).await?;
            found.with_context(|| format!("its bytes (blob {sha256}) are missing"))
        }
    }
}
