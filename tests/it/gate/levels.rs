//! Levels: upgrades apply immediately, downgrades in the next period, and a stale change never wins.

use futures_util::future::join;
use quota_gate::{
    domain::{
        author::Author,
        decision::{Decision, LevelChanged},
        level::LevelName,
        level_change::Effective,
        meter::MeterCode,
    },
    gate::{ChangeLevel, GateError},
    jobs::level_sync::{LevelSync, LevelSyncStep},
    store::redis::{Batcher, Generations, Operation, Request, UserLevel},
};
use tokio_util::sync::CancellationToken;

use crate::support::{GateUnderTest, World, eventually, repeat, user};

pub(super) async fn give(gate: &GateUnderTest, who: &str, level: &str) -> LevelChanged {
    change(gate, who, level, Effective::Fair).await.unwrap()
}

async fn change(gate: &GateUnderTest, who: &str, level: &str, effective: Effective) -> Result<LevelChanged, GateError> {
    let level = LevelName::parse(level).unwrap();
    let author = Author::person("ops", "a test").unwrap();
    gate.gate
        .change_level(ChangeLevel { user: user(who), level, effective, anchor_day: None, if_version: None, author })
        .await
}

#[tokio::test]
async fn an_upgrade_applies_immediately_and_keeps_what_is_used() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 90).await && !gate.charges("alice", 20).await);
    let changed = give(&gate, "alice", "plus").await;
    assert_eq!((changed.quota.quota.get(), changed.quota.used.get(), changed.pending), (1000, 90, None));
    assert!(gate.charges("alice", 20).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_downgrade_applies_from_the_next_period_in_both_stores() {
    let world = World::at("2026-11-29T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    give(&gate, "alice", "basic").await;
    assert!(gate.charges("alice", 200).await);
    let changed = give(&gate, "alice", "free").await;
    assert_eq!(changed.quota.quota.get(), 300);
    assert_eq!(changed.pending, gate.gate.levels().named("free").map(|level| level.code));
    world.set_time("2026-12-01T00:00:01Z").await;
    let quota = gate.gate.quota(&user("alice")).await.unwrap();
    assert_eq!((quota.quota.get(), quota.used.get()), (100, 0));
    gate.flusher.flush_all().await.unwrap();
    gate.resetter.run(quota_gate::jobs::resetter::Trigger::Schedule).await.unwrap();
    assert_eq!(
        world.number("select monthly_quota::bigint from chat_quotas where membership_level = 'free'").await,
        100
    );
    assert_eq!(world.number("select used from chat_quota_months where membership_level = 'basic'").await, 200);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_downgrade_may_be_forced_and_keeps_what_is_used() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "alice", "basic").await;
    assert!(gate.charges("alice", 200).await);
    let changed = change(&gate, "alice", "free", Effective::Now).await.unwrap();
    assert_eq!((changed.quota.quota.get(), changed.quota.used.get(), changed.quota.remaining().get()), (100, 200, 0));
    assert!(!gate.charges("alice", 1).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_return_to_the_current_level_cancels_a_pending_downgrade() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "alice", "plus").await;
    assert!(give(&gate, "alice", "free").await.pending.is_some());
    assert!(give(&gate, "alice", "plus").await.pending.is_none());
}

#[tokio::test]
async fn an_unknown_level_is_refused_with_a_list_of_the_configured_ones() {
    let world = World::new().await;
    let gate = world.gate().await;
    let error = change(&gate, "alice", "gold", Effective::Fair).await.unwrap_err().to_string();
    assert_eq!(error, "membershipLevel: must be one of free, basic, plus, pro");
}

#[tokio::test]
async fn a_stale_lower_level_version_never_wins() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "alice", "basic").await;
    let changed = give(&gate, "alice", "pro").await;
    assert_eq!(changed.level_version, 2);
    // A gate that was suspended since the first change sends it to Redis only now.
    let quota = gate.gate.quota(&user("alice")).await.unwrap();
    let basic = gate.gate.levels().named("basic").unwrap().clone();
    let stale = UserLevel {
        period: quota.period,
        anchor_day: quota.anchor_day,
        level: basic.code,
        quota: basic.quota,
        own_quota: false,
        blocked: false,
        pending: None,
        level_version: 1,
    };
    let script = quota_gate::store::redis::Script::default();
    let options = quota_gate::store::redis::BatcherOptions {
        operations_max: 1,
        calls_in_flight_max: 1,
        queue_length_max: 1,
        queue_timeout: std::time::Duration::from_secs(5),
        stream_bytes_max: 64 << 20,
        identity_trust: std::time::Duration::from_secs(5),
    };
    let partitions = gate.gate.partitions();
    let generations = Generations::unknown(partitions);
    let clock = (&world.clock, gate.gate.calendar());
    let sleeper = Batcher::start(&gate.redis, &script, partitions, clock, &generations, &options);
    let partition = partitions.of(&user("alice"));
    generations.learn(partition, 1, None);
    let request = Request {
        user: user("alice"),
        meter: MeterCode::CHAT,
        operation: Operation::SetLevel(stale),
        seed: None,
        generation: None,
    };
    sleeper.call(partition, request).await.unwrap().unwrap();
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().quota.get(), 3000);
}

