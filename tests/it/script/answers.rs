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

use super::property::{Harness, fresh_id, seed};
use crate::support;

const ANSWERS: usize = 40_000;
/// Aim of decision 0021.
const BYTES_MAX: i64 = 64;

/// Memory of the data. `used_memory` also counts buffers, but those do not grow between two calls of one connection.
async fn memory(connection: &mut redis::aio::MultiplexedConnection) -> i64 {
    let info: String = redis::cmd("INFO").arg("memory").query_async(connection).await.unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    used.trim().parse().unwrap()
}

#[tokio::test]
async fn an_answer_takes_at_most_64_bytes() {
    let server = support::redis().await;
    let harness = Harness::start(&server.url(), "UTC").await;
    let mut connection = redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    harness.set_time(&mut connection, "2026-11-10T12:00:00Z".parse().unwrap()).await;
    let user = UserId::parse("alice").unwrap();
    let consume = |key: Option<String>| Operation::Consume {
        cost: Ap::ZERO,
        event: fresh_id(),
        session: SessionId::parse("s").unwrap(),
        tokens: Tokens::default(),
        model: None,
        idempotency: key.map(|key| {
            let day = std::time::Duration::from_hours(24);
            Idempotency::new(&user, IdempotencyKey::parse(&key).unwrap(), &[7; 32], day)
        }),
    };
    harness.send(&user, Some(seed(&harness)), vec![consume(None)]).await;
    let trim = async |connection: &mut redis::aio::MultiplexedConnection| {
        let _: i64 =
            redis::cmd("XTRIM").arg("qg:{00}:ev:1").arg("MAXLEN").arg(1).query_async(connection).await.unwrap();
    };
    trim(&mut connection).await;
    let before = memory(&mut connection).await;
    let keys: Vec<String> = (0..ANSWERS).map(|number| format!("{number}-{}", fresh_id())).collect();
    for keys in keys.chunks(800) {
        let answers = harness.send(&user, None, keys.iter().map(|key| consume(Some(key.clone()))).collect()).await;
        assert!(answers.iter().all(|answer| !answer.replayed));
        trim(&mut connection).await;
    }
    let bytes = (memory(&mut connection).await - before) / i64::try_from(ANSWERS).unwrap();
    assert!((20..=BYTES_MAX).contains(&bytes), "an answer takes {bytes} bytes");
    let answers = harness.send(&user, None, vec![consume(Some(keys[7].clone()))]).await;
    assert!(answers[0].replayed);
}
