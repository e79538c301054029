//! Whether the store takes writes, and why not. Java: RunningFlags.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use crate::error::AppendError;

const CLOSED: u8 = 1;
const POISONED: u8 = 2;
const DISK_FULL: u8 = 4;

/// Closed and poisoned are for good; full goes away when there is room again.
#[derive(Debug, Default)]
pub struct Health {
    flags: AtomicU8,
    poison: Mutex<Option<Arc<str>>>,
    full: Mutex<Option<(std::path::PathBuf, String)>>,
}

impl Health {
    /// Whether writes are taken; one relaxed load when they are.
    pub fn check(&self) -> Result<(), AppendError> {
        if self.flags.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        Err(self.refusal())
    }

    fn refusal(&self) -> AppendError {
        if let Some(reason) = self.poison_reason() {
            return AppendError::Poisoned { reason };
        }
        if self.is_closed() {
            return AppendError::Closed;
        }
        match &*self.full.lock() {
            Some((path, reason)) => AppendError::DiskFull { path: path.clone(), reason: reason.clone() },
            // The disk got room between the two looks; the caller may try again.
            None => AppendError::Extend { reason: "the disk was full a moment ago".to_owned() },
        }
    }

    /// After a failed write or sync nobody knows what the disk holds: no writes until the next open.
    pub fn poison(&self, reason: String) {
        tracing::error!(reason, "the store refuses writes from now on");
        self.poison.lock().get_or_insert_with(|| reason.into());
        self.flags.fetch_or(POISONED, Ordering::SeqCst);
    }

    pub fn poison_reason(&self) -> Option<Arc<str>> {
        self.poison.lock().clone()
    }

    pub fn is_poisoned(&self) -> bool {
        self.flags.load(Ordering::Acquire) & POISONED != 0
    }

    pub fn disk_full(&self, path: &Path, reason: String) {
        let mut full = self.full.lock();
        if full.is_none() {
            tracing::error!(path = %path.display(), reason, "the disk is full: writes are refused until there is room");
        }
        *full = Some((path.to_owned(), reason));
        self.flags.fetch_or(DISK_FULL, Ordering::SeqCst);
    }

    pub fn disk_has_room(&self) {
        if self.flags.load(Ordering::Relaxed) & DISK_FULL == 0 {
            return;
        }
        let mut full = self.full.lock();
        self.flags.fetch_and(!DISK_FULL, Ordering::SeqCst);
        if full.take().is_some() {
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
