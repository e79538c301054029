//! The index over all its files: entries by dispatch, queries by key and time.
//!
//! Java: IndexService.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::properties;
use ferromq_protocol::message::tags::index_key_hash;
use ferromq_protocol::message::{Record, TransactionKind};
use parking_lot::{Mutex, RwLock};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::entry_properties::EntryProperties;
use crate::error::OpenError;
use crate::files;
use crate::index_file::{IndexFile, IndexShape, KeyQuery, QueryVerdict, Steps};
use crate::looking::{Look, ReadError};
use crate::segments::Segments;

/// Messages with a key, as stored.
#[derive(Clone, Debug, Default)]
pub struct QueryOutcome {
    /// Whole records, oldest first.
    pub messages: Vec<Bytes>,
    /// Store time and physical offset of the newest entry of the index, whatever its key; 0 when nothing was found,
    /// as in Java.
    pub last_update_timestamp: i64,
    pub last_update_offset: PhysicalOffset,
    /// There was more to look through than one query may; older messages may be missing.
    pub cut_short: bool,
}

/// What is known of how far the index is on the disk.
#[derive(Clone, Copy, Debug)]
pub enum DurableExtent {
    /// The entries of records before this place in the log.
    Position(u64),
    /// Those of records stored before this time, in milliseconds; all that Java's checkpoint says.
    Time(i64),
}

impl DurableExtent {
    fn covers(self, file: &IndexFile) -> bool {
        match self {
            DurableExtent::Position(position) => file.end_physical() < position,
            // Strictly before: messages of that very millisecond may have come after the sync.
            DurableExtent::Time(time) => file.end_timestamp() < time,
        }
    }
}

/// What is to be done with the index after a crash.
#[derive(Debug)]
pub struct Repair {
    /// Files, and the first of their entries that goes.
    cuts: Vec<(Arc<IndexFile>, u32)>,
    /// So many files stay.
    files: usize,
    /// The physical offset from which messages have to be put again, as far as the files tell; those before it are indexed whole.
    pub resume: u64,
    /// Entries of records before the end asked for are damaged: what follows them goes with them.
    pub broken: bool,
}

/// More entries than any file has.
const DAMAGED: u32 = u32::MAX;

/// What a file has: entries before number `next`, the last of them of a record at `end_physical`; as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexExtent {
    /// Its name.
    pub number: u64,
    pub next: u32,
    pub end_physical: u64,
    pub begin_timestamp: i64,
    pub end_timestamp: i64,
}

impl IndexExtent {
    fn of(file: &IndexFile) -> IndexExtent {
        let name = file.path().file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.parse().ok()).unwrap_or_default();
        IndexExtent {
            number,
            // One that is damaged is made again by the next start, to which it has less than this.
            next: if file.is_damaged() { DAMAGED } else { file.next_entry() },
            end_physical: file.end_physical(),
            begin_timestamp: file.begin_timestamp(),
            end_timestamp: file.end_timestamp(),
        }
    }

    /// Whether both are of one file with as many entries. One that was cut off there knows the time of its last entry to the second only.
    fn is_of_file(&self, other: &IndexExtent) -> bool {
        IndexExtent { end_timestamp: other.end_timestamp, ..*self } == *other
    }
}

impl Repair {
    pub fn leaves_nothing(&self) -> bool {
        self.files == 0
    }
}

#[derive(Debug)]
pub struct Index {
    dir: PathBuf,
    shape: IndexShape,
    clock: Clock,
    /// By name, which is by age.
    files: RwLock<Vec<Arc<IndexFile>>>,
    /// What an open has found and cannot use, and whether it may be something else than an index file.
    unfit: Mutex<Vec<(PathBuf, bool)>>,
    damaged: AtomicBool,
    /// Made ahead: making one takes milliseconds, which the thread that fills the last one up does not have.
    next: Mutex<Option<IndexFile>>,
}

