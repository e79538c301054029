//! The directories of the commit log: which segments are in them, and where the next one goes.
//!
//! All of them together are one log, whichever segment is where; no segment is in two. Java: MultiPathMappedFileQueue.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::checkpoint::Checkpoint;
use crate::config::StoreConfig;
use crate::disk::{Disk, DiskUsage};
use crate::error::OpenError;
use crate::files::{self, SegmentPath, segment_name};
use crate::inventory::Inventory;
use crate::lock::SideLock;
use crate::looking::Look;
use crate::mapped_file::LogFile;
use crate::segments::Segments;

const KEY: &str = "storePathCommitLog";
/// The queues are made again because they have entries of what is lost, which consumers would be given as zeros.
const GIVE_UP: &str = "put a file of zeros as long as the others in its place and remove the directories consumequeue and index, which are made again: all other messages are there";

#[derive(Debug)]
pub struct LogDirs {
    /// These take new segments. In the order that Java sorts them in, which is that of their text.
    writable: Vec<PathBuf>,
    /// In these nothing is made and nothing is changed. Segments that are too old go from here too.
    read_only: Vec<PathBuf>,
    segment_len: u64,
    /// A directory whose disk is fuller gets no segment while another is less full.
    used_ratio_max: Mutex<f64>,
    disk: Arc<dyn Disk>,
}

impl LogDirs {
    pub fn of(config: &StoreConfig) -> Result<LogDirs, OpenError> {
        let (named, read_only) = (config.commit_log_paths(), config.read_only_log_dirs.clone());
        check_log_dirs(&named, &read_only).map_err(|reason| OpenError::Config { key: KEY, reason })?;
        let mut writable = named;
        writable.retain(|dir| !read_only.contains(dir));
        writable.sort_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
        Ok(LogDirs {
            writable,
            read_only,
            segment_len: config.segment_len,
            used_ratio_max: Mutex::new(config.retention.forced_ratio),
            disk: Arc::clone(&config.disk),
        })
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        self.writable.iter().chain(&self.read_only).map(PathBuf::as_path)
    }

    /// Those that take segments.
    pub fn writable(&self) -> &[PathBuf] {
        &self.writable
    }

    /// From now on a directory counts as full when more of its disk is used.
    pub fn full_above(&self, used_ratio: f64) {
        *self.used_ratio_max.lock() = used_ratio;
    }

    /// The one to name where all are meant.
    pub fn first(&self) -> &Path {
        &self.writable[0]
    }

    /// Locks the directories that are there. One that is only read has to be.
    pub fn lock_present(&self) -> Result<Vec<SideLock>, OpenError> {
        if let Some(missing) = self.read_only.iter().find(|dir| !dir.is_dir()) {
            return Err(OpenError::MissingDir { path: missing.clone() });
        }
        if let Some(path) = self.writable.iter().find(|path| path.exists() && !path.is_dir()) {
            return Err(OpenError::WrongKind { path: path.clone(), expected: "directory" });
        }
        let present = || self.all().filter(|dir| dir.is_dir());
        let real: io::Result<Vec<_>> = present().map(std::fs::canonicalize).collect();
        check_apart(&real.map_err(OpenError::io("look at", self.first()))?)
            .map_err(|reason| OpenError::Config { key: KEY, reason })?;
        let locks: Result<Vec<_>, _> = present().map(SideLock::take).collect();
        Ok(locks?.into_iter().flatten().collect())
    }

    /// Makes the directories that are missing, and locks them.
    pub fn make_missing(&self) -> Result<Vec<SideLock>, OpenError> {
        let mut locks = Vec::new();
        for dir in self.writable.iter().filter(|dir| !dir.is_dir()) {
            files::make_dir(&*self.disk, dir).map_err(|source| OpenError::NotWritable { path: dir.clone(), source })?;
            locks.extend(SideLock::take(dir)?);
        }
        Ok(locks)
    }

