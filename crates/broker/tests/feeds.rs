//! What slaves get of a master on its replication port: raw sockets in the place of slaves.

mod support;

use std::path::Path;

use ferromq_broker::StartError;
use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::RequestCode;
use ferromq_protocol::body::{HaConnectionRuntimeInfo, HaRuntimeInfo, KvTable};
use ferromq_protocol::ha::encode_report;
use ferromq_replication::FEEDS_MAX;
use support::slave::Slave;
use support::{House, PATIENCE, json, start};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

const SEGMENT: u64 = 65_536;

/// Segments of 64 KiB; nobody is closed for his silence, and nothing comes by itself.
async fn house(root: &Path, more: &str) -> House {
    let more = format!(
        "mappedFileSizeCommitLog={SEGMENT}\ncleanResourceInterval=10\nhaHousekeepingInterval=600000\n\
         haSendHeartbeatInterval=3600000\n{more}"
    );
    House::start(root, &more).await
}

async fn send_many(house: &House, count: u32) {
    for _ in 0..count {
        assert_eq!(house.send("TopicA", "1", "", &[7; 5000]).await.code, 0);
    }
}

async fn log_bound(house: &House, name: &str) -> u64 {
    let info: KvTable = json(&house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[], b"").await);
    info.table[name].parse().unwrap()
}

async fn log_end(house: &House) -> u64 {
    log_bound(house, "commitLogMaxOffset").await
}

/// What the master's files have there.
fn log_bytes(root: &Path, from: u64, len: usize) -> Vec<u8> {
    let segment = from - from % SEGMENT;
    let bytes = std::fs::read(root.join(format!("commitlog/{segment:020}"))).unwrap();
    bytes[(from - segment) as usize..][..len].to_vec()
}

