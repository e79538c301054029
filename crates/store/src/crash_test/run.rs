//! A store that is used as a broker uses it, one step after the other, by the dice.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ferromq_protocol::message::SysFlag;
use ferromq_protocol::topics::TIMER_TOPIC as TIMERS;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};
use parking_lot::Mutex;

use super::after_crash::check_queues;
use super::history::{History, Known, Put, QUEUES, TOPICS, properties};
use super::machine::{Moment, Place, SEGMENT_LEN};
use crate::Writer;
use crate::disk::{Disk, is_failed_sync};
use crate::retention::Progress;
use crate::retention_rules::RetentionRules;
use crate::scripted_disk::{Bug, Dice};
use crate::store::{Store, Want};
use crate::testing::{OtherLog, START_MS, message};
use crate::timer_index::TimerIndex;

/// Queues that starts have taken from the list.
pub static FROM_LIST: AtomicUsize = AtomicUsize::new(0);

/// A store that is being used.
pub struct Run {
    pub place: Place,
    pub dice: Dice,
    pub history: Arc<Mutex<History>>,
    pub store: Option<Store>,
    pub timers: Option<TimerIndex>,
    /// Halves that have ended since the store was opened, or were about to.
    pub ended: BTreeSet<u64>,
    /// What the thread of the retention knows.
    retention: Progress,
}

impl Run {
    pub fn new(place: Place, mut history: History, seed: u64) -> Run {
        history.count += 1000;
        Run {
            place,
            dice: Dice::new(seed),
            history: Arc::new(Mutex::new(history)),
            store: None,
            timers: None,
            ended: BTreeSet::new(),
            retention: Progress::default(),
        }
    }

