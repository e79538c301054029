//! What a bit that flips on the disk may cost: the record of the log that has it, if somebody says so, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use ferromq_protocol::message::Record;

use super::after_crash::AfterCrash;
use super::history::{History, Known, Put, ends_with_zero};
use super::machine::{INDEX_SLOTS, SEGMENT_LEN};
use crate::checkpoint::Checkpoint;
use crate::files;
use crate::scripted_disk::{Dice, Flip, Part};

/// The bits that have flipped so far.
#[derive(Clone, Debug, Default)]
pub struct Rot {
    pub has_any: bool,
    /// Where records begin that have one.
    records: BTreeSet<u64>,
    /// The last of them, until it was looked for whether somebody names it.
    unnamed: Option<u64>,
    /// An entry of a queue whose message is gone may lead to where one could be: the queue begins with it.
    pub has_entry: bool,
    /// Where the messages begin whose entries in the index have one: no checksum covers those.
    entries: BTreeSet<u64>,
    /// What leads to an entry of the index looks as if there were none: nobody can tell.
    has_ended_chain: bool,
    /// Until the next start: nothing says where the log begins, so that segments that were to go may be there again, nor how far it is on
    /// the disk, so that nobody vouches for what only looks torn.
    pub has_no_checkpoint: bool,
}

impl Rot {
    pub fn has_record(&self, known: &Known) -> bool {
        self.records.contains(&known.start())
    }

    /// What is behind the log's end has gone.
    pub fn log_ends(&mut self, end: u64) {
        self.records.retain(|start| *start < end);
    }

    /// Whether nobody can tell that a message is not found by its keys.
    pub fn may_hide_keys_of(&self, known: &Known) -> bool {
        self.has_ended_chain || self.entries.contains(&known.start())
    }
}

impl History {
    /// The record, or the filler, that a byte of the log is in: where it begins and ends. `None` behind the log's end.
    fn span_at(&self, physical: u64) -> Option<(u64, u64)> {
        let at = self.puts.partition_point(|known| known.end <= physical);
        let known = self.puts.get(at)?;
        let before = at.checked_sub(1).map_or(0, |before| self.puts[before].end);
        Some(if known.start() <= physical { (known.start(), known.end) } else { (before, known.start()) })
    }

    /// Where what begins there ends, if it has a bit that flipped.
    pub fn rotten_end(&self, physical: u64) -> Option<u64> {
        self.rot.records.contains(&physical).then(|| self.span_at(physical)).flatten().map(|(_, end)| end)
    }

    /// Whether nobody vouches for a record that was safe.
    pub fn may_be_lost(&self, known: &Known) -> bool {
        self.rot.has_no_checkpoint && looks_torn(known)
    }

    /// Messages that cannot be read any more and that nothing comes behind in their queue: it may go on without them, as nobody knows of them.
    pub fn queue_ends(&mut self, topic: &'static str, queue: u32, max: u64) {
        for at in (0..self.puts.len()).rev() {
            let Put::Message { topic: of, queue: number, offset: Some(offset), physical, body } = &self.puts[at].put
            else {
                continue;
            };
            if (*of, *number) != (topic, queue) {
                continue;
            }
            if *offset < max || !self.rot.has_record(&self.puts[at]) {
                return;
            }
            let put = Put::Message { topic, queue, offset: None, physical: *physical, body: body.clone() };
            self.puts[at] = Arc::new(Known { put, end: self.puts[at].end });
        }
    }

    /// Whatever looks torn may have been taken for that.
    pub fn nobody_vouches(&mut self) {
        if self.rot.has_no_checkpoint {
            self.rot.records.extend(self.puts.iter().filter(|known| looks_torn(known)).map(|known| known.start()));
        }
    }

