//! The middleware: the outcome of a message decides its charge, and no hold remains.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::Request,
    http::request::Parts,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{StreamExt, future::join_all, stream};
use http_body_util::BodyExt;
use quota_gate::domain::{
    ap::Ap,
    hold::Ttl,
    rollout::{Mode, Rollout},
    usage::Tokens,
    user_id::SessionId,
};
use quota_gate_axum::{AnswerCost, Ask, ClientGone, QuotaLayer, Refusal, Settlements};
use tower::{Layer, Service, ServiceExt};

use crate::support::{GateUnderTest, World, eventually, user};

type Chat = axum::routing::RouterIntoService<Body>;

#[expect(clippy::result_large_err, reason = "the error is the answer, as in every handler")]
fn ask(parts: &Parts) -> Result<Ask, Response> {
    let who = parts.headers.get("x-user").and_then(|who| who.to_str().ok());
    let who = who.ok_or_else(|| "who?".into_response())?;
    Ok(Ask { user: user(who), session: SessionId::parse("chat-1").unwrap(), ap: Ap::new(5) })
}

fn refuse(refusal: Refusal) -> Response {
    let why = match refusal {
        Refusal::Denied(denied) => format!("denied, {} short", denied.shortfall()),
        Refusal::Failed(error) => format!("failed: {error}"),
    };
    why.into_response()
}

/// A piece of an answer.
type Piece = Result<Bytes, std::io::Error>;

#[expect(clippy::unnecessary_wraps, reason = "same type as pieces that are errors")]
fn piece(text: &'static str) -> Piece {
    Ok(Bytes::from_static(text.as_bytes()))
}

fn broken() -> Piece {
    Err(std::io::Error::other("the model is gone"))
}

fn streamed(pieces: Vec<Piece>) -> Response {
    Body::from_stream(stream::iter(pieces)).into_response()
}

