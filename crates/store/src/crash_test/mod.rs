//! A store whose machine stops at any moment, on a disk that loses what was not synced.
//!
//! A [`Run`] does what a broker does to a store, with messages of its own and with those of a log that it copies, from a seed, and writes
//! down in a [`History`] what was promised. At a call to the disk the world stops; what a power cut may leave then is opened again and held
//! against what was promised by then: [`AfterCrash::check`]. Nor may `storeCheck` call any of it a fault, before it is opened or after.
//!
//! | what | how much | more |
//! |---|---|---|
//! | a crash at every call of a workload, each with some outcomes | `CUTS` outcomes | `FERROMQ_CRASH_CUTS` |
//! | random seeds: crash after crash, kills and calls that fail among them; in one of `ROTS_ONE_IN`, a bit flips at each crash | `SEEDS` | `FERROMQ_CRASH_SEEDS`, from `FERROMQ_CRASH_FIRST` on |
//! | the same two with the write pool, where a kill takes what was not committed | `POOL_STEPS`, `POOL_SEEDS` | the same |
//! | bugs planted in the disk | `SEEDS_PER_BUG` seeds at most for each | |
//! | the most that asynchronous flush loses | the defaults | |
//! | one of them again | | `FERROMQ_CRASH_SEED`, `FERROMQ_CRASH_AT` |

mod after_crash;
mod cases;
mod history;
mod machine;
mod rot;
mod run;
mod timers;
mod transactions;
mod windows;

use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use ferromq_protocol::PhysicalOffset;

use self::after_crash::{AfterCrash, check_files};
use self::cases::{asked, on_all_cores, repeatable};
use self::history::History;
use self::machine::{Mode, Moment, Place, SEGMENT_LEN};
use self::run::{FROM_LIST, Run};
use crate::Writer;
use crate::checkpoint::Checkpoint;
use crate::disk::LocalDisk;
use crate::restart::RestartOrder;
use crate::scripted_disk::{Bug, Dice, Fault, Part};
use crate::store::Store;
use crate::testing::{OtherLog, START_MS, message, query_bodies, read_bodies};

/// Outcomes of each crash of the workload that is crashed everywhere.
const CUTS: usize = 2;
/// Steps of that workload.
const STEPS: usize = 300;
const SEEDS: u64 = 1500;
const POOL_STEPS: usize = 150;
const POOL_SEEDS: u64 = 750;
/// So many of the random ones lose a bit at each crash.
const ROTS_ONE_IN: usize = 4;
/// Truncations, and outcomes of each crash in them.
const TRUNCATIONS: usize = 16;
const TRUNCATION_CUTS: usize = 2;

/// Every moment of a workload, before each call to the disk.
fn moments(mode: Mode, seed: u64, steps: usize) -> Vec<Moment> {
    let mut run = Run::new(Place::new(mode, START_MS, 0), History::default(), seed);
    let moments = Arc::default();
    run.watch_moments(&moments);
    assert!(run.open());
    for _ in 0..steps {
        run.step();
    }
    run.place.disk.watch_no_more();
    let last = run.moment();
    drop(run);
    let mut moments = std::mem::take(&mut *moments.lock());
    moments.push(last);
    moments
}

fn crash_everywhere(sync: bool, pool: bool) {
    let mode = Mode { sync, pool, bug: None };
    let steps = if pool { POOL_STEPS } else { STEPS };
    let moments = moments(mode, 12, steps);
    let cuts = asked("FERROMQ_CRASH_CUTS").map_or(CUTS, |cuts| usize::try_from(cuts).unwrap());
    let only = asked("FERROMQ_CRASH_AT").map(|only| usize::try_from(only).unwrap());
    eprintln!("{} calls of {steps} steps, {cuts} cuts at each", moments.len());
    on_all_cores(moments.len() * cuts, |number| {
        if only.is_some_and(|only| only != number) {
            return;
        }
        let moment = &moments[number / cuts];
        let how = |_: &[String]| format!("FERROMQ_CRASH_AT={number} FERROMQ_CRASH_CUTS={cuts}, at {}", moment.call);
        repeatable(how, |_| {
            let mut dice = Dice::new(number as u64);
            let mut run = AfterCrash::by_power_cut(moment, mode, &mut dice).check(&mut dice);
            // It goes on from there.
            for _ in 0..dice.below(4) {
                run.step();
            }
        });
    });
}

