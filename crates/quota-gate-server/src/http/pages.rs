//! Serves the pages that are built from `web/pages` and embedded in the binary. Without Node at build time there are
//! none; then `/`, `/admin` and `/api` explain how to build them.

use std::borrow::Cow;

use axum::{
    Router,
    body::Bytes,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::{EmbeddedFile, RustEmbed};

/// Allows no resources from other origins, no inline scripts or styles, and no embedding in other pages.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);
const HOW_TO_GET_THEM: &str =
    "This build has no pages. Run scripts/prepare-pages with Node 20 or newer, and build again.\n";

#[derive(RustEmbed)]
#[folder = "../../web/pages/dist/"]
#[allow_missing = true]
struct Files;

/// `/`: a chat for trying the gate.
pub fn demo_page() -> Router {
    Router::new().route("/", get(async |headers: HeaderMap| file("index.html", &headers)))
}

/// `/admin`, `/api` and the files that they load. The pages are public: they contain no data and ask for a token.
pub(crate) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/admin", get(async |headers: HeaderMap| file("admin.html", &headers)))
        .route("/api", get(async |headers: HeaderMap| file("api.html", &headers)))
        .route("/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    file(&format!("assets/{name}"), &headers)
}

fn file(path: &str, headers: &HeaderMap) -> Response {
    let is_page = content_type(path).starts_with("text/html");
    let accepts_gzip = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|coding| coding.trim().split(';').next() == Some("gzip")));
    let packed = accepts_gzip.then(|| Files::get(&format!("{path}.gz"))).flatten();
    let is_packed = packed.is_some();
    let Some(EmbeddedFile { data, .. }) = packed.or_else(|| Files::get(path)) else {
        let status = if is_page { StatusCode::OK } else { StatusCode::NOT_FOUND };
        return (status, HOW_TO_GET_THEM).into_response();
    };
    let data = match data {
        Cow::Borrowed(data) => Bytes::from_static(data),
        Cow::Owned(data) => data.into(),
    };
    let mut response = data.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(path)));
    headers.insert(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    // The name of an asset contains a hash of its contents.
    let caching = if is_page { "no-cache" } else { "public, max-age=31536000, immutable" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    if is_packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
