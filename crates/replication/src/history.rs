//! How far the log went at past moments.

use std::collections::VecDeque;

use ferromq_protocol::PhysicalOffset;

use crate::moment::Moment;

/// Of three ends that were noted within so many milliseconds the middle one goes: that bounds how many there are.
const STEP_MS: u64 = 10;

/// The ends of a log in the last milliseconds, as steps: at most two in [`STEP_MS`], and one from before. A step is never dated too early.
#[derive(Debug)]
pub struct History {
    keep_ms: u64,
    /// Both rise.
    steps: VecDeque<(Moment, PhysicalOffset)>,
}

impl History {
    pub fn new(keep_ms: u64) -> History {
        History { keep_ms, steps: VecDeque::new() }
    }

    /// The log goes up to `end` now.
    pub fn note(&mut self, end: PhysicalOffset, now: Moment) {
        if self.steps.back().is_some_and(|(_, last)| *last >= end) {
            return;
        }
        if self.steps.iter().nth_back(1).is_some_and(|(before, _)| now.since(*before) < STEP_MS) {
            self.steps.pop_back();
        }
        self.steps.push_back((now, end));
        // The last one from before stays: it says how far the log went in between.
        while self.steps.get(1).is_some_and(|(at, _)| now.since(*at) > self.keep_ms) {
            self.steps.pop_front();
        }
    }

    /// A place that the log had reached by then. 0 when that is not known.
    pub fn end_by(&self, then: Moment) -> PhysicalOffset {
        let count = self.steps.partition_point(|(at, _)| *at <= then);
        self.steps.get(count.wrapping_sub(1)).map_or(PhysicalOffset(0), |(_, end)| *end)
    }

    /// The latest moment at which the log went no further than `offset`, of those that are known.
    pub fn reached(&self, offset: PhysicalOffset) -> Option<Moment> {
        let count = self.steps.partition_point(|(_, end)| *end <= offset);
        self.steps.get(count.checked_sub(1)?).map(|(at, _)| *at)
    }

    /// When the log went further than `offset`, at the latest.
    pub fn passed(&self, offset: PhysicalOffset) -> Option<Moment> {
        let count = self.steps.partition_point(|(_, end)| *end <= offset);
        self.steps.get(count).map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_say_no_end_too_early() {
        let mut history = History::new(100);
        for (at, end) in [(0, 10), (4, 20), (9, 30), (12, 40), (15, 50), (40, 60), (40, 60)] {
            history.note(PhysicalOffset(end), Moment(at));
        }
        // What comes within ten milliseconds is dated as its last.
        let steps = [(0, 10), (9, 30), (15, 50), (40, 60)].map(|(at, end)| (Moment(at), PhysicalOffset(end)));
        assert_eq!(history.steps, steps);
        let end_by = |at| history.end_by(Moment(at)).0;
        assert_eq!([end_by(0), end_by(14), end_by(15), end_by(39), end_by(90)], [10, 30, 50, 50, 60]);
        assert_eq!(history.reached(PhysicalOffset(55)), Some(Moment(15)));
        assert_eq!(history.reached(PhysicalOffset(9)), None);
        assert_eq!(history.passed(PhysicalOffset(50)), Some(Moment(40)));
        assert_eq!(history.passed(PhysicalOffset(60)), None);
    }

    #[test]
    fn it_does_not_grow_with_the_log() {
        let mut history = History::new(1000);
        for end in 0..100_000 {
            history.note(PhysicalOffset(end), Moment(end / 5));
        }
        assert!(history.steps.len() <= 202, "{}", history.steps.len());
        assert!(history.end_by(Moment(19_000)).0 >= 94_900);
    }
}
