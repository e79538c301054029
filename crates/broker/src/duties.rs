//! What a broker does again and again while it runs, in every role but for the progress of a master's duties.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::now_ms;
use crate::parts::Parts;
use crate::{clients, held_pulls, local_time, queue_locks};

/// How often the delay offsets are saved. Java: `flushDelayOffsetInterval`.
const DELAY_OFFSETS_PERIOD: Duration = Duration::from_secs(1);

/// Begins all of them; they end with the set.
pub(crate) fn begin(parts: &Parts) -> JoinSet<()> {
    let mut duties = JoinSet::new();
    let config = parts.live.current().clone();
    let pull = Arc::clone(&parts.pull);
    every(&mut duties, held_pulls::CHECK_INTERVAL, move || pull.expire(Instant::now()));
    let offsets = Arc::clone(&parts.offsets);
    let period = Duration::from_millis(config.flush_consumer_offset_interval);
    every(&mut duties, period, move || offsets.save_if_changed());
    let (clients, live) = (Arc::clone(&parts.clients), Arc::clone(&parts.live));
    every(&mut duties, clients::EXPIRE_PERIOD, move || {
        let timeout = Duration::from_millis(live.current().channel_expired_timeout);
        clients.expire(Instant::now(), timeout);
    });
    let locks = Arc::clone(&parts.locks);
    every(&mut duties, queue_locks::EXPIRE_PERIOD, move || locks.expire(Instant::now()));
    let master_duties = Arc::clone(&parts.master_duties);
    every(&mut duties, DELAY_OFFSETS_PERIOD, move || master_duties.save_progress());
    let (statistics, store, started) = (Arc::clone(&parts.statistics), Arc::clone(&parts.store), Instant::now());
    every(&mut duties, Duration::from_secs(1), move || {
        // Rates are by a clock that only goes forward, days by the calendar.
        let elapsed_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        statistics.tick(elapsed_ms, local_time::day(now_ms()), &store.stats());
    });
    duties
}

/// At once, and then so often; later when it was held up.
fn every(duties: &mut JoinSet<()>, period: Duration, mut duty: impl FnMut() + Send + 'static) {
    duties.spawn(async move {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            duty();
        }
    });
}
