//! Whether the store takes writes, from whom, and why not. Java: RunningFlags.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use crate::abort::AbortFile;
use crate::error::AppendError;

const CLOSED: u8 = 1;
const POISONED: u8 = 2;
const DISK_FULL: u8 = 4;
/// Together say who may write: neither for [`Writer::Local`], so that one look at the flags is enough for a local append.
const NOT_LOCAL: u8 = 8;
const STREAM: u8 = 16;

/// Who may extend the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writer {
    /// This broker: what it is sent, what it stores again, what it notes of its tables.
    #[default]
    Local,
    /// The log of another broker, of which this one is a copy.
    Stream,
    Nobody,
}

/// What there is no room for. Each comes and goes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The disk is fuller than it may be.
    Disk,
    /// Queues or index cannot grow.
    Dispatch,
    /// What is in the write pool does not get into the log's files.
    Commit,
}

/// Of an append: [`Health::check`], [`Health::check_own`] for one of the store's own, [`Health::check_stream`] for a copy.
pub type HealthCheck = fn(&Health) -> Result<(), AppendError>;

/// Closed and poisoned are for good; full goes away when there is room again.
#[derive(Debug, Default)]
pub struct Health {
    flags: AtomicU8,
    poison: Mutex<Option<Arc<str>>>,
    /// Is to say so too: the next open must not count on what was written.
    abort: Option<AbortFile>,
    /// Each shortage with where it is and what is known of it.
    full: Mutex<Vec<(Shortage, PathBuf, String)>>,
}

impl Health {
    pub fn new(abort: AbortFile) -> Health {
        Health { abort: Some(abort), ..Health::default() }
    }

    /// Whether writes of this broker are taken; one relaxed load when they are.
    pub fn check(&self) -> Result<(), AppendError> {
        if self.flags.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.check_own()?;
        self.check_shortages()
    }

    /// [`Health::check`] for what may be written on a full disk too.
    pub fn check_own(&self) -> Result<(), AppendError> {
        self.check_writer(Writer::Local)
    }

    /// Whether bytes of another broker's log are taken.
    pub fn check_stream(&self) -> Result<(), AppendError> {
        self.check_writer(Writer::Stream)?;
        self.check_shortages()
    }

    fn check_writer(&self, writer: Writer) -> Result<(), AppendError> {
        if let Some(reason) = self.poison_reason() {
            return Err(AppendError::Poisoned { reason });
        }
        if self.is_closed() {
            return Err(AppendError::Closed);
        }
        let now = self.writer();
        if now == writer { Ok(()) } else { Err(AppendError::NotTheWriter { writer: now }) }
    }

    pub fn writer(&self) -> Writer {
        match self.flags.load(Ordering::Acquire) & (NOT_LOCAL | STREAM) {
            0 => Writer::Local,
            NOT_LOCAL => Writer::Nobody,
            _ => Writer::Stream,
        }
    }

