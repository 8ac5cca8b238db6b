//! Imports with running windows and grants: both stores have them, also after a loss of Redis, and a second import
//! changes nothing.

use chrono::{DateTime, Utc};
use quota_gate::{
    domain::{
        ap::Ap,
        decision::Decision,
        level::{LevelName, LevelTerms},
        meter::MeterCode,
        new_grant::{ExternalId, GrantSource, NewGrant, Priority},
        window::{LevelLimits, WindowKey, WindowState, WindowUnit},
    },
    jobs::{grant_sync::GrantSync, job::Job},
    store::postgres::{ImportReport, ImportRow, ImportedGrant},
};

use crate::support::{GateUnderTest, World, user};

const NOW: &str = "2026-11-10T12:00:00Z";

fn row(who: &str, level: &str, used: u32) -> ImportRow {
    ImportRow {
        user: user(who),
        level: LevelName::parse(level).unwrap(),
        used: Ap::new(used),
        anchor_day: None,
        windows: vec![],
        grants: vec![],
    }
}

fn window(every: &str, unit: WindowUnit, used: u32, start: &str) -> WindowState {
    WindowState { key: WindowKey::parse(every, unit).unwrap(), start: start.parse().unwrap(), used }
}

fn grant(who: &str, ap: i64, id: &str, expires_at: Option<&str>) -> ImportedGrant {
    let grant = NewGrant {
        meter: MeterCode::CHAT,
        user: user(who),
        ap: NewGrant::ap(ap).unwrap(),
        expires_at: expires_at.map(|at| at.parse().unwrap()),
        priority: Priority::DEFAULT,
        source: GrantSource::parse("pack").unwrap(),
        external_id: ExternalId::parse(id).unwrap(),
    };
    ImportedGrant { grant, reason: String::new() }
}

async fn import(gate: &GateUnderTest, rows: &[ImportRow]) -> ImportReport {
    let (calendar, now) = (gate.gate.calendar(), gate.gate.now());
    gate.postgres.import_users(rows, calendar, now).await.unwrap()
}

/// Name and use of each limit beside the quota.
async fn limits(gate: &GateUnderTest, who: &str) -> Vec<(String, u32)> {
    let quota = gate.gate.quota(&user(who)).await.unwrap();
    let end = gate.gate.calendar().period_end(quota.period, quota.anchor_day);
    quota.limit_states(end).iter().skip(1).map(|state| (state.limit.name(), state.used)).collect()
}

/// Empties Redis, and sets its manual clock again.
async fn lose_redis(world: &World) {
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
    world.set_time(NOW).await;
}

async fn with_windows(world: &World) -> GateUnderTest {
    let limits = LevelLimits::parse("5h ap 80, 7d ap 400, 1m requests 20", None).unwrap();
    let levels = vec![(LevelName::parse("plus").unwrap(), LevelTerms { quota: Ap::new(1_000), limits })];
    world.gate_with(|tuning| tuning.levels = levels).await
}

