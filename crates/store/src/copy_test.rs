//! A log that is another one's copy: byte for byte the same, and nothing of what is not whole.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use ferromq_protocol::message::record::{BLANK_LEN, MAGIC_V1, ParsedRecord, blank};
use ferromq_protocol::message::{NewMessage, RecordError, SysFlag, stamp_record};
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};
use proptest::prelude::*;

use super::*;
use crate::table_change::deleted_topic;
use crate::testing::*;
use crate::walk::record_at;
use crate::{AppendError, CheckpointFile, CopyError, CopyFault, FlushMode, Places, Writer};

const SEGMENT_LEN: usize = 4096;

fn follower(config: StoreConfig) -> Store {
    let store = Store::open(config).unwrap();
    store.set_writer(Writer::Stream).unwrap();
    store
}

/// The record of a message as another log has it.
fn record(message: &NewMessage<'_>, offset: u64, at: u64, time_ms: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    stamp_record(&mut bytes, QueueOffset(offset), PhysicalOffset(at), time_ms);
    bytes
}

/// What is appended to the log that is copied.
#[derive(Clone, Debug)]
enum Put {
    One(usize),
    Half(usize),
    Batch(Vec<usize>),
    Deletion,
}

fn put() -> impl Strategy<Value = Put> {
    prop_oneof![
        6 => (0..900_usize).prop_map(Put::One),
        2 => (3000..3950_usize).prop_map(Put::One),
        1 => (0..200_usize).prop_map(Put::Half),
        3 => proptest::collection::vec(0..300_usize, 1..6).prop_map(Put::Batch),
        1 => Just(Put::Deletion),
    ]
}

/// A log with all that in it, as bytes, to the end of its last segment.
fn log_of(puts: &[Put]) -> (Site, Store, Vec<u8>) {
    let site = Site::new();
    let store = Store::open(StoreConfig { message_len_max: 4000, ..site.config() }).unwrap();
    for (number, put) in puts.iter().enumerate() {
        let number = u8::try_from(number % 251).unwrap();
        let text = format!("KEYS\u{1}k{number}\u{2}");
        let body = |len: &usize| vec![number; *len];
        match put {
            Put::One(len) => drop(store.append(&message(T, u32::from(number) % 2, &body(len), &text)).unwrap()),
            Put::Half(len) => {
                let body = body(len);
                let mut half = message(T, 0, &body, &text);
                half.sys_flag = SysFlag(SysFlag::TRANSACTION_PREPARED);
                store.append(&half).unwrap();
            }
            Put::Batch(lens) => {
                let bodies: Vec<_> = lens.iter().map(body).collect();
                let batch: Vec<_> = bodies.iter().map(|body| message(T, 1, body, &text)).collect();
                store.append_batch(&batch).unwrap();
            }
            Put::Deletion => drop(store.delete_topic("Other").unwrap()),
        }
        if number % 7 == 0 {
            store.append(&message("Other", 0, b"goes", "")).unwrap();
        }
    }
    settle(&store);
    let end = store.watermarks().written.0 as usize;
    let mut bytes = log_bytes(&root(&site), end);
    bytes.resize(end.next_multiple_of(SEGMENT_LEN), 0);
    (site, store, bytes)
}

/// What the files of a log have, `len` bytes of it at least.
fn log_bytes(root: &Path, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        bytes.extend(std::fs::read(segment(root, bytes.len())).unwrap());
    }
    bytes
}

fn segment(root: &Path, at: usize) -> PathBuf {
    root.join("commitlog").join(crate::files::segment_name(at as u64))
}

/// Where each item begins, and the log's end.
fn items(bytes: &[u8], end: usize) -> Vec<usize> {
    let (mut at, mut items) = (0, Vec::new());
    while at < end {
        items.push(at);
        at = match item(bytes, at) {
            ParsedRecord::Record(record) => at + record.record_len(),
            ParsedRecord::Blank { .. } => segment_end(at),
        };
    }
    items.push(end);
    items
}

fn item(bytes: &[u8], at: usize) -> ParsedRecord<'_> {
    record_at(&bytes[at..segment_end(at)], at as u64).unwrap()
}

