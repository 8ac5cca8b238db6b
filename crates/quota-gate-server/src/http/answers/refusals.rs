//! Errors that several routes return, described once for the contract. The doc comments are its descriptions.

#![expect(dead_code, reason = "the types only describe answers in the contract")]
#![expect(clippy::doc_markdown, reason = "the texts become descriptions in the contract")]

use utoipa::IntoResponses;

use crate::http::answers::{problem::Problem, quota::QuotaExceeded};

/// Errors of every route that needs a credential.
#[derive(IntoResponses)]
pub(crate) enum Refused {
    /// UNAUTHENTICATED
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// FORBIDDEN
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// QUOTA_UNAVAILABLE
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// Errors of every route with a body.
#[derive(IntoResponses)]
pub(crate) enum RefusedBody {
    /// INVALID_REQUEST
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(Problem),
    /// PAYLOAD_TOO_LARGE
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// UNSUPPORTED_MEDIA_TYPE
    #[response(status = 415, content_type = "application/problem+json")]
    MediaType(Problem),
}

/// Errors of routes that charge or hold AP for a message.
#[derive(IntoResponses)]
pub(crate) enum RefusedMessage {
    /// MISMATCH: the Idempotency-Key was used for another request
    #[response(status = 422, content_type = "application/problem+json")]
    Mismatch(Problem),
    /// QUOTA_EXCEEDED: nothing was charged or held
    #[response(status = 429, content_type = "application/problem+json")]
    QuotaExceeded(QuotaExceeded<'static>),
}

// The doc comment of each struct is its description in the contract.

/// INVALID_REQUEST
#[derive(IntoResponses)]
#[response(status = 400, content_type = "application/problem+json")]
pub(crate) struct RefusedParams(Problem);

/// NOT_FOUND: no such user
#[derive(IntoResponses)]
#[response(status = 404, content_type = "application/problem+json")]
pub(crate) struct UnknownUser(Problem);

/// NOT_FOUND: no such grant
#[derive(IntoResponses)]
#[response(status = 404, content_type = "application/problem+json")]
pub(crate) struct UnknownGrant(Problem);

/// NOT_FOUND: no such transfer in the usage log, or not yet
#[derive(IntoResponses)]
#[response(status = 404, content_type = "application/problem+json")]
pub(crate) struct UnknownTransfer(Problem);

/// NOT_FOUND: no gate has issued this id
#[derive(IntoResponses)]
#[response(status = 404, content_type = "application/problem+json")]
pub(crate) struct UnknownReservation(Problem);
