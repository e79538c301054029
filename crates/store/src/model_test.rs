//! A store against a plain list: random appends, batches, clean stops, kills, damaged tails, power losses.

use std::collections::BTreeMap;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use ferromq_protocol::message::{NewMessage, Record, SysFlag};
use ferromq_protocol::{PhysicalOffset, QueueOffset};
use proptest::prelude::*;

use super::*;
use crate::Effort;
use crate::WritePoolConfig;
use crate::Writer;
use crate::check;
use crate::disk::{Disk, LocalDisk};
use crate::retention::Progress;
use crate::retention_rules::RetentionRules;
use crate::scripted_disk::ScriptedDisk;
use crate::testing::*;

#[derive(Clone, Debug)]
enum Step {
    Append {
        queue: u32,
        len: usize,
    },
    Batch {
        queue: u32,
        lens: Vec<usize>,
    },
    Half,
    /// Messages that another broker has appended.
    Copy {
        queue: u32,
        lens: Vec<usize>,
        piece: usize,
    },
    Read {
        queue: u32,
    },
    Query,
    Close,
    Kill,
    /// A kill, and garbage where the next record would go.
    KillWithGarbage {
        garbage: Vec<u8>,
    },
    /// A kill that takes the last record's end with it, if nothing says that it was on the disk.
    Tear,
    /// A bit of a body changes on the disk, of something that was known to be there; then a kill.
    Damage {
        pick: usize,
    },
    /// A kill after which any page, file or removal that was not synced is lost, each by itself: of log, queues, index and
    /// checkpoint.
    PowerLoss {
        seed: u64,
        /// Of sixteen.
        lost: u64,
    },
    /// The topic goes; what comes next to it begins at offset 0.
    Delete,
    /// The last messages are taken back, so many of them, as far as the topic was not deleted since.
    Truncate {
        count: usize,
        /// To where the next one began, though that be in the next segment.
        behind_filler: bool,
    },
    /// All of it is given up, and the log begins anew with this segment.
    Restart {
        segment: u64,
    },
    /// Queues, index and checkpoint get to the disk, as they do now and then.
    Upkeep,
    /// What is in the write pool gets to the log's files, or whole pages of it.
    Commit {
        all: bool,
    },
    /// The log gets there ...
    Flush,
    /// ... up to somewhere in a record, as while it grows; and the checkpoint says so.
    FlushWholeChunks,
    /// Somebody sets the clock back.
    ClockBack,
    /// A clean stop, after which somebody removes the consume queues.
    LoseQueues,
    /// The oldest segments go, as many as may, until so few are left.
    Retain {
        keep: u64,
    },
    /// A clean stop or a kill, after which somebody removes the consume queues or the index, or nothing; then an open for which
    /// the disk fails after some steps; then a power loss, or none.
    CutShort {
        clean: bool,
        without: Option<&'static str>,
        steps: usize,
        seed: u64,
        lost: u64,
    },
}

/// What happens; with `retention` in a log of small segments, whose first ones go all the time.
fn step(retention: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        retention => (1..4_u64).prop_map(|keep| Step::Retain { keep }),
        12 => (0..3_u32, 0..900_usize).prop_map(|(queue, len)| Step::Append { queue, len }),
        3 => (0..3_u32, proptest::collection::vec(0..200_usize, 1..6)).prop_map(|(queue, lens)| Step::Batch { queue, lens }),
        1 => Just(Step::Half),
        3 => (0..3_u32, proptest::collection::vec(0..900_usize, 1..6), 1..3000_usize).prop_map(|(queue, lens, piece)| Step::Copy { queue, lens, piece }),
        3 => (0..3_u32).prop_map(|queue| Step::Read { queue }),
        2 => Just(Step::Query),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => proptest::collection::vec(any::<u8>(), 1..200).prop_map(|garbage| Step::KillWithGarbage { garbage }),
        1 => Just(Step::Tear),
        1 => any::<usize>().prop_map(|pick| Step::Damage { pick }),
        2 => (any::<u64>(), 1..16_u64).prop_map(|(seed, lost)| Step::PowerLoss { seed, lost }),
        1 => Just(Step::Delete),
        2 => (0..12_usize, any::<bool>()).prop_map(|(count, behind_filler)| Step::Truncate { count, behind_filler }),
        1 => (0..20_u64).prop_map(|segment| Step::Restart { segment }),
        1 => Just(Step::Upkeep),
        1 => any::<bool>().prop_map(|all| Step::Commit { all }),
        1 => Just(Step::Flush),
        1 => Just(Step::FlushWholeChunks),
        1 => Just(Step::ClockBack),
        1 => Just(Step::LoseQueues),
        2 => (any::<bool>(), prop_oneof![Just(None), Just(Some("consumequeue")), Just(Some("index"))], 0..30_usize, any::<u64>(), 0..16_u64)
            .prop_map(|(clean, without, steps, seed, lost)| Step::CutShort { clean, without, steps, seed, lost }),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    queue: Option<u32>,
    offset: u64,
    body: Vec<u8>,
    physical: u64,
    len: usize,
    damaged: bool,
}

