//! A promotion for ten million users: a thousand to a message, a batch just below a megabyte, many threads, four consumers.

use std::collections::BTreeMap;

use super::running::{Running, events_of};
use super::server::Server;
use crate::driver::{Client, Event};
use crate::process::await_condition;

const USERS: u64 = 10_000_000;
const BUCKETS: usize = 10_000;
const MEMBERS: usize = 4;

#[test]
fn ten_million_users_are_counted_once() {
    let server = Server::start(&[]);
    server.create_topic("Promotion", 16);
    let mut members: Vec<Running> = (0..MEMBERS)
        .map(|member| {
            let name = format!("member-{member}");
            let options = ["--group", "CID_promotion", "--from", "first", "--instance", &name];
            Running::start(Client::Java533, &server, "tally", "Promotion", &options)
        })
        .collect();
    for member in &mut members {
        // Each has its share before the first message comes, so that the work is divided.
        member.until("it has four queues", |events| {
            events.iter().rev().find_map(|event| match event {
                Event::Assigned(queues) => Some(queues.len() == 16 / MEMBERS),
                _ => None,
            }) == Some(true)
        });
    }
    let users = USERS.to_string();
    let sent = events_of(Client::Java533, &server, "promote", "Promotion", &["--count", &users, "--threads", "8"]);
    assert_eq!(sent.last(), Some(&Event::Done(vec![BUCKETS as u64, 0])), "{:?}", sent.first());

    // At least once: a bucket that came twice counts once.
    let mut buckets: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    await_condition("all buckets", || {
        for member in &mut members {
            for event in member.take_new() {
                if let Event::Bucket { key, users, sum } = event {
                    buckets.insert(key, (users, sum));
                }
            }
        }
        (buckets.len() == BUCKETS).then_some(())
    });
    assert_eq!(buckets.values().map(|(users, _)| users).sum::<u64>(), USERS);
    assert_eq!(buckets.values().map(|(_, sum)| sum).sum::<u64>(), USERS * (USERS - 1) / 2);
    for member in members {
        let buckets = member.end().iter().filter(|event| matches!(event, Event::Bucket { .. })).count();
        // Beside other load, one now and then has two queues for most of the time: who has the others then is not known.
        assert!(buckets >= BUCKETS / MEMBERS / 4, "one of {MEMBERS} members had {buckets} of {BUCKETS} buckets");
    }
    if let Some(megabytes) = server.broker_memory_mb() {
        assert!(megabytes < 64, "the broker has {megabytes} MB of its own after 80 MB of messages");
    }
}
