//! The scrub: reads what is old in the log at a bounded rate, to find what the disk has lost before a consumer does.
//!
//! There is a thread once `scrubBytesPerSecond` is not 0; set back to 0 it sleeps. Where it is, it knows until the broker stops; after a
//! start it begins with the oldest segment.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferromq_store::{Scrub, Store};
use parking_lot::Mutex;

use crate::live_config::LiveConfig;
use crate::worker::{Bell, Worker};

/// While nothing is old enough it is looked again so often.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) struct Scrubbing {
    live: Arc<LiveConfig>,
    /// Locked by the thread alone; a next one goes on with it.
    scrub: Arc<Mutex<Scrub>>,
    worker: Worker,
}

impl Scrubbing {
    /// It does not run yet.
    pub(crate) fn new(live: &Arc<LiveConfig>, store: &Store) -> Scrubbing {
        let scrub = Arc::new(Mutex::new(store.scrub()));
        Scrubbing { live: Arc::clone(live), scrub, worker: Worker::new("scrub") }
    }

    /// Goes as fast as the configuration says now. To be called when the broker has started and when that has changed.
    pub(crate) fn follow_config(&self) -> io::Result<()> {
        if rate(&self.live) > 0 {
            let (live, scrub) = (Arc::clone(&self.live), Arc::clone(&self.scrub));
            self.worker.start(move |bell| run(bell, &live, &mut scrub.lock()))?;
        }
        self.worker.bell().wake();
        Ok(())
    }

    pub(crate) fn stop(&self) {
        self.worker.stop();
    }
}

fn rate(live: &LiveConfig) -> u64 {
    live.current().scrub_bytes_per_second
}

/// The thread.
fn run(bell: &Arc<Bell>, live: &LiveConfig, scrub: &mut Scrub) {
    let mut last = None;
    while bell.begins() {
        let rate = rate(live);
        let pause = match &last {
            _ if rate == 0 => None,
            Some((began, bytes)) => Some(due_in(*bytes, rate, Instant::now() - *began)),
            None => Some(Duration::ZERO),
        };
        if pause == Some(Duration::ZERO) {
            last = Some((Instant::now(), scrub.read_piece()));
        } else {
            bell.sleep(i64::MAX, pause);
        }
    }
}

/// How long until the next piece, so much time after the last one was begun.
fn due_in(bytes: u64, rate: u64, passed: Duration) -> Duration {
    let due = match bytes {
        0 => IDLE,
        // By a byte in a second it is days.
        _ => Duration::try_from_secs_f64(bytes as f64 / rate as f64).unwrap_or(Duration::MAX),
    };
    due.saturating_sub(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By a clock that a test moves: over any time no more is read than the rate says, and the piece that was begun.
    #[test]
    fn no_more_is_read_than_the_rate_allows() {
        for (rate, bytes) in [(1_000_000, 1 << 20), (3, 1 << 20), (1_000_000_000, 1 << 20), (1, 1 << 40), (700, 1)] {
            let (mut passed, mut read) = (Duration::ZERO, 0_f64);
            for took_ms in [0, 1, 5, 0, 2000, 0] {
                let allowed = rate as f64 * passed.as_secs_f64() + bytes as f64;
                read += bytes as f64;
                assert!(read <= allowed * 1.000_001, "{read} of {allowed} at {rate} after {passed:?}");
                let took = Duration::from_millis(took_ms);
                passed = passed.saturating_add(took).saturating_add(due_in(bytes, rate, took));
            }
        }
        assert_eq!(due_in(1 << 20, 1 << 18, Duration::from_secs(1)), Duration::from_secs(3));
        assert_eq!(due_in(1 << 20, 1 << 18, Duration::from_secs(9)), Duration::ZERO);
        assert_eq!(due_in(u64::MAX, 1, Duration::ZERO), Duration::MAX);
        assert_eq!(due_in(0, 1 << 18, Duration::from_secs(1)), IDLE - Duration::from_secs(1));
    }
}
