//! Meters beside the chat, with real gates: what one counts never touches another, in both stores.

use std::time::Duration;

use quota_gate::{
    domain::{
        ap::Ap,
        author::Author,
        decision::{Decision, OnRedisFailure, Reserved, Settled},
        hold::Ttl,
        level::{LevelName, LevelTerms},
        meter::{MeterCode, MeterLevels, MeterName},
        new_grant::NewGrant,
        own_quota::{OwnQuota, UserChange},
        window::LevelLimits,
    },
    gate::{ChangeUser, Commit, Consume, Gate, GateError, Reserve},
    jobs::level_sync::LevelSync,
};

use super::{
    levels::give,
    transfers::{assert_conserved, request, shop, sync},
};
use crate::support::{GateUnderTest, World, consume, eventually, key, reserve, user};

pub(super) fn meter(name: &str, quotas: &[(&str, u32, &str)]) -> MeterLevels {
    let terms = |(level, quota, windows): &(&str, u32, &str)| {
        let limits = LevelLimits::parse(windows, None).unwrap();
        (LevelName::parse(level).unwrap(), LevelTerms { quota: Ap::new(*quota), limits })
    };
    MeterLevels { name: MeterName::parse(name).unwrap(), levels: quotas.iter().map(terms).collect() }
}

pub(super) fn image(free: u32, windows: &str) -> Vec<MeterLevels> {
    vec![meter("image", &[("free", free, windows), ("basic", 50, ""), ("plus", 200, ""), ("pro", 1_000, "")])]
}

/// A gate with the meter `image`: 10 of level `free`.
pub(super) async fn gate(world: &World) -> GateUnderTest {
    world.gate_with(|tuning| tuning.meters = image(10, "")).await
}

/// The gate of the first meter.
pub(super) fn images(gate: &GateUnderTest) -> Gate {
    gate.gate.of_meter(MeterCode::new(1))
}

/// Quota, used and held.
pub(super) async fn numbers(gate: &Gate, who: &str) -> (u32, u32, u32) {
    let quota = gate.quota(&user(who)).await.unwrap();
    (quota.quota.get(), quota.used.get(), quota.held.get())
}

pub(super) async fn charges(gate: &Gate, who: &str, ap: i64) -> bool {
    matches!(gate.consume(consume(who, ap)).await.unwrap(), Decision::Allowed(_))
}

