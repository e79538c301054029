//! That damage in the log is found, where it is, once, and that nothing else is.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ferromq_protocol::{QueueId, QueueOffset};

use super::*;
use crate::testing::*;
use crate::{Effort, RetentionRules, Store, StoreConfig, StoreStats};

const SEGMENT: u64 = 4096;

/// A store with messages of 1000 bytes, three to a segment: `full` segments and one that is not. All is on the disk.
fn filled(site: &Site, full: u64) -> Store {
    let store = site.open();
    while store.watermarks().written.0 <= full * SEGMENT {
        put(&store, &[7; 1000]);
    }
    settle(&store);
    wait_until(|| store.stats().flush_behind == 0);
    store
}

fn segment(site: &Site, number: u64) -> PathBuf {
    root(site).join(format!("commitlog/{:020}", number * SEGMENT))
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Goes on until it has come to the end so often since it began; gives the lines that it wrote into the trace log.
fn rounds(store: &Store, scrub: &mut Scrub, count: u64) -> Vec<String> {
    logged(|| {
        while store.stats().scrub_rounds < count {
            assert!(scrub.read_piece() > 0);
        }
    })
}

fn figures(store: &Store) -> (u64, u64) {
    let StoreStats { scrub_bytes, scrub_damages, .. } = store.stats();
    (scrub_bytes, scrub_damages)
}

#[test]
fn a_log_without_damage_is_read_round_and_round_but_for_its_last_segment() {
    let site = Site::new();
    let store = filled(&site, 3);
    // Whatever is wrong there is not looked at.
    flip(&segment(&site, 3), 100);
    let scrub = &mut store.scrub();
    assert_eq!(figures(&store), (0, 0));
    assert_eq!(rounds(&store, scrub, 2), [""; 0]);
    // The end is seen by the first piece of the next round.
    assert_eq!(figures(&store), (7 * SEGMENT, 0));
}

#[test]
fn a_log_of_one_segment_is_not_read() {
    let site = Site::new();
    let store = filled(&site, 0);
    let scrub = &mut store.scrub();
    assert_eq!((scrub.read_piece(), scrub.read_piece(), store.stats().scrub_rounds), (0, 0, 0));
    // One that is full and not on the disk yet may be read from there only later.
    while store.watermarks().written.0 <= SEGMENT {
        put(&store, &[7; 1000]);
    }
    wait_until(|| store.stats().flush_behind == 0);
    assert_eq!(scrub.read_piece(), SEGMENT);
}

#[test]
fn rot_is_named_once_with_file_and_place() {
    let site = Site::new();
    let store = filled(&site, 4);
    let len = {
        let look = crate::looking::Look::reading_on(&*site.disk);
        store.scrub().segments.record_at(&look, SEGMENT).unwrap().unwrap().len() as u64
    };
    // A body; a length; a magic in the middle; a place; and a segment that somebody replaced with zeros.
    flip(&segment(&site, 0), len + 500);
    flip(&segment(&site, 1), 3);
    flip(&segment(&site, 2), len + 4);
    flip(&segment(&site, 2), 2 * len + 35);
    let zeros = File::options().write(true).open(segment(&site, 3)).unwrap();
    zeros.write_all_at(&[0; SEGMENT as usize], 0).unwrap();
    let scrub = &mut store.scrub();
    let lines = rounds(&store, scrub, 1);
    let expect = |line: &String, number: u64, at: u64, what: &str| {
        let file = format!("path={} at={at} physical={} ", segment(&site, number).display(), number * SEGMENT + at);
        assert!(line.starts_with("ERROR ") && line.contains(&file) && line.contains(what), "{file}{what}: {line}");
    };
    assert_eq!(lines.len(), 4, "{lines:#?}");
    expect(&lines[0], 0, len, "message of TopicT queue 0 offset 1: body CRC");
    expect(&lines[1], 1, 0, &format!("{len} bytes hold no record: "));
    // Two in a row are one hole, up to the filler.
    expect(&lines[2], 2, len, &format!("{} bytes hold no record: no record has the magic", 2 * len));
    expect(&lines[3], 3, 0, "4096 bytes hold no record: no record has the magic 0x00000000");
    assert_eq!(rounds(&store, scrub, 3), [""; 0], "told once");
    assert_eq!(store.stats().scrub_damages, 4);
    // What comes new is told.
    flip(&segment(&site, 0), 500);
    let lines = rounds(&store, scrub, 5);
    assert_eq!((lines.len(), store.stats().scrub_damages), (1, 5), "{lines:#?}");
    expect(&lines[0], 0, 0, "offset 0: body CRC");
}

/// Its message is hidden from consumers that ask for its tags, and nobody else would notice.
#[test]
fn an_entry_with_other_tags_than_its_message_is_put_right() {
    let site = Site::new();
    let store = site.open();
    while store.watermarks().written.0 <= 3 * SEGMENT {
        store.append(&message("TopicT", 0, &[7; 500], "TAGS\u{1}a\u{2}")).unwrap();
        store.append(&message(SCHEDULE_TOPIC, 2, &[7; 500], "DELAY\u{1}3\u{2}TAGS\u{1}a\u{2}")).unwrap();
    }
    settle(&store);
    wait_until(|| store.stats().flush_behind == 0);
    let entry = |topic, id, n| store.queue_entry(topic, QueueId(id), QueueOffset(n), Effort::Full).unwrap().unwrap();
    let good = entry("TopicT", 0, 1);
    let path = root(&site).join("consumequeue/TopicT/0/00000000000000000000");
    // The tags code of one, the length of another; and when a delayed message is due, which the levels of now do not tell.
    flip(&path, 20 + 19);
    flip(&path, 2 * 20 + 11);
    flip(&root(&site).join("consumequeue/SCHEDULE_TOPIC_XXXX/2/00000000000000000000"), 20 + 19);
    let (bad, early) = (entry("TopicT", 0, 1), entry(SCHEDULE_TOPIC, 2, 1));
    assert_ne!(bad, good);
    let scrub = &mut store.scrub();
    let lines = rounds(&store, scrub, 1);
    assert_eq!((lines.len(), store.stats().scrub_damages), (2, 2), "{lines:#?}");
    for (line, offset) in lines.iter().zip([1, 2]) {
        let place = format!("topic=\"TopicT\" queue=0 offset={offset} ");
        assert!(line.starts_with("ERROR ") && line.contains(&place) && line.contains("has put it right"), "{line}");
    }
    assert!(
        lines[0].contains(&format!("tags code {}, it is {} with {}", bad.tags_code, good.len, good.tags_code)),
        "{lines:?}"
    );
    assert_eq!((entry("TopicT", 0, 1), entry(SCHEDULE_TOPIC, 2, 1)), (good, early));
    assert_eq!(entry("TopicT", 0, 2).len, good.len);
    assert_eq!(rounds(&store, scrub, 3), [""; 0]);
    store.close().unwrap();
    // And on the disk.
    let store = site.open();
    let again = store.queue_entry("TopicT", QueueId(0), QueueOffset(1), Effort::Full).unwrap();
    assert_eq!(again, Some(good));
}

/// No checksum covers a message's tags: the entry may be the last to know the right ones.
#[test]
fn tags_of_a_message_that_its_entry_does_not_know_are_told_and_not_believed() {
    let site = Site::new();
    let store = site.open();
    while store.watermarks().written.0 <= 3 * SEGMENT {
        store.append(&message("TopicT", 0, &[7; 500], "TAGS\u{1}a\u{2}")).unwrap();
    }
    settle(&store);
    wait_until(|| store.stats().flush_behind == 0);
    let entry = || store.queue_entry("TopicT", QueueId(0), QueueOffset(0), Effort::Full).unwrap().unwrap();
    let good = entry();
    let log = std::fs::read(segment(&site, 0)).unwrap();
    let at = log.windows(6).position(|bytes| bytes == b"TAGS\x01a").unwrap() + 5;
    std::fs::OpenOptions::new().write(true).open(segment(&site, 0)).unwrap().write_all_at(b"b", at as u64).unwrap();
    let scrub = &mut store.scrub();
    let lines = rounds(&store, scrub, 2);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("offset=0 ") && lines[0].contains("nobody can tell which"), "{lines:#?}");
    assert_eq!(entry(), good);
}

