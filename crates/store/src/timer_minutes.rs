//! The files of timers, one for each minute, and the entries in them: 16 bytes each, which say when a message is due and where in the queue of
//! timers it is.
//!
//! Knows nothing of what is in memory, nor how far the timers are. Layout: docs/format.md, "Timers".

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use ferromq_protocol::QueueOffset;

use crate::disk::Disk;
use crate::files::{remove_file, segment_name};
use crate::timer_checkpoint::FilesOfMinutes;

pub const MINUTE_MS: i64 = 60_000;
pub const ENTRY_LEN: usize = 16;
/// Bit of an entry's queue offset: it cancels another timer.
const CANCELS: u64 = 1 << 63;
/// What entries begin with. To a broker that knows entries of before, the time behind is one of another minute, whose file it makes anew;
/// below 0 it would be the zeros of a crash to it, and passed over.
const MARK: [u8; 2] = [0x7f, 0xff];
/// What a file is called while it is made anew.
pub const RENEWED: &str = "renewed";

/// One timer message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// Milliseconds since 1970.
    pub due_ms: i64,
    /// Of the message in the timer queue.
    pub offset: QueueOffset,
    /// It is to cancel another one that is due at the same time.
    pub cancels: bool,
}

/// The file of a minute.
#[derive(Clone, Copy, Debug, Default)]
pub struct Minute {
    pub entries: u64,
    /// Those of them that count elsewhere by now, as far as that is known: after a start it is not.
    pub carried: u64,
}

impl Minute {
    pub fn waiting(self) -> u64 {
        self.entries.saturating_sub(self.carried)
    }
}

pub fn minute_path(dir: &Path, minute: i64) -> PathBuf {
    dir.join(segment_name(minute.unsigned_abs()))
}

pub fn minute_of(due_ms: i64) -> i64 {
    due_ms.max(0).div_euclid(MINUTE_MS)
}

/// The minutes that have a file, with how many entries these have by their lengths.
pub fn list_minutes(disk: &dyn Disk, dir: &Path) -> io::Result<BTreeMap<i64, Minute>> {
    let mut minutes = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == RENEWED) {
            remove_file(disk, &entry.path())?;
        }
        let name = entry.file_name();
        if let Some(minute) = name.to_str().filter(|name| name.len() == 20).and_then(|name| name.parse().ok()) {
            let entries = entry.metadata()?.len() / ENTRY_LEN as u64;
            minutes.insert(minute, Minute { entries, carried: 0 });
        }
    }
    Ok(minutes)
}

/// How many entries the files have of those that were counted, and behind which place they have none. What a kill has left of what came
/// since makes up for nothing that is missing.
pub fn count(
    disk: &dyn Disk,
    dir: &Path,
    store: u64,
    counted: FilesOfMinutes,
    minutes: &mut BTreeMap<i64, Minute>,
) -> (u64, QueueOffset) {
    let found = minutes.values().map(|minute| minute.entries).sum();
    let goes_on =
        || minutes.iter().any(|(minute, file)| goes_on_behind(disk, dir, store, counted.end, (*minute, *file)));
    if found < counted.entries || found == counted.entries && !goes_on() {
        return (found, counted.end);
    }
    let (mut found, mut end) = (0, counted.end);
    for (minute, file) in minutes {
        let path = minute_path(dir, *minute);
        match read_entries(disk, &path) {
            Ok(entries) => {
                let decoded = entries.iter().map(|entry| TimerEntry::decode(entry, store, *minute));
                let places: Vec<_> = decoded.filter_map(TimerEntry::timer).map(|timer| timer.offset).collect();
                file.entries = places.len() as u64;
                found += places.iter().filter(|place| **place < counted.end).count() as u64;
                end = places.into_iter().map(QueueOffset::next).max().map_or(end, |behind| behind.max(end));
            }
            // It is made anew when its minute comes.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a file of timers cannot be read");
                found += file.entries;
            }
        }
    }
    (found, end)
}

/// Whether a file has got entries since those of places before `end` were counted. They are behind the others then ([`encode`]).
fn goes_on_behind(disk: &dyn Disk, dir: &Path, store: u64, end: QueueOffset, (minute, file): (i64, Minute)) -> bool {
    let Some(last) = file.entries.checked_sub(1) else { return false };
    let (path, mut entry) = (minute_path(dir, minute), [0; ENTRY_LEN]);
    let read = File::open(&path).and_then(|file| disk.read(&path, &file, &mut entry, last * ENTRY_LEN as u64));
    if read.is_err() {
        // Told of by who reads all of it.
        return true;
    }
    match TimerEntry::decode(&entry, store, minute) {
        TimerEntry::Timer(timer) => timer.offset >= end,
        TimerEntry::Nothing => true,
        // The file is made anew when its minute comes.
        TimerEntry::Damaged => false,
    }
}

