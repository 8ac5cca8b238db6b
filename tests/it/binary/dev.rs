//! `quota-gate dev` as a newcomer uses it.

use std::process::Command;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;

use super::process::{Dev, answer, processes_of};
use crate::support::eventually;

#[tokio::test]
async fn dev_starts_serves_its_sample_users_and_stops_all_its_processes() {
    let mut dev = Dev::start().await;
    let (status, body) =
        dev.post("/api/chat/quota/consume", json!({"userUuid": "free-user", "sessionId": "s", "ap": 5})).await;
    assert_eq!((status.as_u16(), body["quota"]["remaining"].as_u64()), (200, Some(95)));
    for (user, quota) in [("free-user", 100), ("basic-user", 300), ("plus-user", 1000), ("pro-user", 3000)] {
        let (status, body) = answer(dev.request(Method::GET, "/api/chat/quota").bearer_auth(dev.jwt(user))).await;
        assert_eq!((status.as_u16(), body["monthlyQuota"].as_u64()), (200, Some(quota)), "{user}");
    }
    let dir = dev.dir.to_str().unwrap().to_owned();
    assert!(processes_of(&dir).len() >= 3, "the gate, redis-server and postgres");
    dev.stop().await;
    eventually("no process is left", async || processes_of(&dir).is_empty()).await;
}

#[tokio::test]
async fn the_commands_of_the_welcome_text_work_when_pasted() {
    let dev = Dev::start().await;
    let welcome = dev.output();
    // The commands are indented; a backslash continues a command on the next line.
    let joined = welcome.replace("\\\n", " ");
    let commands: Vec<&str> = joined.lines().map(str::trim).filter(|line| line.starts_with("curl")).collect();
    assert_eq!(commands.len(), 4, "{welcome}");
    for command in commands {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        if command.contains("/v1/") {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                text.contains("chat.completion.chunk") && text.ends_with("data: [DONE]\n\n"),
                "{command}\n{output:?}"
            );
            continue;
        }
        let body: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        assert!(body["userUuid"] == "free-user" || body["quota"]["userUuid"] == "free-user", "{command}\n{output:?}");
    }
}

#[tokio::test]
async fn data_survives_a_restart_and_fresh_deletes_it() {
    let mut dev = Dev::start().await;
    dev.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s", "ap": 9})).await;
    let token = dev.text("serviceToken").to_owned();
    dev.stop().await;
    let mut again = Dev::start_in(dev.dir.clone(), &[]).await;
    assert_eq!(again.text("serviceToken"), token);
    let used = async |dev: &Dev| {
        let request = dev.service(Method::GET, "/api/chat/quota").header("X-User-Id", "alice");
        answer(request).await.1["monthlyUsed"].as_u64()
    };
    assert_eq!(used(&again).await, Some(9));
    again.stop().await;
    let fresh = Dev::start_in(dev.dir.clone(), &["--fresh"]).await;
    assert_eq!(used(&fresh).await, Some(0));
}

#[tokio::test]
async fn a_killed_dev_ends_its_servers_and_restarts_with_its_data() {
    let dev = Dev::start().await;
    dev.post("/api/chat/quota/consume", json!({"userUuid": "alice", "sessionId": "s", "ap": 9})).await;
    let dir = dev.dir.clone();
    dev.signal(Signal::SIGKILL);
    drop(dev);
    eventually("no process is left", async || processes_of(dir.to_str().unwrap()).is_empty()).await;
    let again = Dev::start_in(dir, &[]).await;
    let request = again.service(Method::GET, "/api/chat/quota").header("X-User-Id", "alice");
    assert_eq!(answer(request).await.1["monthlyUsed"].as_u64(), Some(9));
}

#[tokio::test]
async fn two_dev_processes_run_concurrently_but_not_in_one_folder() {
    let (one, two) = tokio::join!(Dev::start(), Dev::start());
    assert_ne!(one.text("url"), two.text("url"));
    let output = Command::new(env!("CARGO_BIN_EXE_quota-gate"))
        .args(["dev", "--port", "0", "--data-dir"])
        .arg(&one.dir)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("in use"), "{message}");
}
