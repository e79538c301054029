//! Files mapped into memory, behind a safe face. With `mapping` and `word_file` the only module with `unsafe`.
//!
//! Two kinds. [`LogFile`] is append-only: pages are prepared ahead of its end, bytes are copied in at the end by one
//! writer at a time and read as slices below the published end, which never goes back while anybody has one: a log that becomes shorter
//! goes on in another file ([`LogFile::shortened`]). A [`WordFile`](crate::word_file::WordFile) is changed in place.
//!
//! With the write pool, buffers of it are mapped over parts of a [`LogFile`] for a while (`staged`); what changes then is where the bytes
//! are, and not which.
//!
//! What makes the mappings sound, for every block below: files have their full length before they are mapped
//! (they get it when they are made, `files` checks it on open) and nobody makes them shorter while they are mapped: this
//! crate never does, and the directory lock keeps other brokers away. So no byte changes under a reader except through
//! these modules. If somebody does, or the disk does not give what it was given, there are zeros, and the mapping has a loss (`mapping`): that
//! is asked before a sync counts, after an append, and when something was read. Old bytes are looked for first (`look`), which waits for
//! the disk only where that may be.
#![allow(unsafe_code, reason = "memory-mapped files; every block states its proof")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use memmap2::{Advice, UncheckedAdvice};
use parking_lot::Mutex;
use rustix::fs::SeekFrom;

use crate::disk::{Disk, MappedRange, PAGE, sync_failed};
use crate::looking::{Growth, Look, MappedFile, ReadError, SeenBlocks};
use crate::mapping::Mapping;
use crate::staged::Staged;
use crate::write_pool::WritePool;

/// Most bytes prepared in one go: a quarter of a millisecond of work where memory is dear.
pub const CHUNK_MAX: usize = 64 * 1024;
/// Copied in one go.
const COPY_STEP: usize = 1 << 20;
/// A record's length, without which it is none.
const HEAD_LEN: usize = 4;
/// Bytes that a processor brings from memory at once, and how often it is asked to for one range: it goes on by itself.
const CACHE_LINE: usize = 64;
const EXPECTED_LINES_MAX: usize = 32;
static ZEROS: [u8; CHUNK_MAX] = [0; CHUNK_MAX];

fn open_whole(path: &Path) -> io::Result<(File, Mapping)> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let map = Mapping::new(&file)?;
    Ok((file, map))
}

/// Makes `range` of `map` durable. What is being written meanwhile may or may not be on the disk. With a loss nobody knows what is.
/// With `file` it is what is synced: the mapping has other memory in its place.
pub fn sync_map(
    disk: &dyn Disk,
    path: &Path,
    map: &Mapping,
    file: Option<&File>,
    range: Range<usize>,
) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    disk.sync_range(&MappedRange { file, ..MappedRange::new(path, map, range) })
        .and_then(|()| map.check())
        .map_err(|error| sync_failed(named(path, error)))
}

pub fn check_read(map: &Mapping, path: &Path) -> Result<(), ReadError> {
    let Some(at) = map.loss() else { return Ok(()) };
    map.check().map_err(|source| ReadError::Io { path: path.to_owned(), at, len: PAGE, source })
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl MappedRange<'_> {
    /// Writes the range out and waits for the device (msync with MS_SYNC, which is fdatasync of the range).
    pub fn sync(&self) -> io::Result<()> {
        self.file.map_or_else(|| self.map.flush_range(self.from, self.len), File::sync_data)
    }

    /// Whether all of it is in memory at this moment. False where the kernel does not say.
    pub fn is_resident(&self) -> bool {
        const PAGES: usize = 64;
        let end = self.map.len().min(self.from + self.len);
        (self.from..end).step_by(PAGES * PAGE).all(|at| {
            let len = (end - at).min(PAGES * PAGE);
            let mut pages = [0_u8; PAGES];
            // SAFETY: `at..at + len` is inside the mapping, which the borrow keeps, and `at` is on a page, as `from` is; a byte per
            // page of at most `PAGES` is written, into `pages`. None of the mapping's memory is touched.
            let told = unsafe { libc::mincore(self.map.as_mut_ptr().add(at).cast(), len, pages.as_mut_ptr()) };
            told == 0 && pages[..len.div_ceil(PAGE)].iter().all(|page| page & 1 != 0)
        })
    }
}

