//! Files of words, mapped into memory and changed in place: consume queues and index.
//!
//! All access is by 32-bit atomics, so that readers and the writer never race. What makes the mapping sound besides is said in
//! `mapped_file`.
#![allow(unsafe_code, reason = "a memory-mapped file; the block states its proof")]

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::Advice;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::disk::{Disk, FileState, naming};
use crate::looking::{Look, MappedFile, ReadError, SeenBlocks};
use crate::mapped_file::{check_read, map_writable, or_gone, sync_map};
use crate::mapping::Mapping;

/// A mapped file of big-endian words that may change in place. Its descriptor is closed: there may be one of these for each of
/// thousands of queues.
#[derive(Debug)]
pub struct WordFile {
    map: Mapping,
    path: PathBuf,
    seen: SeenBlocks<1>,
}

impl WordFile {
    /// Makes a file of `len` zeroed bytes of which none is allocated: see [`WordFile::allocate`]. It is durable after a
    /// [`WordFile::sync`] and one of its directory.
    pub fn create_empty(disk: &dyn Disk, path: PathBuf, len: u64) -> io::Result<WordFile> {
        WordFile::create_known(disk, path, len).map(|(words, _)| words)
    }

    pub fn open(path: PathBuf) -> io::Result<WordFile> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        WordFile::map(&file, path)
    }

    /// [`WordFile::create_empty`], and which file that is.
    pub fn create_known(disk: &dyn Disk, path: PathBuf, len: u64) -> io::Result<(WordFile, FileState)> {
        let file = disk.create(&path, 0)?;
        let made = file.set_len(len).and_then(|()| WordFile::map(&file, path.clone()));
        let known = made.and_then(|words| Ok((words, disk.state_of(&path, &file)?)));
        or_gone(disk, known, &path)
    }

    /// [`WordFile::open`], and which file that is.
    pub fn open_known(disk: &dyn Disk, path: PathBuf) -> io::Result<(WordFile, FileState)> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let state = disk.state_of(&path, &file)?;
        Ok((WordFile::map(&file, path)?, state))
    }

    fn map(file: &File, path: PathBuf) -> io::Result<WordFile> {
        let words = WordFile { map: Mapping::new(file)?, path, seen: SeenBlocks::default() };
        // A changed word makes its page dirty, and with read-ahead the large piece of memory that the page is part of; and a start that looks
        // at one entry of each file would read them all. Readers bring what they go through themselves (`looking`).
        let advised = words.map.advise(Advice::Random);
        words.note_advice(advised);
        Ok(words)
    }

    /// Allocates `range`, so that words there can be put; a full disk is an error here.
    pub fn allocate(&self, disk: &dyn Disk, range: Range<usize>) -> io::Result<()> {
        let file = OpenOptions::new().write(true).read(true).open(&self.path)?;
        let len = range.len() as u64;
        disk.allocate(&file, range.start as u64..range.end as u64).map_err(|error| naming(error, &self.path, len))
    }

    /// Zeros, durably, what was ever written from byte `at` (a multiple of four) on. Holes stay holes.
    pub fn zero_behind(&self, disk: &dyn Disk, at: usize) -> io::Result<()> {
        let file = File::open(&self.path)?;
        let mut at = at;
        while let Some(data) = next_data(&file, at)? {
            for word in (data.start - data.start % 4..data.end.min(self.len())).step_by(4) {
                if self.word(word) != 0 {
                    self.put_word(word, 0);
                }
            }
            self.sync(disk, data.start..data.end.min(self.len()))?;
            at = data.end;
        }
        Ok(())
    }

    /// Behind it nothing was ever written: there are holes, which nobody needs to look at.
    pub fn data_end(&self) -> io::Result<usize> {
        let file = File::open(&self.path)?;
        let mut end = 0;
        while let Some(data) = next_data(&file, end)? {
            end = data.end;
        }
        Ok(end.min(self.len()))
    }

    /// Maps the pages of `range` writable ahead of puts.
    pub fn map_writable(&self, range: Range<usize>) {
        map_writable(&self.map, &self.path, range);
    }

    /// All of `range` is looked at in a moment, from front to back: the kernel reads it in one go instead of page by page, into single pages.
    pub fn will_need(&self, range: Range<usize>) {
        let range = range.start..range.end.min(self.len());
        if !range.is_empty() {
            self.note_advice(self.map.advise_range(Advice::WillNeed, range.start, range.len()));
        }
    }

    fn note_advice(&self, advised: io::Result<()>) {
        if let Err(error) = advised {
            tracing::debug!(%error, path = %self.path.display(), "the kernel takes no advice on a mapping");
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether what was read until now is what the file has.
    pub fn check(&self) -> Result<(), ReadError> {
        check_read(&self.map, &self.path)
    }

    /// Makes sure that `range` is in memory before its words are looked at; `used` bytes of the file have words.
    pub fn look(&self, look: &Look<'_>, used: usize, range: Range<usize>) -> Result<(), ReadError> {
        self.check()?;
        let file = MappedFile { path: &self.path, map: &self.map, used, seen: &self.seen };
        look.bring(&file, || File::open(&self.path), range).map(drop)
    }

    /// The word at byte `at`.
    ///
    /// # Panics
    /// When `at` is not a multiple of four inside the file.
    pub fn word(&self, at: usize) -> u32 {
        u32::from_be(self.atom(at).load(Ordering::Acquire))
    }

    /// Replaces the word at byte `at`; what was put before is seen by whoever sees this.
    ///
    /// # Panics
    /// When `at` is not a multiple of four inside the file.
    pub fn put_word(&self, at: usize, value: u32) {
        self.atom(at).store(value.to_be(), Ordering::Release);
    }

    /// The words from byte `at` on. Each is read by itself.
    ///
    /// # Panics
    /// When `at` is not a multiple of four, or not all of them are inside the file.
    pub fn words<const N: usize>(&self, at: usize) -> [u32; N] {
        let atoms = self.atoms::<N>(at);
        std::array::from_fn(|index| u32::from_be(atoms[index].load(Ordering::Acquire)))
    }

    /// Two words as one number. Not atomic as a whole.
    pub fn long(&self, at: usize) -> u64 {
        u64::from(self.word(at)) << 32 | u64::from(self.word(at + 4))
    }

    /// Replaces two words. Not atomic as a whole.
    pub fn put_long(&self, at: usize, value: u64) {
        // Both halves, nothing cut off.
        self.put_word(at, (value >> 32) as u32);
        self.put_word(at + 4, value as u32);
    }

    /// Makes `range` durable.
    pub fn sync(&self, disk: &dyn Disk, range: Range<usize>) -> io::Result<()> {
        sync_map(disk, &self.path, &self.map, None, range)
    }

    fn atom(&self, at: usize) -> &AtomicU32 {
        &self.atoms::<1>(at)[0]
    }

    fn atoms<const N: usize>(&self, at: usize) -> &[AtomicU32; N] {
        assert!(at.is_multiple_of(4) && at + 4 * N <= self.map.len(), "{N} words at {at} of {}", self.map.len());
        // SAFETY: inside the mapping and aligned (a mapping starts on a page, `at` is a multiple of four; both
        // asserted), and an `AtomicU32` has the layout of a word. Every access to this file's memory goes through here, so
        // all of them are atomic. The borrow of `self` keeps the mapping.
        unsafe { &*self.map.as_mut_ptr().add(at).cast::<[AtomicU32; N]>() }
    }
}

/// The next range from `at` on that has data. A filesystem that does not keep apart what is a hole says all of it.
fn next_data(file: &File, at: usize) -> io::Result<Option<Range<usize>>> {
    let place = |offset: u64| usize::try_from(offset).map_err(io::Error::other);
    match rustix::fs::seek(file, SeekFrom::Data(at as u64)) {
        Ok(from) => Ok(Some(place(from)?..place(rustix::fs::seek(file, SeekFrom::Hole(from))?)?)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;

    #[test]
    fn words_are_big_endian() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        let file = WordFile::create_empty(&LocalDisk, path.clone(), 16).unwrap();
        file.put_long(4, 0x0102_0304_0506_0708);
        assert_eq!((file.word(8), file.long(4), file.len()), (0x0506_0708, 0x0102_0304_0506_0708, 16));
        file.sync(&LocalDisk, 0..16).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[4..12], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(WordFile::open(path).unwrap().word(4), 0x0102_0304);
    }
}
