//! The threads that wait for the disk on behalf of requests, so that the connections' threads do not.
//!
//! A request that finds what it reads not in memory comes here whole, as does one that always reads old data or looks through much.
//! Addresses take turns, and so do the connections of each; none has all of the threads, nor all of the room: whoever asks for much, or for
//! what lies on a bad part of the disk, waits for himself. Java: `pullMessageExecutor`, `queryMessageExecutor`.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use ferromq_remoting::ConnectionId;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tracing::{error, warn};

use crate::peer::Peer;

const THREADS: usize = 8;
/// Of them for one address, and for one connection, at a time.
const RUNNING_PER_ADDRESS: usize = 6;
const RUNNING_PER_CONNECTION: usize = 2;
/// Requests that may wait, and bytes of them.
const WAITING_MAX: usize = 4096;
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Of them from one address.
const WAITING_PER_ADDRESS: usize = WAITING_MAX / 2;
const WAITING_BYTES_PER_ADDRESS: usize = WAITING_BYTES_MAX / 2;
/// Of them from one connection: a consumer pulls all its queues over one.
const WAITING_PER_CONNECTION: usize = 512;

/// There is no room for another request. Java answers so when a pool's queue is full.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "[OVERLOAD]system busy, start flow control for a while: {waiting} requests wait to read from the disk, limit {limit}"
)]
pub(crate) struct Busy {
    waiting: usize,
    limit: usize,
}

/// Called by a reader, or at once with the reason why none will be.
type Job = Box<dyn FnOnce(Result<(), Busy>) + Send>;

pub(crate) struct Readers {
    pool: Arc<ReaderPool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads have in common.
#[derive(Default)]
struct ReaderPool {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    connections: HashMap<ConnectionId, OfConnection>,
    addresses: HashMap<IpAddr, OfAddress>,
    /// Addresses that may have one more thread and have a connection that may, in turn.
    turns: VecDeque<IpAddr>,
    waiting: usize,
    bytes: usize,
    /// No more room was reported, and not since left.
    full: bool,
    stopping: bool,
}

#[derive(Default)]
struct OfAddress {
    /// Connections that have something waiting and may have one more thread, in turn.
    turns: VecDeque<ConnectionId>,
    waiting: usize,
    bytes: usize,
    running: usize,
}

#[derive(Default)]
struct OfConnection {
    /// With their bytes.
    waiting: VecDeque<(usize, Job)>,
    running: usize,
}

impl OfAddress {
    fn has_turn(&self) -> bool {
        !self.turns.is_empty() && self.running < RUNNING_PER_ADDRESS
    }
}

impl OfConnection {
    fn has_turn(&self) -> bool {
        !self.waiting.is_empty() && self.running < RUNNING_PER_CONNECTION
    }
}

impl Readers {
    /// Starts the threads; jobs may use the tokio runtime this is called on.
    pub(crate) fn start() -> io::Result<Readers> {
        let readers = Readers { pool: Arc::default(), threads: Mutex::default() };
        for number in 0..THREADS {
            let (pool, runtime) = (Arc::clone(&readers.pool), Handle::current());
            let thread = std::thread::Builder::new().name(format!("reader-{number}")).spawn(move || {
                let _entered = runtime.enter();
                pool.run();
            })?;
            readers.threads.lock().push(thread);
        }
        Ok(readers)
    }

    /// Has a job done for a peer; `bytes` is what it keeps in memory. Without room for it, it is called at once with the reason.
    pub(crate) fn submit(&self, peer: Peer, bytes: usize, job: impl FnOnce(Result<(), Busy>) + Send + 'static) {
        let refused = self.pool.queue.lock().add(peer, bytes, Box::new(job));
        match refused {
            Ok(()) => {
                self.pool.wake.notify_one();
            }
            Err((busy, job)) => job(Err(busy)),
        }
    }

    /// Ends the threads when they are done with what they are at; what waits is dropped.
    pub(crate) fn stop(&self) {
        self.pool.stop();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                error!("a thread that reads has panicked");
            }
        }
    }
}

impl Drop for Readers {
    /// Does not wait: the last one to let go may be one of the threads.
    fn drop(&mut self) {
        self.pool.stop();
    }
}

