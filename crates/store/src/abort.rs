//! The abort file: it exists while the store is open, and holds the process id as Java's does, and behind that since which start of the
//! machine all that was written to the store is there.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::files;

/// In place of a start of the machine: pages may have been lost without one.
pub const DISTRUST: &str = "lost";

/// What may be missing of what was written and not synced when a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing: it was closed in order.
    None,
    /// At most the end of what was being written: the machine was not started since.
    Kill,
    /// Any pages.
    PowerCut,
    /// Any pages, and others are in memory only: a sync has failed, and the kernel does not write again what it could not.
    FailedSync,
    /// One or the other: Java's file, or a machine that does not name its starts.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct AbortFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl AbortFile {
    pub fn at(disk: Arc<dyn Disk>, path: PathBuf) -> AbortFile {
        AbortFile { disk, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says of the machine's start, if anything.
    pub fn boot(&self) -> Option<String> {
        let content = std::fs::read_to_string(&self.path).ok()?;
        content.lines().nth(1).filter(|boot| !boot.is_empty()).map(str::to_owned)
    }

    /// Writes the file and makes it durable, but for its name. Killed at any time, it says the old or the new.
    pub fn write(&self, boot: Option<&str>) -> io::Result<()> {
        let file = self.put(boot)?;
        self.disk.sync_file(&self.path, &file)
    }

    /// Says that pages may be lost though the machine goes on, after a sync that failed. Waits for no device.
    pub fn distrust(&self) -> io::Result<()> {
        self.put(Some(DISTRUST)).map(drop)
    }

    /// Of a store that is closed in order: durable with the next sync of its directory.
    pub fn remove(&self) -> io::Result<()> {
        files::remove_file(&*self.disk, &self.path)
    }

    fn put(&self, boot: Option<&str>) -> io::Result<File> {
        // Never without one: this open has not checked anything yet. One that is there takes nothing that a failing disk would have to give.
        let file = match OpenOptions::new().write(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.create(&self.path, 0)?,
            opened => opened?,
        };
        // What is left of more that stood there is behind the second line.
        let content = format!("{}\n{}\n", std::process::id(), boot.unwrap_or_default());
        self.disk.write(&self.path, &file, content.as_bytes(), 0)?;
        file.set_len(content.len() as u64)?;
        Ok(file)
    }
}

/// What an `abort` that says `found` means on a machine whose start is `boot`.
pub fn crash(found: Option<&str>, boot: Option<&str>) -> Crash {
    match (found, boot) {
        (Some(found), Some(boot)) if found == boot => Crash::Kill,
        (Some(DISTRUST), _) => Crash::FailedSync,
        (Some(_), Some(_)) => Crash::PowerCut,
        (None, _) | (_, None) => Crash::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::scripted_disk::ScriptedDisk;

    #[test]
    fn what_is_known_of_a_crash() {
        for (found, boot, expected) in [
            (Some("a"), Some("a"), Crash::Kill),
            (Some("a"), Some("b"), Crash::PowerCut),
            (Some(DISTRUST), Some("a"), Crash::FailedSync),
            (Some(DISTRUST), None, Crash::FailedSync),
            (None, Some("a"), Crash::Unknown),
            (Some("a"), None, Crash::Unknown),
            (None, None, Crash::Unknown),
        ] {
            assert_eq!(crash(found, boot), expected, "{found:?} on {boot:?}");
        }
    }

    /// A process that ends in the middle of writing it leaves what it said before, or says now.
    #[test]
    fn the_file_says_the_old_or_the_new_at_any_time() {
        let dir = tempfile::tempdir().unwrap();
        let (path, disk) = (dir.path().join("abort"), Arc::<ScriptedDisk>::default());
        let abort = AbortFile::at(Arc::clone(&disk) as Arc<dyn Disk>, path.clone());
        std::fs::write(&path, "4000000000000\nboot").unwrap();
        let (watched, calls) = (abort.clone(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&calls);
        disk.watch(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            assert_eq!(watched.boot().as_deref(), Some("boot"));
        });
        abort.write(Some("boot")).unwrap();
        disk.watch_no_more();
        assert!(calls.load(Ordering::SeqCst) >= 2);
        let now = std::fs::read_to_string(&path).unwrap();
        assert_eq!(now, format!("{}\nboot\n", std::process::id()));
        // It was longer, and ended before the rest was cut off.
        std::fs::write(&path, now + "ot\n").unwrap();
        assert_eq!(abort.boot().as_deref(), Some("boot"));
        abort.write(None).unwrap();
        assert_eq!(abort.boot(), None);
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(abort.boot(), None, "Java's");
    }
}
