//! Batches: many messages in one send, and each of them a message like any other afterwards. And many keys for one message.

use std::collections::BTreeMap;

use super::running::{assert_exactly, events_of, keys};
use super::server::Server;
use crate::driver::{Client, Event, assert_contiguous, produce, pull_all, received};

fn every_message_of_a_batch_is_its_own(client: Client) {
    let server = Server::start(&[]);
    server.create_topic("Batches", 4);
    let namesrv = server.namesrv();
    let acked = produce(client, &namesrv, "Batches", "batch", "batch", 160, &["--batch-size", "16", "--size", "300"]);
    for batch in acked.chunks(16) {
        for pair in batch.windows(2) {
            assert_eq!((pair[1].queue_id, pair[1].queue_offset), (pair[0].queue_id, pair[0].queue_offset + 1));
        }
    }
    let pulled = pull_all(client, &namesrv, "Batches");
    assert_contiguous(&pulled);
    assert_exactly(&pulled, &keys("batch", 0..160));
    let place: BTreeMap<&str, (u32, u64)> =
        acked.iter().map(|ack| (ack.key.as_str(), (ack.queue_id, ack.queue_offset))).collect();
    for message in &pulled {
        assert_eq!(place[message.key.as_str()], (message.queue_id, message.queue_offset), "{}", message.key);
    }

    let options: Vec<&str> = acked.iter().flat_map(|ack| ["--key", ack.key.as_str()]).collect();
    // The Go client cannot query.
    let asking = if client == Client::Go { Client::Java533 } else { client };
    let found = received(&events_of(asking, &server, "query", "Batches", &options));
    assert_exactly(&found, &keys("batch", 0..160));
    for message in &found {
        assert_eq!(place[message.key.as_str()], (message.queue_id, message.queue_offset), "{}", message.key);
    }
}

#[test]
fn every_message_of_a_batch_is_its_own_for_java_4_9_8() {
    every_message_of_a_batch_is_its_own(Client::Java498);
}

#[test]
fn every_message_of_a_batch_is_its_own_for_java_5_3_3() {
    every_message_of_a_batch_is_its_own(Client::Java533);
}

#[test]
fn every_message_of_a_batch_is_its_own_for_go() {
    every_message_of_a_batch_is_its_own(Client::Go);
}

#[test]
fn a_message_is_found_by_each_of_its_keys() {
    let server = Server::start(&[]);
    server.create_topic("ManyKeys", 1);
    let sent = events_of(Client::Java533, &server, "produce", "ManyKeys", &["--prop", "KEYS=order-1 user-7 shop-3"]);
    assert_eq!(sent.last(), Some(&Event::Done(vec![1, 0])), "{sent:?}");
    for key in ["order-1", "user-7", "shop-3"] {
        let found = received(&events_of(Client::Java533, &server, "query", "ManyKeys", &["--key", key]));
        let keys: Vec<&str> = found.iter().map(|message| message.key.as_str()).collect();
        assert_eq!(keys, ["order-1,user-7,shop-3"], "found by {key}");
    }
}
