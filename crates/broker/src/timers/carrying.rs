//! Messages that wait in a segment that is to go.
//!
//! The queue is walked in order, so this costs what it has in that segment, however far ahead the times are. What waits there is stored
//! again behind, with one more `TIMER_ROLL_TIMES` as Java's broker stores it again, and the place up to which that is done goes into the
//! index: what is before it is delivered from its copy. The index is saved, as ever, when the log is on the disk as far as it was then, and
//! the segment is held until that is done. Killed between the copies and that, the broker has both, and delivers both.

use ferromq_protocol::message::properties::names;
use ferromq_protocol::message::{NewMessage, Properties, Record};
use ferromq_protocol::topics::TIMER_TOPIC;
use ferromq_protocol::{PhysicalOffset, QueueOffset};
use ferromq_store::{AppendError, AppendedMessage, Effort, Timer, TimerIndex};
use tracing::error;

use super::carry_progress::{CarryProgress, CopyUnderWay};
use super::turn_error::TurnError;
use super::{QUEUE, TimerDelivery, WHAT};
use crate::missing;

/// Messages of the queue that are looked at before what is due gets its turn, and about how many bytes of them are stored.
const TURN: usize = 500;
const TURN_BYTES: usize = 4 << 20;

impl TimerDelivery {
    /// Stores again, a turn of them, what waits in the part of the log that is to go. True when there is more to do right now. Nothing is
    /// entered while `is_stuck`, and nothing delivered: then what was not entered is stored again too.
    pub(super) fn carry(
        &self,
        index: &mut TimerIndex,
        progress: &mut CarryProgress,
        is_stuck: bool,
    ) -> Result<bool, AppendError> {
        let Some(end) = self.carrying.wanted() else { return Ok(false) };
        // Their arrival wakes this thread.
        if progress.under_way.is_some() && !is_stuck {
            return Ok(false);
        }
        let more = match self.carry_before(end, index, progress, is_stuck) {
            Err(TurnError::Append(error @ AppendError::Closed)) => return Err(error),
            Err(error) => {
                self.carrying.failed(&error);
                false
            }
            Ok(more) => more,
        };
        self.carrying.turn_ends();
        Ok(more)
    }

    fn carry_before(
        &self,
        end: PhysicalOffset,
        index: &mut TimerIndex,
        progress: &mut CarryProgress,
        is_stuck: bool,
    ) -> Result<bool, TurnError> {
        // First: what comes meanwhile is behind it.
        let dispatched = self.store.watermarks().projected;
        let bounds = self.store.queue_bounds(TIMER_TOPIC, QUEUE).unwrap_or_default();
        let mut next = index.carried().max(bounds.min);
        // What is late and cannot be delivered for want of room would hold the room that it waits for.
        let known_end = if is_stuck { bounds.max } else { index.entered() };
        let last = known_end.min(QueueOffset(next.0.saturating_add(TURN as u64)));
        // Up to where nothing is needed once all of this is done.
        let mut free = None;
        let mut timers = Vec::new();
        while next < last && free.is_none() {
            let entry = missing::look_up_entry(&self.store, WHAT, TIMER_TOPIC, QUEUE, next);
            match entry.map_err(missing::not_now)? {
                Some(entry) if entry.physical >= end => free = Some(entry.physical),
                Some(entry) => {
                    let timer = self.timer_in(next, entry.physical)?;
                    timers
                        .extend(timer.filter(|timer| !self.java.has_delivered(timer) && !index.was_dealt_with(timer)));
                    next = next.next();
                }
                None => next = next.next(),
            }
        }
        if next >= bounds.max {
            free = Some(dispatched);
        } else if free.is_none() && next >= known_end {
            // What is not entered yet needs the log from there on.
            let entry = self.store.queue_entry(TIMER_TOPIC, QUEUE, next, Effort::Full).ok().flatten();
            free = entry.map(|entry| entry.physical).filter(|physical| *physical >= end);
        }
        let entered = timers.partition_point(|timer| timer.offset < index.entered());
        let mut waiting = index.waiting(&timers[..entered])?;
        waiting.extend(&timers[entered..]);
        let mut bytes = 0;
        for (at, timer) in waiting.iter().enumerate() {
            if bytes >= TURN_BYTES {
                index.carry(&waiting[..at], timer.offset);
                return Ok(false);
            }
            // Those before it are where they are now.
            let copy = self.store_again(timer).inspect_err(|_| index.carry(&waiting[..at], timer.offset))?;
            let Some(copy) = copy else { continue };
            bytes += copy.record_len;
            let earliest_ms = progress.under_way.map_or(timer.due_ms, |copies| copies.earliest_ms.min(timer.due_ms));
            progress.under_way = Some(CopyUnderWay { end: copy.queue_offset.next(), earliest_ms });
        }
        index.carry(&waiting, next);
        progress.done = free.map(|free| (next, free));
        Ok(free.is_none() && progress.under_way.is_none() && next < known_end)
    }

    /// Tells how much of the log is not needed any more, as far as that is saved.
    pub(super) fn tell_free(&self, index: &TimerIndex, progress: &mut CarryProgress) {
        if let Some((_, free)) = progress.done.take_if(|(carried, _)| *carried <= index.saved().carried) {
            self.carrying.free_up_to(free);
            self.store.go_on_with_retention();
        }
    }

    /// Stores a message again behind the others; `None` when there is nothing that could be, now or ever.
    fn store_again(&self, timer: &Timer) -> Result<Option<AppendedMessage>, AppendError> {
        let stored = self.with_record(timer.offset, |record| {
            let mut properties = Properties::parse(&record.properties());
            let rolled: u32 =
                properties.value(names::TIMER_ROLL_TIMES).and_then(|times| times.parse().ok()).unwrap_or(0);
            properties.set(names::TIMER_ROLL_TIMES, rolled.saturating_add(1));
            match self.append_carried(record, properties.as_str()) {
                // Its properties were at the limit: they stay as they are.
                Err(error) if error.is_of_the_message() => self.append_carried(record, &record.properties()),
                stored => stored,
            }
        })?;
        match stored.transpose() {
            Err(error) if error.is_of_the_message() => {
                error!(queue_offset = %timer.offset, %error, "a timer message cannot be stored again before its segment goes, and is left out");
                Ok(None)
            }
            stored => stored,
        }
    }

    fn append_carried(&self, record: &Record<'_>, properties: &str) -> Result<AppendedMessage, AppendError> {
        self.store.append_carried(&NewMessage::copy_of(record, TIMER_TOPIC, QUEUE, properties))
    }
}

#[cfg(test)]
#[path = "carrying_test.rs"]
mod tests;
