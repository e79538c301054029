//! The composition: builds the broker's parts, hands each what it uses, and takes them apart again in order.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferromq_config::InvalidValue;
use ferromq_remoting::address::{parse_ip, with_port, without_brackets};
use ferromq_remoting::{BindError, Bound, Client, ClientConfig, PeerLimits, Peers, Server, ServerConfig, Workers};
use ferromq_store::{
    Clock, CloseError, DelayLevels, Disk, FlushMode, LocalDisk, OpenError, ReadError, Store, StoreConfig,
};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use crate::acknowledge::Acknowledgements;
use crate::admission::Admission;
use crate::clients::{Clients, expire_silent_clients};
use crate::clock::{forward, now_ms};
use crate::config::{BrokerConfig, FlushDiskType};
use crate::consumer_offsets::ConsumerOffsets;
use crate::delay::{DelayParts, Delays};
use crate::dispatch::{Dispatch, FastPort, MainPort};
use crate::groups::Groups;
use crate::handlers::pull::PullPath;
use crate::handlers::recall::RecallPath;
use crate::handlers::relay::Relay;
use crate::handlers::reply::ReplyPath;
use crate::handlers::reset::ResetPath;
use crate::handlers::runtime_info::RuntimeInfo;
use crate::handlers::send::{SendParts, SendPath};
use crate::handlers::send_back::SendBackPath;
use crate::handlers::stats::Figures;
use crate::handlers::transactions::TransactionPath;
use crate::held_pulls;
use crate::live_config::LiveConfig;
use crate::local_time;
use crate::persistence::{Persistence, TableError};
use crate::queue_locks::{self, QueueLocks};
use crate::readers::Readers;
use crate::registrar::{Identity, Registrar, Unregistered};
use crate::statistics::Statistics;
use crate::timers::Timers;
use crate::topics::Topics;
use crate::transactions::{TransactionParts, Transactions};

/// How long requests under way may take when the broker stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the start waits for the nameservers' first answers before it reports success all the same.
const FIRST_REGISTRATION: Duration = Duration::from_secs(3);

/// How often the delay offsets are saved.
const DELAY_OFFSETS_PERIOD: Duration = Duration::from_secs(1);

/// Why a broker does not start. Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] InvalidValue),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Tables(#[from] TableError),
    #[error(
        "{bind}. Stop the process that has the port, or set listenPort to another one (the fast port is two below it)"
    )]
    Port { bind: BindError },
    #[error("brokerIP1 is `{host}`, which names no address: {reason}")]
    Address { host: String, reason: String },
    #[error("cannot use {}, where messages for a given time are kept track of: {source}", path.display())]
    Timers { path: PathBuf, source: io::Error },
    #[error("cannot find out which transactions are open: {0}. Start again when it can be read")]
    Transactions(#[source] ReadError),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl From<BindError> for StartError {
    fn from(bind: BindError) -> StartError {
        StartError::Port { bind }
    }
}

/// A running broker. Dropped without [`Broker::shutdown`], it ends at once, as a crash would.
pub struct Broker {
    identity: Identity,
    nameservers: String,
    servers: Vec<Server>,
    local_addr: SocketAddr,
    registrar: Registrar,
    duties: JoinSet<()>,
    pull: Arc<PullPath>,
    readers: Arc<Readers>,
    offsets: Arc<ConsumerOffsets>,
    topics: Arc<Topics>,
    groups: Arc<Groups>,
    delays: Arc<Delays>,
    timers: Arc<Timers>,
    transactions: Arc<Transactions>,
    persistence: Arc<Persistence>,
    store: Arc<Store>,
    client: Client,
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
        let ip = parse_ip(&config.bind_address)
            .ok_or_else(|| invalid("bindAddress", &config.bind_address, "an IP address"))?;
        let main_listen = SocketAddr::new(ip, config.listen_port);
        let fast_listen = config.fast_port().map(|port| SocketAddr::new(ip, port));
        // Taken before the store opens, which may take its time after a crash. Messages carry the port, so with listenPort 0 it must be
        // known before the first one can come.
        let main_port = Bound::to(main_listen)?;
        let fast_port = fast_listen.map(Bound::to).transpose()?;
        let advertised_port = main_port.addr().port();

