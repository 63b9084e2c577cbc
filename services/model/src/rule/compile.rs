//! Makes declared rules ready to decide, or says all that is wrong with them.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::{Actions, Ask, Condition, FIELDS, FORM, FieldType, Leaf, Rule, RuleSet, Test};
use crate::ticket::kind::KINDS;

/// The names that rules may send tickets to.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub queues: &'a BTreeSet<String>,
    pub policies: &'a BTreeSet<String>,
}

/// A condition as it is written: which of its four forms it has is checked here,
/// because serde would only say that none fits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredCondition {
    all: Option<Vec<Condition>>,
    any: Option<Vec<Condition>>,
    not: Option<Box<Condition>>,
    field: Option<String>,
    operator: Option<String>,
    value: Option<Value>,
}

const OPERATORS: [&str; 12] = [
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
/// What others call these operators.
const SYNONYMS: &[(&str, &str)] = &[
    ("equals", "is"),
    ("equal", "is"),
    ("eq", "is"),
    ("=", "is"),
    ("==", "is"),
    ("not_equals", "is_not"),
    ("not_equal", "is_not"),
    ("!=", "is_not"),
    ("regex", "matches"),
    ("like", "contains"),
    ("one_of", "in"),
    (">", "greater"),
    ("gt", "greater"),
    ("<", "less"),
    ("lt", "less"),
    ("exists", "is_set"),
    ("present", "is_set"),
    ("empty", "is_not_set"),
];
const PLACEHOLDERS: [&str; 2] = ["ticket.number", "ticket.subject"];

const MAX_RULES: usize = 500;
const MAX_LEAVES: usize = 200;
const MAX_DEPTH: usize = 16;
const MAX_NAME_CHARS: usize = 100;
const MAX_VALUE_BYTES: usize = 10_000;
const MAX_REGEX_BYTES: usize = 1_000;
const MAX_LIST_ITEMS: usize = 1_000;
const MAX_REPLY_BYTES: usize = 16_384;
/// Of a compiled regular expression.
const MAX_COMPILED_BYTES: usize = 1 << 20;

impl TryFrom<DeclaredCondition> for Condition {
    type Error = String;

    fn try_from(declared: DeclaredCondition) -> Result<Self, String> {
        let DeclaredCondition {
            all,
            any,
            not,
            field,
            operator,
            value,
        } = declared;
        match (all, any, not, field, operator, value) {
            (Some(all), None, None, None, None, None) => Ok(Condition::All { all }),
            (None, Some(any), None, None, None, None) => Ok(Condition::Any { any }),
            (None, None, Some(not), None, None, None) => Ok(Condition::Not { not }),
            (None, None, None, Some(field), Some(operator), value) => Ok(Condition::Leaf {
                field,
                operator,
                value: value.unwrap_or_default(),
            }),
            _ => Err("a condition is either all, any, not, or field with operator and value".to_owned()),
        }
    }
}

impl RuleSet {
    /// Checks the rules and makes them ready. Names of queues and policies are
    /// checked if they are known.
    pub fn compile(rules: Vec<Rule>, known: Option<Known<'_>>) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        if rules.len() > MAX_RULES {
            return Err(vec![format!("{} rules; at most {MAX_RULES} are possible", rules.len())]);
        }
        let mut names = BTreeSet::new();
        let mut compiled = Vec::new();
        for rule in rules {
            let mut faults = Vec::new();
            if rule.name.trim().is_empty() || rule.name.chars().count() > MAX_NAME_CHARS {
                faults.push(format!("a name has 1 to {MAX_NAME_CHARS} characters"));
            }
            if !names.insert(rule.name.clone()) {
                faults.push("another rule has the same name".to_owned());
            }
            check_actions(&rule.then, known, &mut faults);
            let mut compiling = Compiling {
                leaves: 0,
                faults: Vec::new(),
            };
            let test = rule.when.as_ref().map(|when| compiling.condition(when, 1));
            if compiling.leaves > MAX_LEAVES {
                faults.push(format!("more than {MAX_LEAVES} comparisons"));
            }
            faults.extend(compiling.faults);
            errors.extend(faults.into_iter().map(|fault| format!("rule `{}`: {fault}", rule.name)));
            compiled.push((rule, test.flatten()));
        }
        if errors.is_empty() {
            Ok(Self { rules: compiled })
        } else {
            Err(errors)
        }
    }
}

