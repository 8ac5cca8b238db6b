//! What an answer says of itself: whether it has begun, what it used, whether it failed or ended.

use std::{borrow::Cow, collections::HashMap};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{events, request::Api};
use crate::domain::usage::Tokens;

/// What an event, or a whole answer, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Said {
    /// Something of the answer is in it.
    pub(super) content: bool,
    /// The tokens of the whole generation.
    pub(super) tokens: Option<Tokens>,
    /// The generation is over.
    pub(super) end: Option<End>,
    /// It reports usage and nothing else.
    pub(super) only_usage: bool,
}

/// How a generation is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    Failed,
}

/// Both APIs' names for the same two numbers, and their sum.
#[derive(Deserialize)]
struct Usage {
    #[serde(rename = "input_tokens", alias = "prompt_tokens")]
    input: Option<u64>,
    #[serde(rename = "output_tokens", alias = "completion_tokens")]
    output: Option<u64>,
    #[serde(rename = "total_tokens")]
    total: Option<u64>,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    usage: Option<Usage>,
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
    response: Option<Response>,
}

#[derive(Deserialize)]
struct Response {
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Whole<'a> {
    choices: Option<IgnoredAny>,
    output: Option<IgnoredAny>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    usage: Option<Usage>,
    error: Option<IgnoredAny>,
}

/// Reads an event of a stream. One that says nothing that is understood is not content.
pub(super) fn of_event(api: Api, event: &[u8]) -> Said {
    let Some(data) = events::data(event) else { return Said::default() };
    if data == "[DONE]" {
        return Said { end: Some(End::Complete), ..Said::default() };
    }
    let said = match api {
        Api::ChatCompletions => serde_json::from_str::<Chunk<'_>>(&data).map(Chunk::said),
        Api::Responses => serde_json::from_str::<ResponsesEvent<'_>>(&data).map(ResponsesEvent::said),
    };
    said.unwrap_or_default()
}

/// Reads an answer that came in one piece.
pub(super) fn of_whole(body: &[u8]) -> Said {
    let Ok(whole) = serde_json::from_slice::<Whole<'_>>(body) else { return Said::default() };
    let failed = whole.error.is_some() || whole.status.as_deref() == Some("failed");
    let content = !failed && (whole.choices.is_some() || whole.output.is_some());
    let tokens = whole.usage.and_then(Usage::tokens);
    Said { content, tokens, end: end(failed, content), only_usage: false }
}

const fn end(failed: bool, complete: bool) -> Option<End> {
    match (failed, complete) {
        (true, _) => Some(End::Failed),
        (false, true) => Some(End::Complete),
        (false, false) => None,
    }
}

impl Usage {
    fn tokens(self) -> Option<Tokens> {
        let sum = || Some(self.input?.saturating_add(self.output?));
        let total = self.total.or_else(sum)?;
        Tokens::new(i64::try_from(total).ok()?).ok()
    }
}

impl Chunk<'_> {
    fn said(self) -> Said {
        let choices = self.choices.unwrap_or_default();
        let tokens = self.usage.and_then(Usage::tokens);
        Said {
            content: choices.iter().any(Choice::has_content),
            end: end(self.error.is_some(), choices.iter().any(|choice| choice.finish_reason.is_some())),
            only_usage: choices.is_empty() && tokens.is_some(),
            tokens,
        }
    }
}

impl Choice<'_> {
    /// More than who speaks: text, a tool call, a refusal, whatever a model may say.
    fn has_content(&self) -> bool {
        let says = |(name, value): (&Cow<'_, str>, &&RawValue)| {
            name != "role" && !matches!(value.get(), "null" | "\"\"" | "[]" | "{}")
        };
        self.delta.as_ref().is_some_and(|delta| delta.iter().any(says))
    }
}

impl ResponsesEvent<'_> {
    fn said(self) -> Said {
        let kind = self.kind.as_ref();
        Said {
            content: kind.rsplit('.').next() == Some("delta"),
            end: end(
                matches!(kind, "response.failed" | "error"),
                matches!(kind, "response.completed" | "response.incomplete"),
            ),
            tokens: self.response.and_then(|response| response.usage).and_then(Usage::tokens),
            only_usage: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(data: &str) -> Said {
        of_event(Api::ChatCompletions, format!("data: {data}\n\n").as_bytes())
    }

    fn responses(data: &str) -> Said {
        of_event(Api::Responses, format!("event: x\ndata: {data}\n\n").as_bytes())
    }

    fn tokens(number: i64) -> Option<Tokens> {
        Tokens::new(number).ok()
    }

    #[test]
    fn content_is_what_somebody_would_pay_for() {
        for (delta, content) in [
            (r#"{"role":"assistant","content":""}"#, false),
            (r#"{"role":"assistant","content":null,"refusal":null,"tool_calls":[]}"#, false),
            (r#"{"content":"a"}"#, true),
            (r#"{"tool_calls":[{"index":0}]}"#, true),
            (r#"{"reasoning_content":"hm"}"#, true),
        ] {
            let said = chat(&format!(r#"{{"choices":[{{"delta":{delta},"finish_reason":null}}],"usage":null}}"#));
            assert_eq!(said, Said { content, ..Said::default() }, "{delta}");
        }
        assert!(responses(r#"{"type":"response.output_text.delta","delta":"a"}"#).content);
        assert!(!responses(r#"{"type":"response.created","response":{"usage":null}}"#).content);
    }

    #[test]
    fn usage_is_read_under_either_name() {
        let usage = r#"{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}"#;
        let said = chat(&format!(r#"{{"choices":[],"usage":{usage}}}"#));
        assert_eq!(said, Said { tokens: tokens(5), only_usage: true, ..Said::default() });
        let said = chat(&format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"stop"}}],"usage":{usage}}}"#));
        assert_eq!(said, Said { tokens: tokens(5), end: Some(End::Complete), ..Said::default() });
        let completed = r#"{"type":"response.completed","response":{"usage":{"input_tokens":2,"output_tokens":3}}}"#;
        assert_eq!(responses(completed), Said { tokens: tokens(5), end: Some(End::Complete), ..Said::default() });
        assert_eq!(of_whole(format!(r#"{{"choices":[],"usage":{usage}}}"#).as_bytes()).tokens, tokens(5));
    }

    #[test]
    fn failures_ends_and_noise_are_told_apart() {
        assert_eq!(chat(r#"{"error":{"message":"no"}}"#).end, Some(End::Failed));
        assert_eq!(responses(r#"{"type":"error","message":"no"}"#).end, Some(End::Failed));
        assert_eq!(chat("[DONE]").end, Some(End::Complete));
        assert_eq!(responses(r#"{"type":"response.incomplete","response":{}}"#).end, Some(End::Complete));
        for noise in ["", "{", "[]", "<html>", "17"] {
            assert_eq!(chat(noise), Said::default(), "{noise}");
            assert_eq!(of_whole(noise.as_bytes()), Said::default(), "{noise}");
        }
        assert_eq!(of_whole(br#"{"error":{"message":"no"}}"#).end, Some(End::Failed));
        let completed = of_whole(br#"{"status":"completed","error":null,"output":[]}"#);
        assert_eq!((completed.content, completed.end), (true, Some(End::Complete)));
    }
}
