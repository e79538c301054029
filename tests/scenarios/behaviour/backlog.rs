//! A consumer that is far behind catches up while messages go on coming.

use std::process::Command;

use super::running::{Running, events_of};
use super::server::Server;
use crate::driver::{Client, Event};
use crate::process::run;

/// Messages that are there before the consumer starts, unless `FERROMQ_BACKLOG` says how many.
const BACKLOG: u64 = 500_000;
/// Messages that come meanwhile, and how many of them in a second.
const MEANWHILE: u64 = 100_000;
const RATE: u64 = 10_000;

/// Sends with `mqbench`, and shows what it says of its latencies.
fn send(server: &Server, options: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqbench"));
    command.args(["producer", "-n", &server.namesrv(), "-t", "Backlog", "-s", "100", "--warmup", "0s"]);
    // No more at once: Java's broker refuses what has waited for 200 ms.
    command.args(["-c", "1", "-i", "8"]).args(options);
    let done = run(&mut command);
    assert!(done.status.success() && !done.stdout.contains("failures:"), "{}{}", done.stdout, done.stderr);
    eprintln!("{}", done.stdout);
}

/// How many messages the topic holds.
fn stored(server: &Server) -> u64 {
    let said = events_of(Client::Java533, server, "offsets", "Backlog", &[]);
    let ends = said.iter().filter_map(|event| match event {
        Event::Other(line) => line.strip_prefix("QUEUE ")?.rsplit(' ').next()?.parse::<u64>().ok(),
        _ => None,
    });
    ends.sum()
}

fn counted(events: &[Event]) -> u64 {
    events.iter().rev().find_map(|event| if let Event::Count(count) = event { Some(*count) } else { None }).unwrap_or(0)
}

#[test]
fn a_consumer_catches_up_while_messages_go_on_coming() {
    let backlog =
        std::env::var("FERROMQ_BACKLOG").map_or(BACKLOG, |text| text.parse().expect("FERROMQ_BACKLOG is a number"));
    let server = Server::start(&[]);
    server.create_topic("Backlog", 8);
    send(&server, &["--batch", "32", "--count", &backlog.to_string()]);
    let options = ["--from", "first", "--quiet", "--threads", "20"];
    let mut consumer = Running::push(Client::Java533, &server, "Backlog", "CID_backlog", &options);
    send(&server, &["--rate", &RATE.to_string(), "--count", &MEANWHILE.to_string()]);
    consumer.take_new();
    let all = stored(&server);
    assert!(all >= backlog + MEANWHILE, "{all} messages");
    eprintln!(
        "{all} messages, {MEANWHILE} of them at {RATE}/s; when the last had come, {} were consumed",
        counted(&consumer.events)
    );
    consumer.until(&format!("it has received {all}"), |events| counted(events) >= all);
    assert_eq!(consumer.end().last(), Some(&Event::Done(vec![all])), "each once");
}
