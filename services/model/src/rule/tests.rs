use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn facts() -> Facts {
    let facts = json!({
        "account": "it",
        "channel": "email",
        "sender.address": "Emma.Müller@Corp.Example",
        "sender.domain": "corp.example",
        "sender.scheme": "email",
        "sender.verified": true,
        "sender.employee": false,
        "recipients": ["it@desk.example", "Boss@corp.example"],
        "subject": "Printer ON FIRE (#42)",
        "text": "Second floor.\nSmoke everywhere.",
        "automatic": null,
        "attachments": 2,
        "attachment_names": ["photo.JPG", "notes.txt"],
        "fields.order": "4711",
        "is_reply": false
    });
    serde_json::from_value(facts).unwrap()
}

fn rule(name: &str, when: Value) -> Value {
    json!({ "name": name, "when": when, "then": { "kind": "incident" } })
}

fn compile(rules: Value) -> Result<RuleSet, Vec<String>> {
    RuleSet::compile(serde_json::from_value(rules).unwrap(), None)
}

fn leaf(field: &str, operator: &str, value: Value) -> Value {
    json!({ "field": field, "operator": operator, "value": value })
}

fn holds_on(facts: &Facts, when: Value) -> bool {
    let set = compile(json!([rule("r", when)])).unwrap();
    let (matched, traces) = set.first_match(facts);
    assert_eq!(traces[0].matched, matched.is_some());
    matched.is_some()
}

#[test]
fn operators() {
    let check = |field: &str, operator: &str, value: Value, expected: bool| {
        let when = leaf(field, operator, value);
        assert_eq!(holds_on(&facts(), when.clone()), expected, "{when}");
        let not = json!({ "not": when });
        assert_eq!(holds_on(&facts(), not.clone()), !expected, "{not}");
    };
    check("account", "is", json!("it"), true);
    check("account", "is", json!("IT"), true);
    check("account", "is", json!("i"), false);
    check("account", "is_not", json!("it"), false);
    check("account", "is_not", json!("sales"), true);
    check("sender.address", "is", json!("emma.müller@corp.example"), true);
    check("sender.address", "is", json!("EMMA.MÜLLER@CORP.EXAMPLE"), true);
    check("sender.verified", "is", json!(true), true);
    check("sender.verified", "is_not", json!(true), false);
    check("sender.employee", "is", json!(false), true);
    check("attachments", "is", json!(2), true);
    check("attachments", "is", json!(2.0), true);
    check("attachments", "is_not", json!(3), true);
    check("attachments", "greater", json!(1), true);
    check("attachments", "greater", json!(2), false);
    check("attachments", "less", json!(2.5), true);
    check("attachments", "less", json!(2), false);
    check("attachments", "in", json!([1, 2, 3]), true);
    check("subject", "contains", json!("on fire"), true);
    check("subject", "contains", json!("water"), false);
    check("subject", "not_contains", json!("FIRE"), false);
    check("subject", "not_contains", json!("water"), true);
    check("subject", "starts_with", json!("printer"), true);
    check("subject", "starts_with", json!("on"), false);
    check("subject", "ends_with", json!("(#42)"), true);
    check("subject", "ends_with", json!("fire"), false);
    check("subject", "matches", json!(r"#\d+"), true);
    check("subject", "matches", json!("printer"), false);
    check("subject", "matches", json!("(?i)printer"), true);
    check("text", "matches", json!("(?m)^Smoke"), true);
    check("text", "matches", json!("^Smoke"), false);
    check("channel", "in", json!(["sms", "EMAIL"]), true);
    check("channel", "in", json!(["sms"]), false);
    // Several values: any of them; the opposites: none of them.
    check("recipients", "is", json!("boss@CORP.example"), true);
    check("recipients", "is_not", json!("boss@corp.example"), false);
    check("recipients", "is_not", json!("stranger@corp.example"), true);
    check("recipients", "ends_with", json!("@corp.example"), true);
    check("fields.order", "is", json!("4711"), true);
    check("fields.order", "starts_with", json!("48"), false);
    check("fields.colour", "is_set", Value::Null, false);
    check("attachment_names", "ends_with", json!(".jpg"), true);
    check("attachment_names", "not_contains", json!("exe"), true);
    check("attachment_names", "in", json!(["x", "notes.txt"]), true);
    check("attachment_names", "matches", json!(r"\.JPG$"), true);
    // Not set.
    check("automatic", "is_set", Value::Null, false);
    check("automatic", "is_not_set", Value::Null, true);
    check("automatic", "is", json!("generated"), false);
    check("automatic", "is_not", json!("generated"), true);
    check("automatic", "not_contains", json!("x"), true);
    check("subject", "is_set", Value::Null, true);
    check("is_reply", "is_set", Value::Null, true);
    check("recipients", "is_set", Value::Null, true);
    check("attachments", "is_not_set", Value::Null, false);
}

