//! Who a connection comes from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A peer that came by IPv4 to a socket of both stacks has its IPv4 address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// What counts as one peer: an IPv4 address, or the /64 that is the least an IPv6 host is given, with more addresses in it than can be counted.
pub(crate) fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_host_is_one_peer_whatever_address_of_its_network_it_uses() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2:ffff::1"), of("2001:db8:1:2::7"));
        assert_ne!(of("2001:db8:1:3::1"), of("2001:db8:1:2::1"));
        assert_eq!(of("10.0.0.7"), "10.0.0.7");
    }

    #[test]
    fn mapped_addresses_are_those_of_ipv4() {
        assert_eq!(canonical("[::ffff:10.0.0.7]:5".parse().unwrap()), "10.0.0.7:5".parse().unwrap());
        let v6 = "[fe80::1%3]:5".parse().unwrap();
        assert_eq!(canonical(v6), v6);
    }
}
