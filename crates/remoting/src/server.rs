//! The listening side: one socket, one accept task, which owns the tasks of the connections it accepted.
//!
//! A process that listens on two ports (a broker and its fast port) binds two servers, each with its own service.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, info, warn};

use crate::address::{canonical, network};
use crate::connection::Connection;
use crate::driver::{Driver, Limits};
use crate::listen::{BindError, BoundPort};
use crate::peers::Peers;
use crate::service::Service;
use crate::workers::Workers;

/// Pause after a failed accept (no file descriptors left, mostly), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What one listening socket and its connections may use.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// See [`BoundPort::to`]; [`Server::local_addr`] tells the port that was chosen for port 0.
    pub listen: SocketAddr,
    /// A connection that neither read nor wrote for this long is closed. Java: `serverChannelMaxIdleTimeSeconds`.
    pub idle_max: Duration,
    /// A connection that takes none of the bytes waiting for it for this long is closed.
    pub stall_max: Duration,
    /// Longest accepted frame with its length word, in bytes. Java: `com.rocketmq.remoting.frameMaxLength`.
    pub frame_len_max: usize,
    /// While more than this many bytes wait to be written to a connection, nothing more is read from it.
    pub outbound_bytes_max: usize,
    /// Connections beyond this are closed as soon as they are accepted.
    pub connections_max: usize,
    /// What peers may take together; shared by all servers that are given the same.
    pub peers: Peers,
    /// SO_SNDBUF and SO_RCVBUF in bytes; `None` leaves it to the kernel. Java: `serverSocketSndBufSize`, `serverSocketRcvBufSize`.
    pub send_buffer_len: Option<u32>,
    pub receive_buffer_len: Option<u32>,
    /// What the connections run on; `None`: the tokio runtime on which [`Server::bind`] is called.
    pub workers: Option<Workers>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            idle_max: Duration::from_secs(120),
            stall_max: Duration::from_secs(30),
            frame_len_max: ferromq_protocol::FRAME_LEN_MAX,
            outbound_bytes_max: 8 * 1024 * 1024,
            connections_max: 65_536,
            peers: Peers::default(),
            send_buffer_len: None,
            receive_buffer_len: None,
            workers: None,
        }
    }
}

/// A listening socket and all connections accepted from it. Dropped without [`Server::shutdown`], it ends them at once.
/// Java: `NettyRemotingServer`.
#[derive(Debug)]
pub struct Server {
    local_addr: SocketAddr,
    stop: Option<oneshot::Sender<Instant>>,
    acceptor: JoinHandle<()>,
}

impl Server {
    /// Listens and serves from now on; accepts on the current tokio runtime.
    pub async fn bind(config: ServerConfig, service: Arc<dyn Service>) -> Result<Server, BindError> {
        Server::start(BoundPort::to(config.listen)?, config, service).await
    }

    /// The same on a port that was taken before, which counts instead of the one in `config`.
    pub async fn start(bound: BoundPort, config: ServerConfig, service: Arc<dyn Service>) -> Result<Server, BindError> {
        let local_addr = bound.addr();
        let listener = bound.listen(config.send_buffer_len, config.receive_buffer_len)?;
        let (stop, stopped) = oneshot::channel();
        let acceptor = Acceptor {
            listener,
            limits: Limits {
                idle_max: config.idle_max,
                stall_max: config.stall_max,
                frame_len_max: config.frame_len_max,
                outbound_bytes_max: config.outbound_bytes_max,
            },
            connections_max: config.connections_max,
            peers: config.peers,
            service,
            workers: config.workers,
            tasks: JoinSet::new(),
            connections: HashMap::new(),
            refusing: false,
        };
        Ok(Server { local_addr, stop: Some(stop), acceptor: tokio::spawn(acceptor.run(stopped)) })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting and reading, answers every request already read (deferred replies included), writes the answers and closes.
    /// Connections that need longer than `drain` are cut. A service that holds requests should release them first.
    pub async fn shutdown(mut self, drain: Duration) {
        if let Some(stop) = self.stop.take() {
            // An error means that the acceptor is gone already, which is what we want.
            let _ = stop.send(Instant::now() + drain);
        }
        if let Err(ended) = (&mut self.acceptor).await {
            error!(%ended, "the accept task failed");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

struct Acceptor {
    listener: TcpListener,
    limits: Limits,
    connections_max: usize,
    peers: Peers,
    service: Arc<dyn Service>,
    workers: Option<Workers>,
    tasks: JoinSet<()>,
    connections: HashMap<Id, Connection>,
    /// The limit was hit and reported, and not left since.
    refusing: bool,
}

impl Acceptor {
    async fn run(mut self, mut stopped: oneshot::Receiver<Instant>) {
        let mut pause: Option<Instant> = None;
        let mut failing = false;
        let deadline = loop {
            tokio::select! {
                deadline = &mut stopped => break deadline.unwrap_or_else(|_| Instant::now()),
                accepted = self.listener.accept(), if pause.is_none() => match accepted {
                    Ok((stream, peer_addr)) => {
                        failing = false;
                        self.accept(stream, peer_addr);
                    }
                    Err(error) if is_the_peers(&error) => {}
                    Err(error) => {
                        if !failing {
                            failing = true;
                            warn!(%error, "cannot accept connections, trying on");
                        }
                        pause = Some(Instant::now() + ACCEPT_PAUSE);
                    }
                },
                () = sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => pause = None,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
            }
        };
        drop(self.listener);
        for connection in self.connections.values() {
            connection.drain();
        }
        let in_time = timeout_at(deadline, async { while self.tasks.join_next().await.is_some() {} }).await;
        if in_time.is_err() {
            info!(connections = self.tasks.len(), "cutting connections that did not finish in time");
        }
        self.tasks.shutdown().await;
    }

    fn accept(&mut self, stream: TcpStream, peer_addr: SocketAddr) {
        if self.connections.len() >= self.connections_max {
            if !self.refusing {
                self.refusing = true;
                warn!(%peer_addr, connections_max = self.connections_max, "too many connections, closing new ones");
            }
            return;
        }
        self.refusing = false;
        let local_addr = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
            Ok(local_addr) => local_addr,
            // The peer is gone already.
            Err(error) => return tracing::debug!(%peer_addr, %error, "connection lost while it was accepted"),
        };
        let (peer_addr, local_addr) = (canonical(peer_addr), canonical(local_addr));
        let Some((guest, waiting)) = self.peers.admit(network(peer_addr.ip())) else { return };
        let connection = Connection::new(peer_addr, local_addr, self.limits.outbound_bytes_max, waiting);
        let (service, limits) = (Some(self.service.clone()), self.limits);
        let task = match &self.workers {
            None => self.tasks.spawn(Driver::new(stream, connection.clone(), service, limits, Some(guest))),
            Some(workers) => {
                // Registered here with the loop that accepts; from there on with the worker's own.
                let moved = stream.into_std();
                let served = connection.clone();
                let serve = async move {
                    match moved.and_then(TcpStream::from_std) {
                        Ok(stream) => Driver::new(stream, served, service, limits, Some(guest)).await,
                        Err(error) => {
                            served.mark_closed();
                            warn!(%peer_addr, %error, "connection lost: it cannot be handed to a worker");
                        }
                    }
                };
                workers.spawn(&mut self.tasks, serve)
            }
        };
        self.connections.insert(task.id(), connection);
    }

    fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(failed) => {
                error!(%failed, "the task of a connection failed");
                failed.id()
            }
        };
        self.connections.remove(&id);
    }
}

/// Errors of accept that concern only the connection that was to be accepted.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
