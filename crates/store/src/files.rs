//! Names and lengths of segment files on disk. Java: MappedFileQueue.load.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::OpenError;

/// 20 decimal digits: the offset of the file's first byte.
pub fn segment_name(start: u64) -> String {
    format!("{start:020}")
}

/// Makes `dir` and what is missing above it, durably.
pub fn make_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_dir(disk, parent)?;
    }
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    disk.sync_dir(parent.unwrap_or(Path::new(".")))
}

/// A file of a run of segments.
#[derive(Debug, PartialEq, Eq)]
pub struct SegmentPath {
    pub start: u64,
    pub path: PathBuf,
    pub len: u64,
    /// Nothing is written to its directory.
    pub read_only: bool,
}

/// The segments of `dir`, in order. A directory that is not there is empty.
///
/// The last file is removed when nothing was ever put into it: it is empty, or a crash left it half allocated. Any
/// other file of a wrong length stops the open, as in Java, and so does a gap; the first files may be gone.
pub fn list_segments(dir: &Path, len: u64, len_key: &'static str) -> Result<Vec<SegmentPath>, OpenError> {
    let mut found = find_segments(dir, false)?;
    found.sort_by_key(|segment| segment.start);
    drop_unused_last(&mut found, len)?;
    check_lengths(&found, len, len_key)?;
    for pair in found.windows(2) {
        if pair[0].start + len != pair[1].start {
            return Err(OpenError::MissingFile { path: dir.join(segment_name(pair[0].start + len)) });
        }
    }
    Ok(found)
}

/// The segments of `dir`, in any order and of any length.
pub fn find_segments(dir: &Path, read_only: bool) -> Result<Vec<SegmentPath>, OpenError> {
    let mut found = Vec::new();
    for path in list_files(dir)? {
        let start = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| OpenError::StrangeFile { path: path.clone() })?;
        let len = path.metadata().map_err(OpenError::io("look at", &path))?.len();
        found.push(SegmentPath { start, path, len, read_only });
    }
    Ok(found)
}

/// Removes the last segment if it was never used and is not whole. Those in read-only directories are passed over, whole or not:
/// nothing will be put into them.
pub fn drop_unused_last(found: &mut Vec<SegmentPath>, len: u64) -> Result<(), OpenError> {
    while let Some(last) = found.last()
        && (last.read_only || last.len < len)
        && is_blank(&last.path)?
    {
        let stays = last.read_only;
        last.drop_unused()?;
        found.pop();
        if !stays {
            return Ok(());
        }
    }
    Ok(())
}

impl SegmentPath {
    /// Removes a file that was never used, or passes it over where nothing is written.
    pub fn drop_unused(&self) -> Result<(), OpenError> {
        if self.read_only {
            tracing::info!(path = %self.path.display(), "passed over a file that was never used");
            return Ok(());
        }
        tracing::warn!(path = %self.path.display(), len = self.len, "removed a file that was never used");
        std::fs::remove_file(&self.path).map_err(OpenError::io("remove", &self.path))
    }
}

pub fn check_lengths(segments: &[SegmentPath], len: u64, key: &'static str) -> Result<(), OpenError> {
    match segments.iter().find(|segment| segment.len != len) {
        Some(wrong) => Err(OpenError::FileLength { path: wrong.path.clone(), found: wrong.len, expected: len, key }),
        None => Ok(()),
    }
}

/// The plain files of `dir`; directories are passed over.
pub fn list_files(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    list(dir, false)
}

/// The directories in `dir`.
pub fn list_dirs(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    list(dir, true)
}

fn list(dir: &Path, dirs: bool) -> Result<Vec<PathBuf>, OpenError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OpenError::io("list", dir)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(OpenError::io("list", dir))?.path();
        if path.is_dir() == dirs {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a file holds nothing but zeros at its start, where every used segment has a record or an entry.
pub fn is_blank(path: &Path) -> Result<bool, OpenError> {
    use std::io::Read as _;
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(64).read_to_end(&mut head))
        .map_err(OpenError::io("read", path))?;
    Ok(head.iter().all(|byte| *byte == 0))
}

/// Removes a file; one that is gone already is as good.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it; one that is gone already is as good.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_rules() {
        let dir = tempfile::tempdir().unwrap();
        let list = || list_segments(dir.path(), 8, "len");
        let put = |start, bytes: &[u8]| std::fs::write(dir.path().join(segment_name(start)), bytes).unwrap();
        assert_eq!(list().unwrap(), []);
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        put(16, b"records!");
        put(24, b"records!");
        put(32, b"");
        assert_eq!(list().unwrap().iter().map(|segment| segment.start).collect::<Vec<_>>(), [16, 24]);
        put(32, &[0; 4]);
        assert_eq!(list().unwrap().len(), 2);
        put(32, b"rec");
        assert!(matches!(list(), Err(OpenError::FileLength { found: 3, expected: 8, .. })));
        put(32, b"records!");
        std::fs::remove_file(dir.path().join(segment_name(24))).unwrap();
        assert!(matches!(list(), Err(OpenError::MissingFile { .. })));
        std::fs::write(dir.path().join("x"), b"").unwrap();
        assert!(matches!(list(), Err(OpenError::StrangeFile { .. })));
    }
}
