//! What clients name and must not be believed: places in the log, topics of the system, names that cannot be a topic's, numbers that
//! are none. Through a real broker, over real connections, every way in.

mod support;

use ferromq_protocol::message::{NewMessage, OffsetMessageId, Record, SysFlag, stamp_record};
use ferromq_protocol::{
    Command, GroupName, PhysicalOffset, QueueId, QueueOffset, RequestCode, ResponseCode, TopicName,
};
use support::{House, field, heartbeat, remark};

const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
const GIVEN_UP: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
const CLOSED: [&str; 7] = [
    "SCHEDULE_TOPIC_XXXX",
    "rmq_sys_wheel_timer",
    HALF_TOPIC,
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    GIVEN_UP,
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
];
/// Levels of one second, so that what waits comes soon.
const QUICK: &str = "messageDelayLevel=1s 1s 1s\nautoCreateSubscriptionGroup=true\n";

fn id(reply: &Command) -> OffsetMessageId {
    field(reply, "msgId").parse().unwrap()
}

fn text(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}\u{1}{value}\u{2}")).collect()
}

fn now_ms() -> String {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis().to_string()
}

async fn max_offset(house: &House, topic: &str, queue: &str) -> u64 {
    let asked = house.ask(RequestCode::GET_MAX_OFFSET, &[("topic", topic), ("queueId", queue)], b"").await;
    field(&asked, "offset").parse().unwrap()
}

