//! The threads that wait for the disk on behalf of requests, so that the connections' threads do not.
//!
//! A request that finds what it reads not in memory comes here whole, as does one that always reads old data or looks through much.
//! Connections take turns, and none has more than a few of the threads: whoever asks for much, or for what lies on a bad part of the
//! disk, waits for himself. Java: `pullMessageExecutor`, `queryMessageExecutor`.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use ferromq_remoting::ConnectionId;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tracing::{error, warn};

const THREADS: usize = 8;
/// Of them for one connection at a time.
const RUNNING_PER_CONNECTION: usize = 2;
/// Requests that may wait, and bytes of them.
const WAITING_MAX: usize = 4096;
const WAITING_BYTES_MAX: usize = 16 << 20;
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
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    connections: HashMap<ConnectionId, OfConnection>,
    /// Connections that have something waiting and may have one more thread, in turn.
    turns: VecDeque<ConnectionId>,
    waiting: usize,
    bytes: usize,
    /// No more room was reported, and not since left.
    full: bool,
    stopping: bool,
}

#[derive(Default)]
struct OfConnection {
    /// With their bytes.
    waiting: VecDeque<(usize, Job)>,
    running: usize,
}

impl Readers {
    /// Starts the threads; jobs may use the tokio runtime this is called on.
    pub(crate) fn start() -> io::Result<Readers> {
        let readers = Readers { shared: Arc::default(), threads: Mutex::default() };
        for number in 0..THREADS {
            let (shared, runtime) = (Arc::clone(&readers.shared), Handle::current());
            let thread = std::thread::Builder::new().name(format!("reader-{number}")).spawn(move || {
                let _entered = runtime.enter();
                shared.run();
            })?;
            readers.threads.lock().push(thread);
        }
        Ok(readers)
    }

    /// Has a job done for a connection; `bytes` is what it keeps in memory. Without room for it, it is called at once with the reason.
    pub(crate) fn submit(
        &self,
        connection: ConnectionId,
        bytes: usize,
        job: impl FnOnce(Result<(), Busy>) + Send + 'static,
    ) {
        let refused = self.shared.queue.lock().add(connection, bytes, Box::new(job));
        match refused {
            Ok(()) => {
                self.shared.wake.notify_one();
            }
            Err((busy, job)) => job(Err(busy)),
        }
    }

    /// Ends the threads when they are done with what they are at; what waits is dropped.
    pub(crate) fn stop(&self) {
        self.shared.stop();
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
        self.shared.stop();
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let (connection, job) = {
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
            if self.queue.lock().done(connection) {
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
    fn add(&mut self, id: ConnectionId, bytes: usize, job: Job) -> Result<(), (Busy, Job)> {
        if self.waiting >= WAITING_MAX || self.bytes + bytes > WAITING_BYTES_MAX || self.stopping {
            if !std::mem::replace(&mut self.full, true) {
                warn!(waiting = self.waiting, bytes = self.bytes, "too many requests wait to read from the disk");
            }
            return Err((Busy { waiting: self.waiting, limit: WAITING_MAX }, job));
        }
        let connection = self.connections.entry(id).or_default();
        if connection.waiting.len() >= WAITING_PER_CONNECTION {
            return Err((Busy { waiting: connection.waiting.len(), limit: WAITING_PER_CONNECTION }, job));
        }
        if connection.waiting.is_empty() && connection.running < RUNNING_PER_CONNECTION {
            self.turns.push_back(id);
        }
        connection.waiting.push_back((bytes, job));
        self.waiting += 1;
        self.bytes += bytes;
        Ok(())
    }

    fn next(&mut self) -> Option<(ConnectionId, Job)> {
        let id = self.turns.pop_front()?;
        let connection = self.connections.get_mut(&id)?;
        let (bytes, job) = connection.waiting.pop_front()?;
        connection.running += 1;
        if !connection.waiting.is_empty() && connection.running < RUNNING_PER_CONNECTION {
            self.turns.push_back(id);
        }
        self.waiting -= 1;
        self.bytes -= bytes;
        self.full = false;
        Some((id, job))
    }

    /// True when that gives the connection another turn.
    fn done(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        // While it had all its threads, it was not in the list.
        let had_all = connection.running == RUNNING_PER_CONNECTION;
        connection.running -= 1;
        if connection.waiting.is_empty() {
            if connection.running == 0 {
                self.connections.remove(&id);
            }
            return false;
        }
        if had_all {
            self.turns.push_back(id);
        }
        had_all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);

    fn add(queue: &mut Queue, connection: ConnectionId, bytes: usize) -> Result<(), Busy> {
        queue.add(connection, bytes, Box::new(|_| {})).map_err(|(busy, _)| busy)
    }

    fn next(queue: &mut Queue) -> Option<u64> {
        queue.next().map(|(connection, _)| connection.0)
    }

    #[test]
    fn connections_take_turns_and_none_has_all_threads() {
        let mut queue = Queue::default();
        for _ in 0..6 {
            add(&mut queue, A, 1).unwrap();
        }
        add(&mut queue, B, 1).unwrap();
        assert_eq!([next(&mut queue), next(&mut queue), next(&mut queue)], [Some(1), Some(2), Some(1)]);
        assert_eq!(next(&mut queue), None, "A has two threads");
        add(&mut queue, B, 1).unwrap();
        assert_eq!(next(&mut queue), Some(2));
        assert!(queue.done(A));
        assert_eq!([next(&mut queue), next(&mut queue)], [Some(1), None]);
        assert!(!queue.done(B) && !queue.done(B));
        for _ in 0..3 {
            assert!(queue.done(A));
            assert_eq!(next(&mut queue), Some(1));
        }
        assert!(!queue.done(A) && !queue.done(A));
        assert!(queue.connections.is_empty() && queue.turns.is_empty());
        assert_eq!((queue.waiting, queue.bytes), (0, 0));
    }

    #[test]
    fn what_waits_has_bounds() {
        let mut queue = Queue::default();
        for _ in 0..WAITING_PER_CONNECTION {
            add(&mut queue, A, 1).unwrap();
        }
        let limit = WAITING_PER_CONNECTION;
        assert_eq!(add(&mut queue, A, 1), Err(Busy { waiting: limit, limit }));
        add(&mut queue, B, 1).unwrap();
        assert!(add(&mut queue, B, WAITING_BYTES_MAX).is_err(), "too many bytes");
        for connection in 3.. {
            if add(&mut queue, ConnectionId(connection), 1).is_err() {
                break;
            }
        }
        assert_eq!(queue.waiting, WAITING_MAX);
        while next(&mut queue).is_some() {}
        add(&mut queue, B, 1).unwrap();
    }
}