#[test]
fn a_power_cut_at_every_call_loses_nothing_that_was_on_the_disk() {
    crash_everywhere(false, false);
}

#[test]
fn a_power_cut_at_every_call_with_the_write_pool_loses_nothing_that_was_on_the_disk() {
    crash_everywhere(false, true);
}

#[test]
fn a_power_cut_at_every_call_with_the_write_pool_loses_nothing_that_was_acknowledged() {
    crash_everywhere(true, true);
}

#[test]
fn a_power_cut_at_every_call_loses_nothing_that_was_acknowledged() {
    crash_everywhere(true, false);
}

/// One crash after the other, from a seed.
fn crash_at_random(seed: u64, pool: bool, bug: Option<Bug>, told: &mut Vec<String>) {
    let mut dice = Dice::new(seed);
    let mode = Mode { sync: dice.one_in(2), pool, bug };
    let mut run = Run::new(Place::new(mode, START_MS, 0), History::default(), dice.roll());
    let mut rot = Dice::new(!seed);
    let rots = rot.one_in(ROTS_ONE_IN) && bug.is_none();
    for era in 0..1 + dice.below(3) {
        let calls = if dice.one_in(3) { 30 } else { 400 };
        let stopped = run.stop_after(dice.below(calls));
        let errno = if dice.one_in(2) { libc::EIO } else { libc::ENOSPC };
        let fault = Fault { after: dice.below(200), count: 1 + dice.below(4), errno, only_syncs: false };
        // A bug is to be found by itself.
        let fault = Some(fault).filter(|_| dice.one_in(3) && bug.is_none());
        if let Some(fault) = fault {
            run.place.disk.fail(fault);
        }
        let is_open = if era == 0 { run.open() } else { run.store.is_some() };
        if is_open {
            for _ in 0..dice.below(60) {
                run.step();
                if run.store.is_none() || !run.goes_on() {
                    break;
                }
            }
        }
        let mut left = if dice.one_in(4) {
            // Only the process ends.
            let forgets = run.place.disk.has_failed() && dice.one_in(2);
            told.push(format!("era {era}: {mode:?}, {fault:?}, killed, forgets: {forgets}"));
            if forgets { AfterCrash::by_kill_and_forgetting(run, &mut dice) } else { AfterCrash::by_kill(run) }
        } else {
            let moment = stopped.lock().take().unwrap_or_else(|| run.moment());
            told.push(format!("era {era}: {mode:?}, {fault:?}, power cut at {}", moment.call));
            drop(run);
            AfterCrash::by_power_cut(&moment, mode, &mut dice)
        };
        if bug == Some(Bug::RotsUnseen) {
            left.place.disk.flip(&left.place.root(), &mut rot, |flip| flip.part == Part::Log);
        } else if rots && let Some(flip) = left.rot(&mut rot) {
            told.push(format!("{flip:?}"));
        }
        run = left.check(&mut dice);
    }
}

fn crash_at_random_often(pool: bool, seeds: u64) {
    if let Some(seed) = asked("FERROMQ_CRASH_SEED") {
        return repeatable(|told| told.join("\n"), |told| crash_at_random(seed, pool, None, told));
    }
    let first = asked("FERROMQ_CRASH_FIRST").unwrap_or(0);
    let count = usize::try_from(asked("FERROMQ_CRASH_SEEDS").unwrap_or(seeds)).unwrap();
    on_all_cores(count, |number| {
        let seed = first + number as u64;
        repeatable(
            |told| format!("FERROMQ_CRASH_SEED={seed}\n{}", told.join("\n")),
            |told| crash_at_random(seed, pool, None, told),
        );
    });
    assert!(FROM_LIST.load(Ordering::Relaxed) > 0, "no start has taken a queue from the list");
}

#[test]
fn random_crashes_lose_nothing_that_was_promised() {
    crash_at_random_often(false, SEEDS);
}

#[test]
fn random_crashes_with_the_write_pool_lose_nothing_that_was_promised() {
    crash_at_random_often(true, POOL_SEEDS);
}