impl Known {
    /// Place of the counter at the end of the body.
    fn count_at(&self) -> u64 {
        self.physical + (self.len - Model::key(&self.body).len() - 2 - TOPIC.len() - 1 - 4) as u64
    }
}

/// The write pool.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pool {
    Off,
    /// Nothing gets out of it by itself.
    Ample,
    /// Its few buffers are used again all the time.
    Scarce,
}

struct Model {
    site: Site,
    pool: Pool,
    disk: Arc<ScriptedDisk>,
    /// How many directories the log has.
    log_dirs: usize,
    store: Option<Store>,
    /// In log order.
    messages: Vec<Known>,
    count: u32,
    segment_len: u64,
    /// Where the log begins.
    min: u64,
    /// Messages of each queue that went with their segment.
    gone: [u64; 3],
    /// Offsets among these that no message of the list had: that of one which was damaged went with a truncation.
    skipped: [u64; 3],
    /// And which they were.
    removed: Vec<Known>,
    /// Where the log ended when the topic was deleted last.
    deleted_at: u64,
}

const TOPIC: &str = "Model";

impl Model {
    fn new(log_dirs: usize, segment_len: u64, pool: Pool) -> Model {
        let mut model = Model {
            site: Site::new(),
            pool,
            disk: Arc::default(),
            log_dirs,
            store: None,
            messages: Vec::new(),
            count: 0,
            segment_len,
            min: 0,
            gone: [0; 3],
            skipped: [0; 3],
            removed: Vec::new(),
            deleted_at: 0,
        };
        model.store = Some(model.open());
        model
    }

    /// Through all of it, in a log of segments of so many bytes.
    fn run(log_dirs: usize, segment_len: u64, pool: Pool, steps: Vec<Step>) {
        let mut model = Model::new(log_dirs, segment_len, pool);
        for step in steps {
            model.apply(step);
        }
        model.apply(Step::Kill);
        model.apply(Step::Close);
    }

    /// Nothing gets to the disk by itself: steps decide.
    fn config(&self) -> StoreConfig {
        let never = Duration::from_secs(3600);
        let flush = FlushMode::Async { interval: never, least_pages: 0, thorough_interval: never };
        StoreConfig {
            segment_len: self.segment_len,
            queue_file_entries: 64,
            flush,
            queue_flush_interval: never,
            queue_flush_thorough_interval: never,
            retention: rules_by_hand(),
            disk: Arc::clone(&self.disk) as Arc<dyn Disk>,
            commit_log_dirs: self.log_dirs().collect(),
            write_pool: match self.pool {
                Pool::Off => None,
                Pool::Ample => Some(WritePoolConfig { commit_interval: never, ..pool_of(100, 8192) }),
                Pool::Scarce => Some(pool_of(3, 4096)),
            },
            ..self.site.config()
        }
    }

