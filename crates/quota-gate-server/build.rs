//! Builds again when the pages have changed. A release knows its commit; other builds do not, so that a commit makes nobody compile.

#![expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts by the environment")]

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=../../web/pages/dist");
    println!("cargo::rerun-if-env-changed=QUOTA_GATE_COMMIT");
    let given = env::var("QUOTA_GATE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| if is_release { head() } else { None });
    println!("cargo::rustc-env=QUOTA_GATE_COMMIT={}", commit.as_deref().unwrap_or("unknown commit"));
}

/// Of the repository that is built from, if it is one.
fn head() -> Option<String> {
    println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| commit.trim().to_owned())
}