    /// Whether what can be told of a bit that flips there is enough: of a deletion that cannot be read, nothing can be told of its topic;
    /// and where something may be that nobody has answered for, nobody knows what that was.
    fn may_rot(&self, physical: u64) -> bool {
        let at = self.puts.partition_point(|known| known.end <= physical);
        let is_deletion = |known: &Known| matches!(known.put, Put::Deletion { .. });
        physical >= self.min && self.puts.get(at).map_or(self.pending.is_empty(), |known| !is_deletion(known))
    }

    /// Places in queues of which nothing is promised any more.
    pub fn rotten_places(&self) -> BTreeSet<(&str, u32, u64)> {
        let rotten = self.puts.iter().filter(|known| self.rot.has_record(known));
        let place = |known: &Arc<Known>| match &known.put {
            Put::Message { topic, queue, offset, .. } => Some((*topic, *queue, (*offset)?)),
            Put::Deletion { .. } => None,
        };
        rotten.filter_map(place).collect()
    }

    /// What cannot be read any more is named. `is_there` says whether a message is shown to consumers.
    pub fn check_named(&mut self, said: &str, end: u64, is_there: impl Fn(&'static str, u32, u64) -> bool) {
        let Some(start) = self.rot.unnamed.take() else { return };
        let known = self.puts.iter().find(|known| known.start() == start);
        let Some(Put::Message { topic, queue, offset: Some(offset), .. }) = known.map(|known| &known.put) else {
            return;
        };
        // Unless its topic is deleted.
        let queues = self.queues();
        if !queues.get(&(*topic, *queue)).is_some_and(|(_, there)| there.iter().any(|(at, _)| at == offset)) {
            return;
        }
        let segment = files::segment_name(start - start % SEGMENT_LEN);
        let is_named = said.contains(&format!("commitlog/{segment}"));
        assert!(
            is_named || start >= end || is_there(topic, *queue, *offset),
            "{topic}/{queue} {offset} at {start} is gone, and nobody says so: {said}"
        );
    }
}

impl AfterCrash {
    /// A bit of what the disk has flips. The flip, if there is any such bit.
    pub fn rot(&mut self, dice: &mut Dice) -> Option<Flip> {
        let root = self.place.root();
        let of_log = |flip: &Flip| {
            let name = flip.path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            name.map(|start| start + flip.at as u64)
        };
        // Where nothing says how far the log was on the disk, what is lost of its end may be missing between others that are there.
        let is_all_there = self.there.max(self.history.safe) >= self.history.end() && self.history.pending.is_empty();
        let may = |flip: &Flip| match flip.part {
            Part::Log => of_log(flip).is_some_and(|at| self.history.may_rot(at) && !self.says_another_place(flip, at)),
            Part::Checkpoint => is_all_there,
            // Nothing else knows where a queue goes on that has no messages any more.
            Part::Root => {
                self.history.rot.records.is_empty()
                    && self.history.queues().values().all(|(next, there)| *next == 0 || !there.is_empty())
            }
            // Of the last entry nobody can tell that it does not lead behind the log's end.
            Part::Queues => {
                let bytes = std::fs::read(root.join(&flip.path)).unwrap();
                flip.at / 20 < bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) / 20
            }
            _ => true,
        };
        let flip = self.place.disk.flip(&root, dice, may)?;
        let History { rot, .. } = &mut self.history;
        rot.has_any = true;
        match flip.part {
            Part::Log => self.rot_log(of_log(&flip).unwrap()),
            Part::Index => {
                let mut bytes = std::fs::read(root.join(&flip.path)).unwrap();
                rot.has_ended_chain |= is_chain_shorter(&bytes, flip.at);
                bytes[flip.at] ^= 1 << flip.bit;
                rot.entries.extend(entry_at(flip.at).map(|entry| physical_of(&bytes, entry)));
            }
            Part::Queues => rot.has_entry = true,
            // Nobody else knows what was delivered.
            Part::TimersCheckpoint => self.history.delivered_for_good.clear(),
            // The timers may be taken for another store's.
            Part::Root => self.history.delivered_for_good.clear(),
            Part::Checkpoint => {
                rot.has_no_checkpoint = true;
                self.history.delivered_for_good.clear();
            }
            _ => {}
        }
        Some(flip)
    }

