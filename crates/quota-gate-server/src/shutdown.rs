//! Shutdown by Ctrl-C and SIGTERM, and for programs of a terminal by its end (SIGHUP).

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What SIGHUP does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// It stops the gate, like SIGTERM.
    Stops,
    /// Something else handles it.
    IsHandled,
}

/// Returns a token that the first SIGINT or SIGTERM cancels. The second one ends the process immediately.
///
/// # Errors
/// If the signal handlers cannot be installed.
pub fn on_signal(hangup: Hangup) -> std::io::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hung_up = match hangup {
        Hangup::Stops => Some(signal(SignalKind::hangup())?),
        Hangup::IsHandled => None,
    };
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                Some(()) = async { hung_up.as_mut()?.recv().await } => {}
            }
        };
        next().await;
        tracing::info!(
            "stopping: finishing requests, then flushing the last charges; repeat the signal to stop immediately"
        );
        cancelled.cancel();
        next().await;
        std::process::exit(130);
    });
    Ok(token)
}