#[test]
fn what_the_disk_does_not_give_is_told_as_that() {
    let site = Site::new();
    let store = filled(&site, 3);
    site.disk.bad.lock().push((segment(&site, 1).display().to_string(), 2000..2001));
    let scrub = &mut store.scrub();
    let lines = rounds(&store, scrub, 2);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let place = format!("path={} at=0 physical=4096 ", segment(&site, 1).display());
    assert!(
        lines[0].contains(&place) && lines[0].contains("4096 bytes hold no record: cannot be read: Input/output error")
    );
    // It can be read again.
    site.disk.bad.lock().clear();
    assert_eq!((rounds(&store, scrub, 4), store.stats().scrub_damages), (vec![], 1));
}

/// A sector behind the last record of a segment, which nobody wants, and damage right behind it.
#[test]
fn what_the_disk_does_not_give_behind_the_last_record_hides_nothing() {
    const LEN: u64 = 256 * 1024;
    let site = Site::new();
    let store = Store::open(StoreConfig { segment_len: LEN, message_len_max: 128 * 1024, ..site.config() }).unwrap();
    // Two to a segment.
    for _ in 0..5 {
        put(&store, &[7; 90_000]);
    }
    settle(&store);
    wait_until(|| store.stats().flush_behind == 0);
    let path = |number: u64| root(&site).join(format!("commitlog/{:020}", number * LEN));
    site.disk.bad.lock().push((path(0).display().to_string(), 200_000..200_001));
    flip(&path(1), 500);
    let lines = rounds(&store, &mut store.scrub(), 2);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let place = format!("path={} at=0 physical={LEN} ", path(1).display());
    assert!(lines[0].contains(&place) && lines[0].contains("body CRC"), "{lines:#?}");
}