/// Brings `range` into memory, writable, so that a write there takes no page fault. Nothing changes where the kernel cannot
/// (before 5.14): writes then take a short one per page.
pub fn map_writable(map: &Mapping, path: &Path, range: Range<usize>) {
    let range = range.start..range.end.min(map.len());
    if !range.is_empty()
        && let Err(error) = map.advise_range(Advice::PopulateWrite, range.start, range.len())
    {
        tracing::debug!(%error, path = %path.display(), "pages are not mapped ahead");
    }
}

/// One segment of the commit log.
#[derive(Debug)]
pub struct LogFile {
    map: Mapping,
    file: File,
    path: PathBuf,
    /// Its directory is one that nothing is written to, and the mapping does not allow it.
    read_only: bool,
    /// Physical offset of byte 0.
    start: u64,
    /// Bytes that are there to read. Grows with appends; shrinks only where nobody else has the file.
    written: AtomicUsize,
    /// Appends may go so far. At least `written`; what is beyond both is zeros, or about to be.
    prepared: AtomicUsize,
    /// Held while a chunk is prepared, and while nothing is to be. Whether the last chunk's zeros could not be written: only the first
    /// failure in a row goes into the trace log.
    preparing: Mutex<bool>,
    /// Claimed by whoever appends.
    busy: AtomicBool,
    seen: SeenBlocks<8>,
    growth: Growth,
    /// Its part in the write pool, once it has one.
    staged: OnceLock<Staged>,
}

impl LogFile {
    /// Makes a segment of `len` allocated bytes, durably; the directory entry is the caller's to make durable.
    pub fn create(disk: &dyn Disk, path: PathBuf, start: u64, len: u64) -> io::Result<LogFile> {
        let file = disk.create(&path, len)?;
        disk.sync_file(&path, &file)?;
        let map = Mapping::new(&file)?;
        Ok(LogFile::new(map, file, path, start, 0))
    }

    /// Maps a whole segment that is only read.
    pub fn open_read_only(path: PathBuf, start: u64) -> io::Result<LogFile> {
        let file = File::open(&path)?;
        let map = Mapping::read_only(&file)?;
        let written = map.len();
        Ok(LogFile { read_only: true, ..LogFile::new(map, file, path, start, written) })
    }

    /// Maps a segment that exists; all of it counts as written until it is retracted.
    pub fn open(path: PathBuf, start: u64) -> io::Result<LogFile> {
        let (file, map) = open_whole(&path)?;
        let written = map.len();
        Ok(LogFile::new(map, file, path, start, written))
    }