        let (booted_ms, booted) = (now_ms(), Instant::now());
        let store_config = StoreConfig { disk, ..store_config(&config)? };
        let delay_levels = store_config.delay_levels.clone();
        // Who does not wait for this start any more does not wait for a recovery either.
        let given_up = store_config.interrupt.on_drop();
        let store = Arc::new(
            tokio::task::spawn_blocking(move || Store::open(store_config))
                .await
                .map_err(|error| StartError::Thread(error.into()))??,
        );
        given_up.spare();
        let persistence = Arc::new(Persistence::default());
        let config_dir = config.config_dir();
        let live = Arc::new(LiveConfig::new(config, config_file));
        let config = live.current().clone();
        let topics = Arc::new(Topics::open(&config_dir, &live, &persistence)?);
        let groups = Arc::new(Groups::open(&config_dir, &live, &persistence)?);
        let offsets = Arc::new(ConsumerOffsets::open(&config_dir, &config, &topics, &store, &persistence)?);
        let clients = Arc::new(Clients::new());
        let locks = Arc::new(QueueLocks::default());
        let statistics = Arc::new(Statistics::new());
        let delays = Delays::open(
            &config_dir,
            DelayParts {
                store: Arc::clone(&store),
                topics: Arc::clone(&topics),
                statistics: Arc::clone(&statistics),
                levels: delay_levels.clone(),
                clock: Clock::system(),
                forward: forward(),
            },
            &persistence,
        )?;
        let delays = Arc::new(delays);
        let timers_dir = config.store_path_root_dir.join("timers");
        let timers = Timers::open(
            timers_dir.clone(),
            &config_dir.join("timercheck"),
            Clock::system(),
            Arc::clone(&store),
            Arc::clone(&topics),
            Arc::clone(&statistics),
        )
        .map_err(|source| StartError::Timers { path: timers_dir, source })?;
        let timers = Arc::new(timers);

        let readers = Arc::new(Readers::start().map_err(StartError::Thread)?);
        let pull = Arc::new(PullPath::new(
            Arc::clone(&live),
            Arc::clone(&topics),
            Arc::clone(&groups),
            Arc::clone(&clients),
            Arc::clone(&offsets),
            Arc::clone(&statistics),
            Arc::clone(&store),
            Arc::clone(&readers),
        ));
        // The store must not own what owns the store.
        let woken = Arc::downgrade(&pull);
        store.on_arrival(move |arrival| {
            if let Some(pull) = woken.upgrade() {
                pull.arrived(arrival);
            }
        });
        let woken = Arc::downgrade(&pull);
        clients.on_resubscribed(move |group| {
            if let Some(pull) = woken.upgrade() {
                pull.resubscribed(group);
            }
        });
        let woken = Arc::downgrade(&delays);
        store.on_arrival(move |arrival| {
            if let Some(delays) = woken.upgrade() {
                delays.arrived(arrival);
            }
        });
        let woken = Arc::downgrade(&timers);
        store.on_arrival(move |arrival| {
            if let Some(timers) = woken.upgrade() {
                timers.arrived(arrival);
            }
        });

        let client = Client::new(
            ClientConfig {
                connect_timeout: Duration::from_millis(config.connect_timeout_millis),
                ..ClientConfig::default()
            },
            None,
        );
        let address = with_port(without_brackets(config.advertised_host()), advertised_port);
        let store_host = resolve(config.advertised_host(), advertised_port)?;
        let parts = TransactionParts {
            config: Arc::clone(&live),
            offsets: Arc::clone(&offsets),
            clients: Arc::clone(&clients),
            topics: Arc::clone(&topics),
            statistics: Arc::clone(&statistics),
            store: Arc::clone(&store),
            levels: delay_levels.clone(),
            forward: forward(),
            store_host,
        };
        let transactions = Arc::new(Transactions::open(parts).map_err(StartError::Transactions)?);
        let admission = Arc::<Admission>::default();
        let send = Arc::new(SendPath::new(SendParts {
            config: Arc::clone(&live),
            topics: Arc::clone(&topics),
            groups: Arc::clone(&groups),
            locks: Arc::clone(&locks),
            statistics: Arc::clone(&statistics),
            transactions: Arc::clone(&transactions),
            admission: Arc::clone(&admission),
            levels: delay_levels.clone(),
            store_host,
        }));
        let unregistered = Arc::new(Unregistered::default());
        let dispatch = Arc::new(Dispatch {
            config: Arc::clone(&live),
            topics: Arc::clone(&topics),
            groups: Arc::clone(&groups),
            offsets: Arc::clone(&offsets),
            clients: Arc::clone(&clients),
            locks: Arc::clone(&locks),
            store: Arc::clone(&store),
            statistics: Arc::clone(&statistics),
            acknowledgements: Acknowledgements { topics: Arc::clone(&topics), admission },
            reply: ReplyPath {
                config: Arc::clone(&live),
                send: Arc::clone(&send),
                clients: Arc::clone(&clients),
                statistics: Arc::clone(&statistics),
                store_host,
            },
            recall: RecallPath {
                config: Arc::clone(&live),
                topics: Arc::clone(&topics),
                region: config.region_id.clone(),
                store_host,
            },
            send,
            send_back: SendBackPath {
                config: Arc::clone(&live),
                topics: Arc::clone(&topics),
                groups: Arc::clone(&groups),
                statistics: Arc::clone(&statistics),
                store: Arc::clone(&store),
                levels: delay_levels,
                store_host,
            },
            transactions: TransactionPath {
                config: Arc::clone(&live),
                transactions: Arc::clone(&transactions),
                store: Arc::clone(&store),
            },
            pull: Arc::clone(&pull),
            reset: ResetPath {
                config: Arc::clone(&live),
                topics: Arc::clone(&topics),
                groups: Arc::clone(&groups),
                offsets: Arc::clone(&offsets),
                clients: Arc::clone(&clients),
                store: Arc::clone(&store),
            },
            relay: Relay {
                broker_name: config.broker_name.clone(),
                clients: Arc::clone(&clients),
                topics: Arc::clone(&topics),
                groups: Arc::clone(&groups),
                store: Arc::clone(&store),
            },
            figures: Figures {
                broker_name: config.broker_name.clone(),
                address: address.clone(),
                cluster: config.broker_cluster_name.clone(),
                topics: Arc::clone(&topics),
                groups: Arc::clone(&groups),
                offsets: Arc::clone(&offsets),
                clients: Arc::clone(&clients),
                statistics: Arc::clone(&statistics),
                delays: Arc::clone(&delays),
                store: Arc::clone(&store),
            },
            runtime: RuntimeInfo {
                config: Arc::clone(&live),
                statistics: Arc::clone(&statistics),
                delays: Arc::clone(&delays),
                store: Arc::clone(&store),
                unregistered: Arc::clone(&unregistered),
                booted_ms,
                booted,
            },
            readers: Arc::clone(&readers),
        });
        delays.start().map_err(StartError::Thread)?;
        timers.start().map_err(StartError::Thread)?;
        transactions.start().map_err(StartError::Thread)?;

