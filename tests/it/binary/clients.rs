//! Official clients accept the gate's answers, raise denials once, and pay for what they received.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Output,
};

use reqwest::Method;
use serde_json::Value;
use tokio::process::Command;

use super::{gateway::jwt, proxy::Chat};
use crate::support::scratch;

/// AP charged to each scenario's user, at one AP per message.
const PAID: [(&str, u64); 9] = [
    ("chat", 1),
    ("stream", 1),
    ("stream_usage", 1),
    ("tools", 2),
    ("responses", 2),
    ("abort", 1),
    ("failed", 0),
    ("timeout", 0),
    ("exceeded", 0),
];

/// Installs the clients with `scripts/prepare-clients`; returns their folder.
pub(super) async fn prepared() -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let output = Command::new(root.join("scripts/prepare-clients")).output().await.unwrap();
    assert!(output.status.success(), "the clients cannot be installed: {}", text(&output));
    root.join("target/clients")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs the scenarios of one client, then checks what they cost.
async fn chats(mut command: Command, scenarios: &[&str]) {
    let chat = Chat::new(&[("QUOTA_GATE__MODELS", "{default=1, dear=101}")]).await;
    let keys: BTreeMap<&str, String> = PAID.iter().map(|(user, _)| (*user, jwt(user))).collect();
    let output = command
        .env("BASE_URL", format!("{}/v1", chat.gate.url))
        .env("KEYS", serde_json::to_string(&keys).unwrap())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}\n{}", chat.gate.log());
    for scenario in scenarios {
        assert!(text.contains(&format!("{scenario} ok")), "{scenario} ran: {text}");
    }
    for (user, paid) in PAID.iter().filter(|(user, _)| scenarios.contains(user)) {
        assert_eq!(chat.settled(user).await, *paid, "{user}");
    }
    // The client raised the denial immediately and did not retry.
    let metrics = chat.gate.service(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let denials: Vec<&str> = metrics
        .lines()
        .filter(|line| line.contains("http_requests_total") && line.contains("status=\"429\""))
        .collect();
    assert!(denials.len() == 1 && denials[0].ends_with(" 1"), "{denials:?}");
}

/// Node looks for packages beside the script that imports them.
fn node(clients: &Path, script: &str) -> Command {
    let dir = scratch("node");
    fs::create_dir_all(&dir).unwrap();
    symlink(clients.join("node/node_modules"), dir.join("node_modules")).unwrap();
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/clients").join(script);
    fs::copy(source, dir.join(script)).unwrap();
    let mut command = Command::new("node");
    command.arg(dir.join(script));
    command
}

#[tokio::test]
async fn the_official_python_client_chats_and_is_charged_for_what_it_received() {
    let clients = prepared().await;
    let mut command = Command::new(clients.join("python/bin/python"));
    command.arg(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/clients/chat.py"));
    chats(command, &PAID.map(|(user, _)| user)).await;
}

#[tokio::test]
async fn the_official_node_client_chats_and_is_charged_for_what_it_received() {
    chats(node(&prepared().await, "chat.mjs"), &PAID.map(|(user, _)| user)).await;
}

#[tokio::test]
async fn the_server_side_of_the_ai_sdk_chats_and_is_charged_for_what_it_received() {
    chats(node(&prepared().await, "ai-sdk.mjs"), &["chat", "stream", "responses", "abort", "exceeded"]).await;
}

/// Runs the README's snippet as a newcomer would.
#[tokio::test]
async fn the_readme_snippet_works() {
    let readme =
        fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("README.md")).unwrap();
    let snippet = readme.split("```python\n").nth(1).expect("README has a snippet").split("```").next().unwrap();
    let dev = super::process::Dev::start().await;
    let clients = prepared().await;
    let snippet = snippet.replace("http://127.0.0.1:8080", dev.text("url"));
    let mut command = Command::new(clients.join("python/bin/python"));
    let output = command.arg("-c").arg(snippet).env("QUOTA_GATE_JWT", dev.jwt("free-user")).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("local model"), "{}", text(&output));
    crate::support::eventually("the message is charged", async || {
        let request = dev.service(Method::GET, "/api/chat/quota").header("X-User-Id", "free-user");
        let quota: Value = request.send().await.unwrap().json().await.unwrap();
        quota["monthlyUsed"] == 1 && quota["held"] == 0
    })
    .await;
}
