//! Meters beside the chat are verified, repaired, swept and forgotten like the chat.

use chrono::TimeDelta;
use quota_gate::{
    audit::forget::{ForgetError, Forgetter, Unsettled},
    domain::{author::Author, level::LevelCode},
    gate::GateError,
};

use super::meters::{charges, gate, hold, images, numbers};
use crate::support::{World, consume, execute, reserve, user};

#[tokio::test]
async fn a_forgotten_user_is_forgotten_on_every_meter() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let images = images(&gate);
    assert!(charges(&images, "alice", 4).await);
    let held = hold(&images, reserve("alice", 1, 60)).await;
    let forgetter = Forgetter::new(&gate.gate);
    let author = Author::person("ops", "a test").unwrap();
    let levels = gate.gate.levels();
    let flush = async |partition| {
        gate.flusher.flush_partition(partition, &levels).await.map(drop).map_err(|error| error.to_string())
    };
    let refused = forgetter.forget(&user("alice"), Unsettled::Refuse, &author, flush).await;
    assert!(matches!(refused, Err(ForgetError::LiveHolds(1))), "{refused:?}");
    assert!(gate.charges("alice", 1).await && charges(&images, "alice", 1).await, "a refusal changes nothing");
    images.release(&images.reservation_id(&held.reservation)).await.unwrap();
    let pseudonym = forgetter.forget(&user("alice"), Unsettled::Refuse, &author, flush).await.unwrap();
    assert!(matches!(images.consume(consume("alice", 1)).await, Err(GateError::Forgotten)));
    assert_eq!(numbers(&images, pseudonym.as_str()).await, (10, 5, 0));
    assert_eq!(world.number("select count(*) from meter_usage where user_uuid = 'alice'").await, 0);
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn verify_finds_what_differs_on_a_meter_and_repair_makes_it_agree() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let images = images(&gate);
    assert!(charges(&images, "alice", 5).await && charges(&images, "bob", 3).await && gate.charges("bob", 2).await);
    gate.flush_and_verify().await;
    execute(&world.database, "update meter_usage set used = used - 2, total = total - 2 where user_uuid = 'alice'")
        .await;
    let verdict = gate.verifier.verify().await.unwrap();
    let drift = verdict.meter_drift.iter().map(|drift| (drift.user.as_str(), drift.meter.get(), drift.total));
    assert_eq!(drift.collect::<Vec<_>>(), [("alice", 1, (5, 3))]);
    let differs = verdict.differences.iter().map(|found| (found.user.as_str(), found.meter.get(), found.used));
    assert_eq!(differs.collect::<Vec<_>>(), [("alice", 1, (5, 3))]);
    assert_eq!(gate.repairer.repair().await.unwrap().meters, 1);
    gate.flush_and_verify().await;

    // Postgres has lost everything of a user's images: what Redis has is logged again.
    execute(&world.database, "delete from chat_usage_logs where meter = 1 and user_uuid = 'bob'").await;
    execute(&world.database, "delete from meter_usage where user_uuid = 'bob'").await;
    let found = gate.verifier.verify().await.unwrap().differences;
    assert_eq!(found.iter().map(|found| (found.user.as_str(), found.used)).collect::<Vec<_>>(), [("bob", (3, 0))]);
    gate.repairer.repair().await.unwrap();
    gate.flush_and_verify().await;
    assert_eq!((numbers(&images, "bob").await.1, numbers(&gate.gate, "bob").await.1), (3, 2));
}

#[tokio::test]
async fn a_record_of_a_meter_that_lacks_charges_or_has_another_level_is_found_and_repaired() {
    let world = World::new().await;
    let gate = gate(&world).await;
    let images = images(&gate);
    assert!(charges(&images, "alice", 5).await);
    gate.flush_and_verify().await;
    let record = format!("qg:{{{}}}:n:\u{1}alice", gate.gate.partitions().of(&user("alice")));
    // The last byte of `used`, and the level.
    for (at, byte) in [(21, 2_u8), (8, LevelCode::new(3).unwrap().get())] {
        let mut set = redis::cmd("SETRANGE");
        set.arg(&record).arg(at).arg(&[byte]);
        set.query_async::<()>(&mut world.redis_connection().await).await.unwrap();
    }
    let verdict = gate.verifier.verify().await.unwrap();
    assert_eq!(
        verdict.differences.iter().map(|found| (found.meter.get(), found.used)).collect::<Vec<_>>(),
        [(1, (2, 5))]
    );
    assert_eq!(verdict.level_drift.iter().map(|found| found.meter.get()).collect::<Vec<_>>(), [1]);
    gate.repairer.repair().await.unwrap();
    assert_eq!(numbers(&images, "alice").await, (10, 5, 0));
    gate.flush_and_verify().await;
}

#[tokio::test]
async fn an_idle_record_of_a_meter_is_swept_and_loaded_again() {
    let world = World::at("2026-11-10T12:00:00Z", "UTC").await;
    let gate = gate(&world).await;
    let images = images(&gate);
    assert!(charges(&images, "alice", 5).await && gate.charges("alice", 1).await);
    gate.flush_and_verify().await;
    world.set_time(&(world.clock.now() + TimeDelta::days(80)).to_rfc3339()).await;
    assert_eq!(gate.sweeper.sweep().await.unwrap().deleted, 2);
    assert_eq!(images.quota(&user("alice")).await.unwrap().total_used, 5);
    gate.flush_and_verify().await;
}