    fn log_dirs(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.log_dirs).map(|number| self.root().join(format!("disk{number}/commitlog")))
    }

    fn open(&self) -> Store {
        Store::open(self.config()).unwrap()
    }

    /// What was written becomes visible.
    fn settle(&self) {
        if let Some(committer) = &self.store().committer {
            committer.commit().unwrap();
        }
        self.store().dispatch_signal.wake();
        settle(self.store());
    }

    /// Ends the store as a kill does, with what the write pool alone has. Gives where the log ends then.
    fn kill(&mut self) -> u64 {
        let marks = self.store().watermarks();
        self.store = None;
        if self.pool == Pool::Off {
            return marks.written.0;
        }
        let store = self.open();
        let end = store.watermarks().written.0;
        drop(store);
        let whole = self.messages.iter().map(|known| known.physical + known.len as u64);
        let whole = whole.filter(|end| *end <= marks.committed.0).max().unwrap_or(0);
        assert!(end >= whole && end <= marks.written.0, "{marks:?}, and the log ends at {end}");
        // A filler, or what it is for, may be there and no record behind it.
        let lost = self.messages.iter().find(|known| known.physical + known.len as u64 > end);
        assert!(
            self.pool == Pool::Scarce || lost.is_none_or(|lost| lost.physical + lost.len as u64 > marks.committed.0)
        );
        self.messages.retain(|known| known.physical + known.len as u64 <= end);
        end
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// A body that no other message has.
    fn body(&mut self, len: usize) -> Vec<u8> {
        self.count += 1;
        let mut body = vec![u8::try_from(len % 251).unwrap(); len];
        body.extend(self.count.to_be_bytes());
        body
    }

    fn key(body: &[u8]) -> String {
        let number = body[body.len() - 4..].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("UNIQ_KEY\u{1}{number}\u{2}KEYS\u{1}all  k{number}\u{2}")
    }

    fn next_offset(&self, queue: u32) -> u64 {
        let there = self.messages.iter().filter(|known| known.queue == Some(queue)).count() as u64;
        self.gone[queue as usize] + there
    }

    fn apply(&mut self, step: Step) {
        self.site.advance(90);
        match step {
            Step::Append { queue, len } => {
                let body = self.body(len);
                let placed = self.store().append(&message(TOPIC, queue, &body, &Model::key(&body))).unwrap();
                assert_eq!(placed.queue_offset.0, self.next_offset(queue));
                let (physical, len) = (placed.physical_offset.0, placed.record_len);
                self.messages.push(Known {
                    queue: Some(queue),
                    offset: placed.queue_offset.0,
                    body,
                    physical,
                    len,
                    damaged: false,
                });
            }
            Step::Batch { queue, lens } => {
                let bodies: Vec<_> = lens.iter().map(|len| self.body(*len)).collect();
                let texts: Vec<_> = bodies.iter().map(|body| Model::key(body)).collect();
                let batch: Vec<_> =
                    bodies.iter().zip(&texts).map(|(body, text)| message(TOPIC, queue, body, text)).collect();
                let placed = self.store().append_batch(&batch).unwrap();
                assert_eq!(placed.queue_offset.0, self.next_offset(queue));
                let lens: Vec<_> = batch.iter().map(|message| message.record_len()).collect();
                for (at, body) in bodies.into_iter().enumerate() {
                    let offset = placed.queue_offset.0 + at as u64;
                    let physical = placed.physical_offsets[at].0;
                    self.messages.push(Known {
                        queue: Some(queue),
                        offset,
                        body,
                        physical,
                        len: lens[at],
                        damaged: false,
                    });
                }
            }
            Step::Half => {
                let body = self.body(10);
                let text = Model::key(&body);
                let mut half = message(TOPIC, 0, &body, &text);
                half.sys_flag = ferromq_protocol::message::SysFlag(0x4);
                let placed = self.store().append(&half).unwrap();
                let (physical, len) = (placed.physical_offset.0, placed.record_len);
                self.messages.push(Known { queue: None, offset: 0, body, physical, len, damaged: false });
            }
            Step::Copy { queue, lens, piece } => {
                let begin = self.store().watermarks().written.0;
                let mut other = OtherLog { segment_len: self.segment_len, begin, bytes: Vec::new() };
                for len in lens {
                    let (body, offset) = (self.body(len), self.next_offset(queue));
                    let text = Model::key(&body);
                    let message = message(TOPIC, queue, &body, &text);
                    let physical = other.put(&message, offset, self.site.now.load(Ordering::SeqCst));
                    let len = message.record_len();
                    self.messages.push(Known { queue: Some(queue), offset, body, physical, len, damaged: false });
                }
                self.store().set_replicated(PhysicalOffset(0));
                self.store().set_writer(Writer::Stream).unwrap();
                other.offer_to(self.store(), piece).unwrap();
                // It is told which offsets come next before anything was dispatched.
                self.store().set_writer(Writer::Local).unwrap();
                self.store().set_replicated(PhysicalOffset(u64::MAX));
            }
            Step::Read { queue } => {
                self.settle();
                self.check_queue(queue);
            }
            Step::Query => {
                self.settle();
                self.check_index();
            }
            Step::Close => {
                self.store().close().unwrap();
                self.store = None;
                self.check_files();
                self.reopen();
            }
            Step::Kill => {
                self.kill();
                self.check_files();
                self.reopen();
            }
            Step::KillWithGarbage { garbage } => {
                let end = self.kill();
                self.overwrite(end, &garbage);
                self.reopen();
            }
            Step::Tear => {
                let end = self.kill();
                let vouched = self.vouched_for();
                let is_torn = |last: &mut Known| last.physical >= vouched && last.physical + last.len as u64 == end;
                if let Some(last) = self.messages.pop_if(is_torn) {
                    // Which makes the CRC wrong.
                    self.overwrite(last.count_at(), &[0xFF; 3]);
                }
                self.reopen();
            }
            Step::Damage { pick } => {
                self.kill();
                let end = self.vouched_for();
                let vouched = self.messages.iter().filter(|known| known.physical + known.len as u64 <= end).count();
                if vouched > 0 {
                    let known = &mut self.messages[pick % vouched];
                    known.damaged = true;
                    let at = known.count_at();
                    self.overwrite(at, &[0xFF; 3]);
                    self.disk.all_is_synced(&self.root());
                }
                self.reopen();
            }
            Step::PowerLoss { seed, lost } => {
                let flushed = self.store().watermarks().flushed.0;
                self.lose_power(flushed, seed, lost, false);
            }
            Step::Delete => {
                let had_queues = !self.store().queue_ids(TOPIC).is_empty();
                assert_eq!(self.store().delete_topic(TOPIC).unwrap(), had_queues);
                self.messages.iter_mut().for_each(|known| known.queue = None);
                (self.gone, self.skipped) = ([0; 3], [0; 3]);
                self.deleted_at = self.store().watermarks().written.0;
            }
            Step::Truncate { count, behind_filler } => self.truncate(count, behind_filler),
            Step::Retain { keep } => self.retain(keep),
            Step::Restart { segment } => {
                let begin = segment * self.segment_len;
                self.store().set_writer(Writer::Nobody).unwrap();
                self.store().restart_at(PhysicalOffset(begin)).unwrap();
                self.store().set_writer(Writer::Local).unwrap();
                (self.min, self.deleted_at) = (begin, 0);
                (self.gone, self.skipped) = ([0; 3], [0; 3]);
                self.messages.clear();
                self.removed.clear();
            }
            Step::Upkeep => {
                self.settle();
                let store = self.store();
                store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*self.disk)).unwrap();
            }
            Step::Commit { all } => {
                if let Some(committer) = &self.store().committer {
                    committer.commit_as(all).unwrap();
                }
            }
            Step::Flush => self.store().flusher.flush().unwrap(),
            Step::FlushWholeChunks => {
                let store = self.store();
                store.flusher.flush_whole_chunks().and_then(|()| store.checkpoint.save(&*self.disk)).unwrap();
            }
            Step::ClockBack => self.site.advance(-20_000),
            Step::LoseQueues => {
                self.settle();
                self.store().close().unwrap();
                self.store = None;
                crate::files::remove_dir(&LocalDisk, &self.root().join("consumequeue")).unwrap();
                self.queues_are_built_again(true);
                self.reopen();
            }
            Step::CutShort { clean, without, steps, seed, lost } => {
                if clean {
                    self.settle();
                    self.store().close().unwrap();
                }
                let flushed = self.store().watermarks().flushed.0;
                self.store = None;
                if let Some(dir) = without {
                    crate::files::remove_dir(&LocalDisk, &self.root().join(dir)).unwrap();
                    // Whoever took it away waited for that: a half of it that comes back tells nobody that the rest is missing.
                    self.disk.sync_dir(&self.root()).unwrap();
                }
                *self.disk.fails_after.lock() = Some(steps);
                // It may be enough.
                drop(Store::open(self.config()));
                *self.disk.fails_after.lock() = None;
                self.lose_power(flushed, seed, lost, without == Some("consumequeue"));
            }
        }
    }

    /// Some that are read go on being read.
    fn truncate(&mut self, count: usize, behind_filler: bool) {
        let end_of = |known: &Known| known.physical + known.len as u64;
        let least = self.messages.partition_point(|known| end_of(known) <= self.deleted_at.max(self.min));
        let kept = self.messages.len().saturating_sub(count).max(least);
        let before = kept.checked_sub(1).map_or(self.min, |last| end_of(&self.messages[last])).max(self.deleted_at);
        let to = self.messages.get(kept).filter(|_| behind_filler).map_or(before, |next| next.physical);
        if to > self.store().watermarks().written.0 {
            // What was deleted went with a crash.
            return;
        }
        let gone = self.messages.split_off(kept);
        let bytes_of = |known: &Known| self.store().raw_from(PhysicalOffset(known.physical), known.len).unwrap();
        let held: Vec<_> = gone.iter().filter_map(bytes_of).map(|bytes| (bytes.to_vec(), bytes)).collect();
        self.store().truncate(PhysicalOffset(to)).unwrap();
        let marks = self.store().watermarks();
        assert_eq!(marks.written.0, to);
        assert!(marks.flushed <= marks.committed && marks.projected <= marks.written, "{marks:?}");
        for queue in 0..3 {
            // The offsets that went are given again.
            let body = self.body(30);
            let placed = self.store().append(&message(TOPIC, queue, &body, &Model::key(&body))).unwrap();
            // Of a message that could not be read, nobody knows that it has gone with this.
            let (given, expected, at) = (placed.queue_offset.0, self.next_offset(queue), queue as usize);
            if given > expected && gone.iter().any(|known| known.damaged) {
                self.skipped[at] += given - expected;
                self.gone[at] += given - expected;
            } else {
                self.skipped_is_given(queue, given);
                assert_eq!(given, self.next_offset(queue), "queue {queue}");
            }
            let (physical, len) = (placed.physical_offset.0, placed.record_len);
            let offset = placed.queue_offset.0;
            self.messages.push(Known { queue: Some(queue), offset, body, physical, len, damaged: false });
        }
        assert!(held.iter().all(|(before, bytes)| bytes[..] == before[..]));
    }

    /// A round, in which whatever has to get to the disk first does.
    fn retain(&mut self, keep: u64) {
        self.settle();
        let store = self.store();
        let reserved_bytes = Some(keep * self.segment_len);
        store.change_retention(RetentionRules { reserved_bytes, ..self.config().retention });
        store.retention.go_round(&mut Progress::default());
        assert!(store.check_writable().is_ok());
        let min = store.watermarks().min.0;
        assert!(min >= self.min && min <= store.watermarks().written.0, "{min}");
        self.min = min;
        let gone = self.messages.partition_point(|known| known.physical < min);
        for known in self.messages.drain(..gone) {
            if let Some(queue) = known.queue {
                self.gone[queue as usize] += 1;
            }
            self.removed.push(known);
        }
        for queue in 0..3 {
            self.check_bounds(queue);
        }
    }

    /// From what is in the log. Of a queue that has nothing there that can be read, the list says what it had, as far as that was
    /// written in time: then it goes on from there.
    fn queues_are_built_again(&mut self, clean: bool) {
        let store = self.open();
        for queue in 0..3_u32 {
            let of_queue = |known: &&mut Known| known.queue == Some(queue);
            let known = self.messages.iter().any(|known| known.queue == Some(queue) && !known.damaged);
            if self.gone[queue as usize] > 0 && !known {
                let next = self.next_offset(queue);
                let max = store.queue_bounds(TOPIC, ferromq_protocol::QueueId(queue)).map_or(0, |bounds| bounds.max.0);
                assert!(max == next || !clean && max < next, "{max} of {next}");
                if max < next {
                    self.gone[queue as usize] = max;
                    self.skipped[queue as usize] = self.skipped[queue as usize].min(max);
                    self.messages.iter_mut().filter(of_queue).for_each(|known| known.queue = None);
                }
            }
        }
    }

    /// What follows skipped offsets may have gone, and with it all that told of these.
    fn skipped_is_given(&mut self, queue: u32, next: u64) {
        let at = queue as usize;
        if !self.messages.iter().any(|known| known.queue == Some(queue)) {
            let given = self.gone[at].saturating_sub(next).min(self.skipped[at]);
            self.skipped[at] -= given;
            self.gone[at] -= given;
        }
    }

    /// The place before which the checkpoint says that the log is on the disk.
    fn vouched_for(&self) -> u64 {
        let found = Checkpoint::open(self.root().join("checkpoint")).unwrap().found();
        found.map_or(0, |found| found.log)
    }

    fn overwrite(&self, at: u64, bytes: &[u8]) {
        let start = at - at % self.segment_len;
        let fits = bytes.len().min(usize::try_from(start + self.segment_len - at).unwrap());
        let paths = self.log_dirs().map(|dir| dir.join(crate::files::segment_name(start)));
        for mut file in paths.flat_map(|path| std::fs::OpenOptions::new().write(true).open(path)) {
            file.seek(SeekFrom::Start(at - start)).unwrap();
            file.write_all(&bytes[..fits]).unwrap();
        }
    }

    fn root(&self) -> PathBuf {
        self.site.dir.path().join("store")
    }

    fn lose_power(&mut self, flushed: u64, seed: u64, lost: u64, without_queues: bool) {
        self.store = None;
        let mut dice = seed | 1;
        self.disk.power_loss(&self.root(), || {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % 16 < lost
        });
        if !without_queues {
            self.check_files();
        }
        let store = self.open();
        let end = store.watermarks().written.0;
        assert_eq!(store.watermarks().min.0, self.min);
        drop(store);
        // A flush may end inside a record, which then is not whole without the rest.
        let ends = self.messages.iter().map(|known| known.physical + known.len as u64);
        let whole = ends.filter(|end| *end <= flushed).max().unwrap_or(0);
        assert!(end >= whole, "the log was flushed up to {flushed}, records up to {whole}, and ends at {end}");
        self.messages.retain(|known| known.physical < end);
        assert!(self.messages.last().is_none_or(|last| last.physical + last.len as u64 <= end));
        if without_queues {
            self.queues_are_built_again(false);
        }
        self.reopen();
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(self.open());
        assert_eq!(self.store().watermarks().min.0, self.min);
        for queue in 0..3 {
            let bounds = self.store().queue_bounds(TOPIC, ferromq_protocol::QueueId(queue));
            self.skipped_is_given(queue, bounds.map_or(0, |bounds| bounds.max.0));
            self.check_queue(queue);
        }
        self.check_index();
        for known in self.messages.iter().filter(|known| !known.damaged) {
            let bytes = self.store().message_at(PhysicalOffset(known.physical), Effort::Full).unwrap().unwrap();
            assert_eq!(Record::parse(&bytes).unwrap().body(), known.body);
        }
    }

    /// What is left of a stop or a kill holds together, but for messages that were damaged.
    fn check_files(&self) {
        let config = check::CheckConfig {
            log_dirs: self.log_dirs().collect(),
            index_shape: Some((self.config().index_slots, self.config().index_entries)),
            ..check::CheckConfig::at(self.root())
        };
        let mut faults = Vec::new();
        check::check(&config, &mut |finding| faults.extend(finding.is_fault.then(|| finding.clone()))).unwrap();
        let damaged = self.messages.iter().filter(|known| known.damaged).count();
        let (of_bodies, others): (Vec<_>, Vec<_>) =
            faults.into_iter().partition(|fault| fault.part == check::Part::Log && fault.what.contains("body CRC"));
        assert!(others.is_empty() && of_bodies.len() == damaged, "{damaged} damaged, {of_bodies:#?} {others:#?}");
    }

    fn check_queue(&self, queue: u32) {
        let expected: Vec<_> = self
            .messages
            .iter()
            .filter(|known| known.queue == Some(queue) && !known.damaged)
            .map(|known| (known.offset, known.body.as_slice()))
            .collect();
        let found = read_whole_bodies(self.store(), TOPIC, queue, 0);
        let found: Vec<_> = found.iter().map(|(offset, body)| (*offset, body.as_slice())).collect();
        // Bodies are long, and their counters tell them apart.
        let short = |bodies: &[(u64, &[u8])]| -> Vec<_> {
            bodies.iter().map(|(offset, body)| (*offset, body.len(), body[body.len() - 4..].to_vec())).collect()
        };
        assert!(found == expected, "queue {queue}: {:?}, expected {:?}", short(&found), short(&expected));
        self.check_bounds(queue);
    }

    /// A queue begins with its first message that the log has, or ends where it begins.
    fn check_bounds(&self, queue: u32) {
        let Some(bounds) = self.store().queue_bounds(TOPIC, ferromq_protocol::QueueId(queue)) else { return };
        let of_queue = || self.messages.iter().filter(|known| known.queue == Some(queue));
        // One that was damaged may have no place in a queue that was built again.
        let (first, whole) = (of_queue().next(), of_queue().find(|known| !known.damaged));
        let (min, max) = (bounds.min.0, bounds.max.0);
        let skipped = self.skipped[queue as usize];
        assert!(first.is_none_or(|first| min + skipped >= first.offset || min == max), "{bounds:?}, first {first:?}");
        assert!(whole.is_none_or(|whole| min <= whole.offset), "{bounds:?}, first whole {whole:?}");
        assert!(first.is_some() || min + skipped >= max, "{bounds:?} of a queue without messages");
        assert!(max <= self.next_offset(queue), "{bounds:?}, next {}", self.next_offset(queue));
    }

    fn check_index(&self) {
        let mut per_key: BTreeMap<String, usize> = BTreeMap::new();
        for known in self.messages.iter().filter(|known| !known.damaged) {
            let text = Model::key(&known.body);
            let key = ferromq_protocol::message::property(&text, "UNIQ_KEY").unwrap().to_owned();
            assert_eq!(query_bodies(self.store(), TOPIC, &key), std::slice::from_ref(&known.body), "key {key}");
            *per_key.entry("all".to_owned()).or_default() += 1;
        }
        for known in self.removed.iter().rev().take(10) {
            let text = Model::key(&known.body);
            let key = ferromq_protocol::message::property(&text, "UNIQ_KEY").unwrap().to_owned();
            assert!(query_bodies(self.store(), TOPIC, &key).is_empty());
            let at = PhysicalOffset(known.physical);
            assert!(self.store().is_gone(at) && self.store().message_at(at, Effort::Full).unwrap().is_none());
        }
        let (all, found) = (per_key.get("all").copied().unwrap_or(0), query_bodies(self.store(), TOPIC, "all").len());
        let damaged = self.messages.iter().filter(|known| known.damaged).count();
        // A damaged message may still be found by its keys.
        assert!(found >= all.min(64 - damaged.min(64)) && found <= (all + damaged).min(64), "{found} of {all}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_list(log_dirs in 1..4_usize, steps in proptest::collection::vec(step(1), 1..60)) {
        Model::run(log_dirs, 16 << 10, Pool::Off, steps);
    }

    #[test]
    fn behaves_like_a_list_that_loses_its_beginning(
        log_dirs in 1..4_usize, steps in proptest::collection::vec(step(8), 1..120),
    ) {
        Model::run(log_dirs, 4 << 10, Pool::Off, steps);
    }

    #[test]
    fn behaves_like_a_list_with_the_write_pool(
        scarce in any::<bool>(), log_dirs in 1..3_usize, steps in proptest::collection::vec(step(2), 1..100),
    ) {
        Model::run(log_dirs, 16 << 10, if scarce { Pool::Scarce } else { Pool::Ample }, steps);
    }
}

