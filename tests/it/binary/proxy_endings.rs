//! How an answer ends decides its cost: failure is final, and an end alone is no content, on both APIs.

use super::{
    proxy::Chat,
    scripted::{CHAT, DONE, RESPONSES, Reply, STOP, WORD},
};

const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const ERROR: &str = "data: {\"error\":{\"message\":\"no\",\"code\":502}}\n\n";
const CREATED: &str =
    "data: {\"type\":\"response.created\",\"response\":{\"status\":\"in_progress\",\"error\":null}}\n\n";
const ADDED: &str =
    "data: {\"type\":\"response.output_item.added\",\"item\":{\"type\":\"message\",\"content\":[]}}\n\n";
const DELTA: &str = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"word\"}\n\n";
const COMPLETED: &str =
    "data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"output\":[]}}\n\n";
const FAILED: &str = "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\"}}\n\n";

/// A chunk whose only choice has these members.
fn choice(members: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,{members}}}]}}\n\n")
}

#[tokio::test]
async fn failed_stream_costs_nothing_whatever_follows() {
    // What fails after content costs what was delivered, so nothing here.
    let chat = Chat::scripted(&[("QUOTA_GATE__UPSTREAM__CLIENT_GONE", "release")]).await;
    let failures = [
        ERROR.to_owned(),
        "data: {\"error\":\"overloaded\"}\n\n".to_owned(),
        "data: {\"object\":\"error\",\"message\":\"no\",\"code\":40303}\n\n".to_owned(),
        "event: error\ndata: {\"message\":\"no\"}\n\n".to_owned(),
        choice(r#""delta":{"content":""},"error":{"code":502,"message":"no"}"#),
        choice(r#""delta":{"content":"","error":{"code":502}}"#),
        choice(r#""delta":{"content":""},"finish_reason":"error""#),
        choice(r#""delta":{"content":"half"},"finish_reason":"error""#),
    ];
    for (number, failure) in failures.iter().enumerate() {
        for (after, events) in [
            ("nothing", vec![failure, DONE]),
            ("role", vec![ROLE, failure, STOP, DONE]),
            ("content", vec![ROLE, WORD, failure, DONE]),
            ("end", vec![WORD, STOP, failure, DONE]),
        ] {
            let who = format!("chat-{number}-{after}");
            let (text, cost) = chat.costs(&who, CHAT, true, Reply::events(&events)).await;
            assert_eq!((text, cost), (events.concat(), 0), "{who}");
        }
    }
    for (number, failure) in [ERROR, FAILED, "data: {\"type\":\"error\",\"message\":\"no\"}\n\n"].iter().enumerate() {
        for events in
            [vec![*failure, DONE], vec![CREATED, failure, COMPLETED], vec![CREATED, DELTA, failure, COMPLETED]]
        {
            let who = format!("responses-{number}-{}", events.len());
            assert_eq!(chat.costs(&who, RESPONSES, true, Reply::events(&events)).await.1, 0, "{who} {events:?}");
        }
    }
    // It is unknown how this one ended.
    let unknown = choice(r#""delta":{},"finish_reason":"""#);
    assert_eq!(chat.costs("unknown", CHAT, true, Reply::events(&[WORD, &unknown, DONE])).await.1, 0);
    for (number, body) in [
        r#"{"error":{"message":"no"}}"#,
        r#"{"choices":[{"message":{"content":"half"},"finish_reason":""}]}"#,
        r#"{"choices":[{"message":{"content":"half"},"finish_reason":"error"}]}"#,
        r#"{"choices":[{"message":{"content":"half"},"error":{"code":502},"finish_reason":"stop"}]}"#,
        r#"{"object":"error","message":"no"}"#,
    ]
    .iter()
    .enumerate()
    {
        let who = format!("whole-{number}");
        assert_eq!(chat.costs(&who, CHAT, false, Reply::whole(body)).await.1, 0, "{body}");
    }
}

#[tokio::test]
async fn failure_after_content_costs_what_was_delivered() {
    let chat = Chat::scripted(&[]).await;
    for (path, events) in [(CHAT, [WORD, ERROR, DONE]), (RESPONSES, [DELTA, FAILED, COMPLETED])] {
        let who = path.replace('/', "-");
        assert_eq!(chat.costs(&who, path, true, Reply::events(&events)).await.1, 5, "{path}");
    }
}

#[tokio::test]
async fn end_alone_costs_nothing_and_an_empty_answer_is_an_answer() {
    let chat = Chat::scripted(&[]).await;
    let empty_reason = choice(r#""delta":{},"finish_reason":"""#);
    let cases: [(&str, &[&str], u64); 13] = [
        (CHAT, &[DONE], 0),
        (CHAT, &[STOP, DONE], 0),
        (CHAT, &[ROLE, DONE], 0),
        (CHAT, &[ROLE, &empty_reason, DONE], 0),
        (CHAT, &[ROLE, STOP, DONE], 5),
        (CHAT, &[WORD, DONE], 5),
        (CHAT, &[WORD, &empty_reason, STOP], 5),
        (RESPONSES, &[DONE], 0),
        (RESPONSES, &[COMPLETED], 0),
        (RESPONSES, &[CREATED, COMPLETED, DONE], 0),
        (RESPONSES, &[CREATED, ADDED, COMPLETED], 5),
        (RESPONSES, &[DELTA, COMPLETED], 5),
        (
            RESPONSES,
            &[
                "data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"output\":[{\"type\":\"message\"}]}}\n\n",
            ],
            5,
        ),
    ];
    for (number, (path, events, cost)) in cases.iter().enumerate() {
        let who = format!("stream-{number}");
        assert_eq!(chat.costs(&who, path, true, Reply::events(events)).await.1, *cost, "{path} {events:?}");
    }
    for (number, (body, cost)) in [
        (r#"{"choices":[]}"#, 0),
        (r#"{"choices":[{"message":{"role":"assistant","content":""},"finish_reason":""}]}"#, 0),
        (r#"{"choices":[{"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#, 5),
        (r#"{"object":"response","status":"completed","error":null,"output":[]}"#, 0),
        (r#"{"object":"response","status":"completed","error":null,"output":[{"type":"message"}]}"#, 5),
    ]
    .iter()
    .enumerate()
    {
        let who = format!("whole-{number}");
        assert_eq!(chat.costs(&who, RESPONSES, false, Reply::whole(body)).await.1, *cost, "{body}");
    }
}
