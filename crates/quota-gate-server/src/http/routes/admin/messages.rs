//! `GET /api/admin/users/{user}/messages`: a user's charges, newest first.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::routes::admin::{fresh, month, page::Page, unavailable};
use crate::http::{
    answers::{
        problem::Problem,
        refusals::{Refused, RefusedParams},
        time::Millis,
    },
    auth::Admin,
    extract::{Params, PathUser},
};
use quota_gate::{audit::verify::Verifier, gate::Gate, store::postgres::ListedMessage};

/// Selects messages.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MessagesParams {
    /// `next` of the previous page.
    after: Option<String>,
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Messages, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessagesBody {
    messages: Vec<MessageBody>,
    /// `after` for the next page; null at the end.
    #[schema(required = true)]
    next: Option<String>,
}

/// A row of the usage log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MessageBody {
    usage_id: String,
    at: String,
    session_id: String,
    /// Level at that time.
    membership_level: String,
    /// Null if the caller named none.
    #[schema(required = true)]
    model: Option<String>,
    /// The charged period.
    period: String,
    ap: i32,
    /// AP that the quota could not cover.
    overage: i32,
    tokens: i32,
    /// Input tokens, including cached ones; absent if only the total is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<i32>,
    /// The part of them that the model had cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_input_tokens: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<i32>,
    /// True if the gate has estimated the tokens, because no model reported them; otherwise absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    tokens_estimated: bool,
    /// `consume`, `commit` or `late_commit`; `import`, `adjustment` or `transfer` if the row is not a message.
    kind: String,
    /// Name of the meter.
    #[schema(example = "chat")]
    meter: String,
}

/// Lists a user's charges, newest first, as far as they are in Postgres.
#[utoipa::path(
    get, path = "/api/admin/users/{user}/messages", tag = "admin", operation_id = "listMessages",
    params(("user" = String, Path, description = "The user's id"), MessagesParams),
    responses(
        (status = 200, description = "A page", body = MessagesBody),
        Refused,
        RefusedParams,
    ),
    security(("admin" = [])),
)]
pub(crate) async fn list(
    _: Admin,
    State(gate): State<Gate>,
    State(verifier): State<Arc<Verifier>>,
    PathUser(user): PathUser,
    Params(params): Params<MessagesParams>,
) -> Result<Response, Problem> {
    let page = Page::new(params.limit, params.after.as_deref(), read_cursor)?;
    // Redis' clock may be ahead, within the allowed difference.
    let before = page.after.unwrap_or_else(|| (gate.now() + chrono::TimeDelta::days(1), Uuid::max()));
    let found = verifier.postgres.list_messages(&user, before, page.query_limit()).await.map_err(unavailable)?;
    let (messages, next) = page.cut(found, cursor);
    Ok(fresh(MessagesBody { messages: messages.into_iter().map(MessageBody::from).collect(), next }))
}

fn cursor(message: &ListedMessage) -> String {
    format!("{}_{}", message.at.timestamp_micros(), message.event)
}

fn read_cursor(text: &str) -> Option<(DateTime<Utc>, Uuid)> {
    let (micros, event) = text.split_once('_')?;
    Some((DateTime::from_timestamp_micros(micros.parse().ok()?)?, event.parse().ok()?))
}

impl From<ListedMessage> for MessageBody {
    fn from(message: ListedMessage) -> Self {
        Self {
            usage_id: message.event.to_string(),
            at: Millis(message.at).to_string(),
            session_id: message.session,
            membership_level: message.level,
            model: Some(message.model).filter(|model| !model.is_empty()),
            period: month(message.period),
            ap: message.ap,
            overage: message.overage,
            tokens: message.tokens,
            input_tokens: message.input_tokens,
            cached_input_tokens: message.cached_input_tokens,
            output_tokens: message.output_tokens,
            tokens_estimated: message.tokens_estimated,
            kind: message.kind,
            meter: message.meter,
        }
    }
}
