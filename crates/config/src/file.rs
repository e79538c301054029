//! Replacing a small file so that a crash leaves the old one or the new one, never half of one.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// As many links as Linux follows before it gives up.
const LINKS_MAX: usize = 40;

/// What changes the disk here. The seam through which tests inject a full disk, a failing one, and power cuts.
pub(crate) trait Files {
    /// Makes a directory in one that is there. Durable, as all names, with the next sync of the directory that it is in.
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }
    /// Makes a file, with mode and owner of `like` as far as we may, or empties the one that is there.
    fn create(&self, path: &Path, like: Option<&Metadata>) -> io::Result<File> {
        create(path, like)
    }
    /// Puts `bytes` into an empty file. On an error, any part of them may be there.
    fn write(&self, _path: &Path, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }
    fn sync_file(&self, _path: &Path, file: &File) -> io::Result<()> {
        file.sync_all()
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
    /// Gives a file a second name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The machine's filesystem.
pub(crate) struct LocalFiles;

impl Files for LocalFiles {}

/// Writes `bytes` to a file beside `path`, flushes it to disk, renames it over `path` and flushes the directory. The previous content, if there
/// was any, stays as `<path>.bak`, as Java's `MixAll.string2File` keeps it; after a failure that of before the failure. Missing directories
/// are made. On return the new content is durable.
///
/// A symbolic link stays, and what it points at is replaced, with the backup beside that. Mode and owner are kept as far as we may. A file
/// that is a mount point of its own, as containers get theirs, cannot be renamed over: it is written in place, after its backup.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_by(&LocalFiles, path, bytes)
}

pub(crate) fn replace_by(files: &dyn Files, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = &behind_links(path)?;
    let directory = directory_of(path);
    make_dir(files, directory)?;
    let old = match fs::metadata(path) {
        Ok(old) if !old.is_file() => {
            let reason = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(cannot("replace", path, reason));
        }
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(cannot("look at", path, error)),
    };
    let (fresh, backup) = (beside(path, ".tmp"), beside(path, ".bak"));
    let writing = writing(path);
    write_whole(files, &fresh, bytes, old.as_ref()).map_err(|error| cannot("write", &fresh, error))?;
    // What a try before this one has left half written in place is no backup.
    if let Some(old) = old.as_ref().filter(|_| !writing.exists()) {
        keep(files, path, &backup, old).map_err(|error| cannot("write", &backup, error))?;
    }
    if old.is_none() {
        // Whoever made the directory may have been killed before its name was on the disk.
        sync_name(files, directory)?;
    }
    match files.rename(&fresh, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            // The backup and the fresh one have their names on disk before the file is emptied, and its name says that it is.
            files.rename(&fresh, &writing).map_err(|error| cannot("replace", &writing, error))?;
            sync(files, directory)?;
            write_whole(files, path, bytes, None).map_err(|error| cannot("write", path, error))?;
            remove(files, &writing).map_err(|error| cannot("remove", &writing, error))?;
        }
        Err(error) => return Err(cannot("replace", path, error)),
    }
    sync(files, directory)
}

/// Where the name of a file or directory is.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes `dir` and what is missing above it, durably.
fn make_dir(files: &dyn Files, dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    make_dir(files, directory_of(dir))?;
    match files.make_dir(dir) {
        // Another table's thread was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        made => made.map_err(|error| cannot("make", dir, error))?,
    }
    sync(files, directory_of(dir))
}

pub(crate) fn sync(files: &dyn Files, directory: &Path) -> io::Result<()> {
    files.sync_dir(directory).map_err(|error| cannot("sync", directory, error))
}

/// Makes the name of a directory durable, if the one that it is in may be opened.
fn sync_name(files: &dyn Files, dir: &Path) -> io::Result<()> {
    match sync(files, directory_of(dir)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// Where a path leads when every link in its last place is followed; the end need not exist.
pub(crate) fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            // A relative target counts from the link's directory; an absolute one replaces the whole path.
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(cannot("follow", &path, io::Error::new(io::ErrorKind::InvalidInput, "too many symbolic links")))
}

fn create(path: &Path, like: Option<&Metadata>) -> io::Result<File> {
    // Not readable by more than the old one for a moment, either.
    let mode = like.map_or(0o666, |like| like.mode() & 0o777);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    if let Some(like) = like {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
            // Only root may give files away; the new content matters more than whose it is.
            let _ = fchown(&file, Some(like.uid()), Some(like.gid()));
        }
    }
    Ok(file)
}

