//! A disk that fails under a running broker: who sends is told so, with the cause and the remedy, and a start on a sound disk goes on with what
//! was on it.

use super::small_disk::{self, FileSystem, SmallDisk};
use super::wire::{Outgoing, Wire, placed, send};
use crate::cluster::{Broker, Nameserver};
use crate::process::await_condition;

const MESSAGES: u64 = 50;

fn send_one(wire: &mut Wire, number: u64) -> Result<u64, (i32, String)> {
    let message = Outgoing {
        topic: "Plain",
        queue: 0,
        bodies: &[number.to_string().into_bytes()],
        keys: &[number.to_string()],
        properties: "",
        sys_flag: 0,
    };
    let answer = wire.ask(send(&message)).expect("the broker is up");
    placed(&answer).map(|reply| reply.queue_offset.0)
}

fn assert_all_there(wire: &mut Wire) {
    let (mut next, mut found) = (0, Vec::new());
    while next < MESSAGES {
        let stretch = wire.pull("Plain", 0, next).expect("the broker is up");
        assert!(!stretch.messages.is_empty(), "the queue ends at {next}");
        found.extend(stretch.messages.iter().map(|found| found.record().body().to_vec()));
        next = stretch.next;
    }
    // Behind them may be what was accepted before it was known that the disk fails.
    found.truncate(MESSAGES as usize);
    let sent = (0..MESSAGES).map(|number| number.to_string().into_bytes());
    assert!(found.into_iter().eq(sent), "other messages than were sent");
}

/// `told` is what a refusal names as having failed.
fn says_what_has_failed(settings: &[&str], told: &str) {
    let home = small_disk::home();
    let disk = SmallDisk::mount(home.path(), FileSystem::Ext4, 64);
    let nameserver = Nameserver::start(home.path());
    let store = disk.dir.join("store");
    // Synced as soon as there is something.
    let own = ["mappedFileSizeCommitLog=1048576", "flushIntervalCommitLog=10", "flushCommitLogLeastPages=0"];
    let settings = [&own[..], settings].concat();
    let start = |disk: &SmallDisk| {
        Broker::start_in(home.path(), "bad-disk", &nameserver.addr(), &settings, &store, disk.wrapper())
    };
    let mut broker = start(&disk);
    let mut wire = Wire::connect(broker.port).expect("the broker is up");
    wire.make_topic("Plain", 1).expect("the broker is up");
    for number in 0..MESSAGES {
        assert_eq!(send_one(&mut wire, number), Ok(number));
    }
    // What is shown is in the file.
    await_condition("all of them to be shown", || {
        (wire.end_of("Plain", 0).expect("the broker is up") == MESSAGES).then_some(())
    });
    disk.fail(home.path());

    // With asynchronous flush the first ones are accepted still.
    let mut number = MESSAGES;
    let (code, remark) = await_condition("a refusal", || {
        number += 1;
        // Accepted, and not known to be on the disk.
        send_one(&mut wire, number).err().filter(|(code, _)| *code != 10)
    });
    let is_told = remark.contains(told)
        && remark.contains("Input/output error")
        && remark.contains("until the broker is started again");
    assert!(code == 14 && is_told, "{code}, {remark}");
    assert_eq!(send_one(&mut wire, 0), Err((code, remark)), "it stays so");
    // What is in memory can be read.
    assert_all_there(&mut wire);

    // A stop ends and says that not all is well, and a start on this disk says why not.
    broker.process.terminate();
    assert!(broker.process.logged(|line| line.contains("the store did not close cleanly") && line.contains(told)));
    assert!(!broker.try_start());
    let says_why = |line: &str| line.contains("mqbroker: ") && line.contains("/small/store");
    assert!(broker.process.logged(says_why), "{:?}", broker.process.log_lines());
    drop((broker, disk));
    small_disk::repair(home.path());
    let disk = SmallDisk::mount(home.path(), FileSystem::Ext4, 64);
    let broker = start(&disk);
    let mut wire = Wire::connect(broker.port).expect("the broker is up");
    assert_all_there(&mut wire);
    assert_eq!(send_one(&mut wire, MESSAGES), Ok(MESSAGES));
}

#[test]
fn a_failed_sync_is_told_to_who_sends_on_ext4() {
    says_what_has_failed(&["flushDiskType=SYNC_FLUSH"], "the commit log could not be synced");
}

#[test]
fn a_failed_asynchronous_sync_is_told_to_who_sends_on_ext4() {
    says_what_has_failed(&["flushDiskType=ASYNC_FLUSH"], "the commit log could not be synced");
}

#[test]
fn a_failed_write_from_the_pool_is_told_to_who_sends_on_ext4() {
    let pool = ["flushDiskType=ASYNC_FLUSH", "transientStorePoolEnable=true"];
    says_what_has_failed(&pool, "the write pool cannot be brought to the commit log");
}
