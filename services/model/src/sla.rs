//! SLA clocks: a pure function of the ticket's events, the policy's version and
//! the calendar's version.
//!
//! This file has what is promised; `sla/count.rs` counts.

mod count;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::calendar::BusinessTime;
use crate::ticket::Category;
use crate::ticket::priority::Priority;
use crate::time::Moment;

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Until the first answer of a person, from the opening on.
    FirstResponse,
    /// Until a person answers the oldest unanswered message, once the first
    /// response is given. A resolution answers all.
    NextResponse,
    /// Until the ticket is resolved, from the opening on, without the time in the
    /// categories of [`Policy::pause_resolution_on`] and the time it was resolved.
    Resolution,
}

/// A policy: what is promised to whom, by which calendar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub name: String,
    /// Name of a calendar; without one, around the clock.
    #[serde(default)]
    pub calendar: Option<String>,
    #[serde(default)]
    pub first_response: Option<Target>,
    #[serde(default)]
    pub next_response: Option<Target>,
    #[serde(default)]
    pub resolution: Option<Target>,
    /// In these categories the resolution clock stands still.
    #[serde(default = "default_pause")]
    pub pause_resolution_on: Vec<Category>,
    /// The part of a target after which people are warned.
    #[serde(default = "default_warn_percent")]
    pub warn_percent: u8,
}

/// How long something may take, by priority. Settings give one length for all
/// (`"4h"`) or a table (`{ "1" = "15m", "2" = "1h", default = "8h" }`); a priority
/// that the table leaves out has no target.
///
/// Lengths are of business time: with a calendar of eight hours a day, `8h` is a
/// working day. A `d` is 24 hours of business time too, not a working day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DeclaredTarget", into = "DeclaredTarget")]
pub struct Target([Option<i64>; 5]);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum DeclaredTarget {
    All(String),
    ByPriority(BTreeMap<String, String>),
}

/// The policy of a ticket, frozen at the versions of its opening, so that a
/// recomputation gives what ran live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReference {
    pub name: String,
    pub version: i64,
    /// Version of the policy's calendar; 0 without one.
    pub calendar_version: i64,
}

/// All versions of policies and calendars, as clocks need them.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub policies: BTreeMap<(String, i64), Arc<Policy>>,
    /// By name and version, as [`crate::calendar::Calendar::compile`] made them.
    pub calendars: BTreeMap<(String, i64), Arc<BusinessTime>>,
}

/// One promise to one ticket, counting. There is one clock a metric: a new run of
/// the next response replaces the run before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    pub metric: Metric,
    pub state: ClockState,
    /// What was promised, in business time. `None`: nothing at the ticket's present
    /// priority; the clock counts silently, in case the priority changes.
    pub target_ms: Option<i64>,
    /// From when it counts.
    pub started_at: Moment,
    /// Since when it is in its state: running, paused, met or cancelled.
    pub since: Moment,
    /// Business time that had passed by `since`.
    pub elapsed_ms: i64,
    /// When it will have been missed; `None` while it is paused or after its end.
    pub due_at: Option<Moment>,
    /// The next moment at which the router must act: its warning, then its breach.
    pub next_at: Option<Moment>,
    pub warned_at: Option<Moment>,
    /// When it was missed; it may run on, and be met late.
    pub breached_at: Option<Moment>,
}

/// Where a clock stands. Breached is not an end: it is `breached_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockState {
    Running,
    Paused,
    Met,
    Cancelled,
}

/// Ten years: no promise is longer.
const MAX_TARGET_MS: i64 = BusinessTime::HORIZON_MS;

impl Policy {
    /// Says all that contradicts itself in it, given the names of the calendars.
    pub fn validate(&self, calendars: &BTreeSet<String>) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        if let Some(calendar) = &self.calendar
            && !calendars.contains(calendar)
        {
            let known: Vec<_> = calendars.iter().map(String::as_str).collect();
            errors.push(format!("unknown calendar `{calendar}`; known: {}", known.join(", ")));
        }
        for category in &self.pause_resolution_on {
            let may_pause = matches!(category, Category::WaitingOnCustomer | Category::WaitingInternally);
            if !may_pause {
                errors.push(format!(
                    "pause_resolution_on: the clock cannot pause in {}, there it runs or ends; \
                     possible: waiting_on_customer, waiting_internally",
                    category.as_str()
                ));
            }
        }
        if !(1..=99).contains(&self.warn_percent) {
            errors.push(format!("warn_percent is {}; possible: 1 to 99", self.warn_percent));
        }
        self.validate_targets(&mut errors);
        if errors.is_empty() {
            return Ok(());
        }
        let name = &self.name;
        Err(errors
            .into_iter()
            .map(|error| format!("policy `{name}`: {error}"))
            .collect())
    }

    fn validate_targets(&self, errors: &mut Vec<String>) {
        let targets = [
            ("first_response", self.first_response),
            ("next_response", self.next_response),
            ("resolution", self.resolution),
        ];
        for (name, target) in targets {
            if target.is_some_and(|target| target.0.contains(&Some(0))) {
                errors.push(format!("{name} is 0: it would be missed at once"));
            }
        }
        let (Some(first), Some(resolution)) = (self.first_response, self.resolution) else {
            return;
        };
        for (priority, (first, resolution)) in (1..).zip(first.0.into_iter().zip(resolution.0)) {
            if let (Some(first), Some(resolution)) = (first, resolution)
                && first > resolution
            {
                errors.push(format!(
                    "at priority {priority} first_response ({}) is longer than resolution ({})",
                    format_length(first),
                    format_length(resolution)
                ));
            }
        }
    }

    /// What is promised for the metric at any priority; `None`: it has no clock.
    pub fn target(&self, metric: Metric) -> Option<Target> {
        match metric {
            Metric::FirstResponse => self.first_response,
            Metric::NextResponse => self.next_response,
            Metric::Resolution => self.resolution,
        }
    }
}

