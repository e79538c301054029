//! What a crash leaves: opened, and held against what was promised before it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ferromq_protocol::message::Record;
use ferromq_protocol::topics::TRANSACTION_OP_HALF_TOPIC as OPS;
use ferromq_protocol::{PhysicalOffset, QueueId};

use super::history::{History, Known, Put, SYSTEM_TOPICS, TOPICS, ends_with_zero, key, properties, queues};
use super::machine::{Mode, Moment, Place, dir_in_memory};
use super::run::Run;
use super::transactions::check_transactions;
use crate::check::{CheckError, Finding, check};
use crate::checkpoint::Checkpoint;
use crate::disk::LocalDisk;
use crate::inventory::Inventory;
use crate::scripted_disk::{Dice, Fate, tree_of, write_tree};
use crate::store::Store;
use crate::table_change::deleted_topic;
use crate::testing::{TraceLog, query_bodies, read_bodies, read_whole_bodies};
use crate::walk::record_at;

/// What a crash has left.
pub struct AfterCrash {
    pub place: Place,
    pub history: History,
    /// The log is there up to here: the machine went on.
    pub there: u64,
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
    /// nothing was promised of it: the log may end there. After a failed sync a start believes no more than after a power cut.
    pub fn by_kill(run: Run) -> AfterCrash {
        AfterCrash::killed(run).0
    }

    /// And whether the next start knows of a sync that has failed: a process that ended on its way from there to the note of it leaves nobody
    /// who does.
    fn killed(run: Run) -> (AfterCrash, bool) {
        let committed = run.committed();
        let distrusts = run.store.as_ref().is_some_and(|store| store.health.is_poisoned());
        let Run { place, history, store, timers, .. } = run;
        drop((store, timers));
        let has_failed = place.disk.has_failed();
        let is_noted = !place.disk.is_dead() || place.says_distrust();
        place.disk.restart();
        let history = history.lock().clone();
        let may_go = |known: &Known| match &known.put {
            Put::Message { topic, body, .. } => ends_with_zero(topic, body),
            Put::Deletion { .. } => false,
        };
        let stays = history.truncated_to.unwrap_or(u64::MAX);
        let is_there = |known: &&Arc<Known>| {
            known.end <= committed.min(stays) && (known.end <= history.safe || !(distrusts || may_go(known)))
        };
        let there = history.puts.iter().take_while(is_there).last().map_or(0, |known| known.end);
        (AfterCrash { place, history, there, has_failed }, is_noted)
    }

    /// The same, and what a sync could not write goes from memory at any time from then on. Only what was promised is sure to be there.
    pub fn by_kill_and_forgetting(run: Run, dice: &mut Dice) -> AfterCrash {
        let (left, is_noted) = AfterCrash::killed(run);
        if is_noted {
            left.place.disk.forget_pages(Dice::new(dice.roll()));
        }
        AfterCrash { there: 0, ..left }
    }

