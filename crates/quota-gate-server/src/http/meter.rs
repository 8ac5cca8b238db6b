//! The meter of a route: what its requests cost, and how long they may hold AP.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use quota_gate::domain::{ap::Ap, hold::Ttl, meter::MeterCode};

use crate::http::answers::problem::{self, Code, Problem};

/// The meter that the routes of a state count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterSettings {
    /// Number in the stores.
    pub code: MeterCode,
    /// Name, which is a part of the path.
    pub name: String,
    /// What one AP stands for, for display; `None` for the chat.
    pub unit: Option<String>,
    /// Maximum duration of a hold.
    pub hold_seconds_max: u32,
    /// AP of a request that names none.
    pub default_cost: u32,
}

impl MeterSettings {
    /// The meter of the chat.
    #[must_use]
    pub fn chat() -> Self {
        Self {
            code: MeterCode::CHAT,
            name: "chat".to_owned(),
            unit: None,
            hold_seconds_max: Ttl::SECONDS_MAX,
            default_cost: 1,
        }
    }

    /// A path of the meter's routes.
    #[must_use]
    pub fn path(&self, rest: &str) -> String {
        format!("/api/{}/quota{rest}", self.name)
    }

    /// Converts a cost from JSON.
    pub(crate) fn cost(&self, ap: Option<i64>) -> Result<Ap, Problem> {
        Ok(Ap::cost(ap.unwrap_or(self.default_cost.into()))?)
    }

    /// Converts the duration of a hold from JSON; a minute by default.
    pub(crate) fn ttl(&self, seconds: Option<i64>) -> Result<Ttl, Problem> {
        Ok(seconds.map_or(Ok(Ttl::DEFAULT), |seconds| Ttl::up_to(self.hold_seconds_max, seconds))?)
    }
}

/// The names of all meters that have routes.
#[derive(Debug, Clone)]
pub(crate) struct MeterNames(pub(crate) Arc<[String]>);

/// Answers a request to a route that does not exist. Names the meters, if that is what is wrong.
pub(crate) async fn no_such_route(State(names): State<MeterNames>, OriginalUri(uri): OriginalUri) -> Problem {
    match meter_of(uri.path()).filter(|meter| names.0.iter().all(|name| name != meter)) {
        Some(meter) => {
            let names = names.0.join(", ");
            Problem::new(Code::NotFound, format!("no such meter: {meter}; the meters of this gate are {names}"))
        }
        None => problem::no_such_route(&uri),
    }
}

/// The name in `/api/{meter}/quota…`.
fn meter_of(path: &str) -> Option<&str> {
    let (meter, rest) = path.strip_prefix("/api/")?.split_once("/quota")?;
    let is_route = !meter.is_empty() && !meter.contains('/') && (rest.is_empty() || rest.starts_with('/'));
    is_route.then_some(meter)
}
