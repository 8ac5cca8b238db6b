//! The proxy: the outcome of a chat decides its cost.

use std::time::Duration;

use futures_util::{StreamExt, future::join_all};
use nix::sys::signal::Signal;
use quota_gate_dev::ModelServer;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::process::{Serve, answer};
use crate::support::{World, eventually};

const KEY: &str = "the operator's key";

/// A gate in front of a model server, with its own stores.
pub(super) struct Chat<Upstream = ModelServer> {
    pub(super) world: World,
    pub(super) upstream: Upstream,
    pub(super) gate: Serve,
}

impl Chat {
    pub(super) async fn new(settings: &[(&str, &str)]) -> Self {
        let upstream = ModelServer::start(KEY).await.unwrap();
        let world = World::new().await;
        let url = upstream.url();
        let mut all = vec![
            ("QUOTA_GATE__UPSTREAM__URL", url.as_str()),
            ("QUOTA_GATE__UPSTREAM__KEY", KEY),
            ("QUOTA_GATE__MODELS", "{default=5, dear=40}"),
        ];
        all.extend_from_slice(settings);
        let gate = Serve::on(&world.database, &world.redis.url(), &all).await;
        Self { world, upstream, gate }
    }

    pub(super) fn request(&self, who: &str, body: &Value) -> RequestBuilder {
        self.gate.service(Method::POST, "/v1/chat/completions").header("X-User-Id", who).json(body)
    }

    /// Requests a chat completion.
    pub(super) async fn ask(&self, who: &str, model: &str, stream: bool) -> Response {
        self.request(who, &message(model, stream)).send().await.unwrap()
    }

    pub(super) async fn respond(&self, who: &str, model: &str, stream: bool) -> Response {
        let body = json!({"model": model, "stream": stream, "input": "one two three"});
        let request = self.gate.service(Method::POST, "/v1/responses").header("X-User-Id", who).json(&body);
        request.send().await.unwrap()
    }
}

impl<Upstream> Chat<Upstream> {
    /// Used and held AP.
    pub(super) async fn quota(&self, who: &str) -> (u64, u64) {
        let request = self.gate.service(Method::GET, "/api/chat/quota").header("X-User-Id", who);
        let quota: Value = request.send().await.unwrap().json().await.unwrap();
        (quota["monthlyUsed"].as_u64().unwrap(), quota["held"].as_u64().unwrap())
    }

    /// Waits until nothing is held; returns the charged AP.
    pub(super) async fn settled(&self, who: &str) -> u64 {
        eventually("all holds are settled", async || self.quota(who).await.1 == 0).await;
        self.quota(who).await.0
    }

    /// Tokens of the user's charges, once they are in the log.
    pub(super) async fn tokens(&self, who: &str) -> i64 {
        let (charged, _) = self.quota(who).await;
        let sum = |what: &str| {
            format!("select coalesce(sum({what}), 0)::bigint from chat_usage_logs where user_uuid = '{who}'")
        };
        eventually("the charges are flushed", async || {
            u64::try_from(self.world.number(&sum("ap_used")).await).unwrap() == charged
        })
        .await;
        self.world.number(&sum("tokens_used")).await
    }
}

fn message(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "one two three"}]})
}

/// The data of each event.
fn events(text: &str) -> Vec<&str> {
    text.split("\n\n").filter_map(|event| event.split_once("data: ").map(|(_, data)| data)).collect()
}

