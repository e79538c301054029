//! What the peers of a process take of it together, per address and as a whole: connections, requests that wait for their answers, bytes of
//! unfinished frames, and bytes of answers that a peer does not read.
//!
//! One connection is bounded by itself; a peer that opens many is bounded here. An address gets a share, so that nobody else notices when
//! one asks for more: its own connections are refused or closed. Behind one address there may be many honest hosts (NAT), so shares are large.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use parking_lot::Mutex;
use tracing::warn;

use crate::connection::{Connection, ConnectionId};
use crate::ledger::{Ledger, STEP};
use crate::waiting::WaitingRequests;

/// How much peers may take.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Connections of one address; beyond it, new ones are closed as soon as they are accepted.
    pub connections_per_address: usize,
    /// Bytes of frames that have begun to arrive, over all connections. Beyond it, the address that has the most of them loses the connection
    /// whose frame has been arriving for longest.
    pub unfinished_frame_bytes: usize,
    /// The same for the connections of one address.
    pub unfinished_frame_bytes_per_address: usize,
    /// Bytes of answers in memory that peers do not read, over all connections. Beyond it, the address that has the most of them loses the
    /// connection that has not read all of its answers for longest. What lies in mapped files does not count.
    pub unread_answer_bytes: usize,
    /// The same for the connections of one address.
    pub unread_answer_bytes_per_address: usize,
    /// Requests of one connection that wait for their answers. Beyond it, nothing more is read from the connection until one is answered.
    /// Held ones ([`Connection::held_slot`]) do not count.
    pub waiting_per_connection: usize,
    /// The same for all connections of one address, counted in steps of 16 of each connection; each may have one whatever the others have.
    pub waiting_per_address: usize,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            connections_per_address: 10_000,
            unfinished_frame_bytes: 512 * 1024 * 1024,
            unfinished_frame_bytes_per_address: 128 * 1024 * 1024,
            unread_answer_bytes: 512 * 1024 * 1024,
            unread_answer_bytes_per_address: 128 * 1024 * 1024,
            waiting_per_connection: 4096,
            waiting_per_address: 8192,
        }
    }
}

/// The peers of one process. Clones share them: servers on several ports count together.
#[derive(Clone, Debug)]
pub struct Peers(Arc<PeersState>);

#[derive(Debug)]
struct PeersState {
    limits: PeerLimits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    addresses: HashMap<IpAddr, Address>,
    /// By [`Resource`].
    kept: [Ledger; 2],
}

/// What a connection makes the process keep.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resource {
    /// Frames that have begun to arrive.
    UnfinishedFrames,
    /// Answers in memory that wait for the peer to read.
    UnreadAnswers,
}

impl Resource {
    fn why_closed(self) -> &'static str {
        match self {
            Resource::UnfinishedFrames => {
                "too many bytes of unfinished frames, and its own has been arriving for longest"
            }
            Resource::UnreadAnswers => {
                "too many bytes of answers that nobody reads, and its own have waited for longest"
            }
        }
    }
}

#[derive(Debug, Default)]
struct Address {
    connections: usize,
    waiting: Arc<AtomicI64>,
    /// The limit was hit and reported, and not left since.
    refusing: bool,
}

impl Default for Peers {
    fn default() -> Self {
        Self::new(PeerLimits::default())
    }
}

impl Peers {
    pub fn new(limits: PeerLimits) -> Self {
        let state = State {
            addresses: HashMap::new(),
            kept: [
                Ledger::new(limits.unfinished_frame_bytes, limits.unfinished_frame_bytes_per_address),
                Ledger::new(limits.unread_answer_bytes, limits.unread_answer_bytes_per_address),
            ],
        };
        Self(Arc::new(PeersState { limits, state: Mutex::new(state) }))
    }

    /// Lets one more connection in, unless its address has enough of them: its part of it all, and the count of its requests for its handle,
    /// which lives longer.
    pub(crate) fn admit(&self, ip: IpAddr) -> Option<(Guest, WaitingRequests)> {
        let limits = self.0.limits;
        let mut state = self.0.state.lock();
        let address = state.addresses.entry(ip).or_default();
        if address.connections >= limits.connections_per_address {
            if !address.refusing {
                address.refusing = true;
                warn!(%ip, limit = limits.connections_per_address, "too many connections from one address, closing new ones");
            }
            return None;
        }
        address.refusing = false;
        address.connections += 1;
        let of_address = Arc::clone(&address.waiting);
        let waiting = WaitingRequests::new(limits.waiting_per_connection, of_address, limits.waiting_per_address);
        Some((Guest { peers: self.clone(), ip, id: None, counted: [0; 2] }, waiting))
    }
}

/// One connection's part of it all; given back when dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    peers: Peers,
    ip: IpAddr,
    /// Known once something was counted.
    id: Option<ConnectionId>,
    /// Bytes that are counted for it, by [`Resource`].
    counted: [usize; 2],
}

impl Guest {
    /// So many bytes of that kind are here now. Closes whoever has taken too much; that may be this connection.
    pub(crate) fn keeps(&mut self, kind: Resource, bytes: usize, connection: &Connection) {
        let counted = bytes - bytes % STEP;
        if counted == self.counted[kind as usize] {
            return;
        }
        self.counted[kind as usize] = counted;
        self.id = Some(connection.id());
        let greedy = self.peers.0.state.lock().kept[kind as usize].count(self.ip, counted, connection);
        for greedy in greedy {
            warn!(peer = %greedy.peer_addr(), "connection closed: {}", kind.why_closed());
            greedy.close();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.peers.0.state.lock();
        if let Some(id) = self.id {
            for ledger in &mut state.kept {
                ledger.forget(id);
            }
        }
        if let Some(address) = state.addresses.get_mut(&self.ip) {
            address.connections -= 1;
            if address.connections == 0 {
                state.addresses.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn an_address_has_its_share_of_connections_and_leaves_nothing_behind() {
        let peers = Peers::new(PeerLimits { connections_per_address: 3, ..PeerLimits::default() });
        let mut guests: Vec<_> = (0..3).map(|_| peers.admit(ip(1)).unwrap()).collect();
        assert!(peers.admit(ip(1)).is_none());
        assert!(peers.admit(ip(2)).is_some());
        guests.pop();
        assert!(peers.admit(ip(1)).is_some());
        guests.clear();
        assert!(peers.0.state.lock().addresses.is_empty());
    }

    #[test]
    fn connections_of_one_address_share_its_requests_that_wait() {
        let limits = PeerLimits { waiting_per_connection: 40, waiting_per_address: 32, ..PeerLimits::default() };
        let peers = Peers::new(limits);
        let of = |number| peers.admit(ip(number)).unwrap();
        let [(_a, first), (_b, second), (_c, elsewhere)] = [of(1), of(1), of(2)];
        (0..32).for_each(|_| first.begin());
        assert_eq!((first.room(), second.room(), elsewhere.room()), (0, 1, 32));
        second.begin();
        assert_eq!((second.room(), elsewhere.room()), (0, 32));
        assert!(!first.end());
        assert!(first.room() > 0 && second.room() > 0);
    }
}
