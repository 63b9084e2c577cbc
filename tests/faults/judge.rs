//! The judge: looks at everything from outside — the desk's API, an independent
//! consumer of Kafka, customers' mailboxes, the vendors — and holds it against what
//! the world was told.

mod clocks;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use prost_reflect::Value as Field;
use serde_json::Value;

use super::load::{ACCOUNTS, HOOKS, Load, MAIL};
use super::oracle::{Input, Oracle};
use crate::harness::customer::message;
use crate::harness::desk::text;
use crate::harness::kafka::{self, Record, field};
use crate::harness::mail::Received;
use crate::harness::wait::eventually;
use crate::harness::world::World;

/// A fresh message passes within so long.
const FRESH_WITHIN: Duration = Duration::from_secs(15);
/// Requests at once.
const AT_ONCE: usize = 8;
/// Of raw inputs and of clocks at most so many are compared, evenly spread.
const MOST_RAW: usize = 4_000;
const MOST_CLOCKS: usize = 60;
/// So much of what is wrong is told.
const MOST_TOLD: usize = 30;

/// What became of it.
#[derive(Debug, Default)]
pub struct Verdict {
    pub tally: Tally,
    /// Answers that came more than once under the same id, as resending may.
    pub copies: usize,
    pub wrong: Vec<String>,
}

/// What is said of it in the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub sent: usize,
    pub lost: usize,
    pub doubled: usize,
    pub uncertain: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            sent,
            lost,
            doubled,
            uncertain,
        } = self;
        write!(
            formatter,
            "sent {sent} lost {lost} doubled {doubled} uncertain {uncertain}"
        )
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.uncertain += other.uncertain;
    }
}

/// What lies on the desk.
#[derive(Default)]
struct Desk {
    tickets: Vec<Value>,
    /// Messages in their order, by conversation.
    conversations: BTreeMap<String, Vec<Value>>,
}

impl Verdict {
    /// Says what is wrong.
    pub fn tell(&self) {
        for wrong in self.wrong.iter().take(MOST_TOLD) {
            println!("      {wrong}");
        }
    }

    pub fn ensure_clean(&self) -> Result<()> {
        let count = self.wrong.len();
        ensure!(
            self.tally.lost == 0 && self.tally.doubled == 0 && count == 0,
            "lost {}, doubled {}, wrong in {count} ways, first {:?}",
            self.tally.lost,
            self.tally.doubled,
            self.wrong.first()
        );
        ensure!(self.tally.sent > 0, "nothing was sent");
        Ok(())
    }

    fn lose(&mut self, what: String) {
        self.tally.lost += 1;
        self.wrong.push(format!("lost: {what}"));
    }

    fn double(&mut self, what: String) {
        self.tally.doubled += 1;
        self.wrong.push(format!("doubled: {what}"));
    }
}

/// Looks at all of it.
pub async fn judge(world: &Arc<World>, oracle: &Oracle, load: &Load) -> Result<Verdict> {
    let began = Instant::now();
    let mut verdict = Verdict {
        wrong: oracle.all_wrong(),
        ..Verdict::default()
    };
    let desk = look(world).await?;
    let inputs = oracle.inputs();
    verdict.tally.sent = inputs.values().filter(|input| input.is_taken).count();
    let found = stored_once(&desk, &inputs, &mut verdict);
    in_order(&desk, &inputs, &mut verdict);
    one_effect_each(&desk, &found, &mut verdict);
    parked(world, oracle, &mut verdict).await?;
    raw_is_what_was_sent(world, &inputs, &found, &mut verdict).await?;
    if world.name != "light" {
        kafka_has_it(world, &inputs, &found, &mut verdict).await?;
    }
    let step = desk.tickets.len() / MOST_CLOCKS + 1;
    for ticket in desk.tickets.iter().step_by(step) {
        clocks::recompute(ticket, &mut verdict.wrong)?;
    }
    told::replies_arrived_once(world, oracle, load, &desk.conversations, &mut verdict)?;
    told::visitors_see_everything(world, load, &inputs, &oracle.replies(), &mut verdict).await?;
    if let Err(error) = fresh_passes(world, load).await {
        verdict.wrong.push(format!("a fresh message does not pass: {error:#}"));
    }
    println!(
        "      judged {} tickets, {} conversations in {:.1} s",
        desk.tickets.len(),
        desk.conversations.len(),
        began.elapsed().as_secs_f32()
    );
    Ok(verdict)
}

