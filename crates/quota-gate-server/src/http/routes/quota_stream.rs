//! `GET /api/chat/quota/stream`: a user's quota, now and after each change, as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use crate::http::answers::quota::QuotaBody;
use crate::http::{
    answers::{
        problem::Problem,
        refusals::{Refused, RefusedParams},
    },
    auth::Caller,
    meter::MeterSettings,
    state::{AppState, Readiness},
};
use crate::reloadable::Reloadable;
use quota_gate::{
    domain::{model_costs::ModelCosts, quota::Quota},
    gate::Gate,
    jobs::quota_watcher::QuotaWatcher,
};

/// Lifetime of a stream. Its client then reconnects, with a JWT that is still valid.
const LIFETIME: Duration = Duration::from_mins(15);
/// Time after which a client reconnects when its stream has ended.
const RETRY: Duration = Duration::from_secs(2);

/// Streams the user's quota, now and after each change, until the client disconnects.
///
/// Events are named `quota`. Their data is the body of `GET /api/chat/quota`, their id is its version: of two events,
/// the one with the higher version is newer. Browsers read them with `fetch` because `EventSource` cannot send the JWT.
#[utoipa::path(
    get, path = "/api/chat/quota/stream", tag = "quota", operation_id = "streamQuota",
    params(("X-User-Id" = Option<String>, Header, description = "The user; required for services")),
    responses(
        (status = 200, description = "Events with the quota", body = String, content_type = "text/event-stream"),
        (status = 429, description = "RATE_LIMITED: the user has too many streams", body = Problem, content_type = "application/problem+json"),
        Refused,
        RefusedParams,
    ),
    security(("user" = []), ("service" = [])),
)]
pub(crate) async fn stream_quota(
    State(state): State<AppState>,
    State(gate): State<Gate>,
    State(quota_watcher): State<QuotaWatcher>,
    State(costs): State<Reloadable<ModelCosts>>,
    State(meter): State<Arc<MeterSettings>>,
    State(readiness): State<Arc<Readiness>>,
    Caller(user): Caller,
) -> Result<Response, Problem> {
    let permit = state.stream_permit(&user)?;
    let receiver = quota_watcher.watch(&user).await?;
    let events = stream::unfold((receiver, true), |(mut receiver, is_first)| async move {
        if !is_first {
            receiver.changed().await.ok()?;
        }
        let quota = receiver.borrow_and_update().clone();
        Some((quota, (receiver, false)))
    });
    let events = events.map(move |quota| {
        // Held until the stream ends.
        let _permit = &permit;
        Ok::<_, Infallible>(event(&gate, &costs.get(), &meter, &quota))
    });
    let stopping = readiness.stopping.clone();
    let end = async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = sleep(LIFETIME) => {}
        }
    };
    let mut response = Sse::new(events.take_until(end)).keep_alive(KeepAlive::default()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Otherwise nginx collects events until its buffer is full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn event(gate: &Gate, costs: &ModelCosts, meter: &MeterSettings, quota: &Quota) -> Event {
    let event = Event::default().event("quota").id(quota.version.to_string()).retry(RETRY);
    let levels = gate.levels();
    let body = QuotaBody::new(gate, &levels, quota).with_fallback(costs, quota).with_unit(meter);
    let body = serde_json::to_string(&body).unwrap_or_default();
    event.data(body)
}
