//! Errors that many routes return, described once for the contract.

use utoipa::IntoResponses;

use crate::http::answers::problem::Problem;

/// Errors of every route that needs a credential.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes answers in the contract")]
#[expect(clippy::doc_markdown, reason = "the text becomes a description in the contract")]
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

/// Further errors of every route with a body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes answers in the contract")]
#[expect(clippy::doc_markdown, reason = "the text becomes a description in the contract")]
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
