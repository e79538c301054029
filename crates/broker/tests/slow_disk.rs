//! A disk that is slow, hangs or does not give what is on it: who waits, and who does not. One event loop serves all connections here.

mod support;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use ferromq_protocol::message::Records;
use ferromq_protocol::{Command, RequestCode, ResponseCode};
use ferromq_remoting::{Client, ClientConfig, Connection};
use ferromq_store::{Disk, DiskUsage, LocalDisk, MappedRange};
use parking_lot::{Condvar, Mutex};
use support::{House, PATIENCE, pull_request, remark, text};
use tokio::task::JoinHandle;

/// Holds what goes through it, and says how much it holds.
#[derive(Debug, Default)]
struct Gate {
    /// Closed or not, and who stands before it.
    state: Mutex<(bool, usize)>,
    moved: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.1 += 1;
        self.moved.notify_all();
        while state.0 {
            self.moved.wait(&mut state);
        }
        state.1 -= 1;
    }

    fn close(&self) {
        self.state.lock().0 = true;
    }

    fn open(&self) {
        self.state.lock().0 = false;
        self.moved.notify_all();
    }

    /// Waits until so many stand before it.
    async fn holds(self: &Arc<Gate>, count: usize) {
        let gate = Arc::clone(self);
        let held = move || {
            let mut state = gate.state.lock();
            while state.1 < count {
                assert!(!gate.moved.wait_for(&mut state, PATIENCE).timed_out(), "nobody came");
            }
        };
        tokio::task::spawn_blocking(held).await.unwrap();
    }
}

const BAD_SECTOR: i32 = 5;
const NO_DESCRIPTORS: i32 = 24;

/// A disk with the messages of `OLD` not in memory.
#[derive(Debug, Default)]
struct SlowDisk {
    cold: AtomicBool,
    /// What reads of old messages fail with, as the system numbers it; 0 when they do not.
    trouble: AtomicI32,
    failed: AtomicUsize,
    reads: Arc<Gate>,
    syncs: Arc<Gate>,
    /// Writes to the log that do not go through its mapping.
    writes: Arc<Gate>,
}

impl Disk for SlowDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        LocalDisk.create(path, len)
    }
    fn allocate(&self, file: &File, range: std::ops::Range<u64>) -> io::Result<()> {
        LocalDisk.allocate(file, range)
    }
    fn sync_range(&self, range: &MappedRange<'_>) -> io::Result<()> {
        self.syncs.pass();
        // So slow that the broker syncs on a thread of its own: one that hangs then, after a fast one, holds up the event loop, once.
        std::thread::sleep(Duration::from_millis(1));
        LocalDisk.sync_range(range)
    }
    fn sync_file(&self, path: &Path, file: &File) -> io::Result<()> {
        LocalDisk.sync_file(path, file)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        LocalDisk.sync_dir(dir)
    }
    fn is_resident(&self, range: &MappedRange<'_>) -> bool {
        let cold = self.cold.load(Ordering::SeqCst) && is_old(range.path, range.from as u64);
        !cold && LocalDisk.is_resident(range)
    }
    fn read(&self, path: &Path, file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
        if self.cold.load(Ordering::SeqCst) && is_old(path, at) {
            self.reads.pass();
        }
        let trouble = self.trouble.load(Ordering::SeqCst);
        if trouble != 0 && is_old(path, at) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(trouble));
        }
        LocalDisk.read(path, file, bytes, at)
    }
    fn write(&self, path: &Path, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if path.to_string_lossy().contains("/commitlog/") {
            self.writes.pass();
        }
        LocalDisk.write(path, file, bytes, at)
    }
    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        LocalDisk.usage(path)
    }
}

/// The first page of the log, the queues of the topic whose messages are there, and the index.
fn is_old(path: &Path, at: u64) -> bool {
    let path = path.to_string_lossy();
    path.contains("/OLD/") || path.contains("/index/") || path.contains("/commitlog/") && at < 4096
}

