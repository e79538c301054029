//! Timers are entered out of their queue into the index, and delivered when they are due.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use ferromq_protocol::message::properties::{names, property};
use ferromq_protocol::message::{NewMessage, Properties, Record};
use ferromq_protocol::topics::TIMER_TOPIC;
use ferromq_protocol::{PhysicalOffset, QueueOffset};
use ferromq_store::{AppendError, Timer, TimerIndex};
use tracing::error;

use super::carry_progress::CarryProgress;
use super::saving::IndexSaver;
use super::turn_error::TurnError;
use super::{QUEUE, TimerDelivery, WHAT, cancel_key};
use crate::delivery;
use crate::destination;
use crate::missing;
use crate::worker::Bell;

/// Messages entered before what is due gets its turn.
const TURN: usize = 1000;
/// How long messages that are due wait for others that cannot be entered yet, in ms.
const HELD_UP_MAX_MS: i64 = 5_000;
/// Messages delivered before new ones are looked at, and the index may be saved.
const DELIVERED_MAX: usize = 10_000;

/// The store took no more; those before have been delivered.
struct DeliveryFailure {
    at: usize,
    error: AppendError,
}

impl TimerDelivery {
    /// Enters what has come, delivers what is due, saves what can be saved. True when there is more to do right now.
    pub(super) fn turn(
        &self,
        index: &mut TimerIndex,
        saving: &mut IndexSaver,
        carried: &mut CarryProgress,
        bell: &Arc<Bell>,
    ) -> Result<bool, TurnError> {
        // Everything that has come first: among it may be what takes something back that is due. What cannot be entered now holds up
        // what was entered before, for a while only.
        let entered = self.enter_all(index, bell);
        // Then nothing can be delivered.
        let is_full = matches!(entered, Err(TurnError::Append(AppendError::DiskFull { .. })));
        let no_room = matches!(entered, Err(TurnError::NoRoom));
        // There is room again only when segments can go.
        let is_stuck = is_full || no_room;
        let held_up_ms = if entered.is_ok() { 0 } else { HELD_UP_MAX_MS };
        // What takes back must not pass copies that are stored and cannot be entered.
        let copies_wait_ms = if no_room { i64::MAX } else { HELD_UP_MAX_MS };
        let waits = carried.not_from_ms(index.entered()).map(|from| (from, copies_wait_ms));
        let delivered = if is_full { Ok(0) } else { self.deliver_due(index, held_up_ms, waits, bell) };
        // What is due and was delivered need not be carried on. Otherwise copies would come late, behind what cannot be entered.
        let carries = if entered.is_ok() || is_stuck { self.carry(index, carried, is_stuck) } else { Ok(false) };
        // Whatever failed, and for however long: what has been delivered must not come again after a crash.
        if let Err(error) = self.save(index, saving, carried, bell)
            && !std::mem::replace(&mut saving.failing, true)
        {
            // Deliveries go on; after a crash some come again.
            error!(%error, "cannot save the timers; trying again");
        }
        self.tell_free(index, carried);
        let (delivered, carries) = (delivered?, carries?);
        entered?;
        Ok(delivered >= DELIVERED_MAX || carries)
    }

    /// Delivers what has been due for `held_up_ms`, and gives how many. What is due at the first of the times that it `waits` for, or later,
    /// waits for as long as the second says.
    fn deliver_due(
        &self,
        index: &mut TimerIndex,
        held_up_ms: i64,
        waits: Option<(i64, i64)>,
        bell: &Bell,
    ) -> Result<usize, TurnError> {
        let mut delivered = 0;
        while delivered < DELIVERED_MAX && !bell.is_stopping() {
            let now_ms = self.clock.now_ms();
            let not_yet = waits.map_or(i64::MAX, |(from, ms)| from.saturating_sub(1).max(now_ms.saturating_sub(ms)));
            let due = match index.due(now_ms.saturating_sub(held_up_ms).min(not_yet)) {
                Ok(due) => due,
                Err(error) => {
                    self.restore_lost(index, bell)?;
                    // Told of, and tried again after a pause, lest a disk that is worse than that be asked without end.
                    return Err(error.into());
                }
            };
            let Some(first) = due.first().copied() else { break };
            if let Err(failure) = self.deliver_all(&due) {
                let left = due.into_iter().enumerate().filter(|(at, timer)| *at >= failure.at || timer.cancels);
                index.give_back(left.map(|(_, timer)| timer).collect());
                self.tell(index);
                return Err(failure.error.into());
            }
            index.delivered(first.due_ms);
            delivered += due.len();
            self.tell(index);
        }
        Ok(delivered)
    }

