//! Whose request it is: the peer of the connection, or, behind trusted proxies, what they say.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// Proxies in a row that are looked through. More than this is a list that somebody made up.
const MAX_HOPS: usize = 16;

/// The client's address. When `peer` is a trusted proxy it is the right-most address of `X-Forwarded-For` that is not trusted: each
/// proxy appends whom it heard, so everything to the left of that one may be the client's invention.
#[must_use]
pub(crate) fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted_proxies.iter().any(|network| network.contains(&address));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let mut lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    lines.reverse();
    let hops = lines.into_iter().flat_map(|line| line.to_str().unwrap_or("?").rsplit(','));
    for hop in hops.take(MAX_HOPS) {
        // What cannot be read was written by the last one that could: he answers for it.
        let Some(address) = parse(hop.trim()) else { break };
        client = address;
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// What limits per address count under: an IPv4 address, or the /64 of an IPv6 one, since a single customer has at least that.
#[must_use]
pub(crate) fn limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// Proxies write `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:80`.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_ip(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(client("192.0.2.9", &["198.51.100.1"], &[]), "192.0.2.9");
        assert_eq!(client("192.0.2.9", &["198.51.100.1"], &["10.0.0.0/8"]), "192.0.2.9");
    }

    #[test]
    fn behind_proxies_it_is_the_last_address_that_is_not_theirs() {
        let ours = &["10.0.0.0/8", "2001:db8:1::/48"][..];
        for (forwarded, wanted) in [
            (&["198.51.100.1"][..], "198.51.100.1"),
            (&["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            (&["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            (&["1.1.1.1", "198.51.100.1:5555,10.0.0.2"], "198.51.100.1"),
            (&["[2001:db8::7]:443, [2001:db8:1::1]"], "2001:db8::7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["::ffff:198.51.100.1"], "198.51.100.1"),
            (&["198.51.100.1, rubbish, 10.0.0.2"], "10.0.0.2"),
            (&["198.51.100.1, "], "10.0.0.1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", forwarded, ours), wanted, "{forwarded:?}");
        }
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.1"], ours), "198.51.100.1");
    }

    #[test]
    fn a_made_up_chain_is_looked_at_for_a_while_only() {
        let chain = format!("198.51.100.1{}", ", 10.0.0.2".repeat(MAX_HOPS));
        assert_eq!(client("10.0.0.1", &[&chain], &["10.0.0.0/8"]), "10.0.0.2");
    }

    #[test]
    fn ipv6_counts_by_its_64() {
        let key = |text: &str| limit_key(text.parse().unwrap()).to_string();
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(key("2001:db8:1:3:3:4:5:6"), "2001:db8:1:3::");
        assert_eq!(key("192.0.2.1"), "192.0.2.1");
        assert_eq!(key("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
