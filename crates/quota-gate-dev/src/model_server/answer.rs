//! An answer as a list of steps, and its delivery to the client.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use futures_util::stream;
use serde_json::Value;
use tokio::{sync::mpsc, time::sleep};

use super::{Seen, behaviour::Behaviour};

/// The local model's only text, repeated as often as needed.
const TEXT: &str =
    "This is the local model of quota gate. It has only this text, but streams it like a large model: word by word.";

/// One step of an answer.
pub(super) enum AnswerPart {
    Send(String),
    Pause(Duration),
    /// Breaks the connection.
    Cut,
    /// Sends nothing more and keeps the connection open.
    Stall,
}

/// Returns `count` words of the text, each with the space before it.
pub(super) fn words(count: usize) -> impl Iterator<Item = String> {
    let of_text = TEXT.split_whitespace().cycle().take(count).enumerate();
    of_text.map(|(at, word)| if at == 0 { word.to_owned() } else { format!(" {word}") })
}

/// Returns the number of words, which is close to a real model's number of tokens.
pub(super) fn tokens_of(input: &Value) -> usize {
    match input {
        Value::String(text) => text.split_whitespace().count(),
        Value::Array(items) => items.iter().map(tokens_of).sum(),
        Value::Object(members) => {
            ["content", "text", "input"].iter().filter_map(|name| members.get(*name)).map(tokens_of).sum()
        }
        _ => 0,
    }
}

/// Returns the words of a stream as steps, with the requested misbehaviour, and whether they are complete. `piece`
/// turns a word into an event.
pub(super) fn streamed(
    behaviour: &Behaviour,
    error: &Value,
    mut piece: impl FnMut(String) -> String,
) -> (Vec<AnswerPart>, bool) {
    let mut steps = Vec::new();
    let mut said = words(behaviour.words);
    for at in 0..=behaviour.words {
        if behaviour.cut == Some(at) {
            steps.push(AnswerPart::Cut);
            return (steps, false);
        }
        if behaviour.stall == Some(at) {
            steps.push(AnswerPart::Stall);
            return (steps, false);
        }
        if behaviour.error == Some(at) {
            steps.push(AnswerPart::Send(event(error)));
            return (steps, false);
        }
        if let Some(word) = said.next() {
            steps.push(AnswerPart::Pause(behaviour.pace));
            steps.push(AnswerPart::Send(piece(word)));
        }
    }
    (steps, true)
}

/// Returns a whole body as steps. `cut` and `stall` take effect in its middle, or before it if they are 0.
pub(super) fn whole(behaviour: &Behaviour, text: &str) -> Vec<AnswerPart> {
    let (first, rest) = text.split_at(text.len() / 2);
    let first = AnswerPart::Send(first.to_owned());
    match (behaviour.cut, behaviour.stall) {
        (Some(0), _) => vec![AnswerPart::Cut],
        (Some(_), _) => vec![first, AnswerPart::Cut],
        (_, Some(0)) => vec![AnswerPart::Stall],
        (_, Some(_)) => vec![first, AnswerPart::Stall],
        (None, None) => vec![first, AnswerPart::Send(rest.to_owned())],
    }
}

/// Formats a server-sent event: `data: …`.
pub(super) fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// Starts to run the steps, in order, until the client disconnects. Returns the response.
pub(super) fn give(seen: &Arc<Seen>, content_type: &'static str, steps: Vec<AnswerPart>) -> Response {
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(1);
    let seen = Arc::clone(seen);
    seen.under_way.fetch_add(1, Ordering::SeqCst);
    tokio::spawn(async move {
        let completed = tokio::select! {
            completed = take(steps, &sender) => completed,
            () = sender.closed() => false,
        };
        seen.answered.fetch_add(completed.into(), Ordering::SeqCst);
        seen.under_way.fetch_sub(1, Ordering::SeqCst);
    });
    let body = Body::from_stream(stream::poll_fn(move |context| receiver.poll_recv(context)));
    let response = Response::builder().header("content-type", content_type).header("x-request-id", "req_local");
    response.body(body).unwrap_or_default()
}

/// Runs the steps. Returns whether the client received all of them.
async fn take(steps: Vec<AnswerPart>, sender: &mpsc::Sender<io::Result<Bytes>>) -> bool {
    for step in steps {
        match step {
            AnswerPart::Send(text) => {
                if sender.send(Ok(text.into())).await.is_err() {
                    return false;
                }
            }
            AnswerPart::Pause(pause) => sleep(pause).await,
            AnswerPart::Cut => {
                let _ = sender.send(Err(io::Error::other("cut, as requested"))).await;
                return false;
            }
            AnswerPart::Stall => std::future::pending().await,
        }
    }
    true
}