    /// What is in the directories, if it is all that the log is known to have. Changes nothing that has anything in it.
    pub fn find_segments(&self, checkpoint: &Checkpoint, inventory: &Inventory) -> Result<Vec<SegmentPath>, OpenError> {
        let (placed, listed) = (checkpoint.found().map_or(0, |found| found.log), inventory.found().log_end);
        let known = if placed >= listed { (placed, checkpoint.path()) } else { (listed, inventory.path()) };
        let found = self.list(checkpoint.found_begin(), known.0)?;
        self.check_whole(&found, checkpoint, known)?;
        Ok(found)
    }

    /// Maps what is in the directories, if it is all that the log is known to have.
    pub fn open_segments(&self, checkpoint: &Checkpoint, inventory: &Inventory) -> Result<Segments, OpenError> {
        let found = self.find_segments(checkpoint, inventory)?;
        // Before this, nothing is changed that has anything in it.
        self.remove_copies()?;
        files::lengthen(&*self.disk, &found, self.segment_len)?;
        let open = |segment: &SegmentPath| {
            let open = if segment.read_only { LogFile::open_read_only } else { LogFile::open };
            let file = open(segment.path.clone(), segment.start).map_err(OpenError::io("map", &segment.path))?;
            Ok(Arc::new(file))
        };
        Ok(Segments::new(found.iter().map(open).collect::<Result<_, OpenError>>()?))
    }

    /// Removes what a truncation has left that did not come to its end: the segments themselves are all there is.
    fn remove_copies(&self) -> Result<(), OpenError> {
        for dir in &self.writable {
            for path in files::list_files(dir)?.iter().filter(|path| files::is_copy_of_segment(path)) {
                tracing::warn!(path = %path.display(), "removed the copy of a log file that a truncation has left");
                files::remove_file(&*self.disk, path).map_err(OpenError::io("remove", path))?;
            }
        }
        Ok(())
    }

    /// The segments of all directories, in order; the log was known to begin at `known_begin`, and to be on the disk up to `known_end`.
    fn list(&self, known_begin: Option<u64>, known_end: u64) -> Result<Vec<SegmentPath>, OpenError> {
        let mut found = Vec::new();
        for (dirs, read_only) in [(&self.writable, false), (&self.read_only, true)] {
            for dir in dirs {
                found.extend(files::find_segments(dir, read_only, self.segment_len)?);
            }
        }
        found.sort_by_key(|segment| segment.start);
        let mut found = without_unused_doubles(found, self.segment_len)?;
        files::drop_unused_last(&mut found, self.segment_len, known_end)?;
        files::check_lengths(&found, self.segment_len, "mappedFileSizeCommitLog")?;
        let mut run: Vec<SegmentPath> = Vec::with_capacity(found.len());
        // Deleted from the log, but the disk did not let them go.
        let is_left_over = |segment: &SegmentPath| {
            segment.read_only && known_begin.is_some_and(|begin| segment.start + self.segment_len <= begin)
        };
        let left_over = found.iter().take_while(|segment| is_left_over(segment)).count();
        if left_over > 0 && left_over < found.len() {
            tracing::warn!(
                before = found[left_over].start,
                "segments that were deleted are still in a read-only directory; passed over"
            );
            found.drain(..left_over);
        }
        for segment in found {
            if let Some(before) = run.last()
                && before.start + self.segment_len != segment.start
            {
                let missing = before.start + self.segment_len;
                let known_by = "there are segments before and after it".to_owned();
                return Err(self.missing(missing, known_by, GIVE_UP));
            }
            run.push(segment);
        }
        Ok(run)
    }