impl Index {
    /// Opens what is on the disk, and holds it against what is `listed`: from the first file on that is damaged or missing nothing is used,
    /// see [`Index::is_damaged`]. Files whose messages are all before `needed.start` may be gone, and so may what messages at or behind
    /// `needed.end` have: those are indexed again whatever there is, and a start before this one may have got no further than to take
    /// out what they had. A file that had both, and others before it, is noticed as missing too. A last file that was never made whole is
    /// removed; its messages are indexed again.
    pub fn open(
        dir: PathBuf,
        shape: IndexShape,
        clock: Clock,
        listed: Option<&[IndexExtent]>,
        needed: Range<u64>,
    ) -> Result<Index, OpenError> {
        let mut found = Vec::new();
        let number_of = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok());
        let dirs = files::list_dirs(&dir)?.into_iter().filter(|path| number_of(path).is_some());
        let mut unfit: Vec<_> = dirs.map(|path| (path, true)).collect();
        for path in files::list_files(&dir)? {
            let Some(number) = number_of(&path) else {
                tracing::warn!(path = %path.display(), "no index file; passed over");
                continue;
            };
            let len = path.metadata().map_err(OpenError::io("look at", &path))?.len();
            found.push((number, path, len));
        }
        found.sort();
        let expected = shape.file_len();
        if let Some((_, path, len)) = other_setting(&found, expected) {
            let (path, found, key) = (path.clone(), *len, "maxHashSlotNum and maxIndexNum");
            return Err(OpenError::FileLength { path, found, expected, key });
        }
        let mut index_files: Vec<Arc<IndexFile>> = Vec::new();
        let last = found.len().saturating_sub(1);
        let mut damaged_from = None;
        for (at, (number, path, len)) in found.into_iter().enumerate() {
            let mut never_whole = at == last && len < expected;
            if len == expected && damaged_from.is_none() {
                let file = IndexFile::open(path.clone(), shape).map_err(OpenError::io("map", &path))?;
                // Made ahead by a process that was killed. Left here it would pass for the file to go on in, and the one before
                // it for one that lost entries.
                never_whole = at == last && file.is_unused();
                if !never_whole {
                    index_files.push(Arc::new(file));
                }
            } else if !never_whole {
                damaged_from = Some(number);
                unfit.push((path.clone(), len != expected));
            }
            if never_whole {
                tracing::info!(path = %path.display(), len, "removed an index file that nothing was ever put into");
                std::fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
            }
        }
        // Each of those listed must be there, and what it had.
        let lacks = |listed: &&IndexExtent| {
            let found = index_files.iter().map(|file| IndexExtent::of(file)).find(|file| file.number == listed.number);
            found.map_or(listed.end_physical >= needed.start && listed.next > 1, |found| {
                found.next < listed.next || found.next == listed.next && !found.is_of_file(listed)
            })
        };
        let listed = listed.unwrap_or_default();
        let vouched = |listed: &&IndexExtent| listed.end_physical < needed.end || listed.next == DAMAGED;
        let lacking = listed.iter().filter(vouched).find(lacks).map(|listed| listed.number);
        // The first of the others may have had entries from before `needed.end`, too. Whether that start took them away, or somebody
        // else, cannot be told: they are indexed again.
        let across = listed.iter().find(|listed| !vouched(listed)).filter(lacks).map(|listed| listed.number);
        if let Some(number) = lacking {
            tracing::error!(dir = %dir.display(), file = number, "an index file is missing or has lost entries");
            let keep = index_files.partition_point(|file| IndexExtent::of(file).number < number);
            unfit.extend(index_files.drain(keep..).map(|file| (file.path().to_owned(), false)));
        }
        if let Some(number) = across {
            tracing::info!(dir = %dir.display(), file = number, "an index file is missing or has less than was listed: messages are indexed again from the last entry on");
        }
        let damaged = AtomicBool::new(lacking.is_some() || across.is_some() || damaged_from.is_some());
        let (files, unfit) = (RwLock::new(index_files), Mutex::new(unfit));
        Ok(Index { dir, shape, clock, files, unfit, damaged, next: Mutex::default() })
    }

    /// Whether files could not be used, or have less than was listed: messages from [`Index::whole_up_to`] on are to be indexed again.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// Nothing of it is used: any of its files may be missing.
    pub fn drop_all(&self) {
        let mut unfit = self.unfit.lock();
        unfit.extend(self.files.write().drain(..).map(|file| (file.path().to_owned(), false)));
        self.damaged.store(true, Ordering::Release);
    }

    /// It has nothing any more; its files are about to go. Who is looking through one keeps it. One may be made ahead meanwhile: see
    /// [`Index::discard`].
    pub fn forget_all(&self) {
        self.files.write().clear();
        self.damaged.store(false, Ordering::Release);
    }

    /// Of a damaged index: messages before this place in the log are indexed. The last message of a file may have had other keys in the
    /// next one.
    pub fn whole_up_to(&self) -> u64 {
        self.resume_at().saturating_sub(1)
    }

    /// Makes room for what is made in place of what could not be used.
    pub fn set_unfit_aside(&self, disk: &dyn Disk, root: &Path) -> io::Result<()> {
        for (path, is_strange) in std::mem::take(&mut *self.unfit.lock()) {
            if is_strange {
                files::set_aside(disk, root, &path, "an index file that has not the length of one")?;
            } else {
                tracing::warn!(path = %path.display(), "index file removed; its messages are indexed again");
                files::remove_file(disk, &path)?;
            }
        }
        disk.sync_dir(&self.dir)
    }

    /// What the files have in them, for the list that is written when all of it is on the disk.
    pub fn extents(&self) -> Vec<IndexExtent> {
        self.files.read().iter().map(|file| IndexExtent::of(file)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.files.read().is_empty()
    }

    /// Where indexing goes on after a clean stop: behind the last message that has an entry.
    pub fn resume_at(&self) -> u64 {
        self.files.read().iter().rev().find(|file| !file.is_empty()).map_or(0, |file| file.end_physical() + 1)
    }

    /// After a crash: looks at the files not known to be on the disk, for what is damaged and what lies at or beyond `end`. Changes
    /// nothing: see [`Index::repair`].
    pub fn check(&self, durable: DurableExtent, end: u64, record_at: &dyn Fn(u64) -> Option<Bytes>) -> Repair {
        self.check_entries(durable, end, &|physical, hash| {
            // What is gone from the log has been on the disk for long.
            record_at(physical).is_none_or(|bytes| has_hash(&bytes, hash))
        })
    }

    /// Takes out what lies at or beyond `log_end`, which became the end of the log.
    pub fn truncate(&self, disk: &dyn Disk, log_end: u64) -> io::Result<()> {
        if self.resume_at() > log_end {
            self.repair(disk, &self.check_entries(DurableExtent::Position(u64::MAX), log_end, &|_, _| true))?;
        }
        Ok(())
    }

    fn check_entries(&self, durable: DurableExtent, log_end: u64, belongs: &dyn Fn(u64, u32) -> bool) -> Repair {
        // Without a place it is not known whether the last message has all its entries.
        let cut_last = matches!(durable, DurableExtent::Time(_));
        let files = self.files.read();
        let mut repair = Repair { cuts: Vec::new(), files: files.len(), resume: 0, broken: false };
        for (at, file) in files.iter().enumerate() {
            let last = at + 1 == files.len();
            // A file that is followed by another is full; one that says otherwise has lost its header.
            let durable = file.is_full() && durable.covers(file) && file.ends_as_stated();
            if !last && durable && file.end_physical() < log_end {
                repair.resume = file.end_physical() + 1;
                continue;
            }
            let checked = file.check(log_end, cut_last && last, belongs);
            repair.broken |= checked.broken;
            repair.cuts.push((Arc::clone(file), checked.next));
            if checked.next == 1 {
                // The last message of the file before may have had its other keys in this one.
                repair.resume = repair.resume.saturating_sub(1);
                repair.files = at;
                break;
            }
            repair.resume = checked.last_physical + 1;
            let sealed = checked.whole && file.is_full_before(checked.next);
            if !last && !sealed {
                repair.resume -= 1;
                repair.files = at + 1;
                break;
            }
        }
        repair.broken |= files[repair.files..].iter().any(|file| file.has_entry_before(log_end, 1));
        repair
    }

    /// Cuts what is damaged, and removes files that hold nothing any more.
    pub fn repair(&self, disk: &dyn Disk, repair: &Repair) -> io::Result<()> {
        for (file, next) in &repair.cuts {
            file.keep_before(disk, *next)?;
        }
        let mut files = self.files.write();
        let removed = repair.files < files.len();
        for file in files.drain(repair.files..) {
            tracing::warn!(path = %file.path().display(), "index file removed; its messages are indexed again");
            files::remove_file(disk, file.path())?;
        }
        if removed { disk.sync_dir(&self.dir) } else { Ok(()) }
    }

    /// Indexes a message: its unique key and each of its keys, unless it is a rollback. Java: IndexService.buildIndex.
    pub fn put(
        &self,
        disk: &dyn Disk,
        record: &Record<'_>,
        properties: &EntryProperties<'_>,
        physical: u64,
    ) -> io::Result<()> {
        if record.sys_flag().transaction() == TransactionKind::Rollback {
            return Ok(());
        }
        for key in keys_of(properties) {
            self.put_key(disk, record.topic(), key, physical, record.store_timestamp())?;
        }
        Ok(())
    }

    fn put_key(&self, disk: &dyn Disk, topic: &str, key: &str, physical: u64, store_timestamp: i64) -> io::Result<()> {
        let last = self.files.read().last().cloned();
        if let Some(file) = &last
            && file.put(disk, topic, key, physical, store_timestamp)?
        {
            return Ok(());
        }
        let made = self.next.lock().take();
        let file = match made {
            Some(file) => file,
            None => self.make_file(disk, last.as_deref())?,
        };
        if let Some(last) = &last {
            file.follow(last);
        }
        let file = Arc::new(file);
        // Its first entries have room since it was made.
        file.put(disk, topic, key, physical, store_timestamp)?;
        self.files.write().push(file);
        Ok(())
    }

    fn make_file(&self, disk: &dyn Disk, before: Option<&IndexFile>) -> io::Result<IndexFile> {
        files::make_dir(disk, &self.dir)?;
        let name_before = before
            .and_then(|file| file.path().file_name().and_then(|name| name.to_str()))
            .and_then(|name| name.parse::<u64>().ok());
        let name = file_name(self.clock.now_ms(), name_before);
        let path = self.dir.join(name);
        // Nobody else has files here: what is at its path came of an attempt that failed.
        files::remove_file(disk, &path)?;
        let file = IndexFile::create(disk, path, self.shape)?;
        disk.sync_dir(&self.dir).inspect_err(|_| {
            // Empty, and in the middle of those that come, it would pass for one that was lost.
            if let Err(error) = files::remove_file(disk, file.path()) {
                tracing::warn!(path = %file.path().display(), %error, "an index file that is not used stays behind");
            }
        })?;
        Ok(file)
    }

    /// Readies what puts will soon need: the pages ahead of the last entry, and the next file. To be called now and then, by
    /// another thread than the one that puts.
    pub fn prepare(&self, disk: &dyn Disk) {
        let Some(last) = self.files.read().last().cloned() else { return };
        last.map_ahead(disk);
        let mut next = self.next.lock();
        if next.is_none() && last.is_nearly_full() && !last.is_full() {
            // Whoever puts makes it then, and reports the error.
            *next = self.make_file(disk, Some(&last)).inspect(|file| file.map_ahead(disk)).ok();
        }
    }

    /// Removes the file that was made ahead and is not needed.
    pub fn discard(&self, disk: &dyn Disk) -> io::Result<()> {
        match self.next.lock().take() {
            Some(file) => files::remove_file(disk, file.path()),
            None => Ok(()),
        }
    }

    /// Makes all entries durable.
    pub fn sync(&self, disk: &dyn Disk) -> io::Result<()> {
        let files = self.files.read().clone();
        files.iter().try_for_each(|file| file.sync(disk))
    }

    /// Removes the files whose entries are all of records before `log_min`, where the log begins now, but for the last. While nobody
    /// truncates the log. Java: deleteExpiredFile.
    pub fn forget_before(&self, disk: &dyn Disk, look: &Look<'_>, log_min: u64) -> io::Result<()> {
        let known = self.files.read().clone();
        let mut gone = 0;
        for file in known.iter().take(known.len().saturating_sub(1)) {
            file.look_at_header(look).map_err(io::Error::other)?;
            if file.end_physical() >= log_min {
                break;
            }
            gone += 1;
        }
        if gone == 0 {
            return Ok(());
        }
        // One that stays is tried again.
        known[..gone].iter().try_for_each(|file| files::remove_file(disk, file.path()))?;
        disk.sync_dir(&self.dir)?;
        // Who is looking through one of them keeps it.
        self.files.write().drain(..gone);
        Ok(())
    }

    /// Goes through the entries with the key's hash, newest first, until `admit` has taken enough; true if it ended too early.
    fn find(
        &self,
        look: &Look<'_>,
        sought: &KeyQuery<'_>,
        admit: &mut dyn FnMut(u64) -> Result<QueryVerdict, ReadError>,
    ) -> Result<bool, ReadError> {
        let files = self.files.read().clone();
        let mut found = Vec::new();
        let mut steps = Steps::new();
        for file in files.iter().rev() {
            file.look_at_header(look)?;
            if file.overlaps(sought.begin, sought.end) {
                file.find(look, sought, &mut steps, &mut found, admit)?;
            }
            let before = !file.is_empty() && file.begin_timestamp() < sought.begin;
            if before || found.len() >= sought.max || steps.used_up {
                break;
            }
        }
        Ok(steps.used_up)
    }

    /// Store time and physical offset of the newest entry.
    fn newest(&self, look: &Look<'_>) -> Result<(i64, u64), ReadError> {
        let Some(last) = self.files.read().last().cloned() else { return Ok((0, 0)) };
        last.look_at_header(look)?;
        Ok((last.end_timestamp(), last.end_physical()))
    }

    /// Messages with the key that `log` has. The entries tell them by a hash that topics and keys share, so each is held against its record
    /// before it takes one of the places. Java: queryMessage, which gives out whatever has the hash.
    pub fn query(&self, look: &Look<'_>, sought: &KeyQuery<'_>, log: &Segments) -> Result<QueryOutcome, ReadError> {
        let (last_update_timestamp, last_update_offset) = self.newest(look)?;
        let hash = index_key_hash(sought.topic, sought.key).cast_unsigned();
        // Oldest first.
        let mut messages = BTreeMap::new();
        let cut_short = self.find(look, sought, &mut |at| {
            let Some(bytes) = log.record_at(look, at)? else {
                // A damaged message says nothing against the entry that leads to it.
                let was_there = log.has_remnant(look, at)?;
                // Asked now: it may have gone meanwhile.
                let has_gone = log.first().is_none_or(|first| at < first.start());
                return Ok(if was_there || has_gone { QueryVerdict::No } else { QueryVerdict::Impossible });
            };
            if !has_key(&bytes, sought) {
                return Ok(if has_hash(&bytes, hash) { QueryVerdict::No } else { QueryVerdict::Impossible });
            }
            messages.insert(at, bytes);
            Ok(QueryVerdict::Yes)
        })?;
        if messages.is_empty() {
            return Ok(QueryOutcome { cut_short, ..QueryOutcome::default() });
        }
        Ok(QueryOutcome {
            messages: messages.into_values().collect(),
            last_update_timestamp,
            last_update_offset: PhysicalOffset(last_update_offset),
            cut_short,
        })
    }
}

