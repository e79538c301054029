//! What operators and their tools ask of a running broker, and what a consumer's failures come to.

mod support;

use std::sync::{Arc, Mutex};

use ferromq_protocol::body::{
    BrokerStatsData, ConsumeQueueReply, ConsumeStats, ConsumeStatsList, ConsumeTimeSpanReply, KvTable, ResetOffsetBody,
    SubscriptionGroup, TopicConfigTable, TopicStats,
};
use ferromq_protocol::message::{OffsetMessageId, Record, property};
use ferromq_protocol::{Command, Reply, RequestCode, ResponseCode};
use ferromq_remoting::{Outcome, Requests, Service};
use support::{House, json, remark, text};

async fn house(more: &str) -> (tempfile::TempDir, House) {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), more).await;
    (root, house)
}

fn offset_of(sent: &Command) -> u64 {
    let id: OffsetMessageId = sent.field("msgId").unwrap().parse().unwrap();
    id.physical_offset.0
}

fn physical_offset(pulled: &Command) -> String {
    Record::parse(&pulled.body).unwrap().physical_offset().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_given_back_comes_again_and_ends_in_the_dead_letter_topic() {
    let (_root, house) = house("messageDelayLevel=1s 1s 1s 1s\n").await;
    let sent = house.send("TopicA", "1", "KEYS\u{1}k1\u{2}TAGS\u{1}TagA\u{2}WAIT\u{1}true\u{2}", b"try me").await;
    let first = house.pull("TopicA", "1", "0").await;
    let give_back = |offset: String, level: &'static str| {
        let house = &house;
        async move {
            let fields = [
                ("offset", offset.as_str()),
                ("group", "CG"),
                ("delayLevel", level),
                ("originTopic", "TopicA"),
                ("maxReconsumeTimes", "2"),
            ];
            house.ask(RequestCode::CONSUMER_SEND_MSG_BACK, &fields, b"").await
        }
    };

    let reply = give_back(physical_offset(&first), "0").await;
    assert_eq!((reply.code, remark(&reply)), (0, ""));
    let again = house.pull("%RETRY%CG", "0", "0").await;
    let record = Record::parse(&again.body).unwrap();
    let stored = record.properties().into_owned();
    assert_eq!((record.reconsume_times(), record.body()), (1, &b"try me"[..]));
    let origin = sent.field("msgId").unwrap();
    for (name, value) in [
        ("RETRY_TOPIC", "TopicA"),
        ("ORIGIN_MESSAGE_ID", &*origin),
        ("DELAY", "3"),
        ("WAIT", "false"),
        ("KEYS", "k1"),
        ("TAGS", "TagA"),
        ("REAL_TOPIC", "%RETRY%CG"),
    ] {
        assert_eq!(property(&stored, name), Some(value), "{name}");
    }

    // The second failure waits a level longer, and keeps where the message came from.
    assert_eq!(give_back(physical_offset(&again), "0").await.code, 0);
    let third = house.pull("%RETRY%CG", "0", "1").await;
    let record = Record::parse(&third.body).unwrap();
    assert_eq!(record.reconsume_times(), 2);
    let stored = record.properties().into_owned();
    for (name, value) in [("RETRY_TOPIC", "TopicA"), ("ORIGIN_MESSAGE_ID", &*origin), ("DELAY", "4")] {
        assert_eq!(property(&stored, name), Some(value), "{name}");
    }

    // Two tries were allowed.
    assert_eq!(give_back(physical_offset(&third), "0").await.code, 0);
    let dead = house.pull("%DLQ%CG", "0", "0").await;
    let record = Record::parse(&dead.body).unwrap();
    assert_eq!((record.reconsume_times(), record.topic()), (3, "%DLQ%CG"));
    assert_eq!(property(&record.properties(), "DELAY"), Some("0"));

    // A negative level goes there at once.
    assert_eq!(give_back(physical_offset(&first), "-1").await.code, 0);
    assert_eq!(Record::parse(&house.pull("%DLQ%CG", "0", "1").await.body).unwrap().reconsume_times(), 1);

    let wrong = give_back((offset_of(&sent) + 3).to_string(), "0").await;
    assert_eq!((wrong.code, remark(&wrong)), (1, &*format!("look message by offset failed, {}", offset_of(&sent) + 3)));
    let fields = [("offset", "0"), ("group", "no!group"), ("delayLevel", "0")];
    let wrong = house.ask(RequestCode::CONSUMER_SEND_MSG_BACK, &fields, b"").await;
    assert_eq!(wrong.code, 26);
    assert!(remark(&wrong).starts_with("subscription group not exist, no!group \nSee "));

    // A message is visible before the offset says that it was delivered.
    let delivered = |reply: &Command| text(reply).contains(r#""offsetTable":{"3":1,"4":1}"#);
    house.ask_until(RequestCode::GET_ALL_DELAY_OFFSET, &[], delivered).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_sync_flush_mode_a_message_given_back_is_on_disk_when_that_is_answered() {
    let (_root, house) = house("flushDiskType=SYNC_FLUSH\n").await;
    house.send("TopicA", "0", "", b"try me").await;
    let offset = physical_offset(&house.pull("TopicA", "0", "0").await);
    let fields = [("offset", offset.as_str()), ("group", "CG"), ("delayLevel", "0"), ("originTopic", "TopicA")];
    assert_eq!(house.ask(RequestCode::CONSUMER_SEND_MSG_BACK, &fields, b"").await.code, 0);
    let info: KvTable = json(&house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], b"").await);
    assert_eq!(
        (info.table["putMessageTimesTotal"].as_str(), info.table["remainHowManyDataToFlush"].as_str()),
        ("2", "0 B")
    );
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_changed_and_deleted() {
    let (root, house) = house("").await;
    let wanted = [
        ("topic", "TopicWire"),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "2"),
        ("writeQueueNums", "2"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
        ("attributes", "+message.type=FIFO"),
    ];
    let reply = house.ask(RequestCode::UPDATE_AND_CREATE_TOPIC, &wanted, b"").await;
    assert_eq!((reply.code, remark(&reply)), (0, ""), "{reply:?}");
    assert!(std::fs::read_to_string(root.path().join("config/topics.json")).unwrap().contains("\"TopicWire\""));
    let reply = house.ask(RequestCode::UPDATE_AND_CREATE_TOPIC, &wanted[..8], b"").await;
    assert_eq!((reply.code, remark(&reply)), (0, "not set any response code"));
    let reply = house.ask(RequestCode::GET_TOPIC_CONFIG, &[("topic", "TopicWire")], b"").await;
    assert_eq!(
        text(&reply),
        r#"{"attributes":{"message.type":"FIFO"},"order":false,"perm":6,"readQueueNums":2,"topicFilterType":"SINGLE_TAG","topicName":"TopicWire","topicSysFlag":0,"writeQueueNums":2}"#
    );
    let reply = house.ask(RequestCode::GET_TOPIC_CONFIG, &[("topic", "NoSuchTopic")], b"").await;
    assert_eq!((reply.code, remark(&reply)), (17, "No topic in this broker. topic: NoSuchTopic"));
    let list = br#"{"topicConfigList":[{"topicName":"TopicL1","readQueueNums":3},{"topicName":"TopicL2"}]}"#;
    assert_eq!(house.ask(RequestCode::UPDATE_AND_CREATE_TOPIC_LIST, &[], list).await.code, 0);
    let reply = house.ask(RequestCode::GET_ALL_TOPIC_CONFIG, &[], b"").await;
    assert!(reply.fields.is_present() && reply.fields.is_empty());
    let all: TopicConfigTable = json(&reply);
    assert_eq!(
        (all.topic_config_table["TopicL1"].read_queue_nums, all.topic_config_table["TopicL2"].read_queue_nums),
        (3, 16)
    );
    assert!(all.mapping_data_version.is_some());

    house.send("TopicWire", "0", "", b"x").await;
    house.pull("TopicWire", "0", "0").await;
    for topic in ["TopicWire", "TopicWire", "NoSuchTopic"] {
        assert_eq!(house.ask(RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", topic)], b"").await.code, 0);
    }
    assert_eq!(house.ask(RequestCode::GET_TOPIC_CONFIG, &[("topic", "TopicWire")], b"").await.code, 17);
    assert!(!root.path().join("consumequeue/TopicWire").exists());
    for (topic, why) in
        [("TBW102", "The topic[TBW102] is conflict with system topic."), ("", "The specified topic is blank.")]
    {
        let reply = house.ask(RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", topic)], b"").await;
        assert_eq!((reply.code, remark(&reply)), (29, why));
    }
    assert_eq!(house.ask(RequestCode::CLEAN_UNUSED_TOPIC, &[], b"").await.code, 0);
    assert!(
        text(&house.ask(RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_BROKER, &[], b"").await)
            .contains("SCHEDULE_TOPIC_XXXX")
    );
    house.stop().await;
}

/// Rewrites `topics.json` as if nobody had ever heard of these topics.
fn forget_topics(root: &std::path::Path, names: &[&str]) {
    let path = root.join("config/topics.json");
    let mut table: TopicConfigTable = ferromq_protocol::json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    table.topic_config_table.retain(|name, _| !names.contains(&&**name));
    std::fs::write(&path, serde_json::to_vec(&table).unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_of_unknown_topics_go_when_their_messages_have_gone_and_others_keep_their_offsets() {
    let root = tempfile::tempdir().unwrap();
    let small = "mappedFileSizeCommitLog=65536\n";
    let house = House::start(root.path(), small).await;
    for topic in ["Gone", "KnownAndEmpty", "HalfGone"] {
        house.send(topic, "0", "", b"old").await;
        house.see(topic, "0", 1).await;
        let committed = [("consumerGroup", "CG"), ("topic", topic), ("queueId", "0"), ("commitOffset", "1")];
        assert_eq!(house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &committed, b"").await.code, 0);
    }
    while offset_of(&house.send("Filler", "0", "", &[7; 9000]).await) < 65536 {}
    house.send("HalfGone", "1", "", b"new").await;
    house.stop().await;

    // The first segment is over, and two of the topics are in queues and offsets alone.
    std::fs::remove_file(root.path().join("commitlog/00000000000000000000")).unwrap();
    forget_topics(root.path(), &["Gone", "HalfGone"]);
    let house = House::start(root.path(), small).await;
    let queues = |topic: &str| root.path().join("consumequeue").join(topic).exists();
    assert_eq!(house.ask(RequestCode::CLEAN_EXPIRED_CONSUMEQUEUE, &[], b"").await.code, 0);
    assert_eq!(["Gone", "KnownAndEmpty", "HalfGone"].map(queues), [false, true, true]);
    for (code, topic, queue, offset) in [
        (RequestCode::GET_MIN_OFFSET, "KnownAndEmpty", "0", "1"),
        (RequestCode::GET_MAX_OFFSET, "KnownAndEmpty", "0", "1"),
        (RequestCode::GET_MAX_OFFSET, "HalfGone", "1", "1"),
        (RequestCode::GET_MAX_OFFSET, "Gone", "0", "0"),
    ] {
        let reply = house.ask(code, &[("topic", topic), ("queueId", queue)], b"").await;
        assert_eq!(support::field(&reply, "offset"), offset, "{code:?} {topic}");
    }
    assert_eq!(house.ask(RequestCode::CLEAN_UNUSED_TOPIC, &[], b"").await.code, 0);
    assert_eq!(["Gone", "KnownAndEmpty", "HalfGone", "Filler"].map(queues), [false, true, false, true]);

    // Made anew, a topic begins at 0 for its groups too; the one that was kept goes on where it was.
    for (topic, first) in [("Gone", "0"), ("HalfGone", "0"), ("KnownAndEmpty", "1")] {
        let sent = house.send(topic, "0", "", b"again").await;
        assert_eq!(support::field(&sent, "queueOffset"), first, "{topic}");
        let of = [("consumerGroup", "CG"), ("topic", topic), ("queueId", "0")];
        let committed = house.ask(RequestCode::QUERY_CONSUMER_OFFSET, &of, b"").await;
        assert_eq!(committed.field("offset").unwrap_or_default(), first, "{topic}");
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_made_changed_and_deleted() {
    let (_root, house) = house("").await;
    let partial = br#"{"groupName":"G_wire","retryMaxTimes":3}"#;
    assert_eq!(house.ask(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], partial).await.code, 0);
    let reply = house.ask(RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "G_wire")], b"").await;
    assert_eq!(
        text(&reply),
        r#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"G_wire","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":3,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#
    );
    let unknown: SubscriptionGroup =
        json(&house.ask(RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "NoSuchGroup")], b"").await);
    assert_eq!(unknown.retry_max_times, 16);
    assert_eq!(house.ask(RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "no!group")], b"").await.code, 26);
    let broken = house.ask(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], b"{").await;
    assert_eq!(broken.code, 1);

    let forbidden = |readable: &'static str| [("group", "G_wire"), ("topic", "TopicA"), ("readable", readable)];
    let reply = house.ask(RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN, &forbidden("false"), b"").await;
    assert_eq!(
        (text(&reply).as_str(), remark(&reply)),
        (r#"{"group":"G_wire","readable":false,"topic":"TopicA"}"#, "")
    );
    assert!(
        text(&house.ask(RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[], b"").await)
            .contains(r#""forbiddenTable":{"G_wire":{"TopicA":4}}"#)
    );
    house.ask(RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN, &forbidden("true"), b"").await;
    let reply = house.ask(RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN, &forbidden("true")[..2], b"").await;
    assert_eq!(text(&reply), r#"{"group":"G_wire","readable":true,"topic":"TopicA"}"#);

    for group in ["G_wire", "NeverThere"] {
        assert_eq!(house.ask(RequestCode::DELETE_SUBSCRIPTIONGROUP, &[("groupName", group)], b"").await.code, 0);
    }
    assert!(!text(&house.ask(RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[], b"").await).contains("G_wire"));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_by_key_and_by_place() {
    let (_root, house) = house("").await;
    let sent = house
        .send("TopicA", "0", "KEYS\u{1}wk1 wk2\u{2}UNIQ_KEY\u{1}0C0000010000000000000000000000AA\u{2}", b"find me")
        .await;
    house.send("TopicA", "0", "KEYS\u{1}wk2\u{2}", b"me too").await;
    house.see("TopicA", "0", 2).await;
    let query = |key: &'static str, topic: &'static str, end: &'static str| {
        let house = &house;
        async move {
            let fields =
                [("topic", topic), ("key", key), ("maxNum", "10"), ("beginTimestamp", "0"), ("endTimestamp", end)];
            house.ask(RequestCode::QUERY_MESSAGE, &fields, b"").await
        }
    };
    const EVER: &str = "9999999999999";
    // A message is visible a moment before its keys are in the index.
    let both = [("topic", "TopicA"), ("key", "wk2"), ("maxNum", "10"), ("beginTimestamp", "0"), ("endTimestamp", EVER)];
    let found = |reply: &Command| ferromq_protocol::message::Records::new(&reply.body).count() == 2;
    house.ask_until(RequestCode::QUERY_MESSAGE, &both, found).await;
    let found = query("wk1", "TopicA", EVER).await;
    assert_eq!(Record::parse(&found.body).unwrap().body(), b"find me");
    assert!(found.field("indexLastUpdatePhyoffset").is_some() && found.field("indexLastUpdateTimestamp").is_some());
    assert_eq!(query("0C0000010000000000000000000000AA", "TopicA", EVER).await.code, 0);
    for missing in [
        query("nokey", "TopicA", EVER).await,
        query("wk1", "NoSuchTopic", EVER).await,
        query("wk1", "TopicA", "1000").await,
    ] {
        assert_eq!((missing.code, remark(&missing)), (22, "can not find message, maybe time range not correct"));
        assert_eq!(missing.field("indexLastUpdatePhyoffset").as_deref(), Some("0"));
    }
    let place = offset_of(&sent);
    let found = house.ask(RequestCode::VIEW_MESSAGE_BY_ID, &[("offset", &place.to_string())], b"").await;
    assert_eq!(Record::parse(&found.body).unwrap().body(), b"find me");
    for wrong in [(place + 1).to_string(), "999999999".to_owned(), "-1".to_owned()] {
        let reply = house.ask(RequestCode::VIEW_MESSAGE_BY_ID, &[("offset", &wrong)], b"").await;
        assert_eq!((reply.code, remark(&reply)), (1, &*format!("can not find message by the offset, {wrong}")));
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_topics_and_groups() {
    let (_root, house) = house("").await;
    for body in [b"1", b"2", b"3"] {
        house.send("TopicA", "1", "TAGS\u{1}TagA\u{2}", body).await;
    }
    house.see("TopicA", "1", 3).await;
    let commit = [("consumerGroup", "CG"), ("topic", "TopicA"), ("queueId", "1"), ("commitOffset", "2")];
    assert_eq!(house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await.code, 0);

    let reply = house.ask(RequestCode::GET_TOPIC_STATS_INFO, &[("topic", "TopicA")], b"").await;
    assert!(
        text(&reply).contains(r#"{"brokerName":"broker-a","queueId":1,"topic":"TopicA"}:{"lastUpdateTimestamp":"#),
        "{}",
        text(&reply)
    );
    let stats: TopicStats = json(&reply);
    assert_eq!(stats.offset_table.len(), 4);
    assert_eq!(stats.offset_table[1].max_offset, 3);
    let unknown = house.ask(RequestCode::GET_TOPIC_STATS_INFO, &[("topic", "NoSuchTopic")], b"").await;
    assert_eq!((unknown.code, remark(&unknown)), (17, "topic[NoSuchTopic] not exist"));

    let stats: ConsumeStats = json(&house.ask(RequestCode::GET_CONSUME_STATS, &[("consumerGroup", "CG")], b"").await);
    let (_, queue) = stats.offset_table.get_index(1).unwrap();
    assert_eq!((queue.broker_offset, queue.consumer_offset, queue.pull_offset), (3, 2, 3));
    assert!(queue.last_timestamp > 0);
    for fields in [&[("consumerGroup", "NoSuchGroup")][..], &[("consumerGroup", "CG"), ("topic", "NoSuchTopic")]] {
        assert_eq!(
            text(&house.ask(RequestCode::GET_CONSUME_STATS, fields, b"").await),
            r#"{"consumeTps":0.0,"offsetTable":{}}"#
        );
    }
    let list: ConsumeStatsList =
        json(&house.ask(RequestCode::GET_BROKER_CONSUME_STATS, &[("isOrder", "false")], b"").await);
    assert_eq!((list.broker_addr.as_deref(), list.total_diff), (Some(&*house.address), 1));
    assert!(list.consume_stats_list.iter().any(|group| group.contains_key("SELF_TEST_C_GROUP")));

    assert_eq!(
        text(&house.ask(RequestCode::QUERY_TOPIC_CONSUME_BY_WHO, &[("topic", "TopicA")], b"").await),
        r#"{"groupList":["CG"]}"#
    );
    assert_eq!(
        text(&house.ask(RequestCode::QUERY_TOPIC_CONSUME_BY_WHO, &[("topic", "NoSuchTopic")], b"").await),
        r#"{"groupList":[]}"#
    );
    let topics = house.ask(RequestCode::QUERY_TOPICS_BY_CONSUMER, &[("group", "CG")], b"").await;
    assert_eq!(text(&topics), format!(r#"{{"brokerAddr":"{}","topicList":["TopicA"]}}"#, house.address));

    let spans: ConsumeTimeSpanReply =
        json(&house.ask(RequestCode::QUERY_CONSUME_TIME_SPAN, &[("topic", "TopicA"), ("group", "CG")], b"").await);
    let span = &spans.consume_time_span_set[1];
    assert!(
        span.min_time_stamp > 0
            && span.consume_time_stamp <= span.max_time_stamp
            && span.min_time_stamp_str.contains('#')
    );

    let entries = |index: &'static str, queue: &'static str| {
        [("topic", "TopicA"), ("queueId", queue), ("index", index), ("count", "2")]
    };
    let reply = house.ask(RequestCode::QUERY_CONSUME_QUEUE, &entries("1", "1"), b"").await;
    let found: ConsumeQueueReply = json(&reply);
    assert_eq!((found.queue_data.len(), found.max_queue_index, found.queue_data[0].tags_code), (2, 3, 2_598_919));
    for (index, queue) in [("0", "99"), ("3", "1"), ("0", "-1")] {
        let reply = house.ask(RequestCode::QUERY_CONSUME_QUEUE, &entries(index, queue), b"").await;
        assert_eq!((reply.code, remark(&reply)), (0, &*format!("Index {index} of {queue}@TopicA is not exist!")));
        assert!(reply.body.is_empty());
    }
    assert!(text(&house.ask(RequestCode::GET_ALL_CONSUMER_OFFSET, &[], b"").await).contains(r#""TopicA@CG":{"1":2}"#));

    let copy = [("srcGroup", "CG"), ("destGroup", "CopyG"), ("topic", "TopicA"), ("offline", "true")];
    assert_eq!(house.ask(RequestCode::CLONE_GROUP_OFFSET, &copy, b"").await.code, 0);
    let query = [("consumerGroup", "CopyG"), ("topic", "TopicA"), ("queueId", "1")];
    assert_eq!(house.ask(RequestCode::QUERY_CONSUMER_OFFSET, &query, b"").await.field("offset").as_deref(), Some("2"));

    let counter = [("statsName", "TOPIC_PUT_NUMS"), ("statsKey", "TopicA")];
    let data: BrokerStatsData = json(&house.ask(RequestCode::VIEW_BROKER_STATS_DATA, &counter, b"").await);
    assert!(data.stats_minute.sum <= 3);
    let reply =
        house.ask(RequestCode::VIEW_BROKER_STATS_DATA, &[("statsName", "NOPE"), ("statsKey", "NoSuch")], b"").await;
    assert_eq!((reply.code, remark(&reply)), (1, "The stats <NOPE> <NoSuch> not exist"));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_reaches_the_next_pull() {
    let (_root, house) = house("").await;
    for body in [b"1", b"2", b"3"] {
        house.send("TopicA", "1", "", body).await;
    }
    house.see("TopicA", "1", 3).await;
    let reset = |topic: &'static str, group: &'static str, queue: &'static str, offset: &'static str| {
        let house = &house;
        async move {
            let fields = [
                ("topic", topic),
                ("group", group),
                ("timestamp", "-1"),
                ("isForce", "true"),
                ("queueId", queue),
                ("offset", offset),
            ];
            house.ask(RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &fields, b"").await
        }
    };
    let reply = reset("TopicA", "NoSuchG9", "-1", "-1").await;
    assert_eq!((reply.code, remark(&reply)), (26, "Group NoSuchG9 does not exist"));
    let reply = reset("NoSuchT", "CG", "-1", "-1").await;
    assert_eq!((reply.code, remark(&reply)), (17, "Topic NoSuchT does not exist"));
    let reply = reset("TopicA", "CG", "1", "99").await;
    assert_eq!((reply.code, remark(&reply)), (1, "Target offset 99 not in consume queue range [0-3]"));

    let reply = reset("TopicA", "CG", "-1", "-1").await;
    assert!(text(&reply).contains(r#"{"brokerName":"broker-a","queueId":1,"topic":"TopicA"}:3"#), "{}", text(&reply));
    let pulled = house.pull("TopicA", "1", "0").await;
    assert_eq!((pulled.response_code(), remark(&pulled)), (ResponseCode::PULL_OFFSET_MOVED, "OFFSET_RESET"));
    assert_eq!(pulled.field("nextBeginOffset").as_deref(), Some("3"));
    let one: ResetOffsetBody = json(&reset("TopicA", "CG", "1", "1").await);
    assert_eq!(one.offset_table.len(), 1);
    assert_eq!(house.pull("TopicA", "1", "3").await.field("nextBeginOffset").as_deref(), Some("1"));
    assert_eq!(house.pull("TopicA", "1", "1").await.response_code(), ResponseCode::SUCCESS);

    // What a pull says of the messages that it has consumed does not undo the reset that it is told of.
    assert_eq!(json::<ResetOffsetBody>(&reset("TopicA", "CG", "1", "0").await).offset_table.len(), 1);
    let committing = [("sysFlag", "5"), ("commitOffset", "3")];
    let told = house.pull_with("TopicA", "1", "3", &committing).await;
    assert_eq!((remark(&told), told.field("nextBeginOffset").as_deref()), ("OFFSET_RESET", Some("0")));
    let query = [("consumerGroup", "CG"), ("topic", "TopicA"), ("queueId", "1")];
    let committed = async || {
        let reply = house.ask(RequestCode::QUERY_CONSUMER_OFFSET, &query, b"").await;
        reply.field("offset").map(|offset| offset.to_string())
    };
    assert_eq!(committed().await.as_deref(), Some("0"));
    house.pull_with("TopicA", "1", "0", &committing).await;
    assert_eq!(committed().await.as_deref(), Some("3"));
    house.stop().await;
}

/// The store does not let go of the queues: topic, offsets and messages are as before, and the next try deletes them.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_refused_has_deleted_nothing() {
    let (root, house) = house("").await;
    for body in [b"1", b"2", b"3"] {
        house.send("TopicA", "1", "", body).await;
    }
    house.see("TopicA", "1", 3).await;
    let queue = [("consumerGroup", "CG"), ("topic", "TopicA"), ("queueId", "1")];
    let commit = [&queue[..], &[("commitOffset", "2")]].concat();
    assert_eq!(house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await.code, 0);
    let before = house.ask(RequestCode::GET_TOPIC_CONFIG, &[("topic", "TopicA")], b"").await;
    // Where queues are put before they go.
    let graves = root.path().join("consumequeue").join(".deleted");
    let _ = std::fs::remove_dir_all(&graves);
    std::fs::write(&graves, b"").unwrap();
    let refused = house.ask(RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", "TopicA")], b"").await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(remark(&refused).starts_with("topic[TopicA] is not deleted: "), "{}", remark(&refused));
    let after = house.ask(RequestCode::GET_TOPIC_CONFIG, &[("topic", "TopicA")], b"").await;
    assert_eq!((after.code, text(&after)), (0, text(&before)));
    let committed = house.ask(RequestCode::QUERY_CONSUMER_OFFSET, &queue, b"").await;
    assert_eq!(committed.field("offset").as_deref(), Some("2"));
    assert_eq!(house.pull("TopicA", "1", "2").await.response_code(), ResponseCode::SUCCESS);
    assert_eq!(house.send("TopicA", "1", "", b"4").await.code, 0);

    std::fs::remove_file(&graves).unwrap();
    assert_eq!(house.ask(RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", "TopicA")], b"").await.code, 0);
    assert_eq!(house.ask(RequestCode::GET_TOPIC_CONFIG, &[("topic", "TopicA")], b"").await.code, 17);
    // What comes back begins anew.
    let again = house.send("TopicA", "1", "", b"new").await;
    assert_eq!(again.field("queueOffset").as_deref(), Some("0"));
    assert_eq!(house.ask(RequestCode::QUERY_CONSUMER_OFFSET, &queue, b"").await.field("offset").as_deref(), Some("0"));
    house.stop().await;
}

/// A consumer that answers running-info requests and keeps what it is told.
#[derive(Default)]
struct Consumer {
    told: Mutex<Vec<(i32, String)>>,
}

impl Service for Consumer {
    fn serve(&self, requests: &mut Requests<'_>) {
        requests.each(|_, request| self.answer(&request));
    }
}

impl Consumer {
    fn answer(&self, request: &Command) -> Outcome {
        self.told.lock().unwrap().push((request.code, String::from_utf8_lossy(&request.body).into_owned()));
        match request.request_code() {
            RequestCode::GET_CONSUMER_RUNNING_INFO => {
                let mut body = r#"{"properties":{},"jstack":""#.to_owned();
                body.push_str(&request.field("jstackEnable").unwrap_or_default());
                body.push_str("\"}");
                Outcome::Reply(Reply::ok().body(body))
            }
            RequestCode::CONSUME_MESSAGE_DIRECTLY => {
                let stored = Record::parse(&request.body).unwrap().body().to_vec();
                assert_eq!(request.field("brokerName").as_deref(), Some("broker-a"));
                Outcome::Reply(Reply::ok().body(stored))
            }
            _ => Outcome::Deferred,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_reach_consumers_through_the_broker() {
    let (_root, house) = house("useServerSideResetOffset=false\n").await;
    let sent = house.send("TopicA", "1", "", b"again").await;
    house.pull("TopicA", "1", "0").await;
    let info = |client: &'static str| [("consumerGroup", "CG"), ("clientId", client), ("jstackEnable", "true")];
    let reply = house.ask(RequestCode::GET_CONSUMER_RUNNING_INFO, &info("nope"), b"").await;
    assert_eq!((reply.code, remark(&reply)), (1, "The Consumer <CG> <nope> not online"));
    let reset = [("topic", "TopicA"), ("group", "CG"), ("timestamp", "0"), ("isForce", "true")];
    let reply = house.ask(RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &reset, b"").await;
    assert_eq!((reply.code, remark(&reply)), (1, "THe consumer group <CG> not exist"));
    for queue in ["0", "1", "2", "3"] {
        let commit = [("consumerGroup", "CG"), ("topic", "TopicA"), ("queueId", queue), ("commitOffset", "1")];
        house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await;
    }
    let reply = house.ask(RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &reset, b"").await;
    assert_eq!(
        (reply.code, remark(&reply)),
        (206, "Consumer not online, so can not reset offset, Group: CG Topic: TopicA Timestamp: 0")
    );

    let consumer = Arc::new(Consumer::default());
    let (client, _connection) = house.consumer("c1", 479, Arc::<Consumer>::clone(&consumer)).await;
    let reply = house.ask(RequestCode::GET_CONSUMER_RUNNING_INFO, &info("c1"), b"").await;
    assert_eq!((reply.code, text(&reply).as_str()), (0, r#"{"properties":{},"jstack":"true"}"#));
    let direct = [("consumerGroup", "CG"), ("clientId", "c1"), ("msgId", &*sent.field("msgId").unwrap())];
    assert_eq!(text(&house.ask(RequestCode::CONSUME_MESSAGE_DIRECTLY, &direct, b"").await), "again");
    let reply = house.ask(RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &reset, b"").await;
    assert!(text(&reply).contains(r#"{"brokerName":"broker-a","queueId":1,"topic":"TopicA"}:0"#), "{}", text(&reply));
    // The next answer on that connection comes after what was sent before it.
    house.ask(RequestCode::GET_CONSUMER_RUNNING_INFO, &info("c1"), b"").await;
    let told = consumer.told.lock().unwrap().clone();
    let (_, body) = told.iter().find(|(code, _)| *code == 220).expect("the consumer was not told");
    assert!(body.contains(r#"{"brokerName":"broker-a","queueId":1,"topic":"TopicA"}:0"#), "{body}");

    let (old, _connection) = house.consumer("old", 20, Arc::new(Consumer::default())).await;
    let reply = house.ask(RequestCode::GET_CONSUMER_RUNNING_INFO, &info("old"), b"").await;
    assert_eq!(reply.code, 1);
    assert!(remark(&reply).contains("too low to finish"));
    client.shutdown().await;
    old.shutdown().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_shown_and_changed() {
    let (root, house) = house("").await;
    let reply = house.ask(RequestCode::GET_BROKER_CONFIG, &[], b"").await;
    assert!(text(&reply).contains("\nmaxMessageSize=4194304\n"));
    // Unset in Java's AuthConfig.
    assert!(!text(&reply).contains("Provider="));
    assert!(reply.field("version").unwrap().starts_with(r#"{"counter":0,"stateVersion":0,"timestamp":"#));
    assert_eq!(house.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], b"maxMessageSize=100\nnoSuchKey=1\n").await.code, 0);
    let shown = text(&house.ask(RequestCode::GET_BROKER_CONFIG, &[], b"").await);
    assert!(shown.contains("\nmaxMessageSize=100\n") && !shown.contains("noSuchKey"));
    assert!(std::fs::read_to_string(root.path().join("broker.conf")).unwrap().contains("\nmaxMessageSize=100\n"));
    assert!(std::fs::read_to_string(root.path().join("broker.conf.bak")).unwrap().contains("brokerName=broker-a"));
    let reply = house.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], b"rocketmqHome=/x\n").await;
    assert_eq!((reply.code, remark(&reply)), (16, "Can not update config in black list."));
    let reply = house.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], b"maxMessageSize=abc\n").await;
    assert_eq!(reply.code, 1);
    assert!(remark(&reply).starts_with("maxMessageSize is `abc`, but must be "), "{}", remark(&reply));
    assert_eq!(house.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], b"").await.code, 0);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_once_is_taken_back_whatever_the_limit_is_now() {
    let (_root, house) = house("messageDelayLevel=1s\n").await;
    assert_eq!(house.send("TopicA", "0", "", &[b'x'; 200]).await.code, 0);
    let offset = physical_offset(&house.pull("TopicA", "0", "0").await);
    assert_eq!(house.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], b"maxMessageSize=100\n").await.code, 0);
    let fields = [("offset", offset.as_str()), ("group", "CG"), ("delayLevel", "1"), ("originTopic", "TopicA")];
    assert_eq!(house.ask(RequestCode::CONSUMER_SEND_MSG_BACK, &fields, b"").await.code, 0);
    assert_eq!(Record::parse(&house.pull("%RETRY%CG", "0", "0").await.body).unwrap().body(), [b'x'; 200]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_settings_hold_at_once() {
    let (_root, house) = house("").await;
    let change = async |line: &str| house.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], line.as_bytes()).await;
    assert_eq!(house.send("TopicA", "0", "", &[b'x'; 200]).await.code, 0);
    assert_eq!(change("maxMessageSize=100\n").await.code, 0);
    assert_eq!(house.send("TopicA", "0", "", &[b'x'; 200]).await.code, 13);
    assert_eq!(change("maxMessageSize=200\n").await.code, 0);
    assert_eq!(house.send("TopicA", "0", "", &[b'x'; 200]).await.code, 0);
    assert_eq!(change("autoCreateTopicEnable=false\nautoCreateSubscriptionGroup=false\n").await.code, 0);
    assert_eq!(house.send("TopicB", "0", "", b"x").await.code, 17);
    assert_eq!(house.pull("TopicA", "0", "0").await.code, 26);
    // What would only stop the next start.
    for line in ["brokerRole=SLAVE\n", "aclEnable=true\n", "storePathCommitLog=/a,/a/b\n", "namesrvAddr=nowhere\n"] {
        assert_eq!(change(line).await.code, 1, "{line}");
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_info_has_every_key() {
    let (root, house) = house("messageDelayLevel=1s\n").await;
    house.send("TopicA", "0", "", b"1").await;
    house.send("TopicA", "1", "DELAY\u{1}1\u{2}", b"2").await;
    house.send("TopicA", "1", "TIMER_DELAY_SEC\u{1}3600\u{2}", b"3").await;
    house.pull("TopicA", "1", "0").await;
    // A message is visible before the offset of its delay level says that it was delivered.
    let done = |reply: &Command| {
        [r#""scheduleMessageOffset_1":"1,1""#, r#""timerCongestNum":"1""#].iter().all(|part| text(reply).contains(part))
    };
    let info: KvTable = json(&house.ask_until(RequestCode::GET_BROKER_RUNTIME_INFO, &[], done).await);
    let table = info.table;
    // The keys of a 5.3.3 broker.
    for key in "EndTransactionQueueSize EndTransactionThreadPoolQueueCapacity ackThreadPoolQueueCapacity ackThreadPoolQueueHeadWaitTimeMills \
        ackThreadPoolQueueSize bootTimestamp brokerActive brokerVersion brokerVersionDesc commitLogDirCapacity commitLogDiskRatio commitLogMaxOffset \
        commitLogMinOffset consumeQueueDiskRatio dispatchBehindBytes dispatchMaxBuffer earliestMessageTimeStamp getFoundTps getMessageEntireTimeMax \
        getMissTps getTotalTps getTransferredTps litePullThreadPoolQueueCapacity litePullThreadPoolQueueHeadWaitTimeMills litePullThreadPoolQueueSize \
        msgGetTotalTodayMorning msgGetTotalTodayNow msgGetTotalYesterdayMorning msgPutTotalTodayMorning msgPutTotalTodayNow \
        msgPutTotalYesterdayMorning pageCacheLockTimeMills pullThreadPoolQueueCapacity pullThreadPoolQueueHeadWaitTimeMills pullThreadPoolQueueSize \
        putLatency99 putLatency999 putMessageAverageSize putMessageDistributeTime putMessageEntireTimeMax putMessageFailedTimes putMessageSizeTotal \
        putMessageTimesTotal putTps queryThreadPoolQueueCapacity queryThreadPoolQueueHeadWaitTimeMills queryThreadPoolQueueSize \
        remainHowManyDataToFlush remainTransientStoreBufferNumbs runtime scheduleMessageOffset_1 sendThreadPoolQueueCapacity \
        sendThreadPoolQueueHeadWaitTimeMills sendThreadPoolQueueSize startAcceptSendRequestTimeStamp timerCongestNum timerDequeueTps timerEnqueueTps \
        timerOffsetBehind timerReadBehind"
        .split_whitespace()
    {
        assert!(table.contains_key(key), "{key} is missing");
    }
    assert!(table.contains_key(&format!("commitLogDiskRatio_{}", root.path().join("commitlog").display())));
    for (key, value) in [
        ("brokerVersion", "479"),
        ("brokerVersionDesc", "V5_3_3"),
        ("putMessageTimesTotal", "4"),
        ("msgPutTotalTodayNow", "2"),
        ("msgGetTotalTodayNow", "1"),
        ("scheduleMessageOffset_1", "1,1"),
        ("queryThreadPoolQueueCapacity", "20000"),
        ("ackThreadPoolQueueCapacity", "100000"),
        ("EndTransactionThreadPoolQueueCapacity", "100000"),
        ("commitLogMinOffset", "0"),
        ("timerOffsetBehind", "0"),
        ("timerReadBehind", "0"),
        ("timerEnqueueTps", "0.0"),
        ("timerDequeueTps", "0.0"),
    ] {
        assert_eq!(table.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(table["earliestMessageTimeStamp"].parse::<i64>().unwrap() > 1_700_000_000_000);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_info_has_each_directory_of_the_log() {
    let root = tempfile::tempdir().unwrap();
    let dir = |name: &str| root.path().join(name).display().to_string();
    let more = format!("storePathCommitLog={}, {}\nreadOnlyCommitLogStorePaths={}\n", dir("b"), dir("a"), dir("old"));
    std::fs::create_dir(dir("old")).unwrap();
    let house = House::start(root.path(), &more).await;
    let info: KvTable = json(&house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], b"").await);
    let ratio = |key: &str| info.table.get(key).and_then(|text| text.parse::<f64>().ok());
    let each = ["a", "b"].map(|name| ratio(&format!("commitLogDiskRatio_{}", dir(name))));
    // One disk for both here.
    assert!(each[0].is_some_and(|ratio| ratio > 0.0) && each[0] == each[1] && each[0] == ratio("commitLogDiskRatio"));
    assert_eq!(
        info.table.keys().filter(|key| key.starts_with("commitLogDiskRatio_")).count(),
        2,
        "as Java counts them"
    );
    assert!(info.table["commitLogDirCapacity"].starts_with("Total : "));
    house.stop().await;
}
