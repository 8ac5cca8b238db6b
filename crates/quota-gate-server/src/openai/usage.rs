//! Reads from an answer whether it has begun, how many tokens it used, and whether it failed or ended.

use serde_json::value::RawValue;

use crate::openai::{
    events,
    members::{Members, is_empty},
    request::Api,
};
use quota_gate::domain::{token_kinds::TokenKinds, usage::Tokens};

/// Summary of one event, or of a whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct EventSummary {
    /// Whether it has a choice or an output item, which may be empty.
    pub(crate) begins: bool,
    /// Whether it contains a part of the answer.
    pub(crate) content: bool,
    /// Tokens of the whole generation.
    pub(crate) tokens: Option<Tokens>,
    /// How the generation ended, if it has.
    pub(crate) end: Option<End>,
    /// Whether it reports only usage.
    pub(crate) only_usage: bool,
    /// Bytes of the answer that it contains, roughly.
    pub(crate) output_bytes: u64,
}

/// How a generation ended. A later one outranks the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// The stream ended (`[DONE]`), which says nothing about the model.
    Closed,
    /// The reason is empty: the upstream does not know how the model ended. Some upstreams send it in each chunk, and
    /// the real one in the last.
    Unknown,
    /// The model ended its answer.
    Finished,
    /// Final, whatever precedes or follows.
    Failed,
}

/// Members of a chunk besides its choices and usage. A chunk with others is not about usage only.
const ENVELOPE: [&str; 10] = [
    "id",
    "object",
    "created",
    "model",
    "choices",
    "usage",
    "system_fingerprint",
    "service_tier",
    "provider",
    "obfuscation",
];

/// Reads an event of a stream. An event that cannot be parsed is not content.
pub(crate) fn summarize_event(api: Api, event: &[u8]) -> EventSummary {
    let Some(data) = events::data(event) else { return EventSummary::default() };
    let data = data.trim();
    if data == "[DONE]" {
        return EventSummary { end: Some(End::Closed), ..EventSummary::default() };
    }
    let Some(members) = Members::of(data) else { return EventSummary::default() };
    let summary = match api {
        Api::ChatCompletions => chunk(&members),
        Api::Responses => response_event(&members),
    };
    if is_error(&members) || events::field(event, "event").as_deref() == Some("error") {
        return EventSummary { end: Some(End::Failed), ..summary };
    }
    summary
}

/// Reads an answer that is not streamed.
pub(crate) fn summarize_whole(body: &[u8]) -> EventSummary {
    let text = String::from_utf8_lossy(body);
    let Some(members) = Members::of(&text) else { return EventSummary::default() };
    let (chat, response) = (chunk(&members), response(&members));
    let begins = chat.begins || response.begins;
    let end = if is_error(&members) || [chat.end, response.end].contains(&Some(End::Failed)) {
        Some(End::Failed)
    } else {
        chat.end.or(response.end).or(chat.content.then_some(End::Finished))
    };
    EventSummary {
        begins,
        content: chat.content || response.content,
        end,
        tokens: chat.tokens,
        only_usage: false,
        output_bytes: chat.output_bytes + response.output_bytes,
    }
}

/// Whether an object reports an error instead of an answer.
fn is_error(members: &Members<'_>) -> bool {
    let named = |name: &str| members.text(name).is_some_and(|text| text == "error");
    named("object") || named("type") || has_error(members)
}

fn has_error(members: &Members<'_>) -> bool {
    members.get("error").is_some_and(|error| !is_empty(error))
}

/// Reads a chunk of a chat completion, or a whole one.
fn chunk(members: &Members<'_>) -> EventSummary {
    let choices: Vec<Members<'_>> =
        members.array("choices").iter().filter_map(|choice| Members::of(choice.get())).collect();
    let mut summary = EventSummary { tokens: members.get("usage").and_then(tokens), ..EventSummary::default() };
    for choice in &choices {
        let parts = ["delta", "message"].map(|name| choice.object(name).unwrap_or_default());
        summary.begins |= parts.iter().any(|part| part.iter().next().is_some());
        let text = choice.get("text").filter(|text| !is_empty(text));
        summary.content |= parts.iter().any(has_content) || text.is_some();
        summary.output_bytes += parts.iter().flat_map(content).chain(text).map(size).sum::<u64>();
        let failed = has_error(choice) || parts.iter().any(has_error);
        let end = if failed { Some(End::Failed) } else { choice.get("finish_reason").map(end_by) };
        summary.end = summary.end.max(end);
    }
    summary.begins |= summary.content;
    summary.only_usage = choices.is_empty()
        && members.object("usage").is_some()
        && members.iter().all(|(name, value)| ENVELOPE.contains(&name) || is_empty(value));
    summary
}

