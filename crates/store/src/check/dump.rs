//! Single pieces of a store, for people to look at.

use std::path::{Path, PathBuf};

use ferromq_protocol::message::tags::index_key_hash;

use super::log::{DurableLog, Log};
use super::queues::Queues;
use super::report::Report;
use super::window::Window;
use super::{CheckConfig, CheckError};
use crate::checkpoint::CheckpointFile;
use crate::index_file::{HEADER_LEN, IndexEntry, IndexHead, SLOT_LEN};
use crate::lock::ReadLock;
use crate::queue_file::QueueEntry;

/// Links of a chain that are followed in one file.
const LINKS_MAX: usize = 10_000;

/// A store that is looked into, and that no broker can open meanwhile.
#[derive(Debug)]
pub struct Dump {
    config: CheckConfig,
    log: Log,
    queues: Queues,
    _lock: ReadLock,
}

/// An entry of a queue, with its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedEntry {
    pub offset: u64,
    /// `None` where there is nothing.
    pub entry: Option<QueueEntry>,
}

/// The entries of one hash in one index file, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub path: PathBuf,
    pub hash: u32,
    pub slot: u32,
    pub links: Vec<ChainLink>,
}

/// One of them; others of the same slot are among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainLink {
    pub number: u32,
    pub hash: u32,
    pub physical: u64,
    /// Milliseconds; to the second.
    pub stored_ms: i64,
    pub previous: u32,
}

impl Dump {
    pub fn open(config: CheckConfig) -> Result<Dump, CheckError> {
        let lock = config.enter()?;
        // What does not fit is the check's to tell.
        let mut ignored = |_: &_| {};
        let report = &mut Report::new(&mut ignored);
        let log = Log::find(&config.log_dirs(), DurableLog::default(), report)?;
        let queues = Queues::find(config.queues_dir(), true, report)?;
        Ok(Dump { log, queues, config, _lock: lock })
    }

    /// The file with a place of the log, and where it is in there.
    pub fn place(&self, physical: u64) -> Option<(&Path, u64)> {
        self.log.place(physical)
    }

    /// The bytes of the record at a place of the log.
    pub fn record(&mut self, physical: u64) -> Result<Option<Vec<u8>>, CheckError> {
        let path = self.log.place(physical).map(|(path, _)| path.to_owned()).unwrap_or_default();
        let record = self.log.record_at(physical).map_err(|source| CheckError::Io { path, source })?;
        Ok(record.map(|record| record.bytes().to_vec()))
    }

    /// The offsets that a queue's files have room for; `None` for a queue without files.
    pub fn queue_range(&self, topic: &str, id: u32) -> Option<(u64, u64)> {
        self.queues.range(topic, id)
    }

    /// What a queue has at an offset.
    pub fn entry(&mut self, topic: &str, id: u32, offset: u64) -> Result<PlacedEntry, CheckError> {
        let path = self.config.queues_dir().join(topic);
        let entry = self.queues.entry(topic, id, offset).map_err(|source| CheckError::Io { path, source })?;
        Ok(PlacedEntry { offset, entry })
    }

    /// Where the index leads to for a key, file by file, the newest first.
    pub fn chains(&self, topic: &str, key: &str) -> Result<Vec<Chain>, CheckError> {
        let dir = self.config.index_dir();
        let mut ignored = |_: &_| {};
        let index = super::Index::find(dir, self.config.index_shape(), true, &mut Report::new(&mut ignored))?;
        let hash = index_key_hash(topic, key).cast_unsigned();
        let mut chains = Vec::new();
        for (path, shape) in index.files().iter().rev() {
            let io = |source| CheckError::Io { path: path.clone(), source };
            let mut window = Window::open(path, 4096).map_err(io)?;
            let head = window.array::<HEADER_LEN>(0).map_err(io)?;
            let Some(head) = head.map(|bytes| IndexHead::decode(&bytes)) else { continue };
            let slot_at = shape.slot_at(hash) as u64;
            let mut number = window.array::<SLOT_LEN>(slot_at).map_err(io)?.map_or(0, u32::from_be_bytes);
            let mut chain = Chain { path: path.clone(), hash, slot: hash % shape.slots, links: Vec::new() };
            while number > 0 && number < shape.entries && chain.links.len() < LINKS_MAX {
                let at = shape.entry_at(number) as u64;
                let Some(entry) = window.array(at).map_err(io)?.map(|bytes| IndexEntry::decode(&bytes)) else { break };
                let stored_ms = head.begin_timestamp.saturating_add(i64::from(entry.seconds) * 1000);
                let IndexEntry { hash, physical, previous, .. } = entry;
                chain.links.push(ChainLink { number, hash, physical, stored_ms, previous });
                // Chains lead to lower numbers, or are damaged.
                number = if previous < number { previous } else { 0 };
            }
            chains.push(chain);
        }
        Ok(chains)
    }

    /// What the checkpoint says; `None` when it is missing or too short.
    pub fn checkpoint(&self) -> Result<Option<CheckpointFile>, CheckError> {
        super::read_checkpoint(&self.config.root.join("checkpoint"), false, &mut Report::new(&mut |_| {}))
    }
}
