//! Timers whose segments go.

use std::fs;
use std::time::Duration;

use ferromq_protocol::QueueId;
use ferromq_store::{Effort, RetentionRules};

use super::*;
use crate::testing::{BAD_SECTOR, wait_refused, wait_until};
use crate::timers::house::House;

const HOUR: i64 = 3_600_000;
const YEAR: i64 = 365 * 24 * HOUR;
/// What takes back a message with the key `k`.
const TAKES_BACK: &str = "TIMER_DEL_UNIQKEY\u{1}Back+k\u{2}";

#[test]
fn what_waits_outlives_its_segment_however_often_and_comes_once() {
    for is_killed in [false, true] {
        let mut house = House::small();
        for (in_ms, topic) in [(20_000, "Near"), (HOUR, "Hour"), (YEAR, "Year")] {
            house.at(in_ms, topic, "");
        }
        house.wait_waiting(3);
        for times in 1..=4 {
            let end = house.fill_segment();
            house.wait_free(end);
            house = if is_killed { house.killed(end) } else { house.restarted(end) };
            house.wait_entered();
            assert_eq!(house.count(TIMER_TOPIC, 0), 3 * (1 + times), "each is stored again once");
        }
        house.pass(19_999);
        for (passes, topic) in [(1, "Near"), (HOUR - 20_000, "Hour"), (YEAR - HOUR, "Year")] {
            assert_eq!(house.count(topic, 0), 0);
            house.pass(passes);
            house.wait_for(topic, 0, 1);
        }
        house.wait_waiting(0);
        let last = house.store.queue_entry("Year", QueueId(0), QueueOffset(0), Effort::Full).unwrap().unwrap();
        let bytes = house.store.message_at(last.physical, Effort::Full).unwrap().unwrap();
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.body(), record.property(names::TIMER_ROLL_TIMES).as_deref()), (&b"timer"[..], Some("4")));
        house.timers.stop();
        house.see();
        assert_eq!(["Near", "Hour", "Year"].map(|topic| house.count(topic, 0)), [1; 3]);
    }
}

#[test]
fn what_takes_back_and_what_is_taken_back_find_each_other_whichever_is_carried_on() {
    for marker_first in [false, true] {
        for both in [false, true] {
            let mut house = House::small();
            let [first, second] =
                if marker_first { [TAKES_BACK, "UNIQ_KEY\u{1}k\u{2}"] } else { ["UNIQ_KEY\u{1}k\u{2}", TAKES_BACK] };
            for in_ms in [10_000, HOUR] {
                house.at(in_ms, "Back", first);
            }
            let mut end = house.fill_segment();
            for in_ms in [10_000, HOUR] {
                house.at(in_ms, "Back", second);
                house.at(in_ms, "Behind", "");
            }
            if both {
                end = house.fill_segment();
            }
            house.wait_free(end);
            house = house.killed(end);
            house.wait_entered();
            house.pass(10_000);
            house.wait_for("Behind", 0, 1);
            house.pass(HOUR);
            house.wait_for("Behind", 0, 2);
            house.timers.stop();
            house.see();
            assert_eq!(house.count("Back", 0), 0, "marker first: {marker_first}, both carried on: {both}");
        }
    }
}

#[test]
fn what_is_due_while_copies_are_under_way_waits_for_what_takes_it_back() {
    let house = House::small_and_sync();
    house.at(10_000, "Back", "UNIQ_KEY\u{1}k\u{2}");
    house.at(10_000, "Back", TAKES_BACK);
    let end = house.fill_segment();
    house.at(10_500, "Behind", "");
    house.wait_waiting(3);
    let held = house.disk.hold_log();
    assert!(house.release_before(end).is_some());
    wait_until("they are not stored again", || house.timers.progress().waiting == 1);
    // They are due, and cannot be seen.
    house.pass(10_500);
    wait_until("the timers do not come to rest", || house.timers.bell().sleeps());
    drop(held);
    house.wait_for("Behind", 0, 1);
    house.wait_waiting(0);
    house.timers.stop();
    house.see();
    assert_eq!(house.count("Back", 0), 0);
}

