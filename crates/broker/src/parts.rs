//! The parts of a broker: built here, each handed what it uses, joined, and closed in order.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferromq_config::InvalidValue;
use ferromq_protocol::PhysicalOffset;
use ferromq_remoting::address::{with_port, without_brackets};
use ferromq_store::{
    CheckpointFile, Clock, CloseError, DelayLevels, Disk, FlushMode, OpenError, QUEUE_ENTRY_LEN, Store, StoreConfig,
};
use tracing::{error, warn};

use crate::acknowledge::Acknowledgements;
use crate::admission::Admission;
use crate::clients::Clients;
use crate::clock::{forward, now_ms};
use crate::config::{BrokerConfig, FlushDiskType};
use crate::consumer_offsets::ConsumerOffsets;
use crate::dispatch::Dispatch;
use crate::groups::Groups;
use crate::ha::{FollowerStatus, FollowerTaskParts, MasterCopies, keeps_copies};
use crate::handlers::ha_status::HaStatus;
use crate::handlers::pull::PullPath;
use crate::handlers::recall::RecallPath;
use crate::handlers::relay::Relay;
use crate::handlers::reply::ReplyPath;
use crate::handlers::reset::ResetPath;
use crate::handlers::runtime_info::RuntimeInfo;
use crate::handlers::send::{SendParts, SendPath};
use crate::handlers::send_back::SendBackPath;
use crate::handlers::slaves::MasterFigures;
use crate::handlers::stats::Figures;
use crate::handlers::transactions::TransactionPath;
use crate::live_config::LiveConfig;
use crate::master_duties::{MasterDuties, MasterParts};
use crate::missing_tables;
use crate::persistence::Persistence;
use crate::queue_locks::QueueLocks;
use crate::readers::Readers;
use crate::registrar::MissingRegistrations;
use crate::scrubbing::Scrubbing;
use crate::standing::{Position, Role, Standing};
use crate::start_error::StartError;
use crate::statistics::Statistics;
use crate::topics::Topics;

/// How long a stop waits for other brokers to hold the end of the log. What clients wait for has been answered by then.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(5);

/// Whatever has a state, by its owner. Only the composition holds them all.
pub(crate) struct Parts {
    pub live: Arc<LiveConfig>,
    pub standing: Arc<Standing>,
    pub store: Arc<Store>,
    pub copies: Arc<MasterCopies>,
    pub persistence: Arc<Persistence>,
    pub topics: Arc<Topics>,
    pub groups: Arc<Groups>,
    pub offsets: Arc<ConsumerOffsets>,
    pub clients: Arc<Clients>,
    pub locks: Arc<QueueLocks>,
    pub statistics: Arc<Statistics>,
    pub readers: Arc<Readers>,
    pub pull: Arc<PullPath>,
    pub master_duties: Arc<MasterDuties>,
    pub scrubbing: Arc<Scrubbing>,
    pub follower_status: Arc<FollowerStatus>,
    levels: DelayLevels,
    /// `host:port` as clients are told.
    pub address: String,
    /// `host:port` as slaves are told.
    pub ha_address: String,
    /// The same, stored with every message.
    store_host: SocketAddr,
    /// Where the log ended at the start.
    log_end: PhysicalOffset,
    booted_ms: i64,
    booted: Instant,
}

/// What has to be there before slaves are served, which is before the other parts are read.
pub(crate) struct Ground {
    pub live: Arc<LiveConfig>,
    pub standing: Arc<Standing>,
    pub store: Arc<Store>,
    persistence: Arc<Persistence>,
    topics: Arc<Topics>,
    log_end: PhysicalOffset,
}

impl Ground {
    pub(crate) fn open(
        config: BrokerConfig,
        config_file: Option<PathBuf>,
        store: Arc<Store>,
    ) -> Result<Ground, StartError> {
        let log_end = store.watermarks().written;
        let persistence = Arc::new(Persistence::default());
        let live = Arc::new(LiveConfig::new(config, config_file));
        let config = live.current().clone();
        let config_dir = config.config_dir();
        missing_tables::name(&config_dir, &store);
        let topics = Arc::new(Topics::open(&config_dir, &live, &persistence)?);
        let standing = Arc::new(Standing::new(Role::of(&config), topics.data_version().state_version));
        Ok(Ground { live, standing, store, persistence, topics, log_end })
    }
}

