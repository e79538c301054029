//! The table of consume queues.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferromq_protocol::QueueId;
use foldhash::HashMap;
use parking_lot::{Mutex, RwLock};

use crate::consume_queue::ConsumeQueue;
use crate::disk::{Disk, is_failed_sync};
use crate::error::OpenError;
use crate::files::{self, SegmentNames, SegmentPath};
use crate::graves::GRAVES;
use crate::interrupt::Interrupt;
use crate::mappings::Mappings;
use crate::queue_file::ENTRY_LEN;
use crate::several::{for_all, one_by_one};

/// Every queue of every topic. A queue is made by the first append to it, or found on the disk.
#[derive(Debug)]
pub struct Queues {
    dir: PathBuf,
    file_entries: u64,
    mappings: Arc<Mappings>,
    /// Per topic, ordered by id.
    table: RwLock<HashMap<Arc<str>, Vec<Arc<ConsumeQueue>>>>,
    /// What an open has found and cannot use.
    unfit: Mutex<Unfit>,
    /// Queues with entries that are not on the disk.
    dirty: Mutex<Vec<Arc<ConsumeQueue>>>,
    /// How often they were taken from there, and once: a queue that notes this number is among them.
    round: AtomicU64,
    /// Where the log began when all of them were made to begin with it.
    log_begins_at: AtomicU64,
}

impl Queues {
    /// Opens what is on the disk. What does not fit, files that are missing between others included, is found out and touched by
    /// nobody: see [`Queues::unfit`].
    pub fn open(
        dir: PathBuf,
        file_entries: u64,
        mappings_max: usize,
        interrupt: &Interrupt,
    ) -> Result<Queues, OpenError> {
        let file_len = file_entries * ENTRY_LEN as u64;
        let mappings = Arc::new(Mappings::new(mappings_max));
        let unless_stopped = || interrupt.check().map_err(|_| OpenError::Interrupted);
        let mut unfit = Unfit::default();
        let (files, topic_dirs) = files::list_all(&dir)?;
        unfit.others.extend(files.into_iter().map(|path| (path, "no directory of a topic")));
        let topics = for_all(topic_dirs, |dir| unless_stopped().and_then(|()| topic_in(dir)));
        let mut table: HashMap<Arc<str>, Vec<Arc<ConsumeQueue>>> = HashMap::default();
        let mut queue_dirs = Vec::new();
        for topic in topics {
            let Some(topic) = topic? else { continue };
            unfit.others.extend(topic.strange.into_iter().map(|path| (path, "no directory of a queue")));
            queue_dirs.extend(topic.queues.into_iter().map(|(id, dir)| (Arc::clone(&topic.name), id, dir)));
            table.insert(topic.name, Vec::new());
        }
        let found = for_all(queue_dirs, |(topic, id, dir)| -> Result<_, OpenError> {
            unless_stopped()?;
            let files = files::named_files(&dir)?;
            Ok((topic, id, dir, files))
        });
        let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
        check_setting(|| found.iter().flat_map(|(.., files)| &files.segments), file_len)?;
        let opened = for_all(found, |(topic, id, dir, files)| -> Result<_, OpenError> {
            unless_stopped()?;
            let mut unfit = Unfit::default();
            let segments = fitting(files, file_len, &mut unfit)?;
            let queue = ConsumeQueue::open(Arc::clone(&topic), id, dir, segments, file_entries, Arc::clone(&mappings))?;
            Ok((topic, queue, unfit))
        });
        for opened in opened {
            let (topic, queue, of_queue) = opened?;
            unfit.files.extend(of_queue.files);
            table.entry(topic).or_default().push(Arc::new(queue));
        }
        Ok(Queues {
            dir,
            file_entries,
            mappings,
            table: RwLock::new(table),
            unfit: Mutex::new(unfit),
            dirty: Mutex::default(),
            round: AtomicU64::new(1),
            log_begins_at: AtomicU64::new(0),
        })
    }

    /// Whether there were files of queues that could not be used, so that entries are missing.
    pub fn are_damaged(&self) -> bool {
        !self.unfit.lock().files.is_empty()
    }

    /// Makes room for what is made in place of what could not be used.
    pub fn set_unfit_aside(&self, disk: &dyn Disk, root: &Path) -> io::Result<()> {
        let Unfit { files, others } = std::mem::take(&mut *self.unfit.lock());
        files.iter().chain(&others).try_for_each(|(path, why)| files::set_aside(disk, root, path, why))
    }

    pub fn find(&self, topic: &str, id: QueueId) -> Option<Arc<ConsumeQueue>> {
        let table = self.table.read();
        let queues = table.get(topic)?;
        let index = queues.binary_search_by_key(&id, |queue| queue.id()).ok()?;
        queues.get(index).cloned()
    }

