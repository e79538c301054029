//! Replacing a small file so that a crash leaves the old one or the new one, never half of one.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// As many links as Linux follows before it gives up.
const LINKS_MAX: usize = 40;

/// Writes `bytes` to a file beside `path`, flushes it to disk, renames it over `path` and flushes the directory. The previous content, if there
/// was any, stays as `<path>.bak`, as Java's `MixAll.string2File` keeps it. Missing directories are made. On return the new content is durable.
///
/// A symbolic link stays, and what it points at is replaced, with the backup beside that. Mode and owner are kept as far as we may. A file
/// that is a mount point of its own, as containers get theirs, cannot be renamed over: it is written in place, after its backup.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = &behind_links(path)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory).map_err(|error| cannot("make", directory, error))?;
    let old = match fs::metadata(path) {
        Ok(old) if !old.is_file() => {
            let reason = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(cannot("replace", path, reason));
        }
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(cannot("look at", path, error)),
    };
    let fresh = beside(path, ".tmp");
    write_fresh(&fresh, bytes, old.as_ref()).map_err(|error| cannot("write", &fresh, error))?;
    if old.is_some() {
        let backup = beside(path, ".bak");
        keep(path, &backup).map_err(|error| cannot("write", &backup, error))?;
    }
    match fs::rename(&fresh, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            // The backup and the fresh one have their names on disk before the file is emptied.
            sync(directory)?;
            write_in_place(path, bytes).map_err(|error| cannot("write", path, error))?;
            fs::remove_file(&fresh).map_err(|error| cannot("remove", &fresh, error))?;
        }
        Err(error) => return Err(cannot("replace", path, error)),
    }
    sync(directory)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| cannot("sync", directory, error))
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

fn write_fresh(fresh: &Path, bytes: &[u8], old: Option<&Metadata>) -> io::Result<()> {
    // Not readable by more than the old one for a moment, either.
    let mode = old.map_or(0o666, |old| old.mode() & 0o777);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(fresh)?;
    if let Some(old) = old {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
            // Only root may give files away; the new content matters more than whose it is.
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
        }
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives the present content a second name. The old backup goes first: it may be read-only, like its file.
fn keep(path: &Path, backup: &Path) -> io::Result<()> {
    match fs::remove_file(backup) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // A link costs nothing and is as durable as the file; not every file system has them, and a mount point cannot be linked.
    match fs::hard_link(path, backup) {
        Ok(()) => Ok(()),
        Err(_) => {
            fs::copy(path, backup)?;
            File::open(backup)?.sync_all()
        }
    }
}

fn write_in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
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
