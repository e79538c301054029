//! What SYNC_MASTER answers, and what consumers see, by what slaves report.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ferromq_protocol::body::KvTable;
use ferromq_protocol::{Command, RequestCode, ResponseCode};
use support::slave::Slave;
use support::{House, json, remark};
use tokio::task::JoinHandle;

/// A little less than the one that is set, because the broker counts whole milliseconds.
const SLAVE_TIMEOUT: Duration = Duration::from_millis(990);

/// Nobody is late, unless a test says so.
const PATIENT: &str = "slaveTimeout=3600000\nhaHousekeepingInterval=600000\n";

async fn house(root: &std::path::Path, more: &str) -> Arc<House> {
    Arc::new(House::start(root, &format!("brokerRole=SYNC_MASTER\n{PATIENT}{more}")).await)
}

async fn stop(house: Arc<House>) {
    Arc::into_inner(house).expect("nobody else has it").stop().await;
}

fn send(house: &Arc<House>) -> JoinHandle<Command> {
    let house = Arc::clone(house);
    tokio::spawn(async move { house.send("TopicA", "1", "", b"body").await })
}

async fn log_end(house: &House) -> u64 {
    let info: KvTable = json(&house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], b"").await);
    info.table["commitLogMaxOffset"].parse().unwrap()
}

/// A slave that has all of the log, and has said so.
async fn in_sync(house: &House) -> Slave {
    let mut slave = Slave::connect(house).await;
    slave.report(0).await;
    let end = log_end(house).await;
    take(&mut slave, end).await;
    slave.report(end).await;
    slave
}

/// Reads on until the log goes up to `end`.
async fn take(slave: &mut Slave, end: u64) {
    let mut at = 0;
    while at < end {
        let packet = slave.packet().await.expect("the master goes on");
        at = packet.at.0 + packet.body.len() as u64;
    }
}

/// The next packet with a body; where it ends.
async fn next(slave: &mut Slave) -> u64 {
    loop {
        let packet = slave.packet().await.expect("the master goes on");
        if !packet.body.is_empty() {
            return packet.at.0 + packet.body.len() as u64;
        }
    }
}