        let workers = Workers::start(config.worker_threads).map_err(StartError::Thread)?;
        let peers = Peers::new(PeerLimits {
            connections_per_address: config.connections_per_address_max,
            partial_bytes: config.unfinished_frame_bytes_max,
            partial_bytes_per_address: config.unfinished_frame_bytes_max / 4,
            unsent_bytes: config.unread_answer_bytes_max,
            unsent_bytes_per_address: config.unread_answer_bytes_max / 4,
            ..PeerLimits::default()
        });
        let server_config = server_config(&config, &workers, &peers);
        let main_service = Arc::new(MainPort(Arc::clone(&dispatch)));
        let main = Server::start(main_port, server_config.clone(), main_service).await?;
        let local_addr = main.local_addr();
        let mut servers = vec![main];
        if let Some(port) = fast_port {
            servers.push(Server::start(port, server_config, Arc::new(FastPort(dispatch))).await?);
        }

        let identity = Identity {
            cluster: config.broker_cluster_name.clone(),
            name: config.broker_name.clone(),
            id: config.broker_id,
            address,
            ha_address: with_port(
                without_brackets(config.broker_ip2.as_deref().unwrap_or(config.advertised_host())),
                config.ha_listen_port,
            ),
        };
        let registrar = Registrar::start(
            config.nameservers(),
            identity.clone(),
            Arc::clone(&live),
            Arc::clone(&topics),
            client.clone(),
            unregistered,
        );
        let mut duties = JoinSet::new();
        duties.spawn(expire_pulls(Arc::clone(&pull)));
        duties.spawn(save_offsets(Arc::clone(&offsets), Duration::from_millis(config.flush_consumer_offset_interval)));
        duties.spawn(expire_silent_clients(clients, Arc::clone(&live)));
        duties.spawn(queue_locks::forget_expired(locks));
        duties.spawn(save_delay_offsets(Arc::clone(&delays)));
        duties.spawn(take_samples(statistics, Arc::clone(&store)));
        info!(%local_addr, broker = identity.name, address = identity.address, "broker listens");
        Ok(Broker {
            nameservers: config.namesrv_addr.clone().unwrap_or_default(),
            identity,
            servers,
            local_addr,
            registrar,
            duties,
            pull,
            readers,
            offsets,
            topics,
            groups,
            delays,
            timers,
            transactions,
            persistence,
            store,
            client,
        })
    }

    /// Where the main port listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
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
        self.pull.stop();
        let draining: Vec<_> = self.servers.into_iter().map(|server| tokio::spawn(server.shutdown(DRAIN))).collect();
        for server in draining {
            if let Err(error) = server.await {
                error!(%error, "a server did not stop cleanly");
            }
        }
        self.duties.shutdown().await;
        self.client.shutdown().await;
        self.topics.save();
        self.groups.save();
        let (persistence, store, readers) = (self.persistence, self.store, self.readers);
        let (delays, timers, transactions, offsets) = (self.delays, self.timers, self.transactions, self.offsets);
        let closed = tokio::task::spawn_blocking(move || {
            readers.stop();
            transactions.stop();
            timers.stop();
            delays.stop();
            // First the messages, then what says that they are consumed.
            if let Err(error) = offsets.wait_all_saved() {
                error!(%error, "the newest messages will be delivered again");
            }
            persistence.stop();
            store.close()?;
            delays.save_after_close();
            timers.save_after_close();
            Ok::<(), CloseError>(())
        });
        match closed.await {
            Ok(Ok(())) => info!("broker stopped"),
            Ok(Err(error)) => error!(%error, "the store did not close cleanly; the next start checks it"),
            Err(error) => error!(%error, "closing the store failed"),
        }
    }
}

