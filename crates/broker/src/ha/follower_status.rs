//! What can be asked about a slave's follower while it is at work: whom it follows, in 28 why it stands still, in 907 when it heard and said
//! something.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::now_ms;

/// Told by the follower's thread.
#[derive(Debug, Default)]
pub(crate) struct FollowerStatus {
    /// `host:port` for clients of who is followed: the two logs were found to be one, and the connection lasts. Sent anew with each connection,
    /// also to the same master.
    followed: watch::Sender<Option<String>>,
    /// Why nothing is copied until somebody acts.
    stands_still: Mutex<Option<String>>,
    read_ms: AtomicI64,
    reported_ms: AtomicI64,
}

impl FollowerStatus {
    pub(super) fn stands_still(&self, why: String) {
        *self.stands_still.lock() = Some(why);
    }

    pub(super) fn goes_on(&self) {
        *self.stands_still.lock() = None;
    }

    pub(super) fn follows(&self, client: String) {
        self.followed.send_replace(Some(client));
    }

    pub(super) fn follows_nobody(&self) {
        self.followed.send_if_modified(|followed| followed.take().is_some());
    }

    pub(super) fn followed(&self) -> watch::Receiver<Option<String>> {
        self.followed.subscribe()
    }

    pub(super) fn has_read(&self) {
        self.read_ms.store(now_ms(), Ordering::Relaxed);
    }

    pub(super) fn has_reported(&self) {
        self.reported_ms.store(now_ms(), Ordering::Relaxed);
    }

    pub(crate) fn why_it_stands_still(&self) -> Option<String> {
        self.stands_still.lock().clone()
    }

    /// When something last came from the master, in ms since 1970; 0 before.
    pub(crate) fn last_read_ms(&self) -> i64 {
        self.read_ms.load(Ordering::Relaxed)
    }

    /// When the master was last told how far the log is; 0 before.
    pub(crate) fn last_report_ms(&self) -> i64 {
        self.reported_ms.load(Ordering::Relaxed)
    }
}
