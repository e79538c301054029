//! Messages for later: by delay level and by timer. None comes before its time, none is forgotten.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::running::{Running, assert_exactly, events_of, keys, shown_numbers};
use super::server::Server;
use crate::driver::{Client, Event, produce, received};

/// Java rounds the time of a timer message down to whole seconds.
fn early_ms(server: &Server) -> i64 {
    if server.is_java() { 1_000 } else { 0 }
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("fits")
}

/// A consumer that tells when messages were born and when the broker stored what it delivered.
fn consumer(server: &Server, topic: &str, group: &str) -> Running {
    Running::push(Client::Java533, server, topic, group, &["--from", "first", "--show", "born", "--show", "stored"])
}

/// How late it came is the machine's affair.
fn assert_delayed(seen: &[Event], key: &str, delay_ms: i64, early_ms: i64) {
    let waited = shown_numbers(seen, "stored")[key] - shown_numbers(seen, "born")[key];
    assert!(waited >= delay_ms - early_ms, "{key} waited {waited} ms, asked for {delay_ms}");
}

#[test]
fn delay_levels_wait_as_long_as_they_say() {
    let server = Server::start(&["messageDelayLevel=1s 3s 5s"]);
    server.create_topic("Levels", 4);
    let mut consumer = consumer(&server, "Levels", "CID_levels");
    // One asks for more than there is and gets the most that there is.
    let levels = [
        (Client::Java533, "1", "one", 1_000),
        (Client::Java498, "2", "two", 3_000),
        (Client::Java533, "3", "three", 5_000),
        (Client::Java498, "9", "beyond", 5_000),
        (Client::Go, "2", "go", 3_000),
    ];
    let mut all = BTreeSet::new();
    for (client, level, prefix, _) in levels {
        produce(client, &server.namesrv(), "Levels", "sync", prefix, 10, &["--delay-level", level]);
        all.extend(keys(prefix, 0..10));
    }
    consumer.await_keys(&all);
    let seen = consumer.end();
    assert_exactly(&received(&seen), &all);
    for (_, _, prefix, delay_ms) in levels {
        for key in keys(prefix, 0..10) {
            assert_delayed(&seen, &key, delay_ms, 0);
        }
    }
}

#[test]
fn delayed_messages_survive_kill_9_of_the_broker() {
    let mut server = Server::start(&["messageDelayLevel=1s 8s"]);
    server.create_topic("Delayed", 4);
    produce(Client::Java533, &server.namesrv(), "Delayed", "sync", "delayed", 20, &["--delay-level", "2"]);
    server.restart_broker_hard();
    server.await_route("Delayed");
    let mut consumer = consumer(&server, "Delayed", "CID_delayed");
    let all = keys("delayed", 0..20);
    consumer.await_keys(&all);
    let seen = consumer.end();
    assert_exactly(&received(&seen), &all);
    for key in all {
        let waited = shown_numbers(&seen, "stored")[&key] - shown_numbers(&seen, "born")[&key];
        assert!(waited >= 8_000, "{key} waited {waited} ms");
    }
}

#[test]
fn timer_messages_wait_as_long_as_they_say() {
    let server = Server::start(&[]);
    server.create_topic("Timers", 4);
    let mut consumer = consumer(&server, "Timers", "CID_timers");
    let deliver_at = now_ms() + 8_300;
    let timers = [
        ("TIMER_DELAY_MS=2500".to_owned(), "ms", 2_500),
        ("TIMER_DELAY_SEC=4".to_owned(), "sec", 4_000),
        (format!("TIMER_DELIVER_MS={deliver_at}"), "at", 0),
        ("TIMER_DELIVER_MS=1700000000000".to_owned(), "past", 0),
    ];
    let mut all = BTreeSet::new();
    for (property, prefix, _) in &timers {
        produce(Client::Java533, &server.namesrv(), "Timers", "sync", prefix, 10, &["--prop", property]);
        all.extend(keys(prefix, 0..10));
    }
    consumer.await_keys(&all);
    let seen = consumer.end();
    assert_exactly(&received(&seen), &all);
    for (_, prefix, delay_ms) in timers {
        for key in keys(prefix, 0..10) {
            if prefix == "at" {
                let late = shown_numbers(&seen, "stored")[&key] - deliver_at;
                assert!(late >= -early_ms(&server), "{key} came {late} ms after its time");
            } else {
                assert_delayed(&seen, &key, delay_ms, if delay_ms == 0 { 0 } else { early_ms(&server) });
            }
        }
    }
}

