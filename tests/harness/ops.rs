//! The operator's view: health and metrics.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::wait::until;

/// Reads the metrics of one process.
pub async fn metrics(ops: &str) -> Result<String> {
    let answer = reqwest::Client::new()
        .get(format!("{ops}/metrics"))
        .timeout(Duration::from_secs(5))
        .send()
        .await?;
    ensure!(answer.status().is_success(), "metrics answered {}", answer.status());
    Ok(answer.text().await?)
}

/// The sum of all samples of one name whose labels contain `labels`.
pub fn sum(metrics: &str, name: &str, labels: &str) -> f64 {
    samples(metrics, name)
        .filter(|(found, _)| found.contains(labels))
        .map(|(_, value)| value)
        .sum()
}

/// Waits until nothing is pending on any of these processes, twice in a row.
pub async fn quiet(all_ops: &[String], deadline: Duration) -> Result<()> {
    until("all is quiet", deadline, async || {
        for _ in 0..2 {
            for ops in all_ops {
                let metrics = metrics(ops).await?;
                ensure!(
                    samples(&metrics, "tributary_pending").next().is_some(),
                    "{ops} does not say what is pending"
                );
                for (labels, value) in samples(&metrics, "tributary_pending") {
                    ensure!(value == 0.0, "{ops} has pending {labels} {value}");
                }
            }
        }
        Ok(true)
    })
    .await
    .context("waiting for quiet")
}

fn samples<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    metrics.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        Some((labels, value.trim().split(' ').next()?.parse().ok()?))
    })
}
