//! The proxy answers in the dialect of OpenAI's API, and passes on what the upstream says about a request.

use std::io::Write;

use flate2::{Compression, write};
use reqwest::{Client, Method};
use serde_json::json;

use super::{
    process::Serve,
    proxy::Chat,
    scripted::{CHAT, DONE, RESPONSES, Reply, SSE, STOP, WORD, error_of},
};

const WHOLE: &str = r#"{"choices":[{"message":{"content":"word"},"finish_reason":"stop"}]}"#;
const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;

#[tokio::test]
async fn every_path_below_v1_has_errors_in_openais_format() {
    let chat = Chat::scripted(&[("QUOTA_GATE__UPSTREAM__BODY_BYTES_MAX", "1024")]).await;
    for (method, path, expected) in [
        (Method::GET, "/v1", 404),
        (Method::GET, "/v1/", 404),
        (Method::POST, "/v1/embeddings", 404),
        (Method::GET, "/v1/responses/resp_1", 404),
        (Method::POST, "/v1/responses/resp_1/cancel", 404),
        (Method::DELETE, "/v1/responses/resp_1", 404),
        (Method::POST, "/v1/chat/completions/", 404),
        (Method::GET, "/v1/models/a/b", 404),
        (Method::GET, CHAT, 405),
        (Method::PUT, RESPONSES, 405),
        (Method::POST, "/v1/models", 405),
    ] {
        let response = chat.gate.service(method.clone(), path).send().await.unwrap();
        let allow = response.headers().get("allow").map(|allow| allow.to_str().unwrap().to_owned());
        assert_eq!(response.headers()["x-should-retry"], "false", "{method} {path}");
        let (status, error) = error_of(response).await;
        assert_eq!((status, &error["type"]), (expected, &json!("invalid_request_error")), "{method} {path}");
        let allowed = if path == "/v1/models" { "GET,HEAD" } else { "POST" };
        assert_eq!(allow.as_deref(), (expected == 405).then_some(allowed), "{method} {path}");
    }
    let long = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(2000));
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter([std::io::Result::Ok(long.clone())]));
    assert_eq!(error_of(chat.send("alice", CHAT, long).await).await.0, 413);
    assert_eq!(error_of(chat.send("alice", CHAT, chunked).await).await.0, 413);
    assert_eq!(chat.asked(), 0);
    let elsewhere = chat.gate.service(Method::GET, "/api/nothing").send().await.unwrap();
    assert_eq!(elsewhere.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn errors_about_a_request_keep_their_status_and_body() {
    let chat = Chat::scripted(&[]).await;
    for status in [400, 403, 404, 409, 422, 429, 500, 503] {
        let body = format!(r#"{{"error":{{"message":"no {status}","type":"policy","code":"x"}}}}"#);
        chat.answers(Reply::whole(&body).status(status).header("x-request-id", "req_1"));
        let response = chat.send("alice", CHAT, BODY).await;
        assert_eq!(response.headers()["x-upstream-request-id"], "req_1");
        assert_ne!(response.headers()["x-request-id"], "req_1");
        assert_eq!((response.status().as_u16(), response.text().await.unwrap()), (status, body));
        assert_eq!(chat.settled("alice").await, 0);
    }
    // The upstream's word counts.
    chat.answers(Reply::whole("{}").status(503).header("x-should-retry", "false"));
    assert_eq!(chat.send("alice", CHAT, BODY).await.headers()["x-should-retry"], "false");
    // Only the operator can change the key.
    chat.answers(Reply::whole(r#"{"error":{"message":"Incorrect API key"}}"#).status(401));
    let refused = chat.send("alice", CHAT, BODY).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["x-should-retry"].to_str().unwrap()), (502, "false"));

    for (name, value) in [("apim-request-id", "azure"), ("request-id", "req_2")] {
        chat.answers(Reply::whole(WHOLE).header(name, value));
        assert_eq!(chat.send("alice", CHAT, BODY).await.headers()["x-upstream-request-id"], value);
    }
}

#[tokio::test]
async fn failures_that_may_pass_may_be_retried() {
    let settings = [("QUOTA_GATE__UPSTREAM__URL", "http://127.0.0.1:9"), ("QUOTA_GATE__UPSTREAM__KEY", "key")];
    let mut chat = Chat::scripted(&[]).await;
    chat.gate = Serve::on(&chat.world.database, &chat.world.redis.url(), &settings).await;
    let refused = chat.send("alice", CHAT, BODY).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["x-should-retry"].to_str().unwrap()), (502, "true"));
    let anonymous = Client::new().post(format!("{}{CHAT}", chat.gate.url)).body(BODY).send().await.unwrap();
    assert_eq!((anonymous.status().as_u16(), anonymous.headers()["x-should-retry"].to_str().unwrap()), (401, "false"));
}

