//! A file that is only read, piece by piece.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Whether nothing was ever written into a file: it is being made, and may be shorter than others for a moment, which a kill may hit.
pub fn is_blank(path: &Path) -> bool {
    const STEP: usize = 16 * 1024;
    Window::open(path, STEP).is_ok_and(|mut file| file.next_used(0).is_ok_and(|used| used.is_none()))
}

/// Remembers the piece that was read last.
#[derive(Debug)]
pub struct Window {
    file: File,
    len: u64,
    /// So much is read at a time.
    step: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub fn open(path: &Path, step: usize) -> io::Result<Window> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Window { file, len, step, start: 0, bytes: Vec::new() })
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// `len` bytes at `at`, fewer where the file ends. The caller bounds `len`.
    pub fn bytes(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let end = at.saturating_add(len as u64).min(self.len);
        if at >= end {
            return Ok(&[]);
        }
        if at < self.start || end > self.start + self.bytes.len() as u64 {
            self.fill(at, len.max(self.step))?;
        }
        let skipped = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        let piece = self.bytes.get(skipped..).unwrap_or_default();
        Ok(&piece[..piece.len().min(len)])
    }

    /// The array at `at`, if the file has it.
    pub fn array<const N: usize>(&mut self, at: u64) -> io::Result<Option<[u8; N]>> {
        Ok(self.bytes(at, N)?.first_chunk().copied())
    }

    /// The first byte at or behind `at` that is not zero.
    pub fn next_used(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        while at < self.len {
            // Holes are passed over unread, where the file system knows them.
            match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) => at = data,
                Err(Errno::NXIO) => return Ok(None),
                Err(_) => {}
            }
            let step = self.step;
            let bytes = self.bytes(at, step)?;
            if let Some(found) = bytes.iter().position(|byte| *byte != 0) {
                return Ok(Some(at + found as u64));
            }
            if bytes.is_empty() {
                break;
            }
            at += bytes.len() as u64;
        }
        Ok(None)
    }

    fn fill(&mut self, at: u64, len: usize) -> io::Result<()> {
        let len = len.min(usize::try_from(self.len - at).unwrap_or(usize::MAX));
        self.bytes.resize(len, 0);
        self.start = at;
        let mut done = 0;
        while done < len {
            match self.file.read_at(&mut self.bytes[done..], at + done as u64) {
                // Shorter than it was.
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.bytes.clear();
                    return Err(error);
                }
            }
        }
        self.bytes.truncate(done);
        if done < len {
            self.len = at + done as u64;
        }
        Ok(())
    }
}
