//! Helpers of this crate's tests: small stores, messages, a clock and a disk that obey. The disk that loses its power is `scripted_disk`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ferromq_protocol::message::record::{BLANK_LEN, blank};
use ferromq_protocol::message::{NewMessage, Record, Records, SysFlag, stamp_record};
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};
use parking_lot::Mutex;

use crate::disk::{naming, sync_failed};
use crate::looking::SEEN_FOR;
use crate::*;

/// Milliseconds at which the tests begin.
pub const START_MS: i64 = 1_700_000_000_000;

/// How much is used of the disk of a path.
pub type UsedRatio = fn(&Path) -> f64;

/// A disk on which things go wrong when told to.
#[derive(Debug, Default)]
pub struct FaultyDisk {
    pub full: AtomicBool,
    /// Nothing can be opened.
    pub no_descriptors: AtomicBool,
    pub sync_fails: AtomicBool,
    pub sync_hangs: AtomicBool,
    /// Syncs of queues hang.
    pub queue_sync_hangs: AtomicBool,
    /// Making a segment of the log hangs.
    pub segment_hangs: AtomicBool,
    /// Syncs of the whole file system fail; how many there were.
    pub file_system_sync_fails: AtomicBool,
    pub file_system_syncs: AtomicUsize,
    /// Syncs that hang at this moment.
    pub hanging: AtomicUsize,
    /// Nothing is in memory.
    pub cold: AtomicBool,
    /// Directories in which nothing can be made, with the number of the error.
    pub refusing: Mutex<Vec<(PathBuf, i32)>>,
    /// How full the disks of some directories are.
    pub used: Mutex<Vec<(PathBuf, f64)>>,
    /// Bytes of files that cannot be read, by the end of their paths.
    pub bad: Mutex<Vec<(String, Range<u64>)>>,
    /// Reads that were made.
    pub reads: AtomicU64,
    /// How much is used of the disk that a directory is on; half of it where nobody says.
    pub usage: Mutex<Option<UsedRatio>>,
    /// Bytes that are free; many where nobody says.
    pub free: Mutex<Option<u64>>,
    /// Segments of the log that were begun.
    pub segments_begun: AtomicUsize,
    /// Directories whose disk cannot be asked how full it is.
    pub mute: Mutex<Vec<PathBuf>>,
    /// Syncs of directories fail.
    pub dir_sync_fails: AtomicBool,
    /// Writes to the log that do not go through its mapping hang.
    pub write_hangs: AtomicBool,
    /// The number of the error with which they fail; 0 for none.
    pub write_error: AtomicI32,
    /// Files are moved nowhere, for this reason: they lie on another file system, or are mounted.
    pub moves_nothing: Mutex<Option<io::ErrorKind>>,
    /// Comes in between, once, when the log is synced next.
    pub during_sync: Mutex<Option<Interlude>>,
}

pub struct Interlude(pub Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Interlude {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interlude")
    }
}

impl FaultyDisk {
    /// From now on nothing is in memory, whatever was seen there.
    pub fn go_cold(&self) {
        self.cold.store(true, Ordering::SeqCst);
        self.forget_what_was_seen();
    }

    pub fn forget_what_was_seen(&self) {
        std::thread::sleep(SEEN_FOR + Duration::from_millis(2));
    }
}

impl FaultyDisk {
    fn open(&self) -> io::Result<()> {
        const EMFILE: i32 = 24;
        if self.no_descriptors.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        let is_segment = path.parent().is_some_and(|dir| dir.ends_with("commitlog"));
        while is_segment && self.segment_hangs.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        if is_segment {
            self.segments_begun.fetch_add(1, Ordering::SeqCst);
        }
        if self.full.load(Ordering::SeqCst) {
            return Err(naming(io::ErrorKind::StorageFull.into(), path, len));
        }
        self.open()?;
        if let Some((_, error)) = self.refusing.lock().iter().find(|(dir, _)| path.starts_with(dir)) {
            return Err(io::Error::from_raw_os_error(*error));
        }
        LocalDisk.create(path, len)
    }