    /// What a lost file of the index had is still in the queue.
    fn restore_lost(&self, index: &mut TimerIndex, bell: &Bell) -> Result<(), TurnError> {
        let Some(times) = index.lost() else { return Ok(()) };
        let Some(bounds) = self.store.queue_bounds(TIMER_TOPIC, QUEUE) else { return Ok(()) };
        let mut timers = Vec::new();
        // After a kill, what is carried on since the last save counts here again.
        let first = bounds.min.max(index.saved().carried);
        for offset in (first.0..index.entered().0.min(bounds.max.0)).map(QueueOffset) {
            if bell.is_stopping() {
                return Ok(());
            }
            let timer = self.timer_at(offset)?;
            timers.extend(timer.filter(|timer| times.contains(&timer.due_ms) && !self.java.has_delivered(timer)));
        }
        Ok(index.restore(&timers)?)
    }

    /// Takes over all that is new in the timer queue.
    fn enter_all(&self, index: &mut TimerIndex, bell: &Bell) -> Result<(), TurnError> {
        loop {
            // First: what cannot be written must not become more and more.
            index.write_what_fits()?;
            if bell.is_stopping() {
                return Ok(());
            }
            if !index.takes_more() {
                return Err(TurnError::NoRoom);
            }
            let more = self.enter(index);
            self.tell(index);
            if !more? {
                return Ok(index.write_what_fits()?);
            }
        }
    }

    /// Takes over what is new in the timer queue, up to a turn; true when there may be more.
    fn enter(&self, index: &mut TimerIndex) -> Result<bool, TurnError> {
        let Some(bounds) = self.store.queue_bounds(TIMER_TOPIC, QUEUE) else { return Ok(false) };
        // Its beginning was cleaned, or it lost its end in a crash.
        let from = index.entered().clamp(bounds.min, bounds.max);
        if from != index.entered() {
            index.skip_to(from);
        }
        for _ in 0..TURN {
            let offset = index.entered();
            if offset >= bounds.max {
                return Ok(false);
            }
            let timer = self.timer_at(offset)?;
            match timer {
                Some(timer) if self.java.has_delivered(&timer) || index.was_dealt_with(&timer) => index.enter(None),
                // This broker was slower than the timer.
                Some(timer) if index.has_passed(timer.due_ms) && timer.due_ms <= self.clock.now_ms() => {
                    self.deliver_all(&[timer]).map_err(|failure| failure.error)?;
                    index.enter(None);
                    self.statistics.timer_entered();
                }
                Some(timer) => {
                    if index.has_passed(timer.due_ms) {
                        // The clock was set back.
                        index.go_back_before(timer.due_ms);
                    }
                    index.enter(Some(timer));
                    self.statistics.timer_entered();
                }
                None => index.enter(None),
            }
        }
        Ok(true)
    }

    pub(super) fn timer_at(&self, offset: QueueOffset) -> Result<Option<Timer>, AppendError> {
        Ok(self.with_record(offset, |record| timer_of(record, offset))?.flatten())
    }

    /// The timer whose record is there in the log.
    pub(super) fn timer_in(&self, offset: QueueOffset, at: PhysicalOffset) -> Result<Option<Timer>, AppendError> {
        Ok(self.with_record_in(at, |record| timer_of(record, offset))?.flatten())
    }

