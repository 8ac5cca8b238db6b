//! Changes of the levels: every gate and both stores have the same ones, whatever each gate's configuration says.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use quota_gate::{
    domain::{
        ap::Ap,
        level::{LevelName, LevelTerms, Levels},
    },
    gate::ApplyError,
    jobs::{level_sync::LevelSync, levels::LevelsReader, resetter::Trigger},
};

use super::levels::give;
use crate::support::{GateUnderTest, World, eventually, execute, levels, repeat, user};

const DEFAULT: [(&str, u32); 4] = [("free", 100), ("basic", 300), ("plus", 1000), ("pro", 3000)];

/// Applies levels as the command does: the level sync sends the moved users to Redis.
async fn apply(gate: &GateUnderTest, given: &[(&str, u32)]) -> u64 {
    let moved = gate.gate.apply_levels(&levels(given), |_| {}).await.unwrap();
    sync(gate).await;
    moved
}

async fn sync(gate: &GateUnderTest) {
    let level_sync = LevelSync::new(&gate.gate);
    let mut after = None;
    loop {
        let step = level_sync.sync_some(after.as_ref()).await.unwrap();
        assert_eq!(step.unsynced, 0);
        after = step.last;
        if after.is_none() {
            return;
        }
    }
}

/// The quota of a user in Redis and in Postgres.
async fn quotas(world: &World, gate: &GateUnderTest, who: &str) -> (u32, i64) {
    let of_row = format!("select monthly_quota::bigint from chat_quotas where user_uuid = '{who}'");
    (gate.gate.quota(&user(who)).await.unwrap().quota.get(), world.number(&of_row).await)
}

fn names(levels: &Levels) -> Vec<&str> {
    levels.iter().map(|level| level.name.as_str()).collect()
}

#[tokio::test]
async fn gates_of_different_configuration_roll_with_the_same_quotas_in_both_stores() {
    let world = World::at("2026-11-29T12:00:00Z", "UTC").await;
    let one = world.gate().await;
    let other = world.gate_with(|tuning| tuning.levels = levels(&[("free", 70), ("gold", 9000)])).await;
    assert_eq!(names(&other.gate.levels()), ["free", "basic", "plus", "pro"]);
    assert!(one.charges("alice", 5).await && other.charges("bob", 5).await);
    assert_eq!(quotas(&world, &one, "bob").await, (100, 100));
    one.flush_and_verify().await;
    world.set_time("2026-12-01T00:00:01Z").await;
    // Redis rolls by the one gate, Postgres by the other.
    assert!(other.charges("alice", 5).await && one.charges("bob", 5).await);
    one.flush_and_verify().await;
    other.resetter.run(Trigger::Schedule).await.unwrap();
    for who in ["alice", "bob"] {
        assert_eq!(quotas(&world, &one, who).await, (100, 100), "{who}");
    }
    other.flush_and_verify().await;
}

#[tokio::test]
async fn a_gate_that_has_not_read_a_change_rolls_creates_and_changes_users_by_it() {
    let world = World::at("2026-11-29T12:00:00Z", "UTC").await;
    let (one, unaware) = (world.gate().await, world.gate().await);
    assert!(one.charges("alice", 5).await);
    one.flush_and_verify().await;
    assert_eq!(apply(&one, &[("free", 150), ("basic", 350), ("plus", 1000), ("pro", 3000)]).await, 1);
    assert_eq!(unaware.gate.levels().lowest().quota.get(), 100);
    // New, changed and rolled by the gate that does not know.
    assert!(unaware.charges("carol", 5).await);
    assert_eq!(quotas(&world, &unaware, "carol").await, (150, 150));
    assert_eq!(give(&unaware, "dave", "basic").await.quota.quota.get(), 350);
    give(&unaware, "dave", "free").await;
    world.set_time("2026-12-01T00:00:01Z").await;
    for who in ["alice", "carol", "dave"] {
        assert!(unaware.charges(who, 150).await && !unaware.charges(who, 1).await, "{who}");
    }
    unaware.flush_and_verify().await;
    LevelsReader::new(&unaware.gate).follow().await.unwrap();
    assert_eq!(unaware.gate.levels(), one.gate.levels());
}