    pub fn find_or_make(&self, topic: &str, id: QueueId) -> Arc<ConsumeQueue> {
        if let Some(queue) = self.find(topic, id) {
            return queue;
        }
        let mut table = self.table.write();
        let name = table.get_key_value(topic).map_or_else(|| Arc::from(topic), |(name, _)| Arc::clone(name));
        let queues = table.entry(Arc::clone(&name)).or_default();
        match queues.binary_search_by_key(&id, |queue| queue.id()) {
            Ok(index) => Arc::clone(&queues[index]),
            Err(index) => {
                let dir = self.dir.join(topic).join(id.to_string());
                let queue = Arc::new(ConsumeQueue::new(name, id, dir, self.file_entries, Arc::clone(&self.mappings)));
                queues.insert(index, Arc::clone(&queue));
                queue
            }
        }
    }

    pub fn all(&self) -> Vec<Arc<ConsumeQueue>> {
        self.table.read().values().flatten().cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.table.read().values().map(Vec::len).sum()
    }

    pub fn topics(&self) -> Vec<Arc<str>> {
        self.table.read().keys().cloned().collect()
    }

    /// The queues of a topic, by id.
    pub fn of_topic(&self, topic: &str) -> Vec<Arc<ConsumeQueue>> {
        self.table.read().get(topic).cloned().unwrap_or_default()
    }

    /// Takes a topic out of the table; its files are still there.
    pub fn take_topic(&self, topic: &str) -> Vec<Arc<ConsumeQueue>> {
        self.table.write().remove(topic).unwrap_or_default()
    }

    /// Where the log began when all of them had followed it there last.
    pub fn log_begins_at(&self) -> u64 {
        self.log_begins_at.load(Ordering::Acquire)
    }