    /// What is said of the files before they are opened. A crash leaves no fault in them.
    fn check_files(&self) {
        if self.has_failed || self.history.rot.has_any {
            return;
        }
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
        let log = SaidAtFailure(TraceLog::default());
        let log = &log.0;
        self.check_files();
        // Once more before the open has come to its end. Not with a power cut when a bit in the checkpoint has flipped: nobody says then how
        // far the log is on the disk, and what is whole behind a page that was lost is kept.
        while !self.history.rot.has_no_checkpoint && dice.one_in(4) {
            let mut run = Run::new(self.place, self.history, 0);
            let stopped = run.stop_after(dice.below(40));
            log.capture(|| run.open());
            let moment = stopped.lock().take().unwrap_or_else(|| run.moment());
            let (mode, has_failed) = (run.place.mode, self.has_failed);
            drop(run);
            self = AfterCrash::by_power_cut(&moment, mode, dice);
            self.has_failed |= has_failed;
            self.check_files();
        }
        self.history.safe = self.history.safe.max(self.there);
        let mut run = Run::new(self.place, self.history, dice.roll());
        log.capture(|| {
            assert!(run.open(), "it does not open");
            run.settle();
            run.check_log();
            for (topic, queue) in queues() {
                let bounds = run.store().queue_bounds(topic, QueueId(queue)).unwrap_or_default();
                run.history.lock().queue_ends(topic, queue, bounds.max.0);
            }
            let history = run.history.lock().clone();
            check_queues(run.store(), &history);
            let hidden = check_index(run.store(), &history);
            let there = |topic, queue, offset| {
                read_queue(run.store(), &history, topic, queue).iter().any(|(at, _)| *at == offset)
            };
            run.history.lock().check_named(&log.text(), run.store().watermarks().written.0, there);
            check_transactions(run.store(), &history);
            run.check_timers();
            if hidden {
                // The next start makes it good.
                run.store().close().unwrap();
                run.store = None;
                assert!(run.open(), "it does not open again");
                run.settle();
                assert!(
                    !check_index(run.store(), &history),
                    "what is not found by its keys is not found after a start"
                );
            }
        });
        run.history.lock().rot.has_no_checkpoint = false;
        if !run.history.lock().rot.has_any {
            let copy = tempfile::tempdir_in(dir_in_memory()).unwrap();
            write_tree(copy.path(), &tree_of(&run.place.root()));
            check_files(copy.path().to_owned());
        }
        run
    }
}

/// What was said until then, if a check fails.
struct SaidAtFailure(TraceLog);

impl Drop for SaidAtFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("said:\n{}", self.0.text());
        }
    }
}

