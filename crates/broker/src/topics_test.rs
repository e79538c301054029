//! Topics that come with a send, by hand and out of their file, up to their limit.

use super::*;

fn open(directory: &Path, persistence: &Persistence, auto_create: bool) -> Topics {
    let config = BrokerConfig {
        auto_create_topic_enable: auto_create,
        broker_name: "broker-a".into(),
        ..BrokerConfig::default()
    };
    Topics::open(directory, &Arc::new(LiveConfig::new(config, None)), persistence).unwrap()
}

fn wish<'a>(topic: &'a str, default_topic: &'a str, queue_count: i32) -> CreateOnSend<'a> {
    CreateOnSend { topic, default_topic, queue_count, topic_sys_flag: 0 }
}

#[test]
fn a_new_topic_takes_the_smaller_queue_count_and_loses_the_inherit_bit() {
    let directory = tempfile::tempdir().unwrap();
    let topics = open(directory.path(), &Persistence::default(), true);
    let before = topics.data_version();
    let topic = topics.create_on_send(&wish("TopicA", "TBW102", 4)).unwrap().unwrap();
    assert_eq!((topic.read_queue_nums, topic.write_queue_nums, topic.perm), (4, 4, 6));
    assert_eq!(topics.data_version().counter, before.counter + 1);
    assert_eq!(topics.create_on_send(&wish("TopicB", "TBW102", 100)).unwrap().unwrap().write_queue_nums, 8);
    assert_eq!(topics.create_on_send(&wish("TopicC", "TBW102", -3)).unwrap().unwrap().write_queue_nums, 0);
    // A second request finds the topic as it is, whatever it wishes.
    assert_eq!(topics.create_on_send(&wish("TopicA", "TBW102", 7)).unwrap().unwrap().write_queue_nums, 4);
}

#[test]
fn there_is_room_for_so_many_topics_and_for_those_that_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut topics = open(directory.path(), &Persistence::default(), true);
    topics.topics_max = topics.names().len() + 2;
    assert!(topics.check_room(2).is_ok() && topics.check_room(3).is_err());
    topics.create_on_send(&wish("TopicA", "TBW102", 4)).unwrap().unwrap();
    topics.find_or_create("%RETRY%GroupA", 1, perm::READ_WRITE, false, 0).unwrap();
    let full = NotMade::Full(topics.check_room(1).unwrap_err());
    assert!(full.to_string().contains("topics, which is the limit"));
    assert_eq!(topics.create_on_send(&wish("TopicB", "TBW102", 4)).err(), Some(full));
    assert_eq!(topics.find_or_create("%RETRY%GroupB", 1, perm::READ_WRITE, false, 0).err(), Some(full));
    // One that may not be made anyway says so.
    assert!(topics.create_on_send(&wish("TopicB", "NoSuchPattern", 4)).unwrap().is_none());
    // Who is there goes on, and the broker's own come all the same.
    topics.create_on_send(&wish("TopicA", "TBW102", 4)).unwrap().unwrap();
    topics.find_or_create("%RETRY%GroupA", 1, perm::READ_WRITE, true, 0).unwrap();
    topics.find_or_create("TRANS_CHECK_MAX_TIME_TOPIC", 1, perm::READ_WRITE, false, 0).unwrap();
    for gone in ["TopicA", "TRANS_CHECK_MAX_TIME_TOPIC"] {
        topics.remove(gone);
    }
    topics.create_on_send(&wish("TopicB", "TBW102", 4)).unwrap().unwrap();
}

#[test]
fn without_auto_creation_only_cluster_and_broker_topics_are_patterns() {
    let directory = tempfile::tempdir().unwrap();
    let topics = open(directory.path(), &Persistence::default(), false);
    assert!(topics.create_on_send(&wish("TopicA", "TBW102", 4)).unwrap().is_none());
    assert!(topics.create_on_send(&wish("TopicA", "NoSuchPattern", 4)).unwrap().is_none());
    assert!(topics.create_on_send(&wish("TopicA", "BenchmarkTest", 4)).unwrap().is_none());
    assert_eq!(topics.create_on_send(&wish("TopicA", "DefaultCluster", 4)).unwrap().unwrap().write_queue_nums, 4);
    assert_eq!(topics.create_on_send(&wish("TopicB", "broker-a", 4)).unwrap().unwrap().write_queue_nums, 1);
}

#[test]
fn a_pattern_left_in_the_file_does_not_revive_auto_creation() {
    let directory = tempfile::tempdir().unwrap();
    let persistence = Persistence::default();
    open(directory.path(), &persistence, true);
    persistence.stop();
    let topics = open(directory.path(), &Persistence::default(), false);
    assert!(topics.contains("TBW102"));
    assert!(topics.create_on_send(&wish("TopicA", "TBW102", 4)).unwrap().is_none());
}

