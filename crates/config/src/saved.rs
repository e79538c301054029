//! Reading back a file that [`replace_file`](crate::replace_file) keeps: the file itself, or its backup, and never silently nothing.
//!
//! Whoever reads such a file writes it again later. So what cannot be read must not be where that write would destroy it, and an owner must
//! not begin empty while there is something that a person could repair. Java (`ConfigManager.load`) deletes a damaged file and begins empty.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use crate::file::{Files, LocalFiles, behind_links, beside, directory_of, remove, sync, write_whole, writing};

/// How many damaged versions are kept aside; after that many, the last one gives way.
const ASIDE_MAX: u32 = 9;

/// Why a saved file cannot be used. Nothing on disk has been changed then.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "{path} cannot be read: {reason}. {backup}. Nothing was changed. Repair the file, or put a copy in its place; \
         to go on without what it holds, move it away{backup_too}"
    )]
    Damaged { path: String, reason: String, backup: String, backup_too: &'static str },
    #[error(
        "cannot read {path}: {source}. Make it a file that can be read, or move it away to go on without what it holds"
    )]
    Io { path: String, source: io::Error },
}

/// Reads the file at `path` with `parse`, or its `.bak`; `None` when there is neither, or nothing in them. `parse` says what it does not
/// understand and where. A damaged file that has a good backup is kept as `<path>.damaged`, so that no later save can put it over the backup.
/// What is given is on the disk: a save that was killed may have got no further than into memory.
pub fn read_saved<T>(path: &Path, parse: impl Fn(&[u8]) -> Result<T, String>) -> Result<Option<T>, LoadError> {
    read_by(&LocalFiles, path, parse)
}

pub(crate) fn read_by<T>(
    files: &dyn Files,
    path: &Path,
    parse: impl Fn(&[u8]) -> Result<T, String>,
) -> Result<Option<T>, LoadError> {
    // The backup lies beside the file that a link points at, and that one is set aside, not the link.
    let path = &behind_links(path).map_err(failed_at(path))?;
    let value = find(files, path, parse)?;
    if value.is_some() {
        make_durable(files, path).map_err(failed_at(path))?;
    }
    Ok(value)
}

fn make_durable(files: &dyn Files, path: &Path) -> io::Result<()> {
    match fs::File::open(path) {
        // Its backup was taken.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => files.sync_file(path, &opened?)?,
    }
    // It is whole, or was put right.
    remove(files, &writing(path))?;
    sync(files, directory_of(path))
}

fn find<T>(files: &dyn Files, path: &Path, parse: impl Fn(&[u8]) -> Result<T, String>) -> Result<Option<T>, LoadError> {
    let backup_path = beside(path, ".bak");
    let file = read(path, &parse)?;
    if let Content::Good(value) = file {
        return Ok(Some(value));
    }
    let backup = read(&backup_path, &parse)?;
    let shown = path.display();
    match (file, backup) {
        (Content::Good(value), _) => Ok(Some(value)),
        (Content::Damaged(reason), Content::Good(value)) => {
            let aside = set_aside(files, path, &backup_path)?;
            error!(
                "{shown} cannot be read: {reason}. Its backup is used; the damaged file is kept as {}",
                aside.display()
            );
            Ok(Some(value))
        }
        (Content::Damaged(reason), backup) => Err(damaged(path, reason, &backup_path, backup)),
        // What is missing or empty cannot be repaired, but its backup can.
        (file, Content::Damaged(reason)) => Err(damaged(&backup_path, reason, path, file)),
        (Content::Missing, Content::Good(value)) => {
            warn!("{shown} is missing; its backup is used");
            Ok(Some(value))
        }
        (Content::Empty, Content::Good(value)) => {
            // Otherwise the next save would put emptiness over the backup. Java deletes it too.
            let removed = match files.remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => restore(files, path, &backup_path),
                removed => removed,
            };
            removed.map_err(failed_at(path))?;
            error!("{shown} is empty; its backup is used");
            Ok(Some(value))
        }
        (Content::Empty, _) => {
            error!("{shown} is empty and has no backup: starting without what it held");
            Ok(None)
        }
        (Content::Missing, _) => Ok(None),
    }
}

fn damaged<T>(path: &Path, reason: String, other_path: &Path, other: Content<T>) -> LoadError {
    let other_path = other_path.display();
    let (backup, backup_too) = match other {
        Content::Damaged(reason) => (format!("Nor can {other_path}: {reason}"), ", and the other one too"),
        Content::Empty => (format!("{other_path} is empty"), ""),
        Content::Good(_) | Content::Missing => (format!("There is no {other_path}"), ""),
    };
    LoadError::Damaged { path: path.display().to_string(), reason, backup, backup_too }
}

