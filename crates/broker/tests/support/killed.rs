//! What a broker that is killed leaves: its directory at one instant, while its threads go on writing there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Only a hang runs into this: writers rest now and then.
const PATIENCE: Duration = Duration::from_secs(300);

/// The bytes of files; directories have none.
type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Copies a directory as it was at one instant: read twice with the same outcome, it was so in between. File by file it would be one that
/// never was: a table as it was before a save, and what that save said of it. What is to take a file's place (`*.tmp`, and the timers'
/// `*.new`) is of any instant, and a directory of such a name, with which tests have saves fail, is left out.
pub fn copy_at_an_instant(directory: &Path) -> tempfile::TempDir {
    let deadline = Instant::now() + PATIENCE;
    let mut contents = read(directory);
    loop {
        let again = read(directory);
        if in_place(&contents).eq(in_place(&again)) {
            break;
        }
        assert!(Instant::now() < deadline, "{} never rests", directory.display());
        contents = again;
    }
    let copy = tempfile::tempdir().unwrap();
    for (path, bytes) in contents {
        let target = copy.path().join(path);
        match bytes {
            Some(bytes) => fs::write(target, bytes).unwrap(),
            None => fs::create_dir(target).unwrap(),
        }
    }
    copy
}

fn in_place(contents: &Contents) -> impl Iterator<Item = (&PathBuf, &Option<Vec<u8>>)> {
    contents.iter().filter(|(path, _)| !is_temporary(path))
}

fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp" || extension == "new")
}

fn read(directory: &Path) -> Contents {
    let mut contents = Contents::new();
    let mut left = vec![PathBuf::new()];
    while let Some(parent) = left.pop() {
        for entry in there(fs::read_dir(directory.join(&parent))).into_iter().flatten() {
            let Some(entry) = there(entry) else { continue };
            let path = parent.join(entry.file_name());
            let Some(kind) = there(entry.file_type()) else { continue };
            if !kind.is_dir() {
                if let Some(bytes) = there(fs::read(entry.path())) {
                    contents.insert(path, Some(bytes));
                }
            } else if !is_temporary(&path) {
                contents.insert(path.clone(), None);
                left.push(path);
            }
        }
    }
    contents
}

/// `None` for what was removed or replaced meanwhile.
fn there<T>(outcome: io::Result<T>) -> Option<T> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        outcome => Some(outcome.unwrap()),
    }
}
