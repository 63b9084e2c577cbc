//! Clocks, counted again from a ticket's events, as slowly and plainly as possible.

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;

use crate::harness::desk::{clock, text};
use crate::office;

const HOUR_MS: i64 = 3_600_000;
/// What every queue promises, see `harness/settings.rs`.
const PROMISES: [(&str, i64); 3] = [("first_response", 4), ("next_response", 6), ("resolution", 16)];

/// Where a clock stands by our own count.
#[derive(Clone, Copy, Debug)]
struct Count {
    started: Timestamp,
    met: Option<Timestamp>,
}

/// Holds a ticket's clocks against its events.
pub fn recompute(ticket: &Value, wrong: &mut Vec<String>) -> Result<()> {
    let counts = count(ticket)?;
    for ((metric, hours), count) in PROMISES.into_iter().zip(counts) {
        let shown = clock(ticket, metric).ok();
        let is_right = match (count, shown) {
            (None, None) => true,
            (Some(count), Some(clock)) => is_same(count, clock, hours * HOUR_MS)?,
            _ => false,
        };
        if !is_right {
            let number = &ticket["number"];
            wrong.push(format!("{metric} of {number} should be {count:?} and is {shown:?}"));
        }
    }
    Ok(())
}

/// First response, next response, resolution; nobody resolves anything here.
fn count(ticket: &Value) -> Result<[Option<Count>; 3]> {
    let opened: Timestamp = text(ticket, "opened_at")?.parse()?;
    let begun = |started| Some(Count { started, met: None });
    let (mut first, mut next) = (begun(opened), None);
    let is_true = |event: &Value, name: &str| event["data"][name] == true;
    for event in ticket["events"].as_array().context("no events")? {
        let at: Timestamp = text(event, "at")?.parse()?;
        let is_answered = first.is_some_and(|first| first.met.is_some());
        match text(event, "type")? {
            "replied" if !is_true(event, "automatic") => {
                for count in [&mut first, &mut next].into_iter().flatten() {
                    count.met.get_or_insert(at.max(count.started));
                }
            }
            "customer_message_received" if is_answered && !is_true(event, "automatic") && !is_true(event, "late") => {
                next = match next {
                    Some(running @ Count { met: None, .. }) => begun(running.started.min(at)),
                    _ => begun(at),
                };
            }
            _ => {}
        }
    }
    Ok([first, next, begun(opened)])
}

fn is_same(count: Count, clock: &Value, promised_ms: i64) -> Result<bool> {
    let moment = |name: &str| clock[name].as_str().map(str::parse::<Timestamp>).transpose();
    let is_started = moment("started_at")? == Some(count.started);
    Ok(is_started
        && match count.met {
            Some(met) => clock["state"] == "met" && moment("met_at")? == Some(met),
            None => clock["state"] == "running" && moment("due_at")? == Some(office::add(count.started, promised_ms)?),
        })
}