async fn log_end(house: &House) -> String {
    let info = support::text(&house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], b"").await);
    let (_, rest) = info.split_once(r#""commitLogMaxOffset":""#).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

async fn half(house: &House, more: &[(&str, &str)], body: &[u8]) -> Command {
    let own = [("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", "KEY")];
    let properties = text(&[more, &own].concat());
    let reply = house.send_with("TopicA", "1", &properties, body, &[("f", "4"), ("g", &now_ms())]).await;
    assert_eq!(reply.code, 0, "{reply:?}");
    reply
}

async fn end(house: &House, queue_offset: &str, at: &str, how: &str) -> Command {
    let fields = [
        ("producerGroup", "PG"),
        ("tranStateTableOffset", queue_offset),
        ("commitLogOffset", at),
        ("commitOrRollback", how),
        ("fromTransactionCheck", "false"),
        ("msgId", "KEY"),
    ];
    house.ask(RequestCode::END_TRANSACTION, &fields, b"").await
}

async fn give_back(house: &House, group: &str, at: &str, level: &str) -> Command {
    let fields = [("offset", at), ("group", group), ("delayLevel", level), ("originTopic", "TopicA")];
    house.ask(RequestCode::CONSUMER_SEND_MSG_BACK, &fields, b"").await
}

/// Puts a message into TopicA whose body looks like a record at the very place where it will lie in the log, and gives that place.
async fn forge(house: &House, topic: &str, queue_offset: u64, properties: &str) -> OffsetMessageId {
    let record = |at: u64| {
        let host = ([127, 0, 0, 1], 1).into();
        let message = NewMessage {
            topic,
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"forged",
            properties,
        };
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        stamp_record(&mut bytes, QueueOffset(queue_offset), PhysicalOffset(at), 1);
        bytes
    };
    let filler = vec![b'x'; record(0).len()];
    let one = id(&house.send("TopicA", "0", "", &filler).await);
    let two = id(&house.send("TopicA", "0", "", &filler).await);
    let record_len = two.physical_offset.0 - one.physical_offset.0;
    // The body of a record with IPv4 hosts begins 88 bytes into it.
    let at = PhysicalOffset(two.physical_offset.0 + record_len + 88);
    let sent = id(&house.send("TopicA", "0", "", &record(at.0)).await);
    assert_eq!(sent.physical_offset.0 + 88, at.0);
    let seen = house.ask(RequestCode::VIEW_MESSAGE_BY_ID, &[("offset", &at.0.to_string())], b"").await;
    assert_eq!(Record::parse(&seen.body).unwrap().body(), b"forged", "the forged record can be read");
    OffsetMessageId { physical_offset: at, ..sent }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_a_record_inside_a_message_is_none() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), QUICK).await;
    let open = field(&half(&house, &[], b"real").await, "queueOffset");
    let queue_offset: u64 = open.parse().unwrap();
    for topic in [HALF_TOPIC, GIVEN_UP, "TopicA", "SCHEDULE_TOPIC_XXXX"] {
        for (real_topic, real_queue) in
            [("TopicA", "4294967295"), ("TopicA", "0"), ("SELF_TEST_TOPIC", "0"), ("a/b", "0")]
        {
            let half = [("PGROUP", "PG"), ("TRAN_MSG", "true"), ("UNIQ_KEY", "KEY")];
            let properties = text(&[&half[..], &[("REAL_TOPIC", real_topic), ("REAL_QID", real_queue)]].concat());
            // The queue offset of a half that is open, of one that never was, and of a message that is there.
            for named in [queue_offset, 7, 0] {
                let what = format!("{topic} at {named} for {real_topic} {real_queue}");
                let forged = forge(&house, topic, named, &properties).await;
                let at = forged.physical_offset.0.to_string();
                // The group and its topic are there before the log is looked at.
                give_back(&house, "CG", "0", "1").await;
                let before = log_end(&house).await;
                for how in ["8", "12"] {
                    let ended = end(&house, &named.to_string(), &at, how).await;
                    assert_eq!((ended.code, remark(&ended)), (1, "Find prepared transaction message failed"), "{what}");
                }
                let resume = [("msgId", &*forged.to_string()), ("topic", topic)];
                assert_eq!(house.ask(RequestCode::RESUME_CHECK_HALF_MESSAGE, &resume, b"").await.code, 1, "{what}");
                for level in ["1", "0", "-1"] {
                    assert_eq!(give_back(&house, "CG", &at, level).await.code, 1, "{what}");
                }
                assert_eq!(log_end(&house).await, before, "{what}");
            }
        }
    }
    house.stop().await;
    // Halves from before a restart are known as well, and nothing else is.
    let house = House::start(root.path(), QUICK).await;
    let half_at = house.pull_with(HALF_TOPIC, "0", &open, &[]).await;
    let at = Record::parse(&half_at.body).unwrap().physical_offset().0.to_string();
    let before = max_offset(&house, "TopicA", "1").await;
    let forged = forge(
        &house,
        HALF_TOPIC,
        queue_offset,
        &text(&[("PGROUP", "PG"), ("REAL_TOPIC", "TopicA"), ("REAL_QID", "1")]),
    )
    .await;
    assert_eq!(end(&house, &open, &forged.physical_offset.0.to_string(), "8").await.code, 1);
    assert_eq!(end(&house, &open, &at, "8").await.code, 0);
    let committed = house.pull("TopicA", "1", &before.to_string()).await;
    assert_eq!(Record::parse(&committed.body).unwrap().body(), b"real");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_broker_says_where_transactions_are_read_from() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), QUICK).await;
    let open = half(&house, &[], b"open").await;
    half(&house, &[], b"behind it").await;
    house.see(HALF_TOPIC, "0", 2).await;
    let own = ("consumerGroup", "CID_RMQ_SYS_TRANS");
    for topic in [HALF_TOPIC, "RMQ_SYS_TRANS_OP_HALF_TOPIC"] {
        let commit = [own, ("topic", topic), ("queueId", "0"), ("commitOffset", "1")];
        assert_eq!(house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await.code, 16);
        house.pull_with(topic, "0", "0", &[own, ("sysFlag", "5"), ("commitOffset", "1")]).await;
        let commit = [("consumerGroup", "CG"), ("topic", topic), ("queueId", "0"), ("commitOffset", "1")];
        assert_eq!(house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await.code, 0);
        let clone = [("srcGroup", "CG"), ("destGroup", own.1), ("topic", topic)];
        assert_eq!(house.ask(RequestCode::CLONE_GROUP_OFFSET, &clone, b"").await.code, 16);
        let reset = [("group", own.1), ("topic", topic), ("timestamp", "-1"), ("queueId", "0"), ("offset", "1")];
        assert_eq!(house.ask(RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &reset, b"").await.code, 16);
    }
    house.stop().await;
    let house = House::start(root.path(), QUICK).await;
    let at = id(&open).physical_offset.0.to_string();
    assert_eq!(end(&house, &field(&open, "queueOffset"), &at, "8").await.code, 0);
    assert_eq!(Record::parse(&house.pull("TopicA", "1", "0").await.body).unwrap().body(), b"open");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_property_leads_to_a_topic_of_the_system() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), &format!("{QUICK}storeReplyMessageEnable=true\n")).await;
    house.send("TopicA", "1", "", b"first").await;
    let mut expected = 1;
    for system in CLOSED {
        let smuggled =
            [("REAL_TOPIC", system), ("REAL_QID", "0"), ("RETRY_TOPIC", system), ("TRANSACTION_CHECK_TIMES", "9")];
        let with = |more: &[(&str, &str)]| text(&[more, &smuggled].concat());
        let sent = house.send("TopicA", "1", &with(&[]), b"plain").await;
        assert_eq!(sent.code, 0);
        assert_eq!(house.send("TopicA", "1", &with(&[("DELAY", "1")]), b"delayed").await.code, 0);
        assert_eq!(house.send("TopicA", "1", &with(&[("TIMER_DELAY_MS", "50")]), b"timed").await.code, 0);
        for late in [&[][..], &[("DELAY", "1")], &[("TIMER_DELAY_MS", "50")]] {
            let half = half(&house, &[late, &smuggled].concat(), b"half").await;
            let at = id(&half).physical_offset.0.to_string();
            assert_eq!(end(&house, &field(&half, "queueOffset"), &at, "8").await.code, 0);
        }
        expected += 6;
        assert_eq!(give_back(&house, "CG", &id(&sent).physical_offset.0.to_string(), "1").await.code, 0);
        let properties = with(&[]);
        let reply = [
            ("a", "PG"),
            ("b", "TopicA"),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "2"),
            ("f", "8"),
            ("g", "1"),
            ("h", "0"),
            ("i", &properties),
        ];
        house.ask(RequestCode::SEND_REPLY_MESSAGE_V2, &reply, b"reply").await;
        // Straight there, and as the origin of what is given back.
        assert_ne!(house.send(system, "0", "", b"direct").await.code, 0);
        let recall = [("topic", system), ("recallHandle", "x")];
        assert_ne!(house.ask(RequestCode::RECALL_MESSAGE, &recall, b"").await.code, 0);
    }
    for offset in 0..expected {
        assert_eq!(house.pull("TopicA", "1", &offset.to_string()).await.code, 0);
    }
    for offset in 0..CLOSED.len() {
        assert_eq!(house.pull("%RETRY%CG", "0", &offset.to_string()).await.code, 0);
    }
    let ways = u64::try_from(CLOSED.len()).unwrap();
    // What the broker itself put there, to wait, and no more of it.
    for (topic, queue, count) in [
        (HALF_TOPIC, "0", 3 * ways),
        ("RMQ_SYS_TRANS_OP_HALF_TOPIC", "0", 3 * ways),
        ("rmq_sys_wheel_timer", "0", 2 * ways),
        ("SCHEDULE_TOPIC_XXXX", "0", 3 * ways),
        (GIVEN_UP, "0", 0),
        ("SELF_TEST_TOPIC", "0", 0),
        ("OFFSET_MOVED_EVENT", "0", 0),
    ] {
        assert_eq!(max_offset(&house, topic, queue).await, count, "{topic}");
    }
    house.stop().await;
}

