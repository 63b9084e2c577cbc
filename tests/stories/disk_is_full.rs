//! The disk is full: whoever takes input says 503 and nothing false, lives on, and
//! goes on by itself when there is room again. Told of one process with everything on
//! that disk, and of a gateway whose Kafka is away and whose spool is on it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tests::harness::customer::{Sender, message};
use tests::harness::desk::Desk;
use tests::harness::process::{self, Process, Start};
use tests::harness::servers::{free_ports, set_mode};
use tests::harness::settings;
use tests::harness::wait::until;
use tests::harness::world::World;

const SIZE: &str = "size=24m,mode=0700";
/// A disk as small as this is full after fewer.
const MANY: usize = 400;
const SOON: Duration = Duration::from_secs(30);

pub async fn run(world: &World) -> Result<()> {
    one_process(&world.servers.dir.join("full-all")).await?;
    spool(&world.servers.dir.join("full-gateway")).await
}

async fn one_process(dir: &Path) -> Result<()> {
    let disk = Disk::new(dir)?;
    let [public, desk] = free_ports()?;
    let own = format!("[desk]\nlisten = \"127.0.0.1:{desk}\"\n");
    let mut process = start("all", &disk, public, &own).await?;
    let token = std::fs::read_to_string(disk.data.join("desk-token"))?;
    let desk = Desk::new(&format!("http://127.0.0.1:{desk}"), token.trim())?;
    let taken = fill_and_free(&disk, &process, public).await?;
    let subjects = async || {
        let tickets = desk.tickets("hooks").await?;
        let subjects = tickets.iter().filter_map(|ticket| ticket["subject"].as_str());
        anyhow::Ok(subjects.map(str::to_owned).collect::<Vec<_>>())
    };
    until("all tickets", SOON, async || {
        let found: BTreeSet<String> = subjects().await?.into_iter().collect();
        Ok(taken.is_subset(&found))
    })
    .await?;
    let found = subjects().await?;
    let different: BTreeSet<&String> = found.iter().collect();
    ensure!(different.len() == found.len(), "a message counted twice");
    end(&mut process).await
}

async fn spool(dir: &Path) -> Result<()> {
    let disk = Disk::new(dir)?;
    let [public, nobody] = free_ports()?;
    let key = dir.join("key");
    std::fs::write(&key, "a key of thirty-two bytes or more, for the stories")?;
    set_mode(&key, 0o600)?;
    let own = format!(
        "[bus]\nurl = \"kafka:127.0.0.1:{nobody}\"\n[keys]\nfiles = [\"{}\"]\n",
        key.display()
    );
    let mut process = start("gateway", &disk, public, &own).await?;
    let taken = fill_and_free(&disk, &process, public).await?;
    end(&mut process).await?;
    let config = disk.config.to_string_lossy();
    let status = process::run_well(&["spool", "status", "--config", &config]).await?;
    let held: usize = status
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .context(status.clone())?;
    ensure!(held >= taken.len(), "{} taken, and {status}", taken.len());
    Ok(())
}

async fn start(role: &str, disk: &Disk, public: u16, own: &str) -> Result<Process> {
    let [ops_port] = free_ports()?;
    let text = format!(
        "[public]\nlisten = \"127.0.0.1:{public}\"\n[data]\npath = \"{}\"\n{own}[[queues]]\nname = \"hooks\"\n{}",
        disk.data.display(),
        settings::webhook("hooks", None)
    );
    std::fs::write(&disk.config, text)?;
    let start = Start {
        name: role.to_owned(),
        role: role.to_owned(),
        config: disk.config.clone(),
        dir: disk.dir.clone(),
        ops_port,
        environment: Vec::new(),
    };
    // Without a disk of our own the process is limited, and told so by this signal.
    let mut process = Process::launch_by(&start, &["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""])?;
    process.ready().await?;
    Ok(process)
}

/// Sends until the disk is full and beyond, makes room, and sends until it goes again:
/// the subjects of all that was answered 2xx.
async fn fill_and_free(disk: &Disk, process: &Process, public: u16) -> Result<BTreeSet<String>> {
    let sender = Sender::new(&format!("http://127.0.0.1:{public}"), "hooks")?;
    let mut taken = BTreeSet::new();
    let mut send = async |index: usize, bytes: usize| {
        let subject = format!("Full {index}");
        let body = message("keeper@customer.example", &subject, &"x".repeat(bytes));
        let answer = sender.send(&format!("full-{index}"), &body).await?;
        match answer.status {
            200 => drop(taken.insert(subject)),
            503 => {}
            other => bail!("answered {other}: {}", answer.body),
        }
        Ok(answer.status)
    };
    ensure!(send(0, 100).await? == 200, "not taken with room left");
    disk.fill(process)?;
    let mut index = 1;
    while send(index, 100_000).await? == 200 {
        index += 1;
        ensure!(index < MANY, "the disk is never full");
    }
    // Also what is too large for a record, and becomes a file.
    for bytes in [100_000, 262_100, 100_000, 262_100] {
        index += 1;
        send(index, bytes).await?;
    }
    let url = format!("{}/health/ready", process.ops);
    let is_ready = async || Ok(reqwest::get(&url).await?.status().is_success());
    until("it says that it is not ready", SOON, async || Ok(!is_ready().await?)).await?;
    disk.free(process)?;
    until("it is ready again", SOON, is_ready).await?;
    for bytes in [100_000, 262_100] {
        index += 1;
        ensure!(send(index, bytes).await? == 200, "not taken with room again");
    }
    Ok(taken)
}

async fn end(process: &mut Process) -> Result<()> {
    ensure!(!process.has_ended()?, "it has ended, see {}", process.log.display());
    let status = process.terminate().await?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

/// A small disk. Where none may be mounted, the process is forbidden to write files
/// beyond their first bytes instead.
struct Disk {
    dir: PathBuf,
    data: PathBuf,
    config: PathBuf,
    is_mounted: bool,
}

impl Disk {
    fn new(dir: &Path) -> Result<Self> {
        let data = dir.join("data");
        std::fs::create_dir_all(&data)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(&data);
        let mounted = mount.stderr(Stdio::null()).status();
        let is_mounted = mounted.is_ok_and(|status| status.success());
        if !is_mounted {
            eprintln!("      no small disk can be mounted here: the process's files are limited instead");
        }
        Ok(Self {
            config: dir.join("tributary.toml"),
            dir: dir.to_owned(),
            data,
            is_mounted,
        })
    }

    fn fill(&self, process: &Process) -> Result<()> {
        if !self.is_mounted {
            return limit_files(process, "4096");
        }
        let mut file = File::create(self.filler())?;
        for bytes in [65_536, 4_096] {
            loop {
                match file.write_all(&vec![1; bytes]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn free(&self, process: &Process) -> Result<()> {
        match self.is_mounted {
            true => Ok(std::fs::remove_file(self.filler())?),
            false => limit_files(process, "unlimited"),
        }
    }

    fn filler(&self) -> PathBuf {
        self.data.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.data).status();
        }
    }
}

/// The soft limit alone, which may be raised again.
fn limit_files(process: &Process, bytes: &str) -> Result<()> {
    let status = Command::new("prlimit")
        .args([
            "--pid",
            &process.pid()?.to_string(),
            &format!("--fsize={bytes}:unlimited"),
        ])
        .status()?;
    ensure!(status.success(), "prlimit: {status}");
    Ok(())
}
