//! A push-consumer group: members as processes, and what each of them received.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::driver::{Client, Event, Received, produce};
use crate::process::{HANG_GUARD, Process};

struct Member {
    name: String,
    process: Process,
}

/// Members of one group on one topic, polled together.
pub struct PushGroup {
    client: Client,
    namesrv: String,
    topic: String,
    group: String,
    options: Vec<String>,
    members: Vec<Member>,
    /// Every delivery in the order its member printed it: (member, message).
    pub deliveries: Vec<(String, Received)>,
    probes: usize,
}

impl PushGroup {
    pub fn new(client: Client, namesrv: &str, topic: &str, group: &str, options: &[&str]) -> PushGroup {
        PushGroup {
            client,
            namesrv: namesrv.to_owned(),
            topic: topic.to_owned(),
            group: group.to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            members: Vec::new(),
            deliveries: Vec::new(),
            probes: 0,
        }
    }

    pub fn join(&mut self, name: &str) {
        let mut arguments = vec!["push", "--namesrv", &self.namesrv, "--topic", &self.topic, "--group", &self.group];
        arguments.extend(["--from", "first", "--instance", name]);
        arguments.extend(self.options.iter().map(String::as_str));
        let mut process = self.client.start(name, &arguments);
        process.wait_for_line("the consumer has started", |line| Event::parse(line) == Event::Ready);
        self.members.push(Member { name: name.to_owned(), process });
    }

    /// SIGKILL: the member can neither commit nor say goodbye.
    pub fn kill(&mut self, name: &str) {
        self.gather(Duration::from_millis(1));
        let at = self.members.iter().position(|member| member.name == name).expect("a member of this group");
        self.members.remove(at).process.kill_hard();
    }

    /// Ends every member in order, so that offsets are committed.
    pub fn leave_all(&mut self) {
        for member in &mut self.members {
            member.process.close_stdin();
        }
        for member in &mut self.members {
            member.process.wait_exit();
        }
        self.gather(Duration::from_millis(1));
        self.members.clear();
    }

    /// Takes what members have printed.
    pub fn gather(&mut self, patience: Duration) {
        for member in &mut self.members {
            for line in member.process.lines_within(patience) {
                if let Event::Received(message) = Event::parse(&line) {
                    self.deliveries.push((member.name.clone(), message));
                }
            }
        }
    }

    /// Waits until every one of `keys` was delivered at least once.
    pub fn await_keys(&mut self, keys: &BTreeSet<String>) {
        let started = std::time::Instant::now();
        let mut missing = keys.clone();
        let mut seen = 0;
        loop {
            self.gather(Duration::from_millis(20));
            for (_, message) in &self.deliveries[seen..] {
                missing.remove(&message.key);
            }
            seen = self.deliveries.len();
            if missing.is_empty() {
                return;
            }
            assert!(
                started.elapsed() < HANG_GUARD,
                "{} of {} messages never came, for instance {:?}",
                missing.len(),
                keys.len(),
                missing.first()
            );
        }
    }

    /// Sends probes to every queue until each of `queues` queues belongs to one member and every member has a fair share.
    /// Works for clients that cannot tell what they were assigned.
    pub fn await_shared(&mut self, queues: usize) -> Duration {
        let started = std::time::Instant::now();
        loop {
            self.probes += 1;
            let prefix = format!("probe{}_", self.probes);
            let acks = produce(self.client, &self.namesrv, &self.topic, "sync", &prefix, queues, &["--orderly"]);
            let keys: BTreeSet<String> = acks.iter().map(|ack| ack.key.clone()).collect();
            self.await_keys(&keys);
            let mut owner: HashMap<u32, String> = HashMap::new();
            for (member, message) in self.deliveries.iter().filter(|(_, message)| keys.contains(&message.key)) {
                owner.insert(message.queue_id, member.clone());
            }
            let mut share: BTreeMap<&str, usize> = BTreeMap::new();
            for member in owner.values() {
                *share.entry(member).or_default() += 1;
            }
            let least = queues / self.members.len();
            if share.len() == self.members.len() && share.values().all(|count| *count >= least) {
                return started.elapsed();
            }
            assert!(started.elapsed() < HANG_GUARD, "queues are still shared as {share:?}");
        }
    }
}

/// Per queue, the queue offsets of first deliveries rise by one: nothing out of order.
pub fn assert_in_order(deliveries: &[(String, Received)]) {
    let mut last: HashMap<(String, u32), u64> = HashMap::new();
    for (_, message) in deliveries {
        let queue = (message.broker.clone(), message.queue_id);
        if let Some(previous) = last.insert(queue, message.queue_offset) {
            assert!(
                message.queue_offset > previous,
                "queue {}: {} came after {previous}",
                message.queue_id,
                message.queue_offset
            );
        }
    }
}

/// Each message of `keys` exactly once.
pub fn assert_once(deliveries: &[(String, Received)], keys: &BTreeSet<String>) {
    let mut count: HashMap<&str, usize> = HashMap::new();
    for (_, message) in deliveries {
        *count.entry(message.key.as_str()).or_default() += 1;
    }
    for key in keys {
        assert_eq!(count.get(key.as_str()), Some(&1), "deliveries of {key}");
    }
}
