//! Clocks in the unit the wire uses: that of the wall, and one for durations. Logic that depends on time takes `now` as an argument; this is
//! where callers get it.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ferromq_store::Clock;

/// Milliseconds since the Unix epoch; 0 when the clock stands before it.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// Milliseconds since some moment of this process: for durations, because this clock is never set.
pub fn elapsed_ms() -> u64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGIN.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// [`elapsed_ms`] in the form of a wall clock: it shows that one's time at this moment and, whatever becomes of it, as much more as has
/// passed since.
pub(crate) fn forward() -> Clock {
    let (start_ms, begin_ms) = (now_ms(), elapsed_ms());
    Clock::from_fn(move || start_ms.saturating_add_unsigned(elapsed_ms().saturating_sub(begin_ms)))
}
