//! Starts on directories that were damaged at random: each opens with everything that is left, or says what is wrong and changes nothing.
//!
//! `FERROMQ_DAMAGE_CASES=1000` makes it more cases, `FERROMQ_DAMAGE_SEED=n` one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use ferromq_protocol::message::Record;
use ferromq_protocol::{PhysicalOffset, QueueId};

use super::*;
use crate::testing::*;
use crate::{Effort, LocalDisk};

/// The same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    topic: &'static str,
    queue: u32,
    offset: u64,
    body: Vec<u8>,
    physical: u64,
    len: usize,
}

impl Sent {
    fn place(&self) -> Place {
        (self.topic, self.queue, self.offset)
    }
}

/// Topic, queue and offset.
type Place = (&'static str, u32, u64);

const QUEUES: [(&str, u32); 7] = [("A", 0), ("A", 1), ("A", 2), ("B", 0), ("%RETRY%g", 0), ("C", 5), ("Gone", 0)];
/// Two pages, so that a segment that is cut can be told from one of another setting.
const SEGMENT_LEN: u64 = 8192;

/// Queues that starts on damaged directories have taken from the list.
static FROM_LIST: AtomicUsize = AtomicUsize::new(0);

/// A directory and what was put into it.
struct Known {
    site: Site,
    sent: Vec<Sent>,
    /// Where the log says that topic `Gone` is deleted.
    deletion: Option<(u64, usize)>,
    clean: bool,
    /// The files as they were before the damage.
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// The log was known to be on the disk up to here.
    vouched: u64,
}

/// Nothing gets to the disk by itself, so that a seed gives the same each time.
fn config(site: &Site) -> StoreConfig {
    let never = Duration::from_secs(3600);
    StoreConfig {
        segment_len: SEGMENT_LEN,
        flush: FlushMode::Async { interval: never, least_pages: 0, thorough_interval: never },
        queue_flush_interval: never,
        queue_flush_thorough_interval: never,
        ..site.config()
    }
}

impl Known {
    fn make(dice: &mut Dice, salt: u8) -> Known {
        let mut known = Known {
            site: Site::new(),
            sent: Vec::new(),
            deletion: None,
            clean: false,
            files: BTreeMap::new(),
            vouched: 0,
        };
        known.site.advance(i64::from(salt) * 1_000_003);
        for _ in 0..1 + dice.below(3) {
            let store = Store::open(config(&known.site)).unwrap();
            for _ in 0..20 + dice.below(120) {
                known.step(&store, dice, salt);
            }
            settle(&store);
            known.clean = !dice.one_in(3);
            if known.clean {
                store.close().unwrap();
            }
        }
        let checkpoint = fs::read(root(&known.site).join("checkpoint")).unwrap();
        let copy = known.site.dir.path().join("copy");
        fs::write(&copy, checkpoint).unwrap();
        known.vouched = Checkpoint::open(copy).unwrap().found().unwrap().log;
        for path in files_below(&root(&known.site)) {
            let bytes = fs::read(&path).unwrap();
            known.files.insert(path, bytes);
        }
        known
    }

    fn step(&mut self, store: &Store, dice: &mut Dice, salt: u8) {
        self.site.advance(100);
        let (topic, queue) = *dice.pick(&QUEUES);
        match dice.below(40) {
            0 if topic == "Gone" || dice.one_in(3) => {
                settle(store);
                if store.delete_topic("Gone").unwrap() {
                    let len = crate::table_change::topic_deleted("Gone", 0).unwrap().len() as u64;
                    self.deletion = Some((store.watermarks().written.0 - len, len as usize));
                    self.sent.retain(|sent| sent.topic != "Gone");
                }
            }
            1 => {
                settle(store);
                store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&LocalDisk)).unwrap();
            }
            2 => {
                let body = self.body(dice, salt, 0);
                let mut half = message("A", 0, &body, "");
                half.sys_flag = ferromq_protocol::message::SysFlag(0x4);
                store.append(&half).unwrap();
            }
            3..8 => {
                let bodies: Vec<_> = (0..2 + dice.below(4)).map(|at| self.body(dice, salt, at)).collect();
                let keys: Vec<_> = bodies.iter().map(|body| key(body)).collect();
                let batch: Vec<_> =
                    bodies.iter().zip(&keys).map(|(body, key)| message(topic, queue, body, key)).collect();
                let placed = store.append_batch(&batch).unwrap();
                let lens: Vec<_> = batch.iter().map(|message| message.record_len()).collect();
                drop(batch);
                for (at, body) in bodies.into_iter().enumerate() {
                    let offset = placed.queue_offset.0 + at as u64;
                    let physical = placed.physical_offsets[at].0;
                    self.sent.push(Sent { topic, queue, offset, body, physical, len: lens[at] });
                }
            }
            _ => {
                let body = self.body(dice, salt, 0);
                let placed = store.append(&message(topic, queue, &body, &key(&body))).unwrap();
                let (offset, physical, len) = (placed.queue_offset.0, placed.physical_offset.0, placed.record_len);
                self.sent.push(Sent { topic, queue, offset, body, physical, len });
            }
        }
    }

    /// One that no other message has.
    fn body(&self, dice: &mut Dice, salt: u8, at: usize) -> Vec<u8> {
        let number = u32::try_from(self.sent.len() + at).unwrap();
        let mut body = vec![salt; 4 + dice.below(200)];
        body.extend(number.to_be_bytes());
        body
    }

    fn root(&self) -> PathBuf {
        root(&self.site)
    }

    fn segment(&self, physical: u64) -> PathBuf {
        self.root().join("commitlog").join(files::segment_name(physical - physical % SEGMENT_LEN))
    }

    /// Whether the bytes of a record are as they were.
    fn is_intact(&self, now: &BTreeMap<PathBuf, Vec<u8>>, physical: u64, len: usize) -> bool {
        let path = self.segment(physical);
        let at = usize::try_from(physical % SEGMENT_LEN).unwrap();
        let then = self.files.get(&path).and_then(|bytes| bytes.get(at..at + len));
        then.is_some() && then == now.get(&path).and_then(|bytes| bytes.get(at..at + len))
    }

    fn now(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files_below(&self.root()).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

fn key(body: &[u8]) -> String {
    format!("UNIQ_KEY\u{1}{}\u{2}TAGS\u{1}t\u{2}", unique_key(body))
}

fn unique_key(body: &[u8]) -> String {
    body[body.len() - 8..].iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn dirs_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.into_iter().filter(|path| path.is_dir()) {
        found.extend(dirs_below(&path));
        found.push(path);
    }
    found
}

/// The salts: a message of another broker is known by its body.
const OURS: u8 = 1;
const OTHERS: u8 = 2;

/// Does something to the directory, and says what.
fn damage(known: &Known, other: &Known, dice: &mut Dice) -> String {
    let root = known.root();
    let (files, dirs) = (files_below(&root), dirs_below(&root));
    if files.is_empty() {
        return "nothing is left to be damaged".to_owned();
    }
    let file = dice.pick(&files).clone();
    let short = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
    let bytes = fs::read(&file).unwrap();
    match dice.below(14) {
        0 | 1 if !bytes.is_empty() => {
            let len = dice.below(bytes.len());
            fs::write(&file, &bytes[..len]).unwrap();
            format!("{} cut to {len}", short(&file))
        }
        2..5 if !bytes.is_empty() => {
            let mut flipped = bytes;
            // Mostly where something is.
            let end = if dice.one_in(4) {
                flipped.len()
            } else {
                flipped.iter().rposition(|byte| *byte != 0).map_or(flipped.len(), |last| last + 1)
            };
            let mut said = format!("bits flipped in {}:", short(&file));
            for _ in 0..1 + dice.below(6) {
                let (at, bit) = (dice.below(end), dice.below(8));
                flipped[at] ^= 1 << bit;
                write!(said, " {at}/{bit}").unwrap();
            }
            fs::write(&file, flipped).unwrap();
            said
        }
        5 if !bytes.is_empty() => {
            let mut zeroed = bytes;
            let from = dice.below(zeroed.len());
            let to = zeroed.len().min(from + 1 + dice.below(600));
            zeroed[from..to].fill(0);
            fs::write(&file, zeroed).unwrap();
            format!("{} zero from {from} to {to}", short(&file))
        }
        6 => {
            fs::remove_file(&file).unwrap();
            format!("{} removed", short(&file))
        }
        7 | 8 if !dirs.is_empty() => {
            let dir = dice.pick(&dirs);
            fs::remove_dir_all(dir).unwrap();
            format!("directory {} removed", short(dir))
        }
        9 => {
            // Mostly two of a kind.
            let near: Vec<_> = files.iter().filter(|path| path.parent() == file.parent()).cloned().collect();
            let with = if dice.one_in(3) { dice.pick(&files).clone() } else { dice.pick(&near).clone() };
            let second = fs::read(&with).unwrap();
            fs::write(&file, second).unwrap();
            fs::write(&with, bytes).unwrap();
            format!("{} and {} swapped", short(&file), short(&with))
        }
        10 => {
            let others = files_below(&other.root());
            let same = other.root().join(file.strip_prefix(&root).unwrap());
            let from = if same.exists() && !dice.one_in(4) { same } else { dice.pick(&others).clone() };
            fs::write(&file, fs::read(&from).unwrap()).unwrap();
            format!("{} of another broker as {}", from.strip_prefix(other.root()).unwrap().display(), short(&file))
        }
        11 => {
            let dir = if dirs.is_empty() || dice.one_in(5) { root.clone() } else { dice.pick(&dirs).clone() };
            let name = *dice.pick(&["x", "7", "core.1234", "00000000000000000064", ".nfs0001", "topics.json~"]);
            let garbage: Vec<u8> = (0..dice.below(700)).map(|_| dice.next().to_be_bytes()[0]).collect();
            let path = dir.join(name);
            if path.exists() {
                return "nothing".to_owned();
            }
            fs::write(&path, garbage).unwrap();
            format!("garbage as {}", short(&path))
        }
        12 => {
            fs::remove_file(&file).unwrap();
            fs::create_dir(&file).unwrap();
            format!("a directory as {}", short(&file))
        }
        13 if !dirs.is_empty() => {
            let dir = dice.pick(&dirs);
            fs::remove_dir_all(dir).unwrap();
            fs::write(dir, b"no directory").unwrap();
            format!("a file as {}", short(dir))
        }
        _ => {
            fs::write(&file, b"").unwrap();
            format!("{} empty", short(&file))
        }
    }
}

fn owned((topic, queue, offset): (&str, u32, u64)) -> (String, u32, u64) {
    (topic.to_owned(), queue, offset)
}

/// What a start and reading have said at WARN and ERROR.
struct Audit<'a> {
    known: &'a Known,
    /// The files after the damage.
    damaged: &'a BTreeMap<PathBuf, Vec<u8>>,
    what: &'a str,
}