    fn new(map: Mapping, file: File, path: PathBuf, start: u64, written: usize) -> LogFile {
        LogFile {
            map,
            file,
            path,
            read_only: false,
            start,
            written: AtomicUsize::new(written),
            prepared: AtomicUsize::new(written),
            preparing: Mutex::new(false),
            busy: AtomicBool::new(false),
            seen: SeenBlocks::default(),
            growth: Growth::default(),
            staged: OnceLock::new(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing may be appended, taken back or zeroed here.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Physical offset after the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.len() as u64
    }

    pub fn written(&self) -> usize {
        self.written.load(Ordering::Acquire)
    }

    pub fn room(&self) -> usize {
        self.len() - self.written()
    }

    /// Bytes that can be appended at once, without a page fault.
    pub fn ready(&self) -> usize {
        self.prepared.load(Ordering::Acquire).saturating_sub(self.written())
    }

    /// Byte up to which the file is ready for appends.
    pub fn prepared(&self) -> usize {
        self.prepared.load(Ordering::Acquire)
    }

    /// Copies `bytes` to the end and publishes them. On an error they went nowhere: the file is not as long any more as it was.
    ///
    /// # Panics
    /// When so much is not [`LogFile::ready`] or another append is under way: both are the caller's to rule out. A file that is only
    /// read is written to its end, so nothing ever is ready there.
    pub fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let _claim = Claim::take(&self.busy);
        let at = self.written.load(Ordering::Relaxed);
        let prepared = self.prepared();
        assert!(bytes.len() <= prepared.saturating_sub(at), "append of {} bytes at {at} of {prepared}", bytes.len());
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD_LEN));
        // SAFETY: `at..at + bytes.len()` lies below `prepared` (asserted above), which is at most the mapping's length. It
        // is at or beyond `written`, where no slice reaches: slices end below `written`, and `retract` lowers it only with the
        // file to itself, when there is none. The claim keeps every other append out, and `prepare` writes beyond `prepared`
        // only. `bytes` does not overlap: it is the caller's memory or below `written`.
        unsafe {
            let to = self.map.as_mut_ptr().add(at);
            std::ptr::copy_nonoverlapping(rest.as_ptr(), to.add(head.len()), rest.len());
            // A process killed in between leaves nothing that looks like a record: not even the compiler puts the length first.
            compiler_fence(Ordering::Release);
            std::ptr::copy_nonoverlapping(head.as_ptr(), to, head.len());
        }
        self.map.check().map_err(|error| named(&self.path, error))?;
        self.written.store(at + bytes.len(), Ordering::Release);
        Ok(())
    }

    /// Gives the rest of the file away unwritten: what is there stays (zeros, in a file of ours).
    pub fn seal(&self) {
        let _claim = Claim::take(&self.busy);
        // A chunk that is being prepared meanwhile has nothing but zeros in it, then as now. A buffer of the write pool has what was in
        // it before, and none is mounted here any more when the lock is free again.
        let _preparing = self.staged.get().map(|_| {
            let preparing = self.preparing.lock();
            let (from, to) = (self.written.load(Ordering::Relaxed), self.prepared());
            // SAFETY: below `prepared`, so inside the mapping, and at or beyond `written`, where no slice reaches. The claim keeps
            // appends out.
            unsafe { self.map.as_mut_ptr().add(from).write_bytes(0, to.saturating_sub(from)) };
            preparing
        });
        self.prepared.fetch_max(self.len(), Ordering::AcqRel);
        self.written.store(self.len(), Ordering::Release);
    }

    /// Lowers the written end to `to`, when a store opens: a slice holds the file, so to have it alone is to know that there is none.
    ///
    /// # Panics
    /// When a file that is only read would have to end sooner.
    pub fn retract(&mut self, to: usize) {
        if to >= self.written() {
            return;
        }
        assert!(!self.read_only, "{} is only read", self.path.display());
        *self.written.get_mut() = to;
        *self.prepared.get_mut() = to;
    }

    /// A file for the place of this one that has its first `to` bytes, which are written, and zeros behind them. It is made at `aside`,
    /// durably but for its name, and takes itself for what it will be when it is moved to where this one is. Whoever reads in this one
    /// goes on reading in it. On an error there may be something at `aside`.
    pub fn shortened(
        self: &Arc<Self>,
        disk: &dyn Disk,
        look: &Look<'_>,
        aside: &Path,
        to: usize,
    ) -> io::Result<LogFile> {
        let bytes = self.slice(0..to).ok_or(io::ErrorKind::UnexpectedEof)?;
        let file = disk.create(aside, self.len() as u64)?;
        for at in (0..to).step_by(COPY_STEP) {
            let end = to.min(at + COPY_STEP);
            self.look(look, at..end).map_err(io::Error::other)?;
            disk.write(aside, &file, &bytes[at..end], at as u64)?;
        }
        // No zeros for what was lost meanwhile.
        self.check()?;
        disk.sync_file(aside, &file)?;
        let map = Mapping::new(&file)?;
        Ok(LogFile::new(map, file, self.path.clone(), self.start, to))
    }

    /// Keeps bytes from being readied for as long as the guard lives: its file is about to be found at its path no more.
    pub fn hold_ready(&self) -> impl Drop + '_ {
        self.preparing.lock()
    }

    /// It is no part of the log any more, and all that was written is in the file: no memory is readied for it from now on, and buffers
    /// of the write pool go back.
    pub fn leave(&self) -> io::Result<()> {
        let _preparing = self.preparing.lock();
        // Nobody appends: what is beyond the written end is never touched.
        self.prepared.fetch_max(self.len(), Ordering::AcqRel);
        self.unstage()
    }

    /// Whether `file`, opened by this one's path, is what is mapped here.
    pub fn is_same(&self, file: &File) -> io::Result<bool> {
        let (own, other) = (self.file.metadata()?, file.metadata()?);
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// Zeros everything behind the written end, so that no old record can ever follow a new one.
    pub fn zero_rest(&self, disk: &dyn Disk) -> io::Result<()> {
        let from = self.written() as u64;
        disk.zero(&self.path, &self.file, from..self.len() as u64)?;
        // Of all of the file: what was written before and not synced may be lost by it, too.
        disk.sync_file(&self.path, &self.file).map_err(|error| sync_failed(named(&self.path, error)))
    }

    /// Writes `range` once more with the same bytes, while nobody appends: what a failed sync has not got to the device counts as written
    /// since, and the next one would leave it out. Each byte is read once, so that what is written is what there was.
    pub fn rewrite(&self, disk: &dyn Disk, range: Range<usize>) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        let mut chunk = vec![0; CHUNK_MAX];
        for at in range.clone().step_by(CHUNK_MAX) {
            let end = range.end.min(at + CHUNK_MAX);
            let bytes = &mut chunk[..end - at];
            // Not through the mapping, where zeros stand for what the disk does not give.
            disk.read(&self.path, &self.file, bytes, at as u64).map_err(|error| named(&self.path, error))?;
            if bytes.iter().all(|byte| *byte == 0) {
                // Most of the last file and all of the one made ahead: no bytes for the device.
                disk.zero(&self.path, &self.file, at as u64..end as u64)?;
            } else {
                disk.write(&self.path, &self.file, bytes, at as u64)?;
            }
        }
        Ok(())
    }

    /// A range of written bytes; `None` when it reaches beyond the written end.
    pub fn slice(self: &Arc<Self>, range: Range<usize>) -> Option<LogSlice> {
        let is_within = range.start <= range.end && range.end <= self.written();
        is_within.then(|| LogSlice { file: Arc::clone(self), range })
    }

    /// Makes sure that `range`, which is written, is in memory before a slice of it is looked at. Gives the end of what this
    /// read need not look at again: what is new has only newer behind it, and a block was looked at as a whole.
    pub fn look(&self, look: &Look<'_>, range: Range<usize>) -> Result<usize, ReadError> {
        self.check_read()?;
        let used = self.written();
        let is_there = match self.staged.get() {
            None => look.is_new(&self.growth, range.start, used),
            Some(staged) => staged.has(range.start),
        };
        if is_there {
            return Ok(used.max(range.end));
        }
        let file = MappedFile { path: &self.path, map: &self.map, used, seen: &self.seen };
        look.bring(&file, || self.file.try_clone(), range)
    }

    /// Whether all of `range` is in memory.
    pub fn is_resident(&self, disk: &dyn Disk, range: Range<usize>) -> bool {
        disk.is_resident(&MappedRange::new(&self.path, &self.map, range))
    }

    /// Whether what was read or written until now is what the file has; an error says what it has lost.
    pub fn check(&self) -> io::Result<()> {
        // By its end and not by a stat: Linux (6.13 and later) counts the times of a file finer once somebody has asked for them, and
        // the next write then changes the inode too. The position is used for nothing else.
        let len = rustix::fs::seek(&self.file, SeekFrom::End(0)).map_err(|error| named(&self.path, error.into()))?;
        if len < self.len() as u64 {
            // Shorter than a usize.
            self.map.note_loss(len as usize);
        }
        self.map.check().map_err(|error| named(&self.path, error))
    }

    /// [`LogFile::check`] for a reader, who has seen a loss if anybody has: costs nothing.
    pub fn check_read(&self) -> Result<(), ReadError> {
        check_read(&self.map, &self.path)
    }

    /// Makes `range`, which is written, durable.
    pub fn sync(&self, disk: &dyn Disk, range: Range<usize>) -> io::Result<()> {
        let staged_file = self.staged.get().map(|_| &self.file);
        if staged_file.is_none() {
            self.unmap(range.clone());
        }
        sync_map(disk, &self.path, &self.map, staged_file, range)?;
        // What somebody cut off was given up by the kernel, without an error.
        self.check().map_err(sync_failed)
    }

    /// Takes the whole pages of `range` out of the page tables; they stay in memory, and a reader finds them again with a
    /// short page fault per 64 KiB. Mapped, each page would cost an interrupt of all cores when it is written out, because
    /// the kernel write-protects pages one by one; this is one for all of them.
    fn unmap(&self, range: Range<usize>) {
        let (from, to) = (range.start.next_multiple_of(PAGE), range.end - range.end % PAGE);
        if from >= to {
            return;
        }
        // SAFETY: the mapping is shared and of a file: bytes changed through it are in the page cache and stay there, so
        // whoever reads the range, now or later, sees the same bytes as before.
        let result = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) };
        if let Err(error) = result {
            tracing::debug!(%error, path = %self.path.display(), "pages stay mapped while they are written out");
        }
    }

    /// Starts writing `range`, which is written, to the device without waiting, so that the next sync has less to do.
    pub fn start_write_back(&self, range: Range<usize>) {
        use std::os::fd::AsRawFd as _;
        if self.staged.get().is_some() {
            return;
        }
        self.unmap(range.clone());
        let (Ok(from), Ok(len)) = (i64::try_from(range.start), i64::try_from(range.len())) else { return };
        // SAFETY: a system call on a file descriptor that lives as long as `self.file`; it touches no memory of ours.
        let result = unsafe { libc::sync_file_range(self.file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) };
        if result != 0 {
            // Only a hint: the sync that follows does the work and reports errors.
            tracing::debug!(error = %io::Error::last_os_error(), path = %self.path.display(), "no early write-back");
        }
    }

    /// Readies the next bytes for appends, to the end of their chunk of `chunk` bytes (a multiple of the page size, at most
    /// [`CHUNK_MAX`]): memory is there, mapped and writable, so that an append takes no page fault. False when all of the
    /// file is ready.
    ///
    /// The zeros are written, because then the kernel keeps a chunk as one piece of memory. Left to page faults it makes
    /// pieces of whatever size its read-ahead has come to: megabytes take many milliseconds to clear, and a sync writes
    /// and write-protects them whole; single pages cost an interrupt of all cores each when they are written out.
    pub fn prepare(&self, chunk: usize) -> bool {
        let mut is_failing = self.preparing.lock();
        let from = self.prepared();
        if from >= self.len() {
            return false;
        }
        let to = (from / chunk + 1).saturating_mul(chunk).min(self.len());
        // The first page may have bytes of the log in it.
        let fresh = from.next_multiple_of(PAGE).min(to);
        // A file that somebody made shorter is not made longer again: the next append finds that it has lost something. Looked at for each
        // chunk, though that is a system call: what is cut off between a look and the zeros is not missed any more.
        let written = self.check().and_then(|()| self.file.write_all_at(&ZEROS[..to - fresh], fresh as u64));
        let was_failing = std::mem::replace(&mut *is_failing, written.is_err());
        if let Err(error) = written
            && !was_failing
        {
            // What is there are zeros anyway; only the memory is not ready.
            tracing::warn!(%error, path = %self.path.display(), "cannot prepare a part of the commit log ahead; not said again before it has succeeded");
        }
        self.map_writable(from..to);
        self.prepared.fetch_max(to, Ordering::AcqRel);
        true
    }

    /// [`LogFile::prepare`] with a buffer of the write pool, which is mapped over the next bytes. False when the pool has none.
    pub fn stage(&self, disk: &dyn Disk, pool: &Arc<WritePool>) -> io::Result<bool> {
        let _preparing = self.preparing.lock();
        let from = self.prepared();
        if from >= self.len() {
            return Ok(true);
        }
        let Some(buffer) = pool.take() else { return Ok(false) };
        let staged = match self.staged.get() {
            Some(staged) => staged,
            // The first time nothing is ready but what is in the file.
            None => {
                let new = Staged::new(pool, &self.path, from).map_err(|error| named(&self.path, error))?;
                self.staged.get_or_init(|| new)
            }
        };
        let to = (from / pool.buffer_len() + 1).saturating_mul(pool.buffer_len()).min(self.len());
        staged
            .mount(disk, &self.path, (&self.map, &self.file), buffer, from..to)
            .map_err(|error| named(&self.path, error))?;
        map_writable(&self.map, &self.path, from - from % PAGE..to);
        self.prepared.fetch_max(to, Ordering::AcqRel);
        Ok(true)
    }

    /// Gives the oldest buffer of the write pool back, if it has one that is all in the file.
    pub fn unstage_oldest(&self) -> io::Result<bool> {
        let Some(staged) = self.staged.get() else { return Ok(false) };
        staged.unmount_oldest(&self.map, &self.file).map_err(|error| named(&self.path, error))
    }

    /// Gives all buffers of the write pool back. All that was written is in the file, and nothing is appended any more.
    pub fn unstage(&self) -> io::Result<()> {
        self.staged.get().map_or(Ok(()), |staged| staged.unmount_all(&self.map, &self.file))
    }

    /// Whether buffers of the write pool are mapped over it.
    pub fn is_staged(&self) -> bool {
        self.staged.get().is_some_and(Staged::is_mounted)
    }

    /// Brings what is written up to `limit` and in the write pool to the file, not yet durably; without `all` only whole pages, if there is
    /// one. Gives how far the file has it. By one at a time.
    pub fn commit(self: &Arc<Self>, disk: &dyn Disk, limit: usize, all: bool) -> io::Result<usize> {
        let written = self.written().min(limit);
        let (Some(staged), Some(bytes)) = (self.staged.get(), self.slice(0..written)) else { return Ok(written) };
        // A write would make a file long again that somebody made shorter, with zeros for what it has lost.
        self.check()?;
        staged.commit(disk, &self.path, &bytes, self.len(), all).map_err(|error| named(&self.path, error))
    }

    /// Maps the pages of `range` writable again, after a sync has write-protected them.
    pub fn map_writable(&self, range: Range<usize>) {
        if self.staged.get().is_some() {
            return;
        }
        map_writable(&self.map, &self.path, range);
    }
}