#[tokio::test]
async fn imported_windows_run_on_and_are_rebuilt_after_a_loss() {
    let world = World::at(NOW, "UTC").await;
    let gate = with_windows(&world).await;
    let windows = vec![
        window("5h", WindowUnit::Ap, 30, "2026-11-10T11:00:00Z"),
        window("7d", WindowUnit::Ap, 390, "2026-11-05T00:00:00Z"),
        window("1m", WindowUnit::Requests, 19, "2026-11-10T11:58:59Z"),
    ];
    // The period of bob has just begun; what his windows have counted is of the one before.
    let rows = [
        ImportRow { windows: windows.clone(), ..row("ann", "plus", 40) },
        ImportRow { windows: windows[..1].to_vec(), ..row("bob", "plus", 0) },
    ];
    assert_eq!(import(&gate, &rows).await.inserted, 2);
    let used =
        |of_5h, of_7d, of_1m| [("1m-requests".to_owned(), of_1m), ("5h".to_owned(), of_5h), ("7d".to_owned(), of_7d)];
    assert_eq!(limits(&gate, "ann").await, used(30, 390, 0), "the minute is over");
    assert_eq!(limits(&gate, "bob").await, used(30, 0, 0));
    assert!(gate.charges("ann", 10).await && gate.charges("bob", 50).await);
    for (who, name, retry) in [("ann", "7d", "2026-11-12T00:00:00Z"), ("bob", "5h", "2026-11-10T16:00:00Z")] {
        let Decision::Denied(denied) = gate.consume(who, 1).await.unwrap() else { panic!("{who}") };
        let binding = denied.binding(gate.gate.calendar());
        let names: Vec<String> = binding.iter().map(|binding| binding.state.limit.name()).collect();
        assert_eq!(
            (names, denied.retry_at(gate.gate.calendar())),
            (vec![name.to_owned()], Some(retry.parse::<DateTime<Utc>>().unwrap()))
        );
    }
    gate.flush_and_verify().await;

    lose_redis(&world).await;
    assert_eq!(limits(&gate, "ann").await, used(40, 400, 1));
    assert_eq!(limits(&gate, "bob").await, used(80, 50, 1));
    gate.flush_and_verify().await;
    let unchanged = import(&gate, &rows).await;
    assert_eq!(unchanged, ImportReport::default());
    world.set_time("2026-11-10T16:00:00Z").await;
    assert!(gate.charges("bob", 80).await && !gate.charges("ann", 1).await);
    gate.flush_and_verify().await;
    let counted = "select sum(counts.counted)::bigint from chat_usage_logs cross join window_counts(windows) as counts where kind = 'import'";
    assert_eq!(world.number(counted).await, 30 + 390 + 30);
}

#[tokio::test]
async fn imported_grants_are_made_once_and_reach_redis() {
    let world = World::at(NOW, "UTC").await;
    let gate = world.gate().await;
    // Redis knows bob, and not ann.
    assert!(gate.charges("bob", 100).await && !gate.charges("bob", 1).await);
    let over = Some("2026-11-10T11:59:59Z");
    let of = |who: &str, ap| ImportRow {
        grants: vec![
            grant(who, ap, "o-1", Some("2026-11-20T00:00:00Z")),
            grant(who, 5, "o-2", None),
            grant(who, 9, "o-3", over),
        ],
        ..row(who, "free", 60)
    };
    let first = import(&gate, &[of("ann", 50), of("bob", 50)]).await;
    assert_eq!((first.inserted, first.grants, first.given), (1, 4, vec![user("bob")]));
    let mut sync = GrantSync::new(&gate.gate);
    sync.step().await.unwrap();
    assert!(gate.charges("bob", 30).await && gate.charges("ann", 70).await);
    gate.flush_and_verify().await;
    // The file is exported again, with what is left.
    let again = import(&gate, &[of("ann", 20), of("bob", 20)]).await;
    assert_eq!(again, ImportReport::default());
    lose_redis(&world).await;
    assert!(gate.charges("bob", 25).await && !gate.charges("bob", 1).await);
    assert!(gate.charges("ann", 25).await && !gate.charges("ann", 1).await);
    gate.flush_and_verify().await;
    assert_eq!(
        world.number("select count(*) from user_changes where kind = 'granted' and changed_by = 'import'").await,
        4
    );
    assert_eq!(world.number("select count(distinct (user_uuid, number)) from grants where charged > 0").await, 4);
}

#[tokio::test]
async fn a_user_with_too_many_grants_is_not_imported_at_all() {
    let world = World::at(NOW, "UTC").await;
    let gate = world.gate().await;
    let many = |from: u32, count: u32| (from..from + count).map(|n| grant("ann", 1, &format!("o-{n}"), None)).collect();
    assert_eq!(import(&gate, &[ImportRow { grants: many(0, 31), ..row("ann", "free", 0) }]).await.grants, 31);
    // One of them is known, two are new.
    let more = ImportRow { grants: many(30, 3), ..row("ann", "plus", 0) };
    let refused = import(&gate, &[more, ImportRow { ..row("bob", "plus", 3) }]).await;
    assert_eq!((refused.refused, refused.updated, refused.grants, refused.inserted), (vec![user("ann")], vec![], 0, 1));
    let fits = ImportRow { grants: many(30, 2), ..row("ann", "plus", 0) };
    let report = import(&gate, &[fits]).await;
    assert_eq!((report.grants, report.updated), (1, vec![user("ann")]));
}
