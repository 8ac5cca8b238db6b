//! Transfers: AP of one user's grants become grants of another. At no moment is any of it lost or doubled.

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use quota_gate::{
    audit::forget::Unsettled,
    domain::{ap::Ap, author::Author, decision::Decision, new_grant::*, partition::Partition, transfer::Receipt},
    gate::{Commit, GateError, Transfer, TransferState, Transferred},
    jobs::grant_sync::GrantSync,
};

use super::forgetting::forget;
use crate::support::{GateUnderTest, World, eventually, execute, key, reserve, user};

const UNNUMBERED: &str = "select count(*) from grants where number is null";

pub(super) fn shop() -> Author {
    Author::program("shop", Some("a gift")).unwrap()
}

async fn give(gate: &GateUnderTest, who: &str, ap: i64, id: &str, expires_at: Option<&str>) {
    let grant = NewGrant { expires_at: expires_at.map(at), ..super::grants::pack(who, ap, id) };
    gate.gate.give_grant(&grant, &shop()).await.unwrap();
}

fn at(time: &str) -> DateTime<Utc> {
    time.parse().unwrap()
}

pub(super) fn request(from: &str, to: &str, ap: u32, id: &str) -> Transfer {
    let receipt = Receipt::new(&user(from), user(to), shop()).unwrap();
    Transfer { sender: user(from), ap: Ap::new(ap), receipt, key: key(id) }
}

async fn transfer(gate: &GateUnderTest, from: &str, to: &str, ap: u32, id: &str) -> Transferred {
    gate.gate.transfer(&request(from, to, ap, id)).await.unwrap()
}

/// Numbers received grants, and sends them to Redis.
pub(super) async fn sync(gate: &GateUnderTest) {
    let job = GrantSync::new(&gate.gate);
    job.number_some(None).await.unwrap();
    assert_eq!(job.sync_some(None).await.unwrap().unsynced, 0);
}

async fn flushall(world: &World) {
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
}

/// AP of a user's grants that are neither charged nor transferred.
async fn left(world: &World, who: &str) -> i64 {
    let sum = "select coalesce(sum(granted - charged - transferred), 0)::bigint from grants";
    world.number(&format!("{sum} where user_uuid = '{who}' and voided_at is null")).await
}

/// Whether all that was given is with one of the two users, or was charged.
pub(super) async fn assert_conserved(world: &World, given: i64) {
    let charged = world.number("select coalesce(sum(charged), 0)::bigint from grants").await;
    assert_eq!(left(world, "ann").await + left(world, "bob").await + charged, given);
}

#[tokio::test]
async fn the_receiver_gets_what_the_sender_gives_with_its_expiry_and_priority() {
    let world = World::at("2026-11-20T12:00:00Z", "UTC").await;
    let (one, two) = (world.gate().await, world.gate().await);
    give(&one, "ann", 30, "sooner", Some("2026-11-20T13:00:00Z")).await;
    give(&one, "ann", 30, "later", None).await;
    let done = transfer(&one, "ann", "bob", 40, "t-1").await;
    assert_eq!((done.state, done.replayed), (TransferState::Accepted, false));
    assert!(one.charges("ann", 120).await && !two.charges("ann", 1).await, "20 AP of the grants are left");
    assert!(!two.charges("bob", 101).await, "the receiver has nothing until it is logged");
    one.flush_and_verify().await;
    assert_eq!(world.number(UNNUMBERED).await, 2);
    sync(&two).await;
    assert_eq!(world.number(UNNUMBERED).await, 0);
    assert!(two.charges("bob", 125).await, "the plan pays 100, the grant that expires sooner 25");
    two.flush_and_verify().await;
    let grants = one.gate.grants_of_transfer(done.id).await.unwrap();
    let terms: Vec<_> = grants.iter().map(|grant| (grant.granted, grant.expires_at, grant.priority)).collect();
    assert_eq!(terms, [(30, Some(at("2026-11-20T13:00:00Z")), 100), (10, None, 100)]);
    assert!(grants.iter().all(|grant| grant.source == "transfer" && grant.received_from == Some(user("ann"))));
    assert!(grants.iter().all(|grant| (grant.created_by.as_str(), grant.reason.as_str()) == ("shop", "a gift")));
    world.set_time("2026-11-20T13:00:00Z").await;
    assert!(two.charges("bob", 10).await && !two.charges("bob", 1).await, "5 AP have expired for the receiver too");
    two.flush_and_verify().await;
    assert_eq!(world.number("select sum(transferred)::bigint from grants where user_uuid = 'ann'").await, 40);
    assert_eq!(world.number("select total_used from chat_quotas where user_uuid = 'ann'").await, 120);
    let messages = world.number("select sum(messages)::bigint from usage_days").await;
    assert_eq!(messages, 3, "a transfer is no message");
}

