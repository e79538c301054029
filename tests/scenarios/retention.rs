//! Old messages are deleted at full speed while producers and consumers work and the broker is killed: what is there is whole, and nobody
//! misses any of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::cluster::Cluster;
use crate::driver::{Ack, Client, Event, produce, pull_all, received};
use crate::process::{Process, await_condition, run};

/// Bytes of log that stay: six files of 1 MiB, an eighth of what is sent.
const KEPT: u64 = 6 << 20;
/// Messages that wait, of each kind.
const COUNT: usize = 20;

fn loses_only_what_is_old(flush: &str) {
    let kept = format!("fileReservedBytes={KEPT}");
    let mut cluster = Cluster::start(&[
        flush,
        &kept,
        "mappedFileSizeCommitLog=1048576",
        "mappedFileSizeConsumeQueue=2000",
        "maxHashSlotNum=1000",
        "maxIndexNum=2000",
        "cleanResourceInterval=10",
        "deleteCommitLogFilesInterval=0",
        "deleteFileBatchMax=1000",
    ]);
    let namesrv = cluster.namesrv();
    // The topic exists before the first kill, as it would in production.
    let mut acked = produce(Client::Java533, &namesrv, "Old", "sync", "before", 100, &[]);
    // Nothing more comes here: its offsets must not be given again when all of its messages are gone.
    let idle = produce(Client::Java533, &namesrv, "Idle", "sync", "idle", 40, &[]);

    let consume =
        ["push", "--namesrv", &namesrv, "--topic", "Old", "--group", "CID_old", "--from", "first", "--poll-ms", "1000"];
    let mut consumer = Client::Java533.start("consumer", &consume);
    let mut sender = endless_sender(&namesrv);
    for round in 1..=3 {
        take_acks(&mut sender, &mut acked, round * 5_000);
        cluster.broker.restart_hard();
    }
    let enough = acked.len() + 2_000;
    take_acks(&mut sender, &mut acked, enough);
    sender.close_stdin();
    while let Some(line) = sender.next_line() {
        if let Event::Ack(ack) = Event::parse(&line) {
            acked.push(ack);
        }
    }

    // No place was given twice.
    let places: HashSet<_> = acked.iter().map(|ack| (ack.queue_id, ack.queue_offset)).collect();
    assert_eq!(places.len(), acked.len(), "two messages were acknowledged with one place");

    // Each queue is whole from where it begins, and has what was acknowledged there.
    let messages = pull_all(Client::Java533, &namesrv, "Old");
    let (mut first, mut next) = (BTreeMap::new(), BTreeMap::new());
    let mut found: HashMap<&str, Vec<(u32, u64)>> = HashMap::new();
    for message in &messages {
        let begin = *first.entry(message.queue_id).or_insert(message.queue_offset);
        let expected = next.entry(message.queue_id).or_insert(begin);
        assert_eq!(message.queue_offset, *expected, "queue {}", message.queue_id);
        *expected += 1;
        found.entry(&message.key).or_default().push((message.queue_id, message.queue_offset));
    }
    assert!(first.values().all(|offset| *offset > 0), "nothing went: {first:?}");
    let is_old = |ack: &Ack| ack.queue_offset < first[&ack.queue_id];
    for ack in &acked {
        let expected = (!is_old(ack)).then(|| vec![(ack.queue_id, ack.queue_offset)]);
        assert_eq!(found.get(ack.key.as_str()), expected.as_ref(), "{} as acknowledged", ack.key);
    }

    // Who consumes gets all that is there, through kills and deletions.
    let mut missing: HashSet<String> = found.keys().map(|key| (*key).to_owned()).collect();
    while !missing.is_empty() {
        let line = consumer.next_line().expect("the consumer runs until its input closes");
        if let Event::Received(message) = Event::parse(&line) {
            missing.remove(&message.key);
        }
    }
    consumer.close_stdin();
    consumer.wait_exit();

    // Keys lead to what is there and to nothing else.
    let newest = acked.iter().rev().step_by(50).take(20);
    let oldest = acked.iter().filter(|ack| is_old(ack)).step_by(500).take(10);
    for ack in newest.chain(oldest) {
        let query = ["query", "--namesrv", &namesrv, "--topic", "Old", "--key", &ack.key];
        let there = if is_old(ack) { Vec::new() } else { vec![(ack.queue_id, ack.queue_offset)] };
        let answer = run(&mut Client::Java533.command(&query));
        let lines: Vec<_> = answer.stdout.lines().map(Event::parse).collect();
        let places: Vec<_> = received(&lines).iter().map(|message| (message.queue_id, message.queue_offset)).collect();
        assert_eq!(places, there, "query by key {}: {}", ack.key, answer.stderr);
    }

    // A topic of which nothing is left goes on where it was.
    assert!(pull_all(Client::Java533, &namesrv, "Idle").is_empty());
    let ends = idle.iter().fold(BTreeMap::<u32, u64>::new(), |mut ends, ack| {
        let end = ends.entry(ack.queue_id).or_default();
        *end = (*end).max(ack.queue_offset + 1);
        ends
    });
    for ack in produce(Client::Java533, &namesrv, "Idle", "sync", "again", ends.len(), &["--orderly"]) {
        assert_eq!(ack.queue_offset, ends[&ack.queue_id], "queue {} goes on", ack.queue_id);
    }

    // The disk has what it may: the log's files and the one ahead, and none of the queues' and the index's that are before them.
    let files = |dir: &str| std::fs::read_dir(cluster.broker.store.join(dir)).expect("it is there").count() as u64;
    assert!(files("commitlog") <= KEPT / (1 << 20) + 1, "{} log files", files("commitlog"));
    let sent = acked.len() as u64 / first.len() as u64;
    assert!(files("consumequeue/Old/0") < sent / 100, "{} files of {sent} entries", files("consumequeue/Old/0"));
    assert!(files("index") < acked.len() as u64 * 2 / 2000, "{} index files", files("index"));
}