async fn look(world: &World) -> Result<Desk> {
    let mut desk = Desk::default();
    for account in ACCOUNTS {
        let listed = world.desk.tickets(account).await?;
        let shown = stream::iter(listed).map(async |ticket| world.desk.show(text(&ticket, "number")?).await);
        let tickets: Vec<Value> = shown.buffer_unordered(AT_ONCE).try_collect().await?;
        let mut conversations = Vec::new();
        for ticket in &tickets {
            let ids = ticket["conversations"].as_array().context("no conversations")?;
            conversations.extend(ids.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        let read = stream::iter(conversations).map(async |id| {
            let messages = world.desk.messages(&id).await?;
            anyhow::Ok((id, messages))
        });
        let read: Vec<_> = read.buffer_unordered(AT_ONCE).try_collect().await?;
        desk.conversations.extend(read);
        desk.tickets.extend(tickets);
    }
    Ok(desk)
}

/// The id that a message was sent under stands first in its text.
pub(super) fn id_of(message: &Value) -> &str {
    message["text"].as_str().and_then(first_word).unwrap_or_default()
}

pub(super) fn first_word(text: &str) -> Option<&str> {
    text.split_whitespace().next()
}

/// Every obligation is one message, and nothing is there that nobody sent. Gives the
/// messages by the ids of the inputs.
fn stored_once<'a>(
    desk: &Desk,
    inputs: &'a BTreeMap<String, Input>,
    verdict: &mut Verdict,
) -> BTreeMap<&'a str, String> {
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for message in desk.conversations.values().flatten() {
        if message["direction"] != "inbound" {
            continue;
        }
        let message_id = message["id"].as_str().unwrap_or_default().to_owned();
        match inputs.get_key_value(id_of(message)) {
            Some((id, _)) => found.entry(id).or_default().push(message_id),
            None => verdict.wrong.push(format!("stored and never sent: {message}")),
        }
    }
    let mut stored = BTreeMap::new();
    for (id, input) in inputs {
        match found.get(id.as_str()).map(Vec::as_slice) {
            None if input.is_taken => verdict.lose(id.clone()),
            None => {}
            Some([only]) => {
                if input.message_id.as_ref().is_some_and(|told| told != only) {
                    verdict
                        .wrong
                        .push(format!("{id} was called {:?} and is {only}", input.message_id));
                }
                stored.insert(id.as_str(), only.clone());
            }
            Some(several) => verdict.double(format!("{id}: {several:?}")),
        }
    }
    stored
}

/// All of one person is one conversation, in the order in which it was said.
fn in_order(desk: &Desk, inputs: &BTreeMap<String, Input>, verdict: &mut Verdict) {
    let mut homes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (conversation, messages) in &desk.conversations {
        let mut last = None;
        for message in messages.iter().filter(|message| message["direction"] == "inbound") {
            let Some(input) = inputs.get(id_of(message)) else {
                continue;
            };
            homes.entry(&input.thread).or_default().insert(conversation);
            if last.is_some_and(|last| input.index <= last) {
                let id = id_of(message);
                verdict
                    .wrong
                    .push(format!("out of order in {conversation}: {id} after {last:?}"));
            }
            last = Some(input.index);
        }
    }
    for (thread, conversations) in homes {
        if conversations.len() > 1 {
            verdict
                .wrong
                .push(format!("{thread} is in {} conversations", conversations.len()));
        }
    }
}

/// Each message is one event of one ticket.
fn one_effect_each(desk: &Desk, found: &BTreeMap<&str, String>, verdict: &mut Verdict) {
    let mut effects: BTreeMap<&str, usize> = BTreeMap::new();
    for ticket in &desk.tickets {
        for event in ticket["events"].as_array().into_iter().flatten() {
            if event["type"] == "customer_message_received"
                && let Some(message_id) = event["data"]["message_id"].as_str()
            {
                *effects.entry(message_id).or_default() += 1;
            }
        }
    }
    for (id, message_id) in found {
        match effects.get(message_id.as_str()) {
            Some(1) => {}
            None => verdict.wrong.push(format!("{id} had no effect on a ticket")),
            Some(count) => verdict.double(format!("{id} had {count} effects")),
        }
    }
}

/// What nobody can read waits for a person, each once.
async fn parked(world: &World, oracle: &Oracle, verdict: &mut Verdict) -> Result<()> {
    let parked = world.desk.list("/v1/parked").await?;
    // Under a wrong clock good signatures look bad: those are in quarantine.
    let parked = parked.iter().filter(|input| input["quarantined"] == false);
    let ours = parked.filter(|input| ACCOUNTS.contains(&input["account"].as_str().unwrap_or_default()));
    let (found, sent) = (ours.count(), oracle.poisoned.load(Ordering::Relaxed));
    if found < sent {
        verdict.lose(format!("{} of {sent} unreadable mails are not parked", sent - found));
    }
    if found > sent {
        verdict.double(format!("{found} inputs are parked, {sent} unreadable mails were sent"));
    }
    Ok(())
}

