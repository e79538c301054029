//! The replication port of a master: whom it serves, on a thread of its own. Java: DefaultHAService.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ferromq_remoting::BoundPort;
use ferromq_replication::{FEEDS_MAX, Feed};
use ferromq_store::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::copies::MasterCopies;
use super::feed_task::{FeedTask, feed_config};
use super::{OwnRuntime, moment};
use crate::live_config::LiveConfig;
use crate::standing::Standing;
use crate::start_error::StartError;

/// Pause after a failed accept (no file descriptors left, mostly), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Slaves are served for as long as this lives, while the broker is a master. Dropped, it closes their connections and waits for its thread.
pub(crate) struct Feeds {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Feeds {
    /// From now on slaves may connect.
    pub(crate) fn start(
        port: BoundPort,
        live: &Arc<LiveConfig>,
        standing: &Arc<Standing>,
        store: &Arc<Store>,
        copies: &Arc<MasterCopies>,
    ) -> Result<Feeds, StartError> {
        let addr = port.addr();
        // What clients wait for on their event loops, no slave holds up, and the other way round.
        let runtime = OwnRuntime::new().map_err(StartError::Thread)?;
        let listener = {
            let _on_this_runtime = runtime.enter();
            port.listen(None, None).map_err(|bind| StartError::HaPort { bind })?
        };
        let (stop, stopped) = oneshot::channel();
        let acceptor = Acceptor {
            listener,
            // A change of it counts with the next start.
            segment_len: live.current().mapped_file_size_commit_log,
            live: Arc::clone(live),
            standing: Arc::clone(standing),
            store: Arc::clone(store),
            copies: Arc::clone(copies),
            feeds: JoinSet::new(),
        };
        let serve = move || runtime.block_on(acceptor.run(stopped));
        let thread = std::thread::Builder::new().name("feeds".into()).spawn(serve).map_err(StartError::Thread)?;
        Ok(Feeds { addr, stop: Some(stop), thread: Some(thread) })
    }

    /// Where slaves connect.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread that feeds slaves has panicked");
        }
    }
}

struct Acceptor {
    listener: TcpListener,
    segment_len: u64,
    live: Arc<LiveConfig>,
    standing: Arc<Standing>,
    store: Arc<Store>,
    copies: Arc<MasterCopies>,
    feeds: JoinSet<()>,
}

impl Acceptor {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut positions = self.standing.positions();
        loop {
            let is_master = !positions.borrow_and_update().role.is_slave();
            if is_master {
                self.copies.begin();
            }
            let copies = Arc::clone(&self.copies);
            // Dropped, it tells the feeds to end.
            let mastership = is_master.then(|| watch::Sender::new(()));
            let goes_on = tokio::select! {
                // An error means that the sender is gone, which ends it too.
                _ = &mut stopped => false,
                changed = positions.changed() => changed.is_ok(),
                () = self.accept_all(mastership.as_ref()) => false,
                () = copies.keep_time(), if is_master => false,
            };
            // Before the feeds: slaves that go would change what is asked of those that stay.
            copies.end();
            drop(mastership);
            while let Some(ended) = self.feeds.join_next().await {
                tell_panic(ended);
            }
            if !goes_on {
                return;
            }
        }
    }

    /// Never ends.
    async fn accept_all(&mut self, mastership: Option<&watch::Sender<()>>) {
        let mut pause: Option<Instant> = None;
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if pause.is_none() => match accepted {
                    Ok((stream, slave)) => self.accept(stream, slave, mastership),
                    Err(error) => {
                        warn!(%error, "cannot accept the connection of a slave, trying on");
                        pause = Some(Instant::now() + ACCEPT_PAUSE);
                    }
                },
                () = sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => pause = None,
                Some(ended) = self.feeds.join_next() => tell_panic(ended),
            }
        }
    }

    /// Dropping the stream closes it.
    fn accept(&mut self, stream: TcpStream, slave: SocketAddr, mastership: Option<&watch::Sender<()>>) {
        let local = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
            Ok(local) => local,
            Err(error) => return info!(%slave, %error, "the connection of a slave is lost"),
        };
        let [slave, local] = [slave, local].map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()));
        let log_end = self.store.feed_end();
        let Some(mastership) = mastership else {
            return warn!(%slave, %local, %log_end, "a slave is refused: this broker is no master");
        };
        let place = match self.copies.enter(slave, local) {
            Ok(place) => place,
            Err(error) => return warn!(%slave, %local, %log_end, FEEDS_MAX, "a slave is refused: {error}"),
        };
        let feed = Feed::new(feed_config(&self.live.current(), self.segment_len), moment());
        let (store, mastership) = (Arc::clone(&self.store), mastership.subscribe());
        self.feeds.spawn(FeedTask { stream, slave, local, store, place, feed, mastership }.run());
    }
}

fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(failed) = ended {
        error!(%failed, "the task of a slave's connection failed");
    }
}
