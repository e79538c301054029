//! Messages that a consumer refuses: they come again, and in the end they are in the group's dead-letter topic.

use std::collections::BTreeMap;

use super::running::{Running, assert_exactly, keys};
use super::server::Server;
use crate::driver::{Client, Event, produce, received};

const QUICK: &[&str] = &["messageDelayLevel=1s 1s 1s 1s 1s 1s"];

/// For each key its deliveries in order, told by how often the message had failed before.
fn attempts(events: &[Event]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in received(events) {
        all.entry(message.key).or_default().push(message.rest);
    }
    all
}

fn refused_messages_are_dead_letters(client: Client) {
    let server = Server::start(QUICK);
    server.create_topic("Refusing", 4);
    let sent = produce(client, &server.namesrv(), "Refusing", "sync", "refused", 10, &["--tag", "TagA"]);
    let consumer = Running::push(
        client,
        &server,
        "Refusing",
        "CID_refusing",
        &["--from", "first", "--fail-first", "99", "--max-reconsume", "1"],
    );
    let dead = server.await_pulled("%DLQ%CID_refusing", 10);
    assert_exactly(&dead, &keys("refused", 0..10));
    for (key, times) in attempts(&consumer.end()) {
        assert_eq!(times, ["0", "1"], "deliveries of {key}");
    }
    let ids: BTreeMap<&str, &str> = sent.iter().map(|ack| (ack.key.as_str(), ack.msg_id.as_str())).collect();
    for message in &dead {
        assert_eq!(message.msg_id, ids[message.key.as_str()], "a dead letter keeps the id of the message");
        assert_eq!(message.rest, "2", "{} was tried twice", message.key);
    }
}

#[test]
fn refused_messages_are_dead_letters_for_java_4_9_8() {
    refused_messages_are_dead_letters(Client::Java498);
}

#[test]
fn refused_messages_are_dead_letters_for_java_5_3_3() {
    refused_messages_are_dead_letters(Client::Java533);
}

#[test]
fn refused_messages_are_dead_letters_for_go() {
    refused_messages_are_dead_letters(Client::Go);
}

#[test]
fn a_consumer_may_refuse_a_message_for_good() {
    let server = Server::start(QUICK);
    server.create_topic("ForGood", 4);
    produce(Client::Java533, &server.namesrv(), "ForGood", "sync", "refused", 10, &[]);
    // Level -1 asks for no second try.
    let consumer = Running::push(
        Client::Java533,
        &server,
        "ForGood",
        "CID_for_good",
        &["--from", "first", "--fail-first", "99", "--delay-level", "-1"],
    );
    assert_exactly(&server.await_pulled("%DLQ%CID_for_good", 10), &keys("refused", 0..10));
    for (key, times) in attempts(&consumer.end()) {
        assert_eq!(times, ["0"], "deliveries of {key}");
    }
}

#[test]
fn an_orderly_consumer_repeats_in_place() {
    let server = Server::start(QUICK);
    server.create_topic("InPlace", 1);
    produce(Client::Java533, &server.namesrv(), "InPlace", "sync", "step", 4, &[]);
    let mut consumer = Running::push(
        Client::Java533,
        &server,
        "InPlace",
        "CID_in_place",
        &["--from", "first", "--orderly", "--fail-first", "2"],
    );
    consumer.until("twelve deliveries", |events| received(events).len() >= 12);
    let seen: Vec<(String, String)> =
        received(&consumer.end()).into_iter().map(|message| (message.key, message.rest)).collect();
    let expected: Vec<(String, String)> =
        (0..4).flat_map(|step| (0..3).map(move |time| (format!("step{step}"), time.to_string()))).collect();
    assert_eq!(seen, expected, "the queue waits for the message that failed");
}

#[test]
fn an_orderly_consumer_gives_up_and_goes_on() {
    let server = Server::start(QUICK);
    server.create_topic("GivingUp", 1);
    produce(Client::Java533, &server.namesrv(), "GivingUp", "sync", "step", 4, &[]);
    let consumer = Running::push(
        Client::Java533,
        &server,
        "GivingUp",
        "CID_giving_up",
        &["--from", "first", "--orderly", "--fail-first", "99", "--max-reconsume", "1"],
    );
    assert_exactly(&server.await_pulled("%DLQ%CID_giving_up", 4), &keys("step", 0..4));
    let seen: Vec<(String, String)> =
        received(&consumer.end()).into_iter().map(|message| (message.key, message.rest)).collect();
    let expected: Vec<(String, String)> =
        (0..4).flat_map(|step| (0..2).map(move |time| (format!("step{step}"), time.to_string()))).collect();
    assert_eq!(seen, expected, "two tries of each, in order");
}

/// Messages are waiting for their next try when the group gets more retry queues and a member that is less patient: they come
/// to it all the same, and its limit counts the tries before it.
#[test]
fn messages_already_tried_follow_a_group_that_changes() {
    let server = Server::start(QUICK);
    server.create_topic("Changing", 1);
    produce(Client::Java533, &server.namesrv(), "Changing", "sync", "refused", 5, &[]);
    let refusing = ["--from", "first", "--fail-first", "99"];
    let mut patient = Running::push(Client::Java533, &server, "Changing", "CID_changing", &refusing);
    patient.until("each was tried three times", |events| {
        received(events).iter().filter(|message| message.rest == "2").count() == 5
    });
    let before = attempts(&patient.end());
    server.admin("updateSubGroup", &["-c", "DefaultCluster", "-g", "CID_changing", "-q", "4"]);
    let options: Vec<&str> = refusing.iter().copied().chain(["--max-reconsume", "2"]).collect();
    let impatient = Running::push(Client::Java498, &server, "Changing", "CID_changing", &options);
    let dead = server.await_pulled("%DLQ%CID_changing", 5);
    assert_exactly(&dead, &keys("refused", 0..5));
    let after = attempts(&impatient.end());
    for (key, tried) in before {
        let next = tried.len().to_string();
        assert_eq!(after[&key], [next], "{key} had been tried {} times", tried.len());
    }
}
