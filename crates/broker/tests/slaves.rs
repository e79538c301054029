//! What a slave asks its master, in bytes as a Java slave reads them.

mod support;

use ferromq_protocol::RequestCode;
use ferromq_protocol::body::TimerCheckPoint;
use support::{House, field, remark, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_master_tells_how_far_its_timers_are() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let nothing = house.ask(RequestCode::GET_TIMER_CHECK_POINT, &[], b"").await;
    let begin = TimerCheckPoint::decode(&nothing.body).unwrap();
    assert_eq!((begin.last_read_time_ms, begin.master_timer_queue_offset), (0, 0));

    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let due = (before + 500).to_string();
    assert_eq!(house.send("TopicA", "0", &format!("TIMER_DELIVER_MS\u{1}{due}\u{2}"), b"soon").await.code, 0);
    house.send("TopicA", "0", "TIMER_DELAY_SEC\u{1}3600\u{2}", b"late").await;
    assert_eq!(house.pull("TopicA", "0", "0").await.code, 0);
    let delivered = |reply: &ferromq_protocol::Command| {
        let told = TimerCheckPoint::decode(&reply.body).unwrap();
        told.last_read_time_ms > 0 && told.master_timer_queue_offset == 2
    };
    let told = house.ask_until(RequestCode::GET_TIMER_CHECK_POINT, &[], delivered).await;
    assert_eq!(told.body.len(), 56);
    let told = TimerCheckPoint::decode(&told.body).unwrap();
    assert_eq!((told.last_read_time_ms % 1000, told.last_timer_queue_offset), (0, 2));
    // The second of the message may have been delivered in part.
    let due: i64 = due.parse().unwrap();
    assert!((due - 999..=due + 1).contains(&told.last_read_time_ms), "{} for {due}", told.last_read_time_ms);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_timers_has_no_checkpoint_of_them() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "timerWheelEnable=false\n").await;
    let refused = house.ask(RequestCode::GET_TIMER_CHECK_POINT, &[], b"").await;
    assert_eq!((refused.code, remark(&refused)), (1, "The checkpoint is null"));
    let refused = house.ask(RequestCode::GET_TIMER_METRICS, &[], b"").await;
    assert_eq!((refused.code, remark(&refused)), (1, "The timer message store is null"));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_this_broker_has_nothing_in_are_empty_ones() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let metrics = text(&house.ask(RequestCode::GET_TIMER_METRICS, &[], b"").await);
    assert!(metrics.starts_with(r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":1"#), "{metrics}");
    assert!(metrics.ends_with(r#"},"timingCount":{}}"#), "{metrics}");
    // With an equal version a slave leaves alone what it has.
    assert_eq!(text(&house.ask(RequestCode::GET_TIMER_METRICS, &[], b"").await), metrics);
    let modes = house.ask(RequestCode::GET_ALL_MESSAGE_REQUEST_MODE, &[], b"").await;
    assert_eq!(text(&modes), r#"{"messageRequestModeMap":{}}"#);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_tells_where_it_is_and_is_told_nothing() {
    let root = tempfile::tempdir().unwrap();
    let more = "brokerIP2=127.0.0.2\n";
    let house = House::start(root.path(), more).await;
    house.send("TopicA", "0", "", b"one").await;
    for fields in [&[][..], &[("masterFlushOffset", "7")][..]] {
        let told = house.ask(RequestCode::EXCHANGE_BROKER_HA_INFO, fields, b"").await;
        assert_eq!(told.code, 0);
        assert_eq!(field(&told, "masterHaAddress"), format!("127.0.0.2:{}", house.broker.ha_addr().port()));
        assert_eq!(field(&told, "masterAddress"), house.address);
        // Where its log ended at the start.
        assert_eq!(field(&told, "masterFlushOffset"), "0");
    }
    let told = house.ask(RequestCode::EXCHANGE_BROKER_HA_INFO, &[("masterHaAddress", "127.0.0.1:1")], b"").await;
    assert_eq!((told.code, told.field("masterHaAddress")), (0, None));
    house.stop().await;

    let house = House::start(root.path(), more).await;
    let told = house.ask(RequestCode::EXCHANGE_BROKER_HA_INFO, &[], b"").await;
    assert!(field(&told, "masterFlushOffset").parse::<u64>().unwrap() > 0);
    house.stop().await;
}
