//! What is left of a store after the power went or the disk rotted.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;

use ferromq_protocol::message::Record;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};

use super::*;
use crate::Effort;
use crate::disk::Disk;
use crate::scripted_disk::ScriptedDisk;
use crate::testing::*;

const NEVER: Duration = Duration::from_secs(3600);

/// Nothing gets to the disk by itself.
fn quiet(site: &Site, disk: &Arc<ScriptedDisk>) -> StoreConfig {
    StoreConfig {
        flush: FlushMode::Async { interval: NEVER, least_pages: 0, thorough_interval: NEVER },
        queue_flush_interval: NEVER,
        queue_flush_thorough_interval: NEVER,
        queue_file_entries: 1000,
        disk: Arc::clone(disk) as Arc<dyn Disk>,
        ..site.config()
    }
}

fn overwrite(site: &Site, file: &str, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(root(site).join(file)).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

const LOG: &str = "commitlog/00000000000000000000";
const QUEUE: &str = "consumequeue/TopicT/0/00000000000000000000";

#[test]
fn an_open_after_a_kill_makes_durable_what_it_vouches_for() {
    let (site, disk) = (Site::new(), Arc::default());
    let store = Store::open(quiet(&site, &disk)).unwrap();
    store.append(&message("Other", 0, b"on the disk", "")).unwrap();
    settle(&store);
    store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
    for n in 0..50_u8 {
        store.append(&message(T, 0, &[n; 50], "")).unwrap();
        site.advance(1000);
    }
    settle(&store);
    store.flusher.flush().unwrap();
    drop(store);
    // A kill first: the page cache stays, and everything looks well.
    let store = Store::open(quiet(&site, &disk)).unwrap();
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 50);
    drop(store);
    disk.power_loss(&root(&site), || true);
    let store = Store::open(quiet(&site, &disk)).unwrap();
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 50);
    assert_eq!(store.append(&message(T, 0, b"next", "")).unwrap().queue_offset, QueueOffset(50));
}

#[test]
fn entries_of_a_lost_tail_do_not_come_back_whatever_page_of_the_queue_is_lost() {
    const PAGE_ENTRIES: u64 = 4096 / 20;
    for page in 0..7 {
        let site = Site::new();
        let config = || StoreConfig { segment_len: 1 << 20, queue_file_entries: 16384, ..site.config() };
        let store = Store::open(config()).unwrap();
        let places: Vec<_> = (0..1500_u32)
            .map(|n| store.append(&message(T, 0, &n.to_be_bytes(), "")).unwrap().physical_offset.0)
            .collect();
        settle(&store);
        drop(store);
        // Nothing of this is known to have been on the disk.
        std::fs::remove_file(root(&site).join("checkpoint")).unwrap();
        overwrite(&site, LOG, places[900], &vec![0; (1 << 20) - places[900] as usize]);
        overwrite(&site, QUEUE, page * 4096, &[0; 4096]);
        let store = Store::open(config()).unwrap();
        let what = format!("without the entries from {} on", page * PAGE_ENTRIES);
        assert_eq!(store.queue_bounds(T, QueueId(0)).unwrap().max, QueueOffset(900), "{what}");
        for n in 900..1000_u32 {
            let placed = store.append(&message(T, 0, &n.to_be_bytes(), "")).unwrap();
            assert_eq!(placed.queue_offset.0, u64::from(n), "{what}");
        }
        settle(&store);
        store.close().unwrap();
        let store = Store::open(config()).unwrap();
        let expected: Vec<_> = (0..1000_u32).map(|n| (u64::from(n), n.to_be_bytes().to_vec())).collect();
        assert!(read_bodies(&store, T, 0, 0) == expected, "{what}");
        assert_eq!(store.queue_bounds(T, QueueId(0)).unwrap().max, QueueOffset(1000), "{what}");
    }
}

