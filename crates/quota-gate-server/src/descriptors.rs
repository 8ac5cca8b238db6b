//! File descriptors: raises the limit of the process, and keeps enough of them for the stores.
//!
//! Clients that took every descriptor would leave none for connections to Redis and Postgres, and their charges could
//! not be flushed. So the gate accepts fewer connections if the limit is low.

use std::fmt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// Descriptors for listeners, logs, timers, files that are read again, and connections that are being closed.
const OTHERS: u64 = 64;
/// Connections of a partition to Redis, besides its script calls: flusher, opening, sweeper.
const PER_PARTITION: u64 = 4;
/// Fewer connections of clients than this are no service.
const CLIENTS_MIN: u64 = 16;

/// How many descriptors the process may have, and what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// The limit of the process.
    pub limit: u64,
    /// What the stores, upstreams and files need.
    pub reserved: u64,
    /// What clients may need: `server.connections_max`, and a connection to the upstream for each message.
    pub clients: u64,
}

/// Raises the limit to the highest that the system allows. Returns it.
#[expect(clippy::must_use_candidate, reason = "what counts is the effect")]
pub fn raise_limit() -> u64 {
    let (soft, hard) = limits();
    // macOS reports no limit, but refuses more than its own; then the limit stays.
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// Returns the limit of the process.
#[must_use]
pub fn limit() -> u64 {
    limits().0
}

/// Returns the limit that [`raise_limit`] would set.
#[must_use]
pub fn highest_limit() -> u64 {
    limits().1
}

fn limits() -> (u64, u64) {
    getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX))
}

impl Descriptors {
    /// Compares the configuration with a limit.
    #[must_use]
    pub fn of(config: &Config, limit: u64) -> Self {
        let many = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let redis = u64::from(config.quota.partitions) * (many(config.redis.calls_in_flight_max) + PER_PARTITION);
        let outboxes = many(config.webhooks.requests_in_flight_max) + many(config.dual_write.requests_in_flight_max);
        let upstream = if config.upstream.url.is_empty() { 0 } else { many(config.upstream.requests_in_flight_max) };
        let reserved = [OTHERS, redis, u64::from(config.postgres.connections_max), outboxes]
            .into_iter()
            .fold(upstream, u64::saturating_add);
        Self { limit, reserved, clients: many(config.server.connections_max) }
    }

    /// Returns whether every connection that the configuration allows has a descriptor.
    #[must_use]
    pub const fn suffice(&self) -> bool {
        self.reserved.saturating_add(self.clients) <= self.limit
    }

    /// Returns how many connections of clients leave the reserve untouched.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        let free = self.limit.saturating_sub(self.reserved).max(CLIENTS_MIN);
        usize::try_from(self.clients.min(free)).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, reserved, clients } = self;
        write!(f, "the process may have {limit} file descriptors; it needs {reserved} and one per client ({clients})")
    }
}