/// Gives a file that content; durable but for its name.
pub(crate) fn write_whole(files: &dyn Files, path: &Path, bytes: &[u8], like: Option<&Metadata>) -> io::Result<()> {
    let mut file = files.create(path, like)?;
    files.write(path, &mut file, bytes)?;
    files.sync_file(path, &file)
}

/// Gives the present content a second name, in one step: the backup before it stays until then.
fn keep(files: &dyn Files, path: &Path, backup: &Path, old: &Metadata) -> io::Result<()> {
    let aside = beside(backup, ".tmp");
    remove(files, &aside)?;
    // A link costs nothing and is as durable as the file; not every file system has them, and a mount point cannot be linked.
    if files.link(path, &aside).is_err() {
        write_whole(files, &aside, &fs::read(path)?, Some(old))?;
    }
    files.rename(&aside, backup)?;
    // Where both are the same file already, a rename leaves both names.
    remove(files, &aside)
}

/// There while a file is written in place, with what it is to have.
pub(crate) fn writing(path: &Path) -> PathBuf {
    beside(path, ".writing")
}

/// Removes a file; one that is not there is as good.
pub(crate) fn remove(files: &dyn Files, path: &Path) -> io::Result<()> {
    match files.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn cannot(what: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}", path.display()))
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
#[path = "crash_test.rs"]
mod crashes;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn replaces_and_keeps_the_previous_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deeper/kv.json");
        replace_file(&path, b"one").unwrap();
        assert!(!beside(&path, ".bak").exists());
        replace_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read(beside(&path, ".bak")).unwrap(), b"one");
        assert!(!beside(&path, ".tmp").exists());
        // The backup is of its own: the third version must not change it a second time.
        replace_file(&path, b"three").unwrap();
        assert_eq!(fs::read(beside(&path, ".bak")).unwrap(), b"two");
    }

    #[test]
    fn links_stay_and_what_they_point_at_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("real")).unwrap();
        fs::create_dir_all(dir.path().join("links")).unwrap();
        let real = dir.path().join("real/broker.conf");
        let first = dir.path().join("links/first.conf");
        let second = dir.path().join("second.conf");
        symlink("../real/broker.conf", &first).unwrap();
        symlink(&first, &second).unwrap();
        // A link may be there before its file.
        for content in ["one", "two"] {
            replace_file(&second, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&real).unwrap(), content);
            assert!([&first, &second].iter().all(|link| fs::symlink_metadata(link).unwrap().is_symlink()));
        }
        assert_eq!(fs::read(beside(&real, ".bak")).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path().join("links")).unwrap().count(), 1);

        let (here, there) = (dir.path().join("here"), dir.path().join("there"));
        symlink(&there, &here).unwrap();
        symlink(&here, &there).unwrap();
        let error = replace_file(&here, b"x").unwrap_err().to_string();
        assert!(error.contains("too many symbolic links"), "{error}");
    }

    #[test]
    fn the_mode_is_kept_even_a_read_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.conf");
        for mode in [0o600, 0o640, 0o444, 0o777] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            for content in ["one", "two"] {
                replace_file(&path, content.as_bytes()).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), content);
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode, "{mode:o}");
            }
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_is_no_file_is_left_alone_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = replace_file(dir.path(), b"x").unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()) && error.contains("not a regular file"), "{error}");
        let error = replace_file("/dev/null".as_ref(), b"x").unwrap_err().to_string();
        assert_eq!(error, "cannot replace /dev/null: it is not a regular file");
        // The temporary file's place is taken by a directory: stands for every directory that takes no new file.
        let path = dir.path().join("broker.conf");
        fs::create_dir(beside(&path, ".tmp")).unwrap();
        let error = replace_file(&path, b"x").unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {}.tmp: ", path.display())), "{error}");
    }
}
