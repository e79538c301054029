//! Config files on disk: JSON tables under `<store>/config/`, written by one thread, replaced atomically.
//!
//! A table asks for a save and goes on; requests that arrive while a save runs fold into the next one. Who must not answer before the
//! file is on disk hands over a callback. Replacing is `ferromq_config::replace_file`, which keeps the previous version as `.bak`.
//! Reading: the file, or its `.bak` when the file is missing or damaged. Java: `ConfigManager`; spec store §12.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use ferromq_config::replace_file;
use parking_lot::{Condvar, Mutex};
use serde::de::DeserializeOwned;
use tracing::{error, warn};

/// Number of a requested save; grows by one per request.
pub type Revision = u64;

/// Why a config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "{path} is damaged and its backup {backup} as well: {reason}; move both away to start with an empty table, or restore one of them"
    )]
    Damaged { path: String, backup: String, reason: String },
    #[error("cannot read {path}: {source}")]
    Io { path: String, source: io::Error },
}

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

/// Reads a table, or its backup, or `None` when neither exists. A damaged file is set aside as `.damaged` so that it cannot replace a good backup.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LoadError> {
    let backup = with_suffix(path, ".bak");
    let damage = match read::<T>(path)? {
        Content::Table(table) => return Ok(Some(table)),
        Content::Missing => None,
        Content::Damaged(reason) => Some(reason),
    };
    if let Some(reason) = &damage {
        warn!(path = %path.display(), reason, "config file is damaged, falling back to its backup");
    }
    let table = match read::<T>(&backup)? {
        Content::Table(table) => Some(table),
        Content::Missing => None,
        Content::Damaged(second) => {
            let reason = damage.map_or_else(|| second.clone(), |first| format!("{first}; backup: {second}"));
            return Err(LoadError::Damaged {
                path: path.display().to_string(),
                backup: backup.display().to_string(),
                reason,
            });
        }
    };
    if damage.is_some() {
        let aside = with_suffix(path, ".damaged");
        if let Err(source) = fs::rename(path, &aside) {
            return Err(LoadError::Io { path: path.display().to_string(), source });
        }
        warn!(kept_as = %aside.display(), "the damaged config file was set aside");
    }
    Ok(table)
}

enum Content<T> {
    Table(T),
    Missing,
    Damaged(String),
}

/// An empty file counts as missing, as in Java: it is what an interrupted first write leaves.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Content<T>, LoadError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Missing),
        Err(source) => return Err(LoadError::Io { path: path.display().to_string(), source }),
    };
    if bytes.is_empty() {
        return Ok(Content::Missing);
    }
    Ok(match ferromq_protocol::json::from_slice(&bytes) {
        Ok(table) => Content::Table(table),
        Err(error) => Content::Damaged(error.to_string()),
    })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
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
    fn the_previous_version_is_the_backup_of_a_damaged_file() {
        let (_directory, path) = path();
        replace_file(&path, br#"{"a":1}"#).unwrap();
        replace_file(&path, br#"{"a":2}"#).unwrap();
        assert_eq!(load::<Table>(&path).unwrap().unwrap()["a"], 2);
        fs::write(&path, b"{\"a\":").unwrap();
        assert_eq!(load::<Table>(&path).unwrap().unwrap()["a"], 1);
        assert!(with_suffix(&path, ".damaged").exists());
        // The damaged version must not become the backup at the next save.
        replace_file(&path, br#"{"a":3}"#).unwrap();
        assert_eq!(load::<Table>(&with_suffix(&path, ".bak")).unwrap().unwrap()["a"], 1);
    }

    #[test]
    fn an_empty_file_falls_back_too() {
        let (_directory, path) = path();
        replace_file(&path, br#"{"a":1}"#).unwrap();
        fs::rename(&path, with_suffix(&path, ".bak")).unwrap();
        fs::write(&path, b"").unwrap();
        assert_eq!(load::<Table>(&path).unwrap().unwrap()["a"], 1);
    }

    #[test]
    fn two_damaged_files_are_an_error_that_names_both() {
        let (_directory, path) = path();
        replace_file(&path, b"{").unwrap();
        replace_file(&path, b"[").unwrap();
        let error = load::<Table>(&path).unwrap_err().to_string();
        assert!(error.contains("table.json") && error.contains("table.json.bak"), "{error}");
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
