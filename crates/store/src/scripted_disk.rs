//! A disk that follows a script: it counts the calls, shows what there is at any of them, fails one of them, stops at one of them, can
//! lose its power, and can rot.
//!
//! Calls change real files at once. Beside that the disk knows what of them is certain to be there after a power cut: what was synced. What
//! else a cut leaves is up to a [`Fate`]: any pages, names, removals and lengths that were not synced, each by itself, so in any order,
//! and pages torn at any byte. It goes by the difference between what there is and what was synced, so that writes through a mapping count too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ferromq_protocol::message::record::{MAGIC_V1, MAGIC_V2};
use parking_lot::Mutex;

use crate::disk::{FileState, PAGE, sync_failed};
use crate::*;

/// Bytes that reach the device together. Real devices write whole pages; entries lie across their borders, so smaller ones
/// stand for them where files are small.
const LOG_PAGE: usize = 4096;
const OTHER_PAGE: usize = 64;
/// A page that is not on the device is still in memory after so many calls, more or less.
const GOES_ONE_IN: usize = 30;

/// What is below a directory, by the path from there: the bytes of a file, `None` for a directory.
pub type Tree = BTreeMap<PathBuf, Option<Arc<Vec<u8>>>>;

/// Numbers that follow from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// One of 0..`end`.
    pub fn below(&mut self, end: usize) -> usize {
        // Less than a usize.
        (self.roll() % end.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// A bit that is no more as it was written.
#[derive(Clone, Debug)]
pub struct Flip {
    pub part: Part,
    /// From the root on.
    pub path: PathBuf,
    pub at: usize,
    pub bit: usize,
}

/// What becomes of what was not synced.
pub struct Fate<'a> {
    /// Whether the next thing is lost.
    pub lost: &'a mut dyn FnMut() -> bool,
    /// Tears pages that are not lost, and cuts files off.
    pub tears: Option<Dice>,
}

/// Which file or directory a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Log,
    Queues,
    Index,
    /// Their files of minutes.
    Timers,
    TimersCheckpoint,
    /// The store's checkpoint.
    Checkpoint,
    /// Of a segment, before it takes the place of that.
    Copy,
    /// What [`files::replace`] writes before it has its name.
    Aside,
    /// Whatever lies beside these.
    Root,
}

fn part_of(path: &Path) -> Part {
    if path.extension().is_some_and(|extension| extension == "new") {
        return Part::Aside;
    }
    if files::is_copy_of_segment(path) {
        return Part::Copy;
    }
    if path.ends_with("timers/checkpoint") {
        return Part::TimersCheckpoint;
    }
    let parts = [
        ("commitlog", Part::Log),
        ("consumequeue", Part::Queues),
        ("index", Part::Index),
        ("timers", Part::Timers),
        ("checkpoint", Part::Checkpoint),
    ];
    let is_below = |name: &str| path.components().any(|component| component.as_os_str() == name);
    parts.into_iter().find(|(name, _)| is_below(name)).map_or(Part::Root, |(_, part)| part)
}

/// What a store could do wrong, done here in its place: a check that does not find it is not good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Bytes are never synced.
    NotSynced(Part),
    /// Names are never synced.
    NamesNotSynced(Part),
    /// Syncs begin a page too late.
    SyncBeginsLate(Part),
    /// Syncs end a page too early.
    SyncEndsEarly(Part),
    /// What the checkpoint says gets to the disk before what it says it of.
    SavedAheadOf(Part),
    /// More of a file is cut off than is to be.
    CutTooFar,
    /// Of what goes from the write pool to the log, the first page is left out,
    CommitBeginsLate,
    /// or the last one,
    CommitEndsEarly,
    /// or all of it, until the next time,
    CommitIsLate,
    /// or what the page that the log ended in had before.
    CommitForgetsBegin,
    /// A file is replaced by writing over it, so that at some time it is half the one and half the other.
    ReplacedInSteps,
    /// A part of what is to be written is not, and nobody asks.
    WritesShort(Part),
    /// A disk that was too full is not looked at again before the next segment goes.
    UsageNotLookedAtAgain,
    /// No disk does that: a transaction ends before its message is in the log.
    EndedBeforeCommitted,
    /// A bit of the log flips, and nothing is known of it: whatever it costs is too much.
    RotsUnseen,
}

/// A call that fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Calls before it.
    pub after: usize,
    /// So many fail, one after the other.
    pub count: usize,
    pub errno: i32,
    /// Other calls are none of them.
    pub only_syncs: bool,
}

/// What is asked of the disk.
#[derive(Clone, Debug)]
pub struct Call {
    number: usize,
    name: &'static str,
    path: PathBuf,
}

