//! A segment's part in the write pool: which buffers are mapped over it, and how far it is in the file.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, PAGE};
use crate::mapping::Mapping;
use crate::write_pool::{AlignedPage, Buffer, WritePool};

/// Bytes written to the file in one go.
const STEP: usize = 1 << 20;
/// Nothing is staged.
const NONE: usize = usize::MAX;

#[derive(Debug)]
pub struct Staged {
    /// Neighbours, oldest first. The last one reaches to where the segment is ready for appends.
    windows: Mutex<VecDeque<Window>>,
    /// Where the first of them begins that is not taken away next.
    from: AtomicUsize,
    /// What is before it is in the file.
    committed: AtomicUsize,
    /// For who commits, one at a time; with room for a copy of the last page.
    outlet: Mutex<(Outlet, AlignedPage)>,
}

/// A buffer in the place of a part of the file, whole pages.
#[derive(Debug)]
struct Window {
    range: Range<usize>,
    /// Free again with this.
    _buffer: Buffer,
}

/// The way into the file.
#[derive(Debug)]
struct Outlet {
    file: File,
    /// Past the page cache.
    direct: bool,
    pool: Arc<WritePool>,
}

impl Staged {
    /// Of a segment of which `committed` bytes are in the file, which is all there is.
    pub fn new(pool: &Arc<WritePool>, path: &Path, committed: usize) -> io::Result<Staged> {
        Ok(Staged {
            windows: Mutex::default(),
            from: AtomicUsize::new(NONE),
            committed: AtomicUsize::new(committed),
            outlet: Mutex::new((Outlet::open(pool, path)?, AlignedPage::default())),
        })
    }

    /// Puts a buffer over the pages of `from..to`. What the first page has of the log before `from`, all of it in the file, goes with it.
    pub fn mount(
        &self,
        disk: &dyn Disk,
        path: &Path,
        (map, file): (&Mapping, &File),
        buffer: Buffer,
        Range { start: from, end: to }: Range<usize>,
    ) -> io::Result<()> {
        let start = from - from % PAGE;
        let mut head = vec![0; from - start];
        if !head.is_empty() {
            disk.read(path, file, &mut head, start as u64)?;
        }
        buffer.memory().write_all_at(&head, buffer.offset())?;
        map.put_over(start..to, buffer.memory(), buffer.offset())?;
        let mut windows = self.windows.lock();
        windows.push_back(Window { range: start..to, _buffer: buffer });
        self.note_from(&windows);
        Ok(())
    }

    fn note_from(&self, windows: &VecDeque<Window>) {
        let first = windows.get(1).or(windows.front());
        self.from.store(first.map_or(NONE, |window| window.range.start), Ordering::Release);
    }

    /// Gives the oldest buffer back, if all that was in it is in the file. False when there is none such.
    pub fn unmount_oldest(&self, map: &Mapping, file: &File) -> io::Result<bool> {
        let mut windows = self.windows.lock();
        if windows.front().is_none_or(|window| window.range.end > self.committed()) {
            return Ok(false);
        }
        self.unmount_first(&mut windows, map, file).map(|()| true)
    }

    /// Gives all buffers back: all that was written is in the file.
    pub fn unmount_all(&self, map: &Mapping, file: &File) -> io::Result<()> {
        let mut windows = self.windows.lock();
        while !windows.is_empty() {
            self.unmount_first(&mut windows, map, file)?;
        }
        Ok(())
    }

    fn unmount_first(&self, windows: &mut VecDeque<Window>, map: &Mapping, file: &File) -> io::Result<()> {
        let Some(first) = windows.front() else { return Ok(()) };
        map.put_over(first.range.clone(), file, first.range.start as u64)?;
        // Nobody sees the buffer any more.
        windows.pop_front();
        self.note_from(windows);
        Ok(())
    }

    pub fn is_mounted(&self) -> bool {
        self.from.load(Ordering::Acquire) != NONE
    }

    /// Whether what begins at `at` is in a buffer, and will be for a while.
    pub fn has(&self, at: usize) -> bool {
        at >= self.from.load(Ordering::Acquire)
    }

    pub fn committed(&self) -> usize {
        self.committed.load(Ordering::Acquire)
    }

    /// Writes what the buffers have of `bytes`, the segment's written part, to the file, with the last page's rest as zeros; without
    /// `all` only whole pages, if there is one. Nothing that is written changes meanwhile: a device may read it more than once.
    pub fn commit(&self, disk: &dyn Disk, path: &Path, bytes: &[u8], len: usize, all: bool) -> io::Result<usize> {
        let mut outlet = self.outlet.lock();
        let (outlet, last_page) = &mut *outlet;
        let from = self.committed();
        // Behind the buffers there is only the rest of a segment that has ended, which the file has.
        let end = self.windows.lock().back().map_or(from, |window| window.range.end).min(bytes.len());
        // What the first page has in the file already is written once more, as it is.
        let (first, whole) = (from - from % PAGE, end - end % PAGE);
        for at in (first..whole).step_by(STEP) {
            outlet.write(disk, path, &bytes[at..whole.min(at + STEP)], at)?;
        }
        let mut to = whole.max(from);
        if end > to && (all || whole <= from) {
            // A copy, because what is behind its end in the buffer is old, or about to be written.
            outlet.write(disk, path, last_page.fill(&bytes[whole..end]), whole)?;
            to = end;
        }
        if to == end && bytes.len() == len {
            to = len;
        }
        self.committed.store(to, Ordering::Release);
        Ok(to)
    }
}

impl Outlet {
    fn open(pool: &Arc<WritePool>, path: &Path) -> io::Result<Outlet> {
        let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let (file, direct) = match open(libc::O_DIRECT) {
            Ok(file) => (file, true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                pool.tell_indirect(path);
                (open(0)?, false)
            }
            Err(error) => return Err(error),
        };
        Ok(Outlet { file, direct, pool: Arc::clone(pool) })
    }

    fn write(&mut self, disk: &dyn Disk, path: &Path, bytes: &[u8], at: usize) -> io::Result<()> {
        match disk.write(path, &self.file, bytes, at as u64) {
            Err(error) if self.direct && error.raw_os_error() == Some(libc::EINVAL) => {
                // A device with longer blocks, or memory that it cannot take from.
                self.pool.tell_indirect(path);
                self.file = OpenOptions::new().read(true).write(true).open(path)?;
                self.direct = false;
                disk.write(path, &self.file, bytes, at as u64)
            }
            written => written,
        }
    }
}
