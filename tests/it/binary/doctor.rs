//! `quota-gate doctor` finds each planted problem and says what to do.

use std::process::{Command, Output};

use reqwest::Method;

use super::process::{BINARY, Dev, JWT_SECRET, SERVICE_TOKEN, Serve, answer, hash_of};
use crate::support::{World, eventually, execute, postgres, redis_like};

struct Patient<'a> {
    database: &'a str,
    redis: &'a str,
    settings: Vec<(&'a str, &'a str)>,
}

impl Patient<'_> {
    fn examined(&self) -> (bool, String) {
        let mut command = Command::new(BINARY);
        command
            .arg("doctor")
            .env("DATABASE_URL", self.database)
            .env("REDIS_URL", self.redis)
            .env("QUOTA_GATE__AUTH__JWT_SECRET", JWT_SECRET)
            .env("QUOTA_GATE__AUTH__JWT_ISSUER", "test")
            .env("QUOTA_GATE__AUTH__RESERVATION_SECRET", "a secret of at least thirty-two bytes")
            .env("QUOTA_GATE__AUTH__TOKENS__CHAT__SHA256", format!("[\"{}\"]", hash_of(SERVICE_TOKEN)))
            .env("QUOTA_GATE__AUTH__TOKENS__CHAT__SCOPES", "[consume]")
            .envs(self.settings.iter().copied());
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
    }

    fn has(&self, wrong: &str) {
        let (is_well, said) = self.examined();
        let found = said.lines().any(|line| line.starts_with("WRONG") && line.contains(wrong));
        assert!(!is_well && found, "not found: {wrong}\n{said}");
    }
}

#[tokio::test]
async fn doctor_finds_no_problem_in_a_dev_installation() {
    let dev = Dev::start().await;
    let (is_well, said) =
        Patient { database: dev.text("databaseUrl"), redis: dev.text("redisUrl"), settings: vec![] }.examined();
    assert!(is_well && said.contains(" 0 wrong"), "{said}");
    assert!(said.contains("ok     the Postgres role quota_gate has no more rights than the gate needs"), "{said}");
}

#[tokio::test]
async fn each_planted_misconfiguration_is_found() {
    let world = World::new().await;
    // Creates the partitions and the stored settings.
    drop(Serve::on(&world.database, &world.redis.url(), &[]).await);
    let url = world.redis.operator_url();
    let with = |settings: &[(&'static str, &'static str)]| Patient {
        database: &world.database,
        redis: &url,
        settings: settings.to_vec(),
    };
    with(&[("QUOTA_GATE__SERVER__LISTEN", "nowhere")]).has("the configuration cannot be read");
    with(&[("QUOTA_GATE__AUTH__RESERVATION_SECRET", "short")]).has("auth.reservation_secret");
    with(&[("QUOTA_GATE__AUTH__JWT_SECRET", "")]).has("users' JWTs cannot be verified");
    with(&[("QUOTA_GATE__QUOTA__PARTITIONS", "1000")]).has("quota.partitions must be 1 to 100");
    // What `serve` refuses, `doctor` reports.
    for (settings, wrong) in [
        (&[("QUOTA_GATE__UPSTREAM__URL", "http://127.0.0.1:1/v1")][..], "[upstream]"),
        (&[("QUOTA_GATE__MODELS", "{default=1000001}")], "[models]"),
        (
            &[("QUOTA_GATE__WEBHOOKS__URL", "https://example.com"), ("QUOTA_GATE__WEBHOOKS__SECRET", "short")],
            "[webhooks]",
        ),
        (&[("QUOTA_GATE__BILLING__LEVELS", "{price=\"no level!\"}")], "[billing]"),
        (&[("QUOTA_GATE__DUAL_WRITE__URL", "nowhere")], "[dual_write]"),
        (&[("QUOTA_GATE__TELEMETRY__LOG_FILTER", "a=b=c")], "[telemetry]"),
        (&[("QUOTA_GATE__RESETTER__DAILY_AT_UTC", "noon")], "resetter.daily_at_utc"),
        (&[("QUOTA_GATE__AUTH__JWT_ISSUER", "")], "users' JWTs cannot be verified"),
        (&[("QUOTA_GATE__AUTH__TOKENS__CHAT__SHA256", "[\"short\"]")], "a token is invalid"),
        (&[("QUOTA_GATE__UPSTREAM__KEY", "file:/nowhere/key")], "/nowhere/key"),
        (&[("QUOTA_GATE__SERVER__LISTEN", "192.0.2.1:80")], "server.listen"),
    ] {
        with(settings).has(wrong);
        let refused = super::process::Serve::refused(&world.database, &url, settings);
        assert!(refused.starts_with("error: ") || refused.contains("error"), "{wrong}: {refused}");
    }
    with(&[("QUOTA_GATE__QUOTA__TIME_ZONE", "Nowhere")]).has("[levels] or [quota] is invalid");
    with(&[("QUOTA_GATE__QUOTA__PARTITIONS", "5")]).has("partitions or time zone do not match the installation");
    with(&[]).has("the gate's Redis user may change Redis' settings");
    with(&[]).has("the Postgres role postgres may rewrite the usage log");
    Patient { redis: "redis://127.0.0.1:1", ..with(&[]) }.has("Redis does not answer");
    let other = redis_like(&world.redis).await;
    let running = super::process::Serve::on(&world.database, &url, &[]).await;
    let elsewhere = other.url();
    Patient { redis: &elsewhere, ..with(&[]) }.has("running gates use another Redis");
    drop(running);
    Patient { database: "postgres://nobody@127.0.0.1:1/nowhere", ..with(&[]) }.has("Postgres is not ready");
    let fresh = postgres().await;
    Patient { database: &fresh.url("postgres"), ..with(&[]) }.has("Postgres is not ready");

    let mut redis = world.redis_connection().await;
    let acl = async |user: &str, rules: &[&str]| {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(user).arg(rules);
        command.exec_async(&mut world.redis_connection().await).await.unwrap();
    };
    // As Redis' documentation advises, and as this gate's file was.
    acl("default", &["resetkeys", "-@all"]).await;
    with(&[]).has("the default user of Redis has no commands");
    let gate = world.redis.url();
    let gate = Patient { redis: &gate, ..with(&[]) };
    gate.has("the default user of Redis has no commands");
    acl("quota_gate", &["-acl|dryrun", "-unwatch"]).await;
    let (_, said) = gate.examined();
    for advice in ["may not ask for the rights of the default user", "may not run UNWATCH"] {
        assert!(said.lines().any(|line| line.starts_with("advice") && line.contains(advice)), "{advice}: {said}");
    }
    acl("default", &["~*", "+@all"]).await;
    for (setting, value, usual, wrong) in [
        ("maxmemory-policy", "allkeys-lru", "noeviction", "Redis is not suitable for the gate"),
        ("appendonly", "no", "yes", "Redis runs without appendonly"),
        ("maxmemory", "1mb", "0", "Redis uses "),
        ("maxmemory", "400mb", "0", "the usage streams of 4 partitions may take 67108864 bytes each"),
    ] {
        let _: () = redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).query_async(&mut redis).await.unwrap();
        with(&[]).has(wrong);
        let _: () = redis::cmd("CONFIG").arg("SET").arg(setting).arg(usual).query_async(&mut redis).await.unwrap();
    }
    let month = "select to_char(now() at time zone 'UTC' + interval '1 month', 'YYYYMM')::bigint";
    let next = world.number(month).await;
    execute(&world.database, &format!("drop table chat_usage_logs_{next}")).await;
    with(&[]).has("the usage log lacks a partition");
}

