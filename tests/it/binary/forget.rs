//! `quota-gate forget`, run by the tables' owner and by the gate's role.

use std::process::{Command, Output};

use serde_json::json;

use super::process::{BINARY, Dev};
use crate::support::{World, eventually};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn run(world: &World, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).env("DATABASE_URL", &world.database).env("REDIS_URL", world.redis.url());
    command.env("QUOTA_GATE__QUOTA__PARTITIONS", "2").envs(settings.iter().copied()).output().unwrap()
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_a_run_replaces_the_id() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice-1", 5).await);
    let dry = run(&world, &["forget", "alice-1", "--dry-run"], &[]);
    for part in
        ["chat_quotas: 1 rows", "a record with 0 live", "1 charges that are not in Postgres", "nothing was changed"]
    {
        assert!(text(&dry).contains(part), "{part}: {}", text(&dry));
    }
    assert!(gate.charges("alice-1", 5).await, "nothing has changed");
    let listed = [("QUOTA_GATE__ROLLOUT__ALWAYS_IN", "[alice-1]")];
    assert!(text(&run(&world, &["forget", "alice-1"], &listed)).contains("remove the id there first"));
    let done = run(&world, &["forget", "alice-1", "--reason", "request 12"], &[]);
    assert!(done.status.success() && text(&done).contains("the user is forgotten-"), "{}", text(&done));
    assert_eq!(world.number("select count(*) from chat_usage_logs where user_uuid like 'forgotten-%'").await, 2);
    assert!(run(&world, &["verify"], &[]).status.success());
    assert!(text(&run(&world, &["forget", "alice-1", "--dry-run"], &[])).contains("neither store has anything"));
    assert!(text(&run(&world, &["forget", "alice-1", "--readmit"], &[])).contains("may return"));
    assert!(gate.charges("alice-1", 5).await);
}

#[tokio::test]
async fn the_gates_role_may_not_forget_and_answers_say_who_was_forgotten() {
    let dev = Dev::start().await;
    dev.post("/api/chat/quota/consume", json!({"userUuid": "alice-1", "sessionId": "s"})).await;
    let refused = dev.command(&["forget", "alice-1"]);
    assert!(!refused.status.success() && text(&refused).contains("as the tables' owner"), "{}", text(&refused));
    eventually("the user is served", async || {
        dev.post("/api/chat/quota/consume", json!({"userUuid": "alice-1", "sessionId": "s"})).await.0 == 200
    })
    .await;
}