/// Segments of many pieces and blocks, records across the borders of both, and one longer than a piece.
#[test]
fn pieces_fit_together() {
    let site = Site::new();
    let config = StoreConfig { segment_len: 6 << 20, message_len_max: 2 << 20, ..site.config() };
    let store = Store::open(config).unwrap();
    let long = vec![7; PIECE + 500_000];
    while store.watermarks().written.0 <= 12 << 20 {
        put(&store, &long[..300_000]);
        put(&store, &long);
        put(&store, &long[..1]);
    }
    wait_until(|| store.stats().flush_behind == 0);
    let scrub = &mut store.scrub();
    assert_eq!(rounds(&store, scrub, 1), [""; 0]);

    let first = segment(&site, 0);
    let offsets: Vec<u64> = {
        let mut at = 0;
        let look = crate::looking::Look::reading_on(&*site.disk);
        let next = |at: &mut u64| {
            let record = scrub.segments.record_at(&look, *at).unwrap()?;
            *at += record.len() as u64;
            Some(*at - record.len() as u64)
        };
        std::iter::from_fn(|| next(&mut at)).take_while(|at| *at < 6 << 20).collect()
    };
    // The long one's length, then its body; a block in the middle of it.
    for (byte, damage) in [(offsets[1] + 1, offsets[1]), (offsets[4] + 999_999, offsets[4])] {
        flip(&first, byte);
        let before = store.stats().scrub_rounds;
        let lines = rounds(&store, scrub, before + 1);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains(&format!(" at={damage} ")), "{damage}: {lines:#?}");
        flip(&first, byte);
    }
    // The rest of it is no damage of its own.
    site.disk.bad.lock().push((first.display().to_string(), offsets[1] + 200_000..offsets[1] + 400_000));
    let other = &mut store.scrub();
    let before = store.stats().scrub_rounds;
    let lines = rounds(&store, other, before + 1);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let len = offsets[2] - offsets[1];
    assert!(lines[0].contains(&format!(" at={} ", offsets[1])), "{lines:#?}");
    assert!(lines[0].contains(&format!("{len} bytes hold no record: cannot be read")), "{len}: {lines:#?}");
}

#[test]
fn a_segment_may_go_at_any_time() {
    let site = Site::new();
    let store = filled(&site, 6);
    let go = |count: u64| {
        store.change_retention(RetentionRules {
            reserved_bytes: Some(count * SEGMENT),
            batch_max: 1000,
            segment_pause: std::time::Duration::ZERO,
            ..RetentionRules::default()
        });
        wait_until(|| store.watermarks().min.0 == (7 - count) * SEGMENT);
    };
    store.begin_retention();
    let scrub = &mut store.scrub();
    for _ in 0..2 {
        assert_eq!(scrub.read_piece(), SEGMENT);
    }
    go(4);
    wait_until(|| !segment(&site, 2).exists());
    assert_eq!(rounds(&store, scrub, 1), [""; 0]);
    assert_eq!(figures(&store), (6 * SEGMENT, 0), "two of those that went, three that are there, and one again");
    // One of which only the name went, between the look and the opening.
    let gone = store.scrub().segments.first().unwrap();
    std::fs::rename(gone.path(), root(&site).join("elsewhere")).unwrap();
    go(2);
    std::fs::rename(root(&site).join("elsewhere"), gone.path()).unwrap();
    assert!(scrub.open(&gone).unwrap().is_some());
    std::fs::remove_file(gone.path()).unwrap();
    let lines = logged(|| assert!(scrub.open(&gone).unwrap().is_none()));
    assert_eq!((lines, scrub.next), (vec![], gone.end()));
}

#[test]
fn a_file_that_somebody_took_away_is_named() {
    let site = Site::new();
    let store = filled(&site, 3);
    std::fs::remove_file(segment(&site, 1)).unwrap();
    let scrub = &mut store.scrub();
    let lines = logged(|| (0..6).for_each(|_| _ = scrub.read_piece()));
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains(&segment(&site, 1).display().to_string()) && lines[0].contains("the file is gone"));
    assert_eq!(store.stats().scrub_damages, 1);
}

#[test]
fn what_is_taken_back_is_not_read() {
    let site = Site::new();
    let store = filled(&site, 3);
    let scrub = &mut store.scrub();
    for _ in 0..2 {
        assert_eq!(scrub.read_piece(), SEGMENT);
    }
    store.truncate(ferromq_protocol::PhysicalOffset(0)).unwrap();
    assert_eq!(logged(|| assert_eq!(scrub.read_piece(), 0)), [""; 0]);
    assert_eq!(store.stats().scrub_damages, 0);
}

#[test]
fn only_so_much_damage_is_told_apart() {
    let site = Site::new();
    let store = filled(&site, 2);
    let scrub = &mut store.scrub();
    scrub.told = (0..TOLD_MAX as u64 - 1).map(|n| 2 * SEGMENT + n).collect();
    for at in [100, 1300, 2500] {
        flip(&segment(&site, 0), at);
        flip(&segment(&site, 1), at);
    }
    let lines = rounds(&store, scrub, 2);
    assert_eq!((lines.len(), scrub.told.len(), store.stats().scrub_damages), (2, TOLD_MAX, 1), "{lines:#?}");
    assert!(lines[1].contains("more damage than the scrub counts"), "{lines:#?}");
}
