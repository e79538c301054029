//! A real broker on a free port, a real store in a temporary directory, and raw frames as Java and Go clients send them.

mod support;

use std::time::Duration;

use ferromq_broker::StartError;
use ferromq_protocol::message::{BatchItem, OffsetMessageId, Record, Records};
use ferromq_protocol::{Command, RequestCode, ResponseCode};
use ferromq_remoting::{Client, ClientConfig};
use ferromq_store::OpenError;
use support::{House, PATIENCE, field, heartbeat, remark, start};

type Fields<'a> = &'a [(&'a str, &'a str)];

/// Pulls until the dispatch thread has made this many messages visible from `offset` on.
async fn pull_bodies(house: &House, topic: &str, queue: &str, offset: &str, count: usize) -> Vec<Vec<u8>> {
    loop {
        let reply = house.pull_with(topic, queue, offset, &[]).await;
        let found = bodies(&reply);
        if found.len() >= count {
            assert_eq!(reply.response_code(), ResponseCode::SUCCESS);
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn bodies(reply: &Command) -> Vec<Vec<u8>> {
    Records::new(&reply.body).map(|record| record.unwrap().body().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_pulled() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let sent = house.send("TopicA", "1", "KEYS\u{1}k1\u{2}TAGS\u{1}TagA\u{2}", b"hello v2").await;
    assert_eq!(sent.response_code(), ResponseCode::SUCCESS, "{sent:?}");
    assert_eq!((field(&sent, "queueId"), field(&sent, "queueOffset")), ("1".into(), "0".into()));
    assert_eq!((field(&sent, "MSG_REGION"), field(&sent, "TRACE_ON")), ("DefaultRegion".into(), "true".into()));
    assert_eq!((field(&sent, "msgId").len(), field(&sent, "transactionId").len()), (32, 32));
    assert_eq!(pull_bodies(&house, "TopicA", "1", "0", 1).await, [b"hello v2"]);

    let reply = house.pull_with("TopicA", "1", "0", &[]).await;
    assert_eq!(remark(&reply), "FOUND");
    for (name, value) in [
        ("suggestWhichBrokerId", "0"),
        ("nextBeginOffset", "1"),
        ("minOffset", "0"),
        ("maxOffset", "1"),
        ("topicSysFlag", "0"),
        ("groupSysFlag", "0"),
    ] {
        assert_eq!(field(&reply, name), value, "{name}");
    }
    let record = Record::parse(&reply.body).unwrap();
    record.check_crc().unwrap();
    let stored = record.properties();
    for (name, value) in [
        ("KEYS", "k1"),
        ("TAGS", "TagA"),
        ("MSG_REGION", "DefaultRegion"),
        ("TRACE_ON", "true"),
        ("CLUSTER", "DefaultCluster"),
    ] {
        assert_eq!(ferromq_protocol::message::property(&stored, name), Some(value), "{name}");
    }
    assert_eq!(ferromq_protocol::message::property(&stored, "UNIQ_KEY"), Some(field(&sent, "transactionId").as_str()));

    // The topic that came into being is on disk before its first message was acknowledged.
    let topics = std::fs::read_to_string(root.path().join("config/topics.json")).unwrap();
    assert!(topics.contains("\"TopicA\""));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_becomes_single_messages() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let mut body = Vec::new();
    // The Go client gives them no unique key.
    for (text, properties) in [("one", "UNIQ_KEY\u{1}B1\u{2}"), ("two", "")] {
        BatchItem { flag: 0, body: text.as_bytes(), properties: properties.into() }.encode(&mut body).unwrap();
    }
    let sent = house.send_with("TopicA", "0", "UNIQ_KEY\u{1}BATCH\u{2}", &body, &[("m", "true")]).await;
    assert_eq!(sent.response_code(), ResponseCode::SUCCESS, "{sent:?}");
    assert_eq!((field(&sent, "queueOffset"), field(&sent, "transactionId")), ("0".into(), "BATCH".into()));
    assert_eq!(field(&sent, "msgId").split(',').count(), 2);
    assert_eq!(pull_bodies(&house, "TopicA", "0", "0", 2).await, [b"one", b"two"]);
    let stored = house.pull_with("TopicA", "0", "0", &[]).await.body;
    let unique_keys =
        Records::new(&stored).map(|record| record.unwrap().property("UNIQ_KEY").map(|key| key.into_owned()));
    assert_eq!(unique_keys.collect::<Vec<_>>(), [Some("B1".to_owned()), None]);
    assert_eq!(field(&house.send("TopicA", "0", "", b"three").await, "queueOffset"), "2");

    let garbage = house.send_with("TopicA", "0", "", b"garbage", &[("m", "true")]).await;
    assert_eq!(garbage.response_code(), ResponseCode::SYSTEM_ERROR);
    let retry = house.send_with("%RETRY%CG", "0", "", &body, &[("m", "true")]).await;
    assert_eq!(
        (retry.response_code(), remark(&retry)),
        (ResponseCode::MESSAGE_ILLEGAL, "batch request does not support retry group %RETRY%CG")
    );
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_long_polling_a_held_pull_looks_when_its_time_is_up() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "longPollingEnable=false\nshortPollingTimeMills=700\n").await;
    house.send("TopicA", "0", "", b"first").await;
    pull_bodies(&house, "TopicA", "0", "0", 1).await;
    let since = std::time::Instant::now();
    let hold = [("sysFlag", "6"), ("suspendTimeoutMillis", "60000")];
    let waiting = house.pull_with("TopicA", "0", "1", &hold);
    let (reply, _) = tokio::join!(waiting, house.send("TopicA", "0", "", b"second"));
    assert_eq!((reply.response_code(), bodies(&reply)), (ResponseCode::SUCCESS, vec![b"second".to_vec()]));
    assert!(since.elapsed() >= Duration::from_millis(700), "after {:?}", since.elapsed());
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_pull_is_woken_by_its_message() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    house.send("TopicA", "0", "", b"first").await;
    pull_bodies(&house, "TopicA", "0", "0", 1).await;
    let hold = [("sysFlag", "6"), ("suspendTimeoutMillis", "60000"), ("subscription", "TagB")];
    let waiting = house.pull_with("TopicA", "0", "1", &hold);
    let sending = async {
        house.send("TopicA", "0", "TAGS\u{1}TagA\u{2}", b"not wanted").await;
        house.send("TopicA", "0", "TAGS\u{1}TagB\u{2}", b"wanted").await;
    };
    let (reply, ()) = tokio::join!(waiting, sending);
    assert_eq!((reply.response_code(), bodies(&reply)), (ResponseCode::SUCCESS, vec![b"wanted".to_vec()]));
    assert_eq!(field(&reply, "nextBeginOffset"), "3");

    // One whose time is up is answered with what it found then.
    let reply = house.pull_with("TopicA", "0", "3", &[("sysFlag", "6"), ("suspendTimeoutMillis", "1")]).await;
    assert_eq!((reply.response_code(), remark(&reply)), (ResponseCode::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE"));
    // A queue of a known topic that was never used is waited for as well.
    let never_used = house.pull_with("TopicA", "3", "0", &hold[..2]);
    let (reply, _) = tokio::join!(never_used, house.send("TopicA", "3", "", b"at last"));
    assert_eq!(bodies(&reply), [b"at last"]);
    house.stop().await;
}

/// Subscribes the house's own connection, as a member of CG, to these tags of TopicA.
async fn subscribe(house: &House, tags: &str, version: u32) {
    let heartbeat = heartbeat("c", "CG", "TopicA", tags, version);
    assert_eq!(house.ask(RequestCode::HEART_BEAT, &[], heartbeat.as_bytes()).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_changed_while_a_pull_is_held_counts_for_it() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    house.send("TopicA", "0", "", b"first").await;
    house.see("TopicA", "0", 1).await;
    subscribe(&house, "TagA", 1).await;
    let hold = [("sysFlag", "2"), ("suspendTimeoutMillis", "60000"), ("subVersion", "1")];
    let waiting = house.pull_with("TopicA", "0", "1", &hold);
    let changing = async {
        // On the same connection, so the pull is held by now.
        subscribe(&house, "TagA||TagB", 2).await;
        house.send("TopicA", "0", "TAGS\u{1}TagB\u{2}", b"wanted by now").await;
    };
    let (reply, ()) = tokio::join!(waiting, changing);
    assert_eq!((reply.response_code(), bodies(&reply)), (ResponseCode::SUCCESS, vec![b"wanted by now".to_vec()]));
    house.stop().await;
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// What changes, by which request, how the pull differs from the usual one, and what it is answered.
type Change<'a> = (&'a str, RequestCode, Pairs<'a>, &'a [u8], Pairs<'a>, i32);

#[tokio::test(flavor = "multi_thread")]
async fn a_held_pull_is_answered_by_what_holds_when_it_wakes() {
    let topic = |perm, queues| {
        vec![
            ("topic", "TopicA"),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", queues),
            ("writeQueueNums", "4"),
            ("perm", perm),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ]
    };
    let (make_topic, put_group) =
        (RequestCode::UPDATE_AND_CREATE_TOPIC, RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP);
    let subscribed = ("sysFlag", "2");
    let own = ("sysFlag", "6");
    let sql = ("expressionType", "SQL92");
    let no_conditions = &b"enablePropertyFilter=false"[..];
    let changes: [Change; 8] = [
        ("topic deleted", RequestCode::DELETE_TOPIC_IN_BROKER, vec![("topic", "TopicA")], b"", vec![own], 17),
        ("topic not readable", make_topic, topic("2", "4"), b"", vec![own], 16),
        ("queue not readable", make_topic, topic("6", "1"), b"", vec![own], 29),
        ("group off", put_group, vec![], br#"{"groupName":"CG","consumeEnable":false}"#, vec![own], 16),
        ("broker not readable", RequestCode::UPDATE_BROKER_CONFIG, vec![], b"brokerPermission=2", vec![own], 16),
        (
            "conditions off",
            RequestCode::UPDATE_BROKER_CONFIG,
            vec![],
            no_conditions,
            vec![own, sql, ("subscription", "a=1")],
            1,
        ),
        (
            "topic forbidden to the group",
            RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN,
            vec![("group", "CG"), ("topic", "TopicA"), ("readable", "false")],
            b"",
            vec![subscribed],
            16,
        ),
        (
            "group gone",
            RequestCode::UNREGISTER_CLIENT,
            vec![("clientID", "c"), ("consumerGroup", "CG")],
            b"",
            vec![subscribed],
            ResponseCode::SUBSCRIPTION_NOT_EXIST.0,
        ),
    ];
    for (what, code, fields, body, pull, expected) in changes {
        let root = tempfile::tempdir().unwrap();
        let house = House::start(root.path(), "enablePropertyFilter=true\n").await;
        house.send("TopicA", "1", "", b"first").await;
        house.see("TopicA", "1", 1).await;
        subscribe(&house, "TagA", 0).await;
        let changes: Vec<_> = [("suspendTimeoutMillis", "60000")].into_iter().chain(pull).collect();
        let (connection, client) = (house.connection.clone(), house.client.clone());
        let waiting = connection.invoke(support::pull_request("TopicA", "1", "1", &changes), PATIENCE);
        let changing = async {
            let changed = house.ask(code, &fields, body).await;
            assert_eq!(changed.code, 0, "{what}: {changed:?}");
            // Wakes everybody.
            house.broker.shutdown().await;
        };
        let (reply, ()) = tokio::join!(waiting, changing);
        let reply = reply.unwrap();
        assert_eq!(reply.code, expected, "{what}: {reply:?}");
        client.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_answers_held_pulls() {
    let root = tempfile::tempdir().unwrap();
    let House { broker, client, connection, .. } = House::start(root.path(), "").await;
    let fields = [
        ("consumerGroup", "CG"),
        ("topic", "BenchmarkTest"),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", "6"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "60000"),
        ("subscription", "*"),
        ("subVersion", "0"),
    ];
    let waiting = connection.invoke(Command::request(RequestCode::PULL_MESSAGE, &fields.to_vec()), PATIENCE);
    let stopping = async {
        // The pull is in the list once a later request on the same connection has been answered.
        let later = Command::request(RequestCode::GET_MAX_OFFSET, &[("topic", "T"), ("queueId", "0")]);
        connection.invoke(later, PATIENCE).await.unwrap();
        broker.shutdown().await;
    };
    let (reply, ()) = tokio::join!(waiting, stopping);
    assert_eq!(reply.unwrap().response_code(), ResponseCode::PULL_NOT_FOUND);
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_topics_and_offsets_survive_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "flushDiskType=SYNC_FLUSH\n").await;
    for body in ["m0", "m1", "m2"] {
        assert_eq!(house.send("TopicA", "0", "", body.as_bytes()).await.response_code(), ResponseCode::SUCCESS);
    }
    let query = [("consumerGroup", "CG"), ("topic", "TopicA"), ("queueId", "0")];
    let commit = [("consumerGroup", "CG"), ("topic", "TopicA"), ("queueId", "0"), ("commitOffset", "2")];
    assert_eq!(
        house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await.response_code(),
        ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST
    );
    pull_bodies(&house, "TopicA", "0", "0", 3).await;
    assert_eq!(
        house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await.response_code(),
        ResponseCode::SUCCESS
    );
    // The pull's own commit, for another queue.
    assert_eq!(house.send("TopicA", "1", "", b"other").await.response_code(), ResponseCode::SUCCESS);
    pull_bodies(&house, "TopicA", "1", "0", 1).await;
    house.pull_with("TopicA", "1", "1", &[("sysFlag", "5"), ("commitOffset", "1")]).await;
    house.stop().await;
    assert!(!root.path().join("abort").exists(), "a clean shutdown removes the abort file");

    let house = House::start(root.path(), "").await;
    assert_eq!(field(&house.ask(RequestCode::QUERY_CONSUMER_OFFSET, &query, b"").await, "offset"), "2");
    let other = [("consumerGroup", "CG"), ("topic", "TopicA"), ("queueId", "1")];
    assert_eq!(field(&house.ask(RequestCode::QUERY_CONSUMER_OFFSET, &other, b"").await, "offset"), "1");
    assert_eq!(pull_bodies(&house, "TopicA", "0", "0", 3).await, [b"m0", b"m1", b"m2"]);
    assert_eq!(field(&house.send("TopicA", "0", "", b"m3").await, "queueOffset"), "3");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_comes_when_its_level_says() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "messageDelayLevel=1s 1h\n").await;
    let sent = house.send("TopicA", "2", "DELAY\u{1}1\u{2}KEYS\u{1}k\u{2}", b"later").await;
    // The queue asked for, and the offset in the queue of the delay level.
    assert_eq!((field(&sent, "queueId"), field(&sent, "queueOffset")), ("2".into(), "0".into()));
    house.send("TopicA", "2", "DELAY\u{1}99\u{2}", b"in an hour").await;
    assert_eq!(pull_bodies(&house, "TopicA", "2", "0", 1).await, [b"later"]);
    let record = house.pull_with("TopicA", "2", "0", &[]).await.body;
    let record = Record::parse(&record).unwrap();
    assert_eq!(ferromq_protocol::message::property(&record.properties(), "KEYS"), Some("k"));
    house.stop().await;
}

/// Requests and replies as captured from a 5.3.3 broker.
#[tokio::test(flavor = "multi_thread")]
async fn refused_sends_are_refused_as_java_does() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "maxMessageSize=1000\n").await;
    house.send("TopicWire", "0", "", b"x").await;
    let big = vec![b'y'; 1001];
    let faq = "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";
    type Case<'a> = (&'a str, &'a str, Fields<'a>, &'a [u8], i32, String);
    let cases: [Case<'_>; 7] = [
        ("bad topic!", "0", &[], b"x", 29, "The specified topic contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$".into()),
        ("", "0", &[], b"x", 29, "The specified topic is blank.".into()),
        ("SCHEDULE_TOPIC_XXXX", "0", &[], b"x", 16, "Sending message to topic[SCHEDULE_TOPIC_XXXX] is forbidden.".into()),
        ("SELF_TEST_TOPIC", "0", &[], b"x", 16, "Sending message to topic[SELF_TEST_TOPIC] is forbidden.".into()),
        ("TopicNew1", "0", &[("c", "NoDefault")], b"x", 17, format!("topic[TopicNew1] not exist, apply first please!\n{faq}")),
        (
            "TopicWire",
            "4",
            &[],
            b"x",
            29,
            format!(
                "request queueId[4] is illegal, TopicConfig [topicName=TopicWire, readQueueNums=4, writeQueueNums=4, perm=RW-, topicFilterType=SINGLE_TAG, \
                 topicSysFlag=0, order=false, attributes={{}}] Producer: {}",
                house.connection.local_addr()
            ),
        ),
        (
            "TopicWire",
            "0",
            &[],
            &big,
            13,
            "the message is illegal, maybe msg body or properties length not matched. msg body length limit 1000B, msg properties length limit 32KB.".into(),
        ),
    ];
    for (topic, queue, changes, body, code, text) in cases {
        let reply = house.send_with(topic, queue, "", body, changes).await;
        assert_eq!((reply.code, remark(&reply)), (code, text.as_str()));
        assert_eq!((field(&reply, "MSG_REGION"), field(&reply, "TRACE_ON")), ("DefaultRegion".into(), "true".into()));
    }
    // Failures that Java answers out of an exception carry no ext fields.
    for changes in [&[("j", "abc")][..], &[("e", "x")]] {
        let reply = house.send_with("TopicWire", "0", "", b"x", changes).await;
        assert_eq!((reply.code, reply.fields.is_present()), (1, false), "{reply:?}");
    }
    let empty = house.send("TopicWire", "0", "", b"").await;
    assert_eq!((empty.code, empty.fields.is_present()), (1, false));
    // Nothing of all this was stored. A message sent after it all shows when dispatch has come this far.
    house.send("TopicWire", "1", "", b"last").await;
    assert_eq!(pull_bodies(&house, "TopicWire", "1", "0", 1).await, [b"last"]);
    assert_eq!(
        field(
            &house.ask(RequestCode::GET_MAX_OFFSET, &[("topic", "TopicWire"), ("queueId", "0")], b"").await,
            "offset"
        ),
        "1"
    );

    // A retry message past its last try goes to the dead-letter topic; its delay is gone.
    let dead = house.send_with("%RETRY%CG", "0", "DELAY\u{1}5\u{2}", b"dead", &[("j", "17"), ("l", "16")]).await;
    assert_eq!(dead.response_code(), ResponseCode::SUCCESS, "{dead:?}");
    assert_eq!(pull_bodies(&house, "%DLQ%CG", "0", "0", 1).await, [b"dead"]);
    house.stop().await;
}

/// As captured from a 5.3.3 broker.
#[tokio::test(flavor = "multi_thread")]
async fn pull_outcomes_are_javas() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    for tag in ["TagA", "TagB", "TagA", "TagB", "TagA"] {
        house.send("TopicWire2", "1", &format!("TAGS\u{1}{tag}\u{2}"), b"m").await;
    }
    pull_bodies(&house, "TopicWire2", "1", "0", 5).await;
    let faq = "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";
    // queue, offset, changes; code, remark, next, how many messages
    type Answered<'a> = (&'a str, &'a str, Fields<'a>, i32, &'a str, &'a str, usize);
    let answered: [Answered<'_>; 9] = [
        ("1", "0", &[("maxMsgNums", "2")], 0, "FOUND", "2", 2),
        ("1", "0", &[("maxMsgNums", "0")], 0, "FOUND", "1", 1),
        ("1", "0", &[("subscription", "TagB")], 0, "FOUND", "5", 2),
        ("1", "0", &[("subscription", "TagZ")], 20, "NO_MATCHED_MESSAGE", "5", 0),
        ("1", "5", &[], 19, "OFFSET_OVERFLOW_ONE", "5", 0),
        ("1", "6", &[("sysFlag", "6"), ("suspendTimeoutMillis", "60000")], 21, "OFFSET_OVERFLOW_BADLY", "5", 0),
        ("1", "-1", &[], 21, "OFFSET_TOO_SMALL", "0", 0),
        ("0", "0", &[], 19, "NO_MESSAGE_IN_QUEUE", "0", 0),
        ("0", "3", &[], 21, "NO_MESSAGE_IN_QUEUE", "0", 0),
    ];
    for (queue, offset, changes, code, text, next, count) in answered {
        let reply = house.pull_with("TopicWire2", queue, offset, changes).await;
        assert_eq!(
            (reply.code, remark(&reply), field(&reply, "nextBeginOffset").as_str(), bodies(&reply).len()),
            (code, text, next, count),
            "queue {queue} offset {offset} {changes:?}"
        );
    }
    let peer = house.connection.local_addr();
    let refused: [(Fields<'_>, i32, String); 8] = [
        (
            &[("queueId", "4")],
            29,
            format!("queueId[4] is illegal, topic:[TopicWire2] topicConfig.readQueueNums:[4] consumer:[/{peer}]"),
        ),
        (
            &[("queueId", "-1")],
            29,
            format!("queueId[-1] is illegal, topic:[TopicWire2] topicConfig.readQueueNums:[4] consumer:[/{peer}]"),
        ),
        (&[("topic", "NoSuchTopicY")], 17, format!("topic[NoSuchTopicY] not exist, apply first please! \n{faq}")),
        (&[("consumerGroup", "bad group?")], 26, format!("subscription group [bad group?] does not exist, \n{faq}")),
        (&[("sysFlag", "0")], 24, format!("the consumer's group info not exist\n{faq}")),
        (&[("subscription", "||")], 23, "parse the consumer's subscription failed".into()),
        (&[("expressionType", "SQL92")], 1, "The broker does not support consumer to filter message by SQL92".into()),
        (
            &[("topic", "rmq_sys_SYNC_BROKER_MEMBER_broker-a"), ("queueId", "0")],
            16,
            "the topic[rmq_sys_SYNC_BROKER_MEMBER_broker-a] pulling message is forbidden".into(),
        ),
    ];
    for (changes, code, text) in refused {
        let reply = house.pull_with("TopicWire2", "1", "0", changes).await;
        assert_eq!((reply.code, remark(&reply), reply.fields.is_present()), (code, text.as_str(), true), "{changes:?}");
        assert_eq!(reply.field("forbiddenType").as_deref(), (code == 16).then_some("3"));
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offset_requests_are_answered_as_captured() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    for _ in 0..3 {
        house.send("TopicWire2", "1", "", b"m").await;
    }
    pull_bodies(&house, "TopicWire2", "1", "0", 3).await;
    type Case<'a> = (RequestCode, Fields<'a>, i32, Option<(&'a str, &'a str)>, &'a str);
    let not_found = "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first";
    let query = RequestCode::QUERY_CONSUMER_OFFSET;
    let update = RequestCode::UPDATE_CONSUMER_OFFSET;
    let cases: [Case<'_>; 18] = [
        (query, &[("consumerGroup", "OFFG"), ("queueId", "1"), ("topic", "TopicWire2")], 0, Some(("offset", "0")), ""),
        (
            query,
            &[("consumerGroup", "OFFG"), ("queueId", "1"), ("topic", "TopicWire2"), ("setZeroIfNotFound", "false")],
            22,
            None,
            "Not found, do not set to zero, maybe this group boot first",
        ),
        // Here we do as 4.9.7: the first message of a queue must not be missed by a group that was there before it.
        (query, &[("consumerGroup", "OFFG"), ("queueId", "0"), ("topic", "TopicWire2")], 0, Some(("offset", "0")), ""),
        (query, &[("consumerGroup", "OFFG"), ("queueId", "77"), ("topic", "TopicWire2")], 22, None, not_found),
        (query, &[("consumerGroup", "OFFG"), ("queueId", "0"), ("topic", "NoSuchTopicZ")], 22, None, not_found),
        (
            update,
            &[("consumerGroup", "OFFG"), ("queueId", "1"), ("topic", "TopicWire2"), ("commitOffset", "3")],
            26,
            None,
            "Group OFFG not exist!",
        ),
        (
            update,
            &[("consumerGroup", "CG"), ("queueId", "1"), ("topic", "TopicWire2"), ("commitOffset", "3")],
            0,
            None,
            "",
        ),
        (query, &[("consumerGroup", "CG"), ("queueId", "1"), ("topic", "TopicWire2")], 0, Some(("offset", "3")), ""),
        (
            update,
            &[("consumerGroup", "CG"), ("queueId", "1"), ("topic", "NoSuchTopicZ"), ("commitOffset", "3")],
            17,
            None,
            "Topic NoSuchTopicZ not exist!",
        ),
        (
            update,
            &[("consumerGroup", "CG"), ("queueId", "99"), ("topic", "TopicWire2"), ("commitOffset", "3")],
            0,
            None,
            "",
        ),
        (
            update,
            &[("consumerGroup", "CG"), ("queueId", "1"), ("topic", "TopicWire2"), ("commitOffset", "-5")],
            0,
            None,
            "",
        ),
        (query, &[("consumerGroup", "CG"), ("queueId", "1"), ("topic", "TopicWire2")], 0, Some(("offset", "0")), ""),
        (
            update,
            &[("consumerGroup", "CG"), ("queueId", "1"), ("topic", "TopicWire2")],
            29,
            None,
            "Offset is null, topic is TopicWire2",
        ),
        (RequestCode::GET_MAX_OFFSET, &[("queueId", "1"), ("topic", "TopicWire2")], 0, Some(("offset", "3")), ""),
        (RequestCode::GET_MIN_OFFSET, &[("queueId", "55"), ("topic", "TopicWire2")], 0, Some(("offset", "0")), ""),
        (
            RequestCode::GET_EARLIEST_MSG_STORETIME,
            &[("queueId", "0"), ("topic", "TopicWire2")],
            0,
            Some(("timestamp", "-1")),
            "",
        ),
        (
            RequestCode::SEARCH_OFFSET_BY_TIMESTAMP,
            &[("queueId", "1"), ("topic", "TopicWire2"), ("timestamp", "9795220594341")],
            0,
            Some(("offset", "3")),
            "",
        ),
        (
            RequestCode::SEARCH_OFFSET_BY_TIMESTAMP,
            &[("queueId", "1"), ("topic", "TopicWire2"), ("timestamp", "9795220594341"), ("boundaryType", "UPPER")],
            0,
            Some(("offset", "2")),
            "",
        ),
    ];
    for (code, fields, expected, value, text) in cases {
        let reply = house.ask(code, fields, b"").await;
        assert_eq!((reply.code, remark(&reply)), (expected, text), "{code:?} {fields:?}");
        assert!(reply.fields.is_present());
        if let Some((name, value)) = value {
            assert_eq!(field(&reply, name), value, "{code:?} {fields:?}");
        }
    }
    let unknown = house.ask(RequestCode(9999), &[], b"").await;
    assert_eq!(
        (unknown.code, remark(&unknown), unknown.fields.is_present()),
        (3, " request type 9999 not supported", false)
    );
    let unreadable = house.ask(RequestCode::GET_MAX_OFFSET, &[("queueId", "abc"), ("topic", "TopicWire2")], b"").await;
    assert_eq!((unreadable.code, unreadable.fields.is_present()), (1, false));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_may_have_an_ipv6_address() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    for more in ["brokerIP1=::1\n", "brokerIP1=[::1]\nbindAddress=[::1]\n"] {
        let root = tempfile::tempdir().unwrap();
        let mut broker = start(root.path(), more).await.unwrap();
        let address = format!("[::1]:{}", broker.local_addr().port());
        let boot_line = broker.boot_line().await;
        assert!(boot_line.contains(&format!("The broker[broker-a, {address}] boot success")), "{boot_line}");
        let client = Client::new(ClientConfig::default(), None);
        let connection = client.connect(&address).await.unwrap();
        let house = House { broker, address, connection, client };
        let sent = house.send("TopicA", "0", "", b"over IPv6").await;
        let id: OffsetMessageId = field(&sent, "msgId").parse().unwrap();
        assert_eq!(id.host.to_string(), house.address);
        assert_eq!(pull_bodies(&house, "TopicA", "0", "0", 1).await, [b"over IPv6"]);
        let offset = id.physical_offset.0.to_string();
        let viewed = house.ask(RequestCode::VIEW_MESSAGE_BY_ID, &[("offset", &offset)], b"").await;
        let record = Record::parse(&viewed.body).unwrap();
        assert_eq!(record.store_host().to_string(), house.address);
        assert_eq!(record.born_host(), house.connection.local_addr());
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_a_start_impossible_is_said() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let locked = start(root.path(), "").await.err().expect("the directory is locked");
    assert!(matches!(locked, StartError::Store(OpenError::Locked { .. })), "{locked}");
    assert!(locked.to_string().contains("storePathRootDir"), "{locked}");

    let elsewhere = tempfile::tempdir().unwrap();
    let taken = format!("listenPort={}\n", house.broker.local_addr().port());
    let busy = start(elsewhere.path(), &taken).await.err().expect("the port is in use");
    assert!(matches!(busy, StartError::Port { .. }), "{busy}");
    assert!(busy.to_string().contains("listenPort"), "{busy}");
    house.stop().await;
}