impl Audit<'_> {
    /// What stands in the log now that is not as it was, and says that it is a message of a queue.
    fn claims(&self) -> BTreeSet<(String, u32, u64)> {
        let mut claims = BTreeSet::new();
        let dir = self.known.root().join("commitlog");
        for (path, bytes) in self.damaged.iter().filter(|(path, _)| path.starts_with(&dir)) {
            let start = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            let Some(start) = start else { continue };
            for at in 0..bytes.len() {
                if let Ok(record) = Record::parse(&bytes[at..])
                    && record.physical_offset().0 == start + at as u64
                    && !self.known.is_intact(self.damaged, start + at as u64, record.record_len())
                {
                    claims.insert((record.topic().to_owned(), record.queue_id().0, record.queue_offset().0));
                }
            }
        }
        claims
    }

    /// What says that there is no (further) entry of a slot looks as if there had never been one.
    fn has_ended_chains(&self) -> bool {
        let (slots, entry_len) = (40..40 + 31 * 4, 20);
        let in_index = self.damaged.iter().filter(|(path, _)| path.parent().is_some_and(|dir| dir.ends_with("index")));
        in_index.into_iter().any(|(path, now)| {
            let Some(then) = self.known.files.get(path).filter(|then| then.len() == now.len()) else { return false };
            let links = (slots.end..now.len()).step_by(entry_len).map(|at| at + 16..at + 20);
            let mut ended = links.filter(|link| now[link.clone()] == [0; 4] && then[link.clone()] != [0; 4]);
            then[slots.clone()] != now[slots.clone()] || ended.next().is_some()
        })
    }

    /// Whether whole records stand in the log that this broker never wrote.
    fn has_strange_log(&self) -> bool {
        let dir = self.known.root().join("commitlog");
        let mut bytes =
            self.damaged.iter().filter(|(path, _)| path.starts_with(&dir)).flat_map(|(_, bytes)| bytes.windows(16));
        bytes.any(|window| window == [OTHERS; 16])
    }

    fn is_listed(&self) -> bool {
        let inventory = self.known.root().join("inventory");
        self.damaged.get(&inventory) == self.known.files.get(&inventory)
    }

    /// Where its record now says that it is.
    fn stated(&self, sent: &Sent) -> Option<(String, u32, u64)> {
        let bytes = self
            .damaged
            .get(&self.known.segment(sent.physical))?
            .get(usize::try_from(sent.physical % SEGMENT_LEN).unwrap()..)?;
        let record = Record::parse(bytes).ok()?;
        Some((record.topic().to_owned(), record.queue_id().0, record.queue_offset().0))
    }

    fn intact(&self, sent: &Sent) -> bool {
        self.known.is_intact(self.damaged, sent.physical, sent.len)
    }

    /// Opens the store, and holds all that can be read against what was sent. Gives what can be read.
    fn open_and_check(&self, log: &TraceLog) -> Result<Option<BTreeSet<Place>>, OpenError> {
        let (known, what) = (self.known, self.what);
        let store = Store::open(config(&known.site))?;
        FROM_LIST.fetch_add(store.queues.all().iter().filter(|queue| queue.is_listed()).count(), Ordering::Relaxed);
        if self.has_strange_log() {
            // Nothing says that a part of the log is another broker's, if it is not the list that is whole.
            assert!(!self.is_listed() || !known.clean, "another broker's log is believed: {what}\n{}", log.text());
            return Ok(None);
        }
        let end = store.watermarks().written.0;
        let min = store.watermarks().min.0;
        let mut found = BTreeMap::new();
        for (topic, queue) in QUEUES {
            let mut last = None;
            for (offset, body) in read_whole_bodies(&store, topic, queue, 0) {
                assert!(last.is_none_or(|last| last < offset), "{topic}/{queue}: {offset} after {last:?}: {what}");
                last = Some(offset);
                found.insert((topic, queue, offset), body);
            }
        }
        let said = log.text();
        let claimed = self.claims();
        let listed = self.is_listed();
        let is_claimed = |place| claimed.contains(&owned(place));
        let deletion_holds =
            known.deletion.is_none_or(|(at, len)| at + len as u64 <= end && known.is_intact(self.damaged, at, len));
        let sent: BTreeMap<_, _> = known.sent.iter().map(|sent| (sent.place(), sent)).collect();
        for (place, body) in &found {
            let invented = match sent.get(place) {
                Some(sent) => sent.body != *body,
                None => true,
            } && (place.0 != "Gone" || deletion_holds);
            assert!(!invented || is_claimed(*place), "{place:?} was never sent so: {what}\n{said}");
        }
        for sent in &known.sent {
            let here = found.contains_key(&sent.place());
            let kept = sent.physical >= min && sent.physical + sent.len as u64 <= end;
            let deleted_by_damage = sent.topic == "Gone" && !deletion_holds;
            // No checksum covers where it says that it is.
            let elsewhere = self.stated(sent).is_some_and(|stated| stated != owned(sent.place()));
            if here || elsewhere || is_claimed(sent.place()) || deleted_by_damage {
                continue;
            }
            if self.intact(sent) && sent.physical >= min {
                let cut = !kept && sent.physical + sent.len as u64 > known.vouched;
                assert!(
                    cut,
                    "{:?} at {} is whole and not there; the log goes from {min} to {end}, vouched for up to {}: {what}\n{said}",
                    sent.place(),
                    sent.physical,
                    known.vouched
                );
            }
            // Nothing goes without a word.
            let segment = known.segment(sent.physical);
            assert!(
                said.contains(&*segment.to_string_lossy()) || !kept && said.contains("behind the end of the log"),
                "{:?} at {} is gone, and nobody says so: {what}\n{said}",
                sent.place(),
                sent.physical
            );
        }
        for sent in known.sent.iter().filter(|sent| found.contains_key(&sent.place()) && self.intact(sent)) {
            let hits = query_bodies(&store, sent.topic, &unique_key(&sent.body));
            let hit = hits.contains(&sent.body);
            assert!(
                hit || log.text().contains("index") || self.has_ended_chains(),
                "{:?} is not found by its key: {what}\n{said}",
                sent.place()
            );
            if hit {
                let bytes = store.message_at(PhysicalOffset(sent.physical), Effort::Full).unwrap().unwrap();
                assert_eq!(Record::parse(&bytes).unwrap().body(), sent.body, "{what}");
            }
        }
        for (topic, queue) in QUEUES {
            let of_queue = || known.sent.iter().filter(|sent| (sent.topic, sent.queue) == (topic, queue));
            let after = of_queue()
                .filter(|sent| {
                    listed
                        && sent.physical + sent.len as u64 <= known.vouched
                        && sent.physical + (sent.len as u64) <= end
                })
                .map(|sent| sent.offset + 1)
                .max();
            let placed = store.append(&message(topic, queue, b"new", "")).unwrap();
            let given =
                found.keys().filter(|(t, q, _)| (*t, *q) == (topic, queue)).map(|(_, _, offset)| offset + 1).max();
            assert!(
                placed.queue_offset.0 >= after.max(given).unwrap_or(0),
                "{topic}/{queue} gives {} again, after {after:?} and {given:?}: {what}\n{said}",
                placed.queue_offset
            );
            settle(&store);
            let read = read_whole_bodies(&store, topic, queue, placed.queue_offset.0);
            assert_eq!(read, [(placed.queue_offset.0, b"new".to_vec())], "{what}\n{said}");
            assert_eq!(store.queue_bounds(topic, QueueId(queue)).unwrap().max.0, placed.queue_offset.0 + 1, "{what}");
        }
        store.close().unwrap();
        Ok(Some(found.into_keys().collect()))
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed);
    let known = Known::make(&mut dice, OURS);
    let other = Known::make(&mut dice, OTHERS);
    let mut done = vec![format!("seed {seed}, {}", if known.clean { "closed" } else { "killed" })];
    for _ in 0..1 + dice.below(3) {
        done.push(damage(&known, &other, &mut dice));
    }
    let what = done.join("; ");
    let damaged = known.now();
    let log = TraceLog::default();
    let audit = Audit { known: &known, damaged: &damaged, what: &what };
    log.capture(|| match audit.open_and_check(&log) {
        Ok(None) => {}
        Ok(Some(found)) => {
            let again = Store::open(config(&known.site)).unwrap();
            for (topic, queue) in QUEUES {
                let mut bodies = read_whole_bodies(&again, topic, queue, 0);
                let new = bodies.pop();
                assert!(new.is_some_and(|(_, body)| body == b"new"), "{what}");
                let offsets: Vec<_> = bodies.iter().map(|(offset, _)| *offset).collect();
                let before: Vec<_> =
                    found.iter().filter(|(t, q, _)| (*t, *q) == (topic, queue)).map(|(_, _, offset)| *offset).collect();
                assert_eq!(offsets, before, "{topic}/{queue} at the second start: {what}\n{}", log.text());
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(&*known.root().to_string_lossy()), "no file: {text}: {what}");
            let remedies = ["Put it back", "Put the file back", "Move it away", "Set ", "Mount "];
            assert!(remedies.iter().any(|remedy| text.contains(remedy)), "no remedy: {text}: {what}");
            // Who does as he is told loses nothing more.
            let dir = known.root().join("commitlog");
            for path in [dir.clone(), known.root().join("lock")] {
                let _ = fs::remove_file(&path);
                files::remove_dir(&LocalDisk, &path).unwrap();
            }
            fs::create_dir(&dir).unwrap();
            for (path, bytes) in known.files.iter().filter(|(path, _)| path.starts_with(&dir)) {
                fs::write(path, bytes).unwrap();
            }
            let repaired = known.now();
            let audit = Audit { damaged: &repaired, ..audit };
            if let Err(error) = audit.open_and_check(&log) {
                // A setting, or what else is beside the log.
                assert!(!error.to_string().contains("commitlog"), "{error}: {what}");
            }
        }
    });
}

#[test]
fn a_start_on_a_damaged_directory_repairs_and_says_so_or_refuses_and_says_why() {
    let of_env = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seeds = match of_env("FERROMQ_DAMAGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..of_env("FERROMQ_DAMAGE_CASES").unwrap_or(100),
    };
    let mut failed = Vec::new();
    let is_one = seeds.end - seeds.start == 1;
    for seed in seeds {
        let (done, outcome) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            run(seed);
            done.send(()).unwrap();
        });
        match outcome.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("seed {seed} hangs"),
            _ => failed.extend(thread.join().is_err().then_some(seed)),
        }
    }
    assert!(failed.is_empty(), "FERROMQ_DAMAGE_SEED is one of {failed:?}");
    assert!(is_one || FROM_LIST.load(Ordering::Relaxed) > 0, "no start has taken a queue from the list");
}
