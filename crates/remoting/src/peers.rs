//! What the peers of a process take of it together: connections and half-received frames, per address and as a whole.
//!
//! One connection is bounded by itself; a peer that opens many is bounded here. An address gets a share, so that nobody else notices when
//! one asks for more: its own connections are refused or closed. Behind one address there may be many honest hosts (NAT), so shares are large.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tracing::warn;

use crate::connection::{Connection, ConnectionId};

/// Unfinished frames are counted in steps of so many bytes. Less is not counted: with so little for each connection, the number of
/// connections is the bound. The table of all peers is locked once a step, and so never for frames as short as most are.
const PARTIAL_STEP: usize = 32 * 1024;

/// How much peers may take.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Connections of one address; beyond it, new ones are closed as soon as they are accepted.
    pub connections_per_address: usize,
    /// Bytes of frames that have begun to arrive, over all connections. Beyond it, the address that has the most of them loses the connection
    /// whose frame has been arriving for longest.
    pub partial_bytes: usize,
    /// The same for the connections of one address.
    pub partial_bytes_per_address: usize,
    /// Requests of one connection that wait for their answers. Beyond it, nothing more is read from the connection until one is answered.
    /// Parked ones ([`ReplySlot::parked`](crate::ReplySlot::parked)) do not count.
    pub waiting_per_connection: usize,
    /// The same for all connections of one address; each may have one whatever the others have.
    pub waiting_per_address: usize,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            connections_per_address: 10_000,
            partial_bytes: 512 * 1024 * 1024,
            partial_bytes_per_address: 128 * 1024 * 1024,
            waiting_per_connection: 4096,
            waiting_per_address: 8192,
        }
    }
}

/// The peers of one process. Clones share them: servers on several ports count together.
#[derive(Clone, Debug)]
pub struct Peers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: PeerLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    addresses: HashMap<IpAddr, Address>,
    /// Connections with a counted part of a frame.
    partials: HashMap<ConnectionId, Partial>,
    partial_bytes: usize,
    /// Numbers the frames in the order in which they began to be counted.
    next: u64,
}

#[derive(Debug)]
struct Address {
    connections: usize,
    waiting: Arc<AtomicUsize>,
    partial_bytes: usize,
    /// Its connections with a part of a frame, the longest lasting first.
    partials: BTreeMap<u64, ConnectionId>,
    /// The limit was hit and reported, and not left since.
    refusing: bool,
}

#[derive(Debug)]
struct Partial {
    since: u64,
    bytes: usize,
    connection: Connection,
}

impl Default for Peers {
    fn default() -> Self {
        Self::new(PeerLimits::default())
    }
}

impl Peers {
    pub fn new(limits: PeerLimits) -> Self {
        Self(Arc::new(Shared { limits, state: Mutex::default() }))
    }

    /// Lets one more connection in, unless its address has enough of them.
    pub(crate) fn admit(&self, ip: IpAddr) -> Option<Guest> {
        let limits = self.0.limits;
        let mut state = self.0.state.lock();
        let address = state.addresses.entry(ip).or_insert_with(|| Address {
            connections: 0,
            waiting: Arc::default(),
            partial_bytes: 0,
            partials: BTreeMap::new(),
            refusing: false,
        });
        if address.connections >= limits.connections_per_address {
            if !address.refusing {
                address.refusing = true;
                warn!(%ip, limit = limits.connections_per_address, "too many connections from one address, closing new ones");
            }
            return None;
        }
        address.refusing = false;
        address.connections += 1;
        let waiting = Waiting {
            own: AtomicUsize::new(0),
            own_max: limits.waiting_per_connection,
            of_address: Arc::clone(&address.waiting),
            of_address_max: limits.waiting_per_address,
        };
        Some(Guest { peers: self.clone(), ip, id: None, waiting: Some(waiting), partial: 0 })
    }
}

/// One connection's part of it all; given back when dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    peers: Peers,
    ip: IpAddr,
    /// Known once something was counted.
    id: Option<ConnectionId>,
    /// For the connection's handle, which lives longer.
    waiting: Option<Waiting>,
    /// Bytes that are counted for it.
    partial: usize,
}

