//! Disks that fail: under a gateway whose Kafka is away, under its blobs, and under the
//! one process of the light world.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::Told;
use super::own::{Gateway, Poster, start_of};
use crate::faults::Site;
use crate::harness::proxy::Weather;
use crate::harness::random::Random;
use crate::harness::strace;
use crate::harness::wait::until;

/// Of the disk that fills up.
const SIZE: &str = "size=8m";
/// Of one on which a whole world lives.
const WORLD_SIZE: &str = "size=1g";
/// More than travels with an event.
const LARGE: usize = 300_000;
/// What strace does to a process: nothing that is synced or written arrives.
const FSYNC_FAILS: &[&str] = &[
    "-o",
    "/dev/null",
    "-e",
    "trace=fdatasync,fsync",
    "-e",
    "inject=fdatasync,fsync:error=EIO",
];
const READ_ONLY: &[&str] = &[
    "-o",
    "/dev/null",
    "-e",
    "trace=pwrite64,ftruncate,unlink,rename,mkdir",
    "-e",
    "inject=pwrite64,ftruncate,unlink,rename,mkdir:error=EROFS",
];
/// Until the spool says no, and until it says yes again.
const HEARD_WITHIN: Duration = Duration::from_secs(40);
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
    let pid = small.gateway.process.pid()?;
    small
        .meets(async || strace::attach(pid, FSYNC_FAILS).await, strace::detach)
        .await
}

/// The spool's file system takes no writes; then it does.
pub async fn read_only(site: &Site, random: &mut Random) -> Told {
    let small = Small::start(site, random, "gateway-erofs").await?;
    let pid = small.gateway.process.pid()?;
    small
        .meets(async || strace::attach(pid, READ_ONLY).await, strace::detach)
        .await
}

/// There is no room for large bytes alone: they wait in the spool, small ones pass.
pub async fn full_under_blobs(site: &Site, random: &mut Random) -> Told {
    let start = start_of(site, "gateway-blobs").await?;
    let disk = Disk::mount(start.dir.join("blobs"), SIZE).await?;
    let url = format!("file:{}", disk.0.display());
    let gateway = Gateway::start(site, random, start, &[("TRIBUTARY_BLOBS__URL", url.as_str())]).await?;
    let filler = disk.0.join("filler");
    fill(&filler).await?;
    ensure!(
        gateway.poster.post(LARGE).await?.is_some(),
        "a large message is refused"
    );
    ensure!(gateway.post().await?, "a small message is refused");
    let waiting = gateway.spooled().await?;
    ensure!(waiting >= 2.0, "a large message does not wait: {waiting} in the spool");
    std::fs::remove_file(&filler)?;
    gateway.leave().await?;
    // What lies there now belongs to the others' storage.
    copy(&disk.0, &site.world.blobs_dir)?;
    Ok((String::new(), true))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (path, to) = (entry?.path(), to);
        let to = to.join(path.file_name().context("no name")?);
        match path.is_dir() {
            true => copy(&path, &to)?,
            false => drop(std::fs::copy(&path, &to)?),
        }
    }
    Ok(())
}

/// No space is left for the one process of the light world.
pub async fn full_under_all(site: &Site, random: &mut Random) -> Told {
    let filler = data_of(site).join("filler");
    let mended = async |()| Ok(std::fs::remove_file(&filler)?);
    meets_all(site, random, async || fill(&filler).await, mended).await
}

/// Every fsync of it fails.
pub async fn fsync_fails_under_all(site: &Site, random: &mut Random) -> Told {
    injected(site, random, FSYNC_FAILS).await
}

/// Its file system takes no writes.
pub async fn read_only_under_all(site: &Site, random: &mut Random) -> Told {
    injected(site, random, READ_ONLY).await
}

async fn injected(site: &Site, random: &mut Random, arguments: &[&str]) -> Told {
    let pid = site.world.processes().await.first().context("no process")?.pid()?;
    meets_all(
        site,
        random,
        async || strace::attach(pid, arguments).await,
        strace::detach,
    )
    .await
}

async fn meets_all<T>(
    site: &Site,
    random: &mut Random,
    begin: impl AsyncFnOnce() -> Result<T>,
    end: impl AsyncFnOnce(T) -> Result<()>,
) -> Told {
    // It may just have begun.
    for process in site.world.processes().await.iter_mut() {
        process.ready().await?;
    }
    let poster = Poster::new(site, random, site.world.public.first().context("no gateway")?)?;
    // Small ones may still fit into what the files have already.
    let post = async || Ok(poster.post(LARGE).await?.is_some());
    let (refused, again) = meets(&post, begin, end).await?;
    again?;
    Ok((format!("({refused} of {POSTS} refused with 503)"), refused > 0))
}

/// The disk fails and is mended: how many posts were refused meanwhile, and whether it
/// went on by itself.
async fn meets<T>(
    post: &impl AsyncFn() -> Result<bool>,
    begin: impl AsyncFnOnce() -> Result<T>,
    end: impl AsyncFnOnce(T) -> Result<()>,
) -> Result<(usize, Result<()>)> {
    let began = begin().await?;
    let mut refused = 0;
    for _ in 0..POSTS {
        refused += usize::from(!post().await?);
    }
    end(began).await?;
    let again = until("it goes on by itself", HEARD_WITHIN, async || post().await).await;
    Ok((refused, again))
}

/// The light world's data.
fn data_of(site: &Site) -> PathBuf {
    site.world.dir().join("data")
}

/// Lets a world that does not run yet live on a disk of its own, until it is dropped.
pub async fn of_light_world(servers: &Path) -> Result<Disk> {
    Disk::mount(servers.join("light").join("data"), WORLD_SIZE).await
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
        let disk = Disk::mount(start.dir.join("disk"), SIZE).await?;
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
        let met = meets(&async || gateway.post().await, begin, end).await;
        self.site.kafka.set(Weather::Clear);
        let (refused, again) = met?;
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

/// A small file system in memory, until it is dropped.
pub struct Disk(PathBuf);

impl Disk {
    async fn mount(dir: PathBuf, size: &str) -> Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&dir);
        ensure!(mount.status().await?.success(), "cannot mount a small disk: needs root");
        Ok(Self(dir))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
