//! What was promised and what was seen, held against each other.

use std::collections::{BTreeMap, HashMap};

use super::load::{Ack, Fate, Refused, Sight};
use super::wire::{Found, Wire};

/// Topic and queue of all that is read. Plain messages go to the first four, what waits comes out in the others.
pub const QUEUES: [(&str, u32); 7] =
    [("Plain", 0), ("Plain", 1), ("Plain", 2), ("Plain", 3), ("Timed", 0), ("Delayed", 0), ("Transacted", 0)];

/// After a kill, what was delivered two seconds or so before it may be delivered again (docs/semantics.md). That is a figure of the run; on a
/// machine that is busy otherwise it is more, and only so much is a fault.
const AGAIN_MS: i64 = 60_000;

/// Numbers at random, the same for the same seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// One message: who sent it, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub sender: u32,
    pub number: u64,
}

impl Id {
    pub fn key(&self) -> String {
        format!("{:016X}{:016X}", self.sender, self.number)
    }
}

/// The body of a message: its id, and bytes that depend on it.
pub fn body(id: Id, fill: usize) -> Vec<u8> {
    let mut body = format!("{} {} ", id.sender, id.number).into_bytes();
    body.extend((0..fill).map(|at| filler(id, at)));
    body
}

fn filler(id: Id, at: usize) -> u8 {
    (id.number.wrapping_mul(31).wrapping_add(at as u64) % 251) as u8
}

/// The id in a body that is as it was sent.
pub fn parse(body: &[u8]) -> Option<Id> {
    let mut parts = body.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let id = Id { sender: u32::try_from(number()?).ok()?, number: number()? };
    let fill = parts.next()?;
    fill.iter().enumerate().all(|(at, byte)| *byte == filler(id, at)).then_some(id)
}

#[derive(Debug)]
struct Waiting {
    fate: Fate,
    /// Before it was accepted, in ms.
    sent_ms: i64,
    /// Before something was told of it last, in ms.
    told_ms: i64,
    /// When each of its copies was stored where consumers see it, in ms.
    arrivals: Vec<i64>,
}

/// What is known of one queue.
#[derive(Default)]
struct Queue {
    begin: u64,
    /// What stands at each offset that the queue still has, as it was first seen, and where in the log.
    seen: BTreeMap<u64, (Id, u64)>,
    /// Behind the last that was seen.
    end: u64,
    /// The highest number of each sender so far.
    highest: HashMap<u32, u64>,
}

/// Figures of a run, to be printed.
#[derive(Debug, Default)]
pub struct Figures {
    pub acked: usize,
    pub refused: usize,
    /// Accepted and lost, as the mode allows, and the most bytes of the log that one kill took.
    pub lost: usize,
    pub lost_bytes_max: u64,
    /// Accepted and deleted by the retention, as the queues' beginnings say, and of these, how many nobody had read.
    pub deleted: u64,
    pub deleted_unread: u64,
    pub waited: usize,
    pub came_again: usize,
    /// Longest time between an arrival and the kill after which it came again, in ms.
    pub again_after_ms: i64,
    pub latest_ms: i64,
}

/// See the module.
#[derive(Default)]
pub struct Ledger {
    queues: [Queue; QUEUES.len()],
    /// Accepted, and not yet held against what the queue has.
    acks: Vec<Ack>,
    refused: HashMap<Id, Refused>,
    waiting: HashMap<Id, Waiting>,
    /// Times of the kills, in ms.
    kills: Vec<i64>,
    /// Of each sender of plain messages, how many it sent.
    sent: HashMap<u32, u64>,
    /// The kill before an audit may have taken the end of the log, about so many bytes of it at most, with all that was accepted there.
    pub loses_at_most: u64,
    /// Behind the first byte of the last message in the log that the retention is said to have deleted.
    pub gone_to: u64,
    pub figures: Figures,
}

impl Ledger {
    pub fn killed(&mut self, now: i64) {
        self.kills.push(now);
    }

    pub fn has_sent(&mut self, sender: u32, next: u64) {
        self.sent.insert(sender, next);
    }

    pub fn accepted(&mut self, acks: Vec<Ack>) {
        self.figures.acked += acks.len();
        self.acks.extend(acks);
    }

    pub fn refused(&mut self, refused: Vec<Refused>) {
        self.figures.refused += refused.len();
        self.refused.extend(refused.into_iter().map(|one| (one.id, one)));
    }

