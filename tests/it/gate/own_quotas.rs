//! Quotas of single users and blocks: they win over the level, stay over rolls and losses, and reach both stores.

use quota_gate::{
    domain::{
        author::Author,
        decision::{Decision, OnRedisFailure, Settled, UserChanged},
        level::LevelName,
        level_change::Effective,
        own_quota::{OwnQuota, UserChange},
    },
    gate::{ChangeLevel, ChangeUser, Commit, GateError},
    jobs::level_sync::LevelSync,
};

use crate::support::{GateUnderTest, World, eventually, execute, levels, reserve, user};

fn request(who: &str, change: UserChange) -> ChangeUser {
    ChangeUser { user: user(who), change, if_version: None, author: Author::person("ops", "a test").unwrap() }
}

async fn give(gate: &GateUnderTest, who: &str, quota: Option<i64>) -> UserChanged {
    let quota = quota.map(|ap| OwnQuota::new(ap).unwrap());
    gate.gate.change_user(request(who, UserChange { quota: Some(quota), blocked: None })).await.unwrap()
}

async fn block(gate: &GateUnderTest, who: &str, blocked: bool) -> UserChanged {
    gate.gate.change_user(request(who, UserChange { quota: None, blocked: Some(blocked) })).await.unwrap()
}

async fn change_level(gate: &GateUnderTest, who: &str, level: &str) {
    let (level, author) = (LevelName::parse(level).unwrap(), Author::person("ops", "a test").unwrap());
    let request =
        ChangeLevel { user: user(who), level, effective: Effective::Fair, anchor_day: None, if_version: None, author };
    gate.gate.change_level(request).await.unwrap();
}

async fn quota(gate: &GateUnderTest, who: &str) -> u32 {
    gate.gate.quota(&user(who)).await.unwrap().quota.get()
}

#[tokio::test]
async fn an_own_quota_wins_over_the_level_and_stays_over_rolls_in_both_stores() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 5).await);
    give(&gate, "alice", Some(500)).await;
    assert!(gate.charges("alice", 495).await && !gate.charges("alice", 1).await);
    change_level(&gate, "alice", "plus").await;
    assert_eq!(quota(&gate, "alice").await, 500, "an upgrade does not change it");
    // A downgrade waits for the next period, also if the own quota is smaller.
    change_level(&gate, "alice", "basic").await;
    gate.flush_and_verify().await;

    // Redis rolls first.
    world.set_time("2026-12-10T12:00:00Z").await;
    assert!(gate.charges("alice", 500).await && !gate.charges("alice", 1).await);
    gate.flush_and_verify().await;
    let level = "select count(*) from chat_quotas where membership_level = 'basic' and monthly_quota = 500";
    assert_eq!(world.number(level).await, 1);
    // Postgres rolls first.
    world.set_time("2027-01-10T12:00:00Z").await;
    gate.resetter.run(quota_gate::jobs::resetter::Trigger::Schedule).await.unwrap();
    assert_eq!(world.number("select monthly_quota::bigint from chat_quotas").await, 500);
    gate.flush_and_verify().await;

    give(&gate, "alice", None).await;
    assert_eq!(quota(&gate, "alice").await, 300, "the level counts again");
    gate.flush_and_verify().await;
    let changes = "select count(*) from user_changes where kind = 'quota' and reason = 'a test'";
    assert_eq!(world.number(changes).await, 2);
}

