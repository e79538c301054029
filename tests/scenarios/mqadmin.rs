//! Two tools and two servers: Java's `mqadmin` and ours, against FerroMQ and against Java. On one server both print the same.

use std::process::Command;

use crate::cluster::{Cluster, mqadmin};
use crate::driver::{Client, java_mqadmin, produce};
use crate::java_server::JavaServer;
use crate::process::{Finished, await_condition, run};

/// Runs one command line with both tools and requires the same standard output and exit code.
fn same_output(arguments: &[&str]) -> String {
    let java = run(&mut java_mqadmin(arguments));
    let ours = run(&mut mqadmin(arguments));
    assert_eq!(
        ours.stdout, java.stdout,
        "stdout of mqadmin {arguments:?}\nstderr of Java: {}\nstderr of ours: {}",
        java.stderr, ours.stderr
    );
    assert_eq!(ours.status.code(), java.status.code(), "exit code of mqadmin {arguments:?}");
    ours.stdout
}

fn succeeds(done: Finished, expected: &str) -> String {
    assert!(
        done.status.success() && done.stdout.contains(expected),
        "expected {expected:?} in\n{}\n{}",
        done.stdout,
        done.stderr
    );
    done.stdout
}

/// Runs one command line with both tools and requires the same lines after `normal`: for outputs in the order of a hash
/// table, and for rates, which move between two calls.
fn same_lines(arguments: &[&str], normal: fn(&str) -> String) -> String {
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(normal).collect();
        lines.sort();
        lines
    };
    let java = run(&mut java_mqadmin(arguments));
    let ours = run(&mut mqadmin(arguments));
    assert_eq!(
        sorted(&ours.stdout),
        sorted(&java.stdout),
        "lines of mqadmin {arguments:?}\n{}\n{}",
        java.stderr,
        ours.stderr
    );
    ours.stdout
}

fn as_it_is(line: &str) -> String {
    line.to_owned()
}

/// A row of the overview of groups without its rate, the last column but one.
fn without_rate_column(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if words.len() > 2 && !line.starts_with('#') {
        words.remove(words.len() - 2);
    }
    words.join(" ")
}

fn without_rate_line(line: &str) -> String {
    if line.starts_with("Consume TPS: ") { String::new() } else { line.to_owned() }
}

/// The columns of clusterList that do not move between two calls.
fn stable_cluster_columns(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split_whitespace().take(5).map(str::to_owned).collect()).collect()
}