impl Guest {
    /// Counts the requests that wait for answers. To be taken once, for the handle.
    pub(crate) fn take_waiting(&mut self) -> Waiting {
        self.waiting.take().unwrap_or_default()
    }

    /// This many bytes of an unfinished frame are here. Closes whoever has taken too much; that may be this connection.
    pub(crate) fn note_partial(&mut self, bytes: usize, connection: &Connection) {
        let counted = bytes - bytes % PARTIAL_STEP;
        if counted == self.partial {
            return;
        }
        self.partial = counted;
        self.id = Some(connection.id());
        let greedy = self.peers.0.state.lock().note_partial(self.ip, counted, connection, self.peers.0.limits);
        for greedy in greedy {
            warn!(peer = %greedy.peer_addr(), "connection closed: too many bytes of unfinished frames, and its own has been arriving for longest");
            greedy.close();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.peers.0.state.lock();
        if let Some(id) = self.id {
            state.forget(self.ip, id);
        }
        if let Some(address) = state.addresses.get_mut(&self.ip) {
            address.connections -= 1;
            if address.connections == 0 {
                state.addresses.remove(&self.ip);
            }
        }
    }
}

impl State {
    /// Counts, and gives the connections that are to be closed, which count no more.
    fn note_partial(
        &mut self,
        ip: IpAddr,
        bytes: usize,
        connection: &Connection,
        limits: PeerLimits,
    ) -> Vec<Connection> {
        let id = connection.id();
        let since = self.forget(ip, id);
        if bytes == 0 {
            return Vec::new();
        }
        let Some(address) = self.addresses.get_mut(&ip) else { return Vec::new() };
        let since = since.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        address.partials.insert(since, id);
        address.partial_bytes += bytes;
        self.partial_bytes += bytes;
        self.partials.insert(id, Partial { since, bytes, connection: connection.clone() });
        let mut greedy = Vec::new();
        loop {
            let over = |address: &Address| address.partial_bytes > limits.partial_bytes_per_address;
            let culprit = if self.addresses.get(&ip).is_some_and(over) {
                ip
            } else if self.partial_bytes > limits.partial_bytes {
                let most = self.addresses.iter().max_by_key(|(_, address)| address.partial_bytes);
                let Some((ip, _)) = most else { return greedy };
                *ip
            } else {
                return greedy;
            };
            let oldest = self.addresses.get(&culprit).and_then(|address| address.partials.first_key_value());
            let Some(id) = oldest.map(|(_, id)| *id) else { return greedy };
            if let Some(partial) = self.partials.get(&id) {
                greedy.push(partial.connection.clone());
            }
            self.forget(culprit, id);
        }
    }

    /// Counts nothing for a connection; gives since when something was.
    fn forget(&mut self, ip: IpAddr, id: ConnectionId) -> Option<u64> {
        let Partial { since, bytes, .. } = self.partials.remove(&id)?;
        self.partial_bytes -= bytes;
        if let Some(address) = self.addresses.get_mut(&ip) {
            address.partial_bytes -= bytes;
            address.partials.remove(&since);
        }
        Some(since)
    }
}

/// Counts requests of a connection that wait for their answers. The default has no bound: for peers that we chose.
#[derive(Debug)]
pub(crate) struct Waiting {
    own: AtomicUsize,
    own_max: usize,
    of_address: Arc<AtomicUsize>,
    of_address_max: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { own: AtomicUsize::new(0), own_max: usize::MAX, of_address: Arc::default(), of_address_max: usize::MAX }
    }
}

