//! The packages of `web/`, against a running gate.

use std::path::Path;

use tokio::process::Command;

use super::process::Dev;

#[tokio::test]
async fn the_typescript_client_and_the_gate_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let prepared = Command::new(root.join("scripts/prepare-web")).output().await.unwrap();
    assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    let dev = Dev::start().await;
    let output = Command::new("npx")
        .args(["vitest", "run", "--no-color"])
        .current_dir(root.join("web/client"))
        .env("QUOTA_GATE_URL", dev.text("url"))
        .env("QUOTA_GATE_SERVICE_TOKEN", dev.text("serviceToken"))
        .env("QUOTA_GATE_ADMIN_TOKEN", dev.text("adminToken"))
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}
