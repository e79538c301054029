//! A master and its slaves as processes: both have one log, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rustix::process::Signal;

use crate::cluster::{Broker, Cluster, create_topic, mqadmin};
use crate::driver::{Client, Event, assert_contiguous, java_mqadmin, produce, pull_all};
use crate::java_server::JavaServer;
use crate::process::{await_condition, run};

/// As the brokers of `Cluster` have it.
const SEGMENT: u64 = 16_777_216;

/// How far the log of a broker goes, by what it says itself.
fn log_end(addr: &str) -> u64 {
    await_condition(&format!("the status of {addr}"), || {
        let status = run(&mut mqadmin(&["brokerStatus", "-b", addr])).stdout;
        let line = status.lines().find(|line| line.starts_with("commitLogMaxOffset"))?;
        line.rsplit([' ', ':']).next()?.trim().parse().ok()
    })
}

/// The bytes of a log up to its end, segment by segment.
fn log_bytes(directory: &Path, end: u64) -> BTreeMap<u64, Vec<u8>> {
    let mut segments = BTreeMap::new();
    for start in (0..end).step_by(SEGMENT as usize) {
        let path = directory.join(format!("{start:020}"));
        let mut bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        bytes.truncate(usize::try_from((end - start).min(SEGMENT)).expect("a segment's length"));
        segments.insert(start, bytes);
    }
    segments
}

fn assert_same_log(one: &Path, other: &Path, end: u64) {
    let (one, other) = (log_bytes(one, end), log_bytes(other, end));
    for (start, bytes) in &one {
        let differs = bytes.iter().zip(&other[start]).position(|(one, other)| one != other);
        assert_eq!((differs, bytes.len()), (None, other[start].len()), "in the segment that starts at {start}");
    }
}

/// How the answers to sends read, each with how often it came.
fn answers(cluster: &Cluster, keys: &str, count: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for ack in produce(Client::Java533, &cluster.namesrv(), "Copied", "sync", keys, count, &["--size", "1000"]) {
        *answers.entry(ack.status).or_default() += 1;
    }
    answers
}

fn load(cluster: &Cluster, mode: &str, keys: &str, count: usize, size: &str) {
    produce(Client::Java533, &cluster.namesrv(), "Copied", mode, keys, count, &["--size", size]);
}

#[test]
fn a_java_slave_has_the_log_of_our_master_byte_for_byte() {
    let cluster = Cluster::start(&[]);
    create_topic(&cluster.namesrv(), "Copied", 4);
    // More than a segment is there before it comes, and it is empty.
    load(&cluster, "sync", "before", 6000, "4000");
    let lines = [format!("mappedFileSizeCommitLog={SEGMENT}")];
    let mut slave = JavaServer::slave_of(&cluster.namesrv(), &lines);
    load(&cluster, "sync", "while", 4000, "4000");
    let caught_up = |slave: &JavaServer| {
        let end = log_end(&cluster.broker.addr());
        await_condition("the slave to have all of the log", || (log_end(&slave.broker_addr()) == end).then_some(()));
        assert_same_log(&cluster.broker.store.join("commitlog"), &slave.file("commitlog"), end);
        end
    };
    let first = caught_up(&slave);
    assert!(first > SEGMENT * 2, "{first}");
    // It goes on where it was, in the middle of a segment.
    slave.restart_broker_hard();
    load(&cluster, "batch", "after", 3200, "500");
    assert!(caught_up(&slave) > first);
    let fed = cluster
        .broker
        .process
        .log_lines()
        .iter()
        .filter(|line| line.contains("a slave is fed") && !line.contains("no more"))
        .count();
    assert!(fed >= 2, "the log names each connection");
}

/// A Java slave is the second copy that SYNC_MASTER promises; without it producers are told so, and consumers see the messages all the same.
#[test]
fn a_java_slave_is_a_copy_that_an_acknowledgement_waits_for() {
    let cluster = Cluster::start(&["brokerRole=SYNC_MASTER", "inSyncReplicas=2", "slaveTimeout=2000"]);
    create_topic(&cluster.namesrv(), "Copied", 4);
    let once = |status: &str, count| BTreeMap::from([(status.to_owned(), count)]);
    assert_eq!(answers(&cluster, "alone", 2), once("FLUSH_SLAVE_TIMEOUT", 2));
    let slave = JavaServer::slave_of(&cluster.namesrv(), &[format!("mappedFileSizeCommitLog={SEGMENT}")]);
    let end = log_end(&cluster.broker.addr());
    await_condition("the slave to have all of the log", || (log_end(&slave.broker_addr()) == end).then_some(()));
    assert_eq!(answers(&cluster, "both", 2000), once("SEND_OK", 2000));
    let status = run(&mut mqadmin(&["haStatus", "-b", &cluster.broker.addr()])).stdout;
    assert!(status.contains("#SlaveNum\t1\n#InSyncSlaveNum\t1\n") && status.contains(" OK "), "{status}");
    let seen_by_java = run(&mut java_mqadmin(&["haStatus", "-n", &cluster.namesrv(), "-b", &cluster.broker.addr()]));
    assert_eq!(seen_by_java.stdout.lines().take(6).collect::<Vec<_>>(), status.lines().take(6).collect::<Vec<_>>());
    // What was acknowledged is there, whatever becomes of the master now.
    let end = log_end(&cluster.broker.addr());
    assert_eq!(log_end(&slave.broker_addr()), end);
    assert_same_log(&cluster.broker.store.join("commitlog"), &slave.file("commitlog"), end);
    drop(slave);
    assert_eq!(answers(&cluster, "gone", 2), once("FLUSH_SLAVE_TIMEOUT", 2));
    let seen = pull_all(Client::Java533, &cluster.namesrv(), "Copied");
    assert_eq!(seen.len(), 2004);
    assert_contiguous(&seen);
}

