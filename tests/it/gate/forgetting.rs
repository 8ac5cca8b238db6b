//! Forgetting a user: the id disappears from both stores, the sums stay, and nothing brings the id back.

use std::collections::BTreeMap;

use chrono::DateTime;
use quota_gate::{
    audit::forget::{ForgetError, Forgetter, Unsettled},
    domain::{
        ap::Ap,
        author::Author,
        decision::Decision,
        level::LevelName,
        own_quota::{OwnQuota, UserChange},
        partition::Partition,
        subscription::{PriceLevels, Stage, SubscriptionEvent, Terms},
        user_id::UserId,
    },
    gate::{ChangeUser, Commit, GateError},
    store::postgres::{ImportRow, InboxItem, InboxKind, TABLES_WITH_USERS},
};

use crate::support::{GateUnderTest, World, eventually, execute, reserve, user};

pub(super) async fn forget(gate: &GateUnderTest, who: &str, unsettled: Unsettled) -> Result<UserId, ForgetError> {
    let levels = gate.gate.levels();
    let flush = async |partition: Partition| {
        gate.flusher.flush_partition(partition, &levels).await.map(|_| ()).map_err(|error| error.to_string())
    };
    let author = Author::person("ops", "asked for it").unwrap();
    Forgetter::new(&gate.gate).forget(&user(who), unsettled, &author, flush).await
}

async fn hold(gate: &GateUnderTest, who: &str, ap: i64) -> String {
    match gate.gate.reserve(reserve(who, ap, 60)).await.unwrap() {
        Decision::Allowed(reserved) => gate.gate.reservation_id(&reserved.reservation),
        denied => panic!("{denied:?}"),
    }
}

fn event(id: &str, subscription: &str, second: i64, who: &str) -> SubscriptionEvent {
    SubscriptionEvent {
        id: id.into(),
        subscription: subscription.into(),
        at: DateTime::from_timestamp(second, 0).unwrap(),
        stage: Stage::Running,
        terms: Terms { user: user(who), paid_items: Some(vec!["price_plus".into()]) },
        terms_before: None,
        paid_time: None,
    }
}

fn prices() -> PriceLevels {
    PriceLevels::new(&BTreeMap::from([("price_plus".to_owned(), "plus".to_owned())])).unwrap()
}

/// Counts the rows of all tables that contain a text.
async fn rows_with(world: &World, text: &str) -> i64 {
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let mut rows = 0;
    for table in tables {
        // Letters contain bytes.
        let letters =
            if table == "dead_letters" { " or convert_from(payload, 'UTF8') like '%' || $$TEXT$$ || '%'" } else { "" };
        let query = format!("select count(*) from only {table} as row where row::text like '%TEXT%'{letters}");
        rows += world.number(&query.replace("TEXT", text)).await;
    }
    rows
}

async fn keys_with(world: &World, text: &str) -> usize {
    let mut keys = redis::cmd("KEYS");
    keys.arg("*");
    let keys: Vec<Vec<u8>> = keys.query_async(&mut world.redis_connection().await).await.unwrap();
    keys.iter().filter(|key| String::from_utf8_lossy(key).contains(text)).count()
}

#[tokio::test]
async fn the_id_disappears_from_every_table_and_the_sums_stay() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = world.gate().await;
    assert!(gate.charges("alice-1", 7).await);
    world.set_time("2026-12-10T12:00:00Z").await;
    assert!(gate.charges("alice-1", 5).await && gate.charges("bob", 3).await);
    assert!(gate.gate.apply_subscription(&event("evt_1", "sub_1", 1, "alice-1"), &prices(), false).await.unwrap());
    // A subscription that has moved to another user.
    let moved = Some(Terms { user: user("alice-1"), paid_items: None });
    let moved = SubscriptionEvent { terms_before: moved, ..event("evt_2", "sub_2", 2, "bob") };
    gate.gate.apply_subscription(&moved, &prices(), false).await.unwrap();
    for statement in [
        "insert into dead_letters (partition, generation, entry_id, event, user_uuid, ap_used, payload, reason, created_at)
         values (0, 1, '1-1', gen_random_uuid(), 'alice-1', 4, '{\"userUuid\": \"alice-1\", \"sessionId\": \"alice-1''s\"}',
                 'about alice-1', now())",
        "insert into notifications (kind, user_uuid, period, membership_level, monthly_quota, monthly_used, created_at, due_at)
         values ('quota.warning', 'alice-1', 202612, 'free', 100, 90, now(), now())",
        "insert into inbox (id, user_uuid, kind, reservation_id, ap, tokens, accepted_at, settled_at)
         values (gen_random_uuid(), 'alice-1', 'commit', 'signed alice-1', 1, 0, now(), now())",
        "insert into rollout_changes (changed_at, changed_by, reason, mode, percentage, always_in, always_out, from_configuration)
         values (now(), 'ops', 'for alice-1', 'enforce', 100, array['alice-1', 'bob'], '{}', false)",
    ] {
        execute(&world.database, statement).await;
    }
    assert!(rows_with(&world, "alice-1").await >= 9 && keys_with(&world, "alice-1").await == 1);

    let pseudonym = forget(&gate, "alice-1", Unsettled::Refuse).await.unwrap();
    assert_eq!(rows_with(&world, "alice-1").await, 0);
    let of_pseudonym = format!("select sum(ap_used) from chat_usage_logs where user_uuid = '{pseudonym}'");
    assert_eq!(world.number(&of_pseudonym).await, 12);
    let audit = format!("select count(*) from user_changes where user_uuid = '{pseudonym}' and kind = 'forgotten'");
    assert_eq!(world.number(&audit).await, 1);
    assert_eq!(world.number("select count(*) from forgotten_users where pseudonym is null").await, 1);
    gate.flush_and_verify().await;
    gate.repairer.repair().await.unwrap();
    assert_eq!(rows_with(&world, "alice-1").await, 0);
    // What is left in Redis expires.
    let mut ttl = redis::cmd("PTTL");
    ttl.arg(format!("qg:{{{}}}:u:alice-1", gate.gate.partitions().of(&user("alice-1"))));
    let ms: i64 = ttl.query_async(&mut world.redis_connection().await).await.unwrap();
    assert!((1..=120_000).contains(&ms), "{ms}");
}

