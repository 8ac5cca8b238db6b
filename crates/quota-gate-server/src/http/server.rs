//! The server loop: limits connections and headers, and on shutdown waits for requests in progress.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    select,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::http::write_stall::WriteStall;

/// Maximum header bytes and headers of a request: several times what a browser sends.
const HEADER_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;

/// Address of the peer of the connection. Behind a proxy, it is the proxy's address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// Options of the server.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions {
    /// Maximum connections; further ones wait to be accepted.
    pub connections_max: usize,
    /// Time for a client to send its headers.
    pub header_read_timeout: Duration,
    /// Time after which a client that does not read its answer is disconnected.
    pub write_stall_timeout: Duration,
    /// Time to accept connections after the token is cancelled, so that readiness checks see that the gate is stopping.
    pub stop_delay: Duration,
    /// Time for requests to end after that.
    pub drain_timeout: Duration,
}

/// Serves until cancelled and for `stop_delay` longer, then waits for requests in progress. Drops those that exceed
/// `drain_timeout`: none is left when this returns, so the caller can wait for their settlements.
pub async fn serve(listener: TcpListener, router: Router, options: ServerOptions, cancelled: CancellationToken) {
    let connections = Arc::new(Semaphore::new(options.connections_max));
    let graceful = GracefulShutdown::new();
    let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
    let stop = async {
        cancelled.cancelled().await;
        sleep(options.stop_delay).await;
    };
    tokio::pin!(stop);
    loop {
        let permit = select! {
            Ok(permit) = Arc::clone(&connections).acquire_owned() => permit,
            () = &mut stop => break,
        };
        let (stream, peer) = select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No file descriptors left (the error says so), or the client has disconnected: continue.
                    tracing::warn!(%error, "failed to accept a connection");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        // An answer is one small write; waiting to fill a packet would only delay it.
        let _ = stream.set_nodelay(true);
        let service = router.clone().map_request(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ClientAddress(peer.ip()));
            request
        });
        let service = TowerToHyperService::new(service);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_read_timeout)
            .max_buf_size(HEADER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(WriteStall::new(stream, options.write_stall_timeout)), service);
        let connection = graceful.watch(connection);
        let cut = cut.clone();
        tasks.spawn(async move {
            // The client disconnected or sent no HTTP: not the gate's error.
            if let Some(Err(error)) = cut.run_until_cancelled(connection).await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    if timeout(options.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("dropping requests that are still in progress after {:?}", options.drain_timeout);
        cut.cancel();
    }
    tasks.close();
    tasks.wait().await;
}
