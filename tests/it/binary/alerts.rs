//! The alerts of `deploy/prometheus`: promtool tests them, and each one fires in a real Prometheus.

use std::{fs, net::TcpListener, path::Path, process::Command, sync::Arc, time::Duration};

use axum::{Json, Router, routing::post};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::sleep};

use super::{
    admin::{admin, gate},
    gateway::Gateway,
    process::Serve,
};
use crate::support::{Detour, World, eventually, execute, redis_like, scratch};

/// Pause between two checks whether an alert fires; all checks take a minute.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

fn deployed(file: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("deploy").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn alerts() -> Vec<String> {
    let text = deployed("prometheus/alerts.yml");
    text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect()
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("deploy/prometheus");
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(&dir).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_alert_has_a_test_and_a_runbook_section() {
    let (tests, operations) = (deployed("prometheus/alerts_test.yml"), deployed("../docs/operations.md"));
    for alert in alerts() {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test");
        assert!(operations.contains(&format!("### {alert}\n")), "{alert} has no section in docs/operations.md");
    }
}

/// Every metric in an alert or the dashboard is in the gate's source.
#[tokio::test]
async fn alerts_and_dashboard_query_metrics_that_exist() {
    let sources = ["src", "crates", "deploy"]
        .map(|dir| text_below(&Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(dir)));
    let [library, crates, deploy] = sources;
    let code = library + &crates;
    let mut names: Vec<&str> = deploy.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    names.retain(|word| word.starts_with("quota_gate_"));
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let metric = name.strip_suffix("_bucket").or_else(|| name.strip_suffix("_count")).unwrap_or(name);
        assert!(code.contains(&format!("\"{metric}\"")), "the gate has no metric {name}");
    }
}

fn text_below(dir: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            text += &text_below(&entry);
        } else if entry.extension().is_some_and(|extension| ["rs", "yml", "json"].iter().any(|one| extension == *one)) {
            text += &fs::read_to_string(&entry).unwrap();
        }
    }
    text
}

struct Prometheus {
    _program: Gateway,
    url: String,
}

impl Prometheus {
    /// Uses the deployed rules, but they fire sooner.
    fn watching(gates: &[&Serve]) -> Self {
        let dir = scratch("prometheus");
        fs::create_dir_all(&dir).unwrap();
        let mut rules = deployed("prometheus/alerts.yml").replace("seconds) > 60\n", "seconds) > 1\n");
        for minutes in ["1m", "2m", "5m"] {
            rules = rules.replace(&format!("for: {minutes}\n"), "for: 0s\n");
        }
        fs::write(dir.join("alerts.yml"), rules).unwrap();
        let targets: Vec<&str> = gates.iter().map(|gate| gate.url.trim_start_matches("http://")).collect();
        let config = json!({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "quota-gate", "static_configs": [{"targets": targets}]}],
        });
        fs::write(dir.join("prometheus.yml"), config.to_string()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = Gateway::start(
            Command::new("prometheus")
                .arg("--config.file=prometheus.yml")
                .arg("--storage.tsdb.path=data")
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .arg("--log.level=error")
                .current_dir(&dir),
        );
        Self { _program: program, url: format!("http://127.0.0.1:{port}") }
    }

    async fn firing(&self) -> Vec<String> {
        let answer = reqwest::get(format!("{}/api/v1/alerts", self.url)).await;
        let Ok(answer) = answer else { return Vec::new() };
        let answer: Value = answer.json().await.unwrap_or_default();
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned())).collect()
    }

    async fn fires(&self, alert: &str) {
        // The gate runs its checks every five seconds, and Prometheus must scrape twice.
        for _ in 0..300 {
            if self.firing().await.iter().any(|firing| firing == alert) {
                return;
            }
            sleep(LOOK_PAUSE).await;
        }
        panic!("{alert} does not fire; these do: {:?}", self.firing().await);
    }
}