async fn raw_is_what_was_sent(
    world: &World,
    inputs: &BTreeMap<String, Input>,
    found: &BTreeMap<&str, String>,
    verdict: &mut Verdict,
) -> Result<()> {
    let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for bytes in world.mail.imap_bodies(&world.ours(MAIL)).await? {
        // Those that no parser can follow are not asked for.
        if let Ok(mail) = Received::new(bytes)
            && let Some(id) = mail.header("Subject")
        {
            bodies.insert(id.to_owned(), mail.bytes.clone());
        }
    }
    let expected: Vec<(&str, &String, &Vec<u8>)> = found
        .iter()
        .filter_map(|(id, message_id)| {
            let raw = inputs.get(*id)?.raw.as_ref().or_else(|| bodies.get(*id))?;
            Some((*id, message_id, raw))
        })
        .collect();
    let step = expected.len() / MOST_RAW + 1;
    let reading = stream::iter(expected.into_iter().step_by(step)).map(async |(id, message_id, raw)| {
        let stored = world.desk.get_bytes(&format!("/v1/messages/{message_id}/raw")).await?;
        anyhow::Ok((id.to_owned(), stored == *raw))
    });
    let read: Vec<_> = reading.buffer_unordered(AT_ONCE).try_collect().await?;
    let differing = read.iter().filter(|(_, is_same)| !is_same);
    verdict
        .wrong
        .extend(differing.map(|(id, _)| format!("the raw input of {id} is not what was sent")));
    Ok(())
}

/// The log has every message, with the bytes that were sent, and none that nobody sent.
async fn kafka_has_it(
    world: &World,
    inputs: &BTreeMap<String, Input>,
    found: &BTreeMap<&str, String>,
    verdict: &mut Verdict,
) -> Result<()> {
    let kafka = world.servers.kafka().await?;
    let is_ours = |record: &Record| {
        let account = record
            .header("ce_source")
            .and_then(|source| source.strip_prefix("/accounts/"));
        let is_message = record
            .header("ce_type")
            .is_some_and(|kind| kind.ends_with("message_received"));
        is_message && account.is_some_and(|account| ACCOUNTS.contains(&account))
    };
    let records = kafka::all(kafka, is_ours).await?;
    let mut logged = BTreeSet::new();
    for record in &records {
        let said = field(&record.event, "message_received.text")?;
        let id = said.as_str().and_then(first_word).unwrap_or_default();
        let Some(input) = inputs.get(id) else {
            verdict.wrong.push(format!("in Kafka and never sent: {id}"));
            continue;
        };
        if let (Some(raw), Field::Bytes(bytes)) = (&input.raw, field(&record.event, "raw.inline")?)
            // Large ones are blobs.
            && !bytes.is_empty()
            && *raw != bytes
        {
            verdict.wrong.push(format!("Kafka has other bytes of {id}"));
        }
        logged.insert(record.header("ce_id").unwrap_or_default().to_owned());
    }
    for (id, message_id) in found {
        if !logged.contains(message_id) {
            verdict.lose(format!("{id} is not in Kafka"));
        }
    }
    println!("      {} records in Kafka for {} messages", records.len(), found.len());
    Ok(())
}

/// All is as before: a message comes in, and its answer goes out.
async fn fresh_passes(world: &World, load: &Load) -> Result<()> {
    let began = Instant::now();
    let said = message("fresh@customer.example", "Fresh", "fresh is what I say.");
    let answer = world.sender(HOOKS)?.send("fresh", &said).await?;
    ensure!(answer.status == 200, "answered {} {}", answer.status, answer.body);
    let told: Value = serde_json::from_str(&answer.body)?;
    let path = format!("/v1/messages/{}", text(&told, "message_id")?);
    let stored = eventually("it is on the desk", FRESH_WITHIN, async || {
        Ok(world.desk.get(&path).await.ok())
    })
    .await?;
    let answer = "freshly answered.";
    let conversation = text(&stored, "conversation_id")?;
    let reply = world.desk.reply(conversation, "fresh-reply", answer).await?;
    let reply = text(&reply, "id")?;
    // The receiver may not be in the mood at first.
    eventually("its answer has left", FRESH_WITHIN, async || {
        Ok(load.receiver.seen().contains_key(reply).then_some(()))
    })
    .await?;
    println!("      a fresh message passed in {:.1} s", began.elapsed().as_secs_f32());
    Ok(())
}
