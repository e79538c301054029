//! A slave's own log, as its follower speaks of it: what it has, and the changes that come of the stream.
//!
//! Calls wait for the disk. Nobody else changes the log meanwhile: it is `Writer::Stream`'s.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::record::{BLANK_LEN, BLANK_MAGIC};
use ferromq_replication::{CopyLog, News, NotAppended, Probe};
use ferromq_store::{Disk, ReadError, Store, TruncateError, Want};
use tracing::{error, warn};

use crate::clock::now_ms;

/// What is cut off is kept in pieces of so many bytes.
const PIECE_LEN: usize = 1 << 20;

pub(super) struct SlaveLog {
    pub store: Arc<Store>,
    /// `storePathRootDir`.
    pub root: PathBuf,
    /// `mappedFileSizeCommitLog`.
    pub segment_len: u64,
}

/// Why a log was not cut.
#[derive(Debug, thiserror::Error)]
enum CutError {
    #[error("what would be cut off is not on the disk, and cannot be kept")]
    NotOnDisk,
    #[error("{needed} bytes are needed to keep what is cut off, and the disk of {} has {free}", dir.display())]
    NoRoom { dir: PathBuf, needed: u64, free: u64 },
    #[error("cannot read what would be cut off: {0}")]
    Read(#[from] ReadError),
    #[error("the log has nothing at {at}, which would be cut off")]
    Missing { at: PhysicalOffset },
    #[error("cannot write {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Truncate(#[from] TruncateError),
}

impl SlaveLog {
    pub(super) fn marks(&self) -> CopyLog {
        let marks = self.store.watermarks();
        CopyLog { first: marks.min, end: marks.written, flushed: marks.flushed }
    }

    /// The last of our records that begins at `near` or before, and where; `near` without one.
    pub(super) fn probe(&self, probe: Probe) -> Result<(PhysicalOffset, Option<Bytes>), ReadError> {
        let found = self.store.last_record(probe.from, probe.near)?;
        Ok(found.map_or((probe.near, None), |(at, record)| (at, Some(record))))
    }

    /// Appends the whole items that `bytes` begin with.
    pub(super) fn append(&self, at: PhysicalOffset, bytes: &[u8]) -> News<'static> {
        let whole = self.without_open_filler(at, bytes);
        match self.store.append_copy(at, whole) {
            Ok(taken) => News::Appended(taken),
            Err(error) if error.fault.is_of_the_bytes() => {
                warn!(at = %error.at, error = %error.fault, "bytes of the master's log are not taken");
                News::NotAppended(NotAppended::Bad { at: error.at })
            }
            Err(error) => {
                warn!(at = %error.at, error = %error.fault, "the master's log cannot be copied at present");
                News::NotAppended(NotAppended::NotNow)
            }
        }
    }

