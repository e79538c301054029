//! How far a broker is with messages for a given time, as slaves ask it.

use serde::{Deserialize, Serialize};

use super::{DataVersion, Table};
use crate::TopicName;

/// Bytes of a [`TimerCheckPoint`].
pub const TIMER_CHECK_POINT_LEN: usize = 56;
/// Of brokers before the version was added.
const WITHOUT_VERSION_LEN: usize = 32;

/// The answer to GET_TIMER_CHECK_POINT (60), and the beginning of the file `timercheck`: seven numbers of eight bytes. Java:
/// TimerCheckpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimerCheckPoint {
    /// What was due before has been delivered, of what the queue has before its offset.
    pub last_read_time_ms: i64,
    /// Of a file that only Java has.
    pub last_timer_log_flush_pos: i64,
    /// The queue was read up to there.
    pub last_timer_queue_offset: i64,
    /// The same, of the master.
    pub master_timer_queue_offset: i64,
    pub data_version: DataVersion,
}

impl TimerCheckPoint {
    pub fn encode(&self) -> [u8; TIMER_CHECK_POINT_LEN] {
        let version = &self.data_version;
        let numbers = [
            self.last_read_time_ms,
            self.last_timer_log_flush_pos,
            self.last_timer_queue_offset,
            self.master_timer_queue_offset,
            version.state_version,
            version.timestamp,
            version.counter,
        ];
        let mut bytes = [0; TIMER_CHECK_POINT_LEN];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// Reads what is there behind it as well as Java: not at all. `None` when it is too short.
    pub fn decode(bytes: &[u8]) -> Option<TimerCheckPoint> {
        let number = |at: usize| {
            let place = bytes.get(at * 8..at * 8 + 8)?;
            Some(i64::from_be_bytes(place.try_into().ok()?))
        };
        let data_version = if bytes.len() == WITHOUT_VERSION_LEN {
            DataVersion::default()
        } else {
            DataVersion { state_version: number(4)?, timestamp: number(5)?, counter: number(6)? }
        };
        Some(TimerCheckPoint {
            last_read_time_ms: number(0)?,
            last_timer_log_flush_pos: number(1)?,
            last_timer_queue_offset: number(2)?,
            master_timer_queue_offset: number(3)?,
            data_version,
        })
    }
}

/// How many messages wait per topic: the answer to GET_TIMER_METRICS (61). Java: TimerMetrics.TimerMetricsSerializeWrapper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TimerMetrics {
    pub data_version: DataVersion,
    pub timing_count: Table<TopicName, TimingCount>,
}

/// Java: TimerMetrics.Metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TimingCount {
    pub count: i64,
    pub time_stamp: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_numbers_there_and_back() {
        let version = DataVersion { counter: 7, state_version: 5, timestamp: 6 };
        let checkpoint = TimerCheckPoint {
            last_read_time_ms: 1,
            last_timer_log_flush_pos: 2,
            last_timer_queue_offset: 3,
            master_timer_queue_offset: -4,
            data_version: version,
        };
        let bytes = checkpoint.encode();
        let places: Vec<i64> =
            bytes.chunks_exact(8).map(|place| i64::from_be_bytes(place.try_into().unwrap())).collect();
        assert_eq!(places, [1, 2, 3, -4, 5, 6, 7]);
        assert_eq!(TimerCheckPoint::decode(&bytes).as_ref(), Some(&checkpoint));
        for len in [0, 31, 33, 55] {
            assert_eq!(TimerCheckPoint::decode(&bytes[..len]), None, "{len}");
        }
        let old = TimerCheckPoint { data_version: DataVersion::default(), ..checkpoint };
        assert_eq!(TimerCheckPoint::decode(&bytes[..32]), Some(old));
    }
}
