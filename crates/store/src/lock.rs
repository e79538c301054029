//! One process per store directory, and per directory that it writes to: two stores may have roots of their own and still
//! one log directory, or a symbolic link to one.
//!
//! The lock is Java's: a POSIX record lock on the file `lock`, so that a Java broker and this one exclude each other
//! (Java: `DefaultMessageStore.start`). Such a lock belongs to the process, so a table keeps two stores of one process apart. The other directories
//! take no further file, which Java would not load; what is locked is the directory itself.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;

use crate::error::OpenError;

/// Device and inode of the lock files this process holds.
static HELD: Mutex<Option<HashSet<(u64, u64)>>> = Mutex::new(None);

/// Held until dropped. The file stays.
#[derive(Debug)]
pub struct DirectoryLock {
    file: Option<File>,
    id: (u64, u64),
}

impl DirectoryLock {
    /// Takes the lock of a store root that exists.
    pub fn take(root: &Path) -> Result<DirectoryLock, OpenError> {
        let path = root.join("lock");
        if path.is_dir() {
            return Err(OpenError::WrongKind { path, expected: "file" });
        }
        let locked = || OpenError::Locked { path: path.clone() };
        let mut held = HELD.lock();
        let held = held.get_or_insert_default();
        // Before opening: closing any descriptor of the file would give up the lock that this process has on it.
        if path.metadata().is_ok_and(|metadata| held.contains(&(metadata.dev(), metadata.ino()))) {
            return Err(locked());
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| OpenError::NotWritable { path: path.clone(), source })?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(locked()),
            Err(error) => return Err(OpenError::io("lock", &path)(error.into())),
        }
        let metadata = file.metadata().map_err(OpenError::io("look at", &path))?;
        let id = (metadata.dev(), metadata.ino());
        write_text(&mut file).map_err(OpenError::io("write", &path))?;
        held.insert(id);
        Ok(DirectoryLock { file: Some(file), id })
    }
}

/// A directory of a store beside its root. Held until dropped.
#[derive(Debug)]
pub struct SideLock {
    _dir: File,
}

impl SideLock {
    /// Takes the lock of a directory that exists. `None` on a filesystem that has no such locks.
    pub fn take(dir: &Path) -> Result<Option<SideLock>, OpenError> {
        let file = File::open(dir).map_err(OpenError::io("open", dir))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(SideLock { _dir: file })),
            Err(Errno::AGAIN) => Err(OpenError::Locked { path: dir.to_owned() }),
            // NFS makes it a lock for writing, which a directory cannot have.
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::BADF | Errno::INVAL | Errno::NOSYS) => {
                tracing::warn!(dir = %dir.display(), "the filesystem cannot lock a directory: nothing keeps other brokers out of it");
                Ok(None)
            }
            Err(error) => Err(OpenError::io("lock", dir)(error.into())),
        }
    }
}

/// Keeps brokers away from a store while somebody reads in it, and leaves no trace. Held until dropped.
#[derive(Debug)]
pub struct ReadLock {
    _files: Vec<File>,
}

impl ReadLock {
    /// Takes shared locks where brokers take exclusive ones: on the file `lock` of the root, if there is one, and on those of
    /// `dirs` that exist.
    pub fn take(root: &Path, dirs: &[PathBuf]) -> Result<ReadLock, OpenError> {
        let mut files = Vec::new();
        let path = root.join("lock");
        let locked = || OpenError::Locked { path: root.to_owned() };
        // Held over the opening, as closing the file would give up what this process has on it.
        let held = HELD.lock();
        if let (Ok(metadata), Some(held)) = (path.metadata(), &*held)
            && held.contains(&(metadata.dev(), metadata.ino()))
        {
            return Err(locked());
        }
        match File::open(&path) {
            Ok(file) => match fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => files.push(file),
                Err(Errno::AGAIN | Errno::ACCESS) => return Err(locked()),
                Err(error) => return Err(OpenError::io("lock", &path)(error.into())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(OpenError::io("open", &path)(error)),
        }
        for dir in dirs.iter().filter(|dir| dir.is_dir()) {
            let file = File::open(dir).map_err(OpenError::io("open", dir))?;
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => files.push(file),
                Err(Errno::AGAIN) => return Err(OpenError::Locked { path: dir.clone() }),
                // A file system without such locks.
                Err(_) => {}
            }
        }
        Ok(ReadLock { _files: files })
    }
}

fn write_text(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(b"lock")?;
    file.sync_all()
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let mut held = HELD.lock();
        // Closed while the table is locked: the close gives the lock up for the whole process, so nobody may take it
        // anew before.
        self.file.take();
        if let Some(held) = &mut *held {
            held.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHILD_ROOT: &str = "FERROMQ_STORE_LOCK_TEST_ROOT";

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(dir.path()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("lock")).unwrap(), b"lock");
        let error = DirectoryLock::take(dir.path()).unwrap_err();
        assert!(matches!(&error, OpenError::Locked { path } if path.ends_with("lock")), "{error}");
        drop(lock);
        drop(DirectoryLock::take(dir.path()).unwrap());
    }

    /// Run by the test below in a process of its own.
    #[test]
    fn child_tries_the_lock() {
        let Some(root) = std::env::var_os(CHILD_ROOT) else { return };
        let taken = DirectoryLock::take(Path::new(&root));
        assert!(matches!(taken, Err(OpenError::Locked { .. })), "{taken:?}");
    }

    #[test]
    fn a_side_directory_is_locked_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::fs::create_dir(dir.path().join("log")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("log"), &link).unwrap();
        let lock = SideLock::take(&dir.path().join("log")).unwrap();
        if lock.is_some() {
            let error = SideLock::take(&link).unwrap_err();
            assert!(matches!(&error, OpenError::Locked { path } if *path == link), "{error}");
        }
        drop(lock);
        SideLock::take(&link).unwrap();
    }

    #[test]
    fn another_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = DirectoryLock::take(dir.path()).unwrap();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lock::tests::child_tries_the_lock"])
            .env(CHILD_ROOT, dir.path())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }
}
