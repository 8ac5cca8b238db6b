//! The HTTP API: routes, authentication, problems, and the server loop.
//!
//! | file | what |
//! | --- | --- |
//! | `client_address` | the client's address behind trusted proxies |
//! | `listener`, `server`, `write_stall` | listening sockets; the server loop; disconnects clients that stop reading |
//! | `route_group`, `observe`, `rate_limit` | for every request: admission, metrics and logs, rate limits |
//! | `auth`, `extract` | callers and their scopes; bodies, parameters and headers as domain values |
//! | `routes` | the handlers, which are thin: extract, call the gate, map |
//! | `answers` | quotas, problems, headers; only `problem` maps errors to status codes |
//! | `meter` | the meter of a route |
//! | `cors` | which web pages of other origins may call the gate |
//! | `state` | state shared by all handlers |
//! | `openapi`, `pages` | the OpenAPI contract; the pages of `web/pages` |
//!
//! Two other APIs have their own modules: `openai`, the proxy, and `envoy`, over gRPC. Clients read `docs/http-api.md`.

pub mod auth;
pub mod client_address;
pub mod listener;
pub mod server;

pub(crate) mod answers;
mod cors;
pub(crate) mod extract;
mod meter;
pub(crate) mod model_access;
mod observe;
mod openapi;
mod pages;
mod rate_limit;
mod route_group;
pub(crate) mod routes;
pub(crate) mod state;
pub(crate) mod stream_permits;
mod token_counts;
mod write_stall;

use axum::{
    Router,
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::{get, post, put},
};

use self::{
    answers::problem::{self, Problem},
    route_group::{PermitKind, RouteGroup, admit},
};
pub use self::{
    answers::remedies::Shop,
    auth::{Auth, JwtOptions, TokenOptions},
    cors::{Cors, cors},
    meter::MeterSettings,
    openapi::openapi_json,
    pages::demo_page,
    rate_limit::{RateLimitOptions, RateLimits},
    server::{ServerOptions, serve},
    state::{AppParts, AppState, Limits, Readiness},
};
use crate::{
    billing::subscription,
    openai::{self, OpenAiError, Proxy},
};

/// The settlements of a meter.
#[rustfmt::skip]
fn settlement_routes(meter: &MeterSettings) -> Router<AppState> {
    use routes::reservations;

    Router::new()
        .route(&meter.path("/reservations/{id}/commit"),  post(reservations::commit))
        .route(&meter.path("/reservations/{id}/release"), post(reservations::release))
        .route(&meter.path("/reservations/{id}/extend"),  post(reservations::extend))
}

/// The other routes that every meter has.
#[rustfmt::skip]
fn request_routes(meter: &MeterSettings) -> Router<AppState> {
    use routes::{consume, grants, quota, quota_stream, reservations, transfers};

    Router::new()
        .route(&meter.path(""),                  get(quota::quota))
        .route(&meter.path("/stream"),           get(quota_stream::stream_quota))
        .route(&meter.path("/consume"),          post(consume::consume))
        .route(&meter.path("/reservations"),     post(reservations::reserve))
        .route(&meter.path("/grants"),           post(grants::give).get(grants::list))
        .route(&meter.path("/grants/{id}/void"), post(grants::void))
        .route(&meter.path("/transfers"),        post(transfers::transfer))
        .route(&meter.path("/transfers/{id}"),   get(transfers::show))
}

