//! Requests over a topic: each requester gets the answers to its own questions, or learns that none came.

use super::running::{Running, events_of, keys};
use super::server::Server;
use crate::driver::{Client, Event};

fn request_options(group: &'static str, prefix: &'static str) -> [&'static str; 8] {
    ["--group", group, "--keys", prefix, "--count", "20", "--timeout-ms", "60000"]
}

/// Each question of `prefix` was answered, in order, by the answer to itself.
fn assert_answered(said: &[Event], prefix: &str) {
    let replies: Vec<(String, String)> = said
        .iter()
        .filter_map(|event| match event {
            Event::Reply { key, body } => Some((key.clone(), body.clone())),
            _ => None,
        })
        .collect();
    let expected: Vec<(String, String)> =
        (0..20).map(|i| (format!("{prefix}{i}"), format!("re:{prefix}{i}"))).collect();
    assert_eq!(replies, expected, "{said:?}");
}

fn answered_by(replier: Client) {
    let server = Server::start(&[]);
    server.create_topic("Questions", 4);
    let mut replying =
        Running::start(replier, &server, "reply", "Questions", &["--group", "CID_answers", "--from", "first"]);
    replying.until("it has queues", |events| {
        events.iter().any(|event| matches!(event, Event::Assigned(queues) if queues.len() == 4))
    });
    let old = Running::start(Client::Java498, &server, "request", "Questions", &request_options("PID_old", "old"));
    let new = Running::start(Client::Java533, &server, "request", "Questions", &request_options("PID_new", "new"));
    let go = Running::start(Client::Go, &server, "request", "Questions", &request_options("PID_go", "go"));
    let requesters = [(old, "old"), (new, "new"), (go, "go")];
    for (requester, prefix) in requesters {
        assert_answered(&requester.finish(), prefix);
        replying.await_keys(&keys(prefix, 0..20));
    }
    replying.until("it has answered all", |events| {
        events.iter().filter(|event| matches!(event, Event::Replied(_))).count() >= 60
    });
    let said = replying.end();
    assert!(!said.iter().any(|event| matches!(event, Event::Fail { .. })), "{said:?}");
}

#[test]
fn java_4_9_8_answers_all() {
    answered_by(Client::Java498);
}

#[test]
fn java_5_3_3_answers_all() {
    answered_by(Client::Java533);
}

#[test]
fn go_answers_all() {
    answered_by(Client::Go);
}

#[test]
fn a_request_that_nobody_answers_times_out() {
    let server = Server::start(&[]);
    server.create_topic("Silence", 4);
    for client in [Client::Java498, Client::Java533] {
        let options = ["--group", "PID_silence", "--count", "2", "--timeout-ms", "5000"];
        let said = events_of(client, &server, "request", "Silence", &options);
        let failures: Vec<&String> = said
            .iter()
            .filter_map(|event| if let Event::Fail { reason, .. } = event { Some(reason) } else { None })
            .collect();
        assert_eq!(failures.len(), 2, "{said:?}");
        for reason in failures {
            assert!(reason.contains("RequestTimeoutException"), "{client:?}: {reason}");
        }
    }
}
