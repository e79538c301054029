//! Bodies that the client has compressed stay as they came, whatever way a message takes through the broker.

use std::collections::BTreeSet;

use super::running::{Running, assert_exactly, keys, shown_numbers};
use super::server::Server;
use crate::driver::{Client, acks, produce, received};

/// The client compresses bodies of 4,096 bytes and more.
const SIZE: &str = "20000";

fn compressed_bodies_stay_compressed(client: Client) {
    let server = Server::start(&["messageDelayLevel=1s 1s 1s"]);
    server.create_topic("Compressed", 4);
    let namesrv = server.namesrv();
    let send = |prefix: &str, options: &[&str]| {
        let options: Vec<&str> = ["--size", SIZE].iter().chain(options).copied().collect();
        produce(client, &namesrv, "Compressed", "sync", prefix, 5, &options);
    };
    send("plain", &[]);
    send("delayed", &["--delay-level", "1"]);
    send("timer", &["--prop", "TIMER_DELAY_MS=1500"]);
    let mut transaction = Running::start(
        client,
        &server,
        "transact",
        "Compressed",
        &["--group", "PID_compressed", "--keys", "committed", "--count", "5", "--outcome", "commit", "--size", SIZE],
    );
    transaction.await_acks(5);
    assert_eq!(acks(&transaction.end()).len(), 5);
    let all: BTreeSet<String> =
        ["plain", "delayed", "timer", "committed"].iter().flat_map(|prefix| keys(prefix, 0..5)).collect();

    // The driver itself compares each body with the one that was sent, so a small record is one that says it is compressed.
    let shown = ["--from", "first", "--show", "size"];
    let mut consumer = Running::push(client, &server, "Compressed", "CID_once", &shown);
    consumer.await_keys(&all);
    let seen = consumer.end();
    assert_exactly(&received(&seen), &all);

    // Refused once, they come again through the retry topic.
    let options: Vec<&str> = shown.iter().copied().chain(["--fail-first", "1"]).collect();
    let mut retrying = Running::push(client, &server, "Compressed", "CID_twice", &options);
    retrying.until("each came a second time", |events| {
        received(events).iter().filter(|message| message.rest == "1").count() == all.len()
    });
    for seen in [seen, retrying.end()] {
        let sizes = shown_numbers(&seen, "size");
        for key in &all {
            assert!(sizes[key] < 2_000, "{key} takes {} bytes", sizes[key]);
        }
    }
}

#[test]
fn compressed_bodies_stay_compressed_for_java_4_9_8() {
    compressed_bodies_stay_compressed(Client::Java498);
}

#[test]
fn compressed_bodies_stay_compressed_for_java_5_3_3() {
    compressed_bodies_stay_compressed(Client::Java533);
}

#[test]
fn compressed_bodies_stay_compressed_for_go() {
    compressed_bodies_stay_compressed(Client::Go);
}
