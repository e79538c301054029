//! A broker as a whole: how it starts, and how it stops in order. Its parts are built in `parts.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferromq_remoting::address::parse_ip;
use ferromq_remoting::{BoundPort, Client, ClientConfig, PeerLimits, Peers, Server, ServerConfig, Workers};
use ferromq_store::{Disk, LocalDisk, Store, Writer};
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::config::BrokerConfig;
use crate::dispatch::{Dispatch, Port};
use crate::duties;
use crate::ha::{Feeds, FollowerTask, MasterCopies, TableCopies};
use crate::parts::{self, Ground, Parts};
use crate::registrar::{Identity, MissingRegistrations, Registrar};
use crate::standing::Role;
use crate::start_error::StartError;

/// How long requests under way may take when the broker stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the start waits for the nameservers' first answers before it reports success all the same.
const FIRST_REGISTRATION: Duration = Duration::from_secs(3);

/// A running broker. Dropped without [`Broker::shutdown`], it ends at once, as a crash would.
pub struct Broker {
    identity: Identity,
    nameservers: String,
    servers: Vec<Server>,
    local_addr: SocketAddr,
    registrar: Registrar,
    /// A slave's, whose log is its master's.
    follower: Option<FollowerTask>,
    duties: JoinSet<()>,
    feeds: Feeds,
    parts: Parts,
    client: Client,
}

/// The ports that the broker listens on, once they are listened on.
struct Ports {
    main: BoundPort,
    /// Two below the main one.
    fast: Option<BoundPort>,
    /// For slaves.
    ha: BoundPort,
}

impl Ports {
    /// Nobody can connect yet.
    fn bind(config: &BrokerConfig) -> Result<Ports, StartError> {
        let ip = parse_ip(&config.bind_address)
            .ok_or_else(|| parts::invalid("bindAddress", &config.bind_address, "an IP address"))?;
        let main = BoundPort::to(SocketAddr::new(ip, config.listen_port))?;
        let fast = config.fast_port().map(|port| BoundPort::to(SocketAddr::new(ip, port))).transpose()?;
        let ha = BoundPort::to(SocketAddr::new(ip, config.ha_listen_port));
        Ok(Ports { main, fast, ha: ha.map_err(|bind| StartError::HaPort { bind })? })
    }
}

/// From now on requests come.
async fn listen(
    main: BoundPort,
    fast: Option<BoundPort>,
    config: &BrokerConfig,
    dispatch: Arc<Dispatch>,
) -> Result<Vec<Server>, StartError> {
    let server_config = server_config(config)?;
    let service = Arc::new(Port { dispatch: Arc::clone(&dispatch), may_wait: true });
    let mut servers = vec![Server::start(main, server_config.clone(), service).await?];
    if let Some(port) = fast {
        servers.push(Server::start(port, server_config, Arc::new(Port { dispatch, may_wait: false })).await?);
    }
    Ok(servers)
}

impl Broker {
    /// Opens the store, listens, and begins to register. `config` has been through [`BrokerConfig::complete`]; `config_file` is where it
    /// came from. Must be called inside a tokio runtime. Dropped before it is done, it leaves what a crash would.
    pub async fn start(config: BrokerConfig, config_file: Option<PathBuf>) -> Result<Broker, StartError> {
        Broker::start_on(config, config_file, Arc::new(LocalDisk)).await
    }

