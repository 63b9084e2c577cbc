//! A gateway's clock that jumps, by libfaketime.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Told;
use super::own::{Gateway, start_of};
use crate::faults::Site;
use crate::harness::random::Random;

/// Twice what a signature may be off.
const JUMP_S: i64 = 600;

/// Ten minutes forwards, ten minutes back, and right again: signatures are held
/// against the gateway's clock, and what it takes is kept.
pub async fn jumps(site: &Site, random: &mut Random) -> Told {
    let start = start_of(site, "gateway-clock").await?;
    let clock = start.dir.join("clock");
    set(&clock, 0)?;
    let (library, file) = (library()?.display().to_string(), clock.display().to_string());
    let told = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let gateway = Gateway::start(site, random, start, &told).await?;
    let is_busy = gateway.post().await?;
    for jump in [JUMP_S, -JUMP_S] {
        set(&clock, jump)?;
        let (now, then) = (gateway.post_at(0).await?, gateway.post_at(jump).await?);
        ensure!(
            [now, then] == [401, 200],
            "its clock jumped by {jump} s: signed now {now}, signed then {then}"
        );
    }
    set(&clock, 0)?;
    ensure!(gateway.post().await?, "its clock is right again, and it takes nothing");
    gateway.leave().await?;
    Ok((String::new(), is_busy))
}

/// What it reads is never half written.
fn set(clock: &Path, seconds: i64) -> Result<()> {
    let new = clock.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}s\n"))?;
    Ok(std::fs::rename(&new, clock)?)
}

fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.flatten();
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    found
        .find(|path| path.exists())
        .context("no libfaketime here: run make deps")
}
