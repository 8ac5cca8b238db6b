//! Subscriptions under concurrency: events of many users through two gates, repeated, late and at the same time.

use std::collections::BTreeMap;

use chrono::DateTime;
use futures_util::{StreamExt, future::join_all, stream};
use quota_gate::{
    domain::subscription::{PriceLevels, Stage, SubscriptionEvent, Terms},
    gate::GateError,
    jobs::resetter::Trigger,
};
use sqlx::{Connection, PgConnection};

use crate::support::{GateUnderTest, World, eventually, user};

fn prices() -> PriceLevels {
    let levels = ["basic", "plus", "pro"].map(|level| (format!("price_{level}"), level.to_owned()));
    PriceLevels::new(&BTreeMap::from(levels)).unwrap()
}

/// An event after which this user pays for this level, or for nothing.
fn event(id: &str, subscription: &str, second: i64, who: &str, level: Option<&str>) -> SubscriptionEvent {
    SubscriptionEvent {
        id: id.into(),
        subscription: subscription.into(),
        at: DateTime::from_timestamp(second, 0).unwrap(),
        stage: Stage::Running,
        terms: Terms { user: user(who), paid_items: level.map(|level| vec![format!("price_{level}")]) },
        terms_before: None,
        paid_time: None,
    }
}

/// Applies an event; repeats it while a store is unavailable, as a billing system does.
async fn apply(gate: &GateUnderTest, event: &SubscriptionEvent) -> bool {
    loop {
        match gate.gate.apply_subscription(event, &prices(), false).await {
            Ok(changed) => return changed,
            Err(GateError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The level to which the user's subscriptions lead: the pending one, if any.
async fn target(world: &World, who: &str) -> String {
    let query = "select coalesce(pending_level, membership_level) from chat_quotas where user_uuid = $1";
    sqlx::query_scalar(query).bind(who).fetch_one(&world.pool).await.unwrap()
}

#[tokio::test]
async fn concurrent_events_of_many_subscriptions_lead_to_the_level_of_the_newest_ones() {
    let world = World::new().await;
    let gates = [world.gate().await, world.gate().await];
    // Users with two subscriptions each; each has ten events, and every third one moves it to the next user.
    let levels = [Some("plus"), None, Some("basic"), Some("pro"), None];
    let mut events = Vec::new();
    let mut newest: BTreeMap<String, (String, Option<&str>)> = BTreeMap::new();
    for number in 0..400_usize {
        let (subscription, second) = (number % 40, number / 40);
        let owner = (subscription / 2 + second / 3) % 20;
        let level = levels[(number * 7 + second) % levels.len()];
        let name = format!("sub_{subscription}");
        let (owner, at) = (format!("user-{owner}"), i64::try_from(second).unwrap());
        events.push(event(&format!("evt_{number}"), &name, at, &owner, level));
        newest.insert(name, (owner, level));
    }
    // An order that has nothing to do with time: 400 and 277 have no common divisor.
    let delivered = (0..800_usize).map(|number| (number, &events[number * 277 % 400]));
    stream::iter(delivered)
        .for_each_concurrent(64, async |(number, event)| {
            apply(&gates[number % 2], event).await;
        })
        .await;
    let rank = |level: Option<&str>| gates[0].gate.levels().named(level.unwrap_or("free")).unwrap().quota;
    for owner in 0..20 {
        let owner = format!("user-{owner}");
        let paid = newest.values().filter(|(user, _)| *user == owner).map(|(_, level)| *level);
        let expected = paid.max_by_key(|level| rank(*level)).flatten().unwrap_or("free");
        assert_eq!(target(&world, &owner).await, expected, "{owner}");
    }
    assert_eq!(world.number("select count(*) from subscription_events").await, 400);
    gates[0].flush_and_verify().await;
}

#[tokio::test]
async fn an_event_delivered_twelve_times_at_once_is_one_change() {
    let world = World::new().await;
    let gates = [world.gate().await, world.gate().await];
    let plus = event("evt_1", "sub_1", 100, "ann", Some("plus"));
    let changed = join_all((0..12).map(|number| apply(&gates[number % 2], &plus))).await;
    assert_eq!(changed.iter().filter(|changed| **changed).count(), 1);
    assert_eq!(world.number("select count(*) from user_changes").await, 1);
    assert_eq!(world.number("select level_version::bigint from chat_quotas").await, 1);
    // A successor of the same second, and then the first event again.
    assert!(apply(&gates[0], &event("evt_2", "sub_1", 100, "ann", Some("pro"))).await);
    assert!(!apply(&gates[1], &plus).await);
    assert_eq!(target(&world, "ann").await, "pro");
}

#[tokio::test]
async fn a_subscription_that_moves_takes_its_level_along_and_deadlocks_with_nothing() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(apply(&gate, &event("evt_1", "sub_1", 100, "ann", Some("pro"))).await);
    assert!(!apply(&gate, &event("evt_2", "sub_2", 100, "ann", Some("basic"))).await, "the higher one counts");
    // As a flush does, another transaction holds the second user and then waits for the first.
    let mut other = PgConnection::connect(&world.database).await.unwrap();
    gate.consume("bob", 1).await.unwrap();
    let mut holder = other.begin().await.unwrap();
    sqlx::query("select from chat_quotas where user_uuid = 'bob' for update").execute(&mut *holder).await.unwrap();
    let moving = tokio::spawn({
        let gate = gate.clone();
        async move { apply(&gate, &event("evt_3", "sub_1", 200, "bob", Some("pro"))).await }
    });
    let tried = "select count(*) from pg_stat_activity where datname = current_database() and query like '%nowait%'";
    eventually("the move has tried to lock both users", async || world.number(tried).await > 0).await;
    sqlx::query("select from chat_quotas where user_uuid = 'ann' for update").execute(&mut *holder).await.unwrap();
    holder.commit().await.unwrap();
    assert!(moving.await.unwrap());
    assert_eq!((target(&world, "ann").await, target(&world, "bob").await), ("basic".into(), "pro".into()));
    let reasons: Vec<String> = sqlx::query_scalar("select reason from user_changes order by id desc limit 2")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(reasons, ["evt_3: subscription sub_1 is live", "evt_3: subscription sub_1 has moved to another user"]);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn old_events_are_deleted_and_stay_without_effect() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    let (first, second) =
        (event("evt_1", "sub_1", 100, "ann", Some("pro")), event("evt_2", "sub_1", 200, "ann", Some("plus")));
    assert!(apply(&gate, &first).await && apply(&gate, &second).await);
    world.set_time("2026-12-20T12:00:00Z").await;
    gate.resetter.run(Trigger::Schedule).await.unwrap();
    assert_eq!(world.number("select count(*) from subscription_events").await, 0);
    assert!(!apply(&gate, &second).await && !apply(&gate, &first).await);
    assert_eq!(target(&world, "ann").await, "plus");
}
