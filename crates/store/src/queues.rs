//! The table of consume queues.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferromq_protocol::QueueId;
use foldhash::HashMap;
use parking_lot::{Mutex, RwLock};

use crate::config::StoreConfig;
use crate::consume_queue::ConsumeQueue;
use crate::disk::{Disk, is_failed_sync, sync_failed};
use crate::error::OpenError;
use crate::files::{self, SegmentNames, SegmentPath};
use crate::graves::GRAVES;
use crate::mappings::Mappings;
use crate::queue_file::ENTRY_LEN;
use crate::several::{for_all, one_by_one};
use crate::stamps::Stamped;

/// Every queue of every topic. A queue is made by the first append to it, or found on the disk.
#[derive(Debug)]
pub struct Queues {
    dir: PathBuf,
    /// By which all of its file system is synced: it tells of what could not be written since it was opened.
    file_system: FileSystem,
    file_entries: u64,
    /// At a stop, more queues than this are synced with all of the file system.
    single_syncs_max: usize,
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

#[derive(Debug)]
struct FileSystem {
    dir: File,
    device: u64,
}

impl Queues {
    /// Opens what is on the disk, but for queues that are `stamped` and as they were. What does not fit, files that are missing between
    /// others included, is found out and touched by nobody: see [`Queues::unfit`].
    pub fn open(config: &StoreConfig, stamped: Option<&Stamped<'_>>) -> Result<Queues, OpenError> {
        let (dir, interrupt, disk) = (config.queues_path(), &config.interrupt, &*config.disk);
        let (file_entries, file_len) = (config.queue_file_entries, config.queue_file_len());
        let mappings = Arc::new(Mappings::new(Arc::clone(&config.disk), config.queue_mappings_max));
        let opened = File::open(&dir).and_then(|dir_file| {
            let device = disk.state_of(&dir, &dir_file)?.device;
            Ok(FileSystem { dir: dir_file, device })
        });
        let file_system = opened.map_err(OpenError::io("open", &dir))?;
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
            if let Some(stamped) = stamped
                && let Some(listed) = stamped.find(disk, &topic, id, &dir)
            {
                let (log_min, mappings) = (stamped.log_min(), Arc::clone(&mappings));
                let queue = ConsumeQueue::listed(listed, log_min, Arc::clone(&topic), dir, file_entries, mappings);
                return Ok((topic, Found::Listed(queue)));
            }
            let files = files::named_files(&dir)?;
            Ok((topic, Found::Files(id, dir, files)))
        });
        let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
        // Files of the list have the length that is set: what has another is damaged.
        if !found.iter().any(|(_, found)| matches!(found, Found::Listed(_))) {
            check_setting(|| found.iter().flat_map(|(_, found)| found.segments()), file_len)?;
        }
        let opened = for_all(found, |(topic, found)| -> Result<_, OpenError> {
            unless_stopped()?;
            let mut unfit = Unfit::default();
            let (id, dir, files) = match found {
                Found::Listed(queue) => return Ok((topic, queue, unfit)),
                Found::Files(id, dir, files) => (id, dir, files),
            };
            let segments = fitting(files, file_len, &mut unfit)?;
            let queue = ConsumeQueue::open(Arc::clone(&topic), id, dir, segments, file_entries, Arc::clone(&mappings))?;
            Ok((topic, queue, unfit))
        });
        let (mut all, mut from_list) = (0, 0);
        for opened in opened {
            let (topic, queue, of_queue) = opened?;
            (all, from_list) = (all + 1, from_list + usize::from(queue.is_listed()));
            unfit.files.extend(of_queue.files);
            table.entry(topic).or_default().push(Arc::new(queue));
        }
        tracing::info!(queues = all, from_list, "queues found");
        Ok(Queues {
            dir,
            file_system,
            file_entries,
            single_syncs_max: config.queue_syncs_max,
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
        self.write_out_singly(disk, least_pages, self.take_dirty(), &|| true)
    }

    /// Writes out what [`ConsumeQueue::flush`] says, of `dirty` queues, and makes the names of new files durable. What fails is
    /// tried again the next time, and keeps no other queue from the disk. One by one, as long as nobody is `hurried`: others wait for
    /// the disk too. Many that are left then, with one sync of their file system.
    pub fn write_out(
        &self,
        disk: &dyn Disk,
        least_pages: u64,
        dirty: Vec<Arc<ConsumeQueue>>,
        hurried: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let (mut dirty, mut failed) = (dirty.into_iter(), FirstError::default());
        while dirty.len() > self.single_syncs_max && !hurried() {
            let next = dirty.by_ref().take(self.single_syncs_max.max(1)).collect();
            failed.note(self.write_out_singly(disk, least_pages, next, hurried));
        }
        let mut left: Vec<_> = dirty.collect();
        if left.len() > self.single_syncs_max {
            left = self.write_out_together(disk, left)?;
        }
        failed.note(self.write_out_singly(disk, least_pages, left, hurried));
        failed.result()
    }

    /// One sync for all of them. Gives those for which it was none.
    fn write_out_together(&self, disk: &dyn Disk, dirty: Vec<Arc<ConsumeQueue>>) -> io::Result<Vec<Arc<ConsumeQueue>>> {
        let begun: Vec<_> = dirty
            .into_iter()
            .map(|queue| (queue.take_new_files(), queue.begin_shared_flush(self.file_system.device), queue))
            .collect();
        let synced = match disk.sync_file_system(&self.dir, &self.file_system.dir) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
            synced => synced.map(|()| true).map_err(sync_failed),
        };
        let mut failed = FirstError::default();
        let mut left = Vec::new();
        for (new_files, flush, queue) in begun {
            let flushed = match (&synced, flush) {
                (Ok(true), Some(flush)) => queue.end_shared_flush(flush),
                _ => {
                    if new_files {
                        queue.note_new_files();
                    }
                    Ok(false)
                }
            };
            if !matches!(flushed, Ok(true)) {
                left.push(queue);
            }
            failed.note(flushed.map(drop));
        }
        failed.note(synced.map(drop));
        let failed = failed.result();
        if failed.is_err() {
            left.iter().for_each(|queue| self.mark_dirty(queue));
        }
        failed.map(|()| left)
    }

    fn write_out_singly(
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

/// A queue as it was found on the disk.
enum Found {
    Listed(ConsumeQueue),
    Files(QueueId, PathBuf, SegmentNames),
}

impl Found {
    fn segments(&self) -> &[SegmentPath] {
        if let Found::Files(_, _, files) = self { &files.segments } else { &[] }
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
        let queues_dir = dir.path().join("consumequeue");
        std::fs::create_dir(&queues_dir).unwrap();
        let config = StoreConfig { queue_file_entries: 4, queue_mappings_max: 1, ..StoreConfig::at(dir.path()) };
        let open = || Queues::open(&config, None);
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
        std::fs::create_dir_all(queues_dir.join("%RETRY%g/0")).unwrap();
        std::fs::create_dir_all(queues_dir.join("%RETRY%g/strange")).unwrap();
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
