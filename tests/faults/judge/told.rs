//! What went out: every answer reached the customer's side once, or is marked
//! uncertain; and what a visitor of the chat is shown.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Verdict, first_word, id_of};
use crate::faults::load::{CHAT, Load, SMS};
use crate::faults::oracle::{Input, Oracle, Reply};
use crate::harness::chat::Socket;
use crate::harness::mail::Received;
use crate::harness::world::World;
use crate::vendors::lock;

/// Under which ids an answer came, each as often as it came.
type Arrivals = BTreeMap<String, Vec<String>>;

/// Every answer is one message, and came once or is uncertain.
pub fn replies_arrived_once(
    world: &World,
    oracle: &Oracle,
    load: &Load,
    conversations: &BTreeMap<String, Vec<Value>>,
    verdict: &mut Verdict,
) -> Result<()> {
    let arrivals = arrivals(world, load)?;
    let mut stored: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for message in conversations.values().flatten() {
        if message["direction"] == "outbound" {
            stored.entry(id_of(message)).or_default().push(message);
        }
    }
    let mut states: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for (id, reply) in oracle.replies() {
        let message = match stored.get(id.as_str()).map(Vec::as_slice) {
            Some([message]) => *message,
            Some(several) => {
                verdict.double(format!("the answer {id} is {} messages", several.len()));
                continue;
            }
            None => {
                verdict.lose(format!("the answer {id}"));
                continue;
            }
        };
        let state = message["delivery"].as_str().unwrap_or_default();
        *states.entry((reply.account, state.to_owned())).or_default() += 1;
        arrived_once(&id, &reply, state, arrivals.get(&id), verdict);
    }
    println!("      answers: {states:?}");
    Ok(())
}

fn arrived_once(id: &str, reply: &Reply, state: &str, came: Option<&Vec<String>>, verdict: &mut Verdict) {
    let came = came.map(Vec::as_slice).unwrap_or_default();
    let mut names = came.to_vec();
    names.sort();
    names.dedup();
    verdict.copies += came.len() - names.len();
    match state {
        "uncertain" => verdict.tally.uncertain += 1,
        // A visitor's answer has no way out: he is shown it.
        "sent" | "delivered" | "read" if reply.account == CHAT || !came.is_empty() => {}
        _ => verdict.lose(format!("the answer {id} is {state:?} and came {} times", came.len())),
    }
    if names.len() > 1 {
        verdict.double(format!("the answer {id} came as {names:?}"));
    }
    // Whoever may not send again must not.
    if reply.account == SMS && came.len() > 1 {
        verdict.double(format!("the answer {id} came {} times", came.len()));
    }
}

/// What came to customers, by the ids in the texts.
fn arrivals(world: &World, load: &Load) -> Result<Arrivals> {
    let mut arrivals = Arrivals::new();
    let mut came = |text: &str, name: String| {
        if let Some(id) = first_word(text) {
            arrivals.entry(id.to_owned()).or_default().push(name);
        }
    };
    for (name, texts) in load.receiver.seen() {
        for text in texts {
            came(&text, name.clone());
        }
    }
    for form in load.twilio.messages() {
        let name = form.get("MessageSid").unwrap_or_default().to_owned();
        came(form.get("Body").unwrap_or_default(), name);
    }
    for customer in ["gina", "hanna"] {
        for bytes in world.mail.mails(&world.theirs(customer))? {
            let mail = Received::new(bytes)?;
            came(&mail.text, mail.required("Message-ID")?.to_owned());
        }
    }
    Ok(arrivals)
}

/// A visitor who comes again is shown everything, once, and no number is left out.
pub async fn visitors_see_everything(
    world: &World,
    load: &Load,
    inputs: &BTreeMap<String, Input>,
    replies: &BTreeMap<String, Reply>,
    verdict: &mut Verdict,
) -> Result<()> {
    let visitors = lock(&load.visitors).clone();
    for (number, (name, session)) in visitors.iter().enumerate() {
        let public = &world.public[number % world.public.len()];
        let shown = shown(public, session)
            .await
            .with_context(|| format!("the view of {name}"))?;
        // Numbers are given as messages are applied, so what waited in a gateway's spool
        // may be shown behind what was said later at another gateway.
        let expected = inputs
            .iter()
            .filter(|(_, input)| input.account == CHAT && input.thread == *name);
        let expected: BTreeSet<&str> = expected.map(|(id, _)| id.as_str()).collect();
        let said: Vec<&str> = shown
            .iter()
            .filter(|frame| frame["from"] == "visitor")
            .map(id_of)
            .collect();
        let said_once: BTreeSet<&str> = said.iter().copied().collect();
        if said.len() != said_once.len() || said_once != expected {
            verdict
                .wrong
                .push(format!("{name} said {expected:?} and is shown {said:?}"));
        }
        for frame in shown.iter().filter(|frame| frame["from"] == "agent") {
            if !replies.contains_key(id_of(frame)) {
                verdict
                    .wrong
                    .push(format!("{name} is shown what nobody wrote: {frame}"));
            }
        }
    }
    Ok(())
}

/// All messages of a conversation, whose numbers must have no gap.
async fn shown(public: &str, session: &str) -> Result<Vec<Value>> {
    let mut socket = Socket::visit(public, CHAT, Some(session)).await?;
    let resumed = socket.resume(None).await?;
    let last = resumed["sequence"].as_i64().context("no sequence")?;
    let mut shown: Vec<Value> = Vec::new();
    while shown.last().is_none_or(|frame| frame["sequence"].as_i64() < Some(last)) && last > 0 {
        let frame = socket.frame("message").await?;
        if let Some(before) = shown.last().and_then(|frame| frame["sequence"].as_i64()) {
            ensure!(frame["sequence"] == before + 1, "a gap after {before}: {frame}");
        }
        shown.push(frame);
    }
    Ok(shown)
}
