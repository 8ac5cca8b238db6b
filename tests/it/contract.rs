//! `docs/openapi.json` matches the handlers.

use serde_json::Value;
use std::{fs, path::Path};

/// Updates the file: `cargo test --test it contract -- --ignored`
#[test]
#[ignore = "writes docs/openapi.json"]
fn update_openapi_json() {
    fs::write(file(), quota_gate_server::http::openapi_json()).unwrap();
}

#[test]
fn committed_openapi_json_is_up_to_date() {
    let committed = fs::read_to_string(file()).unwrap_or_default();
    assert!(
        committed == quota_gate_server::http::openapi_json(),
        "docs/openapi.json is out of date: cargo test --test it contract -- --ignored"
    );
}

fn file() -> impl AsRef<Path> {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("docs/openapi.json")
}

#[test]
fn every_reference_in_openapi_json_resolves() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let contract: Value = serde_json::from_str(&quota_gate_server::http::openapi_json()).unwrap();
    let mut found = Vec::new();
    references(&contract, &mut found);
    assert!(found.len() > 50, "{found:?}");
    for reference in found {
        assert!(contract.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}
