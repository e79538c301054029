//! What GET_BROKER_RUNTIME_INFO (28) tells: every key that 5.3.3 sends, and the one that only 4.x tools read.
//!
//! Queues before thread pools do not exist here: their sizes and waits are 0, their capacities those of the configuration. Java:
//! `AdminBrokerProcessor.prepareRuntimeInfo`, `StoreStatsService.getRuntimeInfo`.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use ferromq_protocol::body::{KvTable, Table};
use ferromq_protocol::{Reply, VERSION, version_name};
use ferromq_store::{DiskUsage, Effort, PUT_LATENCY_BUCKETS, Store, StoreStats};
use tracing::warn;

use crate::config::BrokerConfig;
use crate::ha::FollowerStatus;
use crate::live_config::LiveConfig;
use crate::master_duties::MasterDuties;
use crate::registrar::MissingRegistrations;
use crate::statistics::Statistics;

/// Upper bounds of the put latency buckets in ms, for percentiles; the last bucket has none and counts as its lower bound.
const BUCKET_MS: [f64; 13] =
    [0.0, 10.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 10_000.0, 10_000.0];

/// What the answer is made of.
pub(crate) struct RuntimeInfo {
    pub config: Arc<LiveConfig>,
    pub statistics: Arc<Statistics>,
    pub master_duties: Arc<MasterDuties>,
    pub store: Arc<Store>,
    pub unregistered: Arc<MissingRegistrations>,
    pub follower_status: Arc<FollowerStatus>,
    pub booted_ms: i64,
    pub booted: Instant,
}

impl RuntimeInfo {
    /// GET_BROKER_RUNTIME_INFO.
    pub(crate) fn answer(&self) -> Reply {
        Reply::ok().json_body(&KvTable { table: self.table() })
    }

    /// All keys with their values.
    pub(crate) fn table(&self) -> Table<String, String> {
        let config = self.config.current();
        let stats = self.store.stats();
        let mut table = Table::new();
        let mut put = |key: &str, value: String| drop(table.insert(key.to_owned(), value));
        put("bootTimestamp", self.booted_ms.to_string());
        put("brokerVersion", VERSION.to_string());
        put("brokerVersionDesc", version_name(VERSION).to_string());
        put("brokerActive", "true".to_owned());
        put("runtime", runtime_text(i64::try_from(self.booted.elapsed().as_millis()).unwrap_or(i64::MAX)));
        put("startAcceptSendRequestTimeStamp", config.start_accept_send_request_time_stamp.to_string());
        self.put_store(&mut put, &stats);
        self.put_disks(&mut put);
        self.put_rates(&mut put);
        put_pools(&mut put, &config);
        let levels = self.master_duties.held().map(|duties| duties.delays.progress());
        for (level, offset, end) in levels.unwrap_or_default() {
            put(&format!("scheduleMessageOffset_{level}"), format!("{offset},{end}"));
        }
        // Ours, and only while something is wrong.
        let unregistered = self.unregistered.reasons();
        if !unregistered.is_empty() {
            put("notRegisteredAt", unregistered.join("; "));
        }
        if let Some(why) = self.follower_status.why_it_stands_still() {
            put("copyStandsStill", why);
        }
        self.put_timers(&mut put);
        table
    }

    fn put_timers(&self, put: &mut impl FnMut(&str, String)) {
        let progress = self.master_duties.held().map(|duties| duties.timers.progress()).unwrap_or_default();
        let rates = self.statistics.store_rates();
        put("timerReadBehind", progress.behind_s.to_string());
        put("timerOffsetBehind", progress.not_entered.to_string());
        put("timerCongestNum", progress.waiting.to_string());
        // Over ten seconds, as there.
        put("timerEnqueueTps", java_double(rates.timers_entered[0].unwrap_or(0.0)));
        put("timerDequeueTps", java_double(rates.timers_delivered[0].unwrap_or(0.0)));
    }