#[test]
fn facts_may_be_missing_empty_or_of_another_type() {
    let empty: Facts = [("subject", json!("")), ("recipients", json!([]))]
        .map(|(field, value)| (field.to_owned(), value))
        .into();
    for (field, _) in FIELDS {
        assert!(holds_on(&empty, leaf(field, "is_not_set", Value::Null)), "{field}");
        assert!(!holds_on(&empty, leaf(field, "is_set", Value::Null)), "{field}");
    }
    let odd = |value: Value| Facts::from([("subject".to_owned(), value.clone()), ("attachments".to_owned(), value)]);
    for value in [
        json!(null),
        json!(1e300),
        json!({ "a": [1] }),
        json!([[["x"]], null]),
        json!(true),
        json!("x"),
    ] {
        let facts = odd(value);
        for (operator, value) in [
            ("is", json!("y")),
            ("contains", json!("y")),
            ("matches", json!("y")),
            ("in", json!(["y"])),
        ] {
            assert!(!holds_on(&facts, leaf("subject", operator, value)));
        }
        assert!(!holds_on(&facts, leaf("attachments", "less", json!(0))));
    }
}

#[test]
fn trees() {
    let yes = || leaf("account", "is", json!("it"));
    let no = || leaf("account", "is", json!("x"));
    let check = |when: Value, expected: bool, looked_at: &[bool]| {
        let set = compile(json!([rule("r", when.clone())])).unwrap();
        let (matched, traces) = set.first_match(&facts());
        assert_eq!(matched.is_some(), expected, "{when}");
        let held: Vec<_> = traces[0].conditions.iter().map(|leaf| leaf.holds).collect();
        assert_eq!(held, looked_at, "{when}");
    };
    check(json!({ "all": [yes(), yes()] }), true, &[true, true]);
    check(json!({ "all": [yes(), no(), yes()] }), false, &[true, false]);
    check(json!({ "any": [no(), yes(), no()] }), true, &[false, true]);
    check(json!({ "any": [no(), no()] }), false, &[false, false]);
    check(json!({ "not": no() }), true, &[false]);
    check(
        json!({ "not": { "any": [no(), { "not": yes() }] } }),
        true,
        &[false, true],
    );
    check(
        json!({ "all": [{ "any": [no(), yes()] }, { "not": { "all": [yes(), yes()] } }] }),
        false,
        &[false, true, true, true],
    );
}

#[test]
fn the_first_match_wins_and_all_before_it_are_traced() {
    let set = compile(json!([
        rule("water", leaf("subject", "contains", json!("water"))),
        rule("fire", leaf("subject", "contains", json!("Fire"))),
        { "name": "rest", "then": { "queue": "support" } },
    ]))
    .unwrap();
    let (matched, traces) = set.first_match(&facts());
    assert_eq!(matched.unwrap().name, "fire");
    let shown: Vec<_> = traces
        .iter()
        .map(|trace| (trace.rule.as_str(), trace.matched))
        .collect();
    assert_eq!(shown, [("water", false), ("fire", true)]);
    let expected = LeafTrace {
        field: "subject".to_owned(),
        operator: "contains".to_owned(),
        expected: json!("Fire"),
        saw: json!("Printer ON FIRE (#42)"),
        holds: true,
    };
    assert_eq!(traces[1].conditions, [expected]);

    let (matched, traces) = set.first_match(&Facts::new());
    assert_eq!(matched.unwrap().then.queue.as_deref(), Some("support"));
    assert_eq!(
        traces[2].conditions,
        [],
        "without a condition there is nothing to look at"
    );
    assert_eq!(traces[1].conditions[0].saw, Value::Null);
    assert_eq!(RuleSet::default().first_match(&facts()), (None, vec![]));
    let names: Vec<_> = set.rules().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["water", "fire", "rest"]);
}