/// A message with anything in it.
#[derive(Clone, Debug)]
struct Any {
    topic: String,
    queue_id: u32,
    numbers: (i32, i32, i64, i32, i64),
    hosts: (std::net::IpAddr, u16, std::net::IpAddr, u16),
    body: Vec<u8>,
    properties: String,
}

impl Any {
    fn strategy() -> impl Strategy<Value = Any> {
        let topic = prop_oneof![
            Just("T".to_owned()),
            Just("a/b".to_owned()),
            "\\PC{0,3}",
            (120..130_usize).prop_map(|len| "t".repeat(len)),
            (240..252_usize).prop_map(|len| format!("%RETRY%{}", "g".repeat(len - 4))),
        ];
        let queue_id = prop_oneof![0..3_u32, 0x7FFF_FFFE..0x8000_0002_u32, any::<u32>()];
        let body = proptest::collection::vec(any::<u8>(), 0..60);
        let properties = prop_oneof![
            "[aé\u{1}\u{2}]{0,20}",
            "(KEYS|TAGS|DELAY|UNIQ_KEY)\u{1}[a-c0-9 ]{0,9}\u{2}",
            (32_760..32_770_usize).prop_map(|len| "p".repeat(len)),
        ];
        (
            topic,
            queue_id,
            any::<(i32, i32, i64, i32, i64)>(),
            any::<(std::net::IpAddr, u16, std::net::IpAddr, u16)>(),
            body,
            properties,
        )
            .prop_map(|(topic, queue_id, numbers, hosts, body, properties)| Any {
                topic,
                queue_id,
                numbers,
                hosts,
                body,
                properties,
            })
    }