#[tokio::test]
async fn only_granted_ap_that_is_live_and_not_held_can_be_transferred() {
    let world = World::new().await;
    let gate = world.gate().await;
    let denied = async |ap| match gate.gate.transfer(&request("ann", "bob", ap, &format!("t-{ap}"))).await {
        Err(GateError::NotTransferable(free)) => free.get(),
        other => panic!("{other:?}"),
    };
    assert_eq!(denied(1).await, 0, "the plan's AP stay the user's");
    give(&gate, "ann", 50, "order-1", None).await;
    assert!(gate.charges("ann", 100).await);
    let Decision::Allowed(held) = gate.gate.reserve(reserve("ann", 20, 60)).await.unwrap() else { panic!("denied") };
    assert_eq!(denied(31).await, 30);
    assert!(!transfer(&gate, "ann", "bob", 30, "t-30").await.replayed);
    assert_eq!(denied(2).await, 0);
    let id = gate.gate.reservation_id(&held.reservation);
    let committed = gate.gate.commit(&id, Commit::default()).await.unwrap().now().unwrap();
    assert_eq!((committed.charged.get(), committed.overage.get()), (20, 0), "the hold has kept its AP");
    gate.flush_and_verify().await;
    assert_conserved(&world, 50).await;
}

#[tokio::test]
async fn a_key_transfers_once_also_after_redis_has_lost_it() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    give(&one, "ann", 50, "order-1", None).await;
    let first = transfer(&one, "ann", "bob", 20, "t-1").await;
    let again = transfer(&two, "ann", "bob", 20, "t-1").await;
    assert_eq!(again, Transferred { replayed: true, ..first.clone() });
    for other in [request("ann", "bob", 21, "t-1"), request("ann", "eve", 20, "t-1")] {
        assert!(matches!(two.gate.transfer(&other).await, Err(GateError::Mismatch(_))));
    }
    one.flush_and_verify().await;
    let logged = Transferred { state: TransferState::Logged, replayed: true, ..first };
    assert_eq!(transfer(&two, "ann", "bob", 20, "t-1").await, logged);
    flushall(&world).await;
    assert_eq!(transfer(&two, "ann", "bob", 20, "t-1").await, logged, "the log knows it");
    for other in [request("ann", "bob", 21, "t-1"), request("ann", "eve", 20, "t-1")] {
        assert!(matches!(two.gate.transfer(&other).await, Err(GateError::Mismatch(_))));
    }
    sync(&one).await;
    one.flush_and_verify().await;
    assert_eq!((left(&world, "ann").await, left(&world, "bob").await), (30, 20));
}

