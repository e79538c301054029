//! When a producer wants a message to be delivered: the properties that say so.

use ferromq_protocol::message::properties::{self, names};

/// When a producer wants a message to be delivered, out of its properties.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TimerWish<'a> {
    pub delay_sec: Option<&'a str>,
    pub delay_ms: Option<&'a str>,
    pub deliver_ms: Option<&'a str>,
    /// The message takes another one back.
    pub cancels: bool,
    /// It says when it was due, so it was delivered before: what else it says does not count.
    pub served: bool,
}

/// Why a wish cannot be granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TimerError {
    #[error("the timer `{value}` is not a whole number")]
    NotANumber { value: String },
    #[error("the message is to be delivered in {ahead_ms} ms; timerMaxDelaySec allows {max_ms} ms")]
    TooFar { ahead_ms: i64, max_ms: i64 },
    #[error("a message that takes a timer message back must come before that one is due")]
    TooLate,
}

impl<'a> TimerWish<'a> {
    pub(crate) fn in_properties(text: &'a str) -> TimerWish<'a> {
        let mut wish = TimerWish::default();
        for (name, value) in properties::pairs(text) {
            wish.notice(name, value);
        }
        wish
    }

    /// True if the property is one of a timer's.
    pub(crate) fn notice(&mut self, name: &str, value: &'a str) -> bool {
        match name {
            names::TIMER_DELAY_SEC => self.delay_sec = Some(value),
            names::TIMER_DELAY_MS => self.delay_ms = Some(value),
            names::TIMER_DELIVER_MS => self.deliver_ms = Some(value),
            names::TIMER_DEL_UNIQKEY => self.cancels = true,
            names::TIMER_OUT_MS => self.served = true,
            _ => return false,
        }
        true
    }

    /// The time in ms since 1970, `None` for at once. The delay in seconds wins over that in milliseconds, and that over the time.
    pub(crate) fn due_ms(&self, now_ms: i64, max_delay_sec: u32) -> Result<Option<i64>, TimerError> {
        let number = |value: &str| value.parse::<i64>().map_err(|_| TimerError::NotANumber { value: value.to_owned() });
        let due_ms = match (self.delay_sec, self.delay_ms, self.deliver_ms) {
            _ if self.served => return Ok(None),
            (Some(seconds), _, _) => now_ms.saturating_add(number(seconds)?.saturating_mul(1000)),
            (None, Some(millis), _) => now_ms.saturating_add(number(millis)?),
            (None, None, Some(time)) => number(time)?,
            (None, None, None) => return Ok(None),
        };
        let (ahead_ms, max_ms) = (due_ms.saturating_sub(now_ms), i64::from(max_delay_sec) * 1000);
        match ahead_ms {
            ..=0 if self.cancels => Err(TimerError::TooLate),
            ..=0 => Ok(None),
            ahead_ms if ahead_ms > max_ms => Err(TimerError::TooFar { ahead_ms, max_ms }),
            _ => Ok(Some(due_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn due(text: &str) -> Result<Option<i64>, TimerError> {
        TimerWish::in_properties(text).due_ms(NOW, 100)
    }

    #[test]
    fn seconds_win_over_milliseconds_and_those_over_the_time() {
        assert_eq!(due("TAGS\u{1}a\u{2}"), Ok(None));
        let time = format!("TIMER_DELIVER_MS\u{1}{}\u{2}", NOW + 7);
        assert_eq!(due(&time), Ok(Some(NOW + 7)));
        assert_eq!(due(&format!("{time}TIMER_DELAY_MS\u{1}8\u{2}")), Ok(Some(NOW + 8)));
        assert_eq!(due(&format!("TIMER_DELAY_SEC\u{1}9\u{2}{time}TIMER_DELAY_MS\u{1}8\u{2}")), Ok(Some(NOW + 9000)));
    }

    #[test]
    fn past_is_now_and_far_is_refused() {
        assert_eq!(due("TIMER_DELIVER_MS\u{1}5\u{2}"), Ok(None));
        assert_eq!(due("TIMER_DELIVER_MS\u{1}5\u{2}TIMER_DEL_UNIQKEY\u{1}T+k\u{2}"), Err(TimerError::TooLate));
        assert_eq!(due("TIMER_DELAY_SEC\u{1}100\u{2}"), Ok(Some(NOW + 100_000)));
        let far = TimerError::TooFar { ahead_ms: 101_000, max_ms: 100_000 };
        assert_eq!(due("TIMER_DELAY_SEC\u{1}101\u{2}"), Err(far));
        assert_eq!(due("TIMER_DELAY_MS\u{1}soon\u{2}"), Err(TimerError::NotANumber { value: "soon".into() }));
        // Delivered once and sent again by its consumer: at once.
        assert_eq!(due("TIMER_DELAY_SEC\u{1}9\u{2}TIMER_OUT_MS\u{1}1\u{2}"), Ok(None));
    }
}