    /// That neither the first nor the last segments are missing, as happens when a disk is not mounted. The log would begin anew
    /// behind them, and when the disk is there again it would have two.
    fn check_whole(
        &self,
        segments: &[SegmentPath],
        checkpoint: &Checkpoint,
        (known_end, says): (u64, &Path),
    ) -> Result<(), OpenError> {
        let end = segments.last().map_or(0, |last| last.start + self.segment_len);
        if known_end > end {
            let known_by = format!("by the file {} the log goes up to {known_end}", says.display());
            let missing = if segments.is_empty() { known_end - 1 - (known_end - 1) % self.segment_len } else { end };
            return Err(self.missing(
                missing,
                known_by,
                "remove the files checkpoint and inventory beside it: the log then ends where its segments do",
            ));
        }
        let Some(first) = segments.first() else { return Ok(()) };
        // Somebody may delete the oldest segments by hand. Where that left no directory empty, no disk is missing.
        let Some(empty) = self.all().find(|dir| !has_segment(segments, dir)) else { return Ok(()) };
        match checkpoint.found_begin() {
            Some(begin) if begin < first.start => {
                let path = checkpoint.path().display();
                let known_by =
                    format!("by the file {path} the log begins at {begin}, and {} is empty", empty.display());
                Err(self.missing(begin, known_by, "remove that file: the log then begins where its segments do"))
            }
            None if first.start > 0 && self.read_only.iter().any(|dir| !has_segment(segments, dir)) => {
                let known_by = "a directory of readOnlyCommitLogStorePaths is empty".to_owned();
                Err(self.missing(first.start - self.segment_len, known_by, "take that directory off the list"))
            }
            _ => Ok(()),
        }
    }

    /// That queues do not lead beyond the log, where no checkpoint of ours tells its end; `queues_end` is where the last entry's
    /// record ends. After a crash they may, by what a power loss took, unless a directory is empty.
    pub fn check_reached(
        &self,
        segments: &Segments,
        queues_end: u64,
        checkpoint: &Checkpoint,
        clean: bool,
    ) -> Result<(), OpenError> {
        let end = segments.last().map_or(0, |last| last.end());
        let files = segments.all();
        let is_empty = |dir: &Path| !files.iter().any(|file| file.path().parent() == Some(dir));
        // Without any checkpoint nobody says that there was a log.
        let told = checkpoint.found().is_none() && checkpoint.log_time() > 0;
        if told && queues_end > end && (clean || self.all().any(is_empty)) {
            let known_by = format!("there are messages in queues up to {queues_end} of the log");
            let remedy = "remove the directory consumequeue: the queues are made again from what is there";
            return Err(self.missing(end, known_by, remedy));
        }
        Ok(())
    }

    fn missing(&self, start: u64, known_by: String, if_lost: &'static str) -> OpenError {
        let dirs = self.all().map(Path::to_owned).collect();
        OpenError::MissingSegment { segment: segment_name(start), known_by, dirs, if_lost }
    }

    /// Makes the segment at `start`, its directory entry durable too, where nothing of the log begins yet: what is at its path came
    /// of an attempt that failed. A directory that does not take it is passed over for another.
    pub fn make_segment(&self, start: u64) -> io::Result<LogFile> {
        let mut failures = Vec::new();
        for dir in self.places_for(start) {
            match self.make_in(dir, start) {
                Ok(file) => {
                    for (dir, error) in failures {
                        let dir: &Path = dir;
                        tracing::warn!(dir = %dir.display(), %error, instead = %file.path().display(), "a directory takes no commit log segment; passed over");
                    }
                    return Ok(file);
                }
                Err(error) => failures.push((dir, error)),
            }
        }
        Err(all_of(failures))
    }

    /// The directories to try for a segment, in this order: by its number those with room, then the others. Java:
    /// MultiPathMappedFileQueue.tryCreateMappedFile, which tries the first one only.
    fn places_for(&self, start: u64) -> Vec<&Path> {
        let most = *self.used_ratio_max.lock();
        let is_full = |dir: &Path| self.disk.usage(dir).is_ok_and(|usage| usage.used_ratio > most);
        let all = self.writable.iter().map(PathBuf::as_path);
        // One gets all, full or not, and nobody need ask.
        let (mut full, mut places): (Vec<_>, Vec<_>) = all.partition(|dir| self.writable.len() > 1 && is_full(dir));
        if places.is_empty() {
            std::mem::swap(&mut full, &mut places);
        }
        let count = places.len();
        // Less than there are directories.
        places.rotate_left((start / self.segment_len % count as u64) as usize);
        places.extend(full);
        places
    }

