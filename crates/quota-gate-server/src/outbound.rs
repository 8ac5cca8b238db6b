//! Requests that the gate makes itself: one way to build a client, for every place that asks another server.

use std::{io, time::Duration};

use axum::http::{HeaderValue, Uri};
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as LegacyClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

/// HTTP/1.1 with a pool of connections, in the clear or over TLS by the machine's certificates. A cheap clone. It follows no
/// redirects: the address that the operator wrote down answers, or nobody.
pub type Client = LegacyClient<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// An idle connection is used again within this time; most servers close it after a minute.
const POOL_IDLE_MAX: Duration = Duration::from_secs(30);

/// A client that waits so long for a connection.
///
/// # Errors
/// If this machine trusts no certificate.
pub fn client(connect_timeout: Duration) -> io::Result<Client> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| io::Error::other(format!("this machine trusts no certificate: {error}")))?
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let pool_timer = TokioTimer::new();
    Ok(LegacyClient::builder(TokioExecutor::new())
        .pool_timer(pool_timer)
        .pool_idle_timeout(POOL_IDLE_MAX)
        .build(connector))
}

/// A URL to which paths and queries can be added.
///
/// # Errors
/// With the rule that it breaks.
pub fn base_url(text: &str) -> Result<String, String> {
    let rule = || "must be an http: or https: URL without a query".to_owned();
    let url: Uri = text.parse().map_err(|_| rule())?;
    if url.host().is_none() || !matches!(url.scheme_str(), Some("http" | "https")) || url.query().is_some() {
        return Err(rule());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// `Bearer …`, which no log shows.
///
/// # Errors
/// With the rule that it breaks.
pub fn bearer(token: &str) -> Result<HeaderValue, String> {
    let mut value =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| "has characters that no header has".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// An error with its causes; hyper's own text names none.
#[must_use]
pub fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_one_to_which_a_path_can_be_added() {
        assert_eq!(base_url("https://api.example.com/v1/").unwrap(), "https://api.example.com/v1");
        for wrong in ["", "api.example.com/v1", "ftp://api.example.com", "https://api.example.com/v1?key=1", "/v1"] {
            assert!(base_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_never_shows() {
        assert!(!format!("{:?}", bearer("swordfish").unwrap()).contains("swordfish"));
        assert!(bearer("sword\nfish").is_err());
    }
}