    /// A filler whose end is not there waits for it, as a record does. The store would take its first bytes for all of it, and what is
    /// reported then has not come.
    fn without_open_filler<'b>(&self, at: PhysicalOffset, bytes: &'b [u8]) -> &'b [u8] {
        let mut here = 0;
        while let Some(rest) = bytes.get(here..).filter(|rest| !rest.is_empty()) {
            let room = self.segment_len - (at.0 + here as u64) % self.segment_len;
            if rest.len() as u64 >= room {
                // Whatever is in there has its end there.
                here += room as usize;
                continue;
            }
            let Some(head) = rest.first_chunk::<BLANK_LEN>() else { return bytes };
            let [len @ .., _, _, _, _] = *head;
            let [_, _, _, _, magic @ ..] = *head;
            let len = u32::from_be_bytes(len);
            if u32::from_be_bytes(magic) == BLANK_MAGIC && u64::from(len) == room {
                return &bytes[..here];
            }
            if len == 0 {
                return bytes;
            }
            here += len as usize;
        }
        bytes
    }

    pub(super) fn restart_at(&self, begin: PhysicalOffset) -> News<'static> {
        match self.store.restart_at(begin) {
            Ok(()) => News::Changed,
            Err(error) => {
                error!(%begin, %error, "the log cannot begin anew where the master's does");
                News::NotAppended(NotAppended::NotNow)
            }
        }
    }

    /// Keeps what is behind `to` in a file of its own, then cuts it off.
    pub(super) fn cut_to(&self, to: PhysicalOffset) -> News<'static> {
        match self.keep_and_cut(to) {
            Ok(kept) => {
                warn!(%to, kept = %kept.display(), "the log was cut off; what it had behind that is kept");
                News::Changed
            }
            Err(error) => {
                error!(%to, %error, "the log is not cut off: what only it has could not be kept, or not be cut");
                News::NotAppended(NotAppended::NotNow)
            }
        }
    }

    fn keep_and_cut(&self, to: PhysicalOffset) -> Result<PathBuf, CutError> {
        let end = self.marks().end;
        // What is not on the disk is not read either with synchronous flush.
        if !self.wait_flushed(end) {
            return Err(CutError::NotOnDisk);
        }
        let kept = self.keep(to, end)?;
        self.store.truncate(to).inspect_err(|_| {
            // All of it is in the log still, and will be kept once more.
            if self.marks().end == end && self.store.check_writable().is_ok() {
                self.remove(&kept);
            }
        })?;
        Ok(kept)
    }

    fn wait_flushed(&self, end: PhysicalOffset) -> bool {
        let (done, outcome) = mpsc::channel();
        // The receiver is there until it has been told.
        self.store.when_safe(end, Want::Disk, move |safe| _ = done.send(safe));
        matches!(outcome.recv(), Ok(Ok(())))
    }

    /// Writes what the log has from `from` to `end` into `diverged/`; durable when this returns.
    fn keep(&self, from: PhysicalOffset, end: PhysicalOffset) -> Result<PathBuf, CutError> {
        let disk = self.store.disk();
        let dir = self.root.join("diverged");
        let at_dir = |source| CutError::Io { path: dir.clone(), source };
        std::fs::create_dir_all(&dir).map_err(at_dir)?;
        disk.sync_dir(&self.root).map_err(at_dir)?;
        let len = end - from;
        // Besides it, the truncation copies what stays in its segment.
        let needed = len + from.0 % self.segment_len;
        let free = disk.usage(&dir).map_err(at_dir)?.free_bytes;
        if free < needed {
            return Err(CutError::NoRoom { dir, needed, free });
        }
        let path = dir.join(format!("{:020}-{}", from.0, now_ms()));
        let unfinished = path.with_extension("tmp");
        let written = self.write_out(&*disk, &unfinished, from, end).and_then(|()| {
            let named = disk.rename(&unfinished, &path).and_then(|()| disk.sync_dir(&dir));
            named.map_err(|source| CutError::Io { path: path.clone(), source })
        });
        written.inspect_err(|_| self.remove(&unfinished))?;
        Ok(path)
    }

    fn write_out(
        &self,
        disk: &dyn Disk,
        path: &Path,
        from: PhysicalOffset,
        end: PhysicalOffset,
    ) -> Result<(), CutError> {
        let failed = |source| CutError::Io { path: path.to_owned(), source };
        let file: File = disk.create(path, end - from).map_err(failed)?;
        let mut at = from;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(PIECE_LEN).min(PIECE_LEN);
            let piece = self.store.raw_from(at, left)?.ok_or(CutError::Missing { at })?;
            disk.write(path, &file, &piece, at - from).map_err(failed)?;
            at = at + piece.len() as u64;
        }
        disk.sync_file(path, &file).map_err(failed)
    }

    fn remove(&self, path: &Path) {
        match self.store.disk().remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = %path.display(), %error, "cannot remove what was kept of the log in vain");
            }
            _ => {}
        }
    }
}