/// Not answered, and not shown: again and again.
async fn is_held_back(house: &House, sent: &JoinHandle<Command>, queue_offset: &str) {
    for _ in 0..50 {
        let pulled = house.pull_with("TopicA", "1", queue_offset, &[]).await;
        assert_ne!(pulled.code, ResponseCode::SUCCESS.0, "a consumer sees what nobody else holds");
    }
    assert!(!sent.is_finished(), "answered before another broker has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_acknowledged_and_shown_when_a_slave_says_that_it_has_it() {
    let root = tempfile::tempdir().unwrap();
    for flush in ["ASYNC_FLUSH", "SYNC_FLUSH"] {
        let root = root.path().join(flush);
        std::fs::create_dir(&root).unwrap();
        let house = house(&root, &format!("inSyncReplicas=2\nflushDiskType={flush}\n")).await;
        let mut slave = Slave::connect(&house).await;
        slave.report(0).await;
        for queue_offset in ["0", "1", "2"] {
            let sent = send(&house);
            let end = next(&mut slave).await;
            is_held_back(&house, &sent, queue_offset).await;
            slave.report(end - 1).await;
            is_held_back(&house, &sent, queue_offset).await;
            slave.report(end).await;
            assert_eq!(sent.await.unwrap().code, 0);
            assert_eq!(house.pull("TopicA", "1", queue_offset).await.code, 0);
        }
        stop(house).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_slaves_the_answer_is_flush_slave_timeout_and_the_message_is_shown_then() {
    let root = tempfile::tempdir().unwrap();
    let house = house(root.path(), "inSyncReplicas=2\nslaveTimeout=1000\n").await;
    let began = Instant::now();
    let sent = send(&house);
    // The topic comes with the message.
    while house.pull("TopicA", "1", "0").await.code != 0 {}
    assert!(began.elapsed() >= SLAVE_TIMEOUT, "it was shown after {:?}", began.elapsed());
    let answer = sent.await.unwrap();
    assert_eq!(answer.code, ResponseCode::FLUSH_SLAVE_TIMEOUT.0);
    // Stored once, with all that an answer says.
    assert_eq!(&*answer.field("queueOffset").unwrap(), "0");
    assert_ne!(house.pull_with("TopicA", "1", "1", &[]).await.code, 0);
    // Who wants to wait for nothing does not.
    let began = Instant::now();
    let hurried = house.send("TopicA", "1", "WAIT\u{1}false\u{2}", b"body").await;
    assert_eq!(hurried.code, 0);
    assert_eq!(house.pull("TopicA", "1", "1").await.code, 0);
    assert!(began.elapsed() >= SLAVE_TIMEOUT);
    stop(house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_brokers_hold_it_as_are_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let house = house(root.path(), "inSyncReplicas=3\n").await;
    let (mut one, mut other) = (in_sync(&house).await, in_sync(&house).await);
    let sent = send(&house);
    let end = next(&mut one).await;
    one.report(end).await;
    is_held_back(&house, &sent, "0").await;
    assert_eq!(next(&mut other).await, end);
    other.report(end).await;
    assert_eq!(sent.await.unwrap().code, 0);
    stop(house).await;

    let root = tempfile::tempdir().unwrap();
    let house = self::house(root.path(), "inSyncReplicas=2\n").await;
    let (mut one, _silent) = (in_sync(&house).await, in_sync(&house).await);
    let sent = send(&house);
    let end = next(&mut one).await;
    one.report(end).await;
    assert_eq!(sent.await.unwrap().code, 0, "two of three are enough");
    stop(house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_brokers_in_sync_nothing_is_taken() {
    let root = tempfile::tempdir().unwrap();
    let house = house(root.path(), "minInSyncReplicas=2\n").await;
    for changes in [&[][..], &[("m", "true")][..]] {
        let refused = house.send_with("TopicA", "1", "", b"body", changes).await;
        assert_eq!(refused.code, ResponseCode::SYSTEM_ERROR.0);
        assert!(remark(&refused).starts_with("in-sync replicas not enough"), "{}", remark(&refused));
    }
    assert_eq!(log_end(&house).await, 0);
    let mut slave = Slave::connect(&house).await;
    slave.report(0).await;
    let sent = async {
        loop {
            let sent = house.send("TopicA", "1", "", b"body").await;
            if sent.code == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(support::PATIENCE, sent).await.expect("a slave is in sync");
    stop(house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_after_a_kill_shows_what_nobody_held_as_late_as_a_new_message() {
    let root = tempfile::tempdir().unwrap();
    let more = "inSyncReplicas=2\nslaveTimeout=1000\nflushConsumerOffsetInterval=100\n";
    let house = self::house(root.path(), more).await;
    // Confirmed by a slave, and shown.
    let mut slave = Slave::connect(&house).await;
    slave.report(0).await;
    let sent = send(&house);
    let end = next(&mut slave).await;
    slave.report(end).await;
    assert_eq!(sent.await.unwrap().code, 0);
    house.see("TopicA", "1", 1).await;
    let of_queue = [("consumerGroup", "CG"), ("topic", "TopicA"), ("queueId", "1")];
    let consumed = [&of_queue[..], &[("commitOffset", "1")]].concat();
    assert_eq!(house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &consumed, b"").await.code, 0);
    // Not before the message is on the disk.
    let saved = root.path().join("config/consumerOffset.json");
    let is_saved = |text: String| {
        let text: String = text.split_whitespace().collect();
        text.contains(r#""TopicA@CG":{1:1}"#)
    };
    while !std::fs::read_to_string(&saved).is_ok_and(is_saved) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sent = send(&house);
    next(&mut slave).await;
    let killed = support::killed::copy_at_an_instant(root.path());
    sent.abort();
    let _ = sent.await;
    stop(house).await;

    let began = Instant::now();
    let house = self::house(killed.path(), more).await;
    assert!(began.elapsed() >= SLAVE_TIMEOUT, "it was there after {:?}", began.elapsed());
    house.see("TopicA", "1", 2).await;
    // What was consumed is not beyond the end of a queue that had nothing yet.
    let offset = house.ask(RequestCode::QUERY_CONSUMER_OFFSET, &of_queue, b"").await;
    assert_eq!(&*offset.field("offset").unwrap(), "1");
    stop(house).await;
    // All of it was confirmed when that one stopped.
    let house = self::house(killed.path(), "inSyncReplicas=2\n").await;
    house.see("TopicA", "1", 2).await;
    stop(house).await;
}
