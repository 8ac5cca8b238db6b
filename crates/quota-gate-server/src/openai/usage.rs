//! Reads from an answer whether it has begun, how many tokens it used, and whether it failed or ended.

use std::{borrow::Cow, collections::HashMap};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::openai::{events, request::Api};
use quota_gate::domain::usage::Tokens;

/// Summary of one event, or of a whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct EventSummary {
    /// Whether it contains a part of the answer.
    pub(crate) content: bool,
    /// Tokens of the whole generation.
    pub(crate) tokens: Option<Tokens>,
    /// How the generation ended, if it has.
    pub(crate) end: Option<End>,
    /// Whether it reports only usage.
    pub(crate) only_usage: bool,
}

/// How a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    Failed,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<HashMap<Cow<'a, str>, &'a RawValue>>,
    finish_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ResponsesEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Whole<'a> {
    choices: Option<IgnoredAny>,
    output: Option<IgnoredAny>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    error: Option<IgnoredAny>,
}

/// Reads an event of a stream. An event that cannot be parsed is not content.
pub(crate) fn summarize_event(api: Api, event: &[u8]) -> EventSummary {
    let Some(data) = events::data(event) else { return EventSummary::default() };
    if data == "[DONE]" {
        return EventSummary { end: Some(End::Complete), ..EventSummary::default() };
    }
    let summary = match api {
        Api::ChatCompletions => serde_json::from_str::<Chunk<'_>>(&data).map(Chunk::summary),
        Api::Responses => serde_json::from_str::<ResponsesEvent<'_>>(&data).map(ResponsesEvent::summary),
    };
    summary.unwrap_or_default()
}

/// Reads an answer that is not streamed.
pub(crate) fn summarize_whole(body: &[u8]) -> EventSummary {
    let Ok(whole) = serde_json::from_slice::<Whole<'_>>(body) else { return EventSummary::default() };
    let failed = whole.error.is_some() || whole.status.is_some_and(|status| status.get() == "\"failed\"");
    let content = !failed && (whole.choices.is_some() || whole.output.is_some());
    EventSummary { content, tokens: whole.usage.and_then(tokens), end: end(failed, content), only_usage: false }
}

const fn end(failed: bool, complete: bool) -> Option<End> {
    match (failed, complete) {
        (true, _) => Some(End::Failed),
        (false, true) => Some(End::Complete),
        (false, false) => None,
    }
}

/// Returns the tokens that a `usage` reports, under the names of either API or both. Malformed counts are ignored
/// and do not invalidate the answer.
fn tokens(usage: &RawValue) -> Option<Tokens> {
    let counts: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(usage.get()).ok()?;
    let count = |name: &str| counts.get(name)?.get().parse::<u64>().ok();
    let sum = || {
        let input = count("prompt_tokens").max(count("input_tokens"))?;
        let output = count("completion_tokens").max(count("output_tokens"))?;
        Some(input.saturating_add(output))
    };
    let total = count("total_tokens").or_else(sum)?;
    Tokens::new(i64::try_from(total).ok()?).ok()
}

impl Chunk<'_> {
    fn summary(self) -> EventSummary {
        let choices = self.choices.unwrap_or_default();
        EventSummary {
            content: choices.iter().any(Choice::has_content),
            end: end(self.error.is_some(), choices.iter().any(|choice| choice.finish_reason.is_some())),
            only_usage: choices.is_empty() && self.usage.is_some() && self.error.is_none(),
            tokens: self.usage.and_then(tokens),
        }
    }
}

impl Choice<'_> {
    /// Whether the delta contains more than a role: text, a tool call, a refusal, or any other value.
    fn has_content(&self) -> bool {
        let is_content = |(name, value): (&Cow<'_, str>, &&RawValue)| {
            name != "role" && !matches!(value.get(), "null" | "\"\"" | "[]" | "{}")
        };
        self.delta.as_ref().is_some_and(|delta| delta.iter().any(is_content))
    }
}

impl ResponsesEvent<'_> {
    fn summary(self) -> EventSummary {
        let kind = self.kind.as_ref();
        let failed = matches!(kind, "response.failed" | "error");
        let end = end(failed, matches!(kind, "response.completed" | "response.incomplete"));
        EventSummary {
            content: end.is_none() && !is_preamble(kind),
            end,
            tokens: self.response.and_then(|response| response.usage).and_then(tokens),
            only_usage: false,
        }
    }
}