impl Call {
    pub fn is_sync_of(&self, part: Part) -> bool {
        self.name == "sync_range" && part_of(&self.path) == part
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}, {} {}", self.number, self.name, self.path.display())
    }
}

type Watch = Box<dyn FnMut(&Call) + Send>;

/// Syncs whose effect comes after the checkpoint's, and whether that was.
#[derive(Default)]
struct Late {
    syncs: Vec<(PathBuf, Range<usize>, Vec<u8>)>,
    checkpoint_was: bool,
}

#[derive(Default)]
pub struct ScriptedDisk {
    known: Mutex<Known>,
    calls: AtomicUsize,
    power_losses: AtomicUsize,
    /// Called before each call.
    watch: Mutex<Option<Watch>>,
    /// Nothing works any more.
    dead: AtomicBool,
    fault: Mutex<Option<Fault>>,
    fault_met: AtomicBool,
    /// After so many changes and syncs all further ones fail.
    pub fails_after: Mutex<Option<usize>>,
    bug: Option<Bug>,
    states: Mutex<BTreeMap<PathBuf, KnownState>>,
    /// For [`Bug::SavedAheadOf`].
    late: Mutex<Late>,
    /// For [`Bug::CommitIsLate`]: where, and the bytes.
    late_commit: Mutex<Option<(PathBuf, Vec<u8>, u64)>>,
    /// For [`Bug::CommitForgetsBegin`]: the last place that was written to.
    last_commit: Mutex<Option<(PathBuf, u64)>>,
    /// When pages go from memory: see [`ScriptedDisk::forget_pages`].
    forgets: Mutex<Option<Dice>>,
    /// See [`ScriptedDisk::has_room_for`].
    room: Mutex<Option<Room>>,
}

/// How much the disk has room for.
#[derive(Debug)]
struct Room {
    /// Others are told what they always are: the thread of the retention looks when it likes.
    by: std::thread::ThreadId,
    segments: usize,
    /// Of it, as told first.
    told: Option<usize>,
}

impl fmt::Debug for ScriptedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedDisk").field("calls", &self.calls).finish_non_exhaustive()
    }
}

/// By what a file is known, as told last. That changes when its bytes are others, but not by a power cut, whatever that takes of them: on a
/// real disk the one may be there without the other.
#[derive(Clone, Debug)]
struct KnownState {
    inode: u64,
    changes: i64,
    content: Arc<Vec<u8>>,
}

/// What is certain.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Content of files as far as it was synced; of a file that is not in here nothing was.
    content: BTreeMap<PathBuf, Arc<Vec<u8>>>,
    /// Entries of directories that were synced, and what they lead to still existing or not.
    entries: BTreeSet<PathBuf>,
    /// What had a name before another file was given it, as far as it was synced, until the directory is.
    replaced: BTreeMap<PathBuf, Arc<Vec<u8>>>,
    /// New names of what is certain to be there under the one or the other, until the directory of the old one is synced.
    moved: Vec<(PathBuf, PathBuf)>,
    /// Pages that a sync could not write: the kernel tells of them once, and takes them for written after that.
    given_up: Vec<(PathBuf, usize, Vec<u8>)>,
}

/// What there is at one moment, and what of it is certain.
#[derive(Clone, Debug)]
pub struct Image {
    now: Tree,
    known: Known,
    states: BTreeMap<PathBuf, KnownState>,
}

