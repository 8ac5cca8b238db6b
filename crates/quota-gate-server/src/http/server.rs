//! The server loop: bounded connections, bounded headers, and an end that waits for what is under way.

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

/// Most header bytes of a request, and most headers: several times what a browser sends.
const HEADER_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;

/// Who is at the other end of the connection. Behind a proxy, that is the proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// How the server behaves.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions {
    /// Most connections; the next one waits to be accepted.
    pub connections_max: usize,
    /// A client gets this long to send its headers.
    pub header_read_timeout: Duration,
    /// A client that takes nothing of its answer for so long is cut off.
    pub write_stall_timeout: Duration,
    /// After the token is cancelled, connections are accepted for so long: whoever asks is told that the gate is not ready.
    pub stop_delay: Duration,
    /// After that, requests get this long to end.
    pub drain_timeout: Duration,
}

/// Serves until cancelled and a moment longer, then waits for the requests under way. When it returns there are none: what took too
/// long is dropped, so that whoever settles it can be waited for.
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
                    // Out of file handles, or the client is gone already: neither is ours to end for.
                    tracing::warn!(%error, "a connection was not accepted");
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
            // A client that breaks off, or speaks something else, is no fault of ours.
            if let Some(Err(error)) = cut.run_until_cancelled(connection).await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    if timeout(options.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way after {:?}; they are cut off", options.drain_timeout);
        cut.cancel();
    }
    tasks.close();
    tasks.wait().await;
}
