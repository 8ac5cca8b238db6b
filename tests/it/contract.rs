//! `docs/openapi.json` is the contract that the handlers make.

use std::{fs, path::Path};

/// To renew the file: `cargo test --test it contract -- --ignored`
#[test]
#[ignore = "writes docs/openapi.json"]
fn renew_the_contract() {
    fs::write(file(), quota_gate::http::openapi_json()).unwrap();
}

#[test]
fn the_committed_contract_is_the_one_that_is_served() {
    let committed = fs::read_to_string(file()).unwrap_or_default();
    assert!(
        committed == quota_gate::http::openapi_json(),
        "docs/openapi.json is out of date: cargo test --test it contract -- --ignored"
    );
}

fn file() -> impl AsRef<Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json")
}