impl Disk for ScriptedDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        // What is there already is not asked of the device.
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.act("create", path)?;
        let mut known = self.known.lock();
        let file = LocalDisk.create(path, len)?;
        self.states.lock().remove(path);
        known.given_up.retain(|(of, ..)| of != path);
        if let Some(before) = known.content.remove(path)
            && known.entries.contains(path)
        {
            known.replaced.entry(path.to_owned()).or_insert(before);
        }
        Ok(file)
    }

    fn allocate(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        self.act("allocate", Path::new(""))?;
        LocalDisk.allocate(file, range)
    }

    fn sync_range(&self, range: &MappedRange<'_>) -> io::Result<()> {
        let part = part_of(range.path);
        let done = self.act("sync_range", range.path);
        let mut synced = range.from..range.from + range.len;
        match self.bug {
            Some(Bug::SyncBeginsLate(of)) if of == part => synced.start = synced.end.min(synced.start + PAGE),
            Some(Bug::SyncEndsEarly(of)) if of == part => {
                synced.end = synced.start.max(synced.end.saturating_sub(PAGE))
            }
            Some(Bug::NotSynced(of)) if of == part => return done,
            _ => {}
        }
        self.synced(range.path, synced, done)
    }

    fn sync_file(&self, path: &Path, _: &File) -> io::Result<()> {
        let part = part_of(path);
        let done = self.act("sync_file", path);
        if self.bug == Some(Bug::NotSynced(part)) {
            return done;
        }
        let synced = self.synced(path, 0..usize::MAX, done);
        if part == Part::Checkpoint {
            self.late.lock().checkpoint_was = true;
        }
        synced
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.act("sync_dir", dir).map_err(sync_failed)?;
        if self.bug == Some(Bug::NamesNotSynced(part_of(dir))) {
            return Ok(());
        }
        let mut known = self.known.lock();
        known.replaced.retain(|path, _| path.parent() != Some(dir));
        known.moved.retain(|(from, _)| from.parent() != Some(dir));
        // What was below something that is gone is gone with it.
        known.entries.retain(|path| {
            path.strip_prefix(dir)
                .ok()
                .and_then(|below| below.iter().next())
                .is_none_or(|name| path.parent() != Some(dir) && dir.join(name).exists())
        });
        for entry in fs::read_dir(dir)? {
            known.entries.insert(entry?.path());
        }
        Ok(())
    }

    fn sync_file_system(&self, dir: &Path, _: &File) -> io::Result<()> {
        let done = self.act("sync_file_system", dir);
        let root = dir.parent().unwrap();
        let mut known = self.known.lock();
        if self.is_dead() {
            return done;
        }
        for (path, node) in tree_of(root) {
            let path = root.join(path);
            let Some(bytes) = node else { continue };
            let part = part_of(&path);
            if done.is_err() {
                known.give_up_what_is_new(&path, &bytes);
            } else if matches!(self.bug, Some(Bug::SavedAheadOf(of)) if of == part) {
                self.late.lock().syncs.push((path, 0..bytes.len(), bytes.to_vec()));
            } else if self.bug != Some(Bug::NotSynced(part)) {
                known.note(&path, 0..bytes.len(), &bytes);
            }
        }
        done?;
        let is_synced = |path: &Path| path.starts_with(root) && self.bug != Some(Bug::NamesNotSynced(part_of(path)));
        let is_dir_synced = |path: &Path| path.parent().is_some_and(is_synced);
        known.replaced.retain(|path, _| !is_dir_synced(path));
        known.moved.retain(|(from, _)| !is_dir_synced(from));
        known.entries.retain(|path| !is_dir_synced(path) || path.exists());
        known.entries.extend(tree_of(root).into_keys().map(|path| root.join(path)).filter(|path| is_dir_synced(path)));
        Ok(())
    }

    fn state(&self, path: &Path) -> io::Result<FileState> {
        static INODES: AtomicU64 = AtomicU64::new(1);
        let bytes = if path.is_dir() { Vec::new() } else { fs::read(path)? };
        let mut states = self.states.lock();
        let content = Arc::default();
        let state = states.entry(path.to_owned()).or_insert_with(|| {
            let inode = INODES.fetch_add(1, Ordering::SeqCst);
            KnownState { inode, changes: 0, content }
        });
        if *state.content != bytes {
            state.changes += 1;
            state.content = Arc::new(bytes);
        }
        let len = state.content.len() as u64;
        Ok(FileState { device: 1, inode: state.inode, len, changed_ns: state.changes, is_settled: true })
    }

    fn state_of(&self, path: &Path, _: &File) -> io::Result<FileState> {
        self.state(path)
    }

    fn page_len(&self) -> usize {
        OTHER_PAGE
    }

    fn is_resident(&self, range: &MappedRange<'_>) -> bool {
        self.let_pages_go();
        range.is_resident()
    }

    fn read(&self, path: &Path, file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.let_pages_go();
        LocalDisk.read(path, file, bytes, at)
    }

    fn write(&self, path: &Path, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let done = self.act("write", path);
        let part = match part_of(path) {
            // One sector, all of it or nothing; and nothing of anything once the process is to have ended.
            Part::Checkpoint if done.is_err() => &[],
            _ if self.is_dead() => &[],
            // Whole pages go to the log.
            Part::Log if done.is_err() => &bytes[..bytes.len() / 2 / PAGE * PAGE],
            // What fails has got somewhere before.
            _ if done.is_err() => &bytes[..bytes.len() / 2],
            Part::Log => self.committed(path, file, bytes, at)?,
            part if self.bug == Some(Bug::WritesShort(part)) => &bytes[..bytes.len() / 2],
            _ => bytes,
        };
        LocalDisk.write(path, file, part, at)?;
        self.known.lock().written(path, at..at + part.len() as u64);
        done
    }

    fn zero(&self, path: &Path, file: &File, range: Range<u64>) -> io::Result<()> {
        self.act("zero", path)?;
        let too_far = if self.bug == Some(Bug::CutTooFar) { 30 } else { 0 };
        let range = range.start.saturating_sub(too_far)..range.end;
        LocalDisk.zero(path, file, range.clone())?;
        self.known.lock().written(path, range);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act("rename", to)?;
        if self.bug == Some(Bug::ReplacedInSteps) && part_of(from) == Part::Aside {
            let bytes = fs::read(from)?;
            for part in [&bytes[..bytes.len() / 2], &bytes[..]] {
                fs::write(to, part)?;
                self.known.lock().content.insert(to.to_owned(), Arc::new(part.to_vec()));
                self.act("rename, in steps", to)?;
            }
        }
        let mut known = self.known.lock();
        LocalDisk.rename(from, to)?;
        let mut states = self.states.lock();
        states.retain(|path, _| !path.starts_with(to));
        let moved: Vec<_> = states.extract_if(.., |path, _| path.starts_with(from)).collect();
        states.extend(moved.into_iter().map(|(path, state)| (moved_path(&path, from, to), state)));
        drop(states);
        let was_there = known.entries.contains(to);
        if let Some(before) = known.content.remove(to)
            && was_there
        {
            known.replaced.entry(to.to_owned()).or_insert(before);
        }
        if known.rename(from, to) {
            known.moved.push((from.to_owned(), to.to_owned()));
        }
        if was_there {
            known.entries.insert(to.to_owned());
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        // What is not there is not asked of the device.
        path.symlink_metadata()?;
        self.act("remove_file", path)?;
        self.states.lock().remove(path);
        LocalDisk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        path.symlink_metadata()?;
        self.act("remove_dir", path)?;
        self.states.lock().retain(|of, _| !of.starts_with(path));
        LocalDisk.remove_dir(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.act("make_dir", path)?;
        LocalDisk.make_dir(path)
    }

    fn boot_id(&self) -> Option<String> {
        Some(self.power_losses.load(Ordering::SeqCst).to_string())
    }

    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        let (mut total, mut used) = (2, 1);
        if let Some(room) = &mut *self.room.lock()
            && room.by == std::thread::current().id()
        {
            total = room.segments;
            used = tree_of(path)
                .keys()
                .filter(|file| part_of(&path.join(file)) == Part::Log && !path.join(file).is_dir())
                .count();
            let told = *room.told.get_or_insert(used);
            if self.bug == Some(Bug::UsageNotLookedAtAgain) {
                used = told;
            }
        }
        // Less than 1000.
        Ok(DiskUsage { total_bytes: 1 << 41, free_bytes: 1 << 40, used_ratio: used as f64 / total as f64 })
    }
}

