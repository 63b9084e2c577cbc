//! What processes have used of the cores, in user and kernel, all their threads together.

use anyhow::{Context, Result};

/// Of the kernel's clock in `/proc`, by Linux's ABI.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of one process.
pub fn seconds(pid: u32) -> Result<f64> {
    Ok(ticks(pid, 2).context("the process is gone")? / TICKS_PER_SECOND)
}

/// Seconds of a server and of the processes that it has started, also those that
/// have ended.
pub fn seconds_of_server(pid: u32) -> Result<f64> {
    let mut sum = ticks(pid, 4).context("the server is gone")?;
    for entry in std::fs::read_dir("/proc")? {
        let Some(child) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if fields(child).is_some_and(|fields| fields.get(1) == Some(&u64::from(pid))) {
            // Gone by now is counted with the server.
            sum += ticks(child, 4).unwrap_or(0.0);
        }
    }
    Ok(sum / TICKS_PER_SECOND)
}

/// User and kernel time, and with four columns those of children that have ended.
fn ticks(pid: u32, columns: usize) -> Option<f64> {
    let fields = fields(pid)?;
    let ticks: u64 = fields.iter().skip(11).take(columns).sum();
    Some(ticks as f64)
}

/// The numbers behind a process's name, which stands in parentheses and may hold
/// spaces; its state, a letter, is 0.
fn fields(pid: u32) -> Option<Vec<u64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    let numbers = fields.split_whitespace().map(|field| field.parse().unwrap_or(0));
    Some(numbers.collect())
}
