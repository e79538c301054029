//! What is saved of the timers, and when: never more than what the log has on disk.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ferromq_protocol::topics::TIMER_TOPIC;
use ferromq_store::{AppendError, TimerCheckpoint, TimerIndex, TimerSave, TimerSaveError, Want};

use super::carry_progress::CarryProgress;
use super::turn_error::TurnError;
use super::{QUEUE, TimerDelivery};
use crate::save_after_flush::SaveAfterFlush;
use crate::worker::Bell;

/// How often the index is saved.
pub(super) struct SavePeriods {
    /// While messages are delivered: those since then are delivered again if the broker is killed.
    pub delivered: Duration,
    /// Otherwise: those since then are only entered again.
    pub entered: Duration,
}

/// Between two tries to make files anew of which a failed sync has left in doubt what is on the disk: each reads all that waits.
const RENEWAL_PAUSE: Range<Duration> = Duration::from_secs(1)..Duration::from_secs(60);

/// How often the index is saved while a segment of the log is held up and what waits in it is carried on.
const HELD_UP: Duration = Duration::from_millis(200);

impl Default for SavePeriods {
    fn default() -> SavePeriods {
        SavePeriods { delivered: Duration::from_secs(1), entered: Duration::from_secs(5) }
    }
}

/// What is saved of the index, and when. A thread of its own waits for the disk, so that no delivery does.
pub(super) struct IndexSaver {
    last: Instant,
    next: SaveAfterFlush<TimerCheckpoint>,
    running: Option<RunningSave>,
    /// The log tells of the first failure in a row.
    pub failing: bool,
    /// When files that are in doubt were tried to be made anew, and how long that is not tried again.
    renewed: Instant,
    pause: Duration,
}

struct RunningSave {
    save: Arc<TimerSave>,
    /// It has all but ended.
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), TimerSaveError>>,
}

/// Tells of the end of a save, whatever it comes to.
struct SaveEnd {
    is_over: Arc<AtomicBool>,
    bell: Arc<Bell>,
}

impl Drop for SaveEnd {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.bell.wake();
    }
}

impl IndexSaver {
    pub fn new() -> IndexSaver {
        IndexSaver {
            last: Instant::now(),
            next: SaveAfterFlush::default(),
            running: None,
            failing: false,
            renewed: Instant::now(),
            pause: Duration::ZERO,
        }
    }

    /// Wakes `bell` when it is over.
    fn begin(&mut self, index: &mut TimerIndex, checkpoint: TimerCheckpoint, bell: &Arc<Bell>) -> io::Result<()> {
        // One that fails right here is not tried again sooner either.
        self.last = Instant::now();
        let save = Arc::new(index.begin_save(checkpoint)?);
        let is_over = Arc::<AtomicBool>::default();
        let end = SaveEnd { is_over: Arc::clone(&is_over), bell: Arc::clone(bell) };
        let running = Arc::clone(&save);
        let run = move || {
            let _end = end;
            running.run()
        };
        match std::thread::Builder::new().name("timers-save".into()).spawn(run) {
            Ok(thread) => self.running = Some(RunningSave { save, is_over, thread }),
            Err(error) => index.end_save(&save, Err(error.into()))?,
        }
        Ok(())
    }

    /// Takes over what has come of a save.
    pub fn end(&mut self, index: &mut TimerIndex, wait: bool) -> io::Result<()> {
        let is_over = |run: &mut RunningSave| wait || run.is_over.load(Ordering::Acquire);
        let Some(RunningSave { save, thread, .. }) = self.running.take_if(is_over) else { return Ok(()) };
        let outcome =
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that saves has panicked").into()));
        index.end_save(&save, outcome)?;
        if !index.is_in_doubt() {
            self.failing = false;
            self.pause = Duration::ZERO;
        }
        Ok(())
    }
}

impl TimerDelivery {
    /// Not while taking over from Java: interrupted then, that begins anew.
    pub(super) fn may_be_saved(&self, index: &TimerIndex) -> bool {
        index.entered() >= self.java.queue_offset
    }

    /// Makes the index durable as far as the delivered copies are on disk.
    pub(super) fn save(
        &self,
        index: &mut TimerIndex,
        saving: &mut IndexSaver,
        carried: &CarryProgress,
        bell: &Arc<Bell>,
    ) -> io::Result<()> {
        if !self.may_be_saved(index) {
            return Ok(());
        }
        let marks = self.store.watermarks();
        saving.end(index, false)?;
        // How far the queue is carried on is saved whatever becomes of this: it may need the room that comes of it.
        let renewed =
            if index.is_in_doubt() && saving.running.is_none() { self.renew(index, saving, bell) } else { Ok(()) };
        if saving.running.is_none()
            && let Some(checkpoint) = saving.next.take_flushed(marks.flushed)
        {
            saving.begin(index, checkpoint, bell)?;
        }
        let (now, saved) = (index.checkpoint(), index.saved());
        let SavePeriods { delivered, entered } = &self.save_periods;
        let period = if now.delivered_ms == saved.delivered_ms { *entered } else { *delivered };
        let period = if now.carried == saved.carried {
            period
        } else if carried.is_done() {
            // A segment waits for nothing but this.
            Duration::ZERO
        } else {
            period.min(HELD_UP)
        };
        if !saving.next.is_waiting() && saving.running.is_none() && !index.is_saved() && saving.last.elapsed() >= period
        {
            saving.next.wait_for(marks.written, now);
            let bell = Arc::clone(bell);
            self.store.when_safe(marks.written, Want::Disk, move |_| bell.wake());
        }
        renewed
    }

