//! The page at `/`: a chat to try the gate, and the tasks of a product: signing users in, selling upgrades and packs.
//!
//! Only `dev` has these routes. They listen on 127.0.0.1 and answer only requests to that host or `localhost`, so no
//! page of another site can read a JWT.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::header,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use crate::billing::Packs;
use crate::cli::token::jwt;
use crate::http::demo_page;
use quota_gate::{
    domain::{author::Author, level::LevelName, level_change::Effective, user_id::UserId},
    gate::{ChangeLevel, Gate},
};

/// Lifetime of the page's JWTs.
const JWT_TTL_SECONDS: u32 = 3600;

/// State of the page's routes.
#[derive(Clone)]
pub(super) struct Demo {
    pub(super) gate: Gate,
    pub(super) jwt_secret: String,
    /// Users that the page may sign in.
    pub(super) samples: Vec<String>,
    /// Packs that the page sells.
    pub(super) packs: Packs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    user: String,
    jwt: String,
}

#[derive(Deserialize)]
struct SignIn {
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Upgrade {
    user: String,
    membership_level: String,
}

#[derive(Deserialize)]
struct Purchase {
    user: String,
    pack: String,
    /// Id of the checkout, so that a repeated request gives one pack.
    checkout: String,
}

pub(super) fn routes(demo: Demo) -> Router {
    let demo = Arc::new(demo);
    Router::new()
        .route("/api/demo/users", get(users))
        .route("/api/demo/session", post(sign_in))
        .route("/api/demo/level", post(change_level))
        .route("/api/demo/pack", post(buy_pack))
        .with_state(demo)
        .merge(demo_page())
        .layer(from_fn(require_local_host))
}

/// Refuses requests under any other host name: it belongs to another site.
async fn require_local_host(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match host.rsplit_once(':').map_or(host, |(name, _)| name) {
        "127.0.0.1" | "localhost" => next.run(request).await,
        _ => refused(421, "this page is available only at 127.0.0.1"),
    }
}

async fn users(State(demo): State<Arc<Demo>>) -> Json<Vec<String>> {
    Json(demo.samples.clone())
}

async fn sign_in(State(demo): State<Arc<Demo>>, Json(SignIn { user }): Json<SignIn>) -> Response {
    let Some(user) = demo.sample(&user) else { return refused(404, "unknown sample user") };
    match jwt(&user, &demo.jwt_secret, super::JWT_ISSUER, "chat", JWT_TTL_SECONDS) {
        Ok(jwt) => Json(Session { user: user.to_string(), jwt }).into_response(),
        Err(error) => refused(500, &error.to_string()),
    }
}

async fn change_level(State(demo): State<Arc<Demo>>, Json(upgrade): Json<Upgrade>) -> Response {
    let Some(user) = demo.sample(&upgrade.user) else { return refused(404, "unknown sample user") };
    let Ok(level) = LevelName::parse(&upgrade.membership_level) else { return refused(400, "unknown level") };
    let author = Author { by: "demo page".into(), reason: "the user bought a plan".into() };
    let change = ChangeLevel { user, level, effective: Effective::Now, anchor_day: None, if_version: None, author };
    match demo.gate.change_level(change).await {
        Ok(_) => Json(true).into_response(),
        Err(error) => refused(400, &error.to_string()),
    }
}

/// Gives a pack, as a product does when its billing system reports a paid checkout.
async fn buy_pack(State(demo): State<Arc<Demo>>, Json(Purchase { user, pack, checkout }): Json<Purchase>) -> Response {
    let Some(user) = demo.sample(&user) else { return refused(404, "unknown sample user") };
    let purchase = match demo.packs.purchase(&pack, &user, &checkout, demo.gate.clock().now()) {
        Ok(Some(purchase)) => purchase,
        Ok(None) => return refused(400, "unknown pack"),
        Err(error) => return refused(400, &error.to_string()),
    };
    match demo.gate.buy_packs(&purchase).await {
        Ok(_) => Json(true).into_response(),
        Err(error) => refused(400, &error.to_string()),
    }
}

impl Demo {
    fn sample(&self, user: &str) -> Option<UserId> {
        self.samples.iter().any(|sample| sample == user).then(|| UserId::parse(user).ok()).flatten()
    }
}

fn refused(status: u16, why: &str) -> Response {
    let mut response = why.to_owned().into_response();
    *response.status_mut() = status.try_into().unwrap_or_default();
    response
}