#[test]
fn traces_are_short() {
    let mut facts = facts();
    facts.insert("text".to_owned(), json!("ä".repeat(100_000)));
    facts.insert("recipients".to_owned(), json!(vec!["someone@example.com"; 5_000]));
    let rules: Vec<_> = (0..400)
        .map(|index| {
            rule(
                &index.to_string(),
                json!({ "any": [leaf("text", "is", json!("x".repeat(9_000))), leaf("recipients", "is", json!("x"))] }),
            )
        })
        .collect();
    let set = compile(json!(rules)).unwrap();
    let (matched, traces) = set.first_match(&facts);
    assert!(matched.is_none());
    assert_eq!(traces.len(), 400);
    let leaves: Vec<_> = traces.iter().flat_map(|trace| &trace.conditions).collect();
    assert_eq!(leaves.len(), 100);
    assert_eq!(
        leaves[0].saw.as_str().unwrap().chars().count(),
        101,
        "a hundred and a mark"
    );
    assert_eq!(leaves[0].expected.as_str().unwrap().chars().count(), 101);
    assert!(leaves[1].saw.to_string().len() < 250, "{}", leaves[1].saw);
}

#[test]
fn long_texts_are_cut_before_they_are_searched() {
    // Two bytes each: the limit falls between characters, and in the middle of one.
    for lead in ["", "x"] {
        let mut facts = facts();
        facts.insert("text".to_owned(), json!(format!("{lead}{}needle", "ä".repeat(40_000))));
        assert!(!holds_on(&facts, leaf("text", "contains", json!("needle"))));
        assert!(!holds_on(&facts, leaf("text", "matches", json!("needle"))));
        assert!(holds_on(&facts, leaf("text", "ends_with", json!("ää"))));
        // What would take a backtracking engine for ever.
        assert!(!holds_on(&facts, leaf("text", "matches", json!("(ä+)+$x"))));
    }
}

#[test]
fn conditions_have_one_form() {
    let check = |when: Value, expected: &str| {
        let error = serde_json::from_value::<Condition>(when.clone())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{when}: {error}");
    };
    let one_of = "either all, any, not, or field";
    check(json!({}), one_of);
    check(json!({ "all": [], "any": [] }), one_of);
    check(json!({ "field": "text" }), one_of);
    check(json!({ "operator": "is", "value": "x" }), one_of);
    check(
        json!({ "field": "text", "operator": "is", "value": "x", "all": [] }),
        one_of,
    );
    check(json!({ "all": [], "value": 1 }), one_of);
    check(json!({ "feild": "text", "operator": "is" }), "unknown field `feild`");
    check(json!({ "all": [{ "any": [{ "not": {} }] }] }), one_of);
    check(json!([]), "");
    // What was read is written as it was.
    let when = json!({ "all": [
        { "any": [leaf("account", "is", json!("it"))] },
        { "not": leaf("automatic", "is_set", Value::Null) },
    ] });
    let condition: Condition = serde_json::from_value(when.clone()).unwrap();
    assert_eq!(serde_json::to_value(&condition).unwrap(), when);
}

