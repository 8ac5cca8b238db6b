//! The stream of a user's quota delivers every change, whichever gate made it.

use futures_util::{Stream, StreamExt};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use super::process::{Dev, Serve};
use crate::support::{World, eventually};

/// Opens a user's stream; yields each quota with the id of its event.
async fn quotas(gate: &Serve, who: &str) -> impl Stream<Item = (u64, Value)> + Unpin {
    let request = gate.service(Method::GET, "/api/chat/quota/stream").header("X-User-Id", who);
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let pieces = response.bytes_stream().flat_map(move |piece| {
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        let mut events = Vec::new();
        while let Some(end) = text.find("\n\n") {
            let event: String = text.drain(..end + 2).collect();
            let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let (Some(id), Some(data)) = (line("id:"), line("data:")) {
                events.push((id.parse().unwrap(), serde_json::from_str(data).unwrap()));
            }
        }
        futures_util::stream::iter(events)
    });
    Box::pin(pieces)
}

/// Reads until a quota meets the condition. Versions must not fall.
async fn until(
    what: &str,
    stream: &mut (impl Stream<Item = (u64, Value)> + Unpin),
    version: &mut u64,
    is_so: impl Fn(&Value) -> bool,
) -> Value {
    loop {
        let next = timeout(Duration::from_secs(20), stream.next()).await;
        let (id, quota) = next.unwrap_or_else(|_| panic!("not received: {what}")).expect("the stream continues");
        assert!(id >= *version && quota["version"] == id, "{id} after {version}");
        *version = id;
        if is_so(&quota) {
            return quota;
        }
    }
}

#[tokio::test]
async fn every_change_arrives_whichever_gate_made_it() {
    let dev = Dev::start().await;
    let gate = Serve::start(&dev).await;
    let (mut stream, mut version) = (quotas(&gate, "alice").await, 0);
    let first = until("the current quota", &mut stream, &mut version, |_| true).await;
    assert_eq!((&first["remaining"], &first["held"]), (&json!(100), &json!(0)));
    // The other gate makes all these changes.
    let message = |ap: u32| json!({"userUuid": "alice", "sessionId": "s", "ap": ap});
    dev.post("/api/chat/quota/consume", message(7)).await;
    until("a charge", &mut stream, &mut version, |quota| quota["monthlyUsed"] == 7).await;
    let (_, reserved) = dev.post("/api/chat/quota/reservations", message(5)).await;
    until("a hold", &mut stream, &mut version, |quota| quota["held"] == 5).await;
    let id = reserved["reservationId"].as_str().unwrap();
    dev.post(&format!("/api/chat/quota/reservations/{id}/commit"), json!({"ap": 2})).await;
    until("its commit", &mut stream, &mut version, |quota| quota["held"] == 0 && quota["monthlyUsed"] == 9).await;
    let change = json!({"userUuid": "alice", "membershipLevel": "plus"});
    let upgrade = dev.request(Method::PUT, "/api/chat/quota/level").bearer_auth(dev.text("adminToken"));
    upgrade.json(&change).send().await.unwrap();
    until("another level", &mut stream, &mut version, |quota| quota["membershipLevel"] == "plus").await;
    // The expiry of a hold writes nothing.
    let short = json!({"userUuid": "alice", "sessionId": "s", "ap": 4, "ttlSeconds": 1});
    dev.post("/api/chat/quota/reservations", short).await;
    until("a hold", &mut stream, &mut version, |quota| quota["held"] == 4).await;
    until("its expiry", &mut stream, &mut version, |quota| quota["held"] == 0).await;
    // A gate that stops ends its streams; clients reconnect to another gate.
    gate.signal(Signal::SIGTERM);
    let rest = timeout(Duration::from_secs(20), stream.collect::<Vec<_>>()).await;
    assert!(rest.is_ok(), "the stream ends with its gate");
}

#[tokio::test]
async fn a_user_cannot_take_the_streams_of_others() {
    let world = World::new().await;
    let settings = [("QUOTA_GATE__SERVER__QUOTA_STREAMS_PER_USER_MAX", "2")];
    let gate = Serve::on(&world.database, &world.redis.url(), &settings).await;
    let open = async |who: &str| {
        gate.service(Method::GET, "/api/chat/quota/stream").header("X-User-Id", who).send().await.unwrap()
    };
    let streams = [open("alice").await, open("alice").await];
    assert!(streams.iter().all(|stream| stream.status().as_u16() == 200));
    let refused = open("alice").await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"60".parse().unwrap()));
    let problem: Value = refused.json().await.unwrap();
    let detail = "this user has 2 quota streams open: close one, or poll the quota instead";
    assert_eq!((&problem["code"], &problem["detail"]), (&json!("RATE_LIMITED"), &json!(detail)));
    assert_eq!(open("bob").await.status().as_u16(), 200);
    drop(streams);
    eventually("the user's streams have ended", async || open("alice").await.status().as_u16() == 200).await;
}

#[tokio::test]
async fn only_the_user_or_a_token_with_read_scope_gets_a_stream() {
    let dev = Dev::start().await;
    let anonymous = dev.request(Method::GET, "/api/chat/quota/stream").send().await.unwrap();
    assert_eq!(anonymous.status().as_u16(), 401);
    let jwt = dev.jwt("alice");
    let request = || dev.request(Method::GET, "/api/chat/quota/stream").bearer_auth(&jwt);
    assert_eq!(request().send().await.unwrap().status().as_u16(), 200);
    assert_eq!(request().header("X-User-Id", "bob").send().await.unwrap().status().as_u16(), 403);
}
