//! Usage sums equal the log's: over a month, after a repair, and after old months are dropped.

use chrono::{Days, NaiveDate};
use quota_gate::{
    domain::{
        ap::Ap, author::Author, decision::Decision, level::LevelName, level_change::Effective, model_name::ModelName,
    },
    gate::{ChangeLevel, Commit, Consume},
    store::postgres::{ImportRow, TimeUnit, UsageQuery},
};

use crate::support::{GateUnderTest, World, consume, execute, reserve, user};

const MODELS: [&str; 3] = ["", "small", "large"];

fn all(from: &str, to: &str) -> UsageQuery<'static> {
    let day = |text: &str| text.parse::<NaiveDate>().unwrap();
    UsageQuery { from: day(from), to: day(to), by: None, by_level: false, by_model: false, level: None, model: None }
}

/// Sends a day's messages of four users with three models, charged in one step and in two.
async fn a_day(gate: &GateUnderTest, day: u64) {
    for n in 0..12 {
        let who = format!("user-{}", n % 4);
        let model = ModelName::from_column(MODELS[n % 3]).unwrap();
        if (n as u64 + day).is_multiple_of(5) {
            let Ok(Decision::Allowed(held)) = gate.gate.reserve(reserve(&who, 2, 60)).await else { continue };
            let commit = Commit { model, ..Commit::default() };
            gate.gate.commit(&gate.gate.reservation_id(&held.reservation), commit).await.unwrap();
        } else {
            gate.gate.consume(Consume { model, ..consume(&who, 1) }).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_month_of_messages_adds_up_in_the_time_zone_of_the_installation() {
    let world = World::at("2026-01-30T20:00:00Z", "Asia/Shanghai").await;
    let gate = world.gate().await;
    let first: NaiveDate = "2026-01-30".parse().unwrap();
    for day in 0..32 {
        world.set_time(&format!("{}T20:00:00Z", first + Days::new(day))).await;
        a_day(&gate, day).await;
        if day == 10 {
            let level = LevelName::parse("plus").unwrap();
            let author = Author::person("ops", "a test").unwrap();
            let change = ChangeLevel {
                user: user("user-1"),
                level,
                effective: Effective::Now,
                anchor_day: None,
                if_version: None,
                author,
            };
            gate.gate.change_level(change).await.unwrap();
        }
        if day % 7 == 0 {
            gate.flush_and_verify().await;
        }
    }
    gate.flush_and_verify().await;
    // 20:00 UTC is the next day in Shanghai.
    let postgres = &gate.postgres;
    let logged = world.number("select sum(ap_used)::bigint from chat_usage_logs").await;
    let days =
        postgres.usage(&UsageQuery { by: Some(TimeUnit::Day), ..all("2026-01-01", "2026-12-31") }).await.unwrap();
    assert_eq!((days.len(), days[0].day.unwrap().to_string()), (32, "2026-01-31".to_owned()));
    assert_eq!(days.iter().map(|day| day.ap).sum::<i64>(), logged);
    let months =
        postgres.usage(&UsageQuery { by: Some(TimeUnit::Month), ..all("2026-01-01", "2026-12-31") }).await.unwrap();
    let months: Vec<String> = months.iter().map(|month| month.day.unwrap().to_string()).collect();
    assert_eq!(months, ["2026-01-01", "2026-02-01", "2026-03-01"]);
    let levels = UsageQuery { by_level: true, by_model: true, ..all("2026-01-01", "2026-12-31") };
    let rows = postgres.usage(&levels).await.unwrap();
    assert_eq!(rows.len(), 6, "two levels, three models: {rows:?}");
    // Per user, from the log: the same sum.
    let query = UsageQuery { by: Some(TimeUnit::Day), ..all("2026-01-01", "2026-12-31") };
    let mut of_users = 0;
    for n in 0..4 {
        let rows = postgres.usage_of(&user(&format!("user-{n}")), true, &query, gate.gate.calendar()).await.unwrap();
        of_users += rows.iter().map(|row| row.ap).sum::<i64>();
    }
    assert_eq!(of_users, logged);
}

#[tokio::test]
async fn sums_that_differ_from_the_log_are_found_and_repaired() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("ann", 3).await);
    gate.flush_and_verify().await;
    execute(&world.database, "update usage_days set ap = ap + 1").await;
    let verdict = gate.verifier.verify().await.unwrap();
    assert_eq!((verdict.agrees(), verdict.usage_drift[0].missing), (false, (0, -1)));
    assert_eq!(gate.repairer.repair().await.unwrap().usage, 1);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn sums_still_match_after_old_months_of_the_log_are_dropped() {
    let world = World::at("2026-01-15T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    // Sends one message and is never rolled: the row stays in a month that is dropped.
    assert!(gate.charges("idle", 7).await);
    for month in 1..=4 {
        world.set_time(&format!("2026-{month:02}-15T12:00:00Z")).await;
        gate.postgres.ensure_log_partitions(format!("2026-{month:02}-15T12:00:00Z").parse().unwrap(), 0).await.unwrap();
        a_day(&gate, 1).await;
        gate.flush_and_verify().await;
    }
    let first_kept: NaiveDate = "2026-03-01".parse().unwrap();
    let old = gate.postgres.log_partitions_before(first_kept).await.unwrap();
    let names: Vec<&str> = old.iter().map(|partition| partition.name.as_str()).collect();
    assert_eq!(names, ["chat_usage_logs_202601", "chat_usage_logs_202602"]);
    for partition in &old {
        gate.postgres.drop_log_partition(partition).await.unwrap();
    }
    assert_eq!(world.number("select min(period)::bigint from chat_usage_logs").await, 202_603);
    assert_eq!(world.number("select count(distinct day) from usage_days").await, 4, "the usage sums are kept");
    // Charges, flushes and comparisons work as before; differences are still found.
    assert!(gate.charges("user-0", 1).await);
    gate.flush_and_verify().await;
    for (change, back) in [
        (
            "update chat_quotas set monthly_used = monthly_used + 1 where user_uuid = 'user-0'",
            "update chat_quotas set monthly_used = monthly_used - 1 where user_uuid = 'user-0'",
        ),
        (
            "update chat_quotas set total_used = total_used + 1 where user_uuid = 'user-1'",
            "update chat_quotas set total_used = total_used - 1 where user_uuid = 'user-1'",
        ),
        (
            "update usage_days set ap = ap + 1 where day = '2026-04-15'",
            "update usage_days set ap = ap - 1 where day = '2026-04-15'",
        ),
    ] {
        execute(&world.database, change).await;
        assert!(!gate.verifier.verify().await.unwrap().agrees(), "{change}");
        execute(&world.database, back).await;
    }
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn today_counts_messages_and_not_what_an_import_or_a_repair_has_added() {
    let world = World::new().await;
    let gate = world.gate().await;
    let (calendar, now) = (gate.gate.calendar(), gate.gate.now());
    let row = |who: &str| ImportRow {
        user: user(who),
        level: LevelName::parse("free").unwrap(),
        used: Ap::new(40),
        anchor_day: None,
        windows: vec![],
        grants: vec![],
    };
    gate.postgres.import_users(&[row("alice"), row("bob")], calendar, now).await.unwrap();
    gate.postgres.log_adjustment("alice", calendar.month_at(now).into(), 3, "a repair", now).await.unwrap();
    execute(&world.database, "update chat_quotas set monthly_used = 43, total_used = 43 where user_uuid = 'alice'")
        .await;
    assert!(gate.charges("alice", 5).await);
    let today = async |who: &str| {
        let quota = gate.gate.quota(&user(who)).await.unwrap();
        (quota.used.get(), quota.used_today.get())
    };
    assert_eq!((today("alice").await, today("bob").await), ((48, 5), (40, 0)));
    gate.flush_and_verify().await;
    // Loaded from Postgres again, and answered from Postgres.
    let mut redis = world.redis_connection().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
    assert_eq!((today("alice").await, today("bob").await), ((48, 5), (40, 0)));
    let start = calendar.day_start(calendar.day_at(now));
    assert_eq!(gate.postgres.find(&user("alice"), start).await.unwrap().unwrap().used_today.get(), 5);
    assert_eq!(world.number("select coalesce(sum(ap), 0)::bigint from usage_days").await, 5);
    gate.flush_and_verify().await;
}
