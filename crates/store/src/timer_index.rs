//! Which message is due when: an index over the queue of timer messages, in files of one minute each.
//!
//! The messages themselves wait in the log; an entry here is 16 bytes: when one is due, and its place in the queue. Minutes that are near
//! are in memory, in order; a minute far away costs an append to its file and no memory, so three days of timers need none. Entries are
//! only ever appended; what a checkpoint does not cover is entered again out of the queue. Each has a sum, over the store and the minute
//! that it is of as well: a minute with one that is damaged or another store's, which might lead to another message or to none, is made
//! again out of the queue. Layout: docs/format.md, "Timers".
//!
//! A design of our own: Java's wheel (`TimerWheel`, `TimerLog`) knows whole seconds, and links entries backwards, so that its order is
//! found by walking chains on disk.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferromq_protocol::QueueOffset;

use parking_lot::Mutex;

use crate::disk::{Disk, is_failed_sync};
use crate::files::{make_dir, remove_file, replace, set_aside};
use crate::inventory::StoreId;
use crate::timer_checkpoint::{
    CheckpointFile, FilesOfMinutes, SavedCheckpoint, TimerCheckpoint, TimerCheckpointContent, path_in as checkpoint_in,
};
use crate::timer_minutes::{
    ENTRY_LEN, MINUTE_MS, Minute, RENEWED, Timer, append, count, encode, list_minutes, minute_of, minute_path,
    read_minute,
};

/// A minute comes into memory so long before it begins.
const AHEAD_MS: i64 = 5_000;
/// A file is made anew when so many of its entries count elsewhere, and no fewer than half of them: less than this is a block of the
/// disk.
const WASTE_MIN: u64 = 256;
/// Files made anew after one save: deliveries wait for it.
const COMPACTED_MAX: usize = 16;
/// Entries that wait in memory for room in their files: about 25 MB.
const UNWRITTEN_MAX: usize = 1_000_000;
/// Entries of files that are made anew, in memory at a time.
const RENEWED_AT_A_TIME: usize = 1 << 16;

/// All timers that wait. One thread owns it.
#[derive(Debug)]
pub struct TimerIndex {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The id of the store, which is in the sums of entries.
    store: u64,
    /// The queue is entered up to here.
    entered: QueueOffset,
    /// Everything due by then has been handed out.
    delivered_ms: i64,
    /// Entries of places before this one count no more.
    carried: QueueOffset,
    /// The highest that `delivered_ms` ever was.
    latest_ms: i64,
    near: BinaryHeap<Reverse<Timer>>,
    /// Minutes before this one are in `near`.
    near_end: i64,
    /// Minutes that have a file.
    minutes: BTreeMap<i64, Minute>,
    /// Those of them whose file is for the most part waste.
    wasteful: BTreeSet<i64>,
    /// Entries of minutes that are not in `near`, less those that count elsewhere.
    far_count: u64,
    /// Behind the last place of which a file has an entry.
    filed_end: QueueOffset,
    /// Entries that are not in their file yet.
    unwritten: Vec<Timer>,
    /// When the last of those was due that were delivered out of memory and are in no file.
    unfiled_ms: i64,
    /// The disk has no room for them.
    is_full: bool,
    /// Files written since the last checkpoint; and whether there are new ones.
    unsynced: BTreeSet<i64>,
    new_files: bool,
    /// As in the file.
    saved: TimerCheckpoint,
    /// The files lack something of this checkpoint: the queue is entered again up to where it was entered then. How far it is carried on is
    /// as in the file.
    lacking: Option<TimerCheckpoint>,
    /// The file of the checkpoint says that something is lacking, however much is entered again.
    lacking_is_saved: bool,
    /// The checkpoint counts on more than the files have, so that an open would take something for missing.
    counts_too_many: bool,
    /// Minutes of whose files nobody knows what is on the disk: after a failed sync the next one may succeed without having written
    /// anything.
    doubt: BTreeSet<i64>,
    checkpoint_file: Arc<Mutex<CheckpointFile>>,
    /// The file of this minute is not there or on a bad sector.
    lost: Option<i64>,
}

