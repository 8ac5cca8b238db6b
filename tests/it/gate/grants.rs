//! Grants: Redis hears of each once, charges are exact, and what is left survives losses of either store.

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use quota_gate::{
    domain::{author::Author, decision::Decision, meter::MeterCode, new_grant::*, user_id::UserId},
    gate::{Commit, GateError, GrantGiven},
    jobs::grant_sync::GrantSync,
    store::postgres::{Given, NewUser},
};
use uuid::Uuid;

use crate::support::{GateUnderTest, World, execute, reserve, user};

pub(super) fn pack(who: &str, ap: i64, id: &str) -> NewGrant {
    NewGrant {
        user: user(who),
        ap: NewGrant::ap(ap).unwrap(),
        expires_at: None,
        priority: Priority::DEFAULT,
        source: GrantSource::parse("pack").unwrap(),
        external_id: ExternalId::parse(id).unwrap(),
        meter: MeterCode::CHAT,
    }
}

fn shop() -> Author {
    Author::program("shop", None).unwrap()
}

pub(super) async fn give(gate: &GateUnderTest, who: &str, ap: i64, id: &str) -> GrantGiven {
    gate.gate.give_grant(&pack(who, ap, id), &shop()).await.unwrap()
}

async fn give_until(gate: &GateUnderTest, who: &str, ap: i64, id: &str, expiry: &str) -> GrantGiven {
    let grant = NewGrant { expires_at: Some(expiry.parse().unwrap()), ..pack(who, ap, id) };
    gate.gate.give_grant(&grant, &shop()).await.unwrap()
}

/// Gives a grant as a gate does that is killed before it sends the grant to Redis.
async fn give_and_die(gate: &GateUnderTest, who: &str, ap: i64, id: &str) {
    let (calendar, now) = (gate.gate.calendar(), gate.gate.now());
    let first = NewUser { calendar, now };
    let given = gate.postgres.give(Uuid::new_v4(), &pack(who, ap, id), &shop(), &first).await.unwrap();
    assert!(matches!(given, Given::Made(_)), "{given:?}");
}

async fn flushall(world: &World) {
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
}

async fn charged(world: &World) -> i64 {
    world.number("select sum(charged)::bigint from grants").await
}

const UNSYNCED: &str = "select count(*) from chat_quotas where grants_synced < grants_version";

#[tokio::test]
async fn grants_pay_what_the_plan_does_not() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    assert!(one.charges("ann", 90).await && !one.charges("ann", 30).await);
    assert!(!give(&one, "ann", 50, "order-1").await.replayed);
    assert!(two.charges("ann", 30).await, "10 AP of the plan and 20 of the grant");
    assert!(two.charges("ann", 30).await && !one.charges("ann", 1).await);
    one.flush_and_verify().await;
    assert_eq!(charged(&world).await, 50);
    assert_eq!(world.number("select monthly_used from chat_quotas").await, 100, "the period counts the plan only");
    assert_eq!(world.number("select total_used from chat_quotas").await, 150);
    let parts = "select count(*) from chat_usage_logs where ap_used = 30 and plan_ap = 10 and grant_aps = '{20}'";
    assert_eq!(world.number(parts).await, 1);
    assert_eq!(
        world.number("select count(*) from chat_usage_logs where grant_numbers is null and plan_ap is null").await,
        1
    );
    assert_eq!(world.number(UNSYNCED).await, 0);
}

#[tokio::test]
async fn a_grant_whose_gate_died_before_it_was_sent_is_sent_once_by_another() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    assert!(one.charges("ann", 100).await);
    give_and_die(&one, "ann", 5, "order-1").await;
    give_and_die(&one, "bob", 5, "order-1").await;
    assert_eq!(world.number(UNSYNCED).await, 2);
    assert!(!two.charges("ann", 1).await, "Redis has not heard of it");
    let (here, there) = (GrantSync::new(&one.gate), GrantSync::new(&two.gate));
    let (here, there) = tokio::join!(here.sync_some(None), there.sync_some(None));
    assert_eq!((here.unwrap().unsynced, there.unwrap().unsynced), (0, 0));
    assert_eq!(world.number(UNSYNCED).await, 0, "also of a user whom Redis did not have");
    assert!(two.charges("ann", 5).await && !one.charges("ann", 1).await);
    assert!(two.charges("bob", 105).await && !one.charges("bob", 1).await);
    one.flush_and_verify().await;
    assert_eq!(charged(&world).await, 10);
}

