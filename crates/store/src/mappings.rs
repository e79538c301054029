//! Which files of consume queues are mapped: those in use, as long as there is room for more.
//!
//! A process has `vm.max_map_count` mappings, mostly 65,530, and a broker may have more queues than that. So a queue knows its
//! files by path and maps one when it is asked for; beyond a share of what there is, those that were not asked for longest
//! are unmapped again. Nothing is lost with a mapping: what was put through it is in the page cache, and a sync through the
//! next one writes it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};

use crate::disk::{Disk, FileState};
use crate::queue_file::{ENTRY_LEN, QueueFile};
use crate::stamps::{FileStamp, Seen, Unstamped};
use crate::word_file::WordFile;

/// What the kernel gives a process where it does not say.
const KERNEL_DEFAULT: usize = 65_530;
/// Of the mappings there are, one part of so many is for queue files.
const SHARE: usize = 2;
/// Room is made for so many parts of the whole at once, and at most for so many files: whoever needs one unmaps them, and
/// serves connections, or everybody.
const ROOM_SHARE: usize = 64;
const ROOM_MAX: usize = 16;

/// How many queue files may be mapped on this machine.
pub fn share_of_system() -> usize {
    let told = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    told.and_then(|text| text.trim().parse().ok()).unwrap_or(KERNEL_DEFAULT) / SHARE
}

/// The files that are mapped, of all queues.
#[derive(Debug)]
pub struct Mappings {
    disk: Arc<dyn Disk>,
    max: usize,
    /// Those asked for longest ago first, roughly: see [`Segment::used`].
    mapped: Mutex<VecDeque<Weak<Segment>>>,
}

impl Mappings {
    /// At most `max` at a time, but for those that somebody is reading through.
    pub fn new(disk: Arc<dyn Disk>, max: usize) -> Mappings {
        Mappings { disk, max: max.max(1), mapped: Mutex::default() }
    }

    /// Makes a mapping, after making room for it.
    fn map(
        &self,
        segment: &Arc<Segment>,
        map: impl Fn() -> io::Result<(WordFile, FileState)>,
    ) -> io::Result<Arc<QueueFile>> {
        self.shrink_below(self.max);
        let mut place = segment.place.write();
        if let Some(file) = &place.file {
            return Ok(Arc::clone(file));
        }
        let (words, state) = match map() {
            // Others have mappings too.
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                let half = self.mapped.lock().len() / 2;
                self.shrink_below(half);
                map()?
            }
            words => words?,
        };
        if words.len() as u64 != segment.entries * ENTRY_LEN as u64 {
            return Err(io::Error::other(format!("{} has changed its length", segment.path.display())));
        }
        place.seen.note(&segment.path, &state);
        let file = Arc::new(QueueFile::new(words, segment.first));
        place.file = Some(Arc::clone(&file));
        drop(place);
        self.mapped.lock().push_back(Arc::downgrade(segment));
        Ok(file)
    }

    /// Unmaps files until there are fewer than `max`, and some room beyond. Files that are asked for at this moment stay.
    fn shrink_below(&self, max: usize) {
        if self.mapped.lock().len() < max {
            return;
        }
        let goal = max.saturating_sub(1 + (max / ROOM_SHARE).min(ROOM_MAX));
        // With the lock free: each is a system call, or two with the last word of a reader.
        while let Some(files) = self.take_down_to(goal) {
            drop(files);
        }
    }

    /// Some of those asked for longest ago, to be unmapped by letting go of them; `None` when no more than `goal` are left, or
    /// can be.
    fn take_down_to(&self, goal: usize) -> Option<Vec<Arc<QueueFile>>> {
        let mut mapped = self.mapped.lock();
        let mut files = Vec::with_capacity(ROOM_MAX);
        // Each is passed over once if it was asked for since it was looked at last.
        for _ in 0..2 * mapped.len() {
            if mapped.len() <= goal || files.len() == ROOM_MAX {
                break;
            }
            let Some(segment) = mapped.pop_front().and_then(|segment| segment.upgrade()) else { continue };
            // One that has lost something is kept: a new mapping would not know.
            if segment.used.swap(false, Ordering::Relaxed) || segment.has_loss() {
                mapped.push_back(Arc::downgrade(&segment));
                continue;
            }
            match segment.take_file() {
                Some(file) => files.extend(file),
                None => mapped.push_back(Arc::downgrade(&segment)),
            }
        }
        (!files.is_empty()).then_some(files)
    }
}

/// One file of a queue, mapped or not.
#[derive(Debug)]
pub struct Segment {
    path: PathBuf,
    /// Offset of the first entry.
    first: u64,
    entries: u64,
    /// Asked for since somebody looked for what to unmap.
    used: AtomicBool,
    place: RwLock<Place>,
}

/// What stands at a path.
#[derive(Debug, Default)]
struct Place {
    file: Option<Arc<QueueFile>>,
    /// Which file was there whenever it was mapped.
    seen: Seen,
}

