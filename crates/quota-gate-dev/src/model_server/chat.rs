//! `POST /v1/chat/completions`, as described at <https://platform.openai.com/docs/api-reference/chat>.

use std::sync::Arc;

use axum::{Json, extract::State, response::Response};
use serde_json::{Value, json};

use super::{
    Seen,
    answer::{AnswerPart, event, give, streamed, tokens_of, whole, words},
    begin,
    behaviour::{Behaviour, Usage},
};

const ID: &str = "chatcmpl-local";

pub(super) async fn complete(State(seen): State<Arc<Seen>>, Json(request): Json<Value>) -> Response {
    let behaviour = match begin(&seen, &request).await {
        Ok(behaviour) => behaviour,
        Err(instead) => return instead,
    };
    let model = request["model"].as_str().unwrap_or_default();
    let prompt = tokens_of(&request["messages"]);
    let tool = wanted_tool(&request);
    let spent = if tool.is_some() { 1 } else { behaviour.words };
    let mut usage = json!({"prompt_tokens": prompt, "completion_tokens": spent, "total_tokens": prompt + spent});
    if behaviour.usage == Usage::Odd {
        usage["input_tokens"] = json!(-1);
    }
    if behaviour.cached > 0 {
        usage["prompt_tokens_details"] = json!({"cached_tokens": behaviour.cached});
    }
    if request["stream"] == true {
        let wants_usage = request["stream_options"]["include_usage"] == true && behaviour.usage != Usage::Missing;
        return give(
            &seen,
            "text/event-stream",
            stream(model, &behaviour, tool.as_deref(), wants_usage.then_some(usage)),
        );
    }
    let message = match &tool {
        Some(name) => json!({"role": "assistant", "content": null, "tool_calls": [call(name)]}),
        None => json!({"role": "assistant", "content": words(behaviour.words).collect::<String>()}),
    };
    let choice = json!({"index": 0, "message": message, "finish_reason": reason(tool.as_deref()), "logprobs": null});
    let mut body = json!({"id": ID, "object": "chat.completion", "created": 0, "model": model, "choices": [choice]});
    if behaviour.usage != Usage::Missing {
        body["usage"] = usage;
    }
    give(&seen, "application/json", whole(&behaviour, &body.to_string()))
}

fn stream(model: &str, behaviour: &Behaviour, tool: Option<&str>, usage: Option<Value>) -> Vec<AnswerPart> {
    let chunk = |delta: Value, reason: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": reason, "logprobs": null});
        let mut chunk = json!({
            "id": ID, "object": "chat.completion.chunk", "created": 0, "model": model, "choices": [choice],
        });
        if usage.is_some() {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    let mut steps = vec![AnswerPart::Send(event(&chunk(json!({"role": "assistant", "content": ""}), None)))];
    if let Some(name) = tool {
        let mut call = call(name);
        call["index"] = json!(0);
        steps.push(AnswerPart::Send(event(&chunk(json!({"tool_calls": [call]}), None))));
    } else {
        let error = json!({"error": {"message": "the model failed", "type": "server_error", "code": null}});
        let (said, whole) = streamed(behaviour, &error, |word| event(&chunk(json!({"content": word}), None)));
        steps.extend(said);
        if !whole {
            return steps;
        }
    }
    steps.push(AnswerPart::Send(event(&chunk(json!({}), Some(reason(tool))))));
    if let Some(usage) = usage {
        let last = json!({
            "id": ID, "object": "chat.completion.chunk", "created": 0, "model": model, "choices": [], "usage": usage,
        });
        steps.push(AnswerPart::Send(event(&last)));
    }
    if !behaviour.no_done {
        steps.push(AnswerPart::Send("data: [DONE]\n\n".into()));
    }
    steps
}

/// Returns the name of the first tool, unless the request has its result already.
fn wanted_tool(request: &Value) -> Option<String> {
    let answered = request["messages"].as_array()?.last().is_some_and(|message| message["role"] == "tool");
    let name = request["tools"][0]["function"]["name"].as_str()?;
    (!answered).then(|| name.to_owned())
}

fn call(name: &str) -> Value {
    json!({"id": "call_local", "type": "function", "function": {"name": name, "arguments": "{}"}})
}

fn reason(tool: Option<&str>) -> &'static str {
    if tool.is_some() { "tool_calls" } else { "stop" }
}
