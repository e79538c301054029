//! Batches: many messages in one send, and each of them a message like any other afterwards.

use std::collections::BTreeMap;

use super::running::{assert_exactly, events_of, keys};
use super::server::Server;
use crate::driver::{Client, assert_contiguous, produce, pull_all, received};

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
    let found = received(&events_of(client, &server, "query", "Batches", &options));
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