    fn put_store(&self, put: &mut impl FnMut(&str, String), stats: &StoreStats) {
        let marks = self.store.watermarks();
        // At least one, as in Java: it is divided by.
        let count = stats.put_count.max(1);
        put("putMessageTimesTotal", count.to_string());
        put("putMessageFailedTimes", stats.put_failed.to_string());
        put("putMessageSizeTotal", stats.put_bytes.to_string());
        put("putMessageAverageSize", java_double(stats.put_bytes as f64 / count as f64));
        put("putMessageEntireTimeMax", (stats.put_longest_us / 1000).to_string());
        put("getMessageEntireTimeMax", (stats.read_longest_us / 1000).to_string());
        put("pageCacheLockTimeMills", stats.lock_held_ms.to_string());
        put("dispatchBehindBytes", stats.dispatch_behind.to_string());
        // Dispatch has no buffer of its own.
        put("dispatchMaxBuffer", "0".to_owned());
        if let Some(behind) = stats.commit_behind {
            put("remainHowManyDataToCommit", size_text(behind));
        }
        put("remainHowManyDataToFlush", size_text(stats.flush_behind));
        // What Java says without a write pool.
        put("remainTransientStoreBufferNumbs", stats.pool_buffers_free.unwrap_or(i32::MAX as usize).to_string());
        put("commitLogMinOffset", marks.min.to_string());
        put("commitLogMaxOffset", marks.written.to_string());
        // Ours, and only where the scrub is at work or was.
        if stats.scrub_bytes > 0 || self.config.current().scrub_bytes_per_second > 0 {
            put("scrubBytesTotal", stats.scrub_bytes.to_string());
            put("scrubRoundsTotal", stats.scrub_rounds.to_string());
            put("scrubDamagesTotal", stats.scrub_damages.to_string());
        }
        let earliest = self.store.earliest_message_time(Effort::Full);
        let earliest = earliest.inspect_err(|error| warn!(%error, "cannot read the oldest message")).ok().flatten();
        put("earliestMessageTimeStamp", earliest.unwrap_or(-1).to_string());
    }

    /// The ratio of each directory is there, and the smallest of them, which is what the log has left. The capacity is that of the root's disk, as in
    /// Java.
    fn put_disks(&self, put: &mut impl FnMut(&str, String)) {
        let ratio = |usage: &io::Result<DiskUsage>| match usage {
            Ok(usage) => usage.used_ratio,
            Err(error) => {
                warn!(%error, "cannot ask how full a disk is");
                -1.0
            }
        };
        let mut least = f64::MAX;
        for (dir, usage) in self.store.log_disks() {
            let ratio = ratio(&usage);
            put(&format!("commitLogDiskRatio_{}", dir.display()), java_double(ratio));
            least = least.min(ratio);
        }
        put("commitLogDiskRatio", java_double(least));
        let root = self.store.root_disk_usage();
        let (total, free) = root.as_ref().map_or((0, 0), |usage| (usage.total_bytes, usage.free_bytes));
        put("commitLogDirCapacity", format!("Total : {}, Free : {}.", size_text(total), size_text(free)));
        put("consumeQueueDiskRatio", java_double(ratio(&root)));
    }

    fn put_rates(&self, put: &mut impl FnMut(&str, String)) {
        let rates = self.statistics.store_rates();
        put("putTps", rates_text(rates.put));
        put("getFoundTps", rates_text(rates.found));
        put("getMissTps", rates_text(rates.missed));
        put("getTransferredTps", rates_text(rates.transferred));
        // As tools before 5.0 spell it.
        put("getTransferedTps", rates_text(rates.transferred));
        let total =
            std::array::from_fn(|span| Some(rates.found[span].unwrap_or(0.0) + rates.missed[span].unwrap_or(0.0)));
        put("getTotalTps", rates_text(total));
        let latency = self.statistics.put_latency();
        let distribution = PUT_LATENCY_BUCKETS.iter().zip(latency).fold(String::new(), |mut text, (bucket, count)| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{bucket}:{count} ");
            text
        });
        put("putMessageDistributeTime", distribution);
        put("putLatency99", format!("{:.2}", percentile(&latency, 0.99)));
        put("putLatency999", format!("{:.2}", percentile(&latency, 0.999)));
        let daily = self.statistics.daily();
        put("msgPutTotalYesterdayMorning", daily.sent_yesterday_morning.to_string());
        put("msgPutTotalTodayMorning", daily.sent_today_morning.to_string());
        put("msgPutTotalTodayNow", daily.sent_now.to_string());
        put("msgGetTotalYesterdayMorning", daily.delivered_yesterday_morning.to_string());
        put("msgGetTotalTodayMorning", daily.delivered_today_morning.to_string());
        put("msgGetTotalTodayNow", daily.delivered_now.to_string());
    }
}

