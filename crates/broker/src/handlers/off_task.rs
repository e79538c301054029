//! Work that waits for the disk, on threads that may wait: how much of it there may be at once.
//!
//! It is done at once or not at all: a thread is taken for each piece, and beyond the bound the answer is "busy". An address has a share.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferromq_protocol::{Command, Reply, ResponseCode};
use ferromq_remoting::{Connection, Outcome};
use parking_lot::Mutex;

use crate::refusal::Refusal;

/// Pieces of work at once; tokio has twice as many threads for it.
const ALL: usize = 256;
/// Of one address.
const PER_ADDRESS: usize = 64;

/// The process has one set of threads, and so one gate before it.
static GATE: Gate = Gate::new(ALL, PER_ADDRESS);

/// Runs work that waits for the disk on a thread that may wait, and answers when it is done.
pub(super) fn answer_off_task(
    connection: &Connection,
    command: &Command,
    work: impl FnOnce() -> Result<Reply, Refusal> + Send + 'static,
) -> Outcome {
    let Some(pass) = GATE.enter(connection.peer_network()) else {
        let remark = "[OVERLOAD]system busy, start flow control for a while: too many requests wait for the disk";
        return Outcome::Reply(Refusal::new(ResponseCode::SYSTEM_BUSY, remark).into_reply());
    };
    let slot = connection.reply_slot(command);
    tokio::task::spawn_blocking(move || {
        let reply = work().unwrap_or_else(Refusal::into_reply);
        drop(pass);
        slot.send(reply);
    });
    Outcome::Deferred
}

/// Counts who is inside.
struct Gate {
    inside: Mutex<Inside>,
    all: usize,
    per_address: usize,
}

struct Inside {
    count: usize,
    of_addresses: BTreeMap<IpAddr, usize>,
}

/// The right to be inside, until it is dropped.
struct Pass<'a> {
    gate: &'a Gate,
    address: IpAddr,
}

impl Gate {
    const fn new(all: usize, per_address: usize) -> Gate {
        Gate { inside: Mutex::new(Inside { count: 0, of_addresses: BTreeMap::new() }), all, per_address }
    }

    fn enter(&self, address: IpAddr) -> Option<Pass<'_>> {
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
