//! A gateway of a fault's own, and somebody who posts to it: whoever gets a 2xx from
//! it is owed something all the same.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::faults::Site;
use crate::faults::load::HOOKS;
use crate::faults::oracle::Input;
use crate::harness::customer::{SECRET, Sender, message, now_seconds, sign};
use crate::harness::ops;
use crate::harness::process::{Process, Start};
use crate::harness::random::Random;
use crate::harness::servers::free_ports;
use crate::harness::wait::until;

/// Longer than Kafka is ever away.
const FORWARDED_WITHIN: Duration = Duration::from_secs(700);

pub struct Gateway<'a> {
    pub process: Process,
    site: &'a Site,
    name: String,
    sender: Sender,
    next: Cell<usize>,
}

/// How to start one more gateway under this name.
pub async fn start_of(site: &Site, name: &str) -> Result<Start> {
    let processes = site.world.processes().await;
    let gateway = processes.iter().find(|process| process.name.starts_with("gateway"));
    let start = gateway.context("no gateway")?.twin(name)?;
    std::fs::create_dir_all(&start.dir)?;
    Ok(start)
}

impl<'a> Gateway<'a> {
    /// Starts it with these settings from the environment besides.
    pub async fn start(site: &'a Site, random: &mut Random, mut start: Start, told: &[(&str, &str)]) -> Result<Self> {
        let [port] = free_ports()?;
        let listen = format!("127.0.0.1:{port}");
        for (name, value) in told.iter().chain(&[("TRIBUTARY_PUBLIC__LISTEN", listen.as_str())]) {
            start.environment.retain(|(known, _)| known != name);
            start.environment.push(((*name).to_owned(), (*value).to_owned()));
        }
        Ok(Self {
            process: Process::start(&start).await?,
            site,
            name: format!("g{}", random.draw()),
            sender: Sender::new(&format!("http://{listen}"), HOOKS)?,
            next: Cell::new(0),
        })
    }

    /// Leaves for good, as an operator lets it: only when its spool is empty.
    pub async fn leave(mut self) -> Result<()> {
        until("its spool is forwarded", FORWARDED_WITHIN, async || {
            let metrics = ops::metrics(&self.process.ops).await?;
            Ok(ops::sum(&metrics, "tributary_pending", "spool") == 0.0)
        })
        .await?;
        self.process.terminate().await?;
        Ok(())
    }

    /// Posts one more; whether it was taken. Anything but 200 and 503 is wrong.
    pub async fn post(&self) -> Result<bool> {
        match self.post_at(0).await? {
            200 => Ok(true),
            503 => Ok(false),
            status => anyhow::bail!("a good post was refused: {status}"),
        }
    }

    /// Posts one more, signed so many seconds from now; the status.
    pub async fn post_at(&self, seconds: i64) -> Result<u16> {
        let index = self.next.replace(self.next.get() + 1);
        let id = format!("{}-{index}", self.name);
        let body = message("own@customer.example", &id, &format!("{id} is what I say."));
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
        let at = now_seconds()?.saturating_add_signed(seconds);
        let signature = sign(SECRET, &id, at, &bytes)?;
        let answer = self.sender.post_with(&id, at, &signature, bytes).await?;
        ensure!(answer.status < 500 || answer.status == 503, "{id}: {}", answer.status);
        if answer.status == 200 {
            let told: Value = serde_json::from_str(&answer.body)?;
            self.site.oracle.taken(&id, told["message_id"].as_str());
        }
        Ok(answer.status)
    }
}
