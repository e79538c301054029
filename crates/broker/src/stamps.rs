//! When something is due that was stamped with the wall clock, though that clock has been set meanwhile.
//!
//! A delay is a duration: set back, the clock must not make it longer by as much, and set forward not shorter. So steps of the wall clock
//! are noticed beside one that only goes forward, and what was stamped before a step is moved by it. Deterministic: both clocks come from
//! outside. What cannot be known, a step while the broker was down, is bounded: nothing waits longer than its delay from now on.

use std::collections::VecDeque;

use ferromq_store::Clock;

/// Steps of the wall clock below this, in ms, are taken for its being adjusted.
const STEP_MIN_MS: i64 = 200;
/// Steps that one queue remembers; beyond it the oldest two become one, the later of both.
const PIECES_MAX: usize = 64;
/// Reading two clocks must not take longer, in ms, or what lies between them looks like a step.
const READING_MAX_MS: i64 = 20;

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub by_ms: i64,
    /// What it would show now without the step.
    pub without_ms: i64,
    /// What it shows.
    pub with_ms: i64,
}

/// Looks at both clocks now and then.
pub(crate) struct Watch {
    wall: Clock,
    forward: Clock,
    /// Both at the last look.
    wall_ms: i64,
    forward_ms: i64,
}

impl Watch {
    pub(crate) fn new(wall: Clock, forward: Clock) -> Watch {
        let (wall_ms, forward_ms) = read(&wall, &forward);
        Watch { wall, forward, wall_ms, forward_ms }
    }

    /// The wall clock as far as its steps have been looked at: one that comes between two looks makes nothing due yet.
    pub(crate) fn now_ms(&self) -> i64 {
        let without_ms = self.wall_ms.saturating_add(self.forward.now_ms().saturating_sub(self.forward_ms));
        // The two do not turn to the next millisecond at the same moment.
        without_ms.min(self.wall.now_ms())
    }

    /// The step since the last look.
    pub(crate) fn look(&mut self) -> Option<Step> {
        let (wall_ms, forward_ms) = read(&self.wall, &self.forward);
        let without_ms = self.wall_ms.saturating_add(forward_ms.saturating_sub(self.forward_ms));
        (self.wall_ms, self.forward_ms) = (wall_ms, forward_ms);
        let by_ms = wall_ms.saturating_sub(without_ms);
        (by_ms.saturating_abs() >= STEP_MIN_MS).then_some(Step { by_ms, without_ms, with_ms: wall_ms })
    }
}

/// Both clocks at one moment, as far as a busy machine lets us.
fn read(wall: &Clock, forward: &Clock) -> (i64, i64) {
    let mut best = (i64::MAX, 0, 0);
    for _ in 0..10 {
        let before = forward.now_ms();
        let wall_ms = wall.now_ms();
        let took = forward.now_ms().saturating_sub(before);
        if took < best.0 {
            best = (took, wall_ms, before);
        }
        if took <= READING_MAX_MS {
            break;
        }
    }
    (best.1, best.2)
}

/// What is known of the stamps in one queue, whose entries are in the order in which they were stamped.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    /// End of the queue at the last look: what is before it was stamped before a step that comes now.
    seen: u64,
    /// Runs of entries, each with its end and by how much the clock was stepped since.
    pieces: VecDeque<(u64, i64)>,
    /// End of the queue at the first look. What is before it may be stamped by a clock that was set while nobody looked.
    found: Option<u64>,
    /// By how much entries have been found to be due too late, although no step was seen; and the entry that was asked for last. One
    /// that came later has nothing to do with it.
    excess_ms: i64,
    asked: u64,
}

impl Stamps {
    /// The queue ended there when the clock was looked at.
    pub(crate) fn saw(&mut self, end: u64) {
        self.seen = end;
        self.found.get_or_insert(end);
    }

    /// The clock was stepped. `stamp` gives that of an entry in the queue, which ends at `end`.
    pub(crate) fn stepped(&mut self, step: Step, end: u64, stamp: impl Fn(u64) -> Option<i64>) {
        // What came since the last look may be from before the step or from after it; in doubt it is due later.
        let is_before = |stamp: i64| {
            if step.by_ms < 0 { stamp > step.with_ms } else { stamp <= step.without_ms }
        };
        let mut boundary = self.seen.min(end);
        while boundary < end && stamp(boundary).is_none_or(is_before) {
            boundary += 1;
        }
        for (_, by_ms) in &mut self.pieces {
            *by_ms = by_ms.saturating_add(step.by_ms);
        }
        self.pieces.push_back((boundary, step.by_ms));
        if self.pieces.len() > PIECES_MAX
            && let Some((_, first)) = self.pieces.pop_front()
            && let Some((_, second)) = self.pieces.front_mut()
        {
            *second = first.max(*second);
        }
    }

