//! What clients and tools see of messages that are deleted because they are old, and how an operator has them go.

mod support;

use ferromq_protocol::body::{ConsumeQueueReply, ConsumeTimeSpanReply, KvTable, TopicStats};
use ferromq_protocol::message::Record;
use ferromq_protocol::{Command, RequestCode};
use support::{House, json, remark};

const QUEUE: [(&str, &str); 2] = [("topic", "TopicA"), ("queueId", "1")];

/// Segments of 64 KiB, looked at all the time. The hour in which old ones go is half a day away.
async fn house(more: &str) -> (tempfile::TempDir, House) {
    let root = tempfile::tempdir().unwrap();
    let now = jiff::Zoned::now().hour();
    let more = format!(
        "mappedFileSizeCommitLog=65536\ncleanResourceInterval=10\ndeleteCommitLogFilesInterval=0\ndeleteFileBatchMax=1000\n\
         deleteWhen={}\n{more}",
        (now + 12) % 24
    );
    let house = House::start(root.path(), &more).await;
    (root, house)
}

/// Messages of 5000 bytes, twelve to a segment. Gives the answer to the first.
async fn send_many(house: &House, count: u32) -> Command {
    let mut first = None;
    for n in 0..count {
        let sent = house.send("TopicA", "1", &format!("KEYS\u{1}k{n}\u{2}"), &[7; 5000]).await;
        assert_eq!(sent.code, 0, "{}", remark(&sent));
        first.get_or_insert(sent);
    }
    house.ask_until(RequestCode::GET_MAX_OFFSET, &QUEUE, |reply| offset(reply) == u64::from(count)).await;
    first.unwrap()
}

fn offset(reply: &Command) -> u64 {
    reply.field("offset").unwrap().parse().unwrap()
}

async fn change(house: &House, line: &str) -> Command {
    house.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], line.as_bytes()).await
}

