//! Where two logs part. The stream has no name of a log, so a slave looks before it follows.
//!
//! A record says where it stands, when it was stored and by whom, and in which place of its queue: two that are equal are one, and so is
//! everything before them. So the last record of the slave tells whether all of its log is the master's; if not, halving finds the end of
//! what the two have in common, over the first records of the segments and then inside one: some `log2(segments) + log2(bytes of one)`
//! questions. The master answers with VIEW_MESSAGE_BY_ID (33), which every RocketMQ has.

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::Record;

use crate::planted::{Bug, planted};

/// A question: what have we, and what has the master? It is about the last of our records that begin at `near` or before, and not before
/// `from`, where one of ours begins, or a filler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub from: PhysicalOffset,
    pub near: PhysicalOffset,
}

/// The answer.
#[derive(Clone, Copy, Debug)]
pub struct Probed<'a> {
    /// Where our record begins; `near` when there is none of ours.
    pub at: PhysicalOffset,
    /// Our record, and nothing behind it.
    pub ours: Option<&'a [u8]>,
    /// What the master gives for a record at `at`, if anything.
    pub theirs: Option<&'a [u8]>,
}

impl Probed<'_> {
    /// Where the record ends, if the two are one.
    fn common_end(&self) -> Option<PhysicalOffset> {
        let ours = self.ours.filter(|ours| self.theirs == Some(ours))?;
        Some(self.at + ours.len() as u64)
    }

    /// Whether the two differ because one of them is damaged: it is a record of that place, and its body is not what it was.
    fn is_damaged(&self) -> bool {
        let is_spoilt = |bytes: &[u8]| {
            let record = Record::parse(bytes).ok().filter(|record| record.physical_offset() == self.at);
            record.is_some_and(|record| record.check_crc().is_err())
        };
        self.ours != self.theirs && [self.ours, self.theirs].into_iter().flatten().any(is_spoilt)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// To be answered with [`Comparing::answered`].
    Ask(Probe),
    /// The master has all that we have.
    Equal,
    /// It has something else, or nothing, from `common` on; `None`: there is not one record in common.
    Parted { common: Option<PhysicalOffset> },
    /// The record there is damaged, here or at the master, so nothing can be said.
    Damaged { at: PhysicalOffset },
}

#[derive(Debug)]
pub struct Comparing {
    segment_len: u64,
    /// The first byte that both may have.
    first: PhysicalOffset,
    /// Of our log.
    end: PhysicalOffset,
    /// How far the master's log went before anything was asked: it goes no less far now.
    theirs: PhysicalOffset,
    /// Where our first record begins that is not the master's, of those that are known.
    parted: PhysicalOffset,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Our last record; `segment` is where it is looked for.
    Last {
        segment: PhysicalOffset,
    },
    /// What the master has where our log has a filler behind its last record.
    Filler {
        at: PhysicalOffset,
    },
    /// The first records of the segments `low..high`, counted from the one that `first` is in, are looked at; that of the one before `low` is the master's.
    Segments {
        low: u64,
        high: u64,
    },
    /// Our records from `from` on; what is before is the master's.
    Records {
        from: PhysicalOffset,
    },
    Damaged {
        at: PhysicalOffset,
    },
}

impl Comparing {
    /// Our log is not empty, and reaches behind the master's first byte. `first` is the first byte that both may have; `end` is our
    /// end, `theirs` the master's.
    pub fn new(first: PhysicalOffset, end: PhysicalOffset, theirs: PhysicalOffset, segment_len: u64) -> Comparing {
        let segment = PhysicalOffset(end.0.saturating_sub(1)).file_start(segment_len).max(first);
        Comparing { segment_len, first, end, theirs, parted: end, step: Step::Last { segment } }
    }

    /// What is to be asked next, or what came of it.
    pub fn next(&self) -> Comparison {
        match self.step {
            Step::Last { segment } if segment < self.parted => {
                Comparison::Ask(Probe { from: segment, near: PhysicalOffset(self.parted.0 - 1) })
            }
            Step::Last { .. } => Comparison::Parted { common: None },
            Step::Filler { at } if at < self.end => Comparison::Ask(Probe { from: at, near: at }),
            Step::Filler { .. } => Comparison::Equal,
            Step::Segments { low, high } if low < high => {
                let at = self.segment(low + (high - low) / 2);
                Comparison::Ask(Probe { from: at, near: at })
            }
            Step::Segments { .. } => Comparison::Parted { common: None },
            Step::Damaged { at } => Comparison::Damaged { at },
            Step::Records { from } if from < self.parted => {
                let near = PhysicalOffset(from.0 + (self.parted.0 - 1 - from.0) / 2);
                Comparison::Ask(Probe { from, near })
            }
            Step::Records { from } => {
                let from = if planted(Bug::CommonEndTooEarly) { self.first } else { from };
                let from = if planted(Bug::CommonEndTooLate) { self.end } else { from };
                Comparison::Parted { common: Some(from) }
            }
        }
    }

    /// Goes on with the answer to what [`Comparing::next`] has asked.
    pub fn answered(&mut self, probed: Probed<'_>) {
        if probed.is_damaged() {
            self.step = Step::Damaged { at: probed.at };
            return;
        }
        let common_end = probed.common_end();
        self.step = match self.step {
            Step::Last { segment } => match (common_end, probed.ours) {
                (Some(end), _) => Step::Filler { at: end },
                (None, Some(_)) => {
                    self.parted = probed.at;
                    Step::Segments { low: 0, high: 1 + self.index(probed.at) }
                }
                // Only a filler, or nothing, at the end.
                (None, None) => {
                    self.parted = segment;
                    let before = PhysicalOffset(segment.0.saturating_sub(1)).file_start(self.segment_len);
                    Step::Last { segment: before.max(self.first) }
                }
            },
            Step::Filler { at } => {
                // The master went on in this segment, or may yet: it has a filler there only if its log goes further and no record is there.
                let goes_on =
                    self.theirs < self.end || probed.theirs.is_some_and(|theirs| Record::head_at(theirs, at).is_some());
                if goes_on {
                    self.parted = at;
                    Step::Records { from: at }
                } else {
                    Step::Filler { at: self.end }
                }
            }
            Step::Segments { low, high } => {
                let middle = low + (high - low) / 2;
                let (low, high) = match common_end {
                    Some(_) => (middle + 1, high),
                    None => (low, middle),
                };
                if low < high || low == 0 {
                    Step::Segments { low, high }
                } else {
                    self.parted = self.parted.min(self.segment(low));
                    Step::Records { from: self.segment(low - 1) }
                }
            }
            Step::Records { from } => match common_end {
                Some(end) => Step::Records { from: end },
                None => {
                    // None of ours: a filler is all that is left.
                    let at = if probed.ours.is_some() { probed.at } else { from };
                    self.parted = at.clamp(from, PhysicalOffset(self.parted.0 - 1));
                    Step::Records { from }
                }
            },
            Step::Damaged { at } => Step::Damaged { at },
        };
    }

    /// Where the segment of that number begins, for us.
    fn segment(&self, index: u64) -> PhysicalOffset {
        (self.first.file_start(self.segment_len) + index.saturating_mul(self.segment_len)).max(self.first)
    }

    fn index(&self, at: PhysicalOffset) -> u64 {
        (at - self.first.file_start(self.segment_len)) / self.segment_len.max(1)
    }
}

#[cfg(test)]
#[path = "comparing_test.rs"]
mod tests;