impl TimerIndex {
    /// Opens the index in `dir`, or makes it; a new one has delivered what was due by `delivered_ms`. What is of another store than `store` is
    /// not believed. The caller goes on entering from [`TimerIndex::entered`].
    pub fn open(disk: Arc<dyn Disk>, dir: PathBuf, store: StoreId, delivered_ms: i64) -> io::Result<TimerIndex> {
        put_aside_if_of_another(&*disk, &dir, store)?;
        make_dir(&*disk, &dir)?;
        // A checkpoint may be there whose name a save before a kill could not make durable.
        disk.sync_dir(&dir)?;
        let new = TimerCheckpoint { delivered_ms, latest_ms: delivered_ms, ..TimerCheckpoint::default() };
        let (mut checkpoint_file, told) = CheckpointFile::open(&*disk, &dir, Some(store.0))?;
        let mut minutes = list_minutes(&*disk, &dir)?;
        let path = checkpoint_in(&dir);
        let (mut entered, mut lacking, mut filed_end) = (QueueOffset(0), None, QueueOffset(0));
        let checkpoint = match told {
            TimerCheckpointContent::Checkpoint(SavedCheckpoint { checkpoint, files, store: owner, .. }) => {
                let is_old = owner != store.0;
                let (found, end) = count(&*disk, &dir, store.0, files, &mut minutes);
                if is_old {
                    tracing::info!(path = %path.display(), "the timers' files are of before entries said whose they are: what waits is entered again out of its queue");
                } else if found < files.entries {
                    let counted = Some(files.entries).filter(|_| files != FilesOfMinutes::LACKING);
                    tracing::error!(dir = %dir.display(), found, counted, "files of timers are missing, damaged or were cut off: what waits is entered again out of its queue");
                }
                if is_old || found < files.entries {
                    // What was before that is behind it once more. What has been delivered is to be passed over: see `was_dealt_with`.
                    entered = checkpoint.entered.min(checkpoint.carried);
                    lacking = Some(checkpoint);
                } else {
                    (entered, filed_end) = (checkpoint.entered, end);
                }
                checkpoint
            }
            TimerCheckpointContent::Nothing => {
                if !minutes.is_empty() {
                    tracing::warn!(path = %path.display(), "the timers have no checkpoint: all timer messages are entered again, those delivered too");
                }
                new
            }
            TimerCheckpointContent::Damaged => {
                tracing::warn!(path = %path.display(), "the timers' checkpoint is damaged: all timer messages are entered again, those delivered too");
                new
            }
        };
        // Of what is entered again nothing is left: some could not be believed, and others would be there twice. But first it is said that it
        // is not there any more.
        let is_said = match lacking {
            Some(lacking) if !minutes.is_empty() => {
                match checkpoint_file.write(&*disk, lacking, FilesOfMinutes::LACKING) {
                    Err(error) if is_no_room(&error) => false,
                    written => written.map(|()| true)?,
                }
            }
            Some(_) => true,
            None => !matches!(told, TimerCheckpointContent::Checkpoint(_)),
        };
        if is_said {
            for minute in std::mem::take(&mut minutes).into_keys() {
                remove_file(&*disk, &minute_path(&dir, minute))?;
            }
        }
        Ok(TimerIndex {
            disk,
            dir,
            store: store.0,
            entered,
            delivered_ms: checkpoint.delivered_ms,
            carried: checkpoint.carried,
            latest_ms: checkpoint.latest_ms,
            near: BinaryHeap::new(),
            near_end: i64::MIN,
            far_count: minutes.values().map(|minute: &Minute| minute.entries).sum(),
            minutes,
            wasteful: BTreeSet::new(),
            filed_end,
            unwritten: Vec::new(),
            unfiled_ms: i64::MIN,
            is_full: false,
            unsynced: BTreeSet::new(),
            new_files: false,
            saved: checkpoint,
            lacking,
            lacking_is_saved: false,
            counts_too_many: false,
            doubt: BTreeSet::new(),
            checkpoint_file: Arc::new(Mutex::new(checkpoint_file)),
            lost: None,
        })
    }

    /// From where the queue is to be entered; what [was dealt with](Self::was_dealt_with) is passed over.
    pub fn entered(&self) -> QueueOffset {
        self.entered
    }

    /// What this index stands for now; durable once handed to [`TimerIndex::save`]. Before all is entered again that files lack, that is
    /// what it was before, but for how far the queue is carried on: it would be forgotten what was dealt with.
    pub fn checkpoint(&self) -> TimerCheckpoint {
        if let Some(lacking) = self.lacking.filter(|_| !self.is_whole()) {
            return TimerCheckpoint { carried: self.carried, ..lacking };
        }
        TimerCheckpoint {
            entered: self.entered,
            delivered_ms: self.delivered_ms,
            carried: self.carried,
            latest_ms: self.latest_ms,
        }
    }

    /// What the queue has before it and waits is there once more, behind.
    pub fn carried(&self) -> QueueOffset {
        self.carried
    }

