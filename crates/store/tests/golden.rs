//! A store that Java wrote (tests/golden/store-5.3.3): it opens here, answers what Java answered, is left as it was;
//! and the same appends make the same files.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use ferromq_protocol::message::{NewMessage, Record, Records};
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};
use ferromq_store::{AllMessages, Boundary, Clock, Effort, ReadLimits, RetentionRules, Store, StoreConfig, Writer};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// One `[name]` block.
#[derive(Debug, Default)]
struct Block {
    name: String,
    fields: BTreeMap<String, String>,
    bytes: Vec<u8>,
}

impl Block {
    fn text(&self, key: &str) -> &str {
        self.fields.get(key).unwrap_or_else(|| panic!("{} has no {key}", self.name))
    }

    fn number(&self, key: &str) -> i64 {
        self.text(key).parse().unwrap()
    }
}

fn blocks() -> Vec<Block> {
    let text = std::fs::read_to_string(golden().join("store-5.3.3.txt")).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            blocks.push(Block { name: name.to_owned(), ..Block::default() });
            continue;
        }
        let block = blocks.last_mut().unwrap();
        match line.split_once(" = ") {
            Some(("bytes", hex)) => block.bytes = unhex(hex),
            Some((key, value)) => {
                block.fields.insert(key.to_owned(), serde_json::from_str(value).unwrap());
            }
            None => assert_eq!(line, "bytes =", "{}", block.name),
        }
    }
    blocks
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.trim().len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn with_prefix<'a>(blocks: &'a [Block], prefix: &'a str) -> impl Iterator<Item = &'a Block> {
    let found = blocks.iter().filter(move |block| block.name.starts_with(prefix));
    assert!(found.clone().count() > 0, "no {prefix}");
    found
}

fn config(root: &Path, now: &Arc<AtomicI64>) -> StoreConfig {
    let now = Arc::clone(now);
    StoreConfig {
        segment_len: 16_384,
        queue_file_entries: 100,
        index_slots: 1_000,
        index_entries: 4_000,
        message_len_max: 8_000,
        clock: Clock::from_fn(move || now.load(Ordering::SeqCst)),
        retention: RetentionRules { full_ratio: 1.0, ..RetentionRules::default() },
        ..StoreConfig::at(root)
    }
}

fn files_below(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(path).unwrap());
            }
        }
    }
    found
}

