//! A promotion for ten million users: a thousand to a message, a batch just below a megabyte, many threads, four consumers.

use std::collections::{BTreeMap, BTreeSet};

use super::running::{Running, events_of};
use super::server::Server;
use crate::driver::{Client, Event};
use crate::process::await_condition;

const USERS: u64 = 10_000_000;
const BUCKETS: usize = 10_000;
const MEMBERS: usize = 4;

fn assigned(event: &Event) -> Option<&Vec<String>> {
    if let Event::Assigned(queues) = event { Some(queues) } else { None }
}

/// How many messages each queue holds, by its name among those that are assigned.
fn messages_by_queue(server: &Server) -> BTreeMap<String, u64> {
    let said = events_of(Client::Java533, server, "offsets", "Promotion", &[]);
    let of_queue = |event: &Event| {
        let Event::Other(line) = event else { return None };
        let fields: Vec<_> = line.strip_prefix("QUEUE ")?.split(' ').collect();
        let [broker, id, _, end] = fields[..] else { panic!("{line}") };
        Some((format!("{broker}:{id}"), end.parse().unwrap()))
    };
    said.iter().filter_map(of_queue).collect()
}

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
            events.iter().rev().find_map(assigned).is_some_and(|queues| queues.len() == 16 / MEMBERS)
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
    let stored = messages_by_queue(&server);
    for member in members {
        // The client begins anywhere with its batches, and no queue has its sixteenth: each has done what came to its own.
        let queues = member.events.iter().rev().find_map(assigned).unwrap().clone();
        let share: u64 = queues.iter().map(|queue| stored[queue]).sum();
        let events = member.end();
        let keys =
            events.iter().filter_map(|event| if let Event::Bucket { key, .. } = event { Some(key) } else { None });
        let buckets = keys.collect::<BTreeSet<_>>().len() as u64;
        assert!(
            buckets >= share && queues.len() == 16 / MEMBERS,
            "a member had {buckets} of {share} buckets in {queues:?}"
        );
    }
    if let Some(megabytes) = server.broker_memory_mb() {
        assert!(megabytes < 64, "the broker has {megabytes} MB of its own after 80 MB of messages");
    }
}
