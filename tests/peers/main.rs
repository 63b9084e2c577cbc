//! Lets the vendors' own libraries sign what we verify, and speak to the servers by
//! which we test: their idea of a valid request is the one that counts. Run by
//! `make peers`, which fetches them.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tests::harness::process::{Process, Start, build};
use tests::harness::servers::{free_ports, repository};
use tests::harness::settings;
use tests::vendors::twilio::{ACCOUNT_SID, OUR_NUMBER, TOKEN, Twilio};
use tokio::process::Command;

#[tokio::main]
async fn main() -> Result<()> {
    build()?;
    let folder = std::env::temp_dir().join(format!("tributary-peers-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = run(&folder).await;
    std::fs::remove_dir_all(&folder)?;
    outcome
}

async fn run(folder: &Path) -> Result<()> {
    let [public, desk, ops, vendor] = free_ports()?;
    let url = format!("http://127.0.0.1:{public}");
    let text = format!(
        "[public]\nlisten = \"127.0.0.1:{public}\"\nurl = \"{url}\"\n[desk]\nlisten = \"127.0.0.1:{desk}\"\n\
         [data]\npath = \"{}\"\n[[queues]]\nname = \"phone\"\n{}",
        folder.join("data").display(),
        settings::vendor("phone", "sms", vendor)
    );
    let config = folder.join("tributary.toml");
    std::fs::write(&config, text)?;
    let mut process = Process::start(&Start {
        name: "all".to_owned(),
        role: "all".to_owned(),
        config,
        dir: folder.to_owned(),
        ops_port: ops,
        environment: Vec::new(),
    })
    .await?;
    let twilio = Twilio::start(vendor, &url).await?;
    let api = format!("http://127.0.0.1:{vendor}");
    let peers = repository().join(".dev/peers");
    for (program, script) in [("venv/bin/python", "twilio_peer.py"), ("node", "twilio_peer.cjs")] {
        let program = match program.contains('/') {
            true => peers.join(program),
            false => program.into(),
        };
        let status = Command::new(&program)
            .arg(repository().join("tests/peers").join(script))
            .env("NODE_PATH", peers.join("node_modules"))
            .envs([
                ("HOOK", format!("{url}/in/phone").as_str()),
                ("API", api.as_str()),
                ("ACCOUNT_SID", ACCOUNT_SID),
                ("TOKEN", TOKEN),
                ("NUMBER", OUR_NUMBER),
            ])
            .stdin(Stdio::null())
            .status()
            .await
            .with_context(|| format!("{} cannot be started", program.display()))?;
        ensure!(status.success(), "{script} is not content with us");
    }
    drop(twilio);
    process.terminate().await?;
    Ok(())
}