/// Exclusive right to write to a file, for the length of a scope.
struct Claim<'a>(&'a AtomicBool);

impl Claim<'_> {
    fn take(busy: &AtomicBool) -> Claim<'_> {
        assert!(!busy.swap(true, Ordering::Acquire), "two writers on one mapped file");
        Claim(busy)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Written bytes of a segment, which never change. Keeps the mapping alive, also after the file was deleted.
#[derive(Debug)]
pub struct LogSlice {
    file: Arc<LogFile>,
    range: Range<usize>,
}

impl LogSlice {
    /// Tells the processor that `range` of it will be read in a moment. Has no other effect.
    pub fn expect(&self, range: &Range<usize>) {
        #[cfg(target_arch = "x86_64")]
        for at in range.clone().step_by(CACHE_LINE).take(EXPECTED_LINES_MAX) {
            // SAFETY: asking for memory before it is needed reads nothing, and is left undone where there is none.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.as_ptr().wrapping_add(at).cast()) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = range;
    }

    /// The bytes for a reply, without copying.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for LogSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range was checked against `written`, which is at most the mapping's length, when this slice was
        // made. Bytes below `written` are never written again: appends begin there, `prepare` beyond that, and `retract`
        // lowers it only with `&mut LogFile`, which nobody gets as long as this slice holds the file. The mapping is there for
        // the same reason.
        unsafe { std::slice::from_raw_parts(self.file.map.as_ptr().add(self.range.start), self.range.len()) }
    }
}