    /// All begin with the log, which begins there.
    pub fn set_log_begins_at(&self, at: u64) {
        self.log_begins_at.store(at, Ordering::Release);
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Notes that a queue has something to be written out. To be called after that is there, with the dispatch held (or before
    /// there is one), or by the one who writes out.
    pub fn mark_dirty(&self, queue: &Arc<ConsumeQueue>) {
        let round = self.round.load(Ordering::Relaxed);
        // Looked at first: most are there already.
        if queue.listed_in.load(Ordering::Relaxed) != round && queue.listed_in.swap(round, Ordering::Relaxed) != round {
            self.dirty.lock().push(Arc::clone(queue));
        }
    }

    /// The queues that have something to be written out, for [`Queues::write_out`]. To be called by one at a time and with the
    /// dispatch held: then a put comes before this, and is written out, or after it, and finds its queue not noted. Is over at once.
    pub fn take_dirty(&self) -> Vec<Arc<ConsumeQueue>> {
        let mut dirty = self.dirty.lock();
        self.round.fetch_add(1, Ordering::Relaxed);
        dirty.iter().for_each(|queue| queue.note());
        std::mem::take(&mut dirty)
    }

    /// Writes out everything, where there is no dispatch (yet).
    pub fn flush(&self, disk: &dyn Disk, least_pages: u64) -> io::Result<()> {
        self.write_out(disk, least_pages, self.take_dirty(), &|| true)
    }

    /// Writes out what [`ConsumeQueue::flush`] says, of `dirty` queues, and makes the names of new files durable. What fails is
    /// tried again the next time, and keeps no other queue from the disk. One by one, as long as nobody is `hurried`: others wait for
    /// the disk too.
    pub fn write_out(
        &self,
        disk: &dyn Disk,
        least_pages: u64,
        dirty: Vec<Arc<ConsumeQueue>>,
        hurried: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let mut failed = FirstError::default();
        let mut renewed = Vec::new();
        let flushed = one_by_one(dirty, hurried, |queue| {
            let new_files = queue.take_new_files();
            let flushed = queue.flush(disk, least_pages);
            (queue, new_files, flushed)
        });
        for (queue, new_files, flushed) in flushed {
            if !matches!(flushed, Ok(true)) {
                self.mark_dirty(&queue);
            }
            failed.note(flushed.map(drop));
            if new_files {
                renewed.push(queue);
            }
        }
        // The queue's directory, the topic's and that of all topics: each may be new. Shared ones are synced once.
        let mut dirs: Vec<(&Path, Vec<&ConsumeQueue>)> = Vec::new();
        let mut places = HashMap::default();
        for queue in &renewed {
            for dir in queue.dir().ancestors().take(3) {
                let place = *places.entry(dir).or_insert(dirs.len());
                if place == dirs.len() {
                    dirs.push((dir, Vec::new()));
                }
                dirs[place].1.push(queue);
            }
        }
        let synced = one_by_one(dirs, hurried, |(dir, queues)| sync_dir_of(disk, dir, &queues));
        synced.into_iter().for_each(|done| failed.note(done));
        let failed = failed.result();
        if failed.is_err() {
            for queue in &renewed {
                queue.note_new_files();
                self.mark_dirty(queue);
            }
        }
        failed
    }
}

/// Syncs a directory of queues, for those whose files are not on their way out.
fn sync_dir_of(disk: &dyn Disk, dir: &Path, queues: &[&ConsumeQueue]) -> io::Result<()> {
    for queue in queues.iter().filter(|queue| !queue.is_going()) {
        let done = disk.sync_dir(dir);
        // It was taken away under it; there may be another queue in its place.
        if done.is_ok() || !queue.is_going() {
            return done;
        }
    }
    Ok(())
}

/// The directory of a topic.
struct TopicDir {
    name: Arc<str>,
    /// By id.
    queues: Vec<(QueueId, PathBuf)>,
    strange: Vec<PathBuf>,
}

/// `None` when its name is not one of a topic.
fn topic_in(dir: PathBuf) -> Result<Option<TopicDir>, OpenError> {
    let Some(name) = dir.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let mut queues = Vec::new();
    let (strange, queue_dirs) = files::list_all(&dir)?;
    for queue_dir in queue_dirs {
        match queue_dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()) {
            Some(id) => queues.push((QueueId(id), queue_dir)),
            None => tracing::warn!(path = %queue_dir.display(), "not a queue id; passed over"),
        }
    }
    queues.sort_by_key(|(id, _)| *id);
    Ok(Some(TopicDir { name: name.into(), queues, strange }))
}

/// What cannot be used, and why.
#[derive(Debug, Default)]
struct Unfit {
    /// Of queues.
    files: Vec<(PathBuf, &'static str)>,
    others: Vec<(PathBuf, &'static str)>,
}

/// A setting that was changed stops the open: it would cost a read of the whole log. It is told from damage by all files having one
/// length, and one that could be configured.
fn check_setting<'a, I>(files: impl Fn() -> I, file_len: u64) -> Result<(), OpenError>
where
    I: Iterator<Item = &'a SegmentPath>,
{
    // One that is empty was being made when the machine stopped.
    let used = || files().filter(|file| file.len > 0);
    let could_be_set = |file: &&SegmentPath| file.len != file_len && file.len.is_multiple_of(ENTRY_LEN as u64);
    let Some(first) = used().next().filter(could_be_set) else { return Ok(()) };
    if used().any(|other| other.len != first.len) {
        return Ok(());
    }
    let (path, key) = (first.path.clone(), "mappedFileSizeConsumeQueue");
    Err(OpenError::FileLength { path, found: first.len, expected: file_len, key })
}

/// The files of a queue that can be used; the others are added to `unfit`. A last one is removed when nothing was ever put into it: a
/// crash left it half allocated.
fn fitting(found: SegmentNames, file_len: u64, unfit: &mut Unfit) -> Result<Vec<SegmentPath>, OpenError> {
    let mut segments = found.segments;
    for path in found.strange {
        if path.is_dir() {
            unfit.files.push((path, "a directory in place of a file of a queue"));
        } else {
            tracing::warn!(path = %path.display(), "no file of a queue; passed over");
        }
    }
    files::drop_unused_last(&mut segments, file_len, 0)?;
    let mut fitting: Vec<SegmentPath> = Vec::with_capacity(segments.len());
    for segment in segments {
        if segment.len != file_len || !segment.start.is_multiple_of(file_len) {
            unfit.files.push((segment.path, "a file of a queue that has not the length of one"));
            continue;
        }
        if fitting.last().is_some_and(|before| before.start + file_len != segment.start) {
            let before =
                fitting.drain(..).map(|before| (before.path, "files between this one and the next are missing"));
            unfit.files.extend(before);
        }
        fitting.push(segment);
    }
    Ok(fitting)
}

/// The first error of several; or that of a sync, which is for good.
#[derive(Default)]
pub struct FirstError(Option<io::Error>);

impl FirstError {
    pub fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && (self.0.is_none() || is_failed_sync(&error))
        {
            self.0 = Some(error);
        }
    }

    pub fn result(self) -> io::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// Whether a topic can be the name of its directory.
pub fn is_directory_name(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= 255 && ![".", "..", GRAVES].contains(&topic) && !topic.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Queues::open(dir.path().to_owned(), 4, 1, &Interrupt::default());
        let queues = open().unwrap();
        assert!(queues.find("T", QueueId(3)).is_none());
        let three = queues.find_or_make("T", QueueId(3));
        queues.find_or_make("T", QueueId(1));
        assert!(Arc::ptr_eq(&three, &queues.find_or_make("T", QueueId(3))));
        assert_eq!(queues.of_topic("T").iter().map(|queue| queue.id().0).collect::<Vec<_>>(), [1, 3]);
        for _ in 0..3 {
            queues.mark_dirty(&three);
            queues.mark_dirty(&three);
            assert_eq!((queues.take_dirty().len(), queues.take_dirty().len()), (1, 0));
        }
        assert_eq!(queues.take_topic("T").len(), 2);
        assert_eq!(queues.count(), 0);
        std::fs::create_dir_all(dir.path().join("%RETRY%g/0")).unwrap();
        std::fs::create_dir_all(dir.path().join("%RETRY%g/strange")).unwrap();
        let again = open().unwrap();
        assert_eq!((again.count(), &*again.topics()[0]), (1, "%RETRY%g"));
    }

    #[test]
    fn names_that_would_leave_the_directory() {
        for bad in ["", ".", "..", ".deleted", "a/b", "a\0"] {
            assert!(!is_directory_name(bad), "{bad:?}");
        }
        assert!(is_directory_name("%RETRY%g"));
    }
}
