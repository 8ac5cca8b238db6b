//! What many routes may refuse with, described once for the contract.

use utoipa::IntoResponses;

use crate::http::answers::problem::Problem;

/// What every route with a credential may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described, never made")]
#[expect(clippy::doc_markdown, reason = "the text is the description in the contract")]
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

/// What every route with a body may answer besides.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described, never made")]
#[expect(clippy::doc_markdown, reason = "the text is the description in the contract")]
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