/// Whether an event precedes all content, or reports a failed step. All others are content: pictures, completed
/// searches, and types that the API does not have yet.
fn is_preamble(kind: &str) -> bool {
    let step = kind.rsplit('.').next().unwrap_or(kind);
    matches!(kind, "response.created" | "response.queued" | "keepalive" | "ping")
        || kind.starts_with("response.mcp_list_tools.")
        || matches!(step, "added" | "in_progress" | "searching" | "generating" | "interpreting" | "failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(data: &str) -> EventSummary {
        summarize_event(Api::ChatCompletions, format!("data: {data}\n\n").as_bytes())
    }

    fn responses(data: &str) -> EventSummary {
        summarize_event(Api::Responses, format!("event: x\ndata: {data}\n\n").as_bytes())
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
            assert_eq!(summary, EventSummary { content, ..EventSummary::default() }, "{delta}");
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
            assert_eq!(summary, EventSummary { content: true, ..EventSummary::default() }, "{kind}");
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
            assert_eq!(
                responses(&format!(r#"{{"type":"{kind}","response":{{}}}}"#)),
                EventSummary::default(),
                "{kind}"
            );
        }
        assert!(!responses(r#"{"type":"response.failed"}"#).content && !responses(r#"{"type":"error"}"#).content);
    }

    #[test]
    fn usage_is_read_under_the_names_of_both_apis() {
        let usage = r#"{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}"#;
        let summary = chat(&format!(r#"{{"choices":[],"usage":{usage}}}"#));
        assert_eq!(summary, EventSummary { tokens: tokens(5), only_usage: true, ..EventSummary::default() });
        let summary = chat(&format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"stop"}}],"usage":{usage}}}"#));
        assert_eq!(summary, EventSummary { tokens: tokens(5), end: Some(End::Complete), ..EventSummary::default() });
        let completed = r#"{"type":"response.completed","response":{"usage":{"input_tokens":2,"output_tokens":3}}}"#;
        assert_eq!(
            responses(completed),
            EventSummary { tokens: tokens(5), end: Some(End::Complete), ..EventSummary::default() }
        );
        assert_eq!(summarize_whole(format!(r#"{{"choices":[],"usage":{usage}}}"#).as_bytes()).tokens, tokens(5));
    }

    #[test]
    fn malformed_usage_does_not_invalidate_the_answer() {
        for (usage, counted) in [
            // The names of both APIs together, as some gateways send them.
            (
                r#"{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,"input_tokens":0,"output_tokens":0}"#,
                tokens(5),
            ),
            (r#"{"input_tokens":0,"prompt_tokens":2,"output_tokens":0,"completion_tokens":3}"#, tokens(5)),
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
            let whole = summarize_whole(format!(r#"{{"choices":[],"usage":{usage}}}"#).as_bytes());
            let complete = EventSummary { content: true, tokens: counted, end: Some(End::Complete), only_usage: false };
            assert_eq!(whole, complete, "{usage}");
            let delta = chat(&format!(r#"{{"choices":[{{"delta":{{"content":"a"}}}}],"usage":{usage}}}"#));
            assert_eq!(delta, EventSummary { content: true, tokens: counted, ..EventSummary::default() }, "{usage}");
            let last = chat(&format!(r#"{{"choices":[],"usage":{usage}}}"#));
            assert_eq!(last, EventSummary { tokens: counted, only_usage: true, ..EventSummary::default() }, "{usage}");
            let completed = responses(&format!(r#"{{"type":"response.completed","response":{{"usage":{usage}}}}}"#));
            assert_eq!((completed.tokens, completed.end), (counted, Some(End::Complete)), "{usage}");
        }
        assert_eq!(summarize_whole(br#"{"status":200,"choices":[]}"#).end, Some(End::Complete));
    }

    #[test]
    fn failures_ends_and_noise_are_distinguished() {
        assert_eq!(chat(r#"{"error":{"message":"no"}}"#).end, Some(End::Failed));
        assert_eq!(responses(r#"{"type":"error","message":"no"}"#).end, Some(End::Failed));
        assert_eq!(chat("[DONE]").end, Some(End::Complete));
        assert_eq!(responses(r#"{"type":"response.incomplete","response":{}}"#).end, Some(End::Complete));
        for noise in ["", "{", "[]", "<html>", "17"] {
            assert_eq!(chat(noise), EventSummary::default(), "{noise}");
            assert_eq!(summarize_whole(noise.as_bytes()), EventSummary::default(), "{noise}");
        }
        assert_eq!(summarize_whole(br#"{"error":{"message":"no"}}"#).end, Some(End::Failed));
        let completed = summarize_whole(br#"{"status":"completed","error":null,"output":[]}"#);
        assert_eq!((completed.content, completed.end), (true, Some(End::Complete)));
    }
}
