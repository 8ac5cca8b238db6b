//! A free port.
//!
//! The servers cannot inherit a listening socket, so another process may take a port after it was found free. Then the
//! server is started on another port.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
};

use super::error::{DevError, cannot};

/// Below the ports of outgoing connections on Linux (from 32768), macOS and BSD (from 49152). A connection could use
/// such a port just when a server restarts and needs it again.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Ports to check before giving up. Even with half of them taken, this many misses do not happen by chance.
const LOOKS_MAX: usize = 64;
/// Starts before giving up, if another process takes the port each time.
const STARTS_MAX: usize = 8;

/// Starts a server on the wanted port, or on a free one if none is given.
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
    async fn another_port_is_tried_if_one_is_taken() {
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