fn copy_golden(to: &Path) {
    for (path, bytes) in files_below(&golden().join("store-5.3.3")) {
        let path = to.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Log, queues and index have to be the same; the checkpoint's times are our own.
fn assert_same_files(root: &Path) {
    let projections = |root: &Path| {
        let mut files = files_below(root);
        files.retain(|path, _| ["commitlog", "consumequeue", "index"].iter().any(|dir| path.starts_with(dir)));
        files
    };
    let (ours, java) = (projections(root), projections(&golden().join("store-5.3.3")));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| {
        files.keys().filter(|path| !path.starts_with("index")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(&ours), names(&java));
    for (path, bytes) in &java {
        // Index files are named by the clock.
        let same = ours.get(path).or_else(|| {
            ours.iter().find(|(ours, _)| path.starts_with("index") && ours.starts_with("index")).map(|(_, bytes)| bytes)
        });
        let same = same.unwrap_or_else(|| panic!("no {}", path.display()));
        let differs = same.iter().zip(bytes).position(|(ours, java)| ours != java);
        assert_eq!((differs, same.len()), (None, bytes.len()), "{}", path.display());
    }
}

fn settle(store: &Store) {
    let give_up = Instant::now() + Duration::from_secs(300);
    while store.watermarks().projected < store.watermarks().written {
        assert!(Instant::now() < give_up);
        std::thread::yield_now();
    }
}

/// Every answer that Java gave.
fn assert_same_answers(store: &Store, blocks: &[Block]) {
    for block in with_prefix(blocks, "get/") {
        // A negative offset is the broker's to answer: too small for whatever queue.
        let Ok(from) = QueueOffset::try_from(block.number("offset")) else { continue };
        let queue = QueueId(block.number("queueId") as u32);
        let outcome =
            store.read(block.text("topic"), queue, from, ReadLimits::count(32), &AllMessages, Effort::Full).unwrap();
        assert_eq!(outcome.status.java_name(), block.text("status"), "{}", block.name);
        assert_eq!(outcome.next_offset.as_i64(), block.number("nextBeginOffset"), "{}", block.name);
        assert_eq!(outcome.min_offset.as_i64(), block.number("minOffset"), "{}", block.name);
        assert_eq!(outcome.max_offset.as_i64(), block.number("maxOffset"), "{}", block.name);
        let found: Vec<_> = outcome
            .chunks
            .iter()
            .flat_map(|chunk| Records::new(chunk))
            .map(|record| record.unwrap().queue_offset().to_string())
            .collect();
        assert_eq!(found.join(" "), block.text("found"), "{}", block.name);
    }
    for block in with_prefix(blocks, "time/") {
        let mut parts = block.name.split('/').skip(1);
        let topic = parts.next().unwrap();
        let queue = QueueId(parts.next().unwrap().parse().unwrap());
        let boundary = if parts.next() == Some("upper") { Boundary::Upper } else { Boundary::Lower };
        let offset = store.offset_by_time(topic, queue, block.number("timestamp"), boundary, Effort::Full).unwrap();
        assert_eq!(offset.as_i64(), block.number("offset"), "{}", block.name);
    }
    for block in with_prefix(blocks, "query/") {
        let max = block.number("max") as usize;
        let outcome = store.query(block.text("topic"), block.text("key"), max, 0, i64::MAX, Effort::Full).unwrap();
        let found: Vec<_> =
            outcome.messages.iter().map(|bytes| Record::parse(bytes).unwrap().physical_offset().to_string()).collect();
        assert_eq!(found.join(" "), block.text("physicalOffsets"), "{}", block.name);
        assert_eq!(outcome.last_update_timestamp, block.number("indexLastUpdateTimestamp"), "{}", block.name);
        assert_eq!(
            outcome.last_update_offset.as_i64(),
            block.number("indexLastUpdatePhysicalOffset"),
            "{}",
            block.name
        );
    }
    for block in with_prefix(blocks, "append/") {
        let at = PhysicalOffset::try_from(block.number("physicalOffset")).unwrap();
        assert_eq!(store.message_at(at, Effort::Full).unwrap().unwrap(), block.bytes, "{}", block.name);
    }
}

#[test]
fn a_java_store_opens_and_stays_as_it_was() {
    let blocks = blocks();
    let dir = tempfile::tempdir().unwrap();
    copy_golden(dir.path());
    let now = Arc::new(AtomicI64::new(1_700_000_100_000));
    let store = Store::open(config(dir.path(), &now)).unwrap();
    assert_same_answers(&store, &blocks);
    store.close().unwrap();
    assert_same_files(dir.path());
}

#[test]
fn a_java_store_that_was_killed_opens_with_every_key() {
    let blocks = blocks();
    let dir = tempfile::tempdir().unwrap();
    copy_golden(dir.path());
    std::fs::write(dir.path().join("abort"), b"4711").unwrap();
    let now = Arc::new(AtomicI64::new(1_700_000_100_000));
    let store = Store::open(config(dir.path(), &now)).unwrap();
    assert_same_answers(&store, &blocks);
    store.close().unwrap();
    assert_same_files(dir.path());
}

#[test]
fn the_projections_of_a_java_store_are_rebuilt_alike() {
    let blocks = blocks();
    let dir = tempfile::tempdir().unwrap();
    copy_golden(dir.path());
    for lost in ["consumequeue", "index"] {
        std::fs::remove_dir_all(dir.path().join(lost)).unwrap();
    }
    let now = Arc::new(AtomicI64::new(1_700_000_000_000));
    let store = Store::open(config(dir.path(), &now)).unwrap();
    assert_same_answers(&store, &blocks);
    store.close().unwrap();
    assert_same_files(dir.path());
}

fn new_message<'a>(record: &'a Record<'_>, born: SocketAddr, properties: &'a str) -> NewMessage<'a> {
    NewMessage {
        topic: record.topic(),
        queue_id: record.queue_id(),
        flag: record.flag(),
        sys_flag: record.sys_flag(),
        born_timestamp: record.born_timestamp(),
        born_host: born,
        store_host: record.store_host(),
        reconsume_times: record.reconsume_times(),
        prepared_transaction_offset: record.prepared_transaction_offset(),
        body: record.body(),
        properties,
    }
}

#[test]
fn the_same_appends_make_the_same_files() {
    let blocks = blocks();
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(1_700_000_000_000));
    let store = Store::open(config(dir.path(), &now)).unwrap();
    let mut batch: Vec<&Block> = Vec::new();
    let appends: Vec<_> = with_prefix(&blocks, "append/").collect();
    for (at, block) in appends.iter().enumerate() {
        now.store(block.number("storeTimestamp"), Ordering::SeqCst);
        let record = Record::parse(&block.bytes).unwrap();
        let physical = PhysicalOffset::try_from(block.number("physicalOffset")).unwrap();
        if record.topic().len() > 127 {
            // Not taken from a producer any more; a log may have such records from replication.
            store.set_writer(Writer::Stream).unwrap();
            assert_eq!(store.append_copy(physical, &block.bytes).unwrap(), block.bytes.len());
            store.set_writer(Writer::Local).unwrap();
            continue;
        }
        if block.name.contains("batch") {
            batch.push(block);
            if appends.get(at + 1).is_some_and(|next| next.name.contains("batch")) {
                continue;
            }
            let records: Vec<_> = batch.iter().map(|block| Record::parse(&block.bytes).unwrap()).collect();
            let texts: Vec<_> = records.iter().map(|record| record.properties().into_owned()).collect();
            let messages: Vec<_> = records
                .iter()
                .zip(&texts)
                .map(|(record, text)| new_message(record, record.born_host(), text))
                .collect();
            let placed = store.append_batch(&messages).unwrap();
            assert_eq!(placed.queue_offset, records[0].queue_offset());
            assert_eq!(placed.physical_offsets.last(), Some(&physical));
            continue;
        }
        let text = record.properties();
        let placed = store.append(&new_message(&record, record.born_host(), &text)).unwrap();
        assert_eq!(placed.physical_offset, physical, "{}", block.name);
        assert_eq!(placed.queue_offset, record.queue_offset(), "{}", block.name);
    }
    settle(&store);
    assert_same_answers(&store, &blocks);
    store.close().unwrap();
    assert_same_files(dir.path());
    let checkpoint = std::fs::read(dir.path().join("checkpoint")).unwrap();
    let java = std::fs::read(golden().join("store-5.3.3/checkpoint")).unwrap();
    assert_eq!((checkpoint.len(), &checkpoint[..16]), (java.len(), &java[..16]), "times of log and queues");
    assert_eq!(std::fs::read(dir.path().join("lock")).unwrap(), b"lock");
}
