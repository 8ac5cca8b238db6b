//! The packages of `web/`, tested against a running gate.

use std::path::Path;

use reqwest::Method;
use serde_json::json;
use tokio::process::Command;

use super::process::{Dev, pids_of};

/// Runs a package's own tests.
async fn tests_of(package: &str, environment: &[(&str, &str)]) {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let prepared = Command::new(root.join("scripts/prepare-web")).output().await.unwrap();
    assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    let output = Command::new("npx")
        .args(["vitest", "run", "--no-color"])
        .current_dir(root.join("web").join(package))
        .envs(environment.iter().copied())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[tokio::test]
async fn the_typescript_client_works_with_the_gate() {
    let dev = Dev::start().await;
    let environment = [
        ("QUOTA_GATE_URL", dev.text("url")),
        ("QUOTA_GATE_SERVICE_TOKEN", dev.text("serviceToken")),
        ("QUOTA_GATE_ADMIN_TOKEN", dev.text("adminToken")),
    ];
    tests_of("client", &environment).await;
}

/// The pages at `/` and `/admin`, as people use them.
#[tokio::test]
async fn people_chat_reach_the_limit_upgrade_and_continue_and_administrators_see_it() {
    built().await;
    let dev = Dev::start().await;
    let redis: Vec<String> =
        pids_of(dev.dir.to_str().unwrap(), "redis-server").iter().map(ToString::to_string).collect();
    let environment = [
        ("QUOTA_GATE_URL", dev.text("url")),
        ("QUOTA_GATE_SERVICE_TOKEN", dev.text("serviceToken")),
        ("QUOTA_GATE_ADMIN_TOKEN", dev.text("adminToken")),
        ("QUOTA_GATE_REDIS_PIDS", &redis.join(",")),
    ];
    tests_of("pages", &environment).await;

    let page = dev.request(Method::GET, "/").header("Accept-Encoding", "br, gzip;q=0.5").send().await.unwrap();
    assert_eq!(page.headers()["content-encoding"], "gzip");
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    // Another site whose name resolves to this address gets neither the page nor a JWT.
    for (method, path) in [(Method::GET, "/"), (Method::POST, "/api/demo/session")] {
        let rebound = dev.request(method, path).header("Host", "evil.example").json(&json!({"user": "free-user"}));
        assert_eq!(rebound.send().await.unwrap().status().as_u16(), 421, "{path}");
    }
    let stranger = dev.request(Method::POST, "/api/demo/session").json(&json!({"user": "alice"}));
    assert_eq!(stranger.send().await.unwrap().status().as_u16(), 404, "only sample users can sign in");
    // A repeated checkout gives one pack.
    let buy = async |pack: &str| {
        let checkout = json!({"user": "pro-user", "pack": pack, "checkout": "once"});
        dev.request(Method::POST, "/api/demo/pack").json(&checkout).send().await.unwrap().status().as_u16()
    };
    assert_eq!((buy("pack-50").await, buy("pack-50").await, buy("pack-51").await), (200, 200, 400));
    let quota = dev.service(Method::GET, "/api/chat/quota").header("X-User-Id", "pro-user").send().await.unwrap();
    assert_eq!(quota.json::<serde_json::Value>().await.unwrap()["grantedRemaining"], 50);
}

/// In a real Chromium, with React 18 and 19; axe checks every story.
#[tokio::test]
async fn the_react_components_show_the_remaining_quota() {
    tests_of("react", &[]).await;
}

/// As they would be published, in apps outside this repository.
#[tokio::test]
async fn the_packages_work_in_a_fresh_vite_app_and_in_a_fresh_next_app() {
    let root = built().await;
    let mut command = Command::new("node");
    let output = command.arg("fresh-apps.mjs").current_dir(root.join("web")).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("vite ok") && text.contains("next ok"), "{text}");
}

/// Builds the packages and the pages.
async fn built() -> &'static Path {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let prepared = Command::new(root.join("scripts/prepare-pages")).output().await.unwrap();
    assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    root
}