impl AsRef<[u8]> for LogSlice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// A new file that cannot be used (`vm.max_map_count` is reached, mostly) goes again, so that the next try meets the same
/// error and not a file that is there already.
pub fn or_gone<T>(disk: &dyn Disk, made: io::Result<T>, path: &Path) -> io::Result<T> {
    made.inspect_err(|_| {
        if let Err(error) = disk.remove_file(path) {
            tracing::warn!(%error, path = %path.display(), "a file that cannot be mapped stays behind");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;

    #[test]
    fn slices_end_at_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Arc::new(LogFile::create(&LocalDisk, dir.path().join("a"), 100, 8192).unwrap());
        assert_eq!(file.ready(), 0);
        assert!(file.prepare(4096));
        file.append(b"hello").unwrap();
        assert!(file.prepare(4096) && !file.prepare(4096));
        assert_eq!(file.ready(), 8187);
        assert_eq!(&*file.slice(1..5).unwrap(), b"ello");
        assert!(file.slice(1..6).is_none());
        assert!(file.slice(6..6).is_none());
        file.sync(&LocalDisk, 0..5).unwrap();
        file.start_write_back(0..4096);
        let bytes = file.slice(0..5).unwrap().into_bytes();
        std::fs::remove_file(dir.path().join("a")).unwrap();
        assert_eq!(&bytes[..], b"hello");
        assert!(Arc::get_mut(&mut file).is_none(), "a reader is left");
        drop(bytes);
        Arc::get_mut(&mut file).unwrap().retract(2);
        assert_eq!(file.ready(), 0);
        assert!(file.prepare(4096));
        file.append(b"y").unwrap();
        assert_eq!(&*file.slice(0..3).unwrap(), b"hey");
        file.seal();
        assert_eq!((file.room(), file.end()), (0, 100 + 8192));
    }

    #[test]
    fn a_shortened_file_begins_like_the_one_that_is_read_on() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("a"), dir.path().join("b"));
        let file = Arc::new(LogFile::create(&LocalDisk, path.clone(), 100, 8192).unwrap());
        while file.prepare(4096) {}
        file.append(&[7; 5000]).unwrap();
        let look = Look::new(&LocalDisk, crate::Effort::Full);
        assert!(file.shortened(&LocalDisk, &look, &aside, 5001).is_err() && !aside.exists());
        let shorter = Arc::new(file.shortened(&LocalDisk, &look, &aside, 4500).unwrap());
        std::fs::rename(&aside, &path).unwrap();
        let read = file.slice(0..5000).unwrap();
        file.leave().unwrap();
        assert_eq!((shorter.path(), shorter.start(), shorter.written(), shorter.ready()), (&*path, 100, 4500, 0));
        while shorter.prepare(4096) {}
        shorter.append(&[9; 600]).unwrap();
        assert!(read.iter().all(|byte| *byte == 7));
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((&bytes[..4500], &bytes[4500..5100], bytes.len()), (&[7; 4500][..], &[9; 600][..], 8192));
        assert!(bytes[5100..].iter().all(|byte| *byte == 0));
        let opened = File::open(&path).unwrap();
        assert!(shorter.is_same(&opened).unwrap() && !file.is_same(&opened).unwrap());
    }

    #[test]
    fn the_rest_can_be_zeroed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, [9; 9000]).unwrap();
        let mut file = Arc::new(LogFile::open(path, 0).unwrap());
        Arc::get_mut(&mut file).unwrap().retract(10);
        file.zero_rest(&LocalDisk).unwrap();
        file.seal();
        let all = file.slice(0..9000).unwrap();
        assert!(all[..10].iter().all(|byte| *byte == 9) && all[10..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_file_that_cannot_be_prepared_says_so_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0");
        let mut file = LogFile::create(&LocalDisk, path.clone(), 0, 16 * PAGE as u64).unwrap();
        let prepare = |file: &LogFile| crate::testing::logged(|| assert!(file.prepare(PAGE)));
        // Nothing can be written through it.
        let writable = std::mem::replace(&mut file.file, File::open(&path).unwrap());
        assert_eq!((prepare(&file).len(), prepare(&file).len(), prepare(&file).len()), (1, 0, 0));
        let read_only = std::mem::replace(&mut file.file, writable);
        assert_eq!(prepare(&file).len(), 0);
        file.file = read_only;
        assert_eq!((prepare(&file).len(), prepare(&file).len()), (1, 0));
        // An append needs no zeros.
        assert_eq!(file.ready(), 6 * PAGE);
    }
}