impl ScriptedDisk {
    /// Of a machine whose power went so many times before.
    pub fn new(bug: Option<Bug>, power_losses: usize) -> ScriptedDisk {
        ScriptedDisk { bug, power_losses: AtomicUsize::new(power_losses), ..ScriptedDisk::default() }
    }

    pub fn bug(&self) -> Option<Bug> {
        self.bug
    }

    /// How often the power went so far.
    pub fn power_losses(&self) -> usize {
        self.power_losses.load(Ordering::SeqCst)
    }

    /// Has `watch` called before each call, on its thread and before anything of it is done.
    pub fn watch(&self, watch: impl FnMut(&Call) + Send + 'static) {
        *self.watch.lock() = Some(Box::new(watch));
    }

    pub fn watch_no_more(&self) {
        *self.watch.lock() = None;
    }

    /// Has some of the next calls fail.
    pub fn fail(&self, fault: Fault) {
        *self.fault.lock() = Some(fault);
    }

    /// From now on this thread is told that the disk is as full as so many files of the log make it; without any, that half of it is used.
    pub fn has_room_for(&self, segments: Option<usize>) {
        *self.room.lock() = segments.map(|segments| Room { by: std::thread::current().id(), segments, told: None });
    }

    /// From now on every call fails.
    pub fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Whether a call has failed because the script said so.
    pub fn has_failed(&self) -> bool {
        self.is_dead() || self.fault_met.load(Ordering::SeqCst)
    }

    /// The process has ended; the machine has not. Everything works again.
    pub fn restart(&self) {
        self.watch_no_more();
        self.dead.store(false, Ordering::SeqCst);
        self.fault_met.store(false, Ordering::SeqCst);
        *self.fault.lock() = None;
        // What is mapped and put again is written again, which cannot be seen here where it is the same as before.
        self.known.lock().given_up.retain(|(path, ..)| matches!(part_of(path), Part::Log | Part::Checkpoint));
    }