impl Parts {
    /// Reads what is on disk. Nothing runs yet but the threads of the store, of the tables' files and of the readers.
    pub(crate) fn open(
        ground: Ground,
        copies: Arc<MasterCopies>,
        port: u16,
        ha_port: u16,
    ) -> Result<Parts, StartError> {
        let Ground { live, standing, store, persistence, topics, log_end } = ground;
        let (booted_ms, booted) = (now_ms(), Instant::now());
        let config = live.current().clone();
        let config_dir = config.config_dir();
        let levels = delay_levels(&config)?;
        let address = with_port(without_brackets(config.advertised_host()), port);
        let ha_address = config.ha_address(ha_port);
        let store_host = resolve(config.advertised_host(), port)?;
        let groups = Arc::new(Groups::open(&config_dir, &live, &persistence)?);
        let offsets = Arc::new(ConsumerOffsets::open(&config_dir, &config, &topics, &store, &persistence)?);
        topics.go_by(&standing);
        groups.go_by(&standing);
        offsets.go_by(&standing);
        let clients = Arc::new(Clients::new());
        let statistics = Arc::new(Statistics::new());
        let master_duties = MasterDuties::new(
            &config.store_path_root_dir,
            MasterParts {
                live: Arc::clone(&live),
                store: Arc::clone(&store),
                topics: Arc::clone(&topics),
                offsets: Arc::clone(&offsets),
                clients: Arc::clone(&clients),
                statistics: Arc::clone(&statistics),
                levels: levels.clone(),
                clock: Clock::system(),
                forward: forward(),
                store_host,
            },
            Arc::clone(&persistence),
        );
        let readers = Arc::new(Readers::start().map_err(StartError::Thread)?);
        let pull = PullPath::new(
            Arc::clone(&live),
            Arc::clone(&standing),
            Arc::clone(&topics),
            Arc::clone(&groups),
            Arc::clone(&clients),
            Arc::clone(&offsets),
            Arc::clone(&statistics),
            Arc::clone(&store),
            Arc::clone(&readers),
        );
        let scrubbing = Arc::new(Scrubbing::new(&live, &store));
        Ok(Parts {
            live,
            standing,
            store,
            copies,
            persistence,
            topics,
            groups,
            offsets,
            clients,
            locks: Arc::default(),
            statistics,
            readers,
            pull: Arc::new(pull),
            master_duties: Arc::new(master_duties),
            scrubbing,
            follower_status: Arc::default(),
            levels,
            address,
            ha_address,
            store_host,
            log_end,
            booted_ms,
            booted,
        })
    }

    /// This broker becomes what it was not: whoever reads here or registers it goes by that. Not the duties and the writer of the log.
    #[cfg_attr(not(test), expect(dead_code, reason = "the role is that of the start"))]
    pub(crate) fn change_role(&self, position: Position) {
        self.store.take_for_in_memory(in_memory_ratio(&self.live.current(), position.role));
        self.standing.change(position);
    }

    /// Who is told of what. The store and the clients must not own what owns them.
    pub(crate) fn connect(&self) {
        let (pull, master_duties) = (Arc::downgrade(&self.pull), Arc::downgrade(&self.master_duties));
        self.store.on_arrival(move |arrival| {
            if let Some(pull) = pull.upgrade() {
                pull.arrived(arrival);
            }
            if let Some(master_duties) = master_duties.upgrade() {
                master_duties.arrived(arrival);
            }
        });
        let pull = Arc::downgrade(&self.pull);
        self.clients.on_resubscribed(move |group| {
            if let Some(pull) = pull.upgrade() {
                pull.resubscribed(group);
            }
        });
    }

    /// What a slave's follower uses.
    pub(crate) fn to_follow(&self) -> FollowerTaskParts {
        FollowerTaskParts {
            store: Arc::clone(&self.store),
            masters: self.standing.master(),
            own_address: self.address.clone(),
            status: Arc::clone(&self.follower_status),
        }
    }

