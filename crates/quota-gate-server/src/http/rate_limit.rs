//! Rate limits per address and per token, checked before any call to Redis (GCRA, by the `governor` crate).
//!
//! They protect the gate, not the users' quota: a client that floods it, or guesses credentials, gets 429
//! `RATE_LIMITED` and takes no capacity from others.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use governor::{DefaultKeyedRateLimiter, Quota, clock::Clock};

use crate::http::answers::problem::Problem;

/// Number of keys above which keys with a full budget are removed. A key takes about a hundred bytes.
const KEYS_MAX: usize = 100_000;
/// Number of requests between two comparisons with [`KEYS_MAX`].
const CHECKS_PER_CLEANUP: u32 = 10_000;

/// Requests per second; 0 means no limit. Bursts of twice as many are allowed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateLimitOptions {
    /// Per address.
    pub per_address: u32,
    /// Per address, with invalid credentials.
    pub unauthenticated_per_address: u32,
    /// Per token.
    pub per_token: u32,
}

/// Counts requests per address and per token.
#[derive(Debug)]
pub struct RateLimits {
    addresses: Option<Limiter<IpAddr>>,
    unauthenticated: Option<Limiter<IpAddr>>,
    tokens: Option<Limiter<Arc<str>>>,
}

#[derive(Debug)]
struct Limiter<K: Clone + std::hash::Hash + Eq> {
    limiter: DefaultKeyedRateLimiter<K>,
    checks: AtomicU32,
}

impl RateLimits {
    /// Creates these limits.
    #[must_use]
    pub fn new(options: &RateLimitOptions) -> Self {
        Self {
            addresses: Limiter::new(options.per_address),
            unauthenticated: Limiter::new(options.unauthenticated_per_address),
            tokens: Limiter::new(options.per_token),
        }
    }

    #[cfg(test)]
    pub(crate) fn unlimited() -> Self {
        Self::new(&RateLimitOptions::default())
    }

    pub(crate) fn address(&self, address: IpAddr) -> Result<(), Problem> {
        check(self.addresses.as_ref(), &network(address), "address")
    }

    /// Counts a request with invalid credentials.
    pub(crate) fn unauthenticated(&self, address: IpAddr) -> Result<(), Problem> {
        check(self.unauthenticated.as_ref(), &network(address), "unauthenticated")
    }

    pub(crate) fn token(&self, id: &Arc<str>) -> Result<(), Problem> {
        check(self.tokens.as_ref(), id, "token")
    }
}

/// Maps IPv6 addresses to their /64: a client with one has 2^64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl<K: Clone + std::hash::Hash + Eq> Limiter<K> {
    fn new(per_second: u32) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second)?;
        let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        let limiter = DefaultKeyedRateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst));
        Some(Self { limiter, checks: AtomicU32::new(0) })
    }

    fn check(&self, key: &K) -> Result<(), Duration> {
        let cleanup_due = self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHECKS_PER_CLEANUP);
        if cleanup_due && self.limiter.len() > KEYS_MAX {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(key).map_err(|not_until| not_until.wait_time_from(self.limiter.clock().now()))
    }
}

fn check<K: Clone + std::hash::Hash + Eq>(
    limiter: Option<&Limiter<K>>,
    key: &K,
    what: &'static str,
) -> Result<(), Problem> {
    let Some(limiter) = limiter else { return Ok(()) };
    limiter.check(key).map_err(|wait| {
        metrics::counter!("quota_gate_rate_limited_total", "by" => what).increment(1);
        Problem::rate_limited(wait)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_and_each_token_has_its_own_budget() {
        let limits =
            RateLimits::new(&RateLimitOptions { per_address: 2, unauthenticated_per_address: 1, per_token: 1 });
        let one = "192.0.2.1".parse().unwrap();
        let allowed = (0..20).filter(|_| limits.address(one).is_ok()).count();
        assert!((4..10).contains(&allowed), "{allowed}");
        assert!(limits.address("192.0.2.2".parse().unwrap()).is_ok());
        assert!(limits.unauthenticated(one).is_ok());
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        assert!((0..20).filter(|_| limits.token(&a).is_ok()).count() < 10);
        assert!(limits.token(&b).is_ok());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_mapped_ipv4_as_ipv4() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    }
}
