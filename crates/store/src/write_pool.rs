//! The write pool: memory of a fixed size, used again and again, that the end of the log is in before it is in its file.
//!
//! A buffer is mapped over the part of a segment that is written next (`staged`), so appends and readers go where they always go.
//! From there the bytes are written to the file past the page cache (`commit`). Once they are in the file the buffer stays where it
//! is, and is what readers at the tail see, until it is needed for what comes next.
//! Java: TransientStorePool, whose buffers are as long as segments, and are not read.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::disk::PAGE;
use crate::mapping;

/// How many there are at least: one for the tail, one for a record that reaches beyond it, one that is being written to the file.
pub const BUFFERS_MIN: usize = 3;

/// The pool's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritePoolConfig {
    /// `transientStorePoolSize`; [`BUFFERS_MIN`] at least.
    pub buffers: usize,
    /// Bytes of each, a multiple of 4096.
    pub buffer_len: usize,
    /// What has been written is brought to the file so often. `commitIntervalCommitLog`.
    pub commit_interval: Duration,
    /// So many pages have to be there for that, but for a thorough one. `commitCommitLogLeastPages`.
    pub commit_least_pages: u64,
    /// All of it so often. `commitCommitLogThoroughInterval`.
    pub commit_thorough_interval: Duration,
    /// An append that finds no buffer free is refused at once and does not wait. `fastFailIfNoBufferInStorePool`.
    pub fails_fast: bool,
}

#[derive(Debug)]
pub struct WritePool {
    memory: File,
    /// Keeps all of it in memory.
    locked: MmapRaw,
    config: WritePoolConfig,
    free: Mutex<Vec<usize>>,
    /// It was said that it goes through the page cache.
    indirect: AtomicBool,
}

impl WritePool {
    /// Takes the memory. Where the system does not let it be locked it can be swapped out, which is said once.
    pub fn new(config: &WritePoolConfig) -> io::Result<WritePool> {
        if mapping::page_len() != PAGE {
            return Err(io::Error::other(format!(
                "memory comes in pages of {} bytes here, and the pool needs pages of {PAGE}: set transientStorePoolEnable=false",
                mapping::page_len()
            )));
        }
        let buffers = config.buffers.max(BUFFERS_MIN);
        let len = buffers.checked_mul(config.buffer_len).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = File::from(memfd_create("ferromq-write-pool", MemfdFlags::CLOEXEC)?);
        memory.set_len(len as u64)?;
        let locked = MmapOptions::new().len(len).map_raw(&memory)?;
        if let Err(error) = locked.lock() {
            tracing::warn!(%error, bytes = len, "the write pool is not locked in memory, so it can be swapped out; raise the limit of locked memory (ulimit -l, LimitMEMLOCK) or make transientStorePoolSize smaller");
        }
        let free = Mutex::new((0..buffers).collect());
        Ok(WritePool { memory, locked, config: config.clone(), free, indirect: AtomicBool::new(false) })
    }

    pub fn config(&self) -> &WritePoolConfig {
        &self.config
    }

    pub fn buffer_len(&self) -> usize {
        self.config.buffer_len
    }

    pub fn buffers(&self) -> usize {
        self.locked.len() / self.config.buffer_len
    }

    /// Says once that files like this one are not written to directly.
    pub fn tell_indirect(&self, path: &Path) {
        if !self.indirect.swap(true, Ordering::Relaxed) {
            tracing::warn!(path = %path.display(), "the write pool goes through the page cache here, and saves nothing: the filesystem does not take direct writes of whole pages (O_DIRECT)");
        }
    }

    /// The longest that can be appended in one piece, whatever the tail's buffer has left.
    pub fn append_len_max(&self) -> usize {
        self.locked.len() - 2 * self.config.buffer_len
    }

    /// A buffer that nobody uses. What is in it is old.
    pub fn take(self: &Arc<Self>) -> Option<Buffer> {
        let number = self.free.lock().pop()?;
        Some(Buffer { pool: Arc::clone(self), number })
    }
}

/// A buffer in use; free again when dropped.
#[derive(Debug)]
pub struct Buffer {
    pool: Arc<WritePool>,
    number: usize,
}

impl Buffer {
    pub fn memory(&self) -> &File {
        &self.pool.memory
    }

    /// Where in the memory it begins.
    pub fn offset(&self) -> u64 {
        (self.number * self.pool.buffer_len()) as u64
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.free.lock().push(self.number);
    }
}

/// A page of memory of its own, on a page's border, as direct I/O wants it.
#[derive(Debug)]
pub struct AlignedPage(Vec<u8>);

impl Default for AlignedPage {
    fn default() -> AlignedPage {
        AlignedPage(vec![0; 2 * PAGE])
    }
}

impl AlignedPage {
    /// `bytes`, at most a page of them, and zeros behind.
    pub fn fill(&mut self, bytes: &[u8]) -> &[u8] {
        let at = self.0.as_ptr().align_offset(PAGE);
        let page = &mut self.0[at..at + PAGE];
        page[..bytes.len()].copy_from_slice(bytes);
        page[bytes.len()..].fill(0);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_on_a_pages_border() {
        let mut page = AlignedPage::default();
        assert_eq!(page.fill(&[7; 100]).as_ptr().align_offset(PAGE), 0);
        let filled = page.fill(b"ab");
        assert_eq!((filled.len(), &filled[..4]), (PAGE, &b"ab\0\0"[..]));
    }

    #[test]
    fn buffers_come_back() {
        let config = WritePoolConfig {
            buffers: 1,
            buffer_len: 2 * PAGE,
            commit_interval: Duration::ZERO,
            commit_least_pages: 0,
            commit_thorough_interval: Duration::ZERO,
            fails_fast: false,
        };
        let pool = Arc::new(WritePool::new(&config).unwrap());
        let taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        let mut offsets: Vec<_> = taken.iter().map(Buffer::offset).collect();
        offsets.sort_unstable();
        assert_eq!(offsets, [0, 8192, 16384]);
        drop(taken);
        assert!(pool.take().is_some());
    }
}