#[tokio::test]
async fn records_that_roll_before_a_change_reaches_redis_get_the_quota_of_their_row() {
    let world = World::at("2026-11-29T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 5).await && gate.charges("bob", 5).await);
    give(&gate, "carol", "basic").await;
    give(&gate, "carol", "free").await;
    gate.flush_and_verify().await;
    world.set_time("2026-12-02T00:00:00Z").await;
    // A process that dies after its commit: Postgres has the change, Redis does not.
    let changed = levels(&[("free", 150), ("basic", 300), ("plus", 1000), ("pro", 3000)]);
    gate.postgres.change_levels(&changed, 0, world.clock.now()).await.unwrap();
    for who in ["alice", "bob", "carol"] {
        assert!(gate.charges(who, 1).await);
    }
    gate.flusher.flush_all().await.unwrap();
    assert_eq!(quotas(&world, &gate, "alice").await, (100, 150));
    assert!(gate.postgres.is_level_change_unfinished().await.unwrap());
    let verdict = gate.verifier.verify().await.unwrap();
    assert!(!verdict.agrees() && verdict.level_drift.len() == 3, "{verdict:#?}");
    // Applying the same again finishes the change.
    assert_eq!(gate.gate.apply_levels(&changed, |_| {}).await.unwrap(), 3);
    sync(&gate).await;
    for who in ["alice", "bob", "carol"] {
        assert_eq!(quotas(&world, &gate, who).await, (150, 150), "{who}");
    }
    assert!(!gate.postgres.is_level_change_unfinished().await.unwrap());
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn applying_moves_every_row_in_batches_waits_for_locked_ones_and_continues_after_an_interruption() {
    let world = World::new().await;
    let gate = world.gate().await;
    let insert = "insert into chat_quotas
             (user_uuid, membership_level, period, monthly_quota, quota_reset_at, created_at, updated_at)
         select 'user-' || number, case when number % 10 = 0 then 'plus' else 'free' end, 209901,
                case when number % 10 = 0 then 1000 else 100 end, now(), now(), now()
         from generate_series(1, 6000) as numbers (number)";
    execute(&world.database, insert).await;
    // Another role: applying first waits for older transactions of the gates' role.
    execute(&world.database, "create role locks_a_row superuser login password 'x'").await;
    let mut holder = world.pool_of("locks_a_row").begin().await.unwrap();
    sqlx::query("select from chat_quotas where user_uuid = 'user-1' for update").execute(&mut *holder).await.unwrap();
    let changed = levels(&[("free", 150), ("basic", 300), ("plus", 1000), ("pro", 3000)]);
    let applying = tokio::spawn({
        let (gate, changed) = (gate.gate.clone(), changed.clone());
        async move { gate.apply_levels(&changed, |_| {}).await }
    });
    let moved = "select count(*) from chat_quotas where monthly_quota = 150 and level_version = 1";
    eventually("all other users are moved", async || world.number(moved).await == 5_399).await;
    applying.abort();
    assert!(applying.await.unwrap_err().is_cancelled());
    assert!(gate.postgres.is_level_change_unfinished().await.unwrap());
    holder.rollback().await.unwrap();
    // No user is moved twice.
    assert_eq!(gate.gate.apply_levels(&changed, |_| {}).await.unwrap(), 1);
    assert_eq!(world.number(moved).await, 5_400);
    assert!(!gate.postgres.is_level_change_unfinished().await.unwrap());
    assert_eq!(gate.gate.apply_levels(&changed, |_| {}).await.unwrap(), 0);
    assert_eq!(world.number("select count(*) from chat_quotas where level_version > 0").await, 5_400);
}

#[tokio::test]
async fn levels_change_under_load_without_a_difference() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    let cancelled = tokio_util::sync::CancellationToken::new();
    let jobs = [
        tokio::spawn(repeat(two.flusher.clone(), &cancelled)),
        tokio::spawn(repeat(LevelsReader::new(&two.gate), &cancelled)),
        tokio::spawn(repeat(LevelSync::new(&one.gate), &cancelled)),
    ];
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = [&one, &two].map(|gate| {
        let (gate, stop) = (gate.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut sent = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                gate.consume(&format!("user-{}", sent % 300), 1).await.unwrap();
                sent += 1;
            }
            sent
        })
    });
    for quota in [150, 80, 200] {
        let changed = levels(&[("free", quota), ("basic", 300)]);
        one.gate.apply_levels(&changed, |_| {}).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for sent in traffic {
        assert!(sent.await.unwrap() > 0, "there was traffic");
    }
    eventually("all quotas are in Redis", async || {
        world.number("select count(*) from chat_quotas where synced_version < level_version").await == 0
    })
    .await;
    cancelled.cancel();
    for job in jobs {
        job.await.unwrap();
    }
    assert_eq!(world.number("select count(*) from chat_quotas where monthly_quota <> 200").await, 0);
    one.flush_and_verify().await;
    assert_eq!(quotas(&world, &two, "user-1").await, (200, 200));
}

