//! What this machine is called, and which of its addresses others are told where the configuration does not say.

use std::net::{IpAddr, Ipv4Addr};

use ferromq_remoting::address::{outward_v4, outward_v6};

/// `DEFAULT_BROKER` where the kernel gives none, as in Java.
pub(crate) fn name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "DEFAULT_BROKER".into(),
        name => name.into(),
    }
}

/// The address of the interface that leads out of this host, else its first address that is not loopback, else its IPv6 address, else
/// loopback. Java: `NetworkUtil.getLocalAddress`, which asks the interfaces in turn and prefers IPv4 too.
pub(crate) fn address() -> IpAddr {
    outward_v4()
        .or_else(|| first_local_v4(&std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default()).map(IpAddr::V4))
        .or_else(outward_v6)
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// First own address in the kernel's routing trie: a `|-- a.b.c.d` line followed by `/32 host LOCAL`.
fn first_local_v4(trie: &str) -> Option<Ipv4Addr> {
    let mut last = None;
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.ends_with("host LOCAL")
            && let Some(address) = last
            && !Ipv4Addr::is_loopback(&address)
        {
            return Some(address);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_read_from_the_routing_trie() {
        let trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 10.0.0.7\n        /32 host LOCAL\n";
        assert_eq!(first_local_v4(trie), Some(Ipv4Addr::new(10, 0, 0, 7)));
        assert_eq!(first_local_v4(""), None);
    }
}