    /// Who was it before may be under way until the append lock was held once.
    pub fn set_writer(&self, writer: Writer) {
        let bits = match writer {
            Writer::Local => 0,
            Writer::Stream => NOT_LOCAL | STREAM,
            Writer::Nobody => NOT_LOCAL,
        };
        // In one step, so that nobody sees a writer that was never set; it always does.
        let set = |flags: u8| Some(flags & !(NOT_LOCAL | STREAM) | bits);
        let _ = self.flags.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set);
    }

    fn check_shortages(&self) -> Result<(), AppendError> {
        if self.flags.load(Ordering::Relaxed) & DISK_FULL == 0 {
            return Ok(());
        }
        match self.full.lock().first() {
            Some((_, path, reason)) => Err(AppendError::DiskFull { path: path.clone(), reason: reason.clone() }),
            // The disk got room between the two looks.
            None => Ok(()),
        }
    }

    /// After a failed sync (or a panic) nobody knows what the disk holds: no writes until the next open. Whatever else fails
    /// may pass, and does not come here.
    pub fn poison(&self, reason: String) {
        tracing::error!(reason, "the store refuses writes from now on");
        self.poison.lock().get_or_insert_with(|| reason.into());
        let before = self.flags.fetch_or(POISONED, Ordering::SeqCst);
        if before & POISONED == 0
            && let Some(Err(error)) = self.abort.as_ref().map(AbortFile::distrust)
        {
            tracing::error!(%error, "abort cannot be written: a next start on this boot takes what was not synced for written");
        }
    }

    pub fn poison_reason(&self) -> Option<Arc<str>> {
        self.poison.lock().clone()
    }

    pub fn is_poisoned(&self) -> bool {
        self.flags.load(Ordering::Acquire) & POISONED != 0
    }

    pub fn disk_full(&self, shortage: Shortage, path: &Path, reason: String) {
        let mut full = self.full.lock();
        match full.iter_mut().find(|(known, ..)| *known == shortage) {
            Some(known) => *known = (shortage, path.to_owned(), reason),
            None => {
                tracing::error!(path = %path.display(), reason, "the disk is full: writes are refused until there is room");
                full.push((shortage, path.to_owned(), reason));
            }
        }
        self.flags.fetch_or(DISK_FULL, Ordering::SeqCst);
    }

    pub fn disk_has_room(&self, shortage: Shortage) {
        if self.flags.load(Ordering::Relaxed) & DISK_FULL == 0 {
            return;
        }
        let mut full = self.full.lock();
        let known = full.len();
        full.retain(|(known, ..)| *known != shortage);
        if full.is_empty() && known > 0 {
            self.flags.fetch_and(!DISK_FULL, Ordering::SeqCst);
            tracing::info!("the disk has room again: writes are taken");
        }
    }

    /// True for the one caller that closes.
    pub fn close(&self) -> bool {
        self.flags.fetch_or(CLOSED, Ordering::SeqCst) & CLOSED == 0
    }

    pub fn is_closed(&self) -> bool {
        self.flags.load(Ordering::Acquire) & CLOSED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_taken_again_when_no_shortage_is_left() {
        let health = Health::default();
        let full = |shortage| health.disk_full(shortage, Path::new("/store"), format!("{shortage:?}"));
        full(Shortage::Dispatch);
        full(Shortage::Disk);
        full(Shortage::Disk);
        health.disk_has_room(Shortage::Disk);
        let refused = health.check();
        assert!(matches!(&refused, Err(AppendError::DiskFull { reason, .. }) if reason == "Dispatch"), "{refused:?}");
        health.disk_has_room(Shortage::Disk);
        assert!(health.check().is_err());
        health.disk_has_room(Shortage::Dispatch);
        assert!(health.check().is_ok());
    }

    #[test]
    fn one_kind_of_writer_is_let_in() {
        let health = Health::default();
        for writer in [Writer::Stream, Writer::Nobody, Writer::Local] {
            health.set_writer(writer);
            assert_eq!(health.writer(), writer);
            let refused = |done: Result<(), AppendError>| match done {
                Ok(()) => false,
                Err(AppendError::NotTheWriter { writer: is }) if is == writer => true,
                Err(error) => panic!("{error}"),
            };
            assert_eq!(refused(health.check()), writer != Writer::Local);
            assert_eq!(refused(health.check_own()), writer != Writer::Local);
            assert_eq!(refused(health.check_stream()), writer != Writer::Stream);
        }
        health.set_writer(Writer::Stream);
        health.disk_full(Shortage::Disk, Path::new("/store"), "95% used".to_owned());
        assert!(matches!(health.check_stream(), Err(AppendError::DiskFull { .. })));
        assert!(matches!(health.check(), Err(AppendError::NotTheWriter { .. })));
        health.disk_has_room(Shortage::Disk);
        assert!(health.check_stream().is_ok());
        health.close();
        assert!(matches!(health.check_stream(), Err(AppendError::Closed)));
    }

    #[test]
    fn a_disk_that_got_room_between_two_looks_refuses_nothing() {
        let health = Health::default();
        // What was seen a moment before the list.
        health.flags.fetch_or(DISK_FULL, Ordering::SeqCst);
        assert!(health.check().is_ok());
    }
}