#[tokio::test]
async fn usage_that_only_a_newer_version_can_read_is_reported_everywhere() {
    let world = World::new().await;
    let gate = Serve::on(&world.database, &world.redis.url(), &[]).await;
    let patient = Patient { database: &world.database, redis: &world.redis.url(), settings: vec![] };
    assert!(patient.examined().1.contains("ok     this version can read the usage that waits in Redis"));
    let mut redis = world.redis_connection().await;
    let _: String =
        redis::cmd("XADD").arg("qg:{00}:ev:1").arg("*").arg("e").arg(b"\x09").query_async(&mut redis).await.unwrap();
    let problem = "a gate of a newer version writes journal format 9: upgrade this gate";
    let ready = || answer(gate.service(Method::GET, "/readyz"));
    eventually("/readyz reports it", async || ready().await.1["problem"] == problem).await;
    assert_eq!(ready().await.0.as_u16(), 200, "the gate still decides");
    let (status, health) = answer(gate.service(Method::GET, "/api/chat/quota/reset")).await;
    assert_eq!((status.as_u16(), &health["problems"][0]), (503, &problem.into()));
    patient.has(problem);
    let reported = "\nquota_gate_newer_journal_format 9\n";
    eventually("the metric has it", async || {
        let metrics = gate.service(Method::GET, "/metrics").send().await.unwrap();
        metrics.text().await.unwrap().contains(reported)
    })
    .await;
    let waits = "until then its usage waits in Redis";
    eventually("the error is logged", async || gate.log().contains(waits)).await;
}

#[tokio::test]
async fn uuids_in_several_spellings_are_found() {
    let world = World::new().await;
    let gate = Serve::on(&world.database, &world.redis.url(), &[]).await;
    let patient = Patient { database: &world.database, redis: &world.redis.url(), settings: vec![] };
    let consume = async |user: &str| {
        let body = serde_json::json!({"userUuid": user, "sessionId": "s", "ap": 1});
        assert_eq!(gate.post("/api/chat/quota/consume", body).await.0.as_u16(), 200, "{user}");
    };
    let uuid = "0f8fad5b-d9cb-469f-a165-70867728950e";
    for user in [uuid, "alice", "ABC-DEF", "d41d8cd98f00b204e9800998ecf8427e"] {
        consume(user).await;
    }
    let said = patient.examined().1;
    assert!(
        said.contains("ok     no UUID is the id of several users") && !said.contains("upper-case digits"),
        "{said}"
    );
    assert!(!gate.log().contains("unusual spelling"));
    consume("11111111-AAAA-4AAA-8AAA-111111111111").await;
    let said = patient.examined().1;
    assert!(said.contains("advice 1 user ids are UUIDs with upper-case digits"), "{said}");
    assert!(said.contains("ok     no UUID is the id of several users"), "{said}");
    assert!(gate.log().contains("unusual spelling"));
    // Two spellings of one UUID are two users.
    consume(&uuid.to_uppercase()).await;
    consume(&uuid.replace('-', "")).await;
    consume(&format!("urn:uuid:{uuid}")).await;
    consume("urn:uuid:11111111-aaaa-4aaa-8aaa-111111111111").await;
    patient.has("2 UUIDs are the id of several users");
    assert_eq!(world.number("select count(*) from chat_quotas").await, 9);
}

#[test]
fn the_program_prints_its_completions_manual_and_version() {
    let output = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for shell in ["bash", "zsh", "fish"] {
        assert!(output(&["completions", shell]).contains("dead-letters"), "{shell}");
    }
    let dir = crate::support::scratch("man");
    output(&["man", dir.to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    assert!(page("quota-gate.1").contains(".TH"));
    assert!(page("quota-gate-verify.1").contains("repair"));
    let version = output(&["--version"]);
    assert!(version.starts_with("quota-gate 0.") && version.contains('('), "{version}");
}