    /// Whether a record would say that it is in another place of a queue: no checksum covers that, and what comes of it is not for this test.
    fn says_another_place(&self, flip: &Flip, physical: u64) -> bool {
        let Some((start, _)) = self.history.span_at(physical) else { return false };
        let mut bytes = std::fs::read(self.place.root().join(&flip.path)).unwrap();
        let at = usize::try_from(start % SEGMENT_LEN).unwrap();
        let place_in = |bytes: &[u8]| {
            let record = Record::parse(&bytes[at..]).ok()?;
            Some((record.topic().to_owned(), record.queue_id(), record.queue_offset()))
        };
        let before = place_in(&bytes);
        bytes[flip.at] ^= 1 << flip.bit;
        place_in(&bytes).is_some_and(|place| before != Some(place))
    }

    fn rot_log(&mut self, physical: u64) {
        let Some((start, end)) = self.history.span_at(physical) else { return };
        let root = self.place.root();
        let History { rot, safe, .. } = &mut self.history;
        if rot.records.insert(start) {
            rot.unnamed = Some(start);
        }
        if end >= vouched_for(&root) {
            // Nobody vouches for what follows: it cannot be told from one that was torn, and the log ends there.
            *safe = start.min(*safe);
            self.there = start.min(self.there);
        }
    }
}

/// Whether the message's last byte is a zero, for which nobody but the checkpoint vouches.
fn looks_torn(known: &Known) -> bool {
    matches!(&known.put, Put::Message { topic, body, .. } if ends_with_zero(topic, body))
}

const TIMES_LEN: usize = 16;
const SLOTS_AT: usize = 40;
const ENTRIES_AT: usize = SLOTS_AT + INDEX_SLOTS as usize * 4;
const ENTRY_LEN: usize = 20;
const LINK_AT: usize = 16;

fn word(index: &[u8], at: usize) -> u32 {
    index.get(at..at + 4).map_or(0, |word| u32::from_be_bytes(word.try_into().unwrap()))
}

/// The entry of an index file that has that byte.
fn entry_at(at: usize) -> Option<usize> {
    at.checked_sub(ENTRIES_AT).map(|at| at / ENTRY_LEN)
}

/// Where the message of an entry begins in the log.
fn physical_of(index: &[u8], entry: usize) -> u64 {
    let at = ENTRIES_AT + entry * ENTRY_LEN;
    u64::from(word(index, at + 4)) << 32 | u64::from(word(index, at + 8))
}

/// Whether the word of an index file that has that byte leads to nothing, or to another entry of its slot, or says of which time it is.
fn is_chain_shorter(index: &[u8], at: usize) -> bool {
    let slot_of = |entry: usize| (word(index, ENTRIES_AT + entry * ENTRY_LEN) & 0x7FFF_FFFF) % INDEX_SLOTS;
    let from = at - at % 4;
    let slot = match (from, entry_at(from)) {
        (..TIMES_LEN, _) => return true,
        (..SLOTS_AT, _) => return false,
        (_, None) => u32::try_from((from - SLOTS_AT) / 4).unwrap(),
        (_, Some(entry)) if (from - ENTRIES_AT) % ENTRY_LEN == LINK_AT => slot_of(entry),
        _ => return false,
    };
    word(index, from) == 0 || slot_of(word(index, from) as usize) == slot
}

/// The place before which the checkpoint says that the log is on the disk.
fn vouched_for(root: &Path) -> u64 {
    let copy = tempfile::NamedTempFile::new_in(super::machine::dir_in_memory()).unwrap();
    let Ok(_) = std::fs::copy(root.join("checkpoint"), copy.path()) else { return 0 };
    Checkpoint::open(copy.path().to_owned()).unwrap().found().map_or(0, |found| found.log)
}