#[tokio::test]
async fn a_list_that_is_sent_again_gives_nothing_back() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "ann", 50, "order-1").await;
    assert!(gate.charges("ann", 140).await);
    // As if the gate was killed before it recorded that Redis has the list. The row still has 50 AP left.
    execute(&world.database, "update chat_quotas set grants_synced = 0").await;
    assert_eq!(GrantSync::new(&gate.gate).sync_some(None).await.unwrap().synced, 1);
    assert!(gate.charges("ann", 10).await && !gate.charges("ann", 1).await);
    assert!(give(&gate, "ann", 50, "order-1").await.replayed);
    assert!(!gate.charges("ann", 1).await);
    // The next list still has the 50 AP that are used up in Redis, because nothing is flushed.
    give(&gate, "ann", 7, "order-2").await;
    assert!(gate.charges("ann", 7).await && !gate.charges("ann", 1).await);
    gate.flush_and_verify().await;
    assert_eq!(charged(&world).await, 57);
}

#[tokio::test]
async fn one_external_id_makes_one_grant_however_many_gates_are_asked() {
    let world = World::new().await;
    let gates = [world.gate().await, world.gate().await];
    let given = join_all((0..16).map(|number| give(&gates[number % 2], "ann", 20, "order-1"))).await;
    assert_eq!(given.iter().filter(|given| !given.replayed).count(), 1);
    assert!(given.iter().all(|one| one.grant == given[0].grant));
    let other = gates[0].gate.give_grant(&pack("ann", 21, "order-1"), &shop()).await;
    assert!(matches!(other, Err(GateError::Mismatch(_))), "{other:?}");
    assert!(!give(&gates[0], "bob", 20, "order-1").await.replayed, "ids are of one user");
    assert!(gates[1].charges("ann", 120).await && !gates[1].charges("ann", 1).await);
    gates[0].flush_and_verify().await;
}

#[tokio::test]
async fn a_user_has_at_most_32_live_grants() {
    let world = World::new().await;
    let gate = world.gate().await;
    for number in 0..32 {
        give(&gate, "ann", 1, &format!("order-{number}")).await;
    }
    let refused = gate.gate.give_grant(&pack("ann", 1, "order-32"), &shop()).await;
    assert!(matches!(refused, Err(GateError::TooManyGrants(32))), "{refused:?}");
    assert!(gate.charges("ann", 101).await, "one grant is used up");
    gate.flush_and_verify().await;
    give(&gate, "ann", 1, "order-32").await;
    assert!(gate.charges("ann", 32).await && !gate.charges("ann", 1).await);
    gate.flush_and_verify().await;
    assert_eq!(charged(&world).await, 33);
}

#[tokio::test]
async fn after_a_loss_of_redis_what_was_flushed_stays_charged() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    give(&one, "ann", 50, "order-1").await;
    assert!(one.charges("ann", 130).await);
    one.flush_and_verify().await;
    assert!(one.charges("ann", 5).await, "this charge will be lost");
    flushall(&world).await;
    // A grant that is given while Redis is empty reaches it with the seed or after it, but once.
    give(&two, "ann", 10, "order-2").await;
    assert!(two.charges("ann", 30).await && !one.charges("ann", 1).await);
    one.flush_and_verify().await;
    assert_eq!(charged(&world).await, 60);
}

