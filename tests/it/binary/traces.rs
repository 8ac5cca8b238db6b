//! Traces as a collector receives them: a request continues its caller's trace, and a batch links to its requests.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};
use prost::Message;
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpListener;

use super::process::Serve;
use crate::support::{World, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    async fn start(&self) -> String {
        let take = async |State(collector): State<Self>, body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            collector.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
            ""
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn find(&self, wanted: impl Fn(&Span) -> bool) -> Option<Span> {
        self.0.lock().unwrap().iter().find(|span| wanted(span)).cloned()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[tokio::test]
async fn requests_continue_their_callers_trace_and_batches_and_flushes_are_traced() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let world = World::new().await;
    let settings = [
        ("QUOTA_GATE__TELEMETRY__OTLP_ENDPOINT", endpoint.as_str()),
        ("QUOTA_GATE__TELEMETRY__TRACE_SAMPLE_RATIO", "1"),
    ];
    let gate = Serve::on(&world.database, &world.redis.url(), &settings).await;
    let body = json!({"userUuid": "ann", "sessionId": "s"});
    let request = gate.service(Method::POST, "/api/chat/quota/consume").json(&body);
    let answer = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);

    eventually("the request's span arrives", async || {
        collector.find(|span| span.name == "request" && hex(&span.trace_id) == TRACE).is_some()
    })
    .await;
    let request = collector.find(|span| span.name == "request" && hex(&span.trace_id) == TRACE).unwrap();
    assert_eq!(hex(&request.parent_span_id), CALLER);
    let of_request = |span: &Span| span.links.iter().any(|link| link.span_id == request.span_id);
    eventually("its batch's span arrives", async || {
        collector.find(|span| span.name == "batch" && of_request(span)).is_some()
    })
    .await;
    eventually("a flush's span arrives", async || collector.find(|span| span.name == "flush").is_some()).await;
    let text = format!("{:?}", collector.0.lock().unwrap());
    assert!(
        !text.contains("\"ann\"") && !text.contains(super::process::SERVICE_TOKEN),
        "a trace contains a user or a token"
    );
}

#[tokio::test]
async fn an_unavailable_collector_affects_no_message_and_an_invalid_setting_is_reported() {
    let world = World::new().await;
    let away = [("QUOTA_GATE__TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:1/v1/traces")];
    let gate = Serve::on(&world.database, &world.redis.url(), &away).await;
    let body = json!({"userUuid": "ann", "sessionId": "s"});
    assert_eq!(gate.post("/api/chat/quota/consume", body).await.0.as_u16(), 200);
    let wrong = [
        ("QUOTA_GATE__TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:1/"),
        ("QUOTA_GATE__TELEMETRY__TRACE_SAMPLE_RATIO", "2"),
    ];
    let said = Serve::refused(&world.database, &world.redis.url(), &wrong);
    assert!(said.contains("telemetry.trace_sample_ratio must be 0 to 1"), "{said}");
}