impl ReaderPool {
    fn run(&self) {
        loop {
            let (peer, job) = {
                let mut queue = self.queue.lock();
                loop {
                    if queue.stopping {
                        return;
                    }
                    match queue.next() {
                        Some(next) => break next,
                        None => self.wake.wait(&mut queue),
                    }
                }
            };
            // The hook has told of it. The request's slot is gone then, and the peer runs into its timeout.
            if catch_unwind(AssertUnwindSafe(|| job(Ok(())))).is_err() {
                error!("a request panicked while it read from the disk");
            }
            if self.queue.lock().done(peer) {
                self.wake.notify_one();
            }
        }
    }

    fn stop(&self) {
        let dropped = {
            let mut queue = self.queue.lock();
            queue.stopping = true;
            std::mem::take(&mut queue.connections)
        };
        // Not under the lock: jobs own what they use.
        drop(dropped);
        self.wake.notify_all();
    }
}

impl Queue {
    fn add(&mut self, peer: Peer, bytes: usize, job: Job) -> Result<(), (Busy, Job)> {
        if self.waiting >= WAITING_MAX || self.bytes + bytes > WAITING_BYTES_MAX || self.stopping {
            if !std::mem::replace(&mut self.full, true) {
                warn!(waiting = self.waiting, bytes = self.bytes, "too many requests wait to read from the disk");
            }
            return Err((Busy { waiting: self.waiting, limit: WAITING_MAX }, job));
        }
        let (of_address, bytes_of_address) =
            self.addresses.get(&peer.address).map_or((0, 0), |address| (address.waiting, address.bytes));
        if of_address >= WAITING_PER_ADDRESS || bytes_of_address + bytes > WAITING_BYTES_PER_ADDRESS {
            return Err((Busy { waiting: of_address, limit: WAITING_PER_ADDRESS }, job));
        }
        let of_connection = self.connections.get(&peer.connection).map_or(0, |connection| connection.waiting.len());
        if of_connection >= WAITING_PER_CONNECTION {
            return Err((Busy { waiting: of_connection, limit: WAITING_PER_CONNECTION }, job));
        }
        let address = self.addresses.entry(peer.address).or_default();
        let connection = self.connections.entry(peer.connection).or_default();
        let (address_had, connection_had) = (address.has_turn(), connection.has_turn());
        connection.waiting.push_back((bytes, job));
        if connection.has_turn() && !connection_had {
            address.turns.push_back(peer.connection);
        }
        if address.has_turn() && !address_had {
            self.turns.push_back(peer.address);
        }
        address.waiting += 1;
        address.bytes += bytes;
        self.waiting += 1;
        self.bytes += bytes;
        Ok(())
    }

    fn next(&mut self) -> Option<(Peer, Job)> {
        let address_of = self.turns.pop_front()?;
        let address = self.addresses.get_mut(&address_of)?;
        let id = address.turns.pop_front()?;
        let connection = self.connections.get_mut(&id)?;
        let (bytes, job) = connection.waiting.pop_front()?;
        connection.running += 1;
        if connection.has_turn() {
            address.turns.push_back(id);
        }
        address.running += 1;
        if address.has_turn() {
            self.turns.push_back(address_of);
        }
        address.waiting -= 1;
        address.bytes -= bytes;
        self.waiting -= 1;
        self.bytes -= bytes;
        self.full = false;
        Some((Peer { connection: id, address: address_of }, job))
    }

