//! The checkpoint file: how far log, queues and index are known to be on the disk.
//!
//! Java's StoreCheckpoint knows store times only, and a clock can be set back. So the file holds positions too, behind what
//! Java uses of it (docs/format.md, checkpoint); with copies of the times, so that positions from before a Java broker worked
//! on the store are not believed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use ferromq_protocol::PhysicalOffset;
use parking_lot::Mutex;

use crate::big_endian::long_at;
use crate::disk::{Disk, sync_failed};
use crate::error::OpenError;

const FILE_LEN: u64 = 4096;
/// What Java uses.
const TIMES_LEN: usize = 40;
/// Of the times, those that Java moves with every message; the positions are valid beside these only.
const WITNESS_LEN: usize = 24;
const MAGIC: [u8; 4] = *b"FMQ1";
const MAGIC_AT: usize = 64;
const POSITIONS_AT: usize = MAGIC_AT + MAGIC.len();
const WITNESS_AT: usize = POSITIONS_AT + 24;
const CRC_AT: usize = WITNESS_AT + WITNESS_LEN;
/// Where the log begins, with a sum of its own over all from the magic on: a file from before there was this has none.
const BEGIN_AT: usize = CRC_AT + 4;
const BEGIN_CRC_AT: usize = BEGIN_AT + 8;
/// Says that there is a list of queues and index files (inventory.rs), and its id, which is the store's.
const INVENTORY: [u8; 4] = *b"LIST";
/// That there is none now; the id is the store's all the same.
const NO_INVENTORY: [u8; 4] = *b"NONE";
const INVENTORY_AT: usize = BEGIN_CRC_AT + 4;
const INVENTORY_ID_AT: usize = INVENTORY_AT + INVENTORY.len();
const USED_LEN: usize = INVENTORY_ID_AT + 8;
/// The year 9999: what says more is no time.
const LAST_MS: i64 = 253_402_300_800_000;
/// Recovery starts so much earlier than the times say. Java: StoreCheckpoint.getMinTimestamp.
const MARGIN_MS: i64 = 3_000;

/// Physical offsets before which everything is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurableUpTo {
    /// Bytes of the log.
    pub log: u64,
    /// Queue entries of the records.
    pub queues: u64,
    /// Index entries of the records.
    pub index: u64,
}

/// What the file says when the store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointContent {
    /// What FerroMQ wrote.
    Places(DurableUpTo),
    /// What a Java broker wrote: store times.
    Times,
    /// It is missing, or damaged.
    Nothing,
}

/// How far one of the three is on the disk.
#[derive(Debug)]
struct DurableMark {
    /// Store time of the last record. Java: physicMsgTimestamp, logicsMsgTimestamp, indexMsgTimestamp.
    time: AtomicI64,
    /// See [`DurableUpTo`].
    position: AtomicU64,
}

impl DurableMark {
    fn new(time: i64, position: u64) -> DurableMark {
        DurableMark { time: AtomicI64::new(time), position: AtomicU64::new(position) }
    }

    fn time(&self) -> i64 {
        self.time.load(Ordering::Acquire)
    }

    fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    fn reaches(&self, position: u64, time: Option<i64>) {
        if let Some(time) = time {
            self.time.store(time, Ordering::Release);
        }
        self.position.store(position, Ordering::Release);
    }

    /// No time is known of a place, so that none is claimed.
    fn only_to(&self, position: u64) {
        self.position.fetch_min(position, Ordering::AcqRel);
        self.time.store(0, Ordering::Release);
    }
}

#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: File,
    log: DurableMark,
    queues: DurableMark,
    index: DurableMark,
    /// Replication's. Java: masterFlushedOffset.
    master_flushed: AtomicU64,
    /// How far the log is confirmed; without replication, the start of the last valid record that recovery found, as in Java. Java:
    /// confirmPhyOffset.
    confirmed: AtomicU64,
    /// The first segment that the log needs begins here.
    log_begin: AtomicU64,
    /// Whether the positions say anything: not yet where only times are known.
    by_place: AtomicBool,
    /// What it said as it was opened.
    told: Mutex<CheckpointContent>,
    /// The id of the store; 0 while it is not known.
    store: AtomicU64,
    /// Whether there must be an inventory, with this id.
    has_inventory: AtomicBool,
    /// Where the log began then.
    found_begin: Option<u64>,
    /// As last written.
    written: Mutex<[u8; USED_LEN]>,
}

