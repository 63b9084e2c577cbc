//! Waiting for a condition, always with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Between two looks.
const STEP: Duration = Duration::from_millis(20);

/// Looks until there is something, and gives it. An error of a look counts as
/// "not yet" and is told if the deadline passes.
pub async fn eventually<T>(what: &str, deadline: Duration, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    let mut last = None;
    while started.elapsed() < deadline {
        match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => last = None,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(STEP).await;
    }
    let reason = last.map(|error| format!(": {error:#}")).unwrap_or_default();
    Err(anyhow!("not within {deadline:?}: {what}{reason}"))
}

/// Looks until it holds.
pub async fn until(what: &str, deadline: Duration, look: impl AsyncFn() -> Result<bool>) -> Result<()> {
    eventually(what, deadline, async || Ok(look().await?.then_some(()))).await
}