/// The steps of a transfer, and what is lost or killed after each.
#[tokio::test]
async fn nothing_is_lost_or_doubled_at_any_kill_point() {
    for kill_point in 0..6 {
        let world = World::new().await;
        let (one, two) = (world.gate().await, world.gate().await);
        give(&one, "ann", 50, "order-1", None).await;
        assert!(one.charges("ann", 1).await);
        one.flush_and_verify().await;
        transfer(&one, "ann", "bob", 20, "t-1").await;
        match kill_point {
            // Redis loses all before the flush: debit and credit are lost together, and the repeat transfers once.
            0 => flushall(&world).await,
            // The partition is opened again, with the tail: the opening drains it. The flusher finds nothing more.
            1 => leave_generation(&one, "ann").await,
            // The flush fails halfway, after the sender's grant was charged.
            2 => {
                execute(&world.database, "alter table grants add constraint no_receipt check (source <> 'transfer')")
                    .await;
                assert!(one.flusher.flush_all().await.is_err());
                assert_eq!(world.number("select sum(transferred)::bigint from grants").await, 0);
                execute(&world.database, "alter table grants drop constraint no_receipt").await;
            }
            // After the flush, before the numbering: Redis is lost, and its partition opened again.
            3 => {
                one.flush_and_verify().await;
                flushall(&world).await;
            }
            // Two gates number the grant, and die before Redis hears of it.
            4 => {
                one.flush_and_verify().await;
                assert_eq!(number_at_both(&one, &two, "bob").await, 1, "each grant gets one number");
                assert_eq!(number_at_both(&one, &two, "bob").await, 0);
            }
            // After Redis has heard of it: a loss seeds it again, less what was flushed.
            _ => {
                one.flush_and_verify().await;
                sync(&one).await;
                assert!(two.charges("bob", 105).await);
                two.flush_and_verify().await;
                flushall(&world).await;
            }
        }
        // The caller did not get the answer, and repeats the request at another gate.
        let again = transfer(&two, "ann", "bob", 20, "t-1").await;
        assert_eq!(again.replayed, kill_point != 0, "{kill_point}");
        two.flush_and_verify().await;
        number_at_both(&one, &two, "bob").await;
        sync(&one).await;
        let (plan, granted) = if kill_point == 5 { (0, 15) } else { (100, 20) };
        assert_eq!((left(&world, "ann").await, left(&world, "bob").await), (30, granted), "{kill_point}");
        assert!(one.charges("bob", plan + granted).await && !two.charges("bob", 1).await, "{kill_point}");
        assert!(one.charges("ann", 99 + 30).await && !two.charges("ann", 1).await, "{kill_point}");
        two.flush_and_verify().await;
        assert_conserved(&world, 50).await;
        let versions = "select count(*) - count(distinct (user_uuid, number)) from grants";
        assert_eq!(world.number(versions).await, 0);
    }
}

/// The receiver's row is locked until both gates wait for it, so both want to number the grant at the same time.
#[tokio::test]
async fn a_grant_gets_one_number_however_many_gates_number_it() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    give(&one, "ann", 50, "order-1", None).await;
    transfer(&one, "ann", "bob", 20, "t-1").await;
    assert!(two.charges("bob", 1).await);
    one.flush_and_verify().await;
    let mut other = world.pool.begin().await.unwrap();
    sqlx::query("select from chat_quotas where user_uuid = 'bob' for update").execute(&mut *other).await.unwrap();
    let release = async {
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("both wait for the row", async || world.number(waiting).await == 2).await;
        other.rollback().await.unwrap();
    };
    let (numbered, ()) = tokio::join!(number_at_both(&one, &two, "bob"), release);
    assert_eq!(numbered, 1);
    sync(&one).await;
    assert!(one.charges("bob", 99 + 20).await && !two.charges("bob", 1).await);
    two.flush_and_verify().await;
}

async fn number_at_both(one: &GateUnderTest, two: &GateUnderTest, who: &str) -> u64 {
    let who = user(who);
    let (here, there) = tokio::join!(one.gate.number_grants(&who), two.gate.number_grants(&who));
    here.unwrap() + there.unwrap()
}

async fn leave_generation(gate: &GateUnderTest, who: &str) {
    let partition: Partition = gate.gate.partitions().of(&user(who));
    gate.gate.leave_generation(partition, gate.gate.generation(partition)).await.unwrap();
}

/// Users of different partitions send to each other in a circle, with losses in between.
#[tokio::test]
async fn transfers_in_both_directions_conserve_through_losses_and_do_not_block_each_other() {
    let world = World::new().await.with_partitions(4);
    let gates = [world.gate().await, world.gate().await];
    let users: Vec<String> = (0..6).map(|number| format!("user-{number}")).collect();
    for who in &users {
        give(&gates[0], who, 60, "order-1", None).await;
    }
    for round in 0..6_usize {
        let work = users.iter().enumerate().map(async |(number, who)| {
            let gate = &gates[(number + round) % 2];
            for step in 1..4 {
                let to = &users[(number + step) % users.len()];
                let _ = gate.gate.transfer(&request(who, to, 7, &format!("t-{round}-{step}"))).await;
            }
            let _ = gate.consume(who, 21).await;
        });
        join_all(work).await;
        match round {
            2 => flushall(&world).await,
            4 => leave_generation(&gates[0], &users[0]).await,
            _ => {
                let (one, two) = tokio::join!(gates[0].flusher.flush_all(), gates[1].flusher.flush_all());
                assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
            }
        }
        let (one, two) = (GrantSync::new(&gates[0].gate), GrantSync::new(&gates[1].gate));
        let (one, two) = tokio::join!(one.number_some(None), two.number_some(None));
        assert!(one.is_ok() && two.is_ok());
        sync(&gates[0]).await;
    }
    gates[0].flush_and_verify().await;
    sync(&gates[1]).await;
    gates[1].flush_and_verify().await;
    let all = "select sum(granted - charged - transferred)::bigint + sum(charged)::bigint from grants";
    assert_eq!(world.number(all).await, 360);
    assert!(world.number("select count(*) from grants where source = 'transfer'").await > 20);
    assert_eq!(world.number("select count(*) from grants where charged + transferred > granted").await, 0);
}