    /// [`Broker::start`] with its store on another disk than this machine's.
    pub async fn start_on(
        config: BrokerConfig,
        config_file: Option<PathBuf>,
        disk: Arc<dyn Disk>,
    ) -> Result<Broker, StartError> {
        // Taken before the store opens, which may take its time after a crash. Messages carry the port, so with listenPort 0 it must be
        // known before the first one can come.
        let Ports { main, fast, ha } = Ports::bind(&config)?;
        let port = main.addr().port();
        let store_config = parts::store_config(&config, disk)?;
        // Who does not wait for this start any more does not wait for a recovery either.
        let given_up = store_config.interrupt.on_drop();
        let confirmed = store_config.confirmed_at_open;
        let store = tokio::task::spawn_blocking(move || Store::open(store_config))
            .await
            .map_err(|error| StartError::Thread(error.into()))??;
        given_up.spare();
        let role = Role::of(&config);
        if role.is_slave() {
            // Before anything else could write.
            store.set_writer(Writer::Stream).map_err(StartError::Writer)?;
        }
        let ground = Ground::open(config, config_file, Arc::new(store))?;
        let store = Arc::clone(&ground.store);
        let copies = Arc::new(MasterCopies::new(&ground.live.current(), Arc::clone(&store), confirmed));
        let ha_port = ha.addr().port();
        let feeds = Feeds::start(ha, &ground.live, &ground.standing, &store, &copies)?;
        let is_waited_for = Arc::clone(&copies);
        let confirm = tokio::task::spawn_blocking(move || is_waited_for.wait_confirmed_at_start());
        if !confirm.await.map_err(|error| StartError::Thread(error.into()))? {
            return Err(StartError::NotDispatched);
        }
        let parts = Parts::open(ground, copies, port, ha_port)?;
        parts.connect();
        let config = parts.live.current().clone();
        let unregistered = Arc::new(MissingRegistrations::default());
        let dispatch = Arc::new(parts.dispatch(&unregistered));
        let follower = match role {
            Role::Master => {
                parts.master_duties.start()?;
                None
            }
            Role::Slave { .. } => Some(FollowerTask::start(&config, parts.to_follow()).map_err(StartError::Thread)?),
        };
        // Whoever needs old messages for longer is there now.
        parts.store.begin_retention();
        parts.scrubbing.follow_config().map_err(StartError::Thread)?;
        let servers = listen(main, fast, &config, dispatch).await?;
        let local_addr = servers[0].local_addr();
        let identity = identity(&config, &parts.address, &parts.ha_address);
        let connect_timeout = Duration::from_millis(config.connect_timeout_millis);
        let client = Client::new(ClientConfig { connect_timeout, ..ClientConfig::default() }, None);
        let registrar = Registrar::start(
            config.nameservers(),
            identity.clone(),
            Arc::clone(&parts.standing),
            Arc::clone(&parts.live),
            Arc::clone(&parts.topics),
            client.clone(),
            unregistered,
        );
        let mut duties = duties::begin(&parts);
        duties.spawn(TableCopies::new(&parts, &client).run());
        let ha_addr = feeds.addr();
        info!(%local_addr, %ha_addr, broker = identity.name, address = identity.address, "broker listens");
        let nameservers = config.namesrv_addr.clone().unwrap_or_default();
        Ok(Broker { identity, nameservers, servers, local_addr, registrar, follower, duties, feeds, parts, client })
    }

    /// Where the main port listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where slaves connect.
    pub fn ha_addr(&self) -> SocketAddr {
        self.feeds.addr()
    }

    /// Waits for the nameservers' first answers, for a few seconds at most, and gives the line that start scripts wait for.
    pub async fn boot_line(&mut self) -> String {
        self.registrar.first_round(FIRST_REGISTRATION).await;
        let mut line =
            format!("The broker[{}, {}] boot success. serializeType=JSON", self.identity.name, self.identity.address);
        if !self.nameservers.is_empty() {
            line.push_str(" and name server is ");
            line.push_str(&self.nameservers);
        }
        line
    }

    /// Signs off from the nameservers, answers what is waiting, drains the connections, saves the tables, closes the store.
    /// Errors are logged; the shutdown goes on. Java: `BrokerController.shutdown`.
    pub async fn shutdown(mut self) {
        self.registrar.stop().await;
        self.parts.pull.stop();
        let draining: Vec<_> = self.servers.into_iter().map(|server| tokio::spawn(server.shutdown(DRAIN))).collect();
        for server in draining {
            if let Err(error) = server.await {
                error!(%error, "a server did not stop cleanly");
            }
        }
        self.duties.shutdown().await;
        self.client.shutdown().await;
        let (parts, feeds, follower) = (self.parts, self.feeds, self.follower);
        let close = move || {
            // What it keeps is kept until the store is closed.
            let _keeps = follower.map(FollowerTask::stop);
            let closed = parts.close();
            // Last, so that slaves get what the stop has appended.
            drop(feeds);
            closed
        };
        match tokio::task::spawn_blocking(close).await {
            Ok(Ok(())) => info!("broker stopped"),
            Ok(Err(error)) => error!(%error, "the store did not close cleanly; the next start checks it"),
            Err(error) => error!(%error, "closing the store failed"),
        }
    }
}

fn identity(config: &BrokerConfig, address: &str, ha_address: &str) -> Identity {
    Identity {
        cluster: config.broker_cluster_name.clone(),
        name: config.broker_name.clone(),
        address: address.to_owned(),
        ha_address: ha_address.to_owned(),
    }
}

/// Both ports share the event loops and what peers may take.
fn server_config(config: &BrokerConfig) -> Result<ServerConfig, StartError> {
    let workers = Workers::start(config.worker_threads).map_err(StartError::Thread)?;
    let peers = Peers::new(PeerLimits {
        connections_per_address: config.connections_per_address_max,
        unfinished_frame_bytes: config.unfinished_frame_bytes_max,
        unfinished_frame_bytes_per_address: config.unfinished_frame_bytes_max / 4,
        unread_answer_bytes: config.unread_answer_bytes_max,
        unread_answer_bytes_per_address: config.unread_answer_bytes_max / 4,
        ..PeerLimits::default()
    });
    Ok(ServerConfig {
        workers: Some(workers),
        peers,
        idle_max: Duration::from_secs(config.server_channel_max_idle_time_seconds),
        send_buffer_len: Some(config.server_socket_snd_buf_size).filter(|len| *len > 0),
        receive_buffer_len: Some(config.server_socket_rcv_buf_size).filter(|len| *len > 0),
        ..ServerConfig::default()
    })
}

#[cfg(test)]
#[path = "broker_test.rs"]
mod tests;
