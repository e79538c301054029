//! Admission: when a send is told to try later, because the disk, or another copy, does not keep up.
//!
//! There is no queue in front of the store, so nothing can wait too long in one; what is watched is the work itself: an append that does
//! not come back, and acknowledgements that wait for a flush or for other brokers. Java: `BrokerFastFailure`, `isOSPageCacheBusy`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Shared by all sends. One atomic addition and subtraction per send; the clock is read only while another append is under way.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Appends that have begun and not ended.
    appending: AtomicUsize,
    /// Where the last append that ended left the log: another value means that something has come back.
    ended: AtomicU64,
    /// What a send found there when it first saw an append under way that may be stuck, and when that was.
    suspected: AtomicU64,
    suspected_ms: AtomicU64,
    /// Acknowledgements that wait for a flush, or for other brokers.
    waiting: AtomicUsize,
}

/// No place in the log.
const NOTHING: u64 = u64::MAX;

impl Default for Admission {
    fn default() -> Admission {
        Admission {
            appending: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            suspected: AtomicU64::new(NOTHING),
            suspected_ms: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// How far things may go.
pub(crate) struct BusyLimits {
    /// `osPageCacheBusyTimeOutMills`.
    pub append_ms: u64,
    /// `sendThreadPoolQueueCapacity`.
    pub waiting: usize,
}

/// Why a send is refused for now. The text is the remark; operators search logs for its prefix.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Busy {
    #[error(
        "[PC_SYNCHRONIZED]broker busy, start flow control for a while: an append has not come back for {stuck_ms} ms, limit {limit_ms} ms (osPageCacheBusyTimeOutMills)"
    )]
    Append { stuck_ms: u64, limit_ms: u64 },
    #[error(
        "[OVERLOAD]system busy, start flow control for a while: {waiting} sends wait for the disk or for other copies, limit {limit} (sendThreadPoolQueueCapacity)"
    )]
    Flush { waiting: usize, limit: usize },
    #[error(
        "[REJECTREQUEST]system busy, start flow control for a while: the write pool has no free buffer (transientStorePoolSize), because the disk does not keep up"
    )]
    Pool,
}

impl Admission {
    /// Whether one more send may go ahead. The clock must be one that only goes forward.
    pub(crate) fn check(&self, limits: &BusyLimits, now_ms: impl FnOnce() -> u64) -> Result<(), Busy> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting >= limits.waiting {
            return Err(Busy::Flush { waiting, limit: limits.waiting });
        }
        if self.appending.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let (now, ended) = (now_ms(), self.ended.load(Ordering::Relaxed));
        if self.suspected.load(Ordering::Acquire) != ended {
            // Something ended since the last suspicion: begin anew. The time first, so that nobody pairs the new suspicion with an old one.
            self.suspected_ms.store(now, Ordering::Relaxed);
            self.suspected.store(ended, Ordering::Release);
            return Ok(());
        }
        let stuck_ms = now.saturating_sub(self.suspected_ms.load(Ordering::Relaxed));
        if stuck_ms > limits.append_ms {
            return Err(Busy::Append { stuck_ms, limit_ms: limits.append_ms });
        }
        Ok(())
    }

    /// Runs an append; `end` tells where it left the log when it worked.
    pub(crate) fn append<T, E>(
        &self,
        append: impl FnOnce() -> Result<T, E>,
        end: impl FnOnce(&T) -> u64,
    ) -> Result<T, E> {
        if self.appending.fetch_add(1, Ordering::Relaxed) == 0 {
            // Whatever was suspected before concerned an append that has come back.
            self.suspected.store(NOTHING, Ordering::Relaxed);
        }
        let result = append();
        self.appending.fetch_sub(1, Ordering::Relaxed);
        if let Ok(appended) = &result {
            self.ended.store(end(appended), Ordering::Relaxed);
        }
        result
    }

    /// An acknowledgement begins to wait for a flush, or for other brokers.
    pub(crate) fn waits(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// It waits no more.
    pub(crate) fn waits_no_more(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BusyLimits = BusyLimits { append_ms: 1000, waiting: 2 };

    #[test]
    fn an_append_that_does_not_come_back_stops_the_next_sends() {
        let admission = Admission::default();
        let append = || {
            // Others look while this one is under way.
            assert_eq!(admission.check(&LIMITS, || 5_000), Ok(()));
            assert_eq!(admission.check(&LIMITS, || 6_000), Ok(()));
            assert_eq!(admission.check(&LIMITS, || 6_001), Err(Busy::Append { stuck_ms: 1001, limit_ms: 1000 }));
            Ok::<_, ()>(6_100)
        };
        admission.append(append, |ended| *ended).unwrap();
        // It came back: everything is open again, also while the next one is under way.
        assert_eq!(admission.check(&LIMITS, || 6_200), Ok(()));
        let next = || {
            assert_eq!(admission.check(&LIMITS, || 20_000), Ok(()));
            Ok::<_, ()>(20_001)
        };
        admission.append(next, |ended| *ended).unwrap();
    }

    #[test]
    fn without_an_append_under_way_the_clock_is_not_read() {
        assert_eq!(Admission::default().check(&LIMITS, || unreachable!()), Ok(()));
    }

    #[test]
    fn waiting_acknowledgements_are_bounded() {
        let admission = Admission::default();
        admission.waits();
        admission.waits();
        let busy = admission.check(&LIMITS, || 0).unwrap_err();
        assert!(busy.to_string().starts_with("[OVERLOAD]system busy, start flow control for a while"), "{busy}");
        admission.waits_no_more();
        assert_eq!(admission.check(&LIMITS, || 0), Ok(()));
    }
}