#[tokio::test]
async fn a_chat_costs_the_price_of_its_model_and_its_tokens_are_counted() {
    let chat = Chat::new(&[]).await;
    let answer = chat.ask("alice", "local:words=4", false).await;
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.headers()["ratelimit"].to_str().unwrap().split(';').nth(1), Some("r=95"));
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["usage"]["total_tokens"], 7);
    assert_eq!(chat.settled("alice").await, 5);
    assert_eq!(chat.tokens("alice").await, 7);

    let text = chat.ask("bob", "dear", true).await.text().await.unwrap();
    assert_eq!(chat.settled("bob").await, 40);
    assert_eq!(chat.tokens("bob").await, 27);
    let events = events(&text);
    assert_eq!(events.last(), Some(&"[DONE]"));
    // A client that did not request usage gets no event with usage only.
    assert!(
        events
            .iter()
            .all(|event| *event == "[DONE]" || serde_json::from_str::<Value>(event).unwrap()["choices"][0].is_object())
    );

    let mut asks = message("local", true);
    asks["stream_options"] = json!({"include_usage": true});
    let text = chat.request("carol", &asks).send().await.unwrap().text().await.unwrap();
    assert!(text.contains(r#""total_tokens":27"#), "{text}");
    assert_eq!((chat.settled("carol").await, chat.tokens("carol").await), (5, 27));

    for (who, stream) in [("dave", false), ("erin", true)] {
        let text = chat.respond(who, "local", stream).await.text().await.unwrap();
        assert!(text.contains("total_tokens"), "{text}");
        assert_eq!((chat.settled(who).await, chat.tokens(who).await), (5, 27));
    }
    let models = chat.gate.service(Method::GET, "/v1/models").header("X-User-Id", "alice").send().await.unwrap();
    assert_eq!(models.json::<Value>().await.unwrap()["data"][0]["id"], "local");
    let asked: Value = serde_json::from_str(r#"{"model":"local","n":2,"messages":[]}"#).unwrap();
    chat.request("frank", &asked).send().await.unwrap().text().await.unwrap();
    assert_eq!(chat.settled("frank").await, 10, "two answers");
}

#[tokio::test]
async fn the_outcome_of_an_answer_decides_its_cost() {
    let chat = Chat::new(&[
        ("QUOTA_GATE__UPSTREAM__IDLE_TIMEOUT_MS", "300"),
        ("QUOTA_GATE__UPSTREAM__HEAD_TIMEOUT_MS", "300"),
    ])
    .await;
    let cases = [
        // An error status, and no answer at all.
        ("status=500", 500, 0),
        ("status=429", 429, 0),
        ("status=400", 400, 0),
        ("status=401", 502, 0),
        ("head-ms=60000", 504, 0),
        // Broken, stalled or failed before any content.
        ("cut=0", 200, 0),
        ("stall=0", 200, 0),
        ("error=0", 200, 0),
        ("garbage", 200, 0),
        // The same after content.
        ("cut=2", 200, 5),
        ("stall=2", 200, 5),
        ("error=2", 200, 5),
        // Complete, but unusual.
        ("no-usage", 200, 5),
        ("odd-usage", 200, 5),
        ("no-done", 200, 5),
        ("words=0", 200, 5),
    ];
    for (number, (behaviour, status, charged)) in cases.iter().enumerate() {
        for api in ["chat", "responses"] {
            let who = format!("{api}-stream-{number}");
            let model = format!("local:pace-ms=1,{behaviour}");
            let answer =
                if api == "chat" { chat.ask(&who, &model, true).await } else { chat.respond(&who, &model, true).await };
            assert_eq!(answer.status().as_u16(), *status, "{who} {behaviour}");
            drop(answer.text().await);
            assert_eq!(chat.settled(&who).await, *charged, "{who} {behaviour}");
        }
        // Without streaming, a partial answer counts as no answer.
        let who = format!("whole-{number}");
        let answer = chat.ask(&who, &format!("local:{behaviour}"), false).await;
        let is_whole =
            status == &200 && !["cut", "stall", "garbage"].iter().any(|broken| behaviour.starts_with(broken));
        match *behaviour {
            "cut=0" => assert_eq!(answer.status().as_u16(), 502),
            "stall=0" => assert_eq!(answer.status().as_u16(), 504),
            _ => assert_eq!(answer.status().as_u16(), *status, "{who} {behaviour}"),
        }
        drop(answer.text().await);
        assert_eq!(chat.settled(&who).await, if is_whole { 5 } else { 0 }, "{who} {behaviour}");
    }
    assert_eq!(chat.upstream.under_way(), 0, "no abandoned request runs at the upstream");
}

#[tokio::test]
async fn a_client_that_disconnects_ends_the_upstream_request_and_pays_as_configured() {
    for (client_gone, charged) in [("charge", 5), ("release", 0)] {
        let chat = Chat::new(&[("QUOTA_GATE__UPSTREAM__CLIENT_GONE", client_gone)]).await;
        let mut answer = chat.ask("alice", "local:stall=3", true).await;
        let mut text = String::new();
        while !text.contains(r#"" is""#) {
            text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
        }
        assert_eq!(chat.quota("alice").await, (0, 5), "held while the answer is streamed");
        drop(answer);
        assert_eq!(chat.settled("alice").await, charged, "{client_gone}");
        // Before any content the answer is free, although the role was sent.
        let mut answer = chat.ask("bob", "local:stall=0", true).await;
        assert!(answer.chunk().await.unwrap().is_some());
        drop(answer);
        assert_eq!(chat.settled("bob").await, 0, "{client_gone}");
        eventually("no request runs at the upstream", async || chat.upstream.under_way() == 0).await;
    }
}

#[tokio::test]
async fn a_stream_that_the_shutdown_cuts_off_costs_what_was_delivered() {
    let mut chat = Chat::new(&[("QUOTA_GATE__SERVER__DRAIN_TIMEOUT_MS", "1000")]).await;
    let mut answer = chat.ask("alice", "local:stall=3", true).await;
    let mut text = String::new();
    while !text.contains(r#"" is""#) {
        text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
    }
    chat.gate.signal(Signal::SIGTERM);
    eventually("the gate ends", async || chat.gate.ended().is_some_and(|status| status.success())).await;
    assert_eq!(chat.world.number("select coalesce(sum(ap_used), 0)::bigint from chat_usage_logs").await, 5);
    assert!(answer.text().await.is_err(), "the client sees that the stream is incomplete");
}

#[tokio::test]
async fn a_message_over_the_quota_is_not_sent_upstream_and_is_refused_as_official_clients_expect() {
    let chat = Chat::new(&[]).await;
    for _ in 0..2 {
        chat.ask("alice", "dear", false).await.text().await.unwrap();
    }
    assert_eq!(chat.settled("alice").await, 80);
    let denied = chat.ask("alice", "dear", true).await;
    assert_eq!(denied.status().as_u16(), 429);
    assert_eq!(denied.headers()["x-should-retry"], "false");
    assert!(!denied.headers().contains_key("retry-after"));
    let error = denied.json::<Value>().await.unwrap()["error"].clone();
    assert_eq!((&error["type"], &error["code"]), (&json!("insufficient_quota"), &json!("QUOTA_EXCEEDED")));
    assert_eq!((&error["required"], &error["remaining"], &error["shortfall"]), (&json!(40), &json!(20), &json!(20)));
    assert_eq!(error["recommendedUpgrade"]["membershipLevel"], "basic");
    let kinds: Vec<&str> =
        error["remedies"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], kinds.last()), ("wait", Some(&"level")), "{error}");
    assert_eq!(chat.upstream.asked(), 2);
}