/// A broker with three old messages in queue 0 of `OLD` and one of each kind of other topic behind them in the log.
async fn house(root: &Path) -> (House, Arc<SlowDisk>) {
    let disk = Arc::new(SlowDisk::default());
    let house = House::start_on(root, "workerThreads=1\n", Arc::clone(&disk) as Arc<dyn Disk>).await;
    for body in [b"one", b"two", b"ten"] {
        assert_eq!(house.send("OLD", "0", "KEYS\u{1}k\u{2}", body).await.code, 0);
    }
    assert_eq!(house.send("Between", "0", "", &[0; 8192]).await.code, 0);
    assert_eq!(house.send("New", "0", "", b"new").await.code, 0);
    house.see("New", "0", 1).await;
    disk.cold.store(true, Ordering::SeqCst);
    (house, disk)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_hangs_is_told_of_in_time() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(SlowDisk::default());
    let more = "workerThreads=1\nflushDiskType=SYNC_FLUSH\nsyncFlushTimeout=50\n";
    let house = House::start_on(root.path(), more, Arc::clone(&disk) as Arc<dyn Disk>).await;
    disk.syncs.close();
    let reply = house.send("Topic", "0", "", b"hangs").await;
    assert_eq!(reply.response_code(), ResponseCode::FLUSH_DISK_TIMEOUT, "{reply:?}");
    // All others of the event loop have their answers too.
    let (client, peer) = another(&house).await;
    assert_eq!(peer.invoke(pull_request("Topic", "0", "0", &[]), PATIENCE).await.unwrap().code, 19);
    client.shutdown().await;
    disk.syncs.open();
    house.see("Topic", "0", 1).await;
    house.stop().await;
}

/// A disk that does not keep up with the write pool: sends are told to come later, as by Java's broker, and taken again when it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_write_pool_refuses_sends_for_a_while() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(SlowDisk::default());
    let more = "workerThreads=1\ntransientStorePoolEnable=true\nfastFailIfNoBufferInStorePool=true\nmappedFileSizeCommitLog=65536\n";
    let house = House::start_on(root.path(), more, Arc::clone(&disk) as Arc<dyn Disk>).await;
    assert_eq!(house.send("Topic", "0", "", b"shown").await.code, 0);
    house.see("Topic", "0", 1).await;
    let free = |count: &str| format!(r#""remainTransientStoreBufferNumbs":"{count}""#);
    house.ask_until(RequestCode::GET_BROKER_RUNTIME_INFO, &[], |info| text(info).contains(&free("5"))).await;
    disk.writes.close();
    let mut taken = 1;
    let refused = loop {
        let reply = house.send("Topic", "0", "", &[7; 10_000]).await;
        match reply.code {
            0 => taken += 1,
            // One that came before that was known.
            1 => {
                assert!(remark(&reply).starts_with("create mapped file failed, server is busy or broken."), "{reply:?}")
            }
            _ => break reply,
        }
    };
    assert_eq!(refused.response_code(), ResponseCode::SYSTEM_BUSY);
    let told = "[REJECTREQUEST]system busy, start flow control for a while";
    assert!(remark(&refused).starts_with(told), "{refused:?}");
    assert!(taken > 10, "{taken}");
    // What is only in the pool is shown to nobody, and others are served.
    let (client, peer) = another(&house).await;
    assert_eq!(peer.invoke(pull_request("Topic", "0", "1", &[]), PATIENCE).await.unwrap().code, 19);
    client.shutdown().await;
    disk.writes.open();
    house.see("Topic", "0", taken).await;
    house.ask_until(RequestCode::GET_BROKER_RUNTIME_INFO, &[], |info| text(info).contains(&free("5"))).await;
    assert_eq!(house.send("Topic", "0", "", b"again").await.code, 0);
    house.see("Topic", "0", taken + 1).await;
    house.stop().await;
}

/// A config file whose save does not come back, until this is dropped.
struct StuckSave(PathBuf);

impl StuckSave {
    /// Opening a pipe that nobody reads waits for ever, like a disk that hangs.
    fn of(table: &Path) -> StuckSave {
        let fresh = table.with_extension("json.tmp");
        assert!(std::process::Command::new("mkfifo").arg(&fresh).status().unwrap().success());
        StuckSave(fresh)
    }
}