/// Names as hostile as they come: every length around a limit, every kind of letter at every kind of place.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [1, 119, 120, 121, 122, 123, 126, 127, 128, 247, 248, 249, 250, 255, 256, 300]
        .map(|len| "g".repeat(len))
        .into();
    for letter in ['/', '\0', '.', '@', ' ', 'ü', '\n', ':', '\\', '\u{1}', '\u{2}', '"', '%', '|', '\u{fffd}'] {
        names.extend([format!("{letter}a"), format!("a{letter}b"), format!("a{letter}"), format!("{letter}")]);
    }
    names.extend(["..", ".", "../x", "a/../../b", "%RETRY%g", "%DLQ%g", "%RETRY%a/b"].map(str::to_owned));
    names
}

/// A message of every level, behind whatever else waits there, and the queue of TopicA that shows it.
async fn levels_are_served(house: &House, after: &str) {
    for level in ["1", "2", "3"] {
        let from = max_offset(house, "TopicA", "3").await;
        assert_eq!(house.send("TopicA", "3", &text(&[("DELAY", level)]), after.as_bytes()).await.code, 0);
        let came = house.pull("TopicA", "3", &from.to_string()).await;
        assert_eq!(Record::parse(&came.body).unwrap().body(), after.as_bytes(), "level {level} after {after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_of_a_group_holds_up_others() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), QUICK).await;
    let sent = id(&house.send("TopicA", "0", "", b"x").await).physical_offset.0.to_string();
    for name in names() {
        let valid = GroupName::from(&*name).validate().is_ok();
        let one = serde_json::json!({ "groupName": name }).to_string();
        let made = house.ask(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], one.as_bytes()).await;
        assert_eq!(made.code == 0, valid, "{name:?}: {made:?}");
        let list = serde_json::json!({ "groupConfigList": [{ "groupName": name }] }).to_string();
        let made = house.ask(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST, &[], list.as_bytes()).await;
        assert_eq!(made.code == 0, valid, "{name:?}: {made:?}");
        let forbid = [("group", &*name), ("topic", "TopicA"), ("readable", "false")];
        let forbidden = house.ask(RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN, &forbid, b"").await;
        assert_eq!(forbidden.code == 0, valid, "{name:?}: {forbidden:?}");
        let clone = [("srcGroup", "CG"), ("destGroup", &*name), ("topic", "TopicA"), ("offline", "false")];
        let cloned = house.ask(RequestCode::CLONE_GROUP_OFFSET, &clone, b"").await;
        assert_eq!(cloned.code == 0, valid, "{name:?}: {cloned:?}");
        // The rest may make a group by using it, and answers whatever it likes.
        house.ask(RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", &name)], b"").await;
        house.ask(RequestCode::HEART_BEAT, &[], heartbeat("c", &name, &name, "*", 1).as_bytes()).await;
        house.pull_with("TopicA", "0", "0", &[("consumerGroup", &name), ("sysFlag", "5"), ("commitOffset", "1")]).await;
        for offsets in [RequestCode::UPDATE_CONSUMER_OFFSET, RequestCode::QUERY_CONSUMER_OFFSET] {
            let fields = [("consumerGroup", &*name), ("topic", "TopicA"), ("queueId", "0"), ("commitOffset", "1")];
            house.ask(offsets, &fields, b"").await;
        }
        let retry = format!("%RETRY%{name}");
        house.send_with(&retry, "0", &text(&[("DELAY", "2")]), b"x", &[("j", "1"), ("l", "0")]).await;
        house.send(&retry, "0", &text(&[("DELAY", "2")]), b"x").await;
        for level in ["1", "-1"] {
            let back = give_back(&house, &name, &sent, level).await;
            assert!(!valid || back.code == 0, "{name:?}: {back:?}");
        }
        house.ask(RequestCode::HEART_BEAT, &[], heartbeat("c", "CG", "CG", "*", 1).as_bytes()).await;
    }
    levels_are_served(&house, "all of them").await;
    // What could be given back comes again.
    for name in names().into_iter().filter(|name| GroupName::from(&**name).validate().is_ok()) {
        assert_eq!(house.pull(&format!("%RETRY%{name}"), "0", "0").await.code, 0, "{name:?}");
    }
    house.stop().await;
    let house = House::start(root.path(), QUICK).await;
    levels_are_served(&house, "a restart").await;
    house.stop().await;
}

/// Files of Java's may hold groups with any name.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_javas_whose_name_is_no_topics_gets_nothing_back() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("config")).unwrap();
    let names = names();
    let groups: serde_json::Map<_, _> =
        names.iter().map(|name| (name.clone(), serde_json::json!({ "groupName": name }))).collect();
    let table = serde_json::json!({ "dataVersion": {}, "subscriptionGroupTable": groups });
    std::fs::write(root.path().join("config/subscriptionGroup.json"), table.to_string()).unwrap();
    let house = House::start(root.path(), QUICK).await;
    let sent = id(&house.send("TopicA", "0", "", b"x").await).physical_offset.0.to_string();
    for name in &names {
        let valid = name.trim().is_empty() || GroupName::from(&**name).validate().is_ok();
        for level in ["1", "-1"] {
            let back = give_back(&house, name, &sent, level).await;
            assert_eq!(back.code == 0, valid, "{name:?}: {back:?}");
        }
        house.ask(RequestCode::HEART_BEAT, &[], heartbeat("c", name, name, "*", 1).as_bytes()).await;
        let retry = format!("%RETRY%{name}");
        house.send_with(&retry, "0", &text(&[("DELAY", "2")]), b"x", &[("j", "9"), ("l", "0")]).await;
    }
    levels_are_served(&house, "all of them").await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_of_a_topic_holds_up_others() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), QUICK).await;
    house.send("TopicA", "0", "", b"x").await;
    for name in names() {
        let valid = TopicName::from(&*name).validate().is_ok();
        let make = [
            ("topic", &*name),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", "4"),
            ("writeQueueNums", "4"),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
        ];
        let made = house.ask(RequestCode::UPDATE_AND_CREATE_TOPIC, &make, b"").await;
        assert_eq!(made.code == 0, valid, "{name:?}: {made:?}");
        let list = serde_json::json!({ "topicConfigList": [{ "topicName": name }] }).to_string();
        let made = house.ask(RequestCode::UPDATE_AND_CREATE_TOPIC_LIST, &[], list.as_bytes()).await;
        assert_eq!(made.code == 0, valid, "{name:?}: {made:?}");
        for properties in [text(&[]), text(&[("DELAY", "1")]), text(&[("TIMER_DELAY_MS", "1")])] {
            let sent = house.send(&name, "0", &properties, b"x").await;
            assert!(valid == (sent.code == 0), "{name:?}: {sent:?}");
        }
        house.pull_with(&name, "0", "0", &[]).await;
        let commit = [("consumerGroup", "CG"), ("topic", &*name), ("queueId", "0"), ("commitOffset", "1")];
        let committed = house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await;
        assert!(valid || committed.code != 0, "{name:?}: {committed:?}");
        if !valid {
            house.ask(RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", &name)], b"").await;
        }
    }
    levels_are_served(&house, "all of them").await;
    house.stop().await;
    let house = House::start(root.path(), QUICK).await;
    levels_are_served(&house, "a restart").await;
    house.stop().await;
}

