//! Wall-clock time as people of this host see it: for texts in answers, and for the turn of the day.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `yyyy-MM-dd#HH:mm:ss:SSS` in the host's time zone. Java: `UtilAll.timeMillisToHumanString2` with `#`.
pub fn text(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d#%H:%M:%S:%3f").to_string(),
        // Only times beyond the year 9999 are no timestamps.
        Err(_) => ms.to_string(),
    }
}

/// A number that changes at local midnight.
pub fn day(ms: i64) -> i64 {
    let Ok(time) = Timestamp::from_millisecond(ms) else { return 0 };
    let date = time.to_zoned(TimeZone::system()).date();
    i64::from(date.year()) * 366 + i64::from(date.day_of_year())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_milliseconds() {
        // Holds in every time zone with whole minutes.
        assert!(text(1_795_220_781_075).ends_with(":21:075"));
        assert_eq!(text(0).len(), "2026-11-21#00:26:21:075".len());
        assert_eq!(text(-1).len(), text(0).len());
    }

    #[test]
    fn days_differ_after_a_day() {
        assert_ne!(day(1_795_220_781_075), day(1_795_220_781_075 + 86_400_000));
        assert_eq!(day(i64::MAX), 0);
    }
}