/// The bytes of a record that a bit may flip in: length, magic, CRC, a host, the body, the properties' length.
#[test]
fn a_flipped_bit_costs_no_more_than_its_message() {
    let record_len = message(T, 0, &[0; 200], "").record_len() as u64;
    for byte in [0, 3, 5, 9, 35, 50, 120, record_len - 1] {
        let site = Site::new();
        let config = || StoreConfig { segment_len: 64 << 10, ..site.config() };
        let store = Store::open(config()).unwrap();
        for n in 0..1000_u32 {
            store.append(&message(T, 0, &n.to_be_bytes().repeat(50), "")).unwrap();
        }
        settle(&store);
        store.flusher.flush().unwrap();
        store.checkpoint.save(&*site.disk).unwrap();
        drop(store);
        // So that everything is read again.
        std::fs::remove_dir_all(root(&site).join("consumequeue")).unwrap();
        let at = 10 * record_len + byte;
        let file = OpenOptions::new().write(true).read(true).open(root(&site).join(LOG)).unwrap();
        let mut bits = [0];
        file.read_exact_at(&mut bits, at).unwrap();
        file.write_all_at(&[bits[0] ^ 0x10], at).unwrap();
        let store = Store::open(config()).unwrap();
        let found = read_whole_bodies(&store, T, 0, 0);
        let expected = |offset: u64| offset.to_be_bytes()[4..].repeat(50);
        let others: Vec<_> = found.iter().filter(|(offset, _)| *offset != 10).cloned().collect();
        assert_eq!(others.len(), 999, "byte {byte}");
        assert!(others.iter().all(|(offset, body)| *body == expected(*offset)), "byte {byte}");
        assert_eq!(store.append(&message(T, 0, b"next", "")).unwrap().queue_offset, QueueOffset(1000));
    }
}

/// No checksum covers the offset in the queue. Whichever bit of it flips, of the others at most the one is hidden that it names.
#[test]
fn a_flipped_offset_hides_no_more_than_the_message_it_names() {
    const COUNT: u64 = 200;
    let (site, disk) = (Site::new(), Arc::default());
    let config = || StoreConfig { segment_len: 1 << 20, ..quiet(&site, &disk) };
    let store = Store::open(config()).unwrap();
    let mut places = Vec::new();
    for n in 0..COUNT {
        places.push(store.append(&message(T, 0, &n.to_be_bytes(), "")).unwrap().physical_offset.0);
        for _ in 0..3 {
            store.append(&message("Other", 0, b"o", "")).unwrap();
        }
    }
    settle(&store);
    store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
    drop(store);
    for (which, bit) in (0..64).map(|bit| (150, bit)).chain([(1, 0), (3, 0), (3, 1), (198, 0), (199, 1), (199, 7)]) {
        let stated = which ^ (1 << bit);
        let write = |offset: u64| overwrite(&site, LOG, places[which as usize] + 20, &offset.to_be_bytes());
        write(stated);
        // So that everything is read again.
        std::fs::remove_dir_all(root(&site).join("consumequeue")).unwrap();
        let store = Store::open(config()).unwrap();
        let found = read_whole_bodies(&store, T, 0, 0);
        for offset in (0..COUNT).filter(|offset| *offset != which && *offset != stated) {
            let body = offset.to_be_bytes().to_vec();
            assert!(found.contains(&(offset, body)), "{offset} is hidden by {stated} in place of {which}");
        }
        assert!(found.iter().all(|(offset, _)| *offset < COUNT), "{found:?}");
        drop(store);
        write(which);
    }
}

#[test]
fn the_offset_of_a_damaged_last_message_is_not_given_away() {
    let site = Site::new();
    let store = site.open();
    store.append(&message(T, 0, b"first", "")).unwrap();
    let last = store.append(&message(T, 0, b"second", "")).unwrap();
    settle(&store);
    store.flusher.flush().unwrap();
    store.checkpoint.save(&*site.disk).unwrap();
    drop(store);
    std::fs::remove_dir_all(root(&site).join("consumequeue")).unwrap();
    overwrite(&site, LOG, last.physical_offset.0 + 90, b"X");
    let store = site.open();
    assert_eq!(store.append(&message(T, 0, b"third", "")).unwrap().queue_offset, QueueOffset(2));
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"first".to_vec()), (2, b"third".to_vec())]);
}

