//! Addresses as people and peers write them: `host:port`, the host a name, an IPv4 address, or an IPv6 address with or without brackets.
//!
//! Java cuts at the last colon and takes `::1:9876` as well as `[::1]:9876` (`NetworkUtil.string2SocketAddress`); so does this. What we
//! write has the brackets, which all clients understand.

mod origin;
mod outward;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

pub(crate) use origin::{canonical, network};
pub use outward::{outward_v4, outward_v6};

/// The two halves of `host:port`, the host without brackets; `None` for what is no such thing.
pub fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').filter(|host| host.contains(':'))?,
        None => host,
    };
    let is_host = if host.contains(':') { is_v6(host) } else { !host.is_empty() && !host.contains(['[', ']']) };
    is_host.then_some((host, port))
}

/// `host:port`, with brackets where they are needed.
pub fn with_port(host: &str, port: u16) -> String {
    if is_v6(host) { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The host without the brackets it may be written in.
pub fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// An IP address, in brackets or not.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    without_brackets(text).parse().ok()
}

/// One spelling for each peer, so that two do not make two connections. Costs nothing but for IPv6 without brackets.
pub(crate) fn one_spelling(address: &str) -> Cow<'_, str> {
    if address.starts_with('[') || address.bytes().filter(|byte| *byte == b':').count() < 2 {
        return Cow::Borrowed(address);
    }
    host_and_port(address).map_or(Cow::Borrowed(address), |(host, port)| Cow::Owned(with_port(host, port)))
}

/// With a zone or without: `fe80::1%eth0`.
fn is_v6(host: &str) -> bool {
    host.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_cut_at_the_last_colon_and_one_spelling_is_written() {
        for (text, host, written) in [
            ("127.0.0.1:9876", "127.0.0.1", "127.0.0.1:9876"),
            ("broker-a.local:9876", "broker-a.local", "broker-a.local:9876"),
            ("[::1]:9876", "::1", "[::1]:9876"),
            ("::1:9876", "::1", "[::1]:9876"),
            ("2001:db8::7:9876", "2001:db8::7", "[2001:db8::7]:9876"),
            ("[fe80::1%eth0]:9876", "fe80::1%eth0", "[fe80::1%eth0]:9876"),
            ("fe80::1%eth0:9876", "fe80::1%eth0", "[fe80::1%eth0]:9876"),
            (":::9876", "::", "[::]:9876"),
        ] {
            assert_eq!(host_and_port(text), Some((host, 9876)), "{text}");
            assert_eq!(with_port(host, 9876), written);
            assert_eq!(one_spelling(text), written);
        }
        for text in [
            "",
            "host",
            "host:",
            ":9876",
            "::1",
            "[::1]",
            "[::1]:",
            "[host]:9876",
            "[::1:9876",
            "::1]:9876",
            "1:2:9876",
            "a:b:9876",
            "host:70000",
        ] {
            assert_eq!(host_and_port(text), None, "{text}");
            assert_eq!(one_spelling(text), text);
        }
        assert_eq!(parse_ip("[::1]"), parse_ip("::1"));
        assert_eq!(parse_ip("localhost"), None);
    }
}