pub(super) async fn hold(gate: &Gate, request: Reserve) -> Reserved {
    match gate.reserve(request).await.unwrap() {
        Decision::Allowed(reserved) => reserved,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn commit(gate: &Gate, reserved: &Reserved, ap: u32) -> Result<(u32, u32), GateError> {
    let id = gate.reservation_id(&reserved.reservation);
    match gate.commit(&id, Commit { ap: Some(Ap::new(ap)), ..Commit::default() }).await? {
        Settled::Now(done) => Ok((done.charged.get(), done.overage.get())),
        Settled::Later => panic!("Redis is unavailable"),
    }
}

fn pack(who: &str, ap: i64, id: &str, meter: MeterCode) -> NewGrant {
    NewGrant { meter, ..super::grants::pack(who, ap, id) }
}

pub(super) async fn flushall(world: &World) {
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
    // A manual clock has a key too.
    world.set_redis_time(world.clock.now()).await;
}

#[tokio::test]
async fn what_one_meter_counts_never_touches_another() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let images = images(&gate);
    assert!(gate.charges("alice", 60).await && charges(&images, "alice", 7).await);
    assert!(!charges(&images, "alice", 4).await, "3 of 10 are left");
    assert!(gate.charges("alice", 40).await && !gate.charges("alice", 1).await);
    let held = hold(&images, reserve("alice", 2, 60)).await;
    assert_eq!(numbers(&images, "alice").await, (10, 7, 2));
    assert_eq!(numbers(&gate.gate, "alice").await, (100, 100, 0));
    assert_eq!(commit(&images, &held, 5).await.unwrap(), (3, 2));
    gate.flush_and_verify().await;
    assert_eq!(world.number("select total_used from chat_quotas").await, 100);
    assert_eq!(world.number("select used from meter_usage where meter = 1").await, 10);
    assert_eq!(world.number("select overage from meter_usage where meter = 1").await, 2);
    assert_eq!(world.number("select sum(ap)::bigint from usage_days").await, 100, "analytics are of the chat");
    assert_eq!(world.number("select count(*) from chat_usage_logs where meter = 1").await, 2);
}

#[tokio::test]
async fn an_idempotency_key_is_one_of_the_user_and_the_meter() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let images = images(&gate);
    let keyed = || Consume { idempotency_key: Some(key("k")), ..consume("alice", 2) };
    let charge = async |gate: &Gate| match gate.consume(keyed()).await.unwrap() {
        Decision::Allowed(charged) => (charged.event, charged.replayed),
        other => panic!("{other:?}"),
    };
    let (of_chat, of_image) = (charge(&gate.gate).await, charge(&images).await);
    assert!(of_chat.0 != of_image.0 && !of_chat.1 && !of_image.1);
    assert_eq!((charge(&gate.gate).await, charge(&images).await), ((of_chat.0, true), (of_image.0, true)));
    gate.flush_and_verify().await;
    flushall(&world).await;
    assert_eq!((charge(&gate.gate).await, charge(&images).await), ((of_chat.0, true), (of_image.0, true)));
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_reservation_is_settled_on_the_routes_of_its_meter_only() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let images = images(&gate);
    let (of_chat, of_image) =
        (hold(&gate.gate, reserve("alice", 3, 60)).await, hold(&images, reserve("alice", 4, 60)).await);
    for (wrong, reserved, name) in [(&gate.gate, &of_image, "image"), (&images, &of_chat, "chat")] {
        let id = wrong.reservation_id(&reserved.reservation);
        for refused in [
            commit(wrong, reserved, 1).await.unwrap_err(),
            wrong.release(&id).await.unwrap_err(),
            wrong.extend(&id, Ttl::DEFAULT).await.unwrap_err(),
        ] {
            assert!(matches!(&refused, GateError::OtherMeter(meter) if meter == name), "{refused:?}");
        }
    }
    assert_eq!(commit(&images, &of_image, 4).await.unwrap(), (4, 0));
    assert_eq!(commit(&gate.gate, &of_chat, 3).await.unwrap(), (3, 0));
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn after_a_loss_of_redis_each_meter_has_its_own_numbers_again() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.gate_with(|tuning| tuning.meters = image(10, "5h ap 6")).await;
    let images = images(&gate);
    assert!(gate.charges("alice", 30).await && charges(&images, "alice", 5).await);
    gate.flush_and_verify().await;
    flushall(&world).await;
    assert_eq!((numbers(&images, "alice").await, numbers(&gate.gate, "alice").await), ((10, 5, 0), (100, 30, 0)));
    assert!(!charges(&images, "alice", 2).await, "the window is rebuilt from the log");
    assert!(charges(&images, "alice", 1).await && gate.charges("alice", 20).await);
    world.set_time("2026-11-10T17:00:01Z").await;
    assert!(charges(&images, "alice", 2).await, "the window is over");
    gate.flush_and_verify().await;
    let quota = images.quota(&user("alice")).await.unwrap();
    assert_eq!((quota.total_used, quota.used_today.get()), (8, 8));
}

#[tokio::test]
async fn a_period_that_ends_ends_for_every_meter() {
    let world = World::at("2026-11-30T23:50:00Z", "UTC").await;
    let gate = gate(&world).await;
    let images = images(&gate);
    let late = hold(&images, reserve("alice", 3, 300)).await;
    assert!(charges(&images, "alice", 6).await);
    world.set_time("2026-12-01T00:00:30Z").await;
    assert!(charges(&images, "alice", 9).await);
    gate.flush_and_verify().await;
    // Only the flush of the meter has rolled the row.
    assert_eq!(world.number("select period::bigint from chat_quotas").await, 202_612);
    flushall(&world).await;
    assert_eq!(numbers(&images, "alice").await, (10, 9, 0));
    assert_eq!(commit(&images, &late, 3).await.unwrap(), (0, 3), "what was free in November is not known any more");
    assert!(charges(&images, "alice", 1).await && !charges(&images, "alice", 1).await);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select used from meter_usage where period = 202611").await, 6);
    assert_eq!(world.number("select used from meter_usage where period = 202612").await, 10);
}

