//! Delay levels: dispatch needs them because the queue entry of a delayed message carries its delivery time.
//!
//! Delivery itself is the broker's. Java: ScheduleMessageService.parseDelayLevel, `messageDelayLevel`.

/// Milliseconds per level, from level 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayLevels(Vec<i64>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("delay level {text:?} is not a number followed by s, m, h or d")]
pub struct DelayLevelsError {
    pub text: String,
}

impl DelayLevels {
    /// Reads the form of `messageDelayLevel`: `1s 5s 10m 2h 1d`.
    pub fn parse(text: &str) -> Result<DelayLevels, DelayLevelsError> {
        let level = |text: &str| {
            let error = || DelayLevelsError { text: text.to_owned() };
            let (index, unit) = text.char_indices().last().ok_or_else(error)?;
            let unit_ms: i64 = match unit {
                's' => 1_000,
                'm' => 60_000,
                'h' => 3_600_000,
                'd' => 86_400_000,
                _ => return Err(error()),
            };
            let count: i64 = text[..index].parse().map_err(|_| error())?;
            count.checked_mul(unit_ms).ok_or_else(error)
        };
        text.split_whitespace().map(level).collect::<Result<_, _>>().map(DelayLevels)
    }

    /// How many levels there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How long a level holds a message back, if there is such a level.
    pub fn delay_ms(&self, level: usize) -> Option<i64> {
        level.checked_sub(1).and_then(|index| self.0.get(index)).copied()
    }

    /// When a message of this level stored at this time is due. Levels beyond the last count as the last; without
    /// any levels a second is taken, as in Java.
    pub fn due_ms(&self, level: usize, store_timestamp: i64) -> i64 {
        store_timestamp.saturating_add(self.delay_ms(level.min(self.count())).unwrap_or(1_000))
    }
}

impl Default for DelayLevels {
    fn default() -> DelayLevels {
        const SECOND: i64 = 1_000;
        const MINUTE: i64 = 60 * SECOND;
        const HOUR: i64 = 60 * MINUTE;
        let mut levels = vec![SECOND, 5 * SECOND, 10 * SECOND, 30 * SECOND];
        levels.extend((1..=10).map(|minutes| minutes * MINUTE));
        levels.extend([20 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR]);
        DelayLevels(levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn javas_default() {
        let levels = DelayLevels::parse("1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h").unwrap();
        assert_eq!(levels, DelayLevels::default());
        // A captured record: level 3, stored at 1795220276940, due 10 s later.
        assert_eq!(levels.due_ms(3, 0x1a1_fb77_86cc), 1_795_220_286_940);
        assert_eq!(levels.due_ms(99, 0), 7_200_000);
        assert_eq!(DelayLevels(Vec::new()).due_ms(1, 5), 1_005);
        for bad in ["5", "x", "1w", "9999999999999999d"] {
            assert!(DelayLevels::parse(bad).is_err(), "{bad}");
        }
    }
}
