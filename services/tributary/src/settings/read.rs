//! Three layers become one table: the defaults, the file, the environment; and
//! every `x_file` and `x_env` becomes the `x` that it points to.

use std::ffi::OsString;

use toml::{Table, Value};

use super::{DEFAULTS, Invalid};

/// Settings in the environment begin with this, and have `__` between section and key.
const PREFIX: &str = "TRIBUTARY_";

/// Key endings that say where the value is to be found.
const REFERENCES: [&str; 2] = ["_file", "_env"];

/// A variable of the environment whose name and value are text.
pub fn as_text((name, value): (OsString, OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

/// The table of all three layers. An unreadable file ends it; what else is wrong
/// is added to `problems`.
pub fn table(
    name: &str,
    text: &str,
    environment: &[(String, String)],
    problems: &mut Vec<String>,
) -> Result<Table, Invalid> {
    let mut table: Table = parse("config.default.toml", DEFAULTS)?;
    merge(&mut table, parse(name, text)?);
    merge(&mut table, overrides(environment));
    resolve("", &mut table, environment, problems);
    Ok(table)
}

/// The path of an entry of a list: by its name, else by its place.
pub fn entry_path(list: &str, index: usize, value: &Value) -> String {
    match value.get("name").and_then(Value::as_str) {
        Some(name) => format!("{list}.{name}"),
        None => format!("{list}[{index}]"),
    }
}

fn parse(name: &str, text: &str) -> Result<Table, Invalid> {
    text.parse().map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let message = error.message().replace('\n', ", ");
        Invalid(vec![match line {
            Some(line) => format!("{name}:{line}: {message}"),
            None => format!("{name}: {message}"),
        }])
    })
}

/// Lays one table over another: tables are merged, everything else is replaced. A
/// key also replaces the same key's references, and the other way round.
fn merge(lower: &mut Table, upper: Table) {
    for key in upper.keys() {
        let base = base(key);
        for name in [base.to_owned(), format!("{base}_file"), format!("{base}_env")] {
            let is_merged = name == base && upper[key].is_table();
            if !is_merged && !upper.contains_key(&name) {
                lower.remove(&name);
            }
        }
    }
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

/// What the environment sets. Only names with `__` count (and the one key
/// without a section): others belong to somebody else, such as the
/// `TRIBUTARY_PORT` that Kubernetes sets for a service of this name.
fn overrides(environment: &[(String, String)]) -> Table {
    let mut table = Table::new();
    for (name, value) in environment {
        let Some(path) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let path = path.to_ascii_lowercase();
        if path.contains("__") || path == "employee_domains" {
            let keys: Vec<&str> = path.split("__").collect();
            insert(&mut table, &keys, as_value(value));
        }
    }
    table
}

fn insert(table: &mut Table, keys: &[&str], value: Value) {
    match keys {
        [] => {}
        [key] => {
            table.insert((*key).to_owned(), value);
        }
        [key, rest @ ..] => {
            let below = table
                .entry((*key).to_owned())
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                insert(below, rest, value);
            }
        }
    }
}

/// The value as TOML reads it, else the text itself.
fn as_value(text: &str) -> Value {
    let read: Option<Table> = format!("value = {text}").parse().ok();
    read.filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Replaces references by what they point to, at every depth.
fn resolve(path: &str, table: &mut Table, environment: &[(String, String)], problems: &mut Vec<String>) {
    let keys: Vec<String> = table.keys().cloned().collect();
    for key in keys {
        let here = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match table.get_mut(&key) {
            Some(Value::Table(below)) => resolve(&here, below, environment, problems),
            Some(Value::Array(values)) if base(&key) == key => {
                for (index, value) in values.iter_mut().enumerate() {
                    let here = entry_path(&here, index, value);
                    if let Value::Table(below) = value {
                        resolve(&here, below, environment, problems);
                    }
                }
            }
            Some(target) if base(&key) != key => {
                let target = target.clone();
                let base = base(&key).to_owned();
                table.remove(&key);
                if table.contains_key(&base) {
                    problems.push(format!("{here}: {base} is set as well; keep one of them"));
                    continue;
                }
                match pointed_to(&key, &target, environment) {
                    Ok(secret) => {
                        table.insert(base, secret);
                    }
                    Err(reason) => problems.push(format!("{here}: {reason}")),
                }
            }
            _ => {}
        }
    }
}

/// A list of references gives a list of values.
fn pointed_to(key: &str, target: &Value, environment: &[(String, String)]) -> Result<Value, String> {
    match target {
        Value::String(target) => one_pointed_to(key, target, environment).map(Value::String),
        Value::Array(targets) => {
            let found: Result<Vec<Value>, String> = targets
                .iter()
                .map(|target| pointed_to(key, target, environment))
                .collect();
            found.map(Value::Array)
        }
        _ => Err("must be a text, or a list of texts".to_owned()),
    }
}

fn one_pointed_to(key: &str, target: &str, environment: &[(String, String)]) -> Result<String, String> {
    if key.ends_with("_file") {
        return match std::fs::read_to_string(target) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(format!("cannot read {target}: {error}")),
        };
    }
    let found = environment.iter().find(|(name, _)| name == target);
    match found {
        Some((_, value)) => Ok(value.clone()),
        None => Err(format!("the environment has no {target}")),
    }
}

/// The key that this key's value belongs to: `password` for `password_file`.
fn base(key: &str) -> &str {
    REFERENCES
        .iter()
        .find_map(|ending| key.strip_suffix(ending))
        .filter(|base| !base.is_empty())
        .unwrap_or(key)
}
