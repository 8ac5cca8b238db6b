//! Costs by tokens: what the proxy holds and charges, and what the HTTP API computes.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    process::{Serve, answer},
    proxy::Chat,
    scripted::{CHAT, DONE, RESPONSES, Reply, STOP, WORD, error_of},
};
use crate::support::{World, eventually};

/// 1 AP for an input token, a tenth for a cached one, 2 for output.
const BY_TOKENS: &str =
    "{default={input=1000000, cached_input=\"100000\", output=2000000}, flat=5, fine={input=0.5, output=0.25}}";
const SETTINGS: [(&str, &str); 2] = [("QUOTA_GATE__MODELS", BY_TOKENS), ("QUOTA_GATE__ESTIMATES__OUTPUT_TOKENS", "10")];

/// Input, cached input and output tokens of the user's only charge, and whether they are estimated.
async fn logged(world: &World, who: &str) -> (i64, i64, i64, bool) {
    let count = format!("select count(*) from chat_usage_logs where user_uuid = '{who}'");
    eventually("the charge is flushed", async || world.number(&count).await == 1).await;
    let number = async |column: &str| {
        let of_user = format!("from chat_usage_logs where user_uuid = '{who}'");
        world.number(&format!("select coalesce({column}, -1)::bigint {of_user}")).await
    };
    let estimated = number("tokens_estimated::int").await == 1;
    (number("input_tokens").await, number("cached_input_tokens").await, number("output_tokens").await, estimated)
}

fn message(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "one two three"}]})
}

/// A token for each four bytes, rounded up.
fn estimate(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}

/// The text of a streamed chat completion.
fn content(events: &str) -> String {
    let chunks = events.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(ToOwned::to_owned)).collect()
}

#[tokio::test]
async fn a_chat_costs_its_reported_tokens_and_cached_ones_count_once() {
    let chat = Chat::new(&SETTINGS).await;
    for (who, stream) in [("alice", false), ("bob", true)] {
        drop(chat.ask(who, "local:words=4,cached=2", stream).await.text().await);
        // 1 + 2 × 0.1 + 4 × 2 = 9.2
        assert_eq!(chat.settled(who).await, 10, "{who}");
        assert_eq!(logged(&chat.world, who).await, (3, 2, 4, false), "{who}");
    }
    for (who, stream) in [("carol", false), ("dave", true)] {
        drop(chat.respond(who, "local:words=4,cached=3", stream).await.text().await);
        assert_eq!(chat.settled(who).await, 9, "{who}: 0.3 + 8");
        assert_eq!(logged(&chat.world, who).await, (3, 3, 4, false), "{who}");
    }
    // The minimum is 1.
    drop(chat.ask("erin", "fine", false).await.text().await);
    assert_eq!(chat.settled("erin").await, 1);
    // A flat price charges as ever, and its kinds are not stored.
    drop(chat.ask("grace", "flat", false).await.text().await);
    assert_eq!((chat.settled("grace").await, chat.tokens("grace").await), (5, 27));
    assert_eq!(logged(&chat.world, "grace").await, (-1, -1, -1, false));
}