impl Checkpoint {
    /// Opens the file, or makes it. Of one that is damaged nothing is believed.
    pub fn open(path: PathBuf) -> Result<Checkpoint, OpenError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(OpenError::io("open", &path))?;
        let len = file.metadata().map_err(OpenError::io("look at", &path))?.len();
        if len < FILE_LEN {
            let filler = vec![0; usize::try_from(FILE_LEN - len).unwrap_or(0)];
            file.write_all_at(&filler, len).map_err(OpenError::io("write", &path))?;
        }
        let mut bytes = [0; USED_LEN];
        file.read_exact_at(&mut bytes, 0).map_err(OpenError::io("read", &path))?;
        let told = told_by(&bytes);
        let written = Mutex::new(bytes);
        if told == CheckpointContent::Nothing {
            if bytes != [0; USED_LEN] {
                tracing::error!(path = %path.display(), "the checkpoint is damaged: nothing it says is believed");
            }
            bytes.fill(0);
        }
        // Java reads them signed; below 0 makes no sense in any of them.
        let field = |at: usize| long_at(&bytes, at).cast_signed().max(0);
        let positions = match told {
            CheckpointContent::Places(found) => found,
            CheckpointContent::Times | CheckpointContent::Nothing => DurableUpTo { log: 0, queues: 0, index: 0 },
        };
        let found_begin = if let CheckpointContent::Places(_) = told { begin_in(&bytes) } else { None };
        Ok(Checkpoint {
            log: DurableMark::new(field(0), positions.log),
            queues: DurableMark::new(field(8), positions.queues),
            index: DurableMark::new(field(16), positions.index),
            by_place: AtomicBool::new(matches!(told, CheckpointContent::Places(_))),
            told: Mutex::new(told),
            store: AtomicU64::new(store_in(&bytes).unwrap_or(0)),
            has_inventory: AtomicBool::new(bytes[INVENTORY_AT..INVENTORY_ID_AT] == INVENTORY),
            found_begin,
            log_begin: AtomicU64::new(found_begin.unwrap_or(0)),
            master_flushed: AtomicU64::new(field(24).cast_unsigned()),
            confirmed: AtomicU64::new(field(32).cast_unsigned()),
            path,
            file,
            written,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it said as it was opened.
    pub fn told(&self) -> CheckpointContent {
        *self.told.lock()
    }

    /// It is another store's.
    pub fn disbelieve(&self) {
        *self.told.lock() = CheckpointContent::Nothing;
        [&self.log, &self.queues, &self.index].into_iter().for_each(|part| part.only_to(0));
    }

    /// The positions of the last stop or crash; `None` when a Java broker wrote the file last, or nobody, or it is damaged.
    pub fn found(&self) -> Option<DurableUpTo> {
        match self.told() {
            CheckpointContent::Places(found) => Some(found),
            CheckpointContent::Times | CheckpointContent::Nothing => None,
        }
    }

    /// The id of the store, if it says so.
    pub fn store(&self) -> Option<u64> {
        Some(self.store.load(Ordering::Acquire)).filter(|id| *id != 0)
    }

    /// The id of the inventory that has to be there.
    pub fn inventory(&self) -> Option<u64> {
        self.store().filter(|_| self.has_inventory.load(Ordering::Acquire))
    }

    /// Whether there is an inventory, of the store with this id.
    pub fn inventory_is(&self, is_there: bool, id: u64) {
        self.store.store(id, Ordering::Release);
        self.has_inventory.store(is_there, Ordering::Release);
    }

    /// Where the log began then: what is missing from there on was not deleted. `None` where that is not known.
    pub fn found_begin(&self) -> Option<u64> {
        self.found_begin
    }

    /// No segment before `physical` is needed from now on. To be saved before one is deleted.
    pub fn log_begins_at(&self, physical: u64) {
        self.log_begin.store(physical, Ordering::Release);
    }

    /// Store time of the last record of the log that is on the disk; all that a Java broker says of that.
    pub fn log_time(&self) -> i64 {
        self.log.time()
    }

    /// The log is on the disk up to `position`; the store time of a record before it, where one is known.
    pub fn log_is_durable(&self, position: u64, time: Option<i64>) {
        self.log.reaches(position, time);
        self.by_place.store(true, Ordering::Release);
    }

    /// [`Checkpoint::log_is_durable`] for the queue entries of the records.
    pub fn queues_are_durable(&self, position: u64, time: Option<i64>) {
        self.queues.reaches(position, time);
    }

    /// [`Checkpoint::log_is_durable`] for the index entries of the records.
    pub fn index_is_durable(&self, position: u64, time: Option<i64>) {
        self.index.reaches(position, time);
    }

    /// The log is confirmed up to here, or its last whole record begins here.
    pub fn confirm(&self, physical: u64) {
        self.confirmed.store(physical, Ordering::Release);
    }

    pub fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Acquire)
    }

