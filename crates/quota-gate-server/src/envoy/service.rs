//! The call `ShouldRateLimit` and its gRPC server.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::extract::FromRef;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::http,
    server::{Grpc, NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::envoy::{
    descriptor::Message,
    messages::{Code, DescriptorStatus, Duration, HeaderValue, RateLimit, RateLimitRequest, RateLimitResponse, Unit},
};
use crate::http::{
    AppState,
    answers::{
        headers::rate_limit,
        limits::DenialLimits,
        problem::{Code as ProblemCode, Problem},
        remedies::Shop,
    },
    auth::Auth,
    model_access::require_allowed,
};
use quota_gate::{
    domain::{decision::Decision, model_name::ModelName, quota::Quota, remedy::Asked, scope::Scope},
    gate::{Consume, Gate, GateError},
};

const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// Answers Envoy's calls. Cheap to clone.
#[derive(Clone)]
pub struct RateLimitService {
    gate: Gate,
    auth: Arc<Auth>,
    shop: Shop,
}

impl RateLimitService {
    /// Creates a service that decides like the HTTP routes of this state.
    #[must_use]
    pub fn new(state: &AppState) -> Self {
        Self { gate: FromRef::from_ref(state), auth: FromRef::from_ref(state), shop: FromRef::from_ref(state) }
    }

    /// Decides whether the request may pass, and charges it if so.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for invalid descriptors, `UNAVAILABLE` if the gate cannot decide: Envoy then follows its
    /// `failure_mode_deny`.
    async fn should_rate_limit(&self, request: &RateLimitRequest) -> Result<RateLimitResponse, Status> {
        let costs = self.shop.costs().get();
        let message = Message::read(request, &costs).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut response = RateLimitResponse {
            overall_code: Code::Ok.into(),
            statuses: vec![
                DescriptorStatus { code: Code::Ok.into(), ..DescriptorStatus::default() };
                request.descriptors.len()
            ],
            ..RateLimitResponse::default()
        };
        let Some(Message { index, user, session, ap, tokens, model, priced_hits }) = message else {
            return Ok(response);
        };
        let access = require_allowed(&self.gate, &costs, &user, model.as_ref().map(ModelName::as_str)).await;
        if let Err(problem) = access {
            if problem.code != ProblemCode::ModelNotAllowed {
                return Err(Status::unavailable("the quota cannot be checked now"));
            }
            return Ok(refused(response, index, &problem));
        }
        let models: Vec<String> = model.iter().map(ToString::to_string).collect();
        let consume = Consume { user, session, ap, tokens, model, idempotency_key: None };
        let decision = match self.gate.consume(consume).await {
            Err(error @ (GateError::Blocked | GateError::Forgotten)) => {
                return Ok(refused(response, index, &Problem::from(error)));
            }
            decision => decision.map_err(|error| error_status(&error))?,
        };
        match decision {
            Decision::Allowed(charged) => {
                response.statuses[index] = self.status(Code::Ok, &charged.quota);
                response.response_headers_to_add = self.headers(&charged.quota);
            }
            Decision::Passed(_) => {}
            Decision::Denied(denied) => {
                response.overall_code = Code::OverLimit.into();
                response.statuses[index] = self.status(Code::OverLimit, &denied.quota);
                response.response_headers_to_add = self.headers(&denied.quota);
                let asked = Asked { models: &models, priced_answers: priced_hits };
                let mut body = json!({
                    "remedies": self.shop.remedies(&self.gate, &denied, asked),
                    "code": "QUOTA_EXCEEDED",
                    "required": denied.required.get(),
                    "remaining": denied.quota.available().get(),
                    "shortfall": denied.shortfall().get(),
                });
                if let Some(limits) = DenialLimits::of(&denied, self.gate.calendar())
                    && let Ok(Value::Object(limits)) = serde_json::to_value(limits)
                    && let Some(body) = body.as_object_mut()
                {
                    body.extend(limits);
                }
                response.raw_body = body.to_string().into_bytes();
            }
        }
        Ok(response)
    }

    fn status(&self, code: Code, quota: &Quota) -> DescriptorStatus {
        let limit =
            RateLimit { requests_per_unit: quota.quota.get(), unit: Unit::Month.into(), name: "monthly".into() };
        DescriptorStatus {
            code: code.into(),
            current_limit: Some(limit),
            limit_remaining: quota.remaining().get(),
            duration_until_reset: Some(Duration { seconds: self.seconds_until_reset(quota), nanos: 0 }),
        }
    }

    /// Returns the quota headers, as in the gate's own responses.
    fn headers(&self, quota: &Quota) -> Vec<HeaderValue> {
        let remaining = quota.remaining().get();
        let limits = rate_limit(quota, self.gate.calendar());
        let limit = limits.get("ratelimit").and_then(|value| value.to_str().ok()).unwrap_or_default();
        vec![
            HeaderValue { key: "ratelimit".into(), value: limit.to_owned() },
            HeaderValue { key: "x-quota-remaining".into(), value: remaining.to_string() },
        ]
    }

    fn seconds_until_reset(&self, quota: &Quota) -> i64 {
        (self.gate.calendar().period_end(quota.period, quota.anchor_day) - quota.as_of).num_seconds().max(0)
    }
}

/// A refusal that is not an error: Envoy may pass requests after errors.
fn refused(mut response: RateLimitResponse, index: usize, problem: &Problem) -> RateLimitResponse {
    response.overall_code = Code::OverLimit.into();
    response.statuses[index].code = Code::OverLimit.into();
    response.raw_body = json!({ "code": problem.code, "detail": problem.detail }).to_string().into_bytes();
    response
}

fn error_status(error: &GateError) -> Status {
    match error {
        GateError::Invalid(_) | GateError::Mismatch(_) => Status::invalid_argument(error.to_string()),
        GateError::TooManyHolds(_) => Status::resource_exhausted(error.to_string()),
        _ => {
            tracing::warn!(%error, "no decision");
            Status::unavailable("the quota cannot be checked now")
        }
    }
}

fn problem_status(problem: &Problem) -> Status {
    match problem.code {
        ProblemCode::Unauthenticated => {
            Status::unauthenticated("Envoy must send `authorization: Bearer TOKEN` in initial_metadata")
        }
        ProblemCode::RateLimited => Status::resource_exhausted(problem.title),
        _ => Status::permission_denied("the token needs the scope consume"),
    }
}

/// Serves until cancelled.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    service: RateLimitService,
    cancelled: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, cancelled.cancelled_owned()).await
}

impl NamedService for RateLimitService {
    const NAME: &'static str = "envoy.service.ratelimit.v3.RateLimitService";
}

impl UnaryService<RateLimitRequest> for RateLimitService {
    type Response = RateLimitResponse;
    type Future = BoxFuture<'static, Result<Response<RateLimitResponse>, Status>>;

    fn call(&mut self, request: Request<RateLimitRequest>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { service.should_rate_limit(request.get_ref()).await.map(Response::new) })
    }
}

impl Service<http::Request<Body>> for RateLimitService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("this service has one method, ShouldRateLimit").into_http());
            }
            match service.auth.require(request.headers(), Scope::Consume).await {
                Ok(_) => Ok(Grpc::new(ProstCodec::default()).unary(service, request).await),
                Err(problem) => Ok(problem_status(&problem).into_http()),
            }
        })
    }
}

impl std::fmt::Debug for RateLimitService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimitService").field("gate", &self.gate).finish_non_exhaustive()
    }
}