    pub fn refusals(&self) -> impl Iterator<Item = &Refused> {
        self.refused.values()
    }

    pub fn fates(&mut self, fates: Vec<(Id, i64, Fate)>) {
        for (id, sent_ms, fate) in fates {
            let new = || Waiting { fate, sent_ms, told_ms: sent_ms, arrivals: Vec::new() };
            let waiting = self.waiting.entry(id).or_insert_with(new);
            waiting.fate = fate;
            waiting.told_ms = waiting.told_ms.max(sent_ms);
        }
    }

    /// A kill may have taken the end of the log: what was accepted from that time in ms on, and waits, comes or does not.
    pub fn may_lack_what_was_told_since(&mut self, since: i64) {
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.told_ms >= since) {
            if let Fate::Due(due) = waiting.fate {
                waiting.fate = Fate::Perhaps(due);
            }
        }
    }

    /// The newest accepted messages, for questions about keys.
    pub fn newest(&self, count: usize) -> Vec<Ack> {
        self.acks.iter().rev().take(count).copied().collect()
    }

    pub fn saw(&mut self, sights: Vec<Sight>) {
        for sight in sights {
            match sight {
                Sight::Message(queue, found) => self.see(queue, &found),
                Sight::MovedTo(queue, begin) => self.begins_at(queue, begin),
            }
        }
    }

    fn begins_at(&mut self, at: usize, begin: u64) {
        let queue = &mut self.queues[at];
        assert!(begin >= queue.begin, "{:?} began at {} and now at {begin}", QUEUES[at], queue.begin);
        self.figures.deleted += begin - queue.begin;
        queue.begin = begin;
        let kept = queue.seen.split_off(&begin);
        let gone = std::mem::replace(&mut queue.seen, kept);
        let gone_to = gone.last_key_value().map_or(0, |(_, (_, physical))| physical + 1);
        self.gone_to = self.gone_to.max(gone_to);
        if queue.end < begin {
            self.figures.deleted_unread += begin - queue.end;
            queue.end = begin;
        }
    }

    fn see(&mut self, at: usize, found: &Found) {
        let (record, place) = (found.record(), QUEUES[at]);
        let offset = record.queue_offset().0;
        assert_eq!((record.topic(), record.queue_id().0), place, "a message of another queue");
        let id = parse(record.body()).unwrap_or_else(|| panic!("{place:?} {offset}: nobody sent this: {record:?}"));
        let queue = &mut self.queues[at];
        let here = (id, record.physical_offset().0);
        if let Some(known) = queue.seen.get(&offset) {
            assert_eq!(*known, here, "{place:?} {offset} has changed");
            return;
        }
        assert_eq!(offset, queue.end, "{place:?} has a gap, or {id:?} came up behind others");
        queue.end += 1;
        queue.seen.insert(offset, here);
        if let Some(refused) = self.refused.get(&id) {
            panic!("{refused:?}, and it is at {place:?} {offset}");
        }
        if at < 4 {
            let sent = self.sent.get(&id.sender);
            assert!(sent.is_some_and(|sent| id.number < *sent), "{id:?} was never sent, and is at {place:?} {offset}");
            let before = queue.highest.insert(id.sender, id.number);
            assert!(before < Some(id.number), "{place:?} {offset} has {id:?} behind number {before:?}");
        } else {
            let waiting = self.waiting.get_mut(&id).unwrap_or_else(|| panic!("{id:?} was never sent"));
            waiting.arrivals.push(record.store_timestamp());
        }
    }

    /// Reads all queues from their beginnings, and holds what they have against what is known.
    pub fn audit(&mut self, port: u16) {
        let mut wire = Wire::connect(port).expect("the broker is up");
        for queue in 0..QUEUES.len() {
            self.read(&mut wire, queue);
        }
        let (mut lost, mut kept) = (Vec::new(), 0);
        for ack in std::mem::take(&mut self.acks) {
            let queue = &self.queues[ack.queue];
            if self.loses_at_most > 0 && ack.offset >= queue.end {
                lost.push(ack.physical);
                continue;
            }
            kept = kept.max(ack.physical);
            let there = queue.seen.get(&ack.offset).map(|(id, _)| id);
            if ack.offset < queue.begin {
                self.gone_to = self.gone_to.max(ack.physical + 1);
            }
            let as_promised = if ack.offset < queue.begin { there.is_none() } else { there == Some(&ack.id) };
            assert!(
                as_promised,
                "lost: {ack:?} in {:?}, which has {there:?} there and goes from {} to {}",
                QUEUES[ack.queue], queue.begin, queue.end
            );
        }
        if let (Some(first), Some(last)) = (lost.iter().min(), lost.iter().max()) {
            assert!(kept <= *first, "lost from {first} on, and what stands at {kept} is there");
            let bytes = last - first;
            assert!(bytes <= self.loses_at_most, "{bytes} bytes of the log are lost, from {first} to {last}");
            self.figures.lost += lost.len();
            self.figures.lost_bytes_max = self.figures.lost_bytes_max.max(bytes);
        }
        for (id, waiting) in &self.waiting {
            self.kills_explain(*id, waiting);
        }
    }

    fn read(&mut self, wire: &mut Wire, queue: usize) {
        let (topic, id) = QUEUES[queue];
        let known = self.queues[queue].end;
        let mut next = self.queues[queue].begin;
        loop {
            let stretch = wire.pull(topic, id, next).expect("the broker is up");
            if let Some(begin) = stretch.moved_to {
                self.begins_at(queue, begin);
            } else if stretch.messages.is_empty() {
                break;
            }
            for found in &stretch.messages {
                self.see(queue, found);
            }
            next = stretch.next;
        }
        assert!(next >= known, "{topic}/{id} had {known} messages and ends at {next}");
    }

    fn kills_explain(&self, id: Id, waiting: &Waiting) {
        let due = match waiting.fate {
            Fate::Due(due) | Fate::Perhaps(due) => due,
            Fate::Never | Fate::Open => {
                assert!(waiting.arrivals.is_empty(), "{id:?} came: {waiting:?}");
                return;
            }
        };
        for arrival in &waiting.arrivals {
            assert!(*arrival >= due, "{id:?} is early: {waiting:?}");
        }
        for pair in waiting.arrivals.windows(2) {
            // What had just been carried on before a kill is there twice from then on.
            let before = self.kill_between(waiting.sent_ms, pair[1]).map(|kill| kill - pair[0]);
            let explains = before.is_some_and(|before| before <= AGAIN_MS);
            assert!(explains, "{id:?} came again, and the kill was {before:?} ms after the first: {waiting:?}");
            // A transaction ends once.
            assert!(due != 0, "{id:?} was committed twice: {waiting:?}");
        }
    }

    fn kill_between(&self, first: i64, second: i64) -> Option<i64> {
        let next = self.kills.partition_point(|kill| *kill < first);
        self.kills.get(next).copied().filter(|kill| *kill <= second)
    }

    /// How many of those that must come have not.
    pub fn missing(&self) -> usize {
        self.waiting.values().filter(|one| matches!(one.fate, Fate::Due(_)) && one.arrivals.is_empty()).count()
    }

    /// Figures of what waited.
    pub fn sum_up(&mut self) {
        let mut figures = std::mem::take(&mut self.figures);
        figures.waited = self.waiting.len();
        for waiting in self.waiting.values() {
            figures.came_again += waiting.arrivals.len().saturating_sub(1);
            for pair in waiting.arrivals.windows(2) {
                if let Some(kill) = self.kill_between(pair[0], pair[1]) {
                    figures.again_after_ms = figures.again_after_ms.max(kill - pair[0]);
                }
            }
            if let (Fate::Due(due), Some(first)) = (waiting.fate, waiting.arrivals.first())
                && due > 0
                && self.kills.is_empty()
            {
                figures.latest_ms = figures.latest_ms.max(first - due);
            }
        }
        self.figures = figures;
    }

    /// Messages are found by their keys, once and where they are.
    pub fn check_keys(&self, port: u16, acks: &[Ack]) {
        let mut wire = Wire::connect(port).expect("the broker is up");
        for ack in acks {
            let (topic, queue) = QUEUES[ack.queue];
            let there = self.queues[ack.queue].seen.contains_key(&ack.offset);
            let expected = if there { vec![(queue, ack.offset)] } else { Vec::new() };
            let found = wire.places_of_key(topic, &ack.id.key()).expect("the broker is up");
            assert_eq!(found, expected, "by the key of {ack:?}");
        }
    }
}
