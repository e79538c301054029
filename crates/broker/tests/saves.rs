//! A change whose table cannot be written, as on a full disk: it is refused with the cause, as often as it is asked for, and once it is
//! answered with success a killed broker still has it.

mod support;

use std::fs;
use std::time::Instant;

use ferromq_protocol::body::{ConsumerOffsetTable, SubscriptionGroup, SubscriptionGroupTable, TopicConfigTable};
use ferromq_protocol::{Command, RequestCode};
use support::killed::copy_at_an_instant;
use support::{House, PATIENCE, json, remark};

/// What clients and operators change.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Topic,
    TopicList,
    TopicBySend,
    TopicBySyncSend,
    TopicBySendBack,
    TopicDeleted,
    Group,
    GroupList,
    GroupDeleted,
    Forbidden,
    Reset,
    Cloned,
}

use Change::*;

/// Every change, and the file whose save fails.
const ALL: [(Change, &str); 14] = [
    (Topic, "topics.json"),
    (TopicList, "topics.json"),
    (TopicBySend, "topics.json"),
    (TopicBySyncSend, "topics.json"),
    (TopicBySendBack, "topics.json"),
    (TopicDeleted, "topics.json"),
    (TopicDeleted, "consumerOffset.json"),
    (Group, "subscriptionGroup.json"),
    (GroupList, "subscriptionGroup.json"),
    (GroupDeleted, "subscriptionGroup.json"),
    (GroupDeleted, "consumerOffset.json"),
    (Forbidden, "subscriptionGroup.json"),
    (Reset, "consumerOffset.json"),
    (Cloned, "consumerOffset.json"),
];

impl Change {
    /// A topic with three messages, and a group that has consumed two of them.
    async fn prepare(self, house: &House) {
        for body in [b"a", b"b", b"c"] {
            assert_eq!(house.send("TopicA", "0", "", body).await.code, 0);
        }
        house.see("TopicA", "0", 3).await;
        let commit = [("consumerGroup", "CG"), ("topic", "TopicA"), ("queueId", "0"), ("commitOffset", "2")];
        assert_eq!(house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await.code, 0);
    }

    async fn make(self, house: &House) -> Command {
        let (code, fields, body): (_, Vec<(&str, &str)>, &str) = match self {
            Topic => {
                let fields = vec![
                    ("topic", "TopicNew"),
                    ("defaultTopic", "TBW102"),
                    ("readQueueNums", "3"),
                    ("writeQueueNums", "3"),
                    ("perm", "6"),
                    ("topicFilterType", "SINGLE_TAG"),
                    ("topicSysFlag", "0"),
                    ("order", "false"),
                ];
                (RequestCode::UPDATE_AND_CREATE_TOPIC, fields, "")
            }
            TopicList => {
                let list = r#"{"topicConfigList":[{"topicName":"TopicX","perm":6},{"topicName":"TopicNew","perm":6}]}"#;
                (RequestCode::UPDATE_AND_CREATE_TOPIC_LIST, vec![], list)
            }
            TopicBySend | TopicBySyncSend => return house.send("TopicNew", "0", "", b"new").await,
            TopicBySendBack => {
                let fields = vec![("offset", "0"), ("group", "CG"), ("delayLevel", "1"), ("originTopic", "TopicA")];
                (RequestCode::CONSUMER_SEND_MSG_BACK, fields, "")
            }
            TopicDeleted => (RequestCode::DELETE_TOPIC_IN_BROKER, vec![("topic", "TopicA")], ""),
            Group => {
                let group = r#"{"groupName":"GroupNew","retryMaxTimes":7}"#;
                (RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, vec![], group)
            }
            GroupList => {
                let list = r#"{"groupConfigList":[{"groupName":"GroupX"},{"groupName":"GroupNew"}]}"#;
                (RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST, vec![], list)
            }
            GroupDeleted => {
                let fields = vec![("groupName", "CG"), ("cleanOffset", "true")];
                (RequestCode::DELETE_SUBSCRIPTIONGROUP, fields, "")
            }
            Forbidden => {
                let fields = vec![("group", "CG"), ("topic", "TopicA"), ("readable", "false")];
                (RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN, fields, "")
            }
            Reset => {
                let fields = vec![
                    ("topic", "TopicA"),
                    ("group", "CG"),
                    ("timestamp", "0"),
                    ("isForce", "true"),
                    ("queueId", "0"),
                    ("offset", "1"),
                ];
                (RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, fields, "")
            }
            Cloned => {
                let fields = vec![("srcGroup", "CG"), ("destGroup", "GroupNew"), ("topic", "TopicA")];
                (RequestCode::CLONE_GROUP_OFFSET, fields, "")
            }
        };
        house.ask(code, &fields, body.as_bytes()).await
    }

