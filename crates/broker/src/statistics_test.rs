//! What counts for which figure, over a minute, an hour and a day, for as many names as there is room for.

use super::*;

const SECOND: i64 = 1000;

fn run(statistics: &Statistics, seconds: std::ops::Range<i64>, mut each: impl FnMut(i64)) {
    for second in seconds {
        each(second);
        statistics.tick(second * SECOND, 0, &StoreStats::default());
    }
}

#[test]
fn a_minute_of_one_message_per_second() {
    let statistics = Statistics::new();
    run(&statistics, 1..101, |_| statistics.sent("TopicA", 1, 100));
    let nums = statistics.view("TOPIC_PUT_NUMS", "TopicA", "c").unwrap();
    assert_eq!((nums.stats_minute.sum, nums.stats_minute.tps, nums.stats_minute.average_per_call), (60, 1.0, 1.0));
    assert_eq!((nums.stats_hour.sum, nums.stats_day.sum), (91, 91));
    let size = statistics.view("TOPIC_PUT_SIZE", "TopicA", "c").unwrap();
    assert_eq!((size.stats_minute.sum, size.stats_minute.average_per_call), (6000, 100.0));
    assert_eq!(statistics.sent_per_second("TopicA"), 1.0);
    run(&statistics, 101..1300, |_| statistics.sent("TopicA", 1, 100));
    assert_eq!(statistics.view("TOPIC_PUT_NUMS", "TopicA", "c").unwrap().stats_hour.sum, 1291);
}

/// One count of each kind makes its own figures and no others.
#[test]
fn what_was_not_counted_yet_does_not_exist() {
    const NAMES: [(&str, &str); 7] = [
        ("TOPIC_PUT_NUMS", "T"),
        ("TOPIC_PUT_SIZE", "T"),
        ("GROUP_GET_NUMS", "T@G"),
        ("GROUP_GET_SIZE", "T@G"),
        ("SNDBCK_PUT_NUMS", "T@G"),
        ("BROKER_PUT_NUMS", "c"),
        ("BROKER_GET_NUMS", "c"),
    ];
    type Count = fn(&Statistics);
    let cases: [(Count, &[&str]); 4] = [
        (|_| {}, &[]),
        (|statistics| statistics.sent("T", 1, 9), &["TOPIC_PUT_NUMS", "TOPIC_PUT_SIZE", "BROKER_PUT_NUMS"]),
        (|statistics| statistics.delivered("T", "G", 1, 9), &["GROUP_GET_NUMS", "GROUP_GET_SIZE", "BROKER_GET_NUMS"]),
        (|statistics| statistics.sent_back("T", "G"), &["SNDBCK_PUT_NUMS"]),
    ];
    for (count, expected) in cases {
        let statistics = Statistics::new();
        count(&statistics);
        statistics.tick(SECOND, 0, &StoreStats::default());
        let there: Vec<&str> = NAMES
            .into_iter()
            .filter(|(name, key)| statistics.view(name, key, "c").is_some())
            .map(|(name, _)| name)
            .collect();
        assert_eq!(there, expected);
    }
}

#[test]
fn what_nobody_counted_does_not_exist() {
    let statistics = Statistics::new();
    statistics.delivered("TopicA", "GroupA", 3, 30);
    statistics.sent_back("TopicA", "GroupA");
    statistics.tick(SECOND, 0, &StoreStats::default());
    assert_eq!(statistics.view("GROUP_GET_NUMS", "TopicA@GroupA", "c").unwrap().stats_minute.sum, 3);
    assert_eq!(statistics.view("GROUP_GET_SIZE", "TopicA@GroupA", "c").unwrap().stats_minute.sum, 30);
    assert_eq!(statistics.view("SNDBCK_PUT_NUMS", "TopicA@GroupA", "c").unwrap().stats_minute.sum, 1);
    assert!(statistics.view("TOPIC_PUT_NUMS", "TopicB", "c").is_none());
    assert!(statistics.view("GROUP_GET_NUMS", "TopicA", "c").is_none());
    assert!(statistics.view("BROKER_PUT_NUMS", "other", "c").is_none());
    assert!(statistics.view("NOPE", "TopicA", "c").is_none());
    assert!(statistics.view("BROKER_GET_NUMS", "c", "c").is_some());
}

#[test]
fn totals_leave_system_topics_out_and_never_go_back() {
    let statistics = Statistics::new();
    statistics.sent("TopicA", 5, 0);
    statistics.sent("SELF_TEST_TOPIC", 2, 0);
    statistics.delivered("TopicA", "GroupA", 4, 0);
    let before = statistics.totals();
    assert_eq!(before, Totals { sent: 7, delivered: 4, user_sent: 5, user_delivered: 4 });
    statistics.remove_group("GroupA");
    statistics.remove_topic("TopicA");
    assert_eq!(statistics.totals(), before);
    // The thread's own table must not lead to the counters that are gone.
    statistics.sent("TopicA", 1, 0);
    assert_eq!(statistics.totals().sent, 8);
    assert_eq!(Statistics::new().totals(), Totals::default());
}

