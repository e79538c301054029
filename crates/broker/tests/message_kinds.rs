//! Transactions, messages for a given time, request and reply: through a real broker, over real connections.

mod support;

use std::sync::{Arc, Mutex};

use ferromq_protocol::body::ConsumerOffsetTable;
use ferromq_protocol::message::{Record, property};
use ferromq_protocol::{Command, NoFields, Reply, RequestCode, ResponseCode, json};
use ferromq_remoting::{Client, ClientConfig, Connection, Outcome, Requests, Service};
use support::{House, PATIENCE, field, remark};
use tokio::sync::mpsc;

const QUICK_CHECKS: &str = "transactionTimeOut=50\ntransactionCheckInterval=50\n";
const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
const GIVEN_UP: &str = "TRANS_CHECK_MAX_TIME_TOPIC";

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// A half message as its producer knows it.
struct Sent {
    queue_offset: String,
    log_offset: String,
}

async fn send_half(house: &House, more: &str, body: &[u8]) -> Sent {
    let properties = format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}UNIQ_KEY\u{1}KEY\u{2}{more}");
    let reply = house.send_with("TopicA", "1", &properties, body, &[("f", "4"), ("g", &now_ms().to_string())]).await;
    assert_eq!((reply.code, field(&reply, "queueId"), field(&reply, "transactionId")), (0, "1".into(), "KEY".into()));
    let log_offset = u64::from_str_radix(&field(&reply, "msgId")[16..], 16).unwrap().to_string();
    Sent { queue_offset: field(&reply, "queueOffset"), log_offset }
}

async fn end(house: &House, sent: &Sent, how: &str) -> Command {
    end_with(house, sent, how, &[]).await
}

async fn end_with(house: &House, sent: &Sent, how: &str, changes: &[(&str, &str)]) -> Command {
    let mut fields = vec![
        ("producerGroup", "PG"),
        ("tranStateTableOffset", &*sent.queue_offset),
        ("commitLogOffset", &*sent.log_offset),
        ("commitOrRollback", how),
        ("fromTransactionCheck", "false"),
        ("msgId", "KEY"),
    ];
    for change in changes {
        fields.retain(|(name, _)| name != &change.0);
        fields.push(*change);
    }
    house.ask(RequestCode::END_TRANSACTION, &fields, b"").await
}

/// Bodies that a queue of TopicA shows now, up to a last message that is sent for the purpose.
async fn bodies(house: &House, queue: &str) -> Vec<String> {
    bodies_of(house, "TopicA", queue).await
}

async fn bodies_of(house: &House, topic: &str, queue: &str) -> Vec<String> {
    house.send(topic, queue, "", b"last").await;
    let mut bodies = Vec::new();
    loop {
        let reply = house.pull(topic, queue, &bodies.len().to_string()).await;
        for record in ferromq_protocol::message::Records::new(&reply.body) {
            bodies.push(String::from_utf8(record.unwrap().body().to_vec()).unwrap());
        }
        if bodies.last().is_some_and(|last| last == "last") {
            bodies.pop();
            return bodies;
        }
    }
}

/// A client that hands over every request that the broker sends it, and answers the rest.
struct Recorder(mpsc::UnboundedSender<Command>);

impl Service for Recorder {
    fn serve(&self, requests: &mut Requests<'_>) {
        requests.each(|_, request| {
            // The test may have ended.
            let _ = self.0.send(request);
            Outcome::Reply(Reply::ok())
        });
    }
}