    /// From now on pages that a sync could not write go from memory, some at each call, also those that only look at something: they
    /// count as written, so the kernel may need the memory for something else. What is on the device is there then.
    pub fn forget_pages(&self, dice: Dice) {
        *self.forgets.lock() = Some(dice);
    }

    fn let_pages_go(&self) {
        let mut forgets = self.forgets.lock();
        if let Some(dice) = &mut *forgets {
            self.known.lock().let_pages_go(dice);
        }
    }

    fn act(&self, name: &'static str, path: &Path) -> io::Result<()> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        self.let_late_syncs_count();
        self.let_pages_go();
        if let Some(watch) = &mut *self.watch.lock() {
            watch(&Call { number, name, path: path.to_owned() });
        }
        if self.is_dead() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if name == "write" && path.ends_with("abort") {
            // A few bytes in the place of others get into memory without any device.
            return Ok(());
        }
        if let Some(fault) = &mut *self.fault.lock()
            && (!fault.only_syncs || name.starts_with("sync"))
        {
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.count > 0 {
                fault.count -= 1;
                self.fault_met.store(true, Ordering::SeqCst);
                return Err(io::Error::from_raw_os_error(fault.errno));
            }
        }
        match &mut *self.fails_after.lock() {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What of a commit is written: all of it, without a bug.
    fn committed<'a>(&self, path: &Path, file: &File, bytes: &'a [u8], at: u64) -> io::Result<&'a [u8]> {
        match self.bug {
            Some(Bug::CommitEndsEarly) => Ok(&bytes[..bytes.len() - PAGE]),
            Some(Bug::CommitBeginsLate) => {
                LocalDisk.write(path, file, &bytes[PAGE..], at + PAGE as u64)?;
                Ok(&[])
            }
            Some(Bug::CommitIsLate) => {
                let late = self.late_commit.lock().replace((path.to_owned(), bytes.to_vec(), at));
                // Unless it is gone.
                if let Some((path, bytes, at)) = late
                    && let Ok(file) = fs::OpenOptions::new().write(true).open(path)
                {
                    file.write_all_at(&bytes, at)?;
                }
                Ok(&[])
            }
            Some(Bug::CommitForgetsBegin) => {
                let place = (path.to_owned(), at);
                if self.last_commit.lock().replace(place.clone()) == Some(place) {
                    // Not direct, as memory that is on no page's border.
                    let mut bytes = bytes.to_vec();
                    bytes[..PAGE / 8].fill(0);
                    fs::OpenOptions::new().write(true).open(path)?.write_all_at(&bytes, at)?;
                    return Ok(&[]);
                }
                Ok(bytes)
            }
            _ => Ok(bytes),
        }
    }

    fn let_late_syncs_count(&self) {
        let mut late = self.late.lock();
        if std::mem::take(&mut late.checkpoint_was) {
            let mut known = self.known.lock();
            for (path, range, bytes) in late.syncs.drain(..) {
                known.note(&path, range, &bytes);
            }
        }
    }

    /// A sync of a range has ended so.
    fn synced(&self, path: &Path, range: Range<usize>, done: io::Result<()>) -> io::Result<()> {
        // First: of two syncs at a time, the later one has read the newer bytes.
        let mut known = self.known.lock();
        let bytes = fs::read(path)?;
        let range = range.start.min(bytes.len())..range.end.min(bytes.len());
        if done.is_err() && self.is_dead() {
            // No sync failed: the process had ended. One that was under way then has come to its end.
        } else if done.is_err() {
            known.give_up(path, range, &bytes);
        } else if matches!(self.bug, Some(Bug::SavedAheadOf(part)) if part == part_of(path)) {
            drop(known);
            self.late.lock().syncs.push((path.to_owned(), range, bytes));
        } else {
            known.note(path, range, &bytes);
        }
        done
    }

    /// What there is below `root` at this moment. Files that are as in `before` share their bytes with it.
    pub fn image(&self, root: &Path, before: Option<&Image>) -> Image {
        // Held until all is read: what is renamed meanwhile would be there under neither name.
        let held = self.known.lock();
        let known = held.below(root);
        let mut now = tree_of(root);
        for (path, node) in &mut now {
            let same = before.and_then(|before| before.now.get(path)).filter(|same| *same == node);
            if let Some(same) = same {
                node.clone_from(same);
            }
        }
        let states = self.states.lock();
        let states =
            states.iter().filter_map(|(path, state)| Some((path.strip_prefix(root).ok()?.to_owned(), state.clone())));
        let states = states.collect();
        drop(held);
        Image { now, known, states }
    }

