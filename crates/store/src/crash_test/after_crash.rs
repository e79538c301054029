//! What a crash leaves: opened, and held against what was promised before it.

use std::path::PathBuf;
use std::sync::Arc;

use ferromq_protocol::message::Record;
use ferromq_protocol::topics::TIMER_TOPIC as TIMERS;
use ferromq_protocol::{PhysicalOffset, QueueId};

use super::history::{History, Known, Put, QUEUES, TOPICS, ends_with_zero, key, properties};
use super::machine::{Mode, Moment, Place, dir_in_memory};
use super::run::Run;
use crate::check::{CheckError, Finding, check};
use crate::checkpoint::Checkpoint;
use crate::disk::LocalDisk;
use crate::inventory::Inventory;
use crate::scripted_disk::{Dice, Fate, tree_of, write_tree};
use crate::store::Store;
use crate::table_change::deleted_topic;
use crate::testing::{query_bodies, read_bodies};
use crate::walk::record_at;

/// What a crash has left.
pub struct AfterCrash {
    pub place: Place,
    pub history: History,
    /// The log is there up to here: the machine went on.
    there: u64,
    /// A call had failed before it.
    has_failed: bool,
}

impl AfterCrash {
    /// After a power cut at that moment.
    pub fn by_power_cut(moment: &Moment, mode: Mode, dice: &mut Dice) -> AfterCrash {
        // From hardly anything to nearly everything.
        let lost_of_16 = 1 + dice.below(15);
        let mut losses = Dice::new(dice.roll());
        let tears = (!dice.one_in(3)).then(|| Dice::new(dice.roll()));
        let tree = moment.image.after_power_cut(&mut Fate { lost: &mut || losses.below(16) < lost_of_16, tears });
        let place = Place::new(mode, moment.now_ms, moment.power_losses + 1);
        write_tree(&place.disk_root(), &tree);
        place.disk.all_is_synced(&place.disk_root());
        place.disk.files_are_known_as_in(&moment.image, &place.disk_root());
        AfterCrash { place, history: moment.history.clone(), there: 0, has_failed: moment.has_failed }
    }

    /// After a kill: what was written to the files is there, on the disk or not. A message whose last byte is a zero may have been torn, if
    /// nothing was promised of it: the log may end there.
    pub fn by_kill(run: Run) -> AfterCrash {
        let committed = run.committed();
        let Run { place, history, store, timers, .. } = run;
        drop((store, timers));
        let has_failed = place.disk.has_failed();
        place.disk.restart();
        let history = history.lock().clone();
        let may_go = |known: &Known| match &known.put {
            Put::Message { topic, body, .. } => *topic != TIMERS && ends_with_zero(body),
            Put::Deletion { .. } => false,
        };
        let is_there = |known: &&Arc<Known>| known.end <= committed && (known.end <= history.safe || !may_go(known));
        let there = history.puts.iter().take_while(is_there).last().map_or(0, |known| known.end);
        AfterCrash { place, history, there, has_failed }
    }

    /// The same, and what a sync could not write goes from memory at any time from then on. Only what was promised is sure to be there.
    pub fn by_kill_and_forgetting(run: Run, dice: &mut Dice) -> AfterCrash {
        let left = AfterCrash::by_kill(run);
        left.place.disk.forget_pages(Dice::new(dice.roll()));
        AfterCrash { there: 0, ..left }
    }

    /// What is said of the files before they are opened. A crash leaves no fault in them.
    fn check_files(&self) {
        check_files(self.place.root());
        let path = self.place.root().join("checkpoint");
        let is_whole = path.metadata().is_ok_and(|found| found.len() == 4096);
        let checkpoint = is_whole.then(|| Checkpoint::open(path).unwrap());
        if let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.inventory().is_some()) {
            let inventory = Inventory::open(&LocalDisk, &self.place.root(), &checkpoint).unwrap();
            assert!(!inventory.is_lost(), "the list of queues is lost, and all of the log is read");
        }
    }

    /// Opens it and holds it against the history, which then knows what is left. Crashes on the way a few times, if the dice say so.
    pub fn check(mut self, dice: &mut Dice) -> Run {
        if !self.has_failed {
            self.check_files();
        }
        while dice.one_in(4) {
            // Once more before the open has come to its end.
            let mut run = Run::new(self.place, self.history, 0);
            let stopped = run.stop_after(dice.below(40));
            run.open();
            let moment = stopped.lock().take().unwrap_or_else(|| run.moment());
            let (mode, has_failed) = (run.place.mode, self.has_failed);
            drop(run);
            self = AfterCrash::by_power_cut(&moment, mode, dice);
            self.has_failed |= has_failed;
            if !self.has_failed {
                self.check_files();
            }
        }
        self.history.safe = self.history.safe.max(self.there);
        let mut run = Run::new(self.place, self.history, dice.roll());
        assert!(run.open(), "it does not open");
        run.settle();
        run.check_log();
        let history = run.history.lock().clone();
        check_queues(run.store(), &history);
        check_index(run.store(), &history);
        run.check_timers();
        let copy = tempfile::tempdir_in(dir_in_memory()).unwrap();
        write_tree(copy.path(), &tree_of(&run.place.root()));
        check_files(copy.path().to_owned());
        run
    }
}