    /// True when that gives the address another turn.
    fn done(&mut self, peer: Peer) -> bool {
        let Some(address) = self.addresses.get_mut(&peer.address) else { return false };
        let address_had = address.has_turn();
        if let Some(connection) = self.connections.get_mut(&peer.connection) {
            // While it had all its threads, it was not in the list.
            let had = connection.has_turn();
            connection.running -= 1;
            if connection.has_turn() && !had {
                address.turns.push_back(peer.connection);
            }
            if connection.waiting.is_empty() && connection.running == 0 {
                self.connections.remove(&peer.connection);
            }
        }
        address.running -= 1;
        let gains = address.has_turn() && !address_had;
        if gains {
            self.turns.push_back(peer.address);
        }
        if address.waiting == 0 && address.running == 0 {
            self.addresses.remove(&peer.address);
        }
        gains
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(connection: u64, address: u8) -> Peer {
        Peer { connection: ConnectionId(connection), address: IpAddr::from([10, 0, 0, address]) }
    }

    fn add(queue: &mut Queue, peer: Peer, bytes: usize) -> Result<(), Busy> {
        queue.add(peer, bytes, Box::new(|_| {})).map_err(|(busy, _)| busy)
    }

    fn next(queue: &mut Queue) -> Option<u64> {
        queue.next().map(|(peer, _)| peer.connection.0)
    }

    fn assert_nothing_left(queue: &Queue) {
        assert!(queue.connections.is_empty() && queue.addresses.is_empty() && queue.turns.is_empty());
        assert_eq!((queue.waiting, queue.bytes), (0, 0));
    }

    #[test]
    fn connections_take_turns_and_none_has_all_threads() {
        let (a, b) = (peer(1, 1), peer(2, 1));
        let mut queue = Queue::default();
        for _ in 0..6 {
            add(&mut queue, a, 1).unwrap();
        }
        add(&mut queue, b, 1).unwrap();
        assert_eq!([next(&mut queue), next(&mut queue), next(&mut queue)], [Some(1), Some(2), Some(1)]);
        assert_eq!(next(&mut queue), None, "the first has two threads");
        add(&mut queue, b, 1).unwrap();
        assert_eq!(next(&mut queue), Some(2));
        assert!(queue.done(a));
        assert_eq!([next(&mut queue), next(&mut queue)], [Some(1), None]);
        assert!(!queue.done(b) && !queue.done(b));
        for _ in 0..3 {
            assert!(queue.done(a));
            assert_eq!(next(&mut queue), Some(1));
        }
        assert!(!queue.done(a) && !queue.done(a));
        assert_nothing_left(&queue);
    }

    #[test]
    fn what_waits_has_bounds() {
        let mut queue = Queue::default();
        for _ in 0..WAITING_PER_CONNECTION {
            add(&mut queue, peer(1, 1), 1).unwrap();
        }
        let limit = WAITING_PER_CONNECTION;
        assert_eq!(add(&mut queue, peer(1, 1), 1), Err(Busy { waiting: limit, limit }));
        assert!(add(&mut queue, peer(2, 1), WAITING_BYTES_PER_ADDRESS).is_err(), "too many bytes");
        let fill = |queue: &mut Queue, address: u8| {
            let connections = u64::from(address) * 1_000_000..;
            connections.take_while(|connection| add(queue, peer(*connection, address), 1).is_ok()).count()
        };
        assert_eq!(fill(&mut queue, 1), WAITING_PER_ADDRESS - WAITING_PER_CONNECTION);
        // Nobody else notices, until all is taken.
        assert_eq!(fill(&mut queue, 2), WAITING_MAX - WAITING_PER_ADDRESS);
        assert_eq!((fill(&mut queue, 3), queue.waiting), (0, WAITING_MAX));
        while let Some((peer, _)) = queue.next() {
            queue.done(peer);
        }
        assert_nothing_left(&queue);
        add(&mut queue, peer(1, 3), WAITING_BYTES_PER_ADDRESS).unwrap();
    }

    proptest! {
        /// Whoever may have a thread gets one, whoever has his share does not, and each has his jobs done in order.
        #[test]
        fn threads_are_given_as_the_shares_say(steps in proptest::collection::vec((0u64..12, any::<bool>()), 0..200)) {
            let of = |connection: u64| peer(connection, (connection / 6) as u8);
            let mut queue = Queue::default();
            let (mut waiting, mut running) = ([0usize; 12], Vec::<Peer>::new());
            for (connection, adds) in steps {
                if adds {
                    add(&mut queue, of(connection), 1).unwrap();
                    waiting[connection as usize] += 1;
                } else if !running.is_empty() {
                    let done = running.swap_remove(connection as usize % running.len());
                    queue.done(done);
                }
                let mut free = |running: &[Peer]| {
                    let may = |connection: u64| {
                        let peer = of(connection);
                        waiting[connection as usize] > 0
                            && running.iter().filter(|other| **other == peer).count() < RUNNING_PER_CONNECTION
                            && running.iter().filter(|other| other.address == peer.address).count() < RUNNING_PER_ADDRESS
                    };
                    let expected = running.len() < THREADS && (0..12).any(may);
                    let next = if running.len() < THREADS { queue.next() } else { None };
                    let next = next.map(|(peer, _)| peer);
                    assert_eq!(next.is_some(), expected);
                    assert!(next.is_none_or(|peer| may(peer.connection.0)));
                    if let Some(peer) = next {
                        waiting[peer.connection.0 as usize] -= 1;
                    }
                    next
                };
                while let Some(peer) = free(&running) {
                    running.push(peer);
                }
            }
            loop {
                for peer in std::mem::take(&mut running) {
                    queue.done(peer);
                }
                let Some((peer, _)) = queue.next() else { break };
                running.push(peer);
            }
            assert_nothing_left(&queue);
        }
    }
}