#[test]
fn killed_before_the_index_is_saved_it_has_both_and_the_segment() {
    let house = House::small();
    for topic in ["A", "B"] {
        house.at(HOUR, topic, "");
    }
    house.wait_waiting(2);
    let end = house.fill_segment();
    house.disk.fill("/timers/", 0);
    wait_until("they are not stored again", || {
        assert!(house.release_before(end).is_some());
        house.count(TIMER_TOPIC, 0) == 4
    });
    let after = house.killed(PhysicalOffset(0));
    assert!(house.release_before(end).is_some());
    after.wait_free(end);
    let after = after.killed(end);
    after.pass(HOUR);
    for topic in ["A", "B"] {
        wait_until("it does not come", || after.count(topic, 0) > 0);
    }
    after.wait_waiting(0);
    after.timers.stop();
    after.see();
    assert!(["A", "B"].iter().all(|topic| after.count(topic, 0) <= 2), "from its place, and from its copy");
}

#[test]
fn a_segment_is_held_until_the_copies_are_on_the_disk() {
    let house = House::small();
    house.at(HOUR, "A", "");
    house.wait_waiting(1);
    let end = house.fill_segment();
    wait_until("the index is not saved", || house.saved().entered == QueueOffset(1));
    let held = house.disk.hold_log();
    wait_until("it is not stored again", || {
        assert!(house.release_before(end).is_some());
        house.count(TIMER_TOPIC, 0) == 2
    });
    house.wait_waiting(1);
    // It ends what it has begun.
    house.timers.stop();
    assert!(house.release_before(end).is_some());
    assert_eq!(house.saved().carried, QueueOffset(0));
    drop(held);
    house.timers.start().unwrap();
    house.wait_free(end);
    assert_eq!(house.saved().carried, QueueOffset(1));
    house.timers.stop();
}

#[test]
fn what_cannot_be_read_holds_no_segment() {
    let house = House::small();
    let lost = house.at(HOUR, "Lost", "");
    // Far from it in the log.
    house.append("Between", QueueId(0), "", &[0; 8192]).unwrap();
    house.at(HOUR, "Left", "");
    house.wait_waiting(2);
    let end = house.fill_segment();
    house.disk.refuse("/commitlog/00000000000000000000", 0..lost.end.0, BAD_SECTOR);
    wait_refused(|| house.store.message_at(lost.physical_offset, Effort::Full));
    house.wait_free(end);
    let house = house.killed(end);
    house.pass(HOUR);
    house.wait_for("Left", 0, 1);
    house.timers.stop();
    house.see();
    assert_eq!(house.count("Lost", 0), 0);
}

#[test]
fn a_disk_that_counts_as_full_gets_room() {
    let house = House::small();
    house.at(1_000, "Due", "");
    house.at(HOUR, "Hour", "");
    house.wait_waiting(2);
    let end = house.fill_segment();
    let house = house.restarted_on_a_full_disk();
    wait_until("the disk does not count as full", || house.store.check_writable().is_err());
    house.pass(1_000);
    house.wait_free(end);
    let house = house.killed(end);
    house.wait_for("Due", 0, 1);
    house.pass(HOUR);
    house.wait_for("Hour", 0, 1);
    house.timers.stop();
}