/// The one of the files (number, path, length) that says that another shape was configured when they were made: it is longer, or all of
/// several have one length.
fn other_setting(found: &[(u64, PathBuf, u64)], expected: u64) -> Option<&(u64, PathBuf, u64)> {
    let first = found.first()?;
    let one_length = found.iter().all(|(_, _, len)| *len == first.2);
    (one_length && first.2 != expected && first.2 > 0 && (first.2 > expected || found.len() > 1)).then_some(first)
}

/// Whether a record is of the topic and has the key.
fn has_key(record: &[u8], sought: &KeyQuery<'_>) -> bool {
    let Ok(record) = Record::parse(record) else { return false };
    record.topic() == sought.topic && keys_of(&EntryProperties::of(&record.properties())).any(|key| key == sought.key)
}

/// Whether a record has a key of that hash.
fn has_hash(record: &[u8], hash: u32) -> bool {
    Record::parse(record).is_ok_and(|record| {
        let text = record.properties();
        keys_of(&EntryProperties::of(&text)).any(|key| index_key_hash(record.topic(), key).cast_unsigned() == hash)
    })
}

/// What a message is found by: its unique key and each of its keys.
pub fn keys_of<'a>(properties: &EntryProperties<'a>) -> impl Iterator<Item = &'a str> {
    let keys = properties.keys.into_iter().flat_map(properties::keys);
    properties.unique_key.into_iter().chain(keys)
}