/// The list of queues says how far the log was, if the checkpoint does not: damage at its end takes no place that was a message's.
#[test]
fn the_offset_of_a_damaged_last_message_is_not_given_away_without_a_checkpoint_either() {
    let site = Site::new();
    let store = site.open();
    store.append(&message(T, 0, b"first", "")).unwrap();
    let last = store.append(&message(T, 0, b"second", "")).unwrap();
    settle(&store);
    store.close().unwrap();
    overwrite(&site, "checkpoint", 80, b"X");
    overwrite(&site, LOG, last.physical_offset.0 + 5, b"X");
    let store = site.open();
    let third = store.append(&message(T, 0, b"third", "")).unwrap();
    assert_eq!((third.queue_offset, third.physical_offset), (QueueOffset(2), last.end));
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"first".to_vec()), (2, b"third".to_vec())]);
}

/// A start after a crash forgets an entry that leads behind what was known to be on the disk, and puts it again if its record is there.
#[test]
fn a_damaged_entry_at_the_end_of_a_queue_hides_no_message() {
    // Bits of the last entry of three, counted from the last of its length: 32 and more are of its place. Behind the log's end some of them lead into a file.
    for bit in [31, 32, 40, 41, 42, 44, 45, 52, 72, 94, 95] {
        for loses_power in [false, true] {
            let (site, disk) = (Site::new(), Arc::default());
            let store = Store::open(quiet(&site, &disk)).unwrap();
            for n in 0..3_u8 {
                store.append(&message(T, 0, &[n; 300], "")).unwrap();
            }
            settle(&store);
            store.flusher.flush().unwrap();
            store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
            store.append(&message("Other", 0, b"later", "")).unwrap();
            settle(&store);
            drop(store);
            if loses_power {
                disk.power_loss(&root(&site), || true);
            }
            let file = OpenOptions::new().write(true).read(true).open(root(&site).join(QUEUE)).unwrap();
            let (at, mask) = (2 * 20 + (95 - bit) / 8, 1 << (bit % 8));
            let mut bits = [0];
            file.read_exact_at(&mut bits, at).unwrap();
            file.write_all_at(&[bits[0] ^ mask], at).unwrap();
            let store = Store::open(quiet(&site, &disk)).unwrap();
            let what = format!("bit {bit}, power lost: {loses_power}");
            assert_eq!(read_bodies(&store, T, 0, 0).len(), 3, "{what}");
            assert_eq!(store.append(&message(T, 0, b"next", "")).unwrap().queue_offset, QueueOffset(3), "{what}");
        }
    }
}