impl Target {
    /// Milliseconds of business time; `None` if nothing is promised at this priority.
    pub fn at_ms(self, priority: Priority) -> Option<i64> {
        let index = usize::from(priority.number()).checked_sub(1)?;
        self.0.get(index).copied().flatten()
    }
}

impl TryFrom<DeclaredTarget> for Target {
    type Error = String;

    fn try_from(declared: DeclaredTarget) -> Result<Self, String> {
        let table = match declared {
            DeclaredTarget::All(text) => return Ok(Self([Some(parse_length(&text)?); 5])),
            DeclaredTarget::ByPriority(table) => table,
        };
        if table.is_empty() {
            return Err("a table of targets needs a priority (1 to 5) or default".to_owned());
        }
        let default = table.get("default").map(|text| parse_length(text)).transpose()?;
        let mut targets = [default; 5];
        for (key, text) in table.iter().filter(|(key, _)| *key != "default") {
            let index = ["1", "2", "3", "4", "5"].iter().position(|known| known == key);
            let index = index.ok_or_else(|| format!("unknown priority `{key}`; known: 1 to 5, default"))?;
            targets[index] = Some(parse_length(text)?);
        }
        Ok(Self(targets))
    }
}

impl From<Target> for DeclaredTarget {
    fn from(target: Target) -> Self {
        match target.0 {
            [Some(first), rest @ ..] if rest == [Some(first); 4] => Self::All(format_length(first)),
            lengths => Self::ByPriority(
                (1..)
                    .zip(lengths)
                    .filter_map(|(priority, length)| Some((priority.to_string(), format_length(length?))))
                    .collect(),
            ),
        }
    }
}

const UNITS: [(char, i64); 4] = [('d', 86_400_000), ('h', 3_600_000), ('m', 60_000), ('s', 1_000)];

/// `1h30m` as milliseconds.
fn parse_length(text: &str) -> Result<i64, String> {
    let malformed = || format!("`{text}` is no length like 30m, 4h, 1h30m or 3d");
    let mut rest = text.trim();
    let mut total: i64 = 0;
    let mut units = UNITS.iter();
    if rest.is_empty() {
        return Err(malformed());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: i64 = rest[..digits].parse().map_err(|_| malformed())?;
        let unit = rest[digits..].chars().next().ok_or_else(malformed)?;
        let (_, unit_ms) = units.find(|(known, _)| *known == unit).ok_or_else(malformed)?;
        total = total.saturating_add(count.saturating_mul(*unit_ms));
        rest = &rest[digits + unit.len_utf8()..];
    }
    if total > MAX_TARGET_MS {
        return Err(format!("`{text}` is longer than ten years"));
    }
    Ok(total)
}

fn format_length(mut ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, unit_ms) in UNITS {
        if ms >= unit_ms {
            text.push_str(&format!("{}{unit}", ms / unit_ms));
            ms %= unit_ms;
        }
    }
    text
}

fn default_pause() -> Vec<Category> {
    vec![Category::WaitingOnCustomer]
}