#[tokio::test]
async fn the_estimate_is_held_and_what_was_delivered_of_a_cut_answer_is_charged() {
    let chat = Chat::new(&SETTINGS).await;
    let size = estimate(serde_json::to_vec(&message("local:pace-ms=1,cut=3", true)).unwrap().len());
    for (who, behaviour) in [("alice", "cut=3"), ("bob", "error=3")] {
        let model = format!("local:pace-ms=1,{behaviour}");
        let input = estimate(serde_json::to_vec(&message(&model, true)).unwrap().len());
        let mut answer = chat.ask(who, &model, true).await;
        let mut text = Vec::new();
        while let Ok(Some(piece)) = answer.chunk().await {
            text.extend_from_slice(&piece);
        }
        let output = estimate(content(&String::from_utf8(text).unwrap()).len());
        assert!(output > 0);
        assert_eq!(chat.settled(who).await, input + 2 * output, "{who}");
        let (input, output) = (i64::try_from(input).unwrap(), i64::try_from(output).unwrap());
        assert_eq!(logged(&chat.world, who).await, (input, 0, output, true), "{who}");
    }
    assert!(size > 20);

    // Nothing was delivered, so nothing is charged.
    drop(chat.ask("carol", "local:cut=0", true).await.text().await);
    assert_eq!(chat.settled("carol").await, 0);

    // The client is gone: what it got is charged. While it reads, the estimate of two answers is held.
    let mut body = message("local:stall=3", true);
    (body["n"], body["max_tokens"]) = (json!(2), json!(7));
    let input = estimate(serde_json::to_vec(&body).unwrap().len());
    let mut answer = chat.request("dave", &body).send().await.unwrap();
    let mut text = String::new();
    while content(&text).split_whitespace().count() < 3 {
        text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert_eq!(chat.quota("dave").await, (0, input + 2 * 2 * 7));
    drop(answer);
    assert_eq!(chat.settled("dave").await, input + 2 * estimate(content(&text).len()));

    // Complete, but without a report.
    let input = estimate(serde_json::to_vec(&message("local:words=4,no-usage", true)).unwrap().len());
    let text = chat.ask("erin", "local:words=4,no-usage", true).await.text().await.unwrap();
    assert_eq!(chat.settled("erin").await, input + 2 * estimate(content(&text).len()));
    assert!(logged(&chat.world, "erin").await.3);
}

#[tokio::test]
async fn reports_of_other_upstreams_are_understood() {
    let chat = Chat::scripted(&SETTINGS).await;
    let early = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
    let late = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":9}}\n\n";
    for (who, path, events, ap) in [
        // An early report, corrected by the last one, whose total has tokens of reasoning.
        ("alice", CHAT, &[early, WORD, STOP, late, DONE][..], 3 + 2 * 6),
        // An early report, then the stream breaks off: one token was delivered after it.
        ("bob", CHAT, &[early, WORD, WORD, WORD], 3 + 2 * 3),
        (
            "carol",
            RESPONSES,
            &[
                "data: {\"type\":\"response.output_text.delta\",\"delta\":\"word\"}\n\n",
                "data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"usage\":\
                 {\"input_tokens\":30,\"output_tokens\":1,\"input_tokens_details\":{\"cached_tokens\":30}}}}\n\n",
            ],
            3 + 2,
        ),
    ] {
        let (_, charged) = chat.costs(who, path, true, Reply::events(events)).await;
        assert_eq!(charged, ap, "{who}");
    }
}

#[tokio::test]
async fn the_gate_computes_the_cost_of_tokens_that_a_service_counts() {
    let chat = Chat::scripted(&SETTINGS).await;
    let gate: &Serve = &chat.gate;
    let consume = async |who: &str, rest: Value| {
        let mut body = json!({"userUuid": who, "sessionId": "s"});
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        gate.post("/api/chat/quota/consume", body).await
    };
    let tokens = json!({"model": "m", "inputTokens": 10, "cachedInputTokens": 5, "outputTokens": 2});
    let (status, body) = consume("alice", tokens.clone()).await;
    assert_eq!((status, &body["charged"]), (StatusCode::OK, &json!(10)), "5 + 0.5 + 4, rounded up: {body}");
    assert_eq!(logged(&chat.world, "alice").await, (10, 5, 2, false));
    assert_eq!(chat.tokens("alice").await, 12);
    // A cost that the service names counts, and a flat price computes nothing.
    for (who, rest, charged) in [
        ("bob", json!({"model": "m", "ap": 3, "inputTokens": 10, "outputTokens": 2}), 3),
        ("carol", json!({"model": "flat", "inputTokens": 10, "outputTokens": 2}), 1),
        ("dave", json!({"inputTokens": 10, "outputTokens": 2, "tokens": 12}), 1),
    ] {
        let (_, body) = consume(who, rest).await;
        assert_eq!(body["charged"], json!(charged), "{who}: {body}");
        assert_eq!(logged(&chat.world, who).await, (10, 0, 2, false), "{who}");
    }
    for (rest, reason) in [
        (json!({"model": "m"}), "send inputTokens and outputTokens"),
        (json!({"model": "m", "tokens": 12}), "send inputTokens and outputTokens"),
        (json!({"model": "m", "inputTokens": 1, "cachedInputTokens": 2}), "at most inputTokens"),
        (json!({"model": "m", "inputTokens": 1, "tokens": 2}), "inputTokens + outputTokens (1)"),
        (json!({"model": "m", "outputTokens": -1}), "outputTokens"),
    ] {
        let (status, body) = consume("erin", rest).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(body["detail"].as_str().unwrap().contains(reason), "{body}");
    }

    let reserve = json!({"userUuid": "frank", "sessionId": "s", "ap": 20});
    let (_, held) = gate.post("/api/chat/quota/reservations", reserve).await;
    let commit = format!("/api/chat/quota/reservations/{}/commit", held["reservationId"].as_str().unwrap());
    let (status, body) = gate.post(&commit, tokens.clone()).await;
    assert_eq!((status, &body["charged"]), (StatusCode::OK, &json!(10)), "{body}");
    assert_eq!(gate.post(&commit, tokens).await.1["replayed"], json!(true));
    assert_eq!(logged(&chat.world, "frank").await, (10, 5, 2, false));

    // Forward auth sees no tokens: it holds an estimate.
    let path = "/api/chat/quota/authorize?model=fine&settle=now";
    let (status, _) = answer(gate.service(Method::POST, path).header("X-User-Id", "grace")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(logged(&chat.world, "grace").await, (1_000, 0, 10, true));

    let of_days =
        "select sum(input_tokens * 1000000 + cached_input_tokens * 1000 + output_tokens)::bigint from usage_days";
    let of_log = of_days.replace("usage_days", "chat_usage_logs");
    assert_eq!(chat.world.number(of_days).await, chat.world.number(&of_log).await);
    assert_eq!(chat.world.number("select count(*) from usage_drift()").await, 0);
    assert_eq!(chat.world.number("select sum(input_tokens)::bigint from usage_days").await, 1_050);
}

#[tokio::test]
async fn a_repeated_consume_with_other_kinds_of_tokens_is_another_request() {
    let chat = Chat::scripted(&SETTINGS).await;
    let consume = async |cached: u32| {
        let body =
            json!({"userUuid": "alice", "sessionId": "s", "ap": 2, "inputTokens": 9, "cachedInputTokens": cached});
        let request = chat.gate.service(Method::POST, "/api/chat/quota/consume").header("Idempotency-Key", "k");
        answer(request.json(&body)).await
    };
    assert_eq!(consume(1).await.1["replayed"], json!(false));
    assert_eq!(consume(1).await.1["replayed"], json!(true));
    assert_eq!(consume(2).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

/// A free model answers when the quota is exhausted.
const FALLBACK: [(&str, &str); 1] =
    [("QUOTA_GATE__MODELS", "{default=5, dear=40, small=1, free=0, when_exhausted=free}")];

#[tokio::test]
async fn a_free_model_answers_what_the_quota_does_not_cover() {
    let chat = Chat::new(&FALLBACK).await;
    let quota = async || {
        let request = chat.gate.service(Method::GET, "/api/chat/quota").header("X-User-Id", "alice");
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };
    for _ in 0..2 {
        let answer = chat.ask("alice", "dear", false).await;
        assert!(answer.headers().get("x-quota-fallback").is_none());
        drop(answer.text().await);
    }
    assert_eq!(chat.settled("alice").await, 80);
    assert!(quota().await.get("fallback").is_none(), "20 AP are left");

    let mut body = message("dear", true);
    (body["models"], body["temperature"]) = (json!(["dear"]), json!(0.5));
    let answer = chat.request("alice", &body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["x-quota-fallback"], "free");
    assert!(answer.headers()["ratelimit"].to_str().unwrap().contains("r=20"));
    assert!(answer.text().await.unwrap().contains(r#""model":"free""#));
    assert_eq!(chat.settled("alice").await, 80, "the free model costs nothing");
    let free = "select count(*) from chat_usage_logs where model = 'free' and ap_used = 0 and tokens_used = 27";
    eventually("the free message is logged", async || chat.world.number(free).await == 1).await;

    for _ in 0..4 {
        drop(chat.ask("alice", "local", false).await.text().await);
    }
    assert_eq!(chat.settled("alice").await, 100);
    assert_eq!(quota().await["fallback"], json!("free"));
    // The free model itself is allowed without a quota, and is no fallback then.
    let answer = chat.ask("alice", "free", false).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers().get("x-quota-fallback").is_none());
    drop(answer.text().await);
    assert_eq!(chat.settled("alice").await, 100);
}

#[tokio::test]
async fn a_fallback_that_the_quota_does_not_cover_is_refused() {
    let chat = Chat::scripted(&[("QUOTA_GATE__MODELS", "{default=5, dear=40, small=30, when_exhausted=small}")]).await;
    let spent = json!({"userUuid": "alice", "sessionId": "s", "ap": 65});
    chat.gate.post("/api/chat/quota/consume", spent).await;
    chat.answers(Reply::whole(r#"{"choices":[{"message":{"content":"word"},"finish_reason":"stop"}]}"#));
    let answer = chat.send("alice", CHAT, message("dear", false).to_string()).await;
    assert_eq!(answer.headers()["x-quota-fallback"], "small", "35 AP are left");
    drop(answer.text().await);
    assert_eq!(chat.settled("alice").await, 95, "its own price applies");
    assert!(chat.received().2.starts_with(r#"{"model":"small","#));
    let (status, error) = error_of(chat.send("alice", CHAT, message("dear", false).to_string()).await).await;
    assert_eq!((status, &error["code"], &error["required"]), (429, &json!("QUOTA_EXCEEDED"), &json!(40)));
    assert_eq!(chat.asked(), 1);
    let world = &chat.world;
    let refused = Serve::refused(
        &world.database,
        &world.redis.url(),
        &[("QUOTA_GATE__MODELS", "{default=5, unlisted=refuse, when_exhausted=other}")],
    );
    assert!(refused.contains("models.when_exhausted"), "{refused}");
}

#[tokio::test]
async fn a_level_has_only_its_models() {
    let settings = [("QUOTA_GATE__LEVEL_MODELS", "{free=[small, \"loc*\"]}"), FALLBACK[0]];
    let chat = Chat::scripted(&settings).await;
    let small = r#"{"choices":[{"message":{"content":"word"},"finish_reason":"stop"}]}"#;
    chat.answers(Reply::whole(small));
    for refused in [r#"{"model":"dear"}"#, r#"{"model":"small","models":["small","dear"]}"#] {
        let (status, error) = error_of(chat.send("alice", CHAT, refused).await).await;
        assert_eq!((status, &error["code"]), (403, &json!("MODEL_NOT_ALLOWED")), "{refused}");
        assert_eq!(error["type"], json!("permission_error"));
        assert!(error["message"].as_str().unwrap().contains("level free does not include the model dear"), "{error}");
    }
    assert_eq!((chat.asked(), chat.quota("alice").await), (0, (0, 0)));
    for allowed in [r#"{"model":"openai/Small-2024-11-20"}"#, r#"{"model":"local"}"#] {
        assert_eq!(chat.send("alice", CHAT, allowed).await.status(), StatusCode::OK, "{allowed}");
    }
    assert_eq!(chat.settled("alice").await, 6);

    let body = json!({"userUuid": "alice", "sessionId": "s", "model": "dear"});
    let (status, problem) = chat.gate.post("/api/chat/quota/consume", body).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(problem["type"], json!("urn:quota-gate:problem:model-not-allowed"));
    for (model, status) in [("dear", StatusCode::FORBIDDEN), ("small", StatusCode::OK)] {
        let path = format!("/api/chat/quota/authorize?model={model}&settle=now");
        let (answered, _) = answer(chat.gate.service(Method::POST, &path).header("X-User-Id", "alice")).await;
        assert_eq!(answered, status, "{model}");
    }
    assert_eq!(chat.settled("alice").await, 7);
    // The fallback is not for this level.
    let spent = json!({"userUuid": "alice", "sessionId": "s", "ap": 93});
    chat.gate.post("/api/chat/quota/consume", spent).await;
    assert_eq!(chat.send("alice", CHAT, r#"{"model":"small"}"#).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let quota = chat.gate.service(Method::GET, "/api/chat/quota").header("X-User-Id", "alice").send().await.unwrap();
    assert!(quota.json::<Value>().await.unwrap().get("fallback").is_none());
}
