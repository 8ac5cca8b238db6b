//! Many callers, one user: exactly the quota is admitted.

use futures_util::future::join_all;
use quota_gate::{
    domain::{
        decision::{Decision, Settled},
        hold::Ttl,
        quota::Source,
        user_id::SessionId,
    },
    gate::{Commit, Consume},
};

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
    let gate = world.gate_with(|tuning| tuning.batcher.stream_bytes_max = 16 << 10).await;
    let mut held = Vec::new();
    for ap in [5, 7] {
        match gate.gate.reserve(crate::support::reserve("alice", ap, 60)).await.unwrap() {
            Decision::Allowed(reserved) => held.push(gate.gate.reservation_id(&reserved.reservation)),
            denied => panic!("{denied:?}"),
        }
    }
    // The bound counts bytes: some hundred charges, and fewer of long sessions.
    let mut charges = 0;
    let refused = loop {
        let session = SessionId::parse(&"s".repeat(128)).unwrap();
        let request = Consume { session, ..crate::support::consume(&format!("user-{charges}"), 1) };
        match gate.gate.consume(request).await {
            Ok(_) => charges += 1,
            Err(refused) => break refused.to_string(),
        }
        assert!(charges < 200, "the stream is not bounded");
    };
    assert!(refused.contains("wait for Postgres"), "{refused}");
    assert!(charges > 20, "{charges}");
    for (hold, ap) in held.iter().zip([5, 7]) {
        assert_eq!(gate.gate.commit(hold, Commit::default()).await.unwrap().now().unwrap().charged.get(), ap);
        gate.flush_and_verify().await;
    }
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, charges + 12);
    assert!(gate.charges("alice", 1).await, "the second flush has trimmed what the first one wrote");
}

#[tokio::test]
async fn full_memory_refuses_new_messages_and_still_settles_holds() {
    let world = World::new().await;
    let gate = world.gate().await;
    let mut held = Vec::new();
    for (user, ap) in [("alice", 5), ("bob", 7), ("carol", 9)] {
        match gate.gate.reserve(crate::support::reserve(user, ap, 60)).await.unwrap() {
            Decision::Allowed(reserved) => held.push(gate.gate.reservation_id(&reserved.reservation)),
            denied => panic!("{denied:?}"),
        }
    }
    let mut connection = world.redis_connection().await;
    let mut limit = async |bytes: &str| {
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).query_async::<()>(&mut connection).await.unwrap();
    };
    limit("1mb").await;
    // One batch with new messages and settlements: only the messages are refused.
    let carol = user("carol");
    let (consumed, reserved, committed, extended, released, quota) = tokio::join!(
        gate.consume("alice", 1),
        gate.gate.reserve(crate::support::reserve("bob", 1, 60)),
        gate.gate.commit(&held[0], Commit::default()),
        gate.gate.extend(&held[2], Ttl::DEFAULT),
        gate.gate.release(&held[1]),
        gate.gate.quota(&carol),
    );
    assert!(consumed.unwrap_err().to_string().contains("memory is full"));
    assert!(reserved.unwrap_err().to_string().contains("memory is full"));
    assert_eq!(committed.unwrap().now().unwrap().charged.get(), 5);
    assert!(extended.is_ok());
    assert!(matches!(released.unwrap(), Settled::Now(_)));
    assert_eq!(quota.unwrap().held.get(), 9);
    limit("0").await;
    assert!(gate.charges("alice", 1).await);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select sum(ap_used)::bigint from chat_usage_logs").await, 6);
}
