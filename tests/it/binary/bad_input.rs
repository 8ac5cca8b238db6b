//! Bad input of every kind gets the right code and changes nothing.

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::process::{Dev, answer};

const CONSUME: &str = "/api/chat/quota/consume";

async fn post_text(dev: &Dev, path: &str, body: impl Into<String>) -> (StatusCode, Value) {
    answer(dev.service(Method::POST, path).header(header::CONTENT_TYPE, "application/json").body(body.into())).await
}

/// The version of alice's quota: every charge changes it.
async fn state(dev: &Dev) -> Value {
    answer(dev.service(Method::GET, "/api/chat/quota").header("X-User-Id", "alice")).await.1["version"].clone()
}

#[tokio::test]
async fn invalid_bodies_are_refused_and_change_nothing() {
    let dev = Dev::start().await;
    let before = state(&dev).await;
    let with = |member: &str, value: Value| {
        let mut body = json!({"userUuid": "alice", "sessionId": "s", "ap": 1, "tokens": 1});
        body[member] = value;
        body.to_string()
    };
    let mut bodies: Vec<String> = Vec::new();
    for id in ["", "{alice}", "a b", "a\0", "a\nb", "ä", "a/b", &"a".repeat(129)] {
        bodies.push(with("userUuid", json!(id)));
    }
    for id in ["", "a\0", "\u{1b}[31m", &"s".repeat(129)] {
        bodies.push(with("sessionId", json!(id)));
    }
    for ap in
        [json!(0), json!(-1), json!(1.5), json!(1_000_001), json!(1_000_000_000), json!("1"), json!(true), json!([1])]
    {
        bodies.push(with("ap", ap));
    }
    for tokens in [json!(-1), json!(1.5), json!(2_147_483_648_u64), json!(u64::MAX), json!("1")] {
        bodies.push(with("tokens", tokens));
    }
    bodies.push(with("AP", json!(1)));
    bodies.extend(
        ["", "{", "[]", "null", "\"x\"", "{\"userUuid\":\"alice\"}", "{\"sessionId\":\"s\"}"].map(str::to_owned),
    );
    bodies.push("{\"userUuid\":\"alice\",\"sessionId\":\"s\",\"ap\":1e400}".to_owned());
    bodies.push("[".repeat(10_000));
    for body in bodies {
        let (status, problem) = post_text(&dev, CONSUME, body.clone()).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::BAD_REQUEST, &json!("INVALID_REQUEST")),
            "{body} {problem}"
        );
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    }
    assert_eq!(state(&dev).await, before);
}

#[tokio::test]
async fn oversized_bodies_wrong_content_types_methods_and_paths_have_their_own_codes() {
    let dev = Dev::start().await;
    let large = json!({"userUuid": "alice", "sessionId": "s".repeat(1 << 20)}).to_string();
    let (status, problem) = post_text(&dev, CONSUME, large).await;
    assert_eq!((status, &problem["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("PAYLOAD_TOO_LARGE")));

    let body = json!({"userUuid": "alice", "sessionId": "s"}).to_string();
    let form = dev.service(Method::POST, CONSUME).header(header::CONTENT_TYPE, "text/plain").body(body);
    let (status, problem) = answer(form).await;
    assert_eq!((status, &problem["code"]), (StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!("UNSUPPORTED_MEDIA_TYPE")));

    let response = dev.service(Method::DELETE, CONSUME).send().await.unwrap();
    assert_eq!(response.headers()[header::ALLOW], "POST");
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.json::<Value>().await.unwrap()["code"], "METHOD_NOT_ALLOWED");

    let (status, problem) = answer(dev.service(Method::GET, "/api/chat/quotas")).await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("NOT_FOUND")));

    let unknown = format!("/api/chat/quota/reservations/{}/commit", "A".repeat(120));
    let (status, problem) = post_text(&dev, &unknown, "{}").await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("NOT_FOUND")));
    for ttl in [0, -1, 901] {
        let body = json!({"userUuid": "alice", "sessionId": "s", "ttlSeconds": ttl}).to_string();
        assert_eq!(post_text(&dev, "/api/chat/quota/reservations", body).await.0, StatusCode::BAD_REQUEST);
    }
    let (status, _) = answer(dev.service(Method::GET, "/api/chat/quota")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "a service must name a user");
    let lookalike = dev.service(Method::GET, "/api/chat/quota").header("X-User-Id", "alice").header("X_User_Id", "bob");
    assert_eq!(answer(lookalike).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn too_many_and_too_long_headers_are_refused() {
    let dev = Dev::start().await;
    let mut many = dev.request(Method::GET, "/healthz");
    for n in 0..100 {
        many = many.header(format!("x-{n}"), "y");
    }
    assert_eq!(many.send().await.unwrap().status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let long = dev.request(Method::GET, "/healthz").header("x-long", "y".repeat(100_000));
    // The server closes before it has read everything, so the client gets the answer or an error.
    assert!(
        long.send().await.map_or(true, |response| response.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    );
    assert_eq!(answer(dev.request(Method::GET, "/healthz")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_level_that_does_not_exist_is_refused() {
    let dev = Dev::start().await;
    let put = async |body: Value| {
        answer(dev.request(Method::PUT, "/api/chat/quota/level").bearer_auth(dev.text("adminToken")).json(&body)).await
    };
    for body in [
        json!({"userUuid": "alice", "membershipLevel": "gold"}),
        json!({"userUuid": "alice", "membershipLevel": "Plus"}),
        json!({"userUuid": "alice", "membershipLevel": "plus", "effective": "later"}),
        json!({"userUuid": "alice"}),
    ] {
        let (status, problem) = put(body.clone()).await;
        assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("INVALID_REQUEST")), "{body}");
    }
    let (status, changed) = put(json!({"userUuid": "alice", "membershipLevel": "plus"})).await;
    assert_eq!((status, &changed["quota"]["monthlyQuota"]), (StatusCode::OK, &json!(1000)));
    let (_, changed) = put(json!({"userUuid": "alice", "membershipLevel": "free"})).await;
    assert_eq!(
        (&changed["quota"]["monthlyQuota"], &changed["pending"]["membershipLevel"]),
        (&json!(1000), &json!("free"))
    );
    let (_, changed) = put(json!({"userUuid": "alice", "membershipLevel": "free", "effective": "now"})).await;
    assert_eq!((&changed["quota"]["monthlyQuota"], &changed["pending"]), (&json!(100), &Value::Null));
}