    /// Makes a file that has the first `to` bytes of a segment, for its place: see [`LogFile::shortened`]. Gives where it is, too.
    pub fn make_shortened(&self, of: &Arc<LogFile>, look: &Look<'_>, to: usize) -> io::Result<(PathBuf, LogFile)> {
        let aside = files::copy_of_segment(of.path());
        self.remove_segment(&aside)?;
        self.check_room(aside.parent().unwrap_or(Path::new(".")))?;
        match of.shortened(&*self.disk, look, &aside, to) {
            Ok(file) => Ok((aside, file)),
            Err(error) => {
                self.give_up_copy(&aside);
                Err(error)
            }
        }
    }

    /// Removes a copy that is not needed; one that stays is removed by the next open.
    pub fn give_up_copy(&self, aside: &Path) {
        if let Err(error) = self.remove_segment(aside) {
            tracing::warn!(path = %aside.display(), %error, "the copy of a log file stays behind; the next start removes it");
        }
    }

    /// The files of segments behind `start` that there are, whether the log has come to them or not; the last one first.
    pub fn files_behind(&self, start: u64) -> Result<Vec<PathBuf>, OpenError> {
        let mut found = Vec::new();
        for dir in &self.writable {
            found.extend(files::named_files(dir)?.segments);
        }
        // Others are no segments to an open either.
        found.retain(|found| found.start > start && self.is_segment(found));
        found.sort_by_key(|segment| std::cmp::Reverse(segment.start));
        Ok(found.into_iter().map(|segment| segment.path).collect())
    }

    /// Removes the files of all segments, and what truncations have left, durably. While nobody makes any.
    pub fn remove_all(&self) -> Result<(), OpenError> {
        for dir in self.writable.iter().filter(|dir| dir.is_dir()) {
            let found = files::named_files(dir)?;
            let segments = found.segments.iter().filter(|found| self.is_segment(found)).map(|found| &found.path);
            let copies = found.strange.iter().filter(|path| files::is_copy_of_segment(path));
            for path in segments.chain(copies) {
                self.remove_segment(path).map_err(OpenError::io("remove", path))?;
            }
            self.disk.sync_dir(dir).map_err(OpenError::io("sync", dir))?;
        }
        Ok(())
    }

    /// A segment in a directory in which nothing is changed, whether it is the log's still or was deleted from it.
    pub fn any_read_only(&self) -> Result<Option<PathBuf>, OpenError> {
        for dir in &self.read_only {
            if let Some(found) = files::named_files(dir)?.segments.into_iter().find(|found| self.is_segment(found)) {
                return Ok(Some(found.path));
            }
        }
        Ok(None)
    }

    /// Whether it is one to an open, whole or not.
    fn is_segment(&self, found: &SegmentPath) -> bool {
        found.len == self.segment_len || found.start.is_multiple_of(self.segment_len)
    }

    /// Removes one that was made and is not needed.
    pub fn remove_segment(&self, path: &Path) -> io::Result<()> {
        files::remove_file(&*self.disk, path)
    }

    fn make_in(&self, dir: &Path, start: u64) -> io::Result<LogFile> {
        let path = dir.join(segment_name(start));
        self.remove_segment(&path)?;
        self.check_room(dir)?;
        LogFile::create(&*self.disk, path.clone(), start, self.segment_len)
            .and_then(|file| self.disk.sync_dir(dir).map(|()| file))
            .inspect_err(|_| {
                // Another directory may get this segment now.
                if let Err(error) = self.remove_segment(&path) {
                    tracing::warn!(path = %path.display(), %error, "a segment that could not be made stays behind; the next start passes it over");
                }
            })
    }

    /// That a segment fits. What does not is not begun: a file system may give all it has before it says so, which others miss meanwhile,
    /// and who looks then sees a full disk.
    fn check_room(&self, dir: &Path) -> io::Result<()> {
        // Where it cannot be told, the attempt tells.
        match self.disk.usage(dir) {
            Ok(DiskUsage { free_bytes, .. }) if free_bytes < self.segment_len => {
                let reason = format!(
                    "a commit log segment takes {} bytes, {free_bytes} are free for {}",
                    self.segment_len,
                    dir.display()
                );
                Err(io::Error::new(io::ErrorKind::StorageFull, reason))
            }
            _ => Ok(()),
        }
    }