/// A page border falls into the properties, at some of their bytes once; nobody vouches for the log, or somebody does up to
/// that border, or Java's broker does for another record of that millisecond.
#[test]
fn a_record_that_lost_its_properties_was_never_whole() {
    for (cut, vouched) in
        [1_usize, 2, 50, 330].into_iter().flat_map(|cut| ["", "place", "time"].map(|vouched| (cut, vouched)))
    {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        let config = || StoreConfig { segment_len: 1 << 20, message_len_max: 1 << 20, ..quiet(&site, &disk) };
        let store = Store::open(config()).unwrap();
        let text =
            format!("UNIQ_KEY\u{1}u1\u{2}pad\u{1}{}\u{2}TAGS\u{1}TagA\u{2}KEYS\u{1}order-1\u{2}", "p".repeat(300));
        let before = store.append(&message(T, 0, b"whole", &text)).unwrap().end.0 as usize;
        let head = message(T, 0, b"", &text).record_len();
        let body = vec![7; 8192 - before - head + cut];
        let torn = store.append(&message(T, 0, &body, &text)).unwrap();
        assert_eq!(torn.end.0, 8192 + cut as u64);
        settle(&store);
        if vouched == "place" {
            store.flusher.flush_whole_chunks().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
        }
        drop(store);
        disk.power_loss(&root(&site), || false);
        let checkpoint = root(&site).join("checkpoint");
        match vouched {
            "place" => assert_eq!(Checkpoint::open(checkpoint).unwrap().found().unwrap().log, 8192),
            "time" => std::fs::write(checkpoint, START_MS.to_be_bytes()).unwrap(),
            _ => std::fs::remove_file(checkpoint).unwrap(),
        }
        overwrite(&site, LOG, 8192, &[0; 4096]);
        let store = Store::open(config()).unwrap();
        let what = format!("{cut} bytes of properties lost, vouched for by {vouched:?}");
        assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"whole".to_vec())], "{what}");
        assert_eq!(store.message_at(torn.physical_offset, Effort::Full).unwrap(), None, "{what}");
        let whole = store.message_at(PhysicalOffset(0), Effort::Full).unwrap().unwrap();
        assert_eq!(Record::parse(&whole).unwrap().property("KEYS").as_deref(), Some("order-1"));
    }
}

/// Zeros in properties that nothing was lost of.
#[test]
fn a_record_with_zeros_in_its_properties_is_whole() {
    let site = Site::new();
    let config = || StoreConfig { segment_len: 1 << 20, message_len_max: 1 << 20, ..site.config() };
    let store = Store::open(config()).unwrap();
    let text = format!("UNIQ_KEY\u{1}u1\u{2}zeros\u{1}{}\u{2}", "\0".repeat(3000));
    for _ in 0..10 {
        store.append(&message(T, 0, b"body", &text)).unwrap();
    }
    settle(&store);
    drop(store);
    let store = Store::open(config()).unwrap();
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 10);
}

/// A process was killed while it copied a record into the log: its body is there, and of its properties the beginning.
#[test]
fn a_record_that_was_being_written_at_a_kill_does_not_come_back_without_its_properties() {
    let text = "UNIQ_KEY\u{1}u1\u{2}TAGS\u{1}TagA\u{2}KEYS\u{1}order-1\u{2}";
    for missing in [1, 10, 20, text.len()] {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        let store = Store::open(quiet(&site, &disk)).unwrap();
        store.append(&message(T, 0, b"whole", text)).unwrap();
        let torn = store.append(&message(T, 0, b"torn", text)).unwrap();
        settle(&store);
        drop(store);
        overwrite(&site, LOG, torn.end.0 - missing as u64, &vec![0; missing]);
        let store = Store::open(quiet(&site, &disk)).unwrap();
        assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"whole".to_vec())], "{missing} bytes missing");
        assert_eq!(store.watermarks().written, torn.physical_offset);
    }
}

/// By a write-back that failed before the file system was mounted again, or in a copy of the directory.
#[test]
fn a_page_of_properties_that_was_lost_without_a_power_cut_is_noticed() {
    let text = format!("UNIQ_KEY\u{1}u1\u{2}pad\u{1}{}\u{2}TAGS\u{1}TagA\u{2}", "p".repeat(9000));
    for followed in [false, true] {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        let config = || StoreConfig { segment_len: 1 << 20, message_len_max: 1 << 20, ..quiet(&site, &disk) };
        let store = Store::open(config()).unwrap();
        put(&store, b"whole");
        store.append(&message(T, 0, b"torn", &text)).unwrap();
        let mut expected = vec![(0, b"whole".to_vec())];
        if followed {
            put(&store, b"behind");
            expected.push((2, b"behind".to_vec()));
        }
        settle(&store);
        drop(store);
        overwrite(&site, LOG, 4096, &[0; 4096]);
        let store = Store::open(config()).unwrap();
        assert_eq!(read_bodies(&store, T, 0, 0), expected);
    }
}

