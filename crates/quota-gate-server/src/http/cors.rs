//! Which web pages of other origins may call the gate, with a user's JWT.
//!
//! The protocol is CORS: <https://fetch.spec.whatwg.org/#http-cors-protocol>.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use quota_gate::domain::InvalidInput;

/// A layer that allows some origins.
pub type Cors = CorsLayer;

/// Time for which a browser remembers what it may send.
const REMEMBERED: Duration = Duration::from_hours(1);

/// Headers of answers that scripts may read.
const EXPOSED: [HeaderName; 8] = [
    header::RETRY_AFTER,
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("x-quota-fallback"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-should-retry"),
    HeaderName::from_static("x-upstream-request-id"),
];

/// Allows these origins; `*` allows all. No origins: `None`, and browsers refuse answers to pages of other origins.
/// Cookies are never allowed: a page sends its user's JWT.
///
/// # Errors
/// If one is not an origin, such as `https://app.example.com`.
pub fn cors(origins: &[String]) -> Result<Option<Cors>, InvalidInput> {
    if origins.is_empty() {
        return Ok(None);
    }
    let allowed = if origins == ["*"] {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().map(|origin| parse(origin)).collect::<Result<Vec<_>, _>>()?)
    };
    let cors = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        // OpenAI's client sends a dozen of its own.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(REMEMBERED);
    Ok(Some(cors))
}

fn parse(origin: &str) -> Result<HeaderValue, InvalidInput> {
    let invalid = || InvalidInput {
        field: "server.cors_origins",
        rule: format!("must be origins such as https://app.example.com, or \"*\" alone, not {origin:?}"),
    };
    let uri: Uri = origin.parse().map_err(|_| invalid())?;
    let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or_else(invalid)?;
    // Browsers send an origin in lower case and without a path.
    if origin != format!("{scheme}://{authority}") || origin != origin.to_ascii_lowercase() || origin.contains('@') {
        return Err(invalid());
    }
    HeaderValue::from_str(origin).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_are_accepted() {
        let cors = |origins: &[&str]| cors(&origins.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>());
        assert!(cors(&[]).unwrap().is_none());
        for valid in [&["*"][..], &["https://app.example.com", "http://localhost:3000"], &["tauri://localhost"]] {
            assert!(cors(valid).unwrap().is_some(), "{valid:?}");
        }
        for invalid in [
            "",
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com/x",
            "https://App.example.com",
            "null",
        ] {
            assert!(cors(&[invalid]).is_err(), "{invalid}");
        }
        assert!(cors(&["*", "https://app.example.com"]).is_err());
    }
}