const MODES: [Mode; 4] = [
    Mode { sync: false, pool: false, bug: None },
    Mode { sync: true, pool: false, bug: None },
    Mode { sync: false, pool: true, bug: None },
    Mode { sync: true, pool: true, bug: None },
];

/// A store with some messages, all of which are in its files.
fn with_messages(mode: Mode, seed: u64, count: usize) -> Run {
    let mut run = Run::new(Place::new(mode, START_MS, 0), History::default(), seed);
    assert!(run.open());
    for _ in 0..count {
        run.append(1);
    }
    run.commit_all();
    run.settle();
    run
}

/// Does `case` so often in each mode, with a number of its own each time.
fn in_all_modes(count: usize, case: impl Fn(Mode, u64, &mut Dice) + Sync) {
    on_all_cores(MODES.len() * count, |number| {
        let (mode, seed) = (MODES[number % MODES.len()], (number / MODES.len()) as u64);
        repeatable(|_| format!("{mode:?}, number {seed}"), |_| case(mode, seed, &mut Dice::new(seed)));
    });
}

#[test]
fn what_an_open_finds_after_a_failed_sync_is_on_the_disk() {
    const COUNT: usize = 40;
    let refused = AtomicUsize::new(0);
    in_all_modes(COUNT, |mode, seed, dice| {
        let mut run = with_messages(mode, seed, 1 + dice.below(20));
        run.place.disk.fail(Fault { after: 0, count: 1, errno: libc::EIO, only_syncs: true });
        if mode.sync {
            // What was acknowledged before is on the disk by now. It may be the name of a file made ahead that cannot be synced.
            run.append(1);
            refused.fetch_add(usize::from(!run.goes_on()), Ordering::SeqCst);
        } else {
            run.store().flusher.flush().unwrap_err();
            refused.fetch_add(1, Ordering::SeqCst);
        }
        assert!(run.place.disk.has_failed());
        // The process ends and another one is started; later the power goes.
        let left = if seed % 3 == 0 { AfterCrash::by_kill(run) } else { AfterCrash::by_kill_and_forgetting(run, dice) };
        let run = left.check(dice);
        AfterCrash::by_power_cut(&run.moment(), mode, dice).check(dice);
    });
    assert!(refused.into_inner() > MODES.len() * COUNT * 9 / 10);
}

/// Whatever call it is that fails, and whatever is left of it.
#[test]
fn what_an_open_finds_after_one_that_failed_is_on_the_disk() {
    in_all_modes(5, |mode, seed, dice| {
        for after in 0.. {
            let run = with_messages(mode, seed, 1 + dice.below(20));
            let AfterCrash { place, history, .. } = AfterCrash::by_kill(run);
            place.disk.fail(Fault { after, count: 1, errno: libc::EIO, only_syncs: false });
            let mut run = Run::new(place, history, dice.roll());
            run.open();
            let was_met = run.place.disk.has_failed();
            let left = match was_met && dice.one_in(2) {
                true => AfterCrash::by_kill_and_forgetting(run, dice),
                false => AfterCrash::by_kill(run),
            };
            let run = left.check(dice);
            AfterCrash::by_power_cut(&run.moment(), mode, dice).check(dice);
            if !was_met {
                assert!(after > 10, "only {after} calls");
                return;
            }
        }
    });
}

/// Whatever moment of a truncation it is, and of what comes after it, and however long the part is that goes.
fn crash_in_truncations(pool: bool) {
    let only = asked("FERROMQ_CRASH_SEED");
    on_all_cores(TRUNCATIONS, |seed| {
        if only.is_some_and(|only| only != seed as u64) {
            return;
        }
        let mode = Mode { sync: seed % 2 == 0, pool, bug: None };
        let mut run = Run::new(Place::new(mode, START_MS, 0), History::default(), seed as u64);
        assert!(run.open());
        for _ in 0..10 + seed % 30 {
            run.append(1 + seed % 4);
        }
        run.settle();
        if seed % 3 == 0 {
            run.upkeep();
        }
        let moments = Arc::new(Mutex::new(Vec::new()));
        run.watch_moments(&moments);
        run.truncate();
        for _ in 0..3 {
            run.append(1);
            run.settle();
        }
        run.store().flusher.flush().unwrap();
        run.upkeep();
        run.place.disk.watch_no_more();
        let last = run.moment();
        drop(run);
        let moments = std::mem::take(&mut *moments.lock());
        for (number, moment) in moments.iter().chain([&last]).enumerate() {
            for cut in 0..TRUNCATION_CUTS {
                let how =
                    |_: &[String]| format!("FERROMQ_CRASH_SEED={seed}, moment {number}, cut {cut}, at {}", moment.call);
                repeatable(how, |_| {
                    let mut dice = Dice::new((seed * 1000 + number * 10 + cut) as u64);
                    let mut run = AfterCrash::by_power_cut(moment, mode, &mut dice).check(&mut dice);
                    run.append(1);
                    run.truncate();
                });
            }
        }
    });
}