    /// Whether there is nothing to be saved.
    pub fn is_saved(&self) -> bool {
        let lacks_nothing = self.lacking.is_none() && !self.counts_too_many;
        self.checkpoint() == self.saved && (lacks_nothing || !self.is_whole())
    }

    /// What is durable.
    pub fn saved(&self) -> TimerCheckpoint {
        self.saved
    }

    /// Whether what is due then counts as delivered: such a timer must not be entered, because a restart passes over it.
    pub fn has_passed(&self, due_ms: i64) -> bool {
        due_ms <= self.delivered_ms
    }

    /// Whether a timer that is entered again, because files lack something, had been delivered or taken back before: the checkpoint says
    /// so, and not what has passed since, among which may be what could not be entered in time.
    pub fn was_dealt_with(&self, timer: &Timer) -> bool {
        self.lacking.is_some_and(|lacking| timer.offset < lacking.entered && timer.due_ms <= lacking.delivered_ms)
    }

    /// Whether all is entered again that files lack.
    pub fn is_whole(&self) -> bool {
        self.lacking.is_none_or(|lacking| lacking.entered <= self.entered)
    }

    /// Up to where the queue was entered, now or before files lacked something.
    pub fn entered_once(&self) -> QueueOffset {
        self.lacking.map_or(self.entered, |lacking| lacking.entered.max(self.entered))
    }

    /// The queue ends here: what comes to places behind was never entered. Durable when this returns.
    pub fn queue_ends(&mut self, end: QueueOffset) -> io::Result<()> {
        if let Some(lacking) = self.lacking.as_mut().filter(|lacking| lacking.entered > end) {
            lacking.entered = end;
            lacking.carried = lacking.carried.min(end);
            self.save_lacking()?;
        }
        if self.entered > end {
            self.skip_to(end);
            self.save(self.checkpoint())?;
        }
        Ok(())
    }

    /// What is entered again must not make up for what files lack: an open after a kill would take them for whole.
    fn save_lacking(&mut self) -> io::Result<()> {
        if let Some(lacking) = self.lacking {
            self.checkpoint_file.lock().write(&*self.disk, lacking, FilesOfMinutes::LACKING)?;
            self.saved = lacking;
            self.lacking_is_saved = true;
        }
        Ok(())
    }

    /// Takes back what counts as delivered, because the clock was set back: what is due at `due_ms` or later does not.
    pub fn go_back_before(&mut self, due_ms: i64) {
        self.delivered_ms = self.delivered_ms.min(due_ms.saturating_sub(1));
    }

    /// Enters the timer at [`TimerIndex::entered`], which moves on by one. `None` passes over a queue entry that is no timer.
    pub fn enter(&mut self, timer: Option<Timer>) {
        if let Some(timer) = timer {
            if minute_of(timer.due_ms) < self.near_end {
                self.near.push(Reverse(timer));
            } else {
                self.far_count += 1;
            }
            self.unwritten.push(timer);
        }
        self.entered = self.entered.next();
    }

    /// Goes on at a queue offset: what is in between is no longer there.
    pub fn skip_to(&mut self, entered: QueueOffset) {
        // Whatever takes those places from now on is not carried on, and was not dealt with.
        if let Some(lacking) = self.lacking.as_mut().filter(|_| entered < self.entered) {
            lacking.entered = lacking.entered.min(entered);
        }
        self.entered = entered;
        self.carried = self.carried.min(entered);
    }

    /// Which of these, that were entered, have not been handed out.
    pub fn waiting(&mut self, timers: &[Timer]) -> io::Result<Vec<Timer>> {
        self.write_what_fits()?;
        let is_near = |timer: &Timer| minute_of(timer.due_ms) < self.near_end;
        let asked: HashSet<QueueOffset> =
            timers.iter().filter(|timer| is_near(timer)).map(|timer| timer.offset).collect();
        let mut found = HashSet::new();
        if !asked.is_empty() {
            found.extend(self.near.iter().map(|Reverse(timer)| timer.offset).filter(|offset| asked.contains(offset)));
        }
        // Due by a time that was over once, before the clock was set back: what is left of it is in the files, or on its way there.
        let in_doubt = |timer: &Timer| !is_near(timer) && timer.due_ms <= self.latest_ms;
        let minutes: BTreeSet<i64> =
            timers.iter().filter(|timer| in_doubt(timer)).map(|timer| minute_of(timer.due_ms)).collect();
        for minute in minutes.into_iter().filter(|minute| self.minutes.contains_key(minute)) {
            found.extend(self.read(minute)?.into_iter().map(|timer| timer.offset));
        }
        found.extend(self.unwritten.iter().filter(|timer| in_doubt(timer)).map(|timer| timer.offset));
        let waits = |timer: &&Timer| {
            timer.due_ms > self.delivered_ms
                && if is_near(timer) || in_doubt(timer) { found.contains(&timer.offset) } else { true }
        };
        Ok(timers.iter().filter(waits).copied().collect())
    }