#[tokio::test]
async fn a_level_and_a_block_are_those_of_all_meters_and_an_own_quota_is_one_of_the_chat() {
    let world = World::new().await;
    let (one, two) = (gate(&world).await, gate(&world).await);
    let images = images(&two);
    assert!(charges(&images, "alice", 10).await && !charges(&images, "alice", 1).await);
    give(&one, "alice", "basic").await;
    assert_eq!((numbers(&images, "alice").await, numbers(&two.gate, "alice").await), ((50, 10, 0), (300, 0, 0)));

    let change = |change| ChangeUser {
        user: user("alice"),
        change,
        if_version: None,
        author: Author::person("ops", "a test").unwrap(),
    };
    let quota = Some(Some(OwnQuota::parse("5000").unwrap()));
    one.gate.change_user(change(UserChange { quota, blocked: None })).await.unwrap();
    assert_eq!((numbers(&images, "alice").await.0, numbers(&two.gate, "alice").await.0), (50, 5_000));
    one.gate.change_user(change(UserChange { quota: None, blocked: Some(true) })).await.unwrap();
    assert!(matches!(images.consume(consume("alice", 1)).await, Err(GateError::Blocked)));
    one.flush_and_verify().await;
    flushall(&world).await;
    assert!(matches!(images.consume(consume("alice", 1)).await, Err(GateError::Blocked)));
    assert_eq!(numbers(&images, "alice").await, (50, 10, 0));
    one.flush_and_verify().await;
}

#[tokio::test]
async fn a_level_change_is_sent_again_to_a_meter_that_its_gate_did_not_know() {
    let world = World::new().await;
    let old = world.gate().await;
    let new = gate(&world).await;
    let images = images(&new);
    assert!(charges(&images, "alice", 10).await);
    give(&old, "alice", "basic").await;
    assert_eq!(numbers(&images, "alice").await.0, 10, "the other gate has not read the meters yet");
    assert_eq!(world.number("select count(*) from chat_quotas where synced_version < level_version").await, 1);
    LevelSync::new(&new.gate).sync_some(None).await.unwrap();
    assert_eq!(numbers(&images, "alice").await.0, 50);
    assert_eq!(world.number("select count(*) from chat_quotas where synced_version < level_version").await, 0);
    new.flush_and_verify().await;
}

#[tokio::test]
async fn changed_quotas_of_a_meter_count_immediately_and_a_removed_meter_keeps_its_numbers() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let images = images(&gate);
    assert!(charges(&images, "alice", 8).await);
    let version = gate.gate.levels().version();
    let changes = gate.gate.apply_meters(&image(20, "")).await.unwrap();
    assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["image of free: 20 AP instead of 10 AP"]);
    assert!(gate.gate.levels().version() > version);
    assert!(charges(&images, "alice", 12).await && !charges(&images, "alice", 1).await);
    assert!(gate.gate.apply_meters(&image(20, "")).await.unwrap().is_empty(), "applying again changes nothing");

    // A gate without the meter, and one that has another: no code is used again.
    let later = world.gate_with(|tuning| tuning.meters = vec![meter("video", &[("free", 3, "")])]).await;
    let codes: Vec<(String, u8)> =
        later.gate.levels().meters().iter().map(|meter| (meter.name.to_string(), meter.code.get())).collect();
    assert_eq!(codes, [("image".to_owned(), 1), ("video".to_owned(), 2)]);
    assert_eq!(numbers(&later.gate.of_meter(MeterCode::new(1)), "alice").await, (20, 20, 0));
    assert_eq!(numbers(&later.gate.of_meter(MeterCode::new(2)), "alice").await, (3, 0, 0));
    later.flush_and_verify().await;
}

