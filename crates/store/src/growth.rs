//! Who is told that other brokers may have more of the log.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ferromq_protocol::PhysicalOffset;
use parking_lot::RwLock;

type Listener = Box<dyn Fn(PhysicalOffset) + Send + Sync>;

/// The listeners; one relaxed load while there is none.
#[derive(Default)]
pub struct Growth {
    count: AtomicUsize,
    list: RwLock<Vec<(u64, Listener)>>,
    last_id: AtomicU64,
}

impl fmt::Debug for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Growth").field(&self.count).finish()
    }
}

impl Growth {
    /// What grows at this very moment may go untold: whoever listens looks at the end of the log once after this, and now and then later.
    pub fn listen(self: &Arc<Self>, listener: Listener) -> GrowthListener {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut list = self.list.write();
        list.push((id, listener));
        self.count.store(list.len(), Ordering::Release);
        GrowthListener { growth: Arc::clone(self), id }
    }

    /// Tells them that a feed may read up to `end()` now. Locks that a read takes must not be held.
    pub fn tell(&self, end: impl FnOnce() -> u64) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let end = PhysicalOffset(end());
        for (_, listener) in &*self.list.read() {
            // On a thread of the store: its panic would end all writing.
            if catch_unwind(AssertUnwindSafe(|| listener(end))).is_err() {
                tracing::error!(%end, "a listener for the growth of the log has panicked");
            }
        }
    }
}

/// As long as this lives, the listener is called. It is not under way any more when this has been dropped; so the listener must not do
/// that itself.
#[derive(Debug)]
#[must_use = "the listener is removed when this is dropped"]
pub struct GrowthListener {
    growth: Arc<Growth>,
    id: u64,
}

impl Drop for GrowthListener {
    fn drop(&mut self) {
        let mut list = self.growth.list.write();
        list.retain(|(id, _)| *id != self.id);
        self.growth.count.store(list.len(), Ordering::Release);
    }
}
