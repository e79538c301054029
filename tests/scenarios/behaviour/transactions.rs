//! Transactional messages: what is committed arrives once, what is rolled back never, and what is left open is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::running::{Running, assert_exactly, keys, shown};
use super::server::Server;
use crate::driver::{Client, Event, acks, pull_all, received};

/// Halves are asked about when they are a second old, every two seconds. Marks of finished halves must be written well
/// within that time, or a half that was just committed is asked about and committed once more.
const QUICK: &[&str] = &["transactionTimeOut=1000", "transactionCheckInterval=2000", "transactionOpBatchInterval=100"];

/// A producer of the group `PID_<keys>`, unless the options name another.
fn transact(client: Client, server: &Server, topic: &str, keys: &str, count: usize, options: &[&str]) -> Running {
    let (group, count) = (format!("PID_{keys}"), count.to_string());
    let mut all = vec!["--group", &group, "--keys", keys, "--count", &count];
    all.extend_from_slice(options);
    Running::start(client, server, "transact", topic, &all)
}

/// For each key, the transactions it was asked about.
fn checks(events: &[Event]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        if let Event::Check { key, transaction } = event {
            all.entry(key.clone()).or_default().push(transaction.clone());
        }
    }
    all
}

/// Sends one more transaction, leaves it open and commits it when asked. The broker goes through its halves in order, so
/// when this one has arrived, every earlier one was looked at.
fn await_a_later_one(client: Client, server: &Server, topic: &str, consumer: &mut Running) {
    let later = transact(client, server, topic, "later", 1, &["--outcome", "unknown", "--check", "commit"]);
    consumer.await_keys(&keys("later", 0..1));
    later.end();
}

fn committed_arrive_once_and_rolled_back_never(client: Client) {
    // Long enough for a client that has to wait for its turn between half and end.
    let server = Server::start(&["transactionTimeOut=10000", QUICK[1], QUICK[2]]);
    server.create_topic("Deals", 4);
    let mut consumer = Running::push(
        client,
        &server,
        "Deals",
        "CID_deals",
        &["--from", "first", "--show", "color", "--show", "seq", "--show", "TAGS"],
    );
    // Were one of these asked about, the answer would be the wrong one, and the end would show it.
    let mut rolled = transact(client, &server, "Deals", "rolled", 20, &["--outcome", "rollback", "--check", "commit"]);
    let mut committed = transact(
        client,
        &server,
        "Deals",
        "committed",
        20,
        &["--outcome", "commit", "--check", "rollback", "--size", "5000", "--tag", "TagA", "--prop", "color=blue"],
    );
    rolled.await_acks(20);
    committed.await_acks(20);
    await_a_later_one(client, &server, "Deals", &mut consumer);

    let all: BTreeSet<String> = keys("committed", 0..20).into_iter().chain(keys("later", 0..1)).collect();
    consumer.await_keys(&all);
    assert!(checks(&rolled.end()).is_empty());
    let sent = committed.end();
    assert!(checks(&sent).is_empty());
    let seen = consumer.end();
    assert_exactly(&received(&seen), &all);
    let (color, seq, tags) = (shown(&seen, "color"), shown(&seen, "seq"), shown(&seen, "TAGS"));
    for i in 0..20 {
        let key = format!("committed{i}");
        assert_eq!((&*color[&key], &*seq[&key], &*tags[&key]), ("blue", &*i.to_string(), "TagA"));
    }
    let ids: BTreeMap<String, String> = acks(&sent).into_iter().map(|ack| (ack.key, ack.msg_id)).collect();
    for message in received(&seen).iter().filter(|message| message.key.starts_with("committed")) {
        assert_eq!(message.msg_id, ids[&message.key], "a message keeps its id from half to delivery");
    }
    assert_exactly(&pull_all(client, &server.namesrv(), "Deals"), &all);
}

#[test]
fn committed_arrive_once_and_rolled_back_never_for_java_4_9_8() {
    committed_arrive_once_and_rolled_back_never(Client::Java498);
}

#[test]
fn committed_arrive_once_and_rolled_back_never_for_java_5_3_3() {
    committed_arrive_once_and_rolled_back_never(Client::Java533);
}

