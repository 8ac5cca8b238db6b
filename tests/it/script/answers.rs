//! Memory of the answers to requests with an Idempotency-Key.

use quota_gate::{
    domain::{
        ap::Ap,
        idempotency::IdempotencyKey,
        usage::Tokens,
        user_id::{SessionId, UserId},
    },
    store::redis::{Idempotency, Operation},
};

use quota_gate_dev::RedisServer;
use sha2::{Digest, Sha256};

use super::property::{Harness, fresh_id, seed};
use crate::support;

const ANSWERS: usize = 40_000;
/// Aim of decision 0021.
const BYTES_MAX: i64 = 64;

/// Memory of all buckets with their keys.
async fn memory(connection: &mut redis::aio::MultiplexedConnection) -> i64 {
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("qg:{00}:a:*").query_async(connection).await.unwrap();
    let mut bytes = 0;
    for key in keys {
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
        bytes += usage.query_async::<i64>(connection).await.unwrap();
    }
    bytes
}

/// A consume of 0 AP, under a key.
fn message(user: &UserId, key: Option<&str>) -> Operation {
    Operation::Consume {
        cost: Ap::ZERO,
        event: fresh_id(),
        session: SessionId::parse("s").unwrap(),
        tokens: Tokens::default(),
        model: None,
        idempotency: key.map(|key| {
            let day = std::time::Duration::from_hours(24);
            Idempotency::new(
                (user, quota_gate::domain::meter::MeterCode::CHAT),
                IdempotencyKey::parse(key).unwrap(),
                &[7; 32],
                day,
            )
        }),
    }
}

/// A harness with one user, and a connection.
async fn start(server: &RedisServer) -> (Harness, redis::aio::MultiplexedConnection, UserId) {
    let harness = Harness::start(&server.url(), "UTC").await;
    let mut connection =
        redis::Client::open(server.operator_url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    harness.set_time(&mut connection, "2026-11-10T12:00:00Z".parse().unwrap()).await;
    let user = UserId::parse("alice").unwrap();
    harness.send(&user, Some(seed(&harness)), vec![message(&user, None)]).await;
    (harness, connection, user)
}

#[tokio::test]
async fn an_answer_takes_at_most_64_bytes() {
    let server = support::redis().await;
    let (harness, mut connection, user) = start(&server).await;
    let keys: Vec<String> = (0..ANSWERS).map(|number| format!("{number}-{}", fresh_id())).collect();
    for keys in keys.chunks(800) {
        let answers = harness.send(&user, None, keys.iter().map(|key| message(&user, Some(key))).collect()).await;
        assert!(answers.iter().all(|answer| !answer.replayed));
    }
    let bytes = memory(&mut connection).await / i64::try_from(ANSWERS).unwrap();
    assert!((20..=BYTES_MAX).contains(&bytes), "an answer takes {bytes} bytes");
    let answers = harness.send(&user, None, vec![message(&user, Some(&keys[7]))]).await;
    assert!(answers[0].replayed);
}

#[tokio::test]
async fn a_full_bucket_is_divided_and_stays_packed() {
    let server = support::redis().await;
    let (harness, mut connection, user) = start(&server).await;
    // The first twelve of the bits that choose the bucket are the same.
    let in_one_bucket = |key: &String| {
        let sum = Sha256::digest(format!("alice/{key}"));
        sum[10] == 0x12 && sum[11] & 0xf0 == 0x30
    };
    let keys: Vec<String> = (0..).map(|number: u32| number.to_string()).filter(in_one_bucket).take(1_000).collect();
    for keys in keys.chunks(100) {
        harness.send(&user, None, keys.iter().map(|key| message(&user, Some(key))).collect()).await;
    }
    let buckets: Vec<Vec<u8>> = redis::cmd("KEYS").arg("qg:{00}:a:*").query_async(&mut connection).await.unwrap();
    assert_eq!(buckets.len(), 17, "the bucket and its sixteen parts");
    for bucket in &buckets {
        let mut object = redis::cmd("OBJECT");
        let encoding: String = object.arg("ENCODING").arg(bucket).query_async(&mut connection).await.unwrap();
        assert_eq!(encoding, "listpack");
        let expires_in: i64 = redis::cmd("PTTL").arg(bucket).query_async(&mut connection).await.unwrap();
        assert!(expires_in > 86_400_000, "{expires_in}");
    }
    for keys in keys.chunks(100) {
        let again = harness.send(&user, None, keys.iter().map(|key| message(&user, Some(key))).collect()).await;
        assert!(again.iter().all(|answer| answer.replayed));
    }
}
