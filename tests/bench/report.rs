//! What was measured: a table, and `bench/results.json`.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use tests::harness::servers::repository;

/// One line of the result.
pub struct Row {
    pub name: String,
    pub value: f64,
    unit: &'static str,
    /// `≥` or `≤` and the number; nothing where the value only explains others.
    target: Option<(bool, f64)>,
}

impl Row {
    pub fn at_least(name: impl Into<String>, value: f64, unit: &'static str, target: f64) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            target: Some((true, target)),
        }
    }

    pub fn at_most(name: impl Into<String>, value: f64, unit: &'static str, target: f64) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            target: Some((false, target)),
        }
    }

    pub fn plain(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            target: None,
        }
    }

    fn is_met(&self) -> Option<bool> {
        self.target.map(|(at_least, target)| {
            if at_least {
                self.value >= target
            } else {
                self.value <= target
            }
        })
    }
}

/// Prints the table, and puts the values into the file; what was not measured this
/// time stays there.
pub fn report(rows: &[Row]) -> Result<()> {
    println!();
    let file = repository().join("bench/results.json");
    let last = std::fs::read(&file).unwrap_or_default();
    let mut results: serde_json::Map<String, Value> = serde_json::from_slice(&last).unwrap_or_default();
    for row in rows {
        let target = match row.target {
            Some((true, target)) => format!("≥ {target}"),
            Some((false, target)) => format!("≤ {target}"),
            None => String::new(),
        };
        let verdict = match row.is_met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        println!(
            "{:<24} {:>12.2} {:<11} {:<8} {verdict}",
            row.name, row.value, row.unit, target
        );
        let value = (row.value * 100.0).round() / 100.0;
        results.insert(row.name.clone(), json!(value));
    }
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(&file, serde_json::to_string_pretty(&Value::Object(results))? + "\n")?;
    println!(
        "\nThe load, Kafka, the databases and Tributary shared this machine's {} cores: only figures of one run\n\
         compare. Each pair was measured in turns, three times. Also in bench/results.json.",
        std::thread::available_parallelism()?
    );
    Ok(())
}