    /// All that the queue has before `offset` and that [waits](Self::waiting), which is `timers`, is there once more, behind; those here
    /// count no more, which is durable with the next checkpoint. What of it was not entered need not be.
    pub fn carry(&mut self, timers: &[Timer], offset: QueueOffset) {
        self.carried = self.carried.max(offset);
        let unwritten: BTreeSet<_> = self.unwritten.extract_if(.., |timer| timer.offset < offset).collect();
        let mut any_near = false;
        for timer in timers.iter().filter(|timer| timer.offset < self.entered) {
            let at = minute_of(timer.due_ms);
            if at < self.near_end {
                any_near = true;
            } else if unwritten.contains(timer) {
                self.far_count -= 1;
            } else if let Some(minute) = self.minutes.get_mut(&at).filter(|minute| minute.waiting() > 0) {
                minute.carried += 1;
                self.far_count -= 1;
                if minute.carried >= WASTE_MIN && minute.carried * 2 >= minute.entries {
                    self.wasteful.insert(at);
                }
            }
        }
        if any_near {
            self.near.retain(|Reverse(timer)| timer.offset >= self.carried);
        }
        self.entered = self.entered.max(offset);
    }

    /// Puts what was entered into the files; while the disk has no room for it, it stays in memory.
    pub fn write_what_fits(&mut self) -> io::Result<()> {
        match self.write() {
            Err(error) if is_no_room(&error) => {
                if !std::mem::replace(&mut self.is_full, true) {
                    tracing::error!(dir = %self.dir.display(), %error, "the timers' files have no room: what comes waits in memory and is delivered from there, up to {UNWRITTEN_MAX}; make room on the disk");
                }
                Ok(())
            }
            Err(error) => Err(error),
            Ok(()) => {
                if std::mem::take(&mut self.is_full) {
                    tracing::info!(dir = %self.dir.display(), "the timers' files have room again");
                }
                Ok(())
            }
        }
    }

    /// Whether more may be entered: what has no room on the disk must not become more and more. What was delivered needs none.
    pub fn takes_more(&mut self) -> bool {
        if self.unwritten.len() >= UNWRITTEN_MAX {
            self.drop_delivered();
        }
        self.unwritten.len() < UNWRITTEN_MAX
    }

    fn drop_delivered(&mut self) {
        let delivered = self.unwritten.extract_if(.., |timer| timer.due_ms <= self.delivered_ms);
        self.unfiled_ms = delivered.map(|timer| timer.due_ms).fold(self.unfiled_ms, i64::max);
    }

    /// Puts what was entered into the files.
    pub fn write(&mut self) -> io::Result<()> {
        if !self.unwritten.is_empty() && !self.lacking_is_saved {
            self.save_lacking()?;
        }
        self.unwritten.sort_unstable();
        let mut bytes = Vec::new();
        let mut written = 0;
        for timers in self.unwritten.chunk_by(|a, b| minute_of(a.due_ms) == minute_of(b.due_ms)) {
            let minute = minute_of(timers[0].due_ms);
            bytes.clear();
            encode(timers, self.store, &mut bytes);
            if let Err(error) = append(&*self.disk, &self.path(minute), &bytes) {
                self.unwritten.drain(..written);
                return Err(error);
            }
            let file = self.minutes.entry(minute).or_insert_with(|| {
                self.new_files = true;
                Minute::default()
            });
            file.entries += timers.len() as u64;
            let end = timers.iter().map(|timer| timer.offset.next()).max();
            self.filed_end = self.filed_end.max(end.unwrap_or_default());
            self.unsynced.insert(minute);
            written += timers.len();
        }
        self.unwritten.clear();
        Ok(())
    }

    /// When the next timer is due, or the next minute has to come into memory.
    pub fn next_ms(&self) -> Option<i64> {
        let near = self.near.peek().map(|Reverse(timer)| timer.due_ms);
        let far = self.far_begin().map(|begin| begin - AHEAD_MS);
        near.into_iter().chain(far).min()
    }

    /// No timer is due before this; where the first is not in memory, its minute begins then.
    pub fn earliest_ms(&self) -> Option<i64> {
        let near = self.near.peek().map(|Reverse(timer)| timer.due_ms);
        near.into_iter().chain(self.far_begin()).min()
    }

