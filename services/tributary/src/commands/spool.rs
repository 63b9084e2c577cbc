//! `tributary spool status` and `drain`: for a spool whose gateway is gone, on
//! the volume that it left.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use bus::{Bus, Pending, RefusedEvent};
use clap::{Args, Subcommand};
use model::time::Moment;

use crate::settings::Settings;
use crate::telemetry;

const POLL: Duration = Duration::from_millis(200);
const BUS_GRACE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Says how much the spool holds, and how old that is
    #[command(after_help = super::EXIT_CODES)]
    Status,
    /// Forwards all of it to Kafka, in order, and ends when it is empty
    #[command(after_help = super::EXIT_CODES)]
    Drain {
        /// Give up after so many seconds without progress
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        patience: u64,
        /// Try also what Kafka refused for good: its limits may have changed
        #[arg(long)]
        retry_refused: bool,
    },
    /// Shows what Kafka refuses for good: one JSON line each, its bytes in base64
    #[command(after_help = super::EXIT_CODES)]
    Refused,
}

/// Shows or empties the spool.
pub async fn run(arguments: &Arguments, settings: Settings) -> Result<()> {
    if !settings.has_kafka() {
        return super::print("there is no spool: only a gateway before Kafka has one");
    }
    let path = settings.spool_path();
    if !path.exists() {
        return super::print(&format!("there is no spool at {}", path.display()));
    }
    let (patience, retry_refused) = match arguments.action {
        Action::Status => return super::print(&describe(&bus::spool_status(&path).await?)),
        Action::Refused => return show_refused(&path).await,
        Action::Drain {
            patience,
            retry_refused,
        } => (Duration::from_secs(patience), retry_refused),
    };
    let bus = Bus::open(&settings.bus_settings(true), &mut telemetry::registry()).await?;
    let outcome = async {
        if retry_refused {
            bus.retry_refused().await?;
        }
        drain(&bus, patience).await
    };
    let outcome = outcome.await;
    bus.stop(BUS_GRACE).await;
    outcome
}

async fn show_refused(path: &Path) -> Result<()> {
    let mut printed = Ok(());
    let show = |event: RefusedEvent| {
        let line = serde_json::json!({
            "reason": event.reason,
            "key": event.key,
            "headers": event.headers,
            "value": data_encoding::BASE64.encode(&event.value),
        });
        if printed.is_ok() {
            printed = super::print(&line.to_string());
        }
    };
    bus::refused_events(path, show).await?;
    printed
}

/// An open bus forwards by itself: this waits, and says how far it is.
async fn drain(bus: &Bus, patience: Duration) -> Result<()> {
    let mut left = bus.pending().await.spooled_events;
    let mut progress_at = Instant::now();
    while left > 0 {
        tokio::time::sleep(POLL).await;
        let now_left = bus.pending().await.spooled_events;
        if now_left != left {
            progress_at = Instant::now();
        }
        left = now_left;
        if progress_at.elapsed() > patience {
            bail!("{left} events are still spooled and nothing moves; is Kafka there?");
        }
    }
    let pending = bus.pending().await;
    // Whoever throws away the volume now would lose them.
    if pending.refused_events > 0 {
        bail!("{}", describe(&pending).replace('\n', "; "));
    }
    super::print("the spool is empty")
}

fn describe(pending: &Pending) -> String {
    let waiting = amount(pending.spooled_events, pending.spooled_bytes, pending.spooled_oldest_at);
    let mut text = waiting.unwrap_or_else(|| "the spool is empty".to_owned());
    if let Some(refused) = amount(pending.refused_events, pending.refused_bytes, pending.refused_oldest_at) {
        let reason = pending.refused_reason.as_deref().unwrap_or("for an unknown reason");
        text.push_str(&format!(
            "\nrefused by Kafka for good: {refused}, that one because: {reason}; \
             `spool refused` shows them, `spool drain --retry-refused` tries them again"
        ));
    }
    text
}

fn amount(events: u64, bytes: u64, oldest_at: Option<Moment>) -> Option<String> {
    let oldest_at = oldest_at.filter(|_| events > 0)?;
    let age_ms = Moment::from(SystemTime::now()).since_ms(oldest_at).max(0);
    let age_seconds = age_ms / 1_000;
    Some(format!(
        "{events} events, {bytes} bytes, the oldest {age_seconds} seconds old"
    ))
}
