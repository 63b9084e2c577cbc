//! Condition trees: `{"when": …, "facts": …}`.
#![no_main]

use model::rule::{Facts, RuleSet};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Case {
    when: Value,
    facts: Facts,
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(Case { when, facts }) = serde_json::from_slice(bytes) else {
        return;
    };
    let Some(set) = compiled(when.clone()) else { return };
    // One level more may be one too many.
    let Some(opposite) = compiled(json!({ "not": when })) else {
        return;
    };
    let (matched, traces) = set.first_match(&facts);
    assert_eq!(matched.is_some(), traces[0].matched);
    assert_ne!(matched.is_some(), opposite.first_match(&facts).0.is_some());
});

fn compiled(when: Value) -> Option<RuleSet> {
    let rule = json!({ "name": "r", "when": when, "then": { "kind": "incident" } });
    let rules = serde_json::from_value(json!([rule])).ok()?;
    match RuleSet::compile(rules, None) {
        Ok(set) => Some(set),
        Err(problems) => {
            assert!(!problems.is_empty());
            None
        }
    }
}
