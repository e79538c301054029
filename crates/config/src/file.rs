//! Replacing a small file so that a crash leaves the old one or the new one, never half of one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes `bytes` to a file beside `path`, flushes it to disk, renames it over `path` and flushes the directory. The previous content, if there
/// was any, stays as `<path>.bak`, as Java's `MixAll.string2File` keeps it. Missing directories are made. On return the new content is durable.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory)?;
    let fresh = beside(path, ".tmp");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    match fs::copy(path, beside(path, ".bak")) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::rename(&fresh, path)?;
    File::open(directory)?.sync_all()
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
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
    }
}
