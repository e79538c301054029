//! Config files on disk: JSON tables under `<store>/config/`, each written by a thread of its own and replaced atomically.
//!
//! A table asks for a save and goes on; requests that arrive while a save runs fold into the next one. Who must not answer before the
//! file is on disk hands over a callback, which is also told when a save fails. What was requested then stays to be saved: the table in
//! memory is not taken back, because others go by it already (messages are in a new topic before it is saved), and the save is tried
//! again until it succeeds. A thread per file, so that nobody waits for the sync of another table.
//!
//! Replacing is `ferromq_config::replace_file`, which keeps the previous version as `.bak`; reading is `ferromq_config::read_saved`.
//! Java: `ConfigManager`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use ferromq_config::LoadError;
use ferromq_config::{read_saved, replace_file};
use ferromq_protocol::json;
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{error, info, warn};

/// Pause after a save that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Why nothing is saved after a panic of the thread that does it.
const GONE: &str = "the thread that saves it is gone";

/// Number of a requested save; grows by one per request.
pub type Revision = u64;

/// Why a table cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("cannot start the thread that saves {path}: {source}")]
    Thread { path: String, source: io::Error },
    #[error(
        "{0}. It says more than the log has, and must be brought back first: make room or repair the disk, and start again"
    )]
    BroughtBack(SaveError),
}

/// Why a change is not on disk. Unless the broker stops, it will be tried again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{path} cannot be saved: {reason}")]
pub struct SaveError {
    path: Arc<str>,
    reason: Arc<str>,
}

/// The threads that write config files.
pub struct Persistence {
    retry_pause: Duration,
    files: Mutex<Vec<(Arc<FileState>, JoinHandle<()>)>>,
}

impl Default for Persistence {
    fn default() -> Persistence {
        Persistence::trying_every(RETRY_PAUSE)
    }
}

impl Persistence {
    /// With that pause after a save that failed.
    pub fn trying_every(retry_pause: Duration) -> Persistence {
        Persistence { retry_pause, files: Mutex::default() }
    }

    /// Declares a file; `render` gives its whole content at the moment of writing and must not touch this handle.
    pub fn file(
        &self,
        path: PathBuf,
        render: impl Fn() -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<SavedFile, TableError> {
        let state = Arc::new(FileState {
            render: Box::new(render),
            saved: AtomicU64::new(0),
            saving: Mutex::default(),
            wake: Condvar::new(),
            retry_pause: self.retry_pause,
            path,
        });
        let worker = Arc::clone(&state);
        let name = format!("save-{}", state.path.file_stem().unwrap_or_default().display());
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || worker.run())
            .map_err(|source| TableError::Thread { path: state.path.display().to_string(), source })?;
        self.files.lock().push((Arc::clone(&state), thread));
        Ok(SavedFile { state })
    }

    /// Writes what was requested so far and ends the threads. Nothing is written after it: who waits then is told so.
    pub fn stop(&self) {
        Persistence::end(std::mem::take(&mut *self.files.lock()));
    }

    /// [`stop`](Self::stop) for one file: another table may be declared for its path after it.
    pub fn stop_file(&self, file: &SavedFile) {
        let ending = self.files.lock().extract_if(.., |(state, _)| Arc::ptr_eq(state, &file.state)).collect();
        Persistence::end(ending);
    }

    fn end(files: Vec<(Arc<FileState>, JoinHandle<()>)>) {
        for (file, _) in &files {
            file.saving.lock().stopping = true;
            file.wake.notify_one();
        }
        for (file, thread) in files {
            if thread.join().is_err() {
                error!(path = %file.path.display(), "the thread that saves the config file panicked; it may be older than its table");
            }
        }
    }
}

impl Drop for Persistence {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One config file and how far it is saved.
#[derive(Clone)]
pub struct SavedFile {
    state: Arc<FileState>,
}

struct FileState {
    path: PathBuf,
    render: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
    /// Requests carried out. Written under the lock, so that nobody begins to wait for what has just been saved.
    saved: AtomicU64,
    saving: Mutex<SaveState>,
    wake: Condvar,
    retry_pause: Duration,
}

#[derive(Default)]
struct SaveState {
    requested: Revision,
    waiters: Vec<(Revision, Waiter)>,
    /// Of the last attempt.
    failure: Option<SaveError>,
    stopping: bool,
    /// Why nothing is saved any more.
    stopped: Option<&'static str>,
}

type Waiter = Box<dyn FnOnce(Result<(), SaveError>) + Send>;

impl SavedFile {
    /// Asks for the table, as it is now or later, to be written. Returns at once.
    pub fn request(&self) -> Revision {
        let mut saving = self.state.saving.lock();
        saving.requested += 1;
        if saving.stopped.is_some() {
            // Not written here: the caller may hold the lock that `render` takes.
            warn!(path = %self.state.path.display(), "a change came after the last save of the shutdown and is lost");
        }
        self.state.wake.notify_one();
        saving.requested
    }

