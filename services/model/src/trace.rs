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
