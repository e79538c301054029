//! Outbound connections by address: made on demand, shared by all callers, made anew after they broke.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ferromq_protocol::Command;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, error};

use crate::address::{host_and_port, one_spelling};
use crate::connection::Connection;
use crate::driver::{Driver, Limits};
use crate::error::{ConnectError, InvokeError};
use crate::service::Service;
use crate::waiting::WaitingRequests;

/// How long [`Client::shutdown`] waits for queued requests to be written and for the peers to close their side.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// What each outbound connection may use.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Java: `connectTimeoutMillis`.
    pub connect_timeout: Duration,
    /// A connection that neither read nor wrote for this long is closed. Java: `clientChannelMaxIdleTimeSeconds`.
    pub idle_max: Duration,
    /// A connection that takes none of the bytes waiting for it for this long is closed.
    pub stall_max: Duration,
    /// Longest accepted frame with its length word, in bytes.
    pub frame_len_max: usize,
    /// Requests are refused while more than this many bytes wait to be written to a connection.
    pub outbound_bytes_max: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            idle_max: Duration::from_secs(120),
            stall_max: Duration::from_secs(30),
            frame_len_max: ferromq_protocol::FRAME_LEN_MAX,
            outbound_bytes_max: 32 * 1024 * 1024,
        }
    }
}

/// Outbound connections by address. Clones share them; when the last clone is gone they are closed. Must be used inside
/// a tokio runtime. Java: `NettyRemotingClient`.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    /// Takes the requests that peers send us.
    service: Option<Arc<dyn Service>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    peers: HashMap<String, Peer>,
    /// The tasks of all connections and of the attempts to make one.
    tasks: JoinSet<()>,
    shut_down: bool,
}

type Attempt = Option<Result<Connection, ConnectError>>;

enum Peer {
    Connecting(watch::Receiver<Attempt>),
    Connected(Connection),
}

impl Client {
    /// Requests that peers send us go to `service`; without one they are answered with code 3.
    pub fn new(config: ClientConfig, service: Option<Arc<dyn Service>>) -> Client {
        Client { inner: Arc::new(Inner { config, service, state: Mutex::default() }) }
    }

    /// The connection to `addr` (`host:port`): the live one, or a new one. Concurrent callers share one attempt and its outcome.
    pub async fn connect(&self, addr: &str) -> Result<Connection, ConnectError> {
        let addr = &*one_spelling(addr);
        let mut attempt = match self.live_or_attempt(addr)? {
            Peer::Connected(connection) => return Ok(connection),
            Peer::Connecting(attempt) => attempt,
        };
        let outcome = attempt.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        // Gone without an outcome: the attempt was aborted by `shutdown`.
        outcome.unwrap_or_else(|| Err(ConnectError::ShutDown { addr: addr.to_owned() }))
    }

    /// Sends a request and waits for its reply, whatever its code. `timeout` counts from when the connection is there.
    pub async fn invoke(&self, addr: &str, request: Command, timeout: Duration) -> Result<Command, InvokeError> {
        self.connect(addr).await?.invoke(request, timeout).await
    }

    /// Queues a request that wants no reply; see [`Connection::oneway`].
    pub async fn oneway(&self, addr: &str, request: &Command) -> Result<(), InvokeError> {
        self.connect(addr).await?.oneway(request.clone())
    }

    /// Writes what is queued, then closes all connections. Waiting callers get an error.
    pub async fn shutdown(self) {
        let mut tasks = {
            let mut state = self.inner.state.lock();
            state.shut_down = true;
            for (_, peer) in state.peers.drain() {
                if let Peer::Connected(connection) = peer {
                    connection.drain();
                }
            }
            std::mem::take(&mut state.tasks)
        };
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(DRAIN_MAX, all).await.is_err() {
            debug!("cutting connections that did not finish in time");
        }
        tasks.shutdown().await;
    }

    fn live_or_attempt(&self, addr: &str) -> Result<Peer, ConnectError> {
        let mut state = self.inner.state.lock();
        if state.shut_down {
            return Err(ConnectError::ShutDown { addr: addr.to_owned() });
        }
        match state.peers.get(addr) {
            Some(Peer::Connected(connection)) if !connection.is_closed() => {
                return Ok(Peer::Connected(connection.clone()));
            }
            Some(Peer::Connecting(attempt)) => return Ok(Peer::Connecting(attempt.clone())),
            _ => {}
        }
        state.forget_ended();
        let (tell, attempt) = watch::channel(None);
        state.peers.insert(addr.to_owned(), Peer::Connecting(attempt.clone()));
        // A task of its own: a caller that gives up must not take the attempt away from the others.
        state.tasks.spawn(self.clone().attempt(addr.to_owned(), tell));
        Ok(Peer::Connecting(attempt))
    }

    async fn attempt(self, addr: String, tell: watch::Sender<Attempt>) {
        let outcome = match open(&addr, self.inner.config.connect_timeout).await {
            Ok(stream) => self.start(&addr, stream),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            self.inner.state.lock().peers.remove(&addr);
        }
        tell.send_replace(Some(outcome));
    }

    fn start(&self, addr: &str, stream: TcpStream) -> Result<Connection, ConnectError> {
        let config = &self.inner.config;
        let addrs = stream.set_nodelay(true).and_then(|()| Ok((stream.peer_addr()?, stream.local_addr()?)));
        let (peer_addr, local_addr) =
            addrs.map_err(|cause| ConnectError::Io { addr: addr.to_owned(), cause: Arc::new(cause) })?;
        let connection = Connection::new(peer_addr, local_addr, config.outbound_bytes_max, WaitingRequests::default());
        let limits = Limits {
            idle_max: config.idle_max,
            stall_max: config.stall_max,
            frame_len_max: config.frame_len_max,
            outbound_bytes_max: config.outbound_bytes_max,
        };
        let driver = Driver::new(stream, connection.clone(), self.inner.service.clone(), limits, None);
        let mut state = self.inner.state.lock();
        if state.shut_down {
            return Err(ConnectError::ShutDown { addr: addr.to_owned() });
        }
        state.tasks.spawn(driver);
        state.peers.insert(addr.to_owned(), Peer::Connected(connection.clone()));
        Ok(connection)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl State {
    /// Lets go of closed connections and finished tasks.
    fn forget_ended(&mut self) {
        self.peers.retain(|_, peer| !matches!(peer, Peer::Connected(connection) if connection.is_closed()));
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(failed) = ended {
                error!(%failed, "the task of a connection failed");
            }
        }
    }
}

async fn open(addr: &str, limit: Duration) -> Result<TcpStream, ConnectError> {
    let connected = async {
        match host_and_port(addr) {
            Some(target) => TcpStream::connect(target).await,
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not host:port")),
        }
    };
    match timeout(limit, connected).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(cause)) => Err(ConnectError::Io { addr: addr.to_owned(), cause: Arc::new(cause) }),
        Err(_) => Err(ConnectError::TimedOut { addr: addr.to_owned(), timeout: limit }),
    }
}