    /// What `act` makes of the message at a place of the timer queue; `None`, and a word in the log, if there is none.
    pub(super) fn with_record<T>(
        &self,
        offset: QueueOffset,
        act: impl FnOnce(&Record<'_>) -> T,
    ) -> Result<Option<T>, AppendError> {
        let entry = missing::look_up_entry(&self.store, WHAT, TIMER_TOPIC, QUEUE, offset);
        let Some(entry) = entry.map_err(missing::not_now)? else { return Ok(None) };
        self.with_record_in(entry.physical, act)
    }

    fn with_record_in<T>(
        &self,
        at: PhysicalOffset,
        act: impl FnOnce(&Record<'_>) -> T,
    ) -> Result<Option<T>, AppendError> {
        let bytes = missing::look_up(&self.store, WHAT, at).map_err(missing::not_now)?;
        let Some(bytes) = bytes else { return Ok(None) };
        // Looked up by its place, it can be read.
        Ok(Record::parse(&bytes).ok().map(|record| act(&record)))
    }

    /// Delivers messages that are due at one time, but for those that others among them take back.
    fn deliver_all(&self, due: &[Timer]) -> Result<(), DeliveryFailure> {
        let mut cancelled = HashSet::new();
        for timer in due.iter().filter(|timer| timer.cancels) {
            let key = |record: &Record<'_>| record.property(names::TIMER_DEL_UNIQKEY).map(Cow::into_owned);
            let key = self.with_record(timer.offset, key).map_err(|error| DeliveryFailure { at: 0, error })?;
            cancelled.extend(key.flatten());
        }
        let mut came = HashSet::new();
        for (at, timer) in due.iter().enumerate().filter(|(_, timer)| !timer.cancels) {
            self.deliver_one(timer, &cancelled, &mut came).map_err(|error| DeliveryFailure { at, error })?;
        }
        Ok(())
    }

    fn deliver_one(
        &self,
        timer: &Timer,
        cancelled: &HashSet<String>,
        came: &mut HashSet<String>,
    ) -> Result<(), AppendError> {
        let deliver = |record: &Record<'_>| {
            if self.is_rolled_copy(record, came) { Ok(()) } else { self.deliver(record, timer, cancelled) }
        };
        self.with_record(timer.offset, deliver)?.unwrap_or(Ok(()))
    }

    /// Java stores a message again while it waits for more than two days (`TIMER_ROLL_TIMES`), and its queue has it twice then: the first
    /// copy of what `came` at one time is delivered. One that this broker has carried on since is behind the other.
    fn is_rolled_copy(&self, record: &Record<'_>, came: &mut HashSet<String>) -> bool {
        if self.java.queue_offset == QueueOffset(0) {
            return false;
        }
        let text = record.properties();
        let (Some(topic), Some(key)) = (property(&text, names::REAL_TOPIC), property(&text, names::UNIQUE_KEY)) else {
            return false;
        };
        !came.insert(cancel_key(topic, key)) && property(&text, names::TIMER_ROLL_TIMES).is_some()
    }

    fn deliver(&self, record: &Record<'_>, timer: &Timer, cancelled: &HashSet<String>) -> Result<(), AppendError> {
        let mut properties = Properties::parse(&record.properties());
        let parsed = |name| properties.value(name).and_then(|value| value.parse::<i64>().ok());
        if parsed(names::TIMER_OUT_MS) != Some(timer.due_ms) {
            // The log lost its end in a crash of the machine, and the place was taken by another message, which has an entry of its own.
            return Ok(());
        }
        let place =
            destination::own_place(&self.topics, properties.as_str()).map(|(topic, queue)| (topic.to_owned(), queue));
        let (topic, queue) = match place {
            Ok(place) => place,
            Err(error) => {
                error!(physical_offset = %record.physical_offset(), %error, "a timer message cannot be delivered and is left out");
                return Ok(());
            }
        };
        if !cancelled.is_empty() {
            let key = properties.value(names::UNIQUE_KEY).unwrap_or_default();
            // Older clients name the key alone.
            if cancelled.contains(&cancel_key(&topic, key)) || cancelled.contains(key) {
                return Ok(());
            }
        }
        let stored = properties.clone();
        let now_ms = self.clock.now_ms();
        destination::restore_timer(&mut properties, record.store_timestamp(), now_ms);
        let deliver = |properties: &Properties| {
            let copy = NewMessage::copy_of(record, &topic, queue, properties.as_str());
            delivery::deliver(record, &copy, now_ms, (&self.store, &self.topics, &self.statistics))
        };
        let delivered = match deliver(&properties) {
            // Its properties were at the limit: they go as they came.
            Err(error) if error.is_of_the_message() => deliver(&stored),
            result => result,
        };
        match delivered {
            Err(error) if error.is_of_the_message() => {
                error!(physical_offset = %record.physical_offset(), topic, %error, "a timer message cannot be delivered and is left out");
                Ok(())
            }
            result => result.map(|_| self.statistics.timer_delivered()),
        }
    }
}

fn timer_of(record: &Record<'_>, offset: QueueOffset) -> Option<Timer> {
    let text = record.properties();
    let due_ms = property(&text, names::TIMER_OUT_MS)?.parse().ok()?;
    Some(Timer { due_ms, offset, cancels: property(&text, names::TIMER_DEL_UNIQKEY).is_some() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{BAD_SECTOR, NO_DESCRIPTORS, break_queue, wait_refused, wait_until};
    use crate::timers::TimerProgress;
    use crate::timers::house::{House, NOW};
    use ferromq_protocol::QueueId;
    use ferromq_store::Effort;

    #[test]
    fn a_queue_that_takes_no_messages_holds_up_its_own_alone() {
        let house = House::new();
        let queues = house.root.path().join("consumequeue");
        for (topic, count) in [("Broken", 1), ("Wide", 2), ("Other", 1)] {
            house.topics.update(crate::topics::new_config(topic, count, 6)).unwrap();
        }
        let broken = break_queue(&house.store, "Broken", QueueId(0), &queues.join("Broken"));
        break_queue(&house.store, "Wide", QueueId(0), &queues.join("Wide/0"));
        for topic in ["Broken", "Wide", "Other"] {
            house.at(1_000, topic, "");
        }
        house.at(2_000, "Other", "");
        house.pass(1_000);
        house.wait_for("Other", 0, 1);
        house.wait_for("Wide", 1, 1);
        house.pass(1_000);
        house.wait_for("Other", 0, 2);
        // Again and again, and never stored where it is not seen.
        let waiting = house.count(TIMER_TOPIC, 0);
        house.pass(10_000);
        house.wait_for(TIMER_TOPIC, 0, waiting + 1);
        fs::remove_file(queues.join("Broken")).unwrap();
        house.wait_for("Broken", 0, broken);
        // It takes messages soon after.
        wait_until("it is not delivered", || {
            house.pass(10_000);
            house.count("Broken", 0) > broken
        });
        house.timers.stop();
        let counts = [("Broken", 0), ("Wide", 1), ("Other", 0)].map(|(topic, queue)| house.count(topic, queue));
        assert_eq!(counts, [broken + 1, 1, 2]);
    }

    #[test]
    fn a_timer_at_the_limit_of_its_properties_waits_once_more() {
        let house = House::new();
        house.topics.update(crate::topics::new_config("Broken", 1, 6)).unwrap();
        break_queue(&house.store, "Broken", QueueId(0), &house.root.path().join("consumequeue/Broken"));
        let own = format!("TIMER_OUT_MS\u{1}{NOW}\u{2}REAL_TOPIC\u{1}Broken\u{2}REAL_QID\u{1}0\u{2}P\u{1}\u{2}").len();
        // Room for one of the two times that the delivered copy says beside, and for neither.
        for left in [40, 0] {
            let value = "x".repeat(usize::from(i16::MAX.unsigned_abs()) - own - left);
            house.at(1_000, "Broken", &format!("P\u{1}{value}\u{2}"));
            house.at(1_000, "Other", "");
        }
        house.pass(1_000);
        house.wait_for("Other", 0, 2);
        house.wait_for(TIMER_TOPIC, 0, 6);
        house.timers.stop();
    }

    #[test]
    fn progress_says_what_waits_and_how_late_it_is() {
        let house = House::asleep();
        let progress = || house.timers.progress();
        for (in_ms, topic) in [(1_000, "Near"), (2_000, "Near"), (3_600_000, "Far")] {
            house.at(in_ms, topic, "");
        }
        house.wait_for(TIMER_TOPIC, 0, 3);
        assert_eq!(progress(), TimerProgress { behind_s: 0, not_entered: 3, waiting: 0 });
        house.timers.start().unwrap();
        wait_until("the timers are not entered", || progress().not_entered == 0);
        assert_eq!(progress(), TimerProgress { behind_s: 0, not_entered: 0, waiting: 3 });
        house.pass(1_000);
        wait_until("the first is not delivered", || progress().waiting == 2);
        // Nobody delivers for a while.
        house.timers.stop();
        house.pass(8_500);
        assert_eq!(progress(), TimerProgress { behind_s: 7, not_entered: 0, waiting: 2 });
        house.timers.start().unwrap();
        wait_until("the second is not delivered", || progress().waiting == 1);
        assert_eq!(progress().behind_s, 0);
        house.timers.stop();
    }

    #[test]
    fn what_cannot_be_entered_now_holds_up_others_for_a_while() {
        for passes in [false, true] {
            let house = House::asleep();
            let first = house.at(1_000, "Back", "UNIQ_KEY\u{1}k\u{2}");
            house.at(1_000, "Early", "");
            // Far from these in the log.
            house.append("Between", QueueId(0), "", &[0; 8192]).unwrap();
            let back = house.at(1_000, "Back", "TIMER_DEL_UNIQKEY\u{1}Back+k\u{2}");
            house.at(900, "Late", "");
            house.wait_for(TIMER_TOPIC, 0, 4);
            house.disk.refuse("/commitlog/", first.end.0 + 4096..1 << 20, NO_DESCRIPTORS);
            wait_refused(|| house.store.message_at(back.physical_offset, Effort::Full));
            house.timers.start().unwrap();
            house.pass(1_000);
            let refused = house.disk.refused();
            wait_until("it is not tried again", || house.disk.refused() > refused + 2);
            assert_eq!(house.count("Early", 0), 0);
            if passes {
                house.disk.recover();
            } else {
                house.pass(HELD_UP_MAX_MS);
                house.wait_for("Early", 0, 1);
                house.disk.recover();
            }
            house.wait_for("Early", 0, 1);
            house.wait_for("Late", 0, 1);
            house.timers.stop();
            // What takes back came in time, if it could be read in time.
            assert_eq!(house.count("Back", 0), u64::from(!passes));
        }
    }

    #[test]
    fn what_is_due_comes_though_no_more_can_be_entered() {
        let house = House::new();
        house.at(1_000, "Due", "");
        house.wait_waiting(1);
        house.timers.stop();
        house.disk.no_room("/timers/");
        if let Some(index) = &mut *house.timers.delivery.index.lock() {
            // In minutes of their own, so that a try to write costs little.
            for due_ms in (NOW + 3_600_000..).step_by(60_000) {
                if !index.takes_more() {
                    break;
                }
                index.enter(Some(Timer { due_ms, offset: index.entered(), cancels: false }));
            }
        }
        house.timers.start().unwrap();
        house.pass(1_000 + HELD_UP_MAX_MS);
        house.wait_for("Due", 0, 1);
        house.timers.stop();
    }

    #[test]
    fn a_lost_file_of_the_index_is_made_again_out_of_the_queue() {
        for is_missing in [true, false] {
            let house = House::new();
            for (in_ms, topic) in [(120_000, "First"), (121_000, "Second"), (240_000, "Behind")] {
                house.at(in_ms, topic, "");
            }
            wait_until("the timers are not entered", || house.timers.progress().waiting == 3);
            house.timers.stop();
            let name = format!("{:020}", (NOW + 120_000) / 60_000);
            if is_missing {
                fs::remove_file(house.root.path().join("timers").join(name)).unwrap();
            } else {
                house.disk.refuse(&format!("/timers/{name}"), 0..1 << 20, BAD_SECTOR);
            }
            house.timers.start().unwrap();
            house.pass(240_000);
            if !is_missing {
                wait_until("it is not tried again", || house.disk.refused() > 2);
                house.disk.recover();
            }
            for topic in ["First", "Second", "Behind"] {
                house.wait_for(topic, 0, 1);
            }
            wait_until("some still wait", || house.timers.progress().waiting == 0);
            house.timers.stop();
        }
    }

    #[test]
    fn what_is_entered_again_because_a_file_is_missing_does_not_come_again() {
        let house = House::small();
        house.at(1_000, "Came", "");
        house.at(1_000, "Back", "UNIQ_KEY\u{1}k\u{2}");
        house.at(1_000, "Back", "TIMER_DEL_UNIQKEY\u{1}Back+k\u{2}");
        house.at(240_000, "Later", "");
        house.wait_waiting(4);
        house.pass(1_000);
        house.wait_for("Came", 0, 1);
        wait_until("the index is not saved", || {
            let saved = house.saved();
            saved.delivered_ms == NOW + 1_000 && saved.entered == QueueOffset(4)
        });
        house.timers.stop();
        // As a start, which knows only what was saved.
        house.timers.delivery.index.lock().take();
        let name = format!("{:020}", (NOW + 240_000) / 60_000);
        fs::remove_file(house.root.path().join("timers").join(name)).unwrap();
        house.timers.start().unwrap();
        house.pass(239_000);
        house.wait_for("Later", 0, 1);
        house.timers.stop();
        house.see();
        assert_eq!(["Came", "Back", "Later"].map(|topic| house.count(topic, 0)), [1, 0, 1]);
    }

    #[test]
    fn what_was_delivered_is_saved_though_others_cannot_be() {
        let house = House::new();
        let first = house.at(1_000, "Before", "");
        // Far from it in the log.
        house.append("Between", QueueId(0), "", &[0; 8192]).unwrap();
        let stuck = house.at(1_500, "Stuck", "");
        wait_until("the timers are not entered", || {
            house.timers.progress() == TimerProgress { behind_s: 0, not_entered: 0, waiting: 2 }
        });
        house.disk.refuse("/commitlog/", first.end.0 + 4096..1 << 20, NO_DESCRIPTORS);
        wait_refused(|| house.store.message_at(stuck.physical_offset, Effort::Full));
        house.pass(1_500);
        house.wait_for("Before", 0, 1);
        wait_until("a kill would have it delivered again", || house.saved().delivered_ms >= NOW + 1_000);
        assert_eq!(house.count("Stuck", 0), 0);
        house.disk.recover();
        house.wait_for("Stuck", 0, 1);
        house.timers.stop();
    }

    #[test]
    fn stopped_and_started_again_it_goes_on_where_it_was() {
        for panicked in [false, true] {
            let house = House::new();
            house.at(1_000, "Before", "");
            house.at(2_000, "After", "");
            house.pass(1_000);
            house.wait_for("Before", 0, 1);
            house.timers.stop();
            if panicked {
                house.timers.delivery.index.lock().take();
            }
            house.pass(1_000);
            house.timers.start().unwrap();
            house.wait_for("After", 0, 1);
            house.timers.stop();
            // After a panic, what was not saved is delivered again.
            assert!(house.count("Before", 0) == 1 || panicked);
        }
    }

    #[test]
    fn an_entry_on_a_bad_sector_costs_its_timer_alone() {
        let house = House::asleep();
        for topic in ["Before", "Lost", "Behind"] {
            house.at(1_000, topic, "");
        }
        house.wait_for(TIMER_TOPIC, 0, 3);
        house.disk.refuse("/rmq_sys_wheel_timer/0/", 20..40, BAD_SECTOR);
        wait_refused(|| house.store.queue_entry(TIMER_TOPIC, QUEUE, QueueOffset(1), Effort::Full));
        house.timers.start().unwrap();
        house.pass(1_000);
        house.wait_for("Before", 0, 1);
        house.wait_for("Behind", 0, 1);
        house.timers.stop();
        assert_eq!(house.count("Lost", 0), 0);
    }
}