impl Run {
    /// The log has what was promised, in order, and nothing else.
    fn check_log(&self) {
        let marks = self.store().watermarks();
        let mut history = self.history.lock();
        history.rot.log_ends(marks.written.0);
        let found = log_of(self.store(), &history);
        let at_most = history.min_at_most.max(history.min);
        assert!(
            (marks.min.0 >= history.min || history.rot.has_no_checkpoint) && marks.min.0 <= at_most,
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
            let Some(put) = put else {
                kept += usize::from(history.puts.get(kept).is_some_and(|known| known.end == end));
                continue;
            };
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
        if let Some(lost) = history.puts[kept.min(history.puts.len())..]
            .iter()
            .find(|lost| lost.end <= history.safe && !history.may_be_lost(lost))
        {
            panic!("lost: {lost:?}, and all up to {} was safe", history.safe);
        }
        history.puts.truncate(kept);
        history.nobody_vouches();
        history.truncated_to = None;
        history.safe = marks.written.0;
    }
}

/// All of the log, in order, with where each record ends; nothing is told of one that has a bit that flipped.
fn log_of(store: &Store, history: &History) -> Vec<(Option<Put>, u64)> {
    let marks = store.watermarks();
    let mut found = Vec::new();
    let mut at = marks.min.0;
    while at < marks.written.0 {
        let bytes = store.raw_from(PhysicalOffset(at), usize::MAX).unwrap().expect("the log has no gaps");
        let mut read = 0;
        while read < bytes.len() {
            let physical = at + read as u64;
            if let Some(end) = history.rotten_end(physical) {
                read = bytes.len().min(usize::try_from(end - at).unwrap());
                found.push((None, end));
                continue;
            }
            let parsed = record_at(&bytes[read..], physical).unwrap_or_else(|error| panic!("at {physical}: {error:?}"));
            let ferromq_protocol::message::record::ParsedRecord::Record(record) = parsed else {
                read = bytes.len();
                break;
            };
            record.check_crc().unwrap();
            read += record.record_len();
            found.push((Some(put_of(&record)), at + read as u64));
        }
        at += read as u64;
    }
    found
}

fn put_of(record: &Record<'_>) -> Put {
    if let Some(topic) = deleted_topic(record) {
        return Put::Deletion { topic };
    }
    let topic =
        TOPICS.into_iter().chain(SYSTEM_TOPICS).find(|topic| *topic == record.topic()).expect("one of the topics");
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
pub fn check_files(root: PathBuf) {
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

/// What a queue shows. Nothing of it may be damaged, unless bits have flipped.
fn read_queue(store: &Store, history: &History, topic: &str, queue: u32) -> Vec<(u64, Vec<u8>)> {
    let read = if history.rot.has_any { read_whole_bodies } else { read_bodies };
    read(store, topic, queue, 0)
}

/// What consumers see is what the history has, queue by queue.
pub fn check_queues(store: &Store, history: &History) {
    let (expected, rotten) = (history.queues(), history.rotten_places());
    for (topic, queue) in queues() {
        let (next, mut there) = expected.get(&(topic, queue)).cloned().unwrap_or_default();
        let first = there.first().map_or(next, |(first, _)| *first);
        let found = read_queue(store, history, topic, queue);
        let mut found: Vec<_> = found.iter().map(|(offset, body)| (*offset, body.as_slice())).collect();
        let is_promised = |(offset, _): &(u64, &[u8])| !rotten.contains(&(topic, queue, *offset));
        there.retain(is_promised);
        found.retain(is_promised);
        let short =
            |bodies: &[(u64, &[u8])]| bodies.iter().map(|(offset, body)| (*offset, key(body))).collect::<Vec<_>>();
        assert!(found == there, "{topic}/{queue} has {:?}, and should have {:?}", short(&found), short(&there));
        let (min, max) =
            store.queue_bounds(topic, QueueId(queue)).map_or((0, 0), |bounds| (bounds.min.0, bounds.max.0));
        assert_eq!(max, next, "the next offset of {topic}/{queue}");
        // Of one that cannot be read the place may be unknown.
        let first = if history.rot.has_entry { first.min(min) } else { first };
        let may_begin = first..=there.first().map_or(next, |(first, _)| *first);
        assert!(may_begin.contains(&min), "{topic}/{queue} begins at {min}, and should at {may_begin:?}");
    }
}

/// Each message that the log has is found by its keys, and no other. True if some are not found until the next start, for bits that have
/// flipped.
fn check_index(store: &Store, history: &History) -> bool {
    let mut hidden = false;
    // No checksum covers their keys.
    let rotten: Vec<_> = history.puts.iter().filter(|known| history.rot.has_record(known)).collect();
    let is_rotten = |topic: &str, body: &[u8]| {
        let is_it = |put: &Put| matches!(put, Put::Message { topic: of, body: its, .. } if *of == topic && key(its) == key(body));
        rotten.iter().any(|known| is_it(&known.put))
    };
    // What was committed again after a crash is there twice.
    let mut counts = BTreeMap::<_, usize>::new();
    for known in history.puts.iter().filter(|known| known.end > history.min && !history.rot.has_record(known)) {
        if let Put::Message { topic, body, .. } = &known.put {
            *counts.entry((*topic, body)).or_default() += 1;
        }
    }
    for known in history.puts.iter().rev().filter(|known| !history.rot.has_record(known)) {
        let Put::Message { topic, body, .. } = &known.put else { continue };
        if *topic == OPS {
            continue;
        }
        let count = counts.get(&(*topic, body)).copied().unwrap_or_default();
        let key = key(body);
        for key in [key.clone(), format!("k{key}")] {
            let mut found = query_bodies(store, topic, &key);
            found.retain(|found| !is_rotten(topic, found));
            if count > 0 {
                if found.len() == count && found.iter().all(|found| found == body)
                    || found.len() < count && history.rot.may_hide_keys_of(known)
                {
                    continue;
                }
                let is_known =
                    store.index.as_ref().is_some_and(|index| index.extents().iter().any(|file| file.next == u32::MAX));
                assert!(
                    found.len() < count && history.rot.has_any && is_known,
                    "{} messages by the key {key} of {known:?}",
                    found.len()
                );
                hidden = true;
            } else {
                assert!(found.is_empty(), "by the key {key} of a message that is gone");
            }
        }
    }
    hidden
}