#[tokio::test]
async fn received_grants_wait_while_the_user_has_32_live_ones() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "ann", 10, "order", None).await;
    for number in 0..32 {
        give(&gate, "bob", 1, &format!("order-{number}"), None).await;
    }
    transfer(&gate, "ann", "bob", 2, "t-1").await;
    gate.flush_and_verify().await;
    sync(&gate).await;
    assert_eq!(world.number(UNNUMBERED).await, 1);
    assert!(gate.charges("bob", 101).await, "one grant is used up");
    gate.flush_and_verify().await;
    sync(&gate).await;
    assert_eq!(world.number(UNNUMBERED).await, 0);
    assert!(gate.charges("bob", 33).await && !gate.charges("bob", 1).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_void_does_not_follow_a_transfer() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "ann", 50, "order-1", None).await;
    transfer(&gate, "ann", "bob", 20, "t-1").await;
    let given = gate.gate.grants_of(&user("ann")).await.unwrap()[0].id;
    gate.gate.void_grant(given, &shop()).await.unwrap();
    gate.flush_and_verify().await;
    sync(&gate).await;
    assert!(gate.charges("bob", 120).await && !gate.charges("ann", 101).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn verify_finds_a_transfer_whose_grants_differ_from_the_log() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "ann", 50, "order-1", None).await;
    let done = transfer(&gate, "ann", "bob", 20, "t-1").await;
    gate.flush_and_verify().await;
    execute(&world.database, "update grants set granted = 21 where source = 'transfer'").await;
    let verdict = gate.verifier.verify().await.unwrap();
    let drift = &verdict.transfer_drift;
    assert_eq!((drift.len(), drift[0].transfer, drift[0].sent, drift[0].received), (1, done.id, 20, 21));
    assert!(!verdict.agrees());
}

#[tokio::test]
async fn nothing_of_either_user_stays_after_forgetting_and_the_sums_agree() {
    let world = World::new().await.with_partitions(4);
    let gate = world.gate().await;
    give(&gate, "ann", 50, "order-1", None).await;
    transfer(&gate, "ann", "bob", 20, "t-1").await;
    gate.flush_and_verify().await;
    sync(&gate).await;
    forget(&gate, "ann", Unsettled::Refuse).await.unwrap();
    assert_eq!(world.number("select count(*) from grants where received_from like 'forgotten-%'").await, 1);
    // On its way while the receiver is forgotten.
    give(&gate, "eve", 50, "order-1", None).await;
    transfer(&gate, "eve", "bob", 5, "t-2").await;
    forget(&gate, "bob", Unsettled::Refuse).await.unwrap();
    let refused = gate.gate.transfer(&request("eve", "bob", 5, "t-3")).await;
    assert!(matches!(refused, Err(GateError::Invalid(_))), "{refused:?}");
    gate.flush_and_verify().await;
    sync(&gate).await;
    for name in ["ann", "bob"] {
        let rows = format!("select count(*) from grants where grants::text like '%{name}%'");
        assert_eq!(world.number(&rows).await, 0, "{name}");
    }
    assert_eq!(world.number(UNNUMBERED).await, 0);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_transfer_that_postgres_refuses_is_a_dead_letter_and_can_be_replayed() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "ann", 50, "order-1", None).await;
    let done = transfer(&gate, "ann", "bob", 20, "t-1").await;
    execute(
        &world.database,
        "alter table chat_usage_logs add constraint no_transfer check (kind <> 'transfer') not valid",
    )
    .await;
    gate.flusher.flush_all().await.unwrap();
    assert_eq!(world.number("select count(*) from dead_letters").await, 1);
    execute(&world.database, "alter table chat_usage_logs drop constraint no_transfer").await;
    gate.replayer.replay(&[]).await.unwrap();
    assert_eq!(gate.gate.grants_of_transfer(done.id).await.unwrap().len(), 1);
    gate.flush_and_verify().await;
    assert_conserved(&world, 50).await;
}
