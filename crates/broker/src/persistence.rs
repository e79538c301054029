//! Config files on disk: JSON tables under `<store>/config/`, written by one thread, replaced atomically.
//!
//! A table asks for a save and goes on; requests that arrive while a save runs fold into the next one. Who must not answer before the
//! file is on disk hands over a callback. Replacing is `ferromq_config::replace_file`, which keeps the previous version as `.bak`.
//! Reading: `ferromq_config::read_saved`. Java: `ConfigManager`; spec store §12.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

pub use ferromq_config::LoadError;
use ferromq_config::{read_saved, replace_file};
use ferromq_protocol::json;
use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{error, warn};

/// Number of a requested save; grows by one per request.
pub type Revision = u64;

/// The one thread that writes config files.
pub struct Persistence {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    work: Mutex<Work>,
    wake: Condvar,
}

#[derive(Default)]
struct Work {
    queue: VecDeque<Arc<FileState>>,
    stopping: bool,
}

impl Persistence {
    pub fn start() -> io::Result<Persistence> {
        let shared = Arc::new(Shared { work: Mutex::new(Work::default()), wake: Condvar::new() });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("persistence".into()).spawn(move || worker.run())?;
        Ok(Persistence { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Declares a file; `render` gives its whole content at the moment of writing and must not touch this handle.
    pub fn file(&self, path: PathBuf, render: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> SavedFile {
        let state = FileState {
            path,
            render: Box::new(render),
            requested: AtomicU64::new(0),
            saved: AtomicU64::new(0),
            pending: Mutex::new(Pending::default()),
        };
        SavedFile { state: Arc::new(state), shared: Arc::clone(&self.shared) }
    }

    /// Writes what was requested so far and ends the thread. Nothing is written after it; `when_saved` then never calls back.
    pub fn stop(&self) {
        let thread = self.thread.lock().take();
        {
            let mut work = self.shared.work.lock();
            work.stopping = true;
            self.shared.wake.notify_all();
        }
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            error!("the persistence thread panicked; config files may be older than their tables");
        }
    }
}

impl Drop for Persistence {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self) {
        let mut work = self.work.lock();
        loop {
            match work.queue.pop_front() {
                Some(file) => {
                    drop(work);
                    file.save();
                    work = self.work.lock();
                }
                None if work.stopping => return,
                None => self.wake.wait(&mut work),
            }
        }
    }
}

/// One config file and how far it is saved.
pub struct SavedFile {
    state: Arc<FileState>,
    shared: Arc<Shared>,
}

struct FileState {
    path: PathBuf,
    render: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
    requested: AtomicU64,
    saved: AtomicU64,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    queued: bool,
    waiters: Vec<(Revision, Box<dyn FnOnce() + Send>)>,
}

impl SavedFile {
    /// Asks for the table, as it is now or later, to be written. Returns at once.
    pub fn request(&self) -> Revision {
        let revision = self.state.requested.fetch_add(1, Ordering::AcqRel) + 1;
        let mut pending = self.state.pending.lock();
        if !pending.queued {
            pending.queued = true;
            drop(pending);
            let mut work = self.shared.work.lock();
            if work.stopping {
                // Not written here: the caller may hold the lock that `render` takes.
                warn!(path = %self.state.path.display(), "a change came after the last save of the shutdown and is lost");
            } else {
                work.queue.push_back(Arc::clone(&self.state));
                self.shared.wake.notify_one();
            }
        }
        revision
    }

    /// Whether the request with this number has been carried out. One atomic load.
    pub fn is_saved(&self, revision: Revision) -> bool {
        self.state.saved.load(Ordering::Acquire) >= revision
    }

    /// Runs `done` once the request has been carried out: at once, or later on the persistence thread. A write that failed counts as
    /// carried out: it has been logged, the table in memory is right, and the next request tries again.
    pub fn when_saved(&self, revision: Revision, done: impl FnOnce() + Send + 'static) {
        let mut pending = self.state.pending.lock();
        if self.is_saved(revision) {
            drop(pending);
            done();
        } else {
            pending.waiters.push((revision, Box::new(done)));
        }
    }

    pub fn path(&self) -> &Path {
        &self.state.path
    }
}

impl FileState {
    fn save(&self) {
        // Cleared before rendering: a change after this line queues the file again.
        self.pending.lock().queued = false;
        let revision = self.requested.load(Ordering::Acquire);
        let content = (self.render)();
        if let Err(error) = replace_file(&self.path, &content) {
            error!(path = %self.path.display(), %error, "cannot save the config file; the table in memory stays valid");
        }
        let ready = {
            let mut pending = self.pending.lock();
            self.saved.fetch_max(revision, Ordering::AcqRel);
            let (ready, waiting): (Vec<_>, Vec<_>) =
                std::mem::take(&mut pending.waiters).into_iter().partition(|(wanted, _)| *wanted <= revision);
            pending.waiters = waiting;
            ready
        };
        for (_, done) in ready {
            done();
        }
    }
}

/// Reads a table, or its backup, or `None` when neither exists; see [`read_saved`] for what happens to one that cannot be read.
pub fn load<T: DeserializeOwned + Serialize + Default>(path: &Path) -> Result<Option<T>, LoadError> {
    read_saved(path, json::from_file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::mpsc;

    type Table = BTreeMap<String, i64>;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config/table.json");
        (directory, path)
    }

    #[test]
    fn a_missing_file_is_an_empty_table() {
        let (_directory, path) = path();
        assert!(load::<Table>(&path).unwrap().is_none());
    }

    #[test]
    fn a_damaged_file_is_kept_aside_when_its_backup_is_good() {
        let (_directory, path) = path();
        replace_file(&path, br#"{"a":1}"#).unwrap();
        replace_file(&path, br#"{"a":2}"#).unwrap();
        assert_eq!(load::<Table>(&path).unwrap().unwrap()["a"], 2);
        fs::write(&path, b"{\"a\":").unwrap();
        assert_eq!(load::<Table>(&path).unwrap().unwrap()["a"], 1);
        assert_eq!(fs::read(path.with_extension("json.damaged")).unwrap(), b"{\"a\":");
    }

    #[test]
    fn what_people_write_into_files_is_read() {
        let (_directory, path) = path();
        replace_file(&path, b"/* by hand */ {\n\t'a' : 1, // one\n}\n").unwrap();
        assert_eq!(load::<Table>(&path).unwrap().unwrap()["a"], 1);
    }

    #[test]
    fn a_damaged_file_without_a_good_backup_stops_the_start_and_says_where() {
        let (_directory, path) = path();
        replace_file(&path, b"{\n\t\"a\":1\n\t\"b\" 2}").unwrap();
        let error = load::<Table>(&path).unwrap_err().to_string();
        assert!(error.contains("table.json cannot be read: line 3, column 6: "), "{error}");
        assert!(error.contains("There is no ") && error.contains("Repair the file"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"{\n\t\"a\":1\n\t\"b\" 2}");
    }

    #[test]
    fn a_callback_runs_after_the_save_it_waits_for() {
        let (_directory, path) = path();
        let persistence = Persistence::start().unwrap();
        let file = persistence.file(path.clone(), || br#"{"a":7}"#.to_vec());
        let revision = file.request();
        let (done, saved) = mpsc::channel();
        file.when_saved(revision, move || done.send(()).unwrap());
        saved.recv().unwrap();
        assert!(file.is_saved(revision));
        assert_eq!(load::<Table>(&path).unwrap().unwrap()["a"], 7);
    }

    #[test]
    fn stopping_writes_what_was_requested() {
        let (_directory, path) = path();
        let persistence = Persistence::start().unwrap();
        let file = persistence.file(path.clone(), || br#"{"a":9}"#.to_vec());
        file.request();
        persistence.stop();
        assert_eq!(load::<Table>(&path).unwrap().unwrap()["a"], 9);
        let late = file.request();
        assert!(!file.is_saved(late));
    }
}
