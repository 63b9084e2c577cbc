//! SLA clocks: a pure function of the ticket's events, the policy's version and
//! the calendar's version.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::calendar::Calendar;
use crate::time::Moment;

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Until the first answer of a person.
    FirstResponse,
    /// Until the answer to the oldest unanswered message.
    NextResponse,
    /// Until the ticket is resolved.
    Resolution,
}

/// A policy: what is promised to whom, by which calendar. (Fields are the sla module's.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub name: String,
    /// Name of a calendar; without one, around the clock.
    #[serde(default)]
    pub calendar: Option<String>,
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
    pub calendars: BTreeMap<(String, i64), Arc<Calendar>>,
}

/// One promise to one ticket, counting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    pub metric: Metric,
    pub state: ClockState,
    /// From when it counts.
    pub started_at: Moment,
    /// When it will have been missed; `None` while it is paused or after its end.
    pub due_at: Option<Moment>,
    /// The next moment at which the router must act: its warning, then its breach.
    pub next_at: Option<Moment>,
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
