//! From mailbox to tickets, against `mbsync` copying the same mailbox into a folder.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::harness::mail::Letter;
use tests::harness::servers::{Mail, Servers};
use tests::harness::{ops, settings};
use tokio::process::Command;

use crate::site::Site;
use crate::store::Database;
use crate::{Row, cpu};

/// Mails that wait in each mailbox; each is read once by us, and once by mbsync.
const MAILS: usize = 5_000;
const BOXES: [&str; 3] = ["first", "second", "third"];
const DOMAIN: &str = "bench.example.org";

/// The mailboxes that the servers must have.
pub fn boxes() -> String {
    BOXES.iter().map(|name| format!("{name}@{DOMAIN}\n")).collect()
}

pub async fn measure(servers: &Servers, rows: &mut Vec<Row>) -> Result<()> {
    let is_there = Command::new("mbsync")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .await;
    if !is_there.is_ok_and(|status| status.success()) {
        println!("no mbsync here (deploy/dev/bench.sh installs it): mailbox_vs_mbsync is left out");
        return Ok(());
    }
    let mail = servers.mail().await?;
    let database = Database::create(servers, "mailbox").await?;
    let (mut ours_s, mut theirs_s, mut ours_cpu) = (0.0, 0.0, 0.0);
    for name in BOXES {
        println!("{MAILS} mails by mbsync, and to tickets");
        lay(mail, name)?;
        theirs_s += copy(mail, name, &servers.dir.join("mbsync").join(name)).await?;
        let site = Site::on(servers, &format!("mailbox-{name}"), &database.url).await?;
        let (seconds, cpu) = to_tickets(servers, mail, &database, site, name).await?;
        println!("  tickets after {seconds:.1} s, mbsync {theirs_s:.1} s in all");
        ours_s += seconds;
        ours_cpu += cpu;
    }
    let all = (MAILS * BOXES.len()) as f64;
    rows.push(Row::at_least("mailbox_vs_mbsync", theirs_s / ours_s, "", 0.5));
    rows.push(Row::plain("mailbox", all / ours_s, "mails/s"));
    rows.push(Row::plain("mailbox_mbsync", all / theirs_s, "mails/s"));
    rows.push(Row::plain("mailbox_cpu", ours_cpu / all * 10_000.0, "s/10000"));
    database.drop().await
}

/// Mails as people write them, a few thousand bytes each.
fn lay(mail: &Mail, name: &str) -> Result<()> {
    let to = format!("{name}@{DOMAIN}");
    let text = "Good morning! My bike has not come yet, though your mail said that it would be here on Tuesday.\r\n";
    for n in 0..MAILS {
        let from = format!("customer{n}@bench.example.com");
        let subject = format!("Order {n} has not come");
        let letter = Letter::new(
            &from,
            &to,
            &format!("{n}.{name}@bench.example.com"),
            &subject,
            &text.repeat(30),
        );
        mail.lay(&to, &format!("{n}.{name}"), &letter.bytes())?;
    }
    Ok(())
}

/// The seconds that mbsync takes.
async fn copy(mail: &Mail, name: &str, folder: &Path) -> Result<f64> {
    std::fs::create_dir_all(folder)?;
    let path = folder.display();
    let config = format!(
        "IMAPAccount bench\nHost 127.0.0.1\nPort {}\nUser {name}@{DOMAIN}\nPass secret\nSSLType None\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount bench\n\nMaildirStore near\nPath {path}/\nInbox {path}/INBOX\n\n\
         Channel bench\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState {path}/\n",
        mail.imap_port
    );
    let file = folder.join("mbsyncrc");
    std::fs::write(&file, config)?;
    let began = Instant::now();
    let output = Command::new("mbsync").arg("-c").arg(&file).arg("-a").output().await?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(
        output.status.success(),
        "mbsync: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let copied =
        std::fs::read_dir(folder.join("INBOX/new"))?.count() + std::fs::read_dir(folder.join("INBOX/cur"))?.count();
    ensure!(copied == MAILS, "mbsync has copied {copied} mails");
    Ok(seconds)
}

/// The seconds from a worker's start to the last ticket, and those of CPU of worker
/// and router.
async fn to_tickets(servers: &Servers, mail: &Mail, database: &Database, site: Site, name: &str) -> Result<(f64, f64)> {
    let account = settings::mailbox(name, DOMAIN, mail.imap_port, mail.smtp_port);
    let account = account.replace(&format!("queue = \"{name}\""), "queue = \"support\"\nsince = \"all\"");
    let site = site.with(&account)?;
    site.command(&["migrate"]).await?;
    let mut router = site.start("router").await?;
    database.skip_arrivals(servers.kafka().await?.port).await?;
    let began = Instant::now();
    let mut worker = site.start("worker").await?;
    let deadline = began + Duration::from_secs(300);
    loop {
        let metrics = ops::metrics(&router.ops).await?;
        let routed = ops::sum(&metrics, "tributary_routed_messages_total", "");
        if routed >= MAILS as f64 {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "only {routed} of {MAILS} mails became tickets"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let mut cpu = 0.0;
    for process in [&worker, &router] {
        cpu += cpu::seconds(process.pid().context("a role has ended")?)?;
    }
    worker.terminate().await?;
    router.terminate().await?;
    Ok((seconds, cpu))
}