#[test]
fn names_beyond_the_bound_are_part_of_the_sums_alone() {
    let statistics = Statistics::with_limits(NameLimits { topics: 2, groups: 3 });
    for name in ["A", "B", "C", "D"] {
        statistics.sent(name, 1, 10);
        for group in ["G", "H"] {
            statistics.delivered(name, group, 1, 10);
            statistics.sent_back(name, group);
        }
    }
    let all = Totals { sent: 4, delivered: 8, user_sent: 4, user_delivered: 8 };
    assert_eq!(statistics.totals(), all);
    let known = |name: &str, key: &str| statistics.view(name, key, "c").is_some();
    assert!(known("TOPIC_PUT_NUMS", "A") && known("TOPIC_PUT_NUMS", "B") && !known("TOPIC_PUT_NUMS", "C"));
    assert!(known("GROUP_GET_NUMS", "A@H") && known("GROUP_GET_NUMS", "B@G") && !known("GROUP_GET_NUMS", "B@H"));
    // What goes makes room, and takes nothing out of the sums.
    statistics.remove_topic("A");
    assert_eq!(statistics.totals(), all);
    assert_eq!(statistics.group_count.load(Ordering::Relaxed), 1);
    statistics.sent("C", 1, 10);
    statistics.delivered("B", "H", 1, 10);
    assert!(known("TOPIC_PUT_NUMS", "C") && known("GROUP_GET_NUMS", "B@H"));
    statistics.remove_group("G");
    statistics.remove_group("H");
    assert_eq!(statistics.group_count.load(Ordering::Relaxed), 0);
}

#[test]
fn topics_beyond_the_bound_leave_no_groups() {
    let statistics = Statistics::with_limits(NameLimits { topics: 1, groups: 100 });
    statistics.delivered("A", "G", 1, 10);
    for number in 0..50 {
        statistics.delivered(&format!("T{number}"), &format!("G{number}"), 1, 10);
    }
    assert_eq!(statistics.totals().delivered, 51);
    assert_eq!(statistics.group_count.load(Ordering::Relaxed), 1);
    statistics.remove_topic("A");
    assert_eq!((statistics.totals().delivered, statistics.group_count.load(Ordering::Relaxed)), (51, 0));
}

#[test]
fn threads_count_together() {
    let statistics = Arc::new(Statistics::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| statistics.sent("TopicA", 1, 1)));
        }
    });
    assert_eq!(statistics.totals().sent, 4000);
}

#[test]
fn rates_need_their_time() {
    let statistics = Statistics::new();
    for second in 0..=11 {
        let store = StoreStats { put_count: second * 20, ..StoreStats::default() };
        statistics.tick(second as i64 * SECOND, 0, &store);
        statistics.timer_entered();
        statistics.timer_entered();
        statistics.timer_delivered();
    }
    let rates = statistics.store_rates();
    assert_eq!(rates.put, [Some(20.0), None, None]);
    assert_eq!(rates.found, [Some(0.0), None, None]);
    assert_eq!((rates.timers_entered[0], rates.timers_delivered[0]), (Some(2.0), Some(1.0)));
}

#[test]
fn mornings_move_on_at_midnight() {
    let statistics = Statistics::new();
    statistics.sent("TopicA", 5, 0);
    statistics.tick(SECOND, 1, &StoreStats::default());
    assert_eq!(statistics.daily().sent_today_morning, 0);
    statistics.tick(2 * SECOND, 2, &StoreStats::default());
    statistics.sent("TopicA", 1, 0);
    statistics.tick(3 * SECOND, 3, &StoreStats::default());
    let daily = statistics.daily();
    assert_eq!((daily.sent_yesterday_morning, daily.sent_today_morning, daily.sent_now), (5, 6, 6));
}

#[test]
fn latencies_are_those_of_the_last_whole_minute() {
    let statistics = Statistics::new();
    let mut store = StoreStats::default();
    store.put_latency[0] = 7;
    statistics.tick(0, 0, &store);
    assert_eq!(statistics.put_latency()[0], 0);
    store.put_latency[0] = 10;
    statistics.tick(60 * SECOND, 0, &store);
    assert_eq!(statistics.put_latency()[0], 10);
    store.put_latency[0] = 11;
    statistics.tick(120 * SECOND, 0, &store);
    assert_eq!(statistics.put_latency()[0], 1);
}
