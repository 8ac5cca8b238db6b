//! The address of the client, which behind a proxy is in `X-Forwarded-For`.
//!
//! Anybody can send that header, so only what trusted proxies have appended to it counts: read from its end, the first
//! address that is not a trusted proxy is the client's.

use std::{net::IpAddr, str::FromStr};

use axum::http::HeaderMap;
use serde::Deserialize;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// An address, or a network such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Returns whether the address is in this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let shared = |one: u128, two: u128, bits: u32| {
            let ignored = bits - self.prefix;
            ignored == bits || one >> ignored == two >> ignored
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(one), IpAddr::V4(two)) => shared(u32::from(one).into(), u32::from(two).into(), 32),
            (IpAddr::V6(one), IpAddr::V6(two)) => shared(one.into(), two.into(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address or a network such as 10.0.0.0/8");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| wrong())?;
        if prefix <= bits { Ok(Self { address, prefix }) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Returns the address of the client of a request that came from `peer`.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut address = peer;
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
    for part in values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(',')) {
        if !is_trusted(address) {
            break;
        }
        // What cannot be read was not appended by a proxy that knows addresses.
        let Some(next) = parse(part.trim()) else { break };
        address = next;
    }
    address
}

/// Some proxies append the port too.
fn parse(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, value.parse().unwrap());
        }
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_have_appended_counts() {
        for (peer, forwarded, trusted, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], &[][..], "192.0.2.1"),
            ("10.0.0.2", &["198.51.100.7"], &["10.0.0.0/8"], "198.51.100.7"),
            // The client wrote the first address itself.
            ("10.0.0.2", &["127.0.0.1, 198.51.100.7"], &["10.0.0.0/8"], "198.51.100.7"),
            ("10.0.0.2", &["127.0.0.1", "198.51.100.7, 10.0.0.9"], &["10.0.0.0/8"], "198.51.100.7"),
            ("10.0.0.2", &["198.51.100.7, unknown"], &["10.0.0.0/8"], "10.0.0.2"),
            ("10.0.0.2", &["198.51.100.7:4711"], &["10.0.0.2"], "198.51.100.7"),
            ("fd00::1", &["[2001:db8::5]:80"], &["fd00::/8"], "2001:db8::5"),
            ("::ffff:10.0.0.2", &["198.51.100.7"], &["10.0.0.0/8"], "198.51.100.7"),
            ("10.0.0.2", &[], &["0.0.0.0/0"], "10.0.0.2"),
        ] {
            assert_eq!(client(peer, forwarded, trusted), expected, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn other_texts_are_no_networks() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/x", "example.com"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