#[test]
fn a_late_timer_that_a_full_disk_does_not_take_holds_no_segment_before_it() {
    let house = House::small();
    // It notices soon, and nothing goes by itself.
    let interval = Duration::from_millis(20);
    house.store.change_retention(RetentionRules { interval, forced: false, ..RetentionRules::default() });
    house.at(1_000, "First", "");
    house.at(HOUR, "Hour", "");
    house.at(HOUR, "Back", "UNIQ_KEY\u{1}k\u{2}");
    let first_end = house.fill_segment();
    house.at(HOUR, "Back", "UNIQ_KEY\u{1}other\u{2}");
    let end = house.fill_segment();
    house.at(HOUR, "Back", TAKES_BACK);
    house.wait_waiting(5);
    house.pass(1_000);
    house.wait_for("First", 0, 1);
    house.timers.stop();
    house.at(-500, "Late", "");
    house.at(HOUR - 1_000, "Back", "TIMER_DEL_UNIQKEY\u{1}Back+other\u{2}");
    house.see();
    house.disk.pretend_used(0.99);
    wait_until("the disk does not count as full", || house.store.check_writable().is_err());
    house.timers.start().unwrap();
    house.wait_free(first_end);
    // All is due, and the copies cannot be entered.
    house.pass(HOUR + 10_000);
    house.wait_free(end);
    assert_eq!(house.count("Late", 0), 0);
    house.disk.pretend_used(0.1);
    for topic in ["Late", "Hour"] {
        house.wait_for(topic, 0, 1);
    }
    house.wait_waiting(0);
    house.timers.stop();
    house.see();
    assert_eq!(["First", "Late", "Hour", "Back"].map(|topic| house.count(topic, 0)), [1, 1, 1, 0]);
}

#[test]
fn of_what_java_had_stored_again_one_comes() {
    let house = House::asleep_and_small();
    house.at(HOUR, "T", "UNIQ_KEY\u{1}k\u{2}");
    let end = house.fill_segment();
    house.at(HOUR, "T", "UNIQ_KEY\u{1}k\u{2}TIMER_ROLL_TIMES\u{1}1\u{2}");
    house.at(HOUR, "T", "UNIQ_KEY\u{1}other\u{2}TIMER_ROLL_TIMES\u{1}1\u{2}");
    house.wait_for(TIMER_TOPIC, 0, 3);
    fs::write(house.root.path().join("timercheck"), [[0; 8], [0; 8], 3_u64.to_be_bytes()].concat()).unwrap();
    let house = house.restarted(PhysicalOffset(0));
    house.wait_waiting(3);
    house.wait_free(end);
    let house = house.killed(end);
    house.wait_entered();
    house.pass(HOUR);
    house.wait_for("T", 0, 2);
    house.wait_waiting(0);
    house.timers.stop();
    house.see();
    assert_eq!(house.count("T", 0), 2);
}

#[test]
fn a_lost_minute_is_made_again_with_what_is_carried_on_counting_once() {
    let house = House::small();
    for topic in ["A", "B"] {
        house.at(HOUR, topic, "");
    }
    house.wait_waiting(2);
    let end = house.fill_segment();
    house.wait_free(end);
    house.at(HOUR, "C", "");
    house.wait_waiting(3);
    house.timers.stop();
    let minute = format!("{:020}", (house.now_ms() + HOUR) / 60_000);
    fs::remove_file(house.root.path().join("timers").join(minute)).unwrap();
    house.timers.start().unwrap();
    house.pass(HOUR);
    house.wait_waiting(0);
    house.timers.stop();
    house.see();
    assert_eq!(["A", "B", "C"].map(|topic| house.count(topic, 0)), [1; 3]);
}

#[test]
fn nothing_is_held_that_nobody_waits_for() {
    let house = House::small();
    house.at(1_000, "Came", "");
    house.pass(1_000);
    house.wait_for("Came", 0, 1);
    let end = house.fill_segment();
    house.wait_free(end);
    assert_eq!(house.count(TIMER_TOPIC, 0), 1, "it is not stored again");
    house.timers.stop();
}

