//! A disk that becomes full, and one that would if nothing were deleted.

use std::fs;

use super::SETTINGS;
use super::audit::Ledger;
use super::load::{Crew, Progress, Refused, make_topics};
use super::small_disk::{self, FileSystem, SmallDisk};
use super::wire::now_ms;
use crate::cluster::{Broker, Nameserver};

/// Bytes of a file of the log, and of a buffer of the write pool then.
const SEGMENT_LEN: u64 = 512 << 10;

/// A broker on a small disk, whoever works with it, and what is known.
struct Scene {
    // Order matters: the broker ends before its disk goes.
    broker: Broker,
    disk: SmallDisk,
    ledger: Ledger,
    crew: Crew,
    _nameserver: Nameserver,
    _home: tempfile::TempDir,
}

impl Scene {
    /// One message of each kind that waits goes with `every` plain ones: a segment with such goes five times a second at most.
    fn set(file_system: FileSystem, mib: u64, extra: &[&str], every: u64) -> Scene {
        let home = small_disk::home();
        let disk = SmallDisk::mount(home.path(), file_system, mib);
        let nameserver = Nameserver::start(home.path());
        let store = disk.dir.join("store");
        let segment = format!("mappedFileSizeCommitLog={SEGMENT_LEN}");
        let settings = [&SETTINGS[..], &[&segment], extra].concat();
        let broker = Broker::start_in(home.path(), "small", &nameserver.addr(), &settings, &store, disk.wrapper());
        make_topics(broker.port);
        Scene { broker, disk, ledger: Ledger::default(), crew: Crew::new(every), _nameserver: nameserver, _home: home }
    }

    /// [`Crew::work`], for a play with the broker and its disk.
    fn run(&mut self, play: impl FnOnce(&Progress, &mut Broker, &SmallDisk, &mut Ledger)) -> usize {
        let Scene { broker, disk, ledger, crew, .. } = self;
        crew.work(broker.port, ledger, |progress, ledger| play(progress, broker, disk, ledger))
    }

    /// What is gone is in segments that are.
    fn audit(&mut self) {
        self.ledger.audit(self.broker.port);
        let names = fs::read_dir(self.disk.path("store/commitlog")).expect("the log is there");
        let starts = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
        let begin = starts.min().expect("the log has a file");
        let gone = self.ledger.gone_to;
        assert!(gone <= begin, "a message at {gone} is gone, and the log begins at {begin}");
    }

    fn assert_refused_for_want_of_room(&self) {
        for Refused { id, code, remark } in self.ledger.refusals() {
            let is_full = remark.contains("until there is room for");
            let is_behind = remark.contains("until its entries can be written") && remark.contains("No space left");
            assert!(*code == 14 && (is_full || is_behind), "{id:?} was refused with {code}, {remark}");
        }
    }

    /// All that waits comes, once.
    fn end(mut self, name: &str) {
        self.crew.await_all(self.broker.port, &mut self.ledger);
        self.broker.restart_clean();
        self.audit();
        self.ledger.sum_up();
        println!("{name}: {:?}", self.ledger.figures);
    }
}

/// How the broker that has the full disk is run.
struct Mode {
    name: &'static str,
    flush: &'static str,
    pool: bool,
    /// Old messages go for want of room.
    deletes: bool,
}

const ASYNC: Mode = Mode { name: "async flush", flush: "ASYNC_FLUSH", pool: false, deletes: false };
const SYNC: Mode = Mode { name: "sync flush", flush: "SYNC_FLUSH", ..ASYNC };
const POOL_ASYNC: Mode = Mode { name: "the write pool and async flush", pool: true, ..ASYNC };
const POOL_SYNC: Mode = Mode { name: "the write pool and sync flush", pool: true, ..SYNC };
const DELETING: Mode = Mode { name: "async flush and forced deletion", deletes: true, ..ASYNC };

