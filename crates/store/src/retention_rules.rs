//! What the store keeps, and for how long: the settings of the retention.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Hours of the day; by default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hours(u32);

impl Hours {
    /// One or more, as `deleteWhen` has them: `04` or `03;04;05`. `None` where something else stands. Java: UtilAll.isItTimeToDo.
    pub fn parse(text: &str) -> Option<Hours> {
        let parts =
            text.trim_end_matches(';').split(';').map(|part| part.trim().parse().ok().filter(|hour| *hour < 24));
        let bits = parts.map(|hour: Option<u32>| Some(1 << hour?)).reduce(|all, one| Some(all? | one?));
        bits.flatten().map(Hours)
    }

    /// The hour of this machine's day that it is at a time.
    pub fn at(ms: i64) -> Hours {
        // Times beyond the year 9999 are no timestamps.
        let hour = Timestamp::from_millisecond(ms).map_or(0, |time| time.to_zoned(TimeZone::system()).hour());
        Hours(1 << hour)
    }

    pub fn contain(self, hour: Hours) -> bool {
        self.0 & hour.0 != 0
    }
}

/// What the store keeps. May be changed while it is open.
#[derive(Clone, Debug, PartialEq)]
pub struct RetentionRules {
    /// How long messages are kept at least. `fileReservedTime`.
    pub reserved_time: Duration,
    /// Hours of this machine's day in which older ones go. `deleteWhen`.
    pub hours: Hours,
    /// They go at any time while more of the disk is used. `diskMaxUsedSpaceRatio` / 100.
    pub used_ratio_max: f64,
    /// Whatever their age they go while more of the disk is used than this ratio says. `diskSpaceCleanForciblyRatio` / 100.
    pub forced_ratio: f64,
    /// Otherwise they only go at any time then. `cleanFileForciblyEnable`.
    pub forced: bool,
    /// Writes are refused while more of the disk is used. `diskSpaceWarningLevelRatio` / 100.
    pub full_ratio: f64,
    /// Whatever their age they go while the files of the log are longer than this, together. `fileReservedBytes`.
    pub reserved_bytes: Option<u64>,
    /// Most segments that go in one round. `deleteFileBatchMax`.
    pub batch_max: usize,
    /// Between two of them. `deleteCommitLogFilesInterval`.
    pub segment_pause: Duration,
    /// Between two rounds. `cleanResourceInterval`.
    pub interval: Duration,
}

impl RetentionRules {
    /// Whether so much of the disk is used that what is old goes at any hour.
    pub fn are_exceeded_by(&self, used: f64) -> bool {
        used > self.used_ratio_max.min(self.forced_ratio).min(self.full_ratio)
    }
}

impl Default for RetentionRules {
    fn default() -> RetentionRules {
        RetentionRules {
            reserved_time: Duration::from_secs(72 * 3600),
            hours: Hours(1 << 4),
            used_ratio_max: 0.75,
            forced_ratio: 0.85,
            forced: true,
            full_ratio: 0.90,
            reserved_bytes: None,
            batch_max: 10,
            segment_pause: Duration::from_millis(100),
            interval: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_of_the_day() {
        assert_eq!(Hours::parse("04"), Some(Hours(1 << 4)));
        assert_eq!(Hours::parse("0; 4;23;"), Some(Hours(1 | 1 << 4 | 1 << 23)));
        assert_eq!(Hours::parse("04"), Some(RetentionRules::default().hours));
        for bad in ["", ";", "24", "-1", "4;x", "4;;5", "04:00"] {
            assert_eq!(Hours::parse(bad), None, "{bad:?}");
        }
        let hour = Hours::at(1_795_220_781_075);
        assert!(
            hour.contain(hour)
                && !Hours::default().contain(hour)
                && !hour.contain(Hours::at(1_795_220_781_075 + 3_600_000))
        );
    }
}
