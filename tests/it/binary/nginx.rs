//! nginx in front of a chat, configured as in docs/gateways.md; and the route that it calls.

use std::process::Command;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use super::gateway::{Behind, Gateway, documented, folder, jwt};
use crate::support::eventually;

#[tokio::test]
async fn the_documented_nginx_asks_the_gate_and_the_service_commits() {
    let behind = Behind::new(&[]).await;
    let server = documented("nginx", "auth_request")
        .replace("127.0.0.1:8080", behind.gate.url.trim_start_matches("http://"))
        .replace("127.0.0.1:3000", &format!("127.0.0.1:{}", behind.chat_port))
        .replace("127.0.0.1:8000", &format!("127.0.0.1:{}", behind.port));
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {kind};"));
    let config = format!(
        "daemon off; pid nginx.pid; error_log stderr; worker_processes 1; events {{}}\nhttp {{ access_log off; {} {server} }}",
        temporary.join(" ")
    );
    let dir = folder("nginx", "nginx.conf", &config);
    let program = if std::path::Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
    let _nginx = Gateway::start(Command::new(program).arg("-p").arg(&dir).args(["-c", "nginx.conf", "-e", "stderr"]));
    behind.open().await;

    let alice = jwt("alice");
    for used in [40, 80] {
        let answer = behind.ask(Some(&alice)).await;
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.text().await.unwrap(), "hello alice");
        assert_eq!(behind.quota("alice").await, (used, 0), "the service has committed the reservation");
    }
    let denied = behind.ask(Some(&alice)).await;
    assert_eq!(
        (denied.status().as_u16(), &denied.headers()["content-type"]),
        (429, &"application/problem+json".parse().unwrap())
    );
    let denied: Value = denied.json().await.unwrap();
    assert_eq!(
        (&denied["code"], &denied["required"], &denied["remaining"]),
        (&json!("QUOTA_EXCEEDED"), &json!(40), &json!(20))
    );
    assert!(denied["quotaResetAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(behind.ask(None).await.status().as_u16(), 401);
    assert_eq!(behind.ask(Some("made up")).await.status().as_u16(), 401);
    behind.gate.signal(Signal::SIGKILL);
    assert_eq!(behind.ask(Some(&jwt("bob"))).await.status().as_u16(), 503);
}

#[tokio::test]
async fn a_message_is_charged_by_callback_at_expiry_or_immediately() {
    let behind = Behind::new(&[("QUOTA_GATE__MODELS", "{default=2, dear=7}")]).await;
    let ask = async |who: &str, query: &str| {
        let path = format!("/api/chat/quota/authorize?{query}");
        behind.gate.service(Method::GET, &path).header("X-User-Id", who).send().await.unwrap()
    };
    let held = ask("a", "").await;
    assert_eq!(
        (held.status().as_u16(), &held.headers()["x-quota-user"], &held.headers()["x-quota-remaining"]),
        (200, &"a".parse().unwrap(), &"98".parse().unwrap())
    );
    assert_eq!(behind.quota("a").await, (0, 2));
    let now = ask("b", "model=dear&settle=now").await;
    assert!(!now.headers().contains_key("x-quota-reservation"));
    assert_eq!(behind.quota("b").await, (7, 0));
    // At expiry: charged, unless the service has released the hold.
    assert_eq!(ask("c", "ap=5&settle=expiry&ttlSeconds=1").await.status().as_u16(), 200);
    let released = ask("d", "ap=5&settle=expiry&ttlSeconds=1").await;
    let id = released.headers()["x-quota-reservation"].to_str().unwrap().to_owned();
    behind.gate.post(&format!("/api/chat/quota/reservations/{id}/release"), json!({})).await;
    assert_eq!(ask("e", "ap=5&settle=callback&ttlSeconds=1").await.status().as_u16(), 200);
    eventually("the expired hold is charged", async || behind.quota("c").await == (5, 0)).await;
    eventually("the hold expires", async || behind.quota("e").await == (0, 0)).await;
    assert_eq!(behind.quota("d").await, (0, 0));
    // A stopping gate charges it before its expiry.
    assert_eq!(ask("f", "ap=5&settle=expiry&ttlSeconds=900").await.status().as_u16(), 200);

    for (query, status) in [("ap=101", 429), ("ap=101&denied=403", 403)] {
        let denied = ask("g", query).await;
        assert_eq!(
            (denied.status().as_u16(), &denied.headers()["x-quota-required"]),
            (status, &"101".parse().unwrap())
        );
        assert_eq!(denied.json::<Value>().await.unwrap()["code"], "QUOTA_EXCEEDED");
    }
    for wrong in ["ap=0", "ap=x", "denied=500", "settle=never", "ttlSeconds=901", "session=", "app=1"] {
        assert_eq!(ask("g", wrong).await.status().as_u16(), 400, "{wrong}");
    }
    let mut behind = behind;
    behind.gate.signal(Signal::SIGTERM);
    assert!(behind.gate.wait().success());
    let charged = "select coalesce(sum(ap_used), 0)::bigint from chat_usage_logs where user_uuid = 'f'";
    assert_eq!(behind.world.number(charged).await, 5);
}