impl Drop for StuckSave {
    fn drop(&mut self) {
        // Does not wait, since it is for writing too, and lets go who does.
        let opened = File::options().read(true).write(true).open(&self.0);
        let _ = std::fs::remove_file(&self.0);
        drop(opened);
    }
}

/// That a message is not on disk in time is the answer, whether or not its topic is.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_is_late_is_told_of_though_the_topic_is_not_saved() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(SlowDisk::default());
    let more = "workerThreads=1\nflushDiskType=SYNC_FLUSH\nsyncFlushTimeout=50\n";
    let house = House::start_on(root.path(), more, Arc::clone(&disk) as Arc<dyn Disk>).await;
    assert_eq!(house.send("Topic", "0", "", b"saved").await.code, 0);
    house.see("Topic", "0", 1).await;
    let stuck = StuckSave::of(&root.path().join("config/topics.json"));
    disk.syncs.close();
    let reply = house.send("NewTopic", "0", "", b"hangs").await;
    assert_eq!(reply.response_code(), ResponseCode::FLUSH_DISK_TIMEOUT, "{reply:?}");
    let back = [("offset", "0"), ("group", "CG"), ("delayLevel", "-1"), ("originTopic", "Topic")];
    let reply = house.ask(RequestCode::CONSUMER_SEND_MSG_BACK, &back, b"").await;
    assert_eq!((reply.code, remark(&reply)), (1, "FLUSH_DISK_TIMEOUT"));
    drop(stuck);
    disk.syncs.open();
    house.see("NewTopic", "0", 1).await;
    house.stop().await;
}

