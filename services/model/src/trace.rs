//! Why a decision came out as it did.

use serde::{Deserialize, Serialize};

use crate::id::MessageId;
use crate::time::Moment;

/// The record of one decision, kept with its message. At most
/// [`Trace::MAX_BYTES`] as JSON; longer texts in it are cut and marked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    pub message_id: MessageId,
    /// The `now` that the decision was given.
    pub decided_at: Moment,
    /// W3C trace context of the request that brought the message.
    pub traceparent: Option<String>,
    /// Version of the rule set.
    pub rules_version: i64,
    /// How the conversation was found, a line for each piece of evidence weighed.
    pub threading: Vec<String>,
    /// The rules that were tried, up to and including the one that matched.
    pub rules: Vec<RuleTrace>,
    /// What came of it: conversation, ticket, and the reason in words.
    pub outcome: String,
    /// The facts that the rules saw, long texts cut.
    pub facts: serde_json::Value,
}

impl Trace {
    /// Of the whole trace as JSON.
    pub const MAX_BYTES: usize = 4096;
}

/// Of one fact: the message that the trace is kept with has all of it.
const FACT_CHARS: usize = 200;

/// One rule, tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleTrace {
    pub rule: String,
    pub matched: bool,
    /// Each leaf that was looked at: what it asked, and what it saw.
    pub conditions: Vec<LeafTrace>,
}

/// One leaf of a condition tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeafTrace {
    pub field: String,
    pub operator: String,
    /// What the rule asks for.
    pub expected: serde_json::Value,
    /// What the message had, cut to 100 characters.
    pub saw: serde_json::Value,
    pub holds: bool,
}

impl Trace {
    /// Cuts what its message says again, and all of it to [`Trace::MAX_BYTES`], the
    /// least telling parts first.
    pub fn limit(&mut self) {
        cut_value(&mut self.facts, FACT_CHARS);
        for longest in [400, 100, 20] {
            if self.size_bytes() <= Self::MAX_BYTES {
                return;
            }
            cut_value(&mut self.facts, longest);
            for rule in &mut self.rules {
                rule.conditions
                    .iter_mut()
                    .for_each(|leaf| cut_value(&mut leaf.expected, longest));
            }
        }
        // Rules that did not match say least; the last one is the one that did.
        while self.size_bytes() > Self::MAX_BYTES && self.rules.len() > 1 {
            self.rules.remove(0);
        }
        if self.size_bytes() > Self::MAX_BYTES {
            self.threading.truncate(5);
            self.rules.iter_mut().for_each(|rule| rule.conditions.truncate(5));
        }
        if self.size_bytes() > Self::MAX_BYTES {
            self.facts = serde_json::Value::Null;
        }
    }

    fn size_bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |json| json.len())
    }
}

fn cut_value(value: &mut serde_json::Value, longest: usize) {
    match value {
        serde_json::Value::String(text) => *text = cut(text, longest),
        serde_json::Value::Array(items) => {
            items.truncate(10);
            items.iter_mut().for_each(|item| cut_value(item, longest));
        }
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|field| cut_value(field, longest)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

/// The text, cut to `longest` characters and then marked with `…`.
pub fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((index, _)) => format!("{}…", &text[..index]),
        None => text.to_owned(),
    }
}
