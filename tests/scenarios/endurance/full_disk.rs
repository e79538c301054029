//! A disk that becomes full, and one that would if nothing were deleted.
//!
//! The disk is a tmpfs in a mount namespace of its own, which needs no root where users may have namespaces, and goes with the process that
//! holds it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::SETTINGS;
use super::audit::Ledger;
use super::load::{Crew, Progress, Refused, make_topics};
use super::wire::now_ms;
use crate::cluster::{Broker, Nameserver};
use crate::process::Process;

/// A small file system, and the process in whose namespace it is mounted.
struct SmallDisk {
    holder: Process,
    dir: PathBuf,
}

impl SmallDisk {
    /// `None` where there can be none; the reason is printed.
    fn mount(home: &Path, mib: u64) -> SmallDisk {
        let dir = home.join("small");
        fs::create_dir(&dir).expect("temporary directory is writable");
        let script = format!("mount -t tmpfs -o size={mib}m tmpfs '{}' && echo mounted && exec cat", dir.display());
        let mut command = Command::new("unshare");
        let mut holder = Process::start("small disk", command.args(["-rm", "sh", "-c", &script]));
        let mounted = holder.next_line().is_some();
        assert!(
            mounted,
            "no file system can be mounted in a namespace here (unshare -rm, mount -t tmpfs); `--skip endurance::full_disk` leaves out what needs one"
        );
        SmallDisk { holder, dir }
    }

    /// What runs a program where it is mounted.
    fn wrapper(&self) -> Vec<String> {
        let pid = self.holder.pid().to_string();
        ["nsenter", "-t", &pid, "-U", "--preserve-credentials", "-m", "--"].map(str::to_owned).to_vec()
    }

    /// A file there as it is seen from here.
    fn path(&self, name: &str) -> PathBuf {
        let dir = self.dir.strip_prefix("/").expect("it is absolute");
        Path::new("/proc").join(self.holder.pid().to_string()).join("root").join(dir).join(name)
    }

    /// Takes all that is left of it, to the last byte.
    fn fill(&self) {
        let mut filler = File::create(self.path("filler")).expect("a name takes no room");
        for len in [1 << 20, 1 << 16, 4096, 1] {
            while filler.write_all(&vec![1; len]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.path("filler")).expect("it was made");
    }
}

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
    fn set(mib: u64, extra: &[&str], every: u64) -> Scene {
        let home = tempfile::tempdir().expect("a temporary directory");
        let disk = SmallDisk::mount(home.path(), mib);
        let nameserver = Nameserver::start(home.path());
        let store = disk.dir.join("store");
        let settings = [&SETTINGS[..], &["mappedFileSizeCommitLog=524288"], extra].concat();
        let broker = Broker::start_in(home.path(), "small", &nameserver.addr(), &settings, &store, disk.wrapper());
        make_topics(broker.port);
        Scene { broker, disk, ledger: Ledger::default(), crew: Crew::new(every), _nameserver: nameserver, _home: home }
    }

    /// [`Crew::work`], for a play with the broker and its disk.
    fn run(&mut self, play: impl FnOnce(&Progress, &mut Broker, &SmallDisk, &mut Ledger)) -> usize {
        let Scene { broker, disk, ledger, crew, .. } = self;
        crew.work(broker.port, ledger, |progress, ledger| play(progress, broker, disk, ledger))
    }

    /// All that waits comes, once.
    fn end(mut self, name: &str) {
        self.crew.await_all(self.broker.port, &mut self.ledger);
        self.broker.restart_clean();
        self.ledger.audit(self.broker.port);
        self.ledger.sum_up();
        println!("{name}: {:?}", self.ledger.figures);
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_used_again_when_there_is_room() {
    let mut scene = Scene::set(96, &["cleanFileForciblyEnable=false"], 50);
    let mut ends_refused = 0;
    for round in 0..4 {
        let killed = round == 2;
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
        scene.ledger.audit(scene.broker.port);
    }
    for Refused { id, code, remark } in scene.ledger.refusals() {
        assert!(*code == 14 && remark.contains("until there is room for"), "{id:?} was refused with {code}, {remark}");
    }
    assert_eq!(scene.ledger.figures.deleted, 0, "nothing was to go");
    println!("ends of transactions refused: {ends_refused}");
    scene.end("a full disk");
}

#[test]
fn a_disk_of_a_third_of_the_traffic_is_enough_where_old_messages_go() {
    const MIB: u64 = 32;
    // From there to where sends are refused is what comes in about a second.
    let mut scene = Scene::set(MIB, &["diskSpaceCleanForciblyRatio=60"], 3000);
    // Their segment goes long before their time.
    let far = scene.crew.waiter.send_timers(scene.broker.port, 50, now_ms() + 15_000);
    scene.ledger.fates(far.fates);
    let mut rounds = 0;
    while scene.crew.senders.iter().map(|sender| sender.bytes).sum::<u64>() < 3 * (MIB << 20) {
        rounds += 1;
        scene.run(|progress, _, _, _| progress.await_more("messages", &progress.acked, 10_000));
        scene.ledger.audit(scene.broker.port);
    }
    // Refused at most while it was being made room.
    for Refused { id, code, remark } in scene.ledger.refusals() {
        assert!(*code == 14 && remark.contains("until there is room for"), "{id:?} was refused with {code}, {remark}");
    }
    let figures = &scene.ledger.figures;
    assert!(figures.deleted > 0 && figures.deleted_unread == 0, "{figures:?}");
    println!("{rounds} rounds");
    scene.end("a third of the traffic");
}
