//! Consumers that take part of a topic only: by tag, or by an SQL92 expression over properties.

use std::collections::BTreeSet;

use super::running::{Running, assert_exactly, events_of, keys};
use super::server::Server;
use crate::driver::{ALL_CLIENTS, Client, produce, received};
use crate::process::run;

const JAVA: [Client; 2] = [Client::Java498, Client::Java533];

/// 30 blue and 30 red messages and, as the last one, `end999` without a colour. All are in queue 0, so whoever has come to
/// the last one has been offered the others.
fn send_blue_and_red(client: Client, server: &Server, topic: &str) {
    let namesrv = server.namesrv();
    for color in ["blue", "red"] {
        let property = format!("color={color}");
        produce(client, &namesrv, topic, "sync", color, 30, &["--queue", "0", "--prop", &property]);
    }
    produce(client, &namesrv, topic, "sync", "end", 1, &["--queue", "0", "--start", "999"]);
}

fn the_end() -> BTreeSet<String> {
    keys("end", 999..1000)
}

fn sql_chooses(client: Client) {
    let server = Server::start(&["enablePropertyFilter=true"]);
    server.create_topic("Colours", 1);
    let expression = "color = 'blue' AND seq BETWEEN 10 AND 19 OR seq = 999";
    let mut early = Running::push(client, &server, "Colours", "CID_early", &["--from", "first", "--sql", expression]);
    send_blue_and_red(client, &server, "Colours");
    let expected: BTreeSet<String> = keys("blue", 10..20).into_iter().chain(the_end()).collect();
    early.await_keys(&expected);
    assert_exactly(&received(&early.end()), &expected);

    // Consumers that come later find the same; one of them finds nothing but the end.
    let mut late = Running::push(client, &server, "Colours", "CID_late", &["--from", "first", "--sql", expression]);
    let mut none = Running::push(
        client,
        &server,
        "Colours",
        "CID_none",
        &["--from", "first", "--sql", "color = 'green' OR seq = 999"],
    );
    late.await_keys(&expected);
    none.await_keys(&the_end());
    assert_exactly(&received(&late.end()), &expected);
    assert_exactly(&received(&none.end()), &the_end());

    // A pull consumer brings its expression with each pull; Go's has none.
    if client == Client::Go {
        return;
    }
    for (expression, expected) in [
        ("color IN ('red', 'green') AND seq < 3", keys("red", 0..3)),
        ("color IS NULL", the_end()),
        ("NOT (seq > 2) AND color <> 'red'", keys("blue", 0..3)),
        ("TAGS IS NOT NULL", BTreeSet::new()),
    ] {
        let options = ["--group", "CID_pulling", "--sql", expression];
        let pulled = received(&events_of(client, &server, "pull", "Colours", &options));
        assert_exactly(&pulled, &expected);
    }
}

#[test]
fn sql_chooses_for_java_4_9_8() {
    sql_chooses(Client::Java498);
}

#[test]
fn sql_chooses_for_java_5_3_3() {
    sql_chooses(Client::Java533);
}

#[test]
fn sql_chooses_for_go() {
    sql_chooses(Client::Go);
}

/// The consumer does not start, and says why.
fn assert_refused(client: Client, server: &Server, expression: &str, reason: &str) {
    let done = run(&mut client.command(&[
        "push",
        "--namesrv",
        &server.namesrv(),
        "--topic",
        "Refused",
        "--group",
        "CID_refused",
        "--sql",
        expression,
    ]));
    let last = done.stdout.lines().last().unwrap_or_default();
    assert!(
        done.status.code() == Some(1) && last.starts_with("ERROR ") && last.contains(reason),
        "{client:?} {expression:?}: {}",
        done.stdout
    );
}

#[test]
fn a_malformed_expression_is_refused() {
    let server = Server::start(&["enablePropertyFilter=true"]);
    server.create_topic("Refused", 1);
    for client in JAVA {
        for expression in ["seq >", "seq BETWEEN 9 AND 1", "color = 'blue", "color IN ()"] {
            assert_refused(client, &server, expression, "CODE: 23");
        }
    }
}

#[test]
fn expressions_are_refused_unless_the_broker_allows_them() {
    let server = Server::start(&["enablePropertyFilter=false"]);
    server.create_topic("Refused", 1);
    for client in JAVA {
        assert_refused(client, &server, "seq > 1", "does not support consumer to filter message by SQL92");
    }
}

#[test]
fn tags_choose() {
    let server = Server::start(&[]);
    for client in ALL_CLIENTS {
        let topic = format!("Tags{client:?}");
        server.create_topic(&topic, 1);
        let group = format!("CID_tags_{client:?}");
        let mut consumer =
            Running::push(client, &server, &topic, &group, &["--from", "first", "--tags", "TagA || TagC || End"]);
        for tag in ["TagA", "TagB", "TagC", "End"] {
            produce(client, &server.namesrv(), &topic, "sync", tag, 10, &["--queue", "0", "--tag", tag]);
        }
        let expected: BTreeSet<String> =
            ["TagA", "TagC", "End"].iter().flat_map(|prefix| keys(prefix, 0..10)).collect();
        consumer.await_keys(&expected);
        assert_exactly(&received(&consumer.end()), &expected);
    }
}

#[test]
fn tags_of_the_same_hash_are_told_apart() {
    let server = Server::start(&[]);
    server.create_topic("SameHash", 1);
    let mut consumer = Running::push(
        Client::Java533,
        &server,
        "SameHash",
        "CID_same_hash",
        &["--from", "first", "--tags", "AaAa || End"],
    );
    // In Java these three have one hash, and a broker compares no more than that.
    for tag in ["AaAa", "BBBB", "AaBB", "End"] {
        produce(Client::Java533, &server.namesrv(), "SameHash", "sync", tag, 5, &["--queue", "0", "--tag", tag]);
    }
    let expected: BTreeSet<String> = ["AaAa", "End"].iter().flat_map(|prefix| keys(prefix, 0..5)).collect();
    consumer.await_keys(&expected);
    assert_exactly(&received(&consumer.end()), &expected);
}