enum Content<T> {
    Good(T),
    Missing,
    /// Nothing but blanks: what an interrupted first write leaves, or `touch`.
    Empty,
    Damaged(String),
}

fn read<T>(path: &Path, parse: impl Fn(&[u8]) -> Result<T, String>) -> Result<Content<T>, LoadError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Missing),
        Err(error) => return Err(failed_at(path)(error)),
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Content::Empty);
    }
    Ok(match parse(&bytes) {
        Ok(value) => Content::Good(value),
        Err(reason) => Content::Damaged(reason),
    })
}

fn set_aside(files: &dyn Files, path: &Path, backup: &Path) -> Result<PathBuf, LoadError> {
    let mut aside = beside(path, ".damaged");
    for count in 2..=ASIDE_MAX {
        if !aside.exists() {
            break;
        }
        aside = beside(path, &format!(".damaged.{count}"));
    }
    let moved = match files.rename(path, &aside) {
        // A mount point of its own: a save that writes it in place was cut short.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => fs::read(path)
            .and_then(|bytes| write_whole(files, &aside, &bytes, fs::metadata(path).ok().as_ref()))
            .and_then(|()| sync(files, directory_of(path)))
            .and_then(|()| restore(files, path, backup)),
        moved => moved,
    };
    moved.map(|()| aside).map_err(failed_at(path))
}

/// Puts the backup into a file that cannot be replaced.
fn restore(files: &dyn Files, path: &Path, backup: &Path) -> io::Result<()> {
    write_whole(files, path, &fs::read(backup)?, None)
}

fn failed_at(path: &Path) -> impl Fn(io::Error) -> LoadError {
    move |source| LoadError::Io { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replace_file;

    fn parse(bytes: &[u8]) -> Result<String, String> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if text.starts_with("good") { Ok(text) } else { Err(format!("line 1: {text}")) }
    }

    /// What may stand at a path; `None` is no file.
    const CONTENTS: [Option<&str>; 6] = [None, Some(""), Some(" \n"), Some("good 1"), Some("half"), Some("\0\0\0")];

    #[test]
    fn whatever_stands_there_nothing_good_or_repairable_is_lost() {
        for main in CONTENTS {
            for backup in CONTENTS {
                let backup = backup.map(|text| text.replace('1', "2"));
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("table.json");
                let backup_path = beside(&path, ".bak");
                for (path, content) in [(&path, main), (&backup_path, backup.as_deref())] {
                    if let Some(content) = content {
                        fs::write(path, content).unwrap();
                    }
                }
                let blank = |content: &Option<&str>| content.is_none_or(|text| text.trim().is_empty());
                let good = |content: &Option<&str>| content.filter(|text| text.starts_with("good")).map(str::to_owned);
                let case = format!("{main:?}, {backup:?}");
                let read = read_saved(&path, parse);
                match good(&main).or_else(|| good(&backup.as_deref())) {
                    Some(expected) => assert_eq!(read.unwrap().as_ref(), Some(&expected), "{case}"),
                    None if blank(&main) && blank(&backup.as_deref()) => assert_eq!(read.unwrap(), None, "{case}"),
                    None => {
                        let error = read.unwrap_err().to_string();
                        assert!(error.contains("table.json") && error.contains("line 1: "), "{case}: {error}");
                        let missing = [(main, &path), (backup.as_deref(), &backup_path)]
                            .map(|(content, path)| (content, format!("There is no {}. ", path.display())));
                        for (content, text) in missing {
                            assert_eq!(error.contains(&text), content.is_none(), "{case}: {error}");
                        }
                        assert_eq!(fs::read_to_string(&path).ok().as_deref(), main, "{case}");
                        assert_eq!(fs::read_to_string(&backup_path).ok(), backup, "{case}");
                        continue;
                    }
                }
                // The first save after such a start.
                replace_file(&path, b"good 3").unwrap();
                let left: Vec<String> = fs::read_dir(directory.path())
                    .unwrap()
                    .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
                    .collect();
                for content in [main, good(&main).map_or(backup.as_deref(), |_| None)].into_iter().flatten() {
                    assert!(content.trim().is_empty() || left.iter().any(|text| text == content), "{case}: {left:?}");
                }
            }
        }
    }

    #[test]
    fn a_second_damaged_version_does_not_replace_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table.json");
        fs::write(beside(&path, ".bak"), "good").unwrap();
        for count in 0..12 {
            fs::write(&path, format!("half {count}")).unwrap();
            read_saved(&path, parse).unwrap();
        }
        assert_eq!(fs::read_to_string(beside(&path, ".damaged")).unwrap(), "half 0");
        assert_eq!(fs::read_to_string(beside(&path, ".damaged.9")).unwrap(), "half 11");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 10);
    }
}
