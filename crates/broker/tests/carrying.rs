//! What waits arrives, however fast the log goes from under it: through a real broker whose retention is at work all the time.

mod support;

use ferromq_protocol::body::KvTable;
use ferromq_protocol::{Command, RequestCode};
use support::{House, field, json, remark};

const SEGMENT: u64 = 65_536;
/// Three segments are kept, whatever their age.
const GREEDY: &str = "mappedFileSizeCommitLog=65536\nfileReservedBytes=200000\ncleanResourceInterval=10\n\
                      deleteCommitLogFilesInterval=0\ndeleteFileBatchMax=1000\nmessageDelayLevel=1s 4s\n\
                      recallMessageEnable=true\n";

/// Where a message was stored.
struct Place {
    queue_offset: String,
    log_offset: u64,
}

fn place_of(sent: &Command) -> Place {
    assert_eq!(sent.code, 0, "{}", remark(sent));
    let log_offset = u64::from_str_radix(&field(sent, "msgId")[16..], 16).unwrap();
    Place { queue_offset: field(sent, "queueOffset"), log_offset }
}

async fn log_min(house: &House) -> u64 {
    let info: KvTable = json(&house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], b"").await);
    info.table["commitLogMinOffset"].parse().unwrap()
}

/// Sends other messages until the log before a place has gone.
async fn send_until_gone(house: &House, place: u64) {
    while log_min(house).await <= place {
        for _ in 0..10 {
            let sent = house.send("TopicA", "1", "", &[7; 5000]).await;
            assert_eq!(sent.code, 0, "{}", remark(&sent));
        }
    }
}

async fn send_half(house: &House, queue: &str, key: &str) -> Place {
    let properties = format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}UNIQ_KEY\u{1}{key}\u{2}");
    place_of(&house.send_with("TopicB", queue, &properties, b"half", &[("f", "4")]).await)
}

async fn end(house: &House, half: &Place, how: &str, key: &str) -> i32 {
    let fields = [
        ("producerGroup", "PG"),
        ("tranStateTableOffset", &*half.queue_offset),
        ("commitLogOffset", &half.log_offset.to_string()),
        ("commitOrRollback", how),
        ("fromTransactionCheck", "false"),
        ("msgId", key),
        ("transactionId", key),
    ];
    house.ask(RequestCode::END_TRANSACTION, &fields, b"").await.code
}

async fn count(house: &House, queue: &str) -> u64 {
    let fields = [("topic", "TopicB"), ("queueId", queue)];
    field(&house.ask(RequestCode::GET_MAX_OFFSET, &fields, b"").await, "offset").parse().unwrap()
}

async fn wait_for(house: &House, queue: &str, wanted: u64) {
    let fields = [("topic", "TopicB"), ("queueId", queue)];
    let wanted = wanted.to_string();
    house.ask_until(RequestCode::GET_MAX_OFFSET, &fields, |reply| field(reply, "offset") == wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_waits_arrives_once_though_the_log_goes() {
    for flush in ["ASYNC_FLUSH", "SYNC_FLUSH"] {
        let root = tempfile::tempdir().unwrap();
        let house = House::start(root.path(), &format!("{GREEDY}flushDiskType={flush}\n")).await;
        let committed = send_half(&house, "0", "COMMITTED").await;
        let rolled_back = send_half(&house, "0", "ROLLED_BACK").await;
        let delayed = place_of(&house.send("TopicB", "1", "DELAY\u{1}2\u{2}", b"delayed").await);
        let timed = house.send("TopicB", "2", "TIMER_DELAY_MS\u{1}6000\u{2}UNIQ_KEY\u{1}TIMED\u{2}", b"timed").await;
        assert_eq!(timed.code, 0);
        let taken = house.send("TopicB", "3", "TIMER_DELAY_MS\u{1}6000\u{2}UNIQ_KEY\u{1}TAKEN\u{2}", b"taken").await;
        // Again and again: what is carried on goes as fast as the rest.
        let mut gone = delayed.log_offset;
        for _ in 0..5 {
            send_until_gone(&house, gone).await;
            gone = log_min(&house).await + 3 * SEGMENT;
        }
        if let Some(handle) = taken.field("recallHandle") {
            let recalled = [("topic", "TopicB"), ("recallHandle", &*handle)];
            assert_eq!(house.ask(RequestCode::RECALL_MESSAGE, &recalled, b"").await.code, 0);
        }
        send_until_gone(&house, gone).await;
        assert!(log_min(&house).await > committed.log_offset);
        assert_eq!(end(&house, &committed, "8", "COMMITTED").await, 0);
        assert_eq!(end(&house, &rolled_back, "12", "ROLLED_BACK").await, 0);
        for queue in ["0", "1", "2"] {
            wait_for(&house, queue, 1).await;
        }
        send_until_gone(&house, log_min(&house).await + SEGMENT).await;
        let counts = [count(&house, "0").await, count(&house, "1").await, count(&house, "2").await];
        assert_eq!((counts, count(&house, "3").await), ([1; 3], 0), "{flush}");
        // Nobody holds the log any more.
        let holds_nothing = |reply: &Command| json::<KvTable>(reply).table["timerCongestNum"] == "0";
        house.ask_until(RequestCode::GET_BROKER_RUNTIME_INFO, &[], holds_nothing).await;
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_carried_on_is_found_by_the_next_start() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), GREEDY).await;
    let half = send_half(&house, "0", "K").await;
    place_of(&house.send("TopicB", "1", "DELAY\u{1}2\u{2}", b"delayed").await);
    place_of(&house.send("TopicB", "2", "TIMER_DELAY_MS\u{1}6000\u{2}", b"timed").await);
    send_until_gone(&house, half.log_offset + SEGMENT).await;
    let killed = support::killed::copy_at_an_instant(root.path());
    house.stop().await;
    for root in [root, killed] {
        let house = House::start(root.path(), GREEDY).await;
        assert!(log_min(&house).await > half.log_offset);
        assert_eq!(end(&house, &half, "8", "K").await, 0);
        wait_for(&house, "0", 1).await;
        for queue in ["1", "2"] {
            let fields = [("topic", "TopicB"), ("queueId", queue)];
            house.ask_until(RequestCode::GET_MAX_OFFSET, &fields, |reply| field(reply, "offset") != "0").await;
        }
        house.stop().await;
    }
}
