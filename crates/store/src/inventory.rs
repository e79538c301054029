//! The list of what there is beside the log's records: which queues and how far each goes, which files of the index, how each segment begins.
//!
//! Queues and index can be made again from the log, but nothing in them tells that one of them is missing: a queue whose directory somebody
//! removed looks like one that never had a message. So this list is written whenever all of them are on the disk, before the checkpoint
//! says so, and an open holds what it finds against it. One file for all, so that an open with many queues stays fast. A design of our
//! own, beside the checkpoint; Java's broker passes over it. Layout: docs/format.md, inventory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::QueueId;
use ferromq_protocol::message::Record;
use parking_lot::Mutex;

use crate::checkpoint::{Checkpoint, CheckpointContent};
use crate::consume_queue::{ConsumeQueue, QueueExtent};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::files;
use crate::index::IndexExtent;
use crate::mapped_file::LogFile;
use crate::projection::Projection;
use crate::segments::{Segments, stated_len};
use crate::stamps::FileStamp;
use crate::timer_checkpoint;

const MAGIC: [u8; 8] = *b"FMQLIST1";
/// Bytes of a segment by which it is known again: its first record up to the bodies' host. Two halves, so that a flipped bit is not
/// taken for another file.
const HEAD_LEN: usize = 64;
/// Of the first half: length, magic and CRC of the first record.
const HALF: usize = 12;

/// By what other files of a store know whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreId(pub u64);

/// What a list says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Of the store: the checkpoint has it too.
    id: u64,
    /// Where the log began, and up to where it was on the disk.
    pub log_min: u64,
    pub log_end: u64,
    pub queues: Vec<ListedQueue>,
    /// `None` without an index.
    pub index: Option<Vec<IndexExtent>>,
    /// Per segment, by its first byte.
    heads: BTreeMap<u64, [u32; 2]>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct ListedQueue {
    pub topic: Arc<str>,
    pub id: QueueId,
    pub extent: QueueExtent,
}

/// The file, and what it said when the store was opened.
#[derive(Debug)]
pub struct Inventory {
    path: PathBuf,
    id: StoreId,
    found: Listing,
    /// By what its file is known, if it was believed.
    found_as: Option<(u32, FileStamp)>,
    /// There must be a list, and there is none that can be read.
    lost: bool,
    /// Of the segments that have been looked at.
    heads: Mutex<BTreeMap<u64, [u32; 2]>>,
    /// [`sum_of`] what was written last.
    written: AtomicU64,
    failing: AtomicBool,
}

/// What tells lists from one another: the CRC that they end with. One over all of their bytes would cover that too, and then has no more
/// than 65,536 values.
fn sum_of(list: &[u8]) -> u32 {
    list.last_chunk().map_or(0, |crc| u32::from_be_bytes(*crc))
}

/// Of nothing; no CRC.
const NOT_WRITTEN: u64 = u64::MAX;

