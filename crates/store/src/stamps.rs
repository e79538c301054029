//! By what a start knows, without opening any of them, that the files of queues are as an orderly stop has left them.
//!
//! The list of queues (`inventory.rs`) says how far each goes. A stop notes beside it which file was there and when it was changed last; a
//! start that finds the same takes the queue from the list. Whatever differs, and any doubt, has the files of that queue opened and looked
//! at, as if there were no stamps. So a stamp is of a file that this process had open, or found as the stop before it did; never of one
//! that only stands in its place. A start takes the stamps away before it changes anything. Layout: docs/format.md, stamps.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferromq_protocol::QueueId;

use crate::consume_queue::{ConsumeQueue, QueueExtent};
use crate::disk::{CLOCK_STEP, Disk, FileState};
use crate::files;
use crate::inventory::{Inventory, ListedQueue, Listing, Remainder};
use crate::queue_file::ENTRY_LEN;
use crate::several::for_all;

const MAGIC: [u8; 8] = *b"FMQSTMP1";

/// How a file is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    inode: u64,
    changed_ns: i64,
}

impl FileStamp {
    pub fn of(state: &FileState) -> FileStamp {
        FileStamp { inode: state.inode, changed_ns: state.changed_ns }
    }
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstamped {
    /// It was changed just now: a change that follows may have the same time.
    Yet,
    /// It is not known, or not what it was.
    Unknown,
}

/// What a process knows of a file that it has open now and then.
#[derive(Clone, Copy, Debug, Default)]
pub enum Seen {
    /// Nothing: it was not opened yet.
    #[default]
    Nothing,
    /// It was not opened yet, and is what the stop before has left.
    Listed(FileStamp),
    Opened {
        device: u64,
        /// As it was when it was opened first.
        stamp: FileStamp,
        /// It was changed by this process since, or may have been by somebody in the moment before.
        is_outdated: bool,
    },
    /// Files that are not the same one.
    Others,
}

impl Seen {
    /// It was opened.
    pub fn note(&mut self, path: &Path, state: &FileState) {
        let stamp = FileStamp::of(state);
        let opened = |is_outdated| Seen::Opened { device: state.device, stamp, is_outdated };
        *self = match *self {
            Seen::Nothing => opened(!state.is_settled),
            Seen::Listed(listed) if listed == stamp => opened(false),
            same @ Seen::Opened { device, stamp: before, .. }
                if (device, before.inode) == (state.device, state.inode) =>
            {
                same
            }
            Seen::Others => Seen::Others,
            Seen::Listed(_) | Seen::Opened { .. } => {
                tracing::warn!(path = %path.display(), "somebody has changed or replaced a file of a queue in use; the next start looks at it");
                Seen::Others
            }
        };
    }

    /// This process has changed it.
    pub fn set_changed(&mut self) {
        if let Seen::Opened { is_outdated, .. } = self {
            *is_outdated = true;
        }
    }

    pub fn device(&self) -> Option<u64> {
        if let Seen::Opened { device, .. } = self { Some(*device) } else { None }
    }

    /// The stamp of the file of `len` bytes at its path: what it was like when it was opened, unless this process `has_changed` it since,
    /// so that whatever others do to it is found. All that was put into it is on the disk, and nothing more is.
    pub fn stamp(&self, disk: &dyn Disk, path: &Path, len: u64, has_changed: bool) -> Result<FileStamp, Unstamped> {
        let (device, before) = match *self {
            Seen::Nothing | Seen::Others => return Err(Unstamped::Unknown),
            Seen::Listed(stamp) => return Ok(stamp),
            Seen::Opened { stamp, is_outdated: false, .. } if !has_changed => return Ok(stamp),
            Seen::Opened { device, stamp, .. } => (device, stamp),
        };
        // One that cannot be looked at is gone, say: the next start will see.
        let state = disk.state(path).map_err(|_| Unstamped::Unknown)?;
        if (state.device, state.inode, state.len) != (device, before.inode, len) {
            return Err(Unstamped::Unknown);
        }
        if state.is_settled { Ok(FileStamp::of(&state)) } else { Err(Unstamped::Yet) }
    }
}

/// Of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStamps {
    /// Of the first entry that there is room for.
    pub first: u64,
    /// The first message is not before this place of the log.
    pub min_physical: u64,
    /// Of its files, which follow one another.
    pub files: Vec<FileStamp>,
}

impl QueueStamps {
    /// Whether they are of files that can have what is listed.
    fn fit(&self, listed: &ListedQueue, file_entries: u64) -> bool {
        let (QueueExtent { min, max, .. }, count) = (listed.extent, self.files.len() as u64);
        let end = count.checked_mul(file_entries).and_then(|entries| self.first.checked_add(entries));
        let Some(end) = end.filter(|end| end.checked_mul(ENTRY_LEN as u64).is_some()) else { return false };
        // The last file has the last entry, unless it is the only one.
        let is_end = max <= end && (count == 1 || count > 1 && max > end - file_entries);
        self.first.is_multiple_of(file_entries) && self.first <= min && min <= max && is_end
    }

    /// Whether all files, which are in `dir`, are what they were. None is opened.
    fn hold(&self, disk: &dyn Disk, dir: &Path, file_entries: u64) -> bool {
        let file_len = file_entries * ENTRY_LEN as u64;
        let starts = (0..).map(|file| self.first * ENTRY_LEN as u64 + file * file_len);
        starts.zip(&self.files).all(|(start, stamp)| {
            // One that is not there, or not to be seen, is looked for again, and said.
            let state = disk.state(&dir.join(files::segment_name(start)));
            state.is_ok_and(|state| FileStamp::of(&state) == *stamp && state.len == file_len)
        })
    }
}

