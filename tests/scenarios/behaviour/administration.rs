//! The admin side of consumption, with Java's own `mqadmin`: offsets set back and skipped, a look into a running consumer, groups and queues
//! taken away. Its `cloneGroupOffset` changes nothing, here as on Java's servers (5.3.3).

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::running::{Running, assert_exactly, keys};
use super::server::Server;
use crate::driver::{Client, Event, events, produce, received};
use crate::process::await_condition;

const CLIENT: Client = Client::Java533;

fn consume_all(server: &Server, topic: &str, group: &str, all: &BTreeSet<String>) {
    let mut consumer = Running::push(CLIENT, server, topic, group, &["--from", "first"]);
    consumer.await_keys(all);
    consumer.end();
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_millis()
}

#[test]
fn a_group_is_set_back_in_time_while_it_runs_and_while_it_does_not() {
    let server = Server::start(&[]);
    server.create_topic("Again", 4);
    produce(CLIENT, &server.namesrv(), "Again", "sync", "old", 20, &[]);
    let between = now_ms() + 50;
    await_condition("the clock has moved on", || (now_ms() > between + 50).then_some(()));
    produce(CLIENT, &server.namesrv(), "Again", "sync", "new", 20, &[]);
    let both: BTreeSet<String> = keys("old", 0..20).into_iter().chain(keys("new", 0..20)).collect();
    let since = between.to_string();
    let set_back = || server.admin("resetOffsetByTime", &["-g", "CID_again", "-t", "Again", "-s", &since]);

    let mut consumer = Running::push(CLIENT, &server, "Again", "CID_again", &["--from", "first"]);
    consumer.await_keys(&both);
    set_back();
    consumer.until("it has the new ones twice", |events| {
        keys("new", 0..20).iter().all(|key| received(events).iter().filter(|message| message.key == *key).count() >= 2)
    });
    let seen = received(&consumer.end());
    assert!(keys("old", 0..20).iter().all(|key| seen.iter().filter(|message| message.key == *key).count() == 1));

    set_back();
    let mut later = Running::push(CLIENT, &server, "Again", "CID_again", &["--from", "first"]);
    later.await_keys(&keys("new", 0..20));
    assert_exactly(&received(&later.end()), &keys("new", 0..20));
}

#[test]
fn a_backlog_is_skipped() {
    let server = Server::start(&[]);
    server.create_topic("Backlog", 4);
    produce(CLIENT, &server.namesrv(), "Backlog", "sync", "seen", 8, &[]);
    consume_all(&server, "Backlog", "CID_backlog", &keys("seen", 0..8));
    produce(CLIENT, &server.namesrv(), "Backlog", "sync", "skipped", 40, &[]);
    // -1 stands for the ends of the queues.
    server.admin("resetOffsetByTime", &["-g", "CID_backlog", "-t", "Backlog", "-s", "-1"]);
    let mut consumer = Running::push(CLIENT, &server, "Backlog", "CID_backlog", &["--from", "first"]);
    produce(CLIENT, &server.namesrv(), "Backlog", "sync", "fresh", 8, &[]);
    consumer.await_keys(&keys("fresh", 0..8));
    assert_exactly(&received(&consumer.end()), &keys("fresh", 0..8));
}

#[test]
fn a_running_consumer_is_looked_into_and_handed_a_message() {
    let server = Server::start(&[]);
    server.create_topic("Looked", 4);
    let sent = produce(CLIENT, &server.namesrv(), "Looked", "sync", "looked", 4, &[]);
    let mut consumer = Running::push(CLIENT, &server, "Looked", "CID_looked", &["--from", "first"]);
    consumer.await_keys(&keys("looked", 0..4));

    let connections = server.admin("consumerConnection", &["-g", "CID_looked"]);
    assert!(connections.contains("Looked") && connections.contains("JAVA"), "{connections}");
    let client_id = connections
        .split_whitespace()
        .find(|word| word.contains('@'))
        .unwrap_or_else(|| panic!("no client id in {connections}"));
    let progress = server.admin("consumerProgress", &["-g", "CID_looked"]);
    assert!(progress.contains("Consume TPS"), "{progress}");
    let status = server.admin("consumerStatus", &["-g", "CID_looked", "-i", client_id]);
    assert!(status.contains("Looked") && status.contains("PROP_CONSUME_TYPE"), "{status}");

    // Handed to it once more, by its own id.
    let direct = ["-i", &sent[0].msg_id, "-t", "Looked", "-g", "CID_looked", "-d", client_id];
    let consumed = server.admin("queryMsgById", &direct);
    assert!(consumed.contains("CR_SUCCESS"), "{consumed}");
    consumer.until("it has that one twice", |events| {
        received(events).iter().filter(|message| message.key == sent[0].key).count() == 2
    });
    consumer.end();
}

#[test]
fn a_deleted_group_begins_anew() {
    let server = Server::start(&[]);
    server.create_topic("Deleted", 4);
    produce(CLIENT, &server.namesrv(), "Deleted", "sync", "kept", 20, &[]);
    consume_all(&server, "Deleted", "CID_deleted", &keys("kept", 0..20));
    let broker = server.broker_addr();
    server.admin("deleteSubGroup", &["-b", &broker, "-g", "CID_deleted", "-r", "true"]);
    let mut consumer = Running::push(CLIENT, &server, "Deleted", "CID_deleted", &["--from", "first"]);
    consumer.await_keys(&keys("kept", 0..20));
    assert_exactly(&received(&consumer.end()), &keys("kept", 0..20));
}

#[test]
fn queues_are_taken_away_without_losing_what_is_in_them() {
    let server = Server::start(&[]);
    server.create_topic("Shrinking", 4);
    produce(CLIENT, &server.namesrv(), "Shrinking", "sync", "wide", 40, &["--orderly"]);
    // First nobody writes to them any more, then they are consumed, then nobody reads them.
    server.update_topic("Shrinking", 4, 2);
    let queues = |kind: &str| {
        let arguments = [kind, "--namesrv", &server.namesrv(), "--topic", "Shrinking"];
        events(CLIENT, &arguments)
            .iter()
            .filter(|event| matches!(event, Event::Other(line) if line.starts_with("QUEUE")))
            .count()
    };
    await_condition("two queues to write to", || (queues("route") == 2).then_some(()));
    let narrow = produce(CLIENT, &server.namesrv(), "Shrinking", "sync", "narrow", 40, &["--orderly"]);
    assert!(narrow.iter().all(|ack| ack.queue_id < 2), "{narrow:?}");
    let all: BTreeSet<String> = keys("wide", 0..40).into_iter().chain(keys("narrow", 0..40)).collect();
    let mut consumer = Running::push(CLIENT, &server, "Shrinking", "CID_shrinking", &["--from", "first"]);
    consumer.await_keys(&all);
    server.update_topic("Shrinking", 2, 2);
    consumer.until("it reads two queues", |events| {
        events.iter().rev().find_map(|event| match event {
            Event::Assigned(queues) => Some(queues.len() == 2),
            _ => None,
        }) == Some(true)
    });
    produce(CLIENT, &server.namesrv(), "Shrinking", "sync", "last", 10, &[]);
    consumer.await_keys(&keys("last", 0..10));
    let expected: BTreeSet<String> = all.into_iter().chain(keys("last", 0..10)).collect();
    assert_exactly(&received(&consumer.end()), &expected);
}