fn segment_end(at: usize) -> usize {
    (at / SEGMENT_LEN + 1) * SEGMENT_LEN
}

/// Offers all of `bytes` from the copy's end on, as they come over a connection; with what was refused, if anything.
fn offer(copy: &Store, bytes: &[u8], pieces: &[usize]) -> Result<(), CopyError> {
    let mut at = copy.watermarks().written.0 as usize;
    let (mut end, mut pieces) = (at, pieces.iter().cycle());
    while end < bytes.len() {
        end = (end + pieces.next().unwrap()).min(bytes.len());
        match copy.append_copy(PhysicalOffset(at as u64), &bytes[at..end]) {
            Ok(taken) => at += taken,
            Err(error) => {
                assert_eq!(error.at.0 as usize, at + error.taken);
                return Err(error);
            }
        }
    }
    assert_eq!(at, bytes.len(), "a whole item was left");
    Ok(())
}

/// In all the ways in which a log gets to the disk.
fn configs(site: &Site, kind: usize) -> StoreConfig {
    let sync = FlushMode::Sync { timeout: PATIENCE };
    let config = StoreConfig { message_len_max: 10, ..site.config() };
    match kind {
        0 => config,
        1 => StoreConfig { flush: sync, ..config },
        2 => StoreConfig { write_pool: Some(pool_of(5, 4096)), ..config },
        _ => StoreConfig { flush: sync, write_pool: Some(pool_of(5, 4096)), ..config },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// In whatever pieces it comes, a copy is the log byte for byte; what a log has behind its fillers is zeros in the copy. What
    /// consumers see of it is the same, then and after a kill.
    #[test]
    fn a_copy_is_the_log(
        puts in proptest::collection::vec(put(), 1..40), pieces in proptest::collection::vec(1..5000_usize, 1..8), kind in 0..4_usize,
        stale in any::<bool>(),
    ) {
        let (_site, master, log) = log_of(&puts);
        let end = master.watermarks().written.0 as usize;
        let mut sent = log[..end].to_vec();
        if stale {
            for at in items(&log, end) {
                if at < end && matches!(item(&log, at), ParsedRecord::Blank { .. }) {
                    sent[at + BLANK_LEN..segment_end(at)].fill(0xEE);
                }
            }
        }
        let other = Site::new();
        let copy = follower(configs(&other, kind));
        offer(&copy, &sent, &pieces).unwrap();
        prop_assert_eq!(copy.watermarks().written.0 as usize, end);
        let same = |copy: &Store| {
            settle(copy);
            for (topic, queue) in [(T, 0), (T, 1)] {
                assert_eq!(read_bodies(copy, topic, queue, 0), read_bodies(&master, topic, queue, 0));
                let max = |store: &Store| store.queue_bounds(topic, QueueId(queue)).unwrap_or_default().max;
                assert_eq!(max(copy), max(&master));
            }
        };
        copy.flusher.flush().unwrap();
        same(&copy);
        prop_assert!(log_bytes(&root(&other), end)[..end] == log[..end]);
        drop(copy);
        let copy = Store::open(configs(&other, kind)).unwrap();
        prop_assert_eq!(copy.watermarks().written.0 as usize, end);
        same(&copy);
    }

    /// However little of a copy is dispatched when it becomes the writer, with topics deleted and made anew in what is not: each queue goes on
    /// where the other log's does, and is the same when all is dispatched.
    #[test]
    fn a_copy_goes_on_where_the_log_does(
        puts in proptest::collection::vec(put(), 1..40), shown in any::<prop::sample::Index>(), dispatches in any::<bool>(), kind in 0..4_usize,
    ) {
        let (_site, master, log) = log_of(&puts);
        let end = master.watermarks().written.0 as usize;
        let items = items(&log, end);
        // What dispatch passes of a deletion is not its own yet.
        let is_deletion = |at: &usize| {
            *at < end && matches!(item(&log, *at), ParsedRecord::Record(record) if deleted_topic(&record).is_some())
        };
        let shown = items.iter().copied().find(is_deletion).unwrap_or(end).min(items[shown.index(items.len())]);
        let other = Site::new();
        let copy = follower(StoreConfig { message_len_max: 4000, ..configs(&other, kind) });
        copy.set_replicated(PhysicalOffset(shown as u64));
        offer(&copy, &log[..end], &[1000]).unwrap();
        if dispatches {
            wait_until(|| copy.watermarks().projected.0 as usize >= shown);
        }
        copy.set_writer(Writer::Local).unwrap();
        let queues = [(T, 0), (T, 1), ("Other", 0), ("New", 3)];
        for round in 0..3_u8 {
            let body = [round];
            for (topic, queue) in queues {
                let batch = vec![message(topic, queue, &body, ""); 1 + usize::from(round)];
                let of_master = master.append_batch(&batch).unwrap().queue_offset;
                prop_assert_eq!(copy.append_batch(&batch).unwrap().queue_offset, of_master, "{}/{} in round {}", topic, queue, round);
            }
            copy.set_replicated(PhysicalOffset(if round == 0 { shown as u64 } else { u64::MAX }));
            if round == 1 {
                copy.flusher.flush().unwrap();
                settle(&copy);
            }
        }
        copy.flusher.flush().unwrap();
        settle(&copy);
        settle(&master);
        for (topic, queue) in queues {
            prop_assert_eq!(read_bodies(&copy, topic, queue, 0), read_bodies(&master, topic, queue, 0));
        }
    }

    /// A bit that is another one on the way is found before anything of its record is appended, wherever there is something that covers
    /// it; all before it is taken.
    #[test]
    fn a_flipped_bit_is_refused(
        puts in proptest::collection::vec(put(), 1..20), pieces in proptest::collection::vec(1..5000_usize, 1..8),
        which in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), bit in 0..8_u32,
    ) {
        let (_site, master, mut log) = log_of(&puts);
        let end = master.watermarks().written.0 as usize;
        let items = items(&log, end);
        let which = which.index(items.len() - 1);
        let begin = items[which];
        let covered: Vec<usize> = match item(&log, begin) {
            ParsedRecord::Blank { .. } => (0..BLANK_LEN).collect(),
            ParsedRecord::Record(record) => {
                let len = record.record_len();
                let properties = len - record.properties_bytes().len();
                let topic = properties - 2 - record.topic().len();
                let body = topic - 1 - record.body().len();
                let crc = if record.body().is_empty() { 8..8 } else { 8..12 };
                (0..8).chain(crc).chain(28..36).chain(body - 4..topic).chain(properties - 2..properties).collect()
            }
        };
        log[begin + covered[byte.index(covered.len())]] ^= 1 << bit;
        let other = Site::new();
        let copy = follower(configs(&other, 0));
        let refused = offer(&copy, &log, &pieces).unwrap_err();
        prop_assert!(refused.fault.is_of_the_bytes(), "{:?}", refused);
        prop_assert_eq!((refused.at.0 as usize, copy.watermarks().written.0 as usize), (begin, begin));
        let mut there = log_bytes(&root(&other), begin.max(1));
        let behind = there.split_off(begin);
        prop_assert!(there == log[..begin]);
        prop_assert!(behind.iter().all(|byte| *byte == 0));
    }

    /// Whatever comes, it is an answer.
    #[test]
    fn nothing_comes_of_noise(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300), len in prop_oneof![any::<u32>(), 0..5000_u32, 85..100_u32, 4080..4100_u32],
        magic in prop_oneof![Just(MAGIC_V1), Just(0xDAA3_20AB_u32), Just(0xCBD4_3194), any::<u32>()], at_zero in any::<bool>(),
    ) {
        if bytes.len() >= 8 {
            bytes[..4].copy_from_slice(&len.to_be_bytes());
            bytes[4..8].copy_from_slice(&magic.to_be_bytes());
        }
        if at_zero && bytes.len() >= 36 {
            bytes[28..36].fill(0);
        }
        let site = Site::new();
        let copy = follower(site.config());
        // A filler that is all of a segment says nothing wrong.
        let is_filler = len == 4096 && magic == 0xCBD4_3194 && bytes.len() >= 8;
        match copy.append_copy(PhysicalOffset(0), &bytes) {
            Ok(taken) => prop_assert_eq!(taken, if is_filler { bytes.len() } else { 0 }),
            Err(error) => prop_assert!(error.taken == 0 && error.fault.is_of_the_bytes(), "{}", error),
        }
        prop_assert_eq!(copy.watermarks().written.0, if is_filler { 4096 } else { 0 });
    }
}