/// In the order of their places: the last entry of a file says whether it has any from behind a place.
pub fn encode(timers: &[Timer], store: u64, bytes: &mut Vec<u8>) {
    let mut timers: Vec<_> = timers.iter().collect();
    timers.sort_unstable_by_key(|timer| timer.offset);
    for timer in timers {
        let place = timer.offset.0 | if timer.cancels { CANCELS } else { 0 };
        // Below 60,000.
        let in_minute = timer.due_ms.max(0).rem_euclid(MINUTE_MS) as u16;
        let mut entry = [0; ENTRY_LEN];
        entry[..2].copy_from_slice(&MARK);
        entry[6..8].copy_from_slice(&in_minute.to_be_bytes());
        entry[8..].copy_from_slice(&place.to_be_bytes());
        let sum = sum_of(&entry, store, minute_of(timer.due_ms));
        entry[2..6].copy_from_slice(&sum.to_be_bytes());
        bytes.extend_from_slice(&entry);
    }
}

/// Of what is behind the sum of an entry, and whose it is.
fn sum_of(entry: &[u8; ENTRY_LEN], store: u64, minute: i64) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&store.to_be_bytes());
    sum.update(&minute.to_be_bytes());
    sum.update(&entry[6..]);
    sum.finalize()
}

/// Appends whole entries, also behind the torn one that a crash has left.
pub fn append(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(path, 0)?,
        opened => opened?,
    };
    let len = file.metadata()?.len();
    let whole = len - len % ENTRY_LEN as u64;
    if whole != len {
        file.set_len(whole)?;
    }
    if let Err(error) = disk.write(path, &file, bytes, whole) {
        // What was written of it is not an entry, or will be there twice, which reading puts right.
        let _ = file.set_len(whole);
        return Err(error);
    }
    Ok(())
}

/// What the bytes of an entry in a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerEntry {
    Timer(Timer),
    /// Zeros that a crash of the machine has left: it was not in a checkpoint then.
    Nothing,
    /// Its sum is that of another one, or it is of another minute or store.
    Damaged,
}

impl TimerEntry {
    /// Of a file of that store and minute.
    pub fn decode(entry: &[u8; ENTRY_LEN], store: u64, minute: i64) -> TimerEntry {
        if *entry == [0; ENTRY_LEN] {
            return TimerEntry::Nothing;
        }
        let (head, place) = entry.split_at(8);
        let place = u64::from_be_bytes(place.try_into().unwrap_or_default());
        let in_minute = i64::from(u16::from_be_bytes([head[6], head[7]]));
        let due_ms = minute.saturating_mul(MINUTE_MS).saturating_add(in_minute);
        let is_whole = head[..2] == MARK && head[2..6] == sum_of(entry, store, minute).to_be_bytes();
        if !is_whole || in_minute >= MINUTE_MS {
            return TimerEntry::Damaged;
        }
        let offset = QueueOffset(place & !CANCELS);
        TimerEntry::Timer(Timer { due_ms, offset, cancels: place & CANCELS != 0 })
    }

    fn timer(self) -> Option<Timer> {
        match self {
            TimerEntry::Timer(timer) => Some(timer),
            TimerEntry::Nothing | TimerEntry::Damaged => None,
        }
    }
}

/// A damaged entry, or one of another minute or store, is damage of all: [`io::ErrorKind::InvalidData`].
pub fn read_minute(disk: &dyn Disk, path: &Path, store: u64, minute: i64) -> io::Result<Vec<Timer>> {
    let entries = read_entries(disk, path)?;
    let mut timers = Vec::with_capacity(entries.len());
    for (number, entry) in entries.iter().enumerate() {
        match TimerEntry::decode(entry, store, minute) {
            TimerEntry::Timer(timer) => timers.push(timer),
            TimerEntry::Nothing => {}
            TimerEntry::Damaged => {
                let at = number * ENTRY_LEN;
                let text = format!("its entry at {at} is damaged, or of another minute or store");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }
    Ok(timers)
}

/// The whole ones.
fn read_entries(disk: &dyn Disk, path: &Path) -> io::Result<Vec<[u8; ENTRY_LEN]>> {
    let file = File::open(path)?;
    // A file of ours, and of one minute: it fits into memory.
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    disk.read(path, &file, &mut bytes, 0)?;
    Ok(bytes.as_chunks().0.to_vec())
}
