//! SIGHUP: the configuration is read again, and no request is disturbed.

use std::{fs, path::Path};

use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::process::{Serve, answer, hash_of};
use crate::support::{World, eventually, scratch};

fn write(file: &Path, token: &str, cost: u32, rest: &str) {
    let hash = hash_of(token);
    let text = format!(
        "[auth.tokens.other]\nsha256 = [{hash:?}]\nscopes = [\"consume\", \"read\"]\n[models]\ndefault = {cost}\n{rest}"
    );
    fs::write(file, text).unwrap();
}

#[tokio::test]
async fn a_hangup_applies_tokens_costs_and_log_filter_and_names_the_rest() {
    let world = World::new().await;
    let file = scratch("gate.toml");
    write(&file, "the first token", 1, "");
    let gate = Serve::on(&world.database, &world.redis.url(), &[("QUOTA_GATE_CONFIG", file.to_str().unwrap())]).await;
    let authorize = async |token: &str| {
        let path = "/api/chat/quota/authorize?settle=now&model=any";
        answer(gate.request_as(token, Method::POST, path).header("X-User-Id", "alice")).await
    };
    assert_eq!(authorize("the first token").await.0, StatusCode::OK);
    assert_eq!(authorize("the second token").await.0, StatusCode::UNAUTHORIZED);

    // A configuration that is invalid is not applied.
    fs::write(&file, "[server]\nrequest_timeout_ms = 0\n").unwrap();
    gate.signal(Signal::SIGHUP);
    eventually("the error is logged", async || gate.log().contains("server.request_timeout_ms must be 1 to")).await;
    assert_eq!(authorize("the first token").await.0, StatusCode::OK);

    let rest = "[server]\nconnections_max = 77\n[telemetry]\naccess_log = true\n";
    write(&file, "the second token", 7, rest);
    gate.signal(Signal::SIGHUP);
    eventually("the new token is accepted", async || authorize("the second token").await.0 == StatusCode::OK).await;
    assert_eq!(authorize("the first token").await.0, StatusCode::UNAUTHORIZED);
    eventually("the rest is named", async || {
        gate.log().lines().any(|line| line.contains("need a restart") && line.contains("server.connections_max"))
    })
    .await;
    // Two messages at the old cost of 1, and one at the new cost of 7.
    let (_, quota) = answer(gate.service(Method::GET, "/api/chat/quota").header("X-User-Id", "alice")).await;
    assert_eq!(quota["monthlyUsed"], json!(2 + 7), "{quota}");
    // The other token comes from the environment, and stays.
    let body = json!({"userUuid": "alice", "sessionId": "s"});
    assert_eq!(gate.post("/api/chat/quota/consume", body).await.0, StatusCode::OK);

    eventually("the access log begins", async || {
        gate.log().lines().any(|line| {
            ["\"target\":\"access\"", "/api/chat/quota/consume", "\"status\":200", "127.0.0.1"]
                .iter()
                .all(|part| line.contains(part))
        })
    })
    .await;
    assert!(!gate.log().contains("alice"), "the access log names no user");
}

#[tokio::test]
async fn the_first_line_names_the_version_and_the_stores() {
    let world = World::new().await;
    let gate = Serve::on(&world.database, &world.redis.url(), &[("QUOTA_GATE_SERVER_PORT", "8080")]).await;
    let log = gate.log();
    let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert!(first["version"].as_str().unwrap().starts_with("0."), "{first}");
    for (store, url) in [("redis", world.redis.url()), ("postgres", world.database.clone())] {
        let location = url.rsplit_once('@').unwrap().1.to_owned();
        assert_eq!(first[store].as_str().unwrap(), location);
        let password = url.rsplit_once('@').unwrap().0.rsplit_once(':').unwrap().1.to_owned();
        assert!(!log.contains(&password), "a password is logged");
    }
    assert!(log.contains("QUOTA_GATE_SERVER_PORT has no effect"), "{log}");
}

#[tokio::test]
async fn settings_that_cannot_be_meant_are_refused_by_name() {
    let world = World::new().await;
    for (name, value, error) in [
        ("QUOTA_GATE_SERVER_LISTEN", "127.0.0.1:0", "write QUOTA_GATE__SERVER__LISTEN"),
        ("QUOTA_GATE__ROLLOUT__PERCENTAGE", "150", "rollout.percentage must be 0 to 100, not 150"),
        ("QUOTA_GATE__REDIS__RESPONSE_TIMEOUT_MS", "0", "redis.response_timeout_ms must be 1 to"),
        ("QUOTA_GATE__TELEMETRY__LOG_FILTER", "a=b=c", "telemetry.log_filter"),
    ] {
        let refused = Serve::refused(&world.database, &world.redis.url(), &[(name, value)]);
        assert!(refused.contains(error), "{name}: {refused}");
    }
    let gate = Serve::on(&world.database, &world.redis.url(), &[("QUOTA_GATE__LEVELS__FREE", "0")]).await;
    assert!(gate.log().contains("levels.free is 0"), "{}", gate.log());
}