    fn allocate(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        LocalDisk.allocate(file, range)
    }

    fn sync_range(&self, range: &MappedRange<'_>) -> io::Result<()> {
        let is_of = |dir: &str| range.path.components().any(|part| part.as_os_str() == dir);
        let of_queue = is_of("consumequeue");
        let interlude = if is_of("commitlog") { self.during_sync.lock().take() } else { None };
        if let Some(Interlude(act)) = interlude {
            act();
        }
        self.hanging.fetch_add(1, Ordering::SeqCst);
        while self.sync_hangs.load(Ordering::SeqCst) || of_queue && self.queue_sync_hangs.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        self.hanging.fetch_sub(1, Ordering::SeqCst);
        if self.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the device is gone"));
        }
        LocalDisk.sync_range(range)
    }

    fn sync_file(&self, path: &Path, file: &File) -> io::Result<()> {
        LocalDisk.sync_file(path, file)
    }

    fn sync_file_system(&self, dir: &Path, file: &File) -> io::Result<()> {
        self.file_system_syncs.fetch_add(1, Ordering::SeqCst);
        if self.file_system_sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        LocalDisk.sync_file_system(dir, file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.open()?;
        if self.dir_sync_fails.load(Ordering::SeqCst) {
            return Err(sync_failed(io::Error::other("the device is gone")));
        }
        LocalDisk.sync_dir(dir)
    }

    fn is_resident(&self, range: &MappedRange<'_>) -> bool {
        !self.cold.load(Ordering::SeqCst) && LocalDisk.is_resident(range)
    }

    fn read(&self, path: &Path, file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let hit = |(name, bad): &(String, Range<u64>)| {
            path.to_string_lossy().ends_with(name.as_str()) && bad.start < at + bytes.len() as u64 && at < bad.end
        };
        if self.bad.lock().iter().any(hit) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        LocalDisk.read(path, file, bytes, at)
    }

    fn write(&self, path: &Path, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if path.components().any(|component| component.as_os_str() == "commitlog") {
            while self.write_hangs.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let error = self.write_error.load(Ordering::SeqCst);
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
        }
        LocalDisk.write(path, file, bytes, at)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(kind) = *self.moves_nothing.lock() {
            return Err(kind.into());
        }
        LocalDisk.rename(from, to)
    }

    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        if self.mute.lock().iter().any(|dir| dir == path) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let told =
            |used: &[(PathBuf, f64)]| used.iter().find(|(dir, _)| path.starts_with(dir)).map_or(0.5, |(_, used)| *used);
        let scripted = *self.usage.lock();
        let used_ratio = scripted.map_or_else(|| told(&self.used.lock()), |usage| usage(path));
        let free_bytes = self.free.lock().unwrap_or(1 << 40);
        Ok(DiskUsage { total_bytes: 1 << 41, free_bytes, used_ratio })
    }
}

/// A directory, a clock and a disk for stores that are opened one after the other.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub now: Arc<AtomicI64>,
    pub disk: Arc<FaultyDisk>,
}

impl Site {
    pub fn new() -> Site {
        Site { dir: tempfile::tempdir().unwrap(), now: Arc::new(AtomicI64::new(START_MS)), disk: Arc::default() }
    }

    /// Tiny files, so that everything rolls all the time.
    pub fn config(&self) -> StoreConfig {
        let now = Arc::clone(&self.now);
        StoreConfig {
            segment_len: 4096,
            queue_file_entries: 16,
            queue_mappings_max: 3,
            index_slots: 31,
            index_entries: 64,
            message_len_max: 2048,
            flush: FlushMode::Async {
                interval: Duration::from_millis(5),
                least_pages: 0,
                thorough_interval: Duration::from_millis(20),
            },
            queue_flush_interval: Duration::from_millis(5),
            clock: Clock::from_fn(move || now.load(Ordering::SeqCst)),
            disk: Arc::clone(&self.disk) as Arc<dyn Disk>,
            ..StoreConfig::at(self.dir.path().join("store"))
        }
    }

