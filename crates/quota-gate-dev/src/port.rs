//! A port that nobody else has.
//!
//! A server cannot be handed a listening socket, so between finding a port and using it somebody else may take it:
//! whoever loses that race tries another.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
};

use super::error::{DevError, cannot};

/// Below what Linux (from 32768), macOS and BSD (from 49152) hand out for outgoing connections. A port from there
/// could be in use by somebody's connection just when a server restarts and needs it back.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Ports to look at before giving up. Even with half of them taken, this many misses do not happen by chance.
const LOOKS_MAX: usize = 64;
/// Races to lose before giving up.
const STARTS_MAX: usize = 8;

/// Starts a server on the wanted port, or else on one that is free.
pub(super) async fn start_on<S>(
    wanted: Option<u16>,
    start: impl AsyncFn(u16) -> Result<S, DevError>,
) -> Result<S, DevError> {
    if let Some(port) = wanted {
        return start(port).await;
    }
    let mut starts = 1;
    loop {
        let port = free_port().map_err(cannot("find a free port on", "127.0.0.1".as_ref()))?;
        match start(port).await {
            Err(DevError::PortTaken { .. }) if starts < STARTS_MAX => starts += 1,
            outcome => return outcome,
        }
    }
}

fn free_port() -> io::Result<u16> {
    let mut looks = 1;
    loop {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let port = PORTS.start + u16::from_ne_bytes(random) % (PORTS.end - PORTS.start);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(_) if looks < LOOKS_MAX => looks += 1,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(port: u16) -> DevError {
        DevError::PortTaken { server: "test", port }
    }

    #[tokio::test]
    async fn a_lost_race_is_run_again_on_another_port() {
        let lost = std::cell::RefCell::new(Vec::new());
        let started = start_on(None, async |port| {
            if lost.borrow().len() < 3 {
                lost.borrow_mut().push(port);
                return Err(taken(port));
            }
            Ok(port)
        });
        assert!(PORTS.contains(&started.await.unwrap()));
        assert_eq!(lost.borrow().len(), 3);
    }

    #[tokio::test]
    async fn a_wanted_port_is_tried_once() {
        let outcome = start_on::<()>(Some(1), async |port| Err(taken(port))).await;
        assert!(matches!(outcome, Err(DevError::PortTaken { port: 1, .. })));
    }
}