    /// The dispatch table with what its handlers use.
    pub(crate) fn dispatch(&self, unregistered: &Arc<MissingRegistrations>) -> Dispatch {
        let config = self.live.current().clone();
        let admission = Arc::<Admission>::default();
        let send = Arc::new(SendPath::new(SendParts {
            config: Arc::clone(&self.live),
            topics: Arc::clone(&self.topics),
            groups: Arc::clone(&self.groups),
            locks: Arc::clone(&self.locks),
            statistics: Arc::clone(&self.statistics),
            master_duties: Arc::clone(&self.master_duties),
            admission: Arc::clone(&admission),
            copies: Arc::clone(&self.copies),
            levels: self.levels.clone(),
            store_host: self.store_host,
        }));
        Dispatch {
            config: Arc::clone(&self.live),
            standing: Arc::clone(&self.standing),
            topics: Arc::clone(&self.topics),
            groups: Arc::clone(&self.groups),
            offsets: Arc::clone(&self.offsets),
            clients: Arc::clone(&self.clients),
            locks: Arc::clone(&self.locks),
            store: Arc::clone(&self.store),
            statistics: Arc::clone(&self.statistics),
            acknowledgements: Acknowledgements {
                topics: Arc::clone(&self.topics),
                admission,
                copies: self.copies.are_waited_for().then(|| Arc::clone(&self.copies)),
            },
            reply: ReplyPath {
                config: Arc::clone(&self.live),
                send: Arc::clone(&send),
                clients: Arc::clone(&self.clients),
                statistics: Arc::clone(&self.statistics),
                store_host: self.store_host,
            },
            recall: RecallPath {
                config: Arc::clone(&self.live),
                topics: Arc::clone(&self.topics),
                copies: Arc::clone(&self.copies),
                region: config.region_id.clone(),
                store_host: self.store_host,
            },
            send,
            send_back: SendBackPath {
                config: Arc::clone(&self.live),
                topics: Arc::clone(&self.topics),
                groups: Arc::clone(&self.groups),
                statistics: Arc::clone(&self.statistics),
                store: Arc::clone(&self.store),
                copies: Arc::clone(&self.copies),
                levels: self.levels.clone(),
                store_host: self.store_host,
            },
            transactions: TransactionPath {
                config: Arc::clone(&self.live),
                master_duties: Arc::clone(&self.master_duties),
                store: Arc::clone(&self.store),
            },
            pull: Arc::clone(&self.pull),
            reset: ResetPath {
                config: Arc::clone(&self.live),
                topics: Arc::clone(&self.topics),
                groups: Arc::clone(&self.groups),
                offsets: Arc::clone(&self.offsets),
                clients: Arc::clone(&self.clients),
                store: Arc::clone(&self.store),
            },
            relay: Relay {
                broker_name: config.broker_name.clone(),
                clients: Arc::clone(&self.clients),
                topics: Arc::clone(&self.topics),
                groups: Arc::clone(&self.groups),
                store: Arc::clone(&self.store),
            },
            figures: Figures {
                broker_name: config.broker_name.clone(),
                address: self.address.clone(),
                cluster: config.broker_cluster_name.clone(),
                topics: Arc::clone(&self.topics),
                groups: Arc::clone(&self.groups),
                offsets: Arc::clone(&self.offsets),
                clients: Arc::clone(&self.clients),
                statistics: Arc::clone(&self.statistics),
                master_duties: Arc::clone(&self.master_duties),
                store: Arc::clone(&self.store),
            },
            runtime: RuntimeInfo {
                config: Arc::clone(&self.live),
                statistics: Arc::clone(&self.statistics),
                master_duties: Arc::clone(&self.master_duties),
                store: Arc::clone(&self.store),
                unregistered: Arc::clone(unregistered),
                follower_status: Arc::clone(&self.follower_status),
                booted_ms: self.booted_ms,
                booted: self.booted,
            },
            for_slaves: MasterFigures {
                config: Arc::clone(&self.live),
                standing: Arc::clone(&self.standing),
                master_duties: Arc::clone(&self.master_duties),
                address: self.address.clone(),
                ha_address: self.ha_address.clone(),
                log_end_at_start: self.log_end,
                booted_ms: self.booted_ms,
            },
            ha_status: HaStatus {
                standing: Arc::clone(&self.standing),
                store: Arc::clone(&self.store),
                follower: Arc::clone(&self.follower_status),
                copies: Arc::clone(&self.copies),
            },
            readers: Arc::clone(&self.readers),
            scrubbing: Arc::clone(&self.scrubbing),
        }
    }

