//! The nameserver as a process part: builds its parts, listens, looks for silent brokers, stops.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferromq_config::LoadError;
use ferromq_remoting::address::parse_ip;
use ferromq_remoting::{
    BindError, Client, ClientConfig, Connection, ConnectionId, Requests, Server, ServerConfig, Service,
};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::dispatch;
use crate::kv::KvConfig;
use crate::live_config::LiveConfig;
use crate::parts::{Notices, Parts};
use crate::routes::{Policy, Routes};

/// How long open answers may take to leave at shutdown.
const DRAIN: Duration = Duration::from_secs(1);

/// Why the nameserver does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "bindAddress is `{0}`, but must be an IP address of this machine, or 0.0.0.0 for all of them, IPv6 included"
    )]
    BindAddress(String),
    #[error("{0}; choose another listenPort or bindAddress, or stop the process that uses it")]
    Bind(#[from] BindError),
    #[error(transparent)]
    Kv(#[from] LoadError),
}

/// A running nameserver. Dropped without [`shutdown`](Self::shutdown), it stops at once.
pub struct Nameserver {
    server: Server,
    scan: JoinHandle<()>,
    outbound: Client,
}

impl Nameserver {
    /// Reads the key-value configuration and listens. Requests are served on the current tokio runtime.
    pub async fn start(config: Config) -> Result<Nameserver, StartError> {
        let address =
            parse_ip(&config.bind_address).ok_or_else(|| StartError::BindAddress(config.bind_address.clone()))?;
        let server_config = ServerConfig {
            listen: SocketAddr::new(address, config.listen_port),
            idle_max: Duration::from_secs(config.server_channel_max_idle_time_seconds),
            send_buffer_len: Some(config.server_socket_snd_buf_size).filter(|&len| len > 0),
            receive_buffer_len: Some(config.server_socket_rcv_buf_size).filter(|&len| len > 0),
            ..ServerConfig::default()
        };
        let kv = KvConfig::open(&config.kv_config_path)?;
        let outbound = Client::new(ClientConfig::default(), None);
        let parts = Arc::new(Parts {
            routes: Mutex::new(Routes::new(Policy::from(&config))),
            config: LiveConfig::new(config),
            kv,
            started: Instant::now(),
            notices: Notices::new(outbound.clone()),
        });
        let front = Arc::new(Front { parts: Arc::clone(&parts), connections: Mutex::default() });
        let server = Server::bind(server_config, Arc::clone(&front) as Arc<dyn Service>).await?;
        Ok(Nameserver { server, scan: tokio::spawn(front.expire_silent_brokers()), outbound })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Stops looking for silent brokers, then stops accepting, lets open answers leave and closes the connections. There is nothing to save.
    pub async fn shutdown(self) {
        self.scan.abort();
        // The task was told to stop; whether it had finished by itself makes no difference.
        let _ = self.scan.await;
        self.server.shutdown(DRAIN).await;
        self.outbound.shutdown().await;
    }
}

/// The transport's side of the nameserver.
struct Front {
    parts: Arc<Parts>,
    /// To close those of brokers that fell silent; the transport bounds their number.
    connections: Mutex<HashMap<ConnectionId, Connection>>,
}

impl Service for Front {
    fn serve(&self, requests: &mut Requests<'_>) {
        requests.each(|connection, request| dispatch::answer(&self.parts, connection, request));
    }

    fn opened(&self, connection: &Connection) {
        self.connections.lock().insert(connection.id(), connection.clone());
    }

    fn closed(&self, connection: &Connection) {
        self.connections.lock().remove(&connection.id());
        let changes = self.parts.routes.lock().closed(connection.id());
        self.parts.notices.send(changes);
    }
}

impl Front {
    async fn expire_silent_brokers(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(self.parts.config.current().scan_not_active_broker_interval))
                .await;
            let (silent, changes) = self.parts.routes.lock().expire(Instant::now());
            for id in silent {
                if let Some(connection) = self.connections.lock().get(&id) {
                    connection.close();
                }
            }
            self.parts.notices.send(changes);
        }
    }
}
