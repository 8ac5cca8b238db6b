//! Many callers, one user: exactly the quota is admitted.

use futures_util::future::join_all;
use quota_gate::domain::{decision::Decision, quota::Source};

use crate::support::{World, user};

/// `callers` over three gates charge `ap` each; returns how many were admitted.
async fn admitted(callers: usize, ap: i64) -> usize {
    let world = World::new().await;
    let gates = [world.gate().await, world.gate().await, world.gate().await];
    let calls = (0..callers).map(|n| gates[n % 3].charges("alice", ap));
    let admitted = join_all(calls).await.into_iter().filter(|charged| *charged).count();
    let verdict = gates[0].flush_and_verify().await;
    assert_eq!(verdict.users, 1);
    assert_eq!(world.number("select count(*) from chat_usage_logs").await, i64::try_from(admitted).unwrap());
    admitted
}

#[tokio::test]
async fn concurrent_callers_over_three_gates_are_admitted_exactly_to_the_quota_at_one_ap() {
    assert_eq!(Box::pin(admitted(400, 1)).await, 100);
}

#[tokio::test]
async fn concurrent_callers_over_three_gates_are_admitted_exactly_to_the_quota_at_seven_ap() {
    assert_eq!(Box::pin(admitted(200, 7)).await, 14);
}

#[tokio::test]
async fn a_denied_call_changes_no_key_not_even_the_stream() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 98).await);
    let dump = async || -> Vec<Option<Vec<u8>>> {
        let mut connection = world.redis_connection().await;
        let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        keys.sort();
        let mut dump = Vec::new();
        for key in keys {
            dump.push(redis::cmd("DUMP").arg(key).query_async(&mut connection).await.unwrap());
        }
        dump
    };
    let before = dump().await;
    let denied = gate.consume("alice", 3).await.unwrap();
    let Decision::Denied(denied) = denied else { panic!("{denied:?}") };
    assert_eq!((denied.required.get(), denied.shortfall().get(), denied.quota.remaining().get()), (3, 1, 2));
    assert_eq!(dump().await, before);
}

#[tokio::test]
async fn two_operations_on_one_user_in_one_call_see_each_other() {
    let world = World::new().await;
    // One call at a time: operations that wait meanwhile share the next call.
    let gate = world.gate_with(|tuning| tuning.batcher.calls_in_flight_max = 1).await;
    let admitted = join_all((0..60).map(|_| gate.charges("alice", 2))).await;
    assert_eq!(admitted.into_iter().filter(|charged| *charged).count(), 50);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_new_user_has_the_lowest_level() {
    let world = World::new().await;
    let gate = world.gate().await;
    let quota = gate.gate.quota(&user("new")).await.unwrap();
    assert_eq!((quota.quota.get(), quota.used.get(), quota.source), (100, 0, Source::Redis));
    assert_eq!(world.number("select count(*) from chat_quotas where membership_level = 'free'").await, 1);
}

#[tokio::test]
async fn concurrent_cold_users_are_loaded_together_and_once_each() {
    let world = World::new().await;
    let gate = world.gate().await;
    // Three callers for each of 100 users.
    let names: Vec<String> = (0..300).map(|n| format!("user-{}", n % 100)).collect();
    let charged = join_all(names.iter().map(|name| gate.charges(name, 1))).await;
    assert!(charged.into_iter().all(|charged| charged));
    let verdict = gate.flush_and_verify().await;
    assert_eq!((verdict.users, verdict.records), (100, 100));
    assert_eq!(world.number("select sum(total_used)::bigint from chat_quotas").await, 300);
}

#[tokio::test]
async fn a_full_journal_refuses_new_messages_and_still_settles_holds() {
    let world = World::new().await;
    let gate = world.gate_with(|tuning| tuning.batcher.stream_entries_max = 3).await;
    let held = match gate.gate.reserve(crate::support::reserve("alice", 5, 60)).await.unwrap() {
        Decision::Allowed(held) => gate.gate.reservation_id(&held.reservation),
        denied => panic!("{denied:?}"),
    };
    // The genesis entry and two charges fill the stream.
    assert!(gate.charges("alice", 1).await && gate.charges("alice", 1).await);
    let refused = gate.consume("alice", 1).await.unwrap_err().to_string();
    assert!(refused.contains("wait for Postgres"), "{refused}");
    assert_eq!(
        gate.gate.commit(&held, quota_gate::gate::Commit::default()).await.unwrap().now().unwrap().charged.get(),
        5
    );
    gate.flush_and_verify().await;
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, 7);
}