impl Waiting {
    pub(crate) fn begin(&self) {
        self.own.fetch_add(1, Ordering::Relaxed);
        self.of_address.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.of_address.fetch_sub(1, Ordering::Relaxed);
        // Ordered with the look at whether the task sleeps for want of room, see `Connection::sleep`.
        self.own.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether one more request may begin. With none of its own a connection always may: nobody would wake it later.
    pub(crate) fn has_room(&self) -> bool {
        let own = self.own.load(Ordering::SeqCst);
        own == 0 || (own < self.own_max && self.of_address.load(Ordering::Relaxed) < self.of_address_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: PeerLimits = PeerLimits {
        connections_per_address: 3,
        partial_bytes: 100_000,
        partial_bytes_per_address: 40_000,
        waiting_per_connection: 2,
        waiting_per_address: 4,
    };

    fn ip(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    fn connection(address: u8) -> Connection {
        Connection::new((ip(address), 1).into(), ([127, 0, 0, 1], 2).into(), 1, Waiting::default())
    }

    #[test]
    fn an_address_has_its_share_of_connections_and_leaves_nothing_behind() {
        let peers = Peers::new(LIMITS);
        let mut guests: Vec<_> = (0..3).map(|_| peers.admit(ip(1)).unwrap()).collect();
        assert!(peers.admit(ip(1)).is_none());
        assert!(peers.admit(ip(2)).is_some());
        guests.pop();
        assert!(peers.admit(ip(1)).is_some());
        guests.clear();
        assert!(peers.0.state.lock().addresses.is_empty());
    }

    #[test]
    fn requests_that_wait_are_counted_per_connection_and_per_address() {
        let peers = Peers::new(LIMITS);
        let mut guests: Vec<_> = (0..3).map(|_| peers.admit(ip(1)).unwrap()).collect();
        let waiting: Vec<_> = guests.iter_mut().map(Guest::take_waiting).collect();
        waiting[0].begin();
        assert!(waiting[0].has_room());
        waiting[0].begin();
        assert!(!waiting[0].has_room());
        waiting[1].begin();
        assert!(waiting[1].has_room());
        waiting[2].begin();
        assert!(!waiting[1].has_room(), "the address has four");
        waiting[0].end();
        assert!(waiting[0].has_room() && waiting[1].has_room());
        waiting[0].end();
        waiting[1].begin();
        waiting[2].begin();
        assert!(waiting[0].has_room(), "each may have one");
        let other = peers.admit(ip(2)).unwrap().take_waiting();
        other.begin();
        assert!(other.has_room(), "another address does not notice");
    }

    proptest! {
        /// Whatever peers leave unfinished: the sums stay below the bounds, and who is closed is of an address that has more than its share,
        /// or most of all, and has taken longer than its other connections.
        #[test]
        fn unfinished_frames_are_bounded_and_the_greedy_pay(
            steps in proptest::collection::vec((0u8..4, 0usize..3, 0usize..60_000), 1..120)
        ) {
            let peers = Peers::new(LIMITS);
            let mut connections: Vec<Vec<_>> = (0..4)
                .map(|address| (0..3).map(|_| (peers.admit(ip(address)).unwrap(), connection(address))).collect())
                .collect();
            for (address, number, bytes) in steps {
                let before: HashMap<ConnectionId, usize> =
                    peers.0.state.lock().partials.iter().map(|(id, partial)| (*id, partial.bytes)).collect();
                let (guest, own) = &mut connections[usize::from(address)][number];
                let own = own.clone();
                guest.note_partial(bytes, &own);
                let state = peers.0.state.lock();
                prop_assert!(state.partial_bytes <= LIMITS.partial_bytes);
                prop_assert_eq!(state.partial_bytes, state.partials.values().map(|partial| partial.bytes).sum::<usize>());
                for (ip, known) in &state.addresses {
                    prop_assert!(known.partial_bytes <= LIMITS.partial_bytes_per_address);
                    let bytes: usize = known.partials.values().map(|id| state.partials[id].bytes).sum();
                    prop_assert_eq!((ip, known.partial_bytes), (ip, bytes));
                }
                let closed = before.keys().filter(|id| !state.partials.contains_key(id) && **id != own.id()).count();
                let total: usize = before.values().sum();
                if total + bytes <= LIMITS.partial_bytes && bytes <= LIMITS.partial_bytes_per_address {
                    // Only its own address can have had too much.
                    let others = connections.iter().enumerate().filter(|(other, _)| *other != usize::from(address));
                    for (_, (_, other)) in others.flat_map(|(other, all)| all.iter().map(move |one| (other, one))) {
                        prop_assert_eq!(before.contains_key(&other.id()), state.partials.contains_key(&other.id()));
                    }
                }
                prop_assert!(closed == 0 || bytes >= PARTIAL_STEP);
            }
        }
    }
}
