//! A master and its slaves, gone through disasters: one seed decides everything.
//!
//! The machines are the real ones; around them are a log in memory (real records, tiny segments, a border up to which it is on the disk),
//! connections that carry bytes in order, late and cut anywhere, a nameserver that keeps the newest epoch, clients, and an operator who
//! promotes, cuts and empties. Faults come one after the other, overlapping; then everything heals, and must be well soon.
//!
//! What is held against each step, by [`audit::Audit`] and where the step is taken:
//!
//! | | |
//! |---|---|
//! | acknowledged | as many logs as the mode says have held the record at its place, with synchronous flush on their disks |
//! | shown to consumers | answered before, and held like that, or as old as `slaveTimeout`; never more than the own log has safe; never back |
//! | one writer for each epoch | and a master that has heard of a newer epoch acknowledges nothing |
//! | copies | what a slave appends, and all that it has when it follows, is what its master has there, byte for byte |
//! | nothing silently overwritten | a log is cut only where the two really part, and only when told to; it begins anew only when empty or told to |
//! | a promotion | the new master has what was acknowledged, unless all who held it have lost it or are away |
//! | after healing | one master, all slaves follow and have all of its log, no send waits, what is sent then is acknowledged |
//!
//! What it cannot see: a byte that is changed outside of a record's length, magic, place, CRC and body, because no check covers it.
//!
//! | what | how much | more |
//! |---|---|---|
//! | random seeds | `SEEDS` | `FERROMQ_REPLICATION_SEEDS`, from `FERROMQ_REPLICATION_FIRST` on |
//! | bugs planted in the machines and in what uses them | `SEEDS_PER_BUG` seeds at most for each | |
//! | one seed again, told step by step | | `FERROMQ_REPLICATION_SEED` |

mod audit;
mod faults;
mod master;
mod network;
mod node;
mod processes;
mod slave;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use self::world::World;
use crate::planted::{Bug, plant};

const SEEDS: u64 = 2000;

/// Each bug is found by one of so many seeds.
const SEEDS_PER_BUG: u64 = 1000;

/// After so many failures it is enough.
const FAILURES_MAX: usize = 5;

/// A number from the environment.
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Does `case` for each number below `count`, on all cores. Those that fail hinder no others, unless they are many.
fn on_all_cores(count: u64, case: impl Fn(u64) + Sync) {
    let (next, failed) = (AtomicU64::new(0), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::SeqCst) < FAILURES_MAX {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    if catch_unwind(AssertUnwindSafe(|| case(number))).is_err() {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert_eq!(failed, 0, "{failed} of {} failed, see above", next.into_inner().min(count));
}

#[test]
fn disasters_take_nothing_that_was_promised() {
    if let Some(seed) = asked("FERROMQ_REPLICATION_SEED") {
        let mut world = World::new(seed, true);
        return world.run();
    }
    let first = asked("FERROMQ_REPLICATION_FIRST").unwrap_or(0);
    let totals = [const { AtomicU64::new(0) }; 6];
    on_all_cores(asked("FERROMQ_REPLICATION_SEEDS").unwrap_or(SEEDS), |number| {
        let seed = first + number;
        let mut world = World::new(seed, false);
        match catch_unwind(AssertUnwindSafe(|| world.run())) {
            Ok(()) => {
                for (total, count) in totals.iter().zip(world.counts()) {
                    total.fetch_add(count, Ordering::Relaxed);
                }
            }
            Err(panic) => {
                eprintln!("again: FERROMQ_REPLICATION_SEED={seed}");
                resume_unwind(panic);
            }
        }
    });
    let [acknowledged, late, follows, parted, gone, bad] = totals.map(AtomicU64::into_inner);
    println!(
        "{acknowledged} acknowledged, {late} answered late, {follows} times followed, {parted} parted, {gone} gone, {bad} bad packets"
    );
    // A disaster that never comes about shows nothing.
    assert!([acknowledged, late, follows, parted, gone, bad].iter().all(|count| *count > 0));
}

/// What could be wrong and is not.
const BUGS: [Bug; 22] = [
    Bug::ReportBeyondEndCounted,
    Bug::SilentSlaveKept,
    Bug::OneCopyLess,
    Bug::OwnDiskForgotten,
    Bug::ShownUnconfirmed,
    Bug::StaleConnectionHeard,
    Bug::ReportedBeforeAppend,
    Bug::WrittenReported,
    Bug::FirstReportUnflushed,
    Bug::NotCompared,
    Bug::ComparedOnce,
    Bug::BadBytesKept,
    Bug::SilentMasterKept,
    Bug::RestartedWhenParted,
    Bug::CommonEndTooLate,
    Bug::CommonEndTooEarly,
    Bug::PartialRecordAppended,
    Bug::BadRecordAppended,
    Bug::UnflushedSent,
    Bug::FencedMasterWrites,
    Bug::EpochKept,
    Bug::ShownAtOpen,
];

#[test]
fn bugs_that_replication_could_have_are_found() {
    on_all_cores(BUGS.len() as u64, |number| {
        let bug = BUGS[number as usize];
        plant(Some(bug));
        let finds = |seed: &u64| catch_unwind(|| World::new(*seed, false).run()).is_err();
        let seed = (0..SEEDS_PER_BUG).find(finds);
        plant(None);
        println!("{bug:?} is found by seed {seed:?}");
        assert!(seed.is_some(), "{bug:?} is not found by any of {SEEDS_PER_BUG} seeds");
    });
}
