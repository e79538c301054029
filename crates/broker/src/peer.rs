//! Who asks, as far as shares of what there is for all are concerned.

use std::net::IpAddr;

use ferromq_remoting::{Connection, ConnectionId};

/// A connection, and the address (with IPv6, the network) that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub connection: ConnectionId,
    pub address: IpAddr,
}

impl Peer {
    pub fn of(connection: &Connection) -> Peer {
        Peer { connection: connection.id(), address: connection.peer_network() }
    }
}