impl Inventory {
    /// Reads the list. What a Java broker has worked on since is not held against it.
    pub fn open(disk: &dyn Disk, root: &Path, checkpoint: &Checkpoint) -> Result<Inventory, OpenError> {
        let path = path_in(root);
        if path.is_dir() {
            files::set_aside(disk, root, &path, "a directory in place of the list of queues")
                .map_err(OpenError::io("open", &path))?;
        }
        let (named, known) = (checkpoint.inventory(), checkpoint.store());
        let file = match read(disk, &path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(OpenError::io("read", &path)(error)),
        };
        let listing = file.as_ref().and_then(|(bytes, _)| Listing::parse(bytes));
        let by_java = matches!(checkpoint.told(), CheckpointContent::Times);
        let of_another = listing.as_ref().zip(known).is_some_and(|(listing, id)| listing.id != id);
        if of_another && !by_java {
            tracing::error!(path = %path.display(), checkpoint = %checkpoint.path().display(), "one of these two is another store's: neither is believed");
            checkpoint.disbelieve();
        }
        let must_be = named.is_some() || checkpoint.told() == CheckpointContent::Nothing || file.is_some();
        let listed = listing.as_ref().map(|listing| listing.id);
        let listing = listing.filter(|_| !of_another);
        let lost = listing.is_none() && must_be && !by_java;
        let timers = || timer_checkpoint::owner(&root.join("timers"));
        // Of two the timers say which is right, which would all come again under another id; where both are gone, they know it still.
        let id = if of_another {
            timers().filter(|id| [known, listed].contains(&Some(*id)))
        } else {
            known.or(listed).or_else(timers)
        };
        let id = StoreId(id.unwrap_or_else(new_id));
        let listing = listing.filter(|_| !by_java);
        let found_as = listing.as_ref().and(file).map(|(bytes, stamp)| (sum_of(&bytes), stamp));
        let found = listing.unwrap_or_default();
        let (heads, written, failing) = (Mutex::default(), AtomicU64::new(NOT_WRITTEN), AtomicBool::new(false));
        Ok(Inventory { path, id, found, found_as, lost, heads, written, failing })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Nothing is listed any more: the file is about to go.
    pub fn begin_anew(&self) {
        self.heads.lock().clear();
        self.written.store(NOT_WRITTEN, Ordering::Release);
    }

    pub fn found(&self) -> &Listing {
        &self.found
    }

    /// The sum and the stamp of the file that was found, if it is believed.
    pub fn found_as(&self) -> Option<(u32, FileStamp)> {
        self.found_as
    }

    /// The same of the file that was written last, if one is there.
    pub fn written_as(&self, disk: &dyn Disk) -> io::Result<Option<(u32, FileStamp)>> {
        let sum = u32::try_from(self.written.load(Ordering::Acquire)).ok();
        sum.map(|sum| Ok((sum, FileStamp::of(&disk.state(&self.path)?)))).transpose()
    }

    /// Whether there had to be a list, and is none that can be read: then any queue may be missing.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether each segment begins as it did. One that begins otherwise, and with a whole record, is another file: the open ends here,
    /// with nothing changed.
    pub fn check_segments(
        &self,
        disk: &dyn Disk,
        segments: &Segments,
        checkpoint: &Checkpoint,
    ) -> Result<(), OpenError> {
        // What was deleted from the log is known there.
        let begin = checkpoint.found_begin().unwrap_or(0).max(self.found.log_min);
        let knows_begin = self.found.log_end > 0 || checkpoint.found_begin().is_some();
        if let Some(first) = segments.first().filter(|first| knows_begin && first.start() > begin) {
            let path = first.path().with_file_name(files::segment_name(begin));
            let count = (first.start() - begin).div_ceil(first.len() as u64);
            tracing::warn!(path = %path.display(), count, "the first files of the commit log are gone since the store was open: so are their messages");
        }
        for file in segments.all() {
            let Some(head) = read_head(disk, &file).map_err(OpenError::io("read", file.path()))? else { continue };
            let other =
                |stated: String| OpenError::OtherFile { path: file.path().to_owned(), stated, len: file.len() as u64 };
            let halves = halves(&head);
            let known = self.found.heads.get(&file.start());
            let is_known = known.is_some_and(|known| known[0] == halves[0] || known[1] == halves[1]);
            let whole = |stated| is_whole(disk, &file, stated).map_err(OpenError::io("read", file.path()));
            if let Some(stated) = stated_place(&head)
                && !is_known
            {
                let elsewhere = stated != file.start();
                // Where nothing is known of it, a flipped bit is damage.
                let of_another = stated.is_multiple_of(file.len() as u64) && (stated ^ file.start()).count_ones() > 1;
                if (known.is_some() || elsewhere && of_another) && whole(stated)? {
                    return Err(other(if elsewhere {
                        format!("its first message says that it is at {stated}")
                    } else {
                        "its first message is not the one that was there".to_owned()
                    }));
                }
            }
            self.heads.lock().insert(file.start(), halves);
        }
        Ok(())
    }

    /// Writes the list of what is there, if it is another than before: `index` as it was before it was synced. All of it must be on the
    /// disk. A list that cannot be written is removed, and the next start does without one. Gives the queues in the order of the list.
    pub fn save(
        &self,
        projection: &Projection,
        segments: &Segments,
        checkpoint: &Checkpoint,
        log_end: u64,
        index: Option<Vec<IndexExtent>>,
    ) -> io::Result<Vec<Arc<ConsumeQueue>>> {
        let disk = &*projection.disk;
        let mut queues: Vec<_> =
            projection.queues.all().iter().filter(|queue| queue.noted().max > 0).cloned().collect();
        queues.sort_unstable_by(|a, b| (a.topic(), a.id()).cmp(&(b.topic(), b.id())));
        let extents = queues.iter().map(|queue| (queue.topic(), queue.id(), queue.noted()));
        let heads = self.heads_of(disk, segments, log_end);
        // Until all queues have followed the log's beginning, some may list what went with it.
        let log_min = projection.queues.log_begins_at();
        self.write(disk, checkpoint, &encode(self.id.0, log_min, log_end, extents, index.as_deref(), &heads))?;
        Ok(queues)
    }

    /// Nothing is listed any more: the log is about to become shorter.
    pub fn clear(&self, disk: &dyn Disk, checkpoint: &Checkpoint) -> io::Result<()> {
        self.heads.lock().clear();
        self.write(disk, checkpoint, &encode(self.id.0, 0, 0, std::iter::empty(), None, &BTreeMap::new()))
    }

    fn write(&self, disk: &dyn Disk, checkpoint: &Checkpoint, bytes: &[u8]) -> io::Result<()> {
        let crc = u64::from(sum_of(bytes));
        if self.written.load(Ordering::Acquire) == crc {
            return Ok(());
        }
        match files::replace(disk, &self.path, bytes) {
            Ok(()) => {
                self.written.store(crc, Ordering::Release);
                checkpoint.inventory_is(true, self.id.0);
                if self.failing.swap(false, Ordering::AcqRel) {
                    tracing::info!(path = %self.path.display(), "the list of queues is written again");
                }
            }
            Err(error) => {
                self.written.store(NOT_WRITTEN, Ordering::Release);
                if !self.failing.swap(true, Ordering::AcqRel) {
                    tracing::warn!(%error, path = %self.path.display(), "the list of queues cannot be written: until it is, a start does not notice when a queue is missing");
                }
                // An old one would say what is not so any more; nor may a power cut bring it back.
                files::remove_file(disk, &self.path)?;
                disk.sync_dir(self.path.parent().unwrap_or(Path::new(".")))?;
                checkpoint.inventory_is(false, self.id.0);
            }
        }
        Ok(())
    }

    /// How the segments begin whose first record is on the disk.
    fn heads_of(&self, disk: &dyn Disk, segments: &Segments, log_end: u64) -> BTreeMap<u64, [u32; 2]> {
        let mut known = self.heads.lock();
        let files = segments.all();
        let first = files.first().map_or(0, |file| file.start());
        let is_there = |start: u64| start >= first && start + HEAD_LEN as u64 <= log_end;
        known.retain(|start, _| is_there(*start));
        for file in files.iter().filter(|file| is_there(file.start())) {
            if let std::collections::btree_map::Entry::Vacant(unknown) = known.entry(file.start()) {
                // What cannot be read is not listed, and so not checked.
                if let Ok(Some(head)) = read_head(disk, file) {
                    unknown.insert(halves(&head));
                }
            }
        }
        known.clone()
    }
}

pub fn path_in(root: &Path) -> PathBuf {
    root.join("inventory")
}

/// One that no other store has; 0 is none.
fn new_id() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    (std::hash::RandomState::new().build_hasher().finish() >> 1).max(1)
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<(Vec<u8>, FileStamp)> {
    let file = File::open(path)?;
    let stamp = FileStamp::of(&disk.state_of(path, &file)?);
    Ok((files::read_whole(disk, path, &file)?, stamp))
}

/// The first bytes of a segment; `None` where nothing was written yet.
fn read_head(disk: &dyn Disk, file: &LogFile) -> io::Result<Option<[u8; HEAD_LEN]>> {
    let mut head = [0; HEAD_LEN];
    disk.read(file.path(), &File::open(file.path())?, &mut head, 0)?;
    Ok((head != [0; HEAD_LEN]).then_some(head))
}

/// Whether a whole record stands at the start of a file, and says that its place is `stated`.
fn is_whole(disk: &dyn Disk, file: &LogFile, stated: u64) -> io::Result<bool> {
    let open = File::open(file.path())?;
    let mut head = [0; HEAD_LEN];
    disk.read(file.path(), &open, &mut head, 0)?;
    let Some(len) = stated_len(&head, stated).filter(|len| *len <= file.len()) else {
        return Ok(false);
    };
    let mut bytes = vec![0; len];
    disk.read(file.path(), &open, &mut bytes, 0)?;
    Ok(Record::parse(&bytes).is_ok_and(|record| record.check_crc().is_ok()))
}

fn halves(head: &[u8; HEAD_LEN]) -> [u32; 2] {
    [crc32fast::hash(&head[..HALF]), crc32fast::hash(&head[HALF..])]
}

/// Where the record at the start of `head` says that it is, if it is one.
fn stated_place(head: &[u8; HEAD_LEN]) -> Option<u64> {
    let stated = u64::from_be_bytes(*head.get(28..)?.first_chunk()?);
    Record::head_at(head, PhysicalOffset(stated)).map(|_| stated)
}

fn encode<'a>(
    id: u64,
    log_min: u64,
    log_end: u64,
    queues: impl Iterator<Item = (&'a str, QueueId, QueueExtent)>,
    index: Option<&[IndexExtent]>,
    heads: &BTreeMap<u64, [u32; 2]>,
) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let long = |bytes: &mut Vec<u8>, value: u64| bytes.extend_from_slice(&value.to_be_bytes());
    long(&mut bytes, id);
    long(&mut bytes, log_min);
    long(&mut bytes, log_end);
    long(&mut bytes, heads.len() as u64);
    for (start, halves) in heads {
        long(&mut bytes, *start);
        halves.iter().for_each(|half| bytes.extend_from_slice(&half.to_be_bytes()));
    }
    long(&mut bytes, index.map_or(u64::MAX, |files| files.len() as u64));
    for file in index.unwrap_or_default() {
        long(&mut bytes, file.number);
        long(&mut bytes, u64::from(file.next));
        long(&mut bytes, file.end_physical);
        [file.begin_timestamp, file.end_timestamp].into_iter().for_each(|time| long(&mut bytes, time.cast_unsigned()));
    }
    for (topic, id, extent) in queues {
        bytes.extend_from_slice(&id.0.to_be_bytes());
        [extent.min, extent.max, extent.end].into_iter().for_each(|value| long(&mut bytes, value));
        // A directory's name.
        bytes.extend_from_slice(&u16::try_from(topic.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend_from_slice(topic.as_bytes());
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

impl Listing {
    /// `None` when anything in it is damaged.
    fn parse(bytes: &[u8]) -> Option<Listing> {
        let (content, crc) = bytes.split_last_chunk()?;
        if crc32fast::hash(content) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut left = Remainder(content.strip_prefix(&MAGIC)?);
        let mut listing =
            Listing { id: left.long()?, log_min: left.long()?, log_end: left.long()?, ..Listing::default() };
        for _ in 0..left.long()? {
            listing.heads.insert(left.long()?, [left.word()?, left.word()?]);
        }
        let index_files = left.long()?;
        if index_files != u64::MAX {
            let mut files = Vec::new();
            for _ in 0..index_files {
                let (number, next) = (left.long()?, u32::try_from(left.long()?).ok()?);
                let end_physical = left.long()?;
                let (begin_timestamp, end_timestamp) = (left.long()?.cast_signed(), left.long()?.cast_signed());
                files.push(IndexExtent { number, next, end_physical, begin_timestamp, end_timestamp });
            }
            listing.index = Some(files);
        }
        while !left.0.is_empty() {
            let id = QueueId(left.word()?);
            let extent = QueueExtent { min: left.long()?, max: left.long()?, end: left.long()? };
            let len = u16::from_be_bytes(*left.take::<2>()?);
            let (topic, rest) = left.0.split_at_checked(len.into())?;
            left.0 = rest;
            let topic = std::str::from_utf8(topic).ok()?;
            let before = listing.queues.last().map(|before| &before.topic).filter(|before| &***before == topic);
            let topic = before.map_or_else(|| topic.into(), Arc::clone);
            listing.queues.push(ListedQueue { topic, id, extent });
        }
        Some(listing)
    }
}

/// What is not read yet.
pub struct Remainder<'a>(pub &'a [u8]);

impl<'a> Remainder<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }

    pub fn long(&mut self) -> Option<u64> {
        self.take().map(|bytes| u64::from_be_bytes(*bytes))
    }

    pub fn word(&mut self) -> Option<u32> {
        self.take().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted_disk::{Fault, ScriptedDisk};

    #[test]
    fn a_list_that_could_not_be_replaced_does_not_come_back() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), ScriptedDisk::default());
        let root = dir.path().join("store");
        std::fs::create_dir(&root).unwrap();
        let checkpoint = Checkpoint::open(root.join("checkpoint")).unwrap();
        let inventory = Inventory::open(&disk, &root, &checkpoint).unwrap();
        let list = |log_end| encode(1, 0, log_end, std::iter::empty(), None, &BTreeMap::new());
        inventory.write(&disk, &checkpoint, &list(100)).unwrap();
        assert!(checkpoint.inventory().is_some());
        disk.all_is_synced(dir.path());
        // There is no room for the next one.
        disk.fail(Fault { after: 0, count: 1, errno: libc::ENOSPC, only_syncs: false });
        inventory.write(&disk, &checkpoint, &list(200)).unwrap();
        assert_eq!(checkpoint.inventory(), None, "and the checkpoint may go on without");
        disk.power_loss(dir.path(), || true);
        assert!(!inventory.path().exists());
    }

