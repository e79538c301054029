//! The transactions that nobody has ended yet: where their half messages are, and when each is to be asked after.
//!
//! Synchronous and deterministic: no store, no clock. A half that is asked after gets a copy at the end of its queue, so that the queue's
//! beginning can be left behind; all its copies stand for one transaction, which ends once, whichever of them is named.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use ferromq_protocol::{PhysicalOffset, QueueOffset};

/// Transactions that were given up and can still be committed.
const GIVEN_UP_MAX: usize = 100_000;
/// Op messages that one entry of [`PendingHalves::marks`] stands for: where reading starts need not be exact.
const MARKS_PER_ENTRY: u64 = 64;

/// Ages that matter, in ms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    /// From here on it is asked after: `transactionTimeOut`.
    pub asked: i64,
    /// Here it is given up.
    pub given_up: i64,
}

/// A transaction that waits for its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Half {
    /// Of the newest copy.
    pub queue_offset: QueueOffset,
    /// Of the newest copy.
    pub physical: PhysicalOffset,
    /// Of the copies before that one, oldest first.
    pub older: Vec<QueueOffset>,
    /// When the producer made it, in ms by a clock that only goes forward, as all times here; when it was stored, if the producer's clock
    /// cannot be right.
    pub born_ms: i64,
    /// When the first copy was stored, in ms, or the oldest that a start has found.
    pub stored_ms: i64,
    /// Age from which it is asked after, in ms, if the producer has set one: `CHECK_IMMUNITY_TIME_IN_SECONDS`.
    pub immunity_ms: Option<i64>,
    /// Its message is stored, or will never be, and only the op message is missing that says so: nothing else is to be done any more.
    pub ended: bool,
    /// A copy is put aside where an operator finds it, and the op message is missing. Its producer may commit it all the same.
    pub put_aside: bool,
}

impl Half {
    /// Where the first copy is or was.
    pub fn first(&self) -> QueueOffset {
        self.older.first().copied().unwrap_or(self.queue_offset)
    }

    /// Whether it lacks its op message alone.
    pub fn lacks_op_only(&self) -> bool {
        self.ended || self.put_aside
    }

    /// All copies, oldest first.
    pub fn copies(&self) -> impl Iterator<Item = QueueOffset> {
        self.older.iter().copied().chain([self.queue_offset])
    }

    /// Whether it has waited long enough to be given up.
    pub fn is_too_old(&self, now_ms: i64, ages: Ages) -> bool {
        now_ms.saturating_sub(self.born_ms) > ages.given_up
    }

