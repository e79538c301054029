//! How much work that waits for the disk there may be at once, on the threads that may wait.
//!
//! It is done at once or not at all: a thread is taken for each piece. An address has a share.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parking_lot::Mutex;

/// Pieces of work at once; tokio has twice as many threads for it.
const ALL: usize = 256;
/// Of one address.
const PER_ADDRESS: usize = 64;

/// The process has one set of threads, and so one gate before it.
pub(crate) static BLOCKING: Gate = Gate::new(ALL, PER_ADDRESS);

/// Counts who is inside.
#[derive(Debug)]
pub(crate) struct Gate {
    inside: Mutex<Inside>,
    all: usize,
    per_address: usize,
}

#[derive(Debug)]
struct Inside {
    count: usize,
    of_addresses: BTreeMap<IpAddr, usize>,
}

/// The right to be inside, until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    gate: &'a Gate,
    address: IpAddr,
}

impl Gate {
    const fn new(all: usize, per_address: usize) -> Gate {
        Gate { inside: Mutex::new(Inside { count: 0, of_addresses: BTreeMap::new() }), all, per_address }
    }

    /// `None` when all of it, or the share of the address, is taken.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Pass<'_>> {
        let mut inside = self.inside.lock();
        let of_address = inside.of_addresses.get(&address).copied().unwrap_or(0);
        if inside.count >= self.all || of_address >= self.per_address {
            return None;
        }
        inside.count += 1;
        inside.of_addresses.insert(address, of_address + 1);
        Some(Pass { gate: self, address })
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut inside = self.gate.inside.lock();
        inside.count -= 1;
        if let Some(count) = inside.of_addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                inside.of_addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_have_all_threads() {
        let gate = Gate::new(5, 3);
        let [greedy, honest] = [1, 2].map(|number| IpAddr::from([10, 0, 0, number]));
        let mut passes: Vec<_> = (0..10).filter_map(|_| gate.enter(greedy)).collect();
        assert_eq!(passes.len(), 3);
        assert!(gate.enter(honest).is_some());
        let others: Vec<_> = (0..10).filter_map(|_| gate.enter(honest)).collect();
        assert_eq!(others.len(), 2);
        passes.pop();
        assert!(gate.enter(greedy).is_some());
        drop((passes, others));
        assert!(gate.inside.lock().of_addresses.is_empty());
    }
}