    /// Number of the last request.
    pub fn requested(&self) -> Revision {
        self.state.saving.lock().requested
    }

    /// Whether the request with this number has been carried out. One atomic load.
    pub fn is_saved(&self, revision: Revision) -> bool {
        self.state.saved.load(Ordering::Acquire) >= revision
    }

    /// Why the last attempt failed, until one succeeds.
    pub fn failure(&self) -> Option<SaveError> {
        self.state.saving.lock().failure.clone()
    }

    /// Runs `done` once the request has been carried out, or with the cause when the next attempt fails: at once, or later on the
    /// thread that saves the file. After a failure the request stays, and is tried again.
    pub fn when_saved(&self, revision: Revision, done: impl FnOnce(Result<(), SaveError>) + Send + 'static) {
        let mut saving = self.state.saving.lock();
        let outcome = match (self.is_saved(revision), saving.stopped) {
            (true, _) => Ok(()),
            (false, Some(why)) => Err(self.state.failed(why)),
            (false, None) => return saving.waiters.push((revision, Box::new(done))),
        };
        drop(saving);
        done(outcome);
    }

    /// As [`when_saved`](Self::when_saved), for threads that may wait.
    pub fn wait_saved(&self, revision: Revision) -> Result<(), SaveError> {
        let (done, outcome) = mpsc::channel();
        // The receiver is there until it has been told.
        self.when_saved(revision, move |saved| _ = done.send(saved));
        outcome.recv().unwrap_or_else(|_| Err(self.state.failed(GONE)))
    }

    /// Saves what a start has brought back to the end of the log, before anything new is stored there: after a crash that would count as
    /// consumed or delivered. A log that has room in its file takes messages though the disk is full.
    pub fn save_brought_back(&self) -> Result<(), TableError> {
        self.wait_saved(self.request()).map_err(TableError::BroughtBack)
    }

    pub fn path(&self) -> &Path {
        &self.state.path
    }

    pub fn failed(&self, reason: &str) -> SaveError {
        self.state.failed(reason)
    }
}

impl FileState {
    fn run(&self) {
        let _end = EndOfSaves(self);
        let mut saving = self.saving.lock();
        loop {
            let revision = saving.requested;
            if self.saved.load(Ordering::Relaxed) == revision {
                if saving.stopping {
                    break;
                }
                self.wake.wait(&mut saving);
                continue;
            }
            let outcome = MutexGuard::unlocked(&mut saving, || replace_file(&self.path, &(self.render)()))
                .map_err(|error| self.failed(&error.to_string()));
            match &outcome {
                Ok(()) => {
                    self.saved.store(revision, Ordering::Release);
                    if saving.failure.take().is_some() {
                        info!(path = %self.path.display(), "the config file is saved again");
                    }
                }
                Err(error) if saving.stopping => error!(%error, "the last changes are lost"),
                Err(error) => {
                    if saving.failure.replace(error.clone()).is_none() {
                        error!(%error, "changes are in force but not on disk; trying again until they are");
                    }
                }
            }
            let waiters = std::mem::take(&mut saving.waiters);
            let (told, waiting): (Vec<_>, Vec<_>) = waiters.into_iter().partition(|(wanted, _)| *wanted <= revision);
            saving.waiters = waiting;
            MutexGuard::unlocked(&mut saving, || self.tell(told, &outcome));
            if outcome.is_err() {
                if saving.stopping {
                    break;
                }
                self.pause(&mut saving);
            }
        }
    }

    /// A panic of one of them costs nobody else his answer.
    fn tell(&self, waiters: Vec<(Revision, Waiter)>, outcome: &Result<(), SaveError>) {
        for (_, done) in waiters {
            if catch_unwind(AssertUnwindSafe(|| done(outcome.clone()))).is_err() {
                error!(path = %self.path.display(), "who waited for the config file to be saved panicked");
            }
        }
    }

    /// Not cut short by further requests, only by the end.
    fn pause(&self, saving: &mut MutexGuard<'_, SaveState>) {
        let until = Instant::now() + self.retry_pause;
        while !saving.stopping && !self.wake.wait_until(saving, until).timed_out() {}
    }

    fn failed(&self, reason: &str) -> SaveError {
        SaveError { path: self.path.display().to_string().into(), reason: reason.into() }
    }
}

/// Whatever ends the thread that saves a file, a panic too: who waits is told, and who comes later.
struct EndOfSaves<'a>(&'a FileState);

