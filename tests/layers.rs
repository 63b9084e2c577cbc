//! Who may depend on whom: the allowed edges are one table, held against
//! `cargo metadata`; and every crate takes the workspace's lints.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each crate of ours and the crates of ours that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("bus", &["model"]),
    ("store", &["model"]),
    ("channels", &["bus", "store", "model"]),
    ("routing", &["bus", "store", "model"]),
    ("api", &["bus", "store", "model"]),
    ("tributary", &["channels", "routing", "api", "bus", "store", "model"]),
    // The stories see only the public doors.
    ("tests", &[]),
];

/// Dependencies that a crate must never have: what it is defined not to do.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "model",
        &[
            "tokio",
            "sqlx",
            "rdkafka",
            "axum",
            "reqwest",
            "hyper",
            "futures-util",
            "async-trait",
        ],
    ),
    ("bus", &["axum", "reqwest", "lettre", "async-imap", "mailparse"]),
    (
        "store",
        &["axum", "reqwest", "lettre", "async-imap", "mailparse", "rdkafka"],
    ),
    ("channels", &["rdkafka", "sqlx", "utoipa"]),
    (
        "routing",
        &["axum", "hyper", "reqwest", "lettre", "async-imap", "rdkafka", "sqlx"],
    ),
    ("api", &["reqwest", "lettre", "async-imap", "rdkafka", "sqlx"]),
];

#[test]
fn dependencies_point_downwards_only() {
    let packages = packages();
    let names: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    let listed: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, listed, "a crate is missing from the table, or gone");
    for (name, allowed) in ALLOWED {
        for dependency in dependencies(&packages[*name]) {
            let is_ours = names.contains(dependency.as_str());
            assert!(
                !is_ours || allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn no_crate_does_what_it_is_defined_not_to_do() {
    let packages = packages();
    for (name, forbidden) in FORBIDDEN {
        for dependency in dependencies(&packages[*name]) {
            assert!(
                !forbidden.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    for (name, package) in packages() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{name} has no `[lints] workspace = true`"
        );
    }
}

/// The workspace's own packages, by name.
fn packages() -> BTreeMap<String, Value> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap().to_owned(), package.clone()))
        .collect()
}

/// Names of what a package needs to be built and run, not of what only its tests need.
fn dependencies(package: &Value) -> Vec<String> {
    let all = package["dependencies"].as_array().unwrap();
    let needed = all.iter().filter(|dependency| dependency["kind"] != "dev");
    needed
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}