    /// The log is about to end at `end`: what comes behind it from now on is not on the disk.
    pub fn lower(&self, end: u64) {
        for durable in [&self.log, &self.queues, &self.index] {
            durable.position.fetch_min(end, Ordering::AcqRel);
        }
        self.confirmed.fetch_min(end, Ordering::AcqRel);
        self.by_place.store(true, Ordering::Release);
    }

    /// [`Checkpoint::lower`], and the last record before that has this store time.
    pub fn lower_to_record(&self, end: u64, timestamp: i64) {
        self.lower(end);
        for durable in [&self.log, &self.queues, &self.index] {
            durable.time.fetch_min(timestamp, Ordering::AcqRel);
        }
    }

    /// The log is empty now and begins at `begin`; there is no inventory.
    pub fn begin_anew(&self, begin: u64) {
        [&self.log, &self.queues, &self.index].into_iter().for_each(|part| part.only_to(0));
        self.by_place.store(true, Ordering::Release);
        self.confirm(0);
        self.log_begins_at(begin);
        self.has_inventory.store(false, Ordering::Release);
    }

    /// Records from `position` on are about to be put into the queues again: until all are, none of them counts as being there.
    pub fn queues_begin_again(&self, position: u64) {
        self.queues.only_to(position);
    }

    /// [`Checkpoint::queues_begin_again`] for the index.
    pub fn index_begins_again(&self, position: u64) {
        self.index.only_to(position);
    }

    /// Records stored up to this time are in the log and in the queues, on the disk.
    pub fn recovery_start(&self) -> i64 {
        (self.log.time().min(self.queues.time()) - MARGIN_MS).max(0)
    }

    /// Store time of the last record whose index entries are on the disk.
    pub fn index_time(&self) -> i64 {
        self.index.time()
    }

    /// Records stored up to this time are in the index, on the disk.
    pub fn index_recovery_start(&self) -> i64 {
        (self.index.time() - MARGIN_MS).max(0)
    }

    /// The positions that the file has.
    pub fn saved(&self) -> Option<DurableUpTo> {
        match told_by(&self.written.lock()) {
            CheckpointContent::Places(places) => Some(places),
            CheckpointContent::Times | CheckpointContent::Nothing => None,
        }
    }

    /// The next save writes, changed or not: what the file said when it was opened may be in memory only, from before a kill.
    pub fn write_again(&self) {
        *self.written.lock() = [0xFF; USED_LEN];
    }