/// A producer of group PG, and what the broker asks it.
async fn producer(house: &House, client_id: &str) -> (Client, Connection, mpsc::UnboundedReceiver<Command>) {
    let (sender, asked) = mpsc::unbounded_channel();
    let client = Client::new(ClientConfig::default(), Some(Arc::new(Recorder(sender))));
    let connection = client.connect(&house.address).await.unwrap();
    let body = format!(r#"{{"clientID":"{client_id}","producerDataSet":[{{"groupName":"PG"}}],"consumerDataSet":[]}}"#);
    let heartbeat = Command::request(RequestCode::HEART_BEAT, &NoFields).with_body(body);
    assert_eq!(connection.invoke(heartbeat, PATIENCE).await.unwrap().code, 0);
    (client, connection, asked)
}

async fn next(asked: &mut mpsc::UnboundedReceiver<Command>, code: RequestCode) -> Command {
    let wait = async {
        loop {
            let request = asked.recv().await.expect("the client is there");
            if request.request_code() == code {
                return request;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the broker asks")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_ends_once() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let committed = send_half(&house, "TAGS\u{1}a\u{2}", b"committed").await;
    let rolled_back = send_half(&house, "", b"rolled back").await;
    let open = send_half(&house, "", b"open").await;
    assert_eq!((&*committed.queue_offset, &*rolled_back.queue_offset, &*open.queue_offset), ("0", "1", "2"));
    assert_eq!(bodies(&house, "1").await, [] as [&str; 0]);

    for (sent, how) in [(&committed, "8"), (&rolled_back, "12")] {
        for again in 0..2 {
            assert_eq!(end(&house, sent, how).await.code, 0, "{again}");
        }
    }
    // What was rolled back cannot be committed any more.
    assert_eq!(end(&house, &rolled_back, "8").await.code, 0);
    assert_eq!(bodies(&house, "1").await, ["last", "committed"]);
    let reply = house.pull("TopicA", "1", "1").await;
    let record = Record::parse(&reply.body).unwrap();
    let text = record.properties();
    assert_eq!((record.sys_flag().0, record.prepared_transaction_offset()), (8, committed.log_offset.parse().unwrap()));
    for (name, value) in [
        ("TAGS", Some("a")),
        ("TRAN_MSG", Some("true")),
        ("__transactionId__", Some("KEY")),
        ("REAL_TOPIC", None),
        ("TRANSACTION_CHECK_TIMES", None),
    ] {
        assert_eq!(property(&text, name), value, "{name}");
    }

    for (how, changes, code, text) in [
        ("8", [("producerGroup", "other")], 1, "The producer group wrong"),
        ("8", [("tranStateTableOffset", "7")], 1, "The transaction state table offset wrong"),
        ("8", [("commitLogOffset", "1")], 1, "Find prepared transaction message failed"),
        ("8", [("commitLogOffset", "-1")], 1, "Find prepared transaction message failed"),
        ("9", [("msgId", "x")], 1, "commitOrRollback field wrong: 9 is none of 0, 8 (commit) and 12 (rollback)"),
    ] {
        let reply = end_with(&house, &open, how, &changes).await;
        assert_eq!((reply.code, remark(&reply)), (code, text));
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_asked_after_and_survives_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let ended = send_half(&house, "", b"ended").await;
    assert_eq!(end(&house, &ended, "8").await.code, 0);
    send_half(&house, "", b"open").await;
    house.stop().await;

    let house = House::start(root.path(), QUICK_CHECKS).await;
    let (client, connection, mut asked) = producer(&house, "p1").await;
    let question = next(&mut asked, RequestCode::CHECK_TRANSACTION_STATE).await;
    let half = Record::parse(&question.body).unwrap();
    assert_eq!((half.topic(), half.queue_id().0, half.body()), ("TopicA", 1, &b"open"[..]));
    assert_eq!((field(&question, "msgId"), field(&question, "transactionId")), ("KEY".into(), "KEY".into()));
    assert_eq!(half.queue_offset().as_i64().to_string(), field(&question, "tranStateTableOffset"));
    assert_eq!(half.physical_offset().as_i64().to_string(), field(&question, "commitLogOffset"));
    // It is asked again until somebody answers, each time with a new copy; the first copy is as good to name.
    next(&mut asked, RequestCode::CHECK_TRANSACTION_STATE).await;
    let copy = Sent {
        queue_offset: field(&question, "tranStateTableOffset"),
        log_offset: field(&question, "commitLogOffset"),
    };
    assert_eq!(end_with(&house, &copy, "8", &[("fromTransactionCheck", "true")]).await.code, 0);
    assert_eq!(bodies(&house, "1").await, ["ended", "open"]);
    connection.close();
    client.shutdown().await;
    house.stop().await;

    // All of it has ended: nobody is asked again.
    let house = House::start(root.path(), QUICK_CHECKS).await;
    let (client, _connection, mut asked) = producer(&house, "p2").await;
    let open = send_half(&house, "", b"another").await;
    let question = next(&mut asked, RequestCode::CHECK_TRANSACTION_STATE).await;
    assert_eq!(Record::parse(&question.body).unwrap().body(), b"another");
    assert_eq!(end(&house, &open, "12").await.code, 0);
    client.shutdown().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_transactions_store_and_read_is_counted_as_in_java() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), QUICK_CHECKS).await;
    let counted = async |name: &str, key: &str| {
        let reply =
            house.ask(RequestCode::VIEW_BROKER_STATS_DATA, &[("statsName", name), ("statsKey", key)], b"").await;
        assert!(reply.code == 0 || remark(&reply) == format!("The stats <{name}> <{key}> not exist"), "{reply:?}");
        reply.code == 0
    };
    let op = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
    let read = format!("{HALF_TOPIC}@CID_RMQ_SYS_TRANS");
    let half = send_half(&house, "", b"x").await;
    assert!(counted("TOPIC_PUT_NUMS", HALF_TOPIC).await && !counted("TOPIC_PUT_NUMS", op).await);
    // A question reads the half.
    let (client, _connection, mut asked) = producer(&house, "p1").await;
    next(&mut asked, RequestCode::CHECK_TRANSACTION_STATE).await;
    assert!(counted("GROUP_GET_NUMS", &read).await && counted("GROUP_GET_SIZE", &read).await);
    assert_eq!(end(&house, &half, "8").await.code, 0);
    assert!(counted("TOPIC_PUT_NUMS", op).await && counted("TOPIC_PUT_SIZE", op).await);
    assert!(!counted("SNDBCK_PUT_NUMS", &read).await);
    client.shutdown().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_may_name_a_copy_that_a_restart_has_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), QUICK_CHECKS).await;
    send_half(&house, "", b"late").await;
    let (client, connection, mut asked) = producer(&house, "p1").await;
    let question = next(&mut asked, RequestCode::CHECK_TRANSACTION_STATE).await;
    for _ in 0..2 {
        next(&mut asked, RequestCode::CHECK_TRANSACTION_STATE).await;
    }
    connection.close();
    client.shutdown().await;
    // Nobody is there to be asked any more, so the newest copy stays the newest; a start reads from it on.
    let topic = [("topic", HALF_TOPIC), ("queueId", "0")];
    let end_of_halves: u64 =
        field(&house.ask(RequestCode::GET_MAX_OFFSET, &topic, b"").await, "offset").parse().unwrap();
    let newest = i64::try_from(end_of_halves - 1).unwrap();
    house.stop().await;
    let file = root.path().join("config/consumerOffset.json");
    // There is none if nothing has been noted yet.
    let mut table: ConsumerOffsetTable =
        std::fs::read(&file).map_or_else(|_| ConsumerOffsetTable::default(), |text| json::from_slice(&text).unwrap());
    table.offset_table.entry(format!("{HALF_TOPIC}@CID_RMQ_SYS_TRANS")).or_default().insert(0, newest);
    std::fs::write(&file, json::to_vec_pretty(&table)).unwrap();

    let house = House::start(root.path(), "").await;
    let copy = Sent {
        queue_offset: field(&question, "tranStateTableOffset"),
        log_offset: field(&question, "commitLogOffset"),
    };
    assert!(copy.queue_offset.parse::<u64>().unwrap() < end_of_halves - 1);
    assert_eq!(end_with(&house, &copy, "8", &[("fromTransactionCheck", "true")]).await.code, 0);
    assert_eq!(bodies(&house, "1").await, ["late"]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_without_an_answer_is_put_aside_and_can_be_resumed() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), &format!("{QUICK_CHECKS}transactionCheckMax=2\n")).await;
    send_half(&house, "", b"lost").await;
    let (client, _connection, mut asked) = producer(&house, "p1").await;
    for _ in 0..2 {
        next(&mut asked, RequestCode::CHECK_TRANSACTION_STATE).await;
    }
    let given_up = loop {
        // The topic comes into being with its first message.
        let reply = house.pull(GIVEN_UP, "0", "0").await;
        if reply.response_code() != ResponseCode::TOPIC_NOT_EXIST {
            break reply;
        }
    };
    let record = Record::parse(&given_up.body).unwrap();
    assert_eq!(record.body(), b"lost");
    assert_eq!(property(&record.properties(), "REAL_TOPIC"), Some("TopicA"));

    let id = ferromq_protocol::message::OffsetMessageId {
        host: record.store_host(),
        physical_offset: record.physical_offset(),
    };
    client.shutdown().await;
    house.stop().await;
    // From here on nobody gives up, however long an answer takes.
    let patient = format!("{QUICK_CHECKS}transactionCheckMax=100000\n");
    let house = House::start(root.path(), &patient).await;
    let (client, _connection, mut asked) = producer(&house, "p2").await;
    let resume = house.ask(RequestCode::RESUME_CHECK_HALF_MESSAGE, &[("msgId", &id.to_string())], b"").await;
    assert_eq!(resume.code, 0, "{resume:?}");
    next(&mut asked, RequestCode::CHECK_TRANSACTION_STATE).await;
    client.shutdown().await;
    house.stop().await;
    let house = House::start(root.path(), &patient).await;
    let (client, _connection, mut asked) = producer(&house, "p3").await;
    let question = next(&mut asked, RequestCode::CHECK_TRANSACTION_STATE).await;
    let sent = Sent {
        queue_offset: field(&question, "tranStateTableOffset"),
        log_offset: field(&question, "commitLogOffset"),
    };
    assert_eq!(end(&house, &sent, "8").await.code, 0);
    assert_eq!(bodies(&house, "1").await, ["lost"]);
    let none = house.ask(RequestCode::RESUME_CHECK_HALF_MESSAGE, &[("msgId", "x")], b"").await;
    assert_eq!(none.code, 1);
    client.shutdown().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_decides_too_late_is_still_heard() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), &format!("{QUICK_CHECKS}transactionCheckMax=1\n")).await;
    let late = send_half(&house, "", b"late").await;
    let (client, _connection, mut asked) = producer(&house, "p1").await;
    let question = next(&mut asked, RequestCode::CHECK_TRANSACTION_STATE).await;
    while house.pull_with(GIVEN_UP, "0", "0", &[]).await.code != 0 {
        tokio::task::yield_now().await;
    }
    // Whichever copy it names, and however often, it commits once.
    let copy = Sent {
        queue_offset: field(&question, "tranStateTableOffset"),
        log_offset: field(&question, "commitLogOffset"),
    };
    for sent in [&late, &copy, &late] {
        assert_eq!(end(&house, sent, "8").await.code, 0);
    }
    assert_eq!(bodies(&house, "1").await, ["late"]);
    client.shutdown().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_at_their_limit_hold_up_nobody() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), QUICK_CHECKS).await;
    let (client, _connection, mut asked) = producer(&house, "p1").await;
    let full = |len: usize| format!("x\u{1}{}\u{2}", "y".repeat(len));
    // As long as it is taken at all: what the broker adds comes on top.
    let timer = "TIMER_DELAY_MS\u{1}100\u{2}UNIQ_KEY\u{1}K\u{2}";
    let mut len = 32_700;
    while house.send("TopicA", "2", &format!("{timer}{}", full(len)), b"full").await.code != 0 {
        len -= 1;
    }
    house.send("TopicA", "2", "TIMER_DELAY_MS\u{1}200\u{2}", b"next").await;
    assert_eq!(Record::parse(&house.pull("TopicA", "2", "0").await.body).unwrap().body(), b"full");
    assert_eq!(Record::parse(&house.pull("TopicA", "2", "1").await.body).unwrap().body(), b"next");

    let half = "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}UNIQ_KEY\u{1}KEY\u{2}";
    let mut len = 32_700;
    while house.send_with("TopicA", "1", &format!("{half}{}", full(len)), b"full", &[("f", "4")]).await.code != 0 {
        len -= 1;
    }
    send_half(&house, "", b"behind it").await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        let question = next(&mut asked, RequestCode::CHECK_TRANSACTION_STATE).await;
        seen.insert(Record::parse(&question.body).unwrap().body().to_vec());
    }
    client.shutdown().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_was_a_transaction_is_no_half() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "messageDelayLevel=1s\n").await;
    let retried = [("f", "4"), ("j", "1")];
    let properties = "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}DELAY\u{1}1\u{2}";
    assert_eq!(house.send_with("TopicA", "1", properties, b"again", &retried).await.code, 0);
    assert_eq!(Record::parse(&house.pull("TopicA", "1", "0").await.body).unwrap().body(), b"again");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_keeps_its_delay_until_it_is_committed() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "messageDelayLevel=1s 1h\n").await;
    let delayed = send_half(&house, "DELAY\u{1}1\u{2}", b"delayed").await;
    let timed = send_half(&house, "TIMER_DELAY_MS\u{1}300\u{2}", b"timed").await;
    // The broker's clock, to the millisecond: another one may be some of them behind.
    let began = now_ms();
    for sent in [&delayed, &timed] {
        assert_eq!(end(&house, sent, "8").await.code, 0);
    }
    // The later one may have been committed only when the first was due already.
    let mut seen = std::collections::BTreeSet::new();
    for offset in ["0", "1"] {
        let reply = house.pull("TopicA", "1", offset).await;
        let delivered = Record::parse(&reply.body).unwrap();
        let delay_ms = if delivered.body() == b"timed" { 300 } else { 1000 };
        assert!(delivered.store_timestamp() >= began + delay_ms);
        seen.insert(delivered.body().to_vec());
    }
    assert_eq!(seen, [b"delayed".to_vec(), b"timed".to_vec()].into());
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_transaction_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "rejectTransactionMessage=true\n").await;
    let half = house.send("TopicA", "0", "TRAN_MSG\u{1}true\u{2}", b"x").await;
    assert_eq!((half.code, remark(&half)), (16, "the broker[127.0.0.1] sending transaction message is forbidden"));
    let flag = house.send_with("TopicA", "0", "", b"x", &[("f", "4")]).await;
    assert_eq!(flag.response_code(), ResponseCode::MESSAGE_ILLEGAL);
    for topic in [HALF_TOPIC, "rmq_sys_wheel_timer"] {
        let closed = house.send(topic, "0", "TIMER_DELAY_MS\u{1}9\u{2}", b"x").await;
        assert_eq!(closed.response_code(), ResponseCode::NO_PERMISSION);
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timer_messages_come_when_they_are_due_and_survive_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let at = now_ms() + 400;
    let mut due = Vec::new();
    for (queue, property, delay_ms) in [
        ("0", "TIMER_DELIVER_MS\u{1}5\u{2}", 0),
        ("1", "TIMER_DELAY_MS\u{1}100\u{2}", 100),
        ("2", &format!("TIMER_DELIVER_MS\u{1}{at}\u{2}"), 0),
        ("3", "TIMER_DELAY_SEC\u{1}2\u{2}", 2000),
    ] {
        due.push(if queue == "2" { at } else { now_ms() + delay_ms });
        let sent = house.send("TopicA", queue, property, queue.as_bytes()).await;
        assert_eq!((sent.code, &*field(&sent, "queueId")), (0, queue));
        // On a slow machine the third may be late.
        assert!(queue == "2" || sent.field("recallHandle").is_some() == (delay_ms > 0), "{queue}");
    }
    let delivered = async |house: &House, queue: &str| {
        let reply = house.pull("TopicA", queue, "0").await;
        let record = Record::parse(&reply.body).unwrap();
        assert_eq!(record.body(), queue.as_bytes());
        let early = due[queue.parse::<usize>().unwrap()] - record.store_timestamp();
        assert!(early <= 0, "{queue} came {early} ms early");
    };
    for queue in ["0", "1", "2"] {
        delivered(&house, queue).await;
    }
    house.stop().await;
    let house = House::start(root.path(), "").await;
    delivered(&house, "3").await;
    // Nothing is delivered twice after an orderly stop.
    for queue in ["0", "1", "2", "3"] {
        assert_eq!(bodies(&house, queue).await, [queue]);
    }

    for (properties, code) in [
        ("TIMER_DELAY_SEC\u{1}259201\u{2}", ResponseCode::MESSAGE_ILLEGAL),
        ("TIMER_DELAY_MS\u{1}x\u{2}", ResponseCode::MESSAGE_ILLEGAL),
    ] {
        assert_eq!(house.send("TopicA", "1", properties, b"x").await.response_code(), code);
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_that_cannot_be_saved_are_delivered_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    // The file of the checkpoint cannot be written.
    let in_the_way = root.path().join("timers/checkpoint");
    std::fs::remove_file(&in_the_way).unwrap();
    std::fs::create_dir(&in_the_way).unwrap();
    for i in 0..30 {
        let due = format!("TIMER_DELAY_MS\u{1}{}\u{2}", 100 + i * 80);
        assert_eq!(house.send("TopicA", "1", &due, format!("timer{i}").as_bytes()).await.code, 0);
    }
    for i in 0..30 {
        let reply = house.pull("TopicA", "1", &i.to_string()).await;
        assert_eq!(Record::parse(&reply.body).unwrap().body(), format!("timer{i}").as_bytes());
    }
    // What an orderly stop saves is saved when it can be.
    std::fs::remove_dir(&in_the_way).unwrap();
    house.stop().await;
    let house = House::start(root.path(), "").await;
    assert_eq!(bodies(&house, "1").await.len(), 30, "none came twice");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_message_can_be_taken_back() {
    let root = tempfile::tempdir().unwrap();
    // In sync flush mode a recall is answered when it is on disk, like a send.
    let house = House::start(root.path(), "recallMessageEnable=true\nflushDiskType=SYNC_FLUSH\n").await;
    let recall = async |topic: &str, handle: &str| {
        house.ask(RequestCode::RECALL_MESSAGE, &[("topic", topic), ("recallHandle", handle)], b"").await
    };
    // Each time in a topic of their own and with more time, until the broker and its disk took one back well before it was due.
    let mut ahead_ms = 600;
    let (topic, kept, handle, recalled) = loop {
        let topic = format!("Topic{ahead_ms}");
        let at = now_ms() + ahead_ms;
        let due = format!("TIMER_DELIVER_MS\u{1}{at}\u{2}");
        let kept = house.send(&topic, "1", &format!("{due}UNIQ_KEY\u{1}KEPT\u{2}"), b"kept").await;
        let taken = house.send(&topic, "1", &format!("{due}UNIQ_KEY\u{1}TAKEN\u{2}"), b"taken back").await;
        if let Some(handle) = taken.field("recallHandle") {
            let recalled = recall(&topic, &handle).await;
            if now_ms() < at - ahead_ms / 2 {
                break (topic, kept, handle.into_owned(), recalled);
            }
        }
        ahead_ms *= 2;
    };
    assert_eq!((recalled.code, field(&recalled, "msgId")), (0, "TAKEN".into()));
    // By this field Java's clients decide whether to write a trace.
    assert_eq!(field(&recalled, "MSG_REGION"), "DefaultRegion");
    assert_eq!(Record::parse(&house.pull(&topic, "1", "0").await.body).unwrap().body(), b"kept");
    assert_eq!(bodies_of(&house, &topic, "1").await, ["kept"]);
    house.send("TopicC", "1", "", b"another topic").await;
    let late = field(&kept, "recallHandle");
    for (topic, handle, code, text) in [
        ("TopicB", &*handle, ResponseCode::TOPIC_NOT_EXIST, "recall failed, the topic[TopicB] not exist"),
        ("TopicC", &handle, ResponseCode::ILLEGAL_OPERATION, "recall failed, topic not match"),
        (&topic, &late, ResponseCode::ILLEGAL_OPERATION, "recall failed, timestamp invalid"),
        (&topic, "wrong", ResponseCode::ILLEGAL_OPERATION, "recall handle is invalid"),
    ] {
        let refused = recall(topic, handle).await;
        assert_eq!((refused.response_code(), remark(&refused)), (code, text));
        assert_eq!(field(&refused, "MSG_REGION"), "DefaultRegion");
    }
    house.stop().await;

    let house = House::start(root.path(), "").await;
    let fields = [("topic", &*topic), ("recallHandle", &*handle)];
    let forbidden = house.ask(RequestCode::RECALL_MESSAGE, &fields, b"").await;
    assert_eq!((forbidden.code, remark(&forbidden)), (16, "recall failed, operation is forbidden"));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_goes_to_the_producer_that_waits_for_it() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let (client, _connection, mut asked) = producer(&house, "requester").await;
    let reply_to = async |properties: &str| {
        let fields = [
            ("a", "PG2"),
            ("b", "DefaultCluster_REPLY_TOPIC"),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "0"),
            ("f", "0"),
            ("g", "1795220483790"),
            ("h", "0"),
            ("i", properties),
        ];
        house.ask(RequestCode::SEND_REPLY_MESSAGE_V2, &fields, b"the answer").await
    };
    let pushed = Mutex::new(None);
    let answered = async {
        let push = next(&mut asked, RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT).await;
        *pushed.lock().unwrap() = Some(push);
    };
    let properties =
        "CORRELATION_ID\u{1}c-1\u{2}REPLY_TO_CLIENT\u{1}requester\u{2}TTL\u{1}3000\u{2}MSG_TYPE\u{1}reply\u{2}";
    let (reply, ()) = tokio::join!(reply_to(properties), answered);
    assert_eq!((reply.code, field(&reply, "queueOffset"), field(&reply, "msgId").len()), (0, "0".into(), 32));
    let push = pushed.lock().unwrap().take().unwrap();
    assert_eq!(&push.body[..], b"the answer");
    let text = field(&push, "properties");
    assert_eq!(property(&text, "CORRELATION_ID"), Some("c-1"));
    assert!(property(&text, "PUSH_REPLY_TIME").is_some());
    assert_eq!(
        Record::parse(&house.pull("DefaultCluster_REPLY_TOPIC", "0", "0").await.body).unwrap().body(),
        b"the answer"
    );

    for (properties, text) in [
        ("REPLY_TO_CLIENT\u{1}nobody\u{2}", "push reply message fail, channel of <nobody> not found."),
        ("TTL\u{1}1\u{2}", "reply message properties[REPLY_TO_CLIENT] is null"),
    ] {
        let reply = reply_to(properties).await;
        assert_eq!((reply.code, remark(&reply)), (1, text));
        assert!(reply.field("msgId").is_some());
    }
    client.shutdown().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sql_consumer_gets_what_its_condition_selects() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "enablePropertyFilter=true\n").await;
    for age in 1..=5 {
        let properties = format!("age\u{1}{age}\u{2}TAGS\u{1}{}\u{2}", if age % 2 == 0 { "even" } else { "odd" });
        house.send("TopicA", "0", &properties, age.to_string().as_bytes()).await;
    }
    house.see("TopicA", "0", 5).await;
    let selected = async |condition: &str| {
        let changes = [("subscription", condition), ("expressionType", "SQL92")];
        let reply = house.pull_with("TopicA", "0", "0", &changes).await;
        let records = ferromq_protocol::message::Records::new(&reply.body);
        let bodies: Vec<String> =
            records.map(|record| String::from_utf8(record.unwrap().body().to_vec()).unwrap()).collect();
        (reply.code, bodies.join(" "))
    };
    assert_eq!(selected("age BETWEEN 2 AND 4").await, (0, "2 3 4".into()));
    assert_eq!(selected("TAGS = 'odd' AND age > 1").await, (0, "3 5".into()));
    // 20: nothing of what was looked at; go on behind it.
    assert_eq!(selected("height > 1").await, (20, String::new()));
    assert_eq!(selected("age >").await.0, ResponseCode::SUBSCRIPTION_PARSE_FAILED.0);

    // A pull that waits is woken by what it wants, and by nothing else.
    let wait =
        [("subscription", "age = 7"), ("expressionType", "SQL92"), ("sysFlag", "6"), ("suspendTimeoutMillis", "60000")];
    let send = async {
        for age in [6, 7] {
            house.send("TopicA", "0", &format!("age\u{1}{age}\u{2}"), age.to_string().as_bytes()).await;
        }
    };
    let (reply, ()) = tokio::join!(house.pull_with("TopicA", "0", "5", &wait), send);
    assert_eq!((reply.code, Record::parse(&reply.body).unwrap().body()), (0, &b"7"[..]));

    let check = |condition: &str| {
        format!(
            r#"{{"clientId":"c","group":"g","subscriptionData":{{"topic":"T","subString":"{condition}","expressionType":"SQL92"}}}}"#
        )
    };
    assert_eq!(house.ask(RequestCode::CHECK_CLIENT_CONFIG, &[], check("a > 1").as_bytes()).await.code, 0);
    let wrong = house.ask(RequestCode::CHECK_CLIENT_CONFIG, &[], check("a > 'x'").as_bytes()).await;
    assert_eq!(wrong.response_code(), ResponseCode::SUBSCRIPTION_PARSE_FAILED);
    assert!(remark(&wrong).starts_with("at character 5:"), "{wrong:?}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_of_a_java_broker_are_taken_over() {
    // Again with more time, until all were timers and the late ones had not come when the broker was stopped.
    let mut ahead_ms = 1000;
    let (root, early) = loop {
        let root = tempfile::tempdir().unwrap();
        let house = House::start(root.path(), "").await;
        let (early, late) = (now_ms() + ahead_ms / 5, now_ms() + ahead_ms);
        house.send("TopicA", "1", &format!("TIMER_DELIVER_MS\u{1}{early}\u{2}"), b"early").await;
        for _ in 0..2 {
            // Java stores what waits for days again; both copies have the same key and time.
            let properties = format!("TIMER_DELIVER_MS\u{1}{late}\u{2}UNIQ_KEY\u{1}K\u{2}TIMER_ROLL_TIMES\u{1}1\u{2}");
            house.send("TopicA", "1", &properties, b"late").await;
        }
        let first = house.pull("TopicA", "1", "0").await;
        house.stop().await;
        let first = Record::parse(&first.body).unwrap();
        if now_ms() < late && first.property("TIMER_OUT_MS").is_some() {
            assert_eq!(first.body(), b"early");
            break (root, early);
        }
        ahead_ms *= 2;
    };
    // As if a Java broker had served them so far.
    std::fs::remove_dir_all(root.path().join("timers")).unwrap();
    let mut timercheck = [0; 4096];
    timercheck[..8].copy_from_slice(&(early + 1).to_be_bytes());
    timercheck[16..24].copy_from_slice(&3_i64.to_be_bytes());
    std::fs::write(root.path().join("config/timercheck"), timercheck).unwrap();
    let house = House::start(root.path(), "").await;
    assert_eq!(Record::parse(&house.pull("TopicA", "1", "1").await.body).unwrap().body(), b"late");
    assert_eq!(bodies(&house, "1").await, ["early", "late"]);
    house.stop().await;
}

/// Milliseconds that messages of TopicA were stored after they were due, sorted. Never below 0.
async fn lateness(house: &House, count: usize, due: impl Fn(usize, &Record<'_>) -> i64) -> Vec<i64> {
    let mut late = Vec::new();
    while late.len() < count {
        let reply = house.pull("TopicA", "0", &late.len().to_string()).await;
        for record in ferromq_protocol::message::Records::new(&reply.body) {
            let record = record.unwrap();
            late.push(record.store_timestamp() - due(late.len(), &record));
        }
    }
    late.sort_unstable();
    assert!(late[0] >= 0, "delivered {} ms early", -late[0]);
    late
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_messages_due_in_one_second_are_never_early() {
    const COUNT: usize = 10_000;
    let report = |what: &str, late: &[i64]| {
        println!(
            "{what}: late by p50 {} ms, p99 {} ms, at most {} ms",
            late[late.len() / 2],
            late[late.len() * 99 / 100],
            late[late.len() - 1]
        );
    };
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    // Again with more time, until all of them were sent before the first was due: how long that takes is the machine's affair.
    let mut sent = 0;
    let mut ahead_ms = 3000;
    loop {
        let first_due = now_ms() + ahead_ms;
        for i in 0..COUNT {
            let due = first_due + i64::try_from(i % 1000).unwrap();
            assert_eq!(house.send("TopicA", "0", &format!("TIMER_DELIVER_MS\u{1}{due}\u{2}"), b"x").await.code, 0);
        }
        sent += COUNT;
        if now_ms() < first_due {
            break;
        }
        ahead_ms *= 2;
    }
    let due = |_, record: &Record<'_>| property(&record.properties(), "TIMER_DELIVER_MS").unwrap().parse().unwrap();
    report("timers", &lateness(&house, sent, due).await);
    house.stop().await;

    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "messageDelayLevel=2s\n").await;
    for _ in 0..COUNT {
        assert_eq!(house.send("TopicA", "0", "DELAY\u{1}1\u{2}", b"x").await.code, 0);
    }
    let mut stored = Vec::new();
    while stored.len() < COUNT {
        let reply = house.pull("SCHEDULE_TOPIC_XXXX", "0", &stored.len().to_string()).await;
        let records = ferromq_protocol::message::Records::new(&reply.body);
        stored.extend(records.map(|record| record.unwrap().store_timestamp()));
    }
    report("delays", &lateness(&house, COUNT, |i, _| stored[i] + 2000).await);
    house.stop().await;
}