#[test]
fn a_crash_in_a_truncation_leaves_a_log_without_a_gap() {
    crash_in_truncations(false);
}

#[test]
fn a_crash_in_a_truncation_with_the_write_pool_leaves_a_log_without_a_gap() {
    crash_in_truncations(true);
}

/// Whatever call of a truncation it is that fails: nothing has changed, or nothing is taken any more.
#[test]
fn a_truncation_that_fails_leaves_a_log_without_a_gap() {
    on_all_cores(TRUNCATIONS, |seed| {
        let mut dice = Dice::new(seed as u64);
        for after in 0.. {
            let mode = Mode { sync: false, pool: seed % 2 == 0, bug: None };
            let mut run = Run::new(Place::new(mode, START_MS, 0), History::default(), seed as u64);
            assert!(run.open());
            for _ in 0..10 + seed % 30 {
                run.append(1);
            }
            run.settle();
            let store = run.store();
            store.flusher.flush().and_then(|()| store.checkpoint.save(&*run.place.disk)).unwrap();
            let errno = if dice.one_in(2) { libc::EIO } else { libc::ENOSPC };
            run.place.disk.fail(Fault { after, count: 1, errno, only_syncs: false });
            run.truncate();
            let was_met = run.place.disk.has_failed();
            if run.goes_on() && run.store().check_writable().is_ok() {
                let flushed = run.store().watermarks().flushed.0;
                let said = Checkpoint::open(run.place.root().join("checkpoint")).unwrap();
                assert_eq!(said.found().map(|found| found.log), Some(flushed), "call {after}");
                // As if it had not been tried.
                run.append(1);
                run.settle();
            }
            let left = match was_met && dice.one_in(2) {
                true => AfterCrash::by_kill_and_forgetting(run, &mut dice),
                false => AfterCrash::by_kill(run),
            };
            let run = left.check(&mut dice);
            AfterCrash::by_power_cut(&run.moment(), mode, &mut dice).check(&mut dice);
            if !was_met {
                assert!(after > 5, "only {after} calls");
                return;
            }
        }
    });
}

/// Where the log is to begin anew.
const RESTARTS_AT: u64 = 5 * SEGMENT_LEN;

/// A copy with messages and timers, about to be given up.
fn given_up(mode: Mode, seed: usize) -> Run {
    let mut run = Run::new(Place::new(mode, START_MS, 0), History::default(), seed as u64);
    assert!(run.open());
    // Some have more segments than the place, some fewer.
    for _ in 0..5 + seed * 7 % 60 {
        run.append(1 + seed % 4);
    }
    run.commit_all();
    run.settle();
    if seed.is_multiple_of(3) {
        run.upkeep();
    }
    run.save_timers();
    run.timers = None;
    run.store().set_writer(Writer::Nobody).unwrap();
    run
}

/// Whether the log was given up, by what there is on the disk.
fn is_given_up(place: &Place) -> bool {
    let ordered = RestartOrder::read(&LocalDisk, &place.root()).unwrap();
    let path = place.root().join("checkpoint");
    let begin = || path.exists().then(|| Checkpoint::open(path).unwrap().found_begin()).flatten();
    ordered.is_some() || begin() == Some(RESTARTS_AT)
}

