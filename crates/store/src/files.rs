//! Names and lengths of segment files on disk, and what becomes of files that do not fit. Java: MappedFileQueue.load.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, PAGE};
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
    if let Some(parent) = parent_of(dir) {
        make_dir(disk, parent)?;
    }
    disk.make_dir(dir)?;
    disk.sync_dir(parent_of(dir).unwrap_or(Path::new(".")))
}

/// The directory that has the name of `dir`, if a path can say it.
fn parent_of(dir: &Path) -> Option<&Path> {
    dir.parent().filter(|parent| !parent.as_os_str().is_empty())
}

/// Makes the name of `dir` durable, if the directory that it is in may be opened.
pub fn sync_name(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    match disk.sync_dir(parent_of(dir).unwrap_or(Path::new("."))) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// Of the name of a copy.
const COPY_EXTENSION: &str = "cut";

/// Where the file is made that takes the place of a segment when the log is truncated: beside it.
pub fn copy_of_segment(path: &Path) -> PathBuf {
    path.with_extension(COPY_EXTENSION)
}

/// Whether that is its name. An open finds one where a truncation has not come to its end, and does not need it.
pub fn is_copy_of_segment(path: &Path) -> bool {
    let digits = path
        .file_stem()
        .is_some_and(|stem| stem.len() == 20 && stem.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
    digits && path.extension().is_some_and(|extension| extension == COPY_EXTENSION)
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

/// The segments of `dir`, in order and of any length. Files with other names are passed over.
pub fn find_segments(dir: &Path, read_only: bool, len: u64) -> Result<Vec<SegmentPath>, OpenError> {
    let SegmentNames { mut segments, strange } = named_files(dir)?;
    let misplaced = segments.extract_if(.., |segment| segment.len != len && !segment.start.is_multiple_of(len));
    for path in strange.into_iter().chain(misplaced.map(|segment| segment.path)) {
        if is_copy_of_segment(&path) {
            continue;
        }
        if path.is_dir() {
            // In the way of one that was there, or will be.
            return Err(OpenError::WrongKind { path, expected: "file" });
        }
        tracing::warn!(path = %path.display(), "no file of the commit log; passed over");
    }
    segments.iter_mut().for_each(|segment| segment.read_only = read_only);
    Ok(segments)
}

/// Removes the last segment if it was never used and is not whole; not where something was, before `vouched`. Those in read-only directories are passed over, whole or not:
/// nothing will be put into them.
pub fn drop_unused_last(found: &mut Vec<SegmentPath>, len: u64, vouched: u64) -> Result<(), OpenError> {
    while let Some(last) = found.last()
        && last.start >= vouched
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

/// That no segment was made with another setting: then it is longer, or all of them have one length, and one that could be a setting.
pub fn check_lengths(segments: &[SegmentPath], len: u64, key: &'static str) -> Result<(), OpenError> {
    let could_be_set =
        |segment: &&SegmentPath| segment.len < len && segment.len > 0 && segment.len.is_multiple_of(PAGE as u64);
    let first = segments.first().filter(could_be_set);
    let set = first.filter(|first| segments.iter().all(|segment| segment.len == first.len));
    let wrong = segments.iter().find(|segment| segment.len > len || segment.read_only && segment.len < len).or(set);
    wrong.map_or(Ok(()), |wrong| {
        Err(OpenError::FileLength { path: wrong.path.clone(), found: wrong.len, expected: len, key })
    })
}

/// Gives segments that were cut off their length back: what is missing in them counts as damaged. Java stops there.
pub fn lengthen(disk: &dyn Disk, segments: &[SegmentPath], len: u64) -> Result<(), OpenError> {
    for segment in segments.iter().filter(|segment| segment.len < len) {
        let (path, offset) = (segment.path.display(), segment.start + segment.len);
        tracing::error!(%path, offset, missing = len - segment.len, "a file of the commit log is too short: what is missing counts as damaged and is stepped over");
        let lengthened = std::fs::OpenOptions::new().write(true).open(&segment.path).and_then(|file| {
            disk.allocate(&file, segment.len..len)?;
            disk.sync_file(&segment.path, &file)
        });
        lengthened.map_err(OpenError::io("lengthen", &segment.path))?;
    }
    Ok(())
}

/// What is in a directory of segments, by name.
pub struct SegmentNames {
    /// In order.
    pub segments: Vec<SegmentPath>,
    /// Files with other names, and directories with such names.
    pub strange: Vec<PathBuf>,
}

/// The files of a directory whose names are 20 digits. One that is not there is empty.
pub fn named_files(dir: &Path) -> Result<SegmentNames, OpenError> {
    let mut named = SegmentNames { segments: Vec::new(), strange: Vec::new() };
    for Entry { path, is_dir } in entries_of(dir)? {
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.len() == 20);
        // None begins where no file could end.
        let start = name.and_then(|name| name.parse().ok()).filter(|start: &u64| i64::try_from(*start).is_ok());
        match start {
            Some(start) if !is_dir => {
                let len = path.metadata().map_err(OpenError::io("look at", &path))?.len();
                named.segments.push(SegmentPath { start, path, len, read_only: false });
            }
            None if is_dir => {}
            _ => named.strange.push(path),
        }
    }
    named.segments.sort_by_key(|segment| segment.start);
    Ok(named)
}

/// The plain files of `dir`; directories are passed over.
pub fn list_files(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    Ok(list_all(dir)?.0)
}

/// The directories in `dir`.
pub fn list_dirs(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    Ok(list_all(dir)?.1)
}

/// The plain files of `dir`, and its directories.
pub fn list_all(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), OpenError> {
    let (dirs, files) = entries_of(dir)?.into_iter().partition::<Vec<_>, _>(|entry| entry.is_dir);
    let paths = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.path).collect();
    Ok((paths(files), paths(dirs)))
}

/// All that is in `dir`, in order. One that is not there is empty.
pub fn entries(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    Ok(entries_of(dir)?.into_iter().map(|entry| entry.path).collect())
}

struct Entry {
    path: PathBuf,
    /// Or leads to one.
    is_dir: bool,
}

/// In order.
fn entries_of(dir: &Path) -> Result<Vec<Entry>, OpenError> {
    let found = match std::fs::read_dir(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OpenError::io("list", dir)(error)),
    };
    let mut entries = Vec::new();
    for entry in found {
        let entry = entry.map_err(OpenError::io("list", dir))?;
        let path = entry.path();
        // Mostly the directory says so, and nothing has to be looked up.
        let kind = entry.file_type().map_err(OpenError::io("look at", &path))?;
        entries.push(Entry { is_dir: kind.is_dir() || kind.is_symlink() && path.is_dir(), path });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
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

/// Longer is no list of ours: this one would be of millions of queues.
const LIST_LEN_MAX: u64 = 1 << 30;

/// All of a file that has a list; nothing of one that is too long.
pub fn read_whole(disk: &dyn Disk, path: &Path, file: &std::fs::File) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    if len > LIST_LEN_MAX {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    disk.read(path, file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces a file as a whole, durably.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    remove_file(disk, &aside)?;
    let file = disk.create(&aside, 0)?;
    disk.write(&aside, &file, bytes, 0)?;
    // What a sync of this file failed with is of no consequence: the next try makes another one.
    disk.sync_file(&aside, &file)?;
    disk.rename(&aside, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Where what cannot be used is kept: nothing of it is destroyed, since it may be a part of something else that was put there by mistake.
const DAMAGED: &str = "damaged";

/// Where that is.
pub fn damaged_dir(root: &Path) -> PathBuf {
    root.join(DAMAGED)
}

/// Moves `path`, which lies below `root`, to `<root>/damaged/`, so that something else can be made in its place. `why` goes into the
/// trace log.
pub fn set_aside(disk: &dyn Disk, root: &Path, path: &Path, why: &str) -> io::Result<()> {
    let kept_as = move_aside(disk, root, path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot move {} away, which is {why}: {error}", path.display()))
    })?;
    tracing::error!(path = %path.display(), why, kept_as = %kept_as.display(), "moved away: it cannot be used in its place");
    Ok(())
}

/// [`set_aside`] without a word: gives where it is now. Durable when this returns.
pub fn move_aside(disk: &dyn Disk, root: &Path, path: &Path) -> io::Result<PathBuf> {
    let dir = damaged_dir(root);
    make_dir(disk, &dir)?;
    let below = path.strip_prefix(root).unwrap_or(path);
    let name = below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("+");
    let mut to = dir.join(&name);
    let mut count = 1_u32;
    while to.symlink_metadata().is_ok() {
        count += 1;
        to = dir.join(format!("{name}.{count}"));
    }
    match disk.rename(path, &to) {
        // A topic's directory, say, may lie on another disk.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy(disk, path, &to).inspect_err(|_| remove_part(disk, &to))?;
            // What is there twice after a power loss is copied once more.
            disk.sync_dir(&dir)?;
            if path.is_dir() { remove_dir(disk, path)? } else { remove_file(disk, path)? }
        }
        // A copy would be of no use: the place stays taken.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let text =
                format!("{error}: a file system or a file is mounted there. Unmount it, or take away what lies in it");
            return Err(io::Error::new(error.kind(), text));
        }
        moved => moved?,
    }
    disk.sync_dir(&dir)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    Ok(to)
}

/// Of a copy that failed: the next try makes another.
fn remove_part(disk: &dyn Disk, to: &Path) {
    let removed = if to.is_dir() { remove_dir(disk, to) } else { remove_file(disk, to) };
    if let Err(error) = removed {
        tracing::warn!(path = %to.display(), %error, "a part of a copy cannot be removed; remove it by hand");
    }
}

/// Copies a file, or a directory with all that is in it, to a place where nothing is; durable but for its own name. Links are copied as
/// what they lead to.
fn copy(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        std::fs::copy(from, to)?;
        return disk.sync_file(to, &std::fs::File::open(to)?);
    }
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        copy(disk, &entry.path(), &to.join(entry.file_name()))?;
    }
    disk.sync_dir(to)
}

/// Removes a file; one that is gone already is as good.
pub fn remove_file(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it; one that is gone already is as good.
pub fn remove_dir(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;
    use crate::testing::FaultyDisk;

    const LEN: u64 = 2 * PAGE as u64;

    #[test]
    fn load_rules() {
        let dir = tempfile::tempdir().unwrap();
        let at = |place: u64| dir.path().join(segment_name(place * LEN));
        let list_up_to = |vouched| {
            let mut found = find_segments(dir.path(), false, LEN)?;
            drop_unused_last(&mut found, LEN, vouched)?;
            check_lengths(&found, LEN, "len")?;
            lengthen(&LocalDisk, &found, LEN)?;
            Ok::<_, OpenError>(found.iter().map(|segment| segment.start / LEN).collect::<Vec<_>>())
        };
        let list = || list_up_to(0);
        let put = |place, len: u64| std::fs::write(at(place), vec![7; len as usize]).unwrap();
        assert!(list().unwrap().is_empty());
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("x"), b"").unwrap();
        std::fs::write(dir.path().join("00000000000000000064"), b"core").unwrap();
        put(2, LEN);
        put(3, LEN);
        // Made ahead, and a crash came in between.
        put(4, 0);
        assert_eq!(list().unwrap(), [2, 3]);
        std::fs::write(at(4), [0; 4]).unwrap();
        assert_eq!(list().unwrap(), [2, 3]);
        // Cut off: with anything in it, or where something was.
        for (len, vouched) in [(3, 0), (0, 4 * LEN + 1)] {
            put(4, len);
            assert_eq!(list_up_to(vouched).unwrap(), [2, 3, 4]);
            let bytes = std::fs::read(at(4)).unwrap();
            assert_eq!((bytes.len() as u64, &bytes[..len as usize]), (LEN, &vec![7; len as usize][..]));
            assert!(bytes[len as usize..].iter().all(|byte| *byte == 0));
        }
        put(3, LEN + 1);
        assert!(matches!(list(), Err(OpenError::FileLength { .. })));
        // All of them, so that it was a setting.
        for place in 2..5 {
            put(place, LEN / 2);
        }
        assert!(matches!(list(), Err(OpenError::FileLength { found, .. }) if found == LEN / 2));
        put(3, LEN);
        assert_eq!(list().unwrap(), [2, 3, 4]);
        std::fs::remove_file(at(3)).unwrap();
        std::fs::create_dir(at(3)).unwrap();
        assert!(matches!(list(), Err(OpenError::WrongKind { .. })));
    }

    #[test]
    fn what_cannot_be_copied_aside_leaves_no_part_there() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("T");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("file"), "one").unwrap();
        // It leads nowhere, and cannot be copied.
        std::os::unix::fs::symlink("nothing", path.join("link")).unwrap();
        let apart = FaultyDisk::default();
        *apart.moves_nothing.lock() = Some(io::ErrorKind::CrossesDevices);
        set_aside(&apart, root.path(), &path, "a test").unwrap_err();
        assert_eq!(std::fs::read_dir(root.path().join(DAMAGED)).unwrap().count(), 0);
        std::fs::remove_file(path.join("link")).unwrap();
        set_aside(&apart, root.path(), &path, "a test").unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join(DAMAGED).join("T/file")).unwrap(), "one");
    }

    #[test]
    fn what_is_mounted_is_named_and_left() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("checkpoint");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("file"), "one").unwrap();
        let mounted = FaultyDisk::default();
        *mounted.moves_nothing.lock() = Some(io::ErrorKind::ResourceBusy);
        let error = set_aside(&mounted, root.path(), &path, "a test").unwrap_err().to_string();
        assert!(error.contains(&*path.to_string_lossy()) && error.contains("is mounted there. Unmount it"), "{error}");
        assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "one");
        assert_eq!(std::fs::read_dir(root.path().join(DAMAGED)).unwrap().count(), 0);
    }

    #[test]
    fn what_is_set_aside_stays_whatever_else_is() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("consumequeue/T");
        std::fs::create_dir(root.path().join("consumequeue")).unwrap();
        for content in ["one", "two", "three"] {
            std::fs::write(&path, content).unwrap();
            set_aside(&LocalDisk, root.path(), &path, "a test").unwrap();
            assert!(!path.exists());
        }
        let apart = FaultyDisk::default();
        *apart.moves_nothing.lock() = Some(io::ErrorKind::CrossesDevices);
        for content in ["four", "five"] {
            std::fs::write(&path, content).unwrap();
            set_aside(&apart, root.path(), &path, "a test").unwrap();
            assert!(!path.exists());
        }
        std::fs::create_dir_all(path.join("0/1")).unwrap();
        std::fs::write(path.join("0/1/file"), "six").unwrap();
        set_aside(&apart, root.path(), &path, "a test").unwrap();
        assert!(!path.exists());
        let kept = |name: &str| std::fs::read_to_string(root.path().join(DAMAGED).join(name)).unwrap();
        let names = ["consumequeue+T.4", "consumequeue+T.5", "consumequeue+T.6/0/1/file"];
        assert_eq!(names.map(kept), ["four", "five", "six"]);
        assert_eq!(
            [kept("consumequeue+T"), kept("consumequeue+T.2"), kept("consumequeue+T.3")],
            ["one", "two", "three"]
        );
    }
}