/// `yyyyMMddHHmmssSSS` in local time, later than the name before. Java: UtilAll.timeMillisToHumanString.
fn file_name(now_ms: i64, before: Option<u64>) -> String {
    let now = jiff::Timestamp::from_millisecond(now_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let text = now.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y%m%d%H%M%S%3f").to_string();
    match (before, text.parse::<u64>()) {
        // The clock went back, or two files in one millisecond: names still have to be in order.
        (Some(before), Ok(number)) if number <= before => format!("{:017}", before + 1),
        _ => text,
    }
}

/// Where index files are.
pub fn dir_of(root: &Path) -> PathBuf {
    root.join("index")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order() {
        let name = file_name(1_795_220_275_541, None);
        assert_eq!(name.len(), 17);
        assert!(name.starts_with("202611") && name.ends_with("541"), "{name}");
        assert_eq!(file_name(0, Some(20_261_121_001_755_541)), "20261121001755542");
    }

    #[test]
    fn what_a_failed_attempt_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let shape = IndexShape { slots: 7, entries: 12 };
        let clock = Clock::from_fn(|| 1_700_000_000_000);
        let index = Index::open(dir.path().join("index"), shape, clock, None, 0..0).unwrap();
        let left = index.make_file(&crate::LocalDisk, None).unwrap();
        assert_eq!(index.make_file(&crate::LocalDisk, None).unwrap().path(), left.path());
    }
}