#[test]
fn says_what_is_wrong_with_a_condition() {
    let check = |when: Value, expected: &str| {
        let errors = compile(json!([rule("r", when.clone())])).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].starts_with("rule `r`: ") && errors[0].contains(expected),
            "{when}: {errors:?}"
        );
    };
    let on = |field: &str, operator: &str, value: Value, expected: &str| check(leaf(field, operator, value), expected);
    on("employee", "is", json!(true), "unknown field `employee`;");
    on(
        "sender.adress",
        "is",
        json!("x"),
        "unknown field `sender.adress`; did you mean `sender.address`? known: account,",
    );
    on("Subject", "is", json!("x"), "did you mean `subject`?");
    on("fields.", "is", json!("x"), "unknown field `fields.`;");
    on("fields.Order", "is", json!("x"), "unknown field `fields.Order`;");
    on("fields.order", "greater", json!(1), "fields.order greater: ");
    on("", "is", json!("x"), "unknown field ``;");
    on(
        "text",
        "equals",
        json!("x"),
        "unknown operator `equals`; did you mean `is`?",
    );
    on("text", "regex", json!("x"), "did you mean `matches`?");
    on("text", "contain", json!("x"), "did you mean `contains`?");
    on("text", "Starts_With", json!("x"), "did you mean `starts_with`?");
    on("text", "xyz", json!("x"), "unknown operator `xyz`; known: is,");
    on("text", "is", json!(5), "text is: needs a text");
    on("text", "is", Value::Null, "text is: needs a text");
    on("text", "is", json!(""), "ask is_set or is_not_set");
    on("text", "contains", json!(["x"]), "needs a text");
    on("text", "contains", json!(""), "the text is empty");
    on("text", "contains", json!("x".repeat(10_001)), "longer than 10000 bytes");
    on("text", "greater", json!(5), "the field is no number");
    on("attachments", "greater", json!("5"), "needs a number");
    on("attachments", "contains", json!("5"), "the field is no text");
    on("attachments", "is", json!("5"), "needs a number");
    on("is_reply", "is", json!("true"), "needs true or false");
    on("is_reply", "matches", json!("true"), "the field is no text");
    on("channel", "in", json!("email"), "needs a list");
    on("channel", "in", json!([]), "1 to 1000 values");
    on("channel", "in", json!(["email", 5]), "needs a text");
    on("channel", "is_set", json!(true), "takes no value");
    on("channel", "is_not_set", json!("x"), "takes no value");
    on(
        "text",
        "matches",
        json!("("),
        "`(` is no regular expression: error: unclosed group",
    );
    on("text", "matches", json!("(?<=x)y"), "look-around");
    on("text", "matches", json!("x".repeat(1_001)), "longer than 1000 bytes");
    on("text", "matches", json!(r"(\w{100}){100}"), "size limit");
    on(
        "text",
        "matches",
        json!("(".repeat(100) + "x" + &")".repeat(100)),
        "nest",
    );
    check(json!({ "all": [] }), "`all` is empty");
    check(json!({ "any": [] }), "`any` is empty");

    let nested = |depth: usize| (0..depth).fold(leaf("account", "is", json!("it")), |inner, _| json!({ "not": inner }));
    check(nested(16), "nested deeper than 16");
    check(nested(50), "nested deeper than 16");
    assert!(compile(json!([rule("r", nested(15))])).is_ok());
    let many = |count: usize| json!({ "any": vec![leaf("account", "is", json!("it")); count] });
    check(many(201), "more than 200 comparisons");
    check(many(5_000), "more than 200 comparisons");
    assert!(compile(json!([rule("r", many(200))])).is_ok());
}