    async fn is_made(self, house: &House) -> bool {
        let topics: TopicConfigTable = json(&house.ask(RequestCode::GET_ALL_TOPIC_CONFIG, &[], b"").await);
        let groups: SubscriptionGroupTable =
            json(&house.ask(RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[], b"").await);
        let offsets: ConsumerOffsetTable = json(&house.ask(RequestCode::GET_ALL_CONSUMER_OFFSET, &[], b"").await);
        let topic = |name: &str| topics.topic_config_table.iter().any(|(topic, _)| &**topic == name);
        let group =
            |name: &str| groups.subscription_group_table.iter().find(|(group, _)| &***group == name).map(|(_, it)| it);
        let offset = |key: &str| offsets.offset_table.get(key).and_then(|queues| queues.get(&0)).copied();
        match self {
            Topic | TopicList | TopicBySend | TopicBySyncSend => topic("TopicNew"),
            TopicBySendBack => topic("%RETRY%CG"),
            TopicDeleted => !topic("TopicA") && offset("TopicA@CG").is_none(),
            Group => group("GroupNew").is_some_and(|group: &SubscriptionGroup| group.retry_max_times == 7),
            GroupList => group("GroupNew").is_some(),
            GroupDeleted => group("CG").is_none() && offset("TopicA@CG").is_none(),
            Forbidden => groups.forbidden_table.iter().any(|(group, _)| &**group == "CG"),
            Reset => offset("TopicA@CG") == Some(1),
            Cloned => offset("TopicA@GroupNew") == Some(2),
        }
    }

    fn settings(self) -> &'static str {
        match self {
            TopicBySyncSend => "workerThreads=1\nflushDiskType=SYNC_FLUSH\n",
            _ => "workerThreads=1\n",
        }
    }
}

async fn survives(change: Change, file: &str) {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), change.settings()).await;
    change.prepare(&house).await;
    // As a full disk: the new version cannot be written.
    let fresh = root.path().join("config").join(format!("{file}.tmp"));
    let broken = Instant::now();
    while fs::create_dir(&fresh).is_err() {
        // It is just being written.
        assert!(broken.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    // The second time it is made already, but still not saved.
    for _ in 0..2 {
        let refused = change.make(&house).await;
        assert!([1, 14].contains(&refused.code), "{change:?}: {refused:?}");
        assert!(remark(&refused).contains(&format!("{file} cannot be saved: ")), "{change:?}: {refused:?}");
    }
    fs::remove_dir(&fresh).unwrap();
    let mended = Instant::now();
    while change.make(&house).await.code != 0 {
        assert!(mended.elapsed() < PATIENCE, "{change:?}");
    }
    // As kill -9: what the page cache holds.
    let killed = copy_at_an_instant(root.path());
    house.stop().await;
    let settings = format!("{}autoCreateTopicEnable=false\nautoCreateSubscriptionGroup=false\n", change.settings());
    let house = House::start(killed.path(), &settings).await;
    assert!(change.is_made(&house).await, "{change:?} was acknowledged and is lost with {file}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_a_kill_after_saves_that_failed() {
    for row in ALL.chunks(4) {
        let mut running = tokio::task::JoinSet::new();
        for (change, file) in row {
            running.spawn(survives(*change, file));
        }
        running.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_could_not_be_saved_takes_no_further_messages() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    assert_eq!(house.send("TopicA", "0", "", b"a").await.code, 0);
    let fresh = root.path().join("config/topics.json.tmp");
    fs::create_dir(&fresh).unwrap();
    // The first finds out, and may be stored by then; those after it are refused before.
    for _ in 0..5 {
        assert_eq!(house.send("TopicNew", "0", "", b"new").await.code, 14);
    }
    let max = house.ask(RequestCode::GET_MAX_OFFSET, &[("topic", "TopicNew"), ("queueId", "0")], b"").await;
    assert!(["0", "1"].contains(&&*max.field("offset").unwrap()));
    // Topics that are saved go on.
    assert_eq!(house.send("TopicA", "0", "", b"b").await.code, 0);
    fs::remove_dir(&fresh).unwrap();
    house.stop().await;
}