#[test]
fn timer_messages_survive_kill_9_of_the_broker() {
    let mut server = Server::start(&[]);
    server.create_topic("Surviving", 4);
    produce(Client::Java533, &server.namesrv(), "Surviving", "sync", "timer", 20, &["--prop", "TIMER_DELAY_SEC=10"]);
    let killed = now_ms();
    server.restart_broker_hard();
    server.await_route("Surviving");
    let mut consumer = consumer(&server, "Surviving", "CID_surviving");
    let all = keys("timer", 0..20);
    consumer.await_keys(&all);
    let seen = consumer.end();
    let born = shown_numbers(&seen, "born");
    // What was not due before the kill need not come twice. From Java some of them do.
    if !server.is_java() && born.values().all(|born| born + 10_000 > killed) {
        assert_exactly(&received(&seen), &all);
    }
    for key in all {
        let waited = shown_numbers(&seen, "stored")[&key] - born[&key];
        assert!(waited >= 10_000 - early_ms(&server), "{key} waited {waited} ms");
    }
}

/// How late the messages of a prefix were stored for their consumers, from the earliest to the latest, in ms.
fn lateness(seen: &[Event], prefix: &str, due_ms: impl Fn(i64) -> i64) -> Vec<i64> {
    let (born, stored) = (shown_numbers(seen, "born"), shown_numbers(seen, "stored"));
    let mut late: Vec<i64> =
        born.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(key, born)| stored[key] - due_ms(*born)).collect();
    late.sort_unstable();
    let at = |share: usize| late[(late.len() - 1) * share / 100];
    eprintln!("{prefix}: {} messages, late by p50 {} p99 {} max {} ms", late.len(), at(50), at(99), at(100));
    late
}

/// Figures in docs/performance.md come from here.
#[test]
fn ten_thousand_that_are_due_at_once_come_and_none_is_early() {
    const COUNT: usize = 10_000;
    let server = Server::start(&["messageDelayLevel=6s"]);
    server.create_topic("AtOnce", 8);
    let mut consumer = consumer(&server, "AtOnce", "CID_at_once");
    let deliver_at = now_ms() + 15_000;
    let property = format!("TIMER_DELIVER_MS={deliver_at}");
    for (prefix, option, value) in [("level", "--delay-level", "1"), ("timer", "--prop", &*property)] {
        let options = ["--inflight", "500", option, value];
        produce(Client::Java533, &server.namesrv(), "AtOnce", "async", prefix, COUNT, &options);
    }
    let all: BTreeSet<String> = keys("level", 0..COUNT).into_iter().chain(keys("timer", 0..COUNT)).collect();
    consumer.until("all have come", |events| {
        events.iter().filter(|e| matches!(e, Event::Received(_))).count() >= all.len()
    });
    let seen = consumer.end();
    assert_exactly(&received(&seen), &all);
    let levels = lateness(&seen, "level", |born| born + 6_000);
    let timers = lateness(&seen, "timer", |_| deliver_at);
    assert!(levels[0] >= 0 && timers[0] >= -early_ms(&server), "early by {} and {} ms", -levels[0], -timers[0]);
}

#[test]
fn a_timer_further_away_than_the_broker_keeps_is_refused() {
    let server = Server::start(&["timerMaxDelaySec=100"]);
    server.create_topic("TooFar", 4);
    let said =
        events_of(Client::Java533, &server, "produce", "TooFar", &["--count", "1", "--prop", "TIMER_DELAY_SEC=200"]);
    let refused = said.iter().any(|event| matches!(event, Event::Fail { reason, .. } if reason.contains("CODE: 13")));
    assert!(refused, "{said:?}");
}

#[test]
fn what_is_taken_back_in_time_never_comes() {
    let server = Server::start(&["recallMessageEnable=true"]);
    server.create_topic("Recalled", 4);
    let mut consumer = consumer(&server, "Recalled", "CID_recalled");
    let options = ["--keys", "later", "--count", "20", "--prop", "TIMER_DELAY_MS=10000"];
    let said = events_of(Client::Java533, &server, "recall", "Recalled", &options);
    assert_eq!(said.last(), Some(&Event::Done(vec![10])), "{said:?}");
    // One that is due after all of them says when they would have been there.
    produce(Client::Java533, &server.namesrv(), "Recalled", "sync", "last", 1, &["--prop", "TIMER_DELAY_MS=10000"]);
    let mut all: BTreeSet<String> = (0..20).step_by(2).map(|i| format!("later{i}")).collect();
    all.insert("last0".to_owned());
    consumer.await_keys(&all);
    assert_exactly(&received(&consumer.end()), &all);
}
