//! What the proxy makes of a request: its price, its bytes, and what is refused.

use serde_json::json;

use super::{
    proxy::Chat,
    scripted::{CHAT, DONE, RESPONSES, Reply, SSE, STOP, USAGE, WORD, error_of},
};
use crate::support::World;

const WHOLE: &str = r#"{"choices":[{"message":{"content":"word"},"finish_reason":"stop"}]}"#;

#[tokio::test]
async fn background_response_is_refused_and_an_unfinished_one_is_free() {
    let chat = Chat::scripted(&[]).await;
    for background in ["true", "1"] {
        let body = format!(r#"{{"model":"m","input":"hello","background":{background}}}"#);
        let refused = chat.send("alice", RESPONSES, body).await;
        assert_eq!(refused.headers()["x-should-retry"], "false");
        let (status, error) = error_of(refused).await;
        assert_eq!((status, &error["type"]), (400, &json!("invalid_request_error")), "{background}");
        assert!(error["message"].as_str().unwrap().contains("background"), "{error}");
    }
    assert_eq!(chat.asked(), 0);
    for (status, cost) in
        [("queued", 0), ("in_progress", 0), ("cancelled", 0), ("failed", 0), ("incomplete", 5), ("completed", 5)]
    {
        let response =
            format!(r#"{{"id":"r","object":"response","status":"{status}","output":[{{"type":"message"}}]}}"#);
        let whole = chat.costs(&format!("whole-{status}"), RESPONSES, false, Reply::whole(&response)).await.1;
        let kind = if cost > 0 { status } else { "completed" };
        let events = format!("data: {{\"type\":\"response.{kind}\",\"response\":{response}}}\n\n");
        let stream = chat.costs(&format!("stream-{status}"), RESPONSES, true, Reply::events(&[&events])).await.1;
        assert_eq!((whole, stream), (cost, cost), "{status}");
    }
    // The status of a stream that was left unfinished.
    let queued = "data: {\"type\":\"response.queued\",\"response\":{\"status\":\"queued\"}}\n\n";
    assert_eq!(chat.costs("bob", RESPONSES, true, Reply::events(&[queued])).await.1, 0);
}

#[tokio::test]
async fn spelling_of_a_model_does_not_change_its_price() {
    let chat = Chat::scripted(&[("QUOTA_GATE__MODELS", r#"{default=1, "gpt-4o"=3, "*claude-*"=7}"#)]).await;
    chat.answers(Reply::whole(WHOLE));
    for (number, (request, cost)) in [
        (json!({"model": "gpt-4o"}), 3),
        (json!({"model": "GPT-4o"}), 3),
        (json!({"model": "gpt-4o "}), 3),
        (json!({"model": "openai/gpt-4o"}), 3),
        (json!({"model": "gpt-4o-2024-11-20"}), 3),
        (json!({"model": "gpt-4o-mini"}), 1),
        (json!({"model": "anthropic/Claude-3-opus"}), 7),
        (json!({"model": "other", "models": ["other", "claude-3"]}), 7),
        (json!({"model": "other", "fallbacks": [{"model": "gpt-4o"}], "n": 2}), 6),
    ]
    .into_iter()
    .enumerate()
    {
        let who = format!("user-{number}");
        chat.send(&who, CHAT, request.to_string()).await.text().await.unwrap();
        assert_eq!(chat.settled(&who).await, cost, "{request}");
        assert_eq!(chat.received().2, request.to_string(), "the upstream gets the name as it was written");
    }
}

#[tokio::test]
async fn unlisted_models_are_refused_if_the_operator_says_so() {
    let chat = Chat::scripted(&[("QUOTA_GATE__MODELS", r#"{default=1, "gpt-4o*"=3, unlisted="refuse"}"#)]).await;
    chat.answers(Reply::whole(WHOLE));
    for request in [json!({"model": "o1"}), json!({"model": "gpt-4o", "models": ["o1"]})] {
        let (status, error) = error_of(chat.send("alice", CHAT, request.to_string()).await).await;
        assert_eq!((status, &error["code"]), (400, &json!("INVALID_REQUEST")), "{request}");
    }
    assert_eq!(chat.asked(), 0);
    chat.send("alice", CHAT, r#"{"model":"openai/GPT-4o-mini"}"#).await.text().await.unwrap();
    assert_eq!(chat.settled("alice").await, 3);
    let world: &World = &chat.world;
    let logged = "select count(*) from chat_usage_logs where model = 'openai/GPT-4o-mini'";
    assert_eq!(chat.tokens("alice").await, 0);
    assert_eq!(world.number(logged).await, 1);
}

#[tokio::test]
async fn bytes_of_a_request_stay_as_they_are() {
    let chat = Chat::scripted(&[]).await;
    chat.answers(Reply::whole(WHOLE));
    // Order, white space, numbers and a doubled member, which the gate does not read.
    let body = "{ \"z\":1.50, \"model\":\"m\",\"a\":[ 1e3 ],\"z\":2,\"seed\":12345678901234567890123\n}";
    for path in [CHAT, RESPONSES] {
        chat.send("alice", path, body).await.text().await.unwrap();
        assert_eq!(chat.received().2, body, "{path}");
    }
    chat.answers(Reply::events(&[WORD, STOP, DONE]));
    let streamed = body.replacen('{', "{\"stream\":true,", 1);
    chat.send("alice", CHAT, streamed.clone()).await.text().await.unwrap();
    let (head, _) = streamed.rsplit_once('}').unwrap();
    assert_eq!(chat.received().2, format!("{head},\"stream_options\":{{\"include_usage\":true}}}}"));
    for doubled in
        [r#"{"model":"m","n":1,"n":2}"#, r#"{"model":"m","stream":true,"stream_options":{},"stream_options":{}}"#]
    {
        let (status, error) = error_of(chat.send("alice", CHAT, doubled).await).await;
        assert_eq!(status, 400);
        assert!(error["message"].as_str().unwrap().contains("duplicate field"), "{error}");
    }

    let left = Chat::scripted(&[("QUOTA_GATE__UPSTREAM__STREAM_USAGE", "leave")]).await;
    left.answers(Reply::events(&[WORD, STOP, USAGE, DONE]));
    let text = left.send("alice", CHAT, streamed.clone()).await.text().await.unwrap();
    assert_eq!((left.received().2, text), (streamed, [WORD, STOP, USAGE, DONE].concat()));
    assert_eq!((left.settled("alice").await, left.tokens("alice").await), (5, 7));
}

#[tokio::test]
async fn only_the_requested_report_of_usage_is_hidden() {
    let chat = Chat::scripted(&[]).await;
    let cited = "data: {\"choices\":[],\"usage\":{\"total_tokens\":7},\"citations\":[\"https://example.com\"]}\n\n";
    let (text, _) = chat.costs("alice", CHAT, true, Reply::events(&[WORD, STOP, cited, USAGE, DONE])).await;
    assert_eq!(text, [WORD, STOP, cited, DONE].concat());
    let asks = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
    chat.answers(Reply::events(&[WORD, STOP, USAGE, DONE]));
    assert!(chat.send("alice", CHAT, asks).await.text().await.unwrap().contains("total_tokens"));
    assert_eq!(chat.received().2, asks);
}

#[tokio::test]
async fn trailing_zeros_do_not_erase_reported_tokens() {
    let chat = Chat::scripted(&[]).await;
    let zeros = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}}\n\n";
    let reply = Reply::new(SSE, [WORD, STOP, USAGE, zeros, DONE].concat());
    assert_eq!(chat.costs("alice", CHAT, true, reply).await, ([WORD, STOP, DONE].concat(), 5));
    assert_eq!(chat.tokens("alice").await, 7);
}
