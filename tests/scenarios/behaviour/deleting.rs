//! What is deleted because somebody asks for it (`deleteExpiredCommitLog`), and what its consumers see then.

use std::collections::BTreeSet;
use std::process::Command;

use super::running::{Running, assert_exactly, keys};
use super::server::Server;
use crate::driver::{Ack, Client, produce, pull_all, received};
use crate::endurance::wire::Wire;
use crate::process::{await_condition, run};

const CLIENT: Client = Client::Java533;
const QUEUES: u32 = 4;
const MESSAGES: usize = 120;

/// At which nothing goes by itself.
fn another_hour() -> String {
    let now = run(Command::new("date").arg("+%H")).stdout;
    let now: u32 = now.trim().parse().unwrap_or_else(|_| panic!("no hour: {now}"));
    format!("{:02}", (now + 12) % 24)
}

/// A key that the client gave: of one message alone.
fn places_of(wire: &mut Wire, topic: &str, ack: &Ack) -> Vec<(u32, u64)> {
    wire.places_of_key(topic, &ack.msg_id).expect("the broker is up")
}

#[test]
fn what_is_deleted_by_hand_is_gone_from_the_front_for_everybody() {
    let hour = format!("deleteWhen={}", another_hour());
    let server = Server::start(&[
        &hour,
        "mappedFileSizeCommitLog=65536",
        "cleanResourceInterval=100",
        "deleteCommitLogFilesInterval=10",
        // However full this machine's disk is, nothing goes before its time.
        "cleanFileForciblyEnable=false",
    ]);
    server.create_topic("Idle", 1);
    server.create_topic("Gone", QUEUES);
    let idle = produce(CLIENT, &server.namesrv(), "Idle", "sync", "idle", 3, &[]);
    let sent = produce(CLIENT, &server.namesrv(), "Gone", "sync", "first", MESSAGES / 2, &["--size", "3000"]);
    // A group that has had some, and is away when they go.
    let mut early = Running::push(CLIENT, &server, "Gone", "CID_early", &["--from", "first"]);
    early.await_keys(&keys("first", 0..MESSAGES / 2));
    early.end();
    let mut all = sent;
    all.extend(produce(CLIENT, &server.namesrv(), "Gone", "sync", "later", MESSAGES / 2, &["--size", "3000"]));
    let (oldest, newest) = (&all[0], &all[all.len() - 1]);

    let port = server.broker_addr().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("an address");
    let mut wire = Wire::connect(port).expect("the broker is up");
    for ack in [oldest, newest] {
        let place = (ack.queue_id, ack.queue_offset);
        await_condition("its key", || (places_of(&mut wire, "Gone", ack) == [place]).then_some(()));
    }
    let mut begins = |topic: &str, queues: u32| -> Vec<u64> {
        (0..queues).map(|queue| wire.begin_of(topic, queue).expect("the broker is up")).collect()
    };
    assert_eq!((begins("Gone", QUEUES), begins("Idle", 1)), (vec![0; QUEUES as usize], vec![0]), "nothing has gone");

    let broker = server.broker_addr();
    let told = server.admin("updateBrokerConfig", &["-b", &broker, "-k", "fileReservedTime", "-v", "0"]);
    assert!(told.contains("success"), "{told}");
    let told = server.admin("deleteExpiredCommitLog", &["-b", &broker]);
    assert!(told.contains("success"), "{told}");
    // A message that is sent after the last file was begun moves no beginning; all files before that one go.
    let begin = await_condition("all that is old to go", || {
        let before = begins("Gone", QUEUES);
        let has_gone = before.iter().all(|begin| *begin > MESSAGES as u64 / 2 / u64::from(QUEUES));
        (has_gone && begins("Idle", 1) == [3] && begins("Gone", QUEUES) == before).then_some(before)
    });
    // From the front of the log: what is there is newer than what is not.
    let is_there = |ack: &Ack| ack.queue_offset >= begin[ack.queue_id as usize];
    let first_there = all.iter().position(is_there).expect("the last file stays");
    assert!(all[first_there..].iter().all(is_there), "{begin:?} of {all:?}");
    let left: BTreeSet<String> = all[first_there..].iter().map(|ack| ack.key.clone()).collect();

    // Who pulls before the beginning is told where that is, with PULL_OFFSET_MOVED (21).
    for (queue, begin) in (0..QUEUES).zip(&begin) {
        for offset in [0, begin - 1] {
            let stretch = wire.pull("Gone", queue, offset).expect("the broker is up");
            assert_eq!((stretch.moved_to, stretch.messages.len()), (Some(*begin), 0), "queue {queue} at {offset}");
        }
    }
    assert_exactly(&pull_all(CLIENT, &server.namesrv(), "Gone"), &left);
    // Keys lead to what is there.
    assert_eq!(places_of(&mut wire, "Gone", oldest), []);
    assert_eq!(places_of(&mut wire, "Gone", newest), [(newest.queue_id, newest.queue_offset)]);
    // A new group gets what is there, and one that had committed an offset before the beginning as well; nobody gets anything twice.
    for group in ["CID_new", "CID_early"] {
        let mut consumer = Running::push(CLIENT, &server, "Gone", group, &["--from", "first"]);
        consumer.await_keys(&left);
        assert_exactly(&received(&consumer.end()), &left);
    }
    // A queue that has no message any more goes on where it was.
    assert!(pull_all(CLIENT, &server.namesrv(), "Idle").is_empty());
    let again = produce(CLIENT, &server.namesrv(), "Idle", "sync", "again", 1, &[]);
    assert_eq!(again[0].queue_offset, idle.len() as u64);

    // Nothing of what is there is expired or unused.
    for command in ["cleanExpiredCQ", "cleanUnusedTopic"] {
        let told = server.admin(command, &["-b", &broker]);
        assert!(told.contains("success"), "{command}: {told}");
    }
    assert_exactly(&pull_all(CLIENT, &server.namesrv(), "Gone"), &left);
    assert_exactly(&pull_all(CLIENT, &server.namesrv(), "Idle"), &keys("again", 0..1));
}