    pub fn open(&self) -> Store {
        Store::open(self.config()).unwrap()
    }

    pub fn advance(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }
}

/// A write pool that brings to the log what is written at once.
pub fn pool_of(buffers: usize, buffer_len: usize) -> WritePoolConfig {
    WritePoolConfig {
        buffers,
        buffer_len,
        commit_interval: Duration::ZERO,
        commit_least_pages: 0,
        commit_thorough_interval: Duration::ZERO,
        fails_fast: false,
    }
}

/// Where most tests put their messages.
pub const T: &str = "TopicT";
pub const Q: QueueId = QueueId(0);

pub fn put(store: &Store, body: &[u8]) -> AppendedMessage {
    store.append(&message(T, 0, body, "")).unwrap()
}

/// Of a read from there, and where it goes on.
pub fn status(store: &Store, from: u64) -> (ReadStatus, u64) {
    let outcome = store.read(T, Q, QueueOffset(from), ReadLimits::count(32), &AllMessages, Effort::Full).unwrap();
    (outcome.status, outcome.next_offset.0)
}

pub fn message<'a>(topic: &'a str, queue: u32, body: &'a [u8], properties: &'a str) -> NewMessage<'a> {
    NewMessage {
        topic,
        queue_id: QueueId(queue),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: START_MS,
        born_host: ([127, 0, 0, 1], 50_000).into(),
        store_host: ([10, 0, 0, 1], 10_911).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties,
    }
}

pub fn root(site: &Site) -> PathBuf {
    site.dir.path().join("store")
}

/// The bytes of the log from its first file, up to its end.
pub fn log_file(site: &Site) -> PathBuf {
    site.dir.path().join("store/commitlog/00000000000000000000")
}

/// No time of the day at which messages go, and no pause between two segments: they go when a test says so.
pub fn rules_by_hand() -> RetentionRules {
    RetentionRules { hours: Hours::default(), segment_pause: Duration::ZERO, ..RetentionRules::default() }
}

/// Waits until consumers can see everything they may.
pub fn settle(store: &Store) {
    wait_until(|| {
        let marks = store.watermarks();
        marks.projected >= marks.visible
    });
}

/// How long a test waits for another thread. Only a hang runs into it.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub fn wait_until(mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "it never came");
        std::thread::yield_now();
    }
}

/// Reads everything from `from` on, as a consumer would, and nothing of it may be damaged.
pub fn read_bodies(store: &Store, topic: &str, queue: u32, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut bodies = Vec::new();
    read_records(store, topic, queue, from, |record| {
        record.check_crc().unwrap();
        bodies.push((record.queue_offset().0, record.body().to_vec()));
    });
    bodies
}

/// Reads everything from `from` on that is not damaged.
pub fn read_whole_bodies(store: &Store, topic: &str, queue: u32, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut bodies = Vec::new();
    read_records(store, topic, queue, from, |record| {
        if record.check_crc().is_ok() {
            bodies.push((record.queue_offset().0, record.body().to_vec()));
        }
    });
    bodies
}

