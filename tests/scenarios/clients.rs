//! Official clients send, consume in a group, pull from the start and query.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Cluster, create_topic};
use crate::driver::{ALL_CLIENTS, Ack, Client, assert_contiguous, events, produce, pull_all, received};
use crate::push_group::{PushGroup, assert_in_order, assert_once};

const SYNC: usize = 5_000;
const ASYNC: usize = 10_000;
const ONEWAY: usize = 5_000;

fn keys(prefix: &str, count: usize) -> impl Iterator<Item = String> {
    let prefix = prefix.to_owned();
    (0..count).map(move |i| format!("{prefix}{i}"))
}

/// 20,000 messages in all three modes; returns the acknowledged ones and the keys of all.
fn send_in_every_mode(client: Client, cluster: &Cluster, topic: &str) -> (Vec<Ack>, BTreeSet<String>) {
    let namesrv = cluster.namesrv();
    let mut acked = produce(client, &namesrv, topic, "sync", "sync", SYNC, &[]);
    acked.extend(produce(client, &namesrv, topic, "async", "async", ASYNC, &[]));
    produce(client, &namesrv, topic, "oneway", "oneway", ONEWAY, &[]);
    let all = keys("sync", SYNC).chain(keys("async", ASYNC)).chain(keys("oneway", ONEWAY)).collect();
    (acked, all)
}

/// Every message is in the log once, where its acknowledgement said.
fn assert_readable_from_the_start(
    client: Client,
    cluster: &Cluster,
    topic: &str,
    acked: &[Ack],
    all: &BTreeSet<String>,
) {
    let messages = pull_all(client, &cluster.namesrv(), topic);
    assert_contiguous(&messages);
    let at: BTreeMap<&str, (u32, u64)> =
        messages.iter().map(|m| (m.key.as_str(), (m.queue_id, m.queue_offset))).collect();
    let there = messages.iter().filter(|m| all.contains(&m.key)).count();
    assert_eq!(there, all.len(), "{client:?}: {topic} holds each message once");
    assert!(all.iter().all(|key| at.contains_key(key.as_str())));
    for ack in acked {
        assert_eq!(at[ack.key.as_str()], (ack.queue_id, ack.queue_offset), "{} is where it was acknowledged", ack.key);
    }
}

fn assert_found_by_queries(client: Client, cluster: &Cluster, topic: &str, acked: &[Ack]) {
    let namesrv = cluster.namesrv();
    for ack in acked.iter().step_by(acked.len() / 3) {
        let queries = [
            ["query", "--namesrv", &namesrv, "--topic", topic, "--key", &ack.key],
            ["query", "--namesrv", &namesrv, "--topic", topic, "--unique-key", &ack.msg_id],
            ["query", "--namesrv", &namesrv, "--topic", topic, "--offset-id", &ack.offset_msg_id],
        ];
        // The Go client has no queries; what it sent is looked for by Java's.
        let asking = if client == Client::Go { Client::Java533 } else { client };
        for query in queries {
            let found = received(&events(asking, &query));
            assert!(
                found.iter().any(|message| message.key == ack.key
                    && message.queue_id == ack.queue_id
                    && message.queue_offset == ack.queue_offset),
                "{client:?} {query:?} found {found:?}"
            );
        }
    }
}

fn whole_trip(client: Client) {
    let cluster = Cluster::start(&[]);

    // An auto-created topic: sent first, read afterwards.
    let (acked, all) = send_in_every_mode(client, &cluster, "AutoCreated");
    assert_readable_from_the_start(client, &cluster, "AutoCreated", &acked, &all);
    assert_found_by_queries(client, &cluster, "AutoCreated", &acked);

    // Eight queues, shared by two members while they are written. Order is what orderly listeners promise.
    create_topic(&cluster.namesrv(), "EightQueues", 8);
    let mut pair = PushGroup::new(client, &cluster.namesrv(), "EightQueues", "CID_pair", &["--orderly"]);
    pair.join("one");
    pair.join("two");
    pair.await_shared(8);
    let (acked, all) = send_in_every_mode(client, &cluster, "EightQueues");
    pair.await_keys(&all);
    pair.leave_all();
    assert_once(&pair.deliveries, &all);
    let of_this_run: Vec<_> = pair.deliveries.iter().filter(|(_, m)| all.contains(&m.key)).cloned().collect();
    assert_in_order(&of_this_run);
    assert_readable_from_the_start(client, &cluster, "EightQueues", &acked, &all);
    assert_found_by_queries(client, &cluster, "EightQueues", &acked);

    // A third member joins, one is killed: nothing is missing.
    let mut group = PushGroup::new(client, &cluster.namesrv(), "EightQueues", "CID_three", &[]);
    group.join("one");
    group.join("two");
    group.await_shared(8);
    group.join("three");
    let joined = group.await_shared(8);
    group.kill("one");
    produce(client, &cluster.namesrv(), "EightQueues", "sync", "after", 2_000, &[]);
    group.await_keys(&keys("after", 2_000).collect());
    let killed = group.await_shared(8);
    println!("{client:?}: rebalanced {joined:?} after a join, {killed:?} after a kill");
    group.leave_all();
}

#[test]
fn java_4_9_8_makes_the_whole_trip() {
    whole_trip(Client::Java498);
}

#[test]
fn java_5_3_3_makes_the_whole_trip() {
    whole_trip(Client::Java533);
}

#[test]
fn go_makes_the_whole_trip() {
    whole_trip(Client::Go);
}

#[test]
fn clients_read_what_other_clients_sent() {
    let cluster = Cluster::start(&[]);
    for sender in ALL_CLIENTS {
        let topic = format!("From{sender:?}");
        let acked = produce(sender, &cluster.namesrv(), &topic, "batch", "batch", 320, &["--batch-size", "32"]);
        assert_eq!(acked.len(), 320);
        let all: BTreeSet<String> = keys("batch", 320).collect();
        for reader in ALL_CLIENTS {
            let messages = pull_all(reader, &cluster.namesrv(), &topic);
            assert_contiguous(&messages);
            assert_eq!(
                messages.iter().map(|m| m.key.clone()).collect::<BTreeSet<_>>(),
                all,
                "{reader:?} reads what {sender:?} sent"
            );
        }
    }
}

#[test]
fn a_failed_message_comes_back_through_the_retry_topic() {
    let cluster = Cluster::start(&["messageDelayLevel=1s 1s 1s 1s"]);
    for client in ALL_CLIENTS {
        let topic = format!("Retry{client:?}");
        produce(client, &cluster.namesrv(), &topic, "sync", "retry", 20, &[]);
        let group = format!("CID_retry_{client:?}");
        let mut process = client.start(
            "retrying",
            &[
                "push",
                "--namesrv",
                &cluster.namesrv(),
                "--topic",
                &topic,
                "--group",
                &group,
                "--from",
                "first",
                "--fail-first",
                "1",
            ],
        );
        let mut attempts: BTreeMap<String, usize> = BTreeMap::new();
        while attempts.len() < 20 || attempts.values().any(|count| *count < 2) {
            let line = process.next_line().expect("the consumer runs until its input closes");
            if let crate::driver::Event::Received(message) = crate::driver::Event::parse(&line) {
                *attempts.entry(message.key).or_default() += 1;
            }
        }
        process.close_stdin();
        process.wait_exit();
        assert!(attempts.values().all(|count| *count == 2), "{client:?}: {attempts:?}");
    }
}