    /// How full the least full of the disks that take segments is: while one has room, the log goes on. Where one cannot be asked, it may
    /// be that one, unless another has no more used than `used_max`.
    pub fn least_used(&self, used_max: f64) -> io::Result<(&Path, DiskUsage)> {
        let mut least: Option<(&Path, DiskUsage)> = None;
        let mut failure = None;
        for dir in &self.writable {
            match self.disk.usage(dir) {
                Ok(usage) if least.is_none_or(|(_, known)| usage.used_ratio < known.used_ratio) => {
                    least = Some((dir, usage))
                }
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        match (least, failure) {
            (Some(least), None) => Ok(least),
            (Some(least), Some(_)) if least.1.used_ratio <= used_max => Ok(least),
            (_, failure) => Err(failure.unwrap_or_else(|| io::ErrorKind::NotFound.into())),
        }
    }
}

fn has_segment(segments: &[SegmentPath], dir: &Path) -> bool {
    segments.iter().any(|segment| segment.path.parent() == Some(dir))
}

/// Of files for the same segment the one that was used. A directory that took none leaves such a file at worst, and so does Java's
/// broker, which makes files ahead and forgets those of a directory that is full by then.
fn without_unused_doubles(found: Vec<SegmentPath>, len: u64) -> Result<Vec<SegmentPath>, OpenError> {
    let mut single: Vec<SegmentPath> = Vec::with_capacity(found.len());
    for segment in found {
        let Some(other) = single.last().filter(|last| last.start == segment.start) else {
            single.push(segment);
            continue;
        };
        match (files::is_blank(&other.path)?, files::is_blank(&segment.path)?) {
            (false, false) => {
                return Err(OpenError::DoubleSegment { one: other.path.clone(), other: segment.path });
            }
            // The one that can be gone on in, if it is whole.
            (true, true) if other.len == len => segment.drop_unused()?,
            (false, true) => segment.drop_unused()?,
            (true, _) => {
                other.drop_unused()?;
                single.pop();
                single.push(segment);
            }
        }
    }
    Ok(single)
}

/// One error for several directories. That there is no room counts before all else: it is what an operator can help.
fn all_of(mut failures: Vec<(&Path, io::Error)>) -> io::Error {
    let no_room = |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let telling = failures.iter().position(|(_, error)| no_room(error)).unwrap_or(0);
    if failures.len() <= 1 {
        return failures.pop().map_or_else(|| io::ErrorKind::NotFound.into(), |(_, error)| error);
    }
    let text: Vec<_> = failures.iter().map(|(dir, error)| format!("{}: {error}", dir.display())).collect();
    io::Error::new(failures[telling].1.kind(), text.join("; "))
}

/// Whether a log can have these directories; if not, why. One that is in both lists is only read, as in Java.
pub fn check_log_dirs(writable: &[PathBuf], read_only: &[PathBuf]) -> Result<(), String> {
    check_apart(writable)?;
    check_apart(read_only)?;
    let (both, mut all): (Vec<_>, Vec<_>) = writable.iter().cloned().partition(|dir| read_only.contains(dir));
    if all.is_empty() {
        let what = if both.is_empty() {
            "there is no directory"
        } else {
            "all directories are in readOnlyCommitLogStorePaths too"
        };
        return Err(format!("{what}: new messages need one"));
    }
    all.extend(read_only.iter().cloned());
    check_apart(&all)
}

/// No directory is there twice or lies in another: what is in it would be there twice, or go with the other.
fn check_apart(dirs: &[PathBuf]) -> Result<(), String> {
    for (at, one) in dirs.iter().enumerate() {
        for other in &dirs[at + 1..] {
            if one == other {
                return Err(format!("{} is there twice", one.display()));
            }
            let (inner, outer) = if one.starts_with(other) { (one, other) } else { (other, one) };
            if inner.starts_with(outer) {
                let (inner, outer) = (inner.display(), outer.display());
                return Err(format!("{inner} lies inside {outer}: each needs a directory of its own"));
            }
        }
    }
    Ok(())
}