#[tokio::test]
async fn a_level_change_racing_with_consumption_admits_exactly_the_new_quota() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    let consuming = async {
        let mut admitted = 0;
        for _ in 0..400 {
            admitted += usize::from(one.charges("alice", 1).await);
        }
        admitted
    };
    let (mut admitted, _) = join(consuming, give(&two, "alice", "basic")).await;
    while one.charges("alice", 1).await {
        admitted += 1;
    }
    assert_eq!(admitted, 300);
    one.flush_and_verify().await;
}

#[tokio::test]
async fn a_change_while_the_user_is_being_loaded_is_not_overwritten_by_the_older_row() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    for n in 0..30 {
        let who = format!("user-{n}");
        let (charged, _) = join(one.consume(&who, 1), give(&two, &who, "plus")).await;
        assert!(matches!(charged.unwrap(), Decision::Allowed(_)));
        assert_eq!(one.gate.quota(&user(&who)).await.unwrap().quota.get(), 1000, "{who}");
    }
}

#[tokio::test]
async fn a_change_that_did_not_reach_redis_is_synced_by_another_gate() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 1).await);
    // As if the gate had died between its writes to Postgres and Redis.
    let set =
        "update chat_quotas set membership_level = 'plus', monthly_quota = 1000, level_version = level_version + 1";
    crate::support::execute(&world.database, set).await;
    let level_sync = LevelSync::new(&gate.gate);
    assert_eq!(level_sync.sync_some(None).await.unwrap(), LevelSyncStep { synced: 1, ..LevelSyncStep::default() });
    assert_eq!(gate.gate.quota(&user("alice")).await.unwrap().quota.get(), 1000);
    assert_eq!(level_sync.sync_some(None).await.unwrap(), LevelSyncStep::default());
}

#[tokio::test]
async fn a_level_that_cannot_be_synced_does_not_block_others() {
    let world = World::at("2026-11-30T23:59:59Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 1).await && gate.charges("bob", 1).await);
    gate.flush_and_verify().await;
    // Alice's row is in a month that has not begun in Redis. Bob's row is one that flushes update constantly.
    for set in [
        "update chat_quotas set monthly_quota = 1000, level_version = level_version + 1",
        "update chat_quotas set period = 202612 where user_uuid = 'alice'",
        "update chat_quotas set updated_at = '2100-01-01' where user_uuid = 'bob'",
    ] {
        crate::support::execute(&world.database, set).await;
    }
    let cancelled = CancellationToken::new();
    let level_sync = LevelSync::new(&gate.gate);
    let announcing = tokio::spawn(repeat(level_sync, &cancelled));
    let told = async |who: &str| {
        let told =
            format!("select count(*) from chat_quotas where synced_version = level_version and user_uuid = '{who}'");
        world.number(&told).await == 1
    };
    eventually("Bob's level is synced", async || told("bob").await).await;
    assert!(!told("alice").await);
    assert_eq!(gate.gate.quota(&user("bob")).await.unwrap().quota.get(), 1000);
    world.set_time("2026-12-01T00:00:00Z").await;
    eventually("Alice's level is synced", async || told("alice").await).await;
    cancelled.cancel();
    announcing.await.unwrap();
}

#[tokio::test]
async fn a_synced_level_is_not_synced_again() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "alice", "plus").await;
    assert_eq!(world.number("select count(*) from chat_quotas where synced_version < level_version").await, 0);
}
