//! The HTTP face of the gate: routes, authentication, problems, and the server loop.
//!
//! Handlers are thin: extract, call the gate, map. Only `error` knows status codes. `docs/http-api.md` tells clients what
//! is here.

pub mod auth;
pub mod server;

mod admission;
mod error;
mod extract;
mod headers;
mod observe;
mod openapi;
mod rate_limit;
mod refusals;
mod routes;
mod state;

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{get, post, put},
};

use self::admission::{Entrance, Permits, enter};
pub use self::{
    auth::{Auth, JwtOptions, TokenOptions},
    openapi::openapi_json,
    rate_limit::{RateLimitOptions, RateLimits},
    server::{ServerOptions, serve},
    state::{AppState, Limits, Readiness},
};

/// Every route.
#[rustfmt::skip]
pub fn router(state: AppState) -> Router {
    use routes::{health, membership, quota, consume, reservations, reset};

    let settlements = Router::new()
        .route("/api/chat/quota/reservations/{id}/commit",  post(reservations::commit))
        .route("/api/chat/quota/reservations/{id}/release", post(reservations::release))
        .route("/api/chat/quota/reservations/{id}/extend",  post(reservations::extend));

    let requests = Router::new()
        .route("/api/chat/quota",              get(quota::quota))
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

    let entered = |group: Router<AppState>, permits| {
        let entrance = Entrance { state: state.clone(), permits };
        group.method_not_allowed_fallback(error::no_such_method).layer(from_fn_with_state(entrance, enter))
    };
    entered(settlements, Permits::Settlements)
        .merge(entered(requests, Permits::Requests))
        .merge(entered(operations, Permits::None))
        .with_state(state)
}