/// Zeros at the ends of pages, as a client sent them: what was synced is there after a power cut, and where nobody knows what was, one
/// such record takes none of the others with it.
#[test]
fn zeros_that_a_client_sent_end_no_log() {
    let text = format!("UNIQ_KEY\u{1}u1\u{2}zeros\u{1}{}\u{2}", "\0".repeat(3000));
    for told in [true, false] {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        let config = || StoreConfig { segment_len: 1 << 20, message_len_max: 1 << 20, ..quiet(&site, &disk) };
        let store = Store::open(config()).unwrap();
        for _ in 0..10 {
            store.append(&message(T, 0, b"body", &text)).unwrap();
        }
        put(&store, b"last");
        settle(&store);
        // Nobody else saves the checkpoint after this sync.
        store.stop_threads();
        store.flusher.flush().unwrap();
        drop(store);
        disk.power_loss(&root(&site), || true);
        if !told {
            std::fs::remove_file(root(&site).join("checkpoint")).unwrap();
            std::fs::write(root(&site).join("abort"), "1").unwrap();
        }
        let store = Store::open(config()).unwrap();
        assert_eq!(read_bodies(&store, T, 0, 0).len(), 11, "{told}");
    }
}

/// The checkpoint was damaged: the list of queues knows where the log ended a while ago. What came after that was on the disk too.
#[test]
fn without_its_checkpoint_a_log_does_not_end_at_zeros_that_a_client_sent() {
    for byte in [7, 8, 66, 75, 119] {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        let config = || quiet(&site, &disk);
        let store = Store::open(config()).unwrap();
        put(&store, b"listed");
        settle(&store);
        store.close().unwrap();
        let store = Store::open(config()).unwrap();
        store.append(&message(T, 0, b"zero", "UNIQ_KEY\u{1}u1\u{2}ZERO\u{1}\0")).unwrap();
        put(&store, b"behind");
        settle(&store);
        store.flusher.flush().unwrap();
        drop(store);
        disk.power_loss(&root(&site), || true);
        let checkpoint = root(&site).join("checkpoint");
        let mut bytes = std::fs::read(&checkpoint).unwrap();
        bytes[byte] ^= 0x04;
        std::fs::write(&checkpoint, bytes).unwrap();
        let store = Store::open(config()).unwrap();
        let found: Vec<_> = read_bodies(&store, T, 0, 0).into_iter().map(|(_, body)| body).collect();
        assert_eq!(found, [b"listed".to_vec(), b"zero".to_vec(), b"behind".to_vec()], "byte {byte}");
        assert_eq!(query_bodies(&store, T, "u1"), [b"zero"], "byte {byte}");
    }
}

/// A page of properties that got to the disk while it was being filled, and somebody has removed `abort` since.
#[test]
fn a_power_cut_is_none_the_less_one_without_its_abort_file() {
    let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
    let config = || StoreConfig { segment_len: 1 << 20, message_len_max: 1 << 20, ..quiet(&site, &disk) };
    let store = Store::open(config()).unwrap();
    put(&store, b"whole");
    settle(&store);
    store.close().unwrap();
    let store = Store::open(config()).unwrap();
    let text = format!("pad\u{1}{}\u{2}TAGS\u{1}TagA\u{2}", "p".repeat(5000));
    let torn = store.append(&message(T, 0, b"torn", &text)).unwrap();
    settle(&store);
    drop(store);
    disk.power_loss(&root(&site), || false);
    std::fs::remove_file(root(&site).join("abort")).unwrap();
    overwrite(&site, LOG, 4000, &[0; 96]);
    let store = Store::open(config()).unwrap();
    assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"whole".to_vec())]);
    assert_eq!(store.watermarks().written, torn.physical_offset);
}

