//! Who asks: what handlers know of a client, whichever way its request came.

use std::net::{IpAddr, SocketAddr};

use ferromq_protocol::{Command, Language};
use ferromq_remoting::{Connection, ConnectionId};

/// Whose share it is of what there is for all: a connection, and the address (with IPv6, the network) that it comes from.
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

/// The client behind a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub peer: Peer,
    pub address: SocketAddr,
    /// Of the client library. Java: `MQVersion`.
    pub version: i32,
    pub language: Language,
}

impl Origin {
    pub(crate) fn of(connection: &Connection, request: &Command) -> Origin {
        Origin {
            peer: Peer::of(connection),
            address: connection.peer_addr(),
            version: request.version,
            language: request.language,
        }
    }
}
