//! An upstream whose next answer a test writes byte by byte, and a gate in front of it.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Uri},
    response::Response as UpstreamResponse,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{process::Serve, proxy::Chat};
use crate::support::World;

pub(super) const SSE: &str = "text/event-stream";
pub(super) const CHAT: &str = "/v1/chat/completions";
pub(super) const RESPONSES: &str = "/v1/responses";
/// A chunk with a word of an answer.
pub(super) const WORD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"word\"},\"finish_reason\":null}]}\n\n";
pub(super) const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
pub(super) const DONE: &str = "data: [DONE]\n\n";
/// The event that the gate requests and hides.
pub(super) const USAGE: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}\n\n";

/// An answer of the upstream.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    pieces: VecDeque<Bytes>,
    stalls: bool,
}

impl Reply {
    pub(super) fn new(content_type: &str, body: impl Into<Bytes>) -> Self {
        Self { status: 200, ..Self::default() }.header("content-type", content_type).piece(body)
    }

    /// Events of which none is added.
    pub(super) fn events(events: &[&str]) -> Self {
        Self::new(SSE, events.concat())
    }

    /// A JSON document.
    pub(super) fn whole(body: &str) -> Self {
        Self::new("application/json", body.to_owned())
    }

    pub(super) fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// An empty value removes the header.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(of, _)| *of != name);
        if !value.is_empty() {
            self.headers.push((name, value.to_owned()));
        }
        self
    }

    /// Adds a piece that is sent on its own.
    pub(super) fn piece(mut self, piece: impl Into<Bytes>) -> Self {
        self.pieces.push_back(piece.into());
        self
    }

    /// Sends nothing more, and does not end.
    pub(super) fn stalls(self) -> Self {
        Self { stalls: true, ..self }
    }

    fn respond(self) -> UpstreamResponse {
        let pieces = stream::iter(self.pieces).map(io::Result::Ok);
        let rest = if self.stalls { stream::pending().left_stream() } else { stream::empty().right_stream() };
        let mut response = UpstreamResponse::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(Body::from_stream(pieces.chain(rest))).unwrap()
    }
}

/// The upstream.
#[derive(Debug, Default)]
pub(super) struct Script {
    next: Mutex<Reply>,
    received: Mutex<Vec<(Uri, HeaderMap, Bytes)>>,
}

impl Script {
    async fn start(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(reply).with_state(Arc::clone(self));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }
}

async fn reply(State(script): State<Arc<Script>>, request: Request) -> UpstreamResponse {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    script.received.lock().unwrap().push((parts.uri, parts.headers, body));
    let reply = script.next.lock().unwrap().clone();
    reply.respond()
}

impl Chat<Arc<Script>> {
    /// A gate in front of a scripted upstream, where a message costs 5 AP and one of the model `dear` 40.
    pub(super) async fn scripted(settings: &[(&str, &str)]) -> Self {
        let (upstream, world) = (Arc::<Script>::default(), World::new().await);
        let url = upstream.start().await;
        let mut all = vec![
            ("QUOTA_GATE__UPSTREAM__URL", url.as_str()),
            ("QUOTA_GATE__UPSTREAM__KEY", "key"),
            ("QUOTA_GATE__MODELS", "{default=5, dear=40}"),
        ];
        all.extend_from_slice(settings);
        let gate = Serve::on(&world.database, &world.redis.url(), &all).await;
        Self { world, upstream, gate }
    }

    /// Sets what the upstream answers from now on.
    pub(super) fn answers(&self, reply: Reply) {
        *self.upstream.next.lock().unwrap() = reply;
    }

    /// Sends a body as this user.
    pub(super) async fn send(&self, who: &str, path: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.gate.service(Method::POST, path).header("X-User-Id", who);
        request.header("Content-Type", "application/json").body(body).send().await.unwrap()
    }

    /// Sends a message. Returns the text that the client gets, and the charged AP.
    pub(super) async fn costs(&self, who: &str, path: &str, stream: bool, reply: Reply) -> (String, u64) {
        self.answers(reply);
        let body = json!({"model": "m", "stream": stream, "messages": [], "input": "hello"});
        let text = self.send(who, path, body.to_string()).await.text().await.unwrap_or_default();
        (text, self.settled(who).await)
    }

    /// Number of requests that reached the upstream.
    pub(super) fn asked(&self) -> usize {
        self.upstream.received.lock().unwrap().len()
    }

    /// Path, headers and body of the last request that reached the upstream.
    pub(super) fn received(&self) -> (String, HeaderMap, String) {
        let (uri, headers, body) = self.upstream.received.lock().unwrap().last().unwrap().clone();
        (uri.path().to_owned(), headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Value of a counter with this label; 0 if it has none yet.
    pub(super) async fn counted(&self, counter: &str, label: &str) -> f64 {
        let text = self.gate.service(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let series = format!("{counter}{{{label}}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// The error of a response in OpenAI's format.
pub(super) async fn error_of(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}"));
    let error = body["error"].clone();
    assert!(error["message"].is_string() && error["type"].is_string(), "{status} {text}");
    (status, error)
}