    /// Leaves below `root` what may be there after the power went: of what was not synced, any pages, files and removals, each by
    /// itself, as `lost` says. To be called while nobody uses the files.
    pub fn power_loss(&self, root: &Path, mut lost: impl FnMut() -> bool) {
        let image = self.image(root, None);
        let left = image.after_power_cut(&mut Fate { lost: &mut lost, tears: None });
        fs::remove_dir_all(root).unwrap();
        write_tree(root, &left);
        self.all_is_synced(root);
        self.files_are_known_as_in(&image, root);
        self.power_losses.fetch_add(1, Ordering::SeqCst);
    }

    /// What is there below `root` after a power cut has the inodes, and the times of changes, that it had at that moment.
    pub fn files_are_known_as_in(&self, image: &Image, root: &Path) {
        let mut states = self.states.lock();
        states.clear();
        for (path, state) in &image.states {
            let path = root.join(path);
            if let Ok(bytes) = fs::read(&path) {
                states.insert(path, KnownState { content: Arc::new(bytes), ..state.clone() });
            }
        }
    }

    /// Flips a bit of what the device has of a file below `root`, if it `may`: of the log, queues, index, timers and what says how far they
    /// are, each as often. No call has any part in it, nor does the time of a change tell of it. To be called while nobody uses the files.
    pub fn flip(&self, root: &Path, dice: &mut Dice, may: impl FnOnce(&Flip) -> bool) -> Option<Flip> {
        const PARTS: [Part; 7] = [
            Part::Log,
            Part::Queues,
            Part::Index,
            Part::Timers,
            Part::TimersCheckpoint,
            Part::Checkpoint,
            // The list of queues and index files.
            Part::Root,
        ];
        let part = PARTS[dice.below(PARTS.len())];
        let is_of = |path: &Path| part_of(path) == part && (part != Part::Root || path.ends_with("inventory"));
        let mut files: Vec<_> = tree_of(root)
            .into_iter()
            .filter_map(|(path, node)| Some((path, node?)))
            .filter(|(path, _)| is_of(path))
            .collect();
        if files.is_empty() {
            return None;
        }
        let (path, bytes) = files.swap_remove(dice.below(files.len()));
        // Mostly where something is.
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let end = if dice.one_in(8) { bytes.len() } else { written };
        let at = dice.below(end);
        let flip = Flip { part, path, at, bit: dice.below(8) };
        let path = root.join(&flip.path);
        let mut known = self.known.lock();
        // What is in memory alone does not rot, and is written over what did.
        let is_on_device = known.content.get(&path).and_then(|content| content.get(at)) == bytes.get(at);
        if bytes.is_empty() || !is_on_device || known.given_up.iter().any(|(of, ..)| *of == path) || !may(&flip) {
            return None;
        }
        let rotten = bytes[at] ^ 1 << flip.bit;
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(&[rotten], at as u64))
            .unwrap();
        if let Some(content) = known.content.get_mut(&path) {
            Arc::make_mut(content)[at] = rotten;
        }
        if let Some(state) = self.states.lock().get_mut(&path).filter(|state| state.content == bytes) {
            Arc::make_mut(&mut state.content)[at] = rotten;
        }
        Some(flip)
    }

    /// What is there now below `root` is on the disk.
    pub fn all_is_synced(&self, root: &Path) {
        let tree = tree_of(root);
        let mut known = self.known.lock();
        *known = Known::default();
        for (path, node) in tree {
            let path = root.join(path);
            if let Some(bytes) = node {
                known.content.insert(path.clone(), bytes);
            }
            known.entries.insert(path);
        }
    }
}

impl Known {
    fn note(&mut self, path: &Path, range: Range<usize>, bytes: &[u8]) {
        let content = self.content.entry(path.to_owned()).or_default();
        let content = Arc::make_mut(content);
        content.resize(bytes.len(), 0);
        for start in range.clone().step_by(PAGE) {
            let page = start..range.end.min(start + PAGE);
            let is_given_up = |(of, at, lost): &(PathBuf, usize, Vec<u8>)| {
                of == path && *at == page.start && lost.as_slice() == &bytes[page.clone()]
            };
            if !self.given_up.iter().any(is_given_up) {
                content[page.clone()].copy_from_slice(&bytes[page]);
            }
        }
    }

    /// It will be written by the next sync, though it be the same bytes.
    fn written(&mut self, path: &Path, written: Range<u64>) {
        self.given_up.retain(|(of, from, bytes)| {
            let lost = *from as u64..(from + bytes.len()) as u64;
            of != path || lost.end <= written.start || written.end <= lost.start
        });
    }

    fn give_up(&mut self, path: &Path, range: Range<usize>, bytes: &[u8]) {
        for start in range.clone().step_by(PAGE) {
            let page = start..range.end.min(start + PAGE);
            self.given_up.push((path.to_owned(), start, bytes[page].to_vec()));
        }
    }

