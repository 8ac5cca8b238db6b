//! Schemathesis sends valid and invalid requests: no server error, and no answer outside the contract.

use std::process::Stdio;

use tokio::process::Command;

use super::{
    clients::prepared,
    process::{Serve, hash_of},
};
use crate::support::{World, scratch};

const TOKEN: &str = "a token for everything";
/// Examples per operation, in addition to the coverage phase.
const EXAMPLES: &str = "40";

#[tokio::test]
async fn every_answer_conforms_to_the_contract() {
    let clients = prepared().await;
    let world = World::new().await;
    let hash = format!("[\"{}\"]", hash_of(TOKEN));
    let gate = Serve::on(
        &world.database,
        &world.redis.url(),
        &[
            ("QUOTA_GATE__AUTH__TOKENS__ALL__SHA256", hash.as_str()),
            ("QUOTA_GATE__AUTH__TOKENS__ALL__SCOPES", "[consume, read, admin, reset]"),
        ],
    )
    .await;
    let dir = scratch("schemathesis");
    std::fs::create_dir_all(&dir).unwrap();
    let output = Command::new(clients.join("python/bin/schemathesis"))
        .args(["run", &format!("{}/openapi.json", gate.url)])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        // The stream stays open for a quarter of an hour.
        .args(["--exclude-path", "/api/chat/quota/stream"])
        // The handlers of the chat, for meters that this gate does not have.
        .args(["--exclude-path-regex", r"^/api/\{meter\}/"])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        .args(["--checks", "response_headers_conformance,unsupported_method"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES])
        .args(["--continue-on-failure", "--warnings", "off", "--seed", "1", "--request-timeout", "20", "--no-color"])
        .current_dir(&dir)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", gate.log());
    assert!(said.contains("Tested: "), "{said}");
}
