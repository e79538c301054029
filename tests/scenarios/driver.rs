//! The official clients, driven through `tests/interop`: what they print, parsed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::process::{Process, run};

/// Which official client a driver wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Java498,
    Java533,
    Go,
}

pub const ALL_CLIENTS: [Client; 3] = [Client::Java498, Client::Java533, Client::Go];

/// A program below `tests/interop`.
pub fn interop(program: &str) -> Command {
    Command::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(program))
}

/// Where `tests/interop/prepare` leaves what it builds.
fn prepared(part: &str) -> PathBuf {
    let dir = std::env::var_os("FERROMQ_INTEROP_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/interop"), PathBuf::from);
    let path = dir.join(part);
    assert!(path.exists(), "{} is missing: run tests/interop/prepare first (scripts/test does)", path.display());
    path
}

impl Client {
    fn name(self) -> &'static str {
        match self {
            Client::Java498 => "java-4.9.8",
            Client::Java533 => "java-5.3.3",
            Client::Go => "go",
        }
    }

    /// The driver of this client; `drive` becomes it, so that killing the child kills the client.
    pub fn command(self, arguments: &[&str]) -> Command {
        let mut command = interop("drive");
        command.arg(self.name()).args(arguments);
        command
    }

    pub fn start(self, what: &str, arguments: &[&str]) -> Process {
        Process::start(format!("{self:?} {what}"), &mut self.command(arguments))
    }
}

/// `mqadmin` of Java 5.3.3.
pub fn java_mqadmin(arguments: &[&str]) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg(format!("-Duser.home={}", std::env::temp_dir().join("ferromq-mqadmin").display()))
        .arg("-cp")
        .arg(format!("{}/*", prepared("tools-5.3.3/lib").display()))
        .arg("org.apache.rocketmq.tools.command.MQAdminStartup")
        .args(arguments);
    command
}

/// One acknowledged send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub key: String,
    pub status: String,
    pub msg_id: String,
    pub offset_msg_id: String,
    pub broker: String,
    pub queue_id: u32,
    pub queue_offset: u64,
}

/// One message as a consumer or a query saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub key: String,
    pub broker: String,
    pub queue_id: u32,
    pub queue_offset: u64,
    pub msg_id: String,
    pub rest: String,
}

/// One line of a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Ready,
    Ack(Ack),
    Fail {
        key: String,
        reason: String,
    },
    Sent(String),
    Received(Received),
    /// A value that `--show` asked for.
    With {
        key: String,
        name: String,
        value: String,
    },
    /// A broker asked what became of a transaction.
    Check {
        key: String,
        transaction: String,
    },
    Reply {
        key: String,
        body: String,
    },
    Replied(String),
    /// What a message adds to a count of users and to the sum of their ids.
    Bucket {
        key: String,
        users: u64,
        sum: u64,
    },
    Assigned(Vec<String>),
    /// How many deliveries there were so far.
    Count(u64),
    Done(Vec<u64>),
    Other(String),
}

