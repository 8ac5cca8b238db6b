//! The HTTP face of the gate: routes, authentication, problems, and the server loop.
//!
//! Besides its own API it speaks two others: `openai`, as a proxy, and `envoy`, over gRPC.
//!
//! Handlers are thin: extract, call the gate, map. Only `error` knows status codes. `docs/http-api.md` tells clients what
//! is here.

pub mod auth;
pub mod server;

mod admission;
mod envoy;
mod error;
mod extract;
mod headers;
mod hex;
mod observe;
mod openai;
mod openapi;
mod pages;
mod rate_limit;
mod refusals;
mod routes;
mod state;
mod write_stall;

use axum::{
    Router,
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::{get, post, put},
};

use self::{
    admission::{Entrance, Permits, enter},
    error::Problem,
    openai::OpenAiError,
};
pub use self::{
    auth::{Auth, JwtOptions, TokenOptions},
    envoy::{RateLimitService, serve as serve_envoy},
    openai::{Proxy, ProxyLimits, Upstream, UpstreamOptions},
    openapi::openapi_json,
    pages::demo_page,
    rate_limit::{RateLimitOptions, RateLimits},
    routes::subscription::Billing,
    server::{ServerOptions, serve},
    state::{AppState, Limits, Readiness},
};

/// Every route.
#[rustfmt::skip]
pub fn router(state: AppState) -> Router {
    use routes::{authorize, health, membership, quota, quota_stream, consume, reservations, reset, subscription};
    use routes::admin::{changes, drift, heavy_users, holds, level, messages, rollout, status, usage, users};

    let settlements = Router::new()
        .route("/api/chat/quota/reservations/{id}/commit",  post(reservations::commit))
        .route("/api/chat/quota/reservations/{id}/release", post(reservations::release))
        .route("/api/chat/quota/reservations/{id}/extend",  post(reservations::extend));

    let requests = Router::new()
        .route("/api/chat/quota",              get(quota::quota))
        .route("/api/chat/quota/stream",       get(quota_stream::stream_quota))
        .route("/api/chat/quota/authorize",    get(authorize::authorize).post(authorize::authorize))
        .route("/api/chat/quota/consume",      post(consume::consume))
        .route("/api/chat/quota/reservations", post(reservations::reserve))
        .route("/api/chat/quota/membership",   put(membership::change));

    let operations = Router::new()
        .route("/api/chat/quota/reset", get(reset::health).post(reset::run))
        .route("/healthz",              get(health::live))
        .route("/readyz",               get(health::ready))
        .route("/metrics",              get(health::metrics))
        .route("/openapi.json",         get(openapi::document))
        .fallback(error::no_such_route);

    let administration = Router::new()
        .route("/api/admin/users",                             get(users::list))
        .route("/api/admin/users/{user}",                      get(users::show))
        .route("/api/admin/users/{user}/messages",             get(messages::list))
        .route("/api/admin/users/{user}/level",                put(level::change))
        .route("/api/admin/users/{user}/holds/{hold}/release", post(holds::release))
        .route("/api/admin/changes",                           get(changes::list))
        .route("/api/admin/usage",                             get(usage::usage))
        .route("/api/admin/top-users",                         get(heavy_users::top))
        .route("/api/admin/forecast",                          get(heavy_users::forecast))
        .route("/api/admin/drift",                             get(drift::compare))
        .route("/api/admin/status",                            get(status::status))
        .route("/api/admin/rollout",                           get(rollout::show).patch(rollout::change));

    let billing = Router::new().route("/api/webhooks/subscription", post(subscription::receive));

    // The API that the proxy speaks.
    let models = Router::new()
        .route("/v1/chat/completions", post(openai::chat_completions))
        .route("/v1/responses",        post(openai::responses))
        .route("/v1/models",           get(openai::models))
        .route("/v1/models/{model}",   get(openai::model));

    let of = |group: Router<AppState>, permits, body_bytes_max| {
        let entrance = Entrance { state: state.clone(), permits, body_bytes_max, tell: Problem::into_response };
        group.method_not_allowed_fallback(error::no_such_method).layer(from_fn_with_state(entrance, enter))
    };
    let entered = |group, permits| of(group, permits, state.limits().body_bytes_max);
    let proxied = |group: Router<AppState>| {
        let body_bytes_max = state.proxy().map_or(state.limits().body_bytes_max, Proxy::body_bytes_max);
        let tell = OpenAiError::response;
        let entrance = Entrance { state: state.clone(), permits: Permits::None, body_bytes_max, tell };
        group.method_not_allowed_fallback(error::no_such_method).layer(from_fn_with_state(entrance, enter))
    };
    entered(settlements, Permits::Settlements)
        .merge(entered(requests, Permits::Requests))
        .merge(entered(operations, Permits::None))
        .merge(entered(administration, Permits::None))
        .merge(of(billing, Permits::Requests, subscription::BODY_BYTES_MAX))
        .merge(proxied(models))
        .merge(pages::pages())
        .with_state(state)
}