    /// When the entry at `offset`, which says `due_ms`, is due by the clock as it is now; `latest_ms` gives what it would say if it were
    /// stamped now, and is asked only where that may matter. One that says later comes from a clock that was set back while nobody looked, or from a level that was made shorter: it
    /// waits its delay from now on, and those that were found behind it keep their distance. Java delivers it at once: `correctDeliverTimestamp`.
    pub(crate) fn due_ms(&mut self, offset: u64, due_ms: i64, now_ms: i64, latest_ms: impl FnOnce() -> i64) -> i64 {
        while self.pieces.front().is_some_and(|(end, _)| *end <= offset) {
            self.pieces.pop_front();
        }
        let due_ms = due_ms.saturating_add(self.pieces.front().map_or(0, |(_, by_ms)| *by_ms));
        if std::mem::replace(&mut self.asked, offset) != offset && self.found.is_none_or(|found| offset >= found) {
            self.excess_ms = 0;
        }
        if due_ms <= now_ms {
            return due_ms;
        }
        let excess_ms = due_ms.saturating_sub(latest_ms());
        if excess_ms <= 0 {
            return due_ms;
        }
        self.excess_ms = self.excess_ms.max(excess_ms);
        due_ms.saturating_sub(self.excess_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_800_000_000_000;
    const DELAY: i64 = 60_000;

    #[derive(Clone, Debug)]
    enum Event {
        /// Time goes on.
        Pass(i64),
        /// The wall clock is set.
        Set(i64),
        /// A message comes.
        Store,
        /// The thread looks.
        Look,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => (0..30_000_i64).prop_map(Event::Pass),
            1 => (-7_200_000..7_200_000_i64).prop_map(Event::Set),
            4 => Just(Event::Store),
            4 => Just(Event::Look),
        ];
        proptest::collection::vec(event, 1..80)
    }

    proptest! {
        /// However the clock is set, once between two looks: no message comes before its delay is over, and none later than that by more
        /// than the time between looks.
        #[test]
        fn a_delay_takes_its_time_however_the_clock_is_set(events in events()) {
            let (wall, forward) = (Arc::new(AtomicI64::new(START)), Arc::new(AtomicI64::new(START)));
            let clock = |of: &Arc<AtomicI64>| { let of = Arc::clone(of); Clock::from_fn(move || of.load(SeqCst)) };
            let mut watch = Watch::new(clock(&wall), clock(&forward));
            let mut stamps = Stamps::default();
            // Due time as its entry says it, and real time of its coming.
            let mut queue: Vec<(i64, i64)> = Vec::new();
            let mut next = 0;
            let mut longest = 0;
            let mut looked = START;
            let mut set = false;
            let after = std::iter::repeat_n([Event::Look, Event::Pass(5_000)], 60).flatten();
            for event in events.into_iter().chain(after) {
                match event {
                    Event::Pass(ms) => { wall.fetch_add(ms, SeqCst); forward.fetch_add(ms, SeqCst); }
                    Event::Set(ms) => if !std::mem::replace(&mut set, true) { wall.fetch_add(ms, SeqCst); },
                    Event::Store => queue.push((wall.load(SeqCst) + DELAY, forward.load(SeqCst))),
                    Event::Look => {
                        let real = forward.load(SeqCst);
                        longest = longest.max(real - looked);
                        looked = real;
                        set = false;
                        let end = queue.len() as u64;
                        if let Some(step) = watch.look() {
                            stamps.stepped(step, end, |at| queue.get(at as usize).map(|(due, _)| due - DELAY));
                        }
                        stamps.saw(end);
                        while let Some((due, came)) = queue.get(next) {
                            if stamps.due_ms(next as u64, *due, watch.now_ms(), || watch.now_ms() + DELAY) > watch.now_ms() {
                                break;
                            }
                            let waited = real - came;
                            prop_assert!(waited > DELAY - STEP_MIN_MS, "early: after {waited} ms");
                            prop_assert!(waited <= DELAY + 2 * longest + 5_000 + STEP_MIN_MS, "late: after {waited} ms, {longest} between looks");
                            next += 1;
                        }
                    }
                }
            }
            prop_assert_eq!(next, queue.len(), "some never came");
        }
    }

    #[test]
    fn what_a_step_nobody_saw_put_off_waits_its_delay_once_and_not_one_after_the_other() {
        let mut stamps = Stamps::default();
        stamps.saw(2);
        let due = |at: i64| START + 3_600_000 + DELAY + at;
        let mut due_ms = |at, due, now| stamps.due_ms(at, due, now, || now + DELAY);
        assert_eq!(due_ms(0, due(0), START), START + DELAY);
        assert_eq!(due_ms(0, due(0), START + 500), START + DELAY);
        // The next one is looked at when the first has come, and is due as much later as it was stamped later.
        assert_eq!(due_ms(1, due(10), START + DELAY), START + DELAY + 10);
    }

    #[test]
    fn what_came_after_the_first_look_is_not_moved_by_what_a_step_nobody_saw_put_off() {
        const AHEAD: i64 = 3_600_000;
        for found in [0, 1] {
            let mut stamps = Stamps::default();
            stamps.saw(found);
            assert_eq!(stamps.due_ms(0, START + AHEAD + DELAY, START, || START + DELAY), START + DELAY);
            // Stamped in the millisecond after the one that the thread goes by.
            let due_ms = stamps.due_ms(1, START + 1 + DELAY, START, || START + DELAY);
            assert!(due_ms >= START + DELAY, "{found}: {} ms early", START + DELAY - due_ms);
            // It waits no longer than its delay from when it was first seen, as the others.
            assert_eq!(stamps.due_ms(2, START + AHEAD + DELAY, START, || START + DELAY), START + DELAY);
            assert_eq!(stamps.due_ms(2, START + AHEAD + DELAY, START + 9, || START + 9 + DELAY), START + DELAY);
        }
    }
}
