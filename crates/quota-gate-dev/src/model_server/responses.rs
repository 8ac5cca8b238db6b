//! `POST /v1/responses`, as described at <https://platform.openai.com/docs/api-reference/responses>.

use std::sync::Arc;

use axum::{Json, extract::State, response::Response};
use serde_json::{Value, json};

use super::{
    Seen,
    answer::{AnswerPart, give, streamed, tokens_of, whole, words},
    begin,
    behaviour::{Behaviour, Usage},
};

const ITEM: &str = "msg_local";

pub(super) async fn respond(State(seen): State<Arc<Seen>>, Json(request): Json<Value>) -> Response {
    let behaviour = match begin(&seen, &request).await {
        Ok(behaviour) => behaviour,
        Err(instead) => return instead,
    };
    let model = request["model"].as_str().unwrap_or_default();
    let input = tokens_of(&request["input"]);
    let mut usage = json!({
        "input_tokens": input, "output_tokens": behaviour.words, "total_tokens": input + behaviour.words,
        "input_tokens_details": {"cached_tokens": behaviour.cached}, "output_tokens_details": {"reasoning_tokens": 0},
    });
    if behaviour.usage == Usage::Odd {
        usage["prompt_tokens"] = json!(-1);
    }
    let usage = if behaviour.usage == Usage::Missing { Value::Null } else { usage };
    let text: String = words(behaviour.words).collect();
    if request["stream"] == true {
        return give(&seen, "text/event-stream", stream(model, &behaviour, &text, &usage));
    }
    let body = response(model, "completed", &[message(&text)], &usage);
    give(&seen, "application/json", whole(&behaviour, &body.to_string()))
}

fn stream(model: &str, behaviour: &Behaviour, text: &str, usage: &Value) -> Vec<AnswerPart> {
    let mut number = 0;
    let mut event = |kind: &str, mut members: Value| {
        members["type"] = json!(kind);
        members["sequence_number"] = json!(number);
        number += 1;
        format!("event: {kind}\ndata: {members}\n\n")
    };
    let begun = response(model, "in_progress", &[], &Value::Null);
    let part = json!({"type": "output_text", "text": "", "annotations": []});
    let item = json!({"id": ITEM, "type": "message", "status": "in_progress", "role": "assistant", "content": []});
    let at = |members: Value| {
        let mut at = json!({"item_id": ITEM, "output_index": 0, "content_index": 0});
        at.as_object_mut().into_iter().for_each(|at| at.extend(members.as_object().cloned().unwrap_or_default()));
        at
    };
    let mut steps = vec![
        AnswerPart::Send(event("response.created", json!({"response": begun}))),
        AnswerPart::Send(event("response.output_item.added", json!({"output_index": 0, "item": item}))),
        AnswerPart::Send(event("response.content_part.added", at(json!({"part": part})))),
    ];
    let error = json!({"type": "error", "code": "server_error", "message": "the model failed", "param": null});
    let (said, whole) = streamed(behaviour, &error, |word| {
        event("response.output_text.delta", at(json!({"delta": word, "logprobs": []})))
    });
    steps.extend(said);
    if whole {
        let done = at(json!({"text": text, "logprobs": []}));
        let completed = response(model, "completed", &[message(text)], usage);
        steps.push(AnswerPart::Send(event("response.output_text.done", done)));
        steps.push(AnswerPart::Send(event(
            "response.output_item.done",
            json!({"output_index": 0, "item": message(text)}),
        )));
        steps.push(AnswerPart::Send(event("response.completed", json!({"response": completed}))));
    }
    steps
}

fn response(model: &str, status: &str, output: &[Value], usage: &Value) -> Value {
    json!({
        "id": "resp_local", "object": "response", "created_at": 0, "status": status, "error": null,
        "incomplete_details": null, "instructions": null, "metadata": {}, "model": model, "output": output,
        "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "usage": usage,
    })
}

fn message(text: &str) -> Value {
    let part = json!({"type": "output_text", "text": text, "annotations": []});
    json!({"id": ITEM, "type": "message", "status": "completed", "role": "assistant", "content": [part]})
}