    fn far_begin(&self) -> Option<i64> {
        self.first_far(i64::MAX).map(|minute| minute * MINUTE_MS)
    }

    /// The first minute before `end` that is not in memory and has timers.
    fn first_far(&self, end: i64) -> Option<i64> {
        let far = self.near_end..end;
        let filed = self.minutes.range(far.clone()).next().map(|(minute, _)| *minute);
        let unwritten =
            self.unwritten.iter().map(|timer| minute_of(timer.due_ms)).filter(|minute| far.contains(minute));
        unwritten.chain(filed).min()
    }

    /// How many timers wait, cancelling ones included. What a crash had entered twice, and what was delivered of a minute before a
    /// restart, counts until the minute comes into memory.
    pub fn count(&self) -> u64 {
        self.near.len() as u64 + self.far_count
    }

    /// All timers of the earliest time that is not after `now_ms`, cancelling ones included; none when nothing is due.
    /// Once they are dealt with, [`TimerIndex::delivered`] says so.
    pub fn due(&mut self, now_ms: i64) -> io::Result<Vec<Timer>> {
        self.bring_near(now_ms)?;
        let mut due = Vec::new();
        while let Some(Reverse(timer)) = self.near.peek().copied()
            && timer.due_ms <= now_ms
            && due.first().is_none_or(|first: &Timer| first.due_ms == timer.due_ms)
        {
            self.near.pop();
            due.push(timer);
        }
        Ok(due)
    }

    /// What [`TimerIndex::due`] gave could not be dealt with; it gives it again.
    pub fn give_back(&mut self, due: Vec<Timer>) {
        self.near.extend(due.into_iter().map(Reverse));
    }

    /// After [`TimerIndex::due`] failed: the times whose file is lost, if that is why. Their timers are wanted by
    /// [`TimerIndex::restore`].
    pub fn lost(&self) -> Option<Range<i64>> {
        self.lost.map(|minute| minute * MINUTE_MS..(minute + 1) * MINUTE_MS)
    }

    /// Makes the file that is lost anew: `timers` are all of its time that the queue has before [`TimerIndex::entered`], and not before
    /// what the [saved](Self::saved) checkpoint says is carried on.
    pub fn restore(&mut self, timers: &[Timer]) -> io::Result<()> {
        let Some(minute) = self.lost else { return Ok(()) };
        let mut bytes = Vec::with_capacity(timers.len() * ENTRY_LEN);
        encode(timers, self.store, &mut bytes);
        replace(&*self.disk, &self.path(minute), &bytes)?;
        // Without what counts elsewhere or was there twice. Killed before the next save, what is not missing is entered again.
        self.counts_too_many = true;
        self.replaced(minute, timers);
        self.lost = None;
        Ok(())
    }

    /// The file of a minute that is not near has these entries from now on.
    fn replaced(&mut self, minute: i64, timers: &[Timer]) {
        let carried = timers.iter().filter(|timer| timer.offset < self.carried).count() as u64;
        let now = Minute { entries: timers.len() as u64, carried };
        let before = self.minutes.insert(minute, now).unwrap_or_default();
        self.far_count = self.far_count - before.waiting() + now.waiting();
    }

    /// Everything due by then has been dealt with.
    pub fn delivered(&mut self, due_ms: i64) {
        self.delivered_ms = self.delivered_ms.max(due_ms);
        self.latest_ms = self.latest_ms.max(due_ms);
    }

    /// Number of timers in memory.
    #[cfg(test)]
    fn near_count(&self) -> usize {
        self.near.len()
    }

    /// Makes `checkpoint`, an earlier [`TimerIndex::checkpoint`], durable, and removes files that it leaves behind.
    pub fn save(&mut self, checkpoint: TimerCheckpoint) -> io::Result<()> {
        if checkpoint == self.saved && self.is_saved() {
            return Ok(());
        }
        let save = self.begin_save(checkpoint)?;
        let outcome = save.run();
        self.end_save(&save, outcome)
    }

