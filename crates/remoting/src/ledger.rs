//! Bytes that connections make a process keep, counted per connection, with a bound for all and a share for each address.
//!
//! Whoever takes too much loses a connection: of the address that is over its share, or has most when all together are over the bound, the one
//! that has kept bytes here for longest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::connection::{Connection, ConnectionId};

/// Bytes are counted in steps of so many. Less is not counted: with so little for each connection, the number of connections is the bound. The
/// table of all peers is locked once a step, and so never for frames as short as most are.
pub(crate) const STEP: usize = 32 * 1024;

#[derive(Debug)]
pub(crate) struct Ledger {
    bytes_max: usize,
    bytes_per_address_max: usize,
    bytes: usize,
    connections: HashMap<ConnectionId, Entry>,
    addresses: HashMap<IpAddr, OfAddress>,
    /// The addresses by how much they have.
    by_bytes: BTreeSet<(usize, IpAddr)>,
    /// Numbers the connections in the order in which they began to be counted.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    ip: IpAddr,
    since: u64,
    bytes: usize,
    connection: Connection,
}

#[derive(Debug, Default)]
struct OfAddress {
    bytes: usize,
    /// Its connections, the longest counted first.
    connections: BTreeMap<u64, ConnectionId>,
}

impl Ledger {
    pub(crate) fn new(bytes_max: usize, bytes_per_address_max: usize) -> Ledger {
        Ledger {
            bytes_max,
            bytes_per_address_max,
            bytes: 0,
            connections: HashMap::new(),
            addresses: HashMap::new(),
            by_bytes: BTreeSet::new(),
            next: 0,
        }
    }

    /// A connection has so many bytes now. Gives the connections that are to be closed, which count no more; it may be one of them.
    pub(crate) fn count(&mut self, ip: IpAddr, bytes: usize, connection: &Connection) -> Vec<Connection> {
        let id = connection.id();
        let since = self.forget(id).unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        if bytes == 0 {
            return Vec::new();
        }
        self.bytes += bytes;
        self.change_address(ip, |address| {
            address.bytes += bytes;
            address.connections.insert(since, id);
        });
        self.connections.insert(id, Entry { ip, since, bytes, connection: connection.clone() });
        let mut greedy = Vec::new();
        while let Some(id) = self.greedy(ip) {
            greedy.extend(self.connections.get(&id).map(|entry| entry.connection.clone()));
            self.forget(id);
        }
        greedy
    }

    /// Counts nothing for a connection any more; gives since when something was.
    pub(crate) fn forget(&mut self, id: ConnectionId) -> Option<u64> {
        let Entry { ip, since, bytes, .. } = self.connections.remove(&id)?;
        self.bytes -= bytes;
        self.change_address(ip, |address| {
            address.bytes -= bytes;
            address.connections.remove(&since);
        });
        Some(since)
    }

    /// Who has to go after an address has taken more, if someone has.
    fn greedy(&self, ip: IpAddr) -> Option<ConnectionId> {
        let over = |address: &&OfAddress| address.bytes > self.bytes_per_address_max;
        let culprit = match self.addresses.get(&ip).filter(over) {
            Some(address) => address,
            None if self.bytes > self.bytes_max => self.addresses.get(&self.by_bytes.last()?.1)?,
            None => return None,
        };
        culprit.connections.first_key_value().map(|(_, id)| *id)
    }

    fn change_address(&mut self, ip: IpAddr, change: impl FnOnce(&mut OfAddress)) {
        let address = self.addresses.entry(ip).or_default();
        self.by_bytes.remove(&(address.bytes, ip));
        change(address);
        if address.connections.is_empty() {
            self.addresses.remove(&ip);
        } else {
            self.by_bytes.insert((address.bytes, ip));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waiting::WaitingRequests;
    use proptest::prelude::*;

    const ALL: usize = 100_000;
    const PER_ADDRESS: usize = 40_000;

    fn ip(number: usize) -> IpAddr {
        IpAddr::from([10, 0, 0, number as u8])
    }

    /// The same without any tables: address, name, bytes, the longest counted first.
    #[derive(Default)]
    struct Model(Vec<(usize, ConnectionId, usize)>);

    impl Model {
        fn of(&self, address: usize) -> usize {
            self.0.iter().filter(|entry| entry.0 == address).map(|entry| entry.2).sum()
        }

        fn count(&mut self, address: usize, id: ConnectionId, bytes: usize) -> Vec<ConnectionId> {
            match self.0.iter_mut().find(|entry| entry.1 == id) {
                Some(entry) => entry.2 = bytes,
                None => self.0.push((address, id, bytes)),
            }
            self.0.retain(|entry| entry.2 > 0);
            let mut closed = Vec::new();
            loop {
                let culprit = if self.of(address) > PER_ADDRESS {
                    address
                } else if self.0.iter().map(|entry| entry.2).sum::<usize>() > ALL {
                    (0..4).max_by_key(|&address| (self.of(address), address)).unwrap()
                } else {
                    return closed;
                };
                let oldest = self.0.iter().position(|entry| entry.0 == culprit).unwrap();
                closed.push(self.0.remove(oldest).1);
            }
        }
    }

    proptest! {
        /// Whatever peers keep here: the sums stay below the bounds, and who is closed is of an address that has more than its share, or most of
        /// all, and has kept it for longer than its other connections.
        #[test]
        fn what_connections_keep_is_bounded_and_the_greedy_pay(
            steps in proptest::collection::vec((0usize..4, 0usize..3, prop_oneof![Just(0usize), 1usize..60_000]), 1..120)
        ) {
            let mut ledger = Ledger::new(ALL, PER_ADDRESS);
            let mut model = Model::default();
            let connections: Vec<Vec<_>> = (0..4)
                .map(|address| {
                    let peer = (ip(address), 1).into();
                    (0..3).map(|_| Connection::new(peer, ([127, 0, 0, 1], 2).into(), 1, WaitingRequests::default())).collect()
                })
                .collect();
            for (address, number, bytes) in steps {
                let connection: &Connection = &connections[address][number];
                let closed = ledger.count(ip(address), bytes, connection);
                let closed: Vec<_> = closed.iter().map(Connection::id).collect();
                prop_assert_eq!(closed, model.count(address, connection.id(), bytes));
                prop_assert_eq!(ledger.bytes, model.0.iter().map(|entry| entry.2).sum::<usize>());
                prop_assert!(ledger.bytes <= ALL);
                prop_assert_eq!(ledger.connections.len(), model.0.len());
                let counted: Vec<_> = (0..4).map(|address| model.of(address)).collect();
                for (address, bytes) in counted.iter().enumerate() {
                    let known = ledger.addresses.get(&ip(address)).map_or(0, |address| address.bytes);
                    prop_assert_eq!(known, *bytes);
                    prop_assert!(known <= PER_ADDRESS);
                }
                prop_assert_eq!(ledger.by_bytes.len(), counted.iter().filter(|bytes| **bytes > 0).count());
            }
            for connection in connections.iter().flatten() {
                ledger.forget(connection.id());
            }
            prop_assert!(ledger.bytes == 0 && ledger.addresses.is_empty() && ledger.by_bytes.is_empty());
        }
    }
}