/// The list that a stop has left.
#[derive(Debug)]
pub struct Stamped<'a> {
    listing: &'a Listing,
    /// Of each of its queues.
    stamps: Vec<Option<QueueStamps>>,
    file_entries: u64,
}

impl<'a> Stamped<'a> {
    /// Reads it, if there is one of the `inventory` that was found, and for files of so many entries.
    pub fn read(disk: &dyn Disk, root: &Path, inventory: &'a Inventory, file_entries: u64) -> Option<Stamped<'a>> {
        let path = path_in(root);
        let file = File::open(&path).ok()?;
        let bytes = files::read_whole(disk, &path, &file).inspect_err(|error| {
            tracing::warn!(%error, path = %path.display(), "the stamps of queue files cannot be read; all of these files are opened");
        });
        let listing = inventory.found();
        let stamps = parse(&bytes.ok()?, &header(inventory.found_as()?, file_entries), listing.queues.len());
        if stamps.is_none() {
            tracing::info!(path = %path.display(), "the stamps of queue files are damaged, or beside another list of queues; all of these files are opened");
        }
        Some(Stamped { listing, stamps: stamps?, file_entries })
    }

    /// Where the log began.
    pub fn log_min(&self) -> u64 {
        self.listing.log_min
    }

    /// The queue whose files are in `dir`, if they are as they were listed.
    pub fn find(
        &self,
        disk: &dyn Disk,
        topic: &str,
        id: QueueId,
        dir: &Path,
    ) -> Option<(&'a ListedQueue, &QueueStamps)> {
        let queues = &self.listing.queues;
        let at = queues.binary_search_by(|listed| (&*listed.topic, listed.id).cmp(&(topic, id))).ok()?;
        let (listed, stamps) = (&queues[at], self.stamps.get(at)?.as_ref()?);
        let holds = stamps.fit(listed, self.file_entries) && stamps.hold(disk, dir, self.file_entries);
        holds.then_some((listed, stamps))
    }
}

/// Where they are. Removed by a start before it changes anything: they hold for no other.
pub fn path_in(root: &Path) -> PathBuf {
    root.join("stamps")
}

/// Writes the stamps of the queues that the inventory lists, at a stop: all is on the disk, and nobody puts anything any more. Without
/// them the next start opens all files.
pub fn save(
    disk: &dyn Disk,
    root: &Path,
    queues_dir: &Path,
    inventory: &Inventory,
    listed: Vec<Arc<ConsumeQueue>>,
    file_entries: u64,
) -> io::Result<()> {
    let stamp = |queue: &Arc<ConsumeQueue>| queue.stamp(disk);
    let mut stamps = for_all(listed.iter().collect(), stamp);
    if stamps.contains(&Err(Unstamped::Yet)) {
        // What was changed last was so before this; at rest now, it has another time than any change that comes.
        std::thread::sleep(CLOCK_STEP);
        let again = |(queue, stamped)| if stamped == Err(Unstamped::Yet) { stamp(queue) } else { stamped };
        stamps = for_all(listed.iter().zip(stamps).collect(), again);
    }
    let Some(inventory) = inventory.written_as(disk)?.filter(|_| disk.dates_files(queues_dir)) else { return Ok(()) };
    let mut bytes = header(inventory, file_entries);
    let long = |bytes: &mut Vec<u8>, value: u64| bytes.extend_from_slice(&value.to_be_bytes());
    for stamped in stamps {
        let files = stamped.as_ref().map_or(&[][..], |stamps| &stamps.files);
        bytes.extend_from_slice(&u32::try_from(files.len()).map_err(io::Error::other)?.to_be_bytes());
        if let Ok(QueueStamps { first, min_physical, files }) = &stamped {
            long(&mut bytes, *first);
            long(&mut bytes, *min_physical);
            for file in files {
                long(&mut bytes, file.inode);
                long(&mut bytes, file.changed_ns.cast_unsigned());
            }
        }
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    files::replace(disk, &path_in(root), &bytes)
}

/// What is before the queues: which inventory they are listed in, and the setting of their files.
fn header((sum, inventory): (u32, FileStamp), file_entries: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&sum.to_be_bytes());
    for value in [inventory.inode, inventory.changed_ns.cast_unsigned(), file_entries] {
        bytes.extend_from_slice(&value.to_be_bytes());
    }
    bytes
}

/// Those of so many queues; `None` for bytes that are damaged or do not begin as expected.
fn parse(bytes: &[u8], header: &[u8], queues: usize) -> Option<Vec<Option<QueueStamps>>> {
    let (content, crc) = bytes.split_last_chunk()?;
    if crc32fast::hash(content) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut left = Remainder(content.strip_prefix(header)?);
    let mut stamps = Vec::new();
    while !left.0.is_empty() {
        let count = left.word()?;
        let mut of_queue = || {
            let (first, min_physical) = (left.long()?, left.long()?);
            let mut file = || Some(FileStamp { inode: left.long()?, changed_ns: left.long()?.cast_signed() });
            let files = (0..count).map(|_| file()).collect::<Option<Vec<_>>>()?;
            Some(QueueStamps { first, min_physical, files })
        };
        stamps.push(if count == 0 { None } else { Some(of_queue()?) });
    }
    (stamps.len() == queues).then_some(stamps)
}