/// As long as what a topic has left is being removed, nobody begins a new one of its name: its messages would be removed too.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_being_deleted_does_not_come_back_meanwhile() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(SlowDisk::default());
    let house = House::start_on(root.path(), "workerThreads=1\n", Arc::clone(&disk) as Arc<dyn Disk>).await;
    assert_eq!(house.send("Topic", "0", "", b"old").await.code, 0);
    house.see("Topic", "0", 1).await;
    disk.syncs.close();
    let (client, peer) = another(&house).await;
    let deletion = ask(&peer, Command::request(RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", "Topic")].to_vec()));
    let topic = [("topic", "Topic")];
    house.ask_until(RequestCode::GET_TOPIC_CONFIG, &topic, |reply| reply.code == 17).await;
    let sent = house.send("Topic", "0", "", b"too early").await;
    let create = [
        ("topic", "Topic"),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "3"),
        ("writeQueueNums", "3"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
    ];
    let created = house.ask(RequestCode::UPDATE_AND_CREATE_TOPIC, &create, b"").await;
    let is_finished = deletion.is_finished();
    disk.syncs.open();
    assert_eq!((sent.code, created.code, is_finished), (17, 2, false));
    assert_eq!(deletion.await.unwrap().code, 0);
    let sent = house.send("Topic", "0", "", b"new").await;
    assert_eq!((sent.code, sent.field("queueOffset").as_deref()), (0, Some("0")));
    client.shutdown().await;
    house.stop().await;
}

fn ask(connection: &Connection, request: Command) -> JoinHandle<Command> {
    let connection = connection.clone();
    tokio::spawn(async move { connection.invoke(request, PATIENCE).await.unwrap() })
}

/// A client keeps one connection to an address: another one has its own.
async fn another(house: &House) -> (Client, Connection) {
    let client = Client::new(ClientConfig::default(), None);
    let connection = client.connect(&house.address).await.unwrap();
    (client, connection)
}

fn count(reply: &Command) -> usize {
    assert_eq!(reply.code, 0, "{reply:?}");
    Records::new(&reply.body).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_read_holds_up_nobody_else() {
    let root = tempfile::tempdir().unwrap();
    let (house, disk) = house(root.path()).await;
    disk.reads.close();
    let (client, peer) = another(&house).await;
    let slow = ask(&peer, pull_request("OLD", "0", "0", &[]));
    disk.reads.holds(1).await;
    // The read hangs. All others of the same event loop have their answers, those on the same connection too.
    assert_eq!(house.send("New", "0", "", b"newer").await.code, 0);
    assert_eq!(count(&house.pull("New", "0", "1").await), 1);
    assert_eq!(count(&peer.invoke(pull_request("New", "0", "0", &[]), PATIENCE).await.unwrap()), 2);
    assert!(!slow.is_finished());
    disk.reads.open();
    assert_eq!(count(&slow.await.unwrap()), 3);
    client.shutdown().await;
    house.stop().await;
}

/// What a pull says of the messages before it counts when it comes, not when the disk has given those after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_the_disk_is_not_a_late_one() {
    let root = tempfile::tempdir().unwrap();
    let (house, disk) = house(root.path()).await;
    disk.reads.close();
    let (client, peer) = another(&house).await;
    let slow = ask(&peer, pull_request("OLD", "0", "1", &[("sysFlag", "5"), ("commitOffset", "1")]));
    disk.reads.holds(1).await;
    let queue = [("consumerGroup", "CG"), ("topic", "OLD"), ("queueId", "0")];
    let committed = async || {
        let reply = house.ask(RequestCode::QUERY_CONSUMER_OFFSET, &queue, b"").await;
        reply.field("offset").map(|offset| offset.to_string())
    };
    let commit = [&queue[..], &[("commitOffset", "3")]].concat();
    let later = house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await;
    disk.reads.open();
    assert_eq!(later.code, 0);
    assert_eq!(count(&slow.await.unwrap()), 2);
    assert_eq!(committed().await.as_deref(), Some("3"));
    client.shutdown().await;
    house.stop().await;
}

/// That all messages of a queue are on disk is known without looking at them.
#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_old_messages_are_saved_without_reading_them() {
    let root = tempfile::tempdir().unwrap();
    let (house, disk) = house(root.path()).await;
    disk.trouble.store(BAD_SECTOR, Ordering::SeqCst);
    let commit = [("consumerGroup", "CG"), ("topic", "OLD"), ("queueId", "0"), ("commitOffset", "3")];
    assert_eq!(house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await.code, 0);
    // Answered when they are on disk.
    let copy = [("srcGroup", "CG"), ("destGroup", "CopyG"), ("topic", "OLD"), ("offline", "true")];
    assert_eq!(house.ask(RequestCode::CLONE_GROUP_OFFSET, &copy, b"").await.code, 0);
    assert_eq!(disk.failed.load(Ordering::SeqCst), 0);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_sector_is_an_error_of_one_request() {
    let root = tempfile::tempdir().unwrap();
    let (house, disk) = house(root.path()).await;
    disk.trouble.store(BAD_SECTOR, Ordering::SeqCst);
    let failed = house.pull_with("OLD", "0", "0", &[]).await;
    assert_eq!(failed.response_code(), ResponseCode::SYSTEM_ERROR);
    assert!(remark(&failed).contains("/OLD/0/00000000000000000000: Input/output error"), "{}", remark(&failed));
    assert_eq!(house.send("OLD", "0", "", b"more").await.code, 0);
    assert_eq!(count(&house.pull_with("New", "0", "0", &[]).await), 1);
    disk.trouble.store(0, Ordering::SeqCst);
    assert_eq!(count(&house.pull_with("OLD", "0", "0", &[]).await), 4);
    house.stop().await;
}

/// Every request that reads stored messages, with its fields, and its answers while the disk fails and afterwards.
fn all_that_read() -> Vec<(RequestCode, Vec<(&'static str, &'static str)>)> {
    let queue = vec![("topic", "OLD"), ("queueId", "0")];
    let with = |more: &[(&'static str, &'static str)]| [queue.clone(), more.to_vec()].concat();
    vec![
        (RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, with(&[("timestamp", "1")])),
        (RequestCode::GET_EARLIEST_MSG_STORETIME, queue.clone()),
        (RequestCode::QUERY_CONSUMER_OFFSET, with(&[("consumerGroup", "NEW_CG")])),
        (RequestCode::QUERY_CONSUME_QUEUE, with(&[("index", "0"), ("count", "3")])),
        (RequestCode::QUERY_CONSUME_TIME_SPAN, vec![("topic", "OLD"), ("group", "CG")]),
        (RequestCode::GET_TOPIC_STATS_INFO, vec![("topic", "OLD")]),
        (RequestCode::VIEW_MESSAGE_BY_ID, vec![("offset", "0")]),
        (
            RequestCode::QUERY_MESSAGE,
            vec![
                ("topic", "OLD"),
                ("key", "k"),
                ("maxNum", "9"),
                ("beginTimestamp", "0"),
                ("endTimestamp", "9999999999999"),
            ],
        ),
        (RequestCode::CONSUMER_SEND_MSG_BACK, vec![("offset", "0"), ("group", "CG"), ("delayLevel", "3")]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_reads_old_messages_waits_alone_and_fails_alone() {
    let root = tempfile::tempdir().unwrap();
    let (house, disk) = house(root.path()).await;
    for (code, fields) in all_that_read() {
        disk.trouble.store(BAD_SECTOR, Ordering::SeqCst);
        disk.reads.close();
        let request = || Command::request(code, &fields);
        let (client, peer) = another(&house).await;
        let slow = ask(&peer, request());
        disk.reads.holds(1).await;
        assert_eq!(house.send("New", "0", "", b"newer").await.code, 0, "{code}");
        assert!(!slow.is_finished(), "{code}");
        disk.reads.open();
        let failed = slow.await.unwrap();
        assert_eq!(failed.response_code(), ResponseCode::SYSTEM_ERROR, "{code}: {failed:?}");
        assert!(remark(&failed).contains("Input/output error"), "{code}: {failed:?}");
        disk.trouble.store(0, Ordering::SeqCst);
        let answered = peer.invoke(request(), PATIENCE).await.unwrap();
        assert_eq!(answered.code, 0, "{code}: {answered:?}");
        client.shutdown().await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_much_that_is_cold_waits_for_himself() {
    let root = tempfile::tempdir().unwrap();
    let (house, disk) = house(root.path()).await;
    disk.reads.close();
    let (client, greedy) = another(&house).await;
    let mut asked: Vec<_> = (0..600).map(|_| ask(&greedy, pull_request("OLD", "0", "0", &[]))).collect();
    // Beyond its share it is told that this broker is busy.
    let finished = || asked.iter().filter(|asked| asked.is_finished()).count();
    while finished() < 600 - 514 {
        tokio::task::yield_now().await;
    }
    // An honest peer's read comes at once, beside the two that the greedy one may have at a time.
    let honest = ask(&house.connection, pull_request("OLD", "0", "0", &[]));
    disk.reads.holds(3).await;
    disk.reads.open();
    assert_eq!(count(&honest.await.unwrap()), 3);
    let (mut read, mut refused) = (0, 0);
    for reply in asked.drain(..) {
        let reply = reply.await.unwrap();
        match reply.response_code() {
            ResponseCode::SYSTEM_BUSY => {
                assert!(remark(&reply).starts_with("[OVERLOAD]system busy, start flow control for a while: 512 "));
                refused += 1;
            }
            _ => {
                assert_eq!(count(&reply), 3);
                read += 1;
            }
        }
    }
    // Whether the first two were being read already when the last ones came is nobody's business.
    assert!(read + refused == 600 && (512..=514).contains(&read), "{read} read, {refused} refused");
    client.shutdown().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_and_cannot_be_read_for_a_moment_is_delivered_after_it() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(SlowDisk::default());
    let house = House::start_on(root.path(), "", Arc::clone(&disk) as Arc<dyn Disk>).await;
    disk.cold.store(true, Ordering::SeqCst);
    disk.trouble.store(NO_DESCRIPTORS, Ordering::SeqCst);
    assert_eq!(house.send("Level", "0", "DELAY\u{1}1\u{2}", b"by level").await.code, 0);
    assert_eq!(house.send("Timer", "0", "TIMER_DELAY_MS\u{1}1000\u{2}", b"by time").await.code, 0);
    assert_eq!(house.send("Between", "0", "", &[0; 8192]).await.code, 0);
    let tried = async {
        while disk.failed.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tried).await.expect("each is tried again");
    disk.trouble.store(0, Ordering::SeqCst);
    house.see("Level", "0", 1).await;
    house.see("Timer", "0", 1).await;
    house.stop().await;
}