/// A slave of ours, in the directory of somebody else's cluster.
fn slave_of(home: &Path, namesrv: &str, lines: &[&str]) -> Broker {
    let is_slave = ["brokerName=broker-a", "brokerRole=SLAVE", "brokerId=1", "slaveReadEnable=true"];
    Broker::start(home, "slave", namesrv, &[&is_slave, lines].concat())
}

/// Waits until a slave has all of its master's log; gives its end.
fn await_copy(master: &str, slave: &str) -> u64 {
    let end = log_end(master);
    await_condition("the slave to have all of the log", || (log_end(slave) == end).then_some(()));
    end
}

#[test]
fn our_slave_has_the_log_of_a_java_master_byte_for_byte() {
    let mut master = JavaServer::start(&[format!("mappedFileSizeCommitLog={SEGMENT}")]);
    let namesrv = master.namesrv.clone();
    let produce = |keys: &str, mode: &str, count: usize, size: &str| {
        produce(Client::Java533, &namesrv, "Copied", mode, keys, count, &["--size", size]);
    };
    create_topic(&namesrv, "Copied", 4);
    // More than a segment is there before it comes, and it is empty.
    produce("before", "sync", 6000, "4000");
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut slave = slave_of(home.path(), &namesrv, &[]);
    produce("while", "async", 4000, "4000");
    let first = await_copy(&master.broker_addr(), &slave.addr());
    assert!(first > SEGMENT * 2, "{first}");
    assert_same_log(&master.file("commitlog"), &slave.store.join("commitlog"), first);
    // It goes on where it was, in the middle of a segment, whoever of the two is gone for a while.
    slave.process.kill_hard();
    produce("killed", "batch", 3200, "500");
    slave.assert_store_is_whole();
    slave.start_again();
    await_copy(&master.broker_addr(), &slave.addr());
    master.restart_broker_hard();
    await_condition("the master in the topic's route", || {
        let route = run(&mut mqadmin(&["topicRoute", "-n", &namesrv, "-t", "Copied"])).stdout;
        route.contains(&master.broker_addr()).then_some(())
    });
    produce("restarted", "sync", 1000, "4000");
    slave.restart_clean();
    let end = await_copy(&master.broker_addr(), &slave.addr());
    assert_same_log(&master.file("commitlog"), &slave.store.join("commitlog"), end);
    let follows = slave.process.log_lines().iter().filter(|line| line.contains("follows the master")).count();
    assert_eq!(follows, 1, "once since the last start");
    assert!(slave.process.terminate().success());
    slave.assert_store_is_whole();
}

/// Both are killed under load, again and again, and have one log in the end, with all that was acknowledged.
#[test]
fn a_master_and_a_slave_of_ours_have_one_log_whoever_is_killed() {
    let mut cluster = Cluster::start(&["brokerRole=SYNC_MASTER", "inSyncReplicas=2"]);
    let namesrv = cluster.namesrv();
    create_topic(&namesrv, "Copied", 4);
    let mut slave = slave_of(cluster.home.path(), &namesrv, &[]);
    await_copy(&cluster.broker.addr(), &slave.addr());
    let sending = ["--mode", "async", "--keys", "k", "--size", "3000", "--inflight", "64", "--until-stdin-closes"];
    let load = [&["produce", "--namesrv", &namesrv, "--topic", "Copied", "--group", "PID_load"][..], &sending].concat();
    let mut producer = Client::Java533.start("load", &load);
    let mut acked = BTreeSet::new();
    let mut note = |line: &str| match Event::parse(line) {
        Event::Ack(ack) => acked.insert(ack.key),
        _ => false,
    };
    for round in 0..6 {
        let mut count = 0;
        producer.wait_for_line("some acknowledgements", |line| {
            count += usize::from(note(line));
            count >= 800
        });
        if round % 2 == 0 { slave.restart_hard() } else { cluster.broker.restart_hard() }
    }
    producer.close_stdin();
    producer.wait_for_line("the end of the load", |line| {
        note(line);
        line.starts_with("DONE")
    });
    let end = await_copy(&cluster.broker.addr(), &slave.addr());
    assert_same_log(&cluster.broker.store.join("commitlog"), &slave.store.join("commitlog"), end);
    let stored: BTreeSet<_> =
        pull_all(Client::Java533, &namesrv, "Copied").into_iter().map(|message| message.key).collect();
    let lost: Vec<_> = acked.difference(&stored).take(3).collect();
    assert!(lost.is_empty(), "{lost:?} of {} acknowledged are not there", acked.len());
    assert!(slave.process.terminate().success());
    slave.assert_store_is_whole();
}

