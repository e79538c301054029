//! Where consumers start, who gets what, and where they go on.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::running::{Running, assert_exactly, keys};
use super::server::Server;
use crate::driver::{ALL_CLIENTS, Client, Event, produce, received};
use crate::process::await_condition;

const JAVA: [Client; 2] = [Client::Java498, Client::Java533];

/// Eight messages, two in each of four queues.
fn send_eight(client: Client, server: &Server, topic: &str, prefix: &str) -> BTreeSet<String> {
    produce(client, &server.namesrv(), topic, "sync", prefix, 8, &["--orderly"]);
    keys(prefix, 0..8)
}

/// A whole second, in ms since 1970, that lies between what happened before and what happens next. Consumers name the time
/// to start from in whole seconds.
fn next_second() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let next = now() + 1;
    await_condition("the next second", || (now() >= next).then_some(()));
    next * 1000
}

#[test]
fn every_member_of_a_broadcast_group_gets_everything() {
    let server = Server::start(&[]);
    for client in ALL_CLIENTS {
        let topic = format!("Broadcast{client:?}");
        server.create_topic(&topic, 4);
        let before = send_eight(client, &server, &topic, "before");
        let mut members: Vec<Running> = (0..2)
            .map(|_| {
                // Go's does not tell when it has its queues, and need not: it starts from the first message.
                let options = ["--group", "CID_broadcast", "--from", "first", "--broadcast"];
                Running::start(client, &server, "push", &topic, &options)
            })
            .collect();
        let after = send_eight(client, &server, &topic, "after");
        let all: BTreeSet<String> = before.into_iter().chain(after).collect();
        for member in &mut members {
            member.await_keys(&all);
        }
        for member in members {
            assert_exactly(&received(&member.end()), &all);
        }
    }
}

#[test]
fn a_broadcast_consumer_starts_where_it_asks_to() {
    let server = Server::start(&[]);
    for client in JAVA {
        let topic = format!("Start{client:?}");
        server.create_topic(&topic, 4);
        let old = send_eight(client, &server, &topic, "old");
        let second = next_second().to_string();
        let new = send_eight(client, &server, &topic, "new");
        let start = |options: &[&str]| {
            let options: Vec<&str> = options.iter().copied().chain(["--broadcast"]).collect();
            let mut consumer = Running::push(client, &server, &topic, "CID_start", &options);
            consumer.until("it has all queues", |events| {
                events.iter().any(|event| matches!(event, Event::Assigned(queues) if queues.len() == 4))
            });
            consumer
        };
        let first = start(&["--from", "first"]);
        let timestamp = start(&["--from", "timestamp", "--timestamp", &second]);
        let last = start(&["--from", "last"]);
        let later = send_eight(client, &server, &topic, "later");
        for (mut consumer, expected) in [
            (first, [&old, &new, &later].into_iter().flatten().cloned().collect::<BTreeSet<_>>()),
            (timestamp, [&new, &later].into_iter().flatten().cloned().collect()),
            (last, later.clone()),
        ] {
            consumer.await_keys(&expected);
            assert_exactly(&received(&consumer.end()), &expected);
        }
    }
}

/// The broker knows the start of a young topic and tells it to groups that have no offset yet, whatever they would do
/// without one.
#[test]
fn a_new_group_starts_at_the_beginning_of_a_young_topic() {
    let server = Server::start(&[]);
    server.create_topic("Young", 4);
    let all = send_eight(Client::Java533, &server, "Young", "old");
    let second = next_second().to_string();
    for (group, options) in [
        ("CID_first", ["--from", "first"].as_slice()),
        ("CID_last", &["--from", "last"]),
        ("CID_timestamp", &["--from", "timestamp", "--timestamp", &second]),
    ] {
        let mut consumer = Running::push(Client::Java533, &server, "Young", group, options);
        consumer.await_keys(&all);
        assert_exactly(&received(&consumer.end()), &all);
    }
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let mut server = Server::start(&[]);
    server.create_topic("GoingOn", 4);
    let first = send_eight(Client::Java533, &server, "GoingOn", "first");
    let mut consumer = Running::push(Client::Java533, &server, "GoingOn", "CID_going_on", &["--from", "first"]);
    consumer.await_keys(&first);
    consumer.end();
    let second = send_eight(Client::Java533, &server, "GoingOn", "second");
    let mut consumer = Running::push(Client::Java498, &server, "GoingOn", "CID_going_on", &["--from", "first"]);
    consumer.await_keys(&second);
    assert_exactly(&received(&consumer.end()), &second);
    // The broker may forget the newest commits when it is killed, but none of the messages.
    server.restart_broker_hard();
    server.await_route("GoingOn");
    let third = send_eight(Client::Java533, &server, "GoingOn", "third");
    let mut consumer = Running::push(Client::Go, &server, "GoingOn", "CID_going_on", &["--from", "first"]);
    consumer.await_keys(&third);
    consumer.end();
}

#[test]
fn a_lite_pull_group_goes_on_where_it_stopped() {
    let server = Server::start(&[]);
    for client in JAVA {
        let topic = format!("Lite{client:?}");
        let group = format!("CID_lite_{client:?}");
        server.create_topic(&topic, 4);
        let first = send_eight(client, &server, &topic, "first");
        let polling = ["--group", &group, "--from", "first"];
        let mut consumer = Running::start(client, &server, "lite-pull", &topic, &polling);
        consumer.await_keys(&first);
        assert_exactly(&received(&consumer.end()), &first);
        let second = send_eight(client, &server, &topic, "second");
        let mut consumer = Running::start(client, &server, "lite-pull", &topic, &polling);
        consumer.await_keys(&second);
        assert_exactly(&received(&consumer.end()), &second);
    }
}

#[test]
fn members_that_subscribe_differently_are_told_of() {
    let server = Server::start(&[]);
    server.create_topic("Disputed", 4);
    let start = |tags: &str, name: &str| {
        let options = ["--from", "first", "--tags", tags, "--instance", name];
        Running::push(Client::Java533, &server, "Disputed", "CID_disputed", &options)
    };
    let first = start("TagA", "member-one");
    let second = start("TagB", "member-two");
    // Java's broker logs the change and leaves it to the reader to find out who.
    let named =
        |line: &str| line.contains("@member-one") && line.contains("@member-two") && line.contains("CID_disputed");
    let changed = |line: &str| line.contains("subscription changed") && line.contains("CID_disputed");
    await_condition("a line about it in the broker's log", || {
        server.broker_logged(if server.is_java() { &changed as &dyn Fn(&str) -> bool } else { &named }).then_some(())
    });
    first.end();
    second.end();
}

#[test]
fn a_classic_pull_waits_at_the_end_of_a_queue() {
    let server = Server::start(&[]);
    for client in JAVA {
        let topic = format!("Waiting{client:?}");
        server.create_topic(&topic, 1);
        produce(client, &server.namesrv(), &topic, "sync", "old", 2, &[]);
        let group = format!("CID_waiting_{client:?}");
        let mut consumer =
            Running::start(client, &server, "pull", &topic, &["--group", &group, "--tags", "New", "--await", "3"]);
        for i in 0..3 {
            let prefix = format!("new{i}-");
            // One that it does not want wakes nobody.
            produce(client, &server.namesrv(), &topic, "sync", "other", 1, &["--tag", "Other"]);
            produce(client, &server.namesrv(), &topic, "sync", &prefix, 1, &["--tag", "New"]);
            consumer.await_keys(&keys(&prefix, 0..1));
        }
        assert_eq!(received(&consumer.finish()).len(), 3);
    }
}