    /// False if the disk has failed, as it was told to. Without its timers no broker starts.
    pub fn open(&mut self) -> bool {
        let place = &self.place;
        self.store = place.may_fail(Store::open(place.config()));
        let Some(store) = &self.store else { return false };
        let listed = store.queues.all().iter().filter(|queue| queue.is_listed()).count();
        FROM_LIST.fetch_add(listed, Ordering::Relaxed);
        self.retention = Progress::default();
        let timers = TimerIndex::open(Arc::clone(&place.disk) as Arc<dyn Disk>, place.timers(), store.id(), START_MS);
        self.timers = place.may_fail(timers);
        if let Some(timers) = &mut self.timers {
            let end = store.queue_bounds(TIMERS, QueueId(0)).map_or(0, |bounds| bounds.max.0);
            if place.may_fail(timers.queue_ends(QueueOffset(end))).is_none() {
                self.timers = None;
            }
        }
        if self.timers.is_none() {
            self.store = None;
        }
        self.timers.is_some()
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Whether anything can still be done.
    pub fn goes_on(&self) -> bool {
        !self.place.disk.is_dead() && self.store.as_ref().is_some_and(|store| store.health.poison_reason().is_none())
    }

    /// Until all that the store does by itself is done.
    pub fn settle(&self) {
        let store = self.store();
        crate::testing::wait_until(|| {
            let marks = store.watermarks();
            store.allocator.is_idle() && marks.projected.0 >= self.last_whole(marks.visible.0)
                || !self.goes_on()
                || store.check_writable().is_err()
        });
    }

    /// Where the last record ends that is wholly before `end`: a commit may end in the middle of one.
    fn last_whole(&self, end: u64) -> u64 {
        if !self.place.mode.pool {
            return end;
        }
        self.history.lock().puts.iter().rev().map(|known| known.end).find(|known| *known <= end).unwrap_or(0)
    }

    pub fn step(&mut self) {
        self.place.now.fetch_add(90, Ordering::SeqCst);
        match self.dice.below(100) {
            0..30 => self.append(1),
            30..36 => self.copy(),
            36..48 => {
                let count = 1 + self.dice.below(5);
                self.append(count);
            }
            48..52 => self.begin_or_end(),
            52..62 => self.timer(),
            62..68 => self.enter_timers(),
            68..71 => self.deliver_timers(),
            71..76 => self.save_timers(),
            76..80 => drop(self.place.may_fail(self.store().flusher.flush())),
            80..87 => self.upkeep(),
            87..90 => {
                let store = self.store();
                let done = store.flusher.flush_whole_chunks().and_then(|()| store.checkpoint.save(&*self.place.disk));
                self.upkeep_ends(done);
            }
            90..93 => self.retain(),
            93..95 => self.delete(),
            95 => self.truncate(),
            96..98 => self.read(),
            _ => self.close(),
        }
        if self.store.is_some() {
            self.commit();
            self.settle();
            self.note_flushed();
        }
    }

    /// With the write pool: now and then it gets to the log's files, or whole pages of it.
    fn commit(&mut self) {
        if self.place.mode.pool && !self.dice.one_in(3) {
            let all = self.dice.one_in(2);
            let store = self.store();
            let done = store.committer.as_ref().map(|committer| committer.commit_as(all)).unwrap();
            self.place.may_fail(done);
            store.dispatch_signal.wake();
        }
    }

    /// With the write pool: all that was put gets to the log's files.
    pub fn commit_all(&self) {
        let store = self.store();
        if let Some(committer) = &store.committer {
            committer.commit_as(true).unwrap();
            store.dispatch_signal.wake();
        }
    }

    fn note_flushed(&self) {
        let marks = self.store().watermarks();
        assert!(marks.projected <= marks.committed && marks.flushed <= marks.committed, "{marks:?}");
        let mut history = self.history.lock();
        // One that failed on its way may have taken the files, and left the marks.
        let stays = history.truncated_to.unwrap_or(u64::MAX);
        history.safe = history.safe.max(marks.flushed.0.min(stays));
    }

    /// How far the log outlives the process.
    pub fn committed(&self) -> u64 {
        match &self.store {
            _ if !self.place.mode.pool => self.history.lock().end(),
            Some(store) => store.watermarks().committed.0,
            None => 0,
        }
    }

    pub fn body(&mut self, len: usize) -> Vec<u8> {
        let mut history = self.history.lock();
        history.count += 1;
        // An acknowledgement that does not wait for the disk is not for these: see `AfterCrash::by_kill`.
        let ends_with_zero = self.place.mode.sync && self.dice.one_in(8);
        let mut body = vec![u8::from(ends_with_zero)];
        body.resize(1 + len, u8::try_from(len % 251).unwrap());
        body.extend(history.count.to_be_bytes());
        body
    }

    pub fn append(&mut self, count: usize) {
        let topic = TOPICS[self.dice.below(TOPICS.len())];
        let queue = u32::try_from(self.dice.below(QUEUES as usize)).unwrap();
        let len_max = if count == 1 { 900 } else { 300 };
        let bodies: Vec<_> = (0..count)
            .map(|_| {
                let len = self.dice.below(len_max);
                self.body(len)
            })
            .collect();
        self.put(topic, queue, bodies, 0);
    }

    fn timer(&mut self) {
        // Some in the past, most soon, few far away.
        let far = [4000, 4000, 600_000, 86_400_000][self.dice.below(4)];
        let due = self.place.now_ms() - 1000 + i64::try_from(self.dice.below(far)).unwrap();
        let mut body = due.to_be_bytes().to_vec();
        body.extend(self.body(10));
        self.put(TIMERS, 0, vec![body], 0);
    }

    /// Messages that another broker has appended, in whatever pieces they come.
    fn copy(&mut self) {
        let begin = self.store().watermarks().written.0;
        let mut other = OtherLog { segment_len: SEGMENT_LEN, begin, bytes: Vec::new() };
        let (mut puts, mut nexts) = (Vec::new(), BTreeMap::new());
        for _ in 0..1 + self.dice.below(5) {
            let topic = TOPICS[self.dice.below(TOPICS.len())];
            let queue = u32::try_from(self.dice.below(QUEUES as usize)).unwrap();
            let next = nexts.entry((topic, queue)).or_insert_with(|| self.history.lock().next(topic, queue));
            let (offset, len) = (*next, self.dice.below(900));
            *next += 1;
            let body = self.body(len);
            let text = properties(topic, &body);
            let message = message(topic, queue, &body, &text);
            let physical = other.put(&message, offset, self.place.now_ms());
            puts.push((Put::Message { topic, queue, offset: Some(offset), physical, body: body.clone() }, other.end()));
        }
        self.history.lock().pending = puts.iter().map(|(put, _)| put.clone()).collect();
        let piece = 1 + self.dice.below(3000);
        let store = self.store.as_ref().unwrap();
        store.set_writer(Writer::Stream).unwrap();
        let done = other.offer_to(store, piece);
        self.place.may_fail(store.set_writer(Writer::Local));
        let end = done.as_ref().map_or_else(|error| error.at.0, |()| other.end());
        self.place.may_fail(done);
        {
            let mut history = self.history.lock();
            history.pending.clear();
            let taken = puts.into_iter().take_while(|(_, put_end)| *put_end <= end);
            history.puts.extend(taken.map(|(put, end)| Arc::new(Known { put, end })));
        }
        crate::testing::wait_until(|| store.allocator.is_idle() || !self.goes_on());
        let answered = Arc::new(AtomicBool::new(false));
        let (told, history, is_sync) = (Arc::clone(&answered), Arc::clone(&self.history), self.place.mode.sync);
        store.when_safe(PhysicalOffset(end), Want::Acknowledged, move |done| {
            if done.is_ok() && is_sync {
                let mut history = history.lock();
                history.safe = history.safe.max(end);
            }
            told.store(true, Ordering::SeqCst);
        });
        crate::testing::wait_until(|| answered.load(Ordering::SeqCst) || !self.goes_on());
    }

    /// False if nothing is put.
    pub fn put(&mut self, topic: &'static str, queue: u32, bodies: Vec<Vec<u8>>, sys_flag: i32) -> bool {
        let visible = SysFlag(sys_flag).is_visible();
        let half = (sys_flag == SysFlag::TRANSACTION_COMMIT).then(|| self.history.lock().half_of(&bodies[0]));
        let next = self.history.lock().next(topic, queue);
        let texts: Vec<_> = bodies.iter().map(|body| properties(topic, body)).collect();
        let messages: Vec<_> = bodies
            .iter()
            .zip(&texts)
            .map(|(body, text)| {
                let mut message = message(topic, queue, body, text);
                message.sys_flag = SysFlag(sys_flag);
                message.prepared_transaction_offset = half.unwrap_or(0);
                message
            })
            .collect();
        let put = |at: usize, physical| Put::Message {
            topic,
            queue,
            offset: visible.then_some(next + at as u64),
            physical,
            body: bodies[at].clone(),
        };
        self.history.lock().pending = (0..bodies.len()).map(|at| put(at, 0)).collect();
        let store = self.store.as_ref().unwrap();
        let round = store.round();
        let appended = match &messages[..] {
            [one] => round.append(one).map(|placed| (vec![placed.physical_offset], placed.queue_offset, placed.end)),
            _ => round.append_batch(&messages).map(|placed| (placed.physical_offsets, placed.queue_offset, placed.end)),
        };
        let Some((places, offset, end)) = self.place.may_fail(appended) else {
            // Refused is refused, and not only in doubt.
            self.history.lock().pending.clear();
            return false;
        };
        assert!(!visible || offset.0 == next, "{topic}/{queue} gave {offset:?}, and {next} is the next");
        {
            let mut history = self.history.lock();
            history.pending.clear();
            for (at, message) in messages.iter().enumerate() {
                let physical = places[at].0;
                history
                    .puts
                    .push(Arc::new(Known { put: put(at, physical), end: physical + message.record_len() as u64 }));
            }
            assert_eq!(history.end(), end.0);
        }
        // The one thread after the other, so that calls come in the same order each time.
        crate::testing::wait_until(|| store.allocator.is_idle() || !self.goes_on());
        let answered = Arc::new(AtomicBool::new(false));
        let (told, history, is_sync) = (Arc::clone(&answered), Arc::clone(&self.history), self.place.mode.sync);
        round.when_safe(end, Want::Acknowledged, move |done| {
            if done.is_ok() && is_sync {
                let mut history = history.lock();
                history.safe = history.safe.max(end.0);
            }
            told.store(true, Ordering::SeqCst);
        });
        drop(round);
        crate::testing::wait_until(|| answered.load(Ordering::SeqCst) || !self.goes_on());
        true
    }

    pub fn upkeep(&self) {
        self.settle();
        let store = self.store();
        let done = store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*self.place.disk));
        self.upkeep_ends(done);
        if let Some(index) = &store.index {
            index.prepare(&*self.place.disk);
        }
    }

    /// As the thread of the upkeep takes it.
    fn upkeep_ends(&self, done: io::Result<()>) {
        if let Err(error) = &done
            && is_failed_sync(error)
        {
            self.store().health.poison(format!("could not be synced: {error}"));
        }
        self.place.may_fail(done);
    }

    /// For the length of the log, or for want of room.
    fn retain(&mut self) {
        let keep = 2 + self.dice.below(4);
        self.history.lock().min_at_most = u64::MAX;
        let store = self.store.as_ref().unwrap();
        let rules = self.place.config().retention;
        if self.dice.one_in(3) {
            store.change_retention(rules.clone());
            self.make_room(keep, &rules);
        } else {
            let reserved_bytes = Some(keep as u64 * SEGMENT_LEN);
            store.change_retention(RetentionRules { reserved_bytes, ..rules });
            store.retention.go_round(&mut self.retention);
        }
        let store = self.store.as_ref().unwrap();
        let marks = store.watermarks();
        let mut history = self.history.lock();
        assert!(marks.min.0 >= history.min && marks.min <= marks.written, "{marks:?}");
        if self.goes_on() && !self.place.disk.has_failed() {
            history.min = marks.min.0;
            history.min_at_most = history.min;
        }
    }

    /// Has the disk be too full with more than so many files of the log, and looks that as many go as have to.
    fn make_room(&mut self, keep: usize, rules: &RetentionRules) {
        let store = self.store.as_ref().unwrap();
        let disk = &self.place.disk;
        let most = rules.forced_ratio.min(rules.full_ratio);
        // One more than can be kept is too much.
        let room = (1..).find(|room| (keep + 1) as f64 / *room as f64 <= most).unwrap() - 1;
        disk.has_room_for(Some(room));
        let used = || disk.usage(&self.place.root()).unwrap().used_ratio;
        let before = store.watermarks().min.0;
        store.retention.go_round(&mut self.retention);
        let gone = (store.watermarks().min.0 - before) / SEGMENT_LEN;
        if disk.bug() == Some(Bug::UsageNotLookedAtAgain) {
            // What it was told is not what there is.
            disk.has_room_for(Some(room));
        }
        let is_alone = store.watermarks().written.0 - store.watermarks().min.0 <= SEGMENT_LEN;
        if self.goes_on() && !disk.has_failed() {
            assert!(
                gone == 0 || used() + 1.0 / room as f64 > most,
                "{gone} have gone, and {} of {room} is used",
                used()
            );
            assert!(
                used() <= most || is_alone || gone == rules.batch_max as u64,
                "{gone} have gone, and {} of {room} is used",
                used()
            );
        }
        // Sends are taken again.
        disk.has_room_for(None);
        store.retention.go_round(&mut self.retention);
    }

    fn delete(&mut self) {
        let topic = TOPICS[self.dice.below(TOPICS.len())];
        let there = !self.store().queue_ids(topic).is_empty();
        let deletion = Put::Deletion { topic: topic.to_owned() };
        if there {
            self.history.lock().pending = vec![deletion.clone()];
        }
        let deleted = self.place.may_fail(self.store().delete_topic(topic));
        let marks = self.store().watermarks();
        let mut history = self.history.lock();
        match deleted {
            Some(deleted) => assert_eq!(deleted, there),
            // In doubt, until the log is looked at.
            None if !self.goes_on() => return,
            None => {}
        }
        history.pending.clear();
        if there && self.store().queue_ids(topic).is_empty() {
            history.puts.push(Arc::new(Known { put: deletion, end: marks.written.0 }));
            if deleted.is_some() {
                history.safe = history.safe.max(marks.written.0);
            }
        }
    }

    /// Takes the last messages back, up to a deletion or a timer: what those have set going is not.
    pub fn truncate(&mut self) {
        if self.history.lock().rot.has_any {
            // Where a record ends that cannot be read may not be known any more.
            return;
        }
        let to = {
            let history = self.history.lock();
            let stays = |known: &Known| match &known.put {
                Put::Message { topic, .. } => *topic == TIMERS || known.end <= history.min,
                Put::Deletion { .. } => true,
            };
            let first = history.puts.iter().rposition(|known| stays(known)).map_or(0, |last| last + 1);
            let kept = first + self.dice.below(history.puts.len() - first + 1);
            let end = kept.checked_sub(1).map_or(0, |last| history.puts[last].end).max(history.min);
            match history.puts.get(kept).map(|known| &known.put) {
                // Behind the filler.
                Some(Put::Message { physical, .. }) if self.dice.one_in(2) => *physical,
                _ => end,
            }
        };
        {
            let mut history = self.history.lock();
            history.safe = history.safe.min(to);
            history.truncated_to = Some(to);
        }
        let truncated = self.place.may_fail(self.store().truncate(PhysicalOffset(to)));
        let mut history = self.history.lock();
        if truncated.is_some() {
            let kept = history.puts.partition_point(|known| known.end <= to);
            history.puts.truncate(kept);
        }
        if truncated.is_some() || self.goes_on() {
            history.truncated_to = None;
        }
    }

    fn read(&self) {
        self.settle();
        if self.goes_on()
            && !self.place.disk.has_failed()
            && self.store().watermarks().projected.0 == self.history.lock().end()
        {
            check_queues(self.store(), &self.history.lock());
        }
    }

    /// A clean stop, with the timers saved, and a start.
    fn close(&mut self) {
        self.save_timers();
        let closed = self.place.may_fail(self.store().close());
        if closed.is_some() {
            let mut history = self.history.lock();
            history.safe = history.safe.max(history.end());
        }
        self.timers = None;
        self.store = None;
        if !self.place.disk.has_failed() {
            // The others come again. After a save that failed nobody knows.
            let mut history = self.history.lock();
            history.delivered = history.delivered_for_good.clone();
        }
        if closed.is_some() && !self.place.disk.is_dead() {
            self.open();
            self.forget_what_comes_again();
        }
    }

    /// Has each moment put down from now on: before each call to the disk.
    pub fn watch_moments(&self, moments: &Arc<Mutex<Vec<Moment>>>) {
        let (all, history, root) = (Arc::clone(moments), Arc::clone(&self.history), self.place.disk_root());
        let (disk, now) = (Arc::downgrade(&self.place.disk), Arc::clone(&self.place.now));
        self.place.disk.watch(move |call| {
            let Some(disk) = disk.upgrade() else { return };
            let mut all = all.lock();
            let before = history.lock().clone();
            let image = disk.image(&root, all.last().map(|last| &last.image));
            let (history, now_ms) = (history.lock().since(before), now.load(Ordering::SeqCst));
            let (power_losses, call) = (disk.power_losses(), call.to_string());
            all.push(Moment { call, image, history, now_ms, power_losses, has_failed: false });
        });
    }

    /// Has the world stop before the call that comes after so many; `None` if it never comes.
    pub fn stop_after(&self, calls: usize) -> Arc<Mutex<Option<Moment>>> {
        let stopped = Arc::new(Mutex::new(None));
        let (found, history, root) = (Arc::clone(&stopped), Arc::clone(&self.history), self.place.disk_root());
        let (disk, now, mut left) = (Arc::downgrade(&self.place.disk), Arc::clone(&self.place.now), calls);
        self.place.disk.watch(move |call| {
            let Some(disk) = disk.upgrade() else { return };
            if left > 0 {
                left -= 1;
            } else if !disk.is_dead() {
                let before = history.lock().clone();
                let image = disk.image(&root, None);
                let (history, now_ms) = (history.lock().since(before), now.load(Ordering::SeqCst));
                let (power_losses, has_failed) = (disk.power_losses(), disk.has_failed());
                let call = call.to_string();
                *found.lock() = Some(Moment { call, image, history, now_ms, power_losses, has_failed });
                disk.die();
            }
        });
        stopped
    }

    /// As things are.
    pub fn moment(&self) -> Moment {
        let image = self.place.disk.image(&self.place.disk_root(), None);
        Moment {
            call: "none".to_owned(),
            image,
            history: self.history.lock().clone(),
            now_ms: self.place.now_ms(),
            power_losses: self.place.disk.power_losses(),
            has_failed: self.place.disk.has_failed(),
        }
    }
}
