//! A gate whose Redis is replaced while another gate serves says so in each place where operators look.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::process::{Serve, answer};
use crate::support::{Detour, World, eventually, redis_like};

#[tokio::test]
async fn a_refused_gate_says_so_and_a_gate_with_another_redis_does_not_start() {
    let world = World::new().await;
    let detour = Detour::to(world.redis.port()).await;
    let moves = Serve::on(&world.database, &detour.url(&world.redis.url(), world.redis.port()), &[]).await;
    let stays = Serve::on(&world.database, &world.redis.url(), &[]).await;
    let ready = async |gate: &Serve| answer(gate.service(Method::GET, "/readyz")).await;
    let consume = async |gate: &Serve| {
        gate.post("/api/chat/quota/consume", json!({"userUuid": "ann", "sessionId": "s", "ap": 1})).await
    };
    assert_eq!(ready(&moves).await.1["otherRedis"], false);
    let other = redis_like(&world.redis).await;
    detour.lead_to(other.port());
    eventually("the moved gate is not ready", async || ready(&moves).await.0 == StatusCode::SERVICE_UNAVAILABLE).await;
    let (_, body) = ready(&moves).await;
    assert_eq!((&body["ready"], &body["otherRedis"], &body["redis"]), (&json!(false), &json!(true), &json!(true)));
    for _ in 0..20 {
        let (status, problem) = consume(&moves).await;
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(detail.contains("other gates use another Redis") && !detail.contains("127.0.0.1"), "{detail}");
    }
    assert_eq!(consume(&stays).await.0, StatusCode::OK);
    let (_, health) = answer(moves.service(Method::GET, "/api/chat/quota/reset")).await;
    assert!(health["problems"].to_string().contains("another Redis"), "{health}");
    let metrics = answer(moves.service(Method::GET, "/metrics")).await.1.as_str().unwrap().to_owned();
    assert!(metrics.contains("quota_gate_redis_conflict 1"), "{metrics}");
    let log = moves.log();
    assert_eq!(log.matches("this gate does not serve").count(), 1, "{log}");
    assert!(!log.contains("Redis has lost data"), "{log}");

    let said = Serve::refused(&world.database, &other.url(), &[]);
    assert!(said.contains("set the same REDIS_URL on all gates") && !said.contains('@'), "{said}");
    detour.lead_to(world.redis.port());
    eventually("the gate serves again", async || {
        ready(&moves).await.0 == StatusCode::OK && consume(&moves).await.0 == StatusCode::OK
    })
    .await;
}