impl Run {
    /// The log has what was promised, in order, and nothing else.
    fn check_log(&self) {
        let found = log_of(self.store());
        let marks = self.store().watermarks();
        let mut history = self.history.lock();
        let at_most = history.min_at_most.max(history.min);
        assert!(
            marks.min.0 >= history.min && marks.min.0 <= at_most,
            "the log begins at {:?}, not at {}..{at_most}",
            marks.min,
            history.min
        );
        history.min = marks.min.0;
        history.min_at_most = marks.min.0;
        let from = history.puts.partition_point(|known| known.end <= history.min);
        let mut kept = from;
        let mut pending = std::mem::take(&mut history.pending).into_iter();
        for (put, end) in found {
            if let Some(known) = history.puts.get(kept) {
                assert_eq!(known.put, put, "something else than what was put there");
                kept += 1;
                continue;
            }
            let known = pending.next();
            let same = match (&known, &put) {
                (
                    Some(Put::Message { topic, queue, offset, body, .. }),
                    Put::Message { topic: t, queue: q, offset: o, body: b, .. },
                ) => (topic, queue, offset, body) == (t, q, o, b),
                (known, put) => known.as_ref() == Some(put),
            };
            assert!(same, "invented: {put:?}, which may be {known:?}");
            history.puts.push(Arc::new(Known { put, end }));
            kept += 1;
        }
        if let Some(lost) = history.puts.get(kept) {
            assert!(lost.end > history.safe, "lost: {lost:?}, and all up to {} was safe", history.safe);
        }
        history.puts.truncate(kept);
        history.safe = marks.written.0;
    }
}

/// All of the log, in order, with where each record ends.
fn log_of(store: &Store) -> Vec<(Put, u64)> {
    let marks = store.watermarks();
    let mut found = Vec::new();
    let mut at = marks.min.0;
    while at < marks.written.0 {
        let bytes = store.raw_from(PhysicalOffset(at), usize::MAX).unwrap().expect("the log has no gaps");
        let mut read = 0;
        while read < bytes.len() {
            let physical = at + read as u64;
            let parsed = record_at(&bytes[read..], physical).unwrap_or_else(|error| panic!("at {physical}: {error:?}"));
            let ferromq_protocol::message::record::ParsedRecord::Record(record) = parsed else {
                read = bytes.len();
                break;
            };
            record.check_crc().unwrap();
            read += record.record_len();
            found.push((put_of(&record), at + read as u64));
        }
        at += read as u64;
    }
    found
}

fn put_of(record: &Record<'_>) -> Put {
    if let Some(topic) = deleted_topic(record) {
        return Put::Deletion { topic };
    }
    let topic = TOPICS.into_iter().chain([TIMERS]).find(|topic| *topic == record.topic()).expect("one of the topics");
    assert_eq!(record.properties(), properties(topic, record.body()), "a message with other properties");
    Put::Message {
        topic,
        queue: record.queue_id().0,
        offset: record.sys_flag().is_visible().then_some(record.queue_offset().0),
        physical: record.physical_offset().0,
        body: record.body().to_vec(),
    }
}

/// `storeCheck` finds no fault.
fn check_files(root: PathBuf) {
    let (mut told, mut is_right) = (Vec::new(), true);
    let mut note = |finding: &Finding| {
        // Nobody here carries timers on before their segment goes; and the zero of a message may be alone in its page.
        let is_known = ["has gone from the log", "a page of its properties is lost"].iter();
        is_right &= !finding.is_fault || is_known.into_iter().any(|known| finding.what.ends_with(known));
        told.push(finding.to_string());
    };
    match check(&Place::check_config(root), &mut note) {
        // Before anything was made.
        Ok(_) | Err(CheckError::NoStore { .. }) => {}
        Err(error) => panic!("nothing can be said of the files: {error}"),
    }
    assert!(is_right, "the check says: {told:#?}");
}

/// What consumers see is what the history has, queue by queue.
pub fn check_queues(store: &Store, history: &History) {
    let expected = history.queues();
    let queues = TOPICS.into_iter().flat_map(|topic| (0..QUEUES).map(move |queue| (topic, queue))).chain([(TIMERS, 0)]);
    for (topic, queue) in queues {
        let (next, there) = expected.get(&(topic, queue)).cloned().unwrap_or_default();
        let found = read_bodies(store, topic, queue, 0);
        let found: Vec<_> = found.iter().map(|(offset, body)| (*offset, body.as_slice())).collect();
        let short =
            |bodies: &[(u64, &[u8])]| bodies.iter().map(|(offset, body)| (*offset, key(body))).collect::<Vec<_>>();
        assert!(found == there, "{topic}/{queue} has {:?}, and should have {:?}", short(&found), short(&there));
        let (min, max) =
            store.queue_bounds(topic, QueueId(queue)).map_or((0, 0), |bounds| (bounds.min.0, bounds.max.0));
        assert_eq!(max, next, "the next offset of {topic}/{queue}");
        assert_eq!(min, there.first().map_or(next, |(first, _)| *first), "where {topic}/{queue} begins");
    }
}

/// Each message that the log has is found by its keys, and no other.
fn check_index(store: &Store, history: &History) {
    for known in history.puts.iter().rev() {
        let Put::Message { topic, body, .. } = &known.put else { continue };
        let key = key(body);
        for key in [key.clone(), format!("k{key}")] {
            let found = query_bodies(store, topic, &key);
            if known.end > history.min {
                assert!(found == std::slice::from_ref(body), "{} messages by the key {key}", found.len());
            } else {
                assert!(found.is_empty(), "by the key {key} of a message that is gone");
            }
        }
    }
}