async fn min_offset(house: &House) -> u64 {
    offset(&house.ask(RequestCode::GET_MIN_OFFSET, &QUEUE, b"").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_and_tools_see_of_old_messages_that_went() {
    let (_root, house) = house("").await;
    let first = send_many(&house, 100).await;
    let id = first.field("msgId").unwrap().to_string();
    let place = u64::from_str_radix(&id[16..], 16).unwrap().to_string();
    assert_eq!(min_offset(&house).await, 0);
    let earliest = |reply: &Command| reply.field("timestamp").unwrap().parse::<i64>().unwrap();
    let before = earliest(&house.ask(RequestCode::GET_EARLIEST_MSG_STORETIME, &QUEUE, b"").await);
    assert_eq!(house.ask(RequestCode::VIEW_MESSAGE_BY_ID, &[("offset", &place)], b"").await.code, 0);

    // At once.
    assert_eq!(change(&house, "fileReservedBytes=200000\n").await.code, 0);
    let moved = house.ask_until(RequestCode::GET_MIN_OFFSET, &QUEUE, |reply| offset(reply) > 60).await;
    let min = offset(&moved);
    assert!(min < 100, "the last segment stays");
    let after = earliest(&house.ask(RequestCode::GET_EARLIEST_MSG_STORETIME, &QUEUE, b"").await);
    assert!(after >= before);

    // A pull before the beginning goes on there, and at the beginning is the first message.
    let moved = house.pull("TopicA", "1", "3").await;
    assert_eq!((moved.code, &*moved.field("nextBeginOffset").unwrap()), (21, &*min.to_string()));
    assert_eq!(&*moved.field("minOffset").unwrap(), &*min.to_string());
    let found = house.pull("TopicA", "1", &min.to_string()).await;
    assert_eq!((found.code, Record::parse(&found.body).unwrap().queue_offset().0), (0, min));

    // What asks for something that went finds nothing.
    let viewed = house.ask(RequestCode::VIEW_MESSAGE_BY_ID, &[("offset", &place)], b"").await;
    assert_eq!((viewed.code, remark(&viewed).contains("can not find message")), (1, true));
    let ask_key = |key: &'static str| {
        let fields = [
            ("topic", "TopicA"),
            ("key", key),
            ("maxNum", "10"),
            ("beginTimestamp", "0"),
            ("endTimestamp", "9223372036854775807"),
        ];
        let house = &house;
        async move { house.ask(RequestCode::QUERY_MESSAGE, &fields, b"").await.code }
    };
    assert_eq!((ask_key("k0").await, ask_key("k99").await), (22, 0));
    let by_time = [("topic", "TopicA"), ("queueId", "1"), ("timestamp", "1000")];
    assert_eq!(offset(&house.ask(RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, &by_time, b"").await), min);

    // A new group does not begin at 0, which is no longer the first.
    let fields = [("consumerGroup", "CG"), ("topic", "TopicA"), ("queueId", "1")];
    assert_eq!(house.ask(RequestCode::QUERY_CONSUMER_OFFSET, &fields, b"").await.code, 22);

    let stats: TopicStats = json(&house.ask(RequestCode::GET_TOPIC_STATS_INFO, &[("topic", "TopicA")], b"").await);
    let of_queue = stats.offset_table.iter().find(|(queue, _)| queue.queue_id == 1).unwrap().1;
    assert_eq!((of_queue.min_offset, of_queue.max_offset), (i64::try_from(min).unwrap(), 100));
    let fields = [("topic", "TopicA"), ("queueId", "1"), ("index", "0"), ("count", "100")];
    let entries: ConsumeQueueReply = json(&house.ask(RequestCode::QUERY_CONSUME_QUEUE, &fields, b"").await);
    assert_eq!((entries.min_queue_index, entries.queue_data.len() as u64), (i64::try_from(min).unwrap(), 100 - min));
    let fields = [("topic", "TopicA"), ("group", "CG")];
    let span: ConsumeTimeSpanReply = json(&house.ask(RequestCode::QUERY_CONSUME_TIME_SPAN, &fields, b"").await);
    let of_queue = span.consume_time_span_set.iter().find(|span| span.message_queue.queue_id == 1).unwrap();
    assert_eq!(of_queue.min_time_stamp, after);
    let info: KvTable = json(&house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], b"").await);
    let log_min: u64 = info.table["commitLogMinOffset"].parse().unwrap();
    assert!(log_min > 0 && log_min.is_multiple_of(65_536), "{log_min}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_messages_go_when_an_operator_says_so() {
    let (_root, house) = house("fileReservedTime=1\n").await;
    send_many(&house, 50).await;
    assert_eq!(house.ask(RequestCode::DELETE_EXPIRED_COMMITLOG, &[], b"").await.code, 0);
    // None is an hour old.
    assert_eq!(min_offset(&house).await, 0);
    assert_eq!(change(&house, "fileReservedTime=0\n").await.code, 0);
    assert_eq!(house.ask(RequestCode::DELETE_EXPIRED_COMMITLOG, &[], b"").await.code, 0);
    house.ask_until(RequestCode::GET_MIN_OFFSET, &QUEUE, |reply| offset(reply) > 20).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hour_and_the_time_act_at_once() {
    let (_root, house) = house("fileReservedTime=0\n").await;
    send_many(&house, 50).await;
    assert_eq!(min_offset(&house).await, 0);
    let refused = change(&house, "deleteWhen=24\n").await;
    assert!(refused.code == 1 && remark(&refused).contains("0 to 23"), "{}", remark(&refused));
    let hours: Vec<_> = (0..24).map(|hour| hour.to_string()).collect();
    assert_eq!(change(&house, &format!("deleteWhen={}\n", hours.join(";"))).await.code, 0);
    house.ask_until(RequestCode::GET_MIN_OFFSET, &QUEUE, |reply| offset(reply) > 20).await;
    house.stop().await;
}
