//! A slave beside masters of every kind: one that is as it should be, and those that send what no master sends, or nothing.

mod support;

use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferromq_protocol::body::KvTable;
use ferromq_protocol::ha::encode_packet_head;
use ferromq_protocol::message::Records;
use ferromq_protocol::{Command, PhysicalOffset, RequestCode};
use ferromq_store::{Disk, DiskUsage, LocalDisk, MappedRange};
use parking_lot::Mutex;
use support::scripted_master::{Act, Log, SEGMENT_LEN, ScriptedMaster, Shared, first_report};
use support::{House, PATIENCE, json, remark};

/// Some segments of records of different lengths.
fn a_log(records: usize) -> Log {
    let mut log = Log::default();
    for n in 0..records {
        log.add(1, 100 + n * 731 % 9000, n as u8);
    }
    log
}

/// The slave has the log up to there.
async fn holds(house: &House, end: u64) {
    let is_there = |reply: &Command| offsets(reply).1 == end;
    house.ask_until(RequestCode::GET_BROKER_RUNTIME_INFO, &[], is_there).await;
}

/// So many messages can be read at the slave.
async fn shows(house: &House, count: u64) {
    let queue = [("topic", "TopicA"), ("queueId", "0")];
    let has_all = |reply: &Command| reply.field("offset").is_some_and(|end| end == count.to_string());
    house.ask_until(RequestCode::GET_MAX_OFFSET, &queue, has_all).await;
    let last = house.pull_with("TopicA", "0", &(count - 1).to_string(), &[]).await;
    assert_eq!((last.code, Records::new(&last.body).count()), (0, 1), "{}", remark(&last));
}

/// From where to where the slave's log goes.
fn offsets(reply: &Command) -> (u64, u64) {
    let info: KvTable = json(reply);
    let offset = |key: &str| info.table[key].parse().unwrap();
    (offset("commitLogMinOffset"), offset("commitLogMaxOffset"))
}

/// The slave says why it stands still.
async fn stands_still(house: &House, why: &str) {
    let says_so = |reply: &Command| {
        let info: KvTable = json(reply);
        info.table.get("copyStandsStill").is_some_and(|said| said.contains(why))
    };
    house.ask_until(RequestCode::GET_BROKER_RUNTIME_INFO, &[], says_so).await;
}

/// Until something has come about.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{what}");
}

/// What the files of a log have from one offset to another.
fn on_disk(root: &Path, from: u64, to: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = from;
    while at < to {
        let start = at - at % SEGMENT_LEN;
        let file = std::fs::read(root.join(format!("commitlog/{start:020}"))).unwrap();
        let end = to.min(start + SEGMENT_LEN);
        bytes.extend_from_slice(&file[(at - start) as usize..(end - start) as usize]);
        at = end;
    }
    bytes
}

fn assert_copy(root: &Path, log: &Log) {
    assert!(on_disk(root, log.first, log.end()) == log.bytes, "the copy has other bytes");
}

/// A slave on a directory of its own.
async fn slave(master: &ScriptedMaster, more: &str) -> (tempfile::TempDir, House) {
    let root = root_with_topic();
    let house = House::start(root.path(), &(master.slave_lines() + more)).await;
    (root, house)
}

/// A slave's topics come from its master by another way; this one is there before.
fn root_with_topic() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let topic =
        r#"{"topicConfigTable":{"TopicA":{"topicName":"TopicA","readQueueNums":1,"writeQueueNums":1,"perm":6}}}"#;
    std::fs::create_dir(root.path().join("config")).unwrap();
    std::fs::write(root.path().join("config/topics.json"), topic).unwrap();
    root
}