    /// Writes the fields out if they changed.
    pub fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut written = self.written.lock();
        let mut bytes = [0; USED_LEN];
        let parts = [&self.log, &self.queues, &self.index];
        for (field, part) in bytes[..WITNESS_LEN].chunks_exact_mut(8).zip(parts) {
            field.copy_from_slice(&part.time().to_be_bytes());
        }
        bytes[24..32].copy_from_slice(&self.master_flushed.load(Ordering::Acquire).to_be_bytes());
        let by_place = self.by_place.load(Ordering::Acquire);
        // After a power cut the log may end where it was on the disk, and something else may come there.
        let confirmed =
            self.confirmed.load(Ordering::Acquire).min(if by_place { self.log.position() } else { u64::MAX });
        bytes[32..TIMES_LEN].copy_from_slice(&confirmed.to_be_bytes());
        if by_place {
            bytes[MAGIC_AT..POSITIONS_AT].copy_from_slice(&MAGIC);
            for (field, part) in bytes[POSITIONS_AT..WITNESS_AT].chunks_exact_mut(8).zip(parts) {
                field.copy_from_slice(&part.position().to_be_bytes());
            }
            bytes.copy_within(..WITNESS_LEN, WITNESS_AT);
            let crc = crc32fast::hash(&bytes[MAGIC_AT..CRC_AT]);
            bytes[CRC_AT..BEGIN_AT].copy_from_slice(&crc.to_be_bytes());
            bytes[BEGIN_AT..BEGIN_CRC_AT].copy_from_slice(&self.log_begin.load(Ordering::Acquire).to_be_bytes());
            let crc = crc32fast::hash(&bytes[MAGIC_AT..BEGIN_CRC_AT]);
            bytes[BEGIN_CRC_AT..INVENTORY_AT].copy_from_slice(&crc.to_be_bytes());
        }
        if let Some(id) = self.store() {
            let said = if self.inventory().is_some() { &INVENTORY } else { &NO_INVENTORY };
            bytes[INVENTORY_AT..INVENTORY_ID_AT].copy_from_slice(said);
            bytes[INVENTORY_ID_AT..].copy_from_slice(&id.to_be_bytes());
        }
        if *written != bytes {
            disk.write(&self.path, &self.file, &bytes, 0)?;
            disk.sync_file(&self.path, &self.file).map_err(sync_failed)?;
            *written = bytes;
        }
        Ok(())
    }
}

/// What a file says, for who only looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointFile {
    /// Store times of the last records whose bytes, queue entries and index entries are on the disk. Milliseconds.
    pub log_time: i64,
    pub queues_time: i64,
    pub index_time: i64,
    pub master_flushed: u64,
    pub confirmed: u64,
    pub places: Places,
    /// The id of the store.
    pub store: Option<u64>,
}

/// What a file says by places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// Nothing: it is Java's, or new.
    None,
    Hold {
        up_to: DurableUpTo,
        begin: LogBegin,
    },
    /// Somebody has moved the times since, as Java's broker does.
    Outdated,
    /// The CRC does not hold, or what should be there is something else.
    Damaged,
}

/// Where the log begins, by a file whose places hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogBegin {
    /// It is from before that was written.
    Unsaid,
    At(u64),
    Damaged,
}