    fn message(&self) -> NewMessage<'_> {
        NewMessage {
            flag: self.numbers.0,
            sys_flag: SysFlag(self.numbers.1),
            born_timestamp: self.numbers.2,
            reconsume_times: self.numbers.3,
            prepared_transaction_offset: self.numbers.4,
            born_host: (self.hosts.0, self.hosts.1).into(),
            store_host: (self.hosts.2, self.hosts.3).into(),
            ..message(&self.topic, self.queue_id, &self.body, &self.properties)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// What a client may say and what the next start refuses are never the same: each message is refused, or it is there
    /// after a kill, in its queue and at its place, and so is everything behind it; in a copy of the log's bytes too.
    #[test]
    fn what_is_taken_is_read_after_a_kill(
        batches in proptest::collection::vec((Any::strategy(), 1..4_usize), 1..12), cuts in proptest::collection::vec(1..5000_usize, 1..8),
    ) {
        let (site, other) = (Site::new(), Site::new());
        let config = |site: &Site| StoreConfig { segment_len: 80 << 10, message_len_max: 200, ..site.config() };
        let (store, copy) = (Store::open(config(&site)).unwrap(), Store::open(config(&other)).unwrap());
        copy.set_writer(crate::Writer::Stream).unwrap();
        let mut taken = Vec::new();
        for (one, count) in &batches {
            let message = one.message();
            if *count == 1 {
                taken.extend(store.append(&message).map(|placed| (one, placed.physical_offset, placed.queue_offset.0)));
            } else if let Ok(placed) = store.append_batch(&vec![message; *count]) {
                let offset = |at: usize| placed.queue_offset.0 + if message.sys_flag.is_visible() { at as u64 } else { 0 };
                taken.extend(placed.physical_offsets.iter().enumerate().map(|(at, physical)| (one, *physical, offset(at))));
            }
        }
        let end = store.watermarks().written;
        copy_log(&store, &copy, &cuts);
        let check = |store: &Store| {
            assert_eq!(store.watermarks().written, end);
            settle(store);
            for (one, physical, offset) in &taken {
                let message = one.message();
                let bytes = store.message_at(*physical, Effort::Full).unwrap().unwrap();
                let record = Record::parse(&bytes).unwrap();
                record.check_crc().unwrap();
                assert_eq!((record.topic(), record.queue_id(), record.queue_offset().0), (message.topic, message.queue_id, *offset));
                assert_eq!((record.body(), &*record.properties(), record.flag()), (message.body, message.properties, message.flag));
                assert_eq!((record.born_timestamp(), record.reconsume_times()), (message.born_timestamp, message.reconsume_times));
                if message.sys_flag.is_visible() {
                    let entry = store.queue_entry(message.topic, message.queue_id, QueueOffset(*offset), Effort::Full).unwrap().unwrap();
                    assert_eq!((entry.physical, entry.len as usize), (*physical, bytes.len()));
                }
            }
        };
        check(&store);
        check(&copy);
        drop((store, copy));
        check(&Store::open(config(&site)).unwrap());
        check(&Store::open(config(&other)).unwrap());
    }
}
