//! kill -9 of the broker in the middle of sending: nothing acknowledged is lost, doubled, moved or unfindable.

use std::collections::{BTreeMap, HashMap};

use crate::cluster::Cluster;
use crate::driver::{Client, Event, acks, assert_contiguous, events, produce, pull_all, received};

fn survives_kills(flush: &str) {
    let mut cluster = Cluster::start(&[flush]);
    let namesrv = cluster.namesrv();
    // The topic exists before the first kill, as it would in production.
    produce(Client::Java533, &namesrv, "Crash", "sync", "before", 100, &[]);

    let mut sender = Client::Java533.start(
        "endless sender",
        &[
            "produce",
            "--namesrv",
            &namesrv,
            "--topic",
            "Crash",
            "--group",
            "PID_crash",
            "--mode",
            "async",
            "--start",
            "0",
            "--keys",
            "crash",
            "--until-stdin-closes",
            "--poll-ms",
            "1000",
            "--timeout-ms",
            "1000",
            "--inflight",
            "64",
        ],
    );
    let mut acked = Vec::new();
    for round in 1..=3 {
        let enough = round * 4_000;
        while acked.len() < enough {
            let line = sender.next_line().expect("the sender goes on while the broker is down");
            if let Event::Ack(ack) = Event::parse(&line) {
                acked.push(ack);
            }
        }
        cluster.broker.restart_hard();
    }
    let enough = acked.len() + 1_000;
    while acked.len() < enough {
        let line = sender.next_line().expect("the sender goes on");
        if let Event::Ack(ack) = Event::parse(&line) {
            acked.push(ack);
        }
    }
    sender.close_stdin();
    while let Some(line) = sender.next_line() {
        if let Event::Ack(ack) = Event::parse(&line) {
            acked.push(ack);
        }
    }

    let messages = pull_all(Client::Java533, &namesrv, "Crash");
    assert_contiguous(&messages);
    let mut places: HashMap<&str, Vec<(u32, u64)>> = HashMap::new();
    for message in &messages {
        places.entry(&message.key).or_default().push((message.queue_id, message.queue_offset));
    }
    for ack in &acked {
        assert_eq!(
            places.get(ack.key.as_str()),
            Some(&vec![(ack.queue_id, ack.queue_offset)]),
            "{} as acknowledged",
            ack.key
        );
    }

    // Keys from every stretch of the log are still found, above all the ones just before each kill.
    let mut samples: Vec<_> = acked.iter().step_by(acked.len() / 40).collect();
    samples.extend((1..=3).flat_map(|round| acked[round * 4_000 - 5..round * 4_000 + 5].iter()));
    for ack in samples {
        let found = received(&events(
            Client::Java533,
            &["query", "--namesrv", &namesrv, "--topic", "Crash", "--key", &ack.key],
        ));
        let places: Vec<_> = found.iter().map(|message| (message.queue_id, message.queue_offset)).collect();
        assert_eq!(places, [(ack.queue_id, ack.queue_offset)], "query by key {}", ack.key);
    }

    // Offsets continue.
    let next: BTreeMap<u32, u64> =
        messages.iter().map(|message| (message.queue_id, message.queue_offset + 1)).collect();
    let more = produce(Client::Java533, &namesrv, "Crash", "sync", "more", next.len(), &["--orderly"]);
    for ack in more {
        assert_eq!(ack.queue_offset, next[&ack.queue_id], "queue {} goes on", ack.queue_id);
    }
}

#[test]
fn acknowledged_messages_survive_kill_9_with_async_flush() {
    survives_kills("flushDiskType=ASYNC_FLUSH");
}

#[test]
fn acknowledged_messages_survive_kill_9_with_sync_flush() {
    survives_kills("flushDiskType=SYNC_FLUSH");
}

#[test]
fn consumers_go_on_after_kill_9() {
    let mut cluster = Cluster::start(&[]);
    let namesrv = cluster.namesrv();
    produce(Client::Java498, &namesrv, "GoOn", "sync", "first", 1_000, &[]);
    let mut consumer = Client::Java498.start(
        "consumer",
        &[
            "push",
            "--namesrv",
            &namesrv,
            "--topic",
            "GoOn",
            "--group",
            "CID_goon",
            "--from",
            "first",
            "--poll-ms",
            "1000",
        ],
    );
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut take = |consumer: &mut crate::process::Process, until: usize| {
        while seen.len() < until {
            let line = consumer.next_line().expect("the consumer runs until its input closes");
            if let Event::Received(message) = Event::parse(&line) {
                *seen.entry(message.key).or_default() += 1;
            }
        }
    };
    take(&mut consumer, 1_000);
    cluster.broker.restart_hard();
    let sent = acks(&events(
        Client::Java498,
        &[
            "produce",
            "--namesrv",
            &namesrv,
            "--topic",
            "GoOn",
            "--group",
            "PID_goon",
            "--mode",
            "sync",
            "--count",
            "1000",
            "--start",
            "0",
            "--keys",
            "second",
            "--retries",
            "3",
        ],
    ));
    assert_eq!(sent.len(), 1_000);
    take(&mut consumer, 2_000);
    consumer.close_stdin();
    consumer.wait_exit();
}

#[test]
fn a_clean_restart_keeps_everything() {
    let mut cluster = Cluster::start(&[]);
    let namesrv = cluster.namesrv();
    let before = produce(Client::Java533, &namesrv, "Clean", "sync", "clean", 2_000, &[]);
    cluster.broker.restart_clean();
    assert!(cluster.broker.store.join("abort").exists(), "a running broker has its abort file");
    let messages = pull_all(Client::Java533, &namesrv, "Clean");
    assert_contiguous(&messages);
    assert_eq!(messages.len(), before.len());
}