#[test]
fn a_clock_set_back_does_not_hide_what_was_not_on_the_disk() {
    let (site, disk) = (Site::new(), Arc::default());
    let store = Store::open(quiet(&site, &disk)).unwrap();
    store.append(&message("Before", 0, &[1; 1500], "")).unwrap();
    settle(&store);
    store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
    for n in 0..10_u8 {
        store.append(&message(T, 0, &[n; 1500], "")).unwrap();
    }
    site.advance(-3_600_000);
    for n in 0..10_u8 {
        store.append(&message("After", 0, &[n; 1500], "")).unwrap();
    }
    settle(&store);
    store.flusher.flush().unwrap();
    drop(store);
    disk.power_loss(&root(&site), || true);
    let store = Store::open(quiet(&site, &disk)).unwrap();
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 10);
    assert_eq!(read_bodies(&store, "After", 0, 0).len(), 10);
}

/// What is rebuilt, and how the store was left before and is left again in the middle of it, at each step of the disk.
#[test]
fn an_open_that_did_not_finish_is_finished_by_the_next() {
    for (lost, stop, then) in [
        ("consumequeue", "kill", "kill"),
        ("consumequeue", "kill", "power"),
        ("consumequeue", "close", "kill"),
        ("consumequeue", "close", "power"),
        ("index", "kill", "kill"),
        ("index", "close", "kill"),
        ("index", "close", "power"),
    ] {
        for steps in (0..).scan(0, |steps, _| Some(std::mem::replace(steps, *steps + 1 + *steps / 3))) {
            let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
            let config = || StoreConfig { queue_file_entries: 16, ..quiet(&site, &disk) };
            let store = Store::open(config()).unwrap();
            let message_of = |n: u8| (if n < 60 { T } else { "Other" }, format!("UNIQ_KEY\u{1}u{n}\u{2}"));
            for n in 0..120_u8 {
                let (topic, key) = message_of(n);
                store.append(&message(topic, 0, &[n], &key)).unwrap();
            }
            settle(&store);
            match stop {
                "close" => store.close().unwrap(),
                _ => store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap(),
            }
            drop(store);
            std::fs::remove_dir_all(root(&site).join(lost)).unwrap();
            disk.all_is_synced(&root(&site));
            *disk.fails_after.lock() = Some(steps);
            let finished = Store::open(config()).is_ok();
            *disk.fails_after.lock() = None;
            if then == "power" {
                disk.power_loss(&root(&site), || true);
            }
            let what = format!("{lost} lost after {stop}, {then} after {steps} steps");
            let store = Store::open(config()).unwrap();
            settle(&store);
            for (topic, from) in [(T, 0), ("Other", 60)] {
                let expected: Vec<_> = (0..60_u8).map(|n| (u64::from(n), vec![from + n])).collect();
                assert_eq!(read_bodies(&store, topic, 0, 0), expected, "{what}");
                assert_eq!(
                    store.append(&message(topic, 0, b"next", "")).unwrap().queue_offset,
                    QueueOffset(60),
                    "{what}"
                );
            }
            for n in 0..120_u8 {
                let (topic, _) = message_of(n);
                assert_eq!(query_bodies(&store, topic, &format!("u{n}")), [[n]], "{what}");
            }
            if finished {
                break;
            }
        }
    }
}

#[test]
fn a_queue_entry_outlives_the_head_of_its_record() {
    let (site, disk) = (Site::new(), Arc::default());
    let store = Store::open(quiet(&site, &disk)).unwrap();
    store.append(&message(T, 0, b"first", "")).unwrap();
    let last = store.append(&message(T, 0, b"second", "")).unwrap();
    store.append(&message("Other", 0, b"third", "")).unwrap();
    settle(&store);
    store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
    drop(store);
    // Its magic, so that it is no record any more.
    overwrite(&site, LOG, last.physical_offset.0 + 4, b"X");
    let store = Store::open(quiet(&site, &disk)).unwrap();
    assert_eq!(store.append(&message(T, 0, b"fourth", "")).unwrap().queue_offset, QueueOffset(2));
    assert_eq!(read_bodies(&store, "Other", 0, 0), [(0, b"third".to_vec())]);
}

