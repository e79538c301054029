//! The file that says how far the timers are: two places, written in turns, so that it is saved also where nothing can be made any more.
//!
//! A disk that is full to the last byte gets room when a segment of the log goes, and that waits for this file. So it is made as a whole
//! while there is room, and written in place from then on: a save goes where the one before the last is, and what a crash leaves of it
//! costs that save alone. Layout: docs/format.md, "Timers".

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ferromq_protocol::QueueOffset;

use crate::disk::{Disk, PAGE, sync_failed};
use crate::files::replace;

/// The checkpoint as it was before timers were carried on, with its sum: each place still begins with it.
const HEAD_LEN: usize = 20;
const WHOLE_LEN: usize = 40;
/// With the number of entries that the files have, behind what says how far they are.
const COUNTED_LEN: usize = WHOLE_LEN + 12;
/// With what says which of two is the later one.
const NUMBERED_LEN: usize = COUNTED_LEN + 12;
/// With what says whose files of minutes it counts, and up to where. Without, it is of before entries said whose they are.
const OWNED_LEN: usize = NUMBERED_LEN + 20;
/// From one place to the other: no device writes both at once.
pub const SLOT_LEN: usize = PAGE;
pub const FILE_LEN: usize = 2 * SLOT_LEN;

/// What is durable: the queue was read up to `entered`, and what was due by `delivered_ms` has been delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerCheckpoint {
    pub entered: QueueOffset,
    pub delivered_ms: i64,
    /// What the queue has before it and waits is there once more, behind, and is delivered from there.
    pub carried: QueueOffset,
    /// The latest due time of which anything was ever delivered: later than `delivered_ms` when the clock was set back.
    pub latest_ms: i64,
}

/// What a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerCheckpointContent {
    /// Nothing was saved yet.
    Nothing,
    Damaged,
    Checkpoint(SavedCheckpoint),
}

/// A checkpoint that was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SavedCheckpoint {
    pub checkpoint: TimerCheckpoint,
    pub files: FilesOfMinutes,
    /// Grows with each save; 0 in files that have one place.
    number: u64,
    /// The id of the store; 0 where it does not say.
    pub store: u64,
}

/// What the files of minutes must have together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilesOfMinutes {
    /// 0 where it does not say.
    pub entries: u64,
    /// Only entries of places before this one are counted.
    pub end: QueueOffset,
}

impl FilesOfMinutes {
    /// They lack something that is not all entered again yet.
    pub const LACKING: FilesOfMinutes = FilesOfMinutes { entries: u64::MAX, end: QueueOffset(0) };
}

impl TimerCheckpointContent {
    /// Of the whole content of a file, or its first [`FILE_LEN`] bytes.
    pub fn in_file(bytes: &[u8]) -> TimerCheckpointContent {
        let places = bytes.chunks(SLOT_LEN).take(2).filter_map(decode);
        match places.max_by_key(|saved| saved.number) {
            Some(saved) => TimerCheckpointContent::Checkpoint(saved),
            // Or the first save was torn.
            None if bytes.len() == FILE_LEN && bytes[SLOT_LEN..].iter().all(|byte| *byte == 0) => {
                TimerCheckpointContent::Nothing
            }
            None => TimerCheckpointContent::Damaged,
        }
    }

    /// Of the file in a directory of timers; an error of [`io::ErrorKind::NotFound`] if there is none.
    pub fn read(dir: &Path) -> io::Result<TimerCheckpointContent> {
        let mut bytes = Vec::with_capacity(FILE_LEN);
        File::open(path_in(dir))?.take(FILE_LEN as u64).read_to_end(&mut bytes)?;
        Ok(TimerCheckpointContent::in_file(&bytes))
    }
}

/// The file. One thread at a time writes it.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    number: u64,
    /// Whose it is from the next save on.
    store: u64,
    /// Where the next one goes, if the file has its two places and none of them is in doubt. Otherwise it is made anew.
    next: Option<usize>,
}

