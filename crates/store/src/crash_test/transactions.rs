//! Transactions, in a run and after a crash, stored as the broker stores them: a half in a topic of its own, its end as an op message that
//! names the half's offset there, and before that, if it is a commit, the message itself.
//!
//! Which halves are open is told by the queues, as the broker reads them at its start, and from then on by what has ended since.

use std::collections::{BTreeMap, BTreeSet};

use ferromq_protocol::message::SysFlag;
use ferromq_protocol::topics::{TRANSACTION_HALF_TOPIC as HALVES, TRANSACTION_OP_HALF_TOPIC as OPS};

use super::history::{History, Put, TOPICS};
use super::run::Run;
use crate::scripted_disk::Bug;
use crate::store::Store;
use crate::testing::read_whole_bodies;

impl Run {
    /// One more half, or the end of one that is open.
    pub fn begin_or_end(&mut self) {
        let mut open = open_halves(self.store());
        open.retain(|offset, _| !self.ended.contains(offset));
        let which = self.dice.below(2 * open.len().max(1));
        let Some((offset, body)) = open.into_iter().nth(which) else {
            let body = self.body(20);
            self.put(HALVES, 0, vec![body], 0);
            return;
        };
        let op = format!("{offset},").into_bytes();
        // From here on nobody asks after it, whatever becomes of its end.
        self.ended.insert(offset);
        if !is_committed(&body) {
            self.put(OPS, 0, vec![op], 0);
        } else if self.place.mode.bug == Some(Bug::EndedBeforeCommitted) {
            if self.put(OPS, 0, vec![op], 0) {
                self.put(TOPICS[0], 0, vec![body], SysFlag::TRANSACTION_COMMIT);
            }
        } else if self.put(TOPICS[0], 0, vec![body], SysFlag::TRANSACTION_COMMIT) {
            self.put(OPS, 0, vec![op], 0);
        }
    }
}

impl History {
    /// Where the half with that body is in the log.
    pub fn half_of(&self, of: &[u8]) -> i64 {
        let half = self.puts.iter().rev().find_map(|known| match &known.put {
            Put::Message { topic, physical, body, .. } if *topic == HALVES && body == of => Some(*physical),
            _ => None,
        });
        half.unwrap().cast_signed()
    }
}

/// What the producer says of a half, however often it is asked.
fn is_committed(body: &[u8]) -> bool {
    body.last().is_some_and(|last| last % 3 != 0)
}

/// The halves that an op message ends.
fn ended_by(body: &[u8]) -> u64 {
    let text = std::str::from_utf8(body).unwrap();
    text.strip_suffix(',').and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no op message: {text:?}"))
}

/// The halves that nothing has ended, by what the queues show.
fn open_halves(store: &Store) -> BTreeMap<u64, Vec<u8>> {
    let mut halves: BTreeMap<_, _> = read_whole_bodies(store, HALVES, 0, 0).into_iter().collect();
    for (_, op) in read_whole_bodies(store, OPS, 0, 0) {
        halves.remove(&ended_by(&op));
    }
    halves
}

/// A half ends once, with its message in the log by then if it was committed, and nothing comes of it after that; or it is asked after again.
pub fn check_transactions(store: &Store, history: &History) {
    if history.rot.has_any {
        // Of an op message that cannot be read nobody knows.
        return;
    }
    let (mut open, mut ended, mut came) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for known in &history.puts {
        match &known.put {
            Put::Message { topic, offset: Some(offset), body, .. } if *topic == HALVES => {
                open.insert(*offset, (body.as_slice(), known.end));
            }
            Put::Message { topic, body, .. } if *topic == OPS => {
                let offset = ended_by(body);
                let Some((half, _)) = open.remove(&offset) else { panic!("half {offset} ends twice, or never was") };
                assert!(
                    !is_committed(half) || came.contains(half),
                    "half {offset} has ended, and its message is not there"
                );
                ended.insert(half);
            }
            Put::Message { body, .. } => {
                assert!(!ended.contains(body.as_slice()), "something comes of a half that has ended");
                came.insert(body.as_slice());
            }
            Put::Deletion { .. } => {}
        }
    }
    let asked = open_halves(store);
    let open = open.into_iter().filter(|(_, (_, end))| *end > history.min);
    let expected: BTreeMap<_, _> = open.map(|(offset, (body, _))| (offset, body.to_vec())).collect();
    assert!(asked == expected, "{:?} are asked after, and {:?} are open", asked.keys(), expected.keys());
}