/// Three times full and freed again, once with a kill and a start in between.
fn loses_nothing_when_full(file_system: FileSystem, mode: &Mode) {
    let own = [
        format!("flushDiskType={}", mode.flush),
        format!("transientStorePoolEnable={}", mode.pool),
        format!("cleanFileForciblyEnable={}", mode.deletes),
        // Where it is not looked at all the time how full the disk is, files that find no room are what tells it.
        format!("cleanResourceInterval={}", if mode.deletes { 10 } else { 1000 }),
    ];
    let mut scene = Scene::set(file_system, 96, &own.each_ref().map(String::as_str), 50);
    let may_lose = mode.pool && mode.flush == "ASYNC_FLUSH";
    let mut ends_refused = 0;
    for round in 0..3 {
        let killed = round == 1;
        let begun = now_ms();
        ends_refused += scene.run(|progress, broker, disk, ledger| {
            progress.await_more("messages", &progress.acked, 2000);
            disk.fill();
            progress.await_more("refusals", &progress.refused, 300);
            if killed {
                broker.process.kill_hard();
                ledger.killed(now_ms());
                return;
            }
            disk.free();
            progress.await_more("messages after there is room again", &progress.acked, 2000);
        });
        if killed {
            scene.broker.assert_store_is_whole();
            // It is up, or says why not.
            if !scene.broker.try_start() {
                assert!(scene.broker.process.logged(|line| line.contains("mqbroker: ") && line.contains("space")));
            }
            scene.disk.free();
            if scene.broker.process.has_ended() {
                scene.broker.start_again();
            }
        }
        if killed && may_lose {
            scene.ledger.may_lack_what_was_told_since(begun);
            scene.crew.waiter.forget_open();
            scene.ledger.loses_at_most = 5 * SEGMENT_LEN;
        }
        scene.audit();
        // What a kill may take it has taken by now.
        scene.ledger.loses_at_most = 0;
    }
    scene.assert_refused_for_want_of_room();
    assert_eq!(scene.ledger.figures.deleted > 0, mode.deletes, "{:?}", scene.ledger.figures);
    println!("ends of transactions refused: {ends_refused}");
    scene.end(&format!("a full disk, {}", mode.name));
}

#[test]
fn a_full_disk_loses_nothing() {
    loses_nothing_when_full(FileSystem::Tmpfs, &ASYNC);
}

#[test]
fn a_full_disk_loses_nothing_with_sync_flush() {
    loses_nothing_when_full(FileSystem::Tmpfs, &SYNC);
}

#[test]
fn a_full_disk_loses_nothing_with_the_write_pool() {
    loses_nothing_when_full(FileSystem::Tmpfs, &POOL_ASYNC);
}

#[test]
fn a_full_disk_loses_nothing_with_the_write_pool_and_sync_flush() {
    loses_nothing_when_full(FileSystem::Tmpfs, &POOL_SYNC);
}

#[test]
fn a_full_disk_loses_nothing_but_what_is_deleted_for_it() {
    loses_nothing_when_full(FileSystem::Tmpfs, &DELETING);
}

#[test]
fn a_full_disk_loses_nothing_on_ext4() {
    loses_nothing_when_full(FileSystem::Ext4, &ASYNC);
}

#[test]
fn a_full_disk_loses_nothing_with_sync_flush_on_ext4() {
    loses_nothing_when_full(FileSystem::Ext4, &SYNC);
}

#[test]
fn a_full_disk_loses_nothing_with_the_write_pool_on_ext4() {
    loses_nothing_when_full(FileSystem::Ext4, &POOL_ASYNC);
}

#[test]
fn a_full_disk_loses_nothing_with_the_write_pool_and_sync_flush_on_ext4() {
    loses_nothing_when_full(FileSystem::Ext4, &POOL_SYNC);
}

#[test]
fn a_full_disk_loses_nothing_but_what_is_deleted_for_it_on_ext4() {
    loses_nothing_when_full(FileSystem::Ext4, &DELETING);
}

#[test]
fn a_disk_of_a_third_of_the_traffic_is_enough_where_old_messages_go() {
    const MIB: u64 = 32;
    // From there to where sends are refused is what comes in about a second.
    let mut scene = Scene::set(FileSystem::Tmpfs, MIB, &["diskSpaceCleanForciblyRatio=60"], 3000);
    // Their segment goes long before their time.
    let far = scene.crew.waiter.send_timers(scene.broker.port, 50, now_ms() + 15_000);
    scene.ledger.fates(far.fates);
    let mut rounds = 0;
    while scene.crew.senders.iter().map(|sender| sender.bytes).sum::<u64>() < 3 * (MIB << 20) {
        rounds += 1;
        scene.run(|progress, _, _, _| progress.await_more("messages", &progress.acked, 10_000));
        scene.audit();
    }
    // Refused at most while it was being made room.
    scene.assert_refused_for_want_of_room();
    let figures = &scene.ledger.figures;
    assert!(figures.deleted > 0 && figures.deleted_unread == 0, "{figures:?}");
    println!("{rounds} rounds");
    scene.end("a third of the traffic");
}