/// Takes what comes from `from` to `end`, without a gap, and holds it against the master's files.
async fn copy(slave: &mut Slave, root: &Path, from: u64, end: u64) {
    let mut at = from;
    while at < end {
        let packet = slave.packet().await.expect("the master goes on");
        assert_eq!(packet.at.0, at);
        if packet.body.is_empty() {
            continue;
        }
        assert!(at / SEGMENT == (at + packet.body.len() as u64 - 1) / SEGMENT, "no packet crosses a segment's end");
        assert_eq!(packet.body, log_bytes(root, at, packet.body.len()), "at {at}");
        at += packet.body.len() as u64;
    }
    assert_eq!(at, end);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_slave_gets_all_of_the_log_and_what_comes() {
    let root = tempfile::tempdir().unwrap();
    let house = house(root.path(), "").await;
    send_many(&house, 40).await;
    let end = log_end(&house).await;
    let mut slave = Slave::connect(&house).await;
    slave.report(0).await;
    copy(&mut slave, root.path(), 0, end).await;
    // Whatever comes is pushed: nothing is asked for any more.
    send_many(&house, 1).await;
    let more = log_end(&house).await;
    copy(&mut slave, root.path(), end, more).await;
    house.stop().await;
    assert_eq!(slave.closed().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_goes_on_where_it_is_and_hears_of_its_master_when_nothing_comes() {
    let root = tempfile::tempdir().unwrap();
    let house = house(root.path(), "haSendHeartbeatInterval=100\n").await;
    send_many(&house, 5).await;
    let end = log_end(&house).await;
    // Not a record's beginning: a Java slave stops anywhere. Of several reports the last counts, and only whole ones.
    let mut slave = Slave::connect(&house).await;
    let mut said = [encode_report(PhysicalOffset(0)), encode_report(PhysicalOffset(end - 77))].concat();
    said.extend_from_slice(&[0; 3]);
    slave.stream.write_all(&said).await.unwrap();
    copy(&mut slave, root.path(), end - 77, end).await;
    for _ in 0..3 {
        let heartbeat = slave.packet().await.unwrap();
        assert_eq!((heartbeat.at.0, heartbeat.body.len()), (end, 0));
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_that_has_what_the_log_has_not_is_closed_and_the_others_are_not() {
    let root = tempfile::tempdir().unwrap();
    let more = "deleteFileBatchMax=1000\ndeleteCommitLogFilesInterval=0\n";
    let house = house(root.path(), more).await;
    send_many(&house, 60).await;
    let end = log_end(&house).await;
    let mut good = Slave::connect(&house).await;
    good.report(end - 1).await;
    copy(&mut good, root.path(), end - 1, end).await;

    let refused = |report: u64| {
        let house = &house;
        async move {
            let mut slave = Slave::connect(house).await;
            slave.report(report).await;
            assert_eq!(slave.closed().await, 0, "{report}");
        }
    };
    refused(end + 1).await;
    // No offset at all.
    refused(u64::MAX >> 1).await;
    let mut negative = Slave::connect(&house).await;
    negative.stream.write_all(&[0xff; 8]).await.unwrap();
    assert_eq!(negative.closed().await, 0);

    // More than it was sent, later.
    let mut ahead = Slave::connect(&house).await;
    ahead.report(end).await;
    send_many(&house, 1).await;
    let grown = log_end(&house).await;
    copy(&mut ahead, root.path(), end, grown).await;
    ahead.report(grown + 1).await;
    assert_eq!(ahead.closed().await, 0);

    // What it would need is not kept any more.
    assert_eq!(house.ask(RequestCode::UPDATE_BROKER_CONFIG, &[], b"fileReservedBytes=200000\n").await.code, 0);
    let info = |command: &ferromq_protocol::Command| {
        let info: KvTable = json(command);
        info.table["commitLogMinOffset"].parse::<u64>().unwrap()
    };
    let moved = house.ask_until(RequestCode::GET_BROKER_RUNTIME_INFO, &[], |reply| info(reply) > 0).await;
    refused(1).await;
    let mut at_begin = Slave::connect(&house).await;
    at_begin.report(0).await;
    assert!(at_begin.packet().await.unwrap().at.0 >= info(&moved));

    send_many(&house, 1).await;
    copy(&mut good, root.path(), end, log_end(&house).await).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_closed_and_was_told_nothing() {
    let root = tempfile::tempdir().unwrap();
    // A packet is more than the kernel keeps for a socket.
    let more = "haHousekeepingInterval=300\nhaSendHeartbeatInterval=100\nhaTransferBatchSize=4194292\n";
    let house = House::start(root.path(), more).await;
    for _ in 0..40 {
        assert_eq!(house.send("TopicA", "1", "", &[7; 200_000]).await.code, 0);
    }
    assert_eq!(Slave::connect(&house).await.closed().await, 0);

    // Those who take nothing either are closed in the middle of a packet, and others take their places.
    let mut full = Vec::new();
    for _ in 0..FEEDS_MAX {
        let mut slave = Slave::connect_narrow(&house).await;
        slave.report(0).await;
        full.push(slave);
    }
    becomes_fed(&house).await;
    for slave in full {
        assert_eq!(slave.closed().await, 0);
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_slaves_and_no_more() {
    let root = tempfile::tempdir().unwrap();
    let house = house(root.path(), "haSendHeartbeatInterval=100\n").await;
    let mut slaves = Vec::new();
    for _ in 0..FEEDS_MAX {
        let mut slave = Slave::connect(&house).await;
        slave.report(0).await;
        slave.packet().await.unwrap();
        slaves.push(slave);
    }
    assert_eq!(Slave::connect(&house).await.closed().await, 0);
    // One that goes makes room.
    drop(slaves.pop());
    becomes_fed(&house).await;
    house.stop().await;
}

/// Returns once there is room for one more.
async fn becomes_fed(house: &House) {
    let fed = async {
        loop {
            let mut slave = Slave::connect(house).await;
            // The master may have closed already.
            let _ = slave.stream.write_all(&encode_report(PhysicalOffset(0))).await;
            if slave.packet().await.is_some() {
                return;
            }
        }
    };
    timeout(PATIENCE, fed).await.expect("there is never room for a slave");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_how_slaves_stand() {
    let root = tempfile::tempdir().unwrap();
    let house = house(root.path(), "haMaxGapNotInSync=1000\nhaTransferBatchSize=4194292\n").await;
    let status = |wanted: fn(&HaRuntimeInfo) -> bool| {
        let house = &house;
        async move {
            let reply = house.ask_until(RequestCode::GET_BROKER_HA_STATUS, &[], |reply| wanted(&json(reply))).await;
            json::<HaRuntimeInfo>(&reply)
        }
    };
    let mut empty = HaRuntimeInfo { master: true, ..HaRuntimeInfo::default() };
    assert_eq!(status(|_| true).await, empty);

    send_many(&house, 5).await;
    let end = log_end(&house).await;
    let mut slave = Slave::connect(&house).await;
    let silent = status(|info| !info.ha_connection_info.is_empty()).await;
    let addr = slave.stream.local_addr().unwrap().to_string();
    let of_slave = HaConnectionRuntimeInfo {
        addr,
        diff: end as i64 + 1,
        in_sync: false,
        slave_ack_offset: -1,
        transfer_from_where: -1,
        transferred_byte_in_second: 0,
    };
    assert_eq!(silent.ha_connection_info, [of_slave]);

    slave.report(0).await;
    copy(&mut slave, root.path(), 0, end).await;
    let behind = status(|info| info.ha_connection_info[0].transfer_from_where > 0).await;
    let shown = &behind.ha_connection_info[0];
    assert_eq!((shown.slave_ack_offset, shown.diff, shown.in_sync), (0, end as i64, false));
    assert_eq!((shown.transfer_from_where, behind.in_sync_slave_nums), (end as i64, 0));
    slave.report(end).await;
    let in_sync = status(|info| info.in_sync_slave_nums == 1).await;
    let shown = &in_sync.ha_connection_info[0];
    assert_eq!((shown.slave_ack_offset, shown.diff, shown.in_sync), (end as i64, 0, true));
    // 25 KB were sent within a second; they show in the one after it.
    let sent = status(|info| info.ha_connection_info[0].transferred_byte_in_second > 0).await;
    assert!(sent.ha_connection_info[0].transferred_byte_in_second >= end as i64);
    drop(slave);
    empty.master_commit_log_max_offset = end as i64;
    assert_eq!(status(|info| info.ha_connection_info.is_empty()).await, empty);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_port_in_use_stops_the_start() {
    let taken = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let root = tempfile::tempdir().unwrap();
    let busy = start(root.path(), &format!("haListenPort={port}\n")).await.err().expect("the port is in use");
    assert!(matches!(busy, StartError::HaPort { .. }), "{busy}");
    assert!(busy.to_string().contains("haListenPort") && busy.to_string().contains(&port.to_string()), "{busy}");
    assert!(!root.path().join("commitlog").exists(), "the store was not opened");
}
