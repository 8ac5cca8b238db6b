//! The contract, generated from the handlers. `docs/openapi.json` is its committed copy.

use axum::{http::header, response::IntoResponse};
use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    error::Problem,
    routes::{consume, health, membership, quota, reservations, reset},
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quota gate",
        description = "Decides, for every message of a chat product, whether its user may still send it."
    ),
    paths(
        quota::quota,
        consume::consume,
        reservations::reserve,
        reservations::commit,
        reservations::release,
        reservations::extend,
        membership::change,
        reset::run,
        reset::health,
        health::live,
        health::ready,
        health::metrics,
    ),
    modifiers(&Credentials),
)]
struct Contract;

/// What every route with a credential may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is only described, never made")]
#[expect(clippy::doc_markdown, reason = "the text is the description in the contract")]
pub(super) enum Refused {
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
pub(super) enum RefusedBody {
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

/// Who may call what.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Default::default);
        let bearer = |description: &str| {
            SecurityScheme::Http(
                HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build(),
            )
        };
        components.add_security_scheme("user", bearer("A user's JWT, HS256, with exp, iss, aud and sub"));
        components.add_security_scheme("service", bearer("The token of a chat service"));
        components.add_security_scheme("admin", bearer("The token of an administrator"));
        components.add_security_scheme("cron", bearer("The token of the reset job"));
    }
}

/// The contract as `docs/openapi.json` has it.
///
/// # Panics
/// Never: the contract is JSON.
#[must_use]
pub fn openapi_json() -> String {
    let mut text = Contract::openapi().to_pretty_json().expect("the contract is JSON");
    text.push('\n');
    text
}

pub(super) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json())
}
