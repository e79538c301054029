//! What was promised, and whether it holds.

use std::collections::BTreeMap;

use super::node::Node;
use super::world::{Mode, SLAVE_TIMEOUT_MS};
use crate::model_log::ModelLog;

/// Where a record's body begins: no property, IPv4 hosts. A body repeats the message's number.
const BODY_AT: usize = 88;

#[derive(Clone, Debug)]
pub struct Message {
    pub at: u64,
    pub end: u64,
    /// Nodes whose logs have held it as safely as the mode promises, as bits.
    pub had: u32,
    /// Nodes that have lost it since: a power cut, or the operator.
    pub lost: u32,
    /// When it was appended, by that node's clock; and by which process.
    pub born: (u64, u64),
    /// Acknowledged, or shown to consumers, with as many copies as the mode says.
    pub is_promised: bool,
    /// Nobody promises it any more.
    pub is_given_up: bool,
}

#[derive(Default)]
pub struct Audit {
    pub messages: Vec<Message>,
    /// Who has acknowledged in an epoch.
    writers: BTreeMap<u64, usize>,
}

/// What consumers are shown of a log, when, and since when its node is master, by that node's clock.
pub struct Seen {
    pub from: u64,
    pub to: u64,
    pub now: u64,
    pub since: u64,
}

impl Message {
    /// What a master that does not know yet that it is none promises alone is worth nothing.
    fn promise(&mut self, is_by_newest: bool) {
        if is_by_newest {
            (self.is_promised, self.is_given_up) = (true, false);
        } else if !self.is_promised {
            (self.is_promised, self.is_given_up) = (true, true);
        }
    }
}

/// The message of a record.
pub fn id_of(record: &[u8]) -> u64 {
    u64::from_be_bytes(*record[BODY_AT..].first_chunk().unwrap())
}

impl Audit {
    /// Number of the next message.
    pub fn appended(&mut self, at: u64, end: u64, born: (u64, u64)) {
        self.messages.push(Message { at, end, had: 0, lost: 0, born, is_promised: false, is_given_up: false });
    }

    /// A node's log is as safe as the mode promises from one place to another.
    pub fn safe(&mut self, node: usize, log: &ModelLog, from: u64, to: u64) {
        let begin = log.starts().partition_point(|start| *start < from);
        for start in log.starts()[begin..].iter().take_while(|start| **start < to) {
            let message = &mut self.messages[id_of(log.record_at(*start).unwrap()) as usize];
            if message.at == *start && message.end <= to {
                message.had |= 1 << node;
                message.lost &= !(1 << node);
            }
        }
    }

    /// A node's log is about to lose what is behind `to`.
    pub fn loses(&mut self, node: usize, log: &ModelLog, to: u64) {
        for start in log.starts().iter().rev().take_while(|start| **start >= to) {
            let message = &mut self.messages[id_of(log.record_at(*start).unwrap()) as usize];
            message.lost |= message.had & 1 << node;
        }
    }

    /// A master's consumers are shown its log from one place to another.
    pub fn shown(&mut self, node: usize, nodes: &[Node], seen: Seen, mode: &Mode, newest_epoch: u64) {
        let Seen { from, to, now, since } = seen;
        let Node { log, process, .. } = &nodes[node];
        let begin = log.starts().partition_point(|start| *start < from);
        for start in log.starts()[begin..].iter().take_while(|start| **start < to) {
            let message = &mut self.messages[id_of(log.record_at(*start).unwrap()) as usize];
            let (appended_at, by) = message.born;
            let age = now - if by == *process { appended_at } else { since };
            // Where it is gone with what is old, it was confirmed before.
            let gone = nodes.iter().enumerate().filter(|(_, other)| other.log.first() > *start);
            let had = gone.fold(message.had, |had, (other, _)| had | 1 << other);
            let copies = had.count_ones() as usize;
            assert!(
                copies >= mode.copies || age >= SLAVE_TIMEOUT_MS,
                "message at {start} is shown after {age} ms with {copies} copies"
            );
            if copies >= mode.copies {
                message.promise(nodes[node].epoch == newest_epoch);
            }
        }
    }

    pub fn acknowledged(&mut self, id: u64, node: usize, nodes: &[Node], mode: &Mode, newest_epoch: u64) {
        let (epoch, knows) = (nodes[node].epoch, nodes[node].knows);
        assert!(knows <= epoch, "node {node} acknowledges in epoch {epoch} and has heard of {knows}");
        // Who is master by mistake alone has no epoch.
        let writer = if epoch == 0 { node } else { *self.writers.entry(epoch).or_insert(node) };
        assert_eq!(writer, node, "two nodes acknowledge in epoch {epoch}");
        let message = &mut self.messages[id as usize];
        let copies = message.had.count_ones() as usize;
        assert!(copies >= mode.copies, "message {id} at {} is acknowledged with {copies} copies", message.at);
        message.promise(epoch == newest_epoch);
    }

    /// What a master's log has now is the truth; `away`: nodes that could not be asked.
    pub fn mastered_by(&mut self, node: usize, nodes: &[Node], mode: &Mode, away: u32) {
        let log = &nodes[node].log;
        for (id, message) in self.messages.iter_mut().enumerate() {
            if !message.is_promised || message.is_given_up || message.at < log.first() {
                continue;
            }
            if log.record_at(message.at).is_some_and(|record| id_of(record) == id as u64) {
                continue;
            }
            message.is_given_up = true;
            if mode.copies == 1 {
                continue;
            }
            let left = message.had & !message.lost & !away;
            // A master that has lost it and went on all the same: what becomes of the slave that holds it is the operator's business.
            let is_excused = !mode.sync_flush && message.lost != 0;
            assert!(
                left == 0 || is_excused,
                "message {id} at {} is not on the new master {node}, but on {left:#b}",
                message.at
            );
            assert!(!mode.sync_flush || message.lost != 0, "message {id} at {} is lost", message.at);
        }
    }
}

/// How far two logs have the same records, from the first byte that both may have on; `None`: no record.
pub fn common_end(ours: &ModelLog, theirs: &ModelLog) -> Option<u64> {
    let first = ours.first().max(theirs.first());
    let mut common = None;
    for start in ours.starts().iter().filter(|start| **start >= first) {
        let record = ours.record_at(*start);
        if theirs.record_at(*start) != record {
            break;
        }
        common = record.map(|record| start + record.len() as u64);
    }
    common
}