/// The log is empty, and begins where it was to; a copy goes on from there, and is there after a kill.
fn check_begun_anew(place: &Place, dice: &mut Dice) {
    check_files(place.root());
    if dice.one_in(2) {
        // An open that does not come to its end leaves nothing else.
        place.disk.fail(Fault { after: dice.below(30), count: 1, errno: libc::EIO, only_syncs: false });
        drop(Store::open(place.config()));
        place.disk.restart();
        check_files(place.root());
    }
    let store = Store::open(place.config()).unwrap();
    let marks = store.watermarks();
    for mark in [marks.min, marks.written, marks.flushed, marks.projected] {
        assert_eq!(mark.0, RESTARTS_AT, "{marks:?}");
    }
    assert!(store.queues.all().is_empty());
    assert!(!place.timers().exists());
    let in_dir = |name: &str| std::fs::read_dir(place.root().join(name)).unwrap().count();
    assert_eq!((in_dir("commitlog"), in_dir("index"), in_dir("consumequeue")), (1, 0, 0));
    let mut other = OtherLog { segment_len: SEGMENT_LEN, begin: RESTARTS_AT, bytes: Vec::new() };
    (7..50).for_each(|offset| _ = other.put(&message("A", 1, &[1; 700], "KEYS\u{1}k\u{2}"), offset, START_MS));
    store.set_writer(Writer::Stream).unwrap();
    other.offer_to(&store, 900).unwrap();
    store.flusher.flush().unwrap();
    let check = |store: &Store| {
        crate::testing::settle(store);
        let offsets: Vec<_> = read_bodies(store, "A", 1, 7).into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(offsets, (7..50).collect::<Vec<_>>());
        assert_eq!(query_bodies(store, "A", "k").len(), 43);
        assert_eq!((store.watermarks().min.0, store.watermarks().written.0), (RESTARTS_AT, other.end()));
    };
    check(&store);
    drop(store);
    check_files(place.root());
    check(&Store::open(place.config()).unwrap());
}

/// Whatever moment it is: the log is there as it was, or it is empty and begins where it was to.
fn crash_in_restarts(pool: bool) {
    let only = asked("FERROMQ_CRASH_SEED");
    on_all_cores(TRUNCATIONS, |seed| {
        if only.is_some_and(|only| only != seed as u64) {
            return;
        }
        let mode = Mode { sync: seed % 2 == 0, pool, bug: None };
        let run = given_up(mode, seed);
        let moments = Arc::new(Mutex::new(Vec::new()));
        run.watch_moments(&moments);
        run.store().restart_at(PhysicalOffset(RESTARTS_AT)).unwrap();
        run.place.disk.watch_no_more();
        let last = run.moment();
        drop(run);
        let moments = std::mem::take(&mut *moments.lock());
        assert!(moments.len() > 10, "{}", moments.len());
        for (number, moment) in moments.iter().chain([&last]).enumerate() {
            for cut in 0..TRUNCATION_CUTS {
                let how =
                    |_: &[String]| format!("FERROMQ_CRASH_SEED={seed}, moment {number}, cut {cut}, at {}", moment.call);
                repeatable(how, |_| {
                    let mut dice = Dice::new((seed * 1000 + number * 10 + cut) as u64);
                    let mut left = AfterCrash::by_power_cut(moment, mode, &mut dice);
                    let given_up = is_given_up(&left.place);
                    while given_up && dice.one_in(2) {
                        // Once more before the open has come to its end.
                        let mut run = Run::new(left.place, left.history, 0);
                        let stopped = run.stop_after(dice.below(40));
                        run.store = run.place.may_fail(Store::open(run.place.config()));
                        let moment = stopped.lock().take().unwrap_or_else(|| run.moment());
                        drop(run);
                        left = AfterCrash::by_power_cut(&moment, mode, &mut dice);
                    }
                    assert!(given_up || number < moments.len(), "it was done");
                    assert!(!given_up || number > 0, "it had not begun");
                    if given_up {
                        check_begun_anew(&left.place, &mut dice);
                    } else {
                        left.check(&mut dice);
                    }
                });
            }
        }
    });
}

#[test]
fn a_crash_while_the_log_begins_anew_leaves_the_one_or_the_other() {
    crash_in_restarts(false);
}

#[test]
fn a_crash_while_the_log_begins_anew_with_the_write_pool_leaves_the_one_or_the_other() {
    crash_in_restarts(true);
}