    fn let_pages_go(&mut self, dice: &mut Dice) {
        self.given_up.retain(|(path, at, lost)| {
            if !dice.one_in(GOES_ONE_IN) {
                return true;
            }
            let Ok(file) = fs::OpenOptions::new().read(true).write(true).open(path) else { return false };
            let mut page = vec![0; lost.len()];
            // One that was changed since is written by the next sync.
            if file.read_exact_at(&mut page, *at as u64).is_ok() && page == *lost {
                let on_disk = self.content.get(path).and_then(|content| content.get(*at..)).unwrap_or_default();
                page.fill(0);
                page.iter_mut().zip(on_disk).for_each(|(byte, known)| *byte = *known);
                file.write_all_at(&page, *at as u64).unwrap();
            }
            false
        });
    }

    /// A sync of everything has failed, with what was not on the disk before.
    fn give_up_what_is_new(&mut self, path: &Path, bytes: &[u8]) {
        let certain = self.content.get(path).cloned().unwrap_or_default();
        for start in (0..bytes.len()).step_by(PAGE) {
            let page = start..bytes.len().min(start + PAGE);
            if certain.get(page.clone()) != Some(&bytes[page.clone()]) {
                self.give_up(path, page, bytes);
            }
        }
    }

    /// Moves what is known of a path, and of what is below it, to another one. True if it was certain to be there.
    fn rename(&mut self, from: &Path, to: &Path) -> bool {
        let was_certain = self.entries.contains(from);
        let new = |path: &Path| match path.strip_prefix(from) {
            Ok(below) if below.as_os_str().is_empty() => Some(to.to_owned()),
            Ok(below) => Some(to.join(below)),
            Err(_) => None,
        };
        let moved: Vec<_> = self.entries.iter().filter_map(|path| Some((path.clone(), new(path)?))).collect();
        for (path, new) in moved {
            self.entries.remove(&path);
            self.entries.insert(new);
        }
        let moved: Vec<_> = self.content.keys().filter_map(|path| Some((path.clone(), new(path)?))).collect();
        for (path, new) in moved {
            if let Some(content) = self.content.remove(&path) {
                self.content.insert(new, content);
            }
        }
        was_certain
    }

    /// What is known of what is below `root`, by the path from there.
    fn below(&self, root: &Path) -> Known {
        let below = |path: &Path| path.strip_prefix(root).ok().map(Path::to_owned);
        let contents = |of: &BTreeMap<PathBuf, Arc<Vec<u8>>>| {
            of.iter().filter_map(|(path, bytes)| Some((below(path)?, Arc::clone(bytes)))).collect()
        };
        Known {
            content: contents(&self.content),
            entries: self.entries.iter().filter_map(|path| below(path)).collect(),
            replaced: contents(&self.replaced),
            moved: self.moved.iter().filter_map(|(from, to)| Some((below(from)?, below(to)?))).collect(),
            given_up: Vec::new(),
        }
    }
}

impl Image {
    /// What the power's going leaves.
    pub fn after_power_cut(&self, fate: &mut Fate<'_>) -> Tree {
        let (mut left, mut known) = (self.now.clone(), self.known.clone());
        for (from, to) in self.known.moved.iter().rev() {
            if !left.contains_key(to) {
                continue;
            }
            if !(fate.lost)() {
                // What has got there has it with what it is in.
                known.entries.extend(to.ancestors().skip(1).map(Path::to_owned));
            } else {
                // What was made in its old place came after it.
                left.retain(|path, _| !path.starts_with(from));
                let moved: Vec<_> = left.keys().filter(|path| path.starts_with(to)).cloned().collect();
                for path in moved {
                    let below = path.strip_prefix(to).unwrap();
                    let back = if below.as_os_str().is_empty() { from.clone() } else { from.join(below) };
                    let node = left.remove(&path).unwrap();
                    left.insert(back, node);
                }
                known.rename(to, from);
                // Both or neither: what had the new name has it still.
                if let Some(before) = self.known.replaced.get(to) {
                    left.insert(to.clone(), Some(Arc::clone(before)));
                    known.entries.insert(to.clone());
                    known.content.insert(to.clone(), Arc::clone(before));
                }
            }
        }
        for path in &known.entries {
            if left.contains_key(path) || self.now.contains_key(path) {
                continue;
            }
            // Removed, and the directory was not synced since. Whole directories stay gone: they are harmless when empty.
            let has_parent = path.parent().is_none_or(|dir| dir.as_os_str().is_empty() || left.contains_key(dir));
            if let (Some(content), true) = (known.content.get(path), has_parent)
                && (fate.lost)()
            {
                left.insert(path.clone(), Some(Arc::clone(content)));
            }
        }
        let paths: Vec<_> = left.keys().cloned().collect();
        for path in paths {
            let Some(node) = left.get(&path) else { continue };
            if !known.entries.contains(&path) && (fate.lost)() {
                left.retain(|other, _| !other.starts_with(&path));
            } else if let Some(now) = node {
                let mut bytes = now.to_vec();
                let before = known.content.get(&path).map_or(&[][..], |content| content);
                lose_pages(&path, &mut bytes, before, fate);
                if bytes != **now {
                    left.insert(path, Some(Arc::new(bytes)));
                }
            }
        }
        let is_moved = |path: &PathBuf| self.known.moved.iter().any(|(_, to)| to == path);
        for (path, before) in &known.replaced {
            if !is_moved(path) && left.contains_key(path) && (fate.lost)() {
                left.insert(path.clone(), Some(Arc::clone(before)));
            }
        }
        left
    }
}

