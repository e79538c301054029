//! One store directory, used by FerroMQ, then by the Java broker, then by FerroMQ again; and one that was damaged and is repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::cluster::{Cluster, await_route, create_topic, mqadmin};
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

/// Where each message of the topic is; none is there twice.
fn places(namesrv: &str) -> BTreeMap<String, (u32, u64)> {
    let messages = pull_all(Client::Java533, namesrv, "Repaired");
    assert_contiguous(&messages);
    let places: BTreeMap<_, _> =
        messages.iter().map(|message| (message.key.clone(), (message.queue_id, message.queue_offset))).collect();
    assert_eq!(places.len(), messages.len(), "some are there twice");
    places
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("the broker made it");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort();
    files
}

fn flip(path: &Path, at: impl Iterator<Item = usize>) {
    let mut bytes = std::fs::read(path).expect("the broker made it");
    let len = bytes.len();
    at.take_while(|at| *at < len).for_each(|at| bytes[at] ^= 0x10);
    std::fs::write(path, bytes).expect("it can be written");
}

#[test]
fn what_was_damaged_beside_the_log_is_repaired_offline() {
    let mut cluster = Cluster::start(&["maxHashSlotNum=1000", "maxIndexNum=4000"]);
    let namesrv = cluster.namesrv();
    create_topic(&namesrv, "Repaired", 4);
    produce(Client::Java533, &namesrv, "Repaired", "async", "plain", 3000, &[]);
    produce(Client::Java533, &namesrv, "Repaired", "sync", "came", 20, &["--prop", "TIMER_DELAY_SEC=1"]);
    produce(Client::Java533, &namesrv, "Repaired", "sync", "comes", 20, &["--prop", "TIMER_DELAY_SEC=45"]);
    let before = await_condition("the first timers", || Some(places(&namesrv)).filter(|places| places.len() == 3020));
    assert!(cluster.broker.process.terminate().success());
    cluster.broker.assert_store_is_whole();

    let store = cluster.broker.store.clone();
    let queues = store.join("consumequeue/Repaired");
    flip(&queues.join("0/00000000000000000000"), [66, 500, 1019].into_iter());
    std::fs::remove_dir_all(queues.join("1")).expect("it is there");
    flip(&files_in(&store.join("index"))[0], std::iter::once(40 + 4 * 1000 + 20 * 7 + 11));
    for minute in files_in(&store.join("timers")).iter().filter(|path| !path.ends_with("checkpoint")) {
        flip(minute, (15..).step_by(16));
    }
    let found = cluster.broker.store_check(&[]);
    assert_eq!(found.status.code(), Some(1), "{}", found.stdout);
    for part in ["/consumequeue/Repaired/0/", "/consumequeue/Repaired/1", "/index/", "/timers/"] {
        assert!(found.stdout.contains(part), "{part} is not named in {}", found.stdout);
    }

    let repaired = cluster.broker.store_check(&["--repair"]);
    assert!(repaired.status.success(), "{}{}", repaired.stdout, repaired.stderr);
    for said in ["moved away: ", "made again: the queues", "made again: the index", "made again: the timers' files"] {
        assert!(repaired.stdout.contains(said), "{said} is not in {}", repaired.stdout);
    }
    assert!(store.join("damaged/consumequeue+Repaired+0").is_dir());
    cluster.broker.assert_store_is_whole();

    cluster.broker.start_again();
    await_route(&namesrv, "Repaired");
    let after = await_condition("the last timers", || Some(places(&namesrv)).filter(|places| places.len() >= 3040));
    let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) = after.into_iter().partition(|(key, _)| before.contains_key(key));
    assert_eq!(old, before);
    assert!(new.len() == 20 && new.keys().all(|key| key.starts_with("comes")), "{new:?}");
    for key in before.keys().step_by(700) {
        let query = ["query", "--namesrv", &namesrv, "--topic", "Repaired", "--key", key];
        assert_eq!(received(&events(Client::Java533, &query)).len(), 1, "{key}");
    }
    cluster.broker.restart_clean();
}
