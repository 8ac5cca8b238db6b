//! Listening sockets, with a long queue of connections that are not accepted yet.
//!
//! When many clients reconnect at the same time, connections beyond the queue are dropped, and their clients try again
//! after a second or more.

use std::{fs, io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted. A reconnect of all clients takes a few milliseconds of the accept loop.
pub const BACKLOG: u32 = 4_096;

/// Listens on an address.
///
/// # Errors
/// If the address is in use or not of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted gate does not wait for the old connections of its port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Returns the system's bound of the queue if it is lower than [`BACKLOG`].
#[must_use]
pub fn lower_bound() -> Option<u32> {
    let bound = fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()?;
    (bound < BACKLOG).then_some(bound)
}
