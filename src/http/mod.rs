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
mod refusals;
mod routes;
mod state;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post, put},
};

pub use self::{
    auth::{Auth, AuthOptions},
    openapi::openapi_json,
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
        .route("/api/chat/quota/reservations/{id}/extend",  post(reservations::extend))
        .layer(from_fn_with_state(state.clone(), admission::admit_settlement));

    let requests = Router::new()
        .route("/api/chat/quota",              get(quota::quota))
        .route("/api/chat/quota/consume",      post(consume::consume))
        .route("/api/chat/quota/reservations", post(reservations::reserve))
        .route("/api/chat/quota/membership",   put(membership::change))
        .layer(from_fn_with_state(state.clone(), admission::admit_request));

    let operations = Router::new()
        .route("/api/chat/quota/reset", get(reset::health).post(reset::run))
        .route("/healthz",              get(health::live))
        .route("/readyz",               get(health::ready))
        .route("/metrics",              get(health::metrics))
        .route("/openapi.json",         get(openapi::document));

    settlements
        .merge(requests)
        .merge(operations)
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(state.limits().body_bytes_max))
        .layer(from_fn(observe::observe))
        .with_state(state)
}
