//! What a newcomer meets: `make run` says where what listens, and `make demo`
//! prints the ticket of its message with clocks counting, in under a second.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::harness::process::{self, Process, Start};
use tests::harness::servers::{free_ports, repository};
use tests::harness::world::World;
use tokio::process::Command;

/// From the message to its ticket, printed.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

pub async fn run(world: &World) -> Result<()> {
    let [public, desk, ops_port] = free_ports()?;
    let dir = world.servers.dir.join("newcomer");
    let environment: Vec<(String, String)> = [
        ("TRIBUTARY_PUBLIC__LISTEN", format!("127.0.0.1:{public}")),
        ("TRIBUTARY_DESK__LISTEN", format!("127.0.0.1:{desk}")),
        ("TRIBUTARY_DATA__PATH", dir.join("data").display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    let config = repository().join("deploy/dev/tributary.toml");
    let mut process = Process::start(&Start {
        name: "all".to_owned(),
        role: "all".to_owned(),
        config: config.clone(),
        dir: dir.clone(),
        ops_port,
        environment: environment.clone(),
    })
    .await?;
    let greeting = std::fs::read_to_string(&process.log)?;
    for word in [
        format!(":{public}"),
        format!(":{desk}"),
        format!(":{ops_port}"),
        "desk-token".to_owned(),
        "make demo".to_owned(),
    ] {
        ensure!(
            greeting.contains(&word),
            "the greeting does not mention {word}: {greeting}"
        );
    }

    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        let output = Command::new(process::binary()?)
            .args(["send", "--account", "demo", "--from", "Ada Lovelace <ada@example.com>"])
            .args([
                "--subject",
                "The printer is on fire",
                "--text",
                "Smoke on the third floor.",
            ])
            .arg("--config")
            .arg(&config)
            .envs(environment.clone())
            .output()
            .await?;
        fastest = fastest.min(started.elapsed());
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(printed.contains("CS00"), "no ticket: {printed}");
        ensure!(printed.contains("The printer is on fire"), "no subject: {printed}");
        let words = printed.to_lowercase();
        ensure!(
            words.contains("first") && words.contains("resolution"),
            "no clocks: {printed}"
        );
    }
    eprintln!(
        "      a ticket is shown {:.2} s after its message",
        fastest.as_secs_f32()
    );
    ensure!(fastest <= SHOWN_WITHIN, "only after {fastest:?}");
    process.terminate().await?;
    Ok(())
}
