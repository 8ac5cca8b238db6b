//! A statement that waits for a row acts on the row that it then locks, not on the one that it read before.

use quota_gate::{
    domain::{ap::Ap, level::LevelName},
    store::postgres::ImportRow,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{World, eventually, user};

const ROLL: &str = "select roll_chat_quotas(array['alice'], array[202612], array['2027-01-01T00:00:00Z'::timestamptz], '2026-12-01T00:00:00Z')";

/// Changes that another transaction makes while the roll waits for its row, and the level of the row after the roll.
const MEANWHILE: [(&str, &str); 5] = [
    ("update chat_quotas set pending_level = 'basic', level_version = level_version + 1", "basic"),
    (
        "update chat_quotas set membership_level = 'plus', monthly_quota = 1000, level_version = level_version + 1",
        "plus",
    ),
    ("update chat_quotas set membership_level = 'plus', pending_level = 'free', monthly_quota = 1000", "free"),
    ("update chat_quotas set updated_at = updated_at", "free"),
    (ROLL, "free"),
];

/// Waits until this number of statements in the world's database wait for a lock.
async fn until_waiting(world: &World, statements: i64) {
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    eventually("a statement waits for a lock", async || world.number(waiting).await == statements).await;
}

async fn run(connection: &mut PgConnection, statement: &'static str) {
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await.unwrap();
}

#[tokio::test]
async fn a_roll_closes_a_month_once_whatever_happens_while_it_waits_for_the_row() {
    for (meanwhile, level) in MEANWHILE {
        let world = World::at("2026-11-30T12:00:00Z", "UTC").await;
        let gate = world.gate().await;
        assert!(gate.charges("alice", 30).await);
        gate.flush_and_verify().await;
        let mut other = PgConnection::connect(&world.database).await.unwrap();
        let mut holder = other.begin().await.unwrap();
        run(&mut holder, meanwhile).await;
        let mut roller = PgConnection::connect(&world.database).await.unwrap();
        let rolling = tokio::spawn(async move {
            run(&mut roller, ROLL).await;
            // Repeated, as by the next run of the resetter.
            run(&mut roller, ROLL).await;
        });
        until_waiting(&world, 1).await;
        holder.commit().await.unwrap();
        rolling.await.unwrap();
        assert_eq!(world.number("select sum(used)::bigint from chat_quota_months").await, 30, "{meanwhile}");
        let in_december = format!(
            "select count(*) from chat_quotas join membership_levels as levels on levels.name = membership_level
             where name = '{level}' and chat_quotas.monthly_quota = levels.monthly_quota and pending_level is null
               and period = 202612 and monthly_used = 0"
        );
        assert_eq!(world.number(&in_december).await, 1, "{meanwhile}");
        world.set_time("2026-12-01T00:00:01Z").await;
        gate.flush_and_verify().await;
    }
}

#[tokio::test]
async fn a_charge_that_is_flushed_while_a_roll_waits_is_in_the_closed_month() {
    let world = World::at("2026-11-30T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 30).await);
    gate.flush_and_verify().await;
    assert!(gate.charges("alice", 12).await);
    // The flush holds the user's row until it can add to the sums of the day.
    let mut other = PgConnection::connect(&world.database).await.unwrap();
    let mut holder = other.begin().await.unwrap();
    run(&mut holder, "lock table usage_days in exclusive mode").await;
    let flushing = tokio::spawn({
        let flusher = gate.flusher.clone();
        async move { flusher.flush_all().await.unwrap() }
    });
    until_waiting(&world, 1).await;
    let mut roller = PgConnection::connect(&world.database).await.unwrap();
    let rolling = tokio::spawn(async move { run(&mut roller, ROLL).await });
    until_waiting(&world, 2).await;
    holder.commit().await.unwrap();
    flushing.await.unwrap();
    rolling.await.unwrap();
    assert_eq!(world.number("select used from chat_quota_months where period = 202611").await, 42);
    world.set_time("2026-12-01T00:00:01Z").await;
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn an_import_that_waits_for_a_row_closes_its_month_once() {
    let world = World::at("2026-11-30T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice", 30).await);
    gate.flush_and_verify().await;
    world.set_time("2026-12-01T00:00:01Z").await;
    let mut other = PgConnection::connect(&world.database).await.unwrap();
    let mut holder = other.begin().await.unwrap();
    run(&mut holder, "update chat_quotas set membership_level = 'plus', monthly_quota = 1000").await;
    let importing = tokio::spawn({
        let (postgres, calendar, now) = (gate.postgres.clone(), gate.gate.calendar(), gate.gate.now());
        let row = ImportRow {
            user: user("alice"),
            level: LevelName::parse("pro").unwrap(),
            used: Ap::new(7),
            anchor_day: None,
            windows: vec![],
            grants: vec![],
        };
        async move { postgres.import_users(&[row], calendar, now).await.unwrap() }
    });
    until_waiting(&world, 1).await;
    holder.commit().await.unwrap();
    assert_eq!(importing.await.unwrap().updated, [user("alice")]);
    run(&mut other, ROLL).await;
    assert_eq!(world.number("select sum(used)::bigint from chat_quota_months").await, 30);
    assert_eq!(
        world.number("select count(*) from chat_quotas where membership_level = 'pro' and period = 202612").await,
        1
    );
    assert_eq!(
        world.number("select count(*) from user_changes where level_before = 'plus' and level_after = 'pro'").await,
        1
    );
    gate.flush_and_verify().await;
}
