//! Which of its addresses this machine shows to others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The IPv4 address that this machine would send from, if it has a route. Nothing is sent: connecting a UDP socket only picks the interface.
pub fn outward_v4() -> Option<IpAddr> {
    outward(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))
}

/// The same for IPv6.
pub fn outward_v6() -> Option<IpAddr> {
    outward(IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)))
}

fn outward(from: IpAddr, to: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}
