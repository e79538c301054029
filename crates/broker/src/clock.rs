//! Wall clock in the unit the wire uses. Logic that depends on time takes `now` as an argument; this is where callers get it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; 0 when the clock stands before it.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// Milliseconds since the start of the (UTC) month that `now_ms` lies in: the time part of a unique key.
pub fn millis_in_month(now_ms: i64) -> u32 {
    const DAY_MS: i64 = 86_400_000;
    let days = now_ms.div_euclid(DAY_MS);
    // Day of month by the civil calendar: days from 0000-03-01, split into 400-year eras, years and 153-day runs of five months.
    let since_march = days + 719_468;
    let day_of_era = since_march.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    u32::try_from(day_of_month * DAY_MS + now_ms.rem_euclid(DAY_MS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_month_starts_at_its_first_midnight() {
        const DAY: i64 = 86_400_000;
        assert_eq!(millis_in_month(0), 0);
        assert_eq!(millis_in_month(31 * DAY - 1), 2_678_399_999);
        assert_eq!(millis_in_month(31 * DAY), 0);
        // 2024-02-29T00:00:00.005Z and the day after it.
        assert_eq!(millis_in_month(1_709_164_800_005), 28 * 86_400_000 + 5);
        assert_eq!(millis_in_month(1_709_251_200_000), 0);
    }
}
