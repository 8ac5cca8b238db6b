//! `docs/openapi.json` matches the handlers.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

/// Routes that the contract does not list: older aliases, the contract itself, and a part of `/v1/models`.
const NOT_LISTED: [&str; 4] =
    ["/api/chat/quota/membership", "/api/webhooks/subscription", "/openapi.json", "/v1/models/{model}"];

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

#[test]
fn openapi_json_lists_every_route() {
    let contract: Value = serde_json::from_str(&quota_gate_server::http::openapi_json()).unwrap();
    let mut listed: BTreeSet<&str> = contract["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    listed.extend(NOT_LISTED);
    let table = include_str!("../../crates/quota-gate-server/src/http/mod.rs");
    let after = |word| table.split(word).skip(1).filter_map(|rest: &str| rest.split('"').next());
    let of_meters = after(".route(&meter.path(\"");
    let of_meters: Vec<String> =
        of_meters.flat_map(|rest| [format!("/api/chat/quota{rest}"), format!("/api/{{meter}}/quota{rest}")]).collect();
    let routes: BTreeSet<&str> = after(".route(\"").chain(of_meters.iter().map(String::as_str)).collect();
    assert_eq!(routes, listed);
}