fn default_warn_percent() -> u8 {
    75
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ticket::priority::Level;

    fn policy(fields: Value) -> Result<Policy, String> {
        let mut declared = json!({ "name": "standard" });
        for (key, value) in fields.as_object().unwrap() {
            declared[key] = value.clone();
        }
        serde_json::from_value(declared).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_lengths() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(
                parse_length(text).ok(),
                expected.map(|minutes| minutes * 60_000),
                "{text}"
            );
        };
        check("30m", Some(30));
        check("4h", Some(240));
        check("1h30m", Some(90));
        check("3d", Some(3 * 24 * 60));
        check("1d2h3m60s", Some(24 * 60 + 2 * 60 + 4));
        check(" 5m ", Some(5));
        check("0m", Some(0));
        check("3653d", Some(3653 * 24 * 60));
        for text in [
            "",
            " ",
            "5",
            "m",
            "h5",
            "5 m",
            "1.5h",
            "-5m",
            "+5m",
            "5M",
            "30m1h",
            "1h1h",
            "5µ",
            "5w",
            "3654d",
            "٣m",
            "99999999999999999999h",
            "9223372036854775807d",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn targets_by_priority() {
        let priorities = [
            (Level::High, Level::High),
            (Level::High, Level::Medium),
            (Level::Low, Level::Low),
        ];
        let check = |declared: Value, expected: [Option<i64>; 3]| {
            let policy = policy(json!({ "resolution": declared })).unwrap();
            let target = policy.target(Metric::Resolution).unwrap();
            let hours =
                priorities.map(|(impact, urgency)| Some(target.at_ms(Priority::of(impact, urgency))? / 3_600_000));
            assert_eq!(hours, expected, "{declared}");
            assert_eq!(policy.target(Metric::FirstResponse), None);
            // What the store keeps reads the same.
            let again: Policy = serde_json::from_value(serde_json::to_value(&policy).unwrap()).unwrap();
            assert_eq!(again, policy);
        };
        check(json!("4h"), [Some(4); 3]);
        check(json!({ "default": "8h" }), [Some(8); 3]);
        check(
            json!({ "1": "1h", "2": "2h", "default": "8h" }),
            [Some(1), Some(2), Some(8)],
        );
        check(json!({ "1": "1h" }), [Some(1), None, None]);
        check(json!({ "5": "36h" }), [None, None, Some(36)]);
        // The store may hold anything; a priority that is none has no target.
        let nine: Priority = serde_json::from_value(json!(9)).unwrap();
        let zero: Priority = serde_json::from_value(json!(0)).unwrap();
        let target = policy(json!({ "resolution": "4h" })).unwrap().resolution.unwrap();
        assert_eq!((target.at_ms(nine), target.at_ms(zero)), (None, None));
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        let check = |fields: Value, expected: &str| {
            let error = policy(fields).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(json!({ "resolution": "soon" }), "`soon` is no length like 30m");
        check(
            json!({ "resolution": { "6": "1h" } }),
            "unknown priority `6`; known: 1 to 5, default",
        );
        check(json!({ "resolution": { "high": "1h" } }), "unknown priority `high`");
        check(json!({ "resolution": { "1": "x" } }), "`x` is no length");
        check(json!({ "resolution": {} }), "needs a priority");
        check(json!({ "response": "1h" }), "unknown field `response`");
        check(json!({ "pause_resolution_on": ["lunch"] }), "lunch");
        check(json!({ "warn_percent": 300 }), "300");
    }

    #[test]
    fn defaults() {
        let policy = policy(json!({})).unwrap();
        assert_eq!(policy.pause_resolution_on, [Category::WaitingOnCustomer]);
        assert_eq!((policy.warn_percent, policy.calendar), (75, None));
    }

    #[test]
    fn finds_contradictions() {
        let calendars = BTreeSet::from(["office".to_owned(), "round".to_owned()]);
        let check = |fields: Value, expected: &[&str]| {
            let errors = policy(fields.clone())
                .unwrap()
                .validate(&calendars)
                .err()
                .unwrap_or_default();
            assert_eq!(errors.len(), expected.len(), "{fields}: {errors:?}");
            for (error, part) in errors.iter().zip(expected) {
                assert!(
                    error.starts_with("policy `standard`: ") && error.contains(part),
                    "{error}"
                );
            }
        };
        check(json!({}), &[]);
        check(
            json!({ "calendar": "office", "first_response": "4h", "next_response": "8h", "resolution": "3d" }),
            &[],
        );
        check(json!({ "first_response": "4h", "resolution": "4h" }), &[]);
        check(
            json!({ "pause_resolution_on": ["waiting_on_customer", "waiting_internally"] }),
            &[],
        );
        check(json!({ "pause_resolution_on": [], "warn_percent": 99 }), &[]);
        check(
            json!({ "calendar": "ofice" }),
            &["unknown calendar `ofice`; known: office, round"],
        );
        check(json!({ "first_response": "0m" }), &["first_response is 0"]);
        check(
            json!({ "resolution": { "1": "0s", "default": "1h" } }),
            &["resolution is 0"],
        );
        check(
            json!({ "pause_resolution_on": ["resolved"] }),
            &["the clock cannot pause in resolved"],
        );
        check(
            json!({ "pause_resolution_on": ["closed", "open"] }),
            &["pause in closed", "pause in open"],
        );
        check(json!({ "warn_percent": 0 }), &["warn_percent is 0"]);
        check(json!({ "warn_percent": 100 }), &["warn_percent is 100"]);
        check(
            json!({ "first_response": "4h", "resolution": { "1": "3h30m", "default": "1d" } }),
            &["at priority 1 first_response (4h) is longer than resolution (3h30m)"],
        );
        check(
            json!({ "first_response": { "1": "4h" }, "resolution": { "2": "1h" } }),
            &[],
        );
        check(
            json!({ "calendar": "x", "warn_percent": 0, "next_response": "0m" }),
            &["unknown calendar", "warn_percent", "next_response is 0"],
        );
    }
}
