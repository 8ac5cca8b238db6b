//! HTTP client for the gate's own requests to other servers. Every caller builds its client here.

use std::{io, time::Duration};

use axum::http::{HeaderValue, Uri};
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as LegacyClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

/// HTTP/1.1 client with a connection pool, without TLS or with TLS by the machine's certificates. Cheap to clone. It
/// follows no redirects: only the address that the operator configured may answer.
pub type Client = LegacyClient<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Idle connections are reused within this time; most servers close them after a minute.
const POOL_IDLE_MAX: Duration = Duration::from_secs(30);

/// Returns a client. `connect_timeout` is the time to wait for a connection.
///
/// # Errors
/// If this machine has no trusted certificates.
pub fn client(connect_timeout: Duration) -> io::Result<Client> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| io::Error::other(format!("this machine has no trusted certificates: {error}")))?
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let pool_timer = TokioTimer::new();
    Ok(LegacyClient::builder(TokioExecutor::new())
        .pool_timer(pool_timer)
        .pool_idle_timeout(POOL_IDLE_MAX)
        .build(connector))
}

/// Checks a URL to which paths and queries can be added. Removes slashes at its end.
///
/// # Errors
/// The rule that the text breaks.
pub fn base_url(text: &str) -> Result<String, String> {
    let rule = || "must be an http: or https: URL without a query".to_owned();
    let url: Uri = text.parse().map_err(|_| rule())?;
    if url.host().is_none() || !matches!(url.scheme_str(), Some("http" | "https")) || url.query().is_some() {
        return Err(rule());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Returns the header value `Bearer …`, which logs do not show.
///
/// # Errors
/// The rule that the token breaks.
pub fn bearer(token: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| "has characters that a header cannot have".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns the text of an error with its causes, which hyper's own text leaves out.
#[must_use]
pub fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_http_and_has_no_query() {
        assert_eq!(base_url("https://api.example.com/v1/").unwrap(), "https://api.example.com/v1");
        for wrong in ["", "api.example.com/v1", "ftp://api.example.com", "https://api.example.com/v1?key=1", "/v1"] {
            assert!(base_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_hidden_in_debug_output() {
        assert!(!format!("{:?}", bearer("swordfish").unwrap()).contains("swordfish"));
        assert!(bearer("sword\nfish").is_err());
    }
}
