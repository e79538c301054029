//! The scrub, as an operator sees it: through a real broker, on and off while it runs.

mod support;

use ferromq_protocol::RequestCode;
use ferromq_protocol::body::KvTable;
use support::{House, json, remark};

const SEGMENT: u64 = 65_536;
const SMALL: &str = "mappedFileSizeCommitLog=65536\nflushIntervalCommitLog=10\n";

async fn figure(house: &House, key: &str) -> Option<u64> {
    let info: KvTable = json(&house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], b"").await);
    Some(info.table.get(key)?.parse().unwrap())
}

async fn change(house: &House, line: &str) {
    let reply = house.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], line.as_bytes()).await;
    assert_eq!(reply.code, 0, "{}", remark(&reply));
}

async fn wait_for(house: &House, key: &str, wanted: impl Fn(u64) -> bool) {
    let is_so = |reply: &ferromq_protocol::Command| {
        let info: KvTable = json(reply);
        info.table.get(key).is_some_and(|value| wanted(value.parse().unwrap()))
    };
    house.ask_until(RequestCode::GET_BROKER_RUNTIME_INFO, &[], is_so).await;
}

fn threads() -> Vec<String> {
    let names = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path().join("comm"));
    // One may end meanwhile.
    names.filter_map(|name| Some(std::fs::read_to_string(name).ok()?.trim().to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_is_counted_once_it_is_looked_for() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), SMALL).await;
    for _ in 0..30 {
        let sent = house.send("TopicA", "1", "", &[7; 5000]).await;
        assert_eq!(sent.code, 0, "{}", remark(&sent));
    }
    // In the body of a message in the second segment.
    let file = root.path().join(format!("commitlog/{SEGMENT:020}"));
    let file = std::fs::File::options().write(true).open(file).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rot", 1000).unwrap();

    // Off, nothing is there.
    assert_eq!(figure(&house, "scrubBytesTotal").await, None);
    assert!(!threads().contains(&"scrub".to_owned()), "{:?}", threads());
    change(&house, "scrubBytesPerSecond=1000000000\n").await;
    wait_for(&house, "scrubDamagesTotal", |damages| damages == 1).await;
    // One that waits for days is woken by the next change; and off, it reads no more.
    change(&house, "scrubBytesPerSecond=1\n").await;
    let before = figure(&house, "scrubRoundsTotal").await.unwrap();
    change(&house, "scrubBytesPerSecond=1000000000\n").await;
    wait_for(&house, "scrubRoundsTotal", |rounds| rounds > before + 2).await;
    change(&house, "scrubBytesPerSecond=0\n").await;
    let refused = house.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], b"scrubBytesPerSecond=-1\n").await;
    assert!(refused.code == 1 && remark(&refused).contains("scrubBytesPerSecond"), "{}", remark(&refused));
    assert_eq!(figure(&house, "scrubDamagesTotal").await, Some(1));
    house.stop().await;

    // From the start on: a segment, and then nothing for hours, which a stop does not wait for.
    let house = House::start(root.path(), &format!("{SMALL}scrubBytesPerSecond=1\n")).await;
    assert!(threads().contains(&"scrub".to_owned()), "{:?}", threads());
    wait_for(&house, "scrubBytesTotal", |bytes| bytes == SEGMENT).await;
    assert_eq!(figure(&house, "scrubRoundsTotal").await, Some(0));
    house.stop().await;
}