impl Event {
    pub fn parse(line: &str) -> Event {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["READY"] => Event::Ready,
            ["ACK", key, status, msg_id, offset_msg_id, broker, queue_id, queue_offset] => Event::Ack(Ack {
                key: (*key).to_owned(),
                status: (*status).to_owned(),
                msg_id: (*msg_id).to_owned(),
                offset_msg_id: (*offset_msg_id).to_owned(),
                broker: (*broker).to_owned(),
                queue_id: number(queue_id, line),
                queue_offset: number(queue_offset, line),
            }),
            ["FAIL", key, reason @ ..] => Event::Fail { key: (*key).to_owned(), reason: reason.join(" ") },
            ["SENT", key] => Event::Sent((*key).to_owned()),
            ["RECV" | "FOUND", key, broker, queue_id, queue_offset, msg_id, rest @ ..] => Event::Received(Received {
                key: (*key).to_owned(),
                broker: (*broker).to_owned(),
                queue_id: number(queue_id, line),
                queue_offset: number(queue_offset, line),
                msg_id: (*msg_id).to_owned(),
                rest: rest.join(" "),
            }),
            ["WITH", key, name, value @ ..] => {
                Event::With { key: (*key).to_owned(), name: (*name).to_owned(), value: value.join(" ") }
            }
            ["CHECK", key, transaction] => {
                Event::Check { key: (*key).to_owned(), transaction: (*transaction).to_owned() }
            }
            ["REPLY", key, body @ ..] => Event::Reply { key: (*key).to_owned(), body: body.join(" ") },
            ["REPLIED", key] => Event::Replied((*key).to_owned()),
            ["ASSIGNED"] => Event::Assigned(Vec::new()),
            ["ASSIGNED", queues] => {
                Event::Assigned(queues.split(',').filter(|q| !q.is_empty()).map(str::to_owned).collect())
            }
            ["BUCKET", key, users, sum] => {
                Event::Bucket { key: (*key).to_owned(), users: number(users, line), sum: number(sum, line) }
            }
            ["COUNT", count] => Event::Count(number(count, line)),
            ["DONE", counts @ ..] => Event::Done(counts.iter().map(|count| number(count, line)).collect()),
            _ => Event::Other(line.to_owned()),
        }
    }
}

fn number<T: std::str::FromStr>(word: &str, line: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("not a number: {word} in driver line {line:?}"))
}

/// Runs a driver to its end and returns what it said.
pub fn events(client: Client, arguments: &[&str]) -> Vec<Event> {
    let finished = run(&mut client.command(arguments));
    assert!(
        finished.status.success(),
        "{client:?} {arguments:?} ended with {}\n{}\n{}",
        finished.status,
        finished.stdout,
        finished.stderr
    );
    finished.stdout.lines().map(Event::parse).collect()
}

pub fn acks(events: &[Event]) -> Vec<Ack> {
    events.iter().filter_map(|event| if let Event::Ack(ack) = event { Some(ack.clone()) } else { None }).collect()
}

pub fn received(events: &[Event]) -> Vec<Received> {
    events
        .iter()
        .filter_map(|event| if let Event::Received(message) = event { Some(message.clone()) } else { None })
        .collect()
}

/// Sends and requires that every single message was accepted.
pub fn produce(
    client: Client,
    namesrv: &str,
    topic: &str,
    mode: &str,
    keys: &str,
    count: usize,
    extra: &[&str],
) -> Vec<Ack> {
    let count_text = count.to_string();
    let mut arguments = vec![
        "produce",
        "--namesrv",
        namesrv,
        "--topic",
        topic,
        "--group",
        "PID_scenario",
        "--mode",
        mode,
        "--count",
        &count_text,
        "--start",
        "0",
        "--keys",
        keys,
    ];
    arguments.extend_from_slice(extra);
    let events = events(client, &arguments);
    let failures: Vec<&Event> = events.iter().filter(|event| matches!(event, Event::Fail { .. })).collect();
    assert!(failures.is_empty(), "{client:?} {mode}: {} failures, first {:?}", failures.len(), failures[0]);
    if mode == "oneway" {
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Sent(_))).count(), count);
    } else {
        assert_eq!(acks(&events).len(), count, "{client:?} {mode}");
    }
    acks(&events)
}

/// Everything a pull consumer reads from offset 0 of every queue.
pub fn pull_all(client: Client, namesrv: &str, topic: &str) -> Vec<Received> {
    received(&events(
        client,
        &["pull", "--namesrv", namesrv, "--topic", topic, "--group", "CID_scenario_pull", "--from-offset", "0"],
    ))
}

/// Requires queue offsets 0, 1, 2, … without gap or repetition in each queue.
pub fn assert_contiguous(messages: &[Received]) {
    let mut next: BTreeMap<(String, u32), u64> = BTreeMap::new();
    for message in messages {
        let expected = next.entry((message.broker.clone(), message.queue_id)).or_default();
        assert_eq!(message.queue_offset, *expected, "queue {} of {}", message.queue_id, message.broker);
        *expected += 1;
    }
}