    /// The first part of [`TimerIndex::save`], for whoever does not want to wait for the disk: [`TimerSave::run`] on another thread
    /// follows, and then [`TimerIndex::end_save`]. One at a time. Where the files lack something, or are in doubt, the checkpoint alone is
    /// saved, and says so: a start enters again what waits.
    pub fn begin_save(&mut self, checkpoint: TimerCheckpoint) -> io::Result<TimerSave> {
        if !self.lacking_is_saved {
            // Not beside the save: the older one of the two would come last.
            self.save_lacking()?;
        }
        if !self.is_whole() || self.is_in_doubt() {
            return Ok(self.save_of_checkpoint(checkpoint));
        }
        self.write_what_fits()?;
        let first_kept = self.first_kept(checkpoint);
        let compacted = self.take_wasteful(checkpoint);
        let counted = |(at, minute): (&i64, &Minute)| compacted.get(at).copied().unwrap_or(minute.entries);
        let entries = self.minutes.range(first_kept..).map(counted).sum();
        // What has no room is entered again by the next start, which knows what was delivered; this checkpoint may not know it yet.
        let is_filed = self.unwritten.is_empty() && self.unfiled_ms <= checkpoint.delivered_ms;
        let files = if is_filed { FilesOfMinutes { entries, end: self.filed_end } } else { FilesOfMinutes::LACKING };
        Ok(TimerSave {
            minutes: std::mem::take(&mut self.unsynced),
            new_files: std::mem::take(&mut self.new_files),
            first_kept,
            compacted: compacted.into_keys().collect(),
            files,
            ..self.save_of_checkpoint(checkpoint)
        })
    }

    /// Of the checkpoint alone.
    fn save_of_checkpoint(&mut self, checkpoint: TimerCheckpoint) -> TimerSave {
        TimerSave {
            disk: Arc::clone(&self.disk),
            dir: self.dir.clone(),
            checkpoint_file: Arc::clone(&self.checkpoint_file),
            minutes: BTreeSet::new(),
            new_files: false,
            first_kept: i64::MIN,
            compacted: BTreeSet::new(),
            checkpoint,
            is_whole: self.is_whole(),
            files: FilesOfMinutes::LACKING,
            counts_too_many: std::mem::take(&mut self.counts_too_many),
        }
    }

    /// The clock may have been set back: what has not been delivered now keeps its file.
    fn first_kept(&self, saved: TimerCheckpoint) -> i64 {
        minute_of(saved.delivered_ms.min(self.delivered_ms))
    }

    /// `outcome` came of `save`.
    pub fn end_save(&mut self, save: &TimerSave, outcome: Result<(), TimerSaveError>) -> io::Result<()> {
        if let Err(error) = outcome {
            self.unsynced.extend(&save.minutes);
            self.new_files |= save.new_files;
            self.wasteful.extend(&save.compacted);
            self.counts_too_many |= save.counts_too_many;
            if let TimerSaveError::Sync(error) = &error {
                self.doubt.extend(&save.minutes);
                tracing::error!(dir = %self.dir.display(), files = self.doubt.len(), %error, "files of timers could not be synced: nobody knows what of them is on the disk, and they are made anew out of the timer queue");
                // An open must not believe them either, and has to know what was dealt with before the last one.
                let known = self.lacking.unwrap_or(self.saved);
                self.checkpoint_file.lock().write(&*self.disk, known, FilesOfMinutes::LACKING)?;
            }
            return Err(error.into());
        }
        self.saved = save.checkpoint;
        if save.is_whole {
            self.lacking = None;
        } else if let Some(lacking) = &mut self.lacking {
            lacking.carried = save.checkpoint.carried;
        }
        self.counts_too_many |= save.files == FilesOfMinutes::LACKING;
        // Those that the checkpoint counts stay.
        let first_kept = self.first_kept(self.saved).min(save.first_kept);
        while let Some(minute) = self.minutes.keys().next().copied().filter(|minute| *minute < first_kept) {
            remove_file(&*self.disk, &self.path(minute))?;
            let file = self.minutes.remove(&minute).unwrap_or_default();
            if minute >= self.near_end {
                self.far_count -= file.waiting();
            }
        }
        self.compact(&save.compacted);
        Ok(())
    }

    /// Whether there are files of which nobody knows what is on the disk, so that a start does not believe any: [`TimerIndex::renew`] makes
    /// an end of it.
    pub fn is_in_doubt(&self) -> bool {
        !self.doubt.is_empty()
    }