struct Compiling {
    leaves: usize,
    faults: Vec<String>,
}

impl Compiling {
    /// `None` only if a fault was noted.
    fn condition(&mut self, condition: &Condition, depth: usize) -> Option<Test> {
        if depth > MAX_DEPTH {
            self.faults
                .push(format!("conditions are nested deeper than {MAX_DEPTH}"));
            return None;
        }
        match condition {
            Condition::All { all } => self.list("all", all, depth).map(Test::All),
            Condition::Any { any } => self.list("any", any, depth).map(Test::Any),
            Condition::Not { not } => Some(Test::Not(Box::new(self.condition(not, depth + 1)?))),
            Condition::Leaf { field, operator, value } => {
                self.leaves += 1;
                if self.leaves > MAX_LEAVES {
                    return None;
                }
                match leaf(field, operator, value) {
                    Ok(leaf) => Some(Test::Leaf(Box::new(leaf))),
                    Err(fault) => {
                        self.faults.push(fault);
                        None
                    }
                }
            }
        }
    }

    fn list(&mut self, name: &str, conditions: &[Condition], depth: usize) -> Option<Vec<Test>> {
        if conditions.is_empty() {
            self.faults.push(format!("`{name}` is empty"));
        }
        let tests: Vec<_> = conditions
            .iter()
            .map(|condition| self.condition(condition, depth + 1))
            .collect();
        tests.into_iter().collect()
    }
}

/// What a form may ask for, by any name that a form can have.
fn of_form(field: &str) -> Option<FieldType> {
    let name = field.strip_prefix(FORM)?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    ((1..=40).contains(&name.len()) && name.bytes().all(is_plain)).then_some(FieldType::Text)
}

fn leaf(field: &str, operator: &str, value: &Value) -> Result<Leaf, String> {
    let names = || FIELDS.iter().map(|(name, _)| *name);
    let known = FIELDS.iter().find(|(name, _)| *name == field);
    let Some(field_type) = known.map_or_else(|| of_form(field), |(_, field_type)| Some(*field_type)) else {
        return Err(unknown("field", field, nearest(field, names()), names()));
    };
    if !OPERATORS.contains(&operator) {
        let synonym = SYNONYMS.iter().find(|(synonym, _)| *synonym == operator);
        let near = synonym.map_or_else(|| nearest(operator, OPERATORS.into_iter()), |(_, right)| Some(*right));
        return Err(unknown("operator", operator, near, OPERATORS.into_iter()));
    }
    let (is_negated, ask) = ask(field_type, operator, value).map_err(|fault| format!("{field} {operator}: {fault}"))?;
    Ok(Leaf {
        field: field.to_owned(),
        operator: operator.to_owned(),
        expected: super::shown(value),
        is_negated,
        ask,
    })
}

/// What the leaf asks, and whether it is to be turned round.
fn ask(field_type: FieldType, operator: &str, value: &Value) -> Result<(bool, Ask), String> {
    let on_text = |make: fn(String) -> Ask| match (field_type, value) {
        (FieldType::Text, Value::String(text)) => Ok(make(lower(text)?)),
        (FieldType::Text, _) => Err("needs a text".to_owned()),
        (FieldType::Number | FieldType::Flag, _) => Err("the field is no text".to_owned()),
    };
    let on_number = |make: fn(f64) -> Ask| match (field_type, value.as_f64()) {
        (FieldType::Number, Some(number)) => Ok(make(number)),
        (FieldType::Number, None) => Err("needs a number".to_owned()),
        (FieldType::Text | FieldType::Flag, _) => Err("the field is no number".to_owned()),
    };
    let is_set = || match value {
        Value::Null => Ok(Ask::IsSet),
        _ => Err("takes no value".to_owned()),
    };
    Ok(match operator {
        "is" => (false, Ask::Is(comparable(field_type, value)?)),
        "is_not" => (true, Ask::Is(comparable(field_type, value)?)),
        "in" => (false, Ask::In(list(field_type, value)?)),
        "contains" => (false, on_text(Ask::Contains)?),
        "not_contains" => (true, on_text(Ask::Contains)?),
        "starts_with" => (false, on_text(Ask::StartsWith)?),
        "ends_with" => (false, on_text(Ask::EndsWith)?),
        "matches" => {
            // The pattern itself must not be put into lower case: `\S` is not `\s`.
            on_text(Ask::Contains)?;
            (false, Ask::Matches(regex(value.as_str().unwrap_or_default())?))
        }
        "greater" => (false, on_number(Ask::Greater)?),
        "less" => (false, on_number(Ask::Less)?),
        "is_set" => (false, is_set()?),
        _ => (true, is_set()?),
    })
}