/// With SYNC_MASTER a slave has what producers were told is safe, at the very moment at which its master goes for good.
#[test]
fn what_was_acknowledged_is_on_the_slave_when_the_master_is_killed() {
    let mut cluster = Cluster::start(&["brokerRole=SYNC_MASTER", "inSyncReplicas=2"]);
    let namesrv = cluster.namesrv();
    create_topic(&namesrv, "Copied", 4);
    let slave = slave_of(cluster.home.path(), &namesrv, &[]);
    await_copy(&cluster.broker.addr(), &slave.addr());
    let sending = ["--mode", "async", "--keys", "k", "--size", "500", "--inflight", "64", "--until-stdin-closes"];
    let load = [&["produce", "--namesrv", &namesrv, "--topic", "Copied", "--group", "PID_load"][..], &sending].concat();
    let mut producer = Client::Java533.start("load", &load);
    let (mut count, mut last) = (0, 0);
    let note = |line: &str, count: &mut u32, last: &mut u64| {
        if let Event::Ack(ack) = Event::parse(line)
            && ack.status == "SEND_OK"
        {
            *count += 1;
            let at = u64::from_str_radix(&ack.offset_msg_id[16..], 16).expect("the place of the message in the log");
            *last = at.max(*last);
        }
    };
    producer.wait_for_line("some acknowledgements", |line| {
        note(line, &mut count, &mut last);
        count >= 1000
    });
    // While the slave stands still, nobody is told that a message is safe.
    let status = |line: &str| match Event::parse(line) {
        Event::Ack(ack) => ack.status,
        other => panic!("{other:?}"),
    };
    slave.process.signal(Signal::STOP);
    let mut late = 0;
    producer.wait_for_line("an answer without the slave", |line| {
        late += 1;
        assert!(late < 20_000, "acknowledged without the slave");
        status(line) == "FLUSH_SLAVE_TIMEOUT"
    });
    for _ in 0..32 {
        let line = producer.next_line().expect("the load goes on");
        assert_eq!(status(&line), "FLUSH_SLAVE_TIMEOUT");
    }
    slave.process.signal(Signal::CONT);
    (count, last) = (0, 0);
    producer.wait_for_line("acknowledgements again", |line| {
        note(line, &mut count, &mut last);
        count >= 5000
    });
    cluster.broker.process.kill_hard();
    producer.close_stdin();
    producer.wait_for_line("the end of the load", |line| {
        note(line, &mut count, &mut last);
        line.starts_with("DONE")
    });
    // A slave takes whole messages only.
    let end = log_end(&slave.addr());
    assert!(last < end, "acknowledged at {last}, and the slave's log ends at {end}");
    assert_same_log(&cluster.broker.store.join("commitlog"), &slave.store.join("commitlog"), end);
}

/// Topics and messages are there for consumers as long as the master is not.
#[test]
fn consumers_read_from_a_slave_while_the_master_is_gone() {
    let mut cluster = Cluster::start(&["slaveReadEnable=true"]);
    let namesrv = cluster.namesrv();
    create_topic(&namesrv, "Copied", 4);
    let slave = slave_of(cluster.home.path(), &namesrv, &[]);
    load(&cluster, "sync", "k", 500, "1000");
    await_copy(&cluster.broker.addr(), &slave.addr());
    await_condition("the topic at the slave", || {
        let topics = std::fs::read_to_string(slave.store.join("config/topics.json")).unwrap_or_default();
        topics.contains("\"Copied\"").then_some(())
    });
    cluster.broker.process.kill_hard();
    // A pull consumer of Java's asks a master how far queues go.
    let consumer = ["push", "--namesrv", &namesrv, "--topic", "Copied", "--group", "CID_reader", "--from", "first"];
    let mut consumer = Client::Java533.start("reader", &consumer);
    let mut seen = BTreeSet::new();
    consumer.wait_for_line("all of the messages from the slave", |line| {
        if let Event::Received(message) = Event::parse(line) {
            seen.insert((message.queue_id, message.queue_offset));
        }
        seen.len() == 500
    });
}
