//! Rebuilds when the pages change. Only release builds read their commit, so a commit does not trigger other rebuilds.

#![expect(clippy::disallowed_methods, reason = "cargo passes values to build scripts in the environment")]

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=../../web/pages");
    println!("cargo::rerun-if-env-changed=QUOTA_GATE_COMMIT");
    let given = env::var("QUOTA_GATE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| if is_release { head() } else { None });
    println!("cargo::rustc-env=QUOTA_GATE_COMMIT={}", commit.as_deref().unwrap_or("unknown commit"));
}

/// Returns the commit of the repository, if the sources are in one.
fn head() -> Option<String> {
    println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| commit.trim().to_owned())
}