    /// A list that seems to be there already is not written.
    #[test]
    fn lists_that_differ_are_told_from_one_another() {
        let sums =
            (0..70_000).map(|log_end| sum_of(&encode(9, 0, log_end, std::iter::empty(), None, &BTreeMap::new())));
        assert_eq!(sums.collect::<std::collections::BTreeSet<_>>().len(), 70_000);
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_found() {
        let extent = |n: u64| QueueExtent { min: n, max: n + 10, end: n * 1000 };
        let index = vec![IndexExtent {
            number: 20_261_121_001_755_541,
            next: 7,
            end_physical: 700,
            begin_timestamp: 5,
            end_timestamp: 6,
        }];
        let heads = BTreeMap::from([(0, [1, 2]), (4096, [3, 4])]);
        let queues = [("T", QueueId(0), extent(1)), ("%RETRY%g", QueueId(7), extent(2))];
        for index in [Some(index), Some(Vec::new()), None] {
            let bytes = encode(9, 5, 4200, queues.into_iter(), index.as_deref(), &heads);
            let listed = queues.map(|(topic, id, extent)| ListedQueue { topic: topic.into(), id, extent });
            let expected =
                Listing { id: 9, log_min: 5, log_end: 4200, queues: listed.into(), index, heads: heads.clone() };
            assert_eq!(Listing::parse(&bytes), Some(expected));
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 0x20;
                assert_eq!(Listing::parse(&bad), None, "byte {at}");
                assert_eq!(Listing::parse(&bytes[..at]), None, "cut at {at}");
            }
        }
    }
}
