//! The messages for a given time, in a run and after a crash: entered, delivered and saved as the broker's thread does it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use ferromq_protocol::topics::TIMER_TOPIC as TIMERS;
use ferromq_protocol::{QueueId, QueueOffset};

use super::history::{History, due_of};
use super::machine::dir_in_memory;
use super::run::Run;
use crate::disk::LocalDisk;
use crate::store::Store;
use crate::testing::{START_MS, read_whole_bodies};
use crate::timer_index::TimerIndex;
use crate::timer_minutes::Timer;

impl Run {
    pub fn enter_timers(&mut self) {
        let (Some(store), Some(timers)) = (&self.store, &mut self.timers) else { return };
        let mut history = self.history.lock();
        let late = enter(store, timers, &history);
        history.delivered.extend(late);
        drop(history);
        self.place.may_fail(timers.write());
    }

    pub fn deliver_timers(&mut self) {
        let now = self.place.now_ms();
        let (Some(store), Some(timers)) = (&self.store, &mut self.timers) else { return };
        let waiting = timers_of(store);
        loop {
            let Some(due) = self.place.may_fail(due(store, timers, now)) else { return };
            let Some(first) = due.first() else { break };
            self.history
                .lock()
                .delivered
                .extend(due.iter().filter(|timer| comes(&waiting, timer)).map(|timer| timer.offset.0));
            timers.delivered(first.due_ms);
        }
        let history = self.history.lock();
        let came = |timer: &Timer| history.delivered.contains(&timer.offset.0);
        let rotten = history.rotten_places();
        let is_promised = |timer: &Timer| !rotten.contains(&(TIMERS, 0, timer.offset.0));
        let is_due = |timer: &Timer| timer.due_ms <= now && timer.offset < timers.entered() && is_promised(timer);
        let late: Vec<_> = waiting.iter().filter(|timer| is_due(timer) && !came(timer)).collect();
        assert!(late.is_empty(), "due by {now}, and did not come: {late:?}");
    }

    /// Once the log is on the disk up to what was entered, as the broker does it.
    pub fn save_timers(&mut self) {
        let Some(timers) = &mut self.timers else { return };
        if timers.is_in_doubt() {
            let store = self.store.as_ref().unwrap();
            let (begin, queue) = (store.queue_bounds(TIMERS, QueueId(0)).unwrap_or_default().min, timers_of(store));
            let at = |offset| queue.binary_search_by_key(&offset, |timer: &Timer| timer.offset).ok();
            let renewed = timers.renew(begin, |offset| io::Result::Ok(at(offset).map(|at| queue[at])));
            self.place.may_fail(renewed);
        }
        let (checkpoint, delivered) = (timers.checkpoint(), self.history.lock().delivered.clone());
        if !timers.is_whole() || self.place.may_fail(self.store.as_ref().unwrap().flusher.flush()).is_none() {
            return;
        }
        if self.place.may_fail(timers.save(checkpoint)).is_some() {
            self.history.lock().delivered_for_good = delivered;
        }
    }

    /// Where a save has failed only the checkpoint knows what counts as delivered. Another may vouch for that soon, and for no more.
    pub fn forget_what_comes_again(&self) {
        let (Some(store), Some(timers)) = (&self.store, &self.timers) else { return };
        let has_passed = |timer: &Timer| timer.due_ms <= timers.saved().delivered_ms;
        let passed: BTreeSet<_> = timers_of(store).iter().filter(|t| has_passed(t)).map(|t| t.offset.0).collect();
        let History { delivered, delivered_for_good, .. } = &mut *self.history.lock();
        delivered.retain(|offset| delivered_for_good.contains(offset) || passed.contains(offset));
    }