impl CheckpointFile {
    /// Opens the file in `dir`, or makes it. What it says is on the disk when this returns. Without the id of the `store` it stays whose it
    /// is.
    pub fn open(
        disk: &dyn Disk,
        dir: &Path,
        store: Option<u64>,
    ) -> io::Result<(CheckpointFile, TimerCheckpointContent)> {
        let path = path_in(dir);
        let mut bytes = Vec::with_capacity(FILE_LEN);
        let found = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => TimerCheckpointContent::Nothing,
            opened => {
                let file = opened?;
                let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(FILE_LEN);
                bytes.resize(len, 0);
                disk.read(&path, &file, &mut bytes, 0)?;
                // A save before a kill may have got no further than into memory. If its sync failed, another one alone would write
                // nothing: what a failed one has not written counts as written.
                disk.write(&path, &file, &bytes, 0)?;
                disk.sync_file(&path, &file).map_err(sync_failed)?;
                TimerCheckpointContent::in_file(&bytes)
            }
        };
        let (mut number, mut owner) = (0, 0);
        let mut next = None;
        if let TimerCheckpointContent::Checkpoint(saved) = found {
            (number, owner) = (saved.number, saved.store);
            let is_second = bytes.get(SLOT_LEN..).and_then(decode).is_some_and(|second| second == saved);
            next = (bytes.len() == FILE_LEN).then_some(if is_second { 0 } else { SLOT_LEN });
        } else if found == TimerCheckpointContent::Nothing && bytes.len() == FILE_LEN {
            next = Some(0);
        }
        let store = store.unwrap_or(owner);
        let mut file = CheckpointFile { path, number, store, next };
        if file.next.is_none() {
            // While there is room. A file of before there were two places stays as good as it was.
            let made = match found {
                TimerCheckpointContent::Checkpoint(saved) => {
                    // The new one counts entries that say whose they are.
                    let files = if store == owner { saved.files } else { FilesOfMinutes::LACKING };
                    file.make(disk, saved.checkpoint, files)
                }
                TimerCheckpointContent::Nothing => {
                    replace(disk, &file.path, &[0; FILE_LEN]).map(|()| file.next = Some(0))
                }
                // Says so until something is saved.
                TimerCheckpointContent::Damaged => Ok(()),
            };
            if let Err(error) = made {
                tracing::warn!(path = %file.path.display(), %error, "the timers' checkpoint cannot be made now: it needs room on the disk when it is saved");
            }
        }
        Ok((file, found))
    }

    /// Durable when this returns. After an error the one before is there, or this one.
    pub fn write(&mut self, disk: &dyn Disk, checkpoint: TimerCheckpoint, files: FilesOfMinutes) -> io::Result<()> {
        let Some(at) = self.next else { return self.make(disk, checkpoint, files) };
        let file = match OpenOptions::new().write(true).open(&self.path) {
            // Somebody has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.make(disk, checkpoint, files),
            opened => opened?,
        };
        // What fails leaves the other place as it is, and the next try comes here again.
        disk.write(&self.path, &file, &encode(&self.following(checkpoint, files)), at as u64)?;
        if let Err(error) = disk.sync_file(&self.path, &file) {
            // A second sync may succeed without having written anything.
            self.next = None;
            return Err(sync_failed(error));
        }
        self.number += 1;
        self.next = Some(SLOT_LEN - at);
        Ok(())
    }

    fn following(&self, checkpoint: TimerCheckpoint, files: FilesOfMinutes) -> SavedCheckpoint {
        SavedCheckpoint { checkpoint, files, number: self.number + 1, store: self.store }
    }

    fn make(&mut self, disk: &dyn Disk, checkpoint: TimerCheckpoint, files: FilesOfMinutes) -> io::Result<()> {
        let mut bytes = encode(&self.following(checkpoint, files));
        bytes.resize(FILE_LEN, 0);
        replace(disk, &self.path, &bytes)?;
        self.number += 1;
        self.next = Some(SLOT_LEN);
        Ok(())
    }
}