    fn is_due(&self, now_ms: i64, ages: Ages) -> bool {
        if self.lacks_op_only() || self.is_too_old(now_ms, ages) {
            return true;
        }
        match self.immunity_ms {
            Some(immunity) => now_ms.saturating_sub(self.born_ms) > immunity,
            // By our own clock, so that a producer whose clock is behind is not asked at once.
            None => now_ms.saturating_sub(self.stored_ms) > ages.asked,
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct PendingHalves {
    /// By the place of the newest copy.
    halves: BTreeMap<QueueOffset, Half>,
    /// From an older copy to the newest one.
    newest: HashMap<QueueOffset, QueueOffset>,
    /// Every copy of halves that were put aside, the latest ones, with the half's first copy.
    given_up: BTreeMap<QueueOffset, QueueOffset>,
    /// Taken to be ended, and not known to be in the log as such.
    ending: BTreeMap<QueueOffset, Ending>,
    /// Runs of op messages that name a half which is still ahead of the lowest pending one.
    marks: VecDeque<Marks>,
}

/// A half whose transaction is being ended.
#[derive(Debug)]
struct Ending {
    physical: PhysicalOffset,
    /// Copies before the newest one.
    older: Vec<QueueOffset>,
    /// Copies that were stored meanwhile, oldest first: the op message on its way does not name them.
    copies: Vec<(QueueOffset, PhysicalOffset)>,
}

/// What a new copy of a half is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Where the open transaction is now.
    Open,
    /// One of a transaction that is being ended: whoever does it sees to the copy, whatever comes of the end.
    Ending,
    /// Left over of a transaction that has ended: it needs an op message of its own.
    Ended,
}

/// A run of up to [`MARKS_PER_ENTRY`] op messages.
#[derive(Debug)]
struct Marks {
    /// Where it begins.
    from: QueueOffset,
    /// The highest half that it names.
    highest_half: QueueOffset,
}

impl PendingHalves {
    pub fn len(&self) -> usize {
        self.halves.len()
    }

    /// A new transaction, one read again after a start, or one of which nothing came when it was claimed.
    pub fn insert(&mut self, mut half: Half) {
        let ending = self.ending.remove(&half.queue_offset);
        self.take_given_up(half.queue_offset);
        for (at, physical) in ending.into_iter().flat_map(|ending| ending.copies) {
            half.older.push(half.queue_offset);
            (half.queue_offset, half.physical) = (at, physical);
        }
        for older in &half.older {
            self.newest.insert(*older, half.queue_offset);
        }
        self.halves.insert(half.queue_offset, half);
    }

    /// Takes out the transaction that has a copy there, to end it; [`settle`](Self::settle), [`insert`](Self::insert) or
    /// [`unsettled`](Self::unsettled) follows.
    pub fn claim(&mut self, copy: QueueOffset) -> Option<Half> {
        let half = self.remove(copy)?;
        let ending = Ending { physical: half.physical, older: half.older.clone(), copies: Vec::new() };
        self.ending.insert(half.queue_offset, ending);
        Some(half)
    }

    /// The log has an op message, at `op`, for a claimed transaction. The copies that were stored meanwhile need one as well: what is
    /// given stands for them, lacks its op message alone, and is in the table until it is ended.
    pub fn settle(&mut self, half: &Half, op: QueueOffset) -> Option<QueueOffset> {
        let ending = self.ending.remove(&half.queue_offset);
        self.marked(op, half.queue_offset);
        let mut copies = ending.map(|ending| ending.copies).unwrap_or_default();
        let (queue_offset, physical) = copies.pop()?;
        let older = copies.into_iter().map(|(at, _)| at).collect();
        self.insert(Half { queue_offset, physical, older, ended: true, put_aside: false, ..half.clone() });
        Some(queue_offset)
    }

    /// What a claimed transaction had to store is stored, as it says itself, but the op message is not.
    pub fn unsettled(&mut self, mut half: Half) {
        if half.put_aside && self.take_given_up(half.queue_offset).is_none() {
            // Committed meanwhile, by its producer.
            half.ended = true;
        }
        self.insert(half);
    }

    /// Takes out a transaction that is put aside, or has no future, to end it without storing its message.
    pub fn claim_put_aside(&mut self, copy: QueueOffset, put_aside: bool) -> Option<Half> {
        let mut half = self.claim(copy)?;
        half.put_aside |= put_aside;
        if half.put_aside && !half.ended {
            // At once: an end that comes in between must find it in one place or the other.
            self.gave_up(&half);
        }
        Some(half)
    }

    /// Forgets the transaction that has a copy there.
    pub fn remove(&mut self, copy: QueueOffset) -> Option<Half> {
        let newest = self.newest.get(&copy).copied().unwrap_or(copy);
        let half = self.halves.remove(&newest)?;
        for older in &half.older {
            self.newest.remove(older);
        }
        Some(half)
    }

    /// The transaction that has a copy there.
    pub fn get(&self, copy: QueueOffset) -> Option<&Half> {
        self.halves.get(self.newest.get(&copy).unwrap_or(&copy))
    }

    /// A claimed transaction is put aside without an end.
    pub fn gave_up(&mut self, half: &Half) {
        let first = half.first();
        self.given_up.extend(half.copies().map(|copy| (copy, first)));
        while self.given_up.len() > GIVEN_UP_MAX {
            self.given_up.pop_first();
        }
    }

    /// All copies of the transaction that was put aside and has one there, once: it may still be committed.
    pub fn take_given_up(&mut self, copy: QueueOffset) -> Option<Vec<QueueOffset>> {
        let first = *self.given_up.get(&copy)?;
        let copies = self.given_up.iter().filter(|(_, known)| **known == first).map(|(copy, _)| *copy).collect();
        self.given_up.retain(|_, known| *known != first);
        Some(copies)
    }

    /// The transaction that was put aside and has a copy there goes on as a new one, and is not committed as this one any more.
    pub fn resumed(&mut self, copy: QueueOffset) {
        let newest = *self.newest.get(&copy).unwrap_or(&copy);
        match self.halves.get_mut(&newest) {
            Some(unsettled) => unsettled.ended |= unsettled.put_aside,
            None => _ = self.take_given_up(copy),
        }
    }

    /// What [`take_given_up`](Self::take_given_up) gave was not committed after all.
    pub fn put_back_given_up(&mut self, copies: &[QueueOffset]) {
        let Some(first) = copies.first() else { return };
        let newest = *self.newest.get(first).unwrap_or(first);
        if let Some(unsettled) = self.halves.get_mut(&newest) {
            unsettled.ended = false;
            return;
        }
        self.given_up.extend(copies.iter().map(|copy| (*copy, *first)));
    }

    /// A half has a new copy.
    pub fn moved(&mut self, from: QueueOffset, to: QueueOffset, physical: PhysicalOffset) -> Moved {
        let Some(mut half) = self.remove(from) else {
            // Few at a time.
            let ending =
                self.ending.iter_mut().find(|(newest, ending)| **newest == from || ending.older.contains(&from));
            let Some((_, ending)) = ending else { return Moved::Ended };
            ending.copies.push((to, physical));
            return Moved::Ending;
        };
        half.older.push(half.queue_offset);
        half.put_aside = false;
        (half.queue_offset, half.physical) = (to, physical);
        self.insert(half);
        Moved::Open
    }

    /// The lowest place in the log of a half whose message may be wanted.
    pub fn lowest_place(&self) -> Option<PhysicalOffset> {
        let waiting = self.halves.values().find(|half| !half.lacks_op_only()).map(|half| half.physical);
        waiting.into_iter().chain(self.ending.values().map(|ending| ending.physical)).min()
    }

    /// The next one, in the order of their newest copies, from `from` on, whose message may be wanted and has no copy behind `place`.
    pub fn next_before(&self, from: QueueOffset, place: PhysicalOffset) -> Option<&Half> {
        self.halves
            .range(from..)
            .map(|(_, half)| half)
            .find(|half| !half.lacks_op_only())
            .filter(|half| half.physical < place)
    }

    /// Where the newest copy is of the transaction that had an older one there.
    pub fn carried(&self, older: QueueOffset) -> Option<PhysicalOffset> {
        self.halves.get(self.newest.get(&older)?).map(|half| half.physical)
    }

    /// The next one to be asked after, in the order of their newest copies, from `from` on and before `end`.
    pub fn next_due(&self, from: QueueOffset, end: QueueOffset, now_ms: i64, ages: Ages) -> Option<&Half> {
        if from >= end {
            return None;
        }
        let range = (Bound::Included(from), Bound::Excluded(end));
        self.halves.range(range).map(|(_, half)| half).find(|half| half.is_due(now_ms, ages))
    }

    /// An op message at `op` has said that halves up to `highest_half` have ended.
    pub fn marked(&mut self, op: QueueOffset, highest_half: QueueOffset) {
        match self.marks.back_mut() {
            // Two that end at the same time may come in either order.
            Some(last) if op.0.saturating_sub(last.from.0) < MARKS_PER_ENTRY => {
                last.from = last.from.min(op);
                last.highest_half = last.highest_half.max(highest_half);
            }
            _ => self.marks.push_back(Marks { from: op, highest_half }),
        }
    }

    /// From where the two queues must be read to know all this again, given their ends; never beyond these.
    pub fn start(&mut self, half_end: QueueOffset, op_end: QueueOffset) -> (QueueOffset, QueueOffset) {
        let lowest = self.halves.first_key_value().map(|(lowest, _)| lowest);
        let ending = self.ending.first_key_value().map(|(lowest, _)| lowest);
        let half = [lowest, ending, Some(&half_end)].into_iter().flatten().min().copied().unwrap_or(half_end);
        while self.marks.front().is_some_and(|marks| marks.highest_half < half) {
            self.marks.pop_front();
        }
        (half, self.marks.front().map_or(op_end, |marks| marks.from.min(op_end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGES: Ages = Ages { asked: 100, given_up: 10_000 };

    #[test]
    fn whatever_a_producer_says_a_half_is_looked_at_in_the_end() {
        let mut pending = PendingHalves::default();
        pending.insert(Half { immunity_ms: Some(i64::MAX), ..half(1, 0) });
        let due = |now| pending.next_due(QueueOffset(0), QueueOffset(9), now, AGES).is_some();
        assert_eq!([due(AGES.given_up), due(AGES.given_up + 1)], [false, true]);
    }

    #[test]
    fn what_was_put_aside_can_be_committed_once() {
        let mut pending = pending([1]);
        assert_eq!(pending.moved(QueueOffset(1), QueueOffset(2), PhysicalOffset(2)), Moved::Open);
        let half = pending.claim(QueueOffset(1)).unwrap();
        pending.gave_up(&half);
        pending.settle(&half, QueueOffset(0));
        let copies = vec![QueueOffset(1), QueueOffset(2)];
        assert_eq!(pending.take_given_up(QueueOffset(2)), Some(copies.clone()));
        assert_eq!((pending.take_given_up(QueueOffset(1)), pending.take_given_up(QueueOffset(2))), (None, None));
        pending.put_back_given_up(&copies);
        assert_eq!(pending.take_given_up(QueueOffset(1)), Some(copies));
    }

    #[test]
    fn a_commit_beside_a_give_up_whose_op_message_fails_is_neither_lost_nor_done_twice() {
        for stored in [true, false] {
            let mut pending = pending([1]);
            assert_eq!(pending.moved(QueueOffset(1), QueueOffset(2), PhysicalOffset(2)), Moved::Open);
            let half = pending.claim_put_aside(QueueOffset(2), true).unwrap();
            // Its producer comes in between.
            assert_eq!(pending.claim(QueueOffset(1)), None);
            let copies = pending.take_given_up(QueueOffset(1)).unwrap();
            pending.unsettled(half);
            if !stored {
                pending.put_back_given_up(&copies);
            }
            let half = pending.get(QueueOffset(1)).unwrap().clone();
            assert_eq!((half.ended, half.put_aside), (stored, true));
            // It stays in the table until its op message is in the log, and the next start finds it until then.
            assert_eq!(pending.start(QueueOffset(3), QueueOffset(0)).0, QueueOffset(2));
            let half = pending.claim_put_aside(QueueOffset(1), true).unwrap();
            pending.settle(&half, QueueOffset(0));
            assert_eq!(pending.take_given_up(QueueOffset(1)).is_some(), !stored);
        }
    }

    fn half(at: u64, stored_ms: i64) -> Half {
        Half {
            queue_offset: QueueOffset(at),
            physical: PhysicalOffset(at * 100),
            older: Vec::new(),
            born_ms: stored_ms,
            stored_ms,
            immunity_ms: None,
            ended: false,
            put_aside: false,
        }
    }

    fn pending(at: impl IntoIterator<Item = u64>) -> PendingHalves {
        let mut pending = PendingHalves::default();
        for at in at {
            pending.insert(half(at, 0));
        }
        pending
    }

    #[test]
    fn what_may_still_be_wanted_holds_the_log() {
        let mut pending = pending([1, 2, 3]);
        let lowest = |pending: &PendingHalves| pending.lowest_place().map(|place| place.0);
        let claimed = pending.claim(QueueOffset(1)).unwrap();
        assert_eq!(lowest(&pending), Some(100), "its end may fail");
        pending.settle(&claimed, QueueOffset(0));
        assert_eq!(lowest(&pending), Some(200));
        let claimed = pending.claim(QueueOffset(2)).unwrap();
        // Its message is stored.
        pending.insert(Half { ended: true, ..claimed });
        assert_eq!(lowest(&pending), Some(300));
        let next = |pending: &PendingHalves, place| {
            pending.next_before(QueueOffset(0), PhysicalOffset(place)).map(|half| half.queue_offset.0)
        };
        assert_eq!([next(&pending, 300), next(&pending, 301)], [None, Some(3)]);
        assert_eq!(pending.moved(QueueOffset(3), QueueOffset(4), PhysicalOffset(400)), Moved::Open);
        assert_eq!((lowest(&pending), next(&pending, 301)), (Some(400), None));
        assert_eq!(
            [1, 2, 3, 4].map(|at| pending.carried(QueueOffset(at)).map(|place| place.0)),
            [None, None, Some(400), None]
        );
    }

    #[test]
    fn a_half_that_is_carried_on_is_asked_after_no_sooner() {
        let mut pending = pending([1]);
        assert_eq!(pending.moved(QueueOffset(1), QueueOffset(2), PhysicalOffset(200)), Moved::Open);
        let due = |now| pending.next_due(QueueOffset(0), QueueOffset(3), now, AGES).is_some();
        assert_eq!([due(100), due(101)], [false, true]);
    }

    #[test]
    fn a_transaction_ends_once_whichever_copy_is_named() {
        let mut pending = pending([3, 4]);
        assert_eq!(pending.moved(QueueOffset(3), QueueOffset(5), PhysicalOffset(500)), Moved::Open);
        assert_eq!(pending.moved(QueueOffset(3), QueueOffset(6), PhysicalOffset(600)), Moved::Open);
        let ended = pending.claim(QueueOffset(5)).unwrap();
        assert_eq!(
            (ended.queue_offset, ended.physical, ended.first()),
            (QueueOffset(6), PhysicalOffset(600), QueueOffset(3))
        );
        assert_eq!(ended.older, [QueueOffset(3), QueueOffset(5)]);
        for copy in [3, 5, 6] {
            assert_eq!(pending.claim(QueueOffset(copy)), None);
        }
        pending.settle(&ended, QueueOffset(0));
        assert_eq!((pending.len(), pending.newest.len()), (1, 0));
        assert_eq!(pending.moved(QueueOffset(6), QueueOffset(7), PhysicalOffset(700)), Moved::Ended);
    }

    #[test]
    fn a_copy_that_is_stored_while_its_transaction_ends_shares_its_fate() {
        for fails in [true, false] {
            let mut pending = pending([1]);
            let claimed = pending.claim(QueueOffset(1)).unwrap();
            for to in [2, 3] {
                assert_eq!(pending.moved(QueueOffset(1), QueueOffset(to), PhysicalOffset(to * 100)), Moved::Ending);
            }
            assert_eq!(pending.len(), 0);
            let left = if fails {
                pending.insert(claimed);
                QueueOffset(1)
            } else {
                pending.settle(&claimed, QueueOffset(0)).unwrap()
            };
            let half = pending.get(left).unwrap();
            assert_eq!((half.queue_offset, half.physical), (QueueOffset(3), PhysicalOffset(300)));
            assert_eq!((half.ended, half.older[half.older.len() - 1]), (!fails, QueueOffset(2)));
            assert_eq!(half.copies().count(), if fails { 3 } else { 2 });
        }
    }

    #[test]
    fn due_are_those_of_age_in_order_and_none_twice_in_a_round() {
        let mut pending = pending([1, 2]);
        pending.insert(half(3, 50));
        pending.insert(Half { immunity_ms: Some(500), ..half(4, 0) });
        let due = |pending: &PendingHalves, from, now| {
            pending.next_due(QueueOffset(from), QueueOffset(5), now, AGES).map(|half| half.queue_offset.0)
        };
        assert_eq!(due(&pending, 0, 100), None);
        assert_eq!([due(&pending, 0, 101), due(&pending, 2, 101), due(&pending, 3, 101)], [Some(1), Some(2), None]);
        assert_eq!([due(&pending, 3, 151), due(&pending, 4, 500), due(&pending, 4, 501)], [Some(3), None, Some(4)]);
        // A copy goes behind the end that the round began with.
        assert_eq!(pending.moved(QueueOffset(1), QueueOffset(5), PhysicalOffset(0)), Moved::Open);
        assert_eq!(due(&pending, 0, 300), Some(2));
        assert_eq!(pending.next_due(QueueOffset(5), QueueOffset(5), 9_999, AGES), None);
        // The next round asks after it again, whatever its copy's age.
        let again = pending.next_due(QueueOffset(5), QueueOffset(6), 102, AGES);
        assert_eq!(again.map(|half| half.queue_offset), Some(QueueOffset(5)));
    }

    #[test]
    fn reading_starts_at_the_lowest_half_and_at_the_first_mark_that_may_name_it_or_a_later_one() {
        let mut pending = pending([10, 11, 12, 500]);
        assert_eq!(pending.start(QueueOffset(501), QueueOffset(7)), (QueueOffset(10), QueueOffset(7)));
        let end = |pending: &mut PendingHalves, half, op| {
            let half = pending.claim(QueueOffset(half)).unwrap();
            pending.settle(&half, QueueOffset(op));
        };
        end(&mut pending, 11, 7);
        pending.marked(QueueOffset(6), QueueOffset(11));
        end(&mut pending, 12, 8 + MARKS_PER_ENTRY);
        let op_end = QueueOffset(9 + MARKS_PER_ENTRY);
        assert_eq!(pending.start(QueueOffset(501), op_end), (QueueOffset(10), QueueOffset(6)));
        // Until its end is in the log, a crash must find it again.
        let half = pending.claim(QueueOffset(10)).unwrap();
        assert_eq!(pending.start(QueueOffset(501), op_end).0, QueueOffset(10));
        pending.settle(&half, op_end);
        assert_eq!(pending.start(QueueOffset(501), op_end.next()), (QueueOffset(500), op_end.next()));
        let half = pending.claim(QueueOffset(500)).unwrap();
        pending.insert(half);
        assert_eq!(pending.start(QueueOffset(501), op_end.next()).0, QueueOffset(500));
        end(&mut pending, 500, op_end.0 + 1);
        assert_eq!(pending.start(QueueOffset(501), QueueOffset(900)), (QueueOffset(501), QueueOffset(900)));
    }
}