/// Returns all routes. `meters` are the states of the meters beside the chat.
#[rustfmt::skip]
pub fn router(state: AppState, meters: Vec<AppState>) -> Router {
    use routes::{authorize, health, level, reset};
    use routes::admin::{changes, drift, heavy_users, holds, level as user_level, messages, own_quota, price_replay};
    use routes::admin::{refund, rollout, status, usage, users};

    let settlements = settlement_routes(state.meter());

    let requests = request_routes(state.meter())
        .route("/api/chat/quota/authorize",    get(authorize::authorize).post(authorize::authorize))
        .route("/api/chat/quota/level",        put(level::change))
        .route("/api/chat/quota/membership",   put(level::change)); // older alias

    let operations = Router::new()
        .route("/api/chat/quota/reset", get(reset::health).post(reset::run))
        .route("/healthz",              get(health::live))
        .route("/readyz",               get(health::ready))
        .route("/metrics",              get(health::metrics))
        .route("/openapi.json",         get(openapi::document))
        .fallback(meter::no_such_route);

    let administration = Router::new()
        .route("/api/admin/users",                             get(users::list))
        .route("/api/admin/users/{user}",                      get(users::show))
        .route("/api/admin/users/{user}/messages",             get(messages::list))
        .route("/api/admin/users/{user}/messages/{usage}/refund", post(refund::refund))
        .route("/api/admin/users/{user}/level",                put(user_level::change))
        .route("/api/admin/users/{user}/quota",                put(own_quota::quota))
        .route("/api/admin/users/{user}/block",                put(own_quota::block))
        .route("/api/admin/users/{user}/holds/{hold}/release", post(holds::release))
        .route("/api/admin/changes",                           get(changes::list))
        .route("/api/admin/usage",                             get(usage::usage))
        .route("/api/admin/top-users",                         get(heavy_users::top))
        .route("/api/admin/forecast",                          get(heavy_users::forecast))
        .route("/api/admin/drift",                             get(drift::compare))
        .route("/api/admin/price-replay",                      post(price_replay::replay))
        .route("/api/admin/status",                            get(status::status))
        .route("/api/admin/rollout",                           get(rollout::show).patch(rollout::change));

    let billing = Router::new()
        .route("/api/billing/subscription",  post(subscription::receive))
        .route("/api/webhooks/subscription", post(subscription::receive)); // older alias

    // OpenAI's API, served by the proxy.
    let models = Router::new()
        .route("/v1/chat/completions", post(openai::chat_completions))
        .route("/v1/responses",        post(openai::responses))
        .route("/v1/models",           get(openai::models))
        .route("/v1/models/{model}",   get(openai::model))
        .method_not_allowed_fallback(openai::no_such_method)
        .merge(openai::other_paths());

    let admitted = |routes: Router<AppState>, group: RouteGroup| {
        routes.layer(from_fn_with_state(group, admit))
    };
    // Users' JWTs are accepted here, so browsers may call these.
    let for_browsers = |routes: Router<AppState>| match state.cors() {
        Some(cors) => routes.layer(cors.clone()),
        None => routes,
    };
    let body_bytes_max = state.limits().body_bytes_max;
    let group = |permit| RouteGroup {
        state: state.clone(), permit, body_bytes_max, format_problem: Problem::into_response,
    };
    let billing_group = RouteGroup { body_bytes_max: subscription::BODY_BYTES_MAX, ..group(PermitKind::Request) };
    let models_group = RouteGroup {
        body_bytes_max: state.proxy().map_or(body_bytes_max, Proxy::body_bytes_max),
        format_problem: OpenAiError::response,
        ..group(PermitKind::None)
    };
    let [settlements, requests, operations, administration, billing] =
        [settlements, requests, operations, administration, billing]
            .map(|routes| routes.method_not_allowed_fallback(problem::no_such_method));
    let of_meters = meters.into_iter().map(|meter| {
        let group = |permit| RouteGroup { state: meter.clone(), ..group(permit) };
        let [settlements, requests] = [settlement_routes(meter.meter()), request_routes(meter.meter())]
            .map(|routes| routes.method_not_allowed_fallback(problem::no_such_method));
        for_browsers(admitted(settlements, group(PermitKind::Settlement)))
            .merge(for_browsers(admitted(requests, group(PermitKind::Request))))
            .with_state(meter)
    });
    let of_meters = of_meters.fold(Router::new(), Router::merge);
    for_browsers(admitted(settlements, group(PermitKind::Settlement)))
        .merge(for_browsers(admitted(requests, group(PermitKind::Request))))
        .merge(admitted(operations, group(PermitKind::None)))
        .merge(admitted(administration, group(PermitKind::None)))
        .merge(admitted(billing, billing_group))
        .merge(for_browsers(admitted(models, models_group)))
        .merge(pages::pages())
        .with_state(state)
        .merge(of_meters)
}