#[tokio::test]
async fn an_older_generation_cannot_give_back_what_was_charged() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "ann", 50, "order-1").await;
    assert!(gate.charges("ann", 150).await);
    // Postgres is behind: it is restored from a time before the charge was flushed.
    gate.flush_and_verify().await;
    execute(&world.database, "update grants set charged = 0").await;
    execute(&world.database, "update chat_quotas set monthly_used = 0, total_used = 0").await;
    let partition = gate.gate.partitions().of(&user("ann"));
    gate.gate.leave_generation(partition, gate.gate.generation(partition)).await.unwrap();
    assert!(!gate.charges("ann", 1).await, "the seed takes the smaller of what both stores have left");
    assert_eq!(gate.repairer.repair().await.unwrap().grants, 1);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn charges_to_a_grant_that_postgres_has_lost_are_kept() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "ann", 50, "order-1").await;
    assert!(gate.charges("ann", 110).await);
    // Postgres is restored from a time before the grant was given.
    execute(&world.database, "delete from grants").await;
    execute(&world.database, "update chat_quotas set grants_version = 0, grants_synced = 0").await;
    gate.flush_and_verify().await;
    assert!(gate.charges("ann", 5).await);
    gate.flush_and_verify().await;
    let unknown = "select granted from grants where source = 'unknown' and granted = charged";
    assert_eq!(world.number(unknown).await, 15);
    // Redis has heard of the old number, and hears of the new one too.
    give(&gate, "ann", 20, "order-2").await;
    assert!(gate.charges("ann", 20).await && !gate.charges("ann", 1).await, "the lost grant has ended");
    gate.flush_and_verify().await;
    assert_eq!(charged(&world).await, 35);
}

#[tokio::test]
async fn a_void_ends_a_grant_except_for_older_holds() {
    let world = World::new().await;
    let (one, two) = (world.gate().await, world.gate().await);
    let given = give(&one, "ann", 50, "order-1").await.grant;
    assert!(one.charges("ann", 100).await);
    let Decision::Allowed(held) = one.gate.reserve(reserve("ann", 20, 60)).await.unwrap() else { panic!("denied") };
    let reason = Author::person("ops", "a refund").unwrap();
    assert!(!two.gate.void_grant(given.id, &reason).await.unwrap().replayed);
    assert!(two.gate.void_grant(given.id, &reason).await.unwrap().replayed);
    assert!(!one.charges("ann", 1).await, "30 AP are voided");
    let id = two.gate.reservation_id(&held.reservation);
    let committed = two.gate.commit(&id, Commit::default()).await.unwrap().now().unwrap();
    assert_eq!((committed.charged.get(), committed.overage.get()), (20, 0));
    one.flush_and_verify().await;
    assert_eq!(charged(&world).await, 20);
    assert_eq!(world.number("select granted - charged from grants where voided_at is not null").await, 30);
    let unknown = one.gate.void_grant(Uuid::new_v4(), &reason).await;
    assert!(matches!(unknown, Err(GateError::UnknownGrant)), "{unknown:?}");
    // The void does not come back with a loss.
    flushall(&world).await;
    assert!(!one.charges("ann", 1).await);
    one.flush_and_verify().await;
}

