//! One process of Tributary: the built binary, started as a user starts it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};

use super::servers::{free_ports, repository};
use super::wait::until;

/// From SIGTERM to the end, as promised.
pub const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A running role.
pub struct Process {
    pub name: String,
    /// `http://127.0.0.1:port` of health and metrics.
    pub ops: String,
    pub log: PathBuf,
    /// From start to ready.
    pub ready_after: Duration,
    child: Child,
    start: Start,
}

/// How to start it, and start it again.
#[derive(Clone, Debug)]
pub struct Start {
    pub name: String,
    pub role: String,
    pub config: PathBuf,
    /// Its own folder: log and process id.
    pub dir: PathBuf,
    pub ops_port: u16,
    pub environment: Vec<(String, String)>,
}

/// The binary that was built with these tests.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut folder = own.parent().context("no folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("no folder")?;
    }
    Ok(folder.join("tributary"))
}

/// Builds the binary, so that the stories never meet an old one.
pub fn build() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command
        .args(["build", "--quiet", "--workspace", "--bin", "tributary"])
        .current_dir(repository());
    if binary()?.parent().is_some_and(|folder| folder.ends_with("release")) {
        command.arg("--release");
    }
    ensure!(command.status()?.success(), "tributary does not build");
    Ok(())
}

/// Runs one command to its end.
pub async fn run(arguments: &[&str]) -> Result<Output> {
    run_told(&[], arguments).await
}

async fn run_told(environment: &[(String, String)], arguments: &[&str]) -> Result<Output> {
    let output = Command::new(binary()?)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(Duration::from_secs(60), output)
        .await
        .with_context(|| format!("no end within 60 s: tributary {}", arguments.join(" ")))?
        .context("cannot start tributary")
}

/// Runs one command, which must succeed, and gives what it printed.
pub async fn run_well(arguments: &[&str]) -> Result<String> {
    run_well_told(&[], arguments).await
}

/// The same with this in its environment.
pub async fn run_well_told(environment: &[(String, String)], arguments: &[&str]) -> Result<String> {
    let output = run_told(environment, arguments).await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "tributary {}: {} {error}",
        arguments.join(" "),
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

impl Process {
    /// Starts it and waits until it is ready.
    pub async fn start(start: &Start) -> Result<Self> {
        let mut process = Self::launch(start)?;
        process.ready().await?;
        Ok(process)
    }

    /// Starts it without waiting.
    pub fn launch(start: &Start) -> Result<Self> {
        Self::launch_by(start, &[])
    }

    /// The same by a command that runs the command behind it.
    pub fn launch_by(start: &Start, by: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(&start.dir)?;
        let log = start.dir.join("log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut words = by.iter().map(OsString::from).chain([binary()?.into_os_string()]);
        let child = Command::new(words.next().context("no command")?)
            .args(words)
            .args([start.role.as_str(), "--config", &start.config.to_string_lossy()])
            .env("TRIBUTARY_OPS__LISTEN", format!("127.0.0.1:{}", start.ops_port))
            .envs(start.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start tributary")?;
        std::fs::write(start.dir.join("pid"), child.id().unwrap_or_default().to_string())?;
        Ok(Self {
            name: start.name.clone(),
            ops: format!("http://127.0.0.1:{}", start.ops_port),
            log,
            ready_after: Duration::ZERO,
            child,
            start: start.clone(),
        })
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self) -> Result<()> {
        let began = Instant::now();
        let url = format!("{}/health/ready", self.ops);
        let client = reqwest::Client::new();
        while began.elapsed() < Duration::from_secs(30) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, tail(&self.log));
            }
            let answer = client.get(&url).timeout(Duration::from_secs(1)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                self.ready_after = began.elapsed();
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("{} is not ready after 30 s: {}", self.name, tail(&self.log))
    }

    /// SIGKILL, and its end.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.start_kill()?;
        self.child.wait().await?;
        Ok(())
    }

    /// SIGTERM, and its end, which must come in time.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal("TERM").await?;
        tokio::time::timeout(STOP_WITHIN, self.child.wait())
            .await
            .with_context(|| {
                format!(
                    "{} still runs {STOP_WITHIN:?} after SIGTERM: {}",
                    self.name,
                    tail(&self.log)
                )
            })?
            .context("cannot wait")
    }

    /// The same role again, after its end.
    pub fn launch_again(&mut self) -> Result<()> {
        *self = Self::launch(&self.start)?;
        Ok(())
    }

    /// The same role again, after its end, told this once besides what it is always told.
    pub fn launch_again_told(&mut self, name: &str, value: &str) -> Result<()> {
        let start = self.start.clone();
        let mut told = start.clone();
        told.environment.push((name.to_owned(), value.to_owned()));
        *self = Self::launch(&told)?;
        self.start = start;
        Ok(())
    }

    /// From its next start on it is told this.
    pub fn tell(&mut self, name: &str, value: &str) {
        self.start.environment.retain(|(known, _)| known != name);
        self.start.environment.push((name.to_owned(), value.to_owned()));
    }

    /// How to start one more of its kind, beside it.
    pub fn twin(&self, name: &str) -> Result<Start> {
        let [ops_port] = free_ports()?;
        let mut twin = Start {
            name: name.to_owned(),
            ops_port,
            dir: self.start.dir.with_file_name(format!("twin-{name}")),
            ..self.start.clone()
        };
        let data = twin.dir.display().to_string();
        twin.environment.retain(|(name, _)| name != "TRIBUTARY_DATA__PATH");
        twin.environment.push(("TRIBUTARY_DATA__PATH".to_owned(), data));
        Ok(twin)
    }

    /// Sends a signal by its name without `SIG`.
    pub async fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid()?.to_string();
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status()
            .await?;
        ensure!(status.success(), "no such process: {}", self.name);
        Ok(())
    }

    pub fn pid(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended", self.name))
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

/// Resident memory of a process, in MiB.
pub fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib / 1024.0)
}

/// Waits until nobody listens on a port any more.
pub async fn port_is_free(port: u16) -> Result<()> {
    until("the port is free", Duration::from_secs(5), async || {
        Ok(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err())
    })
    .await
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