#[test]
fn says_what_is_wrong_with_names_and_actions() {
    let queues = BTreeSet::from(["it".to_owned(), "support".to_owned()]);
    let policies = BTreeSet::from(["standard".to_owned()]);
    let known = Known {
        queues: &queues,
        policies: &policies,
    };
    let check = |then: Value, expected: &str| {
        let rules = json!([{ "name": "r", "then": then }]);
        let errors = RuleSet::compile(serde_json::from_value(rules).unwrap(), Some(known))
            .err()
            .unwrap_or_default();
        assert_eq!(errors.len(), usize::from(!expected.is_empty()), "{errors:?}");
        assert!(errors.iter().all(|error| error.contains(expected)), "{errors:?}");
    };
    check(json!({}), "");
    check(
        json!({ "kind": "none", "queue": "it", "policy": "standard", "tags": ["x"], "automatic_reply": "Hi" }),
        "",
    );
    check(
        json!({ "kind": "incident", "automatic_reply": "We have {{ticket.number}}: {{ticket.subject}} }} {{" }),
        "",
    );
    check(
        json!({ "kind": "incidnet" }),
        "unknown kind `incidnet`; did you mean `incident`? known: case, incident, none",
    );
    check(
        json!({ "queue": "suport" }),
        "unknown queue `suport`; did you mean `support`? known: it, support",
    );
    check(json!({ "policy": "gold" }), "unknown policy `gold`; known: standard");
    check(json!({ "tags": ["x", " "] }), "a tag is empty");
    check(json!({ "automatic_reply": " " }), "1 to 16384 bytes");
    check(json!({ "automatic_reply": "x".repeat(16_385) }), "1 to 16384 bytes");
    check(
        json!({ "automatic_reply": "{{ticket.no}}" }),
        "unknown placeholder `ticket.no`; did you mean `ticket.number`?",
    );
    check(
        json!({ "kind": "none", "automatic_reply": "{{ticket.number}}" }),
        "without a ticket",
    );

    let names = |names: &[&str]| {
        json!(
            names
                .iter()
                .map(|name| json!({ "name": name, "then": {} }))
                .collect::<Vec<_>>()
        )
    };
    assert!(compile(names(&["a", "a"])).unwrap_err()[0].contains("same name"));
    assert!(compile(names(&[""])).unwrap_err()[0].contains("1 to 100 characters"));
    let long = "ä".repeat(101);
    assert!(compile(names(&[&long])).unwrap_err()[0].contains("1 to 100 characters"));
    let numbers: Vec<_> = (0..501).map(|number| number.to_string()).collect();
    let numbers: Vec<_> = numbers.iter().map(String::as_str).collect();
    assert!(compile(names(&numbers)).unwrap_err()[0].contains("501 rules; at most 500"));
    assert!(compile(names(&numbers[1..])).is_ok());
    // All faults of all rules at once.
    let all = compile(json!([
        rule("a", json!({ "all": [leaf("x", "is", json!(1)), leaf("text", "is", json!(1))] })),
        { "name": "b", "then": { "kind": "x" } },
    ]));
    assert_eq!(all.unwrap_err().len(), 3);
}

fn any_condition() -> impl Strategy<Value = Value> {
    let field = proptest::sample::select(FIELDS).prop_map(|(name, _)| name);
    let operators = [
        "is",
        "is_not",
        "contains",
        "not_contains",
        "starts_with",
        "ends_with",
        "matches",
        "in",
        "greater",
        "less",
        "is_set",
        "is_not_set",
    ];
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!(["a", "b"])),
    ];
    let leaf = (field, proptest::sample::select(operators.to_vec()), value)
        .prop_map(|(field, operator, value)| super::tests::leaf(field, operator, value));
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|all| json!({ "all": all })),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|any| json!({ "any": any })),
            inner.prop_map(|not| json!({ "not": not })),
        ]
    })
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        proptest::collection::vec(".{0,5}".prop_map(Value::from), 0..4).prop_map(Value::Array),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_rules_are_refused_or_decide(when in any_condition(), values in proptest::collection::vec(any_value(), FIELDS.len())) {
        let facts: Facts = FIELDS.iter().zip(values).map(|((name, _), value)| ((*name).to_owned(), value)).collect();
        let not = json!({ "not": when.clone() });
        match compile(json!([rule("r", when)])) {
            Ok(set) => {
                let (matched, traces) = set.first_match(&facts);
                prop_assert_eq!(traces.len(), 1);
                prop_assert_eq!(matched.is_some(), traces[0].matched);
                prop_assert_ne!(matched.is_some(), holds_on(&facts, not));
            }
            Err(errors) => prop_assert!(!errors.is_empty()),
        }
    }
}