fn comparable(field_type: FieldType, value: &Value) -> Result<Value, String> {
    match (field_type, value) {
        (FieldType::Text, Value::String(text)) => Ok(Value::String(lower(text)?)),
        (FieldType::Number, Value::Number(_)) | (FieldType::Flag, Value::Bool(_)) => Ok(value.clone()),
        (FieldType::Text, _) => Err("needs a text".to_owned()),
        (FieldType::Number, _) => Err("needs a number".to_owned()),
        (FieldType::Flag, _) => Err("needs true or false".to_owned()),
    }
}

fn list(field_type: FieldType, value: &Value) -> Result<Vec<Value>, String> {
    let Value::Array(values) = value else {
        return Err("needs a list".to_owned());
    };
    if values.is_empty() || values.len() > MAX_LIST_ITEMS {
        return Err(format!("needs a list of 1 to {MAX_LIST_ITEMS} values"));
    }
    values.iter().map(|value| comparable(field_type, value)).collect()
}

fn lower(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the text is empty; ask is_set or is_not_set instead".to_owned());
    }
    if text.len() > MAX_VALUE_BYTES {
        return Err(format!("the text is longer than {MAX_VALUE_BYTES} bytes"));
    }
    Ok(text.to_lowercase())
}

fn regex(pattern: &str) -> Result<regex::Regex, String> {
    if pattern.len() > MAX_REGEX_BYTES {
        return Err(format!("the expression is longer than {MAX_REGEX_BYTES} bytes"));
    }
    regex::RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .nest_limit(50)
        .build()
        .map_err(|error| {
            format!(
                "`{pattern}` is no regular expression: {}",
                last_line(&error.to_string())
            )
        })
}

/// regex draws the place of an error in several lines; the last one names it.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim().to_owned()
}

fn check_actions(actions: &Actions, known: Option<Known<'_>>, faults: &mut Vec<String>) {
    let kinds = || KINDS.iter().map(|kind| kind.name).chain(["none"]);
    if let Some(kind) = &actions.kind
        && !kinds().any(|known| known == kind)
    {
        faults.push(unknown("kind", kind, nearest(kind, kinds()), kinds()));
    }
    if let Some(known) = known {
        check_name("queue", actions.queue.as_deref(), known.queues, faults);
        check_name("policy", actions.policy.as_deref(), known.policies, faults);
    }
    if actions.tags.iter().any(|tag| tag.trim().is_empty()) {
        faults.push("a tag is empty".to_owned());
    }
    let Some(reply) = &actions.automatic_reply else {
        return;
    };
    if reply.trim().is_empty() || reply.len() > MAX_REPLY_BYTES {
        faults.push(format!("an automatic_reply has 1 to {MAX_REPLY_BYTES} bytes"));
    }
    for placeholder in placeholders(reply) {
        if !PLACEHOLDERS.contains(&placeholder) {
            let near = nearest(placeholder, PLACEHOLDERS.into_iter());
            faults.push(unknown("placeholder", placeholder, near, PLACEHOLDERS.into_iter()));
        } else if actions.kind.as_deref() == Some("none") {
            faults.push(format!(
                "{{{{{placeholder}}}}} in a reply without a ticket: kind is none"
            ));
        }
    }
}

fn check_name(what: &str, name: Option<&str>, known: &BTreeSet<String>, faults: &mut Vec<String>) {
    let names = || known.iter().map(String::as_str);
    if let Some(name) = name
        && !known.contains(name)
    {
        faults.push(unknown(what, name, nearest(name, names()), names()));
    }
}

/// What stands between `{{` and `}}`.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    let after_each_opening = text.split("{{").skip(1);
    after_each_opening.filter_map(|rest| Some(rest.split_once("}}")?.0))
}

fn unknown<'a>(what: &str, given: &str, near: Option<&str>, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    let hint = near.map(|near| format!(" did you mean `{near}`?")).unwrap_or_default();
    format!("unknown {what} `{given}`;{hint} known: {}", known.join(", "))
}

fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::jaro_winkler(&given.to_lowercase(), name), name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}