#[tokio::test]
async fn the_upstream_gets_the_operators_key_and_only_listed_client_headers() {
    let chat = Chat::new(&[]).await;
    let request = chat
        .request("alice", &message("local", false))
        .header("Cookie", "session=1")
        .header("X-Forwarded-For", "192.0.2.1");
    let request = request
        .header("OpenAI-Organization", "theirs")
        .header("OpenAI-Beta", "a=1")
        .header("Connection", "x-hop")
        .header("X-Hop", "1");
    assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
    let seen = chat.upstream.last_headers();
    let mut names: Vec<&str> = seen.keys().map(reqwest::header::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["accept", "accept-encoding", "authorization", "content-length", "content-type", "host", "openai-beta"]
    );
    assert_eq!(seen["authorization"], format!("Bearer {KEY}").as_str());

    let jwt = "eyJhbGciOiJIUzI1NiJ9.e30.AAAA";
    let anonymous = Client::new().post(format!("{}/v1/chat/completions", chat.gate.url)).bearer_auth(jwt);
    let refused = anonymous.json(&message("local", false)).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 401);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["type"], "authentication_error");
    for (body, status) in [("{", 400), (r#"{"model":1}"#, 400), (r#"{"model":"a","model":"b"}"#, 400)] {
        let request = chat.gate.service(Method::POST, "/v1/chat/completions").header("X-User-Id", "alice").body(body);
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status().as_u16(), status, "{body}");
        assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "INVALID_REQUEST");
    }
    assert_eq!(chat.upstream.asked(), 1);
}