#[tokio::test]
async fn grants_pay_on_their_meter_only() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let (images, shop) = (images(&gate), Author::program("shop", None).unwrap());
    gate.gate.give_grant(&pack("alice", 5, "a", MeterCode::new(1)), &shop).await.unwrap();
    let of_chat = gate.gate.give_grant(&pack("alice", 30, "a", MeterCode::CHAT), &shop).await.unwrap();
    assert!(!of_chat.replayed, "an external id is one of the meter");
    assert!(charges(&images, "alice", 14).await && !charges(&images, "alice", 2).await);
    assert!(gate.charges("alice", 130).await && !gate.charges("alice", 1).await);
    gate.flush_and_verify().await;
    let left = async |gate: &Gate| gate.grants_of(&user("alice")).await.unwrap()[0].left();
    assert_eq!((left(&images).await, left(&gate.gate).await), (1, 0));

    let unknown = images.void_grant(of_chat.grant.id, &shop).await;
    assert!(matches!(unknown, Err(GateError::UnknownGrant)), "{unknown:?}");
    flushall(&world).await;
    assert!(charges(&images, "alice", 1).await && !charges(&images, "alice", 1).await);
    let refunded = images.consume(consume("bob", 4)).await.unwrap();
    gate.flush_and_verify().await;
    let Decision::Allowed(charge) = refunded else { panic!("{refunded:?}") };
    gate.gate.refund_charge(&user("bob"), charge.event, None, &shop).await.unwrap();
    assert_eq!(left(&images).await, 0);
    assert!(charges(&images, "bob", 10).await, "a refund is of the meter of its charge");
    assert_eq!(world.number("select count(*) from chat_quotas where grants_synced < grants_version").await, 0);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_hold_of_two_hours_is_committed_once_although_redis_restarts_in_between() {
    let mut world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = gate(&world).await;
    let images = images(&gate);
    let ttl = Ttl::up_to(86_400, 7_200).unwrap();
    let one = hold(&images, Reserve { ttl, ..reserve("alice", 6, 60) }).await;
    let two = hold(&images, Reserve { ttl, ..reserve("alice", 3, 60) }).await;
    world.set_time("2026-11-10T13:30:00Z").await;
    assert_eq!(numbers(&images, "alice").await, (10, 0, 9), "both holds are live after 90 minutes");
    assert_eq!(commit(&images, &two, 3).await.unwrap(), (3, 0));
    gate.flush_and_verify().await;

    world.redis.stop().await;
    world.redis.restart().await.unwrap();
    eventually("the time is set", async || world.try_set_time("2026-11-10T13:45:00Z").await).await;
    eventually("the gate serves again", async || images.quota_and_holds(&user("alice")).await.is_ok()).await;
    assert_eq!(commit(&images, &one, 6).await.unwrap(), (6, 0));
    assert_eq!(commit(&images, &one, 6).await.unwrap(), (6, 0), "a repeat charges nothing");
    assert_eq!(commit(&images, &two, 3).await.unwrap(), (3, 0), "and neither does one of before the restart");
    world.try_set_time("2026-11-10T14:09:59Z").await;
    assert_eq!(commit(&images, &one, 6).await.unwrap(), (6, 0), "a settlement is kept until the hold would have ended");
    assert_eq!(numbers(&images, "alice").await, (10, 9, 0));
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn while_redis_is_away_holds_of_a_meter_can_be_settled_and_new_messages_wait() {
    let mut world = World::new().await;
    let gate = world
        .gate_with(|tuning| {
            tuning.meters = image(10, "");
            tuning.on_redis_failure = OnRedisFailure::Allow;
            tuning.response_timeout = Duration::from_millis(300);
        })
        .await;
    let images = images(&gate);
    let held = hold(&images, reserve("alice", 4, 60)).await;
    assert!(charges(&images, "alice", 1).await);
    gate.flush_and_verify().await;
    world.redis.stop().await;

    let committed = images.commit(&images.reservation_id(&held.reservation), Commit::default()).await.unwrap();
    assert!(matches!(committed, Settled::Later), "{committed:?}");
    let refused = images.consume(consume("alice", 1)).await;
    assert!(matches!(refused, Err(GateError::RedisAway { .. })), "{refused:?}");
    let degraded = gate.consume("alice", 97).await.unwrap();
    assert!(
        matches!(degraded, Decision::Allowed(ref charged) if charged.degraded),
        "4 AP of images are not the chat's"
    );
    assert_eq!(numbers(&images, "alice").await, (10, 1, 0), "the quota is read from Postgres");

    world.redis.restart().await.unwrap();
    eventually("the inbox is applied", async || {
        let _ = gate.inbox_worker.apply_some().await;
        world.number("select count(*) from inbox where settled_at is null").await == 0
    })
    .await;
    assert_eq!((numbers(&images, "alice").await.1, numbers(&gate.gate, "alice").await.1), (5, 97));
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_transfer_stays_on_its_meter() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let images = images(&gate);
    let grant = pack("ann", 30, "order-1", MeterCode::new(1));
    images.give_grant(&grant, &shop()).await.unwrap();
    let refused = gate.gate.transfer(&request("ann", "bob", 20, "t-1")).await;
    assert!(matches!(refused, Err(GateError::NotTransferable(Ap::ZERO))), "{refused:?}");
    let done = images.transfer(&request("ann", "bob", 20, "t-1")).await.unwrap();
    gate.flush_and_verify().await;
    sync(&gate).await;
    assert!(!charges(&images, "bob", 31).await && charges(&images, "bob", 30).await, "10 of the level and 20 received");
    assert!(!charges(&gate.gate, "bob", 101).await, "the chat has nothing of it");
    assert!(!charges(&images, "ann", 21).await && charges(&images, "ann", 20).await);
    gate.flush_and_verify().await;
    assert_eq!(images.grants_of_transfer(done.id).await.unwrap().len(), 1);
    assert!(gate.gate.grants_of_transfer(done.id).await.unwrap().is_empty());
    assert_conserved(&world, 30).await;
}