#[test]
fn committed_arrive_once_and_rolled_back_never_for_go() {
    committed_arrive_once_and_rolled_back_never(Client::Go);
}

/// A producer is killed between half and commit; another member of its group is asked and commits.
fn orphans_are_finished_by_another_member(client: Client, restart_broker: bool) {
    let mut server = Server::start(QUICK);
    server.create_topic("Orphans", 4);
    let options = ["--group", "PID_family", "--outcome", "unknown", "--check", "unknown"];
    let mut first = transact(client, &server, "Orphans", "orphan", 20, &options);
    first.await_acks(20);
    let sent = acks(&first.events);
    first.kill_hard();
    if restart_broker {
        server.restart_broker_hard();
        server.await_route("Orphans");
    }
    let all = keys("orphan", 0..20);
    let mut second = transact(client, &server, "Orphans", "none", 0, &["--group", "PID_family", "--check", "commit"]);
    let mut consumer = Running::push(client, &server, "Orphans", "CID_orphans", &["--from", "first"]);
    consumer.await_keys(&all);
    second.until("it was asked about all", |events| checks(events).len() == all.len());
    let asked = checks(&second.events);
    for ack in &sent {
        assert_eq!(asked[&ack.key].first(), Some(&ack.msg_id), "the transaction id of {} is its message id", ack.key);
    }
    await_a_later_one(client, &server, "Orphans", &mut consumer);
    second.end();
    let all: BTreeSet<String> = all.into_iter().chain(keys("later", 0..1)).collect();
    assert_exactly(&received(&consumer.end()), &all);
    assert_exactly(&pull_all(client, &server.namesrv(), "Orphans"), &all);
}

#[test]
fn another_member_commits_what_a_killed_producer_left_open() {
    orphans_are_finished_by_another_member(Client::Java533, false);
}

#[test]
fn another_member_commits_what_a_killed_go_producer_left_open() {
    orphans_are_finished_by_another_member(Client::Go, false);
}

#[test]
fn halves_survive_kill_9_of_the_broker() {
    orphans_are_finished_by_another_member(Client::Java533, true);
}

#[test]
fn a_half_that_nobody_decides_is_given_up() {
    let server = Server::start(&[
        "transactionTimeOut=1000",
        "transactionCheckInterval=1000",
        "transactionOpBatchInterval=100",
        "transactionCheckMax=2",
    ]);
    server.create_topic("Stubborn", 4);
    let all = keys("stubborn", 0..5);
    let mut producer = transact(
        Client::Java533,
        &server,
        "Stubborn",
        "stubborn",
        all.len(),
        &["--outcome", "unknown", "--check", "unknown"],
    );
    assert_exactly(&server.await_pulled("TRANS_CHECK_MAX_TIME_TOPIC", all.len()), &all);
    // The last question is on its way when the broker gives up.
    producer.until("it was asked twice about all", |events| {
        let asked = checks(events);
        asked.len() == all.len() && asked.values().all(|times| times.len() >= 2)
    });
    let asked = checks(&producer.end());
    assert!(asked.values().all(|times| times.len() == 2), "asked twice, then given up: {asked:?}");
    assert_eq!(asked.into_keys().collect::<BTreeSet<_>>(), all);
    assert!(pull_all(Client::Java533, &server.namesrv(), "Stubborn").is_empty());
}

#[test]
fn a_message_can_ask_not_to_be_asked_about_soon() {
    let server = Server::start(QUICK);
    server.create_topic("Patient", 1);
    let mut consumer = Running::push(Client::Java533, &server, "Patient", "CID_patient", &["--from", "first"]);
    let options = ["--outcome", "unknown", "--check", "commit", "--immunity-s", "8"];
    // Before the message was born, from when the time counts. Without it, three seconds after the client's start would be late.
    let began = Instant::now();
    let mut producer = transact(Client::Java533, &server, "Patient", "patient", 1, &options);
    producer.until("it was asked", |events| !checks(events).is_empty());
    assert!(began.elapsed() >= Duration::from_secs(8), "asked after {:?}", began.elapsed());
    consumer.await_keys(&keys("patient", 0..1));
    producer.end();
}