/// Whatever call it is that fails: nothing has changed, or nothing is taken any more and the next start does it.
#[test]
fn a_failure_while_the_log_begins_anew_leaves_the_one_or_the_other() {
    on_all_cores(TRUNCATIONS, |seed| {
        let mut dice = Dice::new(seed as u64);
        for after in 0.. {
            let mode = Mode { sync: false, pool: seed % 2 == 0, bug: None };
            let mut run = given_up(mode, seed);
            run.store().flusher.flush().unwrap();
            let errno = if dice.one_in(2) { libc::EIO } else { libc::ENOSPC };
            run.place.disk.fail(Fault { after, count: 1, errno, only_syncs: false });
            let done = run.store().restart_at(PhysicalOffset(RESTARTS_AT));
            let was_met = run.place.disk.has_failed();
            assert!(done.is_ok() || was_met, "call {after}: {done:?}");
            let given_up = is_given_up(&run.place);
            // It may have been a call of another thread's.
            assert!(given_up || done.is_err(), "call {after}: {done:?}");
            assert!(!(given_up && run.goes_on()) || done.is_ok(), "call {after}: {done:?}");
            if run.goes_on() && done.is_err() {
                // As if it had not been tried.
                run.store().set_writer(Writer::Local).unwrap();
                run.append(1);
                run.settle();
            }
            let left = match was_met && dice.one_in(2) {
                true => AfterCrash::by_kill_and_forgetting(run, &mut dice),
                false => AfterCrash::by_kill(run),
            };
            if is_given_up(&left.place) {
                check_begun_anew(&left.place, &mut dice);
            } else {
                let run = left.check(&mut dice);
                AfterCrash::by_power_cut(&run.moment(), mode, &mut dice).check(&mut dice);
            }
            if !was_met {
                assert!(after > 10, "only {after} calls");
                return;
            }
        }
    });
}

/// What a store could do wrong, and what it does not make good by itself.
const BUGS: [Bug; 22] = [
    Bug::NotSynced(Part::Copy),
    Bug::NotSynced(Part::Log),
    Bug::NotSynced(Part::Queues),
    Bug::NotSynced(Part::Index),
    Bug::NotSynced(Part::Timers),
    Bug::NotSynced(Part::TimersCheckpoint),
    Bug::NotSynced(Part::Checkpoint),
    Bug::NotSynced(Part::Aside),
    Bug::NamesNotSynced(Part::Log),
    Bug::NamesNotSynced(Part::Queues),
    Bug::NamesNotSynced(Part::Index),
    Bug::NamesNotSynced(Part::Timers),
    Bug::NamesNotSynced(Part::Root),
    Bug::SyncBeginsLate(Part::Log),
    Bug::SyncEndsEarly(Part::Log),
    Bug::SavedAheadOf(Part::Log),
    Bug::CutTooFar,
    Bug::ReplacedInSteps,
    Bug::WritesShort(Part::Timers),
    Bug::RotsUnseen,
    Bug::UsageNotLookedAtAgain,
    Bug::EndedBeforeCommitted,
];

/// And with the write pool.
const POOL_BUGS: [Bug; 7] = [
    Bug::CommitBeginsLate,
    Bug::CommitEndsEarly,
    Bug::CommitIsLate,
    Bug::CommitForgetsBegin,
    Bug::NotSynced(Part::Log),
    Bug::SyncEndsEarly(Part::Log),
    Bug::SavedAheadOf(Part::Log),
];

/// Each is found by one of so many seeds.
const SEEDS_PER_BUG: u64 = 1000;

#[test]
fn bugs_that_a_store_could_have_are_found() {
    let bugs: Vec<_> = BUGS.map(|bug| (bug, false)).into_iter().chain(POOL_BUGS.map(|bug| (bug, true))).collect();
    on_all_cores(bugs.len(), |number| {
        let (bug, pool) = bugs[number];
        let finds = |seed: &u64| catch_unwind(|| crash_at_random(*seed, pool, Some(bug), &mut Vec::new())).is_err();
        let seed = (0..SEEDS_PER_BUG).find(finds);
        println!("{bug:?}, with the write pool: {pool}, is found by seed {seed:?}");
        assert!(seed.is_some(), "{bug:?} is not found by any of {SEEDS_PER_BUG} seeds");
    });
}
