//! Somebody of a fault's own who posts, and a gateway of its own: whoever gets a 2xx
//! is owed something all the same.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::faults::Site;
use crate::faults::load::HOOKS;
use crate::faults::oracle::Input;
use crate::harness::customer::{SECRET, Sender, message, now_seconds, sign};
use crate::harness::desk::text as text_of;
use crate::harness::ops;
use crate::harness::process::{Process, Start};
use crate::harness::random::Random;
use crate::harness::servers::free_ports;
use crate::harness::wait::{eventually, until};

/// Longer than Kafka is ever away.
const FORWARDED_WITHIN: Duration = Duration::from_secs(700);
/// Posts at once.
const AT_ONCE: usize = 4;
/// Until somebody takes a message, and until it stands at the desk, whatever else is
/// broken meanwhile.
const TAKEN_WITHIN: Duration = Duration::from_secs(20);
const PASSES_WITHIN: Duration = Duration::from_secs(60);

/// Posts to one gateway.
pub struct Poster<'a> {
    site: &'a Site,
    name: String,
    sender: Sender,
    next: Cell<usize>,
}

pub struct Gateway<'a> {
    pub process: Process,
    pub poster: Poster<'a>,
}

/// How to start one more gateway under this name.
pub async fn start_of(site: &Site, name: &str) -> Result<Start> {
    twin_of(site, "gateway", name).await
}

/// How to start one more process of this role under this name.
pub async fn twin_of(site: &Site, role: &str, name: &str) -> Result<Start> {
    let processes = site.world.processes().await;
    let known = processes.iter().find(|process| process.name.starts_with(role));
    let start = known.with_context(|| format!("no {role}"))?.twin(name)?;
    std::fs::create_dir_all(&start.dir)?;
    Ok(start)
}

/// With these settings from the environment besides.
pub fn told(mut start: Start, told: &[(&str, &str)]) -> Start {
    for (name, value) in told {
        start.environment.retain(|(known, _)| known != name);
        start.environment.push(((*name).to_owned(), (*value).to_owned()));
    }
    start
}

impl<'a> Gateway<'a> {
    /// Starts it with these settings from the environment besides.
    pub async fn start(site: &'a Site, random: &mut Random, start: Start, more: &[(&str, &str)]) -> Result<Self> {
        let [port] = free_ports()?;
        let listen = format!("127.0.0.1:{port}");
        let start = told(told(start, more), &[("TRIBUTARY_PUBLIC__LISTEN", listen.as_str())]);
        Ok(Self {
            process: Process::start(&start).await?,
            poster: Poster::new(site, random, &format!("http://{listen}"))?,
        })
    }

    /// Leaves for good, as an operator lets it: only when its spool is empty.
    pub async fn leave(mut self) -> Result<()> {
        until("its spool is forwarded", FORWARDED_WITHIN, async || {
            Ok(self.spooled().await? == 0.0)
        })
        .await?;
        self.process.terminate().await?;
        Ok(())
    }

    /// What waits in its spool.
    pub async fn spooled(&self) -> Result<f64> {
        let metrics = ops::metrics(&self.process.ops).await?;
        Ok(ops::sum(&metrics, "tributary_pending", "spool"))
    }

    /// Posts one more; whether it was taken.
    pub async fn post(&self) -> Result<bool> {
        Ok(self.poster.post(0).await?.is_some())
    }

    /// Posts one more, signed so many seconds from now; the status.
    pub async fn post_at(&self, seconds: i64) -> Result<u16> {
        Ok(self.poster.post_at(seconds, 0).await?.0)
    }
}

impl<'a> Poster<'a> {
    pub fn new(site: &'a Site, random: &mut Random, public: &str) -> Result<Self> {
        Ok(Self {
            site,
            name: format!("g{}", random.draw()),
            sender: Sender::new(public, HOOKS)?,
            next: Cell::new(0),
        })
    }

    /// Posts one more, with so many bytes more than it takes; what it is called, if
    /// it was taken. Anything but 200 and 503 is wrong.
    pub async fn post(&self, bytes: usize) -> Result<Option<String>> {
        match self.post_at(0, bytes).await? {
            (200, message_id) => Ok(message_id),
            (503, _) => Ok(None),
            (status, _) => anyhow::bail!("a good post was refused: {status}"),
        }
    }

    /// Posts until nobody answers any more, several at once.
    pub async fn post_until_gone(&self) {
        let posting = async |_| while self.post(0).await.is_ok() {};
        futures_util::future::join_all((0..AT_ONCE).map(posting)).await;
    }

    /// The same as [`Poster::post`], signed so many seconds from now; the status, and what it is called.
    async fn post_at(&self, seconds: i64, bytes: usize) -> Result<(u16, Option<String>)> {
        let index = self.next.replace(self.next.get() + 1);
        let id = format!("{}-{index}", self.name);
        let body = message("own@customer.example", &id, &format!("{id} is what I say."));
        let mut raw = body.to_string().into_bytes();
        // Which JSON allows at its end.
        raw.resize(raw.len() + bytes, b' ');
        let input = Input {
            account: HOOKS,
            // Each begins a conversation.
            thread: id.clone(),
            index,
            raw: Some(raw.clone()),
            is_taken: false,
            message_id: None,
        };
        self.site.oracle.begin(&id, input);
        let at = now_seconds()?.saturating_add_signed(seconds);
        let signature = sign(SECRET, &id, at, &raw)?;
        let answer = self.sender.post_with(&id, at, &signature, raw).await?;
        ensure!(answer.status < 500 || answer.status == 503, "{id}: {}", answer.status);
        if answer.status != 200 {
            return Ok((answer.status, None));
        }
        let told: Value = serde_json::from_str(&answer.body)?;
        let message_id = text_of(&told, "message_id")?.to_owned();
        self.site.oracle.taken(&id, Some(&message_id));
        Ok((200, Some(message_id)))
    }
}

/// Posts a message to whichever gateway takes it, and waits until it is at the desk.
pub async fn passes(site: &Site, random: &mut Random) -> Result<Duration> {
    let began = Instant::now();
    let posters = site.world.public.iter().map(|public| Poster::new(site, random, public));
    let posters = posters.collect::<Result<Vec<_>>>()?;
    let message_id = eventually("a message is taken", TAKEN_WITHIN, async || {
        for poster in &posters {
            // Its gateway may just be dead.
            if let Ok(Some(message_id)) = poster.post(0).await {
                return Ok(Some(message_id));
            }
        }
        Ok(None)
    });
    let path = format!("/v1/messages/{}", message_id.await?);
    eventually("it is at the desk", PASSES_WITHIN, async || {
        site.world.desk.get(&path).await.map(Some)
    })
    .await?;
    Ok(began.elapsed())
}
