//! `/api/admin`: what administrators see and change.
//!
//! | file | what |
//! | --- | --- |
//! | `users`, `messages` | find users; one user in Redis and in Postgres; the user's months and messages |
//! | `level`, `own_quota`, `holds`, `refund` | change a level, an own quota or a block; release a hold; refund |
//! | `changes` | who changed what, and why |
//! | `usage`, `heavy_users` | usage by day, level and model; users with the most usage; users who will run out |
//! | `status`, `drift` | state of the gate; differences between the stores |
//! | `rollout` | for which users the gate decides |
//! | `price_replay` | what proposed levels and prices would have changed |
//! | `page` | pages of the lists |

pub(crate) mod changes;
pub(crate) mod drift;
pub(crate) mod heavy_users;
pub(crate) mod holds;
pub(crate) mod level;
pub(crate) mod messages;
pub(crate) mod own_quota;
mod page;
pub(crate) mod price_replay;
pub(crate) mod refund;
pub(crate) mod rollout;
pub(crate) mod status;
pub(crate) mod usage;
pub(crate) mod users;

use std::fmt::Display;

use axum::{
    Json,
    http::header,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::http::answers::problem::{Code, Problem};
use quota_gate::{
    domain::{calendar::Period, user_id::UserId},
    store::postgres::Postgres,
};

/// An answer that must not be cached: it is valid only for a moment, and not for every caller.
fn fresh(body: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn unavailable(error: impl Display) -> Problem {
    tracing::warn!(%error, "cannot answer an administrator");
    Problem::unavailable("Postgres or Redis is unavailable; try again in a moment")
}

/// Fails if the user does not exist, because a lookup must not create one.
async fn require_user(postgres: &Postgres, user: &UserId) -> Result<(), Problem> {
    match postgres.find(user, DateTime::<Utc>::MAX_UTC).await.map_err(unavailable)? {
        Some(_) => Ok(()),
        None => Err(Problem::new(Code::NotFound, "no such user")),
    }
}

/// Formats as `2026-11`.
fn month(period: i32) -> String {
    u32::try_from(period).ok().and_then(|id| Period::from_id(id).ok()).map_or_else(String::new, |id| id.to_string())
}
