//! A driver that goes on until it is told to end, and everything it has said so far.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::server::Server;
use crate::driver::{Client, Event, Received, acks, events, received};
use crate::process::{HANG_GUARD, Process};

/// Keys of the messages that `produce` and its like number.
pub fn keys(prefix: &str, numbers: std::ops::Range<usize>) -> BTreeSet<String> {
    numbers.map(|i| format!("{prefix}{i}")).collect()
}

/// `command` on a topic with further options, run to its own end.
pub fn events_of(client: Client, server: &Server, command: &str, topic: &str, options: &[&str]) -> Vec<Event> {
    let namesrv = server.namesrv();
    let mut arguments = vec![command, "--namesrv", &namesrv, "--topic", topic];
    arguments.extend_from_slice(options);
    events(client, &arguments)
}

/// A running driver. Dropping it kills it.
pub struct Running {
    name: String,
    process: Process,
    pub events: Vec<Event>,
}

impl Running {
    /// `command` on a topic with further options, started and ready.
    pub fn start(client: Client, server: &Server, command: &str, topic: &str, options: &[&str]) -> Running {
        let namesrv = server.namesrv();
        let mut arguments = vec![command, "--namesrv", &namesrv, "--topic", topic];
        arguments.extend_from_slice(options);
        let mut running = Running {
            name: format!("{command} {topic}"),
            process: client.start(command, &arguments),
            events: Vec::new(),
        };
        running.until("it has started", |events| events.contains(&Event::Ready));
        running
    }

    /// A push consumer that has told the broker of itself and knows its queues.
    pub fn push(client: Client, server: &Server, topic: &str, group: &str, options: &[&str]) -> Running {
        let mut all = vec!["--group", group];
        all.extend_from_slice(options);
        let mut running = Running::start(client, server, "push", topic, &all);
        running.until("it has queues", |events| {
            events.iter().any(|event| matches!(event, Event::Assigned(queues) if !queues.is_empty()))
        });
        running
    }

    /// Takes events until all of them together satisfy `condition`.
    pub fn until(&mut self, what: &str, condition: impl Fn(&[Event]) -> bool) {
        let started = Instant::now();
        while !condition(&self.events) {
            assert!(
                started.elapsed() < HANG_GUARD,
                "{}: still not: {what}; last {:?}",
                self.name,
                self.events.iter().rev().take(10).collect::<Vec<_>>()
            );
            match self.process.next_line() {
                Some(line) => self.take(&line),
                None => panic!("{} ended before {what}; it said {:?}", self.name, self.events),
            }
        }
    }

    /// Waits until each of `keys` was received.
    pub fn await_keys(&mut self, keys: &BTreeSet<String>) {
        self.until(&format!("it received {keys:?}"), |events| {
            let there: BTreeSet<String> = received(events).into_iter().map(|message| message.key).collect();
            keys.is_subset(&there)
        });
    }

    pub fn await_acks(&mut self, count: usize) {
        self.until(&format!("{count} messages were accepted"), |events| acks(events).len() >= count);
    }

    /// What it has said since the last time, without waiting.
    pub fn take_new(&mut self) -> Vec<Event> {
        let before = self.events.len();
        for line in self.process.lines_within(Duration::from_millis(1)) {
            self.take(&line);
        }
        self.events[before..].to_vec()
    }

    /// SIGKILL: it can neither commit nor say goodbye.
    pub fn kill_hard(mut self) {
        self.process.kill_hard();
    }

    /// Tells it to end and takes what it still has to say.
    pub fn end(mut self) -> Vec<Event> {
        self.process.close_stdin();
        self.finish()
    }

    /// Takes everything up to its own end.
    pub fn finish(mut self) -> Vec<Event> {
        while let Some(line) = self.process.next_line() {
            self.take(&line);
        }
        let status = self.process.wait_exit();
        assert!(status.success(), "{} ended with {status}: {:?}", self.name, self.events);
        self.events
    }

    fn take(&mut self, line: &str) {
        assert!(!line.starts_with("BADBODY"), "{}: a body has changed: {line}", self.name);
        self.events.push(Event::parse(line));
    }
}

/// Requires that each message of `keys` was received once, and nothing else.
pub fn assert_exactly(messages: &[Received], keys: &BTreeSet<String>) {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for message in messages {
        *count.entry(&message.key).or_default() += 1;
    }
    let expected: BTreeMap<&str, usize> = keys.iter().map(|key| (key.as_str(), 1)).collect();
    assert_eq!(count, expected);
}

/// What `--show name` said, for each key the value that came last.
pub fn shown(events: &[Event], wanted: &str) -> BTreeMap<String, String> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::With { key, name, value } if name == wanted => Some((key.clone(), value.clone())),
            _ => None,
        })
        .collect()
}

/// The same as numbers.
pub fn shown_numbers(events: &[Event], wanted: &str) -> BTreeMap<String, i64> {
    shown(events, wanted)
        .into_iter()
        .map(|(key, value)| (key, value.parse().unwrap_or_else(|_| panic!("{wanted} is {value}"))))
        .collect()
}
