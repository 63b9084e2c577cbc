//! Rules: an ordered list, the first match wins; a condition is a tree of
//! `all`, `any`, `not` over `field operator value`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ticket::priority::Level;
use crate::trace::RuleTrace;

/// What the conditions of a rule may ask for, by field name. `decide` fills it.
pub type Facts = BTreeMap<String, serde_json::Value>;

/// One rule, as settings declare it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub name: String,
    /// Without it, the rule always matches.
    #[serde(default)]
    pub when: Option<Condition>,
    pub then: Actions,
}

/// A condition tree. `{ all = [...] }`, `{ any = [...] }`, `{ not = {...} }` or
/// `{ field = "...", operator = "...", value = ... }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Condition {
    All {
        all: Vec<Condition>,
    },
    Any {
        any: Vec<Condition>,
    },
    Not {
        not: Box<Condition>,
    },
    Leaf {
        field: String,
        operator: String,
        #[serde(default)]
        value: serde_json::Value,
    },
}

/// What a matching rule sets; what it leaves out keeps its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Actions {
    /// `case`, `incident`, or `none` for no ticket.
    pub kind: Option<String>,
    pub queue: Option<String>,
    pub impact: Option<Level>,
    pub urgency: Option<Level>,
    /// Name of an SLA policy.
    pub policy: Option<String>,
    pub tags: Vec<String>,
    /// Sent to the contact once, if C10 allows it. `{{ticket.number}}` and
    /// `{{ticket.subject}}` are filled in.
    pub automatic_reply: Option<String>,
}

/// The first rule that matches, and the trace of all that were tried.
pub fn first_match<'a>(rules: &'a [Rule], facts: &Facts) -> (Option<&'a Rule>, Vec<RuleTrace>) {
    unimplemented!("{rules:?} {facts:?}")
}
