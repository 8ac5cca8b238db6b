//! `quota-gate doctor` finds each planted problem and says what to do.

use std::process::{Command, Output};

use super::process::{BINARY, Dev, JWT_SECRET, SERVICE_TOKEN, hash_of};
use crate::support::{World, execute, postgres, redis_like};

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
    drop(super::process::Serve::on(&world.database, &world.redis.url(), &[]).await);
    let url = world.redis.url();
    let with = |settings: &[(&'static str, &'static str)]| Patient {
        database: &world.database,
        redis: &url,
        settings: settings.to_vec(),
    };
    with(&[("QUOTA_GATE__SERVER__LISTEN", "nowhere")]).has("the configuration cannot be read");
    with(&[("QUOTA_GATE__AUTH__RESERVATION_SECRET", "short")]).has("auth.reservation_secret");
    with(&[("QUOTA_GATE__AUTH__JWT_SECRET", "")]).has("users' JWTs cannot be verified");
    with(&[("QUOTA_GATE__QUOTA__PARTITIONS", "1000")]).has("[levels] or [quota] is invalid");
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
    for (setting, value, usual, wrong) in [
        ("maxmemory-policy", "allkeys-lru", "noeviction", "Redis is not suitable for the gate"),
        ("appendonly", "no", "yes", "Redis runs without appendonly"),
        ("maxmemory", "1mb", "0", "Redis uses "),
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
