//! Where the tests of transactions live.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ferromq_protocol::message::properties::{self, names};
use ferromq_protocol::message::{NewMessage, Record};
use ferromq_protocol::topics::TRANSACTION_HALF_TOPIC;
use ferromq_store::{AppendedMessage, Clock, DelayLevels, Disk, Effort, ReadError, Store, StoreConfig};

use super::{EndError, QUEUE, TransactionParts, Transactions};
use crate::clients::Clients;
use crate::config::BrokerConfig;
use crate::consumer_offsets::ConsumerOffsets;
use crate::live_config::LiveConfig;
use crate::persistence::Persistence;
use crate::statistics::Statistics;
use crate::testing::{TroubledDisk, message, wait_until};
use crate::topics::Topics;

/// A store whose wall clock is the test's, and transactions whose age is.
pub struct House {
    pub wall_ms: Arc<AtomicI64>,
    pub forward_ms: Arc<AtomicI64>,
    pub disk: Arc<TroubledDisk>,
    pub transactions: Transactions,
    pub store: Arc<Store>,
    pub directory: tempfile::TempDir,
}

const START: i64 = 1_800_000_000_000;

/// Whoever is old enough to be asked after is given up at once.
pub fn house() -> House {
    house_with(0)
}

pub fn house_with(transaction_check_max: u32) -> House {
    let directory = tempfile::tempdir().unwrap();
    let (wall_ms, forward_ms) = (Arc::new(AtomicI64::new(START)), Arc::new(AtomicI64::new(START)));
    let clock = |of: &Arc<AtomicI64>| {
        let of = Arc::clone(of);
        Clock::from_fn(move || of.load(Ordering::SeqCst))
    };
    let disk = Arc::new(TroubledDisk::default());
    let config = StoreConfig {
        segment_len: 1 << 20,
        queue_file_entries: 1000,
        index_slots: 100,
        index_entries: 1000,
        clock: clock(&wall_ms),
        disk: Arc::clone(&disk) as Arc<dyn Disk>,
        ..StoreConfig::at(directory.path())
    };
    let store = Arc::new(Store::open(config).unwrap());
    let persistence = Persistence::default();
    let config = BrokerConfig { transaction_check_max, transaction_time_out: 6_000, ..BrokerConfig::default() };
    let live = Arc::new(LiveConfig::new(config.clone(), None));
    let config_dir = directory.path().join("config");
    let topics = Arc::new(Topics::open(&config_dir, &live, &persistence).unwrap());
    let offsets = ConsumerOffsets::open(&config_dir, &config, &topics, &store, &persistence).unwrap();
    let transactions = Transactions::open(TransactionParts {
        config: Arc::clone(&live),
        offsets: Arc::new(offsets),
        clients: Arc::new(Clients::new()),
        topics,
        statistics: Arc::new(Statistics::new()),
        store: Arc::clone(&store),
        levels: DelayLevels::default(),
        forward: clock(&forward_ms),
        store_host: "127.0.0.1:10911".parse().unwrap(),
    });
    House { wall_ms, forward_ms, disk, transactions: transactions.unwrap(), store, directory }
}

impl House {
    pub fn begin(&self, more: &str) -> AppendedMessage {
        self.begin_born(self.wall_ms.load(Ordering::SeqCst), more)
    }

    /// As a producer's clock says.
    pub fn begin_born(&self, born_timestamp: i64, more: &str) -> AppendedMessage {
        let properties = format!("REAL_TOPIC\u{1}T\u{2}REAL_QID\u{1}0\u{2}{more}");
        let half = NewMessage { born_timestamp, ..message(TRANSACTION_HALF_TOPIC, QUEUE, b"half", &properties) };
        let round = self.store.round();
        let appended = round.append(&half).unwrap();
        let immunity = properties::property(more, names::CHECK_IMMUNITY_TIME_IN_SECONDS);
        self.transactions.began(&appended, half.born_timestamp, immunity);
        appended
    }

    /// As a handler ends it.
    pub fn end(&self, half: &AppendedMessage, commit: bool) -> Result<(), EndError> {
        let bytes = self.store.message_at(half.physical_offset, Effort::Full).unwrap().unwrap();
        self.transactions.end(&self.store.round(), &Record::parse(&bytes).unwrap(), commit).map(drop)
    }

    pub fn count(&self, topic: &str) -> u64 {
        self.store.queue_bounds(topic, QUEUE).map_or(0, |bounds| bounds.max.0)
    }

    /// Returns once all that was stored can be seen.
    pub fn see(&self) {
        let all_is_seen = || {
            let marks = self.store.watermarks();
            marks.projected == marks.written
        };
        wait_until("not all is dispatched", all_is_seen);
    }

    /// As one that starts on the store as it is.
    pub fn opened_again(&self) -> Result<Transactions, ReadError> {
        let parts = &self.transactions.table.parts;
        Transactions::open(TransactionParts {
            config: Arc::clone(&parts.config),
            offsets: Arc::clone(&parts.offsets),
            clients: Arc::clone(&parts.clients),
            topics: Arc::clone(&parts.topics),
            statistics: Arc::clone(&parts.statistics),
            store: Arc::clone(&parts.store),
            levels: parts.levels.clone(),
            forward: parts.forward.clone(),
            store_host: parts.store_host,
        })
    }

    pub fn pass(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.forward_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// How many are open after a round.
    pub fn open(&self) -> usize {
        self.transactions.table.round(self.transactions.worker.bell());
        self.transactions.table.pending.lock().len()
    }
}