    /// Every timer that waits is there.
    pub fn check_timers(&self) {
        let copy = tempfile::tempdir_in(dir_in_memory()).unwrap();
        let mut tree = Vec::new();
        for entry in std::fs::read_dir(self.place.timers()).unwrap() {
            let path = entry.unwrap().path();
            tree.push((path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap()));
        }
        std::fs::create_dir(copy.path().join("timers")).unwrap();
        for (name, bytes) in tree {
            std::fs::write(copy.path().join("timers").join(name), bytes).unwrap();
        }
        let mut timers =
            TimerIndex::open(Arc::new(LocalDisk), copy.path().join("timers"), self.store().id(), START_MS).unwrap();
        let late = enter(self.store(), &mut timers, &self.history.lock());
        let mut found: BTreeSet<_> = late.into_iter().collect();
        let waiting = timers_of(self.store());
        let mut drained = BTreeSet::new();
        loop {
            let due = due(self.store(), &mut timers, i64::MAX / 4).unwrap();
            let Some(first) = due.first() else { break };
            drained.extend(due.iter().filter(|timer| comes(&waiting, timer)).map(|timer| timer.offset.0));
            timers.delivered(first.due_ms);
        }
        let mut history = self.history.lock();
        let rotten: BTreeSet<_> =
            history.rotten_places().iter().filter(|(topic, ..)| *topic == TIMERS).map(|(.., at)| *at).collect();
        let next = history.next(TIMERS, 0);
        // What went with the log's tail was never delivered: its places are others' now.
        history.delivered.retain(|offset| *offset < next);
        history.delivered_for_good.retain(|offset| *offset < next);
        let again: Vec<_> = drained.intersection(&history.delivered_for_good).collect();
        assert!(again.is_empty(), "delivered before, and it was saved that they were: {again:?}");
        found.extend(drained);
        let lost: Vec<_> = waiting
            .iter()
            .map(|timer| timer.offset.0)
            .filter(|offset| !history.delivered.contains(offset) && !found.contains(offset) && !rotten.contains(offset))
            .collect();
        assert!(lost.is_empty(), "timers lost: {lost:?} of {waiting:?}, delivered {:?}", history.delivered);
        // What comes again is not delivered, and the checkpoint that says so of the others is on the disk by now.
        history.delivered.retain(|offset| !found.contains(offset));
        history.delivered_for_good = history.delivered.clone();
    }
}

/// Whether anything comes of an entry: of a place that is another's now nothing does. In the order of the queue.
fn comes(waiting: &[Timer], timer: &Timer) -> bool {
    waiting.binary_search_by_key(&timer.offset, |waiting| waiting.offset).is_ok_and(|at| waiting[at] == *timer)
}

/// The timers that the queue has and that can be read.
fn timers_of(store: &Store) -> Vec<Timer> {
    let bodies = read_whole_bodies(store, TIMERS, 0, 0);
    bodies
        .iter()
        .map(|(offset, body)| Timer { due_ms: due_of(body), offset: QueueOffset(*offset), cancels: false })
        .collect()
}

/// Enters what is new in the queue of timers, as the broker does it. Gives the places of those that are delivered at once, because they
/// come late.
fn enter(store: &Store, timers: &mut TimerIndex, history: &History) -> Vec<u64> {
    let bounds = store.queue_bounds(TIMERS, QueueId(0));
    let (min, max) = bounds.map_or_else(Default::default, |bounds| (bounds.min, bounds.max));
    let from = timers.entered().clamp(min, max);
    if from != timers.entered() {
        timers.skip_to(from);
    }
    let mut late = Vec::new();
    let rotten = history.rotten_places();
    // Nothing comes of one that cannot be read.
    let pass_rotten = |timers: &mut TimerIndex| {
        while rotten.contains(&(TIMERS, 0, timers.entered().0)) {
            timers.enter(None);
        }
    };
    for timer in timers_of(store).into_iter().filter(|timer| timer.offset >= from) {
        if timer.offset != timers.entered() {
            pass_rotten(timers);
        }
        assert_eq!(timer.offset, timers.entered());
        if timers.was_dealt_with(&timer) {
            timers.enter(None);
        } else if timers.has_passed(timer.due_ms) {
            late.push(timer.offset.0);
            timers.enter(None);
        } else {
            timers.enter(Some(timer));
        }
    }
    late
}

/// What is due, each time's timers by themselves; files that are lost are made again out of the queue.
fn due(store: &Store, timers: &mut TimerIndex, now_ms: i64) -> io::Result<Vec<Timer>> {
    loop {
        let error = match timers.due(now_ms) {
            Ok(due) => return Ok(due),
            Err(error) => error,
        };
        let Some(times) = timers.lost() else { return Err(error) };
        let (from, to) = (timers.saved().carried, timers.entered());
        let is_lost = |timer: &Timer| (from..to).contains(&timer.offset) && times.contains(&timer.due_ms);
        let lost: Vec<_> = timers_of(store).into_iter().filter(is_lost).collect();
        timers.restore(&lost)?;
    }
}
