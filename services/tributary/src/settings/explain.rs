//! Makes serde's errors readable: which key, by its whole path, and what it
//! should have been.

use toml::Value;

/// Explains why `value`, which stands at `path`, could not be read.
pub fn error(path: &str, value: &Value, error: &toml::de::Error) -> String {
    // The key inside of the value is shown in a line of its own: in `then.queue`.
    let shown = error.to_string();
    let inner = shown
        .trim_end()
        .rsplit_once("\nin `")
        .map(|(_, inner)| inner.trim_end_matches('`'));
    match inner {
        Some(inner) => message(&format!("{path}.{inner}"), None, error.message()),
        None => message(path, Some(value), error.message()),
    }
}

/// Explains a message of serde's about what stands at `path`, given what stands
/// there if that is known.
pub fn message(path: &str, value: Option<&Value>, message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field")
        && let [unknown, known @ ..] = quoted.as_slice()
    {
        let path = match value.and_then(|value| path_of(value, unknown)) {
            Some(inner) if !inner.is_empty() => format!("{path}.{inner}"),
            _ => path.to_owned(),
        };
        return unknown_key(&path, unknown, known);
    }
    if message.starts_with("missing field")
        && let [missing] = quoted.as_slice()
    {
        return format!("{path}.{missing}: missing");
    }
    format!("{path}: {message}")
}

/// Says that there is no such key, and which one may have been meant.
pub fn unknown_key(path: &str, unknown: &str, known: &[&str]) -> String {
    let full = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    // A reference (`password_file`) was resolved before anyone looked at the key.
    let nearest = known
        .iter()
        .map(|key| (likeness(unknown, key), *key))
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .filter(|(likeness, _)| *likeness > 0.6);
    match nearest {
        Some((_, key)) => format!("{}: unknown key; did you mean {}?", full(unknown), full(key)),
        None if known.is_empty() => format!("{}: unknown key", full(unknown)),
        None => format!("{}: unknown key; there are {}", full(unknown), known.join(", ")),
    }
}

/// Good for typing errors (the first) and for half-remembered names (the second).
fn likeness(left: &str, right: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(left, right).max(strsim::jaro_winkler(left, right))
}

/// Where in the value a key of this name is: the path of the table that has it.
fn path_of(value: &Value, key: &str) -> Option<String> {
    match value {
        Value::Table(table) if table.contains_key(key) => Some(String::new()),
        Value::Table(table) => table
            .iter()
            .find_map(|(name, below)| path_of(below, key).map(|inner| join(name, &inner))),
        Value::Array(values) => values
            .iter()
            .enumerate()
            .find_map(|(index, below)| path_of(below, key).map(|inner| join(&format!("[{index}]"), &inner))),
        _ => None,
    }
}

fn join(name: &str, inner: &str) -> String {
    if inner.is_empty() || inner.starts_with('[') {
        format!("{name}{inner}")
    } else {
        format!("{name}.{inner}")
    }
}