impl Drop for EndOfSaves<'_> {
    fn drop(&mut self) {
        let why = if std::thread::panicking() { GONE } else { "the broker is stopping" };
        let waiters = {
            let mut saving = self.0.saving.lock();
            saving.stopped = Some(why);
            std::mem::take(&mut saving.waiters)
        };
        self.0.tell(waiters, &Err(self.0.failed(why)));
    }
}

/// Reads a table, or its backup, or `None` when neither exists; see [`read_saved`] for what happens to one that cannot be read.
pub fn load<T: DeserializeOwned + Serialize + Default>(path: &Path) -> Result<Option<T>, LoadError> {
    read_saved(path, json::from_file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::eager_persistence;
    use std::collections::BTreeMap;
    use std::fs;

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
        let persistence = eager_persistence();
        let file = persistence.file(path.clone(), || br#"{"a":7}"#.to_vec()).unwrap();
        let revision = file.request();
        file.wait_saved(revision).unwrap();
        assert!(file.is_saved(revision));
        assert_eq!(load::<Table>(&path).unwrap().unwrap()["a"], 7);
    }

    #[test]
    fn a_save_that_failed_is_told_of_and_tried_again() {
        let (_directory, path) = path();
        let persistence = eager_persistence();
        let file = persistence.file(path.clone(), || br#"{"a":7}"#.to_vec()).unwrap();
        break_saves(&path, true);
        let revision = file.request();
        let error = file.wait_saved(revision).unwrap_err().to_string();
        assert!(error.contains("table.json cannot be saved: "), "{error}");
        assert_eq!(file.failure().unwrap().to_string(), error);
        assert!(!file.is_saved(revision));
        break_saves(&path, false);
        // Nobody asks again.
        while !file.is_saved(revision) {
            let _ = file.wait_saved(revision);
        }
        assert!(file.failure().is_none());
        assert_eq!(load::<Table>(&path).unwrap().unwrap()["a"], 7);
    }

    #[test]
    fn a_file_that_cannot_be_saved_holds_up_no_other() {
        let (_directory, stuck) = path();
        let other = stuck.with_file_name("other.json");
        let persistence = eager_persistence();
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        // A save that takes its time, as on a disk that is busy.
        let slow = persistence.file(stuck, move || {
            let _ = wait.lock().recv();
            b"{}".to_vec()
        });
        let slow = slow.unwrap();
        let waiting = slow.request();
        let quick = persistence.file(other, || b"{}".to_vec()).unwrap();
        let revision = quick.request();
        quick.wait_saved(revision).unwrap();
        assert!(!slow.is_saved(waiting));
        drop(go);
        slow.wait_saved(waiting).unwrap();
    }

    #[test]
    fn stopping_writes_what_was_requested() {
        let (_directory, path) = path();
        let persistence = eager_persistence();
        let file = persistence.file(path.clone(), || br#"{"a":9}"#.to_vec()).unwrap();
        file.request();
        persistence.stop();
        assert_eq!(load::<Table>(&path).unwrap().unwrap()["a"], 9);
        let late = file.request();
        assert!(!file.is_saved(late));
        assert!(file.wait_saved(late).is_err());
    }

    #[test]
    fn who_waits_for_a_save_is_told_when_its_thread_panics() {
        let (_directory, path) = path();
        let persistence = eager_persistence();
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let file = persistence.file(path, move || {
            let _ = wait.lock().recv();
            panic!("a table that cannot be rendered")
        });
        let file = file.unwrap();
        let revision = file.request();
        let (told, outcomes) = mpsc::channel();
        for panics in [true, false] {
            let told = told.clone();
            file.when_saved(revision, move |saved| {
                told.send(saved).unwrap();
                assert!(!panics, "a waiter of no use to the others");
            });
        }
        drop(go);
        for _ in 0..2 {
            let outcome = outcomes.recv_timeout(Duration::from_secs(60)).expect("nobody is told");
            let error = outcome.unwrap_err().to_string();
            assert!(error.ends_with("cannot be saved: the thread that saves it is gone"), "{error}");
        }
        // Who comes later as well, now and after the stop.
        file.wait_saved(file.request()).unwrap_err();
        persistence.stop();
        file.wait_saved(revision).unwrap_err();
    }

    #[test]
    fn a_stop_does_not_wait_for_a_disk_that_takes_nothing() {
        let (_directory, path) = path();
        let persistence = eager_persistence();
        let file = persistence.file(path.clone(), || b"{}".to_vec()).unwrap();
        break_saves(&path, true);
        let revision = file.request();
        file.wait_saved(revision).unwrap_err();
        persistence.stop();
        file.wait_saved(revision).unwrap_err();
    }

    /// As a full disk: the new version cannot be written.
    fn break_saves(path: &Path, broken: bool) {
        let fresh = path.with_extension("json.tmp");
        if broken { fs::create_dir_all(fresh).unwrap() } else { fs::remove_dir(fresh).unwrap() }
    }
}