#[test]
fn a_length_that_cannot_be_is_refused_as_soon_as_it_is_there() {
    let site = Site::new();
    let copy = follower(site.config());
    let at = PhysicalOffset(0);
    let refused = |bytes: &[u8]| copy.append_copy(at, bytes).unwrap_err().fault;
    assert!(matches!(refused(&u32::MAX.to_be_bytes()), CopyFault::NoRoom { room: 4096, .. }));
    assert!(matches!(refused(&4097_u32.to_be_bytes()), CopyFault::NoRoom { len: 4097, .. }));
    // A record leaves room for the filler behind it.
    let head = |len: u32| [len.to_be_bytes(), MAGIC_V1.to_be_bytes()].concat();
    assert!(matches!(refused(&head(4089)), CopyFault::NoRoom { len: 4089, .. }));
    assert_eq!(copy.append_copy(at, &head(4088)).unwrap(), 0);
    assert_eq!(copy.append_copy(at, &4096_u32.to_be_bytes()).unwrap(), 0);
    assert!(matches!(refused(&blank(4095)), CopyFault::Filler { stated: 4095, room: 4096 }));
    assert!(matches!(refused(&[0; 8]), CopyFault::Record(RecordError::UnknownMagic(0))));
    // One of another place is not waited for.
    let mut elsewhere = record(&message(T, 0, &[1; 500], ""), 0, 8, START_MS);
    elsewhere.truncate(40);
    assert!(matches!(refused(&elsewhere), CopyFault::Record(RecordError::Elsewhere { .. })));
    assert_eq!(copy.watermarks().written, at);
}