#[tokio::test]
async fn a_model_is_looked_up_by_name_and_no_name_reaches_another_upstream_path() {
    let chat = Chat::new(&[]).await;
    let look_up = async |name: &str| {
        let request = chat.gate.service(Method::GET, &format!("/v1/models/{name}")).header("X-User-Id", "alice");
        answer(request).await
    };
    for (name, id) in [("local:words=4", "local:words=4"), ("accounts%2Fx%2F%E6%A8%A1", "accounts/x/模")] {
        let (status, model) = look_up(name).await;
        assert_eq!((status.as_u16(), &model["id"]), (200, &json!(id)));
    }
    for name in ["..%2Ffiles", "a%2f..%2f..%2ffiles", "..%5Cfiles", "..%252Ffiles", "%FF"] {
        let (status, error) = look_up(name).await;
        assert_eq!((status.as_u16(), &error["error"]["code"]), (400, &json!("INVALID_REQUEST")), "{name}");
    }
}

#[tokio::test]
async fn two_hundred_streams_cut_at_any_byte_leave_no_hold_and_cost_what_was_delivered() {
    let chat = Chat::new(&[("QUOTA_GATE__UPSTREAM__IDLE_TIMEOUT_MS", "1000")]).await;
    let behaviours = ["words=20", "cut=3", "error=2", "stall=4", "status=503", "garbage", "cut=0", "words=1"];
    let one = async |number: usize| {
        let who = format!("user-{number}");
        let model = format!("local:pace-ms=1,{}", behaviours[number % behaviours.len()]);
        let answer = chat.ask(&who, &model, true).await;
        // A third of the clients reads to the end; the others disconnect at a random byte.
        let stays = number.is_multiple_of(3);
        let patience = if stays { usize::MAX } else { fastrand::usize(0..4000) };
        let mut text = Vec::new();
        let mut pieces = answer.bytes_stream();
        while text.len() < patience
            && let Ok(Some(Ok(piece))) = timeout(Duration::from_secs(10), pieces.next()).await
        {
            text.extend_from_slice(&piece);
        }
        let text = String::from_utf8_lossy(&text);
        let saw_content = events(&text).iter().any(|event| {
            let event: Value = serde_json::from_str(event).unwrap_or_default();
            event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
        });
        (who, stays, saw_content)
    };
    let mut charged = 0;
    for (who, stays, saw_content) in join_all((0..200).map(one)).await {
        let cost = chat.settled(&who).await;
        // A client that disconnected before it saw content may have had content in flight.
        assert!(
            cost == if saw_content { 5 } else { 0 } || (cost == 5 && !stays),
            "{who}: {cost}, {stays} {saw_content}"
        );
        charged += cost;
    }
    eventually("no request runs at the upstream", async || chat.upstream.under_way() == 0).await;
    eventually("all charges are in the log", async || {
        let sum = chat.world.number("select coalesce(sum(ap_used), 0)::bigint from chat_usage_logs").await;
        u64::try_from(sum).unwrap() == charged
    })
    .await;
}
