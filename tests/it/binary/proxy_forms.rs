//! The body of an answer decides its form, not its header; an answer that is not understood is counted.

use std::io::Write;

use flate2::{Compression, write};
use serde_json::json;

use super::{
    proxy::Chat,
    scripted::{CHAT, DONE, RESPONSES, Reply, SSE, STOP, USAGE, WORD, error_of},
};

const UNREAD: &str = "quota_gate_proxy_unread_answers_total";
const WHOLE: &str = r#"{"choices":[{"message":{"content":"word"},"finish_reason":"stop"}],"usage":{"total_tokens":7}}"#;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = write::GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &str) -> Vec<u8> {
    let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn stream_is_read_and_its_usage_hidden_whatever_the_header_says() {
    let chat = Chat::scripted(&[]).await;
    let stream = [WORD, STOP, USAGE, DONE].concat();
    let shown = [WORD, STOP, DONE].concat();
    let plain = |content_type: &str| Reply::new(content_type, stream.clone());
    let cases = [
        plain(SSE),
        plain("Text/Event-Stream; charset=utf-8"),
        plain("TEXT/EVENT-STREAM"),
        plain("application/json"),
        plain("text/plain"),
        plain("").header("content-type", ""),
        Reply::new(SSE, format!("\n\n: ping\n\n{stream}")),
        Reply::new(SSE, stream.replace('\n', "\r\n")),
        Reply::new(SSE, stream.replace('\n', "\r")),
        // The usage is last, and its event incomplete.
        Reply::new(SSE, [WORD, STOP, DONE, USAGE.trim_end()].concat()),
        Reply::new("text/plain", format!("\u{feff}{stream}")),
        Reply::new(SSE, gzip(&stream)).header("content-encoding", "gzip"),
        Reply::new("text/plain", gzip(&stream)),
        Reply::new(SSE, zlib(&stream)).header("content-encoding", "Deflate"),
        plain(SSE).header("content-encoding", "gzip"),
        plain(SSE).header("content-encoding", "utf-8"),
    ];
    for (number, reply) in cases.iter().enumerate() {
        let who = format!("user-{number}");
        let (text, cost) = chat.costs(&who, CHAT, true, reply.clone()).await;
        assert_eq!((cost, chat.tokens(&who).await), (5, 7), "{reply:?}");
        let text = text.trim_start_matches('\u{feff}').trim_start_matches("\n\n: ping\n\n");
        assert_eq!(text.replace("\r\n", "\n").replace('\r', "\n"), shown, "{reply:?}");
    }
    for (number, reply) in [
        Reply::whole(WHOLE),
        Reply::new("text/event-stream", WHOLE),
        Reply::new("", WHOLE).header("content-type", ""),
        Reply::whole(&format!("\n\n  {WHOLE}")),
        Reply::whole(&format!("\u{feff}{WHOLE}")),
        Reply::new("application/json", gzip(WHOLE)).header("content-encoding", "x-gzip"),
    ]
    .into_iter()
    .enumerate()
    {
        let who = format!("whole-{number}");
        let (text, cost) = chat.costs(&who, CHAT, false, reply.clone()).await;
        assert_eq!((cost, chat.tokens(&who).await), (5, 7), "{reply:?}");
        assert!(text.ends_with(WHOLE), "{text}");
    }
    for reason in ["encoding", "form", "too_long"] {
        assert!(chat.counted(UNREAD, &format!("reason=\"{reason}\"")).await.abs() < 0.5, "{reason}");
    }
}

#[tokio::test]
async fn stream_that_fails_is_free_whatever_the_header_says() {
    let chat = Chat::scripted(&[]).await;
    for (number, content_type) in ["text/plain", "Text/Event-Stream"].iter().enumerate() {
        let reply = Reply::new(content_type, "data: {\"error\":{\"message\":\"no\"}}\n\ndata: [DONE]\n\n");
        assert_eq!(chat.costs(&format!("user-{number}"), CHAT, true, reply).await.1, 0, "{content_type}");
    }
}

#[tokio::test]
async fn answer_that_is_not_understood_is_counted() {
    let chat = Chat::scripted(&[]).await;
    let brotli: &[u8] = b"\x8b\x07\x80{\"choices\":[]}\x03";
    let opaque = Reply::new("application/json", brotli).header("content-encoding", "br");
    // It was generated and delivered. Only a client that understands the coding asked for can read it.
    chat.answers(opaque.clone());
    let body = json!({"model": "m", "messages": []}).to_string();
    let answer = chat.send("alice", CHAT, body).await;
    assert_eq!((answer.status().as_u16(), answer.headers()["content-encoding"].to_str().unwrap()), (200, "br"));
    assert_eq!(answer.bytes().await.unwrap(), brotli);
    assert_eq!(chat.settled("alice").await, 5);
    assert!((chat.counted(UNREAD, "reason=\"encoding\"").await - 1.0).abs() < 0.5);

    // The usage that the gate requested could not be hidden.
    chat.answers(opaque.header("content-type", SSE));
    let body = json!({"model": "m", "messages": [], "stream": true}).to_string();
    let refused = chat.send("bob", CHAT, body).await;
    assert_eq!(refused.headers()["x-should-retry"], "false");
    let (status, error) = error_of(refused).await;
    assert_eq!((status, &error["code"]), (502, &json!("UPSTREAM_FAILED")));
    assert_eq!(chat.settled("bob").await, 0);
    assert!((chat.counted(UNREAD, "reason=\"encoding\"").await - 2.0).abs() < 0.5);

    // Pages and documents of others are not answers.
    let mut forms = 0.0;
    for (who, path, reply) in [
        ("carol", CHAT, Reply::new("text/html", "<html>It works!</html>")),
        ("dave", RESPONSES, Reply::whole(r#"{"message":{"role":"assistant","content":"word"},"done":true}"#)),
        ("erin", CHAT, Reply::new(SSE, "data: hello\n\ndata: world\n\n")),
    ] {
        forms += 1.0;
        assert_eq!(chat.costs(who, path, false, reply).await.1, 0, "{who}");
        assert!((chat.counted(UNREAD, "reason=\"form\"").await - forms).abs() < 0.5, "{who}");
    }

    let long = format!(r#"{{"choices":[{{"message":{{"content":"{}"}}}}]}}"#, "x".repeat(17 * 1024 * 1024));
    assert_eq!(chat.costs("frank", CHAT, false, Reply::whole(&long)).await.1, 5);
    assert!((chat.counted(UNREAD, "reason=\"too_long\"").await - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn damaged_compression_breaks_the_answer_off() {
    let chat = Chat::scripted(&[]).await;
    let mut damaged = gzip(WHOLE);
    let middle = damaged.len() / 2;
    damaged.truncate(middle);
    let reply = Reply::new("application/json", damaged).header("content-encoding", "gzip");
    assert_eq!(chat.costs("alice", CHAT, false, reply).await.1, 0);
}
