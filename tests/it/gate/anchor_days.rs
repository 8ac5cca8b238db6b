//! Periods that begin on another day than the first of the month: one allowance per period, and per paid period.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use quota_gate::{
    domain::{
        ap::Ap,
        author::Author,
        calendar::AnchorDay,
        decision::Decision,
        level::LevelName,
        level_change::Effective,
        subscription::{PaidTime, PriceLevels, Stage, SubscriptionEvent, Terms},
        usage::Tokens,
    },
    gate::{ChangeLevel, Commit},
    jobs::resetter::Trigger,
    store::postgres::ImportRow,
};

use crate::support::{GateUnderTest, World, reserve, user};

fn prices() -> PriceLevels {
    let levels = ["basic", "plus", "pro"].map(|level| (format!("price_{level}"), level.to_owned()));
    PriceLevels::new(&BTreeMap::from(levels)).unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Changes the user's anchor day.
async fn anchor(gate: &GateUnderTest, who: &str, level: &str, day: u8) {
    let request = ChangeLevel {
        user: user(who),
        level: LevelName::parse(level).unwrap(),
        effective: Effective::Fair,
        anchor_day: Some(AnchorDay::new(day).unwrap()),
        if_version: None,
        author: Author::person("ops", "a test").unwrap(),
    };
    gate.gate.change_level(request).await.unwrap();
}

/// An event of `ann`'s subscription, after which this is paid for.
struct Paid {
    id: String,
    at: DateTime<Utc>,
    stage: Stage,
    level: Option<&'static str>,
    time: (DateTime<Utc>, DateTime<Utc>),
    anchored_at: DateTime<Utc>,
}

impl Paid {
    fn event(&self, subscription: &str) -> SubscriptionEvent {
        SubscriptionEvent {
            id: self.id.clone(),
            subscription: subscription.into(),
            at: self.at,
            stage: self.stage,
            terms: Terms { user: user("ann"), paid_items: self.level.map(|level| vec![format!("price_{level}")]) },
            terms_before: None,
            paid_time: Some(PaidTime { starts_at: self.time.0, ends_at: self.time.1, anchored_at: self.anchored_at }),
        }
    }
}

async fn apply(gate: &GateUnderTest, event: &SubscriptionEvent) -> bool {
    gate.gate.apply_subscription(event, &prices(), false).await.unwrap()
}

/// Charges the user 10 AP at a time until the gate refuses. Returns the sum.
async fn exhaust(gate: &GateUnderTest, who: &str) -> u32 {
    let mut charged = 0;
    while gate.charges(who, 10).await {
        charged += 10;
    }
    charged
}

/// Deletes everything that Redis has, at this time.
async fn lose_redis(world: &World, now: &str) {
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
    world.set_time(now).await;
}

/// First day of the user's period, and when it ends.
async fn period(gate: &GateUnderTest, who: &str) -> (String, DateTime<Utc>) {
    let quota = gate.gate.quota(&user(who)).await.unwrap();
    let end = gate.gate.calendar().period_end(quota.period, quota.anchor_day);
    (quota.period.to_string(), end)
}

#[tokio::test]
async fn a_new_anchor_day_lengthens_the_current_period_and_every_store_agrees() {
    let world = World::at("2027-01-10T12:00:00Z", "America/New_York").await;
    let (one, two) = (world.gate().await, world.gate().await);
    assert_eq!(exhaust(&one, "ann").await, 100);
    anchor(&one, "ann", "free", 31).await;
    assert_eq!(period(&two, "ann").await, ("2027-01".into(), at("2027-01-31T05:00:00Z")));
    assert_eq!(exhaust(&two, "ann").await, 0);
    for (before, after, begins, ends) in [
        ("2027-01-31T04:59:59Z", "2027-01-31T05:00:00Z", "2027-01-31", "2027-02-28T05:00:00Z"),
        ("2027-02-28T04:59:59Z", "2027-02-28T05:00:00Z", "2027-02-28", "2027-03-31T04:00:00Z"),
        ("2027-03-31T03:59:59Z", "2027-03-31T04:00:00Z", "2027-03-31", "2027-04-30T04:00:00Z"),
    ] {
        world.set_time(before).await;
        assert_eq!(exhaust(&two, "ann").await, 0, "{before}");
        world.set_time(after).await;
        // Rows of other anchor days do not disturb each other.
        assert!(one.charges("bob", 1).await);
        assert_eq!(exhaust(&one, "ann").await, 100, "{after}");
        assert_eq!(period(&one, "ann").await, (begins.into(), at(ends)));
        one.flush_and_verify().await;
    }
    // A record that is built from the row again continues the same period.
    lose_redis(&world, "2027-03-31T05:00:00Z").await;
    assert_eq!(exhaust(&two, "ann").await, 0);
    assert_eq!(period(&two, "ann").await.0, "2027-03-31");
    world.set_time("2027-04-30T05:00:00Z").await;
    two.resetter.run(Trigger::Endpoint).await.unwrap();
    assert_eq!(world.number("select period::bigint from chat_quotas where user_uuid = 'ann'").await, 20_270_430);
    assert_eq!(world.number("select used from chat_quota_months where period = 20270331").await, 100);
    assert_eq!(exhaust(&two, "ann").await, 100);
    two.flush_and_verify().await;
    // Back to calendar months: no allowance on the 1st of May, which is too early.
    anchor(&one, "ann", "free", 1).await;
    world.set_time("2027-05-01T05:00:00Z").await;
    assert_eq!(exhaust(&one, "ann").await, 0);
    world.set_time("2027-06-01T05:00:00Z").await;
    assert_eq!(exhaust(&one, "ann").await, 100);
    assert_eq!(period(&one, "ann").await, ("2027-06".into(), at("2027-07-01T04:00:00Z")));
    one.flush_and_verify().await;
}

#[tokio::test]
async fn a_hold_of_the_old_period_is_charged_to_it_after_a_payment_began_a_new_one() {
    let world = World::at("2027-01-20T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("ann", 90).await);
    let Decision::Allowed(held) = gate.gate.reserve(reserve("ann", 10, 600)).await.unwrap() else { panic!("denied") };
    let held = gate.gate.reservation_id(&held.reservation);
    let plus = Paid {
        id: "evt_1".into(),
        at: at("2027-01-20T12:00:00Z"),
        stage: Stage::Created,
        level: Some("plus"),
        time: (at("2027-01-20T12:00:00Z"), at("2027-02-20T12:00:00Z")),
        anchored_at: at("2027-01-20T12:00:00Z"),
    };
    assert!(apply(&gate, &plus.event("sub_1")).await);
    assert_eq!(period(&gate, "ann").await, ("2027-01-20".into(), at("2027-02-20T00:00:00Z")));
    let commit = Commit { ap: None, tokens: Tokens::new(7).unwrap(), model: None };
    let committed = gate.gate.commit(&held, commit).await.unwrap().now().unwrap();
    assert_eq!((committed.charged, committed.overage), (Ap::new(10), Ap::ZERO));
    assert_eq!(exhaust(&gate, "ann").await, 1_000);
    gate.flush_and_verify().await;
    assert_eq!(world.number("select used from chat_quota_months where period = 202701").await, 100);
    assert_eq!(world.number("select monthly_used from chat_quotas").await, 1_000);
}

/// The renewals of a subscription that began on the 28th, each reported twice; then its end.
fn year_of_payments() -> Vec<Paid> {
    let first = at("2026-11-28T14:00:00Z");
    let mut payments: Vec<Paid> = (0..12)
        .map(|month| {
            let start = first + chrono::Months::new(month);
            Paid {
                id: format!("evt_{month}"),
                at: start + TimeDelta::minutes(1),
                stage: if month == 0 { Stage::Created } else { Stage::Running },
                level: Some("plus"),
                time: (start, start + chrono::Months::new(1)),
                anchored_at: first,
            }
        })
        .collect();
    let last = payments.last().unwrap().time;
    payments.push(Paid {
        id: "evt_end".into(),
        at: last.1,
        stage: Stage::Ended,
        level: None,
        time: last,
        anchored_at: first,
    });
    payments
}

#[tokio::test]
async fn a_subscription_of_the_28th_gets_one_allowance_for_each_payment() {
    let world = World::at("2026-11-27T12:00:00Z", "Asia/Shanghai").await;
    let gates = [world.gate().await, world.gate().await];
    assert_eq!(exhaust(&gates[0], "ann").await, 100, "the free quota of November");
    let mut charged = 0;
    for (number, payment) in year_of_payments().iter().enumerate() {
        let gate = &gates[number % 2];
        // The day of the payment begins before its report.
        world.set_time(&(payment.time.0 - TimeDelta::hours(1)).to_rfc3339()).await;
        charged += exhaust(gate, "ann").await;
        if payment.stage == Stage::Ended {
            world.set_time(&(payment.at - TimeDelta::hours(1)).to_rfc3339()).await;
            gates[1].resetter.run(Trigger::Schedule).await.unwrap();
        }
        world.set_time(&payment.at.to_rfc3339()).await;
        apply(gate, &payment.event("sub_1")).await;
        apply(&gates[(number + 1) % 2], &payment.event("sub_1")).await;
        charged += exhaust(gate, "ann").await;
        gate.flush_and_verify().await;
        if number % 4 == 2 {
            lose_redis(&world, &payment.at.to_rfc3339()).await;
        }
        // In the middle of the paid month, and on the first of a calendar month.
        world.set_time(&(payment.at + TimeDelta::days(5)).to_rfc3339()).await;
        charged += exhaust(gate, "ann").await;
    }
    // Twelve payments, and 100 AP of the free period that begins on the day on which the subscription ended.
    assert_eq!(charged, 12 * 1_000 + 100);
    assert_eq!(world.number("select count(*) from chat_quota_months where period > 1000000").await, 12);
    gates[0].flush_and_verify().await;
}

#[tokio::test]
async fn the_order_of_billing_events_changes_no_allowance() {
    let payments = year_of_payments();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let world = World::at("2027-02-15T12:00:00Z", "UTC").await;
        let gate = world.gate().await;
        assert_eq!(exhaust(&gate, "ann").await, 100);
        let mut charged = 0;
        // All are late: reported together, in the third paid month.
        for number in order {
            apply(&gate, &payments[number].event("sub_1")).await;
            charged += exhaust(&gate, "ann").await;
        }
        for number in order {
            apply(&gate, &payments[number].event("sub_1")).await;
            charged += exhaust(&gate, "ann").await;
        }
        // The period of the first of February has not ended: plus, without what free has used.
        assert_eq!(charged, 900, "{order:?}");
        assert_eq!(period(&gate, "ann").await, ("2027-02".into(), at("2027-03-28T00:00:00Z")), "{order:?}");
        gate.flush_and_verify().await;
    }
}

#[tokio::test]
async fn a_downgrade_waits_for_the_end_of_the_paid_period() {
    let world = World::at("2027-01-20T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    let paid = |id: &str, stage, level, now: &str| Paid {
        id: id.into(),
        at: at(now),
        stage,
        level,
        time: (at("2027-01-20T12:00:00Z"), at("2027-02-20T12:00:00Z")),
        anchored_at: at("2027-01-20T12:00:00Z"),
    };
    apply(&gate, &paid("evt_1", Stage::Created, Some("pro"), "2027-01-20T12:00:00Z").event("sub_1")).await;
    assert!(gate.charges("ann", 2_000).await);
    // An upgrade, a downgrade or a new subscription for the same time begins no other period.
    apply(&gate, &paid("evt_2", Stage::Running, Some("plus"), "2027-01-25T12:00:00Z").event("sub_1")).await;
    apply(&gate, &paid("evt_3", Stage::Ended, None, "2027-01-26T12:00:00Z").event("sub_1")).await;
    apply(&gate, &paid("evt_4", Stage::Created, Some("basic"), "2027-01-27T12:00:00Z").event("sub_2")).await;
    world.set_time("2027-02-19T23:59:59Z").await;
    assert!(gate.charges("ann", 1_000).await && !gate.charges("ann", 1).await);
    world.set_time("2027-02-20T00:00:00Z").await;
    assert!(gate.charges("ann", 300).await && !gate.charges("ann", 1).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn an_imported_user_has_the_imported_anchor_day() {
    let world = World::at("2027-02-15T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    let row = |who: &str, day: Option<u8>| ImportRow {
        user: user(who),
        level: LevelName::parse("free").unwrap(),
        used: Ap::new(40),
        anchor_day: day.map(|day| AnchorDay::new(day).unwrap()),
        windows: vec![],
        grants: vec![],
    };
    let calendar = gate.gate.calendar();
    let now = gate.gate.now();
    let rows = [row("ann", Some(31)), row("bob", None)];
    assert_eq!(gate.postgres.import_users(&rows, calendar, now).await.unwrap().inserted, 2);
    assert_eq!(period(&gate, "ann").await, ("2027-01-31".into(), at("2027-02-28T00:00:00Z")));
    assert_eq!(exhaust(&gate, "ann").await, 60);
    // The same file again changes nothing; another anchor day changes the end of the period, and not what is used.
    assert_eq!(gate.postgres.import_users(&rows, calendar, now).await.unwrap().updated, vec![]);
    let moved = gate.postgres.import_users(&[row("ann", Some(10))], calendar, now).await.unwrap();
    assert_eq!(moved.updated, vec![user("ann")]);
    gate.gate.refresh_level(&user("ann")).await.unwrap();
    assert_eq!(period(&gate, "ann").await, ("2027-01-31".into(), at("2027-03-10T00:00:00Z")));
    assert_eq!(exhaust(&gate, "ann").await, 0);
    gate.flush_and_verify().await;
}
