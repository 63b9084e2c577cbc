//! Logs to standard error, and the registry of metrics.

use std::io::IsTerminal;

use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::settings::{Log, LogFormat};

/// What every metric's name begins with.
const PREFIX: &str = "tributary";

/// Libraries that would otherwise tell more than an operator wants to read.
const QUIET: &str = "sqlx=warn,hyper=warn,hyper_util=warn,rustls=warn,reqwest=warn,rdkafka=error,librdkafka=error,lettre=warn,async_imap=warn,h2=warn,tower=warn";

/// Begins to log. `RUST_LOG` overrides the level of the settings.
pub fn start_logs(settings: &Log) {
    let default = format!("{},{QUIET}", settings.level);
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::new(directives),
        _ => EnvFilter::new(default),
    };
    let is_terminal = std::io::stderr().is_terminal();
    let format = settings
        .format
        .unwrap_or(if is_terminal { LogFormat::Human } else { LogFormat::Json });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first one's.
    let _ = match format {
        LogFormat::Human => builder.with_ansi(is_terminal).compact().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// An empty registry; crates register their own metrics in it.
pub fn registry() -> Registry {
    Registry::with_prefix(PREFIX)
}
