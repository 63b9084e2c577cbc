//! Disks that fail under a gateway whose Kafka is away: a gateway of the fault's own,
//! so that whoever gets a 2xx from it is owed something all the same.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::Told;
use crate::faults::Site;
use crate::faults::load::HOOKS;
use crate::faults::oracle::Input;
use crate::harness::customer::{Sender, message};
use crate::harness::ops;
use crate::harness::process::Process;
use crate::harness::proxy::Weather;
use crate::harness::random::Random;
use crate::harness::servers::free_ports;
use crate::harness::wait::{eventually, until};

/// Of the disk that fills up.
const SIZE: &str = "size=8m";
/// Until the spool says no, and until it says yes again.
const HEARD_WITHIN: Duration = Duration::from_secs(20);
/// So many posts are made while the disk fails, though the first ones may still fit.
const POSTS: usize = 30;

/// No space is left for the spool; then there is some again.
pub async fn full(site: &Site, random: &mut Random) -> Told {
    let post = Post::start(site, random, "gateway-full").await?;
    let filler = post.disk.0.join("filler");
    let mended = async |()| Ok(std::fs::remove_file(&filler)?);
    post.meets(async || fill(&filler).await, mended).await
}

/// Every fsync of the spool fails; then none.
pub async fn fsync_fails(site: &Site, random: &mut Random) -> Told {
    let post = Post::start(site, random, "gateway-eio").await?;
    let pid = post.gateway.pid()?.to_string();
    let mended = async |mut injecting: Child| {
        // It lets the process go on when it is told to end.
        let id = injecting.id().context("strace has ended")?.to_string();
        Command::new("kill").args(["-INT", &id]).status().await?;
        injecting.wait().await?;
        Ok(())
    };
    post.meets(async || inject(&pid).await, mended).await
}

/// A gateway on a small disk of its own, and somebody who posts to it.
struct Post<'a> {
    site: &'a Site,
    name: String,
    gateway: Process,
    /// Goes when the gateway has gone.
    disk: Disk,
    sender: Sender,
    next: std::cell::Cell<usize>,
}

impl<'a> Post<'a> {
    async fn start(site: &'a Site, random: &mut Random, name: &str) -> Result<Self> {
        let [port] = free_ports()?;
        let mut start = {
            let processes = site.world.processes().await;
            let gateway = processes.iter().find(|process| process.name.starts_with("gateway"));
            gateway.context("no gateway")?.twin(name)?
        };
        std::fs::create_dir_all(&start.dir)?;
        let disk = Disk::mount(start.dir.join("disk")).await?;
        start
            .environment
            .retain(|(name, _)| name != "TRIBUTARY_DATA__PATH" && name != "TRIBUTARY_PUBLIC__LISTEN");
        start
            .environment
            .push(("TRIBUTARY_DATA__PATH".to_owned(), disk.0.display().to_string()));
        let listen = format!("127.0.0.1:{port}");
        start
            .environment
            .push(("TRIBUTARY_PUBLIC__LISTEN".to_owned(), listen.clone()));
        Ok(Self {
            site,
            name: format!("d{}", random.draw()),
            gateway: Process::start(&start).await?,
            disk,
            sender: Sender::new(&format!("http://{listen}"), HOOKS)?,
            next: std::cell::Cell::new(0),
        })
    }

    /// Kafka goes away, the disk fails and is mended: nothing is taken that cannot be
    /// kept, and all goes on by itself.
    async fn meets<T>(
        mut self,
        begin: impl AsyncFnOnce() -> Result<T>,
        end: impl AsyncFnOnce(T) -> Result<()>,
    ) -> Told {
        ensure!(self.post().await?, "nothing is taken though all is well");
        self.site.kafka.set(Weather::Refusing);
        let began = begin().await?;
        let mut refused = 0;
        for _ in 0..POSTS {
            refused += usize::from(!self.post().await?);
        }
        end(began).await?;
        let again = until("it goes on by itself", HEARD_WITHIN, async || self.post().await).await;
        self.site.kafka.set(Weather::Clear);
        again?;
        eventually("its spool is forwarded", HEARD_WITHIN, async || {
            let metrics = ops::metrics(&self.gateway.ops).await?;
            Ok((ops::sum(&metrics, "tributary_pending", "spool") == 0.0).then_some(()))
        })
        .await?;
        self.gateway.terminate().await?;
        Ok((format!("({refused} of {POSTS} refused with 503)"), refused > 0))
    }

    /// Posts one more; whether it was taken. Anything but 200 and 503 is wrong.
    async fn post(&self) -> Result<bool> {
        let index = self.next.replace(self.next.get() + 1);
        let id = format!("{}-{index}", self.name);
        let body = message("disks@customer.example", &id, &format!("{id} is what I say."));
        let bytes = body.to_string().into_bytes();
        let input = Input {
            account: HOOKS,
            // Each begins a conversation.
            thread: id.clone(),
            index,
            raw: Some(bytes.clone()),
            is_taken: false,
            message_id: None,
        };
        self.site.oracle.begin(&id, input);
        let answer = self.sender.post(&id, bytes).await?;
        ensure!(
            [200, 503].contains(&answer.status),
            "{id} was refused: {}",
            answer.status
        );
        if answer.status == 200 {
            let told: Value = serde_json::from_str(&answer.body)?;
            self.site.oracle.taken(&id, told["message_id"].as_str());
        }
        Ok(answer.status == 200)
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
