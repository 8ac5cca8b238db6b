//! The packages of `web/`, against a running gate.

use std::path::Path;

use tokio::process::Command;

use super::process::Dev;

/// Runs a package's own tests.
async fn tests_of(package: &str, environment: &[(&str, &str)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
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
async fn the_typescript_client_and_the_gate_agree() {
    let dev = Dev::start().await;
    let environment = [
        ("QUOTA_GATE_URL", dev.text("url")),
        ("QUOTA_GATE_SERVICE_TOKEN", dev.text("serviceToken")),
        ("QUOTA_GATE_ADMIN_TOKEN", dev.text("adminToken")),
    ];
    tests_of("client", &environment).await;
}

/// In a real Chromium, with React 18 and 19; axe looks at every story.
#[tokio::test]
async fn the_react_components_show_what_is_left() {
    tests_of("react", &[]).await;
}
