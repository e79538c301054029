//! The checkpoint file: store times up to which log, queues and index are known to be on the disk.
//!
//! Java: StoreCheckpoint. 4096 bytes of which 40 are used (store.md §8.1).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::OpenError;

const FILE_LEN: u64 = 4096;
const USED_LEN: usize = 40;
/// Recovery starts so much earlier than the times say. Java: StoreCheckpoint.getMinTimestamp.
const MARGIN_MS: i64 = 3_000;

#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: File,
    /// Store time of the last record on the disk. Java: physicMsgTimestamp.
    pub log_timestamp: AtomicI64,
    /// Store time of the last record whose queue entry is on the disk. Java: logicsMsgTimestamp.
    pub queues_timestamp: AtomicI64,
    /// Store time of the last record whose index entries are on the disk. Java: indexMsgTimestamp.
    pub index_timestamp: AtomicI64,
    /// Replication's. Java: masterFlushedOffset.
    pub master_flushed: AtomicU64,
    /// Start of the last valid record that recovery found. Java: confirmPhyOffset.
    pub confirmed: AtomicU64,
    /// As last written.
    written: Mutex<[u8; USED_LEN]>,
}

impl Checkpoint {
    /// Opens the file, or makes it; what is missing in it counts as 0.
    pub fn open(path: PathBuf) -> Result<Checkpoint, OpenError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(OpenError::io("open", &path))?;
        let len = file.metadata().map_err(OpenError::io("look at", &path))?.len();
        if len < FILE_LEN {
            let filler = vec![0; usize::try_from(FILE_LEN - len).unwrap_or(0)];
            file.write_all_at(&filler, len).map_err(OpenError::io("write", &path))?;
        }
        let mut bytes = [0; USED_LEN];
        file.read_exact_at(&mut bytes, 0).map_err(OpenError::io("read", &path))?;
        let field = |at: usize| {
            let mut long = [0; 8];
            long.copy_from_slice(&bytes[at..at + 8]);
            // Java reads them signed; below 0 makes no sense in any of them.
            i64::from_be_bytes(long).max(0)
        };
        Ok(Checkpoint {
            log_timestamp: AtomicI64::new(field(0)),
            queues_timestamp: AtomicI64::new(field(8)),
            index_timestamp: AtomicI64::new(field(16)),
            master_flushed: AtomicU64::new(field(24).cast_unsigned()),
            confirmed: AtomicU64::new(field(32).cast_unsigned()),
            path,
            file,
            written: Mutex::new(bytes),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records stored up to this time are in the log and in the queues, on the disk.
    pub fn recovery_start(&self) -> i64 {
        let log = self.log_timestamp.load(Ordering::Acquire);
        let queues = self.queues_timestamp.load(Ordering::Acquire);
        (log.min(queues) - MARGIN_MS).max(0)
    }

    /// Records stored up to this time are in the index, on the disk.
    pub fn index_recovery_start(&self) -> i64 {
        (self.index_timestamp.load(Ordering::Acquire) - MARGIN_MS).max(0)
    }

    /// Writes the fields out if they changed.
    pub fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut written = self.written.lock();
        let mut bytes = [0; USED_LEN];
        bytes[..8].copy_from_slice(&self.log_timestamp.load(Ordering::Acquire).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.queues_timestamp.load(Ordering::Acquire).to_be_bytes());
        bytes[16..24].copy_from_slice(&self.index_timestamp.load(Ordering::Acquire).to_be_bytes());
        bytes[24..32].copy_from_slice(&self.master_flushed.load(Ordering::Acquire).to_be_bytes());
        bytes[32..].copy_from_slice(&self.confirmed.load(Ordering::Acquire).to_be_bytes());
        if *written != bytes {
            self.file.write_all_at(&bytes, 0)?;
            disk.sync_file(&self.path, &self.file)?;
            *written = bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;

    #[test]
    fn the_captured_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let checkpoint = Checkpoint::open(path.clone()).unwrap();
        assert_eq!(checkpoint.recovery_start(), 0);
        checkpoint.log_timestamp.store(1_795_222_173_031, Ordering::Release);
        checkpoint.queues_timestamp.store(1_795_222_173_031, Ordering::Release);
        checkpoint.save(&LocalDisk).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 4096);
        assert_eq!(bytes[..16], *b"\0\0\x01\xa1\xfb\x94\x75\x67\0\0\x01\xa1\xfb\x94\x75\x67");
        assert!(bytes[16..].iter().all(|byte| *byte == 0));
        let again = Checkpoint::open(path).unwrap();
        assert_eq!((again.recovery_start(), again.index_recovery_start()), (1_795_222_170_031, 0));
    }
}