#[test]
fn topics_survive_a_restart_with_their_version() {
    let directory = tempfile::tempdir().unwrap();
    let persistence = Persistence::default();
    let topics = open(directory.path(), &persistence, true);
    let topic = topics.create_on_send(&wish("TopicA", "TBW102", 4)).unwrap().unwrap();
    topics.find_or_create("%RETRY%GroupA", 1, perm::READ_WRITE, false, 0).unwrap();
    topics.remove("BenchmarkTest");
    persistence.stop();
    assert!(topics.is_saved(&topic));
    let again = open(directory.path(), &Persistence::default(), true);
    assert_eq!(again.find("TopicA").unwrap().config, topic.config);
    assert!(again.contains("%RETRY%GroupA"));
    assert_eq!(again.data_version(), topics.data_version());
    // Built-in topics come back, as in Java.
    assert!(again.contains("BenchmarkTest"));
}

/// A disk that takes no more config files: what was saved before goes on, whatever has changed of it.
#[test]
fn only_a_topic_whose_messages_would_be_lost_waits_for_its_save() {
    let directory = tempfile::tempdir().unwrap();
    let persistence = crate::testing::eager_persistence();
    let topics = open(directory.path(), &persistence, true);
    for name in ["Old", "Ordered", "Grown", "Remade"] {
        topics.update(new_config(name, 4, perm::READ_WRITE)).unwrap();
    }
    topics.wait_saved().unwrap();
    let fresh = directory.path().join("topics.json.tmp");
    std::fs::create_dir(&fresh).unwrap();
    topics.apply_order_topics(|topic| topic == "Ordered");
    topics.remove("Remade").unwrap();
    for (name, queues) in [("Old", 3), ("Grown", 5), ("Remade", 4), ("New", 4)] {
        topics.update(new_config(name, queues, perm::READ)).unwrap();
    }
    topics.wait_saved().unwrap_err();
    for (name, goes_on) in [("Old", true), ("Ordered", true), ("Grown", false), ("Remade", false), ("New", false)] {
        let topic = topics.find(name).unwrap();
        assert_eq!(topics.is_saved(&topic), goes_on, "{name}");
        assert_eq!(topics.save_failure(&topic).is_none(), goes_on, "{name}");
        let (done, outcome) = std::sync::mpsc::channel();
        topics.when_change_saved(&topic, move |saved| _ = done.send(saved));
        assert!(outcome.recv().unwrap().is_err(), "the change of {name} is not saved");
    }
    std::fs::remove_dir(&fresh).unwrap();
}

#[test]
fn no_topic_is_made_of_a_name_that_is_barred() {
    let directory = tempfile::tempdir().unwrap();
    let topics = open(directory.path(), &Persistence::default(), true);
    let topic = topics.create_on_send(&wish("TopicA", "TBW102", 4)).unwrap().unwrap();
    let tries = || {
        [
            topics.create_on_send(&wish("TopicA", "TBW102", 4)).is_ok(),
            topics.find_or_create("TopicA", 1, perm::READ_WRITE, false, 0).is_ok(),
            topics.update(new_config("TopicA", 1, perm::READ_WRITE)).is_ok(),
            topics
                .update_all(["TopicA", "TopicB"].map(|topic| new_config(topic, 1, perm::READ_WRITE)).to_vec())
                .is_ok(),
        ]
    };
    let (once, twice) = (topics.bar(&["TopicA".into()]), topics.bar(&["TopicA".into()]));
    topics.remove("TopicA").unwrap();
    assert_eq!(tries(), [false; 4]);
    assert!(!topics.contains("TopicB"), "all of them or none");
    drop(once);
    assert_eq!(tries(), [false; 4]);
    topics.put_back([&topic]);
    assert_eq!(topics.find("TopicA").unwrap().config, topic.config);
    topics.remove("TopicA").unwrap();
    drop(twice);
    assert_eq!(tries(), [true; 4]);
}

#[test]
fn changes_wake_the_registrar_and_the_order_flag_follows_the_nameserver() {
    let directory = tempfile::tempdir().unwrap();
    let topics = open(directory.path(), &Persistence::default(), true);
    let changes = topics.announcements();
    assert!(!changes.has_changed().unwrap());
    topics.create_on_send(&wish("TopicA", "TBW102", 4)).unwrap().unwrap();
    assert!(changes.has_changed().unwrap());
    topics.apply_order_topics(|topic| topic == "TopicA");
    assert!(topics.find("TopicA").unwrap().order);
    topics.apply_order_topics(|_| false);
    assert!(!topics.find("TopicA").unwrap().order);
}

#[test]
fn a_topic_is_described_as_java_does() {
    assert_eq!(
        describe(&new_config("TopicWire", 2, 6)),
        "TopicConfig [topicName=TopicWire, readQueueNums=2, writeQueueNums=2, perm=RW-, topicFilterType=SINGLE_TAG, topicSysFlag=0, order=false, attributes={}]"
    );
}