fn endless_sender(namesrv: &str) -> Process {
    let arguments = [
        "produce",
        "--namesrv",
        namesrv,
        "--topic",
        "Old",
        "--group",
        "PID_old",
        "--mode",
        "async",
        "--start",
        "0",
        "--keys",
        "old",
        "--until-stdin-closes",
        "--poll-ms",
        "1000",
        "--timeout-ms",
        "1000",
        "--inflight",
        "64",
        "--size",
        "2500",
    ];
    Client::Java533.start("endless sender", &arguments)
}

fn take_acks(sender: &mut Process, acked: &mut Vec<Ack>, enough: usize) {
    while acked.len() < enough {
        let line = sender.next_line().expect("the sender goes on while the broker is down");
        if let Event::Ack(ack) = Event::parse(&line) {
            acked.push(ack);
        }
    }
}

#[test]
fn what_waits_arrives_though_the_log_goes_from_under_it() {
    let kept = format!("fileReservedBytes={KEPT}");
    let mut cluster = Cluster::start(&[
        &kept,
        "mappedFileSizeCommitLog=1048576",
        "cleanResourceInterval=10",
        "deleteCommitLogFilesInterval=0",
        "deleteFileBatchMax=1000",
        "messageDelayLevel=1s 20s",
        "transactionTimeOut=1000",
        "transactionCheckInterval=20000",
    ]);
    let namesrv = cluster.namesrv();
    produce(Client::Java533, &namesrv, "Later", "sync", "level", COUNT, &["--delay-level", "2"]);
    produce(Client::Java533, &namesrv, "Later", "sync", "timer", COUNT, &["--prop", "TIMER_DELAY_SEC=20"]);
    let count = COUNT.to_string();
    let of = ["--namesrv", &namesrv, "--topic", "Later", "--poll-ms", "1000"];
    // Committed when they are asked after.
    let open =
        ["--group", "PID_open", "--keys", "open", "--count", &count, "--outcome", "unknown", "--check", "commit"];
    let mut open = Client::Java533.start("open", &[&["transact"], &of[..], &open[..]].concat());
    take_acks(&mut open, &mut Vec::new(), COUNT);
    let consume = ["--group", "CID_later", "--from", "first"];
    let mut consumer = Client::Java533.start("consumer", &[&["push"], &of[..], &consume[..]].concat());

    // The log goes several times, and in the middle the broker.
    let (mut sender, mut acked) = (endless_sender(&namesrv), Vec::new());
    for round in 1..=2 {
        take_acks(&mut sender, &mut acked, round * 5_000);
        cluster.broker.restart_hard();
    }
    let enough = acked.len() + 5_000;
    take_acks(&mut sender, &mut acked, enough);
    sender.close_stdin();
    await_condition("what was sent first goes", || {
        let log = std::fs::read_dir(cluster.broker.store.join("commitlog")).expect("it is there");
        let starts = log.filter_map(|file| file.ok()?.file_name().to_str()?.parse::<u64>().ok());
        starts.min().filter(|start| *start > 2 * KEPT)
    });

    let all = ["level", "timer", "open"].map(|keys| (0..COUNT).map(move |n| format!("{keys}{n}")));
    let mut missing: HashSet<String> = all.into_iter().flatten().collect();
    while !missing.is_empty() {
        let line = consumer.next_line().expect("the consumer runs until its input closes");
        if let Event::Received(message) = Event::parse(&line) {
            missing.remove(&message.key);
        }
    }
    for mut client in [open, consumer] {
        client.close_stdin();
        client.wait_exit();
    }
}

#[test]
fn retention_under_kill_9_with_async_flush() {
    loses_only_what_is_old("flushDiskType=ASYNC_FLUSH");
}

#[test]
fn retention_under_kill_9_with_sync_flush() {
    loses_only_what_is_old("flushDiskType=SYNC_FLUSH");
}