#[tokio::test]
async fn grants_expire_and_pay_in_the_order_of_priority_and_expiry() {
    let world = World::at("2026-11-20T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    give_until(&gate, "ann", 10, "later", "2026-11-20T14:00:00Z").await;
    give_until(&gate, "ann", 10, "sooner", "2026-11-20T13:00:00Z").await;
    let first = NewGrant { priority: Priority::new(1).unwrap(), ..pack("ann", 10, "first") };
    gate.gate.give_grant(&first, &shop()).await.unwrap();
    assert!(gate.charges("ann", 115).await);
    gate.flush_and_verify().await;
    let charged_of = async |id: &str| {
        let query = format!("select charged from grants where external_id = '{id}'");
        world.number(&query).await
    };
    assert_eq!((charged_of("first").await, charged_of("sooner").await, charged_of("later").await), (10, 5, 0));
    world.set_time("2026-11-20T13:00:00Z").await;
    assert!(gate.charges("ann", 10).await && !gate.charges("ann", 1).await, "the sooner one has expired");
    gate.flush_and_verify().await;
    assert_eq!((charged_of("sooner").await, charged_of("later").await), (5, 10));
    // Expired grants are not sent any more, and no loss revives them.
    flushall(&world).await;
    world.set_time("2026-11-20T15:00:00Z").await;
    assert!(!gate.charges("ann", 1).await);
    let past = NewGrant { expires_at: Some(at("2026-11-20T15:00:00Z")), ..pack("ann", 10, "past") };
    assert!(matches!(gate.gate.give_grant(&past, &shop()).await, Err(GateError::Invalid(_))));
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn grants_outlive_the_period_and_the_plan_pays_first_again() {
    let world = World::at("2026-11-30T23:00:00Z", "UTC").await;
    let gate = world.gate().await;
    give(&gate, "ann", 50, "order-1").await;
    assert!(gate.charges("ann", 120).await);
    world.set_time("2026-12-01T00:00:01Z").await;
    assert!(gate.charges("ann", 130).await && !gate.charges("ann", 1).await);
    gate.flush_and_verify().await;
    assert_eq!(charged(&world).await, 50);
    assert_eq!(world.number("select used from chat_quota_months where period = 202611").await, 100);
}

/// Many users, gates and changes at the same time, with losses in between: every store agrees at the end, and no user
/// has used more than was given.
#[tokio::test]
async fn grants_conserve_through_concurrent_changes_and_losses() {
    let world = World::new().await;
    let gates = [world.gate().await, world.gate().await];
    let users: Vec<String> = (0..8).map(|number| format!("user-{number}")).collect();
    for round in 0..6_usize {
        let work = users.iter().enumerate().map(async |(number, who)| {
            let gate = &gates[(number + round) % 2];
            give(gate, who, 20, &format!("order-{round}")).await;
            for ap in [7, 30, 11] {
                let _ = gate.consume(who, ap).await;
            }
            if (number + round) % 3 == 0 {
                let newest = gate.gate.grants_of(&user(who)).await.unwrap()[0].id;
                gate.gate.void_grant(newest, &shop()).await.unwrap();
            }
            let _ = gates[(number + round + 1) % 2].consume(who, 13).await;
        });
        join_all(work).await;
        match round {
            1 => flushall(&world).await,
            3 => execute(&world.database, "update chat_quotas set grants_synced = 0").await,
            _ => gates[round % 2].flusher.flush_all().await.unwrap(),
        }
    }
    gates[0].flush_and_verify().await;
    gates[1].flush_and_verify().await;
    assert_eq!(world.number("select count(*) from grants where charged > granted").await, 0);
    assert_eq!(world.number("select count(*) from grants").await, 48);
    assert_eq!(world.number("select count(*) from chat_quotas where monthly_used > monthly_quota").await, 0);
}

fn at(time: &str) -> DateTime<Utc> {
    time.parse().unwrap()
}

#[tokio::test]
async fn a_grant_makes_a_user_whom_no_gate_has_seen() {
    let world = World::new().await;
    let gate = world.gate().await;
    let new: UserId = user("new");
    assert!(gate.gate.grants_of(&new).await.unwrap().is_empty());
    give(&gate, "new", 5, "gift").await;
    assert!(gate.charges("new", 105).await && !gate.charges("new", 1).await);
    gate.flush_and_verify().await;
    assert_eq!(gate.gate.grants_of(&new).await.unwrap()[0].left(), 0);
}

#[tokio::test]
async fn verify_finds_a_grant_that_differs_from_the_log_or_from_redis() {
    let world = World::new().await;
    let gate = world.gate().await;
    give(&gate, "ann", 50, "order-1").await;
    assert!(gate.charges("ann", 130).await);
    let unflushed = gate.verifier.verify().await.unwrap();
    assert!(unflushed.agrees() && unflushed.unflushed == 1, "{unflushed:?}");
    gate.flush_and_verify().await;
    execute(&world.database, "update grants set charged = 31").await;
    let verdict = gate.verifier.verify().await.unwrap();
    assert_eq!((verdict.grant_drift.len(), verdict.grant_drift[0].charged), (1, (30, 31)));
    assert_eq!(verdict.differences[0].grants[0].left, (20, 19));
    assert!(!verdict.agrees());
}