#[test]
fn a_copy_goes_on_where_the_log_ends_and_nowhere_else() {
    let site = Site::new();
    let copy = follower(site.config());
    let first = record(&message(T, 0, &[1; 3000], ""), 0, 0, START_MS);
    let room = SEGMENT_LEN - first.len();
    let mut bytes = [first.clone(), blank(room as u32).to_vec()].concat();
    let put = |at: usize, bytes: &[u8]| copy.append_copy(PhysicalOffset(at as u64), bytes);
    let elsewhere = |at: usize, end: usize| {
        let error = put(at, &bytes[..1]).unwrap_err();
        assert!(matches!(error.fault, CopyFault::NotAtEnd { end: is } if is.0 as usize == end), "{error}");
        assert!(!error.fault.is_of_the_bytes());
    };
    elsewhere(1, 0);
    elsewhere(usize::MAX, 0);
    assert_eq!(put(0, &bytes[..first.len() - 1]).unwrap(), 0);
    // The head of the filler ends the segment; what the other log has behind it comes as it likes, and is not stored.
    let filler = first.len();
    assert_eq!(put(0, &bytes).unwrap(), bytes.len());
    assert_eq!(copy.watermarks().written.0 as usize, SEGMENT_LEN);
    elsewhere(0, SEGMENT_LEN);
    elsewhere(filler, SEGMENT_LEN);
    elsewhere(filler + BLANK_LEN - 1, SEGMENT_LEN);
    assert_eq!(put(filler + BLANK_LEN, &[7; 100]).unwrap(), 100);
    let next = record(&message(T, 0, b"next", ""), 1, SEGMENT_LEN as u64, START_MS);
    bytes = [vec![7; room - BLANK_LEN - 100], next.clone()].concat();
    assert_eq!(put(filler + BLANK_LEN + 100, &bytes).unwrap(), bytes.len());
    let end = SEGMENT_LEN + next.len();
    let error = put(filler + BLANK_LEN, &[7]).unwrap_err();
    assert!(matches!(error.fault, CopyFault::NotAtEnd { end: is } if is.0 as usize == end));
    settle(&copy);
    assert_eq!(read_bodies(&copy, T, 0, 0), [(0, vec![1; 3000]), (1, b"next".to_vec())]);
    copy.flusher.flush().unwrap();
    assert!(log_bytes(&root(&site), 1)[filler + BLANK_LEN..].iter().all(|byte| *byte == 0));
}

