//! What nameserver restarts and broker ends do to routes, and clients with two nameservers.

use crate::cluster::{Broker, Cluster, Nameserver, mqadmin};
use crate::driver::{Client, Event, acks, events, produce};
use crate::process::{await_condition, run};

fn has_route(namesrv: &str, topic: &str) -> bool {
    let done = run(&mut mqadmin(&["topicRoute", "-n", namesrv, "-t", topic]));
    done.stdout.contains("brokerDatas") && done.stdout.contains("broker-a")
}

#[test]
fn a_restarted_nameserver_learns_the_routes_again() {
    let Cluster { broker, nameserver, home } = Cluster::start(&["registerNameServerPeriod=10000"]);
    let namesrv = nameserver.addr();
    produce(Client::Java533, &namesrv, "Routes", "sync", "a", 10, &[]);
    let nameserver = nameserver.restart_hard();
    // The broker registers again by itself.
    await_condition("the route to come back", || has_route(&namesrv, "Routes").then_some(()));
    produce(Client::Java533, &namesrv, "Routes", "sync", "b", 10, &[]);
    drop((broker, nameserver, home));
}

#[test]
fn a_killed_broker_leaves_the_routes_at_once() {
    let mut cluster = Cluster::start(&[]);
    produce(Client::Java533, &cluster.namesrv(), "Gone", "sync", "a", 10, &[]);
    assert!(has_route(&cluster.namesrv(), "Gone"));
    cluster.broker.process.kill_hard();
    await_condition("the route to go", || (!has_route(&cluster.namesrv(), "Gone")).then_some(()));
    cluster.broker.start_again();
    await_condition("the route to come back", || has_route(&cluster.namesrv(), "Gone").then_some(()));
}

#[test]
fn a_broker_that_stops_cleanly_unregisters_first() {
    let mut cluster = Cluster::start(&[]);
    produce(Client::Go, &cluster.namesrv(), "Bye", "sync", "a", 10, &[]);
    let status = cluster.broker.process.terminate();
    assert!(status.success(), "{status}");
    assert!(!has_route(&cluster.namesrv(), "Bye"), "the route is gone when the process is");
    assert!(!cluster.broker.store.join("abort").exists(), "a clean end removes the abort file");
}

#[test]
fn clients_with_two_nameservers_carry_on_when_one_dies() {
    for client in [Client::Java498, Client::Java533, Client::Go] {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut first = Nameserver::start(home.path());
        let second = Nameserver::start(home.path());
        let both = format!("{};{}", first.addr(), second.addr());
        let broker = Broker::start(home.path(), "broker-a", &both, &[]);
        let mut sender = client.start(
            "sender",
            &[
                "produce",
                "--namesrv",
                &both,
                "--topic",
                "Two",
                "--group",
                "PID_two",
                "--mode",
                "sync",
                "--start",
                "0",
                "--keys",
                "two",
                "--until-stdin-closes",
                "--poll-ms",
                "1000",
            ],
        );
        let mut acked = 0;
        let mut take = |sender: &mut crate::process::Process, until: usize| {
            while acked < until {
                match Event::parse(&sender.next_line().expect("the sender goes on")) {
                    Event::Ack(_) => acked += 1,
                    Event::Fail { key, reason } => panic!("{client:?}: {key} failed: {reason}"),
                    _ => {}
                }
            }
        };
        take(&mut sender, 200);
        first.process.kill_hard();
        take(&mut sender, 1_000);
        sender.close_stdin();
        while sender.next_line().is_some() {}
        // A client that starts now finds its way as well. Java's first attempt may go to the dead nameserver and fail.
        let late = events(
            client,
            &[
                "produce",
                "--namesrv",
                &both,
                "--topic",
                "Two",
                "--group",
                "PID_late",
                "--mode",
                "sync",
                "--count",
                "50",
                "--start",
                "0",
                "--keys",
                "late",
                "--timeout-ms",
                "10000",
            ],
        );
        assert!(acks(&late).len() >= 48, "{client:?}: {late:?}");
        drop((broker, second));
    }
}

#[test]
fn wiping_write_permission_moves_writers_away() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let nameserver = Nameserver::start(home.path());
    let a = Broker::start(home.path(), "broker-a", &nameserver.addr(), &[]);
    let b = Broker::start(home.path(), "broker-b", &nameserver.addr(), &[]);
    for broker in [&a, &b] {
        let done = run(&mut mqadmin(&[
            "updateTopic",
            "-n",
            &nameserver.addr(),
            "-b",
            &broker.addr(),
            "-t",
            "Wiped",
            "-r",
            "4",
            "-w",
            "4",
        ]));
        assert!(done.status.success() && done.stdout.contains("success"), "{}{}", done.stdout, done.stderr);
    }
    await_condition("both brokers to serve the topic", || {
        let out = run(&mut mqadmin(&["topicRoute", "-n", &nameserver.addr(), "-t", "Wiped"])).stdout;
        (out.contains("broker-a") && out.contains("broker-b")).then_some(())
    });
    let done = run(&mut mqadmin(&["wipeWritePerm", "-n", &nameserver.addr(), "-b", "broker-a"]));
    assert!(
        done.status.success() && done.stdout.contains("wipe write perm of broker[broker-a]"),
        "{}{}",
        done.stdout,
        done.stderr
    );
    let acked = produce(Client::Java533, &nameserver.addr(), "Wiped", "sync", "w", 100, &[]);
    assert!(acked.iter().all(|ack| ack.broker == "broker-b"), "nothing goes to the wiped broker");
    // A topic made on it is registered, and changes nothing for the others.
    let made = ["updateTopic", "-n", &nameserver.addr(), "-b", &a.addr(), "-t", "MadeLater", "-r", "4", "-w", "4"];
    assert!(run(&mut mqadmin(&made)).stdout.contains("success"));
    await_condition("the new topic to have a route", || {
        let out = run(&mut mqadmin(&["topicRoute", "-n", &nameserver.addr(), "-t", "MadeLater"])).stdout;
        out.contains("broker-a").then_some(())
    });
    let acked = produce(Client::Java533, &nameserver.addr(), "Wiped", "sync", "again", 100, &[]);
    assert!(acked.iter().all(|ack| ack.broker == "broker-b"), "nothing goes to the wiped broker");
    drop((a, b));
}
