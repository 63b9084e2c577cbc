//! Rules: an ordered list, the first match wins; a condition is a tree of
//! `all`, `any`, `not` over `field operator value`.
//!
//! [`Rule`] is what settings declare; a [`RuleSet`] is what decides. Making one
//! (`rule/compile.rs`) is the validation; after it, evaluating cannot fail.

mod compile;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ticket::priority::Level;
use crate::trace::{LeafTrace, RuleTrace, cut};

pub use compile::Known;

/// What the conditions of a rule may ask for, by field name. `decide` fills it.
pub type Facts = BTreeMap<String, Value>;

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
///
/// Texts are compared without regard to case, except by `matches`, where `(?i)` asks
/// for that. On a field with several values an operator holds if it holds for any of
/// them. `is_not`, `not_contains` and `is_not_set` are the exact opposites of `is`,
/// `contains` and `is_set`: on several values they hold if no value matches, and on a
/// field that is not set they hold. An empty text or list is not set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "compile::DeclaredCondition")]
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
        value: Value,
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

/// What conditions may ask for, and what kind of value each has; and besides it what
/// begins with [`FORM`], which is text.
pub const FIELDS: &[(&str, FieldType)] = &[
    ("account", FieldType::Text),
    ("channel", FieldType::Text),
    ("sender.address", FieldType::Text),
    ("sender.domain", FieldType::Text),
    ("sender.scheme", FieldType::Text),
    ("sender.verified", FieldType::Flag),
    ("sender.employee", FieldType::Flag),
    ("recipients", FieldType::Text),
    ("subject", FieldType::Text),
    ("text", FieldType::Text),
    ("automatic", FieldType::Text),
    ("attachments", FieldType::Number),
    ("attachment_names", FieldType::Text),
    ("is_reply", FieldType::Flag),
    // Whether nobody of us spoke with the caller; of what is no call, not set.
    (MISSED, FieldType::Flag),
];

/// Begins the names of what the sender filled into a form: `fields.order`. Which
/// there are is the channel's to say; one that is not filled in is not set.
pub const FORM: &str = "fields.";

/// The field that is known of some calls only when they have ended.
pub const MISSED: &str = "missed";

/// The kind of value that a field has, one or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    Text,
    Number,
    Flag,
}

impl Condition {
    fn asks_for(&self, field: &str) -> bool {
        match self {
            Self::All { all: parts } | Self::Any { any: parts } => parts.iter().any(|part| part.asks_for(field)),
            Self::Not { not } => not.asks_for(field),
            Self::Leaf { field: asked, .. } => asked == field,
        }
    }
}

/// Rules that were checked, ready to decide.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    rules: Vec<(Rule, Option<Test>)>,
}

/// A condition, ready to be looked at.
#[derive(Clone, Debug)]
enum Test {
    All(Vec<Test>),
    Any(Vec<Test>),
    Not(Box<Test>),
    Leaf(Box<Leaf>),
}

#[derive(Clone, Debug)]
struct Leaf {
    field: String,
    /// As the rule has it, for the trace.
    operator: String,
    expected: Value,
    is_negated: bool,
    ask: Ask,
}

/// What a leaf asks of a value. Texts are in lower case.
#[derive(Clone, Debug)]
enum Ask {
    IsSet,
    Is(Value),
    In(Vec<Value>),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
    Matches(regex::Regex),
    Greater(f64),
    Less(f64),
}

/// A fact, prepared once for all leaves.
struct Fact<'a> {
    value: &'a Value,
    /// Its values: texts cut, as they stand and in lower case.
    items: Vec<Item<'a>>,
}

enum Item<'a> {
    Text { text: &'a str, lower: String },
    Other(&'a Value),
}

/// Of a text, no more is looked at.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Of a list, no more is looked at.
const MAX_ITEMS: usize = 1_000;
/// A trace shows so many leaves of rules that did not match.
const MAX_TRACED_LEAVES: usize = 100;

impl RuleSet {
    /// The first rule that matches, and the trace of all that were tried, with every
    /// leaf that was looked at: an `all` stops at the first that fails, an `any` at
    /// the first that holds.
    pub fn first_match(&self, facts: &Facts) -> (Option<&Rule>, Vec<RuleTrace>) {
        let facts: BTreeMap<&str, Fact<'_>> = facts
            .iter()
            .map(|(name, value)| (name.as_str(), Fact::of(value)))
            .collect();
        let mut traces = Vec::new();
        let mut left = MAX_TRACED_LEAVES;
        for (rule, test) in &self.rules {
            let mut conditions = Vec::new();
            let matched = test.as_ref().is_none_or(|test| test.holds(&facts, &mut conditions));
            if !matched {
                conditions.truncate(left);
                left -= conditions.len();
            }
            traces.push(RuleTrace {
                rule: rule.name.clone(),
                matched,
                conditions,
            });
            if matched {
                return (Some(rule), traces);
            }
        }
        (None, traces)
    }

    /// Whether any condition looks at this field.
    pub fn asks_for(&self, field: &str) -> bool {
        self.rules()
            .filter_map(|rule| rule.when.as_ref())
            .any(|when| when.asks_for(field))
    }

    /// The rules as they were declared, in order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|(rule, _)| rule)
    }
}