fn checkpoint(site: &Site) -> CheckpointFile {
    CheckpointFile::decode(&std::fs::read(root(site).join("checkpoint")).unwrap()).unwrap()
}

#[test]
fn the_checkpoint_follows_what_is_copied() {
    let site = Site::new();
    let never = Duration::from_secs(3600);
    let flush = FlushMode::Async { interval: never, least_pages: 0, thorough_interval: never };
    let copy = follower(StoreConfig { flush, queue_flush_interval: never, ..site.config() });
    let mut at = 0;
    for (stated, believed) in [
        (START_MS - 5_000, START_MS - 5_000),
        // A clock that goes wrong on the other machine, and a bit of a time that is another.
        (START_MS + 1, START_MS),
        (i64::MAX, START_MS),
        (-1, 0),
        (START_MS - 1_000, START_MS - 1_000),
    ] {
        let bytes: Vec<_> = (0..2_u64)
            .scan(at, |at, number| {
                let time = if number == 0 { 7 } else { stated };
                let one = record(&message(T, 0, b"body", ""), number, *at, time);
                *at += one.len() as u64;
                Some(one)
            })
            .flatten()
            .collect();
        assert_eq!(copy.append_copy(PhysicalOffset(at), &bytes).unwrap(), bytes.len());
        at += bytes.len() as u64;
        copy.flusher.flush().unwrap();
        copy.checkpoint.save(&*site.disk).unwrap();
        let found = checkpoint(&site);
        assert_eq!(found.log_time, believed, "of {stated}");
        assert!(matches!(found.places, Places::Hold { up_to, .. } if up_to.log == at), "{found:?}");
    }
}

#[test]
fn a_copied_record_that_looks_torn_is_vouched_for() {
    let site = Site::new();
    let copy = follower(site.config());
    let zero = record(&message(T, 0, b"", "ZERO\u{1}\0"), 0, 0, START_MS);
    let last = record(&message(T, 0, b"", "a\u{1}b"), 1, zero.len() as u64, START_MS);
    copy.append_copy(PhysicalOffset(0), &[zero.clone(), last].concat()).unwrap();
    assert_eq!(copy.positions.looks_torn.load(Ordering::SeqCst), zero.len() as u64);
}

#[test]
fn a_copy_waits_for_room_and_goes_on() {
    let site = Site::new();
    let (_other, master, log) = log_of(&vec![Put::One(3000); 6]);
    let end = master.watermarks().written.0 as usize;
    let copy = follower(site.config());
    site.disk.full.store(true, Ordering::SeqCst);
    let refused = offer(&copy, &log[..end], &[10_000]).unwrap_err();
    assert!(matches!(refused.fault, CopyFault::Refused(AppendError::DiskFull { .. })), "{refused}");
    assert!(!refused.fault.is_of_the_bytes());
    assert_eq!(copy.watermarks().written, refused.at);
    site.disk.full.store(false, Ordering::SeqCst);
    wait_until(|| offer(&copy, &log[..end], &[10_000]).is_ok());
    settle(&copy);
    assert_eq!(read_bodies(&copy, T, 0, 0), read_bodies(&master, T, 0, 0));
    // One that the pool's buffers cannot hold all of.
    let site = Site::new();
    let pooled = StoreConfig { segment_len: 1 << 20, write_pool: Some(pool_of(3, 4096)), ..site.config() };
    let pooled = follower(pooled);
    let long = record(&message(T, 0, &vec![1; 100_000], ""), 0, 0, START_MS);
    let refused = pooled.append_copy(PhysicalOffset(0), &long).unwrap_err();
    assert!(matches!(refused.fault, CopyFault::Refused(AppendError::LargerThanSegment { .. })), "{refused}");
}