/// A sector that the disk does not give, anywhere in a log that has to be read over damage: an error that names the place, and
/// nobody is ended by a page fault. Once it is read again, nothing is missing.
#[test]
fn a_bad_sector_is_an_error_of_the_open_wherever_it_is() {
    const RECORD: u64 = 8192;
    let len = message(T, 0, &[0; RECORD as usize], "").record_len() as u64;
    for (damaged, bad) in [(3, 4), (3, 8), (3, 13), (0, 0), (0, 12)] {
        let (site, disk) = (Site::new(), Arc::<FaultyDisk>::default());
        let config = || StoreConfig {
            segment_len: 16 * len,
            message_len_max: RECORD as usize,
            disk: Arc::clone(&disk) as Arc<dyn Disk>,
            ..quiet(&site, &Arc::default())
        };
        let store = Store::open(config()).unwrap();
        for n in 0..14_u8 {
            store.append(&message(T, 0, &[n; RECORD as usize], "")).unwrap();
        }
        settle(&store);
        store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
        drop(store);
        std::fs::remove_dir_all(root(&site).join("consumequeue")).unwrap();
        // Its length and magic, so that what follows is searched for.
        overwrite(&site, LOG, damaged * len, b"no length nor magic");
        // All between the damage and the bad place is searched through.
        for at in damaged + 1..=bad {
            overwrite(&site, LOG, at * len, b"no length nor magic");
        }
        *disk.bad.lock() = vec![(LOG.to_owned(), bad * len + 100..bad * len + 200)];
        disk.go_cold();
        let error = Store::open(config()).unwrap_err().to_string();
        assert!(error.contains(LOG) && error.contains("Input/output error"), "{error}");
        disk.bad.lock().clear();
        let store = Store::open(config()).unwrap();
        let found = read_whole_bodies(&store, T, 0, 0);
        let expected = (0..14).filter(|n| !(damaged..=bad).contains(n)).count();
        assert_eq!(found.len(), expected, "damaged {damaged} to {bad}");
    }
}

/// Entries that were on the disk are damaged: what goes with them is indexed again, and so it is when that is cut short.
#[test]
fn damage_in_the_index_hides_no_message() {
    // Of an entry: its hash, the highest byte of its place, its link; or all of it.
    for (bytes, with) in [(0..1, 0x80), (4..5, 0x7F), (16..17, 0x01), (0..20, 0)] {
        for (number, by_time, cut_short) in [1, 40, 119, 120]
            .into_iter()
            .flat_map(|number| [(number, false, false), (number, true, false), (number, false, true)])
        {
            // Of the last one, a place cannot be told from one behind the end; that costs this entry.
            if number == 120 && bytes.start == 4 {
                continue;
            }
            let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
            let config = || StoreConfig { index_entries: 1000, ..quiet(&site, &disk) };
            let store = Store::open(config()).unwrap();
            for n in 0..60_u8 {
                store.append(&message(T, 0, &[n], &format!("UNIQ_KEY\u{1}u{n}\u{2}KEYS\u{1}k{n}\u{2}"))).unwrap();
                site.advance(1000);
            }
            settle(&store);
            store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
            // Without a key, so that the checkpoint is further than the index.
            store.append(&message(T, 0, &[60], "")).unwrap();
            settle(&store);
            store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
            drop(store);
            if by_time {
                let checkpoint = root(&site).join("checkpoint");
                let mut times = std::fs::read(&checkpoint).unwrap();
                times[64..].fill(0);
                std::fs::write(&checkpoint, times).unwrap();
            }
            let file = std::fs::read_dir(root(&site).join("index")).unwrap().next().unwrap().unwrap().path();
            let mut index = std::fs::read(&file).unwrap();
            let at = 40 + 31 * 4 + number * 20;
            index[at + bytes.start..at + bytes.end].fill(with);
            std::fs::write(&file, index).unwrap();
            if cut_short {
                for steps in 0..6 {
                    *disk.fails_after.lock() = Some(steps);
                    drop(Store::open(config()));
                }
                *disk.fails_after.lock() = None;
            }
            let store = Store::open(config()).unwrap();
            for (n, key) in (0..60_u8).flat_map(|n| [(n, format!("u{n}")), (n, format!("k{n}"))]) {
                let what =
                    format!("{key} with {bytes:?} of {number} damaged, by time: {by_time}, cut short: {cut_short}");
                assert_eq!(query_bodies(&store, T, &key), [[n]], "{what}");
            }
        }
    }
}