/// Says that files of minutes lack something, so that the next open enters again what waits and passes over what was delivered. Durable
/// when this returns. False where there is no checkpoint that knows what was delivered: then nothing is changed.
pub fn say_lacking(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    match TimerCheckpointContent::read(dir) {
        Ok(TimerCheckpointContent::Checkpoint(saved)) => {
            let (mut file, _) = CheckpointFile::open(disk, dir, None)?;
            file.write(disk, saved.checkpoint, FilesOfMinutes::LACKING)?;
            Ok(true)
        }
        Ok(TimerCheckpointContent::Nothing | TimerCheckpointContent::Damaged) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The id of the store that the timers in `dir` are of, where their checkpoint says it.
pub fn owner(dir: &Path) -> Option<u64> {
    match TimerCheckpointContent::read(dir) {
        Ok(TimerCheckpointContent::Checkpoint(saved)) => Some(saved.store).filter(|store| *store != 0),
        // Whoever opens it says so.
        Ok(TimerCheckpointContent::Nothing | TimerCheckpointContent::Damaged) | Err(_) => None,
    }
}

pub fn path_in(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

/// Of one place; `None` when it is damaged or nothing was ever written there.
fn decode(bytes: &[u8]) -> Option<SavedCheckpoint> {
    let is_whole = |len: usize| {
        let (content, sum) = bytes.get(..len)?.split_at(len - 4);
        (checksum(content).to_be_bytes() == sum).then_some(())
    };
    let long = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    is_whole(HEAD_LEN)?;
    let (entered, delivered_ms) = (QueueOffset(long(0)?), long(8)?.cast_signed());
    if bytes.len() == HEAD_LEN {
        // Nothing had been carried on yet.
        let checkpoint = TimerCheckpoint { entered, delivered_ms, carried: QueueOffset(0), latest_ms: delivered_ms };
        return Some(SavedCheckpoint { checkpoint, ..SavedCheckpoint::default() });
    }
    is_whole(WHOLE_LEN)?;
    let (carried, latest_ms) = (QueueOffset(long(20)?), long(28)?.cast_signed());
    let checkpoint = TimerCheckpoint { entered, delivered_ms, carried, latest_ms };
    let counted = |end| Some(FilesOfMinutes { entries: long(WHOLE_LEN)?, end });
    if bytes.len() < NUMBERED_LEN {
        // Files of before there were two places: what they may lack counts as not said.
        let files = is_whole(COUNTED_LEN).and_then(|()| counted(QueueOffset(0))).unwrap_or_default();
        return Some(SavedCheckpoint { checkpoint, files, ..SavedCheckpoint::default() });
    }
    is_whole(COUNTED_LEN)?;
    is_whole(NUMBERED_LEN)?;
    let number = long(COUNTED_LEN)?;
    if bytes.get(NUMBERED_LEN..OWNED_LEN)?.iter().all(|byte| *byte == 0) {
        return Some(SavedCheckpoint { checkpoint, files: counted(QueueOffset(0))?, number, store: 0 });
    }
    is_whole(OWNED_LEN)?;
    let files = counted(QueueOffset(long(NUMBERED_LEN + 8)?))?;
    Some(SavedCheckpoint { checkpoint, files, number, store: long(NUMBERED_LEN)? })
}

/// One place, all of it.
fn encode(saved: &SavedCheckpoint) -> Vec<u8> {
    let SavedCheckpoint { checkpoint, files, number, store } = saved;
    let mut bytes = Vec::with_capacity(FILE_LEN);
    let mut part = |numbers: &[u64]| {
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
        bytes.extend_from_slice(&checksum(&bytes).to_be_bytes());
    };
    part(&[checkpoint.entered.0, checkpoint.delivered_ms.cast_unsigned()]);
    part(&[checkpoint.carried.0, checkpoint.latest_ms.cast_unsigned()]);
    part(&[files.entries]);
    part(&[*number]);
    if *store != 0 {
        part(&[*store, files.end.0]);
    }
    bytes.resize(SLOT_LEN, 0);
    bytes
}

/// The bit that records' checksums leave out is no loss here either.
fn checksum(bytes: &[u8]) -> u32 {
    ferromq_protocol::message::record::body_crc(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::disk::LocalDisk;
    use crate::scripted_disk::ScriptedDisk;

    const STORE: u64 = 77;

    fn counted(entries: u64) -> FilesOfMinutes {
        FilesOfMinutes { entries, end: QueueOffset(12) }
    }

    fn checkpoint(entered: u64) -> TimerCheckpoint {
        TimerCheckpoint { entered: QueueOffset(entered), delivered_ms: 8, carried: QueueOffset(5), latest_ms: 9 }
    }

    fn entered(dir: &Path) -> Option<u64> {
        match TimerCheckpointContent::read(dir).unwrap() {
            TimerCheckpointContent::Checkpoint(saved) => Some(saved.checkpoint.entered.0),
            TimerCheckpointContent::Nothing => None,
            TimerCheckpointContent::Damaged => panic!("damaged"),
        }
    }

    #[test]
    fn each_save_leaves_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, found) = CheckpointFile::open(&LocalDisk, dir.path(), Some(STORE)).unwrap();
        assert_eq!((found, entered(dir.path())), (TimerCheckpointContent::Nothing, None));
        for n in 1..6 {
            file.write(&LocalDisk, checkpoint(n), counted(7)).unwrap();
            assert_eq!(entered(dir.path()), Some(n));
            let whole = fs::read(path_in(dir.path())).unwrap();
            assert_eq!(whole.len(), FILE_LEN);
            // Whichever byte of the last one is damaged, the other one holds.
            let last = if n % 2 == 1 { 0 } else { SLOT_LEN };
            for at in last..last + OWNED_LEN {
                let mut damaged = whole.clone();
                damaged[at] ^= 1;
                match TimerCheckpointContent::in_file(&damaged) {
                    TimerCheckpointContent::Checkpoint(saved) => assert_eq!(saved.checkpoint.entered.0, n - 1),
                    other => assert_eq!((n, other), (1, TimerCheckpointContent::Nothing)),
                }
            }
            if n == 3 {
                let found;
                (file, found) = CheckpointFile::open(&LocalDisk, dir.path(), Some(STORE)).unwrap();
                let saved = SavedCheckpoint { checkpoint: checkpoint(3), files: counted(7), number: 3, store: STORE };
                assert_eq!(found, TimerCheckpointContent::Checkpoint(saved));
            }
        }
    }

    #[test]
    fn files_with_one_place_are_understood_and_get_two() {
        let files = FilesOfMinutes { entries: 3, end: QueueOffset(0) };
        let old = SavedCheckpoint { checkpoint: checkpoint(7), files, ..SavedCheckpoint::default() };
        let numbered = encode(&old);
        for (len, entries) in [(HEAD_LEN, 0), (WHOLE_LEN, 0), (COUNTED_LEN, 3)] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(path_in(dir.path()), &numbered[..len]).unwrap();
            let carried = QueueOffset(if len == HEAD_LEN { 0 } else { 5 });
            let latest_ms = if len == HEAD_LEN { 8 } else { 9 };
            let checkpoint = TimerCheckpoint { carried, latest_ms, ..checkpoint(7) };
            let before = SavedCheckpoint { checkpoint, files: FilesOfMinutes { entries, ..files }, ..old };
            // Whoever it is read by, what it counted were entries that did not say whose they are.
            let after = SavedCheckpoint { files: FilesOfMinutes::LACKING, number: 1, store: STORE, ..before };
            for expected in [before, after] {
                let (_, found) = CheckpointFile::open(&LocalDisk, dir.path(), Some(STORE)).unwrap();
                assert_eq!(found, TimerCheckpointContent::Checkpoint(expected));
            }
        }
        assert_eq!(TimerCheckpointContent::in_file(&numbered), TimerCheckpointContent::Checkpoint(old));
        for len in (1..COUNTED_LEN).filter(|len| *len != HEAD_LEN) {
            let expected = if len < WHOLE_LEN {
                TimerCheckpointContent::Damaged
            } else {
                TimerCheckpointContent::in_file(&numbered[..WHOLE_LEN])
            };
            assert_eq!(TimerCheckpointContent::in_file(&numbered[..len]), expected, "{len}");
        }
    }

    #[test]
    fn a_save_that_fails_anywhere_leaves_the_one_before_and_the_next_one_holds() {
        for failing in 0..7 {
            let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(ScriptedDisk::default()));
            let timers = dir.path().join("timers");
            fs::create_dir(&timers).unwrap();
            let (mut file, _) = CheckpointFile::open(&*disk, &timers, Some(STORE)).unwrap();
            disk.all_is_synced(dir.path());
            for n in 1..4 {
                file.write(&*disk, checkpoint(n), counted(0)).unwrap();
            }
            // In place, and then, where its sync fails, as a new file.
            *disk.fails_after.lock() = Some(failing % 2);
            file.write(&*disk, checkpoint(4), counted(0)).unwrap_err();
            *disk.fails_after.lock() = Some(failing);
            let second = file.write(&*disk, checkpoint(5), counted(0));
            *disk.fails_after.lock() = None;
            disk.power_loss(dir.path(), || true);
            assert_eq!(entered(&timers), Some(if second.is_ok() { 5 } else { 3 }), "after {failing}");
            let (mut file, _) = CheckpointFile::open(&*disk, &timers, Some(STORE)).unwrap();
            file.write(&*disk, checkpoint(6), counted(0)).unwrap();
            disk.power_loss(dir.path(), || true);
            assert_eq!(entered(&timers), Some(6), "after {failing}");
        }
    }
}