/// Looks for held pulls whose time is up.
async fn expire_pulls(pull: Arc<PullPath>) {
    let mut ticks = interval(held_pulls::CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        pull.expire(Instant::now());
    }
}

/// Saves consumer offsets when they changed.
async fn save_offsets(offsets: Arc<ConsumerOffsets>, period: Duration) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        offsets.save_if_changed();
    }
}

/// Saves how far delayed messages are delivered. Java: `flushDelayOffsetInterval`.
async fn save_delay_offsets(delays: Arc<Delays>) {
    let mut ticks = interval(DELAY_OFFSETS_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        delays.save_if_changed();
    }
}

/// Turns counters into rates, once a second.
async fn take_samples(statistics: Arc<Statistics>, store: Arc<Store>) {
    let started = Instant::now();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Rates are by a clock that only goes forward, days by the calendar.
        let elapsed_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        statistics.tick(elapsed_ms, local_time::day(now_ms()), &store.stats());
    }
}

fn store_config(config: &BrokerConfig) -> Result<StoreConfig, StartError> {
    let flush = match config.flush_disk_type {
        FlushDiskType::SyncFlush => FlushMode::Sync { timeout: Duration::from_millis(config.sync_flush_timeout) },
        FlushDiskType::AsyncFlush => FlushMode::Async {
            interval: Duration::from_millis(config.flush_interval_commit_log),
            least_pages: config.flush_commit_log_least_pages,
            thorough_interval: Duration::from_millis(config.flush_commit_log_thorough_interval),
        },
    };
    let delay_levels = DelayLevels::parse(&config.message_delay_level)
        .map_err(|error| invalid("messageDelayLevel", &config.message_delay_level, &error.to_string()))?;
    Ok(StoreConfig {
        root: config.store_path_root_dir.clone(),
        commit_log_dir: config.store_path_commit_log.clone(),
        segment_len: config.mapped_file_size_commit_log,
        queue_file_entries: config.mapped_file_size_consume_queue.div_ceil(20),
        index_enabled: config.message_index_enable,
        index_slots: config.max_hash_slot_num,
        index_entries: config.max_index_num,
        query_max: usize::try_from(config.max_msgs_num_batch).unwrap_or(1),
        flush,
        queue_flush_interval: Duration::from_millis(config.flush_interval_consume_queue),
        queue_flush_least_pages: config.flush_consume_queue_least_pages,
        queue_flush_thorough_interval: Duration::from_millis(config.flush_consume_queue_thorough_interval),
        message_len_max: config.message_len_max(),
        disk_used_ratio_max: f64::from(config.disk_space_warning_level_ratio) / 100.0,
        read_bytes_in_memory: config.max_transfer_bytes_on_message_in_memory,
        read_count_in_memory: config.max_transfer_count_on_message_in_memory,
        read_bytes_on_disk: config.max_transfer_bytes_on_message_in_disk,
        read_count_on_disk: config.max_transfer_count_on_message_in_disk,
        read_scan_bytes: config.max_filter_message_size,
        in_memory_ratio: f64::from(config.access_message_in_memory_max_ratio) / 100.0,
        delay_levels,
        ..StoreConfig::default()
    })
}

fn server_config(config: &BrokerConfig, workers: &Workers, peers: &Peers) -> ServerConfig {
    ServerConfig {
        workers: Some(workers.clone()),
        idle_max: Duration::from_secs(config.server_channel_max_idle_time_seconds),
        send_buffer_len: Some(config.server_socket_snd_buf_size).filter(|len| *len > 0),
        receive_buffer_len: Some(config.server_socket_rcv_buf_size).filter(|len| *len > 0),
        peers: peers.clone(),
        ..ServerConfig::default()
    }
}

fn invalid(key: &str, value: &str, allowed: &str) -> InvalidValue {
    InvalidValue { key: key.into(), value: value.into(), allowed: allowed.into() }
}

/// The address stored with messages. Java keeps the bytes of `brokerIP1`, so a host name is looked up.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, StartError> {
    let failed = |reason: String| StartError::Address { host: host.to_owned(), reason };
    let mut addresses = (without_brackets(host), port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    addresses.next().ok_or_else(|| failed("the name has no address".into()))
}