    /// After the last request. First the messages get to the disk, then what says that they are consumed or delivered. Waits for the disk.
    pub(crate) fn close(self) -> Result<(), CloseError> {
        self.topics.save();
        self.groups.save();
        self.readers.stop();
        self.scrubbing.stop();
        let _holding = self.master_duties.stop();
        if let Err(error) = self.offsets.wait_all_saved() {
            error!(%error, "the newest messages will be delivered again");
        }
        self.persistence.stop();
        if !self.copies.wait_confirmed(CONFIRM_PATIENCE) {
            warn!("no other broker holds the end of the log; the next start waits for that before it goes by it");
        }
        self.store.close()
    }
}

/// How far consumers could see the log when it was last open.
fn confirmed_before(config: &BrokerConfig) -> Result<Option<PhysicalOffset>, OpenError> {
    Ok(CheckpointFile::read(&config.store_path_root_dir)?.and_then(|said| said.confirmed_up_to()))
}

pub(crate) fn store_config(config: &BrokerConfig, disk: Arc<dyn Disk>) -> Result<StoreConfig, StartError> {
    let flush = match config.flush_disk_type {
        FlushDiskType::SyncFlush => FlushMode::Sync { timeout: Duration::from_millis(config.sync_flush_timeout) },
        FlushDiskType::AsyncFlush => FlushMode::Async {
            interval: Duration::from_millis(config.flush_interval_commit_log),
            least_pages: config.flush_commit_log_least_pages,
            thorough_interval: Duration::from_millis(config.flush_commit_log_thorough_interval),
        },
    };
    Ok(StoreConfig {
        root: config.store_path_root_dir.clone(),
        commit_log_dirs: config.commit_log_dirs(),
        read_only_log_dirs: config.read_only_log_dirs(),
        segment_len: config.mapped_file_size_commit_log,
        queue_file_entries: config.mapped_file_size_consume_queue.div_ceil(QUEUE_ENTRY_LEN as u64),
        index_enabled: config.message_index_enable,
        index_slots: config.max_hash_slot_num,
        index_entries: config.max_index_num,
        query_max: usize::try_from(config.max_msgs_num_batch).unwrap_or(1),
        flush,
        write_pool: config.write_pool(),
        queue_flush_interval: Duration::from_millis(config.flush_interval_consume_queue),
        queue_flush_least_pages: config.flush_consume_queue_least_pages,
        queue_flush_thorough_interval: Duration::from_millis(config.flush_consume_queue_thorough_interval),
        message_len_max: config.message_len_max(),
        retention: config.retention(),
        read_bytes_in_memory: config.max_transfer_bytes_on_message_in_memory,
        read_count_in_memory: config.max_transfer_count_on_message_in_memory,
        read_bytes_on_disk: config.max_transfer_bytes_on_message_in_disk,
        read_count_on_disk: config.max_transfer_count_on_message_in_disk,
        read_scan_bytes: config.max_filter_message_size,
        in_memory_ratio: in_memory_ratio(config, Role::of(config)),
        delay_levels: delay_levels(config)?,
        confirmed_at_open: if keeps_copies(config) { confirmed_before(config)? } else { None },
        disk,
        ..StoreConfig::default()
    })
}

/// A slave takes 10 % less of the memory for its log, so that it points its readers elsewhere sooner. Java: `BrokerStartup`, for released
/// versions.
fn in_memory_ratio(config: &BrokerConfig, role: Role) -> f64 {
    let percent = config.access_message_in_memory_max_ratio;
    f64::from(if role.is_slave() { percent.saturating_sub(10) } else { percent }) / 100.0
}

fn delay_levels(config: &BrokerConfig) -> Result<DelayLevels, InvalidValue> {
    DelayLevels::parse(&config.message_delay_level)
        .map_err(|error| invalid("messageDelayLevel", &config.message_delay_level, &error.to_string()))
}

pub(crate) fn invalid(key: &str, value: &str, allowed: &str) -> InvalidValue {
    InvalidValue { key: key.into(), value: value.into(), allowed: allowed.into() }
}

/// The address stored with messages. Java keeps the bytes of `brokerIP1`, so a host name is looked up.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, StartError> {
    let failed = |reason: String| StartError::Address { host: host.to_owned(), reason };
    let mut addresses = (without_brackets(host), port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    addresses.next().ok_or_else(|| failed("the name has no address".into()))
}
