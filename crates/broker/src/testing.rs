//! Helpers of this crate's tests: waiting, a queue that takes nothing, and a disk that does as it is told.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferromq_protocol::QueueId;
use ferromq_protocol::message::{NewMessage, SysFlag};
use ferromq_store::{AppendError, Disk, DiskUsage, LocalDisk, MappedRange, ReadError, Store};
use parking_lot::{Condvar, Mutex};

use crate::persistence::Persistence;

#[path = "../tests/support/killed.rs"]
mod killed;
pub use killed::copy_at_an_instant;

/// Only a hang runs into this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Config files that are tried again soon after a save that failed.
pub fn eager_persistence() -> Persistence {
    Persistence::trying_every(Duration::from_millis(10))
}

/// Waits for what another thread does in its own time.
pub fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a read is refused: what was just put there is not asked of the disk for a moment.
pub fn wait_refused<T>(read: impl Fn() -> Result<T, ReadError>) {
    wait_until("the disk is not asked", || read().is_err());
}

/// A message with nothing special about it.
pub fn message<'a>(topic: &'a str, queue_id: QueueId, body: &'a [u8], properties: &'a str) -> NewMessage<'a> {
    NewMessage {
        topic,
        queue_id,
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: 0,
        born_host: ([127, 0, 0, 1], 1).into(),
        store_host: ([127, 0, 0, 1], 10_911).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties,
    }
}

/// From now on a queue takes no messages, until the file is removed that is in the way of its own. Gives how many were taken before,
/// to be made up for then.
pub fn break_queue(store: &Store, topic: &str, queue_id: QueueId, in_the_way: &Path) -> u64 {
    std::fs::create_dir_all(in_the_way.parent().unwrap()).unwrap();
    std::fs::write(in_the_way, b"").unwrap();
    let message = message(topic, queue_id, b"made up for", "");
    let mut taken = 0;
    loop {
        match store.append(&message) {
            Ok(_) => taken += 1,
            Err(AppendError::QueueBehind { .. }) => return taken,
            Err(error) => panic!("{error}"),
        }
        std::thread::yield_now();
    }
}

/// As the system numbers them.
pub const BAD_SECTOR: i32 = 5;
pub const NO_DESCRIPTORS: i32 = 24;

/// A disk with nothing in memory, so that all that is old is read from it.
#[derive(Debug, Default)]
pub struct TroubledDisk {
    trouble: Mutex<Option<Trouble>>,
    /// Files, by what is in their paths, and how many more changes they take.
    full: Mutex<Option<(String, usize)>>,
    /// Files, by what is in their paths, that become no longer, and of which no other is made.
    no_room: Mutex<Option<String>>,
    /// Files, by what is in their paths, that cannot be synced.
    not_synced: Mutex<Option<String>>,
    refused: AtomicUsize,
    /// How full it says it is, if that is to be another figure than the truth.
    used_ratio: Mutex<Option<f64>>,
    holds_log: Mutex<bool>,
    lets_go: Condvar,
}

#[derive(Debug)]
struct Trouble {
    files: String,
    bytes: Range<u64>,
    error: i32,
}

impl TroubledDisk {
    /// From now on these bytes of the files that have `files` in their paths are not given.
    pub fn refuse(&self, files: &str, bytes: Range<u64>, error: i32) {
        *self.trouble.lock() = Some(Trouble { files: files.to_owned(), bytes, error });
    }

    /// From now on the files that have `files` in their paths take so many more changes and syncs, and then none.
    pub fn fill(&self, files: &str, changes: usize) {
        *self.full.lock() = Some((files.to_owned(), changes));
    }

    /// From now on there is no room for more of the files that have `files` in their paths, as on a disk that is full to the last byte.
    pub fn no_room(&self, files: &str) {
        *self.no_room.lock() = Some(files.to_owned());
    }

    /// From now on syncs of the files that have `files` in their paths fail.
    pub fn fail_syncs(&self, files: &str) {
        *self.not_synced.lock() = Some(files.to_owned());
    }

    /// It says from now on that so much of it is used.
    pub fn pretend_used(&self, ratio: f64) {
        *self.used_ratio.lock() = Some(ratio);
    }

    /// Syncs of the log that begin from now on do not end before what this gives is dropped.
    pub fn hold_log(&self) -> HeldLog<'_> {
        *self.holds_log.lock() = true;
        HeldLog { disk: self }
    }

    /// Reads, changes and syncs that failed.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    pub fn recover(&self) {
        *self.trouble.lock() = None;
        *self.full.lock() = None;
        *self.no_room.lock() = None;
        *self.not_synced.lock() = None;
    }

    fn refuse_more(&self, path: &Path) -> io::Result<()> {
        if self.no_room.lock().as_ref().is_some_and(|files| path.to_string_lossy().contains(&**files)) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn change(&self, path: &Path) -> io::Result<()> {
        if let Some((files, left)) = &mut *self.full.lock()
            && path.to_string_lossy().contains(&**files)
        {
            let Some(fewer) = left.checked_sub(1) else {
                self.refused.fetch_add(1, Ordering::SeqCst);
                return Err(io::ErrorKind::StorageFull.into());
            };
            *left = fewer;
        }
        Ok(())
    }
}

/// The log of a disk, as long as it is held.
pub struct HeldLog<'d> {
    disk: &'d TroubledDisk,
}

impl Drop for HeldLog<'_> {
    fn drop(&mut self) {
        *self.disk.holds_log.lock() = false;
        self.disk.lets_go.notify_all();
    }
}

impl Disk for TroubledDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        self.change(path)?;
        self.refuse_more(path)?;
        LocalDisk.create(path, len)
    }

    fn allocate(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        LocalDisk.allocate(file, range)
    }

    fn sync_range(&self, range: &MappedRange<'_>) -> io::Result<()> {
        if range.path.to_string_lossy().contains("/commitlog/") {
            self.lets_go.wait_while(&mut self.holds_log.lock(), |holds| *holds);
        }
        LocalDisk.sync_range(range)
    }

    fn sync_file(&self, path: &Path, file: &File) -> io::Result<()> {
        self.change(path)?;
        if self.not_synced.lock().as_ref().is_some_and(|files| path.to_string_lossy().contains(&**files)) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(BAD_SECTOR));
        }
        LocalDisk.sync_file(path, file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        LocalDisk.sync_dir(dir)
    }

    fn is_resident(&self, _: &MappedRange<'_>) -> bool {
        false
    }

    fn read(&self, path: &Path, file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let end = at + bytes.len() as u64;
        if let Some(trouble) = &*self.trouble.lock()
            && path.to_string_lossy().contains(&trouble.files)
            && at < trouble.bytes.end
            && trouble.bytes.start < end
        {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(trouble.error));
        }
        LocalDisk.read(path, file, bytes, at)
    }

    fn write(&self, path: &Path, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        self.change(path)?;
        if at + bytes.len() as u64 > file.metadata()?.len() {
            self.refuse_more(path)?;
        }
        LocalDisk.write(path, file, bytes, at)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(to)?;
        LocalDisk.rename(from, to)
    }

    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        let usage = LocalDisk.usage(path)?;
        let used_ratio = self.used_ratio.lock().unwrap_or(usage.used_ratio);
        Ok(DiskUsage { used_ratio, ..usage })
    }
}