/// What a queue lacks is read from the log later, when that may be on the disk only, or not even there.
#[test]
fn what_is_behind_waits_for_a_log_that_cannot_be_read() {
    let (site, disk) = (Site::new(), Arc::<FaultyDisk>::default());
    let config = StoreConfig { disk: Arc::clone(&disk) as Arc<dyn Disk>, ..quiet(&site, &Arc::default()) };
    let store = Store::open(config).unwrap();
    // No directory can be made where a file is.
    let obstacle = root(&site).join("consumequeue/Bad");
    std::fs::write(&obstacle, b"").unwrap();
    let late = store.append(&message("Bad", 0, b"late", "")).unwrap();
    wait_until(|| store.positions.is_missing());
    *disk.bad.lock() = vec![(LOG.to_owned(), late.physical_offset.0..late.end.0)];
    disk.go_cold();
    std::fs::remove_file(&obstacle).unwrap();
    let reads = disk.reads.load(Ordering::SeqCst);
    wait_until(|| disk.reads.load(Ordering::SeqCst) > reads);
    // Nobody else waits for it.
    store.append(&message(T, 0, b"now", "")).unwrap();
    wait_until(|| store.queue_bounds(T, QueueId(0)).is_some_and(|bounds| bounds.max.0 == 1));
    assert!(store.positions.is_missing());
    disk.bad.lock().clear();
    settle(&store);
    assert_eq!(read_bodies(&store, "Bad", 0, 0), [(0, b"late".to_vec())]);
}

/// A process ends while it makes the first segment, and the next one goes on with it: by then its name has to be on the disk.
#[test]
fn a_segment_whose_name_a_kill_left_in_memory_is_there_after_a_power_loss() {
    for steps in 0..40 {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        *disk.fails_after.lock() = Some(steps);
        // It may be enough.
        drop(Store::open(quiet(&site, &disk)));
        *disk.fails_after.lock() = None;
        let store = Store::open(quiet(&site, &disk)).unwrap();
        put(&store, b"flushed");
        store.flusher.flush().unwrap();
        drop(store);
        disk.power_loss(site.dir.path(), || true);
        let store = Store::open(quiet(&site, &disk)).unwrap();
        assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"flushed".to_vec())], "after {steps} steps");
    }
}

/// A record of which a part was on the disk is cut off; an open that ends in the middle of that leaves no damage to the next one.
#[test]
fn an_open_that_ends_while_it_cuts_off_a_torn_record_leaves_no_damage() {
    for steps in 0..40 {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        let config = || StoreConfig { segment_len: 1 << 20, message_len_max: 1 << 20, ..quiet(&site, &disk) };
        let store = Store::open(config()).unwrap();
        put(&store, b"whole");
        let torn = put(&store, &[7; 8100]);
        settle(&store);
        store.flusher.flush_whole_chunks().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
        drop(store);
        disk.power_loss(&root(&site), || true);
        *disk.fails_after.lock() = Some(steps);
        drop(Store::open(config()));
        *disk.fails_after.lock() = None;
        let store = Store::open(config()).unwrap();
        assert_eq!(store.watermarks().written, torn.physical_offset, "after {steps} steps");
    }
}
