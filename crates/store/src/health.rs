//! Whether the store takes writes, and why not. Java: RunningFlags.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use crate::abort::AbortFile;
use crate::error::AppendError;

const CLOSED: u8 = 1;
const POISONED: u8 = 2;
const DISK_FULL: u8 = 4;

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

/// Of an append: [`Health::check`], or [`Health::check_sound`] for one of the store's own.
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

    /// Whether writes are taken; one relaxed load when they are.
    pub fn check(&self) -> Result<(), AppendError> {
        if self.flags.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.check_shortages()
    }

    /// [`Health::check`] for what may be written on a full disk too.
    pub fn check_sound(&self) -> Result<(), AppendError> {
        if let Some(reason) = self.poison_reason() {
            return Err(AppendError::Poisoned { reason });
        }
        if self.is_closed() { Err(AppendError::Closed) } else { Ok(()) }
    }

    fn check_shortages(&self) -> Result<(), AppendError> {
        self.check_sound()?;
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
    fn a_disk_that_got_room_between_two_looks_refuses_nothing() {
        let health = Health::default();
        // What was seen a moment before the list.
        health.flags.fetch_or(DISK_FULL, Ordering::SeqCst);
        assert!(health.check().is_ok());
    }
}
