//! `/api/admin`: what the people who run the gate see and change. Lists are pages: `next` of one is `after` of the next.
//!
//! | file | what |
//! | --- | --- |
//! | `users`, `messages` | find a user; what Redis and Postgres say of them; their months and messages |
//! | `level`, `holds` | change a level, release a hold, with a reason |
//! | `changes` | who changed what, and why |
//! | `usage`, `heavy_users` | what was used, by day, level and model; who uses most, who will run out |
//! | `status`, `drift` | how the gate is, and whether the stores agree |
//! | `rollout` | for whom the gate decides |

pub(crate) mod changes;
pub(crate) mod drift;
pub(crate) mod heavy_users;
pub(crate) mod holds;
pub(crate) mod level;
pub(crate) mod messages;
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
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::http::answers::problem::{Code, Problem};
use quota_gate::{
    domain::{InvalidInput, calendar::Period, user_id::UserId},
    store::postgres::Postgres,
};

/// How many entries a page has when nobody says, and at most.
const PAGE_DEFAULT: u32 = 50;
const PAGE_MAX: u32 = 200;

fn page_size(limit: Option<u32>) -> Result<u32, InvalidInput> {
    match limit.unwrap_or(PAGE_DEFAULT) {
        limit if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
        _ => Err(InvalidInput { field: "limit", rule: format!("must be 1 to {PAGE_MAX}") }),
    }
}

/// The page itself, and whether there is one more entry behind it: asked for by a query of `limit + 1`.
fn page<T>(mut entries: Vec<T>, limit: u32) -> (Vec<T>, bool) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    (entries, has_more)
}

fn wrong_place() -> InvalidInput {
    InvalidInput { field: "after", rule: "must be what an earlier page had as `next`".into() }
}

/// Nobody may keep it: it is true for a moment, and not for everyone.
fn fresh(body: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn unavailable(error: impl Display) -> Problem {
    tracing::warn!(%error, "an administrator cannot be answered");
    Problem::unavailable("Postgres or Redis is away; try again in a moment")
}

/// Only of users who are known: looking must not make one.
async fn known(postgres: &Postgres, user: &UserId) -> Result<(), Problem> {
    match postgres.find(user, DateTime::<Utc>::MAX_UTC).await.map_err(unavailable)? {
        Some(_) => Ok(()),
        None => Err(Problem::new(Code::NotFound, "no such user")),
    }
}

/// `2026-11-23T20:13:52.123Z`
fn millis(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `2026-11`
fn month(period: i32) -> String {
    u32::try_from(period).ok().and_then(|id| Period::from_id(id).ok()).map_or_else(String::new, |id| id.to_string())
}
