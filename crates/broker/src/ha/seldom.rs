//! Log lines about what is tried again and again: each is said at once, and then no more than once a minute.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(60);

/// So many different lines are remembered.
const LINES_MAX: usize = 16;

/// What was said lately.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    said: Vec<(String, Instant)>,
}

impl Seldom {
    /// Whether it is time to say this.
    pub(super) fn is_due(&mut self, line: &str, now: Instant) -> bool {
        self.said.retain(|(_, at)| now.saturating_duration_since(*at) < PAUSE);
        if self.said.iter().any(|(said, _)| said == line) {
            return false;
        }
        if self.said.len() == LINES_MAX {
            self.said.remove(0);
        }
        self.said.push((line.to_owned(), now));
        true
    }

    /// Things are as they should be: whatever goes wrong now is news.
    pub(super) fn forget(&mut self) {
        self.said.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_again_after_a_minute_or_when_it_had_gone() {
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        assert!(seldom.is_due("a", now) && seldom.is_due("b", now));
        assert!(!seldom.is_due("a", now + PAUSE / 2));
        assert!(seldom.is_due("a", now + PAUSE) && !seldom.is_due("a", now + PAUSE));
        seldom.forget();
        assert!(seldom.is_due("a", now + PAUSE));
        for line in 0..100 {
            seldom.is_due(&line.to_string(), now + PAUSE);
        }
        assert_eq!(seldom.said.len(), LINES_MAX);
    }
}