#[tokio::test]
async fn a_retired_level_keeps_its_name_and_quota_for_its_users() {
    let world = World::at("2026-11-29T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 5).await);
    assert_eq!(apply(&gate, &[("basic", 300), ("plus", 1000), ("pro", 3000)]).await, 0);
    // Not the lowest for new users, not offered, and not an upgrade.
    assert!(gate.charges("bob", 5).await);
    assert_eq!(quotas(&world, &gate, "bob").await, (300, 300));
    assert_eq!(names(&gate.gate.levels()), ["basic", "plus", "pro"]);
    let author = quota_gate::domain::author::Author::person("ops", "a test").unwrap();
    let back = quota_gate::gate::ChangeLevel {
        user: user("bob"),
        level: LevelName::parse("free").unwrap(),
        effective: quota_gate::domain::level_change::Effective::Now,
        if_version: None,
        author,
    };
    let refused = gate.gate.change_level(back).await.unwrap_err().to_string();
    assert_eq!(refused, "membershipLevel: must be one of basic, plus, pro");
    // A gate that starts now, with a configuration that has never named it.
    let new = world.gate_with(|tuning| tuning.levels = levels(&[("basic", 300)])).await;
    world.set_time("2026-12-01T00:00:01Z").await;
    assert!(new.charges("alice", 5).await);
    let quota = new.gate.quota(&user("alice")).await.unwrap();
    assert_eq!(new.gate.levels().coded(quota.level).unwrap().name.as_str(), "free");
    gate.flush_and_verify().await;
    assert_eq!(quotas(&world, &new, "alice").await, (100, 100));
    assert_eq!(world.number("select count(*) from chat_usage_logs where membership_level = 'free'").await, 2);
    // It can be offered again.
    assert_eq!(apply(&gate, &DEFAULT).await, 0);
    assert_eq!(gate.gate.levels().lowest().name.as_str(), "free");
}

#[tokio::test]
async fn any_number_of_names_may_be_used_until_the_codes_end_which_changes_nothing() {
    let world = World::new().await;
    let (gate, unaware) = (world.gate().await, world.gate().await);
    for number in 0..40 {
        let name = format!("season-{number}");
        apply(&gate, &[("free", 100), (&name, 200)]).await;
        let who = format!("user-{number}");
        give(&gate, &who, &name).await;
        assert!(unaware.charges(&who, 150).await);
    }
    // Also by a gate that has been running since before.
    unaware.flush_and_verify().await;
    let known = "select count(*) from chat_usage_logs where membership_level like 'season-%'";
    assert_eq!(world.number(known).await, 40);
    let quota = unaware.gate.quota(&user("user-7")).await.unwrap();
    assert_eq!(unaware.gate.levels().coded(quota.level).unwrap().name.as_str(), "season-7");

    let many: Vec<(LevelName, LevelTerms)> = (0..212)
        .map(|number| (LevelName::parse(&format!("more-{number}")).unwrap(), Ap::new(1_000 + number).into()))
        .collect();
    let before = gate.postgres.all_levels().await.unwrap();
    let refused = gate.gate.apply_levels(&many, |_| {}).await.unwrap_err();
    assert!(matches!(refused, ApplyError::Postgres(_)) && refused.to_string().contains("only 255"), "{refused}");
    assert_eq!(gate.postgres.all_levels().await.unwrap(), before);
    gate.gate.apply_levels(&many[1..], |_| {}).await.unwrap();
    assert!(unaware.charges("user-1", 1).await);
    unaware.flush_and_verify().await;
}

#[tokio::test]
async fn verify_finds_a_planted_quota_and_level_and_repairs_them() {
    let world = World::new().await;
    let gate = world.gate().await;
    for who in ["alice", "bob", "carol"] {
        assert!(gate.charges(who, 5).await);
    }
    gate.flush_and_verify().await;
    execute(&world.database, "update chat_quotas set monthly_quota = 7 where user_uuid = 'alice'").await;
    let mut redis = world.redis_connection().await;
    // Level and quota of a record, by its layout (lua/README.md).
    for (who, at, bytes) in [("bob", 9, [0_u8, 0, 1, 44].as_slice()), ("carol", 8, &[3])] {
        let partition = gate.gate.partitions().of(&user(who));
        let mut set = redis::cmd("SETRANGE");
        set.arg(format!("qg:{{{partition}}}:u:{who}")).arg(at).arg(bytes);
        set.exec_async(&mut redis).await.unwrap();
    }
    let verdict = gate.verifier.verify().await.unwrap();
    assert!(!verdict.agrees());
    let of_rows: Vec<&str> = verdict.quota_drift.iter().map(|drift| drift.user.as_str()).collect();
    let of_records: Vec<&str> = verdict.level_drift.iter().map(|drift| drift.user.as_str()).collect();
    assert_eq!((of_rows, of_records), (vec!["alice"], vec!["alice", "bob", "carol"]));
    assert_eq!(gate.repairer.repair().await.unwrap().levels, 3);
    for who in ["alice", "bob", "carol"] {
        assert_eq!(quotas(&world, &gate, who).await, (100, 100), "{who}");
    }
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_partition_that_has_lost_the_levels_gets_them_again() {
    let world = World::at("2026-11-29T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 5).await);
    gate.flush_and_verify().await;
    let place = gate.gate.partitions().of(&user("alice"));
    let mut redis = world.redis_connection().await;
    redis::cmd("DEL").arg(format!("qg:{{{place}}}:levels")).exec_async(&mut redis).await.unwrap();
    world.set_time("2026-12-01T00:00:01Z").await;
    assert!(gate.charges("alice", 100).await && !gate.charges("alice", 1).await);
    assert_eq!(gate.redis.level_version(place).await.unwrap(), gate.gate.levels().version());
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_change_after_a_restore_of_postgres_is_newer_than_what_redis_has() {
    let world = World::new().await;
    let gate = world.gate().await;
    apply(&gate, &[("free", 150)]).await;
    let place = gate.gate.partitions().of(&user("alice"));
    let in_redis = gate.redis.level_version(place).await.unwrap();
    // As after a restore from before the change.
    let restored = format!("delete from level_changes where version = {in_redis}");
    execute(&world.database, &restored).await;
    execute(&world.database, "update membership_levels set monthly_quota = 100 where name = 'free'").await;
    apply(&gate, &[("free", 100)]).await;
    assert!(gate.redis.level_version(place).await.unwrap() > in_redis);
    assert_eq!(gate.gate.levels().version(), gate.redis.level_version(place).await.unwrap());
    // As if a gate of an older release had stored its configuration: other quotas under the same version.
    execute(&world.database, "update membership_levels set monthly_quota = 90 where name = 'free'").await;
    apply(&gate, &[("free", 90)]).await;
    assert!(gate.redis.has_levels(place, &gate.gate.levels()).await.unwrap());
    assert_eq!(gate.gate.levels().lowest().quota.get(), 90);
}