impl CheckpointFile {
    /// Of the store in a directory; `None` where there is none.
    pub fn read(root: &Path) -> Result<Option<CheckpointFile>, OpenError> {
        let path = root.join("checkpoint");
        match std::fs::read(&path) {
            Ok(bytes) => Ok(CheckpointFile::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(OpenError::Io { doing: "read", path, source }),
        }
    }

    /// How far consumers could see the log: it is confirmed to there, and of what was not nothing is in the queues. `None` where nobody knows,
    /// or the file is a Java broker's.
    pub fn confirmed_up_to(&self) -> Option<PhysicalOffset> {
        match self.places {
            Places::Hold { up_to, .. } => Some(PhysicalOffset(self.confirmed.max(up_to.queues))),
            Places::None | Places::Outdated | Places::Damaged => None,
        }
    }

    /// `None` for bytes that are too few to be one.
    pub fn decode(bytes: &[u8]) -> Option<CheckpointFile> {
        let bytes: &[u8; USED_LEN] = bytes.first_chunk()?;
        let places = match told_by(bytes) {
            CheckpointContent::Places(up_to) => {
                let begin = match begin_in(bytes) {
                    Some(begin) => LogBegin::At(begin),
                    None if bytes[BEGIN_AT..INVENTORY_AT] == [0; INVENTORY_AT - BEGIN_AT] => LogBegin::Unsaid,
                    None => LogBegin::Damaged,
                };
                Places::Hold { up_to, begin }
            }
            _ if bytes[MAGIC_AT..INVENTORY_AT].iter().all(|byte| *byte == 0) => Places::None,
            CheckpointContent::Times => Places::Outdated,
            CheckpointContent::Nothing => Places::Damaged,
        };
        Some(CheckpointFile {
            log_time: long_at(bytes, 0).cast_signed(),
            queues_time: long_at(bytes, 8).cast_signed(),
            index_time: long_at(bytes, 16).cast_signed(),
            master_flushed: long_at(bytes, 24),
            confirmed: long_at(bytes, 32),
            places,
            store: store_in(bytes),
        })
    }
}

fn crc_holds(bytes: &[u8; USED_LEN]) -> bool {
    bytes[CRC_AT..BEGIN_AT] == crc32fast::hash(&bytes[MAGIC_AT..CRC_AT]).to_be_bytes()
}

fn told_by(bytes: &[u8; USED_LEN]) -> CheckpointContent {
    let long = |at: usize| long_at(bytes, at);
    let ours = &bytes[MAGIC_AT..BEGIN_AT];
    if ours.iter().all(|byte| *byte == 0) {
        let is_time = |at: usize| (0..LAST_MS).contains(&long(at).cast_signed());
        let is_blank = bytes[..WITNESS_LEN].iter().all(|byte| *byte == 0);
        return if is_blank || ![0, 8, 16].into_iter().all(is_time) {
            CheckpointContent::Nothing
        } else {
            CheckpointContent::Times
        };
    }
    if bytes[MAGIC_AT..POSITIONS_AT] != MAGIC || !crc_holds(bytes) {
        return CheckpointContent::Nothing;
    }
    let differing = bytes[..WITNESS_LEN]
        .iter()
        .zip(&bytes[WITNESS_AT..CRC_AT])
        .map(|(time, witness)| (time ^ witness).count_ones());
    match differing.sum() {
        0 => {}
        // A bit that flipped, and nobody knows how far from the truth that is.
        1 => return CheckpointContent::Nothing,
        // Somebody has moved the times since they were written.
        _ => return CheckpointContent::Times,
    }
    CheckpointContent::Places(DurableUpTo {
        log: long(POSITIONS_AT),
        queues: long(POSITIONS_AT + 8),
        index: long(POSITIONS_AT + 16),
    })
}

/// The id of the store.
fn store_in(bytes: &[u8; USED_LEN]) -> Option<u64> {
    let said = [INVENTORY, NO_INVENTORY].iter().any(|said| bytes[INVENTORY_AT..INVENTORY_ID_AT] == *said);
    Some(long_at(bytes, INVENTORY_ID_AT)).filter(|id| said && (1..=u64::MAX >> 1).contains(id))
}

/// Where the log begins, in a file whose positions hold.
fn begin_in(bytes: &[u8; USED_LEN]) -> Option<u64> {
    let holds = bytes[BEGIN_CRC_AT..INVENTORY_AT] == crc32fast::hash(&bytes[MAGIC_AT..BEGIN_CRC_AT]).to_be_bytes();
    holds.then(|| long_at(bytes, BEGIN_AT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;

    #[test]
    fn the_captured_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let checkpoint = Checkpoint::open(path.clone()).unwrap();
        assert_eq!(checkpoint.recovery_start(), 0);
        checkpoint.log_is_durable(0, Some(1_795_222_173_031));
        checkpoint.queues_are_durable(0, Some(1_795_222_173_031));
        checkpoint.save(&LocalDisk).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 4096);
        assert_eq!(bytes[..16], *b"\0\0\x01\xa1\xfb\x94\x75\x67\0\0\x01\xa1\xfb\x94\x75\x67");
        assert!(bytes[16..MAGIC_AT].iter().all(|byte| *byte == 0));
        let again = Checkpoint::open(path).unwrap();
        assert_eq!((again.recovery_start(), again.index_recovery_start()), (1_795_222_170_031, 0));
    }

    #[test]
    fn positions_hold_until_somebody_else_writes_times() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let checkpoint = Checkpoint::open(path.clone()).unwrap();
        assert_eq!(checkpoint.found(), None);
        checkpoint.log_is_durable(900, Some(1_000));
        checkpoint.queues_are_durable(800, None);
        checkpoint.index_is_durable(700, None);
        checkpoint.save(&LocalDisk).unwrap();
        let found = || Checkpoint::open(path.clone()).unwrap().found();
        assert_eq!(found(), Some(DurableUpTo { log: 900, queues: 800, index: 700 }));
        checkpoint.lower(750);
        checkpoint.save(&LocalDisk).unwrap();
        assert_eq!(found(), Some(DurableUpTo { log: 750, queues: 750, index: 700 }));
        // Any flipped bit of them, and a Java broker that went on from here.
        let good = std::fs::read(&path).unwrap();
        for at in MAGIC_AT..BEGIN_AT {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert_eq!(Checkpoint::open(path.clone()).unwrap().told(), CheckpointContent::Nothing, "byte {at}");
        }
        checkpoint.log_begins_at(4096);
        checkpoint.save(&LocalDisk).unwrap();
        let begin = || Checkpoint::open(path.clone()).unwrap().found_begin();
        assert_eq!(begin(), Some(4096));
        let with_begin = std::fs::read(&path).unwrap();
        for at in MAGIC_AT..INVENTORY_AT {
            let mut bad = with_begin.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert_eq!((begin(), found().is_some()), (None, at >= BEGIN_AT), "byte {at}");
        }
        // Of a version that did not know where the log begins.
        let mut old = with_begin;
        old[BEGIN_AT..USED_LEN].fill(0);
        std::fs::write(&path, old).unwrap();
        assert_eq!((begin(), found().is_some()), (None, true));
        let mut java = good.clone();
        for at in 0..WITNESS_LEN {
            java[at] ^= 0x10;
            std::fs::write(&path, &java).unwrap();
            let told = Checkpoint::open(path.clone()).unwrap().told();
            assert_eq!(told, CheckpointContent::Nothing, "a bit flipped in byte {at} of the times");
            java[at] ^= 0x10;
        }
        java[7] += 7;
        java[15] += 7;
        std::fs::write(&path, java).unwrap();
        assert_eq!(Checkpoint::open(path.clone()).unwrap().told(), CheckpointContent::Times);
    }

    #[test]
    fn what_begins_again_counts_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let checkpoint = Checkpoint::open(path.clone()).unwrap();
        // Of a file that has times only, no positions are made up.
        checkpoint.log.time.store(9_000, Ordering::Release);
        checkpoint.queues_begin_again(5);
        checkpoint.save(&LocalDisk).unwrap();
        let again = Checkpoint::open(path.clone()).unwrap();
        assert_eq!((again.found(), again.log_time(), again.recovery_start()), (None, 9_000, 0));
        checkpoint.log_is_durable(900, Some(9_000));
        checkpoint.queues_are_durable(800, Some(8_000));
        checkpoint.index_is_durable(700, Some(7_000));
        checkpoint.queues_begin_again(850);
        checkpoint.index_begins_again(300);
        checkpoint.save(&LocalDisk).unwrap();
        let again = Checkpoint::open(path).unwrap();
        assert_eq!(again.found(), Some(DurableUpTo { log: 900, queues: 800, index: 300 }));
        // Java's broker begins with the first record then.
        assert_eq!((again.recovery_start(), again.index_recovery_start()), (0, 0));
    }
}
