//! strace, at a process that runs.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

use super::wait::until;

const HELD_WITHIN: Duration = Duration::from_secs(20);

/// Lets strace, with these arguments, hold a process until the child is told to end.
pub async fn attach(pid: u32, arguments: &[&str]) -> Result<Child> {
    let child = Command::new("strace")
        .args(["-f", "-q", "-p", &pid.to_string()])
        .args(arguments)
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run strace")?;
    let status = format!("/proc/{pid}/status");
    until("strace holds it", HELD_WITHIN, async || {
        let status = std::fs::read_to_string(&status)?;
        Ok(status
            .lines()
            .any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")))
    })
    .await?;
    Ok(child)
}

/// Lets the process go on without it.
pub async fn detach(mut strace: Child) -> Result<()> {
    let id = strace.id().context("strace has ended")?.to_string();
    Command::new("kill").args(["-INT", &id]).status().await?;
    strace.wait().await?;
    Ok(())
}