/// Texts that are no number, or none of the range; what Java's `parseInt` and `parseLong` throw at.
const NO_NUMBERS: [&str; 9] = ["4Pinpoint-Flags", "abc", "4.0", "99999999999999999999", "", " 4", "4 ", "0x4", "--4"];

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_cannot_be_read_is_neither_zero_nor_absent() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), QUICK).await;
    house.send("TopicA", "1", "", b"x").await;
    let before = log_end(&house).await;
    let number_format = |text: &str| format!("java.lang.NumberFormatException: For input string: \"{text}\"");
    for bad in NO_NUMBERS.into_iter().chain(["99999999999", "2147483648"]) {
        // A property without a value is none.
        if !bad.is_empty() {
            let refused = house.send("TopicA", "1", &text(&[("DELAY", bad)]), b"x").await;
            assert_eq!((refused.code, remark(&refused).to_owned()), (1, number_format(bad)));
            let refused = house.send("TopicA", "1", &text(&[("DELAY", bad), ("TRAN_MSG", "true")]), b"x").await;
            assert_eq!(refused.code, 1, "{bad:?}");
        }
        for name in ["d", "e", "f", "h", "j", "l"] {
            let refused = house.send_with("TopicA", "1", "", b"x", &[(name, bad)]).await;
            assert_eq!((refused.code, remark(&refused).to_owned()), (1, number_format(bad)), "{name}");
        }
        for name in ["queueId", "maxMsgNums", "sysFlag", "maxMsgBytes", "requestSource"] {
            let refused = house.pull_with("TopicA", "1", "0", &[(name, bad)]).await;
            assert_eq!((refused.code, remark(&refused).to_owned()), (1, number_format(bad)), "{name}");
        }
    }
    for bad in NO_NUMBERS {
        for name in ["TIMER_DELIVER_MS", "TIMER_DELAY_SEC", "TIMER_DELAY_MS"].into_iter().filter(|_| !bad.is_empty()) {
            let refused = house.send("TopicA", "1", &text(&[(name, bad)]), b"x").await;
            assert_eq!(refused.response_code(), ResponseCode::MESSAGE_ILLEGAL, "{name}={bad:?}");
        }
        let refused = house.send_with("TopicA", "1", "", b"x", &[("g", bad)]).await;
        assert_eq!((refused.code, remark(&refused).to_owned()), (1, number_format(bad)));
        for name in ["queueOffset", "commitOffset", "suspendTimeoutMillis", "subVersion"] {
            let refused = house.pull_with("TopicA", "1", "0", &[(name, bad)]).await;
            assert_eq!((refused.code, remark(&refused).to_owned()), (1, number_format(bad)), "{name}");
        }
        if !bad.is_empty() {
            let item = batch_of_one(&text(&[("DELAY", bad)]));
            assert_eq!(house.send_with("TopicA", "1", "", &item, &[("m", "true")]).await.code, 1, "{bad:?} in a batch");
        }
    }
    assert_eq!(log_end(&house).await, before);
    // What Java reads is read.
    for good in ["1", "+1", "01", "0", "-1"] {
        assert_eq!(house.send("TopicA", "1", &text(&[("DELAY", good)]), b"x").await.code, 0, "{good}");
    }
    house.stop().await;
}

/// A batch body: length, magic, CRC, flag, body, properties.
fn batch_of_one(properties: &str) -> Vec<u8> {
    let mut item = vec![0; 16];
    item.extend(1_i32.to_be_bytes());
    item.push(b'x');
    item.extend(i16::try_from(properties.len()).unwrap().to_be_bytes());
    item.extend(properties.as_bytes());
    let len = i32::try_from(item.len()).unwrap();
    item[..4].copy_from_slice(&len.to_be_bytes());
    item
}
