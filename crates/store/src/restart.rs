//! A log that is given up, to begin anew at another place: the order for it, and what becomes of the files.
//!
//! Files of a log, of its queues and of its index cannot all go in one step. So first there is an order, one file that comes in one step, and
//! from then on the log is given up: whatever a crash leaves of all these files, the next open removes the rest of them before it looks at
//! any, and begins where the order says. It goes last. Layout: docs/format.md, restart.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::big_endian::long_at;
use crate::checkpoint::Checkpoint;
use crate::config::StoreConfig;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::files;
use crate::index;
use crate::inventory;
use crate::log_dirs::LogDirs;
use crate::stamps;

const MAGIC: [u8; 8] = *b"FMQANEW1";
const CRC_AT: usize = 16;
const LEN: usize = CRC_AT + 4;

/// That the log is given up, and where it begins then: at a segment's border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartOrder {
    pub begin: u64,
}

pub fn path_in(root: &Path) -> PathBuf {
    root.join("restart")
}

impl RestartOrder {
    /// The order that is there, if any. One that is damaged is an error: nothing is removed by the word of a file that nobody wrote.
    pub fn read(disk: &dyn Disk, root: &Path) -> io::Result<Option<RestartOrder>> {
        let path = path_in(root);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = files::read_whole(disk, &path, &file)?;
        RestartOrder::parse(&bytes).map(Some).ok_or_else(|| {
            if !bytes.starts_with(&MAGIC) {
                let what = "it is none of this broker's files, which has one of that name: move it elsewhere";
                return io::Error::new(io::ErrorKind::InvalidData, what);
            }
            io::Error::new(
                io::ErrorKind::InvalidData,
                "it is damaged, and says that the log was given up to begin anew as another broker's copy: remove it, and what is in the directories of the log, consumequeue and index, and the file checkpoint",
            )
        })
    }

    fn parse(bytes: &[u8]) -> Option<RestartOrder> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let crc = crc32fast::hash(&bytes[..CRC_AT]).to_be_bytes();
        let holds = bytes[..MAGIC.len()] == MAGIC && bytes[CRC_AT..] == crc;
        holds.then(|| RestartOrder { begin: long_at(bytes, 8) })
    }

    fn encode(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..CRC_AT].copy_from_slice(&self.begin.to_be_bytes());
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Gives the order: when this returns, a start carries it out, whatever happens.
    pub fn give(self, disk: &dyn Disk, root: &Path) -> io::Result<()> {
        files::replace(disk, &path_in(root), &self.encode())
    }

    /// Takes it back, durably: nothing was done by it, or all of it.
    pub fn withdraw(disk: &dyn Disk, root: &Path) -> io::Result<()> {
        files::remove_file(disk, &path_in(root))?;
        disk.sync_dir(root)
    }

    /// For an open that finds it, before it has looked at anything else.
    pub fn finish(self, config: &StoreConfig, log_dirs: &LogDirs) -> Result<(), OpenError> {
        tracing::warn!(begin = self.begin, "the log was given up, and begins anew: what is left of it is removed");
        let path = config.root.join("checkpoint");
        if path.is_dir() {
            files::set_aside(&*config.disk, &config.root, &path, "a directory in place of the checkpoint")
                .map_err(OpenError::io("open", &path))?;
        }
        let checkpoint = Checkpoint::open(path)?;
        // As it was read, it may be in memory only, after a sync that failed.
        checkpoint.write_again();
        self.clear(config, log_dirs, &checkpoint)?;
        RestartOrder::withdraw(&*config.disk, &config.root).map_err(OpenError::io("remove", &path_in(&config.root)))
    }

    /// Removes the files of the log, and all that was made of it; the checkpoint says where the log begins now. Durable when this returns.
    pub fn clear(self, config: &StoreConfig, log_dirs: &LogDirs, checkpoint: &Checkpoint) -> Result<(), OpenError> {
        let (disk, root) = (&*config.disk, &config.root);
        log_dirs.remove_all()?;
        let queues = config.queues_path();
        // Timers lead into the log that was.
        for dir in files::list_dirs(&queues)?.into_iter().chain([root.join("timers")]) {
            files::remove_dir(disk, &dir).map_err(OpenError::io("remove", &dir))?;
        }
        let index = index::dir_of(root);
        let is_index_file = |path: &Path| path.file_name().is_some_and(|name| name.to_str().is_some_and(is_number));
        for path in files::list_files(&index)?.into_iter().filter(|path| is_index_file(path)) {
            files::remove_file(disk, &path).map_err(OpenError::io("remove", &path))?;
        }
        for dir in [&queues, &index].into_iter().filter(|dir| dir.is_dir()) {
            disk.sync_dir(dir).map_err(OpenError::io("sync", dir))?;
        }
        for path in [stamps::path_in(root), inventory::path_in(root)].iter().filter(|path| !path.is_dir()) {
            files::remove_file(disk, path).map_err(OpenError::io("remove", path))?;
        }
        checkpoint.begin_anew(self.begin);
        checkpoint.save(disk).map_err(OpenError::io("write", checkpoint.path()))?;
        disk.sync_dir(root).map_err(OpenError::io("sync", root))
    }
}

fn is_number(name: &str) -> bool {
    name.parse::<u64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_is_damaged_is_none() {
        let order = RestartOrder { begin: 3 << 30 };
        let bytes = order.encode();
        assert_eq!(RestartOrder::parse(&bytes), Some(order));
        for bit in 0..LEN * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RestartOrder::parse(&damaged), None, "bit {bit}");
        }
        assert_eq!(RestartOrder::parse(&bytes[..LEN - 1]), None);
    }
}