fn put_pools(put: &mut impl FnMut(&str, String), config: &BrokerConfig) {
    let inert = |key: &str| config.passive.inert.get(key).cloned().unwrap_or_default();
    for (pool, capacity) in [
        ("send", config.send_thread_pool_queue_capacity.to_string()),
        ("pull", config.pull_thread_pool_queue_capacity.to_string()),
        ("litePull", inert("litePullThreadPoolQueueCapacity")),
        ("query", inert("queryThreadPoolQueueCapacity")),
        ("ack", inert("ackThreadPoolQueueCapacity")),
    ] {
        put(&format!("{pool}ThreadPoolQueueSize"), "0".to_owned());
        put(&format!("{pool}ThreadPoolQueueCapacity"), capacity);
        put(&format!("{pool}ThreadPoolQueueHeadWaitTimeMills"), "0".to_owned());
    }
    put("EndTransactionQueueSize", "0".to_owned());
    put("EndTransactionThreadPoolQueueCapacity", inert("endTransactionPoolQueueCapacity"));
}

/// `10s 60s 600s`; a rate that needs more time leaves its place empty.
fn rates_text(rates: [Option<f64>; 3]) -> String {
    rates.map(|rate| rate.map(java_double).unwrap_or_default()).join(" ")
}

/// As `Double.toString` writes the numbers that occur here: always with a decimal point.
fn java_double(value: f64) -> String {
    format!("{value:?}")
}

fn runtime_text(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    format!(
        "[ {} days, {} hours, {} minutes, {} seconds ]",
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Java: `MixAll.humanReadableByteCount` with binary units.
fn size_text(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = "KMGTPE".chars();
    let mut unit = units.next().unwrap_or('K');
    while value >= 1024.0
        && let Some(next) = units.next()
    {
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}iB")
}

/// Upper bound of the bucket that the percentile lies in; 0 without any put.
fn percentile(latency: &[u64; 13], part: f64) -> f64 {
    let total: u64 = latency.iter().sum();
    let wanted = total as f64 * part;
    let mut seen = 0;
    for (count, bound) in latency.iter().zip(BUCKET_MS) {
        seen += count;
        if total > 0 && seen as f64 >= wanted {
            return bound;
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_javas() {
        assert_eq!(runtime_text(763_123), "[ 0 days, 0 hours, 12 minutes, 43 seconds ]");
        assert_eq!(runtime_text(90_061_000), "[ 1 days, 1 hours, 1 minutes, 1 seconds ]");
        assert_eq!(size_text(0), "0 B");
        assert_eq!(size_text(3379), "3.3 KiB");
        assert_eq!(size_text(252 << 30), "252.0 GiB");
        assert_eq!(rates_text([Some(0.0), Some(0.5), None]), "0.0 0.5 ");
        assert_eq!(rates_text([None, None, None]), "  ");
    }

    #[test]
    fn percentiles_are_bucket_bounds() {
        let mut latency = [0; 13];
        assert_eq!(percentile(&latency, 0.99), 0.0);
        latency[0] = 990;
        latency[1] = 10;
        assert_eq!(percentile(&latency, 0.99), 0.0);
        assert_eq!(percentile(&latency, 0.999), 10.0);
    }
}
