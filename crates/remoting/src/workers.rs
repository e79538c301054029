//! The threads that serve connections: each has an event loop of its own, and a connection stays where it began.
//!
//! One loop per thread instead of a pool that shares its tasks: a pool wakes a second thread to watch the sockets whenever a
//! first one has found something to do, which at one message at a time costs more than the message. Java: Netty's event
//! loops, `serverSelectorThreads`.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

/// More threads than this gain nothing: appends take turns at the end of the one log.
const THREADS_MAX: usize = 32;

/// A fixed number of event loops. Clones share them; with the last clone they end, and what still runs on them is dropped.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads` of them; 0: one per core, at most 32.
    pub fn start(threads: usize) -> io::Result<Workers> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX)),
            threads => threads,
        };
        (0..threads).map(Worker::start).collect::<io::Result<Arc<[Worker]>>>().map(Workers)
    }

    /// Runs a connection on the loop that has the fewest of them.
    pub(crate) fn spawn(
        &self,
        tasks: &mut JoinSet<()>,
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        let least = self.0.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed));
        let worker = least.expect("there is at least one worker");
        let counted = ConnectionCount::new(&worker.connections);
        let task = async move {
            let _counted = counted;
            connection.await;
        };
        tasks.spawn_on(task, &worker.handle)
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Worker> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || {
            // An error means that the sender is gone, which ends the loop too.
            let _ = runtime.block_on(stopped);
        };
        let thread = std::thread::Builder::new().name(format!("connections-{number}")).spawn(serve)?;
        Ok(Worker { handle, connections: Arc::default(), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic there was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// One connection more, as long as this lives.
struct ConnectionCount(Arc<AtomicUsize>);

impl ConnectionCount {
    fn new(connections: &Arc<AtomicUsize>) -> ConnectionCount {
        connections.fetch_add(1, Ordering::Relaxed);
        ConnectionCount(Arc::clone(connections))
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_and_end_with_the_workers() {
        let workers = Workers::start(2).unwrap();
        let mut tasks = JoinSet::new();
        let (names, said) = std::sync::mpsc::channel();
        for _ in 0..4 {
            let names = names.clone();
            let connection = async move {
                names.send(std::thread::current().name().map(str::to_owned)).unwrap();
                std::future::pending::<()>().await;
            };
            workers.spawn(&mut tasks, connection);
        }
        drop(names);
        let mut said: Vec<_> = (0..4).map(|_| said.recv().unwrap().unwrap()).collect();
        said.sort();
        assert_eq!(said, ["connections-0", "connections-0", "connections-1", "connections-1"]);
        assert!(workers.0.iter().all(|worker| worker.connections.load(Ordering::Relaxed) == 2));
        let counts: Vec<_> = workers.0.iter().map(|worker| Arc::clone(&worker.connections)).collect();
        drop(workers);
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 0));
    }
}