/// Whether a delta or message has more than a role: text, a tool call, a refusal, or any other value.
fn has_content(part: &Members<'_>) -> bool {
    content(part).next().is_some()
}

fn content<'a>(part: &Members<'a>) -> impl Iterator<Item = &'a RawValue> {
    part.iter().filter(|(name, value)| !matches!(*name, "role" | "error") && !is_empty(value)).map(|(_, value)| value)
}

/// Bytes of a value, without the quotes of a text.
fn size(value: &RawValue) -> u64 {
    let text = value.get();
    let quotes = if text.starts_with('"') { 2 } else { 0 };
    (text.len() - quotes) as u64
}

/// Reads a `finish_reason`.
fn end_by(reason: &RawValue) -> End {
    if is_empty(reason) {
        return End::Unknown;
    }
    let reason = reason.get().trim_matches('"').to_ascii_lowercase();
    // DeepSeek, Zhipu and vLLM name their failures.
    let is_failure = matches!(reason.as_str(), "error" | "failed" | "abort" | "cancelled" | "canceled")
        || reason.ends_with("_error")
        || reason == "insufficient_system_resource";
    if is_failure { End::Failed } else { End::Finished }
}

/// Reads a response object, whole or in an event.
fn response(members: &Members<'_>) -> EventSummary {
    let content = !members.array("output").is_empty();
    let end = match members.text("status").as_deref() {
        _ if has_error(members) => Some(End::Failed),
        Some("failed" | "cancelled" | "canceled") => Some(End::Failed),
        // Unfinished: no client can read the rest.
        Some("queued" | "in_progress") => None,
        _ => content.then_some(End::Finished),
    };
    let output_bytes = members.get("output").filter(|_| content && end.is_some()).map_or(0, size);
    EventSummary { begins: content, content: content && end.is_some(), end, output_bytes, ..EventSummary::default() }
}

/// Reads an event of the Responses API.
fn response_event(members: &Members<'_>) -> EventSummary {
    let Some(kind) = members.text("type") else { return EventSummary::default() };
    let inner = members.object("response").unwrap_or_default();
    let whole = response(&inner);
    let end = match kind.as_ref() {
        _ if whole.end == Some(End::Failed) => Some(End::Failed),
        "response.failed" | "response.cancelled" | "error" => Some(End::Failed),
        "response.completed" | "response.incomplete" => Some(End::Finished),
        _ => None,
    };
    let content = match end {
        Some(_) => whole.content,
        None => !is_preamble(&kind),
    };
    let begins = content || kind == "response.output_item.added";
    // Other events repeat what the deltas have delivered.
    let output_bytes = members.get("delta").filter(|_| content).map_or(0, size);
    let tokens = inner.get("usage").and_then(tokens);
    EventSummary { begins, content, end, tokens, only_usage: false, output_bytes }
}

/// Whether an event precedes all content, or reports a failed step. All others are content: pictures, completed
/// searches, and types that the API does not have yet.
fn is_preamble(kind: &str) -> bool {
    let step = kind.rsplit('.').next().unwrap_or(kind);
    matches!(kind, "response.created" | "response.queued" | "keepalive" | "ping")
        || kind.starts_with("response.mcp_list_tools.")
        || matches!(step, "added" | "in_progress" | "searching" | "generating" | "interpreting" | "failed")
}

/// Returns the tokens that a `usage` reports, under the names of either API or both. Malformed counts are ignored
/// and do not invalidate the answer.
fn tokens(usage: &RawValue) -> Option<Tokens> {
    let counts = Members::of(usage.get())?;
    let count = |name: &str| counts.get(name)?.get().parse::<u64>().ok();
    let input = count("prompt_tokens").max(count("input_tokens"));
    let output = count("completion_tokens").max(count("output_tokens"));
    let sum = input.zip(output).map(|(input, output)| input.saturating_add(output));
    let total = count("total_tokens").max(sum)?;
    let tokens = Tokens::new(i64::try_from(total).ok()?).ok()?;
    let Some((input, _)) = input.zip(output) else { return Some(tokens) };
    // The input includes cached tokens. Tokens that are in the total only are output: some upstreams report those of
    // reasoning nowhere else.
    let cached = cached_tokens(&counts).unwrap_or(0).min(input);
    Some(Tokens::of_kinds(TokenKinds::clamped(input, cached, total - input)))
}

/// Returns the cached part of the input.
fn cached_tokens(counts: &Members<'_>) -> Option<u64> {
    let count = |members: &Members<'_>, name: &str| members.get(name)?.get().parse::<u64>().ok();
    let in_details = |name: &str| count(&counts.object(name)?, "cached_tokens");
    // DeepSeek has a member of its own.
    in_details("prompt_tokens_details")
        .max(in_details("input_tokens_details"))
        .max(count(counts, "prompt_cache_hit_tokens"))
}

#[cfg(test)]
mod tests;
