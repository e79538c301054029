//! The order system: payments in transactions, events in order, orders that nobody pays, notifications that fail.
//!
//! Everything that can go wrong goes wrong once: a producer dies between half and commit, a consumer in the middle of its queues, and a
//! notification service refuses everything until its messages are dead letters. The audit matches message by message.

use std::collections::{BTreeMap, BTreeSet};

use super::running::{Running, assert_exactly, keys, shown_numbers};
use super::server::Server;
use crate::driver::{Client, produce, received};
use crate::push_group::{PushGroup, assert_in_order};

const CLIENT: Client = Client::Java533;
const ORDERS: usize = 40;
const EVENTS: usize = 800;
/// Half an hour in the shop, three seconds here.
const UNPAID_AFTER_MS: i64 = 3_000;

fn server() -> Server {
    Server::start(&[
        "messageDelayLevel=1s 3s 1s 1s 1s 1s",
        "transactionTimeOut=1000",
        "transactionCheckInterval=1000",
        "transactionOpBatchInterval=100",
    ])
}

#[test]
fn every_order_is_accounted_for() {
    let server = server();
    for (topic, queues) in [("Payments", 4), ("OrderEvents", 8), ("Unpaid", 4), ("Notices", 4)] {
        server.create_topic(topic, queues);
    }
    payments_are_committed_by_whoever_is_left(&server);
    events_stay_in_order_through_a_crash(&server);
    unpaid_orders_come_up_in_time(&server);
    refused_notices_are_sent_again(&server);
}

fn payments_are_committed_by_whoever_is_left(server: &Server) {
    let group = ["--group", "PID_payments", "--keys", "paid"];
    let count = ORDERS.to_string();
    let mut dying: Vec<&str> = group.to_vec();
    dying.extend(["--count", &count, "--outcome", "unknown", "--check", "unknown"]);
    let mut first = Running::start(CLIENT, server, "transact", "Payments", &dying);
    first.await_acks(ORDERS);
    first.kill_hard();

    let mut ledger = Running::push(CLIENT, server, "Payments", "CID_ledger", &["--from", "first"]);
    let mut rest: Vec<&str> = group.to_vec();
    rest.extend(["--start", "40", "--count", "10", "--outcome", "commit", "--check", "commit"]);
    let second = Running::start(CLIENT, server, "transact", "Payments", &rest);
    let all = keys("paid", 0..ORDERS + 10);
    ledger.await_keys(&all);
    second.end();
    assert_exactly(&received(&ledger.end()), &all);
}

fn events_stay_in_order_through_a_crash(server: &Server) {
    let mut group = PushGroup::new(CLIENT, &server.namesrv(), "OrderEvents", "CID_events", &["--orderly"]);
    group.join("one");
    group.join("two");
    group.await_shared(8);
    let half = EVENTS / 2;
    let send = |prefix: &str| produce(CLIENT, &server.namesrv(), "OrderEvents", "sync", prefix, half, &["--orderly"]);
    send("event-a");
    group.await_keys(&keys("event-a", 0..10));
    group.kill("one");
    send("event-b");
    let all: BTreeSet<String> = keys("event-a", 0..half).into_iter().chain(keys("event-b", 0..half)).collect();
    group.await_keys(&all);
    group.leave_all();
    // What the dead one had and did not commit comes again, in order again: the first deliveries of each queue rise.
    let mut seen = BTreeSet::new();
    let first: Vec<_> = group
        .deliveries
        .iter()
        .filter(|(_, message)| all.contains(&message.key) && seen.insert(message.key.clone()))
        .cloned()
        .collect();
    assert_eq!(first.len(), EVENTS);
    assert_in_order(&first);
}

fn unpaid_orders_come_up_in_time(server: &Server) {
    let options = ["--from", "first", "--show", "stored", "--show", "born"];
    let mut reminder = Running::push(CLIENT, server, "Unpaid", "CID_unpaid", &options);
    produce(CLIENT, &server.namesrv(), "Unpaid", "sync", "unpaid", ORDERS, &["--delay-level", "2"]);
    let all = keys("unpaid", 0..ORDERS);
    reminder.await_keys(&all);
    let seen = reminder.end();
    assert_exactly(&received(&seen), &all);
    let (stored, born) = (shown_numbers(&seen, "stored"), shown_numbers(&seen, "born"));
    for key in &all {
        let waited = stored[key] - born[key];
        assert!(waited >= UNPAID_AFTER_MS, "{key} came up after {waited} ms");
    }
}

fn refused_notices_are_sent_again(server: &Server) {
    let sent = produce(CLIENT, &server.namesrv(), "Notices", "sync", "notice", ORDERS, &["--tag", "Mail"]);
    let refusing = ["--from", "first", "--fail-first", "99", "--max-reconsume", "2"];
    let failing = Running::push(CLIENT, server, "Notices", "CID_notices", &refusing);
    let all = keys("notice", 0..ORDERS);
    let dead = server.await_pulled("%DLQ%CID_notices", ORDERS);
    assert_exactly(&dead, &all);
    let mut tries: BTreeMap<String, usize> = BTreeMap::new();
    for message in received(&failing.end()) {
        *tries.entry(message.key).or_default() += 1;
    }
    assert_eq!(tries, all.iter().map(|key| (key.clone(), 3)).collect(), "three deliveries of each");
    let ids: BTreeSet<&str> = sent.iter().map(|ack| ack.msg_id.as_str()).collect();
    assert_eq!(dead.iter().map(|message| message.msg_id.as_str()).collect::<BTreeSet<_>>(), ids);

    // The service works again, and whoever looks after it sends what it has missed once more.
    let mut mended = Running::push(CLIENT, server, "Notices", "CID_notices", &["--from", "first"]);
    produce(CLIENT, &server.namesrv(), "Notices", "sync", "notice", ORDERS, &["--tag", "Mail"]);
    mended.await_keys(&all);
    assert_exactly(&received(&mended.end()), &all);
}
