//! Disks that fail under a gateway whose Kafka is away.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

use super::Told;
use super::own::{Gateway, start_of};
use crate::faults::Site;
use crate::harness::proxy::Weather;
use crate::harness::random::Random;
use crate::harness::wait::until;

/// Of the disk that fills up.
const SIZE: &str = "size=8m";
/// Until the spool says no, and until it says yes again.
const HEARD_WITHIN: Duration = Duration::from_secs(20);
/// So many posts are made while the disk fails, though the first ones may still fit.
const POSTS: usize = 30;

/// No space is left for the spool; then there is some again.
pub async fn full(site: &Site, random: &mut Random) -> Told {
    let small = Small::start(site, random, "gateway-full").await?;
    let filler = small.disk.0.join("filler");
    let mended = async |()| Ok(std::fs::remove_file(&filler)?);
    small.meets(async || fill(&filler).await, mended).await
}

/// Every fsync of the spool fails; then none.
pub async fn fsync_fails(site: &Site, random: &mut Random) -> Told {
    let small = Small::start(site, random, "gateway-eio").await?;
    let pid = small.gateway.process.pid()?.to_string();
    let mended = async |mut injecting: Child| {
        // It lets the process go on when it is told to end.
        let id = injecting.id().context("strace has ended")?.to_string();
        Command::new("kill").args(["-INT", &id]).status().await?;
        injecting.wait().await?;
        Ok(())
    };
    small.meets(async || inject(&pid).await, mended).await
}

/// A gateway on a small disk.
struct Small<'a> {
    site: &'a Site,
    gateway: Gateway<'a>,
    /// Goes when the gateway has gone.
    disk: Disk,
}

impl<'a> Small<'a> {
    async fn start(site: &'a Site, random: &mut Random, name: &str) -> Result<Self> {
        let start = start_of(site, name).await?;
        let disk = Disk::mount(start.dir.join("disk")).await?;
        let path = disk.0.display().to_string();
        let gateway = Gateway::start(site, random, start, &[("TRIBUTARY_DATA__PATH", path.as_str())]).await?;
        Ok(Self { site, gateway, disk })
    }

    /// Kafka goes away, the disk fails and is mended: nothing is taken that cannot be
    /// kept, and all goes on by itself.
    async fn meets<T>(self, begin: impl AsyncFnOnce() -> Result<T>, end: impl AsyncFnOnce(T) -> Result<()>) -> Told {
        let gateway = &self.gateway;
        ensure!(gateway.post().await?, "nothing is taken though all is well");
        self.site.kafka.set(Weather::Refusing);
        let began = begin().await?;
        let mut refused = 0;
        for _ in 0..POSTS {
            refused += usize::from(!gateway.post().await?);
        }
        end(began).await?;
        let again = until("it goes on by itself", HEARD_WITHIN, async || gateway.post().await).await;
        self.site.kafka.set(Weather::Clear);
        again?;
        self.gateway.leave().await?;
        Ok((format!("({refused} of {POSTS} refused with 503)"), refused > 0))
    }
}

/// Writes until nothing more fits.
async fn fill(file: &Path) -> Result<()> {
    let status = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096"])
        .arg(format!("of={}", file.display()))
        .stderr(Stdio::null())
        .status()
        .await?;
    ensure!(!status.success(), "the disk is larger than thought");
    Ok(())
}

/// Lets every fsync of a process fail, until the child ends.
async fn inject(pid: &str) -> Result<Child> {
    let child = Command::new("strace")
        .args(["-f", "-q", "-p", pid, "-e", "trace=fdatasync,fsync"])
        .args(["-e", "inject=fdatasync,fsync:error=EIO", "-o", "/dev/null"])
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run strace")?;
    let status = format!("/proc/{pid}/status");
    until("strace holds it", HEARD_WITHIN, async || {
        let status = std::fs::read_to_string(&status)?;
        Ok(status
            .lines()
            .any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")))
    })
    .await?;
    Ok(child)
}

/// A small file system in memory, until it is dropped.
struct Disk(PathBuf);

impl Disk {
    async fn mount(dir: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(&dir);
        ensure!(mount.status().await?.success(), "cannot mount a small disk: needs root");
        Ok(Self(dir))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