#[test]
fn a_sync_that_failed_holds_no_segment_for_ever() {
    let house = House::small();
    for (in_ms, topic) in [(HOUR, "Hour"), (2 * HOUR, "Two")] {
        house.at(in_ms, topic, "");
    }
    house.wait_waiting(2);
    let end = house.fill_segment();
    house.disk.fail_syncs("/timers/0");
    assert!(house.release_before(end).is_some());
    // It is carried on, and that cannot be saved as it should be.
    wait_until("no sync has failed", || {
        house.release_before(end);
        house.disk.refused() > 0
    });
    house.disk.recover();
    house.wait_free(end);
    let house = house.killed(end);
    house.wait_entered();
    for (passes, topic) in [(HOUR, "Hour"), (HOUR, "Two")] {
        house.pass(passes);
        house.wait_for(topic, 0, 1);
    }
    house.wait_waiting(0);
    house.timers.stop();
}

#[test]
fn a_sync_that_failed_for_want_of_room_holds_no_segment() {
    let house = House::small();
    for (in_ms, topic) in [(1_000, "Second"), (HOUR, "Hour")] {
        house.at(in_ms, topic, "");
    }
    house.wait_waiting(2);
    let end = house.fill_segment();
    house.disk.fail_syncs("/timers/0");
    assert!(house.release_before(end).is_some());
    wait_until("no sync has failed", || {
        house.release_before(end);
        house.disk.refused() > 0
    });
    // Nothing can be made anew.
    house.disk.no_room("/timers/");
    house.wait_free(end);
    house.pass(1_000);
    house.wait_for("Second", 0, 1);
    wait_until("it is not saved that it came", || house.saved().delivered_ms == house.now_ms());
    let house = house.killed(end);
    house.wait_entered();
    house.pass(HOUR);
    house.wait_for("Hour", 0, 1);
    house.wait_waiting(0);
    house.timers.stop();
    house.see();
    assert_eq!(["Second", "Hour"].map(|topic| house.count(topic, 0)), [1, 1]);
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_gets_room() {
    let house = House::small();
    house.at(HOUR, "Hour", "");
    house.wait_waiting(1);
    let end = house.fill_segment();
    house.disk.no_room("/timers/");
    // In minutes that have no file yet.
    house.at(1_000, "Second", "");
    house.at(120_000, "Minutes", "");
    house.wait_waiting(3);
    house.wait_free(end);
    house.pass(1_000);
    house.wait_for("Second", 0, 1);
    let more = house.fill_segment();
    house.wait_free(more);
    wait_until("it is not saved that it came", || house.saved().delivered_ms == house.now_ms());
    let house = house.killed(more);
    house.wait_entered();
    for (passes, topic) in [(119_000, "Minutes"), (HOUR, "Hour")] {
        house.pass(passes);
        house.wait_for(topic, 0, 1);
    }
    house.timers.stop();
    house.see();
    assert_eq!(["Hour", "Second", "Minutes"].map(|topic| house.count(topic, 0)), [1; 3]);
}

#[test]
fn a_late_timer_that_a_full_disk_does_not_take_holds_not_its_own_segment_either() {
    let house = House::small();
    // It notices soon, and nothing goes by itself.
    let interval = Duration::from_millis(20);
    house.store.change_retention(RetentionRules { interval, forced: false, ..RetentionRules::default() });
    house.at(1_000, "First", "");
    house.wait_waiting(1);
    house.pass(1_000);
    house.wait_for("First", 0, 1);
    house.timers.stop();
    house.at(-500, "Late", "");
    house.at(HOUR, "Hour", "");
    let end = house.fill_segment();
    house.disk.pretend_used(0.99);
    wait_until("the disk does not count as full", || house.store.check_writable().is_err());
    house.timers.start().unwrap();
    house.wait_free(end);
    assert_eq!(house.count("Late", 0), 0);
    let house = house.killed(end);
    house.wait_for("Late", 0, 1);
    house.pass(HOUR);
    house.wait_for("Hour", 0, 1);
    house.timers.stop();
    house.see();
    assert_eq!(["Late", "Hour"].map(|topic| house.count(topic, 0)), [1, 1]);
}