#[tokio::test]
async fn every_table_with_a_user_is_one_that_forget_knows() {
    let world = World::new().await;
    let known = TABLES_WITH_USERS.map(|table| format!("'{table}'")).join(", ");
    let unknown = format!(
        "select count(distinct columns.table_name)
         from information_schema.columns
         join pg_class on pg_class.relname = columns.table_name and not pg_class.relispartition
         where columns.table_schema = 'public'
           and (columns.column_name ~ 'user|session' or columns.column_name in ('always_in', 'sender', 'receiver'))
           and columns.table_name <> 'forgotten_users'
           and columns.table_name not in ({known})"
    );
    assert_eq!(world.number(&unknown).await, 0, "a new table contains users: extend `forget`, its test and the docs");
}

#[tokio::test]
async fn nothing_brings_a_forgotten_id_back() {
    let world = World::new().await;
    let gate = world.gate().await;
    let late = hold(&gate, "alice-1", 5).await;
    let refused = forget(&gate, "alice-1", Unsettled::Refuse).await;
    assert!(matches!(refused, Err(ForgetError::LiveHolds(1))), "{refused:?}");
    assert!(gate.charges("alice-1", 1).await, "a refusal changes nothing");
    forget(&gate, "alice-1", Unsettled::GiveUp).await.unwrap();

    // In the time of the mark, and after it.
    for _ in 0..2 {
        assert!(matches!(gate.consume("alice-1", 1).await, Err(GateError::Forgotten)));
        assert!(matches!(gate.gate.commit(&late, Commit::default()).await, Err(GateError::Forgotten)));
        assert!(matches!(gate.gate.quota_and_holds(&user("alice-1")).await, Err(GateError::Forgotten)));
        assert!(!gate.gate.apply_subscription(&event("evt_1", "sub_1", 1, "alice-1"), &prices(), false).await.unwrap());
        let mut delete = redis::cmd("DEL");
        delete.arg(format!("qg:{{{}}}:u:alice-1", gate.gate.partitions().of(&user("alice-1"))));
        delete.query_async::<()>(&mut world.redis_connection().await).await.unwrap();
    }
    let item = InboxItem {
        id: uuid::Uuid::new_v4(),
        user: user("alice-1"),
        kind: InboxKind::Commit,
        reservation_id: late,
        ap: Ap::new(3),
        tokens: quota_gate::domain::usage::Tokens::ZERO,
        model: None,
        idempotency_key: None,
        meter: quota_gate::domain::meter::MeterCode::CHAT,
        accepted_at: gate.gate.now(),
    };
    assert!(gate.postgres.accept(&item).await.is_err());
    gate.flush_and_verify().await;
    gate.repairer.repair().await.unwrap();
    assert_eq!((rows_with(&world, "alice-1").await, keys_with(&world, "alice-1").await), (0, 0));

    // Until the operator says so.
    assert!(gate.postgres.readmit(&user("alice-1")).await.unwrap());
    assert!(gate.charges("alice-1", 1).await);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn a_user_is_forgotten_in_the_middle_of_traffic_and_no_charge_is_lost() {
    let world = World::new().await;
    let gates = [world.gate().await, world.gate().await];
    let unlimited = UserChange { quota: Some(Some(OwnQuota::UNLIMITED)), blocked: None };
    let author = Author::person("ops", "a test").unwrap();
    let change = ChangeUser { user: user("alice-1"), change: unlimited, if_version: None, author };
    gates[0].gate.change_user(change).await.unwrap();
    let sending = (0..8).map(|number| {
        let gate = gates[number % 2].clone();
        tokio::spawn(async move {
            let mut charged = 0;
            loop {
                match gate.consume("alice-1", 1).await {
                    Ok(Decision::Allowed(_)) => charged += 1,
                    Err(GateError::Forgotten) => return charged,
                    other => panic!("{other:?}"),
                }
            }
        })
    });
    let sending: Vec<_> = sending.collect();
    eventually("the user sends messages", async || {
        gates[0].gate.quota(&user("alice-1")).await.unwrap().used.get() > 100
    })
    .await;
    let pseudonym = forget(&gates[0], "alice-1", Unsettled::GiveUp).await.unwrap();
    let mut charged = 0;
    for task in sending {
        charged += task.await.unwrap();
    }
    gates[0].flush_and_verify().await;
    let logged = format!("select sum(ap_used) from chat_usage_logs where user_uuid = '{pseudonym}'");
    assert_eq!((world.number(&logged).await, rows_with(&world, "alice-1").await), (charged, 0));
}

#[tokio::test]
async fn an_imported_user_leaves_no_digest_in_the_log() {
    let world = World::new().await;
    let gate = world.gate().await;
    let (calendar, now) = (gate.gate.calendar(), gate.gate.now());
    let import = ImportRow {
        user: user("alice-1"),
        level: LevelName::parse("free").unwrap(),
        used: Ap::new(5),
        anchor_day: None,
        windows: vec![],
        grants: vec![],
    };
    gate.postgres.import_users(std::slice::from_ref(&import), calendar, now).await.unwrap();
    let id = "select uuid::text from chat_usage_logs where kind = 'import'";
    let before: String = sqlx::query_scalar(id).fetch_one(&world.pool).await.unwrap();
    forget(&gate, "alice-1", Unsettled::Refuse).await.unwrap();
    let after: String = sqlx::query_scalar(id).fetch_one(&world.pool).await.unwrap();
    assert_ne!(before, after);
    // Another import creates no row.
    gate.postgres.import_users(&[import], calendar, now).await.unwrap();
    assert_eq!(rows_with(&world, "alice-1").await, 0);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn other_users_are_loaded_together_with_a_forgotten_one() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice-1", 1).await);
    forget(&gate, "alice-1", Unsettled::Refuse).await.unwrap();
    let partition = gate.gate.partitions().of(&user("alice-1"));
    let others: Vec<String> = (0..40).map(|n| format!("user-{n}")).collect();
    let of_partition = others.iter().filter(|other| gate.gate.partitions().of(&user(other)) == partition);
    let everyone = of_partition.map(String::as_str).chain(["alice-1"]);
    let decisions = futures_util::future::join_all(everyone.map(|who| gate.consume(who, 1))).await;
    let (last, others) = decisions.split_last().unwrap();
    assert!(matches!(last, Err(GateError::Forgotten)), "{last:?}");
    assert!(others.iter().all(|decision| matches!(decision, Ok(Decision::Allowed(_)))), "{others:?}");
}

#[tokio::test]
async fn a_second_run_completes_an_interrupted_one() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice-1", 5).await);
    Forgetter::new(&gate.gate).forget_halfway(&user("alice-1")).await.unwrap();
    let pseudonym: String =
        sqlx::query_scalar("select pseudonym from forgotten_users").fetch_one(&world.pool).await.unwrap();
    // The charge is not flushed, and the row still has the id: both stores agree all the same.
    assert!(gate.verifier.verify().await.unwrap().agrees());
    assert!(matches!(gate.consume("alice-1", 1).await, Err(GateError::Forgotten)));
    assert_eq!(forget(&gate, "alice-1", Unsettled::Refuse).await.unwrap().as_str(), pseudonym);
    assert_eq!(rows_with(&world, "alice-1").await, 0);
    let verdict = gate.flush_and_verify().await;
    assert_eq!(verdict.users, 1);
}

#[tokio::test]
async fn an_older_copy_of_redis_does_not_bring_the_id_back() {
    let world = World::new().await;
    let gate = world.gate().await;
    assert!(gate.charges("alice-1", 5).await);
    gate.flush_and_verify().await;
    let key = format!("qg:{{{}}}:u:alice-1", gate.gate.partitions().of(&user("alice-1")));
    let mut connection = world.redis_connection().await;
    let old: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
    forget(&gate, "alice-1", Unsettled::Refuse).await.unwrap();
    redis::cmd("SET").arg(&key).arg(old).query_async::<()>(&mut connection).await.unwrap();
    assert!(gate.verifier.verify().await.unwrap().agrees());
    gate.repairer.repair().await.unwrap();
    assert_eq!(rows_with(&world, "alice-1").await, 0);
}