    /// Makes files anew that are in doubt, out of the queue, which begins at `begin`: `timer_at` gives what it has at a place. Waits for the
    /// disk, and reads all that waits.
    pub fn renew<E: From<io::Error>>(
        &mut self,
        begin: QueueOffset,
        mut timer_at: impl FnMut(QueueOffset) -> Result<Option<Timer>, E>,
    ) -> Result<(), E> {
        self.write()?;
        let mut files: BTreeMap<i64, Minute> = BTreeMap::new();
        for minute in &self.doubt {
            let path = self.path(*minute).with_extension(RENEWED);
            remove_file(&*self.disk, &path)?;
            self.disk.create(&path, 0)?;
            files.insert(*minute, Minute::default());
        }
        let mut timers = Vec::new();
        // After a kill, what is carried on since the checkpoint counts here again.
        let mut next = begin.max(self.saved.carried);
        while next < self.entered {
            if let Some(timer) = timer_at(next)?
                && let Some(file) = files.get_mut(&minute_of(timer.due_ms))
                && !self.was_dealt_with(&timer)
            {
                file.entries += 1;
                file.carried += u64::from(timer.offset < self.carried);
                timers.push(timer);
            }
            next = next.next();
            if timers.len() >= RENEWED_AT_A_TIME || next == self.entered {
                timers.sort_unstable();
                for timers in timers.chunk_by(|a, b| minute_of(a.due_ms) == minute_of(b.due_ms)) {
                    let mut bytes = Vec::with_capacity(timers.len() * ENTRY_LEN);
                    encode(timers, self.store, &mut bytes);
                    append(&*self.disk, &self.path(minute_of(timers[0].due_ms)).with_extension(RENEWED), &bytes)?;
                }
                timers.clear();
            }
        }
        for minute in files.keys() {
            let (path, renewed) = (self.path(*minute), self.path(*minute).with_extension(RENEWED));
            // A try that fails is of no consequence: the next one makes others.
            self.disk.sync_file(&renewed, &File::open(&renewed)?)?;
            self.disk.rename(&renewed, &path)?;
        }
        self.disk.sync_dir(&self.dir)?;
        tracing::info!(dir = %self.dir.display(), files = files.len(), "files of timers are made anew");
        // Without what counts elsewhere or was there twice. Killed before the next save, all is entered again.
        self.counts_too_many = true;
        for (minute, now) in files {
            self.unsynced.remove(&minute);
            let before = self.minutes.insert(minute, now).unwrap_or_default();
            if minute >= self.near_end {
                self.far_count = self.far_count - before.waiting() + now.waiting();
            }
        }
        self.doubt.clear();
        Ok(())
    }

    /// Some minutes whose files are to be made anew once `checkpoint` is saved, and how many entries these have then at least: it must
    /// not count on more.
    fn take_wasteful(&mut self, checkpoint: TimerCheckpoint) -> BTreeMap<i64, u64> {
        let mut taken = BTreeMap::new();
        while taken.len() < COMPACTED_MAX
            && let Some(minute) = self.wasteful.pop_first()
        {
            if minute < self.near_end || !self.minutes.contains_key(&minute) {
                continue;
            }
            match self.read_waiting(minute, checkpoint.carried) {
                Ok(timers) => drop(taken.insert(minute, timers.len() as u64)),
                Err(error) => self.stays_long(minute, &error),
            }
        }
        taken
    }

    /// It is as good as before, but for its length.
    fn stays_long(&self, minute: i64, error: &io::Error) {
        tracing::warn!(path = %self.path(minute).display(), %error, "a file of timers cannot be made shorter");
    }

    /// What the file of a minute has of places that are not before `carried`, once each.
    fn read_waiting(&self, minute: i64, carried: QueueOffset) -> io::Result<Vec<Timer>> {
        let mut timers = self.read(minute)?;
        timers.retain(|timer| timer.offset >= carried);
        timers.sort_unstable();
        timers.dedup();
        Ok(timers)
    }

    /// Makes files anew that are for the most part waste, lest one of a minute years away grow with each time its timers are carried on.
    fn compact(&mut self, minutes: &BTreeSet<i64>) {
        for minute in minutes.iter().copied() {
            if minute < self.near_end || !self.minutes.contains_key(&minute) {
                continue;
            }
            let path = self.path(minute);
            // After a kill, what is carried since the checkpoint counts here again.
            let made = self.read_waiting(minute, self.saved.carried).and_then(|timers| {
                let mut bytes = Vec::with_capacity(timers.len() * ENTRY_LEN);
                encode(&timers, self.store, &mut bytes);
                replace(&*self.disk, &path, &bytes)?;
                Ok(timers)
            });
            match made {
                Ok(timers) => self.replaced(minute, &timers),
                Err(error) => self.stays_long(minute, &error),
            }
        }
    }