#[tokio::test]
async fn compressed_request_is_understood_or_415() {
    let chat = Chat::scripted(&[("QUOTA_GATE__UPSTREAM__BODY_BYTES_MAX", "100000")]).await;
    chat.answers(Reply::whole(WHOLE));
    let send = async |coding: &'static str, body: Vec<u8>| {
        let request = chat.gate.service(Method::POST, CHAT).header("X-User-Id", "alice");
        request.header("Content-Encoding", coding).body(body).send().await.unwrap()
    };
    let gzip = |text: &str| {
        let mut encoder = write::GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let mut zlib = write::ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(BODY.as_bytes()).unwrap();
    for (coding, body) in [("gzip", gzip(BODY)), ("deflate", zlib.finish().unwrap()), ("identity", BODY.into())] {
        let response = send(coding, body).await;
        assert_eq!(response.status().as_u16(), 200, "{coding}");
        response.text().await.unwrap();
        let (_, headers, received) = chat.received();
        assert_eq!((received.as_str(), headers.get("content-encoding")), (BODY, None), "{coding}");
    }
    assert_eq!(chat.asked(), 3);
    for coding in ["br", "zstd", "gzip, gzip"] {
        let refused = send(coding, BODY.into()).await;
        assert_eq!(refused.headers()["accept-encoding"], "gzip, deflate");
        assert_eq!(error_of(refused).await.0, 415, "{coding}");
    }
    // A thousand times larger than it looks.
    let bomb = gzip(&format!(r#"{{"model":"m","x":"{}"}}"#, "0".repeat(10_000_000)));
    assert!(bomb.len() < 100_000);
    assert_eq!(error_of(send("gzip", bomb).await).await.0, 413);
    assert_eq!(error_of(send("gzip", b"no gzip".to_vec()).await).await.0, 400);
    assert_eq!(chat.asked(), 3);
    // The gate's own routes understand no coding, and say so.
    let consume = chat.gate.service(Method::POST, "/api/chat/quota/consume").header("Content-Type", "application/json");
    let consume = consume.header("Content-Encoding", "gzip").body(gzip("{}")).send().await.unwrap();
    assert_eq!(consume.status().as_u16(), 415);
}

#[tokio::test]
async fn heartbeats_pass_immediately() {
    let chat = Chat::scripted(&[]).await;
    for (heartbeat, content_type) in
        [("\n", SSE), (": ping\n", SSE), (": ping\n\n", SSE), ("\r\n", SSE), ("\n", "application/json"), (" ", "")]
    {
        chat.answers(Reply::new(content_type, heartbeat).stalls());
        let mut response = chat.send("alice", CHAT, r#"{"model":"m","stream":true}"#).await;
        assert_eq!(response.chunk().await.unwrap().unwrap(), heartbeat);
        drop(response);
        assert_eq!(chat.settled("alice").await, 0, "{heartbeat:?}");
    }
    chat.answers(Reply::new(SSE, WORD).piece(": ping\n").stalls());
    let mut response = chat.send("alice", CHAT, r#"{"model":"m","stream":true}"#).await;
    let mut text = Vec::new();
    while text.len() < WORD.len() + 7 {
        text.extend_from_slice(&response.chunk().await.unwrap().unwrap());
    }
    assert!(text.ends_with(b": ping\n"));
}

#[tokio::test]
async fn pages_of_configured_origins_may_call_the_gate() {
    let origin = "https://app.example.com";
    let preflight = async |gate: &Serve, path: &str, origin: &str| {
        let request = Client::new().request(Method::OPTIONS, format!("{}{path}", gate.url));
        let request = request.header("Origin", origin).header("Access-Control-Request-Method", "POST");
        request.header("Access-Control-Request-Headers", "authorization,x-stainless-lang").send().await.unwrap()
    };
    let off = Chat::scripted(&[]).await;
    assert!(!preflight(&off.gate, CHAT, origin).await.headers().contains_key("access-control-allow-origin"));

    let chat = Chat::scripted(&[("QUOTA_GATE__SERVER__CORS_ORIGINS", r#"["https://app.example.com"]"#)]).await;
    for path in [CHAT, RESPONSES, "/api/chat/quota", "/api/chat/quota/reservations/x/commit"] {
        let allowed = preflight(&chat.gate, path, origin).await;
        assert!(allowed.status().is_success(), "{path}");
        assert_eq!(allowed.headers()["access-control-allow-origin"], origin, "{path}");
        assert_eq!(allowed.headers()["access-control-allow-headers"], "authorization,x-stainless-lang", "{path}");
        let other = preflight(&chat.gate, path, "https://evil.example.com").await;
        assert!(!other.headers().contains_key("access-control-allow-origin"), "{path}");
    }
    let admin = preflight(&chat.gate, "/api/admin/users", origin).await;
    assert!(!admin.headers().contains_key("access-control-allow-origin"));

    chat.answers(Reply::events(&[WORD, STOP, DONE]));
    let request = chat.gate.service(Method::POST, CHAT).header("X-User-Id", "alice").header("Origin", origin);
    let answer = request.body(BODY).send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], origin);
    assert!(answer.headers()["access-control-expose-headers"].to_str().unwrap().contains("x-request-id"));
    // A page must be able to read why it is refused.
    let anonymous = Client::new().post(format!("{}{CHAT}", chat.gate.url)).header("Origin", origin);
    let refused = anonymous.body(BODY).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), refused.headers()["access-control-allow-origin"].to_str().unwrap()),
        (401, origin)
    );
    let refused = Serve::refused(
        &chat.world.database,
        &chat.world.redis.url(),
        &[("QUOTA_GATE__SERVER__CORS_ORIGINS", r#"["https://app.example.com/"]"#)],
    );
    assert!(refused.contains("cors_origins"), "{refused}");
}