impl Segment {
    fn has_loss(&self) -> bool {
        self.place.read().file.as_ref().is_some_and(|file| file.check().is_err())
    }

    /// A file that exists, of the right length. It is not mapped yet.
    pub fn of(path: PathBuf, first: u64, entries: u64) -> Arc<Segment> {
        Segment::seen_as(Seen::default(), path, first, entries)
    }

    /// [`Segment::of`] for one that is known already.
    pub fn seen_as(seen: Seen, path: PathBuf, first: u64, entries: u64) -> Arc<Segment> {
        let used = AtomicBool::new(false);
        Arc::new(Segment { path, first, entries, used, place: RwLock::new(Place { file: None, seen }) })
    }

    /// What it is known by at the next start: see [`Seen::stamp`]. All that was put into it is on the disk, and nothing more is.
    pub fn stamp(&self, disk: &dyn Disk) -> Result<FileStamp, Unstamped> {
        let place = self.place.read();
        let is_changed = place.file.as_ref().is_some_and(|file| file.is_changed());
        place.seen.stamp(disk, &self.path, self.entries * ENTRY_LEN as u64, is_changed)
    }

    /// The file system that it was found on; `None` before it was mapped.
    pub fn device(&self) -> Option<u64> {
        self.place.read().seen.device()
    }

    /// Makes the file.
    pub fn create(
        mappings: &Mappings,
        disk: &dyn Disk,
        path: PathBuf,
        first: u64,
        entries: u64,
    ) -> io::Result<Arc<Segment>> {
        let segment = Segment::of(path, first, entries);
        let len = entries * ENTRY_LEN as u64;
        mappings.map(&segment, || WordFile::create_known(disk, segment.path.clone(), len))?;
        Ok(segment)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    /// Offset after the last entry that there is room for.
    pub fn end(&self) -> u64 {
        self.first + self.entries
    }

    /// The file, mapped for as long as somebody holds this.
    pub fn file(self: &Arc<Self>, mappings: &Mappings) -> io::Result<Arc<QueueFile>> {
        if let Some(file) = self.mapped() {
            return Ok(Arc::clone(&file));
        }
        mappings.map(self, || WordFile::open_known(&*mappings.disk, self.path.clone()))
    }

    /// [`Segment::file`] for a moment, if it is mapped; waits for nobody.
    pub fn mapped(&self) -> Option<MappedRwLockReadGuard<'_, Arc<QueueFile>>> {
        // Looked at first: one that is used all the time need not be written to all the time.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        RwLockReadGuard::try_map(self.place.try_read()?, |place| place.file.as_ref()).ok()
    }

    /// What is mapped of it, to be let go of. `None` when somebody is about to use it. Who holds the file already keeps it.
    fn take_file(&self) -> Option<Option<Arc<QueueFile>>> {
        let mut place = self.place.try_write()?;
        let file = place.file.take();
        if file.as_ref().is_some_and(|file| file.is_changed()) {
            place.seen.set_changed();
        }
        Some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;
    use crate::queue_file::QueueEntry;
    use ferromq_protocol::PhysicalOffset;

    fn mapped_in(dir: &Path) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(&*dir.to_string_lossy())).count()
    }

    #[test]
    fn what_is_used_least_is_unmapped() {
        const MAX: usize = 8;
        let dir = tempfile::tempdir().unwrap();
        let mappings = Mappings::new(Arc::new(LocalDisk), MAX);
        let entry = |n: u64| QueueEntry { physical: PhysicalOffset(n), len: 100, tags_code: 7 };
        let segments: Vec<_> = (0..50)
            .map(|n| {
                let segment = Segment::create(&mappings, &LocalDisk, dir.path().join(n.to_string()), 4, 4).unwrap();
                segment.file(&mappings).unwrap().put(5, &entry(n));
                assert!(mapped_in(dir.path()) <= MAX);
                segment
            })
            .collect();
        let held = segments[0].file(&mappings).unwrap();
        for _ in 0..3 {
            for (n, segment) in segments.iter().enumerate() {
                // The first is asked for all the time, and stays.
                assert!(Arc::ptr_eq(&held, &segments[0].file(&mappings).unwrap()));
                let file = segment.file(&mappings).unwrap();
                assert_eq!(file.entry(5), entry(n as u64));
                file.sync(&LocalDisk, 4..8).unwrap();
                assert!(mapped_in(dir.path()) <= MAX);
            }
        }
        drop((held, segments));
        mappings.shrink_below(0);
        assert_eq!((mapped_in(dir.path()), mappings.mapped.lock().len()), (0, 0));
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        std::fs::write(&path, [0; 60]).unwrap();
        assert!(Segment::of(path, 0, 4).file(&Mappings::new(Arc::new(LocalDisk), 4)).is_err());
    }
}
