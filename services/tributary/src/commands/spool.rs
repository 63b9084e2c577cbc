//! `tributary spool status` and `drain`: for a spool whose gateway is gone, on
//! the volume that it left.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use bus::{Bus, Pending};
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
    },
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
    let patience = match arguments.action {
        Action::Status => return super::print(&describe(bus::spool_status(&path).await?)),
        Action::Drain { patience } => Duration::from_secs(patience),
    };
    let bus = Bus::open(&settings.bus_settings(true), &mut telemetry::registry()).await?;
    let outcome = drain(&bus, patience).await;
    bus.stop(BUS_GRACE).await;
    outcome
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
    super::print("the spool is empty")
}

fn describe(pending: Pending) -> String {
    let Some(oldest_at) = pending.spooled_oldest_at.filter(|_| pending.spooled_events > 0) else {
        return "the spool is empty".to_owned();
    };
    let age_ms = Moment::from(SystemTime::now()).since_ms(oldest_at).max(0);
    format!(
        "{} events, {} bytes, the oldest {} seconds old",
        pending.spooled_events,
        pending.spooled_bytes,
        age_ms / 1_000
    )
}
