//! The architecture's arrows: which crate may use which of ours.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each crate of ours and what it may use of ours. A new crate is a new line here, and a decision.
const ARROWS: &[(&str, &[&str])] = &[
    ("stead-schema", &[]),
    ("stead-statefulset", &["stead-schema"]),
    ("stead-controller", &["stead-statefulset"]),
    ("stead-apiserver", &["stead-schema"]),
    ("stead-image", &[]),
    ("stead-node", &["stead-image"]),
    (
        "stead-cluster",
        &[
            "stead-apiserver",
            "stead-controller",
            "stead-node",
            "stead-schema",
        ],
    ),
    (
        "stead-cli",
        &[
            "stead-apiserver",
            "stead-cluster",
            "stead-controller",
            "stead-image",
            "stead-node",
            "stead-schema",
            "stead-statefulset",
        ],
    ),
    ("stead-sim", &["stead-statefulset"]),
    (
        "xtask",
        &[
            "stead-apiserver",
            "stead-controller",
            "stead-node",
            "stead-schema",
            "stead-sim",
            "stead-statefulset",
        ],
    ),
];

/// What the pure crates must never see, however far down: IO, time, chance, threads.
const PURE: &[&str] = &["stead-schema", "stead-statefulset"];
const IMPURE: &[&str] = &[
    "tokio",
    "kube-client",
    "hyper",
    "tracing",
    "rand",
    "getrandom",
    "nix",
    "rustix",
    "redb",
];

#[test]
fn crates_use_only_what_the_architecture_allows() {
    let allowed: BTreeMap<_, _> = ARROWS
        .iter()
        .map(|(name, uses)| (*name, BTreeSet::from_iter(uses.iter().copied())))
        .collect();
    let metadata = metadata();
    let ours: BTreeSet<&str> = packages(&metadata)
        .filter(|package| package["source"].is_null())
        .map(name)
        .collect();
    assert_eq!(
        ours,
        allowed.keys().copied().collect(),
        "a crate without a line in ARROWS, or a line without its crate"
    );
    for package in packages(&metadata).filter(|package| package["source"].is_null()) {
        let uses: BTreeSet<&str> = dependencies(package)
            .filter(|used| ours.contains(used))
            .collect();
        let surplus: Vec<_> = uses.difference(&allowed[name(package)]).collect();
        assert!(
            surplus.is_empty(),
            "{} must not use {surplus:?}",
            name(package)
        );
    }
}

#[test]
fn pure_crates_see_no_io_no_clock_and_no_chance() {
    let metadata = metadata();
    let uses: BTreeMap<&str, Vec<&str>> = packages(&metadata)
        .map(|package| (name(package), dependencies(package).collect()))
        .collect();
    for pure in PURE {
        let mut seen = BTreeSet::new();
        let mut next = vec![*pure];
        while let Some(package) = next.pop() {
            if seen.insert(package) {
                next.extend(uses.get(package).into_iter().flatten());
            }
        }
        let bad: Vec<_> = IMPURE
            .iter()
            .filter(|impure| seen.contains(*impure))
            .collect();
        assert!(bad.is_empty(), "{pure} reaches {bad:?}");
    }
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").expect("cargo sets CARGO for tests");
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            &host(),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The platform that this was built for: only its crates are sure to be on this machine.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.expect("rustc tells its host").to_owned()
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap_or_default()
}

/// What ships: neither tests' nor optional dependencies.
fn dependencies(package: &Value) -> impl Iterator<Item = &str> {
    let all = package["dependencies"].as_array().into_iter().flatten();
    all.filter(|used| used["kind"].is_null() && used["optional"] == false)
        .map(name)
}
