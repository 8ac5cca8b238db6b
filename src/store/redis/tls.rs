//! TLS for the batcher's own connections to Redis. Trusts the certificates of the machine, or those of `SSL_CERT_FILE`.

use std::{io, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Performs the TLS handshake with the server of this name.
pub(super) async fn shake_hands(stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config()?)).connect(name, stream).await
}

/// Read at every connection, so a renewed certificate takes effect immediately; connections are rare.
fn config() -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(io::Error::other(format!("this machine has no trusted certificates: {:?}", found.errors)));
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