fn both_tools_agree(namesrv: &str, broker: Option<&str>) {
    // Commands that change something, by each tool.
    for (topic, tool) in [("MadeByJava", java_mqadmin as fn(&[&str]) -> Command), ("MadeByUs", mqadmin)] {
        let out = succeeds(
            run(&mut tool(&["updateTopic", "-n", namesrv, "-c", "DefaultCluster", "-t", topic, "-r", "3", "-w", "3"])),
            "success.",
        );
        assert!(out.contains(&format!("topicName={topic}, readQueueNums=3, writeQueueNums=3")), "{out}");
        await_condition("the route of the new topic", || {
            run(&mut mqadmin(&["topicRoute", "-n", namesrv, "-t", topic])).stdout.contains("brokerDatas").then_some(())
        });
        for i in 0..5 {
            let key = format!("key-{i}");
            succeeds(
                run(&mut tool(&["sendMessage", "-n", namesrv, "-t", topic, "-p", "hello", "-k", &key, "-c", "TagA"])),
                "SEND_OK",
            );
        }
    }

    // What both see is the same.
    for topic in ["MadeByJava", "MadeByUs"] {
        same_output(&["topicRoute", "-n", namesrv, "-t", topic]);
        same_output(&["topicRoute", "-n", namesrv, "-t", topic, "-l"]);
        let status = same_output(&["topicStatus", "-n", namesrv, "-t", topic]);
        assert!(status.contains("#Broker Name"), "{status}");
        let by_key = same_output(&["queryMsgByKey", "-n", namesrv, "-t", topic, "-k", "key-3"]);
        let row = by_key.lines().nth(1).unwrap_or_else(|| panic!("key-3 of {topic} is found: {by_key}"));
        let unique = row.split_whitespace().next().expect("the first column is the message id");
        let by_id = same_output(&["queryMsgById", "-n", namesrv, "-t", topic, "-i", unique]);
        assert!(by_id.contains("Keys:                [key-3]"), "{by_id}");
    }
    let produced = produce(Client::Java533, namesrv, "MadeByUs", "sync", "more", 9, &[]);
    let by_offset_id =
        same_output(&["queryMsgById", "-n", namesrv, "-t", "MadeByUs", "-i", &produced[0].offset_msg_id]);
    assert!(by_offset_id.contains(&produced[0].offset_msg_id), "{by_offset_id}");

    same_lines(&["topicList", "-n", namesrv], as_it_is);
    let java = succeeds(run(&mut java_mqadmin(&["clusterList", "-n", namesrv])), "DefaultCluster");
    let ours = succeeds(run(&mut mqadmin(&["clusterList", "-n", namesrv])), "DefaultCluster");
    assert_eq!(stable_cluster_columns(&ours), stable_cluster_columns(&java));

    // A consumer group that has read part of a topic and gone.
    let mut consumer = Client::Java533.start(
        "progress",
        &["push", "--namesrv", namesrv, "--topic", "MadeByUs", "--group", "CID_progress", "--from", "first"],
    );
    for _ in 0..14 {
        consumer.wait_for_line("a message", |line| line.starts_with("RECV "));
    }
    consumer.close_stdin();
    consumer.wait_exit();
    let progress = same_lines(&["consumerProgress", "-n", namesrv, "-g", "CID_progress"], without_rate_line);
    assert!(progress.contains("MadeByUs"), "{progress}");
    same_lines(&["consumerProgress", "-n", namesrv], without_rate_column);

    for arguments in [
        vec!["topicRoute", "-h"],
        vec!["help", "sendMessage"],
        vec!["haStatus", "-n", namesrv, "-c", "DefaultCluster"],
        vec!["updateTopic", "-n", namesrv],
        vec!["noSuchCommand"],
        vec!["topicStatus", "-n", namesrv, "-t", "NoSuchTopic"],
        vec!["sendMessage", "-n", namesrv, "-t", "MadeByUs", "-p", "x", "-i", "2"],
    ] {
        same_output(&arguments);
    }
    for (command, target, expected) in [
        ("cleanExpiredCQ", &["-c", "DefaultCluster"][..], "success"),
        ("cleanExpiredCQ", &[], "success"),
        ("cleanUnusedTopic", &["-c", "DefaultCluster"], "success"),
        ("cleanUnusedTopic", &["-c", "NoSuch"], "false"),
        ("deleteExpiredCommitLog", &["-c", "DefaultCluster"], "success"),
        ("deleteExpiredCommitLog", &["-c", "NoSuch"], "false"),
    ] {
        let arguments = [&[command, "-n", namesrv][..], target].concat();
        assert_eq!(same_output(&arguments), expected, "{arguments:?}");
    }
    if let Some(broker) = broker {
        let status =
            succeeds(run(&mut java_mqadmin(&["brokerStatus", "-n", namesrv, "-b", broker])), "brokerVersionDesc");
        assert!(status.contains("commitLogMaxOffset"), "{status}");
        assert!(same_output(&["haStatus", "-n", namesrv, "-b", broker]).contains("#SlaveNum\t0"));
        same_lines(&["getBrokerConfig", "-n", namesrv, "-b", broker], as_it_is);
        for tool in [java_mqadmin as fn(&[&str]) -> Command, mqadmin] {
            succeeds(
                run(&mut tool(&[
                    "updateBrokerConfig",
                    "-n",
                    namesrv,
                    "-b",
                    broker,
                    "-k",
                    "maxMessageSize",
                    "-v",
                    "4194305",
                ])),
                "success",
            );
        }
        assert!(same_lines(&["getBrokerConfig", "-n", namesrv, "-b", broker], as_it_is).contains("4194305"));
    }
    for (topic, tool) in [("MadeByJava", mqadmin as fn(&[&str]) -> Command), ("MadeByUs", java_mqadmin)] {
        succeeds(run(&mut tool(&["deleteTopic", "-n", namesrv, "-c", "DefaultCluster", "-t", topic])), "success");
        assert!(!run(&mut mqadmin(&["topicList", "-n", namesrv])).stdout.contains(topic), "{topic} is gone");
    }
}

#[test]
fn both_tools_against_ferromq() {
    let cluster = Cluster::start(&[]);
    both_tools_agree(&cluster.namesrv(), Some(&cluster.broker.addr()));
}

#[test]
fn both_tools_against_java() {
    let server = JavaServer::start(&[]);
    both_tools_agree(&server.namesrv, None);
}