/// The first connections meet `first`; those that follow, a master as it should be.
fn then_honest(count: usize, first: impl Fn(&Shared, TcpStream) + Send + Sync + 'static) -> Act {
    Box::new(move |shared, number, stream| {
        if number < count {
            first(shared, stream);
        } else {
            shared.serve(stream);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_copies_its_masters_log_and_goes_on_after_a_restart() {
    for more in ["", "flushDiskType=SYNC_FLUSH\n"] {
        let master = ScriptedMaster::honest(a_log(60));
        let (root, house) = slave(&master, more).await;
        let end = master.shared.log().end();
        assert!(end > 3 * SEGMENT_LEN);
        holds(&house, end).await;
        shows(&house, 60).await;
        master.shared.log().add(30, 3000, 7);
        let end = master.shared.log().end();
        holds(&house, end).await;
        house.stop().await;
        assert_copy(root.path(), &master.shared.log());
        // Meanwhile there is more.
        master.shared.log().add(30, 3000, 8);
        let house = House::start(root.path(), &(master.slave_lines() + more)).await;
        let end = master.shared.log().end();
        holds(&house, end).await;
        shows(&house, 120).await;
        house.stop().await;
        assert_copy(root.path(), &master.shared.log());
        assert_eq!(master.shared.connections(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_does_not_do_what_is_its_masters() {
    let master = ScriptedMaster::honest(a_log(3));
    let (_root, house) = slave(&master, "autoCreateTopicEnable=true\nrecallMessageEnable=true\n").await;
    let end = master.shared.log().end();
    holds(&house, end).await;
    for topic in ["TopicA", "TopicNew"] {
        let refused = house.send(topic, "0", "", b"x").await;
        assert_eq!(refused.code, 14, "{}", remark(&refused));
        assert!(remark(&refused).contains("this broker is a slave"), "{}", remark(&refused));
    }
    let refused = house.ask(RequestCode::GET_TOPIC_CONFIG, &[("topic", "TopicNew")], b"").await;
    assert_ne!(refused.code, 0, "a send to a slave has made a topic");
    for (code, answer) in [
        (RequestCode::END_TRANSACTION, 11),
        (RequestCode::RECALL_MESSAGE, 11),
        (RequestCode::CONSUMER_SEND_MSG_BACK, 14),
        (RequestCode::UPDATE_AND_CREATE_TOPIC, 1),
        (RequestCode::DELETE_TOPIC_IN_BROKER, 1),
        (RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, 1),
        (RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, 1),
        (RequestCode::CLEAN_UNUSED_TOPIC, 0),
    ] {
        let reply = house.ask(code, &[], b"").await;
        assert_eq!(reply.code, answer, "{code:?}: {}", remark(&reply));
    }
    let heartbeat = support::heartbeat("client", "CG", "TopicA", "*", 1);
    assert_eq!(house.ask(RequestCode::HEART_BEAT, &[], heartbeat.as_bytes()).await.code, 0);
    let retry = house.ask(RequestCode::GET_TOPIC_CONFIG, &[("topic", "%RETRY%CG")], b"").await;
    assert_ne!(retry.code, 0, "a heartbeat at a slave has made a topic");
    let info = house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], b"").await;
    assert_eq!(offsets(&info), (0, end));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_master_sends_costs_the_connection() {
    let acts: [fn(&Shared, TcpStream); 6] = [
        // It goes on elsewhere.
        |shared, stream| {
            let from = first_report(&stream).unwrap();
            shared.serve_from(stream, from + 1000, u64::MAX);
        },
        // A length that is none.
        |_, mut stream| {
            let from = first_report(&stream).unwrap();
            let mut head = encode_packet_head(PhysicalOffset(from), 0);
            head[8..].copy_from_slice(&u32::MAX.to_be_bytes());
            stream.write_all(&head).unwrap();
            let _ = first_report(&stream);
        },
        // An offset that is none.
        |_, mut stream| {
            first_report(&stream).unwrap();
            stream.write_all(&[0xFF; 12]).unwrap();
            let _ = first_report(&stream);
        },
        // Another protocol.
        |_, mut stream| {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").unwrap();
            let _ = first_report(&stream);
        },
        // It closes at once.
        |_, stream| drop(stream),
        // A byte of the body is another one; at the next try it is right.
        |shared, mut stream| {
            let from = first_report(&stream).unwrap();
            let mut bytes = {
                let log = shared.log();
                log.range(from, log.end().min(from - from % SEGMENT_LEN + SEGMENT_LEN)).to_vec()
            };
            bytes[150] ^= 1;
            stream.write_all(&encode_packet_head(PhysicalOffset(from), bytes.len())).unwrap();
            stream.write_all(&bytes).unwrap();
            let _ = first_report(&stream);
        },
    ];
    for (number, act) in acts.into_iter().enumerate() {
        let master = ScriptedMaster::start(a_log(40), then_honest(2, act));
        let (root, house) = slave(&master, "").await;
        let end = master.shared.log().end();
        holds(&house, end).await;
        assert_eq!(master.shared.connections(), 3, "of act {number}");
        house.stop().await;
        assert_copy(root.path(), &master.shared.log());
    }
}

/// Neither is anything of the bad record taken, nor is the master tried again and again.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_record_three_times_fence_the_slave() {
    // In a body, and in the place that the record says it has.
    for at in [120, 32] {
        let mut log = a_log(10);
        let bad = log.starts[6];
        log.bytes[(bad + at) as usize] ^= 1;
        let master = ScriptedMaster::honest(log);
        let (root, house) = slave(&master, "").await;
        holds(&house, bad).await;
        stands_still(&house, &format!("three times the master has sent what is no record at {bad}")).await;
        // Nothing tells that somebody does nothing.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(master.shared.connections(), 3);
        holds(&house, bad).await;
        house.stop().await;
        assert!(on_disk(root.path(), 0, bad) == master.shared.log().range(0, bad));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_falls_silent_inside_a_record_is_left() {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&reports);
    let act: Act = Box::new(move |shared, number, stream| {
        let from = first_report(&stream).unwrap();
        reported.lock().push(from);
        let middle = shared.log().starts[5] + 50;
        shared.serve_from(stream, from, if number == 0 { middle } else { u64::MAX });
    });
    let master = ScriptedMaster::start(a_log(40), act);
    let (root, house) = slave(&master, "haSendHeartbeatInterval=100\nhaHousekeepingInterval=400\n").await;
    let end = master.shared.log().end();
    holds(&house, end).await;
    // First it had no record to report, so it has asked for the first one.
    let starts = master.shared.log().starts.clone();
    assert_eq!(*reports.lock(), [starts[1], starts[5]]);
    house.stop().await;
    assert_copy(root.path(), &master.shared.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_no_questions_is_not_followed_until_he_does() {
    for says in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\xFF\xFF\xFF\xFF", b"", b"\0\0\0\x09\0\0\0\x05{nojs"] {
        let master = ScriptedMaster::honest(a_log(20));
        *master.shared.says.lock().unwrap() = Some(says);
        let (root, house) = slave(&master, "").await;
        until("some questions", || master.shared.asked() >= 3).await;
        holds(&house, 0).await;
        *master.shared.says.lock().unwrap() = None;
        let end = master.shared.log().end();
        holds(&house, end).await;
        house.stop().await;
        assert_copy(root.path(), &master.shared.log());
    }
}

/// What is at the port below `haMasterAddress` may be another broker.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_the_pinned_master_is_not_asked() {
    let master = ScriptedMaster::honest(a_log(20));
    let port = master.shared.stated_port.swap(1, Ordering::SeqCst);
    let (root, house) = slave(&master, "").await;
    until("some questions", || master.shared.asked() >= 3).await;
    holds(&house, 0).await;
    master.shared.stated_port.store(port, Ordering::SeqCst);
    let end = master.shared.log().end();
    holds(&house, end).await;
    house.stop().await;
    assert_copy(root.path(), &master.shared.log());
}

/// Two logs with the first records in common, and where they part; behind that the bodies of the master's are of that byte.
fn parted(byte: u8) -> (Log, Log, u64) {
    let mut ours = a_log(30);
    let common = ours.end();
    let mut theirs = ours.clone();
    ours.add(40, 2500, 1);
    theirs.add(50, 2600, byte);
    (ours, theirs, common)
}

/// A slave that has `ours`, started beside a master that has another log.
async fn copy_of(ours: &Log) -> tempfile::TempDir {
    let before = ScriptedMaster::honest(ours.clone());
    let (root, house) = slave(&before, "").await;
    holds(&house, ours.end()).await;
    house.stop().await;
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_slave_has_stays_and_nothing_is_followed() {
    let (ours, theirs, common) = parted(2);
    let root = copy_of(&ours).await;
    let master = ScriptedMaster::honest(theirs);
    let house = House::start(root.path(), &master.slave_lines()).await;
    stands_still(&house, &format!("or none, from {common} on")).await;
    // Nothing tells that somebody does nothing.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(master.shared.connections(), 1);
    holds(&house, ours.end()).await;
    house.stop().await;
    assert_copy(root.path(), &ours);
    assert!(!root.path().join("diverged").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_slave_has_is_kept_and_cut_off_where_that_is_allowed() {
    // What stands in the master's log where a record of the slave's begins, is to Java no length, that of nothing, or one of 32 MiB.
    for (byte, is_java, more) in
        [(2, false, ""), (2, false, "flushDiskType=SYNC_FLUSH\n"), (0xFF, true, ""), (0, true, ""), (2, true, "")]
    {
        let (ours, theirs, common) = parted(byte);
        let root = copy_of(&ours).await;
        let master = ScriptedMaster::honest(theirs);
        master.shared.is_java.store(is_java, Ordering::SeqCst);
        let house =
            House::start(root.path(), &format!("{}haTruncateDiverged=true\n{more}", master.slave_lines())).await;
        let end = master.shared.log().end();
        holds(&house, end).await;
        house.stop().await;
        assert_copy(root.path(), &master.shared.log());
        let kept: Vec<_> = std::fs::read_dir(root.path().join("diverged")).unwrap().collect();
        assert_eq!(kept.len(), 1);
        let kept = kept[0].as_ref().unwrap();
        assert!(kept.file_name().to_string_lossy().starts_with(&format!("{common:020}-")), "{kept:?}");
        assert!(std::fs::read(kept.path()).unwrap() == ours.range(common, ours.end()));
    }
}

/// A slave closes the connection of one that would follow it, and answers questions like a master.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_cut_for_who_is_no_master() {
    let (ours, theirs, _) = parted(2);
    for says_slave in [true, false] {
        let root = copy_of(&ours).await;
        let closes = Box::new(|_: &Shared, _: usize, stream: TcpStream| drop(stream));
        let other = ScriptedMaster::start(theirs.clone(), closes);
        other.shared.is_slave.store(says_slave, Ordering::SeqCst);
        let lines = format!("{}haTruncateDiverged=true\nhaRestartWhenGone=true\n", other.slave_lines());
        let house = House::start(root.path(), &lines).await;
        // A try has come to its end when there is another.
        until("a third try", || other.shared.connections() >= 3).await;
        house.stop().await;
        assert_copy(root.path(), &ours);
        assert!(!root.path().join("diverged").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_the_masters_has_moved_on_from_begins_anew_where_that_is_allowed() {
    let ours = a_log(20);
    let root = copy_of(&ours).await;
    let first = 10 * SEGMENT_LEN;
    let mut theirs = Log::at(first);
    theirs.add(40, 3000, 3);
    let master = ScriptedMaster::honest(theirs);
    let house = House::start(root.path(), &master.slave_lines()).await;
    stands_still(&house, &format!("the log ends at {}, and the master's begins at {first}", ours.end())).await;
    assert_eq!(master.shared.connections(), 1);
    house.stop().await;
    assert_copy(root.path(), &ours);

    let house = House::start(root.path(), &format!("{}haRestartWhenGone=true\n", master.slave_lines())).await;
    let end = master.shared.log().end();
    holds(&house, end).await;
    let info = house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], b"").await;
    assert_eq!(offsets(&info), (first, end));
    house.stop().await;
    assert_copy(root.path(), &master.shared.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_slave_begins_where_the_masters_log_does() {
    let mut log = Log::at(7 * SEGMENT_LEN);
    log.add(50, 3000, 3);
    let master = ScriptedMaster::honest(log);
    let (root, house) = slave(&master, "").await;
    let end = master.shared.log().end();
    holds(&house, end).await;
    house.stop().await;
    assert_copy(root.path(), &master.shared.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_with_segments_of_another_length_is_not_followed() {
    let mut log = Log::at(7 * SEGMENT_LEN + 1024);
    log.add(5, 300, 3);
    let master = ScriptedMaster::honest(log);
    let (_root, house) = slave(&master, "").await;
    stands_still(&house, "its segments have another length").await;
    assert_eq!(master.shared.connections(), 1);
    holds(&house, 0).await;
    house.stop().await;
}

/// A disk that has no room for another segment for a while.
#[derive(Debug, Default)]
struct FullDisk {
    is_full: AtomicBool,
    refused: AtomicBool,
}

impl Disk for FullDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        if self.is_full.load(Ordering::SeqCst) && path.to_string_lossy().contains("commitlog") {
            self.refused.store(true, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        LocalDisk.create(path, len)
    }

    fn allocate(&self, file: &File, range: std::ops::Range<u64>) -> io::Result<()> {
        LocalDisk.allocate(file, range)
    }

    fn sync_range(&self, range: &MappedRange<'_>) -> io::Result<()> {
        LocalDisk.sync_range(range)
    }

    fn sync_file(&self, path: &Path, file: &File) -> io::Result<()> {
        LocalDisk.sync_file(path, file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        LocalDisk.sync_dir(dir)
    }

    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        LocalDisk.usage(path)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_copy_and_not_the_broker() {
    let master = ScriptedMaster::honest(a_log(10));
    let (root, disk) = (root_with_topic(), Arc::new(FullDisk::default()));
    let house = House::start_on(root.path(), &master.slave_lines(), Arc::clone(&disk) as Arc<dyn Disk>).await;
    let end = master.shared.log().end();
    holds(&house, end).await;
    disk.is_full.store(true, Ordering::SeqCst);
    master.shared.log().add(80, 4000, 9);
    let connections = master.shared.connections();
    until("a segment that is not made", || disk.refused.load(Ordering::SeqCst)).await;
    until("another try", || master.shared.connections() > connections).await;
    let read = house.pull_with("TopicA", "0", "0", &[]).await;
    assert_eq!(read.code, 0, "{}", remark(&read));
    disk.is_full.store(false, Ordering::SeqCst);
    let end = master.shared.log().end();
    holds(&house, end).await;
    house.stop().await;
    assert_copy(root.path(), &master.shared.log());
}

/// What the master still has may wait there for its time, and is not carried on yet.
#[tokio::test(flavor = "multi_thread")]
async fn old_segments_stay_as_long_as_the_master_has_them() {
    let closes = Arc::new(AtomicBool::new(false));
    let is_closing = Arc::clone(&closes);
    let act: Act = Box::new(move |shared, _, stream| {
        let closing = stream.try_clone().unwrap();
        let is_closing = Arc::clone(&is_closing);
        std::thread::spawn(move || {
            while !is_closing.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = closing.shutdown(std::net::Shutdown::Both);
        });
        shared.serve(stream);
    });
    let master = ScriptedMaster::start(a_log(80), act);
    let (_root, house) = slave(
        &master,
        "cleanResourceInterval=10\ndeleteCommitLogFilesInterval=0\ndeleteFileBatchMax=1000\nfileReservedTime=0\n",
    )
    .await;
    let end = master.shared.log().end();
    holds(&house, end).await;
    assert_eq!(house.ask(RequestCode::DELETE_EXPIRED_COMMITLOG, &[], b"").await.code, 0);
    // Nothing tells that somebody does nothing.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let first = |reply: &Command| offsets(reply).0;
    let info = house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], b"").await;
    assert_eq!(first(&info), 0);
    // Its first segments go; it is asked with the next connection at the latest.
    {
        let mut log = master.shared.log();
        log.bytes.drain(..2 * SEGMENT_LEN as usize);
        log.first = 2 * SEGMENT_LEN;
        log.starts.retain(|start| *start >= 2 * SEGMENT_LEN);
    }
    closes.store(true, Ordering::SeqCst);
    house.ask(RequestCode::DELETE_EXPIRED_COMMITLOG, &[], b"").await;
    let is_gone = |reply: &Command| first(reply) == 2 * SEGMENT_LEN;
    house.ask_until(RequestCode::GET_BROKER_RUNTIME_INFO, &[], is_gone).await;
    house.stop().await;
}
