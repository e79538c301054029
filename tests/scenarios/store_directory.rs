//! One store directory, used by FerroMQ, then by the Java broker, then by FerroMQ again.

use std::collections::BTreeSet;

use crate::cluster::{Cluster, mqadmin};
use crate::driver::{Client, assert_contiguous, events, produce, pull_all, received};
use crate::java_server::JavaServer;
use crate::process::{await_condition, run};

/// Every key of `keys` is readable, and a sample of them is found by query.
fn all_there(namesrv: &str, keys: &BTreeSet<String>) {
    let messages = pull_all(Client::Java533, namesrv, "Moving");
    assert_contiguous(&messages);
    assert_eq!(messages.iter().map(|message| message.key.clone()).collect::<BTreeSet<_>>(), *keys);
    for key in keys.iter().step_by(keys.len() / 4) {
        let query = ["query", "--namesrv", namesrv, "--topic", "Moving", "--key", key];
        assert_eq!(received(&events(Client::Java533, &query)).len(), 1, "{key}");
    }
}

#[test]
fn a_store_directory_goes_to_java_and_back() {
    goes_to_java_and_back(None, "16777216");
}

#[test]
fn a_log_in_two_directories_goes_to_java_and_back() {
    let disks = tempfile::tempdir().expect("a temporary directory");
    let dirs = ["a", "b"].map(|disk| disks.path().join(disk).join("commitlog").display().to_string());
    goes_to_java_and_back(Some(&dirs.join(",")), "1048576");
    for dir in dirs {
        let segments = std::fs::read_dir(&dir).expect("it was made").count();
        assert!(segments >= 2, "{segments} in {dir}");
    }
}

/// `log_dirs` is where the log is, if not in the store directory.
fn goes_to_java_and_back(log_dirs: Option<&str>, segment_len: &str) {
    let segment_len = format!("mappedFileSizeCommitLog={segment_len}");
    let log_dirs = log_dirs.map(|dirs| format!("storePathCommitLog={dirs}"));
    let lines: Vec<&str> = [Some(segment_len.as_str()), log_dirs.as_deref()].into_iter().flatten().collect();
    let mut cluster = Cluster::start(&lines);
    let mut keys = BTreeSet::new();
    for (mode, prefix) in [("async", "ours"), ("batch", "batched")] {
        let acked = produce(Client::Java533, &cluster.namesrv(), "Moving", mode, prefix, 640, &["--size", "2000"]);
        keys.extend(acked.into_iter().map(|ack| ack.key));
    }
    all_there(&cluster.namesrv(), &keys);
    assert!(cluster.broker.process.terminate().success());

    let store = cluster.broker.store.display().to_string();
    let lines = [
        format!("storePathRootDir={store}"),
        log_dirs.unwrap_or_else(|| format!("storePathCommitLog={store}/commitlog")),
        segment_len,
        "mappedFileSizeConsumeQueue=6000000".to_owned(),
    ];
    let java = JavaServer::start(&lines);
    await_condition("the topic at the Java nameserver", || {
        let route = run(&mut mqadmin(&["topicRoute", "-n", &java.namesrv, "-t", "Moving"]));
        route.stdout.contains("broker-a").then_some(())
    });
    all_there(&java.namesrv, &keys);
    let acked = produce(Client::Java533, &java.namesrv, "Moving", "sync", "theirs", 900, &["--size", "2000"]);
    keys.extend(acked.into_iter().map(|ack| ack.key));
    drop(java);
    cluster.broker.assert_store_is_whole();

    cluster.broker.start_again();
    all_there(&cluster.namesrv(), &keys);
    let acked = produce(Client::Java533, &cluster.namesrv(), "Moving", "sync", "again", 200, &[]);
    keys.extend(acked.into_iter().map(|ack| ack.key));
    all_there(&cluster.namesrv(), &keys);
}
