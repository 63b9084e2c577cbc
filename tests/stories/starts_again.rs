//! What `make run` promises: ready at once, data kept over a stop, a kill and a
//! new start, and an end within ten seconds of SIGTERM.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::harness::customer::{Sender, message};
use tests::harness::desk::Desk;
use tests::harness::process::{Process, Start};
use tests::harness::servers::free_ports;
use tests::harness::settings;
use tests::harness::world::World;

/// A build without optimisation, beside other stories, takes longer than the
/// two seconds that `make bench` holds the real one to.
const READY_WITHIN: Duration = Duration::from_secs(6);

pub async fn run(world: &World) -> Result<()> {
    let dir = world.servers.dir.join("starts-again");
    let [public, desk, ops_port] = free_ports()?;
    let text = format!(
        "[public]\nlisten = \"127.0.0.1:{public}\"\n[desk]\nlisten = \"127.0.0.1:{desk}\"\n[data]\npath = \"{}\"\n\
         [[queues]]\nname = \"hooks\"\n{}",
        dir.join("data").display(),
        settings::webhook("hooks", None)
    );
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("tributary.toml");
    std::fs::write(&config, text)?;
    let mut process = Process::start(&Start {
        name: "all".to_owned(),
        role: "all".to_owned(),
        config,
        dir: dir.clone(),
        ops_port,
        environment: Vec::new(),
    })
    .await?;
    is_in_time(&process)?;
    let token = secret(&dir.join("data/desk-token"))?;
    secret(&dir.join("data/key"))?;
    let sender = Sender::new(&format!("http://127.0.0.1:{public}"), "hooks")?;
    let desk = Desk::new(&format!("http://127.0.0.1:{desk}"), token.trim())?;
    let send = async |index: usize| {
        let body = message("keeper@customer.example", &format!("Keep {index}"), "Keep this.");
        let answer = sender.send(&format!("keep-{index}"), &body).await?;
        ensure!((200..300).contains(&answer.status), "answered {}", answer.status);
        Ok(())
    };

    send(0).await?;
    // Stopped with work under way: what was answered 2xx is there afterwards.
    let status = process.terminate().await?;
    ensure!(status.success(), "it ended with {status}");
    process.launch_again()?;
    process.ready().await?;
    is_in_time(&process)?;
    desk.ticket("hooks", "Keep 0").await?;

    send(1).await?;
    process.kill().await?;
    process.launch_again()?;
    process.ready().await?;
    is_in_time(&process)?;
    desk.ticket("hooks", "Keep 1").await?;
    desk.ticket("hooks", "Keep 0").await?;
    ensure!(secret(&dir.join("data/desk-token"))? == token, "another token");

    // The provider that missed our answer sends again.
    send(0).await?;
    send(2).await?;
    desk.ticket("hooks", "Keep 2").await?;
    ensure!(desk.tickets("hooks").await?.len() == 3, "a repeat counted");
    process.terminate().await?;
    Ok(())
}

fn is_in_time(process: &Process) -> Result<()> {
    let after = process.ready_after;
    ensure!(after <= READY_WITHIN, "ready only after {after:?}");
    Ok(())
}

fn secret(file: &Path) -> Result<String> {
    let mode = std::fs::metadata(file)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{} has mode {mode:o}", file.display());
    Ok(String::from_utf8_lossy(&std::fs::read(file)?).into_owned())
}