impl Test {
    fn holds(&self, facts: &BTreeMap<&str, Fact<'_>>, looked_at: &mut Vec<LeafTrace>) -> bool {
        match self {
            Test::All(tests) => tests.iter().all(|test| test.holds(facts, looked_at)),
            Test::Any(tests) => tests.iter().any(|test| test.holds(facts, looked_at)),
            Test::Not(test) => !test.holds(facts, looked_at),
            Test::Leaf(leaf) => {
                let fact = facts.get(leaf.field.as_str());
                let is_any = fact.is_some_and(|fact| fact.items.iter().any(|item| leaf.ask.holds(item)));
                let holds = is_any != leaf.is_negated;
                looked_at.push(LeafTrace {
                    field: leaf.field.clone(),
                    operator: leaf.operator.clone(),
                    expected: leaf.expected.clone(),
                    saw: fact.map_or(Value::Null, |fact| shown(fact.value)),
                    holds,
                });
                holds
            }
        }
    }
}

impl Ask {
    fn holds(&self, item: &Item<'_>) -> bool {
        match (self, item) {
            (Ask::IsSet, Item::Text { text, .. }) => !text.is_empty(),
            (Ask::IsSet, Item::Other(value)) => !value.is_null(),
            (Ask::Is(expected), item) => item.is(expected),
            (Ask::In(expected), item) => expected.iter().any(|expected| item.is(expected)),
            (Ask::Contains(part), Item::Text { lower, .. }) => lower.contains(part.as_str()),
            (Ask::StartsWith(part), Item::Text { lower, .. }) => lower.starts_with(part.as_str()),
            (Ask::EndsWith(part), Item::Text { lower, .. }) => lower.ends_with(part.as_str()),
            (Ask::Matches(regex), Item::Text { text, .. }) => regex.is_match(text),
            (Ask::Greater(limit), Item::Other(value)) => value.as_f64().is_some_and(|number| number > *limit),
            (Ask::Less(limit), Item::Other(value)) => value.as_f64().is_some_and(|number| number < *limit),
            // A fact of another type than its field has: compile lets none ask so.
            _ => false,
        }
    }
}

impl<'a> Fact<'a> {
    fn of(value: &'a Value) -> Self {
        let items = match value {
            Value::Array(values) => values.iter().take(MAX_ITEMS).map(Item::of).collect(),
            value => vec![Item::of(value)],
        };
        Self { value, items }
    }
}

impl<'a> Item<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::String(text) => {
                let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
                Item::Text {
                    text,
                    lower: text.to_lowercase(),
                }
            }
            value => Item::Other(value),
        }
    }

    fn is(&self, expected: &Value) -> bool {
        match (self, expected) {
            (Item::Text { lower, .. }, Value::String(expected)) => lower == expected,
            (Item::Other(Value::Number(number)), Value::Number(expected)) => number.as_f64() == expected.as_f64(),
            (Item::Other(value), expected) => *value == expected,
            (Item::Text { .. }, _) => false,
        }
    }
}

/// What a trace shows of a value: at most 100 characters of text, over all of a list.
fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(cut(text, 100)),
        Value::Array(items) => {
            let mut left: usize = 100;
            let mut shown = Vec::new();
            for item in items {
                if left == 0 {
                    shown.push(Value::String("…".to_owned()));
                    break;
                }
                let item = item
                    .as_str()
                    .map_or_else(|| item.clone(), |text| Value::String(cut(text, left)));
                left = left.saturating_sub(item.as_str().map_or(8, |text| text.chars().count()).max(1));
                shown.push(item);
            }
            Value::Array(shown)
        }
        value => value.clone(),
    }
}
