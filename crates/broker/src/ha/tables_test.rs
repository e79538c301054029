//! A slave's tables, from a broker of ours as its master, and from one that does as it is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferromq_config::Configuration as _;
use ferromq_protocol::body::{DataVersion, TopicConfigTable};
use ferromq_protocol::{QueueId, QueueOffset, Reply};
use ferromq_remoting::{ClientConfig, Outcome, Requests, Server, ServerConfig, Service};
use ferromq_store::{LocalDisk, Writer};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::*;
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::config::BrokerConfig;
use crate::ha::MasterCopies;
use crate::parts::{Ground, store_config};
use crate::standing::{Position, Role};
use crate::testing::PATIENCE as HANG;

/// A table may be asked for all the time.
const QUICK: Pace =
    Pace { period: Duration::from_millis(5), bytes_per_second: u32::MAX, period_max: Duration::from_millis(5) };

fn config(root: &std::path::Path, more: &str) -> BrokerConfig {
    let text = format!(
        "listenPort=0\nbrokerName=broker-a\nbrokerIP1=127.0.0.1\nnamesrvAddr=\nstorePathRootDir={}\n\
         mappedFileSizeCommitLog=8388608\nmaxHashSlotNum=1000\nmaxIndexNum=4000\nmessageDelayLevel=1s 1h\n\
         osPageCacheBusyTimeOutMills=300000\n{more}",
        root.display()
    );
    BrokerConfig::complete(BrokerConfig::parse(&text, &root.join("broker.conf")).unwrap()).unwrap()
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(HANG, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// A broker of ours, and who asks it.
struct Master {
    _root: tempfile::TempDir,
    broker: Broker,
    address: String,
    client: Client,
}

impl Master {
    async fn start() -> Master {
        let root = tempfile::tempdir().unwrap();
        let broker = Broker::start(config(root.path(), ""), None).await.unwrap();
        let address = format!("127.0.0.1:{}", broker.local_addr().port());
        Master { _root: root, broker, address, client: Client::new(ClientConfig::default(), None) }
    }

    async fn ask(&self, code: RequestCode, fields: &[(&str, &str)], body: &str) -> Command {
        let request = Command::request(code, &fields.to_vec()).with_body(body.as_bytes().to_vec());
        let reply = self.client.invoke(&self.address, request, HANG).await.unwrap();
        assert_eq!(reply.code, 0, "{code:?} {fields:?}: {reply:?}");
        reply
    }

    async fn topic(&self, topic: &str) {
        let fields = [
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", "2"),
            ("writeQueueNums", "2"),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("order", "false"),
        ];
        self.ask(RequestCode::UPDATE_AND_CREATE_TOPIC, &fields, "").await;
    }

    async fn group(&self, group: &str) {
        let body = format!(r#"{{"groupName":"{group}","retryMaxTimes":3}}"#);
        self.ask(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], &body).await;
    }

    async fn commit(&self, group: &str, queue: &str, offset: &str) {
        let fields = [("consumerGroup", group), ("topic", "TopicA"), ("queueId", queue), ("commitOffset", offset)];
        self.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &fields, "").await;
    }

    async fn committed(&self, group: &str, queue: &str) -> Option<String> {
        let fields =
            [("consumerGroup", group), ("topic", "TopicA"), ("queueId", queue), ("setZeroIfNotFound", "false")];
        let request = Command::request(RequestCode::QUERY_CONSUMER_OFFSET, &fields.to_vec());
        let reply = self.client.invoke(&self.address, request, HANG).await.unwrap();
        reply.field("offset").map(|offset| offset.into_owned())
    }

    async fn send(&self, properties: &str) {
        let born = now_ms().to_string();
        let fields = [
            ("a", "PG"),
            ("b", "TopicA"),
            ("c", "TBW102"),
            ("d", "2"),
            ("e", "0"),
            ("f", "0"),
            ("g", &*born),
            ("h", "0"),
            ("i", properties),
        ];
        self.ask(RequestCode::SEND_MESSAGE_V2, &fields, "body").await;
    }

    async fn end_of_queue(&self, topic: &str) -> u64 {
        let fields = [("topic", topic), ("queueId", "0")];
        self.ask(RequestCode::GET_MAX_OFFSET, &fields, "").await.field("offset").unwrap().parse().unwrap()
    }

    async fn delivered(&self, count: u64) {
        let deadline = Instant::now() + HANG;
        while self.end_of_queue("TopicA").await < count {
            assert!(Instant::now() < deadline, "it is not delivered");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn table<T: DeserializeOwned>(&self, code: RequestCode) -> T {
        json::from_slice(&self.ask(code, &[], "").await.body).unwrap()
    }

    /// Its log, as it is in the file.
    fn log(&self) -> Vec<u8> {
        let file = self._root.path().join("commitlog/00000000000000000000");
        std::fs::read(file).unwrap()
    }

    async fn log_end(&self) -> u64 {
        let figures: KvTable = self.table(RequestCode::GET_BROKER_RUNTIME_INFO).await;
        figures.table["commitLogMaxOffset"].parse().unwrap()
    }

    async fn stop(self) {
        self.client.shutdown().await;
        self.broker.shutdown().await;
    }
}

/// The parts of a broker that is a slave, and what asks its master.
struct Slave {
    root: tempfile::TempDir,
    parts: Parts,
    client: Client,
    asking: Option<JoinHandle<()>>,
}

impl Slave {
    /// Asks nobody yet.
    fn open() -> Slave {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path(), "");
        let store = Store::open(store_config(&config, Arc::new(LocalDisk)).unwrap()).unwrap();
        let ground = Ground::open(config.clone(), None, Arc::new(store)).unwrap();
        let copies = Arc::new(MasterCopies::new(&config, Arc::clone(&ground.store), None));
        let parts = Parts::open(ground, copies, 10_911, 10_912).unwrap();
        parts.connect();
        parts.store.set_writer(Writer::Stream).unwrap();
        parts.change_role(Position { role: Role::Slave { id: 1 }, epoch: 0 });
        Slave { root, parts, client: Client::new(ClientConfig::default(), None), asking: None }
    }

    fn follow(address: &str) -> Slave {
        let mut slave = Slave::open();
        slave.name(address);
        slave.ask();
        slave
    }

    fn name(&self, address: &str) {
        self.parts.follower_status.follows(address.to_owned());
    }

    fn ask(&mut self) {
        self.asking = Some(tokio::spawn(TableCopies::new(&self.parts, &self.client).at_pace(QUICK).run()));
    }

    async fn ask_no_more(&mut self) {
        if let Some(asking) = self.asking.take() {
            asking.abort();
            let _ = asking.await;
        }
    }

    fn committed(&self, group: &str, queue: u32) -> Option<u64> {
        self.parts.offsets.committed("TopicA", group, QueueId(queue)).map(|offset| offset.0)
    }

    async fn has_topic(&self, topic: &str) {
        until("the topic does not come", || self.parts.topics.contains(topic)).await;
    }

    async fn has_offset(&self, group: &str, queue: u32, offset: u64) {
        until("the offset does not come", || self.committed(group, queue) == Some(offset)).await;
    }

    /// What the master has of the log, as the stream brings it.
    async fn copy_log(&self, master: &Master) {
        let (end, at) = (master.log_end().await as usize, self.parts.store.watermarks().written);
        let bytes = master.log();
        let taken = self.parts.store.append_copy(at, &bytes[at.0 as usize..end]).unwrap();
        assert_eq!(at.0 as usize + taken, end);
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join("config").join(name)
    }

    async fn stop(mut self) {
        self.ask_no_more().await;
        self.client.shutdown().await;
        tokio::task::spawn_blocking(move || self.parts.close().unwrap()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_has_what_its_master_has() {
    let master = Master::start().await;
    master.topic("TopicA").await;
    master.group("GroupA").await;
    master.commit("GroupA", "1", "7").await;
    let forbid = [("group", "GroupA"), ("topic", "TopicA"), ("readable", "false")];
    master.ask(RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN, &forbid, "").await;
    let slave = Slave::follow(&master.address);
    slave.parts.offsets.commit("TopicB", "Here", QueueId(0), 3);
    slave.has_offset("GroupA", 1, 7).await;
    until("the tables are not equal", || slave.parts.groups.contains("GroupA")).await;
    let topics: TopicConfigTable = master.table(RequestCode::GET_ALL_TOPIC_CONFIG).await;
    let copied = slave.parts.topics.snapshot();
    assert_eq!((&copied.topic_config_table, &copied.data_version), (&topics.topic_config_table, &topics.data_version));
    assert_eq!(slave.parts.groups.snapshot(), master.table(RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG).await);
    assert!(slave.parts.groups.forbidden("GroupA", "TopicA") > 0);
    // A restart finds them too.
    slave.parts.topics.wait_saved().unwrap();
    let saved: TopicConfigTable = json::from_file(&std::fs::read(slave.file("topics.json")).unwrap()).unwrap();
    assert_eq!(saved, copied);

    // What is equal is left alone.
    let (changes, groups) = (slave.parts.topics.changes(), slave.parts.groups.changes());
    master.commit("GroupA", "1", "8").await;
    slave.has_offset("GroupA", 1, 8).await;
    master.commit("GroupA", "1", "9").await;
    slave.has_offset("GroupA", 1, 9).await;
    assert_eq!((slave.parts.topics.changes(), slave.parts.groups.changes()), (changes, groups));

    master.topic("TopicB").await;
    slave.has_topic("TopicB").await;
    master.ask(RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", "TopicA")], "").await;
    master.ask(RequestCode::DELETE_SUBSCRIPTIONGROUP, &[("groupName", "GroupA")], "").await;
    let gone = || !slave.parts.topics.contains("TopicA") && !slave.parts.groups.contains("GroupA");
    until("what is deleted stays", gone).await;
    until("its offsets stay", || !slave.parts.offsets.knows_topic("TopicA")).await;
    assert_eq!(slave.parts.groups.forbidden("GroupA", "TopicA"), 0);
    // Nobody but this broker has it.
    assert_eq!(slave.parts.offsets.committed("TopicB", "Here", QueueId(0)), Some(QueueOffset(3)));
    slave.stop().await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_counts_once_its_copy_is_here() {
    let master = Master::start().await;
    master.topic("TopicA").await;
    // One level is due in a second, two timers are in a while, in different seconds, and one is much later.
    master.send("DELAY\u{1}1\u{2}").await;
    for wait_ms in [700, 2_000, 3_600_000] {
        let due = (now_ms() + wait_ms).to_string();
        master.send(&format!("TIMER_DELIVER_MS\u{1}{due}\u{2}")).await;
    }
    master.delivered(3).await;
    let told = |reply: Command| TimerCheckPoint::decode(&reply.body).unwrap();
    let deadline = Instant::now() + HANG;
    while told(master.ask(RequestCode::GET_TIMER_CHECK_POINT, &[], "").await).master_timer_queue_offset < 3 {
        assert!(Instant::now() < deadline);
    }
    let mut slave = Slave::follow(&master.address);
    for topic in ["One", "Two", "Three"] {
        master.topic(topic).await;
        slave.has_topic(topic).await;
    }
    assert!(!slave.file("delayOffset.json").exists() && !slave.file("timercheck").exists());
    std::fs::create_dir_all(slave.root.path().join("timers")).unwrap();
    slave.copy_log(&master).await;
    until("the progress does not come", || {
        slave.file("delayOffset.json").exists() && slave.file("timercheck").exists()
    })
    .await;
    until("what it knew of timers stays", || !slave.root.path().join("timers").exists()).await;
    let delays: DelayOffsetTable = json::from_file(&std::fs::read(slave.file("delayOffset.json")).unwrap()).unwrap();
    assert_eq!(delays.offset_table.get(&1), Some(&1));
    let end = master.end_of_queue("TopicA").await;
    master.stop().await;

    // It is the master now: nothing of what was delivered comes again but what was due in the last second.
    slave.ask_no_more().await;
    slave.parts.change_role(Position { role: Role::Master, epoch: 1 });
    let parts = (Arc::clone(&slave.parts.store), Arc::clone(&slave.parts.master_duties));
    let again = tokio::task::spawn_blocking(move || {
        let (store, duties) = parts;
        store.set_writer(Writer::Local).unwrap();
        duties.start().unwrap();
        duties.settle();
        assert_eq!(duties.held().unwrap().timers.progress().waiting, 1);
        store.queue_bounds("TopicA", QueueId(0)).unwrap().max.0
    });
    let again = again.await.unwrap() - end;
    assert!(again <= 1, "{again} came again");
    slave.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_commit_to_a_slave_goes_to_its_master_first() {
    let master = Master::start().await;
    master.topic("TopicA").await;
    master.group("GroupA").await;
    for (queue, offset) in [("0", "10"), ("1", "20")] {
        master.commit("GroupA", queue, offset).await;
    }
    let mut slave = Slave::follow(&master.address);
    slave.has_topic("TopicA").await;
    slave.has_offset("GroupA", 1, 20).await;
    slave.ask_no_more().await;

    // The master is not to be reached meanwhile. One is ahead of it, the other behind; a third it does not know.
    master.commit("GroupA", "1", "22").await;
    for (group, queue, offset) in [("GroupA", 0, 15), ("GroupA", 1, 21), ("New", 0, 4)] {
        assert_eq!(
            slave.parts.offsets.commit("TopicA", group, QueueId(queue), offset),
            crate::consumer_offsets::Commit::Done
        );
    }
    assert!(slave.parts.groups.may_commit("New") && !slave.parts.groups.contains("New"));
    slave.ask();
    slave.has_offset("GroupA", 1, 22).await;
    assert_eq!(master.committed("GroupA", "0").await.as_deref(), Some("15"));
    assert_eq!((slave.committed("GroupA", 0), slave.committed("New", 0)), (Some(15), Some(4)));
    // A group that the master has not heard of waits until it has.
    master.topic("Two").await;
    slave.has_topic("Two").await;
    assert_eq!((master.committed("New", "0").await, slave.committed("New", 0)), (None, Some(4)));
    master.group("New").await;
    let deadline = Instant::now() + HANG;
    while master.committed("New", "0").await.as_deref() != Some("4") {
        assert!(Instant::now() < deadline, "the new group's offset does not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until("something is left to be told", || slave.parts.offsets.own_commits().is_empty()).await;
    // From now on the master's counts again.
    master.commit("New", "0", "3").await;
    slave.has_offset("New", 0, 3).await;
    slave.stop().await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_master_has_reset_stays_so() {
    let master = Master::start().await;
    master.topic("TopicA").await;
    master.group("GroupA").await;
    master.send("").await;
    master.commit("GroupA", "0", "10").await;
    let mut slave = Slave::follow(&master.address);
    slave.has_topic("TopicA").await;
    slave.copy_log(&master).await;
    slave.has_offset("GroupA", 0, 10).await;
    slave.ask_no_more().await;
    slave.parts.offsets.commit("TopicA", "GroupA", QueueId(0), 20);
    let reset = [
        ("topic", "TopicA"),
        ("group", "GroupA"),
        ("timestamp", "0"),
        ("isForce", "true"),
        ("queueId", "0"),
        ("offset", "0"),
    ];
    master.ask(RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &reset, "").await;
    assert_eq!(master.committed("GroupA", "0").await.as_deref(), Some("0"));
    slave.ask();
    slave.has_offset("GroupA", 0, 0).await;
    assert_eq!(master.committed("GroupA", "0").await.as_deref(), Some("0"));
    slave.stop().await;
    master.stop().await;
}

/// A master that answers what it is told to, and counts.
#[derive(Default)]
struct Script {
    bodies: Mutex<std::collections::HashMap<i32, Vec<u8>>>,
    fields: Mutex<Vec<(i32, &'static str, String)>>,
    /// What is answered where there is no body.
    refusals: Mutex<std::collections::HashMap<i32, ResponseCode>>,
    asked: Mutex<Vec<i32>>,
    silent: AtomicBool,
}

impl Script {
    fn says(&self, code: RequestCode, body: &str) {
        self.bodies.lock().insert(code.0, body.as_bytes().to_vec());
    }

    fn asked(&self, code: RequestCode) -> usize {
        self.asked.lock().iter().filter(|asked| **asked == code.0).count()
    }

    async fn is_asked_again(&self, code: RequestCode) {
        // The one under way may have been answered before.
        let before = self.asked(code);
        until("it is not asked again", || self.asked(code) >= before + 2).await;
    }
}

struct Scripted(Arc<Script>);

impl Service for Scripted {
    fn serve(&self, requests: &mut Requests<'_>) {
        requests.each(|_, request| {
            self.0.asked.lock().push(request.code);
            if self.0.silent.load(Ordering::SeqCst) {
                return Outcome::Deferred;
            }
            let fields: Vec<(&'static str, String)> = (self.0.fields.lock().iter())
                .filter(|(code, ..)| *code == request.code)
                .map(|(_, name, value)| (*name, value.clone()))
                .collect();
            let body = self.0.bodies.lock().get(&request.code).cloned();
            Outcome::Reply(match body {
                Some(body) => Reply::ok().header(fields).body(body),
                None => {
                    let refusal = self.0.refusals.lock().get(&request.code).copied();
                    Reply::error(refusal.unwrap_or(ResponseCode::SYSTEM_ERROR), "not today")
                }
            })
        });
        requests.reply();
    }
}

async fn scripted() -> (Arc<Script>, Server) {
    let script = Arc::<Script>::default();
    let config = ServerConfig { listen: ([127, 0, 0, 1], 0).into(), ..ServerConfig::default() };
    let server = Server::bind(config, Arc::new(Scripted(Arc::clone(&script)))).await.unwrap();
    (script, server)
}

fn topics(counter: i64, topics: &str) -> String {
    format!(
        r#"{{"dataVersion":{{"counter":{counter},"stateVersion":0,"timestamp":5}},"topicConfigTable":{{{topics}}}}}"#
    )
}

fn end_of_log(end: u64) -> String {
    format!(r#"{{"table":{{"commitLogMaxOffset":"{end}"}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_fails_fails_by_itself() {
    let (script, server) = scripted().await;
    let slave = Slave::follow(&server.local_addr().to_string());
    script.is_asked_again(RequestCode::GET_ALL_TOPIC_CONFIG).await;
    script.is_asked_again(RequestCode::GET_ALL_CONSUMER_OFFSET).await;
    // Nothing came of progress, so nobody needs to know where the log ends.
    assert_eq!(script.asked(RequestCode::GET_BROKER_RUNTIME_INFO), 0);
    let built_in = slave.parts.topics.names().len();
    for body in ["", "{", "[]", "null", r#"{"other":1}"#, &topics(3, r#""T":{"perm":"x"}"#)] {
        script.says(RequestCode::GET_ALL_TOPIC_CONFIG, body);
        script.is_asked_again(RequestCode::GET_ALL_TOPIC_CONFIG).await;
        assert_eq!(slave.parts.topics.names().len(), built_in, "{body}");
    }
    // Of these none can be believed but one.
    let long = "x".repeat(256);
    let many = format!(
        r#""T/T":{{}},"":{{}}," ":{{}},"a@b":{{}},"{long}":{{}},"Wide":{{"readQueueNums":65537}},"Less":{{"writeQueueNums":-1}},"Good":{{"topicName":"Bad","perm":6}}"#
    );
    script.says(RequestCode::GET_ALL_TOPIC_CONFIG, &topics(4, &many));
    until("the topic does not come", || slave.parts.topics.names() == ["Good"]).await;
    assert_eq!(&*slave.parts.topics.find("Good").unwrap().topic_name, "Good");
    // The groups still do not come, offsets do, and not those that are of no queue.
    script.says(
        RequestCode::GET_ALL_CONSUMER_OFFSET,
        r#"{"offsetTable":{"Good@G":{0:5,-1:7},"@G":{0:1},"Good@":{0:1},"none":{0:1},"Good@G@broadcast":{"1":2}}}"#,
    );
    script.says(RequestCode::GET_BROKER_RUNTIME_INFO, &end_of_log(0));
    let has = |group: &str, queue| slave.parts.offsets.committed("Good", group, QueueId(queue)).map(|offset| offset.0);
    until("the offsets do not come", || has("G@broadcast", 1) == Some(2)).await;
    assert_eq!((has("G", 0), slave.parts.offsets.snapshot().offset_table.len()), (Some(5), 2));
    assert_eq!(slave.parts.groups.data_version().counter, 0);
    // Numbers of progress that cannot be.
    script.says(RequestCode::GET_ALL_DELAY_OFFSET, r#"{"offsetTable":{0:1,-3:1,1:-1,2:5,5000:1}}"#);
    let read = [i64::MAX, 5, 6, -7, 0, 0, 0].map(i64::to_be_bytes).concat();
    script.bodies.lock().insert(RequestCode::GET_TIMER_CHECK_POINT.0, read);
    until("the progress does not come", || slave.file("timercheck").exists()).await;
    until("the delays do not come", || slave.file("delayOffset.json").exists()).await;
    let delays: DelayOffsetTable = json::from_file(&std::fs::read(slave.file("delayOffset.json")).unwrap()).unwrap();
    assert_eq!(delays.offset_table.into_iter().collect::<Vec<_>>(), [(2, 5)]);
    let known = TimerCheckPoint::decode(&std::fs::read(slave.file("timercheck")).unwrap()).unwrap();
    assert!(known.last_read_time_ms <= now_ms() && known.master_timer_queue_offset == 0, "{known:?}");
    slave.stop().await;
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_lost_its_newest_offsets_gets_them_back_and_one_that_was_reset_does_not() {
    let (script, server) = scripted().await;
    let offsets = |timestamp: i64, offset: i64| {
        let version = format!(r#"{{"counter":1,"stateVersion":0,"timestamp":{timestamp}}}"#);
        format!(r#"{{"dataVersion":{version},"offsetTable":{{"T@G":{{0:{offset}}}}}}}"#)
    };
    script.says(RequestCode::GET_ALL_CONSUMER_OFFSET, &offsets(50, 100));
    script.says(RequestCode::GET_BROKER_RUNTIME_INFO, &end_of_log(0));
    let mut slave = Slave::follow(&server.local_addr().to_string());
    let has = |slave: &Slave| slave.parts.offsets.committed("T", "G", QueueId(0)).map(|offset| offset.0);
    until("the offsets do not come", || has(&slave) == Some(100)).await;
    slave.ask_no_more().await;
    slave.parts.offsets.commit("T", "G", QueueId(0), 120);
    // It began again with an older file.
    script.says(RequestCode::GET_ALL_CONSUMER_OFFSET, &offsets(40, 95));
    script.says(RequestCode::QUERY_CONSUMER_OFFSET, "");
    script.fields.lock().push((RequestCode::QUERY_CONSUMER_OFFSET.0, "offset", "95".into()));
    slave.ask();
    // Refused, and by a master that knows the group no more: it is tried again, and stays what it is.
    script.is_asked_again(RequestCode::UPDATE_CONSUMER_OFFSET).await;
    let unknown = ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST;
    script.refusals.lock().insert(RequestCode::UPDATE_CONSUMER_OFFSET.0, unknown);
    for _ in 0..2 {
        script.is_asked_again(RequestCode::GET_BROKER_RUNTIME_INFO).await;
    }
    assert_eq!(has(&slave), Some(120));
    script.says(RequestCode::UPDATE_CONSUMER_OFFSET, "");
    until("nothing is told", || slave.parts.offsets.own_commits().is_empty()).await;
    until("it is not the master's that counts", || has(&slave) == Some(95)).await;
    slave.ask_no_more().await;

    // With a newer version it has been set back there.
    let told = script.asked(RequestCode::UPDATE_CONSUMER_OFFSET);
    slave.parts.offsets.commit("T", "G", QueueId(0), 130);
    script.says(RequestCode::GET_ALL_CONSUMER_OFFSET, &offsets(60, 90));
    *script.fields.lock() = vec![(RequestCode::QUERY_CONSUMER_OFFSET.0, "offset", "90".into())];
    slave.ask();
    until("it is not set back", || has(&slave) == Some(90)).await;
    assert_eq!(script.asked(RequestCode::UPDATE_CONSUMER_OFFSET), told);
    slave.stop().await;
    server.shutdown(Duration::ZERO).await;
}

/// Nobody has none: every broker has some of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_nothing_in_it_is_not_taken() {
    let (script, server) = scripted().await;
    let slave = Slave::follow(&server.local_addr().to_string());
    for code in [RequestCode::GET_ALL_TOPIC_CONFIG, RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG] {
        script.says(code, r#"{"dataVersion":{"counter":7,"stateVersion":0,"timestamp":9999999999999}}"#);
        // The second answer comes after the first was looked at.
        for _ in 0..2 {
            script.is_asked_again(code).await;
        }
    }
    assert!(slave.parts.topics.contains("TBW102") && slave.parts.groups.contains("TOOLS_CONSUMER"));
    slave.stop().await;
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_followed_no_more_is_not_asked() {
    let (script, server) = scripted().await;
    let slave = Slave::follow(&server.local_addr().to_string());
    script.is_asked_again(RequestCode::GET_ALL_TOPIC_CONFIG).await;
    slave.parts.follower_status.follows_nobody();
    let (other, other_server) = scripted().await;
    slave.name(&other_server.local_addr().to_string());
    other.is_asked_again(RequestCode::GET_ALL_TOPIC_CONFIG).await;
    // What was under way has come by then.
    let before = script.asked.lock().len();
    for _ in 0..5 {
        other.is_asked_again(RequestCode::GET_ALL_TOPIC_CONFIG).await;
    }
    assert_eq!(script.asked.lock().len(), before);
    slave.stop().await;
    server.shutdown(Duration::ZERO).await;
    other_server.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_slave_any_more_asks_nobody_and_takes_nothing() {
    let (script, server) = scripted().await;
    let slave = Slave::follow(&server.local_addr().to_string());
    script.is_asked_again(RequestCode::GET_ALL_TOPIC_CONFIG).await;
    script.silent.store(true, Ordering::SeqCst);
    let before = script.asked(RequestCode::GET_ALL_TOPIC_CONFIG);
    until("it is not asked", || script.asked.lock().len() > before).await;
    slave.parts.change_role(Position { role: Role::Master, epoch: 1 });
    let table =
        TopicConfigTable { data_version: DataVersion { counter: 9, ..DataVersion::default() }, ..Default::default() };
    assert!(slave.parts.topics.take_over(table).unwrap().is_empty() && slave.parts.topics.contains("TBW102"));
    slave.parts.groups.take_over(Default::default()).unwrap();
    assert!(slave.parts.groups.contains("TOOLS_CONSUMER"));
    slave.stop().await;
    server.shutdown(Duration::ZERO).await;
}

#[test]
fn a_long_table_is_asked_for_seldomer() {
    let pace = Pace::default();
    let seconds = |len| pace.after(len).as_secs();
    assert_eq!([seconds(0), seconds(300 * 1024), seconds(1024 * 1024), seconds(16 << 20)], [3, 3, 10, 60]);
}