#[tokio::test]
async fn own_quotas_and_blocks_survive_a_loss_of_redis_and_changes_of_the_levels() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "alice", Some(7)).await;
    block(&gate, "bob", true).await;
    assert!(gate.charges("alice", 3).await);
    gate.flush_and_verify().await;
    redis::cmd("FLUSHALL").query_async::<()>(&mut world.redis_connection().await).await.unwrap();
    eventually("the gate serves again", async || gate.consume("carol", 1).await.is_ok()).await;
    assert_eq!(quota(&gate, "alice").await, 7);
    assert!(!gate.charges("alice", 5).await && gate.charges("alice", 4).await);
    assert!(matches!(gate.consume("bob", 1).await, Err(GateError::Blocked)));
    gate.flush_and_verify().await;

    let configured = levels(&[("free", 50), ("basic", 300), ("plus", 1000), ("pro", 3000)]);
    gate.gate.apply_levels(&configured, |_| {}).await.unwrap();
    LevelSync::new(&gate.gate).sync_some(None).await.unwrap();
    assert_eq!((quota(&gate, "alice").await, quota(&gate, "carol").await), (7, 50));
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_block_refuses_new_messages_and_settles_earlier_holds() {
    let world = World::new().await;
    let gate = world.gate().await;
    let Decision::Allowed(held) = gate.gate.reserve(reserve("alice", 9, 60)).await.unwrap() else { panic!("denied") };
    let blocked = block(&gate, "alice", true).await;
    assert!(!blocked.before.blocked && blocked.after.blocked && blocked.level_version == 1);
    assert!(matches!(gate.consume("alice", 1).await, Err(GateError::Blocked)));
    assert!(matches!(gate.gate.reserve(reserve("alice", 1, 60)).await, Err(GateError::Blocked)));
    let id = gate.gate.reservation_id(&held.reservation);
    let Settled::Now(committed) = gate.gate.commit(&id, Commit::default()).await.unwrap() else { panic!("later") };
    assert_eq!(committed.charged.get(), 9);
    gate.flush_and_verify().await;
    // Again the same: nothing is changed or recorded.
    assert_eq!(block(&gate, "alice", true).await.level_version, 1);
    block(&gate, "alice", false).await;
    assert!(gate.charges("alice", 1).await);
    let kinds = "select count(*) from user_changes where kind in ('blocked', 'unblocked')";
    assert_eq!(world.number(kinds).await, 2);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn the_level_sync_sends_what_a_gate_could_not() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 1).await && gate.charges("bob", 1).await);
    // As the transaction of a gate that died before it sent the change.
    let statement = "update chat_quotas set own_quota = 2, level_version = level_version + 1 where user_uuid = 'alice'";
    execute(&world.database, statement).await;
    let statement = "update chat_quotas set blocked = true, level_version = level_version + 1 where user_uuid = 'bob'";
    execute(&world.database, statement).await;
    let step = LevelSync::new(&gate.gate).sync_some(None).await.unwrap();
    assert_eq!(step.synced, 2);
    assert!(gate.charges("alice", 1).await && !gate.charges("alice", 1).await);
    assert!(matches!(gate.consume("bob", 1).await, Err(GateError::Blocked)));
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn verify_finds_a_record_with_another_quota_or_block_and_repair_corrects_it() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 1).await && gate.charges("bob", 1).await);
    gate.flush_and_verify().await;
    // Without a new level version, Redis does not hear of it.
    execute(&world.database, "update chat_quotas set blocked = true where user_uuid = 'alice'").await;
    execute(&world.database, "update chat_quotas set own_quota = 100 where user_uuid = 'bob'").await;
    let verdict = gate.verifier.verify().await.unwrap();
    let users: Vec<&str> = verdict.level_drift.iter().map(|drift| drift.user.as_str()).collect();
    assert_eq!(users, ["alice", "bob"]);
    gate.repairer.repair().await.unwrap();
    gate.flush_and_verify().await;
    assert!(matches!(gate.consume("alice", 1).await, Err(GateError::Blocked)));
}

#[tokio::test]
async fn a_blocked_user_stays_blocked_while_redis_is_unavailable() {
    let mut world = World::new().await;
    let gate = world
        .gate_with(|tuning| {
            tuning.response_timeout = std::time::Duration::from_millis(300);
            tuning.on_redis_failure = OnRedisFailure::Allow;
        })
        .await;
    block(&gate, "alice", true).await;
    world.redis.pause();
    eventually(
        "Postgres decides",
        async || matches!(gate.consume("bob", 1).await, Ok(Decision::Allowed(charged)) if charged.degraded),
    )
    .await;
    // The first calls to a Redis that does not answer are lost.
    eventually("Postgres refuses", async || matches!(gate.consume("alice", 1).await, Err(GateError::Blocked))).await;
    world.redis.resume();
}

#[tokio::test]
async fn a_preview_changes_nothing_and_an_outdated_change_is_refused() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 1).await);
    let change = UserChange { quota: Some(Some(OwnQuota::UNLIMITED)), blocked: Some(true) };
    let preview = gate.gate.preview_user(&request("alice", change)).await.unwrap();
    assert_eq!((preview.before.quota.get(), preview.after.quota), (100, OwnQuota::UNLIMITED.ap()));
    assert!(preview.after.blocked && quota(&gate, "alice").await == 100);
    give(&gate, "alice", Some(5)).await;
    let outdated = ChangeUser { if_version: Some(preview.level_version), ..request("alice", change) };
    assert!(matches!(gate.gate.change_user(outdated).await, Err(GateError::LevelChanged)));
}
