//! Tests of `usage`.

use super::*;

fn chat(data: &str) -> EventSummary {
    coarse(summarize_event(Api::ChatCompletions, format!("data: {data}\n\n").as_bytes()))
}

fn responses(data: &str) -> EventSummary {
    coarse(summarize_event(Api::Responses, format!("event: x\ndata: {data}\n\n").as_bytes()))
}

/// The summary without what only prices by tokens need.
fn coarse(summary: EventSummary) -> EventSummary {
    EventSummary { tokens: summary.tokens.map(Tokens::without_kinds), output_bytes: 0, ..summary }
}

fn tokens(number: i64) -> Option<Tokens> {
    Tokens::new(number).ok()
}

#[test]
fn delta_with_more_than_a_role_is_content() {
    for (delta, content) in [
        (r#"{"role":"assistant","content":""}"#, false),
        (r#"{"role":"assistant","content":null,"refusal":null,"tool_calls":[]}"#, false),
        (r#"{"content":"a"}"#, true),
        (r#"{"tool_calls":[{"index":0}]}"#, true),
        (r#"{"reasoning_content":"hm"}"#, true),
    ] {
        let summary = chat(&format!(r#"{{"choices":[{{"delta":{delta},"finish_reason":null}}],"usage":null}}"#));
        assert_eq!(summary, EventSummary { begins: true, content, ..EventSummary::default() }, "{delta}");
    }
}

#[test]
fn response_events_are_content_except_preambles_and_failures() {
    for kind in [
        "output_text.delta",
        "output_text.done",
        "output_item.done",
        "refusal.delta",
        "reasoning_summary_text.delta",
        "function_call_arguments.delta",
        "image_generation_call.partial_image",
        "web_search_call.completed",
        "something.new",
    ] {
        let summary = responses(&format!(r#"{{"type":"response.{kind}"}}"#));
        assert_eq!(summary, EventSummary { begins: true, content: true, ..EventSummary::default() }, "{kind}");
    }
    for kind in [
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.web_search_call.searching",
        "response.image_generation_call.in_progress",
        "response.image_generation_call.generating",
        "response.code_interpreter_call.interpreting",
        "response.mcp_list_tools.completed",
        "response.mcp_call.failed",
        "keepalive",
    ] {
        let begins = kind == "response.output_item.added";
        let summary = responses(&format!(r#"{{"type":"{kind}","response":{{}}}}"#));
        assert_eq!(summary, EventSummary { begins, ..EventSummary::default() }, "{kind}");
    }
    assert!(!responses(r#"{"type":"response.failed"}"#).content && !responses(r#"{"type":"error"}"#).content);
}

#[test]
fn usage_is_read_under_the_names_of_both_apis() {
    let usage = r#"{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}"#;
    let only_usage = EventSummary { tokens: tokens(5), only_usage: true, ..EventSummary::default() };
    assert_eq!(chat(&format!(r#"{{"choices":[],"usage":{usage}}}"#)), only_usage);
    assert_eq!(chat(&format!(r#"{{"usage":{usage}}}"#)), only_usage);
    let finished = EventSummary { tokens: tokens(5), end: Some(End::Finished), ..EventSummary::default() };
    assert_eq!(chat(&format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"stop"}}],"usage":{usage}}}"#)), finished);
    let completed = r#"{"type":"response.completed","response":{"usage":{"input_tokens":2,"output_tokens":3}}}"#;
    assert_eq!(responses(completed), finished);
    assert_eq!(coarse(summarize_whole(format!(r#"{{"choices":[],"usage":{usage}}}"#).as_bytes())).tokens, tokens(5));
}

#[test]
fn malformed_usage_does_not_invalidate_the_answer() {
    for (usage, counted) in [
        // The names of both APIs together, as some gateways send them.
        (r#"{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,"input_tokens":0,"output_tokens":0}"#, tokens(5)),
        (r#"{"input_tokens":0,"prompt_tokens":2,"output_tokens":0,"completion_tokens":3}"#, tokens(5)),
        (r#"{"prompt_tokens":2,"completion_tokens":3,"total_tokens":0}"#, tokens(5)),
        (r#"{"total_tokens":5,"total_tokens":5}"#, tokens(5)),
        (r#"{"prompt_tokens":-2,"completion_tokens":3,"total_tokens":5}"#, tokens(5)),
        (r#"{"prompt_tokens":-2,"completion_tokens":3}"#, None),
        (r#"{"total_tokens":5.5}"#, None),
        (r#"{"total_tokens":"5"}"#, None),
        (r#"{"total_tokens":99999999999999999999}"#, None),
        ("[]", None),
        ("5", None),
        ("\"many\"", None),
    ] {
        let message = r#"{"message":{"content":"a"},"finish_reason":"stop"}"#;
        let whole = coarse(summarize_whole(format!(r#"{{"choices":[{message}],"usage":{usage}}}"#).as_bytes()));
        let content = EventSummary { begins: true, content: true, tokens: counted, ..EventSummary::default() };
        assert_eq!(whole, EventSummary { end: Some(End::Finished), ..content }, "{usage}");
        assert_eq!(
            chat(&format!(r#"{{"choices":[{{"delta":{{"content":"a"}}}}],"usage":{usage}}}"#)),
            content,
            "{usage}"
        );
        let last = chat(&format!(r#"{{"choices":[],"usage":{usage}}}"#));
        let only_usage = usage.starts_with('{');
        assert_eq!(last, EventSummary { tokens: counted, only_usage, ..EventSummary::default() }, "{usage}");
        let completed = responses(&format!(r#"{{"type":"response.completed","response":{{"usage":{usage}}}}}"#));
        assert_eq!((completed.tokens, completed.end), (counted, Some(End::Finished)), "{usage}");
    }
}

#[test]
fn event_with_more_than_usage_is_not_about_usage_only() {
    let usage = r#""usage":{"total_tokens":5}"#;
    for (rest, only_usage) in [
        ("", true),
        (r#","id":"c","model":"m","object":"chat.completion.chunk","created":1,"system_fingerprint":"f""#, true),
        (r#","citations":[],"x":null"#, true),
        (r#","citations":["https://example.com"]"#, false),
        (r#","error":{"message":"no"}"#, false),
    ] {
        assert_eq!(chat(&format!(r#"{{"choices":[],{usage}{rest}}}"#)).only_usage, only_usage, "{rest}");
    }
    assert!(!chat(&format!(r#"{{"choices":[{{"delta":{{}}}}],{usage}}}"#)).only_usage);
}

#[test]
fn errors_are_failures_in_whatever_form() {
    for failed in [
        r#"{"error":{"message":"no"}}"#,
        r#"{"error":"no"}"#,
        r#"{"type":"error","message":"no"}"#,
        r#"{"object":"error","message":"no","code":400}"#,
        r#"{"choices":[{"delta":{"content":""},"error":{"code":502}}]}"#,
        r#"{"choices":[{"delta":{"content":"","error":{"code":502}}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"error"}]}"#,
        r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"Error"},{"delta":{},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"network_error"}]}"#,
    ] {
        assert_eq!(chat(failed).end, Some(End::Failed), "{failed}");
        assert_eq!(summarize_whole(failed.as_bytes()).end, Some(End::Failed), "{failed}");
    }
    for failed in [
        r#"{"type":"error","message":"no"}"#,
        r#"{"error":{"message":"no"}}"#,
        r#"{"type":"response.failed","response":{"status":"failed"}}"#,
        r#"{"type":"response.completed","response":{"status":"failed","output":[{}]}}"#,
        r#"{"type":"response.completed","response":{"status":"cancelled"}}"#,
        r#"{"type":"response.in_progress","response":{"error":{"code":"server_error"}}}"#,
    ] {
        assert_eq!(responses(failed).end, Some(End::Failed), "{failed}");
    }
    for failed in [r#"{"status":"failed"}"#, r#"{"status":"cancelled","output":[{}]}"#] {
        assert_eq!(summarize_whole(failed.as_bytes()).end, Some(End::Failed), "{failed}");
    }
    let named = b"event: error\ndata: {\"message\":\"no\"}\n\n";
    assert_eq!(summarize_event(Api::ChatCompletions, named).end, Some(End::Failed));
    // Not set.
    assert_eq!(
        chat(r#"{"error":null,"choices":[{"error":"","delta":{},"finish_reason":"length"}]}"#).end,
        Some(End::Finished)
    );
}

#[test]
fn end_alone_is_no_content_on_either_api() {
    let nothing = |end| EventSummary { end, ..EventSummary::default() };
    for (summary, end) in [
        (chat("[DONE]"), Some(End::Closed)),
        (responses("[DONE]"), Some(End::Closed)),
        (chat(r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#), Some(End::Finished)),
        (chat(r#"{"choices":[{"finish_reason":""}]}"#), Some(End::Unknown)),
        (responses(r#"{"type":"response.completed","response":{"output":[]}}"#), Some(End::Finished)),
        (responses(r#"{"type":"response.incomplete","response":{}}"#), Some(End::Finished)),
        (summarize_whole(br#"{"choices":[]}"#), None),
        (summarize_whole(br#"{"status":"completed","error":null,"output":[]}"#), None),
    ] {
        assert_eq!(summary, nothing(end));
    }
    // The last event may have all of the answer.
    let completed = responses(r#"{"type":"response.completed","response":{"output":[{"type":"message"}]}}"#);
    assert!(completed.content && completed.end == Some(End::Finished));
}

#[test]
fn whole_answer_is_finished_only_with_an_answer_in_it() {
    for (body, finished) in [
        (r#"{"choices":[{"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#, true),
        (r#"{"choices":[{"message":{"role":"assistant","content":"a"}}]}"#, true),
        (r#"{"choices":[{"message":{"role":"assistant","content":""},"finish_reason":""}]}"#, false),
        (r#"{"choices":[{"message":{"role":"assistant","content":"a"},"finish_reason":""}]}"#, false),
        (r#"{"status":200,"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}"#, true),
        (r#"{"status":"completed","error":null,"output":[{"type":"message"}]}"#, true),
        (r#"{"status":"incomplete","output":[{"type":"message"}]}"#, true),
        (r#"{"status":"queued","output":[]}"#, false),
        (r#"{"status":"in_progress","output":[{"type":"message"}]}"#, false),
    ] {
        let summary = summarize_whole(body.as_bytes());
        assert_eq!(summary.begins && summary.end == Some(End::Finished), finished, "{body}");
    }
}

#[test]
fn noise_says_nothing() {
    for noise in ["", "{", "[]", "<html>", "17"] {
        assert_eq!(chat(noise), EventSummary::default(), "{noise}");
        assert_eq!(responses(noise), EventSummary::default(), "{noise}");
        assert_eq!(summarize_whole(noise.as_bytes()), EventSummary::default(), "{noise}");
    }
    // Invalid UTF-8 in a text does not hide it.
    let event = b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n";
    assert!(summarize_event(Api::ChatCompletions, event).content);
}

#[test]
fn kinds_of_tokens_are_read_and_cached_ones_are_a_part_of_the_input() {
    for (usage, input, cached, output) in [
        (r#"{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}"#, 9, 8, 3),
        (r#"{"input_tokens":9,"output_tokens":3,"input_tokens_details":{"cached_tokens":8}}"#, 9, 8, 3),
        (r#"{"prompt_tokens":9,"completion_tokens":3,"prompt_cache_hit_tokens":8}"#, 9, 8, 3),
        (r#"{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":null}"#, 9, 0, 3),
        (r#"{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":10}}"#, 9, 9, 3),
        (r#"{"prompt_tokens":9,"completion_tokens":3,"total_tokens":20}"#, 9, 0, 11),
    ] {
        let expected = TokenKinds::new(input, cached, output).unwrap();
        let whole = summarize_whole(format!(r#"{{"choices":[],"usage":{usage}}}"#).as_bytes());
        assert_eq!(whole.tokens.and_then(Tokens::kinds), Some(expected), "{usage}");
    }
    let total_only = summarize_whole(br#"{"choices":[],"usage":{"total_tokens":7}}"#).tokens.unwrap();
    assert_eq!((total_only.get(), total_only.kinds()), (7, None));
}

#[test]
fn delivered_bytes_are_those_of_the_answer_and_not_of_its_envelope() {
    let bytes = |api, data: &str| summarize_event(api, format!("data: {data}\n\n").as_bytes()).output_bytes;
    for (data, expected) in [
        (r#"{"id":"c","choices":[{"delta":{"role":"assistant","content":"four"}},{"delta":{"content":"and"}}]}"#, 7),
        (r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#, 0),
        (r#"{"choices":[{"text":"five!"}]}"#, 5),
        (r#"{"choices":[],"usage":{"total_tokens":7}}"#, 0),
    ] {
        assert_eq!(bytes(Api::ChatCompletions, data), expected, "{data}");
    }
    for (data, expected) in [
        (r#"{"type":"response.output_text.delta","delta":"four"}"#, 4),
        (r#"{"type":"response.output_text.done","text":"four"}"#, 0),
        (r#"{"type":"response.completed","response":{"status":"completed","output":[{"a":1}]}}"#, 0),
    ] {
        assert_eq!(bytes(Api::Responses, data), expected, "{data}");
    }
    let whole = summarize_whole(br#"{"status":"completed","output":["four"]}"#);
    assert_eq!(whole.output_bytes, 8);
}