/// Returns a chat service. The path selects what it does.
fn chat(gate: &GateUnderTest, change: impl FnOnce(Layered) -> Layered) -> (Chat, Settlements) {
    let endless = || stream::once(async { piece("once") }).chain(stream::pending::<Piece>());
    let service = Router::new()
        .route("/whole", get(|| async { "hello" }))
        .route(
            "/answer_cost",
            get(|Extension(answer_cost): Extension<AnswerCost>| async move {
                answer_cost.set(Ap::new(2), Tokens::new(30).unwrap());
                "hello"
            }),
        )
        .route("/stream", get(|| async { streamed(vec![piece("a"), piece("b")]) }))
        .route("/error", get(|| async { (axum::http::StatusCode::BAD_GATEWAY, "no").into_response() }))
        .route("/panic", get(|| async { panic!("a handler panics") as &'static str }))
        .route("/broken-before", get(|| async { streamed(vec![broken()]) }))
        .route("/broken-after", get(|| async { streamed(vec![piece("a"), broken()]) }))
        .route("/endless", get(async move || Body::from_stream(endless()).into_response()))
        .route("/never", get(|| async { std::future::pending::<&'static str>().await }))
        .route(
            "/declared",
            get(async move || {
                Response::builder().header("x", "y").body(Body::new(Declared(10, endless().boxed()))).unwrap()
            }),
        );
    let layer = change(QuotaLayer::new(gate.gate.clone(), ask, refuse));
    let settlements = layer.settlements();
    (Router::new().fallback_service(layer.layer(service.into_service())).into_service(), settlements)
}

type Layered = QuotaLayer<fn(&Parts) -> Result<Ask, Response>, fn(Refusal) -> Response>;

/// A stream that declares its length.
struct Declared(u64, futures_util::stream::BoxStream<'static, Piece>);

impl http_body::Body for Declared {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        self.1.poll_next_unpin(context).map(|piece| piece.map(|piece| piece.map(http_body::Frame::data)))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0)
    }
}

fn request(path: &str, who: &str) -> Request {
    Request::builder().uri(path).header("x-user", who).body(Body::empty()).unwrap()
}

async fn ask_for(chat: &Chat, path: &str, who: &str) -> Result<Response, Infallible> {
    chat.clone().oneshot(request(path, who)).await
}

/// Returns used and held AP after all settlements.
async fn settled(gate: &GateUnderTest, settlements: &Settlements, who: &str) -> (u32, u32) {
    settlements.finished().await;
    let quota = gate.gate.quota(&user(who)).await.unwrap();
    (quota.used.get(), quota.held.get())
}

#[tokio::test]
async fn answer_is_charged_only_when_its_body_has_ended() {
    let world = World::new().await;
    let gate = world.gate().await;
    let (chat, settlements) = chat(&gate, |layer| layer);
    let answer = ask_for(&chat, "/stream", "alice").await.unwrap();
    assert_eq!(settled(&gate, &settlements, "alice").await, (0, 5), "held until the body ends");
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ab");
    assert_eq!(settled(&gate, &settlements, "alice").await, (5, 0));
    ask_for(&chat, "/answer_cost", "bob").await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(settled(&gate, &settlements, "bob").await, (2, 0), "the cost that the handler set");
    ask_for(&chat, "/whole", "carol").await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(settled(&gate, &settlements, "carol").await, (5, 0));
    gate.flush_and_verify().await;
    assert_eq!(world.number("select tokens_used::bigint from chat_usage_logs where user_uuid = 'bob'").await, 30);
}

#[tokio::test]
async fn failed_message_costs_nothing() {
    let world = World::new().await;
    let gate = world.gate().await;
    let (chat, settlements) = chat(&gate, |layer| layer);
    assert!(ask_for(&chat, "/error", "alice").await.unwrap().status().is_server_error());
    assert!(ask_for(&chat, "/broken-before", "alice").await.unwrap().into_body().collect().await.is_err());
    let panicking = chat.clone();
    let panicked = tokio::spawn(async move { ask_for(&panicking, "/panic", "alice").await }).await;
    assert!(panicked.unwrap_err().is_panic(), "the panic reaches the caller");
    // The client disconnects before the answer.
    let mut waiting = chat.clone();
    let answer = Service::call(&mut waiting, request("/never", "alice"));
    let held = eventually("the AP is held", async || gate.gate.quota(&user("alice")).await.unwrap().held.get() == 5);
    tokio::select! {
        _ = answer => panic!("there is no answer"),
        () = held => {}
    }
    assert_eq!(settled(&gate, &settlements, "alice").await, (0, 0));
}

#[tokio::test]
async fn client_that_disconnects_while_reserving_leaves_no_hold() {
    let world = World::new().await;
    let gate = world.gate().await;
    let (chat, settlements) = chat(&gate, |layer| layer);
    assert!(gate.charges("alice", 1).await);
    // The client disconnects before, during and after the call to Redis.
    for moment in 0..15 {
        let mut waiting = chat.clone();
        let mut answer = Box::pin(Service::call(&mut waiting, request("/never", "alice")));
        assert!(futures_util::poll!(&mut answer).is_pending());
        for _ in 0..moment {
            tokio::task::yield_now().await;
        }
        drop(answer);
    }
    assert_eq!(settled(&gate, &settlements, "alice").await, (1, 0));
}

#[tokio::test]
async fn interrupted_answer_is_charged_as_configured() {
    let world = World::new().await;
    let gate = world.gate().await;
    for (who, path, client_gone, charged) in [
        ("a", "/endless", ClientGone::Charge, 5),
        ("b", "/endless", ClientGone::Release, 0),
        ("c", "/declared", ClientGone::Proportion, 2),
        ("d", "/endless", ClientGone::Proportion, 5),
        ("e", "/broken-after", ClientGone::Charge, 5),
        ("f", "/broken-after", ClientGone::Release, 0),
    ] {
        let (chat, settlements) = chat(&gate, |layer| layer.client_gone(client_gone));
        let mut body = ask_for(&chat, path, who).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().is_ok());
        if path == "/broken-after" {
            assert!(body.frame().await.unwrap().is_err());
        }
        drop(body);
        assert_eq!(settled(&gate, &settlements, who).await, (charged, 0), "{path} {client_gone:?}");
    }
    // A disconnect before any content costs nothing, whatever the setting.
    let (chat, settlements) = chat(&gate, |layer| layer.client_gone(ClientGone::Charge));
    drop(ask_for(&chat, "/endless", "g").await.unwrap());
    assert_eq!(settled(&gate, &settlements, "g").await, (0, 0));
}

#[tokio::test]
async fn hold_of_a_long_answer_lasts_as_long_as_the_answer() {
    let world = World::new().await;
    let gate = world.gate().await;
    let (chat, settlements) = chat(&gate, |layer| layer.ttl(Ttl::from_seconds(1).unwrap()));
    let mut body = ask_for(&chat, "/endless", "alice").await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    let (_, holds) = gate.gate.quota_and_holds(&user("alice")).await.unwrap();
    let first_expiry = holds[0].expiry_ms;
    eventually("the first expiry has passed", async || {
        let quota = gate.gate.quota(&user("alice")).await.unwrap();
        assert_eq!(quota.held.get(), 5, "the AP is still held");
        u64::try_from(quota.as_of.timestamp_millis()).unwrap() > first_expiry + 500
    })
    .await;
    drop(body);
    assert_eq!(settled(&gate, &settlements, "alice").await, (5, 0));
    gate.flush_and_verify().await;
    assert_eq!(world.number("select count(*) from chat_usage_logs where kind = 'commit'").await, 1, "not late");
}

#[tokio::test]
async fn hold_is_not_extended_beyond_the_maximum_lifetime() {
    let world = World::new().await;
    let gate = world.gate().await;
    let short = Ttl::from_seconds(1).unwrap();
    let (chat, _) = chat(&gate, |layer| layer.ttl(short).lifetime_max(Duration::from_millis(100)));
    let mut body = ask_for(&chat, "/endless", "alice").await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    eventually("the hold expires", async || gate.gate.quota(&user("alice")).await.unwrap().held.get() == 0).await;
    drop(body);
}

#[tokio::test]
async fn denied_message_does_not_reach_the_service() {
    let world = World::new().await;
    let gate = world.gate().await;
    let (chat, _) = chat(&gate, |layer| layer);
    assert!(gate.charges("alice", 97).await);
    let answer = ask_for(&chat, "/panic", "alice").await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "denied, 2 short");
    let nobody = chat.clone().oneshot(Request::builder().uri("/panic").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(nobody.into_body().collect().await.unwrap().to_bytes(), "who?");
}

#[tokio::test]
async fn message_that_passes_the_rollout_is_answered_and_costs_nothing() {
    let mut world = World::new().await;
    let gate = world.gate().await;
    let (chat, settlements) = chat(&gate, |layer| layer);
    gate.gate.set_rollout(Rollout { mode: Mode::Off, ..Rollout::default() });
    world.redis.kill().await;
    for path in ["/answer_cost", "/stream"] {
        let answer = ask_for(&chat, path, "alice").await.unwrap();
        assert!(answer.into_body().collect().await.is_ok(), "{path}");
    }
    assert_eq!((settlements.count(), gate.gate.rollout_counts().out), (0, 2));
}

#[tokio::test]
async fn answer_cost_from_the_handler_decides_the_charge() {
    let world = World::new().await;
    let gate = world.gate().await;
    let layer = QuotaLayer::new(gate.gate.clone(), ask as fn(&Parts) -> _, refuse as fn(Refusal) -> _);
    let settlements = layer.settlements();
    let say = |what: &'static str| {
        get(async move |Extension(answer_cost): Extension<AnswerCost>| {
            match what {
                "a preamble and no more" => answer_cost.preamble(),
                "content after a preamble" => {
                    answer_cost.preamble();
                    answer_cost.content_begins();
                }
                "it broke off" => answer_cost.broke_off(),
                "it broke off in its preamble" => {
                    answer_cost.preamble();
                    answer_cost.broke_off();
                }
                _ => {}
            }
            Body::from_stream(stream::iter([piece("a")]).chain(stream::pending()))
        })
    };
    // The client disconnects after the first piece; `broke_off` counts in any case.
    for (number, (what, charged)) in [
        ("nothing", 5),
        ("a preamble and no more", 0),
        ("content after a preamble", 5),
        ("it broke off", 5),
        ("it broke off in its preamble", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let who = format!("user-{number}");
        let service = Router::new().route("/", say(what)).into_service::<Body>();
        let mut body = layer.layer(service).oneshot(request("/", &who)).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(settled(&gate, &settlements, &who).await, (charged, 0), "{what}");
    }
}

#[tokio::test]
async fn two_hundred_interrupted_answers_leave_no_hold_and_charge_what_was_delivered() {
    let world = World::new().await;
    let gate = world.gate().await;
    let (chat, settlements) = chat(&gate, |layer| layer);
    let one = async |number: usize| {
        let who = format!("user-{}", number % 20);
        let path = ["/stream", "/endless", "/error", "/broken-after", "/broken-before", "/whole"][number % 6];
        let mut body = ask_for(&chat, path, &who).await.unwrap().into_body();
        let mut delivered = false;
        // Some clients disconnect before the first piece, some after it, some read to the end.
        for _ in 0..number % 4 {
            let next = tokio::time::timeout(Duration::from_millis(50), body.frame()).await;
            match next {
                Ok(Some(Ok(_))) => delivered = true,
                _ => break,
            }
        }
        u32::from(delivered && path != "/error")
    };
    let charged: u32 = join_all((0..200).map(one)).await.into_iter().sum();
    settlements.finished().await;
    assert_eq!(settlements.count(), 0);
    gate.flush_and_verify().await;
    let ap = world.number("select sum(ap_used)::bigint from chat_usage_logs").await;
    assert_eq!(ap, i64::from(charged) * 5);
    for number in 0..20 {
        assert_eq!(gate.gate.quota(&user(&format!("user-{number}"))).await.unwrap().held.get(), 0);
    }
}