/// The path of what was below `from`, or is it, when that is `to`.
fn moved_path(path: &Path, from: &Path, to: &Path) -> PathBuf {
    let below = path.strip_prefix(from).unwrap();
    if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) }
}

/// Whether a record begins there.
fn is_head(bytes: &[u8]) -> bool {
    let magic = bytes.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    magic.is_some_and(|magic| [MAGIC_V1, MAGIC_V2].contains(&magic))
}

/// Of the record that begins there.
fn stated_len(bytes: &[u8]) -> usize {
    bytes.first_chunk().map_or(0, |len| u32::from_be_bytes(*len) as usize)
}

fn lose_pages(path: &Path, bytes: &mut Vec<u8>, synced: &[u8], fate: &mut Fate<'_>) {
    let part = part_of(path);
    // What the checkpoint uses is in one sector, which no device tears.
    let page = if matches!(part, Part::Log | Part::Checkpoint) { LOG_PAGE } else { OTHER_PAGE };
    for (number, now) in bytes.chunks_mut(page).enumerate() {
        let at = number * page;
        let mut before = vec![0; now.len()];
        if let Some(known) = synced.get(at..synced.len().min(at + now.len())) {
            before[..known.len()].copy_from_slice(known);
        }
        if *now == before {
            continue;
        }
        if (fate.lost)() {
            now.copy_from_slice(&before);
        } else if let Some(dice) = &mut fate.tears
            && part != Part::Checkpoint
            && dice.one_in(3)
        {
            // As it was while it was being written to.
            let changed = |at: &usize| now[*at] != before[*at];
            let first = (0..now.len()).find(changed).unwrap_or(0);
            let last = (0..now.len()).rev().find(changed).unwrap_or(0);
            let torn = first + dice.below(last - first + 1);
            // What is changed in place is changed word by word.
            let torn = if matches!(part, Part::Queues | Part::Index) { torn - torn % 4 } else { torn };
            // A record's length is put when the rest of it is there.
            if part == Part::Log
                && let Some(head) = (first.saturating_sub(3)..torn).rev().find(|at| is_head(&now[*at..]))
                && head + stated_len(&now[head..]) > torn
            {
                now[head..head + 4].copy_from_slice(&before[head..head + 4]);
            }
            now[torn..].copy_from_slice(&before[torn..]);
        }
    }
    if let Some(dice) = &mut fate.tears
        && bytes.len() > synced.len()
        && dice.one_in(8)
    {
        // A length that was set is there or not; what was written to the end of a file is there up to somewhere.
        let grows = matches!(part, Part::Timers | Part::Aside);
        bytes.truncate(synced.len() + if grows { dice.below(bytes.len() - synced.len()) } else { 0 });
    }
}

/// What is below `dir`; what goes meanwhile may be in there or not.
fn read_tree(dir: &Path, below: &Path, tree: &mut Tree) {
    let Ok(entries) = fs::read_dir(dir.join(below)) else { return };
    for entry in entries.flatten() {
        let path = below.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            tree.insert(path.clone(), None);
            read_tree(dir, &path, tree);
        } else if let Ok(bytes) = fs::read(dir.join(&path)) {
            tree.insert(path, Some(Arc::new(bytes)));
        }
    }
}

/// What is below `dir`.
pub fn tree_of(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    read_tree(dir, Path::new(""), &mut tree);
    tree
}

/// Makes `dir` with that in it.
pub fn write_tree(dir: &Path, tree: &Tree) {
    fs::create_dir_all(dir).unwrap();
    for (path, node) in tree {
        match node {
            None => fs::create_dir_all(dir.join(path)).unwrap(),
            Some(bytes) => fs::write(dir.join(path), &**bytes).unwrap(),
        }
    }
}