    fn read(&self, minute: i64) -> io::Result<Vec<Timer>> {
        let path = self.path(minute);
        read_minute(&*self.disk, &path, self.store, minute)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))
    }

    /// Reads minutes that begin soon, and those that are past one at a time: after a long stop there may be days of them.
    fn bring_near(&mut self, now_ms: i64) -> io::Result<()> {
        self.lost = None;
        let end = minute_of(now_ms.saturating_add(AHEAD_MS)) + 1;
        while self.near_end < end && (self.near.is_empty() || self.near_end >= end - 1) {
            // First, because `enter` puts timers of this minute into memory only from now on: earlier ones must be in its file, or are
            // what there is no room for.
            self.write_what_fits()?;
            let minute = self.first_far(end);
            if let Some(minute) = minute {
                let path = self.path(minute);
                let file = self.minutes.get(&minute).copied();
                // Nothing that is due later may pass it: what has been delivered is one time for all of them.
                let read = file.map_or_else(|| Ok(Vec::new()), |_| read_minute(&*self.disk, &path, self.store, minute));
                let mut read = read.map_err(|error| {
                    let is_lost = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
                        || error.raw_os_error() == Some(EIO);
                    self.lost = is_lost.then_some(minute);
                    io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
                })?;
                let from_file = read.len();
                read.extend(self.unwritten.iter().filter(|timer| minute_of(timer.due_ms) == minute));
                self.far_count -= file.unwrap_or_default().waiting() + (read.len() - from_file) as u64;
                // A crash can leave entries that are newer than the checkpoint; they are entered again.
                read.retain(|timer| {
                    timer.due_ms > self.delivered_ms && (self.carried..self.entered).contains(&timer.offset)
                });
                read.sort_unstable();
                read.dedup();
                self.near.extend(read.into_iter().map(Reverse));
            }
            self.near_end = minute.map_or(end, |minute| minute + 1);
        }
        Ok(())
    }

    fn path(&self, minute: i64) -> PathBuf {
        minute_path(&self.dir, minute)
    }
}

/// What is to be made durable of an index that goes on meanwhile.
#[derive(Debug)]
pub struct TimerSave {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    checkpoint_file: Arc<Mutex<CheckpointFile>>,
    /// Files that the checkpoint builds on and that may not be on the disk; and whether their names may not be.
    minutes: BTreeSet<i64>,
    new_files: bool,
    /// Files of minutes before this one go then, and these are made anew without what counts elsewhere.
    first_kept: i64,
    compacted: BTreeSet<i64>,
    checkpoint: TimerCheckpoint,
    /// All was entered again that the files had lacked.
    is_whole: bool,
    /// Those that stay, when those are made anew.
    files: FilesOfMinutes,
    /// The checkpoint before did.
    counts_too_many: bool,
}

/// Why a save failed.
#[derive(Debug, thiserror::Error)]
pub enum TimerSaveError {
    /// Not to be tried again: the files of the save are in doubt.
    #[error(transparent)]
    Sync(io::Error),
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for TimerSaveError {
    fn from(error: io::Error) -> TimerSaveError {
        if is_failed_sync(&error) { TimerSaveError::Sync(error) } else { TimerSaveError::Io(error) }
    }
}

impl From<TimerSaveError> for io::Error {
    fn from(error: TimerSaveError) -> io::Error {
        match error {
            TimerSaveError::Sync(error) | TimerSaveError::Io(error) => error,
        }
    }
}

impl TimerSave {
    /// Waits for the disk.
    pub fn run(&self) -> Result<(), TimerSaveError> {
        for minute in &self.minutes {
            let path = minute_path(&self.dir, *minute);
            match File::open(&path) {
                Ok(file) => self.disk.sync_file(&path, &file).map_err(TimerSaveError::Sync)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.new_files {
            self.disk.sync_dir(&self.dir)?;
        }
        // If its own sync fails, it is written elsewhere the next time.
        self.checkpoint_file.lock().write(&*self.disk, self.checkpoint, self.files).map_err(TimerSaveError::Io)
    }
}

/// Moves the timers of another store away, lest its checkpoint be taken for what is known of ours.
fn put_aside_if_of_another(disk: &dyn Disk, dir: &Path, store: StoreId) -> io::Result<()> {
    let told = match TimerCheckpointContent::read(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        told => told?,
    };
    if let TimerCheckpointContent::Checkpoint(saved) = told
        && saved.store != 0
        && saved.store != store.0
    {
        tracing::error!(path = %checkpoint_in(dir).display(), "the timers' checkpoint is another store's: all timer messages are entered again, those delivered too");
        set_aside(disk, dir.parent().unwrap_or(dir), dir, "timers of another store")?;
    }
    Ok(())
}

/// As the system numbers a bad sector.
const EIO: i32 = 5;
fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) && !is_failed_sync(error)
}

#[cfg(test)]
#[path = "timer_index_test.rs"]
mod tests;