fn read_records(store: &Store, topic: &str, queue: u32, from: u64, mut seen: impl FnMut(&Record<'_>)) {
    let mut next = QueueOffset(from);
    loop {
        let outcome =
            store.read(topic, QueueId(queue), next, ReadLimits::count(10), &AllMessages, Effort::Full).unwrap();
        for chunk in &outcome.chunks {
            for record in Records::new(chunk) {
                seen(&record.unwrap());
            }
        }
        let gone_on = outcome.next_offset > next;
        next = outcome.next_offset;
        if outcome.status != ReadStatus::Found && !gone_on {
            return;
        }
    }
}

/// Continues `copy` with what `from` has, as it comes over a connection: in pieces of these lengths, in turn, that end anywhere.
pub fn copy_log(from: &Store, copy: &Store, pieces: &[usize]) {
    let mut at = copy.watermarks().written;
    let mut kept = Vec::new();
    for piece in pieces.iter().cycle() {
        let Some(bytes) = from.raw_from(at + kept.len() as u64, *piece).unwrap() else { break };
        kept.extend_from_slice(&bytes);
        let taken = copy.append_copy(at, &kept).unwrap();
        kept.drain(..taken);
        at = at + taken as u64;
    }
    assert_eq!((kept.len(), copy.watermarks().written), (0, from.watermarks().written));
}

/// What another broker's log has from some place on.
pub struct OtherLog {
    pub segment_len: u64,
    pub begin: u64,
    pub bytes: Vec<u8>,
}

impl OtherLog {
    pub fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }

    /// Gives where the record stands.
    pub fn put(&mut self, message: &NewMessage<'_>, offset: u64, time_ms: i64) -> u64 {
        let room = self.segment_len - self.end() % self.segment_len;
        if message.record_len() as u64 + BLANK_LEN as u64 > room {
            self.bytes.extend(blank(u32::try_from(room).unwrap()));
            // Of something that was there before.
            self.bytes.resize(self.bytes.len() + room as usize - BLANK_LEN, 0xEE);
        }
        let (at, in_bytes) = (self.end(), self.bytes.len());
        message.encode(&mut self.bytes).unwrap();
        stamp_record(&mut self.bytes[in_bytes..], QueueOffset(offset), PhysicalOffset(at), time_ms);
        at
    }

    /// Offers it to a store as it comes over a connection, in pieces of this length.
    pub fn offer_to(&self, copy: &Store, piece: usize) -> Result<(), CopyError> {
        let (mut taken, mut there) = (0, 0);
        while taken < self.bytes.len() {
            there = self.bytes.len().min(there + piece);
            taken += copy.append_copy(PhysicalOffset(self.begin + taken as u64), &self.bytes[taken..there])?;
            assert!(there < self.bytes.len() || taken == there, "a whole item was left");
        }
        Ok(())
    }
}

/// What `act` writes into the trace log on this thread, a line each.
pub fn logged(act: impl FnOnce()) -> Vec<String> {
    let lines = Arc::<Mutex<Vec<String>>>::default();
    be_asked_of_all_lines();
    tracing::subscriber::with_default(Lines(Arc::clone(&lines)), act);
    std::mem::take(&mut *lines.lock())
}

/// With one subscriber in the process, a thread that is the first at a line and does not have it switches the line off for all. So
/// there is always another.
fn be_asked_of_all_lines() {
    static OTHER: LazyLock<tracing::Dispatch> =
        LazyLock::new(|| tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new()));
    LazyLock::force(&OTHER);
}

struct Lines(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = event.metadata().level().to_string();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            line.push_str(&format!(" {field}={value:?}"));
        });
        self.0.lock().push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Bodies of the messages a key leads to.
pub fn query_bodies(store: &Store, topic: &str, key: &str) -> Vec<Vec<u8>> {
    let outcome = store.query(topic, key, 64, 0, i64::MAX, Effort::Full).unwrap();
    outcome.messages.iter().map(|bytes| Record::parse(bytes).unwrap().body().to_vec()).collect()
}

/// What this thread writes into the trace log at WARN and ERROR.
#[derive(Clone, Debug, Default)]
pub struct TraceLog {
    lines: Arc<Mutex<String>>,
}

impl TraceLog {
    pub fn capture<T>(&self, act: impl FnOnce() -> T) -> T {
        be_asked_of_all_lines();
        tracing::subscriber::with_default(self.clone(), act)
    }

    pub fn text(&self) -> String {
        self.lines.lock().clone()
    }
}

impl tracing::Subscriber for TraceLog {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line<'a>(&'a mut String);
        impl tracing::field::Visit for Line<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                use std::fmt::Write as _;
                write!(self.0, "{}={value:?} ", field.name()).unwrap();
            }
        }
        let mut lines = self.lines.lock();
        lines.push_str(event.metadata().level().as_str());
        lines.push(' ');
        event.record(&mut Line(&mut lines));
        lines.push('\n');
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