/// Calls `once` repeatedly until `until` completes.
async fn meanwhile(until: impl Future<Output = ()>, once: impl AsyncFn()) {
    let forever = async {
        loop {
            once().await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = until => {}
        () = forever => {}
    }
}

/// URL of a new model server that answers when notified, and to `/responses` with a page of its own.
async fn model(may_answer: &Arc<Notify>) -> String {
    let may_answer = Arc::clone(may_answer);
    let answer = async move || {
        may_answer.notified().await;
        Json(
            json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "late"}, "finish_reason": "stop"}]}),
        )
    };
    let router = Router::new()
        .route("/chat/completions", post(answer))
        .route("/responses", post(async || "<html>It works!</html>"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Releases a hold while its answer is generated, so the answer can no longer be charged.
async fn generate_and_release(gate: &Serve, may_answer: &Notify) {
    let body = json!({"model": "slow", "messages": []});
    let asked = gate.service(Method::POST, "/v1/chat/completions").header("X-User-Id", "dan").json(&body).send();
    let released = async {
        let mut hold = None;
        eventually("the message is held", async || {
            let user = admin(gate, Method::GET, "users/dan", None).await.1;
            hold = user["holds"][0]["id"].as_str().map(str::to_owned);
            hold.is_some()
        })
        .await;
        let release = format!("users/dan/holds/{}/release", hold.unwrap());
        assert_eq!(admin(gate, Method::POST, &release, Some(json!({"reason": "r"}))).await.0.as_u16(), 200);
        may_answer.notify_one();
    };
    assert_eq!(futures_util::join!(asked, released).0.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn each_alert_fires_for_its_cause() {
    let mut world = World::new().await;
    let may_answer = Arc::new(Notify::new());
    let upstream = model(&may_answer).await;
    let settings = [
        ("QUOTA_GATE__UPSTREAM__URL", upstream.as_str()),
        ("QUOTA_GATE__UPSTREAM__KEY", "key"),
        // Nothing is processed, so each problem persists.
        ("QUOTA_GATE__FLUSHER__ENABLED", "false"),
        ("QUOTA_GATE__RESETTER__ENABLED", "false"),
        ("QUOTA_GATE__SERVER__REQUESTS_IN_FLIGHT_MAX", "2"),
        ("QUOTA_GATE__RATE_LIMITS__PER_ADDRESS", "0"),
        ("QUOTA_GATE__RATE_LIMITS__PER_TOKEN", "0"),
    ];
    let mut first = gate(&world, &settings).await;
    let consume = async |gate: &Serve, user: &str, ap: u32| {
        gate.post("/api/chat/quota/consume", json!({"userUuid": user, "sessionId": "s", "ap": ap})).await.0.as_u16()
    };
    assert_eq!(consume(&first, "ann", 5).await, 200);
    for statement in [
        "update chat_quotas set monthly_used = 150, total_used = 150 where user_uuid = 'ann'",
        "insert into dead_letters (partition, generation, entry_id, payload, reason, created_at) values (0, 1, '1-1', 'x', 'r', now())",
        "insert into reset_runs (trigger, started_at, finished_at) values ('cron', now() - interval '30 hours', now() - interval '30 hours')",
        "insert into inbox (id, user_uuid, kind, reservation_id, ap, tokens, accepted_at, claim, claimed_until)
         values (gen_random_uuid(), 'ann', 'commit', 'x', 1, 0, now(), gen_random_uuid(), now() + interval '1 day')",
    ] {
        execute(&world.database, statement).await;
    }
    // A gate checks for over-admission when it starts.
    let detour = Detour::to(world.redis.port()).await;
    let redis_url = detour.url(&world.redis.url(), world.redis.port());
    let elsewhere = [&settings[..], &[("REDIS_URL", redis_url.as_str())]].concat();
    let mut second = gate(&world, &elsewhere).await;
    let prometheus = Prometheus::watching(&[&first, &second]);

    for alert in ["OverAdmission", "Drift", "DeadLetters", "ResetMissed", "InboxWaits", "FlushLag"] {
        prometheus.fires(&format!("QuotaGate{alert}")).await;
    }
    generate_and_release(&first, &may_answer).await;
    prometheus.fires("QuotaGateSettlementsFailed").await;
    let body = json!({"model": "m", "input": "hello"});
    let unread = first.service(Method::POST, "/v1/responses").header("X-User-Id", "ann").json(&body).send().await;
    assert_eq!(unread.unwrap().status().as_u16(), 200);
    prometheus.fires("QuotaGateUnreadAnswers").await;
    let quiet = prometheus.firing().await;
    assert!(!quiet.iter().any(|alert| alert.contains("Breaker") || alert.contains("Down")), "{quiet:?}");

    let crowd = async || {
        join_all((0..16).map(|_| consume(&second, "poor", 1_000))).await;
    };
    meanwhile(prometheus.fires("QuotaGateShed"), crowd).await;
    let alone = async || {
        consume(&second, "poor", 1_000).await;
    };
    meanwhile(prometheus.fires("QuotaGateDenialSpike"), alone).await;

    let mut redis = world.redis_connection().await;
    let used: String = redis::cmd("INFO").arg("memory").query_async(&mut redis).await.unwrap();
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse::<u64>().unwrap();
    let limit = used + used / 10;
    let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(limit).query_async(&mut redis).await.unwrap();
    prometheus.fires("QuotaGateRedisMemory").await;
    let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).query_async(&mut redis).await.unwrap();

    let slowly = async || {
        let mut redis = redis.clone();
        let _: () = redis::cmd("CLIENT").arg("PAUSE").arg(90).query_async(&mut redis).await.unwrap();
        join_all((0..2).map(|_| consume(&first, "poor", 1_000))).await;
    };
    meanwhile(prometheus.fires("QuotaGateSlow"), slowly).await;

    let users = ["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal"];
    let partitions = async || {
        for partition in 0..4 {
            let fence = format!("qg:{{{partition:02}}}:gen");
            let _: () = redis::cmd("DEL").arg(fence).query_async(&mut redis.clone()).await.unwrap();
        }
        join_all(users.map(|user| consume(&first, user, 1_000))).await;
    };
    meanwhile(prometheus.fires("QuotaGateGenerationChurn"), partitions).await;

    let other = redis_like(&world.redis).await;
    detour.lead_to(other.port());
    prometheus.fires("QuotaGateRedisConflict").await;
    detour.lead_to(world.redis.port());

    world.redis.pause();
    let both = async {
        prometheus.fires("QuotaGateBreakerOpen").await;
        prometheus.fires("QuotaGateUndecided").await;
    };
    let asked = async || {
        consume(&first, "ann", 1).await;
    };
    meanwhile(both, asked).await;
    world.redis.resume();

    for gate in [&mut first, &mut second] {
        gate.signal(Signal::SIGKILL);
        gate.wait();
    }
    prometheus.fires("QuotaGateDown").await;
}