    /// Makes files anew that are in doubt, out of the queue; until then a start enters again all that waits. Waits for the disk.
    fn renew(&self, index: &mut TimerIndex, saving: &mut IndexSaver, bell: &Bell) -> io::Result<()> {
        if saving.renewed.elapsed() < saving.pause {
            return Ok(());
        }
        let began = Instant::now();
        let begin = self.store.queue_bounds(TIMER_TOPIC, QUEUE).unwrap_or_default().min;
        let renewed = index.renew(begin, |offset| {
            if bell.is_stopping() {
                return Err(TurnError::from(AppendError::Closed));
            }
            Ok(self.timer_at(offset)?.filter(|timer| !self.java.has_delivered(timer)))
        });
        // Also when it succeeds: the disk may fail the save that comes next, which makes an end of the pause otherwise.
        saving.pause = (saving.pause * 2).max(began.elapsed()).clamp(RENEWAL_PAUSE.start, RENEWAL_PAUSE.end);
        saving.renewed = Instant::now();
        renewed.map_err(|error| match error {
            TurnError::Index(error) => error,
            error => io::Error::other(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timers::house::House;
    use ferromq_protocol::QueueOffset;
    use ferromq_store::{LocalDisk, StoreId, Timer};

    const STORE: StoreId = StoreId(7);

    #[test]
    fn a_save_that_cannot_begin_is_not_tried_again_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = TimerIndex::open(Arc::new(LocalDisk), dir.path().into(), STORE, 0).unwrap();
        index.enter(Some(Timer { due_ms: 1, offset: QueueOffset(0), cancels: false }));
        let checkpoint = index.checkpoint();
        dir.close().unwrap();
        let before = Instant::now();
        let mut saving = IndexSaver { last: before, ..IndexSaver::new() };
        saving.begin(&mut index, checkpoint, &Arc::default()).unwrap_err();
        assert!(saving.last > before && saving.running.is_none());
    }

    #[test]
    fn the_end_of_a_save_is_noticed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = TimerIndex::open(Arc::new(LocalDisk), dir.path().into(), STORE, 0).unwrap();
        index.skip_to(QueueOffset(7));
        let (mut saving, bell, checkpoint) = (IndexSaver::new(), Arc::<Bell>::default(), index.checkpoint());
        assert!(bell.begins());
        saving.begin(&mut index, checkpoint, &bell).unwrap();
        // Nobody else wakes it.
        bell.sleep(i64::MAX, None);
        saving.end(&mut index, false).unwrap();
        assert_eq!((saving.running.is_none(), index.saved()), (true, checkpoint));
    }

    #[test]
    fn files_in_doubt_are_made_anew_again_after_a_pause_unless_a_save_has_come_between() {
        let house = House::asleep();
        for _ in 0..2 {
            house.at(3_600_000, "Hour", "");
        }
        house.wait_for(TIMER_TOPIC, 0, 2);
        let delivery = &house.timers.delivery;
        let mut index = delivery.index.lock().take().unwrap();
        let mut saving = IndexSaver::new();
        let bell = Bell::default();
        let fail = |index: &mut TimerIndex| {
            let timer = delivery.timer_at(index.entered()).unwrap();
            index.enter(timer);
            let save = index.begin_save(index.checkpoint()).unwrap();
            index.end_save(&save, Err(TimerSaveError::Sync(io::Error::other("bad block")))).unwrap_err();
        };
        fail(&mut index);
        delivery.renew(&mut index, &mut saving, &bell).unwrap();
        assert!(!index.is_in_doubt() && saving.pause == RENEWAL_PAUSE.start);
        fail(&mut index);
        let renewed = saving.renewed;
        delivery.renew(&mut index, &mut saving, &bell).unwrap();
        assert!(index.is_in_doubt() && saving.renewed == renewed || renewed.elapsed() >= RENEWAL_PAUSE.start);
        // Of how far it is alone.
        let checkpoint = index.checkpoint();
        saving.begin(&mut index, checkpoint, &Arc::default()).unwrap();
        saving.end(&mut index, true).unwrap();
        assert_eq!(saving.pause, RENEWAL_PAUSE.start);
        saving.pause = Duration::ZERO;
        delivery.renew(&mut index, &mut saving, &bell).unwrap();
        saving.begin(&mut index, checkpoint, &Arc::default()).unwrap();
        saving.end(&mut index, true).unwrap();
        assert_eq!((index.is_in_doubt(), saving.pause), (false, Duration::ZERO));
    }
}
